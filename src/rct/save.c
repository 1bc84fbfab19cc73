// Between memory and file: slots, pages, the locks of the file.
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/num.h"
#include "rct/tracker.h"

struct slot {
    struct rp_rct_header header;
    uint8_t *bitmap;
    bool ours, valid;
};

static unsigned slot_of(uint64_t sequence) { return sequence % 2 ? 0 : 1; }

// Every page that the bitmap names lies inside the file: a file that was cut short is damaged as a whole, and no bitmap
// makes us hold more pages than the file has.
static bool pages_inside(const struct slot *slot, size_t bitmap_size, uint64_t size)
{
    while (bitmap_size && !slot->bitmap[bitmap_size - 1])
        bitmap_size--;
    if (!bitmap_size)
        return true;
    uint64_t pages = bitmap_size * 8 - (uint64_t)(__builtin_clz(slot->bitmap[bitmap_size - 1]) - 24);
    return rp_range_ok(RP_RCT_PAGES_AT, pages * RP_RCT_PAGE_SIZE, size);
}

// Sets ours and valid; a slot that breaks the format is only invalid. -1: the store failed, or a later version wrote it.
static int read_slot(struct rp_store *store, uint64_t size, int number, struct slot *slot, struct rp_error *err)
{
    uint64_t at = (uint64_t)number * RP_RCT_SLOT_SIZE;
    uint8_t head[RP_RCT_HEAD_SIZE];
    if (size < at + 8 || rp_store_pread(store, head, 8, at, err))
        return size < at + 8 ? 0 : -1;
    if (!rp_rct_has_signature(head))
        return 0;
    slot->ours = true;
    if (size < at + RP_RCT_HEAD_SIZE)
        return 0;
    if (rp_store_pread(store, head, sizeof head, at, err))
        return -1;
    struct rp_rct_areas areas;
    struct rp_error why = {0};
    if (rp_rct_head_decode(head, &slot->header, &areas, &why))
        return why.code == RP_ERR_UNSUPPORTED ? rp_fail(err, RP_ERR_TRACKING_OFF, "%s: %s", store->name, why.text) : 0;
    if (size < at + (areas.bitmap_size ? RP_RCT_BITMAP_AT + areas.bitmap_size : RP_RCT_LINEAGE_AT + areas.lineage_size))
        return 0;
    RP_AUTO_FREE uint8_t *lineage = rp_xmalloc(areas.lineage_size);
    slot->bitmap = rp_xmalloc(areas.bitmap_size);
    if ((areas.lineage_size && rp_store_pread(store, lineage, areas.lineage_size, at + RP_RCT_LINEAGE_AT, err)) ||
        (areas.bitmap_size && rp_store_pread(store, slot->bitmap, areas.bitmap_size, at + RP_RCT_BITMAP_AT, err)))
        return -1;
    slot->valid = rp_crc32c(0, slot->bitmap, areas.bitmap_size) == areas.bitmap_crc &&
                  pages_inside(slot, areas.bitmap_size, size) &&
                  !rp_rct_lineage_decode(lineage, &areas, &slot->header, NULL);
    return 0;
}

int rp_rct_read_slots(struct rp_rct *rct, enum rp_rct_found *found, struct rp_error *err)
{
    uint64_t size;
    if (rp_store_size(rct->store, &size, err))
        return -1;
    struct slot *slots = rp_xcalloc(2, sizeof *slots);
    int failed = 0;
    for (int i = 0; i < 2 && !failed; i++)
        failed = read_slot(rct->store, size, i, &slots[i], err);
    const struct slot *newest = NULL;
    for (int i = 0; i < 2; i++)
        if (slots[i].valid && (!newest || slots[i].header.sequence > newest->header.sequence))
            newest = &slots[i];
    *found = newest ? RP_RCT_FOUND : slots[0].ours || slots[1].ours ? RP_RCT_FOUND_DAMAGED : RP_RCT_FOUND_NOT_OURS;
    if (newest && !failed) {
        const struct slot *next = &slots[slot_of(newest->header.sequence + 1)];
        rct->torn = next->ours && !next->valid;
        rct->header = newest->header;
        rp_rct_adopt_header(rct);
        rp_rct_forget_pages(rct);
        memcpy(rct->present, newest->bitmap, rct->present_size);
    }
    free(slots[0].bitmap);
    free(slots[1].bitmap);
    free(slots);
    return failed;
}

