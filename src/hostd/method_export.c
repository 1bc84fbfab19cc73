// ExportSystemDefinition and ExportReferencePoint (facts/wmi.md 1.3, 1.5 C). The host exports checkpoints, and VMs that
// are off; what is neither gets a checkpoint for as long as it takes.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/log.h"
#include "hostd/method.h"

enum { COPY_ALL, COPY_NONE, COPY_ONE, COPY_FOR_BACKUP }; // CopySnapshotConfiguration

// Its own checkpoints (RP_METHOD_EXPORT). One hostd has a host, so what is called so when it starts is of one that was
// killed.
#define TEMPORARY RP_METHOD_EXPORT

struct export_task {
    char vm_id[RP_HOST_ID];
    char snapshot_id[RP_HOST_ID];  // "": one is made, and goes again
    char base_id[RP_HOST_ID];      // "": whole disks
    char point_id[RP_HOST_ID];     // of ExportReferencePoint
    char *folder;                  // canonical
    bool made;                     // it was missing: it goes again, unless the export is
    bool done;
    bool live;                     // the VM is off: its disks themselves, without a checkpoint
    bool subdirectory, storage;
    char **excluded;
    size_t excluded_count;
};

// When it is empty; nobody's link is followed on the way to it.
static void remove_folder(const char *path)
{
    const char *name;
    RP_AUTO_FD int above = rp_path_open_parent(path, &name, NULL);
    if (above >= 0)
        unlinkat(above, name, AT_REMOVEDIR);
}

// However the job ends, and if it never runs.
static void task_free(void *context)
{
    struct export_task *task = context;
    if (task->made && !task->done)
        remove_folder(task->folder);
    for (size_t i = 0; i < task->excluded_count; i++)
        free(task->excluded[i]);
    free(task->excluded);
    free(task->folder);
    free(task);
}

static void task_free_p(struct export_task **task)
{
    if (*task)
        task_free(*task);
}

static struct export_task *task_new(const struct rp_inventory_vm *vm)
{
    struct export_task *task = rp_xcalloc(1, sizeof *task);
    snprintf(task->vm_id, sizeof task->vm_id, "%s", vm->vm.id);
    task->storage = true;
    return task;
}

static void exclude(struct export_task *task, const char *instance)
{
    task->excluded = rp_xrealloc(task->excluded, (task->excluded_count + 1) * sizeof *task->excluded);
    task->excluded[task->excluded_count++] = rp_xstrdup(instance);
}

// ---- the work -------------------------------------------------------------------------------------------------------

static int freeze(struct rp_host_connection *host, const struct export_task *task, char snapshot[RP_HOST_ID],
                  struct rp_error *err)
{
    char job[RP_HOST_ID];
    int rc = host->ops->create_snapshot(host, task->vm_id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH,
                                        TEMPORARY, job, snapshot, err);
    return rp_method_wait(host, rc, job, snapshot, err);
}

// Its merge goes on by itself, also when the export was cancelled. One that cannot be removed is a recovery checkpoint
// that everybody sees, and no reason to say that the export failed.
static void thaw(struct rp_host_connection *host, const char *snapshot)
{
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    struct rp_error why = {0};
    int (*progress)(void *context, uint64_t done, uint64_t total) = host->progress;
    host->progress = NULL;
    if (rp_method_wait(host, host->ops->destroy_snapshot(host, snapshot, job, made, &why), job, made, &why))
        rp_log(RP_LOG_WARNING, "checkpoint %s of an export stays: %s", snapshot, why.text);
    host->progress = progress;
}

void rp_hostd_export_recover(struct rp_hostd *hostd)
{
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(hostd, NULL);
    struct rp_host_connection *host = inventory ? rp_hostd_hosts_borrow(hostd, NULL) : NULL;
    for (size_t i = 0; host && i < inventory->count; i++) {
        const struct rp_snapshots *all = &inventory->items[i].snapshots;
        for (size_t j = 0; j < all->count; j++)
            if (!all->items[j].merging && all->items[j].type == RP_SNAPSHOT_RECOVERY &&
                !strcmp(all->items[j].name, TEMPORARY))
                thaw(host, all->items[j].id);
    }
    rp_hostd_hosts_return(hostd, host);
    rp_hostd_hosts_release(hostd, inventory);
    rp_hostd_hosts_changed(hostd);
}

static const struct rp_reference_point *find_point(const struct rp_reference_points *points, const char *id)
{
    for (size_t i = 0; i < points->count; i++)
        if (!strcasecmp(points->items[i].id, id))
            return &points->items[i];
    return NULL;
}

