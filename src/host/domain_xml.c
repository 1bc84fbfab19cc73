#include "host/domain_xml.h"

#include <stdlib.h>
#include <string.h>

#include "cim/xml.h"
#include "host/domain_xml_impl.h"

bool rp_domain_xml_element_is(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && !node->ns && !strcmp((const char *)node->name, name);
}

xmlNode *rp_domain_xml_child(const xmlNode *node, const char *name)
{
    xmlNode *child = rp_xml_first(node);
    while (child && !rp_domain_xml_element_is(child, name))
        child = rp_xml_next(child);
    return child;
}

// Never NULL.
static char *attribute(const xmlNode *node, const char *name)
{
    char *text = node ? rp_xml_attribute(node, NULL, name) : NULL;
    return text ? text : rp_xstrdup("");
}

static bool attribute_says(const xmlNode *node, const char *name, const char *value)
{
    RP_AUTO_FREE char *text = attribute(node, name);
    return !strcmp(text, value);
}

static char *text_of(const xmlNode *parent, const char *name)
{
    return rp_xml_text(rp_domain_xml_child(parent, name));
}

// ---- disks ----------------------------------------------------------------------------------------------------------

static bool has_below(const xmlNode *node, const char *name)
{
    for (const xmlNode *child = rp_xml_first(node); child; child = rp_xml_next(child))
        if (rp_domain_xml_element_is(child, name) || has_below(child, name)) // as deep as rp_xml_parse allows
            return true;
    return false;
}

// What libvirt calls "vhd" is QEMU's vhdx (its "vpc" is the older one); everybody else goes by QEMU's names.
static const char libvirts_vhdx[] = "vhd", qemus_vhdx[] = "vhdx";

static char *format_of(const xmlNode *node)
{
    char *format = attribute(node, "type");
    if (strcmp(format, libvirts_vhdx))
        return format;
    free(format);
    return rp_xstrdup(qemus_vhdx);
}

const char *rp_domain_xml_format(const char *format)
{
    return strcmp(format, qemus_vhdx) ? format : libvirts_vhdx;
}

// Where the source has its data; malloc'ed, "": it does not say.
static char *path_of(const xmlNode *source)
{
    static const char *const names[] = {"file", "dev", "dir", "volume", "name", "path"};
    char *path = rp_xstrdup("");
    for (size_t i = 0; source && i < sizeof names / sizeof *names && !*path; i++) {
        free(path);
        path = attribute(source, names[i]);
    }
    return path;
}

// As libvirt: one without a type is the end.
static void read_backing(const xmlNode *disk, struct rp_domain_xml_disk *to)
{
    for (const xmlNode *node = disk; (node = rp_domain_xml_child(node, "backingStore"));) {
        RP_AUTO_FREE char *type = attribute(node, "type");
        to->backing_ends = !*type;
        if (!*type)
            break;
        to->backing = rp_xrealloc(to->backing, (to->backing_count + 1) * sizeof *to->backing);
        to->backing[to->backing_count++] = (struct rp_domain_xml_backing){
            .path = path_of(rp_domain_xml_child(node, "source")), .format = format_of(rp_domain_xml_child(node, "format"))};
    }
}

static void read_source(const xmlNode *source, struct rp_domain_xml_disk *disk)
{
    const xmlNode *host = rp_domain_xml_child(source, "host");
    if (!strcmp(disk->type, "network") && attribute_says(source, "protocol", "nbd") && attribute_says(host, "transport", "unix")) {
        free(disk->nbd_socket);
        free(disk->nbd_export);
        disk->nbd_socket = attribute(host, "socket");
        disk->nbd_export = attribute(source, "name");
    }
}

