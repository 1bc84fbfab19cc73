#include "repo/packer.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "repo/frame.h"
#include "repo/pages.h"
#include "repo/pending.h"

// Neighbouring blocks compress better together: a frame of 32 stores 14 % less than 32 frames of one (measured on /usr).
// What does not compress gains nothing from that, and is cheaper to read alone.
#define FRAME_BLOCKS 32u
#define FRAME_RANDOM_BLOCKS 4u
#define FRAME_NODES 64u
#define PACK_CAPACITY (RP_PACK_TARGET + RP_FRAME_MAX_STORED + RP_PACK_MAX_BLOCKS * (RP_ID_BYTES + 8) + 4096u)
#define MAX_PACKS 4 // in memory: one fills, the others are written or wait for that
#define WRITERS 2   // one syncs while the other writes

enum frame_class { COMPRESSIBLE, RANDOM, FIRST_NODES, CLASSES = FIRST_NODES + RP_MAX_LEVEL };

struct gathered { // a frame that blocks are still added to, by one thread at a time
    struct gathered *next;
    unsigned level, count, limit;
    bool compress;
    uint8_t ids[FRAME_NODES][RP_ID_BYTES];
    uint8_t data[];
};

struct pack {
    struct pack *next;
    uint8_t id[RP_PACK_ID], key[RP_KEY_BYTES];
    uint8_t header[RP_PACK_HEADER];
    uint8_t *data;       // PACK_CAPACITY: never moves, so that frames are sealed into it without the lock
    size_t size;
    struct rp_pack_index index;
    unsigned sealing;    // threads that seal frames into it
};

struct rp_packer {
    struct rp_repo *repo;
    pthread_mutex_t lock;
    pthread_cond_t work; // for the writers: a pack to write, or the end
    pthread_cond_t done; // a pack was written, a frame was sealed, a buffer is free
    pthread_t writers[WRITERS];
    unsigned writer_count;
    bool ending;
    struct rp_error error; // the first failure, kept
    struct rp_pending pending;
    struct gathered *gathering[CLASSES];
    struct pack *open, *queue, *free;
    unsigned packs;   // in memory, the free ones included
    unsigned closing; // closed, not yet written
    uint64_t *used;   // a bit per pack number
    size_t used_words;
    uint8_t (*put)[RP_PACK_ID]; // the packs that were written, or were to be
    size_t put_count;
    struct rp_repo_stats stats;
};

static void use_pack(struct rp_packer *packer, uint32_t number)
{
    size_t word = number / 64;
    if (word >= packer->used_words) {
        size_t words = rp_max64(word + 1, 2 * packer->used_words);
        packer->used = rp_xrealloc(packer->used, words * sizeof *packer->used);
        memset(packer->used + packer->used_words, 0, (words - packer->used_words) * sizeof *packer->used);
        packer->used_words = words;
    }
    packer->used[word] |= (uint64_t)1 << number % 64;
}

int rp_packer_used(struct rp_packer *packer, int (*each)(void *context, uint32_t number), void *context)
{
    for (size_t word = 0; word < packer->used_words; word++)
        for (unsigned bit = 0; bit < 64; bit++)
            if (packer->used[word] >> bit & 1) {
                int result = each(context, (uint32_t)(word * 64 + bit));
                if (result)
                    return result;
            }
    return 0;
}

// ---- packs ----------------------------------------------------------------------------------------------------------

static void pack_reset(struct pack *pack)
{
    pack->size = 0;
    pack->index.frame_count = pack->index.id_count = 0;
    pack->sealing = 0;
    pack->next = NULL;
}

static void pack_start(struct rp_packer *packer, struct pack *pack)
{
    // A new id, and with it a new key, for every attempt: no key ever seals two things with one nonce.
    rp_crypto_random(pack->id, sizeof pack->id);
    rp_crypto_derive(packer->repo->crypto, "refpoint 1 pack", pack->id, RP_PACK_ID, pack->key);
    rp_pack_header(pack->id, packer->repo->config.encrypted, pack->header);
    memcpy(pack->data, pack->header, RP_PACK_HEADER);
    pack->size = RP_PACK_HEADER;
}

static void pack_free(struct pack *pack)
{
    if (!pack)
        return;
    rp_crypto_wipe(pack->key, sizeof pack->key);
    rp_pages_free(pack->data, PACK_CAPACITY);
    rp_pack_index_clear(&pack->index);
    free(pack);
}

