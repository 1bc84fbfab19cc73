#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/buf.h"

struct job {
    void (*run)(void *);
    void *argument;
};

struct rp_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;  // a job was queued, or the pool ends
    pthread_cond_t space; // a job was taken
    pthread_cond_t idle;  // a job ended
    struct job *ring;
    size_t limit, first, queued, running;
    bool ending;
    unsigned threads;
    pthread_t *ids;
};

static void *worker(void *argument)
{
    struct rp_pool *pool = argument;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->queued && !pool->ending)
            pthread_cond_wait(&pool->work, &pool->lock);
        if (!pool->queued)
            break;
        struct job job = pool->ring[pool->first];
        pool->first = (pool->first + 1) % pool->limit;
        pool->queued--;
        pool->running++;
        pthread_cond_signal(&pool->space);
        pthread_mutex_unlock(&pool->lock);
        job.run(job.argument);
        pthread_mutex_lock(&pool->lock);
        pool->running--;
        if (!pool->queued && !pool->running)
            pthread_cond_broadcast(&pool->idle);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static unsigned available_cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? (unsigned)n : 1;
}

struct rp_pool *rp_pool_new(unsigned threads, size_t queue_limit)
{
    struct rp_pool *pool = rp_xcalloc(1, sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->space, NULL);
    pthread_cond_init(&pool->idle, NULL);
    pool->limit = queue_limit ? queue_limit : 1;
    pool->ring = rp_xcalloc(pool->limit, sizeof *pool->ring);
    pool->threads = threads ? threads : available_cpus();
    pool->ids = rp_xcalloc(pool->threads, sizeof *pool->ids);
    for (unsigned i = 0; i < pool->threads; i++)
        if (pthread_create(&pool->ids[i], NULL, worker, pool))
            abort();
    return pool;
}

void rp_pool_run(struct rp_pool *pool, void (*job)(void *), void *argument)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->queued == pool->limit)
        pthread_cond_wait(&pool->space, &pool->lock);
    pool->ring[(pool->first + pool->queued) % pool->limit] = (struct job){job, argument};
    pool->queued++;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

void rp_pool_wait(struct rp_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->queued || pool->running)
        pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

unsigned rp_pool_threads(const struct rp_pool *pool) { return pool->threads; }

void rp_pool_free(struct rp_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->ids[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->space);
    pthread_cond_destroy(&pool->idle);
    free(pool->ring);
    free(pool->ids);
    free(pool);
}
