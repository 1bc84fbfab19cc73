// What the files do not have yet is kept in shared memory; and what a killed engine left there goes into the files, before
// anything is opened. A step that is killed itself is repeated by the next engine. When the power goes, so does this memory,
// and what the files say counts.
#include <dirent.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "diskservice/switch.h"

// Says that a sync failed. As long as this boot lasts, what the page cache says of these files is not what the disk holds.
#define FAILED_NAME "failed"

static void no_shared_memory(const struct rp_error *why)
{
    rp_log(RP_LOG_WARNING, "no shared memory, so a killed disk service loses what was not flushed: %s", why->text);
}

char *rp_engine_shm_directory(struct rp_fs *fs, const char *vm_directory)
{
    struct rp_error err = {0};
    char *directory = fs == rp_fs_posix() ? rp_shm_directory(vm_directory, &err) : NULL;
    if (err.code)
        no_shared_memory(&err);
    return directory;
}

void rp_engine_make_shm(struct rp_engine *engine, const char *directory)
{
    struct rp_error err = {0};
    if (directory && rp_shm_make(directory, engine->directory, &err))
        no_shared_memory(&err);
    else if (directory)
        engine->shm_directory = rp_xstrdup(directory);
    if (engine->shm_directory)
        rp_shm_sweep(directory);
}

void rp_engine_forget(struct rp_fs *fs, const char *vm_directory)
{
    RP_AUTO_FREE char *directory = rp_engine_shm_directory(fs, vm_directory);
    if (directory)
        rp_shm_clean(directory);
}

static bool has_files(const char *directory)
{
    DIR *folder = opendir(directory);
    struct dirent *entry;
    bool found = false;
    while (folder && !found && (entry = readdir(folder)))
        found = entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return found;
}

bool rp_engine_left_behind(struct rp_fs *fs, const char *vm_directory)
{
    if (fs != rp_fs_posix() || rp_engine_ended(fs, vm_directory))
        return false;
    RP_AUTO_FREE char *directory = rp_engine_shm_directory(fs, vm_directory);
    return directory && has_files(directory);
}

static char *shm_name(const struct rp_store_identity *identity, const char *kind)
{
    return rp_xasprintf("%" PRIx64 "-%" PRIx64 ".%s", identity->device, identity->inode, kind);
}

// ---- sharing

static struct rp_shm *make_shm(struct rp_engine *engine, struct rp_layer *layer, const char *kind, size_t size, struct rp_error *err)
{
    struct rp_store_identity identity;
    if (rp_store_identity(layer->lock, &identity, err))
        return NULL;
    RP_AUTO_FREE char *name = shm_name(&identity, kind);
    return rp_shm_create(engine->shm_directory, name, size, err);
}

static bool share_disk(struct rp_engine *engine, struct rp_layer *layer, struct rp_error *err)
{
    struct rp_shm *shm = make_shm(engine, layer, "vhdx", rp_vhdx_shm_size(), err);
    if (shm && !rp_vhdx_share(layer->vhdx, shm, err))
        return true;
    rp_shm_remove(shm);
    return false;
}

static bool share_tracking(struct rp_engine *engine, struct rp_layer *layer, struct rp_error *err)
{
    struct rp_shm *shm = make_shm(engine, layer, "rct", rp_rct_shm_size(), err);
    if (shm && !rp_rct_share(layer->rct, shm, err))
        return true;
    rp_shm_remove(shm);
    return false;
}

void rp_layer_share(struct rp_engine *engine, struct rp_layer *layer)
{
    struct rp_error err = {0};
    if (!engine->shm_directory)
        return;
    if (layer->vhdx && !layer->disk_shared)
        layer->disk_shared = share_disk(engine, layer, &err);
    if (layer->rct && !layer->tracking_shared && (!layer->vhdx || layer->disk_shared))
        layer->tracking_shared = share_tracking(engine, layer, &err);
    if (err.code)
        rp_log(RP_LOG_WARNING, "%s: not kept in shared memory, so a killed disk service loses what was not flushed: %s", layer->path, err.text);
}

static void remove_left(struct rp_engine *engine, const struct rp_store_identity *identity, const char *kind)
{
    RP_AUTO_FREE char *name = shm_name(identity, kind);
    rp_shm_remove(rp_shm_open(engine->shm_directory, name, NULL));
}

void rp_layer_discard(struct rp_engine *engine, struct rp_layer *layer)
{
    struct rp_store_identity identity;
    bool shared = layer && engine->shm_directory && (layer->disk_shared || layer->tracking_shared) &&
                  !rp_store_identity(layer->lock, &identity, NULL);
    rp_layer_release(layer);
    if (shared) {
        remove_left(engine, &identity, "vhdx");
        remove_left(engine, &identity, "rct");
    }
}

// ---- adopting

// `*shm` NULL: there is nothing. -1: the one that has it lives.
static int open_left(struct rp_engine *engine, const char *name, struct rp_shm **shm, struct rp_error *err)
{
    struct rp_error why = {0};
    *shm = rp_shm_open(engine->shm_directory, name, &why);
    if (why.code == RP_ERR_BUSY)
        return rp_fail(err, RP_ERR_BUSY, "%s", why.text);
    if (why.code && why.code != RP_ERR_NOT_FOUND)
        rp_log(RP_LOG_WARNING, "left as it is: %s", why.text);
    return 0;
}

