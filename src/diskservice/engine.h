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
// That folder for a VM whose files are on the machine's file system: malloc'ed. NULL for others, and where none can be had
// (then the log says why).
char *rp_engine_shm_directory(struct rp_fs *fs, const char *vm_directory);
// Whether an engine was killed and left something there, which the next open brings into the files. Also true for one that
// lives and works on them; opening them will tell.
bool rp_engine_left_behind(struct rp_fs *fs, const char *vm_directory);
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
// kept in the chain record). RP_ERR_BUSY while a merge runs: the caller waits for it before it freezes the guest.
// When the preparation fails nothing has changed. When the durability after the switch fails, the guest goes on writing
// into the new leaf, the checkpoint does not exist, and every later flush and checkpoint fails: after a failed sync
// nobody can say what the disk holds, and the record still names the files as they were.
int rp_engine_checkpoint(struct rp_engine *engine, const struct rp_guid *operation, struct rp_engine_checkpoint *result,
                         struct rp_error *err);
void rp_engine_checkpoint_clear(struct rp_engine_checkpoint *result);

// Merges files into their parents: each path is a file of one of the chains with a parent (a leaf or a frozen middle).
// Starts a thread; progress by rp_engine_merge_state. The same operation id again: no second merge, unless it failed.
// Files already merged (no longer in a chain) count as done; RP_ERR_INVALID for a file without a parent.
// RP_ERR_BUSY: another merge is running, or a reader has a file open; nothing has changed then.
// A merge that was interrupted anywhere is run again by asking again, with the same operation id or another.
int rp_engine_merge_start(struct rp_engine *engine, const struct rp_guid *operation, const char *const *paths,
                          size_t count, struct rp_error *err);
enum rp_merge_phase { RP_MERGE_NONE, RP_MERGE_RUNNING, RP_MERGE_DONE, RP_MERGE_FAILED };
struct rp_engine_merge {
    enum rp_merge_phase phase;
    struct rp_guid operation;
    uint64_t done, total; // bytes
    uint64_t pause_ns;
    struct rp_error error; // when FAILED
};
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
