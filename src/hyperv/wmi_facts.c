// What `host test` asks of a host. Reads only.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyperv/wmi_internal.h"

#define OLDEST_TRACKED 6.2 // configuration version of a VM: older ones have no change tracking

void rp_wmi_facts_clear(struct rp_wmi_facts *facts)
{
    free(facts->vendor);
    free(facts->product);
    free(facts->machine);
    free(facts->os_version);
    free(facts->old_vms);
    free(facts->our_vms);
    free(facts->other_vms);
    *facts = (struct rp_wmi_facts){0};
}

// "OS: 10.0.20348 SP: 0.0 Stack: 3.0", what a host says of itself without being asked for an object.
static char *version_of(const char *product)
{
    const char *version = strncmp(product, "OS: ", 4) ? "" : product + 4;
    return strndup(version, strspn(version, "0123456789."));
}

// Backups need nothing of root/cimv2: who may not look there may look at VMs all the same.
static int ask_version(struct rp_wmi *wmi, struct rp_wmi_facts *facts, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    struct rp_error local = {0};
    if (rp_wmi_query(wmi, RP_WMI_CIMV2, "SELECT * FROM Win32_OperatingSystem", &found, &local) &&
        local.code != RP_ERR_PERMISSION)
        return rp_fail_as(err, &local);
    const char *version = found.count ? rp_cim_get_text(found.items[0], "Version") : NULL;
    facts->os_version = version ? rp_xstrdup(version) : version_of(facts->product);
    return 0;
}

static int ask_services(struct rp_wmi *wmi, struct rp_wmi_facts *facts, struct rp_error *err)
{
    struct rp_error local = {0};
    for (int i = 0; i < RP_WMI_SERVICES; i++) {
        if (rp_wmi_service_path(wmi, (enum rp_wmi_service)i, &local)) {
            facts->reference_points |= i == RP_WMI_POINT;
            continue;
        }
        if (i == RP_WMI_POINT && (local.code == RP_ERR_NOT_FOUND || local.code == RP_ERR_PERMISSION ||
                                  local.code == RP_ERR_INVALID)) { // a class that older hosts do not have
            rp_error_clear(&local);
            continue;
        }
        return rp_fail_as(err, &local);
    }
    facts->services = true;
    facts->machine = rp_xstrdup(wmi->machine);
    return 0;
}

static void add_name(struct rp_buf *list, const char *name)
{
    rp_buf_printf(list, "%s%s", list->size ? ", " : "", name);
}

// The VMs' configuration versions: of the active settings of each.
static void look_at_settings(const struct rp_cim_instances *settings, struct rp_buf *old)
{
    for (size_t i = 0; i < settings->count; i++) {
        const struct rp_cim_instance *one = settings->items[i];
        const char *type = rp_cim_get_text(one, "VirtualSystemType"), *version = rp_cim_get_text(one, "Version");
        const char *name = rp_cim_get_text(one, "ElementName");
        double number = version ? strtod(version, NULL) : 0;
        if (type && strstr(type, ":System:Realized") && number > 0 && number < OLDEST_TRACKED)
            add_name(old, name ? name : "?");
    }
}

static void look_at_snapshots(const struct rp_inventory *inventory, struct rp_wmi_facts *facts, struct rp_buf *ours,
                              struct rp_buf *others)
{
    for (size_t i = 0; i < inventory->count; i++) {
        const struct rp_inventory_vm *vm = &inventory->items[i];
        size_t tagged = 0, untagged = 0;
        for (size_t k = 0; k < vm->snapshots.count; k++)
            if (vm->snapshots.items[k].type == RP_SNAPSHOT_RECOVERY)
                *(rp_host_is_tag(vm->snapshots.items[k].name) ? &tagged : &untagged) += 1;
        if (tagged)
            add_name(ours, vm->vm.name);
        if (untagged)
            add_name(others, vm->vm.name);
        facts->our_snapshots += tagged;
        facts->other_snapshots += untagged;
    }
}

static char *text_of(struct rp_buf *list) { return rp_xstrdup(rp_buf_text(list)); }

int rp_host_wmi_facts(struct rp_host_connection *host, struct rp_wmi_facts *facts, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances settings = {0};
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf old = {0}, ours = {0}, others = {0};
    *facts = (struct rp_wmi_facts){0};
    if (rp_wsman_identify(wmi->client, &facts->vendor, &facts->product, err) || ask_version(wmi, facts, err) ||
        ask_services(wmi, facts, err) ||
        rp_wmi_query(wmi, RP_WMI_V2, "SELECT * FROM Msvm_VirtualSystemSettingData", &settings, err) ||
        (facts->reference_points && rp_wmi_inventory(host, &inventory, err)))
        return -1;
    facts->vms = inventory.count;
    look_at_settings(&settings, &old);
    look_at_snapshots(&inventory, facts, &ours, &others);
    facts->old_vms = text_of(&old);
    facts->our_vms = text_of(&ours);
    facts->other_vms = text_of(&others);
    return 0;
}
