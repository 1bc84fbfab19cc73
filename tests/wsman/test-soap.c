// Messages and what is in them, written and read: URIs, references, objects, faults, headers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wsman/message.h"
#include "wsman/names.h"

#define V2 RP_URI_WMI "root/virtualization/v2/"

static void is_resource(const char *uri, const char *selector, const char *expected)
{
    struct rp_error err = {0};
    enum rp_uri_style style;
    RP_AUTO_FREE char *name_space = NULL, *class_name = NULL, *found = NULL;
    if (rp_wsman_uri_parse(uri, selector, &style, &name_space, &class_name, &err))
        found = rp_xstrdup(rp_code_name(err.code));
    else
        found = rp_xasprintf("%s %s %s", style == RP_URI_STYLE_WMI ? "wmi" : "dmtf", name_space, class_name);
    assert_string_equal(found, expected);
}

static void both_families_of_resource_uris_are_understood(void **state)
{
    (void)state;
    is_resource(V2 "Msvm_X", NULL, "wmi root/virtualization/v2 Msvm_X");
    is_resource("HTTP://SCHEMAS.MICROSOFT.COM/wbem/wsman/1/WMI/root\\cimv2/*", NULL, "wmi root/cimv2 *");
    is_resource(V2 "Msvm_X", "ROOT\\virtualization/v2", "wmi root/virtualization/v2 Msvm_X");
    is_resource(V2 "Msvm_X", "root/cimv2", "invalid");
    is_resource(RP_URI_WMI "Win32_X", NULL, "wmi root/cimv2 Win32_X");
    is_resource(RP_URI_DMTF "Msvm_X", "root/virtualization/v2", "dmtf root/virtualization/v2 Msvm_X");
    is_resource(RP_URI_DMTF "CIM_X", NULL, "dmtf root/cimv2 CIM_X");
    is_resource(RP_URI_DMTF_ALL, "/root/x/", "dmtf root/x *");
    is_resource(V2, NULL, "invalid");
    is_resource(V2 "a b", NULL, "invalid");
    is_resource(V2 "1x", NULL, "invalid");
    is_resource("http://other/x", NULL, "invalid");
    is_resource("", NULL, "invalid");
    char longer[2000] = RP_URI_WMI;
    memset(longer + strlen(longer), 'a', sizeof longer - strlen(longer) - 1);
    longer[sizeof longer - 1] = 0;
    is_resource(longer, NULL, "invalid");
}

// The element written between these is read.
#define OPEN                                                                                                           \
    "<t xmlns:a=\"" RP_NS_ADDRESSING "\" xmlns:w=\"" RP_NS_WSMAN "\" xmlns:cim=\"" RP_NS_CIM "\" xmlns:xsi=\""    \
    RP_NS_XSI "\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:p=\"" V2 "Msvm_X\" xmlns:q=\"" V2 "Msvm_Y\">"

static xmlDoc *parse(const char *inside)
{
    RP_AUTO_FREE char *text = rp_xasprintf(OPEN "%s</t>", inside);
    xmlDoc *document = rp_xml_parse(text, strlen(text), strlen(text), NULL, NULL);
    assert_non_null(document);
    return document;
}

static struct rp_cim_instance *read_text(const char *inside, struct rp_error *err)
{
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = parse(inside);
    return rp_wsman_read_instance(rp_xml_first(xmlDocGetRootElement(document)), err);
}

