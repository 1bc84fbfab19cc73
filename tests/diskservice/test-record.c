// The chain record: two slots, written in turn.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "crashfs.h"
#include "diskservice/record.h"

enum { LONG = 800 }; // so that a slot has several sectors

static void fill(struct rp_record *record)
{
    *record = (struct rp_record){.vm_id = rp_guid_new(), .count = 2};
    for (uint32_t i = 0; i < 2; i++)
        record->disks[i] = (struct rp_record_disk){i * 7, rp_guid_new(), rp_xasprintf("/vm/disk%0*u.vhdx", LONG, i)};
    record->last.operation = rp_guid_new();
    record->last.pause_ns = 123456;
    record->last.count = 1;
    record->last.disks[0] = (struct rp_engine_frozen){
        record->disks[0].disk_id, rp_xstrdup("/vm/disk0.vhdx"), rp_xstrdup("/vm/disk0_x.avhdx"), true, {rp_guid_new(), 42}};
    assert_int_equal(rp_record_add_scratch(record, "/vm/disk0_x.avhdx", NULL), 0);
    assert_int_equal(rp_record_add_scratch(record, "/vm/disk0_x.avhdx", NULL), 0);
    assert_int_equal(record->scratch_count, 1);
    assert_int_equal(rp_record_add_merging(record, "/vm/disk0_y.avhdx", NULL), 0);
    assert_int_equal(rp_record_add_merging(record, "/vm/disk1_y.avhdx", NULL), 0);
}

static void assert_equal(const struct rp_record *a, const struct rp_record *b)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf x = {0}, y = {0};
    assert_int_equal(rp_record_encode(a, &x, NULL), 0);
    assert_int_equal(rp_record_encode(b, &y, NULL), 0);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
}

static void a_record_reads_back_as_it_was_written(void **state)
{
    (void)state;
    struct rp_fs *fs = rp_fs_memory_new();
    RP_CLEANUP(rp_record_clear) struct rp_record record, read;
    struct rp_error err = {0};
    assert_int_equal(rp_record_read(fs, "/vm", &read, &err), -1);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    fill(&record);
    for (uint64_t generation = 1; generation < 6; generation++) {
        free(record.disks[1].leaf_path);
        record.disks[1].leaf_path = rp_xasprintf("/vm/generation-%d", (int)generation);
        assert_int_equal(rp_record_write(fs, "/vm", &record, NULL), 0);
        assert_int_equal(record.generation, generation);
        rp_fs_memory_cut(fs); // durable at return
        assert_int_equal(rp_record_read(fs, "/vm", &read, NULL), 0);
        assert_equal(&record, &read);
        rp_record_clear(&read);
    }
    rp_fs_memory_free(fs);
}

static void a_record_of_another_version_is_not_read(void **state)
{
    (void)state;
    RP_CLEANUP(rp_record_clear) struct rp_record record, read;
    RP_CLEANUP(rp_buf_clear) struct rp_buf slot = {0};
    fill(&record);
    record.generation = 7;
    assert_int_equal(rp_record_encode(&record, &slot, NULL), 0);
    for (uint32_t version = 2; version <= 4; version += 2) {
        rp_put_le32(slot.data + 40, version);
        rp_put_le32(slot.data + 80, rp_crc32c(0, slot.data + 12, 68));
        rp_put_le32(slot.data + 8, rp_crc32c_skip(slot.data, slot.size, 8));
        assert_int_equal(rp_record_decode(slot.data, slot.size, &read, NULL), -1);
        rp_record_clear(&read);
    }
}

static void flip(struct rp_fs *fs, uint64_t offset)
{
    struct rp_store *store = rp_fs_open(fs, "/vm/" RP_RECORD_NAME, RP_OPEN_WRITE, NULL);
    uint8_t byte;
    assert_int_equal(rp_store_pread(store, &byte, 1, offset, NULL), 0);
    byte ^= 4;
    assert_int_equal(rp_store_pwrite(store, &byte, 1, offset, NULL), 0);
    rp_store_close(store);
}

