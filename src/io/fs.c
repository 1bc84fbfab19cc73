#include "io/fs.h"

#include <stdlib.h>
#include <string.h>

struct rp_store *rp_fs_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    return fs->ops->open(fs, path, flags, err);
}

int rp_fs_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    return fs->ops->rename(fs, from, to, err);
}

int rp_fs_unlink(struct rp_fs *fs, const char *path, struct rp_error *err) { return fs->ops->unlink(fs, path, err); }

int rp_fs_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    return fs->ops->exists(fs, path, exists, err);
}

int rp_fs_unlink_if_there(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    bool there;
    return rp_fs_exists(fs, path, &there, err) || (there && rp_fs_unlink(fs, path, err)) ? -1 : 0;
}

int rp_fs_sync_parent(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *plain = rp_xstrdup(path);
    for (size_t length = strlen(plain); length > 1 && plain[length - 1] == '/';)
        plain[--length] = 0;
    RP_AUTO_FREE char *directory = rp_path_directory(plain);
    return fs->ops->sync_directory(fs, directory, err);
}

int rp_fs_read_file(struct rp_fs *fs, const char *path, size_t limit, struct rp_buf *out, struct rp_error *err)
{
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, err);
    uint64_t size;
    if (!store || rp_store_size(store, &size, err))
        return -1;
    if (size > limit)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: %llu bytes, at most %zu expected", path, (unsigned long long)size, limit);
    return rp_store_pread(store, rp_buf_extend(out, (size_t)size), (size_t)size, 0, err);
}

int rp_fs_replace_file(struct rp_fs *fs, const char *path, const void *data, size_t size, struct rp_error *err)
{
    RP_AUTO_FREE char *temporary = rp_xasprintf("%s.new", path);
    if (rp_fs_unlink_if_there(fs, temporary, err))
        return -1;
    struct rp_store *store = rp_fs_open(fs, temporary, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!store)
        return -1;
    int failed = rp_store_pwrite(store, data, size, 0, err) || rp_store_flush(store, err);
    rp_store_close(store);
    if (!failed)
        failed = rp_fs_rename(fs, temporary, path, err);
    if (failed) {
        rp_fs_unlink(fs, temporary, NULL);
        return -1;
    }
    return rp_fs_sync_parent(fs, path, err);
}

char *rp_path_join(const char *directory, const char *name)
{
    size_t n = strlen(directory);
    return rp_xasprintf(n && directory[n - 1] == '/' ? "%s%s" : "%s/%s", directory, name);
}

char *rp_path_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return rp_xstrdup(".");
    return slash == path ? rp_xstrdup("/") : rp_xasprintf("%.*s", (int)(slash - path), path);
}

const char *rp_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
