// An adoption whose end nobody saw: what the hypervisor was asked for came later, or not, or its administrator was faster. Whoever
// opens the host next finds the domain adopted, or makes it what it was.
#include "adopt-kit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMES "mv hv/late/" AK_UUID ".xml hv/" AK_UUID ".xml"

static void define_it(struct ak *ak, const char *xml)
{
    RP_AUTO_FREE char *path = kit_path("%s/hv/" AK_UUID ".xml", ak->folder);
    kit_write_file(path, xml, strlen(xml));
}

// Adopts web1 while the hypervisor does not answer. Its definition is in hv/late.
static void adopt_unseen(struct ak *ak)
{
    ak_web1(ak);
    ak_shell(ak, "mkdir hv/late; touch hv/late/define");
    kit_fails(ak_adopt(ak), ak->err, RP_ERR_BUSY);
    assert_false(ak_has_vm(ak));
}

static void check_undone(struct ak *ak)
{
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("data.qcow2\nold.vhdx\nroot.raw\n"), ak_output(ak, "ls -A images"));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
}

static void a_definition_that_comes_late_makes_the_adoption_whole(void **state)
{
    struct ak *ak = *state;
    adopt_unseen(ak);
    RP_AUTO_FREE char *root = ak_sum(ak, "raw", "images/root.raw");
    ak_shell(ak, COMES);
    ak_open(ak);
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
    kit_ok(ak_release(ak, NULL), ak->err);
    check_undone(ak);
}

static void one_that_does_not_come_is_kept_from_it_by_the_next_use_of_the_host(void **state)
{
    struct ak *ak = *state;
    adopt_unseen(ak);
    ak_shell(ak, "sed -i 's|<vcpu>1|<vcpu>4|' hv/" AK_UUID ".xml"); // what is changed meanwhile stays
    ak_open(ak);
    assert_same(rp_xstrdup("2\n"), ak_output(ak, "grep -c define hv/log")); // another one is asked for behind it
    ak_shell(ak, "sed -i 's|<vcpu>4|<vcpu>1|' hv/" AK_UUID ".xml");
    check_undone(ak);
    kit_ok(ak_adopt(ak), ak->err);
}

static void one_that_comes_while_it_is_being_undone_is_seen(void **state)
{
    struct ak *ak = *state;
    adopt_unseen(ak);
    ak_shell(ak, "touch hv/late/next");
    ak_open(ak);
    assert_false(ak_has_vm(ak)); // not known yet
    ak_open(ak);
    assert_true(ak_has_vm(ak));
    kit_ok(ak_release(ak, NULL), ak->err);
    check_undone(ak);
}

static void a_hypervisor_that_still_does_not_answer_decides_nothing(void **state)
{
    struct ak *ak = *state;
    adopt_unseen(ak);
    ak_shell(ak, "mkdir -p hv/fail; echo 'busy no answer' >hv/fail/define");
    ak_open(ak);
    assert_same(rp_xstrdup("1\n"), ak_output(ak, "ls host/vms | wc -l"));
    ak_shell(ak, "test -e images/root.vhdx");
    ak_open(ak);
    check_undone(ak);
}

// The disk at vdb goes, or gets another name.
static void change(struct ak *ak, bool remove)
{
    RP_AUTO_FREE char *xml = ak_kept(ak);
    char *at = strstr(xml, "dev='vdb'"), *start = at;
    assert_non_null(at);
    at[7] = 'q';
    while (remove && strncmp(start, "<disk ", 6))
        start--;
    char *end = remove ? strstr(start, "</disk>") + 7 : start;
    memmove(start, end, strlen(end) + 1);
    define_it(ak, xml);
}

// Nobody had made the VM ready when its administrator did so.
static void a_domain_that_was_changed_before_its_vm_was_ready_is_adopted(void **state)
{
    struct ak *ak = *state;
    adopt_unseen(ak);
    ak_shell(ak, "mkdir same; mv hv/late/*.xml hv; cp -a host hv same");
    for (int i = 0; i < 2; i++) {
        rp_host_close(ak->host);
        ak->host = NULL;
        ak_shell(ak, "rm -rf host hv; cp -a same/* .");
        change(ak, i);
        RP_AUTO_FREE char *changed = ak_kept(ak);
        ak_open(ak);
        assert_true(ak_has_vm(ak));
        assert_same(rp_xstrdup(changed), ak_kept(ak));
        ak_shell(ak, "test -e images/root.vhdx -a -e images/data.vhdx -a -e images/old.vhdx");
    }
}

