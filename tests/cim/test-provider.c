#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "cim/provider.h"

static const char mof[] =
    "[Abstract] class CIM_Element { };"
    "class CIM_System : CIM_Element { [key] string Name; uint16 State; };"
    "class Test_Vm : CIM_System { };"
    "[Abstract] class CIM_Settings : CIM_Element { [key] string InstanceID; string ElementName; };"
    "class Test_Settings : CIM_Settings { };"
    "class Test_Disk : CIM_Settings { };"
    "class Test_OddDisk : Test_Disk { string Odd = \"yes\"; };"
    "[Association, Abstract] class CIM_Link { [key] CIM_Element REF Left; [key] CIM_Element REF Right; };"
    "[Association] class Test_SettingsOfVm : CIM_Link { [key] Test_Vm REF Left; [key] Test_Settings REF Right; };"
    "[Association] class Test_DiskOfSettings : CIM_Link { [key] CIM_Settings REF Left; [key] Test_Disk REF Right; };"
    "[Association] class Test_Snapshot : CIM_Link { [key] Test_Vm REF Left; [key] Test_Settings REF Right; };";

// A provider of a fixed set of objects that counts what it is asked.
struct fixture {
    struct rp_cim_provider provider; // first: it is what the functions below get
    struct rp_cim_schema *schema;
    struct rp_cim_instances objects;
    unsigned asked_instances, asked_references;
    bool broken;
};

static int give_copies(struct fixture *f, const struct rp_cim_class *class, struct rp_cim_sink sink,
                       struct rp_error *err)
{
    for (size_t i = 0; i < f->objects.count; i++)
        if (!strcmp(f->objects.items[i]->class_name, class->name) &&
            sink.take(sink.context, rp_cim_instance_copy(f->objects.items[i]), err))
            return -1;
    return 0;
}

static int instances(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     const struct rp_wql *query, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)caller, (void)query;
    ((struct fixture *)p)->asked_instances++;
    assert_false(class->abstract);
    return give_copies((struct fixture *)p, class, sink, err);
}

static struct rp_cim_instance *get(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                   const struct rp_cim_path *path, struct rp_error *err)
{
    (void)caller;
    struct fixture *f = (struct fixture *)p;
    for (size_t i = 0; i < f->objects.count && !f->broken; i++) {
        bool same = !strcmp(f->objects.items[i]->class_name, path->class_name);
        for (size_t k = 0; same && k < path->key_count; k++) {
            const char *text = rp_cim_get_text(f->objects.items[i], path->keys[k].name);
            same = text && !strcasecmp(text, path->keys[k].value);
        }
        if (same)
            return rp_cim_instance_copy(f->objects.items[i]);
    }
    rp_fail(err, f->broken ? RP_ERR_IO : RP_ERR_NOT_FOUND, f->broken ? "the host is broken" : "none");
    return NULL;
}

static int references(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                      const struct rp_cim_class *association,
                      const struct rp_cim_path *source, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)caller, (void)source;
    ((struct fixture *)p)->asked_references++;
    return give_copies((struct fixture *)p, association, sink, err); // more than asked for
}

static const struct rp_cim_provider_ops ops = {.instances = instances, .get = get, .references = references};
static const struct rp_cim_caller caller = {"uid 0", "test", RP_CIM_READ};

static void add(struct fixture *f, const char *class, const char *key, const char *value)
{
    struct rp_cim_instance *instance = rp_cim_class_instance(rp_cim_schema_class(f->schema, class));
    rp_cim_set(instance, key, rp_cim_string(value));
    rp_cim_instances_push(&f->objects, instance);
}

static void link_up(struct fixture *f, const char *class, const char *left, const char *right)
{
    struct rp_cim_instance *instance = rp_cim_class_instance(rp_cim_schema_class(f->schema, class));
    rp_cim_set(instance, "Left", rp_cim_reference(rp_cim_path_parse(left, NULL)));
    rp_cim_set(instance, "Right", rp_cim_reference(rp_cim_path_parse(right, NULL)));
    rp_cim_instances_push(&f->objects, instance);
}