static int compare_disk(struct rp_host_connection *host, const struct rp_reference_disk *then,
                        const struct rp_vm_settings *now, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    for (size_t i = 0; i < now->disk_count; i++) {
        const struct rp_vm_disk *disk = &now->disks[i];
        if (!rp_guid_equal(&disk->disk_id, &then->disk_id))
            continue;
        if (!*then->rct_id)
            return rp_fail(err, RP_ERR_STATE, "disk%u was not tracked", disk->number);
        if (rp_host_all_changes(host, disk->path, then->rct_id, disk->size, &changed, err))
            return -1;
        return changed.count ? rp_fail(err, RP_ERR_STATE, "disk%u has been written to since", disk->number) : 0;
    }
    return rp_fail(err, RP_ERR_STATE, "the disk %s is gone", then->instance);
}

// A reference point names a moment and holds no data. What the disks held then can be exported as long as they still
// hold it.
static int check_unchanged(struct rp_host_connection *host, const struct export_task *task, const char *snapshot,
                           struct rp_error *err)
{
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings now = {0};
    if (host->ops->list_reference_points(host, task->vm_id, &points, err) ||
        host->ops->snapshot_settings(host, snapshot, &now, err))
        return -1;
    const struct rp_reference_point *point = find_point(&points, task->point_id);
    if (!point)
        return rp_fail(err, RP_ERR_NOT_FOUND, "there is no reference point %s", task->point_id);
    for (size_t i = 0; i < point->disk_count; i++)
        if (compare_disk(host, &point->disks[i], &now, err))
            return rp_context(err, "reference point %s cannot be exported any more", task->point_id);
    return 0;
}

static struct rp_export wanted(const struct export_task *task, const char *snapshot)
{
    return (struct rp_export){
        .vm_id = task->vm_id, .snapshot_id = snapshot, .base_point_id = *task->base_id ? task->base_id : NULL,
        .folder = task->folder, .subdirectory = task->subdirectory, .storage = task->storage,
        .excluded = (const char *const *)task->excluded, .excluded_count = task->excluded_count, .canonical = true,
    };
}

static int export_it(struct rp_host_connection *host, const struct export_task *task, const char *snapshot,
                     struct rp_error *err)
{
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    const struct rp_export what = wanted(task, snapshot);
    if (*task->point_id && check_unchanged(host, task, snapshot, err))
        return -1;
    return rp_method_wait(host, host->ops->export_system(host, &what, job, made, err), job, made, err);
}

// The files of a folder with that ending, into a property of the job; the first of them when it takes only one.
static void tell_files(struct rp_hostd *hostd, const char *folder, const char *sub, const char *ending,
                       const char *property, bool many)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", folder, sub);
    struct rp_cim_value all = rp_cim_null(RP_CIM_STRING, true);
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        size_t length = strlen(entries[i]->d_name), end = strlen(ending);
        if (length > end && !strcasecmp(entries[i]->d_name + length - end, ending)) {
            RP_AUTO_FREE char *file = rp_xasprintf("%s/%s", path, entries[i]->d_name);
            struct rp_cim_value item = rp_cim_string(file);
            rp_cim_value_push(&all, &item);
        }
        free(entries[i]);
    }
    free(entries);
    if (!rp_cim_value_is_null(&all) && all.count)
        rp_hostd_jobs_detail(hostd, property, many ? rp_cim_value_copy(&all) : rp_cim_string(all.many[0].text));
    rp_cim_value_clear(&all);
}

static int run(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
               struct rp_error *err)
{
    (void)result;
    struct export_task *task = context;
    char temporary[RP_HOST_ID] = "";
    int rc = *task->snapshot_id || task->live ? 0 : freeze(host, task, temporary, err);
    if (!rc)
        rc = export_it(host, task, task->live ? NULL : *temporary ? temporary : task->snapshot_id, err);
    if (*temporary)
        thaw(host, temporary);
    task->done = !rc;
    if (task->done && *task->point_id) {
        tell_files(hostd, task->folder, "Virtual Hard Disks", ".vhdx", "ExportedDisks", true);
        tell_files(hostd, task->folder, "Virtual Machines", ".vmcx", "ExportedConfigFilePath", false);
    }
    return rc;
}

// Takes the task.
static int start(const struct rp_hostd_call *call, struct rp_hostd_job job, struct export_task *task, uint32_t *status,
                 struct rp_error *err)
{
    // What an export writes last tells after a kill whether it is whole.
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    const struct rp_export what = wanted(task, NULL);
    RP_AUTO_FREE char *definition = host ? rp_host_local_export_file(host, &what, err) : NULL;
    rp_hostd_hosts_return(call->hostd, host);
    if (!definition) {
        task_free(task);
        return -1;
    }
    job.result = RP_HOSTD_FILE;
    job.planned = definition;
    job.vm_id = job.target = task->vm_id;
    job.run = run;
    job.context = task;
    job.free_context = task_free;
    return rp_hostd_jobs_start(call->hostd, call->caller, &job, call->out, status, err);
}

