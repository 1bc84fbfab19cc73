#include "backup/export.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/folder.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/num.h"
#include "disk/vhdx.h"
#include "wsman/base64.h"

#define MAX_DEPTH 4         // of what a host writes: "Virtual Hard Disks", "Snapshots", …
#define MAX_FILES 4096
#define MAX_CONFIGURATION (4u << 20) // bytes in all
#define HEX_GUID 33

// ---- whose folder ---------------------------------------------------------------------------------------------------

// Without dashes: a path on Windows may have 260 characters only.
static const char *hex(const struct rp_guid *guid, char out[HEX_GUID])
{
    char text[RP_GUID_TEXT], *to = out;
    rp_guid_format(guid, text);
    for (const char *p = text; *p; p++)
        if (*p != '-')
            *to++ = *p;
    *to = 0;
    return out;
}

static char *name_prefix(const struct rp_guid *repository, const char *vm_id)
{
    struct rp_guid vm = {0};
    char a[HEX_GUID], b[HEX_GUID];
    rp_guid_parse(vm_id, &vm, NULL);
    return rp_xasprintf("refpoint-%s-%s-", hex(repository, a), hex(&vm, b));
}

// Eight hex digits and nothing else follow the prefix.
static bool is_ours(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);
    return !strncmp(name, prefix, length) && strspn(name + length, "0123456789abcdef") == 8 && !name[length + 8];
}

int rp_export_folder_make(const struct rp_host_connection *host, const char *folder, const struct rp_guid *repository,
                          const char *vm_id, const struct rp_guid *job, struct rp_export_folder *made,
                          struct rp_error *err)
{
    *made = (struct rp_export_folder){0};
    char digits[HEX_GUID];
    RP_AUTO_FREE char *local = rp_host_local_path(host, folder, err), *prefix = name_prefix(repository, vm_id);
    if (!local)
        return rp_context(err, "the folder for exports");
    RP_AUTO_FREE char *name = rp_xasprintf("%s%.8s", prefix, hex(job, digits));
    RP_AUTO_FREE char *path = rp_path_join(local, name);
    if (mkdir(path, 0770))
        return rp_fail_sys(err, errno, "the folder for exports, %s (here %s)", folder, path);
    made->host = rp_path_map_join(folder, name);
    made->local = rp_xstrdup(path);
    return 0;
}

void rp_export_folder_clear(struct rp_export_folder *folder)
{
    free(folder->host);
    free(folder->local);
    *folder = (struct rp_export_folder){0};
}

int rp_export_folder_remove(struct rp_export_folder *folder, struct rp_error *err)
{
    if (!folder->local)
        return 0;
    if (rp_folder_remove(folder->local, err))
        return rp_context(err, "remove the export %s", folder->host);
    return 0;
}

int rp_export_remove_stale(const struct rp_host_connection *host, const char *folder, const struct rp_guid *repository,
                           const char *vm_id, unsigned *removed, struct rp_error *err)
{
    RP_AUTO_FREE char *local = rp_host_local_path(host, folder, err), *prefix = name_prefix(repository, vm_id);
    if (!local)
        return -1;
    DIR *dir = opendir(local);
    if (!dir)
        return rp_fail_sys(err, errno, "%s", local);
    int result = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!is_ours(entry->d_name, prefix))
            continue;
        RP_AUTO_FREE char *path = rp_path_join(local, entry->d_name);
        rp_log(RP_LOG_INFO, "removing %s, left by an interrupted backup", path);
        if (rp_folder_remove(path, err))
            result = -1;
        else
            ++*removed;
    }
    closedir(dir);
    return result;
}

// ---- what is in it --------------------------------------------------------------------------------------------------

// Calls `each` for the files below the folder. Links are not followed.
static int walk(const char *folder, unsigned depth, int (*each)(void *context, const char *path, struct rp_error *err),
                void *context, struct rp_error *err)
{
    DIR *dir = opendir(folder);
    int failed = dir ? 0 : rp_fail_sys(err, errno, "%s", folder);
    for (struct dirent *entry; dir && !failed && (entry = readdir(dir));) {
        struct stat st;
        RP_AUTO_FREE char *path = rp_path_join(folder, entry->d_name);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || lstat(path, &st))
            continue;
        if (S_ISDIR(st.st_mode))
            failed = depth ? walk(path, depth - 1, each, context, err) : 0;
        else if (S_ISREG(st.st_mode))
            failed = each(context, path, err);
    }
    if (dir)
        closedir(dir);
    return failed;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcasecmp(text + a - b, end);
}

struct listing {
    struct rp_fs *fs;
    struct rp_export_files *files;
};

