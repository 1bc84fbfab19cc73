// One recorded life of a VM: made, written to, backed up, frozen, merged, grown, stopped, killed; everything under the
// recorder, chosen by a seed.
#ifndef RP_TESTS_SOAK_SCENARIO_H
#define RP_TESTS_SOAK_SCENARIO_H

#include <stdbool.h>

#include "../record/log.h"

struct setting {
    const char *refpoint, *plugin, *recorder, *shim, *self; // programs and libraries; recorder NULL: no process is recorded
    const char *directory; // holds root/ (what is recorded), log, times, cache/ and images
    uint64_t seed;
    unsigned steps;        // of the scenario
    bool kills;            // processes are killed at random moments and at chosen calls
    bool faults;           // with `kills`: rather than that, calls fail
    const char *every;     // JOB:WHERE: instead of steps, this job killed at every stride-th call (see main.c)
    unsigned stride, first, count; // which calls; 0: every one, from a random one on, to the end
    unsigned pace;         // of each client, between two requests, us; 0: as ever
    bool verbose;
};
struct counts {
    uint64_t requests, bytes, flushes, reads;
    uint64_t backups, checkpoints, merges, restores, grows, restarts, kills, kills_at_call, faults, cuts, full_cuts, entries, syncs;
};

// Fills `log` (which stays open). NULL, or what was wrong (static).
const char *scenario_run(const struct setting *setting, struct log *log, struct counts *counts);

#define PASSPHRASE "open sesame"

#endif
