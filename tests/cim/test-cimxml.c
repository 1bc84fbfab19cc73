#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cim/cimxml.h"

static struct rp_cim_instance *parse(const char *text)
{
    struct rp_error err = {0};
    struct rp_cim_instance *instance = rp_cimxml_parse(text, strlen(text), &err);
    if (!instance)
        fail_msg("%s", err.text);
    return instance;
}

static void refused(const char *text, size_t size, const char *why)
{
    struct rp_error err = {0};
    if (rp_cimxml_parse(text, size, &err))
        fail_msg("taken: %s", text);
    assert_int_equal(err.code, RP_ERR_CORRUPT);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

static void what_libvirt_sends_is_read(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = parse(
        "<?xml version=\"1.0\"?><INSTANCE CLASSNAME=\"Msvm_VirtualSystemSettingData\">"
        "<PROPERTY NAME=\"InstanceID\" TYPE=\"string\">"
        "<VALUE>Microsoft:A6E3F6F8</VALUE></PROPERTY><PROPERTY.ARRAY NAME=\"Notes\" TYPE=\"string\"><VALUE.ARRAY>"
        "<VALUE> a </VALUE><VALUE></VALUE></VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE>");
    assert_string_equal(instance->class_name, "Msvm_VirtualSystemSettingData");
    assert_string_equal(rp_cim_get_text(instance, "InstanceID"), "Microsoft:A6E3F6F8");
    assert_int_equal(rp_cim_get_count(instance, "Notes"), 2);
    assert_string_equal(rp_cim_get_text_at(instance, "Notes", 0), " a ");
    assert_string_equal(rp_cim_get_text_at(instance, "Notes", 1), "");
}

// As ManagementBaseObject.GetText(TextFormat.WmiDtd20) forms it: qualifiers, origins, absent values.
static void what_dotnet_sends_is_read(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = parse(
        "\r\n <INSTANCE CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\">"
        "<QUALIFIER NAME=\"dynamic\" TYPE=\"boolean\"><VALUE>TRUE"
        "</VALUE></QUALIFIER>"
        "<PROPERTY NAME=\"ConsistencyLevel\" CLASSORIGIN=\"Msvm_VirtualSystemSnapshotSettingData\" TYPE=\"uint8\">"
        "<QUALIFIER NAME=\"CIMTYPE\" PROPAGATED=\"true\" TYPE=\"string\" TOINSTANCE=\"true\"><VALUE>uint8</VALUE>"
        "</QUALIFIER>"
        "<VALUE>1</VALUE></PROPERTY>"
        "<PROPERTY NAME=\"Caption\" CLASSORIGIN=\"CIM_ManagedElement\" PROPAGATED=\"true\" MODIFIED=\"TRUE\" "
        "TYPE=\"string\">"
        "</PROPERTY><PROPERTY NAME=\"IgnoreNonSnapshottableDisks\" TYPE=\"boolean\"><VALUE>true</VALUE></PROPERTY>"
        "<PROPERTY NAME=\"When\" TYPE=\"datetime\"><VALUE>20260102030405.678000+060</VALUE></PROPERTY>"
        "<PROPERTY NAME=\"Number\" TYPE=\"sint32\"><VALUE/></PROPERTY><PROPERTY.ARRAY NAME=\"None\" TYPE=\"uint16\"/>"
        "<PROPERTY.ARRAY NAME=\"Empty\" TYPE=\"uint16\"><VALUE.ARRAY/></PROPERTY.ARRAY></INSTANCE>\n");
    const struct rp_cim_value *level = rp_cim_get(instance, "consistencylevel");
    assert_true(level->type == RP_CIM_UINT8 && level->one.u == 1);
    assert_true(rp_cim_get(instance, "Caption")->null && rp_cim_get(instance, "Number")->null);
    assert_true(rp_cim_get_boolean(instance, "IgnoreNonSnapshottableDisks", false));
    assert_int_equal(rp_cim_get(instance, "When")->one.datetime.offset, 60);
    assert_true(rp_cim_get(instance, "None")->null && rp_cim_get(instance, "None")->array);
    assert_true(!rp_cim_get(instance, "Empty")->null && !rp_cim_get(instance, "Empty")->count);
    assert_int_equal(instance->count, 7);
}

static void wrappers_and_claims_about_the_encoding_do_not_matter(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "<?xml version='1.0' encoding='utf-16'?><INSTANCE CLASSNAME='A'><PROPERTY NAME='P'><VALUE>\xC3\xBC</VALUE>"
        "</PROPERTY></INSTANCE>",
        "\t\n<?xml version='1.0' encoding='utf-8'?><CIM CIMVERSION='2.0' DTDVERSION='2.0'><DECLARATION><DECLGROUP>"
        "<VALUE.OBJECT>"
        "<INSTANCE CLASSNAME='A'><PROPERTY NAME='P' TYPE='string'><VALUE>\xC3\xBC</VALUE></PROPERTY></INSTANCE>"
        "</VALUE.OBJECT></DECLGROUP>"
        "</DECLARATION></CIM>",
        "<VALUE.NAMEDINSTANCE><INSTANCENAME CLASSNAME='A'><KEYBINDING NAME='K'><KEYVALUE VALUETYPE='string'>"
        "v</KEYVALUE></KEYBINDING>"
        "</INSTANCENAME><INSTANCE CLASSNAME='A'><PROPERTY NAME='P' TYPE='string'><VALUE><![CDATA[\xC3\xBC]]></VALUE>"
        "</PROPERTY></INSTANCE>"
        "</VALUE.NAMEDINSTANCE>",
    };
    for (size_t i = 0; i < 3; i++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = parse(texts[i]);
        assert_string_equal(instance->class_name, "A");
        assert_string_equal(rp_cim_get_text(instance, "P"), "\xC3\xBC");
        assert_int_equal(instance->path != NULL, i == 2);
        if (instance->path)
            assert_string_equal(rp_cim_path_get(instance->path, "k"), "v");
    }
}

