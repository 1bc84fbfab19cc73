#include "repo/frame.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

// Measured on /usr: level 3 with frames of 2 MiB stores 6 % less than restic does, at 270 MB/s a core. Level 1 is twice as
// fast and stores 13 % more; level 5 half as fast, 4 % less.
#define ZSTD_LEVEL 3
#define SAMPLE 4096u

static float log2_table[SAMPLE + 1]; // n * log2(n)

static void fill_log2_table(void)
{
    for (unsigned n = 1; n <= SAMPLE; n++)
        log2_table[n] = (float)n * log2f((float)n);
}

bool rp_frame_looks_random(const uint8_t *data, size_t size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_log2_table);
    // The order-0 entropy of 64 stretches of 64 bytes. Random bytes give 7.95 bits in a sample of this size.
    uint16_t counts[4][256] = {0};
    size_t step = size / 64;
    for (size_t i = 0; i < 64; i++)
        for (const uint8_t *p = data + i * step, *end = p + 64; p < end; p += 4) {
            counts[0][p[0]]++;
            counts[1][p[1]]++;
            counts[2][p[2]]++;
            counts[3][p[3]]++;
        }
    float sum = 0;
    for (int i = 0; i < 256; i++)
        sum += log2_table[counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i]];
    float entropy = 12.0f - sum / (float)SAMPLE; // log2(SAMPLE) - mean
    return entropy > 7.9f;
}

const uint8_t *rp_frame_compress(struct rp_scratch *scratch, const uint8_t *raw, size_t raw_size, bool try_it,
                                 size_t *payload_size, enum rp_compression *compression)
{
    *payload_size = raw_size;
    *compression = RP_COMPRESSION_NONE;
    if (!try_it)
        return raw;
    // A result that does not fit into 15/16 is an error of zstd's here, and the frame stays as it is.
    size_t result = ZSTD_compressCCtx(scratch->compressor, scratch->compressed, raw_size - raw_size / 16, raw, raw_size,
                                      ZSTD_LEVEL);
    if (ZSTD_isError(result))
        return raw;
    *payload_size = result;
    *compression = RP_COMPRESSION_ZSTD;
    return scratch->compressed;
}

int rp_frame_decode(struct rp_scratch *scratch, const uint8_t pack_id[RP_PACK_ID], const uint8_t key[RP_KEY_BYTES],
                    const struct rp_location *at, const uint8_t *stored, uint8_t *raw, struct rp_error *err)
{
    uint8_t aad[RP_FRAME_AAD];
    size_t raw_size = rp_frame_raw_size(at), payload_size = at->stored - RP_TAG_BYTES;
    bool packed = at->compression == RP_COMPRESSION_ZSTD;
    if (raw_size > RP_FRAME_MAX_RAW || at->stored > RP_FRAME_MAX_STORED || (!packed && payload_size != raw_size))
        return rp_fail(err, RP_ERR_CORRUPT, "frame %u: impossible sizes", at->frame);
    rp_pack_frame_aad(pack_id, at->frame, at->level, at->compression, at->last + 1u, aad);
    if (!rp_cipher_open(scratch->cipher, key, at->frame, aad, sizeof aad, stored, at->stored,
                        packed ? scratch->compressed : raw))
        return rp_fail(err, RP_ERR_CORRUPT, "frame %u at %u: authentication failed", at->frame, at->offset);
    if (!packed)
        return 0;
    size_t result = ZSTD_decompressDCtx(scratch->decompressor, raw, raw_size, scratch->compressed, payload_size);
    if (ZSTD_isError(result) || result != raw_size)
        return rp_fail(err, RP_ERR_CORRUPT, "frame %u at %u: cannot be decompressed: %s", at->frame, at->offset,
                       ZSTD_isError(result) ? ZSTD_getErrorName(result) : "wrong size");
    return 0;
}
