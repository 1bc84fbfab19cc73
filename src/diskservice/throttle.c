#include "diskservice/throttle.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"

enum { BURST_MS = 10 }; // what may be owed without waiting: a sleep per request would cost more than it saves
#define MS ((uint64_t)1000000)

struct rp_throttle {
    atomic_uint_fast64_t rate;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t paid_until; // on the monotonic clock: when all that has passed will be paid for
    unsigned long raised; // how often the limit was raised, or taken away
};

struct rp_throttle *rp_throttle_new(void)
{
    struct rp_throttle *throttle = rp_xcalloc(1, sizeof *throttle);
    atomic_init(&throttle->rate, 0);
    pthread_mutex_init(&throttle->lock, NULL);
    pthread_cond_init(&throttle->changed, NULL);
    return throttle;
}

void rp_throttle_free(struct rp_throttle *throttle)
{
    if (!throttle)
        return;
    pthread_mutex_destroy(&throttle->lock);
    pthread_cond_destroy(&throttle->changed);
    free(throttle);
}

void rp_throttle_set(struct rp_throttle *throttle, uint64_t bytes_per_second)
{
    pthread_mutex_lock(&throttle->lock);
    uint64_t before = atomic_exchange(&throttle->rate, bytes_per_second);
    if (!bytes_per_second || bytes_per_second > before) {
        throttle->paid_until = 0;
        throttle->raised++;
        pthread_cond_broadcast(&throttle->changed);
    }
    pthread_mutex_unlock(&throttle->lock);
}

uint64_t rp_throttle_rate(struct rp_throttle *throttle) { return atomic_load_explicit(&throttle->rate, memory_order_relaxed); }

static uint64_t cost_ns(uint64_t size, uint64_t rate)
{
    double ns = (double)size * 1e9 / (double)rate;
    return ns < (double)(RP_THROTTLE_MAX_WAIT_MS * MS) ? (uint64_t)ns : RP_THROTTLE_MAX_WAIT_MS * MS;
}

void rp_throttle_wait(struct rp_throttle *throttle, uint64_t size)
{
    if (!rp_throttle_rate(throttle))
        return;
    pthread_mutex_lock(&throttle->lock);
    uint64_t rate = rp_throttle_rate(throttle), now = rp_clock_monotonic_ns();
    if (rate) {
        uint64_t until = rp_max64(throttle->paid_until, now) + cost_ns(size, rate);
        // What waited its longest is let off the rest: debts that nobody pays would hold up the requests after it.
        until = throttle->paid_until = rp_min64(until, now + RP_THROTTLE_MAX_WAIT_MS * MS);
        unsigned long raised = throttle->raised;
        until -= BURST_MS * MS;
        struct timespec deadline = {(time_t)(until / (1000 * MS)), (long)(until % (1000 * MS))};
        while (until > now && raised == throttle->raised &&
               !pthread_cond_clockwait(&throttle->changed, &throttle->lock, CLOCK_MONOTONIC, &deadline))
            ;
    }
    pthread_mutex_unlock(&throttle->lock);
}
