// The tracker in memory: construction, facts.
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
    rct->state = &rct->own;
    rp_rct_coarse_init(&rct->coarse, fs, disk_path);
    pthread_mutex_init(&rct->lock, NULL);
    return rct;
}

void rp_rct_abandon(struct rp_rct *rct)
{
    if (!rct)
        return;
    rp_rct_pages_clear(&rct->pages);
    rp_rct_coarse_free(&rct->coarse);
    rp_shm_close(rct->pages.shm);
    rp_store_close(rct->store);
    pthread_mutex_destroy(&rct->lock);
    free(rct->present);
    free(rct->path);
    free(rct);
}

void rp_rct_adopt_header(struct rp_rct *rct)
{
    atomic_store(&rct->state->epoch, rct->header.epoch);
    atomic_store(&rct->virtual_size, rct->header.virtual_size);
    atomic_store(&rct->state->changed, rct->header.changed ? rct->header.epoch : 0);
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

void rp_rct_change_all(struct rp_rct *rct, uint64_t virtual_size)
{
    struct rp_rct_header *h = &rct->header;
    h->virtual_size = virtual_size;
    h->changed = true;
    h->floor_count = 0;
    h->merging = (struct rp_guid){{0}};
    rp_rct_floors_add(h, 0, h->epoch);
    rp_rct_adopt_header(rct);
    rp_rct_forget_pages(rct);
}

struct rp_guid rp_rct_stem(const struct rp_rct *rct)
{
    return atomic_load(&rct->state->touched) ? rct->header.tracking : rct->keep;
}

uint32_t rp_rct_unit_size(const struct rp_rct *rct) { return rct->header.unit_size; }

// Under the lock, because what is shared is unmapped under it.
uint32_t rp_rct_epoch(const struct rp_rct *rct)
{
    rp_rct_enter(rct);
    uint32_t epoch = atomic_load(&rct->state->epoch);
    rp_rct_leave(rct);
    return epoch;
}

bool rp_rct_newer_changes(const struct rp_rct *rct)
{
    rp_rct_enter(rct);
    bool changed = atomic_load(&rct->state->changed) == atomic_load(&rct->state->epoch);
    rp_rct_leave(rct);
    return changed;
}

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
    uint32_t epoch = atomic_load(&rct->state->epoch);
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
