// VMs are given back to libvirt while others change the domain, the host, or the folders of the images.
#include "adopt-kit.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk/vhdx.h"
#include "diskservice/service.h"
#include "host/local.h"

#define OTHER_UUID "aaaa22b3-1d52-d8f3-2516-782e98ab3fa0"

#define MORE_MEMORY "sed -i 's|>256</memory>|>512</memory>|' hv/" AK_UUID ".xml"
#define PARTS "ls images/.*.part 2>/dev/null || true"

static void (*waited)(void); // when somebody waits for a moment

__attribute__((visibility("default"))) int usleep(useconds_t us)
{
    if (waited)
        waited();
    return nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

static void adopt_web1(struct ak *ak)
{
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
}

// ---- the definition -------------------------------------------------------------------------------------------------

static void check_memory(struct ak *ak)
{
    RP_AUTO_FREE char *xml = ak_kept(ak);
    assert_non_null(strstr(xml, ">512</memory>"));
    assert_non_null(strstr(xml, "images/root.raw"));
    assert_null(strstr(xml, "nbd"));
    assert_false(ak_has_vm(ak));
}

static void what_an_administrator_changes_while_images_are_written_stays_changed(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    kit_ok(ak_release_while(ak, NULL, MORE_MEMORY), ak->err);
    check_memory(ak);
}

static void what_an_administrator_changes_before_an_interrupted_release_goes_on_stays_changed(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    ak_shell(ak, "echo 'busy no answer' >hv/fail/define");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_BUSY);
    ak_shell(ak, MORE_MEMORY);
    ak_open(ak);
    check_memory(ak);
}

static void a_disk_at_a_target_that_the_vm_does_not_know_keeps_the_vm(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    ak_shell(ak, "cp hv/" AK_UUID ".xml saved; sed -i \"s|dev='vda'|dev='vdx'|\" hv/" AK_UUID ".xml");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_STATE);
    // And also when that happens after the decision.
    ak_shell(ak, "cp saved hv/" AK_UUID ".xml; echo 'busy no answer' >hv/fail/define");
    kit_fails(ak_release(ak, "qcow2"), ak->err, RP_ERR_BUSY);
    ak_shell(ak, "sed -i \"s|dev='vda'|dev='vdx'|\" hv/" AK_UUID ".xml");
    ak_open(ak);
    assert_true(ak_has_vm(ak));
    ak_shell(ak, "mv saved hv/" AK_UUID ".xml; test -e images/root.vhdx; ! ls images/root.qcow2 images/old.qcow2");
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

// ---- what an interrupted release must not delete -------------------------------------------------------------------

// Backing out has failed, and what is found later is not what was there then.
static void a_way_back_that_fails_leaves_either_the_disk_or_its_image(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    ak_write(ak, 0, RP_MIB, 65536, 78);
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx");
    ak_shell(ak, "echo 'no-space no room' >hv/fail/define");
    ak_sql(ak, "CREATE TRIGGER no_way_back BEFORE UPDATE OF state ON vm WHEN new.state = 'ready' BEGIN SELECT "
               "raise(FAIL, 'full'); END");
    assert_int_equal(ak_release(ak, "qcow2"), -1);
    ak_sql(ak, "DROP TRIGGER no_way_back");
    ak_shell(ak, "rm hv/" AK_UUID ".xml"); // virsh undefine
    ak_open(ak);
    bool vm = ak_has_vm(ak);
    assert_same(rp_xstrdup(root), vm ? ak_sum(ak, NULL, "images/root.vhdx") : ak_sum(ak, "qcow2", "images/root.qcow2"));
}

static void a_release_goes_on_after_the_folder_of_its_disk_files_has_gone(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *disk = ak_disk(ak, "raw", "images/a.raw", "vda"), *folder = kit_path("%s/new", ak->folder);
    ak_shell(ak, "mkdir new; truncate -s 1M images/a.raw");
    ak_define(ak, disk);
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    kit_ok(rp_host_local_adopt_plan(ak->host, ak->uri, "web1", &(struct rp_adopt_options){.folder = folder}, &plan, &ak->err), ak->err);
    kit_ok(rp_host_local_adopt(ak->host, &plan, &ak->err), ak->err);
    ak_shell(ak, "echo 'busy no answer' >hv/fail/define");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_BUSY);
    ak_shell(ak, "rm -r new");
    ak_open(ak);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
}

