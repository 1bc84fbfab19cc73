// Stores blocks: new ones are gathered into frames, frames into packs, packs written by threads in the background.
#ifndef RP_REPO_PACKER_H
#define RP_REPO_PACKER_H

#include "repo/core.h"

struct rp_packer;
struct rp_packer *rp_packer_new(struct rp_repo *repo);
// Waits for the writes under way; what is not written yet is dropped.
void rp_packer_free(struct rp_packer *packer); // NULL is fine

// Stores one block (level 0) or node, unless it is known, and gives its id. Thread safe; compression and encryption run
// on the calling thread. After a failure of any write, every call fails with that error.
int rp_packer_put(struct rp_packer *packer, struct rp_scratch *scratch, unsigned level, const uint8_t *data,
                  uint8_t id[RP_ID_BYTES], struct rp_error *err);
// Everything put before is durable at return.
int rp_packer_flush(struct rp_packer *packer, struct rp_error *err);
// Gives up: every later call fails, nothing more is written.
// `*ids`, the packer's own: the `*count` packs that it put or tried to put.
void rp_packer_stop(struct rp_packer *packer, const uint8_t (**ids)[RP_PACK_ID], size_t *count);
void rp_packer_stats(struct rp_packer *packer, struct rp_repo_stats *stats);
// Calls `each` for every pack that what was put relies on, written here or before. Non-zero stops and is returned.
int rp_packer_used(struct rp_packer *packer, int (*each)(void *context, uint32_t number), void *context);

#endif
