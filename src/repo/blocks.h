// Blocks and nodes by id, read from packs, verified, with the frames and nodes read lately kept. Thread safe.
#ifndef RP_REPO_BLOCKS_H
#define RP_REPO_BLOCKS_H

#include "repo/core.h"

// `refresh`: a block that the index does not know makes it look at the repository again.
struct rp_blocks *rp_blocks_new(struct rp_repo *repo, struct rp_index *index, bool refresh);
void rp_blocks_free(struct rp_blocks *blocks); // NULL is fine
// Copies the block (level 0) or node (level 1 and up) into `out`; its hash is the id. Other copies are tried when one
// is damaged. The error names pack, frame and block.
int rp_blocks_get(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *out,
                  struct rp_error *err);

#endif
