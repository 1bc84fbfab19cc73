// The process kills itself at a chosen one of its changes: these definitions stand before those of libc, also for the
// libraries that are loaded (SQLite). Calls go to the kernel directly.
#undef _FILE_OFFSET_BITS // both names of each call are defined here
#include "kill-steps.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static atomic_bool armed;
static atomic_long left, passed;

void kill_at_step(long step)
{
    atomic_store(&passed, 0);
    atomic_store(&left, step);
    atomic_store(&armed, true);
}

long kill_never(void)
{
    atomic_store(&armed, false);
    return atomic_load(&passed);
}

static void step(void)
{
    if (!atomic_load(&armed))
        return;
    atomic_fetch_add(&passed, 1);
    if (atomic_fetch_sub(&left, 1) != 1)
        return;
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

#define STEP(type, name, parameters, ...)                                                                              \
    EXPORT type name parameters                                                                                        \
    {                                                                                                                  \
        step();                                                                                                        \
        return (type)syscall(__VA_ARGS__);                                                                             \
    }

STEP(int, fsync, (int fd), SYS_fsync, fd)
STEP(int, fdatasync, (int fd), SYS_fdatasync, fd)
STEP(int, rename, (const char *from, const char *to), SYS_rename, from, to)
STEP(int, renameat2, (int from_fd, const char *from, int to_fd, const char *to, unsigned flags), SYS_renameat2, from_fd,
     from, to_fd, to, flags)
STEP(int, unlink, (const char *path), SYS_unlink, path)
STEP(int, unlinkat, (int fd, const char *path, int flags), SYS_unlinkat, fd, path, flags)
STEP(int, mkdir, (const char *path, mode_t mode), SYS_mkdir, path, mode)
STEP(int, mkdirat, (int fd, const char *path, mode_t mode), SYS_mkdirat, fd, path, mode)
STEP(int, rmdir, (const char *path), SYS_rmdir, path)
STEP(int, ftruncate, (int fd, off_t size), SYS_ftruncate, fd, size)
STEP(int, ftruncate64, (int fd, off64_t size), SYS_ftruncate, fd, size)
STEP(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t offset), SYS_pwrite64, fd, data, size, offset)
STEP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t offset), SYS_pwrite64, fd, data, size, offset)
