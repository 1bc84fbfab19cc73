// Msvm_VirtualSystemManagementService: VMs and their settings (facts/wmi.md 1.4, 1.6). Resources are in
// method_resources*.c, export in method_export.c, planned VMs in method_planned.c, summaries in method_summary.c, the
// settings of the service itself in method_service.c.
#include <string.h>
#include <strings.h>

#include "hostd/method.h"

// ---- defining -------------------------------------------------------------------------------------------------------

static int define(struct rp_host_connection *host, const struct rp_method_task *task, char result[RP_HOST_ID],
                  struct rp_error *err)
{
    char job[RP_HOST_ID];
    rp_host_local_next_extras(host, task->extras); // with the VM, or not at all
    int rc = host->ops->define_system(host, task->name, (const char *const *)task->list, task->count, host->progress,
                                      host->progress_context, job, result, err);
    return rp_method_wait(host, rc, job, result, err);
}

static int run_define(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    (void)hostd;
    return define(host, context, result, err);
}

// Other settings to begin with: those of a VM, planned VM or checkpoint.
static int start_from(const struct rp_hostd_call *call, struct rp_cim_instances *extras, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (!rp_cim_get_path(call->in, "ReferenceConfiguration"))
        return 0;
    if (rp_method_settings(call, "ReferenceConfiguration", RP_METHOD_ANY, &found, err))
        return -1;
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = host ? rp_hostd_extras_load(host, found.snapshot ? found.snapshot->id : found.vm->vm.id, extras, err) : -1;
    rp_hostd_hosts_return(call->hostd, host);
    return rc;
}

// Everything that was asked for, into a task: name, disk images, extras.
static int read_definition(const struct rp_hostd_call *call, struct rp_method_task *task, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances extras = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_method_embedded(call, "SystemSettings", "Msvm_VirtualSystemSettingData", err);
    if (!settings || start_from(call, &extras, err))
        return -1;
    const char *name = rp_cim_get_text(settings, "ElementName");
    task->name = rp_xstrdup(name && *name ? name : "New Virtual Machine");
    if (rp_method_check_name(task->name, "ElementName", err))
        return -1;
    rp_method_resources_keep(&extras, "", settings);
    if (rp_method_resources_sort(call, false, task, &extras, err))
        return -1;
    task->extras = rp_hostd_extras_text(&extras, err);
    return task->extras ? 0 : -1;
}

// With disks it may take long, and a job does it; without, the answer has the VM.
static int define_system(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    struct rp_method_task *task = rp_method_task_new(NULL, NULL);
    if (read_definition(call, task, err)) {
        rp_method_task_free(task);
        return -1;
    }
    if (task->count)
        return rp_method_start(
            call,
            (struct rp_hostd_job){
                .type = 1, .caption = "Defining Virtual Machine", .result = RP_HOSTD_VM, .run = run_define},
            task, status, err);
    char made[RP_HOST_ID] = "";
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = host ? define(host, task, made, err) : -1;
    rp_hostd_hosts_return(call->hostd, host);
    rp_method_task_free(task);
    if (rc)
        return -1;
    rp_method_set_reference(call, "ResultingSystem", rp_hostd_paths_vm(call->hostd, made, false));
    *status = 0;
    return 0;
}

// ---- destroying -----------------------------------------------------------------------------------------------------

static int run_destroy(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                       struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    return rp_method_wait(host, host->ops->destroy_system(host, task->id, false, job, result, err), job, result, err);
}

// As on Windows, disk files stay.
static int destroy_system(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_vm(call, "AffectedSystem", RP_METHOD_ANY, &found, err))
        return -1;
    if (!found.planned && found.vm->vm.state != RP_VM_OFF)
        return rp_fail(err, RP_ERR_STATE, "VM %s is %s: it has to be off", found.vm->vm.id,
                       rp_vm_state_name(found.vm->vm.state));
    return rp_method_start(call, (struct rp_hostd_job){.type = 3, .caption = "Destroying Virtual Machine",
        .result = found.planned ? RP_HOSTD_PLANNED : RP_HOSTD_VM, .makes_gone = true, .target = found.vm->vm.id,
        .run = run_destroy}, rp_method_task_new(found.vm, found.vm->vm.id), status, err);
}

