// A pack's footer and index: once as they stand, with their checksum, and once as if authentication had passed.
#include <string.h>

#include "repo/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t master[RP_KEY_BYTES];
    struct rp_pack_footer footer;
    struct rp_pack_index index;
    uint8_t id[RP_PACK_ID] = {0};
    if (size < RP_PACK_HEADER + RP_PACK_FOOTER)
        return 0;
    const uint8_t *end = data + size - RP_PACK_FOOTER;
    rp_pack_check_header(data, id, false, NULL);
    if (rp_pack_parse_footer(end, size, &footer, NULL))
        return 0;
    struct rp_crypto *crypto = rp_crypto_new(master, false);
    struct rp_cipher *cipher = rp_cipher_new(crypto);
    if (rp_pack_open_index(cipher, master, data, end, &footer, data + footer.index_offset, &index, NULL) == 0)
        rp_pack_index_clear(&index);
    rp_cipher_free(cipher);
    rp_crypto_free(crypto);
    if (rp_pack_decode_index(&footer, data + footer.index_offset, footer.index_size - RP_TAG_BYTES, &index, NULL) == 0) {
        // what was accepted keeps its promises
        uint64_t offset = RP_PACK_HEADER, ids = 0;
        for (uint32_t i = 0; i < index.frame_count; i++) {
            const struct rp_pack_frame *frame = &index.frames[i];
            if (frame->offset != offset || frame->first != ids || !frame->count || frame->count > RP_FRAME_MAX_UNITS ||
                frame->stored > RP_FRAME_MAX_STORED || frame->level > RP_MAX_LEVEL)
                __builtin_trap();
            offset += frame->stored;
            ids += frame->count;
        }
        if (offset != footer.index_offset || ids != index.id_count)
            __builtin_trap();
        rp_pack_index_clear(&index);
    }
    return 0;
}
