// Msvm_ImageManagementService: methods that make and change disk files. None touches a file of a VM of this host: the
// VM's own way is through its services, which keep change tracking and the chain record right.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/log.h"
#include "disk/chain.h"
#include "disk/convert.h"
#include "hostd/method.h"

enum { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFFERENCING = 4, FORMAT_VHDX = 3 };
enum { JOB_COMPACTION = 3, JOB_EXPANSION = 4, JOB_MERGING = 5, JOB_CONVERSION = 6 }; // JobType of Msvm_StorageJob

static int start(const struct rp_hostd_call *call, struct rp_hostd_job job, struct rp_method_task *task,
                 uint32_t *status, struct rp_error *err)
{
    job.class_name = "Msvm_StorageJob";
    return rp_method_start(call, job, task, status, err);
}

// What CreateVirtualHardDisk and ConvertVirtualHardDisk take: a file to be made.
struct wanted {
    struct rp_cim_instance *settings;
    struct rp_method_file file;
    uint64_t type;
    struct rp_vhdx_create create;
};

static void wanted_clear(struct wanted *wanted)
{
    rp_cim_instance_free(wanted->settings);
    rp_method_file_clear(&wanted->file);
}

static int read_wanted(const struct rp_hostd_call *call, struct wanted *wanted, struct rp_error *err)
{
    const char *parameter = "VirtualDiskSettingData";
    wanted->settings = rp_method_embedded(call, parameter, "Msvm_VirtualHardDiskSettingData", err);
    if (!wanted->settings)
        return -1;
    wanted->type = rp_cim_get_unsigned(wanted->settings, "Type", TYPE_DYNAMIC);
    uint64_t format = rp_cim_get_unsigned(wanted->settings, "Format", FORMAT_VHDX);
    if (wanted->type < TYPE_FIXED || wanted->type > TYPE_DIFFERENCING || format < 2 || format > 4)
        return rp_fail(err, RP_ERR_INVALID, "%s: Type %llu, Format %llu are unknown", parameter,
                       (unsigned long long)wanted->type, (unsigned long long)format);
    if (wanted->type == TYPE_FIXED || format != FORMAT_VHDX)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: only dynamic and differencing VHDX files are made here",
                       parameter);
    if (rp_method_file_free(call, rp_cim_get_text(wanted->settings, "Path"), "Path", &wanted->file, err))
        return -1;
    const char *id = rp_cim_get_text(wanted->settings, "VirtualDiskId");
    if (id && *id && rp_guid_parse(id, &wanted->create.disk_id, NULL))
        return rp_fail(err, RP_ERR_INVALID, "%s: VirtualDiskId \"%.60s\" is no GUID", parameter, id);
    wanted->create.size = rp_cim_get_unsigned(wanted->settings, "MaxInternalSize", 0);
    wanted->create.block_size = (uint32_t)rp_cim_get_unsigned(wanted->settings, "BlockSize", 0);
    wanted->create.logical_sector = (uint32_t)rp_cim_get_unsigned(wanted->settings, "LogicalSectorSize", 0);
    wanted->create.physical_sector = (uint32_t)rp_cim_get_unsigned(wanted->settings, "PhysicalSectorSize", 0);
    return 0;
}

// A child is made for exactly the content that the parent has now: so nobody may be writing to it.
static int take_parent(const struct rp_hostd_call *call, struct wanted *wanted, struct rp_method_file *parent,
                       struct rp_error *err)
{
    if (rp_method_file(call, rp_cim_get_text(wanted->settings, "ParentPath"), "ParentPath", parent, err))
        return -1;
    if (parent->written)
        return rp_fail(err, RP_ERR_BUSY, "ParentPath: %s belongs to VM %s", parent->path, parent->user);
    if (rp_method_file_parents(call, parent->path, "ParentPath", err))
        return -1;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx =
        rp_vhdx_open(&call->hostd->files.fs, parent->path, RP_VHDX_READ, NULL, err);
    if (!vhdx)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
    if (wanted->create.logical_sector && wanted->create.logical_sector != info->logical_sector)
        return rp_fail(err, RP_ERR_INVALID, "LogicalSectorSize: a child has that of its parent, %u",
                       info->logical_sector);
    wanted->create.parent_path = parent->path;
    wanted->create.parent_data_write_guid = info->data_write_guid;
    wanted->create.disk_id = info->disk_id;
    wanted->create.logical_sector = info->logical_sector;
    wanted->create.physical_sector = info->physical_sector;
    if (!wanted->create.size)
        wanted->create.size = info->size;
    if (wanted->create.size < info->size)
        return rp_fail(err, RP_ERR_INVALID, "MaxInternalSize %llu: its parent %s has %llu", (unsigned long long)wanted->create.size,
                       parent->path, (unsigned long long)info->size);
    return 0;
}