static int adopt_disk(struct rp_engine *engine, const char *path, const char *name, bool *whole, struct rp_error *err)
{
    RP_CLEANUP(rp_shm_close_p) struct rp_shm *shm = NULL;
    struct rp_error why = {0};
    if (open_left(engine, name, &shm, err))
        return -1;
    if (shm && !rp_vhdx_adopt(engine->fs, path, 0, shm, &why)) {
        rp_log(RP_LOG_INFO, "%s: what a killed disk service had not written yet is in the file now", path);
        return 0;
    }
    bool passes = why.code == RP_ERR_BUSY || why.code == RP_ERR_NO_SPACE || why.code == RP_ERR_NO_MEMORY;
    if (shm && passes)
        return rp_fail_as(err, &why);
    if (shm && why.code != RP_ERR_STATE) {
        struct rp_error advice = {0};
        rp_fail(&advice, why.code, "%s; if it stays so: to go on without what the killed disk service had not written, delete %s/%s", why.text,
                engine->shm_directory, name);
        advice.sync = why.sync;
        return rp_fail_as(err, &advice);
    }
    if (shm)
        rp_log(RP_LOG_INFO, "%s: not as a killed disk service left it: %s", path, why.text);
    // Without it, a file that was closed or frozen lacks nothing.
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(engine->fs, path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, &why);
    *whole = !shm && vhdx && !rp_vhdx_info(vhdx)->dirty_log;
    return 0;
}

static int adopt_tracking(struct rp_engine *engine, const char *path, const char *name, struct rp_error *err)
{
    RP_CLEANUP(rp_shm_close_p) struct rp_shm *shm = NULL;
    struct rp_rct_disk disk;
    struct rp_error why = {0};
    if (open_left(engine, name, &shm, err))
        return -1;
    if (!shm || rp_layer_state_at_rest(engine->fs, path, &disk, NULL) || !rp_rct_adopt(engine->fs, path, &disk, shm, &why))
        return 0;
    if (why.code != RP_ERR_STATE && why.code != RP_ERR_TRACKING_OFF && why.code != RP_ERR_NOT_FOUND)
        return rp_fail_as(err, &why);
    rp_log(RP_LOG_INFO, "%s: its tracking is not as a killed disk service left it: %s", path, why.text);
    return 0;
}

// Ends the dead session of one file. `*whole`: the file holds everything that was written to it.
static int adopt_file(struct rp_engine *engine, const char *path, bool *whole, struct rp_error *err)
{
    *whole = true;
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(engine->fs, path, RP_OPEN_READ, NULL);
    struct rp_store_identity identity;
    if (!store || rp_store_identity(store, &identity, NULL)) { // opening it will say why
        *whole = false;
        return 0;
    }
    RP_AUTO_FREE char *disk = shm_name(&identity, "vhdx"), *tracking = shm_name(&identity, "rct");
    return adopt_disk(engine, path, disk, whole, err) || adopt_tracking(engine, path, tracking, err) ? -1 : 0;
}

// What looks durable may be in the page cache only: its writer was killed before its sync.
static int settle_files(struct rp_engine *engine, const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *tracking = rp_rct_path(path);
    const char *const paths[] = {path, tracking};
    for (size_t i = 0; i < 2; i++) {
        bool exists;
        if (rp_fs_exists(engine->fs, paths[i], &exists, err))
            return -1;
        if (!exists)
            continue;
        RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(engine->fs, paths[i], RP_OPEN_READ, err);
        if (!store || rp_store_settle(store, err))
            return -1;
    }
    return 0;
}

// A switch that the guest saw: the files below its new leaves, which are frozen then, are ended like any other, and the record
// that names the new leaves is written. After a merge, in which the leaf was given up, the new one holds all that the old one
// did, and that must be durable before.
static int finish_switch(struct rp_engine *engine, struct rp_record *next, struct rp_error *err)
{
    for (size_t i = 0; i < engine->record.count; i++) {
        const char *path = engine->record.disks[i].leaf_path;
        bool whole;
        if (i < next->count && !strcmp(path, next->disks[i].leaf_path))
            continue;
        bool merged = i < next->count && rp_record_has_scratch(next, path);
        const char *needed = merged ? next->disks[i].leaf_path : path;
        if (adopt_file(engine, needed, &whole, err) || (whole && settle_files(engine, needed, err)))
            return -1;
        if (whole)
            continue;
        if (merged) {
            rp_log(RP_LOG_ERROR, "%s: was changed after its disk service was killed: what was written last is lost, as by a power cut", needed);
            return 0;
        }
        rp_log(RP_LOG_ERROR, "%s: was changed after its disk service was killed: what the guest wrote after its last checkpoint "
                             "does not fit it any more", path);
        engine->record.damaged = true; // the new leaves are put aside
        return 0;
    }
    next->generation = engine->record.generation;
    next->damaged = engine->record.damaged;
    rp_record_clear(&engine->record);
    engine->record = *next;
    *next = (struct rp_record){0};
    if (rp_engine_write_record(engine, err))
        return -1;
    rp_log(RP_LOG_INFO, "%s: finished the switch to new leaves that a killed disk service had begun", engine->directory);
    return 0;
}