static struct pack *pack_new(void)
{
    struct pack *pack = rp_xcalloc(1, sizeof *pack);
    pack->data = rp_pages_new(PACK_CAPACITY);
    pack->index.frames = rp_xmalloc(RP_PACK_MAX_BLOCKS * sizeof *pack->index.frames);
    pack->index.ids = rp_xmalloc((size_t)RP_PACK_MAX_BLOCKS * RP_ID_BYTES);
    return pack;
}

// Hands the open pack to the writers. Under the lock.
static void close_pack(struct rp_packer *packer)
{
    struct pack **last = &packer->queue;
    while (*last)
        last = &(*last)->next;
    *last = packer->open;
    packer->open = NULL;
    packer->closing++;
    pthread_cond_signal(&packer->work);
}

// The pack that the next frame goes into. Under the lock; may wait for the writers. NULL after a failure.
static struct pack *pack_for_frame(struct rp_packer *packer, size_t stored, unsigned count)
{
    for (;;) {
        if (packer->error.code)
            return NULL;
        struct pack *pack = packer->open;
        if (pack && pack->size + stored <= RP_PACK_TARGET + RP_FRAME_MAX_STORED &&
            pack->index.id_count + count <= RP_PACK_MAX_BLOCKS)
            return pack;
        if (pack) {
            close_pack(packer);
        } else if (packer->free) {
            packer->open = packer->free;
            packer->free = packer->open->next;
            packer->open->next = NULL;
            pack_start(packer, packer->open);
        } else if (packer->packs < MAX_PACKS) {
            packer->packs++;
            packer->open = pack_new();
            pack_start(packer, packer->open);
        } else {
            pthread_cond_wait(&packer->done, &packer->lock);
        }
    }
}

// Writes one pack; without the lock.
static int write_pack(struct rp_packer *packer, struct pack *pack, uint32_t *number, struct rp_error *err)
{
    char name[RP_PACK_NAME];
    struct rp_repo *repo = packer->repo;
    RP_CLEANUP(rp_buf_clear) struct rp_buf end = {0};
    struct rp_scratch *scratch = rp_scratch_take(repo);
    rp_pack_finish(scratch->cipher, pack->key, pack->header, &pack->index, pack->size, &end);
    rp_scratch_give(repo, scratch);
    memcpy(pack->data + pack->size, end.data, end.size);
    pack->size += end.size;
    if (repo->backend->ops->put(repo->backend, rp_pack_name(pack->id, name), pack->data, pack->size, err))
        return rp_context(err, "store a pack");
    *number = rp_index_add_pack(repo->index, pack->id, pack->size, &pack->index);
    return 0;
}

static void *write_packs(void *argument)
{
    struct rp_packer *packer = argument;
    pthread_mutex_lock(&packer->lock);
    for (;;) {
        while (!packer->queue && !packer->ending)
            pthread_cond_wait(&packer->work, &packer->lock);
        if (packer->ending)
            break;
        struct pack *pack = packer->queue;
        packer->queue = pack->next;
        while (pack->sealing)
            pthread_cond_wait(&packer->done, &packer->lock);
        bool failed = packer->error.code != RP_OK; // then nothing more is written
        if (!failed) {
            packer->put = rp_xrealloc(packer->put, (packer->put_count + 1) * sizeof *packer->put);
            memcpy(packer->put[packer->put_count++], pack->id, RP_PACK_ID);
        }
        pthread_mutex_unlock(&packer->lock);
        struct rp_error err = {0};
        uint32_t number = 0;
        int result = failed ? 0 : write_pack(packer, pack, &number, &err);
        pthread_mutex_lock(&packer->lock);
        if (result) {
            if (!packer->error.code)
                packer->error = err;
        } else if (!failed) {
            // The index has the blocks now: they are known through it, and only then no longer pending.
            for (uint32_t i = 0; i < pack->index.id_count; i++)
                rp_pending_remove(&packer->pending, pack->index.ids + (size_t)i * RP_ID_BYTES);
            use_pack(packer, number);
            packer->stats.stored_bytes += pack->size;
        }
        pack_reset(pack);
        pack->next = packer->free;
        packer->free = pack;
        packer->closing--;
        pthread_cond_broadcast(&packer->done);
    }
    pthread_mutex_unlock(&packer->lock);
    return NULL;
}

// ---- frames ---------------------------------------------------------------------------------------------------------

