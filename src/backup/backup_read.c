// What a backup reads of the checkpoint, and stores.
#include <string.h>

#include "backup/backup_impl.h"
#include "backup/transfer.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"

#define LEAST_ROOM (4 * RP_MIB) // for what is written besides data
#define BEST_RATIO 4            // what compresses better is no VM's disk

static int choose_source(struct rp_backup_job *job, struct rp_error *err)
{
    const struct rp_backup_options *options = job->options;
    enum rp_reader_kind kind;
    if (options->open_reader) {
        job->source = rp_source_of(job->host, options->open_reader);
        return 0;
    }
    if (rp_plan_choose_reader(job->host, &job->settings, options->reader, rp_backup_export_folder(job), &kind, err))
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
        .export_folder = rp_backup_export_folder(job),
        .work = &job->work,
    };
    job->source = rp_source_new(kind, &source);
    return 0;
}

static int open_disks(struct rp_backup_job *job, struct rp_error *err)
{
    if (rp_plan_make(&job->settings, &job->base, &job->plan, err) || choose_source(job, err))
        return -1;
    job->disks = rp_xcalloc(job->plan.count, sizeof *job->disks);
    for (size_t i = 0; i < job->plan.count; i++) {
        struct rp_backup_disk *disk = &job->disks[i];
        disk->plan = &job->plan.disks[i];
        if (rp_backup_stopped(job, err))
            return -1;
        struct rp_reader *reader = job->source->ops->open(job->source, disk->plan, err);
        if (!reader || rp_backup_disk_open(disk, reader, job->session, err))
            return rp_context(err, "disk %u", disk->plan->disk->number);
        if (disk->fallback)
            rp_backup_remark(job, "disk %u is read in full: %s", disk->plan->disk->number, disk->plan->reason);
    }
    return 0;
}

// After all readers. What cannot be removed now, the next backup removes.
int rp_backup_close_source(struct rp_backup_job *job, struct rp_error *err)
{
    struct rp_source *source = job->source;
    job->source = NULL;
    return rp_source_close(source, err);
}

void rp_backup_remark_left(const struct rp_backup_job *job, const struct rp_error *left)
{
    if (left->code)
        rp_backup_remark(job, "%s: the next backup of this VM tries again", left->text);
}

// Bytes of disk that are not stored yet.
static uint64_t left_to_store(const struct rp_backup_job *job)
{
    uint64_t left = 0;
    for (size_t i = 0; job->disks && i < job->plan.count; i++)
        left += rp_ranges_total(&job->disks[i].data) - atomic_load(&job->disks[i].read);
    return left;
}

// How well the data compresses, and how much of it the repository has already, nobody can know beforehand: what has no
// chance is refused, what may fail is told.
static int check_room(struct rp_backup_job *job, struct rp_error *err)
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
    rp_backup_remark(job, "%s: the repository has %s free, this backup reads %s: it may not fit",
                     rp_repo_location(job->repo), a, b);
    return 0;
}

// One message that says it all, in front of where it was noticed.
int rp_backup_explain_full(struct rp_backup_job *job, struct rp_error *err)
{
    uint64_t room, left = left_to_store(job);
    char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT];
    if (!err || err->code != RP_ERR_NO_SPACE)
        return -1;
    job->full = true;
    if (rp_repo_room(job->repo, &room, NULL))
        return rp_context(err, "the repository %s is full", rp_repo_location(job->repo));
    return rp_context(err, "the repository %s is full: %s are free, %s were still to be stored",
                      rp_repo_location(job->repo), rp_format_size(room, a), rp_format_size(left, b));
}

int rp_backup_read(struct rp_backup_job *job, struct rp_error *err)
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
        return rp_backup_explain_full(job, err);
    for (size_t i = 0; i < job->plan.count; i++)
        rp_backup_disk_close_reader(&job->disks[i]);
    if (job->source->ops->describe && job->source->ops->describe(job->source, &job->result->point, err))
        return -1;
    rp_backup_close_source(job, &left);
    rp_backup_remark_left(job, &left);
    for (size_t i = 0; i < job->plan.count; i++)
        if (rp_backup_disk_finish(&job->disks[i], err)) {
            rp_context(err, "disk %u", job->plan.disks[i].disk->number);
            return rp_backup_explain_full(job, err);
        }
    if (rp_repo_session_flush(job->session, err))
        return rp_backup_explain_full(job, err);
    job->result->point.read_ns = rp_clock_monotonic_ns() - start;
    return rp_backup_stopped(job, err);
}
