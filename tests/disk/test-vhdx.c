// What one VHDX file promises.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/num.h"
#include "disk/chain.h"
#include "disk/format.h"
#include "io/memory.h"
#include "torn.h"

static struct rp_error err;
static struct rp_fs *fs;

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

static int setup(void **state)
{
    (void)state;
    fs = torn_fs_new();
    rp_error_clear(&err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    torn_fs_free(fs);
    return 0;
}

static struct rp_vhdx *open_with(const char *path, unsigned flags)
{
    struct rp_vhdx *v = rp_vhdx_open(fs, path, flags, NULL, &err);
    must(!v);
    return v;
}

static void make(const char *path, uint64_t size, uint32_t block)
{
    must(rp_vhdx_create(fs, path, &(struct rp_vhdx_create){.size = size, .block_size = block}, &err));
}

static void make_child(const char *path, const char *parent_path)
{
    struct rp_vhdx *parent = open_with(parent_path, RP_VHDX_READ);
    const struct rp_vhdx_info *p = rp_vhdx_info(parent);
    struct rp_vhdx_create create = {p->size, p->block_size, p->logical_sector, p->physical_sector, p->disk_id,
                                    parent_path,
                                    p->data_write_guid, {{0}}};
    must(rp_vhdx_create(fs, path, &create, &err));
    rp_vhdx_abandon(parent);
}

static void write_byte(struct rp_vhdx *v, int byte, uint64_t offset, uint32_t size)
{
    RP_AUTO_FREE uint8_t *data = malloc(size);
    memset(data, byte, size);
    must(rp_vhdx_write(v, data, size, offset, &err));
}

static void expect_byte(struct rp_vhdx *v, int byte, uint64_t offset, uint32_t size)
{
    RP_AUTO_FREE uint8_t *data = malloc(size);
    must(rp_vhdx_read(v, data, size, offset, &err));
    for (uint32_t i = 0; i < size; i++)
        if (data[i] != byte)
            fail_msg("byte %llu reads %02x, not %02x", (unsigned long long)(offset + i), data[i], byte);
}

static void content(const char *path, struct rp_buf *out)
{
    out->size = 0;
    must(rp_fs_read_file(fs, path, 1 << 30, out, &err));
}

static void patch(const char *path, uint64_t offset, const void *data, size_t size)
{
    struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_WRITE, &err);
    must(!store || rp_store_pwrite(store, data, size, offset, &err) || rp_store_flush(store, &err));
    rp_store_close(store);
}

static uint64_t file_size(const char *path)
{
    uint64_t size = 0;
    struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, &err);
    must(!store || rp_store_size(store, &size, &err));
    rp_store_close(store);
    return size;
}

static void expect_open_fails(const char *path, unsigned flags, enum rp_code code)
{
    struct rp_error why = {0};
    struct rp_vhdx *v = rp_vhdx_open(fs, path, flags, NULL, &why);
    assert_null(v);
    if (why.code != code)
        fail_msg("%s, not %s: %s", rp_code_name(why.code), rp_code_name(code), why.text);
}

static void a_file_that_is_only_opened_stays_as_it_is(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf before = {0}, after = {0};
    make("d", 64 * RP_MIB, 0);
    content("d", &before);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    expect_byte(v, 0, 0, 4096);
    must(rp_vhdx_flush(v, &err) || rp_vhdx_close(v, &err));
    content("d", &after);
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.data, after.data, before.size);
}

static void allocating_writes_cost_no_sync_and_a_flush_costs_one(void **state)
{
    (void)state;
    make("d", RP_GIB, 0);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 4096); // begins the session
    unsigned long syncs = torn_fs_syncs(fs);
    for (unsigned i = 1; i < 400; i++)
        write_byte(v, 1, i * 2 * RP_MIB, 4096);
    assert_int_equal(torn_fs_syncs(fs) - syncs, 0);
    must(rp_vhdx_flush(v, &err));
    assert_int_equal(torn_fs_syncs(fs) - syncs, 1);
    must(rp_vhdx_flush(v, &err));
    assert_int_equal(torn_fs_syncs(fs) - syncs, 1); // nothing was written since
    must(rp_vhdx_close(v, &err));
}

