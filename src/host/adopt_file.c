// What adoption asks of files that are not the host's own.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "host/adopt.h"
#include "rct/rct.h"

// Locks of QEMU on an image: a byte from here for each thing that somebody does (block/file-posix.c):
// writing and resizing.
enum { QEMU_LOCKS = 100, QEMU_WRITES = 1, QEMU_RESIZES = 3 };

char *rp_adopt_stamp(const char *path)
{
    struct stat st;
    if (stat(path, &st))
        return rp_xstrdup("");
    // Without the device: another boot may give it another number (Btrfs, NFS, device mapper).
    return rp_xasprintf("%llu %llu %lld.%09ld", (unsigned long long)st.st_ino, (unsigned long long)st.st_size,
                        (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

// A number of a file is given again when the file has gone; the time of its birth tells them apart,
// where that is known.
static int look_at(int fd, const char *path, unsigned long long *inode, long long birth[2])
{
    struct statx st;
    if (statx(fd, path, *path ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st))
        return -1;
    bool known = st.stx_mask & STATX_BTIME;
    *inode = st.stx_ino;
    birth[0] = known ? st.stx_btime.tv_sec : 0;
    birth[1] = known ? st.stx_btime.tv_nsec : 0;
    return 0;
}

static char *mark_of(int fd, const char *path)
{
    unsigned long long inode;
    long long birth[2];
    return look_at(fd, path, &inode, birth) ? rp_xstrdup("")
                                            : rp_xasprintf("%llu %lld %lld", inode, birth[0], birth[1]);
}

char *rp_adopt_mark(const char *path) { return mark_of(AT_FDCWD, path); }
char *rp_adopt_mark_of(int fd) { return mark_of(fd, ""); }

int rp_adopt_is_marked(const char *path, const char *mark, struct rp_error *err)
{
    unsigned long long inode, marked;
    long long birth[2], born[2];
    if (sscanf(mark, "%llu %lld %lld", &marked, &born[0], &born[1]) != 3)
        return rp_fail(err, RP_ERR_CORRUPT, "\"%.64s\": no mark of an image: somebody wrote to the host's database",
                       mark);
    if (look_at(AT_FDCWD, path, &inode, birth))
        return errno == ENOENT || errno == ENOTDIR ? 0 : rp_fail_sys(err, errno, "%s", path);
    bool told = (birth[0] || birth[1]) && (born[0] || born[1]);
    return inode == marked && (!told || (birth[0] == born[0] && birth[1] == born[1]));
}

static int open_in_place(const char *path, int flags, struct rp_error *err)
{
    const char *name;
    RP_AUTO_FD int folder = rp_path_open_parent(path, &name, err);
    if (folder < 0)
        return -1;
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? rp_fail_sys(err, errno, "%s", path) : fd;
}

int rp_adopt_create(const char *path, struct rp_error *err)
{
    return open_in_place(path, O_RDWR | O_CREAT | O_EXCL, err);
}
int rp_adopt_open(const char *path, struct rp_error *err) { return open_in_place(path, O_RDONLY | O_NONBLOCK, err); }

int rp_adopt_rename(const char *from, const char *to, struct rp_error *err)
{
    const char *old, *new;
    RP_AUTO_FD int there = rp_path_open_parent(from, &old, err);
    RP_AUTO_FD int here = there < 0 ? -1 : rp_path_open_parent(to, &new, err);
    struct stat st;
    if (here < 0)
        return -1;
    if (!renameat2(there, old, here, new, RENAME_NOREPLACE))
        return 0;
    bool unknown = errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP;
    // NFS cannot do it so. A link does not replace either; killed between the two, the file has both names.
    if (unknown && !linkat(there, old, here, new, 0))
        return unlinkat(there, old, 0) ? rp_fail_sys(err, errno, "%s: delete", from) : 0;
    // No links either (FUSE): a look has to do.
    if (unknown && (errno == EPERM || errno == ENOSYS || errno == EOPNOTSUPP)) {
        if (!fstatat(here, new, &st, AT_SYMLINK_NOFOLLOW))
            errno = EEXIST;
        else if (errno == ENOENT && !renameat(there, old, here, new))
            return 0;
    }
    return rp_fail_sys(err, errno, "rename %s to %s", from, to);
}

bool rp_adopt_is_written(const char *path)
{
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = QEMU_LOCKS + QEMU_WRITES,
                         .l_len = QEMU_RESIZES - QEMU_WRITES + 1};
    return fd >= 0 && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

bool rp_adopt_shares(const char *path, const char *folder)
{
    struct rp_fs *fs = rp_fs_posix();
    RP_CLEANUP(rp_store_close_p) struct rp_store *source = rp_fs_open(fs, path, RP_OPEN_READ, NULL);
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); // has no name: nobody sees it
    if (fd < 0)
        return false;
    RP_CLEANUP(rp_store_close_p) struct rp_store *target = rp_fs_posix_store(fd, folder, RP_OPEN_WRITE);
    return source && target && !rp_store_clone_range(target, 0, source, 0, 0, NULL);
}

uint64_t rp_adopt_allocated(const char *path)
{
    struct rp_fs *fs = rp_fs_posix();
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, NULL);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
    uint64_t size = 0;
    return store && !rp_store_size(store, &size, NULL) && !rp_store_extents(store, 0, size, &data, NULL)
               ? rp_ranges_total(&data)
               : size;
}

uint64_t rp_adopt_room(const char *folder)
{
    struct statvfs st;
    return statvfs(folder, &st) ? 0 : (uint64_t)st.f_bfree * st.f_frsize;
}

static bool is_free(const char *path)
{
    struct stat st;
    return lstat(path, &st) && errno == ENOENT;
}

char *rp_adopt_in_the_way(const char *vhdx)
{
    char *const files[] = {rp_xstrdup(vhdx), rp_rct_path(vhdx), rp_xasprintf("%s.mrt", vhdx)};
    char *found = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (found || is_free(files[i]))
            free(files[i]);
        else
            found = files[i];
    return found;
}

char *rp_adopt_name(const char *folder, const char *path, const char *other, const char *extension)
{
    static const char *const known[] = {".raw", ".img", ".qcow2", ".qcow", ".vhdx"};
    const char *name = rp_path_name(path);
    size_t stem = strlen(name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t length = strlen(known[i]);
        if (stem > length && !strcasecmp(name + stem - length, known[i])) {
            stem -= length;
            break;
        }
    }
    for (int i = 0; i < 2; i++) {
        char *made = i ? rp_xasprintf("%s/%.*s-%s.%s", folder, (int)stem, name, other, extension)
                       : rp_xasprintf("%s/%.*s.%s", folder, (int)stem, name, extension);
        RP_AUTO_FREE char *there = rp_adopt_in_the_way(made);
        if (!there)
            return made;
        free(made);
    }
    return NULL;
}

// An entry of the list for the owning group would be widened by the mode alone, which has the list's mask in its place.
static int copy_list(int fd, int like)
{
    static const char name[] = "system.posix_acl_access";
    char list[4096];
    ssize_t size = fgetxattr(like, name, list, sizeof list);
    if (size < 0)
        return errno == ENODATA || errno == EOPNOTSUPP ? 0 : -1;
    return fsetxattr(fd, name, list, (size_t)size, 0);
}

int rp_adopt_dress(int fd, const char *path, const char *like, struct rp_error *err)
{
    struct rp_error why = {0};
    struct stat st;
    RP_AUTO_FD int model = rp_adopt_open(like, &why);
    if (model < 0)
        return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
    if (fstat(model, &st))
        return rp_fail_sys(err, errno, "%s", like);
    if (!S_ISREG(st.st_mode))
        return rp_fail(err, RP_ERR_STATE, "%s: is no file any more", like);
    // Where files belong to whom the server says (NFS), or to nobody (vfat), the image had no say in it either. The
    // mode says nothing without the owner: then nobody else may read it.
    bool refused = (fchown(fd, st.st_uid, st.st_gid) || fchmod(fd, st.st_mode & 0777) || copy_list(fd, model)) &&
                   errno != EPERM && errno != EOPNOTSUPP;
    if (refused)
        return rp_fail_sys(err, errno, "%s: owner and mode of %s", path, like);
    return 0;
}
