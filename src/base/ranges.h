// Ordered lists of byte ranges.
#ifndef RP_BASE_RANGES_H
#define RP_BASE_RANGES_H

#include <stddef.h>
#include <stdint.h>

struct rp_range {
    uint64_t offset;
    uint64_t length;
};

// Ascending, non-overlapping, non-adjacent once built with rp_ranges_add. Zero-initialise; free with rp_ranges_clear.
struct rp_ranges {
    struct rp_range *items;
    size_t count;
    size_t capacity;
};

// Appends a range that starts at or after the start of the last one; overlapping or touching ranges become one.
void rp_ranges_add(struct rp_ranges *ranges, uint64_t offset, uint64_t length);
uint64_t rp_ranges_total(const struct rp_ranges *ranges); // bytes
// Appends to `out` the parts common to both (both ascending).
void rp_ranges_intersect(const struct rp_ranges *a, const struct rp_ranges *b, struct rp_ranges *out);
// Sorts by offset and joins what overlaps or touches: makes any list of ranges a proper one.
void rp_ranges_normalize(struct rp_ranges *ranges);
// Appends without any check; follow with rp_ranges_normalize.
void rp_ranges_push(struct rp_ranges *ranges, uint64_t offset, uint64_t length);
void rp_ranges_clear(struct rp_ranges *ranges); // frees; usable with RP_CLEANUP

#endif