static void a_reference_survives_being_written_and_read(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new("root/virtualization/v2", "Msvm_Assoc");
    rp_cim_path_set(path, "Plain", "a <b> & \"c\"");
    rp_cim_path_set(path, "Empty", "");
    rp_cim_path_set(path, "Far", "\\\\.\\root\\virtualization\\v2:Msvm_X.InstanceID=\"Microsoft:1\\\\2\"");
    for (int style = RP_URI_STYLE_WMI; style <= RP_URI_STYLE_DMTF; style++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
        rp_buf_printf(&out, "<e>");
        rp_wsman_write_epr(&out, (enum rp_uri_style)style, path);
        rp_buf_printf(&out, "</e>");
        assert_non_null(strstr(rp_buf_text(&out), "<w:Selector Name=\"Far\"><a:EndpointReference><a:Address>"));
        RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = parse(rp_buf_text(&out));
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *again =
            rp_wsman_read_epr(rp_xml_first(xmlDocGetRootElement(document)), NULL);
        assert_non_null(again);
        assert_true(rp_cim_path_equal(path, again));
        assert_string_equal(again->name_space, "root/virtualization/v2");
        assert_int_equal(again->key_count, 3);
    }
}

static void all_forms_of_values_are_read(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = read_text(
        "<p:Msvm_X><p:Text> a &lt;b&gt;<![CDATA[ <c/>]]></p:Text><p:Empty/>"
        "<p:Nil xsi:nil=\"true\"/><p:OmiNil xsd:nil=\"TRUE\"/>"
        "<p:Many>1</p:Many><p:Many>2</p:Many><p:When><cim:Datetime>2026-01-02T03:04:05Z</cim:Datetime></p:When>"
        "<p:How><cim:CIM_DateTime><cim:Interval>P0DT0H0M1.5S</cim:Interval></cim:CIM_DateTime></p:How>"
        "<p:Ref><a:EndpointReference><a:Address>x</a:Address><a:ReferenceParameters><w:ResourceURI>" V2 "Msvm_Z"
        "</w:ResourceURI></a:ReferenceParameters></a:EndpointReference></p:Ref>"
        "<p:Object xsi:type=\"q:Msvm_Other_Type\"><q:Inner>5</q:Inner></p:Object>"
        "<p:Guess><q:Inner>6</q:Inner></p:Guess>"
        "<p:Octets xsi:type=\"cim:cimBase64Binary\">AQ\n L/</p:Octets><p:Flag>False</p:Flag>"
        "<cim:Location><a:ReferenceParameters><w:ResourceURI>" V2 "Msvm_X</w:ResourceURI>"
        "</a:ReferenceParameters></cim:Location>"
        "</p:Msvm_X>", NULL);
    assert_non_null(instance);
    assert_string_equal(instance->class_name, "Msvm_X");
    assert_string_equal(instance->name_space, "root/virtualization/v2");
    assert_string_equal(instance->path->class_name, "Msvm_X");
    assert_string_equal(rp_cim_get_text(instance, "Text"), " a <b> <c/>");
    assert_string_equal(rp_cim_get_text(instance, "Empty"), "");
    assert_true(rp_cim_value_is_null(rp_cim_get(instance, "Nil")) && rp_cim_value_is_null(rp_cim_get(instance,
                                                                                                     "OmiNil")));
    assert_int_equal(rp_cim_get_count(instance, "Many"), 2);
    struct rp_cim_datetime when, how;
    assert_true(rp_cim_get_datetime(instance, "When", &when) && !when.interval);
    assert_true(rp_cim_get_datetime(instance, "How", &how) && how.interval && how.microseconds == 1500000);
    assert_string_equal(rp_cim_get_path(instance, "Ref")->class_name, "Msvm_Z");
    assert_string_equal(rp_cim_get(instance, "Object")->one.object->class_name, "Msvm_Other");
    assert_string_equal(rp_cim_get(instance, "Guess")->one.object->class_name, "Msvm_Y");
    const struct rp_cim_value *octets = rp_cim_get(instance, "Octets");
    assert_true(octets->array && octets->count == 3 && octets->many[1].u == 2 && octets->many[2].u == 255);
    assert_false(rp_cim_get_boolean(instance, "Flag", true));
}