// It has its definition, and lives on; only then the release goes on.
static void a_disk_file_whose_image_was_moved_since_stays(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    ak_write(ak, 0, RP_MIB, 65536, 82);
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx"),
                      *path = kit_path("%s/hv/" AK_UUID ".xml", ak->folder);
    ak_shell(ak, "echo 'busy no answer' >hv/fail/define");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_BUSY);
    ak_shell(ak, "mv images/root.raw moved.raw");
    ak_open(ak); // to the domain it is still at the disk service: the image is waited for
    ak_shell(ak, "test -e images/root.vhdx -a -e images/data.vhdx; grep -q nbd.sock hv/" AK_UUID ".xml");
    kit_write_file(path, ak->xml, strlen(ak->xml));
    ak_shell(ak, "sed -i 's|images/root.raw|moved.raw|' hv/" AK_UUID ".xml");
    ak_open(ak);
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
    assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
    assert_same(rp_xstrdup(root), ak_sum(ak, "raw", "moved.raw"));
    ak_shell(ak, "! test -e images/data.vhdx");
}

static bool has_row(struct ak *ak)
{
    RP_AUTO_FREE char *rows =
        ak_output(ak, "python3 -c \"import sqlite3; print(sqlite3.connect('host/host.db').execute("
                      "'SELECT count(*) FROM vm').fetchone()[0])\"");
    return atoi(rows) > 0;
}

// The disk files have gone already, and the row of the VM has not.
static void interrupt_the_end(struct ak *ak)
{
    adopt_web1(ak);
    ak_sql(ak, "CREATE TRIGGER no_end BEFORE DELETE ON vm BEGIN SELECT raise(FAIL, 'full'); END");
    assert_int_equal(ak_release(ak, "qcow2"), -1);
    ak_sql(ak, "DROP TRIGGER no_end");
    ak_shell(ak, "! ls images/*.vhdx 2>/dev/null && mv images/root.qcow2 moved.qcow2");
}

static void a_release_ends_though_an_image_was_put_elsewhere_after_its_disk_file_had_gone(void **state)
{
    struct ak *ak = *state;
    interrupt_the_end(ak);
    ak_open(ak); // its domain still has it there: a file system that is not mounted, perhaps
    assert_true(has_row(ak));
    ak_shell(ak, "sed -i 's|images/root.qcow2|moved.qcow2|' hv/" AK_UUID ".xml");
    ak_open(ak);
    assert_false(has_row(ak));
    kit_ok(ak_adopt(ak), ak->err);
}

static void a_release_ends_though_its_domain_and_an_image_have_gone(void **state)
{
    struct ak *ak = *state;
    interrupt_the_end(ak);
    ak_shell(ak, "rm hv/" AK_UUID ".xml"); // virsh undefine
    ak_open(ak);
    assert_false(has_row(ak));
}

// ---- two at the same time -------------------------------------------------------------------------------------------

static struct rp_host_connection *second;

static void release_other(struct ak *ak)
{
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    RP_AUTO_FREE char *path = kit_path("%s/host", ak->folder);
    struct rp_error err = {0};
    second = rp_host_local_open(path, &err);
    kit_ok(!second, err);
    kit_ok(rp_host_local_release_plan(second, OTHER_UUID, "qcow2", &plan, &err), err);
    kit_ok(rp_host_local_release(second, &plan, &err), err);
    rp_host_close(second);
}

static int release_other_meanwhile(void *context, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    if (!second)
        release_other(context);
    return 0;
}

// web1 on images/web.raw and web2 on images/web.img: the image of both would be images/web.qcow2.
static void adopt_two(struct ak *ak)
{
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    RP_AUTO_FREE char *disk = ak_disk(ak, "raw", "images/web.img", "vda"),
                      *one = ak_disk(ak, "raw", "images/web.raw", "vda");
    ak_define(ak, disk);
    ak_shell(ak, "head -c 1M /dev/urandom >images/web.img; head -c 1M /dev/urandom >images/web.raw; "
                 "sed 's/" AK_UUID "/" OTHER_UUID "/; s/web1/web2/' hv/" AK_UUID ".xml >hv/" OTHER_UUID ".xml");
    ak_define(ak, one);
    kit_ok(ak_adopt(ak), ak->err);
    kit_ok(rp_host_local_adopt_plan(ak->host, ak->uri, "web2", NULL, &plan, &ak->err), ak->err);
    kit_ok(rp_host_local_adopt(ak->host, &plan, &ak->err), ak->err);
}

