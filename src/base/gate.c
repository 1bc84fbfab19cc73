#include "base/gate.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/buf.h"

enum { SHARDS = 16 }; // counters on lines of their own, so that threads do not fight for one

struct shard {
    _Alignas(64) atomic_uint inside;
};

struct rp_gate {
    struct shard shards[SHARDS];
    atomic_bool closed;
    pthread_mutex_t closer; // held from close to open
    pthread_mutex_t lock;   // for the conditions
    pthread_cond_t opened, left;
};

struct rp_gate *rp_gate_new(void)
{
    struct rp_gate *gate = aligned_alloc(64, sizeof *gate);
    if (!gate)
        abort();
    for (int i = 0; i < SHARDS; i++)
        atomic_init(&gate->shards[i].inside, 0);
    atomic_init(&gate->closed, false);
    pthread_mutex_init(&gate->closer, NULL);
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->opened, NULL);
    pthread_cond_init(&gate->left, NULL);
    return gate;
}

unsigned rp_gate_enter(struct rp_gate *gate)
{
    static atomic_uint next;
    static _Thread_local unsigned mine = SHARDS;
    if (mine == SHARDS)
        mine = atomic_fetch_add(&next, 1) % SHARDS;
    for (;;) {
        // Both sides use sequentially consistent operations on `inside` and `closed`: either the closer sees us inside,
        // or we see the gate closed.
        atomic_fetch_add(&gate->shards[mine].inside, 1);
        if (!atomic_load(&gate->closed))
            return mine;
        rp_gate_leave(gate, mine);
        pthread_mutex_lock(&gate->lock);
        while (atomic_load(&gate->closed))
            pthread_cond_wait(&gate->opened, &gate->lock);
        pthread_mutex_unlock(&gate->lock);
    }
}

void rp_gate_leave(struct rp_gate *gate, unsigned token)
{
    atomic_fetch_sub(&gate->shards[token].inside, 1);
    if (atomic_load(&gate->closed)) {
        pthread_mutex_lock(&gate->lock);
        pthread_cond_broadcast(&gate->left);
        pthread_mutex_unlock(&gate->lock);
    }
}

static bool occupied(struct rp_gate *gate)
{
    for (int i = 0; i < SHARDS; i++)
        if (atomic_load(&gate->shards[i].inside))
            return true;
    return false;
}

void rp_gate_close(struct rp_gate *gate)
{
    pthread_mutex_lock(&gate->closer);
    pthread_mutex_lock(&gate->lock);
    atomic_store(&gate->closed, true);
    while (occupied(gate))
        pthread_cond_wait(&gate->left, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

void rp_gate_open(struct rp_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    atomic_store(&gate->closed, false);
    pthread_cond_broadcast(&gate->opened);
    pthread_mutex_unlock(&gate->lock);
    pthread_mutex_unlock(&gate->closer);
}

void rp_gate_free(struct rp_gate *gate)
{
    if (!gate)
        return;
    pthread_mutex_destroy(&gate->closer);
    pthread_mutex_destroy(&gate->lock);
    pthread_cond_destroy(&gate->opened);
    pthread_cond_destroy(&gate->left);
    free(gate);
}
