// Domains of libvirt are taken in and given back. The hypervisor is one of files (fake-hypervisor.c).
#include "adopt-kit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/convert.h"
#include "host/adopt.h"

static void adopted_disks_hold_what_the_images_held_and_the_images_stay(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    RP_AUTO_FREE char *root = ak_sum(ak, "raw", "images/root.raw"), *data = ak_sum(ak, "qcow2", "images/data.qcow2"),
                      *old = ak_sum(ak, "vhdx", "images/old.vhdx"), *files = ak_output(ak, "cd images; sha256sum *.raw *.qcow2; stat -c %%Y *.raw *.qcow2");
    kit_ok(ak_adopt(ak), ak->err);
    assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
    assert_same(rp_xstrdup(data), ak_sum(ak, NULL, "images/data.vhdx"));
    assert_same(rp_xstrdup(old), ak_sum(ak, NULL, "images/old.vhdx"));
    assert_same(rp_xstrdup(files), ak_output(ak, "cd images; sha256sum *.raw *.qcow2; stat -c %%Y *.raw *.qcow2"));
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    kit_ok(ak->host->ops->find_vm(ak->host, "web1", &vm, &ak->err), ak->err);
    assert_string_equal(vm.id, "4DEA22B3-1D52-D8F3-2516-782E98AB3FA0");
    kit_ok(ak->host->ops->vm_settings(ak->host, vm.id, &settings, &ak->err), ak->err);
    assert_int_equal(settings.disk_count, 3);
    RP_AUTO_FREE char *xml = ak_kept(ak);
    assert_null(strstr(xml, "root.raw"));
    assert_non_null(strstr(xml, "<source protocol='nbd' name='disk2'>"));
    assert_non_null(strstr(xml, "<serial>S-vda</serial>"));
    assert_non_null(strstr(xml, "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"));
    assert_int_equal(ak_adopt(ak), -1); // once
    assert_int_equal(ak->err.code, RP_ERR_EXISTS);
}

static void a_dry_run_tells_all_of_it_and_changes_nothing(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    RP_AUTO_FREE char *before = ak_tree(ak);
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    kit_ok(rp_host_local_adopt_plan(ak->host, ak->uri, AK_UUID, &(struct rp_adopt_options){.name = "other"}, &plan, &ak->err), ak->err);
    assert_same(rp_xstrdup(before), ak_tree(ak));
    assert_int_equal(plan.count, 4);
    assert_int_equal(plan.taken, 3);
    assert_string_equal(plan.name, "other");
    assert_string_equal(plan.items[0].format, "raw");
    assert_int_equal(plan.items[0].size, AK_SIZE);
    assert_true(plan.items[0].shared || plan.items[0].room >= AK_SIZE / 2);
    assert_true(plan.items[1].room >= AK_SIZE / 2 && plan.items[1].room <= AK_SIZE);
    assert_true(plan.items[2].in_place);
    assert_int_equal(plan.items[3].verdict, RP_ADOPT_LEFT);
    assert_string_equal(plan.before, ak->xml);
    assert_non_null(strstr(plan.after, "nbd.sock"));
    kit_ok(ak_adopt(ak), ak->err);
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release back = {0};
    RP_AUTO_FREE char *adopted = ak_tree(ak);
    kit_ok(rp_host_local_release_plan(ak->host, AK_UUID, NULL, &back, &ak->err), ak->err);
    assert_same(rp_xstrdup(adopted), ak_tree(ak));
    assert_string_equal(back.after, ak->xml);
    assert_true(back.items[0].replaces && back.items[2].stays);
}

// ---- what cannot be taken -------------------------------------------------------------------------------------------

