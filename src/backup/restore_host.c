#include "backup/restore_host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/plan.h"
#include "backup/work.h"
#include "base/buf.h"
#include "base/log.h"
#include "wsman/base64.h"

#define DISKS "Virtual Hard Disks" // where an export has them, and an import in place expects them
#define MACHINES "Virtual Machines"

struct job {
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

// ---- the folder -----------------------------------------------------------------------------------------------------

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

static int choose_folder(struct job *job, struct rp_error *err)
{
    job->result->folder = rp_restore_host_folder(job->host, job->point, job->options, err);
    if (!job->result->folder)
        return -1;
    job->local = rp_host_local_path(job->host, job->result->folder, err);
    return job->local ? 0 : rp_context(err, "the folder for the VM");
}

static int make_folder(struct job *job, const char *path, struct rp_error *err)
{
    struct stat st;
    if (!mkdir(path, 0770)) {
        job->made[job->made_count++] = rp_xstrdup(path);
        return 0;
    }
    int sys = errno;
    if (sys == EEXIST && !lstat(path, &st) && S_ISDIR(st.st_mode))
        return 0;
    return rp_fail_sys(err, sys, "%s", path);
}

// In a folder that a group shares (setgid), the host's service may be of that group.
static void share(const struct job *job, const char *path)
{
    struct stat st;
    if (!stat(job->local, &st) && (st.st_mode & S_ISGID) && (st.st_mode & S_IWGRP))
        chmod(path, 0660);
}

// ---- files ----------------------------------------------------------------------------------------------------------

static int write_disks(struct job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *folder = rp_path_join(job->local, DISKS);
    struct rp_restore_options options = {
        .directory = folder,
        .format = RP_IMAGE_VHDX,
        .disk = -1,
        .same_content = job->options->identity == RP_IDENTITY_KEEP,
        .threads = job->options->threads,
        .rate = job->options->rate,
        .progress = job->options->progress,
        .context = job->options->progress_context,
    };
    if (make_folder(job, job->local, err) || make_folder(job, folder, err) ||
        rp_restore_run(job->repo, job->point, &options, &job->result->files, err))
        return -1;
    RP_AUTO_FREE char *on_host = rp_path_map_join(job->result->folder, DISKS);
    job->disks = rp_xcalloc(job->result->files.count + 1, sizeof *job->disks);
    for (size_t i = 0; i < job->result->files.count; i++) {
        share(job, job->result->files.files[i].path);
        job->disks[i] = rp_path_map_join(on_host, rp_path_name(job->result->files.files[i].path));
    }
    return 0;
}

// A repository is not trusted to name files anywhere.
static bool is_plain_name(const char *name)
{
    return *name && *name != '.' && strlen(name) < 128 && !strpbrk(name, "/\\:");
}

static int write_configuration(struct job *job, const struct rp_point_file *file, const char *folder,
                               struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf content = {0};
    if (!is_plain_name(file->name))
        return rp_fail(err, RP_ERR_CORRUPT, "the restore point has a configuration file of the name \"%.64s\"",
                       file->name);
    if (job->written_count == sizeof job->written / sizeof *job->written)
        return rp_fail(err, RP_ERR_CORRUPT, "the restore point has too many configuration files");
    if (rp_base64_decode(file->data, strlen(file->data), &content, err))
        return rp_context(err, "%s", file->name);
    char *path = rp_path_join(folder, file->name);
    struct rp_store *store = rp_fs_open(rp_fs_posix(), path, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!store) {
        free(path);
        return -1;
    }
    job->written[job->written_count++] = path;
    int failed = rp_store_pwrite(store, content.data, content.size, 0, err) || rp_store_flush(store, err);
    rp_store_close(store);
    share(job, path);
    return failed ? -1 : 0;
}

static int write_configurations(struct job *job, struct rp_error *err)
{
    RP_AUTO_FREE char *folder = rp_path_join(job->local, MACHINES);
    RP_AUTO_FREE char *on_host = rp_path_map_join(job->result->folder, MACHINES);
    for (size_t i = 0; i < job->point->file_count; i++) {
        const struct rp_point_file *file = &job->point->files[i];
        const char *dot = strrchr(file->name, '.');
        if ((!i && make_folder(job, folder, err)) || write_configuration(job, file, folder, err))
            return -1;
        if (dot && !strcasecmp(dot, ".vmcx") && !job->definition)
            job->definition = rp_path_map_join(on_host, file->name);
    }
    return 0;
}

// ---- the planned VM -------------------------------------------------------------------------------------------------

static int finish(struct job *job, const char *work, char result[RP_HOST_ID], struct rp_error *err)
{
    return rp_work_finish(&job->work, work, result, err);
}

// By which a planned VM is known again whose id never arrived.
static void note_planned(struct job *job)
{
    struct rp_host_connection *host = job->host;
    rp_vms_clear(&job->planned_before);
    job->before_known = host->ops->list_planned && !host->ops->list_planned(host, &job->planned_before, NULL);
    job->may_be_planned = true;
}

static int plan_from_export(struct job *job, struct rp_error *err)
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

static int plan_from_settings(struct job *job, struct rp_error *err)
{
    char work[RP_HOST_ID] = "";
    struct rp_host_connection *host = job->host;
    struct rp_error why = {0};
    if (!job->point->settings)
        return rp_fail(err, RP_ERR_UNSUPPORTED,
                       "the restore point has no settings of the VM: restore its disks with --to");
    note_planned(job);
    if (host->ops->plan_system(host, job->point->settings, (const char *const *)job->disks, job->result->files.count,
                               job->options->identity == RP_IDENTITY_NEW, work, job->planned, &why) ||
        rp_work_make(&job->work, "the planning of the VM", work, job->planned, &why)) {
        job->plan_failed = why.code;
        return rp_fail(err, why.code, "plan the VM from its saved settings: %s", why.text);
    }
    return 0;
}

static void destroy_planned(struct job *job);

// An exported configuration is the host's own; a host of another kind may still understand the settings.
static int plan(struct job *job, struct rp_error *err)
{
    struct rp_error why = {0};
    if (!job->definition)
        return plan_from_settings(job, err);
    if (!plan_from_export(job, &why))
        return 0;
    bool unknown = why.code == RP_ERR_UNSUPPORTED || why.code == RP_ERR_CORRUPT || why.code == RP_ERR_INVALID;
    if (!unknown || !job->point->settings)
        return rp_fail_as(err, &why);
    destroy_planned(job);
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

// Which file is this disk's: the one that it has, the one of the disk in its place, or of its number.
static int find_file(const struct job *job, const struct rp_vm_disk *disk, const bool *taken, size_t *found)
{
    const struct rp_point *point = job->point;
    for (unsigned way = 0; way < 3; way++)
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

static int place_disks(struct job *job, struct rp_error *err)
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
            finish(job, work, result, err))
            return rp_context(err, "give the VM the disk %s", job->disks[file]);
    }
    return 0;
}

