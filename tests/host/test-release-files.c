// The files of a release: who may read them, where links lead, what is in the way, what fails.
#include "adopt-kit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "diskservice/engine.h"
#include "disk/convert.h"
#include "host/adopt.h"

#define PARTS "ls images/.*.part 2>/dev/null || true"

// ---- system calls that the tests look at, or let fail --------------------------------------------------------------

static bool no_exclusive_rename, no_links;
static bool no_image_goes;
static void (*looked)(void); // before a file's facts are asked for, or a name is removed
static void (*synced)(void); // before all file systems are

static void look(void)
{
    if (looked)
        looked();
}

__attribute__((visibility("default"))) int renameat2(int from_fd, const char *from, int to_fd, const char *to,
                                                     unsigned flags)
{
    if (flags & RENAME_NOREPLACE && no_exclusive_rename) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
}

__attribute__((visibility("default"))) int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    if (no_links) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

__attribute__((visibility("default"))) int statx(int fd, const char *path, int flags, unsigned mask, struct statx *st)
{
    look();
    return (int)syscall(SYS_statx, fd, path, flags, mask, st);
}

__attribute__((visibility("default"))) int unlinkat(int fd, const char *path, int flags)
{
    look();
    if (no_image_goes && strstr(path, ".qcow2")) {
        errno = EROFS;
        return -1;
    }
    return (int)syscall(SYS_unlinkat, fd, path, flags);
}

