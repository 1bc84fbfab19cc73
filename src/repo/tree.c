#include "repo/tree.h"

#include <stdlib.h>
#include <string.h>

#include "repo/blocks.h"
#include "repo/core.h"
#include "repo/damage.h"

static const uint8_t zero_id[RP_ID_BYTES];

int rp_tree_check_root(const struct rp_repo_root *root, struct rp_error *err)
{
    if (root->size > RP_DISK_MAX_SIZE)
        return rp_fail(err, RP_ERR_INVALID, "a disk of %llu bytes is too large", (unsigned long long)root->size);
    return 0;
}

// ---- read -----------------------------------------------------------------------------------------------------------

struct read {
    struct rp_repo *repo;
    uint64_t offset, end;
    uint8_t *data;
};

static int read_block(const struct read *read, const uint8_t *id, uint64_t start, struct rp_error *err)
{
    uint64_t from = rp_max64(start, read->offset), to = rp_min64(start + RP_REPO_BLOCK, read->end);
    uint8_t *out = read->data + (from - read->offset);
    if (rp_id_is_zero(id)) {
        memset(out, 0, to - from);
        return 0;
    }
    if (to - from == RP_REPO_BLOCK)
        return rp_blocks_get(read->repo->blocks, id, 0, out, NULL, err);
    RP_AUTO_FREE uint8_t *block = rp_xmalloc(RP_REPO_BLOCK);
    if (rp_blocks_get(read->repo->blocks, id, 0, block, NULL, err))
        return -1;
    memcpy(out, block + (from - start), to - from);
    return 0;
}

// The part of the read below one id that covers `level` and starts at byte `start`.
static int read_below(const struct read *read, const uint8_t *id, unsigned level, uint64_t start, struct rp_error *err)
{
    if (!level)
        return read_block(read, id, start, err);
    uint64_t child = rp_tree_span(level - 1) * RP_REPO_BLOCK;
    RP_AUTO_FREE uint8_t *node = NULL;
    if (!rp_id_is_zero(id)) {
        node = rp_xmalloc(RP_NODE_BYTES);
        if (rp_blocks_get(read->repo->blocks, id, level, node, NULL, err))
            return -1;
    }
    for (uint64_t i = read->offset > start ? (read->offset - start) / child : 0;
         i < RP_NODE_IDS && start + i * child < read->end; i++) {
        const uint8_t *child_id = node ? node + i * RP_ID_BYTES : zero_id;
        uint64_t from = rp_max64(start + i * child, read->offset), to = rp_min64(start + (i + 1) * child, read->end);
        if (rp_id_is_zero(child_id))
            memset(read->data + (from - read->offset), 0, to - from);
        else if (read_below(read, child_id, level - 1, start + i * child, err))
            return -1;
    }
    return 0;
}

int rp_repo_read(struct rp_repo *repo, const struct rp_repo_root *root, uint64_t offset, void *data, size_t size,
                 struct rp_error *err)
{
    if (rp_tree_check_root(root, err) || rp_repo_need_index(repo, NULL, err))
        return -1;
    if (!rp_range_ok(offset, size, root->size))
        return rp_fail(err, RP_ERR_INVALID, "read of %zu bytes at %llu of a disk of %llu", size,
                       (unsigned long long)offset, (unsigned long long)root->size);
    struct read read = {repo, offset, offset + size, data};
    if (!size)
        return 0;
    if (read_below(&read, root->id, rp_tree_levels(root->size), 0, err))
        return rp_context(err, "%s: disk bytes %llu to %llu", repo->backend->location, (unsigned long long)offset,
                          (unsigned long long)(offset + size - 1));
    return 0;
}

// ---- diff ------------------------------------------------------------------------------------------------------------

struct diff {
    struct rp_repo *repo;
    uint64_t blocks; // of the larger disk
    uint64_t size;
    struct rp_ranges *ranges;
};

static int node_or_zeros(struct rp_repo *repo, const uint8_t *id, unsigned level, uint8_t *node, struct rp_error *err)
{
    memset(node, 0, RP_NODE_BYTES);
    return rp_id_is_zero(id) ? 0 : rp_blocks_get(repo->blocks, id, level, node, NULL, err);
}

