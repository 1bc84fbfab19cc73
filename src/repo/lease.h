// Leases: who is at work. A lease is a folder of numbered generations; the object with the highest number is what
// counts, and whoever puts the next number first has it. docs/formats/repository.md, "Leases".
#ifndef RP_REPO_LEASE_H
#define RP_REPO_LEASE_H

#include <jansson.h>

#include "repo/core.h"

#define RP_LEASE_SECONDS 120
#define RP_LEASE_RENEW_SECONDS 30
#define RP_LEASE_GRACE_SECONDS 60 // for clocks that differ

// One generation, as stored. Texts are owned.
struct rp_lease_state {
    bool held;         // else: released, or taken away
    char *owner, *host;
    char *machine;     // boot and process namespace: within one, a process id means something
    uint64_t pid, pid_started;
    int64_t since_ns, renewed_ns;
    uint64_t seconds;
    uint8_t token[16]; // same in every generation of one holder
};
int rp_lease_decode(const void *json, size_t size, const char *name, struct rp_lease_state *state,
                    struct rp_error *err);
void rp_lease_state_clear(struct rp_lease_state *state);
// True when the holder is dead for certain: it was a process of this machine.
bool rp_lease_is_dead(const struct rp_lease_state *state);
// True when the holder is dead, or has given it up, or the lease has run out by our clock.
bool rp_lease_is_stale(const struct rp_lease_state *state);

struct rp_lease;
// `folder`: "locks/…" or "sessions/…". `fields` (NULL: none) are put into every generation.
// RP_ERR_BUSY names the holder.
struct rp_lease *rp_lease_take(struct rp_repo *repo, const char *folder, const char *owner, json_t *fields,
                               struct rp_error *err);
// Puts the next generation now. RP_ERR_STATE when somebody else did.
int rp_lease_renew(struct rp_lease *lease, struct rp_error *err);
bool rp_lease_held(struct rp_lease *lease);
// Ends it. `forget`: nobody else ever takes this folder; its objects are removed.
void rp_lease_release(struct rp_lease *lease, bool forget); // NULL is fine

#endif
