// A killed process loses nothing that it acknowledged: what its shared memory and the page cache hold is enough.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../stride.h"
#include "base/num.h"
#include "disk/vhdx.h"
#include "ledger.h"
#include "torn.h"

// ---- stopped at every call

// A session of some steps whose process stops after so many calls that change the file. False: it ended before.
static bool run_and_stop(struct rp_fs *fs, const char *path, struct rp_vhdx *parent, struct ledger *l, uint64_t seed,
                         unsigned long calls)
{
    struct rp_error why = {0};
    struct worker w = {.ledger = l, .random = seed, .threads = 1};
    w.disk = ledger_open_shared(fs, path, parent, NULL);
    torn_fs_stop_after(fs, calls);
    int failed = 0;
    for (int i = 0; i < 12 && !failed; i++) {
        failed = ledger_step(&w, &why);
        if (!failed && random_below(&w.random, 4) == 0 && !(failed = rp_vhdx_flush(w.disk, &why)))
            memcpy(l->flushed, l->stamps, sizeof l->stamps);
    }
    if (!failed)
        failed = rp_vhdx_freeze(w.disk, &why);
    rp_vhdx_abandon(w.disk);
    torn_fs_kill(fs);
    return failed;
}

static void nothing_is_lost_by_a_kill_at_any_call(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    static struct ledger l;
    for (int child = 0; child < 2; child++)
        for (unsigned long n = seed % STRIDE, stopped = true; stopped; n += STRIDE) {
            struct rp_fs *fs = torn_fs_new();
            struct rp_vhdx *parent = ledger_make(fs, child ? "p" : NULL, "d", &l);
            stopped = run_and_stop(fs, "d", parent, &l, seed, n);
            if (stopped) {
                must(ledger_adopt(fs, "d", &err));
                must(ledger_adopt(fs, "d", &err)); // again: it changes nothing
            }
            ledger_check_clean(fs, "d", parent, &l, seed);
            rp_vhdx_abandon(parent);
            torn_fs_free(fs);
            assert_true(stopped || n > 20);
        }
}

static void an_adoption_that_is_killed_at_any_call_is_done_again(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    static struct ledger l;
    for (int child = 0; child < 2; child++)
        for (unsigned long n = seed % STRIDE, stopped = true; stopped; n += STRIDE) {
            struct rp_fs *fs = torn_fs_new();
            struct rp_vhdx *parent = ledger_make(fs, child ? "p" : NULL, "d", &l);
            struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", parent, NULL), .random = seed, .threads = 1};
            for (int i = 0; i < 12; i++)
                must(ledger_step(&w, &err));
            rp_vhdx_abandon(w.disk);
            torn_fs_stop_after(fs, n);
            struct rp_error why = {0};
            stopped = ledger_adopt(fs, "d", &why) != 0;
            torn_fs_kill(fs);
            must(ledger_adopt(fs, "d", &err));
            torn_fs_cut(fs, &seed, 0); // what was adopted is durable
            rp_vhdx_abandon(parent);
            parent = child ? rp_vhdx_open(fs, "p", RP_VHDX_READ, NULL, &err) : NULL;
            ledger_check_clean(fs, "d", parent, &l, seed);
            rp_vhdx_abandon(parent);
            torn_fs_free(fs);
            assert_true(stopped || n > 5);
        }
}

static bool flushed_or_later(struct rp_vhdx *v, const struct ledger *l, uint64_t (*written)[64], const unsigned *count)
{
    static uint64_t words[DISK / 8];
    must(rp_vhdx_read(v, words, DISK, 0, &err));
    for (uint32_t s = 0; s < SECTORS; s++) {
        uint64_t found = words[(size_t)s * (SECTOR / 8)];
        bool ok = found == l->flushed[s] || found == l->stamps[s];
        for (unsigned i = 0; i < count[s] && !ok; i++)
            ok = found == written[s][i];
        if (!ok)
            return false;
    }
    return true;
}

