#include "wsman/fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wsman/names.h"

// Codes of Windows that clients know (wsmerror.h, wbemcli.h, winerror.h).
enum {
    WINDOWS_ACCESS_DENIED = 5, WINDOWS_DISK_FULL = 112, WINDOWS_INTERNAL_ERROR = 1359,
    WBEM_NOT_FOUND = 0x1002, WBEM_ACCESS_DENIED = 0x1003, WBEM_INVALID_CLASS = 0x1010, // + 0x80040000
};
#define WBEM(code) (0x80040000u + (code))
#define WSMAN_CODE(code) (0x80338000u + (code))

static const struct {
    const char *subcode, *name_space, *action;
    uint32_t windows;
    bool receiver, malformed; // the sender's fault unless it is the receiver's; `malformed`: HTTP 400
} faults[RP_FAULT_COUNT] = {
#define A(text) "a:" text, RP_NS_ADDRESSING, RP_NS_ADDRESSING "/fault"
#define W(text) "w:" text, RP_NS_WSMAN, "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
#define N(text) "n:" text, RP_NS_ENUMERATION, RP_NS_ENUMERATION "/fault"
    [RP_FAULT_ACTION_NOT_SUPPORTED] = {A("ActionNotSupported"), WSMAN_CODE(0x13), false, false},
    [RP_FAULT_DESTINATION_UNREACHABLE] = {A("DestinationUnreachable"), WSMAN_CODE(0x00), false, false},
    [RP_FAULT_INVALID_HEADER] = {A("InvalidMessageInformationHeader"), WSMAN_CODE(0x0F), false, true},
    [RP_FAULT_HEADER_REQUIRED] = {A("MessageInformationHeaderRequired"), WSMAN_CODE(0x11), false, true},
    [RP_FAULT_ACCESS_DENIED] = {W("AccessDenied"), WINDOWS_ACCESS_DENIED, false, false},
    [RP_FAULT_ALREADY_EXISTS] = {W("AlreadyExists"), WSMAN_CODE(0x33), false, false},
    [RP_FAULT_CONCURRENCY] = {W("Concurrency"), WSMAN_CODE(0x32), false, false},
    [RP_FAULT_ENCODING_LIMIT] = {W("EncodingLimit"), WSMAN_CODE(0x35), false, false},
    [RP_FAULT_INTERNAL_ERROR] = {W("InternalError"), WINDOWS_INTERNAL_ERROR, true, false},
    [RP_FAULT_INVALID_OPTIONS] = {W("InvalidOptions"), WSMAN_CODE(0x39), false, false},
    [RP_FAULT_INVALID_PARAMETER] = {W("InvalidParameter"), WSMAN_CODE(0x3A), false, false},
    [RP_FAULT_INVALID_SELECTORS] = {W("InvalidSelectors"), WSMAN_CODE(0x3D), false, false},
    [RP_FAULT_QUOTA_LIMIT] = {W("QuotaLimit"), WSMAN_CODE(0x3F), false, false},
    [RP_FAULT_SCHEMA_VALIDATION] = {W("SchemaValidationError"), WSMAN_CODE(0x41), false, true},
    [RP_FAULT_TIMED_OUT] = {W("TimedOut"), WSMAN_CODE(0x29), true, false},
    [RP_FAULT_UNSUPPORTED_FEATURE] = {W("UnsupportedFeature"), WSMAN_CODE(0x42), false, false},
    [RP_FAULT_CANNOT_PROCESS_FILTER] = {N("CannotProcessFilter"), WSMAN_CODE(0x1A), false, false},
    [RP_FAULT_INVALID_ENUMERATION_CONTEXT] = {N("InvalidEnumerationContext"), WSMAN_CODE(0x1B), true, false},
    [RP_FAULT_FILTERING_NOT_SUPPORTED] = {N("FilteringNotSupported"), WSMAN_CODE(0x18), false, false},
    [RP_FAULT_FILTER_DIALECT] = {N("FilterDialectRequestedUnavailable"), WSMAN_CODE(0x19), false, false},
    [RP_FAULT_MUST_UNDERSTAND] = {"s:MustUnderstand", RP_NS_SOAP, RP_NS_ADDRESSING "/fault", WSMAN_CODE(0x10), false,
                                  false},
};

