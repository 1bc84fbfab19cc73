// The jobs that there are: found by their ids, told in the order of their start, forgotten in the order of their end.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "cim/cimxml.h"
#include "hostd/jobs_impl.h"

static struct rp_job **bucket(struct rp_hostd_jobs *jobs, const char *id)
{
    uint32_t hash = 2166136261u;
    for (const char *p = id; *p; p++)
        hash = (hash ^ (uint32_t)(*p | 32)) * 16777619u; // ids in either case; digits and '-' have that bit
    return &jobs->buckets[hash % RP_JOB_BUCKETS];
}

struct rp_job *rp_jobs_find(struct rp_hostd_jobs *jobs, const char *id)
{
    struct rp_job *job = *bucket(jobs, id);
    while (job && strcasecmp(job->row.id, id))
        job = job->in_bucket;
    return job;
}

void rp_jobs_insert(struct rp_hostd_jobs *jobs, struct rp_job *job)
{
    struct rp_job **place = bucket(jobs, job->row.id);
    job->in_bucket = *place;
    *place = job;
    job->before = jobs->last;
    *(jobs->last ? &jobs->last->after : &jobs->first) = job;
    jobs->last = job;
    job->references = 1;
    jobs->count++;
}

void rp_jobs_unref(struct rp_job *job)
{
    if (--job->references)
        return;
    rp_hostd_row_clear(&job->row);
    rp_cim_instance_free(job->details);
    free(job->address);
    free(job);
}

void rp_jobs_take_out(struct rp_hostd_jobs *jobs, struct rp_job *job)
{
    struct rp_job **place = bucket(jobs, job->row.id);
    while (*place != job)
        place = &(*place)->in_bucket;
    *place = job->in_bucket;
    *(job->before ? &job->before->after : &jobs->first) = job->after;
    *(job->after ? &job->after->before : &jobs->last) = job->before;
    jobs->count--;
    rp_jobs_unref(job);
}

void rp_jobs_append_ended(struct rp_hostd_jobs *jobs, struct rp_job *job)
{
    job->in_queue = NULL;
    *(jobs->ended_last ? &jobs->ended_last->in_queue : &jobs->ended) = job;
    jobs->ended_last = job;
}

void rp_jobs_expire(struct rp_hostd_jobs *jobs)
{
    uint64_t now = rp_clock_monotonic_ns();
    while (jobs->ended && jobs->ended->expires <= now) {
        struct rp_job *job = jobs->ended;
        jobs->ended = job->in_queue;
        if (!jobs->ended)
            jobs->ended_last = NULL;
        rp_jobs_take_out(jobs, job);
    }
}

// ---- their end ------------------------------------------------------------------------------------------------------

static void audit_end(const struct rp_hostd *hostd, const char *address, const struct rp_hostd_row *row)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    char number[16];
    snprintf(number, sizeof number, "%u", row->state);
    rp_hostd_audit_field(&line, "user", row->owner);
    if (address)
        rp_hostd_audit_field(&line, "address", address);
    rp_hostd_audit_field(&line, "job", row->id);
    rp_hostd_audit_field(&line, "caption", row->caption);
    rp_hostd_audit_field(&line, "state", number);
    if (row->result[0])
        rp_hostd_audit_field(&line, "result", row->result);
    if (row->error[0])
        rp_hostd_audit_field(&line, "error", row->error);
    rp_hostd_audit_write(hostd->audit, &line);
}

char *rp_jobs_details_text(const struct rp_cim_instance *details)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (details)
        rp_cimxml_write(details, &text);
    return rp_xstrdup(rp_buf_text(&text));
}

