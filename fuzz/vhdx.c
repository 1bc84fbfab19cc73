// VHDX files whose structures are damaged. The input is no image (that would be megabytes, nearly all of it zeros) but
// a list of patches to one of two valid images with a log to replay:
//   u8 flags: bit 0 the differencing image, bit 1 leave checksums as they are; then { u8 area, u16 offset, u8 n, n
// bytes }* Whatever the patches are, opening, reading and writing end in success or an error; and what was written
// through a successful open reads back after a successful close.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/num.h"
#include "disk/chain.h"
#include "disk/format.h"
#include "io/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGE = 4096, PAGES = 16384 }; // 64 MiB of real content

// ---- a store that shares its unchanged pages with the template

struct image {
    uint8_t *bytes;
    uint64_t size;
};

struct patched_fs {
    struct rp_fs fs;
    const struct image *image;
    uint64_t size;
    uint8_t *pages[PAGES]; // what differs from the template
};

struct patched_store {
    struct rp_store store;
    struct patched_fs *fs;
};

static uint8_t zeros[PAGE]; // in place of a page that was cleared

static uint8_t *page_for_writing(struct patched_fs *fs, uint64_t index)
{
    if (!fs->pages[index] || fs->pages[index] == zeros) {
        bool cleared = fs->pages[index];
        fs->pages[index] = calloc(1, PAGE);
        if (!cleared && index * PAGE < fs->image->size)
            memcpy(fs->pages[index], fs->image->bytes + index * PAGE, PAGE);
    }
    return fs->pages[index];
}

static int patched_pread(struct rp_store *s, void *out, size_t size, uint64_t offset, struct rp_error *err)
{
    struct patched_fs *fs = ((struct patched_store *)s)->fs;
    if (!rp_range_ok(offset, size, fs->size))
        return rp_fail(err, RP_ERR_CORRUPT, "ends");
    for (uint8_t *to = out; size;) {
        uint64_t index = offset / PAGE;
        size_t within = offset % PAGE, n = (size_t)rp_min64(size, PAGE - within);
        if (index < PAGES && fs->pages[index])
            memcpy(to, fs->pages[index] + within, n);
        else if (offset < fs->image->size)
            memcpy(to, fs->image->bytes + offset, n);
        else
            memset(to, 0, n);
        to += n;
        offset += n;
        size -= n;
    }
    return 0;
}

static int patched_pwrite(struct rp_store *s, const void *in, size_t size, uint64_t offset, struct rp_error *err)
{
    struct patched_fs *fs = ((struct patched_store *)s)->fs;
    if (!rp_range_ok(offset, size, (uint64_t)PAGES * PAGE))
        return rp_fail(err, RP_ERR_NO_SPACE, "full");
    fs->size = rp_max64(fs->size, offset + size);
    for (const uint8_t *from = in; size;) {
        size_t within = offset % PAGE, n = (size_t)rp_min64(size, PAGE - within);
        memcpy(page_for_writing(fs, offset / PAGE) + within, from, n);
        from += n;
        offset += n;
        size -= n;
    }
    return 0;
}

static void clear(struct patched_fs *fs, uint64_t from, uint64_t to)
{
    to = rp_min64(to, (uint64_t)PAGES * PAGE);
    for (uint64_t at = from, n; at < to; at += n) {
        n = rp_min64(to - at, PAGE - at % PAGE);
        uint8_t **page = &fs->pages[at / PAGE];
        if (n < PAGE)
            memset(page_for_writing(fs, at / PAGE) + at % PAGE, 0, n);
        else if (*page != zeros)
            free(*page), *page = zeros;
    }
}

static int patched_truncate(struct rp_store *s, uint64_t size, struct rp_error *err)
{
    struct patched_fs *fs = ((struct patched_store *)s)->fs;
    (void)err;
    clear(fs, size, fs->size);
    fs->size = size;
    return 0;
}

static int patched_punch(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct patched_fs *fs = ((struct patched_store *)s)->fs;
    (void)err;
    clear(fs, offset, offset + length);
    return 0;
}

static int patched_flush(struct rp_store *s, struct rp_error *err)
{
    (void)s, (void)err;
    return 0;
}

