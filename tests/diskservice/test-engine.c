// The engine on files in memory: checkpoints, merges, changes, and what must not happen.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/num.h"
#include "crashfs.h"
#include "disk/chain.h"
#include "io/memory.h"
#include "vm.h"

enum { SIZE = 16 << 20, CELLS = SIZE / VM_CELL };

struct fixture {
    struct rp_fs *fs;
    struct rp_engine *engine;
    struct model model;
    uint64_t seed;
};

static int set_up(void **state)
{
    struct fixture *f = rp_xcalloc(1, sizeof *f);
    f->fs = rp_fs_memory_new();
    f->seed = test_seed();
    vm_create(f->fs, VM_DIRECTORY, 2, SIZE);
    f->engine = vm_open(f->fs, VM_DIRECTORY);
    model_new(&f->model, SIZE);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    struct rp_error err = {0};
    if (f->engine && rp_engine_close(f->engine, &err))
        print_message("# close: %s\n", err.text);
    model_free(&f->model);
    rp_fs_memory_free(f->fs);
    free(f);
    return err.code != RP_OK;
}

static void reopen(struct fixture *f)
{
    struct rp_error err = {0};
    if (rp_engine_close(f->engine, &err))
        fail_msg("close: %s", err.text);
    f->engine = vm_open(f->fs, VM_DIRECTORY);
}

static void make_checkpoint(struct fixture *f, struct rp_engine_checkpoint *checkpoint)
{
    struct rp_guid operation = vm_operation();
    struct rp_error err = {0};
    if (rp_engine_checkpoint(f->engine, &operation, checkpoint, &err))
        fail_msg("checkpoint: %s", err.text);
    assert_int_equal(checkpoint->count, rp_engine_disk_count(f->engine));
}

static void some_changes(struct fixture *f, unsigned count)
{
    assert_int_equal(model_change_some(&f->model, f->engine, 0, count, &f->seed), 0);
}

static bool exists(struct fixture *f, const char *path)
{
    bool there;
    assert_int_equal(rp_fs_exists(f->fs, path, &there, NULL), 0);
    return there;
}

static void ask(struct fixture *f, const char *path, const struct rp_rct_id *id, uint64_t size, struct rp_ranges *changed)
{
    struct rp_error err = {0};
    if (rp_engine_changes(f->engine, path, id, 0, size, changed, &err))
        fail_msg("changes: %s", err.text);
}

static void a_frozen_file_keeps_what_the_disk_held_at_the_checkpoint(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint checkpoint[4];
    struct model at[4];
    for (int i = 0; i < 4; i++) {
        some_changes(f, 20);
        make_checkpoint(f, &checkpoint[i]);
        model_copy(&at[i], &f->model);
        RP_AUTO_FREE char *leaf = vm_leaf(f->engine, 0);
        assert_string_equal(leaf, checkpoint[i].disks[0].leaf_path);
        assert_true(checkpoint[i].disks[0].tracked);
    }
    some_changes(f, 20);
    model_check(&f->model, f->engine, 0);
    for (int i = 0; i < 4; i++)
        model_check_file(&at[i], f->fs, checkpoint[i].disks[0].path);
    reopen(f);
    model_check(&f->model, f->engine, 0);
    for (int i = 0; i < 4; i++) {
        model_check_file(&at[i], f->fs, checkpoint[i].disks[0].path);
        rp_engine_checkpoint_clear(&checkpoint[i]);
        model_free(&at[i]);
    }
}

static void the_same_operation_again_gives_the_same_checkpoint(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint first, again;
    struct rp_guid operation = vm_operation();
    assert_int_equal(rp_engine_checkpoint(f->engine, &operation, &first, NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rp_engine_checkpoint(f->engine, &operation, &again, NULL), 0);
        assert_int_equal(again.count, first.count);
        assert_string_equal(again.disks[1].path, first.disks[1].path);
        assert_string_equal(again.disks[1].leaf_path, first.disks[1].leaf_path);
        assert_memory_equal(&again.disks[1].id, &first.disks[1].id, sizeof first.disks[1].id);
        assert_int_equal(again.pause_ns, first.pause_ns);
        rp_engine_checkpoint_clear(&again);
        reopen(f);
    }
    RP_AUTO_FREE char *leaf = vm_leaf(f->engine, 0);
    assert_string_equal(leaf, first.disks[0].leaf_path);
    rp_engine_checkpoint_clear(&first);
}

