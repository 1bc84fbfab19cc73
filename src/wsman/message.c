#include "wsman/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/guid.h"
#include "wsman/names.h"

enum { MAX_MESSAGE_ID = 1024 };

void rp_message_clear(struct rp_message *message)
{
    xmlFreeDoc(message->document);
    free(message->action);
    free(message->message_id);
    free(message->relates_to);
    free(message->to);
    free(message->resource_uri);
    free(message->name_space);
    free(message->class_name);
    free(message->uri_problem);
    rp_cim_path_free(message->selectors);
    *message = (struct rp_message){.operation_timeout_ms = -1};
}

enum header {
    HEADER_TO, HEADER_ACTION, HEADER_MESSAGE_ID, HEADER_RELATES_TO, HEADER_REPLY_TO, HEADER_FAULT_TO, HEADER_FROM,
    HEADER_RESOURCE_URI, HEADER_SELECTOR_SET, HEADER_OPTION_SET, HEADER_MAX_ENVELOPE_SIZE, HEADER_OPERATION_TIMEOUT,
    HEADER_LOCALE, HEADER_FRAGMENT, HEADER_DATA_LOCALE, HEADER_SESSION, HEADER_OPERATION, HEADER_SEQUENCE,
    HEADER_ACTIVITY, HEADERS,
};
static const struct {
    const char *name_space, *name;
} header_names[HEADERS] = {
    [HEADER_TO] = {RP_NS_ADDRESSING, "To"},
    [HEADER_ACTION] = {RP_NS_ADDRESSING, "Action"},
    [HEADER_MESSAGE_ID] = {RP_NS_ADDRESSING, "MessageID"},
    [HEADER_RELATES_TO] = {RP_NS_ADDRESSING, "RelatesTo"},
    [HEADER_REPLY_TO] = {RP_NS_ADDRESSING, "ReplyTo"},
    [HEADER_FAULT_TO] = {RP_NS_ADDRESSING, "FaultTo"},
    [HEADER_FROM] = {RP_NS_ADDRESSING, "From"},
    [HEADER_RESOURCE_URI] = {RP_NS_WSMAN, "ResourceURI"},
    [HEADER_SELECTOR_SET] = {RP_NS_WSMAN, "SelectorSet"},
    [HEADER_OPTION_SET] = {RP_NS_WSMAN, "OptionSet"},
    [HEADER_MAX_ENVELOPE_SIZE] = {RP_NS_WSMAN, "MaxEnvelopeSize"},
    [HEADER_OPERATION_TIMEOUT] = {RP_NS_WSMAN, "OperationTimeout"},
    [HEADER_LOCALE] = {RP_NS_WSMAN, "Locale"},
    [HEADER_FRAGMENT] = {RP_NS_WSMAN, "FragmentTransfer"},
    [HEADER_DATA_LOCALE] = {RP_NS_MICROSOFT, "DataLocale"},
    [HEADER_SESSION] = {RP_NS_MICROSOFT, "SessionId"},
    [HEADER_OPERATION] = {RP_NS_MICROSOFT, "OperationID"},
    [HEADER_SEQUENCE] = {RP_NS_MICROSOFT, "SequenceId"},
    [HEADER_ACTIVITY] = {RP_NS_MICROSOFT, "ActivityId"},
};

static bool is_true(const xmlNode *element, const char *name_space, const char *attribute)
{
    RP_AUTO_FREE char *text = rp_xml_attribute(element, name_space, attribute);
    return text && (!strcasecmp(text, "true") || !strcmp(text, "1"));
}

// Sorts the headers by what they are. Unknown ones may be passed over, but not when they must be understood.
static void sort_headers(const xmlNode *envelope, const xmlNode *found[HEADERS], struct rp_fault *fault)
{
    const xmlNode *header = rp_xml_child(envelope, RP_NS_SOAP, "Header");
    for (const xmlNode *node = rp_xml_first(header); node; node = rp_xml_next(node)) {
        int i = 0;
        while (i < HEADERS && !rp_xml_is(node, header_names[i].name_space, header_names[i].name))
            i++;
        if (i == HEADERS && is_true(node, RP_NS_SOAP, "mustUnderstand"))
            rp_fault_set(fault, RP_FAULT_MUST_UNDERSTAND, NULL, "the header %.100s is not understood",
                         (const char *)node->name);
        else if (i < HEADERS && found[i])
            rp_fault_set(fault, RP_FAULT_INVALID_HEADER, NULL, "the header %s comes twice", header_names[i].name);
        else if (i < HEADERS)
            found[i] = node;
    }
}