static void octets_in_base64_are_known_by_the_declaration(void **state)
{
    (void)state;
    const struct rp_cim_declaration octets = {.name = (char *)"O", .type = RP_CIM_UINT8, .array = true};
    struct rp_cim_value value = {.type = RP_CIM_NONE, .one.text = rp_xstrdup("AQL/")};
    rp_wsman_unpack_octets(&octets, &value);
    assert_true(value.array && value.type == RP_CIM_UINT8 && value.count == 3);
    rp_cim_value_clear(&value);
    value = (struct rp_cim_value){.type = RP_CIM_NONE, .one.text = rp_xstrdup("12")}; // a number
    rp_wsman_unpack_octets(&octets, &value);
    assert_true(!value.array && value.type == RP_CIM_NONE);
    rp_cim_value_clear(&value);
    value = (struct rp_cim_value){.type = RP_CIM_NONE, .one.text = rp_xstrdup("AQL")}; // neither
    rp_wsman_unpack_octets(&octets, &value);
    assert_true(!value.array && value.type == RP_CIM_NONE);
    rp_cim_value_clear(&value);
}

static void objects_that_could_not_be_written_again_are_refused(void **state)
{
    (void)state;
    struct rp_error err = {0};
    static const char *const texts[] = {
        "<p:Msvm_X><p:a-b>1</p:a-b></p:Msvm_X>", "<p:Msvm.X/>",
        "<p:Msvm_X><p:A>1</p:A><p:A><q:B>2</q:B></p:A></p:Msvm_X>",
        "<p:Msvm_X><p:A xsi:type=\"cimBase64Binary\">!</p:A></p:Msvm_X>",
        "<p:Msvm_X><p:A><a:ReferenceParameters/></p:A></p:Msvm_X>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        err = (struct rp_error){0};
        assert_null(read_text(texts[i], &err));
        assert_int_equal(err.code, RP_ERR_INVALID);
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf many = {0};
    rp_buf_printf(&many, "<p:Msvm_X>");
    for (int i = 0; i < 1025; i++)
        rp_buf_printf(&many, "<p:P%d/>", i);
    rp_buf_printf(&many, "</p:Msvm_X>");
    err = (struct rp_error){0};
    assert_null(read_text(rp_buf_text(&many), &err));
}

static struct rp_cim_schema *schema_of(const char *mof)
{
    struct rp_cim_schema *schema = rp_cim_schema_new("root/virtualization/v2");
    assert_int_equal(rp_cim_schema_load(schema, mof, strlen(mof), "test", NULL), 0);
    return schema;
}

static void an_object_is_written_as_libvirt_wants_to_see_it(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_schema_free_p) struct rp_cim_schema *schema = schema_of(
        "class Msvm_X { [key] string Name; uint16 State; uint16 Codes[]; string Notes[]; datetime When; datetime How; "
        "boolean On; string Empty; Msvm_X REF Other; Msvm_X Inner; };");
    const struct rp_cim_class *class = rp_cim_schema_class(schema, "Msvm_X");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_instance_new(NULL, "Msvm_X");
    struct rp_cim_value codes = rp_cim_null(RP_CIM_UINT16, true), code = rp_cim_unsigned(RP_CIM_UINT16, 2);
    rp_cim_value_push(&codes, &code);
    code = rp_cim_unsigned(RP_CIM_UINT16, 32772);
    rp_cim_value_push(&codes, &code);
    rp_cim_set(instance, "Codes", codes);
    rp_cim_set(instance, "Name", rp_cim_string("<&>"));
    rp_cim_set(instance, "When", rp_cim_moment(0));
    rp_cim_set(instance, "How", rp_cim_duration(90500000000));
    rp_cim_set(instance, "On", rp_cim_boolean(true));
    rp_cim_set(instance, "Empty", rp_cim_string(""));
    struct rp_cim_instance *inner = rp_cim_instance_new(NULL, "Msvm_X");
    rp_cim_set(inner, "State", rp_cim_unsigned(RP_CIM_UINT16, 7));
    rp_cim_set(instance, "Inner", rp_cim_object(inner));
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_wsman_write_instance(&out, RP_URI_STYLE_WMI, class, instance, NULL, 0);
    assert_string_equal(rp_buf_text(&out),
        "<p:Msvm_X xmlns:p=\"" V2 "Msvm_X\" xsi:type=\"p:Msvm_X_Type\"><p:Codes>2</p:Codes><p:Codes>32772</p:Codes>"
        "<p:Empty/><p:How><cim:Interval>P0DT0H1M30.5S</cim:Interval></p:How>"
        "<p:Inner xmlns:q1=\"" V2 "Msvm_X\" xsi:type=\"q1:Msvm_X_Type\"><q1:Empty xsi:nil=\"true\"/>"
        "<q1:How xsi:nil=\"true\"/>"
        "<q1:Inner xsi:nil=\"true\"/><q1:Name xsi:nil=\"true\"/><q1:On xsi:nil=\"true\"/><q1:Other xsi:nil=\"true\"/>"
        "<q1:State>7</q1:State><q1:When xsi:nil=\"true\"/></p:Inner>"
        "<p:Name>&lt;&amp;&gt;</p:Name><p:On>true</p:On><p:Other xsi:nil=\"true\"/><p:State xsi:nil=\"true\"/>"
        "<p:When><cim:Datetime>1970-01-01T00:00:00Z</cim:Datetime></p:When></p:Msvm_X>");
    char *const columns[] = {(char *)"state", (char *)"NAME", (char *)"Notes"};
    rp_buf_reset(&out);
    rp_wsman_write_instance(&out, RP_URI_STYLE_DMTF, class, instance, columns, 3);
    assert_string_equal(rp_buf_text(&out), "<p:Msvm_X xmlns:p=\"" RP_URI_DMTF "Msvm_X\" xsi:type=\"p:Msvm_X_Type\">"
                        "<p:Name>&lt;&amp;&gt;</p:Name><p:State xsi:nil=\"true\"/></p:Msvm_X>");
}

