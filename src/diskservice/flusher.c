// The background thread that writes the trackers of the leaves: so that a power cut, which loses what was only marked in
// memory, adds little to the next incremental.
//
// Every 30 seconds; earlier, but not more often than every 5, when a power cut would add more than a 64th of the disk (and more
// than 1 GiB). It holds `flushing`, so no pause begins while it writes, and it runs behind everybody else.
#include <errno.h>
#include <linux/ioprio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "diskservice/chains.h"

#define SECOND ((uint64_t)1000000000)
enum { EVERY = 30, AT_LEAST_APART = 5, SHARE = 64 };

struct rp_flusher {
    struct rp_engine *engine;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
    uint64_t last_ns[RP_ENGINE_MAX_DISKS]; // when its tracker was written
};

static bool is_due(const struct rp_rct *rct, uint64_t size, uint64_t since_ns)
{
    uint64_t exposed = rp_rct_exposed(rct);
    if (since_ns >= EVERY * SECOND)
        return exposed > 0;
    return since_ns >= AT_LEAST_APART * SECOND && exposed > rp_max64(size / SHARE, RP_GIB);
}

static void look_at(struct rp_engine *engine, size_t index, uint64_t *last_ns, uint64_t now_ns)
{
    struct rp_engine_chain *disk = &engine->disks[index];
    struct rp_error err = {0};
    pthread_mutex_lock(&engine->flushing); // the leaf changes in pauses only
    unsigned token = rp_gate_enter(engine->gate);
    struct rp_layer *leaf = rp_chain_leaf(disk);
    rp_layer_hold(leaf);
    rp_gate_leave(engine->gate, token);
    if (leaf->rct && is_due(leaf->rct, rp_vhdx_info(leaf->vhdx)->size, now_ns - *last_ns)) {
        *last_ns = now_ns;
        if (rp_rct_flush(leaf->rct, engine->gate, &err)) {
            rp_log(RP_LOG_WARNING, "%s: its tracking could not be written: %s", leaf->path, err.text);
            rp_engine_sync_failed(engine, &err);
        }
    }
    rp_layer_release(leaf);
    pthread_mutex_unlock(&engine->flushing);
}

void rp_flusher_look(struct rp_engine *engine, uint64_t now_ns)
{
    struct rp_flusher *flusher = engine->flusher;
    for (size_t i = 0; i < engine->count; i++) {
        pthread_mutex_lock(&flusher->lock);
        bool stop = flusher->stop;
        pthread_mutex_unlock(&flusher->lock);
        if (stop)
            return;
        look_at(engine, i, &flusher->last_ns[i], now_ns);
    }
}

static void *run(void *argument)
{
    struct rp_flusher *flusher = argument;
    // Of this thread only, and no matter if it cannot be had.
    setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, IOPRIO_NR_LEVELS - 1));
    pthread_mutex_lock(&flusher->lock);
    while (!flusher->stop) {
        uint64_t until_ns = rp_clock_monotonic_ns() + SECOND;
        struct timespec until = {(time_t)(until_ns / SECOND), (long)(until_ns % SECOND)};
        if (pthread_cond_clockwait(&flusher->changed, &flusher->lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT)
            continue;
        pthread_mutex_unlock(&flusher->lock);
        rp_flusher_look(flusher->engine, rp_clock_monotonic_ns());
        pthread_mutex_lock(&flusher->lock);
    }
    pthread_mutex_unlock(&flusher->lock);
    return NULL;
}

void rp_flusher_start(struct rp_engine *engine)
{
    struct rp_flusher *flusher = engine->flusher = rp_xcalloc(1, sizeof *flusher);
    flusher->engine = engine;
    pthread_mutex_init(&flusher->lock, NULL);
    pthread_cond_init(&flusher->changed, NULL);
    for (size_t i = 0; i < engine->count; i++)
        flusher->last_ns[i] = rp_clock_monotonic_ns();
    int sys = pthread_create(&flusher->thread, NULL, run, flusher);
    if (!sys)
        return;
    rp_log(RP_LOG_WARNING, "%s: tracking is not written in the background: error %d", engine->directory, sys);
    free(flusher);
    engine->flusher = NULL;
}

void rp_flusher_stop(struct rp_engine *engine)
{
    struct rp_flusher *flusher = engine->flusher;
    if (!flusher)
        return;
    pthread_mutex_lock(&flusher->lock);
    flusher->stop = true;
    pthread_cond_broadcast(&flusher->changed);
    pthread_mutex_unlock(&flusher->lock);
    pthread_join(flusher->thread, NULL);
    pthread_mutex_destroy(&flusher->lock);
    pthread_cond_destroy(&flusher->changed);
    free(flusher);
    engine->flusher = NULL;
}
