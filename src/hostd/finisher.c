// Changes of VMs that a killed command left unfinished are finished or undone as soon as nobody is at work on them any more: where
// nobody opens the host anew, nobody else would. What cannot be, because its hypervisor does not answer, is tried again.
#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/log.h"
#include "base/num.h"
#include "hostd/core.h"

enum { LOOK_S = 1, PAUSE_MOST_S = 60 };

struct rp_hostd_finisher {
    struct rp_hostd *hostd;
    pthread_mutex_t mutex;
    pthread_cond_t stopped;
    bool stop;
    pthread_t thread;
};

// False: it is over.
static bool wait_s(struct rp_hostd_finisher *f, unsigned seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&f->mutex);
    while (!f->stop && pthread_cond_timedwait(&f->stopped, &f->mutex, &until) != ETIMEDOUT)
        continue;
    bool over = f->stop;
    pthread_mutex_unlock(&f->mutex);
    return !over;
}

// Asked between one VM and the next (rp_progress_fn).
static int is_over(void *finisher, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    struct rp_hostd_finisher *f = finisher;
    pthread_mutex_lock(&f->mutex);
    bool over = f->stop;
    pthread_mutex_unlock(&f->mutex);
    return over;
}

// Whether there was something to do.
static bool finish(struct rp_hostd_finisher *f)
{
    struct rp_hostd *hostd = f->hostd;
    struct rp_error err = {0};
    struct rp_host_connection *host = rp_hostd_hosts_borrow(hostd, &err);
    if (host) {
        host->progress = is_over;
        host->progress_context = f;
    }
    int unfinished = host ? rp_host_local_is_unfinished(host, &err) : -1;
    if (unfinished < 0 || (unfinished && rp_host_local_recover(host, &err) && err.code != RP_ERR_CANCELLED))
        rp_log(RP_LOG_WARNING, "what was interrupted cannot be finished: %s", err.text);
    rp_hostd_hosts_return(hostd, host);
    if (unfinished > 0)
        rp_hostd_hosts_changed(hostd);
    return unfinished;
}

static void *run(void *argument)
{
    struct rp_hostd_finisher *f = argument;
    for (unsigned pause = LOOK_S; wait_s(f, pause);) // twice in a row: the first time did not do it
        pause = finish(f) ? (unsigned)rp_min64(2 * pause, PAUSE_MOST_S) : LOOK_S;
    return NULL;
}

struct rp_hostd_finisher *rp_hostd_finisher_open(struct rp_hostd *hostd, struct rp_error *err)
{
    struct rp_hostd_finisher *f = rp_xcalloc(1, sizeof *f);
    f->hostd = hostd;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&f->stopped, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&f->mutex, NULL);
    int sys = pthread_create(&f->thread, NULL, run, f);
    if (!sys)
        return f;
    pthread_cond_destroy(&f->stopped);
    pthread_mutex_destroy(&f->mutex);
    free(f);
    rp_fail_sys(err, sys, "finishing what was interrupted");
    return NULL;
}

void rp_hostd_finisher_close(struct rp_hostd_finisher *f)
{
    if (!f)
        return;
    pthread_mutex_lock(&f->mutex);
    f->stop = true;
    pthread_cond_signal(&f->stopped);
    pthread_mutex_unlock(&f->mutex);
    pthread_join(f->thread, NULL);
    pthread_cond_destroy(&f->stopped);
    pthread_mutex_destroy(&f->mutex);
    free(f);
}
