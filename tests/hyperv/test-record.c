// Recordings: nothing in them tells whose host it was, and they answer our client as the host did.
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fake.h"
#include "hyperv/scrub.h"

static struct rp_error err;
static char folder[64];

static int setup(void **state)
{
    (void)state;
    rp_error_clear(&err);
    snprintf(folder, sizeof folder, "/tmp/wmi5-record-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    RP_AUTO_FREE char *command = rp_xasprintf("rm -rf '%s'", folder);
    return system(command);
}

static char *scrubbed(struct rp_scrub *scrub, const char *text)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_scrub_message(scrub, text, strlen(text), &out);
    return rp_xstrdup(rp_buf_text(&out));
}

static void names_paths_and_guids_become_others_and_the_rest_stays(void **state)
{
    (void)state;
    RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_scrub_new(&err);
    RP_AUTO_FREE char *out = scrubbed(scrub, "<p:Msvm_ComputerSystem xmlns:p=\"http://x\"><p:ElementName>Payroll db "
                                             "(Müller)</p:ElementName><p:EnabledState>2</p:EnabledState>"
                                             "<p:Name>A1B2C3D4-0000-4000-8000-00000000000A</"
                                             "p:Name><p:CreationClassName>Msvm_ComputerSystem</p:CreationClassName>"
                                             "<p:CreationTime><cim:Datetime>2026-01-02T03:04:05.678Z</cim:Datetime></"
                                             "p:CreationTime></p:Msvm_ComputerSystem>");
    assert_string_equal(out, "<p:Msvm_ComputerSystem xmlns:p=\"http://x\"><p:ElementName>x1 x2 "
                             "(x3)</p:ElementName><p:EnabledState>2</p:EnabledState>"
                             "<p:Name>00000000-0000-4000-8000-000000000001</"
                             "p:Name><p:CreationClassName>Msvm_ComputerSystem</p:CreationClassName>"
                             "<p:CreationTime><cim:Datetime>2026-01-02T03:04:05.678Z</cim:Datetime></p:CreationTime></"
                             "p:Msvm_ComputerSystem>");
    RP_AUTO_FREE char *path = scrubbed(scrub, "<p:HostResource>D:\\Payroll\\db.avhdx</p:HostResource>"
        "<p:InstanceID>Microsoft:a1b2c3d4-0000-4000-8000-00000000000a\\SCSI\\0\\1\\L</p:InstanceID>");
    assert_string_equal(path, "<p:HostResource>D:\\x1\\x2.avhdx</p:HostResource>"
        "<p:InstanceID>Microsoft:00000000-0000-4000-8000-000000000001\\SCSI\\0\\1\\L</p:InstanceID>");
    RP_AUTO_FREE char *query = scrubbed(
        scrub,
        "<a:To>https://hv1.corp.example:5986/wsman</a:To><w:Filter Dialect=\"x\">SELECT * FROM Msvm_ComputerSystem"
        " WHERE ElementName = &quot;Payroll&quot;</w:Filter><f:WSManFault Code=\"5\" "
        "Machine=\"HV1.corp\"><f:Message>payroll</f:Message>");
    assert_string_equal(query, "<a:To>http://host/wsman</a:To><w:Filter Dialect=\"x\">SELECT * FROM Msvm_ComputerSystem"
                               " WHERE ElementName = &quot;x1&quot;</w:Filter><f:WSManFault Code=\"5\" "
                               "Machine=\"x4.x5\"><f:Message>x1</f:Message>");
}

