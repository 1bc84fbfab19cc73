// Random changes through chains of differencing disks, against a plain copy in memory; merges and conversions keep the
// content.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "disk/chain.h"
#include "disk/convert.h"
#include "io/memory.h"
#include "torn.h"

enum { MAX_DISK = 13 << 20, LEVELS = 4 };

static struct rp_error err;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

struct chain {
    uint64_t random;
    struct rp_fs *fs;
    struct rp_vhdx *layers[LEVELS]; // root first
    uint8_t *models[LEVELS];        // what each shows
    size_t depth;
    uint32_t sector, block;
    uint64_t size;
    uint8_t *buffer;
};

static void name_of(size_t level, char out[8]) { snprintf(out, 8, "l%u", (unsigned)level % 10); }

static void link_parent(struct chain *c, size_t level)
{
    if (level)
        must(rp_vhdx_set_parent(c->layers[level], c->layers[level - 1], &err));
}

static void reopen(struct chain *c, size_t level, unsigned flags)
{
    char name[8];
    name_of(level, name);
    c->layers[level] = rp_vhdx_open(c->fs, name, flags, NULL, &err);
    must(!c->layers[level]);
    link_parent(c, level);
}

static void add_layer(struct chain *c)
{
    char name[8], parent[8];
    name_of(c->depth, name);
    struct rp_vhdx_create create = {.size = c->size, .block_size = c->block, .logical_sector = c->sector,
                                    .disk_id = rp_guid_new()};
    if (c->depth) {
        name_of(c->depth - 1, parent);
        must(rp_vhdx_freeze(c->layers[c->depth - 1], &err));
        create.parent_path = parent;
        create.parent_data_write_guid = rp_vhdx_info(c->layers[c->depth - 1])->data_write_guid;
    }
    must(rp_vhdx_create(c->fs, name, &create, &err));
    c->models[c->depth] = calloc(1, MAX_DISK);
    if (c->depth)
        memcpy(c->models[c->depth], c->models[c->depth - 1], c->size);
    reopen(c, c->depth, RP_VHDX_WRITE);
    c->depth++;
}

static void change(struct chain *c)
{
    struct rp_vhdx *leaf = c->layers[c->depth - 1];
    uint8_t *model = c->models[c->depth - 1];
    uint64_t sectors = c->size / c->sector, first = random_below(&c->random, sectors), n = 1 + random_below(&c->random,
                                                                                                            100);
    if (random_below(&c->random, 8) == 0) {
        first = first * c->sector / c->block * (c->block / c->sector);
        n = random_below(&c->random, 3) * (c->block / c->sector) + random_below(&c->random, 2) * 7;
    }
    uint64_t offset = first * c->sector, length = rp_min64(n, sectors - first) * c->sector;
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges preview = {0}, changed = {0};
    unsigned verb = (unsigned)random_below(&c->random, 6);
    if (verb > 1) {
        for (uint64_t i = 0; i < length; i += 8) {
            uint64_t x = next_random(&c->random) | 1;
            memcpy(c->buffer + i, &x, 8);
        }
        must(rp_vhdx_write(leaf, c->buffer, (uint32_t)length, offset, &err));
        memcpy(model + offset, c->buffer, length);
        return;
    }
    must((verb ? rp_vhdx_trim_preview : rp_vhdx_zero_preview)(leaf, offset, length, &preview, &err));
    must((verb ? rp_vhdx_trim : rp_vhdx_zero)(leaf, offset, length, &changed, &err));
    assert_int_equal(preview.count, changed.count);
    for (size_t i = 0; i < changed.count; i++) {
        assert_int_equal(preview.items[i].offset, changed.items[i].offset);
        assert_int_equal(preview.items[i].length, changed.items[i].length);
        assert_true(changed.items[i].offset >= offset && changed.items[i].length <= length);
        memset(model + changed.items[i].offset, 0, changed.items[i].length);
    }
    if (!verb)
        memset(model + offset, 0, length); // what was not "changed" must have been zeros
    changed.count = 0;
    must((verb ? rp_vhdx_trim : rp_vhdx_zero)(leaf, offset, length, &changed, &err)); // the second time nothing changes
    if (verb)
        assert_int_equal(changed.count, 0);
}

struct map {
    uint8_t *model;
    uint64_t at;
};

// Extents follow one another without a gap, and what is not data is zeros.
static int check_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    struct map *map = context;
    assert_int_equal(map->at, offset);
    map->at += length;
    assert_int_not_equal(state, RP_VHDX_IN_PARENT);
    for (uint64_t i = 0; state != RP_VHDX_DATA && i < length; i++)
        assert_int_equal(map->model[offset + i], 0);
    return 0;
}

static void verify(struct chain *c, struct rp_vhdx *disk, uint8_t *model)
{
    must(rp_vhdx_read(disk, c->buffer, (uint32_t)c->size, 0, &err));
    for (uint64_t i = 0; i < c->size; i += 512)
        if (memcmp(c->buffer + i, model + i, 512))
            fail_msg("bytes at %llu differ", (unsigned long long)i);
    struct map map = {model, 0};
    must(rp_vhdx_chain_extents(disk, 0, c->size, check_extent, &map, &err));
    assert_int_equal(map.at, c->size);
}

static void work(struct chain *c)
{
    for (int i = 0; i < 60; i++) {
        change(c);
        if (random_below(&c->random, 20) == 0)
            must(rp_vhdx_flush(c->layers[c->depth - 1], &err));
        if (random_below(&c->random, 20) == 0) {
            must(rp_vhdx_close(c->layers[c->depth - 1], &err));
            reopen(c, c->depth - 1, RP_VHDX_WRITE);
        }
    }
    verify(c, c->layers[c->depth - 1], c->models[c->depth - 1]);
}

