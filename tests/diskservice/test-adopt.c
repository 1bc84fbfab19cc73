// A disk service that is killed, and the next one that is killed or loses its power at any call while it takes over. A
// mere kill loses nothing that was acknowledged; whatever else happens, what was flushed is there and ids miss nothing.
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

enum { SIZE = 6 << 20, ZONES = 16, ZONE = SIZE / VM_CELL / ZONES };

struct scene {
    struct rp_fs *fs;
    char *shm, *leaf;
    struct rp_engine *engine;
    struct model then, flushed, now; // when the id was made; covered by a flush; acknowledged
    struct rp_rct_id id;
    uint64_t seed;
    unsigned writes;
    unsigned long first_call; // after the switch
    bool refused;             // a request of the guest failed: nobody can say what it did
};

static void start(struct scene *s, uint64_t seed)
{
    *s = (struct scene){.fs = crashfs_new(), .shm = vm_shm_new(), .seed = seed};
    vm_create(s->fs, VM_DIRECTORY, 1, SIZE);
    assert_int_equal(rp_engine_close(vm_open_shared(s->fs, VM_DIRECTORY, s->shm), NULL), 0); // tracking has begun
    s->engine = vm_open_shared(s->fs, VM_DIRECTORY, s->shm);
    vm_merge_by(s->engine, false);
    model_new(&s->now, SIZE);
    assert_int_equal(model_change_some(&s->now, s->engine, 0, 8, &s->seed), 0);
    assert_int_equal(vm_checkpoint(s->engine, &s->id, NULL), 0);
    model_copy(&s->then, &s->now);
    assert_int_equal(model_change_some(&s->now, s->engine, 0, 8, &s->seed), 0);
    assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
    model_copy(&s->flushed, &s->now);
    s->leaf = vm_leaf(s->engine, 0);
}

static void end(struct scene *s)
{
    assert_int_equal(rp_engine_close(s->engine, NULL), 0);
    model_free(&s->then);
    model_free(&s->flushed);
    model_free(&s->now);
    vm_shm_remove(s->shm);
    free(s->shm);
    free(s->leaf);
    crashfs_free(s->fs);
}

static void kill_engine(struct scene *s, bool power_cut)
{
    rp_engine_abandon(s->engine);
    crashfs_restart(s->fs, power_cut, &s->seed);
    // The calls that never came looked like failed syncs to the engine, which was not really dead.
    RP_AUTO_FREE char *failed = rp_path_join(s->shm, "failed");
    unlink(failed);
    if (power_cut)
        vm_shm_remove(s->shm);
}

// No cell twice between two flushes: it is old or new afterwards.
static void write_zone(struct scene *s)
{
    uint64_t count = 1 + test_random(&s->seed) % (ZONE - 1);
    uint32_t value = 1 + (uint32_t)test_random(&s->seed) % 1000000;
    s->refused |= model_write(&s->now, s->engine, 0, s->writes++ % ZONES * ZONE, count, value) != 0;
}

// Opens the disks, killed at call `stop` or with the power cut there. False when it was not, for want of so many calls.
static bool stop_takeover(struct scene *s, unsigned long stop, bool power_cut)
{
    crashfs_arm(s->fs, stop);
    s->engine = rp_engine_open(s->fs, VM_DIRECTORY, s->shm, NULL);
    bool stopped = crashfs_stopped(s->fs);
    kill_engine(s, power_cut);
    s->engine = vm_open_shared(s->fs, VM_DIRECTORY, s->shm);
    return stopped;
}

static void check(struct scene *s, bool power_cut)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    struct rp_error err = {0};
    // before anything is written again
    if (rp_engine_changes(s->engine, leaf, &s->id, 0, SIZE, &changed, &err))
        fail_msg("%s", err.text);
    model_check_changes(&s->then, power_cut ? &s->flushed : &s->now, &changed, false);
    if (power_cut)
        model_settle(&s->now, &s->flushed, s->engine, 0);
    model_check(&s->now, s->engine, 0);
    vm_no_leftovers(s->engine, s->fs, VM_DIRECTORY);
}

static void a_takeover_of_unflushed_writes_stopped_at_any_call(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    unsigned long stop = 1;
    for (bool more = true; more; stop++) {
        bool power_cut = stop % 4 != 0;
        struct scene s;
        start(&s, seed += 2);
        for (int i = 0; i < 10; i++)
            write_zone(&s);
        assert_false(s.refused);
        kill_engine(&s, false);
        more = stop_takeover(&s, stop, power_cut);
        check(&s, power_cut);
        end(&s);
    }
    assert_true(stop > 20);
}

