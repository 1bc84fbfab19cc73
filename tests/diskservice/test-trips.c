// One call fails, each in turn, of all that a checkpoint, merge, growth, background flush, start or end makes: with EIO, and for
// want of space. Nothing that was flushed is lost, every id answers, and it can be done again: after a lack of space at once.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../stride.h"
#include "base/clock.h"
#include "crashfs.h"
#include "diskservice/chains.h"
#include "vm.h"

enum { SIZE = 6 << 20, LAYERS = 3 };
enum work { CHECKPOINT, MERGE_LEAF, MERGE_IN_ROUNDS, MERGE_MIDDLE, GROW, BACKGROUND, CLOSE, OPEN, TAKE_OVER };
enum ending { CLOSED, KILLED, POWER_CUT, ENDINGS };

struct scene {
    enum work work;
    struct rp_fs *fs;
    char *shm, *files[LAYERS]; // the last is the leaf
    struct rp_engine *engine;
    struct model then, flushed, now; // when the id was made; flushed; acknowledged
    struct rp_rct_id id;
    uint64_t seed;
};

// Who waits for room has it at once. The linker leads this call here.
int __wrap_usleep(useconds_t us);
int __wrap_usleep(useconds_t us)
{
    (void)us;
    return 0;
}

static int open_engine(struct scene *s, struct rp_error *err)
{
    s->engine = rp_engine_open(s->fs, VM_DIRECTORY, s->shm, err);
    if (s->engine)
        vm_merge_by(s->engine, s->work == MERGE_IN_ROUNDS);
    return s->engine ? 0 : -1;
}

static void reopen(struct scene *s)
{
    struct rp_error err = {0};
    if (open_engine(s, &err))
        fail_msg("open: %s", err.text);
}

static void start(struct scene *s, enum work work, uint64_t seed)
{
    *s = (struct scene){.work = work, .fs = crashfs_new(), .shm = vm_shm_new(), .seed = seed};
    vm_create(s->fs, VM_DIRECTORY, 1, SIZE);
    model_new(&s->now, SIZE);
    reopen(s);
    model_layers(&s->now, &s->then, s->engine, s->files, LAYERS, &s->id);
    assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
    model_copy(&s->flushed, &s->now);
    if (work == OPEN)
        rp_engine_close(s->engine, NULL);
    if (work == TAKE_OVER) {
        assert_int_equal(model_write(&s->now, s->engine, 0, 700, 300, 9), 0);
        rp_engine_abandon(s->engine);
    }
    if (work == OPEN || work == TAKE_OVER)
        s->engine = NULL;
}

static void end(struct scene *s)
{
    assert_int_equal(rp_engine_close(s->engine, NULL), 0);
    for (size_t i = 0; i < LAYERS; i++)
        free(s->files[i]);
    model_free(&s->then);
    model_free(&s->flushed);
    model_free(&s->now);
    vm_shm_remove(s->shm);
    free(s->shm);
    crashfs_free(s->fs);
}

static int look_in_the_background(struct rp_engine *engine, struct rp_error *err)
{
    rp_flusher_look(engine, rp_clock_monotonic_ns() + 60 * (uint64_t)1000000000);
    return rp_engine_flush(engine, 0, err);
}

static int close_engine(struct scene *s, struct rp_error *err)
{
    struct rp_engine *engine = s->engine;
    s->engine = NULL;
    return rp_engine_close(engine, err);
}

static int perform(struct scene *s, struct rp_error *err)
{
    switch (s->work) {
    case CHECKPOINT: return vm_checkpoint(s->engine, NULL, err);
    case MERGE_LEAF:
    case MERGE_IN_ROUNDS: return vm_merge(s->engine, s->files[2], err);
    case MERGE_MIDDLE: return vm_merge(s->engine, s->files[1], err);
    case GROW: return rp_engine_grow(s->engine, 0, 2 * SIZE, err);
    case BACKGROUND: return look_in_the_background(s->engine, err);
    case CLOSE: return close_engine(s, err);
    case OPEN:
    case TAKE_OVER: return open_engine(s, err);
    }
    return -1;
}

static void check(struct scene *s)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    struct rp_error err = {0};
    model_check(&s->now, s->engine, 0);
    if (rp_engine_changes(s->engine, leaf, &s->id, 0, SIZE, &changed, &err))
        fail_msg("changes: %s", err.text);
    model_check_changes(&s->then, &s->now, &changed, false);
}

static bool is_sync(enum crashfs_call call) { return call == CRASHFS_SYNC || call == CRASHFS_SYNC_DIRECTORY; }

// The VHDX writer's log, headers and tables lie in space that it took beforehand: only a file system that copies on write finds
// no room for them, or none to cut a file, and that is final for the file. Tracking of a file at rest is written when that is
// frozen again: a merge that finds no room for it then is not asked for again before the disks are opened anew.
static bool may_be_final(enum work work, enum crashfs_call call, const char *path, const struct rp_error *err)
{
    const char *kind = strrchr(path, '.');
    if (kind && !strcmp(kind, ".rct"))
        return (work == MERGE_MIDDLE || work == MERGE_IN_ROUNDS) && strstr(err->text, "close and open the disks first");
    return (call == CRASHFS_WRITE_IN_PLACE || call == CRASHFS_CUT) && kind && strstr(kind, "vhdx");
}

