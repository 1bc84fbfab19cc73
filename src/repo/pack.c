#include "repo/pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define VERSION 1
#define FRAME_ENTRY 8

static const char header_magic[8] = "RPPACK\r\n";
static const char footer_magic[8] = "RPPKEND\n";

void rp_pack_index_clear(struct rp_pack_index *index)
{
    free(index->frames);
    free(index->ids);
    *index = (struct rp_pack_index){0};
}

const char *rp_pack_name(const uint8_t id[RP_PACK_ID], char out[RP_PACK_NAME])
{
    memcpy(out, "packs/", 6);
    rp_hex(id, 1, out + 6);
    out[8] = '/';
    rp_hex(id, RP_PACK_ID, out + 9);
    return out;
}

bool rp_pack_parse_name(const char *name, uint8_t id[RP_PACK_ID])
{
    char expected[RP_PACK_NAME];
    return strlen(name) == 9 + 2 * RP_PACK_ID && rp_unhex(name + 9, id, RP_PACK_ID) &&
           !strcmp(name, rp_pack_name(id, expected));
}

void rp_pack_header(const uint8_t id[RP_PACK_ID], bool encrypted, uint8_t out[RP_PACK_HEADER])
{
    memcpy(out, header_magic, 8);
    rp_put_le32(out + 8, VERSION);
    rp_put_le32(out + 12, encrypted);
    memcpy(out + 16, id, RP_PACK_ID);
}

int rp_pack_check_header(const uint8_t header[RP_PACK_HEADER], const uint8_t id[RP_PACK_ID], bool encrypted,
                         struct rp_error *err)
{
    uint8_t expected[RP_PACK_HEADER];
    rp_pack_header(id, encrypted, expected);
    if (memcmp(header, expected, 8))
        return rp_fail(err, RP_ERR_CORRUPT, "header: not a pack");
    if (memcmp(header + 8, expected + 8, 4))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "header: version %u of the pack format", rp_get_le32(header + 8));
    if (memcmp(header, expected, RP_PACK_HEADER))
        return rp_fail(err, RP_ERR_CORRUPT, "header: it belongs to another pack or repository");
    return 0;
}

void rp_pack_finish(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], const uint8_t header[RP_PACK_HEADER],
                    const struct rp_pack_index *index, uint64_t index_offset, struct rp_buf *out)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf plain = {0};
    for (uint32_t i = 0; i < index->frame_count; i++) {
        const struct rp_pack_frame *frame = &index->frames[i];
        rp_buf_append_le32(&plain, frame->stored);
        rp_buf_append_u8(&plain, frame->level);
        rp_buf_append_u8(&plain, frame->compression);
        rp_buf_append_le16(&plain, frame->count);
    }
    rp_buf_append(&plain, index->ids, (size_t)index->id_count * RP_ID_BYTES);

    uint8_t aad[RP_PACK_HEADER + RP_PACK_FOOTER], *footer = aad + RP_PACK_HEADER;
    memcpy(aad, header, RP_PACK_HEADER);
    rp_put_le64(footer, index_offset);
    rp_put_le32(footer + 8, (uint32_t)plain.size + RP_TAG_BYTES);
    rp_put_le32(footer + 12, index->frame_count);
    rp_put_le32(footer + 16, index->id_count);
    rp_put_le32(footer + 20, rp_crc32c(0, footer, 20));
    memcpy(footer + 24, footer_magic, 8);
    rp_cipher_seal(cipher, key, RP_PACK_INDEX_COUNTER, aad, sizeof aad, plain.data, plain.size,
                   rp_buf_extend(out, plain.size + RP_TAG_BYTES));
    rp_buf_append(out, footer, RP_PACK_FOOTER);
}

int rp_pack_parse_footer(const uint8_t footer[RP_PACK_FOOTER], uint64_t size, struct rp_pack_footer *out,
                         struct rp_error *err)
{
    struct rp_cursor c = rp_cursor_of(footer, RP_PACK_FOOTER);
    out->index_offset = rp_cursor_le64(&c);
    out->index_size = rp_cursor_le32(&c);
    out->frame_count = rp_cursor_le32(&c);
    out->id_count = rp_cursor_le32(&c);
    uint32_t crc = rp_cursor_le32(&c);
    if (memcmp(footer + 24, footer_magic, 8))
        return rp_fail(err, RP_ERR_CORRUPT, "footer: not the end of a pack (truncated?)");
    if (crc != rp_crc32c(0, footer, 20))
        return rp_fail(err, RP_ERR_CORRUPT, "footer: wrong checksum");
    if (size > RP_PACK_MAX_SIZE || out->index_offset < RP_PACK_HEADER || out->index_offset > size ||
        out->index_offset + out->index_size + RP_PACK_FOOTER != size)
        return rp_fail(err, RP_ERR_CORRUPT, "footer: describes %llu bytes, the pack has %llu",
                       (unsigned long long)(out->index_offset + out->index_size + RP_PACK_FOOTER),
                       (unsigned long long)size);
    if (!out->frame_count || out->frame_count > RP_PACK_MAX_BLOCKS || out->id_count < out->frame_count ||
        out->id_count > RP_PACK_MAX_BLOCKS ||
        out->index_size != out->frame_count * FRAME_ENTRY + out->id_count * RP_ID_BYTES + RP_TAG_BYTES)
        return rp_fail(err, RP_ERR_CORRUPT, "footer: %u frames and %u blocks do not fit an index of %u bytes",
                       out->frame_count, out->id_count, out->index_size);
    return 0;
}

