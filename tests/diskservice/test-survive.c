// What else an engine survives: failed syncs, a full file system, a damaged record; and what
// a checkpoint does while the guest waits.
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/num.h"
#include "crashfs.h"
#include "diskservice/chains.h"
#include "vm.h"

enum { SIZE = 6 << 20, CELLS = SIZE / VM_CELL };

static unsigned told_full, told_sync;

static void listen(enum rp_log_level level, const char *text)
{
    told_full += strstr(text, "is full") != NULL;
    told_sync += strstr(text, "may not have reached the disk") != NULL;
    vm_listen(level, text);
}

static enum rp_rct_verdict verdict_of(struct rp_engine *engine)
{
    struct rp_engine_disk facts;
    rp_engine_disk(engine, 0, &facts);
    free(facts.leaf_path);
    return facts.verdict;
}

static bool is_there(const char *path)
{
    struct stat st;
    return !stat(path, &st);
}

static void a_folder_in_shared_memory_comes_and_goes_with_its_engine(void **state)
{
    (void)state;
    RP_AUTO_FREE char *shm = vm_shm_new();
    struct rp_error err = {0};
    rmdir(shm);
    struct rp_fs *fs = crashfs_new();
    vm_create(fs, VM_DIRECTORY, 1, SIZE);
    struct rp_engine *engine = rp_engine_open(fs, VM_DIRECTORY, shm, &err);
    assert_non_null(engine);
    assert_true(is_there(shm));
    assert_null(rp_engine_open(fs, VM_DIRECTORY, shm, &err)); // the second one has nothing to do with it
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_true(is_there(shm));
    RP_AUTO_FREE char *leaf = vm_leaf(engine, 0);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    assert_false(is_there(shm));
    assert_int_equal(rp_fs_unlink(fs, leaf, NULL), 0);
    assert_null(rp_engine_open(fs, VM_DIRECTORY, shm, NULL));
    assert_false(is_there(shm));
    crashfs_free(fs);
}

// ---- a file system whose calls can be refused and counted

enum call { CALL_WRITE, CALL_SYNC, CALL_OTHER };

static struct {
    struct rp_fs *memory;
    _Atomic int refuse; // an rp_code for everything that takes new space (NO_SPACE) or for syncs (IO)
} hook;
static const struct rp_store_ops *below;
static struct rp_store_ops hook_ops;

static atomic_bool watching; // a checkpoint has begun to close the gate, and not opened it
static pthread_t checkpointer;
static _Thread_local unsigned inside;
static atomic_uint by_checkpointer, waited_for;

static void note(enum call call)
{
    if (!atomic_load(&watching))
        return;
    if (pthread_equal(pthread_self(), checkpointer))
        atomic_fetch_add(&by_checkpointer, 1);
    else if (inside && call == CALL_SYNC) // one that the pause waits for
        atomic_fetch_add(&waited_for, 1);
}

static int hook_pwrite(struct rp_store *s, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    uint64_t end;
    note(CALL_WRITE);
    if (atomic_load(&hook.refuse) == RP_ERR_NO_SPACE && !below->size(s, &end, NULL) && offset + size > end)
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: no space", s->name);
    return below->pwrite(s, data, size, offset, err);
}
static int hook_flush(struct rp_store *s, struct rp_error *err)
{
    note(CALL_SYNC);
    if (atomic_load(&hook.refuse) == RP_ERR_IO && strstr(s->name, "vhdx"))
        return rp_fail(err, RP_ERR_IO, "%s: sync: the disk is broken", s->name);
    return below->flush(s, err);
}
static int hook_truncate(struct rp_store *s, uint64_t size, struct rp_error *err)
{
    uint64_t end;
    note(CALL_OTHER);
    if (atomic_load(&hook.refuse) == RP_ERR_NO_SPACE && !below->size(s, &end, NULL) && size > end)
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: no space", s->name);
    return below->truncate(s, size, err);
}
static struct rp_store *hook_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    (void)fs;
    note(CALL_OTHER);
    if (flags & RP_OPEN_CREATE && atomic_load(&hook.refuse) == RP_ERR_NO_SPACE) {
        rp_fail(err, RP_ERR_NO_SPACE, "%s: no space", path);
        return NULL;
    }
    struct rp_store *store = rp_fs_open(hook.memory, path, flags, err);
    if (!store)
        return NULL;
    if (!below) {
        below = store->ops;
        hook_ops = *below;
        hook_ops.pwrite = hook_pwrite;
        hook_ops.flush = hook_flush;
        hook_ops.settle = NULL;
        hook_ops.truncate = hook_truncate;
    }
    store->ops = &hook_ops;
    return store;
}
static int hook_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    (void)fs;
    note(CALL_OTHER);
    return rp_fs_rename(hook.memory, from, to, err);
}
static int hook_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    (void)fs;
    note(CALL_OTHER);
    return rp_fs_unlink(hook.memory, path, err);
}
static int hook_sync(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    (void)fs;
    note(CALL_OTHER);
    return hook.memory->ops->sync_directory(hook.memory, directory, err);
}
static int hook_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    (void)fs;
    return rp_fs_exists(hook.memory, path, exists, err);
}
static const struct rp_fs_ops hook_fs_ops = {hook_open, hook_rename, hook_unlink, hook_sync, hook_exists};
static struct rp_fs hook_fs = {&hook_fs_ops};

