// What a flush, a freeze and a growth owe to writers beside them, and do where the file system has no room.
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/num.h"
#include "crashfs.h"
#include "single.h"

static struct rp_fs *memory;

// On a file system that can be full, and that can lose its power.
static int set_up_crashfs(void **state)
{
    if (set_up(state))
        return -1;
    memory = fs;
    fs = crashfs_new();
    return 0;
}

static int tear_down_crashfs(void **state)
{
    crashfs_free(fs);
    fs = memory;
    return tear_down(state);
}

static struct rp_rct_id begin(struct disk *d)
{
    *d = new_disk("d");
    open_disk(d);
    return seal_disk(d);
}

static int flush(struct disk *d)
{
    struct rp_gate *gate = rp_gate_new();
    struct rp_error err = {0};
    rp_rct_flush(d->rct, gate, &err);
    rp_gate_free(gate);
    return (int)err.code;
}

static void cover(struct disk *d, uint64_t region)
{
    struct rp_error err = {0};
    if (rp_rct_cover(d->rct, region * REGION * UNIT, 512, &err))
        fail_msg("%s", err.text);
}

static void touch(struct disk *d, uint64_t region)
{
    cover(d, region);
    rp_rct_mark(d->rct, region * REGION * UNIT, 512);
}

static void cut(struct disk *d)
{
    uint64_t seed = 1;
    crash_disk(d);
    crashfs_full(fs, false);
    crashfs_restart(fs, true, &seed);
}

// ---- writers --------------------------------------------------------------------------------------------------------

struct flusher {
    pthread_t thread;
    struct rp_rct *rct;
    struct rp_gate *gate;
    atomic_bool done;
};

static void *flush_once(void *argument)
{
    struct flusher *f = argument;
    rp_rct_flush(f->rct, f->gate, NULL);
    atomic_store(&f->done, true);
    return NULL;
}

// He was told that the map covers him, and has not marked yet: a flush must not take that back.
static void a_flush_waits_for_a_writer_who_relies_on_what_it_takes_back(void **state)
{
    (void)state;
    struct disk d;
    struct rp_rct_id id = begin(&d);
    touch(&d, 1);
    cover(&d, 2);
    struct flusher f = {.rct = d.rct, .gate = rp_gate_new()};
    unsigned token = rp_gate_enter(f.gate);
    assert_true(rp_rct_covered(d.rct, 2 * REGION * UNIT, 512));
    assert_int_equal(pthread_create(&f.thread, NULL, flush_once, &f), 0);
    for (int i = 0; i < 40 && !atomic_load(&f.done); i++)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    assert_false(atomic_load(&f.done));
    rp_rct_mark(d.rct, 2 * REGION * UNIT, 512);
    rp_gate_leave(f.gate, token);
    pthread_join(f.thread, NULL);
    assert_int_equal(flush(&d), RP_OK); // lets go of the region as well: only the array tells of him now
    assert_int_equal(flush(&d), RP_OK);
    cut(&d);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    assert_int_equal(changed(d.rct, &id), 2);
    close_disk(&d);
    rp_gate_free(f.gate);
}

// ---- no room --------------------------------------------------------------------------------------------------------

enum { THE_POWER_GOES, IT_GOES_AFTER_ROOM_WAS_FOUND, THE_SESSION_ENDS };

static void flushes_find_no_room(int then)
{
    struct disk d;
    struct rp_rct_id id = begin(&d);
    touch(&d, 1);
    crashfs_full(fs, true);
    for (uint64_t r = 5; r < 8; r++) {
        assert_int_equal(flush(&d), RP_ERR_NO_SPACE);
        touch(&d, r);
    }
    if (then != THE_POWER_GOES)
        crashfs_full(fs, false);
    if (then == IT_GOES_AFTER_ROOM_WAS_FOUND) {
        for (int i = 0; i < 3; i++) // the first ends what was begun, the last lets go of all that the array has
            assert_int_equal(flush(&d), RP_OK);
        assert_int_equal(rp_rct_exposed(d.rct), 0);
    }
    if (then == THE_SESSION_ENDS) {
        close_disk(&d);
        assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
        assert_int_equal(changed(d.rct, &id), 4);
    } else {
        cut(&d);
        assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
        assert_int_equal(changed(d.rct, &id), then == THE_POWER_GOES ? 4 * REGION : 4);
    }
    close_disk(&d);
}

static void what_flushes_without_room_did_not_write_a_power_cut_does_not_hide(void **state)
{
    (void)state;
    flushes_find_no_room(THE_POWER_GOES);
}

static void a_flush_that_finds_no_room_is_done_again(void **state)
{
    (void)state;
    flushes_find_no_room(IT_GOES_AFTER_ROOM_WAS_FOUND);
}

static void a_session_whose_flushes_found_no_room_ends_cleanly(void **state)
{
    (void)state;
    flushes_find_no_room(THE_SESSION_ENDS);
}