static int realize(struct job *job, struct rp_error *err)
{
    struct rp_host_connection *host = job->host;
    char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    // Also when it keeps its name: what a host saves of a checkpoint has the checkpoint's.
    const char *name = job->options->vm_name ? job->options->vm_name : job->point->vm_name;
    if (name && *name &&
        (host->ops->rename(host, job->planned, name, work, result, err) || finish(job, work, result, err)))
        return rp_context(err, "name the VM %s", name);
    work[0] = 0;
    if (host->ops->validate_planned(host, job->planned, work, result, err) || finish(job, work, result, err))
        return rp_context(err, "the host would not run this VM");
    work[0] = 0;
    // Waited for to its end, whoever wants to stop: the VM that it makes has the files that would go.
    if (host->ops->realize_planned(host, job->planned, work, job->result->vm_id, err) ||
        rp_host_wait(host, work, job->result->vm_id, NULL, NULL, err))
        return rp_context(err, "make the VM real");
    return 0;
}

// ---- after it is there ----------------------------------------------------------------------------------------------

// The reference point must be that of this very restore point: changes since another one would be the wrong ones.
static int check_reference(struct job *job, const char *id, struct rp_error *err)
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

static int import_reference(struct job *job, struct rp_error *err)
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
        finish(job, work, id, err))
        return -1;
    return check_reference(job, id, err);
}