int rp_method_image_create(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(wanted_clear) struct wanted wanted = {0};
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file parent = {0};
    if (read_wanted(call, &wanted, err))
        return -1;
    if (wanted.type == TYPE_DIFFERENCING && take_parent(call, &wanted, &parent, err))
        return -1;
    if (!wanted.create.size)
        return rp_fail(err, RP_ERR_INVALID, "MaxInternalSize is missing");
    if (rp_vhdx_create(&call->hostd->files.fs, wanted.file.path, &wanted.create, err))
        return -1;
    *status = 0;
    return 0;
}

// ---- conversion -----------------------------------------------------------------------------------------------------

static int convert(struct rp_fs *fs, const struct rp_method_task *task, const char *target,
                   struct rp_host_connection *host, struct rp_error *err)
{
    struct rp_vhdx_create create = {.block_size = task->number};
    enum rp_image_format format;
    if (rp_image_detect(fs, task->name, &format, err))
        return -1;
    if (format == RP_IMAGE_VHDX)
        return rp_convert_vhdx_to_vhdx(fs, task->name, target, &create, host->progress, host->progress_context, err);
    if (rp_image_check_raw(fs, task->name, err))
        return -1;
    return rp_convert_raw_to_vhdx(fs, task->name, target, &create, host->progress, host->progress_context, err);
}

// In the same folder, where nothing of the second name is yet.
static int put_in_place(const char *part, const char *path, struct rp_error *err)
{
    const char *name;
    RP_AUTO_FD int folder = rp_path_open_parent(part, &name, err);
    if (folder < 0)
        return -1;
    return renameat2(folder, name, folder, rp_path_name(path), RENAME_NOREPLACE) ? rp_fail_sys(err, errno, "%s", path)
                                                                                 : 0;
}

// Under a name of its own until it is whole: after a kill the file's being there tells that the job was done, and what
// has the other name goes (rp_host_local_making).
static int run_convert(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                       struct rp_error *err)
{
    (void)result;
    const struct rp_method_task *task = context;
    RP_AUTO_FREE char *guid = rp_hostd_jobs_plan(), *part = rp_xasprintf("%s.%s.part", task->path, guid);
    struct rp_error left = {0};
    int64_t making;
    if (rp_host_local_making(host, part, &making, err))
        return -1;
    int rc = convert(&hostd->files.fs, task, part, host, err);
    if (!rc)
        rc = put_in_place(part, task->path, err);
    if (!rc)
        rc = rp_fs_sync_parent(&hostd->files.fs, task->path, err);
    if (rp_host_local_made(host, making, &left))
        rp_log(RP_LOG_WARNING, "%s", left.text);
    return rc;
}

// The source may be a disk of a VM: a frozen file, or that of a VM that is off. One that is written is locked.
int rp_method_image_convert(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file source = {0};
    RP_CLEANUP(wanted_clear) struct wanted wanted = {0};
    struct stat st;
    if (rp_method_file(call, rp_cim_get_text(call->in, "SourcePath"), "SourcePath", &source, err))
        return -1;
    if (rp_method_file_there(&source, "SourcePath", err) ||
        rp_method_file_parents(call, source.path, "SourcePath", err) || read_wanted(call, &wanted, err))
        return -1;
    if (wanted.type == TYPE_DIFFERENCING)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "a conversion to a differencing disk is not possible");
    if (!stat(wanted.file.path, &st))
        return rp_fail(err, RP_ERR_EXISTS, "%s: already there", wanted.file.path);
    struct rp_method_task *task = rp_method_task_new(NULL, NULL);
    task->name = rp_xstrdup(source.path);
    task->path = rp_xstrdup(wanted.file.path);
    task->number = wanted.create.block_size;
    return start(call, (struct rp_hostd_job){.type = JOB_CONVERSION, .caption = "Converting Virtual Hard Disk",
        .vm_id = source.user, .result = RP_HOSTD_FILE, .planned = task->path, .run = run_convert}, task, status, err);
}

// ---- size -----------------------------------------------------------------------------------------------------------

