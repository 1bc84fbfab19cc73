#include "reply.h"

#include <libxml/xpath.h>
#include <libxml/xpathInternals.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cim/xml.h"
#include "wsman/names.h"

void reply_clear(struct reply *reply)
{
    rp_buf_clear(&reply->bytes);
    xmlFreeDoc(reply->document);
    *reply = (struct reply){0};
}

void reply_to(struct site *site, const char *request, size_t size, struct reply *reply)
{
    reply_clear(reply);
    reply->status = site_send(site, request, size, &reply->bytes);
    reply->document = rp_xml_parse(reply->bytes.data, reply->bytes.size, reply->bytes.size, NULL, NULL);
}

static void add_selectors(struct rp_buf *out, const char *selectors)
{
    RP_AUTO_FREE char *copy = rp_xstrdup(selectors);
    char *rest = NULL;
    rp_buf_printf(out, "<w:SelectorSet>");
    for (char *one = strtok_r(copy, ";", &rest); one; one = strtok_r(NULL, ";", &rest)) {
        char *equals = strchr(one, '=');
        rp_buf_printf(out, "<w:Selector Name=\"%.*s\">", (int)(equals - one), one);
        rp_xml_escape(out, equals + 1);
        rp_buf_printf(out, "</w:Selector>");
    }
    rp_buf_printf(out, "</w:SelectorSet>");
}

void reply_to_message(struct site *site, const char *action, const char *uri, const char *selectors,
                      const char *headers, const char *body, struct reply *reply)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_buf_printf(&text, "<s:Envelope xmlns:s=\"" RP_NS_SOAP "\" xmlns:a=\"" RP_NS_ADDRESSING "\" xmlns:w=\""
                  RP_NS_WSMAN
                  "\" xmlns:n=\"" RP_NS_ENUMERATION "\" xmlns:x=\"" RP_NS_TRANSFER "\" xmlns:b=\"" RP_NS_BINDING
                  "\" xmlns:xsi=\"" RP_NS_XSI "\"><s:Header><a:To>http://hv1/wsman</a:To><a:ReplyTo><a:Address>"
                  RP_ADDRESS_ANONYMOUS "</a:Address></a:ReplyTo><a:MessageID>uuid:1</a:MessageID>");
    rp_xml_element(&text, "a", "Action", action);
    if (uri)
        rp_xml_element(&text, "w", "ResourceURI", uri);
    if (selectors)
        add_selectors(&text, selectors);
    rp_buf_printf(&text, "%s</s:Header><s:Body>", headers ? headers : "");
    rp_buf_append(&text, body ? body : "", body ? strlen(body) : 0);
    rp_buf_printf(&text, "</s:Body></s:Envelope>");
    reply_to(site, (const char *)text.data, text.size, reply);
}

static void register_prefixes(xmlXPathContext *context, const xmlNode *node)
{
    for (const xmlNs *ns = node ? node->nsDef : NULL; ns; ns = ns->next)
        if (ns->prefix)
            xmlXPathRegisterNs(context, ns->prefix, ns->href);
}

static void ignore(void *context, xmlError *error)
{
    (void)context, (void)error;
}

static xmlXPathObject *evaluate(const struct reply *reply, const char *xpath)
{
    if (!reply->document)
        return NULL;
    const xmlNode *root = xmlDocGetRootElement(reply->document);
    xmlXPathContext *context = xmlXPathNewContext(reply->document);
    context->error = ignore;
    register_prefixes(context, root);
    register_prefixes(context, rp_xml_first(rp_xml_child(root, RP_NS_SOAP, "Body")));
    xmlXPathObject *object = xmlXPathEval((const xmlChar *)xpath, context);
    xmlXPathFreeContext(context);
    return object;
}

int reply_count(const struct reply *reply, const char *xpath)
{
    xmlXPathObject *object = evaluate(reply, xpath);
    int count = object && object->nodesetval ? object->nodesetval->nodeNr : 0;
    xmlXPathFreeObject(object);
    return count;
}

char *reply_text(const struct reply *reply, const char *xpath)
{
    xmlXPathObject *object = evaluate(reply, xpath);
    bool found = object && object->nodesetval && object->nodesetval->nodeNr;
    xmlChar *content = found ? xmlNodeGetContent(object->nodesetval->nodeTab[0]) : NULL;
    char *text = rp_xstrdup(content ? (const char *)content : "");
    xmlFree(content);
    xmlXPathFreeObject(object);
    return text;
}

bool reply_is(const struct reply *reply, const char *xpath, const char *text)
{
    RP_AUTO_FREE char *found = reply_text(reply, xpath);
    bool same = reply_count(reply, xpath) == 1 && !strcmp(found, text);
    if (!same)
        fprintf(stderr, "%s is \"%s\" (%d) instead of \"%s\" in\n%.*s\n", xpath, found, reply_count(reply, xpath), text,
                (int)reply->bytes.size, (const char *)reply->bytes.data);
    return same;
}

char *reply_fault(const struct reply *reply)
{
    static const char detail_uri[] = RP_FAULT_DETAIL;
    if (!reply->document)
        return rp_xasprintf("no XML: %u", reply->status);
    if (!reply_count(reply, "/s:Envelope/s:Body/s:Fault"))
        return rp_xasprintf("%u", reply->status);
    RP_AUTO_FREE char *subcode = reply_text(reply, "//s:Fault/s:Code/s:Subcode/s:Value");
    RP_AUTO_FREE char *value = reply_text(reply, "//s:Fault/s:Code/s:Value");
    RP_AUTO_FREE char *reason = reply_text(reply, "//s:Fault/s:Reason/s:Text[@xml:lang]");
    RP_AUTO_FREE char *action = reply_text(reply, "/s:Envelope/s:Header/a:Action");
    RP_AUTO_FREE char *detail = reply_text(reply, "//s:Fault/s:Detail/w:FaultDetail");
    const char *code = *subcode ? subcode : value;
    const char *expected = *code == 'w' ? "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
                           : *code == 'n' ? RP_NS_ENUMERATION "/fault" : RP_NS_ADDRESSING "/fault";
    bool sane = *reason && !strcmp(action, expected);
    sane &= !*subcode || !strcmp(value, "s:Sender") || !strcmp(value, "s:Receiver");
    if (!sane)
        return rp_xasprintf("malformed: %.*s", (int)reply->bytes.size, (const char *)reply->bytes.data);
    const char *last = strncmp(detail, detail_uri, sizeof detail_uri - 1) ? detail : detail + sizeof detail_uri - 1;
    return rp_xasprintf("%s%s%s %u", code, *last ? " " : "", last, reply->status);
}
