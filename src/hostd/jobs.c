// Jobs: methods that take long. A job is in hostd.db before it starts and again when it has ended; in between it is a
// thread of ours. What is told of it comes from memory: one job by its id, however many others there are.
//
// After a kill the host's own recovery has finished or undone whatever a job was doing (rp_host_local_open). What became of
// the job is then seen from the host: what it was to make has the id that was planned, what it was to destroy is gone.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "cim/cimxml.h"
#include "hostd/core.h"
#include "hostd/schema/schema.h"

#define MAX_THREADS 16
#define BUCKETS 4096
#define SECOND 1000000000ll
#define HANG_MS 20 // between two questions to the script

struct job {
    struct rp_hostd_row row;     // fixed but for state, percent, code, result, error, ended, changed, details: those under
    int64_t changed;             // the mutex while it runs, fixed once it has ended
    struct rp_cim_instance *details;
    char *address;
    int (*run)(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
               struct rp_error *err);
    void *context;
    void (*free_context)(void *context);
    atomic_bool cancelled;
    unsigned references;
    uint64_t expires;            // monotonic ns, once it has ended
    struct job *in_bucket;
    struct job *before, *after;  // all of them, as they were started
    struct job *in_queue;        // then: among those that have ended, as they ended
};

struct rp_hostd_jobs {
    struct rp_hostd *hostd;
    struct rp_hostd_store *store;
    pthread_mutex_t store_mutex; // of the database; taken without the other one held
    int64_t keep_ns;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct job *buckets[BUCKETS];
    struct job *first, *last, *queue, *queue_last, *ended, *ended_last;
    size_t count;
    pthread_t threads[MAX_THREADS];
    unsigned thread_count, idle, queued;
    atomic_bool stop;
};

static _Thread_local struct job *current; // that runs in this thread

// ---- the list ----------------------------------------------------------------------------------------------------------

static struct job **bucket(struct rp_hostd_jobs *jobs, const char *id)
{
    uint32_t hash = 2166136261u;
    for (const char *p = id; *p; p++)
        hash = (hash ^ (uint32_t)(*p | 32)) * 16777619u; // ids in either case; digits and '-' have that bit
    return &jobs->buckets[hash % BUCKETS];
}

static struct job *find(struct rp_hostd_jobs *jobs, const char *id)
{
    struct job *job = *bucket(jobs, id);
    while (job && strcasecmp(job->row.id, id))
        job = job->in_bucket;
    return job;
}

static void insert(struct rp_hostd_jobs *jobs, struct job *job)
{
    struct job **place = bucket(jobs, job->row.id);
    job->in_bucket = *place;
    *place = job;
    job->before = jobs->last;
    *(jobs->last ? &jobs->last->after : &jobs->first) = job;
    jobs->last = job;
    job->references = 1;
    jobs->count++;
}

static void unref(struct job *job)
{
    if (--job->references)
        return;
    rp_hostd_row_clear(&job->row);
    rp_cim_instance_free(job->details);
    free(job->address);
    free(job);
}

static void take_out(struct rp_hostd_jobs *jobs, struct job *job)
{
    struct job **place = bucket(jobs, job->row.id);
    while (*place != job)
        place = &(*place)->in_bucket;
    *place = job->in_bucket;
    *(job->before ? &job->before->after : &jobs->first) = job->after;
    *(job->after ? &job->after->before : &jobs->last) = job->before;
    jobs->count--;
    unref(job);
}

static void append_ended(struct rp_hostd_jobs *jobs, struct job *job)
{
    job->in_queue = NULL;
    *(jobs->ended_last ? &jobs->ended_last->in_queue : &jobs->ended) = job;
    jobs->ended_last = job;
}

static void expire(struct rp_hostd_jobs *jobs)
{
    uint64_t now = rp_clock_monotonic_ns();
    while (jobs->ended && jobs->ended->expires <= now) {
        struct job *job = jobs->ended;
        jobs->ended = job->in_queue;
        if (!jobs->ended)
            jobs->ended_last = NULL;
        take_out(jobs, job);
    }
}

// ---- running -----------------------------------------------------------------------------------------------------------

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
    struct job *job;
    struct rp_error failed; // by the script
};

