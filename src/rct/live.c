// While the guest writes: marks, the regions that they need, and the writing of the array in the background.
#include <stdlib.h>

#include "base/log.h"
#include "base/num.h"
#include "rct/tracker.h"

// False: nothing of the range is inside the disk.
static bool clip(struct rp_rct *rct, uint64_t offset, uint64_t length, uint64_t *last)
{
    uint64_t size = atomic_load_explicit(&rct->virtual_size, memory_order_relaxed);
    if (!length || offset >= size)
        return false;
    *last = offset + rp_min64(length, size - offset) - 1;
    return true;
}

static uint32_t since_of(struct rp_rct *rct, uint64_t unit)
{
    struct rp_rct_page *page = rp_rct_pages_get(&rct->pages, unit / RP_RCT_PAGE_UNITS);
    return page ? atomic_load_explicit(&page->since[unit % RP_RCT_PAGE_UNITS], memory_order_relaxed) : 0;
}

// What has changed in this epoch already needs its region no more: either the array is durable since then, or the region
// that was set for it still counts.
static bool units_covered(struct rp_rct *rct, uint64_t offset, uint64_t last)
{
    uint32_t epoch = atomic_load_explicit(&rct->state->epoch, memory_order_relaxed);
    for (uint64_t unit = offset >> rct->unit_shift; unit <= last >> rct->unit_shift; unit++)
        if (since_of(rct, unit) != epoch)
            return false;
    return true;
}

bool rp_rct_covered(struct rp_rct *rct, uint64_t offset, uint64_t length)
{
    struct rp_rct_generation *g = atomic_load_explicit(&rct->coarse.current, memory_order_acquire);
    uint64_t last;
    if (!g || !clip(rct, offset, length, &last))
        return true;
    for (uint64_t r = offset >> RP_MRT_REGION_SHIFT; r <= last >> RP_MRT_REGION_SHIFT; r++)
        if (!rp_rct_bit(g->set, r))
            return units_covered(rct, offset, last);
    return true;
}

int rp_rct_cover(struct rp_rct *rct, uint64_t offset, uint64_t length, struct rp_error *err)
{
    uint64_t last;
    if (!clip(rct, offset, length, &last))
        return 0;
    return rp_rct_coarse_set(&rct->coarse, offset >> RP_MRT_REGION_SHIFT, last >> RP_MRT_REGION_SHIFT, err);
}

// Somebody marks what he did not cover. It is covered here, at the price of a sync; and if that cannot be had, the change
// must not happen.
static void cover_late(struct rp_rct *rct, uint64_t region)
{
    struct rp_error err = {0};
    if (!rp_rct_coarse_set(&rct->coarse, region, region, &err))
        return;
    rp_log(RP_LOG_ERROR, "a change cannot be tracked: %s", err.text);
    abort();
}

// A word that is right already costs no write to a shared cache line.
static void raise_word(_Atomic uint32_t *word, uint32_t value)
{
    if (atomic_load_explicit(word, memory_order_relaxed) != value)
        atomic_store_explicit(word, value, memory_order_relaxed);
}

