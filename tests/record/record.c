// The recorder: preloaded into the programs under test, it writes every change below one folder into a shared log (log.h),
// and can kill the program, fail a call or cut it short at a chosen one.
//   LD_PRELOAD=librecord.so RECORD_LOG=FILE program…
//
// Covered: open, creat, write, pwrite, writev and their kin, ftruncate, fallocate, fsync, fdatasync, syncfs, sync, rename,
// link, unlink, mkdir, rmdir, bind of a socket, FICLONE(RANGE), copy_file_range. Not covered: stdio that writes by itself and
// shared mappings (the log is marked); that nothing was missed is proved by replaying the log to its end and comparing with
// what is there (replay.h). Calls go to the kernel directly, never through another library's.
#undef _FILE_OFFSET_BITS // both names of each call are defined here
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define EXPORT __attribute__((visibility("default")))

static struct log the_log;
static bool on;
static char program[32];

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("RECORD_LOG");
    int saved = errno;
    if (path && *path && !log_open(&the_log, path, true)) {
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        self[n > 0 ? n : 0] = 0;
        const char *slash = strrchr(self, '/');
        snprintf(program, sizeof program, "%.31s", slash ? slash + 1 : self);
        on = true;
    }
    errno = saved;
}

// ---- which files ----------------------------------------------------------------------------------------------------

static bool below_root(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = 0;
    size_t length = strlen(the_log.header->root);
    return !strncmp(path, the_log.header->root, length) && (path[length] == '/' || !path[length]);
}

// Whether the file is recorded; fills `st`. Remembers the answer by descriptor and inode.
static bool tracked(int fd, struct stat *st)
{
    enum { KNOWN = 4096 };
    static _Atomic uint64_t known[KNOWN]; // inode × 4 + 2 + answer
    int saved = errno;
    bool is = false;
    if (on && fd >= 0 && fd != the_log.fd && !fstat(fd, st) && st->st_dev == the_log.header->device &&
        (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))) {
        uint64_t key = (uint64_t)st->st_ino * 4 + 2, found = fd < KNOWN ? atomic_load(&known[fd]) : 0;
        if ((found & ~1ull) == key) {
            is = found & 1;
        } else {
            is = below_root(fd);
            if (fd < KNOWN)
                atomic_store(&known[fd], key | is);
        }
    }
    errno = saved;
    return is;
}

struct name {
    int folder; // opened O_PATH, or -1
    char text[NAME_MAX + 1];
    uint64_t inode; // of the folder
};

static void name_close(struct name *name)
{
    if (name->folder >= 0)
        syscall(SYS_close, name->folder);
}

