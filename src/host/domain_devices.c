// Disks that come and go while a VM is off: its domain's definition follows.
#include <stdio.h>
#include <string.h>

#include "host/domain.h"
#include "host/domain_xml.h"

static int read_definition(const struct rp_local_vm *vm, struct rp_hypervisor **hv, struct rp_domain_xml *xml,
                           struct rp_error *err)
{
    RP_AUTO_FREE char *text = NULL;
    char uuid[RP_GUID_TEXT];
    *hv = rp_local_domain_open(vm, err);
    if (!*hv)
        return -1;
    if (rp_hypervisor_ops()->find(*hv, vm->domain, uuid, &text, err) || rp_domain_xml_parse(text, xml, err))
        return rp_context(err, "VM %s: definition of its domain", vm->id);
    return 0;
}

static int define(const struct rp_local_vm *vm, struct rp_hypervisor *hv, const char *text, struct rp_error *err)
{
    return rp_hypervisor_ops()->define(hv, text, err) ? rp_context(err, "VM %s: define its domain anew", vm->id) : 0;
}

// Its bus, and its iothread if there, are those of the VM's first disk; its name the first of that bus that nothing in the domain has.
static const char *choose(const struct rp_domain_xml *xml, const char **iothread, char target[32])
{
    const char *bus = "virtio";
    *iothread = "";
    for (size_t i = xml->disk_count; i-- > 0;)
        if (*xml->disks[i].nbd_socket && *xml->disks[i].bus) {
            bus = xml->disks[i].bus;
            *iothread = strspn(xml->disks[i].iothread, "0123456789") == strlen(xml->disks[i].iothread) ? xml->disks[i].iothread : "";
        }
    const char *prefix = !strcmp(bus, "virtio") ? "vd" : !strcmp(bus, "ide") ? "hd" : "sd";
    for (unsigned i = 0;; i++) {
        char letters[3] = {(char)(i < 26 ? 'a' + i : 'a' + i / 26 - 1), i < 26 ? '\0' : (char)('a' + i % 26)};
        snprintf(target, 32, "%s%s", prefix, letters);
        if (i >= 26 * 26 || !rp_domain_xml_disk(xml, target))
            return bus;
    }
}

// After the last disk, or where the devices end.
static size_t place(const struct rp_domain_xml *xml)
{
    const char *end = strstr(xml->text, "</devices>");
    size_t at = end ? (size_t)(end - xml->text) : strlen(xml->text);
    return xml->disk_count ? xml->disks[xml->disk_count - 1].end : at;
}

static char *with_disk(const struct rp_domain_xml *xml, const struct rp_domain_disk *disk, const char *bus, const char *iothread,
                       struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml bare = {0};
    size_t at = place(xml);
    RP_AUTO_FREE char *text = rp_xasprintf(
        "%.*s\n    <disk type='file' device='disk'><driver name='qemu' type='raw'%s%s%s/><source file='/'/>"
        "<target dev='%s' bus='%s'/></disk>%s",
        (int)at, xml->text, *iothread ? " iothread='" : "", iothread, *iothread ? "'" : "", disk->target, bus, xml->text + at);
    char *out = NULL;
    bool none = false;
    return rp_domain_xml_parse(text, &bare, err) || rp_domain_xml_attach(&bare, disk, 1, &none, &out, err) ? NULL : out;
}

int rp_local_domain_add_disk(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    RP_AUTO_FREE char *socket = rp_path_join(vm->directory, RP_NBD_SOCKET);
    struct rp_domain_disk disk = {.socket = socket};
    struct rp_hypervisor *hv;
    if (read_definition(vm, &hv, &xml, err))
        return -1;
    const char *iothread, *bus = choose(&xml, &iothread, disk.target);
    snprintf(disk.export_name, sizeof disk.export_name, "disk%u", number);
    // The row first: it tells who undoes this where to look.
    if (rp_db_run(vm->local->db, err,
                  "INSERT OR REPLACE INTO domain_disk (vm, number, target, source, format) VALUES (?, ?, ?, '', '')", "iit", vm->row, (int64_t)number, disk.target))
        return -1;
    RP_AUTO_FREE char *text = with_disk(&xml, &disk, bus, iothread, err);
    return text ? define(vm, hv, text, err) : -1;
}

int rp_local_domain_drop_disk(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    RP_AUTO_FREE char *socket = rp_path_join(vm->directory, RP_NBD_SOCKET);
    struct rp_domain_disk disk = {.socket = socket};
    struct rp_hypervisor *hv;
    {
        RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err, "SELECT target FROM domain_disk WHERE vm = ? AND number = ?",
                                           "ii", vm->row, (int64_t)number);
        int rc = query ? rp_db_step(vm->local->db, query, err) : -1;
        if (rc != 1)
            return rc;
        rp_db_copy(query, 0, disk.target, sizeof disk.target);
    }
    snprintf(disk.export_name, sizeof disk.export_name, "disk%u", number);
    struct rp_error why = {0};
    if (read_definition(vm, &hv, &xml, &why)) // a domain that was undefined has no disk
        return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
    const struct rp_domain_xml_disk *there = rp_domain_xml_disk(&xml, disk.target);
    if (!there || !rp_domain_xml_is_attached(there, &disk)) // not any more, or not yet
        return 0;
    RP_AUTO_FREE char *text = rp_xasprintf("%.*s%s", (int)there->start, xml.text, xml.text + there->end);
    return define(vm, hv, text, err);
}
