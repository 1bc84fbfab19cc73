// Checked arithmetic and alignment. Sizes and offsets from outside go through these.
#ifndef RP_BASE_NUM_H
#define RP_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define RP_KIB ((uint64_t)1 << 10)
#define RP_MIB ((uint64_t)1 << 20)
#define RP_GIB ((uint64_t)1 << 30)
#define RP_TIB ((uint64_t)1 << 40)

static inline uint64_t rp_min64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t rp_max64(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t rp_div_up(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

// `unit` is a power of two.
static inline uint64_t rp_align_down(uint64_t a, uint64_t unit) { return a & ~(unit - 1); }
static inline uint64_t rp_align_up(uint64_t a, uint64_t unit) { return (a + unit - 1) & ~(unit - 1); }
static inline bool rp_is_aligned(uint64_t a, uint64_t unit) { return (a & (unit - 1)) == 0; }
static inline bool rp_is_pow2(uint64_t a) { return a && !(a & (a - 1)); }

// True if [offset, offset+length) lies inside [0, size), without overflow.
static inline bool rp_range_ok(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

// Parses "4096", "64K", "1.5M", "10G", "2T" (binary units, as qemu-img) into bytes.
int rp_parse_size(const char *text, uint64_t *size, struct rp_error *err);

#define RP_SIZE_TEXT 24
// "1.5 GiB", for people. Returns `out`.
const char *rp_format_size(uint64_t size, char out[RP_SIZE_TEXT]);

#endif