__attribute__((visibility("default"))) int lstat(const char *path, struct stat *st)
{
    look();
    return fstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

__attribute__((visibility("default"))) void sync(void)
{
    if (synced)
        synced();
}

// ---- the kit -------------------------------------------------------------------------------------------------------

static void adopt_web1(struct ak *ak)
{
    ak_web1(ak);
    kit_ok(ak_adopt(ak), ak->err);
}

// The command runs in the folder right before qemu-img converts, and `after` right after it.
static void wrap_qemu_img(struct ak *ak, const char *before, const char *after)
{
    RP_AUTO_FREE char *path = kit_path("%s/bin:%s", ak->folder, getenv("PATH")),
                      *file = kit_path("%s/bin/qemu-img", ak->folder);
    RP_AUTO_FREE char *real = ak_output(ak, "mkdir bin; printf %%s \"$(command -v qemu-img)\"");
    RP_AUTO_FREE char *script = kit_path(
        "#!/bin/sh\ntest \"$1\" = convert || exec %s \"$@\"\n(cd '%s'; %s)\n%s \"$@\"; status=$?\n"
        "(cd '%s'; %s)\nexit $status\n",
        real, ak->folder, before, real, ak->folder, after);
    kit_write_file(file, script, strlen(script));
    ak_shell(ak, "chmod +x bin/qemu-img");
    setenv("PATH", path, 1);
}

static void unwrap_qemu_img(void)
{
    RP_AUTO_FREE char *rest = rp_xstrdup(strchr(getenv("PATH"), ':') + 1);
    setenv("PATH", rest, 1);
}

// In a mount namespace of this process's own, so that nothing is left whatever fails. False: only root may, and not
// everywhere.
static bool try_mount(struct ak *ak, const char *command)
{
    RP_AUTO_FREE char *why = geteuid() ? rp_xstrdup("not root") : ak_output(ak, "%s 2>&1", command);
    return !*why;
}

static char *facts(struct ak *ak, const char *path) { return ak_output(ak, "stat -c '%%U %%a' '%s'", path); }

// ---- who may read it -----------------------------------------------------------------------------------------------

static void an_image_is_nobody_elses_while_it_is_written_and_as_its_source_then(void **state)
{
    struct ak *ak = *state;
    mode_t mask = umask(022);
    const char *owner = geteuid() ? "" : "chown nobody images/root.raw images/data.qcow2;";
    ak_web1(ak);
    ak_shell(ak, "%s chmod 640 images/root.raw; chmod 600 images/data.qcow2; chmod 600 images/old.vhdx", owner);
    RP_AUTO_FREE char *root = facts(ak, "images/root.raw"), *data = facts(ak, "images/data.qcow2"),
                      *old = facts(ak, "images/old.vhdx");
    kit_ok(ak_adopt(ak), ak->err);
    wrap_qemu_img(ak, "stat -c %a images/.*.part >>modes", "stat -c %a images/.*.part >>modes");
    kit_ok(ak_release(ak, "qcow2"), ak->err);
    unwrap_qemu_img();
    // Of all that there were: of those that are whole already, what their sources have.
    assert_same(rp_xstrdup("600\n640\n"), ak_output(ak, "sort -u modes"));
    assert_same(rp_xstrdup("600\n"), ak_output(ak, "head -2 modes | sort -u"));
    assert_same(rp_xstrdup(root), facts(ak, "images/root.qcow2"));
    assert_same(rp_xstrdup(data), facts(ak, "images/data.qcow2"));
    assert_same(rp_xstrdup(old), facts(ak, "images/old.qcow2"));
    umask(mask);
}

static void a_raw_image_is_nobody_elses_while_it_is_written_and_as_its_source_then(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    ak_shell(ak, "chmod 640 images/data.qcow2; chmod 4755 images/root.raw");
    RP_AUTO_FREE char *data = facts(ak, "images/data.qcow2");
    kit_ok(ak_adopt(ak), ak->err);
    assert_int_equal(ak_release_while(ak, "raw", "stat -c %a images/.*.part >modes"), 0);
    assert_same(rp_xstrdup("600\n"), ak_file(ak, "modes"));
    assert_same(rp_xstrdup(data), facts(ak, "images/data.raw"));
    assert_same(rp_xstrdup("755\n"), ak_output(ak, "stat -c %%a images/root.raw")); // an image is no program
}

static void an_access_control_list_comes_along(void **state)
{
    struct ak *ak = *state;
    ak_web1(ak);
    RP_AUTO_FREE char *set = ak_output(ak, "python3 -c \"import os, struct; os.setxattr('images/root.raw', "
                                           "'system.posix_acl_access', struct.pack('<I', 2) + "
                                           "b''.join(struct.pack('<HHI', *e) for e in [(1, 6, 2**32 - 1), (2, 6, "
                                           "64055), (4, 0, 2**32 - 1), (16, 6, 2**32 - 1), "
                                           "(32, 0, 2**32 - 1)]))\" 2>&1");
    if (*set)
        skip(); // no such lists on this file system
    kit_ok(ak_adopt(ak), ak->err);
    kit_ok(ak_release(ak, "qcow2"), ak->err);
    ak_shell(ak, "python3 -c \"import os; n = 'system.posix_acl_access'; assert os.getxattr('images/root.raw', n) == "
                 "os.getxattr('images/root.qcow2', n)\"");
}

// ---- links, and other things in the way ----------------------------------------------------------------------------

#define EXCHANGE "for part in images/.*.part; do mv \"$part\" taken; ln -s ../victim \"$part\"; done"

static void an_image_that_is_exchanged_for_a_link_while_it_is_written_touches_nothing_else(void **state)
{
    static const char *const formats[] = {"original", "qcow2"};
    struct ak *ak = *state;
    ak_web1(ak);
    ak_shell(ak, "%s chmod 666 images/*; printf precious >victim; chmod 600 victim",
             geteuid() ? "" : "chown nobody images/*;");
    kit_ok(ak_adopt(ak), ak->err);
    RP_AUTO_FREE char *victim = facts(ak, "victim"), *root = ak_sum(ak, NULL, "images/root.vhdx"),
                      *attached = ak_kept(ak);
    for (size_t i = 0; i < 2; i++) {
        rp_error_clear(&ak->err);
        if (i) {
            wrap_qemu_img(ak, EXCHANGE, "true");
            assert_int_equal(ak_release(ak, formats[i]), -1);
            unwrap_qemu_img();
        } else {
            assert_int_equal(ak_release_while(ak, formats[i], EXCHANGE), -1);
        }
        if (ak->err.code != RP_ERR_NOT_FOUND || !strstr(ak->err.text, "moved it away"))
            fail_msg("%s: %s", formats[i], ak->err.text);
        assert_same(rp_xstrdup("precious"), ak_file(ak, "victim"));
        assert_same(rp_xstrdup(victim), facts(ak, "victim"));
        assert_true(ak_has_vm(ak));
        assert_same(rp_xstrdup(attached), ak_kept(ak));
        assert_same(rp_xstrdup(root), ak_sum(ak, NULL, "images/root.vhdx"));
        assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
        ak_shell(ak, "rm taken");
    }
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void a_folder_that_has_become_a_link_is_not_followed(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    ak_shell(ak, "mv images elsewhere; ln -s elsewhere images");
    RP_AUTO_FREE char *before = ak_output(ak, "find elsewhere/ -type f -exec sha256sum {} + | sort");
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    kit_fails(rp_host_local_release_plan(ak->host, AK_UUID, NULL, &plan, &ak->err), ak->err, RP_ERR_PERMISSION);
    kit_fails(rp_host_local_release_plan(ak->host, AK_UUID, "raw", &plan, &ak->err), ak->err, RP_ERR_PERMISSION);
    assert_same(rp_xstrdup(before), ak_output(ak, "find elsewhere/ -type f -exec sha256sum {} + | sort"));
    ak_shell(ak, "rm images; mv elsewhere images");
    // Only after the decision: nothing is renamed or deleted there either.
    ak_shell(ak, "echo 'busy no answer' >hv/fail/define");
    kit_fails(ak_release(ak, "qcow2"), ak->err, RP_ERR_BUSY);
    ak_shell(ak, "mv images elsewhere; ln -s elsewhere images");
    RP_AUTO_FREE char *decided = ak_output(ak, "find elsewhere/ -type f | sort");
    ak_open(ak);
    assert_same(rp_xstrdup(decided), ak_output(ak, "find elsewhere/ -type f | sort"));
    ak_shell(ak, "rm images; mv elsewhere images");
    ak_open(ak);
    assert_false(ak_has_vm(ak));
    assert_same(rp_xstrdup("data.qcow2\nold.qcow2\nroot.qcow2\nroot.raw\n"), ak_output(ak, "ls -A images"));
}

static void a_link_at_the_place_of_an_image_is_not_replaced(void **state)
{
    static const char *const links[] = {"mv images/root.raw elsewhere.raw; ln -s ../elsewhere.raw images/root.raw",
                                        "mv images/root.raw elsewhere.raw; ln -s ../nowhere images/root.raw"};
    struct ak *ak = *state;
    adopt_web1(ak);
    for (size_t i = 0; i < 2; i++) {
        ak_shell(ak, "%s", links[i]);
        kit_fails(ak_release(ak, NULL), ak->err, RP_ERR_STATE);
        ak_shell(ak, "test -L images/root.raw; rm images/root.raw; mv elsewhere.raw images/root.raw");
    }
    kit_ok(ak_release(ak, NULL), ak->err);
}

// The rename would fail, and only when all has been decided.
static void an_image_that_is_a_mount_of_its_own_is_not_replaced(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    if (!try_mount(ak, "mount --bind images/root.raw images/root.raw"))
        skip();
    rp_error_clear(&ak->err);
    int failed = ak_release(ak, NULL);
    bool vm = failed && ak->err.code == RP_ERR_STATE && ak_has_vm(ak);
    ak_shell(ak, "umount images/root.raw");
    assert_true(vm);
}

static void file_systems_that_cannot_rename_without_replacing_have_other_ways(void **state)
{
    struct ak *ak = *state;
    for (int i = 0; i < 2; i++) {
        ak_shell(ak, "rm -rf images; mkdir images");
        adopt_web1(ak);
        RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx");
        no_exclusive_rename = true;
        no_links = i;
        int failed = ak_release(ak, "qcow2");
        RP_AUTO_FREE char *one = kit_path("%s/images/root.raw", ak->folder),
                          *two = kit_path("%s/images/data.qcow2", ak->folder);
        struct rp_error err = {0};
        assert_int_equal(rp_adopt_rename(one, two, &err), -1);
        no_exclusive_rename = no_links = false;
        kit_ok(failed, ak->err);
        assert_int_equal(err.code, RP_ERR_EXISTS);
        assert_same(rp_xstrdup(root), ak_sum(ak, "qcow2", "images/root.qcow2"));
        assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
    }
}

static void an_image_whose_name_is_as_long_as_names_can_be_is_released(void **state)
{
    struct ak *ak = *state;
    char name[246];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    RP_AUTO_FREE char *path = kit_path("images/%s.raw", name), *disk = ak_disk(ak, "raw", path, "vda");
    ak_shell(ak, "head -c 1M /dev/urandom >%s", path);
    ak_define(ak, disk);
    RP_AUTO_FREE char *sum = ak_sum(ak, "raw", path);
    kit_ok(ak_adopt(ak), ak->err);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(sum), ak_sum(ak, "raw", path));
}

// ---- what fails ----------------------------------------------------------------------------------------------------

static void images_that_cannot_be_written_leave_the_vm_as_it_was(void **state)
{
    static const char *const formats[] = {"raw", "qcow2"};
    struct ak *ak = *state;
    struct rlimit old;
    adopt_web1(ak);
    RP_AUTO_FREE char *attached = ak_kept(ak), *before = ak_output(ak, "sha256sum images/*");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < 2; i++) {
        rp_error_clear(&ak->err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RP_MIB, old.rlim_max}), 0);
        int failed = ak_release(ak, formats[i]);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(failed, -1);
        assert_true(ak_has_vm(ak));
        assert_same(rp_xstrdup(attached), ak_kept(ak));
        assert_same(rp_xstrdup(before), ak_output(ak, "sha256sum images/*"));
        assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
    }
    signal(SIGXFSZ, SIG_DFL);
    kit_ok(ak_release(ak, NULL), ak->err);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