static void a_power_cut_during_an_adoption_loses_nothing_that_was_flushed(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    static struct ledger l;
    static uint64_t written[SECTORS][64];
    static unsigned count[SECTORS];
    for (int child = 0; child < 2; child++)
        for (unsigned long n = random % STRIDE, stopped = true; stopped; n += STRIDE) {
            struct rp_fs *fs = torn_fs_new();
            struct rp_vhdx *parent = ledger_make(fs, child ? "p" : NULL, "d", &l);
            struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", parent, NULL), .random = n, .threads = 1};
            memset(count, 0, sizeof count);
            for (int i = 0; i < 24; i++) {
                must(ledger_step(&w, &err));
                for (uint32_t s = 0; s < SECTORS; s++)
                    if (l.stamps[s] != (count[s] ? written[s][count[s] - 1] : l.flushed[s]))
                        written[s][count[s]++] = l.stamps[s];
                if (i == 12) {
                    must(rp_vhdx_flush(w.disk, &err));
                    memcpy(l.flushed, l.stamps, sizeof l.stamps);
                    memset(count, 0, sizeof count);
                }
            }
            rp_vhdx_abandon(w.disk);
            torn_fs_stop_after(fs, n);
            struct rp_error why = {0};
            stopped = ledger_adopt(fs, "d", &why) != 0;
            torn_fs_cut(fs, &random, (unsigned)random_below(&random, 257));
            rp_vhdx_abandon(parent);
            parent = child ? rp_vhdx_open(fs, "p", RP_VHDX_READ, NULL, &err) : NULL;
            struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
            must(!v || (parent && rp_vhdx_set_parent(v, parent, &err)));
            assert_true(flushed_or_later(v, &l, written, count));
            rp_vhdx_abandon(v);
            rp_vhdx_abandon(parent);
            torn_fs_free(fs);
        }
}

// One sector written and flushed, and a clean end. *flushed is set once the flush was acknowledged.
static int short_session(struct rp_fs *fs, uint8_t stamp, bool *flushed)
{
    uint8_t sector[SECTOR];
    memset(sector, stamp, sizeof sector);
    struct rp_error why = {0};
    struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &why);
    int failed = !v || rp_vhdx_write(v, sector, sizeof sector, 0, &why) || rp_vhdx_flush(v, &why);
    *flushed |= !failed;
    failed = failed || rp_vhdx_freeze(v, &why);
    rp_vhdx_abandon(v);
    return failed;
}

// What a killed process wrote last is in the page cache only, but whoever opens the file next reads it there and goes on from it.
static void a_power_cut_soon_after_a_kill_leaves_a_disk(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    for (unsigned long n = random % STRIDE, killed = true; killed; n += STRIDE)
        for (unsigned long m = 0, stopped = true; stopped; m++)
            for (int i = 0; i < 4; i++) {
                static struct ledger l;
                struct rp_fs *fs = torn_fs_new();
                bool first = false, second = false;
                ledger_make(fs, NULL, "d", &l);
                torn_fs_stop_after(fs, n);
                killed = short_session(fs, 1, &first);
                torn_fs_kill(fs);
                torn_fs_stop_after(fs, m);
                stopped = short_session(fs, 2, &second);
                torn_fs_cut(fs, &random, 128);
                uint8_t found[SECTOR];
                struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_READ, NULL, &err);
                must(!v || rp_vhdx_read(v, found, sizeof found, 0, &err));
                assert_true(*found == 2 || (!second && (*found == 1 || !first)));
                rp_vhdx_abandon(v);
                torn_fs_free(fs);
            }
}

// A journal of two batches, above a log whose last entry still needs the one before it.
enum { WIDE_PAGES = 600, WIDE_STEP = 512 }; // of the table, with blocks of 1 MiB

struct wide {
    struct rp_fs *fs;
    struct rp_vhdx *disk;
    unsigned long changes; // of an adoption, after its first sync
    bool stopping;
};

