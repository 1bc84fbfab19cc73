// Methods (DSP0227 10; facts/wmi.md 2.3, 2.6).
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wsman/service_impl.h"

// The action is a class's URI, a slash and the method. The class may be one that the resource's inherits from or is
// inherited by.
static const char *method_name(struct rp_service_request *request)
{
    const struct rp_message *message = &request->message;
    const char *slash = strrchr(message->action, '/');
    RP_AUTO_FREE char *uri = slash ? strndup(message->action, (size_t)(slash - message->action)) : NULL;
    RP_AUTO_FREE char *name_space = NULL, *class_name = NULL;
    enum rp_uri_style style;
    if (!uri || !slash[1] ||
        rp_wsman_uri_parse(uri, message->name_space, &style, &name_space, &class_name, NULL)) {
        rp_fault_set(&request->fault, RP_FAULT_ACTION_NOT_SUPPORTED, NULL, "the action %.200s is not supported",
                     message->action);
        return NULL;
    }
    if (rp_service_resource(request, false))
        return NULL;
    const struct rp_cim_class *class = rp_cim_schema_class(request->provider->schema, class_name);
    if (!rp_cim_class_is(class, request->class) && !rp_cim_class_is(request->class, class)) {
        rp_fault_set(&request->fault, RP_FAULT_ACTION_NOT_SUPPORTED, NULL,
                     "the action %.200s is not one of the resource %s", message->action, request->class->name);
        return NULL;
    }
    return slash + 1;
}

static const struct rp_cim_declaration *parameter(const struct rp_cim_method *method, const char *name, bool out)
{
    for (size_t i = 0; i < method->parameter_count; i++)
        if (!strcasecmp(method->parameters[i].name, name) &&
            (out ? method->parameters[i].out : method->parameters[i].in))
            return &method->parameters[i];
    return NULL;
}

// <p:Method_INPUT> in the body, typed by the declaration. Without one: no parameters.
static struct rp_cim_instance *read_input(struct rp_service_request *request, const struct rp_cim_method *method)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *expected = rp_xasprintf("%s_INPUT", method->name);
    const xmlNode *element = rp_xml_first(request->message.body);
    if (!element)
        return rp_cim_instance_new(NULL, expected);
    if (strcasecmp((const char *)element->name, expected)) {
        rp_fault_set(&request->fault, RP_FAULT_SCHEMA_VALIDATION, NULL, "the body holds %.100s instead of %s",
                     (const char *)element->name, expected);
        return NULL;
    }
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wsman_read_instance(element, &err);
    if (!in) {
        rp_fault_set(&request->fault, RP_FAULT_INVALID_PARAMETER, NULL, "%s", err.text);
        return NULL;
    }
    for (size_t i = 0; i < in->count; i++) {
        const struct rp_cim_declaration *declared = parameter(method, in->properties[i].name, false);
        if (!declared) {
            rp_fault_set(&request->fault, RP_FAULT_INVALID_PARAMETER, "InvalidName",
                         "method %s has no parameter %.100s",
                         method->name, in->properties[i].name);
            return NULL;
        }
        rp_wsman_unpack_octets(declared, &in->properties[i].value);
    }
    if (rp_cim_method_type(method, false, in, &err)) {
        rp_fault_set(&request->fault, RP_FAULT_INVALID_PARAMETER, "TypeMismatch", "%s", err.text);
        return NULL;
    }
    struct rp_cim_instance *result = in;
    in = NULL;
    return result;
}

// What leaves the service says which namespace it is in.
static void complete(const struct rp_cim_provider *provider, struct rp_cim_instance *instance)
{
    const char *name_space = rp_cim_schema_namespace(provider->schema);
    for (size_t i = 0; i < instance->count; i++) {
        const struct rp_cim_value *value = &instance->properties[i].value;
        for (size_t j = 0; !rp_cim_value_is_null(value) && j < (value->array ? value->count : 1); j++) {
            struct rp_cim_value scalar = rp_cim_value_at(value, j);
            if (scalar.type == RP_CIM_REFERENCE && !scalar.one.path->name_space)
                scalar.one.path->name_space = rp_xstrdup(name_space);
            if (scalar.type != RP_CIM_OBJECT)
                continue;
            if (!scalar.one.object->name_space)
                scalar.one.object->name_space = rp_xstrdup(name_space);
            complete(provider, scalar.one.object);
        }
    }
}

// Every out parameter that was declared, in that order, and the ReturnValue.
static void write_output(struct rp_service_request *request, const struct rp_cim_method *method,
                         const struct rp_cim_instance *out, uint32_t status)
{
    RP_AUTO_FREE char *action = rp_xasprintf("%sResponse", request->message.action);
    rp_service_begin(request, action, request->class->name);
    rp_buf_printf(request->out, "<p:%s_OUTPUT>", method->name);
    for (size_t i = 0; i < method->parameter_count; i++) {
        const struct rp_cim_declaration *declared = &method->parameters[i];
        const struct rp_cim_value *value = rp_cim_get(out, declared->name);
        const struct rp_cim_value null = rp_cim_null(declared->type, declared->array);
        if (declared->out)
            rp_wsman_write_parameter(request->out, request->message.style, declared->name, value ? value : &null);
    }
    rp_buf_printf(request->out, "<p:ReturnValue>%u</p:ReturnValue></p:%s_OUTPUT>", status, method->name);
    rp_message_end(request->out);
}

int rp_service_invoke(struct rp_service_request *request)
{
    const char *name = method_name(request);
    if (!name)
        return -1;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *target = rp_service_find(request);
    if (!target)
        return -1;
    struct rp_cim_provider *provider = request->provider;
    const struct rp_cim_class *class = rp_cim_schema_class(provider->schema, target->class_name);
    const struct rp_cim_method *method = rp_cim_class_method(class, name);
    if (!method || !provider->ops->invoke || !target->path)
        return rp_fault_set(&request->fault, RP_FAULT_ACTION_NOT_SUPPORTED, NULL, "class %s has no method %.100s",
                            class->name, name);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = read_input(request, method);
    if (!in)
        return -1;
    struct rp_error err = {0};
    uint32_t status = 0;
    RP_AUTO_FREE char *output = rp_xasprintf("%s_OUTPUT", method->name);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_cim_instance_new(NULL, output);
    if (provider->ops->invoke(provider, request->caller, target->path, method, in, out, &status, &err))
        return rp_service_failed(request, &err);
    if (rp_cim_method_type(method, true, out, &err))
        return rp_fault_set(&request->fault, RP_FAULT_INTERNAL_ERROR, NULL, "%s", err.text);
    complete(provider, out);
    write_output(request, method, out, status);
    if (request->out->size > request->limit)
        return rp_fault_set(&request->fault, RP_FAULT_ENCODING_LIMIT, "UnreportableSuccess",
                            "%s was carried out and returned %u, but its answer is larger than the %zu bytes allowed",
                            method->name, status, request->limit);
    return 0;
}