static void references_are_read_as_text_and_as_elements(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path =
        rp_cim_path_parse("\\\\HV1\\root\\virtualization\\v2:Msvm_X.Name=\"a\\\\b\",N=\"1\"", NULL);
#define NAME                                                                                                           \
    "<INSTANCENAME CLASSNAME='Msvm_X'>"                                                                                \
    "<KEYBINDING NAME='Name'><KEYVALUE VALUETYPE='string'>a\\b</KEYVALUE></KEYBINDING>"                                \
    "<KEYBINDING NAME='N'><KEYVALUE VALUETYPE='numeric'>1</KEYVALUE></KEYBINDING></INSTANCENAME>"
#define PLACE                                                                                                          \
    "<LOCALNAMESPACEPATH><NAMESPACE NAME='root'/><NAMESPACE NAME='virtualization'/><NAMESPACE NAME='v2'/>"             \
    "</LOCALNAMESPACEPATH>"
    static const char *const values[] = {
        "<VALUE.REFERENCE>\\\\HV1\\root\\virtualization\\v2:Msvm_X.Name=\"a\\\\b\",N=\"1\"</VALUE.REFERENCE>",
        "<VALUE>root/virtualization/v2:Msvm_X.Name='a\\\\b',N=1</VALUE>",
        "<VALUE.REFERENCE><INSTANCEPATH><NAMESPACEPATH><HOST>"
        "HV1</HOST>" PLACE "</NAMESPACEPATH>" NAME "</INSTANCEPATH></VALUE.REFERENCE>",
        "<VALUE.REFERENCE><LOCALINSTANCEPATH>" PLACE NAME "</LOCALINSTANCEPATH></VALUE.REFERENCE>",
        "<VALUE.REFERENCE>" NAME "</VALUE.REFERENCE>",
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        rp_buf_printf(&text,
                      "<INSTANCE CLASSNAME='A'><PROPERTY.REFERENCE NAME='R' REFERENCECLASS='X'>%s</PROPERTY.REFERENCE>"
                      "<PROPERTY.REFERENCE NAME='None'/></INSTANCE>", values[i]);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = parse(rp_buf_text(&text));
        const struct rp_cim_path *read = rp_cim_get_path(instance, "R");
        assert_true(rp_cim_path_equal(read, path));
        assert_int_equal(read->name_space != NULL, i != 4);
        assert_int_equal(read->host != NULL, i == 0 || i == 2);
        assert_true(rp_cim_get(instance, "None")->null);
    }
}

