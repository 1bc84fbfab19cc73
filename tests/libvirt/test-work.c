// What requests do with a domain when others do something with it at the same time, or libvirt takes long. The connection is
// libvirt's test driver; functions of libvirt stand behind ones of this file (the linker's --wrap), which let others in or wait.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "libvirt/libvirt_impl.h"

#define URI "test:///default"
#define UUID "11111111-2222-3333-4444-555555555555"
#define TITLED(title)                                                                                                              \
    "<domain type='test'><name>one</name><uuid>" UUID "</uuid><title>" title "</title><memory>65536</memory><vcpu>1</vcpu>"       \
    "<os><type>hvm</type></os></domain>"

static struct rp_hypervisor *hv;
static virConnectPtr other; // somebody else's
static sem_t reached, go;   // of what waits

// ---- libvirt's functions ----

static atomic_bool others_resume, refuse_resume, hold_xml, hold_create, hold_define, seems_waiting, seems_stopped;
static atomic_int xml_count; // of definitions that were read

static void hold(atomic_bool *wanted)
{
    if (!atomic_exchange(wanted, false))
        return;
    sem_post(&reached);
    while (sem_wait(&go))
        ;
}

int __real_virDomainResume(virDomainPtr domain);
int __wrap_virDomainResume(virDomainPtr domain);
int __wrap_virDomainResume(virDomainPtr domain)
{
    if (others_resume)
        __real_virDomainResume(domain);
    if (!refuse_resume)
        return __real_virDomainResume(domain);
    virDomainPtr none = virDomainLookupByName(other, "refused"); // for libvirt to have something to say
    return none ? 0 : -1;
}

// The test driver starts nothing paused.
int __real_virDomainCreateWithFlags(virDomainPtr domain, unsigned flags);
int __wrap_virDomainCreateWithFlags(virDomainPtr domain, unsigned flags);
int __wrap_virDomainCreateWithFlags(virDomainPtr domain, unsigned flags)
{
    hold(&hold_create);
    return __real_virDomainCreateWithFlags(domain, 0) || (flags & VIR_DOMAIN_START_PAUSED && virDomainSuspend(domain)) ? -1 : 0;
}

char *__real_virDomainGetXMLDesc(virDomainPtr domain, unsigned flags);
char *__wrap_virDomainGetXMLDesc(virDomainPtr domain, unsigned flags);
char *__wrap_virDomainGetXMLDesc(virDomainPtr domain, unsigned flags)
{
    xml_count++;
    hold(&hold_xml);
    return __real_virDomainGetXMLDesc(domain, flags);
}

virDomainPtr __real_virDomainDefineXMLFlags(virConnectPtr connection, const char *xml, unsigned flags);
virDomainPtr __wrap_virDomainDefineXMLFlags(virConnectPtr connection, const char *xml, unsigned flags);
virDomainPtr __wrap_virDomainDefineXMLFlags(virConnectPtr connection, const char *xml, unsigned flags)
{
    hold(&hold_define);
    return __real_virDomainDefineXMLFlags(connection, xml, flags);
}

int __real_virDomainGetState(virDomainPtr domain, int *state, int *reason, unsigned flags);
int __wrap_virDomainGetState(virDomainPtr domain, int *state, int *reason, unsigned flags);
int __wrap_virDomainGetState(virDomainPtr domain, int *state, int *reason, unsigned flags)
{
    if (!seems_waiting && !seems_stopped)
        return __real_virDomainGetState(domain, state, reason, flags);
    *state = VIR_DOMAIN_PAUSED;
    *reason = seems_stopped ? VIR_DOMAIN_PAUSED_UNKNOWN : VIR_DOMAIN_PAUSED_IOERROR;
    seems_waiting = false;
    return 0;
}

// QEMU, of which only is known what it was asked for. In the moment in which it is to stop, its user may pause it.
static char commands[512];
static bool user_pauses;

