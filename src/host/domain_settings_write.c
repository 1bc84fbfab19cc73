// The definition of a domain (libvirt's format) from a VM's settings: everything that it boots with, and nothing of it
// taken from outside as it stands.
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "cim/xml.h"
#include "host/domain_settings.h"

#define OVMF "/usr/share/OVMF/OVMF_"
#define MAX_IDE 4
#define DEFAULT_MEMORY_MIB 1024 // as Hyper-V's

static const char *const bus_names[] = {"", "ide", "sata", "scsi", "virtio"};

struct writer {
    const struct rp_domain_settings *settings;
    const struct rp_domain_xml_options *options;
    const struct rp_domain_remarks *remarks;
    struct rp_buf xml;
    bool uefi, q35;
};

#define PUT(w, ...) rp_buf_printf(&(w)->xml, __VA_ARGS__)

static void put_text(struct writer *w, const char *before, const char *text, const char *after)
{
    PUT(w, "%s", before);
    rp_xml_escape(&w->xml, text);
    PUT(w, "%s", after);
}

// libvirt's names have no slash and are not blank.
static void put_name(struct writer *w)
{
    RP_AUTO_FREE char *name = rp_xstrdup(w->options->name);
    bool blank = true;
    for (char *c = name; *c; c++) {
        if (*c == '/')
            *c = '_';
        blank &= isspace((unsigned char)*c) != 0;
    }
    put_text(w, "  <name>", blank ? w->options->id : name, "</name>\n");
    if (strcmp(name, w->options->name))
        rp_domain_remark(w->remarks, "a domain cannot be called \"%s\": it is called \"%s\"", w->options->name, name);
}

static void put_memory(struct writer *w)
{
    const struct rp_domain_settings *s = w->settings;
    uint64_t start = s->memory_mib ? s->memory_mib : DEFAULT_MEMORY_MIB, most = rp_max64(s->most_mib, start);
    uint64_t limit = w->options->memory_limit_mib;
    if (limit && most > limit && most > start) {
        rp_domain_remark(w->remarks, "its memory may grow to %llu MiB; this host has less: it gets at most %llu MiB",
                         (unsigned long long)most, (unsigned long long)rp_max64(start, limit));
        most = rp_max64(start, limit);
    }
    if (s->least_mib && s->least_mib < start)
        rp_domain_remark(
            w->remarks,
            "its memory may shrink to %llu MiB; libvirt takes no least amount, and does not shrink it by itself",
            (unsigned long long)s->least_mib);
    PUT(w, "  <memory unit='MiB'>%llu</memory>\n  <currentMemory unit='MiB'>%llu</currentMemory>\n",
        (unsigned long long)most, (unsigned long long)start);
    PUT(w, "  <vcpu placement='static'>%u</vcpu>\n", s->processors ? s->processors : 1);
}

static void put_kernel(struct writer *w)
{
    const struct rp_domain_settings *s = w->settings;
    if (*s->kernel && !w->options->host_kernel)
        rp_domain_remark(w->remarks,
                         "it boots %s of the host that it comes from; no VM of this host does, so that it is left out: "
                         "it boots from "
                         "its first disk",
                         s->kernel);
    if (!*s->kernel || !w->options->host_kernel)
        return;
    put_text(w, "    <kernel>", s->kernel, "</kernel>\n");
    if (*s->initrd)
        put_text(w, "    <initrd>", s->initrd, "</initrd>\n");
    put_text(w, "    <cmdline>", s->command_line, "</cmdline>\n");
}

static void put_os(struct writer *w)
{
    const struct rp_domain_settings *s = w->settings;
    // Debian's ovmf (firmware descriptions 40- and 60-edk2-x86_64): with Microsoft's keys in its store, or with an
    // empty one.
    const char *kind = s->secure_boot ? "_4M.ms.fd" : "_4M.fd";
    PUT(w, "  <os>\n    <type arch='x86_64' machine='%s'>hvm</type>\n", w->q35 ? "q35" : "pc");
    if (w->uefi) {
        PUT(w,
            "    <loader readonly='yes' secure='%s' type='pflash'>" OVMF "CODE%s</loader>\n    <nvram template='" OVMF
            "VARS%s'>",
            s->secure_boot ? "yes" : "no", kind, kind);
        put_text(w, "", w->options->nvram ? w->options->nvram : "", "</nvram>\n");
    }
    put_kernel(w);
    PUT(w, "  </os>\n  <features>\n    <acpi/>\n    <apic/>\n%s  </features>\n",
        s->secure_boot && w->uefi ? "    <smm state='on'/>\n" : "");
    if (s->secure_boot && !w->uefi)
        rp_domain_remark(w->remarks, "a VM of generation 1 has no secure boot");
}

