#include "repo/blocks.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "repo/damage.h"
#include "repo/frame.h"

#define FRAMES 256u
#define FRAME_BYTES (48u << 20) // of decoded frames kept
#define NODES 512u              // 4 MiB
#define PAUSES_NS 3000000000ull // from one pause for what is lost to the next

enum frame_state { FREE, LOADING, READY };
struct frame {
    enum frame_state state;
    uint32_t pack;
    uint16_t number;
    unsigned users;
    uint64_t used; // clock of the last use
    size_t size;
    uint8_t *data;
    struct rp_error *damage; // it cannot be had: a dying disk takes seconds to say so, and a frame has many blocks
    bool asked_twice;        // for that
};
struct node {
    uint8_t id[RP_ID_BYTES];
    uint8_t level; // 0: empty
    uint8_t content[RP_NODE_BYTES];
};

struct rp_blocks {
    struct rp_repo *repo;
    struct rp_index *index;
    bool refresh;
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    uint64_t clock;
    size_t bytes;
    uint64_t waited_ns; // when a loss stayed one after a pause
    struct frame frames[FRAMES];
    pthread_mutex_t node_lock;
    struct node nodes[NODES]; // by id: a newer one takes the place
};

struct rp_blocks *rp_blocks_new(struct rp_repo *repo, struct rp_index *index, bool refresh)
{
    struct rp_blocks *blocks = rp_xcalloc(1, sizeof *blocks);
    blocks->repo = repo;
    blocks->index = index;
    blocks->refresh = refresh;
    pthread_mutex_init(&blocks->lock, NULL);
    pthread_cond_init(&blocks->loaded, NULL);
    pthread_mutex_init(&blocks->node_lock, NULL);
    return blocks;
}

void rp_blocks_free(struct rp_blocks *blocks)
{
    if (!blocks)
        return;
    for (unsigned i = 0; i < FRAMES; i++) {
        free(blocks->frames[i].data);
        free(blocks->frames[i].damage);
    }
    pthread_mutex_destroy(&blocks->lock);
    pthread_cond_destroy(&blocks->loaded);
    pthread_mutex_destroy(&blocks->node_lock);
    free(blocks);
}

static int load(struct rp_blocks *blocks, const struct rp_location *at, uint8_t *raw, struct rp_error *err)
{
    struct rp_repo *repo = blocks->repo;
    struct rp_index_pack pack;
    char name[RP_PACK_NAME];
    uint8_t key[RP_KEY_BYTES];
    rp_index_pack(blocks->index, at->pack, &pack);
    rp_pack_name(pack.id, name);
    struct rp_scratch *scratch = rp_scratch_take(repo);
    int result = repo->backend->ops->get(repo->backend, name, at->offset, scratch->sealed, at->stored, err);
    if (result == 0) {
        rp_crypto_derive(repo->crypto, "refpoint 1 pack", pack.id, RP_PACK_ID, key);
        result = rp_frame_decode(scratch, pack.id, key, at, scratch->sealed, raw, err);
        rp_crypto_wipe(key, sizeof key);
        if (result)
            rp_context(err, "%s", name);
    }
    rp_scratch_give(repo, scratch);
    return result;
}

static struct frame *find_frame(struct rp_blocks *blocks, uint32_t pack, uint16_t number)
{
    for (unsigned i = 0; i < FRAMES; i++) {
        struct frame *frame = &blocks->frames[i];
        if (frame->state != FREE && frame->pack == pack && frame->number == number)
            return frame;
    }
    return NULL;
}

// A place for a new frame: the least recently used ones go until there is room. NULL when all are in use.
static struct frame *make_room(struct rp_blocks *blocks, size_t size)
{
    for (;;) {
        struct frame *oldest = NULL, *empty = NULL;
        for (unsigned i = 0; i < FRAMES; i++) {
            struct frame *frame = &blocks->frames[i];
            if (frame->state == FREE)
                empty = frame;
            else if (frame->state == READY && !frame->users && (!oldest || frame->used < oldest->used))
                oldest = frame;
        }
        if (empty && blocks->bytes + size <= FRAME_BYTES)
            return empty;
        if (!oldest)
            return NULL;
        free(oldest->data);
        free(oldest->damage);
        blocks->bytes -= oldest->size;
        *oldest = (struct frame){0};
    }
}

