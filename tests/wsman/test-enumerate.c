// Enumerations under way: batches, quotas, time-outs, owners, and what a Pull costs.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "reply.h"
#include "wsman/names.h"
#include "wsman/service_impl.h"

#define VM V2_URI "Msvm_ComputerSystem"
#define MACHINES 1200

static struct site site;
static struct reply reply;

static int close_site(void **state)
{
    (void)state;
    reply_clear(&reply);
    site_close(&site);
    return 0;
}

static size_t open_enumerations(void)
{
    return rp_enumerations_count(site.service->enumerations);
}

static void enumerate(const char *headers, const char *inside)
{
    RP_AUTO_FREE char *body = rp_xasprintf("<n:Enumerate>%s</n:Enumerate>", inside);
    reply_to_message(&site, RP_ACTION_ENUMERATE, VM, NULL, headers, body, &reply);
}

static void pull(const char *headers, const char *inside)
{
    RP_AUTO_FREE char *body = rp_xasprintf(
        "<n:Pull><n:EnumerationContext>@CONTEXT@</n:EnumerationContext>%s</n:Pull>", inside);
    reply_to_message(&site, RP_ACTION_PULL, "http://any/uri/at/all", NULL, headers, body, &reply);
}

static void is_fault(const char *expected)
{
    RP_AUTO_FREE char *fault = reply_fault(&reply);
    assert_string_equal(fault, expected);
}

static int pulled(void)
{
    return reply_count(&reply, "//n:PullResponse/n:Items/*");
}

static void a_pull_gives_one_object_unless_it_asks_for_more(void **state)
{
    (void)state;
    site_open(&site, NULL);
    inventory_fill(site.v2, 20);
    enumerate(NULL, "");
    assert_int_equal(reply_count(&reply, "//n:EnumerateResponse/n:EnumerationContext"), 1);
    assert_int_equal(reply_count(&reply, "//n:EnumerateResponse/*"), 1);
    assert_int_equal(open_enumerations(), 1);
    pull(NULL, "");
    assert_int_equal(pulled(), 1);
    pull(NULL, "<n:MaxElements>5</n:MaxElements><n:MaxTime>PT5S</n:MaxTime>");
    assert_int_equal(pulled(), 5);
    pull(NULL, "<n:MaxElements>18446744073709551615</n:MaxElements><n:MaxCharacters>9000</n:MaxCharacters>");
    assert_in_range(pulled(), 1, 9);
    pull(NULL, "<n:MaxElements>32000</n:MaxElements>");
    assert_int_equal(reply_count(&reply, "//n:PullResponse/n:EndOfSequence"), 1);
    assert_int_equal(open_enumerations(), 0);
    pull(NULL, "");
    is_fault("n:InvalidEnumerationContext 500");
}

static void an_optimized_enumerate_that_gives_all_keeps_nothing(void **state)
{
    (void)state;
    site_open(&site, NULL);
    enumerate(NULL, "<w:OptimizeEnumeration/><w:MaxElements>3</w:MaxElements>");
    assert_int_equal(reply_count(&reply, "//n:EnumerateResponse/w:Items/p:Msvm_ComputerSystem"), 0); // p is deeper down
    assert_int_equal(reply_count(&reply, "//n:EnumerateResponse/w:Items/*"), 3);
    assert_int_equal(reply_count(&reply, "//n:EnumerateResponse/w:EndOfSequence"), 1);
    assert_true(reply_is(&reply, "//n:EnumerateResponse/n:EnumerationContext", ""));
    assert_int_equal(open_enumerations(), 0);
    enumerate(NULL, "<w:OptimizeEnumeration/>");
    assert_int_equal(reply_count(&reply, "//n:EnumerateResponse/w:Items/*"), 1);
    assert_int_equal(open_enumerations(), 1);
}

static void batches_stay_within_the_envelope_that_was_allowed(void **state)
{
    (void)state;
    site_open(&site, NULL);
    inventory_fill(site.v2, 100);
    int total = 0;
    const char *small = "<w:MaxEnvelopeSize>12000</w:MaxEnvelopeSize>";
    enumerate(small, "<w:OptimizeEnumeration/><w:MaxElements>1000</w:MaxElements>");
    total += reply_count(&reply, "//w:Items/*");
    assert_in_range(total, 1, 99);
    assert_in_range(reply.bytes.size, 8000, 12000);
    while (!reply_count(&reply, "//n:EndOfSequence")) {
        pull(small, "<n:MaxElements>1000</n:MaxElements>");
        assert_in_range(reply.bytes.size, 1, 12000);
        assert_in_range(pulled(), 1, 99);
        total += pulled();
    }
    assert_int_equal(total, 103);
}

