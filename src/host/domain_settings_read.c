// What the definition of a domain says of a VM's settings.
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "host/domain_settings.h"
#include "host/domain_xml.h"

// Bytes in a unit of libvirt's; 0: none.
static uint64_t unit_of(const char *unit)
{
    static const char letters[] = "KMGTPE";
    const char *letter = *unit ? memchr(letters, *unit == 'k' ? 'K' : *unit, sizeof letters - 1) : NULL;
    if (!*unit || !strcmp(unit, "k"))
        return 1024; // where none is said
    if (!strcmp(unit, "b") || !strcmp(unit, "bytes"))
        return 1;
    if (!letter || (unit[1] && strcmp(unit + 1, "B") && strcmp(unit + 1, "iB")))
        return 0;
    uint64_t size = 1;
    for (long i = 0; i <= letter - letters; i++)
        size *= unit[1] == 'B' ? 1000 : 1024;
    return size;
}

static int read_mib(const struct rp_domain_xml_amount *from, const char *name, uint64_t *mib, struct rp_error *err)
{
    uint64_t bytes = unit_of(from->unit), count = 0;
    int end = 0;
    if (!*from->text)
        return 0;
    if (sscanf(from->text, "%19lu%n", &count, &end) != 1 || from->text[end] || !bytes || *from->text == '-' ||
        __builtin_mul_overflow(count, bytes, &bytes) || bytes / RP_MIB > RP_DOMAIN_MAX_MEMORY_MIB)
        return rp_fail(err, RP_ERR_INVALID, "domain: <%s>%.32s</%s> is no size of memory", name, from->text, name);
    *mib = rp_div_up(bytes, RP_MIB);
    return 0;
}

static int read_memory(const struct rp_domain_xml *xml, struct rp_domain_settings *to, struct rp_error *err)
{
    if (read_mib(&xml->memory, "memory", &to->most_mib, err))
        return -1;
    to->memory_mib = to->most_mib;
    if (read_mib(&xml->current_memory, "currentMemory", &to->memory_mib, err))
        return -1;
    to->memory_mib = to->memory_mib ? rp_min64(to->memory_mib, to->most_mib) : to->most_mib;
    to->least_mib = to->memory_mib;
    return 0;
}

static int read_processors(const struct rp_domain_xml *xml, struct rp_domain_settings *to, const struct rp_domain_remarks *remarks,
                           struct rp_error *err)
{
    static const struct { const char *mode; enum rp_domain_cpu cpu; } modes[] = {
        {"", RP_DOMAIN_CPU_DEFAULT}, {"host-model", RP_DOMAIN_CPU_HOST_MODEL}, {"host-passthrough", RP_DOMAIN_CPU_HOST},
        {"maximum", RP_DOMAIN_CPU_MAXIMUM}};
    const char *count = *xml->current_vcpus ? xml->current_vcpus : xml->vcpus;
    unsigned processors = 1;
    int end = 0;
    if (*count && (sscanf(count, "%5u%n", &processors, &end) != 1 || count[end] || !processors || processors > RP_DOMAIN_MAX_PROCESSORS))
        return rp_fail(err, RP_ERR_INVALID, "domain: \"%.32s\" processors", count);
    to->processors = processors;
    size_t i = 0;
    while (i < sizeof modes / sizeof *modes && strcmp(xml->cpu_mode, modes[i].mode))
        i++;
    if (i < sizeof modes / sizeof *modes)
        to->cpu = modes[i].cpu;
    else
        rp_domain_remark(remarks, "the model of its processor is not among the settings that a backup has");
    if (*xml->current_vcpus && *xml->vcpus && strcmp(xml->current_vcpus, xml->vcpus))
        rp_domain_remark(remarks,
                         "processors that can be added while it runs are not among the settings that a backup has");
    return 0;
}

// One that is too long, or that a text cannot have, is left out with the others: half a boot is none.
static void read_kernel(const struct rp_domain_xml *xml, struct rp_domain_settings *to, const struct rp_domain_remarks *remarks)
{
    const struct { const char *from; char *to; size_t size; } texts[] = {
        {xml->kernel, to->kernel, sizeof to->kernel}, {xml->initrd, to->initrd, sizeof to->initrd},
        {xml->command_line, to->command_line, sizeof to->command_line},
    };
    bool fine = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fine &= rp_domain_is_boot_text(texts[i].from, texts[i].size, i < 2);
        snprintf(texts[i].to, texts[i].size, "%s", texts[i].from);
    }
    for (size_t i = 0; !fine && i < sizeof texts / sizeof *texts; i++)
        *texts[i].to = '\0';
    if (!fine)
        rp_domain_remark(remarks, "the kernel that it boots is not among the settings that a backup has");
}