static void changes_are_exactly_the_units_that_were_touched(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint checkpoint[6];
    struct model at[6];
    for (int i = 0; i < 6; i++) {
        // every write changes what it touches: the values are new
        for (unsigned j = 0; j < 15; j++) {
            uint64_t cell = test_random(&f->seed) % (CELLS - 40);
            assert_int_equal(model_write(&f->model, f->engine, 0, cell, 1 + test_random(&f->seed) % 40,
                                         (uint32_t)(i * 100 + (int)j + 1)), 0);
        }
        make_checkpoint(f, &checkpoint[i]);
        model_copy(&at[i], &f->model);
        for (int since = 0; since <= i; since++) {
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges frozen = {0}, live = {0};
            ask(f, checkpoint[i].disks[0].path, &checkpoint[since].disks[0].id, SIZE, &frozen);
            ask(f, checkpoint[i].disks[0].leaf_path, &checkpoint[since].disks[0].id, SIZE, &live);
            model_check_changes(&at[since], &at[i], &frozen, true);
            model_check_changes(&at[since], &at[i], &live, true);
        }
        if (i % 2)
            reopen(f);
    }
    // the disk that nobody wrote to
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges none = {0};
    ask(f, checkpoint[5].disks[1].leaf_path, &checkpoint[0].disks[1].id, SIZE, &none);
    assert_int_equal(none.count, 0);
    for (int i = 0; i < 6; i++) {
        rp_engine_checkpoint_clear(&checkpoint[i]);
        model_free(&at[i]);
    }
}

static void trim_and_zero_count_only_what_they_change(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint a;
    assert_int_equal(model_write(&f->model, f->engine, 0, 256, 512, 1), 0); // blocks 1 and 2
    make_checkpoint(f, &a);
    assert_int_equal(rp_engine_trim(f->engine, 0, 8 << 20, 4 << 20, false, NULL), 0);  // never written
    assert_int_equal(rp_engine_zero(f->engine, 0, 12 << 20, 1 << 20, false, NULL), 0); // likewise
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    ask(f, a.disks[0].leaf_path, &a.disks[0].id, SIZE, &changed);
    assert_int_equal(changed.count, 0);
    assert_int_equal(rp_engine_trim(f->engine, 0, 0, 2 << 20, false, NULL), 0);   // block 1 holds data
    assert_int_equal(rp_engine_zero(f->engine, 0, (2 << 20) + 131072, 65536, false, NULL), 0);
    ask(f, a.disks[0].leaf_path, &a.disks[0].id, SIZE, &changed);
    assert_int_equal(changed.count, 2);
    assert_int_equal(changed.items[0].offset, 1 << 20);
    assert_int_equal(changed.items[0].length, 1 << 20);
    assert_int_equal(changed.items[1].offset, (2 << 20) + 131072);
    assert_int_equal(changed.items[1].length, 65536);
    // done once more, nothing is new
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges second = {0};
    struct rp_engine_checkpoint b;
    make_checkpoint(f, &b);
    assert_int_equal(rp_engine_trim(f->engine, 0, 0, 2 << 20, false, NULL), 0);
    assert_int_equal(rp_engine_zero(f->engine, 0, 1 << 20, 1 << 20, false, NULL), 0);
    ask(f, b.disks[0].leaf_path, &b.disks[0].id, SIZE, &second);
    assert_int_equal(second.count, 0);
    rp_engine_checkpoint_clear(&a);
    rp_engine_checkpoint_clear(&b);
}