static void keys_that_are_references_become_the_text_of_their_path(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = parse(
        "<INSTANCE CLASSNAME='A'><PROPERTY.REFERENCE NAME='R'><VALUE.REFERENCE><INSTANCENAME CLASSNAME='Link'>"
        "<KEYBINDING NAME='Left'>"
        "<VALUE.REFERENCE><INSTANCENAME CLASSNAME='X'><KEYBINDING NAME='N'><KEYVALUE>1</KEYVALUE></KEYBINDING>"
        "</INSTANCENAME>"
        "</VALUE.REFERENCE></KEYBINDING></INSTANCENAME></VALUE.REFERENCE></PROPERTY.REFERENCE></INSTANCE>");
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(instance, "R"), "Left"), "X.N=\"1\"");
}

static void embedded_instances_are_read_as_text_and_as_elements(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "<INSTANCE CLASSNAME='A'><PROPERTY NAME='O' TYPE='string' EmbeddedObject='instance'><VALUE>"
        "&lt;INSTANCE CLASSNAME=\"B\"&gt;"
        "&lt;PROPERTY NAME=\"P\" TYPE=\"uint8\"&gt;&lt;VALUE&gt;7&lt;/VALUE&gt;&lt;/PROPERTY&gt;&lt;/INSTANCE&gt;"
        "</VALUE></PROPERTY></INSTANCE>",
        "<INSTANCE CLASSNAME='A'><PROPERTY.OBJECT NAME='O'><VALUE.OBJECT><INSTANCE CLASSNAME='B'>"
        "<PROPERTY NAME='P' TYPE='uint8'><VALUE>7"
        "</VALUE></PROPERTY></INSTANCE></VALUE.OBJECT></PROPERTY.OBJECT></INSTANCE>",
        "<INSTANCE CLASSNAME='A'><PROPERTY.OBJECTARRAY NAME='O'><VALUE.OBJECTARRAY><VALUE.OBJECT>"
        "<INSTANCE CLASSNAME='B'>"
        "<PROPERTY NAME='P' TYPE='uint8'><VALUE>7</VALUE></PROPERTY></INSTANCE></VALUE.OBJECT></VALUE.OBJECTARRAY>"
        "</PROPERTY.OBJECTARRAY></INSTANCE>",
    };
    for (size_t i = 0; i < 3; i++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = parse(texts[i]);
        const struct rp_cim_value *value = rp_cim_get(instance, "O");
        assert_int_equal(value->array, i == 2);
        struct rp_cim_value object = rp_cim_value_at(value, 0);
        assert_int_equal(object.type, RP_CIM_OBJECT);
        assert_int_equal(rp_cim_get_unsigned(object.one.object, "P", 0), 7);
    }
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *text = parse(
        "<INSTANCE CLASSNAME='A'><PROPERTY NAME='O' TYPE='string'><VALUE>&lt;INSTANCE CLASSNAME='B'/&gt;</VALUE>"
        "</PROPERTY></INSTANCE>");
    assert_string_equal(rp_cim_get_text(text, "O"), "<INSTANCE CLASSNAME='B'/>");
}