static const struct refusal {
    const char *what;    // of the disk, %s: the folder
    const char *prepare; // shell
    const char *reason;
} refusals[] = {
    {"<disk type='block' device='disk'><source dev='/dev/null'/><target dev='vda'/></disk>", "true", "block device"},
    {"<disk type='block' device='lun'><source dev='/dev/null'/><target dev='sda' bus='scsi'/></disk>", "true", "passed through"},
    {"<disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vda'/></disk>", "true", "storage pool"},
    {"<disk type='network' device='disk'><source protocol='rbd' name='p/v'/><target dev='vda'/></disk>", "true", "no file"},
    {"<disk type='network'><source protocol='nbd' name='a'><host transport='unix' socket='/s'/></source><target dev='vda'/></disk>", "true",
     "a disk service already"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/><shareable/></disk>", "truncate -s 1M images/a",
     "shared by several"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/><transient/></disk>", "truncate -s 1M images/a",
     "transient"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'><encryption format='luks'/></source><target dev='vda'/></disk>",
     "truncate -s 1M images/a", "LUKS"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'><slices/></source><target dev='vda'/></disk>", "truncate -s 1M images/a",
     "part of a file"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/><mirror/></disk>", "truncate -s 1M images/a",
     "block job"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/></disk>", "true", "cannot be read"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/></disk>", "touch images/a", "empty"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/></disk>",
     "truncate -s 1M images/a; ln images/a images/b", "hard links"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a.raw'/><target dev='vda'/></disk>",
     "truncate -s 1M images/a.raw; touch images/a.vhdx images/a-vda.vhdx", "there is a file already"},
    {"<disk type='file'><driver type='vmdk'/><source file='%s/images/a'/><target dev='vda'/></disk>",
     "qemu-img create -q -f vmdk images/a 1M", "of the format vmdk"},
    {"<disk type='file'><driver type='vhd'/><source file='%s/images/a'/><target dev='vda'/></disk>", "truncate -s 1M images/a", "no VHDX"},
    {"<disk type='file'><driver type='qcow2'/><source file='%s/images/a'/><target dev='vda'/></disk>", "truncate -s 1M images/a", "qcow2"},
    {"<disk type='file'><driver type='qcow2'/><source file='%s/images/a'/><target dev='vda'/></disk>",
     "qemu-img create -q -f qcow2 images/a 1M; qemu-img snapshot -c before images/a", "1 internal snapshot (\"before\")"},
    {"<disk type='file'><driver type='qcow2'/><source file='%s/images/a'/><target dev='vda'/></disk>",
     // It measures how fast the machine is, and gives up on a busy one.
     "for i in $(seq 50); do qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s,"
     "encrypt.iter-time=10 images/a 1M >/dev/null 2>&1 && break; done; test -s images/a && qemu-img info images/a >/dev/null",
     "encrypted"},
    {"<disk type='file'><driver type='qcow2'/><source file='%s/images/a'/><target dev='vda'/></disk>",
     "qemu-img create -q -f qcow2 -o data_file=images/b,data_file_raw=on images/a 1M", "another file"},
    {"<disk type='file'><driver type='qcow2'/><source file='%s/images/a'/><target dev='vda'/></disk>",
     "truncate -s 1M images/b; qemu-img create -q -f qcow2 -b \"$PWD/images/b\" -F raw images/a; python3 -c 'p = \"images/a\"; d = "
     "open(p, \"rb\").read(); open(p, \"wb\").write(d.replace(bytes.fromhex(\"e2792aca\"), bytes(3) + b\"x\", 1))'", "does not say of which format"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/></disk>"
     "<hostdev mode='subsystem' type='scsi'/>", "truncate -s 1M images/a", "hostdev scsi"},
    {"<disk type='file'><driver type='raw'/><source file='%s/images/a'/><target dev='vda'/></disk>",
     "truncate -s 1M images/a; echo 'one, two' >hv/" AK_UUID ".snapshots", "(one, two)"},
};

// Beside each of them a disk that could be taken.
static void each_refusal_has_its_reason_and_changes_nothing(void **state)
{
    struct ak *ak = *state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *refusal = &refusals[i];
        ak_shell(ak, "rm -rf images hv; mkdir images hv; truncate -s 1M images/good.raw; %s", refusal->prepare);
        RP_AUTO_FREE char *good = ak_disk(ak, "raw", "images/good.raw", "vdz");
        const char *hole = strstr(refusal->what, "%s");
        RP_AUTO_FREE char *devices = hole ? kit_path("%s%.*s%s%s", good, (int)(hole - refusal->what), refusal->what, ak->folder, hole + 2)
                                          : kit_path("%s%s", good, refusal->what);
        ak_define(ak, devices);
        RP_AUTO_FREE char *before = ak_tree(ak);
        assert_int_equal(ak_adopt(ak), -1);
        if (ak->err.code != RP_ERR_UNSUPPORTED || !strstr(ak->err.text, refusal->reason))
            fail_msg("%s: expected \"%s\", got %s: %s", refusal->what, refusal->reason, rp_code_name(ak->err.code), ak->err.text);
        assert_same(rp_xstrdup(before), ak_tree(ak));
        assert_false(ak_has_vm(ak));
    }
}

