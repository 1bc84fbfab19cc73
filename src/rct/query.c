// What changed since an id, through a chain.
#include "base/num.h"
#include "rct/tracker.h"

// The units from `unit` on that a floor calls changed after `epoch`: the first of them, or UINT64_MAX.
static uint64_t floor_after(const struct rp_rct_header *h, uint32_t epoch)
{
    for (size_t i = 0; i < h->floor_count; i++)
        if (h->floors[i].epoch > epoch)
            return h->floors[i].unit;
    return UINT64_MAX;
}

static int add_page(struct rp_rct *rct, uint64_t index, uint64_t first, uint64_t end, uint32_t epoch,
                    struct rp_ranges *out, struct rp_error *err)
{
    struct rp_rct_page *page;
    if (rp_rct_load_page(rct, index, &page, err))
        return -1;
    uint64_t start = rp_max64(first, index * RP_RCT_PAGE_UNITS);
    uint64_t stop = rp_min64(end, (index + 1) * RP_RCT_PAGE_UNITS);
    for (uint64_t unit = start; page && unit < stop; unit++)
        if (atomic_load_explicit(&page->since[unit % RP_RCT_PAGE_UNITS], memory_order_relaxed) > epoch)
            rp_ranges_add(out, unit << rct->unit_shift, 1ull << rct->unit_shift);
    return 0;
}

// One file's own changes after `epoch` in units that touch the range. The lock is held.
static int add_layer(struct rp_rct *rct, uint32_t epoch, uint64_t offset, uint64_t length, struct rp_ranges *out,
                     struct rp_error *err)
{
    uint64_t size = atomic_load(&rct->virtual_size);
    if (offset >= size || !length)
        return 0;
    uint64_t first = offset >> rct->unit_shift;
    uint64_t end = ((offset + rp_min64(length, size - offset) - 1) >> rct->unit_shift) + 1;
    uint64_t all_from = rp_max64(floor_after(&rct->header, epoch), first);
    uint64_t stop = rp_min64(all_from, end);
    for (uint64_t i = first / RP_RCT_PAGE_UNITS; first < stop && i <= (stop - 1) / RP_RCT_PAGE_UNITS; i++)
        if (add_page(rct, i, first, stop, epoch, out, err))
            return -1;
    if (all_from < end)
        rp_ranges_add(out, all_from << rct->unit_shift, (end - all_from) << rct->unit_shift);
    return 0;
}

bool rp_rct_parent_fits(const struct rp_rct *child, const struct rp_rct *parent)
{
    // The child's own too: a merge gives it to the parent before the child is gone.
    const struct rp_rct_header *h = &child->header;
    const struct rp_guid accepted[] = {h->base[0], h->base[1], h->base[2], h->base[3], h->tracking, child->keep};
    const struct rp_guid *merging = parent->merged ? &parent->then_merging : &parent->header.merging;
    struct rp_guid stem = rp_rct_stem(parent);
    if (!rp_guid_is_zero(merging) && !rp_guid_equal(merging, &h->tracking) && !rp_guid_equal(merging, &h->base[2]) &&
        !rp_guid_equal(merging, &h->base[3]))
        return false;
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++)
        if (rp_guid_equal(&accepted[i], &stem))
            return true;
    return false;
}

bool rp_rct_layers_fit(struct rp_rct *child, struct rp_rct *parent)
{
    rp_rct_enter(child);
    rp_rct_enter(parent);
    bool fits = rp_rct_parent_fits(child, parent);
    rp_rct_leave(parent);
    rp_rct_leave(child);
    return fits;
}

// Not the half-done merge of a child that is not there.
static bool stands_alone(struct rp_rct *rct)
{
    rp_rct_enter(rct);
    bool alone = rp_guid_is_zero(rct->merged ? &rct->then_merging : &rct->header.merging);
    rp_rct_leave(rct);
    return alone;
}

int rp_rct_query(struct rp_rct *const *chain, size_t depth, const struct rp_rct_id *id, uint64_t offset,
                 uint64_t length, struct rp_ranges *changed, struct rp_error *err)
{
    char text[RP_RCT_ID_TEXT];
    for (size_t i = 0; i < depth; i++)
        if (!chain[i])
            return rp_fail(err, RP_ERR_TRACKING_OFF, "a file of the chain has no change tracking");
    if (!depth)
        return rp_fail(err, RP_ERR_TRACKING_OFF, "no change tracking");

    RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
    for (size_t i = 0; i < depth; i++) {
        bool fits = i ? rp_rct_layers_fit(chain[i - 1], chain[i]) : stands_alone(chain[0]);
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges layer = {0};
        rp_rct_enter(chain[i]);
        int failed = 0;
        if (!i && !rp_rct_knows(&chain[0]->header, id))
            failed = rp_fail(err, RP_ERR_TRACKING_ID, "%s: does not know the id %s", chain[0]->path,
                             rp_rct_id_format(id, text));
        else if (!i && !rp_range_ok(offset, length, atomic_load(&chain[0]->virtual_size)))
            failed = rp_fail(err, RP_ERR_INVALID, "%s: changes asked beyond the end of the disk", chain[0]->path);
        else if (fits)
            failed = add_layer(chain[i], id->epoch, offset, length, &layer, err);
        else // somebody wrote to the parent behind its children's back, or its child is not there
            rp_ranges_add(&layer, offset, length);
        rp_rct_leave(chain[i]);
        if (failed)
            return -1;
        for (size_t j = 0; j < layer.count; j++)
            rp_ranges_push(&found, layer.items[j].offset, layer.items[j].length);
    }
    rp_ranges_normalize(&found);
    struct rp_range range = {offset, length};
    struct rp_ranges asked = {&range, 1, 1};
    rp_ranges_intersect(&found, &asked, changed);
    return 0;
}
