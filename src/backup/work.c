#include "backup/work.h"

#include <string.h>

#include "base/buf.h"
#include "base/clock.h"

#define PATIENCE_MS 60000u

struct waiting {
    struct rp_work *work;
    const char *job, *what;     // what: NULL when it is not to be asked to end
    bool interrupted;
    uint64_t deadline;
};

bool rp_work_stopped(const struct rp_work *work) { return work->stop && work->stop(work->context); }

// In the form that rp_host_wait takes. A host that refuses to end a job, as some may at a late moment, ends it its own
// way: it is waited for like one that agreed.
static int look(void *context)
{
    struct waiting *waiting = context;
    struct rp_work *work = waiting->work;
    if (!waiting->interrupted) {
        if (!rp_work_stopped(work))
            return 0;
        waiting->interrupted = true;
        if (waiting->what)
            work->host->ops->cancel_job(work->host, waiting->job, NULL);
        unsigned patience_ms = work->patience_ms ? work->patience_ms : PATIENCE_MS;
        waiting->deadline = rp_clock_monotonic_ns() + patience_ms * UINT64_C(1000000);
        return 0;
    }
    return rp_clock_monotonic_ns() >= waiting->deadline;
}

int rp_work_make(struct rp_work *work, const char *what, const char *job, char result[RP_HOST_ID], struct rp_error *err)
{
    struct waiting waiting = {.work = work, .job = job, .what = what};
    struct rp_job_state state = {.phase = RP_JOB_COMPLETED};
    struct rp_error why = {0};
    work->end = RP_WORK_NOT_ASKED;
    int failed = rp_host_wait(work->host, job, result, look, &waiting, &why);
    if (!waiting.interrupted)
        return failed ? rp_fail_as(err, &why) : 0;
    work->what = what;
    if (failed && work->host->ops->job_state(work->host, job, &state, NULL))
        state.phase = RP_JOB_RUNNING; // nobody can tell
    if (state.phase == RP_JOB_COMPLETED) {
        work->end = RP_WORK_DONE;
        if (failed) // in the very moment in which the time was up
            memcpy(result, state.result, RP_HOST_ID);
        return 0;
    }
    work->end = state.phase == RP_JOB_RUNNING ? RP_WORK_GOES_ON : RP_WORK_ENDED;
    return rp_fail(err, RP_ERR_CANCELLED, "%s", why.text);
}

int rp_work_finish(struct rp_work *work, const char *job, char result[RP_HOST_ID], struct rp_error *err)
{
    struct waiting waiting = {.work = work, .job = job};
    return rp_host_wait(work->host, job, result, look, &waiting, err);
}

void rp_work_explain(const struct rp_work *work, bool made, unsigned removed, const struct rp_error *left,
                     struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    switch (work->end) {
    case RP_WORK_NOT_ASKED:
        break;
    case RP_WORK_ENDED:
        rp_buf_printf(&text, "the host ended %s when it was asked to, ", work->what);
        break;
    case RP_WORK_DONE:
        rp_buf_printf(&text, "the host had done %s by then, ", work->what);
        break;
    case RP_WORK_GOES_ON:
        rp_buf_printf(&text, "the host was asked to end %s, and may still finish it: the next backup of this VM "
                      "removes what comes of it; besides that, ", work->what);
        break;
    }
    if (left->code)
        rp_buf_printf(&text, "something is left on it: %s: the next backup of this VM tries again", left->text);
    else
        rp_buf_printf(&text, "%s", !made     ? "nothing was made on the host"
                                   : removed ? "what was made on the host was removed"
                                             : "nothing of it is on the host");
    rp_error_clear(err);
    rp_fail(err, RP_ERR_CANCELLED, "interrupted: %s", rp_buf_text(&text));
}
