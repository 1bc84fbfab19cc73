// Requests: what becomes of calls that do not end in time. The connection is libvirt's test driver.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "libvirt/libvirt_impl.h"

#define URI "test:///default"

static struct rp_hypervisor *hv;
static sem_t go, undone;
static atomic_int undo_count;

static int quick(struct rp_request *request, struct rp_error *err)
{
    (void)err;
    request->result = 42;
    return 0;
}

static int stuck(struct rp_request *request, struct rp_error *err)
{
    (void)request;
    (void)err;
    while (sem_wait(&go))
        ;
    return 0;
}

static int stuck_and_failing(struct rp_request *request, struct rp_error *err)
{
    stuck(request, err);
    return rp_fail(err, RP_ERR_STATE, "too late anyway");
}

static int extended(struct rp_request *request, struct rp_error *err)
{
    (void)err;
    uint64_t end = request->began_ns + request->limit_ms * 1000000 + 200000000;
    rp_request_extend(request, 60000);
    while (rp_clock_monotonic_ns() < end)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return 0;
}

static int undo(struct rp_request *request, struct rp_error *err)
{
    (void)request;
    (void)err;
    undo_count++;
    sem_post(&undone);
    return 0;
}

static void wait_for(sem_t *what)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 60;
    assert_int_equal(sem_timedwait(what, &end), 0);
}

// Until no more requests than that run though they were given up.
static void settle_to(unsigned left)
{
    uint64_t end = rp_clock_monotonic_ns() + 60000000000ull;
    for (bool busy = true; busy;) {
        pthread_mutex_lock(&hv->lock);
        busy = hv->given_up > left;
        pthread_mutex_unlock(&hv->lock);
        assert_true(rp_clock_monotonic_ns() < end);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void settle(void) { settle_to(0); }

static int give_up(rp_request_fn *work, rp_request_fn *on_undo, enum rp_code late, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, NULL, "be tried", work);
    request->unconnected = true; // so that it works in any case
    request->undo = on_undo;
    request->late = late;
    return rp_request_run(request, 50, err);
}

static void a_request_that_ends_in_time_hands_out_its_results(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, NULL, "be tried", quick);
    assert_int_equal(rp_request_run(request, 60000, &err), 0);
    assert_int_equal(request->result, 42);
}

static void one_that_does_not_is_given_up_and_undone_when_it_ends_after_all(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    uint64_t began = rp_clock_monotonic_ns();
    assert_int_equal(give_up(stuck, undo, RP_OK, &err), -1);
    assert_true(rp_clock_monotonic_ns() - began >= 50000000u);
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_non_null(strstr(err.text, "has not answered"));
    assert_int_equal(undo_count, 0);
    sem_post(&go);
    wait_for(&undone);
    settle();
    assert_int_equal(undo_count, 1);
}

static void what_failed_late_has_nothing_to_undo(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    assert_int_equal(give_up(stuck_and_failing, undo, RP_ERR_IO, &err), -1);
    assert_int_equal(err.code, RP_ERR_IO); // as the caller wanted it called
    sem_post(&go);
    settle();
    assert_int_equal(undo_count, 1); // that of the test before
}

static void one_that_needs_longer_can_say_so(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, NULL, "be tried", extended);
    assert_int_equal(rp_request_run(request, 3000, &err), 0);
}

static void when_many_do_not_end_further_ones_are_refused_at_once_until_they_do(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    unsigned count = 0;
    do {
        rp_error_clear(&err);
        assert_int_equal(give_up(stuck, NULL, RP_OK, &err), -1);
        assert_int_equal(err.code, RP_ERR_BUSY);
    } while (!strstr(err.text, "earlier requests") && ++count < 100);
    assert_int_equal(count, 16);
    for (unsigned i = 0; i < count; i++)
        sem_post(&go);
    settle();
    a_request_that_ends_in_time_hands_out_its_results(NULL);
}

static void those_behind_one_that_hangs_leave_when_they_are_given_up(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    for (int i = 0; i < 20; i++) {
        RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, NULL, "be tried", i ? quick : stuck);
        request->unconnected = true;
        request->turn = rp_xstrdup("the same");
        rp_error_clear(&err);
        assert_int_equal(rp_request_run(request, i ? 50 : 2000, &err), -1); // the first one has begun by then
        assert_null(strstr(err.text, "earlier requests"));
        settle_to(1); // only the first is left
        assert_int_equal(request->result, 0);
    }
    a_request_that_ends_in_time_hands_out_its_results(NULL);
    sem_post(&go);
    settle();
}

