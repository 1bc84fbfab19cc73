#include "wsman/client.h"

#include <string.h>

#include "wsman/names.h"

enum {
    MAX_ENVELOPE = 512000,        // facts 2.4: what Windows allows
    MAX_BATCH = 2000,             // the envelope's size ends most batches before
    MAX_ENUMERATED = 128 << 20,   // bytes of messages: what is in them may take ten times as much here
    MAX_EMPTY_PULLS = 100,        // one after the other
    MAX_INSTANCES = 1 << 20,
};

struct rp_wsman_client {
    struct rp_wsman_transport *transport;
    uint64_t received;         // bytes of all answers
};

struct rp_wsman_client *rp_wsman_client_new(const struct rp_wsman_options *options, struct rp_error *err)
{
    struct rp_wsman_transport *transport = rp_wsman_transport_new(options, err);
    if (!transport)
        return NULL;
    struct rp_wsman_client *client = rp_xcalloc(1, sizeof *client);
    client->transport = transport;
    return client;
}

void rp_wsman_client_free(struct rp_wsman_client *client)
{
    if (!client)
        return;
    rp_wsman_transport_free(client->transport);
    free(client);
}

// One message there and back. `message_id` NULL: it has none. Faults become errors.
static int ask(struct rp_wsman_client *client, const struct rp_buf *request, const char *message_id, const char *what,
               struct rp_message *answer, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf bytes = {0};
    char charset[32];
    unsigned status;
    int failed =
        rp_wsman_transport_exchange(client->transport, request->data, request->size, &bytes, charset, &status, err);
    client->received += bytes.size;
    if (failed ||
        rp_message_read_response(bytes.data, bytes.size, bytes.size, *charset ? charset : NULL, answer, err))
        return rp_context(err, "%s", what);
    const xmlNode *fault_element = rp_xml_child(answer->body, RP_NS_SOAP, "Fault");
    if (fault_element) {
        struct rp_fault fault = {0};
        rp_fault_read(fault_element, &fault);
        return rp_fault_to_error(&fault, what, err);
    }
    if (status != 200)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: HTTP status %u without a fault", what, status);
    // faults to messages that could not be read relate to nothing, but answers do
    if (message_id && (!answer->relates_to || strcmp(answer->relates_to, message_id)))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the answer is one to another message", what);
    return 0;
}

static void begin(struct rp_wsman_client *client, const char *action, const char *name_space, const char *class_name,
                  const struct rp_cim_path *selectors, struct rp_buf *request, char message_id[48])
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf uri = {0};
    rp_wsman_uri(&uri, RP_URI_STYLE_WMI, name_space, class_name);
    struct rp_message_request headers = {
        .url = rp_wsman_transport_url(client->transport),
        .action = action,
        .resource_uri = rp_buf_text(&uri),
        .selectors = selectors,
        .style = RP_URI_STYLE_WMI,
        .max_envelope_size = MAX_ENVELOPE,
        .timeout_ms = rp_wsman_transport_timeout(client->transport),
    };
    rp_message_begin_request(request, &headers, message_id);
}

// DSP0226 11: the one message without addressing headers.
int rp_wsman_identify(struct rp_wsman_client *client, char **vendor, char **version, struct rp_error *err)
{
    static const char text[] = "<s:Envelope xmlns:s=\"" RP_NS_SOAP "\" xmlns:wsmid=\"" RP_NS_IDENTITY "\">"
                               "<s:Header/><s:Body><wsmid:Identify/></s:Body></s:Envelope>";
    const struct rp_buf request = {(uint8_t *)(uintptr_t)text, sizeof text - 1, 0};
    RP_CLEANUP(rp_message_clear) struct rp_message answer = {0};
    if (ask(client, &request, NULL, "identify the host", &answer, err))
        return -1;
    const xmlNode *response = rp_xml_child(answer.body, RP_NS_IDENTITY, "IdentifyResponse");
    if (!response)
        return rp_fail(err, RP_ERR_CORRUPT, "identify the host: it answers something else");
    const xmlNode *who = rp_xml_child(response, RP_NS_IDENTITY, "ProductVendor");
    const xmlNode *which = rp_xml_child(response, RP_NS_IDENTITY, "ProductVersion");
    if (vendor)
        *vendor = who ? rp_xml_text(who) : rp_xstrdup("");
    if (version)
        *version = which ? rp_xml_text(which) : rp_xstrdup("");
    return 0;
}

// What the schema does not know, or knows otherwise, stays as it came.
static void type_leniently(const struct rp_cim_schema *schema, struct rp_cim_instance *instance)
{
    const struct rp_cim_class *class = schema ? rp_cim_schema_class(schema, instance->class_name) : NULL;
    for (size_t i = 0; class && i < instance->count; i++) {
        struct rp_cim_property *property = &instance->properties[i];
        const struct rp_cim_declaration *declaration = rp_cim_class_property(class, property->name);
        if (!declaration)
            continue;
        rp_wsman_unpack_octets(declaration, &property->value);
        rp_cim_value_convert(&property->value, declaration->type, declaration->array, NULL);
    }
}

