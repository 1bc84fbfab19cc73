#include "rct/mrt.h"

#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/num.h"

static const char signature[8] = "RPCOARS";
enum { VERSION = 1, CRC_AT = 8, SECTOR_HEAD = 32 };

uint64_t rp_mrt_regions(uint64_t virtual_size) { return rp_div_up(virtual_size, (uint64_t)1 << RP_MRT_REGION_SHIFT); }

uint32_t rp_mrt_sectors(uint64_t virtual_size)
{
    return (uint32_t)rp_div_up(rp_mrt_regions(virtual_size), RP_MRT_SECTOR_REGIONS);
}

static uint64_t area_size(uint32_t sectors) { return rp_align_up((uint64_t)sectors * RP_MRT_SECTOR_SIZE, RP_MRT_SLOT_STEP); }

uint64_t rp_mrt_file_size(uint32_t sectors) { return RP_MRT_AREAS_AT + 2 * area_size(sectors); }

uint64_t rp_mrt_sector_at(uint32_t sectors, uint64_t generation, uint32_t index)
{
    return RP_MRT_AREAS_AT + generation % 2 * area_size(sectors) + (uint64_t)index * RP_MRT_SECTOR_SIZE;
}

bool rp_mrt_has_signature(const void *head) { return !memcmp(head, signature, sizeof signature); }

void rp_mrt_header_encode(const struct rp_mrt_header *h, uint8_t out[RP_MRT_SECTOR_SIZE])
{
    memset(out, 0, RP_MRT_SECTOR_SIZE);
    memcpy(out, signature, sizeof signature);
    rp_put_le32(out + 12, VERSION);
    rp_put_le64(out + 16, h->sequence);
    memcpy(out + 24, h->name.bytes, sizeof h->name.bytes);
    rp_put_le64(out + 40, h->oldest);
    rp_put_le64(out + 48, h->newest);
    rp_put_le64(out + 56, h->rct_sequence);
    rp_put_le32(out + 64, (uint32_t)1 << RP_MRT_REGION_SHIFT);
    rp_put_le32(out + 68, h->sectors);
    rp_put_le32(out + CRC_AT, rp_crc32c_skip(out, RP_MRT_SECTOR_SIZE, CRC_AT));
}

static int corrupt(struct rp_error *err, const char *what)
{
    return rp_fail(err, RP_ERR_CORRUPT, "coarse tracking header: %s", what);
}

int rp_mrt_header_decode(const uint8_t data[RP_MRT_SECTOR_SIZE], struct rp_mrt_header *h, struct rp_error *err)
{
    if (!rp_mrt_has_signature(data))
        return corrupt(err, "no signature");
    if (rp_get_le32(data + CRC_AT) != rp_crc32c_skip(data, RP_MRT_SECTOR_SIZE, CRC_AT))
        return corrupt(err, "wrong checksum");
    uint32_t version = rp_get_le32(data + 12);
    if (version > VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "coarse tracking file of version %u", version);
    h->sequence = rp_get_le64(data + 16);
    memcpy(h->name.bytes, data + 24, sizeof h->name.bytes);
    h->oldest = rp_get_le64(data + 40);
    h->newest = rp_get_le64(data + 48);
    h->rct_sequence = rp_get_le64(data + 56);
    h->sectors = rp_get_le32(data + 68);
    if (version != VERSION || rp_get_le32(data + 64) != (uint32_t)1 << RP_MRT_REGION_SHIFT || !h->oldest ||
        h->newest < h->oldest || h->newest - h->oldest > 1 || h->newest == UINT64_MAX || h->sectors > RP_MRT_SECTORS_MAX)
        return corrupt(err, "impossible values");
    return 0;
}

void rp_mrt_sector_encode(const struct rp_guid *name, uint64_t generation, uint32_t index,
                          const uint64_t words[RP_MRT_SECTOR_WORDS], uint8_t out[RP_MRT_SECTOR_SIZE])
{
    rp_put_le32(out + 4, index);
    rp_put_le64(out + 8, generation);
    memcpy(out + 16, name->bytes, sizeof name->bytes);
    for (size_t i = 0; i < RP_MRT_SECTOR_WORDS; i++)
        rp_put_le64(out + SECTOR_HEAD + 8 * i, words[i]);
    rp_put_le32(out, rp_crc32c_skip(out, RP_MRT_SECTOR_SIZE, 0));
}

void rp_mrt_sector_decode(const uint8_t data[RP_MRT_SECTOR_SIZE], const struct rp_guid *name, uint64_t generation,
                          uint32_t index, uint64_t words[RP_MRT_SECTOR_WORDS])
{
    bool good = rp_get_le32(data) == rp_crc32c_skip(data, RP_MRT_SECTOR_SIZE, 0) && rp_get_le32(data + 4) == index;
    bool this_one = rp_get_le64(data + 8) == generation && !memcmp(data + 16, name->bytes, sizeof name->bytes);
    for (size_t i = 0; i < RP_MRT_SECTOR_WORDS; i++)
        words[i] = !good ? UINT64_MAX : this_one ? rp_get_le64(data + SECTOR_HEAD + 8 * i) : 0;
}
