// The engine when the machine stops at any call, and when its process is killed there.
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
#include "disk/chain.h"
#include "vm.h"

enum { SIZE = 6 << 20, CHECKPOINTS = 3 };

struct point {
    struct rp_engine_checkpoint checkpoint;
    struct model model;
};

struct scene {
    struct rp_fs *fs;
    struct rp_engine *engine;
    struct model now; // flushed
    struct point points[CHECKPOINTS];
    size_t count;
    bool rounds; // merges of the leaf go in rounds
    uint64_t seed;
};

static void add_point(struct scene *s)
{
    struct rp_guid operation = vm_operation();
    struct rp_error err = {0};
    if (rp_engine_checkpoint(s->engine, &operation, &s->points[s->count].checkpoint, &err))
        fail_msg("checkpoint: %s", err.text);
    model_copy(&s->points[s->count++].model, &s->now);
}

// A disk with some history: base ← … ← leaf with `checkpoints` frozen files, everything flushed.
static void scene_start(struct scene *s, size_t checkpoints, uint64_t seed)
{
    *s = (struct scene){.fs = crashfs_new(), .seed = seed};
    vm_create(s->fs, VM_DIRECTORY, 2, SIZE);
    s->engine = vm_open(s->fs, VM_DIRECTORY);
    model_new(&s->now, SIZE);
    assert_int_equal(model_change_some(&s->now, s->engine, 0, 8, &s->seed), 0);
    for (size_t i = 0; i < checkpoints; i++) {
        add_point(s);
        assert_int_equal(model_change_some(&s->now, s->engine, 0, 6, &s->seed), 0);
    }
    assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
}

static void scene_end(struct scene *s)
{
    struct rp_error err = {0};
    if (s->engine && rp_engine_close(s->engine, &err))
        fail_msg("close: %s", err.text);
    for (size_t i = 0; i < s->count; i++) {
        rp_engine_checkpoint_clear(&s->points[i].checkpoint);
        model_free(&s->points[i].model);
    }
    model_free(&s->now);
    crashfs_free(s->fs);
}

// The engine is gone as by kill -9, or by a power cut; then it is opened again.
static void crash(struct scene *s, bool power_cut)
{
    rp_engine_abandon(s->engine);
    crashfs_restart(s->fs, power_cut, &s->seed);
    s->engine = vm_open(s->fs, VM_DIRECTORY);
    vm_merge_by(s->engine, s->rounds);
}

// What the disk holds, and that every id still answers and misses nothing.
static void check_all(struct scene *s)
{
    model_check(&s->now, s->engine, 0);
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    for (size_t i = 0; i < s->count; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        struct rp_error err = {0};
        if (rp_engine_changes(s->engine, leaf, &s->points[i].checkpoint.disks[0].id, 0, SIZE, &changed, &err))
            fail_msg("id %zu: %s", i, err.text);
        model_check_changes(&s->points[i].model, &s->now, &changed, false);
    }
}

// The disks have been opened after a crash, and nobody has asked anything: closed again, they answer as they are.
static void check_at_rest(struct scene *s)
{
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    struct rp_error err = {0};
    if (rp_engine_close(s->engine, &err))
        fail_msg("close: %s", err.text);
    for (size_t i = 0; i < s->count; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        if (rp_changes_at_rest(s->fs, leaf, &s->points[i].checkpoint.disks[0].id, 0, SIZE, &changed, &err))
            fail_msg("id %zu, at rest: %s", i, err.text);
        model_check_changes(&s->points[i].model, &s->now, &changed, false);
    }
    s->engine = vm_open(s->fs, VM_DIRECTORY);
    vm_merge_by(s->engine, s->rounds);
}

