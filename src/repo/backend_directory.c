// A repository in a directory. An object appears under its name whole and durable, or not at all: it is written under a
// temporary name in tmp/, synced, renamed without replacing, and the folder is synced.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/guid.h"
#include "base/log.h"
#include "repo/backend.h"
#include "repo/config.h"
#include "repo/damage.h"
#include "repo/folders.h"
#include "repo/whole_file.h"

#define OBJECT_PATH 512
#define STALE_S (24 * 3600)
#define PAUSE_US 300000u

struct directory {
    struct rp_backend backend;
    int fd;
    atomic_uint durable; // a bit for each of `tops`: its name is
};

// The folders of the repository itself.
static const char *const tops[] = {"packs", "points", "notes", "sessions", "locks", "tombstones", "damaged", "keys"};

static int fd_of(struct rp_backend *backend) { return ((struct directory *)backend)->fd; }

static int sync_folder(struct rp_backend *backend, const char *folder, struct rp_error *err)
{
    RP_AUTO_FD int fd = openat(fd_of(backend), *folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && fsync(fd) == 0)
        return 0;
    // No room for what is there already: RP_ERR_NO_SPACE would say that nothing is.
    if (rp_code_from_errno(errno) == RP_ERR_NO_SPACE)
        return rp_fail(err, RP_ERR_IO, "%s/%s: sync: %s", backend->location, folder, strerror(errno));
    return rp_fail_sys(err, errno, "%s/%s: sync", backend->location, folder);
}

// The part before the last slash; "" when there is none.
static void folder_of(const char *name, char folder[OBJECT_PATH])
{
    const char *slash = strrchr(name, '/');
    size_t length = slash ? (size_t)(slash - name) : 0;
    memcpy(folder, name, length);
    folder[length] = 0;
}

static int make_folder(struct rp_backend *backend, const char *folder, struct rp_error *err)
{
    if (!*folder)
        return 0;
    if (mkdirat(fd_of(backend), folder, 0700) == 0) {
        char above[OBJECT_PATH];
        folder_of(folder, above);
        return sync_folder(backend, above, err);
    }
    if (errno == EEXIST)
        return 0;
    if (errno != ENOENT)
        return rp_fail_sys(err, errno, "%s/%s: make the folder", backend->location, folder);
    char above[OBJECT_PATH];
    folder_of(folder, above);
    if (!*above)
        return rp_fail_sys(err, ENOENT, "%s/%s: make the folder", backend->location, folder);
    return make_folder(backend, above, err) ? -1 : make_folder(backend, folder, err);
}

// A writer that was killed may have made the folder, and not made its name durable. Once for each is enough. (Those below packs/
// are synced when a commit lists them.)
static int need_top(struct rp_backend *backend, const char *folder, struct rp_error *err)
{
    struct directory *directory = (struct directory *)backend;
    size_t length = strcspn(folder, "/");
    unsigned bit = 0;
    for (size_t i = 0; i < sizeof tops / sizeof tops[0]; i++)
        if (strlen(tops[i]) == length && !memcmp(folder, tops[i], length))
            bit = 1u << i;
    if (!length || atomic_load(&directory->durable) & bit)
        return 0;
    if (sync_folder(backend, "", err))
        return -1;
    atomic_fetch_or(&directory->durable, bit);
    return 0;
}

