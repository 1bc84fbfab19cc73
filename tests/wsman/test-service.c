// The service's operations: what they give, and every fault (DSP0226 14.6; facts/wmi.md 2.8).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reply.h"
#include "wsman/names.h"

#define VM V2_URI "Msvm_ComputerSystem"
#define SETTINGS V2_URI "Msvm_VirtualSystemSettingData"
#define VMMS V2_URI "Msvm_VirtualSystemManagementService"
#define ALL V2_URI "*"
#define WQL(query) "<n:Enumerate><w:Filter Dialect=\"" RP_DIALECT_WQL "\">" query "</w:Filter></n:Enumerate>"

static int open_site(void **state)
{
    static struct site site;
    site_open(&site, NULL);
    *state = &site;
    return 0;
}

static int close_site(void **state)
{
    site_close(*state);
    return 0;
}

struct message {
    const char *action, *uri, *selectors, *headers, *body;
};

#define M(action, uri, selectors) (struct message){action, uri, selectors, NULL, NULL}

static void fails(struct site *site, struct message m, const char *expected)
{
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    reply_to_message(site, m.action, m.uri, m.selectors, m.headers, m.body, &reply);
    RP_AUTO_FREE char *fault = reply_fault(&reply);
    if (strcmp(fault, expected) != 0)
        fail_msg("%s of %s with %s: \"%s\" instead of \"%s\"\n%.*s", m.action, m.uri ? m.uri : "nothing",
                 m.body ? m.body : "", fault, expected, (int)reply.bytes.size, (char *)reply.bytes.data);
    if (strncmp(expected, "s:", 2) != 0 && strchr(expected, ':'))
        assert_true(reply_is(&reply, "/s:Envelope/s:Header/a:RelatesTo", "uuid:1"));
}

static void resources_that_are_not_there_are_unreachable(void **state)
{
    struct site *site = *state;
    fails(site, M(RP_ACTION_GET, NULL, NULL), "a:DestinationUnreachable InvalidResourceURI 500");
    fails(site, M(RP_ACTION_GET, "http://other/uri", NULL), "a:DestinationUnreachable InvalidResourceURI 500");
    fails(site, M(RP_ACTION_GET, V2_URI "Absent", NULL), "a:DestinationUnreachable InvalidResourceURI 500");
    fails(site, M(RP_ACTION_GET, ALL, NULL), "a:DestinationUnreachable InvalidResourceURI 500");
    fails(site, M(RP_ACTION_GET, RP_URI_WMI "root/omi/OMI_Identify", NULL),
          "a:DestinationUnreachable InvalidResourceURI 500");
    fails(site, M(RP_ACTION_GET, VM, "__cimnamespace=root/cimv2"),
          "a:DestinationUnreachable InvalidResourceURI 500");
    fails(site, M(RP_ACTION_GET, VM, "CreationClassName=Msvm_ComputerSystem;Name=absent"),
          "a:DestinationUnreachable ResourceNotFound 500");
    fails(site, M(RP_ACTION_GET, VM, "Name=absent"), "a:DestinationUnreachable ResourceNotFound 500");
    fails(site, (struct message){RP_ACTION_ENUMERATE, ALL, NULL, NULL, "<n:Enumerate/>"},
          "a:DestinationUnreachable InvalidResourceURI 500");
}