#define FILL "dd if=/dev/zero of=images/fill bs=64k 2>/dev/null || true"

static void a_file_system_that_is_full_by_then_leaves_the_vm_as_it_was(void **state)
{
    static const char *const formats[] = {"raw", "qcow2"};
    struct ak *ak = *state;
    if (!try_mount(ak, "mount -t tmpfs -o size=64m tmpfs images"))
        skip();
    adopt_web1(ak);
    RP_AUTO_FREE char *attached = ak_kept(ak), *before = ak_output(ak, "sha256sum images/*");
    enum rp_code codes[2];
    for (size_t i = 0; i < 2; i++) {
        rp_error_clear(&ak->err);
        if (i)
            wrap_qemu_img(ak, FILL, "true");
        assert_int_equal(i ? ak_release(ak, formats[i]) : ak_release_while(ak, formats[i], FILL), -1);
        if (i)
            unwrap_qemu_img();
        codes[i] = ak->err.code;
        ak_shell(ak, "rm images/fill");
        assert_same(rp_xstrdup(before), ak_output(ak, "sha256sum images/*"));
        assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
        assert_true(ak_has_vm(ak));
        assert_same(rp_xstrdup(attached), ak_kept(ak));
    }
    kit_ok(ak_release(ak, NULL), ak->err);
    ak_shell(ak, "umount images");
    assert_int_equal(codes[0], RP_ERR_NO_SPACE);
    assert_int_equal(codes[1], RP_ERR_NO_SPACE);
    assert_same(rp_xstrdup(ak->xml), ak_kept(ak));
}