static void all_reasons_are_told_at_once(void **state)
{
    struct ak *ak = *state;
    ak_define(ak, "<disk type='block'><source dev='/dev/null'/><target dev='vda'/></disk>"
                  "<disk type='volume'><source pool='p' volume='v'/><target dev='vdb'/><shareable/></disk>");
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    kit_ok(rp_host_local_adopt_plan(ak->host, ak->uri, "web1", NULL, &plan, &ak->err), ak->err);
    assert_int_equal(plan.refused, 2);
    assert_null(plan.after);
    kit_fails(rp_host_local_adopt(ak->host, &plan, &ak->err), ak->err, RP_ERR_UNSUPPORTED);
}

static void an_image_that_a_qemu_writes_is_refused(void **state)
{
    struct ak *ak = *state;
    ak_shell(ak, "truncate -s 1M images/a.raw");
    RP_AUTO_FREE char *disk = ak_disk(ak, "raw", "images/a.raw", "vda"), *path = kit_path("%s/images/a.raw", ak->folder);
    RP_AUTO_FD int fd = open(path, O_RDWR);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1}; // as QEMU says that it writes
    ak_define(ak, disk);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    assert_int_equal(ak_adopt(ak), -1);
    assert_non_null(strstr(ak->err.text, "running QEMU"));
}

static void a_domain_that_is_not_off_is_refused(void **state)
{
    struct ak *ak = *state;
    static const char *const states[] = {"running", "paused", "waiting for a disk", "saved", "starting", "stopping", "crashed"};
    ak_web1(ak);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        ak_shell(ak, "echo '%s' >hv/" AK_UUID ".state", states[i]);
        assert_int_equal(ak_adopt(ak), -1);
        assert_int_equal(ak->err.code, RP_ERR_STATE);
    }
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    kit_fails(rp_host_local_adopt_plan(ak->host, ak->uri, "nobody", NULL, &plan, &ak->err), ak->err, RP_ERR_NOT_FOUND);
    assert_false(ak_has_vm(ak));
}

// ---- odd images -----------------------------------------------------------------------------------------------------

static void a_chain_of_images_becomes_one_disk(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *base = kit_path("%s/images/base.raw", ak->folder), *disk = ak_disk(ak, "qcow2", "images/top.qcow2", "vda");
    kit_raw(base, AK_SIZE, 3);
    ak_shell(ak, "cd images; qemu-img create -q -f qcow2 -b \"$PWD/base.raw\" -F raw middle.qcow2; qemu-img create -q -f qcow2 -b "
                 "\"$PWD/middle.qcow2\" -F qcow2 top.qcow2; qemu-io -f qcow2 -c 'write -P 9 1M 64k' middle.qcow2; "
                 "qemu-io -f qcow2 -c 'write -P 8 2M 64k' top.qcow2");
    ak_define(ak, disk);
    RP_AUTO_FREE char *sum = ak_sum(ak, "qcow2", "images/top.qcow2"), *below = ak_output(ak, "sha256sum images/base.raw images/middle.qcow2");
    kit_ok(ak_adopt(ak), ak->err);
    assert_same(rp_xstrdup(sum), ak_sum(ak, NULL, "images/top.vhdx"));
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(sum), ak_sum(ak, "qcow2", "images/top.qcow2"));
    assert_same(rp_xstrdup(below), ak_output(ak, "sha256sum images/base.raw images/middle.qcow2"));
    RP_AUTO_FREE char *info = ak_output(ak, "qemu-img info images/top.qcow2");
    assert_null(strstr(info, "backing"));
}

// A guest can write what it wants to the start of its disk.
static void a_raw_disk_that_looks_like_another_format_is_taken_as_raw(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *path = kit_path("%s/images/a.raw", ak->folder), *disk = ak_disk(ak, "raw", "images/a.raw", "vda");
    kit_vhdx(path, AK_SIZE);
    ak_define(ak, disk);
    RP_AUTO_FREE char *sum = ak_sum(ak, "raw", "images/a.raw");
    kit_ok(ak_adopt(ak), ak->err);
    assert_same(rp_xstrdup(sum), ak_sum(ak, NULL, "images/a.vhdx"));
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(sum), ak_sum(ak, "raw", "images/a.raw"));
}

