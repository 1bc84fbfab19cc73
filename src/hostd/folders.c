// Paths that clients name: export and import folders, disks.
//
// The path is made canonical first (all links followed), and the result is then walked again from the folder that it
// must lie in, one name after the other without following any link (openat2, RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS):
// a link that appears between the two, or that leads out, is refused. What is returned has no links in it, and is
// used through hostd->files, which follows none: who puts one there afterwards leads nobody anywhere.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "hostd/core.h"
#include "io/fs.h"

static int refuse(const char *path, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_PERMISSION, "%.300s: outside the folders that this host lets clients use", path);
}

static bool is_name(const char *name)
{
    return *name && strcmp(name, ".") && strcmp(name, "..");
}

// All links followed; of a path that is not there, those of its folder. NULL: error.
static char *canonical(const char *path, struct rp_error *err)
{
    char *real = realpath(path, NULL);
    if (real)
        return real;
    if (errno != ENOENT) {
        rp_fail_sys(err, errno, "%.300s", path);
        return NULL;
    }
    // A link that leads nowhere is there: what it names would be made outside.
    struct stat st;
    RP_AUTO_FREE char *plain = rp_xstrdup(path);
    for (size_t n = strlen(plain); n > 1 && plain[n - 1] == '/'; n--)
        plain[n - 1] = '\0';
    char *slash = strrchr(plain, '/');
    if (!lstat(plain, &st) || !is_name(slash + 1)) {
        refuse(path, err);
        return NULL;
    }
    RP_AUTO_FREE char *name = rp_xstrdup(slash + 1);
    slash[slash == plain] = '\0';
    RP_AUTO_FREE char *folder = realpath(plain, NULL);
    if (!folder) {
        rp_fail_sys(err, errno, "%.300s", plain);
        return NULL;
    }
    return rp_path_join(folder, name);
}

// What follows the folder's path, or NULL.
static const char *inside(const char *folder, const char *path)
{
    size_t size = strlen(folder);
    if (!strcmp(folder, "/"))
        return path + 1;
    if (strncmp(folder, path, size) || (path[size] && path[size] != '/'))
        return NULL;
    return path[size] ? path + size + 1 : "";
}

// An fd of the object (O_PATH), no link followed; -1 with errno.
static int walk(int folder, const char *relative)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    int fd = -1;
    for (int tries = 0; fd < 0 && tries < 16; tries++) { // EAGAIN: somebody renamed something on the way
        fd = (int)syscall(SYS_openat2, folder, *relative ? relative : ".", &how, sizeof how);
        if (fd < 0 && errno != EAGAIN)
            break;
    }
    return fd;
}

static int check_inside(const char *folder, const char *relative, const char *path, struct rp_error *err)
{
    RP_AUTO_FD int root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return rp_fail_sys(err, errno, "%s", folder);
    RP_AUTO_FD int fd = walk(root, relative);
    if (fd < 0 && errno == ENOENT) { // the last part need not be there, its folder must
        RP_AUTO_FREE char *parent = rp_xstrdup(relative);
        char *slash = strrchr(parent, '/');
        *(slash ? slash : parent) = '\0';
        fd = walk(root, parent);
        struct stat st;
        if (fd >= 0 && !fstat(fd, &st) && !S_ISDIR(st.st_mode))
            return rp_fail(err, RP_ERR_INVALID, "%.300s: what should be its folder is none", path);
    }
    if (fd < 0)
        return errno == ELOOP || errno == EXDEV ? refuse(path, err) : rp_fail_sys(err, errno, "%.300s", path);
    // Opening a FIFO waits, opening a device does whatever the device does.
    struct stat st;
    if (fstat(fd, &st))
        return rp_fail_sys(err, errno, "%.300s", path);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "%.300s: neither a file nor a folder", path);
    return 0;
}

char *rp_hostd_folders_check(const struct rp_hostd *hostd, const char *path, struct rp_error *err)
{
    if (!path || *path != '/' || strlen(path) >= PATH_MAX) {
        rp_fail(err, RP_ERR_INVALID, "%.300s: an absolute path of this host is needed", path && *path ? path : "\"\"");
        return NULL;
    }
    RP_AUTO_FREE char *real = NULL;
    struct rp_error why = {0};
    real = canonical(path, &why);
    for (size_t i = 0; real && i < hostd->folder_count; i++) {
        const char *relative = inside(hostd->folders[i], real);
        if (!relative)
            continue;
        if (check_inside(hostd->folders[i], relative, path, err))
            return NULL;
        char *result = real;
        real = NULL;
        return result;
    }
    // What is outside is nobody's business, not even whether it is there.
    bool hidden = true;
    for (size_t i = 0; i < hostd->folder_count; i++)
        hidden &= !inside(hostd->folders[i], path) || strstr(path, "/..");
    if (!real && !hidden)
        rp_fail_as(err, &why);
    else
        refuse(path, err);
    return NULL;
}
