// The recorder: preloaded into the programs under test, it writes every change below one folder into a shared log (log.h),
// and can kill the program, fail a call or cut it short at a chosen one.
//   LD_PRELOAD=librecord.so RECORD_LOG=FILE program…
//
// Covered: open, creat, write, pwrite, writev and their kin, ftruncate, fallocate, fsync, fdatasync, syncfs, sync, rename,
// link, unlink, mkdir, rmdir, bind of a socket, FICLONE(RANGE), copy_file_range. Not covered: stdio that writes by itself and
// shared mappings (the log is marked); that nothing was missed is proved by replaying the log to its end and comparing with
// what is there. Calls go to the kernel directly, never through another library's.
#undef _FILE_OFFSET_BITS // both names of each call are defined here
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "recorder.h"

struct log the_log;
bool on;
static char program[32];

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("RECORD_LOG");
    int saved = errno;
    if (path && *path && !log_open(&the_log, path, true)) {
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        self[n > 0 ? n : 0] = 0;
        const char *slash = strrchr(self, '/');
        snprintf(program, sizeof program, "%.31s", slash ? slash + 1 : self);
        on = true;
    }
    errno = saved;
}

// ---- which files ----------------------------------------------------------------------------------------------------

static bool below_root(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = 0;
    size_t length = strlen(the_log.header->root);
    return !strncmp(path, the_log.header->root, length) && (path[length] == '/' || !path[length]);
}

bool tracked(int fd, struct stat *st)
{
    enum { KNOWN = 4096 };
    static _Atomic uint64_t known[KNOWN]; // inode × 4 + 2 + answer
    int saved = errno;
    bool is = false;
    if (on && fd >= 0 && fd != the_log.fd && !fstat(fd, st) && st->st_dev == the_log.header->device &&
        (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))) {
        uint64_t key = (uint64_t)st->st_ino * 4 + 2, found = fd < KNOWN ? atomic_load(&known[fd]) : 0;
        if ((found & ~1ull) == key) {
            is = found & 1;
        } else {
            is = below_root(fd);
            if (fd < KNOWN)
                atomic_store(&known[fd], key | is);
        }
    }
    errno = saved;
    return is;
}

// ---- faults ---------------------------------------------------------------------------------------------------------

// Not while another thread changes a name: that would have happened and not be in the log.
static _Noreturn void die(void)
{
    log_lock_names(&the_log);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static bool fault_is_ours(const struct log_header *h)
{
    return atomic_load(&h->fault) && (!*h->fault_program || !strcmp(h->fault_program, program));
}

void renames(const char *to)
{
    struct log_header *h = the_log.header;
    if (fault_is_ours(h) && atomic_load(&h->fault_waits) && !strncmp(to, h->fault_from, strlen(h->fault_from)))
        atomic_store(&h->fault_waits, 0);
}

static enum log_fault count(bool sync)
{
    struct log_header *h = the_log.header;
    atomic_fetch_add(&h->steps, 1);
    enum log_fault fault = (enum log_fault)atomic_load(&h->fault);
    if (!fault_is_ours(h) || atomic_load(&h->fault_waits) || (fault == FAULT_SYNC && !sync))
        return FAULT_NONE;
    int64_t left = atomic_fetch_sub(&h->fault_countdown, 1);
    if (left > 1 || left < 1 - (int64_t)atomic_load(&h->fault_lasts))
        return FAULT_NONE;
    if (fault == FAULT_KILL_BEFORE)
        die();
    return fault;
}

enum log_fault step(void) { return count(false); }

void came(void) { atomic_fetch_add(&the_log.header->faults, 1); }

bool fails(enum log_fault fault)
{
    if (fault == FAULT_KILL_WITHIN)
        die();
    if (fault != FAULT_ERROR && fault != FAULT_SYNC)
        return false;
    came();
    errno = (int)atomic_load(&the_log.header->fault_errno);
    return true;
}

void survive(enum log_fault fault)
{
    if (fault == FAULT_KILL_AFTER || fault == FAULT_KILL_WITHIN)
        die();
}

// ---- durability -----------------------------------------------------------------------------------------------------

static int record_sync(int fd, long call, bool times, enum log_kind kind)
{
    struct stat st;
    if (!tracked(fd, &st))
        return (int)syscall(call, fd);
    enum log_fault fault = count(true);
    if (fault == FAULT_ERROR && atomic_load(&the_log.header->fault_errno) == ENOSPC)
        fault = FAULT_NONE; // not what a sync fails with
    if (fails(fault))
        return -1;
    struct log_entry entry = {.inode = st.st_ino, .length = times};
    log_set_times(&entry, &st);
    uint64_t begun = log_append(&the_log, kind, &entry);
    int failed = (int)syscall(call, fd);
    if (!failed) {
        struct log_entry end = {.inode = st.st_ino, .other = begun};
        log_append(&the_log, LOG_SYNC_END, &end);
    }
    survive(fault);
    return failed;
}

EXPORT int fsync(int fd) { return record_sync(fd, SYS_fsync, true, LOG_SYNC); }
EXPORT int fdatasync(int fd) { return record_sync(fd, SYS_fdatasync, false, LOG_SYNC); }
EXPORT int syncfs(int fd) { return record_sync(fd, SYS_syncfs, true, LOG_SYNC_ALL); }