static int patched_size(struct rp_store *s, uint64_t *size, struct rp_error *err)
{
    (void)err;
    *size = ((struct patched_store *)s)->fs->size;
    return 0;
}

static int patched_extents(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_ranges *data,
                           struct rp_error *err)
{
    (void)s, (void)err;
    uint64_t end = rp_min64(offset + length, (uint64_t)PAGES * PAGE);
    if (offset < end)
        rp_ranges_add(data, offset, end - offset);
    return 0;
}

static void patched_close(struct rp_store *s) { free(s); }

static struct rp_store *patched_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    static const struct rp_store_ops ops = {.pread = patched_pread,
                                            .pwrite = patched_pwrite,
                                            .flush = patched_flush,
                                            .truncate = patched_truncate,
                                            .punch = patched_punch,
                                            .size = patched_size,
                                            .extents = patched_extents,
                                            .close = patched_close};
    (void)flags, (void)err;
    struct patched_store *s = rp_xcalloc(1, sizeof *s);
    *s = (struct patched_store){{&ops, rp_xstrdup(path)}, (struct patched_fs *)fs};
    return &s->store;
}

static int patched_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    (void)fs, (void)path, (void)err;
    *exists = false;
    return 0;
}

// ---- templates

enum { DISK = 24 << 20 };

static void must(int failed)
{
    if (failed)
        abort();
}

static void some_writes(struct rp_vhdx *v)
{
    static uint8_t data[2 << 20];
    memset(data, 0x5A, sizeof data);
    must(rp_vhdx_write(v, data, 1 << 20, 0, NULL) || rp_vhdx_write(v, data, 4096, 5 << 20, NULL) ||
         rp_vhdx_write(v, data, 512, 9 << 20, NULL) || rp_vhdx_flush(v, NULL));
    must(rp_vhdx_zero(v, 0, 1 << 20, NULL, NULL) || rp_vhdx_trim(v, 5 << 20, 1 << 20, NULL, NULL) ||
         rp_vhdx_write(v, data, 8192, 12 << 20, NULL) || rp_vhdx_flush(v, NULL));
}

static void make_template(struct image *image, bool child)
{
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_vhdx_create create = {.size = DISK, .block_size = 1 << 20, .disk_id = rp_guid_new()};
    if (child) {
        create.parent_path = "p";
        create.parent_data_write_guid = rp_guid_new();
    }
    must(rp_vhdx_create(fs, "d", &create, NULL));
    struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, NULL);
    must(!v);
    some_writes(v);
    rp_vhdx_abandon(v); // leaves its log to replay
    struct rp_buf content = {0};
    must(rp_fs_read_file(fs, "d", (size_t)PAGES * PAGE, &content, NULL));
    for (int i = 0; i < 2; i++) { // a shorter log takes less time; what was written lies at its start
        uint8_t *header = content.data + RP_VHDX_HEADER_OFFSET(i);
        rp_put_le32(header + 68, 1 << 20);
        rp_put_le32(header + 4, rp_crc32c_skip(header, RP_VHDX_PAGE, 4));
    }
    *image = (struct image){content.data, content.size};
    rp_fs_memory_free(fs);
}

// ---- patches

static const uint64_t areas[] = {
    0x10000, 0x20000, 0x30000, 0x40000,     // headers, region tables
    0x100000, 0x102000, 0x104000, 0x108000, // the log
    0x900000, 0x910000, 0x911000,           // metadata table, items, parent locator
    0xA00000, 0xB00000, 0xC00000,           // block table, what comes behind it
    0,
};

static void fix_checksum(struct rp_store *store, uint64_t offset, uint32_t length)
{
    uint8_t *bytes = malloc(length), sum[4];
    if (!rp_store_pread(store, bytes, length, offset, NULL)) {
        rp_put_le32(sum, rp_crc32c_skip(bytes, length, 4));
        rp_store_pwrite(store, sum, 4, offset + 4, NULL);
    }
    free(bytes);
}

static void fix_checksums(struct rp_store *store)
{
    for (int i = 0; i < 2; i++) {
        fix_checksum(store, RP_VHDX_HEADER_OFFSET(i), RP_VHDX_PAGE);
        fix_checksum(store, RP_VHDX_REGIONS_OFFSET(i), RP_VHDX_TABLE);
    }
    for (uint64_t at = 0x100000; at < 0x120000; at += PAGE) {
        uint8_t start[12];
        must(rp_store_pread(store, start, 12, at, NULL));
        uint32_t length = rp_get_le32(start + 8);
        if (!memcmp(start, "loge", 4) && length >= PAGE && length <= 0x40000)
            fix_checksum(store, at, length);
    }
}

