// Msvm_VirtualSystemSnapshotService: checkpoints (facts/wmi.md 1.4, 1.6).
#include <string.h>

#include "base/log.h"
#include "hostd/method.h"

enum { SNAPSHOT_FULL = 2, SNAPSHOT_DISKS = 3, SNAPSHOT_RECOVERY = 32768 }; // SnapshotType

// ConsistencyLevel of snapshot and reference point settings: 0 unknown, 1 application, 2 crash.
static int consistency_of(const struct rp_cim_instance *settings, uint32_t *level, struct rp_error *err)
{
    uint64_t asked = rp_cim_get_unsigned(settings, "ConsistencyLevel", RP_CONSISTENCY_UNKNOWN);
    if (asked > RP_CONSISTENCY_CRASH)
        return rp_fail(err, RP_ERR_INVALID, "ConsistencyLevel %llu is unknown", (unsigned long long)asked);
    *level = (uint32_t)asked;
    return 0;
}

// A snapshot has no property that says it: the job that made one which is not what was asked for has done so with a warning.
static void warn_of_consistency(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm_id, const char *id)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    struct rp_error unknown = {0};
    const char *reason = "whether the guest was at rest is not known";
    if (!host->ops->list_snapshots(host, vm_id, &list, &unknown))
        for (size_t i = 0; i < list.count; i++)
            if (!strcmp(list.items[i].id, id)) {
                if (list.items[i].consistency == RP_CONSISTENCY_APPLICATION)
                    return;
                if (list.items[i].consistency_reason)
                    reason = list.items[i].consistency_reason;
            }
    rp_hostd_jobs_detail(hostd, "ErrorDescription", rp_cim_string(reason));
}

static int run_create(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    enum rp_snapshot_type type = task->flag ? RP_SNAPSHOT_RECOVERY : RP_SNAPSHOT_PRODUCTION;
    int rc = host->ops->create_snapshot(host, task->vm_id, type, (enum rp_consistency)task->number, task->name, job,
                                        result, err);
    if (rp_method_wait(host, rc, job, result, err))
        return -1;
    if (task->number == RP_CONSISTENCY_APPLICATION)
        warn_of_consistency(hostd, host, task->vm_id, result);
    return 0;
}

// The settings are a Msvm_VirtualSystemSnapshotSettingData; a name in them is the checkpoint's from the start. Who
// wants to say only a name may also send what it will have in the end, a Msvm_VirtualSystemSettingData.
static int create(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = NULL;
    uint32_t level = RP_CONSISTENCY_UNKNOWN;
    if (rp_method_vm(call, "AffectedSystem", RP_METHOD_REAL, &found, err) ||
        !(settings = rp_method_embedded(call, "SnapshotSettings", "CIM_SettingData", err)) ||
        consistency_of(settings, &level, err))
        return -1;
    uint64_t type = rp_cim_get_unsigned(call->in, "SnapshotType", 0);
    if (type != SNAPSHOT_FULL && type != SNAPSHOT_DISKS && type != SNAPSHOT_RECOVERY)
        return rp_fail(err, RP_ERR_INVALID, "SnapshotType %llu is unknown", (unsigned long long)type);
    uint64_t guest = rp_cim_get_unsigned(settings, "GuestBackupType", 0);
    if (guest > 2)
        return rp_fail(err, RP_ERR_INVALID, "GuestBackupType %llu is unknown", (unsigned long long)guest);
    const char *name = rp_cim_get_text(settings, "ElementName");
    if (name && *name && rp_method_check_name(name, "ElementName", err))
        return -1;
    struct rp_method_task *task = rp_method_task_new(found.vm, NULL);
    task->flag = type == SNAPSHOT_RECOVERY;
    task->number = level;
    task->name = name && *name ? rp_xstrdup(name)
                               : rp_method_default_name(found.vm->vm.name, task->flag ? " Backup" : "");
    return rp_method_start(call, (struct rp_hostd_job){.type = 70, .caption = "Creating Virtual Machine Snapshot",
        .result = RP_HOSTD_SNAPSHOT, .run = run_create}, task, status, err);
}

static int run_destroy(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                       struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    return rp_method_wait(host, host->ops->destroy_snapshot(host, task->id, job, result, err), job, result, err);
}

static int destroy(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_snapshot(call, "AffectedSnapshot", &found, err))
        return -1;
    return rp_method_start(call, (struct rp_hostd_job){.type = 72, .caption = "Deleting Virtual Machine Snapshot",
        .result = RP_HOSTD_SNAPSHOT, .makes_gone = true, .target = found.snapshot->id, .run = run_destroy},
        rp_method_task_new(found.vm, found.snapshot->id), status, err);
}