// Ends the loading of a frame that failed. What says nothing about the bytes is tried again. Under the lock.
static void frame_failed(struct rp_blocks *blocks, struct frame *frame, const struct rp_error *why)
{
    struct frame failed = {.state = READY, .pack = frame->pack, .number = frame->number, .used = ++blocks->clock};
    blocks->bytes -= frame->size;
    free(frame->data);
    *frame = (struct frame){0};
    if (!rp_damage_is(why))
        return;
    *frame = failed;
    frame->damage = rp_xmalloc(sizeof *frame->damage);
    *frame->damage = *why;
}

void rp_blocks_forget_damage(struct rp_blocks *blocks)
{
    pthread_mutex_lock(&blocks->lock);
    for (unsigned i = 0; i < FRAMES; i++) {
        struct frame *frame = &blocks->frames[i];
        if (!frame->damage)
            continue;
        free(frame->damage);
        *frame = (struct frame){0};
    }
    pthread_mutex_unlock(&blocks->lock);
}

// Copies one block out of its frame, which is decoded once however many threads want it.
static int copy_from_frame(struct rp_blocks *blocks, const struct rp_location *at, uint8_t *out, struct rp_error *err)
{
    size_t unit = rp_unit_bytes(at->level), size = rp_frame_raw_size(at);
    struct frame *frame;
    if (size > RP_FRAME_MAX_RAW)
        return rp_fail(err, RP_ERR_CORRUPT, "frame %u: impossible sizes", at->frame);
    pthread_mutex_lock(&blocks->lock);
    while ((frame = find_frame(blocks, at->pack, at->frame)) && frame->state == LOADING)
        pthread_cond_wait(&blocks->loaded, &blocks->lock);
    int result = 0;
    if (!frame) {
        uint8_t *data = rp_xmalloc(size);
        frame = make_room(blocks, size);
        if (frame) {
            *frame = (struct frame){LOADING, at->pack, at->frame, 1, 0, size, data, NULL, false};
            blocks->bytes += size;
        }
        pthread_mutex_unlock(&blocks->lock);
        struct rp_error why = {0};
        result = load(blocks, at, data, &why);
        if (result)
            rp_fail_as(err, &why);
        if (!frame) { // every place is being read into: go without
            if (result == 0)
                memcpy(out, data + at->slot * unit, unit);
            free(data);
            return result;
        }
        pthread_mutex_lock(&blocks->lock);
        frame->state = READY;
        if (result)
            frame_failed(blocks, frame, &why);
        pthread_cond_broadcast(&blocks->loaded);
    } else if (frame->damage) {
        frame->used = ++blocks->clock;
        result = rp_fail_as(err, frame->damage);
    } else if (frame->size != size) { // the index says two things about one frame
        frame = NULL;
        result = rp_fail(err, RP_ERR_CORRUPT, "frame %u: impossible sizes", at->frame);
    } else {
        frame->users++;
    }
    if (result == 0) {
        frame->used = ++blocks->clock;
        pthread_mutex_unlock(&blocks->lock);
        memcpy(out, frame->data + at->slot * unit, unit);
        pthread_mutex_lock(&blocks->lock);
        frame->users--;
    }
    pthread_mutex_unlock(&blocks->lock);
    return result;
}

static struct node *node_of(struct rp_blocks *blocks, const uint8_t *id)
{
    return &blocks->nodes[rp_get_le32(id + 8) % NODES];
}

static bool node_cached(struct rp_blocks *blocks, const uint8_t *id, unsigned level, uint8_t *out)
{
    struct node *node = node_of(blocks, id);
    pthread_mutex_lock(&blocks->node_lock);
    bool found = node->level == level && !memcmp(node->id, id, RP_ID_BYTES);
    if (found)
        memcpy(out, node->content, RP_NODE_BYTES);
    pthread_mutex_unlock(&blocks->node_lock);
    return found;
}

static void node_keep(struct rp_blocks *blocks, const uint8_t *id, unsigned level, const uint8_t *content)
{
    struct node *node = node_of(blocks, id);
    pthread_mutex_lock(&blocks->node_lock);
    node->level = (uint8_t)level;
    memcpy(node->id, id, RP_ID_BYTES);
    memcpy(node->content, content, RP_NODE_BYTES);
    pthread_mutex_unlock(&blocks->node_lock);
}