static void images_of_one_name_get_files_of_their_own_and_a_folder_can_be_chosen(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *one = ak_disk(ak, "raw", "images/a.raw", "vda"), *two = ak_disk(ak, "raw", "images/a.img", "vdb"),
                      *both = kit_path("%s%s", one, two), *folder = kit_path("%s/new", ak->folder);
    ak_shell(ak, "mkdir new; truncate -s 1M images/a.raw; truncate -s 2M images/a.img");
    ak_define(ak, both);
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    kit_ok(rp_host_local_adopt_plan(ak->host, ak->uri, "web1", &(struct rp_adopt_options){.folder = folder}, &plan, &ak->err), ak->err);
    kit_ok(rp_host_local_adopt(ak->host, &plan, &ak->err), ak->err);
    assert_string_not_equal(plan.items[0].vhdx, plan.items[1].vhdx);
    assert_same(rp_xstrdup("2\n"), ak_output(ak, "ls new | wc -l"));
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls new | wc -l"));
}

// ---- back -----------------------------------------------------------------------------------------------------------

static void a_released_domain_is_what_it_was_with_what_was_written_since(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    RP_AUTO_FREE char *names = ak_output(ak, "find images -printf '%%P %%m %%u\\n' | sort"), *old = ak_sum(ak, "raw", "images/root.raw");
    kit_ok(ak_adopt(ak), ak->err);
    for (unsigned i = 0; i < 3; i++)
        ak_write(ak, i, RP_MIB, 65536, 77 + i);
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx"), *data = ak_sum(ak, NULL, "images/data.vhdx"),
                      *third = ak_sum(ak, NULL, "images/old.vhdx");
    assert_string_not_equal(root, old);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(root), ak_sum(ak, "raw", "images/root.raw"));
    assert_same(rp_xstrdup(data), ak_sum(ak, "qcow2", "images/data.qcow2"));
    assert_same(rp_xstrdup(third), ak_sum(ak, "vhdx", "images/old.vhdx"));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup(names), ak_output(ak, "find images -printf '%%P %%m %%u\\n' | sort"));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
    assert_false(ak_has_vm(ak));
    kit_ok(ak_adopt(ak), ak->err); // and again
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void a_domain_can_be_released_in_another_format(void **state)
{
    struct ak *ak = *state;
    static const struct { const char *format, *root, *data, *old; } tries[] = {
        {"raw", "root.raw", "data.raw", "old.raw"}, {"qcow2", "root.qcow2", "data.qcow2", "old.qcow2"}, {"vhdx", "root.vhdx", "data.vhdx", "old.vhdx"}};
    for (size_t i = 0; i < 3; i++) {
        ak_shell(ak, "rm -rf images; mkdir images");
        ak_web1(ak);
        const char *const names[] = {tries[i].root, tries[i].data, tries[i].old}, *const vhdx[] = {"root.vhdx", "data.vhdx", "old.vhdx"};
        char *sums[3];
        kit_ok(ak_adopt(ak), ak->err);
        for (unsigned n = 0; n < 3; n++) {
            RP_AUTO_FREE char *path = kit_path("images/%s", vhdx[n]);
            ak_write(ak, n, 0, 65536, 7);
            sums[n] = ak_sum(ak, NULL, path);
        }
        kit_ok(ak_release(ak, tries[i].format), ak->err);
        RP_AUTO_FREE char *xml = ak_kept(ak), *left = ak_output(ak, "ls -A images | grep -E 'rct|mrt|part' || true");
        assert_string_equal(left, "");
        for (unsigned n = 0; n < 3; n++) {
            RP_AUTO_FREE char *path = kit_path("images/%s", names[n]), *source = kit_path("<source file='%s/%s'/>", ak->folder, path);
            assert_non_null(strstr(xml, source));
            assert_same(sums[n], ak_sum(ak, tries[i].format, path));
        }
        assert_false(ak_has_vm(ak));
    }
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_NOT_FOUND);
}

