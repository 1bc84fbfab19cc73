#include "backup/transfer.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"

#define TICK_NS 100000000u
#define MAX_THREADS 16
#define READ_AHEAD 4u // threads that wait for a disk while others work: small pieces, each a wait, come in time then
#define LEAST_PIECE (64 * RP_KIB) // a block of the repository: pieces start where blocks do

struct run {
    const struct rp_transfer *transfer;
    uint64_t total, started_ns, piece;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    // under the lock: where the next piece starts, who still works, the first failure
    size_t part, range;
    uint64_t in_range;
    uint64_t taken;
    unsigned working, storing, may_store;
    pthread_cond_t turn;
    struct rp_error error;
    atomic_bool stop;
    atomic_uint_least64_t done;
};

struct piece {
    void *disk; // or the job
    uint64_t offset;
    uint64_t length;
    uint64_t before; // bytes of all earlier pieces
};

static void keep(struct run *run, const struct rp_error *err)
{
    if (!run->error.code)
        run->error = *err;
    atomic_store(&run->stop, true);
}

static bool take_job(struct run *run, struct piece *piece)
{
    struct rp_error err = {0};
    *piece = (struct piece){.before = run->taken};
    int result = atomic_load(&run->stop) ? 0 : run->transfer->next(run->transfer->jobs, &piece->disk, &piece->length, &err);
    if (result < 0)
        keep(run, &err);
    run->taken += piece->length;
    return result > 0;
}

static bool take(struct run *run, struct piece *piece)
{
    const struct rp_transfer *transfer = run->transfer;
    bool found = false;
    pthread_mutex_lock(&run->lock);
    if (transfer->next)
        found = take_job(run, piece);
    while (!atomic_load(&run->stop) && run->part < transfer->part_count) {
        const struct rp_transfer_part *part = &transfer->parts[run->part];
        if (run->range == part->ranges->count) {
            run->part++;
            run->range = 0;
            continue;
        }
        struct rp_range range = part->ranges->items[run->range];
        uint64_t length = rp_min64(range.length - run->in_range, run->piece);
        *piece = (struct piece){part->disk, range.offset + run->in_range, length, run->taken};
        run->taken += length;
        run->in_range += length;
        if (run->in_range == range.length) {
            run->range++;
            run->in_range = 0;
        }
        found = length > 0;
        if (found)
            break;
    }
    pthread_mutex_unlock(&run->lock);
    return found;
}

// Slow transfers go in small pieces: a VM must not wait behind a large one.
static uint64_t piece_size(uint64_t rate)
{
    uint64_t eighth = rp_align_down(rate / 8, LEAST_PIECE);
    return !rate ? RP_TRANSFER_PIECE : rp_max64(rp_min64(eighth, RP_TRANSFER_PIECE), LEAST_PIECE);
}

// A piece may start when everything before it fits the rate.
static void wait_for_turn(struct run *run, uint64_t before)
{
    uint64_t rate = run->transfer->rate;
    if (!rate)
        return;
    uint64_t due = (uint64_t)((double)before / (double)rate * 1e9);
    for (;;) {
        uint64_t since = rp_clock_monotonic_ns() - run->started_ns;
        if (since >= due || atomic_load(&run->stop))
            return;
        struct timespec pause = {0, (long)rp_min64(due - since, TICK_NS)};
        nanosleep(&pause, NULL);
    }
}

static void fail(struct run *run, const struct rp_error *err)
{
    pthread_mutex_lock(&run->lock);
    keep(run, err);
    pthread_mutex_unlock(&run->lock);
}

// What storing costs is the processor, and no more threads than asked for are to have that.
static int store(struct run *run, const struct piece *piece, const void *buffer, struct rp_error *err)
{
    pthread_mutex_lock(&run->lock);
    while (run->storing == run->may_store)
        pthread_cond_wait(&run->turn, &run->lock);
    run->storing++;
    pthread_mutex_unlock(&run->lock);
    int result = atomic_load(&run->stop) ? 0 : run->transfer->store(piece->disk, piece->offset, (uint32_t)piece->length, buffer, err);
    pthread_mutex_lock(&run->lock);
    run->storing--;
    pthread_cond_signal(&run->turn);
    pthread_mutex_unlock(&run->lock);
    return result;
}