static void a_connection_can_be_closed_while_a_request_hangs(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    assert_int_equal(give_up(stuck, undo, RP_OK, &err), -1);
    rp_libvirt_close(hv);
    hv = rp_libvirt_open(URI, NULL);
    assert_non_null(hv);
    sem_post(&go);
    wait_for(&undone);
}

// ---- definitions ----

#define DOMAIN(devices) "<domain><devices>" devices "</devices></domain>"
#define DISK(source, more) "<disk type='network'>" source "<target dev='vda' bus='virtio'/>" more "</disk>"
#define SERVED "<source protocol='nbd' name='disk0'><host transport='unix' socket='/s/nbd.sock'/></source>"

static enum rp_code facts_of(const char *xml, struct rp_disk_facts *facts)
{
    struct rp_error err = {0};
    rp_xml_disk(xml, "vda", facts, &err);
    assert_null(strchr(err.text, '\n'));
    return err.code;
}

static void what_a_definition_says_of_a_disk_is_found(void **unused)
{
    (void)unused;
    struct rp_disk_facts facts;
    struct rp_domain_disk *disks;
    size_t count;
    const char *xml = DOMAIN("<disk><target dev='hda'/></disk>"
                             DISK(SERVED, "<driver discard='unmap'/><alias name='virtio-disk0'/>"));
    assert_int_equal(facts_of(xml, &facts), RP_OK);
    assert_string_equal(facts.alias, "virtio-disk0");
    assert_string_equal(facts.discard, "unmap");
    assert_int_equal(rp_xml_disks(xml, &disks, &count, NULL), 0);
    assert_int_equal(count, 1);
    assert_string_equal(disks[0].target, "vda");
    assert_string_equal(disks[0].export_name, "disk0");
    assert_string_equal(disks[0].socket, "/s/nbd.sock");
    rp_xml_disks_free(disks, count);
}

static void an_odd_definition_is_refused_with_what_is_wrong(void **unused)
{
    (void)unused;
    struct rp_disk_facts facts;
    char name[200];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    RP_AUTO_FREE char *long_alias = rp_xasprintf(DOMAIN(DISK(SERVED, "<alias name='%s'/>")), name);
    RP_CLEANUP(rp_buf_clear) struct rp_buf deep = {0}, large = {0};
    for (unsigned i = 0; i < 100000; i++)
        rp_buf_printf(&deep, "<a>");
    memset(rp_buf_extend(&large, RP_LIBVIRT_MAX_XML + 1), ' ', RP_LIBVIRT_MAX_XML + 1);
    assert_int_equal(facts_of("", &facts), RP_ERR_CORRUPT);
    assert_int_equal(facts_of("no XML", &facts), RP_ERR_CORRUPT);
    assert_int_equal(facts_of(rp_buf_text(&deep), &facts), RP_ERR_CORRUPT);
    assert_int_equal(facts_of(rp_buf_text(&large), &facts), RP_ERR_CORRUPT);
    assert_int_equal(facts_of("<domain/>", &facts), RP_ERR_NOT_FOUND);
    assert_int_equal(facts_of(DOMAIN("<disk/>"), &facts), RP_ERR_NOT_FOUND);
    assert_int_equal(facts_of(DOMAIN(DISK("<source file='/x'/>", "<alias name='a'/>")), &facts), RP_ERR_UNSUPPORTED);
    assert_int_equal(facts_of(DOMAIN(DISK(SERVED, "")), &facts), RP_ERR_UNSUPPORTED);
    assert_int_equal(facts_of(long_alias, &facts), RP_ERR_UNSUPPORTED);
}

static int open_one(void **unused)
{
    (void)unused;
    sem_init(&go, 0, 0);
    sem_init(&undone, 0, 0);
    hv = rp_libvirt_open(URI, NULL);
    return hv ? 0 : -1;
}

static int close_one(void **unused)
{
    (void)unused;
    rp_libvirt_close(hv);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_ends_in_time_hands_out_its_results),
        cmocka_unit_test(one_that_does_not_is_given_up_and_undone_when_it_ends_after_all),
        cmocka_unit_test(what_failed_late_has_nothing_to_undo),
        cmocka_unit_test(one_that_needs_longer_can_say_so),
        cmocka_unit_test(when_many_do_not_end_further_ones_are_refused_at_once_until_they_do),
        cmocka_unit_test(those_behind_one_that_hangs_leave_when_they_are_given_up),
        cmocka_unit_test(a_connection_can_be_closed_while_a_request_hangs),
        cmocka_unit_test(what_a_definition_says_of_a_disk_is_found),
        cmocka_unit_test(an_odd_definition_is_refused_with_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, open_one, close_one);
}
