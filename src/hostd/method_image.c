// Msvm_ImageManagementService: what disk files hold and what changed in them (facts/wmi.md 1.4, 1.6). What changes
// files is in method_image_change.c.
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/num.h"
#include "cim/cimxml.h"
#include "disk/chain.h"
#include "disk/convert.h"
#include "hostd/method.h"

#define MAX_RANGES 2000 // of one answer: two numbers of some 60 bytes each on the wire, and 512,000 bytes for all of it
#define FIRST_WINDOW (1 * RP_GIB)
#define LAST_WINDOW (256 * RP_GIB) // 4 Mi units of tracking: at most 32 MiB of ranges

// ---- files that clients name ----------------------------------------------------------------------------------------

void rp_method_file_clear(struct rp_method_file *file)
{
    free(file->path);
    *file = (struct rp_method_file){0};
}

int rp_method_file(const struct rp_hostd_call *call, const char *text, const char *what, struct rp_method_file *file,
                   struct rp_error *err)
{
    *file = (struct rp_method_file){0};
    if (!text || !*text)
        return rp_fail(err, RP_ERR_INVALID, "%s is missing", what);
    if (*text != '/' || strlen(text) >= PATH_MAX)
        return rp_fail(err, RP_ERR_INVALID, "%s: \"%.200s\" is not an absolute path", what, text);
    RP_AUTO_FREE char *real = realpath(text, NULL);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    if (!host)
        return -1;
    int used = rp_host_local_file_user(host, real ? real : text, file->user, &file->written, err);
    rp_hostd_hosts_return(call->hostd, host);
    if (used < 0)
        return -1;
    if (used && real) {
        file->path = real;
        real = NULL;
        return 0;
    }
    file->path = rp_hostd_folders_check(call->hostd, text, err);
    return file->path ? 0 : rp_context(err, "%s", what);
}

int rp_hostd_file_judge(void *hostd, const char *path, struct rp_error *err)
{
    const struct rp_hostd_call call = {.hostd = hostd};
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    return rp_method_file(&call, path, "HostResource", &file, err);
}

int rp_method_file_there(const struct rp_method_file *file, const char *what, struct rp_error *err)
{
    struct stat st;
    return stat(file->path, &st) ? rp_fail_sys(err, errno, "%s: %s", what, file->path) : 0;
}

int rp_method_file_parents(const struct rp_hostd_call *call, const char *path, const char *what, struct rp_error *err)
{
    RP_AUTO_FREE char *next = rp_xstrdup(path);
    enum rp_image_format format;
    struct stat st;
    for (size_t depth = 0; next; depth++) {
        if (depth > RP_CHAIN_MAX_DEPTH)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: %s is in a chain of more than %d files", what, path,
                           RP_CHAIN_MAX_DEPTH);
        if (stat(next, &st))
            return depth || errno != ENOENT ? rp_fail_sys(err, errno, "%s: %s", what, next) : 0;
        if (rp_image_detect(&call->hostd->files.fs, next, &format, err))
            return -1;
        if (format != RP_IMAGE_VHDX)
            return 0;
        RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_look(&call->hostd->files.fs, next, err);
        RP_CLEANUP(rp_method_file_clear) struct rp_method_file parent = {0};
        if (!vhdx || (rp_vhdx_info(vhdx)->has_parent &&
                      rp_method_file(call, rp_vhdx_info(vhdx)->parent_path, what, &parent, err)))
            return -1;
        free(next);
        next = parent.path;
        parent.path = NULL;
    }
    return 0;
}

int rp_method_file_free(const struct rp_hostd_call *call, const char *text, const char *what,
                        struct rp_method_file *file, struct rp_error *err)
{
    if (rp_method_file(call, text, what, file, err))
        return -1;
    if (*file->user)
        return rp_fail(err, RP_ERR_BUSY, "%s: %s belongs to VM %s", what, file->path, file->user);
    return 0;
}

// ---- GetVirtualDiskChanges ------------------------------------------------------------------------------------------

