#include "wsman/service.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "wsman/names.h"
#include "wsman/service_impl.h"

struct rp_wsman_service *rp_wsman_service_new(const char *machine, const char *product_vendor,
                                              const char *product_version, const struct rp_wsman_limits *limits)
{
    struct rp_wsman_service *service = rp_xcalloc(1, sizeof *service);
    struct rp_wsman_limits *l = &service->limits;
    *l = limits ? *limits : (struct rp_wsman_limits){0};
    l->max_envelope = l->max_envelope ? l->max_envelope : 512000;
    l->max_batch = l->max_batch ? l->max_batch : 32000;
    l->max_enumerations = l->max_enumerations ? l->max_enumerations : 1000;
    l->enumeration_timeout_ms = l->enumeration_timeout_ms ? l->enumeration_timeout_ms : 240000;
    l->max_enumerated = l->max_enumerated ? l->max_enumerated : 96 << 20;
    l->max_timeout_ms = l->max_timeout_ms ? l->max_timeout_ms : 60000;
    service->machine = rp_xstrdup(machine);
    service->product_vendor = rp_xstrdup(product_vendor);
    service->product_version = rp_xstrdup(product_version);
    service->enumerations = rp_enumerations_new(l->max_enumerations, (l->max_enumerations + 9) / 10,
                                                l->enumeration_timeout_ms, l->max_enumerated);
    return service;
}

void rp_wsman_service_free(struct rp_wsman_service *service)
{
    if (!service)
        return;
    rp_enumerations_free(service->enumerations);
    free(service->providers);
    free(service->machine);
    free(service->product_vendor);
    free(service->product_version);
    free(service);
}

void rp_wsman_service_add(struct rp_wsman_service *service, struct rp_cim_provider *provider)
{
    service->providers =
        rp_xrealloc(service->providers, (service->provider_count + 1) * sizeof *service->providers);
    service->providers[service->provider_count++] = provider;
}

void rp_service_begin(struct rp_service_request *request, const char *action, const char *p_class)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf uri = {0};
    if (p_class)
        rp_wsman_uri(&uri, request->message.style, rp_cim_schema_namespace(request->provider->schema), p_class);
    rp_message_begin_response(request->out, action, request->message.message_id, p_class ? rp_buf_text(&uri) : NULL);
}

int rp_service_failed(struct rp_service_request *request, const struct rp_error *err)
{
    return rp_fault_from_error(&request->fault, err);
}

int rp_service_resource(struct rp_service_request *request, bool all)
{
    const struct rp_message *message = &request->message;
    if (!message->class_name)
        return rp_fault_set(&request->fault, RP_FAULT_DESTINATION_UNREACHABLE, "InvalidResourceURI", "%s",
                            message->uri_problem ? message->uri_problem : "there is no resource URI");
    struct rp_wsman_service *service = request->service;
    for (size_t i = 0; i < service->provider_count && !request->provider; i++)
        if (!strcasecmp(rp_cim_schema_namespace(service->providers[i]->schema), message->name_space))
            request->provider = service->providers[i];
    if (!request->provider)
        return rp_fault_set(&request->fault, RP_FAULT_DESTINATION_UNREACHABLE, "InvalidResourceURI",
                            "there is no namespace %.200s", message->name_space);
    if (all && !strcmp(message->class_name, "*"))
        return 0;
    request->class = rp_cim_schema_class(request->provider->schema, message->class_name);
    if (!request->class)
        return rp_fault_set(&request->fault, RP_FAULT_DESTINATION_UNREACHABLE, "InvalidResourceURI",
                            "namespace %s has no class %.200s", rp_cim_schema_namespace(request->provider->schema),
                            message->class_name);
    return 0;
}

