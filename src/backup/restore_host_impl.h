// One restore to a host, while it is made: what its files share. restore_host.c has the order, the others a part of it
// each.
#ifndef RP_BACKUP_RESTORE_HOST_IMPL_H
#define RP_BACKUP_RESTORE_HOST_IMPL_H

#include "backup/remark.h"
#include "backup/restore_host.h"
#include "backup/work.h"

#define RP_RESTORE_HOST_DISKS "Virtual Hard Disks" // where an export has them, and an import in place expects them
#define RP_RESTORE_HOST_NO_SETTINGS "the restore point has no settings of the VM: restore its disks with --to"

struct rp_restore_host_job {
    struct rp_host_connection *host;
    struct rp_repo *repo;
    const struct rp_point *point;
    const struct rp_restore_host_options *options;
    struct rp_restore_host_result *result;
    struct rp_work work;
    char *local;               // the folder, here
    char *made[4];             // folders that we made
    size_t made_count;
    char *written[64];         // configuration files that we wrote
    size_t written_count;
    char *definition;          // the .vmcx, as the host calls it; NULL: there is none
    char **disks;              // by the point's order, as the host calls them
    char planned[RP_HOST_ID];
    bool may_be_planned;       // a call that makes a planned VM was sent
    struct rp_vms planned_before; // what was planned there already
    bool before_known;
    enum rp_code plan_failed;
};

#define remark(job, ...) rp_remark((job)->options->remark, (job)->options->context, __VA_ARGS__)

// RP_ERR_CANCELLED when the user wants to stop.
static inline int rp_restore_host_stopped(const struct rp_restore_host_job *job, struct rp_error *err)
{
    return rp_work_stopped(&job->work) ? rp_fail(err, RP_ERR_CANCELLED, "stopped") : 0;
}

// To the end of what a method of the host has begun.
static inline int rp_restore_host_finish(struct rp_restore_host_job *job, const char *work, char result[RP_HOST_ID],
                                         struct rp_error *err)
{
    return rp_work_finish(&job->work, work, result, err);
}

// ---- restore_host_files.c: the folder has been chosen ---------------------------------------------------------------

int rp_restore_host_write_disks(struct rp_restore_host_job *job, struct rp_error *err);
int rp_restore_host_write_configurations(struct rp_restore_host_job *job, struct rp_error *err);
// Whether a configuration file of that name is the one that a host imports.
bool rp_restore_host_is_definition(const char *name);
// All that was written, once no VM has it any more.
void rp_restore_host_remove_files(struct rp_restore_host_job *job);

// ---- restore_host_plan.c: the planned VM ----------------------------------------------------------------------------

// From the exported configuration, or the saved settings.
int rp_restore_host_plan(struct rp_restore_host_job *job, struct rp_error *err);
int rp_restore_host_place_disks(struct rp_restore_host_job *job, struct rp_error *err);
int rp_restore_host_realize(struct rp_restore_host_job *job, struct rp_error *err);
// Also one whose id the host did not get to tell. What stays is a remark.
void rp_restore_host_destroy_planned(struct rp_restore_host_job *job);
// RP_ERR_EXISTS: the id of the restored VM is that of this one.
int rp_restore_host_fail_taken(const struct rp_host_connection *host, const struct rp_vm *vm, struct rp_error *err);

#endif
