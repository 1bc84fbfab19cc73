// Several threads on one disk: writes, zeros, trims, reads and flushes side by side.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "disk/vhdx.h"
#include "io/memory.h"
#include "limited.h"
#include "torn.h"

enum { THREADS = 4, DISK = 16 << 20, BLOCK = 1 << 20, SECTOR = 512, SECTORS = DISK / SECTOR };

static struct rp_vhdx *disk;
static atomic_bool done;
static atomic_int failures;

struct worker {
    pthread_t thread;
    unsigned number;
    uint64_t random;
    uint64_t stamps[SECTORS]; // of its own sectors: those whose number modulo THREADS is the worker's
};

static void check(int failed, struct rp_error *err)
{
    if (failed) {
        fprintf(stderr, "%s\n", err->text);
        failures++;
    }
}

// Each worker has every fourth sector for itself, so all of them meet in every block; only worker 0 trims and zeroes,
// in the upper half that only it writes to.
static bool mine(const struct worker *w, unsigned sector)
{
    return sector >= SECTORS / 2 ? w->number == 0 : sector % THREADS == w->number;
}

static void *run(void *argument)
{
    struct worker *w = argument;
    struct rp_error err = {0};
    for (int i = 0; i < 1500; i++) {
        unsigned sector = (unsigned)random_below(&w->random, SECTORS);
        while (!mine(w, sector))
            sector = (sector + 1) % SECTORS;
        uint64_t words[SECTOR / 8], stamp = next_random(&w->random) | 1;
        unsigned verb = (unsigned)random_below(&w->random, 16);
        if (verb == 0) {
            check(rp_vhdx_flush(disk, &err), &err);
        } else if (verb < 4) {
            check(rp_vhdx_read(disk, words, SECTOR, (uint64_t)sector * SECTOR, &err), &err);
            if (words[0] != w->stamps[sector] || words[SECTOR / 8 - 1] != w->stamps[sector])
                check(rp_fail(&err, RP_ERR_CORRUPT, "sector %u: not what this thread wrote", sector), &err);
        } else if (verb < 6 && w->number == 0) {
            unsigned first = SECTORS / 2 + (unsigned)random_below(&w->random, 8) * (BLOCK / SECTOR);
            check((verb == 4 ? rp_vhdx_trim : rp_vhdx_zero)(disk, (uint64_t)first * SECTOR, BLOCK, NULL, &err), &err);
            memset(w->stamps + first, 0, BLOCK / SECTOR * sizeof *w->stamps);
        } else {
            for (unsigned k = 0; k < SECTOR / 8; k++)
                words[k] = stamp;
            check(rp_vhdx_write(disk, words, SECTOR, (uint64_t)sector * SECTOR, &err), &err);
            w->stamps[sector] = stamp;
        }
    }
    return NULL;
}

static int pass(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)context, (void)offset, (void)length, (void)state;
    return 0;
}

static void *read_everything(void *argument)
{
    (void)argument;
    uint8_t *buffer = malloc(BLOCK);
    struct rp_error err = {0};
    while (!atomic_load(&done)) {
        for (uint64_t at = 0; at < DISK; at += BLOCK)
            check(rp_vhdx_read(disk, buffer, BLOCK, at, &err), &err);
        check(rp_vhdx_chain_extents(disk, 0, DISK, pass, NULL, &err), &err);
    }
    free(buffer);
    return NULL;
}

