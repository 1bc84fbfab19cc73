// QEMU's monitor, by libvirt.
#include "libvirt/libvirt_impl.h"

#include <libvirt/libvirt-qemu.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ANSWER ((size_t)16 << 20)

json_t *rp_monitor(virDomainPtr domain, const char *command, json_t *arguments, struct rp_error *err)
{
    RP_CLEANUP(rp_json_p) json_t *request = json_pack("{s:s, s:o*}", "execute", command, "arguments", arguments);
    RP_AUTO_FREE char *text = json_dumps(request, JSON_COMPACT);
    RP_AUTO_FREE char *result = NULL;
    if (!text || virDomainQemuMonitorCommand(domain, text, &result, 0) || !result) {
        rp_libvirt_fail(err, "QEMU does not answer %s", command);
        return NULL;
    }
    size_t size = strlen(result);
    RP_CLEANUP(rp_json_p) json_t *answer = size > MAX_ANSWER ? NULL : json_loadb(result, size, 0, NULL);
    json_t *value = json_object_get(answer, "return");
    if (value)
        return json_incref(value);
    const char *why = json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));
    rp_fail(err, RP_ERR_IO, "QEMU refuses %s: %.400s", command, why ? why : "its answer cannot be read");
    return NULL;
}

int rp_monitor_command(virDomainPtr domain, const char *name, json_t *arguments, struct rp_error *err)
{
    RP_CLEANUP(rp_json_p) json_t *value = rp_monitor(domain, name, arguments, err);
    return value ? 0 : -1;
}

bool rp_monitor_has_node(const json_t *nodes, const char *name)
{
    size_t i;
    const json_t *node;
    json_array_foreach(nodes, i, node)
    {
        const char *found = json_string_value(json_object_get(node, "node-name"));
        if (found && !strcmp(found, name))
            return true;
    }
    return false;
}
