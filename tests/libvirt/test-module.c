// The module as programs load it, over libvirt's test driver, which keeps its domains in memory. What needs a QEMU is in
// test-qemu.py.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "host/hypervisor.h"

#define URI "test:///default" // has a running domain "test"
#define UUID "11111111-2222-3333-4444-555555555555"
#define DEFINITION(name, uuid)                                                                                                     \
    "<domain type='test'><name>" name "</name><uuid>" uuid "</uuid><memory>65536</memory><vcpu>1</vcpu>"                          \
    "<os><type>hvm</type></os></domain>"

static struct rp_hypervisor *hv;
static const struct rp_hypervisor_ops *ops;
static struct rp_error err;

static enum rp_domain_state state_of(const char *domain)
{
    enum rp_domain_state state = RP_DOMAIN_CRASHED;
    rp_error_clear(&err);
    assert_int_equal(ops->state(hv, domain, &state, &err), 0);
    return state;
}

// It failed so, with a text of one line about that domain.
static void assert_refused(int failed, enum rp_code code, const char *about)
{
    assert_int_equal(failed, -1);
    assert_int_equal(err.code, code);
    assert_null(strchr(err.text, '\n'));
    assert_non_null(strstr(err.text, about));
    rp_error_clear(&err);
}

static void a_domain_is_found_by_name_and_by_uuid(void **unused)
{
    (void)unused;
    char uuid[RP_GUID_TEXT], again[RP_GUID_TEXT];
    RP_AUTO_FREE char *xml = NULL, *running = NULL;
    assert_int_equal(ops->find(hv, "test", uuid, &xml, &err), 0);
    assert_non_null(strstr(xml, "<name>test</name>"));
    assert_int_equal(ops->find(hv, uuid, again, NULL, &err), 0);
    assert_string_equal(uuid, again);
    assert_int_equal(ops->running_xml(hv, uuid, &running, &err), 0);
    assert_non_null(strstr(running, " id='1'"));
    assert_refused(ops->find(hv, "nobody", again, NULL, &err), RP_ERR_NOT_FOUND, "nobody");
    assert_refused(ops->find(hv, "", again, NULL, &err), RP_ERR_NOT_FOUND, URI);
    assert_refused(ops->pause(hv, UUID, &err), RP_ERR_NOT_FOUND, UUID);
}

static void a_definition_is_validated_and_replaced_by_its_uuid(void **unused)
{
    (void)unused;
    char uuid[RP_GUID_TEXT];
    RP_AUTO_FREE char *xml = NULL;
    RP_AUTO_FREE char *huge = malloc((5u << 20) + 1);
    memset(huge, ' ', 5u << 20);
    huge[5u << 20] = 0;
    assert_int_equal(ops->define(hv, DEFINITION("one", UUID), &err), 0);
    assert_int_equal(ops->find(hv, "one", uuid, &xml, &err), 0);
    assert_string_equal(uuid, UUID);
    assert_refused(ops->define(hv, "<domain", &err), RP_ERR_INVALID, URI);
    assert_refused(ops->define(hv, "<domain type='test'><name>x</name><surprise/></domain>", &err), RP_ERR_INVALID, URI);
    assert_refused(ops->define(hv, huge, &err), RP_ERR_INVALID, "4 MiB");
}

static void a_domain_goes_through_its_states(void **unused)
{
    (void)unused;
    RP_AUTO_FREE char *xml = NULL, *names = NULL;
    assert_int_equal(state_of(UUID), RP_DOMAIN_OFF);
    assert_refused(ops->running_xml(hv, UUID, &xml, &err), RP_ERR_STATE, "one");
    assert_refused(ops->reconnect(hv, UUID, NULL, 0, 30, &err), RP_ERR_STATE, "one");
    assert_int_equal(ops->start(hv, UUID, NULL, 0, &err), 0);
    assert_int_equal(state_of(UUID), RP_DOMAIN_RUNNING);
    assert_refused(ops->undefine(hv, UUID, true, &err), RP_ERR_STATE, "one");
    assert_int_equal(ops->pause(hv, UUID, &err), 0);
    assert_int_equal(state_of(UUID), RP_DOMAIN_PAUSED);
    assert_int_equal(ops->resume(hv, UUID, true, &err), 0); // it waits for no disk
    assert_int_equal(state_of(UUID), RP_DOMAIN_PAUSED);
    assert_int_equal(ops->resume(hv, UUID, false, &err), 0);
    assert_int_equal(state_of(UUID), RP_DOMAIN_RUNNING);
    assert_int_equal(ops->save(hv, UUID, &err), 0);
    assert_int_equal(state_of(UUID), RP_DOMAIN_SAVED);
    assert_int_equal(ops->start(hv, UUID, NULL, 0, &err), 0);
    assert_int_equal(ops->snapshots(hv, UUID, &names, &err), 0);
    assert_string_equal(names, "");
    assert_int_equal(ops->shut_down(hv, UUID, &err), 0);
    assert_int_equal(state_of(UUID), RP_DOMAIN_OFF);
    assert_int_equal(ops->start(hv, UUID, NULL, 0, &err), 0);
    assert_int_equal(ops->turn_off(hv, UUID, &err), 0);
    assert_int_equal(state_of(UUID), RP_DOMAIN_OFF);
}

