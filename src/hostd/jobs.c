// Jobs: methods that take long. A job is in hostd.db before it starts and again when it has ended; in between it is a
// thread of ours. What is told of it comes from memory: one job by its id, however many others there are.
//
// After a kill the host's own recovery has finished or undone whatever a job was doing (rp_host_local_open). What
// became of the job is then seen from the host: what it was to make has the id that was planned, what it was to destroy
// is gone.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "hostd/jobs_impl.h"

#define SECOND 1000000000ll
#define HANG_MS 20 // between two questions to the script

static _Thread_local struct rp_job *current; // that runs in this thread

// ---- running --------------------------------------------------------------------------------------------------------

uint32_t rp_hostd_jobs_code(const struct rp_error *err, bool hyperv_style)
{
    switch (err->code) {
    case RP_OK: return 0;
    case RP_ERR_UNSUPPORTED: return hyperv_style ? 32770 : 1;
    case RP_ERR_PERMISSION: case RP_ERR_AUTH: return 32769; // the DMTF's family leaves it to the vendor
    case RP_ERR_NOT_FOUND: return !hyperv_style ? 4 : err->sys ? 32779 : 32773; // a file, or an object
    case RP_ERR_INVALID: case RP_ERR_CORRUPT: case RP_ERR_USAGE: case RP_ERR_TRACKING_ID: case RP_ERR_TRACKING_SYNTAX:
        return hyperv_style ? 32773 : 4;
    case RP_ERR_BUSY: return hyperv_style ? 32774 : 5;
    case RP_ERR_STATE: case RP_ERR_EXISTS: case RP_ERR_TRACKING_OFF: return hyperv_style ? 32775 : 5;
    case RP_ERR_NO_MEMORY: return hyperv_style ? 32778 : 2;
    default: return hyperv_style ? 32768 : 2;
    }
}

struct run {
    struct rp_hostd *hostd;
    struct rp_job *job;
    struct rp_error failed; // by the script
};

static void show_percent(struct rp_hostd_jobs *jobs, struct rp_job *job, unsigned percent)
{
    pthread_mutex_lock(&jobs->mutex);
    if (percent > job->row.percent)
        job->row.percent = (uint16_t)(percent > 100 ? 100 : percent);
    pthread_mutex_unlock(&jobs->mutex);
}

// Non-zero: the job is to end.
static int step(struct run *run, unsigned percent)
{
    struct rp_hostd_jobs *jobs = run->hostd->jobs;
    for (;;) {
        if (run->failed.code || atomic_load(&run->job->cancelled))
            return 1;
        unsigned shown = percent;
        int rc = rp_hostd_script_progress(run->hostd, run->job->row.id, &shown, &run->failed);
        show_percent(jobs, run->job, shown == 100 ? 99 : shown);
        if (rc == 0)
            return 0;
        if (rc < 0)
            return 1;
        nanosleep(&(struct timespec){.tv_nsec = HANG_MS * 1000000l}, NULL);
    }
}

static int progress(void *context, uint64_t done, uint64_t total)
{
    double part = total ? (double)done / (double)total : (double)done / 100;
    return step(context, part >= 0.99 ? 99 : (unsigned)(part * 100));
}

static int work(struct run *run, char result[RP_HOST_ID], struct rp_error *err)
{
    struct rp_job *job = run->job;
    if (step(run, 0))
        return run->failed.code ? -1 : rp_fail(err, RP_ERR_CANCELLED, "%s was cancelled", job->row.caption);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(run->hostd, err);
    if (!host)
        return -1;
    host->progress = progress;
    host->progress_context = run;
    bool planned = job->row.planned[0] && job->row.kind != RP_HOSTD_STATE && job->row.kind != RP_HOSTD_FILE &&
                   job->row.kind != RP_HOSTD_DISK;
    if (planned)
        rp_host_local_next_id(host, rp_hostd_paths_bare(job->row.planned));
    int rc = job->run(run->hostd, host, job->context, result, err);
    if (!rc && !run->failed.code && step(run, 100) && !run->failed.code)
        atomic_store(&job->cancelled, false); // too late: it is done
    rp_host_local_next_id(host, ""); // whoever borrows the connection next must not get an id that was not used
    rp_hostd_hosts_return(run->hostd, host);
    return rc;
}

// As Windows ends its descriptions: the HRESULT tells a client what the few codes of jobs do not.
static void describe_error(const struct rp_error *err, char text[RP_ERROR_TEXT + 16])
{
    uint32_t code = rp_code_win32(err->code);
    snprintf(text, RP_ERROR_TEXT + 16, "%s (0x%08X)", err->text, code < 0x10000 ? 0x80070000 | code : code);
}

