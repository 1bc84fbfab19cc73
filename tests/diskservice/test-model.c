// The engine end to end against plain arrays: several writers on several disks, checkpoints, merges, growth, restarts
// and crashes in between, in an order that RP_TEST_SEED decides.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../stride.h"
#include "base/log.h"
#include "base/num.h"
#include "crashfs.h"
#include "io/memory.h"
#include "oracle.h"
#include "vm.h"

enum { DISKS = 2, WRITERS = 3, ROUNDS = STRIDE > 1 ? 60 : 300 };

struct scene {
    struct rp_fs *fs;
    struct rp_engine *engine;
    struct oracle disks[DISKS];
    _Atomic uint64_t clock;
    uint64_t seed;
    struct writer {
        pthread_t thread;
        struct scene *scene;
        uint64_t seed;
        unsigned failures;
    } writers[WRITERS];
    atomic_bool stop;
    // The merge that runs: layers of one disk, from below.
    size_t merge_disk, merge_layers[16], merge_count;
    struct rp_guid merge_operation;
    unsigned checkpoints, merges, growths, restarts, crashes, rounds;
};

static unsigned dice(struct scene *s, unsigned sides) { return (unsigned)(test_random(&s->seed) % sides); }

static void *write_on(void *argument)
{
    struct writer *w = argument;
    struct scene *s = w->scene;
    while (!atomic_load(&s->stop)) {
        struct oracle *o = &s->disks[test_random(&w->seed) % DISKS];
        int failed = test_random(&w->seed) % 50 ? oracle_change(o, s->engine, &w->seed) : oracle_flush(o, s->engine);
        w->failures += failed != 0;
        for (unsigned i = test_random(&w->seed) % 20000; i > 0; i--) // leaves something unwritten
            __asm__ volatile("");
    }
    return NULL;
}

static void writers_start(struct scene *s)
{
    atomic_store(&s->stop, false);
    for (int i = 0; i < WRITERS; i++) {
        s->writers[i] = (struct writer){.scene = s, .seed = test_random(&s->seed) | 1};
        pthread_create(&s->writers[i].thread, NULL, write_on, &s->writers[i]);
    }
}

static void writers_stop(struct scene *s, bool may_fail)
{
    atomic_store(&s->stop, true);
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(s->writers[i].thread, NULL);
        if (!may_fail)
            assert_int_equal(s->writers[i].failures, 0);
    }
}

static void merge_ask(struct scene *s)
{
    const char *paths[16];
    struct oracle *o = &s->disks[s->merge_disk];
    struct rp_error err = {0};
    for (size_t i = 0; i < s->merge_count; i++)
        paths[i] = o->layers[s->merge_layers[i]].path;
    if (rp_engine_merge_start(s->engine, &s->merge_operation, paths, s->merge_count, &err))
        fail_msg("merge: %s", err.text);
}

static void merge_start(struct scene *s)
{
    s->merge_disk = dice(s, DISKS);
    s->merge_operation = rp_guid_new();
    struct oracle *o = &s->disks[s->merge_disk];
    for (size_t layer = 1; layer < o->depth; layer++)
        if (dice(s, 3) == 0 || o->depth > 6)
            s->merge_layers[s->merge_count++] = layer;
    if (s->merge_count)
        merge_ask(s);
}

static void merge_end(struct scene *s)
{
    struct rp_error err = {0};
    if (!s->merge_count)
        return;
    if (rp_engine_merge_wait(s->engine, &err))
        fail_msg("merge: %s", err.text);
    for (size_t i = 0; i < s->merge_count; i++)
        oracle_merged(&s->disks[s->merge_disk], s->merge_layers[i] - i);
    struct rp_engine_merge merge;
    rp_engine_merge_state(s->engine, &merge);
    s->rounds += merge.round;
    s->merge_count = 0;
    s->merges++;
}

