#include "backup/backup.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/disk.h"
#include "backup/document.h"
#include "backup/export.h"
#include "backup/tag.h"
#include "backup/transfer.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"

#define LEAST_ROOM (4 * RP_MIB) // for what is written besides data
#define BEST_RATIO 4            // what compresses better is no VM's disk

struct job {
    struct rp_host_connection *host;
    struct rp_repo *repo;
    const struct rp_vm *vm;
    const struct rp_backup_options *options;
    struct rp_work work;
    struct rp_guid repository, id;
    char tag[RP_TAG_TEXT];
    struct rp_repo_lock *lock;
    struct rp_repo_session *session;
    bool full;    // the repository is
    bool on_host; // from now on there may be something of ours on the host
    struct rp_points points;
    struct rp_reference_points references;
    struct rp_plan_base base;
    char snapshot[RP_HOST_ID];
    char made_reference[RP_HOST_ID]; // what the snapshot became
    struct rp_vm_settings settings; // of the snapshot
    struct rp_plan plan;
    struct rp_source *source;
    struct rp_backup_disk *disks;
    struct rp_backup_result *result;
};

static void remark(const struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void remark(const struct job *job, const char *format, ...)
{
    char text[RP_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (job->options->remark)
        job->options->remark(job->options->context, text);
    else
        rp_log(RP_LOG_WARNING, "%s", text);
}

static int stopped(const struct job *job, struct rp_error *err)
{
    return rp_work_stopped(&job->work) ? rp_fail(err, RP_ERR_CANCELLED, "stopped") : 0;
}

static int still_locked(const struct job *job, struct rp_error *err)
{
    if (rp_repo_lock_held(job->lock))
        return 0;
    return rp_fail(err, RP_ERR_STATE, "lost the lock on the VM in the repository, another job may have begun: stopped");
}

// Waits for merges in slices, so that it can be interrupted. 0 idle, 1 still merging, -1 error.
static int wait_merge(struct job *job, struct rp_error *err)
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
        if (stopped(job, err))
            return -1;
    }
}

// ---- before the checkpoint ------------------------------------------------------------------------------------------

static int lock_vm(struct job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *owner = rp_xasprintf("a backup of VM %s", job->vm->name); // the lock adds machine and process
    job->lock = rp_repo_lock_take(job->repo, job->vm->id, owner, err);
    return job->lock ? 0 : -1;
}

static const char *export_folder(const struct job *job)
{
    return job->options->export_folder ? job->options->export_folder : job->host->export_folder;
}

// What a killed job of ours has exported. It takes room only; a folder that is not seen now matters when it is needed.
static void remove_exports(struct job *job)
{
    struct rp_error err = {0};
    unsigned removed = 0;
    const char *folder = export_folder(job);
    if (folder && rp_export_remove_stale(job->host, folder, &job->repository, job->vm->id, &removed, &err))
        rp_log(RP_LOG_INFO, "%s", err.text);
    job->result->orphans += removed;
}

static int prepare(struct job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *twin = rp_repo_twin(job->repo);
    if (twin)
        remark(job, "%s is a copy of the repository in %s and has its id: backups into both take away each other's reference "
               "points, and are full ones; use one of them", rp_repo_location(job->repo), twin);
    if (stopped(job, err) || lock_vm(job, err))
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

static int begin_session(struct job *job, struct rp_error *err)
{
    const struct rp_point *base = job->base.point;
    size_t count = base ? base->disk_count : 0;
    RP_AUTO_FREE struct rp_repo_root *roots = rp_xcalloc(count + 1, sizeof *roots);
    for (size_t i = 0; i < count; i++)
        roots[i] = base->disks[i].root;
    RP_AUTO_FREE char *what = rp_xasprintf("backup of VM %s", job->vm->id);
    job->session = rp_repo_session_begin(job->repo, what, roots, count, err);
    return job->session ? 0 : -1;
}

// ---- the checkpoint -------------------------------------------------------------------------------------------------

static int find_snapshot(struct job *job, enum rp_consistency *reached, struct rp_error *err)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    if (job->host->ops->list_snapshots(job->host, job->vm->id, &snapshots, err))
        return -1;
    for (size_t i = 0; i < snapshots.count; i++) {
        if (strcmp(snapshots.items[i].id, job->snapshot))
            continue;
        job->result->point.time_ns = snapshots.items[i].time_ns;
        *reached = snapshots.items[i].consistency;
        return 0;
    }
    return rp_fail(err, RP_ERR_NOT_FOUND, "the host made checkpoint %s, but does not list it", job->snapshot);
}

