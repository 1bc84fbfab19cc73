// A merge that meets a passing trouble (a full disk, one failed sync), is asked for again, meets another one, and then the
// service ends: by the book, by kill -9 or by a power cut. Whatever came together, the disk opens and holds what was flushed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../stride.h"
#include "base/log.h"
#include "crashfs.h"
#include "vm.h"

enum { SIZE = 6 << 20, CHECKPOINTS = 3, ROUNDS = 3 };
enum ending { CLOSED, KILLED, POWER_CUT, ENDINGS };

struct scene {
    struct rp_fs *fs;
    struct rp_engine *engine;
    struct model now;
    struct rp_engine_checkpoint points[CHECKPOINTS];
    struct model models[CHECKPOINTS];
    bool rounds; // merges of the leaf go in rounds
    uint64_t seed;
};

static void scene_start(struct scene *s, uint64_t seed)
{
    *s = (struct scene){.fs = crashfs_new(), .rounds = seed % 2, .seed = seed};
    vm_create(s->fs, VM_DIRECTORY, 1, SIZE);
    s->engine = vm_open(s->fs, VM_DIRECTORY);
    vm_merge_by(s->engine, s->rounds);
    model_new(&s->now, SIZE);
    assert_int_equal(model_change_some(&s->now, s->engine, 0, 6, &s->seed), 0);
    for (size_t i = 0; i < CHECKPOINTS; i++) {
        struct rp_guid operation = vm_operation();
        assert_int_equal(rp_engine_checkpoint(s->engine, &operation, &s->points[i], NULL), 0);
        model_copy(&s->models[i], &s->now);
        assert_int_equal(model_change_some(&s->now, s->engine, 0, 4, &s->seed), 0);
    }
    assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
}

static void scene_end(struct scene *s)
{
    assert_int_equal(rp_engine_close(s->engine, NULL), 0);
    for (size_t i = 0; i < CHECKPOINTS; i++) {
        rp_engine_checkpoint_clear(&s->points[i]);
        model_free(&s->models[i]);
    }
    model_free(&s->now);
    crashfs_free(s->fs);
}

static void check_all(struct scene *s)
{
    model_check(&s->now, s->engine, 0);
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    for (size_t i = 0; i < CHECKPOINTS; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        struct rp_error err = {0};
        if (!rp_engine_changes(s->engine, leaf, &s->points[i].disks[0].id, 0, SIZE, &changed, &err))
            model_check_changes(&s->models[i], &s->now, &changed, false);
        else
            fail_msg("id %zu: %s", i, err.text);
    }
}

static void restart(struct scene *s, enum ending ending)
{
    if (ending == CLOSED)
        rp_engine_close(s->engine, NULL);
    else
        rp_engine_abandon(s->engine);
    crashfs_restart(s->fs, ending == POWER_CUT, &s->seed);
    s->engine = vm_open(s->fs, VM_DIRECTORY);
    vm_merge_by(s->engine, s->rounds);
}

static unsigned long calls_of_merge(uint64_t seed, size_t victim)
{
    struct scene s;
    scene_start(&s, seed);
    crashfs_arm(s.fs, 0);
    struct rp_error err = {0};
    if (vm_merge(s.engine, s.points[victim].disks[0].leaf_path, &err))
        fail_msg("merge: %s", err.text);
    unsigned long calls = crashfs_calls(s.fs);
    scene_end(&s);
    return calls;
}

static void trip_a_merge(size_t victim)
{
    uint64_t seed = test_seed();
    unsigned long calls = calls_of_merge(seed | 1, victim);
    for (unsigned long first = 1 + seed % STRIDE; first <= calls; first += STRIDE)
        for (int round = 0; round < ROUNDS; round++) {
            unsigned long second = test_random(&seed) % (calls + 1);
            enum ending ending = (enum ending)(test_random(&seed) % ENDINGS);
            struct scene s;
            scene_start(&s, seed);
            const char *path = s.points[victim].disks[0].leaf_path;
            crashfs_trip(s.fs, first, round ? RP_ERR_NO_SPACE : RP_ERR_IO);
            vm_merge(s.engine, path, NULL);
            crashfs_trip(s.fs, second, round == 1 ? RP_ERR_NO_SPACE : RP_ERR_IO);
            if (second)
                vm_merge(s.engine, path, NULL);
            crashfs_trip(s.fs, 0, RP_OK);
            check_all(&s);
            restart(&s, ending);
            check_all(&s);
            struct rp_error err = {0};
            if (vm_merge(s.engine, path, &err))
                fail_msg("trouble at calls %lu and %lu, ending %d, merge again: %s", first, second, (int)ending, err.text);
            check_all(&s);
            vm_no_leftovers(s.engine, s.fs, VM_DIRECTORY);
            scene_end(&s);
        }
}

static void a_merge_of_the_leaf_survives_troubles_one_after_the_other(void **state)
{
    (void)state;
    trip_a_merge(CHECKPOINTS - 1);
}

static void a_merge_of_the_file_under_the_leaf_survives_troubles_one_after_the_other(void **state)
{
    (void)state;
    trip_a_merge(CHECKPOINTS - 2);
}

static void a_merge_between_frozen_files_survives_troubles_one_after_the_other(void **state)
{
    (void)state;
    trip_a_merge(0);
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
        cmocka_unit_test(a_merge_of_the_leaf_survives_troubles_one_after_the_other),
        cmocka_unit_test(a_merge_of_the_file_under_the_leaf_survives_troubles_one_after_the_other),
        cmocka_unit_test(a_merge_between_frozen_files_survives_troubles_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
