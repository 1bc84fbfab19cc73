// The client's operations against a service that answers as others do: other prefixes, other namespaces for the same
// things, other batches than asked for; and one that misbehaves.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kit.h"
#include "wsman/client.h"

#define V2 "root/virtualization/v2"
#define URI "http://schemas.microsoft.com/wbem/wsman/1/wmi/" V2 "/"
#define CLASS URI "Msvm_ComputerSystem"
#define VM(name)                                                                                                       \
    "<q:Msvm_ComputerSystem xmlns:q=\"" CLASS "\"><q:ElementName>" name "</q:ElementName>"                            \
    "<q:EnabledState>2</q:EnabledState><q:OperationalStatus>2</q:OperationalStatus>"                                   \
    "<q:OperationalStatus>32772</q:OperationalStatus><q:OfTomorrow>new</q:OfTomorrow></q:Msvm_ComputerSystem>"
#define EPR(name)                                                                                                      \
    "<ad:EndpointReference><ad:Address>" ANONYMOUS "</ad:Address>"                                                     \
    "<ad:ReferenceParameters><wm:ResourceURI>" CLASS "</wm:ResourceURI><wm:SelectorSet>"                               \
    "<wm:Selector Name=\"__cimnamespace\">" V2 "</wm:Selector><wm:Selector Name=\"Name\">" name "</wm:Selector>"       \
    "</wm:SelectorSet></ad:ReferenceParameters></ad:EndpointReference>"
#define ANONYMOUS "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"

static struct kit kit;
static struct rp_wsman_client *client;
static struct rp_cim_schema *schema;

static int start(void **state)
{
    (void)state;
    static const char mof[] = "class Msvm_ComputerSystem { [key] string Name; string ElementName; uint16 EnabledState; "
                              "uint16 OperationalStatus[]; };";
    if (kit_start(&kit, false, (struct rp_wsman_server_limits){0}))
        return -1;
    schema = rp_cim_schema_new(V2);
    RP_AUTO_FREE char *url = rp_xasprintf("unix:%s", kit.socket);
    struct rp_wsman_options options = {.url = url, .auth = RP_AUTH_PEER, .timeout_ms = 10000};
    client = rp_wsman_client_new(&options, NULL);
    return rp_cim_schema_load(schema, mof, sizeof mof - 1, "test", NULL) || !client;
}

static int stop(void **state)
{
    (void)state;
    rp_wsman_client_free(client);
    rp_cim_schema_free(schema);
    kit_stop(&kit);
    return 0;
}

// The answers of a service, in their turn, and what the requests must contain.
struct line {
    const char *expected[4];
    const char *body;
    unsigned status;            // 0: 200
    bool to_another;            // relates to another message
};
static const struct line *script;
static size_t script_length, script_at;
static const char *script_missed;

static unsigned play(const char *request, size_t size, struct rp_buf *out)
{
    RP_AUTO_FREE char *text = strndup(request, size);
    static const struct line nothing;
    const struct line *line = script_at < script_length ? &script[script_at++] : &nothing;
    if (!line->body)
        script_missed = "a message too many";
    for (size_t i = 0; i < 4 && line->expected[i]; i++)
        if (!strstr(text, line->expected[i]))
            script_missed = line->expected[i];
    const char *id = strstr(text, "MessageID>");
    id = id ? id + 10 : "";
    rp_buf_printf(out, "<?xml version=\"1.0\"?><so:Envelope xmlns:so=\"http://www.w3.org/2003/05/soap-envelope\" "
                       "xmlns:ad=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" "
                       "xmlns:wm=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" "
                       "xmlns:en=\"http://schemas.xmlsoap.org/ws/2004/09/enumeration\" "
                       "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><so:Header>");
    rp_buf_printf(out, "<ad:Action>x</ad:Action><ad:MessageID>uuid:1</ad:MessageID>");
    if (*id)
        rp_buf_printf(out, "<ad:RelatesTo>%s%.*s</ad:RelatesTo>", line->to_another ? "x" : "", (int)strcspn(id, "<"),
                      id);
    rp_buf_printf(out, "</so:Header><so:Body>%s</so:Body></so:Envelope>", line->body ? line->body : "");
    return line->status ? line->status : 200;
}

