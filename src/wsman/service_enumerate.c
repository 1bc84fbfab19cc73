// Enumerate, Pull, Release (DSP0226 8; facts/wmi.md 2.5).
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/num.h"
#include "wsman/names.h"
#include "wsman/service_impl.h"

// What follows the items of a batch, the context included, at most.
enum { TAIL = 512 };

struct batch {
    const char *prefix;        // of Items and EndOfSequence: those of an optimized Enumerate are in w, of a Pull in n
    uint64_t most, characters; // of the batch; characters of all items
};

struct search {
    struct rp_service_request *request;
    struct rp_enumeration *enumeration;
};

static int take_found(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    const struct search *search = context;
    struct rp_fault *fault = &search->request->fault;
    if (!rp_enumeration_add(search->enumeration, instance, fault))
        return 0;
    return rp_fail(err, RP_ERR_CANCELLED, "%s", fault->message);
}

// A positive number in an element; `otherwise` when there is none.
static int read_count(struct rp_service_request *request, const xmlNode *parent, const char *name, uint64_t otherwise,
                      uint64_t *count)
{
    const xmlNode *node = rp_message_enumeration(parent, name);
    RP_AUTO_FREE char *text = node ? rp_xml_text(node) : NULL;
    struct rp_cim_value value;
    *count = otherwise;
    if (!text)
        return 0;
    if (rp_cim_value_parse(RP_CIM_UINT64, text, &value, NULL) || !value.one.u)
        return rp_fault_set(&request->fault, RP_FAULT_SCHEMA_VALIDATION, NULL, "%s \"%.40s\" is no positive number",
                            name, text);
    *count = value.one.u;
    return 0;
}

static void write_item(struct rp_service_request *request, const struct rp_enumeration *e,
                       const struct rp_cim_instance *instance)
{
    struct rp_buf *out = request->out;
    if (e->mode == RP_ENUMERATE_BOTH)
        rp_buf_printf(out, "<w:Item>");
    if (e->mode != RP_ENUMERATE_EPRS)
        rp_wsman_write_instance(out, e->style, rp_cim_schema_class(e->schema, instance->class_name), instance,
                                e->columns, e->column_count);
    if (e->mode != RP_ENUMERATE_OBJECTS) {
        rp_buf_printf(out, "<a:EndpointReference>");
        rp_wsman_write_epr(out, e->style, instance->path);
        rp_buf_printf(out, "</a:EndpointReference>");
    }
    if (e->mode == RP_ENUMERATE_BOTH)
        rp_buf_printf(out, "</w:Item>");
}

// Writes as many items as are wanted and fit, and says how many; none when not even one fits.
static int write_items(struct rp_service_request *request, const struct rp_enumeration *e, const struct batch *batch,
                       size_t *count)
{
    struct rp_buf *out = request->out;
    uint64_t most = rp_min64(batch->most, request->service->limits.max_batch);
    *count = 0;
    if (e->next == e->items.count) {
        rp_buf_printf(out, "<%s:Items/>", batch->prefix);
        return 0;
    }
    rp_buf_printf(out, "<%s:Items>", batch->prefix);
    size_t start = out->size;
    while (*count < most && e->next + *count < e->items.count) {
        size_t before = out->size;
        write_item(request, e, e->items.items[e->next + *count]);
        if (out->size + TAIL > request->limit || out->size - start > batch->characters) {
            out->size = before;
            break;
        }
        ++*count;
    }
    if (!*count)
        return rp_fault_set(&request->fault, RP_FAULT_ENCODING_LIMIT, "MaxEnvelopeSizeExceeded",
                            "one object alone is larger than the answer may be");
    rp_buf_printf(out, "</%s:Items>", batch->prefix);
    return 0;
}

static bool is_exhausted(const struct rp_enumeration *e, size_t count)
{
    return e->next + count == e->items.count;
}

static int read_mode(struct rp_service_request *request, const xmlNode *body, struct rp_enumeration *e)
{
    const xmlNode *node = rp_message_enumeration(body, "EnumerationMode");
    RP_AUTO_FREE char *text = node ? rp_xml_text(node) : NULL;
    if (text && !strcmp(text, "EnumerateEPR"))
        e->mode = RP_ENUMERATE_EPRS;
    else if (text && !strcmp(text, "EnumerateObjectAndEPR"))
        e->mode = RP_ENUMERATE_BOTH;
    else if (text && strcmp(text, "EnumerateObject") != 0)
        return rp_fault_set(&request->fault, RP_FAULT_UNSUPPORTED_FEATURE, "EnumerationMode",
                            "there is no EnumerationMode %.60s", text);
    return 0;
}

static void take_columns(struct rp_wql *query, struct rp_enumeration *e)
{
    for (size_t i = 0; i < query->column_count && query->kind == RP_WQL_SELECT; i++) {
        e->columns = rp_xrealloc(e->columns, (e->column_count + 1) * sizeof *e->columns);
        e->columns[e->column_count++] = rp_xstrdup(query->columns[i]);
    }
}

