// Merging a child's tracking into its parent's: the per-unit maximum.
#include <string.h>

#include "base/num.h"
#include "rct/tracker.h"

// Both locks are held. The units of the two files may differ in size. The parent's pages are loaded when they are written.
static void fold_page(const struct rp_rct *child, struct rp_rct *parent, uint64_t index, const struct rp_rct_page *page)
{
    uint64_t size = atomic_load(&parent->virtual_size);
    for (uint64_t j = 0; j < RP_RCT_PAGE_UNITS; j++) {
        uint32_t since = atomic_load_explicit(&page->since[j], memory_order_relaxed);
        uint64_t offset = (index * RP_RCT_PAGE_UNITS + j) << child->unit_shift;
        if (!since || offset >= size)
            continue;
        uint64_t last = offset + rp_min64(child->header.unit_size, size - offset) - 1;
        rp_rct_raise(parent, offset >> parent->unit_shift, (last >> parent->unit_shift) + 1, since);
    }
}

static int fold_pages(struct rp_rct *child, struct rp_rct *parent, struct rp_error *err)
{
    uint64_t child_pages = rp_rct_page_count(atomic_load(&child->virtual_size), child->header.unit_size);
    for (uint64_t i = 0; i < child_pages; i++) {
        struct rp_rct_page *page;
        if (rp_rct_load_page(child, i, &page, err))
            return -1;
        if (page)
            fold_page(child, parent, i, page);
    }
    return 0;
}

static void fold_floors(const struct rp_rct *child, struct rp_rct *parent)
{
    for (size_t i = 0; i < child->header.floor_count; i++) {
        const struct rp_rct_floor *floor = &child->header.floors[i];
        rp_rct_add_floor(parent, floor->unit << child->unit_shift >> parent->unit_shift, floor->epoch);
    }
}

// Both locks are held. In memory only.
static void inherit_back(struct rp_rct *child, struct rp_rct *parent, bool fits)
{
    const struct rp_rct_header *from = &child->header;
    struct rp_rct_header *to = &parent->header;
    if (!rp_guid_equal(&to->tracking, &from->tracking)) {
        // A merge of this file into its own parent may have been interrupted under the GUID that goes.
        to->base[3] = to->base[2];
        to->base[2] = to->tracking;
    }
    to->tracking = from->tracking;
    to->first = from->first;
    to->epoch = from->epoch;
    memcpy(to->lineage, from->lineage, sizeof to->lineage);
    to->lineage_count = from->lineage_count;
    to->merging = from->tracking;
    parent->then_merging = from->merging;
    parent->keep = child->keep;
    // A live child's session goes on in the parent: what a crash leaves may have been changed by it.
    atomic_store(&parent->state->touched, atomic_load(&child->state->touched) || child->live);
    atomic_store(&parent->state->epoch, from->epoch);
    atomic_store(&parent->state->changed, fits ? atomic_load(&child->state->changed) : from->epoch);
}

// If this stops half way, a later session of the child, which has another GUID, must know its parent again: by what this
// merge makes of it, and by what an earlier one, interrupted as well, has made of it.
static int note_in_child(struct rp_rct *child, const struct rp_rct *parent, bool fits, struct rp_error *err)
{
    struct rp_rct_header *h = &child->header;
    const struct rp_guid *before = rp_guid_is_zero(&parent->header.merging) ? &h->base[2] : &parent->header.merging;
    if (fits && !rp_guid_equal(before, &h->tracking))
        h->base[3] = *before;
    h->base[2] = h->tracking;
    return rp_rct_write_header(child, false, err);
}