static void what_a_backup_read_is_durable_before_its_id_exists(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    for (int round = 0; round < 12; round++) {
        struct scene s;
        scene_start(&s, 1, seed += 2);
        // not flushed by anybody but the checkpoint
        assert_int_equal(model_change_some(&s.now, s.engine, 0, 10, &s.seed), 0);
        add_point(&s);
        // a backup reads the frozen file now; meanwhile the guest goes on, unflushed, and the power fails
        struct model later;
        model_copy(&later, &s.now);
        assert_int_equal(model_change_some(&later, s.engine, 0, 10, &s.seed), 0);
        model_free(&later);
        const struct rp_engine_frozen *frozen = &s.points[1].checkpoint.disks[0];
        rp_engine_abandon(s.engine);
        crashfs_restart(s.fs, true, &s.seed);
        model_check_file(&s.points[1].model, s.fs, frozen->path);
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges rest = {0}, live = {0};
        const struct rp_rct_id *before = &s.points[0].checkpoint.disks[0].id;
        assert_int_equal(rp_changes_at_rest(s.fs, frozen->path, before, 0, SIZE, &rest, NULL), 0);
        model_check_changes(&s.points[0].model, &s.points[1].model, &rest, false);
        s.engine = vm_open(s.fs, VM_DIRECTORY);
        RP_AUTO_FREE char *leaf = vm_leaf(s.engine, 0);
        assert_string_equal(leaf, frozen->leaf_path);
        // the next backup bases itself on the new id, and the frozen file's answer is still exact
        assert_int_equal(rp_engine_changes(s.engine, leaf, &frozen->id, 0, SIZE, &live, NULL), 0);
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges frozen_answer = {0};
        assert_int_equal(rp_engine_changes(s.engine, frozen->path, before, 0, SIZE, &frozen_answer, NULL), 0);
        assert_int_equal(frozen_answer.count, rest.count);
        scene_end(&s);
    }
}

static unsigned long calls_of_checkpoint(uint64_t seed)
{
    struct scene s;
    scene_start(&s, 1, seed);
    crashfs_arm(s.fs, 0);
    add_point(&s);
    unsigned long calls = crashfs_calls(s.fs);
    scene_end(&s);
    return calls;
}

static void a_checkpoint_stopped_at_any_call_has_happened_or_has_not(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    unsigned long calls = calls_of_checkpoint(seed), done = 0, lost = 0;
    assert_true(calls > 20);
    for (unsigned long stop = 1 + seed % STRIDE; stop <= calls + 1; stop += STRIDE)
        for (int power_cut = 0; power_cut < 2; power_cut++) {
            struct scene s;
            scene_start(&s, 1, seed);
            crashfs_arm(s.fs, stop);
            struct rp_guid operation = vm_operation();
            struct rp_engine_checkpoint result, again;
            int failed = rp_engine_checkpoint(s.engine, &operation, &result, NULL);
            // whatever became of it: flushed is what an acknowledged flush covers
            uint64_t count = test_random(&s.seed) % 3;
            struct model after;
            model_copy(&after, &s.now);
            bool flushed = !crashfs_stopped(s.fs) && !model_change_some(&after, s.engine, 0, (unsigned)count, &s.seed) &&
                           !rp_engine_flush(s.engine, 0, NULL);
            RP_AUTO_FREE char *leaf_now = vm_leaf(s.engine, 0);
            if (failed && strcmp(leaf_now, s.points[0].checkpoint.disks[0].leaf_path)) {
                // switched, but not durably: no flush may be acknowledged any more, and no checkpoint made
                lost++;
                assert_int_equal(rp_engine_flush(s.engine, 0, NULL), -1);
                assert_int_equal(rp_engine_flush(s.engine, 1, NULL), -1);
                assert_int_equal(rp_engine_checkpoint(s.engine, &operation, &again, NULL), -1);
            }
            if (flushed) {
                struct model old = s.now;
                s.now = after;
                after = old;
            }
            model_free(&after);
            crash(&s, power_cut);
            check_all(&s);
            if (!failed) {
                done++;
                model_check_file(&s.points[0].model, s.fs, s.points[0].checkpoint.disks[0].path);
            }
            // asked again, it is the same checkpoint when it happened
            assert_int_equal(rp_engine_checkpoint(s.engine, &operation, &again, NULL), 0);
            if (!failed) {
                assert_string_equal(again.disks[0].path, result.disks[0].path);
                assert_memory_equal(&again.disks[0].id, &result.disks[0].id, sizeof result.disks[0].id);
            }
            RP_AUTO_FREE char *leaf = vm_leaf(s.engine, 0);
            assert_string_equal(again.disks[0].leaf_path, leaf);
            check_all(&s);
            rp_engine_checkpoint_clear(&again);
            rp_engine_checkpoint_clear(&result);
            scene_end(&s);
        }
    assert_true(STRIDE > 1 || (done >= 2 && lost >= 10));
}

