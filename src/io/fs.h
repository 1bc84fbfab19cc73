// The names of byte stores: open, rename, unlink, sync a directory. Code that keeps several files consistent (disk and
// tracking file, chain record) reaches them through this, so that tests can cut the power under all of them at once.
#ifndef RP_IO_FS_H
#define RP_IO_FS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "io/store.h"

struct rp_fs;

enum rp_open_flags {
    RP_OPEN_READ = 0,
    RP_OPEN_WRITE = 1,  // read and write
    RP_OPEN_CREATE = 2, // with WRITE: the file must not exist yet (RP_ERR_EXISTS)
};

struct rp_fs_ops {
    struct rp_store *(*open)(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err);
    int (*rename)(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err);
    int (*unlink)(struct rp_fs *fs, const char *path, struct rp_error *err);
    int (*sync_directory)(struct rp_fs *fs, const char *directory, struct rp_error *err);
    int (*exists)(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err);
};

struct rp_fs {
    const struct rp_fs_ops *ops;
};

// The machine's file system. Never freed.
struct rp_fs *rp_fs_posix(void);

// A store of a file that is open, which it takes; messages call it `path`, `flags` are those of rp_fs_open.
struct rp_store *rp_fs_posix_store(int fd, const char *path, unsigned flags);

// no_links.c: the machine's file system, but in a folder no link is followed: RP_ERR_PERMISSION. For paths that were
// made canonical and checked, in folders where others may put links afterwards. Elsewhere it is rp_fs_posix.
struct rp_fs_no_links {
    struct rp_fs fs;
    const char *folder; // canonical; "/": everywhere. Borrowed
};
struct rp_fs *rp_fs_no_links(struct rp_fs_no_links *fs, const char *folder); // fills `fs` and returns its first member
// For mkdirat(2) and the like: the folder that holds `path` (O_PATH), no link followed; *name: the last part of `path`.
int rp_path_open_parent(const char *path, const char **name, struct rp_error *err);

struct rp_store *rp_fs_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err);
// Replaces `to`. Durable after rp_fs_sync_parent(to).
int rp_fs_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err);
int rp_fs_unlink(struct rp_fs *fs, const char *path, struct rp_error *err);
int rp_fs_unlink_if_there(struct rp_fs *fs, const char *path, struct rp_error *err);
int rp_fs_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err);
// Makes the names in the directory that holds `path` durable. The name of a folder may end with slashes.
int rp_fs_sync_parent(struct rp_fs *fs, const char *path, struct rp_error *err);

// Reads a whole file of at most `limit` bytes (more is RP_ERR_CORRUPT) into `out`, appending.
int rp_fs_read_file(struct rp_fs *fs, const char *path, size_t limit, struct rp_buf *out, struct rp_error *err);
// Writes a file so that, whatever happens, `path` holds the old or the
// new content: temporary name, flush, rename, sync.
int rp_fs_replace_file(struct rp_fs *fs, const char *path, const void *data, size_t size, struct rp_error *err);

// Paths. Results are malloc'ed.
char *rp_path_join(const char *directory, const char *name);
char *rp_path_directory(const char *path); // "." when there is no slash
const char *rp_path_name(const char *path); // borrowed: the part after the last slash

#endif
