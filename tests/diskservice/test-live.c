// Merging under a guest that writes, on real files. Also run under ThreadSanitizer.
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "crashfs.h"
#include "diskservice/chains.h"
#include "vm.h"

enum { SIZE = 64 << 20, CELLS = SIZE / VM_CELL, WRITERS = 4, SHARE = CELLS / WRITERS };

struct scene {
    char directory[64];
    struct rp_fs *fs;
    struct rp_engine *engine;
    struct model now, before; // before: at the checkpoint
    struct rp_engine_checkpoint point;
    uint64_t seed;

    atomic_bool stop;
    atomic_ulong written, failures; // cells
    unsigned request, sleep_us;     // cells per write; between two of them
};

struct writer {
    struct scene *scene;
    size_t share;
    uint64_t seed;
    pthread_t thread;
};

static void set_up_in(struct scene *s, const char *directory)
{
    *s = (struct scene){.fs = rp_fs_posix(), .seed = test_seed()};
    snprintf(s->directory, sizeof s->directory, "%s", directory);
    vm_create(s->fs, s->directory, 1, SIZE);
    s->engine = vm_open(s->fs, s->directory);
    model_new(&s->now, SIZE);
    assert_int_equal(model_change_some(&s->now, s->engine, 0, 40, &s->seed), 0);
}

static void set_up(struct scene *s)
{
    char directory[] = "/tmp/refpoint-live-XXXXXX";
    assert_non_null(mkdtemp(directory));
    set_up_in(s, directory);
}

static void checkpoint(struct scene *s)
{
    struct rp_guid operation = vm_operation();
    struct rp_error err = {0};
    rp_engine_checkpoint_clear(&s->point);
    if (rp_engine_checkpoint(s->engine, &operation, &s->point, &err))
        fail_msg("checkpoint: %s", err.text);
    model_free(&s->before);
    model_copy(&s->before, &s->now);
}

// Megabytes of the disk are written anew, so that there is something to merge.
static void write_much(struct scene *s, unsigned megabytes)
{
    for (uint64_t cell = 0; cell < megabytes * (uint64_t)256; cell += 256)
        assert_int_equal(model_write(&s->now, s->engine, 0, cell, 256, 1 + (uint32_t)test_random(&s->seed) % 1000000), 0);
}

static void check(struct scene *s)
{
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    struct rp_error err = {0};
    model_check(&s->now, s->engine, 0);
    if (rp_engine_changes(s->engine, leaf, &s->point.disks[0].id, 0, SIZE, &changed, &err))
        fail_msg("changes: %s", err.text);
    model_check_changes(&s->before, &s->now, &changed, true);
}

static void check_merged(struct scene *s)
{
    RP_AUTO_FREE char *leaf = vm_leaf(s->engine, 0);
    assert_string_equal(leaf, s->point.disks[0].path);
    vm_no_leftovers(s->engine, s->fs, s->directory);
    check(s);
}

static void tear_down(struct scene *s)
{
    struct rp_error err = {0};
    if (rp_engine_close(s->engine, &err))
        fail_msg("close: %s", err.text);
    RP_AUTO_FREE char *remove = rp_xasprintf("rm -r %s", s->directory);
    assert_int_equal(system(remove), 0);
    rp_engine_checkpoint_clear(&s->point);
    model_free(&s->now);
    model_free(&s->before);
}

static void *write_all_the_time(void *argument)
{
    struct writer *w = argument;
    struct scene *s = w->scene;
    while (!atomic_load(&s->stop)) {
        uint64_t cell = w->share * SHARE + test_random(&w->seed) % (SHARE - s->request + 1);
        if (model_write(&s->now, s->engine, 0, cell, s->request, 1 + (uint32_t)test_random(&w->seed) % 1000000))
            atomic_fetch_add(&s->failures, 1);
        atomic_fetch_add(&s->written, s->request);
        if (test_random(&w->seed) % 128 == 0 && rp_engine_flush(s->engine, 0, NULL))
            atomic_fetch_add(&s->failures, 1);
        usleep(s->sleep_us);
    }
    return NULL;
}

