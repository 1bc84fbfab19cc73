// File space: what is freed goes back to the host, and nobody's late I/O ever meets somebody else's data there. The log
// that keeps it all right is used to its limits.
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/num.h"
#include "disk/format.h"
#include "disk/vhdx.h"
#include "limited.h"
#include "torn.h"

enum { BLOCK = 1 << 20 };

static struct rp_error err;
static uint8_t buffer[4 * BLOCK];

static void must(int failed)
{
    if (failed)
        fail_msg("%s", err.text);
}

static struct rp_vhdx *create(struct rp_fs *fs, const char *path, uint64_t size)
{
    must(rp_vhdx_create(fs, path, &(struct rp_vhdx_create){.size = size, .block_size = BLOCK}, &err));
    struct rp_vhdx *v = rp_vhdx_open(fs, path, RP_VHDX_WRITE, NULL, &err);
    must(!v);
    return v;
}

static void write_block(struct rp_vhdx *v, uint64_t block, int byte)
{
    memset(buffer, byte, BLOCK);
    must(rp_vhdx_write(v, buffer, BLOCK, block * BLOCK, &err));
}

static void check_block(struct rp_vhdx *v, uint64_t block, int byte)
{
    static uint8_t found[BLOCK];
    must(rp_vhdx_read(v, found, BLOCK, block * BLOCK, &err));
    assert_int_equal(found[0], byte);
    assert_memory_equal(found, found + 1, BLOCK - 1);
}

// ---- what is freed

static uint64_t blocks_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void trimmed_space_goes_back_to_the_host_at_the_flush(void **state)
{
    (void)state;
    char directory[] = "/tmp/refpoint-space-XXXXXX";
    assert_non_null(mkdtemp(directory));
    RP_AUTO_FREE char *path = rp_path_join(directory, "d");
    struct rp_vhdx *v = create(rp_fs_posix(), path, 64 * BLOCK);
    for (uint64_t i = 0; i < 32; i++)
        write_block(v, i, 7);
    must(rp_vhdx_flush(v, &err));
    uint64_t before = blocks_of(path);
    assert_true(before >= 32 * BLOCK);
    must(rp_vhdx_trim(v, 0, 12 * BLOCK, NULL, &err) || rp_vhdx_zero(v, 12 * BLOCK, 12 * BLOCK, NULL, &err));
    must(rp_vhdx_flush(v, &err));
    assert_true(blocks_of(path) <= before - 24 * BLOCK + 64 * 1024);
    must(rp_vhdx_trim(v, 28 * BLOCK, 4 * BLOCK, NULL, &err) || rp_vhdx_flush(v, &err)); // the end of the file
    write_block(v, 0, 9); // where there was a block before
    must(rp_vhdx_close(v, &err));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_size <= (11 + 28) * (uint64_t)BLOCK);
    assert_true((uint64_t)st.st_blocks * 512 <= (5 + 2) * (uint64_t)BLOCK); // neither the log's space is kept
    v = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_READ, NULL, &err);
    must(!v);
    for (uint64_t i = 0; i < 32; i++)
        check_block(v, i, i == 0 ? 9 : i >= 24 && i < 28 ? 7 : 0);
    rp_vhdx_abandon(v);
    unlink(path);
    rmdir(directory);
}

// A reader who has found his block and is on his way to it.
struct late {
    struct rp_vhdx *v;
    pthread_t reader_thread;
    atomic_bool inside, go_on, punched, flushed;
    uint8_t found[512];
};

static enum rp_code watch_late(void *context, enum call call, uint64_t offset, uint64_t length)
{
    struct late *l = context;
    (void)offset;
    if (call == CALL_READ && length == sizeof l->found) {
        atomic_store(&l->inside, true);
        for (int i = 0; i < 20000 && !atomic_load(&l->go_on); i++)
            usleep(500);
    }
    if (call == CALL_PUNCH)
        atomic_store(&l->punched, true);
    return RP_OK;
}

static void *read_late(void *context)
{
    struct late *l = context;
    return rp_vhdx_read(l->v, l->found, sizeof l->found, 0, NULL) ? NULL : l;
}

static void *flush_twice(void *context)
{
    struct late *l = context;
    int failed = rp_vhdx_flush(l->v, NULL) || rp_vhdx_flush(l->v, NULL);
    atomic_store(&l->flushed, true);
    return failed ? NULL : l;
}