static int get_from(struct rp_blocks *blocks, const struct rp_location *at, const uint8_t *id, unsigned level,
                    uint8_t *out, struct rp_error *err)
{
    uint8_t hash[RP_ID_BYTES];
    if (at->level != level)
        return rp_fail(err, RP_ERR_CORRUPT, "frame %u: holds no %s", at->frame, level ? "nodes of this level" : "blocks");
    if (copy_from_frame(blocks, at, out, err))
        return -1;
    struct rp_scratch *scratch = rp_scratch_take(blocks->repo);
    rp_cipher_id(scratch->cipher, (uint8_t)level, out, rp_unit_bytes(level), hash);
    rp_scratch_give(blocks->repo, scratch);
    if (memcmp(hash, id, RP_ID_BYTES))
        return rp_fail(err, RP_ERR_CORRUPT, "frame %u, slot %u: the content is not what its id says", at->frame, at->slot);
    return 0;
}

struct search {
    struct rp_blocks *blocks;
    const uint8_t *id;
    enum rp_index_use use;
    struct rp_location *out;
    unsigned count;
};

static int search(void *context, struct rp_error *err)
{
    struct search *search = context;
    if (rp_index_refresh(search->blocks->index, err))
        return -1;
    search->count = rp_index_find(search->blocks->index, search->id, search->use, search->out);
    return search->count ? 0 : rp_index_was_given_all(search->blocks->index, err);
}

int rp_blocks_search(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], enum rp_index_use use,
                   struct rp_location out[RP_INDEX_MAX_COPIES], struct rp_error *err)
{
    struct search of = {.blocks = blocks, .id = id, .use = use, .out = out};
    struct rp_error why = {0};
    if (search(&of, &why) && !rp_damage_stays(blocks->repo, blocks->repo->patience_ms, &why, search, &of) && why.code)
        return rp_damage_may_pass(err, &why);
    return (int)of.count;
}

int rp_blocks_locate(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, bool *looked,
                     struct rp_location out[RP_INDEX_MAX_COPIES], struct rp_error *err)
{
    char hex[RP_HEX(8)];
    const char *what = level ? "node" : "block";
    int count = (int)rp_index_find(blocks->index, id, RP_INDEX_READ, out);
    if (count)
        return count;
    bool again = !looked || !__atomic_load_n(looked, __ATOMIC_RELAXED) || rp_index_knows_all(blocks->index, NULL);
    if (blocks->refresh && again) { // written by somebody else since we looked?
        count = rp_blocks_search(blocks, id, RP_INDEX_READ, out, err);
        if (looked && count >= 0)
            __atomic_store_n(looked, true, __ATOMIC_RELAXED);
    }
    if (count)
        return count;
    rp_hex(id, 8, hex);
    if (rp_index_knows_all(blocks->index, err))
        return rp_context(err, "%s %s cannot be found", what, hex);
    return rp_fail(err, RP_ERR_CORRUPT, "%s %s is in no pack: a pack is missing or damaged; run refpoint check", what, hex);
}

// Of the failures of several copies the one counts most that says nothing about the bytes: they may be there. Then the one that
// may pass.
static int weight(const struct rp_error *why)
{
    return !why->code ? 0 : why->code == RP_ERR_NOT_FOUND ? 1 : !rp_damage_is(why) ? 4 : why->code == RP_ERR_IO ? 3 : 2;
}

static void name_pack(struct rp_blocks *blocks, uint32_t number, struct rp_error *why)
{
    struct rp_index_pack pack;
    char name[RP_PACK_NAME];
    rp_index_pack(blocks->index, number, &pack);
    if (!strstr(why->text, rp_pack_name(pack.id, name)))
        rp_context(why, "%s", name);
}

