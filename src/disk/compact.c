// Makes a file shorter: what lies last moves into free space before it. Whatever a moment of this shows is a file with the
// same content: a block is copied, or shared, into space that nothing names; that is made durable; then the table names the
// new place, through the log; and the file is cut only when its session has ended and no log asks for its old size.
//
// Only space that was free when the file was opened is used, so nothing that a log entry of this session may still put in
// place lies there; and sector bitmaps, which do not change here, can be moved like any block.
#include <stdlib.h>

#include "base/num.h"
#include "disk/copy.h"
#include "disk/impl.h"

enum { STEP = 2 << 20 };

struct move {
    uint64_t index; // of the table
    uint64_t from, to, size;
};

struct plan {
    struct move *moves; // the last in the file first
    size_t count, capacity;
    uint64_t bytes;     // to be moved
    uint64_t end;       // of the file afterwards
};

static int by_place_from_the_end(const void *a, const void *b)
{
    const struct move *x = a, *y = b;
    return x->from < y->from ? 1 : x->from > y->from ? -1 : 0;
}

static uint64_t front_end(const struct rp_vhdx *v)
{
    uint64_t end = v->header.log_offset + v->header.log_length;
    for (size_t i = 0; i < v->region_count; i++)
        end = rp_max64(end, v->regions[i].offset + v->regions[i].length);
    return end;
}

static void add_move(struct plan *plan, const struct move *move)
{
    if (plan->count == plan->capacity) {
        plan->capacity = plan->capacity ? plan->capacity * 2 : 256;
        plan->moves = rp_xrealloc(plan->moves, plan->capacity * sizeof *plan->moves);
    }
    plan->moves[plan->count++] = *move;
}

// Everything that ends beyond `limit`, sorted; `end` is that of the rest.
static int find_last(struct rp_vhdx *v, uint64_t limit, struct plan *plan, struct rp_error *err)
{
    plan->end = front_end(v);
    for (uint64_t i = 0, n = v->layout.entries; (i = rp_table_skip(v, i, n)) < n; i++) {
        uint64_t entry;
        if (rp_table_get(v, RP_UNLOCKED, i, &entry, err))
            return -1;
        bool bitmap = i % (v->layout.chunk_ratio + 1) == v->layout.chunk_ratio;
        struct move m = {i, rp_bat_offset(entry), 0, bitmap ? RP_VHDX_ALIGN : v->layout.block_size};
        if (!rp_bat_has_space(entry)) // an unmapped block that kept its own moves as if it had data
            continue;
        if (m.from + m.size > limit)
            add_move(plan, &m);
        else
            plan->end = rp_max64(plan->end, m.from + m.size);
    }
    if (plan->count)
        qsort(plan->moves, plan->count, sizeof *plan->moves, by_place_from_the_end);
    return 0;
}

// The first gap at or after `*first` that has room, before the place where it is now; 0: none. What is too small for one
// stays too small for the next of that size.
static uint64_t take_gap(struct rp_ranges *gaps, size_t *first, uint64_t size, uint64_t before)
{
    while (*first < gaps->count && gaps->items[*first].length < size)
        ++*first;
    struct rp_range *gap = gaps->items + *first;
    if (*first == gaps->count || gap->offset + size > before)
        return 0;
    uint64_t offset = gap->offset;
    gap->offset += size;
    gap->length -= size;
    return offset;
}

// Right after the open: what is free then is all in `dirty`. `gaps` gets what is free of it afterwards.
static int make_plan(struct rp_vhdx *v, struct rp_ranges *gaps, struct plan *plan, struct rp_error *err)
{
    for (size_t i = 0; i < v->space.dirty.count; i++)
        rp_ranges_push(gaps, v->space.dirty.items[i].offset, v->space.dirty.items[i].length);
    rp_ranges_normalize(gaps);
    if (find_last(v, v->space.end - rp_ranges_total(gaps), plan, err))
        return -1;
    // From the end on, until one does not fit: what lies before that would not make the file shorter.
    size_t moved = 0, first[2] = {0};
    for (; moved < plan->count; moved++) {
        struct move *m = &plan->moves[moved];
        m->to = take_gap(gaps, &first[m->size == RP_VHDX_ALIGN], m->size, m->from);
        if (!m->to)
            break;
        plan->bytes += m->size;
        plan->end = rp_max64(plan->end, m->to + m->size);
    }
    if (moved < plan->count)
        plan->end = rp_max64(plan->end, plan->moves[moved].from + plan->moves[moved].size);
    plan->count = moved;
    return 0;
}

