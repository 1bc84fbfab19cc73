#include "repo/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/num.h"

#define PAGE 4096u
#define ENTRY 32u
#define PAGE_ENTRIES 127u
#define PAGE_CRC (PAGE - 4)
#define PACK (RP_PACK_ID + 4u)
#define VERSION 2
#define MAX_PACKS (1u << 24)

static const char magic[8] = "RPSEGMNT";

struct rp_segment {
    char *path;
    int fd;
    const uint8_t *map;
    size_t size;
    uint32_t pack_count;
    uint64_t count, pages;
    struct rp_segment_pack *packs;
    const uint8_t *entries;
    uint8_t *verified; // per page: it was found whole since the segment was opened
};

int rp_entry_compare(const void *a, const void *b)
{
    const struct rp_entry *x = a, *y = b;
    int order = memcmp(x->prefix, y->prefix, RP_PREFIX_BYTES);
    if (order)
        return order;
    if (x->at.pack != y->at.pack)
        return x->at.pack < y->at.pack ? -1 : 1;
    return (int)x->at.frame - (int)y->at.frame;
}

static void encode(const struct rp_entry *entry, uint8_t out[ENTRY])
{
    memcpy(out, entry->prefix, RP_PREFIX_BYTES);
    rp_put_le32(out + 16, entry->at.pack);
    rp_put_le32(out + 20, entry->at.offset);
    rp_put_le32(out + 24, (uint32_t)entry->at.stored | (uint32_t)entry->at.level << 24 |
                              (uint32_t)entry->at.compression << 28);
    rp_put_le16(out + 28, entry->at.frame);
    out[30] = entry->at.slot;
    out[31] = entry->at.last;
}

static void decode(const uint8_t in[ENTRY], struct rp_entry *entry)
{
    uint32_t packed = rp_get_le32(in + 24);
    memcpy(entry->prefix, in, RP_PREFIX_BYTES);
    entry->at.pack = rp_get_le32(in + 16);
    entry->at.offset = rp_get_le32(in + 20);
    entry->at.stored = packed & 0xFFFFFF;
    entry->at.level = packed >> 24 & 15;
    entry->at.compression = packed >> 28;
    entry->at.frame = rp_get_le16(in + 28);
    entry->at.slot = in[30];
    entry->at.last = in[31];
}

