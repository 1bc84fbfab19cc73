// A long life with passing troubles (full disks, failed syncs) in every step, with kills and power cuts: what an acknowledged
// flush covered is always there, and every id answers without missing anything.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "crashfs.h"
#include "diskservice/chains.h"
#include "vm.h"

enum { SIZE = 6 << 20, STEPS = 40, LIVES = 30 };

struct point {
    struct rp_rct_id id;
    struct model model;
};

struct life {
    struct rp_fs *fs;
    struct rp_engine *engine;
    struct model now; // flushed
    struct point points[STEPS];
    size_t count;
    uint64_t random;
};

// One call in the next `calls` fails, or none.
static void trouble(struct life *l, unsigned calls)
{
    unsigned long n = test_random(&l->random) % 2 ? 0 : 1 + test_random(&l->random) % calls;
    crashfs_trip(l->fs, n, test_random(&l->random) % 2 ? RP_ERR_IO : RP_ERR_NO_SPACE);
}

static void write_some(struct life *l)
{
    if (rp_engine_flush(l->engine, 0, NULL)) // a disk that has lost a sync takes nothing any more
        return;
    assert_int_equal(model_change_some(&l->now, l->engine, 0, 4, &l->random), 0);
    assert_int_equal(rp_engine_flush(l->engine, 0, NULL), 0);
}

static void checkpoint(struct life *l)
{
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint result;
    trouble(l, 100);
    if (rp_engine_checkpoint(l->engine, &operation, &result, NULL))
        return;
    l->points[l->count].id = result.disks[0].id;
    model_copy(&l->points[l->count++].model, &l->now);
    rp_engine_checkpoint_clear(&result);
}

static void merge(struct life *l)
{
    const struct rp_engine_chain *disk = &l->engine->disks[0];
    if (disk->depth < 2)
        return;
    RP_AUTO_FREE char *path = rp_xstrdup(disk->layers[1 + test_random(&l->random) % (disk->depth - 1)]->path);
    trouble(l, 130);
    vm_merge(l->engine, path, NULL);
}

static void restart(struct life *l)
{
    unsigned ending = test_random(&l->random) % 3; // by the book, killed, power cut
    trouble(l, 20);
    if (ending == 0)
        rp_engine_close(l->engine, NULL);
    else
        rp_engine_abandon(l->engine);
    crashfs_restart(l->fs, ending == 2, &l->random);
    struct rp_error err = {0};
    trouble(l, 20);
    while (!(l->engine = rp_engine_open(l->fs, VM_DIRECTORY, NULL, &err))) {
        if (!strstr(err.text, "this call fails"))
            fail_msg("open: %s", err.text);
        crashfs_restart(l->fs, test_random(&l->random) % 2, &l->random);
        crashfs_trip(l->fs, 0, RP_OK);
        rp_error_clear(&err);
    }
    if (test_random(&l->random) % 2)
        vm_merge_by(l->engine, true);
}

static void check(struct life *l)
{
    if (rp_engine_flush(l->engine, 0, NULL))
        return;
    model_check(&l->now, l->engine, 0);
    RP_AUTO_FREE char *leaf = vm_leaf(l->engine, 0);
    for (size_t i = 0; i < l->count; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        struct rp_error err = {0};
        if (rp_engine_changes(l->engine, leaf, &l->points[i].id, 0, SIZE, &changed, &err))
            fail_msg("id %zu: %s", i, err.text);
        model_check_changes(&l->points[i].model, &l->now, &changed, false);
    }
}

static void live(uint64_t seed)
{
    struct life *l = &(struct life){.fs = crashfs_new(), .random = seed * 2654435761u + 1};
    printf("# life %llu\n", (unsigned long long)seed);
    vm_create(l->fs, VM_DIRECTORY, 1, SIZE);
    l->engine = vm_open(l->fs, VM_DIRECTORY);
    model_new(&l->now, SIZE);
    for (int step = 0; step < STEPS; step++) {
        unsigned what = test_random(&l->random) % 10;
        (what < 4 ? write_some : what < 6 ? checkpoint : what < 9 ? merge : restart)(l);
        crashfs_trip(l->fs, 0, RP_OK);
        check(l);
    }
    rp_engine_abandon(l->engine);
    for (size_t i = 0; i < l->count; i++)
        model_free(&l->points[i].model);
    model_free(&l->now);
    crashfs_free(l->fs);
}

static void nothing_flushed_is_lost_whatever_troubles_come_together(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < LIVES; i++)
        live(seed + i);
}

static void say_nothing(enum rp_log_level level, const char *text)
{
    (void)level;
    (void)text;
}

int main(void)
{
    rp_log_set_sink(say_nothing);
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_flushed_is_lost_whatever_troubles_come_together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