static void freed_space_waits_for_those_who_still_read_it(void **state)
{
    (void)state;
    struct rp_fs *fs = limited_fs_new();
    struct late l = {.v = create(fs, "d", 8 * BLOCK)};
    write_block(l.v, 0, 1);
    must(rp_vhdx_flush(l.v, &err));
    limited_fs_watch(fs, watch_late, &l);
    pthread_t reader, flusher;
    assert_int_equal(pthread_create(&reader, NULL, read_late, &l), 0);
    while (!atomic_load(&l.inside))
        usleep(500);
    must(rp_vhdx_trim(l.v, 0, BLOCK, NULL, &err));
    assert_int_equal(pthread_create(&flusher, NULL, flush_twice, &l), 0);
    usleep(100000);
    assert_false(atomic_load(&l.punched));
    write_block(l.v, 1, 2); // and others go on writing; not there, or the reader would see it
    atomic_store(&l.go_on, true);
    void *read_well, *flushed_well;
    pthread_join(reader, &read_well);
    pthread_join(flusher, &flushed_well);
    assert_true(read_well && flushed_well);
    assert_true(atomic_load(&l.punched));
    assert_int_equal(l.found[0], 1);
    limited_fs_watch(fs, NULL, NULL);
    must(rp_vhdx_close(l.v, &err));
    limited_fs_free(fs);
}

static enum rp_code no_punch(void *context, enum call call, uint64_t offset, uint64_t length)
{
    (void)context, (void)offset, (void)length;
    return call == CALL_PUNCH ? RP_ERR_IO : RP_OK;
}

static void space_that_cannot_be_given_back_is_only_kept(void **state)
{
    (void)state;
    struct rp_fs *fs = limited_fs_new();
    struct rp_vhdx *v = create(fs, "d", 8 * BLOCK);
    limited_fs_watch(fs, no_punch, NULL);
    for (int i = 0; i < 5; i++) {
        write_block(v, 0, i + 1);
        must(rp_vhdx_trim(v, 0, BLOCK, NULL, &err) || rp_vhdx_flush(v, &err));
    }
    write_block(v, 1, 9);
    must(rp_vhdx_close(v, &err));
    v = rp_vhdx_open(fs, "d", RP_VHDX_READ, NULL, &err);
    must(!v);
    check_block(v, 0, 0);
    check_block(v, 1, 9);
    rp_vhdx_abandon(v);
    limited_fs_free(fs);
}

// ---- the last touch

struct last {
    enum call call;
    unsigned long settles;
};

static enum rp_code note_last(void *context, enum call call, uint64_t offset, uint64_t length)
{
    struct last *l = context;
    (void)offset, (void)length;
    l->call = call;
    l->settles += call == CALL_SETTLE;
    return RP_OK;
}

static void a_session_ends_with_the_files_times_durable(void **state)
{
    (void)state;
    for (int freeze = 0; freeze < 2; freeze++) {
        struct rp_fs *fs = limited_fs_new();
        struct last last = {0};
        struct rp_vhdx *v = create(fs, "d", 8 * BLOCK);
        limited_fs_watch(fs, note_last, &last);
        write_block(v, 0, 1);
        write_block(v, 1, 1);
        must(rp_vhdx_trim(v, 0, BLOCK, NULL, &err));
        if (freeze)
            must(rp_vhdx_freeze(v, &err));
        else
            must(rp_vhdx_close(v, &err));
        assert_int_equal(last.call, CALL_SETTLE);
        assert_int_equal(last.settles, 1);
        if (freeze)
            must(rp_vhdx_freeze(v, &err) || rp_vhdx_close(v, &err));
        assert_int_equal(last.call, CALL_SETTLE);
        limited_fs_free(fs);
    }
}

// ---- the log

// A sync that took the entry, but not the file's new size.
static void a_replay_makes_the_file_as_long_as_the_log_says(void **state)
{
    (void)state;
    for (unsigned flags = RP_VHDX_READ; flags <= RP_VHDX_WRITE; flags++) {
        struct rp_fs *fs = limited_fs_new();
        struct rp_vhdx *v = create(fs, "d", 8 * BLOCK);
        must(rp_vhdx_flush(v, &err));
        struct rp_store *store = rp_fs_open(fs, "d", RP_OPEN_WRITE, &err);
        uint64_t size = 0;
        must(!store || rp_store_size(store, &size, &err));
        write_block(v, 0, 1);
        write_block(v, 1, 1);
        must(rp_vhdx_flush(v, &err));
        rp_vhdx_abandon(v);
        must(rp_store_truncate(store, size, &err));
        v = rp_vhdx_open(fs, "d", flags, NULL, &err);
        must(!v);
        check_block(v, 0, 0);
        check_block(v, 1, 0);
        if (flags == RP_VHDX_WRITE) {
            uint64_t longer = 0;
            must(rp_store_size(store, &longer, &err));
            assert_true(longer >= size + 2 * BLOCK);
            write_block(v, 1, 5);
            check_block(v, 1, 5);
            must(rp_vhdx_close(v, &err));
        } else {
            rp_vhdx_abandon(v);
        }
        rp_store_close(store);
        limited_fs_free(fs);
    }
}