static void execute(struct rp_hostd_jobs *jobs, struct rp_job *job)
{
    struct run run = {.hostd = jobs->hostd, .job = job};
    struct rp_error err = {0};
    char result[RP_HOST_ID] = "";
    current = job;
    int rc = work(&run, result, &err);
    current = NULL;
    if (job->free_context)
        job->free_context(job->context);
    if (run.failed.code) {
        rc = -1;
        err = run.failed;
    }
    rp_hostd_hosts_changed(jobs->hostd); // before anybody sees its end
    bool cancelled = rc && err.code == RP_ERR_CANCELLED && atomic_load(&job->cancelled);
    char text[RP_ERROR_TEXT + 16] = "";
    if (rc)
        describe_error(&err, text);
    rp_jobs_end(jobs, job,
                !rc         ? RP_HOSTD_COMPLETED
                : cancelled ? RP_HOSTD_TERMINATED
                            : RP_HOSTD_EXCEPTION,
                rc ? "" : result, rc ? rp_hostd_jobs_code(&err, true) : 0, text);
}

static void *serve(void *context)
{
    struct rp_hostd_jobs *jobs = context;
    pthread_mutex_lock(&jobs->mutex);
    for (;;) {
        jobs->idle++;
        while (!jobs->queue && !atomic_load(&jobs->stop))
            pthread_cond_wait(&jobs->work, &jobs->mutex);
        jobs->idle--;
        struct rp_job *job = jobs->queue;
        if (!job)
            break;
        jobs->queue = job->in_queue;
        jobs->queued--;
        job->references++;
        pthread_mutex_unlock(&jobs->mutex);
        execute(jobs, job);
        pthread_mutex_lock(&jobs->mutex);
        rp_jobs_unref(job);
    }
    pthread_mutex_unlock(&jobs->mutex);
    return NULL;
}

// ---- starting -------------------------------------------------------------------------------------------------------

char *rp_hostd_jobs_plan(void)
{
    struct rp_guid guid = rp_guid_new();
    char text[RP_GUID_TEXT];
    rp_guid_format(&guid, text);
    for (char *p = text; *p; p++)
        *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
    return rp_xstrdup(text);
}

static char *copy(const char *text) { return rp_xstrdup(text ? text : ""); }

static struct rp_job *new_job(const struct rp_cim_caller *caller, const struct rp_hostd_job *from)
{
    struct rp_job *job = rp_xcalloc(1, sizeof *job);
    RP_AUTO_FREE char *id = rp_hostd_jobs_plan();
    memcpy(job->row.id, id, sizeof job->row.id);
    job->row.class_name = copy(from->class_name ? from->class_name : "Msvm_ConcreteJob");
    job->row.caption = copy(from->caption);
    job->row.owner = copy(caller->user);
    job->row.vm_id = copy(from->vm_id);
    job->row.target = copy(from->target);
    // A file that is there already tells nothing after a kill.
    bool tells = from->result != RP_HOSTD_FILE || (from->planned && access(from->planned, F_OK));
    job->row.planned = copy(tells ? from->planned : NULL);
    job->row.error = copy("");
    job->row.details = rp_jobs_details_text(from->details);
    job->row.kind = from->result;
    job->row.makes_gone = from->makes_gone;
    job->row.type = from->type;
    job->row.state = RP_HOSTD_RUNNING;
    job->row.submitted = job->changed = rp_clock_wall_ns();
    job->details = from->details ? rp_cim_instance_copy(from->details) : NULL;
    job->address = copy(caller->address);
    job->run = from->run;
    job->context = from->context;
    job->free_context = from->free_context;
    return job;
}

static void forget(const struct rp_hostd_job *job)
{
    if (job->free_context)
        job->free_context(job->context);
}

// Before it may start: durably, and if there is room for one more.
static int remember(struct rp_hostd_jobs *jobs, const struct rp_job *job, struct rp_error *err)
{
    pthread_mutex_lock(&jobs->mutex);
    bool room = jobs->unended < RP_JOB_MOST;
    jobs->unended += room;
    pthread_mutex_unlock(&jobs->mutex);
    if (!room)
        return rp_fail(err, RP_ERR_BUSY, "%d jobs have not ended: more are not taken", RP_JOB_MOST);
    pthread_mutex_lock(&jobs->store_mutex);
    int rc = atomic_load(&jobs->stop) ? rp_fail(err, RP_ERR_BUSY, "refpoint-hostd is being stopped")
                                      : rp_hostd_store_add(jobs->store, &job->row, err);
    pthread_mutex_unlock(&jobs->store_mutex);
    if (!rc)
        return 0;
    pthread_mutex_lock(&jobs->mutex);
    jobs->unended--;
    pthread_mutex_unlock(&jobs->mutex);
    return -1;
}