struct enumeration {
    struct rp_wsman_client *client;
    const char *name_space, *class_name, *what;
    const struct rp_cim_schema *schema;
    struct rp_cim_instances found;
    char *context;             // NULL: there is nothing more
    unsigned empty;
    uint64_t limit;            // of what the client may have received at its end
};

static void enumeration_clear(struct enumeration *e)
{
    rp_cim_instances_clear(&e->found);
    free(e->context);
}

// An object, or w:Item with an object and its reference.
static int take_item(struct enumeration *e, const xmlNode *item, struct rp_error *err)
{
    const xmlNode *object = item, *reference = NULL;
    if (rp_xml_is(item, RP_NS_WSMAN, "Item")) {
        reference = rp_xml_child(item, RP_NS_ADDRESSING, "EndpointReference");
        object = rp_xml_first(item);
        if (object == reference)
            object = rp_xml_next(object);
    }
    if (rp_xml_is(object, RP_NS_WSMAN, "XmlFragment") && rp_xml_first(object))
        object = rp_xml_first(object);
    if (!object)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: an item without an object", e->what);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_wsman_read_instance(object, err);
    if (!instance)
        return rp_context(err, "%s", e->what);
    if (reference) {
        rp_cim_path_free(instance->path);
        instance->path = rp_wsman_read_epr(reference, err);
        if (!instance->path)
            return rp_context(err, "%s", e->what);
    }
    type_leniently(e->schema, instance);
    rp_cim_instances_push(&e->found, instance);
    instance = NULL;
    return 0;
}

static int take_batch(struct enumeration *e, const struct rp_message *answer, struct rp_error *err)
{
    const xmlNode *response = rp_xml_first(answer->body);
    if (!rp_xml_is(response, RP_NS_ENUMERATION, "EnumerateResponse") &&
        !rp_xml_is(response, RP_NS_ENUMERATION, "PullResponse"))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the answer is something else", e->what);
    const xmlNode *items = rp_message_enumeration(response, "Items");
    const xmlNode *context = rp_message_enumeration(response, "EnumerationContext");
    size_t before = e->found.count;
    if (e->client->received > e->limit)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: more than %d MiB of objects", e->what, MAX_ENUMERATED >> 20);
    for (const xmlNode *item = items ? rp_xml_first(items) : NULL; item; item = rp_xml_next(item))
        if (e->found.count == MAX_INSTANCES)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: more than %d objects", e->what, MAX_INSTANCES);
        else if (take_item(e, item, err))
            return -1;
    e->empty = e->found.count > before ? 0 : e->empty + 1;
    if (rp_message_enumeration(response, "EndOfSequence")) {
        free(e->context);
        e->context = NULL;
    } else if (context) { // a Pull may go on with the old one
        free(e->context);
        e->context = rp_xml_text(context);
    } else if (!e->context) {
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the answer says neither that this is all, nor how to go on", e->what);
    }
    if (e->context && (!*e->context || e->empty > MAX_EMPTY_PULLS))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the enumeration does not go on", e->what);
    return 0;
}

static int enumerate(struct enumeration *e, const char *query, bool with_paths, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf request = {0};
    RP_CLEANUP(rp_message_clear) struct rp_message answer = {0};
    char message_id[48];
    begin(e->client, RP_ACTION_ENUMERATE, e->name_space, e->class_name, NULL, &request, message_id);
    rp_buf_printf(&request, "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>%d</w:MaxElements>", MAX_BATCH);
    if (with_paths)
        rp_xml_element(&request, "w", "EnumerationMode", "EnumerateObjectAndEPR");
    if (query) {
        rp_buf_printf(&request, "<w:Filter Dialect=\"" RP_DIALECT_WQL "\">");
        rp_xml_escape(&request, query);
        rp_buf_printf(&request, "</w:Filter>");
    }
    rp_buf_printf(&request, "</n:Enumerate>");
    rp_message_end(&request);
    return ask(e->client, &request, message_id, e->what, &answer, err) ? -1 : take_batch(e, &answer, err);
}

static void write_context(struct rp_buf *request, const char *context)
{
    rp_xml_element(request, "n", "EnumerationContext", context);
}

static int pull(struct enumeration *e, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf request = {0};
    RP_CLEANUP(rp_message_clear) struct rp_message answer = {0};
    char message_id[48];
    begin(e->client, RP_ACTION_PULL, e->name_space, e->class_name, NULL, &request, message_id);
    rp_buf_printf(&request, "<n:Pull>");
    write_context(&request, e->context);
    rp_buf_printf(&request, "<n:MaxElements>%d</n:MaxElements></n:Pull>", MAX_BATCH);
    rp_message_end(&request);
    return ask(e->client, &request, message_id, e->what, &answer, err) ? -1 : take_batch(e, &answer, err);
}

