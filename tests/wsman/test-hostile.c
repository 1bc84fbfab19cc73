// Messages that want the service to break, to hang or to grow. Each is answered with a fault, and soon.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "reply.h"
#include "wsman/names.h"

#define VM V2_URI "Msvm_ComputerSystem"
#define IMAGES V2_URI "Msvm_ImageManagementService"
#define MANY 20000

static struct site site;

static int open_site(void **state)
{
    (void)state;
    site_open(&site, NULL);
    return 0;
}

static int close_site(void **state)
{
    (void)state;
    site_close(&site);
    return 0;
}

static void repeat(struct rp_buf *out, const char *text, int times)
{
    for (int i = 0; i < times; i++)
        rp_buf_append(out, text, strlen(text));
}

static void fails(const char *action, const char *uri, const char *headers, const char *body, const char *expected)
{
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    uint64_t start = rp_clock_monotonic_ns();
    reply_to_message(&site, action, uri, NULL, headers, body, &reply);
    uint64_t took = (rp_clock_monotonic_ns() - start) / 1000000;
    RP_AUTO_FREE char *fault = reply_fault(&reply);
    assert_string_equal(fault, expected);
    assert_in_range(took, 0, 5000); // the square of what is sent would take minutes
}

static void elements_without_end_are_refused(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
    repeat(&body, "<a>", MANY);
    fails(RP_ACTION_ENUMERATE, VM, NULL, rp_buf_text(&body), "w:SchemaValidationError 400");
    rp_buf_reset(&body);
    repeat(&body, "<n:Enumerate>", 61);
    repeat(&body, "</n:Enumerate>", 61);
    fails(RP_ACTION_ENUMERATE, VM, NULL, rp_buf_text(&body), "200");
    rp_buf_reset(&body);
    rp_buf_printf(&body, "<n:Enumerate");
    for (int i = 0; i < MANY; i++)
        rp_buf_printf(&body, " a%d=''", i);
    rp_buf_printf(&body, "/>");
    fails(RP_ACTION_ENUMERATE, VM, NULL, rp_buf_text(&body), "w:SchemaValidationError 400");
}

static void a_message_larger_than_the_envelope_is_refused_unread(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
    rp_buf_printf(&body, "<n:Enumerate><w:Filter Dialect=\"" RP_DIALECT_WQL "\">SELECT * FROM "
                  "Msvm_ComputerSystem WHERE Name = '");
    repeat(&body, "0123456789abcdef", 1 << 16);
    rp_buf_printf(&body, "'</w:Filter></n:Enumerate>");
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    reply_to_message(&site, RP_ACTION_ENUMERATE, V2_URI "*", NULL, NULL, rp_buf_text(&body), &reply);
    RP_AUTO_FREE char *fault = reply_fault(&reply);
    assert_string_equal(fault, "w:EncodingLimit ServiceEnvelopeLimit 500");
}

static void queries_as_large_as_a_message_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *open, *again, *close;
        int times;
    } tests[] = {
        {"Name = '", "0123456789abcdef", "'", 25000},
        {"", "Name = 'a' OR ", "Name = 'b'", 4000},
        {"", "(", "", 30000},
        {"", "NOT ", "Name = 'a'", 15000},
        {"Name LIKE '", "%a", "'", 20000},
        {"Name = 'a' AND ", "\\\\", "", 20000},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
        rp_buf_printf(&body, "<n:Enumerate><w:Filter Dialect=\"" RP_DIALECT_WQL
                      "\">SELECT * FROM Msvm_ComputerSystem WHERE %s", tests[i].open);
        repeat(&body, tests[i].again, tests[i].times);
        rp_buf_printf(&body, "%s</w:Filter></n:Enumerate>", tests[i].close);
        fails(RP_ACTION_ENUMERATE, V2_URI "*", NULL, rp_buf_text(&body), "n:CannotProcessFilter 500");
    }
}

