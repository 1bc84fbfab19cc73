// A checkpoint and a merge that find no space after they have switched the guest to another leaf, when there is no way back;
// and a region of the coarse bitmap that finds none.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "crashfs.h"
#include "diskservice/chains.h"
#include "vm.h"

enum { SIZE = 6 << 20 };

static unsigned told_full, told_lost;

struct scene {
    struct rp_fs *fs;
    char *shm, *leaf;
    struct rp_engine *engine;
    struct model then, flushed, now; // when the id was made; covered by a flush; acknowledged
    struct rp_rct_id id;
    uint64_t seed;
    const char *refused; // from the switch on
    bool syncs;
    unsigned waits; // so many times is waited for room until there is some; 0: for good
    unsigned failed_flushes, closed_at; // 0: it is not closed meanwhile
};

static struct scene *watched;

// The linker leads these calls of the engine here.
void __real_rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk);
void __wrap_rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk);
void __wrap_rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk)
{
    __real_rp_engine_publish(engine, disk);
    if (!watched)
        return;
    assert_int_equal(model_write(&watched->now, engine, 0, 700, 50, 7), 0);
    crashfs_refuse(watched->fs, watched->refused, watched->syncs);
}
int __real_usleep(useconds_t us);
int __wrap_usleep(useconds_t us);
int __wrap_usleep(useconds_t us)
{
    if (!watched)
        return __real_usleep(us);
    struct rp_error err = {0};
    if (rp_engine_flush(watched->engine, 0, &err) && err.code == RP_ERR_NO_SPACE) // it does not wait for room
        watched->failed_flushes++;
    if (watched->waits && !--watched->waits)
        crashfs_refuse(watched->fs, NULL, false);
    if (watched->closed_at && watched->failed_flushes == watched->closed_at)
        rp_engine_cancel(watched->engine);
    return 0;
}

static int merge(struct scene *s, struct rp_error *err) { return vm_merge(s->engine, s->leaf, err); }
static int checkpoint(struct scene *s, struct rp_error *err) { return vm_checkpoint(s->engine, NULL, err); }

static int (*const changes[])(struct scene *, struct rp_error *) = {merge, checkpoint};

static void start(struct scene *s, uint64_t seed)
{
    *s = (struct scene){.fs = crashfs_new(), .shm = vm_shm_new(), .seed = seed};
    vm_create(s->fs, VM_DIRECTORY, 1, SIZE);
    assert_int_equal(rp_engine_close(vm_open_shared(s->fs, VM_DIRECTORY, s->shm), NULL), 0); // tracking has begun
    s->engine = vm_open_shared(s->fs, VM_DIRECTORY, s->shm);
    vm_merge_by(s->engine, false);
    model_new(&s->now, SIZE);
    assert_int_equal(model_write(&s->now, s->engine, 0, 700, 200, 6), 0);
    assert_int_equal(vm_checkpoint(s->engine, &s->id, NULL), 0);
    model_copy(&s->then, &s->now);
    assert_int_equal(model_change_some(&s->now, s->engine, 0, 8, &s->seed), 0);
    assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
    model_copy(&s->flushed, &s->now);
    s->leaf = vm_leaf(s->engine, 0);
    told_full = told_lost = 0;
}

static void end(struct scene *s)
{
    assert_int_equal(rp_engine_close(s->engine, NULL), 0);
    s->engine = vm_open_shared(s->fs, VM_DIRECTORY, s->shm);
    model_check(&s->now, s->engine, 0);
    vm_no_leftovers(s->engine, s->fs, VM_DIRECTORY);
    assert_int_equal(rp_engine_close(s->engine, NULL), 0);
    model_free(&s->then);
    model_free(&s->flushed);
    model_free(&s->now);
    vm_shm_remove(s->shm);
    free(s->shm);
    free(s->leaf);
    crashfs_free(s->fs);
}

static int run(struct scene *s, int (*change)(struct scene *, struct rp_error *), struct rp_error *err)
{
    watched = s;
    int failed = change(s, err);
    watched = NULL;
    return failed;
}

static void check_ids(struct scene *s, const struct model *now)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    assert_int_equal(rp_engine_changes(s->engine, leaf, &s->id, 0, SIZE, &changed, NULL), 0);
    model_check_changes(&s->then, now, &changed, false);
}

// Nothing is lost, whatever became of the switch: it has not failed, or the next open finishes it.
static void reopen_with_room(struct scene *s)
{
    struct rp_error err = {0};
    assert_int_equal(rp_engine_flush(s->engine, 0, &err), -1);
    model_check(&s->now, s->engine, 0);
    rp_engine_close(s->engine, NULL);
    crashfs_refuse(s->fs, NULL, false);
    s->engine = vm_open_shared(s->fs, VM_DIRECTORY, s->shm);
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    assert_string_not_equal(leaf, s->leaf);
}

static void check(struct scene *s)
{
    model_check(&s->now, s->engine, 0);
    assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
    check_ids(s, &s->now);
}

