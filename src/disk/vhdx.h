// One VHDX file, dynamic or differencing ([MS-VHDX]).
//
// Durability: a write is in the file's page cache when the call returns and durable after rp_vhdx_flush. Allocating a
// block costs no sync: changed metadata pages are kept in memory and go to the log in one entry at flush, when the log
// is full, and at close. After a crash at any moment every flushed write reads back; a write that was not flushed reads
// as the old data or the new data, per sector.
//
// Errors: a write that finds no room in the file system, or whose data cannot be written, fails alone (NO_SPACE, IO): what
// it was to change reads as before or as written, everything else stays, and later calls work. Room for the log and for
// metadata is taken before it is needed. Only a failed sync, or a failure to write metadata, is final. (Where the file
// shares blocks with another one, by a reflink or in a snapshot of its file system, no room can be taken: the first
// write to a shared part of the log or of metadata then finds its room only when it happens, and without any it is
// final: RP_ERR_STATE from then on.) Space of blocks that were trimmed or zeroed goes back to the file system at the next flush.
//
// Thread safety: every function except open and close may be called from several threads at once. Overlapping
// concurrent writes end in one order or the other.
//
// Offsets and lengths are bytes of the virtual disk and multiples of the logical sector size, else RP_ERR_INVALID.
#ifndef RP_DISK_VHDX_H
#define RP_DISK_VHDX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/guid.h"
#include "io/fs.h"
#include "io/shm.h"

struct rp_vhdx;

#define RP_VHDX_MAX_SIZE (64 * ((uint64_t)1 << 40)) // [MS-VHDX] 2.6.2.2

struct rp_vhdx_create {
    uint64_t size;                           // bytes, multiple of the logical sector, at most 64 TiB
    uint32_t block_size;                     // power of two, 1 to 256 MiB; 0: 2 MiB
    uint32_t logical_sector;                 // 512 or 4096; 0: 512
    uint32_t physical_sector;                // 512 or 4096; 0: 4096
    // Virtual Disk ID (page 83); zero: a new one. A child must be given its parent's
    struct rp_guid disk_id;
    const char *parent_path;                 // NULL: dynamic disk; else a differencing disk of that file
    struct rp_guid parent_data_write_guid;   // the parent's, for parent_linkage
    struct rp_guid data_write_guid;          // zero: a new one
};

// Creates the file (RP_ERR_EXISTS if it is there) and makes it durable, its name and its times included.
int rp_vhdx_create(struct rp_fs *fs, const char *path, const struct rp_vhdx_create *create, struct rp_error *err);

struct rp_vhdx_info {
    uint64_t size;
    uint32_t block_size;
    uint32_t logical_sector;
    uint32_t physical_sector;
    struct rp_guid disk_id;
    struct rp_guid file_write_guid;  // as in the current header
    struct rp_guid data_write_guid;
    bool dirty_log;                  // the file was not closed cleanly (a read-only open has replayed it in memory)
    bool fixed;                      // LeaveBlockAllocated
    bool has_parent;
    struct rp_guid parent_linkage;   // the parent's DataWriteGuid
    struct rp_guid parent_linkage2;  // zero when absent; set only while a merge changes the parent
    char *parent_path;               // resolved against the file's directory; owned by the vhdx; NULL without parent
};

enum rp_vhdx_flags {
    RP_VHDX_READ = 0,  // takes a shared lock on the file; replays a dirty log in memory, writes nothing
    RP_VHDX_WRITE = 1, // takes the exclusive lock (RP_ERR_BUSY), replays a dirty log into the file
    RP_VHDX_NO_LOCK = 2, // takes no lock: for the owner of the file, who holds it by another open
};

// GUIDs that a writing session will put into the header: FileWriteGuid before its first modification, DataWriteGuid
// before its first change of what a reader sees. Choosing them beforehand lets the change tracker record them first.
struct rp_vhdx_session {
    struct rp_guid file_write_guid;
    struct rp_guid data_write_guid;
};

// `session` may be NULL (new random GUIDs). Opens this file only: link the parent with rp_vhdx_set_parent before
// reading a differencing disk. Errors: NOT_FOUND, BUSY, CORRUPT, UNSUPPORTED (required features we do not know),
// PERMISSION.
struct rp_vhdx *rp_vhdx_open(struct rp_fs *fs, const char *path, unsigned flags, const struct rp_vhdx_session *session,
                             struct rp_error *err);