// `folder`: with what a killed process leaves there, and adopted instead of closed.
static void run_threads(struct rp_fs *fs, struct rp_vhdx *parent, const char *path, const char *folder)
{
    struct rp_error err = {0};
    uint64_t seed = test_seed();
    disk = rp_vhdx_open(fs, path, RP_VHDX_WRITE, NULL, &err);
    check(!disk || (parent && rp_vhdx_set_parent(disk, parent, &err)), &err);
    struct rp_shm *shm = folder ? rp_shm_create(folder, "disk", rp_vhdx_shm_size(), &err) : NULL;
    check(folder && (!shm || rp_vhdx_share(disk, shm, &err)), &err);
    struct worker *workers = calloc(THREADS, sizeof *workers);
    pthread_t reader;
    atomic_store(&done, false);
    pthread_create(&reader, NULL, read_everything, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].number = i;
        workers[i].random = seed + i;
        for (unsigned s = 0; parent && s < SECTORS; s++)
            workers[i].stamps[s] = 0x7777777777777777;
        pthread_create(&workers[i].thread, NULL, run, &workers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    atomic_store(&done, true);
    pthread_join(reader, NULL);
    if (folder) {
        rp_vhdx_abandon(disk);
        shm = rp_shm_open(folder, "disk", &err);
        check(!shm || rp_vhdx_adopt(fs, path, 0, shm, &err), &err);
        rp_shm_remove(shm);
    } else {
        check(rp_vhdx_close(disk, &err), &err);
    }
    disk = rp_vhdx_open(fs, path, RP_VHDX_READ, NULL, &err);
    check(!disk || (parent && rp_vhdx_set_parent(disk, parent, &err)), &err);
    for (unsigned s = 0; s < SECTORS; s++) {
        uint64_t words[SECTOR / 8];
        check(rp_vhdx_read(disk, words, SECTOR, (uint64_t)s * SECTOR, &err), &err);
        for (unsigned i = 0; i < THREADS; i++)
            if (mine(&workers[i], s))
                assert_int_equal(words[0], workers[i].stamps[s]);
    }
    rp_vhdx_abandon(disk);
    free(workers);
    assert_int_equal(atomic_load(&failures), 0);
}

static void threads_share_a_dynamic_disk(void **state)
{
    (void)state;
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_error err = {0};
    check(rp_vhdx_create(fs, "d", &(struct rp_vhdx_create){.size = DISK, .block_size = BLOCK}, &err), &err);
    run_threads(fs, NULL, "d", NULL);
    rp_fs_memory_free(fs);
}

static void share_a_differencing_disk(const char *folder)
{
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_error err = {0};
    struct rp_vhdx_create create = {.size = DISK, .block_size = BLOCK, .disk_id = rp_guid_new()};
    check(rp_vhdx_create(fs, "p", &create, &err), &err);
    struct rp_vhdx *parent = rp_vhdx_open(fs, "p", RP_VHDX_WRITE, NULL, &err);
    uint8_t *data = malloc(DISK);
    memset(data, 0x77, DISK);
    check(rp_vhdx_write(parent, data, DISK, 0, &err) || rp_vhdx_freeze(parent, &err), &err);
    free(data);
    create.parent_path = "p";
    create.parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid;
    check(rp_vhdx_create(fs, "c", &create, &err), &err);
    run_threads(fs, parent, "c", folder);
    rp_vhdx_abandon(parent);
    rp_fs_memory_free(fs);
}

static void threads_share_a_differencing_disk(void **state)
{
    (void)state;
    share_a_differencing_disk(NULL);
}

static void what_threads_wrote_outlives_their_process(void **state)
{
    (void)state;
    char folder[] = "/dev/shm/refpoint-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    share_a_differencing_disk(folder);
    rp_shm_clean(folder);
}

// ---- a table that moves under everybody's feet

static void *write_all_over(void *argument)
{
    struct worker *w = argument;
    struct rp_error err = {0};
    uint64_t words[SECTOR / 8];
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t block = w->number + THREADS * random_below(&w->random, 2000);
        for (unsigned k = 0; k < SECTOR / 8; k++)
            words[k] = block + 1;
        check(rp_vhdx_write(disk, words, SECTOR, block * BLOCK, &err), &err);
        check(rp_vhdx_read(disk, words, SECTOR, block * BLOCK, &err), &err);
        if (words[0] != block + 1)
            check(rp_fail(&err, RP_ERR_CORRUPT, "block %llu: not what was written", (unsigned long long)block), &err);
    }
    return NULL;
}