// Compresses and seals a gathered frame into the open pack.
static int store_frame(struct rp_packer *packer, struct rp_scratch *scratch, struct gathered *frame, struct rp_error *err)
{
    size_t payload_size;
    enum rp_compression compression;
    uint8_t aad[RP_FRAME_AAD];
    const uint8_t *payload = rp_frame_compress(scratch, frame->data, (size_t)frame->count * rp_unit_bytes(frame->level),
                                               frame->compress, &payload_size, &compression);
    pthread_mutex_lock(&packer->lock);
    struct pack *pack = pack_for_frame(packer, payload_size + RP_TAG_BYTES, frame->count);
    if (!pack) {
        rp_fail_as(err, &packer->error);
        pthread_mutex_unlock(&packer->lock);
        return -1;
    }
    uint32_t number = pack->index.frame_count++;
    pack->index.frames[number] = (struct rp_pack_frame){
        .offset = (uint32_t)pack->size,
        .stored = (uint32_t)(payload_size + RP_TAG_BYTES),
        .level = (uint8_t)frame->level,
        .compression = compression,
        .count = (uint16_t)frame->count,
        .first = pack->index.id_count,
    };
    memcpy(pack->index.ids + (size_t)pack->index.id_count * RP_ID_BYTES, frame->ids, (size_t)frame->count * RP_ID_BYTES);
    pack->index.id_count += frame->count;
    uint8_t *out = pack->data + pack->size;
    pack->size += payload_size + RP_TAG_BYTES;
    pack->sealing++;
    if (pack->size >= RP_PACK_TARGET)
        close_pack(packer);
    pthread_mutex_unlock(&packer->lock);

    rp_pack_frame_aad(pack->id, number, frame->level, compression, frame->count, aad);
    rp_cipher_seal(scratch->cipher, pack->key, number, aad, sizeof aad, payload, payload_size, out);

    pthread_mutex_lock(&packer->lock);
    if (!--pack->sealing)
        pthread_cond_broadcast(&packer->done);
    pthread_mutex_unlock(&packer->lock);
    return 0;
}

static struct gathered *gathered_new(enum frame_class class)
{
    unsigned level = class < FIRST_NODES ? 0 : class - FIRST_NODES + 1u;
    unsigned limit = level ? FRAME_NODES : class == RANDOM ? FRAME_RANDOM_BLOCKS : FRAME_BLOCKS;
    struct gathered *frame = rp_xmalloc(sizeof *frame + (size_t)limit * rp_unit_bytes(level));
    frame->next = NULL;
    frame->level = level;
    frame->limit = limit;
    frame->count = 0;
    frame->compress = class != RANDOM;
    return frame;
}

// Known through a pack that is to stay? Then that pack must still be there at commit.
static bool known(struct rp_packer *packer, const uint8_t *id)
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    if (!rp_index_find(packer->repo->index, id, RP_INDEX_WRITE, places))
        return false;
    pthread_mutex_lock(&packer->lock);
    use_pack(packer, places[0].pack);
    pthread_mutex_unlock(&packer->lock);
    return true;
}

static void count_known(struct rp_packer *packer, unsigned level)
{
    if (!level)
        __atomic_add_fetch(&packer->stats.known_blocks, 1, __ATOMIC_RELAXED);
}

int rp_packer_put(struct rp_packer *packer, struct rp_scratch *scratch, unsigned level, const uint8_t *data,
                  uint8_t id[RP_ID_BYTES], struct rp_error *err)
{
    size_t unit = rp_unit_bytes(level);
    rp_cipher_id(scratch->cipher, (uint8_t)level, data, unit, id);
    pthread_mutex_lock(&packer->lock);
    bool failed = packer->error.code != RP_OK, have = !failed && rp_pending_has(&packer->pending, id);
    if (failed)
        rp_fail_as(err, &packer->error);
    pthread_mutex_unlock(&packer->lock);
    if (failed)
        return -1;
    // First the pending ones, then the index: a block that moves from there to here in between is seen.
    if (have || known(packer, id)) {
        count_known(packer, level);
        return 0;
    }
    enum frame_class class = level                              ? FIRST_NODES + level - 1
                             : rp_frame_looks_random(data, unit) ? RANDOM
                                                                 : COMPRESSIBLE;
    pthread_mutex_lock(&packer->lock);
    if (!rp_pending_add(&packer->pending, id)) { // another thread was faster
        pthread_mutex_unlock(&packer->lock);
        count_known(packer, level);
        return 0;
    }
    struct gathered *frame = packer->gathering[class];
    if (frame)
        packer->gathering[class] = frame->next;
    if (!level) {
        packer->stats.new_blocks++;
        packer->stats.new_bytes += unit;
    }
    pthread_mutex_unlock(&packer->lock);

    if (!frame)
        frame = gathered_new(class);
    memcpy(frame->ids[frame->count], id, RP_ID_BYTES);
    memcpy(frame->data + frame->count * unit, data, unit);
    frame->count++;
    int result = 0;
    if (frame->count == frame->limit) {
        result = store_frame(packer, scratch, frame, err);
        frame->count = 0;
    }
    pthread_mutex_lock(&packer->lock);
    frame->next = packer->gathering[class];
    packer->gathering[class] = frame;
    pthread_mutex_unlock(&packer->lock);
    return result;
}

