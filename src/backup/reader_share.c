// The mounted-share reader: the host's files in a mount of its folders.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/reader_files.h"
#include "base/buf.h"

// A file names its parent, and may name any file of this machine: each is opened inside the mapped folders or not at
// all.
struct share_fs {
    struct rp_fs fs;
    const struct rp_path_map *paths;
};

static struct rp_store *share_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    if (flags != RP_OPEN_READ) {
        rp_fail(err, RP_ERR_PERMISSION, "%s: a mounted share is only read", path);
        return NULL;
    }
    RP_AUTO_FD int fd = rp_path_map_open(((struct share_fs *)fs)->paths, path, err);
    if (fd < 0)
        return NULL;
    // What a mount remembers of the file may be older than the checkpoint: the host has merged since.
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    struct rp_store *store = rp_fs_open(rp_fs_posix(), link, RP_OPEN_READ, err);
    if (store) { // for messages
        free(store->name);
        store->name = rp_xstrdup(path);
    }
    return store;
}

static int share_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    (void)err;
    RP_AUTO_FD int fd = rp_path_map_open(((struct share_fs *)fs)->paths, path, NULL);
    *exists = fd >= 0;
    return 0;
}

struct rp_fs *rp_reader_share_fs(const struct rp_host_connection *host)
{
    static const struct rp_fs_ops ops = {.open = share_open, .exists = share_exists}; // readers need no more
    struct share_fs *share = rp_xcalloc(1, sizeof *share);
    share->fs.ops = &ops;
    share->paths = host->paths;
    return &share->fs;
}

// One clear line of what went wrong, and what to do.
static void explain(const struct rp_vm_disk *disk, const char *local, const struct rp_error *why, struct rp_error *err)
{
    switch (why->code) {
    case RP_ERR_BUSY:
        rp_fail(err, RP_ERR_BUSY, "%s (here %s): the host, or somebody on it, has the file open for himself (a "
                "sharing violation); try again, or use --reader export: %s", disk->path, local, why->text);
        break;
    case RP_ERR_NOT_FOUND:
        rp_fail(err, RP_ERR_NOT_FOUND,
                "%s should be here as %s, and is not: is the share mounted, and is it the folder that the "
                "mapping says?", disk->path, local);
        break;
    case RP_ERR_PARENT_NOT_FOUND:
        rp_fail(err, RP_ERR_PARENT_NOT_FOUND, "%s: its parent lies in none of the mapped folders, or is not there: %s",
                disk->path, why->text);
        break;
    default:
        rp_fail(err, why->code, "%s: %s", disk->path, why->text);
    }
}

struct rp_reader *rp_reader_share(struct rp_host_connection *host, const struct rp_vm_disk *disk, struct rp_error *err)
{
    struct rp_error why = {0};
    RP_AUTO_FREE char *local = rp_path_map_to_local(host->paths, disk->path, err);
    if (!local)
        return NULL;
    struct rp_fs *fs = rp_reader_share_fs(host);
    struct rp_reader *reader = rp_reader_virtual_disk_at(host, disk, fs, local, rp_reader_name(RP_READER_SHARE), fs,
                                                         &why);
    if (!reader)
        explain(disk, local, &why, err);
    return reader;
}