// What follows ".../faultDetail/" (DSP0226 14.6), with Windows's code where it tells more than that of the subcode.
static const struct {
    const char *name;
    uint32_t windows;
} details[] = {
    {"AddressingMode", 0}, {"AmbiguousSelectors", WSMAN_CODE(0x5E)}, {"CharacterSet", WSMAN_CODE(0x4C)},
    {"DataLocale", 0}, {"DuplicateSelectors", WSMAN_CODE(0x5F)}, {"EnumerationMode", 0}, {"FragmentLevelAccess", 0},
    {"InsufficientSelectors", WSMAN_CODE(0x5A)}, {"InvalidName", WSMAN_CODE(0x55)},
    {"InvalidResourceURI", WSMAN_CODE(0x3B)}, {"InvalidValue", 0}, {"InvalidValues", WSMAN_CODE(0x56)},
    {"Locale", WSMAN_CODE(0x87)},
    {"MaxEnvelopeSize", WSMAN_CODE(0x47)}, {"MaxEnvelopeSizeExceeded", WSMAN_CODE(0x48)},
    {"MinimumEnvelopeLimit", WSMAN_CODE(0x7E)}, {"NotSupported", WSMAN_CODE(0x51)}, {"OperationTimeout", 0},
    {"OptionLimit", WSMAN_CODE(0x4B)}, {"ResourceNotFound", WSMAN_CODE(0x00)}, {"SelectorLimit", WSMAN_CODE(0x4A)},
    {"ServiceEnvelopeLimit", WSMAN_CODE(0x49)}, {"TypeMismatch", WSMAN_CODE(0x54)},
    {"UnexpectedSelectors", WSMAN_CODE(0x5B)}, {"UnreportableSuccess", WSMAN_CODE(0x4D)},
};

static size_t find_detail(const char *name)
{
    size_t i = 0;
    while (i < sizeof details / sizeof *details && strcmp(details[i].name, name))
        i++;
    return i;
}

int rp_fault_set(struct rp_fault *fault, enum rp_fault_code code, const char *detail, const char *format, ...)
{
    if (fault->code)
        return -1;
    size_t known = detail ? find_detail(detail) : sizeof details / sizeof *details;
    *fault = (struct rp_fault){.code = code, .detail = detail, .windows_code = faults[code].windows};
    if (known < sizeof details / sizeof *details && details[known].windows)
        fault->windows_code = details[known].windows;
    va_list args;
    va_start(args, format);
    vsnprintf(fault->message, sizeof fault->message, format, args);
    va_end(args);
    return -1;
}

int rp_fault_from_error(struct rp_fault *fault, const struct rp_error *err)
{
    static const struct {
        enum rp_code from;
        enum rp_fault_code to;
        const char *detail;
        uint32_t windows;
    } table[] = {
        {RP_ERR_NOT_FOUND, RP_FAULT_DESTINATION_UNREACHABLE, "ResourceNotFound", 0},
        {RP_ERR_PERMISSION, RP_FAULT_ACCESS_DENIED, NULL, 0},
        {RP_ERR_AUTH, RP_FAULT_ACCESS_DENIED, NULL, 0},
        {RP_ERR_INVALID, RP_FAULT_INVALID_PARAMETER, NULL, 0},
        {RP_ERR_UNSUPPORTED, RP_FAULT_UNSUPPORTED_FEATURE, NULL, 0},
        {RP_ERR_EXISTS, RP_FAULT_ALREADY_EXISTS, NULL, 0},
        {RP_ERR_BUSY, RP_FAULT_CONCURRENCY, NULL, 0},
        {RP_ERR_NO_SPACE, RP_FAULT_QUOTA_LIMIT, NULL, WINDOWS_DISK_FULL},
        {RP_ERR_CANCELLED, RP_FAULT_TIMED_OUT, NULL, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].from != err->code || fault->code)
            continue;
        rp_fault_set(fault, table[i].to, table[i].detail, "%s", err->text);
        if (table[i].windows)
            fault->windows_code = table[i].windows;
    }
    return rp_fault_set(fault, RP_FAULT_INTERNAL_ERROR, NULL, "%s", err->text);
}

