// The open disks of one VM: differencing chains with their trackers behind one gate. The nbdkit plugin is a thin skin over
// it; tests drive it from threads; the host uses it in-process while the VM is off.
//
// The VM's folder holds the chain record (which names the leaf of every disk), the lock, the control socket and the NBD
// socket. Nobody passes leaf paths in.
//
// All functions are thread safe except open and close. Offsets and lengths are multiples of the logical sector.
#ifndef RP_DISKSERVICE_ENGINE_H
#define RP_DISKSERVICE_ENGINE_H

#include "base/ranges.h"
#include "disk/vhdx.h"
#include "io/fs.h"
#include "rct/rct.h"

struct rp_engine;

#define RP_ENGINE_MAX_DISKS 64
#define RP_ENGINE_LOCK "vm.lock" // in the VM's folder: held exclusively by whoever has the disks open

// Opens every disk of the chain record for writing. RP_ERR_BUSY when another service or engine has the VM.
// `shm_directory` (io/shm.h): where what is not in the files yet is kept from now on, so that a mere kill loses nothing that
// was acknowledged; what a killed service left there is first brought into the files. NULL: a kill counts like a power cut.
struct rp_engine *rp_engine_open(struct rp_fs *fs, const char *vm_directory, const char *shm_directory, struct rp_error *err);
// The name of that folder for a VM whose files are on the machine's file system: malloc'ed. NULL for others, and where there
// can be none (then the log says why). rp_engine_open makes it.
char *rp_engine_shm_directory(struct rp_fs *fs, const char *vm_directory);
// Whether the last engine of these disks closed all of them, as its lock file says; also when there was none.
bool rp_engine_ended(struct rp_fs *fs, const char *vm_directory);
// Whether an engine was killed and left something there, which the next open brings into the files. Also true for one that
// lives and works on them; opening them will tell.
bool rp_engine_left_behind(struct rp_fs *fs, const char *vm_directory);
// Deletes what a killed engine left there: for who deletes the VM, before its folder.
void rp_engine_forget(struct rp_fs *fs, const char *vm_directory);
// For who is about to close it while others still use it: what takes long, a merge or waiting for room, ends soon, in failure.
void rp_engine_cancel(struct rp_engine *engine);
// Clean end: flush, close logs, tracking files clean. Frees in every case; -1 tells what could not be made durable.
int rp_engine_close(struct rp_engine *engine, struct rp_error *err);
// What a crash would leave. For tests.
void rp_engine_abandon(struct rp_engine *engine);

struct rp_engine_disk {
    char name[32];          // export name: "disk0"
    struct rp_guid disk_id; // Virtual Disk ID
    uint64_t size;
    uint32_t logical_sector, physical_sector, block_size;
    char *leaf_path;        // owned by the caller after rp_engine_disk
    enum rp_rct_verdict verdict; // what opening found
    bool tracked;           // false: a foreign tracking file is in the way
};
size_t rp_engine_disk_count(const struct rp_engine *engine);
// Copies the facts of disk `index`; free leaf_path.
void rp_engine_disk(struct rp_engine *engine, size_t index, struct rp_engine_disk *disk);
int rp_engine_find_disk(struct rp_engine *engine, const char *name); // index, or -1
uint64_t rp_engine_generation(struct rp_engine *engine);             // of the chain record

int rp_engine_read(struct rp_engine *engine, size_t disk, void *data, uint32_t size, uint64_t offset, struct rp_error *err);
// `fua`: durable before return.
int rp_engine_write(struct rp_engine *engine, size_t disk, const void *data, uint32_t size, uint64_t offset, bool fua,
                    struct rp_error *err);
int rp_engine_zero(struct rp_engine *engine, size_t disk, uint64_t offset, uint64_t length, bool fua, struct rp_error *err);
int rp_engine_trim(struct rp_engine *engine, size_t disk, uint64_t offset, uint64_t length, bool fua, struct rp_error *err);
// Durable: every write acknowledged before the call, through whichever files of the chain it went, and the chain record.
int rp_engine_flush(struct rp_engine *engine, size_t disk, struct rp_error *err);
int rp_engine_extents(struct rp_engine *engine, size_t disk, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent,
                      void *context, struct rp_error *err);

// What a checkpoint made of one disk.
struct rp_engine_frozen {
    struct rp_guid disk_id;
    char *path;             // the file that is frozen now
    char *leaf_path;        // the new leaf above it
    bool tracked;           // has an id (a disk with tracking off has none)
    struct rp_rct_id id;
};
struct rp_engine_checkpoint {
    struct rp_guid operation;
    size_t count;
    struct rp_engine_frozen disks[RP_ENGINE_MAX_DISKS];
    uint64_t pause_ns;      // how long the gate was closed
};
// Freezes all disks of the VM at one instant. At return everything read through the frozen paths, the ids and the chain
// record are durable. The same operation id again returns the same result without another checkpoint (the last one is
// kept in the chain record). While a merge runs it waits for a moment at which the merge can be left alone (between files, not
// between the rounds of one), for a while: then RP_ERR_BUSY says how far the merge is. RP_ERR_BUSY at once when a merge was
// interrupted between rounds: it must be finished first.
// When the preparation fails (NO_SPACE: it looked for room first) nothing has changed. When there is no room for what comes after
// the switch, that is tried again for five minutes, in which flushes fail with NO_SPACE. When the durability after the switch
// fails, always with RP_ERR_IO, the guest goes on writing into the new leaf and every later flush and checkpoint fails: the
// record still names the files as they were. The next open of the disks decides whether the checkpoint exists: if only the
// record could not be written, it finishes the switch; after a failed sync of a disk nobody can say what that holds, and it
// does not.
//
// `switched` (may be NULL) is called once, in this thread, as soon as the pause is over and before anything of it is durable: the
// moment that the checkpoint holds has passed, and who froze the guest for it lets it go. Not called when the checkpoint fails before
// that; at once for one that had happened already. It must return soon and must not use the engine: while it runs, a guest's
// flush waits for the durability that comes after it. Whoever lets the guest go from another thread or process may take his time: the
// durability waits for nobody, so a thaw that flushes (ext4 writes its superblock) gets its answer.
typedef void rp_engine_switched_fn(void *context);
int rp_engine_checkpoint_tell(struct rp_engine *engine, const struct rp_guid *operation, rp_engine_switched_fn *switched, void *context,
                              struct rp_engine_checkpoint *result, struct rp_error *err);
