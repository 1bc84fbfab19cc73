#include "backup/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "io/fs.h"

#define MAX_DEPTH 16

static int remove_at(int parent, const char *name, const char *path, unsigned depth, struct rp_error *err);

static int remove_entries(int fd, const char *path, unsigned depth, struct rp_error *err)
{
    int copy = dup(fd);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    if (!dir) {
        if (copy >= 0)
            close(copy);
        return rp_fail_sys(err, errno, "%s", path);
    }
    int failed = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            failed |= remove_at(fd, entry->d_name, path, depth, err);
    closedir(dir);
    return failed;
}

static int remove_at(int parent, const char *name, const char *path, unsigned depth, struct rp_error *err)
{
    if (!unlinkat(parent, name, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM) // POSIX says the one of a folder, Linux the other
        return rp_fail_sys(err, errno, "%s: remove %s", path, name);
    RP_AUTO_FD int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return rp_fail_sys(err, errno == ENOTDIR ? EPERM : errno, "%s: remove %s", path, name);
    if (!depth)
        return rp_fail(err, RP_ERR_INVALID, "%s: more than %d folders deep", path, MAX_DEPTH);
    if (remove_entries(fd, path, depth - 1, err))
        return -1;
    if (unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
        return rp_fail_sys(err, errno, "%s: remove %s", path, name);
    return 0;
}

int rp_folder_remove(const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *directory = rp_path_directory(path);
    RP_AUTO_FD int parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return errno == ENOENT ? 0 : rp_fail_sys(err, errno, "%s", directory);
    return remove_at(parent, rp_path_name(path), path, MAX_DEPTH, err);
}
