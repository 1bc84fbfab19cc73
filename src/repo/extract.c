#include "repo/extract.h"

#include <stdlib.h>
#include <string.h>

#include "repo/blocks.h"
#include "repo/damage.h"
#include "repo/frame.h"
#include "repo/pages.h"
#include "repo/tree.h"

#define WINDOW (512u << 10)  // blocks that are looked up and sorted together: 32 GiB of data, 28 MiB of memory
#define JOB_BYTES (8u << 20) // of a pack, read at once
#define JOB_GAP (256u << 10) // what is not wanted is read all the same when it is shorter
#define JOB_RAW (64u << 20)  // of what is decoded
#define JOB_WANTED 32768u    // places on the disk: one block can be at very many

struct wanted {
    uint8_t id[RP_ID_BYTES];
    struct rp_location at;
    uint32_t block; // from the window's first
};

struct rp_extract_job {
    struct rp_index_pack pack;
    uint64_t first_block;
    uint32_t from, size; // in the pack
    size_t count;
    struct wanted wanted[];
};

struct buffers { // of one running job
    struct buffers *next;
    uint8_t *stored, *raw;
};

struct rp_extract {
    struct rp_repo *repo;
    struct rp_repo_root root;
    struct rp_ranges *lost; // under the lock; NULL: nothing may be
    rp_extract_room_fn *room;
    void *context;
    uint64_t next_block;   // the next window begins here
    uint64_t first_block;  // of this window
    struct wanted *window; // sorted
    size_t count, done;
    bool looked;           // at the repository, since it began: see rp_blocks_locate
    pthread_mutex_t lock;  // what follows
    struct buffers *idle;
    bool ended;            // no more jobs are given out
};

struct rp_extract *rp_extract_new(struct rp_repo *repo, const struct rp_repo_root *root, struct rp_ranges *lost,
                                  rp_extract_room_fn *room, void *context)
{
    struct rp_extract *extract = rp_xcalloc(1, sizeof *extract);
    extract->repo = repo;
    extract->root = *root;
    extract->lost = lost;
    extract->room = room;
    extract->context = context;
    pthread_mutex_init(&extract->lock, NULL);
    return extract;
}

static void free_buffers(struct buffers *buffers)
{
    for (struct buffers *next; buffers; buffers = next) {
        next = buffers->next;
        rp_pages_free(buffers->stored, JOB_BYTES);
        rp_pages_free(buffers->raw, RP_FRAME_MAX_RAW);
        free(buffers);
    }
}

void rp_extract_free(struct rp_extract *extract)
{
    if (!extract)
        return;
    free_buffers(extract->idle);
    pthread_mutex_destroy(&extract->lock);
    free(extract->window);
    free(extract);
}

static uint64_t length_of(const struct rp_extract *extract, uint64_t block)
{
    return rp_min64(RP_REPO_BLOCK, extract->root.size - block * RP_REPO_BLOCK);
}

// A block that cannot be had. Neighbours often follow each other.
static int lose(struct rp_extract *extract, uint64_t block, const struct rp_error *why, struct rp_error *err)
{
    if (!extract->lost || !rp_damage_is(why))
        return rp_fail_as(err, why);
    uint64_t offset = block * RP_REPO_BLOCK, length = length_of(extract, block);
    pthread_mutex_lock(&extract->lock);
    struct rp_range *last = extract->lost->count ? &extract->lost->items[extract->lost->count - 1] : NULL;
    if (last && last->offset + last->length == offset)
        last->length += length;
    else
        rp_ranges_push(extract->lost, offset, length);
    pthread_mutex_unlock(&extract->lock);
    return 0;
}

// ---- planning -------------------------------------------------------------------------------------------------------

