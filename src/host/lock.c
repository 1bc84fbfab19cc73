#include "host/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "base/clock.h"

int rp_lock_open(const char *path, struct rp_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 ? fd : rp_fail_sys(err, errno, "%s: open the lock file", path);
}

static int set(int fd, int64_t number, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)number, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

int rp_lock_take(int fd, int64_t number, unsigned timeout_ms, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    while (set(fd, number, F_WRLCK)) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return rp_fail_sys(err, errno, "lock of a VM");
        if ((rp_clock_monotonic_ns() - start) / 1000000 >= timeout_ms)
            return 0;
        struct timespec t = {.tv_nsec = 5000000};
        nanosleep(&t, NULL);
    }
    return 1;
}

bool rp_lock_is_taken(int fd, int64_t number)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)number, .l_len = 1};
    return !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

void rp_lock_release(int fd, int64_t number)
{
    set(fd, number, F_UNLCK);
}
