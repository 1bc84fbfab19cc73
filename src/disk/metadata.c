// Changes of a disk's description through the log: begin of a data change, parent locator, growth.
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/num.h"
#include "disk/impl.h"

int rp_vhdx_begin_data_change(struct rp_vhdx *v, struct rp_error *err) { return rp_session_begin(v, RP_SESSION_DATA,
                                                                                                 err); }

// ---- parent locator

static int by_offset(const void *a, const void *b)
{
    const struct rp_vhdx_item *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

// A place in the metadata region with room for `size` bytes beside the other items: the locator's own, or a gap.
static uint32_t find_room(const struct rp_vhdx *v, const struct rp_vhdx_item *items, size_t count, size_t locator,
                          size_t size)
{
    RP_AUTO_FREE struct rp_vhdx_item *others = rp_xmalloc(count * sizeof *others);
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (i != locator)
            others[n++] = items[i];
    qsort(others, n, sizeof *others, by_offset);
    uint32_t own = items[locator].offset, own_end = v->metadata_length;
    for (size_t i = n; i-- > 0 && others[i].offset >= own;)
        own_end = others[i].offset;
    if (own && own_end - own >= size)
        return own;
    uint32_t free_at = RP_VHDX_TABLE;
    for (size_t i = 0; i < n; i++) {
        if (others[i].offset >= free_at && others[i].offset - free_at >= size)
            return free_at;
        uint64_t end = rp_align_up((uint64_t)others[i].offset + others[i].length, RP_VHDX_PAGE);
        free_at = (uint32_t)rp_max64(free_at, end);
    }
    return free_at <= v->metadata_length && v->metadata_length - free_at >= size ? free_at : 0;
}

// Under lock.
static int store_locator(struct rp_vhdx *v, const struct rp_buf *item, struct rp_error *err)
{
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(RP_VHDX_TABLE);
    RP_AUTO_FREE struct rp_vhdx_item *items = rp_xcalloc(RP_VHDX_MAX_ENTRIES, sizeof *items);
    size_t n;
    if (rp_cache_read(v, v->metadata_offset, table, RP_VHDX_TABLE, err) ||
        rp_vhdx_items_decode(table, v->metadata_length, items, &n, err))
        return -1;
    struct rp_vhdx_item *locator = rp_vhdx_items_find(items, n, &rp_vhdx_item_parent_locator);
    if (!locator)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: metadata: no parent locator", v->path);
    uint32_t room = find_room(v, items, n, (size_t)(locator - items), item->size);
    if (!room)
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: no room for a parent locator of %zu bytes", v->path, item->size);
    locator->offset = room;
    locator->length = (uint32_t)item->size;
    uint8_t *entry = table + 32 + 32 * (size_t)(locator - items);
    rp_put_le32(entry + 16, locator->offset);
    rp_put_le32(entry + 20, locator->length);
    return rp_cache_write(v, v->metadata_offset + room, item->data, item->size, err) ||
                   rp_cache_write(v, v->metadata_offset, table, RP_VHDX_TABLE, err) || rp_vhdx_load_locator(v, locator,
                                                                                                            err)
               ? -1
               : 0;
}

int rp_vhdx_set_parent_locator(struct rp_vhdx *v, const struct rp_guid *linkage, const struct rp_guid *linkage2,
                               const char *path, struct rp_error *err)
{
    RP_CLEANUP(rp_locator_clear) struct rp_locator locator = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf item = {0};
    if (!v->info.has_parent)
        return rp_fail(err, RP_ERR_INVALID, "%s: not a differencing disk", v->path);
    if (rp_session_begin(v, RP_SESSION_FILE, err))
        return -1;
    for (size_t i = 0; i < v->locator.count; i++) // what others put there stays
        rp_locator_set(&locator, v->locator.pairs[i].key, v->locator.pairs[i].value);
    rp_locator_set_guid(&locator, "parent_linkage", linkage);
    rp_locator_set_guid(&locator, "parent_linkage2", linkage2);
    if ((path && rp_locator_set_paths(&locator, v->path, path, err)) || rp_locator_encode(&locator, &item, err))
        return -1;
    if (rp_space_back(v, v->metadata_offset, v->metadata_length, err))
        return -1;
    size_t pages = 3 + item.size / RP_VHDX_PAGE; // the table's entry, and the item wherever it lies
    if (pages > v->log.batch)
        return rp_fail(err, RP_ERR_INVALID, "%s: a parent locator of %zu bytes", v->path, item.size);
    rp_lock(v);
    int failed = rp_reserve(v, pages, err);
    if (!failed) {
        failed = store_locator(v, &item, err);
        rp_unreserve(v, pages);
    }
    rp_unlock(v);
    return failed ? -1 : rp_flush(v, RP_FLUSH_ALL, err);
}

// ---- growth

// Under lock: whether the table's entries from `from` to `to` are all zero, as new ones must be.
static int table_is_clear(struct rp_vhdx *v, uint64_t from, uint64_t to, bool *clear, struct rp_error *err)
{
    uint8_t page[RP_VHDX_PAGE];
    *clear = true;
    for (uint64_t at = from * 8; at < to * 8 && *clear;) {
        size_t n = (size_t)rp_min64(to * 8 - at, RP_VHDX_PAGE - at % RP_VHDX_PAGE);
        if (rp_cache_read(v, v->table.offset + at, page, n, err))
            return -1;
        for (size_t i = 0; i < n; i++)
            *clear &= !page[i];
        at += n;
    }
    return 0;
}

// Under lock: the same for what the last chunk has behind the last block, up to its sector bitmap.
static int last_chunk_is_clear(struct rp_vhdx *v, bool *clear, struct rp_error *err)
{
    const struct rp_vhdx_layout *l = &v->layout;
    if (!l->has_parent)
        return 0;
    return table_is_clear(v, rp_layout_block_entry(l, l->blocks - 1) + 1, rp_layout_bitmap_entry(l, l->chunks - 1), clear, err);
}

// Under lock, nothing dirty: copies the table to a larger place, in file space that nobody names yet.
static int copy_table(struct rp_vhdx *v, uint64_t entries, uint64_t to, struct rp_error *err)
{
    enum { STEP = RP_VHDX_PAGE };
    uint8_t buffer[STEP];
    for (uint64_t at = 0; (at = rp_table_skip(v, at / 8, entries) * 8) < entries * 8; at += STEP) {
        size_t n = (size_t)rp_min64(STEP, entries * 8 - at);
        if (rp_cache_read(v, v->table.offset + at, buffer, n, err))
            return -1;
        bool zero = true;
        for (size_t i = 0; i < n && zero; i++)
            zero = !buffer[i];
        if (!zero && rp_store_pwrite(v->store, buffer, n, to + at, err))
            return -1;
    }
    return 0;
}

// Under lock: both copies of the region table name the new place of the block table.
static int name_table(struct rp_vhdx *v, uint64_t offset, uint32_t length, struct rp_error *err)
{
    for (size_t i = 0; i < v->region_count; i++) {
        if (!rp_guid_equal(&v->regions[i].id, &rp_vhdx_region_bat))
            continue;
        v->regions[i].offset = offset;
        v->regions[i].length = length;
    }
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(RP_VHDX_TABLE);
    rp_vhdx_regions_encode(v->regions, v->region_count, table);
    for (int copy = 0; copy < 2; copy++)
        if (rp_cache_write(v, RP_VHDX_REGIONS_OFFSET(copy), table, RP_VHDX_TABLE, err))
            return -1;
    atomic_store(&v->table.offset, offset);
    v->bat_length = length;
    return 0;
}

static int move_table(struct rp_vhdx *v, const struct rp_vhdx_layout *layout, bool *named, struct rp_error *err)
{
    uint64_t old = v->table.offset, old_length = v->bat_length, offset;
    uint64_t length = rp_align_up(layout->entries * 8, RP_VHDX_ALIGN);
    if (rp_space_take(v, length, &offset, err))
        return -1;
    memset(v->table.backed, 0, rp_div_up(v->table.pages, 64) * 8); // the new place
    if (copy_table(v, v->layout.entries, offset, err))
        return -1;
    v->barrier = true; // the copy must be durable before the entry that names it
    *named = true;
    if (name_table(v, offset, (uint32_t)length, err))
        return -1;
    rp_cache_drop(v, old, old_length);
    rp_space_free(v, old, old_length);
    return 0;
}

// Under lock: what the last block has behind the old end must be zeros, in its parent's place too.
static int clear_tail(struct rp_vhdx *v, struct rp_error *err)
{
    static const uint8_t zeros[1 << 16];
    uint64_t size = v->layout.size, block = rp_block_of(v, size - 1), end = (block + 1) * v->layout.block_size, entry;
    if (size == end)
        return 0;
    if (rp_block_get(v, block, &entry, err))
        return -1;
    if (!rp_bat_present(entry))
        return 0;
    uint64_t place = rp_bat_offset(entry), stop = place + v->layout.block_size;
    uint64_t at = place + (size - block * v->layout.block_size);
    for (; at < stop; at += rp_min64(stop - at, sizeof zeros))
        if (rp_store_pwrite(v->store, zeros, (size_t)rp_min64(stop - at, sizeof zeros), at, err))
            return -1;
    v->barrier = true;
    return 0;
}

// Under lock.
static int store_size(struct rp_vhdx *v, uint64_t size, struct rp_error *err)
{
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(RP_VHDX_TABLE);
    RP_AUTO_FREE struct rp_vhdx_item *items = rp_xcalloc(RP_VHDX_MAX_ENTRIES, sizeof *items);
    size_t n;
    if (rp_cache_read(v, v->metadata_offset, table, RP_VHDX_TABLE, err) ||
        rp_vhdx_items_decode(table, v->metadata_length, items, &n, err))
        return -1;
    struct rp_vhdx_item *item = rp_vhdx_items_find(items, n, &rp_vhdx_item_size);
    uint8_t bytes[8];
    rp_put_le64(bytes, size);
    return item ? rp_cache_write(v, v->metadata_offset + item->offset, bytes, 8, err) : -1;
}

// Under lock, with everything written out before: at most 4 pages become dirty (size, both region tables). When it
// fails after `*named` they may tell of a table that is not used: they must never reach the file.
static int grow(struct rp_vhdx *v, const struct rp_vhdx_layout *layout, bool *named, struct rp_error *err)
{
    bool fits = layout->entries <= v->bat_length / 8, clear = true, unused = true;
    if (clear_tail(v, err) || last_chunk_is_clear(v, &unused, err) ||
        (fits && table_is_clear(v, v->layout.entries, layout->entries, &clear, err)))
        return -1;
    if (!unused)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: cannot grow: its table has blocks behind its end", v->path);
    if ((!fits || !clear) && move_table(v, layout, named, err))
        return -1;
    if (store_size(v, layout->size, err))
        return -1;
    v->layout.size = layout->size; // only what differs: the rest is read without the lock
    v->layout.blocks = layout->blocks;
    v->layout.chunks = layout->chunks;
    v->layout.entries = layout->entries;
    v->info.size = layout->size;
    atomic_store(&v->size, layout->size);
    return 0;
}

// Under lock, or for a first look.
int rp_vhdx_check_growth(const struct rp_vhdx *v, uint64_t size, struct rp_error *err)
{
    uint64_t now = atomic_load(&v->size);
    if (size < now || size > RP_VHDX_MAX_SIZE || !rp_is_aligned(size, v->layout.logical_sector) || v->info.fixed)
        return rp_fail(err, RP_ERR_INVALID, "%s: cannot grow %sfrom %llu to %llu bytes", v->path,
                       v->info.fixed ? "a fixed disk " : "", (unsigned long long)now, (unsigned long long)size);
    if (size > now && v->parent && atomic_load(&v->parent->size) > now)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: cannot grow: its parent %s is larger than it, and would show in what is new "
                                                "(merge it first)", v->path, v->parent->path);
    return 0;
}