static int parse_envelope(const void *data, size_t size, size_t limit, const char *charset, struct rp_message *message,
                          const xmlNode **envelope, struct rp_error *err)
{
    *message = (struct rp_message){.operation_timeout_ms = -1};
    message->document = rp_xml_parse(data, size, limit, charset, err);
    if (!message->document)
        return -1;
    *envelope = xmlDocGetRootElement(message->document);
    if (!rp_xml_is(*envelope, RP_NS_SOAP, "Envelope"))
        return rp_fail(err, RP_ERR_CORRUPT, "this is no SOAP 1.2 envelope");
    message->body = rp_xml_child(*envelope, RP_NS_SOAP, "Body");
    return message->body ? 0 : rp_fail(err, RP_ERR_CORRUPT, "the envelope has no body");
}

static char *text_of(const xmlNode *header)
{
    return header ? rp_xml_text(header) : NULL;
}

// Answers go back on the connection that the request came on, and nowhere else.
static void check_reply_to(const xmlNode *reply, const char *name, struct rp_fault *fault)
{
    const xmlNode *address = rp_xml_child(reply, RP_NS_ADDRESSING, "Address");
    RP_AUTO_FREE char *text = text_of(address);
    if (reply && (!text || strcmp(text, RP_ADDRESS_ANONYMOUS)))
        rp_fault_set(fault, RP_FAULT_UNSUPPORTED_FEATURE, "AddressingMode", "%s is not the anonymous address", name);
}

// The request's MessageID goes back in the answer, whatever else happens: one that is far too long is none.
static char *message_id_of(const xmlNode *header, struct rp_fault *fault)
{
    char *text = text_of(header);
    if (!text || strlen(text) <= MAX_MESSAGE_ID)
        return text;
    free(text);
    rp_fault_set(fault, RP_FAULT_INVALID_HEADER, NULL, "MessageID is longer than %d bytes", MAX_MESSAGE_ID);
    return NULL;
}

static void read_limits(const xmlNode *const found[HEADERS], struct rp_message *message, struct rp_fault *fault)
{
    RP_AUTO_FREE char *size = text_of(found[HEADER_MAX_ENVELOPE_SIZE]);
    RP_AUTO_FREE char *timeout = text_of(found[HEADER_OPERATION_TIMEOUT]);
    struct rp_cim_value number;
    if (size && (rp_cim_value_parse(RP_CIM_UINT64, size, &number, NULL) || !number.one.u))
        rp_fault_set(fault, RP_FAULT_INVALID_HEADER, NULL, "MaxEnvelopeSize \"%.40s\" is no size", size);
    else if (size)
        message->max_envelope_size = number.one.u;
    struct rp_cim_datetime t;
    if (timeout && (rp_cim_datetime_parse(timeout, &t, NULL) || !t.interval || t.microseconds < 0))
        rp_fault_set(fault, RP_FAULT_INVALID_HEADER, NULL, "OperationTimeout \"%.40s\" is no duration", timeout);
    else if (timeout)
        message->operation_timeout_ms = t.microseconds / 1000;
}

static void read_options(const xmlNode *set, struct rp_fault *fault)
{
    for (const xmlNode *option = rp_xml_first(set); option; option = rp_xml_next(option)) {
        if (!rp_xml_is(option, RP_NS_WSMAN, "Option") || !is_true(option, NULL, "MustComply"))
            continue;
        RP_AUTO_FREE char *name = rp_xml_attribute(option, NULL, "Name");
        rp_fault_set(fault, RP_FAULT_INVALID_OPTIONS, "NotSupported", "the option %.100s is not supported",
                     name ? name : "without a name");
    }
}

