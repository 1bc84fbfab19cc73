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

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOPPED(a_saved_vm_keeps_its_memory),
        STOPPED(a_guest_that_does_not_run_is_not_turned_off_unasked),
    };
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