static void what_is_written_is_minimal_and_reads_back_equal(void **state)
{
    (void)state;
    struct rp_cim_instance *inner = rp_cim_instance_new(NULL, "Inner");
    rp_cim_set(inner, "Quote", rp_cim_string("<&\"'>\r\n"));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_instance_new("root", "A");
    rp_cim_set(instance, "Text", rp_cim_string(" x & y "));
    rp_cim_set(instance, "Level", rp_cim_unsigned(RP_CIM_UINT8, 1));
    rp_cim_set(instance, "Null", rp_cim_null(RP_CIM_STRING, false));
    struct rp_cim_value list = rp_cim_null(RP_CIM_BOOLEAN, true), item = rp_cim_boolean(true);
    rp_cim_value_push(&list, &item);
    rp_cim_set(instance, "List", list);
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    rp_cimxml_write(instance, &out);
    assert_string_equal(rp_buf_text(&out),
        "<INSTANCE CLASSNAME=\"A\"><PROPERTY NAME=\"Level\" TYPE=\"uint8\"><VALUE>1</VALUE></PROPERTY>"
        "<PROPERTY.ARRAY NAME=\"List\" TYPE=\"boolean\"><VALUE.ARRAY><VALUE>TRUE</VALUE></VALUE.ARRAY></PROPERTY.ARRAY>"
        "<PROPERTY NAME=\"Text\" TYPE=\"string\"><VALUE> x &amp; y </VALUE></PROPERTY></INSTANCE>");

    rp_cim_set(instance, "Object", rp_cim_object(inner));
    rp_cim_set(instance, "Null", rp_cim_duration(1000));
    static const char *const paths[] = {"\\\\H\\root\\v2:X.K=\"a\\\"b\"", "X=@", "X.A='1',B=''"};
    struct rp_cim_value references = rp_cim_null(RP_CIM_REFERENCE, true);
    for (size_t i = 0; i < 3; i++) {
        item = rp_cim_reference(rp_cim_path_parse(paths[i], NULL));
        if (i == 2)
            item.one.path->name_space = rp_xstrdup("root/v2");
        rp_cim_value_push(&references, &item);
    }
    rp_cim_set(instance, "Reference", rp_cim_reference(rp_cim_path_copy(references.many[0].path)));
    rp_cim_set(instance, "References", references);
    rp_buf_reset(&out);
    rp_cimxml_write(instance, &out);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *again = parse(rp_buf_text(&out));
    assert_int_equal(again->count, instance->count);
    for (size_t i = 0; i < again->count; i++)
        if (!rp_cim_value_equal(&again->properties[i].value, &instance->properties[i].value))
            fail_msg("%s differs in %s", again->properties[i].name, rp_buf_text(&out));
    assert_string_equal(rp_cim_get_path(again, "References")->host, "H");
}