// Splits a path; false: not below the root, or no such folder.
static bool name_find(int at, const char *path, struct name *name)
{
    char copy[PATH_MAX];
    struct stat st;
    int saved = errno;
    name->folder = -1;
    size_t length = on && path ? strlen(path) : 0;
    if (!length || length >= sizeof copy)
        return false;
    memcpy(copy, path, length + 1);
    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = 0;
    char *slash = strrchr(copy, '/');
    const char *last = slash ? slash + 1 : copy, *folder = slash == copy ? "/" : slash ? copy : ".";
    bool is = false;
    if (*last && strlen(last) <= NAME_MAX) {
        strcpy(name->text, last);
        if (slash && slash != copy)
            *slash = 0;
        name->folder = (int)syscall(SYS_openat, at, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        is = name->folder >= 0 && !fstat(name->folder, &st) && tracked(name->folder, &st);
        name->inode = st.st_ino;
    }
    if (!is)
        name_close(name);
    errno = saved;
    return is;
}

// ---- faults ---------------------------------------------------------------------------------------------------------

// Not while another thread changes a name: that would have happened and not be in the log.
static _Noreturn void die(void)
{
    log_lock_names(&the_log);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

// Counts a changing call; returns the fault that is due at this one. FAULT_KILL_BEFORE does not return.
static enum log_fault step(void)
{
    struct log_header *h = the_log.header;
    atomic_fetch_add(&h->steps, 1);
    if (!atomic_load(&h->fault) || (*h->fault_program && strcmp(h->fault_program, program)))
        return FAULT_NONE;
    if (atomic_fetch_sub(&h->fault_countdown, 1) != 1)
        return FAULT_NONE;
    enum log_fault fault = (enum log_fault)atomic_load(&h->fault);
    if (fault == FAULT_KILL_BEFORE)
        die();
    return fault;
}

// For calls that cannot be cut short. True: fail, errno is set.
static bool fails(enum log_fault fault)
{
    if (fault == FAULT_KILL_WITHIN)
        die();
    if (fault != FAULT_ERROR)
        return false;
    errno = (int)atomic_load(&the_log.header->fault_errno);
    return true;
}

static void survive(enum log_fault fault)
{
    if (fault == FAULT_KILL_AFTER || fault == FAULT_KILL_WITHIN)
        die();
}

// ---- content --------------------------------------------------------------------------------------------------------

static void set_times(struct log_entry *entry, int fd)
{
    struct stat st;
    if (fstat(fd, &st))
        return;
    entry->mtime_ns = st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    entry->ctime_ns = st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
}

static void ended(int fd, uint64_t begun, uint64_t inode, uint64_t length)
{
    int saved = errno;
    struct log_entry end = {.inode = inode, .other = begun, .length = length};
    if (length)
        set_times(&end, fd);
    log_append(&the_log, LOG_END, &end);
    errno = saved;
}

// `offset` < 0: at the file's position, which moves.
static ssize_t record_write(int fd, const struct iovec *parts, int count, off_t offset, struct stat *st)
{
    enum log_fault fault = step();
    if (fault == FAULT_ERROR) {
        errno = (int)atomic_load(&the_log.header->fault_errno);
        return -1;
    }
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    size_t kept = size;
    if (fault == FAULT_SHORT && size > 1)
        kept = size / 2;
    if (fault == FAULT_KILL_WITHIN)
        kept = size / 1024 * 512; // at a sector, about the middle
    bool append = fcntl(fd, F_GETFL) & O_APPEND;
    off_t at = append ? st->st_size : offset >= 0 ? offset : (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    struct log_entry entry = {.inode = st->st_ino, .offset = (uint64_t)at, .length = kept};
    uint8_t *copy = log_reserve(&the_log, kept, &entry.data);
    if (!copy) {
        errno = EIO;
        return -1;
    }
    size_t filled = 0;
    for (int i = 0; i < count && filled < kept; i++) {
        size_t piece = parts[i].iov_len < kept - filled ? parts[i].iov_len : kept - filled;
        memcpy(copy + filled, parts[i].iov_base, piece);
        filled += piece;
    }
    uint64_t begun = log_append(&the_log, LOG_WRITE, &entry);
    ssize_t n = offset >= 0 ? syscall(SYS_pwrite64, fd, copy, kept, offset) : syscall(SYS_write, fd, copy, kept);
    ended(fd, begun, entry.inode, n > 0 ? (uint64_t)n : 0);
    survive(fault);
    return n;
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    struct stat st;
    if (!size || !tracked(fd, &st))
        return syscall(SYS_write, fd, data, size);
    return record_write(fd, &(struct iovec){(void *)data, size}, 1, -1, &st);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct stat st;
    if (!size || offset < 0 || !tracked(fd, &st))
        return syscall(SYS_pwrite64, fd, data, size, offset);
    return record_write(fd, &(struct iovec){(void *)data, size}, 1, offset, &st);
}
EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return pwrite(fd, data, size, offset); }

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    struct stat st;
    if (!tracked(fd, &st))
        return syscall(SYS_writev, fd, parts, count);
    return record_write(fd, parts, count, -1, &st);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    struct stat st;
    if (!tracked(fd, &st))
        return syscall(SYS_pwritev, fd, parts, count, (unsigned long)offset, 0ul);
    return record_write(fd, parts, count, offset, &st);
}
EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev(fd, parts, count, offset); }

