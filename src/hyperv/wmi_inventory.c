// Which VMs there are, and all of them with what belongs to them: four enumerations, joined here by InstanceID.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hyperv/wmi_internal.h"

#define SCHEME "Microsoft:"

// EnabledState also has states on the way from one to another (facts 1.3).
static enum rp_vm_state state_of(uint64_t enabled)
{
    switch (enabled) {
    case 3:
        return RP_VM_OFF;
    case 6:
    case 32769:
        return RP_VM_SAVED;
    case 9:
    case 32768:
        return RP_VM_PAUSED;
    case 2:                             // running
    case 4:                             // shutting down
    case 10: case 32770:                // starting
    case 32771:                         // making a checkpoint
    case 32773: case 32774:             // saving, stopping
    case 32776: case 32777:             // pausing, resuming
        return RP_VM_RUNNING;
    default:
        return (enum rp_vm_state)0;
    }
}

// "Merging disks: why it does not go on", where the host says more than what it does.
static void read_merge(const struct rp_cim_instance *system, struct rp_vm *vm)
{
    const char *text = rp_cim_get_text_at(system, "StatusDescriptions", 1), *problem = text ? strstr(text, ": ") : NULL;
    if (problem && problem[2])
        vm->merge_problem = rp_xstrdup(problem + 2);
}

bool rp_wmi_read_vm(const struct rp_cim_instance *system, struct rp_vm *vm)
{
    *vm = (struct rp_vm){0};
    const char *name = rp_cim_get_text(system, "ElementName");
    if (!rp_wmi_guid(rp_cim_get_text(system, "Name"), vm->id)) // the host's own row has its name there
        return false;
    vm->name = rp_xstrdup(name ? name : "");
    vm->state = state_of(rp_cim_get_unsigned(system, "EnabledState", 0));
    vm->activity = (enum rp_vm_activity)rp_cim_get_unsigned_at(system, "OperationalStatus", 1, RP_VM_IDLE);
    if (vm->activity == RP_VM_MERGING)
        read_merge(system, vm);
    const char *remark = rp_cim_get_text(system, "OtherEnabledState");
    if (remark && *remark)
        vm->remark = rp_xstrdup(remark);
    vm->has_guest = true; // as far as one can tell: a host whose VM has none says so when it is asked for
    vm->waits = vm->state == RP_VM_PAUSED && rp_cim_get_unsigned(system, "HealthState", 5) == 25;
    return true;
}

int rp_wmi_list_vms(struct rp_host_connection *host, struct rp_vms *vms, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances systems = {0};
    *vms = (struct rp_vms){0};
    if (rp_wmi_query(rp_wmi_of(host), RP_WMI_V2, "SELECT * FROM Msvm_ComputerSystem", &systems, err))
        return -1;
    vms->items = rp_xcalloc(systems.count + 1, sizeof *vms->items);
    for (size_t i = 0; i < systems.count; i++)
        vms->count += rp_wmi_read_vm(systems.items[i], &vms->items[vms->count]);
    return 0;
}

int rp_wmi_need_vm(struct rp_wmi *wmi, const char *vm_id, struct rp_vm *vm, struct rp_error *err)
{
    char guid[RP_GUID_TEXT];
    *vm = (struct rp_vm){0};
    if (!rp_wmi_guid(vm_id, guid))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no VM %.100s", wmi->host.address, vm_id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *system =
        rp_wmi_one(wmi, "Msvm_ComputerSystem", "Name", guid, "VM", err);
    if (!system)
        return -1;
    return rp_wmi_read_vm(system, vm) ? 0
                                      : rp_fail(err, RP_ERR_CORRUPT, "%s: VM %s has no name", wmi->host.address, guid);
}

int rp_wmi_find_vm(struct rp_host_connection *host, const char *name, struct rp_vm *vm, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    char guid[RP_GUID_TEXT];
    *vm = (struct rp_vm){0};
    if (rp_wmi_guid(name, guid))
        return rp_wmi_need_vm(wmi, guid, vm, err);
    RP_CLEANUP(rp_buf_clear) struct rp_buf query = {0}, ids = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances systems = {0};
    rp_buf_printf(&query, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = ");
    rp_wmi_quote(&query, name);
    if (rp_wmi_query(wmi, RP_WMI_V2, rp_buf_text(&query), &systems, err))
        return -1;
    size_t count = 0;
    for (size_t i = 0; i < systems.count; i++) {
        struct rp_vm one;
        if (!rp_wmi_read_vm(systems.items[i], &one))
            continue;
        if (strcmp(one.name, name) != 0) { // WQL compares without regard to case
            rp_vm_clear(&one);
            continue;
        }
        rp_buf_printf(&ids, "%s%s", count++ ? ", " : "", one.id);
        rp_vm_clear(vm);
        *vm = one;
    }
    if (count == 1)
        return 0;
    rp_vm_clear(vm);
    if (!count)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no VM \"%.128s\"", host->address, name);
    return rp_fail(err, RP_ERR_INVALID, "%s: \"%.128s\" names several VMs, use a GUID: %s", host->address, name,
                   rp_buf_text(&ids));
}

