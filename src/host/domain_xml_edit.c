// Disks of a domain's definition are exchanged: each <disk> by itself, as text, between which nothing changes.
#include <stdlib.h>
#include <string.h>

#include "cim/xml.h"
#include "host/domain_xml.h"
#include "host/domain_xml_impl.h"

// One element as a document of its own.
static xmlDoc *element_of(const struct rp_domain_xml *xml, const struct rp_domain_xml_disk *disk, struct rp_error *err)
{
    xmlDoc *document = rp_xml_parse(xml->text + disk->start, disk->end - disk->start, RP_DOMAIN_XML_MAX, NULL, err);
    if (!document)
        rp_context(err, "domain %s: disk %.31s", xml->uuid, disk->target);
    return document;
}

// libxml2 writes "…"; libvirt '…', and what has not changed should look so. Of a text that libxml2 has written.
static void use_apostrophes(char *text)
{
    for (char *p = text; (p = strchr(p, '<'));) {
        bool tag = p[1] != '!' && p[1] != '?';
        char *end = p;
        if (!tag) {
            end = strstr(p, p[1] == '?' ? "?>" : "-->");
            if (!end)
                return;
        }
        while (tag && *end && *end != '>') {
            if (*end != '"' && *end != '\'') {
                end++;
                continue;
            }
            char *last = strchr(end + 1, *end);
            if (!last)
                return;
            if (*end == '"' && !memchr(end, '\'', (size_t)(last - end)))
                *end = *last = '\'';
            end = last + 1;
        }
        p = end;
    }
}

// `like`: the text of the element before.
static char *as_text(xmlDoc *document, const char *like)
{
    xmlBuffer *buffer = xmlBufferCreate();
    if (!buffer || xmlNodeDump(buffer, document, xmlDocGetRootElement(document), 0, 0) < 0)
        abort();
    char *text = rp_xstrdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    if (like[strcspn(like, "'\"")] == '\'')
        use_apostrophes(text);
    return text;
}

static void set(xmlNode *node, const char *name, const char *value)
{
    if (!xmlSetProp(node, (const xmlChar *)name, (const xmlChar *)value))
        abort();
}

static xmlNode *new_element(const char *name)
{
    xmlNode *node = xmlNewNode(NULL, (const xmlChar *)name);
    return node ? node : (abort(), NULL);
}

// With the blanks before it.
static void drop(xmlNode *node)
{
    xmlNode *before = node->prev;
    if (before && before->type == XML_TEXT_NODE && xmlIsBlankNode(before)) {
        xmlUnlinkNode(before);
        xmlFreeNode(before);
    }
    xmlUnlinkNode(node);
    xmlFreeNode(node);
}

static void drop_all(xmlNode *disk, const char *name)
{
    for (xmlNode *child; (child = rp_domain_xml_child(disk, name));)
        drop(child);
}

// `node` takes the place of the first child of its name; where there is none it comes after `after`, or first.
static void put(xmlNode *disk, xmlNode *node, const char *after)
{
    xmlNode *old = rp_domain_xml_child(disk, (const char *)node->name), *place = after ? rp_domain_xml_child(disk, after) : NULL;
    xmlNode *first = disk->children;
    if (old) {
        xmlReplaceNode(old, node);
        xmlFreeNode(old);
    } else if (place) {
        xmlAddNextSibling(place, node);
    } else if (first) {
        xmlAddPrevSibling(first, node);
    } else {
        xmlAddChild(disk, node);
    }
}

// ---- to a disk service ----------------------------------------------------------------------------------------------

// What a driver may say of the guest's side of a disk; the rest is about files.
static const char *const guest_side[] = {"iothread", "queues", "queue_size", "ioeventfd", "event_idx", "iommu", "ats", "packed",
                                         "page_per_vq", "detect_zeroes", "copy_on_read"};

static xmlNode *service_driver(const xmlNode *old)
{
    xmlNode *driver = new_element("driver");
    // Errors stop the guest, which sees none and goes on when the disk service is back; what the guest gives back reaches the VHDX.
    static const char *const ours[][2] = {{"name", "qemu"}, {"type", "raw"}, {"cache", "none"}, {"error_policy", "stop"},
                                          {"rerror_policy", "stop"}, {"discard", "unmap"}};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        set(driver, ours[i][0], ours[i][1]);
    for (size_t i = 0; i < sizeof guest_side / sizeof *guest_side; i++) {
        RP_AUTO_FREE char *value = old ? rp_xml_attribute(old, NULL, guest_side[i]) : NULL;
        if (value)
            set(driver, guest_side[i], value);
    }
    return driver;
}

static xmlNode *service_source(const struct rp_domain_disk *to)
{
    xmlNode *source = new_element("source"), *host = new_element("host");
    set(source, "protocol", "nbd");
    set(source, "name", to->export_name);
    set(host, "transport", "unix");
    set(host, "socket", to->socket);
    xmlAddChild(source, host);
    return source;
}