// Asks for more and more at once while little comes, so that neither a full disk needs much memory nor an empty one
// many questions. *done: everything before it is covered.
static int collect(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                   uint64_t end, struct rp_ranges *ranges, uint64_t *done, struct rp_error *err)
{
    uint64_t window = FIRST_WINDOW;
    for (*done = offset; *done < end && ranges->count <= MAX_RANGES;) {
        uint64_t stop = rp_min64(end - *done, window - *done % FIRST_WINDOW), processed = 0;
        if (host->ops->disk_changes(host, path, limit_id, *done, stop, ranges, &processed, err))
            return -1;
        if (!processed)
            return rp_fail(err, RP_ERR_IO, "changes of %s: the host says nothing of what is at %llu", path,
                           (unsigned long long)*done);
        *done += rp_min64(processed, stop);
        if (ranges->count < MAX_RANGES / 4)
            window = rp_min64(4 * window, LAST_WINDOW);
    }
    if (ranges->count > MAX_RANGES) {
        *done = ranges->items[MAX_RANGES].offset; // what lies between is unchanged
        ranges->count = MAX_RANGES;
    }
    return 0;
}

// `Path` is a file of a VM, which the host knows itself: no other is answered for, so none need be refused.
static int get_changes(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    const char *path = rp_cim_get_text(call->in, "Path"), *limit_id = rp_cim_get_text(call->in, "LimitId");
    const char *snapshot = rp_cim_get_text(call->in, "TargetSnapshotId");
    uint64_t offset = rp_cim_get_unsigned(call->in, "ByteOffset", 0), done = 0;
    uint64_t length = rp_cim_get_unsigned(call->in, "ByteLength", 0);
    if (!path || !*path || !limit_id || !*limit_id)
        return rp_fail(err, RP_ERR_INVALID, "%s is missing", path && *path ? "LimitId" : "Path");
    if (snapshot && *snapshot)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "TargetSnapshotId is for VHD Sets, which this host does not have");
    if (!length || length > UINT64_MAX - offset)
        return rp_fail(err, RP_ERR_INVALID, "ByteOffset %llu, ByteLength %llu: not a range", (unsigned long long)offset,
                       (unsigned long long)length);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    if (!host)
        return -1;
    int rc = collect(host, path, limit_id, offset, offset + length, &ranges, &done, err);
    rp_hostd_hosts_return(call->hostd, host);
    if (rc)
        return -1;

    struct rp_cim_value offsets = rp_cim_null(RP_CIM_UINT64, true), lengths = rp_cim_null(RP_CIM_UINT64, true);
    for (size_t i = 0; i < ranges.count; i++) {
        struct rp_cim_value from = rp_cim_unsigned(RP_CIM_UINT64, ranges.items[i].offset);
        struct rp_cim_value size = rp_cim_unsigned(RP_CIM_UINT64, ranges.items[i].length);
        rp_cim_value_push(&offsets, &from);
        rp_cim_value_push(&lengths, &size);
    }
    rp_cim_set(call->out, "ProcessedByteLength", rp_cim_unsigned(RP_CIM_UINT64, done - offset));
    rp_cim_set(call->out, "ChangedByteOffsets", offsets);
    rp_cim_set(call->out, "ChangedByteLengths", lengths);
    *status = 0;
    return 0;
}

// ---- what a file is -------------------------------------------------------------------------------------------------

static void set_guid(struct rp_cim_instance *instance, const char *name, const struct rp_guid *guid)
{
    char text[RP_GUID_TEXT];
    rp_guid_format(guid, text);
    for (char *p = text; *p; p++)
        *p = *p >= 'a' && *p <= 'f' ? (char)(*p - 'a' + 'A') : *p;
    rp_cim_set(instance, name, rp_cim_string(text));
}

static void set_text(const struct rp_hostd_call *call, const char *parameter, const struct rp_cim_instance *instance)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cimxml_write(instance, &text);
    rp_cim_set(call->out, parameter, rp_cim_string(rp_buf_text(&text)));
}

static struct rp_cim_instance *new_instance(const struct rp_hostd_call *call, const char *class_name)
{
    return rp_cim_class_instance(rp_cim_schema_class(call->hostd->virtualization.schema, class_name));
}

