// What real clients send, word for word (fuzz/corpus/wsman-service; facts/wmi.md 2 and 3), and what they look for in
// the answers. The folder is the argument.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cim/xml.h"
#include "reply.h"
#include "wsman/names.h"

static const char *folder;

// The messages of one file, answered in their order. The answers stay until the end of the test.
struct talk {
    struct site site;
    struct reply answers[8];
    size_t count;
};

static void talk_end(struct talk *talk)
{
    for (size_t i = 0; i < talk->count; i++)
        reply_clear(&talk->answers[i]);
    site_close(&talk->site);
}

static void talk(struct talk *talk, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    static char text[1 << 16];
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    site_open(&talk->site, NULL);
    talk->count = 0;
    for (char *p = text, *end; p; p = end) {
        end = strstr(p, "%%\n");
        size_t length = end ? (size_t)(end - p) : strlen(p);
        end = end ? end + 3 : NULL;
        struct reply *reply = &talk->answers[talk->count++];
        *reply = (struct reply){0};
        reply_to(&talk->site, p, length, reply);
        if (!reply->document)
            fail_msg("%s: no XML comes back", name);
    }
}

// The only object of a PullResponse, as libvirt takes it: the first child of Items, an element of the class's
// namespace, in which every scalar property occurs exactly once (an absent one would make it refuse the object).
static void is_object(const struct reply *reply, const char *uri, const struct rp_cim_class *class)
{
    assert_int_equal(reply->status, 200);
    xmlNode *body = rp_xml_child(xmlDocGetRootElement(reply->document), RP_NS_SOAP, "Body");
    xmlNode *items = rp_xml_child(rp_xml_child(body, RP_NS_ENUMERATION, "PullResponse"), RP_NS_ENUMERATION, "Items");
    xmlNode *object = rp_xml_first(items);
    assert_non_null(object);
    assert_null(rp_xml_next(object));
    RP_AUTO_FREE char *name_space = rp_xasprintf("%s%s", uri, class->name);
    if (!rp_xml_is(object, name_space, class->name))
        fail_msg("<%s xmlns=\"%s\">", object->name, object->ns->href);
    for (size_t i = 0; i < class->property_count; i++) {
        size_t count = 0, nil = 0;
        for (xmlNode *node = rp_xml_first(object); node; node = rp_xml_next(node)) {
            count += rp_xml_is(node, name_space, class->properties[i].name);
            nil += rp_xml_is(node, name_space, class->properties[i].name) && rp_xml_is_nil(node);
        }
        if (class->properties[i].array ? nil != 0 : count != 1)
            fail_msg("%zu elements %s, of which %zu are nil", count, class->properties[i].name, nil);
    }
}

static const struct rp_cim_class *class_of(const struct talk *talk, const char *name)
{
    const struct rp_cim_class *class = rp_cim_schema_class(talk->site.v2->schema, name);
    return class ? class : rp_cim_schema_class(talk->site.cimv2->schema, name);
}

static void is_last(const struct reply *reply, bool last)
{
    assert_int_equal(reply_count(reply, "//n:PullResponse/n:EndOfSequence"), last);
    assert_int_equal(reply_count(reply, "//n:PullResponse/n:EnumerationContext"), !last);
}

static void libvirt_connects_and_learns_what_host_it_is(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "libvirt-connect");
    is_object(&t.answers[1], CIMV2_URI, class_of(&t, "Win32_ComputerSystemProduct"));
    is_object(&t.answers[3], CIMV2_URI, class_of(&t, "Win32_OperatingSystem"));
    is_object(&t.answers[5], CIMV2_URI, class_of(&t, "Win32_Processor"));
    assert_true(reply_is(&t.answers[1], "//n:Items/*/*[local-name()='UUID']", WEB));
    assert_true(reply_is(&t.answers[3], "//n:Items/*/*[local-name()='Version']", "10.0.20348"));
    assert_true(reply_is(&t.answers[5], "//n:Items/*/*[local-name()='NumberOfCores']", "8"));
    is_last(&t.answers[5], true);
}

