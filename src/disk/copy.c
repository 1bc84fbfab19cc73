// Sharing is no work, and writers of one file in memory only wait for each other: the caller's thread does both. Other
// bytes go to workers through a short queue; the caller's thread reports what they have done, and while it sleeps in
// `progress` the queue runs dry.
#include "disk/copy.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

enum {
    GRAIN = 64 << 10,     // zeros are looked for in units of this
    LOOK = 4096,          // most data can be told from zeros by so much of it
    MAX_WORKERS = 4,      // past the page cache: they keep the device busy, and hardly use a processor
    BUFFERED_WORKERS = 2, // one reads while the other has its turn to write
    REPORT = 1 << 20,     // bytes between two calls of `progress`
};

struct range {
    uint64_t offset, length;
};

enum way { // in the order in which they are tried; what the file systems refuse is not tried again
    SHARE,  // extents
    WITHIN, // the page cache, by the kernel
    BYTES,  // are read and written
};

struct rp_copy {
    struct rp_copy_job job;
    bool direct;          // `to` is written past the page cache
    enum way way;
    pthread_mutex_t turn; // of the one that writes through the page cache
    uint8_t *buffer;      // of the caller's thread
    uint64_t done;        // bytes reported, or about to be

    pthread_mutex_t lock;
    pthread_cond_t work, ready; // a range was queued, or the end came; one was done, or failed
    struct range queue[2 * MAX_WORKERS];
    unsigned queued, running, threads;
    uint64_t copied;      // by workers, not reported yet
    bool ending, failed;
    struct rp_error error; // the first
    pthread_t ids[MAX_WORKERS];
};

static struct rp_store *store_of(const struct rp_copy_side *side) { return side->vhdx ? side->vhdx->store : side->raw; }

static uint8_t *new_buffer(const struct rp_copy *c)
{
    uint8_t *buffer = aligned_alloc(RP_STORE_ALIGN, c->job.step);
    if (!buffer)
        abort(); // as rp_xmalloc does
    return buffer;
}

// A step of one thread on its way into the target.
struct load {
    struct rp_copy *copy;
    uint8_t *buffer;
    uint64_t offset; // of what the buffer holds
};

static bool all_zero(const uint8_t *data, size_t size)
{
    return !data[0] && !memcmp(data, data + 1, size - 1); // memcmp is vectorised, and ends at the first difference
}

static int read_source(struct rp_copy *c, void *data, uint64_t size, uint64_t offset, struct rp_error *err)
{
    const struct rp_copy_side *from = &c->job.from;
    if (from->vhdx)
        return rp_vhdx_read(from->vhdx, data, (uint32_t)size, offset, err);
    uint64_t inside = offset < from->raw_size ? rp_min64(size, from->raw_size - offset) : 0;
    memset((uint8_t *)data + inside, 0, size - inside);
    return inside ? rp_store_pread(from->raw, data, inside, offset, err) : 0;
}

// Where a file has the bytes at `offset`; no store when they are in none, or cannot be shared.
struct place {
    struct rp_store *store;
    uint64_t file_offset, length;
};

// What is behind it is only known from a replayed log.
static uint64_t file_end(const struct rp_vhdx *v) { return v->overlay.file_size ? v->file_size : UINT64_MAX; }

static int find_in_chain(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct place *place, struct rp_error *err)
{
    for (; v; v = v->parent) {
        uint64_t size = atomic_load(&v->size);
        struct rp_piece piece;
        if (offset >= size)
            break;
        if (rp_blocks_look(v, offset, rp_min64(length, size - offset), &piece, err))
            return -1;
        length = piece.length;
        if (piece.state == RP_BLOCK_FULL && rp_range_ok(piece.file_offset, length, file_end(v))) {
            *place = (struct place){v->store, piece.file_offset, length};
            return 0;
        }
        if (piece.state != RP_BLOCK_NOT_PRESENT || !v->layout.has_parent)
            break;
    }
    *place = (struct place){NULL, 0, length};
    return 0;
}

