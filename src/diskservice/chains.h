// Inside the engine: the chains of open files and who may touch them. Not for users of the engine.
//
// Locks, in the order they are taken:
//   turn   one checkpoint, merge or growth at a time (rp_engine_begin / rp_engine_end); its holder owns `record`
//   flushing  while the tracker of a leaf is written in the background, and during a pause: no pause waits for that writing
//   chains the arrays of layers and the trackers in them, for everybody who is not inside the gate
//   gate   the arrays of layers and the leaf's tracker, for guest I/O: it may read them inside, they change when closed
//   state  the small fields at the end
#ifndef RP_DISKSERVICE_CHAINS_H
#define RP_DISKSERVICE_CHAINS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/gate.h"
#include "disk/chain.h"
#include "diskservice/engine.h"
#include "diskservice/record.h"
#include "diskservice/throttle.h"

// One open file of a chain. A flush holds a reference while it syncs outside the gate.
struct rp_layer {
    char *path;
    struct rp_vhdx *vhdx;
    struct rp_rct *rct;   // of a frozen file: opened at the first question
    bool rct_unusable;    // no tracking file, or none that can be trusted
    bool broken;          // after a failed write nobody knows what the file says: nothing is built on it in this session
    bool disk_shared, tracking_shared; // what is not in the files yet is in shared memory
    struct rp_store *lock; // held here, so that the file can be reopened without letting go of it
    atomic_uint references;
};

struct rp_engine_chain {
    uint32_t number;
    struct rp_guid disk_id;
    enum rp_rct_verdict verdict;
    bool live; // the last layer is the leaf; false while opening
    size_t depth;
    struct rp_layer *layers[RP_CHAIN_MAX_DEPTH]; // root first; the leaf is the last
    struct rp_throttle *throttle; // of the guest's writes, while a merge could not keep up with them
    struct rp_engine_disk facts; // under `state`, so that who only asks never waits for a merge
};

enum rp_engine_turn { RP_TURN_FREE, RP_TURN_CHECKPOINT, RP_TURN_MERGE, RP_TURN_GROW };

struct rp_engine {
    struct rp_fs *fs;
    char *directory;
    char *shm_directory;   // NULL: none
    struct rp_store *lock; // RP_ENGINE_LOCK
    bool opened;           // all of it
    struct rp_shm *announcement; // switch.h; NULL: none
    bool prepared;               // there is something in it to announce
    struct rp_flusher *flusher;
    _Atomic uint64_t room_told_ns; // when somebody was last told that there is no space
    struct rp_gate *gate;
    pthread_mutex_t flushing;
    pthread_mutex_t chains;
    size_t count;
    struct rp_engine_chain disks[RP_ENGINE_MAX_DISKS];
    struct rp_record record;

    // A switch to new leaves is announced inside the pause and settled when the record is durable; a flush that saw it
    // announced waits until then.
    atomic_ulong announced, settled;

    pthread_mutex_t state;
    pthread_cond_t changed;
    enum rp_engine_turn turn;
    unsigned waiting;         // checkpoints and growths that would like to have the turn of a merge
    bool failed;              // durability after a switch is lost: `failure` says why
    struct rp_error failure;
    struct rp_error no_room;  // what keeps a switch from being settled, for now
    struct rp_error sync_failure; // the first sync that failed, of a disk or its tracking: so do flushes from then on
    uint64_t generation;      // of the record, for everybody
    struct rp_engine_merge merge;
    struct rp_engine_merge_options merge_options;
    atomic_bool cancel;       // closing: the merge stops at the next step, and nobody waits for room
    struct rp_throttle *merge_throttle;
    bool merge_thread_started;
    pthread_t merge_thread;
    char **merge_paths;
    size_t merge_count;
};

static inline struct rp_layer *rp_chain_leaf(const struct rp_engine_chain *disk) { return disk->layers[disk->depth - 1]; }

// layer.c
// Opens a parent read-only under a shared lock.
struct rp_layer *rp_layer_open_frozen(struct rp_fs *fs, const char *path, struct rp_error *err);
// An empty layer that holds the exclusive lock of an existing file.
struct rp_layer *rp_layer_lock_leaf(struct rp_fs *fs, const char *path, struct rp_error *err);
void rp_layer_hold(struct rp_layer *layer);
void rp_layer_release(struct rp_layer *layer); // the last one closes it without writing; NULL is fine
// What is bound to a tracking file, of a layer that is open / of a file whose lock we hold.
int rp_layer_state(struct rp_layer *layer, struct rp_rct_disk *disk, struct rp_error *err);
int rp_layer_state_at_rest(struct rp_fs *fs, const char *path, struct rp_rct_disk *disk, struct rp_error *err);
// The tracker of a frozen layer, opened (after a crash: repaired) when needed; NULL when there is none. Under `chains`.
struct rp_rct *rp_layer_tracker(struct rp_fs *fs, struct rp_layer *layer);
// When the disks are opened: what a crash left of it half done, in the middle of a merge, is brought to its end, also for who asks
// later, when nobody has them open (rp_changes_at_rest). What fails now is tried again when it is needed.
void rp_layer_finish_tracking(struct rp_fs *fs, struct rp_layer *layer);
// Freezes the VHDX, then binds its tracker (if any) to the frozen file.
int rp_layer_freeze(struct rp_layer *layer, struct rp_error *err);

