#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "repo/blocks.h"
#include "repo/check.h"
#include "repo/damage.h"
#include "repo/pending.h"
#include "repo/tree.h"

#define REMEMBERED (2u << 20) // nodes known to be whole: 64 MiB; more are walked again for each point

struct rp_check_walk {
    struct rp_check *check;
    struct rp_pending whole;
    uint32_t nowhere; // the damage "in no pack", once there is one
};

struct place {
    struct rp_check_walk *walk;
    uint64_t size;
    rp_check_hit_fn *hit;
    void *context;
};

struct rp_check_walk *rp_check_walk_new(struct rp_check *check)
{
    struct rp_check_walk *walk = rp_xcalloc(1, sizeof *walk);
    walk->check = check;
    walk->nowhere = RP_NO_DAMAGE;
    return walk;
}

void rp_check_walk_free(struct rp_check_walk *walk)
{
    if (!walk)
        return;
    rp_pending_clear(&walk->whole);
    free(walk);
}

// A block that no good pack holds: the index cache may still know which pack held it.
static uint32_t missing(struct rp_check_walk *walk, const uint8_t *id)
{
    struct rp_check *check = walk->check;
    struct rp_location places[RP_INDEX_MAX_COPIES];
    unsigned count = rp_index_find(check->repo->index, id, RP_INDEX_READ, places);
    if (!count)
        count = rp_index_find(check->repo->index, id, RP_INDEX_GONE, places);
    if (count) {
        struct rp_index_pack pack;
        char name[RP_PACK_NAME], text[128];
        rp_index_pack(check->repo->index, places[0].pack, &pack);
        uint32_t number = rp_damages_of_object(check->damages, rp_pack_name(pack.id, name));
        if (number != RP_NO_DAMAGE)
            return number;
        snprintf(text, sizeof text, "%s: the pack is missing", name);
        return rp_damages_add(check->damages, name, text);
    }
    if (walk->nowhere == RP_NO_DAMAGE)
        walk->nowhere = rp_damages_add(check->damages, NULL, "blocks are in no pack: a pack is missing or damaged");
    return walk->nowhere;
}

// The damage that takes this block or node away; RP_NO_DAMAGE when a good copy is there.
static uint32_t damage_of(struct rp_check_walk *walk, const uint8_t *id)
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    unsigned count = rp_index_find(walk->check->index, id, RP_INDEX_READ, places);
    uint32_t number = RP_NO_DAMAGE;
    for (unsigned i = 0; i < count; i++) {
        number = rp_damages_of(walk->check->damages, id, places[i].pack);
        if (number == RP_NO_DAMAGE)
            return number;
    }
    return count ? number : missing(walk, id);
}

static void hit(const struct place *place, uint32_t damage, uint64_t block, uint64_t blocks)
{
    uint64_t from = block * RP_REPO_BLOCK, to = rp_min64((block + blocks) * RP_REPO_BLOCK, place->size);
    if (from < to)
        place->hit(place->context, damage, from, to - from);
}

struct node {
    struct rp_check_walk *walk;
    const uint8_t *id;
    unsigned level;
    uint8_t *content;
    struct rp_attempt attempt;
};

static int read_node(struct node *node, struct rp_error *err)
{
    return rp_blocks_get(node->walk->check->blocks, node->id, node->level, node->content, &node->attempt, err);
}

static int read_again(void *context, struct rp_error *err)
{
    struct node *node = context;
    rp_blocks_forget_damage(node->walk->check->blocks);
    return read_node(node, err);
}

static bool all_told(struct rp_check *check, const struct rp_location *places, unsigned count)
{
    struct rp_index_pack pack;
    char name[RP_PACK_NAME];
    for (unsigned i = 0; i < count; i++) {
        rp_index_pack(check->index, places[i].pack, &pack);
        if (rp_damages_of_object(check->damages, rp_pack_name(pack.id, name)) == RP_NO_DAMAGE)
            return false;
    }
    return count > 0;
}