static void read_disk(const xmlNode *node, struct rp_domain_xml_disk *disk)
{
    const xmlNode *driver = rp_domain_xml_child(node, "driver"), *target = rp_domain_xml_child(node, "target");
    const xmlNode *source = rp_domain_xml_child(node, "source");
    *disk = (struct rp_domain_xml_disk){
        .type = attribute(node, "type"),
        .device = attribute(node, "device"),
        .format = format_of(driver),
        .path = path_of(source),
        .target = attribute(target, "dev"),
        .bus = attribute(target, "bus"),
        .address = attribute(rp_domain_xml_child(node, "address"), "type"),
        .iothread = attribute(driver, "iothread"),
        .ioeventfd = attribute(driver, "ioeventfd"),
        .readonly = rp_domain_xml_child(node, "readonly") != NULL,
        .shareable = rp_domain_xml_child(node, "shareable") != NULL,
        .transient = rp_domain_xml_child(node, "transient") != NULL,
        .encrypted = has_below(node, "encryption"),
        .mirrored = rp_domain_xml_child(node, "mirror") != NULL,
        .partial = has_below(node, "slices"),
        .nbd_socket = rp_xstrdup(""),
        .nbd_export = rp_xstrdup(""),
    };
    if (!*disk->device) { // libvirt's default
        free(disk->device);
        disk->device = rp_xstrdup("disk");
    }
    read_source(source, disk);
    read_backing(node, disk);
}

static void clear_disk(struct rp_domain_xml_disk *disk)
{
    char *texts[] = {disk->type, disk->device, disk->format, disk->path, disk->target, disk->bus, disk->address, disk->iothread,
                     disk->ioeventfd, disk->nbd_socket, disk->nbd_export};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    for (size_t i = 0; i < disk->backing_count; i++) {
        free(disk->backing[i].path);
        free(disk->backing[i].format);
    }
    free(disk->backing);
}

static bool named(const char *tag, const char *name)
{
    return strcspn(tag, " \t\r\n/>") == strlen(name) && !strncmp(tag, name, strlen(name));
}

// Of /domain/uuid and /domain/iothreads, the first each.
static void note_place(struct rp_domain_xml *xml, const char *tag, const char *end, bool first, bool last)
{
    size_t start = (size_t)(tag - xml->text), after = (size_t)(end + 1 - xml->text);
    const char *name = first ? tag + 1 : tag + 2;
    if (last && !xml->uuid_end && named(name, "uuid"))
        xml->uuid_end = after;
    if (first && !xml->iothreads_start && named(name, "iothreads"))
        xml->iothreads_start = start;
    if (last && !xml->iothreads_end && named(name, "iothreads"))
        xml->iothreads_end = after;
}

// Where the elements <disk> of /domain/devices are, and what attach changes besides, in a text that is known to be well formed.
static bool find_places(struct rp_domain_xml *xml)
{
    const char *p = xml->text, *tag, *end = xml->text + strlen(xml->text);
    size_t found = 0;
    unsigned depth = 0;
    bool devices = false;
    for (; (p = strchr(p, '<')); p++) {
        static const struct { const char *open, *close; } skipped[] = {{"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"}};
        const char *after = NULL;
        for (size_t i = 0; i < 3 && !after; i++)
            if (!strncmp(p, skipped[i].open, strlen(skipped[i].open))) {
                after = strstr(p + strlen(skipped[i].open), skipped[i].close);
                if (!after)
                    return false;
            }
        if (after) {
            p = after;
            continue;
        }
        tag = p;
        bool closing = p[1] == '/';
        for (p++; p < end && *p != '>'; p++)
            if (*p == '"' || *p == '\'') {
                p = strchr(p + 1, *p);
                if (!p)
                    return false;
            }
        if (p >= end || (closing && !depth))
            return false;
        bool empty = p[-1] == '/';
        if (!closing) {
            if (depth == 1) {
                devices = named(tag + 1, "devices");
                note_place(xml, tag, p, true, empty);
            }
            if (depth == 2 && devices && named(tag + 1, "disk")) {
                if (found == xml->disk_count)
                    return false;
                xml->disks[found].start = (size_t)(tag - xml->text);
                xml->disks[found].end = (size_t)(p + 1 - xml->text);
                found++;
            }
            depth += !empty;
            continue;
        }
        if (--depth == 1)
            note_place(xml, tag, p, false, true);
        if (depth == 2 && devices && named(tag + 2, "disk")) {
            if (!found)
                return false;
            xml->disks[found - 1].end = (size_t)(p + 1 - xml->text);
        }
    }
    return found == xml->disk_count && !depth && xml->uuid_end;
}

// ---- the rest -------------------------------------------------------------------------------------------------------

static struct rp_domain_xml_amount amount_of(const xmlNode *parent, const char *name)
{
    const xmlNode *node = rp_domain_xml_child(parent, name);
    return (struct rp_domain_xml_amount){.text = rp_xml_text(node), .unit = attribute(node, "unit")};
}