const char *rp_fault_subcode(enum rp_fault_code code)
{
    return faults[code].subcode;
}

const char *rp_fault_action(enum rp_fault_code code)
{
    return faults[code].action;
}

unsigned rp_fault_http_status(enum rp_fault_code code)
{
    return faults[code].malformed ? 400 : 500;
}

void rp_fault_write(struct rp_buf *out, const struct rp_fault *fault, const char *machine)
{
    const char *subcode = faults[fault->code].subcode;
    rp_buf_printf(out, "<s:Fault><s:Code>");
    if (fault->code == RP_FAULT_MUST_UNDERSTAND) // a code of SOAP itself (SOAP 1.2 part 1, 5.4.6)
        rp_xml_element(out, "s", "Value", subcode);
    else
        rp_buf_printf(out, "<s:Value>%s</s:Value><s:Subcode><s:Value>%s</s:Value></s:Subcode>",
                      faults[fault->code].receiver ? "s:Receiver" : "s:Sender", subcode);
    rp_buf_printf(out, "</s:Code><s:Reason><s:Text xml:lang=\"en-US\">");
    rp_xml_escape(out, fault->message);
    rp_buf_printf(out, "</s:Text></s:Reason><s:Detail>");
    if (fault->detail)
        rp_buf_printf(out, "<w:FaultDetail>" RP_FAULT_DETAIL "%s</w:FaultDetail>", fault->detail);
    rp_buf_printf(out, "<f:WSManFault xmlns:f=\"" RP_NS_MICROSOFT_FAULT "\" Code=\"%u\" Machine=\"",
                  fault->windows_code);
    rp_xml_escape(out, machine);
    rp_buf_printf(out, "\"><f:Message>");
    rp_xml_escape(out, fault->message);
    rp_buf_printf(out, "</f:Message></f:WSManFault></s:Detail></s:Fault>");
}

// "w:InvalidSelectors" of an element, by the namespace that its prefix has there.
static enum rp_fault_code read_code(const xmlNode *value)
{
    RP_AUTO_FREE char *text = rp_xml_text(value);
    char *colon = strchr(text, ':'), *name = colon ? colon + 1 : text;
    if (colon)
        *colon = 0;
    const xmlNs *ns = xmlSearchNs(value->doc, (xmlNode *)(uintptr_t)value, colon ? (const xmlChar *)text : NULL);
    for (int code = RP_FAULT_NONE + 1; code < RP_FAULT_COUNT && ns && ns->href; code++) {
        // CannotProcessFilter is w: in DSP0226 and n: in WS-Enumeration
        bool either = code == RP_FAULT_CANNOT_PROCESS_FILTER && !strcmp((const char *)ns->href, RP_NS_WSMAN);
        if (!strcmp(faults[code].subcode + 2, name) && (either || !strcmp((const char *)ns->href,
                                                                          faults[code].name_space)))
            return (enum rp_fault_code)code;
    }
    return RP_FAULT_NONE;
}

// All text below an element, words with one space between.
static void gather_text(const xmlNode *node, char *out, size_t size)
{
    size_t length = strlen(out);
    for (const xmlNode *child = node->children; child; child = child->next) {
        if (child->type == XML_ELEMENT_NODE) {
            gather_text(child, out, size);
            length = strlen(out);
        }
        const char *p = child->type == XML_TEXT_NODE ? (const char *)child->content : NULL;
        while (p && *(p += strspn(p, " \t\r\n"))) {
            size_t word = strcspn(p, " \t\r\n");
            int n = snprintf(out + length, size - length, "%s%.*s", length ? " " : "", (int)word, p);
            length += (size_t)n < size - length ? (size_t)n : size - length - 1;
            p += word;
        }
    }
}

