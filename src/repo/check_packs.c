#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/num.h"
#include "base/pool.h"
#include "repo/check.h"
#include "repo/damage.h"
#include "repo/frame.h"
#include "repo/pages.h"

#define MAX_THREADS 3 // each holds one pack in memory; one more than work at once, so that the disk is busy, too
#define MAX_TOLD 8    // findings in one pack, the last of which stands for the rest

struct job {
    struct rp_check *check;
    uint32_t number;
    uint64_t *read; // bytes, of all jobs
};

// What was found in one pack.
struct found {
    struct rp_check *check;
    const char *name;
    uint32_t pack, count, last; // `last`: number of the last finding that was told
};

// The number of a new finding; beyond the first few of a pack, one that stands for all others: whoever reads the report wants
// to know which disks are damaged, and a pack can have thousands of frames.
static uint32_t add_damage(struct found *found, const char *text)
{
    char all[128];
    found->count++;
    if (found->count == MAX_TOLD) {
        snprintf(all, sizeof all, "%s: more of it is damaged", found->name);
        found->last = rp_damages_add(found->check->damages, found->name, all);
    } else if (found->count < MAX_TOLD) {
        found->last = rp_damages_add(found->check->damages, found->name, text);
    }
    return found->last;
}

static void damage_frame(struct found *found, const struct rp_pack_index *index, const struct rp_pack_frame *frame,
                         const struct rp_error *why)
{
    struct rp_error text = *why;
    rp_context(&text, "%s: %u %s", found->name, frame->count, frame->level ? "nodes" : "blocks");
    uint32_t number = add_damage(found, text.text);
    for (uint32_t i = 0; i < frame->count; i++)
        rp_damages_block(found->check->damages, index->ids + (size_t)(frame->first + i) * RP_ID_BYTES, found->pack, number);
}

static void check_frame(struct found *found, struct rp_scratch *scratch, const uint8_t *pack_id, const uint8_t *key,
                        const struct rp_pack_index *index, uint32_t f, const uint8_t *data, uint8_t *raw)
{
    const struct rp_pack_frame *frame = &index->frames[f];
    struct rp_location at = {.pack = found->pack, .offset = frame->offset, .stored = frame->stored, .level = frame->level,
                             .compression = frame->compression, .frame = (uint16_t)f,
                             .last = (uint8_t)(frame->count - 1)};
    struct rp_error err = {0};
    if (rp_frame_decode(scratch, pack_id, key, &at, data + frame->offset, raw, &err)) {
        damage_frame(found, index, frame, &err);
        return;
    }
    for (uint32_t i = 0; i < frame->count; i++) {
        const uint8_t *id = index->ids + (size_t)(frame->first + i) * RP_ID_BYTES;
        uint8_t hash[RP_ID_BYTES];
        char hex[RP_HEX(8)], text[256];
        rp_cipher_id(scratch->cipher, frame->level, raw + (size_t)i * rp_unit_bytes(frame->level),
                     rp_unit_bytes(frame->level), hash);
        if (!memcmp(hash, id, RP_ID_BYTES))
            continue;
        snprintf(text, sizeof text, "%s: frame %u, slot %u: the content is not what its id, %s, says", found->name, f, i,
                 rp_hex(id, 8, hex));
        rp_damages_block(found->check->damages, id, found->pack, add_damage(found, text));
    }
}

static int check_bytes(struct rp_check *check, struct rp_scratch *scratch, const char *name, uint32_t number,
                       const struct rp_index_pack *pack, uint8_t *data, bool *whole, struct rp_error *err)
{
    struct rp_repo *repo = check->repo;
    RP_AUTO_FREE uint8_t *raw = rp_xmalloc(RP_FRAME_MAX_RAW);
    struct rp_pack_footer footer;
    uint8_t key[RP_KEY_BYTES];
    const uint8_t *end = data + pack->size - RP_PACK_FOOTER;
    if (repo->backend->ops->get(repo->backend, name, 0, data, pack->size, err))
        return -1;
    if (rp_pack_check_header(data, pack->id, repo->config.encrypted, err) ||
        rp_pack_parse_footer(end, pack->size, &footer, err))
        return rp_context(err, "%s", name);
    rp_crypto_derive(repo->crypto, "refpoint 1 pack", pack->id, RP_PACK_ID, key);
    RP_CLEANUP(rp_pack_index_clear) struct rp_pack_index index = {0};
    int result = rp_pack_open_index(scratch->cipher, key, data, end, &footer, end - footer.index_size, &index, err);
    struct found found = {.check = check, .name = name, .pack = number};
    for (uint32_t f = 0; result == 0 && f < index.frame_count; f++)
        check_frame(&found, scratch, pack->id, key, &index, f, data, raw);
    *whole = !found.count;
    rp_crypto_wipe(key, sizeof key);
    return result ? rp_context(err, "%s", name) : 0;
}