static void a_folder_that_is_read_only_by_then_refuses_before_anything_is_done(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    RP_AUTO_FREE char *before = ak_tree(ak);
    if (!try_mount(ak, "mount --bind images images 2>&1 && mount -o remount,ro,bind images"))
        skip();
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    rp_error_clear(&ak->err);
    int failed = rp_host_local_release_plan(ak->host, AK_UUID, "qcow2", &plan, &ak->err);
    ak_shell(ak, "umount images");
    assert_int_equal(failed, -1);
    assert_non_null(strstr(ak->err.text, "Read-only"));
    assert_same(rp_xstrdup(before), ak_tree(ak));
}

static struct {
    struct ak *ak;
    bool defined, whole;
} at_sync;

static void look_at_sync(void)
{
    RP_AUTO_FREE char *now = ak_kept(at_sync.ak);
    at_sync.defined = !strcmp(now, at_sync.ak->xml);
    at_sync.whole = true;
    ak_shell(at_sync.ak, "ls images/root.vhdx images/data.vhdx images/root.vhdx.rct");
}

// A definition of before that a power cut brings back names them.
static void no_disk_file_goes_before_the_definition_is_durable(void **state)
{
    struct ak *ak = at_sync.ak = *state;
    adopt_web1(ak);
    ak_write(ak, 0, RP_MIB, 65536, 84);
    synced = look_at_sync;
    int failed = ak_release(ak, NULL);
    synced = NULL;
    kit_ok(failed, ak->err);
    assert_true(at_sync.defined && at_sync.whole);
}

// A release that was not to be has left what could not be removed; somebody has a file there since.
static void what_stays_of_a_release_that_was_refused_takes_no_name_of_somebody_else(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    ak_shell(ak, "echo 'invalid the schema says no' >hv/fail/define");
    no_image_goes = true;
    int failed = ak_release(ak, "qcow2");
    no_image_goes = false;
    assert_int_equal(failed, -1);
    assert_int_equal(ak->err.code, RP_ERR_INVALID);
    ak_shell(ak, "rm -f images/root.qcow2; printf precious >images/root.qcow2");
    ak_open(ak);
    ak_shell(ak, "grep -q precious images/root.qcow2");
    assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
    ak_shell(ak, "! test -e images/old.qcow2; rm images/root.qcow2");
    kit_ok(ak_release(ak, "qcow2"), ak->err);
}

