// Verbs that ask a host over WMI which answers what a test wants, and what becomes of an interruption.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "host/local.h"
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
#define WITH_HOST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static int run(char **words, int count)
{
    struct rp_cli cli = {0};
    if (rp_cli_parse(&cli, count, words, &err))
        fail_msg("%s", err.text);
    int result = cli.verb->run(&cli, &err);
    rp_cli_clear(&cli);
    return result;
}
#define RUN(...) run((char *[]){__VA_ARGS__}, (int)(sizeof (char *[]){__VA_ARGS__} / sizeof(char *)))

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

// ---- vm stop ----------------------------------------------------------------------------------------------------------

// `option`: NULL: none
static int stop(const char *option)
{
    char text[32];
    snprintf(text, sizeof text, "%s", option ? option : "-q");
    return RUN("vm", "stop", "-q", "hv1/web1", text);
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

// ---- interrupted: from here on for good -------------------------------------------------------------------------------

static char *word(const char *format, const char *argument)
{
    static char words[4][160];
    static size_t next;
    snprintf(words[next % 4], sizeof *words, format, argument);
    return words[next++ % 4];
}

static void a_disk_that_is_copied_can_be_interrupted(void **state)
{
    (void)state;
    char folder[] = "/tmp/refpoint-cli-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *raw = word("%s/a.raw", folder), *local = word("local:%s/host", folder), *remove = word("rm -r %s", folder);
    FILE *file = fopen(raw, "w");
    assert_true(file && !ftruncate(fileno(file), 1 << 20) && fputs("content", file) >= 0);
    fclose(file);
    good(RUN("vm", "create", "-q", "-H", local, "vm", "--disk", raw));
    rp_cli_signals_init();
    raise(SIGTERM);
    assert_true(rp_cli_stopped());
    assert_int_equal(RUN("disk", "add", "-q", "-H", local, "vm", raw), -1);
    assert_int_equal(err.code, RP_ERR_CANCELLED);
    rp_error_clear(&err);
    struct rp_host_connection *left = rp_host_local_open(local + 6, &err);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    assert_non_null(left);
    good(left->ops->find_vm(left, "vm", &vm, &err) || left->ops->vm_settings(left, vm.id, &settings, &err) ? -1 : 0);
    assert_int_equal(settings.disk_count, 1);
    rp_host_close(left);
    assert_int_equal(system(remove), 0);
}

// Over WMI an application-consistent one cannot be asked for: then a crash-consistent one is made, but not any more.
static void a_checkpoint_is_not_made_after_an_interruption_for_want_of_a_better_one(void **state)
{
    (void)state;
    assert_true(rp_cli_stopped());
    is("2");
    answers(NULL);
    bad(RUN("checkpoint", "create", "-q", "hv1/web1"), RP_ERR_CANCELLED, "interrupted, and no checkpoint is made");
    assert_string_equal(fake->log, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_HOST(a_saved_vm_keeps_its_memory),
        WITH_HOST(a_guest_that_does_not_run_is_not_turned_off_unasked),
        WITH_HOST(the_guest_is_asked_by_its_shutdown_component),
        WITH_HOST(a_guest_that_takes_too_long_is_turned_off_with_a_remark),
        WITH_HOST(a_host_that_cannot_ask_the_guest_does_not_turn_it_off),
        WITH_HOST(a_vm_that_has_no_guest_for_certain_is_turned_off),
        cmocka_unit_test(a_disk_that_is_copied_can_be_interrupted),
        WITH_HOST(a_checkpoint_is_not_made_after_an_interruption_for_want_of_a_better_one),
    };
    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
