// Calls of methods: 0 is done, 4096 a job, anything else a failure (facts/wmi.md 1.1).
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "hyperv/wmi_internal.h"

#define LATE_NS UINT64_C(2000000000) // how much later than our loss a host may begin with what it was asked for
enum { DONE = 0, STARTED = 4096 };

struct rp_cim_instance *rp_wmi_parameters(void) { return rp_cim_instance_new(NULL, "parameters"); }

void rp_wmi_type(struct rp_wmi *wmi, struct rp_cim_instance *object, bool kept)
{
    const struct rp_cim_class *class = rp_cim_schema_class(wmi->schema, object->class_name);
    for (size_t i = 0; class && i < object->count; i++) {
        struct rp_cim_property *property = &object->properties[i];
        const struct rp_cim_declaration *declaration = rp_cim_class_property(class, property->name);
        bool typed = declaration &&
                     !rp_cim_value_convert(&property->value, declaration->type, declaration->array, NULL);
        if (typed || kept)
            continue;
        rp_cim_value_clear(&property->value);
        property->value = rp_cim_null(RP_CIM_STRING, false);
    }
}

static char *embedded_text(struct rp_wmi *wmi, const struct rp_cim_instance *object)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *typed = rp_cim_instance_copy(object);
    rp_wmi_type(wmi, typed, false);
    struct rp_buf text = {0};
    rp_cimxml_write(typed, &text);
    return (char *)(uintptr_t)rp_buf_text(&text);
}

struct rp_cim_value rp_wmi_embed(struct rp_wmi *wmi, const struct rp_cim_instance *object)
{
    RP_AUTO_FREE char *text = embedded_text(wmi, object);
    return rp_cim_string(text);
}

struct rp_cim_value rp_wmi_embed_array(struct rp_wmi *wmi, struct rp_cim_instance *const *objects, size_t count)
{
    struct rp_cim_value array = rp_cim_null(RP_CIM_STRING, true);
    for (size_t i = 0; i < count; i++) {
        struct rp_cim_value item = rp_wmi_embed(wmi, objects[i]);
        rp_cim_value_push(&array, &item);
    }
    return array;
}

// The parameters without those that are NULL: an absent one and NULL mean the same, and some hosts take a nil amiss.
static struct rp_cim_instance *without_nulls(const struct rp_cim_instance *in)
{
    struct rp_cim_instance *out = rp_wmi_parameters();
    for (size_t i = 0; in && i < in->count; i++)
        if (!in->properties[i].value.null)
            rp_cim_set(out, in->properties[i].name, rp_cim_value_copy(&in->properties[i].value));
    return out;
}

struct rp_cim_instance *rp_wmi_ask(struct rp_wmi *wmi, const struct rp_wmi_call *call,
                                   const struct rp_cim_instance *in, uint32_t *status, struct rp_error *err)
{
    const struct rp_cim_path *path = call->object ? call->object : rp_wmi_service_path(wmi, call->service, err);
    wmi->lost = false;
    if (!path)
        return NULL;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *given = without_nulls(in);
    struct rp_error local = {0};
    struct rp_cim_instance *out = rp_wsman_invoke(wmi->client, path, call->method, given, status, &local);
    wmi->lost = !out && local.code == RP_ERR_IO;
    if (!out)
        rp_fail(err, local.code, "%s: %s: %s", wmi->host.address, call->what, local.text);
    return out;
}

// The path that an out parameter holds, however the host puts it: an EPR, an object, a path as text.
static struct rp_cim_path *out_path(const struct rp_cim_instance *out, const char *name)
{
    const struct rp_cim_value *value = rp_cim_get(out, name);
    if (!value || value->null)
        return NULL;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *copy = rp_cim_instance_new(NULL, "x");
    struct rp_cim_value first = rp_cim_value_at(value, 0);
    struct rp_cim_value reference = rp_cim_value_copy(&first);
    if (rp_cim_value_convert(&reference, RP_CIM_REFERENCE, false, NULL)) {
        rp_cim_value_clear(&reference);
        return NULL;
    }
    rp_cim_set(copy, "x", reference);
    const struct rp_cim_path *path = rp_cim_get_path(copy, "x");
    return path ? rp_cim_path_copy(path) : NULL;
}

int rp_wmi_call(struct rp_wmi *wmi, const struct rp_wmi_call *call, const struct rp_cim_instance *in, RP_METHOD_RESULT,
                struct rp_error *err)
{
    uint32_t status = 0;
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_wmi_ask(wmi, call, in, &status, err);
    if (!out)
        return -1;
    if (status != DONE && status != STARTED)
        return rp_wmi_fail(err, status, call);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path =
        out_path(out, status == STARTED ? "Job" : call->result ? call->result : "Job");
    if (status == STARTED) {
        if (!path)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: %s: a job was started, but the host does not say which",
                           call->what, call->method);
        return rp_wmi_job_add(wmi, path, call, job, err) ? 0 : -1;
    }
    if (!call->result)
        return 0;
    if (!path)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: %s: done, but the host does not say what it made", call->what,
                       call->method);
    return rp_wmi_id_of_path(path, result, err);
}

int rp_wmi_find_made(struct rp_wmi *wmi, rp_wmi_look_fn *look, const void *context, char result[RP_HOST_ID],
                     struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    for (;;) {
        struct rp_error local = {0};
        int found = look(wmi, context, result, &local);
        if (found > 0)
            return 0;
        if (found < 0)
            return rp_context(err, "%s; and then", local.text);
        if (rp_clock_monotonic_ns() - start > LATE_NS)
            return -1;
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
}

static int asked_to_stop(void *context)
{
    struct rp_host_connection *host = context;
    return host->progress ? host->progress(host->progress_context, 0, 0) : 0;
}

int rp_wmi_run(struct rp_wmi *wmi, const struct rp_wmi_call *call, const struct rp_cim_instance *in,
               char result[RP_HOST_ID], struct rp_error *err)
{
    char job[RP_HOST_ID];
    if (rp_wmi_call(wmi, call, in, job, result, err))
        return -1;
    struct rp_error local = {0};
    if (!rp_host_wait(&wmi->host, job, result, asked_to_stop, &wmi->host, &local))
        return 0;
    if (local.code == RP_ERR_CANCELLED && *job)
        rp_wmi_job_cancel(&wmi->host, job, NULL);
    return rp_fail_as(err, &local);
}