static int find_source(struct rp_copy *c, uint64_t offset, uint64_t length, struct place *place, struct rp_error *err)
{
    const struct rp_copy_side *from = &c->job.from;
    if (from->vhdx)
        return find_in_chain(from->vhdx, offset, length, place, err);
    bool inside = offset < from->raw_size;
    *place = (struct place){inside ? from->raw : NULL, offset, inside ? rp_min64(length, from->raw_size - offset) : length};
    return 0;
}

static int put(struct rp_copy *c, const struct rp_payload *payload, uint64_t offset, uint64_t length, struct rp_error *err)
{
    const struct rp_copy_side *to = &c->job.to;
    return to->vhdx ? rp_payload_write(to->vhdx, length, offset, payload, err)
                    : payload->put(payload->context, to->raw, offset, offset, length, err);
}

// ---- copying

static int put_loaded(void *context, struct rp_store *store, uint64_t file_offset, uint64_t offset, uint64_t length,
                      struct rp_error *err)
{
    const struct load *l = context;
    const uint8_t *data = l->buffer + (offset - l->offset);
    return l->copy->job.cached ? rp_store_pwrite(store, data, length, file_offset, err)
                               : rp_store_pwrite_direct(store, data, length, file_offset, err);
}

// Up to where the bytes at `at` are, or are not, all zeros.
static uint64_t run_end(const uint8_t *data, uint64_t at, uint64_t size, bool zeros)
{
    while (at < size && all_zero(data + at, rp_min64(GRAIN, size - at)) == zeros)
        at += rp_min64(GRAIN, size - at);
    return at;
}

static int write_loaded(struct load *l, uint64_t size, struct rp_error *err)
{
    const struct rp_payload payload = {put_loaded, l};
    if (!l->copy->job.fresh)
        return put(l->copy, &payload, l->offset, size, err);
    for (uint64_t at = 0, start; at < size;) {
        start = run_end(l->buffer, at, size, true);
        at = run_end(l->buffer, start, size, false);
        if (at > start && put(l->copy, &payload, l->offset + start, at - start, err))
            return -1;
    }
    return 0;
}

static int copy_bytes(struct rp_copy *c, uint8_t *buffer, uint64_t offset, uint64_t length, struct rp_error *err)
{
    while (length) {
        uint64_t n = rp_min64(length, c->job.step - offset % c->job.step);
        struct load l = {c, buffer, offset};
        if (read_source(c, buffer, n, offset, err))
            return -1;
        if (!c->direct)
            pthread_mutex_lock(&c->turn);
        int failed = write_loaded(&l, n, err);
        if (!c->direct)
            pthread_mutex_unlock(&c->turn);
        if (failed)
            return -1;
        offset += n;
        length -= n;
    }
    return 0;
}

// ---- sharing, and copying by the kernel

// What cannot be moved so, as the bytes at the edges of what is shared: straight from file to file.
static int put_bytes(struct load *l, struct rp_store *store, uint64_t file_offset, uint64_t offset, uint64_t length,
                     struct rp_error *err)
{
    while (length) {
        uint64_t n = rp_min64(length, l->copy->job.step);
        if (read_source(l->copy, l->buffer, n, offset, err) || rp_store_pwrite(store, l->buffer, n, file_offset, err))
            return -1;
        file_offset += n;
        offset += n;
        length -= n;
    }
    return 0;
}