static void libvirt_lists_machines_one_per_pull(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "libvirt-list");
    assert_true(reply_is(&t.answers[0], "/s:Envelope/s:Header/a:RelatesTo",
                         "uuid:00000007-1111-1111-8002-000000000000"));
    assert_true(reply_is(&t.answers[0], "/s:Envelope/s:Header/a:Action", RP_NS_ENUMERATION "/EnumerateResponse"));
    is_object(&t.answers[1], V2_URI, class_of(&t, "Msvm_ComputerSystem"));
    is_object(&t.answers[2], V2_URI, class_of(&t, "Msvm_ComputerSystem"));
    assert_true(reply_is(&t.answers[1], "//n:Items/*/*[local-name()='ElementName']", "web"));
    assert_true(reply_is(&t.answers[2], "//n:Items/*/*[local-name()='ElementName']", "db & <co>"));
    assert_true(reply_is(&t.answers[1], "//*[local-name()='TimeOfLastStateChange']/cim:Datetime",
                         "2026-01-02T03:04:05.678Z"));
    is_last(&t.answers[1], false);
    is_last(&t.answers[2], true);
    RP_AUTO_FREE char *fault = reply_fault(&t.answers[3]); // it has ended
    assert_string_equal(fault, "n:InvalidEnumerationContext 500");
}

static void libvirt_finds_a_machine_by_lower_case_id_and_its_settings(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "libvirt-active");
    assert_true(reply_is(&t.answers[1], "//n:Items/*/*[local-name()='Name']", WEB));
    is_last(&t.answers[1], true);
    talk_end(&t);
    talk(&t, "libvirt-dominfo");
    is_object(&t.answers[1], V2_URI, class_of(&t, "Msvm_VirtualSystemSettingData"));
    assert_true(reply_is(&t.answers[1], "//*[local-name()='AutomaticStartupActionDelay']/cim:Interval",
                         "P0DT0H1M30.5S"));
    is_object(&t.answers[3], V2_URI, class_of(&t, "Msvm_ProcessorSettingData"));
    assert_true(reply_is(&t.answers[3], "//*[local-name()='VirtualQuantity']", "4"));
    is_object(&t.answers[5], V2_URI, class_of(&t, "Msvm_StorageAllocationSettingData"));
    is_object(&t.answers[6], V2_URI, class_of(&t, "Msvm_StorageAllocationSettingData"));
    assert_int_equal(reply_count(&t.answers[5], "//*[local-name()='HostResource']"), 1);
    assert_int_equal(reply_count(&t.answers[6], "//*[local-name()='HostResource']"), 0);
    is_last(&t.answers[6], true);
}

static void libvirt_gets_an_empty_sequence_for_a_pattern_that_nothing_matches(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "libvirt-vcpucount");
    assert_int_equal(reply_count(&t.answers[1], "//n:PullResponse/n:Items"), 1);
    assert_int_equal(reply_count(&t.answers[1], "//n:PullResponse/n:Items/*"), 0);
    is_last(&t.answers[1], true);
}

// hyperv_wmi.c: hypervInvokeMethod
#define JOB_OF(method)                                                                                                 \
    "/s:Envelope/s:Body/p:" method "_OUTPUT/p:Job/a:ReferenceParameters/w:SelectorSet/w:Selector[@Name='InstanceID']"

static void libvirt_turns_a_machine_off_and_polls_the_job(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "libvirt-destroy");
    assert_true(reply_is(&t.answers[0], "/s:Envelope/s:Body/p:RequestStateChange_OUTPUT/p:ReturnValue", "4096"));
    assert_true(reply_is(&t.answers[0], JOB_OF("RequestStateChange"), JOB));
    assert_true(reply_is(&t.answers[0], "/s:Envelope/s:Header/a:Action",
                         V2_URI "Msvm_ComputerSystem/RequestStateChangeResponse"));
    assert_int_equal(rp_cim_get_unsigned(t.site.v2->in, "RequestedState", 0), 3);
    assert_string_equal(rp_cim_path_get(t.site.v2->target, "Name"), WEB);
    assert_true(reply_is(&t.answers[2], "//n:Items/*/*[local-name()='JobState']", "4"));
}

static void libvirt_changes_settings_with_an_instance_as_text_and_one_key_of_four(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "libvirt-autostart");
    assert_true(reply_is(&t.answers[0], "/s:Envelope/s:Body/p:ModifySystemSettings_OUTPUT/p:ReturnValue", "4096"));
    const char *text = rp_cim_get_text(t.site.v2->in, "SystemSettings");
    assert_true(text && strstr(text, "<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSettingData\">") && strstr(text, WEB));
    assert_int_equal(t.site.v2->target->key_count, 4);
}