static void selectors_are_few_and_of_any_length(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf set = {0};
    rp_buf_printf(&set, "<w:SelectorSet>");
    for (int i = 0; i < 5000; i++)
        rp_buf_printf(&set, "<w:Selector Name=\"s%d\">a</w:Selector>", i);
    rp_buf_printf(&set, "</w:SelectorSet>");
    fails(RP_ACTION_GET, VM, rp_buf_text(&set), NULL, "w:EncodingLimit SelectorLimit 500");
    rp_buf_reset(&set);
    rp_buf_printf(&set, "<w:SelectorSet><w:Selector Name=\"Name\">");
    repeat(&set, "0123456789abcdef", MANY);
    rp_buf_printf(&set, "</w:Selector></w:SelectorSet>");
    fails(RP_ACTION_GET, VM, rp_buf_text(&set), NULL, "w:InvalidSelectors 500");
    rp_buf_reset(&set);
    rp_buf_printf(&set, "<w:SelectorSet><w:Selector Name=\"CreationClassName\">Msvm_ComputerSystem</w:Selector>"
                  "<w:Selector Name=\"Name\">");
    repeat(&set, "0123456789abcdef", MANY);
    rp_buf_printf(&set, "</w:Selector></w:SelectorSet>");
    fails(RP_ACTION_GET, VM, rp_buf_text(&set), NULL, "a:DestinationUnreachable ResourceNotFound 500");
    rp_buf_reset(&set);
    rp_buf_printf(&set, "<w:SelectorSet>");
    for (int i = 0; i < 11; i++)
        rp_buf_printf(&set, "<w:Selector Name=\"Name\"><a:EndpointReference><a:ReferenceParameters><w:ResourceURI>" VM
                      "</w:ResourceURI><w:SelectorSet>");
    for (int i = 0; i < 11; i++)
        rp_buf_printf(&set, "</w:SelectorSet></a:ReferenceParameters></a:EndpointReference></w:Selector>");
    rp_buf_printf(&set, "</w:SelectorSet>");
    fails(RP_ACTION_GET, VM, rp_buf_text(&set), NULL, "w:InvalidSelectors 500"); // each level doubles what it escapes
}

// ' OR '1'='1: a selector is a value, and stays one.
static void a_selector_does_not_become_part_of_a_query(void **state)
{
    (void)state;
    static const char *const values[] = {"x' OR Name LIKE '%", "\\' OR Name LIKE '%", "x\\\\' OR Name != '", "'", "\\"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        RP_CLEANUP(reply_clear) struct reply reply = {0};
        RP_AUTO_FREE char *selectors = rp_xasprintf("Name=%s", values[i]);
        reply_to_message(&site, RP_ACTION_GET, VM, selectors, NULL, NULL, &reply);
        RP_AUTO_FREE char *fault = reply_fault(&reply);
        assert_string_equal(fault, "a:DestinationUnreachable ResourceNotFound 500");
    }
}

static void parameters_are_counted_and_arrays_may_be_long(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
    rp_buf_printf(&body, "<p:GetVHDSnapshotInformation_INPUT xmlns:p=\"" IMAGES "\">");
    for (int i = 0; i < MANY; i++)
        rp_buf_printf(&body, "<p:P%d/>", i);
    rp_buf_printf(&body, "</p:GetVHDSnapshotInformation_INPUT>");
    fails(IMAGES "/GetVHDSnapshotInformation", IMAGES, NULL, rp_buf_text(&body), "w:InvalidParameter 500");
    rp_buf_reset(&body);
    rp_buf_printf(&body, "<p:GetVHDSnapshotInformation_INPUT xmlns:p=\"" IMAGES "\">");
    repeat(&body, "<p:SnapshotIds/>", MANY);
    rp_buf_printf(&body, "</p:GetVHDSnapshotInformation_INPUT>");
    fails(IMAGES "/GetVHDSnapshotInformation", IMAGES, NULL, rp_buf_text(&body), "200");
    assert_int_equal(rp_cim_get_count(site.v2->in, "SnapshotIds"), MANY);
}

