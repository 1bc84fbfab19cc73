// Calls that change what is in a file: each is in the log before it is made, and its end after.
#undef _FILE_OFFSET_BITS // both names of each call are defined here
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "recorder.h"

static void set_times(struct log_entry *entry, int fd)
{
    struct stat st;
    if (!fstat(fd, &st))
        log_set_times(entry, &st);
}

void ended(int fd, uint64_t begun, uint64_t inode, uint64_t length)
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
    if (fault == FAULT_ERROR && fails(fault))
        return -1;
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    size_t kept = size;
    size_t at_sector = size / 1024 * 512; // about the middle
    if (fault == FAULT_KILL_WITHIN)
        kept = at_sector;
    if (fault == FAULT_SHORT && size > 1) // whole sectors stay whole: no kernel and no disk parts one
        kept = size % 512 ? size / 2 : at_sector ? at_sector : size;
    if (fault == FAULT_SHORT && kept < size)
        came();
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