int __wrap_virDomainQemuMonitorCommand(virDomainPtr domain, const char *command, char **result, unsigned flags);
int __wrap_virDomainQemuMonitorCommand(virDomainPtr domain, const char *command, char **result, unsigned flags)
{
    (void)flags;
    char name[64] = "";
    assert_int_equal(sscanf(command, "{\"execute\":\"%63[a-z-]", name), 1);
    size_t used = strlen(commands);
    snprintf(commands + used, sizeof commands - used, "%s ", name);
    if (!strcmp(name, "stop"))
        seems_stopped = !user_pauses;
    *result = rp_xstrdup("{\"return\":{}}");
    return !strcmp(name, "stop") && user_pauses ? virDomainSuspend(domain) : 0;
}

// ---- what tests are made of ----

static void wait_for(sem_t *what)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 60;
    assert_int_equal(sem_timedwait(what, &end), 0);
}

static void wait_until(bool (*is_so)(void))
{
    uint64_t end = rp_clock_monotonic_ns() + 60000000000ull;
    while (!is_so()) {
        assert_true(rp_clock_monotonic_ns() < end);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static bool nothing_hangs(void)
{
    pthread_mutex_lock(&hv->lock);
    bool none = !hv->given_up;
    pthread_mutex_unlock(&hv->lock);
    return none;
}

static virDomainPtr domain(void)
{
    virDomainPtr found = virDomainLookupByUUIDString(other, UUID);
    assert_non_null(found);
    return found;
}

static enum rp_domain_state state(void)
{
    enum rp_domain_state now = RP_DOMAIN_CRASHED;
    assert_int_equal(rp_libvirt_ops.state(hv, UUID, &now, NULL), 0);
    return now;
}

static bool is_defined_as(const char *title)
{
    char uuid[RP_GUID_TEXT];
    RP_AUTO_FREE char *xml = NULL;
    assert_int_equal(rp_libvirt_ops.find(hv, "one", uuid, &xml, NULL), 0);
    return strstr(xml, title) != NULL;
}

// A disk that the domain does not have: it is started paused, nothing is connected, and it is let go.
static const struct rp_domain_disk disk = {.target = "vdz", .export_name = "disk0", .socket = (char *)"/none"};

static int start(struct rp_error *err) { return rp_libvirt_ops.start(hv, UUID, &disk, 1, err); }

static struct rp_request *start_of(const struct rp_domain_disk *disks, size_t count)
{
    struct rp_request *request = rp_request_new(hv, UUID, "be started", rp_work_start);
    request->disks = rp_xcalloc(1, sizeof *disks);
    if ((request->count = count) > 0) {
        *request->disks = *disks;
        request->disks->socket = rp_xstrdup(disks->socket);
    }
    return request;
}

static struct rp_request *definition(const char *xml)
{
    struct rp_request *request = rp_request_new(hv, NULL, "be defined", rp_work_define);
    request->text = rp_xstrdup(xml);
    request->turn = rp_xstrdup(UUID);
    return request;
}

static void *wait_long(void *request)
{
    struct rp_error err = {0};
    assert_int_equal(rp_request_run(request, 60000, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    return NULL;
}

// It reaches what waits, and is given up then. Takes it.
static void give_up_when_reached(struct rp_request *request)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_long, request), 0);
    wait_for(&reached);
    rp_request_extend(request, 1);
    pthread_join(thread, NULL);
    rp_request_release(request);
}

static void give_up_early(struct rp_request *request)
{
    struct rp_error err = {0};
    assert_int_equal(rp_request_run(request, 1, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    rp_request_release(request);
}

static void go_on(void)
{
    sem_post(&go);
    wait_until(nothing_hangs);
}

// ---- starting ----

static void a_start_whose_last_step_fails_leaves_a_guest_that_somebody_else_has_let_go_running(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    others_resume = true;
    assert_int_equal(start(&err), 0);
    assert_int_equal(state(), RP_DOMAIN_RUNNING);
}

static void a_start_whose_last_step_fails_otherwise_ends_off(void **unused)
{
    (void)unused;
    struct rp_error err = {0};
    refuse_resume = true;
    assert_int_equal(start(&err), -1);
    assert_non_null(strstr(err.text, "was not started"));
    assert_null(strstr(err.text, "does not say why"));
    assert_int_equal(state(), RP_DOMAIN_OFF);
}

static void a_start_that_was_given_up_ends_off(void **unused)
{
    (void)unused;
    hold_xml = true;
    give_up_when_reached(start_of(&disk, 1));
    assert_int_equal(state(), RP_DOMAIN_PAUSED);
    go_on();
    assert_int_equal(state(), RP_DOMAIN_OFF);
}

static void a_start_that_was_given_up_leaves_a_guest_running_that_its_user_has_let_go_meanwhile(void **unused)
{
    (void)unused;
    hold_xml = true;
    give_up_when_reached(start_of(&disk, 1));
    virDomainPtr one = domain();
    assert_int_equal(__real_virDomainResume(one), 0);
    virDomainFree(one);
    go_on();
    assert_int_equal(state(), RP_DOMAIN_RUNNING);
}

static void a_guest_that_runs_late_is_not_turned_off(void **unused)
{
    (void)unused;
    hold_create = true;
    give_up_when_reached(start_of(NULL, 0));
    go_on();
    assert_int_equal(state(), RP_DOMAIN_RUNNING);
}

static void what_is_given_up_before_it_has_begun_is_not_done(void **unused)
{
    (void)unused;
    pthread_mutex_lock(&hv->connecting); // somebody connects, and that hangs
    give_up_early(start_of(NULL, 0));
    pthread_mutex_unlock(&hv->connecting);
    wait_until(nothing_hangs);
    assert_int_equal(state(), RP_DOMAIN_OFF);
}

// ---- connections ----

static void *reconnect(void *failed)
{
    *(int *)failed = rp_libvirt_ops.reconnect(hv, UUID, &disk, 1, 1, NULL);
    return NULL;
}

static unsigned in_line(void)
{
    unsigned count = 0;
    pthread_mutex_lock(&hv->lock);
    for (const struct rp_request *request = hv->turns; request; request = request->next_turn)
        count++;
    pthread_mutex_unlock(&hv->lock);
    return count;
}

static bool second_is_in_line_or_at_work(void) { return in_line() == 2 || xml_count == 2; }

static void connections_are_not_exchanged_twice_at_once(void **unused)
{
    (void)unused;
    pthread_t threads[2];
    int failed[2];
    assert_int_equal(start(NULL), 0);
    xml_count = 0;
    hold_xml = true;
    assert_int_equal(pthread_create(&threads[0], NULL, reconnect, &failed[0]), 0);
    wait_for(&reached);
    assert_int_equal(pthread_create(&threads[1], NULL, reconnect, &failed[1]), 0);
    wait_until(second_is_in_line_or_at_work);
    int at_work = xml_count;
    sem_post(&go);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(failed[i], 0);
    }
    assert_int_equal(at_work, 1);
    assert_int_equal(xml_count, 2);
}

// ---- resuming ----

static void a_guest_that_its_user_has_paused_since_it_waited_is_not_resumed_with_those_that_wait(void **unused)
{
    (void)unused;
    assert_int_equal(start(NULL), 0);
    assert_int_equal(rp_libvirt_ops.pause(hv, UUID, NULL), 0);
    seems_waiting = true;
    assert_int_equal(rp_libvirt_ops.resume(hv, UUID, true, NULL), 0);
    assert_false(seems_waiting);
    assert_int_equal(state(), RP_DOMAIN_PAUSED);
    seems_waiting = true;
    assert_int_equal(rp_libvirt_ops.resume(hv, UUID, false, NULL), 0);
    assert_int_equal(state(), RP_DOMAIN_RUNNING);
}

static void a_guest_that_its_user_pauses_just_before_it_is_stopped_is_his(void **unused)
{
    (void)unused;
    virDomainPtr one = domain();
    for (int user = 0; user < 2; user++) {
        struct rp_error err = {0};
        assert_int_equal(__real_virDomainCreateWithFlags(one, 0), 0);
        commands[0] = '\0';
        user_pauses = user;
        assert_int_equal(rp_standing_begin(one, &err), user);
        seems_stopped = false;
        assert_string_equal(commands, user ? "blockdev-del blockdev-add stop blockdev-del " : "blockdev-del blockdev-add stop ");
        assert_int_equal(state(), user ? RP_DOMAIN_PAUSED : RP_DOMAIN_RUNNING);
        virDomainDestroy(one);
    }
    virDomainFree(one);
}

// ---- defining ----

static _Atomic(char *) told;

static void listen(enum rp_log_level level, const char *text)
{
    (void)level;
    free(atomic_exchange(&told, rp_xstrdup(text)));
}

static void a_definition_that_comes_late_is_told(void **unused)
{
    (void)unused;
    rp_log_set_sink(listen);
    hold_define = true;
    give_up_when_reached(definition(TITLED("late")));
    go_on();
    rp_log_set_sink(NULL);
    RP_AUTO_FREE char *text = atomic_exchange(&told, NULL);
    assert_non_null(text);
    assert_non_null(strstr(text, "domain one: libvirt"));
    assert_true(is_defined_as("late"));
}

static bool first_is_alone_in_line(void) { return in_line() == 1; }

static int second_failed;

static void *define_second(void *unused)
{
    (void)unused;
    second_failed = rp_libvirt_ops.define(hv, TITLED("second"), NULL);
    return NULL;
}

static bool second_waits_or_is_done(void)
{
    return in_line() == 2 || is_defined_as("second");
}

static void what_is_defined_later_takes_effect_after_what_comes_late(void **unused)
{
    (void)unused;
    pthread_t thread;
    rp_log_set_sink(listen);
    hold_define = true;
    give_up_when_reached(definition(TITLED("first")));
    give_up_early(definition(TITLED("given up")));
    wait_until(first_is_alone_in_line);
    assert_int_equal(pthread_create(&thread, NULL, define_second, NULL), 0);
    wait_until(second_waits_or_is_done);
    go_on();
    pthread_join(thread, NULL);
    rp_log_set_sink(NULL);
    free(atomic_exchange(&told, NULL));
    assert_int_equal(second_failed, 0);
    assert_true(is_defined_as("second"));
}

static void another_domain_does_not_wait_for_its_turn(void **unused)
{
    (void)unused;
    rp_log_set_sink(listen);
    hold_define = true;
    give_up_when_reached(definition(TITLED("first")));
    const char *xml = "<domain type='test'><name>two</name><uuid>99999999-2222-3333-4444-555555555555</uuid><memory>65536</memory>"
                      "<vcpu>1</vcpu><os><type>hvm</type></os></domain>";
    int failed = rp_libvirt_ops.define(hv, xml, NULL);
    go_on();
    rp_log_set_sink(NULL);
    free(atomic_exchange(&told, NULL));
    assert_int_equal(failed, 0);
}

// ---- before and after ----

static int fresh(void **unused)
{
    (void)unused;
    others_resume = refuse_resume = hold_xml = hold_create = hold_define = seems_waiting = seems_stopped = false;
    virDomainFree(virDomainDefineXML(other, TITLED("as it was")));
    virDomainPtr one = domain();
    virDomainDestroy(one);
    virDomainFree(one);
    return 0;
}

static int open_one(void **unused)
{
    (void)unused;
    sem_init(&reached, 0, 0);
    sem_init(&go, 0, 0);
    hv = rp_libvirt_open(URI, NULL);
    other = virConnectOpen(URI);
    return hv && other ? 0 : -1;
}

static int close_one(void **unused)
{
    (void)unused;
    virConnectClose(other);
    rp_libvirt_close(hv);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup(function, fresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_start_whose_last_step_fails_leaves_a_guest_that_somebody_else_has_let_go_running),
        TEST(a_start_whose_last_step_fails_otherwise_ends_off),
        TEST(a_start_that_was_given_up_ends_off),
        TEST(a_start_that_was_given_up_leaves_a_guest_running_that_its_user_has_let_go_meanwhile),
        TEST(a_guest_that_runs_late_is_not_turned_off),
        TEST(what_is_given_up_before_it_has_begun_is_not_done),
        TEST(connections_are_not_exchanged_twice_at_once),
        TEST(a_guest_that_its_user_has_paused_since_it_waited_is_not_resumed_with_those_that_wait),
        TEST(a_guest_that_its_user_pauses_just_before_it_is_stopped_is_his),
        TEST(a_definition_that_comes_late_is_told),
        TEST(what_is_defined_later_takes_effect_after_what_comes_late),
        TEST(another_domain_does_not_wait_for_its_turn),
    };
    return cmocka_run_group_tests(tests, open_one, close_one);
}