static void an_overwrite_is_one_call_to_the_file(void **state)
{
    (void)state;
    make("d", 64 * RP_MIB, 0);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 8 * RP_MIB);
    unsigned long calls = torn_fs_calls(fs);
    write_byte(v, 2, 4096, 4096);
    assert_int_equal(torn_fs_calls(fs) - calls, 1);
    write_byte(v, 3, RP_MIB, 3 * RP_MIB); // across blocks that lie together
    assert_int_equal(torn_fs_calls(fs) - calls, 2);
    rp_vhdx_abandon(v);
}

static void guids_change_when_the_specification_says(void **state)
{
    (void)state;
    make("p", 8 * RP_MIB, RP_MIB);
    make_child("c", "p");
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    struct rp_vhdx *v = rp_vhdx_open(fs, "c", RP_VHDX_WRITE, &session, &err);
    must(!v);
    struct rp_guid data = rp_vhdx_info(v)->data_write_guid, linkage = rp_vhdx_info(v)->parent_linkage;
    assert_false(rp_guid_equal(&rp_vhdx_info(v)->file_write_guid, &session.file_write_guid));
    must(rp_vhdx_set_parent_locator(v, &linkage, &session.data_write_guid, NULL, &err));
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->file_write_guid, &session.file_write_guid));
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->data_write_guid, &data)); // nothing that a guest sees has changed
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->parent_linkage2, &session.data_write_guid));
    write_byte(v, 1, 0, 512 * 2048);
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->data_write_guid, &session.data_write_guid));
    must(rp_vhdx_close(v, &err));
    v = open_with("c", RP_VHDX_READ);
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->file_write_guid, &session.file_write_guid));
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->data_write_guid, &session.data_write_guid));
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->parent_linkage2, &session.data_write_guid));
    assert_string_equal(rp_vhdx_info(v)->parent_path, "p");
    rp_vhdx_abandon(v);
}

static void one_broken_header_or_region_table_is_survived_and_repaired(void **state)
{
    (void)state;
    for (unsigned area = 1; area <= 4; area++) {
        char path[8] = {'d', (char)('0' + area)};
        make(path, 8 * RP_MIB, RP_MIB);
        patch(path, area * 65536 + 20, "broken", 6);
        rp_vhdx_abandon(open_with(path, RP_VHDX_READ));
        struct rp_vhdx *v = open_with(path, RP_VHDX_WRITE);
        write_byte(v, 7, 0, 4096);
        must(rp_vhdx_close(v, &err));
        unsigned other = area == 1 ? 2 : area == 2 ? 1 : area == 3 ? 4 : 3; // now the other copy breaks
        patch(path, other * 65536 + 20, "broken", 6);
        v = open_with(path, RP_VHDX_READ);
        expect_byte(v, 7, 0, 4096);
        rp_vhdx_abandon(v);
        patch(path, area * 65536 + 20, "broken", 6); // both
        expect_open_fails(path, RP_VHDX_READ, RP_ERR_CORRUPT);
    }
}

static void a_reader_replays_a_dirty_log_in_memory_only(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf before = {0}, after = {0};
    make("d", 64 * RP_MIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    for (unsigned i = 0; i < 20; i++)
        write_byte(v, (int)i + 1, i * 3 * RP_MIB, 4096);
    must(rp_vhdx_flush(v, &err));
    // a crash that loses the in-place writes: everything after the sync
    uint64_t random = 1;
    torn_fs_cut(fs, &random, 0);
    rp_vhdx_abandon(v);
    content("d", &before);
    v = open_with("d", RP_VHDX_READ);
    assert_true(rp_vhdx_info(v)->dirty_log);
    for (unsigned i = 0; i < 20; i++)
        expect_byte(v, (int)i + 1, i * 3 * RP_MIB, 4096);
    rp_vhdx_abandon(v);
    content("d", &after);
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.data, after.data, before.size);
}

