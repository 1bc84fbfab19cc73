#include "cim/xml.h"

#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <libxml/SAX2.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include "base/utf16.h"

// What the hooks of one parse know: libxml2 has bounds of its own, but they are far from what a message needs.
struct guard {
    unsigned depth, namespaces;
    unsigned declared[RP_XML_MAX_DEPTH];
    char refused[160]; // why the parser was stopped
};

static void refuse(xmlParserCtxt *parser, int line, const char *why)
{
    struct guard *guard = parser->_private;
    if (!*guard->refused)
        snprintf(guard->refused, sizeof guard->refused, "line %d: %.*s", line, (int)strcspn(why, "\r\n"), why);
    xmlStopParser(parser);
}

// The first error is the last: some of libxml2's messages quote what came before, which would cost the square of the
// input.
static void on_error(void *context, xmlError *error)
{
    if (error->level >= XML_ERR_ERROR)
        refuse(context, error->line, error->message ? error->message : "not well formed");
}

static int line_of(const xmlParserCtxt *parser)
{
    return parser->input ? parser->input->line : 0;
}

static void on_start(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri, int namespace_count,
                     const xmlChar **namespaces, int attribute_count, int defaulted, const xmlChar **attributes)
{
    xmlParserCtxt *parser = context;
    struct guard *guard = parser->_private;
    if (guard->depth == RP_XML_MAX_DEPTH) {
        refuse(parser, line_of(parser), "elements are nested too deeply");
        return;
    }
    guard->declared[guard->depth++] = (unsigned)namespace_count;
    guard->namespaces += (unsigned)namespace_count;
    if (guard->namespaces > RP_XML_MAX_NAMESPACES)
        refuse(parser, line_of(parser), "too many namespaces");
    else
        xmlSAX2StartElementNs(context, name, prefix, uri, namespace_count, namespaces, attribute_count, defaulted,
                              attributes);
}

static void on_end(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
    struct guard *guard = ((xmlParserCtxt *)context)->_private;
    guard->namespaces -= guard->declared[--guard->depth];
    xmlSAX2EndElementNs(context, name, prefix, uri);
}

static void on_doctype(void *context, const xmlChar *name, const xmlChar *id, const xmlChar *system)
{
    (void)name, (void)id, (void)system;
    refuse(context, line_of(context), "a DOCTYPE is not accepted");
}

// libxml2 compares each attribute of an element with all before it: half a megabyte of them in one element would take
// seconds before any hook is called. This looks only for the end of tags and counts what is quoted in them; what it
// does not understand is left to the parser.
static bool too_many_attributes(const char *p, const char *end)
{
    while ((p = memchr(p, '<', (size_t)(end - p)))) {
        static const struct { const char *open, *close; } skipped[] = {
            {"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"},
        };
        const char *after = NULL;
        for (size_t i = 0; i < 3 && !after; i++) {
            size_t length = strlen(skipped[i].open);
            if ((size_t)(end - p) < length || memcmp(p, skipped[i].open, length))
                continue;
            after = memmem(p + length, (size_t)(end - p) - length, skipped[i].close, strlen(skipped[i].close));
            if (!after)
                return false;
        }
        if (after) {
            p = after;
            continue;
        }
        unsigned quoted = 0;
        for (p++; p < end && *p != '>' && *p != '<'; p++) {
            if (*p != '"' && *p != '\'')
                continue;
            if (++quoted > RP_XML_MAX_ATTRIBUTES)
                return true;
            p = memchr(p + 1, *p, (size_t)(end - p - 1));
            if (!p)
                return false;
        }
    }
    return false;
}

// The document as UTF-8 without a byte order mark: itself, or converted into `copy`.
static int as_utf8(const uint8_t **data, size_t *size, const char *charset, struct rp_buf *copy, struct rp_error *err)
{
    if (*size >= 3 && !memcmp(*data, "\xEF\xBB\xBF", 3)) {
        *data += 3, *size -= 3;
        return 0;
    }
    bool little = *size >= 2 && (*data)[0] == 0xFF && (*data)[1] == 0xFE;
    bool big = *size >= 2 && (*data)[0] == 0xFE && (*data)[1] == 0xFF;
    bool marked = little || big;
    if (!marked && (!charset || strncasecmp(charset, "utf-16", 6)))
        return 0;
    if (!marked)
        big = !strcasecmp(charset, "utf-16be") || (*size >= 2 && !(*data)[0] && (*data)[1]);
    const uint8_t *p = *data + (marked ? 2 : 0);
    size_t length = *size - (marked ? 2 : 0);
    RP_CLEANUP(rp_buf_clear) struct rp_buf swapped = {0};
    if (big && length % 2 == 0) {
        for (size_t i = 0; i < length; i += 2)
            rp_buf_append_le16(&swapped, rp_get_be16(p + i));
        p = swapped.data;
    }
    if (length && rp_utf16_to_utf8(p, length, copy, err))
        return -1;
    *data = (const uint8_t *)rp_buf_text(copy);
    *size = copy->size;
    return 0;
}

