// A virtual disk that exists in the mind only: a chain of files with their trackers, handled in the order the engine
// does it, and beside it the truth: for every unit, when it changed last.
#ifndef RP_TESTS_WORLD_H
#define RP_TESTS_WORLD_H

#include <stdatomic.h>

#include "base/gate.h"
#include "crashfs.h"
#include "rct/rct.h"

enum { WORLD_LAYERS = 6, WORLD_IDS = 48, WORLD_UNITS = 4096 };
#define WORLD_UNIT (64 << 10)

struct layer {
    char path[32];
    struct rp_rct *rct;
    struct rp_rct_disk disk; // as VHDX header and file system would say
};

struct published {
    struct rp_rct_id id;
    uint32_t time;
    bool exact; // no crash since
};

struct world {
    struct rp_fs *fs;
    struct rp_gate *gate;
    uint64_t seed;
    uint64_t size;
    struct layer layers[WORLD_LAYERS]; // [0] is the leaf
    size_t depth;
    unsigned files;
    uint32_t time; // grows with every seal
    _Atomic uint32_t changed[WORLD_UNITS];
    struct published ids[WORLD_IDS];
    size_t id_count;
};

void fake_disk_new(struct rp_rct_disk *disk, uint64_t size, const struct rp_guid *disk_id);
struct rp_vhdx_session fake_session(void);
// What a session does to the disk file: new GUIDs, new times.
void fake_disk_written(struct rp_rct_disk *disk, const struct rp_vhdx_session *session);

void world_start(struct world *w, uint64_t seed, uint64_t size);
void world_end(struct world *w);
void world_write(struct world *w, uint64_t offset, uint64_t length); // through the gate; thread safe
void world_write_some(struct world *w, uint64_t *seed, unsigned count);

// 0, or -1 when the file system stopped.
int world_checkpoint(struct world *w, bool publish);
int world_merge(struct world *w, size_t layer);
int world_grow(struct world *w, uint64_t size);
int world_reopen(struct world *w); // a clean end, and a new start
// After a stop: the next start must come up, with whatever is lost.
void world_crash(struct world *w, bool power_cut);
// Every id that was published answers: exactly where no crash came between, and never too little.
void world_check(struct world *w);

#endif
