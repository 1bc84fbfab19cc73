// Settings that this host keeps for others: CIM-XML instances, one after the other (rp_host_local_extras).
#include <string.h>
#include <strings.h>

#include "host/cim_text.h"
#include "hostd/core.h"

int rp_hostd_extras_parse(const char *text, struct rp_cim_instances *instances, struct rp_error *err)
{
    return rp_cim_text_parse(text, instances, err);
}

int rp_hostd_extras_load(struct rp_host_connection *host, const char *id, struct rp_cim_instances *extras,
                         struct rp_error *err)
{
    RP_AUTO_FREE char *text = NULL;
    if (rp_host_local_extras(host, id, &text, err))
        return -1;
    return rp_hostd_extras_parse(text, extras, err) ? rp_context(err, "%s", id) : 0;
}

char *rp_hostd_extras_text(const struct rp_cim_instances *extras, struct rp_error *err)
{
    return rp_cim_text_format(extras, err);
}

int rp_hostd_extras_store(struct rp_host_connection *host, const char *vm_id, const struct rp_cim_instances *extras,
                          struct rp_error *err)
{
    RP_AUTO_FREE char *text = rp_hostd_extras_text(extras, err);
    return text ? rp_host_local_set_extras(host, vm_id, text, err) : -1;
}

struct rp_cim_instance *rp_hostd_extras_find(const struct rp_cim_instances *extras, const char *class_name,
                                              const char *suffix)
{
    for (size_t i = 0; i < extras->count; i++) {
        const char *id = rp_cim_get_text(extras->items[i], "InstanceID");
        if (!strcasecmp(id ? id : "", suffix) && (!class_name || !strcasecmp(extras->items[i]->class_name, class_name)))
            return extras->items[i];
    }
    return NULL;
}

void rp_hostd_extras_merge(struct rp_cim_instances *extras, const char *suffix, const struct rp_cim_instance *change)
{
    struct rp_cim_instance *kept = rp_hostd_extras_find(extras, change->class_name, suffix);
    if (!kept) {
        kept = rp_cim_instance_new(NULL, change->class_name);
        rp_cim_instances_push(extras, kept);
    }
    for (size_t i = 0; i < change->count; i++)
        if (!rp_cim_value_is_null(&change->properties[i].value))
            rp_cim_set(kept, change->properties[i].name, rp_cim_value_copy(&change->properties[i].value));
    rp_cim_set(kept, "InstanceID", rp_cim_string(suffix));
}
