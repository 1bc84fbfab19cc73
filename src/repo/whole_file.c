#include "repo/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "repo/pages.h"

#define LARGE (1u << 20)

static bool goes_around(const void *data, uint64_t offset, size_t size)
{
    return size >= LARGE && (uintptr_t)data % RP_PAGE == 0 && offset % RP_PAGE == 0;
}

static int open_file(int directory, const char *name, int flags, bool *direct)
{
    int fd = openat(directory, name, flags | O_CLOEXEC | (*direct ? O_DIRECT : 0), 0600);
    if (fd < 0 && errno == EINVAL && *direct) { // a file system that cannot; some have created the file nevertheless
        *direct = false;
        fd = openat(directory, name, (flags & ~O_EXCL) | O_CLOEXEC, 0600);
    }
    return fd;
}

static bool end_direct(int fd, bool *direct)
{
    int flags = fcntl(fd, F_GETFL);
    *direct = false;
    return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0;
}

static int write_all(int fd, bool direct, const char *data, size_t size)
{
    while (size) {
        size_t step = direct ? size & ~(size_t)(RP_PAGE - 1) : size;
        if (!step && !end_direct(fd, &direct)) // the rest is no whole page
            return errno;
        ssize_t n = write(fd, data, step ? step : size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && direct && end_direct(fd, &direct)) // says so only now
            continue;
        if (n <= 0)
            return n ? errno : ENOSPC;
        data += n;
        size -= (size_t)n;
        if (n % RP_PAGE && direct && !end_direct(fd, &direct))
            return errno;
    }
    return 0;
}

int rp_whole_file_write(int directory, const char *name, const void *data, size_t size)
{
    bool direct = goes_around(data, 0, size);
    int fd = open_file(directory, name, O_WRONLY | O_CREAT | O_EXCL, &direct);
    if (fd < 0)
        return errno;
    int failed = write_all(fd, direct, data, size);
    if (!failed && fsync(fd))
        failed = errno;
    if (size >= LARGE)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (close(fd) && !failed)
        failed = errno;
    if (failed)
        unlinkat(directory, name, 0);
    return failed;
}

int rp_whole_file_read(int directory, const char *name, uint64_t offset, void *data, size_t size, size_t *got)
{
    bool direct = goes_around(data, offset, size);
    RP_AUTO_FD int fd = open_file(directory, name, O_RDONLY, &direct);
    char *p = data;
    *got = 0;
    if (fd < 0)
        return errno;
    while (*got < size) {
        size_t left = size - *got, step = direct ? left & ~(size_t)(RP_PAGE - 1) : left;
        if (!step && !end_direct(fd, &direct))
            return errno;
        ssize_t n = pread(fd, p + *got, step ? step : left, (off_t)(offset + *got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && direct && end_direct(fd, &direct))
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return -1;
        *got += (size_t)n;
        if (n % RP_PAGE && direct && !end_direct(fd, &direct))
            return errno;
    }
    return 0;
}
