// The order of a backup: what comes before the checkpoint, what after the reading, and what becomes of a failure.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/backup_impl.h"
#include "backup/document.h"
#include "backup/export.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"

static int still_locked(const struct rp_backup_job *job, struct rp_error *err)
{
    if (rp_repo_lock_held(job->lock))
        return 0;
    return rp_fail(err, RP_ERR_STATE, "lost the lock on the VM in the repository, another job may have begun: stopped");
}

// Waits for merges in slices, so that it can be interrupted. 0 idle, 1 still merging, -1 error.
static int wait_merge(struct rp_backup_job *job, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    for (;;) {
        uint64_t gone_ms = (rp_clock_monotonic_ns() - start) / 1000000;
        uint64_t left = job->options->merge_timeout_ms > gone_ms ? job->options->merge_timeout_ms - gone_ms : 0;
        int state = rp_host_wait_merge(job->host, job->vm->id, left < 250 ? (unsigned)left : 250, err);
        if (state <= 0 || !left)
            return state;
        if (job->options->merging) {
            RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
            if (job->host->ops->find_vm(job->host, job->vm->id, &vm, err))
                return -1;
            job->options->merging(job->options->context, &vm);
        }
        if (rp_backup_stopped(job, err))
            return -1;
    }
}

// ---- before the checkpoint ------------------------------------------------------------------------------------------

static int lock_vm(struct rp_backup_job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *owner = rp_xasprintf("a backup of VM %s", job->vm->name); // the lock adds machine and process
    job->lock = rp_repo_lock_take(job->repo, job->vm->id, owner, err);
    return job->lock ? rp_repo_lock_number(job->repo, job->vm->id, &job->lock_number, err) : -1;
}

// What a killed job of ours has exported. It takes room only; a folder that is not seen now matters when it is needed.
static void remove_exports(struct rp_backup_job *job)
{
    struct rp_error err = {0};
    unsigned removed = 0;
    const char *folder = rp_backup_export_folder(job);
    if (folder && rp_export_remove_stale(job->host, folder, &job->repository, job->vm->id, &removed, &err))
        rp_log(RP_LOG_INFO, "%s", err.text);
    job->result->orphans += removed;
}

static int prepare(struct rp_backup_job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *twin = rp_repo_twin(job->repo);
    if (twin)
        rp_backup_remark(job, "%s is a copy of the repository in %s and has its id: backups into both take away each "
                         "other's reference points, and are full ones; use one of them",
                         rp_repo_location(job->repo), twin);
    if (rp_backup_stopped(job, err) || lock_vm(job, err))
        return -1;
    job->id = rp_guid_new();
    job->repository = *rp_repo_id(job->repo);
    rp_tag_format(&job->repository, &job->id, job->tag);
    // After the lock: nobody commits a point of this VM between this list and ours.
    if (rp_repo_points_of(job->repo, job->vm->id, &job->points, err))
        return -1;
    if (rp_tag_remove_orphans(&job->work, job->vm->id, &job->repository, &job->points, &job->result->orphans, err))
        return -1;
    remove_exports(job);
    int merging = wait_merge(job, err);
    if (merging < 0)
        return -1;
    if (merging)
        return rp_fail(err, RP_ERR_BUSY, "the host is still merging an earlier checkpoint of the VM: try again later");
    if (job->host->ops->list_reference_points(job->host, job->vm->id, &job->references, err))
        return -1;
    rp_plan_choose_base(&job->points, job->vm->id, &job->references, &job->base);
    if (job->options->full) {
        job->base.point = NULL;
        snprintf(job->base.reason, sizeof job->base.reason, "asked for a full backup");
    }
    return 0;
}

static int begin_session(struct rp_backup_job *job, struct rp_error *err)
{
    const struct rp_point *base = job->base.point;
    size_t count = base ? base->disk_count : 0;
    RP_AUTO_FREE struct rp_repo_root *roots = rp_xcalloc(count + 1, sizeof *roots);
    for (size_t i = 0; i < count; i++)
        roots[i] = base->disks[i].root;
    RP_AUTO_FREE char *what = rp_xasprintf("backup of VM %s", job->vm->id);
    job->session = rp_repo_session_begin(job->repo, what, roots, count, err);
    if (job->session)
        rp_repo_session_under(job->session, job->lock);
    return job->session ? 0 : -1;
}

// ---- reference point, commit ----------------------------------------------------------------------------------------

// What was read is good from here on: the checkpoint was there until the end. A host that cannot name the moment any more
// makes a later backup read more, and costs this one nothing.
static const struct rp_reference_point *find_reference(struct rp_backup_job *job, struct rp_reference_points *after)
{
    struct rp_error why = {0};
    int failed = job->host->ops->list_reference_points(job->host, job->vm->id, after, &why);
    for (size_t i = 0; i < after->count; i++)
        if (!strcmp(after->items[i].id, job->made_reference))
            return &after->items[i];
    rp_backup_remark(job, "the host made reference point %s, but does not list it%s%s: the next backup reads more than "
                     "what changed", job->made_reference, failed ? ": " : "", failed ? why.text : "");
    return NULL;
}

static int convert(struct rp_backup_job *job, struct rp_reference_points *after, const struct rp_reference_point **made,
                   struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    char work[RP_HOST_ID] = "", id[RP_HOST_ID] = "";
    uint64_t start = rp_clock_monotonic_ns();
    if (still_locked(job, err))
        return -1;
    if (host->ops->convert_to_reference_point(host, job->snapshot, work, id, err) ||
        rp_work_make(&job->work, "the reference point", work, id, err))
        return rp_context(err, "reference point");
    memcpy(job->made_reference, id, sizeof id);
    job->result->point.convert_ns = rp_clock_monotonic_ns() - start;
    *made = find_reference(job, after);
    return 0;
}

