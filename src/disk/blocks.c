// Where blocks are, and the sector bitmaps of a differencing disk ([MS-VHDX] 2.4).
//
// A reader needs no lock: a partly present block's bits are right before its entry says that it is one, and no bit of it
// is ever cleared again; a bitmap once named stays where it is.
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

// Whether an object that the table names can be there.
static bool in_file(const struct rp_vhdx *v, uint64_t offset, uint64_t size)
{
    return offset >= RP_VHDX_HEADER_AREA && rp_range_ok(offset, size, atomic_load(&v->file_end));
}

static int get_block(struct rp_vhdx *v, enum rp_locked locked, uint64_t block, uint64_t *entry, struct rp_error *err)
{
    if (rp_table_get(v, locked, rp_layout_block_entry(&v->layout, block), entry, err))
        return -1;
    unsigned state = rp_bat_state(*entry);
    bool bad = state == 4 || state == 5 || (state == RP_BLOCK_PARTIAL && !v->layout.has_parent) ||
               (state >= RP_BLOCK_FULL && !in_file(v, rp_bat_offset(*entry), v->layout.block_size));
    if (bad)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: block %llu: table entry %#llx makes no sense", v->path,
                       (unsigned long long)block, (unsigned long long)*entry);
    return 0;
}

int rp_block_get(struct rp_vhdx *v, uint64_t block, uint64_t *entry, struct rp_error *err)
{
    return get_block(v, RP_LOCKED, block, entry, err);
}

int rp_block_put(struct rp_vhdx *v, uint64_t block, unsigned state, uint64_t file_offset, struct rp_error *err)
{
    return rp_table_put(v, rp_layout_block_entry(&v->layout, block), file_offset | state, err);
}

int rp_block_back(struct rp_vhdx *v, uint64_t block, struct rp_error *err)
{
    return rp_table_back(v, rp_layout_block_entry(&v->layout, block), err);
}

uint64_t rp_block_end(const struct rp_vhdx *v, uint64_t block)
{
    return rp_min64((block + 1) * v->layout.block_size, atomic_load(&v->size));
}

size_t rp_block_pages(const struct rp_vhdx *v)
{
    if (!v->layout.has_parent)
        return 1;
    uint64_t bits = v->layout.block_size / v->layout.logical_sector;
    return 2 + (size_t)rp_div_up(bits / 8, RP_VHDX_PAGE); // both table entries, and the block's part of the bitmap
}

static int find_bitmap(struct rp_vhdx *v, enum rp_locked locked, uint64_t chunk, uint64_t *offset, struct rp_error *err)
{
    uint64_t entry;
    if (rp_table_get(v, locked, rp_layout_bitmap_entry(&v->layout, chunk), &entry, err))
        return -1;
    bool none = rp_bat_state(entry) == RP_BLOCK_NOT_PRESENT;
    *offset = none ? 0 : rp_bat_offset(entry);
    if (none || (rp_bat_state(entry) == RP_BLOCK_FULL && in_file(v, *offset, RP_VHDX_ALIGN)))
        return 0;
    return rp_fail(err, RP_ERR_CORRUPT, "%s: sector bitmap %llu: table entry %#llx makes no sense", v->path,
                   (unsigned long long)chunk, (unsigned long long)entry);
}

int rp_bitmap_need(struct rp_vhdx *v, uint64_t block, uint64_t *offset, struct rp_error *err)
{
    uint64_t chunk = block / v->layout.chunk_ratio, index = rp_layout_bitmap_entry(&v->layout, chunk);
    if (find_bitmap(v, RP_LOCKED, chunk, offset, err))
        return -1;
    if (*offset)
        return rp_table_back_bitmap(v, chunk, *offset, err);
    if (rp_table_back(v, index, err) || rp_space_take(v, RP_VHDX_ALIGN, offset, err))
        return -1;
    // Not as the chunk's: it is that only when the table names it.
    if (!rp_space_back(v, *offset, RP_VHDX_ALIGN, err) && !rp_table_put(v, index, *offset | RP_BLOCK_FULL, err))
        return 0;
    rp_space_return(v, *offset, RP_VHDX_ALIGN);
    return -1;
}

// The bits of a range: where the bitmap has them.
static uint64_t bit_index(const struct rp_vhdx *v, uint64_t offset)
{
    return offset / v->layout.logical_sector & (((uint64_t)1 << 23) - 1);
}

int rp_bitmap_fill(struct rp_vhdx *v, uint64_t bitmap, uint64_t offset, uint64_t length, bool value,
                   struct rp_error *err)
{
    uint64_t bit = bit_index(v, offset), end = bit + rp_div_up(length, v->layout.logical_sector);
    struct rp_page *page = NULL;
    while (bit < end) {
        if (!page || bit % (8 * RP_VHDX_PAGE) == 0)
            page = rp_cache_get(v, rp_align_down(bitmap + bit / 8, RP_VHDX_PAGE), err);
        if (!page)
            return -1;
        uint64_t n = rp_min64(64 - bit % 64, end - bit), mask = UINT64_MAX >> (64 - n) << bit % 64;
        size_t index = bit / 64 % RP_PAGE_WORDS;
        uint64_t word = rp_page_get(page, index);
        rp_page_set(v, page, index, value ? word | mask : word & ~mask);
        bit += n;
    }
    return 0;
}

