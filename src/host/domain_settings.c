// Hyper-V's setting classes and what they say of a VM (facts/wmi.md 1.3).
#include "host/domain_settings.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cim/cimxml.h"
#include "host/cim_text.h"

// What follows an owner's GUID in the InstanceID of what a VM has one of (hostd/hostd.h), and of what we add.
#define PROCESSOR "\\b637f346-6a0e-4dec-af52-bd70cb80a21d\\0"
#define MEMORY "\\4764334d-e001-4176-82ee-5594ec9b530e"
#define SECURITY "\\0a7d0e8b-4e7b-4b2c-9d0c-6f1f6c2d5b11"
#define DOMAIN "\\refpoint\\domain"
#define NIC "\\7ef9d0ac-0000-4000-8000-" // and the address, or the adapter's number
#define KEYS_WINDOWS "1734c6e8-3154-4dda-ba5f-a874cc483422"
#define KEYS_OTHERS "272e7447-90a4-4563-a4b9-8e4ab00526ce"
#define OWN_CLASS "Refpoint_DomainSettingData"

static const char *const buses[] = {"", "ide", "sata", "scsi", "virtio"};
static const char *const models[] = {"virtio", "e1000e", "e1000", "rtl8139"};
static const char *const cpus[] = {"", "host-model", "host-passthrough", "maximum"};

void rp_domain_remark(const struct rp_domain_remarks *remarks, const char *format, ...)
{
    char text[RP_ERROR_TEXT];
    va_list args;
    if (!remarks || !remarks->remark)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    remarks->remark(remarks->context, text);
}

static bool is(const struct rp_cim_instance *instance, const char *class_name)
{
    return !strcasecmp(instance->class_name, class_name);
}

static const char *suffix_of(const struct rp_cim_instance *instance)
{
    const char *suffix = rp_cim_get_text(instance, "InstanceID");
    return suffix ? suffix : "";
}

// ---- what they say --------------------------------------------------------------------------------------------------

static void read_system(const struct rp_cim_instance *from, struct rp_domain_settings *to)
{
    const char *type = rp_cim_get_text(from, "VirtualSystemSubType"),
               *keys = rp_cim_get_text(from, "SecureBootTemplateId");
    if (type && !strcasecmp(type, "Microsoft:Hyper-V:SubType:1"))
        to->generation = 1;
    if (type && !strcasecmp(type, "Microsoft:Hyper-V:SubType:2"))
        to->generation = 2;
    to->secure_boot = rp_cim_get_boolean(from, "SecureBootEnabled", false);
    to->microsoft_windows = to->secure_boot && (!keys || !*keys || !strcasecmp(keys, KEYS_WINDOWS));
}

static int read_processor(const struct rp_cim_instance *from, struct rp_domain_settings *to,
                          const struct rp_domain_remarks *remarks, struct rp_error *err)
{
    uint64_t count = rp_cim_get_unsigned(from, "VirtualQuantity", 0);
    if (count > RP_DOMAIN_MAX_PROCESSORS)
        return rp_fail(err, RP_ERR_INVALID, "settings: %llu processors, a VM has at most %d", (unsigned long long)count,
                       RP_DOMAIN_MAX_PROCESSORS);
    to->processors = (unsigned)count;
    if (rp_cim_get_unsigned(from, "Reservation", 0) || rp_cim_get_unsigned(from, "Limit", 100000) < 100000)
        rp_domain_remark(remarks, "the processors' reservation and limit have no counterpart in libvirt");
    if (rp_cim_get_boolean(from, "ExposeVirtualizationExtensions", false))
        rp_domain_remark(remarks, "whether the guest can run VMs itself depends on this host");
    return 0;
}