static void libvirt_gives_back_the_reference_that_it_was_given(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "libvirt-undefine");
    assert_true(reply_is(&t.answers[1], "//n:Items/a:EndpointReference/a:Address", RP_ADDRESS_ANONYMOUS));
    assert_true(reply_is(&t.answers[1], "//n:Items/a:EndpointReference/a:ReferenceParameters/w:ResourceURI",
                         V2_URI "Msvm_ComputerSystem"));
    assert_true(reply_is(&t.answers[1], "//w:SelectorSet/w:Selector[@Name='__cimnamespace']",
                         "root/virtualization/v2"));
    assert_true(reply_is(&t.answers[1], "//w:SelectorSet/w:Selector[@Name='Name']", WEB));
    assert_true(reply_is(&t.answers[2], JOB_OF("DestroySystem"), JOB));
    const struct rp_cim_path *path = rp_cim_get_path(t.site.v2->in, "AffectedSystem");
    assert_true(path && !strcmp(path->name_space, "root/virtualization/v2") && path->key_count == 2);
}

static void pywinrm_gets_what_it_selected_in_batches(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "pywinrm-query");
    assert_int_equal(reply_count(&t.answers[0], "//n:EnumerateResponse/w:Items/*"), 2);
    assert_int_equal(reply_count(&t.answers[0], "//n:EnumerateResponse/w:Items/*/*"), 4);
    assert_int_equal(reply_count(&t.answers[0], "//w:EndOfSequence"), 0);
    assert_int_equal(reply_count(&t.answers[1], "//n:PullResponse/n:Items/*"), 1);
    is_last(&t.answers[1], true);
}

#define DMTF(class) "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/" class

static void omi_gets_answers_in_its_own_style(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "omi-get");
    xmlNode *body = rp_xml_child(xmlDocGetRootElement(t.answers[0].document), RP_NS_SOAP, "Body");
    assert_true(rp_xml_is(rp_xml_first(body), DMTF("Msvm_ComputerSystem"), "Msvm_ComputerSystem"));
    talk_end(&t);
    talk(&t, "omi-enumerate");
    assert_int_equal(reply_count(&t.answers[0], "//w:Items/*"), 1);
    assert_int_equal(reply_count(&t.answers[1], "//n:Items/*"), 2);
    assert_true(reply_is(&t.answers[2], "//w:Items/*/*[local-name()='InstanceID']", JOB));
    assert_int_equal(reply_count(&t.answers[2], "//n:EnumerateResponse/w:EndOfSequence"), 1);
}

static void omi_passes_references_as_objects_inline(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "omi-invoke");
    assert_true(reply_is(&t.answers[0], "/s:Envelope/s:Body/p:CreateSnapshot_OUTPUT/p:ReturnValue", "4096"));
    assert_true(reply_is(&t.answers[0], "//p:Job/a:ReferenceParameters/w:ResourceURI", DMTF("Msvm_ConcreteJob")));
    assert_int_equal(reply_count(&t.answers[0], "//p:ResultingSnapshot[@xsi:nil='true']"), 1);
    const struct rp_cim_path *path = rp_cim_get_path(t.site.v2->in, "AffectedSystem");
    assert_non_null(path);
    assert_string_equal(path->class_name, "Msvm_ComputerSystem");
    assert_int_equal(path->key_count, 2); // ElementName is no key
    assert_int_equal(rp_cim_get_unsigned(t.site.v2->in, "SnapshotType", 0), 32768);
}

static void windows_gets_objects_with_their_references(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "windows-query");
    assert_int_equal(reply_count(&t.answers[0], "//w:Items/w:Item"), 2);
    assert_int_equal(reply_count(&t.answers[0], "//w:Items/w:Item/a:EndpointReference/a:ReferenceParameters"), 2);
    assert_int_equal(reply_count(&t.answers[0], "//n:EnumerateResponse/w:EndOfSequence"), 1);
    talk_end(&t);
    talk(&t, "windows-selectors");
    assert_true(reply_is(&t.answers[0], "//w:Items/*/*[local-name()='Name']", WEB));
}

static void windows_follows_associations_by_the_filter_of_dmtf(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "windows-associators");
    assert_true(reply_is(&t.answers[0], "//w:Items/*/*[local-name()='InstanceID']", "Microsoft:" WEB));
    // the association itself, whose keys are references
    assert_true(reply_is(&t.answers[1], "//w:Items/a:EndpointReference/a:ReferenceParameters/w:SelectorSet"
                         "/w:Selector[@Name='SettingData']/a:EndpointReference/a:ReferenceParameters/w:SelectorSet"
                         "/w:Selector[@Name='InstanceID']", "Microsoft:" WEB));
}