static int run_resize(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    const struct rp_method_task *task = context;
    uint64_t size = strtoull(task->name, NULL, 10);
    if (*task->vm_id) {
        char job[RP_HOST_ID], made[RP_HOST_ID] = "";
        int rc = host->ops->resize_disk(host, task->vm_id, task->number, size, job, made, err);
        if (rp_method_wait(host, rc, job, made, err))
            return -1;
        memcpy(result, task->id, RP_HOST_ID);
        return 0;
    }
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *parent = NULL;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx =
        rp_vhdx_open(&hostd->files.fs, task->path, RP_VHDX_WRITE, NULL, err);
    if (!vhdx)
        return -1;
    if (rp_vhdx_info(vhdx)->has_parent &&
        (!(parent = rp_vhdx_open(&hostd->files.fs, rp_vhdx_info(vhdx)->parent_path, RP_VHDX_READ, NULL, err)) ||
         rp_vhdx_set_parent(vhdx, parent, err)))
        return -1;
    if (rp_vhdx_grow(vhdx, size, err))
        return -1;
    int rc = rp_vhdx_close(vhdx, err);
    vhdx = NULL;
    return rc;
}

// A VM's disk grows through the VM; of its chain only the file that it is written to.
int rp_method_image_resize(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {.hostd = call->hostd};
    uint64_t size = rp_cim_get_unsigned(call->in, "MaxInternalSize", 0);
    if (rp_method_file(call, rp_cim_get_text(call->in, "Path"), "Path", &file, err))
        return -1;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_look(&call->hostd->files.fs, file.path, err);
    if (!vhdx)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
    if (size < info->size || size > RP_VHDX_MAX_SIZE || size % info->logical_sector)
        return rp_fail(err, RP_ERR_INVALID, "MaxInternalSize %llu: disks only grow, in sectors of %u bytes, from %llu",
                       (unsigned long long)size, info->logical_sector, (unsigned long long)info->size);
    if (*file.user && !(found.inventory = rp_hostd_hosts_inventory(call->hostd, err)))
        return -1;
    const struct rp_vm_disk *disk = NULL;
    for (size_t i = 0; *file.user && i < found.inventory->count && !disk; i++) {
        const struct rp_inventory_vm *vm = &found.inventory->items[i];
        for (size_t j = 0; !strcasecmp(vm->vm.id, file.user) && j < vm->settings.disk_count; j++)
            if (!strcmp(vm->settings.disks[j].path, file.path)) {
                disk = &vm->settings.disks[j];
                found.vm = vm;
            }
    }
    if (*file.user && !disk)
        return rp_fail(err, RP_ERR_BUSY, "Path: %s is the parent of a disk of VM %s", file.path, file.user);
    struct rp_method_task *task = rp_method_task_new(found.vm, disk ? disk->instance : file.path);
    task->path = rp_xstrdup(file.path);
    task->name = rp_xasprintf("%llu", (unsigned long long)size);
    task->number = disk ? disk->number : 0;
    return start(call, (struct rp_hostd_job){.type = JOB_EXPANSION, .caption = "Resizing Virtual Hard Disk",
        .result = disk ? RP_HOSTD_DISK : RP_HOSTD_NOTHING, .run = run_resize}, task, status, err);
}

static int run_compact(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                       struct rp_error *err)
{
    (void)result;
    const struct rp_method_task *task = context;
    uint64_t before, after;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx =
        rp_vhdx_open(&hostd->files.fs, task->path, RP_VHDX_WRITE, NULL, err);
    if (!vhdx || rp_vhdx_compact(vhdx, true, &before, &after, host->progress, host->progress_context, err))
        return -1;
    int rc = rp_vhdx_close(vhdx, err);
    vhdx = NULL;
    return rc;
}

// Mode says where unused blocks are looked for (0 to 4); here they are known, so all modes do the same.
int rp_method_image_compact(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    uint64_t mode = rp_cim_get_unsigned(call->in, "Mode", 0);
    if (mode > 4)
        return rp_fail(err, RP_ERR_INVALID, "Mode %llu is unknown", (unsigned long long)mode);
    if (rp_method_file_free(call, rp_cim_get_text(call->in, "Path"), "Path", &file, err) ||
        rp_method_file_there(&file, "Path", err))
        return -1;
    struct rp_method_task *task = rp_method_task_new(NULL, file.path);
    task->path = rp_xstrdup(file.path);
    return start(call, (struct rp_hostd_job){.type = JOB_COMPACTION, .caption = "Compacting Virtual Hard Disk",
        .run = run_compact}, task, status, err);
}

// ---- chains ---------------------------------------------------------------------------------------------------------