// Its own snapshot is the last of the list: the youngest go first.
static int run_destroy_tree(struct rp_hostd *hostd, struct rp_host_connection *host, void *context,
                            char result[RP_HOST_ID], struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    for (size_t i = task->count; i-- > 0;) {
        struct rp_error why = {0};
        int rc = host->ops->destroy_snapshot(host, task->list[i], job, result, &why);
        if (rp_method_wait(host, rc, job, result, &why) && why.code != RP_ERR_NOT_FOUND)
            return rp_fail_as(err, &why);
    }
    return 0;
}

// Here every checkpoint lies on the one before it, so the tree of one is it and all that are younger.
static int destroy_tree(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_snapshot(call, "SnapshotSettingData", &found, err))
        return -1;
    struct rp_method_task *task = rp_method_task_new(found.vm, found.snapshot->id);
    const struct rp_snapshots *all = &found.vm->snapshots;
    for (const struct rp_snapshot *s = found.snapshot; s < all->items + all->count; s++)
        if (!s->merging)
            rp_method_task_add(task, s->id);
    return rp_method_start(call, (struct rp_hostd_job){.type = 72, .caption = "Deleting Virtual Machine Snapshots",
        .result = RP_HOSTD_SNAPSHOT, .makes_gone = true, .target = found.snapshot->id, .run = run_destroy_tree},
        task, status, err);
}

// For Msvm_LastAppliedSnapshot.
static int note_applied(struct rp_cim_instances *extras, void *context, struct rp_error *err)
{
    (void)err;
    const struct rp_method_task *task = context;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *note =
        rp_cim_instance_new(NULL, "Msvm_LastAppliedSnapshot");
    rp_cim_set(note, "Antecedent", rp_cim_string(task->id));
    rp_hostd_extras_merge(extras, RP_HOSTD_APPLIED, note);
    return 0;
}

static int run_apply(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                     struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    struct rp_error why = {0};
    if (rp_method_wait(host, host->ops->apply_snapshot(host, task->id, job, made, err), job, made, err))
        return -1;
    if (rp_method_extras_change(host, task->vm_id, note_applied, context, &why))
        rp_log(RP_LOG_WARNING, "VM %s: which checkpoint was applied is not remembered: %s", task->vm_id, why.text);
    memcpy(result, task->vm_id, RP_HOST_ID);
    return 0;
}

static int apply(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_snapshot(call, "Snapshot", &found, err))
        return -1;
    if (found.vm->vm.state != RP_VM_OFF)
        return rp_fail(err, RP_ERR_STATE, "VM %s is %s: a checkpoint is applied while it is off", found.vm->vm.id,
                       rp_vm_state_name(found.vm->vm.state));
    return rp_method_start(call, (struct rp_hostd_job){.type = 71, .caption = "Applying Virtual Machine Snapshot",
        .result = RP_HOSTD_VM, .target = found.vm->vm.id, .run = run_apply},
        rp_method_task_new(found.vm, found.snapshot->id), status, err);
}

// The state that it would clear is memory: no checkpoint of this host holds any, so it is cleared.
static int clear_state(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_snapshot(call, "SnapshotSettingData", &found, err))
        return -1;
    *status = 0;
    return 0;
}

static int run_convert(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                       struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    int rc = host->ops->convert_to_reference_point(host, task->id, job, result, err);
    return rp_method_wait(host, rc, job, result, err);
}

// Settings may ask for a consistency; the reference point has that of the checkpoint that it is made of.
static int convert(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = NULL;
    uint32_t level = RP_CONSISTENCY_UNKNOWN;
    if (rp_method_snapshot(call, "AffectedSnapshot", &found, err) ||
        !(settings = rp_method_embedded(call, "ReferencePointSettings", "CIM_SettingData", err)) ||
        consistency_of(settings, &level, err))
        return -1;
    if (found.snapshot->type != RP_SNAPSHOT_RECOVERY)
        return rp_fail(err, RP_ERR_STATE,
                       "checkpoint %s is not a recovery checkpoint: only those become reference points",
                       found.snapshot->id);
    return rp_method_start(call,
                           (struct rp_hostd_job){.type = 200,
                                                 .caption = "Converting Virtual Machine Snapshot to Reference Point",
                                                 .result = RP_HOSTD_POINT,
                                                 .run = run_convert},
                           rp_method_task_new(found.vm, found.snapshot->id), status, err);
}

#define SERVICE "Msvm_VirtualSystemSnapshotService"
const struct rp_hostd_method rp_hostd_snapshot_methods[] = {
    {SERVICE, "CreateSnapshot", RP_CIM_OPERATE, false, create},
    {SERVICE, "DestroySnapshot", RP_CIM_OPERATE, false, destroy},
    {SERVICE, "DestroySnapshotTree", RP_CIM_OPERATE, true, destroy_tree},
    {SERVICE, "ApplySnapshot", RP_CIM_ADMINISTER, false, apply},
    {SERVICE, "ClearSnapshotState", RP_CIM_OPERATE, true, clear_state},
    {SERVICE, "ConvertToReferencePoint", RP_CIM_OPERATE, false, convert},
    {0},
};