static void read_resource(const xmlNode *const found[HEADERS], struct rp_message *message, struct rp_fault *fault)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *name_space = NULL;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new(NULL, "");
    message->resource_uri = text_of(found[HEADER_RESOURCE_URI]);
    if (rp_wsman_read_selectors(found[HEADER_SELECTOR_SET], path, &name_space, &err)) {
        if (err.code == RP_ERR_NO_SPACE)
            rp_fault_set(fault, RP_FAULT_ENCODING_LIMIT, "SelectorLimit", "%s", err.text);
        else
            rp_fault_set(fault, RP_FAULT_INVALID_SELECTORS, err.code == RP_ERR_EXISTS ? "DuplicateSelectors" : NULL,
                         "%s",
                         err.text);
        return;
    }
    if (!message->resource_uri)
        return;
    if (rp_wsman_uri_parse(message->resource_uri, name_space, &message->style, &message->name_space,
                           &message->class_name, &err)) {
        message->uri_problem = rp_xstrdup(err.text);
        return;
    }
    free(path->class_name);
    path->class_name = rp_xstrdup(message->class_name);
    path->name_space = rp_xstrdup(message->name_space);
    message->selectors = path;
    path = NULL;
}

int rp_message_read_request(const void *data, size_t size, size_t limit, const char *charset,
                            struct rp_message *message, struct rp_fault *fault)
{
    const xmlNode *envelope, *found[HEADERS] = {0};
    struct rp_error err = {0};
    if (parse_envelope(data, size, limit, charset, message, &envelope, &err))
        return size > limit ? rp_fault_set(fault, RP_FAULT_ENCODING_LIMIT, "ServiceEnvelopeLimit", "%s", err.text)
                            : rp_fault_set(fault, RP_FAULT_SCHEMA_VALIDATION, NULL, "%s", err.text);
    if (rp_xml_is(rp_xml_first(message->body), RP_NS_IDENTITY, "Identify")) {
        message->identify = true;
        return 0;
    }
    sort_headers(envelope, found, fault);
    message->action = text_of(found[HEADER_ACTION]);
    message->message_id = message_id_of(found[HEADER_MESSAGE_ID], fault);
    message->relates_to = text_of(found[HEADER_RELATES_TO]);
    message->to = text_of(found[HEADER_TO]);
    static const enum header required[] = {HEADER_ACTION, HEADER_MESSAGE_ID, HEADER_TO, HEADER_REPLY_TO};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (!found[required[i]])
            rp_fault_set(fault, RP_FAULT_HEADER_REQUIRED, NULL, "the header %s is missing",
                         header_names[required[i]].name);
    check_reply_to(found[HEADER_REPLY_TO], "ReplyTo", fault);
    check_reply_to(found[HEADER_FAULT_TO], "FaultTo", fault);
    // MS-WSMV 3.1.4.1.7, 3.1.4.1.8: text is in one language only
    if (found[HEADER_LOCALE] && is_true(found[HEADER_LOCALE], RP_NS_SOAP, "mustUnderstand"))
        rp_fault_set(fault, RP_FAULT_UNSUPPORTED_FEATURE, "Locale", "messages are in English");
    if (found[HEADER_DATA_LOCALE] && is_true(found[HEADER_DATA_LOCALE], RP_NS_SOAP, "mustUnderstand"))
        rp_fault_set(fault, RP_FAULT_UNSUPPORTED_FEATURE, "DataLocale", "data are in English");
    if (found[HEADER_FRAGMENT])
        rp_fault_set(fault, RP_FAULT_UNSUPPORTED_FEATURE, "FragmentLevelAccess", "objects are transferred as a whole");
    read_limits(found, message, fault);
    read_options(found[HEADER_OPTION_SET], fault);
    read_resource(found, message, fault);
    return fault->code ? -1 : 0;
}

int rp_message_read_response(const void *data, size_t size, size_t limit, const char *charset,
                             struct rp_message *message, struct rp_error *err)
{
    const xmlNode *envelope, *found[HEADERS] = {0};
    if (parse_envelope(data, size, limit, charset, message, &envelope, err))
        return -1;
    struct rp_fault ignored = {0};
    sort_headers(envelope, found, &ignored);
    message->action = text_of(found[HEADER_ACTION]);
    message->message_id = text_of(found[HEADER_MESSAGE_ID]);
    message->relates_to = text_of(found[HEADER_RELATES_TO]);
    message->to = text_of(found[HEADER_TO]);
    return 0;
}

xmlNode *rp_message_enumeration(const xmlNode *parent, const char *name)
{
    xmlNode *node = rp_xml_child(parent, RP_NS_ENUMERATION, name);
    return node ? node : rp_xml_child(parent, RP_NS_WSMAN, name);
}