static void attach(xmlDoc *document, const struct rp_domain_disk *to, bool iothread)
{
    xmlNode *disk = xmlDocGetRootElement(document), *driver = service_driver(rp_domain_xml_child(disk, "driver"));
    if (iothread)
        set(driver, "iothread", RP_DOMAIN_XML_IOTHREAD);
    set(disk, "type", "network");
    put(disk, driver, NULL);
    drop_all(disk, "backingStore");
    put(disk, service_source(to), "driver");
}

// The text with the elements in `replaced` (NULL: as it is) instead of its disks; frees those.
static char *splice(const struct rp_domain_xml *xml, char **replaced)
{
    struct rp_buf out = {0};
    size_t at = 0;
    for (size_t i = 0; i < xml->disk_count; i++) {
        if (!replaced[i])
            continue;
        rp_buf_append(&out, xml->text + at, xml->disks[i].start - at);
        rp_buf_append(&out, replaced[i], strlen(replaced[i]));
        at = xml->disks[i].end;
        free(replaced[i]);
    }
    rp_buf_append(&out, xml->text + at, strlen(xml->text) - at);
    rp_buf_text(&out);
    return (char *)out.data;
}

static void drop_texts(char **texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(texts[i]);
}

static int find(const struct rp_domain_xml *xml, const char *target, size_t *index, struct rp_error *err)
{
    const struct rp_domain_xml_disk *disk = rp_domain_xml_disk(xml, target);
    if (!disk)
        return rp_fail(err, RP_ERR_NOT_FOUND, "domain %s: has no disk %.31s", xml->uuid, target);
    *index = (size_t)(disk - xml->disks);
    return 0;
}

int rp_domain_xml_attach(const struct rp_domain_xml *xml, const struct rp_domain_disk *disks, size_t count, bool *iothread, char **out,
                         struct rp_error *err)
{
    RP_AUTO_FREE char **replaced = rp_xcalloc(xml->disk_count + 1, sizeof *replaced);
    bool wanted = *iothread && rp_domain_xml_takes_iothread(xml), given = false;
    int rc = 0;
    for (size_t i = 0; !rc && i < count; i++) {
        size_t index = 0;
        RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = NULL;
        if (find(xml, disks[i].target, &index, err) || !(document = element_of(xml, &xml->disks[index], err))) {
            rc = -1;
            break;
        }
        bool lacks = wanted && rp_domain_xml_lacks_iothread(&xml->disks[index]);
        given |= lacks;
        attach(document, &disks[i], lacks);
        free(replaced[index]);
        replaced[index] = as_text(document, xml->text + xml->disks[index].start);
    }
    if (rc) {
        drop_texts(replaced, xml->disk_count);
        return -1;
    }
    RP_AUTO_FREE char *text = splice(xml, replaced);
    if (given && rp_domain_xml_add_iothread(&text, err))
        return -1;
    *iothread = given;
    *out = text;
    text = NULL;
    return 0;
}

// ---- and back -------------------------------------------------------------------------------------------------------

static size_t count_of(const xmlNode *node)
{
    size_t count = 0;
    for (const xmlNode *child = rp_xml_first(node); child; child = rp_xml_next(child))
        count++;
    return count;
}

// The same elements in whatever order, with the same attributes and texts: libvirt orders them anew.
static bool same(const xmlNode *a, const xmlNode *b)
{
    enum { CHILDREN = 64 };
    size_t count = count_of(a), attributes = 0;
    RP_AUTO_FREE char *text_a = rp_xml_text(a), *text_b = rp_xml_text(b);
    if (strcmp((const char *)a->name, (const char *)b->name) || strcmp(text_a, text_b) || count != count_of(b) || count > CHILDREN)
        return false;
    for (const xmlAttr *at = a->properties; at; at = at->next, attributes++) {
        RP_AUTO_FREE char *one = rp_xml_text_exact((const xmlNode *)at), *other = rp_xml_attribute(b, NULL, (const char *)at->name);
        if (!other || strcmp(one, other))
            return false;
    }
    for (const xmlAttr *at = b->properties; at; at = at->next)
        attributes--;
    if (attributes)
        return false;
    bool taken[CHILDREN] = {false};
    for (const xmlNode *child = rp_xml_first(a); child; child = rp_xml_next(child)) {
        size_t i = 0;
        const xmlNode *other = rp_xml_first(b);
        while (other && (taken[i] || !same(child, other))) {
            other = rp_xml_next(other);
            i++;
        }
        if (!other)
            return false;
        taken[i] = true;
    }
    return true;
}

