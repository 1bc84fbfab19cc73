// A disk service that is killed with SIGKILL at any call, and the next one that takes over from it: nothing that was
// acknowledged is lost, ids stay exact, nothing is left over. Real processes on a real tmpfs; the guest lives on and repeats
// nothing.
#include <dirent.h>
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

#include "base/log.h"
#include "base/num.h"
#include "crashfs.h"
#include "diskservice/chains.h"
#include "vm.h"

enum { SIZE = 6 << 20, CELLS = SIZE / VM_CELL, DISKS = 2, POINTS = 3 };

// What outlives the process.
struct shared {
    atomic_ulong calls, kill_at; // of the file system; 0: never
    uint32_t cells[DISKS][CELLS]; // acknowledged
    uint32_t flushed[DISKS][CELLS];
    // the write under way: its cells hold the old or the new
    atomic_bool pending;
    uint32_t disk, cell, count, value;
    atomic_uint points;     // checkpoints that were answered
    atomic_bool asked;      // one more was asked for, not answered
    struct rp_guid operations[POINTS + 1];
    struct rp_rct_id ids[POINTS + 1][DISKS];
    char frozen[POINTS + 1][DISKS][256];
    uint32_t then[POINTS + 1][DISKS][CELLS];
};
static struct shared *shared;
static char directory[64], *shm;
static unsigned unclean, takeovers;

// ---- a file system that counts, and kills

static void step(void)
{
    if (atomic_fetch_add(&shared->calls, 1) + 1 == atomic_load(&shared->kill_at))
        kill(getpid(), SIGKILL);
}

static struct rp_store_ops ops;
static struct rp_fs_ops fs_ops;
static const struct rp_store_ops *below;
static struct rp_fs killing = {&fs_ops};

static int kill_pwrite(struct rp_store *s, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    step();
    return below->pwrite(s, data, size, offset, err);
}
static int kill_flush(struct rp_store *s, struct rp_error *err)
{
    step();
    return below->flush(s, err);
}
static int kill_truncate(struct rp_store *s, uint64_t size, struct rp_error *err)
{
    step();
    return below->truncate(s, size, err);
}
static struct rp_store *kill_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    (void)fs;
    if (flags & RP_OPEN_CREATE)
        step();
    struct rp_store *store = rp_fs_open(rp_fs_posix(), path, flags, err);
    if (!store)
        return NULL;
    if (!below) {
        below = store->ops;
        ops = *below;
        ops.pwrite = kill_pwrite;
        ops.flush = kill_flush;
        ops.settle = NULL;
        ops.truncate = kill_truncate;
    }
    store->ops = &ops;
    return store;
}
static int kill_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    (void)fs;
    step();
    return rp_fs_rename(rp_fs_posix(), from, to, err);
}
static int kill_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    (void)fs;
    step();
    return rp_fs_unlink(rp_fs_posix(), path, err);
}
static int kill_sync(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    (void)fs;
    step();
    return rp_fs_posix()->ops->sync_directory(rp_fs_posix(), path, err);
}
static int kill_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    (void)fs;
    return rp_fs_exists(rp_fs_posix(), path, exists, err);
}

// ---- the life of a VM

static struct model model_of(uint32_t *cells) { return (struct model){SIZE, cells}; }

static void write_some(struct rp_engine *engine, unsigned count, uint64_t *seed)
{
    while (count--) {
        shared->disk = test_random(seed) % DISKS;
        shared->count = 1 + test_random(seed) % (test_random(seed) % 8 ? 6 : 300);
        shared->cell = test_random(seed) % (CELLS - shared->count);
        shared->value = 1 + (uint32_t)test_random(seed) % 1000000000;
        atomic_store(&shared->pending, true);
        struct model m = model_of(shared->cells[shared->disk]);
        if (model_write(&m, engine, shared->disk, shared->cell, shared->count, shared->value))
            _exit(3);
        atomic_store(&shared->pending, false);
    }
}

static void flush_all(struct rp_engine *engine)
{
    uint32_t copy[DISKS][CELLS];
    memcpy(copy, shared->cells, sizeof copy);
    for (size_t d = 0; d < DISKS; d++)
        if (rp_engine_flush(engine, d, NULL))
            _exit(4);
    memcpy(shared->flushed, copy, sizeof copy);
}

static void note_point(const struct rp_engine_checkpoint *made)
{
    unsigned n = atomic_load(&shared->points);
    for (size_t d = 0; d < DISKS; d++) {
        shared->ids[n][d] = made->disks[d].id;
        snprintf(shared->frozen[n][d], sizeof shared->frozen[n][d], "%s", made->disks[d].path);
    }
    atomic_store(&shared->asked, false);
    atomic_store(&shared->points, n + 1);
}