static int move(struct run *run, const struct piece *piece, void *buffer, struct rp_error *err)
{
    return run->transfer->read(piece->disk, piece->offset, (uint32_t)piece->length, buffer, err) ||
           store(run, piece, buffer, err) ? -1 : 0;
}

static void work(struct run *run, void *buffer)
{
    struct piece piece;
    while (take(run, &piece)) {
        wait_for_turn(run, piece.before);
        struct rp_error err = {0};
        const struct rp_transfer *transfer = run->transfer;
        if (transfer->next ? transfer->run(transfer->jobs, piece.disk, &err) : move(run, &piece, buffer, &err)) {
            fail(run, &err);
            return;
        }
        atomic_fetch_add(&run->done, piece.length);
    }
}

static void *thread(void *argument)
{
    struct run *run = argument;
    void *buffer = run->transfer->next ? NULL : aligned_alloc(4096, RP_TRANSFER_PIECE);
    if (buffer || run->transfer->next) {
        work(run, buffer);
    } else {
        struct rp_error err = {0};
        rp_fail(&err, RP_ERR_NO_MEMORY, "no memory for a buffer");
        fail(run, &err);
    }
    free(buffer);
    pthread_mutex_lock(&run->lock);
    run->working--;
    pthread_cond_signal(&run->ended);
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

static void report(struct run *run)
{
    const struct rp_transfer *transfer = run->transfer;
    if (!transfer->progress || !transfer->progress(transfer->context, atomic_load(&run->done), run->total))
        return;
    struct rp_error err = {0};
    rp_fail(&err, RP_ERR_CANCELLED, "stopped");
    fail(run, &err);
}

static unsigned workers(const struct rp_transfer *transfer)
{
    unsigned count = transfer->threads;
    if (!count) {
        cpu_set_t set;
        int cpus = sched_getaffinity(0, sizeof set, &set) ? 2 : CPU_COUNT(&set);
        count = cpus < 2 ? 2 : cpus > 4 ? 4 : (unsigned)cpus;
        count += transfer->next ? READ_AHEAD : 0; // who runs a job reads and writes in it
    }
    return (unsigned)rp_min64(count, MAX_THREADS);
}

static void wait_for_threads(struct run *run)
{
    pthread_mutex_lock(&run->lock);
    while (run->working) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&run->ended, &run->lock, &until);
        if (!run->working)
            break;
        pthread_mutex_unlock(&run->lock);
        report(run);
        pthread_mutex_lock(&run->lock);
    }
    pthread_mutex_unlock(&run->lock);
}

int rp_transfer_run(const struct rp_transfer *transfer, struct rp_error *err)
{
    struct run run = {.transfer = transfer, .started_ns = rp_clock_monotonic_ns(), .piece = piece_size(transfer->rate)};
    run.total = transfer->total;
    for (size_t i = 0; i < transfer->part_count; i++)
        run.total += rp_ranges_total(transfer->parts[i].ranges);
    pthread_mutex_init(&run.lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&run.ended, &attributes);
    pthread_condattr_destroy(&attributes);

    pthread_cond_init(&run.turn, NULL);
    pthread_t threads[MAX_THREADS + READ_AHEAD];
    run.may_store = workers(transfer);
    uint64_t wanted = run.may_store + (transfer->next ? 0 : READ_AHEAD), pieces = rp_div_up(run.total, RP_TRANSFER_PIECE / 16);
    // Whoever gives out jobs may have some that move nothing: somebody must ask.
    unsigned count = (unsigned)rp_min64(wanted, transfer->next ? rp_max64(pieces, 1) : pieces), started = 0;
    report(&run);
    run.working = count;
    for (; started < count; started++) {
        int sys = pthread_create(&threads[started], NULL, thread, &run);
        if (!sys)
            continue;
        struct rp_error failed = {0};
        rp_fail_sys(&failed, sys, "start a thread");
        fail(&run, &failed);
        pthread_mutex_lock(&run.lock);
        run.working -= count - started;
        pthread_mutex_unlock(&run.lock);
        break;
    }
    wait_for_threads(&run);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (!run.error.code)
        report(&run);
    pthread_cond_destroy(&run.ended);
    pthread_cond_destroy(&run.turn);
    pthread_mutex_destroy(&run.lock);
    if (!run.error.code)
        return 0;
    if (err && !err->code)
        *err = run.error;
    return -1;
}