// Under lock (dropped meanwhile), with newcomers held off. A table that moves takes its pages out of the cache, so
// none of them may be waiting: a log entry of its own.
static int write_out(struct rp_vhdx *v, struct rp_error *err)
{
    int failed = 0;
    while (!failed && (v->cache.dirty || v->cache.reserved || v->flushing)) {
        if (v->cache.dirty && !v->flushing) {
            rp_unlock(v);
            failed = rp_flush(v, RP_FLUSH_LOG, err);
            rp_lock(v);
        } else {
            rp_wait(v);
            failed = atomic_load(&v->failed) ? rp_session_check(v, err) : 0;
        }
    }
    return failed;
}

int rp_vhdx_grow(struct rp_vhdx *v, uint64_t size, struct rp_error *err)
{
    if (rp_vhdx_check_growth(v, size, err))
        return -1;
    if (size == atomic_load(&v->size))
        return rp_session_check(v, err);
    if (rp_session_begin(v, RP_SESSION_DATA, err))
        return -1;
    struct rp_vhdx_layout layout;
    rp_vhdx_layout_init(&layout, size, v->layout.block_size, v->layout.logical_sector, v->layout.has_parent);
    struct rp_error why = {0};
    bool named = false;
    rp_lock(v);
    while (v->growing)
        rp_wait(v);
    // From now on, until the new place and size are durable, no block changes: what a killed process leaves of the
    // table would be of one that no header knows.
    v->growing = true;
    int failed = write_out(v, &why) || rp_vhdx_check_growth(v, size, &why); // another thread may have been first
    if (!failed && size != v->layout.size)
        failed = grow(v, &layout, &named, &why);
    if (failed && named)
        rp_session_fail_locked(v, &why); // before anybody can flush
    rp_unlock(v);
    failed = failed || rp_flush(v, RP_FLUSH_ALL, &why);
    rp_lock(v);
    v->growing = false;
    rp_wake(v);
    rp_unlock(v);
    if (failed && err && err->code == RP_OK)
        *err = why;
    return failed ? -1 : 0;
}
