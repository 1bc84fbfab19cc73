// What the files domain_xml*.c share.
#ifndef RP_HOST_DOMAIN_XML_IMPL_H
#define RP_HOST_DOMAIN_XML_IMPL_H

#include <libxml/tree.h>
#include <stdbool.h>

#include "host/domain_xml.h"

bool rp_domain_xml_element_is(const xmlNode *node, const char *name); // libvirt's elements are in no namespace
xmlNode *rp_domain_xml_child(const xmlNode *node, const char *name);  // the first of that name; NULL, of NULL too

const char *rp_domain_xml_format(const char *format); // as libvirt calls what QEMU calls so

// ---- domain_xml_iothread.c -------------------------------------------------------------------------------------------

#define RP_DOMAIN_XML_IOTHREAD "1" // the number of ours

bool rp_domain_xml_lacks_iothread(const struct rp_domain_xml_disk *disk); // and could have one
bool rp_domain_xml_takes_iothread(const struct rp_domain_xml *xml);       // nobody has decided anything about iothreads
bool rp_domain_xml_iothread_is_ours(const struct rp_domain_xml *xml);     // of one that was given one: it still has that alone
// *text: a definition, exchanged. drop: one that has ours, which stays when it is used.
int rp_domain_xml_add_iothread(char **text, struct rp_error *err);
int rp_domain_xml_drop_iothread(char **text, struct rp_error *err);

#endif