static void plan_clear(struct plan *plan) { free(plan->moves); }

static int copy_bytes(struct rp_vhdx *v, const struct move *m, uint8_t *buffer, struct rp_error *err)
{
    for (uint64_t done = 0; done < m->size; done += STEP) {
        uint64_t n = rp_min64(STEP, m->size - done);
        if (rp_store_pread(v->store, buffer, n, m->from + done, err) ||
            rp_store_pwrite_direct(v->store, buffer, n, m->to + done, err))
            return -1;
    }
    return 0;
}

static int copy_or_share(struct rp_vhdx *v, const struct move *m, bool *sharing, uint8_t *buffer, struct rp_error *err)
{
    struct rp_error why = {0};
    if (*sharing && !rp_store_clone_range(v->store, m->to, v->store, m->from, m->size, &why))
        return 0;
    if (*sharing && why.code != RP_ERR_UNSUPPORTED) {
        if (err && err->code == RP_OK)
            *err = why;
        return -1;
    }
    *sharing = false;
    return copy_bytes(v, m, buffer, err);
}

static int rename_block(struct rp_vhdx *v, const struct move *m, struct rp_error *err)
{
    uint64_t entry;
    rp_lock(v);
    int failed = rp_reserve(v, 1, err);
    if (!failed) {
        failed = rp_table_back(v, m->index, err) || rp_table_get(v, RP_LOCKED, m->index, &entry, err) ||
                 rp_table_put(v, m->index, m->to | rp_bat_state(entry), err);
        if (!failed && m->index % (v->layout.chunk_ratio + 1) == v->layout.chunk_ratio)
            rp_cache_drop(v, m->from, m->size); // clean pages of a sector bitmap: the place may get another use
        if (!failed)
            rp_space_free(v, m->from, m->size);
        v->barrier = true; // what was moved is durable before the entry that says where
        rp_unreserve(v, 1);
    }
    rp_unlock(v);
    atomic_store(&v->written, true);
    return failed;
}

static int run(struct rp_vhdx *v, const struct plan *plan, rp_progress_fn *progress, void *context, struct rp_error *err)
{
    RP_AUTO_FREE uint8_t *buffer = aligned_alloc(RP_STORE_ALIGN, STEP);
    bool sharing = true;
    uint64_t done = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct move *m = &plan->moves[i];
        if (!buffer || copy_or_share(v, m, &sharing, buffer, err) || rename_block(v, m, err))
            return buffer ? -1 : rp_fail(err, RP_ERR_NO_MEMORY, "%s: compact", v->path);
        done += m->size;
        if (progress && progress(context, done, plan->bytes))
            return rp_fail(err, RP_ERR_CANCELLED, "%s: stopped; what was moved stays moved", v->path);
    }
    return 0;
}

// The places that moves go to are no longer free, and must not be punched.
static void take_places(struct rp_vhdx *v, const struct rp_ranges *left)
{
    v->space.dirty.count = 0;
    for (size_t i = 0; i < left->count; i++)
        if (left->items[i].length)
            rp_ranges_push(&v->space.dirty, left->items[i].offset, left->items[i].length);
}

int rp_vhdx_compact(struct rp_vhdx *v, bool change, uint64_t *before, uint64_t *after,
                    int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct rp_error *err)
{
    RP_CLEANUP(plan_clear) struct plan plan = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges gaps = {0};
    if (atomic_load(&v->begun) != RP_SESSION_NONE)
        return rp_fail(err, RP_ERR_STATE, "%s: was changed since it was opened", v->path);
    if (rp_session_check(v, err) || rp_store_size(v->store, before, err) || make_plan(v, &gaps, &plan, err))
        return -1;
    *after = plan.end;
    if (!change || plan.end >= *before)
        return 0;
    take_places(v, &gaps);
    if (rp_session_begin(v, RP_SESSION_FILE, err))
        return -1;
    struct rp_error why = {0};
    int failed = run(v, &plan, progress, context, &why);
    if (rp_vhdx_freeze(v, &why)) // also after a failure: what the table says is right at any moment
        failed = -1;
    if (failed && err && err->code == RP_OK)
        *err = why;
    return failed ? -1 : rp_store_size(v->store, after, err);
}
