// Opening and closing the disks of a VM, and the facts about them.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "diskservice/switch.h"

enum { SETTLE_PATIENCE_MS = 300000, SETTLE_EVERY_MS = 100 };

#define ENDED "ended\n"

// At no moment the file is empty, or short of a block for the next text when the file system has none left. Not durable.
static int write_lock_text(struct rp_engine *engine, const char *text, struct rp_error *err)
{
    size_t size = strlen(text);
    return rp_store_pwrite(engine->lock, text, size, 0, err) || rp_store_truncate(engine->lock, size, err) ? -1 : 0;
}

static int take_vm_lock(struct rp_engine *engine, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(engine->directory, RP_ENGINE_LOCK);
    struct rp_error why = {0};
    engine->lock = rp_fs_open(engine->fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, &why);
    if (!engine->lock && why.code == RP_ERR_EXISTS)
        engine->lock = rp_fs_open(engine->fs, path, RP_OPEN_WRITE, err);
    else if (!engine->lock && err && !err->code)
        *err = why;
    if (!engine->lock)
        return -1;
    if (rp_store_lock(engine->lock, true, err))
        return rp_context(err, "the disks of %s", engine->directory);
    // For people: who has it.
    RP_AUTO_FREE char *text = rp_xasprintf("pid %ld\nsocket %s/control.sock\n", (long)getpid(), engine->directory);
    return write_lock_text(engine, text, err);
}

bool rp_engine_ended(struct rp_fs *fs, const char *vm_directory)
{
    RP_AUTO_FREE char *path = rp_path_join(vm_directory, RP_ENGINE_LOCK);
    RP_CLEANUP(rp_store_close_p) struct rp_store *lock = rp_fs_open(fs, path, RP_OPEN_READ, NULL);
    uint64_t size = 0;
    char text[sizeof ENDED - 1];
    if (!lock || rp_store_size(lock, &size, NULL) || size < sizeof text)
        return true;
    return !rp_store_pread(lock, text, sizeof text, 0, NULL) && !memcmp(text, ENDED, sizeof text);
}

// Opens the parents of the file that `info` describes, root first, and links them to each other.
static int open_parents(struct rp_engine *engine, struct rp_engine_chain *disk, const struct rp_vhdx_info *info,
                        struct rp_error *err)
{
    struct rp_layer *found[RP_CHAIN_MAX_DEPTH]; // from the leaf's parent down to the root
    size_t count = 0;
    int failed = 0;
    while (!failed && info->has_parent) {
        if (count == RP_CHAIN_MAX_DEPTH - 1)
            failed = rp_fail(err, RP_ERR_CORRUPT, "%s: more than %d files in its chain", info->parent_path, RP_CHAIN_MAX_DEPTH);
        else if (!(found[count] = rp_layer_open_frozen(engine->fs, info->parent_path, err)))
            failed = -1;
        else
            info = rp_vhdx_info(found[count++]->vhdx);
    }
    while (count) // also on failure: they are closed with the disk
        disk->layers[disk->depth++] = found[--count];
    for (size_t i = 1; !failed && i < disk->depth; i++)
        failed = rp_vhdx_set_parent(disk->layers[i]->vhdx, disk->layers[i - 1]->vhdx, err);
    for (size_t i = 0; !failed && i < disk->depth; i++)
        rp_layer_finish_tracking(engine->fs, disk->layers[i]);
    return failed;
}