static void without_an_agent_a_guest_cannot_be_frozen(void **unused)
{
    (void)unused;
    unsigned count, thawed = 1;
    assert_int_equal(ops->thaw(hv, UUID, 1000, &thawed, &err), 0); // off: nothing of it is frozen
    assert_int_equal(thawed, 0);
    assert_int_equal(ops->start(hv, UUID, NULL, 0, &err), 0);
    assert_refused(ops->freeze(hv, UUID, 1000, &count, &err), RP_ERR_UNSUPPORTED, "one");
    assert_int_equal(ops->turn_off(hv, UUID, &err), 0);
}

// ---- events ----

struct heard {
    pthread_mutex_t lock;
    char text[1024]; // a letter for each event of our domain
};

static void hear(void *context, const char *domain, enum rp_domain_event event)
{
    struct heard *heard = context;
    size_t n = strlen(heard->text);
    if (strcmp(domain, UUID))
        return;
    pthread_mutex_lock(&heard->lock);
    if (n + 1 < sizeof heard->text)
        heard->text[n] = "+-!."[event];
    pthread_mutex_unlock(&heard->lock);
}

static bool has_heard(struct heard *heard, const char *text)
{
    pthread_mutex_lock(&heard->lock);
    bool same = strstr(heard->text, text) != NULL;
    pthread_mutex_unlock(&heard->lock);
    return same;
}

static void wait_heard(struct heard *heard, const char *text)
{
    uint64_t end = rp_clock_monotonic_ns() + 60000000000ull;
    while (!has_heard(heard, text)) {
        assert_true(rp_clock_monotonic_ns() < end);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

static void events_arrive_in_their_order_and_none_after_unwatch(void **unused)
{
    (void)unused;
    struct heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER}, second = heard;
    assert_int_equal(ops->watch(hv, hear, &heard, &err), 0);
    assert_refused(ops->watch(hv, hear, &second, &err), RP_ERR_STATE, URI);
    assert_int_equal(ops->start(hv, UUID, NULL, 0, &err), 0);
    wait_heard(&heard, "+");
    assert_int_equal(ops->pause(hv, UUID, &err), 0);
    wait_heard(&heard, "+.");
    assert_int_equal(ops->turn_off(hv, UUID, &err), 0);
    wait_heard(&heard, "+.-");
    ops->unwatch(hv);
    size_t before = strlen(heard.text);
    assert_int_equal(ops->watch(hv, hear, &second, &err), 0);
    assert_int_equal(ops->start(hv, UUID, NULL, 0, &err), 0);
    assert_int_equal(ops->turn_off(hv, UUID, &err), 0);
    wait_heard(&second, "+-");
    ops->unwatch(hv);
    ops->unwatch(hv); // nobody watches: nothing to do
    assert_int_equal(strlen(heard.text), before);
}

// ---- connections ----

static void *use(void *failed)
{
    for (int i = 0; i < 50; i++) {
        char uuid[RP_GUID_TEXT];
        struct rp_hypervisor *own = rp_hypervisor_open(URI, NULL);
        if (!own || ops->find(own, "one", uuid, NULL, NULL))
            *(int *)failed = 1;
        rp_hypervisor_close(own);
    }
    return NULL;
}

static void connections_to_one_uri_are_one_for_all_threads(void **unused)
{
    (void)unused;
    pthread_t threads[8];
    int failed[8] = {0};
    struct rp_hypervisor *other = rp_hypervisor_open(URI, &err);
    assert_ptr_equal(other, hv);
    rp_hypervisor_close(other);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, &failed[i]), 0);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(failed[i], 0);
    }
}

static void what_cannot_be_connected_to_is_told_and_nothing_is_printed(void **unused)
{
    (void)unused;
    char path[] = "/tmp/refpoint-libvirt-stderr.XXXXXX", text[256];
    int file = mkstemp(path), before = dup(2);
    unlink(path);
    dup2(file, 2);
    struct rp_hypervisor *none = rp_hypervisor_open("nonsense:///x", &err);
    int refused = ops->pause(hv, "no uuid", NULL);
    dup2(before, 2);
    close(before);
    ssize_t n = pread(file, text, sizeof text, 0);
    close(file);
    assert_null(none);
    assert_int_equal(refused, -1);
    assert_refused(-1, err.code, "nonsense:///x");
    assert_int_equal(n, 0);
    none = rp_hypervisor_open("qemu+unix:///system?socket=/nonexistent/socket", &err);
    assert_null(none);
    assert_refused(-1, RP_ERR_IO, "/nonexistent/socket");
}

static int open_one(void **unused)
{
    (void)unused;
    hv = rp_hypervisor_open(URI, &err);
    if (!hv)
        print_message("# %s\n", err.text);
    else
        ops = rp_hypervisor_ops();
    return hv ? 0 : -1;
}

static int close_one(void **unused)
{
    (void)unused;
    rp_hypervisor_close(hv);
    return 0;
}

// What the test before left.
static int fresh(void **unused)
{
    (void)unused;
    ops->turn_off(hv, UUID, NULL);
    rp_error_clear(&err);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup(function, fresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_domain_is_found_by_name_and_by_uuid),
        TEST(a_definition_is_validated_and_replaced_by_its_uuid),
        TEST(a_domain_goes_through_its_states),
        TEST(without_an_agent_a_guest_cannot_be_frozen),
        TEST(events_arrive_in_their_order_and_none_after_unwatch),
        TEST(connections_to_one_uri_are_one_for_all_threads),
        TEST(what_cannot_be_connected_to_is_told_and_nothing_is_printed),
    };
    return cmocka_run_group_tests(tests, open_one, close_one);
}
