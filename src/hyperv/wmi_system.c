// VMs: DefineSystem, DestroySystem, RequestStateChange, InitiateShutdown, ModifySystemSettings.
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "hyperv/wmi_internal.h"

#define SHUTDOWN "Msvm_ShutdownComponent"
enum { SHUT_DOWN_S = 600 }; // how long a guest may take when nobody says otherwise

static int destroy_system(struct rp_wmi *wmi, const struct rp_cim_path *path, const char *vm_id, bool wait,
                          RP_METHOD_RESULT, struct rp_error *err)
{
    RP_AUTO_FREE char *what = rp_xasprintf("delete VM %s", vm_id);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "DestroySystem", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedSystem", rp_cim_reference(rp_cim_path_copy(path)));
    return wait ? rp_wmi_run(wmi, &call, in, result, err) : rp_wmi_call(wmi, &call, in, job, result, err);
}

static struct rp_cim_instance *new_system(const char *name)
{
    struct rp_cim_instance *settings = rp_cim_instance_new(NULL, "Msvm_VirtualSystemSettingData");
    rp_cim_set(settings, "ElementName", rp_cim_string(name));
    rp_cim_set(settings, "VirtualSystemSubType", rp_cim_string("Microsoft:Hyper-V:SubType:2"));
    return settings;
}

int rp_wmi_define_system(struct rp_host_connection *host, const char *name, const char *const *disks, size_t disk_count,
                         int (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                         RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_AUTO_FREE char *what = rp_xasprintf("new VM %s", name);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "DefineSystem", .what = what,
                                     .result = "ResultingSystem", .result_class = "Msvm_ComputerSystem"};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = new_system(name), *in = rp_wmi_parameters();
    rp_cim_set(in, "SystemSettings", rp_wmi_embed(wmi, settings));
    char id[RP_HOST_ID] = "", ignored[RP_HOST_ID], instance[RP_HOST_ID];
    if (rp_wmi_run(wmi, &call, in, id, err))
        return -1;
    struct rp_error local = {0};
    int failed = 0;
    for (size_t i = 0; i < disk_count && !failed; i++) {
        if (progress && progress(context, i, disk_count))
            failed = rp_fail(&local, RP_ERR_CANCELLED, "%s: asked to stop", what);
        else if (rp_wmi_add_disk(host, id, disks[i], ignored, instance, &local) ||
                 rp_host_wait(host, ignored, instance, NULL, NULL, &local))
            failed = rp_context(&local, "%s", what);
    }
    if (!failed) {
        memcpy(result, id, RP_HOST_ID);
        return 0;
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_vm(id);
    struct rp_error undone = {0};
    if (destroy_system(wmi, path, id, true, ignored, instance, &undone))
        rp_log(RP_LOG_WARNING, "%s: a VM %s that could not be made whole is left: %s", host->address, id, undone.text);
    return rp_fail_as(err, &local);
}

int rp_wmi_destroy_system(struct rp_host_connection *host, const char *vm_id, bool delete_disks, RP_METHOD_RESULT,
                          struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = NULL;
    struct rp_error local = {0};
    *job = *result = 0;
    if (!rp_wmi_need_vm(wmi, vm_id, &vm, &local)) {
        path = rp_wmi_path_vm(vm.id);
    } else if (local.code == RP_ERR_NOT_FOUND) { // a planned one?
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *planned =
            rp_wmi_one(wmi, "Msvm_PlannedComputerSystem", "Name", vm_id, "VM", NULL);
        path = planned ? rp_wmi_path_planned(rp_cim_get_text(planned, "Name")) : NULL;
    }
    if (!path)
        return rp_fail_as(err, &local);
    if (delete_disks)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: VM %s: WMI deletes no disk files", host->address, vm_id);
    return destroy_system(wmi, path, vm_id, false, job, result, err);
}

static int request_change(struct rp_wmi *wmi, const char *vm_id, enum rp_vm_state state, const char *what, RP_METHOD_RESULT,
                          struct rp_error *err)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_vm(vm_id);
    const struct rp_wmi_call call = {.object = path, .method = "RequestStateChange", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "RequestedState", rp_cim_unsigned(RP_CIM_UINT16, state));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

// ---- the guest shuts down ---------------------------------------------------------------------------------------------

// A host that lists what can be asked for, and has not this in it: refpoint-hostd, of a VM that nothing runs.
static bool has_no_guest(const struct rp_cim_instance *system)
{
    size_t count = rp_cim_get_count(system, "AvailableRequestedStates");
    for (size_t i = 0; i < count; i++)
        if (rp_cim_get_unsigned_at(system, "AvailableRequestedStates", i, 0) == RP_VM_SHUT_DOWN)
            return false;
    return count;
}

// The component passes the wish on, and the guest takes its time.
static int wait_until_off(struct rp_wmi *wmi, const char *vm_id, struct rp_error *err)
{
    struct rp_host_connection *host = &wmi->host;
    uint64_t start = rp_clock_monotonic_ns();
    for (;;) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        if (rp_wmi_need_vm(wmi, vm_id, &vm, err))
            return -1;
        if (vm.state == RP_VM_OFF)
            return 0;
        uint64_t waited = (rp_clock_monotonic_ns() - start) / 1000000000;
        if (host->progress && host->progress(host->progress_context, waited, SHUT_DOWN_S))
            return rp_fail(err, RP_ERR_CANCELLED, "VM %s: nobody waits any longer for its guest, which was asked to shut down", vm_id);
        if (!host->progress && waited >= SHUT_DOWN_S)
            return rp_fail(err, RP_ERR_BUSY, "VM %s: its guest was asked to shut down %d minutes ago and still runs", vm_id, SHUT_DOWN_S / 60);
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    }
}

