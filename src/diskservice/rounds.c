#include "diskservice/rounds.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "diskservice/holder.h"

enum { PAUSE_MS = 50, READER_MS = 10000, POLL_MS = 20 };
static const double assumed_speed = 64e6, assumed_overhead = 0.2; // until measured; rather too careful

static double seconds_since(uint64_t start) { return (double)(rp_clock_monotonic_ns() - start) / 1e9; }

static bool nobody_writes(const struct rp_rounds *r) { return r->options.pause_ms == UINT_MAX; }

// What may be left for a pause: half of what can be copied in it, and of what is copied there without waiting for a disk; the
// other half is for what the guest writes while it is prepared.
static uint64_t pauseful(const struct rp_rounds *r)
{
    unsigned ms = r->options.pause_ms ? r->options.pause_ms : PAUSE_MS;
    double bytes = (r->speed > 0 ? r->speed : assumed_speed) * ms / 2000;
    return rp_max64(rp_min64((uint64_t)bytes, RP_VHDX_MERGE_SMALL / 2), 64 * RP_KIB);
}

static void show(struct rp_rounds *r, enum rp_merge_step step, const struct rp_error *waiting)
{
    struct rp_engine_merge *merge = &r->engine->merge;
    pthread_mutex_lock(&r->engine->state);
    merge->step = step;
    merge->round = r->rounds + r->slow_rounds;
    merge->guest_rate = r->disk ? rp_throttle_rate(r->disk->throttle) : 0;
    merge->pause_ns = r->pauses.total_ns;
    merge->longest_pause_ns = r->pauses.longest_ns;
    merge->waiting = waiting ? *waiting : (struct rp_error){0};
    pthread_mutex_unlock(&r->engine->state);
}

// ---- readers

static int refuse(const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *holder = rp_lock_holder(path);
    return rp_fail(err, RP_ERR_BUSY, "%s: is being read%s%s; the merge goes on when it is closed", path, holder ? " by " : "",
                   holder ? holder : "");
}

// 0: locked; 1: somebody else had the turn; -1: error.
static int lock_files(struct rp_rounds *r, struct rp_engine_chain *disk, size_t index, struct rp_error *err)
{
    struct rp_engine *engine = r->engine;
    unsigned patience = r->options.reader_ms ? r->options.reader_ms : READER_MS;
    const char *busy = NULL;
    for (bool shown = false;; usleep(POLL_MS * 1000)) {
        struct rp_error why = {0};
        if (!rp_fold_lock(disk, index, &busy, &why)) {
            r->reader_deadline = 0;
            return 0;
        }
        if (why.code != RP_ERR_BUSY) {
            if (err && !err->code)
                *err = why;
            return -1;
        }
        if (atomic_load(&engine->cancel))
            return rp_fail(err, RP_ERR_CANCELLED, "%s: the merge was stopped", busy);
        uint64_t now = rp_clock_monotonic_ns();
        if (!r->reader_deadline)
            r->reader_deadline = now + patience * (uint64_t)1000000;
        else if (now >= r->reader_deadline)
            return refuse(busy, err);
        if (!shown) {
            struct rp_error waiting = {0};
            refuse(busy, &waiting);
            show(r, RP_MERGE_WAITING, &waiting);
            shown = true;
        }
        if (rp_engine_awaited(engine)) {
            rp_engine_yield(engine);
            return 1;
        }
    }
}

// ---- copying

static int report(void *context, uint64_t done, uint64_t total)
{
    struct rp_rounds *r = context;
    struct rp_engine *engine = r->engine;
    uint64_t now_copied = done > r->copied ? done - r->copied : 0;
    r->copied = done;
    (void)total;
    double busy = seconds_since(r->started);
    pthread_mutex_lock(&engine->state);
    bool limited = !r->hurry && (engine->merge.step == RP_MERGE_COPYING || nobody_writes(r));
    engine->merge.done = r->merged + rp_min64(r->copied, r->own);
    engine->merge.rate = busy > 0 ? (uint64_t)((double)r->copied / busy) : 0;
    pthread_mutex_unlock(&engine->state);
    if (limited && now_copied) {
        uint64_t before = rp_clock_monotonic_ns();
        rp_throttle_wait(engine->merge_throttle, now_copied);
        r->slept += rp_clock_monotonic_ns() - before;
    }
    return atomic_load(&engine->cancel);
}

static int copy(struct rp_rounds *r, struct rp_engine_chain *disk, size_t index, struct rp_error *err)
{
    struct rp_vhdx *child = disk->layers[index]->vhdx;
    r->own = rp_fold_data(child);
    pthread_mutex_lock(&r->engine->state); // a leaf may hold more than when the total was counted
    r->engine->merge.total = rp_max64(r->engine->merge.total, r->merged + r->own);
    pthread_mutex_unlock(&r->engine->state);
    r->copied = r->slept = 0;
    r->started = rp_clock_monotonic_ns();
    if (rp_fold(r->engine, disk, index, report, r, &r->pauses, err))
        return -1;
    r->merged += r->own;
    double busy = seconds_since(r->started) - (double)r->slept / 1e9;
    if (r->own >= 8 * RP_MIB && busy > 0)
        r->speed = (double)r->own / busy;
    return 0;
}