// A node that cannot be read although nothing is known against it: the damage is found here, and marked as any other.
// RP_NO_DAMAGE: it can be read after all.
static uint32_t unreadable(struct node *node, struct rp_error *why)
{
    struct rp_check *check = node->walk->check;
    struct rp_location places[RP_INDEX_MAX_COPIES];
    struct rp_index_pack pack;
    char name[RP_PACK_NAME];
    unsigned count = rp_index_find(check->index, node->id, RP_INDEX_READ, places);
    // Of packs that were told of before, a second look would take its time for each of very many nodes.
    bool again = why->code != RP_ERR_IO || !all_told(check, places, count);
    bool lost = again && rp_damage_stays(check->repo, check->repo->patience_ms, why, read_again, node);
    if (again && !lost)
        rp_blocks_forget_damage(check->blocks); // for all that is known
    if (!why->code)
        return RP_NO_DAMAGE;
    if (!count)
        return rp_damages_add(check->damages, NULL, why->text);
    rp_index_pack(check->index, places[0].pack, &pack);
    uint32_t number = rp_damages_add(check->damages, rp_pack_name(pack.id, name), why->text);
    for (unsigned i = 0; i < count; i++)
        rp_damages_block(check->damages, node->id, places[i].pack, number);
    // Where another copy could not be read for a reason that may pass, nobody asked twice: then only wrong bytes are damage.
    bool wrong = !rp_damage_is(why);
    for (unsigned i = 0; i < node->attempt.damaged_count && (lost || wrong); i++) {
        const struct rp_damaged_copy *copy = &node->attempt.damaged[i];
        rp_index_pack(check->index, copy->pack, &pack);
        if (!pack.damaged && (lost || !copy->not_given))
            rp_check_mark(check, pack.id, true);
    }
    return number;
}

// True when everything below the id is whole.
static bool walk_below(const struct place *place, const uint8_t *id, unsigned level, uint64_t block)
{
    struct rp_check_walk *walk = place->walk;
    uint64_t span = rp_tree_span(level);
    if (rp_id_is_zero(id))
        return true;
    if (block >= rp_tree_blocks(place->size)) {
        char text[128];
        snprintf(text, sizeof text, "a tree goes on behind the end of its disk, at block %llu", (unsigned long long)block);
        hit(place, rp_damages_add(walk->check->damages, NULL, text), rp_tree_blocks(place->size) - 1, 1);
        return false;
    }
    if (level && rp_pending_has(&walk->whole, id))
        return true;
    uint32_t damage = damage_of(walk, id);
    if (damage != RP_NO_DAMAGE) {
        hit(place, damage, block, span);
        return false;
    }
    if (!level)
        return true;
    struct rp_error why = {0};
    RP_AUTO_FREE uint8_t *content = rp_xmalloc(RP_NODE_BYTES);
    struct node node = {.walk = walk, .id = id, .level = level, .content = content};
    if (read_node(&node, &why) && (damage = unreadable(&node, &why)) != RP_NO_DAMAGE) {
        hit(place, damage, block, span);
        return false;
    }
    bool whole = true;
    for (uint64_t i = 0; i < RP_NODE_IDS; i++)
        whole &= walk_below(place, content + i * RP_ID_BYTES, level - 1, block + i * rp_tree_span(level - 1));
    // Whole for this disk's size: a larger disk may see more of the same node, but what it sees has been looked at, too.
    if (whole && walk->whole.count < REMEMBERED)
        rp_pending_add(&walk->whole, id);
    return whole;
}

int rp_check_walk_disk(struct rp_check_walk *walk, const struct rp_repo_root *root, rp_check_hit_fn *hit_fn, void *context,
                       struct rp_error *err)
{
    struct place place = {walk, root->size, hit_fn, context};
    if (rp_tree_check_root(root, err))
        return -1;
    walk_below(&place, root->id, rp_tree_levels(root->size), 0);
    return 0;
}