static void every_fault_is_read_as_it_was_written(void **state)
{
    (void)state;
    for (int code = RP_FAULT_NONE + 1; code < RP_FAULT_COUNT; code++) {
        struct rp_fault fault = {0}, again;
        rp_fault_set(&fault, (enum rp_fault_code)code, code % 2 ? "InvalidResourceURI" : NULL, "why <%d>", code);
        rp_fault_set(&fault, RP_FAULT_INTERNAL_ERROR, NULL, "a later one does not count");
        RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
        rp_message_begin_response(&out, rp_fault_action(fault.code), "uuid:<1>", NULL);
        rp_fault_write(&out, &fault, "HV1");
        rp_message_end(&out);
        RP_CLEANUP(rp_message_clear) struct rp_message message = {0};
        assert_int_equal(rp_message_read_response(out.data, out.size, out.size, NULL, &message, NULL), 0);
        assert_string_equal(message.relates_to, "uuid:<1>");
        assert_string_equal(message.action, rp_fault_action(fault.code));
        rp_fault_read(rp_xml_first(message.body), &again);
        assert_int_equal(again.code, code);
        assert_string_equal(again.message, fault.message);
        assert_true(again.windows_code && again.windows_code == fault.windows_code); // 0 would mean success
        assert_true(again.detail == fault.detail || !strcmp(again.detail, fault.detail));
        struct rp_error err = {0};
        assert_int_equal(rp_fault_to_error(&again, "query", &err), -1);
        assert_true(err.code && !strncmp(err.text, "query: why <", 12));
    }
}

