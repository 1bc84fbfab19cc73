#include "rct/file.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/num.h"

static const char signature[8] = "RPTRACK";
enum { VERSION = 2, CRC_AT = 8, FLAG_CLEAN = 1, FLAG_CHANGED = 2, FLAG_REGIONS = 4, FLAG_ALL = 8 };

uint64_t rp_rct_page_count(uint64_t virtual_size, uint32_t unit_size)
{
    return rp_div_up(rp_div_up(virtual_size, unit_size), RP_RCT_PAGE_UNITS);
}

size_t rp_rct_bitmap_size(uint64_t virtual_size, uint32_t unit_size)
{
    return (size_t)rp_div_up(rp_rct_page_count(virtual_size, unit_size), 8);
}

// Keeps the floors ascending in both fields: one that says nothing beyond its neighbours goes.
void rp_rct_floors_add(struct rp_rct_header *h, uint64_t unit, uint32_t epoch)
{
    size_t at = 0;
    while (at < h->floor_count && h->floors[at].unit <= unit)
        if (h->floors[at++].epoch >= epoch)
            return;
    if (at && h->floors[at - 1].unit == unit)
        at--;
    size_t end = at;
    while (end < h->floor_count && h->floors[end].epoch <= epoch)
        end++;
    memmove(h->floors + at + 1, h->floors + end, (h->floor_count - end) * sizeof *h->floors);
    h->floors[at] = (struct rp_rct_floor){unit, epoch};
    h->floor_count = h->floor_count - (end - at) + 1;
}

void rp_rct_lineage_add(struct rp_rct_header *h, const struct rp_rct_span *span)
{
    if (h->lineage_count == RP_RCT_LINEAGE_MAX)
        memmove(h->lineage, h->lineage + 1, --h->lineage_count * sizeof *h->lineage);
    h->lineage[h->lineage_count++] = *span;
}

bool rp_rct_knows(const struct rp_rct_header *h, const struct rp_rct_id *id)
{
    if (rp_guid_equal(&id->tracking, &h->tracking))
        return id->epoch >= h->first && id->epoch < h->epoch;
    for (size_t i = h->lineage_count; i-- > 0;)
        if (rp_guid_equal(&id->tracking, &h->lineage[i].tracking))
            return id->epoch >= h->lineage[i].first && id->epoch <= h->lineage[i].last;
    return false;
}

bool rp_rct_has_signature(const void *head) { return !memcmp(head, signature, sizeof signature); }

static void put_guid(struct rp_buf *out, const struct rp_guid *guid) { rp_buf_append(out, guid->bytes, 16); }

void rp_rct_head_encode(const struct rp_rct_header *h, const void *bitmap, uint8_t head[RP_RCT_HEAD_SIZE],
                        struct rp_buf *lineage)
{
    for (size_t i = 0; i < h->lineage_count; i++) {
        put_guid(lineage, &h->lineage[i].tracking);
        rp_buf_append_le32(lineage, h->lineage[i].first);
        rp_buf_append_le32(lineage, h->lineage[i].last);
    }
    size_t bitmap_size = rp_rct_bitmap_size(h->virtual_size, h->unit_size);

    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_buf_append(&out, signature, sizeof signature);
    rp_buf_append_le32(&out, 0); // the checksum
    rp_buf_append_le32(&out, VERSION);
    rp_buf_append_le64(&out, h->sequence);
    rp_buf_append_le64(&out, h->virtual_size);
    rp_buf_append_le32(&out, h->unit_size);
    rp_buf_append_le32(&out, (h->clean ? FLAG_CLEAN : 0) | (h->changed ? FLAG_CHANGED : 0) |
                                 (h->doubt == RP_RCT_DOUBT_REGIONS ? FLAG_REGIONS : 0) |
                                 (h->doubt == RP_RCT_DOUBT_ALL ? FLAG_ALL : 0));
    rp_buf_append_le32(&out, h->first);
    rp_buf_append_le32(&out, h->epoch);
    put_guid(&out, &h->disk_id);
    put_guid(&out, &h->tracking);
    put_guid(&out, &h->stem);
    for (int i = 0; i < 4; i++)
        put_guid(&out, &h->base[i]);
    put_guid(&out, &h->merging);
    put_guid(&out, &h->coarse);
    put_guid(&out, &h->bound.file_write_guid);
    put_guid(&out, &h->bound.data_write_guid);
    rp_buf_append_le64(&out, h->bound.identity.inode);
    rp_buf_append_le64(&out, h->bound.identity.size);
    rp_buf_append_le64(&out, (uint64_t)h->bound.identity.mtime_ns);
    rp_buf_append_le64(&out, (uint64_t)h->bound.identity.ctime_ns);
    put_guid(&out, &h->session.file_write_guid);
    put_guid(&out, &h->session.data_write_guid);
    rp_buf_append_le32(&out, (uint32_t)h->lineage_count);
    rp_buf_append_le32(&out, rp_crc32c(0, lineage->data, lineage->size));
    rp_buf_append_le32(&out, (uint32_t)bitmap_size);
    rp_buf_append_le32(&out, rp_crc32c(0, bitmap, bitmap_size));
    rp_buf_append_le32(&out, (uint32_t)h->floor_count);
    for (size_t i = 0; i < h->floor_count; i++) {
        rp_buf_append_le64(&out, h->floors[i].unit);
        rp_buf_append_le32(&out, h->floors[i].epoch);
    }
    memset(head, 0, RP_RCT_HEAD_SIZE);
    memcpy(head, out.data, out.size);
    rp_put_le32(head + CRC_AT, rp_crc32c_skip(head, RP_RCT_HEAD_SIZE, CRC_AT));
}

