// The planned VM of a restore to a host: made, given its disks, made real; or taken away again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backup/boot_check.h"
#include "backup/restore_host_impl.h"
#include "base/buf.h"

int rp_restore_host_fail_taken(const struct rp_host_connection *host, const struct rp_vm *vm, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_EXISTS, "%s: VM %s has the id %s already (--new-id makes another VM beside it)",
                   host->address, vm->name ? vm->name : "", vm->id);
}

// By which a planned VM is known again whose id never arrived.
static void note_planned(struct rp_restore_host_job *job)
{
    struct rp_host_connection *host = job->host;
    rp_vms_clear(&job->planned_before);
    job->before_known = host->ops->list_planned && !host->ops->list_planned(host, &job->planned_before, NULL);
    job->may_be_planned = true;
}

static int plan_from_export(struct rp_restore_host_job *job, struct rp_error *err)
{
    char work[RP_HOST_ID] = "";
    struct rp_host_connection *host = job->host;
    struct rp_error why = {0};
    note_planned(job);
    if (host->ops->import_system(host, job->definition, job->options->identity == RP_IDENTITY_NEW, work, job->planned,
                                 &why) ||
        rp_work_make(&job->work, "the import", work, job->planned, &why)) {
        job->plan_failed = why.code;
        return rp_fail(err, why.code, "import %s: %s", job->definition, why.text);
    }
    job->result->imported = true;
    return 0;
}

static int plan_from_settings(struct rp_restore_host_job *job, struct rp_error *err)
{
    char work[RP_HOST_ID] = "";
    struct rp_host_connection *host = job->host;
    struct rp_error why = {0};
    if (!job->point->settings)
        return rp_fail(err, RP_ERR_UNSUPPORTED, RP_RESTORE_HOST_NO_SETTINGS);
    note_planned(job);
    const char *settings = job->point->settings;
    RP_AUTO_FREE char *without = job->options->isolated ? rp_boot_check_isolate(settings) : NULL;
    if (host->ops->plan_system(host, without ? without : settings, (const char *const *)job->disks,
                               job->result->files.count, job->options->identity == RP_IDENTITY_NEW, work, job->planned,
                               &why) ||
        rp_work_make(&job->work, "the planning of the VM", work, job->planned, &why)) {
        job->plan_failed = why.code;
        return rp_fail(err, why.code, "plan the VM from its saved settings: %s", why.text);
    }
    return 0;
}

// An exported configuration is the host's own; a host of another kind may still understand the settings.
int rp_restore_host_plan(struct rp_restore_host_job *job, struct rp_error *err)
{
    struct rp_error why = {0};
    if (!job->definition || job->options->isolated)
        return plan_from_settings(job, err);
    if (!plan_from_export(job, &why))
        return 0;
    bool unknown = why.code == RP_ERR_UNSUPPORTED || why.code == RP_ERR_CORRUPT || why.code == RP_ERR_INVALID;
    if (!unknown || !job->point->settings)
        return rp_fail_as(err, &why);
    rp_restore_host_destroy_planned(job);
    free(job->definition);
    job->definition = NULL;
    if (plan_from_settings(job, err))
        return -1;
    remark(job, "the VM comes from its saved settings: %s", why.text);
    return 0;
}

// What follows the VM's own GUID: "\<controller>\0\0\L".
static const char *place(const char *instance)
{
    const char *slash = instance ? strchr(instance, '\\') : NULL;
    return slash ? slash : "";
}

// Which file is this disk's: the one that it was planned with, the one of the disk in its place, or of its number. An
// imported disk has the name that its file had once, under which another one of ours may be now: no path proves
// anything, and neither does the id of the disk that a host reads from the file there.
static int find_file(const struct rp_restore_host_job *job, const struct rp_vm_disk *disk, const bool *taken,
                     size_t *found)
{
    const struct rp_point *point = job->point;
    for (unsigned way = job->result->imported ? 1 : 0; way < 3; way++)
        for (size_t i = 0; i < point->disk_count; i++) {
            const struct rp_point_disk *old = &point->disks[i];
            bool same = way == 0   ? disk->path && !strcmp(disk->path, job->disks[i])
                        : way == 1 ? *place(disk->instance) && !strcasecmp(place(disk->instance), place(old->instance))
                                   : disk->number == old->number;
            if (!same || taken[i])
                continue;
            *found = i;
            return 0;
        }
    return -1;
}