static int open_disk(struct rp_engine *engine, const struct rp_record_disk *entry, struct rp_engine_chain *disk, struct rp_error *err)
{
    disk->throttle = rp_throttle_new();
    disk->number = entry->number;
    disk->disk_id = entry->disk_id;
    struct rp_layer *leaf = rp_layer_lock_leaf(engine->fs, entry->leaf_path, err);
    if (!leaf)
        return -1;
    // A look without touching the file: the tracker must have recorded the session before the file is changed.
    struct rp_vhdx *probe = rp_vhdx_open(engine->fs, entry->leaf_path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, err);
    struct rp_rct_disk state;
    int failed = !probe || rp_rct_disk_of(probe, &state, err) || open_parents(engine, disk, rp_vhdx_info(probe), err);
    if (!failed && !rp_guid_equal(&entry->disk_id, &rp_vhdx_info(probe)->disk_id))
        failed = rp_fail(err, RP_ERR_STATE, "%s: is not the disk that the chain record names", entry->leaf_path);
    struct rp_layer *parent = disk->depth ? rp_chain_leaf(disk) : NULL;
    if (!failed && parent)
        failed = rp_vhdx_set_parent(probe, parent->vhdx, err);
    rp_vhdx_abandon(probe);
    if (failed) {
        rp_layer_release(leaf);
        return -1;
    }

    disk->layers[disk->depth++] = leaf;
    disk->live = true;
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    struct rp_error why = {0};
    leaf->rct = rp_rct_open_write(engine->fs, leaf->path, &state, &session, &disk->verdict, &why);
    if (!leaf->rct && why.code != RP_ERR_TRACKING_OFF) {
        if (err && !err->code)
            *err = why;
        return -1;
    }
    if (!leaf->rct) {
        leaf->rct_unusable = true;
        rp_log(RP_LOG_WARNING, "changes of %s are not tracked: %s", leaf->path, why.text);
    }
    rp_layer_share(engine, leaf);
    leaf->vhdx = rp_vhdx_open(engine->fs, leaf->path, RP_VHDX_WRITE | RP_VHDX_NO_LOCK, &session, err);
    if (!leaf->vhdx)
        return -1;
    rp_layer_share(engine, leaf);
    if (parent && rp_vhdx_set_parent(leaf->vhdx, parent->vhdx, err))
        return -1;
    rp_engine_publish(engine, disk);
    return 0;
}

// What we read may be in the page cache only: its writer was killed before its sync, or the sync failed. Before anything is
// built on it, or deleted because of it, it is written once more, the same bytes to the same place, and synced.
static int confirm_record(struct rp_engine *engine, struct rp_error *err)
{
    engine->record.generation--;
    if (!rp_record_write(engine->fs, engine->directory, &engine->record, err))
        return 0;
    engine->record.generation++;
    return -1;
}

// The same for the files that name their parents: a leftover goes when it is durable that nobody needs it.
static int sync_layers(struct rp_engine *engine, struct rp_error *err)
{
    for (size_t i = 0; i < engine->count; i++)
        for (size_t j = 0; j < engine->disks[i].depth; j++)
            if (rp_store_flush(engine->disks[i].layers[j]->lock, err))
                return -1;
    return 0;
}

struct rp_engine *rp_engine_open(struct rp_fs *fs, const char *vm_directory, const char *shm_directory, struct rp_error *err)
{
    struct rp_engine *engine = rp_xcalloc(1, sizeof *engine);
    engine->fs = fs;
    engine->directory = rp_xstrdup(vm_directory);
    engine->gate = rp_gate_new();
    pthread_mutex_init(&engine->flushing, NULL);
    pthread_mutex_init(&engine->chains, NULL);
    pthread_mutex_init(&engine->state, NULL);
    pthread_cond_init(&engine->changed, NULL);
    engine->merge_throttle = rp_throttle_new();
    struct rp_error why = {0};
    int failed = take_vm_lock(engine, &why);
    if (!failed) // before the first sync: one that fails is noted there
        rp_engine_make_shm(engine, shm_directory);
    failed = failed || rp_record_read(fs, vm_directory, &engine->record, &why) || confirm_record(engine, &why) ||
             rp_engine_adopt(engine, &why);
    for (size_t i = 0; !failed && i < engine->record.count; i++) {
        engine->count++;
        failed = open_disk(engine, &engine->record.disks[i], &engine->disks[i], &why);
        if (failed)
            rp_context(&why, "open disk%" PRIu32 " of %s", engine->record.disks[i].number, vm_directory);
    }
    if (failed) {
        if (why.sync) // or the next open would trust the page cache
            rp_engine_sync_failed(engine, &why);
        rp_engine_close(engine, NULL);
        rp_fail_as(err, &why);
        return NULL;
    }
    engine->generation = engine->record.generation;
    engine->opened = true;
    rp_switch_open(engine);
    if (engine->shm_directory)
        rp_shm_clean(engine->shm_directory); // what was adopted, or is of no use
    if (engine->record.scratch_count && sync_layers(engine, &why)) {
        rp_log(RP_LOG_WARNING, "leftovers in %s stay: %s", engine->directory, why.text);
        rp_engine_sync_failed(engine, &why);
    } else {
        rp_engine_sweep(engine);
    }
    rp_flusher_start(engine);
    return engine;
}