static void put_cpu(struct writer *w)
{
    // The interpreter knows the processors that it imitates, and none of the host's.
    const char *mode = w->options->emulated || w->settings->cpu == RP_DOMAIN_CPU_MAXIMUM ? "maximum"
                       : w->settings->cpu == RP_DOMAIN_CPU_HOST                          ? "host-passthrough"
                                                                                         : "host-model";
    PUT(w, "  <cpu mode='%s'/>\n  <clock offset='utc'/>\n  <on_poweroff>destroy</on_poweroff>\n"
           "  <on_reboot>restart</on_reboot>\n  <on_crash>destroy</on_crash>\n", mode);
}

// ---- disks ----------------------------------------------------------------------------------------------------------

// As it was; otherwise as Hyper-V's generations have it: IDE, as far as that goes, and SCSI.
static enum rp_domain_bus bus_of(const struct writer *w, uint32_t number, size_t ide)
{
    const struct rp_domain_settings *s = w->settings;
    enum rp_domain_bus bus = RP_DOMAIN_BUS_DEFAULT;
    for (size_t i = 0; i < s->disk_count; i++)
        if (s->disks[i].number == number)
            bus = s->disks[i].bus;
    if (bus == RP_DOMAIN_IDE && w->q35)
        return RP_DOMAIN_SATA;
    if (bus == RP_DOMAIN_BUS_DEFAULT)
        bus = w->uefi ? RP_DOMAIN_SCSI : w->q35 ? RP_DOMAIN_SATA : RP_DOMAIN_IDE;
    return bus == RP_DOMAIN_IDE && ide == MAX_IDE ? RP_DOMAIN_SCSI : bus;
}

// See domain_xml_iothread.c.
static void put_iothreads(struct writer *w)
{
    bool virtio = false;
    for (size_t i = 0; i < w->options->disk_count; i++)
        virtio |= bus_of(w, w->options->numbers[i], 0) == RP_DOMAIN_VIRTIO;
    if (virtio)
        PUT(w, "  <iothreads>1</iothreads>\n");
}

// "sda" … "sdz", "sdaa", …
static void name_target(const char *prefix, size_t index, char target[32])
{
    char letters[8];
    size_t count = 0;
    for (size_t n = index + 1; n; n = (n - 1) / 26)
        letters[count++] = (char)('a' + (n - 1) % 26);
    size_t at = (size_t)snprintf(target, 24, "%s", prefix);
    while (count)
        target[at++] = letters[--count];
    target[at] = '\0';
}

static void put_disk(struct writer *w, size_t index, enum rp_domain_bus bus, const char *target)
{
    PUT(w,
        "    <disk type='network' device='disk'>\n"
        "      <driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='stop' discard='unmap'%s/>\n"
        "      <source protocol='nbd' name='disk%u'>\n",
        bus == RP_DOMAIN_VIRTIO ? " iothread='1'" : "", w->options->numbers[index]);
    put_text(w, "        <host transport='unix' socket='", w->options->socket, "'/>\n");
    PUT(w, "      </source>\n      <target dev='%s' bus='%s'/>\n", target, bus_names[bus]);
    if (!index)
        PUT(w, "      <boot order='1'/>\n");
    PUT(w, "    </disk>\n");
}

static void put_disks(struct writer *w, struct rp_domain_target *targets)
{
    size_t ide = 0, sd = 0, vd = 0;
    bool scsi = false, guessed = false;
    for (size_t i = 0; i < w->options->disk_count; i++) {
        enum rp_domain_bus bus = bus_of(w, w->options->numbers[i], ide);
        targets[i].number = w->options->numbers[i];
        if (bus == RP_DOMAIN_IDE)
            name_target("hd", ide++, targets[i].target);
        else if (bus == RP_DOMAIN_VIRTIO)
            name_target("vd", vd++, targets[i].target);
        else
            name_target("sd", sd++, targets[i].target);
        scsi |= bus == RP_DOMAIN_SCSI;
        guessed |= bus == RP_DOMAIN_SCSI && !w->settings->disk_count;
        put_disk(w, i, bus, targets[i].target);
    }
    if (scsi)
        PUT(w, "    <controller type='scsi' model='virtio-scsi'/>\n");
    if (guessed)
        rp_domain_remark(
            w->remarks,
            "its disks are on a virtio-scsi controller: Linux has the driver, Windows needs it installed before");
}