static void of_two_releases_to_one_name_the_second_leaves_the_image_of_the_first(void **state)
{
    struct ak *ak = *state;
    adopt_two(ak);
    RP_AUTO_FREE char *one = ak_sum(ak, "raw", "images/web.raw"), *two = ak_sum(ak, "raw", "images/web.img");
    second = NULL;
    ak->host->progress = release_other_meanwhile;
    ak->host->progress_context = ak;
    kit_fails(ak_release(ak, "qcow2"), ak->err, RP_ERR_EXISTS);
    ak->host->progress = NULL;
    assert_same(rp_xstrdup(two), ak_sum(ak, "qcow2", "images/web.qcow2"));
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
    kit_ok(ak_release(ak, "qcow2"), ak->err);
    assert_same(rp_xstrdup(two), ak_sum(ak, "qcow2", "images/web.qcow2"));
    assert_same(rp_xstrdup(one), ak_sum(ak, "qcow2", "images/web-vda.qcow2"));
}

// Neither image has its place yet.
static void a_name_that_another_release_has_decided_on_is_taken(void **state)
{
    struct ak *ak = *state;
    adopt_two(ak);
    RP_AUTO_FREE char *decide = kit_path(
        "python3 -c \"import sqlite3; c = sqlite3.connect('host/host.db'); c.executescript(\\\"INSERT INTO "
        "releasing SELECT row FROM vm WHERE name = 'web2'; INSERT INTO releasing_disk SELECT row, 0, 'x', "
        "'%s/images/web.qcow2', 'qcow2', '' "
        "FROM vm WHERE name = 'web2'\\\")\"",
        ak->folder);
    assert_int_equal(ak_release_while(ak, "qcow2", decide), -1);
    assert_int_equal(ak->err.code, RP_ERR_EXISTS);
    ak_sql(ak, "DELETE FROM releasing");
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
}

// ---- its disks ------------------------------------------------------------------------------------------------------

static void a_vm_with_as_many_disks_as_there_may_be_is_released(void **state)
{
    struct ak *ak = *state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf devices = {0};
    ak_shell(ak, "for i in $(seq 0 63); do truncate -s 1M images/$i.raw; done; printf x | dd of=images/63.raw "
                 "conv=notrunc status=none");
    for (int i = 0; i < 64; i++) {
        RP_AUTO_FREE char *path = kit_path("images/%d.raw", i),
                          *target = kit_path("vd%c%c", 'a' + i / 26, 'a' + i % 26);
        RP_AUTO_FREE char *disk = ak_disk(ak, "raw", path, target);
        rp_buf_printf(&devices, "%s", disk);
    }
    ak_define(ak, rp_buf_text(&devices));
    RP_AUTO_FREE char *last = ak_sum(ak, "raw", "images/63.raw");
    kit_ok(ak_adopt(ak), ak->err);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("64\n"), ak_output(ak, "ls -A images | wc -l"));
    assert_same(rp_xstrdup(last), ak_sum(ak, "raw", "images/63.raw"));
    assert_false(ak_has_vm(ak));
}

static void disks_whose_images_would_have_one_name_get_names_of_their_own(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *one = ak_disk(ak, "raw", "images/a.raw", "vda"),
                      *two = ak_disk(ak, "raw", "images/a.img", "vdb"), *both = kit_path("%s%s", one, two);
    ak_shell(ak, "head -c 1M /dev/urandom >images/a.raw; head -c 1M /dev/urandom >images/a.img");
    ak_define(ak, both);
    RP_AUTO_FREE char *first = ak_sum(ak, "raw", "images/a.raw"), *second_disk = ak_sum(ak, "raw", "images/a.img");
    kit_ok(ak_adopt(ak), ak->err);
    kit_ok(ak_release(ak, "qcow2"), ak->err);
    assert_same(rp_xstrdup(first), ak_sum(ak, "qcow2", "images/a.qcow2"));
    assert_same(rp_xstrdup(second_disk), ak_sum(ak, "qcow2", "images/a.img-vdb.qcow2"));
}

static void a_vm_that_was_made_here_is_released_too(void **state)
{
    struct ak *ak = *state;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    kit_ok(rp_host_local_set_hypervisor(ak->host, ak->uri, "default", "tcg", &ak->err), ak->err);
    for (int i = 0; i < 2; i++) {
        RP_AUTO_FREE char *path = kit_path("%s/images/new.raw", ak->folder);
        const char *disk = path;
        ak_shell(ak, "head -c 2M /dev/urandom >images/new.raw");
        RP_AUTO_FREE char *sum = ak_sum(ak, "raw", "images/new.raw");
        rp_host_local_next_id(ak->host, AK_UUID);
        kit_ok(ak->host->ops->define_system(ak->host, "web1", &disk, 1, NULL, NULL, job, result, &ak->err), ak->err);
        kit_ok(ak_release(ak, i ? "qcow2" : NULL), ak->err);
        RP_AUTO_FREE char *xml = ak_kept(ak), *image = ak_output(ak, "ls host/vms/*/* | tr -d '\n'");
        assert_non_null(strstr(xml, image));
        assert_null(strstr(xml, "nbd"));
        assert_same(rp_xstrdup(sum), ak_sum(ak, i ? "qcow2" : "vhdx", image));
        assert_false(ak_has_vm(ak));
        ak_shell(ak, "rm -r host/vms/* hv/" AK_UUID ".*");
    }
}

