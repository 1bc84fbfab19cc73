// stat() and its kin, showing what a table (times.h) says.
#undef _FILE_OFFSET_BITS
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "times.h"

#define EXPORT __attribute__((visibility("default")))

static const struct times *shown;

void times_show(const struct times *times) { shown = times; }

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("TIMES_TABLE");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(struct times), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        shown = map;
}

static int look(int at, const char *path, struct stat *st, int flags)
{
    int failed = (int)syscall(SYS_newfstatat, at, path, st, flags);
    if (!failed && shown)
        times_apply(shown, st);
    return failed;
}

EXPORT int fstat(int fd, struct stat *st) { return look(fd, "", st, AT_EMPTY_PATH); }
EXPORT int stat(const char *path, struct stat *st) { return look(AT_FDCWD, path, st, 0); }
EXPORT int lstat(const char *path, struct stat *st) { return look(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW); }
EXPORT int fstatat(int at, const char *path, struct stat *st, int flags) { return look(at, path, st, flags); }
EXPORT int fstat64(int fd, struct stat64 *st) { return look(fd, "", (struct stat *)st, AT_EMPTY_PATH); }
EXPORT int stat64(const char *path, struct stat64 *st) { return look(AT_FDCWD, path, (struct stat *)st, 0); }
EXPORT int lstat64(const char *path, struct stat64 *st) { return look(AT_FDCWD, path, (struct stat *)st, AT_SYMLINK_NOFOLLOW); }
EXPORT int fstatat64(int at, const char *path, struct stat64 *st, int flags) { return look(at, path, (struct stat *)st, flags); }
