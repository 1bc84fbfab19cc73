// The folder of a lease: its numbered generations, of which the highest one counts.
#ifndef RP_REPO_LEASE_NUMBERS_H
#define RP_REPO_LEASE_NUMBERS_H

#include "repo/lease.h"
#include "repo/object.h"

struct rp_lease_numbers {
    const char *folder;
    uint64_t highest;    // 0: there is none
    uint64_t others[64]; // some lower ones, to be removed
    size_t other_count;
};
// Those that are there. RP_ERR_CORRUPT: the highest one has no next.
int rp_lease_list(struct rp_repo *repo, const char *folder, struct rp_lease_numbers *seen, struct rp_error *err);
const char *rp_lease_number_name(const char *folder, uint64_t generation, char out[RP_OBJECT_NAME]);
// Of those that were seen, all but the last two: a listing that runs while the next one is put must see one of them.
void rp_lease_remove_old(struct rp_repo *repo, const struct rp_lease_numbers *seen, uint64_t newest);
// What one says.
int rp_lease_get(struct rp_repo *repo, const char *folder, uint64_t generation, struct rp_lease_state *state,
                 struct rp_error *err);

#endif
