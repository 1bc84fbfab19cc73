// Msvm_ComputerSystem: the host's own row and the virtual machines; Msvm_PlannedComputerSystem (facts/wmi.md 1.2, 1.3).
#include <string.h>
#include <strings.h>

#include "hostd/core.h"

static int host_row(struct rp_hostd *hostd, const struct rp_cim_class *class, struct rp_cim_sink sink,
                    struct rp_error *err)
{
    struct rp_cim_instance *row = rp_cim_class_instance(class);
    rp_hostd_object_text(row, class, "Name", hostd->machine);
    rp_hostd_object_text(row, class, "ElementName", hostd->machine);
    rp_hostd_object_text(row, class, "Caption", "Hosting Computer System");
    rp_hostd_object_text(row, class, "Description", "Microsoft Hosting Computer System");
    rp_hostd_object_add(row, class, "OperationalStatus", rp_cim_unsigned(RP_CIM_UINT16, 2));
    rp_hostd_object_add(row, class, "StatusDescriptions", rp_cim_string("OK"));
    return sink.take(sink.context, row, err);
}

static const char *activity_text(enum rp_vm_activity activity)
{
    switch (activity) {
    case RP_VM_IDLE: break;
    case RP_VM_CREATING_SNAPSHOT: return "Creating snapshot";
    case RP_VM_DELETING_SNAPSHOT: return "Deleting snapshot";
    case RP_VM_MERGING: return "Merging disks";
    }
    return "Busy";
}

static unsigned enabled_state(enum rp_vm_state state)
{
    return (unsigned)state; // the host connection speaks in these numbers
}

static void describe(struct rp_cim_instance *row, const struct rp_cim_class *class, const struct rp_inventory_vm *vm)
{
    bool busy = vm->vm.activity != RP_VM_IDLE;
    rp_hostd_object_text(row, class, "Name", vm->vm.id);
    rp_hostd_object_text(row, class, "ElementName", vm->vm.name);
    rp_hostd_object_number(row, class, "EnabledState", enabled_state(vm->vm.state));
    rp_hostd_object_number(row, class, "OnTimeInMilliseconds", 0);
    rp_hostd_object_number(row, class, "ProcessID", 0);
    rp_hostd_object_number(row, class, "NumberOfNumaNodes", 1);
    rp_hostd_object_number(row, class, "ReplicationState", 0);
    rp_hostd_object_number(row, class, "ReplicationHealth", 0);
    rp_hostd_object_number(row, class, "ReplicationMode", 0);
    rp_hostd_object_number(row, class, "FailedOverReplicationType", 0);
    rp_hostd_object_number(row, class, "LastReplicationType", 0);
    rp_hostd_object_number(row, class, "EnhancedSessionModeState", 3); // not available
    // Hyper-V has NULL there. What nothing runs has no guest that could be asked, and who asks shall know that for certain.
    static const enum rp_vm_state without_guest[] = {RP_VM_RUNNING, RP_VM_OFF, RP_VM_RESET};
    for (size_t i = 0; !vm->vm.has_guest && i < sizeof without_guest / sizeof *without_guest; i++)
        rp_hostd_object_add(row, class, "AvailableRequestedStates", rp_cim_unsigned(RP_CIM_UINT16, without_guest[i]));
    // One that waits for a disk is what Hyper-V calls paused and critical.
    rp_hostd_object_add(row, class, "OperationalStatus", rp_cim_unsigned(RP_CIM_UINT16, vm->vm.waits ? 3 : busy ? 11 : 2));
    rp_hostd_object_add(row, class, "StatusDescriptions",
                        rp_cim_string(vm->vm.waits ? "Degraded" : busy ? "In service" : "Operating normally"));
    if (vm->vm.waits)
        rp_hostd_object_number(row, class, "HealthState", 25);
    if (vm->vm.remark)
        rp_hostd_object_text(row, class, "OtherEnabledState", vm->vm.remark);
    if (busy) {
        rp_hostd_object_add(row, class, "OperationalStatus", rp_cim_unsigned(RP_CIM_UINT16, vm->vm.activity));
        const char *what = activity_text(vm->vm.activity), *why = vm->vm.merge_problem;
        RP_AUTO_FREE char *text = rp_xasprintf("%s%s%s", what, why ? ": " : "", why ? why : "");
        rp_hostd_object_add(row, class, "StatusDescriptions", rp_cim_string(text));
    }
    int64_t backup = 0; // what a reference point is made for
    for (size_t i = 0; i < vm->points.count; i++)
        backup = vm->points.items[i].time_ns > backup ? vm->points.items[i].time_ns : backup;
    if (backup)
        rp_hostd_object_set(row, class, "LastSuccessfulBackupTime", rp_cim_moment(backup));
}

static int each_system(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                       const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    if ((!only || !strcasecmp(only, hostd->machine)) && host_row(hostd, class, sink, err))
        return -1;
    for (size_t i = 0; i < inventory->count; i++) {
        if (only && strcasecmp(only, inventory->items[i].vm.id))
            continue;
        struct rp_cim_instance *row = rp_cim_class_instance(class);
        rp_hostd_object_text(row, class, "Caption", "Virtual Machine");
        rp_hostd_object_text(row, class, "Description", "Microsoft Virtual Computer System");
        describe(row, class, &inventory->items[i]);
        if (sink.take(sink.context, row, err))
            return -1;
    }
    return 0;
}

static int each_planned(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                        const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)hostd;
    const struct rp_inventory *planned = rp_hostd_hosts_planned(inventory);
    for (size_t i = 0; i < planned->count; i++) {
        const struct rp_vm *vm = &planned->items[i].vm;
        if (only && strcasecmp(only, vm->id))
            continue;
        struct rp_cim_instance *row = rp_cim_class_instance(class);
        rp_hostd_object_text(row, class, "Name", vm->id);
        rp_hostd_object_text(row, class, "ElementName", vm->name);
        rp_hostd_object_number(row, class, "EnabledState", RP_VM_OFF);
        rp_hostd_object_number(row, class, "OnTimeInMilliseconds", 0);
        if (sink.take(sink.context, row, err))
            return -1;
    }
    return 0;
}

const struct rp_hostd_objects rp_hostd_system_objects[] = {
    {"Msvm_ComputerSystem", "Name", true, each_system},
    {"Msvm_PlannedComputerSystem", "Name", true, each_planned},
    {0},
};