static void read_disk(const struct rp_domain_xml_disk *disk, const struct rp_domain_target *disks, size_t count,
                      struct rp_domain_settings *to)
{
    static const char *const names[] = {"", "ide", "sata", "scsi", "virtio"};
    for (size_t i = 0; i < count; i++)
        for (int b = RP_DOMAIN_IDE; b <= RP_DOMAIN_VIRTIO && !strcmp(disks[i].target, disk->target); b++)
            if (!strcmp(names[b], disk->bus) && to->disk_count < RP_ENGINE_MAX_DISKS) {
                to->disks[to->disk_count].number = disks[i].number;
                to->disks[to->disk_count++].bus = (enum rp_domain_bus)b;
            }
}

static bool read_mac(const char *text, uint8_t mac[6])
{
    unsigned b[6];
    int end = 0;
    if (strlen(text) != 17 ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 || end != 17)
        return false;
    for (int i = 0; i < 6; i++)
        mac[i] = (uint8_t)b[i];
    return !(mac[0] & 1);
}

static int read_nic(const struct rp_domain_xml_interface *from, struct rp_domain_settings *to, const struct rp_domain_remarks *remarks,
                    struct rp_error *err)
{
    static const char *const names[] = {"virtio", "e1000e", "e1000", "rtl8139"};
    struct rp_domain_nic nic = {.has_mac = *from->mac != '\0'};
    if (to->nic_count == RP_DOMAIN_MAX_NICS)
        return rp_fail(err, RP_ERR_INVALID, "domain: more than %d network adapters", RP_DOMAIN_MAX_NICS);
    if (nic.has_mac && !read_mac(from->mac, nic.mac))
        return rp_fail(err, RP_ERR_INVALID, "domain: \"%.32s\" is no address of a network adapter", from->mac);
    bool known = !*from->model;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], from->model)) {
            nic.model = (enum rp_domain_nic_model)i;
            known = true;
        }
    if (!known)
        rp_domain_remark(remarks, "a network adapter of the model %.32s would be restored as a virtio one", from->model);
    to->nics[to->nic_count++] = nic;
    return 0;
}

// Devices that every domain has, or that a restored one gets anyway.
static bool is_usual(const char *name)
{
    static const char *const usual[] = {"emulator", "controller", "input",      "graphics", "video", "serial",
                                        "console",  "channel",    "memballoon", "rng",      "audio",
                                        "sound",    "panic",      "iommu",      "watchdog"};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (!strcmp(name, usual[i]))
            return true;
    return false;
}

static int read_devices(const struct rp_domain_xml *xml, const struct rp_domain_target *disks, size_t count,
                        struct rp_domain_settings *to, const struct rp_domain_remarks *remarks, struct rp_error *err)
{
    for (size_t i = 0; i < xml->disk_count; i++)
        read_disk(&xml->disks[i], disks, count, to);
    for (size_t i = 0; i < xml->interface_count; i++)
        if (read_nic(&xml->interfaces[i], to, remarks, err))
            return -1;
    for (size_t i = 0; i < xml->hostdev_count; i++)
        rp_domain_remark(remarks, "its <hostdev> is not among the settings that a backup has");
    for (size_t i = 0; i < xml->other_count; i++)
        if (!is_usual(xml->others[i]))
            rp_domain_remark(remarks, "its <%.32s> is not among the settings that a backup has", xml->others[i]);
    return 0;
}

int rp_domain_settings_of_xml(const struct rp_domain_xml *xml, const struct rp_domain_target *disks, size_t disk_count,
                              struct rp_domain_settings *settings, const struct rp_domain_remarks *remarks,
                              struct rp_error *err)
{
    *settings = (struct rp_domain_settings){.generation = xml->efi ? 2 : 1, .secure_boot = xml->secure_boot,
                                            .q35 = !strcmp(xml->machine, "q35") || !strncmp(xml->machine, "pc-q35", 6),
                                            .tpm = !strcmp(xml->tpm_backend, "emulator")};
    read_kernel(xml, settings, remarks);
    return read_memory(xml, settings, err) || read_processors(xml, settings, remarks, err) ||
                   read_devices(xml, disks, disk_count, settings, remarks, err)
               ? -1
               : 0;
}