static void start_writers(struct scene *s, struct writer writers[WRITERS], unsigned request, unsigned sleep_us)
{
    s->request = request;
    s->sleep_us = sleep_us;
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.scene = s, .share = i, .seed = test_random(&s->seed) | 1};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_all_the_time, &writers[i]), 0);
    }
    while (atomic_load(&s->written) < 4 * WRITERS * request)
        usleep(1000);
}

static void stop_writers(struct scene *s, struct writer writers[WRITERS])
{
    atomic_store(&s->stop, true);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    assert_int_equal(atomic_load(&s->failures), 0);
}

static struct rp_engine_merge merge_leaf(struct scene *s)
{
    struct rp_error err = {0};
    struct rp_engine_merge merge;
    if (vm_merge(s->engine, s->point.disks[0].leaf_path, &err))
        fail_msg("merge: %s", err.text);
    rp_engine_merge_state(s->engine, &merge);
    printf("# %u rounds, %.0f of %.0f MB, %.1f ms paused, at most %.1f ms at once\n", merge.round, (double)merge.done / 1e6,
           (double)merge.total / 1e6, (double)merge.pause_ns / 1e6, (double)merge.longest_pause_ns / 1e6);
    assert_int_equal(merge.done, merge.total);
    assert_true(merge.round <= RP_MERGE_ROUNDS + RP_MERGE_SLOW_ROUNDS);
    assert_true(merge.longest_pause_ns < (uint64_t)30000 * 1000000); // other tests may be at work
    return merge;
}

static void writers_as_fast_as_they_can_be_do_not_keep_a_merge_from_its_end(void **state)
{
    (void)state;
    struct scene s;
    struct writer writers[WRITERS];
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 32);
    start_writers(&s, writers, 64, 0);
    struct rp_engine_merge merge = merge_leaf(&s);
    assert_true(merge.round >= 1);
    // the guest is let go again
    unsigned long written = atomic_load(&s.written);
    uint64_t start = rp_clock_monotonic_ns();
    while (atomic_load(&s.written) < written + (16 << 20) / VM_CELL)
        usleep(1000);
    assert_true(rp_clock_monotonic_ns() - start < (uint64_t)60 * 1000000000);
    assert_int_equal(rp_throttle_rate(s.engine->disks[0].throttle), 0);
    stop_writers(&s, writers);
    check_merged(&s);
    tear_down(&s);
}

static void a_pause_that_nobody_can_keep_is_taken_in_the_end(void **state)
{
    (void)state;
    struct scene s;
    struct writer writers[WRITERS];
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 16);
    vm_merge_by(s.engine, true); // within a millisecond, while requests of a megabyte come in
    start_writers(&s, writers, 256, 0);
    merge_leaf(&s);
    stop_writers(&s, writers);
    check_merged(&s);
    tear_down(&s);
}

static atomic_uint told_long; // pauses that the log calls long

static void listen(enum rp_log_level level, const char *text)
{
    (void)level;
    atomic_fetch_add(&told_long, strstr(text, "are merged in a long one") != NULL);
}

// The longest pause of a merge.
static uint64_t merge_at_leisure(void)
{
    struct scene s;
    struct writer writers[WRITERS];
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 32);
    start_writers(&s, writers, 1, 50000);
    atomic_store(&told_long, 0);
    struct rp_engine_merge merge = merge_leaf(&s);
    assert_in_range(merge.round, 1, RP_MERGE_ROUNDS);
    assert_int_equal(atomic_load(&told_long), 0); // no pause took more than was meant for one
    stop_writers(&s, writers);
    check_merged(&s);
    tear_down(&s);
    return merge.longest_pause_ns;
}

// Fifty milliseconds are aimed at. A machine that is busy with other tests stretches one merge or another, but not all of them.
static void writers_at_leisure_are_not_slowed_down_and_wait_for_a_moment_at_most(void **state)
{
    (void)state;
    uint64_t shortest = UINT64_MAX;
    for (int attempt = 0; attempt < 5 && shortest >= (uint64_t)300 * 1000000; attempt++)
        shortest = rp_min64(shortest, merge_at_leisure());
    assert_true(shortest < (uint64_t)300 * 1000000);
}