static void leftovers_of_a_stopped_checkpoint_are_gone_after_the_next_start(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    unsigned long calls = calls_of_checkpoint(seed);
    for (unsigned long stop = 1 + 2 * (seed % STRIDE); stop <= calls; stop += 2 * STRIDE) {
        struct scene s;
        scene_start(&s, 0, seed);
        crashfs_arm(s.fs, stop);
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint result;
        if (!rp_engine_checkpoint(s.engine, &operation, &result, NULL))
            rp_engine_checkpoint_clear(&result);
        crash(&s, stop % 4 == 1);
        struct rp_record record;
        assert_int_equal(rp_record_read(s.fs, VM_DIRECTORY, &record, NULL), 0);
        for (size_t i = 0; i < record.scratch_count; i++) {
            bool there, leaf = false;
            for (size_t d = 0; d < record.count; d++)
                leaf |= !strcmp(record.disks[d].leaf_path, record.scratch[i]);
            assert_int_equal(rp_fs_exists(s.fs, record.scratch[i], &there, NULL), 0);
            assert_int_equal(there, leaf);
        }
        rp_record_clear(&record);
        scene_end(&s);
    }
}

static void start_rounds(struct scene *s, uint64_t seed, bool rounds)
{
    scene_start(s, CHECKPOINTS, seed);
    vm_merge_by(s->engine, s->rounds = rounds);
    if (rounds) { // too much for one pause
        assert_int_equal(model_write(&s->now, s->engine, 0, 64, 32, 99), 0);
        assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
    }
}

// Merges `victim` (0 the lowest child) with a stop at every call; with a `step` of 2, at every other one, by the seed, unless
// RP_TEST_ALL=1.
static void stop_a_merge(size_t victim, unsigned step, bool rounds)
{
    uint64_t seed = test_seed();
    unsigned long calls;
    {
        struct scene s;
        start_rounds(&s, seed, rounds);
        crashfs_arm(s.fs, 0);
        struct rp_error err = {0};
        if (vm_merge(s.engine, s.points[victim].checkpoint.disks[0].leaf_path, &err))
            fail_msg("merge: %s", err.text);
        calls = crashfs_calls(s.fs);
        struct rp_engine_merge merge;
        rp_engine_merge_state(s.engine, &merge);
        assert_true((merge.round > 0) == rounds);
        check_all(&s);
        scene_end(&s);
    }
    assert_true(calls > 20);
    unsigned long stopped = 0;
    step = getenv("RP_TEST_ALL") ? 1 : step * STRIDE;
    for (unsigned long stop = 1 + seed / 7 % step; stop <= calls + 1; stop += step)
        for (int power_cut = 0; power_cut < 2; power_cut++) {
            struct scene s;
            start_rounds(&s, seed, rounds);
            const char *path = s.points[victim].checkpoint.disks[0].leaf_path;
            crashfs_arm(s.fs, stop);
            stopped += vm_merge(s.engine, path, NULL) != 0;
            crash(&s, power_cut);
            if (test_random(&s.seed) % 2)
                check_at_rest(&s);
            // half merged, the disk reads and answers as before; in between it may be written to
            check_all(&s);
            assert_int_equal(model_change_some(&s.now, s.engine, 0, 3, &s.seed), 0);
            assert_int_equal(rp_engine_flush(s.engine, 0, NULL), 0);
            // frozen files below the merge are what they were
            for (size_t i = 0; i < victim; i++)
                model_check_file(&s.points[i].model, s.fs, s.points[i].checkpoint.disks[0].path);
            struct rp_error err = {0};
            if (vm_merge(s.engine, path, &err))
                fail_msg("merge again: %s", err.text);
            check_all(&s);
            for (size_t i = victim + 2; i < CHECKPOINTS; i++)
                model_check_file(&s.points[i].model, s.fs, s.points[i].checkpoint.disks[0].path);
            bool there;
            assert_int_equal(rp_fs_exists(s.fs, path, &there, NULL), 0);
            assert_false(there);
            // nobody hears of the leaves that the merge put on top
            RP_AUTO_FREE char *leaf = vm_leaf(s.engine, 0);
            const struct rp_engine_frozen *last = &s.points[CHECKPOINTS - 1].checkpoint.disks[0];
            assert_string_equal(leaf, victim == CHECKPOINTS - 1 ? last->path : last->leaf_path);
            vm_no_leftovers(s.engine, s.fs, VM_DIRECTORY);
            scene_end(&s);
        }
    assert_true(stopped >= calls / step);
}

