#include "disk/entry.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/num.h"

enum {
    HEADER = 64,
    DESCRIPTOR = 32,
    FIRST = (RP_VHDX_PAGE - HEADER) / DESCRIPTOR, // descriptors in the first sector
    FURTHER = RP_VHDX_PAGE / DESCRIPTOR,
};

static const uint32_t entry_signature = 0x65676F6C, zero_signature = 0x6F72657A, desc_signature = 0x63736564,
                      data_signature = 0x61746164; // "loge", "zero", "desc", "data"

uint32_t rp_entry_descriptor_sectors(uint32_t descriptors)
{
    return descriptors <= FIRST ? 1 : 1 + (uint32_t)rp_div_up(descriptors - FIRST, FURTHER);
}

uint32_t rp_entry_sectors(uint32_t pages) { return rp_entry_descriptor_sectors(pages) + pages; }

uint32_t rp_entry_capacity(uint32_t sectors)
{
    uint32_t pages = sectors;
    while (pages && rp_entry_sectors(pages) > sectors)
        pages--;
    return pages;
}

// Descriptors follow the header without a gap: descriptor 126 begins the second sector.
static size_t descriptor_at(uint32_t index) { return HEADER + (size_t)index * DESCRIPTOR; }

void rp_entry_encode(const struct rp_entry *entry, const uint64_t *offsets, const uint8_t *pages, uint8_t *out)
{
    uint32_t n = entry->descriptors, sectors = rp_entry_descriptor_sectors(n);
    memset(out, 0, (size_t)sectors * RP_VHDX_PAGE);
    rp_put_le32(out, entry_signature);
    rp_put_le32(out + 8, entry->length);
    rp_put_le32(out + 12, entry->tail);
    rp_put_le64(out + 16, entry->sequence);
    rp_put_le32(out + 24, n);
    memcpy(out + 32, entry->log_guid.bytes, 16);
    rp_put_le64(out + 48, entry->flushed_size);
    rp_put_le64(out + 56, entry->last_size);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *page = pages + (size_t)i * RP_VHDX_PAGE;
        uint8_t *descriptor = out + descriptor_at(i), *sector = out + (size_t)(sectors + i) * RP_VHDX_PAGE;
        rp_put_le32(descriptor, desc_signature);
        memcpy(descriptor + 4, page + RP_VHDX_PAGE - 4, 4);
        memcpy(descriptor + 8, page, 8);
        rp_put_le64(descriptor + 16, offsets[i]);
        rp_put_le64(descriptor + 24, entry->sequence);
        rp_put_le32(sector, data_signature);
        rp_put_le32(sector + 4, (uint32_t)(entry->sequence >> 32));
        memcpy(sector + 8, page + 8, RP_VHDX_PAGE - 12);
        rp_put_le32(sector + RP_VHDX_PAGE - 4, (uint32_t)entry->sequence);
    }
    rp_put_le32(out + 4, rp_crc32c_skip(out, entry->length, 4));
}

bool rp_entry_decode(const uint8_t sector[RP_VHDX_PAGE], const struct rp_guid *log_guid, uint32_t log_length,
                     struct rp_entry *entry)
{
    entry->length = rp_get_le32(sector + 8);
    entry->tail = rp_get_le32(sector + 12);
    entry->sequence = rp_get_le64(sector + 16);
    entry->descriptors = rp_get_le32(sector + 24);
    memcpy(entry->log_guid.bytes, sector + 32, 16);
    entry->flushed_size = rp_get_le64(sector + 48);
    entry->last_size = rp_get_le64(sector + 56);
    return rp_get_le32(sector) == entry_signature && rp_guid_equal(&entry->log_guid, log_guid) && entry->sequence &&
           entry->length && rp_is_aligned(entry->length, RP_VHDX_PAGE) && entry->length <= log_length &&
           rp_is_aligned(entry->tail, RP_VHDX_PAGE) && entry->tail < log_length &&
           entry->descriptors <= log_length / DESCRIPTOR &&
           rp_entry_descriptor_sectors(entry->descriptors) <= entry->length / RP_VHDX_PAGE;
}

bool rp_entry_check(const struct rp_entry *entry, const uint8_t *bytes)
{
    uint32_t sectors = rp_entry_descriptor_sectors(entry->descriptors), data = 0, total = entry->length / RP_VHDX_PAGE;
    for (uint32_t i = 0; i < entry->descriptors; i++) {
        const uint8_t *descriptor = bytes + descriptor_at(i);
        uint32_t signature = rp_get_le32(descriptor);
        uint64_t offset = rp_get_le64(descriptor + 16);
        uint64_t length = signature == zero_signature ? rp_get_le64(descriptor + 8) : RP_VHDX_PAGE;
        if ((signature != zero_signature && signature != desc_signature) ||
            rp_get_le64(descriptor + 24) != entry->sequence || !rp_is_aligned(offset, RP_VHDX_PAGE) ||
            (signature == zero_signature && !rp_is_aligned(length, RP_VHDX_PAGE)) ||
            !rp_range_ok(offset, length, RP_VHDX_MAX_FILE))
            return false;
        if (signature == zero_signature)
            continue;
        if (sectors + data >= total)
            return false;
        const uint8_t *sector = bytes + (size_t)(sectors + data++) * RP_VHDX_PAGE;
        if (rp_get_le32(sector) != data_signature || rp_get_le32(sector + 4) != (uint32_t)(entry->sequence >> 32) ||
            rp_get_le32(sector + RP_VHDX_PAGE - 4) != (uint32_t)entry->sequence)
            return false;
    }
    return true;
}

bool rp_entry_checksum(const struct rp_entry *entry, const uint8_t *bytes)
{
    return rp_get_le32(bytes + 4) == rp_crc32c_skip(bytes, entry->length, 4);
}

void rp_entry_step(const uint8_t *bytes, const struct rp_entry *entry, uint32_t index, uint32_t *data_index,
                   struct rp_entry_step *step)
{
    const uint8_t *descriptor = bytes + descriptor_at(index);
    step->offset = rp_get_le64(descriptor + 16);
    step->zero = rp_get_le32(descriptor) == zero_signature;
    step->length = step->zero ? rp_get_le64(descriptor + 8) : RP_VHDX_PAGE;
    if (step->zero)
        return;
    uint32_t sectors = rp_entry_descriptor_sectors(entry->descriptors);
    const uint8_t *sector = bytes + (size_t)(sectors + (*data_index)++) * RP_VHDX_PAGE;
    memcpy(step->bytes, descriptor + 8, 8);
    memcpy(step->bytes + 8, sector + 8, RP_VHDX_PAGE - 12);
    memcpy(step->bytes + RP_VHDX_PAGE - 4, descriptor + 4, 4);
}