#define PLAY(...)                                                                                                      \
    static const struct line lines[] = {__VA_ARGS__};                                                                  \
    script = lines;                                                                                                    \
    script_length = sizeof lines / sizeof *lines;                                                                      \
    script_at = 0;                                                                                                     \
    script_missed = NULL;                                                                                              \
    kit_service = play

static void played(void)
{
    if (script_missed)
        fail_msg("not as expected: %s", script_missed);
    assert_int_equal(script_at, script_length);
}

static void good(int result, const struct rp_error *err)
{
    if (result)
        fail_msg("%s", err->text);
    played();
}

static void bad(int result, const struct rp_error *err, enum rp_code code, const char *why)
{
    assert_int_equal(result, -1);
    played();
    if (err->code != code || !strstr(err->text, why))
        fail_msg("'%s' (%s) is not: %s (%s)", why, rp_code_name(code), err->text, rp_code_name(err->code));
}

static void identify_tells_vendor_and_version(void **state)
{
    (void)state;
    PLAY({.expected = {"Identify/>"},
          "<i:IdentifyResponse xmlns:i=\"http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd\">"
          "<i:ProtocolVersion>http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd</i:ProtocolVersion>"
          "<i:ProductVendor>Microsoft Corporation</i:ProductVendor>"
          "<i:ProductVersion>OS: 10.0.20348 SP: 0.0 Stack: 3.0</i:ProductVersion></i:IdentifyResponse>"});
    struct rp_error err = {0};
    char *vendor = NULL, *version = NULL;
    good(rp_wsman_identify(client, &vendor, &version, &err), &err);
    assert_string_equal(vendor, "Microsoft Corporation");
    assert_string_equal(version, "OS: 10.0.20348 SP: 0.0 Stack: 3.0");
    free(vendor);
    free(version);
}

static void a_query_takes_every_batch_in_either_form(void **state)
{
    (void)state;
    PLAY({.expected = {"/Enumerate<", V2 "/*<", "OptimizeEnumeration",
           "wsman/1/WQL\">SELECT * FROM Msvm_ComputerSystem WHERE Name &lt;&gt; &quot;a&quot;<"},
          "<en:EnumerateResponse><en:EnumerationContext>uuid:ctx &amp; 1</en:EnumerationContext>"
          "<wm:Items>" VM("one") VM("two") "</wm:Items></en:EnumerateResponse>"},
         {.expected = {"/Pull<", "EnumerationContext>uuid:ctx &amp; 1<", "MaxElements>"},
          "<en:PullResponse><en:EnumerationContext>uuid:2</en:EnumerationContext><en:Items/></en:PullResponse>"},
         {.expected = {"EnumerationContext>uuid:2<"},
          "<en:PullResponse><en:Items>" VM("three") "</en:Items></en:PullResponse>"}, // no context: the old one
         {.expected = {"EnumerationContext>uuid:2<"},
          "<en:PullResponse><en:Items>" VM("four") "</en:Items><en:EndOfSequence/></en:PullResponse>"});
    struct rp_error err = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    static const char query_text[] = "SELECT * FROM Msvm_ComputerSystem WHERE Name <> \"a\"";
    good(rp_wsman_query(client, V2, NULL, query_text, schema, false, &found, &err), &err);
    static const char *const names[] = {"one", "two", "three", "four"};
    assert_int_equal(found.count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(found.items[i]->class_name, "Msvm_ComputerSystem");
        assert_string_equal(rp_cim_get_text(found.items[i], "ElementName"), names[i]);
        assert_int_equal(rp_cim_get(found.items[i], "EnabledState")->type, RP_CIM_UINT16);
        assert_int_equal(rp_cim_get_unsigned_at(found.items[i], "OperationalStatus", 1, 0), 32772);
        // what only a newer host has stays as it came
        assert_int_equal(rp_cim_get(found.items[i], "OfTomorrow")->type, RP_CIM_NONE);
    }
}

