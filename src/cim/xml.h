// XML from outside, read safely, and XML written into a buffer: what CIM-XML (cimxml.h) and WS-Management share.
#ifndef RP_CIM_XML_H
#define RP_CIM_XML_H

#include <libxml/tree.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

#define RP_XML_MAX_DEPTH 64       // of elements
#define RP_XML_MAX_ATTRIBUTES 64  // of one element, namespace declarations included
#define RP_XML_MAX_NAMESPACES 512 // declarations in scope at once

// Parses a document of at most `limit` bytes: UTF-8, or UTF-16 where a byte order mark or `charset` (NULL: not said)
// says so, whatever the XML declaration claims. No network, no DTD (a DOCTYPE is RP_ERR_CORRUPT), hence no entities but
// the five; within the bounds above. RP_ERR_CORRUPT with the line. Thread safe. Free with xmlFreeDoc.
xmlDoc *rp_xml_parse(const void *data, size_t size, size_t limit, const char *charset, struct rp_error *err);
RP_DEFINE_CLEANUP(xmlDoc, xmlFreeDoc)

// An element of that name (NULL namespace: any); the first such child element, or NULL.
bool rp_xml_is(const xmlNode *node, const char *name_space, const char *name);
xmlNode *rp_xml_child(const xmlNode *node, const char *name_space, const char *name);
xmlNode *rp_xml_first(const xmlNode *node);  // the first child element; NULL, of NULL too
xmlNode *rp_xml_next(const xmlNode *node);   // the next element beside it; NULL
// The text of an element (not that of its children) without surrounding blanks, malloc'ed; "" when empty. `exact` keeps
// the blanks: they belong to the value of a string. Of an attribute: NULL when absent; NULL namespace: without one.
char *rp_xml_text(const xmlNode *node);
char *rp_xml_text_exact(const xmlNode *node);
char *rp_xml_attribute(const xmlNode *node, const char *name_space, const char *name);
bool rp_xml_is_nil(const xmlNode *node); // xsi:nil="true" or "1", also with xsi bound to …/XMLSchema (OMI)

// Appends text with & < > " ' and carriage returns escaped; bytes that XML 1.0 forbids, and what is not UTF-8, become
// U+FFFD.
void rp_xml_escape(struct rp_buf *out, const char *text);
// <prefix:name>text</prefix:name>; empty text gives an empty element. NULL prefix: none.
void rp_xml_element(struct rp_buf *out, const char *prefix, const char *name, const char *text);

#endif