// ---- errors

// Nobody but the next open knows whether the checkpoint is there then: told NO_SPACE, the host would forget it.
static void a_switch_that_found_no_room_in_the_end_leaves_its_checkpoint_in_doubt(void **state)
{
    (void)state;
    RP_AUTO_FREE char *shm = vm_shm_new();
    hook.memory = rp_fs_memory_new();
    vm_create(&hook_fs, VM_DIRECTORY, 1, 16 << 20);
    struct rp_engine *engine = vm_open_shared(&hook_fs, VM_DIRECTORY, shm);
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint made;
    struct rp_error err = {0}, why = {0};
    rp_fail(&why, RP_ERR_NO_SPACE, "no room for the record");
    rp_engine_fail(engine, &why);
    assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, &err), -1);
    assert_int_equal(err.code, RP_ERR_IO);
    assert_non_null(strstr(err.text, "no room for the record"));
    rp_engine_close(engine, NULL);
    rp_fs_memory_free(hook.memory);
    vm_shm_remove(shm);
}

static void a_full_file_system_is_one_message_and_costs_nothing_that_was_written(void **state)
{
    (void)state;
    RP_AUTO_FREE char *shm = vm_shm_new();
    struct model model;
    hook.memory = rp_fs_memory_new();
    enum { BIG = 256 << 20 };
    vm_create(&hook_fs, VM_DIRECTORY, 1, BIG);
    struct rp_engine *engine = vm_open_shared(&hook_fs, VM_DIRECTORY, shm);
    model_new(&model, BIG);
    assert_int_equal(model_write(&model, engine, 0, 0, 256, 1), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    told_full = 0;
    atomic_store(&hook.refuse, RP_ERR_NO_SPACE);
    struct rp_error err = {0};
    static const uint8_t data[VM_CELL] = {1};
    uint64_t cell = 256; // the file may have been extended ahead
    while (!model_write(&model, engine, 0, cell, 1, 9))
        cell += 256;
    assert_true(cell + 256 * 6 < BIG / VM_CELL);
    for (uint64_t i = 0; i < 5; i++) {
        err = (struct rp_error){0};
        assert_int_equal(rp_engine_write(engine, 0, data, VM_CELL, (cell + i * 256) * VM_CELL, false, &err), -1);
        assert_int_equal(err.code, RP_ERR_NO_SPACE);
    }
    assert_int_equal(told_full, 1);
    // a checkpoint fails before the pause, and nothing of it stays
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint made;
    err = (struct rp_error){0};
    assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    RP_AUTO_FREE char *leaf = vm_leaf(engine, 0);
    assert_string_equal(leaf, VM_DIRECTORY "/disk0.vhdx");
    // what has its place already can be written and made durable
    assert_int_equal(model_write(&model, engine, 0, 8, 8, 2), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    model_check(&model, engine, 0);
    // and it goes on when there is room
    atomic_store(&hook.refuse, RP_OK);
    assert_int_equal(model_write(&model, engine, 0, cell, 256, 3), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, &err), 0);
    rp_engine_checkpoint_clear(&made);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    engine = vm_open_shared(&hook_fs, VM_DIRECTORY, shm);
    assert_int_equal(verdict_of(engine), RP_RCT_CLEAN);
    model_check(&model, engine, 0);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    model_free(&model);
    vm_shm_remove(shm);
    rp_fs_memory_free(hook.memory);
}

// The guest hears of a change that could not be tracked; a flush that succeeds afterwards would tell him that all is well.
static void a_failed_sync_of_the_tracking_fails_the_flushes_after_it(void **state)
{
    (void)state;
    static const uint8_t sector[512] = {1};
    hook.memory = rp_fs_memory_new();
    vm_create(&hook_fs, VM_DIRECTORY, 1, 64 << 20);
    struct rp_engine *engine = vm_open_shared(&hook_fs, VM_DIRECTORY, NULL);
    assert_int_equal(rp_engine_write(engine, 0, sector, sizeof sector, 0, true, NULL), 0);
    atomic_store(&hook.refuse, RP_ERR_IO);
    assert_int_equal(rp_engine_write(engine, 0, sector, sizeof sector, 48 << 20, false, NULL), -1); // another region
    atomic_store(&hook.refuse, RP_OK);
    struct rp_error err = {0};
    assert_int_equal(rp_engine_flush(engine, 0, &err), -1);
    assert_int_equal(err.code, RP_ERR_IO);
    assert_int_equal(rp_engine_write(engine, 0, sector, sizeof sector, 0, true, NULL), -1);
    assert_int_equal(rp_engine_close(engine, NULL), 0); // the coarse map is not needed any more: disk and array are durable
    rp_fs_memory_free(hook.memory);
}

static void a_failed_sync_is_final_and_the_next_open_trusts_only_the_disk(void **state)
{
    (void)state;
    RP_AUTO_FREE char *shm = vm_shm_new();
    struct model flushed, now;
    hook.memory = rp_fs_memory_new();
    vm_create(&hook_fs, VM_DIRECTORY, 1, SIZE);
    struct rp_engine *engine = vm_open_shared(&hook_fs, VM_DIRECTORY, shm);
    model_new(&now, SIZE);
    assert_int_equal(model_write(&now, engine, 0, 0, 300, 1), 0);
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint made;
    assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, NULL), 0);
    assert_int_equal(model_write(&now, engine, 0, 100, 300, 2), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    model_copy(&flushed, &now);
    assert_int_equal(model_write(&now, engine, 0, 600, 300, 3), 0);
    told_sync = 0;
    atomic_store(&hook.refuse, RP_ERR_IO);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), -1);
    atomic_store(&hook.refuse, RP_OK);
    // also when syncs work again: what that one lost, a later one does not bring back
    assert_int_equal(rp_engine_flush(engine, 0, NULL), -1);
    struct rp_guid another = vm_operation();
    assert_int_equal(rp_engine_checkpoint(engine, &another, &(struct rp_engine_checkpoint){0}, NULL), -1);
    assert_int_equal(rp_engine_close(engine, NULL), -1);
    assert_int_equal(told_sync, 1);
    rp_fs_memory_cut(hook.memory); // what dropping the page cache does
    engine = vm_open_shared(&hook_fs, VM_DIRECTORY, shm);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_AUTO_FREE char *leaf = vm_leaf(engine, 0);
    struct model then;
    model_new(&then, SIZE);
    for (int i = 0; i < 300; i++)
        then.cells[i] = 1;
    assert_int_equal(rp_engine_changes(engine, leaf, &made.disks[0].id, 0, SIZE, &changed, NULL), 0);
    model_check_changes(&then, &flushed, &changed, false);
    model_settle(&now, &flushed, engine, 0);
    model_check(&now, engine, 0);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    engine = vm_open_shared(&hook_fs, VM_DIRECTORY, shm); // and all is forgotten
    assert_int_equal(verdict_of(engine), RP_RCT_CLEAN);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    rp_engine_checkpoint_clear(&made);
    model_free(&then);
    model_free(&now);
    model_free(&flushed);
    vm_shm_remove(shm);
    rp_fs_memory_free(hook.memory);
}