// The files of a merge: from the source down to the one above the destination.
struct merge {
    struct rp_vhdx *above[RP_CHAIN_MAX_DEPTH];
    size_t count;
    struct rp_vhdx *destination;
    struct rp_chain below;       // the destination's parents
};

// In the order in which they borrow each other.
static void merge_clear(struct merge *merge)
{
    for (size_t i = 0; i < merge->count; i++)
        rp_vhdx_abandon(merge->above[i]);
    rp_vhdx_abandon(merge->destination);
    rp_chain_close(&merge->below);
}

static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return !stat(a, &sa) && !stat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

// The DataWriteGuid that the destination gets goes into the child's locator first, as in the host's own merges, beside
// the one that it has: after a kill or a power cut the chain is still one, and the merge can be run again.
static int announce(struct rp_fs *fs, const char *child_path, const char *parent_path, const struct rp_guid *next,
                    struct rp_error *err)
{
    struct rp_guid now;
    {
        RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *parent =
            rp_vhdx_open(fs, parent_path, RP_VHDX_READ, NULL, err);
        if (!parent)
            return -1;
        now = rp_vhdx_info(parent)->data_write_guid;
    }
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *child =
        rp_vhdx_open(fs, child_path, RP_VHDX_WRITE, NULL, err);
    if (!child)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(child);
    if (!rp_guid_equal(&now, &info->parent_linkage) && !rp_guid_equal(&now, &info->parent_linkage2))
        return rp_fail(err, RP_ERR_PARENT_MISMATCH, "%s: not the disk that %s was made from", parent_path, child_path);
    if (rp_vhdx_set_parent_locator(child, &now, next, NULL, err))
        return -1;
    int rc = rp_vhdx_close(child, err);
    child = NULL;
    return rc;
}

static int find_above(struct rp_fs *fs, struct merge *merge, const char *source, const char *destination,
                      struct rp_error *err)
{
    for (RP_AUTO_FREE char *path = rp_xstrdup(source); !same_file(path, destination);) {
        if (merge->count == RP_CHAIN_MAX_DEPTH)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: a chain of more than %d files", source, RP_CHAIN_MAX_DEPTH);
        struct rp_vhdx *vhdx = rp_vhdx_open(fs, path, RP_VHDX_READ, NULL, err);
        if (!vhdx)
            return -1;
        merge->above[merge->count++] = vhdx;
        if (!rp_vhdx_info(vhdx)->has_parent)
            return rp_fail(err, RP_ERR_INVALID, "DestinationPath: %s is not in the chain of %s", destination, source);
        free(path);
        path = rp_xstrdup(rp_vhdx_info(vhdx)->parent_path);
    }
    return merge->count ? 0 : rp_fail(err, RP_ERR_INVALID, "DestinationPath: %s is the source itself", destination);
}

static int open_merge(struct rp_fs *fs, struct merge *merge, const char *source, const char *destination,
                      struct rp_error *err)
{
    struct rp_vhdx_session session = {.file_write_guid = rp_guid_new(), .data_write_guid = rp_guid_new()};
    if (find_above(fs, merge, source, destination, err))
        return -1;
    struct rp_vhdx **lowest = &merge->above[merge->count - 1];
    RP_AUTO_FREE char *child = rp_xstrdup(rp_vhdx_path(*lowest));
    rp_vhdx_abandon(*lowest);
    *lowest = NULL;
    merge->count--;
    if (announce(fs, child, destination, &session.data_write_guid, err) ||
        !(*lowest = rp_vhdx_open(fs, child, RP_VHDX_READ, NULL, err)))
        return -1;
    merge->count++;
    merge->destination = rp_vhdx_open(fs, destination, RP_VHDX_WRITE, &session, err);
    if (!merge->destination)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(merge->destination);
    if (info->has_parent && (rp_chain_open(fs, info->parent_path, &merge->below, err) ||
                             rp_vhdx_set_parent(merge->destination, merge->below.layers[0], err)))
        return -1;
    for (size_t i = merge->count; i-- > 0;)
        if (rp_vhdx_set_parent(merge->above[i], i + 1 < merge->count ? merge->above[i + 1] : merge->destination, err))
            return -1;
    return 0;
}

static int run_merge(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                     struct rp_error *err)
{
    (void)result;
    const struct rp_method_task *task = context;
    RP_CLEANUP(merge_clear) struct merge merge = {0};
    if (open_merge(&hostd->files.fs, &merge, task->name, task->path, err) ||
        rp_vhdx_begin_data_change(merge.destination, err))
        return -1;
    // The oldest first: what is younger goes over it.
    for (size_t i = merge.count; i-- > 0;)
        if (rp_vhdx_merge(merge.above[i], merge.destination, host->progress, host->progress_context, err))
            return -1;
    int rc = rp_vhdx_close(merge.destination, err);
    merge.destination = NULL;
    return rc;
}

