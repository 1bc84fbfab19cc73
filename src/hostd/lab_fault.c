// When a fault of the script happens: the hooks that provider.c, jobs.c and the server call.
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "cim/cimxml.h"
#include "hostd/lab.h"

enum { MOST_FAULTS = 1000, MOST_JOBS = 1000, JOB_EXPORTS = 62, JOB_EXPORTS_POINT = 203 };

// Of one kind at most one happens to a call.
enum kind { ANSWER, DROP, WAIT, LOSE, JOB, KINDS };

struct waiting {                // a fault that has not happened, or happens again
    struct rp_lab_fault fault;
    char *text;
};
struct concerned {              // a job that something will happen to
    struct concerned *next;
    char id[RP_HOST_ID];
    struct rp_lab_fault fault;
    bool copies;                // its progress is that of its work
    uint64_t until;             // hangs since it got there; 0: not yet
    bool released;
};
struct rp_hostd_script {
    pthread_mutex_t mutex;
    pthread_cond_t changed;     // monotonic clock
    struct waiting waiting[MOST_FAULTS];
    size_t count;
    struct concerned *jobs;
    size_t job_count;
    bool stopping;
};

// What was decided for the method that this thread carries out, and for its answer.
static _Thread_local struct {
    bool drop, has_job;
    struct rp_lab_fault job;
} mine;

static enum kind kind_of(const struct rp_lab_fault *fault)
{
    switch (fault->action) {
    case RP_LAB_RETURNS:
        return ANSWER;
    case RP_LAB_DROPS:
        return DROP;
    case RP_LAB_WAITS:
        return WAIT;
    case RP_LAB_LOSES:
        return LOSE;
    default:
        return JOB;
    }
}

struct rp_hostd_script *rp_lab_faults_new(void)
{
    struct rp_hostd_script *script = rp_xcalloc(1, sizeof *script);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&script->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&script->mutex, NULL);
    return script;
}

static void forget(struct rp_hostd_script *script, size_t i)
{
    free(script->waiting[i].text);
    script->count--;
    memmove(&script->waiting[i], &script->waiting[i + 1], (script->count - i) * sizeof *script->waiting);
}

static void end_job(struct rp_hostd_script *script, struct concerned **place)
{
    struct concerned *job = *place;
    *place = job->next;
    script->job_count--;
    free(job);
}

void rp_lab_faults_free(struct rp_hostd_script *script)
{
    if (!script)
        return;
    rp_lab_faults_forget(script);
    while (script->jobs)
        end_job(script, &script->jobs);
    pthread_cond_destroy(&script->changed);
    pthread_mutex_destroy(&script->mutex);
    free(script);
}

int rp_lab_faults_add(struct rp_hostd_script *script, const struct rp_lab_fault *fault, const char *text,
                      struct rp_error *err)
{
    pthread_mutex_lock(&script->mutex);
    bool full = script->count == MOST_FAULTS;
    if (!full)
        script->waiting[script->count++] = (struct waiting){*fault, rp_xstrdup(text)};
    pthread_mutex_unlock(&script->mutex);
    return full ? rp_fail(err, RP_ERR_INVALID, "there are %d faults already", MOST_FAULTS) : 0;
}

void rp_lab_faults_list(struct rp_hostd_script *script, struct rp_buf *out)
{
    pthread_mutex_lock(&script->mutex);
    rp_buf_printf(out, "[");
    for (size_t i = 0; i < script->count; i++) {
        rp_buf_printf(out, i ? ", \"" : "\"");
        for (const char *p = script->waiting[i].text; *p; p++)
            rp_buf_printf(out, *p == '"' || *p == '\\' ? "\\%c" : (unsigned char)*p < ' ' ? " " : "%c", *p);
        rp_buf_printf(out, "\"");
    }
    rp_buf_printf(out, "]");
    pthread_mutex_unlock(&script->mutex);
}

void rp_lab_faults_forget(struct rp_hostd_script *script)
{
    pthread_mutex_lock(&script->mutex);
    while (script->count)
        forget(script, script->count - 1);
    pthread_mutex_unlock(&script->mutex);
}