// What finds no room is written again when there is some. After any other failure nobody knows what the file says.
static int lost(struct rp_rct *rct, const struct rp_error *why, struct rp_error *err)
{
    rct->failed |= why->code != RP_ERR_NO_SPACE;
    rct->unnamed = true;
    return rp_fail_as(err, why);
}

static int sync_file(struct rp_rct *rct, struct rp_error *err)
{
    rct->failed |= rp_store_flush(rct->store, err) != 0; // whatever the reason
    return rct->failed ? -1 : 0;
}

// What a torn write has left may not become whole by one that is torn, too.
static int clear_slot(struct rp_rct *rct, uint64_t at, struct rp_error *err)
{
    static const uint8_t nothing[RP_RCT_HEAD_SIZE];
    if (rp_store_pwrite(rct->store, nothing, sizeof nothing, at, err) || sync_file(rct, err))
        return -1;
    rct->torn = false;
    return 0;
}

int rp_rct_write_header(struct rp_rct *rct, bool clean, struct rp_error *err)
{
    struct rp_rct_header *h = &rct->header;
    if (rct->failed)
        return rp_fail(err, RP_ERR_IO, "%s: an earlier write failed", rct->path);
    RP_AUTO_FREE struct rp_rct_header *before = rp_xmalloc(sizeof *before);
    *before = *h;
    h->sequence++;
    h->clean = clean;
    h->virtual_size = atomic_load(&rct->virtual_size);
    h->changed = atomic_load(&rct->state->changed) == h->epoch; // also when a seal has begun the next one meanwhile
    // What a crash leaves may have been changed by the live session.
    h->stem = rct->live && !clean ? h->tracking : rp_rct_stem(rct);
    if (clean) {
        h->session = (struct rp_vhdx_session){0};
        h->doubt = RP_RCT_DOUBT_NONE;
        h->coarse = (struct rp_guid){{0}};
    }

    uint64_t at = (uint64_t)slot_of(h->sequence) * RP_RCT_SLOT_SIZE;
    uint8_t head[RP_RCT_HEAD_SIZE];
    RP_CLEANUP(rp_buf_clear) struct rp_buf lineage = {0};
    rp_rct_head_encode(h, rct->present, head, &lineage);
    struct rp_error why = {0};
    if (rct->torn && clear_slot(rct, at, &why)) {
        *h = *before;
        return lost(rct, &why, err);
    }
    if ((lineage.size && rp_store_pwrite(rct->store, lineage.data, lineage.size, at + RP_RCT_LINEAGE_AT, &why)) ||
        (rct->present_size &&
         rp_store_pwrite(rct->store, rct->present, rct->present_size, at + RP_RCT_BITMAP_AT, &why)) ||
        rp_store_pwrite(rct->store, head, sizeof head, at, &why)) {
        *h = *before; // the other slot counts; this one is tried again
        return lost(rct, &why, err);
    }
    if (sync_file(rct, err))
        return -1;
    rct->unnamed = false;
    return 0;
}

int rp_rct_create_file(struct rp_rct *rct, struct rp_error *err)
{
    RP_AUTO_FREE char *temporary = rp_xasprintf("%s.new", rct->path);
    if (rp_fs_unlink_if_there(rct->fs, temporary, err))
        return -1;
    rp_store_close(rct->store);
    rct->store = rp_fs_open(rct->fs, temporary, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!rct->store)
        return -1;
    rct->writable = true;
    rct->header.sequence = 0;
    if (rp_store_lock(rct->store, true, err) || rp_rct_write_header(rct, false, err) ||
        rp_fs_rename(rct->fs, temporary, rct->path, err)) {
        rp_fs_unlink(rct->fs, temporary, NULL);
        return -1;
    }
    return rp_fs_sync_parent(rct->fs, rct->path, err);
}

int rp_rct_take_file(struct rp_rct *rct, struct rp_error *err)
{
    RP_AUTO_FREE char *temporary = rp_xasprintf("%s.new", rct->path);
    return sync_file(rct, err) || rp_fs_unlink_if_there(rct->fs, temporary, err) ? -1 : 0;
}

