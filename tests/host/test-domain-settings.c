// A VM's settings between Hyper-V's classes and libvirt's definitions: there and back, both generations, and values that nobody
// honest sends.
#include "host-kit.h"

#include <libxml/relaxng.h>
#include <unistd.h>

#include "host/domain_settings.h"
#include "host/domain_xml.h"

#define VM "1B2C3D4E-0000-4000-8000-00000000000A"
#define SOCKET "/var/lib/refpoint/vms/" VM "/nbd.sock"

static struct rp_error err;

// ---- kit ------------------------------------------------------------------------------------------------------------

static char remarks[4096];
static void take_remark(void *context, const char *text)
{
    (void)context;
    size_t used = strlen(remarks);
    snprintf(remarks + used, sizeof remarks - used, "%s\n", text);
}
static const struct rp_domain_remarks listen = {take_remark, NULL};

#define PROPERTY(type, name, value) "<PROPERTY NAME=\"" name "\" TYPE=\"" type "\"><VALUE>" value "</VALUE></PROPERTY>"
#define INSTANCE(class_name, id, properties)                                                                           \
    "<INSTANCE CLASSNAME=\"" class_name "\">" PROPERTY("string", "InstanceID", id) properties "</INSTANCE>\n"
#define SYSTEM(generation, more)                                                                                       \
    INSTANCE("Msvm_VirtualSystemSettingData", "",                                                                      \
             PROPERTY("string", "VirtualSystemSubType", "Microsoft:Hyper-V:SubType:" generation) more)
#define PROCESSORS(count) INSTANCE("Msvm_ProcessorSettingData", "\\b637f346-6a0e-4dec-af52-bd70cb80a21d\\0", PROPERTY("uint64", "VirtualQuantity", count))
#define MEMORY(start, least, most, dynamic)                                                                            \
    INSTANCE("Msvm_MemorySettingData", "\\4764334d-e001-4176-82ee-5594ec9b530e",                                       \
             PROPERTY("uint64", "VirtualQuantity", start) PROPERTY("uint64", "Reservation", least)                     \
                 PROPERTY("uint64", "Limit", most) PROPERTY("boolean", "DynamicMemoryEnabled", dynamic))
#define NIC(kind, id, address) INSTANCE("Msvm_" kind "EthernetPortSettingData", "\\" id, PROPERTY("string", "Address", address))
#define TPM INSTANCE("Msvm_SecuritySettingData", "\\tpm", PROPERTY("boolean", "TpmEnabled", "TRUE"))

#define MODERN SYSTEM("2", PROPERTY("boolean", "SecureBootEnabled", "TRUE")) PROCESSORS("4") \
    MEMORY("2048", "512", "8192", "TRUE") NIC("Synthetic", "a", "00155D010203") TPM

static struct rp_domain_settings read_extras(const char *extras)
{
    struct rp_domain_settings s;
    remarks[0] = '\0';
    kit_ok(rp_domain_settings_of_extras(extras, &s, &listen, &err), err);
    return s;
}

static struct rp_domain_target targets[RP_ENGINE_MAX_DISKS];

static struct rp_domain_xml_options options_of(const uint32_t *numbers, size_t count)
{
    return (struct rp_domain_xml_options){.name = "web1", .id = VM, .socket = SOCKET, .numbers = numbers, .disk_count = count,
                                          .emulated = true, .network = "default"};
}