static void show_percent(struct rp_hostd_jobs *jobs, struct job *job, unsigned percent)
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
    struct job *job = run->job;
    if (step(run, 0))
        return run->failed.code ? -1 : rp_fail(err, RP_ERR_CANCELLED, "%s was cancelled", job->row.caption);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(run->hostd, err);
    if (!host)
        return -1;
    host->progress = progress;
    host->progress_context = run;
    bool planned = job->row.planned[0] && job->row.kind != RP_HOSTD_STATE && job->row.kind != RP_HOSTD_FILE;
    if (planned)
        rp_host_local_next_id(host, rp_hostd_paths_bare(job->row.planned));
    int rc = job->run(run->hostd, host, job->context, result, err);
    if (!rc && !run->failed.code && step(run, 100) && !run->failed.code)
        atomic_store(&job->cancelled, false); // too late: it is done
    if (rc && planned) { // whoever borrows it next must not get the id that was not used
        rp_host_close(host);
        return rc;
    }
    rp_hostd_hosts_return(run->hostd, host);
    return rc;
}

static void audit_end(const struct rp_hostd *hostd, const struct job *job)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    char number[16];
    snprintf(number, sizeof number, "%u", job->row.state);
    rp_hostd_audit_field(&line, "user", job->row.owner);
    if (job->address)
        rp_hostd_audit_field(&line, "address", job->address);
    rp_hostd_audit_field(&line, "job", job->row.id);
    rp_hostd_audit_field(&line, "caption", job->row.caption);
    rp_hostd_audit_field(&line, "state", number);
    if (job->row.result[0])
        rp_hostd_audit_field(&line, "result", job->row.result);
    if (job->row.error[0])
        rp_hostd_audit_field(&line, "error", job->row.error);
    rp_hostd_audit_write(hostd->audit, &line);
}

static char *details_text(const struct rp_cim_instance *details)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (details)
        rp_cimxml_write(details, &text);
    return rp_xstrdup(rp_buf_text(&text));
}

// Its end, first in the database, then for all to see.
static void end(struct rp_hostd_jobs *jobs, struct job *job, uint16_t state, const char *result, uint32_t code,
                const char *error)
{
    struct rp_error err = {0};
    pthread_mutex_lock(&jobs->store_mutex);
    pthread_mutex_lock(&jobs->mutex);
    struct rp_hostd_row row = job->row; // shares its texts
    row.details = details_text(job->details);
    pthread_mutex_unlock(&jobs->mutex);
    row.state = state;
    row.percent = state == RP_HOSTD_COMPLETED ? 100 : row.percent;
    row.code = code;
    row.error = rp_xstrdup(error);
    row.ended = rp_clock_wall_ns();
    snprintf(row.result, sizeof row.result, "%s", result);
    if (rp_hostd_store_end(jobs->store, &row, row.ended - jobs->keep_ns, &err))
        rp_log(RP_LOG_ERROR, "job %s: its end is not remembered after a restart: %s", row.id, err.text);
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
    append_ended(jobs, job);
    pthread_mutex_unlock(&jobs->mutex);
    pthread_mutex_unlock(&jobs->store_mutex);
    audit_end(jobs->hostd, job);
}

// As Windows ends its descriptions: the HRESULT tells a client what the few codes of jobs do not.
static void describe_error(const struct rp_error *err, char text[RP_ERROR_TEXT + 16])
{
    uint32_t code = rp_code_win32(err->code);
    snprintf(text, RP_ERROR_TEXT + 16, "%s (0x%08X)", err->text, code < 0x10000 ? 0x80070000 | code : code);
}

static void execute(struct rp_hostd_jobs *jobs, struct job *job)
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
    end(jobs, job, !rc ? RP_HOSTD_COMPLETED : cancelled ? RP_HOSTD_TERMINATED : RP_HOSTD_EXCEPTION, rc ? "" : result,
        rc ? rp_hostd_jobs_code(&err, true) : 0, text);
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
        struct job *job = jobs->queue;
        if (!job)
            break;
        jobs->queue = job->in_queue;
        jobs->queued--;
        job->references++;
        pthread_mutex_unlock(&jobs->mutex);
        execute(jobs, job);
        pthread_mutex_lock(&jobs->mutex);
        unref(job);
    }
    pthread_mutex_unlock(&jobs->mutex);
    return NULL;
}

// ---- starting ----------------------------------------------------------------------------------------------------------

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