int rp_blocks_get(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *out,
                  struct rp_attempt *attempt, struct rp_error *err)
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    struct rp_error worst = {0};
    char hex[RP_HEX(8)];
    if (attempt)
        attempt->damaged_count = 0;
    if (level && node_cached(blocks, id, level, out))
        return 0;
    int count = rp_blocks_locate(blocks, id, level, attempt ? attempt->looked : NULL, places, err);
    for (int i = 0; i < count; i++) {
        struct rp_error one = {0};
        if (get_from(blocks, &places[i], id, level, out, &one) == 0) {
            if (level)
                node_keep(blocks, id, level, out);
            return 0;
        }
        name_pack(blocks, places[i].pack, &one);
        if (attempt && rp_damage_is(&one))
            attempt->damaged[attempt->damaged_count++] =
                (struct rp_damaged_copy){places[i].pack, places[i].frame, one.code == RP_ERR_IO};
        if (weight(&one) > weight(&worst))
            worst = one;
    }
    if (count < 0)
        return -1;
    rp_fail_as(err, &worst);
    return rp_context(err, "%s %s", level ? "node" : "block", rp_hex(id, 8, hex));
}

// ---- what is lost ---------------------------------------------------------------------------------------------------

struct again {
    struct rp_blocks *blocks;
    const uint8_t *id;
    unsigned level;
    uint8_t *out;
    struct rp_attempt attempt;
};

// What is remembered of the frames of these copies. Under the lock; NULL: nothing, of a place in which nothing was found damaged.
static struct frame *remembered(struct rp_blocks *blocks, const struct rp_damaged_copy *copy)
{
    struct frame *frame = copy->not_given ? find_frame(blocks, copy->pack, copy->frame) : NULL;
    return frame && frame->damage ? frame : NULL;
}

static int get_again(void *context, struct rp_error *err)
{
    struct again *again = context;
    struct rp_blocks *blocks = again->blocks;
    pthread_mutex_lock(&blocks->lock);
    for (unsigned i = 0; i < again->attempt.damaged_count; i++) {
        struct frame *frame = remembered(blocks, &again->attempt.damaged[i]);
        if (!frame)
            continue;
        free(frame->damage);
        *frame = (struct frame){0};
    }
    pthread_mutex_unlock(&blocks->lock);
    return rp_blocks_get(blocks, again->id, again->level, again->out, &again->attempt, err);
}

// Were all these copies asked for twice before?
static bool is_known(struct rp_blocks *blocks, const struct rp_attempt *attempt)
{
    bool known = attempt->damaged_count > 0;
    pthread_mutex_lock(&blocks->lock);
    for (unsigned i = 0; i < attempt->damaged_count; i++) {
        const struct frame *frame = remembered(blocks, &attempt->damaged[i]);
        known &= !attempt->damaged[i].not_given || (frame && frame->asked_twice);
    }
    pthread_mutex_unlock(&blocks->lock);
    return known;
}

static void keep_known(struct rp_blocks *blocks, const struct rp_attempt *attempt, bool waited)
{
    pthread_mutex_lock(&blocks->lock);
    for (unsigned i = 0; i < attempt->damaged_count; i++) {
        struct frame *frame = remembered(blocks, &attempt->damaged[i]);
        if (frame)
            frame->asked_twice = true;
    }
    if (waited)
        blocks->waited_ns = rp_clock_monotonic_ns();
    pthread_mutex_unlock(&blocks->lock);
}

int rp_blocks_get_patiently(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *out, bool *looked,
                            struct rp_error *err)
{
    struct again again = {.blocks = blocks, .id = id, .level = level, .out = out, .attempt = {.looked = looked}};
    struct rp_error why = {0};
    if (rp_blocks_get(blocks, id, level, out, &again.attempt, &why) == 0)
        return 0;
    if (why.code != RP_ERR_IO || !rp_damage_is(&why) || is_known(blocks, &again.attempt))
        return rp_fail_as(err, &why);
    pthread_mutex_lock(&blocks->lock);
    bool wait = !blocks->waited_ns || rp_clock_monotonic_ns() - blocks->waited_ns > PAUSES_NS;
    pthread_mutex_unlock(&blocks->lock);
    if (!rp_damage_stays(blocks->repo, wait ? blocks->repo->patience_ms : 0, &why, get_again, &again))
        return why.code ? rp_damage_may_pass(err, &why) : 0;
    keep_known(blocks, &again.attempt, wait);
    return rp_fail_as(err, &why);
}