// The best place to read a block from: next to the one before it, when there is a choice.
static int locate(struct rp_extract *extract, struct wanted *wanted, const struct wanted *before, struct rp_error *err)
{
    struct rp_location places[RP_INDEX_MAX_COPIES];
    int count = rp_blocks_locate(extract->repo->blocks, wanted->id, 0, &extract->looked, places, err);
    if (count < 0)
        return -1;
    wanted->at = places[0];
    for (int i = 0; i < count && before; i++)
        if (places[i].level == 0 && places[i].pack == before->at.pack) {
            wanted->at = places[i];
            break;
        }
    return 0;
}

static int add_node(void *context, uint64_t block, const uint8_t *ids, uint32_t id_count, struct rp_error *err)
{
    struct rp_extract *extract = context;
    if (extract->count + RP_NODE_IDS > WINDOW || block - extract->first_block > UINT32_MAX - RP_NODE_IDS) {
        extract->next_block = block;
        return 1;
    }
    for (uint32_t i = 0; i < id_count; i++) {
        if (rp_id_is_zero(ids + (size_t)i * RP_ID_BYTES))
            continue;
        struct wanted *wanted = &extract->window[extract->count];
        memcpy(wanted->id, ids + (size_t)i * RP_ID_BYTES, RP_ID_BYTES);
        wanted->block = (uint32_t)(block + i - extract->first_block);
        struct rp_error why = {0};
        if (!locate(extract, wanted, extract->count ? wanted - 1 : NULL, &why))
            extract->count++;
        else if (lose(extract, block + i, &why, err))
            return -1;
    }
    return 0;
}

