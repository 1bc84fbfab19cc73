// The order of a restore to a host: where to, what comes after the VM is there, and what becomes of a failure.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/plan.h"
#include "backup/restore_host_impl.h"
#include "base/buf.h"

char *rp_restore_host_folder(const struct rp_host_connection *host, const struct rp_point *point,
                             const struct rp_restore_host_options *options, struct rp_error *err)
{
    const struct rp_path_map *paths = host->paths;
    if (options->folder)
        return rp_xstrdup(options->folder);
    if (paths && paths->count) {
        RP_AUTO_FREE char *safe = rp_restore_safe_name(options->vm_name ? options->vm_name : point->vm_name);
        return rp_path_map_join(paths->items[0].host, safe);
    }
    rp_fail(err, RP_ERR_INVALID,
            "%s: where on the host? No folder of it is mapped to this machine, and none was named (--folder)",
            host->address);
    return NULL;
}

static int choose_folder(struct rp_restore_host_job *job, struct rp_error *err)
{
    job->result->folder = rp_restore_host_folder(job->host, job->point, job->options, err);
    if (!job->result->folder)
        return -1;
    job->local = rp_host_local_path(job->host, job->result->folder, err);
    return job->local ? 0 : rp_context(err, "the folder for the VM");
}

// ---- after it is there ----------------------------------------------------------------------------------------------

// The reference point must be that of this very restore point: changes since another one would be the wrong ones.
static int check_reference(struct rp_restore_host_job *job, const char *id, struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    if (host->ops->list_reference_points(host, job->result->vm_id, &points, err))
        return -1;
    for (size_t i = 0; i < points.count; i++)
        if (rp_plan_names(job->point, &points.items[i]))
            return 0;
    return rp_fail(err, RP_ERR_NOT_FOUND,
                   "the host made reference point %s of it, which is of another moment than the restore point", id);
}

static int import_reference(struct rp_restore_host_job *job, struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    char work[RP_HOST_ID] = "", id[RP_HOST_ID] = "";
    if (job->options->identity == RP_IDENTITY_NEW)
        return rp_fail(err, RP_ERR_STATE, "it is another VM now");
    if (!job->point->reference_point)
        return rp_fail(err, RP_ERR_NOT_FOUND, "the restore point names no reference point");
    if (!job->result->imported)
        return rp_fail(err, RP_ERR_UNSUPPORTED,
                       "the restore point has no exported configuration that the host could take the "
                       "reference point from");
    if (host->ops->import_reference_point(host, job->result->vm_id, job->definition, work, id, err) ||
        rp_restore_host_finish(job, work, id, err))
        return -1;
    return check_reference(job, id, err);
}

static void after_realize(struct rp_restore_host_job *job)
{
    struct rp_host_connection *host = job->host;
    struct rp_error err = {0};
    char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    job->result->goes_on = !import_reference(job, &err);
    if (!job->result->goes_on && !job->options->isolated) // of a VM for a while nobody makes backups
        remark(job, "the next backup of this VM will be full: %s", err.text);
    rp_error_clear(&err);
    if (job->options->start && (host->ops->request_state(host, job->result->vm_id, RP_VM_RUNNING, work, result, &err) ||
                                rp_restore_host_finish(job, work, result, &err)))
        remark(job, "the VM is restored, but does not start: %s", err.text);
}

// ---- the end --------------------------------------------------------------------------------------------------------

static void undo(struct rp_restore_host_job *job)
{
    rp_restore_host_destroy_planned(job); // first: it has the files open, or names them
    rp_restore_host_remove_files(job);
}

static void clear(struct rp_restore_host_job *job)
{
    for (size_t i = 0; job->disks && i < job->result->files.count; i++)
        free(job->disks[i]);
    free(job->disks);
    for (size_t i = 0; i < job->written_count; i++)
        free(job->written[i]);
    for (size_t i = 0; i < job->made_count; i++)
        free(job->made[i]);
    free(job->definition);
    free(job->local);
    rp_vms_clear(&job->planned_before);
}

// Before anything is written: the id must be free where it is kept.
static int check_identity(struct rp_restore_host_job *job, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct rp_error why = {0};
    if (job->options->identity == RP_IDENTITY_NEW)
        return 0;
    if (!job->host->ops->find_vm(job->host, job->point->vm_id, &vm, &why))
        return rp_restore_host_fail_taken(job->host, &vm, err);
    return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
}

int rp_restore_host_run(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_point *point,
                        const struct rp_restore_host_options *options, struct rp_restore_host_result *result,
                        struct rp_error *err)
{
    struct rp_restore_host_job job = {.host = host, .repo = repo, .point = point, .options = options, .result = result};
    job.work = (struct rp_work){.host = host, .stop = options->stop, .context = options->context};
    *result = (struct rp_restore_host_result){0};
    bool failed = choose_folder(&job, err) || check_identity(&job, err) || rp_restore_host_write_disks(&job, err) ||
                  rp_restore_host_write_configurations(&job, err) || rp_restore_host_stopped(&job, err) ||
                  rp_restore_host_plan(&job, err) || rp_restore_host_place_disks(&job, err) ||
                  rp_restore_host_stopped(&job, err) || rp_restore_host_realize(&job, err);
    if (failed)
        undo(&job);
    else
        after_realize(&job);
    clear(&job);
    if (failed)
        rp_restore_host_result_clear(result);
    return failed ? -1 : 0;
}

void rp_restore_host_result_clear(struct rp_restore_host_result *result)
{
    rp_restore_result_clear(&result->files);
    free(result->folder);
    *result = (struct rp_restore_host_result){0};
}