static bool too_deep(struct scene *s)
{
    for (size_t i = 0; i < DISKS; i++)
        if (s->disks[i].depth >= 9)
            return true;
    return false;
}

static void operate(struct scene *s)
{
    struct oracle *o = &s->disks[dice(s, DISKS)];
    switch (dice(s, 8)) {
    case 0: case 1: case 2:
        merge_end(s);
        if (too_deep(s))
            break;
        oracle_checkpoint(s->disks, DISKS, s->engine);
        s->checkpoints++;
        break;
    case 3: case 4: case 5:
        merge_end(s);
        merge_start(s);
        break;
    case 6:
        assert_int_equal(oracle_flush(o, s->engine), 0);
        break;
    default:
        merge_end(s);
        assert_int_equal(oracle_grow(o, s->engine, atomic_load(&o->size) + (1 + dice(s, 700)) * SECTOR), 0);
        s->growths++;
    }
}

static void ask_for_changes(struct scene *s, struct rp_engine *engine)
{
    for (size_t i = 0; i < DISKS; i++) {
        struct oracle *o = &s->disks[i];
        for (size_t layer = 0; layer < o->depth; layer++) {
            if (!engine && layer + 1 == o->depth)
                continue; // at rest only frozen files are asked, and a clean leaf is none
            // points that the file has behind it: the last few, and one from long ago
            size_t end = layer + 1 < o->depth ? (size_t)o->layers[layer].point + 1 : o->point_count;
            for (size_t since = end > 3 ? end - 3 : 0; since < end; since++)
                oracle_check_changes(o, engine, s->fs, since, layer);
            if (end)
                oracle_check_changes(o, engine, s->fs, dice(s, (unsigned)end), layer);
        }
    }
}

static void restart_clean(struct scene *s)
{
    struct rp_error err = {0};
    if (rp_engine_close(s->engine, &err))
        fail_msg("close: %s", err.text);
    for (size_t i = 0; i < DISKS; i++)
        oracle_closed(&s->disks[i]);
    ask_for_changes(s, NULL);
    s->engine = vm_open(s->fs, VM_DIRECTORY);
    if (dice(s, 2))
        vm_merge_by(s->engine, true);
    for (size_t i = 0; i < DISKS; i++) {
        struct rp_engine_disk facts;
        rp_engine_disk(s->engine, i, &facts);
        assert_int_equal(facts.verdict, RP_RCT_CLEAN);
        assert_int_equal(facts.size, atomic_load(&s->disks[i].size));
        assert_string_equal(facts.leaf_path, s->disks[i].layers[s->disks[i].depth - 1].path);
        free(facts.leaf_path);
    }
    s->restarts++;
}

// Killed, or the power fails, with writers and perhaps a merge at work.
static void crash(struct scene *s)
{
    bool power_cut = dice(s, 2);
    if (power_cut)
        rp_fs_memory_cut(s->fs);
    writers_stop(s, power_cut);
    rp_engine_abandon(s->engine);
    s->engine = vm_open(s->fs, VM_DIRECTORY);
    if (s->merge_count) { // asked again, as its owner would
        merge_ask(s);
        merge_end(s);
    }
    for (size_t i = 0; i < DISKS; i++)
        oracle_crashed(&s->disks[i], s->engine);
    s->crashes++;
}

static void one_round(struct scene *s)
{
    writers_start(s);
    for (unsigned n = dice(s, 4); n > 0; n--)
        operate(s);
    if (dice(s, 12) == 0) {
        for (size_t i = 0; i < DISKS; i++) // a crash takes the log away that they are settled with
            if (s->disks[i].point_count && !s->disks[i].points[s->disks[i].point_count - 1]->resolved)
                goto end_well;
        crash(s);
    } else {
    end_well:
        writers_stop(s, false);
        merge_end(s);
    }
    for (size_t i = 0; i < DISKS; i++) {
        oracle_settle(&s->disks[i], s->fs);
        oracle_check_content(&s->disks[i], s->engine);
        if (dice(s, 8) == 0)
            oracle_check_frozen(&s->disks[i], s->fs);
    }
    ask_for_changes(s, s->engine);
    if (dice(s, 5) == 0)
        restart_clean(s);
}