static char *write_xml(const struct rp_domain_settings *s, const struct rp_domain_xml_options *options)
{
    remarks[0] = '\0';
    memset(targets, 0, sizeof targets);
    char *xml = rp_domain_settings_to_xml(s, options, targets, &listen, &err);
    kit_ok(!xml, err);
    return xml;
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void lacks(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("\"%s\" is in:\n%s", part, text);
}

#define SCHEMA "/usr/share/libvirt/schemas/domain.rng"
static xmlRelaxNG *schema;

static void keep_schema_error(void *context, const char *format, ...)
{
    (void)context;
    va_list args;
    va_start(args, format);
    size_t used = strlen(remarks);
    vsnprintf(remarks + used, sizeof remarks - used, format, args);
    va_end(args);
}

// By libvirt's own schema, where it is installed.
static void validate(const char *xml)
{
    if (access(SCHEMA, R_OK))
        return;
    if (!schema) {
        xmlRelaxNGParserCtxt *parser = xmlRelaxNGNewParserCtxt(SCHEMA);
        schema = xmlRelaxNGParse(parser);
        xmlRelaxNGFreeParserCtxt(parser);
        assert_non_null(schema);
    }
    xmlDoc *document = xmlReadMemory(xml, (int)strlen(xml), NULL, NULL, XML_PARSE_NONET);
    assert_non_null(document);
    xmlRelaxNGValidCtxt *valid = xmlRelaxNGNewValidCtxt(schema);
    size_t used = strlen(remarks);
    xmlRelaxNGSetValidErrors(valid, keep_schema_error, NULL, NULL);
    int rc = xmlRelaxNGValidateDoc(valid, document);
    xmlRelaxNGFreeValidCtxt(valid);
    xmlFreeDoc(document);
    if (rc)
        fail_msg("libvirt's schema: %s", remarks + used);
}

// ---- Hyper-V to libvirt ---------------------------------------------------------------------------------------------

static void a_vm_of_generation_2_becomes_a_domain_with_ovmf(void **state)
{
    (void)state;
    const uint32_t numbers[] = {0, 2};
    struct rp_domain_settings s = read_extras(MODERN);
    assert_string_equal(remarks, "");
    struct rp_domain_xml_options options = options_of(numbers, 2);
    RP_AUTO_FREE char *xml = write_xml(&s, &options);
    validate(xml);
    has(xml, "<domain type='qemu'>");
    has(xml, "<name>web1</name>");
    has(xml, "<uuid>" VM "</uuid>");
    has(xml, "<memory unit='MiB'>8192</memory>");
    has(xml, "<currentMemory unit='MiB'>2048</currentMemory>");
    has(xml, ">4</vcpu>");
    has(xml, "machine='q35'");
    has(xml, "<loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.ms.fd</loader>");
    has(xml, "<nvram template='/usr/share/OVMF/OVMF_VARS_4M.ms.fd'></nvram>");
    has(xml, "<smm state='on'/>");
    has(xml, "<source protocol='nbd' name='disk2'>");
    has(xml, "<host transport='unix' socket='" SOCKET "'/>");
    has(xml, "<target dev='sda' bus='scsi'/>");
    has(xml, "<mac address='00:15:5d:01:02:03'/>");
    has(xml, "<source network='default'/>");
    has(xml, "<tpm model='tpm-crb'>");
    has(xml, "org.qemu.guest_agent.0");
    assert_int_equal(targets[1].number, 2);
    assert_string_equal(targets[1].target, "sdb");
    has(remarks, "shrink to 512 MiB");
    has(remarks, "virtio-scsi");
}

static void a_vm_of_generation_1_becomes_a_domain_with_a_bios_and_ide(void **state)
{
    (void)state;
    const uint32_t numbers[] = {0, 1, 2, 3, 64, 65};
    struct rp_domain_settings s = read_extras(SYSTEM("1", "") PROCESSORS("1") MEMORY("512", "512", "512", "FALSE")
                                              NIC("Emulated", "e", "00155D0A0B0C") TPM);
    struct rp_domain_xml_options options = options_of(numbers, 6);
    RP_AUTO_FREE char *xml = write_xml(&s, &options);
    validate(xml);
    has(xml, "machine='pc'");
    lacks(xml, "<loader");
    lacks(xml, "<tpm");
    has(remarks, "has no TPM");
    has(xml, "<memory unit='MiB'>512</memory>");
    has(xml, "<model type='e1000'/>");
    assert_string_equal(targets[0].target, "hda");
    assert_string_equal(targets[3].target, "hdd");
    assert_string_equal(targets[4].target, "sda"); // two IDE controllers have four places
    assert_string_equal(targets[5].target, "sdb");
}

static void settings_that_say_nothing_make_a_domain_all_the_same(void **state)
{
    (void)state;
    const uint32_t numbers[] = {0};
    struct rp_domain_settings s = read_extras("");
    struct rp_domain_xml_options options = options_of(numbers, 1);
    RP_AUTO_FREE char *xml = write_xml(&s, &options);
    validate(xml);
    has(xml, "<memory unit='MiB'>1024</memory>");
    has(xml, "OVMF_CODE_4M.fd");
    has(xml, "secure='no'");
    lacks(xml, "<interface");
}

static void all_disks_that_a_vm_may_have_get_a_target_of_their_own(void **state)
{
    (void)state;
    uint32_t numbers[RP_ENGINE_MAX_DISKS];
    for (uint32_t i = 0; i < RP_ENGINE_MAX_DISKS; i++)
        numbers[i] = i;
    struct rp_domain_settings s = read_extras(SYSTEM("2", ""));
    struct rp_domain_xml_options options = options_of(numbers, RP_ENGINE_MAX_DISKS);
    RP_AUTO_FREE char *xml = write_xml(&s, &options);
    validate(xml);
    assert_string_equal(targets[25].target, "sdz");
    assert_string_equal(targets[26].target, "sdaa");
    assert_string_equal(targets[51].target, "sdaz");
    assert_string_equal(targets[52].target, "sdba");
}

static void memory_that_this_host_does_not_have_is_not_promised(void **state)
{
    (void)state;
    struct rp_domain_settings s = read_extras(MEMORY("2048", "2048", "1048576", "TRUE"));
    struct rp_domain_xml_options options = options_of(NULL, 0);
    options.memory_limit_mib = 4096;
    RP_AUTO_FREE char *xml = write_xml(&s, &options);
    has(xml, "<memory unit='MiB'>4096</memory>");
    has(xml, "<currentMemory unit='MiB'>2048</currentMemory>");
    has(remarks, "at most 4096 MiB");
}

static void without_a_network_no_adapter_has_a_link_and_another_vm_gets_other_addresses(void **state)
{
    (void)state;
    struct rp_domain_settings s = read_extras(MODERN);
    struct rp_domain_xml_options options = options_of(NULL, 0);
    options.network = NULL;
    options.new_macs = true;
    options.console = "/tmp/a&b";
    options.nvram = "/tmp/c<d";
    RP_AUTO_FREE char *xml = write_xml(&s, &options);
    validate(xml);
    has(xml, "<link state='down'/>");
    lacks(xml, "00:15:5d");
    has(xml, "<source path='/tmp/a&amp;b'/>");
    has(xml, ">/tmp/c&lt;d</nvram>");
}

static void what_has_no_counterpart_is_told(void **state)
{
    (void)state;
    read_extras(INSTANCE("Msvm_ResourceAllocationSettingData", "\\dvd", PROPERTY("string", "ResourceSubType", "Microsoft:Hyper-V:Synthetic DVD Drive"))
                INSTANCE("Msvm_PciExpressSettingData", "\\pci", "")
                INSTANCE("Msvm_ProcessorSettingData", "\\p", PROPERTY("uint64", "VirtualQuantity", "2") PROPERTY("uint64", "Limit", "50000")));
    has(remarks, "a DVD drive");
    has(remarks, "a PCI device");
    has(remarks, "limit");
}

// ---- libvirt to Hyper-V, and back -----------------------------------------------------------------------------------

static const char domain[] =
    "<domain type='kvm'><name>db</name><uuid>11111111-2222-3333-4444-555555555555</uuid>"
    "<memory unit='KiB'>4194304</memory><currentMemory unit='GiB'>1</currentMemory><vcpu placement='static'>3</vcpu>"
    "<os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.ms.fd</loader>"
    "<nvram>/var/lib/libvirt/qemu/nvram/db_VARS.fd</nvram></os><cpu mode='host-passthrough'/>"
    "<devices><disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk>"
    "<disk type='file' device='disk'><target dev='sda' bus='sata'/></disk>"
    "<disk type='file' device='cdrom'><target dev='sdb' bus='sata'/></disk>"
    "<interface type='network'><mac address='52:54:00:aa:bb:cc'/><model type='rtl8139'/></interface>"
    "<interface type='bridge'><mac address='52:54:00:aa:bb:cd'/><model type='virtio'/></interface>"
    "<hostdev mode='subsystem' type='pci'/><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices></domain>";
static const struct rp_domain_target domain_disks[] = {{0, "vda"}, {1, "sda"}};

static int settings_of(const char *text, const struct rp_domain_target *disks, size_t count, struct rp_domain_settings *to)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    rp_error_clear(&err);
    return rp_domain_xml_parse(text, &xml, &err) || rp_domain_settings_of_xml(&xml, disks, count, to, &listen, &err) ? -1 : 0;
}

