// Zero and trim. Both change only what does not read as unallocated zeros already, so their previews are exact.
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

static int collect(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    if (state == RP_VHDX_DATA)
        rp_ranges_add(context, offset, length);
    return 0;
}

// Under lock: what of [offset, end) does not read as zeros by state.
static int find_data(struct rp_vhdx *v, uint64_t offset, uint64_t end, struct rp_ranges *data, struct rp_error *err)
{
    return rp_chain_extents_locked(v, offset, end - offset, collect, data, err) ? -1 : 0;
}

// Under lock, in a block that is not moving: the whole block gets a state without data, its space is free.
static int drop_block(struct rp_vhdx *v, uint64_t block, unsigned state, struct rp_error *err)
{
    uint64_t entry, bitmap;
    // A chunk that a child touches gets its bitmap, needed or not: libvhdi misreads one without.
    if (v->layout.has_parent && rp_bitmap_need(v, block, &bitmap, err))
        return -1;
    if (rp_block_get(v, block, &entry, err) || rp_block_back(v, block, err) || rp_block_put(v, block, state, 0, err))
        return -1;
    if (rp_bat_present(entry))
        rp_space_free(v, rp_bat_offset(entry), v->layout.block_size);
    return 0;
}

static int write_zeros(struct rp_vhdx *v, const struct rp_ranges *ranges, struct rp_error *err)
{
    static const uint8_t zeros[1 << 20];
    for (size_t i = 0; i < ranges->count; i++) {
        uint64_t offset = ranges->items[i].offset, length = ranges->items[i].length;
        while (length) {
            uint32_t n = (uint32_t)rp_min64(length, sizeof zeros);
            if (rp_vhdx_write(v, zeros, n, offset, err))
                return -1;
            offset += n;
            length -= n;
        }
    }
    return 0;
}

static void add_all(struct rp_ranges *to, const struct rp_ranges *from)
{
    for (size_t i = 0; to && i < from->count; i++)
        rp_ranges_add(to, from->items[i].offset, from->items[i].length);
}

enum { DROP_PAGES = 2 }; // the entries of the block and of its bitmap

// [offset, end) lies in one block. `change`: do it; else only look.
static int zero_block(struct rp_vhdx *v, uint64_t offset, uint64_t end, bool change, struct rp_ranges *changed,
                      struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
    uint64_t block = rp_block_of(v, offset);
    bool write = false;
    rp_lock(v);
    int failed = change ? rp_reserve(v, DROP_PAGES, err) : 0; // may drop the lock, so before looking
    if (failed) {
        rp_unlock(v);
        return -1;
    }
    if (change)
        rp_block_wait(v, block);
    failed = find_data(v, offset, end, &data, err);
    bool whole = offset == block * v->layout.block_size && end == rp_block_end(v, block) && !v->info.fixed;
    if (!failed && change && data.count && whole)
        failed = drop_block(v, block, RP_BLOCK_ZERO, err);
    else
        write = change && data.count;
    if (change)
        rp_unreserve(v, DROP_PAGES);
    rp_unlock(v);
    if (!failed && write)
        failed = write_zeros(v, &data, err);
    if (!failed)
        add_all(changed, &data);
    return failed;
}

// How much from `offset` on needs no look, block by block, because a disk without parent has nothing there.
static int skip_empty(struct rp_vhdx *v, uint64_t offset, uint64_t length, uint64_t *empty, struct rp_error *err)
{
    struct rp_piece piece;
    *empty = 0;
    if (v->layout.has_parent || rp_blocks_look(v, offset, length, &piece, err))
        return v->layout.has_parent ? 0 : -1;
    if (piece.state != RP_BLOCK_FULL)
        *empty = piece.length;
    return 0;
}

static int zero(struct rp_vhdx *v, uint64_t offset, uint64_t length, bool change, struct rp_ranges *changed,
                struct rp_error *err)
{
    for (uint64_t end = offset + length; offset < end;) {
        uint64_t empty;
        if (skip_empty(v, offset, end - offset, &empty, err))
            return -1;
        if ((offset += empty) == end)
            break;
        uint64_t stop = rp_min64(end, (rp_block_of(v, offset) + 1) * v->layout.block_size);
        if (zero_block(v, offset, stop, change, changed, err))
            return -1;
        offset = stop;
    }
    return 0;
}

static int trim_block(struct rp_vhdx *v, uint64_t block, bool change, struct rp_ranges *changed, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
    uint64_t start = block * v->layout.block_size;
    rp_lock(v);
    int failed = change ? rp_reserve(v, DROP_PAGES, err) : 0;
    if (failed) {
        rp_unlock(v);
        return -1;
    }
    if (change)
        rp_block_wait(v, block);
    uint64_t end = rp_block_end(v, block);
    failed = find_data(v, start, end, &data, err);
    if (!failed && change && data.count)
        failed = drop_block(v, block, RP_BLOCK_UNMAPPED, err);
    if (change)
        rp_unreserve(v, DROP_PAGES);
    rp_unlock(v);
    if (!failed && changed && data.count)
        rp_ranges_add(changed, start, end - start);
    return failed;
}

static int trim(struct rp_vhdx *v, uint64_t offset, uint64_t length, bool change, struct rp_ranges *changed,
                struct rp_error *err)
{
    if (v->info.fixed)
        return 0; // its blocks stay allocated ([MS-VHDX] 2.5.1.1, note 6)
    uint64_t size = atomic_load(&v->size), end = offset + length, block_size = v->layout.block_size;
    uint64_t first = rp_div_up(offset, block_size), last = end == size ? rp_div_up(end, block_size) : end / block_size;
    for (uint64_t block = first, empty; block < last; block++) {
        if (skip_empty(v, block * block_size, rp_min64(last * block_size, size) - block * block_size, &empty, err))
            return -1;
        block += rp_div_up(empty, block_size); // whole blocks, but for the disk's last
        if (block < last && trim_block(v, block, change, changed, err))
            return -1;
    }
    return 0;
}

int rp_vhdx_zero_preview(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_ranges *changed,
                         struct rp_error *err)
{
    return rp_check_range(v, offset, length, err) ? -1 : zero(v, offset, length, false, changed, err);
}

int rp_vhdx_trim_preview(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_ranges *changed,
                         struct rp_error *err)
{
    return rp_check_range(v, offset, length, err) ? -1 : trim(v, offset, length, false, changed, err);
}

int rp_vhdx_zero(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_ranges *changed, struct rp_error *err)
{
    if (rp_check_range(v, offset, length, err) || rp_session_begin(v, RP_SESSION_DATA, err))
        return -1;
    return zero(v, offset, length, true, changed, err);
}

int rp_vhdx_trim(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_ranges *changed, struct rp_error *err)
{
    if (rp_check_range(v, offset, length, err) || rp_session_begin(v, RP_SESSION_DATA, err))
        return -1;
    return trim(v, offset, length, true, changed, err);
}
