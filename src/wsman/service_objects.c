// Single objects: finding them by selectors, Get, Put, Delete (DSP0226 7, DSP0227 9).
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wsman/names.h"
#include "wsman/service_impl.h"

static const struct rp_cim_declaration *key_of(const struct rp_cim_class *class, const char *name)
{
    const struct rp_cim_declaration *declared = rp_cim_class_property(class, name);
    return declared && declared->key ? declared : NULL;
}

// The class's own, or of any that may stand for it.
static const struct rp_cim_declaration *find_key(const struct rp_cim_class *class, const char *name)
{
    const struct rp_cim_declaration *key = key_of(class, name);
    for (size_t i = 0; i < rp_cim_schema_count(class->schema) && !key; i++) {
        const struct rp_cim_class *other = rp_cim_schema_at(class->schema, i);
        if (rp_cim_class_is(other, class))
            key = key_of(other, name);
    }
    return key;
}

static int check_selectors(struct rp_service_request *request)
{
    const struct rp_cim_path *selectors = request->message.selectors;
    for (size_t i = 0; i < selectors->key_count; i++) {
        const struct rp_cim_declaration *key = find_key(request->class, selectors->keys[i].name);
        struct rp_cim_value value = {0};
        if (!key)
            return rp_fault_set(&request->fault, RP_FAULT_INVALID_SELECTORS, "UnexpectedSelectors",
                                "class %s has no key %.100s", request->class->name, selectors->keys[i].name);
        if (rp_cim_value_parse(key->type, selectors->keys[i].value, &value, NULL))
            return rp_fault_set(&request->fault, RP_FAULT_INVALID_SELECTORS, "TypeMismatch",
                                "\"%.100s\" is no value of %s, which is a %s", selectors->keys[i].value, key->name,
                                rp_cim_type_name(key->type));
        rp_cim_value_clear(&value);
    }
    return 0;
}

static bool has_all_keys(const struct rp_cim_class *class, const struct rp_cim_path *path)
{
    size_t keys = 0;
    for (size_t i = 0; i < class->property_count; i++) {
        if (!class->properties[i].key)
            continue;
        keys++;
        if (!rp_cim_path_get(path, class->properties[i].name))
            return false;
    }
    return keys || class->singleton;
}

static void quote(struct rp_buf *out, const char *text)
{
    rp_buf_append_u8(out, '\'');
    for (; *text; text++) {
        if (*text == '\\' || *text == '\'')
            rp_buf_append_u8(out, '\\');
        rp_buf_append_u8(out, (uint8_t)*text);
    }
    rp_buf_append_u8(out, '\'');
}

struct rp_wql *rp_service_select(const struct rp_cim_path *path, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_buf_printf(&text, "SELECT * FROM %s", path->class_name);
    for (size_t i = 0; i < path->key_count; i++) {
        rp_buf_printf(&text, "%s %s = ", i ? " AND" : " WHERE", path->keys[i].name);
        quote(&text, path->keys[i].value);
    }
    return rp_wql_parse(rp_buf_text(&text), text.size, err);
}

struct only {
    struct rp_cim_instance *instance;
    bool several;
};

static int take_only(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    struct only *only = context;
    if (!only->instance) {
        only->instance = instance;
        return 0;
    }
    rp_cim_instance_free(instance);
    only->several = true;
    return rp_fail(err, RP_ERR_INVALID, "the selectors name several instances");
}

// Some of the keys, or none, are enough as long as they mean one instance (facts 2.5).
static struct rp_cim_instance *find_only(struct rp_service_request *request)
{
    struct rp_error err = {0};
    struct only only = {0};
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_service_select(request->message.selectors, &err);
    if (!query) {
        rp_fault_set(&request->fault, RP_FAULT_INVALID_SELECTORS, NULL, "%s", err.text);
        return NULL;
    }
    query->deadline_ns = request->deadline_ns;
    int failed = rp_cim_query(request->provider, request->caller, query, (struct rp_cim_sink){take_only, &only}, &err);
    if (only.several)
        rp_fault_set(&request->fault, RP_FAULT_INVALID_SELECTORS, "InsufficientSelectors",
                     "the selectors do not tell one instance of %s from others", request->class->name);
    else if (failed)
        rp_service_failed(request, &err);
    else if (!only.instance)
        rp_fault_set(&request->fault, RP_FAULT_DESTINATION_UNREACHABLE, "ResourceNotFound",
                     "there is no instance of %s with these selectors", request->class->name);
    if (!request->fault.code)
        return only.instance;
    rp_cim_instance_free(only.instance);
    return NULL;
}

