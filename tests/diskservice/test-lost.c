// A sync fails, of any file and in whatever it was needed for: what it lost no later sync brings back. So flushes fail from
// then on, and the engine that comes next, after a kill or an end, knows of it and takes what the disk has for the truth.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "crashfs.h"
#include "diskservice/chains.h"
#include "vm.h"

enum { SIZE = 6 << 20, LAYERS = 3 };
enum change { MERGE_LEAF, MERGE_MIDDLE, CHECKPOINT, GROW, BACKGROUND, CLOSE, CHANGES };

struct scene {
    struct rp_fs *fs;
    char *shm, *files[LAYERS]; // the last is the leaf
    struct rp_engine *engine;
    struct model then, now; // when the id was made; flushed
    struct rp_rct_id id;
};

static bool is_marked(const char *shm)
{
    RP_AUTO_FREE char *mark = rp_path_join(shm, "failed");
    return !access(mark, F_OK);
}

static void reopen(struct scene *s)
{
    s->engine = vm_open_shared(s->fs, VM_DIRECTORY, s->shm);
    vm_merge_by(s->engine, false);
}

static void start(struct scene *s)
{
    *s = (struct scene){.fs = crashfs_new(), .shm = vm_shm_new()};
    vm_create(s->fs, VM_DIRECTORY, 1, SIZE);
    model_new(&s->now, SIZE);
    reopen(s);
    model_layers(&s->now, &s->then, s->engine, s->files, LAYERS, &s->id);
    assert_int_equal(rp_engine_close(s->engine, NULL), 0);
    reopen(s);
    assert_int_equal(model_write(&s->now, s->engine, 0, 700, 300, 9), 0);
    assert_int_equal(rp_engine_flush(s->engine, 0, NULL), 0);
}

static void end(struct scene *s)
{
    assert_int_equal(rp_engine_close(s->engine, NULL), 0);
    for (size_t i = 0; i < LAYERS; i++)
        free(s->files[i]);
    model_free(&s->then);
    model_free(&s->now);
    vm_shm_remove(s->shm);
    free(s->shm);
    crashfs_free(s->fs);
}

static int close_engine(struct scene *s)
{
    struct rp_engine *engine = s->engine;
    s->engine = NULL;
    return rp_engine_close(engine, NULL);
}

static int make(struct scene *s, enum change change)
{
    switch (change) {
    case MERGE_LEAF: return vm_merge(s->engine, s->files[2], NULL);
    case MERGE_MIDDLE: return vm_merge(s->engine, s->files[1], NULL);
    case CHECKPOINT: return vm_checkpoint(s->engine, NULL, NULL);
    case GROW: return rp_engine_grow(s->engine, 0, 2 * SIZE, NULL);
    case BACKGROUND:
        rp_flusher_look(s->engine, rp_clock_monotonic_ns() + 60 * (uint64_t)1000000000);
        return rp_engine_flush(s->engine, 0, NULL);
    default: return close_engine(s);
    }
}

static void check(struct scene *s)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    model_check(&s->now, s->engine, 0);
    assert_int_equal(rp_engine_changes(s->engine, leaf, &s->id, 0, SIZE, &changed, NULL), 0);
    model_check_changes(&s->then, &s->now, &changed, false);
}

// Sync number `pass` of a file fails in a change, and all after it. False: there were not so many.
static bool lose_a_sync(enum change change, size_t file, const char *kind, unsigned pass, uint64_t *seed)
{
    struct scene s;
    start(&s);
    RP_AUTO_FREE char *path = rp_xasprintf("%s%s", s.files[file], kind);
    crashfs_lose(s.fs, path, pass);
    bool lost = make(&s, change) != 0;
    crashfs_lose(s.fs, NULL, 0);
    if (lost) {
        if (s.engine && !rp_engine_flush(s.engine, 0, NULL))
            fail_msg("change %d: sync %u of %s failed, and a flush says that all is durable", (int)change, pass, path);
        if (s.engine && pass % 2)
            rp_engine_abandon(s.engine);
        else if (s.engine)
            rp_engine_close(s.engine, NULL);
        if (!is_marked(s.shm))
            fail_msg("change %d: sync %u of %s failed, and nobody will know", (int)change, pass, path);
        crashfs_restart(s.fs, true, seed); // what dropping the page cache does
        reopen(&s);
        check(&s);
        assert_int_equal(make(&s, change), 0);
        rp_engine_abandon(s.engine);
        crashfs_restart(s.fs, true, seed);
        vm_shm_remove(s.shm);
        reopen(&s);
        check(&s);
    }
    if (!s.engine)
        reopen(&s);
    end(&s);
    return lost;
}