// ---- rounds

static void begin_disk(struct rp_rounds *r, struct rp_engine_chain *disk)
{
    rp_rounds_end(r);
    r->disk = disk;
    r->rounds = r->slow_rounds = r->pressure = 0;
    r->left = r->expected = 0;
    r->hurry = false;
}

// Slows the guest down so far that a round which begins with `left` bytes leaves a quarter of it to the next one, or as much as
// a pause can take.
static void slow_down(struct rp_rounds *r, uint64_t left)
{
    double speed = r->speed > 0 ? r->speed : assumed_speed, overhead = r->overhead > 0 ? r->overhead : assumed_overhead;
    if (r->expected && left > 2 * r->expected) // its requests are too large, or too many, for what it may write
        r->pressure++;
    r->expected = rp_max64(pauseful(r) / 2, left / 4);
    double rate = (double)r->expected / ((double)left / speed + overhead) / (double)(1U << rp_min64(r->pressure, 16));
    rp_throttle_set(r->disk->throttle, rp_max64((uint64_t)rate, 64 * RP_KIB));
}

// The leaf holds too much for a pause: which round comes now.
static void begin_round(struct rp_rounds *r, uint64_t left)
{
    bool shrinks = !r->left || left < r->left - r->left / 4;
    if (!shrinks && !r->hurry && rp_throttle_rate(r->engine->merge_throttle) && r->rounds < RP_MERGE_ROUNDS)
        r->hurry = shrinks = true; // the guest is not slowed down for the sake of a limit that is to spare it
    if (shrinks && r->rounds < RP_MERGE_ROUNDS && !r->slow_rounds) {
        r->rounds++;
    } else {
        r->slow_rounds++;
        r->hurry = true;
        slow_down(r, left);
    }
    r->left = left;
    show(r, r->slow_rounds ? RP_MERGE_SLOWING : RP_MERGE_COPYING, NULL);
}

// One round: what the leaf holds is frozen under a fresh one and merged, while the guest writes into that.
static int round_of(struct rp_rounds *r, struct rp_engine_chain *disk, size_t index, uint64_t left, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns(), pause_ns;
    begin_round(r, left);
    if (rp_engine_put_leaf(r->engine, disk, &pause_ns, err)) {
        rp_fold_unlock(disk, index);
        return -1;
    }
    rp_fold_paused(&r->pauses, pause_ns);
    int locked = lock_files(r, disk, index, err); // the frozen file too; nobody else has the turn, half merged as it is
    if (locked) {
        rp_fold_unlock(disk, index);
        return locked;
    }
    show(r, r->slow_rounds ? RP_MERGE_SLOWING : RP_MERGE_COPYING, NULL);
    if (copy(r, disk, index, err))
        return -1;
    double others = seconds_since(start) - (double)r->slept / 1e9 - (double)r->own / (r->speed > 0 ? r->speed : assumed_speed);
    r->overhead = others > 0.01 ? others : 0.01;
    return 0;
}

// The pause. What comes into the leaf while it is prepared has to be copied in it as well.
static int last_pause(struct rp_rounds *r, struct rp_engine_chain *disk, size_t index, struct rp_error *err)
{
    if (!nobody_writes(r) && !rp_throttle_rate(disk->throttle))
        rp_throttle_set(disk->throttle, (uint64_t)((double)(pauseful(r) / 2) / assumed_overhead));
    show(r, RP_MERGE_PAUSING, NULL);
    return copy(r, disk, index, err);
}

int rp_rounds_step(struct rp_rounds *r, struct rp_engine_chain *disk, size_t index, struct rp_error *err)
{
    if (r->disk != disk)
        begin_disk(r, disk);
    pthread_mutex_lock(&r->engine->state);
    r->options = r->engine->merge_options;
    pthread_mutex_unlock(&r->engine->state);
    int locked = lock_files(r, disk, index, err);
    if (locked)
        return locked;
    show(r, RP_MERGE_COPYING, NULL);
    if (index + 1 < disk->depth)
        return copy(r, disk, index, err);
    struct rp_vhdx *leaf = rp_chain_leaf(disk)->vhdx;
    uint64_t left = rp_fold_data(leaf);
    if (left > pauseful(r) && !nobody_writes(r) && disk->depth < RP_CHAIN_MAX_DEPTH) {
        if (r->slow_rounds < RP_MERGE_SLOW_ROUNDS)
            return round_of(r, disk, index, left, err);
        rp_log(RP_LOG_WARNING, "%s: the guest writes too fast for a short pause, %llu bytes are merged in a long one",
               rp_chain_leaf(disk)->path, (unsigned long long)left);
    }
    return last_pause(r, disk, index, err);
}

void rp_rounds_end(struct rp_rounds *r)
{
    if (r->disk)
        rp_throttle_set(r->disk->throttle, 0);
}