static void selectors_have_to_be_keys_and_to_mean_one_instance(void **state)
{
    struct site *site = *state;
    fails(site, M(RP_ACTION_GET, VM, "ElementName=web"), "w:InvalidSelectors UnexpectedSelectors 500");
    fails(site, M(RP_ACTION_GET, VM, "Absent=web"), "w:InvalidSelectors UnexpectedSelectors 500");
    fails(site, M(RP_ACTION_GET, VM, "Name=a;NAME=b"), "w:InvalidSelectors DuplicateSelectors 500");
    fails(site, M(RP_ACTION_GET, VM, "CreationClassName=msvm_computersystem"),
          "w:InvalidSelectors InsufficientSelectors 500");
    fails(site, M(RP_ACTION_GET, VM, NULL), "w:InvalidSelectors InsufficientSelectors 500");
    fails(site, M(RP_ACTION_GET, V2_URI "CIM_ManagedElement", NULL), "w:InvalidSelectors InsufficientSelectors 500");
    fails(site, M(RP_ACTION_GET, V2_URI "Msvm_SettingsDefineState", "SettingData=no path at all"),
          "w:InvalidSelectors TypeMismatch 500");
    fails(site, (struct message){RP_ACTION_GET, VM, NULL, "<w:SelectorSet><w:Selector>a</w:Selector></w:SelectorSet>",
                                 NULL},
          "w:InvalidSelectors 500");
    fails(site, (struct message){RP_ACTION_ENUMERATE, VM, "Name=a", NULL, "<n:Enumerate/>"},
          "w:InvalidSelectors UnexpectedSelectors 500");
}

static void some_keys_in_any_case_are_enough_when_they_mean_one_instance(void **state)
{
    struct site *site = *state;
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    static const struct {
        const char *uri, *selectors, *xpath, *text;
    } tests[] = {
        {VM, "name=a1b2c3d4-0000-4000-8000-000000000001", "//p:Msvm_ComputerSystem/p:ElementName", "web"},
        {VM, "NAME=" DB ";creationclassname=MSVM_COMPUTERSYSTEM", "//p:Msvm_ComputerSystem/p:Name", DB},
        {V2_URI "CIM_ComputerSystem", "Name=" WEB, "//p:Msvm_ComputerSystem/p:Name", WEB},
        {V2_URI "cim_managedelement", "InstanceID=RP1", "//p:Msvm_VirtualSystemReferencePoint/p:InstanceID", "rp1"},
        {V2_URI "Msvm_VirtualSystemReferencePoint", "InstanceID=rp2", "//p:InstanceID", "rp2"},
        {VMMS, NULL, "//p:Msvm_VirtualSystemManagementService/p:Name", "vmms"},
        {CIMV2_URI "Win32_OperatingSystem", NULL, "//p:Win32_OperatingSystem/p:Version", "10.0.20348"},
        {RP_URI_WMI "ROOT/Virtualization/V2/MSVM_ConcreteJob", NULL, "//p:Msvm_ConcreteJob/p:InstanceID", JOB},
        {V2_URI "Msvm_SettingsDefineState", "SettingData=Msvm_VirtualSystemSettingData.InstanceID=\"microsoft:" DB "\"",
         "//p:ManagedElement//w:Selector[@Name='Name']", DB},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        reply_to_message(site, RP_ACTION_GET, tests[i].uri, tests[i].selectors, NULL, NULL, &reply);
        assert_true(reply_is(&reply, tests[i].xpath, tests[i].text));
    }
    assert_true(reply_is(&reply, "/s:Envelope/s:Header/a:Action", RP_NS_TRANSFER "/GetResponse"));
}

#define FROM_WEB(what, more)                                                                                           \
    "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>9</w:MaxElements><w:Filter Dialect=\"" RP_DIALECT_ASSOCIATION \
    "\"><b:" what "><b:Object><a:ReferenceParameters><w:ResourceURI>" VM "</w:ResourceURI><w:SelectorSet><w:Selector " \
    "Name=\"Name\">" WEB "</w:Selector></w:SelectorSet></a:ReferenceParameters></b:Object>" more "</b:" what ">"       \
    "</w:Filter></n:Enumerate>"