static int read_memory(const struct rp_cim_instance *from, struct rp_domain_settings *to, struct rp_error *err)
{
    uint64_t start = rp_cim_get_unsigned(from, "VirtualQuantity", 0);
    if (start > RP_DOMAIN_MAX_MEMORY_MIB)
        return rp_fail(err, RP_ERR_INVALID, "settings: %llu MiB of memory", (unsigned long long)start);
    to->memory_mib = to->least_mib = to->most_mib = start;
    if (!rp_cim_get_boolean(from, "DynamicMemoryEnabled", false))
        return 0;
    uint64_t least = rp_cim_get_unsigned(from, "Reservation", start), most = rp_cim_get_unsigned(from, "Limit", start);
    if (most > RP_DOMAIN_MAX_MEMORY_MIB || (start && (least > start || most < start)))
        return rp_fail(err, RP_ERR_INVALID, "settings: memory of %llu MiB between %llu and %llu",
                       (unsigned long long)start, (unsigned long long)least, (unsigned long long)most);
    to->least_mib = least;
    to->most_mib = most;
    return 0;
}

// "00155D0A0B0C", also with separators. No group address, and not nothing.
static bool read_mac(const char *text, uint8_t mac[6])
{
    unsigned digits = 0;
    uint8_t any = 0;
    memset(mac, 0, 6);
    for (; *text && digits <= 12; text++) {
        if ((*text == '-' || *text == ':') && digits && digits % 2 == 0)
            continue;
        if (!isxdigit((unsigned char)*text) || digits == 12)
            return false;
        unsigned digit =
            isdigit((unsigned char)*text) ? (unsigned)(*text - '0') : (unsigned)(tolower(*text) - 'a') + 10;
        mac[digits / 2] = (uint8_t)(mac[digits / 2] << 4 | digit);
        digits++;
    }
    for (int i = 0; i < 6; i++)
        any |= mac[i];
    return digits == 12 && any && !(mac[0] & 1);
}

static const char *format_mac(const struct rp_domain_nic *nic, char text[13])
{
    for (int i = 0; i < 6; i++)
        snprintf(text + (ptrdiff_t)2 * i, 3, "%02X", nic->mac[i]);
    return text;
}

static int read_nic(const struct rp_cim_instance *from, bool emulated, struct rp_domain_settings *to,
                    struct rp_error *err)
{
    const char *address = rp_cim_get_text(from, "Address");
    struct rp_domain_nic nic = {.model = emulated ? RP_DOMAIN_NIC_E1000 : RP_DOMAIN_NIC_VIRTIO};
    if (to->nic_count == RP_DOMAIN_MAX_NICS)
        return rp_fail(err, RP_ERR_INVALID, "settings: more than %d network adapters", RP_DOMAIN_MAX_NICS);
    if (address && *address && strcmp(address, "000000000000")) {
        if (!read_mac(address, nic.mac))
            return rp_fail(err, RP_ERR_INVALID, "settings: \"%.32s\" is no address of a network adapter", address);
        nic.has_mac = true;
    }
    to->nics[to->nic_count++] = nic;
    return 0;
}

// An index into `names`; -1: none of them.
static int find(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return (int)i;
    return -1;
}
#define FIND(names, name) find(names, sizeof names / sizeof *names, name)

// "0 virtio": the disk's number and its bus.
static int read_disk(const char *text, struct rp_domain_settings *to, struct rp_error *err)
{
    unsigned number;
    char bus[8];
    int end = 0, found = -1;
    if (sscanf(text, "%5u %7[a-z]%n", &number, bus, &end) == 2 && !text[end] && number < 65536)
        found = FIND(buses, bus);
    if (found < 1 || to->disk_count == RP_ENGINE_MAX_DISKS)
        return rp_fail(err, RP_ERR_INVALID, "settings: \"%.32s\" is no place of a disk", text);
    to->disks[to->disk_count].number = number;
    to->disks[to->disk_count++].bus = (enum rp_domain_bus)found;
    return 0;
}

// "00155D0A0B0C virtio": an adapter's address and its model.
static int read_model(const char *text, struct rp_domain_settings *to, struct rp_error *err)
{
    char address[13], model[8];
    uint8_t mac[6];
    int end = 0, found = -1;
    if (sscanf(text, "%12[0-9A-F] %7[a-z0-9]%n", address, model, &end) == 2 && !text[end] && read_mac(address, mac))
        found = FIND(models, model);
    if (found < 0)
        return rp_fail(err, RP_ERR_INVALID, "settings: \"%.32s\" is no network adapter", text);
    for (size_t i = 0; i < to->nic_count; i++)
        if (to->nics[i].has_mac && !memcmp(to->nics[i].mac, mac, 6))
            to->nics[i].model = (enum rp_domain_nic_model)found;
    return 0;
}

