// One backup, while it is made: what its files share. backup.c has the order, the others a part of it each.
#ifndef RP_BACKUP_BACKUP_IMPL_H
#define RP_BACKUP_BACKUP_IMPL_H

#include "backup/backup.h"
#include "backup/disk.h"
#include "backup/remark.h"
#include "backup/tag.h"

struct rp_backup_job {
    struct rp_host_connection *host;
    struct rp_repo *repo;
    const struct rp_vm *vm;
    const struct rp_backup_options *options;
    struct rp_work work;
    struct rp_guid repository, id;
    char tag[RP_TAG_TEXT];
    struct rp_repo_lock *lock;
    uint64_t lock_number;
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

#define rp_backup_remark(made, ...) rp_remark((made)->options->remark, (made)->options->context, __VA_ARGS__)

// RP_ERR_CANCELLED when the user wants to stop.
static inline int rp_backup_stopped(const struct rp_backup_job *job, struct rp_error *err)
{
    return rp_work_stopped(&job->work) ? rp_fail(err, RP_ERR_CANCELLED, "stopped") : 0;
}

// As the host calls it; NULL: there is none.
static inline const char *rp_backup_export_folder(const struct rp_backup_job *job)
{
    return job->options->export_folder ? job->options->export_folder : job->host->export_folder;
}

// ---- backup_checkpoint.c --------------------------------------------------------------------------------------------

// The checkpoint, as consistent as was asked for or is allowed, and its settings.
int rp_backup_checkpoint(struct rp_backup_job *job, struct rp_error *err);

// ---- backup_read.c --------------------------------------------------------------------------------------------------

// What the checkpoint's disks hold, or what has changed on them, into the repository, durably.
int rp_backup_read(struct rp_backup_job *job, struct rp_error *err);
// After all readers: what they were read through goes. What cannot be removed now, the next backup removes.
int rp_backup_close_source(struct rp_backup_job *job, struct rp_error *err);
void rp_backup_remark_left(const struct rp_backup_job *job, const struct rp_error *left); // RP_OK: nothing is
// Says in front of a failure that the repository is full, if that is why. Returns -1.
int rp_backup_explain_full(struct rp_backup_job *job, struct rp_error *err);

#endif