static void what_was_changed_in_the_definition_meanwhile_stays(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    ak_shell(ak, "sed -i \"s|<vcpu>1|<vcpu>4|; s|<serial>S-vda</serial>|<serial>new</serial>|\" hv/" AK_UUID ".xml");
    kit_ok(ak_release(ak, NULL), ak->err);
    RP_AUTO_FREE char *xml = ak_kept(ak);
    assert_non_null(strstr(xml, "<vcpu>4"));
    assert_non_null(strstr(xml, "<serial>new</serial>"));
    assert_non_null(strstr(xml, "images/root.raw"));
    assert_non_null(strstr(xml, "cache='writeback'"));
    assert_null(strstr(xml, "nbd"));
    assert_null(strstr(xml, "error_policy"));
}

static void an_image_that_was_written_since_is_not_replaced(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    ak_shell(ak, "touch -d '1 hour' images/root.raw");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_STATE);
    assert_true(ak_has_vm(ak));
    ak_shell(ak, "rm images/root.raw"); // moved away: a new one comes
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void what_comes_to_an_images_place_while_it_is_written_is_not_replaced(void **state)
{
    static const struct {
        const char *format, *command, *file;
        enum rp_code code;
    } cases[] = {{"qcow2", "echo mine >images/root.qcow2", "images/root.qcow2", RP_ERR_EXISTS},
                 {"original", "echo mine >images/root.raw", "images/root.raw", RP_ERR_STATE}};
    struct ak *ak = *state;
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    RP_AUTO_FREE char *attached = ak_kept(ak), *root = ak_sum(ak, NULL, "images/root.vhdx");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kit_fails(ak_release_while(ak, cases[i].format, cases[i].command), ak->err, cases[i].code);
        assert_true(ak_has_vm(ak));
        assert_same(rp_xstrdup("mine\n"), ak_file(ak, cases[i].file));
        assert_same(rp_xstrdup(attached), ak_kept(ak));
        assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
        assert_same(rp_xstrdup(""), ak_output(ak, "ls images/.*.part 2>/dev/null || true"));
    }
}

// The decision has been made, and the last look at the place is over.
static void what_comes_to_an_images_place_after_the_decision_is_not_replaced(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx");
    ak_shell(ak, "mkdir -p hv/fail; echo 'busy no answer' >hv/fail/define");
    kit_fails(ak_release(ak, "qcow2"), ak->err, RP_ERR_BUSY);
    ak_shell(ak, "mv images/root.qcow2 \"$(python3 -c \"import sqlite3; print(sqlite3.connect('host/host.db').execute("
                 "'SELECT part FROM releasing_disk WHERE number = 0').fetchone()[0])\")\"; echo mine >images/root.qcow2");
    ak_open(ak);
    assert_true(ak_has_vm(ak));
    assert_same(rp_xstrdup("mine\n"), ak_file(ak, "images/root.qcow2"));
    assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
    assert_same(rp_xstrdup(""), ak_output(ak, "ls images/.*.part 2>/dev/null || true"));
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void an_image_is_known_again_after_a_boot_that_numbers_devices_anew(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    struct stat st;
    RP_AUTO_FREE char *path = kit_path("%s/images/root.raw", ak->folder), *stamp = rp_adopt_stamp(path);
    assert_int_equal(stat(path, &st), 0);
    RP_AUTO_FREE char *expected = kit_path("%llu %llu %lld.%09ld", (unsigned long long)st.st_ino, (unsigned long long)st.st_size,
                                           (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    assert_string_equal(stamp, expected); // nothing of the device
}

static void a_vm_that_runs_or_has_checkpoints_is_not_released(void **state)
{
    struct ak *ak = *state;
    char job[RP_HOST_ID], snapshot[RP_HOST_ID];
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    ak_shell(ak, "echo running >hv/" AK_UUID ".state");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_STATE);
    ak_shell(ak, "echo saved >hv/" AK_UUID ".state");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_STATE);
    ak_shell(ak, "rm hv/" AK_UUID ".state");
    kit_ok(ak->host->ops->create_snapshot(ak->host, AK_UUID, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "x", job, snapshot, &ak->err), ak->err);
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_STATE);
    kit_ok(ak->host->ops->destroy_snapshot(ak->host, snapshot, job, job, &ak->err), ak->err);
    kit_ok(rp_host_wait_merge(ak->host, "4DEA22B3-1D52-D8F3-2516-782E98AB3FA0", 20000, &ak->err), ak->err);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

// ---- deleted --------------------------------------------------------------------------------------------------------

static int delete_it(struct ak *ak, bool disks)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    rp_error_clear(&ak->err);
    return ak->host->ops->destroy_system(ak->host, AK_UUID, disks, job, result, &ak->err);
}

