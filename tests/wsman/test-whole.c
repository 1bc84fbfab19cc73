// Client, logins, sealing, server, service and a provider together: what the tool and the host have between them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "kit.h"
#include "wsman/client.h"

#define V2 "root/virtualization/v2"
enum { MANY = 3000 };

static const char mof[] =
    "class Msvm_ComputerSystem { [key] string CreationClassName; [key] string Name; string ElementName; "
    "uint16 EnabledState; string Notes[]; datetime InstallDate; "
    "uint32 RequestStateChange([in] uint16 RequestedState, [out] Msvm_ConcreteJob REF Job); };"
    "class Msvm_ConcreteJob { [key] string InstanceID; uint16 JobState; };";

static struct kit kit;
static struct rp_cim_schema *schema;

static struct rp_cim_instance *make_vm(unsigned number)
{
    char text[400];
    struct rp_cim_value notes = rp_cim_null(RP_CIM_STRING, true);
    struct rp_cim_instance *vm = rp_cim_class_instance(rp_cim_schema_class(schema, "Msvm_ComputerSystem"));
    rp_cim_set(vm, "CreationClassName", rp_cim_string("Msvm_ComputerSystem"));
    snprintf(text, sizeof text, "VM-%05u", number);
    rp_cim_set(vm, "Name", rp_cim_string(text));
    rp_cim_set(vm, "ElementName", rp_cim_string("<Web & Mail \"ü\">"));
    rp_cim_set(vm, "EnabledState", rp_cim_unsigned(RP_CIM_UINT16, number % 2 ? 2 : 3));
    rp_cim_set(vm, "InstallDate", rp_cim_moment(1700000000123000000));
    memset(text, 'n', 300);
    text[300] = '\0';
    struct rp_cim_value note = rp_cim_string(text);
    notes.null = false;
    rp_cim_value_push(&notes, &note);
    rp_cim_set(vm, "Notes", notes);
    return vm;
}

static int instances(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     const struct rp_wql *query, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)p, (void)caller, (void)query;
    for (unsigned i = 0; i < MANY && !strcmp(class->name, "Msvm_ComputerSystem"); i++)
        if (sink.take(sink.context, make_vm(i), err))
            return -1;
    return 0;
}

static struct rp_cim_instance *get(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                   const struct rp_cim_path *path, struct rp_error *err)
{
    (void)p, (void)caller;
    const char *name = rp_cim_path_get(path, "Name");
    unsigned number = name && !strncasecmp(name, "VM-", 3) ? (unsigned)atoi(name + 3) : MANY;
    if (number < MANY && !strcmp(path->class_name, "Msvm_ComputerSystem"))
        return make_vm(number);
    rp_fail(err, RP_ERR_NOT_FOUND, "no VM is called %s", name ? name : "so");
    return NULL;
}

static int references(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                      const struct rp_cim_class *association, const struct rp_cim_path *source,
                      struct rp_cim_sink sink, struct rp_error *err)
{
    (void)p, (void)caller, (void)association, (void)source, (void)sink, (void)err;
    return 0;
}

// Who may only read is told so, as Hyper-V does: 32769.
static int invoke(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  const struct rp_cim_method *method, const struct rp_cim_instance *in, struct rp_cim_instance *out,
                  uint32_t *status, struct rp_error *err)
{
    (void)p, (void)path, (void)err;
    assert_string_equal(method->name, "RequestStateChange");
    if (caller->access < RP_CIM_OPERATE) {
        *status = 32769;
        return 0;
    }
    char id[64];
    snprintf(id, sizeof id, "job-%u", (unsigned)rp_cim_get_unsigned(in, "RequestedState", 0));
    struct rp_cim_path *job = rp_cim_path_new(V2, "Msvm_ConcreteJob");
    rp_cim_path_set(job, "InstanceID", id);
    rp_cim_set(out, "Job", rp_cim_reference(job));
    *status = 4096;
    return 0;
}

