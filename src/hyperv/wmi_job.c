// Jobs: polled by a query, which finds them again when the connection was lost in between; what they made is what they
// are associated with (facts/wmi.md 1.1, 1.3).
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "hyperv/wmi_internal.h"

#define LOST_NS UINT64_C(60000000000) // how long a host may be away while a job of ours runs
enum { JOB_COMPLETED = 7, JOB_TERMINATED = 8, JOB_KILLED = 9, JOB_EXCEPTION = 10, JOB_WARNINGS = 32768 }; // JobState
enum { CONTROL_TERMINATE = 4 }; // RequestStateChange

void rp_wmi_jobs_free(struct rp_wmi *wmi)
{
    while (wmi->jobs) {
        struct rp_wmi_job *job = wmi->jobs;
        wmi->jobs = job->next;
        free(job->result_class);
        free(job->what);
        free(job->name);
        free(job->point_name);
        rp_wmi_ids_clear(&job->before);
        free(job);
    }
}

struct rp_wmi_job *rp_wmi_job_find(struct rp_wmi *wmi, const char *id)
{
    struct rp_wmi_job *job = wmi->jobs;
    while (job && strcmp(job->id, id) != 0)
        job = job->next;
    return job;
}

struct rp_wmi_job *rp_wmi_job_add(struct rp_wmi *wmi, const struct rp_cim_path *path, const struct rp_wmi_call *call,
                                  char id[RP_HOST_ID], struct rp_error *err)
{
    const char *key = rp_cim_path_get(path, "InstanceID");
    int n = snprintf(id, RP_HOST_ID, "%s.%s", path->class_name, key ? key : "");
    if (!key || !*key || n < 0 || n >= RP_HOST_ID) {
        *id = 0;
        rp_fail(err, RP_ERR_CORRUPT, "%s: a job was started, but what the host calls it is no id", call->what);
        return NULL;
    }
    struct rp_wmi_job *job = rp_xcalloc(1, sizeof *job);
    memcpy(job->id, id, RP_HOST_ID);
    job->result_class = call->result_class ? rp_xstrdup(call->result_class) : NULL;
    job->what = rp_xstrdup(call->what);
    job->last.phase = RP_JOB_RUNNING;
    job->next = wmi->jobs;
    return wmi->jobs = job;
}

// "Class.InstanceID", or an InstanceID alone.
static struct rp_cim_path *path_of_job(const char *id, struct rp_error *err)
{
    size_t length = strcspn(id, ".");
    bool whole = id[length] != 0;
    RP_AUTO_FREE char *class_name = whole ? strndup(id, length) : rp_xstrdup("Msvm_ConcreteJob");
    if (strspn(class_name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != strlen(class_name)) {
        rp_fail(err, RP_ERR_INVALID, "'%.64s' is not the id of a job", id);
        return NULL;
    }
    return rp_wmi_path_instance(class_name, whole ? id + length + 1 : id);
}

// ---- failure --------------------------------------------------------------------------------------------------------

// Appends a sentence that is not there yet.
static void add_text(struct rp_buf *text, const char *more)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    rp_wmi_one_line(&line, more ? more : "");
    if (!line.size || strstr(rp_buf_text(text), rp_buf_text(&line)))
        return;
    rp_buf_printf(text, "%s%s", text->size ? " — " : "", rp_buf_text(&line));
}

// What DMTF's status codes say where Hyper-V's own say only that it failed (DSP0004, CIM_Error.CIMStatusCode).
static enum rp_code status_code(uint64_t status)
{
    switch (status) {
    case 2: return RP_ERR_PERMISSION;
    case 4: return RP_ERR_INVALID;
    case 6: return RP_ERR_NOT_FOUND;
    case 7: return RP_ERR_UNSUPPORTED;
    case 11: return RP_ERR_EXISTS;
    default: return RP_OK;
    }
}

// GetErrorEx: each of Errors is an Msvm_Error as text. That it cannot be had does not hide the failure itself.
static void add_errors(struct rp_wmi *wmi, const struct rp_cim_path *path, struct rp_buf *text, enum rp_code *code)
{
    uint32_t status = 0;
    const struct rp_wmi_call call = {.object = path, .method = "GetErrorEx", .what = "job"};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_wmi_ask(wmi, &call, NULL, &status, NULL);
    for (size_t i = 0; out && !status && i < rp_cim_get_count(out, "Errors") && i < 16; i++) {
        const char *xml = rp_cim_get_text_at(out, "Errors", i);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *error =
            xml ? rp_cimxml_parse(xml, strlen(xml), NULL) : NULL;
        if (!error)
            continue;
        add_text(text, rp_cim_get_text(error, "Message"));
        const char *id = rp_cim_get_text(error, "MessageID");
        if (!*code && id && rp_code_from_name(id) != RP_ERR_IO) // refpoint-hostd says it exactly
            *code = rp_code_from_name(id);
        if (!*code)
            *code = status_code(rp_cim_get_unsigned(error, "CIMStatusCode", 0));
    }
}