static int checkpoint(struct rp_engine *engine)
{
    unsigned n = atomic_load(&shared->points);
    struct rp_engine_checkpoint made;
    struct rp_error err = {0};
    if (!atomic_load(&shared->asked)) {
        shared->operations[n] = rp_guid_new();
        memcpy(shared->then[n], shared->cells, sizeof shared->cells);
        atomic_store(&shared->asked, true);
    }
    if (rp_engine_checkpoint(engine, &shared->operations[n], &made, &err)) {
        fprintf(stderr, "checkpoint: %s\n", err.text);
        return -1;
    }
    note_point(&made);
    rp_engine_checkpoint_clear(&made);
    return 0;
}

static struct rp_engine *open_vm(struct rp_fs *fs)
{
    struct rp_error err = {0};
    free(shm);
    shm = rp_engine_shm_directory(rp_fs_posix(), directory);
    struct rp_engine *engine = rp_engine_open(fs, directory, shm, &err);
    if (!engine)
        fprintf(stderr, "open: %s\n", err.text);
    return engine;
}

static _Noreturn void live(uint64_t seed)
{
    struct rp_engine *engine = open_vm(&killing);
    if (!engine)
        _exit(2);
    write_some(engine, 6, &seed);
    flush_all(engine);
    write_some(engine, 4, &seed);
    for (int i = 0; i < POINTS; i++) {
        if (checkpoint(engine))
            _exit(5);
        write_some(engine, 5, &seed);
        if (i == 1)
            flush_all(engine);
        if (i == 1 && vm_merge(engine, shared->frozen[1][0], NULL))
            _exit(6);
    }
    write_some(engine, 3, &seed);
    struct rp_error err = {0};
    if (rp_engine_close(engine, &err))
        _exit(7);
    _exit(0);
}

// 0 it ended, 1 it was killed.
static int run(void (*body)(uint64_t), uint64_t seed, unsigned long kill_at)
{
    atomic_store(&shared->calls, 0);
    atomic_store(&shared->kill_at, kill_at);
    fflush(NULL);
    pid_t pid = fork();
    if (!pid)
        body(seed);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        assert_int_equal(WTERMSIG(status), SIGKILL);
        return 1;
    }
    if (WEXITSTATUS(status))
        fail_msg("the disk service's process ended with %d", WEXITSTATUS(status));
    return 0;
}

// Opens, which is where it takes over, and ends. To be killed as well.
static _Noreturn void only_open(uint64_t seed)
{
    (void)seed;
    struct rp_engine *engine = open_vm(&killing);
    if (!engine)
        _exit(2);
    rp_engine_abandon(engine); // no better than killed
    _exit(0);
}

// ---- what must hold

static void settle_pending(struct rp_engine *engine)
{
    if (!atomic_load(&shared->pending))
        return;
    uint8_t got[VM_CELL];
    for (uint32_t i = 0; i < shared->count; i++) {
        uint32_t *cell = &shared->cells[shared->disk][shared->cell + i], old = *cell;
        assert_int_equal(rp_engine_read(engine, shared->disk, got, VM_CELL, (uint64_t)(shared->cell + i) * VM_CELL, NULL), 0);
        *cell = shared->value;
        uint32_t first = shared->value * 2654435761u + (shared->cell + i) * 1024;
        if (memcmp(got, &first, 4))
            *cell = old; // model_check sees whether it is
    }
}

static void check_disks(struct rp_engine *engine, uint32_t (*cells)[CELLS])
{
    for (size_t d = 0; d < DISKS; d++) {
        struct model m = model_of(cells[d]);
        model_check(&m, engine, d);
    }
}

// Nothing is listed that did not change, but what the write under way may have marked.
static void check_nothing_more(const struct model *before, const struct model *after, size_t d, const struct rp_ranges *changed)
{
    enum { PER_UNIT = VM_UNIT / VM_CELL };
    for (size_t i = 0; i < changed->count; i++)
        for (uint64_t unit = changed->items[i].offset / VM_UNIT; unit * VM_UNIT < changed->items[i].offset + changed->items[i].length; unit++) {
            bool may = atomic_load(&shared->pending) && d == shared->disk && shared->cell < (unit + 1) * PER_UNIT &&
                       shared->cell + shared->count > unit * PER_UNIT;
            for (uint64_t cell = unit * PER_UNIT; cell < (unit + 1) * PER_UNIT; cell++)
                may |= before->cells[cell] != after->cells[cell];
            if (!may)
                fail_msg("unit %llu did not change, and the answer lists it", (unsigned long long)unit);
        }
}

static void check_ids(struct rp_engine *engine)
{
    for (unsigned p = 0; p < atomic_load(&shared->points); p++)
        for (size_t d = 0; d < DISKS; d++) {
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
            RP_AUTO_FREE char *leaf = vm_leaf(engine, d);
            struct rp_error err = {0};
            if (rp_engine_changes(engine, leaf, &shared->ids[p][d], 0, SIZE, &changed, &err))
                fail_msg("id %u of disk%zu: %s", p, d, err.text);
            struct model before = model_of(shared->then[p][d]), after = model_of(shared->cells[d]);
            model_check_changes(&before, &after, &changed, false);
            check_nothing_more(&before, &after, d, &changed);
        }
}