// What cannot be used to its end is given back; the host would drop it after a while anyway.
static void release(struct enumeration *e)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf request = {0};
    RP_CLEANUP(rp_message_clear) struct rp_message answer = {0};
    char message_id[48];
    begin(e->client, RP_ACTION_RELEASE, e->name_space, e->class_name, NULL, &request, message_id);
    rp_buf_printf(&request, "<n:Release>");
    write_context(&request, e->context);
    rp_buf_printf(&request, "</n:Release>");
    rp_message_end(&request);
    ask(e->client, &request, message_id, e->what, &answer, NULL);
}

int rp_wsman_query(struct rp_wsman_client *client, const char *name_space, const char *class_name, const char *query,
                   const struct rp_cim_schema *schema, bool with_paths, struct rp_cim_instances *result,
                   struct rp_error *err)
{
    RP_CLEANUP(enumeration_clear) struct enumeration e = {
        .client = client, .name_space = name_space, .class_name = query ? "*" : class_name,
        .what = query ? "query" : class_name, .schema = schema, .limit = client->received + MAX_ENUMERATED};
    struct rp_error local = {0};
    int status = enumerate(&e, query, with_paths, &local);
    while (!status && e.context)
        status = pull(&e, &local);
    if (status) {
        if (e.context && local.code == RP_ERR_CORRUPT)
            release(&e);
        if (err && !err->code)
            *err = local;
        return -1;
    }
    for (size_t i = 0; i < e.found.count; i++)
        rp_cim_instances_push(result, e.found.items[i]);
    e.found.count = 0;
    return 0;
}

struct rp_cim_instance *rp_wsman_get(struct rp_wsman_client *client, const struct rp_cim_path *path,
                                     const struct rp_cim_schema *schema, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf request = {0};
    RP_CLEANUP(rp_message_clear) struct rp_message answer = {0};
    char message_id[48];
    begin(client, RP_ACTION_GET, path->name_space, path->class_name, path, &request, message_id);
    rp_message_end(&request);
    if (ask(client, &request, message_id, path->class_name, &answer, err))
        return NULL;
    const xmlNode *object = rp_xml_first(answer.body);
    struct rp_cim_instance *instance = object ? rp_wsman_read_instance(object, err) : NULL;
    if (!instance) {
        rp_fail(err, RP_ERR_CORRUPT, "%s: the answer has no object", path->class_name);
        return NULL;
    }
    rp_cim_path_free(instance->path);
    instance->path = rp_cim_path_copy(path);
    type_leniently(schema, instance);
    return instance;
}

// <p:Method_INPUT xmlns:p="class URI"> in the body, and the action is class URI "/" method (facts 2.3).
static void write_call(struct rp_wsman_client *client, const struct rp_cim_path *path, const char *method,
                       const struct rp_cim_instance *in, struct rp_buf *request, char message_id[48])
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf uri = {0};
    rp_wsman_uri(&uri, RP_URI_STYLE_WMI, path->name_space, path->class_name);
    RP_AUTO_FREE char *action = rp_xasprintf("%s/%s", rp_buf_text(&uri), method);
    begin(client, action, path->name_space, path->class_name, path, request, message_id);
    rp_buf_printf(request, "<p:%s_INPUT xmlns:p=\"", method);
    rp_xml_escape(request, rp_buf_text(&uri));
    rp_buf_printf(request, "\">");
    for (size_t i = 0; in && i < in->count; i++)
        rp_wsman_write_parameter(request, RP_URI_STYLE_WMI, in->properties[i].name, &in->properties[i].value);
    rp_buf_printf(request, "</p:%s_INPUT>", method);
    rp_message_end(request);
}

struct rp_cim_instance *rp_wsman_invoke(struct rp_wsman_client *client, const struct rp_cim_path *path,
                                        const char *method, const struct rp_cim_instance *in, uint32_t *status,
                                        struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf request = {0};
    RP_CLEANUP(rp_message_clear) struct rp_message answer = {0};
    RP_AUTO_FREE char *output = rp_xasprintf("%s_OUTPUT", method);
    RP_AUTO_FREE char *what = rp_xasprintf("%s.%s", path->class_name, method);
    char message_id[48];
    write_call(client, path, method, in, &request, message_id);
    if (ask(client, &request, message_id, what, &answer, err))
        return NULL;
    const xmlNode *object = rp_xml_child(answer.body, NULL, output);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out =
        object ? rp_wsman_read_instance(object, err) : NULL;
    uint64_t value = out ? rp_cim_get_unsigned(out, "ReturnValue", UINT64_MAX) : UINT64_MAX;
    if (value > UINT32_MAX) {
        rp_fail(err, RP_ERR_CORRUPT, "%s: the answer has no ReturnValue", what);
        return NULL;
    }
    *status = (uint32_t)value;
    struct rp_cim_instance *result = out;
    out = NULL;
    return result;
}