static void a_disk_that_was_used_before_its_vm_was_ready_is_not_deleted(void **state)
{
    struct ak *ak = *state;
    adopt_unseen(ak);
    ak_shell(ak, COMES);
    ak_write(ak, 0, RP_MIB, 65536, 5); // as the guest, started by virsh
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx");
    define_it(ak, ak->xml); // virsh define web1.xml
    ak_open(ak);
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

// ---- started on its old disks -------------------------------------------------------------------------------------------

static void *use_the_database(void *argument)
{
    struct ak *ak = argument;
    RP_AUTO_FREE char *path = kit_path("%s/hv/slow/define", ak->folder);
    int fd = open(path, O_WRONLY); // until somebody is defining a domain
    if (fd < 0)
        return "no definition";
    unlink(path);
    RP_AUTO_FREE char *told = ak_output(ak, "python3 -c \"import sqlite3; c = sqlite3.connect('host/host.db', timeout=0); "
                                            "c.execute('UPDATE vm SET problem = problem'); c.commit()\" 2>&1 && echo fine || true");
    bool fine = strstr(told, "fine");
    fine &= write(fd, "0", 1) == 1;
    close(fd);
    return fine ? NULL : "the database was locked while a domain was defined";
}

static void nobody_waits_for_the_database_while_a_domain_is_given_back(void **state)
{
    struct ak *ak = *state;
    pthread_t thread;
    void *problem = NULL;
    RP_AUTO_FREE char *slow = kit_path("%s/hv/slow/define", ak->folder), *running = kit_path("%s/hv/" AK_UUID ".running", ak->folder);
    adopt_unseen(ak);
    ak_shell(ak, COMES "; echo running >hv/" AK_UUID ".state");
    kit_write_file(running, ak->xml, strlen(ak->xml));
    assert_int_equal(mkfifo(slow, 0600), 0);
    assert_int_equal(pthread_create(&thread, NULL, use_the_database, ak), 0);
    ak_open(ak);
    int fd = open(slow, O_RDONLY | O_NONBLOCK); // should nobody have defined anything
    pthread_join(thread, &problem);
    if (fd >= 0)
        close(fd);
    if (problem)
        fail_msg("%s", (char *)problem);
    ak_shell(ak, "rm hv/" AK_UUID ".state hv/" AK_UUID ".running");
    check_undone(ak);
}

// ---- files of others ----------------------------------------------------------------------------------------------------

static int put(void *context, uint64_t done, uint64_t total)
{
    struct ak *ak = context;
    (void)done, (void)total;
    RP_AUTO_FREE char *path = kit_path("%s/images/root.vhdx", ak->folder);
    kit_write_file(path, "mine\n", 5);
    return 0;
}

static int put_and_die(void *context, uint64_t done, uint64_t total)
{
    put(context, done, total);
    _exit(7);
}

static void check_theirs(struct ak *ak)
{
    assert_same(rp_xstrdup("mine\n"), ak_file(ak, "images/root.vhdx"));
    ak_shell(ak, "rm images/root.vhdx");
    check_undone(ak);
}

static void a_file_that_somebody_puts_where_a_disk_would_be_outlives_a_killed_adoption(void **state)
{
    struct ak *ak = *state;
    int ended = 0;
    ak_web1(ak);
    rp_host_close(ak->host);
    ak->host = NULL;
    pid_t pid = fork();
    if (!pid) {
        alarm(60);
        ak_open(ak);
        ak->host->progress = put_and_die;
        ak->host->progress_context = ak;
        ak_adopt(ak);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    assert_true(WIFEXITED(ended) && WEXITSTATUS(ended) == 7);
    ak_open(ak);
    check_theirs(ak);
}

static void a_file_that_somebody_puts_where_a_disk_would_be_is_neither_replaced_nor_removed(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    ak->host->progress = put;
    ak->host->progress_context = ak;
    kit_fails(ak_adopt(ak), ak->err, RP_ERR_EXISTS);
    ak->host->progress = NULL;
    check_theirs(ak);
}

// ---- a VM that is made ----------------------------------------------------------------------------------------------------

// The hypervisor does not answer; the domain's definition is in hv/late.
static void define_late(struct ak *ak)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE char *path = kit_path("%s/images/new.raw", ak->folder);
    const char *disk = path;
    ak_shell(ak, "truncate -s 1M images/new.raw; rm -rf hv/late; mkdir hv/late; touch hv/late/define");
    kit_ok(rp_host_local_set_hypervisor(ak->host, ak->uri, "default", "tcg", &ak->err), ak->err);
    rp_host_local_next_id(ak->host, AK_UUID);
    kit_fails(ak->host->ops->define_system(ak->host, "new", &disk, 1, NULL, NULL, job, result, &ak->err), ak->err, RP_ERR_BUSY);
}

static void a_domain_that_is_defined_late_for_a_new_vm_does_not_outlive_it(void **state)
{
    struct ak *ak = *state;
    define_late(ak);
    assert_false(ak_has_vm(ak));
    ak_shell(ak, "mv hv/late/*.xml hv/" AK_UUID ".xml");
    ak_open(ak);
    assert_false(ak_has_vm(ak));
    assert_null(ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
}

static void one_that_is_defined_while_the_vm_is_undone_goes_as_well(void **state)
{
    struct ak *ak = *state;
    for (int comes = 0; comes < 2; comes++) {
        define_late(ak);
        if (comes)
            ak_shell(ak, "cd hv/late; mv *.xml " AK_UUID ".xml 2>/dev/null; touch next"); // right behind the next definition
        ak_open(ak);
        assert_null(ak_kept(ak));
        assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
        RP_AUTO_FREE char *log = ak_output(ak, "tail -n 2 hv/log");
        assert_string_equal(log, "define " AK_UUID "\nundefine " AK_UUID "\n"); // what comes later finds its UUID taken, or comes before
    }
}

static void a_vm_whose_domain_was_undefined_in_the_middle_of_a_change_can_be_deleted(void **state)
{
    struct ak *ak = *state;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    ak_sql(ak, "UPDATE disk SET state = 'removing' WHERE number = 0");
    ak_shell(ak, "rm hv/" AK_UUID ".xml");
    ak_open(ak);
    kit_ok(ak->host->ops->destroy_system(ak->host, AK_UUID, false, job, result, &ak->err), ak->err);
    assert_false(ak_has_vm(ak));
}

static void a_domain_of_somebody_else_is_not_undefined_with_a_vm_that_was_not_made(void **state)
{
    struct ak *ak = *state;
    define_late(ak);
    ak_define(ak, "");
    ak_open(ak);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest late[] = {
        TEST(a_definition_that_comes_late_makes_the_adoption_whole),
        TEST(one_that_does_not_come_is_kept_from_it_by_the_next_use_of_the_host),
        TEST(one_that_comes_while_it_is_being_undone_is_seen),
        TEST(a_hypervisor_that_still_does_not_answer_decides_nothing),
        TEST(a_domain_that_was_changed_before_its_vm_was_ready_is_adopted),
        TEST(a_disk_that_was_used_before_its_vm_was_ready_is_not_deleted),
        TEST(nobody_waits_for_the_database_while_a_domain_is_given_back),
        TEST(a_file_that_somebody_puts_where_a_disk_would_be_outlives_a_killed_adoption),
        TEST(a_file_that_somebody_puts_where_a_disk_would_be_is_neither_replaced_nor_removed),
        TEST(a_domain_that_is_defined_late_for_a_new_vm_does_not_outlive_it),
        TEST(one_that_is_defined_while_the_vm_is_undone_goes_as_well),
        TEST(a_vm_whose_domain_was_undefined_in_the_middle_of_a_change_can_be_deleted),
        TEST(a_domain_of_somebody_else_is_not_undefined_with_a_vm_that_was_not_made),
    };
    return cmocka_run_group_tests(late, NULL, NULL);
}