static void a_disk_grows_while_threads_use_it(void **state)
{
    (void)state;
    struct rp_fs *fs = rp_fs_memory_new();
    struct rp_error err = {0};
    uint64_t size = 130000 * (uint64_t)BLOCK, seed = test_seed();
    check(rp_vhdx_create(fs, "d", &(struct rp_vhdx_create){.size = size, .block_size = BLOCK}, &err), &err);
    disk = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
    check(!disk, &err);
    struct worker *workers = calloc(THREADS, sizeof *workers);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].number = i;
        workers[i].random = seed + i;
        pthread_create(&workers[i].thread, NULL, write_all_over, &workers[i]);
    }
    for (int i = 0; i < 6; i++)
        check(rp_vhdx_grow(disk, size += 130000 * (uint64_t)BLOCK, &err), &err);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    check(rp_vhdx_close(disk, &err), &err);
    disk = rp_vhdx_open(fs, "d", RP_VHDX_READ, NULL, &err);
    check(!disk, &err);
    for (uint64_t block = 0; block < THREADS * 2000; block++) {
        uint64_t words[SECTOR / 8];
        check(rp_vhdx_read(disk, words, SECTOR, block * BLOCK, &err), &err);
        assert_true(words[0] == 0 || words[0] == block + 1);
    }
    rp_vhdx_abandon(disk);
    free(workers);
    rp_fs_memory_free(fs);
    assert_int_equal(atomic_load(&failures), 0);
}

// A disk with a sector that is not flushed yet.
static struct rp_fs *open_written(void)
{
    struct rp_error err = {0};
    struct rp_fs *fs = torn_fs_new();
    struct rp_vhdx_create create = {.size = DISK, .block_size = BLOCK};
    assert_int_equal(rp_vhdx_create(fs, "disk", &create, &err), 0);
    disk = rp_vhdx_open(fs, "disk", RP_VHDX_WRITE, NULL, &err);
    assert_non_null(disk);
    assert_int_equal(rp_vhdx_write(disk, (uint8_t[SECTOR]){1}, SECTOR, 0, &err), 0);
    return fs;
}

static void *grow_less(void *argument)
{
    struct rp_error err = {0};
    rp_vhdx_grow(argument, 2 * (uint64_t)DISK, &err); // succeeds or is refused
    return NULL;
}

static pthread_t other;

static void start_other(void *context)
{
    if (!atomic_exchange(&done, true) && !pthread_create(&other, NULL, grow_less, context))
        usleep(3000); // it saw the old size
}

static void a_disk_that_two_threads_grow_never_shrinks(void **state)
{
    (void)state;
    for (int i = 0; i < 16; i++) {
        struct rp_error err = {0};
        struct rp_fs *fs = open_written(); // growing begins with a sync
        atomic_store(&done, false);
        torn_fs_at_flush(fs, start_other, disk);
        assert_int_equal(rp_vhdx_grow(disk, 4 * (uint64_t)DISK, &err), 0);
        pthread_join(other, NULL);
        torn_fs_at_flush(fs, NULL, NULL);
        assert_int_equal(rp_vhdx_info(disk)->size, 4 * (uint64_t)DISK);
        assert_int_equal(rp_vhdx_close(disk, &err), 0);
        torn_fs_free(fs);
    }
}

// ---- growth among writers who never leave a moment without one of them

static struct overlap {
    atomic_uint begun, ended;
    atomic_bool grown;
} overlap;

// Inside a write that takes a block: goes on when the next one is inside, or was kept out.
static enum rp_code overlap_writes(void *context, enum call call, uint64_t offset, uint64_t length)
{
    struct overlap *o = context;
    (void)offset;
    if (call != CALL_WRITE || length != SECTOR)
        return RP_OK;
    unsigned mine = ++o->begun;
    for (int i = 0; i < 1000 && atomic_load(&o->begun) == mine; i++)
        usleep(100);
    return RP_OK;
}

enum { ALLOCATIONS = 20000 }; // they end when the disk has grown

static void *allocate(void *argument)
{
    struct rp_error err = {0};
    uint64_t *next = argument;
    for (unsigned i = 0; i < ALLOCATIONS && !atomic_load(&overlap.grown); i++, *next += 2)
        check(rp_vhdx_write(disk, (uint8_t[SECTOR]){1}, SECTOR, *next * BLOCK, &err), &err);
    atomic_fetch_add(&overlap.ended, 1);
    return NULL;
}

