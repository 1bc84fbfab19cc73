// The machine stops at every single call that changes something, in every step of a tracker's life.
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "world.h"

typedef int step_fn(struct world *w);
#define SIZE (200 * RP_MIB)
enum { SLOT = 256 << 10, SECTOR = 512 }; // of a tracking file

static int checkpoint(struct world *w) { return world_checkpoint(w, true); }
static int grow(struct world *w) { return world_grow(w, w->size + 5 * RP_MIB); }
static int merge_leaf(struct world *w) { return world_merge(w, 0); }
static int merge_middle(struct world *w) { return world_merge(w, 2); }
static int merge_bottom(struct world *w) { return world_merge(w, w->depth - 2); }
static int reopen(struct world *w) { return world_reopen(w); }
static int flush(struct world *w) { return world_flush(w); }

// A session of the guest: writes that need new regions, and flushes between them.
static int write_on(struct world *w)
{
    for (int i = 0; i < 3; i++) {
        if (world_write_some(w, &w->seed, 4) || world_flush(w))
            return -1;
    }
    return 0;
}

static void some_history(struct world *w)
{
    for (int i = 0; i < 4; i++) {
        world_write_some(w, &w->seed, 6);
        assert_int_equal(world_checkpoint(w, true), 0);
        if (i == 1)
            assert_int_equal(world_reopen(w), 0);
    }
    // The leaf has pages in its file that are about to be overwritten, and regions of two generations.
    world_write_some(w, &w->seed, 6);
    assert_int_equal(world_reopen(w), 0);
    world_write_some(w, &w->seed, 4);
    assert_int_equal(world_flush(w), 0);
    world_write_some(w, &w->seed, 4);
}

// After a crash the tracker must be as good as new: ids sealed from now on are exact again.
static void must_recover(struct world *w)
{
    world_check(w);
    world_write_some(w, &w->seed, 3);
    world_check(w);
    if (w->depth == WORLD_LAYERS)
        assert_int_equal(world_merge(w, 0), 0);
    assert_int_equal(world_checkpoint(w, true), 0);
    world_write_some(w, &w->seed, 3);
    assert_int_equal(world_checkpoint(w, false) | world_merge(w, 0), 0);
    world_write_some(w, &w->seed, 3);
    assert_int_equal(world_reopen(w), 0);
    world_check(w);
}

static void stop_everywhere_in(step_fn *action)
{
    static struct world w;
    uint64_t seed = test_seed();
    unsigned long stops = 0;
    for (unsigned long n = 1;; n++) {
        bool stopped = false;
        for (unsigned way = 0; way < 16; way++) { // four kills, twelve ways of losing what was not flushed
            world_start(&w, seed + n * 16 + way, SIZE);
            some_history(&w);
            crashfs_arm(w.fs, n);
            int failed = action(&w);
            stopped = crashfs_stopped(w.fs);
            assert_int_equal(failed != 0, stopped);
            crashfs_arm(w.fs, 0);
            if (stopped) {
                world_crash(&w, way < 3 ? KILL : way == 3 ? KILL_UNSHARED : POWER_CUT);
                stops++;
            }
            must_recover(&w);
            world_end(&w);
        }
        if (!stopped)
            break;
    }
    printf("# %lu stops\n", stops);
    assert_true(stops >= 8);
}

static void a_checkpoint_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(checkpoint); }
static void a_growth_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(grow); }
static void a_merge_of_the_leaf_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(merge_leaf); }
static void a_merge_in_the_middle_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(merge_middle); }
static void a_merge_into_the_base_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(merge_bottom); }
static void a_flush_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(flush); }
static void writing_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(write_on); }
static void a_clean_end_can_stop_anywhere(void **state) { (void)state; stop_everywhere_in(reopen); }

static atomic_bool flushed;

static void *flush_beside(void *argument)
{
    void *why = world_flush(argument) ? "stopped" : NULL;
    atomic_store(&flushed, true);
    return why;
}