// As WinRM words it when WMI fails, with other prefixes than ours.
static void a_fault_of_windows_says_what_wmi_said(void **state)
{
    (void)state;
    static const char text[] =
        "<z:Fault xmlns:z=\"" RP_NS_SOAP "\" xmlns:wsman=\"" RP_NS_WSMAN "\">"
        "<z:Code><z:Value>z:Receiver</z:Value><z:Subcode>"
        "<z:Value>wsman:InternalError</z:Value></z:Subcode></z:Code><z:Reason><z:Text xml:lang=\"en-US\">It failed. "
        "</z:Text></z:Reason><z:Detail><f:WSManFault xmlns:f=\"" RP_NS_MICROSOFT_FAULT "\" Code=\"2147749890\" "
        "Machine=\"h\">"
        "<f:Message><f:ProviderFault provider=\"WMI Provider\"><f:WSManFault Code=\"2147749890\"><f:Message>\r\n  Not"
        "   found </f:Message></f:WSManFault><f:ExtendedError>x</f:ExtendedError></f:ProviderFault></f:Message>"
        "</f:WSManFault></z:Detail></z:Fault>";
    RP_CLEANUP(xmlFreeDoc_p) xmlDoc *document = rp_xml_parse(text, sizeof text - 1, sizeof text, NULL, NULL);
    struct rp_fault fault;
    struct rp_error err = {0};
    rp_fault_read(xmlDocGetRootElement(document), &fault);
    assert_int_equal(fault.code, RP_FAULT_INTERNAL_ERROR);
    assert_string_equal(fault.message, "Not found x");
    rp_fault_to_error(&fault, "get", &err);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
}

static void a_request_of_ours_is_one_that_we_understand(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new("root/virtualization/v2", "Msvm_X");
    rp_cim_path_set(path, "Name", "a&b");
    for (int style = RP_URI_STYLE_WMI; style <= RP_URI_STYLE_DMTF; style++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0}, uri = {0};
        char id[48];
        rp_wsman_uri(&uri, (enum rp_uri_style)style, path->name_space, path->class_name);
        struct rp_message_request headers = {"http://h/wsman?a&b", RP_ACTION_GET, rp_buf_text(&uri), path,
                                             (enum rp_uri_style)style, 512000, 61500};
        rp_message_begin_request(&out, &headers, id);
        rp_message_end(&out);
        RP_CLEANUP(rp_message_clear) struct rp_message message = {0};
        struct rp_fault fault = {0};
        assert_int_equal(rp_message_read_request(out.data, out.size, out.size, NULL, &message, &fault), 0);
        assert_string_equal(message.message_id, id);
        assert_string_equal(message.to, "http://h/wsman?a&b");
        assert_string_equal(message.name_space, "root/virtualization/v2");
        assert_true(rp_cim_path_equal(message.selectors, path) && message.selectors->key_count == 1);
        assert_int_equal(message.style, style);
        assert_int_equal(message.max_envelope_size, 512000);
        assert_int_equal(message.operation_timeout_ms, 61500);
    }
}

static void utf16_is_read_when_the_header_of_http_says_so(void **state)
{
    (void)state;
    static const char ascii[] = "<s:Envelope xmlns:s=\"" RP_NS_SOAP "\"><s:Body/></s:Envelope>";
    RP_CLEANUP(rp_buf_clear) struct rp_buf wide = {0};
    for (size_t i = 0; i < sizeof ascii - 1; i++)
        rp_buf_append_le16(&wide, (uint8_t)ascii[i]);
    RP_CLEANUP(rp_message_clear) struct rp_message message = {0};
    assert_int_equal(rp_message_read_response(wide.data, wide.size, wide.size, "UTF-16", &message, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_families_of_resource_uris_are_understood),
        cmocka_unit_test(a_reference_survives_being_written_and_read),
        cmocka_unit_test(all_forms_of_values_are_read),
        cmocka_unit_test(octets_in_base64_are_known_by_the_declaration),
        cmocka_unit_test(objects_that_could_not_be_written_again_are_refused),
        cmocka_unit_test(an_object_is_written_as_libvirt_wants_to_see_it),
        cmocka_unit_test(every_fault_is_read_as_it_was_written),
        cmocka_unit_test(a_fault_of_windows_says_what_wmi_said),
        cmocka_unit_test(a_request_of_ours_is_one_that_we_understand),
        cmocka_unit_test(utf16_is_read_when_the_header_of_http_says_so),
    };
    return cmocka_run_group_tests_name("wsman soap", tests, NULL, NULL);
}