void rp_rct_mark(struct rp_rct *rct, uint64_t offset, uint64_t length)
{
    uint64_t last_byte;
    if (!clip(rct, offset, length, &last_byte))
        return;
    struct rp_rct_generation *g = atomic_load_explicit(&rct->coarse.current, memory_order_acquire);
    uint64_t unit = offset >> rct->unit_shift, last = last_byte >> rct->unit_shift;
    // The gate orders this against a seal, so relaxed is enough here.
    uint32_t epoch = atomic_load_explicit(&rct->state->epoch, memory_order_relaxed);
    while (unit <= last) {
        struct rp_rct_page *page = rp_rct_pages_get(&rct->pages, unit / RP_RCT_PAGE_UNITS);
        if (!page)
            page = rp_rct_pages_make(&rct->pages, unit / RP_RCT_PAGE_UNITS);
        uint64_t end = rp_min64(last + 1, (unit / RP_RCT_PAGE_UNITS + 1) * RP_RCT_PAGE_UNITS);
        bool news = false;
        for (; unit < end; unit++) {
            _Atomic uint32_t *since = &page->since[unit % RP_RCT_PAGE_UNITS];
            if (atomic_load_explicit(since, memory_order_relaxed) == epoch)
                continue;
            uint64_t region = rp_max64(offset, unit << rct->unit_shift) >> RP_MRT_REGION_SHIFT;
            if (!rp_rct_coarse_holds(&rct->coarse, region))
                cover_late(rct, region);
            if (g)
                rp_rct_bit_raise(g->fresh, region);
            // A plain store: nothing in the array is later than the current epoch.
            atomic_store_explicit(since, epoch, memory_order_relaxed);
            news = true;
        }
        if (news) {
            // Always stored, after the value: who clears it and then reads the values misses none.
            atomic_store_explicit(&page->dirty, true, memory_order_release);
            raise_word(&rct->state->changed, epoch);
            raise_word(&rct->state->touched, true);
        }
    }
    for (uint64_t r = offset >> RP_MRT_REGION_SHIFT; g && r <= last_byte >> RP_MRT_REGION_SHIFT; r++)
        rp_rct_bit_raise(g->written, r);
    // In shared memory all of this must have happened before the change does.
    atomic_signal_fence(memory_order_seq_cst);
}

static bool anything_to_flush(struct rp_rct *rct)
{
    if (rp_rct_coarse_count(&rct->coarse))
        return true;
    for (uint64_t i = 0; (i = rp_rct_pages_next(&rct->pages, i)) < RP_RCT_PAGES_MAX; i++)
        if (atomic_load(&rp_rct_pages_get(&rct->pages, i)->dirty))
            return true;
    return false;
}

// A live session with a bitmap, whose epoch is not sealed: what comes after that is for rp_rct_freeze. The lock is held.
static bool can_flush(struct rp_rct *rct)
{
    return rct->live && atomic_load(&rct->coarse.current) && atomic_load(&rct->state->epoch) == rct->header.epoch;
}

static int write_array(struct rp_rct *rct, struct rp_error *err)
{
    bool changed = atomic_load(&rct->state->changed) == rct->header.epoch;
    if (rp_rct_write_pages(rct, err))
        return -1;
    return rct->unnamed || changed != rct->header.changed ? rp_rct_write_header(rct, false, err) : 0;
}

int rp_rct_flush(struct rp_rct *rct, struct rp_gate *gate, struct rp_error *err)
{
    rp_rct_enter(rct);
    bool go = can_flush(rct) && anything_to_flush(rct);
    int failed = 0;
    if (go && rct->failed)
        failed = rp_fail(err, RP_ERR_IO, "%s: an earlier write failed", rct->path);
    else if (go && !atomic_load(&rct->coarse.previous)) // else an earlier flush found no room after it
        failed = rp_rct_coarse_turn(&rct->coarse, err);
    rp_rct_leave(rct);
    if (!go || failed)
        return failed;
    // Who is inside may have asked in the old generation, and mark only now: his mark must be in the array that is written.
    rp_gate_wait(gate);
    rp_rct_enter(rct);
    if (can_flush(rct))
        failed = write_array(rct, err) || rp_rct_coarse_retire(&rct->coarse, rct->header.sequence, err);
    rp_rct_leave(rct);
    return failed ? -1 : 0;
}

uint64_t rp_rct_exposed(const struct rp_rct *rct)
{
    struct rp_rct *r = (struct rp_rct *)rct;
    rp_rct_enter(r);
    uint64_t size = atomic_load(&r->virtual_size), exposed = 0;
    if (r->live)
        exposed = atomic_load(&r->coarse.current) ? rp_min64(size, rp_rct_coarse_count(&r->coarse) << RP_MRT_REGION_SHIFT) : size;
    rp_rct_leave(r);
    return exposed;
}
