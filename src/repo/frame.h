// Frames: blocks compressed and sealed together. docs/formats/repository.md, "Frames".
#ifndef RP_REPO_FRAME_H
#define RP_REPO_FRAME_H

#include "repo/core.h"

// What random and compressed data looks like. Wrong answers cost time or space, never correctness.
bool rp_frame_looks_random(const uint8_t *data, size_t size);
// Compresses `raw` into scratch->compressed when that saves something. Returns the payload (that, or `raw` itself).
const uint8_t *rp_frame_compress(struct rp_scratch *scratch, const uint8_t *raw, size_t raw_size, bool try_it,
                                 size_t *payload_size, enum rp_compression *compression);
// Opens and decompresses a stored frame (`at->stored` bytes) into `raw`, whose size follows from level and count.
int rp_frame_decode(struct rp_scratch *scratch, const uint8_t pack_id[RP_PACK_ID], const uint8_t key[RP_KEY_BYTES],
                    const struct rp_location *at, const uint8_t *stored, uint8_t *raw, struct rp_error *err);
static inline size_t rp_frame_raw_size(const struct rp_location *at)
{
    return (size_t)(at->last + 1) * rp_unit_bytes(at->level);
}

#endif