static struct rp_domain_settings read_domain(const char *xml)
{
    struct rp_domain_settings s;
    remarks[0] = '\0';
    kit_ok(settings_of(xml, domain_disks, 2, &s), err);
    return s;
}

static void a_domain_says_what_hyper_v_would_say(void **state)
{
    (void)state;
    struct rp_domain_settings s = read_domain(domain);
    has(remarks, "<hostdev>");
    RP_AUTO_FREE char *extras = rp_domain_settings_to_extras(&s, "", &err);
    kit_ok(!extras, err);
    has(extras, "Microsoft:Hyper-V:SubType:2");
    has(extras, "525400AABBCC");
    has(extras, "Refpoint_DomainSettingData");
    struct rp_domain_settings again = read_extras(extras);
    assert_int_equal(again.generation, 2);
    assert_int_equal(again.processors, 3);
    assert_int_equal(again.memory_mib, 1024);
    assert_int_equal(again.most_mib, 4096);
    assert_true(again.secure_boot);
    assert_true(again.tpm);
    assert_int_equal(again.cpu, RP_DOMAIN_CPU_HOST);
    assert_int_equal(again.nic_count, 2);
    assert_int_equal(again.nics[0].model, RP_DOMAIN_NIC_RTL8139);
    assert_int_equal(again.disk_count, 2);
    assert_memory_equal(&again, &s, sizeof s);
}