static void what_stays_of_a_release_is_waited_for_where_a_file_system_is_not_mounted(void **state)
{
    struct ak *ak = *state;
    adopt_web1(ak);
    ak_shell(ak, "echo 'invalid the schema says no' >hv/fail/define");
    no_image_goes = true;
    int failed = ak_release(ak, "qcow2");
    no_image_goes = false;
    assert_int_equal(failed, -1);
    ak_shell(ak, "ls images/.*.part && mv images mounted");
    ak_open(ak); // without a folder to mount it on, and with one
    ak_shell(ak, "mkdir images");
    ak_open(ak);
    ak_shell(ak, "rmdir images && mv mounted images && ls images/.*.part");
    ak_open(ak);
    assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
    ak_shell(ak, "python3 -c \"import sqlite3; assert sqlite3.connect('host/host.db').execute('SELECT count(*) FROM "
                 "export').fetchone() == (0,)\"");
}

// ---- what the disk files are ---------------------------------------------------------------------------------------

static void a_differencing_disk_is_released_as_raw_and_as_nothing_that_qemu_would_have_to_read(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE char *base = kit_path("%s/images/base.vhdx", ak->folder),
                      *child = kit_path("%s/images/child.vhdx", ak->folder),
                      *disk = ak_disk(ak, "vhdx", "images/child.vhdx", "vda"),
                      *raw = kit_path("%s/base.raw", ak->folder);
    kit_raw(raw, AK_SIZE, 5);
    kit_ok(rp_convert_raw_to_vhdx(rp_fs_posix(), raw, base, NULL, NULL, NULL, &ak->err), ak->err);
    struct rp_vhdx *parent = rp_vhdx_open(rp_fs_posix(), base, RP_VHDX_READ, NULL, &ak->err);
    kit_ok(!parent, ak->err);
    struct rp_vhdx_create create = {.size = AK_SIZE, .disk_id = rp_vhdx_info(parent)->disk_id, .parent_path = base,
                                    .parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid};
    rp_vhdx_abandon(parent);
    kit_ok(rp_vhdx_create(rp_fs_posix(), child, &create, &ak->err), ak->err);
    ak_define(ak, disk);
    kit_ok(ak_adopt(ak), ak->err);
    ak_write(ak, 0, RP_MIB, 65536, 80);
    RP_AUTO_FREE char *sum = ak_sum(ak, NULL, "images/child.vhdx"), *before = ak_tree(ak);
    static const char *const refused[] = {"original", "vhdx", "qcow2"};
    for (size_t i = 0; i < 3; i++) {
        RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
        kit_fails(rp_host_local_release_plan(ak->host, AK_UUID, refused[i], &plan, &ak->err), ak->err,
                  RP_ERR_UNSUPPORTED);
        assert_same(rp_xstrdup(before), ak_tree(ak));
    }
    kit_ok(ak_release(ak, "raw"), ak->err);
    assert_same(rp_xstrdup(sum), ak_sum(ak, "raw", "images/child.raw"));
    assert_same(rp_xstrdup("1\n"), ak_output(ak, "ls images/base.vhdx | wc -l"));
}

static void a_log_that_a_power_cut_has_left_is_played_back_before_qemu_reads(void **state)
{
    struct ak *ak = *state;
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(65536);
    kit_fill(data, 65536, 81);
    adopt_web1(ak);
    RP_AUTO_FREE char *directory = ak_output(ak, "printf %%s \"$PWD\"/host/vms/*");
    // Shared memory goes with the power.
    struct rp_engine *engine = rp_engine_open(rp_fs_posix(), directory, NULL, &ak->err);
    kit_ok(!engine, ak->err);
    for (size_t i = 0; i < 3; i++)
        kit_ok(rp_engine_write(engine, i, data, 65536, 3 * RP_MIB, true, &ak->err), ak->err);
    rp_engine_abandon(engine);
    RP_AUTO_FREE char *refused = ak_output(ak, "qemu-img convert -f vhdx -O raw images/root.vhdx x.raw; rm -f x.raw");
    assert_non_null(strstr(refused, "replay")); // or there was no log
    RP_AUTO_FREE char *root = ak_sum(ak, NULL, "images/root.vhdx"), *old = ak_sum(ak, NULL, "images/old.vhdx");
    kit_ok(ak_release(ak, "qcow2"), ak->err);
    assert_same(rp_xstrdup(root), ak_sum(ak, "qcow2", "images/root.qcow2"));
    assert_same(rp_xstrdup(old), ak_sum(ak, "qcow2", "images/old.qcow2"));
}

