#include "repo/blocks.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "repo/frame.h"

#define FRAMES 256u
#define FRAME_BYTES (48u << 20) // of decoded frames kept
#define NODES 512u              // 4 MiB

enum frame_state { FREE, LOADING, READY };
struct frame {
    enum frame_state state;
    uint32_t pack;
    uint16_t number;
    unsigned users;
    uint64_t used; // clock of the last use
    size_t size;
    uint8_t *data;
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
    for (unsigned i = 0; i < FRAMES; i++)
        free(blocks->frames[i].data);
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

static struct frame *find_frame(struct rp_blocks *blocks, const struct rp_location *at)
{
    for (unsigned i = 0; i < FRAMES; i++) {
        struct frame *frame = &blocks->frames[i];
        if (frame->state != FREE && frame->pack == at->pack && frame->number == at->frame)
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
        blocks->bytes -= oldest->size;
        *oldest = (struct frame){0};
    }
}

// Copies one block out of its frame, which is decoded once however many threads want it.
static int copy_from_frame(struct rp_blocks *blocks, const struct rp_location *at, uint8_t *out, struct rp_error *err)
{
    size_t unit = rp_unit_bytes(at->level), size = rp_frame_raw_size(at);
    struct frame *frame;
    if (size > RP_FRAME_MAX_RAW)
        return rp_fail(err, RP_ERR_CORRUPT, "frame %u: impossible sizes", at->frame);
    pthread_mutex_lock(&blocks->lock);
    while ((frame = find_frame(blocks, at)) && frame->state == LOADING)
        pthread_cond_wait(&blocks->loaded, &blocks->lock);
    int result = 0;
    if (!frame) {
        uint8_t *data = rp_xmalloc(size);
        frame = make_room(blocks, size);
        if (frame) {
            *frame = (struct frame){LOADING, at->pack, at->frame, 1, 0, size, data};
            blocks->bytes += size;
        }
        pthread_mutex_unlock(&blocks->lock);
        result = load(blocks, at, data, err);
        if (!frame) { // every place is being read into: go without
            if (result == 0)
                memcpy(out, data + at->slot * unit, unit);
            free(data);
            return result;
        }
        pthread_mutex_lock(&blocks->lock);
        frame->state = READY;
        if (result) {
            blocks->bytes -= size;
            free(data);
            *frame = (struct frame){0};
        }
        pthread_cond_broadcast(&blocks->loaded);
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

int rp_blocks_get(struct rp_blocks *blocks, const uint8_t id[RP_ID_BYTES], unsigned level, uint8_t *out,
                  struct rp_error *err)
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    char hex[RP_HEX(8)];
    if (level && node_cached(blocks, id, level, out))
        return 0;
    unsigned count = rp_index_find(blocks->index, id, RP_INDEX_READ, places);
    if (!count && blocks->refresh) { // written by somebody else since we looked?
        if (rp_index_refresh(blocks->index, err))
            return -1;
        count = rp_index_find(blocks->index, id, RP_INDEX_READ, places);
    }
    struct rp_error first = {0};
    for (unsigned i = 0; i < count; i++) {
        struct rp_error one = {0};
        if (get_from(blocks, &places[i], id, level, out, &one) == 0) {
            if (level)
                node_keep(blocks, id, level, out);
            return 0;
        }
        if (!first.code) {
            struct rp_index_pack pack;
            char name[RP_PACK_NAME];
            rp_index_pack(blocks->index, places[i].pack, &pack);
            first = one;
            if (!strstr(first.text, rp_pack_name(pack.id, name)))
                rp_context(&first, "%s", name);
        }
    }
    const char *what = level ? "node" : "block";
    rp_hex(id, 8, hex);
    if (!count)
        return rp_fail(err, RP_ERR_CORRUPT, "%s %s is in no pack: a pack is missing or damaged; run refpoint check", what,
                       hex);
    rp_fail_as(err, &first);
    return rp_context(err, "%s %s", what, hex);
}