static int corrupt(struct rp_error *err, const char *what)
{
    return rp_fail(err, RP_ERR_CORRUPT, "tracking header: %s", what);
}

int rp_rct_head_decode(const uint8_t head[RP_RCT_HEAD_SIZE], struct rp_rct_header *h, struct rp_rct_areas *areas,
                       struct rp_error *err)
{
    if (!rp_rct_has_signature(head))
        return corrupt(err, "no signature");
    if (rp_get_le32(head + CRC_AT) != rp_crc32c_skip(head, RP_RCT_HEAD_SIZE, CRC_AT))
        return corrupt(err, "wrong checksum");

    *h = (struct rp_rct_header){0};
    struct rp_cursor c = rp_cursor_of(head, RP_RCT_HEAD_SIZE);
    rp_cursor_bytes(&c, CRC_AT + 4);
    uint32_t version = rp_cursor_le32(&c);
    if (version > VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "tracking file of version %u", version);
    if (version != VERSION)
        return corrupt(err, "a version that nobody wrote");
    h->sequence = rp_cursor_le64(&c);
    h->virtual_size = rp_cursor_le64(&c);
    h->unit_size = rp_cursor_le32(&c);
    uint32_t flags = rp_cursor_le32(&c);
    h->clean = flags & FLAG_CLEAN;
    h->changed = flags & FLAG_CHANGED;
    h->doubt = flags & FLAG_ALL ? RP_RCT_DOUBT_ALL : flags & FLAG_REGIONS ? RP_RCT_DOUBT_REGIONS : RP_RCT_DOUBT_NONE;
    h->first = rp_cursor_le32(&c);
    h->epoch = rp_cursor_le32(&c);
    h->disk_id = rp_cursor_guid(&c);
    h->tracking = rp_cursor_guid(&c);
    h->stem = rp_cursor_guid(&c);
    for (int i = 0; i < 4; i++)
        h->base[i] = rp_cursor_guid(&c);
    h->merging = rp_cursor_guid(&c);
    h->coarse = rp_cursor_guid(&c);
    h->bound.file_write_guid = rp_cursor_guid(&c);
    h->bound.data_write_guid = rp_cursor_guid(&c);
    h->bound.identity.inode = rp_cursor_le64(&c);
    h->bound.identity.size = rp_cursor_le64(&c);
    h->bound.identity.mtime_ns = (int64_t)rp_cursor_le64(&c);
    h->bound.identity.ctime_ns = (int64_t)rp_cursor_le64(&c);
    h->session.file_write_guid = rp_cursor_guid(&c);
    h->session.data_write_guid = rp_cursor_guid(&c);
    uint32_t lineage_count = rp_cursor_le32(&c);
    areas->lineage_crc = rp_cursor_le32(&c);
    areas->bitmap_size = rp_cursor_le32(&c);
    areas->bitmap_crc = rp_cursor_le32(&c);
    uint32_t floor_count = rp_cursor_le32(&c);