static int bitmap_word(struct rp_vhdx *v, enum rp_locked locked, uint64_t offset, uint64_t *word, struct rp_error *err)
{
    if (rp_cache_peek(v, offset, word))
        return 0;
    if (locked == RP_UNLOCKED)
        rp_lock(v);
    struct rp_page *page = rp_cache_get(v, rp_align_down(offset, RP_VHDX_PAGE), err);
    if (page)
        *word = rp_page_get(page, offset / 8 % RP_PAGE_WORDS);
    if (locked == RP_UNLOCKED)
        rp_unlock(v);
    return page ? 0 : -1;
}

int rp_bitmap_run(struct rp_vhdx *v, enum rp_locked locked, uint64_t bitmap, uint64_t offset, uint64_t length,
                  bool *value, uint64_t *run, struct rp_error *err)
{
    uint64_t first = bit_index(v, offset), bit = first, end = first + rp_div_up(length, v->layout.logical_sector);
    while (bit < end) {
        uint64_t word;
        if (bitmap_word(v, locked, bitmap + bit / 64 * 8, &word, err))
            return -1;
        word >>= bit % 64;
        if (bit == first)
            *value = word & 1;
        uint64_t other = (*value ? ~word : word) & UINT64_MAX >> bit % 64; // where the value ends
        if (other) {
            bit += (unsigned)__builtin_ctzll(other);
            break;
        }
        bit += 64 - bit % 64;
    }
    uint64_t sectors = rp_min64(bit, end) - first;
    *run = rp_min64(sectors * v->layout.logical_sector - offset % v->layout.logical_sector, length);
    return 0;
}

static int find_one(struct rp_vhdx *v, enum rp_locked locked, uint64_t offset, uint64_t length, struct rp_piece *piece,
                    struct rp_error *err)
{
    uint64_t block = rp_block_of(v, offset), start = block * v->layout.block_size, entry;
    uint64_t index = rp_layout_block_entry(&v->layout, block);
    uint64_t next = rp_table_skip(v, index, rp_layout_block_entry(&v->layout, rp_block_of(v, offset + length - 1)) + 1);
    if (next > index) { // nothing was ever there, up to the first block whose entry is `next` or later
        uint64_t stop = (next - next / (v->layout.chunk_ratio + 1)) * v->layout.block_size;
        *piece = (struct rp_piece){.state = RP_BLOCK_NOT_PRESENT, .length = rp_min64(length, stop - offset)};
        return 0;
    }
    if (get_block(v, locked, block, &entry, err))
        return -1;
    piece->state = rp_bat_state(entry);
    piece->length = rp_min64(length, start + v->layout.block_size - offset);
    piece->file_offset = rp_bat_offset(entry) + (offset - start);
    if (piece->state != RP_BLOCK_PARTIAL)
        return 0;
    uint64_t bitmap;
    bool here;
    if (find_bitmap(v, locked, block / v->layout.chunk_ratio, &bitmap, err))
        return -1;
    if (!bitmap)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: block %llu is partly present without a sector bitmap", v->path,
                       (unsigned long long)block);
    if (rp_bitmap_run(v, locked, bitmap, offset, piece->length, &here, &piece->length, err))
        return -1;
    piece->state = here ? RP_BLOCK_FULL : RP_BLOCK_NOT_PRESENT;
    return 0;
}

int rp_blocks_find(struct rp_vhdx *v, enum rp_locked locked, uint64_t offset, uint64_t length, struct rp_piece *piece,
                   struct rp_error *err)
{
    if (find_one(v, locked, offset, length, piece, err))
        return -1;
    // A bound on the time under the lock, or in the gate: 4096 blocks at once.
    for (int steps = 0; piece->length < length && steps < 4096; steps++) {
        struct rp_piece next;
        if ((offset + piece->length) % v->layout.block_size)
            break; // the bitmap ended it
        if (find_one(v, locked, offset + piece->length, length - piece->length, &next, err))
            return -1;
        bool adjacent = next.state != RP_BLOCK_FULL || next.file_offset == piece->file_offset + piece->length;
        if (next.state != piece->state || !adjacent)
            break;
        piece->length += next.length;
    }
    return 0;
}

int rp_blocks_look(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_piece *piece, struct rp_error *err)
{
    unsigned token = rp_gate_enter(v->gate);
    int failed = rp_blocks_find(v, RP_UNLOCKED, offset, length, piece, err);
    rp_gate_leave(v->gate, token);
    return failed;
}

static struct rp_moving *find_moving(struct rp_vhdx *v, uint64_t block)
{
    for (size_t i = 0; i < v->moving_count; i++)
        if (v->moving[i].block == block)
            return &v->moving[i];
    return NULL;
}

void rp_block_wait(struct rp_vhdx *v, uint64_t block)
{
    while (find_moving(v, block))
        rp_wait(v);
}

void rp_block_move(struct rp_vhdx *v, uint64_t block)
{
    for (;; rp_wait(v)) {
        struct rp_moving *moving = find_moving(v, block);
        if (moving && moving->sharers) {
            moving->sharers++;
            return;
        }
        if (!moving && v->moving_count < RP_MOVING_MAX) {
            v->moving[v->moving_count++] = (struct rp_moving){.block = block};
            return;
        }
    }
}

void rp_block_let_share(struct rp_vhdx *v, uint64_t block)
{
    struct rp_moving *moving = find_moving(v, block);
    if (moving->sharers)
        return;
    moving->sharers = 1;
    rp_wake(v);
}

void rp_block_moved(struct rp_vhdx *v, uint64_t block)
{
    struct rp_moving *moving = find_moving(v, block);
    if (moving->sharers > 1) {
        moving->sharers--;
        return;
    }
    *moving = v->moving[--v->moving_count];
    rp_wake(v);
}
