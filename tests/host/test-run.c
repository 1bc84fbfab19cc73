// VMs that a hypervisor runs: every change of state, and what each failure leaves of domain and disk service.
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run-kit.h"

static char job[RP_HOST_ID], result[RP_HOST_ID];

static void the_disk_service_is_there_before_the_domain_and_ends_after_it(void **state)
{
    struct world *w = *state;
    assert_int_equal(rk_shown(w, NULL), RP_VM_OFF);
    becomes(w, RP_VM_RUNNING);
    assert_true(dk_is(&w->dk, "running") && dk_serves(&w->dk));
    assert_int_equal(dk_count(&w->dk, "start disks vda=disk0@"), 1);
    assert_int_equal(rk_shown(w, NULL), RP_VM_RUNNING);
    refused(w, RP_VM_RUNNING, RP_ERR_STATE);
    becomes(w, RP_VM_OFF);
    assert_true(dk_is(&w->dk, "off") && !dk_serves(&w->dk));
    assert_int_equal(dk_count(&w->dk, "turn_off"), 1);
    refused(w, RP_VM_OFF, RP_ERR_STATE);
}

static void a_guest_that_shuts_down_leaves_nothing_running(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    becomes(w, RP_VM_SHUT_DOWN);
    assert_int_equal(dk_count(&w->dk, "shut_down"), 1);
    assert_int_equal(dk_count(&w->dk, "turn_off"), 0);
    assert_true(dk_is(&w->dk, "off") && !dk_serves(&w->dk));
    refused(w, RP_VM_SHUT_DOWN, RP_ERR_STATE);
}

static int enough(void *context, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    return ++*(int *)context > 2;
}

static void a_guest_that_does_not_shut_down_is_left_alone(void **state)
{
    struct world *w = *state;
    int asked = 0;
    becomes(w, RP_VM_RUNNING);
    dk_put(&w->dk, "deaf", "");
    w->c->progress = enough;
    w->c->progress_context = &asked;
    refused(w, RP_VM_SHUT_DOWN, RP_ERR_CANCELLED);
    w->c->progress = NULL;
    assert_true(dk_is(&w->dk, "running") && dk_serves(&w->dk));
    becomes(w, RP_VM_OFF);
}

static void a_guest_that_is_off_before_the_hypervisor_has_answered_is_off(void **state)
{
    static const enum rp_vm_state ends[] = {RP_VM_SHUT_DOWN, RP_VM_OFF};
    struct world *w = *state;
    dk_put(&w->dk, "quick", "");
    for (size_t i = 0; i < 2; i++) {
        becomes(w, RP_VM_RUNNING);
        becomes(w, ends[i]);
        assert_false(dk_is(&w->dk, "running") || dk_serves(&w->dk));
    }
}

static void it_is_paused_resumed_saved_reset_and_rebooted(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    becomes(w, RP_VM_PAUSED);
    assert_int_equal(rk_shown(w, NULL), RP_VM_PAUSED);
    assert_true(dk_serves(&w->dk));
    refused(w, RP_VM_PAUSED, RP_ERR_STATE);
    refused(w, RP_VM_SHUT_DOWN, RP_ERR_STATE);
    becomes(w, RP_VM_RUNNING);
    assert_int_equal(dk_count(&w->dk, "resume"), 1);
    becomes(w, RP_VM_RESET);
    assert_int_equal(dk_count(&w->dk, "reset"), 1);
    becomes(w, RP_VM_REBOOT);
    assert_int_equal(dk_count(&w->dk, "shut_down"), 1);
    assert_true(dk_is(&w->dk, "running") && dk_serves(&w->dk));
    becomes(w, RP_VM_SAVED);
    assert_int_equal(rk_shown(w, NULL), RP_VM_SAVED);
    assert_false(dk_serves(&w->dk));
    refused(w, RP_VM_SAVED, RP_ERR_STATE);
    refused(w, RP_VM_OFF, RP_ERR_STATE); // its memory would be lost
    becomes(w, RP_VM_RUNNING);
    assert_true(dk_is(&w->dk, "running") && dk_serves(&w->dk));
}