static void a_domain_that_was_saved_comes_back_with_the_same_hardware(void **state)
{
    (void)state;
    const uint32_t numbers[] = {0, 1};
    struct rp_domain_settings s = read_domain(domain);
    RP_AUTO_FREE char *extras = rp_domain_settings_to_extras(&s, "", &err);
    struct rp_domain_settings again = read_extras(extras);
    struct rp_domain_xml_options options = options_of(numbers, 2);
    options.emulated = false;
    RP_AUTO_FREE char *xml = write_xml(&again, &options);
    validate(xml);
    has(xml, "<target dev='vda' bus='virtio'/>");
    has(xml, "<target dev='sda' bus='sata'/>");
    has(xml, "<model type='rtl8139'/>");
    has(xml, "<cpu mode='host-passthrough'/>");
    struct rp_domain_settings third = read_domain(xml);
    assert_memory_equal(&third, &s, sizeof s);
}

// A path in settings that come from anywhere would let a guest read any file of the host.
static void a_kernel_of_the_host_is_booted_only_where_the_host_says_so(void **state)
{
    (void)state;
    static const char booted[] = "<domain type='kvm'><uuid>11111111-2222-3333-4444-555555555555</uuid>"
        "<memory>524288</memory><os><type>hvm</type><kernel>/boot/vmlinuz</kernel>"
                                 "<initrd>/boot/initrd</initrd><cmdline>console=ttyS0 a&lt;b</cmdline></os></domain>";
    struct rp_domain_settings s = read_domain(booted);
    RP_AUTO_FREE char *extras = rp_domain_settings_to_extras(&s, "", &err);
    struct rp_domain_settings again = read_extras(extras);
    assert_memory_equal(&again, &s, sizeof s);
    struct rp_domain_xml_options options = options_of(NULL, 0);
    RP_AUTO_FREE char *without = write_xml(&again, &options);
    lacks(without, "<kernel>");
    has(remarks, "it boots /boot/vmlinuz of the host that it comes from");
    options.host_kernel = true;
    RP_AUTO_FREE char *with = write_xml(&again, &options);
    validate(with);
    has(with, "<kernel>/boot/vmlinuz</kernel>");
    has(with, "<initrd>/boot/initrd</initrd>");
    has(with, "<cmdline>console=ttyS0 a&lt;b</cmdline>");
}

