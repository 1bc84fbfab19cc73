// A growable byte buffer, and a cursor that reads one with bounds checks.
#ifndef RP_BASE_BUF_H
#define RP_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct rp_buf {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

// All growing functions abort the process when memory is exhausted (as rp_xmalloc does).
void rp_buf_append(struct rp_buf *buf, const void *data, size_t size);
void rp_buf_append_u8(struct rp_buf *buf, uint8_t value);
void rp_buf_append_le16(struct rp_buf *buf, uint16_t value);
void rp_buf_append_le32(struct rp_buf *buf, uint32_t value);
void rp_buf_append_le64(struct rp_buf *buf, uint64_t value);
void rp_buf_printf(struct rp_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Grows by `size` bytes and returns where they start; their content is undefined.
uint8_t *rp_buf_extend(struct rp_buf *buf, size_t size);
void rp_buf_reserve(struct rp_buf *buf, size_t capacity);
// NUL-terminates without counting the NUL, and returns the text; owned by the buffer.
const char *rp_buf_text(struct rp_buf *buf);
void rp_buf_reset(struct rp_buf *buf); // size 0, memory kept
void rp_buf_clear(struct rp_buf *buf); // memory freed; usable with RP_CLEANUP

// Borrowed bytes with a position. A read past the end sets `failed`, returns 0 / NULL and keeps failing: decode the
// whole structure, then test `failed` once.
struct rp_cursor {
    const uint8_t *data;
    size_t size;
    size_t position;
    bool failed;
};

static inline struct rp_cursor rp_cursor_of(const void *data, size_t size)
{
    return (struct rp_cursor){(const uint8_t *)data, size, 0, false};
}
size_t rp_cursor_left(const struct rp_cursor *c);
const uint8_t *rp_cursor_bytes(struct rp_cursor *c, size_t size); // borrowed; NULL when too few are left
uint8_t rp_cursor_u8(struct rp_cursor *c);
uint16_t rp_cursor_le16(struct rp_cursor *c);
uint32_t rp_cursor_le32(struct rp_cursor *c);
uint64_t rp_cursor_le64(struct rp_cursor *c);

// malloc/calloc/realloc/strdup that abort when memory is exhausted: for small structures whose loss nobody can handle.
// Sizes that come from outside are bounded first, or use plain malloc and RP_ERR_NO_MEMORY.
void *rp_xmalloc(size_t size);
void *rp_xcalloc(size_t count, size_t size);
void *rp_xrealloc(void *p, size_t size);
char *rp_xstrdup(const char *text);
char *rp_xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
