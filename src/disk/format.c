#include "disk/format.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/num.h"

const struct rp_guid rp_vhdx_region_bat = RP_GUID(0x2DC27766, 0xF623, 0x4200, 0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A,
                                                  0x08);
const struct rp_guid rp_vhdx_region_metadata =
    RP_GUID(0x8B7CA206, 0x4790, 0x4B9A, 0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E);
const struct rp_guid rp_vhdx_item_file_parameters =
    RP_GUID(0xCAA16737, 0xFA36, 0x4D43, 0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B);
const struct rp_guid rp_vhdx_item_size = RP_GUID(0x2FA54224, 0xCD1B, 0x4876, 0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4,
                                                 0xB8);
const struct rp_guid rp_vhdx_item_disk_id =
    RP_GUID(0xBECA12AB, 0xB2E6, 0x4523, 0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46);
const struct rp_guid rp_vhdx_item_logical_sector =
    RP_GUID(0x8141BF1D, 0xA96F, 0x4709, 0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F);
const struct rp_guid rp_vhdx_item_physical_sector =
    RP_GUID(0xCDA348C7, 0x445D, 0x4471, 0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56);
const struct rp_guid rp_vhdx_item_parent_locator =
    RP_GUID(0xA8D35F2D, 0xB30B, 0x454D, 0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C);

static const uint32_t header_signature = 0x64616568, regions_signature = 0x69676572; // "head", "regi"
static const uint64_t items_signature = 0x617461646174656D;                           // "metadata"

void rp_vhdx_header_encode(const struct rp_vhdx_header *header, uint8_t out[RP_VHDX_PAGE])
{
    memset(out, 0, RP_VHDX_PAGE);
    rp_put_le32(out, header_signature);
    rp_put_le64(out + 8, header->sequence);
    memcpy(out + 16, header->file_write_guid.bytes, 16);
    memcpy(out + 32, header->data_write_guid.bytes, 16);
    memcpy(out + 48, header->log_guid.bytes, 16);
    rp_put_le16(out + 64, header->log_version);
    rp_put_le16(out + 66, header->version);
    rp_put_le32(out + 68, header->log_length);
    rp_put_le64(out + 72, header->log_offset);
    rp_put_le32(out + 4, rp_crc32c_skip(out, RP_VHDX_PAGE, 4));
}

bool rp_vhdx_header_decode(const uint8_t in[RP_VHDX_PAGE], struct rp_vhdx_header *header)
{
    if (rp_get_le32(in) != header_signature || rp_get_le32(in + 4) != rp_crc32c_skip(in, RP_VHDX_PAGE, 4))
        return false;
    header->sequence = rp_get_le64(in + 8);
    memcpy(header->file_write_guid.bytes, in + 16, 16);
    memcpy(header->data_write_guid.bytes, in + 32, 16);
    memcpy(header->log_guid.bytes, in + 48, 16);
    header->log_version = rp_get_le16(in + 64);
    header->version = rp_get_le16(in + 66);
    header->log_length = rp_get_le32(in + 68);
    header->log_offset = rp_get_le64(in + 72);
    return true;
}

int rp_vhdx_header_choose(const uint8_t *first, const uint8_t *second, struct rp_vhdx_header *header)
{
    struct rp_vhdx_header headers[2];
    bool valid[2] = {rp_vhdx_header_decode(first, &headers[0]), rp_vhdx_header_decode(second, &headers[1])};
    if (!valid[0] && !valid[1])
        return -1;
    int current = !valid[0] || (valid[1] && headers[1].sequence > headers[0].sequence);
    // Equal sequences name no current header, unless both say the same (Disk2vhd writes that).
    if (valid[0] && valid[1] && headers[0].sequence == headers[1].sequence && memcmp(first, second, RP_VHDX_PAGE))
        return -1;
    *header = headers[current];
    return current;
}

int rp_vhdx_regions_decode(const uint8_t *table, struct rp_vhdx_region *regions, size_t *count, struct rp_error *err)
{
    if (rp_get_le32(table) != regions_signature || rp_get_le32(table + 4) != rp_crc32c_skip(table, RP_VHDX_TABLE, 4))
        return rp_fail(err, RP_ERR_CORRUPT, "region table: wrong signature or checksum");
    uint32_t n = rp_get_le32(table + 8);
    if (n > RP_VHDX_MAX_ENTRIES)
        return rp_fail(err, RP_ERR_CORRUPT, "region table: %u entries", n);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *entry = table + 16 + 32 * (size_t)i;
        struct rp_vhdx_region *r = &regions[i];
        memcpy(r->id.bytes, entry, 16);
        r->offset = rp_get_le64(entry + 16);
        r->length = rp_get_le32(entry + 24);
        r->required = rp_get_le32(entry + 28) & 1;
        bool known = rp_guid_equal(&r->id, &rp_vhdx_region_bat) || rp_guid_equal(&r->id, &rp_vhdx_region_metadata);
        if (r->required && !known) {
            char text[RP_GUID_TEXT];
            return rp_fail(err, RP_ERR_UNSUPPORTED, "region %s is required and unknown", rp_guid_format(&r->id, text));
        }
        if (r->offset < RP_VHDX_HEADER_AREA || !rp_is_aligned(r->offset, RP_VHDX_ALIGN) ||
            !rp_is_aligned(r->length, RP_VHDX_ALIGN) || !rp_range_ok(r->offset, r->length, RP_VHDX_MAX_FILE))
            return rp_fail(err, RP_ERR_CORRUPT, "region table: entry %u lies at %llu, %u bytes", i,
                           (unsigned long long)r->offset, r->length);
        for (uint32_t k = 0; k < i; k++) {
            bool overlap = regions[k].offset < r->offset + r->length &&
                r->offset < regions[k].offset + regions[k].length;
            if (overlap || rp_guid_equal(&regions[k].id, &r->id))
                return rp_fail(err, RP_ERR_CORRUPT, "region table: entries %u and %u overlap or are the same", k, i);
        }
    }
    *count = n;
    return 0;
}