static void a_vm_whose_checkpoints_are_still_merged_is_released_later(void **state)
{
    struct ak *ak = *state;
    char job[RP_HOST_ID], snapshot[RP_HOST_ID];
    adopt_web1(ak);
    kit_ok(ak->host->ops->create_snapshot(ak->host, AK_UUID, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "x", job,
                                          snapshot, &ak->err),
           ak->err);
    ak_write(ak, 0, RP_MIB, 65536, 79);
    ak_sql(ak, "UPDATE snapshot SET state = 'merging', operation = '11111111-2222-3333-4444-555555555555'");
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    kit_fails(rp_host_local_release_plan(ak->host, AK_UUID, NULL, &plan, &ak->err), ak->err, RP_ERR_BUSY);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(ak->host->ops->find_vm(ak->host, AK_UUID, &vm, &ak->err), ak->err); // goes on with the merge
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx");
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(root), ak_sum(ak, "raw", "images/root.raw"));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

struct qemu {
    const char *image;
    int fd;
};
static int open_as_qemu(void *context, uint64_t done, uint64_t total)
{
    struct qemu *qemu = context;
    struct flock lock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1}; // as QEMU says that it writes
    (void)done, (void)total;
    if (qemu->fd >= 0)
        return 0;
    qemu->fd = open(qemu->image, O_RDWR);
    assert_int_equal(fcntl(qemu->fd, F_OFD_SETLK, &lock), 0);
    return 0;
}

static void an_image_that_a_qemu_begins_to_write_meanwhile_is_not_replaced(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    RP_AUTO_FREE char *before = ak_output(ak, "sha256sum images/*.raw images/*.qcow2"),
                      *path = kit_path("%s/images/root.raw", ak->folder);
    struct qemu qemu = {path, -1};
    ak->host->progress = open_as_qemu;
    ak->host->progress_context = &qemu;
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_STATE);
    ak->host->progress = NULL;
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup(before), ak_output(ak, "sha256sum images/*.raw images/*.qcow2"));
    assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
    close(qemu.fd);
    kit_ok(ak_release(ak, NULL), ak->err);
}

// Somebody may be starting the domain just then: to libvirt it is off until QEMU is there.
static void a_plan_leaves_the_disk_service_alone_and_the_release_ends_it(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    RP_AUTO_FREE char *directory = ak_output(ak, "printf %%s \"$PWD\"/host/vms/*");
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    kit_ok(rp_service_start(directory, &ak->err), ak->err);
    kit_ok(rp_host_local_release_plan(ak->host, AK_UUID, "qcow2", &plan, &ak->err), ak->err);
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), directory, &ak->err);
    assert_true(service && rp_service_is_running(service));
    kit_ok(rp_host_local_release(ak->host, &plan, &ak->err), ak->err);
    assert_false(ak_has_vm(ak));
}

// As systemd's unit does, which libvirt's hook ends without waiting for it. It lets go when somebody waits for it.
static struct ak *holding;
static int ready_fd;

static void tell(void *context)
{
    (void)context;
    assert_int_equal(write(ready_fd, "", 1), 1);
}
static int is_told_to_end(void *context)
{
    RP_AUTO_FREE char *path = kit_path("%s/let-go", ((struct ak *)context)->folder);
    return !access(path, F_OK);
}
static void let_go(void)
{
    waited = NULL;
    ak_shell(holding, "touch let-go");
}

static void hold(struct ak *ak)
{
    RP_AUTO_FREE char *path = kit_path("%s/host", ak->folder);
    struct rp_error err = {0};
    const struct rp_host_serving serving = {.ready = tell, .stop = is_told_to_end, .context = ak};
    struct rp_host_connection *host = rp_host_local_open_resident(path, false, &err);
    alarm(100);
    _exit(!host || rp_host_local_serve(host, AK_UUID, AK_UUID, &serving, &err));
}

