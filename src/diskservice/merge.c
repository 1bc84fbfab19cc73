// Asking for a merge, its thread, and waiting for it. How one file is merged: fold.c.
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "diskservice/fold.h"

static bool requested(struct rp_engine *engine, const char *path)
{
    for (size_t i = 0; i < engine->merge_count; i++)
        if (!strcmp(engine->merge_paths[i], path))
            return true;
    return false;
}

// Finds the lowest file asked for that is still in a chain: so everything is copied once, straight to where it ends.
static bool next_file(struct rp_engine *engine, struct rp_engine_chain **disk, size_t *layer)
{
    for (size_t i = 0; i < engine->count; i++)
        for (size_t j = 1; j < engine->disks[i].depth; j++)
            if (requested(engine, engine->disks[i].layers[j]->path)) {
                *disk = &engine->disks[i];
                *layer = j;
                return true;
            }
    return false;
}

static int add_data(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    if (state == RP_VHDX_DATA)
        *(uint64_t *)context += length;
    return 0;
}

static uint64_t own_data(struct rp_layer *layer)
{
    uint64_t total = 0;
    return rp_vhdx_extents(layer->vhdx, 0, rp_vhdx_info(layer->vhdx)->size, add_data, &total, NULL) ? 0 : total;
}

struct progress {
    struct rp_engine *engine;
    uint64_t before, own; // bytes of the files merged already, and of this one
};

static int report(void *context, uint64_t done, uint64_t total)
{
    struct progress *p = context;
    pthread_mutex_lock(&p->engine->state);
    p->engine->merge.done = p->before + (total ? (uint64_t)((double)p->own * (double)done / (double)total) : p->own);
    pthread_mutex_unlock(&p->engine->state);
    return atomic_load(&p->engine->cancel);
}

static void *merge_thread(void *argument)
{
    struct rp_engine *engine = argument;
    struct rp_error err = {0};
    struct progress progress = {.engine = engine};
    struct rp_engine_chain *disk;
    size_t layer;
    uint64_t pause_ns = 0;
    int failed = rp_engine_check(engine, &err);
    while (!failed && next_file(engine, &disk, &layer)) {
        progress.own = own_data(disk->layers[layer]);
        failed = rp_fold(engine, disk, layer, report, &progress, &pause_ns, &err);
        progress.before += progress.own;
    }
    if (failed)
        rp_log(RP_LOG_WARNING, "merge of %s: %s", engine->directory, err.text);
    rp_engine_end(engine);
    pthread_mutex_lock(&engine->state);
    engine->merge.phase = failed ? RP_MERGE_FAILED : RP_MERGE_DONE;
    engine->merge.error = err;
    engine->merge.pause_ns = pause_ns;
    if (!failed)
        engine->merge.done = engine->merge.total;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->state);
    return NULL;
}

static void forget_thread(struct rp_engine *engine)
{
    if (engine->merge_thread_started)
        pthread_join(engine->merge_thread, NULL);
    engine->merge_thread_started = false;
    for (size_t i = 0; i < engine->merge_count; i++)
        free(engine->merge_paths[i]);
    free(engine->merge_paths);
    engine->merge_paths = NULL;
    engine->merge_count = 0;
}

// Refuses early what would fail anyway: files without a parent, files that somebody reads.
static int check_paths(struct rp_engine *engine, const char *const *paths, size_t count, uint64_t *total, struct rp_error *err)
{
    int failed = 0;
    pthread_mutex_lock(&engine->chains);
    for (size_t i = 0; i < count && !failed; i++) {
        size_t disk, layer;
        if (!rp_engine_find_layer(engine, paths[i], &disk, &layer))
            continue;
        if (!layer) {
            failed = rp_fail(err, RP_ERR_INVALID, "%s: has no parent to merge into", paths[i]);
            continue;
        }
        failed = rp_fold_probe(&engine->disks[disk], layer, err);
        *total += own_data(engine->disks[disk].layers[layer]);
    }
    pthread_mutex_unlock(&engine->chains);
    return failed;
}

static int start(struct rp_engine *engine, const struct rp_guid *operation, const char *const *paths, size_t count, struct rp_error *err)
{
    uint64_t total = 0;
    if (rp_engine_check(engine, err) || check_paths(engine, paths, count, &total, err))
        return -1;
    forget_thread(engine);
    engine->merge_paths = rp_xcalloc(count ? count : 1, sizeof *engine->merge_paths);
    engine->merge_count = count;
    for (size_t i = 0; i < count; i++)
        engine->merge_paths[i] = rp_xstrdup(paths[i]);
    pthread_mutex_lock(&engine->state);
    engine->merge = (struct rp_engine_merge){.phase = RP_MERGE_RUNNING, .operation = *operation, .total = total};
    pthread_mutex_unlock(&engine->state);
    int sys = pthread_create(&engine->merge_thread, NULL, merge_thread, engine);
    if (!sys) {
        engine->merge_thread_started = true;
        return 0;
    }
    pthread_mutex_lock(&engine->state);
    engine->merge.phase = RP_MERGE_NONE;
    pthread_mutex_unlock(&engine->state);
    return rp_fail_sys(err, sys, "start the merge");
}

int rp_engine_merge_start(struct rp_engine *engine, const struct rp_guid *operation, const char *const *paths,
                          size_t count, struct rp_error *err)
{
    pthread_mutex_lock(&engine->state);
    bool same = rp_guid_equal(&engine->merge.operation, operation) &&
                (engine->merge.phase == RP_MERGE_RUNNING || engine->merge.phase == RP_MERGE_DONE);
    pthread_mutex_unlock(&engine->state);
    if (same)
        return 0;
    if (rp_engine_begin(engine, RP_TURN_MERGE, err))
        return -1;
    if (!start(engine, operation, paths, count, err))
        return 0; // the thread gives the turn back
    rp_engine_end(engine);
    return -1;
}

void rp_engine_merge_state(struct rp_engine *engine, struct rp_engine_merge *state)
{
    pthread_mutex_lock(&engine->state);
    *state = engine->merge;
    pthread_mutex_unlock(&engine->state);
}

int rp_engine_merge_wait(struct rp_engine *engine, struct rp_error *err)
{
    int failed = 0;
    pthread_mutex_lock(&engine->state);
    while (engine->merge.phase == RP_MERGE_RUNNING)
        pthread_cond_wait(&engine->changed, &engine->state);
    if (engine->merge.phase == RP_MERGE_FAILED)
        failed = rp_fail(err, engine->merge.error.code, "%s", engine->merge.error.text);
    pthread_mutex_unlock(&engine->state);
    return failed;
}

void rp_engine_stop_merge(struct rp_engine *engine)
{
    atomic_store(&engine->cancel, true);
    rp_engine_merge_wait(engine, NULL);
    forget_thread(engine);
}