static bool has_secure_boot(const xmlNode *os)
{
    const xmlNode *firmware = rp_domain_xml_child(os, "firmware");
    bool secure = attribute_says(rp_domain_xml_child(os, "loader"), "secure", "yes");
    for (const xmlNode *one = rp_xml_first(firmware); one; one = rp_xml_next(one))
        secure |= rp_domain_xml_element_is(one, "feature") && attribute_says(one, "name", "secure-boot") &&
                  attribute_says(one, "enabled", "yes");
    return secure;
}

static void read_boot(const xmlNode *domain, struct rp_domain_xml *xml)
{
    const xmlNode *os = rp_domain_xml_child(domain, "os"), *nvram = rp_domain_xml_child(os, "nvram");
    xml->machine = attribute(rp_domain_xml_child(os, "type"), "machine");
    xml->efi = attribute_says(os, "firmware", "efi") || attribute_says(rp_domain_xml_child(os, "loader"), "type", "pflash");
    xml->secure_boot = xml->efi && has_secure_boot(os);
    xml->nvram = rp_xml_text(nvram);
    if (!*xml->nvram) { // as newer libvirt writes it
        free(xml->nvram);
        xml->nvram = attribute(rp_domain_xml_child(nvram, "source"), "file");
    }
    xml->kernel = text_of(os, "kernel");
    xml->initrd = text_of(os, "initrd");
    xml->command_line = text_of(os, "cmdline");
}

static void read_processors(const xmlNode *domain, struct rp_domain_xml *xml)
{
    xml->vcpus = text_of(domain, "vcpu");
    xml->current_vcpus = attribute(rp_domain_xml_child(domain, "vcpu"), "current");
    xml->cpu_mode = attribute(rp_domain_xml_child(domain, "cpu"), "mode");
}

static int read_device(const xmlNode *node, struct rp_domain_xml *xml, struct rp_error *err)
{
    if (xml->disk_count == RP_DOMAIN_XML_DEVICES || xml->interface_count == RP_DOMAIN_XML_DEVICES ||
        xml->hostdev_count == RP_DOMAIN_XML_DEVICES || xml->other_count == RP_DOMAIN_XML_DEVICES)
        return rp_fail(err, RP_ERR_CORRUPT, "domain %s: more than %d devices", xml->uuid, RP_DOMAIN_XML_DEVICES);
    if (rp_domain_xml_element_is(node, "disk")) {
        xml->disks = rp_xrealloc(xml->disks, (xml->disk_count + 1) * sizeof *xml->disks);
        read_disk(node, &xml->disks[xml->disk_count++]);
    } else if (rp_domain_xml_element_is(node, "interface")) {
        xml->interfaces = rp_xrealloc(xml->interfaces, (xml->interface_count + 1) * sizeof *xml->interfaces);
        xml->interfaces[xml->interface_count++] = (struct rp_domain_xml_interface){
            .mac = attribute(rp_domain_xml_child(node, "mac"), "address"), .model = attribute(rp_domain_xml_child(node, "model"), "type")};
    } else if (rp_domain_xml_element_is(node, "hostdev")) {
        xml->hostdevs = rp_xrealloc(xml->hostdevs, (xml->hostdev_count + 1) * sizeof *xml->hostdevs);
        xml->hostdevs[xml->hostdev_count++] = (struct rp_domain_xml_hostdev){.type = attribute(node, "type")};
    } else if (rp_domain_xml_element_is(node, "tpm")) {
        if (*xml->tpm_backend)
            return 0;
        free(xml->tpm_backend);
        xml->tpm_backend = attribute(rp_domain_xml_child(node, "backend"), "type");
    } else if (!node->ns) {
        xml->others = rp_xrealloc(xml->others, (xml->other_count + 1) * sizeof *xml->others);
        xml->others[xml->other_count++] = rp_xstrdup((const char *)node->name);
    }
    return 0;
}