EXPORT ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    struct stat st;
    if (!tracked(fd, &st))
        return syscall(SYS_pwritev2, fd, parts, count, (unsigned long)offset, 0ul, flags);
    ssize_t n = record_write(fd, parts, count, offset, &st);
    if (n > 0 && flags & (RWF_DSYNC | RWF_SYNC) && fdatasync(fd))
        return -1;
    return n;
}
EXPORT ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return pwritev2(fd, parts, count, offset, flags);
}

EXPORT int ftruncate(int fd, off_t size)
{
    struct stat st;
    if (!tracked(fd, &st))
        return (int)syscall(SYS_ftruncate, fd, size);
    enum log_fault fault = step();
    if (fails(fault))
        return -1;
    struct log_entry entry = {.inode = st.st_ino, .length = (uint64_t)size};
    uint64_t begun = log_append(&the_log, LOG_TRUNCATE, &entry);
    int failed = (int)syscall(SYS_ftruncate, fd, size);
    ended(fd, begun, st.st_ino, !failed);
    survive(fault);
    return failed;
}
EXPORT int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
    struct stat st;
    if (!tracked(fd, &st))
        return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    enum log_fault fault = step();
    if (fails(fault))
        return -1;
    bool zero = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE), other = mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE);
    if (other) {
        errno = EOPNOTSUPP;
        return -1;
    }
    struct log_entry entry = {.inode = st.st_ino, .offset = (uint64_t)offset, .length = (uint64_t)length};
    // A zero range that may also make the file longer is two changes.
    bool longer = !(mode & FALLOC_FL_KEEP_SIZE) && offset + length > st.st_size;
    uint64_t begun = zero ? log_append(&the_log, LOG_ZERO, &entry) : UINT64_MAX;
    uint64_t grown = longer ? log_append(&the_log, LOG_ALLOCATE, &entry) : UINT64_MAX;
    int failed = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (zero)
        ended(fd, begun, st.st_ino, failed ? 0 : (uint64_t)length);
    if (longer)
        ended(fd, grown, st.st_ino, failed ? 0 : (uint64_t)length);
    survive(fault);
    return failed;
}
EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
EXPORT int posix_fallocate(int fd, off_t offset, off_t length)
{
    int saved = errno, failed = fallocate(fd, 0, offset, length) ? errno : 0;
    errno = saved;
    return failed;
}
EXPORT int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }

// The copy is a write of what the source holds now; nobody may be writing there meanwhile.
static uint64_t record_copy(int source, uint64_t from, int target, uint64_t to, uint64_t length, const struct stat *st)
{
    struct log_entry entry = {.inode = st->st_ino, .offset = to, .length = length};
    uint8_t *copy = log_reserve(&the_log, length, &entry.data);
    ssize_t n = copy ? syscall(SYS_pread64, source, copy, length, from) : -1;
    if (n < 0)
        return UINT64_MAX;
    entry.length = (uint64_t)n;
    (void)target;
    return log_append(&the_log, LOG_WRITE, &entry);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    struct stat st, source;
    struct file_clone_range all, *range = argument;
    if ((request != FICLONERANGE && request != FICLONE) || !tracked(fd, &st))
        return (int)syscall(SYS_ioctl, fd, request, argument);
    if (request == FICLONE) {
        all = (struct file_clone_range){.src_fd = (int)(intptr_t)argument};
        range = &all;
    }
    enum log_fault fault = step();
    if (fails(fault) || fstat((int)range->src_fd, &source))
        return -1;
    uint64_t length = range->src_length ? range->src_length : (uint64_t)source.st_size - range->src_offset;
    uint64_t begun = record_copy((int)range->src_fd, range->src_offset, fd, range->dest_offset, length, &st);
    int failed = (int)syscall(SYS_ioctl, fd, request, argument);
    ended(fd, begun, st.st_ino, failed ? 0 : length);
    survive(fault);
    return failed;
}