static inline int rp_engine_checkpoint(struct rp_engine *engine, const struct rp_guid *operation, struct rp_engine_checkpoint *result,
                                       struct rp_error *err)
{
    return rp_engine_checkpoint_tell(engine, operation, NULL, NULL, result, err);
}
void rp_engine_checkpoint_clear(struct rp_engine_checkpoint *result);

// Merges files into their parents: each path is a file of one of the chains with a parent (a leaf or a frozen middle).
// Starts a thread; progress by rp_engine_merge_state. The same operation id again: no second merge, unless it failed.
// Files already merged (no longer in a chain) count as done; RP_ERR_INVALID for a file without a parent. RP_ERR_BUSY: another
// merge is running. A merge that was interrupted anywhere is run again by asking again, with the same operation id or another.
//
// The guest goes on meanwhile. A leaf is first frozen under a fresh one, which takes what the guest writes and is merged
// in the next round; after at most RP_MERGE_ROUNDS rounds the guest's writes are slowed down below the speed of the merge,
// until what is left can be merged in one short pause. A file that somebody reads (a shared lock) is waited for, for a while;
// then the merge fails with RP_ERR_BUSY, which names the file and, if it can be found, the process.
#define RP_MERGE_ROUNDS 3
// After so many more, with a slowed guest, the pause comes whatever its length.
#define RP_MERGE_SLOW_ROUNDS 12
int rp_engine_merge_start(struct rp_engine *engine, const struct rp_guid *operation, const char *const *paths,
                          size_t count, struct rp_error *err);
enum rp_merge_phase { RP_MERGE_NONE, RP_MERGE_RUNNING, RP_MERGE_DONE, RP_MERGE_FAILED };
enum rp_merge_step {
    RP_MERGE_COPYING,
    RP_MERGE_WAITING, // for a reader
    RP_MERGE_SLOWING, // copying, the guest's writes are slowed down
    RP_MERGE_PAUSING, // before, in and after the one pause in which what is left is copied
};
struct rp_engine_merge {
    enum rp_merge_phase phase;
    struct rp_guid operation;
    enum rp_merge_step step; // while RUNNING
    unsigned round;          // of the disk that is being merged: leaves that were put on top so far
    uint64_t done, total;    // bytes; the total grows with what the guest writes meanwhile
    uint64_t rate;           // bytes per second, of the file that is being copied
    uint64_t guest_rate;     // bytes per second that the guest may write; 0: as fast as it can
    uint64_t pause_ns, longest_pause_ns; // how long the guest waited, altogether and at most
    struct rp_error waiting; // while WAITING: who has which file
    struct rp_error error;   // when FAILED
};
struct rp_engine_merge_options {
    uint64_t rate;          // bytes per second, as long as the guest is not slowed down; 0: as fast as it goes
    unsigned pause_ms;      // the longest pause that is aimed at; 0: 50. UINT_MAX: nobody writes, a leaf is merged in one go
    unsigned reader_ms;     // how long a file that somebody reads is waited for; 0: 10 s
    unsigned checkpoint_ms; // how long a checkpoint waits for a merge; 0: 2 s
};
// For this merge and those to come.
void rp_engine_set_merge_options(struct rp_engine *engine, const struct rp_engine_merge_options *options);
void rp_engine_merge_state(struct rp_engine *engine, struct rp_engine_merge *state);
int rp_engine_merge_wait(struct rp_engine *engine, struct rp_error *err); // until done; the merge's own error

// Changes since `id` seen through `path`, a file of one of the chains: the live leaf or a frozen file.
int rp_engine_changes(struct rp_engine *engine, const char *path, const struct rp_rct_id *id, uint64_t offset,
                      uint64_t length, struct rp_ranges *changed, struct rp_error *err);
// At most `limit` ranges of that, those up to offset + *processed; `*processed` is at least 1 and at most `length` (0 only when
// that is 0). Asking on from there costs as much as asking for all at once.
int rp_engine_changes_page(struct rp_engine *engine, const char *path, const struct rp_rct_id *id, uint64_t offset,
                           uint64_t length, size_t limit, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err);
// The same for a frozen file when no engine has the VM open; opens the files read-only.
int rp_changes_at_rest(struct rp_fs *fs, const char *path, const struct rp_rct_id *id, uint64_t offset, uint64_t length,
                       struct rp_ranges *changed, struct rp_error *err);
// Only while no NBD client is connected (NBD has no resize): the leaf grows, ids stay valid.
int rp_engine_grow(struct rp_engine *engine, size_t disk, uint64_t size, struct rp_error *err);

#endif