// ---- the record

static void put_file(struct rp_fs *fs, const char *path, const void *data, size_t size)
{
    struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, NULL);
    assert_non_null(store);
    assert_int_equal(rp_store_pwrite(store, data, size, 0, NULL), 0);
    rp_store_close(store);
}

static void when_a_slot_of_the_record_is_damaged_leaves_are_put_aside(void **state)
{
    (void)state;
    struct rp_fs *fs = rp_fs_memory_new();
    struct model before, now;
    bool there;
    vm_create(fs, VM_DIRECTORY, 1, SIZE);
    struct rp_engine *engine = vm_open(fs, VM_DIRECTORY);
    model_new(&before, SIZE);
    assert_int_equal(model_write(&before, engine, 0, 0, 300, 1), 0);
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint made;
    assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, NULL), 0);
    model_copy(&now, &before);
    assert_int_equal(model_write(&now, engine, 0, 100, 100, 2), 0);
    uint64_t generation = rp_engine_generation(engine);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    // the newest generation rots
    struct rp_store *record = rp_fs_open(fs, VM_DIRECTORY "/" RP_RECORD_NAME, RP_OPEN_WRITE, NULL);
    assert_int_equal(rp_store_pwrite(record, "rot", 3, (generation % 2 ? 0 : RP_RECORD_SLOT) + 90, NULL), 0);
    rp_store_close(record);
    engine = vm_open(fs, VM_DIRECTORY);
    model_check(&before, engine, 0);
    RP_AUTO_FREE char *aside = rp_xasprintf("%s.lost", made.disks[0].leaf_path);
    assert_int_equal(rp_fs_exists(fs, made.disks[0].leaf_path, &there, NULL), 0);
    assert_false(there);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    model_check_file(&now, fs, aside); // whole, and readable above its parent, which nobody wrote to
    rp_engine_checkpoint_clear(&made);
    model_free(&before);
    model_free(&now);
    rp_fs_memory_free(fs);
}