static void lose_every_sync(enum change first, enum change last, unsigned least)
{
    static const char *const kinds[] = {"", ".rct", ".mrt"};
    uint64_t seed = test_seed();
    for (enum change change = first; change <= last; change++) {
        unsigned lost = 0;
        for (size_t file = 0; file < LAYERS; file++)
            for (size_t kind = 0; kind < (file == LAYERS - 1 ? 3 : 2); kind++) // nobody relies on the .mrt of a frozen file
                for (unsigned pass = 0; lose_a_sync(change, file, kinds[kind], pass, &seed); pass++)
                    lost++;
        print_message("# %u lost syncs\n", lost);
        assert_true(lost >= least);
    }
}

static void a_failed_sync_of_a_merge_or_checkpoint_is_forgotten_neither_by_a_kill_nor_by_an_end(void **state)
{
    (void)state;
    lose_every_sync(MERGE_LEAF, CHECKPOINT, 8);
}

static void a_failed_sync_of_a_growth_is_not_forgotten(void **state)
{
    (void)state;
    lose_every_sync(GROW, GROW, 3);
}

static void a_failed_sync_in_the_background_is_not_forgotten(void **state)
{
    (void)state;
    lose_every_sync(BACKGROUND, BACKGROUND, 3);
}

static void a_failed_sync_of_a_clean_end_is_not_forgotten(void **state)
{
    (void)state;
    lose_every_sync(CLOSE, CLOSE, 4);
}

// The log is full: the write that needs room in it syncs.
static void a_failed_sync_inside_a_write_is_not_forgotten_by_a_kill(void **state)
{
    (void)state;
    enum { PAGES = 1100 };
    const uint64_t page = 512 << 20; // of the disk, in one page of its block table
    RP_AUTO_FREE char *shm = vm_shm_new();
    struct rp_fs *fs = crashfs_new();
    uint8_t sector[512] = {1};
    uint64_t seed = test_seed();
    vm_create(fs, VM_DIRECTORY, 1, PAGES * page);
    struct rp_engine *engine = vm_open_shared(fs, VM_DIRECTORY, shm);
    RP_AUTO_FREE char *leaf = vm_leaf(engine, 0);
    assert_int_equal(rp_engine_write(engine, 0, sector, sizeof sector, 0, true, NULL), 0);
    crashfs_lose(fs, leaf, 0);
    struct rp_error err = {0};
    uint64_t i = 1;
    while (i < PAGES && !rp_engine_write(engine, 0, sector, sizeof sector, i * page, false, &err))
        i++;
    crashfs_lose(fs, NULL, 0);
    assert_true(i < PAGES);
    assert_int_equal(err.code, RP_ERR_IO);
    rp_engine_abandon(engine);
    assert_true(is_marked(shm));
    crashfs_restart(fs, true, &seed);
    engine = vm_open_shared(fs, VM_DIRECTORY, shm);
    assert_int_equal(rp_engine_read(engine, 0, sector, sizeof sector, 0, NULL), 0);
    assert_int_equal(sector[0], 1);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    assert_false(is_marked(shm));
    vm_shm_remove(shm);
    crashfs_free(fs);
}

// The switch itself is durable, and its announcement outlives the kill: the next engine finishes it.
static void a_guest_that_flushes_after_the_record_of_a_checkpoint_was_lost_loses_nothing_by_a_kill(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    unsigned refused = 0;
    for (unsigned pass = 0, lost = 1; lost; pass++) {
        struct scene s;
        start(&s);
        RP_AUTO_FREE char *record = rp_path_join(VM_DIRECTORY, RP_RECORD_NAME);
        crashfs_lose(s.fs, record, pass);
        lost = make(&s, CHECKPOINT) != 0;
        if (lost) {
            assert_int_equal(model_write(&s.now, s.engine, 0, 1200, 50, 11), 0);
            refused += rp_engine_flush(s.engine, 0, NULL) != 0;
            assert_false(is_marked(s.shm));
        }
        crashfs_lose(s.fs, NULL, 0);
        rp_engine_abandon(s.engine);
        crashfs_restart(s.fs, false, &seed);
        reopen(&s);
        check(&s);
        end(&s);
    }
    assert_true(refused > 0);
}

