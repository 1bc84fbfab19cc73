// Cuts the power at many points of a recorded life, and looks at what is left.
#ifndef RP_TESTS_SOAK_CUTS_H
#define RP_TESTS_SOAK_CUTS_H

#include "../record/tree.h"
#include "oracle.h"
#include "scenario.h"

#define ALL_BOUNDARIES UINT32_MAX
struct cuts {
    const struct setting *setting;
    const struct log *log;
    uint64_t seed;
    unsigned boundaries;  // so many moments before or after the end of a sync (ALL_BOUNDARIES: each), both SYNCED and ALL…
    unsigned samples;     // …and so many random cuts
    unsigned full_every;  // one in so many is looked at in full
    // Replay of one cut only; and what is to be forgotten (tree_forget_syncs).
    const struct cut *only;
    bool only_full;
    uint64_t forget;
    const char *forget_suffix;
    bool keep_times;      // tree_keep_times
    bool keep_going;      // count failures instead of stopping at the first
    unsigned failures;
};

// NULL, or what was wrong and how to see it again (static). Moves the recorded folder away.
const char *cuts_run(struct cuts *cuts, struct counts *counts);

#endif