static void what_breaks_the_form_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct { const char *text, *why; } rows[] = {
        {"", "empty"}, {"  ", "empty"}, {"text", "CIM-XML"}, {"<A/>", "an INSTANCE is needed"},
        {"<CIM/>", "an INSTANCE is needed"},
        {"<INSTANCE/>", "CLASSNAME"}, {"<INSTANCE CLASSNAME=''/>", "CLASSNAME"},
        {"<INSTANCE CLASSNAME='A'><X/></INSTANCE>", "not expected"},
        {"<INSTANCE CLASSNAME='A'>\n<PROPERTY TYPE='string'/></INSTANCE>", "PROPERTY, line 2: NAME"},
        {"<INSTANCE CLASSNAME='A b'/>", "CLASSNAME"}, {"<INSTANCE CLASSNAME='1'/>", "CLASSNAME"},
        {"<INSTANCE CLASSNAME='A'><PROPERTY NAME='x&gt;&lt;y'/></INSTANCE>", "NAME"},
        {"<INSTANCE CLASSNAME='A'><PROPERTY NAME='P' TYPE='uint9'/></INSTANCE>", "unknown TYPE"},
        {"<INSTANCE CLASSNAME='A'><PROPERTY NAME='P' TYPE='uint8'><VALUE>256</VALUE></PROPERTY>"
         "</INSTANCE>", "\"256\" is no uint8"},
        {"<INSTANCE CLASSNAME='A'><PROPERTY.ARRAY NAME='P' TYPE='uint8'><VALUE.ARRAY><VALUE.NULL/></VALUE.ARRAY>"
         "</PROPERTY.ARRAY></INSTANCE>", "NULL"},
        {"<INSTANCE CLASSNAME='A'><PROPERTY.REFERENCE NAME='P'><VALUE.REFERENCE>no path</VALUE.REFERENCE>"
         "</PROPERTY.REFERENCE></INSTANCE>", "object path"},
        {"<INSTANCE CLASSNAME='A'><PROPERTY NAME='P' TYPE='string' EmbeddedObject='object'><VALUE>x</VALUE>"
         "</PROPERTY></INSTANCE>", "CIM-XML"},
        {"<!DOCTYPE INSTANCE SYSTEM 'http://127.0.0.1:1/x'><INSTANCE CLASSNAME='A'/>", "DOCTYPE"},
        {"<INSTANCE CLASSNAME='A'><PROPERTY NAME='P' TYPE='string'><VALUE>&x;</VALUE></PROPERTY></INSTANCE>", "x"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        refused(rows[i].text, strlen(rows[i].text), rows[i].why);
}

static void size_depth_and_the_number_of_properties_are_bounded(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf large = {0}, many = {0}, deep = {0};
    rp_buf_printf(&large, "<INSTANCE CLASSNAME='A'/>");
    memset(rp_buf_extend(&large, 1 << 20), ' ', 1 << 20);
    refused(rp_buf_text(&large), large.size, "more than");

    rp_buf_printf(&many, "<INSTANCE CLASSNAME='A'>");
    for (int i = 0; i < 4097; i++)
        rp_buf_printf(&many, "<PROPERTY NAME='P%d'/>", i);
    rp_buf_printf(&many, "</INSTANCE>");
    refused(rp_buf_text(&many), many.size, "too many properties");

    for (int i = 0; i < 40; i++)
        rp_buf_printf(&deep, "<INSTANCE CLASSNAME='A'><PROPERTY.OBJECT NAME='P'><VALUE.OBJECT>");
    refused(rp_buf_text(&deep), deep.size, "deep");

    // a path as a key of a path, and so on: each level doubles what escapes, and four are read
    for (int levels = 4; levels <= 20; levels += 16) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf nested = {0};
        rp_buf_printf(&nested, "<INSTANCE CLASSNAME='A'><PROPERTY.REFERENCE NAME='P'>");
        for (int i = 0; i <= levels; i++)
            rp_buf_printf(&nested, "%s<VALUE.REFERENCE><INSTANCENAME CLASSNAME='A'>%s", i ? "<KEYBINDING NAME='K'>" : "",
                          i == levels ? "<KEYBINDING NAME='K'><KEYVALUE>\\\\\\\\</KEYVALUE></KEYBINDING>" : "");
        for (int i = levels; i >= 0; i--)
            rp_buf_printf(&nested, "</INSTANCENAME></VALUE.REFERENCE>%s", i ? "</KEYBINDING>" : "");
        rp_buf_printf(&nested, "</PROPERTY.REFERENCE></INSTANCE>");
        if (levels > 4)
            refused(rp_buf_text(&nested), nested.size, "deep");
        else
            rp_cim_instance_free(rp_cimxml_parse(rp_buf_text(&nested), nested.size, NULL));
    }

    // an instance in the text of an instance, and so on: each level doubles what escapes
    struct rp_buf text = {0};
    rp_buf_printf(&text, "<INSTANCE CLASSNAME=\"A\"></INSTANCE>");
    for (int i = 0; i < 8; i++) {
        struct rp_cim_value object = {0};
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *outer = rp_cim_instance_new(NULL, "A");
        assert_int_equal(rp_cim_value_parse(RP_CIM_OBJECT, rp_buf_text(&text), &object, NULL), 0);
        rp_cim_set(outer, "P", object);
        rp_buf_reset(&text);
        rp_cimxml_write(outer, &text);
    }
    rp_buf_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_libvirt_sends_is_read),
        cmocka_unit_test(what_dotnet_sends_is_read),
        cmocka_unit_test(wrappers_and_claims_about_the_encoding_do_not_matter),
        cmocka_unit_test(references_are_read_as_text_and_as_elements),
        cmocka_unit_test(keys_that_are_references_become_the_text_of_their_path),
        cmocka_unit_test(embedded_instances_are_read_as_text_and_as_elements),
        cmocka_unit_test(what_is_written_is_minimal_and_reads_back_equal),
        cmocka_unit_test(what_breaks_the_form_is_refused_with_its_place),
        cmocka_unit_test(size_depth_and_the_number_of_properties_are_bounded),
    };
    return cmocka_run_group_tests_name("cimxml", tests, NULL, NULL);
}