// ---- what is asked for ----------------------------------------------------------------------------------------------

// Made when it is missing; the folder that it is in is not.
static int take_folder(const struct rp_hostd_call *call, struct export_task *task, struct rp_error *err)
{
    const char *text = rp_cim_get_text(call->in, "ExportDirectory");
    struct stat st;
    if (!text || !*text)
        return rp_fail(err, RP_ERR_INVALID, "ExportDirectory is missing");
    task->folder = rp_hostd_folders_check(call->hostd, text, err);
    if (!task->folder)
        return rp_context(err, "ExportDirectory");
    const char *name;
    RP_AUTO_FD int above = rp_path_open_parent(task->folder, &name, err);
    if (above < 0)
        return rp_context(err, "ExportDirectory");
    task->made = !mkdirat(above, name, 0700);
    if (!task->made && errno != EEXIST)
        return rp_fail_sys(err, errno, "ExportDirectory: %s", task->folder);
    if (stat(task->folder, &st) || !S_ISDIR(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "ExportDirectory: %s is no folder", task->folder);
    return 0;
}

// A string property that is an object path; NULL, in *path too, when it is empty. RP_ERR_INVALID otherwise.
static int path_in(const struct rp_cim_instance *settings, const char *property, struct rp_cim_path **path,
                   struct rp_error *err)
{
    const char *text = rp_cim_get_text(settings, property);
    struct rp_error why = {0};
    *path = NULL;
    if (!text || !*text || !rp_hostd_paths_parse(text, path, &why))
        return 0;
    return rp_fail(err, RP_ERR_INVALID, "%s: %s", property, why.text);
}

static int read_snapshot(const struct rp_hostd_call *call, const struct rp_cim_instance *settings, uint64_t copy,
                         const struct rp_inventory_vm *vm, struct export_task *task, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = NULL;
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    size_t checkpoints = 0;
    if (copy == COPY_ALL || copy == COPY_NONE) {
        for (size_t i = 0; i < vm->snapshots.count; i++)
            checkpoints += !vm->snapshots.items[i].merging;
        return copy == COPY_ALL && checkpoints ? rp_fail(err, RP_ERR_UNSUPPORTED,
                                                         "VM %s has %zu checkpoints, which this host does not export: "
                                                         "CopySnapshotConfiguration 1, 2 or 3",
                                                         vm->vm.id, checkpoints)
                                               : 0;
    }
    if (path_in(settings, "SnapshotVirtualSystem", &path, err))
        return -1;
    if (!path)
        return rp_fail(err, RP_ERR_INVALID, "SnapshotVirtualSystem is missing");
    if (rp_method_settings_at(call->hostd, path, RP_METHOD_REAL, "SnapshotVirtualSystem", &found, err))
        return -1;
    if (!found.snapshot || strcasecmp(found.vm->vm.id, vm->vm.id))
        return rp_fail(err, RP_ERR_INVALID, "SnapshotVirtualSystem: not a checkpoint of VM %s", vm->vm.id);
    if (copy == COPY_FOR_BACKUP && found.snapshot->type != RP_SNAPSHOT_RECOVERY)
        return rp_fail(err, RP_ERR_INVALID, "SnapshotVirtualSystem: %s is not a recovery checkpoint",
                       found.snapshot->id);
    snprintf(task->snapshot_id, sizeof task->snapshot_id, "%s", found.snapshot->id);
    return 0;
}

static int read_base(const struct rp_hostd_call *call, const struct rp_cim_instance *settings, const char *property,
                     struct export_task *task, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = NULL;
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (path_in(settings, property, &path, err))
        return -1;
    if (!path)
        return 0;
    if (rp_method_point_at(call->hostd, path, property, &found, err))
        return -1;
    if (strcasecmp(found.vm->vm.id, task->vm_id))
        return rp_fail(err, RP_ERR_INVALID, "%s: not a reference point of VM %s", property, task->vm_id);
    snprintf(task->base_id, sizeof task->base_id, "%s", found.point->id);
    return 0;
}

static int read_excluded(const struct rp_cim_instance *settings, const struct rp_inventory_vm *vm,
                         struct export_task *task, struct rp_error *err)
{
    for (size_t i = 0; i < rp_cim_get_count(settings, "ExcludedVirtualHardDisks"); i++) {
        const char *id = rp_cim_get_text_at(settings, "ExcludedVirtualHardDisks", i);
        const struct rp_vm_disk *disk = id ? rp_method_disk(vm, id) : NULL;
        if (!disk)
            return rp_fail(err, RP_ERR_INVALID, "ExcludedVirtualHardDisks: \"%.120s\" is no disk of VM %s",
                           id ? id : "", vm->vm.id);
        exclude(task, disk->instance);
    }
    return 0;
}

static int read_system(const struct rp_hostd_call *call, const struct rp_inventory_vm *vm, struct export_task *task,
                       struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_method_embedded(call, "ExportSettingData", "Msvm_VirtualSystemExportSettingData", err);
    if (!settings)
        return -1;
    uint64_t copy = rp_cim_get_unsigned(settings, "CopySnapshotConfiguration", COPY_ALL);
    uint64_t live = rp_cim_get_unsigned(settings, "CaptureLiveState", 0),
             intent = rp_cim_get_unsigned(settings, "BackupIntent", 0);
    if (copy > COPY_FOR_BACKUP || live > 2 || intent > 1)
        return rp_fail(err, RP_ERR_INVALID,
                       "CopySnapshotConfiguration %llu, CaptureLiveState %llu, BackupIntent %llu: not known",
                       (unsigned long long)copy, (unsigned long long)live, (unsigned long long)intent);
    if (rp_cim_get_boolean(settings, "ExportForLiveMigration", false))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "ExportForLiveMigration: VMs of this host do not migrate");
    task->storage = rp_cim_get_boolean(settings, "CopyVmStorage", true);
    task->subdirectory = rp_cim_get_boolean(settings, "CreateVmExportSubdirectory", true);
    task->live = copy < COPY_ONE && vm->vm.state == RP_VM_OFF;
    // Only a backup has a base; in other exports it stands for nothing.
    return read_snapshot(call, settings, copy, vm, task, err) ||
                   (copy == COPY_FOR_BACKUP && read_base(call, settings, "DifferentialBackupBase", task, err)) ||
                   read_excluded(settings, vm, task, err) ? -1 : 0;
}