static void apply(struct rp_store *store, const uint8_t *data, size_t size)
{
    struct rp_cursor c = rp_cursor_of(data, size);
    bool raw = rp_cursor_u8(&c) & 2;
    while (rp_cursor_left(&c) > 4) {
        uint64_t area = areas[rp_cursor_u8(&c) % (sizeof areas / sizeof *areas)];
        uint64_t offset = area + rp_cursor_le16(&c);
        size_t n = rp_cursor_u8(&c) % 64;
        n = n < rp_cursor_left(&c) ? n : rp_cursor_left(&c);
        rp_store_pwrite(store, rp_cursor_bytes(&c, n), n, offset, NULL);
    }
    if (!raw)
        fix_checksums(store);
}

// ---- what is done with the result

static int any_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)context, (void)offset, (void)length, (void)state;
    return 0;
}

static void read_some(struct rp_vhdx *v)
{
    static uint8_t buffer[64 << 10];
    uint64_t size = rp_vhdx_info(v)->size, near = rp_min64(size, RP_GIB);
    rp_vhdx_extents(v, 0, near, any_extent, NULL, NULL);
    rp_vhdx_extents(v, size - near, near, any_extent, NULL, NULL);
    for (uint64_t at = 0; at < near && at < 32 * RP_MIB; at += 512 << 10)
        rp_vhdx_read(v, buffer, (uint32_t)rp_min64(sizeof buffer, size - at), at, NULL);
}

static void change_some(struct patched_fs *fs)
{
    static uint8_t data[4096], back[4096];
    memset(data, 0xC3, sizeof data);
    struct rp_vhdx *v = rp_vhdx_open(&fs->fs, "d", RP_VHDX_WRITE, NULL, NULL);
    if (!v)
        return;
    uint64_t size = rp_vhdx_info(v)->size, offsets[] = {0, 5 << 20, (12 << 20) + 8192, rp_align_down(size - 1, 4096)};
    bool written[4];
    rp_vhdx_zero(v, 9 << 20, 4096, NULL, NULL);
    rp_vhdx_trim(v, 10 << 20, 1 << 20, NULL, NULL);
    for (int i = 0; i < 4; i++)
        written[i] = !rp_vhdx_write(v, data, 4096, offsets[i], NULL);
    rp_vhdx_flush(v, NULL);
    rp_vhdx_grow(v, size + (1 << 20), NULL);
    struct rp_guid linkage = rp_guid_new();
    rp_vhdx_set_parent_locator(v, &linkage, &linkage, NULL, NULL);
    if (rp_vhdx_close(v, NULL))
        return;
    v = rp_vhdx_open(&fs->fs, "d", RP_VHDX_READ, NULL, NULL);
    must(!v);
    for (int i = 0; i < 4; i++)
        must(written[i] && (rp_vhdx_read(v, back, 4096, offsets[i], NULL) || memcmp(data, back, 4096)));
    rp_vhdx_abandon(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct rp_fs_ops ops = {.open = patched_open, .exists = patched_exists};
    static struct image images[2];
    if (!images[0].bytes) {
        make_template(&images[0], false);
        make_template(&images[1], true);
    }
    const struct image *image = &images[size && data[0] & 1];
    struct patched_fs *fs = rp_xcalloc(1, sizeof *fs);
    *fs = (struct patched_fs){.fs = {&ops}, .image = image, .size = image->size};
    struct rp_store *store = rp_fs_open(&fs->fs, "d", RP_OPEN_WRITE, NULL);
    apply(store, data, size);
    rp_store_close(store);
    struct rp_vhdx *v = rp_vhdx_open(&fs->fs, "d", RP_VHDX_READ, NULL, NULL);
    if (v)
        read_some(v);
    rp_vhdx_abandon(v);
    change_some(fs);
    for (size_t i = 0; i < PAGES; i++)
        if (fs->pages[i] != zeros)
            free(fs->pages[i]);
    free(fs);
    return 0;
}
