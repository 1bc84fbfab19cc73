// refpoint-hostd supervises VMs that a hypervisor runs, and asks for their states over WMI.
#include <time.h>
#include <unistd.h>

#include "../host/domain-kit.h"
#include "base/clock.h"
#include "host/db.h"
#include "host/lock.h"
#include "method-kit.h"

static struct mk mk;
static struct dk dk;
static char *host_folder;

static int setup(void **state)
{
    char id[RP_HOST_ID];
    (void)state;
    mk_start(&mk);
    mk_define(&mk, "web1", 1, 4 * RP_MIB, id);
    host_folder = rp_xstrdup(mk.hostd->directory);
    dk_adopt(&dk, host_folder, id);
    return 0;
}

// What a hypervisor that does not answer leaves unanswered.
static const char *const calls[] = {"state", "running_xml", "reconnect", "resume", "open", "watch"};
#define CALLS (sizeof calls / sizeof *calls)

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < CALLS; i++)
        dk_slow(&dk, calls[i], NULL);
    rp_hostd_stop(mk.hostd); // first: it would start again what is ended
    dk_clear(&dk);
    free(mk.files);
    kit_remove_folder(mk.folder);
    free(host_folder);
    return 0;
}

static uint32_t ask(unsigned wanted, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, dk.vm);
    return mk_call_on(&mk, vm, "RequestStateChange", out, "RequestedState", mk_number(wanted), NULL);
}

static void becomes(unsigned wanted)
{
    struct rp_cim_instance *out = NULL;
    uint32_t status = ask(wanted, &out);
    mk_made(&mk, status, &out, NULL);
}

static struct rp_cim_instance *system_row(void)
{
    return mk_one(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'", dk.vm);
}

static unsigned shown(void)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *row = system_row();
    return (unsigned)rp_cim_get_unsigned(row, "EnabledState", 0);
}

static bool remark_has(const char *text)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *row = system_row();
    const char *remark = rp_cim_get_text(row, "OtherEnabledState");
    return *text ? remark && strstr(remark, text) : !remark || !*remark;
}

static void every_state_of_hyper_v_can_be_asked_for(void **state)
{
    (void)state;
    assert_int_equal(shown(), 3);
    assert_int_equal(ask(9, NULL), 32775); // off
    becomes(2);
    assert_int_equal(shown(), 2);
    assert_true(dk_is(&dk, "running") && dk_serves(&dk));
    becomes(9);
    assert_int_equal(shown(), 9);
    becomes(2);
    becomes(11);
    assert_int_equal(dk_count(&dk, "reset"), 1);
    becomes(10);
    assert_int_equal(dk_count(&dk, "shut_down"), 1);
    becomes(6);
    assert_int_equal(shown(), 6);
    assert_false(dk_serves(&dk));
    becomes(2);
    becomes(4);
    assert_int_equal(shown(), 3);
    becomes(2);
    becomes(3);
    assert_int_equal(shown(), 3);
    assert_int_equal(ask(7, NULL), 32773);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *row = system_row();
    assert_int_equal(rp_cim_get_count(row, "AvailableRequestedStates"), 0); // as with Hyper-V
}

static void a_failure_of_the_hypervisor_is_the_jobs(void **state)
{
    (void)state;
    struct rp_cim_instance *out = NULL;
    becomes(2);
    dk_fail(&dk, "pause", "busy it does not answer now");
    uint32_t status = ask(9, &out);
    mk_failed(&mk, status, &out, "it does not answer now");
    assert_int_equal(shown(), 2);
}

static void a_killed_disk_service_is_back_and_a_domain_that_waits_goes_on(void **state)
{
    (void)state;
    becomes(2);
    for (int i = 0; i < 3; i++) {
        uint64_t start = rp_clock_monotonic_ns();
        dk_put(&dk, "state", "waiting for a disk");
        dk_kill(&dk);
        dk_event(&dk, "disk-failed");
        assert_true(dk_until(dk_serves(&dk) && dk_is(&dk, "running")));
        print_message("# it went on after %.0f ms\n", (double)(rp_clock_monotonic_ns() - start) / 1e6);
    }
    assert_true(dk_until(shown() == 2));
}

static void a_domain_that_waits_is_told_as_critical(void **state)
{
    (void)state;
    becomes(2);
    dk_fail(&dk, "resume.always", "io the disk does not answer");
    dk_put(&dk, "state", "waiting for a disk");
    dk_event(&dk, "disk-failed");
    assert_true(dk_until(remark_has("waiting for a disk: ") && remark_has("the disk does not answer")));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *row = system_row();
    assert_int_equal(rp_cim_get_unsigned(row, "EnabledState", 0), 9);
    assert_int_equal(rp_cim_get_unsigned(row, "HealthState", 0), 25);
    // It is tried again, less and less often.
    sleep(3);
    unsigned tries = dk_count(&dk, "resume");
    assert_in_range(tries, 2, 8);
    dk_fail(&dk, "resume.always", NULL);
    assert_true(dk_until(dk_is(&dk, "running") && remark_has("")));
}

static void what_its_user_paused_stays_paused(void **state)
{
    (void)state;
    becomes(2);
    becomes(9);
    dk_kill(&dk);
    dk_event(&dk, "changed");
    assert_true(dk_until(dk_serves(&dk)));
    usleep(300000);
    assert_true(dk_is(&dk, "paused"));
    assert_int_equal(dk_count(&dk, "resume"), 0);
}