static void objects_come_with_their_paths(void **state)
{
    (void)state;
    PLAY({.expected = {"EnumerateObjectAndEPR", "/Msvm_ComputerSystem<"},
          "<en:EnumerateResponse><en:EnumerationContext/><wm:Items><wm:Item>" VM("one") EPR("A-1") "</wm:Item>"
          "<wm:Item>" EPR("A-2") VM("two") "</wm:Item></wm:Items><wm:EndOfSequence/></en:EnumerateResponse>"});
    struct rp_error err = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    good(rp_wsman_query(client, V2, "Msvm_ComputerSystem", NULL, NULL, true, &found, &err), &err);
    assert_int_equal(found.count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(found.items[i]->path->name_space, V2);
        assert_string_equal(found.items[i]->path->class_name, "Msvm_ComputerSystem");
        assert_string_equal(rp_cim_path_get(found.items[i]->path, "name"), i ? "A-2" : "A-1");
        assert_string_equal(rp_cim_get_text(found.items[i], "ElementName"), i ? "two" : "one");
        assert_int_equal(rp_cim_get_unsigned(found.items[i], "EnabledState", 0), 2);
    }
}

static int query(struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    int result = rp_wsman_query(client, V2, "Msvm_ComputerSystem", NULL, NULL, false, &found, err);
    assert_true(!result || !found.count);
    return result;
}

static void nothing_is_a_result_too(void **state)
{
    (void)state;
    PLAY({.expected = {"/Enumerate<"},
          "<en:EnumerateResponse><en:EnumerationContext>c</en:EnumerationContext></en:EnumerateResponse>"},
         {.expected = {"/Pull<"}, "<en:PullResponse><en:Items/><en:EndOfSequence/></en:PullResponse>"});
    struct rp_error err = {0};
    good(query(&err), &err);
}

static void faults_are_errors_with_their_reason(void **state)
{
    (void)state;
    PLAY({.expected = {NULL},
          "<so:Fault><so:Code><so:Value>so:Sender</so:Value>"
          "<so:Subcode><so:Value>ad:DestinationUnreachable</so:Value></so:Subcode></so:Code>"
          "<so:Reason><so:Text xml:lang=\"en-US\">There is no such class.</so:Text></so:Reason></so:Fault>", 500});
    struct rp_error err = {0};
    bad(query(&err), &err, RP_ERR_NOT_FOUND, "There is no such class.");
}

static void an_enumeration_that_cannot_be_right_is_ended_and_given_back(void **state)
{
    (void)state;
    PLAY({.expected = {"/Enumerate<"},
          "<en:EnumerateResponse><en:EnumerationContext>ctx</en:EnumerationContext></en:EnumerateResponse>"},
         {.expected = {"/Pull<"}, "<en:Nonsense/>"},
         {.expected = {"/Release<", "EnumerationContext>ctx<"}, "<en:ReleaseResponse/>"});
    struct rp_error err = {0};
    bad(query(&err), &err, RP_ERR_CORRUPT, "something else");
}

static void an_answer_to_another_message_is_not_taken(void **state)
{
    (void)state;
    PLAY({.expected = {NULL},
          "<en:EnumerateResponse><wm:Items/><wm:EndOfSequence/></en:EnumerateResponse>", .to_another = true});
    struct rp_error err = {0};
    bad(query(&err), &err, RP_ERR_CORRUPT, "another message");
}

static unsigned flood_answers;

// Batches without end, each with 15 MiB of nothing; or, `flood_once`, one larger than any answer may be.
static bool flood_once;
static unsigned flood(const char *request, size_t size, struct rp_buf *out)
{
    RP_AUTO_FREE char *text = strndup(request, size);
    const char *id = strstr(text, "MessageID>") + 10, *kind = strstr(text, "n:Pull") ? "Pull" : "Enumerate";
    flood_answers++;
    rp_buf_printf(out, "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\"><s:Header>"
                  "<a:RelatesTo xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\">%.*s</a:RelatesTo>"
                  "</s:Header><s:Body><n:%sResponse xmlns:n=\"http://schemas.xmlsoap.org/ws/2004/09/enumeration\">"
                  "<n:EnumerationContext>c</n:EnumerationContext><n:Items>" VM("a") "</n:Items>",
                  (int)strcspn(id, "<"), id, kind);
    for (int i = 0; i < (flood_once ? 17 : 15); i++) {
        rp_buf_printf(out, "<!--");
        memset(rp_buf_extend(out, 1 << 20), 'x', 1 << 20);
        rp_buf_printf(out, "-->");
    }
    rp_buf_printf(out, "</n:%sResponse></s:Body></s:Envelope>", kind);
    return 200;
}

