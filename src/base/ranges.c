#include "base/ranges.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/num.h"

void rp_ranges_push(struct rp_ranges *ranges, uint64_t offset, uint64_t length)
{
    if (ranges->count == ranges->capacity) {
        ranges->capacity = ranges->capacity ? ranges->capacity * 2 : 16;
        ranges->items = rp_xrealloc(ranges->items, ranges->capacity * sizeof *ranges->items);
    }
    ranges->items[ranges->count++] = (struct rp_range){offset, length};
}

void rp_ranges_add(struct rp_ranges *ranges, uint64_t offset, uint64_t length)
{
    if (!length)
        return;
    if (ranges->count) {
        struct rp_range *last = &ranges->items[ranges->count - 1];
        if (offset <= last->offset + last->length) {
            uint64_t end = rp_max64(last->offset + last->length, offset + length);
            last->length = end - last->offset;
            return;
        }
    }
    rp_ranges_push(ranges, offset, length);
}

uint64_t rp_ranges_total(const struct rp_ranges *ranges)
{
    uint64_t total = 0;
    for (size_t i = 0; i < ranges->count; i++)
        total += ranges->items[i].length;
    return total;
}

void rp_ranges_intersect(const struct rp_ranges *a, const struct rp_ranges *b, struct rp_ranges *out)
{
    for (size_t i = 0, j = 0; i < a->count && j < b->count;) {
        uint64_t a_end = a->items[i].offset + a->items[i].length;
        uint64_t b_end = b->items[j].offset + b->items[j].length;
        uint64_t start = rp_max64(a->items[i].offset, b->items[j].offset);
        uint64_t end = rp_min64(a_end, b_end);
        if (start < end)
            rp_ranges_add(out, start, end - start);
        if (a_end < b_end)
            i++;
        else
            j++;
    }
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct rp_range *)a)->offset, y = ((const struct rp_range *)b)->offset;
    return x < y ? -1 : x > y;
}

void rp_ranges_normalize(struct rp_ranges *ranges)
{
    size_t count = ranges->count;
    if (!count)
        return;
    qsort(ranges->items, count, sizeof *ranges->items, by_offset);
    ranges->count = 0;
    for (size_t i = 0; i < count; i++) // never overtakes: the write position is at most i
        rp_ranges_add(ranges, ranges->items[i].offset, ranges->items[i].length);
}

void rp_ranges_clear(struct rp_ranges *ranges)
{
    free(ranges->items);
    *ranges = (struct rp_ranges){0};
}