// Not through the map, where what the disk cannot give, or was cut off, is a SIGBUS.
static bool read_at(const struct rp_segment *segment, uint64_t offset, uint8_t *out, size_t size)
{
    while (size) {
        ssize_t n = pread(segment->fd, out, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        out += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

static int read_packs(struct rp_segment *segment, uint32_t crc, struct rp_error *err)
{
    size_t size = (size_t)segment->pack_count * PACK;
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(size + 1);
    if (!read_at(segment, PAGE, table, size) || crc != rp_crc32c(0, table, size))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: its pack table is damaged", segment->path);
    segment->packs = rp_xcalloc((size_t)segment->pack_count + 1, sizeof *segment->packs);
    for (uint32_t i = 0; i < segment->pack_count; i++) {
        memcpy(segment->packs[i].id, table + (size_t)i * PACK, RP_PACK_ID);
        segment->packs[i].size = rp_get_le32(table + (size_t)i * PACK + RP_PACK_ID);
    }
    return 0;
}

static int parse(struct rp_segment *segment, const struct rp_guid *repository, struct rp_error *err)
{
    uint8_t page[PAGE];
    if (!read_at(segment, 0, page, PAGE) || memcmp(page, magic, 8) || rp_get_le32(page + 8) != VERSION ||
        rp_get_le32(page + PAGE_CRC) != rp_crc32c(0, page, PAGE_CRC))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: not an index segment", segment->path);
    segment->pack_count = rp_get_le32(page + 12);
    segment->count = rp_get_le64(page + 16);
    uint64_t table = rp_align_up((uint64_t)segment->pack_count * PACK, PAGE);
    segment->pages = rp_div_up(segment->count, PAGE_ENTRIES);
    if (memcmp(page + 24, repository->bytes, 16) || segment->pack_count > MAX_PACKS ||
        segment->count > segment->size / ENTRY || PAGE + table + segment->pages * PAGE != segment->size)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: its size is wrong", segment->path);
    segment->entries = segment->map + PAGE + table;
    return read_packs(segment, rp_get_le32(page + 40), err);
}

struct rp_segment *rp_segment_open(const char *path, const struct rp_guid *repository, struct rp_error *err)
{
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        rp_fail_sys(err, errno, "%s: open", path);
        return NULL;
    }
    if (st.st_size < (off_t)PAGE) {
        rp_fail(err, RP_ERR_CORRUPT, "%s: not an index segment", path);
        return NULL;
    }
    struct rp_segment *segment = rp_xcalloc(1, sizeof *segment);
    segment->path = rp_xstrdup(path);
    segment->fd = fd;
    fd = -1;
    segment->size = (size_t)st.st_size;
    void *map = mmap(NULL, segment->size, PROT_READ, MAP_SHARED, segment->fd, 0);
    if (map == MAP_FAILED)
        rp_fail_sys(err, errno, "%s: map", path);
    else
        segment->map = map;
    if (!segment->map || parse(segment, repository, err)) {
        rp_segment_close(segment);
        return NULL;
    }
    segment->verified = rp_xcalloc(segment->pages + 1, 1);
    return segment;
}

void rp_segment_close(struct rp_segment *segment)
{
    if (!segment)
        return;
    if (segment->map)
        munmap((void *)(uintptr_t)segment->map, segment->size);
    close(segment->fd);
    free(segment->packs);
    free(segment->verified);
    free(segment->path);
    free(segment);
}

const char *rp_segment_path(const struct rp_segment *segment) { return segment->path; }
uint32_t rp_segment_pack_count(const struct rp_segment *segment) { return segment->pack_count; }
uint64_t rp_segment_count(const struct rp_segment *segment) { return segment->count; }

const struct rp_segment_pack *rp_segment_pack(const struct rp_segment *segment, uint32_t number)
{
    return &segment->packs[number];
}

// The page, or NULL when it is damaged. It is read, and its checksum looked at, once: a search touches a few pages of every
// segment, and their checksums would cost more than all the rest of it.
static const uint8_t *page_of(const struct rp_segment *segment, uint64_t page)
{
    const uint8_t *data = segment->entries + page * PAGE;
    if (__atomic_load_n(&segment->verified[page], __ATOMIC_RELAXED))
        return data;
    uint8_t first[PAGE];
    if (!read_at(segment, (uint64_t)(data - segment->map), first, PAGE) ||
        rp_get_le32(first + PAGE_CRC) != rp_crc32c(0, first, PAGE_CRC))
        return NULL;
    __atomic_store_n(&segment->verified[page], 1, __ATOMIC_RELAXED);
    return data;
}

static bool usable(const struct rp_segment *segment, const struct rp_entry *entry)
{
    return entry->at.pack < segment->pack_count && entry->at.slot <= entry->at.last &&
           entry->at.level <= RP_MAX_LEVEL && entry->at.compression <= RP_COMPRESSION_ZSTD &&
           entry->at.stored >= RP_TAG_BYTES && entry->at.stored <= RP_FRAME_MAX_STORED;
}

bool rp_segment_get(const struct rp_segment *segment, uint64_t i, struct rp_entry *entry)
{
    const uint8_t *page = page_of(segment, i / PAGE_ENTRIES);
    if (!page)
        return false;
    decode(page + i % PAGE_ENTRIES * ENTRY, entry);
    return usable(segment, entry);
}

// Is the first entry of this page before the id? A damaged page could lead the search astray, so each one is verified.
static bool page_before(const struct rp_segment *segment, uint64_t page, const uint8_t *id, bool *damaged)
{
    const uint8_t *data = page_of(segment, page);
    if (!data)
        *damaged = true;
    return data && memcmp(data, id, RP_PREFIX_BYTES) < 0;
}

unsigned rp_segment_find(const struct rp_segment *segment, const uint8_t *id, struct rp_location *out, unsigned max,
                         bool *damaged)
{
    if (!segment->count)
        return 0;
    // Ids are uniformly distributed: guess the page, then widen a bracket around it. `low` and `high` enclose the number
    // of pages whose first entry is before the id.
    uint64_t guess = (uint64_t)((unsigned __int128)rp_get_be64(id) * segment->pages >> 64);
    uint64_t low = 0, high = segment->pages, step = 1;
    if (page_before(segment, guess, id, damaged)) {
        for (low = guess + 1; low + step < segment->pages && page_before(segment, low + step, id, damaged); step *= 2)
            low += step + 1;
        high = rp_min64(high, low + step);
        if (low > high)
            low = high;
    } else {
        for (high = guess; high > step && !page_before(segment, high - step, id, damaged); step *= 2)
            high -= step;
        low = high > step ? high - step : 0;
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (page_before(segment, middle, id, damaged))
            low = middle + 1;
        else
            high = middle;
    }
    unsigned found = 0;
    for (uint64_t page = low ? low - 1 : 0; page < segment->pages && found < max; page++) {
        const uint8_t *data = page_of(segment, page);
        if (!data) {
            *damaged = true;
            continue;
        }
        uint64_t count = rp_min64(PAGE_ENTRIES, segment->count - page * PAGE_ENTRIES);
        uint64_t first = 0, end = count;
        while (first < end) {
            uint64_t middle = (first + end) / 2;
            if (memcmp(data + middle * ENTRY, id, RP_PREFIX_BYTES) < 0)
                first = middle + 1;
            else
                end = middle;
        }
        for (; first < count && !memcmp(data + first * ENTRY, id, RP_PREFIX_BYTES) && found < max; first++) {
            struct rp_entry entry;
            decode(data + first * ENTRY, &entry);
            if (usable(segment, &entry))
                out[found++] = entry.at;
            else
                *damaged = true;
        }
        if (first < count)
            break;
    }
    return found;
}

struct rp_segment_writer {
    char *path, *temporary;
    FILE *file;
    struct rp_guid repository;
    uint32_t pack_count, pack_crc;
    uint64_t count;
    uint8_t page[PAGE];
};

static int write_failed(struct rp_segment_writer *writer, struct rp_error *err)
{
    return rp_fail_sys(err, errno ? errno : EIO, "%s: write", writer->temporary);
}

static int flush_page(struct rp_segment_writer *writer, struct rp_error *err)
{
    rp_put_le32(writer->page + PAGE_CRC, rp_crc32c(0, writer->page, PAGE_CRC));
    if (fwrite(writer->page, PAGE, 1, writer->file) != 1)
        return write_failed(writer, err);
    memset(writer->page, 0, PAGE);
    return 0;
}

struct rp_segment_writer *rp_segment_writer_new(const char *path, const struct rp_guid *repository,
                                                const struct rp_segment_pack *packs, uint32_t pack_count,
                                                struct rp_error *err)
{
    size_t table = (size_t)pack_count * PACK, padding = (size_t)rp_align_up(table, PAGE) - table;
    RP_AUTO_FREE uint8_t *encoded = rp_xmalloc(table + 1);
    for (uint32_t i = 0; i < pack_count; i++) {
        memcpy(encoded + (size_t)i * PACK, packs[i].id, RP_PACK_ID);
        rp_put_le32(encoded + (size_t)i * PACK + RP_PACK_ID, packs[i].size);
    }
    struct rp_segment_writer *writer = rp_xcalloc(1, sizeof *writer);
    writer->path = rp_xstrdup(path);
    writer->temporary = rp_xasprintf("%s.tmp", path);
    writer->repository = *repository;
    writer->pack_count = pack_count;
    writer->pack_crc = rp_crc32c(0, encoded, table);
    writer->file = fopen(writer->temporary, "wxe");
    if (!writer->file || fwrite(writer->page, PAGE, 1, writer->file) != 1 ||
        (table && fwrite(encoded, table, 1, writer->file) != 1) ||
        (padding && fwrite(writer->page, padding, 1, writer->file) != 1)) {
        write_failed(writer, err);
        rp_segment_writer_abandon(writer);
        return NULL;
    }
    return writer;
}

int rp_segment_writer_add(struct rp_segment_writer *writer, const struct rp_entry *entry, struct rp_error *err)
{
    encode(entry, writer->page + writer->count % PAGE_ENTRIES * ENTRY);
    writer->count++;
    return writer->count % PAGE_ENTRIES ? 0 : flush_page(writer, err);
}

int rp_segment_writer_finish(struct rp_segment_writer *writer, struct rp_error *err)
{
    int result = writer->count % PAGE_ENTRIES ? flush_page(writer, err) : 0;
    memcpy(writer->page, magic, 8);
    rp_put_le32(writer->page + 8, VERSION);
    rp_put_le32(writer->page + 12, writer->pack_count);
    rp_put_le64(writer->page + 16, writer->count);
    memcpy(writer->page + 24, writer->repository.bytes, 16);
    rp_put_le32(writer->page + 40, writer->pack_crc);
    if (result == 0) {
        rewind(writer->file);
        result = flush_page(writer, err);
    }
    if (fclose(writer->file) && result == 0)
        result = write_failed(writer, err);
    writer->file = NULL;
    if (result == 0 && rename(writer->temporary, writer->path))
        result = rp_fail_sys(err, errno, "%s: rename", writer->temporary);
    if (result)
        unlink(writer->temporary);
    free(writer->path);
    free(writer->temporary);
    free(writer);
    return result;
}

void rp_segment_writer_abandon(struct rp_segment_writer *writer)
{
    if (!writer)
        return;
    if (writer->file) {
        fclose(writer->file);
        unlink(writer->temporary);
    }
    free(writer->path);
    free(writer->temporary);
    free(writer);
}