// "" when there is none.
bool rp_domain_is_boot_text(const char *text, size_t size, bool path)
{
    bool fine = strlen(text) < size && (!path || !*text || (*text == '/' && !strpbrk(text, "'\"<>&")));
    for (const unsigned char *c = (const unsigned char *)text; fine && *c; c++)
        fine = *c >= ' ' && *c != 127;
    return fine;
}

static int read_text(const struct rp_cim_instance *from, const char *name, bool path, char *to, size_t size,
                     struct rp_error *err)
{
    const char *text = rp_cim_get_text(from, name);
    bool fine = !text || rp_domain_is_boot_text(text, size, path);
    if (!fine)
        return rp_fail(err, RP_ERR_INVALID, "settings: %s \"%.64s\"", name, text);
    snprintf(to, size, "%s", text ? text : "");
    return 0;
}

// After all adapters are known.
static int read_own(const struct rp_cim_instance *from, struct rp_domain_settings *to, struct rp_error *err)
{
    const char *machine = rp_cim_get_text(from, "Machine"), *cpu = rp_cim_get_text(from, "Cpu");
    to->q35 = machine && !strcmp(machine, "q35");
    int found = FIND(cpus, cpu ? cpu : "");
    if (found < 0 || (machine && !to->q35 && strcmp(machine, "pc")))
        return rp_fail(err, RP_ERR_INVALID, "settings: machine \"%.32s\" with processor \"%.32s\"",
                       machine ? machine : "", cpu ? cpu : "");
    to->cpu = (enum rp_domain_cpu)found;
    if (read_text(from, "Kernel", true, to->kernel, sizeof to->kernel, err) ||
        read_text(from, "Initrd", true, to->initrd, sizeof to->initrd, err) ||
        read_text(from, "CommandLine", false, to->command_line, sizeof to->command_line, err))
        return -1;
    for (size_t i = 0; i < rp_cim_get_count(from, "Disks"); i++) {
        const char *text = rp_cim_get_text_at(from, "Disks", i);
        if (read_disk(text ? text : "", to, err))
            return -1;
    }
    for (size_t i = 0; i < rp_cim_get_count(from, "Adapters"); i++) {
        const char *text = rp_cim_get_text_at(from, "Adapters", i);
        if (read_model(text ? text : "", to, err))
            return -1;
    }
    return 0;
}

// Those that a guest would miss, and nobody sees here.
static void remark_missing(const struct rp_cim_instance *instance, const struct rp_domain_remarks *remarks)
{
    static const struct {
        const char *class_name, *type, *what;
    } known[] = {
        {"Msvm_ResourceAllocationSettingData", "Microsoft:Hyper-V:Synthetic DVD Drive", "a DVD drive"},
        {"Msvm_StorageAllocationSettingData", NULL, "a medium in a drive"},
        {"Msvm_ResourceAllocationSettingData", "Microsoft:Hyper-V:Synthetic FiberChannel Port", "a Fibre Channel port"},
        {"Msvm_SyntheticFcPortSettingData", NULL, "a Fibre Channel port"},
        {"Msvm_PciExpressSettingData", NULL, "a PCI device of the host"},
        {"Msvm_GpuPartitionSettingData", NULL, "a part of a graphics processor"},
        {"Msvm_PersistentMemoryControllerSettingData", NULL, "persistent memory"},
    };
    const char *type = rp_cim_get_text(instance, "ResourceSubType");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is(instance, known[i].class_name) && (!known[i].type || (type && !strcasecmp(type, known[i].type)))) {
            rp_domain_remark(remarks, "%s is left out: it is not made in a domain", known[i].what);
            return;
        }
}