static const struct rp_cim_provider_ops ops = {instances, get, references, invoke, NULL, NULL};
static struct rp_cim_provider provider = {.ops = &ops, .server = "HOST"};

static int start(void **state)
{
    (void)state;
    provider.schema = schema = rp_cim_schema_new(V2);
    if (rp_cim_schema_load(schema, mof, sizeof mof - 1, "test", NULL))
        return -1;
    kit_real = rp_wsman_service_new("HOST", "refpoint", "1.2.3", NULL);
    rp_wsman_service_add(kit_real, &provider);
    return kit_start(&kit, false, (struct rp_wsman_server_limits){0});
}

static int stop(void **state)
{
    (void)state;
    kit_stop(&kit);
    rp_wsman_service_free(kit_real);
    rp_cim_schema_free(schema);
    return 0;
}

static struct rp_wsman_client *as_admin(void)
{
    char url[64];
    struct rp_wsman_options options = {.url = url, .auth = RP_AUTH_NTLM, .timeout_ms = 30000};
    options.credentials = (struct rp_login_credentials){"LAB\\admin", "secret", NULL, NULL};
    snprintf(url, sizeof url, "http://localhost:%d", kit.port[KIT_SEALED]);
    return rp_wsman_client_new(&options, NULL);
}

static struct rp_wsman_client *as_reader(void)
{
    char url[64];
    struct rp_wsman_options options = {.url = url, .auth = RP_AUTH_BASIC, .timeout_ms = 30000};
    options.ca_file = kit.certificate;
    options.credentials = (struct rp_login_credentials){"basic", "clear", NULL, NULL};
    snprintf(url, sizeof url, "https://localhost:%d", kit.port[KIT_TLS]);
    return rp_wsman_client_new(&options, NULL);
}

#define ADMIN RP_CLEANUP(rp_wsman_client_free_p) struct rp_wsman_client *client = as_admin()

static void the_host_says_what_it_is(void **state)
{
    (void)state;
    ADMIN;
    RP_AUTO_FREE char *vendor = NULL, *version = NULL;
    struct rp_error err = {0};
    if (rp_wsman_identify(client, &vendor, &version, &err))
        fail_msg("%s", err.text);
    assert_string_equal(vendor, "refpoint");
    assert_string_equal(version, "1.2.3");
}

static void three_thousand_objects_come_whole_and_in_order(void **state)
{
    (void)state;
    ADMIN;
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    struct rp_error err = {0};
    if (rp_wsman_query(client, V2, "Msvm_ComputerSystem", NULL, schema, true, &found, &err))
        fail_msg("%s", err.text);
    assert_int_equal(found.count, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm = make_vm(i);
        assert_int_equal(found.items[i]->count, vm->count);
        for (size_t k = 0; k < vm->count; k++)
            assert_true(rp_cim_value_equal(&vm->properties[k].value, &found.items[i]->properties[k].value));
        assert_string_equal(rp_cim_path_get(found.items[i]->path, "Name"), rp_cim_get_text(vm, "Name"));
    }
}

