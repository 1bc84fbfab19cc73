// XML from outside, read safely, and XML written into a buffer.
#ifndef RP_WSMAN_XML_H
#define RP_WSMAN_XML_H

#include <libxml/tree.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

#define RP_XML_MAX_DEPTH 64

// Parses a document of at most `limit` bytes: UTF-8, or UTF-16 where a byte order mark or `charset` (NULL: not said) says so. No network, no
// DTD (a DOCTYPE is RP_ERR_CORRUPT), hence no entities but the five; depth up to RP_XML_MAX_DEPTH. Free with xmlFreeDoc.
xmlDoc *rp_xml_parse(const void *data, size_t size, size_t limit, const char *charset, struct rp_error *err);
RP_DEFINE_CLEANUP(xmlDoc, xmlFreeDoc)

bool rp_xml_is(const xmlNode *node, const char *name_space, const char *name); // an element of that name; NULL namespace: any
xmlNode *rp_xml_child(const xmlNode *node, const char *name_space, const char *name); // the first such child element; NULL
xmlNode *rp_xml_first(const xmlNode *node);  // the first child element; NULL
xmlNode *rp_xml_next(const xmlNode *node);   // the next element beside it; NULL
// The text of an element without surrounding blanks, malloc'ed; "" when empty. Of an attribute: NULL when absent.
char *rp_xml_text(const xmlNode *node);
char *rp_xml_attribute(const xmlNode *node, const char *name_space, const char *name);
bool rp_xml_is_nil(const xmlNode *node); // xsi:nil="true" or "1", also with xsi bound to …/XMLSchema (OMI)

// Appends text with & < > " ' escaped; bytes that XML 1.0 forbids, and what is not UTF-8, become U+FFFD.
void rp_xml_escape(struct rp_buf *out, const char *text);
// <prefix:name>text</prefix:name>; empty text gives an empty element.
void rp_xml_element(struct rp_buf *out, const char *prefix, const char *name, const char *text);

#endif