// Everything that must be durable before the first page is overwritten, and the .mrt of a session that will go on. While that
// session has changed nothing, its regions do not count.
static int prepare(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                   const struct rp_vhdx_session *session, struct rp_error *err)
{
    if (rp_rct_make_writable(parent, err))
        return -1;
    bool fits = rp_rct_parent_fits(child, parent);
    if (child->live && note_in_child(child, parent, fits, err))
        return -1;
    rp_rct_coarse_stop(&parent->coarse);
    parent->merged = false;
    atomic_store(&parent->state->arrived, 0);
    parent->header.bound = *disk;
    parent->header.session = *session;
    // Only values that the child has as well will come to the array, and nothing yet to the disk.
    parent->header.doubt = fits ? RP_RCT_DOUBT_NONE : RP_RCT_DOUBT_ALL;
    if (rp_rct_write_header(parent, false, err))
        return -1;
    enum rp_rct_doubt doubt = parent->header.doubt;
    if (child->live && rp_rct_begin_coarse(parent, &child->coarse, err))
        return -1;
    parent->header.doubt = doubt;
    return 0;
}

// `going_on`: the parent's session does, as the live one.
static int merge(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                 const struct rp_vhdx_session *session, bool going_on, struct rp_error *err)
{
    if (prepare(child, parent, disk, session, err))
        return -1;
    bool fits = rp_rct_parent_fits(child, parent);

    uint64_t child_size = atomic_load(&child->virtual_size);
    if (child_size > atomic_load(&parent->virtual_size)) {
        if (rp_rct_coarse_grow(&parent->coarse, child_size, err))
            return -1;
        atomic_store(&parent->virtual_size, child_size); // what is new counts as changed in the child
        rp_rct_fit_bitmap(parent);
    }
    if (!fits) {
        // Somebody wrote to the parent behind the child's back: to every id that the child knows, all of it changed.
        parent->header.floor_count = 0;
        rp_rct_floors_add(&parent->header, 0, child->header.epoch);
        rp_rct_forget_pages(parent);
    } else {
        if (fold_pages(child, parent, err))
            return -1;
        fold_floors(child, parent);
    }
    inherit_back(child, parent, fits);
    if (rp_rct_write_pages(parent, err))
        return -1;
    parent->header.doubt = RP_RCT_DOUBT_NONE;
    parent->live |= going_on;
    return rp_rct_write_header(parent, false, err);
}

static int merge_locked(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                        const struct rp_vhdx_session *session, bool going_on, struct rp_error *err)
{
    rp_rct_enter(child);
    rp_rct_enter(parent);
    int failed = merge(child, parent, disk, session, going_on, err);
    rp_rct_leave(parent);
    rp_rct_leave(child);
    return failed;
}

int rp_rct_prepare_merge(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                         const struct rp_vhdx_session *session, struct rp_error *err)
{
    return merge_locked(child, parent, disk, session, true, err);
}

int rp_rct_merge(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                 const struct rp_vhdx_session *session, struct rp_error *err)
{
    return merge_locked(child, parent, disk, session, false, err);
}

int rp_rct_ready_merge(struct rp_rct *parent, struct rp_error *err)
{
    rp_rct_enter(parent);
    // The session that goes on changes the disk before rp_rct_thaw.
    parent->header.doubt = rp_rct_live_doubt(parent);
    int failed = rp_rct_write_header(parent, false, err);
    rp_rct_leave(parent);
    return failed;
}

void rp_rct_finish_merge(struct rp_rct *child, struct rp_rct *parent)
{
    rp_rct_enter(child);
    rp_rct_enter(parent);
    // All pages of the child are in memory since it was prepared.
    for (uint64_t i = 0; (i = rp_rct_pages_next(&child->pages, i)) < RP_RCT_PAGES_MAX; i++)
        fold_page(child, parent, i, rp_rct_pages_get(&child->pages, i));
    uint32_t epoch = atomic_load(&parent->state->epoch);
    if (atomic_load(&child->state->changed) == epoch)
        atomic_store(&parent->state->changed, epoch);
    // Where memory was short, a kill loses marks that no region here has: then the parent stays half merged, and all of it
    // counts.
    if (!atomic_load(&parent->state->incomplete))
        atomic_store(&parent->state->arrived, 1);
    rp_rct_leave(parent);
    rp_rct_leave(child);
}