static int search(struct rp_service_request *request, const xmlNode *body, struct rp_enumeration *e)
{
    if (rp_service_resource(request, true) || read_mode(request, body, e))
        return -1;
    if (request->message.selectors->key_count)
        return rp_fault_set(&request->fault, RP_FAULT_INVALID_SELECTORS, "UnexpectedSelectors",
                            "an enumeration takes a filter, no selectors");
    e->schema = request->provider->schema;
    e->style = request->message.style;
    const xmlNode *filter = rp_message_enumeration(body, "Filter");
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_service_filter(request, filter, e);
    if (!query)
        return -1;
    take_columns(query, e);
    query->deadline_ns = request->deadline_ns;
    struct rp_error err = {0};
    struct search found = {request, e};
    if (!rp_cim_query(request->provider, request->caller, query, (struct rp_cim_sink){take_found, &found}, &err))
        return 0;
    // what the query asks for does not make sense; that the object is gone where associations should start is another
    // thing
    if (err.code == RP_ERR_INVALID || err.code == RP_ERR_UNSUPPORTED)
        return rp_fault_set(&request->fault, RP_FAULT_CANNOT_PROCESS_FILTER, NULL, "%s", err.text);
    return rp_service_failed(request, &err);
}

// An optimized Enumerate has its first batch in the answer, and may be finished with it.
int rp_service_enumerate(struct rp_service_request *request)
{
    const xmlNode *body = rp_xml_child(request->message.body, RP_NS_ENUMERATION, "Enumerate");
    if (!body)
        return rp_fault_set(&request->fault, RP_FAULT_SCHEMA_VALIDATION, NULL, "the body holds no Enumerate");
    bool optimize = rp_message_enumeration(body, "OptimizeEnumeration");
    struct batch batch = {.prefix = "w", .characters = UINT64_MAX};
    RP_CLEANUP(rp_enumeration_free_p) struct rp_enumeration *e =
        rp_enumeration_new(request->service->enumerations, request->caller->user);
    RP_CLEANUP(rp_buf_clear) struct rp_buf items = {0};
    size_t count = 0;
    if (read_count(request, body, "MaxElements", 1, &batch.most) || search(request, body, e))
        return -1;
    rp_service_begin(request, RP_ACTION_ENUMERATE "Response", NULL);
    rp_buf_printf(request->out, "<n:EnumerateResponse>");
    size_t place = request->out->size; // the context comes before the items, but only they tell whether there is one
    if (optimize && write_items(request, e, &batch, &count))
        return -1;
    rp_buf_append(&items, request->out->data + place, request->out->size - place);
    request->out->size = place;
    bool finished = optimize && is_exhausted(e, count);
    if (finished) {
        rp_buf_printf(request->out, "<n:EnumerationContext/>");
    } else {
        rp_enumeration_advance(e, count);
        if (rp_enumerations_keep(request->service->enumerations, e, &request->fault))
            return -1;
        rp_xml_element(request->out, "n", "EnumerationContext", e->id);
        e = NULL;
    }
    rp_buf_append(request->out, items.data, items.size);
    rp_buf_printf(request->out, "%s</n:EnumerateResponse>", finished ? "<w:EndOfSequence/>" : "");
    rp_message_end(request->out);
    return 0;
}

static char *context_of(struct rp_service_request *request, const char *operation, const xmlNode **body)
{
    *body = rp_xml_child(request->message.body, RP_NS_ENUMERATION, operation);
    const xmlNode *context = rp_xml_child(*body, RP_NS_ENUMERATION, "EnumerationContext");
    if (!context)
        rp_fault_set(&request->fault, RP_FAULT_SCHEMA_VALIDATION, NULL,
                     "the body holds no %s with an EnumerationContext",
                     operation);
    return context ? rp_xml_text(context) : NULL;
}

// The context alone says which enumeration it is: libvirt sends any resource URI (facts 2.5).
int rp_service_pull(struct rp_service_request *request)
{
    const xmlNode *body;
    struct rp_enumerations *all = request->service->enumerations;
    struct batch batch = {.prefix = "n"};
    RP_AUTO_FREE char *id = context_of(request, "Pull", &body);
    if (!id || read_count(request, body, "MaxElements", 1, &batch.most) ||
        read_count(request, body, "MaxCharacters", UINT64_MAX, &batch.characters))
        return -1;
    struct rp_enumeration *e = rp_enumerations_take(all, id, request->caller->user, &request->fault);
    if (!e)
        return -1;
    RP_CLEANUP(rp_buf_clear) struct rp_buf items = {0};
    size_t count;
    rp_service_begin(request, RP_ACTION_PULL "Response", NULL);
    rp_buf_printf(request->out, "<n:PullResponse>");
    size_t place = request->out->size;
    int failed = write_items(request, e, &batch, &count);
    bool finished = !failed && is_exhausted(e, count);
    if (!failed) {
        rp_buf_append(&items, request->out->data + place, request->out->size - place);
        request->out->size = place;
        if (!finished)
            rp_xml_element(request->out, "n", "EnumerationContext", e->id);
        rp_buf_append(request->out, items.data, items.size);
        rp_buf_printf(request->out, "%s</n:PullResponse>", finished ? "<n:EndOfSequence/>" : "");
        rp_message_end(request->out);
        rp_enumeration_advance(e, count);
    }
    rp_enumerations_give_back(all, e, finished);
    return failed;
}

int rp_service_release(struct rp_service_request *request)
{
    const xmlNode *body;
    RP_AUTO_FREE char *id = context_of(request, "Release", &body);
    if (!id || rp_enumerations_release(request->service->enumerations, id, request->caller->user, &request->fault))
        return -1;
    rp_service_begin(request, RP_ACTION_RELEASE "Response", NULL);
    rp_message_end(request->out);
    return 0;
}