void rp_lab_faults_release(struct rp_hostd_script *script)
{
    pthread_mutex_lock(&script->mutex);
    for (struct concerned *job = script->jobs; job; job = job->next)
        job->released |= job->until != 0;
    pthread_mutex_unlock(&script->mutex);
}

void rp_lab_faults_stop(struct rp_hostd_script *script)
{
    pthread_mutex_lock(&script->mutex);
    script->stopping = true;
    pthread_cond_broadcast(&script->changed);
    pthread_mutex_unlock(&script->mutex);
}

// ---- which VM a call is about --------------------------------------------------------------------------------------

static void append_texts(const struct rp_cim_value *value, struct rp_buf *out)
{
    for (size_t i = 0; !rp_cim_value_is_null(value) && i < (value->array ? value->count : 1); i++) {
        struct rp_cim_value one = rp_cim_value_at(value, i);
        rp_cim_value_text(&one, out);
        rp_buf_printf(out, "\n");
    }
}

// The path of its object and all its parameters: ids in them are how a VM, its snapshots and points are named anywhere.
static void describe(const struct rp_hostd_call *call, struct rp_buf *out)
{
    if (call->path)
        rp_cim_path_format(call->path, out);
    rp_buf_printf(out, "\n");
    for (size_t i = 0; call->in && i < call->in->count; i++)
        append_texts(&call->in->properties[i].value, out);
}

static bool is_vm(const struct rp_inventory_vm *item, const char *name)
{
    return !strcasecmp(item->vm.id, name) || !strcmp(item->vm.name, name);
}

// Disks lie in folders of their VM's id or, in the lab, of its name.
static bool is_about(const struct rp_inventory_vm *item, const char *text)
{
    RP_AUTO_FREE char *folder = rp_xasprintf("/%s/", item->vm.name);
    if (strcasestr(text, item->vm.id) || strstr(text, folder))
        return true;
    for (size_t i = 0; i < item->snapshots.count; i++)
        if (strcasestr(text, item->snapshots.items[i].id))
            return true;
    for (size_t i = 0; i < item->points.count; i++)
        if (strcasestr(text, item->points.items[i].id))
            return true;
    return false;
}

struct facts {                  // of a call
    const struct rp_inventory *inventory;
    const char *method, *text;
    bool application;           // it asks for application consistency
};

static bool matches(const struct rp_lab_fault *fault, const struct facts *facts)
{
    if (strcmp(fault->method, facts->method) || (fault->action == RP_LAB_FREEZE && !facts->application))
        return false;
    if (!*fault->vm)
        return true;
    for (size_t i = 0; facts->inventory && i < facts->inventory->count; i++)
        if (is_vm(&facts->inventory->items[i], fault->vm) && is_about(&facts->inventory->items[i], facts->text))
            return true;
    return false;
}

// ConsistencyLevel 2 is crash (facts 1.3); everything else is for the host to do as well as it can.
static bool wants_application(const struct rp_hostd_call *call)
{
    static const char *const names[] = {"SnapshotSettings", "ReferencePointSettings"};
    for (size_t i = 0; i < 2; i++) {
        const char *text = call->in ? rp_cim_get_text(call->in, names[i]) : NULL;
        if (!text)
            continue;
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = rp_cimxml_parse(text, strlen(text), NULL);
        return !settings || rp_cim_get_unsigned(settings, "ConsistencyLevel", 1) != 2;
    }
    return true;
}

// The fault of this kind that happens to this call: the first that is due. Others that count calls have seen one more.
static bool happens(struct rp_hostd_script *script, enum kind kind, const struct facts *facts,
                    struct rp_lab_fault *fault)
{
    bool found = false;
    for (size_t i = 0; i < script->count; i++) {
        struct rp_lab_fault *one = &script->waiting[i].fault;
        if (kind_of(one) != kind || !matches(one, facts))
            continue;
        if (one->skip) {
            one->skip--;
            continue;
        }
        if (found)
            continue;
        found = true;
        *fault = *one;
        if (one->times && !--one->times)
            forget(script, i--);
    }
    return found;
}