static void close_from(struct chain *c, size_t level)
{
    while (c->depth > level) {
        must(rp_vhdx_close(c->layers[--c->depth], &err));
        free(c->models[c->depth]);
    }
}

// Merges layer `level` into its parent as the disk service does: new linkage first, then the copy.
static void merge(struct chain *c, size_t level)
{
    must(rp_vhdx_freeze(c->layers[level], &err));
    must(rp_vhdx_close(c->layers[level - 1], &err));
    c->layers[level - 1] = NULL;
    reopen(c, level - 1, RP_VHDX_WRITE);
    struct rp_vhdx *parent = c->layers[level - 1];
    must(rp_vhdx_set_parent(c->layers[level], parent, &err));
    must(rp_vhdx_merge(c->layers[level], parent, NULL, NULL, &err));
    verify(c, parent, c->models[level]);
    must(rp_vhdx_flush(parent, &err));
    memcpy(c->models[level - 1], c->models[level], c->size);
}

static void run(uint32_t sector, uint32_t block, uint32_t tail)
{
    struct chain c = {.random = test_seed(), .sector = sector, .block = block, .size = 12 * RP_MIB + tail};
    c.fs = rp_fs_memory_new();
    c.buffer = malloc(MAX_DISK);
    for (int i = 0; i < LEVELS; i++) {
        add_layer(&c);
        work(&c);
    }
    for (size_t i = 0; i < LEVELS; i++)
        verify(&c, c.layers[i], c.models[i]);
    struct rp_chain chain;
    must(rp_vhdx_freeze(c.layers[LEVELS - 1], &err));
    must(rp_chain_open(c.fs, "l3", &chain, &err));
    verify(&c, chain.layers[0], c.models[LEVELS - 1]);
    rp_chain_close(&chain);
    must(rp_convert_vhdx_to_raw(c.fs, "l3", "raw", NULL, NULL, &err));
    RP_CLEANUP(rp_buf_clear) struct rp_buf raw = {0};
    must(rp_fs_read_file(c.fs, "raw", MAX_DISK, &raw, &err));
    assert_int_equal(raw.size, c.size);
    assert_memory_equal(raw.data, c.models[LEVELS - 1], c.size);
    for (size_t i = LEVELS - 1; i > 0; i--) {
        merge(&c, i);
        close_from(&c, i);
    }
    close_from(&c, 0);
    rp_fs_memory_free(c.fs);
    free(c.buffer);
}

static void a_chain_reads_as_written_and_merges_keep_it_so(void **state)
{
    (void)state;
    run(512, 1 << 20, 0);
    run(512, 2 << 20, 512 * 333);
}

static void sectors_of_4096_bytes_work_the_same(void **state)
{
    (void)state;
    run(4096, 2 << 20, 4096 * 3);
}

static void write_raw(struct rp_fs *fs, const char *path, const uint8_t *data, uint64_t size)
{
    struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, &err);
    must(!store || rp_store_truncate(store, size, &err));
    for (uint64_t at = 0; at < size; at += RP_MIB / 4) {
        uint64_t n = rp_min64(RP_MIB / 4, size - at);
        if (data[at] || memcmp(data + at, data + at + 1, n - 1)) // holes stay holes
            must(rp_store_pwrite(store, data + at, n, at, &err));
    }
    rp_store_close(store);
}

static int stop_soon(void *context, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    return ++*(int *)context > 1;
}

static void a_raw_image_is_converted_there_and_back(void **state)
{
    (void)state;
    enum { SIZE = (12 << 20) + 1000 }; // not whole sectors
    struct rp_fs *fs = rp_fs_memory_new();
    uint64_t random = test_seed();
    uint8_t *data = calloc(1, SIZE);
    for (uint64_t at = 0; at < SIZE; at += RP_MIB / 4)
        if (random_below(&random, 2))
            memset(data + at, (int)(1 + random_below(&random, 255)), rp_min64(RP_MIB / 4, SIZE - at));
    memset(data + 6 * RP_MIB + 1, 0, RP_MIB); // zeros that are not all holes
    write_raw(fs, "raw", data, SIZE);
    must(rp_convert_raw_to_vhdx(fs, "raw", "vhdx", NULL, NULL, NULL, &err));
    enum rp_image_format format;
    must(rp_image_detect(fs, "vhdx", &format, &err));
    assert_int_equal(format, RP_IMAGE_VHDX);
    must(rp_image_detect(fs, "raw", &format, &err));
    assert_int_equal(format, RP_IMAGE_RAW);
    must(rp_convert_vhdx_to_raw(fs, "vhdx", "back", NULL, NULL, &err));
    RP_CLEANUP(rp_buf_clear) struct rp_buf back = {0};
    must(rp_fs_read_file(fs, "back", SIZE + 512, &back, &err));
    assert_int_equal(back.size, rp_align_up(SIZE, 512));
    assert_memory_equal(back.data, data, SIZE);
    assert_int_equal(rp_convert_raw_to_vhdx(fs, "raw", "vhdx", NULL, NULL, NULL, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
    rp_error_clear(&err);
    int calls = 0;
    assert_int_equal(rp_convert_raw_to_vhdx(fs, "raw", "stopped", NULL, stop_soon, &calls, &err), -1);
    assert_int_equal(err.code, RP_ERR_CANCELLED);
    bool exists;
    must(rp_fs_exists(fs, "stopped", &exists, NULL));
    assert_false(exists);
    free(data);
    rp_fs_memory_free(fs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_reads_as_written_and_merges_keep_it_so),
        cmocka_unit_test(sectors_of_4096_bytes_work_the_same),
        cmocka_unit_test(a_raw_image_is_converted_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
