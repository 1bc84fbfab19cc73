// Builds the tree of one disk on top of an older one. The lowest nodes are loaded when a block below them changes; the
// nodes above are made at the end, only where something changed.
#include <stdlib.h>
#include <string.h>

#include "repo/id_nodes.h"
#include "repo/session.h"
#include "repo/tree.h"

#define LOCKS 64u

struct rp_disk_writer {
    struct rp_repo_session *session;
    struct rp_repo *repo;
    struct rp_repo_root base; // of size 0 without one
    unsigned base_levels, levels;
    uint64_t size, blocks, leaf_count; // leaves: nodes of level 1
    uint8_t **leaves;                  // NULL: as in the base
    struct rp_id_nodes *memory;
    pthread_mutex_t locks[LOCKS];      // of leaves[i], i modulo LOCKS, while it is loaded
};

static const uint8_t zero_block[RP_REPO_BLOCK];

// A new restore point must not be built on one that has lost a pack. Usually the index can tell without a look at the tree.
static int check_base(struct rp_repo *repo, const struct rp_repo_root *base, struct rp_error *err)
{
    if (rp_id_is_zero(base->id) || rp_index_is_complete(repo->index, base->id))
        return 0;
    int result = rp_tree_check_complete(repo, base, RP_INDEX_WRITE, err);
    rp_index_set_complete(repo->index, base->id, result == 0 && rp_index_spill(repo->index));
    return result ? rp_context(err, "the disk to build on is damaged") : 0;
}

struct rp_disk_writer *rp_disk_writer_new(struct rp_repo_session *session, const struct rp_repo_root *base,
                                          uint64_t size, struct rp_error *err)
{
    struct rp_repo_root root = {.size = size};
    if (rp_tree_check_root(&root, err))
        return NULL;
    if (base && base->size > size) {
        rp_fail(err, RP_ERR_INVALID, "a disk of %llu bytes cannot be built on one of %llu: write it in full",
                (unsigned long long)size, (unsigned long long)base->size);
        return NULL;
    }
    if (base && !rp_session_pins(session, base)) {
        rp_fail(err, RP_ERR_INVALID, "the disk to build on was not pinned when the session began");
        return NULL;
    }
    if (base && check_base(rp_session_repo(session), base, err))
        return NULL;
    struct rp_disk_writer *writer = rp_xcalloc(1, sizeof *writer);
    writer->session = session;
    writer->repo = rp_session_repo(session);
    if (base)
        writer->base = *base;
    writer->base_levels = rp_tree_levels(writer->base.size);
    writer->size = size;
    writer->blocks = rp_tree_blocks(size);
    writer->levels = rp_tree_levels(size);
    writer->leaf_count = rp_div_up(writer->blocks, RP_NODE_IDS);
    writer->leaves = rp_xcalloc(writer->leaf_count + 1, sizeof *writer->leaves);
    writer->memory = rp_id_nodes_new(writer->repo->cache);
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_init(&writer->locks[i], NULL);
    return writer;
}

void rp_disk_writer_abandon(struct rp_disk_writer *writer)
{
    if (!writer)
        return;
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_destroy(&writer->locks[i]);
    rp_id_nodes_free(writer->memory);
    free(writer->leaves);
    free(writer);
}

// The base's node of this level and number, or zeros. A base that is lower than this disk is the first child all the way up.
static int base_node(struct rp_disk_writer *writer, unsigned level, uint64_t number, uint8_t *node, struct rp_error *err)
{
    uint8_t id[RP_ID_BYTES];
    memset(node, 0, RP_NODE_BYTES);
    memcpy(id, writer->base.id, RP_ID_BYTES);
    if (level > writer->base_levels) {
        if (number == 0 && level == writer->base_levels + 1)
            memcpy(node, id, RP_ID_BYTES);
        return 0;
    }
    if (number >> 8 * (writer->base_levels - level))
        return 0; // to the right of all that the base has
    for (unsigned at = writer->base_levels; !rp_id_is_zero(id); at--) {
        if (rp_tree_base_node(writer->repo, id, at, node, err))
            return rp_context(err, "the disk to build on");
        if (at == level)
            return 0;
        memcpy(id, node + (number >> 8 * (at - 1 - level) & 255) * RP_ID_BYTES, RP_ID_BYTES);
    }
    memset(node, 0, RP_NODE_BYTES);
    return 0;
}

// The leaf node, loaded from the base when this is the first change below it. NULL when it is empty and not `wanted_empty`:
// a disk that grew has very many of these.
static int get_leaf(struct rp_disk_writer *writer, uint64_t number, bool wanted_empty, uint8_t **leaf, struct rp_error *err)
{
    pthread_mutex_t *lock = &writer->locks[number % LOCKS];
    uint8_t node[RP_NODE_BYTES];
    int result = 0;
    pthread_mutex_lock(lock);
    *leaf = writer->leaves[number];
    if (!*leaf)
        result = base_node(writer, 1, number, node, err);
    if (!*leaf && result == 0 && (wanted_empty || memcmp(node, zero_block, RP_NODE_BYTES))) {
        *leaf = writer->leaves[number] = rp_id_nodes_take(writer->memory, err);
        if (*leaf)
            memcpy(*leaf, node, RP_NODE_BYTES);
        else
            result = -1;
    }
    pthread_mutex_unlock(lock);
    return result;
}

