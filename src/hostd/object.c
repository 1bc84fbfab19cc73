// Setting properties of instances by the declarations of their class.
#include "hostd/core.h"

void rp_hostd_object_set(struct rp_cim_instance *instance, const struct rp_cim_class *class, const char *name,
                         struct rp_cim_value value)
{
    const struct rp_cim_declaration *declared = rp_cim_class_property(class, name);
    if (declared && !rp_cim_value_is_null(&value) &&
        !rp_cim_value_convert(&value, declared->type, declared->array, NULL))
        rp_cim_set(instance, declared->name, value);
    else
        rp_cim_value_clear(&value);
}

void rp_hostd_object_add(struct rp_cim_instance *instance, const struct rp_cim_class *class, const char *name,
                         struct rp_cim_value item)
{
    const struct rp_cim_declaration *declared = rp_cim_class_property(class, name);
    if (!declared || rp_cim_value_convert(&item, declared->type, false, NULL)) {
        rp_cim_value_clear(&item);
        return;
    }
    const struct rp_cim_value *old = rp_cim_get(instance, name);
    struct rp_cim_value array = old && old->array ? rp_cim_value_copy(old) : rp_cim_null(declared->type, true);
    rp_cim_value_push(&array, &item);
    rp_cim_set(instance, declared->name, array);
}