static void a_leaf_with_little_in_it_is_merged_at_once(void **state)
{
    (void)state;
    struct scene s;
    set_up(&s);
    checkpoint(&s);
    assert_int_equal(model_write(&s.now, s.engine, 0, 100, 10, 77), 0);
    assert_int_equal(merge_leaf(&s).round, 0);
    check_merged(&s);
    tear_down(&s);
}

static void a_merge_keeps_its_limit(void **state)
{
    (void)state;
    struct scene s;
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 20);
    struct rp_engine_merge_options options = {.rate = 20 << 20};
    rp_engine_set_merge_options(s.engine, &options);
    uint64_t start = rp_clock_monotonic_ns();
    merge_leaf(&s);
    assert_true(rp_clock_monotonic_ns() - start > 900000000); // what may be owed, and one step of the copy
    check_merged(&s);
    tear_down(&s);
}

// Merges at a crawl, so that something can happen meanwhile.
static void start_slow_merge(struct scene *s, unsigned checkpoint_ms)
{
    struct rp_engine_merge_options options = {.rate = 1 << 20, .checkpoint_ms = checkpoint_ms};
    struct rp_guid operation = vm_operation();
    const char *path = s->point.disks[0].leaf_path;
    rp_engine_set_merge_options(s->engine, &options);
    assert_int_equal(rp_engine_merge_start(s->engine, &operation, &path, 1, NULL), 0);
    struct rp_engine_merge merge = {0};
    while (!merge.done) {
        usleep(1000);
        rp_engine_merge_state(s->engine, &merge);
        assert_int_equal(merge.phase, RP_MERGE_RUNNING);
    }
}

static void a_close_in_mid_merge_is_quick_and_the_merge_goes_on_later(void **state)
{
    (void)state;
    struct scene s;
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 32);
    start_slow_merge(&s, 0);
    RP_AUTO_FREE char *leaf = vm_leaf(s.engine, 0);
    assert_string_not_equal(leaf, s.point.disks[0].leaf_path); // the guest writes to a fresh one
    assert_int_equal(model_write(&s.now, s.engine, 0, 5000, 50, 78), 0);
    uint64_t start = rp_clock_monotonic_ns();
    assert_int_equal(rp_engine_close(s.engine, NULL), 0);
    assert_true(rp_clock_monotonic_ns() - start < (uint64_t)15000 * 1000000); // the merge would take 30 s
    s.engine = vm_open(s.fs, s.directory);
    check(&s);
    // nobody may build on the leaf that nobody knows of
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint refused;
    struct rp_error err = {0};
    assert_int_equal(rp_engine_checkpoint(s.engine, &operation, &refused, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    merge_leaf(&s);
    check_merged(&s);
    checkpoint(&s);
    tear_down(&s);
}

static void a_checkpoint_in_mid_merge_waits_a_while_and_says_why_it_gives_up(void **state)
{
    (void)state;
    struct scene s;
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 32);
    start_slow_merge(&s, 100);
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint refused;
    struct rp_error err = {0};
    uint64_t start = rp_clock_monotonic_ns();
    assert_int_equal(rp_engine_checkpoint(s.engine, &operation, &refused, &err), -1);
    assert_true(rp_clock_monotonic_ns() - start >= 100000000);
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_non_null(strstr(err.text, "a merge is running"));
    // let go, the merge is done before the patience of the next one ends
    struct rp_engine_merge_options options = {.checkpoint_ms = 20000};
    rp_engine_set_merge_options(s.engine, &options);
    RP_AUTO_FREE char *root = rp_xstrdup(s.point.disks[0].path);
    checkpoint(&s);
    assert_string_equal(s.point.disks[0].path, root);
    check(&s);
    tear_down(&s);
}