static void a_domain_that_others_start_is_connected_and_one_that_ends_is_left(void **state)
{
    (void)state;
    struct rp_error err = {0};
    struct rp_host_connection *host = rp_host_local_open_resident(mk.hostd->directory, false, &err);
    kit_ok(!host, err);
    // As the hook does it, before the domain starts.
    kit_ok(rp_host_local_serve(host, dk.vm, dk.uuid, NULL, &err), err);
    rp_host_close(host);
    dk_put(&dk, "state", "running");
    dk_event(&dk, "started");
    assert_true(dk_until(dk_count(&dk, "reconnect disks vda=disk0@") > 0));
    assert_true(dk_serves(&dk));
    dk_put(&dk, "state", "off");
    dk_event(&dk, "stopped");
    assert_true(dk_until(!dk_serves(&dk)));
}

static void a_service_that_cannot_start_is_told_and_tried_again(void **state)
{
    (void)state;
    RP_AUTO_FREE char *record = kit_path("%s/chain.record", dk.directory), *away = kit_path("%s.away", record);
    becomes(2);
    assert_int_equal(rename(record, away), 0);
    dk_kill(&dk);
    assert_true(dk_until(remark_has("disk service")));
    assert_true(dk_is(&dk, "running"));
    assert_int_equal(rename(away, record), 0);
    assert_true(dk_until(dk_serves(&dk) && remark_has("")));
}

static void a_hostd_that_starts_takes_up_what_happened_meanwhile(void **state)
{
    (void)state;
    becomes(2);
    rp_hostd_stop(mk.hostd);
    free(mk.files);
    char *folder = mk.folder;
    dk_kill(&dk);
    dk_put(&dk, "state", "waiting for a disk");
    mk_start_in(&mk, folder);
    assert_true(dk_until(dk_serves(&dk) && dk_is(&dk, "running")));
}

static void a_service_is_back_though_its_hypervisor_answers_nobody(void **state)
{
    (void)state;
    becomes(2);
    assert_true(dk_until(dk_count(&dk, "reconnect disks") > 0)); // it has been looked at, with success
    for (size_t i = 0; i < CALLS; i++)
        dk_slow(&dk, calls[i], "1000000"); // until it is over
    for (int i = 0; i < 2; i++) {
        dk_kill(&dk);
        assert_true(dk_until(dk_serves(&dk)));
    }
}

enum { OTHERS = 16 }; // as many are looked at at a time

static void a_service_is_back_though_as_many_looks_as_there_may_be_wait_for_a_hypervisor(void **state)
{
    (void)state;
    struct dk others[OTHERS];
    becomes(2);
    assert_true(dk_until(dk_count(&dk, "reconnect disks") > 0));
    for (int i = 0; i < OTHERS; i++) {
        char id[RP_HOST_ID];
        RP_AUTO_FREE char *name = kit_path("other%d", i);
        mk_define(&mk, name, 1, RP_MIB, id);
        dk_adopt(&others[i], host_folder, id);
    }
    sleep(3); // they are watched, and looked at
    for (int i = 0; i < OTHERS; i++) {
        dk_slow(&others[i], "state", "1000000");
        dk_event(&others[i], "changed");
    }
    sleep(1);
    for (size_t i = 0; i < CALLS; i++)
        dk_slow(&dk, calls[i], "1000000");
    dk_kill(&dk);
    bool back = dk_until(dk_serves(&dk));
    for (int i = 0; i < OTHERS; i++)
        dk_slow(&others[i], "state", NULL);
    teardown(NULL);
    for (int i = 0; i < OTHERS; i++)
        dk_clear(&others[i]);
    assert_true(back);
}

static int64_t begun(struct rp_db *db)
{
    int64_t count = -1;
    assert_int_equal(rp_db_number(db, NULL, &count, "SELECT count(*) FROM snapshot WHERE state = 'creating'", ""), 0);
    return count;
}

static void what_a_killed_command_began_is_finished_when_nobody_is_at_work_on_it(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_AUTO_FREE char *path = kit_path("%s/host.db", host_folder), *lock = kit_path("%s/lock", host_folder);
    RP_CLEANUP(rp_db_close_p) struct rp_db *db = rp_db_open(path, &err);
    kit_ok(!db, err);
    int64_t row = 0;
    assert_int_equal(rp_db_number(db, &err, &row, "SELECT row FROM vm", ""), 0);
    int fd = rp_lock_open(lock, &err);
    assert_int_equal(rp_lock_take(fd, row, 20000, &err), 1); // as somebody who is at work on it
    dk_sql(&dk, "INSERT INTO snapshot (id, vm, name, type, consistency, time, operation, state) VALUES"
                " ('one', %lld, 'x', 0, 0, 0, '77777777-8b1f-4a6e-9d50-3f2a7b1c0d11', 'creating')", (long long)row);
    sleep(3);
    assert_int_equal(begun(db), 1);
    close(fd);
    assert_true(dk_until(begun(db) == 0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_state_of_hyper_v_can_be_asked_for),
        TEST(a_failure_of_the_hypervisor_is_the_jobs),
        TEST(a_killed_disk_service_is_back_and_a_domain_that_waits_goes_on),
        TEST(a_domain_that_waits_is_told_as_critical),
        TEST(what_its_user_paused_stays_paused),
        TEST(a_domain_that_others_start_is_connected_and_one_that_ends_is_left),
        TEST(a_service_that_cannot_start_is_told_and_tried_again),
        TEST(a_service_is_back_though_its_hypervisor_answers_nobody),
        cmocka_unit_test_setup(a_service_is_back_though_as_many_looks_as_there_may_be_wait_for_a_hypervisor, setup),
        TEST(what_a_killed_command_began_is_finished_when_nobody_is_at_work_on_it),
        TEST(a_hostd_that_starts_takes_up_what_happened_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
