// What the definition of a running domain says about one of its disks.
#include "libvirt/libvirt_impl.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static xmlNode *child(const xmlNode *parent, const char *name)
{
    xmlNode *node = parent ? parent->children : NULL;
    while (node && (node->type != XML_ELEMENT_NODE || strcmp((const char *)node->name, name)))
        node = node->next;
    return node;
}

// Whether the attribute is there and fits.
static bool attribute(xmlNode *node, const char *name, char *text, size_t size)
{
    xmlChar *value = node ? xmlGetNoNsProp(node, (const xmlChar *)name) : NULL;
    bool fits = value && (size_t)snprintf(text, size, "%s", (const char *)value) < size;
    if (!fits)
        *text = 0;
    xmlFree(value);
    return fits;
}

static xmlNode *find_disk(xmlNode *root, const char *target)
{
    char text[64];
    const xmlNode *devices = child(root, "devices");
    for (xmlNode *node = devices ? devices->children : NULL; node; node = node->next)
        if (node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, "disk") &&
            attribute(child(node, "target"), "dev", text, sizeof text) && !strcmp(text, target))
            return node;
    return NULL;
}

static int read_facts(xmlNode *disk, const char *target, struct rp_disk_facts *facts, struct rp_error *err)
{
    char protocol[16];
    if (!disk)
        return rp_fail(err, RP_ERR_NOT_FOUND, "it has no disk %s", target);
    if (!attribute(child(disk, "source"), "protocol", protocol, sizeof protocol) || strcmp(protocol, "nbd"))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "its disk %s is not served over NBD", target);
    if (!attribute(child(disk, "alias"), "name", facts->alias, sizeof facts->alias) || !*facts->alias)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "its disk %s has no alias", target);
    attribute(child(disk, "driver"), "discard", facts->discard, sizeof facts->discard);
    return 0;
}

static xmlDoc *parse(const char *xml, struct rp_error *err)
{
    size_t size = strlen(xml);
    // Without XML_PARSE_HUGE: libxml2 bounds the depth. Entities are not replaced, nothing is loaded.
    int options = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING;
    xmlDoc *doc = size > RP_LIBVIRT_MAX_XML ? NULL : xmlReadMemory(xml, (int)size, NULL, NULL, options);
    if (!doc)
        rp_fail(err, RP_ERR_CORRUPT, "its definition is no XML that can be read");
    return doc;
}

void rp_xml_uuid(const char *xml, char uuid[RP_GUID_TEXT])
{
    struct rp_guid guid;
    xmlDoc *doc = parse(xml, NULL);
    const xmlNode *node = doc ? child(xmlDocGetRootElement(doc), "uuid") : NULL;
    xmlChar *text = node ? xmlNodeGetContent(node) : NULL;
    *uuid = 0;
    if (text && !rp_guid_parse((const char *)text, &guid, NULL))
        rp_guid_format(&guid, uuid);
    xmlFree(text);
    xmlFreeDoc(doc);
}

int rp_xml_disk(const char *xml, const char *target, struct rp_disk_facts *facts, struct rp_error *err)
{
    xmlDoc *doc = parse(xml, err);
    if (!doc)
        return -1;
    int failed = read_facts(find_disk(xmlDocGetRootElement(doc), target), target, facts, err);
    xmlFreeDoc(doc);
    return failed;
}

// Whether the disk is the export of a unix socket; it, then, with a path of its own.
static bool is_served(const xmlNode *disk, struct rp_domain_disk *served)
{
    char protocol[16], transport[16], socket[256];
    xmlNode *source = child(disk, "source"), *host = child(source, "host");
    if (!attribute(source, "protocol", protocol, sizeof protocol) || strcmp(protocol, "nbd") ||
        !attribute(host, "transport", transport, sizeof transport) || strcmp(transport, "unix") ||
        !attribute(host, "socket", socket, sizeof socket) ||
        !attribute(source, "name", served->export_name, sizeof served->export_name) ||
        !attribute(child(disk, "target"), "dev", served->target, sizeof served->target))
        return false;
    served->socket = rp_xstrdup(socket);
    return true;
}

int rp_xml_disks(const char *xml, struct rp_domain_disk **disks, size_t *count, struct rp_error *err)
{
    xmlDoc *doc = parse(xml, err);
    if (!doc)
        return -1;
    struct rp_domain_disk *found = rp_xcalloc(RP_LIBVIRT_MAX_DISKS, sizeof *found);
    const xmlNode *devices = child(xmlDocGetRootElement(doc), "devices");
    *count = 0;
    for (const xmlNode *node = devices ? devices->children : NULL; node && *count < RP_LIBVIRT_MAX_DISKS; node = node->next)
        if (node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, "disk") && is_served(node, &found[*count]))
            ++*count;
    xmlFreeDoc(doc);
    *disks = found;
    return 0;
}

void rp_xml_disks_free(struct rp_domain_disk *disks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(disks[i].socket);
    free(disks);
}
