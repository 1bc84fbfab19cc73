// Methods of the fake host that take a while, and what becomes of them when they are asked to end.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

#define JOBS (sizeof ((struct fake_host *)0)->jobs / sizeof *((struct fake_host *)0)->jobs)

static void finish(struct fake_host *fake, struct fake_job *job)
{
    fake_job_do(fake, job);
    job->ended = job->done = true;
}

void fake_job_start(struct fake_host *fake, const struct fake_job *what, char job[RP_HOST_ID])
{
    struct fake_job *started;
    do // those that have ended are forgotten in turn
        started = &fake->jobs[fake->next_job++ % JOBS];
    while (started->present && !started->ended);
    *started = *what;
    started->present = true;
    started->polls = fake->slow;
    snprintf(job, RP_HOST_ID, "job:%zu", (size_t)(started - fake->jobs));
    if (!fake->slow)
        finish(fake, started);
}

static struct fake_job *find(struct fake_host *fake, const char *id)
{
    unsigned number = (unsigned)atoi(id + 4); // after "job:"
    return number < JOBS && fake->jobs[number].present ? &fake->jobs[number] : NULL;
}

bool fake_job_busy(const struct fake_host *fake, const char *target)
{
    for (size_t i = 0; i < JOBS; i++)
        if (fake->jobs[i].present && !fake->jobs[i].ended && !strcmp(fake->jobs[i].target, target))
            return true;
    return false;
}

void fake_jobs_finish(struct fake_host *fake)
{
    for (size_t i = 0; i < JOBS; i++)
        if (fake->jobs[i].present && !fake->jobs[i].ended)
            finish(fake, &fake->jobs[i]);
}

int fake_job_state(struct rp_host_connection *host, const char *id, struct rp_job_state *state, struct rp_error *err)
{
    struct fake_host *fake = (struct fake_host *)host;
    if (!fake_enter(fake, "job_state", err))
        return -1;
    struct fake_job *job = find(fake, id);
    if (!job)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no job %s", id);
    *state = (struct rp_job_state){.phase = RP_JOB_RUNNING, .percent = 50};
    if (!job->ended && !job->endless) {
        if (!job->polls)
            finish(fake, job);
        else
            job->polls--;
    }
    if (job->done) {
        state->phase = RP_JOB_COMPLETED;
        memcpy(state->result, job->result, RP_HOST_ID);
    } else if (job->ended) {
        state->phase = RP_JOB_FAILED;
        rp_fail(&state->error, RP_ERR_CANCELLED, "%s: the job was ended", job->verb);
    }
    return fake_leave(fake, "job_state", err);
}

int fake_job_cancel(struct rp_host_connection *host, const char *id, struct rp_error *err)
{
    struct fake_host *fake = (struct fake_host *)host;
    if (!fake_enter(fake, "cancel_job", err))
        return -1;
    struct fake_job *job = find(fake, id);
    if (!job || !strncmp(job->verb, "destroy", 7)) // what removes something is never asked to end
        abort();
    fake->asked_to_end++;
    if (fake->cancel == FAKE_CANCEL_REFUSED)
        return rp_fail(err, RP_ERR_STATE, "%s cannot be ended", job->verb);
    if (fake->cancel == FAKE_CANCEL_ENDS)
        job->ended = true;
    else if (fake->cancel == FAKE_CANCEL_TOO_LATE)
        job->polls = 0;
    else
        job->endless = true;
    return fake_leave(fake, "cancel_job", err);
}