// While the window is still in the order of the disk.
static int tell_room(const struct rp_extract *extract, struct rp_error *err)
{
    for (size_t i = 0, next; extract->room && i < extract->count; i = next) {
        for (next = i + 1; next < extract->count && extract->window[next].block == extract->window[next - 1].block + 1;)
            next++;
        uint64_t first = extract->first_block + extract->window[i].block, last = first + (next - i) - 1;
        uint64_t end = last * RP_REPO_BLOCK + length_of(extract, last);
        if (extract->room(extract->context, first * RP_REPO_BLOCK, end - first * RP_REPO_BLOCK, err))
            return -1;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;
    if (x->at.pack != y->at.pack)
        return x->at.pack < y->at.pack ? -1 : 1;
    if (x->at.frame != y->at.frame)
        return x->at.frame < y->at.frame ? -1 : 1;
    if (x->at.slot != y->at.slot)
        return x->at.slot < y->at.slot ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

static int fill_window(struct rp_extract *extract, struct rp_error *err)
{
    if (!extract->window) {
        // Small disks must not cost a window's worth.
        uint64_t blocks = rp_align_up(rp_min64(rp_tree_blocks(extract->root.size), WINDOW), RP_NODE_IDS);
        extract->window = rp_xmalloc(blocks * sizeof *extract->window);
        rp_blocks_forget_damage(extract->repo->blocks); // what could not be read before is asked for once more
    }
    extract->count = extract->done = 0;
    extract->first_block = extract->next_block;
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges lost = {0};
    int result = rp_tree_walk(extract->repo, &extract->root, extract->next_block, add_node, extract,
                              extract->lost ? &lost : NULL, &extract->looked, err);
    if (result < 0)
        return -1;
    pthread_mutex_lock(&extract->lock);
    for (size_t i = 0; i < lost.count; i++)
        rp_ranges_push(extract->lost, lost.items[i].offset, lost.items[i].length);
    pthread_mutex_unlock(&extract->lock);
    if (result == 0)
        extract->next_block = rp_tree_blocks(extract->root.size);
    if (tell_room(extract, err))
        return -1;
    if (extract->count)
        qsort(extract->window, extract->count, sizeof *extract->window, by_place);
    return 0;
}

static bool same_frame(const struct rp_location *a, const struct rp_location *b)
{
    return a->pack == b->pack && a->frame == b->frame && a->offset == b->offset && a->stored == b->stored &&
           a->level == b->level && a->compression == b->compression && a->last == b->last;
}

// A restore of many disks must not keep the memory of each.
static void end(struct rp_extract *extract)
{
    free(extract->window);
    extract->window = NULL;
    pthread_mutex_lock(&extract->lock);
    extract->ended = true;
    free_buffers(extract->idle);
    extract->idle = NULL;
    pthread_mutex_unlock(&extract->lock);
}

int rp_extract_next(struct rp_extract *extract, struct rp_extract_job **job, uint64_t *bytes, struct rp_error *err)
{
    while (extract->done == extract->count) {
        if (extract->next_block >= rp_tree_blocks(extract->root.size)) {
            end(extract);
            return 0;
        }
        if (rp_tree_check_root(&extract->root, err) || rp_repo_need_index(extract->repo, NULL, err) || fill_window(extract, err))
            return -1;
    }
    const struct wanted *first = &extract->window[extract->done];
    uint64_t from = rp_align_down(first->at.offset, RP_PAGE), end = from, raw = 0;
    size_t count = 0;
    *bytes = 0;
    for (const struct wanted *w = first; w < extract->window + extract->count && w->at.pack == first->at.pack; w++) {
        if (!count || !same_frame(&w->at, &w[-1].at)) {
            uint64_t next_end = (uint64_t)w->at.offset + w->at.stored;
            if (count && (next_end - from > JOB_BYTES - RP_PAGE || w->at.offset > end + JOB_GAP || raw > JOB_RAW))
                break;
            end = rp_max64(end, next_end);
            raw += rp_frame_raw_size(&w->at);
        }
        if (count == JOB_WANTED)
            break;
        *bytes += length_of(extract, extract->first_block + w->block);
        count++;
    }
    struct rp_extract_job *made = rp_xmalloc(sizeof *made + count * sizeof *first);
    rp_index_pack(extract->repo->index, first->at.pack, &made->pack);
    made->first_block = extract->first_block;
    made->from = (uint32_t)from;
    end = rp_min64(rp_align_up(end, RP_PAGE), made->pack.size); // whole pages: then the read goes around the page cache
    made->size = end > from ? (uint32_t)(end - from) : 0;       // nothing: the index says what cannot be
    made->count = count;
    memcpy(made->wanted, first, count * sizeof *first);
    extract->done += count;
    *job = made;
    return 1;
}

// ---- doing it -------------------------------------------------------------------------------------------------------

static struct buffers *take_buffers(struct rp_extract *extract)
{
    pthread_mutex_lock(&extract->lock);
    struct buffers *buffers = extract->idle;
    if (buffers)
        extract->idle = buffers->next;
    pthread_mutex_unlock(&extract->lock);
    if (buffers)
        return buffers;
    buffers = rp_xcalloc(1, sizeof *buffers);
    buffers->stored = rp_pages_new(JOB_BYTES);
    buffers->raw = rp_pages_new(RP_FRAME_MAX_RAW);
    return buffers;
}

static void give_buffers(struct rp_extract *extract, struct buffers *buffers)
{
    pthread_mutex_lock(&extract->lock);
    buffers->next = extract->ended ? NULL : extract->idle;
    if (extract->ended)
        free_buffers(buffers);
    else
        extract->idle = buffers;
    pthread_mutex_unlock(&extract->lock);
}

struct running {
    struct rp_extract *extract;
    const struct rp_extract_job *job;
    struct rp_scratch *scratch;
    uint8_t key[RP_KEY_BYTES];
    struct buffers *buffers;
    rp_extract_put_fn *put;
    void *context;
};

// Gives blocks on, in runs that lie together both in the frame and on the disk.
static int put_blocks(const struct running *running, const struct wanted *wanted, size_t count, struct rp_error *err)
{
    const struct rp_extract *extract = running->extract;
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && wanted[next].at.slot == wanted[next - 1].at.slot + 1 &&
                           wanted[next].block == wanted[next - 1].block + 1;)
            next++;
        uint64_t block = running->job->first_block + wanted[i].block;
        uint64_t length = rp_min64((next - i) * (uint64_t)RP_REPO_BLOCK, extract->root.size - block * RP_REPO_BLOCK);
        if (running->put(running->context, block * RP_REPO_BLOCK,
                         running->buffers->raw + (size_t)wanted[i].at.slot * RP_REPO_BLOCK, (uint32_t)length, err))
            return -1;
    }
    return 0;
}