static void a_batch_has_no_more_objects_than_the_service_allows(void **state)
{
    (void)state;
    site_open(&site, &(struct rp_wsman_limits){.max_batch = 2});
    enumerate(NULL, "<w:OptimizeEnumeration/><w:MaxElements>100</w:MaxElements>");
    assert_int_equal(reply_count(&reply, "//w:Items/*"), 2);
    pull(NULL, "<n:MaxElements>100</n:MaxElements>");
    assert_int_equal(pulled(), 1);
}

// What a host keeps of finished jobs is far less than the quota, though each of them has a hundred properties.
static void ten_thousand_objects_are_far_from_the_quota(void **state)
{
    (void)state;
    site_open(&site, &(struct rp_wsman_limits){.max_enumerated = 48 << 20});
    inventory_fill(site.v2, 10000);
    enumerate(NULL, "");
    assert_int_equal(reply.status, 200);
    pull(NULL, "");
    assert_int_equal(reply_count(&reply, "//n:Items/*/*[@xsi:nil='true']") > 20, 1);
}

static void one_object_that_is_too_large_stays_for_whoever_allows_more(void **state)
{
    (void)state;
    site_open(&site, NULL);
    static char name[20001];
    memset(name, 'x', sizeof name - 1);
    rp_cim_set(site.v2->objects.items[0], "Description", rp_cim_string(name));
    enumerate(NULL, "");
    pull("<w:MaxEnvelopeSize>8192</w:MaxEnvelopeSize>", "");
    is_fault("w:EncodingLimit MaxEnvelopeSizeExceeded 500");
    pull(NULL, "<n:MaxCharacters>100</n:MaxCharacters>");
    is_fault("w:EncodingLimit MaxEnvelopeSizeExceeded 500");
    pull(NULL, "");
    assert_int_equal(pulled(), 1);
    reply_to_message(&site, RP_ACTION_GET, VM, "Name=HV1", "<w:MaxEnvelopeSize>8192</w:MaxEnvelopeSize>", NULL, &reply);
    is_fault("w:EncodingLimit MaxEnvelopeSizeExceeded 500");
}

static void an_enumeration_belongs_to_its_user(void **state)
{
    (void)state;
    site_open(&site, NULL);
    enumerate(NULL, "");
    site.caller.user = "LAB\\other";
    pull(NULL, "");
    is_fault("n:InvalidEnumerationContext 500");
    reply_to_message(&site, RP_ACTION_RELEASE, VM, NULL, NULL,
                     "<n:Release><n:EnumerationContext>@CONTEXT@</n:EnumerationContext></n:Release>", &reply);
    is_fault("n:InvalidEnumerationContext 500");
    site.caller.user = "LAB\\admin";
    pull(NULL, "");
    assert_int_equal(pulled(), 1);
}

static void quotas_bound_how_many_are_open_and_what_they_hold(void **state)
{
    (void)state;
    site_open(&site, &(struct rp_wsman_limits){.max_enumerations = 20, .max_enumerated = 1000000});
    enumerate(NULL, "");
    enumerate(NULL, "");
    assert_int_equal(open_enumerations(), 2);
    enumerate(NULL, ""); // a tenth of 20 for one user
    is_fault("w:QuotaLimit 500");
    site.caller.user = "lab\\ADMIN"; // who is the same, as NTLM spells it
    enumerate(NULL, "");
    is_fault("w:QuotaLimit 500");
    static char users[18][16];
    for (int i = 0; i < 18; i++) {
        snprintf(users[i], sizeof users[i], "user %d", i);
        site.caller.user = users[i];
        enumerate(NULL, "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>");
        assert_int_equal(reply.status, 200);
    }
    site.caller.user = "late";
    enumerate(NULL, "");
    is_fault("w:QuotaLimit 500");
    site.caller.user = users[0];
    pull(NULL, "<n:MaxElements>10</n:MaxElements>");
    is_fault("n:InvalidEnumerationContext 500"); // the last context is another user's
    site_close(&site);
    site_open(&site, &(struct rp_wsman_limits){.max_enumerated = 240000});
    inventory_fill(site.v2, 100);
    enumerate(NULL, "");
    is_fault("w:QuotaLimit 500");
    // paths alone fit, and nothing is left of the other
    enumerate(NULL, "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>");
    assert_int_equal(reply.status, 200);
    pull(NULL, "<n:MaxElements>1000</n:MaxElements>");
    assert_int_equal(pulled(), 103);
    enumerate(NULL, "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>");
    assert_int_equal(reply.status, 200);
}