static void free_engine(struct rp_engine *engine)
{
    for (size_t i = 0; i < engine->count; i++) {
        while (engine->disks[i].depth)
            rp_layer_release(engine->disks[i].layers[--engine->disks[i].depth]);
        free(engine->disks[i].facts.leaf_path);
        rp_throttle_free(engine->disks[i].throttle);
    }
    rp_record_clear(&engine->record);
    rp_store_close(engine->lock); // last: the next one may open the disks now
    rp_throttle_free(engine->merge_throttle);
    rp_gate_free(engine->gate);
    pthread_mutex_destroy(&engine->flushing);
    pthread_mutex_destroy(&engine->chains);
    pthread_mutex_destroy(&engine->state);
    pthread_cond_destroy(&engine->changed);
    free(engine->directory);
    free(engine->shm_directory);
    free(engine);
}

// The disk first, then the tracking file bound to what the disk is after that.
static int close_leaf(struct rp_engine *engine, struct rp_layer *leaf, struct rp_error *err)
{
    struct rp_rct_disk state;
    struct rp_rct *rct = leaf->rct;
    struct rp_vhdx *vhdx = leaf->vhdx;
    leaf->rct = NULL;
    leaf->vhdx = NULL;
    if ((vhdx && rp_vhdx_close(vhdx, err)) || (rct && rp_layer_state_at_rest(engine->fs, leaf->path, &state, err))) {
        rp_rct_abandon(rct);
        return -1;
    }
    return rct ? rp_rct_close(rct, &state, err) : 0;
}

int rp_engine_close(struct rp_engine *engine, struct rp_error *err)
{
    rp_engine_stop_merge(engine);
    rp_flusher_stop(engine);
    int failed = rp_engine_check(engine, err); // the record does not name these leaves: they end as after a crash
    for (size_t i = 0; i < engine->count && !engine->failed; i++) {
        struct rp_engine_chain *disk = &engine->disks[i];
        struct rp_error why = {0};
        if (!disk->live || !close_leaf(engine, rp_chain_leaf(disk), &why))
            continue;
        failed = rp_fail_as(err, &why);
        if (engine->opened)
            rp_engine_sync_failed(engine, &why);
    }
    bool clean = !failed && engine->opened && !engine->sync_failure.code; // that one the next open has to know of
    rp_switch_close(engine, clean);
    if (clean && engine->shm_directory)
        rp_shm_clean(engine->shm_directory);
    else if (engine->shm_directory)
        rp_shm_drop(engine->shm_directory);
    if (clean)
        write_lock_text(engine, ENDED, NULL);
    free_engine(engine);
    return failed ? -1 : 0;
}

void rp_engine_abandon(struct rp_engine *engine)
{
    if (!engine)
        return;
    rp_engine_stop_merge(engine);
    rp_flusher_stop(engine);
    rp_switch_close(engine, false);
    free_engine(engine);
}

void rp_engine_cancel(struct rp_engine *engine) { atomic_store(&engine->cancel, true); }

size_t rp_engine_disk_count(const struct rp_engine *engine) { return engine->count; }

