// The machine's file system for paths that somebody else may prepare links for: where a path was when it was checked is
// where it leads when it is used, or nowhere. The kernel walks it (openat2, RESOLVE_NO_SYMLINKS), so there is no moment
// in between.
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/fs.h"

static int walk(const char *path, int flags)
{
    const struct open_how how = {.flags = (unsigned)flags | O_CLOEXEC, .mode = flags & O_CREAT ? 0600 : 0,
                                 .resolve = RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static int refuse(const char *path, const char *what, struct rp_error *err)
{
    return errno == ELOOP ? rp_fail(err, RP_ERR_PERMISSION, "%s: %s: a link is in the path, and none is followed there",
                                    path, what)
                          : rp_fail_sys(err, errno, "%s: %s", path, what);
}

int rp_path_open_parent(const char *path, const char **name, struct rp_error *err)
{
    RP_AUTO_FREE char *folder = rp_path_directory(path);
    *name = rp_path_name(path);
    int fd = walk(folder, O_PATH | O_DIRECTORY);
    return fd < 0 ? refuse(folder, "open", err) : fd;
}

static bool is_below(const struct rp_fs *fs, const char *path)
{
    const char *folder = ((const struct rp_fs_no_links *)fs)->folder;
    size_t size = strlen(folder);
    return !strcmp(folder, "/") || (!strncmp(folder, path, size) && (!path[size] || path[size] == '/'));
}

static struct rp_store *open_file(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    if (!is_below(fs, path))
        return rp_fs_open(rp_fs_posix(), path, flags, err);
    bool creates = flags & RP_OPEN_CREATE;
    int fd = walk(path, (flags & RP_OPEN_WRITE ? O_RDWR : O_RDONLY) | (creates ? O_CREAT | O_EXCL : 0));
    if (fd >= 0)
        return rp_fs_posix_store(fd, path, flags);
    refuse(path, creates ? "create" : "open", err);
    return NULL;
}

static int rename_file(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    if (!is_below(fs, from) && !is_below(fs, to))
        return rp_fs_rename(rp_fs_posix(), from, to, err);
    const char *old, *new;
    RP_AUTO_FD int there = rp_path_open_parent(from, &old, err);
    RP_AUTO_FD int here = there < 0 ? -1 : rp_path_open_parent(to, &new, err);
    if (here < 0)
        return -1;
    return renameat(there, old, here, new) ? rp_fail_sys(err, errno, "rename %s to %s", from, to) : 0;
}

static int unlink_file(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    if (!is_below(fs, path))
        return rp_fs_unlink(rp_fs_posix(), path, err);
    const char *name;
    RP_AUTO_FD int folder = rp_path_open_parent(path, &name, err);
    if (folder < 0)
        return -1;
    return unlinkat(folder, name, 0) ? rp_fail_sys(err, errno, "%s: delete", path) : 0;
}

static int sync_directory(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    if (!is_below(fs, directory))
        return rp_fs_posix()->ops->sync_directory(rp_fs_posix(), directory, err);
    RP_AUTO_FD int fd = walk(directory, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || fsync(fd))
        return refuse(directory, "sync directory", err);
    return 0;
}

static int exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    if (!is_below(fs, path))
        return rp_fs_exists(rp_fs_posix(), path, exists, err);
    RP_AUTO_FD int fd = walk(path, O_PATH);
    *exists = fd >= 0;
    return *exists || errno == ENOENT || errno == ENOTDIR ? 0 : refuse(path, "stat", err);
}

struct rp_fs *rp_fs_no_links(struct rp_fs_no_links *fs, const char *folder)
{
    static const struct rp_fs_ops ops = {
        .open = open_file,
        .rename = rename_file,
        .unlink = unlink_file,
        .sync_directory = sync_directory,
        .exists = exists,
    };
    *fs = (struct rp_fs_no_links){{&ops}, folder};
    return &fs->fs;
}