// For what rp_vhdx_info tells of a file that somebody else may be writing to at this moment: without a lock, and one that seems
// damaged is looked at again for a fifth of a second, as it was perhaps read while it changed. Errors as of rp_vhdx_open, but BUSY.
struct rp_vhdx *rp_vhdx_look(struct rp_fs *fs, const char *path, struct rp_error *err);
// Flushes, drains the log, clears LogGuid, closes. After an earlier failed flush it closes without writing and fails.
int rp_vhdx_close(struct rp_vhdx *vhdx, struct rp_error *err);
// Keeps a copy of every change of metadata that is not in the file yet in `shm` (of rp_vhdx_shm_size() bytes, empty), before
// the write that caused it returns: if the process dies, rp_vhdx_adopt finds there what the file lacks. Right after an open
// for writing, before anything else. Takes `shm` over when it succeeds: a clean close or a freeze removes it, abandon leaves it.
int rp_vhdx_share(struct rp_vhdx *vhdx, struct rp_shm *shm, struct rp_error *err);
size_t rp_vhdx_shm_size(void);
// Ends, in its name and under its GUIDs, the session of a process that died, cleanly: afterwards the file holds every write
// that had returned, durably. `shm` is what that session shared (borrowed; the caller removes it when all is done). Killed
// anywhere, also by a power cut, it can be run again, if `shm` is still there; so it can after NO_SPACE. STATE: the file is not
// as that session left it, somebody else opened it since (nothing was changed). Takes the lock as RP_VHDX_WRITE | flags does.
int rp_vhdx_adopt(struct rp_fs *fs, const char *path, unsigned flags, struct rp_shm *shm, struct rp_error *err);
// Closes without writing anything: what a crash would leave. NULL is fine.
void rp_vhdx_abandon(struct rp_vhdx *vhdx);
RP_DEFINE_CLEANUP(struct rp_vhdx, rp_vhdx_abandon)

// Valid until close; `size`, GUIDs and locator fields follow changes made through this handle.
const struct rp_vhdx_info *rp_vhdx_info(const struct rp_vhdx *vhdx);
const char *rp_vhdx_path(const struct rp_vhdx *vhdx);
int rp_vhdx_identity(struct rp_vhdx *vhdx, struct rp_store_identity *identity, struct rp_error *err);

// Borrows `parent`, which must stay open as long as `child` does or until replaced. Checks linkage (or linkage2)
// against its DataWriteGuid (PARENT_MISMATCH) and sector sizes. A child larger than its parent reads zeros beyond it.
int rp_vhdx_set_parent(struct rp_vhdx *child, struct rp_vhdx *parent, struct rp_error *err);

// Reads through the chain.
int rp_vhdx_read(struct rp_vhdx *vhdx, void *data, uint32_t size, uint64_t offset, struct rp_error *err);
int rp_vhdx_write(struct rp_vhdx *vhdx, const void *data, uint32_t size, uint64_t offset, struct rp_error *err);
// Zero and trim look into the parent to change no more than they must; while none is linked, whatever it could hold
// counts as data.
// The range reads as zeros afterwards, whatever the parent holds. Whole blocks become ZERO (no data is written);
// `*changed` (may be NULL) gets the sub-ranges that did not read as unallocated zeros before.
int rp_vhdx_zero(struct rp_vhdx *vhdx, uint64_t offset, uint64_t length, struct rp_ranges *changed,
                 struct rp_error *err);
// A hint: whole blocks inside the range are unmapped (read as zeros afterwards, in a child too); the rest of the range
// is left as it is. `*changed` gets the blocks that were unmapped now; already unmapped ones are not a change.
int rp_vhdx_trim(struct rp_vhdx *vhdx, uint64_t offset, uint64_t length, struct rp_ranges *changed,
                 struct rp_error *err);
// What rp_vhdx_trim / rp_vhdx_zero would change, without doing it; same rules. To mark a tracker before the change.
int rp_vhdx_trim_preview(struct rp_vhdx *vhdx, uint64_t offset, uint64_t length, struct rp_ranges *changed,
                         struct rp_error *err);
int rp_vhdx_zero_preview(struct rp_vhdx *vhdx, uint64_t offset, uint64_t length, struct rp_ranges *changed,
                         struct rp_error *err);