static void who_does_not_pull_for_too_long_loses_his_place(void **state)
{
    (void)state;
    site_open(&site, &(struct rp_wsman_limits){.enumeration_timeout_ms = 3000});
    enumerate(NULL, "");
    for (int i = 0; i < 2; i++) {
        sleep(2); // each Pull starts the time anew
        pull(NULL, "");
        assert_int_equal(pulled(), 1);
    }
    sleep(4);
    pull(NULL, "");
    is_fault("n:InvalidEnumerationContext 500");
    assert_int_equal(open_enumerations(), 0);
}

// Whoever may only read, and never takes what he asked for, keeps no backup from asking.
static void who_holds_all_that_he_may_leaves_room_to_others(void **state)
{
    (void)state;
    site_open(&site, &(struct rp_wsman_limits){.max_enumerated = 240000});
    inventory_fill(site.v2, 100);
    do
        enumerate(NULL, "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>");
    while (reply.status == 200);
    is_fault("w:QuotaLimit 500");
    site.caller.user = "LAB\\other";
    enumerate(NULL, "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>");
    assert_int_equal(reply.status, 200);
}

static void what_nobody_pulls_any_more_leaves_its_room_to_others(void **state)
{
    (void)state;
    site_open(&site, &(struct rp_wsman_limits){.enumeration_timeout_ms = 1000, .max_enumerated = 240000});
    inventory_fill(site.v2, 100);
    do
        enumerate(NULL, "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>");
    while (reply.status == 200);
    is_fault("w:QuotaLimit 500");
    usleep(1200000);
    enumerate(NULL, "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>");
    assert_int_equal(reply.status, 200);
}