static void read_failure(struct rp_wmi *wmi, const struct rp_cim_path *path, const struct rp_cim_instance *object,
                         uint64_t state, const char *what, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    uint64_t number = rp_cim_get_unsigned(object, "ErrorCode", 0);
    enum rp_code code = RP_OK;
    const char *description = rp_cim_get_text(object, "ErrorDescription");
    add_text(&text, description && *description ? description : rp_cim_get_text(object, "ErrorSummaryDescription"));
    add_errors(wmi, path, &text, &code);
    if (state == JOB_TERMINATED || state == JOB_KILLED)
        code = RP_ERR_CANCELLED;
    enum rp_code named = rp_wmi_code_in_text(rp_buf_text(&text));
    if (!code)
        code = named;
    if (!code)
        code = rp_wmi_code_error((uint32_t)rp_min64(number, UINT32_MAX));
    if (!text.size)
        rp_buf_printf(&text, "%s", number ? rp_wmi_code_words((uint32_t)number) : code == RP_ERR_CANCELLED
                                       ? "the job was ended" : "the host does not say why");
    if (number && !named)
        rp_buf_printf(&text, " (%u)", (unsigned)number);
    rp_fail(err, code, "%s: %s", what, rp_buf_text(&text));
}

// ---- state ----------------------------------------------------------------------------------------------------------

static int read_result(struct rp_wmi *wmi, const struct rp_cim_path *path, const struct rp_wmi_job *job,
                       char result[RP_HOST_ID], struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances made = {0};
    if (rp_wmi_associators(wmi, path, "Msvm_AffectedJobElement", job->result_class, &made, err))
        return -1;
    if (made.count != 1)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the job is done, but the host names %zu things that it made",
                       job->what, made.count);
    return rp_wmi_id_of_object(made.items[0], result, err);
}

// What a snapshot of ours reached: after warnings nobody says that it is more than what every snapshot is.
static enum rp_consistency reached(const struct rp_wmi_job *job, bool warnings)
{
    return warnings && job->consistency ? RP_CONSISTENCY_CRASH : job->consistency;
}

// What it made has an id: the rest of a snapshot or reference point. `text`: what the job says besides; may be NULL.
static int finish(struct rp_wmi *wmi, struct rp_wmi_job *job, bool warnings, const char *text, struct rp_job_state *state,
                  struct rp_error *err)
{
    if (job->name && rp_wmi_snapshot_made(wmi, state->result, job->name, reached(job, warnings), text, err))
        return -1;
    if (job->point_name)
        rp_wmi_point_made(wmi, state->result, job->point_name);
    state->phase = RP_JOB_COMPLETED;
    state->percent = 100;
    return 0;
}

// What the next look may not meet: the connection, a quota of the host's, an answer that could not be opened.
static bool passes(enum rp_code code) { return code == RP_ERR_IO || code == RP_ERR_BUSY || code == RP_ERR_AUTH; }

// What the job has made, by what there is now that was not there before.
static int find_made(struct rp_wmi *wmi, const struct rp_wmi_job *job, char result[RP_HOST_ID], struct rp_error *err)
{
    if (job->name)
        return rp_wmi_snapshot_of_job(wmi, job, result, err);
    if (job->makes_point)
        return rp_wmi_point_of_job(wmi, job, result, err);
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: nobody knows what it made", job->what);
}

static int completed(struct rp_wmi *wmi, const struct rp_cim_path *path, struct rp_wmi_job *job,
                     const struct rp_cim_instance *object, bool warnings, struct rp_job_state *state,
                     struct rp_error *err)
{
    const char *text = rp_cim_get_text(object, "ErrorDescription");
    struct rp_error local = {0};
    if (warnings && !job->name) // who made a snapshot finds it there
        rp_log(RP_LOG_WARNING, "%s: %s: %s", wmi->host.address, job->what,
               text && *text ? text : "done, with warnings");
    if (job->result_class && read_result(wmi, path, job, state->result, &local)) {
        // a snapshot or reference point that nobody finds stays for ever, without a name that tells whose it is
        struct rp_error other = {0};
        if (passes(local.code))
            return rp_fail_as(err, &local);
        if (find_made(wmi, job, state->result, &other))
            return rp_fail(err, passes(other.code) ? other.code : local.code, "%s", local.text);
    }
    return finish(wmi, job, warnings, warnings || job->consistency == RP_CONSISTENCY_APPLICATION ? text : NULL, state, err);
}