// The ranges that differ below two ids at the same place.
static int diff_below(const struct diff *diff, const uint8_t *a, const uint8_t *b, unsigned level, uint64_t block,
                      struct rp_error *err)
{
    if (block >= diff->blocks || !memcmp(a, b, RP_ID_BYTES))
        return 0;
    if (!level) {
        uint64_t offset = block * RP_REPO_BLOCK;
        rp_ranges_add(diff->ranges, offset, rp_min64(RP_REPO_BLOCK, diff->size - offset));
        return 0;
    }
    RP_AUTO_FREE uint8_t *nodes = rp_xmalloc(2 * RP_NODE_BYTES);
    if (node_or_zeros(diff->repo, a, level, nodes, err) || node_or_zeros(diff->repo, b, level, nodes + RP_NODE_BYTES, err))
        return -1;
    for (uint64_t i = 0; i < RP_NODE_IDS; i++)
        if (diff_below(diff, nodes + i * RP_ID_BYTES, nodes + RP_NODE_BYTES + i * RP_ID_BYTES, level - 1,
                       block + i * rp_tree_span(level - 1), err))
            return -1;
    return 0;
}

// As diff_below, where the tree of `small` has `small_levels` and the other more: it is the first child all the way up.
static int diff_uneven(const struct diff *diff, const uint8_t *small, unsigned small_levels, const uint8_t *large,
                       unsigned level, struct rp_error *err)
{
    if (level == small_levels)
        return diff_below(diff, small, large, level, 0, err);
    RP_AUTO_FREE uint8_t *node = rp_xmalloc(RP_NODE_BYTES);
    if (node_or_zeros(diff->repo, large, level, node, err) ||
        diff_uneven(diff, small, small_levels, node, level - 1, err))
        return -1;
    for (uint64_t i = 1; i < RP_NODE_IDS; i++)
        if (diff_below(diff, zero_id, node + i * RP_ID_BYTES, level - 1, i * rp_tree_span(level - 1), err))
            return -1;
    return 0;
}

int rp_repo_diff(struct rp_repo *repo, const struct rp_repo_root *a, const struct rp_repo_root *b, struct rp_ranges *ranges,
                 struct rp_error *err)
{
    if (rp_tree_check_root(a, err) || rp_tree_check_root(b, err) || rp_repo_need_index(repo, NULL, err))
        return -1;
    const struct rp_repo_root *small = a->size <= b->size ? a : b, *large = small == a ? b : a;
    struct diff diff = {repo, rp_tree_blocks(large->size), large->size, ranges};
    return diff_uneven(&diff, small->id, rp_tree_levels(small->size), large->id, rp_tree_levels(large->size), err);
}

// ---- what a disk holds ----------------------------------------------------------------------------------------------

struct walk {
    struct rp_repo *repo;
    uint64_t from, blocks, size;
    rp_tree_walk_fn *each;
    void *context;
    struct rp_ranges *lost;
    bool *looked;
};

static int lose(const struct walk *walk, unsigned level, uint64_t block, const struct rp_error *why, struct rp_error *err)
{
    if (!walk->lost || !rp_damage_is(why))
        return rp_fail_as(err, why);
    uint64_t offset = block * RP_REPO_BLOCK;
    rp_ranges_add(walk->lost, offset, rp_min64(rp_tree_span(level) * RP_REPO_BLOCK, walk->size - offset));
    return 0;
}

static int walk_below(const struct walk *walk, const uint8_t *id, unsigned level, uint64_t block, struct rp_error *err)
{
    if (rp_id_is_zero(id) || block >= walk->blocks || block + rp_tree_span(level) <= walk->from)
        return 0;
    RP_AUTO_FREE uint8_t *node = rp_xmalloc(RP_NODE_BYTES);
    struct rp_error why = {0};
    if (rp_blocks_get_patiently(walk->repo->blocks, id, level, node, walk->looked, &why))
        return lose(walk, level, block, &why, err);
    if (level == 1)
        return walk->each(walk->context, block, node, (uint32_t)rp_min64(RP_NODE_IDS, walk->blocks - block), err);
    int result = 0;
    for (uint64_t i = 0; i < RP_NODE_IDS && !result; i++)
        result = walk_below(walk, node + i * RP_ID_BYTES, level - 1, block + i * rp_tree_span(level - 1), err);
    return result;
}

int rp_tree_walk(struct rp_repo *repo, const struct rp_repo_root *root, uint64_t from, rp_tree_walk_fn *each, void *context,
                 struct rp_ranges *lost, bool *looked, struct rp_error *err)
{
    bool looked_here = false;
    if (rp_tree_check_root(root, err) || rp_repo_need_index(repo, NULL, err))
        return -1;
    struct walk walk = {repo, from, rp_tree_blocks(root->size), root->size, each, context, lost, looked ? looked : &looked_here};
    return walk_below(&walk, root->id, rp_tree_levels(root->size), 0, err);
}

struct allocated {
    uint64_t size, bytes;
    struct rp_ranges *ranges; // NULL: only the sum is wanted
};