    if (h->virtual_size > RP_VHDX_MAX_SIZE)
        return corrupt(err, "disk larger than 64 TiB");
    if (!rp_is_pow2(h->unit_size) || h->unit_size < RP_RCT_UNIT_MIN || h->unit_size > RP_RCT_UNIT_MAX)
        return corrupt(err, "impossible unit");
    if (!h->first || h->first > h->epoch)
        return corrupt(err, "impossible epochs");
    if (areas->bitmap_size != rp_rct_bitmap_size(h->virtual_size, h->unit_size))
        return corrupt(err, "page bitmap of a wrong size");
    if (lineage_count > RP_RCT_LINEAGE_MAX || floor_count > RP_RCT_FLOORS_MAX)
        return corrupt(err, "too many entries");
    areas->lineage_size = (size_t)lineage_count * RP_RCT_SPAN_SIZE;

    for (uint32_t i = 0; i < floor_count; i++) {
        uint64_t unit = rp_cursor_le64(&c);
        uint32_t epoch = rp_cursor_le32(&c);
        if (unit > RP_VHDX_MAX_SIZE / h->unit_size) // may be beyond the disk, whose growth failed then
            return corrupt(err, "impossible floor");
        rp_rct_floors_add(h, unit, epoch < h->epoch ? epoch : h->epoch);
    }
    return c.failed ? corrupt(err, "too short") : 0;
}

int rp_rct_lineage_decode(const void *data, const struct rp_rct_areas *areas, struct rp_rct_header *h,
                          struct rp_error *err)
{
    if (rp_crc32c(0, data, areas->lineage_size) != areas->lineage_crc)
        return corrupt(err, "lineage with a wrong checksum");
    struct rp_cursor c = rp_cursor_of(data, areas->lineage_size);
    while (rp_cursor_left(&c)) {
        struct rp_rct_span span = {.tracking = rp_cursor_guid(&c)};
        span.first = rp_cursor_le32(&c);
        span.last = rp_cursor_le32(&c);
        // An id is compared with since[], whose values reach the current epoch: an entry beyond it would hide changes.
        if (!span.first || span.first > span.last || span.last >= h->epoch)
            return corrupt(err, "impossible lineage");
        rp_rct_lineage_add(h, &span);
    }
    return 0;
}

void rp_rct_page_encode(uint64_t index, const uint32_t since[RP_RCT_PAGE_UNITS], uint8_t page[RP_RCT_PAGE_SIZE])
{
    for (size_t s = 0; s < RP_RCT_PAGE_SECTORS; s++) {
        uint8_t *sector = page + s * RP_RCT_SECTOR_SIZE;
        rp_put_le32(sector + 4, (uint32_t)(index * RP_RCT_PAGE_SECTORS + s));
        for (size_t i = 0; i < RP_RCT_SECTOR_UNITS; i++)
            rp_put_le32(sector + 8 + 4 * i, since[s * RP_RCT_SECTOR_UNITS + i]);
        rp_put_le32(sector, rp_crc32c_skip(sector, RP_RCT_SECTOR_SIZE, 0));
    }
}

int rp_rct_page_decode(const uint8_t page[RP_RCT_PAGE_SIZE], uint64_t index, uint32_t since[RP_RCT_PAGE_UNITS])
{
    int damaged = 0;
    for (size_t s = 0; s < RP_RCT_PAGE_SECTORS; s++) {
        const uint8_t *sector = page + s * RP_RCT_SECTOR_SIZE;
        bool good = rp_get_le32(sector) == rp_crc32c_skip(sector, RP_RCT_SECTOR_SIZE, 0) &&
                    rp_get_le32(sector + 4) == index * RP_RCT_PAGE_SECTORS + s;
        for (size_t i = 0; i < RP_RCT_SECTOR_UNITS; i++)
            since[s * RP_RCT_SECTOR_UNITS + i] = good ? rp_get_le32(sector + 8 + 4 * i) : UINT32_MAX;
        if (!good)
            damaged = -1;
    }
    return damaged;
}