// Shares what of [from, from + length) has the same place within a grain on both sides, or copies all of it: `*head`
// bytes before are left, and `*moved` bytes are done.
static int move(struct rp_copy *c, struct rp_store *store, uint64_t file_offset, const struct place *from,
                uint64_t *head, uint64_t *moved, struct rp_error *err)
{
    uint64_t grain = c->way == SHARE ? RP_STORE_SHARE : 1;
    uint64_t start = rp_align_up(from->file_offset, grain);
    uint64_t end = rp_align_down(from->file_offset + from->length, grain);
    *head = from->length;
    *moved = 0;
    if (!from->store || end <= start || c->way == BYTES || !rp_is_aligned(from->file_offset ^ file_offset, grain))
        return 0;
    struct rp_error why = {0};
    uint64_t before = start - from->file_offset;
    if (!(c->way == SHARE ? rp_store_clone_range : rp_store_copy_range)(store, file_offset + before, from->store, start,
                                                                        end - start, &why)) {
        *head = before;
        *moved = end - start;
        return 0;
    }
    if (why.code != RP_ERR_UNSUPPORTED) {
        if (err && err->code == RP_OK)
            *err = why;
        return -1;
    }
    c->way = c->way == SHARE && !c->direct ? WITHIN : BYTES;
    return 0;
}

static int put_moved(void *context, struct rp_store *store, uint64_t file_offset, uint64_t offset, uint64_t length,
                     struct rp_error *err)
{
    struct load *l = context;
    while (length) {
        struct place from;
        uint64_t head, moved;
        if (find_source(l->copy, offset, length, &from, err) ||
            move(l->copy, store, file_offset, &from, &head, &moved, err) ||
            put_bytes(l, store, file_offset, offset, head, err))
            return -1;
        file_offset += head + moved;
        offset += head + moved;
        length -= head + moved;
    }
    return 0;
}

static int source_zero(struct rp_copy *c, uint64_t offset, uint64_t length, bool *zero, struct rp_error *err)
{
    *zero = true;
    for (uint64_t n = rp_min64(LOOK, length); *zero && n; offset += n, length -= n, n = length) {
        if (read_source(c, c->buffer, n, offset, err))
            return -1;
        *zero = all_zero(c->buffer, n);
    }
    return 0;
}

// Where the zeros, or the data, at `*at` end.
static int source_run(struct rp_copy *c, uint64_t *at, uint64_t end, bool zeros, struct rp_error *err)
{
    while (*at < end) {
        uint64_t n = rp_min64(GRAIN - *at % GRAIN, end - *at);
        bool zero;
        if (source_zero(c, *at, n, &zero, err))
            return -1;
        if (zero != zeros)
            break;
        *at += n;
    }
    return 0;
}

static int move_range(struct rp_copy *c, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct load l = {c, c->buffer, offset};
    const struct rp_payload payload = {put_moved, &l};
    if (c->way == SHARE || !c->job.fresh)
        return put(c, &payload, offset, length, err);
    for (uint64_t at = offset, end = offset + length, start; at < end;) {
        if (source_run(c, &at, end, true, err))
            return -1;
        start = at;
        if (source_run(c, &at, end, false, err) || (at > start && put(c, &payload, start, at - start, err)))
            return -1;
    }
    return 0;
}

// ---- workers

// Keeps the first error; -1.
static int set_failed(struct rp_copy *c, const struct rp_error *why)
{
    pthread_mutex_lock(&c->lock);
    if (!c->failed)
        c->error = *why;
    c->failed = true;
    pthread_mutex_unlock(&c->lock);
    return -1;
}

static void *worker(void *argument)
{
    struct rp_copy *c = argument;
    uint8_t *buffer = new_buffer(c);
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->queued && !c->ending)
            pthread_cond_wait(&c->work, &c->lock);
        if (!c->queued)
            break;
        struct range range = c->queue[0];
        memmove(c->queue, c->queue + 1, --c->queued * sizeof *c->queue);
        c->running++;
        bool skip = c->failed;
        pthread_mutex_unlock(&c->lock);
        struct rp_error why = {0};
        if (!skip && copy_bytes(c, buffer, range.offset, range.length, &why))
            set_failed(c, &why);
        pthread_mutex_lock(&c->lock);
        c->running--;
        c->copied += range.length;
        pthread_cond_signal(&c->ready);
    }
    pthread_mutex_unlock(&c->lock);
    free(buffer);
    return NULL;
}

