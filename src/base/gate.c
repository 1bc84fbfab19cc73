#include "base/gate.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/buf.h"

enum { SHARDS = 16 }; // counters on lines of their own, so that threads do not fight for one

struct shard {
    _Alignas(64) atomic_uint inside[2];
};

struct rp_gate {
    struct shard shards[SHARDS];
    atomic_uint side;       // which of the two counters those who enter use
    atomic_bool closed;
    atomic_bool watched;    // somebody waits for those inside
    pthread_mutex_t closer; // held from close to open, and during a wait
    pthread_mutex_t lock;   // for the conditions
    pthread_cond_t opened, left;
};

struct rp_gate *rp_gate_new(void)
{
    struct rp_gate *gate = aligned_alloc(64, sizeof *gate);
    if (!gate)
        abort();
    for (int i = 0; i < SHARDS; i++)
        for (int side = 0; side < 2; side++)
            atomic_init(&gate->shards[i].inside[side], 0);
    atomic_init(&gate->side, 0);
    atomic_init(&gate->closed, false);
    atomic_init(&gate->watched, false);
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
        unsigned token = mine * 2 + atomic_load(&gate->side);
        atomic_fetch_add(&gate->shards[mine].inside[token % 2], 1);
        if (!atomic_load(&gate->closed))
            return token;
        rp_gate_leave(gate, token);
        pthread_mutex_lock(&gate->lock);
        while (atomic_load(&gate->closed))
            pthread_cond_wait(&gate->opened, &gate->lock);
        pthread_mutex_unlock(&gate->lock);
    }
}

void rp_gate_leave(struct rp_gate *gate, unsigned token)
{
    atomic_fetch_sub(&gate->shards[token / 2].inside[token % 2], 1);
    if (atomic_load(&gate->watched)) {
        pthread_mutex_lock(&gate->lock);
        pthread_cond_broadcast(&gate->left);
        pthread_mutex_unlock(&gate->lock);
    }
}

// Under `lock`, with `watched` set.
static void wait_until_empty(struct rp_gate *gate, unsigned side)
{
    for (int i = 0; i < SHARDS; i++)
        while (atomic_load(&gate->shards[i].inside[side]))
            pthread_cond_wait(&gate->left, &gate->lock);
}

void rp_gate_close(struct rp_gate *gate)
{
    pthread_mutex_lock(&gate->closer);
    pthread_mutex_lock(&gate->lock);
    atomic_store(&gate->watched, true);
    atomic_store(&gate->closed, true);
    // Who still counts up on a side seen empty finds the gate closed and counts down again.
    wait_until_empty(gate, 0);
    wait_until_empty(gate, 1);
    atomic_store(&gate->watched, false);
    pthread_mutex_unlock(&gate->lock);
}

void rp_gate_wait(struct rp_gate *gate)
{
    pthread_mutex_lock(&gate->closer);
    pthread_mutex_lock(&gate->lock);
    atomic_store(&gate->watched, true);
    // Twice, because somebody may have read `side` long ago and count up on the other one: each side is empty once, while
    // newcomers use the other.
    for (int i = 0; i < 2; i++)
        wait_until_empty(gate, atomic_fetch_xor(&gate->side, 1));
    atomic_store(&gate->watched, false);
    pthread_mutex_unlock(&gate->lock);
    pthread_mutex_unlock(&gate->closer);
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