// Merges `victim` of a chain base ← 0 ← 1 ← 2 (the leaf) and looks at everything afterwards.
static void merge_one_of_three(struct fixture *f, int victim)
{
    struct rp_engine_checkpoint checkpoint[3];
    struct model at[3];
    for (int i = 0; i < 3; i++) {
        some_changes(f, 15);
        make_checkpoint(f, &checkpoint[i]);
        model_copy(&at[i], &f->model);
    }
    some_changes(f, 15);
    struct rp_ranges before[3] = {{0}};
    RP_AUTO_FREE char *leaf_before = vm_leaf(f->engine, 0);
    for (int i = 0; i < 3; i++)
        ask(f, leaf_before, &checkpoint[i].disks[0].id, SIZE, &before[i]);

    const char *path = checkpoint[victim].disks[0].leaf_path;
    RP_AUTO_FREE char *tracking = rp_rct_path(path);
    struct rp_error err = {0};
    if (vm_merge(f->engine, path, &err))
        fail_msg("merge: %s", err.text);
    struct rp_engine_merge merge;
    rp_engine_merge_state(f->engine, &merge);
    assert_int_equal(merge.phase, RP_MERGE_DONE);
    assert_int_equal(merge.done, merge.total);
    assert_false(exists(f, path));
    assert_false(exists(f, tracking));
    for (int round = 0; round < 2; round++) {
        model_check(&f->model, f->engine, 0);
        // the other frozen files hold what they held
        for (int i = 0; i < 3; i++)
            if (i != victim && checkpoint[i].disks[0].path && (i == 0 || i - 1 != victim))
                model_check_file(&at[i], f->fs, checkpoint[i].disks[0].path);
        RP_AUTO_FREE char *leaf = vm_leaf(f->engine, 0);
        for (int i = 0; i < 3; i++) {
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges after = {0};
            ask(f, leaf, &checkpoint[i].disks[0].id, SIZE, &after);
            assert_int_equal(after.count, before[i].count);
            assert_memory_equal(after.items, before[i].items, after.count * sizeof *after.items);
        }
        reopen(f);
    }
    // it goes on as if nothing had been
    some_changes(f, 10);
    struct rp_engine_checkpoint last;
    make_checkpoint(f, &last);
    model_check(&f->model, f->engine, 0);
    model_check_file(&f->model, f->fs, last.disks[0].path);
    rp_engine_checkpoint_clear(&last);
    for (int i = 0; i < 3; i++) {
        rp_ranges_clear(&before[i]);
        rp_engine_checkpoint_clear(&checkpoint[i]);
        model_free(&at[i]);
    }
}

static void merging_the_leaf_keeps_contents_and_ids(void **state) { merge_one_of_three(*state, 2); }
static void merging_the_file_under_the_leaf_keeps_contents_and_ids(void **state) { merge_one_of_three(*state, 1); }
static void merging_a_file_between_frozen_ones_keeps_contents_and_ids(void **state) { merge_one_of_three(*state, 0); }

static void a_whole_chain_merges_into_its_root(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint checkpoint[3];
    struct model first;
    for (int i = 0; i < 3; i++) {
        some_changes(f, 15);
        make_checkpoint(f, &checkpoint[i]);
        if (!i)
            model_copy(&first, &f->model);
    }
    some_changes(f, 15);
    const char *paths[6];
    for (int i = 0; i < 3; i++) // in no useful order, both disks
        for (int d = 0; d < 2; d++)
            paths[2 * i + d] = checkpoint[(i + 1) % 3].disks[d].leaf_path;
    struct rp_guid operation = vm_operation();
    assert_int_equal(rp_engine_merge_start(f->engine, &operation, paths, 6, NULL), 0);
    assert_int_equal(rp_engine_merge_wait(f->engine, NULL), 0);
    for (int round = 0; round < 2; round++) {
        RP_AUTO_FREE char *leaf0 = vm_leaf(f->engine, 0), *leaf1 = vm_leaf(f->engine, 1);
        assert_string_equal(leaf0, VM_DIRECTORY "/disk0.vhdx");
        assert_string_equal(leaf1, VM_DIRECTORY "/disk1.vhdx");
        model_check(&f->model, f->engine, 0);
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        ask(f, leaf0, &checkpoint[0].disks[0].id, SIZE, &changed);
        model_check_changes(&first, &f->model, &changed, false);
        // asked again, with the same operation or another, there is nothing to do
        assert_int_equal(rp_engine_merge_start(f->engine, &operation, paths, 6, NULL), 0);
        assert_int_equal(rp_engine_merge_wait(f->engine, NULL), 0);
        assert_int_equal(vm_merge(f->engine, paths[0], NULL), 0);
        reopen(f);
    }
    for (int i = 0; i < 3; i++)
        rp_engine_checkpoint_clear(&checkpoint[i]);
    model_free(&first);
}