static void a_dirty_log_without_a_valid_entry_is_refused(void **state)
{
    (void)state;
    make("d", 64 * RP_MIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 4096);
    must(rp_vhdx_flush(v, &err));
    rp_vhdx_abandon(v);
    patch("d", RP_MIB + 100, "x", 1);
    patch("d", RP_MIB + 4096 + 100, "x", 1);
    expect_open_fails("d", RP_VHDX_READ, RP_ERR_CORRUPT);
    expect_open_fails("d", RP_VHDX_WRITE, RP_ERR_CORRUPT);
}

static void a_file_cut_short_is_refused(void **state)
{
    (void)state;
    make("d", 64 * RP_MIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 8 * RP_MIB);
    must(rp_vhdx_close(v, &err));
    struct rp_store *store = rp_fs_open(fs, "d", RP_OPEN_WRITE, &err);
    must(!store || rp_store_truncate(store, file_size("d") - 2 * RP_MIB, &err));
    rp_store_close(store);
    expect_open_fails("d", RP_VHDX_WRITE, RP_ERR_CORRUPT);
    v = open_with("d", RP_VHDX_READ);
    expect_byte(v, 1, 0, 4096);
    uint8_t sector[512];
    assert_int_equal(rp_vhdx_read(v, sector, 512, 7 * RP_MIB, &err), -1); // an error, never zeros
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    rp_vhdx_abandon(v);
}

static void two_blocks_in_one_place_are_refused_for_writing(void **state)
{
    (void)state;
    make("d", 64 * RP_MIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 2 * RP_MIB);
    must(rp_vhdx_close(v, &err));
    uint8_t entry[8];
    rp_put_le64(entry, file_size("d") - RP_MIB + RP_BLOCK_FULL);
    patch("d", 10 * RP_MIB + 5 * 8, entry, 8);
    expect_open_fails("d", RP_VHDX_WRITE, RP_ERR_CORRUPT);
    rp_put_le64(entry, RP_MIB + RP_BLOCK_FULL); // on the log
    patch("d", 10 * RP_MIB + 5 * 8, entry, 8);
    expect_open_fails("d", RP_VHDX_WRITE, RP_ERR_CORRUPT);
    rp_put_le64(entry, 4); // a reserved state
    patch("d", 10 * RP_MIB + 5 * 8, entry, 8);
    expect_open_fails("d", RP_VHDX_WRITE, RP_ERR_CORRUPT);
    v = open_with("d", RP_VHDX_READ);
    uint8_t sector[512];
    assert_int_equal(rp_vhdx_read(v, sector, 512, 5 * RP_MIB, &err), -1);
    rp_vhdx_abandon(v);
}