// A leftover goes, with a tracking file of ours that was not finished; what is somebody else's stays.
static void a_half_made_tracking_file_is_looked_at_before_it_is_deleted(void **state)
{
    (void)state;
    for (int foreign = 0; foreign < 2; foreign++) {
        struct rp_fs *fs = rp_fs_memory_new();
        vm_create(fs, VM_DIRECTORY, 1, SIZE);
        struct rp_record *record = rp_xcalloc(1, sizeof *record);
        assert_int_equal(rp_record_read(fs, VM_DIRECTORY, record, NULL), 0);
        assert_int_equal(rp_record_add_scratch(record, VM_DIRECTORY "/child.avhdx", NULL), 0);
        assert_int_equal(rp_record_write(fs, VM_DIRECTORY, record, NULL), 0);
        put_file(fs, VM_DIRECTORY "/child.avhdx", "torn", 4);
        put_file(fs, VM_DIRECTORY "/child.avhdx.rct.new", foreign ? "somebody else's" : "\0\0\0\0\0\0\0\0\0", 9);
        assert_int_equal(rp_engine_close(vm_open(fs, VM_DIRECTORY), NULL), 0);
        bool there;
        assert_int_equal(rp_fs_exists(fs, VM_DIRECTORY "/child.avhdx", &there, NULL), 0);
        assert_false(there);
        assert_int_equal(rp_fs_exists(fs, VM_DIRECTORY "/child.avhdx.rct.new", &there, NULL), 0);
        assert_int_equal(there, foreign);
        rp_record_clear(record);
        free(record);
        rp_fs_memory_free(fs);
    }
}

// ---- changes

