// Inputs that describe a sparse file: records {u32 offset, u16 length, bytes} that are written over an empty one.
#ifndef FUZZ_PATCHES_H
#define FUZZ_PATCHES_H

#include <string.h>

#include "base/buf.h"
#include "base/num.h"

// Appends to `image`, which never grows beyond `limit` bytes.
static inline void apply_patches(const uint8_t *data, size_t size, size_t limit, struct rp_buf *image)
{
    struct rp_cursor c = rp_cursor_of(data, size);
    while (rp_cursor_left(&c) >= 6) {
        size_t offset = rp_cursor_le32(&c) % limit, length = rp_cursor_le16(&c);
        length = rp_min64(rp_min64(length, rp_cursor_left(&c)), limit - offset);
        if (offset + length > image->size) {
            size_t old = image->size;
            memset(rp_buf_extend(image, offset + length - old), 0, offset + length - old);
        }
        if (length) // memcpy takes no null pointer, and an image that nothing was written over has no bytes
            memcpy(image->data + offset, rp_cursor_bytes(&c, length), length);
    }
}

#endif
