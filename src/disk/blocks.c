// The block allocation table and the sector bitmaps ([MS-VHDX] 2.5, 2.4).
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

static struct rp_page *entry_page(struct rp_vhdx *v, uint64_t index, size_t *word, struct rp_error *err)
{
    *word = index % RP_PAGE_WORDS;
    return rp_cache_get(v, v->bat_offset + rp_align_down(index, RP_PAGE_WORDS) * 8, err);
}

static int get_entry(struct rp_vhdx *v, uint64_t index, uint64_t *entry, struct rp_error *err)
{
    size_t word;
    struct rp_page *page = entry_page(v, index, &word, err);
    if (!page)
        return -1;
    *entry = rp_page_get(page, word);
    return 0;
}

static int put_entry(struct rp_vhdx *v, uint64_t index, uint64_t entry, struct rp_error *err)
{
    size_t word;
    struct rp_page *page = entry_page(v, index, &word, err);
    if (!page)
        return -1;
    rp_page_set(v, page, word, entry);
    return 0;
}

// Whether an object that the table names can be there.
static bool in_file(const struct rp_vhdx *v, uint64_t offset, uint64_t size)
{
    uint64_t end = v->overlay.file_size ? v->overlay.file_size : v->file_size;
    if (atomic_load_explicit(&v->writable, memory_order_relaxed))
        end = rp_max64(end, v->space.extended);
    return offset >= RP_VHDX_HEADER_AREA && rp_range_ok(offset, size, end);
}

int rp_block_get(struct rp_vhdx *v, uint64_t block, uint64_t *entry, struct rp_error *err)
{
    if (get_entry(v, rp_layout_block_entry(&v->layout, block), entry, err))
        return -1;
    unsigned state = rp_bat_state(*entry);
    bool bad = state == 4 || state == 5 || (state == RP_BLOCK_PARTIAL && !v->layout.has_parent) ||
               (state >= RP_BLOCK_FULL && !in_file(v, rp_bat_offset(*entry), v->layout.block_size));
    if (bad)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: block %llu: table entry %#llx makes no sense", v->path,
                       (unsigned long long)block, (unsigned long long)*entry);
    return 0;
}

int rp_block_put(struct rp_vhdx *v, uint64_t block, unsigned state, uint64_t file_offset, struct rp_error *err)
{
    return put_entry(v, rp_layout_block_entry(&v->layout, block), file_offset | state, err);
}

uint64_t rp_block_end(const struct rp_vhdx *v, uint64_t block)
{
    return rp_min64((block + 1) * v->layout.block_size, v->layout.size);
}

size_t rp_block_pages(const struct rp_vhdx *v)
{
    if (!v->layout.has_parent)
        return 1;
    uint64_t bits = v->layout.block_size / v->layout.logical_sector;
    return 2 + (size_t)rp_div_up(bits / 8, RP_VHDX_PAGE); // both table entries, and the block's part of the bitmap
}

int rp_bitmap_find(struct rp_vhdx *v, uint64_t block, bool allocate, uint64_t *file_offset, struct rp_error *err)
{
    uint64_t chunk = block / v->layout.chunk_ratio, index = rp_layout_bitmap_entry(&v->layout, chunk), entry;
    if (get_entry(v, index, &entry, err))
        return -1;
    *file_offset = rp_bat_offset(entry);
    if (rp_bat_state(entry) == RP_BLOCK_FULL) {
        if (in_file(v, *file_offset, RP_VHDX_ALIGN))
            return 0;
    } else if (rp_bat_state(entry) == RP_BLOCK_NOT_PRESENT) {
        *file_offset = 0;
        if (!allocate)
            return 0;
        if (rp_space_take(v, RP_VHDX_ALIGN, file_offset, err))
            return -1;
        return put_entry(v, index, *file_offset | RP_BLOCK_FULL, err);
    }
    return rp_fail(err, RP_ERR_CORRUPT, "%s: sector bitmap %llu: table entry %#llx makes no sense", v->path,
                   (unsigned long long)chunk, (unsigned long long)entry);
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

int rp_bitmap_run(struct rp_vhdx *v, uint64_t bitmap, uint64_t offset, uint64_t length, bool *value, uint64_t *run,
                  struct rp_error *err)
{
    uint64_t first = bit_index(v, offset), bit = first, end = first + rp_div_up(length, v->layout.logical_sector);
    struct rp_page *page = NULL;
    while (bit < end) {
        if (!page || bit % (8 * RP_VHDX_PAGE) == 0)
            page = rp_cache_get(v, rp_align_down(bitmap + bit / 8, RP_VHDX_PAGE), err);
        if (!page)
            return -1;
        uint64_t word = rp_page_get(page, bit / 64 % RP_PAGE_WORDS) >> bit % 64;
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

static int find_one(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_piece *piece, struct rp_error *err)
{
    uint64_t block = rp_block_of(v, offset), start = block * v->layout.block_size, entry;
    if (rp_block_get(v, block, &entry, err))
        return -1;
    piece->state = rp_bat_state(entry);
    piece->length = rp_min64(length, start + v->layout.block_size - offset);
    piece->file_offset = rp_bat_offset(entry) + (offset - start);
    if (piece->state != RP_BLOCK_PARTIAL)
        return 0;
    uint64_t bitmap;
    bool here;
    if (rp_bitmap_find(v, block, false, &bitmap, err))
        return -1;
    if (!bitmap)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: block %llu is partly present without a sector bitmap", v->path,
                       (unsigned long long)block);
    if (rp_bitmap_run(v, bitmap, offset, piece->length, &here, &piece->length, err))
        return -1;
    piece->state = here ? RP_BLOCK_FULL : RP_BLOCK_NOT_PRESENT;
    return 0;
}

int rp_blocks_find(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_piece *piece, struct rp_error *err)
{
    if (find_one(v, offset, length, piece, err))
        return -1;
    // A bound on the time under the lock: 4096 blocks at once.
    for (int steps = 0; piece->length < length && steps < 4096; steps++) {
        struct rp_piece next;
        if ((offset + piece->length) % v->layout.block_size)
            break; // the bitmap ended it
        if (find_one(v, offset + piece->length, length - piece->length, &next, err))
            return -1;
        bool adjacent = next.state != RP_BLOCK_FULL || next.file_offset == piece->file_offset + piece->length;
        if (next.state != piece->state || !adjacent)
            break;
        piece->length += next.length;
    }
    return 0;
}

static size_t moving_index(const struct rp_vhdx *v, uint64_t block)
{
    size_t i = 0;
    while (i < v->moving_count && v->moving[i] != block)
        i++;
    return i;
}

void rp_block_wait(struct rp_vhdx *v, uint64_t block)
{
    while (moving_index(v, block) < v->moving_count)
        pthread_cond_wait(&v->changed, &v->lock);
}

void rp_block_move(struct rp_vhdx *v, uint64_t block)
{
    while (v->moving_count == RP_MOVING_MAX || moving_index(v, block) < v->moving_count)
        pthread_cond_wait(&v->changed, &v->lock);
    v->moving[v->moving_count++] = block;
}

void rp_block_moved(struct rp_vhdx *v, uint64_t block)
{
    v->moving[moving_index(v, block)] = v->moving[v->moving_count - 1];
    v->moving_count--;
    pthread_cond_broadcast(&v->changed);
}
