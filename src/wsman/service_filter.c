// Filters of an Enumerate (DSP0226 8.3, DSP0227 8.2, MS-WSMV 2.2.4.18): WQL, selectors, associations. All become
// queries.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wsman/names.h"
#include "wsman/service_impl.h"

#define WBEM_INVALID_CLASS 0x80041010 // what clients of WMI know

static int cannot_process(struct rp_service_request *request, const char *why)
{
    return rp_fault_set(&request->fault, RP_FAULT_CANNOT_PROCESS_FILTER, NULL, "%s", why);
}

static int check_class(struct rp_service_request *request, const char *name)
{
    if (!name || rp_cim_schema_class(request->provider->schema, name))
        return 0;
    rp_fault_set(&request->fault, RP_FAULT_CANNOT_PROCESS_FILTER, NULL, "namespace %s has no class %.200s",
                 rp_cim_schema_namespace(request->provider->schema), name);
    request->fault.windows_code = WBEM_INVALID_CLASS;
    return -1;
}

static struct rp_wql *filter_wql(struct rp_service_request *request, const xmlNode *filter)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *text = rp_xml_text(filter);
    struct rp_wql *query = rp_wql_parse(text, strlen(text), &err);
    if (!query)
        cannot_process(request, err.text);
    return query;
}

// Instances of the resource's class whose properties are as the selectors say (DSP0226 E: SelectorFilter).
static struct rp_wql *filter_selectors(struct rp_service_request *request, const xmlNode *filter)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *name_space = NULL;
    if (!request->class) {
        cannot_process(request, "a filter of selectors needs the class in the resource URI");
        return NULL;
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new(NULL, request->class->name);
    if (rp_wsman_read_selectors(rp_xml_child(filter, RP_NS_WSMAN, "SelectorSet"), path, &name_space, &err)) {
        cannot_process(request, err.text);
        return NULL;
    }
    for (size_t i = 0; i < path->key_count; i++) {
        if (rp_cim_class_property(request->class, path->keys[i].name))
            continue;
        rp_fault_set(&request->fault, RP_FAULT_CANNOT_PROCESS_FILTER, NULL, "class %s has no property %.100s",
                     request->class->name, path->keys[i].name);
        return NULL;
    }
    struct rp_wql *query = rp_service_select(path, &err);
    if (!query)
        cannot_process(request, err.text);
    return query;
}

static char *text_of(const xmlNode *parent, const char *name)
{
    const xmlNode *node = rp_xml_child(parent, RP_NS_BINDING, name);
    RP_AUTO_FREE char *text = node ? rp_xml_text(node) : NULL;
    return text && *text ? rp_xstrdup(text) : NULL;
}

static struct rp_wql *filter_association(struct rp_service_request *request, const xmlNode *filter,
                                         struct rp_enumeration *enumeration)
{
    struct rp_error err = {0};
    const xmlNode *associated = rp_xml_child(filter, RP_NS_BINDING, "AssociatedInstances");
    const xmlNode *association = rp_xml_child(filter, RP_NS_BINDING, "AssociationInstances");
    const xmlNode *what = associated ? associated : association;
    const xmlNode *object = rp_xml_child(what, RP_NS_BINDING, "Object");
    if (!object) {
        cannot_process(request, "the filter names no object whose associations are wanted");
        return NULL;
    }
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_xcalloc(1, sizeof *query);
    query->kind = associated ? RP_WQL_ASSOCIATORS : RP_WQL_REFERENCES;
    query->source = rp_wsman_read_epr(object, &err);
    query->assoc_class = associated ? text_of(what, "AssociationClassName") : NULL;
    query->result_class = text_of(what, "ResultClassName");
    query->role = text_of(what, "Role");
    query->result_role = associated ? text_of(what, "ResultRole") : NULL;
    if (!query->source) {
        cannot_process(request, err.text);
        return NULL;
    }
    for (const xmlNode *node = rp_xml_first(what); node; node = rp_xml_next(node)) {
        if (!rp_xml_is(node, RP_NS_BINDING, "IncludeResultProperty") || enumeration->column_count == 256)
            continue;
        enumeration->columns =
            rp_xrealloc(enumeration->columns, (enumeration->column_count + 1) * sizeof *enumeration->columns);
        enumeration->columns[enumeration->column_count++] = rp_xml_text(node);
    }
    struct rp_wql *result = query;
    query = NULL;
    return result;
}

static bool is_dialect(const char *text, const char *dialect)
{
    size_t length = strlen(dialect);
    return !strncasecmp(text, dialect, length) && (!text[length] || !strcmp(text + length, "/"));
}

struct rp_wql *rp_service_filter(struct rp_service_request *request, const xmlNode *filter,
                                 struct rp_enumeration *enumeration)
{
    RP_AUTO_FREE char *dialect = rp_xml_attribute(filter, NULL, "Dialect");
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = NULL;
    if (!filter && !request->class)
        rp_fault_set(&request->fault, RP_FAULT_DESTINATION_UNREACHABLE, "InvalidResourceURI",
                     "the resource URI names no class, and there is no filter");
    else if (!filter) {
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *all = rp_cim_path_new(NULL, request->class->name);
        query = rp_service_select(all, NULL);
    } else if (dialect && is_dialect(dialect, RP_DIALECT_WQL))
        query = filter_wql(request, filter);
    else if (dialect && is_dialect(dialect, RP_DIALECT_SELECTOR))
        query = filter_selectors(request, filter);
    else if (dialect && is_dialect(dialect, RP_DIALECT_ASSOCIATION))
        query = filter_association(request, filter, enumeration);
    else
        rp_fault_set(&request->fault, RP_FAULT_FILTER_DIALECT, NULL,
                     "filters are WQL, selectors or associations, not %.200s",
                     dialect ? dialect : "XPath");
    if (!query || check_class(request, query->class_name) || check_class(request, query->assoc_class) ||
        check_class(request, query->result_class) ||
        (query->source && check_class(request, query->source->class_name)))
        return NULL;
    struct rp_wql *result = query;
    query = NULL;
    return result;
}