static void queries_select(void **state)
{
    (void)state;
    ADMIN;
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    struct rp_error err = {0};
    static const char good[] = "SELECT * FROM Msvm_ComputerSystem WHERE Name LIKE 'vm-0010%' AND EnabledState = 2";
    if (rp_wsman_query(client, V2, NULL, good, schema, false, &found, &err))
        fail_msg("%s", err.text);
    assert_int_equal(found.count, 5);
    assert_string_equal(rp_cim_get_text(found.items[0], "Name"), "VM-00101");
    assert_int_equal(rp_wsman_query(client, V2, NULL, "SELECT FROM", schema, false, &found, &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
    rp_error_clear(&err);
    assert_int_equal(rp_wsman_query(client, V2, "Msvm_Nothing", NULL, schema, false, &found, &err), -1);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    rp_error_clear(&err);
    assert_int_equal(rp_wsman_query(client, "root/nowhere", "Msvm_Job", NULL, schema, false, &found, &err), -1);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
    assert_int_equal(found.count, 5);
}

static struct rp_cim_path *vm_path(const char *name)
{
    struct rp_cim_path *path = rp_cim_path_new(V2, "Msvm_ComputerSystem");
    rp_cim_path_set(path, "CreationClassName", "Msvm_ComputerSystem");
    rp_cim_path_set(path, "Name", name);
    return path;
}

static void an_object_is_got_by_its_keys_in_any_case(void **state)
{
    (void)state;
    ADMIN;
    struct rp_error err = {0};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = vm_path("vm-00007"), *none = vm_path("VM-99999");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm = rp_wsman_get(client, path, schema, &err);
    if (!vm)
        fail_msg("%s", err.text);
    assert_string_equal(rp_cim_get_text(vm, "Name"), "VM-00007");
    assert_null(rp_wsman_get(client, none, schema, &err));
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
}

static void a_method_starts_a_job_for_who_may_and_says_no_to_who_may_not(void **state)
{
    (void)state;
    ADMIN;
    RP_CLEANUP(rp_wsman_client_free_p) struct rp_wsman_client *reader = as_reader();
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = vm_path("VM-00007");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_cim_instance_new(NULL, "x");
    struct rp_error err = {0};
    uint32_t status = 0;
    rp_cim_set(in, "RequestedState", rp_cim_unsigned(RP_CIM_UINT16, 9));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out =
        rp_wsman_invoke(client, path, "RequestStateChange", in, &status, &err);
    if (!out)
        fail_msg("%s", err.text);
    assert_int_equal(status, 4096);
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(out, "Job"), "InstanceID"), "job-9");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *refused =
        rp_wsman_invoke(reader, path, "RequestStateChange", in, &status, &err);
    if (!refused)
        fail_msg("%s", err.text);
    assert_int_equal(status, 32769);
    assert_null(rp_wsman_invoke(client, path, "NoSuchMethod", NULL, &status, &err));
    assert_int_not_equal(err.code, RP_OK);
}

static void python3_winrm_gets_objects_by_a_query_sealed(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    RP_AUTO_FREE char *command =
        rp_xasprintf("/usr/bin/python3 %s/winrm-query.py http://localhost:%d/wsman 'LAB\\admin' secret "
                     "\"SELECT * FROM Msvm_ComputerSystem WHERE Name LIKE 'VM-0010_' AND EnabledState <> 3\"",
                     getenv("RP_TEST_FOLDER"), kit.port[KIT_SEALED]);
    char piece[4096];
    FILE *pipe = popen(command, "r");
    for (size_t n; (n = fread(piece, 1, sizeof piece, pipe)) > 0;)
        rp_buf_append(&answer, piece, n);
    assert_int_equal(pclose(pipe), 0);
    const char *text = rp_buf_text(&answer);
    for (unsigned i = 100; i < 110; i++) {
        snprintf(piece, sizeof piece, "<p:Name>VM-%05u</p:Name>", i);
        assert_int_equal(strstr(text, piece) != NULL, i % 2);
    }
    assert_non_null(strstr(text, "EndOfSequence"));
    assert_non_null(strstr(text, "<p:ElementName>&lt;Web &amp; Mail &quot;ü&quot;&gt;</p:ElementName>"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_says_what_it_is),
        cmocka_unit_test(three_thousand_objects_come_whole_and_in_order),
        cmocka_unit_test(queries_select),
        cmocka_unit_test(an_object_is_got_by_its_keys_in_any_case),
        cmocka_unit_test(python3_winrm_gets_objects_by_a_query_sealed),
        cmocka_unit_test(a_method_starts_a_job_for_who_may_and_says_no_to_who_may_not),
    };
    return cmocka_run_group_tests_name("whole", tests, start, stop);
}