// ---- settings -------------------------------------------------------------------------------------------------------

static int rename_to(struct rp_host_connection *host, const char *id, const char *name, struct rp_error *err)
{
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    return rp_method_wait(host, host->ops->rename(host, id, name, job, made, err), job, made, err);
}

static int keep_system(struct rp_cim_instances *extras, void *context, struct rp_error *err)
{
    (void)err;
    rp_method_resources_keep(extras, "", context);
    return 0;
}

// The name last: what is only kept can always be put back.
static int modify_vm(struct rp_host_connection *host, const struct rp_method_found *found,
                     struct rp_cim_instance *settings, struct rp_error *err)
{
    const char *id = found->vm->vm.id, *name = rp_cim_get_text(settings, "ElementName");
    RP_AUTO_FREE char *before = NULL;
    if (rp_host_local_extras(host, id, &before, err) ||
        rp_method_extras_change(host, id, keep_system, settings, err))
        return -1;
    if (!name || !strcmp(name, found->vm->vm.name) || !rename_to(host, id, name, err))
        return 0;
    rp_host_local_set_extras(host, id, before, NULL);
    return -1;
}

// Of a checkpoint only the name changes: the rest is what it was then. A backup renames its checkpoints, so that needs
// no more than operating; the settings of a VM are an administrator's.
static int modify_settings(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_method_embedded(call, "SystemSettings", "Msvm_VirtualSystemSettingData", err);
    const char *rest, *name = settings ? rp_cim_get_text(settings, "ElementName") : NULL;
    if (!settings ||
        rp_method_instance(call->hostd, rp_cim_get_text(settings, "InstanceID"), RP_METHOD_ANY, &found, &rest, err))
        return -1;
    if (*rest)
        return rp_fail(err, RP_ERR_INVALID, "InstanceID: a resource is no system");
    if (name && rp_method_check_name(name, "ElementName", err))
        return -1;
    if (!found.snapshot && call->caller->access < RP_CIM_ADMINISTER)
        return rp_fail(err, RP_ERR_PERMISSION, "settings of a virtual machine are changed by administrators");
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = !host ? -1 : !found.snapshot ? modify_vm(host, &found, settings, err)
             : name && strcmp(name, found.snapshot->name) ? rename_to(host, found.snapshot->id, name, err) : 0;
    rp_hostd_hosts_return(call->hostd, host);
    *status = 0;
    return rc;
}

// The configuration as a file would hold it.
static int size_of_files(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_settings(call, "Vssd", RP_METHOD_ANY, &found, err))
        return -1;
    RP_AUTO_FREE char *document =
        rp_hostd_settings_document(call->hostd, found.snapshot ? found.snapshot->id : found.vm->vm.id, err);
    if (!document)
        return -1;
    rp_cim_set(call->out, "Size", rp_cim_unsigned(RP_CIM_UINT64, strlen(document)));
    *status = 0;
    return 0;
}

#define SERVICE "Msvm_VirtualSystemManagementService"
const struct rp_hostd_method rp_hostd_management_methods[] = {
    {SERVICE, "DefineSystem", RP_CIM_ADMINISTER, false, define_system},
    {SERVICE, "DestroySystem", RP_CIM_ADMINISTER, false, destroy_system},
    {SERVICE, "ModifySystemSettings", RP_CIM_OPERATE, false, modify_settings},
    {SERVICE, "AddResourceSettings", RP_CIM_ADMINISTER, true, rp_method_resources_add},
    {SERVICE, "ModifyResourceSettings", RP_CIM_ADMINISTER, true, rp_method_resources_modify},
    {SERVICE, "RemoveResourceSettings", RP_CIM_ADMINISTER, true, rp_method_resources_remove},
    {SERVICE, "ExportSystemDefinition", RP_CIM_OPERATE, true, rp_method_export_system},
    {SERVICE, "GetSizeOfSystemFiles", RP_CIM_READ, true, size_of_files},
    {SERVICE, "ModifyServiceSettings", RP_CIM_ADMINISTER, true, rp_method_service_settings},
    {0},
};