void rp_engine_publish(struct rp_engine *engine, struct rp_engine_chain *disk)
{
    struct rp_layer *leaf = rp_chain_leaf(disk);
    const struct rp_vhdx_info *info = rp_vhdx_info(leaf->vhdx);
    pthread_mutex_lock(&engine->state);
    free(disk->facts.leaf_path);
    disk->facts = (struct rp_engine_disk){
        .disk_id = disk->disk_id,
        .size = info->size,
        .logical_sector = info->logical_sector,
        .physical_sector = info->physical_sector,
        .block_size = info->block_size,
        .leaf_path = rp_xstrdup(leaf->path),
        .verdict = disk->verdict,
        .tracked = leaf->rct != NULL,
    };
    snprintf(disk->facts.name, sizeof disk->facts.name, "disk%" PRIu32, disk->number);
    pthread_mutex_unlock(&engine->state);
}

void rp_engine_disk(struct rp_engine *engine, size_t index, struct rp_engine_disk *out)
{
    pthread_mutex_lock(&engine->state);
    *out = engine->disks[index].facts;
    out->leaf_path = rp_xstrdup(out->leaf_path);
    pthread_mutex_unlock(&engine->state);
}

int rp_engine_find_disk(struct rp_engine *engine, const char *name)
{
    for (size_t i = 0; i < engine->count; i++) {
        char own[32];
        snprintf(own, sizeof own, "disk%" PRIu32, engine->disks[i].number);
        if (!strcmp(own, name))
            return (int)i;
    }
    return -1;
}

uint64_t rp_engine_generation(struct rp_engine *engine)
{
    pthread_mutex_lock(&engine->state);
    uint64_t generation = engine->generation;
    pthread_mutex_unlock(&engine->state);
    return generation;
}

bool rp_engine_find_layer(struct rp_engine *engine, const char *path, size_t *disk, size_t *layer)
{
    for (size_t i = 0; i < engine->count; i++)
        for (size_t j = 0; j < engine->disks[i].depth; j++)
            if (!strcmp(engine->disks[i].layers[j]->path, path)) {
                *disk = i;
                *layer = j;
                return true;
            }
    return false;
}

uint64_t rp_engine_pause(struct rp_engine *engine)
{
    pthread_mutex_lock(&engine->flushing);
    pthread_mutex_lock(&engine->chains);
    uint64_t paused_at = rp_clock_monotonic_ns();
    rp_gate_close(engine->gate);
    return paused_at;
}

uint64_t rp_engine_resume(struct rp_engine *engine, uint64_t paused_at)
{
    rp_gate_open(engine->gate);
    uint64_t waited = rp_clock_monotonic_ns() - paused_at;
    pthread_mutex_unlock(&engine->chains);
    pthread_mutex_unlock(&engine->flushing);
    return waited;
}

int rp_engine_begin(struct rp_engine *engine, enum rp_engine_turn turn, struct rp_error *err)
{
    pthread_mutex_lock(&engine->state);
    unsigned patience_ms = engine->merge_options.checkpoint_ms ? engine->merge_options.checkpoint_ms : 2000;
    uint64_t deadline = turn == RP_TURN_MERGE ? 0 : rp_clock_monotonic_ns() + patience_ms * (uint64_t)1000000;
    struct timespec until = {(time_t)(deadline / 1000000000), (long)(deadline % 1000000000)};
    int failed = 0, late = !deadline;
    engine->waiting += turn != RP_TURN_MERGE;
    while (engine->turn != RP_TURN_FREE && !(engine->turn == RP_TURN_MERGE && late)) {
        if (engine->turn == RP_TURN_MERGE)
            late = pthread_cond_clockwait(&engine->changed, &engine->state, CLOCK_MONOTONIC, &until);
        else
            pthread_cond_wait(&engine->changed, &engine->state);
    }
    if (engine->turn == RP_TURN_FREE)
        engine->turn = turn;
    else if (engine->merge.total)
        failed = rp_fail(err, RP_ERR_BUSY, "%s: a merge is running, %.0f %% done", engine->directory,
                         100.0 * (double)engine->merge.done / (double)engine->merge.total);
    else
        failed = rp_fail(err, RP_ERR_BUSY, "%s: a merge is running", engine->directory);
    engine->waiting -= turn != RP_TURN_MERGE;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->state);
    return failed;
}

