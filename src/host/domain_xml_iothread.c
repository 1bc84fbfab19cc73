// The iothread that the disks of an adopted domain get: QEMU copies what goes over NBD in the thread that serves the disk, and
// without an iothread that is the one that the guest's processors wait for.
#include <stdlib.h>
#include <string.h>

#include "cim/xml.h"
#include "host/domain_xml.h"
#include "host/domain_xml_impl.h"

static const char element[] = "<iothreads>1</iothreads>";

// As libvirt allows: virtio-blk on PCI or CCW; and QEMU, which needs the ioeventfd for it.
bool rp_domain_xml_lacks_iothread(const struct rp_domain_xml_disk *disk)
{
    const char *address = disk->address;
    return !strcmp(disk->bus, "virtio") && !*disk->iothread && strcmp(disk->ioeventfd, "off") &&
           (!*address || !strcmp(address, "pci") || !strcmp(address, "ccw"));
}

// Words of its own to QEMU's command line may say anything.
bool rp_domain_xml_takes_iothread(const struct rp_domain_xml *xml)
{
    return !strstr(xml->text, "iothread") && !strstr(xml->text, "/schemas/domain/qemu/");
}

bool rp_domain_xml_iothread_is_ours(const struct rp_domain_xml *xml)
{
    return xml->iothreads_end - xml->iothreads_start == sizeof element - 1 &&
           !strncmp(xml->text + xml->iothreads_start, element, sizeof element - 1);
}

// Takes the place of *text: what is before `start`, `between`, what is from `end` on.
static void change(char **text, size_t start, const char *between, size_t end)
{
    char *changed = rp_xasprintf("%.*s%s%s", (int)start, *text, between, *text + end);
    free(*text);
    *text = changed;
}

int rp_domain_xml_add_iothread(char **text, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    if (rp_domain_xml_parse(*text, &xml, err))
        return -1;
    RP_AUTO_FREE char *line = rp_xasprintf("\n  %s", element);
    change(text, xml.uuid_end, line, xml.uuid_end);
    return 0;
}

// Whether any device has an iothread, or a setting is about one.
static bool is_used(const xmlNode *node)
{
    RP_AUTO_FREE char *number = rp_xml_attribute(node, NULL, "iothread");
    const char *name = (const char *)node->name;
    if (number || (strstr(name, "iothread") && strcmp(name, "iothreads")))
        return true;
    for (const xmlNode *child = rp_xml_first(node); child; child = rp_xml_next(child))
        if (is_used(child)) // as deep as rp_xml_parse allows
            return true;
    return false;
}

int rp_domain_xml_drop_iothread(char **text, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = rp_xml_parse(*text, strlen(*text), RP_DOMAIN_XML_MAX, NULL, err);
    if (!document || rp_domain_xml_parse(*text, &xml, err))
        return -1;
    size_t start = xml.iothreads_start;
    while (start && strchr(" \t\r\n", xml.text[start - 1]))
        start--;
    if (!is_used(xmlDocGetRootElement(document)))
        change(text, start, "", xml.iothreads_end);
    return 0;
}
