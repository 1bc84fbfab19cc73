#include "wsman/base64.h"

#include <string.h>

static const char alphabet[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void rp_base64_encode(const void *data, size_t size, struct rp_buf *out)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t group = (uint32_t)bytes[i] << 16;
        if (left > 1)
            group |= (uint32_t)bytes[i + 1] << 8;
        if (left > 2)
            group |= bytes[i + 2];
        uint8_t *four = rp_buf_extend(out, 4);
        four[0] = (uint8_t)alphabet[group >> 18];
        four[1] = (uint8_t)alphabet[group >> 12 & 63];
        four[2] = left > 1 ? (uint8_t)alphabet[group >> 6 & 63] : '=';
        four[3] = left > 2 ? (uint8_t)alphabet[group & 63] : '=';
    }
}

static int value_of(char c)
{
    const char *at = c ? memchr(alphabet, c, 64) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

int rp_base64_decode(const char *text, size_t size, struct rp_buf *out, struct rp_error *err)
{
    size_t before = out->size;
    if (size % 4)
        return rp_fail(err, RP_ERR_INVALID, "base64: %zu characters are not whole groups of four", size);
    for (size_t i = 0; i < size; i += 4) {
        bool last = i + 4 == size;
        unsigned padding = !last || text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
        uint32_t group = 0;
        for (unsigned k = 0; k < 4; k++) {
            int value = k < 4 - padding ? value_of(text[i + k]) : 0;
            if (value < 0) {
                out->size = before;
                return rp_fail(err, RP_ERR_INVALID, "base64: a character at %zu that does not belong there", i + k);
            }
            group = group << 6 | (uint32_t)value;
        }
        if (group & ((1u << 8 * padding) - 1)) {
            out->size = before;
            return rp_fail(err, RP_ERR_INVALID, "base64: bits after its end");
        }
        for (unsigned k = 0; k < 3 - padding; k++)
            rp_buf_append_u8(out, (uint8_t)(group >> (16 - 8 * k)));
    }
    return 0;
}
