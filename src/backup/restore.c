#include "backup/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "backup/partial.h"
#include "backup/salvage.h"
#include "backup/transfer.h"
#include "base/buf.h"
#include "base/num.h"
#include "repo/damage.h"
#include "repo/extract.h"

#define NAME_LIMIT 100
#define ROOM RP_MIB // that is more than most writes

struct file {
    char *path, *temporary;
    bool created;
};
struct target {
    struct rp_repo *repo;
    const struct rp_point_disk *disk;
    uint64_t data;           // bytes that are not zero, as far as that is known
    struct file image, list; // the list only when something is lost
    struct rp_ranges lost;
    struct rp_vhdx *vhdx;    // one of the two
    struct rp_store *store;
    struct rp_extract *extract;
    bool no_room;            // the file system takes no space beforehand
};
struct restore {
    const struct rp_restore_options *options;
    struct target *targets;
    size_t count;
    size_t at; // the target that jobs are given out for
    bool directory_made;
    atomic_bool damaged, write_failed; // of what failed: data in the repository; a write, which says nothing about the repository
};

char *rp_restore_safe_name(const char *vm_name)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf name = {0};
    for (const unsigned char *p = (const unsigned char *)(vm_name ? vm_name : ""); *p && name.size < NAME_LIMIT; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_' ||
                     ((*p == '.' || *p == '-') && name.size);
        if (plain)
            rp_buf_append_u8(&name, *p);
        else if ((*p & 0xc0) != 0x80) // one for a character of several bytes
            rp_buf_append_u8(&name, '_');
    }
    return rp_xstrdup(name.size ? rp_buf_text(&name) : "vm");
}

// ---- what to write --------------------------------------------------------------------------------------------------

static void name_file(struct file *file, char *path) // which it owns
{
    *file = (struct file){path, rp_partial_name(path), false};
}

static int fail(struct restore *restore, const struct target *target, const struct rp_error *why, struct rp_error *err)
{
    if (rp_damage_is(why))
        atomic_store(&restore->damaged, true);
    rp_fail_as(err, why);
    return rp_context(err, "disk %u", target->disk->number);
}

static int choose(struct restore *restore, struct rp_repo *repo, const struct rp_point *point, struct rp_error *err)
{
    const struct rp_restore_options *options = restore->options;
    RP_AUTO_FREE char *vm = rp_restore_safe_name(point->vm_name ? point->vm_name : point->vm_id);
    restore->targets = rp_xcalloc(point->disk_count + 1, sizeof *restore->targets);
    for (size_t i = 0; i < point->disk_count; i++) {
        const struct rp_point_disk *disk = &point->disks[i];
        if (options->disk >= 0 && disk->number != (uint64_t)options->disk)
            continue;
        struct target *target = &restore->targets[restore->count++];
        target->repo = repo;
        target->disk = disk;
        RP_AUTO_FREE char *name =
            rp_xasprintf("%s-disk%u.%s", vm, disk->number, options->format == RP_IMAGE_VHDX ? "vhdx" : "raw");
        name_file(&target->image, rp_path_join(options->directory, name));
        name_file(&target->list, rp_salvage_list_name(target->image.path));
        struct rp_error why = {0};
        if (rp_repo_data_bytes(repo, &disk->root, options->salvage ? &target->lost : NULL, &target->data, &why))
            return fail(restore, target, &why, err);
    }
    if (!restore->count && options->disk >= 0)
        return rp_fail(err, RP_ERR_NOT_FOUND, "the restore point has no disk %lld", (long long)options->disk);
    return 0;
}

int rp_restore_check_free(const char *path, struct rp_error *err)
{
    bool exists;
    if (rp_fs_exists(rp_fs_posix(), path, &exists, err))
        return -1;
    if (!exists)
        return 0;
    return rp_fail(err, RP_ERR_EXISTS, "%s exists already, and is never overwritten: choose another folder", path);
}

// Whether anybody still needs a list whose image is not there, its owner knows: the image may have been moved.
static int check_free_list(const char *path, struct rp_error *err)
{
    bool exists;
    if (rp_fs_exists(rp_fs_posix(), path, &exists, err))
        return -1;
    if (!exists)
        return 0;
    return rp_fail(err, RP_ERR_EXISTS, "%s exists already, and is never overwritten: its image is not there, because a salvage was "
                   "killed just before it was done, or somebody moved it; remove the list if nobody needs it, or choose another "
                   "folder", path);
}