// After a failed sync the page cache holds what the disk may not: from here on, what is read is what is there.
static void drop_caches(struct rp_engine *engine, const char *leaf)
{
    RP_AUTO_FREE char *path = rp_xstrdup(leaf);
    for (int depth = 0; path && depth < RP_CHAIN_MAX_DEPTH; depth++) {
        RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(engine->fs, path, RP_OPEN_READ, NULL);
        RP_AUTO_FREE char *tracking = rp_rct_path(path);
        RP_CLEANUP(rp_store_close_p) struct rp_store *rct = rp_fs_open(engine->fs, tracking, RP_OPEN_READ, NULL);
        if (store)
            rp_store_drop_cache(store, 0, 0);
        if (rct)
            rp_store_drop_cache(rct, 0, 0);
        RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(engine->fs, path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, NULL);
        free(path);
        path = vhdx && rp_vhdx_info(vhdx)->has_parent ? rp_xstrdup(rp_vhdx_info(vhdx)->parent_path) : NULL;
    }
}

void rp_engine_sync_failed(struct rp_engine *engine, const struct rp_error *why)
{
    if (why->code != RP_ERR_IO)
        return;
    pthread_mutex_lock(&engine->state);
    bool known = engine->sync_failure.code != RP_OK;
    if (!known)
        engine->sync_failure = *why;
    pthread_mutex_unlock(&engine->state);
    if (known)
        return;
    rp_log(RP_LOG_ERROR, "%s: what was written may not have reached the disk: %s. Flushes fail from now on. Look after the storage, "
                         "then stop the VM and start it again: its disks will be as they were last made durable", engine->directory, why->text);
    RP_CLEANUP(rp_shm_close_p) struct rp_shm *shm =
        engine->shm_directory ? rp_shm_create(engine->shm_directory, FAILED_NAME, RP_ERROR_TEXT, NULL) : NULL;
    if (shm && !rp_shm_reserve(shm, 0, RP_ERROR_TEXT, NULL))
        memcpy(rp_shm_data(shm), why->text, RP_ERROR_TEXT);
}

void rp_engine_session_failed(struct rp_engine *engine, struct rp_vhdx *vhdx, struct rp_rct *rct)
{
    struct rp_error disk = {0}, tracking = {0};
    if (vhdx && rp_vhdx_failed(vhdx, &disk))
        rp_engine_sync_failed(engine, &disk);
    if (rct && rp_rct_failed(rct, &tracking))
        rp_engine_sync_failed(engine, &tracking);
}

// A leaf that was about to be merged: the parent too was being written. It is not needed for what the guest wrote, which the leaf
// hides; but ended cleanly, its tracking stays exact.
static void adopt_parent(struct rp_engine *engine, const char *leaf)
{
    struct rp_error why = {0};
    bool whole;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(engine->fs, leaf, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, NULL);
    const char *parent = vhdx && rp_vhdx_info(vhdx)->has_parent ? rp_vhdx_info(vhdx)->parent_path : NULL;
    if (parent && adopt_file(engine, parent, &whole, &why))
        rp_log(RP_LOG_WARNING, "left as it is: %s", why.text);
}

int rp_engine_adopt(struct rp_engine *engine, struct rp_error *err)
{
    if (!engine->shm_directory)
        return 0;
    RP_CLEANUP(rp_shm_close_p) struct rp_shm *failed = NULL;
    RP_AUTO_FREE struct rp_record *next = rp_xcalloc(1, sizeof *next);
    if (open_left(engine, FAILED_NAME, &failed, err))
        return -1;
    int announced = rp_switch_left(engine, next, err);
    bool whole;
    if (announced < 0)
        return -1;
    if (failed) {
        rp_log(RP_LOG_WARNING, "%s: a sync failed when these disks were last open (%.*s): they are taken as they were last made durable",
               engine->directory, rp_shm_has(failed, 0, RP_ERROR_TEXT) ? RP_ERROR_TEXT - 1 : 0, (const char *)rp_shm_data(failed));
        engine->record.damaged |= announced;
        for (size_t i = 0; i < engine->record.count; i++)
            drop_caches(engine, engine->record.disks[i].leaf_path);
        rp_record_clear(next);
        return 0;
    }
    int rc = announced ? finish_switch(engine, next, err) : 0;
    rp_record_clear(next);
    for (size_t i = 0; !rc && i < engine->record.count; i++)
        rc = adopt_file(engine, engine->record.disks[i].leaf_path, &whole, err);
    for (size_t i = 0; !rc && i < engine->record.count; i++)
        adopt_parent(engine, engine->record.disks[i].leaf_path);
    return rc ? rp_context(err, "take over from the disk service of %s that was killed", engine->directory) : 0;
}