static void a_freeze_that_finds_no_room_is_done_again(void **state)
{
    (void)state;
    struct disk d;
    struct rp_rct_id first = begin(&d);
    touch(&d, 1);
    struct rp_rct_id id = rp_rct_seal(d.rct);
    crashfs_full(fs, true);
    for (int i = 0; i < 3; i++) {
        struct rp_error err = {0};
        assert_int_equal(rp_rct_freeze(d.rct, &d.facts, &err), -1);
        assert_int_equal(err.code, RP_ERR_NO_SPACE);
    }
    crashfs_full(fs, false);
    assert_int_equal(rp_rct_freeze(d.rct, &d.facts, NULL), 0);
    crash_disk(&d);
    assert_int_equal(open_disk(&d), RP_RCT_CLEAN);
    assert_int_equal(changed(d.rct, &first), 1);
    assert_int_equal(changed(d.rct, &id), 0);
    close_disk(&d);
}

static void a_growth_that_finds_no_room_costs_nothing(void **state)
{
    (void)state;
    struct disk d;
    struct rp_rct_id id = begin(&d);
    touch(&d, 1);
    crashfs_full(fs, true);
    for (int i = 0; i < 2; i++) {
        struct rp_error err = {0};
        assert_int_equal(rp_rct_grow(d.rct, 20 * RP_GIB, &err), -1);
        assert_int_equal(err.code, RP_ERR_NO_SPACE);
        touch(&d, 3 + 2 * (uint64_t)i);
    }
    crashfs_full(fs, false);
    assert_int_equal(rp_rct_grow(d.rct, 20 * RP_GIB, NULL), 0);
    d.facts.virtual_size = 20 * RP_GIB;
    cut(&d);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(&d.rct, 1, &id, 0, SIZE / (REGION * UNIT) * REGION * UNIT, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), 3 * REGION * UNIT);
    rp_ranges_clear(&r);
    close_disk(&d);
}

// The map too may find no room, where files are written by copies: what it has is some regions more, and never one less.
static void a_region_that_finds_no_room_is_set_when_there_is_some(void **state)
{
    (void)state;
    struct disk d;
    struct rp_rct_id id = begin(&d);
    touch(&d, 1);
    crashfs_fill(fs, 1);
    for (int i = 0; i < 3; i++) {
        struct rp_error err = {0};
        assert_int_equal(rp_rct_cover(d.rct, 3 * REGION * UNIT, 512, &err), -1);
        assert_int_equal(err.code, RP_ERR_NO_SPACE);
        assert_false(rp_rct_covered(d.rct, 3 * REGION * UNIT, 512));
        assert_true(rp_rct_covered(d.rct, REGION * UNIT, 512));
    }
    crashfs_fill(fs, 0);
    unsigned long before = crashfs_flushes(fs);
    touch(&d, 3);
    assert_int_equal(crashfs_flushes(fs), before + 1);
    cut(&d);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    assert_int_equal(changed(d.rct, &id), 2 * REGION);
    close_disk(&d);
}

enum { REGIONS = 3 * 3840, STEPS = 14, LIVES = 12 }; // three sectors of the map

static const uint64_t units = REGIONS * (uint64_t)REGION;

// A change as the data path makes it: one that is refused does not happen.
static int change(struct disk *d, uint64_t unit, bool *is_changed)
{
    struct rp_error err = {0};
    if (!rp_rct_covered(d->rct, unit * UNIT, 512) && rp_rct_cover(d->rct, unit * UNIT, 512, &err))
        return (int)err.code;
    assert_true(rp_rct_covered(d->rct, unit * UNIT, 512));
    rp_rct_mark(d->rct, unit * UNIT, 512);
    is_changed[unit] = true;
    return RP_OK;
}

// Some regions are used again and again, in each of the sectors.
static uint64_t some_unit(uint64_t *seed)
{
    uint64_t region = test_random(seed) % 3 * 3840 + test_random(seed) % 20;
    return region * REGION + test_random(seed) % REGION;
}

// Changes and flushes, of which none may fail, or only for want of room.
static void go_on(struct disk *d, bool *is_changed, bool room, uint64_t *seed)
{
    for (int i = 0; i < STEPS; i++) {
        int code = test_random(seed) % 4 ? change(d, some_unit(seed), is_changed) : flush(d);
        if (code && (room || code != RP_ERR_NO_SPACE))
            fail_msg("step %d: error %d", i, code);
    }
}

static void nothing_is_missed(struct disk *d, const struct rp_rct_id *id, const bool *is_changed)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges r = {0};
    size_t at = 0;
    assert_int_equal(rp_rct_query(&d->rct, 1, id, 0, units * UNIT, &r, NULL), 0);
    for (uint64_t unit = 0; unit < units; unit++) {
        while (at < r.count && r.items[at].offset + r.items[at].length <= unit * UNIT)
            at++;
        if (is_changed[unit] && (at == r.count || r.items[at].offset > unit * UNIT))
            fail_msg("unit %llu changed, and is not listed", (unsigned long long)unit);
    }
}