static int check_free_names(const struct restore *restore, struct rp_error *err)
{
    for (size_t i = 0; i < restore->count; i++) // also without a salvage: a list of one says nothing of an image that is whole
        if (rp_restore_check_free(restore->targets[i].image.path, err) || check_free_list(restore->targets[i].list.path, err))
            return -1;
    return 0;
}

static int make_directory(struct restore *restore, struct rp_error *err)
{
    const char *directory = restore->options->directory;
    struct stat st;
    if (!mkdir(directory, 0700))
        restore->directory_made = true;
    else if (errno != EEXIST)
        return rp_fail_sys(err, errno, "%s: create folder", directory);
    else if (stat(directory, &st) || !S_ISDIR(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "%s: not a folder", directory);
    return 0;
}

uint64_t rp_restore_room(uint64_t size, uint64_t data, enum rp_image_format format)
{
    return data + (format == RP_IMAGE_VHDX ? 4 * RP_MIB + size / 4096 / 32 : 0); // header, log, tables
}

int rp_restore_check_room(const char *folder, uint64_t needed, struct rp_error *err)
{
    struct statvfs vfs;
    if (statvfs(folder, &vfs))
        return rp_fail_sys(err, errno, "%s: free space", folder);
    uint64_t there = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (needed <= there)
        return 0;
    char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT];
    return rp_fail(err, RP_ERR_NO_SPACE, "%s: needs %s, %s are free", folder, rp_format_size(needed, a),
                   rp_format_size(there, b));
}

static int check_space(const struct restore *restore, struct rp_error *err)
{
    uint64_t needed = 0;
    for (size_t i = 0; i < restore->count; i++) {
        const struct target *target = &restore->targets[i];
        needed += rp_restore_room(target->disk->root.size, target->data, restore->options->format);
    }
    return rp_restore_check_room(restore->options->directory, needed, err);
}

// ---- writing --------------------------------------------------------------------------------------------------------

static int create_vhdx(struct target *target, bool same_content, struct rp_error *err)
{
    struct rp_vhdx_create create = {
        .size = target->disk->root.size,
        .logical_sector = target->disk->logical_sector,
        .physical_sector = target->disk->physical_sector,
        .disk_id = target->disk->disk_id,
        .data_write_guid = same_content ? target->disk->data_write_guid : (struct rp_guid){{0}},
    };
    if (rp_vhdx_create(rp_fs_posix(), target->image.temporary, &create, err))
        return -1;
    target->image.created = true;
    struct rp_vhdx_session session = {rp_guid_new(), target->disk->data_write_guid};
    bool known = same_content && !rp_guid_is_zero(&session.data_write_guid);
    target->vhdx = rp_vhdx_open(rp_fs_posix(), target->image.temporary, RP_VHDX_WRITE, known ? &session : NULL, err);
    return target->vhdx ? 0 : -1;
}

static int create_raw(struct target *target, struct rp_error *err)
{
    target->store = rp_fs_open(rp_fs_posix(), target->image.temporary, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!target->store)
        return -1;
    target->image.created = true;
    if (rp_store_lock(target->store, true, err)) // as a VHDX is locked: see partial.h
        return -1;
    return rp_store_truncate(target->store, target->disk->root.size, err);
}

// Raw past the page cache: there it would be copied once more, and pile up until the sync at the end, which all would wait for.
// A VHDX grows at its end block by block, and writes past the page cache would wait for each growth (measured: 4.7 s against 3.3).
static int write_image(const struct target *target, uint64_t offset, const void *data, uint32_t size, struct rp_error *err)
{
    if (target->vhdx)
        return rp_vhdx_write(target->vhdx, data, size, offset, err);
    return rp_store_pwrite_direct(target->store, data, size, offset, err);
}