static int create_snapshot(struct job *job, enum rp_consistency asked, enum rp_consistency *reached, struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    char work[RP_HOST_ID] = "";
    job->snapshot[0] = 0;
    job->on_host = true;
    if (host->ops->create_snapshot(host, job->vm->id, RP_SNAPSHOT_RECOVERY, asked, job->tag, work, job->snapshot, err) ||
        rp_work_make(&job->work, "the checkpoint", work, job->snapshot, err) || find_snapshot(job, reached, err))
        return -1;
    return 0;
}

// Application-consistent, and where the guest cannot be frozen crash-consistent, if that is allowed: 1, with `why`.
static int freeze(struct job *job, enum rp_consistency asked, enum rp_consistency *reached, struct rp_error *why, struct rp_error *err)
{
    if (!create_snapshot(job, asked, reached, why))
        return 0;
    bool may = asked == RP_CONSISTENCY_APPLICATION && job->options->allow_crash && why->code != RP_ERR_BUSY &&
               why->code != RP_ERR_CANCELLED && why->code != RP_ERR_NOT_FOUND && !rp_work_stopped(&job->work);
    if (!may)
        return rp_fail_as(err, why);
    // What the host may have made of the first try must not be there beside the second.
    if (rp_tag_remove_job(&job->work, job->vm->id, job->tag, "", NULL, err) ||
        create_snapshot(job, RP_CONSISTENCY_CRASH, reached, err))
        return -1;
    return 1;
}

static int checkpoint(struct job *job, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    enum rp_consistency asked = job->options->consistency ? job->options->consistency : RP_CONSISTENCY_CRASH;
    enum rp_consistency reached = RP_CONSISTENCY_UNKNOWN;
    struct rp_error why = {0};
    int fallback = freeze(job, asked, &reached, &why, err);
    if (fallback < 0)
        return rp_context(err, "checkpoint");
    if (stopped(job, err))
        return -1;
    struct rp_point *point = &job->result->point;
    rp_document_consistency(point, asked, fallback ? RP_CONSISTENCY_CRASH : reached, fallback ? why.text : NULL);
    if (asked == RP_CONSISTENCY_APPLICATION && strcmp(point->consistency_reached, "application")) {
        if (!job->options->allow_crash)
            return rp_fail(err, RP_ERR_STATE, "the host could not make an application-consistent checkpoint "
                           "(--allow-crash takes a crash-consistent one)");
        remark(job, "the checkpoint is crash-consistent: %s", fallback ? why.text : "the host could not do better");
    }
    point->checkpoint_ns = rp_clock_monotonic_ns() - start;
    if (job->host->ops->snapshot_settings(job->host, job->snapshot, &job->settings, err))
        return rp_context(err, "settings of checkpoint %s", job->snapshot);
    return 0;
}

// ---- reading --------------------------------------------------------------------------------------------------------

static int choose_source(struct job *job, struct rp_error *err)
{
    const struct rp_backup_options *options = job->options;
    enum rp_reader_kind kind;
    if (options->open_reader) {
        job->source = rp_source_of(job->host, options->open_reader);
        return 0;
    }
    if (rp_plan_choose_reader(job->host, &job->settings, options->reader, export_folder(job), &kind, err))
        return -1;
    struct rp_source_job source = {
        .host = job->host,
        .repo = job->repo,
        .vm = job->vm,
        .snapshot_id = job->snapshot,
        .plan = &job->plan,
        .reference = job->base.reference,
        .repository = &job->repository,
        .job = &job->id,
        .export_folder = export_folder(job),
        .work = &job->work,
    };
    job->source = rp_source_new(kind, &source);
    return 0;
}

static int open_disks(struct job *job, struct rp_error *err)
{
    if (rp_plan_make(&job->settings, &job->base, &job->plan, err) || choose_source(job, err))
        return -1;
    job->disks = rp_xcalloc(job->plan.count, sizeof *job->disks);
    for (size_t i = 0; i < job->plan.count; i++) {
        struct rp_backup_disk *disk = &job->disks[i];
        disk->plan = &job->plan.disks[i];
        if (stopped(job, err))
            return -1;
        struct rp_reader *reader = job->source->ops->open(job->source, disk->plan, err);
        if (!reader || rp_backup_disk_open(disk, reader, job->session, err))
            return rp_context(err, "disk %u", disk->plan->disk->number);
        if (disk->fallback)
            remark(job, "disk %u is read in full: %s", disk->plan->disk->number, disk->plan->reason);
    }
    return 0;
}

