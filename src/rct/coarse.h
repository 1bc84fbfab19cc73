// The coarse bitmap of a writing session, written through: a region is set durably before the first change in it.
//
// Generations. When the array has been written, most regions can be let go: a new generation begins (`turn`), with the
// regions preset that were in use; everybody who relied on the one before leaves the gate; the array is written; the one
// before is retired. Both count meanwhile.
#ifndef RP_RCT_COARSE_H
#define RP_RCT_COARSE_H

#include <pthread.h>
#include <stdatomic.h>

#include "io/fs.h"
#include "rct/mrt.h"

typedef _Atomic uint64_t rp_rct_bits; // an array of them

struct rp_rct_generation {
    uint64_t number;
    rp_rct_bits *set;     // durably
    rp_rct_bits *fresh;   // a unit changed in it for the first time in its epoch: would need the region again
    rp_rct_bits *written; // something changed in it
    _Atomic uint64_t count; // of bits in `set`
};

struct rp_rct_coarse {
    pthread_mutex_t lock;
    pthread_cond_t idle;
    bool busy;   // somebody writes to the file, outside the lock
    unsigned takers; // wait for that, and go before the next batch
    uint64_t batches, ended;   // of regions: how many were begun, and how many of them are durable or failed
    pthread_cond_t batched[2]; // the one of this parity ended; or whoever is woken shall write it
    bool failed; // for good: not for want of space
    struct rp_fs *fs;
    char *path;
    struct rp_store *store; // NULL: no session
    struct rp_mrt_header header;
    uint64_t regions;
    struct rp_rct_generation generations[2];
    uint64_t *asked;    // what shall be set in the current one
    uint8_t *dirty;     // sectors in which that is not written yet
    void *memory;       // of all these bitmaps
    _Atomic(struct rp_rct_generation *) current, previous; // NULL: none
};

void rp_rct_coarse_init(struct rp_rct_coarse *c, struct rp_fs *fs, const char *disk_path);
void rp_rct_coarse_free(struct rp_rct_coarse *c);

// Begins an empty bitmap under a new name, durably: whoever relied on an older one there must not need it any more. With the
// regions preset that `like` had written to lately (may be NULL). *begun false, and no error: a file is there that is not
// ours.
int rp_rct_coarse_start(struct rp_rct_coarse *c, uint64_t virtual_size, struct rp_rct_coarse *like, bool *begun,
                        struct rp_error *err);
void rp_rct_coarse_stop(struct rp_rct_coarse *c); // the file stays as it is

// Lock-free. Whether a region is set, durably, in a generation that still counts.
bool rp_rct_coarse_holds(struct rp_rct_coarse *c, uint64_t region);
// Sets [first, last], and what comes next if somebody writes a stream. Nothing to do without a session. Here and below, NO_SPACE
// can be tried again when there is room; any other failure is final.
int rp_rct_coarse_set(struct rp_rct_coarse *c, uint64_t first, uint64_t last, struct rp_error *err);
int rp_rct_coarse_turn(struct rp_rct_coarse *c, struct rp_error *err);
// Everybody who relied on the generation before has left, and the array is durable; so is a tracking header of this sequence.
int rp_rct_coarse_retire(struct rp_rct_coarse *c, uint64_t rct_sequence, struct rp_error *err);
int rp_rct_coarse_grow(struct rp_rct_coarse *c, uint64_t virtual_size, struct rp_error *err);
uint64_t rp_rct_coarse_count(struct rp_rct_coarse *c); // regions that count, at most

// What a crash left: calls `set` for each region that counts. *usable false: missing, not ours, damaged, not the one of that
// name, or it relies on a later tracking file.
int rp_rct_coarse_read(struct rp_rct_coarse *c, const struct rp_guid *name, uint64_t rct_sequence, bool *usable,
                       void (*set)(void *context, uint64_t region), void *context, struct rp_error *err);
// Deletes the file if it is ours, and one that was never finished.
int rp_rct_coarse_remove(struct rp_rct_coarse *c, struct rp_error *err);

static inline bool rp_rct_bit(const rp_rct_bits *bits, uint64_t at)
{
    return atomic_load_explicit(&bits[at / 64], memory_order_acquire) >> at % 64 & 1;
}

// One that is set already costs no write to a shared cache line.
static inline void rp_rct_bit_raise(rp_rct_bits *bits, uint64_t at)
{
    if (!rp_rct_bit(bits, at))
        atomic_fetch_or_explicit(&bits[at / 64], (uint64_t)1 << at % 64, memory_order_relaxed);
}

#endif
