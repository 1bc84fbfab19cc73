// Byte stores that are local files.
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/num.h"
#include "io/fs.h"

enum { DIRECT_UNKNOWN = -2, DIRECT_NOT = -1 };

struct file_store {
    struct rp_store store;
    int fd;
    bool writable;
    int direct_fd;          // the same file once more, with O_DIRECT; owned
    atomic_int direct;      // direct_fd, or why there is none
    pthread_mutex_t opening; // of direct_fd
};

static int fd_of(struct rp_store *store) { return ((struct file_store *)store)->fd; }

static int file_pread(struct rp_store *store, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    char *p = data;
    while (size) {
        ssize_t n = pread(fd_of(store), p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rp_fail_sys(err, errno, "%s: read %zu bytes at %llu", store->name, size, (unsigned long long)offset);
        if (n == 0)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: ends at %llu, %zu more bytes expected", store->name,
                           (unsigned long long)offset, size);
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static int write_fd(struct rp_store *store, int fd, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    const char *p = data;
    while (size) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && fd != fd_of(store)) { // open, but not to this: as on a file system of its own rules
            atomic_store(&((struct file_store *)store)->direct, DIRECT_NOT);
            fd = fd_of(store);
            continue;
        }
        if (n <= 0)
            return rp_fail_sys(err, n ? errno : ENOSPC, "%s: write %zu bytes at %llu", store->name, size,
                               (unsigned long long)offset);
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static int file_pwrite(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    return write_fd(store, fd_of(store), data, size, offset, err);
}

// A second open of the same file: its ordinary one stays what small and unaligned accesses need.
static int open_direct(struct file_store *file)
{
    struct statfs fs;
    char path[32];
    if (!file->writable || fstatfs(file->fd, &fs) || fs.f_type == TMPFS_MAGIC) // memory: accepts O_DIRECT and ignores it
        return DIRECT_NOT;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
    file->direct_fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    return file->direct_fd < 0 ? DIRECT_NOT : file->direct_fd;
}

static int direct_fd(struct rp_store *store)
{
    struct file_store *file = (struct file_store *)store;
    int fd = atomic_load(&file->direct);
    if (fd != DIRECT_UNKNOWN)
        return fd;
    pthread_mutex_lock(&file->opening);
    if (atomic_load(&file->direct) == DIRECT_UNKNOWN)
        atomic_store(&file->direct, open_direct(file));
    pthread_mutex_unlock(&file->opening);
    return atomic_load(&file->direct);
}

static bool file_direct(struct rp_store *store) { return direct_fd(store) >= 0; }

static int file_pwrite_direct(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    bool aligned = rp_is_aligned((uintptr_t)data | size | offset, RP_STORE_ALIGN);
    int fd = aligned ? direct_fd(store) : DIRECT_NOT;
    return write_fd(store, fd >= 0 ? fd : fd_of(store), data, size, offset, err);
}

static int file_flush(struct rp_store *store, struct rp_error *err)
{
    return fdatasync(fd_of(store)) ? rp_fail_sys(err, errno, "%s: sync", store->name) : 0;
}

static int file_settle(struct rp_store *store, struct rp_error *err)
{
    return fsync(fd_of(store)) ? rp_fail_sys(err, errno, "%s: sync", store->name) : 0;
}

static int file_truncate(struct rp_store *store, uint64_t size, struct rp_error *err)
{
    if (ftruncate(fd_of(store), (off_t)size))
        return rp_fail_sys(err, errno, "%s: set size %llu", store->name, (unsigned long long)size);
    return 0;
}

static int file_size(struct rp_store *store, uint64_t *size, struct rp_error *err)
{
    off_t end = lseek(fd_of(store), 0, SEEK_END); // also right for block devices
    if (end < 0)
        return rp_fail_sys(err, errno, "%s: size", store->name);
    *size = (uint64_t)end;
    return 0;
}

static int file_extents(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_ranges *data, struct rp_error *err)
{
    uint64_t end = offset + length;
    while (offset < end) {
        off_t start = lseek(fd_of(store), (off_t)offset, SEEK_DATA);
        if (start < 0 && errno == ENXIO)
            return 0;
        if (start < 0 && errno == EINVAL) { // no support: all of it is data
            rp_ranges_add(data, offset, end - offset);
            return 0;
        }
        off_t hole = start < 0 ? -1 : lseek(fd_of(store), start, SEEK_HOLE);
        if (hole < 0)
            return rp_fail_sys(err, errno, "%s: find holes at %llu", store->name, (unsigned long long)offset);
        if ((uint64_t)start >= end)
            return 0;
        uint64_t stop = (uint64_t)hole < end ? (uint64_t)hole : end;
        rp_ranges_add(data, (uint64_t)start, stop - (uint64_t)start);
        offset = (uint64_t)hole;
    }
    return 0;
}

static int file_allocate(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err)
{
    while (fallocate(fd_of(store), FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
        if (errno != EINTR)
            return rp_fail_sys(err, errno, "%s: take %llu bytes of space", store->name, (unsigned long long)length);
    return 0;
}

static int file_punch(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (fallocate(fd_of(store), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
        return rp_fail_sys(err, errno, "%s: punch hole at %llu", store->name, (unsigned long long)offset);
    return 0;
}

static int file_clone_range(struct rp_store *target, uint64_t target_offset, struct rp_store *source,
                            uint64_t source_offset, uint64_t length, struct rp_error *err)
{
    struct file_clone_range range = {
        .src_fd = fd_of(source), .src_offset = source_offset, .src_length = length, .dest_offset = target_offset};
    if (!length) { // to the kernel that is "up to the end": from there it is nothing
        uint64_t end = 0;
        if (file_size(source, &end, err))
            return -1;
        range.src_offset = end;
    }
    if (!ioctl(fd_of(target), FICLONERANGE, &range))
        return 0;
    int sys = errno == EXDEV || errno == EINVAL || errno == ENOTTY ? EOPNOTSUPP : errno;
    return rp_fail_sys(err, sys, "%s: share blocks with %s", target->name, source->name);
}

static int file_copy_range(struct rp_store *target, uint64_t target_offset, struct rp_store *source,
                           uint64_t source_offset, uint64_t length, struct rp_error *err)
{
    off_t from = (off_t)source_offset, to = (off_t)target_offset;
    while (length) {
        ssize_t n = copy_file_range(fd_of(source), &from, fd_of(target), &to, length, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) { // 0: the source ends, or its file system only says so; a read will tell
            bool cannot = !n || errno == EXDEV || errno == EINVAL || errno == ENOSYS;
            return rp_fail_sys(err, cannot ? EOPNOTSUPP : errno, "%s: copy %llu bytes of %s to %llu", target->name,
                               (unsigned long long)length, source->name, (unsigned long long)to);
        }
        length -= (uint64_t)n;
    }
    return 0;
}

static int file_identity(struct rp_store *store, struct rp_store_identity *identity, struct rp_error *err)
{
    struct stat st;
    if (fstat(fd_of(store), &st))
        return rp_fail_sys(err, errno, "%s: stat", store->name);
    *identity = (struct rp_store_identity){
        .device = st.st_dev,
        .inode = st.st_ino,
        .size = (uint64_t)st.st_size,
        .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
        .ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec,
    };
    return 0;
}

static int file_lock(struct rp_store *store, bool exclusive, struct rp_error *err)
{
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    if (!fcntl(fd_of(store), F_OFD_SETLK, &lock))
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return rp_fail(err, RP_ERR_BUSY, "%s: in use by another process", store->name);
    return rp_fail_sys(err, errno, "%s: lock", store->name);
}

static void file_drop_cache(struct rp_store *store, uint64_t offset, uint64_t length)
{
    posix_fadvise(fd_of(store), (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
}

static void file_close(struct rp_store *store)
{
    struct file_store *file = (struct file_store *)store;
    close(file->fd);
    if (file->direct_fd >= 0)
        close(file->direct_fd);
    pthread_mutex_destroy(&file->opening);
    free(file);
}

static const struct rp_store_ops file_ops = {
    .pread = file_pread,
    .pwrite = file_pwrite,
    .pwrite_direct = file_pwrite_direct,
    .direct = file_direct,
    .flush = file_flush,
    .settle = file_settle,
    .truncate = file_truncate,
    .size = file_size,
    .extents = file_extents,
    .allocate = file_allocate,
    .punch = file_punch,
    .clone_range = file_clone_range,
    .copy_range = file_copy_range,
    .identity = file_identity,
    .lock = file_lock,
    .drop_cache = file_drop_cache,
    .close = file_close,
};

static struct rp_store *posix_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    (void)fs;
    int mode = flags & RP_OPEN_WRITE ? O_RDWR : O_RDONLY;
    if (flags & RP_OPEN_CREATE)
        mode |= O_CREAT | O_EXCL;
    int fd = open(path, mode | O_CLOEXEC, 0600);
    if (fd < 0) {
        rp_fail_sys(err, errno, "%s: %s", path, flags & RP_OPEN_CREATE ? "create" : "open");
        return NULL;
    }
    return rp_fs_posix_store(fd, path, flags);
}

struct rp_store *rp_fs_posix_store(int fd, const char *path, unsigned flags)
{
    struct file_store *file = rp_xcalloc(1, sizeof *file);
    file->store.ops = &file_ops;
    file->store.name = rp_xstrdup(path);
    file->fd = fd;
    file->writable = flags & RP_OPEN_WRITE;
    file->direct_fd = DIRECT_NOT;
    file->direct = DIRECT_UNKNOWN;
    pthread_mutex_init(&file->opening, NULL);
    return &file->store;
}

static int posix_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    (void)fs;
    return rename(from, to) ? rp_fail_sys(err, errno, "rename %s to %s", from, to) : 0;
}

static int posix_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    (void)fs;
    return unlink(path) ? rp_fail_sys(err, errno, "%s: delete", path) : 0;
}

static int posix_sync_directory(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    (void)fs;
    RP_AUTO_FD int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd))
        return rp_fail_sys(err, errno, "%s: sync directory", directory);
    return 0;
}

static int posix_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    (void)fs;
    struct stat st;
    *exists = stat(path, &st) == 0;
    return *exists || errno == ENOENT || errno == ENOTDIR ? 0 : rp_fail_sys(err, errno, "%s: stat", path);
}

struct rp_fs *rp_fs_posix(void)
{
    static const struct rp_fs_ops ops = {
        .open = posix_open,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .sync_directory = posix_sync_directory,
        .exists = posix_exists,
    };
    static struct rp_fs fs = {&ops};
    return &fs;
}