// After all readers. What cannot be removed now, the next backup removes.
static int close_source(struct job *job, struct rp_error *err)
{
    struct rp_source *source = job->source;
    job->source = NULL;
    return rp_source_close(source, err);
}

static void remark_left(const struct job *job, const struct rp_error *left)
{
    if (left->code)
        remark(job, "%s: the next backup of this VM tries again", left->text);
}

// Bytes of disk that are not stored yet.
static uint64_t left_to_store(const struct job *job)
{
    uint64_t left = 0;
    for (size_t i = 0; job->disks && i < job->plan.count; i++)
        left += rp_ranges_total(&job->disks[i].data) - atomic_load(&job->disks[i].read);
    return left;
}

// How well the data compresses, and how much of it the repository has already, nobody can know beforehand: what has no chance
// is refused, what may fail is told.
static int check_room(struct job *job, struct rp_error *err)
{
    uint64_t room, needed = left_to_store(job);
    if (job->options->ignore_room)
        return 0;
    if (rp_repo_room(job->repo, &room, err))
        return -1;
    if (room >= needed + LEAST_ROOM)
        return 0;
    char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT];
    rp_format_size(room, a);
    rp_format_size(needed, b);
    if (room < needed / BEST_RATIO + LEAST_ROOM)
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: the repository has %s free, too little for a backup that reads %s "
                       "(--no-space-check tries all the same)", rp_repo_location(job->repo), a, b);
    remark(job, "%s: the repository has %s free, this backup reads %s: it may not fit", rp_repo_location(job->repo), a, b);
    return 0;
}

// One message that says it all, in front of where it was noticed.
static int explain_full(struct job *job, struct rp_error *err)
{
    uint64_t room, left = left_to_store(job);
    char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT];
    if (!err || err->code != RP_ERR_NO_SPACE)
        return -1;
    job->full = true;
    if (rp_repo_room(job->repo, &room, NULL))
        return rp_context(err, "the repository %s is full", rp_repo_location(job->repo));
    return rp_context(err, "the repository %s is full: %s are free, %s were still to be stored", rp_repo_location(job->repo),
                      rp_format_size(room, a), rp_format_size(left, b));
}

static int read_disks(struct job *job, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    struct rp_error left = {0};
    if (open_disks(job, err) || check_room(job, err))
        return -1;
    RP_AUTO_FREE struct rp_transfer_part *parts = rp_xcalloc(job->plan.count, sizeof *parts);
    for (size_t i = 0; i < job->plan.count; i++)
        parts[i] = (struct rp_transfer_part){&job->disks[i].data, &job->disks[i]};
    struct rp_transfer transfer = {
        .parts = parts,
        .part_count = job->plan.count,
        .threads = job->options->threads,
        .rate = job->options->rate,
        .read = rp_backup_disk_read,
        .store = rp_backup_disk_store,
        .progress = job->options->progress,
        .context = job->options->progress_context,
    };
    if (rp_transfer_run(&transfer, err))
        return explain_full(job, err);
    for (size_t i = 0; i < job->plan.count; i++)
        rp_backup_disk_close_reader(&job->disks[i]);
    if (job->source->ops->describe && job->source->ops->describe(job->source, &job->result->point, err))
        return -1;
    close_source(job, &left);
    remark_left(job, &left);
    for (size_t i = 0; i < job->plan.count; i++)
        if (rp_backup_disk_finish(&job->disks[i], err)) {
            rp_context(err, "disk %u", job->plan.disks[i].disk->number);
            return explain_full(job, err);
        }
    if (rp_repo_session_flush(job->session, err))
        return explain_full(job, err);
    job->result->point.read_ns = rp_clock_monotonic_ns() - start;
    return stopped(job, err);
}

// ---- reference point, commit ----------------------------------------------------------------------------------------

// What was read is good from here on: the checkpoint was there until the end. A host that cannot name the moment any more
// makes a later backup read more, and costs this one nothing.
static const struct rp_reference_point *find_reference(struct job *job, struct rp_reference_points *after)
{
    struct rp_error why = {0};
    int failed = job->host->ops->list_reference_points(job->host, job->vm->id, after, &why);
    for (size_t i = 0; i < after->count; i++)
        if (!strcmp(after->items[i].id, job->made_reference))
            return &after->items[i];
    remark(job, "the host made reference point %s, but does not list it%s%s: the next backup reads more than what changed",
           job->made_reference, failed ? ": " : "", failed ? why.text : "");
    return NULL;
}

