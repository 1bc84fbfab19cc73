// What a flush, a freeze and a growth owe to writers beside them, and do where the file system has no room.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