static bool same_file(int directory, const char *a, const char *b)
{
    struct stat one, other;
    return !fstatat(directory, a, &one, AT_SYMLINK_NOFOLLOW) && !fstatat(directory, b, &other, AT_SYMLINK_NOFOLLOW) &&
           one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

// Gives the temporary file its name unless that is taken. File systems without RENAME_NOREPLACE have link(); whose answer may
// be lost on NFS, and the second try finds what the first one did.
static int take_name(int directory, const char *temporary, const char *name)
{
    if (renameat2(directory, temporary, directory, name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (linkat(directory, temporary, directory, name, 0)) {
        int failed = errno;
        if (failed != EEXIST || !same_file(directory, temporary, name)) {
            errno = failed;
            return -1;
        }
    }
    unlinkat(directory, temporary, 0);
    return 0;
}

// Who hears that an object is there relies on it, as if he had written it.
static int name_taken(struct rp_backend *backend, const char *name, const char *folder, struct rp_error *err)
{
    return sync_folder(backend, folder, err) ? -1 : rp_fail_sys(err, EEXIST, "%s/%s: write", backend->location, name);
}

static int directory_put(struct rp_backend *backend, const char *name, const void *data, size_t size,
                         struct rp_error *err)
{
    char folder[OBJECT_PATH], temporary[64], guid[RP_GUID_TEXT];
    if (strlen(name) >= OBJECT_PATH)
        return rp_fail(err, RP_ERR_INVALID, "%s: object name too long", backend->location);
    folder_of(name, folder);
    if (make_folder(backend, folder, err) || need_top(backend, folder, err))
        return -1;
    struct stat taken;
    if (fstatat(fd_of(backend), name, &taken, AT_SYMLINK_NOFOLLOW) == 0) // the usual case, found cheaply
        return name_taken(backend, name, folder, err);
    struct rp_guid random = rp_guid_new();
    snprintf(temporary, sizeof temporary, "tmp/%s", rp_guid_format(&random, guid));
    int failed = rp_whole_file_write(fd_of(backend), temporary, data, size);
    if (failed == ENOENT) {
        if (make_folder(backend, "tmp", err))
            return -1;
        failed = rp_whole_file_write(fd_of(backend), temporary, data, size);
    }
    if (!failed && take_name(fd_of(backend), temporary, name))
        failed = errno;
    // Somebody removed the last object of the folder, and the folder with it.
    if (failed == ENOENT && !make_folder(backend, folder, NULL))
        failed = take_name(fd_of(backend), temporary, name) ? errno : 0;
    if (failed) {
        unlinkat(fd_of(backend), temporary, 0);
        if (failed == EEXIST)
            return name_taken(backend, name, folder, err);
        return rp_fail_sys(err, failed, "%s/%s: write", backend->location, name);
    }
    return sync_folder(backend, folder, err);
}

static int directory_get(struct rp_backend *backend, const char *name, uint64_t offset, void *data, size_t size,
                         struct rp_error *err)
{
    size_t got;
    int failed = rp_whole_file_read(fd_of(backend), name, offset, data, size, &got);
    if (failed > 0)
        return rp_fail_sys(err, failed, "%s/%s: read %zu bytes at %llu", backend->location, name, size,
                           (unsigned long long)offset);
    if (failed)
        return rp_fail(err, RP_ERR_CORRUPT, "%s/%s: ends at %llu, %zu more bytes expected", backend->location, name,
                       (unsigned long long)(offset + got), size - got);
    return 0;
}

static int directory_size(struct rp_backend *backend, const char *name, uint64_t *size, struct rp_error *err)
{
    struct stat st;
    if (fstatat(fd_of(backend), name, &st, 0))
        return rp_fail_sys(err, errno, "%s/%s: look up", backend->location, name);
    if (!S_ISREG(st.st_mode))
        return rp_fail(err, RP_ERR_CORRUPT, "%s/%s: not a file", backend->location, name);
    *size = (uint64_t)st.st_size;
    return 0;
}

// Who else is at work: nobody may decide by half an answer. (A tombstone, as all else, counts by its name.)
static bool must_be_whole(const char *name) { return !strncmp(name, "sessions/", 9) || !strncmp(name, "locks/", 6); }

struct listing {
    struct rp_backend *backend;
    rp_backend_list_fn *each;
    void *context;
    bool waited;
};

// What the disk or the file system says may pass (a disk that is being reset), and is asked for again. One pause is enough: there
// can be very many that are lost.
static bool ask_again(struct listing *listing, int sys)
{
    if (!rp_damage_is_errno(sys))
        return false;
    if (!listing->waited)
        usleep(PAUSE_US);
    listing->waited = true;
    return true;
}

// An object, or a folder of them, that cannot be looked at, while others can be read. It is told by its name all the same: a pack
// or a point cannot be read then, and a check names either.
static int see_lost(const struct listing *listing, const char *name, int sys, struct rp_error *err)
{
    struct rp_backend *backend = listing->backend;
    uint8_t first;
    size_t got;
    if (must_be_whole(name) || !rp_damage_is_errno(sys) || rp_whole_file_read(fd_of(backend), RP_CONFIG_NAME, 0, &first, 1, &got))
        return rp_fail_sys(err, sys, "%s/%s: list", backend->location, name);
    rp_log(RP_LOG_WARNING, "%s/%s: %s; run refpoint check", backend->location, name, strerror(sys));
    return listing->each(listing->context, name, 0) ? 1 : 0;
}

// Opens the folder, and takes the names in it, each with its zero. 0, or the errno, and nothing is open.
static int read_folder(const struct listing *listing, const char *folder, DIR **dir, struct rp_buf *names)
{
    int fd = openat(fd_of(listing->backend), *folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *dir = fd < 0 ? NULL : fdopendir(fd);
    int sys = *dir ? 0 : errno;
    if (fd >= 0 && !*dir)
        close(fd);
    names->size = 0;
    for (struct dirent *entry; !sys;) {
        errno = 0;
        entry = readdir(*dir);
        if (entry && entry->d_name[0] != '.' && (*folder || strcmp(entry->d_name, "tmp") != 0))
            rp_buf_append(names, entry->d_name, strlen(entry->d_name) + 1);
        if (!entry && !errno)
            return 0;
        if (!entry)
            sys = errno;
    }
    if (*dir)
        closedir(*dir);
    return sys;
}

static int list_folder(struct listing *listing, const char *folder, unsigned depth, struct rp_error *err);

static int list_one(struct listing *listing, const char *name, unsigned depth, struct rp_error *err)
{
    int fd = fd_of(listing->backend);
    struct stat st;
    int sys = fstatat(fd, name, &st, 0) ? errno : 0;
    if (ask_again(listing, sys))
        sys = fstatat(fd, name, &st, 0) ? errno : 0;
    if (sys)
        return sys == ENOENT ? 0 : see_lost(listing, name, sys, err); // removed meanwhile is fine
    if (S_ISDIR(st.st_mode))
        return depth < 4 ? list_folder(listing, name, depth + 1, err) : 0;
    return S_ISREG(st.st_mode) && listing->each(listing->context, name, (uint64_t)st.st_size) ? 1 : 0;
}

// Returns -1 failed, 1 stopped by `each`.
static int list_folder(struct listing *listing, const char *folder, unsigned depth, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf names = {0};
    DIR *dir;
    int sys = read_folder(listing, folder, &dir, &names), result = 0;
    if (ask_again(listing, sys))
        sys = read_folder(listing, folder, &dir, &names);
    if (sys == ENOENT)
        return 0;
    if (sys)
        return depth ? see_lost(listing, folder, sys, err) : rp_fail_sys(err, sys, "%s/%s: list", listing->backend->location, folder);
    for (size_t at = 0; at < names.size && result == 0;) {
        const char *entry = (const char *)names.data + at;
        char name[OBJECT_PATH];
        int length = snprintf(name, sizeof name, "%s%s%s", folder, *folder ? "/" : "", entry);
        at += strlen(entry) + 1;
        if (length > 0 && length < OBJECT_PATH) // no object of ours has a longer name
            result = list_one(listing, name, depth, err);
    }
    // A name that a killed writer gave, and did not sync, is one that a power cut can take back.
    if (result >= 0 && fsync(dirfd(dir)) && errno != EROFS && errno != EINVAL)
        result = rp_fail_sys(err, errno, "%s/%s: sync", listing->backend->location, folder);
    closedir(dir);
    return result;
}

static int directory_list(struct rp_backend *backend, const char *prefix, rp_backend_list_fn *each, void *context,
                          struct rp_error *err)
{
    char folder[OBJECT_PATH];
    if (strlen(prefix) >= OBJECT_PATH)
        return rp_fail(err, RP_ERR_INVALID, "%s: object name too long", backend->location);
    folder_of(prefix, folder);
    struct listing listing = {.backend = backend, .each = each, .context = context};
    return list_folder(&listing, folder, 0, err) < 0 ? -1 : 0;
}

static int directory_remove(struct rp_backend *backend, const char *name, struct rp_error *err)
{
    if (unlinkat(fd_of(backend), name, 0) && errno != ENOENT)
        return rp_fail_sys(err, errno, "%s/%s: remove", backend->location, name);
    // Each session has a folder of its own: without this they would add up, one for every backup ever made.
    char folder[OBJECT_PATH];
    if (strlen(name) < OBJECT_PATH) {
        folder_of(name, folder);
        if (strchr(folder, '/'))
            unlinkat(fd_of(backend), folder, AT_REMOVEDIR); // only when it is empty
    }
    return 0;
}

static int directory_room(struct rp_backend *backend, uint64_t *bytes, struct rp_error *err)
{
    struct statvfs vfs;
    if (fstatvfs(fd_of(backend), &vfs))
        return rp_fail_sys(err, errno, "%s: free space", backend->location);
    *bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return 0;
}

static void directory_close(struct rp_backend *backend)
{
    close(fd_of(backend));
    free(backend->location);
    free(backend);
}

static const struct rp_backend_ops directory_ops = {
    .put = directory_put,
    .get = directory_get,
    .size = directory_size,
    .list = directory_list,
    .remove = directory_remove,
    .room = directory_room,
    .close = directory_close,
};

static bool is_temporary(const char *name)
{
    struct rp_guid guid;
    return strlen(name) == RP_GUID_TEXT - 1 && rp_guid_parse(name, &guid, NULL) == 0;
}

static bool is_session(const char *name)
{
    uint8_t id[16];
    return rp_unhex(name, id, sizeof id);
}

// What killed writers, and power cuts, left in `folder`: files that have no name yet, and folders that hold nothing. A day is
// longer than any write of one object takes. Nothing with another name than theirs: it is somebody else's.
static void remove_stale(int directory, const char *folder, bool (*is_ours)(const char *name), mode_t kind, int flags)
{
    int fd = openat(directory, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    time_t now = time(NULL);
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st;
        if (is_ours(entry->d_name) && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (st.st_mode & S_IFMT) == kind && st.st_mtime < now - STALE_S)
            unlinkat(fd, entry->d_name, flags);
    }
    closedir(dir);
}

struct rp_backend *rp_backend_directory_open(const char *path, bool create, struct rp_error *err)
{
    if (!*path) {
        rp_fail(err, RP_ERR_INVALID, "the path of the repository is empty");
        return NULL;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && create) {
        if (rp_folders_make(path, err))
            return NULL;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0) {
        rp_fail_sys(err, errno, "%s: open the directory", path);
        return NULL;
    }
    if (faccessat(fd, RP_CONFIG_NAME, F_OK, 0) == 0) { // else it is no repository, and none of its files are ours
        remove_stale(fd, "tmp", is_temporary, S_IFREG, 0);
        remove_stale(fd, "sessions", is_session, S_IFDIR, AT_REMOVEDIR); // one that is not empty stays
    }
    struct directory *directory = rp_xcalloc(1, sizeof *directory);
    directory->backend = (struct rp_backend){&directory_ops, rp_xstrdup(path)};
    directory->fd = fd;
    return &directory->backend;
}