static void begin(struct rp_buf *out, const char *p_namespace, char message_id[48])
{
    static const struct {
        const char *prefix, *name_space;
    } declared[] = {
        {"s", RP_NS_SOAP}, {"a", RP_NS_ADDRESSING}, {"w", RP_NS_WSMAN}, {"n", RP_NS_ENUMERATION}, {"x", RP_NS_TRANSFER},
        {"cim", RP_NS_CIM}, {"b", RP_NS_BINDING}, {"xsi", RP_NS_XSI},
    };
    rp_buf_printf(out, "<s:Envelope");
    for (size_t i = 0; i < sizeof declared / sizeof *declared; i++)
        rp_buf_printf(out, " xmlns:%s=\"%s\"", declared[i].prefix, declared[i].name_space);
    if (p_namespace) {
        rp_buf_printf(out, " xmlns:p=\"");
        rp_xml_escape(out, p_namespace);
        rp_buf_printf(out, "\"");
    }
    rp_buf_printf(out, "><s:Header>");
    struct rp_guid id = rp_guid_new();
    char text[RP_GUID_TEXT];
    snprintf(message_id, 48, "uuid:%s", rp_guid_format(&id, text));
    for (char *c = message_id + 5; *c; c++)
        *c = *c >= 'a' && *c <= 'f' ? (char)(*c & ~32) : *c;
}

void rp_message_begin_response(struct rp_buf *out, const char *action, const char *relates_to, const char *p_namespace)
{
    char message_id[48];
    begin(out, p_namespace, message_id);
    rp_xml_element(out, "a", "Action", action);
    rp_xml_element(out, "a", "MessageID", message_id);
    rp_xml_element(out, "a", "To", RP_ADDRESS_ANONYMOUS);
    if (relates_to)
        rp_xml_element(out, "a", "RelatesTo", relates_to);
    rp_buf_printf(out, "</s:Header><s:Body>");
}

// An element that the service must understand.
static void write_required(struct rp_buf *out, const char *prefix, const char *name, const char *text)
{
    rp_buf_printf(out, "<%s:%s s:mustUnderstand=\"true\">", prefix, name);
    rp_xml_escape(out, text);
    rp_buf_printf(out, "</%s:%s>", prefix, name);
}

static void write_selector(struct rp_buf *out, const char *name, const char *value)
{
    rp_buf_printf(out, "<w:Selector Name=\"");
    rp_xml_escape(out, name);
    rp_buf_printf(out, "\">");
    rp_xml_escape(out, value);
    rp_buf_printf(out, "</w:Selector>");
}

void rp_message_begin_request(struct rp_buf *out, const struct rp_message_request *request, char message_id[48])
{
    begin(out, NULL, message_id);
    rp_xml_element(out, "a", "To", request->url);
    write_required(out, "w", "ResourceURI", request->resource_uri);
    rp_buf_printf(out, "<a:ReplyTo><a:Address s:mustUnderstand=\"true\">" RP_ADDRESS_ANONYMOUS
                  "</a:Address></a:ReplyTo>");
    write_required(out, "a", "Action", request->action);
    rp_xml_element(out, "a", "MessageID", message_id);
    if (request->max_envelope_size)
        rp_buf_printf(out, "<w:MaxEnvelopeSize s:mustUnderstand=\"true\">%llu</w:MaxEnvelopeSize>",
                      (unsigned long long)request->max_envelope_size);
    rp_buf_printf(out, "<w:Locale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/>");
    if (request->timeout_ms)
        rp_buf_printf(out, "<w:OperationTimeout>PT%u.%03uS</w:OperationTimeout>", request->timeout_ms / 1000,
                      request->timeout_ms % 1000);
    const struct rp_cim_path *path = request->selectors;
    const char *name_space = path && request->style == RP_URI_STYLE_DMTF ? path->name_space : NULL;
    if (path && (path->key_count || name_space)) {
        rp_buf_printf(out, "<w:SelectorSet>");
        if (name_space)
            write_selector(out, "__cimnamespace", name_space);
        for (size_t i = 0; i < path->key_count; i++)
            write_selector(out, path->keys[i].name, path->keys[i].value);
        rp_buf_printf(out, "</w:SelectorSet>");
    }
    rp_buf_printf(out, "</s:Header><s:Body>");
}

void rp_message_end(struct rp_buf *out)
{
    rp_buf_printf(out, "</s:Body></s:Envelope>");
}