// ---- what happens --------------------------------------------------------------------------------------------------

static void wait_seconds(struct rp_hostd_script *script, double seconds)
{
    uint64_t until = rp_clock_monotonic_ns() + (uint64_t)(seconds * 1e9);
    struct timespec end = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
    pthread_mutex_lock(&script->mutex);
    while (!script->stopping && !pthread_cond_timedwait(&script->changed, &script->mutex, &end))
        ;
    pthread_mutex_unlock(&script->mutex);
}

static int destroy(struct rp_host_connection *host, const struct rp_reference_point *point, struct rp_error *err)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    if (host->ops->destroy_reference_point(host, point->id, job, result, err))
        return -1;
    return rp_host_wait(host, job, result, NULL, NULL, err);
}

static int lose(struct rp_host_connection *host, const struct rp_inventory *inventory, const char *vm, const char *text,
                enum rp_lab_which which, struct rp_error *err)
{
    const struct rp_reference_point *chosen = NULL;
    size_t lost = 0;
    for (size_t i = 0; i < inventory->count; i++) {
        const struct rp_inventory_vm *item = &inventory->items[i];
        if ((*vm && !is_vm(item, vm)) || (text && !is_about(item, text)))
            continue;
        for (size_t k = 0; k < item->points.count; k++) {
            const struct rp_reference_point *point = &item->points.items[k];
            if (which == RP_LAB_EVERY) {
                if (destroy(host, point, err))
                    return -1;
                lost++;
            } else if (!chosen || (point->time_ns >= chosen->time_ns) == (which == RP_LAB_NEWEST)) {
                chosen = point;
            }
        }
    }
    if (!chosen)
        return lost ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "there is no reference point%s%s to lose", *vm ? " of " : "",
                                  vm);
    return destroy(host, chosen, err);
}

static int lose_points(struct rp_hostd *hostd, const char *vm, const char *text, enum rp_lab_which which,
                       struct rp_error *err)
{
    struct rp_host_connection *host = rp_hostd_hosts_borrow(hostd, err);
    if (!host)
        return -1;
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(hostd, err);
    int result = inventory ? lose(host, inventory, vm, text, which, err) : -1;
    rp_hostd_hosts_release(hostd, inventory);
    rp_hostd_hosts_return(hostd, host);
    rp_hostd_hosts_changed(hostd);
    return result;
}

int rp_lab_faults_lose(struct rp_hostd *hostd, const char *vm, enum rp_lab_which which, struct rp_error *err)
{
    return lose_points(hostd, vm, NULL, which, err);
}

// ---- the hooks -----------------------------------------------------------------------------------------------------

// Whether anything at all waits for this method, and whether for one VM: then the inventory is needed.
static bool waits_for(struct rp_hostd_script *script, const char *method, bool *of_vm)
{
    bool found = false;
    *of_vm = false;
    pthread_mutex_lock(&script->mutex);
    for (size_t i = 0; i < script->count; i++) {
        bool same = !strcmp(script->waiting[i].fault.method, method);
        found |= same;
        *of_vm |= same && *script->waiting[i].fault.vm;
    }
    pthread_mutex_unlock(&script->mutex);
    return found;
}

