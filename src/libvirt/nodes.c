// QEMU's connections to the disk service.
//
// libvirt 9.0 makes a disk of two block nodes, libvirt-N-format (raw; the device hangs on it) above libvirt-N-storage (the NBD
// client), and cannot give the client a reconnect-delay. Without one, a client whose service has gone never connects again.
// So the client is exchanged: a new one is added, the raw node is opened again above it, and the old one is deleted. That is
// done twice, because in the end the client must have libvirt's name again: libvirt finds nodes by it, for statistics and when
// the disk is removed.
//
//     libvirt-N-format ─ libvirt-N-storage   →   libvirt-N-format ─ rp-N-storage   →   libvirt-N-format ─ libvirt-N-storage
//
// QEMU flushes a node before it opens it again, and a client that has given up cannot be flushed. (One with a reconnect-delay
// that has passed tries again every 16 seconds only, and fails everything until then.) Then both nodes are made anew and the
// device is hung on them by its property "drive", which also goes twice. The guest loses nothing: what it has not been
// told to be written is still in the device's hands, and what it has is with the disk service.
//
// Whoever is interrupted in between leaves a disk that works, and the next reconnect goes on from there.
#include "libvirt/libvirt_impl.h"

#include <libvirt/libvirt-qemu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- finding a disk's nodes ----

struct stack {
    char format[64]; // the raw node
    char client[64];
};

struct disk_nodes {
    char alias[64];
    char discard[16];
    struct stack libvirts;
    char passing[64];    // a client below libvirt's raw node, meanwhile
    struct stack between; // on which the device hangs, meanwhile
    bool at_between, has_libvirts_client, has_passing;
    bool read_only, direct, no_flush;
    char detect_zeroes[16];
};

// "/machine/peripheral/virtio-disk0/virtio-backend" is of the alias "virtio-disk0".
static bool is_device(const char *path, const char *alias)
{
    size_t length = strlen(alias);
    for (const char *p = path; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (!strncmp(p, alias, length) && (!p[length] || p[length] == '/'))
            return true;
    }
    return false;
}

// The node that a device hangs on: query-block's "inserted".
static const json_t *find_inserted(const json_t *blocks, const char *alias)
{
    size_t i;
    const json_t *block;
    json_array_foreach(blocks, i, block)
    {
        const char *path = json_string_value(json_object_get(block, "qdev"));
        if (path && is_device(path, alias))
            return json_object_get(block, "inserted");
    }
    return NULL;
}

// The number in "PREFIX-N-format"; 0: it is no such name.
static unsigned number_of(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, length) || name[length] < '1' || name[length] > '9')
        return 0;
    unsigned long number = strtoul(name + length, &end, 10);
    return number <= 999999 && !strcmp(end, "-format") ? (unsigned)number : 0;
}

static int find_nodes(virDomainPtr domain, const struct rp_disk_facts *facts, struct disk_nodes *found, struct rp_error *err)
{
    RP_CLEANUP(rp_json_p) json_t *blocks = rp_monitor(domain, "query-block", NULL, err);
    RP_CLEANUP(rp_json_p) json_t *nodes = blocks ? rp_monitor(domain, "query-named-block-nodes", NULL, err) : NULL;
    if (!nodes)
        return -1;
    const json_t *inserted = find_inserted(blocks, facts->alias);
    const json_t *cache = json_object_get(inserted, "cache");
    const char *name = json_string_value(json_object_get(inserted, "node-name"));
    const char *driver = json_string_value(json_object_get(inserted, "drv"));
    const char *zeroes = json_string_value(json_object_get(inserted, "detect_zeroes"));
    if (!name || !driver || !zeroes || strlen(zeroes) >= sizeof found->detect_zeroes)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "QEMU does not tell what the device %s hangs on", facts->alias);
    unsigned ours = number_of(name, "rp-"), number = ours ? ours : number_of(name, "libvirt-");
    if (!number || strcmp(driver, "raw"))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "the device %s hangs on the node %.64s (%.16s), which is not what libvirt 9 makes of "
                       "a raw disk", facts->alias, name, driver);
    found->at_between = ours != 0;
    snprintf(found->alias, sizeof found->alias, "%s", facts->alias);
    snprintf(found->discard, sizeof found->discard, "%s", facts->discard);
    snprintf(found->libvirts.format, sizeof found->libvirts.format, "libvirt-%u-format", number);
    snprintf(found->libvirts.client, sizeof found->libvirts.client, "libvirt-%u-storage", number);
    snprintf(found->between.format, sizeof found->between.format, "rp-%u-format", number);
    snprintf(found->between.client, sizeof found->between.client, "rp-%u-client", number);
    snprintf(found->passing, sizeof found->passing, "rp-%u-storage", number);
    snprintf(found->detect_zeroes, sizeof found->detect_zeroes, "%s", zeroes);
    found->read_only = json_is_true(json_object_get(inserted, "ro"));
    found->direct = json_is_true(json_object_get(cache, "direct"));
    found->no_flush = json_is_true(json_object_get(cache, "no-flush"));
    found->has_libvirts_client = rp_monitor_has_node(nodes, found->libvirts.client);
    found->has_passing = rp_monitor_has_node(nodes, found->passing);
    return 0;
}