static void a_switch_waits_for_room_and_then_goes_on(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    static const char *const parts[] = {".rct", RP_RECORD_NAME};
    for (size_t c = 0; c < 2; c++)
        for (size_t p = 0; p < 2; p++) {
            struct scene s;
            struct rp_error err = {0};
            start(&s, seed);
            s.refused = parts[p];
            s.waits = 500; // in a minute somebody has made room
            if (run(&s, changes[c], &err))
                fail_msg("%s", err.text);
            assert_int_equal(s.waits, 0);
            assert_int_equal(s.failed_flushes, 500);
            assert_int_equal(told_full, 1);
            assert_int_equal(told_lost, 0);
            check(&s);
            end(&s);
        }
}

static void a_switch_that_finds_no_room_for_good_is_finished_by_the_next_open(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    static const char *const parts[] = {".rct", RP_RECORD_NAME, "disk0"};
    for (size_t c = 0; c < 2; c++)
        for (size_t p = 0; p < 3; p++)
            for (int closed = 0; closed < 2; closed++) {
                struct scene s;
                struct rp_error err = {0};
                start(&s, seed);
                s.refused = parts[p];
                s.closed_at = closed ? 7 : 0;
                assert_int_equal(run(&s, changes[c], &err), -1);
                assert_int_equal(err.code, RP_ERR_IO);
                assert_int_equal(told_lost, 1);
                if (s.failed_flushes) // a disk whose log finds no room is not waited for
                    assert_int_equal(told_full, 1);
                assert_true(closed ? s.failed_flushes <= 7 : s.failed_flushes > 1000 || p == 2);
                reopen_with_room(&s);
                check(&s);
                end(&s);
            }
}

// What the page cache forgot another sync does not bring back.
static void a_sync_that_finds_no_room_is_final(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    for (size_t c = 0; c < 2; c++) {
        struct scene s;
        struct rp_error err = {0};
        start(&s, seed);
        s.refused = "vhdx";
        s.syncs = true;
        s.waits = 1;
        assert_int_equal(run(&s, changes[c], &err), -1);
        assert_int_equal(s.waits, 1);
        crashfs_refuse(s.fs, NULL, false);
        assert_int_equal(rp_engine_flush(s.engine, 0, NULL), -1);
        rp_engine_close(s.engine, NULL);
        crashfs_restart(s.fs, true, &s.seed); // what dropping the page cache does
        s.engine = vm_open_shared(s.fs, VM_DIRECTORY, s.shm);
        check_ids(&s, &s.flushed);
        model_settle(&s.now, &s.flushed, s.engine, 0);
        check(&s);
        end(&s);
    }
}

// On a file system that copies on write, the region of a first write may find no room though its file has all of its size.
static void a_write_whose_region_finds_no_room_succeeds_when_there_is_some(void **state)
{
    (void)state;
    enum { BIG = 64 << 20 };
    const uint64_t cell = (40 << 20) / VM_CELL;
    struct rp_fs *fs = crashfs_new();
    struct model then, now;
    struct rp_rct_id id;
    struct rp_error err = {0};
    uint8_t sector[512] = {1};
    uint64_t seed = test_seed();
    told_full = told_lost = 0;
    vm_create(fs, VM_DIRECTORY, 1, BIG);
    struct rp_engine *engine = vm_open(fs, VM_DIRECTORY);
    model_new(&now, BIG);
    assert_int_equal(model_write(&now, engine, 0, 0, 10, 1), 0);
    assert_int_equal(vm_checkpoint(engine, &id, NULL), 0);
    model_copy(&then, &now);
    assert_int_equal(model_write(&now, engine, 0, 5, 10, 2), 0);
    crashfs_refuse(fs, ".mrt", false);
    assert_int_equal(rp_engine_write(engine, 0, sector, sizeof sector, cell * VM_CELL, false, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    assert_int_equal(rp_engine_zero(engine, 0, cell * VM_CELL, BIG - cell * VM_CELL, false, NULL), 0); // is zero, changes nothing
    assert_int_equal(model_write(&now, engine, 0, 7, 10, 3), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    assert_int_equal(told_full, 1);
    model_check(&now, engine, 0);
    crashfs_refuse(fs, NULL, false);
    assert_int_equal(model_write(&now, engine, 0, cell, 10, 4), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    assert_int_equal(told_lost, 0);
    rp_engine_abandon(engine);
    crashfs_restart(fs, true, &seed);
    engine = vm_open(fs, VM_DIRECTORY);
    model_check(&now, engine, 0);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_AUTO_FREE char *leaf = vm_leaf(engine, 0);
    assert_int_equal(rp_engine_changes(engine, leaf, &id, 0, BIG, &changed, NULL), 0);
    model_check_changes(&then, &now, &changed, false);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    model_free(&then);
    model_free(&now);
    crashfs_free(fs);
}

static void listen(enum rp_log_level level, const char *text)
{
    told_full += strstr(text, "is full") != NULL;
    told_lost += strstr(text, "nothing written from now on") != NULL;
    vm_listen(level, text);
}

int main(void)
{
    rp_log_set_sink(listen);
    rp_log_set_level(RP_LOG_INFO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_switch_waits_for_room_and_then_goes_on),
        cmocka_unit_test(a_switch_that_finds_no_room_for_good_is_finished_by_the_next_open),
        cmocka_unit_test(a_sync_that_finds_no_room_is_final),
        cmocka_unit_test(a_write_whose_region_finds_no_room_succeeds_when_there_is_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