static void after_realize(struct job *job)
{
    struct rp_host_connection *host = job->host;
    struct rp_error err = {0};
    char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    job->result->goes_on = !import_reference(job, &err);
    if (!job->result->goes_on)
        remark(job, "the next backup of this VM will be full: %s", err.text);
    rp_error_clear(&err);
    if (job->options->start && (host->ops->request_state(host, job->result->vm_id, RP_VM_RUNNING, work, result, &err) ||
                                finish(job, work, result, &err)))
        remark(job, "the VM is restored, but does not start: %s", err.text);
}

// ---- undo -----------------------------------------------------------------------------------------------------------

static bool was_there(const struct job *job, const char *id)
{
    for (size_t i = 0; i < job->planned_before.count; i++)
        if (!strcasecmp(job->planned_before.items[i].id, id))
            return true;
    return false;
}

// A host that did not answer, or did not end when it was asked to, may be at it still.
static void remark_may_come(const struct job *job)
{
    if (job->plan_failed == RP_ERR_IO || job->work.end == RP_WORK_GOES_ON)
        remark(job, "if %s plans VM %s all the same, it stays there: refpoint vm delete removes it", job->host->address,
               job->point->vm_name ? job->point->vm_name : job->point->vm_id);
}

// With a new identity, it is one that was not there before and is called like this VM or its checkpoint.
static bool find_new(struct job *job)
{
    RP_CLEANUP(rp_vms_clear) struct rp_vms now = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf ids = {0};
    struct rp_host_connection *host = job->host;
    const char *name = job->point->vm_name ? job->point->vm_name : "";
    size_t count = 0;
    bool known = job->before_known && !host->ops->list_planned(host, &now, NULL);
    for (size_t i = 0; known && i < now.count; i++) {
        const struct rp_vm *vm = &now.items[i];
        if (was_there(job, vm->id) || (strcmp(vm->name, name) && strncmp(vm->name, "refpoint:", 9)))
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
static bool find_unnamed(struct job *job)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct rp_host_connection *host = job->host;
    if (job->options->identity == RP_IDENTITY_NEW)
        return find_new(job);
    if (was_there(job, job->point->vm_id) || !host->ops->find_vm(host, job->point->vm_id, &vm, NULL))
        return false; // somebody else's, or a real one
    if (host->ops->vm_settings(host, job->point->vm_id, &settings, NULL)) {
        remark_may_come(job);
        return false;
    }
    snprintf(job->planned, sizeof job->planned, "%s", job->point->vm_id);
    return true;
}

static void destroy_planned(struct job *job)
{
    struct rp_error err = {0};
    char work[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (!job->may_be_planned || (!*job->planned && !find_unnamed(job)))
        return;
    job->may_be_planned = false;
    if ((job->host->ops->destroy_system(job->host, job->planned, false, work, result, &err) ||
         finish(job, work, result, &err)) &&
        err.code != RP_ERR_NOT_FOUND)
        remark(job, "the planned VM %s is still on the host: %s", job->planned, err.text);
    job->planned[0] = 0;
}

static void undo(struct job *job)
{
    destroy_planned(job); // first: it has the files open, or names them
    for (size_t i = 0; i < job->result->files.count; i++)
        unlink(job->result->files.files[i].path);
    for (size_t i = 0; i < job->written_count; i++)
        unlink(job->written[i]);
    for (size_t i = job->made_count; i-- > 0;)
        rmdir(job->made[i]);
}

static void clear(struct job *job)
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
static int check_identity(struct job *job, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct rp_error why = {0};
    if (job->options->identity == RP_IDENTITY_NEW)
        return 0;
    if (!job->host->ops->find_vm(job->host, job->point->vm_id, &vm, &why))
        return rp_fail(err, RP_ERR_EXISTS, "%s: VM %s has the id %s already (--new-id makes another VM beside it)",
                       job->host->address, vm.name ? vm.name : "", vm.id);
    return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
}

int rp_restore_host_run(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_point *point,
                        const struct rp_restore_host_options *options, struct rp_restore_host_result *result,
                        struct rp_error *err)
{
    struct job job = {.host = host, .repo = repo, .point = point, .options = options, .result = result};
    job.work = (struct rp_work){.host = host, .stop = options->stop, .context = options->context};
    *result = (struct rp_restore_host_result){0};
    bool failed = choose_folder(&job, err) || check_identity(&job, err) || write_disks(&job, err) ||
                  write_configurations(&job, err) || stopped(&job, err) || plan(&job, err) ||
                  place_disks(&job, err) || stopped(&job, err) || realize(&job, err);
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