// ---- exchanging them ----

static int add_client(virDomainPtr domain, const struct disk_nodes *nodes, const char *name, const struct rp_domain_disk *disk,
                      unsigned patience_s, struct rp_error *err)
{
    // As libvirt does it, but for the last.
    json_t *arguments = json_pack("{s:s, s:s, s:{s:s, s:s}, s:s, s:b, s:b, s:s, s:{s:b, s:b}, s:I}", "driver", "nbd", "node-name",
                                  name, "server", "type", "unix", "path", disk->socket, "export", disk->export_name,
                                  "auto-read-only", 1, "read-only", nodes->read_only, "discard", "unmap", "cache", "direct",
                                  nodes->direct, "no-flush", nodes->no_flush, "reconnect-delay", (json_int_t)patience_s);
    if (!arguments)
        return rp_fail(err, RP_ERR_INVALID, "the path of its socket is no UTF-8: %s", disk->socket);
    return rp_monitor_command(domain, "blockdev-add", arguments, err);
}

// The options of a raw node, as the disk has it.
static json_t *raw_node(const struct disk_nodes *nodes, const char *name, const char *client)
{
    json_t *options = json_pack("{s:s, s:s, s:b, s:s, s:{s:b, s:b}, s:s}", "driver", "raw", "node-name", name, "read-only",
                                nodes->read_only, "detect-zeroes", nodes->detect_zeroes, "cache", "direct", nodes->direct,
                                "no-flush", nodes->no_flush, "file", client);
    if (*nodes->discard)
        json_object_set_new(options, "discard", json_string(nodes->discard));
    return options;
}

static int delete(virDomainPtr domain, const char *name, struct rp_error *err)
{
    return rp_monitor_command(domain, "blockdev-del", json_pack("{s:s}", "node-name", name), err);
}

// What of it is there and not in use.
static void delete_stack(virDomainPtr domain, const struct disk_nodes *nodes, const struct stack *stack)
{
    delete(domain, stack->format, NULL);
    delete(domain, stack->client, NULL);
    delete(domain, nodes->passing, NULL);
}

// ---- with a client that lives ----

static int put_above(virDomainPtr domain, const struct disk_nodes *nodes, const char *client, struct rp_error *err)
{
    json_t *options = raw_node(nodes, nodes->libvirts.format, client);
    return rp_monitor_command(domain, "blockdev-reopen", json_pack("{s:[o]}", "options", options), err);
}

// *dead: it is the old client that fails, and the new one could be had.
static int exchange_client(virDomainPtr domain, struct disk_nodes *nodes, const struct rp_domain_disk *disk, unsigned patience_s,
                           bool *dead, struct rp_error *err)
{
    const char *passing = nodes->passing, *libvirts = nodes->libvirts.client;
    // Left by somebody who was interrupted: either nobody uses it, or the raw node is above it already.
    if (nodes->has_passing && !delete(domain, passing, NULL))
        nodes->has_passing = false;
    if (!nodes->has_passing) {
        if (add_client(domain, nodes, passing, disk, patience_s, err))
            return -1;
        *dead = put_above(domain, nodes, passing, err);
        if (*dead)
            return delete(domain, passing, NULL), -1;
    }
    if (nodes->has_libvirts_client && delete(domain, libvirts, err))
        return -1;
    if (add_client(domain, nodes, libvirts, disk, patience_s, err))
        return -1;
    *dead = put_above(domain, nodes, libvirts, err);
    return *dead ? -1 : delete(domain, passing, err);
}

// ---- with one that has given up ----

static int hang_on(virDomainPtr domain, const struct disk_nodes *nodes, const struct stack *to, const struct stack *from,
                   const struct rp_domain_disk *disk, unsigned patience_s, struct rp_error *err)
{
    delete_stack(domain, nodes, to); // what an interrupted one left
    RP_AUTO_FREE char *path = rp_xasprintf("/machine/peripheral/%s", nodes->alias);
    if (add_client(domain, nodes, to->client, disk, patience_s, err) ||
        rp_monitor_command(domain, "blockdev-add", raw_node(nodes, to->format, to->client), err) ||
        rp_monitor_command(domain, "qom-set", json_pack("{s:s, s:s, s:s}", "path", path, "property", "drive", "value", to->format), err)) {
        delete_stack(domain, nodes, to);
        return -1;
    }
    delete_stack(domain, nodes, from);
    return 0;
}

