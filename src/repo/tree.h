// The shape of a disk's tree, and walks over it. docs/formats/repository.md, "Trees".
#ifndef RP_REPO_TREE_H
#define RP_REPO_TREE_H

#include <stdint.h>

#include "base/num.h"
#include "repo/index.h"
#include "repo/pack.h"
#include "repo/repo.h"

#define RP_DISK_MAX_SIZE ((uint64_t)1 << 50)

static inline uint64_t rp_tree_blocks(uint64_t size) { return rp_div_up(size, RP_REPO_BLOCK); }
// Blocks below a node of this level.
static inline uint64_t rp_tree_span(unsigned level) { return (uint64_t)1 << (8 * level); }
// The level of the top node: the smallest, at least 1, whose span holds the disk.
static inline unsigned rp_tree_levels(uint64_t size)
{
    unsigned level = 1;
    while (rp_tree_span(level) < rp_tree_blocks(size))
        level++;
    return level;
}
// Calls `each` for the nodes of level 1 from block `from` on, in order: the number of its first block, and the ids of
// its blocks (as many as the disk has). Nodes of zeros are left out.
// What `each` returns, unless 0, ends the walk and is returned.
// A node that is damaged fails the walk; unless `lost` is given: then the range of the disk below it is added there.
// `*looked` (NULL: false): see rp_blocks_locate.
typedef int rp_tree_walk_fn(void *context, uint64_t block, const uint8_t *ids, uint32_t count, struct rp_error *err);
int rp_tree_walk(struct rp_repo *repo, const struct rp_repo_root *root, uint64_t from, rp_tree_walk_fn *each,
                 void *context, struct rp_ranges *lost, bool *looked, struct rp_error *err);
// Reads a node that a new tree is to be built on. One that is lost is RP_ERR_CORRUPT; then the packs in which it was found damaged
// are marked: whoever goes on without it stores it again.
int rp_tree_base_node(struct rp_repo *repo, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *node,
                      struct rp_error *err);
// Looks for every node and block of the tree in the index: RP_ERR_CORRUPT when one is in no pack that is of this `use`
// (RP_INDEX_WRITE: to build on it; RP_INDEX_SOUND: it is built, and a tombstone that came meanwhile waits for its session).
// Reads the nodes, as rp_tree_base_node does, not the blocks.
int rp_tree_check_complete(struct rp_repo *repo, const struct rp_repo_root *root, enum rp_index_use use,
                           struct rp_error *err);
int rp_tree_check_root(const struct rp_repo_root *root, struct rp_error *err);

#endif
