// Moves ranges of several disks with a few threads: the engine under backup and restore. It takes pieces in order, keeps
// to a rate, shows progress and stops when asked or at the first failure.
#ifndef RP_BACKUP_TRANSFER_H
#define RP_BACKUP_TRANSFER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/ranges.h"

#define RP_TRANSFER_PIECE (1u << 20) // the largest piece, and the size of each thread's buffer

struct rp_transfer_part {
    const struct rp_ranges *ranges; // ascending; borrowed. Cut at multiples of 64 KiB from the start of each
    void *disk;                     // passed to `read` and `store`
};
struct rp_transfer {
    struct rp_transfer_part *parts;
    size_t part_count;
    // Instead of parts, whoever knows a better order gives out the jobs: `next` one at a time (1 there is one, 0 none any
    // more, -1 failed), with the bytes that it moves; `run` does one, on several threads. Every job given out is run.
    int (*next)(void *context, void **job, uint64_t *bytes, struct rp_error *err);
    int (*run)(void *context, void *job, struct rp_error *err);
    void *jobs;        // their context
    uint64_t total;    // bytes of all jobs, for progress
    unsigned threads;  // that store, or run jobs, at a time; 0: one per CPU, 2 to 4, and a few more to run jobs
    uint64_t rate;     // bytes per second in all; 0: no limit
    // Moves one piece, at most RP_TRANSFER_PIECE long; `buffer` has that size. Called from several threads: a few more read
    // than `threads`, so that those have something to store while the disk is waited for.
    int (*read)(void *disk, uint64_t offset, uint32_t length, void *buffer, struct rp_error *err);
    int (*store)(void *disk, uint64_t offset, uint32_t length, const void *buffer, struct rp_error *err);
    // From the calling thread, ten times a second; non-zero cancels. NULL is fine.
    int (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
};

// Returns when every piece was moved or, after a failure, when all threads have ended. RP_ERR_CANCELLED when stopped.
int rp_transfer_run(const struct rp_transfer *transfer, struct rp_error *err);

#endif