static void ask(struct scene *s, struct rp_ranges *changed)
{
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    struct rp_error err = {0};
    if (rp_engine_changes(s->engine, leaf, &s->id, 0, SIZE, changed, &err))
        fail_msg("%s", err.text);
}

static void a_kill_anywhere_in_a_merge_leaves_ids_exact(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    bool stopped = true;
    unsigned long stop = 1;
    for (; stopped; stop++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges before = {0}, after = {0};
        struct scene s;
        start(&s, seed += 2);
        ask(&s, &before);
        crashfs_arm(s.fs, stop);
        vm_merge(s.engine, s.leaf, NULL);
        stopped = crashfs_stopped(s.fs);
        kill_engine(&s, false);
        s.engine = vm_open_shared(s.fs, VM_DIRECTORY, s.shm);
        ask(&s, &after);
        if (after.count != before.count || memcmp(after.items, before.items, before.count * sizeof *before.items))
            fail_msg("killed at call %lu: %llu bytes changed, not %llu", stop, (unsigned long long)rp_ranges_total(&after),
                     (unsigned long long)rp_ranges_total(&before));
        check(&s, false);
        end(&s);
    }
    assert_true(stop > 50);
}

// ---- a kill after the guest was switched to another leaf. The linker leads these calls of the engine here.

static struct scene *guest; // it writes and flushes before every pause, and writes after a switch

uint64_t __real_rp_engine_pause(struct rp_engine *engine);
uint64_t __wrap_rp_engine_pause(struct rp_engine *engine);
uint64_t __wrap_rp_engine_pause(struct rp_engine *engine)
{
    if (guest) {
        write_zone(guest);
        if (rp_engine_flush(engine, 0, NULL)) {
            guest->refused = true;
        } else {
            model_free(&guest->flushed);
            model_copy(&guest->flushed, &guest->now);
        }
    }
    return __real_rp_engine_pause(engine);
}
void __real_rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk);
void __wrap_rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk);
void __wrap_rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk)
{
    __real_rp_engine_publish(engine, disk);
    if (guest) {
        write_zone(guest);
        guest->first_call = crashfs_calls(guest->fs) + 1;
    }
}

static int merge(struct scene *s) { return vm_merge(s->engine, s->leaf, NULL); }
static int checkpoint(struct scene *s) { return vm_checkpoint(s->engine, NULL, NULL); }

// Whether the service was killed between the switch and the record.
static bool kill_after_switch(struct scene *s, int (*change)(struct scene *), unsigned long stop)
{
    crashfs_arm(s->fs, stop);
    guest = s;
    int failed = change(s);
    guest = NULL;
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    bool between = failed && !s->refused && strcmp(leaf, s->leaf);
    kill_engine(s, false);
    return between;
}

static void stop_after_switch(int (*change)(struct scene *))
{
    uint64_t seed = test_seed();
    unsigned kills = 0, cuts = 0, random = 0;
    bool more = true;
    // which call it is, the first run tells
    struct scene s;
    start(&s, seed);
    assert_false(kill_after_switch(&s, change, 0));
    unsigned long stop = s.first_call;
    assert_true(stop > 20);
    s.engine = vm_open_shared(s.fs, VM_DIRECTORY, s.shm);
    check(&s, false);
    end(&s);
    for (bool between = true; between; stop++, more = true)
        for (unsigned long then = 1 + seed / 7 % 3; more && between; then += 1 + random++ % 4) {
            bool power_cut = random % 3 != 0;
            start(&s, seed);
            between = kill_after_switch(&s, change, stop);
            more = stop_takeover(&s, then, power_cut);
            if (between)
                check(&s, power_cut);
            kills += between && then < 4;
            cuts += between && more && power_cut;
            end(&s);
        }
    print_message("# killed at %u calls, the power cut in %u takeovers\n", kills, cuts);
    assert_true(kills >= 4 && cuts >= 50);
}

static void a_takeover_of_a_merge_that_had_switched_stopped_at_any_call(void **state)
{
    (void)state;
    stop_after_switch(merge);
}

static void a_takeover_of_a_checkpoint_that_had_switched_stopped_at_any_call(void **state)
{
    (void)state;
    stop_after_switch(checkpoint);
}

int main(void)
{
    rp_log_set_sink(vm_listen);
    rp_log_set_level(RP_LOG_INFO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_takeover_of_unflushed_writes_stopped_at_any_call),
        cmocka_unit_test(a_kill_anywhere_in_a_merge_leaves_ids_exact),
        cmocka_unit_test(a_takeover_of_a_merge_that_had_switched_stopped_at_any_call),
        cmocka_unit_test(a_takeover_of_a_checkpoint_that_had_switched_stopped_at_any_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