static void disks_hold_and_report_exactly_what_was_written(void **state)
{
    (void)state;
    static struct scene s;
    s = (struct scene){.fs = rp_fs_memory_new(), .seed = test_seed()};
    vm_create(s.fs, VM_DIRECTORY, DISKS, 12 << 20);
    s.engine = vm_open(s.fs, VM_DIRECTORY);
    for (size_t i = 0; i < DISKS; i++) {
        char *leaf = vm_leaf(s.engine, i);
        oracle_new(&s.disks[i], &s.clock, i, 12 << 20, leaf);
        free(leaf);
    }
    for (int round = 0; round < ROUNDS; round++)
        one_round(&s);
    print_message("# %d rounds: %u checkpoints, %u merges, %u growths, %u restarts, %u crashes, %u rounds of merges\n", ROUNDS, s.checkpoints,
                  s.merges, s.growths, s.restarts, s.crashes, s.rounds);
    assert_true(s.rounds > ROUNDS / 30);
    assert_int_equal(rp_engine_close(s.engine, NULL), 0);
    for (size_t i = 0; i < DISKS; i++)
        oracle_free(&s.disks[i]);
    rp_fs_memory_free(s.fs);
}

struct late_flusher {
    struct rp_vhdx *vhdx;
    atomic_bool *stop;
};

static void *flush_on(void *argument)
{
    struct late_flusher *f = argument;
    while (!atomic_load(f->stop))
        rp_vhdx_flush(f->vhdx, NULL);
    return NULL;
}

// A tracking file is bound to the times of the frozen file: nothing, not even free space, may be touched after that.
static void a_late_flush_leaves_a_frozen_file_alone(void **state)
{
    (void)state;
    enum { FLUSHERS = 2, BLOCKS = 8 };
    static char block[1 << 20];
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_vhdx_create create = {.size = BLOCKS << 20, .block_size = 1 << 20};
    assert_int_equal(rp_vhdx_create(fs, "/d.vhdx", &create, NULL), 0);
    memset(block, 'x', sizeof block);
    for (int round = 0; round < 60; round++) {
        struct rp_vhdx *vhdx = rp_vhdx_open(fs, "/d.vhdx", RP_VHDX_WRITE, NULL, NULL);
        assert_non_null(vhdx);
        for (int i = 0; i < BLOCKS; i++)
            assert_int_equal(rp_vhdx_write(vhdx, block, sizeof block, (uint64_t)i << 20, NULL), 0);
        assert_int_equal(rp_vhdx_flush(vhdx, NULL), 0);
        assert_int_equal(rp_vhdx_trim(vhdx, 1 << 20, (BLOCKS - 2) << 20, NULL, NULL), 0);
        atomic_bool stop = false;
        pthread_t threads[FLUSHERS];
        struct late_flusher flusher = {vhdx, &stop};
        for (int i = 0; i < FLUSHERS; i++)
            pthread_create(&threads[i], NULL, flush_on, &flusher);
        struct rp_store_identity frozen, later;
        assert_int_equal(rp_vhdx_freeze(vhdx, NULL), 0);
        assert_int_equal(rp_vhdx_identity(vhdx, &frozen, NULL), 0);
        atomic_store(&stop, true);
        for (int i = 0; i < FLUSHERS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(rp_vhdx_identity(vhdx, &later, NULL), 0);
        assert_memory_equal(&frozen, &later, sizeof later);
        assert_int_equal(rp_vhdx_close(vhdx, NULL), 0);
    }
    rp_fs_memory_free(fs);
}

int main(void)
{
    rp_log_set_level(RP_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_hold_and_report_exactly_what_was_written),
        cmocka_unit_test(a_late_flush_leaves_a_frozen_file_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
