// Jobs as objects, and their own methods (facts/wmi.md 1.3, 1.5 F).
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "cim/cimxml.h"
#include "hostd/core.h"

enum { COMPLETED_WITH_WARNINGS = 32768 }; // JobState, only as clients see it

struct emit {
    const struct rp_cim_class *class;
    struct rp_cim_sink sink;
};

static const char *status_text(uint16_t state)
{
    switch (state) {
    case RP_HOSTD_RUNNING: return "Job is running";
    case RP_HOSTD_COMPLETED: return "Job is completed";
    case RP_HOSTD_TERMINATED: return "Job is terminated";
    default: return "Job ended in an exception";
    }
}

// libvirt's and Windows's clients read these of every job; what fails says so in all three places that products look
// at.
static void describe(struct rp_cim_instance *job, const struct rp_cim_class *class,
                     const struct rp_hostd_job_view *view)
{
    int64_t end = view->ended ? view->ended : rp_clock_wall_ns();
    rp_hostd_object_text(job, class, "InstanceID", view->id);
    rp_hostd_object_text(job, class, "Caption", view->caption);
    rp_hostd_object_text(job, class, "Description", view->caption);
    rp_hostd_object_text(job, class, "ElementName", view->caption);
    rp_hostd_object_text(job, class, "Name", "Msvm_ConcreteJob");
    rp_hostd_object_text(job, class, "Status", view->state == RP_HOSTD_EXCEPTION ? "Error" : "OK");
    rp_hostd_object_text(job, class, "JobStatus", status_text(view->state));
    bool warned = view->state == RP_HOSTD_COMPLETED && view->details && rp_cim_get_text(view->details, "ErrorDescription");
    rp_hostd_object_number(job, class, "JobState", warned ? COMPLETED_WITH_WARNINGS : view->state);
    rp_hostd_object_number(job, class, "JobType", view->type);
    rp_hostd_object_number(job, class, "PercentComplete", view->percent);
    rp_hostd_object_flag(job, class, "Cancellable", true);
    rp_hostd_object_flag(job, class, "DeleteOnCompletion", true);
    rp_hostd_object_text(job, class, "Owner", view->owner);
    rp_hostd_object_number(job, class, "LocalOrUtcTime", 2);
    rp_hostd_object_set(job, class, "TimeSubmitted", rp_cim_moment(view->submitted));
    rp_hostd_object_set(job, class, "StartTime", rp_cim_moment(view->submitted));
    rp_hostd_object_set(job, class, "TimeOfLastStateChange", rp_cim_moment(view->changed));
    rp_hostd_object_set(job, class, "ElapsedTime", rp_cim_duration(end > view->submitted ? end - view->submitted : 0));
    rp_hostd_object_number(job, class, "ErrorCode", view->code);
    rp_hostd_object_text(job, class, "ErrorDescription", view->error);
    rp_hostd_object_text(job, class, "VirtualMachineId", view->vm_id);
    if (view->state == RP_HOSTD_EXCEPTION) {
        RP_AUTO_FREE char *summary = rp_xasprintf("%s failed. %s", view->caption, view->error);
        rp_hostd_object_text(job, class, "ErrorSummaryDescription", summary);
    } else {
        rp_hostd_object_text(job, class, "ErrorSummaryDescription", view->error);
    }
    for (size_t i = 0; view->details && i < view->details->count; i++)
        rp_hostd_object_set(job, class, view->details->properties[i].name,
                            rp_cim_value_copy(&view->details->properties[i].value));
}

static int emit_job(void *context, const struct rp_hostd_job_view *view, struct rp_error *err)
{
    const struct emit *emit = context;
    if (strcasecmp(view->class_name, emit->class->name))
        return 0;
    struct rp_cim_instance *job = rp_cim_class_instance(emit->class);
    describe(job, emit->class, view);
    return emit->sink.take(emit->sink.context, job, err);
}

static int each_job(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                    const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)inventory;
    struct emit emit = {class, sink};
    return rp_hostd_jobs_each(hostd, only, emit_job, &emit, err);
}

