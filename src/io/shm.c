#include "io/shm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/buf.h"
#include "base/num.h"

struct rp_shm {
    char *path;
    int fd;
    void *data;
    size_t size;
};

// Opens and locks the file that has the name now. -1: err, or (without O_CREAT) NOT_FOUND.
static int open_locked(const char *path, int flags, struct rp_error *err)
{
    for (;;) {
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
        if (fd < 0)
            return rp_fail_sys(err, errno, "%s", path);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        struct stat st;
        struct statfs fs;
        int sys = fcntl(fd, F_OFD_SETLK, &lock) || fstat(fd, &st) || fstatfs(fd, &fs) ? errno : 0;
        if (!sys && !st.st_nlink) { // deleted between open and lock
            close(fd);
            continue;
        }
        if (!sys && fs.f_type == TMPFS_MAGIC && st.st_uid == geteuid())
            return fd;
        close(fd);
        if (sys == EAGAIN || sys == EACCES)
            return rp_fail(err, RP_ERR_BUSY, "%s: a running process has it", path);
        if (sys)
            return rp_fail_sys(err, sys, "%s", path);
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: is not ours, or not on tmpfs", path);
    }
}

// Takes over path and fd.
static struct rp_shm *map(char *path, int fd, size_t size, struct rp_error *err)
{
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        rp_fail_sys(err, errno, "%s: map", path);
        close(fd);
        free(path);
        return NULL;
    }
    struct rp_shm *shm = rp_xmalloc(sizeof *shm);
    *shm = (struct rp_shm){path, fd, data, size};
    return shm;
}

struct rp_shm *rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err)
{
    char *path = rp_xasprintf("%s/%s", directory, name);
    int fd = open_locked(path, O_CREAT, err);
    if (fd >= 0 && (ftruncate(fd, 0) || ftruncate(fd, (off_t)size))) {
        rp_fail_sys(err, errno, "%s", path);
        close(fd);
        fd = -1;
    }
    if (fd >= 0)
        return map(path, fd, size, err);
    free(path);
    return NULL;
}

struct rp_shm *rp_shm_open(const char *directory, const char *name, struct rp_error *err)
{
    char *path = rp_xasprintf("%s/%s", directory, name);
    int fd = open_locked(path, 0, err);
    struct stat st = {0};
    if (fd >= 0 && (fstat(fd, &st) || !st.st_size)) { // made, but never given a size
        unlink(path);
        close(fd);
        fd = rp_fail(err, RP_ERR_NOT_FOUND, "%s: is empty", path);
    }
    if (fd >= 0)
        return map(path, fd, (size_t)st.st_size, err);
    free(path);
    return NULL;
}

void *rp_shm_data(const struct rp_shm *shm) { return shm->data; }

size_t rp_shm_size(const struct rp_shm *shm) { return shm->size; }

int rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err)
{
    if (!rp_range_ok(offset, length, shm->size))
        return rp_fail(err, RP_ERR_INVALID, "%s: has no byte %zu", shm->path, offset + length);
    while (fallocate(shm->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
        if (errno != EINTR) // tmpfs gives up for any signal, also one that nobody handles
            return rp_fail_sys(err, errno, "%s: take memory", shm->path);
    return 0;
}

bool rp_shm_has(const struct rp_shm *shm, size_t offset, size_t length)
{
    off_t data = lseek(shm->fd, (off_t)offset, SEEK_DATA);
    return data >= 0 && (size_t)data < offset + length;
}

void rp_shm_close(struct rp_shm *shm)
{
    if (!shm)
        return;
    munmap(shm->data, shm->size);
    close(shm->fd);
    free(shm->path);
    free(shm);
}

void rp_shm_remove(struct rp_shm *shm)
{
    if (shm)
        unlink(shm->path); // while it is locked: nobody else can have begun to use it
    rp_shm_close(shm);
}

void rp_shm_clean(const char *directory)
{
    DIR *folder = opendir(directory);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", directory, entry->d_name);
        int fd = open_locked(path, 0, NULL);
        if (fd >= 0) {
            unlink(path);
            close(fd);
        }
    }
    if (folder)
        closedir(folder);
    rp_shm_drop(directory);
}