void rp_vhdx_regions_encode(const struct rp_vhdx_region *regions, size_t count, uint8_t *table)
{
    memset(table, 0, RP_VHDX_TABLE);
    rp_put_le32(table, regions_signature);
    rp_put_le32(table + 8, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        uint8_t *entry = table + 16 + 32 * i;
        memcpy(entry, regions[i].id.bytes, 16);
        rp_put_le64(entry + 16, regions[i].offset);
        rp_put_le32(entry + 24, regions[i].length);
        rp_put_le32(entry + 28, regions[i].required);
    }
    rp_put_le32(table + 4, rp_crc32c_skip(table, RP_VHDX_TABLE, 4));
}

static bool known_item(const struct rp_guid *id)
{
    const struct rp_guid *known[] = {&rp_vhdx_item_file_parameters, &rp_vhdx_item_size, &rp_vhdx_item_disk_id,
                                     &rp_vhdx_item_logical_sector, &rp_vhdx_item_physical_sector,
                                     &rp_vhdx_item_parent_locator};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (rp_guid_equal(known[i], id))
            return true;
    return false;
}

static int by_offset(const void *a, const void *b)
{
    const struct rp_vhdx_item *x = *(const struct rp_vhdx_item *const *)a, *y = *(const struct rp_vhdx_item *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int check_item_overlaps(const struct rp_vhdx_item *items, size_t count, struct rp_error *err)
{
    const struct rp_vhdx_item *sorted[RP_VHDX_MAX_ENTRIES];
    for (size_t i = 0; i < count; i++)
        sorted[i] = &items[i];
    qsort(sorted, count, sizeof *sorted, by_offset);
    for (size_t i = 1; i < count; i++)
        if (sorted[i - 1]->offset + sorted[i - 1]->length > sorted[i]->offset)
            return rp_fail(err, RP_ERR_CORRUPT, "metadata table: items overlap at %u", sorted[i]->offset);
    return 0;
}

int rp_vhdx_items_decode(const uint8_t *table, uint32_t region_length, struct rp_vhdx_item *items, size_t *count,
                         struct rp_error *err)
{
    if (rp_get_le64(table) != items_signature)
        return rp_fail(err, RP_ERR_CORRUPT, "metadata table: wrong signature");
    unsigned n = rp_get_le16(table + 10);
    if (n > RP_VHDX_MAX_ENTRIES)
        return rp_fail(err, RP_ERR_CORRUPT, "metadata table: %u entries", n);
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *entry = table + 32 + 32 * (size_t)i;
        struct rp_vhdx_item *item = &items[i];
        memcpy(item->id.bytes, entry, 16);
        item->offset = rp_get_le32(entry + 16);
        item->length = rp_get_le32(entry + 20);
        item->flags = rp_get_le32(entry + 24);
        if (item->flags & RP_VHDX_ITEM_REQUIRED && (item->flags & RP_VHDX_ITEM_USER || !known_item(&item->id))) {
            char text[RP_GUID_TEXT];
            return rp_fail(err, RP_ERR_UNSUPPORTED, "metadata item %s is required and unknown",
                           rp_guid_format(&item->id, text));
        }
        bool empty = item->length == 0 && item->offset == 0;
        if (!empty && (item->offset < RP_VHDX_TABLE || item->length > RP_VHDX_MAX_ITEM ||
                       !rp_range_ok(item->offset, item->length, region_length)))
            return rp_fail(err, RP_ERR_CORRUPT, "metadata table: entry %u has %u bytes at %u", i, item->length,
                           item->offset);
    }
    *count = n;
    return check_item_overlaps(items, n, err);
}

void rp_vhdx_items_encode(const struct rp_vhdx_item *items, size_t count, uint8_t *table)
{
    memset(table, 0, RP_VHDX_TABLE);
    rp_put_le64(table, items_signature);
    rp_put_le16(table + 10, (uint16_t)count);
    for (size_t i = 0; i < count; i++) {
        uint8_t *entry = table + 32 + 32 * i;
        memcpy(entry, items[i].id.bytes, 16);
        rp_put_le32(entry + 16, items[i].offset);
        rp_put_le32(entry + 20, items[i].length);
        rp_put_le32(entry + 24, items[i].flags);
    }
}

struct rp_vhdx_item *rp_vhdx_items_find(struct rp_vhdx_item *items, size_t count, const struct rp_guid *id)
{
    for (size_t i = 0; i < count; i++)
        if (!(items[i].flags & RP_VHDX_ITEM_USER) && rp_guid_equal(&items[i].id, id))
            return &items[i];
    return NULL;
}

void rp_vhdx_layout_init(struct rp_vhdx_layout *layout, uint64_t size, uint32_t block_size, uint32_t logical_sector,
                         bool has_parent)
{
    uint64_t blocks = rp_div_up(size, block_size), ratio = ((uint64_t)logical_sector << 23) / block_size;
    uint64_t chunks = rp_div_up(blocks, ratio);
    *layout = (struct rp_vhdx_layout){
        .size = size,
        .block_size = block_size,
        .logical_sector = logical_sector,
        .has_parent = has_parent,
        .blocks = blocks,
        .chunk_ratio = ratio,
        .chunks = chunks,
        .entries = has_parent ? chunks * (ratio + 1) : blocks + (blocks ? (blocks - 1) / ratio : 0),
    };
}