static int setup(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    *f = (struct fixture){.schema = rp_cim_schema_new("root/test")};
    struct rp_error err = {0};
    if (rp_cim_schema_load(f->schema, mof, sizeof mof - 1, "mof", &err))
        fail_msg("%s", err.text);
    f->provider = (struct rp_cim_provider){&ops, f->schema, "HV1"};
    add(f, "Test_OddDisk", "InstanceID", "odd");
    add(f, "Test_Vm", "Name", "one");
    add(f, "Test_Vm", "Name", "two");
    add(f, "CIM_System", "Name", "HV1");
    add(f, "Test_Settings", "InstanceID", "s1");
    add(f, "Test_Settings", "InstanceID", "s2");
    add(f, "Test_Disk", "InstanceID", "d1");
    add(f, "Test_Disk", "InstanceID", "d2");
    link_up(f, "Test_SettingsOfVm", "Test_Vm.Name='ONE'", "Test_Settings.InstanceID='s1'");
    link_up(f, "Test_SettingsOfVm", "Test_Vm.Name='two'", "Test_Settings.InstanceID='s2'");
    link_up(f, "Test_Snapshot", "Test_Vm.Name='one'", "Test_Settings.InstanceID='S1'");
    link_up(f, "Test_Snapshot", "Test_Vm.Name='one'", "Test_Settings.InstanceID='vanished'");
    link_up(f, "Test_DiskOfSettings", "Test_Settings.InstanceID='s1'", "Test_Disk.InstanceID='d2'");
    link_up(f, "Test_DiskOfSettings", "Test_Settings.InstanceID='s1'", "Test_OddDisk.InstanceID='odd'");
    link_up(f, "Test_DiskOfSettings", "Test_Settings.InstanceID='s1'", "Test_Disk.InstanceID='d1'");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rp_cim_instances_clear(&f->objects);
    rp_cim_schema_free(f->schema);
    return 0;
}

static int collect(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    rp_cim_instances_push(context, instance);
    return 0;
}

// The keys of what a query gives, in its order, with spaces between; or the error.
static void gives(struct fixture *f, const char *text, const char *wanted)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_wql_parse(text, strlen(text), &err);
    if (!query)
        fail_msg("%s", err.text);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances list = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    if (rp_cim_query(&f->provider, &caller, query, (struct rp_cim_sink){collect, &list}, &err))
        rp_buf_printf(&out, "%s: %s", rp_code_name(err.code), err.text);
    for (size_t i = 0; i < list.count; i++) {
        const struct rp_cim_path *path = list.items[i]->path;
        assert_string_equal(path->host, "HV1");
        assert_string_equal(path->name_space, "root/test");
        assert_string_equal(path->class_name, list.items[i]->class_name);
        rp_buf_printf(&out, "%s%s", out.size ? " " : "", path->key_count > 1 ? path->class_name : path->keys[0].value);
    }
    if (strcmp(rp_buf_text(&out), wanted))
        fail_msg("%s gives \"%s\" instead of \"%s\"", text, rp_buf_text(&out), wanted);
}

static void a_superclass_matches_its_subclasses_in_the_order_of_declaration(void **state)
{
    gives(*state, "SELECT * FROM Test_Vm", "one two");
    gives(*state, "SELECT * FROM CIM_System", "HV1 one two");
    gives(*state, "SELECT * FROM CIM_System WHERE Name != __SERVER", "one two");
    gives(*state, "SELECT * FROM CIM_Settings", "s1 s2 d1 d2 odd");
    gives(*state, "SELECT * FROM CIM_Settings WHERE __CLASS ISA 'Test_Disk'", "d1 d2 odd");
    gives(*state, "SELECT * FROM CIM_Settings WHERE Odd = 'yes'", "odd");
    gives(*state, "SELECT * FROM CIM_Element WHERE Name = 'TWO' OR InstanceID = 'D1'", "two d1");
    gives(*state, "SELECT * FROM Absent", "not-found: namespace root/test has no class Absent");
}

static void one_instance_is_fetched_when_the_query_names_its_path(void **state)
{
    struct fixture *f = *state;
    gives(f, "SELECT * FROM Test_Vm WHERE __PATH = '\\\\\\\\any\\\\root\\\\test:Test_Vm.Name=\"Two\"'", "two");
    gives(f, "SELECT * FROM CIM_System WHERE __PATH = 'Test_Vm.Name=\"one\"' AND Name = 'two'", "");
    gives(f, "SELECT * FROM Test_Disk WHERE __PATH = 'Test_Vm.Name=\"one\"'", "");
    gives(f, "SELECT * FROM Test_Vm WHERE __PATH = 'Test_Vm.Name=\"absent\"'", "");
    gives(f, "SELECT * FROM Test_Vm WHERE __PATH = 'Absent.Name=\"absent\"'", "");
    gives(f, "SELECT * FROM Test_Vm WHERE __PATH = 'root/other:Test_Vm.Name=\"one\"'", "");
    assert_int_equal(f->asked_instances, 0);
}