// Sync number `pass` of a file of the leaf, or (`kind` NULL) of the record, fails when the next engine takes over from one that
// was killed. False: there were not so many.
static bool lose_a_sync_of_a_takeover(const char *kind, unsigned pass, uint64_t *seed)
{
    struct scene s;
    struct model flushed;
    struct rp_error err = {0};
    start(&s);
    model_copy(&flushed, &s.now);
    assert_int_equal(model_write(&s.now, s.engine, 0, 900, 400, 10), 0);
    rp_engine_abandon(s.engine);
    RP_AUTO_FREE char *path = kind ? rp_xasprintf("%s%s", s.files[LAYERS - 1], kind) : rp_path_join(VM_DIRECTORY, RP_RECORD_NAME);
    crashfs_lose(s.fs, path, pass);
    s.engine = rp_engine_open(s.fs, VM_DIRECTORY, s.shm, &err);
    crashfs_lose(s.fs, NULL, 0);
    bool lost = !s.engine;
    if (lost) {
        if (!is_marked(s.shm))
            fail_msg("sync %u of %s failed in a takeover, and nobody will know: %s", pass, path, err.text);
        crashfs_restart(s.fs, true, seed); // what dropping the page cache does
        reopen(&s);
        model_settle(&s.now, &flushed, s.engine, 0);
        check(&s);
    }
    end(&s);
    model_free(&flushed);
    return lost;
}

static void a_failed_sync_of_a_takeover_is_not_forgotten(void **state)
{
    (void)state;
    static const char *const kinds[] = {"", ".rct", ".mrt", NULL};
    uint64_t seed = test_seed();
    for (int kind = 0; kind < 4; kind++) {
        unsigned lost = 0;
        while (lose_a_sync_of_a_takeover(kinds[kind], lost, &seed))
            lost++;
        assert_true(lost);
    }
}

// ---- shared memory runs out. The linker leads this call here.

static bool no_disk_is_shared;
static unsigned shared_beside;

struct rp_shm *__real_rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err);
struct rp_shm *__wrap_rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err);
struct rp_shm *__wrap_rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err)
{
    if (no_disk_is_shared && strstr(name, ".vhdx")) {
        rp_fail(err, RP_ERR_NO_SPACE, "%s: no memory", name);
        return NULL;
    }
    shared_beside += no_disk_is_shared;
    return __real_rp_shm_create(directory, name, size, err);
}

// It would say that all of the child has arrived, of a disk that a kill left without it.
static void the_tracking_of_a_parent_is_shared_only_beside_its_disk(void **state)
{
    (void)state;
    struct scene s;
    start(&s);
    shared_beside = 0;
    no_disk_is_shared = true;
    assert_int_equal(make(&s, MERGE_LEAF), 0);
    no_disk_is_shared = false;
    assert_int_equal(shared_beside, 0);
    check(&s);
    end(&s);
}

int main(void)
{
    rp_log_set_sink(vm_listen);
    rp_log_set_level(RP_LOG_INFO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_sync_of_a_merge_or_checkpoint_is_forgotten_neither_by_a_kill_nor_by_an_end),
        cmocka_unit_test(a_failed_sync_of_a_growth_is_not_forgotten),
        cmocka_unit_test(a_failed_sync_in_the_background_is_not_forgotten),
        cmocka_unit_test(a_failed_sync_of_a_clean_end_is_not_forgotten),
        cmocka_unit_test(a_failed_sync_inside_a_write_is_not_forgotten_by_a_kill),
        cmocka_unit_test(a_guest_that_flushes_after_the_record_of_a_checkpoint_was_lost_loses_nothing_by_a_kill),
        cmocka_unit_test(a_failed_sync_of_a_takeover_is_not_forgotten),
        cmocka_unit_test(the_tracking_of_a_parent_is_shared_only_beside_its_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
