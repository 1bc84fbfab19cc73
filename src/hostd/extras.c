// Settings that this host keeps for others: CIM-XML instances, one after the other (rp_host_local_extras).
#include <string.h>
#include <strings.h>

#include "cim/cimxml.h"
#include "hostd/core.h"

#define MAX_TEXT (1 << 20)
#define MAX_INSTANCES 256
#define END "</INSTANCE>"

// Embedded instances stand escaped in their values, so the end of an instance is the end of one at the top.
int rp_hostd_extras_parse(const char *text, struct rp_cim_instances *instances, struct rp_error *err)
{
    if (strlen(text) > MAX_TEXT)
        return rp_fail(err, RP_ERR_CORRUPT, "settings of more than 1 MiB");
    for (size_t count = 0; text[strspn(text, " \t\r\n")]; count++) {
        const char *end = strstr(text, END);
        if (!end || count == MAX_INSTANCES)
            return rp_fail(err, RP_ERR_CORRUPT, "settings: not a list of at most %d instances", MAX_INSTANCES);
        end += strlen(END);
        struct rp_cim_instance *instance = rp_cimxml_parse(text, (size_t)(end - text), err);
        if (!instance)
            return rp_context(err, "settings");
        rp_cim_instances_push(instances, instance);
        text = end;
    }
    return 0;
}

int rp_hostd_extras_load(struct rp_host_connection *host, const char *id, struct rp_cim_instances *extras,
                         struct rp_error *err)
{
    RP_AUTO_FREE char *text = NULL;
    if (rp_host_local_extras(host, id, &text, err))
        return -1;
    return rp_hostd_extras_parse(text, extras, err) ? rp_context(err, "%s", id) : 0;
}

int rp_hostd_extras_store(struct rp_host_connection *host, const char *vm_id, const struct rp_cim_instances *extras,
                          struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    for (size_t i = 0; i < extras->count; i++) {
        rp_cimxml_write(extras->items[i], &text);
        rp_buf_printf(&text, "\n");
    }
    if (text.size > MAX_TEXT || extras->count > MAX_INSTANCES)
        return rp_fail(err, RP_ERR_NO_SPACE, "VM %s: more settings than this host keeps", vm_id);
    return rp_host_local_set_extras(host, vm_id, rp_buf_text(&text), err);
}

void rp_hostd_extras_merge(struct rp_cim_instances *extras, const char *suffix, const struct rp_cim_instance *change)
{
    struct rp_cim_instance *kept = NULL;
    for (size_t i = 0; i < extras->count && !kept; i++) {
        const char *id = rp_cim_get_text(extras->items[i], "InstanceID");
        if (!strcasecmp(extras->items[i]->class_name, change->class_name) && !strcasecmp(id ? id : "", suffix))
            kept = extras->items[i];
    }
    if (!kept) {
        kept = rp_cim_instance_new(NULL, change->class_name);
        rp_cim_instances_push(extras, kept);
    }
    for (size_t i = 0; i < change->count; i++)
        if (!rp_cim_value_is_null(&change->properties[i].value))
            rp_cim_set(kept, change->properties[i].name, rp_cim_value_copy(&change->properties[i].value));
    rp_cim_set(kept, "InstanceID", rp_cim_string(suffix));
}
