// VMs: DefineSystem, DestroySystem, RequestStateChange, ModifySystemSettings.
#include <string.h>

#include "base/log.h"
#include "hyperv/wmi_internal.h"

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
    RP_AUTO_FREE char *what = rp_xasprintf("VM %s: make it %s", vm.id, rp_vm_state_name(state));
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_vm(vm.id);
    const struct rp_wmi_call call = {.object = path, .method = "RequestStateChange", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "RequestedState", rp_cim_unsigned(RP_CIM_UINT16, state));
    return rp_wmi_call(wmi, &call, in, job, result, err);
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