static void what_looks_like_a_number_or_hides_in_the_xml_is_replaced_as_well(void **state)
{
    (void)state;
    static const struct {
        const char *text, *secret;
    } cases[] = {
        {"<p:BIOSSerialNumber>2813-2452-1742-0412-7562-5183-46</p:BIOSSerialNumber>", "2452"},
        {"<p:ElementName>4711</p:ElementName>", "4711"},
        {"<p:ElementName>2026-01-02T03:04:05Z</p:ElementName>", "2026"},
        {"<p:ElementName>web 192.0.2.17 (old)</p:ElementName>", "192"},
        {"<p:HostResource>\\\\192.0.2.17\\vms\\a.vhdx</p:HostResource>", ".17"},
        {"<f:Message>no route to 2001:470:1234::17</f:Message>", "1234"},
        {"<f:Message>no route to 2001:470:1234::17</f:Message>", "470"},
        {"<p:Address>00155D010203</p:Address>", "00155D"},
        {"<p:Address>001550102030</p:Address>", "0015501"},
        {"<p:Notes>00:15:5d:01:02:03</p:Notes>", "15:5d"},
        {"<p:Owner>LAB\\backup, S-1-5-21-1004336348-1177238915-682003330-512</p:Owner>", "1004336348"},
        {"<p:Owner>LAB\\backup</p:Owner>", "backup"},
        {"<p:JobStatus>Copying payroll.vhdx</p:JobStatus>", "payroll"},
        {"<p:StatusDescriptions>Merging disks: no room on E:\\payroll</p:StatusDescriptions>", "payroll"},
        {"<p:Value>payroll</p:Value>", "payroll"},
        {"<p:Value>w:Payroll</p:Value>", "payroll"},
        {"<p:MessageID>uuid:of payroll</p:MessageID>", "payroll"},
        {"<p:Notes>RCT: payroll</p:Notes>", "payroll"},
        {"<p:Notes>rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001</p:Notes>", "5bfde23b"},
        {"<f:WSManFault Machine='payroll'/>", "payroll"},
        {"<f:WSManFault\nMachine = \"payroll\"/>", "payroll"},
        {"<f:ProviderFault path=\"C:\\payroll\" provider=\"WMI\"/>", "payroll"},
        {"<p:SettingData><![CDATA[payroll <b>of payroll</b>]]></p:SettingData>", "payroll"},
        {"<p:SettingData><![CDATA[payroll", "payroll"},
        {"<a/><!-- payroll > payroll -->", "payroll"},
        {"<!DOCTYPE payroll><a/>", "payroll"},
        {"<p:SettingData>&lt;PROPERTY NAME=\"ElementName\" TYPE=\"string\"&gt;&lt;VALUE&gt;4711&lt;/VALUE&gt;"
         "</p:SettingData>", "4711"},
        {"<p:SettingData>&lt;PROPERTY NAME=\"Size\" TYPE=\"uint64\"&gt;&lt;VALUE&gt;1&lt;/VALUE&gt;&lt;/PROPERTY&gt;"
         "&lt;PROPERTY.ARRAY NAME=\"Notes\"&gt;&lt;VALUE&gt;4711&lt;/VALUE&gt;</p:SettingData>", "4711"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_scrub_new(&err);
        RP_AUTO_FREE char *out = scrubbed(scrub, cases[i].text);
        if (strcasestr(out, cases[i].secret))
            fail_msg("%s became %s", cases[i].text, out);
    }
    RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_scrub_new(&err);
    RP_CLEANUP(rp_buf_clear) struct rp_buf wide = {0};
    rp_scrub_message(scrub, "<\0a\0>\0p\0a\0y\0", 12, &wide); // UTF-16
    assert_null(strchr(rp_buf_text(&wide), 'p'));
}

static void what_tells_developers_something_stays(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "<a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address>",
        "<a:MessageID>uuid:A1B2C3D4-0000-4000-8000-00000000000A</a:MessageID>",
        "<s:Value>w:InvalidSelectors</s:Value>", "<p:MaxInternalSize>1099511627776</p:MaxInternalSize>",
        "<w:OperationTimeout>PT60.000S</w:OperationTimeout>", "<p:ReturnValue>32775</p:ReturnValue>",
        "<p:CreationTime>20260102030405.000000+000</p:CreationTime>", "<p:AddressOnParent>63</p:AddressOnParent>",
        "<wsmid:ProductVersion>OS: 10.0.20348 SP: 0.0 Stack: 3.0</wsmid:ProductVersion>",
        "<p:SettingData>&lt;PROPERTY TYPE=\"uint64\"&gt;&lt;VALUE&gt;1073741824&lt;/VALUE&gt;</p:SettingData>",
        "<w:Selector Name=\"__cimnamespace\">root/virtualization/v2</w:Selector>",
        "<p:Job xsi:type=\"p:X_Type\" xmlns:p=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/X\"/>",
    };
    RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_scrub_new(&err);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        RP_AUTO_FREE char *out = scrubbed(scrub, texts[i]);
        assert_string_equal(out, texts[i]);
    }
    // an id of change tracking stays one, and the same
    RP_AUTO_FREE char *ids = scrubbed(scrub, "<p:A>rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001</p:A>"
                                             "<p:A>rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000002</p:A>");
    assert_string_equal(ids, "<p:A>rctX:00000000:0000:4000:8000:000000000001:00000001</p:A>"
                             "<p:A>rctX:00000000:0000:4000:8000:000000000001:00000002</p:A>");
}