static void contexts_that_were_never_given_are_not_known(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf body = {0};
    static const char *const contexts[] = {"", "uuid:", "0", "&lt;x/&gt;", "uuid:00000000-0000-0000-0000-000000000000"};
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        rp_buf_reset(&body);
        rp_buf_printf(&body, "<n:Pull><n:EnumerationContext>%s</n:EnumerationContext></n:Pull>", contexts[i]);
        fails(RP_ACTION_PULL, VM, NULL, rp_buf_text(&body), "n:InvalidEnumerationContext 500");
    }
    rp_buf_reset(&body);
    rp_buf_printf(&body, "<n:Release><n:EnumerationContext>");
    repeat(&body, "a", 400000);
    rp_buf_printf(&body, "</n:EnumerationContext></n:Release>");
    fails(RP_ACTION_RELEASE, VM, NULL, rp_buf_text(&body), "n:InvalidEnumerationContext 500");
}

static void headers_that_are_long_or_many_cost_little(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf headers = {0};
    repeat(&headers, "<q:x xmlns:q='q'/>", MANY);
    fails(RP_ACTION_ENUMERATE, VM, rp_buf_text(&headers), "<n:Enumerate/>", "200");
    rp_buf_reset(&headers);
    rp_buf_printf(&headers, "<w:OperationTimeout>P");
    repeat(&headers, "9", 100000);
    rp_buf_printf(&headers, "Y</w:OperationTimeout>");
    fails(RP_ACTION_ENUMERATE, VM, rp_buf_text(&headers), "<n:Enumerate/>", "a:InvalidMessageInformationHeader 400");
    fails(RP_ACTION_ENUMERATE, VM, "<w:MaxEnvelopeSize>18446744073709551615</w:MaxEnvelopeSize>", "<n:Enumerate/>",
          "200");
    fails(RP_ACTION_ENUMERATE, VM, "<w:MaxEnvelopeSize>18446744073709551616</w:MaxEnvelopeSize>", "<n:Enumerate/>",
          "a:InvalidMessageInformationHeader 400");
    fails(RP_ACTION_ENUMERATE, VM, "<w:OperationTimeout>P10000Y</w:OperationTimeout>", "<n:Enumerate/>", "200");
    rp_buf_reset(&headers);
    repeat(&headers, "/", 400000);
    fails(rp_buf_text(&headers), VM, NULL, NULL, "a:ActionNotSupported 500");
}

// What a fault gives back of its request does not make it larger than any answer may be.
static void a_message_id_is_given_back_only_when_it_is_one(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    RP_CLEANUP(reply_clear) struct reply reply = {0};
    rp_buf_printf(&text, "<s:Envelope xmlns:s=\"" RP_NS_SOAP "\" xmlns:a=\"" RP_NS_ADDRESSING "\"><s:Header>"
                  "<a:Action>x</a:Action><a:To>x</a:To><a:ReplyTo><a:Address>" RP_ADDRESS_ANONYMOUS
                  "</a:Address></a:ReplyTo><a:MessageID>");
    repeat(&text, "\"", 400000);
    rp_buf_printf(&text, "</a:MessageID></s:Header><s:Body/></s:Envelope>");
    reply_to(&site, (const char *)text.data, text.size, &reply);
    RP_AUTO_FREE char *fault = reply_fault(&reply);
    assert_string_equal(fault, "a:InvalidMessageInformationHeader 400");
    assert_in_range(reply.bytes.size, 1, 4096);
    assert_int_equal(reply_count(&reply, "//a:RelatesTo"), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_site, close_site)
    const struct CMUnitTest tests[] = {
        TEST(elements_without_end_are_refused),
        TEST(a_message_larger_than_the_envelope_is_refused_unread),
        TEST(queries_as_large_as_a_message_are_refused),
        TEST(selectors_are_few_and_of_any_length),
        TEST(a_selector_does_not_become_part_of_a_query),
        TEST(parameters_are_counted_and_arrays_may_be_long),
        TEST(contexts_that_were_never_given_are_not_known),
        TEST(headers_that_are_long_or_many_cost_little),
        TEST(a_message_id_is_given_back_only_when_it_is_one),
    };
    return cmocka_run_group_tests_name("wsman hostile", tests, NULL, NULL);
}
