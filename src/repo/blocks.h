// Blocks and nodes by id, read from packs, verified, with the frames and nodes read lately kept. Thread safe.
#ifndef RP_REPO_BLOCKS_H
#define RP_REPO_BLOCKS_H

#include "repo/core.h"

// `refresh`: a block that the index does not know makes it look at the repository again.
struct rp_blocks *rp_blocks_new(struct rp_repo *repo, struct rp_index *index, bool refresh);
void rp_blocks_free(struct rp_blocks *blocks); // NULL is fine
// Looks at the repository again for a block or node that the index does not know, of this `use`: how many places, or -1. Twice,
// with a pause, where the disk did not give what may hold it (rp_index_was_given_all).
int rp_blocks_search(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], enum rp_index_use use,
                   struct rp_location out[RP_INDEX_MAX_COPIES], struct rp_error *err);
// The places of a block or node: how many, or -1. RP_ERR_CORRUPT: it is in no pack. RP_ERR_IO when that cannot be told, because
// packs could not be read. `*looked` (NULL: false): the repository was looked at since a walk began. Once is enough for all of
// a tree, whose packs are older than its point; a walk over one that has lost a pack would look very often.
int rp_blocks_locate(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, bool *looked,
                     struct rp_location out[RP_INDEX_MAX_COPIES], struct rp_error *err);

struct rp_damaged_copy {
    uint32_t pack;
    uint16_t frame;
    bool not_given; // by the disk; else its bytes came, and are wrong
};
struct rp_attempt {
    bool *looked; // see above; for several calls, from any threads
    // Filled: the copies that were tried and found damaged.
    struct rp_damaged_copy damaged[RP_INDEX_MAX_COPIES];
    unsigned damaged_count;
};
// Copies the block (level 0) or node (level 1 and up) into `out`; its hash is the id. Other copies are tried when one
// cannot be read. The error names pack, frame and block; it is damage only when no copy failed in a way that may pass.
// `attempt` may be NULL. A frame that was found damaged is not read again while it is remembered.
int rp_blocks_get(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *out,
                  struct rp_attempt *attempt, struct rp_error *err);
// Likewise, for whoever passes over what is lost: an error that rp_damage_is stayed one when it was read again after a while
// (rp_damage_stays), once for each frame. While very many are lost not each of them is waited for.
int rp_blocks_get_patiently(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *out, bool *looked,
                            struct rp_error *err);
// Frames that were found damaged are read again when they are asked for: some may be better by now.
void rp_blocks_forget_damage(struct rp_blocks *blocks);

#endif