// Space for what several writes will fill: a write into a hole keeps all others of the file out until it is on the disk.
static int make_room(void *context, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct target *target = context;
    struct rp_error why = {0};
    if (!target->store || target->no_room || length < ROOM || !rp_store_direct(target->store) ||
        !rp_store_allocate(target->store, offset, length, &why))
        return 0;
    if (why.code == RP_ERR_NO_SPACE)
        return rp_fail_as(err, &why);
    target->no_room = true;
    return 0;
}

// Disk after disk; each in the order of the packs.
struct job {
    struct restore *restore;
    struct target *target;
    struct rp_extract_job *part;
};

static int put(void *context, uint64_t offset, const void *data, uint32_t size, struct rp_error *err)
{
    const struct job *job = context;
    if (!write_image(job->target, offset, data, size, err))
        return 0;
    atomic_store(&job->restore->write_failed, true);
    return -1;
}

static int next_job(void *context, void **out, uint64_t *bytes, struct rp_error *err)
{
    struct restore *restore = context;
    for (; restore->at < restore->count; restore->at++) {
        struct target *target = &restore->targets[restore->at];
        struct rp_extract_job *part;
        if (!target->extract)
            target->extract = rp_extract_new(target->repo, &target->disk->root, restore->options->salvage ? &target->lost : NULL,
                                             make_room, target);
        struct rp_error why = {0};
        int result = rp_extract_next(target->extract, &part, bytes, &why);
        if (result < 0)
            return fail(restore, target, &why, err);
        if (!result)
            continue;
        struct job *job = rp_xmalloc(sizeof *job);
        *job = (struct job){restore, target, part};
        *out = job;
        return 1;
    }
    return 0;
}

static int run_job(void *context, void *argument, struct rp_error *err)
{
    struct job job = *(struct job *)argument;
    free(argument);
    struct rp_error why = {0};
    return rp_extract_run(job.target->extract, job.part, put, &job, &why) ? fail(context, job.target, &why, err) : 0;
}

static int write_data(struct restore *restore, struct rp_error *err)
{
    struct rp_transfer transfer = {
        .next = next_job,
        .run = run_job,
        .jobs = restore,
        .threads = restore->options->threads,
        .rate = restore->options->rate,
        .progress = restore->options->progress,
        .context = restore->options->context,
    };
    for (size_t i = 0; i < restore->count; i++) {
        transfer.total += restore->targets[i].data;
        rp_ranges_clear(&restore->targets[i].lost); // what could not be read before is asked for again
    }
    return rp_transfer_run(&transfer, err);
}

static int finish_file(struct target *target, struct rp_error *err)
{
    if (target->vhdx) {
        struct rp_vhdx *vhdx = target->vhdx;
        target->vhdx = NULL;
        return rp_vhdx_close(vhdx, err);
    }
    if (rp_store_flush(target->store, err))
        return -1;
    rp_store_drop_cache(target->store, 0, target->disk->root.size);
    rp_store_close(target->store);
    target->store = NULL;
    return 0;
}

static int write_list(struct target *target, struct rp_error *err)
{
    rp_ranges_normalize(&target->lost);
    if (!target->lost.count)
        return 0;
    if (rp_salvage_write_list(target->list.temporary, rp_path_name(target->image.path), &target->lost, err))
        return -1;
    target->list.created = true;
    return 0;
}

// Gives the file its name, unless somebody else took it meanwhile.
static int publish(struct file *file, struct rp_error *err)
{
    if (!file->created)
        return 0;
    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path, RENAME_NOREPLACE)) {
        if (errno != EINVAL && errno != ENOSYS)
            return rp_fail_sys(err, errno, "%s: give it its name", file->path);
        if (link(file->temporary, file->path)) // file systems that cannot
            return rp_fail_sys(err, errno, "%s: give it its name", file->path);
        unlink(file->temporary);
    }
    free(file->temporary);
    file->temporary = rp_xstrdup(file->path); // what is to be removed if a later step fails
    return 0;
}

// A list is there before its image is, whenever the power fails.
static int publish_all(struct restore *restore, struct rp_error *err)
{
    bool lists = false;
    for (size_t i = 0; i < restore->count; i++) {
        lists = lists || restore->targets[i].list.created;
        if (publish(&restore->targets[i].list, err))
            return -1;
    }
    if (lists && rp_fs_sync_parent(rp_fs_posix(), restore->targets[0].list.path, err))
        return -1;
    for (size_t i = 0; i < restore->count; i++)
        if (publish(&restore->targets[i].image, err))
            return -1;
    if (restore->count && rp_fs_sync_parent(rp_fs_posix(), restore->targets[0].image.path, err))
        return -1;
    return restore->directory_made ? rp_fs_sync_parent(rp_fs_posix(), restore->options->directory, err) : 0;
}