static int convert(struct job *job, struct rp_reference_points *after, const struct rp_reference_point **made, struct rp_error *err)
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

static int commit(struct job *job, const struct rp_reference_point *reference, struct rp_error *err)
{
    struct rp_point *point = &job->result->point;
    struct rp_repo_stats stats = {0};
    rp_repo_session_stats(job->session, &stats);
    point->bytes_stored = stats.stored_bytes;
    point->new_blocks = stats.new_blocks;
    // The lock on the VM is ours: no other point of it was written since these were listed.
    for (size_t i = 0; i < job->points.count; i++)
        point->sequence = rp_max64(point->sequence, job->points.items[i].sequence);
    point->sequence++;
    rp_document_fill(point, job->host->address, job->vm, &job->settings, job->base.point, reference, job->disks, job->plan.count);
    if (still_locked(job, err) || rp_repo_commit(job->session, point, err)) {
        if (job->base.point && err && (err->code == RP_ERR_NOT_FOUND || err->code == RP_ERR_CORRUPT))
            rp_context(err, "the restore point that this one builds on is damaged (see refpoint check; backup --full goes on without it)");
        return explain_full(job, err);
    }
    return 0;
}

// Nothing here can make the backup bad.
static void after_commit(struct job *job, const struct rp_reference_points *references)
{
    struct rp_error err = {0};
    const char *keep = job->result->point.reference_point;
    // Without one of its own the next backup goes on from an older one.
    if (keep && rp_tag_remove_older(&job->work, references, &job->repository, &job->points, keep, &err)) {
        remark(job, "%s: the next backup tries again", err.text);
        rp_error_clear(&err);
    }
    uint64_t start = rp_clock_monotonic_ns();
    int merging = wait_merge(job, &err);
    job->result->wait_ns = rp_clock_monotonic_ns() - start;
    job->result->merge_pending = merging != 0;
    if (merging < 0)
        remark(job, "the backup is good; waiting for the host's merge ended: %s", err.text);
    else if (merging)
        remark(job, "the backup is good; the host is still merging the checkpoint into the disk");
}

static void undo(struct job *job, struct rp_error *err)
{
    struct rp_error files = {0}, left = {0};
    unsigned removed = 0;
    // Files first: a host does not merge what is still open.
    for (size_t i = 0; job->disks && i < job->plan.count; i++)
        rp_backup_disk_clear(&job->disks[i]);
    close_source(job, &files);
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
        remark_left(job, both);
}

static void clear(struct job *job)
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
    struct job job = {.host = host, .repo = repo, .vm = vm, .options = options, .result = result};
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
    bool failed = prepare(&job, err) || begin_session(&job, err) || stopped(&job, err) || checkpoint(&job, err) ||
                  read_disks(&job, err) || convert(&job, &after, &reference, err) || commit(&job, reference, err);
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

int rp_backup_preview(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_vm *vm,
                      const struct rp_backup_options *options, struct rp_backup_preview *preview, struct rp_error *err)
{
    *preview = (struct rp_backup_preview){0};
    if (rp_repo_points_of(repo, vm->id, &preview->points, err) ||
        host->ops->list_reference_points(host, vm->id, &preview->references, err) ||
        host->ops->vm_settings(host, vm->id, &preview->settings, err))
        goto failed;
    rp_plan_choose_base(&preview->points, vm->id, &preview->references, &preview->base);
    if (options->full) {
        preview->base.point = NULL;
        snprintf(preview->base.reason, sizeof preview->base.reason, "asked for a full backup");
    }
    if (rp_plan_make(&preview->settings, &preview->base, &preview->plan, err) ||
        rp_plan_choose_reader(host, &preview->settings, options->open_reader ? RP_READER_VIRTUAL_DISK : options->reader,
                              options->export_folder ? options->export_folder : host->export_folder, &preview->reader, err))
        goto failed;
    return 0;
failed:
    rp_backup_preview_clear(preview);
    return -1;
}

void rp_backup_preview_clear(struct rp_backup_preview *preview)
{
    rp_plan_clear(&preview->plan);
    rp_vm_settings_clear(&preview->settings);
    rp_reference_points_clear(&preview->references);
    rp_points_clear(&preview->points);
    *preview = (struct rp_backup_preview){0};
}
