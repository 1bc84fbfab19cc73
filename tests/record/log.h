// One ordered log of all that several processes changed below a folder: what a power cut is made of.
//
// The log is a file that every process maps: slots, handed out by one counter (their order is the order of things), and the
// bytes written. Its writers are the preloaded library record.c and the driver of a scenario, who puts notes about what was
// acknowledged to it between the entries. Its reader is tree.c.
//
// A change of a file's content has two slots: one before the call, with the data, and END when it has returned. A sync makes
// durable what had ended before the sync began. A change of a name has one slot, when it has been made; names are changed
// one at a time. The data is copied into the log before the call, and the call is given the copy: so what is in the log is
// what was written, also when another thread changes the buffer meanwhile.
#ifndef RP_TESTS_RECORD_LOG_H
#define RP_TESTS_RECORD_LOG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum log_kind {
    LOG_HOLE,      // whoever took this slot died before filling it: nothing was done yet
    // content; `inode`, `offset`, `length`
    LOG_WRITE,     // `data`: the bytes
    LOG_ZERO,      // punched or zeroed without changing the size
    LOG_ALLOCATE,  // reserved: makes the file longer, perhaps
    LOG_TRUNCATE,  // `length`: the new size
    LOG_END,       // of the entry `other`; `length`: how much was done (0: it failed); the file's times after it
    // durability
    LOG_SYNC,      // begins; `inode`, its times now. `length`: 1 with these times (fsync), 0 without (fdatasync)
    LOG_SYNC_ALL,  // begins: everything
    LOG_SYNC_END,  // of `other`
    // names; `inode` is what the name stands for, `directory` where it stands, `data` the name
    LOG_CREATE,
    LOG_FOLDER,
    LOG_SOCKET,
    LOG_LINK,
    LOG_UNLINK,
    LOG_REMOVE_FOLDER,
    LOG_RENAME,    // `other`: the directory it goes to; `data`: both names, each with its NUL
    // of the driver
    LOG_NOTE,      // `data`, `length`; `offset`: which kind of note
};

struct log_entry {
    _Atomic uint32_t kind; // stored last
    uint32_t pid;
    uint64_t inode, directory, other;
    uint64_t offset, length;
    uint64_t data;         // position in the log's bytes
    int64_t mtime_ns, ctime_ns;
};

// What the recorder does besides recording. All of it can be changed while programs run.
enum log_fault {
    FAULT_NONE,
    FAULT_KILL_BEFORE, // SIGKILL instead of the call
    FAULT_KILL_AFTER,  // SIGKILL when the call has been made
    FAULT_KILL_WITHIN, // a write is cut short at a sector, then SIGKILL; any other call: as BEFORE
    FAULT_ERROR,       // the call fails with `fault_errno` (ENOSPC: a sync does not)
    FAULT_SHORT,       // a write writes its first half only (of sectors: whole ones); any other call: nothing
    FAULT_SYNC,        // a sync fails with `fault_errno`; no other calls are counted
};

static inline void log_set_times(struct log_entry *entry, const struct stat *st)
{
    entry->mtime_ns = st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    entry->ctime_ns = st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
}

#define LOG_MAGIC 0x31474f4c52505231u
#define LOG_ROOT 512
struct log_header {
    uint64_t magic;
    uint64_t device, root_inode;
    char root[LOG_ROOT];       // canonical path of the folder
    uint64_t slots, bytes;     // room
    _Atomic uint64_t count;    // slots handed out
    _Atomic uint64_t used;     // bytes handed out
    _Atomic uint32_t overflow; // there was not enough room: the log is of no use
    _Atomic uint32_t mapped;   // somebody mapped a file to write to it: what is written so is not seen
    pthread_mutex_t names;     // robust, between processes

    // The fault: comes at the call for which `fault_countdown` becomes 0, in a process called `fault_program` ("": any).
    _Atomic uint32_t fault;
    _Atomic uint32_t fault_errno;
    _Atomic int64_t fault_countdown;
    char fault_program[32];
    char fault_from[32];           // with `fault_waits`: calls are counted from the first rename to a path that begins so
    _Atomic uint32_t fault_waits;
    _Atomic uint32_t fault_lasts; // of ERROR and SYNC: so many calls after that one fail too
    _Atomic uint64_t faults;   // calls that failed or were cut short so far
    _Atomic uint64_t steps;    // changing calls made so far, syncs included
};

struct log {
    struct log_header *header;
    struct log_entry *entries;
    uint8_t *bytes;
    size_t size;
    int fd;
};

// Makes an empty log at `path` for the folder `root`, which exists. Room that is not used costs nothing.
int log_create(struct log *log, const char *path, const char *root, uint64_t slots, uint64_t bytes);
// Maps an existing one. Async-signal-safe but for the mapping; used by the preloaded library too.
int log_open(struct log *log, const char *path, bool writable);
void log_close(struct log *log);

static inline uint64_t log_count(const struct log *log) { return atomic_load(&log->header->count); }
static inline enum log_kind log_kind(const struct log *log, uint64_t index)
{
    return (enum log_kind)atomic_load_explicit(&log->entries[index].kind, memory_order_acquire);
}
static inline const void *log_data(const struct log *log, const struct log_entry *entry) { return log->bytes + entry->data; }

// Room for `size` bytes that will be an entry's data; aligned for O_DIRECT. NULL: full (the log is marked).
void *log_reserve(struct log *log, size_t size, uint64_t *position);
// Appends; returns its index, or UINT64_MAX when the log is full. `entry->kind` is taken from `kind`.
uint64_t log_append(struct log *log, enum log_kind kind, const struct log_entry *entry);
// A note of the driver's.
uint64_t log_note(struct log *log, uint32_t kind, const void *data, size_t size);
// Held while a name is changed and until that is in the log: who kills a process holds it, until the process is dead.
void log_lock_names(struct log *log);
void log_unlock_names(struct log *log);

// What a process was writing when it died is there in full, in part or not at all: says in the log what really stands in the
// files, for all processes that are dead. Nobody may be writing to those files meanwhile.
int log_mend(struct log *log);

#endif