// Only files that a chain, the record, or the service has.
static void check_files(struct rp_engine *engine)
{
    DIR *folder = opendir(directory);
    for (struct dirent *entry; (entry = readdir(folder));) {
        RP_AUTO_FREE char *path = rp_path_join(directory, entry->d_name);
        size_t length = strlen(path), disk, layer;
        if (length > 4 && (!strcmp(path + length - 4, ".rct") || !strcmp(path + length - 4, ".mrt")))
            path[length - 4] = 0;
        bool known = entry->d_name[0] == '.' || !strcmp(entry->d_name, RP_RECORD_NAME) || !strcmp(entry->d_name, RP_ENGINE_LOCK) ||
                     rp_engine_find_layer(engine, path, &disk, &layer);
        if (!known)
            fail_msg("%s: a leftover", entry->d_name);
    }
    closedir(folder);
}

static void check_shm_is_empty(void)
{
    DIR *folder = opendir(shm);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            fail_msg("%s: left in shared memory", entry->d_name);
    if (folder)
        closedir(folder);
}

static void check_takeover(uint64_t seed)
{
    struct rp_engine *engine = open_vm(rp_fs_posix());
    assert_non_null(engine);
    for (size_t d = 0; d < DISKS; d++) {
        struct rp_engine_disk facts;
        rp_engine_disk(engine, d, &facts);
        free(facts.leaf_path);
        // A session that was killed between its first line in the tracking file and its first write cannot be told from one
        // that had marks: nothing more counts as changed then, which check_ids sees.
        assert_true(facts.verdict == RP_RCT_CLEAN || facts.verdict == RP_RCT_UNCLEAN);
        unclean += facts.verdict != RP_RCT_CLEAN;
        assert_true(facts.tracked);
    }
    takeovers++;
    settle_pending(engine);
    check_disks(engine, shared->cells);
    check_ids(engine);
    check_files(engine);
    // the same request again gets its answer, whether the checkpoint was made or is made now
    if (atomic_load(&shared->asked)) {
        unsigned n = atomic_load(&shared->points);
        assert_int_equal(checkpoint(engine), 0);
        check_ids(engine);
        for (size_t d = 0; d < DISKS; d++) {
            struct model then = model_of(shared->then[n][d]);
            model_check_file(&then, rp_fs_posix(), shared->frozen[n][d]);
        }
    }
    atomic_store(&shared->pending, false);
    write_some(engine, 3, &seed);
    check_disks(engine, shared->cells);
    struct rp_error err = {0};
    if (rp_engine_close(engine, &err))
        fail_msg("%s", err.text);
    check_shm_is_empty();
}

static void set_up(void)
{
    memset(shared, 0, sizeof *shared);
    snprintf(directory, sizeof directory, "/dev/shm/rp-kill-XXXXXX");
    assert_non_null(mkdtemp(directory));
    vm_create(rp_fs_posix(), directory, DISKS, SIZE);
    struct rp_engine *engine = open_vm(rp_fs_posix()); // not a new tracking file, which would be its own verdict
    assert_non_null(engine);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
}

static void tear_down(void)
{
    DIR *folder = opendir(directory);
    for (struct dirent *entry; (entry = readdir(folder));) {
        RP_AUTO_FREE char *path = rp_path_join(directory, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    closedir(folder);
    rmdir(directory);
    free(shm);
    shm = NULL;
}

static void nothing_acknowledged_is_lost_by_a_kill_at_any_call(void **state)
{
    (void)state;
    uint64_t seed = test_seed(), random = seed;
    set_up();
    assert_int_equal(run(live, seed, 0), 0);
    unsigned long calls = atomic_load(&shared->calls);
    check_takeover(seed);
    tear_down();
    assert_true(calls > 200);
    unsigned long pace = getenv("RP_TEST_ALL") ? 1 : calls / 60;
    for (unsigned long stop = 1 + seed % pace; stop <= calls; stop += pace) {
        set_up();
        if (getenv("RP_KILL_LOG"))
            print_message("# killed at call %lu\n", stop);
        if (run(live, seed, stop)) {
            // and the one that takes over is killed too, at any call, up to twice
            for (int again = (int)(test_random(&random) % 3); again; again--)
                run(only_open, seed, 1 + test_random(&random) % 60);
            check_takeover(seed);
        }
        tear_down();
    }
    print_message("# %u takeovers, %u disks were killed while they were opened\n", takeovers, unclean);
    assert_true(unclean * 4 < takeovers);
}

static void say_nothing(enum rp_log_level level, const char *text)
{
    if (getenv("RP_KILL_LOG"))
        fprintf(stderr, "log %d: %s\n", level, text);
}

int main(void)
{
    fs_ops = (struct rp_fs_ops){kill_open, kill_rename, kill_unlink, kill_sync, kill_exists};
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 99;
    rp_log_set_sink(say_nothing);
    rp_log_set_level(RP_LOG_INFO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_acknowledged_is_lost_by_a_kill_at_any_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
