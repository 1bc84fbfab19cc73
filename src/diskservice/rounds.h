// Merging the files of a chain while the guest writes: rounds, and how they come to an end. Inside the engine.
#ifndef RP_DISKSERVICE_ROUNDS_H
#define RP_DISKSERVICE_ROUNDS_H

#include "diskservice/fold.h"

// One merge; belongs to its thread. Starts as zeros but for `engine`.
struct rp_rounds {
    struct rp_engine *engine;
    struct rp_engine_merge_options options; // as they were when the step began
    struct rp_fold_pauses pauses;
    uint64_t merged;          // bytes of the files that are merged
    double speed;             // bytes per second, syncs included; 0: not measured
    double overhead;          // seconds of a round beside the copying; 0: not measured
    uint64_t reader_deadline; // until when a reader is waited for; 0: nobody reads

    // Of the disk whose leaf is being merged:
    struct rp_engine_chain *disk;
    unsigned rounds, slow_rounds;
    uint64_t left;            // what the last round began with
    uint64_t expected;        // what a slowed guest should have left of it
    bool hurry;               // the limit on the merge is no longer kept: it did not keep up
    unsigned pressure;        // how much more the guest is slowed than it should have to be

    // Of the file that is being copied:
    uint64_t own, copied;
    uint64_t started, slept;
};

// Merges disk->layers[index] into its parent, or makes a step on the way there; the caller has the turn and looks again at what
// is left to merge. 0: go on, 1: the same, but the turn was somebody else's for a while, -1: error.
int rp_rounds_step(struct rp_rounds *r, struct rp_engine_chain *disk, size_t index, struct rp_error *err);
// Lets the guest write as fast as it can. After the last step, also a failed one.
void rp_rounds_end(struct rp_rounds *r);

#endif
