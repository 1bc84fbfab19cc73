// A stored frame: the first bytes say how it is to be read, the rest is its payload, correctly sealed.
#include <stdlib.h>
#include <string.h>

#include "repo/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[RP_KEY_BYTES], pack[RP_PACK_ID];
    uint8_t aad[RP_FRAME_AAD];
    if (size < 3 || size > 1 << 20)
        return 0;
    struct rp_location at = {.level = data[0] & 15, .compression = data[1] & 15, .last = data[2],
                             .stored = (uint32_t)(size - 3 + RP_TAG_BYTES) & 0xFFFFFF};
    if (at.level > RP_MAX_LEVEL || rp_frame_raw_size(&at) > RP_FRAME_MAX_RAW)
        return 0;
    struct rp_crypto *crypto = rp_crypto_new(key, false);
    struct rp_scratch scratch = {.cipher = rp_cipher_new(crypto), .decompressor = ZSTD_createDCtx(),
                                 .compressed = malloc(RP_FRAME_MAX_STORED)};
    uint8_t *sealed = malloc(at.stored), *raw = malloc(rp_frame_raw_size(&at));
    rp_pack_frame_aad(pack, 0, at.level, at.compression, at.last + 1u, aad);
    rp_cipher_seal(scratch.cipher, key, 0, aad, sizeof aad, data + 3, size - 3, sealed);
    rp_frame_decode(&scratch, pack, key, &at, sealed, raw, NULL);
    sealed[size / 2] ^= 1;
    if (rp_frame_decode(&scratch, pack, key, &at, sealed, raw, NULL) == 0)
        __builtin_trap(); // a flipped bit must not pass
    free(sealed);
    free(raw);
    free(scratch.compressed);
    ZSTD_freeDCtx(scratch.decompressor);
    rp_cipher_free(scratch.cipher);
    rp_crypto_free(crypto);
    return 0;
}