static void start_workers(struct rp_copy *c)
{
    unsigned most = c->direct ? MAX_WORKERS : BUFFERED_WORKERS;
    while (c->threads < most && c->threads < c->job.workers && !pthread_create(&c->ids[c->threads], NULL, worker, c))
        c->threads++;
}

// ---- the caller's thread

static int report(struct rp_copy *c, uint64_t bytes)
{
    do {
        uint64_t n = rp_min64(bytes, REPORT);
        c->done += n;
        bytes -= n;
        if (c->job.progress && c->job.progress(c->job.context, c->done, c->job.total)) {
            struct rp_error why = {0};
            rp_fail(&why, RP_ERR_CANCELLED, "%s: stopped", c->job.name);
            return set_failed(c, &why);
        }
    } while (bytes);
    return 0;
}

// Reports what workers did, until no more than `limit` ranges are on their way.
static int await(struct rp_copy *c, unsigned limit)
{
    for (;;) {
        pthread_mutex_lock(&c->lock);
        while (!c->copied && !c->failed && c->queued + c->running > limit)
            pthread_cond_wait(&c->ready, &c->lock);
        uint64_t copied = c->copied;
        bool over = c->failed || c->queued + c->running <= limit;
        int failed = c->failed ? -1 : 0;
        c->copied = 0;
        pthread_mutex_unlock(&c->lock);
        if (failed || (copied && report(c, copied)))
            return -1;
        if (over)
            return 0;
    }
}

static int hand_over(struct rp_copy *c, uint64_t offset, uint64_t length)
{
    if (await(c, 2 * c->threads - 1))
        return -1;
    pthread_mutex_lock(&c->lock);
    c->queue[c->queued++] = (struct range){offset, length};
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static int here(struct rp_copy *c, uint64_t offset, uint64_t length)
{
    struct rp_error why = {0};
    if (c->way != BYTES ? move_range(c, offset, length, &why) : copy_bytes(c, c->buffer, offset, length, &why))
        return set_failed(c, &why);
    return report(c, length);
}

static enum way first_way(const struct rp_copy *c)
{
    if (c->job.cached)
        return BYTES;
    if (!rp_store_clone_range(store_of(&c->job.to), 0, store_of(&c->job.from), 0, 0, NULL))
        return SHARE;
    return c->direct ? BYTES : WITHIN;
}

struct rp_copy *rp_copy_new(const struct rp_copy_job *job)
{
    struct rp_copy *c = rp_xcalloc(1, sizeof *c);
    c->job = *job;
    c->direct = !job->cached && rp_store_direct(store_of(&job->to));
    c->way = first_way(c);
    c->buffer = new_buffer(c);
    pthread_mutex_init(&c->turn, NULL);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->ready, NULL);
    return c;
}

static int give_error(const struct rp_copy *c, struct rp_error *err) // written once, before anybody saw that it failed
{
    if (err && err->code == RP_OK)
        *err = c->error;
    return -1;
}

int rp_copy_range(struct rp_copy *c, uint64_t offset, uint64_t length, struct rp_error *err)
{
    while (length) {
        uint64_t n = rp_min64(length, c->job.step - offset % c->job.step);
        if (c->way == BYTES && !c->job.cached && !c->threads)
            start_workers(c);
        if (c->threads ? hand_over(c, offset, n) : here(c, offset, n))
            return give_error(c, err);
        offset += n;
        length -= n;
    }
    return 0;
}

int rp_copy_check(struct rp_copy *c, struct rp_error *err)
{
    return await(c, UINT_MAX) || report(c, 0) ? give_error(c, err) : 0;
}

int rp_copy_end(struct rp_copy *c, struct rp_error *err)
{
    await(c, 0);
    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->threads; i++)
        pthread_join(c->ids[i], NULL);
    int failed = c->failed ? give_error(c, err) : 0;
    pthread_mutex_destroy(&c->turn);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->ready);
    free(c->buffer);
    free(c);
    return failed;
}