static void a_vm_whose_domain_needs_it_is_not_deleted_but_released(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    RP_AUTO_FREE char *attached = ak_kept(ak);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(delete_it(ak, i), -1);
        assert_int_equal(ak->err.code, RP_ERR_STATE);
        assert_non_null(strstr(ak->err.text, "vm release"));
        assert_true(ak_has_vm(ak));
        assert_same(rp_xstrdup(attached), ak_kept(ak));
    }
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void a_domain_that_has_its_own_disks_again_outlives_its_vm(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *path = kit_path("%s/hv/" AK_UUID ".xml", ak->folder);
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    kit_write_file(path, ak->xml, strlen(ak->xml)); // virsh define web1.xml
    kit_ok(delete_it(ak, false), ak->err);
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "grep -c undefine hv/log || true"));
}

static void a_vm_whose_domain_was_undefined_is_deleted(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx");
    ak_shell(ak, "rm hv/" AK_UUID ".*"); // virsh undefine
    kit_ok(delete_it(ak, false), ak->err);
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx")); // disks stay
}

static int define_theirs(void *context, uint64_t done, uint64_t total)
{
    struct ak *ak = context;
    RP_AUTO_FREE char *path = kit_path("%s/hv/" AK_UUID ".xml", ak->folder);
    (void)done, (void)total;
    kit_write_file(path, ak->xml, strlen(ak->xml));
    return 0;
}

static void a_domain_that_came_while_a_vm_was_made_stays_as_it_is(void **state)
{
    struct ak *ak = *state;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    ak_web1(ak);
    ak_shell(ak, "rm hv/" AK_UUID ".xml; cp images/root.raw images/new.raw");
    RP_AUTO_FREE char *path = kit_path("%s/images/new.raw", ak->folder);
    const char *disk = path;
    kit_ok(rp_host_local_set_hypervisor(ak->host, ak->uri, "default", "tcg", &ak->err), ak->err);
    rp_host_local_next_id(ak->host, AK_UUID);
    kit_fails(ak->host->ops->define_system(ak->host, "web1", &disk, 1, define_theirs, ak, job, result, &ak->err), ak->err, RP_ERR_EXISTS);
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
}

// ---- the hypervisor fails -------------------------------------------------------------------------------------------

static void a_definition_that_is_refused_undoes_the_adoption(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    RP_AUTO_FREE char *before = ak_output(ak, "find images -type f -exec sha256sum {} + | sort");
    ak_shell(ak, "mkdir -p hv/fail; echo 'invalid the schema says no' >hv/fail/define");
    kit_fails(ak_adopt(ak), ak->err, RP_ERR_INVALID);
    assert_same(rp_xstrdup(before), ak_output(ak, "find images -type f -exec sha256sum {} + | sort"));
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls -A host/vms | wc -l"));
    kit_ok(ak_adopt(ak), ak->err);
}

static void a_definition_that_is_refused_at_the_release_leaves_the_vm_as_it_was(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
    ak_write(ak, 0, RP_MIB, 65536, 78);
    RP_AUTO_FREE char *attached = ak_kept(ak), *root = ak_sum(ak, NULL, "images/root.vhdx");
    for (int i = 0; i < 2; i++) {
        ak_shell(ak, "mkdir -p hv/fail; echo 'invalid the schema says no' >hv/fail/define");
        kit_fails(ak_release(ak, i ? "qcow2" : NULL), ak->err, RP_ERR_INVALID);
        assert_true(ak_has_vm(ak));
        assert_same(rp_xstrdup(attached), ak_kept(ak));
        assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
    }
    assert_same(rp_xstrdup(""), ak_output(ak, "ls images/root.qcow2 images/.*.part 2>/dev/null || true"));
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup(root), ak_sum(ak, "raw", "images/root.raw"));
}