static bool is_unchanged(xmlDoc *now, const struct rp_domain_xml *before, const struct rp_domain_xml_disk *was,
                         const struct rp_domain_disk *attached, bool iothread)
{
    enum { MOST = 16 << 10 }; // nobody writes more of one disk, and a comparison takes the square of it at worst
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = was->end - was->start > MOST ? NULL : element_of(before, was, NULL);
    if (!document)
        return false;
    attach(document, attached, iothread && rp_domain_xml_lacks_iothread(was));
    return same(xmlDocGetRootElement(document), xmlDocGetRootElement(now));
}

// The disk's place is a file again; what else `was` said about files comes back, where there was such a disk.
// Its iothread goes where `iothread` says that it is ours.
static void detach(xmlDoc *now, xmlDoc *was, const struct rp_domain_xml_image *image, const char *path, bool same_image, bool iothread)
{
    xmlNode *disk = xmlDocGetRootElement(now), *old = was ? xmlDocGetRootElement(was) : NULL;
    xmlNode *driver = rp_domain_xml_child(old, "driver"), *backing = rp_domain_xml_child(old, "backingStore");
    const xmlNode *of_now = rp_domain_xml_child(disk, "driver");
    driver = driver ? xmlDocCopyNode(driver, now, 1) : new_element("driver");
    for (size_t i = 0; i < sizeof guest_side / sizeof *guest_side; i++) { // what was changed meanwhile
        RP_AUTO_FREE char *value = of_now ? rp_xml_attribute(of_now, NULL, guest_side[i]) : NULL;
        if (value)
            set(driver, guest_side[i], value);
    }
    if (iothread)
        xmlUnsetProp(driver, (const xmlChar *)"iothread");
    set(driver, "name", "qemu");
    set(driver, "type", rp_domain_xml_format(image->format));
    if (!same_image)
        xmlUnsetProp(driver, (const xmlChar *)"discard_no_unref"); // of qcow2
    set(disk, "type", "file");
    put(disk, driver, NULL);
    const xmlNode *old_source = rp_domain_xml_child(old, "source");
    xmlNode *source = old_source ? xmlDocCopyNode((xmlNode *)old_source, now, 1) : new_element("source");
    set(source, "file", path);
    put(disk, source, "driver");
    drop_all(disk, "backingStore");
    if (backing && same_image && (image->untouched || !count_of(backing))) // else it stands alone now, as an empty one says
        put(disk, xmlDocCopyNode(backing, now, 1), "source");
}

// The definition may name it through a link.
static bool is_path_of(const char *said, const char *path)
{
    RP_AUTO_FREE char *real = strcmp(said, path) ? realpath(said, NULL) : rp_xstrdup(path);
    return real && !strcmp(real, path);
}

static char *give_back(const struct rp_domain_xml *now, const struct rp_domain_xml_disk *disk, const struct rp_domain_xml *before,
                       const struct rp_domain_xml_image *image, bool iothread, struct rp_error *err)
{
    const struct rp_domain_xml_disk *was = before ? rp_domain_xml_disk(before, image->attached.target) : NULL;
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = element_of(now, disk, err), *old = NULL;
    if (!document || (was && !(old = element_of(before, was, err))))
        return NULL;
    const char *format = was && *was->format ? was->format : "raw";
    bool same_image = was && !strcmp(format, image->format) && (image->untouched || !was->backing_count) && is_path_of(was->path, image->path);
    if (same_image && is_unchanged(document, before, was, &image->attached, iothread))
        return strndup(before->text + was->start, was->end - was->start);
    detach(document, old, image, same_image ? was->path : image->path, same_image, iothread);
    return as_text(document, now->text + disk->start);
}

int rp_domain_xml_detach(const struct rp_domain_xml *now, const struct rp_domain_xml *before, const struct rp_domain_xml_image *images,
                         size_t count, bool iothread, char **out, struct rp_error *err)
{
    RP_AUTO_FREE char **replaced = rp_xcalloc(now->disk_count + 1, sizeof *replaced);
    bool ours = iothread && rp_domain_xml_iothread_is_ours(now), detached = false;
    int rc = 0;
    for (size_t i = 0; !rc && i < count; i++) {
        size_t index = 0;
        if (find(now, images[i].attached.target, &index, NULL))
            continue; // the domain has lost it meanwhile
        if (!rp_domain_xml_is_attached(&now->disks[index], &images[i].attached))
            continue; // or has it somewhere else
        free(replaced[index]);
        replaced[index] = give_back(now, &now->disks[index], before, &images[i], ours, err);
        rc = replaced[index] ? 0 : -1;
        detached = true;
    }
    if (rc) {
        drop_texts(replaced, now->disk_count);
        return -1;
    }
    RP_AUTO_FREE char *text = splice(now, replaced);
    if (ours && detached && rp_domain_xml_drop_iothread(&text, err))
        return -1;
    *out = text;
    text = NULL;
    return 0;
}
