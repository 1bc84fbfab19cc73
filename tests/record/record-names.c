// Calls that change what is called how: made and noted as one, so that the log has them in the order in which they happened.
#undef _FILE_OFFSET_BITS // both names of each call are defined here
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "recorder.h"

struct name {
    int folder; // opened O_PATH, or -1
    char text[NAME_MAX + 1];
    uint64_t inode; // of the folder
};

static void name_close(struct name *name)
{
    if (name->folder >= 0)
        syscall(SYS_close, name->folder);
}

// Splits a path; false: not below the root, or no such folder.
static bool name_find(int at, const char *path, struct name *name)
{
    char copy[PATH_MAX];
    struct stat st;
    int saved = errno;
    name->folder = -1;
    size_t length = on && path ? strlen(path) : 0;
    if (!length || length >= sizeof copy)
        return false;
    memcpy(copy, path, length + 1);
    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = 0;
    char *slash = strrchr(copy, '/');
    const char *last = slash ? slash + 1 : copy, *folder = slash == copy ? "/" : slash ? copy : ".";
    bool is = false;
    if (*last && strlen(last) <= NAME_MAX) {
        strcpy(name->text, last);
        if (slash && slash != copy)
            *slash = 0;
        name->folder = (int)syscall(SYS_openat, at, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        is = name->folder >= 0 && !fstat(name->folder, &st) && tracked(name->folder, &st);
        name->inode = st.st_ino;
    }
    if (!is)
        name_close(name);
    errno = saved;
    return is;
}

static void record_name(enum log_kind kind, uint64_t inode, const struct name *where, const struct name *to)
{
    int saved = errno;
    size_t first = strlen(where->text) + 1, second = to ? strlen(to->text) + 1 : 0;
    struct log_entry entry = {
        .inode = inode, .directory = where->inode, .other = to ? to->inode : 0, .length = first + second};
    struct stat st;
    const struct name *now = to ? to : where;
    if (!fstatat(now->folder, now->text, &st, AT_SYMLINK_NOFOLLOW))
        log_set_times(&entry, &st);
    char *text = log_reserve(&the_log, first + second, &entry.data);
    if (text) {
        memcpy(text, where->text, first);
        if (to)
            memcpy(text + first, to->text, second);
        log_append(&the_log, kind, &entry);
    }
    errno = saved;
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) ? 0 : st.st_ino;
}

static uint64_t inode_at(const struct name *name)
{
    struct stat st;
    return fstatat(name->folder, name->text, &st, AT_SYMLINK_NOFOLLOW) ? 0 : st.st_ino;
}

static int record_open(int at, const char *path, int flags, mode_t mode)
{
    struct name name;
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !name_find(at, path, &name))
        return (int)syscall(SYS_openat, at, path, flags | O_LARGEFILE, mode);
    struct stat st = {0};
    int saved = errno;
    bool there = !fstatat(name.folder, name.text, &st, 0);
    errno = saved;
    enum log_fault fault = !there || flags & O_TRUNC ? step() : FAULT_NONE;
    int fd = -1;
    if (!fails(fault)) {
        log_lock_names(&the_log);
        there = !fstatat(name.folder, name.text, &st, 0);
        errno = saved;
        struct log_entry entry = {.inode = st.st_ino};
        uint64_t begun = there && flags & O_TRUNC ? log_append(&the_log, LOG_TRUNCATE, &entry) : UINT64_MAX;
        fd = (int)syscall(SYS_openat, at, path, flags | O_LARGEFILE, mode);
        if (begun != UINT64_MAX)
            ended(fd, begun, st.st_ino, fd >= 0);
        if (fd >= 0 && !there)
            record_name(LOG_CREATE, inode_of(fd), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return fd;
}

static mode_t mode_of(int flags, va_list list) { return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0; }

#define OPEN(name)                                                                                                     \
    EXPORT int name(const char *path, int flags, ...)                                                                  \
    {                                                                                                                  \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode_t mode = mode_of(flags, list);                                                                            \
        va_end(list);                                                                                                  \
        return record_open(AT_FDCWD, path, flags, mode);                                                               \
    }
#define OPENAT(name)                                                                                                   \
    EXPORT int name(int at, const char *path, int flags, ...)                                                          \
    {                                                                                                                  \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode_t mode = mode_of(flags, list);                                                                            \
        va_end(list);                                                                                                  \
        return record_open(at, path, flags, mode);                                                                     \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
EXPORT int creat(const char *path, mode_t mode) { return record_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *path, mode_t mode) { return creat(path, mode); }

EXPORT int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags)
{
    struct name a, b;
    if (!name_find(at, from, &a))
        return (int)syscall(SYS_renameat2, at, from, to_at, to, flags);
    int failed = -1;
    if (!name_find(to_at, to, &b)) {
        errno = EXDEV; // out of the folder: nobody does that
    } else {
        renames(to);
        enum log_fault fault = step();
        if (!fails(fault)) {
            log_lock_names(&the_log);
            uint64_t inode = inode_at(&a);
            failed = (int)syscall(SYS_renameat2, at, from, to_at, to, flags);
            if (!failed)
                record_name(LOG_RENAME, inode, &a, &b);
            log_unlock_names(&the_log);
            survive(fault);
        }
        name_close(&b);
    }
    name_close(&a);
    return failed;
}
EXPORT int renameat(int at, const char *from, int to_at, const char *to) { return renameat2(at, from, to_at, to, 0); }
EXPORT int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

EXPORT int linkat(int at, const char *from, int to_at, const char *to, int flags)
{
    struct name name;
    if (!name_find(to_at, to, &name))
        return (int)syscall(SYS_linkat, at, from, to_at, to, flags);
    int failed = -1;
    enum log_fault fault = step();
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_linkat, at, from, to_at, to, flags);
        if (!failed)
            record_name(LOG_LINK, inode_at(&name), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
EXPORT int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

EXPORT int unlinkat(int at, const char *path, int flags)
{
    struct name name;
    if (!name_find(at, path, &name))
        return (int)syscall(SYS_unlinkat, at, path, flags);
    int failed = -1, saved = errno;
    uint64_t inode = inode_at(&name);
    errno = saved;
    enum log_fault fault = inode ? step() : FAULT_NONE;
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_unlinkat, at, path, flags);
        if (!failed)
            record_name(flags & AT_REMOVEDIR ? LOG_REMOVE_FOLDER : LOG_UNLINK, inode, &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
EXPORT int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
EXPORT int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

EXPORT int mkdirat(int at, const char *path, mode_t mode)
{
    struct name name;
    if (!name_find(at, path, &name))
        return (int)syscall(SYS_mkdirat, at, path, mode);
    int failed = -1;
    enum log_fault fault = step();
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_mkdirat, at, path, mode);
        if (!failed)
            record_name(LOG_FOLDER, inode_at(&name), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
EXPORT int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    struct name name;
    const struct sockaddr_un *local = (const struct sockaddr_un *)address;
    if (!on || !address || address->sa_family != AF_UNIX || size <= sizeof(sa_family_t) || !local->sun_path[0] ||
        !name_find(AT_FDCWD, local->sun_path, &name))
        return (int)syscall(SYS_bind, fd, address, size);
    int failed = -1;
    enum log_fault fault = step();
    if (!fails(fault)) {
        log_lock_names(&the_log);
        failed = (int)syscall(SYS_bind, fd, address, size);
        if (!failed)
            record_name(LOG_SOCKET, inode_at(&name), &name, NULL);
        log_unlock_names(&the_log);
        survive(fault);
    }
    name_close(&name);
    return failed;
}