static void filters_of_associations_heed_roles_classes_and_columns(void **state)
{
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    static const struct {
        const char *body;
        int objects, properties;
    } tests[] = {
        {FROM_WEB("AssociatedInstances", "<b:Role>ManagedElement</b:Role>"), 1, -1},
        {FROM_WEB("AssociatedInstances", "<b:Role>SettingData</b:Role>"), 0, 0},
        {FROM_WEB("AssociatedInstances", "<b:ResultRole>settingdata</b:ResultRole>"), 1, -1},
        {FROM_WEB("AssociatedInstances", "<b:ResultRole>ManagedElement</b:ResultRole>"), 0, 0},
        {FROM_WEB("AssociatedInstances", "<b:ResultClassName>Msvm_ConcreteJob</b:ResultClassName>"), 0, 0},
        {FROM_WEB("AssociatedInstances", "<b:IncludeResultProperty>elementname</b:IncludeResultProperty>"
                  "<b:IncludeResultProperty>InstanceID</b:IncludeResultProperty>"), 1, 2},
        {FROM_WEB("AssociationInstances", ""), 1, 2},
        {FROM_WEB("AssociationInstances", "<b:Role>SettingData</b:Role>"), 0, 0},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        reply_to_message(*state, RP_ACTION_ENUMERATE, V2_URI "*", NULL, NULL, tests[i].body, &reply);
        assert_int_equal(reply.status, 200);
        assert_int_equal(reply_count(&reply, "//w:Items/*"), tests[i].objects);
        if (tests[i].properties >= 0)
            assert_int_equal(reply_count(&reply, "//w:Items/*/*"), tests[i].properties);
    }
}

static void headers_have_to_be_there_and_to_be_understood(void **state)
{
    struct site *site = *state;
    const char *body = "<n:Enumerate/>";
    static const struct {
        const char *header, *fault;
    } tests[] = {
        {"<q:New xmlns:q=\"q\" s:mustUnderstand=\"true\"/>", "s:MustUnderstand 500"},
        {"<q:New xmlns:q=\"q\" s:mustUnderstand=\"1\"/>", "s:MustUnderstand 500"},
        {"<a:Action>again</a:Action>", "a:InvalidMessageInformationHeader 400"},
        {"<w:MaxEnvelopeSize>many</w:MaxEnvelopeSize>", "a:InvalidMessageInformationHeader 400"},
        {"<w:OperationTimeout>soon</w:OperationTimeout>", "a:InvalidMessageInformationHeader 400"},
        {"<w:OperationTimeout>2026-01-01T00:00:00Z</w:OperationTimeout>", "a:InvalidMessageInformationHeader 400"},
        {"<w:OperationTimeout>PT0S</w:OperationTimeout>", "w:TimedOut 500"},
        {"<w:MaxEnvelopeSize>8191</w:MaxEnvelopeSize>", "w:EncodingLimit MinimumEnvelopeLimit 500"},
        {"<a:FaultTo><a:Address>http://elsewhere</a:Address></a:FaultTo>", "w:UnsupportedFeature AddressingMode 500"},
        {"<w:Locale s:mustUnderstand=\"true\"/>", "w:UnsupportedFeature Locale 500"},
        {"<p:DataLocale xmlns:p=\"" RP_NS_MICROSOFT "\" s:mustUnderstand=\"true\"/>",
         "w:UnsupportedFeature DataLocale 500"},
        {"<w:FragmentTransfer>a</w:FragmentTransfer>", "w:UnsupportedFeature FragmentLevelAccess 500"},
        {"<w:OptionSet><w:Option Name=\"a\" MustComply=\"true\"/></w:OptionSet>", "w:InvalidOptions NotSupported 500"},
        {"<q:New xmlns:q=\"q\"/><w:OptionSet><w:Option Name=\"a\"/></w:OptionSet>", "200"},
        {"<p:OperationID xmlns:p=\"" RP_NS_MICROSOFT "\" s:mustUnderstand=\"true\">uuid:2</p:OperationID>", "200"},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        fails(site, (struct message){RP_ACTION_ENUMERATE, VM, NULL, tests[i].header, body}, tests[i].fault);
}

static void a_message_without_the_headers_of_addressing_is_refused(void **state)
{
    struct site *site = *state;
    static const struct {
        const char *text, *fault;
    } tests[] = {
        {"", "a:MessageInformationHeaderRequired 400"},
        {"<a:Action>x</a:Action><a:MessageID>1</a:MessageID><a:To>h</a:To>", "a:MessageInformationHeaderRequired 400"},
        {"<a:Action>x</a:Action><a:MessageID>1</a:MessageID><a:ReplyTo><a:Address>" RP_ADDRESS_ANONYMOUS
         "</a:Address></a:ReplyTo>", "a:MessageInformationHeaderRequired 400"},
        {"<a:Action>x</a:Action><a:To>h</a:To><a:ReplyTo><a:Address>" RP_ADDRESS_ANONYMOUS "</a:Address></a:ReplyTo>",
         "a:MessageInformationHeaderRequired 400"},
        {"<a:MessageID>1</a:MessageID><a:To>h</a:To><a:ReplyTo><a:Address>" RP_ADDRESS_ANONYMOUS
         "</a:Address></a:ReplyTo>", "a:MessageInformationHeaderRequired 400"},
        {"<a:Action>x</a:Action><a:MessageID>1</a:MessageID><a:To>h</a:To><a:ReplyTo><a:Address>http://other"
         "</a:Address></a:ReplyTo>", "w:UnsupportedFeature AddressingMode 500"},
    };
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        RP_AUTO_FREE char *text = rp_xasprintf("<s:Envelope xmlns:s=\"" RP_NS_SOAP "\" xmlns:a=\"" RP_NS_ADDRESSING
                                               "\"><s:Header>%s</s:Header><s:Body/></s:Envelope>", tests[i].text);
        reply_to(site, text, strlen(text), &reply);
        RP_AUTO_FREE char *fault = reply_fault(&reply);
        assert_string_equal(fault, tests[i].fault);
    }
}

