#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "cim/schema.h"

static const char sample[] =
    "// comment\n"
    "#pragma namespace(\"ROOT/test\")\n"
    "#pragma locale (\"en_US\")\n"
    "[Abstract, Description(\"one \" \"two\"), Version(\"2.0\")] class CIM_Base /* x\n */ {\n"
    "  [key, read : ToSubclass DisableOverride] string Id;\n"
    "  uint16 Health = 5;  uint16 States[] = {2, 0x3};\n"
    "  [Values{\"a\", \"b\"}] boolean Good = TRUE; datetime Span = \"00000000000500.000000:000\";\n"
    "  uint32 Act([in] uint16 How, [in, out] CIM_Base REF What[], [out] Derived Result, string Said[4]);\n"
    "};\n"
    "class Derived : CIM_BASE { string Name = \"a\\\\b\\\"\\x41\\xfc;\" \"2\"; uint16 HEALTH; string Id = \"fixed\";\n"
    "  sint8 Low = -128; uint8 Bytes[8]; real64 Real = 1.5; Derived Inner; object Any[]; string Nothing = NULL;\n"
    "  uint64 Other(); };\n"
    "[Association] class Link { [key] CIM_Base REF Left; [key] object ref Right; };\n"
    "class SubLink : Link { [key] Derived REF Left; };\n";

static struct rp_cim_schema *load(const char *mof)
{
    struct rp_cim_schema *schema = rp_cim_schema_new("root/test");
    struct rp_error err = {0};
    if (rp_cim_schema_load(schema, mof, strlen(mof), "sample", &err))
        fail_msg("%s", err.text);
    return schema;
}

static int setup(void **state)
{
    *state = load(sample);
    return 0;
}

static int teardown(void **state)
{
    rp_cim_schema_free(*state);
    return 0;
}

static void classes_are_found_in_any_case_and_kept_in_their_order(void **state)
{
    struct rp_cim_schema *schema = *state;
    assert_int_equal(rp_cim_schema_count(schema), 4);
    assert_string_equal(rp_cim_schema_at(schema, 0)->name, "CIM_Base");
    assert_string_equal(rp_cim_schema_at(schema, 3)->name, "SubLink");
    const struct rp_cim_class *derived = rp_cim_schema_class(schema, "DERIVED");
    const struct rp_cim_class *base = rp_cim_schema_class(schema, "cim_base");
    assert_ptr_equal(derived->super, base);
    assert_null(rp_cim_schema_class(schema, "Deri"));
    assert_true(base->abstract && !derived->abstract && !base->association);
    assert_true(rp_cim_schema_class(schema, "Link")->association);
    assert_true(rp_cim_schema_class(schema, "SubLink")->association);
    assert_true(rp_cim_class_is(derived, base) && rp_cim_class_is(derived, derived) && !rp_cim_class_is(base, derived));
    assert_false(rp_cim_class_is(derived, NULL) || rp_cim_class_is(NULL, base) || rp_cim_class_is(NULL, NULL));
    assert_true(rp_cim_class_is_named(derived, "CIM_BASE") && !rp_cim_class_is_named(derived, "Link"));
}

static void properties_are_inherited_with_type_key_and_default(void **state)
{
    const struct rp_cim_class *class = rp_cim_schema_class(*state, "Derived");
    assert_int_equal(class->property_count, 12);
    for (size_t i = 1; i < class->property_count; i++)
        assert_true(strcasecmp(class->properties[i - 1].name, class->properties[i].name) < 0);
    const struct rp_cim_declaration *id = rp_cim_class_property(class, "ID");
    const struct rp_cim_declaration *health = rp_cim_class_property(class, "Health");
    const struct rp_cim_declaration *states = rp_cim_class_property(class, "states");
    const struct rp_cim_declaration *name = rp_cim_class_property(class, "Name");
    assert_true(id->key && !health->key);
    assert_string_equal(id->value.one.text, "fixed");
    assert_true(health->type == RP_CIM_UINT16 && health->value.one.u == 5);
    assert_true(states->array && states->value.count == 2 && states->value.many[1].u == 3);
    assert_string_equal(name->value.one.text, "a\\b\"A\xC3\xBC;2");
    assert_true(rp_cim_class_property(class, "Good")->value.one.boolean);
    assert_int_equal(rp_cim_class_property(class, "Span")->value.one.datetime.microseconds, 300000000);
    assert_int_equal(rp_cim_class_property(class, "Low")->value.one.s, -128);
    assert_true(rp_cim_class_property(class, "Bytes")->array && rp_cim_class_property(class, "Bytes")->value.null);
    assert_true(rp_cim_class_property(class, "Nothing")->value.null);
    const struct rp_cim_declaration *inner = rp_cim_class_property(class, "Inner");
    const struct rp_cim_declaration *any = rp_cim_class_property(class, "Any");
    assert_true(inner->type == RP_CIM_OBJECT && any->type == RP_CIM_OBJECT && any->array && !any->object_class);
    assert_string_equal(inner->object_class, "Derived");
    assert_null(rp_cim_class_property(class, "Absent"));
    const struct rp_cim_class *link = rp_cim_schema_class(*state, "SubLink");
    assert_string_equal(rp_cim_class_property(link, "Left")->object_class, "Derived");
    assert_null(rp_cim_class_property(link, "Right")->object_class);
    assert_int_equal(rp_cim_class_property(link, "Right")->type, RP_CIM_REFERENCE);
}