// ---- nobody waits --------------------------------------------------------------------------------------------------

static struct {
    struct ak *ak;
    int times;
} other;

// Somebody else changes the host, at once or not at all.
static void change_something(void)
{
    looked = NULL;
    sqlite3 *db;
    RP_AUTO_FREE char *path = kit_path("%s/host/host.db", other.ak->folder);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    int rc = sqlite3_exec(db, "UPDATE vm SET problem = problem", NULL, NULL, NULL);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(rc, SQLITE_OK);
    other.times++;
    looked = change_something;
}

static void others_change_the_host_while_a_release_looks_at_files(void **state)
{
    struct ak *ak = *state;
    other.ak = ak;
    other.times = 0;
    adopt_web1(ak);
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    looked = change_something;
    int failed = rp_host_local_release_plan(ak->host, AK_UUID, NULL, &plan, &ak->err);
    looked = NULL;
    kit_ok(failed, ak->err);
    assert_true(other.times > 0);
}

static void others_change_the_host_while_a_release_is_decided_and_carried_through(void **state)
{
    static const char *const formats[] = {"original", "qcow2"};
    struct ak *ak = *state;
    other.ak = ak;
    for (int i = 0; i < 4; i++) {
        bool refused = i % 2;
        adopt_web1(ak);
        if (refused)
            ak_shell(ak, "echo 'invalid the schema says no' >hv/fail/define");
        other.times = 0;
        looked = change_something;
        int failed = ak_release(ak, formats[i / 2]);
        looked = NULL;
        assert_int_equal(failed, refused ? -1 : 0);
        assert_int_equal(ak->err.code, refused ? RP_ERR_INVALID : RP_OK);
        assert_true(other.times > 0);
        if (refused)
            kit_ok(ak_release(ak, formats[i / 2]), ak->err);
        ak_shell(ak, "rm images/*");
    }
}

static int cancel(void *context, uint64_t done, uint64_t total)
{
    (void)context, (void)done, (void)total;
    looked = change_something; // while what was made is removed
    return 1;
}

static void others_change_the_host_while_what_was_made_is_removed(void **state)
{
    struct ak *ak = *state;
    other.ak = ak;
    other.times = 0;
    adopt_web1(ak);
    ak->host->progress = cancel;
    int failed = ak_release(ak, NULL);
    looked = NULL;
    ak->host->progress = NULL;
    assert_int_equal(failed, -1);
    assert_int_equal(ak->err.code, RP_ERR_CANCELLED);
    assert_true(other.times > 0);
    assert_same(rp_xstrdup(""), ak_output(ak, PARTS));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, ak_setup, ak_teardown)
    const struct CMUnitTest release_files[] = {
        TEST(an_image_is_nobody_elses_while_it_is_written_and_as_its_source_then),
        TEST(a_raw_image_is_nobody_elses_while_it_is_written_and_as_its_source_then),
        TEST(an_access_control_list_comes_along),
        TEST(an_image_that_is_exchanged_for_a_link_while_it_is_written_touches_nothing_else),
        TEST(a_folder_that_has_become_a_link_is_not_followed),
        TEST(a_link_at_the_place_of_an_image_is_not_replaced),
        TEST(an_image_that_is_a_mount_of_its_own_is_not_replaced),
        TEST(file_systems_that_cannot_rename_without_replacing_have_other_ways),
        TEST(an_image_whose_name_is_as_long_as_names_can_be_is_released),
        TEST(images_that_cannot_be_written_leave_the_vm_as_it_was),
        TEST(a_file_system_that_is_full_by_then_leaves_the_vm_as_it_was),
        TEST(a_folder_that_is_read_only_by_then_refuses_before_anything_is_done),
        TEST(no_disk_file_goes_before_the_definition_is_durable),
        TEST(what_stays_of_a_release_that_was_refused_takes_no_name_of_somebody_else),
        TEST(what_stays_of_a_release_is_waited_for_where_a_file_system_is_not_mounted),
        TEST(a_differencing_disk_is_released_as_raw_and_as_nothing_that_qemu_would_have_to_read),
        TEST(a_log_that_a_power_cut_has_left_is_played_back_before_qemu_reads),
        TEST(others_change_the_host_while_a_release_looks_at_files),
        TEST(others_change_the_host_while_a_release_is_decided_and_carried_through),
        TEST(others_change_the_host_while_what_was_made_is_removed),
    };
    if (!geteuid() && !unshare(CLONE_NEWNS))
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return cmocka_run_group_tests(release_files, NULL, NULL);
}