// The disk is full from call n on; then there is room again, and then the power goes, at once or after some more changes.
static bool no_room_from(unsigned long n, uint64_t *seed, bool *is_changed)
{
    struct disk d = new_disk("d");
    memset(is_changed, 0, units);
    d.facts.virtual_size = units * UNIT;
    open_disk(&d);
    go_on(&d, is_changed, true, seed);
    struct rp_rct_id id = seal_disk(&d);
    memset(is_changed, 0, units);
    crashfs_fill(fs, n);
    go_on(&d, is_changed, false, seed);
    bool full = crashfs_was_full(fs);
    uint64_t how = test_random(seed) % 4;
    if (how)
        crashfs_fill(fs, 0);
    for (uint64_t i = 1; i < how; i++)
        go_on(&d, is_changed, true, seed);
    if (how == 3)
        assert_int_equal(flush(&d), RP_OK);
    crash_disk(&d);
    crashfs_fill(fs, 0);
    crashfs_restart(fs, true, seed);
    assert_int_equal(open_disk(&d), RP_RCT_UNCLEAN);
    nothing_is_missed(&d, &id, is_changed);
    close_disk(&d);
    assert_int_equal(rp_rct_remove(fs, "d", NULL), 0);
    return full;
}

static void no_room_at_any_call_and_then_a_power_cut_hide_no_change(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    RP_AUTO_FREE bool *is_changed = rp_xcalloc(units, sizeof *is_changed);
    unsigned fills = 0, before;
    unsigned long n = 1;
    do {
        before = fills;
        for (int life = 0; life < LIVES; life++)
            fills += no_room_from(n, &seed, is_changed);
        n++;
    } while (fills > before);
    printf("# %u times full\n", fills);
    assert_true(n > 10);
}

// ---- no room, for many at once ---------------------------------------------------------------------------------------

enum { THREADS = 16, TOUCHES = 40 };
#define SPREAD (3 * REGION * UNIT) // no stream, for which more regions would be set

static struct disk storm;
static atomic_uint without_room;

static void *touch_when_there_is_room(void *argument)
{
    uint64_t number = (uint64_t)(uintptr_t)argument;
    for (uint64_t i = 0; i < TOUCHES; i++) {
        uint64_t offset = (i * THREADS + number) * SPREAD;
        while (!rp_rct_covered(storm.rct, offset, 512)) {
            struct rp_error err = {0};
            if (rp_rct_cover(storm.rct, offset, 512, &err) && err.code != RP_ERR_NO_SPACE)
                return "failed";
            if (err.code)
                atomic_fetch_add(&without_room, 1);
        }
        rp_rct_mark(storm.rct, offset, 512);
    }
    return NULL;
}

// Who waits for a batch that finds no room is woken, and tries by himself.
static void nobody_waits_for_ever_when_there_is_no_room_for_a_while(void **state)
{
    (void)state;
    const uint64_t all = THREADS * TOUCHES * REGION * UNIT;
    storm = new_disk("d");
    storm.facts.virtual_size = RP_TIB;
    open_disk(&storm);
    struct rp_rct_id id = seal_disk(&storm);
    crashfs_slow(fs, 500);
    crashfs_refuse(fs, ".mrt", false);
    pthread_t threads[THREADS];
    for (uint64_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, touch_when_there_is_room, (void *)(uintptr_t)i), 0);
    for (unsigned i = 1; i < 10; i++) {
        while (atomic_load(&without_room) < i * THREADS && rp_rct_exposed(storm.rct) < all)
            sched_yield();
        crashfs_refuse(fs, NULL, false);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        crashfs_refuse(fs, ".mrt", false);
    }
    crashfs_refuse(fs, NULL, false);
    for (int i = 0; i < THREADS; i++) {
        void *why;
        pthread_join(threads[i], &why);
        assert_null(why);
    }
    crashfs_slow(fs, 0);
    assert_true(atomic_load(&without_room) >= THREADS);
    assert_int_equal(rp_rct_exposed(storm.rct), all);
    cut(&storm);
    open_disk(&storm);
    struct rp_ranges r = {0};
    assert_int_equal(rp_rct_query(&storm.rct, 1, &id, 0, RP_TIB, &r, NULL), 0);
    assert_int_equal(rp_ranges_total(&r), all);
    rp_ranges_clear(&r);
    close_disk(&storm);
}

#define ON_CRASHFS(name) cmocka_unit_test_setup_teardown(name, set_up_crashfs, tear_down_crashfs)

int main(void)
{
    rp_log_set_level(RP_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        ON_CRASHFS(a_flush_waits_for_a_writer_who_relies_on_what_it_takes_back),
        ON_CRASHFS(what_flushes_without_room_did_not_write_a_power_cut_does_not_hide),
        ON_CRASHFS(a_flush_that_finds_no_room_is_done_again),
        ON_CRASHFS(a_session_whose_flushes_found_no_room_ends_cleanly),
        ON_CRASHFS(a_freeze_that_finds_no_room_is_done_again),
        ON_CRASHFS(a_growth_that_finds_no_room_costs_nothing),
        ON_CRASHFS(a_region_that_finds_no_room_is_set_when_there_is_some),
        ON_CRASHFS(no_room_at_any_call_and_then_a_power_cut_hide_no_change),
        ON_CRASHFS(nobody_waits_for_ever_when_there_is_no_room_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
