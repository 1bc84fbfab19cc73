#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static void *check(void *p)
{
    if (!p) {
        fputs("refpoint: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *rp_xmalloc(size_t size) { return check(malloc(size ? size : 1)); }
void *rp_xcalloc(size_t count, size_t size) { return check(calloc(count ? count : 1, size ? size : 1)); }
void *rp_xrealloc(void *p, size_t size) { return check(realloc(p, size ? size : 1)); }
char *rp_xstrdup(const char *text) { return check(strdup(text)); }

char *rp_xasprintf(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    return check(n < 0 ? NULL : text);
}

void rp_buf_reserve(struct rp_buf *buf, size_t capacity)
{
    if (capacity <= buf->capacity && buf->data) // arithmetic with a null pointer is undefined, even + 0
        return;
    size_t grown = buf->capacity < 64 ? 64 : buf->capacity;
    while (grown < capacity)
        grown = grown > SIZE_MAX / 2 ? capacity : grown * 2;
    buf->data = rp_xrealloc(buf->data, grown);
    buf->capacity = grown;
}

uint8_t *rp_buf_extend(struct rp_buf *buf, size_t size)
{
    if (size > SIZE_MAX - buf->size)
        check(NULL);
    rp_buf_reserve(buf, buf->size + size);
    uint8_t *start = buf->data + buf->size;
    buf->size += size;
    return start;
}

void rp_buf_append(struct rp_buf *buf, const void *data, size_t size)
{
    if (size)
        memcpy(rp_buf_extend(buf, size), data, size);
}

void rp_buf_append_u8(struct rp_buf *buf, uint8_t value) { *rp_buf_extend(buf, 1) = value; }
void rp_buf_append_le16(struct rp_buf *buf, uint16_t value) { rp_put_le16(rp_buf_extend(buf, 2), value); }
void rp_buf_append_le32(struct rp_buf *buf, uint32_t value) { rp_put_le32(rp_buf_extend(buf, 4), value); }
void rp_buf_append_le64(struct rp_buf *buf, uint64_t value) { rp_put_le64(rp_buf_extend(buf, 8), value); }

void rp_buf_printf(struct rp_buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n > 0) {
        rp_buf_reserve(buf, buf->size + (size_t)n + 1);
        vsnprintf((char *)buf->data + buf->size, (size_t)n + 1, format, again);
        buf->size += (size_t)n;
    }
    va_end(again);
}

const char *rp_buf_text(struct rp_buf *buf)
{
    rp_buf_reserve(buf, buf->size + 1);
    buf->data[buf->size] = 0;
    return (const char *)buf->data;
}

void rp_buf_reset(struct rp_buf *buf) { buf->size = 0; }

void rp_buf_clear(struct rp_buf *buf)
{
    free(buf->data);
    *buf = (struct rp_buf){0};
}

size_t rp_cursor_left(const struct rp_cursor *c) { return c->failed ? 0 : c->size - c->position; }

const uint8_t *rp_cursor_bytes(struct rp_cursor *c, size_t size)
{
    if (size > rp_cursor_left(c) || c->failed) {
        c->failed = true;
        return NULL;
    }
    const uint8_t *start = c->data + c->position;
    c->position += size;
    return start;
}

uint8_t rp_cursor_u8(struct rp_cursor *c)
{
    const uint8_t *p = rp_cursor_bytes(c, 1);
    return p ? *p : 0;
}

uint16_t rp_cursor_le16(struct rp_cursor *c)
{
    const uint8_t *p = rp_cursor_bytes(c, 2);
    return p ? rp_get_le16(p) : 0;
}

uint32_t rp_cursor_le32(struct rp_cursor *c)
{
    const uint8_t *p = rp_cursor_bytes(c, 4);
    return p ? rp_get_le32(p) : 0;
}

uint64_t rp_cursor_le64(struct rp_cursor *c)
{
    const uint8_t *p = rp_cursor_bytes(c, 8);
    return p ? rp_get_le64(p) : 0;
}