static void columns_are_cut_and_have_to_exist(void **state)
{
    struct fixture *f = *state;
    const char text[] = "SELECT name, __path, __Class FROM CIM_System WHERE State IS NULL";
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_wql_parse(text, sizeof text - 1, NULL);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances list = {0};
    assert_int_equal(rp_cim_query(&f->provider, &caller, query, (struct rp_cim_sink){collect, &list}, NULL), 0);
    assert_int_equal(list.count, 3);
    assert_int_equal(list.items[1]->count, 3);
    assert_string_equal(list.items[1]->properties[2].name, "Name");
    assert_string_equal(rp_cim_get_text(list.items[1], "__PATH"), "\\\\HV1\\root\\test:Test_Vm.Name=\"one\"");
    assert_string_equal(rp_cim_get_text(list.items[1], "__CLASS"), "Test_Vm");
    gives(f, "SELECT Odd FROM Test_Disk", "invalid: class Test_Disk has no property Odd");
}

static void associators_are_found_by_class_superclass_and_role(void **state)
{
    gives(*state, "ASSOCIATORS OF {Test_Vm.Name='one'}", "s1");
    gives(*state, "ASSOCIATORS OF {Test_Vm.Name='one'} WHERE AssocClass=Test_SettingsOfVm ResultClass=CIM_Settings",
        "s1");
    gives(*state, "ASSOCIATORS OF {\\\\H\\ROOT\\test:test_vm.name=\"TWO\"} WHERE AssocClass=CIM_Link", "s2");
    gives(*state, "ASSOCIATORS OF {CIM_System.Name='two'} WHERE ResultClass = Test_Settings", "s2");
    gives(*state, "ASSOCIATORS OF {Test_Settings.InstanceID='s1'}", "one d2 odd d1");
    gives(*state, "ASSOCIATORS OF {Test_Settings.InstanceID='s1'} WHERE ResultClass=Test_Disk", "d2 odd d1");
    gives(*state, "ASSOCIATORS OF {Test_Settings.InstanceID='s1'} WHERE ResultClass=Test_OddDisk", "odd");
    gives(*state, "ASSOCIATORS OF {Test_Settings.InstanceID='s1'} WHERE ResultRole=Left", "one");
    gives(*state, "ASSOCIATORS OF {Test_Settings.InstanceID='s1'} WHERE Role=Left", "d2 odd d1");
    gives(*state, "ASSOCIATORS OF {Test_Settings.InstanceID='s1'} WHERE Role=Absent", "");
    gives(*state, "ASSOCIATORS OF {Test_OddDisk.InstanceID='odd'} WHERE ResultClass=CIM_System", "");
    gives(*state, "ASSOCIATORS OF {Test_OddDisk.InstanceID='odd'} WHERE ResultClass=Test_Settings", "s1");
}

static void references_are_the_associations_themselves(void **state)
{
    gives(*state, "REFERENCES OF {Test_Vm.Name='one'}", "Test_SettingsOfVm Test_Snapshot Test_Snapshot");
    gives(*state, "REFERENCES OF {Test_Vm.Name='one'} WHERE ResultClass=Test_SettingsOfVm Role=Left",
        "Test_SettingsOfVm");
    gives(*state, "REFERENCES OF {Test_Vm.Name='one'} WHERE Role=Right", "");
}

static void only_keys_are_given_when_only_keys_are_wanted(void **state)
{
    struct fixture *f = *state;
    const char text[] = "ASSOCIATORS OF {Test_Settings.InstanceID='s1'} WHERE ResultClass=Test_OddDisk KeysOnly";
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_wql_parse(text, sizeof text - 1, NULL);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances list = {0};
    assert_int_equal(rp_cim_query(&f->provider, &caller, query, (struct rp_cim_sink){collect, &list}, NULL), 0);
    assert_true(list.count == 1 && list.items[0]->count == 1 && list.items[0]->path);
}