static struct job *new_job(const struct rp_cim_caller *caller, const struct rp_hostd_job *from)
{
    struct job *job = rp_xcalloc(1, sizeof *job);
    RP_AUTO_FREE char *id = rp_hostd_jobs_plan();
    memcpy(job->row.id, id, sizeof job->row.id);
    job->row.class_name = copy(from->class_name ? from->class_name : "Msvm_ConcreteJob");
    job->row.caption = copy(from->caption);
    job->row.owner = copy(caller->user);
    job->row.vm_id = copy(from->vm_id);
    job->row.target = copy(from->target);
    job->row.planned = copy(from->planned);
    job->row.error = copy("");
    job->row.details = details_text(from->details);
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

int rp_hostd_jobs_start(struct rp_hostd *hostd, const struct rp_cim_caller *caller, const struct rp_hostd_job *from,
                        struct rp_cim_instance *out, uint32_t *status, struct rp_error *err)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    struct job *job = new_job(caller, from);
    job->references = 1;
    pthread_mutex_lock(&jobs->store_mutex);
    int rc = atomic_load(&jobs->stop) ? rp_fail(err, RP_ERR_BUSY, "refpoint-hostd is being stopped")
                                      : rp_hostd_store_add(jobs->store, &job->row, err);
    pthread_mutex_unlock(&jobs->store_mutex);
    if (rc) {
        forget(from);
        unref(job);
        return -1;
    }
    struct rp_cim_path *path = rp_hostd_paths_job(hostd, job->row.class_name, job->row.id);
    rp_hostd_script_job(hostd, job->row.id, from);
    pthread_mutex_lock(&jobs->mutex);
    expire(jobs);
    if (jobs->queued >= jobs->idle && jobs->thread_count < MAX_THREADS)
        jobs->thread_count += !pthread_create(&jobs->threads[jobs->thread_count], NULL, serve, jobs);
    rc = jobs->thread_count && !atomic_load(&jobs->stop) ? 0 : -1;
    job->references = 0;
    insert(jobs, job);
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
        end(jobs, job, RP_HOSTD_EXCEPTION, "", 32768, "it was not started: refpoint-hostd has no thread for it");
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

// ---- telling -----------------------------------------------------------------------------------------------------------

// Under the mutex, but for the details, which may change: those are copied.
static struct rp_hostd_job_view look(const struct job *job, struct rp_cim_instance **details)
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
    expire(jobs);
    struct job *one = only ? find(jobs, only) : NULL;
    size_t count = only ? one != NULL : jobs->count;
    RP_AUTO_FREE struct job **list = rp_xcalloc(count ? count : 1, sizeof *list);
    struct job *next = only ? one : jobs->first;
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
        unref(list[i]);
    }
    pthread_mutex_unlock(&jobs->mutex);
    return rc;
}

int rp_hostd_jobs_cancel(struct rp_hostd *hostd, const char *id, struct rp_error *err)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    pthread_mutex_lock(&jobs->mutex);
    struct job *job = find(jobs, id);
    int rc = !job ? rp_fail(err, RP_ERR_NOT_FOUND, "there is no job %.64s", id)
                  : job->row.ended ? rp_fail(err, RP_ERR_STATE, "job %s has ended", job->row.id) : 0;
    if (!rc)
        atomic_store(&job->cancelled, true);
    pthread_mutex_unlock(&jobs->mutex);
    return rc;
}

const char *rp_hostd_jobs_uuid(const struct rp_hostd *hostd) { return rp_hostd_store_uuid(hostd->jobs->store); }

// ---- from an earlier life ----------------------------------------------------------------------------------------------

static bool has_disk(const struct rp_inventory *inventory, const char *instance)
{
    for (size_t i = 0; i < inventory->count; i++)
        for (size_t j = 0; j < inventory->items[i].settings.disk_count; j++)
            if (!strcasecmp(inventory->items[i].settings.disks[j].instance, instance))
                return true;
    return false;
}