static int read_one(const struct rp_cim_instance *one, struct rp_domain_settings *to,
                    const struct rp_domain_remarks *remarks, struct rp_error *err)
{
    if (is(one, "Msvm_VirtualSystemSettingData"))
        read_system(one, to);
    else if (is(one, "Msvm_ProcessorSettingData"))
        return read_processor(one, to, remarks, err);
    else if (is(one, "Msvm_MemorySettingData"))
        return read_memory(one, to, err);
    else if (is(one, "Msvm_SecuritySettingData"))
        to->tpm = rp_cim_get_boolean(one, "TpmEnabled", false);
    else if (is(one, "Msvm_SyntheticEthernetPortSettingData") || is(one, "Msvm_EmulatedEthernetPortSettingData"))
        return read_nic(one, is(one, "Msvm_EmulatedEthernetPortSettingData"), to, err);
    else
        remark_missing(one, remarks);
    return 0;
}

int rp_domain_settings_of_extras(const char *extras, struct rp_domain_settings *settings,
                                 const struct rp_domain_remarks *remarks, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = {0};
    *settings = (struct rp_domain_settings){0};
    if (rp_cim_text_parse(extras, &all, err))
        return -1;
    for (size_t i = 0; i < all.count; i++)
        if (read_one(all.items[i], settings, remarks, err))
            return -1;
    for (size_t i = 0; i < all.count; i++)
        if (is(all.items[i], OWN_CLASS) && read_own(all.items[i], settings, err))
            return -1;
    return 0;
}

// ---- saying it ------------------------------------------------------------------------------------------------------

static struct rp_cim_instance *instance_of(struct rp_cim_instances *all, const char *class_name, const char *suffix)
{
    for (size_t i = 0; i < all->count; i++)
        if (is(all->items[i], class_name) && !strcasecmp(suffix_of(all->items[i]), suffix))
            return all->items[i];
    struct rp_cim_instance *made = rp_cim_instance_new(NULL, class_name);
    rp_cim_set(made, "InstanceID", rp_cim_string(suffix));
    rp_cim_instances_push(all, made);
    return made;
}

static void number(struct rp_cim_instance *instance, const char *name, uint64_t value)
{
    rp_cim_set(instance, name, rp_cim_unsigned(RP_CIM_UINT64, value));
}

static void push_text(struct rp_cim_value *array, const char *text)
{
    struct rp_cim_value item = rp_cim_string(text);
    rp_cim_value_push(array, &item);
}

static bool is_port(const struct rp_cim_instance *instance)
{
    return is(instance, "Msvm_SyntheticEthernetPortSettingData") ||
           is(instance, "Msvm_EmulatedEthernetPortSettingData");
}

static bool has_address(const struct rp_cim_instance *port, const struct rp_domain_nic *nic)
{
    const char *address = rp_cim_get_text(port, "Address");
    uint8_t mac[6];
    return nic->has_mac && address && read_mac(address, mac) && !memcmp(mac, nic->mac, 6);
}

// What the domain has now takes the place of what it had: nothing of an adapter that is gone stays.
static void drop_old(const struct rp_domain_settings *s, struct rp_cim_instances *all)
{
    size_t left = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct rp_cim_instance *one = all->items[i];
        bool stays = !is(one, OWN_CLASS) && !is_port(one);
        for (size_t j = 0; j < s->nic_count && !stays && is_port(one); j++)
            stays = has_address(one, &s->nics[j]);
        if (stays)
            all->items[left++] = one;
        else
            rp_cim_instance_free(one);
    }
    all->count = left;
}

static void write_nic(const struct rp_domain_nic *nic, size_t index, struct rp_cim_instances *all)
{
    char address[13], suffix[64];
    for (size_t i = 0; i < all->count; i++)
        if (is_port(all->items[i]) && has_address(all->items[i], nic))
            return;
    format_mac(nic, address);
    if (!nic->has_mac)
        snprintf(address, sizeof address, "%012X", (unsigned)index);
    snprintf(suffix, sizeof suffix, "%s%s", NIC, address);
    struct rp_cim_instance *port = instance_of(all, "Msvm_SyntheticEthernetPortSettingData", suffix);
    rp_cim_set(port, "ElementName", rp_cim_string("Network Adapter"));
    rp_cim_set(port, "StaticMacAddress", rp_cim_boolean(nic->has_mac));
    rp_cim_set(port, "Address", rp_cim_string(nic->has_mac ? address : "000000000000"));
}