// One by one, from whatever copy is good.
static int put_singly(const struct running *running, const struct wanted *wanted, size_t count, struct rp_error *err)
{
    uint8_t *block = running->buffers->raw;
    for (size_t i = 0; i < count; i++) {
        struct wanted alone = wanted[i];
        struct rp_error why = {0};
        alone.at.slot = 0;
        int failed = rp_blocks_get_patiently(running->extract->repo->blocks, wanted[i].id, 0, block, &running->extract->looked, &why)
                         ? lose(running->extract, running->job->first_block + wanted[i].block, &why, err)
                         : put_blocks(running, &alone, 1, err);
        if (failed)
            return -1;
    }
    return 0;
}

static bool is_whole(const struct running *running, const struct wanted *wanted, size_t count)
{
    uint8_t hash[RP_ID_BYTES];
    for (size_t i = 0; i < count; i++) {
        if (i && wanted[i].at.slot == wanted[i - 1].at.slot) { // one block at several places of the disk
            if (memcmp(wanted[i].id, wanted[i - 1].id, RP_ID_BYTES))
                return false;
            continue;
        }
        rp_cipher_id(running->scratch->cipher, 0, running->buffers->raw + (size_t)wanted[i].at.slot * RP_REPO_BLOCK,
                     RP_REPO_BLOCK, hash);
        if (memcmp(hash, wanted[i].id, RP_ID_BYTES))
            return false;
    }
    return true;
}

static int put_frame(const struct running *running, const struct wanted *wanted, size_t count, bool there, struct rp_error *err)
{
    const struct rp_extract_job *job = running->job;
    const struct rp_location *at = &wanted->at;
    bool fits = there && at->level == 0 && at->offset >= job->from &&
                (uint64_t)at->offset + at->stored <= (uint64_t)job->from + job->size;
    if (fits && rp_frame_decode(running->scratch, job->pack.id, running->key, at,
                                running->buffers->stored + (at->offset - job->from), running->buffers->raw, NULL) == 0 &&
        is_whole(running, wanted, count))
        return put_blocks(running, wanted, count, err);
    return put_singly(running, wanted, count, err);
}

int rp_extract_run(struct rp_extract *extract, struct rp_extract_job *job, rp_extract_put_fn *put, void *context,
                   struct rp_error *err)
{
    struct rp_repo *repo = extract->repo;
    char name[RP_PACK_NAME];
    struct running running = {.extract = extract, .job = job, .put = put, .context = context};
    running.scratch = rp_scratch_take(repo);
    running.buffers = take_buffers(extract);
    rp_crypto_derive(repo->crypto, "refpoint 1 pack", job->pack.id, RP_PACK_ID, running.key);
    // What cannot be read here may be in another pack, too: put_singly finds out, and says what is wrong.
    bool there = job->size && repo->backend->ops->get(repo->backend, rp_pack_name(job->pack.id, name), job->from, running.buffers->stored,
                                         job->size, NULL) == 0;
    int result = 0;
    for (size_t i = 0, next; i < job->count && result == 0; i = next) {
        for (next = i + 1; next < job->count && same_frame(&job->wanted[next].at, &job->wanted[i].at);)
            next++;
        result = put_frame(&running, job->wanted + i, next - i, there, err);
    }
    rp_crypto_wipe(running.key, sizeof running.key);
    give_buffers(extract, running.buffers);
    rp_scratch_give(repo, running.scratch);
    free(job);
    return result;
}