static void writers_are_alone_and_a_frozen_disk_has_readers(void **state)
{
    (void)state;
    make("d", 8 * RP_MIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    expect_open_fails("d", RP_VHDX_WRITE, RP_ERR_BUSY);
    expect_open_fails("d", RP_VHDX_READ, RP_ERR_BUSY);
    write_byte(v, 5, 0, RP_MIB);
    must(rp_vhdx_freeze(v, &err) || rp_vhdx_freeze(v, &err));
    struct rp_vhdx *reader = open_with("d", RP_VHDX_READ);
    assert_false(rp_vhdx_info(reader)->dirty_log);
    expect_byte(reader, 5, 0, RP_MIB);
    expect_byte(v, 5, 0, RP_MIB);
    expect_open_fails("d", RP_VHDX_WRITE, RP_ERR_BUSY);
    uint8_t sector[512] = {0};
    assert_int_equal(rp_vhdx_write(v, sector, 512, 0, &err), -1);
    assert_int_equal(err.code, RP_ERR_STATE);
    rp_vhdx_abandon(reader);
    must(rp_vhdx_close(v, NULL));
}

static void a_failed_sync_is_final(void **state)
{
    (void)state;
    make("d", 8 * RP_MIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 4096);
    must(rp_vhdx_flush(v, &err));
    write_byte(v, 2, 0, 4096);
    torn_fs_fail_flush(fs, 1);
    struct rp_error why = {0};
    assert_int_equal(rp_vhdx_flush(v, &why), -1);
    assert_int_equal(why.code, RP_ERR_IO);
    uint8_t sector[512] = {0};
    assert_int_equal(rp_vhdx_flush(v, NULL), -1);
    assert_int_equal(rp_vhdx_write(v, sector, 512, 0, NULL), -1);
    unsigned long calls = torn_fs_calls(fs);
    assert_int_equal(rp_vhdx_close(v, NULL), -1);
    assert_int_equal(torn_fs_calls(fs), calls); // nothing more was written
}

static void more_changed_pages_than_the_log_holds_are_written_in_batches(void **state)
{
    (void)state;
    make("p", 100 * RP_GIB, RP_MIB);
    make_child("c", "p");
    struct rp_vhdx *parent = open_with("p", RP_VHDX_READ), *v = open_with("c", RP_VHDX_WRITE);
    must(rp_vhdx_set_parent(v, parent, &err));
    enum { WRITES = 2500 }; // each with a bitmap page of its own: 2500 pages, an entry has less than 700
    for (unsigned i = 0; i < WRITES; i++)
        write_byte(v, (int)(i % 255) + 1, i * 40 * RP_MIB, 4096);
    must(rp_vhdx_flush(v, &err));
    uint64_t random = 1;
    torn_fs_cut(fs, &random, 0);
    rp_vhdx_abandon(v);
    rp_vhdx_abandon(parent);
    parent = open_with("p", RP_VHDX_READ);
    v = open_with("c", RP_VHDX_READ);
    must(rp_vhdx_set_parent(v, parent, &err));
    for (unsigned i = 0; i < WRITES; i++) {
        expect_byte(v, (int)(i % 255) + 1, i * 40 * RP_MIB, 4096);
        expect_byte(v, 0, i * 40 * RP_MIB + 4096, 512);
    }
    rp_vhdx_abandon(v);
    rp_vhdx_abandon(parent);
}

static void trimmed_space_is_used_again(void **state)
{
    (void)state;
    make("d", 64 * RP_MIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 16 * RP_MIB);
    for (int i = 0; i < 10; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        must(rp_vhdx_trim(v, 512, 16 * RP_MIB - 512, &changed, &err));
        assert_int_equal(changed.items[0].offset, RP_MIB); // the block that is only partly inside stays
        assert_int_equal(rp_ranges_total(&changed), 15 * RP_MIB);
        expect_byte(v, 1, 0, RP_MIB);
        expect_byte(v, 0, RP_MIB, 15 * RP_MIB);
        for (int k = 0; k < 3; k++) {
            write_byte(v, 2, 40 * RP_MIB, 512);
            must(rp_vhdx_flush(v, &err));
        }
        write_byte(v, 3, 5 * RP_MIB, 512);
        expect_byte(v, 0, 5 * RP_MIB + 512, RP_MIB - 512); // nothing of what was there before
        write_byte(v, 1, RP_MIB, 15 * RP_MIB);
    }
    must(rp_vhdx_close(v, &err));
    assert_in_range(file_size("d"), 11 * RP_MIB, (11 + 34) * RP_MIB);
}

static void a_child_hides_its_parent_where_it_was_zeroed_or_trimmed(void **state)
{
    (void)state;
    make("p", 8 * RP_MIB, RP_MIB);
    struct rp_vhdx *parent = open_with("p", RP_VHDX_WRITE);
    write_byte(parent, 9, 0, 6 * RP_MIB);
    must(rp_vhdx_freeze(parent, &err));
    make_child("c", "p");
    struct rp_vhdx *v = open_with("c", RP_VHDX_WRITE);
    must(rp_vhdx_set_parent(v, parent, &err));
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    must(rp_vhdx_zero(v, RP_MIB / 2, 2 * RP_MIB, &changed, &err));
    must(rp_vhdx_trim(v, 4 * RP_MIB, 4 * RP_MIB, &changed, &err)); // the parent has nothing behind 6 MiB
    assert_int_equal(changed.count, 2);
    assert_int_equal(rp_ranges_total(&changed), 4 * RP_MIB);
    write_byte(v, 8, 4 * RP_MIB + 512, 512);
    for (int i = 0; i < 2; i++) {
        expect_byte(v, 9, 0, RP_MIB / 2);
        expect_byte(v, 0, RP_MIB / 2, 2 * RP_MIB);
        expect_byte(v, 9, 5 * RP_MIB / 2, 3 * RP_MIB / 2);
        expect_byte(v, 0, 4 * RP_MIB, 512);
        expect_byte(v, 8, 4 * RP_MIB + 512, 512);
        expect_byte(v, 0, 4 * RP_MIB + 1024, 4 * RP_MIB - 1024);
        must(rp_vhdx_close(v, &err));
        v = open_with("c", RP_VHDX_READ);
        must(rp_vhdx_set_parent(v, parent, &err));
    }
    rp_vhdx_abandon(v);
    rp_vhdx_abandon(parent);
}

static void a_disk_grows_beyond_its_block_table(void **state)
{
    (void)state;
    make("p", 100 * RP_GIB - 512, RP_MIB);
    struct rp_vhdx *v = open_with("p", RP_VHDX_WRITE);
    write_byte(v, 1, 0, 4096);
    write_byte(v, 2, 100 * RP_GIB - 4096, 4096 - 512);
    must(rp_vhdx_grow(v, 120 * RP_GIB, &err)); // inside the table's 1 MiB
    must(rp_vhdx_grow(v, 600 * RP_GIB, &err)); // a larger table
    write_byte(v, 3, 599 * RP_GIB, 4096);
    must(rp_vhdx_flush(v, &err));
    uint64_t random = 1;
    torn_fs_cut(fs, &random, 0);
    rp_vhdx_abandon(v);
    for (int i = 0; i < 2; i++) {
        v = open_with("p", i ? RP_VHDX_WRITE : RP_VHDX_READ);
        assert_int_equal(rp_vhdx_info(v)->size, 600 * RP_GIB);
        expect_byte(v, 1, 0, 4096);
        expect_byte(v, 2, 100 * RP_GIB - 4096, 4096 - 512);
        expect_byte(v, 0, 100 * RP_GIB - 512, RP_MIB);
        expect_byte(v, 3, 599 * RP_GIB, 4096);
        rp_vhdx_abandon(v);
    }
    v = open_with("p", RP_VHDX_WRITE);
    assert_int_equal(rp_vhdx_grow(v, RP_GIB, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_vhdx_abandon(v);
}

static void a_child_that_grew_reads_zeros_behind_its_parent(void **state)
{
    (void)state;
    make("p", 4 * RP_MIB + 512, RP_MIB);
    struct rp_vhdx *parent = open_with("p", RP_VHDX_WRITE);
    write_byte(parent, 9, 0, 4 * RP_MIB + 512);
    must(rp_vhdx_freeze(parent, &err));
    make_child("c", "p");
    struct rp_vhdx *v = open_with("c", RP_VHDX_WRITE);
    must(rp_vhdx_set_parent(v, parent, &err));
    must(rp_vhdx_grow(v, 10 * RP_MIB, &err));
    expect_byte(v, 9, 0, 4 * RP_MIB + 512);
    expect_byte(v, 0, 4 * RP_MIB + 512, 6 * RP_MIB - 512);
    write_byte(v, 7, 9 * RP_MIB, 512);
    must(rp_vhdx_close(v, &err));
    rp_vhdx_abandon(parent);
    parent = open_with("p", RP_VHDX_WRITE);
    v = open_with("c", RP_VHDX_READ);
    must(rp_vhdx_set_parent(v, parent, &err));
    must(rp_vhdx_merge(v, parent, NULL, NULL, &err));
    assert_int_equal(rp_vhdx_info(parent)->size, 10 * RP_MIB);
    expect_byte(parent, 9, 0, 4 * RP_MIB + 512);
    expect_byte(parent, 0, 4 * RP_MIB + 512, RP_MIB);
    expect_byte(parent, 7, 9 * RP_MIB, 512);
    must(rp_vhdx_close(parent, &err));
    rp_vhdx_abandon(v);
}

static void a_child_does_not_grow_where_its_parent_would_show(void **state)
{
    (void)state;
    make("p", 8 * RP_MIB, RP_MIB);
    struct rp_vhdx *parent = open_with("p", RP_VHDX_WRITE);
    write_byte(parent, 9, 0, 8 * RP_MIB);
    must(rp_vhdx_freeze(parent, &err));
    const struct rp_vhdx_info *p = rp_vhdx_info(parent);
    struct rp_vhdx_create create = {.size = 4 * RP_MIB, .block_size = RP_MIB, .disk_id = p->disk_id, .parent_path = "p",
                                    .parent_data_write_guid = p->data_write_guid};
    must(rp_vhdx_create(fs, "c", &create, &err));
    struct rp_vhdx *v = open_with("c", RP_VHDX_WRITE);
    must(rp_vhdx_set_parent(v, parent, &err));
    struct rp_error why = {0};
    assert_int_equal(rp_vhdx_grow(v, 8 * RP_MIB, &why), -1);
    assert_int_equal(why.code, RP_ERR_UNSUPPORTED);
    assert_int_equal(rp_vhdx_info(v)->size, 4 * RP_MIB);
    must(rp_vhdx_close(v, &err)); // nothing else is wrong with it
    rp_vhdx_abandon(parent);
}

static void blocks_behind_the_end_of_a_child_do_not_come_alive(void **state)
{
    (void)state;
    make("p", 4 * RP_MIB, RP_MIB);
    make_child("c", "p");
    struct rp_vhdx *parent = open_with("p", RP_VHDX_READ), *v = open_with("c", RP_VHDX_WRITE);
    must(rp_vhdx_set_parent(v, parent, &err));
    write_byte(v, 7, 0, RP_MIB);
    must(rp_vhdx_close(v, &err));
    RP_CLEANUP(rp_buf_clear) struct rp_buf file = {0};
    content("c", &file);
    uint64_t region = 0;
    static const uint8_t bat[4] = {0x66, 0x77, 0xC2, 0x2D}; // how the region's GUID begins
    for (size_t at = 16; !region; at += 32)
        if (!memcmp(file.data + 192 * 1024 + at, bat, 4))
            memcpy(&region, file.data + 192 * 1024 + at + 16, 8);
    patch("c", region + 6 * 8, &(uint64_t){2}, 8); // block 6: zeros
    v = open_with("c", RP_VHDX_WRITE);
    must(rp_vhdx_set_parent(v, parent, &err));
    struct rp_error why = {0};
    assert_int_equal(rp_vhdx_grow(v, 8 * RP_MIB, &why), -1);
    assert_int_equal(why.code, RP_ERR_CORRUPT);
    expect_byte(v, 7, 0, RP_MIB);
    rp_vhdx_abandon(v);
    rp_vhdx_abandon(parent);
}

static void chains_are_checked(void **state)
{
    (void)state;
    make("p", 8 * RP_MIB, RP_MIB);
    make_child("c", "p");
    make_child("g", "c");
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    must(rp_chain_open(fs, "g", &chain, &err));
    assert_int_equal(chain.depth, 3);
    rp_chain_close(&chain);
    struct rp_vhdx *v = open_with("p", RP_VHDX_WRITE); // a change behind the children's backs
    write_byte(v, 1, 0, 512);
    must(rp_vhdx_close(v, &err));
    assert_int_equal(rp_chain_open(fs, "g", &chain, &err), -1);
    assert_int_equal(err.code, RP_ERR_PARENT_MISMATCH);
    rp_error_clear(&err);
    must(rp_fs_unlink(fs, "p", &err));
    assert_int_equal(rp_chain_open(fs, "g", &chain, &err), -1);
    assert_int_equal(err.code, RP_ERR_PARENT_NOT_FOUND);
    rp_error_clear(&err);
    must(rp_fs_rename(fs, "c", "p", &err)); // its own parent now
    assert_int_equal(rp_chain_open(fs, "p", &chain, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
}

static void arguments_are_checked(void **state)
{
    (void)state;
    uint8_t data[1024] = {0};
    make("d", 8 * RP_MIB + 4096, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    assert_int_equal(rp_vhdx_read(v, data, 511, 0, NULL), -1);
    assert_int_equal(rp_vhdx_read(v, data, 512, 1, NULL), -1);
    assert_int_equal(rp_vhdx_read(v, data, 512, 8 * RP_MIB + 4096, NULL), -1);
    assert_int_equal(rp_vhdx_write(v, data, 1024, 8 * RP_MIB + 4096 - 512, NULL), -1);
    assert_int_equal(rp_vhdx_zero(v, UINT64_MAX - 511, 512, NULL, NULL), -1);
    assert_int_equal(rp_vhdx_set_parent(v, v, NULL), -1);
    rp_vhdx_abandon(v);
    const struct rp_vhdx_create bad[] = {
        {.size = 0}, {.size = 1000}, {.size = 65 * RP_TIB}, {.size = RP_MIB, .block_size = 3 << 20},
        {.size = RP_MIB, .block_size = 512 << 20}, {.size = RP_MIB, .logical_sector = 1024}, {.size = 512,
                                                                                              .logical_sector = 4096},
        {.size = RP_MIB, .parent_path = "d"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(rp_vhdx_create(fs, "bad", &bad[i], NULL), -1);
    bool exists;
    must(rp_fs_exists(fs, "bad", &exists, &err));
    assert_false(exists);
    assert_int_equal(rp_vhdx_create(fs, "d", &(struct rp_vhdx_create){.size = RP_MIB}, &err), -1);
    assert_int_equal(err.code, RP_ERR_EXISTS);
}

static int count_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset, (void)length, (void)state;
    ++*(unsigned *)context;
    return 0;
}

static void the_largest_disk_opens_without_its_table_in_memory(void **state)
{
    (void)state;
    make("d", 64 * RP_TIB, RP_MIB);
    struct rp_vhdx *v = open_with("d", RP_VHDX_WRITE);
    write_byte(v, 1, 64 * RP_TIB - 4096, 4096);
    write_byte(v, 2, 33 * RP_TIB, 4096);
    must(rp_vhdx_close(v, &err));
    v = open_with("d", RP_VHDX_READ);
    expect_byte(v, 1, 64 * RP_TIB - 4096, 4096);
    unsigned extents = 0;
    must(rp_vhdx_extents(v, 63 * RP_TIB, RP_TIB, count_extent, &extents, &err));
    assert_int_equal(extents, 2);
    rp_vhdx_abandon(v);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_that_is_only_opened_stays_as_it_is),
        TEST(allocating_writes_cost_no_sync_and_a_flush_costs_one),
        TEST(an_overwrite_is_one_call_to_the_file),
        TEST(guids_change_when_the_specification_says),
        TEST(one_broken_header_or_region_table_is_survived_and_repaired),
        TEST(a_reader_replays_a_dirty_log_in_memory_only),
        TEST(a_dirty_log_without_a_valid_entry_is_refused),
        TEST(a_file_cut_short_is_refused),
        TEST(two_blocks_in_one_place_are_refused_for_writing),
        TEST(writers_are_alone_and_a_frozen_disk_has_readers),
        TEST(a_failed_sync_is_final),
        TEST(more_changed_pages_than_the_log_holds_are_written_in_batches),
        TEST(trimmed_space_is_used_again),
        TEST(a_child_hides_its_parent_where_it_was_zeroed_or_trimmed),
        TEST(a_disk_grows_beyond_its_block_table),
        TEST(a_child_that_grew_reads_zeros_behind_its_parent),
        TEST(a_child_does_not_grow_where_its_parent_would_show),
        TEST(blocks_behind_the_end_of_a_child_do_not_come_alive),
        TEST(chains_are_checked),
        TEST(arguments_are_checked),
        TEST(the_largest_disk_opens_without_its_table_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