static void a_bios_domain_comes_back_as_one(void **state)
{
    (void)state;
    static const char old[] = "<domain type='kvm'><uuid>11111111-2222-3333-4444-555555555555</uuid>"
        "<memory>524288</memory><vcpu>1</vcpu><os><type machine='pc-i440fx-7.2'>hvm</type>"
                              "</os><devices><disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk></devices></domain>";
    const uint32_t numbers[] = {0};
    struct rp_domain_settings s = read_domain(old);
    assert_int_equal(s.generation, 1);
    assert_int_equal(s.memory_mib, 512);
    RP_AUTO_FREE char *extras = rp_domain_settings_to_extras(&s, "", &err);
    has(extras, "SubType:1");
    struct rp_domain_settings again = read_extras(extras);
    struct rp_domain_xml_options options = options_of(numbers, 1);
    RP_AUTO_FREE char *xml = write_xml(&again, &options);
    has(xml, "machine='pc'");
    has(xml, "<target dev='vda' bus='virtio'/>");
}

static void what_clients_have_set_besides_stays(void **state)
{
    (void)state;
    struct rp_domain_settings s = read_domain(domain);
    RP_AUTO_FREE char *first = rp_domain_settings_to_extras(
        &s, SYSTEM("2", PROPERTY("string", "Notes", "mine")) NIC("Synthetic", "mine", "525400AABBCC") NIC("Synthetic", "gone", "525400FFFFFF")
            INSTANCE("Msvm_HeartbeatComponentSettingData", "\\h", ""), &err);
    kit_ok(!first, err);
    has(first, "mine");
    has(first, "\\mine");
    has(first, "Msvm_HeartbeatComponentSettingData");
    lacks(first, "525400FFFFFF"); // the domain has it no more
    RP_AUTO_FREE char *second = rp_domain_settings_to_extras(&s, first, &err);
    assert_string_equal(first, second); // and to say it twice changes nothing
}

// ---- hostile --------------------------------------------------------------------------------------------------------

static void values_that_no_vm_has_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        PROCESSORS("100000"), PROCESSORS("18446744073709551615"), MEMORY("18446744073709551615", "1", "1", "FALSE"),
        MEMORY("2048", "4096", "1024", "TRUE"), MEMORY("2048", "1", "99999999999999", "TRUE"),
        NIC("Synthetic", "a", "01155D010203"), NIC("Synthetic", "a", "00155D0102"), NIC("Synthetic", "a", "00155D0102030405"),
        NIC("Synthetic", "a", "&apos;/&gt;&lt;x/&gt;"),
        INSTANCE("Refpoint_DomainSettingData", "\\d", PROPERTY("string", "Machine", "pc' evil='")),
        INSTANCE("Refpoint_DomainSettingData", "\\d", PROPERTY("string", "Cpu", "x")),
        INSTANCE("Refpoint_DomainSettingData", "\\d", PROPERTY("string", "Kernel", "boot/x")),
        INSTANCE("Refpoint_DomainSettingData", "\\d", PROPERTY("string", "Kernel", "/x&lt;/kernel&gt;")),
        INSTANCE("Refpoint_DomainSettingData", "\\d", PROPERTY("string", "Disks", "0 usb")),
        INSTANCE("Refpoint_DomainSettingData", "\\d", PROPERTY("string", "Disks", "-1 scsi")),
        INSTANCE("Refpoint_DomainSettingData", "\\d", PROPERTY("string", "Adapters", "00155D010203 $(reboot)")),
    };
    struct rp_domain_settings s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        kit_fails(rp_domain_settings_of_extras(bad[i], &s, NULL, &err), err, RP_ERR_INVALID);
    kit_fails(rp_domain_settings_of_extras("<INSTANCE", &s, NULL, &err), err, RP_ERR_CORRUPT);
}