// As on Windows, the files above the destination stay and are of no use any more.
int rp_method_image_merge(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file source = {0};
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file destination = {0};
    if (rp_method_file_free(call, rp_cim_get_text(call->in, "SourcePath"), "SourcePath", &source, err) ||
        rp_method_file_free(call, rp_cim_get_text(call->in, "DestinationPath"), "DestinationPath", &destination, err))
        return -1;
    if (rp_method_file_there(&source, "SourcePath", err) ||
        rp_method_file_there(&destination, "DestinationPath", err) ||
        rp_method_file_parents(call, source.path, "SourcePath", err) ||
        rp_method_file_parents(call, destination.path, "DestinationPath", err))
        return -1;
    struct rp_method_task *task = rp_method_task_new(NULL, destination.path);
    task->name = rp_xstrdup(source.path);
    task->path = rp_xstrdup(destination.path);
    return start(call, (struct rp_hostd_job){.type = JOB_MERGING, .caption = "Merging Virtual Hard Disks",
        .run = run_merge}, task, status, err);
}

// The child is neither the parent nor below it. What is missing, or lies where clients may name no files, ends the
// search: a chain may be put together from any of its ends, and is checked as a whole when it is read.
static int check_no_loop(const struct rp_hostd_call *call, const char *parent, const char *child, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_xstrdup(parent);
    for (size_t depth = 0; path && depth <= RP_CHAIN_MAX_DEPTH; depth++) {
        if (same_file(path, child))
            return rp_fail(err, RP_ERR_INVALID, "ParentPath: %s is %s %s", parent, depth ? "above" : "the same as",
                           child);
        RP_CLEANUP(rp_method_file_clear) struct rp_method_file next = {0};
        RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_look(&call->hostd->files.fs, path, NULL);
        if (!vhdx || !rp_vhdx_info(vhdx)->has_parent ||
            rp_method_file(call, rp_vhdx_info(vhdx)->parent_path, "ParentPath", &next, NULL))
            return 0;
        free(path);
        path = next.path;
        next.path = NULL;
    }
    return 0;
}

// LeafPath is for a chain that is in use; here none may be, so it need only be free as well.
int rp_method_image_set_parent(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file child = {0};
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file parent = {0};
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file leaf = {0};
    const char *leaf_path = rp_cim_get_text(call->in, "LeafPath");
    if (rp_method_file_free(call, rp_cim_get_text(call->in, "ChildPath"), "ChildPath", &child, err) ||
        rp_method_file(call, rp_cim_get_text(call->in, "ParentPath"), "ParentPath", &parent, err) ||
        (leaf_path && *leaf_path && rp_method_file_free(call, leaf_path, "LeafPath", &leaf, err)))
        return -1;
    if (parent.written) // what is written to is another disk than its child was made for, at every moment
        return rp_fail(err, RP_ERR_BUSY, "ParentPath: %s belongs to VM %s", parent.path, parent.user);
    if (check_no_loop(call, parent.path, child.path, err))
        return -1;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *below = rp_vhdx_look(&call->hostd->files.fs, parent.path, err);
    if (!below)
        return -1;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *above =
        rp_vhdx_open(&call->hostd->files.fs, child.path, RP_VHDX_WRITE, NULL, err);
    if (!above)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(above), *wanted = rp_vhdx_info(below);
    const struct rp_guid none = {0};
    if (!info->has_parent)
        return rp_fail(err, RP_ERR_INVALID, "ChildPath: %s is not a differencing disk", child.path);
    if (wanted->logical_sector != info->logical_sector)
        return rp_fail(err, RP_ERR_PARENT_MISMATCH, "%s: has other sectors than its child", parent.path);
    if (!rp_guid_equal(&info->parent_linkage, &wanted->data_write_guid) &&
        !rp_cim_get_boolean(call->in, "IgnoreIDMismatch", false))
        return rp_fail(err, RP_ERR_PARENT_MISMATCH, "%s: not the disk that %s was made from", parent.path, child.path);
    if (rp_vhdx_set_parent_locator(above, &wanted->data_write_guid, &none, parent.path, err))
        return -1;
    int rc = rp_vhdx_close(above, err);
    above = NULL;
    *status = 0;
    return rc;
}
