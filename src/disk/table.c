// The block allocation table ([MS-VHDX] 2.5). Its entries are read without the lock; they change under it, by single
// words. A bit per page tells which parts of it were never written to: the table of a large sparse disk costs nothing.
#include <stdlib.h>

#include "base/num.h"
#include "disk/impl.h"

static uint64_t page_of(uint64_t index) { return index / RP_PAGE_WORDS; }

static bool is_used(const struct rp_table *t, uint64_t page)
{
    return atomic_load_explicit(&t->used[page / 64], memory_order_acquire) >> page % 64 & 1;
}

static void set_used(struct rp_table *t, uint64_t page)
{
    atomic_fetch_or_explicit(&t->used[page / 64], (uint64_t)1 << page % 64, memory_order_release);
}

void rp_table_mark(struct rp_vhdx *v, uint64_t offset, uint64_t length)
{
    uint64_t start = v->table.offset, end = start + rp_min64(v->layout.entries * 8, v->bat_length);
    uint64_t from = rp_max64(offset, start), to = rp_min64(offset + length, end);
    for (uint64_t at = rp_align_down(from, RP_VHDX_PAGE); at < to; at += RP_VHDX_PAGE)
        set_used(&v->table, (at - start) / RP_VHDX_PAGE);
}

int rp_table_init(struct rp_vhdx *v, struct rp_error *err)
{
    struct rp_table *t = &v->table;
    struct rp_vhdx_layout largest;
    rp_vhdx_layout_init(&largest, RP_VHDX_MAX_SIZE, v->layout.block_size, v->layout.logical_sector,
                        v->layout.has_parent);
    t->pages = rp_div_up(largest.entries, RP_PAGE_WORDS);
    t->used = rp_xcalloc(rp_div_up(t->pages, 64), sizeof *t->used);
    t->backed = rp_xcalloc(rp_div_up(t->pages, 64), sizeof *t->backed);
    t->bitmaps_backed = rp_xcalloc(rp_div_up(largest.chunks, 64), sizeof *t->bitmaps_backed);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges parts = {0};
    if (rp_store_extents(v->store, t->offset, v->layout.entries * 8, &parts, err))
        return -1;
    for (size_t i = 0; i < parts.count; i++)
        rp_table_mark(v, parts.items[i].offset, parts.items[i].length);
    for (size_t i = 0; i < v->cache.count; i++) // what a replay in memory brought
        rp_table_mark(v, v->cache.pages[i]->offset, RP_VHDX_PAGE);
    return 0;
}

void rp_table_free(struct rp_table *t)
{
    free(t->used);
    free(t->backed);
    free(t->bitmaps_backed);
}

uint64_t rp_table_skip(const struct rp_vhdx *v, uint64_t index, uint64_t limit)
{
    uint64_t page = page_of(index), end = rp_min64(rp_div_up(limit, RP_PAGE_WORDS), v->table.pages);
    if (is_used(&v->table, page))
        return index;
    while (++page < end) {
        uint64_t word = atomic_load_explicit(&v->table.used[page / 64], memory_order_acquire) >> page % 64;
        if (word)
            return rp_min64((page + (unsigned)__builtin_ctzll(word)) * RP_PAGE_WORDS, limit);
        page |= 63;
    }
    return limit;
}

int rp_table_get(struct rp_vhdx *v, enum rp_locked locked, uint64_t index, uint64_t *entry, struct rp_error *err)
{
    *entry = 0;
    if (!is_used(&v->table, page_of(index)) || rp_cache_peek(v, atomic_load(&v->table.offset) + index * 8, entry))
        return 0;
    if (locked == RP_UNLOCKED)
        rp_lock(v);
    // The place is looked up again: the table may have moved.
    struct rp_page *page = rp_cache_get(v, v->table.offset + page_of(index) * RP_VHDX_PAGE, err);
    if (page)
        *entry = rp_page_get(page, index % RP_PAGE_WORDS);
    if (locked == RP_UNLOCKED)
        rp_unlock(v);
    return page ? 0 : -1;
}

int rp_table_put(struct rp_vhdx *v, uint64_t index, uint64_t entry, struct rp_error *err)
{
    struct rp_page *page = rp_cache_get(v, v->table.offset + page_of(index) * RP_VHDX_PAGE, err);
    if (!page)
        return -1;
    set_used(&v->table, page_of(index));
    rp_page_set(v, page, index % RP_PAGE_WORDS, entry);
    return 0;
}

// Once in a session for each bit.
static int back(struct rp_vhdx *v, uint64_t *bits, uint64_t bit, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (bits[bit / 64] >> bit % 64 & 1)
        return 0;
    if (rp_space_back(v, offset, length, err))
        return -1;
    bits[bit / 64] |= (uint64_t)1 << bit % 64;
    return 0;
}

int rp_table_back(struct rp_vhdx *v, uint64_t index, struct rp_error *err)
{
    uint64_t page = page_of(index);
    return back(v, v->table.backed, page, v->table.offset + page * RP_VHDX_PAGE, RP_VHDX_PAGE, err);
}

int rp_table_back_bitmap(struct rp_vhdx *v, uint64_t chunk, uint64_t offset, struct rp_error *err)
{
    return back(v, v->table.bitmaps_backed, chunk, offset, RP_VHDX_ALIGN, err);
}