// A block of each of so many pages of the table becomes zeros.
static void zero_pages(struct rp_vhdx *v, uint64_t first)
{
    for (uint64_t i = first; i < first + WIDE_PAGES; i++)
        must(rp_vhdx_zero(v, i * WIDE_STEP * BLOCK, BLOCK, NULL, &err));
}

static void change_more_and_stop(void *context)
{
    struct wide *w = context;
    zero_pages(w->disk, 3 * WIDE_PAGES);
    torn_fs_stop_after(w->fs, 0);
}

static void stop_soon(void *context)
{
    struct wide *w = context;
    if (!w->stopping)
        torn_fs_stop_after(w->fs, w->changes);
    w->stopping = true;
}

static int add_zeros(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    *(uint64_t *)context += state == RP_VHDX_ZERO ? length : 0;
    return 0;
}

static void a_power_cut_while_the_largest_journal_is_logged_leaves_a_valid_log(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    struct rp_vhdx_create create = {.size = 4 * WIDE_PAGES * WIDE_STEP * (uint64_t)BLOCK,
                                    .block_size = BLOCK,
                                    .logical_sector = 4096,
                                    .disk_id = rp_guid_new(),
                                    .parent_path = "p",
                                    .parent_data_write_guid = rp_guid_new()};
    for (unsigned long n = 0; n < 30; n++) {
        struct wide w = {.fs = torn_fs_new(), .changes = n % 6};
        must(rp_vhdx_create(w.fs, "d", &create, &err));
        struct rp_vhdx *v = w.disk = ledger_open_shared(w.fs, "d", NULL, NULL);
        for (uint64_t i = 0; i < 2; i++) {
            zero_pages(v, i * WIDE_PAGES);
            must(rp_vhdx_flush(v, &err));
        }
        static const uint8_t data[BLOCK];
        zero_pages(v, 2 * WIDE_PAGES);
        must(rp_vhdx_write(v, data, BLOCK, BLOCK, &err)); // its flush begins with a sync
        torn_fs_at_flush(w.fs, change_more_and_stop, &w);
        struct rp_error why = {0};
        assert_int_equal(rp_vhdx_flush(v, &why), -1);
        torn_fs_at_flush(w.fs, NULL, NULL);
        rp_vhdx_abandon(v);
        torn_fs_kill(w.fs);
        torn_fs_at_flush(w.fs, stop_soon, &w);
        why = (struct rp_error){0};
        assert_int_equal(ledger_adopt(w.fs, "d", &why), -1);
        torn_fs_at_flush(w.fs, NULL, NULL);
        torn_fs_cut(w.fs, &random, 32 + (unsigned)random_below(&random, 192));
        v = rp_vhdx_open(w.fs, "d", RP_VHDX_WRITE, NULL, &err);
        must(!v);
        uint64_t zeros = 0;
        must(rp_vhdx_extents(v, 0, 2 * WIDE_PAGES * WIDE_STEP * (uint64_t)BLOCK, add_zeros, &zeros, &err));
        assert_int_equal(zeros, 2 * WIDE_PAGES * (uint64_t)BLOCK);
        rp_vhdx_abandon(v);
        torn_fs_free(w.fs);
    }
}

// ---- what is not its own