static void anything_at_all_can_be_scrubbed(void **state)
{
    (void)state;
    RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_scrub_new(&err);
    static const char *const texts[] = {"",
                                        "<",
                                        "<a",
                                        "</",
                                        ">",
                                        "<a>",
                                        "<a>b",
                                        "< >",
                                        "<a:b:c>d</",
                                        "<x Machine=\"",
                                        "<x Machine=\"y",
                                        "<![CDATA[",
                                        "<![CDATA[]]",
                                        "<!--",
                                        "<a b='c\">d",
                                        "rct",
                                        "rctX:",
                                        "1.2.3.",
                                        "TYPE=\"s",
                                        "::",
                                        "\xff\xfe",
                                        "<?xml?><!-- a -->b"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
        RP_AUTO_FREE char *exact = malloc(strlen(texts[i]) + 1); // its end is watched by the sanitizer
        memcpy(exact, texts[i], strlen(texts[i]));
        rp_scrub_message(scrub, exact, strlen(texts[i]), &out);
    }
}

static unsigned draw(uint64_t *random, unsigned below)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*random >> 33) % below;
}

static void a_name_stays_nowhere_whatever_is_around_it(void **state)
{
    (void)state;
    static const char *const elements[] = {"p:ElementName", "a:Address", "a:MessageID", "s:Value", "p:JobStatus", "x",
                                           "p:SettingData", "w:FaultDetail", "p:InstallDate", "p:Unknown", "a:To"};
    static const char *const around[] = {"", " ", ".", ":", "4", "&lt;", "&quot;", "\\", "(", "-", "rct", "rctX:", "::",
                                         "10.", "1.2.3.4", "TYPE=&quot;uint64&quot;", "PROPERTY", "uuid:", "w:", "=",
                                         "P1D", "\xc3\xbc", ":Sender"};
    static const char *const shapes[] = {"<%s>%s%s%s</y>", "<%s a=\"%s%s%s\"/>", "<%s Machine='%s%s%s'>",
                                         "<%s><![CDATA[%s%s%s]]>", "<%s><!-- %s%s%s -->", "<%s a = \"%s%s%s\">"};
    const char *given = getenv("RP_TEST_SEED");
    uint64_t random = given ? strtoull(given, NULL, 10) : 1;
    printf("# RP_TEST_SEED=%llu\n", (unsigned long long)random);
    RP_CLEANUP(rp_scrub_free_p) struct rp_scrub *scrub = rp_scrub_new(&err);
#define ANY(list) list[draw(&random, sizeof list / sizeof *list)]
    for (unsigned round = 0; round < 20000; round++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        for (unsigned parts = 1 + draw(&random, 3); parts--;) {
            RP_AUTO_FREE char *name = rp_xasprintf("%s%s", draw(&random, 2) ? ANY(around) : "", ANY(around));
            rp_buf_printf(&text, ANY(shapes), ANY(elements), name, "Payroll", ANY(around));
        }
        size_t size = draw(&random, 2) ? text.size : draw(&random, (unsigned)text.size + 1);
        RP_AUTO_FREE char *exact = strndup(rp_buf_text(&text), size); // its end is watched by the sanitizer
        RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
        rp_scrub_message(scrub, exact, size, &out);
        if (strcasestr(rp_buf_text(&out), "payroll"))
            fail_msg("%s became %s", exact, rp_buf_text(&out));
    }
}

