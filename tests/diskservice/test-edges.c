// Where the engine's lists are full, its files are somebody else's, or a switch was lost.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "crashfs.h"
#include "vm.h"

enum { SIZE = 2 << 20 };

static void any_number_of_files_is_merged_without_a_checkpoint_in_between(void **state)
{
    (void)state;
    enum { DISKS = 3, DEPTH = 45 }; // more than the record has room for leftovers
    struct rp_fs *fs = crashfs_new();
    vm_create(fs, VM_DIRECTORY, DISKS, SIZE);
    struct rp_engine *engine = vm_open(fs, VM_DIRECTORY);
    char *paths[DISKS][DEPTH];
    for (int i = 0; i < DEPTH; i++) {
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint result;
        assert_int_equal(rp_engine_checkpoint(engine, &operation, &result, NULL), 0);
        for (int d = 0; d < DISKS; d++)
            paths[d][i] = rp_xstrdup(result.disks[d].leaf_path);
        rp_engine_checkpoint_clear(&result);
    }
    for (int d = 0; d < DISKS; d++) {
        struct rp_guid operation = vm_operation();
        struct rp_error err = {0};
        if (rp_engine_merge_start(engine, &operation, (const char *const *)paths[d], DEPTH, &err) ||
            rp_engine_merge_wait(engine, &err))
            fail_msg("merge: %s", err.text);
        for (int i = 0; i < DEPTH; i++)
            free(paths[d][i]);
    }
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    crashfs_free(fs);
}

static void a_disk_does_not_grow_after_a_lost_switch(void **state)
{
    (void)state;
    unsigned lost = 0;
    for (unsigned long trip = 1; lost < 3; trip++) {
        struct rp_fs *fs = crashfs_new();
        vm_create(fs, VM_DIRECTORY, 1, SIZE);
        struct rp_engine *engine = vm_open(fs, VM_DIRECTORY);
        RP_AUTO_FREE char *before = vm_leaf(engine, 0);
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint result;
        crashfs_trip(fs, trip, RP_ERR_IO);
        assert_int_equal(rp_engine_checkpoint(engine, &operation, &result, NULL), -1);
        crashfs_trip(fs, 0, RP_OK);
        RP_AUTO_FREE char *after = vm_leaf(engine, 0);
        if (strcmp(before, after)) {
            lost++;
            assert_int_equal(rp_engine_grow(engine, 0, 2 * SIZE, NULL), -1);
        }
        rp_engine_close(engine, NULL);
        crashfs_free(fs);
    }
}

static void put_file(struct rp_fs *fs, const char *path, const char *text)
{
    struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    assert_non_null(store);
    assert_int_equal(rp_store_pwrite(store, text, strlen(text), 0, NULL), 0);
    rp_store_close(store);
}

static void a_tracking_file_of_somebody_else_outlives_a_merge_and_a_leftover(void **state)
{
    (void)state;
    for (int killed = 0; killed < 2; killed++) {
        struct rp_fs *fs = crashfs_new();
        uint64_t seed = test_seed();
        vm_create(fs, VM_DIRECTORY, 1, SIZE);
        struct rp_engine *engine = vm_open(fs, VM_DIRECTORY);
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint result;
        assert_int_equal(rp_engine_checkpoint(engine, &operation, &result, NULL), 0);
        assert_int_equal(rp_engine_close(engine, NULL), 0);
        // a differencing disk that came from Hyper-V, with its own tracking beside it
        const char *child = result.disks[0].leaf_path;
        RP_AUTO_FREE char *tracking = rp_rct_path(child);
        assert_int_equal(rp_fs_unlink(fs, tracking, NULL), 0);
        put_file(fs, tracking, "Microsoft's");
        engine = vm_open(fs, VM_DIRECTORY);
        bool there = true;
        if (killed) { // when the merge was in the record, but the child not deleted
            struct rp_error err = {0};
            for (unsigned long stop = 1; there; stop++) {
                rp_engine_abandon(engine);
                crashfs_restart(fs, false, &seed);
                engine = vm_open(fs, VM_DIRECTORY);
                assert_int_equal(rp_fs_exists(fs, child, &there, NULL), 0);
                crashfs_arm(fs, stop);
                if (there)
                    vm_merge(engine, child, &err);
            }
        } else {
            assert_int_equal(vm_merge(engine, child, NULL), 0);
        }
        crashfs_arm(fs, 0);
        assert_int_equal(rp_fs_exists(fs, child, &there, NULL), 0);
        assert_false(there);
        assert_int_equal(rp_fs_exists(fs, tracking, &there, NULL), 0);
        assert_true(there);
        rp_engine_checkpoint_clear(&result);
        assert_int_equal(rp_engine_close(engine, NULL), 0);
        crashfs_free(fs);
    }
}

static void say_nothing(enum rp_log_level level, const char *text)
{
    (void)level;
    (void)text;
}

int main(void)
{
    rp_log_set_sink(say_nothing);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_files_is_merged_without_a_checkpoint_in_between),
        cmocka_unit_test(a_disk_does_not_grow_after_a_lost_switch),
        cmocka_unit_test(a_tracking_file_of_somebody_else_outlives_a_merge_and_a_leftover),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