static void a_failure_leaves_domain_and_disk_service_as_they_were(void **state)
{
    struct world *w = *state;
    dk_fail(&w->dk, "start", "io no memory");
    refused(w, RP_VM_RUNNING, RP_ERR_IO);
    assert_true(dk_is(&w->dk, "off") && !dk_serves(&w->dk));
    becomes(w, RP_VM_RUNNING);
    static const struct {
        const char *call;
        enum rp_vm_state asked;
    } steps[] = {{"pause", RP_VM_PAUSED}, {"save", RP_VM_SAVED}, {"reset", RP_VM_RESET}, {"turn_off", RP_VM_OFF},
                 {"shut_down", RP_VM_SHUT_DOWN}, {"state", RP_VM_OFF}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        dk_fail(&w->dk, steps[i].call, "busy it does not answer");
        refused(w, steps[i].asked, RP_ERR_BUSY);
        assert_true(dk_is(&w->dk, "running") && dk_serves(&w->dk));
    }
    becomes(w, RP_VM_PAUSED);
    dk_fail(&w->dk, "resume", "io no");
    refused(w, RP_VM_RUNNING, RP_ERR_IO);
    assert_true(dk_is(&w->dk, "paused") && dk_serves(&w->dk));
}

static void disks_of_a_domain_that_runs_or_is_saved_or_unknown_are_left_alone(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *raw = kit_path("%s/more.raw", w->files);
    kit_raw(raw, DISK, 2);
    becomes(w, RP_VM_RUNNING);
    dk_kill(&w->dk); // nobody serves them any more, but they are the domain's
    static const char *const states[] = {"running", "waiting for a disk", "paused", "saved", "running"};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        enum rp_code code = i < 4 ? RP_ERR_STATE : RP_ERR_BUSY;
        dk_put(&w->dk, "state", states[i]);
        dk_fail(&w->dk, "state.always", i < 4 ? NULL : "busy it does not answer");
        kit_fails(w->c->ops->destroy_system(w->c, w->dk.vm, true, job, result, &w->err), w->err, code);
        kit_fails(w->c->ops->remove_disk(w->c, w->dk.vm, 0, job, result, &w->err), w->err, code);
        kit_fails(w->c->ops->add_disk(w->c, w->dk.vm, raw, job, result, &w->err), w->err, code);
    }
    dk_fail(&w->dk, "state.always", NULL);
}

static void a_disk_service_that_its_domain_left_is_in_nobodys_way(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    dk_put(&w->dk, "state", "off");
    assert_true(dk_serves(&w->dk));
    kit_ok(w->c->ops->destroy_system(w->c, w->dk.vm, true, job, result, &w->err), w->err);
    assert_int_equal(dk_count(&w->dk, "undefine"), 1);
    assert_false(dk_serves(&w->dk));
}

static void a_look_brings_disk_service_and_domain_in_line(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    assert_false(rk_keep(w, false, false).acted);
    dk_kill(&w->dk);
    assert_true(rk_keep(w, false, false).acted);
    assert_true(dk_serves(&w->dk));
    dk_put(&w->dk, "state", "waiting for a disk");
    RP_AUTO_FREE char *remark = NULL;
    assert_int_equal(rk_shown(w, &remark), RP_VM_PAUSED);
    assert_non_null(strstr(remark, "waiting for a disk"));
    assert_true(rk_keep(w, false, false).acted);
    assert_true(dk_is(&w->dk, "running"));
    // Also when something else of it fails.
    dk_put(&w->dk, "state", "waiting for a disk");
    dk_fail(&w->dk, "reconnect", "io no");
    struct rp_host_kept kept = {0};
    kit_fails(rp_host_local_keep(w->c, w->dk.vm, true, false, &kept, &w->err), w->err, RP_ERR_IO);
    assert_true(dk_is(&w->dk, "running"));
    // Its user's pause is his.
    becomes(w, RP_VM_PAUSED);
    dk_kill(&w->dk);
    rk_keep(w, false, false);
    assert_true(dk_is(&w->dk, "paused") && dk_serves(&w->dk));
    // Started by somebody else: connected in the way that lasts.
    dk_put(&w->dk, "state", "running");
    unsigned before = dk_count(&w->dk, "reconnect disks");
    rk_keep(w, true, false);
    assert_int_equal(dk_count(&w->dk, "reconnect disks"), before + 1);
    // Its end.
    dk_put(&w->dk, "state", "off");
    assert_false(rk_keep(w, false, false).live);
    assert_false(dk_serves(&w->dk));
}

