#include "hostd/schema/schema.h"

#include <strings.h>

#include "hostd/schema/mof.h"

struct rp_cim_schema *rp_hostd_schema(const char *name_space, struct rp_error *err)
{
    struct rp_cim_schema *schema = NULL;
    for (size_t i = 0; i < rp_hostd_mof_count; i++) {
        const struct rp_hostd_mof *mof = &rp_hostd_mof[i];
        if (strcasecmp(mof->name_space, name_space))
            continue;
        if (!schema)
            schema = rp_cim_schema_new(mof->name_space);
        if (rp_cim_schema_load(schema, mof->text, mof->size, mof->name, err)) {
            rp_cim_schema_free(schema);
            return NULL;
        }
    }
    if (!schema)
        rp_fail(err, RP_ERR_NOT_FOUND, "there is no namespace %.100s here", name_space);
    return schema;
}
