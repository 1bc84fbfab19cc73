// What the files of jobs share: jobs.c runs them, jobs_list.c knows and tells them, jobs_recall.c brings back those of
// an earlier life, jobs_store.c is their database.
#ifndef RP_HOSTD_JOBS_IMPL_H
#define RP_HOSTD_JOBS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "hostd/core.h"

#define RP_JOB_THREADS 16
#define RP_JOB_BUCKETS 4096
#define RP_JOB_MOST 2048 // that have not ended; who starts more is told to come again

struct rp_job {
    // Fixed, but for state, percent, code, result, error, details and ended: those change under the mutex, until the
    // job has ended.
    struct rp_hostd_row row;
    int64_t changed;
    struct rp_cim_instance *details;
    char *address;
    int (*run)(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
               struct rp_error *err);
    void *context;
    void (*free_context)(void *context);
    atomic_bool cancelled;
    unsigned references;
    uint64_t expires;            // monotonic ns, once it has ended
    struct rp_job *in_bucket;
    struct rp_job *before, *after;  // all of them, as they were started
    struct rp_job *in_queue;        // then: among those that have ended, as they ended
};

struct rp_hostd_jobs {
    struct rp_hostd *hostd;
    struct rp_hostd_store *store;
    pthread_mutex_t store_mutex; // of the database; taken without the other one held
    int64_t keep_ns;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct rp_job *buckets[RP_JOB_BUCKETS];
    struct rp_job *first, *last, *queue, *queue_last, *ended, *ended_last;
    size_t count, unended;
    pthread_t threads[RP_JOB_THREADS];
    unsigned thread_count, idle, queued;
    atomic_bool stop;
};

// jobs_list.c. Under the mutex, but for end.
struct rp_job *rp_jobs_find(struct rp_hostd_jobs *jobs, const char *id); // in either case
void rp_jobs_insert(struct rp_hostd_jobs *jobs, struct rp_job *job);     // referenced once by the list
void rp_jobs_unref(struct rp_job *job);
void rp_jobs_take_out(struct rp_hostd_jobs *jobs, struct rp_job *job);
void rp_jobs_append_ended(struct rp_hostd_jobs *jobs, struct rp_job *job);
void rp_jobs_expire(struct rp_hostd_jobs *jobs);
// Its end, first in the database, then for all to see, then in the audit.
void rp_jobs_end(struct rp_hostd_jobs *jobs, struct rp_job *job, uint16_t state, const char *result, uint32_t code,
                 const char *error);
char *rp_jobs_details_text(const struct rp_cim_instance *details);

int rp_jobs_recall(struct rp_hostd_jobs *jobs, struct rp_error *err); // jobs_recall.c

#endif