static void pages_of_changes_add_up_to_the_whole(void **state)
{
    (void)state;
    enum { BIG = 64 << 20, UNITS = BIG / VM_UNIT };
    struct rp_fs *fs = rp_fs_memory_new();
    vm_create(fs, VM_DIRECTORY, 1, BIG);
    struct rp_engine *engine = vm_open(fs, VM_DIRECTORY);
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint made;
    assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, NULL), 0);
    uint64_t seed = test_seed();
    static const uint8_t data[512] = {1};
    for (int i = 0; i < UNITS / 3; i++)
        assert_int_equal(rp_engine_write(engine, 0, data, 512, test_random(&seed) % UNITS * VM_UNIT, false, NULL), 0);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges whole = {0};
    const char *leaf = made.disks[0].leaf_path;
    const struct rp_rct_id *id = &made.disks[0].id;
    assert_int_equal(rp_engine_changes(engine, leaf, id, 0, BIG, &whole, NULL), 0);
    static const size_t limits[] = {1, 2, 7, 100, 100000};
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges all = {0};
        uint64_t at = 0;
        while (at < BIG) {
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges page = {0};
            uint64_t processed;
            assert_int_equal(rp_engine_changes_page(engine, leaf, id, at, BIG - at, limits[l], &page, &processed, NULL), 0);
            assert_true(page.count <= limits[l] && processed && processed <= BIG - at);
            assert_true(page.count == limits[l] || at + processed == BIG);
            for (size_t i = 0; i < page.count; i++) {
                assert_true(page.items[i].offset + page.items[i].length <= at + processed);
                rp_ranges_add(&all, page.items[i].offset, page.items[i].length);
            }
            at += processed;
        }
        assert_int_equal(all.count, whole.count);
        assert_memory_equal(all.items, whole.items, whole.count * sizeof *whole.items);
    }
    rp_engine_checkpoint_clear(&made);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    rp_fs_memory_free(fs);
}

// ---- the pause. The linker leads these calls of the engine here.

static struct rp_gate *watched_gate;

void __real_rp_gate_close(struct rp_gate *gate);
void __wrap_rp_gate_close(struct rp_gate *gate);
void __wrap_rp_gate_close(struct rp_gate *gate)
{
    if (gate == watched_gate) {
        checkpointer = pthread_self();
        atomic_store(&watching, true);
    }
    __real_rp_gate_close(gate);
}
void __real_rp_gate_open(struct rp_gate *gate);
void __wrap_rp_gate_open(struct rp_gate *gate);
void __wrap_rp_gate_open(struct rp_gate *gate)
{
    __real_rp_gate_open(gate);
    if (gate == watched_gate)
        atomic_store(&watching, false);
}
unsigned __real_rp_gate_enter(struct rp_gate *gate);
unsigned __wrap_rp_gate_enter(struct rp_gate *gate);
unsigned __wrap_rp_gate_enter(struct rp_gate *gate)
{
    unsigned token = __real_rp_gate_enter(gate);
    inside += gate == watched_gate;
    return token;
}
void __real_rp_gate_leave(struct rp_gate *gate, unsigned token);
void __wrap_rp_gate_leave(struct rp_gate *gate, unsigned token);
void __wrap_rp_gate_leave(struct rp_gate *gate, unsigned token)
{
    inside -= gate == watched_gate && inside;
    __real_rp_gate_leave(gate, token);
}
int __real_rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err);
int __wrap_rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err);
int __wrap_rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err)
{
    note(CALL_WRITE); // a request may still take a page for what it changes
    return __real_rp_shm_reserve(shm, offset, length, err);
}
struct rp_shm *__real_rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err);
struct rp_shm *__wrap_rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err);
struct rp_shm *__wrap_rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err)
{
    note(CALL_OTHER);
    return __real_rp_shm_create(directory, name, size, err);
}

static atomic_bool stop;

static void *write_on(void *argument)
{
    struct rp_engine *engine = argument;
    static const uint8_t data[VM_CELL] = {1};
    uint64_t seed = (uint64_t)(uintptr_t)&seed | 1;
    while (!atomic_load(&stop)) {
        uint64_t r = test_random(&seed);
        assert_int_equal(rp_engine_write(engine, r % 2, data, VM_CELL, r / 2 % CELLS * VM_CELL, false, NULL), 0);
    }
    return NULL;
}