static int add_file(void *context, const char *path, struct rp_error *err)
{
    struct listing *listing = context;
    struct rp_export_files *files = listing->files;
    if (!ends_with(path, ".vhdx") && !ends_with(path, ".avhdx"))
        return 0;
    if (files->count == MAX_FILES)
        return rp_fail(err, RP_ERR_CORRUPT, "the host exported more than %d disk files", MAX_FILES);
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(listing->fs, path, RP_VHDX_READ, NULL, err);
    if (!vhdx)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
    files->items = rp_xrealloc(files->items, (files->count + 1) * sizeof *files->items);
    files->items[files->count++] = (struct rp_export_file){
        .path = rp_xstrdup(path),
        .disk_id = info->disk_id,
        .data_write_guid = info->data_write_guid,
        .size = info->size,
        .parent = info->has_parent ? rp_xstrdup(info->parent_path ? info->parent_path : "") : NULL,
    };
    return 0;
}

int rp_export_list(const char *local, struct rp_fs *fs, struct rp_export_files *files, struct rp_error *err)
{
    struct listing listing = {fs, files};
    *files = (struct rp_export_files){0};
    if (!walk(local, MAX_DEPTH, add_file, &listing, err))
        return 0;
    rp_export_files_clear(files);
    return -1;
}

void rp_export_files_clear(struct rp_export_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->items[i].path);
        free(files->items[i].parent);
    }
    free(files->items);
    *files = (struct rp_export_files){0};
}

static bool same_stem(const char *a, const char *b)
{
    const char *dot_a = strrchr(a, '.'), *dot_b = strrchr(b, '.');
    size_t length = dot_a ? (size_t)(dot_a - a) : strlen(a);
    return length == (dot_b ? (size_t)(dot_b - b) : strlen(b)) && !strncasecmp(a, b, length);
}

static bool is_parent(const struct rp_export_files *files, const struct rp_export_file *file)
{
    for (size_t i = 0; i < files->count; i++)
        if (files->items[i].parent && !strcmp(files->items[i].parent, file->path))
            return true;
    return false;
}

int rp_export_find(const struct rp_export_files *files, const struct rp_vm_disk *disk,
                   const struct rp_export_file **found, struct rp_error *err)
{
    const char *name = rp_path_map_name(disk->path);
    const struct rp_export_file *by_id = NULL, *by_name = NULL;
    size_t ids = 0, names = 0;
    bool known = !rp_guid_is_zero(&disk->disk_id);
    for (size_t i = 0; i < files->count; i++) {
        const struct rp_export_file *file = &files->items[i];
        if ((known && !rp_guid_equal(&file->disk_id, &disk->disk_id)) || is_parent(files, file))
            continue;
        by_id = file;
        ids++;
        if (same_stem(rp_path_name(file->path), name)) {
            by_name = file;
            names++;
        }
    }
    *found = known && ids == 1 ? by_id : names == 1 ? by_name : NULL;
    if (*found)
        return 0;
    if (ids > 1 && (known || names))
        return rp_fail(err, RP_ERR_CORRUPT, "which file of the export is disk %u (%s)? Several may be", disk->number,
                       name);
    return rp_fail(err, RP_ERR_NOT_FOUND, "the host exported no file of disk %u (%s)", disk->number, name);
}

// ---- the configuration ----------------------------------------------------------------------------------------------

struct keeping {
    struct rp_fs *fs;
    struct rp_point *point;
    size_t total;
    bool too_large;
};

static int keep_file(void *context, const char *path, struct rp_error *err)
{
    struct keeping *keeping = context;
    struct rp_point *point = keeping->point;
    if (!ends_with(path, ".vmcx") && !ends_with(path, ".vmrs") && !ends_with(path, ".vmgs"))
        return 0;
    RP_CLEANUP(rp_buf_clear) struct rp_buf content = {0}, text = {0};
    struct rp_error why = {0};
    if (rp_fs_read_file(keeping->fs, path, MAX_CONFIGURATION, &content, &why)) {
        keeping->too_large |= why.code == RP_ERR_CORRUPT;
        return why.code == RP_ERR_CORRUPT ? 0 : rp_fail_as(err, &why);
    }
    keeping->total += content.size;
    rp_base64_encode(content.data, content.size, &text);
    point->files = rp_xrealloc(point->files, (point->file_count + 1) * sizeof *point->files);
    point->files[point->file_count++] = (struct rp_point_file){rp_xstrdup(rp_path_name(path)),
                                                               rp_xstrdup(rp_buf_text(&text))};
    return 0;
}

int rp_export_configuration(const char *local, struct rp_fs *fs, struct rp_point *point, struct rp_error *err)
{
    struct keeping keeping = {.fs = fs, .point = point};
    RP_AUTO_FREE char *folder = rp_path_join(local, "Virtual Machines");
    struct stat st;
    if (lstat(folder, &st))
        return 0;
    if (walk(folder, 0, keep_file, &keeping, err))
        return -1;
    if (!keeping.too_large && keeping.total <= MAX_CONFIGURATION)
        return 0;
    rp_point_clear_files(point); // one without the others is of no use
    return 1;
}
