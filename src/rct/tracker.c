// The tracker in memory: construction, facts, marks.
#include "rct/tracker.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"

char *rp_rct_path(const char *disk_path) { return rp_xasprintf("%s.rct", disk_path); }

uint32_t rp_rct_unit_size_for(uint64_t virtual_size)
{
    uint32_t unit = RP_RCT_UNIT_MIN;
    while (rp_div_up(virtual_size, unit) > 128 * RP_MIB)
        unit *= 2;
    return unit;
}

struct rp_rct *rp_rct_new(struct rp_fs *fs, const char *disk_path)
{
    struct rp_rct *rct = rp_xcalloc(1, sizeof *rct);
    rct->fs = fs;
    rct->path = rp_rct_path(disk_path);
    pthread_mutex_init(&rct->lock, NULL);
    return rct;
}

void rp_rct_abandon(struct rp_rct *rct)
{
    if (!rct)
        return;
    rp_rct_pages_clear(&rct->pages);
    rp_store_close(rct->store);
    pthread_mutex_destroy(&rct->lock);
    free(rct->present);
    free(rct->path);
    free(rct);
}

void rp_rct_adopt_header(struct rp_rct *rct)
{
    atomic_store(&rct->epoch, rct->header.epoch);
    atomic_store(&rct->virtual_size, rct->header.virtual_size);
    atomic_store(&rct->changed, rct->header.changed);
    rct->unit_shift = (unsigned)__builtin_ctz(rct->header.unit_size);
}

void rp_rct_fit_bitmap(struct rp_rct *rct)
{
    size_t size = rp_rct_bitmap_size(atomic_load(&rct->virtual_size), rct->header.unit_size);
    uint8_t *bitmap = rp_xcalloc(1, size);
    if (rct->present)
        memcpy(bitmap, rct->present, rp_min64(size, rct->present_size));
    free(rct->present);
    rct->present = bitmap;
    rct->present_size = size;
}

void rp_rct_forget_pages(struct rp_rct *rct)
{
    rp_rct_pages_clear(&rct->pages);
    free(rct->present);
    rct->present = NULL;
    rct->present_size = 0;
    rp_rct_fit_bitmap(rct);
}

void rp_rct_raise(struct rp_rct *rct, uint64_t first, uint64_t end, uint32_t epoch)
{
    for (uint64_t unit = first; unit < end; unit++) {
        struct rp_rct_page *page = rp_rct_pages_make(&rct->pages, unit / RP_RCT_PAGE_UNITS);
        if (rp_rct_page_raise(page, unit % RP_RCT_PAGE_UNITS, epoch))
            atomic_store(&page->dirty, true);
    }
}

void rp_rct_add_floor(struct rp_rct *rct, uint64_t unit, uint32_t epoch)
{
    struct rp_rct_header *h = &rct->header;
    if (h->floor_count == RP_RCT_FLOORS_MAX) {
        size_t least = 0;
        for (size_t i = 1; i + 1 < h->floor_count; i++)
            if (h->floors[i + 1].unit - h->floors[i].unit < h->floors[least + 1].unit - h->floors[least].unit)
                least = i;
        rp_rct_raise(rct, h->floors[least].unit, h->floors[least + 1].unit, h->floors[least].epoch);
        memmove(h->floors + least, h->floors + least + 1, (--h->floor_count - least) * sizeof *h->floors);
    }
    rp_rct_floors_add(h, unit, epoch);
}

struct rp_guid rp_rct_stem(const struct rp_rct *rct)
{
    return atomic_load(&rct->touched) ? rct->header.tracking : rct->keep;
}

// A flag that is set already costs no write to a shared cache line.
static void raise_flag(atomic_bool *flag)
{
    if (!atomic_load_explicit(flag, memory_order_relaxed))
        atomic_store_explicit(flag, true, memory_order_relaxed);
}

void rp_rct_mark(struct rp_rct *rct, uint64_t offset, uint64_t length)
{
    uint64_t size = atomic_load_explicit(&rct->virtual_size, memory_order_relaxed);
    if (!length || offset >= size)
        return;
    uint64_t unit = offset >> rct->unit_shift;
    uint64_t last = (offset + rp_min64(length, size - offset) - 1) >> rct->unit_shift;
    // The gate orders this against a seal, so relaxed is enough here.
    uint32_t epoch = atomic_load_explicit(&rct->epoch, memory_order_relaxed);
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
            // A plain store: nothing in the array is later than the current epoch.
            atomic_store_explicit(since, epoch, memory_order_relaxed);
            news = true;
        }
        if (news) {
            raise_flag(&page->dirty);
            raise_flag(&rct->changed);
            raise_flag(&rct->touched);
        }
    }
}

uint32_t rp_rct_unit_size(const struct rp_rct *rct) { return rct->header.unit_size; }

uint32_t rp_rct_epoch(const struct rp_rct *rct) { return atomic_load(&rct->epoch); }

bool rp_rct_newer_changes(const struct rp_rct *rct) { return atomic_load(&rct->changed); }

struct rp_guid rp_rct_tracking_guid(const struct rp_rct *rct)
{
    rp_rct_enter(rct);
    struct rp_guid guid = rct->header.tracking;
    rp_rct_leave(rct);
    return guid;
}

bool rp_rct_last_sealed(const struct rp_rct *rct, struct rp_rct_id *id)
{
    rp_rct_enter(rct);
    const struct rp_rct_header *h = &rct->header;
    uint32_t epoch = atomic_load(&rct->epoch);
    bool found = true;
    if (epoch > h->first)
        *id = (struct rp_rct_id){h->tracking, epoch - 1};
    else if (h->lineage_count)
        *id = (struct rp_rct_id){h->lineage[h->lineage_count - 1].tracking, h->lineage[h->lineage_count - 1].last};
    else
        found = false;
    rp_rct_leave(rct);
    return found;
}