static void what_is_no_message_is_a_fault_of_the_schema(void **state)
{
    struct site *site = *state;
    static const char *const texts[] = {
        "", "<", "hello", "<a/>", "<s:Envelope xmlns:s=\"" RP_NS_SOAP "\"/>",
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body/></s:Envelope>",
        "<!DOCTYPE a [<!ENTITY b \"c\">]><s:Envelope xmlns:s=\"" RP_NS_SOAP "\"><s:Body>&b;</s:Body></s:Envelope>",
    };
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        reply_to(site, texts[i], strlen(texts[i]), &reply);
        RP_AUTO_FREE char *fault = reply_fault(&reply);
        assert_string_equal(fault, "w:SchemaValidationError 400");
    }
    fails(site, (struct message){RP_ACTION_ENUMERATE, VM, NULL, NULL, "<n:Pull/>"}, "w:SchemaValidationError 400");
    fails(site, (struct message){RP_ACTION_PULL, VM, NULL, NULL, "<n:Pull/>"}, "w:SchemaValidationError 400");
    fails(site, M(RP_ACTION_RELEASE, VM, NULL), "w:SchemaValidationError 400");
    fails(site, (struct message){RP_ACTION_ENUMERATE, VM, NULL, NULL,
                                 "<n:Enumerate><w:MaxElements>0</w:MaxElements></n:Enumerate>"},
          "w:SchemaValidationError 400");
}