static int get_settings(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    if (rp_method_file(call, rp_cim_get_text(call->in, "Path"), "Path", &file, err))
        return -1;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_look(&call->hostd->files.fs, file.path, err);
    if (!vhdx)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        new_instance(call, "Msvm_VirtualHardDiskSettingData");
    rp_cim_set(settings, "InstanceID", rp_cim_string(file.path));
    rp_cim_set(settings, "ElementName", rp_cim_string(rp_path_name(file.path)));
    rp_cim_set(settings, "Path", rp_cim_string(file.path));
    rp_cim_set(settings, "Type", rp_cim_unsigned(RP_CIM_UINT16, info->has_parent ? 4 : info->fixed ? 2 : 3));
    rp_cim_set(settings, "Format", rp_cim_unsigned(RP_CIM_UINT16, 3));
    rp_cim_set(settings, "MaxInternalSize", rp_cim_unsigned(RP_CIM_UINT64, info->size));
    rp_cim_set(settings, "BlockSize", rp_cim_unsigned(RP_CIM_UINT32, info->block_size));
    rp_cim_set(settings, "LogicalSectorSize", rp_cim_unsigned(RP_CIM_UINT32, info->logical_sector));
    rp_cim_set(settings, "PhysicalSectorSize", rp_cim_unsigned(RP_CIM_UINT32, info->physical_sector));
    rp_cim_set(settings, "DataAlignment", rp_cim_unsigned(RP_CIM_UINT64, RP_MIB));
    set_guid(settings, "VirtualDiskId", &info->disk_id);
    if (info->has_parent) {
        rp_cim_set(settings, "ParentPath", rp_cim_string(info->parent_path));
        set_guid(settings, "ParentIdentifier", &info->parent_linkage);
    }
    set_text(call, "SettingData", settings);
    *status = 0;
    return 0;
}

// In use is what somebody has open for writing: then the shared lock cannot be had.
static int get_state(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    struct stat st;
    if (rp_method_file(call, rp_cim_get_text(call->in, "Path"), "Path", &file, err))
        return -1;
    struct rp_error locked = {0};
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx =
        rp_vhdx_open(&call->hostd->files.fs, file.path, RP_VHDX_READ, NULL, &locked);
    bool in_use = !vhdx && locked.code == RP_ERR_BUSY;
    if (!vhdx && !in_use) {
        *err = locked;
        return -1;
    }
    if (in_use && !(vhdx = rp_vhdx_look(&call->hostd->files.fs, file.path, err)))
        return -1;
    if (stat(file.path, &st))
        return rp_fail_sys(err, errno, "%s", file.path);
    const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *state = new_instance(call, "Msvm_VirtualHardDiskState");
    rp_cim_set(state, "FileSize", rp_cim_unsigned(RP_CIM_UINT64, (uint64_t)st.st_size));
    rp_cim_set(state, "InUse", rp_cim_boolean(in_use));
    rp_cim_set(state, "MinInternalSize", rp_cim_unsigned(RP_CIM_UINT64, info->size)); // it is never made smaller here
    rp_cim_set(state, "PhysicalSectorSize", rp_cim_unsigned(RP_CIM_UINT32, info->physical_sector));
    rp_cim_set(state, "Alignment", rp_cim_unsigned(RP_CIM_UINT32, 1)); // 4 KiB: payload blocks lie at whole MiB
    rp_cim_set(state, "FragmentationPercentage", rp_cim_unsigned(RP_CIM_UINT32, 0));
    rp_cim_set(state, "Timestamp", rp_cim_moment(st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec));
    set_text(call, "State", state);
    *status = 0;
    return 0;
}

// The file and everything below it: structures, checksums, and that every parent is the one that its child was made of.
static int validate(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    if (rp_method_file(call, rp_cim_get_text(call->in, "Path"), "Path", &file, err))
        return -1;
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    if (rp_method_file_parents(call, file.path, "Path", err) ||
        rp_chain_open(&call->hostd->files.fs, file.path, &chain, err))
        return -1;
    *status = 0;
    return 0;
}

#define SERVICE "Msvm_ImageManagementService"
const struct rp_hostd_method rp_hostd_image_methods[] = {
    {SERVICE, "GetVirtualDiskChanges", RP_CIM_READ, true, get_changes},
    {SERVICE, "GetVirtualHardDiskSettingData", RP_CIM_READ, true, get_settings},
    {SERVICE, "GetVirtualHardDiskState", RP_CIM_READ, true, get_state},
    {SERVICE, "ValidateVirtualHardDisk", RP_CIM_READ, true, validate},
    {SERVICE, "CreateVirtualHardDisk", RP_CIM_ADMINISTER, true, rp_method_image_create},
    {SERVICE, "ConvertVirtualHardDisk", RP_CIM_ADMINISTER, true, rp_method_image_convert},
    {SERVICE, "ResizeVirtualHardDisk", RP_CIM_ADMINISTER, true, rp_method_image_resize},
    {SERVICE, "CompactVirtualHardDisk", RP_CIM_ADMINISTER, true, rp_method_image_compact},
    {SERVICE, "MergeVirtualHardDisk", RP_CIM_ADMINISTER, true, rp_method_image_merge},
    {SERVICE, "SetParentVirtualHardDisk", RP_CIM_ADMINISTER, true, rp_method_image_set_parent},
    {0},
};
