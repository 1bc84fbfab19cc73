// The checkpoint of a backup, application-consistent where that can be had.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "backup/backup_impl.h"
#include "backup/document.h"
#include "base/clock.h"

// *reached, and in `why` the host's reason for it, if it gives one.
static int find_snapshot(struct rp_backup_job *job, enum rp_consistency *reached, struct rp_error *why,
                         struct rp_error *err)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    if (job->host->ops->list_snapshots(job->host, job->vm->id, &snapshots, err))
        return -1;
    for (size_t i = 0; i < snapshots.count; i++) {
        if (strcmp(snapshots.items[i].id, job->snapshot))
            continue;
        job->result->point.time_ns = snapshots.items[i].time_ns;
        *reached = snapshots.items[i].consistency;
        if (snapshots.items[i].consistency_reason)
            snprintf(why->text, sizeof why->text, "%s", snapshots.items[i].consistency_reason);
        return 0;
    }
    return rp_fail(err, RP_ERR_NOT_FOUND, "the host made checkpoint %s, but does not list it", job->snapshot);
}

static int create_snapshot(struct rp_backup_job *job, enum rp_consistency asked, enum rp_consistency *reached,
                           struct rp_error *why, struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    char work[RP_HOST_ID] = "";
    job->snapshot[0] = 0;
    job->on_host = true;
    if (host->ops->create_snapshot(host, job->vm->id, RP_SNAPSHOT_RECOVERY, asked, job->tag, work, job->snapshot,
                                   err) ||
        rp_work_make(&job->work, "the checkpoint", work, job->snapshot, err) || find_snapshot(job, reached, why, err))
        return -1;
    return 0;
}

// Application-consistent, and where the guest cannot be frozen crash-consistent, if that is allowed: 1. `why` says what
// there is to say of it.
static int freeze(struct rp_backup_job *job, enum rp_consistency asked, enum rp_consistency *reached,
                  struct rp_error *why, struct rp_error *err)
{
    struct rp_error said = {0};
    if (!create_snapshot(job, asked, reached, &said, why)) {
        *why = said;
        return 0;
    }
    bool may = asked == RP_CONSISTENCY_APPLICATION && job->options->allow_crash && why->code != RP_ERR_BUSY &&
               why->code != RP_ERR_CANCELLED && why->code != RP_ERR_NOT_FOUND && !rp_work_stopped(&job->work);
    if (!may)
        return rp_fail_as(err, why);
    // What the host may have made of the first try must not be there beside the second.
    if (rp_tag_remove_job(&job->work, job->vm->id, job->tag, "", NULL, err) ||
        create_snapshot(job, RP_CONSISTENCY_CRASH, reached, &said, err))
        return -1;
    return 1;
}

static bool is_frozen(const struct rp_vm_settings *frozen, const struct rp_vm_disk *disk)
{
    for (size_t i = 0; i < frozen->disk_count; i++)
        if (!strcasecmp(frozen->disks[i].instance, disk->instance))
            return true;
    return false;
}

// What the VM has and the checkpoint has not, and who thinks of it as backed up is wrong.
static void remark_left_out(struct rp_backup_job *job)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings all = {0};
    struct rp_error why = {0};
    if (job->options->left_out_known)
        return;
    if (job->host->ops->vm_settings(job->host, job->vm->id, &all, &why))
        rp_backup_remark(job, "whether the checkpoint leaves disks out is not known: %s", why.text);
    for (size_t i = 0; i < all.outside_count; i++)
        rp_backup_remark(job, "%s: no checkpoint holds what is on it, so it is not in this backup", all.outside[i]);
    for (size_t i = 0; i < all.disk_count; i++)
        if (!is_frozen(&job->settings, &all.disks[i]))
            rp_backup_remark(job, "disk %u (%s) is not in the checkpoint, so it is not in this backup", all.disks[i].number,
                             all.disks[i].path);
}

int rp_backup_checkpoint(struct rp_backup_job *job, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    enum rp_consistency asked = job->options->consistency ? job->options->consistency : RP_CONSISTENCY_CRASH;
    enum rp_consistency reached = RP_CONSISTENCY_UNKNOWN;
    struct rp_error why = {0};
    int fallback = freeze(job, asked, &reached, &why, err);
    if (fallback < 0)
        return rp_context(err, "checkpoint");
    if (rp_backup_stopped(job, err))
        return -1;
    struct rp_point *point = &job->result->point;
    rp_document_consistency(point, asked, fallback ? RP_CONSISTENCY_CRASH : reached, why.text[0] ? why.text : NULL);
    if (asked == RP_CONSISTENCY_APPLICATION && strcmp(point->consistency_reached, "application")) {
        if (!job->options->allow_crash)
            return rp_fail(err, RP_ERR_STATE, "the checkpoint is not application-consistent, which was asked for "
                           "without exception: %s", point->consistency_reason);
        if (!job->options->by_default || (fallback && why.code != RP_ERR_UNSUPPORTED))
            rp_backup_remark(job, "the checkpoint is crash-consistent: %s", point->consistency_reason);
    }
    point->checkpoint_ns = rp_clock_monotonic_ns() - start;
    if (job->host->ops->snapshot_settings(job->host, job->snapshot, &job->settings, err))
        return rp_context(err, "settings of checkpoint %s", job->snapshot);
    remark_left_out(job);
    return 0;
}