// Makes everything written before the call durable. Concurrent flushes share the work. A failure is final: later writes
// and flushes fail too. One that a freeze overtakes succeeds: the freeze made it all durable.
int rp_vhdx_flush(struct rp_vhdx *vhdx, struct rp_error *err);
// Whether such a failure has ended the session for good, also one in a write that needed room in the log; `*why` is the first
// one: RP_ERR_IO when what was written may be lost, RP_ERR_STATE when there was no room.
bool rp_vhdx_failed(struct rp_vhdx *vhdx, struct rp_error *why);
// Flushes, writes all metadata in place, clears LogGuid and turns the handle read-only (shared lock).
// The file is then a clean VHDX that others may open to read. Repeating it is fine.
int rp_vhdx_freeze(struct rp_vhdx *vhdx, struct rp_error *err);

enum rp_vhdx_state {
    RP_VHDX_DATA,      // in this file
    RP_VHDX_ZERO,      // reads as zeros, by an explicit state
    RP_VHDX_UNMAPPED,  // never written or trimmed; reads as zeros
    RP_VHDX_IN_PARENT, // differencing disk: ask the parent
};
typedef int rp_vhdx_extent_fn(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state);
// Calls `extent` for consecutive pieces of the range, in order; a non-zero return stops and is returned.
// This file only (IN_PARENT is not followed); neighbours with equal state are joined.
int rp_vhdx_extents(struct rp_vhdx *vhdx, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent, void *context,
                    struct rp_error *err);
// The same through the whole chain: DATA, ZERO or UNMAPPED only.
int rp_vhdx_chain_extents(struct rp_vhdx *vhdx, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent,
                          void *context, struct rp_error *err);

// Grows the virtual disk (never shrinks; INVALID). New space reads as zeros. Durable at return. A differencing disk must have
// been given its parent, which may not be larger than it is now (UNSUPPORTED): its bytes would show in the new space.
int rp_vhdx_grow(struct rp_vhdx *vhdx, uint64_t size, struct rp_error *err);
// What rp_vhdx_grow would refuse for what the disk is, without doing anything: a fixed disk, too, has the size that it has (INVALID).
int rp_vhdx_check_growth(const struct rp_vhdx *vhdx, uint64_t size, struct rp_error *err);
// Rewrites the parent locator in one logged step, durable at return. `linkage2` zero: absent. `path` NULL: unchanged.
int rp_vhdx_set_parent_locator(struct rp_vhdx *vhdx, const struct rp_guid *linkage, const struct rp_guid *linkage2,
                               const char *path, struct rp_error *err);
// Copies everything that `child` itself holds (data, zeros, trims; not what it sees in its parent) into `parent`, which
// is open for writing (and linked to its own parent if it has one); a smaller parent grows. Both may be read meanwhile
// through `child`; when the child is written meanwhile, a merge has to be run again. Not durable before rp_vhdx_flush(parent).
// Where the file system can, whole blocks are shared instead of copied; but of a child with no more data than
// RP_VHDX_MERGE_SMALL all is copied from page cache to page cache, which waits for no disk. Run again after an interruption, it does all of it again.
// `progress` may be NULL; a non-zero return cancels. It counts bytes of data (not zeros and trims), is called for each MiB at
// least, from this thread, and may sleep: the merge then waits, at most a few steps of 2 MiB go on.
#define RP_VHDX_MERGE_SMALL (16 * ((uint64_t)1 << 20))
int rp_vhdx_merge(struct rp_vhdx *child, struct rp_vhdx *parent,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct rp_error *err);
// Makes the file of a disk that was just opened for writing as short as moving blocks can make it, durably
// (DataWriteGuid stays: nobody sees a difference). Where that changed the file, also when it was cancelled or failed,
// the handle is frozen afterwards. A power cut or a kill at any moment leaves a file with the same content. `*before`
// and `*after` get the file's size; `change` false: only those, as they would be, and nothing is written. Cancelled
// by `progress`, it keeps what was moved. STATE: the disk was changed since it was opened.
int rp_vhdx_compact(struct rp_vhdx *vhdx, bool change, uint64_t *before, uint64_t *after,
                    int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct rp_error *err);
// Puts the session's new DataWriteGuid into the header now, durably (a merge needs it known before it copies).
int rp_vhdx_begin_data_change(struct rp_vhdx *vhdx, struct rp_error *err);

#endif