// Its end: in the database, in the audit, then for all to see.
void rp_jobs_end(struct rp_hostd_jobs *jobs, struct rp_job *job, uint16_t state, const char *result, uint32_t code,
                const char *error)
{
    struct rp_error err = {0};
    pthread_mutex_lock(&jobs->store_mutex);
    pthread_mutex_lock(&jobs->mutex);
    struct rp_hostd_row row = job->row; // shares its texts
    row.details = rp_jobs_details_text(job->details);
    pthread_mutex_unlock(&jobs->mutex);
    row.state = state;
    row.percent = state == RP_HOSTD_COMPLETED ? 100 : row.percent;
    row.code = code;
    row.error = rp_xstrdup(error);
    row.ended = rp_clock_wall_ns();
    snprintf(row.result, sizeof row.result, "%s", result);
    if (rp_hostd_store_end(jobs->store, &row, row.ended - jobs->keep_ns, &err))
        rp_log(RP_LOG_ERROR, "job %s: its end is not remembered after a restart: %s", row.id, err.text);
    audit_end(jobs->hostd, job->address, &row);
    pthread_mutex_lock(&jobs->mutex);
    free(job->row.error);
    free(job->row.details);
    job->row.error = row.error;
    job->row.details = row.details;
    memcpy(job->row.result, row.result, sizeof row.result);
    job->row.state = row.state;
    job->row.percent = row.percent;
    job->row.code = row.code;
    job->row.ended = row.ended;
    job->changed = row.ended;
    job->expires = rp_clock_monotonic_ns() + (uint64_t)jobs->keep_ns;
    rp_jobs_append_ended(jobs, job);
    jobs->unended--;
    pthread_mutex_unlock(&jobs->mutex);
    pthread_mutex_unlock(&jobs->store_mutex);
}

// ---- telling --------------------------------------------------------------------------------------------------------

// Under the mutex, but for the details, which may change: those are copied.
static struct rp_hostd_job_view look(const struct rp_job *job, struct rp_cim_instance **details)
{
    const struct rp_hostd_row *row = &job->row;
    *details = job->details ? rp_cim_instance_copy(job->details) : NULL;
    return (struct rp_hostd_job_view){
        .id = row->id, .class_name = row->class_name, .caption = row->caption, .owner = row->owner, .vm_id = row->vm_id,
        .target = row->target, .result = row->ended ? row->result : "", .error = row->ended ? row->error : "",
        .kind = row->kind, .makes_gone = row->makes_gone, .type = row->type, .state = row->state,
        .percent = row->percent, .code = row->code, .submitted = row->submitted, .changed = job->changed,
        .ended = row->ended, .details = *details,
    };
}

int rp_hostd_jobs_each(struct rp_hostd *hostd, const char *only,
                       int (*visit)(void *context, const struct rp_hostd_job_view *view, struct rp_error *err),
                       void *context, struct rp_error *err)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    pthread_mutex_lock(&jobs->mutex);
    rp_jobs_expire(jobs);
    struct rp_job *one = only ? rp_jobs_find(jobs, only) : NULL;
    size_t count = only ? one != NULL : jobs->count;
    RP_AUTO_FREE struct rp_job **list = rp_xcalloc(count ? count : 1, sizeof *list);
    struct rp_job *next = only ? one : jobs->first;
    for (size_t i = 0; i < count; i++, next = next->after) {
        list[i] = next;
        next->references++;
    }
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        if (!rc) {
            struct rp_cim_instance *details;
            struct rp_hostd_job_view view = look(list[i], &details);
            pthread_mutex_unlock(&jobs->mutex);
            rc = visit(context, &view, err);
            rp_cim_instance_free(details);
            pthread_mutex_lock(&jobs->mutex);
        }
        rp_jobs_unref(list[i]);
    }
    pthread_mutex_unlock(&jobs->mutex);
    return rc;
}

int rp_hostd_jobs_cancel(struct rp_hostd *hostd, const char *id, struct rp_error *err)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    pthread_mutex_lock(&jobs->mutex);
    struct rp_job *job = rp_jobs_find(jobs, id);
    int rc = !job ? rp_fail(err, RP_ERR_NOT_FOUND, "there is no job %.64s", id)
                  : job->row.ended ? rp_fail(err, RP_ERR_STATE, "job %s has ended", job->row.id) : 0;
    if (!rc)
        atomic_store(&job->cancelled, true);
    pthread_mutex_unlock(&jobs->mutex);
    return rc;
}

const char *rp_hostd_jobs_uuid(const struct rp_hostd *hostd) { return rp_hostd_store_uuid(hostd->jobs->store); }