// Reads what `host test --record` reads, and counts.
static void read_all(struct rp_host_connection *host, size_t counts[5])
{
    RP_CLEANUP(rp_wmi_facts_clear) struct rp_wmi_facts facts = {0};
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
    if (rp_host_wmi_facts(host, &facts, &err) || host->ops->list_vms(host, &vms, &err) || vms.count < 1 ||
        host->ops->list_snapshots(host, vms.items[0].id, &snapshots, &err) ||
        host->ops->inventory(host, &inventory, &err))
        fail_msg("%s", err.text);
    counts[0] = vms.count;
    counts[1] = snapshots.count;
    counts[2] = inventory.items[0].settings.disk_count;
    counts[3] = facts.our_snapshots;
    counts[4] = inventory.items[0].points.count;
    assert_true(facts.services && facts.reference_points);
}

static void a_recording_answers_as_the_host_did_and_tells_no_names(void **state)
{
    (void)state;
    size_t then[5], now[5];
    struct fake *fake = fake_start();
    fake_vm(fake, FAKE_B, "Payroll");
    fake_disk(fake, FAKE_A, "C0\\0\\0", "D:\\Payroll\\web1.vhdx");
    fake_snapshot(fake, FAKE_A, "A1B2C3D4-0000-4000-8000-0000000000C1",
                  "refpoint:11111111-1111-4111-8111-111111111111:22222222-2222-4222-8222-222222222222");
    fake_point(fake, FAKE_A, "Microsoft:A1B2C3D4-0000-4000-8000-0000000000D1", "");
    struct rp_record *record = rp_record_new(folder, &err);
    assert_non_null(record);
    struct rp_host_connection *host = fake_connect_traced(fake, rp_record_trace, record);
    read_all(host, then);
    rp_host_close(host);
    int exchanges = rp_record_end(record, &err);
    assert_true(exchanges > 8);
    assert_int_equal(then[0], 2);
    assert_int_equal(then[1] + then[2] + then[3] + then[4], 4);
    static const char *const secrets[] = {"Payroll", "web1", "HV1", "A1B2C3D4", "a1b2c3d4", "11111111-1111"};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        RP_AUTO_FREE char *command = rp_xasprintf("grep -rqs '%s' '%s'", secrets[i], folder);
        if (system(command) == 0)
            fail_msg("%s is in the recording", secrets[i]);
    }
    fake->replay = folder;
    host = fake_connect(fake);
    read_all(host, now);
    rp_host_close(host);
    fake_stop(fake);
    assert_memory_equal(now, then, sizeof now);
}

static void a_folder_with_something_in_it_is_left_alone(void **state)
{
    (void)state;
    RP_AUTO_FREE char *file = rp_xasprintf("%s/file", folder), *fresh = rp_xasprintf("%s/fresh", folder);
    fclose(fopen(file, "w"));
    assert_null(rp_record_new(folder, &err));
    assert_int_equal(err.code, RP_ERR_EXISTS);
    struct rp_record *record = rp_record_new(fresh, NULL);
    assert_non_null(record);
    struct stat st;
    assert_int_equal(stat(fresh, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    rp_record_trace(record, true, "<a>b</a>", 8);
    assert_int_equal(rp_record_end(record, NULL), 1);
    record = rp_record_new("/proc/nowhere", NULL);
    assert_null(record);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(names_paths_and_guids_become_others_and_the_rest_stays),
        TEST(what_looks_like_a_number_or_hides_in_the_xml_is_replaced_as_well),
        TEST(what_tells_developers_something_stays),
        TEST(anything_at_all_can_be_scrubbed),
        TEST(a_name_stays_nowhere_whatever_is_around_it),
        TEST(a_recording_answers_as_the_host_did_and_tells_no_names),
        TEST(a_folder_with_something_in_it_is_left_alone),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