// adopt.c
// Makes the folder for shared memory, and uses it from now on; without one it says so in the log. Under the lock of the VM. What
// killed engines of VMs that were deleted since have left beside it goes.
void rp_engine_make_shm(struct rp_engine *engine, const char *directory);
// Keeps what a layer that is open for writing has not written yet in shared memory: its disk from rp_vhdx_open on, its
// tracker from rp_rct_open_write, rp_rct_prepare_child or rp_rct_prepare_merge on, before the first change. Whichever is there
// and not shared yet; beside a disk that cannot be shared, no tracker either, for what it says of a merge would not be true of
// that disk. Without shared memory it says so in the log, and a kill counts like a power cut.
void rp_layer_share(struct rp_engine *engine, struct rp_layer *layer);
// As rp_layer_release, of a file that is about to be deleted: what it has in shared memory goes too.
void rp_layer_discard(struct rp_engine *engine, struct rp_layer *layer);
// Brings into the files what a killed engine left. The record has been read, nothing is open.
int rp_engine_adopt(struct rp_engine *engine, struct rp_error *err);
// A sync failed (any other error is ignored): said once, and remembered until the machine starts anew or the disks were opened
// again, then without what was in memory only.
void rp_engine_sync_failed(struct rp_engine *engine, const struct rp_error *why);
// After an error that may be less than that (a read that failed): notes what has ended the session of a disk or of its
// tracking, if something has. NULL is fine.
void rp_engine_session_failed(struct rp_engine *engine, struct rp_vhdx *vhdx, struct rp_rct *rct);

// flusher.c
// The background thread that writes the trackers of the leaves now and then.
void rp_flusher_start(struct rp_engine *engine);
void rp_flusher_stop(struct rp_engine *engine); // at once, but for a write that is under way
// What the thread does every second. `now_ns`: monotonic.
void rp_flusher_look(struct rp_engine *engine, uint64_t now_ns);

// room.c
// Whether fresh leaves on these disks, and what it takes to freeze the leaves of now, will find room. NO_SPACE says what to do.
int rp_room_for_leaves(struct rp_engine *engine, struct rp_engine_chain *const *disks, size_t count, struct rp_error *err);
// A request of the guest found no space: says so, once in a while.
void rp_room_missing(struct rp_engine *engine, size_t disk);

// engine.c
// A pause: takes `flushing` and `chains`, then closes the gate: guest I/O is out, the leaves may be exchanged. Returns when it
// closed; resume returns how many nanoseconds the guest waited.
uint64_t rp_engine_pause(struct rp_engine *engine);
uint64_t rp_engine_resume(struct rp_engine *engine, uint64_t paused_at);
int rp_engine_begin(struct rp_engine *engine, enum rp_engine_turn turn, struct rp_error *err); // BUSY during a merge
void rp_engine_end(struct rp_engine *engine);
// A merge lets those who wait have its turn, and takes it again.
void rp_engine_yield(struct rp_engine *engine);
// Whether somebody waits for its turn, and this is a moment at which he can have it.
bool rp_engine_awaited(struct rp_engine *engine);
int rp_engine_write_record(struct rp_engine *engine, struct rp_error *err);
// Takes from the record's lists what they need not say any more: leftovers that are gone or have become part of a chain,
// files to be merged that are in no chain.
int rp_engine_prune_record(struct rp_engine *engine, struct rp_error *err);
// Whether leaves that a merge has put on top are still in the chains.
bool rp_engine_half_merged(struct rp_engine *engine);
// Brings the facts of a disk up to date. By the holder of the turn.
void rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk);
// The error of a lost switch, if there was one.
int rp_engine_check(struct rp_engine *engine, struct rp_error *err);
void rp_engine_fail(struct rp_engine *engine, const struct rp_error *why);
// The end of a switch that was announced: makes it durable by `settle`, which is repeated for some minutes while it finds no
// room (flushes fail with that meanwhile), and lets flushes of the new leaves pass. A failure, RP_ERR_IO, cannot be undone: rp_engine_fail.
int rp_engine_settle(struct rp_engine *engine, const struct rp_engine_chain *disk, unsigned long announced,
                     int (*settle)(void *context, struct rp_error *err), void *context, struct rp_error *err);
// Under `chains`: where the file stands; false: in no chain.
bool rp_engine_find_layer(struct rp_engine *engine, const char *path, size_t *disk, size_t *layer);

// checkpoint.c
// Freezes the leaf of a disk under a fresh one, which the record lists as to be merged down too: for merge.c, which has the
// turn. No id is published.
int rp_engine_put_leaf(struct rp_engine *engine, struct rp_engine_chain *disk, uint64_t *pause_ns, struct rp_error *err);

// leftover.c
// Deletes the files that the record lists as scratch and that are in no chain. When the record lost one of its slots they may
// be more than scratch: then they are renamed to "<name>.lost".
void rp_engine_sweep(struct rp_engine *engine);

// merge.c
void rp_engine_stop_merge(struct rp_engine *engine);

#endif
