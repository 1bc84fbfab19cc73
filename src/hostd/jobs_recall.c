// Jobs of an earlier life. What was still running when the service was killed, the host's own recovery has finished or
// undone (rp_host_local_open); which of the two is seen from the host.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "cim/cimxml.h"
#include "hostd/jobs_impl.h"

#define SETTLE_NS 3000000000ull

static bool has_disk(const struct rp_inventory *inventory, const char *instance)
{
    for (size_t i = 0; i < inventory->count; i++)
        for (size_t j = 0; j < inventory->items[i].settings.disk_count; j++)
            if (!strcasecmp(inventory->items[i].settings.disks[j].instance, instance))
                return true;
    return false;
}

// The disk of a VM that a file became. False: it did not.
static bool has_file(const struct rp_inventory *inventory, const char *vm_id, const char *path, char id[RP_HOST_ID])
{
    bool planned;
    const struct rp_inventory_vm *vm = rp_hostd_hosts_vm(inventory, vm_id, &planned);
    for (size_t i = 0; vm && i < vm->settings.disk_count; i++) {
        const struct rp_vm_disk *disk = &vm->settings.disks[i];
        if (!disk->path || strcmp(disk->path, path))
            continue;
        snprintf(id, RP_HOST_ID, "%s", disk->instance);
        return true;
    }
    return false;
}

// Whether there is such a thing; `id` gets it as the host calls it.
static bool is_there(const struct rp_inventory *inventory, enum rp_hostd_result kind, const char *wanted,
                     char id[RP_HOST_ID])
{
    bool planned = false;
    const struct rp_inventory_vm *vm = NULL;
    const char *found = NULL;
    if (kind == RP_HOSTD_VM || kind == RP_HOSTD_PLANNED) {
        vm = rp_hostd_hosts_vm(inventory, rp_hostd_paths_bare(wanted), &planned);
        found = vm && planned == (kind == RP_HOSTD_PLANNED) ? vm->vm.id : NULL;
    } else if (kind == RP_HOSTD_SNAPSHOT) {
        const struct rp_snapshot *snapshot = rp_hostd_hosts_snapshot(inventory, wanted, &vm);
        found = snapshot ? snapshot->id : NULL;
    } else if (kind == RP_HOSTD_POINT) {
        const struct rp_reference_point *point = rp_hostd_hosts_point(inventory, wanted, &vm);
        found = point ? point->id : NULL;
    } else if (kind == RP_HOSTD_DISK) {
        found = has_disk(inventory, wanted) || has_disk(rp_hostd_hosts_planned(inventory), wanted) ? wanted : NULL;
    }
    if (found)
        snprintf(id, RP_HOST_ID, "%s", found);
    return found;
}

// Whether what a job was to do is done.
static bool is_done(const struct rp_inventory *inventory, const struct rp_hostd_row *row, char result[RP_HOST_ID])
{
    char id[RP_HOST_ID];
    bool planned = false;
    const struct rp_inventory_vm *vm;
    result[0] = '\0';
    if (row->kind == RP_HOSTD_NOTHING)
        return false;
    if (row->kind == RP_HOSTD_FILE)
        return row->planned[0] && !access(row->planned, F_OK);
    if (row->kind == RP_HOSTD_STATE) {
        vm = rp_hostd_hosts_vm(inventory, row->target, &planned);
        return vm && (int)vm->vm.state == atoi(row->planned);
    }
    if (row->makes_gone)
        return !is_there(inventory, row->kind, row->target, id);
    if (row->kind == RP_HOSTD_DISK && row->planned[0] == '/')
        return has_file(inventory, row->vm_id, row->planned, result);
    return row->planned[0] && is_there(inventory, row->kind, row->planned, result);
}