static void a_damaged_slot_leaves_the_generation_before(void **state)
{
    (void)state;
    struct rp_fs *fs = rp_fs_memory_new();
    RP_CLEANUP(rp_record_clear) struct rp_record record, read;
    fill(&record);
    for (int i = 0; i < 4; i++)
        assert_int_equal(rp_record_write(fs, "/vm", &record, NULL), 0);
    flip(fs, RP_RECORD_SLOT + 100); // generation 4
    assert_int_equal(rp_record_read(fs, "/vm", &read, NULL), 0);
    assert_int_equal(read.generation, 3);
    assert_true(read.damaged);
    // the next write goes over the damaged slot, not over the good one
    assert_int_equal(rp_record_write(fs, "/vm", &read, NULL), 0);
    assert_int_equal(read.generation, 4);
    flip(fs, RP_RECORD_SLOT + 100);
    rp_record_clear(&read);
    assert_int_equal(rp_record_read(fs, "/vm", &read, NULL), 0);
    assert_int_equal(read.generation, 3);
    rp_record_clear(&read);
    flip(fs, 30);
    struct rp_error err = {0};
    assert_int_equal(rp_record_read(fs, "/vm", &read, &err), -1);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    rp_fs_memory_free(fs);
}

static void a_crash_while_writing_leaves_the_old_record_or_the_new_one(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    for (int round = 0; round < 60; round++) {
        struct rp_fs *fs = crashfs_new();
        RP_CLEANUP(rp_record_clear) struct rp_record record, read;
        fill(&record);
        uint64_t before = (uint64_t)(round % 3);
        for (uint64_t i = 0; i < before; i++)
            assert_int_equal(rp_record_write(fs, "/vm", &record, NULL), 0);
        crashfs_arm(fs, 1 + (unsigned)round / 6 % 5);
        int failed = rp_record_write(fs, "/vm", &record, NULL);
        crashfs_restart(fs, round % 2, &seed);
        struct rp_error err = {0};
        if (rp_record_read(fs, "/vm", &read, &err)) {
            assert_int_equal(before, 0); // the very first one: there is no file yet
            assert_int_equal(failed, -1);
            assert_int_equal(err.code, RP_ERR_NOT_FOUND);
        } else {
            assert_true(read.generation == before + 1 || (failed && read.generation == before));
            assert_false(read.damaged);
        }
        crashfs_free(fs);
    }
}

static void hostile_records_are_refused(void **state)
{
    (void)state;
    RP_CLEANUP(rp_record_clear) struct rp_record record, read;
    RP_CLEANUP(rp_buf_clear) struct rp_buf slot = {0};
    fill(&record);
    record.generation = 1;
    assert_int_equal(rp_record_encode(&record, &slot, NULL), 0);
    for (size_t size = 0; size < slot.size; size++)
        assert_int_equal(rp_record_decode(slot.data, size, &read, NULL), -1);
    for (size_t i = 0; i < slot.size; i++) {
        slot.data[i] ^= 1;
        assert_int_equal(rp_record_decode(slot.data, slot.size, &read, NULL), -1);
        slot.data[i] ^= 1;
    }
    assert_int_equal(rp_record_decode(slot.data, slot.size, &read, NULL), 0);
    rp_record_clear(&read);
    // what cannot be written is refused while nothing is written
    struct rp_fs *fs = rp_fs_memory_new();
    free(record.disks[0].leaf_path);
    record.disks[0].leaf_path = rp_xstrdup("relative.vhdx");
    struct rp_error err = {0};
    assert_int_equal(rp_record_write(fs, "/vm", &record, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    assert_int_equal(record.generation, 1);
    rp_fs_memory_free(fs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_reads_back_as_it_was_written),
        cmocka_unit_test(a_record_of_another_version_is_not_read),
        cmocka_unit_test(a_damaged_slot_leaves_the_generation_before),
        cmocka_unit_test(a_crash_while_writing_leaves_the_old_record_or_the_new_one),
        cmocka_unit_test(hostile_records_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
