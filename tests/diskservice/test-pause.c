// While the guest is stopped, by a checkpoint or at the end of a merge, nothing is synced, made, grown or deleted: a file system
// that looks at every call whether the engine is in a pause.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/num.h"
#include "diskservice/chains.h"
#include "io/memory.h"
#include "vm.h"

static struct rp_fs *memory;
static struct rp_engine *watched;
static const struct rp_store_ops *below;
static struct rp_store_ops ops;
static atomic_uint writes, waits; // in a pause: of bytes; of what may wait for a disk

// Only a pause holds both locks: the engine's thread in the background, which takes one of them, has been stopped.
static bool in_pause(void)
{
    if (!watched || !pthread_mutex_trylock(&watched->flushing)) {
        if (watched)
            pthread_mutex_unlock(&watched->flushing);
        return false;
    }
    if (pthread_mutex_trylock(&watched->chains))
        return true;
    pthread_mutex_unlock(&watched->chains);
    return false;
}

static void count(atomic_uint *counter)
{
    if (in_pause())
        atomic_fetch_add(counter, 1);
}

static int seen_pwrite(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    count(&writes);
    return below->pwrite(store, data, size, offset, err);
}
static int seen_flush(struct rp_store *store, struct rp_error *err)
{
    count(&waits);
    return below->flush(store, err);
}
static int seen_truncate(struct rp_store *store, uint64_t size, struct rp_error *err)
{
    count(&waits);
    return below->truncate(store, size, err);
}

static struct rp_store *seen_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    (void)fs;
    count(&waits);
    struct rp_store *store = rp_fs_open(memory, path, flags, err);
    if (store && !below) {
        below = store->ops;
        ops = *below;
        ops.pwrite = seen_pwrite;
        ops.flush = seen_flush;
        ops.truncate = seen_truncate;
    }
    if (store)
        store->ops = &ops;
    return store;
}
static int seen_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    (void)fs;
    count(&waits);
    return rp_fs_rename(memory, from, to, err);
}
static int seen_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    (void)fs;
    count(&waits);
    return rp_fs_unlink(memory, path, err);
}
static int seen_sync(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    (void)fs;
    count(&waits);
    return memory->ops->sync_directory(memory, directory, err);
}
static int seen_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    (void)fs;
    return rp_fs_exists(memory, path, exists, err);
}
static const struct rp_fs_ops fs_ops = {seen_open, seen_rename, seen_unlink, seen_sync, seen_exists};
static struct rp_fs seen_fs = {&fs_ops};

static void no_pause_waits_for_a_disk(void **state)
{
    (void)state;
    enum { DISKS = 4, SIZE = 12 << 20, ROUNDS = 6 };
    struct model models[DISKS];
    uint64_t seed = 7;
    memory = rp_fs_memory_new();
    vm_create(&seen_fs, VM_DIRECTORY, DISKS, SIZE);
    struct rp_engine *engine = vm_open(&seen_fs, VM_DIRECTORY);
    rp_flusher_stop(engine);
    watched = engine;
    for (size_t i = 0; i < DISKS; i++)
        model_new(&models[i], SIZE);
    for (int round = 0; round < ROUNDS; round++) {
        vm_merge_by(engine, round % 2);
        struct rp_guid operation = vm_operation();
        struct rp_engine_checkpoint made;
        for (size_t i = 0; i < DISKS; i++)
            assert_int_equal(model_change_some(&models[i], engine, i, 20, &seed), 0);
        assert_int_equal(rp_engine_checkpoint(engine, &operation, &made, NULL), 0);
        assert_int_equal(atomic_load(&writes), 0);
        assert_int_equal(atomic_load(&waits), 0);
        for (size_t i = 0; i < DISKS; i++) {
            assert_int_equal(model_change_some(&models[i], engine, i, 20, &seed), 0);
            assert_int_equal(vm_merge(engine, made.disks[i].leaf_path, NULL), 0);
            model_check(&models[i], engine, i);
        }
        rp_engine_checkpoint_clear(&made);
        if (round % 2 == 0) // in one go: all of it in the pause, from page cache to page cache
            assert_true(atomic_load(&writes) > 0);
        atomic_store(&writes, 0);
        assert_int_equal(atomic_load(&waits), 0);
    }
    watched = NULL;
    assert_int_equal(rp_engine_close(engine, NULL), 0);
    for (size_t i = 0; i < DISKS; i++)
        model_free(&models[i]);
    rp_fs_memory_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_pause_waits_for_a_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