void rp_engine_yield(struct rp_engine *engine)
{
    pthread_mutex_lock(&engine->state);
    engine->turn = RP_TURN_FREE;
    pthread_cond_broadcast(&engine->changed);
    while (engine->waiting || engine->turn != RP_TURN_FREE)
        pthread_cond_wait(&engine->changed, &engine->state);
    engine->turn = RP_TURN_MERGE;
    pthread_mutex_unlock(&engine->state);
}

void rp_engine_end(struct rp_engine *engine)
{
    pthread_mutex_lock(&engine->state);
    engine->turn = RP_TURN_FREE;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->state);
}

int rp_engine_write_record(struct rp_engine *engine, struct rp_error *err)
{
    if (rp_record_write(engine->fs, engine->directory, &engine->record, err))
        return -1;
    pthread_mutex_lock(&engine->state);
    engine->generation = engine->record.generation;
    pthread_mutex_unlock(&engine->state);
    return 0;
}

bool rp_engine_half_merged(struct rp_engine *engine)
{
    size_t disk, layer;
    for (size_t i = 0; i < engine->record.merging_count; i++)
        if (rp_engine_find_layer(engine, engine->record.merging[i], &disk, &layer))
            return true;
    return false;
}

int rp_engine_prune_record(struct rp_engine *engine, struct rp_error *err)
{
    size_t disk, layer;
    for (size_t i = engine->record.merging_count; i-- > 0;)
        if (!rp_engine_find_layer(engine, engine->record.merging[i], &disk, &layer))
            rp_record_drop_merging(&engine->record, i);
    for (size_t i = engine->record.scratch_count; i-- > 0;) {
        bool exists = true;
        bool member = rp_engine_find_layer(engine, engine->record.scratch[i], &disk, &layer);
        if (!member && rp_fs_exists(engine->fs, engine->record.scratch[i], &exists, err))
            return -1;
        if (member || !exists)
            rp_record_drop_scratch(&engine->record, i);
    }
    return 0;
}

int rp_engine_check(struct rp_engine *engine, struct rp_error *err)
{
    int failed = 0;
    pthread_mutex_lock(&engine->state);
    if (engine->failed)
        failed = rp_fail_as(err, &engine->failure);
    pthread_mutex_unlock(&engine->state);
    return failed;
}

void rp_engine_fail(struct rp_engine *engine, const struct rp_error *why)
{
    rp_log(RP_LOG_ERROR, "%s: nothing written from now on will be durable until the disks are opened anew: %s",
           engine->directory, why->text);
    pthread_mutex_lock(&engine->state);
    if (!engine->failed) {
        engine->failed = true;
        engine->failure = *why;
    }
    pthread_mutex_unlock(&engine->state);
}

// Whether trying again makes sense. Says what is the matter, to flushes too, and waits a little.
static bool wait_for_room(struct rp_engine *engine, size_t disk, const struct rp_error *why, unsigned attempt)
{
    if (why->code != RP_ERR_NO_SPACE || attempt == SETTLE_PATIENCE_MS / SETTLE_EVERY_MS || atomic_load(&engine->cancel))
        return false;
    rp_room_missing(engine, disk);
    pthread_mutex_lock(&engine->state);
    engine->no_room = *why;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->state);
    usleep(SETTLE_EVERY_MS * 1000);
    return true;
}

int rp_engine_settle(struct rp_engine *engine, const struct rp_engine_chain *disk, unsigned long announced,
                     int (*settle)(void *context, struct rp_error *err), void *context, struct rp_error *err)
{
    struct rp_error why;
    unsigned attempt = 0;
    int failed;
    do {
        why = (struct rp_error){0};
        failed = settle(context, &why);
    } while (failed && wait_for_room(engine, (size_t)(disk - engine->disks), &why, attempt++));
    if (failed) {
        rp_engine_fail(engine, &why);
    } else {
        rp_switch_withdraw(engine);
    }
    pthread_mutex_lock(&engine->state);
    engine->no_room = (struct rp_error){0};
    atomic_store(&engine->settled, announced);
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->state);
    return failed ? rp_fail(err, RP_ERR_IO, "%s", why.text) : 0; // the next open decides how things are
}