static void names_and_paths_cannot_end_their_element(void **state)
{
    (void)state;
    const uint32_t numbers[] = {0};
    struct rp_domain_settings s = read_extras(MODERN);
    struct rp_domain_xml_options options = options_of(numbers, 1);
    options.name = "a</name><devices><hostdev/>'\"&";
    options.socket = "/x'/><evil y='";
    options.network = "n'/><evil/>";
    RP_AUTO_FREE char *xml = write_xml(&s, &options);
    lacks(xml, "<evil");
    lacks(xml, "<hostdev");
    has(remarks, "is called"); // the slash
    options.id = "x'/><evil/>";
    kit_fails(!rp_domain_settings_to_xml(&s, &options, targets, NULL, &err), err, RP_ERR_INVALID);
}

#define DOMAIN(what) "<domain><uuid>11111111-2222-3333-4444-555555555555</uuid>" what "</domain>"

static void definitions_that_are_none_are_refused(void **state)
{
    (void)state;
    struct rp_domain_settings s;
    static const char *const corrupt[] = {"", "<domain>", "<network/>", "<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>"};
    static const char *const invalid[] = {
        DOMAIN("<memory unit='E'>99999999</memory>"), DOMAIN("<memory unit='parsec'>1</memory>"),
        DOMAIN("<memory>-1</memory>"), DOMAIN("<vcpu>0</vcpu>"), DOMAIN("<vcpu>4x</vcpu>"),
        DOMAIN("<devices><interface><mac address='01:00:00:00:00:00'/></interface></devices>"),
        DOMAIN("<devices><interface><mac address='52:54:00:aa:bb'/></interface></devices>"),
    };
    for (size_t i = 0; i < sizeof corrupt / sizeof *corrupt; i++)
        kit_fails(settings_of(corrupt[i], NULL, 0, &s), err, RP_ERR_CORRUPT);
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++)
        kit_fails(settings_of(invalid[i], NULL, 0, &s), err, RP_ERR_INVALID);
}

// A definition that a domain can be adopted with is one that its checkpoints can be made of.
static void a_definition_as_large_as_any_that_is_adopted_has_its_settings(void **state)
{
    (void)state;
    struct rp_domain_settings s;
    size_t room = RP_DOMAIN_XML_MAX - sizeof DOMAIN("<description></description><vcpu>3</vcpu>") + 1;
    RP_AUTO_FREE char *long_text = rp_xmalloc(room + 2), *largest = NULL, *larger = NULL;
    memset(long_text, 'x', room + 1);
    long_text[room + 1] = '\0';
    larger = kit_path(DOMAIN("<description>%s</description><vcpu>3</vcpu>"), long_text);
    long_text[room] = '\0';
    largest = kit_path(DOMAIN("<description>%s</description><vcpu>3</vcpu>"), long_text);
    kit_ok(settings_of(largest, NULL, 0, &s), err);
    assert_int_equal(s.processors, 3);
    kit_fails(settings_of(larger, NULL, 0, &s), err, RP_ERR_CORRUPT);
}