static void a_merge_of_the_leaf_stopped_at_any_call_can_be_run_again(void **state)
{
    (void)state;
    stop_a_merge(CHECKPOINTS - 1, 2, false);
}

static void a_merge_of_the_leaf_in_rounds_stopped_at_any_call_can_be_run_again(void **state)
{
    (void)state;
    stop_a_merge(CHECKPOINTS - 1, 1, true);
}

static void a_merge_of_the_file_under_the_leaf_stopped_at_any_call_can_be_run_again(void **state)
{
    (void)state;
    stop_a_merge(CHECKPOINTS - 2, 2, false);
}

static void a_merge_between_frozen_files_stopped_at_any_call_can_be_run_again(void **state)
{
    (void)state;
    stop_a_merge(0, 2, false);
}

static unsigned long calls_of_growth(uint64_t seed)
{
    struct scene s;
    scene_start(&s, 1, seed);
    crashfs_arm(s.fs, 0);
    assert_int_equal(rp_engine_grow(s.engine, 0, 2 * SIZE, NULL), 0);
    unsigned long calls = crashfs_calls(s.fs);
    scene_end(&s);
    return calls;
}

static void a_growth_stopped_at_any_call_has_happened_or_has_not(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    unsigned long calls = calls_of_growth(seed), stopped = 0;
    for (unsigned long stop = 1 + seed % STRIDE; stop <= calls + 1; stop += STRIDE)
        for (int power_cut = 0; power_cut < 2; power_cut++) {
            struct scene s;
            scene_start(&s, 1, seed);
            crashfs_arm(s.fs, stop);
            int failed = rp_engine_grow(s.engine, 0, 2 * SIZE, NULL);
            stopped += crashfs_stopped(s.fs);
            assert_int_equal(failed != 0, crashfs_stopped(s.fs));
            crash(&s, power_cut);
            struct rp_engine_disk disk;
            rp_engine_disk(s.engine, 0, &disk);
            free(disk.leaf_path);
            assert_true(disk.size == 2 * SIZE || (failed && disk.size == SIZE));
            check_all(&s);
            assert_int_equal(rp_engine_grow(s.engine, 0, 2 * SIZE, NULL), 0);
            check_all(&s);
            scene_end(&s);
        }
    print_message("# %lu calls\n", calls);
    assert_true(calls > 5 && stopped >= 2 * (calls / STRIDE));
}

// ---- what a power cut adds to the answers

enum { WIDE = 64 << 20, REGIONS = WIDE / VM_REGION, LIVE = 5 /* the region that is written to when the power fails */, IDS = 2 };
enum work { CHECKPOINT, MERGE_LEAF, MERGE_MIDDLE, GROW, WORKS };

struct wide {
    struct rp_fs *fs;
    struct rp_engine *engine;
    struct rp_rct_id ids[IDS];
    struct model then[IDS], now;
    char *files[IDS]; // made by the checkpoints
    uint32_t value;
};

static void write_region(struct wide *w, uint64_t region)
{
    for (uint64_t cell = 3; cell < VM_REGION / VM_CELL; cell += 300)
        assert_int_equal(model_write(&w->now, w->engine, 0, region * (VM_REGION / VM_CELL) + cell, 5, ++w->value), 0);
}

