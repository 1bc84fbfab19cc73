// A fixed set of worker threads with one bounded queue.
#ifndef RP_BASE_POOL_H
#define RP_BASE_POOL_H

#include <stddef.h>

struct rp_pool;

// `threads` workers (0: one per available CPU); rp_pool_run blocks while `queue_limit` jobs wait. Aborts if no thread
// can be started. Not to be created before a fork that keeps only the child.
struct rp_pool *rp_pool_new(unsigned threads, size_t queue_limit);
// Queues `job(argument)`. Thread safe; not to be called from a job of the same pool (a full queue would deadlock).
void rp_pool_run(struct rp_pool *pool, void (*job)(void *argument), void *argument);
// Waits until every queued job has ended.
void rp_pool_wait(struct rp_pool *pool);
unsigned rp_pool_threads(const struct rp_pool *pool);
// Waits, then ends the threads. NULL is fine.
void rp_pool_free(struct rp_pool *pool);

#endif
