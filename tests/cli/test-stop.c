// vm stop, of a host over WMI that answers what a test wants: what a VM can lose when it is turned off.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "scene.h"

static char hosts[] = "/tmp/refpoint-hosts-XXXXXX";

static int setup(void **state)
{
    strcpy(hosts + strlen(hosts) - 6, "XXXXXX");
    int fd = mkstemp(hosts);
    if (fd < 0 || scene_setup(state) || dprintf(fd, "[hv1]\nurl = %s\n", fake->url) < 0)
        return -1;
    close(fd);
    return setenv("REFPOINT_HOSTS", hosts, 1);
}

static int teardown(void **state)
{
    unlink(hosts);
    return scene_teardown(state);
}
#define STOPPED(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static struct rp_cim_instance *web1(struct fake *f)
{
    for (size_t i = 0; i < f->objects[0].count; i++) {
        const char *name = rp_cim_get_text(f->objects[0].items[i], "Name");
        if (!strcmp(f->objects[0].items[i]->class_name, "Msvm_ComputerSystem") && name && !strcmp(name, FAKE_A))
            return f->objects[0].items[i];
    }
    fail_msg("web1 is gone");
    return NULL;
}

static void is(const char *enabled_state) { fake_set(web1(fake), fake, "EnabledState", enabled_state); }

static void turn_off(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in, struct rp_cim_instance *out,
                     uint32_t *status)
{
    (void)path, (void)out;
    assert_int_equal(rp_cim_get_unsigned(in, "RequestedState", 0), 3);
    fake_set(web1(f), f, "EnabledState", "3");
    *status = 0;
}

// `option`: NULL: none
static int stop(const char *option)
{
    struct rp_cli cli = {0};
    char *words[] = {(char *)"vm", (char *)"stop", (char *)"-q", (char *)"hv1/web1", (char *)option};
    assert_int_equal(rp_cli_parse(&cli, option ? 5 : 4, words, NULL), 0);
    int result = cli.verb->run(&cli, &err);
    rp_cli_clear(&cli);
    return result;
}

static const struct fake_answer turns_off[] = {{"RequestStateChange", turn_off, 0}, {0}};

static void a_saved_vm_keeps_its_memory(void **state)
{
    (void)state;
    static const char *const saved[] = {"6", "32769"};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(turns_off);
    for (size_t i = 0; i < 2; i++) {
        is(saved[i]);
        bad(stop(NULL), RP_ERR_STATE, "is saved: start it first");
        bad(stop("--now"), RP_ERR_STATE, "is saved: start it first");
        bad(host->ops->request_state(host, FAKE_A, RP_VM_OFF, job, result, &err), RP_ERR_STATE, "is saved: start it first");
    }
    assert_string_equal(fake->log, "");
}

static void a_guest_that_does_not_run_is_not_turned_off_unasked(void **state)
{
    (void)state;
    static const char *const states[] = {"9", "32768", "0"};
    answers(turns_off);
    for (size_t i = 0; i < 3; i++) {
        is(states[i]);
        bad(stop(NULL), RP_ERR_STATE, "its guest cannot be asked to shut down");
        assert_string_equal(fake->log, "");
        good(stop("--now"));
        assert_string_equal(fake->log, "RequestStateChange ");
        *fake->log = 0;
    }
}

// ---- how the guest is asked -------------------------------------------------------------------------------------------

static void shuts_down(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in, struct rp_cim_instance *out,
                       uint32_t *status)
{
    (void)out;
    assert_string_equal(path->class_name, "Msvm_ShutdownComponent");
    assert_string_equal(rp_cim_path_get(path, "DeviceID"), "Microsoft:" FAKE_A);
    assert_string_equal(rp_cim_path_get(path, "SystemName"), FAKE_A);
    assert_false(rp_cim_get_boolean(in, "Force", true));
    fake_set(web1(f), f, "EnabledState", "3");
    *status = 0;
}

static void has_component(void)
{
    fake_add(fake, "Msvm_ShutdownComponent", "DeviceID=Microsoft:" FAKE_A ";SystemName=" FAKE_A);
}

static void the_guest_is_asked_by_its_shutdown_component(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"InitiateShutdown", shuts_down, 0}, {"RequestStateChange", turn_off, 0}, {0}};
    has_component();
    is("2");
    answers(list);
    good(stop(NULL));
    assert_string_equal(fake->log, "InitiateShutdown ");
}

static void a_guest_that_takes_too_long_is_turned_off_with_a_remark(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"InitiateShutdown", NULL, 0}, {"RequestStateChange", turn_off, 0}, {0}};
    has_component();
    is("2");
    answers(list);
    assert_int_equal(stop("--timeout=1"), 1);
    assert_string_equal(fake->log, "InitiateShutdown RequestStateChange ");
}

static void a_host_that_cannot_ask_the_guest_does_not_turn_it_off(void **state)
{
    (void)state;
    static const uint32_t codes[] = {1, 32770, 32773, 4};
    is("2");
    for (size_t component = 0; component < 2; component++) {
        const char *method = component ? "InitiateShutdown" : "RequestStateChange";
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
            const struct fake_answer list[] = {{method, NULL, codes[i]}, {0}};
            answers(list);
            bad(stop(NULL), RP_ERR_STATE, "turn it off (vm stop --now)");
            assert_int_equal(strlen(fake->log), strlen(method) + 1); // asked once, and nothing else
        }
        has_component();
    }
    answers(turns_off);
    good(stop("--now"));
}

static void a_vm_that_has_no_guest_for_certain_is_turned_off(void **state)
{
    (void)state;
    struct rp_cim_value states = rp_cim_null(RP_CIM_UINT16, true);
    for (uint64_t i = 2; i <= 3; i++) {
        struct rp_cim_value one = rp_cim_unsigned(RP_CIM_UINT16, i);
        rp_cim_value_push(&states, &one);
    }
    rp_cim_set(web1(fake), "AvailableRequestedStates", states);
    is("2");
    answers(turns_off);
    good(stop(NULL));
    assert_string_equal(fake->log, "RequestStateChange ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOPPED(a_saved_vm_keeps_its_memory),
        STOPPED(a_guest_that_does_not_run_is_not_turned_off_unasked),
        STOPPED(the_guest_is_asked_by_its_shutdown_component),
        STOPPED(a_guest_that_takes_too_long_is_turned_off_with_a_remark),
        STOPPED(a_host_that_cannot_ask_the_guest_does_not_turn_it_off),
        STOPPED(a_vm_that_has_no_guest_for_certain_is_turned_off),
    };
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