EXPORT ssize_t copy_file_range(int source, off_t *from, int target, off_t *to, size_t length, unsigned flags)
{
    struct stat st;
    if (!tracked(target, &st))
        return syscall(SYS_copy_file_range, source, from, target, to, length, flags);
    enum log_fault fault = step();
    if (fails(fault))
        return -1;
    off_t in = from ? *from : (off_t)syscall(SYS_lseek, source, 0, SEEK_CUR);
    off_t out = to ? *to : (off_t)syscall(SYS_lseek, target, 0, SEEK_CUR);
    if (length > 16 << 20)
        length = 16 << 20; // it may always do less
    uint64_t begun = record_copy(source, (uint64_t)in, target, (uint64_t)out, length, &st);
    ssize_t n = syscall(SYS_copy_file_range, source, from, target, to, length, flags);
    ended(target, begun, st.st_ino, n > 0 ? (uint64_t)n : 0);
    survive(fault);
    return n;
}

EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    struct stat st;
    if (fd >= 0 && protection & PROT_WRITE && (flags & MAP_TYPE) != MAP_PRIVATE && tracked(fd, &st))
        atomic_store(&the_log.header->mapped, 1);
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}
EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(address, length, protection, flags, fd, offset);
}

// ---- durability -----------------------------------------------------------------------------------------------------

static int record_sync(int fd, long call, bool times, enum log_kind kind)
{
    struct stat st;
    if (!tracked(fd, &st))
        return (int)syscall(call, fd);
    enum log_fault fault = step();
    if (fault == FAULT_ERROR && atomic_load(&the_log.header->fault_errno) == ENOSPC)
        fault = FAULT_NONE; // not what a sync fails with
    if (fails(fault))
        return -1;
    struct log_entry entry = {.inode = st.st_ino, .length = times};
    uint64_t begun = log_append(&the_log, kind, &entry);
    int failed = (int)syscall(call, fd);
    if (!failed) {
        struct log_entry end = {.inode = st.st_ino, .other = begun};
        log_append(&the_log, LOG_SYNC_END, &end);
    }
    survive(fault);
    return failed;
}

EXPORT int fsync(int fd) { return record_sync(fd, SYS_fsync, true, LOG_SYNC); }
EXPORT int fdatasync(int fd) { return record_sync(fd, SYS_fdatasync, false, LOG_SYNC); }
EXPORT int syncfs(int fd) { return record_sync(fd, SYS_syncfs, true, LOG_SYNC_ALL); }

// ---- names ----------------------------------------------------------------------------------------------------------

static void record_name(enum log_kind kind, uint64_t inode, const struct name *where, const struct name *to)
{
    int saved = errno;
    size_t first = strlen(where->text) + 1, second = to ? strlen(to->text) + 1 : 0;
    struct log_entry entry = {
        .inode = inode, .directory = where->inode, .other = to ? to->inode : 0, .length = first + second};
    struct stat st;
    const struct name *now = to ? to : where;
    if (!fstatat(now->folder, now->text, &st, AT_SYMLINK_NOFOLLOW)) {
        entry.mtime_ns = st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
        entry.ctime_ns = st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
    }
    char *text = log_reserve(&the_log, first + second, &entry.data);
    if (text) {
        memcpy(text, where->text, first);
        if (to)
            memcpy(text + first, to->text, second);
        log_append(&the_log, kind, &entry);
    }
    errno = saved;
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) ? 0 : st.st_ino;
}

static uint64_t inode_at(const struct name *name)
{
    struct stat st;
    return fstatat(name->folder, name->text, &st, AT_SYMLINK_NOFOLLOW) ? 0 : st.st_ino;
}