static void windows_reads_changes_and_removes_an_object(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "windows-get-put-delete");
    assert_true(reply_is(&t.answers[0], "//*[local-name()='ElementName']", "web"));
    assert_true(reply_is(&t.answers[1], "//*[local-name()='ElementName']", "renamed"));
    assert_int_equal(reply_count(&t.answers[1], "//*[local-name()='Notes']"), 2);
    assert_true(reply_is(&t.answers[1], "//*[local-name()='CreationTime']/cim:Datetime", "2026-01-02T03:04:05.678Z"));
    assert_true(reply_is(&t.answers[1], "/s:Envelope/s:Header/a:Action", RP_NS_TRANSFER "/PutResponse"));
    assert_int_equal(t.answers[2].status, 200);
    assert_int_equal(reply_count(&t.answers[2], "/s:Envelope/s:Body/*"), 0);
}

static void windows_gets_embedded_objects_and_arrays_out_of_methods(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "windows-summary");
    assert_true(reply_is(&t.answers[0], "//p:SummaryInformation/*[local-name()='ElementName']", "web <1>"));
    assert_true(reply_is(&t.answers[0], "//p:SummaryInformation/@xsi:type", "q1:Msvm_SummaryInformation_Type"));
    assert_int_equal(reply_count(&t.answers[0], "//p:SummaryInformation/*[@xsi:nil='true' and local-name()='Notes']"),
                     1);
    assert_int_equal(rp_cim_get_unsigned(t.site.v2->in, "ByteLength", 0), 3);
    assert_int_equal(reply_count(&t.answers[1], "//p:GetVirtualDiskChanges_OUTPUT/p:ChangedByteOffsets"), 3);
    assert_true(reply_is(&t.answers[1], "//p:ChangedByteOffsets[3]", "2097152"));
}

static void identify_tells_the_version_to_whom_it_knows(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "windows-identify");
    static const char vendor[] = "/s:Envelope/s:Body/wsmid:IdentifyResponse/wsmid:ProductVendor";
    static const char version[] = "/s:Envelope/s:Body/wsmid:IdentifyResponse/wsmid:ProductVersion";
    assert_true(reply_is(&t.answers[0], vendor, "Microsoft Corporation"));
    assert_true(reply_is(&t.answers[0], version, "OS: 10.0.20348 SP: 0.0 Stack: 3.0"));
    assert_true(reply_is(&t.answers[0], "//wsmid:ProtocolVersion", RP_NS_WSMAN));
    t.site.caller.user = NULL;
    static const char request[] = "<e:Envelope xmlns:e=\"" RP_NS_SOAP "\"><e:Body><Identify xmlns=\"" RP_NS_IDENTITY
                                  "\"/></e:Body></e:Envelope>";
    reply_to(&t.site, request, sizeof request - 1, &t.answers[0]);
    assert_true(reply_is(&t.answers[0], vendor, "Microsoft Corporation"));
    assert_true(reply_is(&t.answers[0], version, "OS: 0.0.0 SP: 0.0 Stack: 3.0"));
}

static void a_released_enumeration_is_gone(void **state)
{
    (void)state;
    RP_CLEANUP(talk_end) struct talk t;
    talk(&t, "windows-release");
    assert_int_equal(t.answers[1].status, 200);
    RP_AUTO_FREE char *fault = reply_fault(&t.answers[2]);
    assert_string_equal(fault, "n:InvalidEnumerationContext 500");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(libvirt_connects_and_learns_what_host_it_is),
        cmocka_unit_test(libvirt_lists_machines_one_per_pull),
        cmocka_unit_test(libvirt_finds_a_machine_by_lower_case_id_and_its_settings),
        cmocka_unit_test(libvirt_gets_an_empty_sequence_for_a_pattern_that_nothing_matches),
        cmocka_unit_test(libvirt_turns_a_machine_off_and_polls_the_job),
        cmocka_unit_test(libvirt_changes_settings_with_an_instance_as_text_and_one_key_of_four),
        cmocka_unit_test(libvirt_gives_back_the_reference_that_it_was_given),
        cmocka_unit_test(pywinrm_gets_what_it_selected_in_batches),
        cmocka_unit_test(omi_gets_answers_in_its_own_style),
        cmocka_unit_test(omi_passes_references_as_objects_inline),
        cmocka_unit_test(windows_gets_objects_with_their_references),
        cmocka_unit_test(windows_follows_associations_by_the_filter_of_dmtf),
        cmocka_unit_test(windows_reads_changes_and_removes_an_object),
        cmocka_unit_test(windows_gets_embedded_objects_and_arrays_out_of_methods),
        cmocka_unit_test(identify_tells_the_version_to_whom_it_knows),
        cmocka_unit_test(a_released_enumeration_is_gone),
    };
    folder = argc > 1 ? argv[1] : "fuzz/corpus/wsman-service";
    return cmocka_run_group_tests_name("wsman clients", tests, NULL, NULL);
}