int rp_pack_decode_index(const struct rp_pack_footer *footer, const void *plain, size_t size, struct rp_pack_index *out,
                         struct rp_error *err)
{
    *out = (struct rp_pack_index){
        .frames = rp_xcalloc(footer->frame_count, sizeof *out->frames),
        .frame_count = footer->frame_count,
        .ids = rp_xmalloc((size_t)footer->id_count * RP_ID_BYTES),
        .id_count = footer->id_count,
    };
    struct rp_cursor c = rp_cursor_of(plain, size);
    uint64_t offset = RP_PACK_HEADER;
    uint32_t first = 0;
    for (uint32_t i = 0; i < out->frame_count; i++) {
        struct rp_pack_frame *frame = &out->frames[i];
        frame->offset = (uint32_t)offset;
        frame->first = first;
        frame->stored = rp_cursor_le32(&c);
        frame->level = rp_cursor_u8(&c);
        frame->compression = rp_cursor_u8(&c);
        frame->count = rp_cursor_le16(&c);
        offset += frame->stored;
        first += frame->count;
        uint64_t raw = frame->level <= RP_MAX_LEVEL ? (uint64_t)frame->count * rp_unit_bytes(frame->level) : 0;
        uint64_t payload = frame->stored < RP_TAG_BYTES ? 0 : frame->stored - RP_TAG_BYTES;
        bool fits = frame->compression == RP_COMPRESSION_NONE   ? payload == raw
                    : frame->compression == RP_COMPRESSION_ZSTD ? payload && payload < raw
                                                                : false;
        if (c.failed || !raw || raw > RP_FRAME_MAX_RAW || frame->count > RP_FRAME_MAX_UNITS || !fits ||
            offset > footer->index_offset || first > out->id_count) {
            rp_fail(err, RP_ERR_CORRUPT, "index: frame %u makes no sense", i);
            rp_pack_index_clear(out);
            return -1;
        }
    }
    const uint8_t *ids = rp_cursor_bytes(&c, (size_t)out->id_count * RP_ID_BYTES);
    if (!ids || rp_cursor_left(&c) || offset != footer->index_offset || first != out->id_count) {
        rp_pack_index_clear(out);
        return rp_fail(err, RP_ERR_CORRUPT, "index: its frames do not fill the pack");
    }
    memcpy(out->ids, ids, (size_t)out->id_count * RP_ID_BYTES);
    return 0;
}

int rp_pack_open_index(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], const uint8_t header[RP_PACK_HEADER],
                       const uint8_t footer[RP_PACK_FOOTER], const struct rp_pack_footer *parsed, const void *sealed,
                       struct rp_pack_index *out, struct rp_error *err)
{
    uint8_t aad[RP_PACK_HEADER + RP_PACK_FOOTER];
    memcpy(aad, header, RP_PACK_HEADER);
    memcpy(aad + RP_PACK_HEADER, footer, RP_PACK_FOOTER);
    RP_AUTO_FREE uint8_t *plain = rp_xmalloc(parsed->index_size);
    if (!rp_cipher_open(cipher, key, RP_PACK_INDEX_COUNTER, aad, sizeof aad, sealed, parsed->index_size, plain))
        return rp_fail(err, RP_ERR_CORRUPT, "index: authentication failed");
    return rp_pack_decode_index(parsed, plain, parsed->index_size - RP_TAG_BYTES, out, err);
}

void rp_pack_frame_aad(const uint8_t pack[RP_PACK_ID], uint32_t number, unsigned level, unsigned compression,
                       unsigned count, uint8_t out[RP_FRAME_AAD])
{
    memcpy(out, pack, RP_PACK_ID);
    rp_put_le32(out + 16, number);
    out[20] = (uint8_t)level;
    out[21] = (uint8_t)compression;
    rp_put_le16(out + 22, (uint16_t)count);
}