// The host knows the job no more: it was started again, or it took longer than jobs are kept. What it makes may be there.
static int vanished(struct rp_wmi *wmi, struct rp_wmi_job *job, struct rp_job_state *state, struct rp_error *err)
{
    struct rp_error local = {0};
    rp_fail(&local, RP_ERR_NOT_FOUND, "%s: the host does not know the job any more: how it ended is not known",
            job->what);
    struct rp_error other = {0};
    if (!find_made(wmi, job, state->result, &other))
        return finish(wmi, job, true, local.text, state, err);
    return rp_fail_as(err, other.code == RP_ERR_NOT_FOUND ? &local : &other);
}

static int look(struct rp_wmi *wmi, struct rp_wmi_job *job, struct rp_job_state *state, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = path_of_job(job->id, err);
    if (!path)
        return -1;
    struct rp_error local = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object =
        rp_wmi_one(wmi, path->class_name, "InstanceID", rp_cim_path_get(path, "InstanceID"), "job", &local);
    if (!object && local.code == RP_ERR_NOT_FOUND)
        return vanished(wmi, job, state, err);
    if (!object)
        return rp_fail_as(err, &local);
    uint64_t phase = rp_cim_get_unsigned(object, "JobState", 0);
    state->phase = RP_JOB_RUNNING;
    state->percent = (unsigned)rp_min64(rp_cim_get_unsigned(object, "PercentComplete", 0), 100);
    if (phase == JOB_COMPLETED || phase == JOB_WARNINGS) {
        if (!completed(wmi, path, job, object, phase == JOB_WARNINGS, state, &local))
            return 0;
        if (passes(local.code))
            return rp_fail_as(err, &local);
        state->phase = RP_JOB_FAILED;
        state->error = local;
    } else if (phase >= JOB_TERMINATED && phase <= JOB_EXCEPTION) {
        state->phase = RP_JOB_FAILED;
        read_failure(wmi, path, object, phase, job->what, &state->error);
    }
    return 0;
}

// True: the host may come back, and the job with it.
static bool is_away(struct rp_wmi_job *job, const struct rp_error *err)
{
    uint64_t now = rp_clock_monotonic_ns();
    if (!passes(err->code))
        return false;
    if (!job->lost_since)
        job->lost_since = now;
    return now - job->lost_since < LOST_NS;
}

int rp_wmi_job_state(struct rp_host_connection *host, const char *id, struct rp_job_state *state, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    struct rp_wmi_job *job = rp_wmi_job_find(wmi, id), stranger = {.what = (char *)(uintptr_t)"job"};
    if (job && job->last.phase != RP_JOB_RUNNING) {
        *state = job->last;
        return 0;
    }
    if (!job)
        snprintf(stranger.id, sizeof stranger.id, "%s", id);
    struct rp_error local = {0};
    *state = (struct rp_job_state){.phase = RP_JOB_RUNNING};
    if (look(wmi, job ? job : &stranger, state, &local)) {
        if (!job || !is_away(job, &local))
            return rp_fail_as(err, &local);
        rp_log(RP_LOG_INFO, "%s: a job cannot be looked at just now: %s", host->address, local.text);
        *state = job->last;
        return 0;
    }
    if (job) {
        job->last = *state;
        job->lost_since = 0;
    }
    return 0;
}

int rp_wmi_job_cancel(struct rp_host_connection *host, const char *id, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = path_of_job(id, err);
    if (!path)
        return -1;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "RequestedState", rp_cim_unsigned(RP_CIM_UINT16, CONTROL_TERMINATE));
    uint32_t status = 0;
    const struct rp_wmi_call call = {.object = path, .method = "RequestStateChange", .what = "cancel a job"};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out =
        rp_wmi_ask(rp_wmi_of(host), &call, in, &status, err);
    if (!out)
        return -1;
    if (!status || status == 4096)
        return 0;
    struct rp_job_state state; // one that has ended by itself is as good as cancelled
    if (!rp_wmi_job_state(host, id, &state, NULL) && state.phase != RP_JOB_RUNNING)
        return 0;
    return rp_wmi_fail(err, status, &call);
}