static void a_hypervisor_that_does_not_answer_in_the_middle_is_asked_again_later(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    ak_shell(ak, "mkdir -p hv/fail; echo 'busy no answer' >hv/fail/define");
    kit_fails(ak_adopt(ak), ak->err, RP_ERR_BUSY);
    assert_false(ak_has_vm(ak));
    ak_open(ak); // nothing has happened: undone
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls host/vms | wc -l"));
    kit_ok(ak_adopt(ak), ak->err);
    ak_shell(ak, "echo 'busy no answer' >hv/fail/define.always");
    kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_BUSY); // the images are in their places: there is no way back
    ak_open(ak);
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup("1\n"), ak_output(ak, "ls host/vms | wc -l"));
    ak_shell(ak, "rm hv/fail/define.always");
    ak_open(ak);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_same(rp_xstrdup("0\n"), ak_output(ak, "ls host/vms | wc -l"));
}

static void *start_it(void *argument)
{
    struct ak *ak = argument;
    RP_AUTO_FREE char *record = kit_path("%s/host/vms/4DEA22B3-1D52-D8F3-2516-782E98AB3FA0/chain.record", ak->folder);
    for (int i = 0; i < 20000 && access(record, F_OK); i++)
        usleep(500);
    RP_AUTO_FREE char *running = kit_path("%s/hv/" AK_UUID ".running", ak->folder), *state = kit_path("%s/hv/" AK_UUID ".state", ak->folder);
    kit_write_file(running, ak->xml, strlen(ak->xml)); // from its old disks
    kit_write_file(state, "running", 7);
    return NULL;
}

static void a_domain_that_is_started_at_the_last_moment_stays_as_it_was(void **state)
{
    struct ak *ak = *state;
    pthread_t thread;
    ak_web1(ak);
    ak_shell(ak, "mkdir -p hv/slow; echo 300 >hv/slow/define");
    assert_int_equal(pthread_create(&thread, NULL, start_it, ak), 0);
    assert_int_equal(ak_adopt(ak), -1);
    pthread_join(thread, NULL);
    assert_int_equal(ak->err.code, RP_ERR_STATE);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup("data.qcow2\nold.vhdx\nroot.raw\n"), ak_output(ak, "ls images"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest adopt[] = {
        TEST(adopted_disks_hold_what_the_images_held_and_the_images_stay),
        TEST(a_dry_run_tells_all_of_it_and_changes_nothing),
        TEST(each_refusal_has_its_reason_and_changes_nothing),
        TEST(all_reasons_are_told_at_once),
        TEST(an_image_that_a_qemu_writes_is_refused),
        TEST(a_domain_that_is_not_off_is_refused),
        TEST(a_chain_of_images_becomes_one_disk),
        TEST(a_raw_disk_that_looks_like_another_format_is_taken_as_raw),
        TEST(images_of_one_name_get_files_of_their_own_and_a_folder_can_be_chosen),
        TEST(a_released_domain_is_what_it_was_with_what_was_written_since),
        TEST(a_domain_can_be_released_in_another_format),
        TEST(what_was_changed_in_the_definition_meanwhile_stays),
        TEST(an_image_that_was_written_since_is_not_replaced),
        TEST(a_vm_that_runs_or_has_checkpoints_is_not_released),
        TEST(a_definition_that_is_refused_undoes_the_adoption),
        TEST(an_image_is_known_again_after_a_boot_that_numbers_devices_anew),
        TEST(a_vm_whose_domain_needs_it_is_not_deleted_but_released),
        TEST(a_domain_that_has_its_own_disks_again_outlives_its_vm),
        TEST(a_vm_whose_domain_was_undefined_is_deleted),
        TEST(a_domain_that_came_while_a_vm_was_made_stays_as_it_is),
        TEST(what_comes_to_an_images_place_while_it_is_written_is_not_replaced),
        TEST(what_comes_to_an_images_place_after_the_decision_is_not_replaced),
        TEST(a_definition_that_is_refused_at_the_release_leaves_the_vm_as_it_was),
        TEST(a_hypervisor_that_does_not_answer_in_the_middle_is_asked_again_later),
        TEST(a_domain_that_is_started_at_the_last_moment_stays_as_it_was),
    };
    return cmocka_run_group_tests(adopt, NULL, NULL);
}