static void a_checkpoint_comes_between_two_files_of_a_merge(void **state)
{
    (void)state;
    struct scene s;
    char *paths[3];
    set_up(&s);
    for (int i = 0; i < 3; i++) {
        checkpoint(&s);
        paths[i] = rp_xstrdup(s.point.disks[0].leaf_path);
        write_much(&s, 8);
    }
    struct rp_engine_merge_options options = {.rate = 16 << 20, .checkpoint_ms = 20000};
    rp_engine_set_merge_options(s.engine, &options);
    struct rp_guid operation = vm_operation();
    assert_int_equal(rp_engine_merge_start(s.engine, &operation, (const char *const *)paths, 2, NULL), 0);
    options.rate = 2 << 20; // the second file is still being copied when the checkpoint has been made
    rp_engine_set_merge_options(s.engine, &options);
    checkpoint(&s);
    struct rp_engine_merge merge;
    rp_engine_merge_state(s.engine, &merge);
    assert_int_equal(merge.phase, RP_MERGE_RUNNING);
    options.rate = 0;
    rp_engine_set_merge_options(s.engine, &options);
    assert_string_equal(s.point.disks[0].path, paths[2]);
    assert_int_equal(rp_engine_merge_wait(s.engine, NULL), 0);
    check(&s);
    vm_no_leftovers(s.engine, s.fs, s.directory);
    for (int i = 0; i < 3; i++)
        free(paths[i]);
    tear_down(&s);
}

