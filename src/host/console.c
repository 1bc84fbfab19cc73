// What a guest says on its serial port, kept in a file for whoever waits for a word of it (restore --boot-check).
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cim/xml.h"
#include "host/domain.h"
#include "host/domain_xml.h"

static char *path_of(const struct rp_local_vm *vm) { return rp_path_join(vm->directory, RP_LOCAL_CONSOLE); }
// What virtlogd calls the file when it has begun another one, at two MiB.
static char *path_before(const struct rp_local_vm *vm) { return rp_path_join(vm->directory, RP_LOCAL_CONSOLE ".0"); }

static void set(xmlNode *node, const char *name, const char *value)
{
    if (!xmlSetProp(node, (const xmlChar *)name, (const xmlChar *)value))
        abort();
}

static xmlNode *add(xmlNode *parent, const char *name)
{
    xmlNode *child = xmlNewChild(parent, NULL, (const xmlChar *)name, NULL);
    if (!child)
        abort();
    return child;
}

// The definition with one serial port, which goes to the file. malloc'ed.
static char *with_file(const char *xml, const char *path, struct rp_error *err)
{
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = rp_xml_parse(xml, strlen(xml), RP_DOMAIN_XML_MAX, NULL, err);
    xmlNode *devices = document ? rp_xml_child(xmlDocGetRootElement(document), NULL, "devices") : NULL;
    xmlChar *text = NULL;
    int size = 0;
    if (!document)
        return NULL;
    if (!devices) {
        rp_fail(err, RP_ERR_CORRUPT, "its definition has no devices");
        return NULL;
    }
    for (xmlNode *device = rp_xml_first(devices), *next; device; device = next) {
        next = rp_xml_next(device);
        if (!rp_xml_is(device, NULL, "serial") && !rp_xml_is(device, NULL, "console"))
            continue;
        xmlUnlinkNode(device);
        xmlFreeNode(device);
    }
    xmlNode *serial = add(devices, "serial");
    set(serial, "type", "file");
    set(add(serial, "source"), "path", path);
    xmlDocDumpMemory(document, &text, &size);
    if (!text)
        abort();
    char *copy = rp_xstrdup((const char *)text);
    xmlFree(text);
    return copy;
}

// Anew: what an earlier guest said is not this one's.
static int make_file(const char *path, const char *before, struct rp_error *err)
{
    if ((unlink(before) && errno != ENOENT) || (unlink(path) && errno != ENOENT))
        return rp_fail_sys(err, errno, "%s", path);
    RP_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? rp_fail_sys(err, errno, "%s", path) : 0;
}

static int keep(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    RP_AUTO_FREE char *xml = NULL, *path = path_of(vm), *before = path_before(vm), *changed = NULL;
    enum rp_domain_state state;
    char uuid[RP_GUID_TEXT];
    if (!hv || rp_local_domain_state(vm, &state, err))
        return -1;
    if (state != RP_DOMAIN_OFF)
        return rp_fail(err, RP_ERR_STATE, "it is %s: a console gets its file before the start",
                       rp_domain_state_name(state));
    if (rp_hypervisor_ops()->find(hv, vm->domain, uuid, &xml, err))
        return -1;
    changed = with_file(xml, path, err);
    if (!changed || make_file(path, before, err))
        return -1;
    return rp_hypervisor_ops()->define(hv, changed, err);
}

int rp_local_console_keep(struct rp_host_connection *host, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (rp_local_vm_lock(rp_local_of(host), vm_id, &vm, err))
        return -1;
    if (!rp_local_domain_is(&vm))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "VM %s: nothing runs its guest here, so that it has no console", vm.id);
    return keep(&vm, err) ? rp_context(err, "VM %s: keep what its console says", vm.id) : 0;
}

// -1 and RP_ERR_NOT_FOUND: there is none. *file: what it is known by, whatever it is called.
static int open_file(const char *path, uint64_t *file, struct rp_error *err)
{
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        return rp_fail_sys(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return rp_fail(err, RP_ERR_STATE, "%s: not a file", path);
    *file = (uint64_t)st.st_ino;
    int opened = fd;
    fd = -1;
    return opened;
}

static int read_on(int fd, const char *path, struct rp_console_place *place, void *data, size_t size, size_t *got,
                   struct rp_error *err)
{
    ssize_t n = pread(fd, data, size, (off_t)place->at);
    if (n < 0)
        return rp_fail_sys(err, errno, "%s", path);
    *got = (size_t)n;
    place->at += (uint64_t)n;
    return 0;
}

// The file that was read last may have been given its other name since, and a new one been begun, or more than one:
// then the rest of it comes first, where it is still there, and then the older of the two that are there.
static int read_files(const char *path, const char *before, struct rp_console_place *place, void *data, size_t size,
                      size_t *got, struct rp_error *err)
{
    struct rp_error why = {0}, none = {0};
    uint64_t file = 0, old_file = 0;
    RP_AUTO_FD int fd = open_file(path, &file, &why);
    if (fd >= 0 && file == place->file)
        return read_on(fd, path, place, data, size, got, err);
    if (fd < 0 && why.code != RP_ERR_NOT_FOUND)
        return rp_fail_as(err, &why);
    RP_AUTO_FD int old = open_file(before, &old_file, &none);
    if (old < 0 && (none.code != RP_ERR_NOT_FOUND || fd < 0))
        return rp_fail_as(err, none.code != RP_ERR_NOT_FOUND ? &none : &why);
    if (old >= 0) {
        if (old_file != place->file)
            *place = (struct rp_console_place){.file = old_file};
        if (read_on(old, before, place, data, size, got, err))
            return -1;
        if (*got || fd < 0) // between the two there is none
            return 0;
    }
    *place = (struct rp_console_place){.file = file};
    return read_on(fd, path, place, data, size, got, err);
}

int rp_local_console_read(struct rp_host_connection *host, const char *vm_id, struct rp_console_place *place,
                          void *data, size_t size, size_t *got, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    *got = 0;
    if (rp_local_vm_load(rp_local_of(host), vm_id, &vm, err))
        return -1;
    RP_AUTO_FREE char *path = path_of(&vm), *before = path_before(&vm);
    return read_files(path, before, place, data, size, got, err);
}