// While a flush waits, a writer who asked before it makes his mark; and all the time another one changes new units in a
// region that is preset. The flush is stopped at every call.
static void a_flush_beside_writers_can_stop_anywhere(void **state)
{
    (void)state;
    static struct world w;
    uint64_t seed = test_seed();
    const uint64_t late = 160 * RP_MIB;
    unsigned long n = 0;
    for (void *stopped = &w; stopped;) {
        n++;
        stopped = NULL;
        for (unsigned way = 0; way < 24; way++) {
            world_start(&w, seed + n * 32 + way, SIZE);
            assert_int_equal(world_checkpoint(&w, true), 0);
            assert_int_equal(world_write(&w, 0, 512), 0);
            assert_int_equal(world_cover(&w, late, 512), 0);
            unsigned token = rp_gate_enter(w.gate);
            assert_true(rp_rct_covered(w.layers[0].rct, late, 512));
            pthread_t thread;
            void *why;
            atomic_store(&flushed, false);
            crashfs_slow(w.fs, 300);
            pthread_create(&thread, NULL, flush_beside, &w);
            while (rp_rct_covered(w.layers[0].rct, late, 512))
                sched_yield();
            crashfs_arm(w.fs, n);
            world_mark(&w, late, 512);
            rp_gate_leave(w.gate, token);
            for (uint64_t unit = 1; !atomic_load(&flushed); usleep(50))
                if (!crashfs_stopped(w.fs) && unit < 64)
                    assert_int_equal(world_write(&w, unit++ * WORLD_UNIT, 512), 0);
            pthread_join(thread, &why);
            crashfs_slow(w.fs, 0);
            if (why)
                stopped = why;
            world_crash(&w, way ? POWER_CUT : KILL_UNSHARED);
            must_recover(&w);
            world_end(&w);
        }
    }
    assert_true(n >= 5);
}

// The same once more after a first attempt that was stopped somewhere, and its recovery.
static void stop_twice_in(step_fn *action)
{
    static struct world w;
    uint64_t seed = test_seed();
    for (unsigned long n = 1, stopped = 1; stopped; n++) {
        stopped = 0;
        for (unsigned way = 0; way < 10; way++) {
            world_start(&w, seed + n * 16 + way, SIZE);
            some_history(&w);
            crashfs_arm(w.fs, 1 + test_random(&w.seed) % 22);
            action(&w);
            world_crash(&w, way % 5 < 2 ? KILL : POWER_CUT);
            world_write_some(&w, &w.seed, 1);
            crashfs_arm(w.fs, n);
            int failed = action(&w);
            assert_int_equal(failed != 0, crashfs_stopped(w.fs));
            stopped |= failed != 0;
            world_crash(&w, way % 3 ? POWER_CUT : KILL);
            must_recover(&w);
            world_end(&w);
        }
    }
}

static void a_second_attempt_to_merge_the_leaf_can_stop_anywhere(void **state) { (void)state; stop_twice_in(merge_leaf); }
static void a_second_attempt_to_merge_below_can_stop_anywhere(void **state) { (void)state; stop_twice_in(merge_bottom); }

// The recovery itself is stopped at every call.
static void a_recovery_can_stop_anywhere(void **state)
{
    (void)state;
    static struct world w;
    step_fn *const steps[] = {checkpoint, grow, merge_leaf, merge_middle, merge_bottom, write_on, reopen};
    uint64_t seed = test_seed();
    unsigned long stops = 0;
    for (unsigned long n = 1, stopped = 1; stopped; n++) {
        stopped = 0;
        for (unsigned way = 0; way < 21; way++) {
            world_start(&w, seed + n * 32 + way, SIZE);
            some_history(&w);
            crashfs_arm(w.fs, 1 + test_random(&w.seed) % 22);
            steps[way % 7](&w);
            world_fall(&w, way / 7 ? POWER_CUT : KILL);
            crashfs_arm(w.fs, n);
            if (world_rise(&w)) {
                stops++;
                stopped = 1;
                world_crash(&w, way % 2 ? POWER_CUT : KILL);
            }
            crashfs_arm(w.fs, 0);
            must_recover(&w);
            world_end(&w);
        }
    }
    printf("# %lu stops\n", stops);
    assert_true(stops >= 100);
}

// Bytes of the slot that the leaf's next header goes to. The other one has the larger sequence number, at 16.
static void next_head(struct world *w, uint8_t head[SECTOR], uint64_t *at)
{
    RP_AUTO_FREE char *path = rp_rct_path(w->layers[0].path);
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(w->fs, path, RP_OPEN_READ, NULL);
    uint64_t sequences[2];
    assert_non_null(store);
    for (int i = 0; i < 2; i++)
        assert_int_equal(rp_store_pread(store, &sequences[i], 8, (uint64_t)i * SLOT + 16, NULL), 0);
    *at = sequences[0] < sequences[1] ? 0 : SLOT;
    assert_int_equal(rp_store_pread(store, head, SECTOR, *at, NULL), 0);
}

