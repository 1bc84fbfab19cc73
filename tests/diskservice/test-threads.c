// The engine used by many threads at once, on real files: writers, readers, flushes, checkpoints, merges, questions. Also
// run under ThreadSanitizer.
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/clock.h"
#include "crashfs.h"
#include "disk/chain.h"
#include "io/memory.h"
#include "vm.h"

enum { DISKS = 2, WRITERS = 4, SIZE = 32 << 20, CELLS = SIZE / VM_CELL, SHARE = CELLS / WRITERS, ROUNDS = 6 };

struct world {
    struct rp_engine *engine;
    struct model models[DISKS];
    atomic_bool stop;
    atomic_ulong writes, flushes, failures;
    uint64_t seed;
};

struct writer {
    struct world *world;
    size_t disk, share;
    uint64_t seed;
    pthread_t thread;
};

// Each writer has cells of its own, spread over all units, so that the model is certain and units are shared.
static void *write_all_the_time(void *argument)
{
    struct writer *w = argument;
    struct model *model = &w->world->models[w->disk];
    struct rp_engine *engine = w->world->engine;
    uint8_t data[VM_CELL];
    while (!atomic_load(&w->world->stop)) {
        uint64_t cell = test_random(&w->seed) % SHARE * WRITERS + w->share;
        unsigned what = test_random(&w->seed) % 20;
        int failed = what ? model_write(model, engine, w->disk, cell, 1, 1 + (uint32_t)test_random(&w->seed) % 100000)
                          : model_zero(model, engine, w->disk, cell, 1);
        // what was written reads back, whatever switches and merges happen meanwhile
        failed = failed || rp_engine_read(engine, w->disk, data, VM_CELL, cell * VM_CELL, NULL);
        uint32_t first;
        memcpy(&first, data, 4);
        uint32_t value = model->cells[cell], expected = value ? value * 2654435761u + (uint32_t)(cell * 1024) : 0;
        if (failed || first != expected)
            atomic_fetch_add(&w->world->failures, 1);
        atomic_fetch_add(&w->world->writes, 1);
        if (test_random(&w->seed) % 64 == 0) {
            if (rp_engine_flush(engine, w->disk, NULL))
                atomic_fetch_add(&w->world->failures, 1);
            atomic_fetch_add(&w->world->flushes, 1);
        }
    }
    return NULL;
}

static int count_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    (void)state;
    *(uint64_t *)context += length;
    return 0;
}

static void *look_all_the_time(void *argument)
{
    struct writer *w = argument;
    while (!atomic_load(&w->world->stop)) {
        uint64_t total = 0;
        struct rp_engine_disk disk;
        struct rp_engine_merge merge;
        rp_engine_disk(w->world->engine, w->disk, &disk);
        free(disk.leaf_path);
        rp_engine_merge_state(w->world->engine, &merge);
        if (rp_engine_extents(w->world->engine, w->disk, 0, disk.size, count_extent, &total, NULL) || total != SIZE ||
            merge.done > merge.total)
            atomic_fetch_add(&w->world->failures, 1);
    }
    return NULL;
}

static struct rp_rct_id ids[DISKS][ROUNDS];

// Questions beside everything else; that the answers are exact is the model test's matter.
static void ask_everything(struct world *w, size_t rounds)
{
    for (size_t d = 0; d < DISKS; d++) {
        RP_AUTO_FREE char *leaf = vm_leaf(w->engine, d);
        for (size_t i = 0; i < rounds; i++) {
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
            struct rp_error err = {0};
            if (rp_engine_changes(w->engine, leaf, &ids[d][i], 0, SIZE, &changed, &err))
                fail_msg("changes: %s", err.text);
        }
    }
}

