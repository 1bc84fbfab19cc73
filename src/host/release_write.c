// The images that a VM is released to are written, under names that nobody looks at.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/adopt.h"

// ---- a new image as the target of a copy ---------------------------------------------------------------------------

// The host's files, but what is created at `path` is the file that is open already.
struct made {
    struct rp_fs fs;
    struct rp_fs *host;
    const char *path; // borrowed
    int fd;           // borrowed
};

static struct rp_store *made_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    const struct made *made = (struct made *)fs;
    if (strcmp(path, made->path))
        return rp_fs_open(made->host, path, flags, err);
    int fd = fcntl(made->fd, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0)
        return rp_fs_posix_store(fd, path, flags);
    rp_fail_sys(err, errno, "%s", path);
    return NULL;
}

static int made_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    return rp_fs_rename(((struct made *)fs)->host, from, to, err);
}

static int made_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    // Its name is announced, and goes with all of them.
    return strcmp(path, ((struct made *)fs)->path) ? rp_fs_unlink(((struct made *)fs)->host, path, err) : 0;
}

static int made_sync_directory(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    struct rp_fs *host = ((struct made *)fs)->host;
    return host->ops->sync_directory(host, directory, err);
}

static int made_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    return rp_fs_exists(((struct made *)fs)->host, path, exists, err);
}

static int write_raw(const struct rp_local_vm *vm, const struct rp_release_item *item, const char *part, int fd,
                     struct rp_local_progress *whole, struct rp_error *err)
{
    static const struct rp_fs_ops ops = {made_open, made_rename, made_unlink, made_sync_directory, made_exists};
    struct made made = {.fs = {&ops}, .host = vm->local->fs, .path = part, .fd = fd};
    return rp_convert_vhdx_to_raw(&made.fs, item->vhdx, part, rp_local_progress_call, whole, err);
}

// ---- one image, and all of them ------------------------------------------------------------------------------------

static int write_qcow2(const struct rp_release_item *item, const char *part, int fd, struct rp_local_progress *whole,
                       struct rp_error *err)
{
    struct rp_adopt_qcow2 like;
    RP_AUTO_FREE char *reason = NULL;
    bool known = item->replaces && !access(item->path, R_OK) &&
                 !rp_adopt_qcow2_inspect(item->path, &like, &reason, NULL) && !reason;
    return rp_adopt_qcow2_write(item->vhdx, fd, part, known ? &like : NULL, rp_local_progress_call, whole, err);
}

// As the image was: who may read the one may read the other.
static const char *model_of(const struct rp_release_item *item)
{
    return *item->source && !access(item->source, F_OK) ? item->source : item->vhdx;
}

static int write_image(const struct rp_local_vm *vm, const struct rp_release_item *item, struct rp_release_part *part,
                       struct rp_local_progress *whole, struct rp_error *err)
{
    struct rp_fs_no_links files;
    RP_AUTO_FD int fd = rp_adopt_create(part->path, err);
    if (fd < 0)
        return -1;
    int failed = !strcmp(item->format, "qcow2") ? write_qcow2(item, part->path, fd, whole, err)
                                                : write_raw(vm, item, part->path, fd, whole, err);
    if (failed || rp_adopt_dress(fd, part->path, model_of(item), err))
        return -1;
    if (fsync(fd))
        return rp_fail_sys(err, errno, "%s: sync", part->path);
    part->mark = rp_adopt_mark_of(fd);
    return rp_fs_sync_parent(rp_fs_no_links(&files, "/"), part->path, err);
}

int rp_release_write(const struct rp_local_vm *vm, const struct rp_release *plan, struct rp_local_export_names *names,
                     struct rp_release_part *parts, struct rp_error *err)
{
    struct rp_local_progress whole = rp_local_progress_of(vm->local);
    names->local = vm->local;
    names->root = rp_xstrdup(vm->directory);
    names->definition = rp_xstrdup(""); // never whole under these names
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->items[i].stays)
            continue;
        char id[RP_GUID_TEXT];
        rp_local_new_id(id);
        parts[i].path = rp_adopt_part(plan->items[i].path, id);
        whole.total += plan->items[i].size;
        if (rp_local_export_names_add(names, parts[i].path, false, err))
            return -1;
    }
    if (rp_local_export_names_announce(names, err))
        return -1;
    for (size_t i = 0; i < plan->count; i++) {
        if (!parts[i].path)
            continue;
        if (write_image(vm, &plan->items[i], &parts[i], &whole, err))
            return rp_context(err, "disk%u of VM %s", plan->items[i].number, vm->id);
        whole.before += plan->items[i].size;
    }
    return 0;
}