static void a_reader_stops_a_merge_before_anything_has_changed(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint a, b;
    struct rp_chain reader;
    struct rp_error err = {0};
    some_changes(f, 10);
    make_checkpoint(f, &a);
    some_changes(f, 10);
    make_checkpoint(f, &b);
    some_changes(f, 10);
    assert_int_equal(rp_chain_open(f->fs, b.disks[0].path, &reader, NULL), 0);
    // into the root that the reader has open; and a leaf into a file that he has open
    const char *path = b.disks[0].path;
    struct rp_engine_merge_options impatient = {.reader_ms = 50};
    rp_engine_set_merge_options(f->engine, &impatient);
    assert_int_equal(vm_merge(f->engine, path, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_int_equal(vm_merge(f->engine, b.disks[0].leaf_path, NULL), -1);
    assert_true(exists(f, b.disks[0].path));
    model_check(&f->model, f->engine, 0);
    // with the reader gone, the same request is carried out
    rp_chain_close(&reader);
    assert_int_equal(vm_merge(f->engine, b.disks[0].path, NULL), 0);
    assert_int_equal(vm_merge(f->engine, b.disks[0].leaf_path, NULL), 0);
    model_check(&f->model, f->engine, 0);
    rp_engine_checkpoint_clear(&a);
    rp_engine_checkpoint_clear(&b);
}

static void nobody_reads_a_leaf_and_nobody_writes_a_frozen_file(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint a;
    struct rp_error err = {0};
    make_checkpoint(f, &a);
    assert_null(rp_vhdx_open(f->fs, a.disks[0].leaf_path, RP_VHDX_READ, NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    err = (struct rp_error){0};
    assert_null(rp_vhdx_open(f->fs, a.disks[0].path, RP_VHDX_WRITE, NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    err = (struct rp_error){0};
    assert_null(rp_engine_open(f->fs, VM_DIRECTORY, NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    rp_engine_checkpoint_clear(&a);
}

static void growth_keeps_ids_and_merges_into_a_smaller_parent(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint a;
    struct model at;
    some_changes(f, 20);
    make_checkpoint(f, &a);
    model_copy(&at, &f->model);
    struct rp_error err = {0};
    if (rp_engine_grow(f->engine, 0, SIZE + (3 << 20), &err))
        fail_msg("grow: %s", err.text);
    assert_int_equal(rp_engine_grow(f->engine, 0, SIZE, NULL), -1);
    f->model.size += 3 << 20;
    f->model.cells = rp_xrealloc(f->model.cells, f->model.size / VM_CELL * sizeof *f->model.cells);
    memset(f->model.cells + CELLS, 0, (3 << 20) / VM_CELL * sizeof *f->model.cells);
    assert_int_equal(model_write(&f->model, f->engine, 0, CELLS - 2, 20, 4711), 0);
    for (int round = 0; round < 2; round++) {
        model_check(&f->model, f->engine, 0);
        RP_AUTO_FREE char *leaf = vm_leaf(f->engine, 0);
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        ask(f, leaf, &a.disks[0].id, f->model.size, &changed);
        model_check_changes(&at, &f->model, &changed, true);
        if (!round && vm_merge(f->engine, a.disks[0].leaf_path, &err))
            fail_msg("merge: %s", err.text);
        reopen(f);
    }
    model_check(&f->model, f->engine, 0);
    rp_engine_checkpoint_clear(&a);
    model_free(&at);
}

// Sets LeaveBlockAllocated (MS-VHDX 2.6.2.1) in a file at rest.
static void make_fixed(struct rp_fs *fs, const char *path)
{
    static const uint8_t parameters[] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d};
    struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_WRITE, NULL);
    uint8_t table[4096], flags = 1;
    for (uint64_t region = 1 << 20;; region += 1 << 20) { // of the metadata
        assert_int_equal(rp_store_pread(store, table, sizeof table, region, NULL), 0);
        if (memcmp(table, "metadata", 8))
            continue;
        for (size_t entry = 32; entry < sizeof table; entry += 32)
            if (!memcmp(table + entry, parameters, sizeof parameters))
                assert_int_equal(rp_store_pwrite(store, &flags, 1, region + rp_get_le32(table + entry + 16) + 4, NULL), 0);
        break;
    }
    rp_store_close(store);
}

static void a_disk_does_not_grow_above_a_file_that_could_not_take_it(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint a;
    struct rp_error err = {0};
    RP_AUTO_FREE char *base = vm_leaf(f->engine, 0);
    some_changes(f, 20);
    assert_int_equal(rp_engine_close(f->engine, NULL), 0);
    make_fixed(f->fs, base);
    f->engine = vm_open(f->fs, VM_DIRECTORY);
    make_checkpoint(f, &a);
    for (int merged = 0; merged < 2; merged++) {
        for (uint64_t more = 3 << 20; more; more -= 1 << 20) { // the last refusal leaves nothing behind
            err = (struct rp_error){0};
            assert_int_equal(rp_engine_grow(f->engine, 0, SIZE + more, &err), -1);
            assert_int_equal(err.code, RP_ERR_INVALID);
            assert_non_null(strstr(err.text, base));
            assert_non_null(strstr(err.text, "a fixed disk"));
        }
        some_changes(f, 20);
        err = (struct rp_error){0};
        if (!merged && vm_merge(f->engine, a.disks[0].leaf_path, &err))
            fail_msg("merge: %s", err.text);
        model_check(&f->model, f->engine, 0);
    }
    rp_engine_checkpoint_clear(&a);
}

static void a_foreign_tracking_file_is_left_alone(void **state)
{
    struct fixture *f = *state;
    static const char foreign[] = "somebody else's";
    assert_int_equal(rp_engine_close(f->engine, NULL), 0);
    RP_AUTO_FREE char *tracking = rp_rct_path(VM_DIRECTORY "/disk0.vhdx");
    assert_int_equal(rp_fs_unlink(f->fs, tracking, NULL), 0);
    assert_int_equal(rp_fs_replace_file(f->fs, tracking, foreign, sizeof foreign, NULL), 0);
    f->engine = vm_open(f->fs, VM_DIRECTORY);
    struct rp_engine_disk disk;
    rp_engine_disk(f->engine, 0, &disk);
    assert_false(disk.tracked);
    free(disk.leaf_path);
    some_changes(f, 20);
    struct rp_engine_checkpoint a;
    make_checkpoint(f, &a);
    assert_false(a.disks[0].tracked);
    assert_true(a.disks[1].tracked);
    some_changes(f, 20);
    struct rp_error err = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    assert_int_equal(rp_engine_changes(f->engine, a.disks[0].leaf_path, &a.disks[1].id, 0, SIZE, &changed, &err), -1);
    assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
    assert_int_equal(vm_merge(f->engine, a.disks[0].leaf_path, NULL), 0);
    model_check(&f->model, f->engine, 0);
    reopen(f);
    model_check(&f->model, f->engine, 0);
    RP_CLEANUP(rp_buf_clear) struct rp_buf content = {0};
    assert_int_equal(rp_fs_read_file(f->fs, tracking, 4096, &content, NULL), 0);
    assert_memory_equal(content.data, foreign, sizeof foreign);
    rp_engine_checkpoint_clear(&a);
}

static void an_id_of_another_history_is_refused(void **state)
{
    struct fixture *f = *state;
    struct rp_engine_checkpoint a;
    make_checkpoint(f, &a);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    struct rp_rct_id id = {rp_guid_new(), 1};
    struct rp_error err = {0};
    assert_int_equal(rp_engine_changes(f->engine, a.disks[0].path, &id, 0, SIZE, &changed, &err), -1);
    assert_int_equal(err.code, RP_ERR_TRACKING_ID);
    err = (struct rp_error){0};
    assert_int_equal(rp_engine_changes(f->engine, "/vm/other.vhdx", &a.disks[0].id, 0, SIZE, &changed, &err), -1);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    // a frozen file can be asked without an engine too
    assert_int_equal(rp_engine_close(f->engine, NULL), 0);
    f->engine = NULL;
    assert_int_equal(rp_changes_at_rest(f->fs, a.disks[0].path, &a.disks[0].id, 0, SIZE, &changed, NULL), 0);
    assert_int_equal(changed.count, 0);
    rp_engine_checkpoint_clear(&a);
}

static void files_left_over_by_a_crash_are_deleted_and_others_are_not(void **state)
{
    struct fixture *f = *state;
    struct rp_record record;
    assert_int_equal(rp_engine_close(f->engine, NULL), 0);
    assert_int_equal(rp_record_read(f->fs, VM_DIRECTORY, &record, NULL), 0);
    // "mine": listed, of this VM; "alien": listed, but another disk by now; "unlisted"; "leaf": listed, and in use
    struct rp_vhdx_create mine = {.size = SIZE, .disk_id = record.disks[0].disk_id}, alien = {.size = SIZE};
    assert_int_equal(rp_vhdx_create(f->fs, "/vm/mine.avhdx", &mine, NULL), 0);
    assert_int_equal(rp_vhdx_create(f->fs, "/vm/alien.avhdx", &alien, NULL), 0);
    assert_int_equal(rp_vhdx_create(f->fs, "/vm/unlisted.avhdx", &mine, NULL), 0);
    assert_int_equal(rp_fs_replace_file(f->fs, "/vm/torn.avhdx", "vhd", 3, NULL), 0);
    static const char *const listed[] = {"/vm/mine.avhdx", "/vm/alien.avhdx", "/vm/torn.avhdx", "/vm/disk0.vhdx", "/vm/gone"};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(rp_record_add_scratch(&record, listed[i], NULL), 0);
    assert_int_equal(rp_record_write(f->fs, VM_DIRECTORY, &record, NULL), 0);
    rp_record_clear(&record);
    f->engine = vm_open(f->fs, VM_DIRECTORY);
    assert_false(exists(f, "/vm/mine.avhdx"));
    assert_false(exists(f, "/vm/torn.avhdx"));
    assert_true(exists(f, "/vm/alien.avhdx"));
    assert_true(exists(f, "/vm/unlisted.avhdx"));
    assert_true(exists(f, "/vm/disk0.vhdx"));
    model_check(&f->model, f->engine, 0);
}

static void a_steady_write_costs_no_sync_and_tracking_adds_nothing(void **state)
{
    struct fixture *f = *state;
    unsigned long calls[2], syncs[2];
    for (int tracked = 0; tracked < 2; tracked++) {
        struct rp_fs *fs = crashfs_new(); // counts the calls that change something
        vm_create(fs, VM_DIRECTORY, 1, SIZE);
        if (!tracked)
            assert_int_equal(rp_fs_replace_file(fs, VM_DIRECTORY "/disk0.vhdx.rct", "foreign", 7, NULL), 0);
        struct rp_engine *engine = vm_open(fs, VM_DIRECTORY);
        struct rp_engine_disk disk;
        rp_engine_disk(engine, 0, &disk);
        free(disk.leaf_path);
        assert_int_equal(disk.tracked, tracked);
        struct model model;
        model_new(&model, SIZE);
        assert_int_equal(model_write(&model, engine, 0, 0, CELLS, 1), 0); // allocated
        assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
        crashfs_arm(fs, 0);
        for (uint32_t i = 0; i < 500; i++)
            assert_int_equal(model_write(&model, engine, 0, test_random(&f->seed) % CELLS, 1, i), 0);
        calls[tracked] = crashfs_calls(fs);
        crashfs_arm(fs, 0);
        assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
        syncs[tracked] = crashfs_calls(fs);
        model_free(&model);
        assert_int_equal(rp_engine_close(engine, NULL), 0);
        crashfs_free(fs);
    }
    assert_int_equal(calls[0], 500);
    assert_int_equal(calls[1], 500);
    assert_int_equal(syncs[0], 1);
    assert_int_equal(syncs[1], 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_frozen_file_keeps_what_the_disk_held_at_the_checkpoint),
        TEST(the_same_operation_again_gives_the_same_checkpoint),
        TEST(changes_are_exactly_the_units_that_were_touched),
        TEST(trim_and_zero_count_only_what_they_change),
        TEST(merging_the_leaf_keeps_contents_and_ids),
        TEST(merging_the_file_under_the_leaf_keeps_contents_and_ids),
        TEST(merging_a_file_between_frozen_ones_keeps_contents_and_ids),
        TEST(a_whole_chain_merges_into_its_root),
        TEST(a_reader_stops_a_merge_before_anything_has_changed),
        TEST(nobody_reads_a_leaf_and_nobody_writes_a_frozen_file),
        TEST(growth_keeps_ids_and_merges_into_a_smaller_parent),
        TEST(a_disk_does_not_grow_above_a_file_that_could_not_take_it),
        TEST(a_foreign_tracking_file_is_left_alone),
        TEST(an_id_of_another_history_is_refused),
        TEST(files_left_over_by_a_crash_are_deleted_and_others_are_not),
        TEST(a_steady_write_costs_no_sync_and_tracking_adds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