static void checkpoints_and_merges_disturb_no_writer(void **state)
{
    (void)state;
    char directory[] = "/tmp/refpoint-threads-XXXXXX";
    assert_non_null(mkdtemp(directory));
    struct world w = {.seed = test_seed()};
    struct rp_fs *fs = rp_fs_posix();
    vm_create(fs, directory, DISKS, SIZE);
    w.engine = vm_open(fs, directory);
    struct writer writers[DISKS * WRITERS], lookers[DISKS];
    for (size_t d = 0; d < DISKS; d++) {
        model_new(&w.models[d], SIZE);
        for (size_t i = 0; i < WRITERS; i++) {
            struct writer *writer = &writers[d * WRITERS + i];
            *writer = (struct writer){&w, d, i, w.seed + 1 + 977 * (d * WRITERS + i), 0};
            assert_int_equal(pthread_create(&writer->thread, NULL, write_all_the_time, writer), 0);
        }
        lookers[d] = (struct writer){.world = &w, .disk = d};
        assert_int_equal(pthread_create(&lookers[d].thread, NULL, look_all_the_time, &lookers[d]), 0);
    }
    char *paths[DISKS][ROUNDS] = {{0}};
    struct rp_error err = {0};
    for (size_t round = 0; round < ROUNDS; round++) {
        // every round sees writers at work
        unsigned long before = atomic_load(&w.writes);
        while (atomic_load(&w.writes) < before + 100)
            sched_yield();
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint checkpoint;
        if (rp_engine_checkpoint(w.engine, &operation, &checkpoint, &err))
            fail_msg("checkpoint: %s", err.text);
        for (size_t d = 0; d < DISKS; d++) {
            ids[d][round] = checkpoint.disks[d].id;
            paths[d][round] = rp_xstrdup(checkpoint.disks[d].leaf_path);
        }
        rp_engine_checkpoint_clear(&checkpoint);
        ask_everything(&w, round + 1);
        // now and then a leaf, now and then frozen files
        if (round % 3 == 2) {
            const char *victims[] = {paths[0][round - 1], paths[1][round - 2], paths[1][round]};
            struct rp_guid merge = vm_operation();
            if (rp_engine_merge_start(w.engine, &merge, victims, 3, &err))
                fail_msg("merge: %s", err.text);
            struct rp_engine_merge merging = {.phase = RP_MERGE_RUNNING};
            while (round % 2 && merging.phase == RP_MERGE_RUNNING) {
                if (!rp_engine_checkpoint(w.engine, &operation, &checkpoint, NULL)) // the one that is made already
                    rp_engine_checkpoint_clear(&checkpoint);
                rp_engine_merge_state(w.engine, &merging);
            }
            ask_everything(&w, round + 1);
            if (rp_engine_merge_wait(w.engine, &err))
                fail_msg("merge: %s", err.text);
        }
    }
    atomic_store(&w.stop, true);
    for (size_t i = 0; i < DISKS * WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    for (size_t d = 0; d < DISKS; d++)
        pthread_join(lookers[d].thread, NULL);
    assert_int_equal(atomic_load(&w.failures), 0);
    for (int round = 0; round < 2; round++) {
        for (size_t d = 0; d < DISKS; d++)
            model_check(&w.models[d], w.engine, d);
        ask_everything(&w, ROUNDS);
        if (rp_engine_close(w.engine, &err))
            fail_msg("close: %s", err.text);
        w.engine = vm_open(fs, directory);
    }
    assert_int_equal(rp_engine_close(w.engine, NULL), 0);
    for (size_t d = 0; d < DISKS; d++) {
        model_free(&w.models[d]);
        for (size_t i = 0; i < ROUNDS; i++)
            free(paths[d][i]);
    }
    print_message("# %lu writes, %lu flushes\n", atomic_load(&w.writes), atomic_load(&w.flushes));
    RP_AUTO_FREE char *command = rp_xasprintf("rm -rf %s", directory);
    assert_int_equal(system(command), 0);
}

// A frozen disk is one instant: a writer that writes the same number to both disks, one after the other, never has the
// first behind the second.
struct pair {
    struct world *world;
    atomic_ulong number;
};

static void *write_pairs(void *argument)
{
    struct pair *p = argument;
    uint8_t data[VM_CELL] = {0};
    for (uint64_t i = 1; !atomic_load(&p->world->stop); i++) {
        memcpy(data, &i, sizeof i);
        if (rp_engine_write(p->world->engine, 0, data, VM_CELL, 0, false, NULL) ||
            rp_engine_write(p->world->engine, 1, data, VM_CELL, 0, false, NULL))
            atomic_fetch_add(&p->world->failures, 1);
        atomic_store(&p->number, i);
    }
    return NULL;
}

static uint64_t number_in(struct rp_fs *fs, const char *path)
{
    struct rp_chain chain;
    uint8_t data[VM_CELL];
    uint64_t number;
    assert_int_equal(rp_chain_open(fs, path, &chain, NULL), 0);
    assert_int_equal(rp_vhdx_read(chain.layers[0], data, VM_CELL, 0, NULL), 0);
    memcpy(&number, data, sizeof number);
    rp_chain_close(&chain);
    return number;
}

static void all_disks_are_frozen_at_one_instant(void **state)
{
    (void)state;
    struct rp_fs *fs = rp_fs_memory_new();
    struct world w = {.seed = 1};
    vm_create(fs, VM_DIRECTORY, 2, 4 << 20);
    w.engine = vm_open(fs, VM_DIRECTORY);
    struct pair pair = {.world = &w};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_pairs, &pair), 0);
    for (int i = 0; i < 20; i++) {
        unsigned long before = atomic_load(&pair.number);
        while (atomic_load(&pair.number) < before + 20)
            sched_yield();
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint checkpoint;
        unsigned long acknowledged = atomic_load(&pair.number);
        assert_int_equal(rp_engine_checkpoint(w.engine, &operation, &checkpoint, NULL), 0);
        uint64_t first = number_in(fs, checkpoint.disks[0].path), second = number_in(fs, checkpoint.disks[1].path);
        assert_true(first == second || first == second + 1);
        assert_true(second >= acknowledged);
        rp_engine_checkpoint_clear(&checkpoint);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&w.failures), 0);
    assert_int_equal(rp_engine_close(w.engine, NULL), 0);
    rp_fs_memory_free(fs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkpoints_and_merges_disturb_no_writer),
        cmocka_unit_test(all_disks_are_frozen_at_one_instant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