// There is room again. False: not for this disk, before it is opened anew.
static bool goes_on(struct scene *s, int failed, struct rp_error *why)
{
    if (failed && s->engine && (why->code != RP_ERR_NO_SPACE || rp_engine_flush(s->engine, 0, NULL)))
        return false;
    rp_error_clear(why);
    if (failed && s->engine && perform(s, why))
        return false;
    if (!s->engine)
        reopen(s);
    if (rp_engine_flush(s->engine, 0, why))
        return false;
    check(s);
    return true;
}

static void restart(struct scene *s, enum ending ending, bool sync)
{
    if (s->engine && ending == CLOSED)
        rp_engine_close(s->engine, NULL);
    else if (s->engine)
        rp_engine_abandon(s->engine);
    crashfs_restart(s->fs, ending == POWER_CUT, &s->seed);
    reopen(s);
    if (s->work == TAKE_OVER && (sync || ending == POWER_CUT))
        model_settle(&s->now, &s->flushed, s->engine, 0);
}

struct sum {
    unsigned long calls, went_on, final;
};

// False: there are no so many calls.
static bool trip(enum work work, unsigned long n, enum rp_code code, uint64_t seed, struct sum *sum)
{
    struct scene s;
    struct rp_error err = {0};
    const char *path;
    start(&s, work, seed);
    crashfs_trip(s.fs, n, code);
    int failed = perform(&s, &err);
    crashfs_trip(s.fs, 0, RP_OK);
    enum crashfs_call call = crashfs_tripped(s.fs, &path);
    if (call && code == RP_ERR_NO_SPACE && !is_sync(call)) {
        bool went_on = goes_on(&s, failed, &err);
        if (!went_on && !may_be_final(work, call, path, &err))
            fail_msg("work %d: call %lu, of %s, found no space; now there is room: %s", (int)work, n, path, err.text);
        sum->went_on += went_on;
        sum->final += !went_on;
    } else if (call == CRASHFS_SYNC && !failed && (!s.engine || !rp_engine_flush(s.engine, 0, NULL))) {
        fail_msg("work %d: call %lu, a sync of %s, failed, and nobody was told", (int)work, n, path);
    }
    sum->calls += call != CRASHFS_NONE;
    restart(&s, (enum ending)((n + code) % ENDINGS), is_sync(call));
    check(&s);
    if (work < CLOSE && perform(&s, &err))
        fail_msg("work %d, after trouble at call %lu, of %s: %s", (int)work, n, path, err.text);
    check(&s);
    vm_no_leftovers(s.engine, s.fs, VM_DIRECTORY);
    end(&s);
    return call != CRASHFS_NONE;
}

// In every `step`-th call, from where the seed says; in all of them with RP_TEST_ALL=1.
static void trip_in(enum work work, unsigned long step, unsigned long least)
{
    uint64_t seed = test_seed();
    struct sum sum = {0};
    step = getenv("RP_TEST_ALL") ? 1 : step * STRIDE;
    for (unsigned long n = 1 + seed / 7 % step; trip(work, n, RP_ERR_NO_SPACE, seed + n, &sum); n += step)
        trip(work, n, RP_ERR_IO, seed + n, &sum);
    print_message("# %lu calls failed; %lu found no space, which was final for %lu\n", sum.calls, sum.went_on + sum.final, sum.final);
    assert_true((sum.calls / 2 + 1) * step >= least);
    assert_true(sum.went_on);
}

static void trip_everywhere_in(enum work work, unsigned long least) { trip_in(work, 1, least); }

static void any_call_of_a_checkpoint_may_fail(void **state) { (void)state; trip_everywhere_in(CHECKPOINT, 40); }
static void any_call_of_a_merge_of_the_leaf_may_fail(void **state) { (void)state; trip_everywhere_in(MERGE_LEAF, 40); }
static void any_call_of_a_merge_in_rounds_may_fail(void **state) { (void)state; trip_in(MERGE_IN_ROUNDS, 4, 90); }
static void any_call_of_a_merge_below_the_leaf_may_fail(void **state) { (void)state; trip_in(MERGE_MIDDLE, 2, 40); }
static void any_call_of_a_growth_may_fail(void **state) { (void)state; trip_everywhere_in(GROW, 8); }
static void any_call_of_the_flush_in_the_background_may_fail(void **state) { (void)state; trip_everywhere_in(BACKGROUND, 8); }
static void any_call_of_a_clean_end_may_fail(void **state) { (void)state; trip_everywhere_in(CLOSE, 12); }
static void any_call_of_a_start_may_fail(void **state) { (void)state; trip_everywhere_in(OPEN, 10); }
static void any_call_of_a_start_after_a_kill_may_fail(void **state) { (void)state; trip_everywhere_in(TAKE_OVER, 30); }

int main(void)
{
    rp_log_set_sink(vm_listen);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_of_a_checkpoint_may_fail),
        cmocka_unit_test(any_call_of_a_merge_of_the_leaf_may_fail),
        cmocka_unit_test(any_call_of_a_merge_in_rounds_may_fail),
        cmocka_unit_test(any_call_of_a_merge_below_the_leaf_may_fail),
        cmocka_unit_test(any_call_of_a_growth_may_fail),
        cmocka_unit_test(any_call_of_the_flush_in_the_background_may_fail),
        cmocka_unit_test(any_call_of_a_clean_end_may_fail),
        cmocka_unit_test(any_call_of_a_start_may_fail),
        cmocka_unit_test(any_call_of_a_start_after_a_kill_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