static int exchange_all(virDomainPtr domain, const struct disk_nodes *nodes, const struct rp_domain_disk *disk, unsigned patience_s,
                        struct rp_error *err)
{
    const struct stack *libvirts = &nodes->libvirts, *between = &nodes->between;
    if (!nodes->at_between && hang_on(domain, nodes, between, libvirts, disk, patience_s, err))
        return -1;
    return hang_on(domain, nodes, libvirts, between, disk, patience_s, err);
}

// A device with a thread of its own lets go of its nodes only while the machine stands still.
static int exchange_all_standing(virDomainPtr domain, const struct disk_nodes *nodes, const struct rp_domain_disk *disk,
                                 unsigned patience_s, struct rp_error *err)
{
    int state;
    if (virDomainGetState(domain, &state, NULL, 0) || state != VIR_DOMAIN_RUNNING)
        return exchange_all(domain, nodes, disk, patience_s, err);
    int others = rp_standing_begin(domain, err);
    if (others < 0)
        return -1;
    int failed = exchange_all(domain, nodes, disk, patience_s, err);
    if (others)
        return failed;
    return rp_standing_end(domain, failed ? NULL : err) || failed ? -1 : 0;
}

static int reconnect(virDomainPtr domain, const char *xml, const struct rp_domain_disk *disk, unsigned patience_s,
                     struct rp_error *err)
{
    struct rp_disk_facts facts;
    struct disk_nodes nodes;
    struct rp_error why = {0};
    bool dead = false;
    // Its administrator has taken it out, or put something else there: that is his to do, and no reason for the others to fail.
    if (rp_xml_disk(xml, disk->target, &facts, &why))
        return why.code == RP_ERR_NOT_FOUND || why.code == RP_ERR_UNSUPPORTED ? 0 : rp_fail_as(err, &why);
    if (find_nodes(domain, &facts, &nodes, err))
        return -1;
    if (!nodes.at_between) {
        if (!exchange_client(domain, &nodes, disk, patience_s, &dead, &why))
            return 0;
        if (!dead)
            return rp_fail_as(err, &why);
    }
    return exchange_all_standing(domain, &nodes, disk, patience_s, err);
}

int rp_nodes_reconnect(virDomainPtr domain, const struct rp_domain_disk *disks, size_t count, unsigned patience_s,
                       struct rp_error *err)
{
    RP_AUTO_FREE char *xml = rp_domain_xml(domain, 0, err);
    const struct rp_domain_disk *bad = NULL;
    struct rp_error first = {0};
    if (!xml)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (reconnect(domain, xml, &disks[i], patience_s, bad ? NULL : &first) && !bad)
            bad = &disks[i];
    if (!bad)
        return 0;
    rp_fail_as(err, &first);
    return rp_context(err, "disk %s of domain %s cannot be connected to %s of %s", bad->target, virDomainGetName(domain),
                      bad->export_name, bad->socket);
}

int rp_nodes_reconnect_known(virDomainPtr domain, unsigned patience_s, struct rp_error *err)
{
    RP_AUTO_FREE char *xml = rp_domain_xml(domain, 0, err);
    struct rp_domain_disk *disks = NULL;
    size_t count = 0;
    if (!xml || rp_xml_disks(xml, &disks, &count, err))
        return -1;
    int failed = count ? rp_nodes_reconnect(domain, disks, count, patience_s, err) : 0;
    rp_xml_disks_free(disks, count);
    return failed;
}

// ---- works of requests ----

int rp_work_reconnect(struct rp_request *request, struct rp_error *err)
{
    int active = virDomainIsActive(request->found);
    if (active < 0)
        return rp_libvirt_fail(err, "domain %s cannot %s", request->name, request->doing);
    if (!active)
        return rp_fail(err, RP_ERR_STATE, "domain %s does not run: it has no connection to a disk service",
                       request->name);
    return rp_nodes_reconnect(request->found, request->disks, request->count, (unsigned)request->number, err);
}

int rp_work_resize(struct rp_request *request, struct rp_error *err)
{
    return virDomainBlockResize(request->found, request->text, request->number, VIR_DOMAIN_BLOCK_RESIZE_BYTES)
               ? rp_libvirt_fail(err, "disk %s of domain %s cannot become %llu bytes large", request->text,
                                 request->name, (unsigned long long)request->number)
               : 0;
}