static void answers_that_never_end_are_given_up(void **state)
{
    (void)state;
    struct rp_error err = {0};
    kit_service = flood;
    script_length = script_at = 0;
    script_missed = NULL;
    for (int once = 1; once >= 0; once--) {
        flood_once = once;
        flood_answers = 0;
        rp_error_clear(&err);
        bad(query(&err), &err, RP_ERR_CORRUPT, once ? "an answer of more than 16 MiB" : "more than 128 MiB of objects");
        assert_int_equal(flood_answers, once ? 1 : 9 + 1); // and the Release
    }
}

static struct rp_cim_path *vm_path(void)
{
    struct rp_cim_path *path = rp_cim_path_new(V2, "Msvm_ComputerSystem");
    rp_cim_path_set(path, "Name", "A<1>");
    return path;
}

static void get_asks_by_keys_and_gives_the_path_back(void **state)
{
    (void)state;
    PLAY({.expected = {"transfer/Get<", V2 "/Msvm_ComputerSystem<", "Name=\"Name\">A&lt;1&gt;<"}, VM("one")});
    struct rp_error err = {0};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = vm_path();
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm = rp_wsman_get(client, path, schema, &err);
    good(vm ? 0 : -1, &err);
    assert_true(rp_cim_path_equal(vm->path, path));
    assert_int_equal(rp_cim_get(vm, "EnabledState")->type, RP_CIM_UINT16);
}

static void a_method_takes_parameters_and_returns_status_and_references(void **state)
{
    (void)state;
    PLAY({.expected = {CLASS "/RequestStateChange<", "<p:RequestStateChange_INPUT xmlns:p=\"" CLASS "\">",
           "<p:RequestedState>3</p:RequestedState>", "Name=\"Name\">A&lt;1&gt;<"},
          "<z:RequestStateChange_OUTPUT xmlns:z=\"" CLASS "\"><z:Job><ad:Address>" ANONYMOUS "</ad:Address>"
          "<ad:ReferenceParameters><wm:ResourceURI>" URI "Msvm_ConcreteJob</wm:ResourceURI>"
          "<wm:SelectorSet><wm:Selector Name=\"InstanceID\">J-1</wm:Selector></wm:SelectorSet></ad:ReferenceParameters>"
          "</z:Job><z:ReturnValue>4096</z:ReturnValue></z:RequestStateChange_OUTPUT>"});
    struct rp_error err = {0};
    uint32_t status = 0;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = vm_path();
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in =
        rp_cim_instance_new(NULL, "RequestStateChange_INPUT");
    rp_cim_set(in, "RequestedState", rp_cim_unsigned(RP_CIM_UINT16, 3));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out =
        rp_wsman_invoke(client, path, "RequestStateChange", in, &status, &err);
    good(out ? 0 : -1, &err);
    assert_int_equal(status, 4096);
    const struct rp_cim_path *job = rp_cim_get_path(out, "Job");
    assert_non_null(job);
    assert_string_equal(job->class_name, "Msvm_ConcreteJob");
    assert_string_equal(rp_cim_path_get(job, "InstanceID"), "J-1");
}

static void a_method_without_a_return_value_is_none(void **state)
{
    (void)state;
    PLAY({.expected = {"<p:Start_INPUT "}, "<z:Start_OUTPUT xmlns:z=\"" CLASS "\"/>"});
    struct rp_error err = {0};
    uint32_t status = 77;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = vm_path();
    struct rp_cim_instance *out = rp_wsman_invoke(client, path, "Start", NULL, &status, &err);
    bad(out ? 0 : -1, &err, RP_ERR_CORRUPT, "no ReturnValue");
    assert_int_equal(status, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identify_tells_vendor_and_version),
        cmocka_unit_test(a_query_takes_every_batch_in_either_form),
        cmocka_unit_test(objects_come_with_their_paths),
        cmocka_unit_test(nothing_is_a_result_too),
        cmocka_unit_test(faults_are_errors_with_their_reason),
        cmocka_unit_test(an_enumeration_that_cannot_be_right_is_ended_and_given_back),
        cmocka_unit_test(an_answer_to_another_message_is_not_taken),
        cmocka_unit_test(answers_that_never_end_are_given_up),
        cmocka_unit_test(get_asks_by_keys_and_gives_the_path_back),
        cmocka_unit_test(a_method_takes_parameters_and_returns_status_and_references),
        cmocka_unit_test(a_method_without_a_return_value_is_none),
    };
    return cmocka_run_group_tests_name("client", tests, start, stop);
}