static void only_associations_that_can_lead_there_are_asked_for(void **state)
{
    struct fixture *f = *state;
    gives(f, "ASSOCIATORS OF {Test_Disk.InstanceID='d1'}", "s1");
    assert_int_equal(f->asked_references, 1);
    gives(f, "ASSOCIATORS OF {Test_Settings.InstanceID='s1'} WHERE ResultClass=Test_Disk", "d2 odd d1");
    assert_int_equal(f->asked_references, 2);
}

static void what_cannot_be_followed_is_an_error_and_not_an_empty_answer(void **state)
{
    struct fixture *f = *state;
    gives(f, "ASSOCIATORS OF {Test_Vm.Name='absent'}", "not-found: there is no Test_Vm.Name=\"absent\"");
    gives(f, "ASSOCIATORS OF {Absent.Name='one'}", "not-found: namespace root/test has no class Absent");
    gives(f, "ASSOCIATORS OF {Test_Vm.Name='one'} WHERE ResultClass=Absent",
        "not-found: namespace root/test has no class Absent");
    gives(f, "ASSOCIATORS OF {Test_Vm.Name='one'} WHERE AssocClass=Absent",
        "not-found: namespace root/test has no class Absent");
    gives(f, "ASSOCIATORS OF {root/other:Test_Vm.Name='one'}", "unsupported: namespace root/other is not root/test");
    gives(f, "ASSOCIATORS OF {Test_Vm.Name='one'} WHERE ClassDefsOnly", "unsupported: ClassDefsOnly is not supported");
    f->broken = true;
    gives(f, "ASSOCIATORS OF {Test_Vm.Name='one'}", "io: the host is broken");
    gives(f, "SELECT * FROM Test_Vm WHERE __PATH='Test_Vm.Name=\"one\"'", "io: the host is broken");
}

static int stop(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    rp_cim_instance_free(instance);
    return --*(int *)context ? 0 : rp_fail(err, RP_ERR_CANCELLED, "enough");
}

static void a_sink_can_stop_everything(void **state)
{
    struct fixture *f = *state;
    static const char *const texts[] = {"SELECT * FROM CIM_Element", "REFERENCES OF {Test_Vm.Name='one'}",
                                        "ASSOCIATORS OF {Test_Settings.InstanceID='s1'}"};
    for (size_t i = 0; i < 3; i++) {
        int left = 2;
        struct rp_error err = {0};
        RP_CLEANUP(rp_wql_free_p) struct rp_wql *query = rp_wql_parse(texts[i], strlen(texts[i]), NULL);
        assert_int_equal(rp_cim_query(&f->provider, &caller, query, (struct rp_cim_sink){stop, &left}, &err), -1);
        assert_int_equal(err.code, RP_ERR_CANCELLED);
        assert_int_equal(left, 0);
    }
}

static void an_enumeration_gives_the_class_and_its_subclasses(void **state)
{
    struct fixture *f = *state;
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances list = {0};
    assert_int_equal(rp_cim_enumerate(&f->provider, &caller, rp_cim_schema_class(f->schema, "Test_Disk"),
                                      (struct rp_cim_sink){collect, &list}, NULL), 0);
    assert_int_equal(list.count, 3);
    assert_string_equal(list.items[2]->class_name, "Test_OddDisk");
    assert_string_equal(rp_cim_path_get(list.items[2]->path, "InstanceID"), "odd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_superclass_matches_its_subclasses_in_the_order_of_declaration,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(one_instance_is_fetched_when_the_query_names_its_path, setup, teardown),
        cmocka_unit_test_setup_teardown(columns_are_cut_and_have_to_exist, setup, teardown),
        cmocka_unit_test_setup_teardown(associators_are_found_by_class_superclass_and_role, setup, teardown),
        cmocka_unit_test_setup_teardown(references_are_the_associations_themselves, setup, teardown),
        cmocka_unit_test_setup_teardown(only_keys_are_given_when_only_keys_are_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(only_associations_that_can_lead_there_are_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_followed_is_an_error_and_not_an_empty_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sink_can_stop_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(an_enumeration_gives_the_class_and_its_subclasses, setup, teardown),
    };
    return cmocka_run_group_tests_name("provider", tests, NULL, NULL);
}