// ---- all at once ----------------------------------------------------------------------------------------------------

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct rp_inventory_vm *)a)->vm.id, ((const struct rp_inventory_vm *)b)->vm.id);
}

static struct rp_inventory_vm *vm_of(const struct rp_inventory *inventory, const char *id)
{
    char guid[RP_GUID_TEXT];
    struct rp_inventory_vm key;
    if (!rp_wmi_guid(id, guid))
        return NULL;
    memcpy(key.vm.id, guid, sizeof guid);
    return bsearch(&key, inventory->items, inventory->count, sizeof key, by_id);
}

// Settings of snapshots are told from those of VMs by their type; planned systems are in no inventory.
static void add_snapshots(const struct rp_wmi *wmi, const struct rp_cim_instances *settings,
                          struct rp_inventory *inventory)
{
    for (size_t i = 0; i < settings->count; i++) {
        struct rp_snapshot snapshot;
        struct rp_inventory_vm *vm = vm_of(inventory, rp_cim_get_text(settings->items[i], "VirtualSystemIdentifier"));
        if (!vm || !rp_wmi_read_snapshot(wmi, settings->items[i], &snapshot))
            continue;
        struct rp_snapshots *list = &vm->snapshots;
        list->items = rp_xrealloc(list->items, (list->count + 1) * sizeof *list->items);
        list->items[list->count++] = snapshot;
    }
}

// The VM that an InstanceID begins with: "Microsoft:<GUID>\…".
static struct rp_inventory_vm *owner_of(const struct rp_inventory *inventory, const struct rp_cim_instance *resource)
{
    const char *id = rp_cim_get_text(resource, "InstanceID");
    char guid[RP_GUID_TEXT] = "";
    if (!id || strncasecmp(id, SCHEME, strlen(SCHEME)) || strlen(id) < strlen(SCHEME) + RP_GUID_TEXT - 1)
        return NULL;
    memcpy(guid, id + strlen(SCHEME), RP_GUID_TEXT - 1);
    return vm_of(inventory, guid);
}

struct owned {
    struct rp_inventory_vm *vm;
    struct rp_cim_instance *resource;
};

static int by_owner(const void *a, const void *b)
{
    const struct owned *x = a, *y = b;
    return (x->vm > y->vm) - (x->vm < y->vm);
}

static int add_disks(struct rp_cim_instances *resources, struct rp_inventory *inventory, struct rp_error *err)
{
    RP_AUTO_FREE struct owned *owned = rp_xcalloc(resources->count + 1, sizeof *owned);
    RP_AUTO_FREE struct rp_cim_instance **group = rp_xcalloc(resources->count + 1, sizeof *group);
    size_t count = 0;
    for (size_t i = 0; i < resources->count; i++) {
        struct rp_inventory_vm *vm = owner_of(inventory, resources->items[i]);
        if (vm)
            owned[count++] = (struct owned){vm, resources->items[i]};
    }
    qsort(owned, count, sizeof *owned, by_owner);
    for (size_t i = 0; i < count;) {
        size_t n = 0, first = i;
        for (; i < count && owned[i].vm == owned[first].vm; i++)
            group[n++] = owned[i].resource;
        const struct rp_cim_instances disks = {group, n, n};
        if (rp_wmi_disks(&disks, owned[first].vm->vm.id, &owned[first].vm->settings, err))
            return -1;
    }
    return 0;
}

static int add_points(const struct rp_cim_instances *objects, struct rp_inventory *inventory, struct rp_error *err)
{
    for (size_t i = 0; i < objects->count; i++) {
        struct rp_inventory_vm *vm = vm_of(inventory, rp_cim_get_text(objects->items[i], "VirtualSystemIdentifier"));
        if (!vm)
            continue;
        struct rp_reference_points *list = &vm->points;
        list->items = rp_xrealloc(list->items, (list->count + 1) * sizeof *list->items);
        if (rp_wmi_read_point(objects->items[i], &list->items[list->count], err))
            return -1;
        list->count++;
    }
    return 0;
}

int rp_wmi_inventory(struct rp_host_connection *host, struct rp_inventory *inventory, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances settings = {0}, resources = {0}, points = {0};
    *inventory = (struct rp_inventory){0};
    if (rp_wmi_list_vms(host, &vms, err) ||
        rp_wmi_query(wmi, RP_WMI_V2, "SELECT * FROM Msvm_VirtualSystemSettingData", &settings, err) ||
        rp_wmi_query(wmi, RP_WMI_V2, "SELECT * FROM Msvm_StorageAllocationSettingData", &resources, err) ||
        rp_wmi_query(wmi, RP_WMI_V2, "SELECT * FROM Msvm_VirtualSystemReferencePoint", &points, err))
        return -1;
    inventory->items = rp_xcalloc(vms.count + 1, sizeof *inventory->items);
    for (size_t i = 0; i < vms.count; i++)
        inventory->items[inventory->count++].vm = vms.items[i];
    vms.count = 0; // taken
    qsort(inventory->items, inventory->count, sizeof *inventory->items, by_id);
    add_snapshots(wmi, &settings, inventory);
    if (!add_disks(&resources, inventory, err) && !add_points(&points, inventory, err))
        return 0;
    rp_inventory_clear(inventory);
    return -1;
}