static int set_id(struct rp_disk_writer *writer, uint64_t block, const uint8_t *id, struct rp_error *err)
{
    uint8_t *leaf;
    if (get_leaf(writer, block / RP_NODE_IDS, true, &leaf, err))
        return -1;
    memcpy(leaf + block % RP_NODE_IDS * RP_ID_BYTES, id, RP_ID_BYTES);
    return 0;
}

static int check_range(const struct rp_disk_writer *writer, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (!rp_range_ok(offset, length, writer->size) || offset % RP_REPO_BLOCK ||
        (length % RP_REPO_BLOCK && offset + length != writer->size))
        return rp_fail(err, RP_ERR_INVALID, "%llu bytes at %llu are not whole blocks of a disk of %llu",
                       (unsigned long long)length, (unsigned long long)offset, (unsigned long long)writer->size);
    return 0;
}

static int put_blocks(struct rp_disk_writer *writer, struct rp_scratch *scratch, uint64_t offset, const uint8_t *data,
                      size_t size, uint64_t *zeros, struct rp_error *err)
{
    struct rp_packer *packer = rp_session_packer(writer->session);
    RP_AUTO_FREE uint8_t *padded = NULL;
    while (size) {
        size_t length = rp_min64(size, RP_REPO_BLOCK);
        uint8_t id[RP_ID_BYTES] = {0};
        bool zero = !memcmp(data, zero_block, length);
        *zeros += zero;
        const uint8_t *block = data;
        if (!zero && length < RP_REPO_BLOCK) { // the end of the disk: the block goes on with zeros
            padded = rp_xcalloc(1, RP_REPO_BLOCK);
            memcpy(padded, data, length);
            block = padded;
        }
        if ((!zero && rp_packer_put(packer, scratch, 0, block, id, err)) ||
            set_id(writer, offset / RP_REPO_BLOCK, id, err))
            return -1;
        offset += length;
        data += length;
        size -= length;
    }
    return 0;
}

int rp_disk_writer_put(struct rp_disk_writer *writer, uint64_t offset, const void *data, size_t size, struct rp_error *err)
{
    if (check_range(writer, offset, size, err))
        return -1;
    uint64_t zeros = 0;
    struct rp_scratch *scratch = rp_scratch_take(writer->repo);
    int result = put_blocks(writer, scratch, offset, data, size, &zeros, err);
    rp_scratch_give(writer->repo, scratch);
    rp_session_count_zeros(writer->session, zeros);
    return result;
}

int rp_disk_writer_zero(struct rp_disk_writer *writer, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (check_range(writer, offset, length, err))
        return -1;
    uint64_t block = offset / RP_REPO_BLOCK, end = rp_div_up(offset + length, RP_REPO_BLOCK);
    while (block < end) {
        uint64_t number = block / RP_NODE_IDS, next = rp_min64(end, (number + 1) * RP_NODE_IDS);
        uint8_t *leaf;
        if (get_leaf(writer, number, false, &leaf, err))
            return -1;
        if (leaf)
            memset(leaf + block % RP_NODE_IDS * RP_ID_BYTES, 0, (next - block) * RP_ID_BYTES);
        block = next;
    }
    return 0;
}

// ---- finish ---------------------------------------------------------------------------------------------------------

// Did a leaf below this node change? Or must it be made, to stand above a base that is lower than this disk?
static bool to_be_made(const struct rp_disk_writer *writer, unsigned level, uint64_t number)
{
    if (level > writer->base_levels && number == 0 && !rp_id_is_zero(writer->base.id))
        return true;
    uint64_t leaves = rp_tree_span(level) / RP_NODE_IDS, leaf = number * leaves;
    for (uint64_t end = rp_min64(leaf + leaves, writer->leaf_count); leaf < end; leaf++)
        if (writer->leaves[leaf])
            return true;
    return false;
}

// Makes the id of the node that stands at this place. `nodes` is working memory: one node for each level above 1.
static int build(struct rp_disk_writer *writer, struct rp_scratch *scratch, unsigned level, uint64_t number, uint8_t *nodes,
                 uint8_t id[RP_ID_BYTES], struct rp_error *err)
{
    uint8_t *node = level == 1 ? writer->leaves[number] : nodes;
    if (level > 1) {
        if (base_node(writer, level, number, node, err))
            return -1;
        for (uint64_t i = 0; i < RP_NODE_IDS; i++) {
            uint64_t child = number * RP_NODE_IDS + i;
            if (to_be_made(writer, level - 1, child) &&
                build(writer, scratch, level - 1, child, nodes + RP_NODE_BYTES, node + i * RP_ID_BYTES, err))
                return -1;
        }
    }
    if (!memcmp(node, zero_block, RP_NODE_BYTES)) {
        memset(id, 0, RP_ID_BYTES);
        return 0;
    }
    return rp_packer_put(rp_session_packer(writer->session), scratch, level, node, id, err);
}

int rp_disk_writer_finish(struct rp_disk_writer *writer, struct rp_repo_root *root, struct rp_error *err)
{
    bool changed = to_be_made(writer, writer->levels, 0);
    *root = writer->base;
    root->size = writer->size;
    int result = 0;
    if (changed) {
        RP_AUTO_FREE uint8_t *nodes = rp_xmalloc((size_t)writer->levels * RP_NODE_BYTES);
        struct rp_scratch *scratch = rp_scratch_take(writer->repo);
        uint8_t id[RP_ID_BYTES];
        result = build(writer, scratch, writer->levels, 0, nodes, id, err);
        if (result == 0)
            memcpy(root->id, id, RP_ID_BYTES);
        rp_scratch_give(writer->repo, scratch);
    }
    rp_disk_writer_abandon(writer);
    return result;
}
