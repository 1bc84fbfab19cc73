// Hostile declarations of classes. All or nothing of a file counts, and what counts can be used.
#include <stdlib.h>

#include "cim/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 16 << 10) // each class has a copy of all that it inherits
        return 0;
    RP_CLEANUP(rp_cim_schema_free_p) struct rp_cim_schema *schema = rp_cim_schema_new("root/test");
    bool good = !rp_cim_schema_load(schema, (const char *)data, size, "input", NULL);
    if (!good && rp_cim_schema_count(schema))
        abort();
    for (size_t i = 0; i < rp_cim_schema_count(schema); i++) {
        const struct rp_cim_class *class = rp_cim_schema_at(schema, i);
        if (rp_cim_schema_class(schema, class->name) != class)
            abort();
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_class_instance(class);
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_class_path(class, instance);
        bool key = class->singleton;
        for (size_t p = 0; p < class->property_count; p++)
            key |= class->properties[p].key;
        if (rp_cim_class_type(class, instance, NULL) || key != (path != NULL))
            abort();
    }
    return 0;
}