static void read_detail(const xmlNode *element, struct rp_fault *fault)
{
    static const char prefix[] = RP_FAULT_DETAIL;
    const xmlNode *detail = rp_xml_child(element, RP_NS_WSMAN, "FaultDetail");
    if (detail) {
        RP_AUTO_FREE char *text = rp_xml_text(detail);
        size_t known = find_detail(strncmp(text, prefix, sizeof prefix - 1) ? "" : text + sizeof prefix - 1);
        fault->detail = known < sizeof details / sizeof *details ? details[known].name : NULL;
    }
    const xmlNode *windows = rp_xml_child(element, RP_NS_MICROSOFT_FAULT, "WSManFault");
    if (!windows)
        return;
    RP_AUTO_FREE char *code = rp_xml_attribute(windows, NULL, "Code");
    fault->windows_code = code ? (uint32_t)strtoll(code, NULL, 10) : 0; // some write it as a negative number
    char inner[sizeof fault->message] = "";
    gather_text(windows, inner, sizeof inner);
    if (strlen(inner) > strlen(fault->message))
        memcpy(fault->message, inner, sizeof inner);
}

void rp_fault_read(const xmlNode *element, struct rp_fault *fault)
{
    *fault = (struct rp_fault){0};
    const xmlNode *code = rp_xml_child(element, RP_NS_SOAP, "Code"), *value = rp_xml_child(code, RP_NS_SOAP, "Value");
    if (value)
        fault->code = read_code(value);
    while ((code = rp_xml_child(code, RP_NS_SOAP, "Subcode")))
        if (!fault->code && (value = rp_xml_child(code, RP_NS_SOAP, "Value")))
            fault->code = read_code(value);
    const xmlNode *reason = rp_xml_child(element, RP_NS_SOAP, "Reason");
    if (reason)
        gather_text(reason, fault->message, sizeof fault->message);
    const xmlNode *detail = rp_xml_child(element, RP_NS_SOAP, "Detail");
    if (detail)
        read_detail(detail, fault);
    if (!*fault->message)
        snprintf(fault->message, sizeof fault->message, "the host does not say why");
}

static enum rp_code error_code(const struct rp_fault *fault)
{
    if (fault->windows_code == WBEM(WBEM_NOT_FOUND) || fault->windows_code == WBEM(WBEM_INVALID_CLASS))
        return RP_ERR_NOT_FOUND;
    if (fault->windows_code == WBEM(WBEM_ACCESS_DENIED) || fault->windows_code == WINDOWS_ACCESS_DENIED)
        return RP_ERR_PERMISSION;
    switch (fault->code) {
    case RP_FAULT_DESTINATION_UNREACHABLE:
        return RP_ERR_NOT_FOUND;
    case RP_FAULT_ACCESS_DENIED:
        return RP_ERR_PERMISSION;
    case RP_FAULT_ALREADY_EXISTS:
        return RP_ERR_EXISTS;
    case RP_FAULT_CONCURRENCY:
        return RP_ERR_BUSY;
    case RP_FAULT_QUOTA_LIMIT:
        return fault->windows_code == WINDOWS_DISK_FULL ? RP_ERR_NO_SPACE : RP_ERR_BUSY;
    case RP_FAULT_ACTION_NOT_SUPPORTED:
    case RP_FAULT_UNSUPPORTED_FEATURE:
    case RP_FAULT_FILTERING_NOT_SUPPORTED:
    case RP_FAULT_FILTER_DIALECT:
    case RP_FAULT_MUST_UNDERSTAND:
        return RP_ERR_UNSUPPORTED;
    case RP_FAULT_INVALID_ENUMERATION_CONTEXT:
        return RP_ERR_STATE;
    case RP_FAULT_NONE:
    case RP_FAULT_INTERNAL_ERROR:
    case RP_FAULT_TIMED_OUT:
        return RP_ERR_IO;
    default:
        return RP_ERR_INVALID;
    }
}

int rp_fault_to_error(const struct rp_fault *fault, const char *what, struct rp_error *err)
{
    return rp_fail(err, error_code(fault), "%s: %s", what, fault->message);
}