static int initiate_shutdown(struct rp_wmi *wmi, const char *vm_id, const struct rp_cim_instance *component,
                             char result[RP_HOST_ID], struct rp_error *err)
{
    static const char *const keys[] = {"CreationClassName", "DeviceID", "SystemCreationClassName", "SystemName"};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new(RP_WMI_V2, SHUTDOWN);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = rp_cim_get_text(component, keys[i]);
        if (value)
            rp_cim_path_set(path, keys[i], value);
    }
    RP_AUTO_FREE char *what = rp_xasprintf("VM %s: ask its guest to shut down", vm_id);
    const struct rp_wmi_call call = {.object = path, .method = "InitiateShutdown", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "Force", rp_cim_boolean(false)); // who works in the guest may save first
    rp_cim_set(in, "Reason", rp_cim_string("refpoint"));
    return rp_wmi_run(wmi, &call, in, result, err) || wait_until_off(wmi, vm_id, err) ? -1 : 0;
}

// Hyper-V has a component for it, where its integration service is switched on; RequestedState 4 is of its first version, and what
// refpoint-hostd has (facts/wmi.md 3.1).
static int shut_down(struct rp_wmi *wmi, const char *vm_id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_error local = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *system = rp_wmi_one(wmi, "Msvm_ComputerSystem", "Name", vm_id, "VM", err);
    if (!system)
        return -1;
    if (has_no_guest(system))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "VM %s: it has no guest that could shut down", vm_id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *component =
        rp_wmi_one(wmi, SHUTDOWN, "SystemName", vm_id, "shutdown component of VM", &local);
    if (!component && local.code != RP_ERR_NOT_FOUND)
        return rp_fail_as(err, &local);
    rp_error_clear(&local);
    RP_AUTO_FREE char *what = rp_xasprintf("VM %s: make it %s", vm_id, rp_vm_state_name(RP_VM_SHUT_DOWN));
    if (!(component ? initiate_shutdown(wmi, vm_id, component, result, &local)
                    : request_change(wmi, vm_id, RP_VM_SHUT_DOWN, what, job, result, &local)))
        return 0;
    // A host that cannot do this knows nothing of the guest: that there is none would be taken for leave to turn it off.
    if (local.code != RP_ERR_UNSUPPORTED && local.code != RP_ERR_INVALID)
        return rp_fail_as(err, &local);
    return rp_fail(err, RP_ERR_STATE, "%s: the host has no way to ask its guest; shut it down in the guest, or turn it off (vm stop --now)",
                   local.text);
}

int rp_wmi_request_state(struct rp_host_connection *host, const char *vm_id, enum rp_vm_state state, RP_METHOD_RESULT,
                         struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    *job = *result = 0;
    if (rp_wmi_need_vm(wmi, vm_id, &vm, err))
        return -1;
    // Hyper-V throws the saved memory away then, and says nothing.
    if (state == RP_VM_OFF && vm.state == RP_VM_SAVED)
        return rp_fail(err, RP_ERR_STATE, "%s: VM %s is saved: start it first; turned off now, it would lose its memory", host->address,
                       vm.id);
    if (state == RP_VM_SHUT_DOWN)
        return shut_down(wmi, vm.id, job, result, err);
    RP_AUTO_FREE char *what = rp_xasprintf("VM %s: make it %s", vm.id, rp_vm_state_name(state));
    return request_change(wmi, vm.id, state, what, job, result, err);
}

int rp_wmi_rename(struct rp_host_connection *host, const char *id, const char *name, RP_METHOD_RESULT,
                  struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_settings_object(wmi, id, err);
    if (!object)
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("name of %s", id);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "ModifySystemSettings", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *change = rp_cim_instance_new(NULL, object->class_name);
    rp_cim_set(change, "InstanceID", rp_cim_string(rp_cim_get_text(object, "InstanceID")));
    rp_cim_set(change, "ElementName", rp_cim_string(name));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "SystemSettings", rp_wmi_embed(wmi, change));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}