int rp_restore_host_place_disks(struct rp_restore_host_job *job, struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    if (host->ops->vm_settings(host, job->planned, &settings, err))
        return rp_context(err, "disks of the planned VM");
    if (settings.disk_count != job->result->files.count)
        return rp_fail(err, RP_ERR_CORRUPT, "the planned VM has %zu disks, the restore point %zu", settings.disk_count,
                       job->result->files.count);
    RP_AUTO_FREE bool *taken = rp_xcalloc(settings.disk_count + 1, sizeof *taken);
    for (size_t i = 0; i < settings.disk_count; i++) {
        const struct rp_vm_disk *disk = &settings.disks[i];
        char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
        size_t file = 0;
        if (find_file(job, disk, taken, &file))
            return rp_fail(err, RP_ERR_CORRUPT, "the restore point has no disk for %s of the planned VM",
                           disk->instance);
        taken[file] = true;
        if (disk->path && !strcmp(disk->path, job->disks[file]))
            continue;
        if (host->ops->modify_disk(host, disk->instance, job->disks[file], work, result, err) ||
            rp_restore_host_finish(job, work, result, err))
            return rp_context(err, "give the VM the disk %s", job->disks[file]);
    }
    return 0;
}

int rp_restore_host_realize(struct rp_restore_host_job *job, struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    // Also when it keeps its name: what a host saves of a checkpoint has the checkpoint's.
    const char *name = job->options->vm_name ? job->options->vm_name : job->point->vm_name;
    if (name && *name &&
        (host->ops->rename(host, job->planned, name, work, result, err) ||
         rp_restore_host_finish(job, work, result, err)))
        return rp_context(err, "name the VM %s", name);
    work[0] = 0;
    if (host->ops->validate_planned(host, job->planned, work, result, err) ||
        rp_restore_host_finish(job, work, result, err))
        return rp_context(err, "the host would not run this VM");
    work[0] = 0;
    // Waited for to its end, whoever wants to stop: the VM that it makes has the files that would go.
    if (host->ops->realize_planned(host, job->planned, work, job->result->vm_id, err) ||
        rp_host_wait(host, work, job->result->vm_id, NULL, NULL, err))
        return rp_context(err, "make the VM real");
    return 0;
}

// ---- away with it ---------------------------------------------------------------------------------------------------

static bool was_there(const struct rp_restore_host_job *job, const char *id)
{
    for (size_t i = 0; i < job->planned_before.count; i++)
        if (!strcasecmp(job->planned_before.items[i].id, id))
            return true;
    return false;
}

// A host that did not answer, or did not end when it was asked to, may be at it still.
static void remark_may_come(const struct rp_restore_host_job *job)
{
    if (job->plan_failed == RP_ERR_IO || job->work.end == RP_WORK_GOES_ON)
        remark(job, "if %s plans VM %s all the same, it stays there: refpoint vm delete removes it", job->host->address,
               job->point->vm_name ? job->point->vm_name : job->point->vm_id);
}

// With a new identity, it is one that was not there before and is called like this VM or its checkpoint.
static bool find_new(struct rp_restore_host_job *job)
{
    RP_CLEANUP(rp_vms_clear) struct rp_vms now = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf ids = {0};
    struct rp_host_connection *host = job->host;
    const char *name = job->point->vm_name ? job->point->vm_name : "";
    size_t count = 0;
    bool known = job->before_known && !host->ops->list_planned(host, &now, NULL);
    for (size_t i = 0; known && i < now.count; i++) {
        const struct rp_vm *vm = &now.items[i];
        if (was_there(job, vm->id) || (strcmp(vm->name, name) && !rp_host_is_tag(vm->name)))
            continue;
        snprintf(job->planned, sizeof job->planned, "%s", vm->id);
        rp_buf_printf(&ids, "%s%s", count++ ? ", " : "", vm->id);
    }
    if (count == 1)
        return true;
    job->planned[0] = 0;
    if (count)
        remark(job, "%s got several planned VMs meanwhile, and which one is ours cannot be told (refpoint vm delete "
               "removes it): %s", host->address, rp_buf_text(&ids));
    else
        remark_may_come(job);
    return false;
}

// The planned VM whose id the host did not get to tell.
static bool find_unnamed(struct rp_restore_host_job *job)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct rp_host_connection *host = job->host;
    if (job->options->identity == RP_IDENTITY_NEW)
        return find_new(job);
    if (was_there(job, job->point->vm_id) || !host->ops->find_vm(host, job->point->vm_id, &vm, NULL))
        return false; // somebody else's, or a real one
    if (!job->before_known || host->ops->vm_settings(host, job->point->vm_id, &settings, NULL)) {
        remark_may_come(job);
        return false;
    }
    snprintf(job->planned, sizeof job->planned, "%s", job->point->vm_id);
    return true;
}

void rp_restore_host_destroy_planned(struct rp_restore_host_job *job)
{
    struct rp_error err = {0};
    char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    // Where the id was taken the host made nothing: what has it is somebody else's.
    if (!job->may_be_planned || job->plan_failed == RP_ERR_EXISTS || (!*job->planned && !find_unnamed(job)))
        return;
    job->may_be_planned = false;
    if ((job->host->ops->destroy_system(job->host, job->planned, false, work, result, &err) ||
         rp_restore_host_finish(job, work, result, &err)) &&
        err.code != RP_ERR_NOT_FOUND)
        remark(job, "the planned VM %s is still on the host: %s", job->planned, err.text);
    job->planned[0] = 0;
}