static void a_guest_that_has_panicked_keeps_its_disks_until_it_is_turned_off(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    dk_put(&w->dk, "state", "crashed"); // its process lives
    RP_AUTO_FREE char *remark = NULL;
    assert_int_equal(rk_shown(w, &remark), RP_VM_PAUSED);
    assert_string_equal(remark, "crashed");
    assert_true(rk_keep(w, false, false).live);
    assert_true(dk_serves(&w->dk));
    kit_fails(w->c->ops->remove_disk(w->c, w->dk.vm, 0, job, result, &w->err), w->err, RP_ERR_STATE);
    kit_fails(w->c->ops->destroy_system(w->c, w->dk.vm, true, job, result, &w->err), w->err, RP_ERR_STATE);
    refused(w, RP_VM_RUNNING, RP_ERR_STATE);
    refused(w, RP_VM_SHUT_DOWN, RP_ERR_STATE);
    becomes(w, RP_VM_OFF);
    assert_int_equal(dk_count(&w->dk, "turn_off"), 1);
    assert_true(dk_is(&w->dk, "off") && !dk_serves(&w->dk));
}

static void disks_that_are_not_ours_are_named(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    RP_AUTO_FREE char *xml = kit_path(
        "<domain type='qemu'><name>web1</name><uuid>%s</uuid><memory>1</memory><os><type>hvm</type></os><devices>"
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='disk0'>"
        "<host transport='unix' socket='%s/nbd.sock'/></source><target dev='vda' bus='virtio'/></disk>"
        "<disk type='file' device='cdrom'><source file='/iso'/><target dev='sda' bus='sata'/><readonly/></disk>"
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/hot.qcow2'/>"
        "<target dev='vdb' bus='virtio'/></disk></devices></domain>", w->dk.uuid, w->dk.directory);
    dk_put(&w->dk, "running", xml);
    rk_keep(w, false, true);
    RP_AUTO_FREE char *remark = NULL, *after = NULL;
    rk_shown(w, &remark);
    assert_string_equal(remark, "not protected: vdb (/srv/hot.qcow2)");
    RP_AUTO_FREE char *path = kit_path("%s/%s.running", w->dk.folder, w->dk.uuid);
    unlink(path);
    rk_keep(w, false, true);
    rk_shown(w, &after);
    assert_string_equal(after, "");
}

static bool definition_has(struct world *w, const char *text)
{
    RP_AUTO_FREE char *path = kit_path("%s/%s.xml", w->dk.folder, w->dk.uuid);
    char xml[8192] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(xml, 1, sizeof xml - 1, file) > 0);
    fclose(file);
    return strstr(xml, text);
}

static void a_disk_that_comes_or_goes_does_so_in_the_domain_too(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *raw = kit_path("%s/more.raw", w->files);
    kit_raw(raw, DISK, 2);
    dk_fail(&w->dk, "define", "io no");
    kit_fails(w->c->ops->add_disk(w->c, w->dk.vm, raw, job, result, &w->err), w->err, RP_ERR_IO);
    assert_false(definition_has(w, "disk1"));
    kit_ok(w->c->ops->add_disk(w->c, w->dk.vm, raw, job, result, &w->err), w->err); // nothing was left in the way
    assert_true(definition_has(w, "vdb") && definition_has(w, "disk2"));
    becomes(w, RP_VM_RUNNING);
    assert_int_equal(dk_count(&w->dk, "vdb=disk2@"), 1);
    becomes(w, RP_VM_OFF);
    dk_fail(&w->dk, "define", "io no");
    kit_fails(w->c->ops->remove_disk(w->c, w->dk.vm, 2, job, result, &w->err), w->err, RP_ERR_IO);
    becomes(w, RP_VM_RUNNING); // the next change of the VM ends it
    assert_false(definition_has(w, "vdb") || definition_has(w, "disk2"));
    assert_true(definition_has(w, "vda"));
    assert_int_equal(dk_count(&w->dk, "vdb=disk2@"), 1);
}

static uint64_t served_size(struct world *w)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    kit_ok(w->c->ops->vm_settings(w->c, w->dk.vm, &settings, &w->err), w->err);
    assert_non_null(settings.disks[0].nbd_uri);
    return settings.disks[0].size;
}