static void write_own(const struct rp_domain_settings *s, struct rp_cim_instances *all)
{
    struct rp_cim_instance *own = instance_of(all, OWN_CLASS, DOMAIN);
    struct rp_cim_value disks = rp_cim_null(RP_CIM_STRING, true), adapters = rp_cim_null(RP_CIM_STRING, true);
    rp_cim_set(own, "Machine", rp_cim_string(s->generation == 2 || s->q35 ? "q35" : "pc"));
    rp_cim_set(own, "Cpu", rp_cim_string(cpus[s->cpu]));
    if (*s->kernel) {
        rp_cim_set(own, "Kernel", rp_cim_string(s->kernel));
        rp_cim_set(own, "Initrd", rp_cim_string(s->initrd));
        rp_cim_set(own, "CommandLine", rp_cim_string(s->command_line));
    }
    for (size_t i = 0; i < s->disk_count; i++) {
        RP_AUTO_FREE char *text = rp_xasprintf("%u %s", s->disks[i].number, buses[s->disks[i].bus]);
        if (s->disks[i].bus != RP_DOMAIN_BUS_DEFAULT)
            push_text(&disks, text);
    }
    for (size_t i = 0; i < s->nic_count; i++) {
        char address[13];
        RP_AUTO_FREE char *text = rp_xasprintf("%s %s", format_mac(&s->nics[i], address), models[s->nics[i].model]);
        if (s->nics[i].has_mac)
            push_text(&adapters, text);
    }
    rp_cim_set(own, "Disks", disks);
    rp_cim_set(own, "Adapters", adapters);
}

static void write_memory(const struct rp_domain_settings *s, struct rp_cim_instances *all)
{
    bool dynamic = s->most_mib > s->memory_mib || (s->least_mib && s->least_mib < s->memory_mib);
    struct rp_cim_instance *memory = instance_of(all, "Msvm_MemorySettingData", MEMORY);
    number(memory, "VirtualQuantity", s->memory_mib);
    number(memory, "Reservation", dynamic && s->least_mib ? s->least_mib : s->memory_mib);
    number(memory, "Limit", dynamic && s->most_mib ? s->most_mib : s->memory_mib);
    rp_cim_set(memory, "DynamicMemoryEnabled", rp_cim_boolean(dynamic));
}

static void write_system(const struct rp_domain_settings *s, struct rp_cim_instances *all)
{
    struct rp_cim_instance *system = instance_of(all, "Msvm_VirtualSystemSettingData", "");
    rp_cim_set(system, "VirtualSystemSubType", rp_cim_string(s->generation == 1 ? "Microsoft:Hyper-V:SubType:1"
                                                                                : "Microsoft:Hyper-V:SubType:2"));
    rp_cim_set(system, "SecureBootEnabled", rp_cim_boolean(s->secure_boot));
    // A domain's store has Microsoft's keys for others too.
    if (s->secure_boot)
        rp_cim_set(system, "SecureBootTemplateId", rp_cim_string(s->microsoft_windows ? KEYS_WINDOWS : KEYS_OTHERS));
}

char *rp_domain_settings_to_extras(const struct rp_domain_settings *s, const char *extras, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = {0};
    if (rp_cim_text_parse(extras, &all, err))
        return NULL;
    struct rp_cim_instance *security = NULL;
    drop_old(s, &all);
    write_system(s, &all);
    if (s->processors)
        number(instance_of(&all, "Msvm_ProcessorSettingData", PROCESSOR), "VirtualQuantity", s->processors);
    if (s->memory_mib)
        write_memory(s, &all);
    for (size_t i = 0; i < all.count && !security; i++)
        security = is(all.items[i], "Msvm_SecuritySettingData") ? all.items[i] : NULL;
    if (!security && s->tpm)
        security = instance_of(&all, "Msvm_SecuritySettingData", SECURITY);
    if (security)
        rp_cim_set(security, "TpmEnabled", rp_cim_boolean(s->tpm));
    for (size_t i = 0; i < s->nic_count; i++)
        write_nic(&s->nics[i], i, &all);
    write_own(s, &all);
    return rp_cim_text_format(&all, err);
}