// Of earlier points some may be deleted, or not be read now and again one day. None of their numbers is above the generation by which
// the lock was held when it was committed, and we hold it by a later one. (Those that are read count where locks were lost.)
static uint64_t next_sequence(const struct rp_backup_job *job)
{
    uint64_t last = 0;
    for (size_t i = 0; i < job->points.count; i++)
        last = rp_max64(last, job->points.items[i].sequence);
    return rp_max64(last + 1, job->lock_number);
}

static int commit(struct rp_backup_job *job, const struct rp_reference_point *reference, struct rp_error *err)
{
    struct rp_point *point = &job->result->point;
    struct rp_repo_stats stats = {0};
    rp_repo_session_stats(job->session, &stats);
    point->bytes_stored = stats.stored_bytes;
    point->new_blocks = stats.new_blocks;
    point->sequence = next_sequence(job);
    rp_document_fill(point, job->host->address, job->vm, &job->settings, job->base.point, reference, job->disks,
                     job->plan.count);
    if (rp_repo_commit(job->session, point, err)) {
        if (err && err->code == RP_ERR_STATE && !rp_repo_lock_held(job->lock))
            return rp_context(err, "lost the lock on the VM in the repository: stopped");
        if (job->base.point && err && (err->code == RP_ERR_NOT_FOUND || err->code == RP_ERR_CORRUPT))
            rp_context(err, "the restore point that this one builds on is damaged (see refpoint check; backup --full goes "
                       "on without it)");
        return rp_backup_explain_full(job, err);
    }
    return 0;
}

// Nothing here can make the backup bad.
static void after_commit(struct rp_backup_job *job, const struct rp_reference_points *references)
{
    struct rp_error err = {0};
    const char *keep = job->result->point.reference_point;
    // Without one of its own the next backup goes on from an older one.
    if (keep && rp_tag_remove_older(&job->work, references, &job->repository, &job->points, keep, &err)) {
        rp_backup_remark(job, "%s: the next backup tries again", err.text);
        rp_error_clear(&err);
    }
    uint64_t start = rp_clock_monotonic_ns();
    int merging = wait_merge(job, &err);
    job->result->wait_ns = rp_clock_monotonic_ns() - start;
    job->result->merge_pending = merging != 0;
    if (merging < 0)
        rp_backup_remark(job, "the backup is good; waiting for the host's merge ended: %s", err.text);
    else if (merging)
        rp_backup_remark(job, "the backup is good; the host is still merging the checkpoint into the disk");
}

static void undo(struct rp_backup_job *job, struct rp_error *err)
{
    struct rp_error files = {0}, left = {0};
    unsigned removed = 0;
    // Files first: a host does not merge what is still open.
    for (size_t i = 0; job->disks && i < job->plan.count; i++)
        rp_backup_disk_clear(&job->disks[i]);
    rp_backup_close_source(job, &files);
    // Otherwise what was stored is a start for the next try; it will not be for one that finds no room again.
    if (job->full)
        rp_repo_session_discard(job->session);
    if (job->on_host)
        rp_tag_remove_job(&job->work, job->vm->id, job->tag, job->made_reference, &removed, &left);
    if (files.code && left.code)
        rp_context(&left, "%s; and", files.text);
    const struct rp_error *both = left.code ? &left : &files;
    if (err && err->code == RP_ERR_CANCELLED && rp_work_stopped(&job->work))
        rp_work_explain(&job->work, job->on_host, removed, both, err);
    else
        rp_backup_remark_left(job, both);
}

static void clear(struct rp_backup_job *job)
{
    for (size_t i = 0; job->disks && i < job->plan.count; i++)
        rp_backup_disk_clear(&job->disks[i]);
    free(job->disks);
    rp_plan_clear(&job->plan);
    rp_vm_settings_clear(&job->settings);
    rp_repo_session_end(job->session);
    rp_repo_lock_release(job->lock);
    rp_reference_points_clear(&job->references);
    rp_points_clear(&job->points);
}

int rp_backup_run(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_vm *vm,
                  const struct rp_backup_options *options, struct rp_backup_result *result, struct rp_error *err)
{
    struct rp_backup_job job = {.host = host, .repo = repo, .vm = vm, .options = options, .result = result};
    job.work = (struct rp_work){
        .host = host,
        .stop = options->stop,
        .context = options->context,
        .patience_ms = options->cancel_timeout_ms,
    };
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points after = {0};
    const struct rp_reference_point *reference = NULL;
    *result = (struct rp_backup_result){0};
    result->point.started_ns = (uint64_t)rp_clock_wall_ns();
    bool failed = prepare(&job, err) || begin_session(&job, err) || rp_backup_stopped(&job, err) ||
                  rp_backup_checkpoint(&job, err) || rp_backup_read(&job, err) ||
                  convert(&job, &after, &reference, err) || commit(&job, reference, err);
    if (failed)
        undo(&job, err);
    else
        after_commit(&job, &after);
    clear(&job);
    if (failed)
        rp_backup_result_clear(result);
    return failed ? -1 : 0;
}

void rp_backup_result_clear(struct rp_backup_result *result)
{
    rp_point_clear(&result->point);
    *result = (struct rp_backup_result){0};
}