static void a_disk_grows_while_its_vm_runs(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    kit_ok(w->c->ops->resize_disk(w->c, w->dk.vm, 0, 2 * DISK, job, result, &w->err), w->err);
    assert_int_equal(served_size(w), 2 * DISK);
    RP_AUTO_FREE char *line = kit_path("resize disk vda %zu", 2 * DISK);
    assert_int_equal(dk_count(&w->dk, line), 1);
    assert_true(dk_is(&w->dk, "running"));
    kit_fails(w->c->ops->resize_disk(w->c, w->dk.vm, 0, DISK, job, result, &w->err), w->err, RP_ERR_INVALID);
    assert_true(dk_serves(&w->dk));
    // The guest was not told: again does it.
    dk_fail(&w->dk, "resize", "io no");
    kit_fails(w->c->ops->resize_disk(w->c, w->dk.vm, 0, 3 * DISK, job, result, &w->err), w->err, RP_ERR_IO);
    assert_true(dk_serves(&w->dk));
    kit_ok(w->c->ops->resize_disk(w->c, w->dk.vm, 0, 3 * DISK, job, result, &w->err), w->err);
    RP_AUTO_FREE char *last = kit_path("resize disk vda %zu", 3 * DISK);
    assert_int_equal(dk_count(&w->dk, last), 1);
}

static void a_hypervisor_that_does_not_answer_is_a_remark(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    dk_fail(&w->dk, "state.always", "busy it does not answer");
    RP_AUTO_FREE char *remark = NULL;
    assert_int_equal(rk_shown(w, &remark), RP_VM_RUNNING);
    assert_non_null(strstr(remark, "it does not answer"));
    dk_fail(&w->dk, "state.always", NULL);
}

// Whether a user may connect to the NBD socket, and whether he may read the host's database.
static int as_user(struct world *w, uid_t uid, const char *name, gid_t gid)
{
    RP_AUTO_FREE char *db = kit_path("%s/host.db", w->host);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/nbd.sock", w->dk.directory);
    pid_t child = fork();
    if (child == 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (initgroups(name, gid) || setgid(gid) || setuid(uid))
            _exit(99);
        _exit((connect(fd, (struct sockaddr *)&address, sizeof address) ? 0 : 1) + (open(db, O_RDONLY) < 0 ? 0 : 2));
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

static void only_qemus_user_gets_to_the_socket_and_to_nothing_else(void **state)
{
    struct world *w = *state;
    const struct passwd *user = getpwnam("libvirt-qemu");
    if (geteuid() || !user)
        skip();
    uid_t uid = user->pw_uid;
    gid_t gid = user->pw_gid;
    struct stat st;
    RP_AUTO_FREE char *journal = kit_path("%s/host.db-journal", w->host);
    kit_write_file(journal, "", 0);
    assert_int_equal(chmod(journal, 0644), 0); // as a umask may have made it
    becomes(w, RP_VM_RUNNING);
    assert_int_equal(stat(journal, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(as_user(w, uid, "libvirt-qemu", gid), 1);
    assert_int_equal(as_user(w, 65534, "nobody", 65534), 0);
    dk_kill(&w->dk); // the next one's socket is another
    rk_keep(w, false, false);
    assert_int_equal(as_user(w, uid, "libvirt-qemu", gid), 1);
    assert_int_equal(as_user(w, 65534, "nobody", gid), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_disk_service_is_there_before_the_domain_and_ends_after_it),
        TEST(a_guest_that_shuts_down_leaves_nothing_running),
        TEST(a_guest_that_does_not_shut_down_is_left_alone),
        TEST(a_guest_that_is_off_before_the_hypervisor_has_answered_is_off),
        TEST(it_is_paused_resumed_saved_reset_and_rebooted),
        TEST(a_failure_leaves_domain_and_disk_service_as_they_were),
        TEST(disks_of_a_domain_that_runs_or_is_saved_or_unknown_are_left_alone),
        TEST(a_disk_service_that_its_domain_left_is_in_nobodys_way),
        TEST(a_look_brings_disk_service_and_domain_in_line),
        TEST(a_guest_that_has_panicked_keeps_its_disks_until_it_is_turned_off),
        TEST(disks_that_are_not_ours_are_named),
        TEST(a_disk_that_comes_or_goes_does_so_in_the_domain_too),
        TEST(a_disk_grows_while_its_vm_runs),
        TEST(a_hypervisor_that_does_not_answer_is_a_remark),
        TEST(only_qemus_user_gets_to_the_socket_and_to_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