static int check_content(struct rp_check *check, struct rp_scratch *scratch, const char *name, uint32_t number,
                         const struct rp_index_pack *pack, bool *whole, struct rp_error *err)
{
    if (pack->size < RP_PACK_HEADER + RP_PACK_FOOTER || pack->size > RP_PACK_MAX_SIZE)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: %llu bytes are not a pack", name, (unsigned long long)pack->size);
    uint8_t *data = rp_pages_new(pack->size); // so that it is read around the page cache
    int result = check_bytes(check, scratch, name, number, pack, data, whole, err);
    rp_pages_free(data, pack->size);
    return result;
}

static int check_header(struct rp_check *check, const char *name, const struct rp_index_pack *pack, struct rp_error *err)
{
    uint8_t header[RP_PACK_HEADER];
    struct rp_repo *repo = check->repo;
    if (repo->backend->ops->get(repo->backend, name, 0, header, sizeof header, err))
        return -1;
    return rp_pack_check_header(header, pack->id, repo->config.encrypted, err) ? rp_context(err, "%s", name) : 0;
}

void rp_check_mark(struct rp_check *check, const uint8_t pack[RP_PACK_ID], bool damaged)
{
    struct rp_error err = {0};
    char hex[RP_HEX(RP_PACK_ID)];
    rp_hex(pack, RP_PACK_ID, hex);
    if (rp_damage_mark(check->repo, pack, damaged, &err))
        rp_log(RP_LOG_WARNING, "backups go on taking what pack %s holds for stored: %s", hex, err.text);
}

struct look {
    struct rp_check *check;
    struct rp_scratch *scratch;
    uint32_t number;
    struct rp_index_pack pack;
    char name[RP_PACK_NAME];
    bool read_data, whole;
};

static int look_at(void *context, struct rp_error *err)
{
    struct look *look = context;
    look->whole = true;
    return look->read_data ? check_content(look->check, look->scratch, look->name, look->number, &look->pack, &look->whole, err)
                           : check_header(look->check, look->name, &look->pack, err);
}

static void check_pack(struct rp_check *check, uint32_t number, bool read_data)
{
    struct look look = {.check = check, .number = number, .read_data = read_data};
    struct rp_error err = {0};
    rp_index_pack(check->index, number, &look.pack);
    rp_pack_name(look.pack.id, look.name);
    look.scratch = rp_scratch_take(check->repo);
    bool lost = look_at(&look, &err) && rp_damage_stays(check->repo, check->repo->patience_ms, &err, look_at, &look);
    rp_scratch_give(check->repo, look.scratch);
    if (err.code == RP_ERR_NOT_FOUND) {
        // Removed since it was listed, by a writer that found no room: what a point needs of it is missed there.
        rp_index_forget_pack(check->index, look.pack.id);
        return;
    }
    if (err.code)
        rp_damages_pack(check->damages, number, rp_damages_add(check->damages, look.name, err.text));
    if (err.code && !lost)
        return; // it could not be read now, which says nothing about its bytes
    bool damaged = lost || !look.whole;
    if ((damaged || read_data) && damaged != look.pack.damaged)
        rp_check_mark(check, look.pack.id, damaged);
}

static void read_pack(void *argument)
{
    struct job *job = argument;
    struct rp_index_pack pack;
    rp_index_pack(job->check->index, job->number, &pack);
    check_pack(job->check, job->number, true);
    __atomic_add_fetch(job->read, pack.size, __ATOMIC_RELAXED);
    free(job);
}

int rp_check_packs(struct rp_check *check, bool read_data, struct rp_error *err)
{
    uint64_t read = 0;
    int result = 0;
    struct rp_pool *pool = read_data ? rp_pool_new(MAX_THREADS, 1) : NULL;
    for (uint32_t i = 0, count = rp_index_pack_count(check->index); i < count && result == 0; i++) {
        struct rp_index_pack pack;
        rp_index_pack(check->index, i, &pack);
        if (!pack.present || pack.unreadable)
            continue;
        if (!read_data) {
            check_pack(check, i, false);
            continue;
        }
        struct job *job = rp_xmalloc(sizeof *job);
        *job = (struct job){check, i, &read};
        rp_pool_run(pool, read_pack, job); // waits while all threads are busy: that paces the progress
        check->done = __atomic_load_n(&read, __ATOMIC_RELAXED);
        result = rp_check_progress(check, err);
    }
    rp_pool_free(pool);
    check->done = read;
    return result;
}