xmlDoc *rp_xml_parse(const void *data, size_t size, size_t limit, const char *charset, struct rp_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, xmlInitParser);
    RP_CLEANUP(rp_buf_clear) struct rp_buf copy = {0};
    const uint8_t *text = data;
    if (size > limit || size > INT32_MAX / 2) {
        rp_fail(err, RP_ERR_CORRUPT, "XML: %zu bytes are more than the %zu accepted", size, limit);
        return NULL;
    }
    if (as_utf8(&text, &size, charset, &copy, err)) {
        rp_context(err, "XML");
        return NULL;
    }
    if (!size) {
        rp_fail(err, RP_ERR_CORRUPT, "XML: the document is empty");
        return NULL;
    }
    if (too_many_attributes((const char *)text, (const char *)text + size)) {
        rp_fail(err, RP_ERR_CORRUPT, "XML: an element has more than %d attributes", RP_XML_MAX_ATTRIBUTES);
        return NULL;
    }
    xmlParserCtxt *parser = xmlNewParserCtxt();
    if (!parser)
        abort();
    struct guard guard = {0};
    parser->_private = &guard;
    parser->sax->startElementNs = on_start;
    parser->sax->endElementNs = on_end;
    parser->sax->internalSubset = on_doctype;
    parser->sax->serror = on_error;
    xmlDoc *document = xmlCtxtReadMemory(parser, (const char *)text, (int)size, NULL, "UTF-8",
        XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOCDATA | XML_PARSE_IGNORE_ENC);
    if (!document || *guard.refused) {
        xmlFreeDoc(document);
        document = NULL;
        rp_fail(err, RP_ERR_CORRUPT, "XML: %s", *guard.refused ? guard.refused : "not well formed");
    }
    xmlFreeParserCtxt(parser);
    return document;
}

static bool in_namespace(const xmlNs *ns, const char *name_space)
{
    return !name_space || (ns && ns->href && !strcmp((const char *)ns->href, name_space));
}

bool rp_xml_is(const xmlNode *node, const char *name_space, const char *name)
{
    return node && node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, name) &&
           in_namespace(node->ns, name_space);
}

static xmlNode *element_from(xmlNode *node)
{
    while (node && node->type != XML_ELEMENT_NODE)
        node = node->next;
    return node;
}

xmlNode *rp_xml_first(const xmlNode *node)
{
    return node ? element_from(node->children) : NULL;
}

xmlNode *rp_xml_next(const xmlNode *node)
{
    return node ? element_from(node->next) : NULL;
}

xmlNode *rp_xml_child(const xmlNode *node, const char *name_space, const char *name)
{
    xmlNode *child = rp_xml_first(node);
    while (child && !rp_xml_is(child, name_space, name))
        child = rp_xml_next(child);
    return child;
}

char *rp_xml_text_exact(const xmlNode *node)
{
    struct rp_buf text = {0};
    for (const xmlNode *child = node ? node->children : NULL; child; child = child->next)
        if ((child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE) && child->content)
            rp_buf_append(&text, child->content, strlen((const char *)child->content));
    rp_buf_text(&text);
    return (char *)text.data;
}

char *rp_xml_text(const xmlNode *node)
{
    static const char blanks[] = " \t\r\n";
    char *text = rp_xml_text_exact(node);
    size_t start = strspn(text, blanks), length = strlen(text + start);
    while (length && strchr(blanks, text[start + length - 1]))
        length--;
    memmove(text, text + start, length);
    text[length] = 0;
    return text;
}

static const xmlAttr *attribute_of(const xmlNode *node, const char *name_space, const char *name)
{
    for (const xmlAttr *a = node && node->type == XML_ELEMENT_NODE ? node->properties : NULL; a; a = a->next)
        if (!strcmp((const char *)a->name, name) && (name_space ? in_namespace(a->ns, name_space) : !a->ns))
            return a;
    return NULL;
}

char *rp_xml_attribute(const xmlNode *node, const char *name_space, const char *name)
{
    const xmlAttr *a = attribute_of(node, name_space, name);
    return a ? rp_xml_text_exact((const xmlNode *)a) : NULL;
}

bool rp_xml_is_nil(const xmlNode *node)
{
    const xmlAttr *a = attribute_of(node, "http://www.w3.org/2001/XMLSchema-instance", "nil");
    if (!a)
        a = attribute_of(node, "http://www.w3.org/2001/XMLSchema", "nil");
    if (!a)
        return false;
    RP_AUTO_FREE char *text = rp_xml_text((const xmlNode *)a);
    return !strcasecmp(text, "true") || !strcmp(text, "1");
}

void rp_xml_escape(struct rp_buf *out, const char *text)
{
    size_t left = strlen(text);
    while (left) {
        uint32_t code;
        int length = rp_utf8_decode(text, left, &code);
        bool allowed = length && (code >= 0x20 || code == '\t' || code == '\n' || code == '\r') && code != 0xFFFE &&
                       code != 0xFFFF;
        const char *as = !allowed ? "\xEF\xBF\xBD" : code == '&' ? "&amp;" : code == '<' ? "&lt;" : code == '>' ? "&gt;"
                         : code == '"' ? "&quot;" : code == '\'' ? "&apos;" : code == '\r' ? "&#13;" : NULL;
        if (as)
            rp_buf_append(out, as, strlen(as));
        else
            rp_buf_append(out, text, (size_t)length);
        text += length ? length : 1;
        left -= length ? (size_t)length : 1;
    }
}

void rp_xml_element(struct rp_buf *out, const char *prefix, const char *name, const char *text)
{
    const char *colon = prefix ? ":" : "";
    prefix = prefix ? prefix : "";
    if (!*text) {
        rp_buf_printf(out, "<%s%s%s/>", prefix, colon, name);
        return;
    }
    rp_buf_printf(out, "<%s%s%s>", prefix, colon, name);
    rp_xml_escape(out, text);
    rp_buf_printf(out, "</%s%s%s>", prefix, colon, name);
}