static void a_query_that_takes_too_long_is_given_up(void **state)
{
    (void)state;
    site_open(&site, NULL);
    inventory_fill(site.v2, 100);
    site.v2->delay_ms = 20;
    uint64_t start = rp_clock_monotonic_ns();
    enumerate("<w:OperationTimeout>PT0.050S</w:OperationTimeout>", "");
    is_fault("w:TimedOut 500");
    assert_in_range((rp_clock_monotonic_ns() - start) / 1000000, 50, 25000); // all of it would take longer
    assert_int_equal(open_enumerations(), 0);
    // also when nothing matches, wherever the query comes from
    enumerate("<w:OperationTimeout>PT0.050S</w:OperationTimeout>", "<w:Filter Dialect=\"" RP_DIALECT_WQL
              "\">SELECT * FROM Msvm_ComputerSystem WHERE Name LIKE '%none%'</w:Filter>");
    is_fault("w:TimedOut 500");
    reply_to_message(&site, RP_ACTION_GET, VM, "Name=none", "<w:OperationTimeout>PT0.050S</w:OperationTimeout>", NULL,
                     &reply);
    is_fault("w:TimedOut 500");
    enumerate("<w:OperationTimeout>PT0.010S</w:OperationTimeout>", "<w:Filter Dialect=\"" RP_DIALECT_WQL
              "\">ASSOCIATORS OF {Msvm_VirtualSystemSettingData.InstanceID='Microsoft:" WEB "'}</w:Filter>");
    is_fault("w:TimedOut 500");
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// The quicker tenth of the first and of the last 300 of 1,200 Pulls: what a machine that is busy just then costs is in none.
static void the_cost_of_a_pull_does_not_grow_with_its_position(void **state)
{
    (void)state;
    static uint64_t times[MACHINES];
    site_open(&site, NULL);
    inventory_fill(site.v2, MACHINES);
    enumerate(NULL, "");
    for (int i = 0; i < MACHINES; i++) {
        uint64_t start = rp_clock_monotonic_ns();
        pull(NULL, "");
        times[i] = rp_clock_monotonic_ns() - start;
        assert_int_equal(reply.status, 200);
    }
    qsort(times, 300, sizeof *times, by_size);
    qsort(times + MACHINES - 300, 300, sizeof *times, by_size);
    uint64_t first = times[30], last = times[MACHINES - 270];
    print_message("# a Pull takes %llu us at the start and %llu us at the end\n", (unsigned long long)first / 1000,
                  (unsigned long long)last / 1000);
    assert_true(last < first * 2 + 100000);
}

struct thread {
    pthread_t id;
    struct site site;
    char user[16];
    int got, failures;
};

static void *pull_all(void *argument)
{
    struct thread *t = argument;
    struct reply mine = {0};
    for (int round = 0; round < 3; round++) {
        reply_to_message(&t->site, RP_ACTION_ENUMERATE, VM, NULL, NULL, "<n:Enumerate/>", &mine);
        t->failures += mine.status != 200;
        do {
            reply_to_message(&t->site, RP_ACTION_PULL, VM, NULL, NULL, "<n:Pull><n:EnumerationContext>@CONTEXT@"
                "</n:EnumerationContext><n:MaxElements>7</n:MaxElements></n:Pull>", &mine);
            t->got += reply_count(&mine, "//n:PullResponse/n:Items/*");
        } while (mine.status == 200 && !reply_count(&mine, "//n:EndOfSequence"));
        t->failures += mine.status != 200;
        reply_to_message(&t->site, V2_URI "Msvm_VirtualSystemManagementService/DefineSystem",
                         V2_URI "Msvm_VirtualSystemManagementService", NULL, NULL, NULL, &mine);
        t->failures += mine.status != 200;
    }
    reply_clear(&mine);
    return NULL;
}

static void several_clients_pull_at_once(void **state)
{
    (void)state;
    static struct thread threads[4];
    site_open(&site, NULL);
    inventory_fill(site.v2, 40);
    for (int i = 0; i < 4; i++) {
        threads[i] = (struct thread){.site = site};
        snprintf(threads[i].user, sizeof threads[i].user, "user %d", i % 2);
        threads[i].site.caller.user = threads[i].user;
        assert_int_equal(pthread_create(&threads[i].id, NULL, pull_all, &threads[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i].id, NULL);
        assert_int_equal(threads[i].failures, 0);
        assert_int_equal(threads[i].got, 3 * 43);
    }
    assert_int_equal(open_enumerations(), 0);
}

// What another thread pulls at the moment is not pulled twice, and a Release ends it afterwards.
static void an_enumeration_is_pulled_by_one_at_a_time(void **state)
{
    (void)state;
    site_open(&site, NULL);
    enumerate(NULL, "");
    struct rp_fault fault = {0};
    struct rp_enumerations *all = site.service->enumerations;
    struct rp_enumeration *taken = rp_enumerations_take(all, site.context, site.caller.user, &fault);
    assert_non_null(taken);
    pull(NULL, "");
    is_fault("w:Concurrency 500");
    assert_int_equal(rp_enumerations_release(all, site.context, site.caller.user, &fault), 0);
    pull(NULL, "");
    is_fault("n:InvalidEnumerationContext 500");
    assert_int_equal(open_enumerations(), 1);
    rp_enumerations_give_back(all, taken, false);
    assert_int_equal(open_enumerations(), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, close_site)
    const struct CMUnitTest tests[] = {
        TEST(a_pull_gives_one_object_unless_it_asks_for_more),
        TEST(an_optimized_enumerate_that_gives_all_keeps_nothing),
        TEST(batches_stay_within_the_envelope_that_was_allowed),
        TEST(a_batch_has_no_more_objects_than_the_service_allows),
        TEST(ten_thousand_objects_are_far_from_the_quota),
        TEST(one_object_that_is_too_large_stays_for_whoever_allows_more),
        TEST(an_enumeration_belongs_to_its_user),
        TEST(quotas_bound_how_many_are_open_and_what_they_hold),
        TEST(who_does_not_pull_for_too_long_loses_his_place),
        TEST(who_holds_all_that_he_may_leaves_room_to_others),
        TEST(what_nobody_pulls_any_more_leaves_its_room_to_others),
        TEST(a_query_that_takes_too_long_is_given_up),
        TEST(the_cost_of_a_pull_does_not_grow_with_its_position),
        TEST(several_clients_pull_at_once),
        TEST(an_enumeration_is_pulled_by_one_at_a_time),
    };
    return cmocka_run_group_tests_name("wsman enumerate", tests, NULL, NULL);
}