int rp_packer_flush(struct rp_packer *packer, struct rp_error *err)
{
    int result = 0;
    struct rp_scratch *scratch = rp_scratch_take(packer->repo);
    for (unsigned class = 0; class < CLASSES && result == 0; class++) {
        pthread_mutex_lock(&packer->lock);
        struct gathered *frame = packer->gathering[class];
        packer->gathering[class] = NULL;
        pthread_mutex_unlock(&packer->lock);
        while (frame) {
            struct gathered *next = frame->next;
            if (frame->count && result == 0)
                result = store_frame(packer, scratch, frame, err);
            free(frame);
            frame = next;
        }
    }
    rp_scratch_give(packer->repo, scratch);
    pthread_mutex_lock(&packer->lock);
    if (packer->open && packer->open->index.frame_count)
        close_pack(packer);
    while (packer->closing)
        pthread_cond_wait(&packer->done, &packer->lock);
    if (packer->error.code)
        result = rp_fail_as(err, &packer->error);
    pthread_mutex_unlock(&packer->lock);
    return result;
}

void rp_packer_stop(struct rp_packer *packer, const uint8_t (**ids)[RP_PACK_ID], size_t *count)
{
    pthread_mutex_lock(&packer->lock);
    if (!packer->error.code)
        rp_fail(&packer->error, RP_ERR_CANCELLED, "what was stored is given up");
    while (packer->closing)
        pthread_cond_wait(&packer->done, &packer->lock);
    pthread_mutex_unlock(&packer->lock);
    *ids = (const uint8_t (*)[RP_PACK_ID])packer->put;
    *count = packer->put_count;
}

void rp_packer_stats(struct rp_packer *packer, struct rp_repo_stats *stats)
{
    pthread_mutex_lock(&packer->lock);
    stats->new_blocks = packer->stats.new_blocks;
    stats->new_bytes = packer->stats.new_bytes;
    stats->stored_bytes = packer->stats.stored_bytes;
    stats->known_blocks = __atomic_load_n(&packer->stats.known_blocks, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&packer->lock);
}

struct rp_packer *rp_packer_new(struct rp_repo *repo)
{
    struct rp_packer *packer = rp_xcalloc(1, sizeof *packer);
    packer->repo = repo;
    pthread_mutex_init(&packer->lock, NULL);
    pthread_cond_init(&packer->work, NULL);
    pthread_cond_init(&packer->done, NULL);
    while (packer->writer_count < WRITERS &&
           pthread_create(&packer->writers[packer->writer_count], NULL, write_packs, packer) == 0)
        packer->writer_count++;
    if (!packer->writer_count)
        rp_fail(&packer->error, RP_ERR_NO_MEMORY, "cannot start the thread that writes packs");
    return packer;
}

void rp_packer_free(struct rp_packer *packer)
{
    if (!packer)
        return;
    pthread_mutex_lock(&packer->lock);
    packer->ending = true;
    pthread_cond_broadcast(&packer->work);
    pthread_mutex_unlock(&packer->lock);
    for (unsigned i = 0; i < packer->writer_count; i++)
        pthread_join(packer->writers[i], NULL);
    for (unsigned class = 0; class < CLASSES; class++)
        for (struct gathered *frame = packer->gathering[class], *next; frame; frame = next) {
            next = frame->next;
            free(frame);
        }
    pack_free(packer->open);
    struct pack *lists[] = {packer->queue, packer->free};
    for (int i = 0; i < 2; i++)
        for (struct pack *pack = lists[i], *next; pack; pack = next) {
            next = pack->next;
            pack_free(pack);
        }
    rp_pending_clear(&packer->pending);
    free(packer->used);
    free(packer->put);
    pthread_mutex_destroy(&packer->lock);
    pthread_cond_destroy(&packer->work);
    pthread_cond_destroy(&packer->done);
    free(packer);
}