// A snapshot that is not as consistent as was asked for: the host knows why. The job itself would have said it with its
// warning.
static void warn_of_consistency(const struct rp_inventory *inventory, struct rp_job *job)
{
    const struct rp_inventory_vm *vm;
    const struct rp_snapshot *made = NULL;
    if (job->row.kind == RP_HOSTD_SNAPSHOT && !job->row.makes_gone)
        made = rp_hostd_hosts_snapshot(inventory, job->row.planned, &vm);
    if (!made || made->consistency == RP_CONSISTENCY_APPLICATION || !made->consistency_reason)
        return;
    if (!job->details)
        job->details = rp_cim_instance_new(NULL, job->row.class_name);
    rp_cim_set(job->details, "ErrorDescription", rp_cim_string(made->consistency_reason));
}

// A snapshot whose making the host could not finish or undo yet (its disk service does not answer): it may still come.
static bool is_pending(const struct rp_inventory *inventory, const struct rp_hostd_row *row)
{
    bool planned;
    const struct rp_inventory_vm *vm = rp_hostd_hosts_vm(inventory, row->vm_id, &planned);
    return (row->kind == RP_HOSTD_SNAPSHOT || row->kind == RP_HOSTD_POINT) && !row->makes_gone && vm &&
           vm->vm.activity == RP_VM_CREATING_SNAPSHOT;
}

// A disk service that was being started or stopped is a process of its own and carries on: it gets until then.
static int look(struct rp_hostd_jobs *jobs, struct rp_job *job, uint64_t until, char result[RP_HOST_ID],
                bool *done, bool *pending, struct rp_error *err)
{
    const struct rp_hostd_row *row = &job->row;
    for (;;) {
        const struct rp_inventory *inventory = rp_hostd_hosts_inventory(jobs->hostd, err);
        if (!inventory)
            return -1;
        *done = is_done(inventory, row, result);
        *pending = !*done && (row->kind == RP_HOSTD_STATE || is_pending(inventory, row));
        if (*done)
            warn_of_consistency(inventory, job);
        rp_hostd_hosts_release(jobs->hostd, inventory);
        if (!*pending || row->kind != RP_HOSTD_STATE || rp_clock_monotonic_ns() > until)
            return 0;
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        rp_hostd_hosts_changed(jobs->hostd);
    }
}

static int tell_outcome(struct rp_hostd_jobs *jobs, struct rp_job *job, uint64_t until, struct rp_error *err)
{
    char result[RP_HOST_ID];
    bool done, pending;
    if (look(jobs, job, until, result, &done, &pending, err))
        return -1;
    bool known = job->row.kind != RP_HOSTD_NOTHING && (job->row.makes_gone || job->row.planned[0]) && !pending;
    const char *why = known ? "refpoint-hostd was stopped in the middle of it; it was not done"
                            : "refpoint-hostd was stopped in the middle of it; whether it was done has to be looked at";
    rp_jobs_end(jobs, job, done ? RP_HOSTD_COMPLETED : RP_HOSTD_EXCEPTION, result, done ? 0 : 32768, done ? "" : why);
    return 0;
}

static struct rp_cim_instance *read_details(const char *text)
{
    return *text ? rp_cimxml_parse(text, strlen(text), NULL) : NULL;
}

int rp_jobs_recall(struct rp_hostd_jobs *jobs, struct rp_error *err)
{
    struct rp_hostd_row *rows;
    size_t count;
    int64_t now = rp_clock_wall_ns();
    uint64_t until = rp_clock_monotonic_ns() + SETTLE_NS;
    if (rp_hostd_store_load(jobs->store, now - jobs->keep_ns, &rows, &count, err))
        return -1;
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        struct rp_job *job = rp_xcalloc(1, sizeof *job);
        job->row = rows[i];
        job->details = read_details(job->row.details);
        job->changed = job->row.ended ? job->row.ended : job->row.submitted;
        rp_jobs_insert(jobs, job);
        int64_t left = job->row.ended + jobs->keep_ns - now;
        job->expires = rp_clock_monotonic_ns() + (uint64_t)(left < 0 ? 0 : left < jobs->keep_ns ? left : jobs->keep_ns);
        if (job->row.ended)
            rp_jobs_append_ended(jobs, job);
        else if (jobs->unended++, !rc)
            rc = tell_outcome(jobs, job, until, err);
    }
    free(rows);
    return rc;
}