static int read_domain(const xmlNode *domain, struct rp_domain_xml *xml, struct rp_error *err)
{
    RP_AUTO_FREE char *uuid = text_of(domain, "uuid");
    struct rp_guid guid;
    if (!domain || !rp_domain_xml_element_is(domain, "domain"))
        return rp_fail(err, RP_ERR_CORRUPT, "not the definition of a libvirt domain");
    if (rp_guid_parse(uuid, &guid, NULL))
        return rp_fail(err, RP_ERR_CORRUPT, "the definition of a domain without a UUID");
    rp_guid_format(&guid, xml->uuid);
    xml->name = text_of(domain, "name");
    xml->memory = amount_of(domain, "memory");
    xml->current_memory = amount_of(domain, "currentMemory");
    xml->tpm_backend = rp_xstrdup("");
    read_boot(domain, xml);
    read_processors(domain, xml);
    for (const xmlNode *part = rp_xml_first(domain); part; part = rp_xml_next(part))
        for (const xmlNode *device = rp_domain_xml_element_is(part, "devices") ? rp_xml_first(part) : NULL; device;
             device = rp_xml_next(device))
            if (read_device(device, xml, err))
                return -1;
    if (!find_places(xml))
        return rp_fail(err, RP_ERR_CORRUPT, "domain %s: its disks are written in a way that cannot be changed", xml->uuid);
    for (size_t i = 0; i < xml->disk_count; i++)
        if (*xml->disks[i].target && rp_domain_xml_disk(xml, xml->disks[i].target) != &xml->disks[i])
            return rp_fail(err, RP_ERR_CORRUPT, "domain %s: has two disks %.31s", xml->uuid, xml->disks[i].target);
    return 0;
}

int rp_domain_xml_parse(const char *text, struct rp_domain_xml *xml, struct rp_error *err)
{
    *xml = (struct rp_domain_xml){0};
    // Positions in the text are those of the parser only in plain UTF-8.
    if (!strncmp(text, "\xEF\xBB\xBF", 3) || !strncmp(text, "\xFF\xFE", 2) || !strncmp(text, "\xFE\xFF", 2))
        return rp_fail(err, RP_ERR_CORRUPT, "the definition of a domain begins with a byte order mark");
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = rp_xml_parse(text, strlen(text), RP_DOMAIN_XML_MAX, NULL, err);
    if (!document)
        return rp_context(err, "the definition of a domain");
    xml->text = rp_xstrdup(text);
    if (!read_domain(xmlDocGetRootElement(document), xml, err))
        return 0;
    rp_domain_xml_clear(xml);
    return -1;
}

void rp_domain_xml_clear(struct rp_domain_xml *xml)
{
    char *texts[] = {xml->text, xml->name, xml->machine, xml->nvram, xml->kernel, xml->initrd, xml->command_line, xml->memory.text,
                     xml->memory.unit, xml->current_memory.text, xml->current_memory.unit, xml->vcpus, xml->current_vcpus, xml->cpu_mode,
                     xml->tpm_backend};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    for (size_t i = 0; i < xml->disk_count; i++)
        clear_disk(&xml->disks[i]);
    for (size_t i = 0; i < xml->interface_count; i++) {
        free(xml->interfaces[i].mac);
        free(xml->interfaces[i].model);
    }
    for (size_t i = 0; i < xml->hostdev_count; i++)
        free(xml->hostdevs[i].type);
    for (size_t i = 0; i < xml->other_count; i++)
        free(xml->others[i]);
    free(xml->disks);
    free(xml->interfaces);
    free(xml->hostdevs);
    free(xml->others);
    *xml = (struct rp_domain_xml){0};
}

const struct rp_domain_xml_disk *rp_domain_xml_disk(const struct rp_domain_xml *xml, const char *target)
{
    for (size_t i = 0; i < xml->disk_count; i++)
        if (!strcmp(xml->disks[i].target, target))
            return &xml->disks[i];
    return NULL;
}

bool rp_domain_xml_is_attached(const struct rp_domain_xml_disk *disk, const struct rp_domain_disk *to)
{
    return !strcmp(disk->target, to->target) && !strcmp(disk->nbd_socket, to->socket) && !strcmp(disk->nbd_export, to->export_name);
}

bool rp_domain_xml_names(const struct rp_domain_xml *xml, const char *socket)
{
    for (size_t i = 0; i < xml->disk_count; i++)
        if (!strcmp(xml->disks[i].nbd_socket, socket))
            return true;
    return false;
}