// DSP0226 11; MS-WSMV 3.1.4.1.16: whoever is not known learns no version.
static unsigned identify(const struct rp_service_request *request)
{
    const struct rp_wsman_service *service = request->service;
    rp_buf_printf(request->out, "<s:Envelope xml:lang=\"en-US\" xmlns:s=\"" RP_NS_SOAP "\"><s:Header/><s:Body>"
                  "<wsmid:IdentifyResponse xmlns:wsmid=\"" RP_NS_IDENTITY "\">");
    rp_xml_element(request->out, "wsmid", "ProtocolVersion", RP_NS_WSMAN);
    rp_xml_element(request->out, "wsmid", "ProductVendor", service->product_vendor);
    rp_xml_element(request->out, "wsmid", "ProductVersion",
                   request->caller ? service->product_version : "OS: 0.0.0 SP: 0.0 Stack: 3.0");
    rp_buf_printf(request->out, "</wsmid:IdentifyResponse></s:Body></s:Envelope>");
    return 200;
}

static int operate(struct rp_service_request *request)
{
    static const struct {
        const char *action;
        enum rp_cim_access access;
        int (*operation)(struct rp_service_request *request);
    } operations[] = {
        {RP_ACTION_ENUMERATE, RP_CIM_READ, rp_service_enumerate}, {RP_ACTION_PULL, RP_CIM_READ, rp_service_pull},
        {RP_ACTION_RELEASE, RP_CIM_READ, rp_service_release}, {RP_ACTION_GET, RP_CIM_READ, rp_service_get},
        {RP_ACTION_PUT, RP_CIM_ADMINISTER, rp_service_put}, {RP_ACTION_DELETE, RP_CIM_ADMINISTER, rp_service_delete},
    };
    const struct rp_message *message = &request->message;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(message->action, operations[i].action))
            continue;
        if (request->caller->access < operations[i].access)
            return rp_fault_set(&request->fault, RP_FAULT_ACCESS_DENIED, NULL, "%.200s may not do that",
                                request->caller->user);
        return operations[i].operation(request);
    }
    return rp_service_invoke(request);
}

static int answer(struct rp_service_request *request)
{
    const struct rp_message *message = &request->message;
    if (!request->caller)
        return rp_fault_set(&request->fault, RP_FAULT_ACCESS_DENIED, NULL, "log in first");
    request->limit = request->service->limits.max_envelope;
    if (message->max_envelope_size && message->max_envelope_size < RP_SERVICE_MIN_ENVELOPE)
        return rp_fault_set(&request->fault, RP_FAULT_ENCODING_LIMIT, "MinimumEnvelopeLimit",
                            "MaxEnvelopeSize has to be at least %d", RP_SERVICE_MIN_ENVELOPE);
    if (message->max_envelope_size && message->max_envelope_size < request->limit)
        request->limit = (size_t)message->max_envelope_size;
    uint64_t timeout_ms = request->service->limits.max_timeout_ms;
    if (message->operation_timeout_ms >= 0 && (uint64_t)message->operation_timeout_ms < timeout_ms)
        timeout_ms = (uint64_t)message->operation_timeout_ms;
    request->deadline_ns = rp_clock_monotonic_ns() + timeout_ms * 1000000;
    if (!timeout_ms)
        return rp_fault_set(&request->fault, RP_FAULT_TIMED_OUT, NULL, "OperationTimeout leaves no time");
    return operate(request);
}

unsigned rp_wsman_service_handle(struct rp_wsman_service *service, const struct rp_cim_caller *caller,
                                 const char *charset, const void *data, size_t size, struct rp_buf *out)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
    struct rp_service_request request = {.service = service, .caller = caller, .out = &body};
    int failed =
        rp_message_read_request(data, size, service->limits.max_envelope, charset, &request.message, &request.fault);
    unsigned status = 200;
    if (!failed && request.message.identify)
        status = identify(&request);
    else if (!failed)
        failed = answer(&request);
    if (!failed && !request.message.identify && body.size > request.limit)
        failed = rp_fault_set(&request.fault, RP_FAULT_ENCODING_LIMIT, "MaxEnvelopeSizeExceeded",
                              "the answer of %zu bytes is larger than the %zu that were allowed", body.size,
                              request.limit);
    if (failed) {
        rp_buf_reset(&body);
        rp_message_begin_response(&body, rp_fault_action(request.fault.code), request.message.message_id, NULL);
        rp_fault_write(&body, &request.fault, service->machine);
        rp_message_end(&body);
        status = rp_fault_http_status(request.fault.code);
    }
    rp_buf_append(out, body.data, body.size);
    rp_message_clear(&request.message);
    return status;
}