int rp_method_export_system(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_vm(call, "ComputerSystem", RP_METHOD_REAL, &found, err))
        return -1;
    RP_CLEANUP(task_free_p) struct export_task *task = task_new(found.vm);
    if (read_system(call, found.vm, task, err) || take_folder(call, task, err))
        return -1;
    struct export_task *taken = task;
    task = NULL;
    return start(call, (struct rp_hostd_job){.type = 62, .caption = "Exporting Virtual Machine",
        .class_name = "Msvm_ConcreteJob"}, taken, status, err);
}

// DisksToExport leaves out the others; none named: all of them.
static int read_point(const struct rp_hostd_call *call, const struct rp_inventory_vm *vm, struct export_task *task,
                      struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_method_embedded(call, "ExportSettingData", "Msvm_VirtualSystemReferencePointExportSettingData", err);
    if (!settings || read_base(call, settings, "BaseReferencePoint", task, err))
        return -1;
    size_t count = rp_cim_get_count(settings, "DisksToExport");
    for (size_t i = 0; i < count; i++) {
        const char *id = rp_cim_get_text_at(settings, "DisksToExport", i);
        if (!id || !rp_method_disk(vm, id))
            return rp_fail(err, RP_ERR_INVALID, "DisksToExport: \"%.120s\" is no disk of VM %s", id ? id : "",
                           vm->vm.id);
    }
    for (size_t d = 0; count && d < vm->settings.disk_count; d++) {
        bool wanted = false;
        for (size_t i = 0; i < count; i++)
            wanted |= rp_method_disk(vm, rp_cim_get_text_at(settings, "DisksToExport", i)) == &vm->settings.disks[d];
        if (!wanted)
            exclude(task, vm->settings.disks[d].instance);
    }
    return 0;
}

int rp_method_export_point(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    static const char class_name[] = "Msvm_VirtualSystemReferencePointExportJob";
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_point(call, "ReferencePoint", &found, err))
        return -1;
    RP_CLEANUP(task_free_p) struct export_task *task = task_new(found.vm);
    snprintf(task->point_id, sizeof task->point_id, "%s", found.point->id);
    if (read_point(call, found.vm, task, err) || take_folder(call, task, err))
        return -1;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *details = rp_cim_instance_new(NULL, class_name);
    rp_cim_set(details, "ExportDirectory", rp_cim_string(task->folder));
    rp_cim_set(details, "VirtualMachineId", rp_cim_string(found.vm->vm.id));
    rp_cim_set(details, "ReferencePointId", rp_cim_string(rp_method_guid(task->point_id)));
    if (*task->base_id)
        rp_cim_set(details, "BaseReferencePointId", rp_cim_string(rp_method_guid(task->base_id)));
    struct export_task *taken = task;
    task = NULL;
    return start(call, (struct rp_hostd_job){.type = 203, .caption = "Exporting Virtual Machine Reference Point",
        .class_name = class_name, .details = details}, taken, status, err);
}