static void nothing_is_made_or_synced_while_the_guest_waits_for_a_checkpoint(void **state)
{
    (void)state;
    enum { WRITERS = 4 };
    RP_AUTO_FREE char *shm = vm_shm_new();
    pthread_t threads[WRITERS];
    hook.memory = rp_fs_memory_new();
    vm_create(&hook_fs, VM_DIRECTORY, 2, SIZE);
    struct rp_engine *engine = vm_open_shared(&hook_fs, VM_DIRECTORY, shm);
    watched_gate = engine->gate;
    atomic_store(&stop, false);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, engine), 0);
    for (int i = 0; i < 30; i++) {
        usleep(3000);
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint made;
        struct rp_error err = {0};
        if (rp_engine_checkpoint(engine, &operation, &made, &err))
            fail_msg("%s", err.text);
        rp_engine_checkpoint_clear(&made);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    watched_gate = NULL;
    assert_int_equal(atomic_load(&by_checkpointer), 0);
    assert_int_equal(atomic_load(&waited_for), 0);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    vm_shm_remove(shm);
    rp_fs_memory_free(hook.memory);
}

// ---- the background

static void the_background_writes_the_trackers_and_ids_survive_a_power_cut_narrowly(void **state)
{
    (void)state;
    enum { BIG = 256 << 20 };
    RP_AUTO_FREE char *shm = vm_shm_new();
    struct rp_fs *fs = rp_fs_memory_new();
    static const uint8_t data[VM_CELL] = {1};
    vm_create(fs, VM_DIRECTORY, 1, BIG);
    struct rp_engine *engine = vm_open_shared(fs, VM_DIRECTORY, shm);
    struct rp_guid operation = vm_operation();
    struct rp_engine_checkpoint made;
    assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, NULL), 0);
    uint64_t far = (uint64_t)1 << 62; // later than any 30 seconds
    for (int i = 0; i < 16; i++)
        assert_int_equal(rp_engine_write(engine, 0, data, VM_CELL, (uint64_t)i << 24, false, NULL), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    for (int i = 0; i < 3; i++) // regions in use are kept for another round
        rp_flusher_look(engine, far + (uint64_t)i * 31000000000u);
    assert_int_equal(rp_engine_write(engine, 0, data, VM_CELL, 5 << 20, false, NULL), 0);
    assert_int_equal(rp_engine_flush(engine, 0, NULL), 0);
    rp_engine_abandon(engine);
    rp_fs_memory_cut(fs);
    vm_shm_remove(shm);
    engine = vm_open_shared(fs, VM_DIRECTORY, shm);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_AUTO_FREE char *leaf = vm_leaf(engine, 0);
    assert_int_equal(rp_engine_changes(engine, leaf, &made.disks[0].id, 0, BIG, &changed, NULL), 0);
    // 16 units, and the region of the last write; not the sixteen regions
    assert_true(rp_ranges_total(&changed) >= 17 * VM_UNIT);
    assert_true(rp_ranges_total(&changed) <= 16 * VM_UNIT + (4 << 20));
    rp_engine_checkpoint_clear(&made);
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    vm_shm_remove(shm);
    rp_fs_memory_free(fs);
}

int main(void)
{
    rp_log_set_sink(listen);
    rp_log_set_level(RP_LOG_INFO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_in_shared_memory_comes_and_goes_with_its_engine),
        cmocka_unit_test(a_switch_that_found_no_room_in_the_end_leaves_its_checkpoint_in_doubt),
        cmocka_unit_test(a_full_file_system_is_one_message_and_costs_nothing_that_was_written),
        cmocka_unit_test(a_failed_sync_of_the_tracking_fails_the_flushes_after_it),
        cmocka_unit_test(a_failed_sync_is_final_and_the_next_open_trusts_only_the_disk),
        cmocka_unit_test(when_a_slot_of_the_record_is_damaged_leaves_are_put_aside),
        cmocka_unit_test(a_half_made_tracking_file_is_looked_at_before_it_is_deleted),
        cmocka_unit_test(pages_of_changes_add_up_to_the_whole),
        cmocka_unit_test(nothing_is_made_or_synced_while_the_guest_waits_for_a_checkpoint),
        cmocka_unit_test(the_background_writes_the_trackers_and_ids_survive_a_power_cut_narrowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
