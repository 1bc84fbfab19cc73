// Msvm_VirtualSystemReferencePointService: reference points (facts/wmi.md 1.4, 1.6). Exporting one is in
// method_export.c.
#include <string.h>

#include "hostd/method.h"

static int run_create(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    int rc = host->ops->create_reference_point(host, task->vm_id, (enum rp_consistency)task->number, task->name, job,
                                               result, err);
    return rp_method_wait(host, rc, job, result, err);
}

// ReferencePointType 2 is based on change tracking, and so is 1 here: the documentation of the parameter calls it that
// (facts 1.3). There are no logs of replication to base one on.
static int create(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = NULL;
    if (rp_method_vm(call, "AffectedSystem", RP_METHOD_REAL, &found, err) ||
        !(settings = rp_method_embedded(call, "ReferencePointSettings", "CIM_SettingData", err)))
        return -1;
    uint64_t type = rp_cim_get_unsigned(call->in, "ReferencePointType", 2);
    if (type != 1 && type != 2)
        return rp_fail(err, RP_ERR_INVALID, "ReferencePointType %llu is unknown", (unsigned long long)type);
    uint64_t level = rp_cim_get_unsigned(settings, "ConsistencyLevel", RP_CONSISTENCY_UNKNOWN);
    if (level > RP_CONSISTENCY_CRASH)
        return rp_fail(err, RP_ERR_INVALID, "ConsistencyLevel %llu is unknown", (unsigned long long)level);
    const char *name = rp_cim_get_text(settings, "ElementName");
    if (name && *name && rp_method_check_name(name, "ElementName", err))
        return -1;
    struct rp_method_task *task = rp_method_task_new(found.vm, NULL);
    task->number = (uint32_t)level;
    task->name = name && *name ? rp_xstrdup(name) : rp_method_default_name(found.vm->vm.name, " Reference Point");
    return rp_method_start(call,
                           (struct rp_hostd_job){.type = 201,
                                                 .caption = "Creating Virtual Machine Reference Point",
                                                 .result = RP_HOSTD_POINT,
                                                 .run = run_create},
                           task, status, err);
}

static int run_destroy(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                       struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    return rp_method_wait(host, host->ops->destroy_reference_point(host, task->id, job, result, err), job, result, err);
}

static int destroy(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_point(call, "AffectedReferencePoint", &found, err))
        return -1;
    return rp_method_start(call,
                           (struct rp_hostd_job){.type = 202,
                                                 .caption = "Deleting Virtual Machine Reference Point",
                                                 .result = RP_HOSTD_POINT,
                                                 .makes_gone = true,
                                                 .target = found.point->id,
                                                 .run = run_destroy},
                           rp_method_task_new(found.vm, found.point->id), status, err);
}

static int run_import(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    int rc = host->ops->import_reference_point(host, task->vm_id, task->path, job, result, err);
    return rp_method_wait(host, rc, job, result, err);
}

// The runtime state file belongs to the configuration; here it has nothing in it that a reference point needs.
static int import(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    const char *config = rp_cim_get_text(call->in, "ConfigFilePath");
    const char *runtime = rp_cim_get_text(call->in, "RuntimeStateFilePath");
    if (rp_method_vm(call, "AffectedSystem", RP_METHOD_REAL, &found, err))
        return -1;
    if (!config || !*config)
        return rp_fail(err, RP_ERR_INVALID, "ConfigFilePath is missing");
    RP_AUTO_FREE char *path = rp_hostd_folders_check(call->hostd, config, err);
    RP_AUTO_FREE char *state = path && runtime && *runtime ? rp_hostd_folders_check(call->hostd, runtime, err) : NULL;
    if (!path || (runtime && *runtime && !state))
        return -1;
    struct rp_method_task *task = rp_method_task_new(found.vm, found.vm->vm.id);
    RP_AUTO_FREE char *planned = rp_hostd_jobs_plan();
    task->path = path;
    path = NULL;
    return rp_method_start(call,
                           (struct rp_hostd_job){.type = 201,
                                                 .caption = "Importing Virtual Machine Reference Point",
                                                 .result = RP_HOSTD_POINT,
                                                 .target = task->id,
                                                 .planned = planned,
                                                 .run = run_import},
                           task, status, err);
}

// Associated data are the logs of a log based reference point. None of this host has any (HasAssociatedData is false),
// and afterwards that is what is wanted.
static int remove_data(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_point(call, "AffectedReferencePoint", &found, err))
        return -1;
    *status = 0;
    return 0;
}

#define SERVICE "Msvm_VirtualSystemReferencePointService"
const struct rp_hostd_method rp_hostd_point_methods[] = {
    {SERVICE, "CreateReferencePoint", RP_CIM_OPERATE, false, create},
    {SERVICE, "DestroyReferencePoint", RP_CIM_OPERATE, true, destroy},
    {SERVICE, "ExportReferencePoint", RP_CIM_OPERATE, true, rp_method_export_point},
    {SERVICE, "ImportReferencePointMetadata", RP_CIM_ADMINISTER, true, import},
    {SERVICE, "RemoveAssociatedData", RP_CIM_OPERATE, true, remove_data},
    {0},
};