int rp_rct_make_writable(struct rp_rct *rct, struct rp_error *err)
{
    if (!rct->writable) {
        struct rp_store *store = rp_fs_open(rct->fs, rct->path, RP_OPEN_WRITE, err);
        if (!store)
            return -1;
        rp_store_close(rct->store); // its shared lock would be in the way
        rct->store = store;
        rct->writable = true;
    }
    return rp_store_lock(rct->store, true, err) || rp_rct_take_file(rct, err) ? -1 : 0;
}

bool rp_rct_has_page(const struct rp_rct *rct, uint64_t index)
{
    return index / 8 < rct->present_size && rct->present[index / 8] >> index % 8 & 1;
}

int rp_rct_load_page(struct rp_rct *rct, uint64_t index, struct rp_rct_page **out, struct rp_error *err)
{
    struct rp_rct_page *page = *out = rp_rct_pages_get(&rct->pages, index);
    if (!rp_rct_has_page(rct, index) || (page && atomic_load(&page->loaded)))
        return 0;
    uint64_t at = RP_RCT_PAGES_AT + index * RP_RCT_PAGE_SIZE, size;
    uint8_t bytes[RP_RCT_PAGE_SIZE] = {0};
    uint32_t since[RP_RCT_PAGE_UNITS], epoch = atomic_load(&rct->state->epoch);
    if (rp_store_size(rct->store, &size, err) ||
        (rp_range_ok(at, sizeof bytes, size) && rp_store_pread(rct->store, bytes, sizeof bytes, at, err)))
        return -1;
    page = *out = rp_rct_pages_make(&rct->pages, index);
    if (rp_rct_page_decode(bytes, index, since)) {
        if (!rct->warned)
            rp_log(RP_LOG_WARNING, "%s: page %llu is damaged: that part of the disk counts as changed", rct->path,
                   (unsigned long long)index);
        rct->warned = true;
        atomic_store(&page->dirty, true);
        atomic_store(&rct->state->changed, epoch);
    }
    for (size_t i = 0; i < RP_RCT_PAGE_UNITS; i++)
        rp_rct_page_raise(page, i, since[i] < epoch ? since[i] : epoch);
    atomic_store(&page->loaded, true);
    return 0;
}

static int write_page(struct rp_rct *rct, uint64_t index, struct rp_error *err)
{
    struct rp_rct_page *page;
    if (rp_rct_load_page(rct, index, &page, err))
        return -1;
    uint32_t since[RP_RCT_PAGE_UNITS];
    uint8_t bytes[RP_RCT_PAGE_SIZE];
    atomic_exchange(&page->dirty, false); // before the copy: what comes later makes it dirty again
    for (size_t i = 0; i < RP_RCT_PAGE_UNITS; i++)
        since[i] = atomic_load_explicit(&page->since[i], memory_order_relaxed);
    rp_rct_page_encode(index, since, bytes);
    if (rp_store_pwrite(rct->store, bytes, sizeof bytes, RP_RCT_PAGES_AT + index * RP_RCT_PAGE_SIZE, err)) {
        atomic_store(&page->dirty, true);
        return -1;
    }
    rct->unnamed |= !rp_rct_has_page(rct, index);
    rct->present[index / 8] |= (uint8_t)(1 << index % 8);
    atomic_store(&page->loaded, true);
    return 0;
}

int rp_rct_write_pages(struct rp_rct *rct, struct rp_error *err)
{
    if (rct->failed)
        return rp_fail(err, RP_ERR_IO, "%s: an earlier write failed", rct->path);
    uint64_t count = rp_rct_page_count(atomic_load(&rct->virtual_size), rct->header.unit_size);
    bool wrote = false;
    struct rp_error why = {0};
    for (uint64_t i = 0; (i = rp_rct_pages_next(&rct->pages, i)) < count; i++) {
        // Also one that is in the file already, but was named no more after the disk had shrunk.
        if (!atomic_load(&rp_rct_pages_get(&rct->pages, i)->dirty) && rp_rct_has_page(rct, i))
            continue;
        if (write_page(rct, i, &why))
            return lost(rct, &why, err);
        wrote = true;
    }
    return wrote ? sync_file(rct, err) : 0;
}