// Entries as large as they can be, one after the other; the power fails in the last. It may not lie on what the one before
// needs: that one's own, and what it still names as not durable in place.
static void the_largest_entries_leave_each_other_alone(void **state)
{
    (void)state;
    enum { PAGES = 1010, PER_PAGE = RP_VHDX_PAGE / 8 }; // half of the log, were it one entry
    uint64_t random = test_seed();
    uint8_t sector[512], found[512];
    for (unsigned long stop = 0; stop < 4; stop++) {
        struct rp_fs *fs = torn_fs_new();
        struct rp_vhdx *v = create(fs, "d", (uint64_t)PAGES * PER_PAGE * BLOCK);
        for (int round = 0; round < 3; round++) {
            memset(sector, round + 1, sizeof sector);
            for (uint64_t i = 0; i < PAGES; i++)
                must(rp_vhdx_write(v, sector, sizeof sector, (i * PER_PAGE + (uint64_t)round) * BLOCK, &err));
            if (round == 2)
                torn_fs_stop_after(fs, stop);
            struct rp_error why = {0};
            if (rp_vhdx_flush(v, &why) && round < 2)
                fail_msg("%s", why.text);
        }
        torn_fs_cut(fs, &random, (unsigned)random_below(&random, 257));
        rp_vhdx_abandon(v);
        v = rp_vhdx_open(fs, "d", RP_VHDX_READ, NULL, &err);
        must(!v);
        for (int round = 0; round < 2; round++)
            for (uint64_t i = 0; i < PAGES; i += 7) {
                memset(sector, round + 1, sizeof sector);
                must(rp_vhdx_read(v, found, sizeof found, (i * PER_PAGE + (uint64_t)round) * BLOCK, &err));
                assert_memory_equal(found, sector, sizeof sector);
            }
        rp_vhdx_abandon(v);
        torn_fs_free(fs);
    }
}

// ---- large and empty

static int count_extents(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset, (void)length, (void)state;
    ++*(unsigned *)context;
    return 0;
}

static void map(struct rp_fs *fs, struct rp_vhdx *v, unsigned expected)
{
    unsigned extents = 0;
    unsigned long calls = torn_fs_calls(fs);
    must(rp_vhdx_extents(v, 0, 64 * RP_TIB, count_extents, &extents, &err));
    assert_int_equal(extents, expected);
    assert_true(torn_fs_calls(fs) <= calls + 4);
}

static void the_map_of_the_largest_sparse_disk_takes_no_walk(void **state)
{
    (void)state;
    struct rp_fs *fs = torn_fs_new();
    struct rp_vhdx *v = create(fs, "d", 64 * RP_TIB);
    map(fs, v, 1);
    write_block(v, 7777777, 1);
    write_block(v, 60 * (RP_TIB / BLOCK) + 5, 1);
    map(fs, v, 5);
    must(rp_vhdx_trim(v, 8 * RP_TIB, 50 * RP_TIB, NULL, &err));
    map(fs, v, 5);
    must(rp_vhdx_close(v, &err));
    v = rp_vhdx_open(fs, "d", RP_VHDX_READ, NULL, &err);
    must(!v);
    map(fs, v, 5);
    rp_vhdx_abandon(v);
    torn_fs_free(fs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trimmed_space_goes_back_to_the_host_at_the_flush),
        cmocka_unit_test(freed_space_waits_for_those_who_still_read_it),
        cmocka_unit_test(space_that_cannot_be_given_back_is_only_kept),
        cmocka_unit_test(a_session_ends_with_the_files_times_durable),
        cmocka_unit_test(a_replay_makes_the_file_as_long_as_the_log_says),
        cmocka_unit_test(the_largest_entries_leave_each_other_alone),
        cmocka_unit_test(the_map_of_the_largest_sparse_disk_takes_no_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