static void wide_start(struct wide *w)
{
    *w = (struct wide){.fs = crashfs_new()};
    vm_create(w->fs, VM_DIRECTORY, 1, WIDE);
    w->engine = vm_open(w->fs, VM_DIRECTORY);
    model_new(&w->now, WIDE);
    for (uint64_t region = 1; region < REGIONS; region += 2)
        write_region(w, region);
    for (size_t i = 0; i < IDS; i++) {
        assert_int_equal(vm_checkpoint(w->engine, &w->ids[i], NULL), 0);
        w->files[i] = vm_leaf(w->engine, 0);
        model_copy(&w->then[i], &w->now);
        write_region(w, 9 + 2 * i);
    }
    assert_int_equal(rp_engine_close(w->engine, NULL), 0);
    w->engine = vm_open(w->fs, VM_DIRECTORY);
    vm_merge_by(w->engine, false);
    write_region(w, LIVE);
    assert_int_equal(rp_engine_flush(w->engine, 0, NULL), 0);
}

static int perform(struct wide *w, enum work work)
{
    switch (work) {
    case CHECKPOINT: return vm_checkpoint(w->engine, NULL, NULL);
    case MERGE_LEAF: return vm_merge(w->engine, w->files[1], NULL);
    case MERGE_MIDDLE: return vm_merge(w->engine, w->files[0], NULL);
    default: return rp_engine_grow(w->engine, 0, 2 * WIDE, NULL);
    }
}

static void wide_check(struct wide *w)
{
    static const bool regions[REGIONS] = {[LIVE] = true};
    RP_AUTO_FREE char *leaf = vm_leaf(w->engine, 0);
    struct rp_error err = {0};
    for (size_t i = 0; i < IDS; i++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        if (rp_engine_changes(w->engine, leaf, &w->ids[i], 0, WIDE, &changed, &err))
            fail_msg("id %zu: %s", i, err.text);
        model_check_cut(&w->then[i], &w->now, &changed, regions);
    }
}

static void wide_end(struct wide *w)
{
    assert_int_equal(rp_engine_close(w->engine, NULL), 0);
    for (size_t i = 0; i < IDS; i++) {
        free(w->files[i]);
        model_free(&w->then[i]);
    }
    model_free(&w->now);
    crashfs_free(w->fs);
}

static bool cut(enum work work, unsigned long stop, uint64_t *seed)
{
    struct wide w;
    wide_start(&w);
    crashfs_arm(w.fs, stop);
    perform(&w, work);
    bool stopped = crashfs_stopped(w.fs);
    rp_engine_abandon(w.engine);
    crashfs_restart(w.fs, true, seed);
    w.engine = vm_open(w.fs, VM_DIRECTORY);
    wide_check(&w);
    wide_end(&w);
    return stopped;
}

static void a_power_cut_adds_only_the_regions_written_since_the_start(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    unsigned cuts = 0;
    for (int work = 0; work < WORKS; work++)
        for (unsigned long stop = 1 + seed / 7 % STRIDE; cut((enum work)work, stop, &seed); stop += STRIDE)
            cuts++;
    print_message("# %u cuts\n", cuts);
    assert_true(cuts * STRIDE > 100);
}

static void say_nothing(enum rp_log_level level, const char *text)
{
    (void)level;
    (void)text;
}

int main(void)
{
    rp_log_set_sink(say_nothing); // what goes wrong here goes wrong on purpose
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_backup_read_is_durable_before_its_id_exists),
        cmocka_unit_test(a_checkpoint_stopped_at_any_call_has_happened_or_has_not),
        cmocka_unit_test(leftovers_of_a_stopped_checkpoint_are_gone_after_the_next_start),
        cmocka_unit_test(a_merge_of_the_leaf_stopped_at_any_call_can_be_run_again),
        cmocka_unit_test(a_merge_of_the_leaf_in_rounds_stopped_at_any_call_can_be_run_again),
        cmocka_unit_test(a_merge_of_the_file_under_the_leaf_stopped_at_any_call_can_be_run_again),
        cmocka_unit_test(a_merge_between_frozen_files_stopped_at_any_call_can_be_run_again),
        cmocka_unit_test(a_growth_stopped_at_any_call_has_happened_or_has_not),
        cmocka_unit_test(a_power_cut_adds_only_the_regions_written_since_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
