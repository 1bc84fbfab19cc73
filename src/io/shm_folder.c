// The folders that shared memory lies in: one for each folder whose files it is about, and not for longer than that one.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/buf.h"
#include "io/shm.h"

// A symbolic link that says what the folder is for: as the file system knows it, which keeps that name to itself for ever, and
// where that was. To nobody a way to anything.
#define NOTE ".for"

static char *parent_of(const char *path) { return rp_xasprintf("%.*s", (int)(strrchr(path, '/') - path), path); }

static char *note_in(const char *directory) { return rp_xasprintf("%s/" NOTE, directory); }

char *rp_shm_directory(const char *directory, struct rp_error *err)
{
    struct stat st;
    if (stat(directory, &st)) {
        rp_fail_sys(err, errno, "%s", directory);
        return NULL;
    }
    return rp_xasprintf("/dev/shm/refpoint-%lu/%" PRIxMAX "-%" PRIxMAX, (unsigned long)geteuid(), (uintmax_t)st.st_dev,
                        (uintmax_t)st.st_ino);
}

static int make_private_directory(const char *path, struct rp_error *err)
{
    struct stat st;
    if (mkdir(path, 0700) && errno != EEXIST)
        return rp_fail_sys(err, errno, "%s: make the folder", path);
    if (lstat(path, &st))
        return rp_fail_sys(err, errno, "%s", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 022)
        return rp_fail(err, RP_ERR_PERMISSION, "%s: is not a folder of ours alone; remove it", path);
    return 0;
}

// Those whose word can be taken for it that a folder is no more: elsewhere that may be a server that has forgotten it.
static bool is_local(const struct statfs *fs)
{
    unsigned long type = (unsigned long)fs->f_type;
    return type == EXT4_SUPER_MAGIC || type == XFS_SUPER_MAGIC || type == BTRFS_SUPER_MAGIC || type == TMPFS_MAGIC;
}

static uint64_t system_id(const struct statfs *fs)
{
    uint64_t id;
    _Static_assert(sizeof fs->f_fsid == sizeof id, "as on Linux");
    memcpy(&id, &fs->f_fsid, sizeof id);
    return id;
}

static struct file_handle *new_handle(void)
{
    struct file_handle *handle = rp_xcalloc(1, sizeof *handle + MAX_HANDLE_SZ);
    handle->handle_bytes = MAX_HANDLE_SZ;
    return handle;
}

static void write_note(const char *directory, const char *folder)
{
    RP_AUTO_FREE struct file_handle *handle = new_handle();
    RP_AUTO_FREE char *path = realpath(folder, NULL), *note = note_in(directory);
    struct statfs fs;
    char hex[2 * MAX_HANDLE_SZ + 1] = "";
    int mount;
    unlink(note);
    if (!path || statfs(path, &fs) || !is_local(&fs) || name_to_handle_at(AT_FDCWD, path, handle, &mount, 0))
        return;
    for (unsigned i = 0; i < handle->handle_bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", handle->f_handle[i]);
    RP_AUTO_FREE char *text = rp_xasprintf("%" PRIx64 " %d %s %s", system_id(&fs), handle->handle_type, hex, path);
    if (symlink(text, note)) // too long, or no memory: then it stays until the machine starts anew
        return;
}

int rp_shm_make(const char *directory, const char *folder, struct rp_error *err)
{
    RP_AUTO_FREE char *above = parent_of(directory);
    struct stat st;
    // What everybody may write to, as /dev/shm, is fine above it, as long as nobody may rename what is ours.
    bool common = !lstat(above, &st) && S_ISDIR(st.st_mode) && !st.st_uid && st.st_mode & S_ISVTX;
    if ((!common && make_private_directory(above, err)) || make_private_directory(directory, err))
        return -1;
    write_note(directory, folder);
    return 0;
}

void rp_shm_drop(const char *directory)
{
    DIR *listing = opendir(directory);
    bool empty = listing;
    for (struct dirent *entry; empty && (entry = readdir(listing));)
        empty = entry->d_name[0] == '.';
    if (listing)
        closedir(listing);
    if (!empty)
        return;
    RP_AUTO_FREE char *note = note_in(directory);
    unlink(note);
    rmdir(directory);
}

// ---- folders of what has been deleted

// The folder at `path`, or the first one above that is there: any of its file system will do to ask that. Changes `path`.
static int open_above(char *path)
{
    for (;;) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 || (errno != ENOENT && errno != ENOTDIR) || !path[1])
            return fd;
        char *end = strrchr(path, '/');
        end[end == path] = 0;
    }
}

static struct file_handle *parse_handle(int type, const char *hex)
{
    struct file_handle *handle = new_handle();
    handle->handle_type = type;
    handle->handle_bytes = (unsigned)strlen(hex) / 2;
    for (unsigned i = 0; i < handle->handle_bytes; i++) {
        unsigned byte = 0;
        sscanf(hex + 2 * i, "%2x", &byte);
        handle->f_handle[i] = (unsigned char)byte;
    }
    return handle;
}

// Whether what the folder is for has been deleted, for sure. A path alone does not tell: it may have been renamed, and may
// come back; its file system may not be mounted now. Where we are not allowed to ask (CAP_DAC_READ_SEARCH), nobody knows.
static bool is_abandoned(const char *directory)
{
    RP_AUTO_FREE char *note = note_in(directory);
    char text[PATH_MAX + 1], hex[2 * MAX_HANDLE_SZ + 1];
    struct statfs fs;
    uint64_t system;
    int type, at = 0;
    ssize_t size = readlink(note, text, sizeof text - 1);
    if (size <= 0)
        return false;
    text[size] = 0;
    if (sscanf(text, "%" SCNx64 " %d %256[0-9a-f] %n", &system, &type, hex, &at) != 3 || text[at] != '/')
        return false;
    RP_AUTO_FREE struct file_handle *handle = parse_handle(type, hex);
    RP_AUTO_FD int above = open_above(text + at);
    if (above < 0 || fstatfs(above, &fs) || !is_local(&fs) || system_id(&fs) != system)
        return false;
    RP_AUTO_FD int found = open_by_handle_at(above, handle, O_PATH | O_CLOEXEC);
    return found < 0 && errno == ESTALE;
}

void rp_shm_sweep(const char *directory)
{
    RP_AUTO_FREE char *above = parent_of(directory);
    DIR *listing = opendir(above);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", above, entry->d_name);
        struct stat st;
        if (entry->d_name[0] != '.' && !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && is_abandoned(path))
            rp_shm_clean(path);
    }
    if (listing)
        closedir(listing);
}