static void a_file_that_somebody_else_wrote_is_left_alone(void **state)
{
    (void)state;
    static struct ledger l;
    struct rp_fs *fs = torn_fs_new();
    ledger_make(fs, NULL, "d", &l);
    struct rp_shm *empty = rp_shm_create(shm_folder, "disk", rp_vhdx_shm_size(), &err); // it died at once
    must(!empty || rp_vhdx_adopt(fs, "d", 0, empty, &err));
    rp_shm_close(empty);
    rp_vhdx_abandon(ledger_open_shared(fs, "d", NULL, NULL)); // it died before it wrote anything
    must(ledger_adopt(fs, "d", &err));
    struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", NULL, NULL), .random = 1, .threads = 1};
    must(ledger_change(&w, 1, 1, 7, false, &err));
    rp_vhdx_abandon(w.disk);
    struct rp_vhdx *other = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
    must(!other || rp_vhdx_close(other, &err)); // it replayed the log
    unsigned long calls = torn_fs_calls(fs);
    struct rp_error why = {0};
    assert_int_equal(ledger_adopt(fs, "d", &why), -1);
    assert_int_equal(why.code, RP_ERR_STATE);
    assert_true(torn_fs_calls(fs) < calls + 8); // it only looked
    torn_fs_free(fs);
}

static void a_file_that_was_put_back_to_an_earlier_moment_of_its_session_is_left_alone(void **state)
{
    (void)state;
    static struct ledger l;
    for (int child = 0; child < 2; child++) {
        struct rp_fs *fs = torn_fs_new();
        struct rp_vhdx *parent = ledger_make(fs, child ? "p" : NULL, "d", &l);
        struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", parent, NULL), .random = 1, .threads = 1};
        RP_CLEANUP(rp_buf_clear) struct rp_buf snapshot = {0};
        must(ledger_change(&w, 0, 1, 7, false, &err) || rp_vhdx_flush(w.disk, &err));
        must(rp_fs_read_file(fs, "d", 1 << 30, &snapshot, &err));
        struct ledger then = l;
        must(ledger_change(&w, BLOCK / SECTOR, 1, 8, false, &err) || rp_vhdx_flush(w.disk, &err));
        must(ledger_change(&w, 2 * BLOCK / SECTOR, 1, 9, false, &err));
        rp_vhdx_abandon(w.disk);
        struct rp_store *store = rp_fs_open(fs, "d", RP_OPEN_WRITE, &err);
        must(!store || rp_store_truncate(store, snapshot.size, &err) ||
             rp_store_pwrite(store, snapshot.data, snapshot.size, 0, &err));
        rp_store_close(store);
        struct rp_error why = {0};
        assert_int_equal(ledger_adopt(fs, "d", &why), -1);
        assert_int_equal(why.code, RP_ERR_STATE);
        struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
        must(!v || (parent && rp_vhdx_set_parent(v, parent, &err)));
        ledger_verify(v, &then, 1);
        rp_vhdx_abandon(v);
        rp_vhdx_abandon(parent);
        torn_fs_free(fs);
    }
}

static void a_session_that_ends_well_leaves_no_shared_memory(void **state)
{
    (void)state;
    static struct ledger l;
    struct rp_fs *fs = torn_fs_new();
    ledger_make(fs, NULL, "d", &l);
    for (int freeze = 0; freeze < 2; freeze++) {
        struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", NULL, NULL), .random = 1, .threads = 1};
        must(ledger_change(&w, 1, 1, 7, false, &err));
        if (freeze)
            must(rp_vhdx_freeze(w.disk, &err));
        else
            must(rp_vhdx_close(w.disk, &err));
        struct rp_error why = {0};
        assert_null(rp_shm_open(shm_folder, "disk", &why));
        assert_int_equal(why.code, RP_ERR_NOT_FOUND);
        if (freeze)
            rp_vhdx_abandon(w.disk);
    }
    torn_fs_free(fs);
}

static void the_session_that_is_adopted_keeps_its_guids(void **state)
{
    (void)state;
    static struct ledger l;
    struct rp_fs *fs = torn_fs_new();
    ledger_make(fs, NULL, "d", &l);
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", NULL, &session), .random = 1, .threads = 1};
    must(ledger_change(&w, 1, 1, 7, false, &err));
    rp_vhdx_abandon(w.disk);
    must(ledger_adopt(fs, "d", &err));
    struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_READ, NULL, &err);
    must(!v);
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->file_write_guid, &session.file_write_guid));
    assert_true(rp_guid_equal(&rp_vhdx_info(v)->data_write_guid, &session.data_write_guid));
    ledger_verify(v, &l, 0);
    rp_vhdx_abandon(v);
    torn_fs_free(fs);
}