// Whether there is such a thing; `id` gets it as the host calls it.
static bool is_there(const struct rp_inventory *inventory, enum rp_hostd_result kind, const char *wanted,
                     char id[RP_HOST_ID])
{
    bool planned = false;
    const struct rp_inventory_vm *vm = NULL;
    const char *found = NULL;
    if (kind == RP_HOSTD_VM || kind == RP_HOSTD_PLANNED) {
        vm = rp_hostd_hosts_vm(inventory, rp_hostd_paths_bare(wanted), &planned);
        found = vm && planned == (kind == RP_HOSTD_PLANNED) ? vm->vm.id : NULL;
    } else if (kind == RP_HOSTD_SNAPSHOT) {
        const struct rp_snapshot *snapshot = rp_hostd_hosts_snapshot(inventory, wanted, &vm);
        found = snapshot ? snapshot->id : NULL;
    } else if (kind == RP_HOSTD_POINT) {
        const struct rp_reference_point *point = rp_hostd_hosts_point(inventory, wanted, &vm);
        found = point ? point->id : NULL;
    } else if (kind == RP_HOSTD_DISK) {
        found = has_disk(inventory, wanted) || has_disk(rp_hostd_hosts_planned(inventory), wanted) ? wanted : NULL;
    }
    if (found)
        snprintf(id, RP_HOST_ID, "%s", found);
    return found;
}

// Whether what a job was to do is done.
static bool is_done(const struct rp_inventory *inventory, const struct rp_hostd_row *row, char result[RP_HOST_ID])
{
    char id[RP_HOST_ID];
    bool planned = false;
    const struct rp_inventory_vm *vm;
    result[0] = '\0';
    if (row->kind == RP_HOSTD_NOTHING)
        return false;
    if (row->kind == RP_HOSTD_FILE)
        return row->planned[0] && !access(row->planned, F_OK);
    if (row->kind == RP_HOSTD_STATE) {
        vm = rp_hostd_hosts_vm(inventory, row->target, &planned);
        return vm && (int)vm->vm.state == atoi(row->planned);
    }
    if (row->makes_gone)
        return !is_there(inventory, row->kind, row->target, id);
    return row->planned[0] && is_there(inventory, row->kind, row->planned, result);
}

static int tell_outcome(struct rp_hostd_jobs *jobs, struct job *job, struct rp_error *err)
{
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(jobs->hostd, err);
    if (!inventory)
        return -1;
    char result[RP_HOST_ID];
    bool done = is_done(inventory, &job->row, result);
    rp_hostd_hosts_release(jobs->hostd, inventory);
    const char *why = job->row.kind == RP_HOSTD_NOTHING
                          ? "refpoint-hostd was stopped in the middle of it; whether it was done has to be looked at"
                          : "refpoint-hostd was stopped in the middle of it; it was not done";
    end(jobs, job, done ? RP_HOSTD_COMPLETED : RP_HOSTD_EXCEPTION, result, done ? 0 : 32768, done ? "" : why);
    return 0;
}

static struct rp_cim_instance *read_details(const char *text)
{
    return *text ? rp_cimxml_parse(text, strlen(text), NULL) : NULL;
}

static int recall(struct rp_hostd_jobs *jobs, struct rp_error *err)
{
    struct rp_hostd_row *rows;
    size_t count;
    int64_t now = rp_clock_wall_ns();
    if (rp_hostd_store_load(jobs->store, now - jobs->keep_ns, &rows, &count, err))
        return -1;
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        struct job *job = rp_xcalloc(1, sizeof *job);
        job->row = rows[i];
        job->details = read_details(job->row.details);
        job->changed = job->row.ended ? job->row.ended : job->row.submitted;
        insert(jobs, job);
        int64_t left = job->row.ended + jobs->keep_ns - now;
        job->expires = rp_clock_monotonic_ns() + (uint64_t)(left < 0 ? 0 : left < jobs->keep_ns ? left : jobs->keep_ns);
        if (job->row.ended)
            append_ended(jobs, job);
        else if (!rc)
            rc = tell_outcome(jobs, job, err);
    }
    free(rows);
    return rc;
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
    return recall(jobs, err) ? rp_context(err, "jobs of an earlier run") : 0;
}

void rp_hostd_jobs_stop(struct rp_hostd *hostd)
{
    struct rp_hostd_jobs *jobs = hostd->jobs;
    if (!jobs)
        return;
    pthread_mutex_lock(&jobs->mutex);
    atomic_store(&jobs->stop, true);
    for (struct job *job = jobs->first; job; job = job->after)
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
        take_out(jobs, jobs->first);
    rp_hostd_store_close(jobs->store);
    pthread_cond_destroy(&jobs->work);
    pthread_mutex_destroy(&jobs->mutex);
    pthread_mutex_destroy(&jobs->store_mutex);
    free(jobs);
    hostd->jobs = NULL;
}