const struct rp_hostd_objects rp_hostd_job_objects[] = {
    {"Msvm_ConcreteJob", "InstanceID", false, each_job},
    {"Msvm_StorageJob", "InstanceID", false, each_job},
    {"Msvm_VirtualSystemReferencePointExportJob", "InstanceID", false, each_job},
    {0},
};

// ---- methods --------------------------------------------------------------------------------------------------------

static const char *id_of(const struct rp_hostd_call *call)
{
    const char *id = rp_cim_path_get(call->path, "InstanceID");
    return id ? id : "";
}

// Terminate and kill are one thing here: the job is asked, and undoes what it has done.
static int request_state(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    uint64_t state = rp_cim_get_unsigned(call->in, "RequestedState", 0);
    if (state != 4 && state != 5)
        return rp_fail(err, state == 2 || state == 3 || state == 6 ? RP_ERR_UNSUPPORTED : RP_ERR_INVALID,
                       "a job can be terminated (RequestedState 4), nothing else");
    *status = 0;
    return rp_hostd_jobs_cancel(call->hostd, id_of(call), err);
}

static int kill_job(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    *status = 0;
    return rp_hostd_jobs_cancel(call->hostd, id_of(call), err);
}

// The Msvm_Error of a job that failed, as text (facts 2.6).
static int take_error(void *context, const struct rp_hostd_job_view *view, struct rp_error *err)
{
    (void)err;
    struct rp_buf *text = context;
    if (view->state != RP_HOSTD_EXCEPTION && view->state != RP_HOSTD_TERMINATED)
        return 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *error = rp_cim_instance_new(NULL, "Msvm_Error");
    RP_AUTO_FREE char *id = rp_xasprintf("%u", view->code);
    rp_cim_set(error, "ErrorType", rp_cim_unsigned(RP_CIM_UINT16, 4)); // software error
    rp_cim_set(error, "ErrorSource", rp_cim_string(view->id));
    rp_cim_set(error, "ErrorSourceFormat", rp_cim_unsigned(RP_CIM_UINT16, 2)); // CIM object path
    rp_cim_set(error, "OwningEntity", rp_cim_string("refpoint"));
    rp_cim_set(error, "MessageID", rp_cim_string(id));
    rp_cim_set(error, "Message", rp_cim_string(view->error));
    rp_cim_set(error, "PerceivedSeverity", rp_cim_unsigned(RP_CIM_UINT16, 5)); // major
    rp_cim_set(error, "CIMStatusCode", rp_cim_unsigned(RP_CIM_UINT32, 1));     // CIM_ERR_FAILED
    rp_cimxml_write(error, text);
    return 0;
}

static int get_error(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (rp_hostd_jobs_each(call->hostd, id_of(call), take_error, &text, err))
        return -1;
    if (text.size)
        rp_cim_set(call->out, "Error", rp_cim_string(rp_buf_text(&text)));
    *status = 0;
    return 0;
}

static int get_error_ex(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    if (rp_hostd_jobs_each(call->hostd, id_of(call), take_error, &text, err))
        return -1;
    struct rp_cim_value errors = rp_cim_null(RP_CIM_STRING, true);
    if (text.size) {
        struct rp_cim_value one = rp_cim_string(rp_buf_text(&text));
        rp_cim_value_push(&errors, &one);
    }
    rp_cim_set(call->out, "Errors", errors);
    *status = 0;
    return 0;
}

#define METHODS(class)                                                                                                 \
    {class, "RequestStateChange", RP_CIM_OPERATE, true, request_state},                                                \
    {class, "KillJob", RP_CIM_OPERATE, true, kill_job},                                                                \
    {class, "GetError", RP_CIM_READ, true, get_error},                                                                 \
    {class, "GetErrorEx", RP_CIM_READ, true, get_error_ex}

const struct rp_hostd_method rp_hostd_job_methods[] = {
    METHODS("Msvm_ConcreteJob"),
    METHODS("Msvm_StorageJob"),
    METHODS("Msvm_VirtualSystemReferencePointExportJob"),
    {0},
};
