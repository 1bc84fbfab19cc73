// A virtual disk that exists in the mind only: a chain of files with their trackers, handled in the order the engine
// does it, and beside it the truth: for every unit, when it changed last.
#ifndef RP_TESTS_WORLD_H
#define RP_TESTS_WORLD_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/gate.h"
#include "crashfs.h"
#include "rct/rct.h"

enum { WORLD_LAYERS = 6, WORLD_IDS = 48, WORLD_UNITS = 4096, WORLD_REGIONS = 64 };
#define WORLD_UNIT (64 << 10)
#define WORLD_REGION (4 << 20)

// Which regions a power cut may add, by what was asked for: never more than the rules in docs/formats/mrt.md allow.
struct regions {
    bool set[WORLD_REGIONS];
    bool asked[WORLD_REGIONS];                          // since the last flush began
    bool written[WORLD_REGIONS], before[WORLD_REGIONS]; // since then; since the one before that
};

struct layer {
    char path[32];
    struct rp_rct *rct;
    struct rp_rct_disk disk; // as VHDX header and file system would say
    bool shared;
    struct regions regions; // of the session, until it ends
};

struct published {
    struct rp_rct_id id;
    uint32_t time;
};

enum crash {
    KILL,          // a process that shared its trackers: nothing is lost
    KILL_UNSHARED, // one that did not, or nobody adopted it
    POWER_CUT,
};

struct world {
    struct rp_fs *fs;
    struct rp_gate *gate;
    char shm[32];  // folder on tmpfs
    bool share;    // trackers are shared
    pthread_mutex_t records; // what the writers note in `regions`
    pthread_rwlock_t held;   // for reading: a writer who has left the gate to cover still uses the leaf that he saw
    uint64_t seed;
    uint64_t size;
    struct layer layers[WORLD_LAYERS]; // [0] is the leaf
    struct layer given_up; // a leaf that is merged in memory, while no record says so yet
    bool giving_up;
    size_t depth;
    unsigned files;
    uint32_t time; // grows with every seal
    _Atomic uint32_t changed[WORLD_UNITS];
    uint32_t claimed[WORLD_UNITS]; // the time of the last crash that may have added this unit
    struct published ids[WORLD_IDS];
    size_t id_count;
};

void fake_disk_new(struct rp_rct_disk *disk, uint64_t size, const struct rp_guid *disk_id);
struct rp_vhdx_session fake_session(void);
// What a session does to the disk file: new GUIDs, new times.
void fake_disk_written(struct rp_rct_disk *disk, const struct rp_vhdx_session *session);

void world_start(struct world *w, uint64_t seed, uint64_t size);
void world_end(struct world *w);
// 0, or -1 when the file system stopped.
int world_write(struct world *w, uint64_t offset, uint64_t length); // through the gate; thread safe
int world_cover(struct world *w, uint64_t offset, uint64_t length); // its two halves: outside the gate, inside
void world_mark(struct world *w, uint64_t offset, uint64_t length);
int world_write_some(struct world *w, uint64_t *seed, unsigned count);

int world_checkpoint(struct world *w, bool publish);
int world_merge(struct world *w, size_t layer);
int world_flush(struct world *w);
int world_grow(struct world *w, uint64_t size);
int world_reopen(struct world *w); // a clean end, and a new start
// After a stop: everything is closed as the crash leaves it.
void world_fall(struct world *w, enum crash how);
// The next start: what a killed process left is adopted, everything is opened. Can be stopped too.
int world_rise(struct world *w);
void world_crash(struct world *w, enum crash how); // both
// Every id that was published answers: never too little, and nothing but what changed and what a crash may have added.
void world_check(struct world *w);

#endif