// Else the part of a header that one torn write left could become whole by another one that is torn.
static void a_torn_slot_is_durably_cleared_before_it_is_written_again(void **state)
{
    (void)state;
    static struct world w;
    static const uint8_t nothing[SECTOR];
    uint64_t seed = test_seed();
    unsigned cleared = 0;
    for (unsigned long n = 1, stopped = 1; stopped; n++) {
        uint8_t head[SECTOR];
        uint64_t at, ignored;
        world_start(&w, seed * 2, SIZE);
        some_history(&w);
        world_fall(&w, KILL_UNSHARED);
        next_head(&w, head, &at);
        head[SECTOR - 1] ^= 1;
        RP_AUTO_FREE char *path = rp_rct_path(w.layers[0].path);
        struct rp_store *store = rp_fs_open(w.fs, path, RP_OPEN_WRITE, NULL);
        assert_int_equal(rp_store_pwrite(store, head, SECTOR, at, NULL) | rp_store_flush(store, NULL), 0);
        rp_store_close(store);
        crashfs_arm(w.fs, n);
        stopped = world_rise(&w) != 0;
        crashfs_arm(w.fs, 0);
        if (stopped) {
            world_fall(&w, POWER_CUT);
            next_head(&w, head, &ignored);
            cleared += !memcmp(head, nothing, SECTOR);
            assert_int_equal(world_rise(&w), 0);
        }
        must_recover(&w);
        world_end(&w);
    }
    assert_true(cleared > 0);
}

// What a killed process wrote last may be in the page cache only; the next one goes on from it, and then the power fails.
static void a_power_cut_soon_after_a_kill_costs_no_id(void **state)
{
    (void)state;
    static struct world w;
    uint64_t seed = test_seed();
    for (unsigned long n = 1, killed = 1; killed; n++)
        for (unsigned long m = 1, stopped = 1; stopped; m++)
            for (unsigned way = 0; way < 6; way++) {
                world_start(&w, seed + (n * 32 + m) * 8 + way, SIZE);
                some_history(&w);
                crashfs_arm(w.fs, n);
                killed = merge_middle(&w) != 0;
                world_fall(&w, KILL);
                crashfs_arm(w.fs, m);
                stopped = world_rise(&w) != 0;
                world_crash(&w, POWER_CUT);
                must_recover(&w);
                world_end(&w);
            }
}

// One failure, and everything works again: it must not be forgotten, or pages would be called durable that are not.
static void a_failed_write_is_final(void **state)
{
    (void)state;
    static struct world w;
    uint64_t seed = test_seed();
    unsigned long n = 1;
    for (bool failed = true; failed; n++) {
        world_start(&w, seed + n, SIZE);
        some_history(&w);
        crashfs_trip(w.fs, n, RP_ERR_IO);
        struct rp_rct *leaf = w.layers[0].rct;
        fake_disk_written(&w.layers[0].disk, NULL);
        failed = rp_rct_freeze(leaf, &w.layers[0].disk, NULL);
        if (failed)
            assert_int_equal(rp_rct_freeze(leaf, &w.layers[0].disk, NULL), -1);
        else
            w.layers[0].shared = false;
        world_crash(&w, failed ? POWER_CUT : KILL);
        must_recover(&w);
        world_end(&w);
    }
    assert_true(n > 4);
}

// Without an error from the file system at all: the power fails between two calls of ours.
static void the_power_can_fail_after_each_step(void **state)
{
    (void)state;
    static struct world w;
    step_fn *const steps[] = {checkpoint, grow, merge_leaf, merge_middle, merge_bottom, reopen};
    uint64_t seed = test_seed();
    for (size_t i = 0; i < 6 * 8; i++) {
        world_start(&w, seed + i, SIZE);
        some_history(&w);
        assert_int_equal(steps[i % 6](&w), 0);
        world_write_some(&w, &w.seed, 2);
        world_crash(&w, POWER_CUT);
        must_recover(&w);
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_can_stop_anywhere),
        cmocka_unit_test(a_growth_can_stop_anywhere),
        cmocka_unit_test(a_merge_of_the_leaf_can_stop_anywhere),
        cmocka_unit_test(a_merge_in_the_middle_can_stop_anywhere),
        cmocka_unit_test(a_merge_into_the_base_can_stop_anywhere),
        cmocka_unit_test(a_flush_can_stop_anywhere),
        cmocka_unit_test(a_flush_beside_writers_can_stop_anywhere),
        cmocka_unit_test(writing_can_stop_anywhere),
        cmocka_unit_test(a_clean_end_can_stop_anywhere),
        cmocka_unit_test(a_second_attempt_to_merge_the_leaf_can_stop_anywhere),
        cmocka_unit_test(a_second_attempt_to_merge_below_can_stop_anywhere),
        cmocka_unit_test(a_recovery_can_stop_anywhere),
        cmocka_unit_test(a_torn_slot_is_durably_cleared_before_it_is_written_again),
        cmocka_unit_test(a_power_cut_soon_after_a_kill_costs_no_id),
        cmocka_unit_test(a_failed_write_is_final),
        cmocka_unit_test(the_power_can_fail_after_each_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
