#include "hyperv/private_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

static int check_secret(int fd, const char *path, struct rp_error *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return rp_fail_sys(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return rp_fail(err, RP_ERR_PERMISSION, "%s: it holds passwords, and is no plain file", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return rp_fail(err, RP_ERR_PERMISSION, "%s: it holds passwords, and belongs to somebody else (uid %u)", path,
                       (unsigned)st.st_uid);
    if (st.st_mode & 077)
        return rp_fail(err, RP_ERR_PERMISSION, "%s: it holds passwords, and others may read it: chmod 600 '%s'", path,
                       path);
    return 0;
}

// Whoever may write into it says where passwords are sent to.
static int check_writers(int fd, const char *path, struct rp_error *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return rp_fail_sys(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return 0;
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return rp_fail(err, RP_ERR_PERMISSION, "%s: it says where to log in, and belongs to somebody else (uid %u)",
                       path, (unsigned)st.st_uid);
    if (st.st_mode & 022)
        return rp_fail(err, RP_ERR_PERMISSION,
                       "%s: it says where to log in, and others may write to it: chmod go-w '%s'", path, path);
    return 0;
}

int rp_private_file_read(const char *path, bool secret, struct rp_buf *out, struct rp_error *err)
{
    // O_NONBLOCK: a FIFO in its place must not stop the program
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (secret ? O_NOFOLLOW : 0));
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 && errno == ELOOP)
        return rp_fail(err, RP_ERR_PERMISSION, "%s: it holds passwords, and is a symbolic link", path);
    if (fd < 0)
        return rp_fail_sys(err, errno, "%s", path);
    if (secret ? check_secret(fd, path, err) : check_writers(fd, path, err))
        return -1;
    size_t before = out->size;
    for (;;) {
        char piece[4096];
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rp_fail_sys(err, errno, "%s", path);
        if (!n)
            break;
        // grown by hand: what a buffer leaves behind when it moves would hold passwords
        size_t needed = out->size + (size_t)n;
        if (needed - before > RP_PRIVATE_FILE_MAX)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: more than %d bytes", path, RP_PRIVATE_FILE_MAX);
        if (needed > out->capacity) {
            struct rp_buf larger = {0};
            rp_buf_reserve(&larger, 2 * needed + 1);
            rp_buf_append(&larger, out->data, out->size);
            if (out->data)
                explicit_bzero(out->data, out->size);
            rp_buf_clear(out);
            *out = larger;
        }
        rp_buf_append(out, piece, (size_t)n);
        explicit_bzero(piece, sizeof piece);
    }
    if (out->size > before && memchr(out->data + before, 0, out->size - before))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: it is no text", path);
    return 0;
}

static int make_parents(const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *copy = rp_xstrdup(path);
    for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(copy, 0700) && errno != EEXIST)
            return rp_fail_sys(err, errno, "%s", copy);
        *p = '/';
    }
    return 0;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? rp_xstrdup(".") : slash == path ? rp_xstrdup("/") : strndup(path, (size_t)(slash - path));
}

static int write_all(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        size -= (size_t)n;
    }
    return fsync(fd);
}

int rp_private_file_replace(const char *path, const void *data, size_t size, struct rp_error *err)
{
    if (make_parents(path, err))
        return -1;
    RP_AUTO_FREE char *temporary = rp_xasprintf("%s.XXXXXX", path), *folder = folder_of(path);
    RP_AUTO_FD int fd = mkostemp(temporary, O_CLOEXEC); // mode 0600
    if (fd < 0)
        return rp_fail_sys(err, errno, "%s", temporary);
    if (write_all(fd, data, size) || rename(temporary, path)) {
        int sys = errno;
        unlink(temporary);
        return rp_fail_sys(err, sys, "write %s", path);
    }
    RP_AUTO_FD int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory < 0 || fsync(directory) ? rp_fail_sys(err, errno, "%s", folder) : 0;
}

int rp_private_file_lock(const char *path, struct rp_error *err)
{
    if (make_parents(path, err))
        return -1;
    RP_AUTO_FREE char *lock = rp_xasprintf("%s.lock", path);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || flock(fd, LOCK_EX)) {
        rp_fail_sys(err, errno, "%s", lock);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}