int rp_hostd_jobs_start(struct rp_hostd *hostd, const struct rp_cim_caller *caller, const struct rp_hostd_job *from,
                        struct rp_cim_instance *out, uint32_t *status, struct rp_error *err)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    struct rp_job *job = new_job(caller, from);
    job->references = 1;
    if (remember(jobs, job, err)) {
        forget(from);
        rp_jobs_unref(job);
        return -1;
    }
    struct rp_cim_path *path = rp_hostd_paths_job(hostd, job->row.class_name, job->row.id);
    rp_hostd_script_job(hostd, job->row.id, from);
    pthread_mutex_lock(&jobs->mutex);
    rp_jobs_expire(jobs);
    if (jobs->queued >= jobs->idle && jobs->thread_count < RP_JOB_THREADS)
        jobs->thread_count += !pthread_create(&jobs->threads[jobs->thread_count], NULL, serve, jobs);
    int rc = jobs->thread_count && !atomic_load(&jobs->stop) ? 0 : -1;
    job->references = 0;
    rp_jobs_insert(jobs, job);
    if (!rc) {
        job->in_queue = NULL;
        *(jobs->queue ? &jobs->queue_last->in_queue : &jobs->queue) = job;
        jobs->queue_last = job;
        jobs->queued++;
        pthread_cond_signal(&jobs->work);
    }
    pthread_mutex_unlock(&jobs->mutex);
    if (rc) {
        rp_fail(err, RP_ERR_BUSY, "no thread for the job can be had");
        rp_cim_path_free(path);
        forget(from);
        rp_jobs_end(jobs, job, RP_HOSTD_EXCEPTION, "", 32768,
                    "it was not started: refpoint-hostd has no thread for it");
        return -1;
    }
    rp_cim_set(out, "Job", rp_cim_reference(path));
    *status = 4096;
    return 0;
}

void rp_hostd_jobs_detail(struct rp_hostd *hostd, const char *name, struct rp_cim_value value)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    if (!current) {
        rp_cim_value_clear(&value);
        return;
    }
    pthread_mutex_lock(&jobs->mutex);
    if (!current->details)
        current->details = rp_cim_instance_new(NULL, current->row.class_name);
    rp_cim_set(current->details, name, value);
    pthread_mutex_unlock(&jobs->mutex);
}

int rp_hostd_jobs_open(struct rp_hostd *hostd, unsigned seconds, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/hostd.db", hostd->directory);
    struct rp_hostd_store *store = rp_hostd_store_open(path, err);
    if (!store)
        return -1;
    struct rp_hostd_jobs *jobs = hostd->jobs = rp_xcalloc(1, sizeof *jobs);
    jobs->hostd = hostd;
    jobs->store = store;
    jobs->keep_ns = (int64_t)seconds * SECOND;
    pthread_mutex_init(&jobs->mutex, NULL);
    pthread_mutex_init(&jobs->store_mutex, NULL);
    pthread_cond_init(&jobs->work, NULL);
    return rp_jobs_recall(jobs, err) ? rp_context(err, "jobs of an earlier run") : 0;
}

void rp_hostd_jobs_stop(struct rp_hostd *hostd)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    if (!jobs)
        return;
    pthread_mutex_lock(&jobs->mutex);
    atomic_store(&jobs->stop, true);
    for (struct rp_job *job = jobs->first; job; job = job->after)
        if (!job->row.ended)
            atomic_store(&job->cancelled, true);
    pthread_cond_broadcast(&jobs->work);
    unsigned count = jobs->thread_count;
    pthread_mutex_unlock(&jobs->mutex);
    for (unsigned i = 0; i < count; i++)
        pthread_join(jobs->threads[i], NULL);
    pthread_mutex_lock(&jobs->mutex);
    jobs->thread_count = 0;
    pthread_mutex_unlock(&jobs->mutex);
}

void rp_hostd_jobs_close(struct rp_hostd *hostd)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    if (!jobs)
        return;
    rp_hostd_jobs_stop(hostd);
    while (jobs->first)
        rp_jobs_take_out(jobs, jobs->first);
    rp_hostd_store_close(jobs->store);
    pthread_cond_destroy(&jobs->work);
    pthread_mutex_destroy(&jobs->mutex);
    pthread_mutex_destroy(&jobs->store_mutex);
    free(jobs);
    hostd->jobs = NULL;
}