static int record_open(int at, const char *path, int flags, mode_t mode)
{
    struct name name;
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !name_find(at, path, &name))
        return (int)syscall(SYS_openat, at, path, flags | O_LARGEFILE, mode);
    struct stat st = {0};
    int saved = errno;
    bool there = !fstatat(name.folder, name.text, &st, 0);
    errno = saved;
    enum log_fault fault = !there || flags & O_TRUNC ? step() : FAULT_NONE;
    int fd = -1;
    if (!fails(fault)) {
        log_lock_names(&the_log);
        there = !fstatat(name.folder, name.text, &st, 0);
        errno = saved;
        struct log_entry entry = {.inode = st.st_ino};
        uint64_t begun = there && flags & O_TRUNC ? log_append(&the_log, LOG_TRUNCATE, &entry) : UINT64_MAX;
        fd = (int)syscall(SYS_openat, at, path, flags | O_LARGEFILE, mode);
        if (begun != UINT64_MAX)
            ended(fd, begun, st.st_ino, fd >= 0);
        if (fd >= 0 && !there)
            record_name(LOG_CREATE, inode_of(fd), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return fd;
}

static mode_t mode_of(int flags, va_list list) { return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0; }

#define OPEN(name)                                                                                                     \
    EXPORT int name(const char *path, int flags, ...)                                                                  \
    {                                                                                                                  \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode_t mode = mode_of(flags, list);                                                                            \
        va_end(list);                                                                                                  \
        return record_open(AT_FDCWD, path, flags, mode);                                                               \
    }
#define OPENAT(name)                                                                                                   \
    EXPORT int name(int at, const char *path, int flags, ...)                                                          \
    {                                                                                                                  \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode_t mode = mode_of(flags, list);                                                                            \
        va_end(list);                                                                                                  \
        return record_open(at, path, flags, mode);                                                                     \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
EXPORT int creat(const char *path, mode_t mode) { return record_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *path, mode_t mode) { return creat(path, mode); }

EXPORT int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags)
{
    struct name a, b;
    if (!name_find(at, from, &a))
        return (int)syscall(SYS_renameat2, at, from, to_at, to, flags);
    int failed = -1;
    if (!name_find(to_at, to, &b)) {
        errno = EXDEV; // out of the folder: nobody does that
    } else {
        enum log_fault fault = step();
        if (!fails(fault)) {
            log_lock_names(&the_log);
            uint64_t inode = inode_at(&a);
            failed = (int)syscall(SYS_renameat2, at, from, to_at, to, flags);
            if (!failed)
                record_name(LOG_RENAME, inode, &a, &b);
            log_unlock_names(&the_log);
            survive(fault);
        }
        name_close(&b);
    }
    name_close(&a);
    return failed;
}
EXPORT int renameat(int at, const char *from, int to_at, const char *to) { return renameat2(at, from, to_at, to, 0); }
EXPORT int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

EXPORT int linkat(int at, const char *from, int to_at, const char *to, int flags)
{
    struct name name;
    if (!name_find(to_at, to, &name))
        return (int)syscall(SYS_linkat, at, from, to_at, to, flags);
    int failed = -1;
    enum log_fault fault = step();
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_linkat, at, from, to_at, to, flags);
        if (!failed)
            record_name(LOG_LINK, inode_at(&name), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
EXPORT int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

EXPORT int unlinkat(int at, const char *path, int flags)
{
    struct name name;
    if (!name_find(at, path, &name))
        return (int)syscall(SYS_unlinkat, at, path, flags);
    int failed = -1, saved = errno;
    uint64_t inode = inode_at(&name);
    errno = saved;
    enum log_fault fault = inode ? step() : FAULT_NONE;
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_unlinkat, at, path, flags);
        if (!failed)
            record_name(flags & AT_REMOVEDIR ? LOG_REMOVE_FOLDER : LOG_UNLINK, inode, &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
EXPORT int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
EXPORT int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

EXPORT int mkdirat(int at, const char *path, mode_t mode)
{
    struct name name;
    if (!name_find(at, path, &name))
        return (int)syscall(SYS_mkdirat, at, path, mode);
    int failed = -1;
    enum log_fault fault = step();
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_mkdirat, at, path, mode);
        if (!failed)
            record_name(LOG_FOLDER, inode_at(&name), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
EXPORT int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    struct name name;
    const struct sockaddr_un *local = (const struct sockaddr_un *)address;
    if (!on || !address || address->sa_family != AF_UNIX || size <= sizeof(sa_family_t) || !local->sun_path[0] ||
        !name_find(AT_FDCWD, local->sun_path, &name))
        return (int)syscall(SYS_bind, fd, address, size);
    int failed = -1;
    enum log_fault fault = step();
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_bind, fd, address, size);
        if (!failed)
            record_name(LOG_SOCKET, inode_at(&name), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
