// Asking for a merge, its thread, and waiting for it. How a leaf is merged under a guest that writes: rounds.c; how one file is
// merged into another: fold.c.
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "diskservice/rounds.h"

// The files asked for, and those of ours that an earlier merge, or this one, has put on top of them.
static bool wanted(struct rp_engine *engine, const char *path)
{
    for (size_t i = 0; i < engine->merge_count; i++)
        if (!strcmp(engine->merge_paths[i], path))
            return true;
    for (size_t i = 0; i < engine->record.merging_count; i++)
        if (!strcmp(engine->record.merging[i], path))
            return true;
    return false;
}

// Finds the lowest of them that is still in a chain: so everything is copied once, straight to where it ends.
static bool next_file(struct rp_engine *engine, struct rp_engine_chain **disk, size_t *layer)
{
    for (size_t i = 0; i < engine->count; i++)
        for (size_t j = 1; j < engine->disks[i].depth; j++)
            if (wanted(engine, engine->disks[i].layers[j]->path)) {
                *disk = &engine->disks[i];
                *layer = j;
                return true;
            }
    return false;
}

static uint64_t left_to_merge(struct rp_engine *engine)
{
    uint64_t total = 0;
    for (size_t i = 0; i < engine->count; i++)
        for (size_t j = 1; j < engine->disks[i].depth; j++) {
            struct rp_layer *layer = engine->disks[i].layers[j];
            if (wanted(engine, layer->path))
                total += rp_fold_data(layer->vhdx);
        }
    return total;
}

static void *merge_thread(void *argument)
{
    struct rp_engine *engine = argument;
    struct rp_error err = {0};
    struct rp_rounds rounds = {.engine = engine};
    struct rp_engine_chain *disk;
    size_t layer;
    int rc = rp_engine_check(engine, &err);
    while (rc >= 0 && next_file(engine, &disk, &layer)) {
        uint64_t total = rounds.merged + left_to_merge(engine);
        pthread_mutex_lock(&engine->state);
        engine->merge.total = total;
        engine->merge.done = rounds.merged;
        pthread_mutex_unlock(&engine->state);
        rc = rp_rounds_step(&rounds, disk, layer, &err);
        if (!rc && rp_engine_awaited(engine))
            rp_engine_yield(engine);
    }
    rp_rounds_end(&rounds);
    if (rc < 0)
        rp_log(RP_LOG_WARNING, "merge of %s: %s", engine->directory, err.text);
    rp_engine_end(engine);
    pthread_mutex_lock(&engine->state);
    engine->merge.phase = rc < 0 ? RP_MERGE_FAILED : RP_MERGE_DONE;
    engine->merge.error = err;
    engine->merge.guest_rate = engine->merge.rate = 0;
    engine->merge.pause_ns = rounds.pauses.total_ns;
    engine->merge.longest_pause_ns = rounds.pauses.longest_ns;
    if (rc >= 0)
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

// Refuses early what would fail anyway: files without a parent.
static int check_paths(struct rp_engine *engine, const char *const *paths, size_t count, struct rp_error *err)
{
    int failed = 0;
    pthread_mutex_lock(&engine->chains);
    for (size_t i = 0; i < count && !failed; i++) {
        size_t disk, layer;
        if (rp_engine_find_layer(engine, paths[i], &disk, &layer) && !layer)
            failed = rp_fail(err, RP_ERR_INVALID, "%s: has no parent to merge into", paths[i]);
    }
    pthread_mutex_unlock(&engine->chains);
    return failed;
}

static int start(struct rp_engine *engine, const struct rp_guid *operation, const char *const *paths, size_t count, struct rp_error *err)
{
    if (rp_engine_check(engine, err) || check_paths(engine, paths, count, err))
        return -1;
    forget_thread(engine);
    engine->merge_paths = rp_xcalloc(count ? count : 1, sizeof *engine->merge_paths);
    engine->merge_count = count;
    for (size_t i = 0; i < count; i++)
        engine->merge_paths[i] = rp_xstrdup(paths[i]);
    uint64_t total = left_to_merge(engine);
    rp_throttle_set(engine->merge_throttle, engine->merge_options.rate);
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

// 1: this merge is; -1: another one is running; 0: none.
static int running_or_done(struct rp_engine *engine, const struct rp_guid *operation, struct rp_error *err)
{
    pthread_mutex_lock(&engine->state);
    enum rp_merge_phase phase = engine->merge.phase;
    bool same = rp_guid_equal(&engine->merge.operation, operation) && (phase == RP_MERGE_RUNNING || phase == RP_MERGE_DONE);
    pthread_mutex_unlock(&engine->state);
    if (same || phase != RP_MERGE_RUNNING)
        return same;
    return rp_fail(err, RP_ERR_BUSY, "%s: another merge is running", engine->directory);
}

int rp_engine_merge_start(struct rp_engine *engine, const struct rp_guid *operation, const char *const *paths,
                          size_t count, struct rp_error *err)
{
    // It may be running without the turn, between two files.
    int there = running_or_done(engine, operation, err);
    if (there)
        return there < 0 ? -1 : 0;
    if (rp_engine_begin(engine, RP_TURN_MERGE, err))
        return -1;
    there = running_or_done(engine, operation, err);
    if (!there && !start(engine, operation, paths, count, err))
        return 0; // the thread gives the turn back
    rp_engine_end(engine);
    return there > 0 ? 0 : -1;
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
        failed = rp_fail_as(err, &engine->merge.error);
    pthread_mutex_unlock(&engine->state);
    return failed;
}

void rp_engine_set_merge_options(struct rp_engine *engine, const struct rp_engine_merge_options *options)
{
    pthread_mutex_lock(&engine->state);
    engine->merge_options = *options;
    pthread_mutex_unlock(&engine->state);
    rp_throttle_set(engine->merge_throttle, options->rate);
}

bool rp_engine_awaited(struct rp_engine *engine)
{
    pthread_mutex_lock(&engine->state);
    bool waiting = engine->waiting;
    pthread_mutex_unlock(&engine->state);
    return waiting && !rp_engine_half_merged(engine);
}

void rp_engine_stop_merge(struct rp_engine *engine)
{
    rp_engine_cancel(engine);
    rp_throttle_set(engine->merge_throttle, 0);
    rp_engine_merge_wait(engine, NULL);
    forget_thread(engine);
}