int rp_hostd_script_before_method(const struct rp_hostd_call *call, const struct rp_hostd_method *method,
                                  uint32_t *status, struct rp_error *err)
{
    struct rp_hostd_script *script = call->hostd->script;
    bool of_vm, hit[KINDS] = {0};
    if (!script)
        return 0;
    memset(&mine, 0, sizeof mine);
    if (!waits_for(script, method->name, &of_vm))
        return 0;
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    describe(call, &text);
    struct facts facts = {NULL, method->name, rp_buf_text(&text), wants_application(call)};
    if (of_vm && !(facts.inventory = rp_hostd_hosts_inventory(call->hostd, err)))
        return -1;
    struct rp_lab_fault fault[KINDS];
    pthread_mutex_lock(&script->mutex);
    for (unsigned kind = 0; kind < KINDS; kind++) // a call that is answered before it is carried out starts no job
        hit[kind] = !(kind == JOB && hit[ANSWER]) && happens(script, kind, &facts, &fault[kind]);
    pthread_mutex_unlock(&script->mutex);
    rp_hostd_hosts_release(call->hostd, facts.inventory);

    mine.drop = hit[DROP];
    mine.has_job = hit[JOB];
    if (hit[JOB])
        mine.job = fault[JOB];
    struct rp_error why = {0};
    if (hit[LOSE] && lose_points(call->hostd, fault[LOSE].vm, facts.text, fault[LOSE].which, &why))
        rp_log(RP_LOG_WARNING, "lab: %s: %s", method->name, why.text);
    if (hit[WAIT])
        wait_seconds(script, fault[WAIT].seconds);
    if (!hit[ANSWER])
        return 0;
    *status = fault[ANSWER].code;
    return 1;
}

void rp_hostd_script_job(struct rp_hostd *hostd, const char *job_id, const struct rp_hostd_job *job)
{
    struct rp_hostd_script *script = hostd->script;
    if (!script || !mine.has_job)
        return;
    mine.has_job = false;
    struct concerned *new = rp_xcalloc(1, sizeof *new);
    snprintf(new->id, sizeof new->id, "%s", job_id);
    new->fault = mine.job;
    new->copies = job->type == JOB_EXPORTS || job->type == JOB_EXPORTS_POINT ||
                  !strcasecmp(job->class_name, "Msvm_StorageJob");
    pthread_mutex_lock(&script->mutex);
    new->next = script->jobs;
    script->jobs = new;
    if (++script->job_count > MOST_JOBS) { // of jobs that ended otherwise nobody tells
        struct concerned **last = &script->jobs;
        while ((*last)->next)
            last = &(*last)->next;
        end_job(script, last);
    }
    pthread_mutex_unlock(&script->mutex);
}

// Jobs whose work is done at one stroke never get anywhere by themselves: what should happen on the way happens before.
static bool is_there(const struct concerned *job, unsigned percent)
{
    return percent >= job->fault.percent || (!job->copies && job->fault.percent < 100);
}

static int progress(struct rp_hostd_script *script, struct concerned **place, unsigned *percent, struct rp_error *err)
{
    struct concerned *job = *place;
    uint64_t now = rp_clock_monotonic_ns();
    if (!is_there(job, *percent))
        return 0;
    if (job->fault.action != RP_LAB_HANGS) {
        *percent = job->fault.percent;
        rp_fail(err, job->fault.action == RP_LAB_FULL ? RP_ERR_NO_SPACE : RP_ERR_IO, "%s", job->fault.text);
        end_job(script, place);
        return -1;
    }
    if (!job->until)
        job->until = job->fault.seconds > 0 ? now + (uint64_t)(job->fault.seconds * 1e9) : UINT64_MAX;
    if (!job->released && now < job->until && !script->stopping) {
        *percent = job->fault.percent;
        return 1;
    }
    end_job(script, place);
    return 0;
}

int rp_hostd_script_progress(struct rp_hostd *hostd, const char *job_id, unsigned *percent, struct rp_error *err)
{
    struct rp_hostd_script *script = hostd->script;
    if (!script)
        return 0;
    int result = 0;
    pthread_mutex_lock(&script->mutex);
    struct concerned **place = &script->jobs;
    while (*place && strcmp((*place)->id, job_id))
        place = &(*place)->next;
    if (*place)
        result = progress(script, place, percent, err);
    pthread_mutex_unlock(&script->mutex);
    return result;
}

bool rp_hostd_script_drop(void *context)
{
    struct rp_hostd_script *script = ((struct rp_hostd *)context)->script;
    const struct facts any = {.method = "", .text = ""};
    struct rp_lab_fault fault;
    if (!script)
        return false;
    bool drop = mine.drop;
    mine.drop = false;
    pthread_mutex_lock(&script->mutex);
    drop |= happens(script, DROP, &any, &fault);
    pthread_mutex_unlock(&script->mutex);
    return drop;
}