static void growth_that_is_killed_loses_nothing(void **state)
{
    (void)state;
    enum { MORE = 4096 }; // blocks: the table must move
    static struct ledger l;
    for (unsigned long n = 0, stopped = true; stopped; n++) {
        struct rp_fs *fs = torn_fs_new();
        struct rp_vhdx_create create = {.size = 130000 * (uint64_t)BLOCK, .block_size = BLOCK};
        memset(&l, 0, sizeof l);
        must(rp_vhdx_create(fs, "d", &create, &err));
        struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", NULL, NULL), .random = n, .threads = 1};
        for (int i = 0; i < 6; i++)
            must(ledger_step(&w, &err));
        torn_fs_stop_after(fs, n);
        struct rp_error why = {0};
        stopped = rp_vhdx_grow(w.disk, create.size + MORE * (uint64_t)BLOCK, &why) != 0;
        torn_fs_kill(fs);
        for (int i = 0; i < 6 && !stopped; i++) {
            uint64_t stamp = next_random(&w.random);
            must(rp_vhdx_write(w.disk, &(uint64_t[64]){stamp}, SECTOR, create.size + (uint64_t)i * BLOCK, &err) ||
                 ledger_step(&w, &err));
        }
        rp_vhdx_abandon(w.disk);
        must(ledger_adopt(fs, "d", &err));
        struct rp_vhdx *v = rp_vhdx_open(fs, "d", RP_VHDX_WRITE, NULL, &err);
        must(!v);
        ledger_verify(v, &l, n);
        uint64_t size = rp_vhdx_info(v)->size, words[64];
        assert_true(size == create.size + MORE * (uint64_t)BLOCK || (stopped && size == create.size));
        if (!stopped) {
            must(rp_vhdx_read(v, words, SECTOR, create.size + 5 * BLOCK, &err));
            assert_true(words[0] != 0);
        }
        rp_vhdx_abandon(v);
        torn_fs_free(fs);
        assert_true(stopped || n > 5);
    }
}

static void write_more(void *argument)
{
    struct worker *w = argument;
    for (int i = 0; i < 4; i++) {
        uint32_t block = (uint32_t)random_below(&w->random, BLOCKS), per_block = BLOCK / SECTOR;
        if (i == 3)
            must(ledger_change(w, block * per_block, per_block, 0, true, &err));
        else
            must(ledger_change(w, block * per_block + 7, 3, next_random(&w->random) | 1, false, &err));
    }
}

static void what_is_written_during_a_flush_outlives_a_kill(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    static struct ledger l;
    for (int i = 0; i < 40; i++) {
        struct rp_fs *fs = torn_fs_new();
        struct rp_vhdx *parent = ledger_make(fs, i % 2 ? "p" : NULL, "d", &l);
        struct worker w = {.ledger = &l, .disk = ledger_open_shared(fs, "d", parent, NULL), .random = random, .threads = 1};
        uint64_t seed = random;
        for (int k = 0; k < 6; k++)
            must(ledger_change(&w, (uint32_t)random_below(&random, SECTORS), 1, next_random(&random) | 1, false, &err));
        struct worker other = {.ledger = &l, .disk = w.disk, .random = next_random(&random), .threads = 1};
        torn_fs_at_flush(fs, write_more, &other);
        must(rp_vhdx_flush(w.disk, &err));
        torn_fs_at_flush(fs, NULL, NULL);
        rp_vhdx_abandon(w.disk);
        must(ledger_adopt(fs, "d", &err));
        ledger_check_clean(fs, "d", parent, &l, seed);
        rp_vhdx_abandon(parent);
        torn_fs_free(fs);
    }
}

// ---- killed at any instruction