struct rp_cim_instance *rp_service_find(struct rp_service_request *request)
{
    struct rp_error err = {0};
    if (check_selectors(request))
        return NULL;
    if (!has_all_keys(request->class, request->message.selectors))
        return find_only(request);
    struct rp_cim_instance *instance =
        rp_cim_find(request->provider, request->caller, request->message.selectors, &err);
    if (!instance)
        rp_service_failed(request, &err);
    return instance;
}

static void write_object(struct rp_service_request *request, const char *action, const struct rp_cim_instance *instance)
{
    const struct rp_cim_class *class = rp_cim_schema_class(request->provider->schema, instance->class_name);
    rp_service_begin(request, action, NULL);
    rp_wsman_write_instance(request->out, request->message.style, class, instance, NULL, 0);
    rp_message_end(request->out);
}

int rp_service_get(struct rp_service_request *request)
{
    if (rp_service_resource(request, false))
        return -1;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_service_find(request);
    if (!instance)
        return -1;
    write_object(request, RP_ACTION_GET "Response", instance);
    return 0;
}

// The object in the body, typed by the class of the one that it shall replace.
static struct rp_cim_instance *read_object(struct rp_service_request *request, const struct rp_cim_instance *old)
{
    struct rp_error err = {0};
    const struct rp_cim_class *class = rp_cim_schema_class(request->provider->schema, old->class_name);
    const xmlNode *element = rp_xml_first(request->message.body);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *given =
        element ? rp_wsman_read_instance(element, &err) : NULL;
    if (!element)
        rp_fail(&err, RP_ERR_INVALID, "the body is empty");
    else if (given && strcasecmp(given->class_name, class->name) && !rp_cim_class_is_named(class, given->class_name))
        rp_fail(&err, RP_ERR_INVALID, "the object in the body is of another class");
    for (size_t i = 0; given && i < given->count; i++) {
        const struct rp_cim_declaration *declared = rp_cim_class_property(class, given->properties[i].name);
        if (declared)
            rp_wsman_unpack_octets(declared, &given->properties[i].value);
    }
    if (err.code || rp_cim_class_type(class, given, &err)) {
        rp_fault_set(&request->fault, RP_FAULT_SCHEMA_VALIDATION, NULL, "%s", err.text);
        return NULL;
    }
    struct rp_cim_instance *result = given;
    given = NULL;
    return result;
}

int rp_service_put(struct rp_service_request *request)
{
    struct rp_error err = {0};
    if (rp_service_resource(request, false))
        return -1;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *old = rp_service_find(request);
    if (!old)
        return -1;
    if (!request->provider->ops->put || !old->path)
        return rp_fault_set(&request->fault, RP_FAULT_ACTION_NOT_SUPPORTED, NULL, "%s is changed by methods only",
                            old->class_name);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *given = read_object(request, old);
    if (!given)
        return -1;
    if (request->provider->ops->put(request->provider, request->caller, old->path, given, &err))
        return rp_service_failed(request, &err);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *changed =
        rp_cim_find(request->provider, request->caller, old->path, NULL);
    write_object(request, RP_ACTION_PUT "Response", changed ? changed : given);
    if (request->out->size > request->limit)
        return rp_fault_set(&request->fault, RP_FAULT_ENCODING_LIMIT, "UnreportableSuccess",
                            "%s was changed, but is larger than the %zu bytes allowed", old->class_name,
                            request->limit);
    return 0;
}

int rp_service_delete(struct rp_service_request *request)
{
    struct rp_error err = {0};
    if (rp_service_resource(request, false))
        return -1;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_service_find(request);
    if (!instance)
        return -1;
    if (!request->provider->ops->remove || !instance->path)
        return rp_fault_set(&request->fault, RP_FAULT_ACTION_NOT_SUPPORTED, NULL, "%s is removed by methods only",
                            instance->class_name);
    if (request->provider->ops->remove(request->provider, request->caller, instance->path, &err))
        return rp_service_failed(request, &err);
    rp_service_begin(request, RP_ACTION_DELETE "Response", NULL);
    rp_message_end(request->out);
    return 0;
}