// The settings of a restore point that could not be read again would make it one that cannot be restored.
static void a_boot_that_settings_cannot_have_is_left_out_of_them(void **state)
{
    (void)state;
    static const char *const boots[] = {"<kernel>boot/v</kernel>", "<kernel>/v</kernel><initrd>[boot/i</initrd>",
                                        "<kernel>/v</kernel><cmdline>a\x7f</cmdline>", "<kernel>/v</kernel><cmdline>a&#10;b</cmdline>",
                                        "<kernel>/a&amp;b</kernel>"};
    for (size_t i = 0; i < sizeof boots / sizeof *boots; i++) {
        struct rp_domain_settings s;
        RP_AUTO_FREE char *xml = kit_path(DOMAIN("<os>%s</os>"), boots[i]);
        remarks[0] = '\0';
        kit_ok(settings_of(xml, NULL, 0, &s), err);
        has(remarks, "the kernel that it boots");
        RP_AUTO_FREE char *extras = rp_domain_settings_to_extras(&s, "", &err);
        kit_ok(!extras, err);
        assert_string_equal(read_extras(extras).kernel, "");
    }
}

// However it is nested or how much of anything it has.
static void what_is_too_much_of_anything_is_refused(void **state)
{
    (void)state;
    static const char *const devices[] = {"<disk/>", "<interface/>", "<hostdev/>", "<video/>"};
    struct rp_domain_settings s;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        for (int n = 0; n <= RP_DOMAIN_XML_DEVICES; n++)
            rp_buf_printf(&text, "%s", devices[i]);
        RP_AUTO_FREE char *xml = kit_path(DOMAIN("<devices>%s</devices>"), rp_buf_text(&text));
        kit_fails(settings_of(xml, NULL, 0, &s), err, RP_ERR_CORRUPT);
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf deep = {0};
    for (int n = 0; n < 100; n++)
        rp_buf_printf(&deep, "<backingStore type='file'>");
    for (int n = 0; n < 100; n++)
        rp_buf_printf(&deep, "</backingStore>");
    RP_AUTO_FREE char *xml = kit_path(DOMAIN("<devices><disk>%s</disk></devices>"), rp_buf_text(&deep));
    kit_fails(settings_of(xml, NULL, 0, &s), err, RP_ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vm_of_generation_2_becomes_a_domain_with_ovmf),
        cmocka_unit_test(a_vm_of_generation_1_becomes_a_domain_with_a_bios_and_ide),
        cmocka_unit_test(settings_that_say_nothing_make_a_domain_all_the_same),
        cmocka_unit_test(all_disks_that_a_vm_may_have_get_a_target_of_their_own),
        cmocka_unit_test(memory_that_this_host_does_not_have_is_not_promised),
        cmocka_unit_test(without_a_network_no_adapter_has_a_link_and_another_vm_gets_other_addresses),
        cmocka_unit_test(what_has_no_counterpart_is_told),
        cmocka_unit_test(a_domain_says_what_hyper_v_would_say),
        cmocka_unit_test(a_domain_that_was_saved_comes_back_with_the_same_hardware),
        cmocka_unit_test(a_kernel_of_the_host_is_booted_only_where_the_host_says_so),
        cmocka_unit_test(a_bios_domain_comes_back_as_one),
        cmocka_unit_test(what_clients_have_set_besides_stays),
        cmocka_unit_test(values_that_no_vm_has_are_refused),
        cmocka_unit_test(names_and_paths_cannot_end_their_element),
        cmocka_unit_test(definitions_that_are_none_are_refused),
        cmocka_unit_test(a_definition_as_large_as_any_that_is_adopted_has_its_settings),
        cmocka_unit_test(a_boot_that_settings_cannot_have_is_left_out_of_them),
        cmocka_unit_test(what_is_too_much_of_anything_is_refused),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xmlRelaxNGFree(schema);
    xmlRelaxNGCleanupTypes();
    return failed;
}