static void methods_are_inherited_with_their_parameters(void **state)
{
    const struct rp_cim_class *class = rp_cim_schema_class(*state, "Derived");
    const struct rp_cim_method *act = rp_cim_class_method(class, "ACT");
    assert_int_equal(class->method_count, 2);
    assert_int_equal(act->type, RP_CIM_UINT32);
    assert_int_equal(act->parameter_count, 4);
    assert_int_equal(rp_cim_class_method(class, "Other")->type, RP_CIM_UINT64);
    static const struct { bool in, out, array; } rows[] = {
        {true, false, false}, {true, true, true}, {false, true, false}, {true, false, true},
    };
    for (size_t i = 0; i < 4; i++) {
        const struct rp_cim_declaration *p = &act->parameters[i];
        assert_true(p->in == rows[i].in && p->out == rows[i].out && p->array == rows[i].array);
    }
    assert_string_equal(act->parameters[1].object_class, "CIM_Base");
    assert_null(rp_cim_class_method(class, "Absent"));
}

static void a_new_instance_has_every_property(void **state)
{
    const struct rp_cim_class *class = rp_cim_schema_class(*state, "Derived");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_class_instance(class);
    assert_string_equal(instance->class_name, "Derived");
    assert_string_equal(instance->name_space, "root/test");
    assert_int_equal(instance->count, class->property_count);
    assert_int_equal(rp_cim_get_unsigned(instance, "Health", 0), 5);
    assert_true(rp_cim_get(instance, "Any")->null && rp_cim_get(instance, "Any")->array);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_class_path(class, instance);
    assert_true(path->key_count == 1 && !strcmp(rp_cim_path_get(path, "Id"), "fixed"));
    rp_cim_set(instance, "Id", rp_cim_null(RP_CIM_STRING, false));
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *without = rp_cim_class_path(class, instance);
    assert_int_equal(without->key_count, 0);
    RP_CLEANUP(rp_cim_schema_free_p) struct rp_cim_schema *other =
        load("class Keyless { string A; }; [Singleton] class Base { }; class Only : Base { };");
    assert_null(rp_cim_class_path(rp_cim_schema_class(other, "Keyless"), instance));
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *only =
        rp_cim_class_path(rp_cim_schema_class(other, "Only"), instance);
    assert_true(only->singleton && !only->key_count);
}

static struct rp_cim_value bare(const char *text)
{
    struct rp_cim_value value;
    assert_int_equal(rp_cim_value_parse(RP_CIM_NONE, text, &value, NULL), 0);
    return value;
}

static void an_instance_from_outside_gets_the_types_of_its_class(void **state)
{
    const struct rp_cim_class *class = rp_cim_schema_class(*state, "Derived");
    struct rp_cim_instance *inner = rp_cim_instance_new(NULL, "Derived");
    rp_cim_set(inner, "health", bare("7"));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_instance_new(NULL, "Derived");
    rp_cim_set(instance, "states", bare("9"));
    rp_cim_set(instance, "Good", bare("False"));
    rp_cim_set(instance, "Name", (struct rp_cim_value){0});
    rp_cim_set(instance, "__PATH", bare("x"));
    rp_cim_set(instance, "Inner", rp_cim_object(inner));
    assert_int_equal(rp_cim_class_type(class, instance, NULL), 0);
    assert_true(rp_cim_get(instance, "States")->array && rp_cim_get(instance, "States")->type == RP_CIM_UINT16);
    assert_true(rp_cim_get(instance, "Name")->null && rp_cim_get(instance, "Name")->type == RP_CIM_STRING);
    assert_int_equal(rp_cim_get(instance, "Good")->type, RP_CIM_BOOLEAN);
    assert_int_equal(rp_cim_get(rp_cim_get(instance, "Inner")->one.object, "Health")->type, RP_CIM_UINT16);

    struct rp_error err = {0};
    rp_cim_set(instance, "Low", bare("200"));
    assert_int_equal(rp_cim_class_type(class, instance, &err), -1);
    assert_string_equal(err.text, "property Low of class Derived: \"200\" is no sint8");
    rp_cim_set(instance, "Low", bare("2"));
    rp_cim_set(instance, "Unheard", bare("2"));
    rp_error_clear(&err);
    assert_int_equal(rp_cim_class_type(class, instance, &err), -1);
    assert_string_equal(err.text, "class Derived has no property Unheard");
}

