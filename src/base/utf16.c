#include "base/utf16.h"

#include <stdint.h>
#include <string.h>

#include "base/bytes.h"

int rp_utf8_decode(const void *data, size_t left, uint32_t *out)
{
    const uint8_t *p = data;
    if (p[0] < 0x80) {
        *out = p[0];
        return 1;
    }
    int length = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : p[0] >= 0xC0 ? 2 : 0;
    if (!length || (size_t)length > left || p[0] > 0xF4)
        return 0;
    uint32_t c = p[0] & (0xFF >> (length + 1));
    for (int i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[length] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        return 0;
    *out = c;
    return length;
}

int rp_utf16_append(struct rp_buf *buf, const char *text, struct rp_error *err)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t left = strlen(text);
    while (left) {
        uint32_t c;
        int n = rp_utf8_decode(p, left, &c);
        if (!n)
            return rp_fail(err, RP_ERR_INVALID, "text is not valid UTF-8");
        if (c >= 0x10000) {
            c -= 0x10000;
            rp_buf_append_le16(buf, (uint16_t)(0xD800 | c >> 10));
            rp_buf_append_le16(buf, (uint16_t)(0xDC00 | (c & 0x3FF)));
        } else {
            rp_buf_append_le16(buf, (uint16_t)c);
        }
        p += n;
        left -= (size_t)n;
    }
    return 0;
}

void rp_utf8_append_valid(struct rp_buf *buf, const char *text, size_t limit)
{
    const uint8_t *p = (const uint8_t *)text;
    for (size_t left = strlen(text), size = 0; left;) {
        uint32_t c;
        size_t n = (size_t)rp_utf8_decode(p, left, &c), length = n ? n : 1;
        if (size + length > limit)
            return;
        rp_buf_append(buf, n ? (const void *)p : "?", length);
        size += length;
        p += length;
        left -= length;
    }
}

static void append_utf8(struct rp_buf *out, uint32_t c)
{
    if (c < 0x80) {
        rp_buf_append_u8(out, (uint8_t)c);
    } else if (c < 0x800) {
        rp_buf_append_u8(out, (uint8_t)(0xC0 | c >> 6));
        rp_buf_append_u8(out, (uint8_t)(0x80 | (c & 0x3F)));
    } else if (c < 0x10000) {
        rp_buf_append_u8(out, (uint8_t)(0xE0 | c >> 12));
        rp_buf_append_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        rp_buf_append_u8(out, (uint8_t)(0x80 | (c & 0x3F)));
    } else {
        rp_buf_append_u8(out, (uint8_t)(0xF0 | c >> 18));
        rp_buf_append_u8(out, (uint8_t)(0x80 | (c >> 12 & 0x3F)));
        rp_buf_append_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        rp_buf_append_u8(out, (uint8_t)(0x80 | (c & 0x3F)));
    }
}

int rp_utf16_to_utf8(const void *data, size_t size, struct rp_buf *out, struct rp_error *err)
{
    if (size % 2)
        return rp_fail(err, RP_ERR_CORRUPT, "UTF-16 text has an odd number of bytes");
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i += 2) {
        uint32_t c = rp_get_le16(p + i);
        if (c >= 0xD800 && c < 0xE000) {
            uint32_t low = i + 4 <= size ? rp_get_le16(p + i + 2) : 0;
            if (c < 0xDC00 && low >= 0xDC00 && low < 0xE000) {
                c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
                i += 2;
            } else {
                c = 0xFFFD;
            }
        }
        append_utf8(out, c);
    }
    return 0;
}