static void filters_that_make_no_sense_cannot_be_processed(void **state)
{
    struct site *site = *state;
    static const struct {
        const char *body, *fault;
    } tests[] = {
        {WQL("SELECT * FRO Msvm_ComputerSystem"), "n:CannotProcessFilter 500"},
        {WQL(""), "n:CannotProcessFilter 500"},
        {WQL("SELECT * FROM Absent"), "n:CannotProcessFilter 500"},
        {WQL("SELECT Absent FROM Msvm_ComputerSystem"), "n:CannotProcessFilter 500"},
        {WQL("ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='" JOB "'} WHERE ResultClass=Absent"),
         "n:CannotProcessFilter 500"},
        {WQL("ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='" JOB "'} WHERE AssocClass=Absent"),
         "n:CannotProcessFilter 500"},
        {WQL("ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='" JOB "'} WHERE ClassDefsOnly"),
         "n:CannotProcessFilter 500"},
        {WQL("ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='gone'}"), "a:DestinationUnreachable ResourceNotFound 500"},
        {"<n:Enumerate><n:Filter>//x</n:Filter></n:Enumerate>", "n:FilterDialectRequestedUnavailable 500"},
        {"<n:Enumerate><w:Filter Dialect=\"http://www.w3.org/TR/1999/REC-xpath-19991116\">//x</w:Filter></n:Enumerate>",
         "n:FilterDialectRequestedUnavailable 500"},
        {"<n:Enumerate><w:Filter Dialect=\"" RP_DIALECT_SELECTOR "\"/></n:Enumerate>", "n:CannotProcessFilter 500"},
        {"<n:Enumerate><w:Filter Dialect=\"" RP_DIALECT_ASSOCIATION "\"/></n:Enumerate>", "n:CannotProcessFilter 500"},
        {"<n:Enumerate><w:Filter Dialect=\"" RP_DIALECT_ASSOCIATION "\"><b:AssociatedInstances><b:Object/>"
         "</b:AssociatedInstances></w:Filter></n:Enumerate>", "n:CannotProcessFilter 500"},
        {"<n:Enumerate><w:EnumerationMode>Backwards</w:EnumerationMode></n:Enumerate>",
         "w:UnsupportedFeature EnumerationMode 500"},
        {"<n:Enumerate><n:Filter Dialect=\"" RP_DIALECT_WQL "\">select * from CIM_Job</n:Filter></n:Enumerate>", "200"},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        fails(site, (struct message){RP_ACTION_ENUMERATE, ALL, NULL, NULL, tests[i].body}, tests[i].fault);
    fails(site, (struct message){RP_ACTION_ENUMERATE, VM, NULL, NULL,
                                 "<n:Enumerate><w:Filter Dialect=\"" RP_DIALECT_SELECTOR
          "\"><w:SelectorSet><w:Selector Name=\"Absent\">a</w:Selector></w:SelectorSet></w:Filter></n:Enumerate>"},
          "n:CannotProcessFilter 500");
}

#define CALL(class, method, parameters) V2_URI class "/" method, V2_URI class, NULL, NULL,                             \
    "<p:" method "_INPUT xmlns:p=\"" V2_URI class "\">" parameters "</p:" method "_INPUT>"

static void methods_have_to_exist_and_get_what_they_declare(void **state)
{
    struct site *site = *state;
    fails(site, M(VMMS "/Absent", VMMS, NULL), "a:ActionNotSupported 500");
    fails(site, M("http://other/action", VMMS, NULL), "a:ActionNotSupported 500");
    fails(site, M("nothing", VMMS, NULL), "a:ActionNotSupported 500");
    fails(site, M(VMMS "/", VMMS, NULL), "a:ActionNotSupported 500");
    fails(site, M(VM "/DefineSystem", VMMS, NULL), "a:ActionNotSupported 500");
    fails(site, M(RP_ACTION_CREATE, VM, NULL), "a:ActionNotSupported 500");
    fails(site, (struct message){CALL("Msvm_ImageManagementService", "GetVirtualDiskChanges",
                                      "<p:Absent>1</p:Absent>")},
          "w:InvalidParameter InvalidName 500");
    fails(site, (struct message){CALL("Msvm_ImageManagementService", "GetVirtualDiskChanges", "<p:Job>1</p:Job>")},
          "w:InvalidParameter InvalidName 500"); // goes out only
    fails(site, (struct message){CALL("Msvm_ImageManagementService", "GetVirtualDiskChanges",
                                      "<p:ByteLength>-1</p:ByteLength>")},
          "w:InvalidParameter TypeMismatch 500");
    fails(site, (struct message){CALL("Msvm_ImageManagementService", "GetVirtualDiskChanges",
          "<p:Path>a</p:Path><p:Path>b</p:Path>")}, "w:InvalidParameter TypeMismatch 500");
    fails(site, (struct message){VMMS "/DefineSystem", VMMS, NULL, NULL, "<p:Other_INPUT xmlns:p=\"" VMMS "\"/>"},
          "w:SchemaValidationError 400");
    fails(site, M(VMMS "/definesystem", VMMS, NULL), "200");
    fails(site, M(V2_URI "CIM_ComputerSystem/RequestStateChange", VM, "Name=" WEB), "200");
}

static void null_and_empty_and_repeated_parameters_arrive_as_such(void **state)
{
    struct site *site = *state;
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    reply_to_message(site, VMMS "/DefineSystem", VMMS, NULL, NULL,
        "<q:DefineSystem_INPUT xmlns:q=\"" VMMS "\"><q:SystemSettings/><q:ResourceSettings>a</q:ResourceSettings>"
        "<q:ResourceSettings> b </q:ResourceSettings>"
        "<q:ReferenceConfiguration xsi:nil=\"true\"/></q:DefineSystem_INPUT>", &reply);
    assert_true(reply_is(&reply, "//p:DefineSystem_OUTPUT/p:ReturnValue", "0"));
    assert_true(reply_is(&reply, "//p:ResultingSystem//w:Selector[@Name='__cimnamespace']", "root/virtualization/v2"));
    assert_int_equal(reply_count(&reply, "//p:Job[@xsi:nil='true']"), 1);
    const struct rp_cim_instance *in = site->v2->in;
    assert_string_equal(rp_cim_get_text(in, "SystemSettings"), "");
    assert_int_equal(rp_cim_get_count(in, "ResourceSettings"), 2);
    assert_string_equal(rp_cim_get_text_at(in, "ResourceSettings", 1), " b ");
    assert_true(rp_cim_value_is_null(rp_cim_get(in, "ReferenceConfiguration")));
    assert_string_equal(site->v2->user, "LAB\\admin");
}

static void rights_decide_who_may_write(void **state)
{
    struct site *site = *state;
    site->caller.access = RP_CIM_OPERATE;
    fails(site, M(RP_ACTION_PUT, SETTINGS, "InstanceID=Microsoft:" WEB), "w:AccessDenied 500");
    fails(site, M(RP_ACTION_DELETE, SETTINGS, "InstanceID=Microsoft:" WEB), "w:AccessDenied 500");
    fails(site, M(RP_ACTION_GET, SETTINGS, "InstanceID=Microsoft:" WEB), "200");
    fails(site, M(VMMS "/DefineSystem", VMMS, NULL), "200");
    site->caller.user = NULL;
    fails(site, M(RP_ACTION_GET, SETTINGS, "InstanceID=Microsoft:" WEB), "w:AccessDenied 500");
    fails(site, M(VMMS "/DefineSystem", VMMS, NULL), "w:AccessDenied 500");
}

static void put_takes_only_objects_of_the_class(void **state)
{
    struct site *site = *state;
    const char *selectors = "InstanceID=Microsoft:" WEB;
    fails(site, M(RP_ACTION_PUT, SETTINGS, selectors), "w:SchemaValidationError 400");
    fails(site, (struct message){RP_ACTION_PUT, SETTINGS, selectors, NULL,
                                 "<p:Msvm_ConcreteJob xmlns:p=\"" SETTINGS "\"/>"},
          "w:SchemaValidationError 400");
    fails(site, (struct message){RP_ACTION_PUT, SETTINGS, selectors, NULL,
                                 "<p:Msvm_VirtualSystemSettingData xmlns:p=\"" SETTINGS
          "\"><p:Absent/></p:Msvm_VirtualSystemSettingData>"}, "w:SchemaValidationError 400");
    fails(site, (struct message){RP_ACTION_PUT, VM, "Name=" WEB, NULL, "<p:Msvm_ComputerSystem xmlns:p=\"" VM "\"/>"},
          "w:UnsupportedFeature 500"); // says the provider
}

static void errors_of_the_provider_become_faults(void **state)
{
    struct site *site = *state;
    static const struct {
        enum rp_code code;
        const char *fault;
    } tests[] = {
        {RP_ERR_IO, "w:InternalError 500"}, {RP_ERR_PERMISSION, "w:AccessDenied 500"}, {RP_ERR_BUSY,
                                                                                        "w:Concurrency 500"},
        {RP_ERR_EXISTS, "w:AlreadyExists 500"}, {RP_ERR_NO_SPACE, "w:QuotaLimit 500"},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        site->v2->broken = tests[i].code;
        fails(site, M(RP_ACTION_GET, VM, "CreationClassName=Msvm_ComputerSystem;Name=" WEB), tests[i].fault);
        fails(site, (struct message){RP_ACTION_ENUMERATE, VM, NULL, NULL, "<n:Enumerate/>"}, tests[i].fault);
        fails(site, M(VMMS "/DefineSystem", VMMS, NULL), tests[i].fault);
    }
}

static void an_answer_that_does_not_fit_is_a_fault_and_says_what_was_done(void **state)
{
    struct site *site = *state;
    struct message changes = {CALL("Msvm_ImageManagementService", "GetVirtualDiskChanges",
                                   "<p:ByteLength>99999</p:ByteLength>")};
    fails(site, changes, "w:EncodingLimit UnreportableSuccess 500");
    struct message fewer = {CALL("Msvm_ImageManagementService", "GetVirtualDiskChanges",
                                 "<p:ByteLength>100</p:ByteLength>")};
    fails(site, fewer, "200");
    fewer.headers = "<w:MaxEnvelopeSize>8192</w:MaxEnvelopeSize>";
    fails(site, fewer, "w:EncodingLimit UnreportableSuccess 500");
    char notes[9001] = "";
    memset(notes, 'x', sizeof notes - 1);
    RP_AUTO_FREE char *body = rp_xasprintf("<p:Msvm_VirtualSystemSettingData xmlns:p=\"" SETTINGS "\"><p:Notes>%s"
                                           "</p:Notes></p:Msvm_VirtualSystemSettingData>", notes);
    fails(site, (struct message){RP_ACTION_PUT, SETTINGS, "InstanceID=Microsoft:" WEB, fewer.headers, body},
          "w:EncodingLimit UnreportableSuccess 500");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_site, close_site)
    const struct CMUnitTest tests[] = {
        TEST(resources_that_are_not_there_are_unreachable),
        TEST(selectors_have_to_be_keys_and_to_mean_one_instance),
        TEST(some_keys_in_any_case_are_enough_when_they_mean_one_instance),
        TEST(filters_of_associations_heed_roles_classes_and_columns),
        TEST(headers_have_to_be_there_and_to_be_understood),
        TEST(a_message_without_the_headers_of_addressing_is_refused),
        TEST(what_is_no_message_is_a_fault_of_the_schema),
        TEST(filters_that_make_no_sense_cannot_be_processed),
        TEST(methods_have_to_exist_and_get_what_they_declare),
        TEST(null_and_empty_and_repeated_parameters_arrive_as_such),
        TEST(rights_decide_who_may_write),
        TEST(put_takes_only_objects_of_the_class),
        TEST(errors_of_the_provider_become_faults),
        TEST(an_answer_that_does_not_fit_is_a_fault_and_says_what_was_done),
    };
    return cmocka_run_group_tests_name("wsman service", tests, NULL, NULL);
}