static void growth_waits_for_those_who_came_before_it_only(void **state)
{
    (void)state;
    struct rp_fs *fs = limited_fs_new();
    struct rp_error err = {0};
    struct rp_vhdx_create create = {.size = 2 * ALLOCATIONS * (uint64_t)BLOCK, .block_size = BLOCK};
    check(rp_vhdx_create(fs, "d", &create, &err), &err);
    disk = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
    check(!disk, &err);
    limited_fs_watch(fs, overlap_writes, &overlap);
    pthread_t threads[2];
    uint64_t next[2] = {0, 1};
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, allocate, &next[i]);
    while (atomic_load(&overlap.begun) < 10)
        usleep(100);
    check(rp_vhdx_grow(disk, 2 * create.size, &err), &err);
    unsigned ended = atomic_load(&overlap.ended);
    atomic_store(&overlap.grown, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    limited_fs_watch(fs, NULL, NULL);
    assert_int_equal(ended, 0);
    check(rp_vhdx_close(disk, &err), &err);
    limited_fs_free(fs);
    assert_int_equal(atomic_load(&failures), 0);
}

// ---- a flush that a freeze overtakes

static void *flush(void *argument)
{
    struct rp_error err = {0};
    check(rp_vhdx_flush(argument, &err), &err);
    return NULL;
}

static unsigned syncs_left;

static void start_flush(void *context)
{
    if (!syncs_left-- && !pthread_create(&other, NULL, flush, context))
        usleep(3000); // it waits
}

static void a_flush_that_a_freeze_overtakes_has_nothing_left_to_do(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 32; i++) {
        struct rp_error err = {0};
        struct rp_fs *fs = open_written();
        syncs_left = i % 4;
        torn_fs_at_flush(fs, start_flush, disk);
        assert_int_equal(rp_vhdx_freeze(disk, &err), 0);
        pthread_join(other, NULL);
        torn_fs_at_flush(fs, NULL, NULL);
        rp_vhdx_abandon(disk);
        torn_fs_free(fs);
    }
    assert_int_equal(atomic_load(&failures), 0);
}

static void *put_back(void *store)
{
    struct rp_error err = {0};
    usleep(60000);
    check(rp_store_pwrite(store, "vhdxfile", 8, 0, &err), &err);
    return NULL;
}

// A file is read while somebody changes it: here its first bytes are not there for a moment.
static void a_look_at_a_file_that_is_changed_at_this_moment_sees_no_damage(void **state)
{
    (void)state;
    struct rp_error err = {0};
    pthread_t thread;
    struct rp_fs *fs = rp_fs_memory_new();
    assert_int_equal(rp_vhdx_create(fs, "d", &(struct rp_vhdx_create){.size = DISK, .block_size = BLOCK}, &err), 0);
    struct rp_store *store = rp_fs_open(fs, "d", RP_OPEN_WRITE, &err);
    assert_int_equal(rp_store_pwrite(store, "somewhat", 8, 0, &err), 0);
    assert_null(rp_vhdx_look(fs, "d", &err));
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    assert_int_equal(pthread_create(&thread, NULL, put_back, store), 0);
    rp_error_clear(&err);
    struct rp_vhdx *vhdx = rp_vhdx_look(fs, "d", &err);
    if (!vhdx)
        fail_msg("%s", err.text);
    assert_int_equal(rp_vhdx_info(vhdx)->size, DISK);
    rp_vhdx_abandon(vhdx);
    pthread_join(thread, NULL);
    rp_store_close(store);
    rp_fs_memory_free(fs);
    assert_int_equal(atomic_load(&failures), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_a_dynamic_disk),
        cmocka_unit_test(threads_share_a_differencing_disk),
        cmocka_unit_test(what_threads_wrote_outlives_their_process),
        cmocka_unit_test(a_disk_grows_while_threads_use_it),
        cmocka_unit_test(a_disk_that_two_threads_grow_never_shrinks),
        cmocka_unit_test(growth_waits_for_those_who_came_before_it_only),
        cmocka_unit_test(a_flush_that_a_freeze_overtakes_has_nothing_left_to_do),
        cmocka_unit_test(a_look_at_a_file_that_is_changed_at_this_moment_sees_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