static void *work(void *argument)
{
    struct worker *w = argument;
    struct rp_error e = {0};
    atomic_fetch_add(&w->ledger->ready, 1);
    while (!ledger_step(w, &e))
        ;
    fprintf(stderr, "%s\n", e.text);
    _exit(1);
}

static void live_until_killed(const char *path, const char *parent_path, struct ledger *l, uint64_t seed)
{
    struct rp_fs *fs = rp_fs_posix();
    struct rp_vhdx *parent = parent_path ? rp_vhdx_open(fs, parent_path, RP_VHDX_READ, NULL, &err) : NULL;
    struct rp_vhdx *disk = ledger_open_shared(fs, path, parent, NULL);
    struct worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){l, disk, seed + i, i, THREADS};
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, &workers[i]))
            _exit(1);
    }
    alarm(30);
    for (;;)
        pause();
}

static void kill_rounds(struct ledger *l, const char *directory, bool child, int rounds)
{
    struct rp_fs *fs = rp_fs_posix();
    uint64_t random = test_seed();
    RP_AUTO_FREE char *parent_path = child ? rp_path_join(directory, "p") : NULL;
    RP_AUTO_FREE char *path = rp_path_join(directory, child ? "c" : "d");
    struct rp_vhdx *parent = ledger_make(fs, parent_path, path, l);
    for (int i = 0; i < rounds; i++) {
        uint64_t seed = next_random(&random);
        l->ready = 0;
        pid_t pid = fork();
        if (!pid)
            live_until_killed(path, parent_path, l, seed);
        for (int waited = 0; atomic_load(&l->ready) < THREADS && waited < 20000; waited++)
            usleep(500);
        usleep((useconds_t)random_below(&random, 20000));
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        must(ledger_adopt(fs, path, &err));
        ledger_check_clean(fs, path, parent, l, seed);
    }
    rp_vhdx_abandon(parent);
    unlink(path);
    if (parent_path)
        unlink(parent_path);
}

static void nothing_is_lost_by_sigkill_at_any_moment(void **state)
{
    (void)state;
    const char *text = getenv("RP_TEST_ROUNDS");
    struct ledger *l = mmap(NULL, sizeof *l, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(l != MAP_FAILED);
    for (int i = 0; i < 4; i++) {
        char on_disk[] = "/tmp/refpoint-adopt-XXXXXX", in_memory[] = "/dev/shm/refpoint-adopt-XXXXXX";
        char *directory = i / 2 ? on_disk : in_memory;
        assert_non_null(mkdtemp(directory));
        kill_rounds(l, directory, i % 2, text ? atoi(text) : i / 2 ? 6 : 20);
        rmdir(directory);
    }
    munmap(l, sizeof *l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_by_a_kill_at_any_call),
        cmocka_unit_test(an_adoption_that_is_killed_at_any_call_is_done_again),
        cmocka_unit_test(a_power_cut_soon_after_a_kill_leaves_a_disk),
        cmocka_unit_test(a_power_cut_during_an_adoption_loses_nothing_that_was_flushed),
        cmocka_unit_test(a_power_cut_while_the_largest_journal_is_logged_leaves_a_valid_log),
        cmocka_unit_test(a_file_that_somebody_else_wrote_is_left_alone),
        cmocka_unit_test(a_file_that_was_put_back_to_an_earlier_moment_of_its_session_is_left_alone),
        cmocka_unit_test(a_session_that_ends_well_leaves_no_shared_memory),
        cmocka_unit_test(the_session_that_is_adopted_keeps_its_guids),
        cmocka_unit_test(growth_that_is_killed_loses_nothing),
        cmocka_unit_test(what_is_written_during_a_flush_outlives_a_kill),
        cmocka_unit_test(nothing_is_lost_by_sigkill_at_any_moment),
    };
    return cmocka_run_group_tests(tests, ledger_make_folder, ledger_remove_folder);
}