static int write_all(struct restore *restore, struct rp_error *err)
{
    for (size_t i = 0; i < restore->count; i++) {
        struct target *target = &restore->targets[i];
        rp_partial_remove_stale(target->image.path);
        rp_partial_remove_stale(target->list.path);
        if (restore->options->format == RP_IMAGE_VHDX ? create_vhdx(target, restore->options->same_content, err)
                                                      : create_raw(target, err))
            return -1;
    }
    if (write_data(restore, err))
        return -1;
    for (size_t i = 0; i < restore->count; i++)
        if (finish_file(&restore->targets[i], err) || write_list(&restore->targets[i], err))
            return -1;
    return publish_all(restore, err);
}

static void remove_file(const struct file *file)
{
    if (file->created)
        unlink(file->temporary);
}

static void undo(struct restore *restore)
{
    for (size_t i = 0; i < restore->count; i++) {
        rp_vhdx_abandon(restore->targets[i].vhdx);
        rp_store_close(restore->targets[i].store);
        restore->targets[i].vhdx = NULL;
        restore->targets[i].store = NULL;
        remove_file(&restore->targets[i].image);
        remove_file(&restore->targets[i].list);
    }
    if (restore->directory_made)
        rmdir(restore->options->directory);
}

static void report(const struct restore *restore, struct rp_restore_result *result)
{
    result->files = rp_xcalloc(restore->count + 1, sizeof *result->files);
    result->count = restore->count;
    for (size_t i = 0; i < restore->count; i++) {
        struct target *target = &restore->targets[i];
        result->files[i] = (struct rp_restore_file){
            .path = rp_xstrdup(target->image.path),
            .number = target->disk->number,
            .size = target->disk->root.size,
            .data = target->data,
            .list = target->lost.count ? rp_xstrdup(target->list.path) : NULL,
            .lost = target->lost,
        };
        target->lost = (struct rp_ranges){0};
    }
}

static void clear_file(struct file *file)
{
    free(file->path);
    free(file->temporary);
}

static void clear(struct restore *restore)
{
    for (size_t i = 0; i < restore->count; i++) {
        rp_extract_free(restore->targets[i].extract);
        rp_ranges_clear(&restore->targets[i].lost);
        clear_file(&restore->targets[i].image);
        clear_file(&restore->targets[i].list);
    }
    free(restore->targets);
}

int rp_restore_run(struct rp_repo *repo, const struct rp_point *point, const struct rp_restore_options *options,
                   struct rp_restore_result *result, struct rp_error *err)
{
    struct restore restore = {.options = options};
    *result = (struct rp_restore_result){0};
    bool failed = choose(&restore, repo, point, err) || check_free_names(&restore, err) || make_directory(&restore, err) ||
                  check_space(&restore, err) || write_all(&restore, err);
    if (failed)
        undo(&restore);
    else
        report(&restore, result);
    result->damaged = restore.damaged && !restore.write_failed;
    clear(&restore);
    return failed ? -1 : 0;
}

int rp_restore_preview(struct rp_repo *repo, const struct rp_point *point, const struct rp_restore_options *options,
                       struct rp_restore_result *result, struct rp_error *err)
{
    struct restore restore = {.options = options};
    *result = (struct rp_restore_result){0};
    bool failed = choose(&restore, repo, point, err) || check_free_names(&restore, err);
    if (!failed)
        report(&restore, result);
    result->damaged = restore.damaged;
    clear(&restore);
    return failed ? -1 : 0;
}

void rp_restore_result_clear(struct rp_restore_result *result)
{
    for (size_t i = 0; i < result->count; i++) {
        free(result->files[i].path);
        free(result->files[i].list);
        rp_ranges_clear(&result->files[i].lost);
    }
    free(result->files);
    *result = (struct rp_restore_result){0};
}