static void parameters_get_the_types_of_their_method_and_know_their_direction(void **state)
{
    const struct rp_cim_method *method = rp_cim_class_method(rp_cim_schema_class(*state, "Derived"), "Act");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_cim_instance_new(NULL, "Act_INPUT");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_cim_instance_new(NULL, "Act_OUTPUT");
    rp_cim_set(in, "HOW", bare("2"));
    rp_cim_set(in, "What", bare("Derived.Id='1'"));
    assert_int_equal(rp_cim_method_type(method, false, in, NULL), 0);
    assert_int_equal(rp_cim_get(in, "How")->type, RP_CIM_UINT16);
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(in, "What"), "Id"), "1");
    struct rp_cim_instance *object = rp_cim_instance_new("root/test", "derived");
    rp_cim_set(object, "Id", bare("2"));
    rp_cim_set(object, "Name", bare("more than the key"));
    rp_cim_set(in, "What", rp_cim_object(object));
    assert_int_equal(rp_cim_method_type(method, false, in, NULL), 0);
    assert_int_equal(rp_cim_get_path(in, "What")->key_count, 1);
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(in, "What"), "Id"), "2");
    struct rp_error err = {0};
    assert_int_equal(rp_cim_method_type(method, true, in, &err), -1);
    assert_string_equal(err.text, "method Act has no out parameter HOW");
    rp_cim_set(out, "ReturnValue", bare("4096"));
    rp_cim_set(out, "Result", rp_cim_null(RP_CIM_NONE, false));
    assert_int_equal(rp_cim_method_type(method, true, out, NULL), 0);
    assert_int_equal(rp_cim_get(out, "ReturnValue")->type, RP_CIM_UINT32);
    assert_int_equal(rp_cim_method_type(method, false, out, NULL), -1);
}

static void a_mistake_is_named_with_its_line_and_nothing_of_the_load_stays(void **state)
{
    struct rp_cim_schema *schema = *state;
    static const struct { const char *mof, *why; } rows[] = {
        {"class A { };\nclass A { };", "test.mof:2: expected a class that is not declared yet, found \"A\""},
        {"class A : B { };", "expected a superclass that is declared already, found \"B\""},
        {"class A { string ; };", "expected the name of a property"}, {"class A { string B = 5; };", "expected a text"},
        {"class A { uint8 B = \"5\"; };", "expected a value without quotes"},
        {"class A { uint8 B = 256; };", "expected uint8"},
        {"class A { uint8 B = {1}; };", "expected a value"}, {"class A { uint8 B[] = 1; };", "expected \"{\""},
        {"class A { uint8 B }", "expected \";\""}, {"class A { ", "expected a type, found the end"},
        {"class A { }", "found the end"},
        {"\n\nklass A { };", "test.mof:3: expected \"class\", found \"klass\""},
        {"class A { string B = \"x\n\"; };", "no token"},
        {"/* open", "no token"}, {"class A { string B = \"\\q\"; };", "no token"},
        {"class A { string B = \"\\xD800\"; };", "no token"},
        {"#pragma namespace(\"root/other\")", "expected root/test, found \"root/other\""},
        {"class A { uint32 M(uint8 a, uint8 A); };", "each parameter once"},
        {"class A { [key string B; };", "expected \"]\""},
        {"class A { datetime B = \"now\"; };", "expected datetime"},
        {"class A { Foo REF B = \"no path\"; };", "expected reference"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rp_error err = {0};
        RP_CLEANUP(rp_buf_clear) struct rp_buf mof = {0};
        rp_buf_printf(&mof, "%s", rows[i].mof);
        if (!rp_cim_schema_load(schema, (const char *)mof.data, mof.size, "test.mof", &err))
            fail_msg("%s was taken", rows[i].mof);
        assert_int_equal(err.code, RP_ERR_INVALID);
        if (!strstr(err.text, rows[i].why))
            fail_msg("\"%s\" does not say \"%s\"", err.text, rows[i].why);
        assert_int_equal(rp_cim_schema_count(schema), 4);
        assert_null(rp_cim_schema_class(schema, "A"));
    }
    const char good[] = "class A : Derived { };";
    assert_int_equal(rp_cim_schema_load(schema, good, sizeof good - 1, "test.mof", NULL), 0);
    assert_int_equal(rp_cim_schema_class(schema, "a")->method_count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(classes_are_found_in_any_case_and_kept_in_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(properties_are_inherited_with_type_key_and_default, setup, teardown),
        cmocka_unit_test_setup_teardown(methods_are_inherited_with_their_parameters, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_instance_has_every_property, setup, teardown),
        cmocka_unit_test_setup_teardown(an_instance_from_outside_gets_the_types_of_its_class, setup, teardown),
        cmocka_unit_test_setup_teardown(parameters_get_the_types_of_their_method_and_know_their_direction,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_mistake_is_named_with_its_line_and_nothing_of_the_load_stays,
                                        setup, teardown),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
