// A power cut at its worst: of the writes that were not flushed, any subset survives, sector by sector, in any order of
// arrival. (rp_fs_memory_cut loses all of them, the one case that never shows a missing barrier.)
#ifndef TESTS_DISK_TORN_H
#define TESTS_DISK_TORN_H

#include "io/fs.h"

struct rp_fs *torn_fs_new(void);
// Cuts the power. Open stores fail from now on. `keep` of 0 to 256: how likely each write survives.
void torn_fs_cut(struct rp_fs *fs, uint64_t *random, unsigned keep);
// After this many more writes, truncations and syncs every further one fails, as if the machine had stopped: then cut.
void torn_fs_stop_after(struct rp_fs *fs, unsigned long changes);
// The machine goes on, and nothing is lost: as if only the process had stopped.
void torn_fs_kill(struct rp_fs *fs);
unsigned long torn_fs_syncs(struct rp_fs *fs);
unsigned long torn_fs_calls(struct rp_fs *fs); // every call that reads or changes a store
void torn_fs_fail_flush(struct rp_fs *fs, unsigned after); // the flush after `after` more fails; 0: none
// Calls `act` at every sync, before it takes effect: what somebody else does meanwhile. NULL: nothing.
void torn_fs_at_flush(struct rp_fs *fs, void (*act)(void *context), void *context);
void torn_fs_share(struct rp_fs *fs); // from now on blocks can be shared
void torn_fs_free(struct rp_fs *fs);

// splitmix64
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}
static inline uint64_t random_below(uint64_t *state, uint64_t limit) { return next_random(state) % limit; }

// RP_TEST_SEED, or a new one; printed, so that a failure can be replayed.
uint64_t test_seed(void);

#endif