static void a_release_right_after_a_shutdown_waits_for_who_holds_the_disks(void **state)
{
    struct ak *ak = holding = *state;
    int ready[2], ended;
    adopt_web1(ak);
    assert_int_equal(pipe(ready), 0);
    ready_fd = ready[1];
    pid_t holder = fork();
    assert_true(holder >= 0);
    if (!holder)
        hold(ak);
    close(ready[1]);
    assert_int_equal(read(ready[0], &(char){0}, 1), 1);
    close(ready[0]);
    waited = let_go;
    int failed = ak_release(ak, NULL);
    waited = NULL;
    ak_shell(ak, "touch let-go");
    assert_int_equal(waitpid(holder, &ended, 0), holder);
    kit_ok(failed, ak->err);
    assert_int_equal(ended, 0);
    assert_false(ak_has_vm(ak));
}

static void a_disk_with_sectors_that_qemu_does_not_read_is_released_as_raw_only(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *path = kit_path("%s/images/new.vhdx", ak->folder),
                      *disk = ak_disk(ak, "vhdx", "images/new.vhdx", "vda");
    const struct rp_vhdx_create create = {.size = AK_SIZE, .logical_sector = 4096, .physical_sector = 4096};
    kit_ok(rp_vhdx_create(rp_fs_posix(), path, &create, &ak->err), ak->err);
    ak_shell(ak, "! qemu-img convert -q -f vhdx -O raw images/new.vhdx x.raw 2>/dev/null; rm -f x.raw");
    ak_define(ak, disk);
    kit_ok(ak_adopt(ak), ak->err);
    ak_write(ak, 0, RP_MIB, 65536, 83);
    RP_AUTO_FREE char *sum = ak_sum(ak, NULL, "images/new.vhdx");
    static const char *const refused[] = {"original", "vhdx", "qcow2"};
    for (size_t i = 0; i < 3; i++) {
        RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
        assert_int_equal(rp_host_local_release_plan(ak->host, AK_UUID, refused[i], &plan, &ak->err), -1);
        if (ak->err.code != RP_ERR_UNSUPPORTED || !strstr(ak->err.text, "sectors of 4096"))
            fail_msg("%s: %s", refused[i], ak->err.text);
        rp_error_clear(&ak->err);
    }
    kit_ok(ak_release(ak, "raw"), ak->err);
    assert_same(rp_xstrdup(sum), ak_sum(ak, "raw", "images/new.raw"));
}

static void a_domain_that_runs_at_the_decision_keeps_its_vm(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    RP_AUTO_FREE char *attached = ak_kept(ak);
    assert_int_equal(ak_release_while(ak, NULL, "echo running >hv/" AK_UUID ".state"), -1);
    assert_int_equal(ak->err.code, RP_ERR_STATE);
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup(attached), ak_kept(ak));
    assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest release[] = {
        TEST(what_an_administrator_changes_while_images_are_written_stays_changed),
        TEST(what_an_administrator_changes_before_an_interrupted_release_goes_on_stays_changed),
        TEST(a_disk_at_a_target_that_the_vm_does_not_know_keeps_the_vm),
        TEST(a_way_back_that_fails_leaves_either_the_disk_or_its_image),
        TEST(a_release_goes_on_after_the_folder_of_its_disk_files_has_gone),
        TEST(a_disk_file_whose_image_was_moved_since_stays),
        TEST(a_release_ends_though_an_image_was_put_elsewhere_after_its_disk_file_had_gone),
        TEST(a_release_ends_though_its_domain_and_an_image_have_gone),
        TEST(of_two_releases_to_one_name_the_second_leaves_the_image_of_the_first),
        TEST(a_name_that_another_release_has_decided_on_is_taken),
        TEST(a_vm_with_as_many_disks_as_there_may_be_is_released),
        TEST(disks_whose_images_would_have_one_name_get_names_of_their_own),
        TEST(a_vm_that_was_made_here_is_released_too),
        TEST(a_vm_whose_checkpoints_are_still_merged_is_released_later),
        TEST(an_image_that_a_qemu_begins_to_write_meanwhile_is_not_replaced),
        TEST(a_plan_leaves_the_disk_service_alone_and_the_release_ends_it),
        TEST(a_release_right_after_a_shutdown_waits_for_who_holds_the_disks),
        TEST(a_disk_with_sectors_that_qemu_does_not_read_is_released_as_raw_only),
        TEST(a_domain_that_runs_at_the_decision_keeps_its_vm),
    };
    return cmocka_run_group_tests(release, NULL, NULL);
}