// ---- other devices --------------------------------------------------------------------------------------------------

static void put_nic(struct writer *w, const struct rp_domain_nic *nic)
{
    static const char *const models[] = {"virtio", "e1000e", "e1000", "rtl8139"};
    const char *network = w->options->network;
    if (!network || !strcmp(network, "user"))
        PUT(w, "    <interface type='user'>\n");
    else
        put_text(w, "    <interface type='network'>\n      <source network='", network, "'/>\n");
    if (nic->has_mac && !w->options->new_macs)
        PUT(w, "      <mac address='%02x:%02x:%02x:%02x:%02x:%02x'/>\n", nic->mac[0], nic->mac[1], nic->mac[2],
            nic->mac[3], nic->mac[4], nic->mac[5]);
    // Nobody hears what it sends, and it hears nobody.
    PUT(w, "      <model type='%s'/>\n%s    </interface>\n", models[nic->model],
        network ? "" : "      <link state='down'/>\n");
}

static void put_devices(struct writer *w, struct rp_domain_target *targets)
{
    PUT(w, "  <devices>\n");
    put_disks(w, targets);
    for (size_t i = 0; i < w->settings->nic_count; i++)
        put_nic(w, &w->settings->nics[i]);
    if (w->options->console)
        put_text(w, "    <serial type='file'>\n      <source path='", w->options->console, "'/>\n    </serial>\n");
    else
        PUT(w, "    <serial type='pty'/>\n");
    PUT(w, "    <channel type='unix'>\n      <target type='virtio' name='org.qemu.guest_agent.0'/>\n    </channel>\n");
    if (w->settings->tpm && w->q35)
        PUT(w, "    <tpm model='tpm-crb'>\n      <backend type='emulator' version='2.0'/>\n    </tpm>\n");
    else if (w->settings->tpm)
        rp_domain_remark(w->remarks, "a VM of generation 1 has no TPM");
    // A socket of libvirt's own: nothing listens on a port that nobody asked for.
    PUT(w, "    <graphics type='vnc'>\n      <listen type='socket'/>\n    </graphics>\n    <video>\n      <model "
           "type='vga'/>\n"
           "    </video>\n    <memballoon model='virtio'/>\n    <rng model='virtio'>\n      <backend "
           "model='random'>/dev/urandom</backend>\n"
           "    </rng>\n  </devices>\n");
}

static int check(const struct rp_domain_settings *s, const struct rp_domain_xml_options *o, struct rp_error *err)
{
    struct rp_guid id;
    if (rp_guid_parse(o->id, &id, NULL) || strlen(o->id) != RP_GUID_TEXT - 1)
        return rp_fail(err, RP_ERR_INVALID, "domain: \"%.40s\" is no UUID", o->id);
    if (o->disk_count > RP_ENGINE_MAX_DISKS)
        return rp_fail(err, RP_ERR_INVALID, "domain: %zu disks, at most %d", o->disk_count, RP_ENGINE_MAX_DISKS);
    if (s->processors > RP_DOMAIN_MAX_PROCESSORS || s->memory_mib > RP_DOMAIN_MAX_MEMORY_MIB ||
        s->most_mib > RP_DOMAIN_MAX_MEMORY_MIB || s->nic_count > RP_DOMAIN_MAX_NICS)
        return rp_fail(err, RP_ERR_INVALID, "domain: %u processors, %llu MiB of memory, %zu network adapters",
                       s->processors, (unsigned long long)s->most_mib, s->nic_count);
    return 0;
}

char *rp_domain_settings_to_xml(const struct rp_domain_settings *settings, const struct rp_domain_xml_options *options,
                                struct rp_domain_target *targets, const struct rp_domain_remarks *remarks,
                                struct rp_error *err)
{
    if (check(settings, options, err))
        return NULL;
    struct writer w = {.settings = settings, .options = options, .remarks = remarks, .uefi = settings->generation != 1};
    w.q35 = w.uefi || settings->q35;
    PUT(&w, "<domain type='%s'>\n", options->emulated ? "qemu" : "kvm");
    put_name(&w);
    PUT(&w, "  <uuid>%s</uuid>\n", options->id);
    put_memory(&w);
    put_iothreads(&w);
    put_os(&w);
    put_cpu(&w);
    put_devices(&w, targets);
    PUT(&w, "</domain>\n");
    char *xml = rp_xstrdup(rp_buf_text(&w.xml));
    rp_buf_clear(&w.xml);
    return xml;
}
