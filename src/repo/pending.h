// The ids of blocks that are on their way into a pack: a set with removal. Not thread safe.
// Small: what is in memory only.
#ifndef RP_REPO_PENDING_H
#define RP_REPO_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repo/segment.h"

struct rp_pending {
    uint8_t (*slots)[RP_PREFIX_BYTES]; // all zero: empty
    size_t capacity, count;
};
// False when it is in the set already.
bool rp_pending_add(struct rp_pending *pending, const uint8_t *id);
bool rp_pending_has(const struct rp_pending *pending, const uint8_t *id);
void rp_pending_remove(struct rp_pending *pending, const uint8_t *id);
void rp_pending_clear(struct rp_pending *pending);

#endif