// Another process that has the file open to read it, until it is killed.
static pid_t start_reader(struct scene *s, const char *path)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        if (!rp_vhdx_open(s->fs, path, RP_VHDX_READ, NULL, NULL) || write(ready[1], "r", 1) != 1)
            _exit(1);
        sleep(60);
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void stop_reader(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_reader_is_named_and_waited_for(void **state)
{
    (void)state;
    struct scene s;
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 16);
    pid_t reader = start_reader(&s, s.point.disks[0].path);
    RP_AUTO_FREE char *name = rp_xasprintf("pid %ld (", (long)reader);
    struct rp_engine_merge_options options = {.reader_ms = 100};
    rp_engine_set_merge_options(s.engine, &options);
    struct rp_error err = {0};
    assert_int_equal(vm_merge(s.engine, s.point.disks[0].leaf_path, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_non_null(strstr(err.text, s.point.disks[0].path));
    assert_non_null(strstr(err.text, name));
    RP_AUTO_FREE char *leaf = vm_leaf(s.engine, 0);
    assert_string_equal(leaf, s.point.disks[0].leaf_path); // nothing has changed
    // with more patience: shown while it waits, others may read, and it goes on by itself
    options.reader_ms = 20000;
    rp_engine_set_merge_options(s.engine, &options);
    struct rp_guid operation = vm_operation();
    const char *path = s.point.disks[0].leaf_path;
    assert_int_equal(rp_engine_merge_start(s.engine, &operation, &path, 1, NULL), 0);
    struct rp_engine_merge merge = {0};
    while (merge.step != RP_MERGE_WAITING) {
        usleep(1000);
        rp_engine_merge_state(s.engine, &merge);
        assert_int_equal(merge.phase, RP_MERGE_RUNNING);
    }
    assert_non_null(strstr(merge.waiting.text, name));
    for (int i = 0; i < 100; i++) {
        struct rp_vhdx *another = rp_vhdx_open(s.fs, s.point.disks[0].path, RP_VHDX_READ, NULL, &err);
        if (!another)
            fail_msg("another reader: %s", err.text);
        rp_vhdx_abandon(another);
        usleep(500);
    }
    stop_reader(reader);
    assert_int_equal(rp_engine_merge_wait(s.engine, NULL), 0);
    check_merged(&s);
    tear_down(&s);
}

static void a_checkpoint_does_not_wait_for_a_reader_that_a_merge_waits_for(void **state)
{
    (void)state;
    struct scene s;
    set_up(&s);
    checkpoint(&s);
    write_much(&s, 16);
    pid_t reader = start_reader(&s, s.point.disks[0].path);
    struct rp_engine_merge_options options = {.reader_ms = 20000};
    rp_engine_set_merge_options(s.engine, &options);
    struct rp_guid operation = vm_operation();
    RP_AUTO_FREE char *root = rp_xstrdup(s.point.disks[0].path), *path = rp_xstrdup(s.point.disks[0].leaf_path);
    assert_int_equal(rp_engine_merge_start(s.engine, &operation, (const char *const *)&path, 1, NULL), 0);
    checkpoint(&s); // the file to be merged is frozen by it
    assert_string_equal(s.point.disks[0].path, path);
    stop_reader(reader);
    assert_int_equal(rp_engine_merge_wait(s.engine, NULL), 0);
    check(&s);
    RP_AUTO_FREE char *leaf = vm_leaf(s.engine, 0);
    assert_string_equal(leaf, s.point.disks[0].leaf_path);
    assert_string_equal(s.engine->disks[0].layers[0]->path, root);
    assert_int_equal(s.engine->disks[0].depth, 2);
    tear_down(&s);
}

// A small file system of our own; false: we may not.
static bool mount_small(const char *directory, const char *options, unsigned long flags)
{
    static bool alone;
    if (!alone && unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS))
        return false;
    alone = true;
    return !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mount("small", directory, "tmpfs", flags, options);
}

static void a_full_disk_stops_the_merge_and_not_the_guest(void **state)
{
    (void)state;
    struct scene s;
    struct rp_error err = {0};
    char directory[] = "/tmp/refpoint-live-XXXXXX";
    assert_non_null(mkdtemp(directory));
    if (!mount_small(directory, "size=1M", 0)) {
        rmdir(directory);
        skip();
    }
    assert_int_equal(mount("small", directory, "tmpfs", MS_REMOUNT, "size=200M"), 0);
    RP_AUTO_FREE char *inside = rp_xasprintf("%s/vm", directory);
    assert_int_equal(mkdir(inside, 0700), 0);
    set_up_in(&s, inside);
    assert_int_equal(model_zero(&s.now, s.engine, 0, 0, CELLS), 0); // the root has nothing
    checkpoint(&s);
    write_much(&s, 40);
    struct statvfs room;
    assert_int_equal(statvfs(inside, &room), 0);
    RP_AUTO_FREE char *size = rp_xasprintf("size=%llu", (unsigned long long)(room.f_blocks - room.f_bfree) * room.f_frsize + (30 << 20));
    assert_int_equal(mount("small", directory, "tmpfs", MS_REMOUNT, size), 0);
    for (int i = 0; i < 2; i++) {
        rp_error_clear(&err);
        assert_int_equal(vm_merge(s.engine, s.point.disks[0].leaf_path, &err), -1);
        assert_int_equal(err.code, RP_ERR_NO_SPACE);
        check(&s);
        if (!i) { // what it has already may be written to, also after the service has been away
            assert_int_equal(model_write(&s.now, s.engine, 0, 3, 9, 99), 0);
            assert_int_equal(rp_engine_flush(s.engine, 0, NULL), 0);
            assert_int_equal(rp_engine_close(s.engine, NULL), 0);
            s.engine = vm_open(s.fs, s.directory);
        }
    }
    assert_int_equal(mount("small", directory, "tmpfs", MS_REMOUNT, "size=200M"), 0);
    merge_leaf(&s);
    check_merged(&s);
    tear_down(&s);
    assert_int_equal(umount(directory), 0);
    rmdir(directory);
}

int main(void)
{
    rp_log_set_sink(listen);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writers_as_fast_as_they_can_be_do_not_keep_a_merge_from_its_end),
        cmocka_unit_test(a_pause_that_nobody_can_keep_is_taken_in_the_end),
        cmocka_unit_test(writers_at_leisure_are_not_slowed_down_and_wait_for_a_moment_at_most),
        cmocka_unit_test(a_leaf_with_little_in_it_is_merged_at_once),
        cmocka_unit_test(a_merge_keeps_its_limit),
        cmocka_unit_test(a_close_in_mid_merge_is_quick_and_the_merge_goes_on_later),
        cmocka_unit_test(a_checkpoint_in_mid_merge_waits_a_while_and_says_why_it_gives_up),
        cmocka_unit_test(a_checkpoint_comes_between_two_files_of_a_merge),
        cmocka_unit_test(a_reader_is_named_and_waited_for),
        cmocka_unit_test(a_full_disk_stops_the_merge_and_not_the_guest),
        cmocka_unit_test(a_checkpoint_does_not_wait_for_a_reader_that_a_merge_waits_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
