// UTF-8 to UTF-16LE and back, strict in one direction and tolerant in the other.
#ifndef RP_BASE_UTF16_H
#define RP_BASE_UTF16_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

// Decodes one code point of UTF-8 at `data`, of which `left` bytes (at least one) are there. Returns its length in bytes;
// 0 when malformed: overlong, a surrogate, past U+10FFFF, truncated.
int rp_utf8_decode(const void *data, size_t left, uint32_t *code);
// Appends `text` (UTF-8, NUL-terminated) as UTF-16LE without a terminator. Malformed UTF-8 is RP_ERR_INVALID.
int rp_utf16_append(struct rp_buf *buf, const char *text, struct rp_error *err);
// Appends `size` bytes of UTF-16LE as UTF-8; a lone surrogate becomes U+FFFD, an odd last byte is RP_ERR_CORRUPT.
int rp_utf16_to_utf8(const void *data, size_t size, struct rp_buf *out, struct rp_error *err);
// Appends at most `limit` bytes of `text` as well-formed UTF-8: each
// malformed byte becomes '?', no character is cut in two.
void rp_utf8_append_valid(struct rp_buf *buf, const char *text, size_t limit);

#endif