static int add_allocated(void *context, uint64_t block, const uint8_t *ids, uint32_t count, struct rp_error *err)
{
    (void)err;
    struct allocated *allocated = context;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = (block + i) * RP_REPO_BLOCK, length = rp_min64(RP_REPO_BLOCK, allocated->size - offset);
        if (rp_id_is_zero(ids + (size_t)i * RP_ID_BYTES))
            continue;
        allocated->bytes += length;
        if (allocated->ranges)
            rp_ranges_add(allocated->ranges, offset, length);
    }
    return 0;
}

int rp_repo_allocated(struct rp_repo *repo, const struct rp_repo_root *root, struct rp_ranges *ranges, struct rp_error *err)
{
    struct allocated allocated = {root->size, 0, ranges};
    return rp_tree_walk(repo, root, 0, add_allocated, &allocated, NULL, NULL, err);
}

int rp_repo_data_bytes(struct rp_repo *repo, const struct rp_repo_root *root, struct rp_ranges *lost, uint64_t *bytes,
                       struct rp_error *err)
{
    struct allocated allocated = {root->size, 0, NULL};
    int result = rp_tree_walk(repo, root, 0, add_allocated, &allocated, lost, NULL, err);
    *bytes = allocated.bytes;
    return result;
}

// ---- completeness ---------------------------------------------------------------------------------------------------

struct base_node {
    struct rp_repo *repo;
    const uint8_t *id;
    unsigned level;
    uint8_t *content;
    struct rp_attempt attempt;
};

static int read_base_node(struct base_node *node, struct rp_error *err)
{
    return rp_blocks_get(node->repo->blocks, node->id, node->level, node->content, &node->attempt, err);
}

static int read_again(void *context, struct rp_error *err)
{
    struct base_node *node = context;
    rp_blocks_forget_damage(node->repo->blocks);
    return read_base_node(node, err);
}

// A new tree would take the node for stored wherever it has the same one: its packs are marked, so that it is stored again.
static int mark_node(struct base_node *node, struct rp_error *why, struct rp_error *err)
{
    struct rp_repo *repo = node->repo;
    if (!rp_damage_stays(repo, repo->patience_ms, why, read_again, node)) {
        rp_blocks_forget_damage(repo->blocks); // for all that is known
        return why->code ? rp_fail_as(err, why) : 0;
    }
    for (unsigned i = 0; i < node->attempt.damaged_count; i++) {
        struct rp_index_pack pack;
        rp_index_pack(repo->index, node->attempt.damaged[i].pack, &pack);
        if (!pack.damaged && rp_damage_mark(repo, pack.id, true, err))
            return -1;
    }
    if (rp_index_refresh(repo->index, err))
        return -1;
    return rp_fail(err, RP_ERR_CORRUPT, "%s", why->text);
}

int rp_tree_base_node(struct rp_repo *repo, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *node,
                      struct rp_error *err)
{
    struct base_node of = {.repo = repo, .id = id, .level = level, .content = node};
    struct rp_error why = {0};
    return read_base_node(&of, &why) ? mark_node(&of, &why, err) : 0;
}

static int complete_below(struct rp_repo *repo, const uint8_t *id, unsigned level, enum rp_index_use use, struct rp_error *err)
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    char hex[RP_HEX(8)];
    if (rp_id_is_zero(id))
        return 0;
    if (!rp_index_find(repo->index, id, use, places)) { // nor a node, which may be in memory only
        // Not before a second look: the cache may be damaged, which the first one found out.
        int found = rp_blocks_search(repo->blocks, id, use, places, err);
        if (found < 0)
            return -1;
        if (!found && rp_index_knows_all(repo->index, err))
            return rp_context(err, "%s %s cannot be found", level ? "node" : "block", rp_hex(id, 8, hex));
        if (!found)
            return rp_fail(err, RP_ERR_CORRUPT, "%s %s is in no good pack: a pack is missing or damaged; run refpoint "
                           "check", level ? "node" : "block", rp_hex(id, 8, hex));
    }
    if (!level)
        return 0;
    RP_AUTO_FREE uint8_t *node = rp_xmalloc(RP_NODE_BYTES);
    if (rp_tree_base_node(repo, id, level, node, err))
        return -1;
    for (uint64_t i = 0; i < RP_NODE_IDS; i++)
        if (complete_below(repo, node + i * RP_ID_BYTES, level - 1, use, err))
            return -1;
    return 0;
}

int rp_tree_check_complete(struct rp_repo *repo, const struct rp_repo_root *root, enum rp_index_use use, struct rp_error *err)
{
    return rp_tree_check_root(root, err) ? -1 : complete_below(repo, root->id, rp_tree_levels(root->size), use, err);
}
