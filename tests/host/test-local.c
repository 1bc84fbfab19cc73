// What the in-process host promises beyond the vtable: its database, its folders, its files.
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libnbd.h>

#include "diskservice/record.h"
#include "diskservice/service.h"
#include "host-kit.h"
#include "host/local.h"

#define DISK ((size_t)2 * 1024 * 1024)

struct world {
    char *host, *files;
    struct rp_host_connection *c;
    struct rp_error err;
};

static int setup(void **state)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    w->host = kit_folder();
    w->files = kit_folder();
    w->c = rp_host_local_open(w->host, &w->err);
    assert_non_null(w->c);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    struct rp_vms vms = {0};
    if (w->c)
        w->c->ops->list_vms(w->c, &vms, NULL);
    for (size_t i = 0; i < vms.count; i++) {
        RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, vms.items[i].id);
        rp_service_stop(directory, NULL);
    }
    rp_vms_clear(&vms);
    rp_host_close(w->c);
    kit_remove_folder(w->host);
    kit_remove_folder(w->files);
    free(w);
    return 0;
}

static char job[RP_HOST_ID], result[RP_HOST_ID];

static int define_one(struct world *w, const char *name, const char *disk, char id[RP_HOST_ID])
{
    return w->c->ops->define_system(w->c, name, &disk, disk ? 1 : 0, NULL, NULL, job, id, &w->err);
}

static void define_raw(struct world *w, const char *name, char id[RP_HOST_ID])
{
    RP_AUTO_FREE char *raw = kit_path("%s/%s.raw", w->files, name);
    kit_raw(raw, DISK, 1);
    kit_ok(define_one(w, name, raw, id), w->err);
}

static void set_state(struct world *w, const char *id, enum rp_vm_state vm_state)
{
    kit_ok(w->c->ops->request_state(w->c, id, vm_state, job, result, &w->err), w->err);
}

static void reopen(struct world *w)
{
    rp_host_close(w->c);
    w->c = rp_host_local_open(w->host, &w->err);
    if (!w->c)
        fail_msg("%s", w->err.text);
}

static void run_sql(struct world *w, const char *sql)
{
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host);
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why))
        fail_msg("%s: %s", sql, why);
    sqlite3_close(db);
}

static bool exists(const char *path)
{
    struct stat st;
    return !lstat(path, &st);
}

// ---- the folder and the database ------------------------------------------------------------------------------------

static void a_missing_folder_is_made(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *deep = kit_path("%s/a/b/c", w->files), *db = kit_path("%s/host.db", deep);
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *c = rp_host_local_open(deep, &w->err);
    kit_ok(!c, w->err);
    assert_true(exists(db));
}

static void a_folder_that_cannot_be_one_is_refused(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *file = kit_path("%s/file", w->files);
    kit_write_file(file, "x", 1);
    char lengthy[200];
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = 0;
    RP_AUTO_FREE char *long_path = kit_path("%s/%s", w->files, lengthy), *bad = kit_path("%s/\xff\xfe", w->files);
    kit_fails(!rp_host_local_open(file, &w->err), w->err, RP_ERR_INVALID);
    kit_fails(!rp_host_local_open("", &w->err), w->err, RP_ERR_INVALID);
    kit_fails(!rp_host_local_open(long_path, &w->err), w->err, RP_ERR_INVALID);
    kit_fails(!rp_host_local_open(bad, &w->err), w->err, RP_ERR_INVALID);
}

static void a_damaged_or_foreign_database_is_refused_and_left_alone(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    define_raw(w, "web1", id);
    rp_host_close(w->c);
    w->c = NULL;
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host), *good = kit_path("%s/good.db", w->files);
    assert_int_equal(rename(path, good), 0);

    static const char text[] = "this is a text file, not a database at all, and a long one, so that a header would fit in it; "
                               "an administrator may have put it here by mistake, and we say so instead of writing into it.\n";
    kit_write_file(path, text, sizeof text - 1);
    kit_fails(!rp_host_local_open(w->host, &w->err), w->err, RP_ERR_CORRUPT);
    RP_CLEANUP(rp_buf_clear) struct rp_buf after = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), path, 1 << 20, &after, &w->err), w->err);
    assert_int_equal(after.size, sizeof text - 1);
    assert_memory_equal(after.data, text, sizeof text - 1);

    unlink(path);
    run_sql(w, "CREATE TABLE other (a); PRAGMA journal_mode=WAL;");
    kit_fails(!rp_host_local_open(w->host, &w->err), w->err, RP_ERR_CORRUPT);
    unlink(path);
    run_sql(w, "CREATE TABLE other (a); PRAGMA application_id=1380993073; PRAGMA user_version=99;");
    kit_fails(!rp_host_local_open(w->host, &w->err), w->err, RP_ERR_UNSUPPORTED);

    // every page but the first overwritten, and the file cut short
    RP_CLEANUP(rp_buf_clear) struct rp_buf bytes = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), good, 1 << 24, &bytes, &w->err), w->err);
    assert_true(bytes.size > 8192);
    RP_AUTO_FREE uint8_t *damaged = rp_xmalloc(bytes.size);
    memcpy(damaged, bytes.data, bytes.size);
    memset(damaged + 4096, 0xa5, bytes.size - 4096);
    kit_write_file(path, damaged, bytes.size);
    kit_fails(!rp_host_local_open(w->host, &w->err), w->err, RP_ERR_CORRUPT);
    kit_write_file(path, bytes.data, bytes.size / 2);
    kit_fails(!rp_host_local_open(w->host, &w->err), w->err, RP_ERR_CORRUPT);

    assert_int_equal(rename(good, path), 0);
    reopen(w);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(w->c->ops->find_vm(w->c, "web1", &vm, &w->err), w->err);
}

static void random_damage_to_the_database_never_crashes(void **state)
{
    struct world *w = *state;
    uint64_t seed = kit_seed();
    print_message("# RP_TEST_SEED=%llu\n", (unsigned long long)seed);
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    define_raw(w, "web1", id);
    kit_ok(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "t", job, snap, &w->err), w->err);
    rp_host_close(w->c);
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host);
    RP_CLEANUP(rp_buf_clear) struct rp_buf bytes = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), path, 1 << 24, &bytes, &w->err), w->err);
    RP_AUTO_FREE uint8_t *copy = rp_xmalloc(bytes.size);
    for (int round = 0; round < 60; round++) {
        memcpy(copy, bytes.data, bytes.size);
        for (int i = 0; i < 1 + round % 8; i++)
            copy[kit_random(&seed) % bytes.size] ^= (uint8_t)(1 + kit_random(&seed) % 255);
        kit_write_file(path, copy, bytes.size);
        rp_error_clear(&w->err);
        RP_CLEANUP(rp_host_close_p) struct rp_host_connection *c = rp_host_local_open(w->host, &w->err);
        if (!c) {
            assert_string_not_equal(w->err.text, "");
            continue;
        }
        RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0}, t = {0};
        RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
        c->ops->list_vms(c, &vms, NULL);
        c->ops->vm_settings(c, id, &s, NULL);
        c->ops->list_snapshots(c, id, &snapshots, NULL);
        c->ops->snapshot_settings(c, snap, &t, NULL);
    }
    kit_write_file(path, bytes.data, bytes.size);
    w->c = NULL;
    w->err = (struct rp_error){0};
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
}

// ---- names and paths ------------------------------------------------------------------------------------------------

static void names_that_cannot_be_shown_are_refused(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], longest[400];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    const char *names[] = {"", "two\nlines", "bell\a", "esc\x1b[31m", "\xff\xfe", "c1 \xc2\x9b", "del\x7f", longest,
                           "12345678-1234-1234-1234-123456789abc", "{12345678-1234-1234-1234-123456789abc}"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        kit_fails(define_one(w, names[i], NULL, id), w->err, RP_ERR_INVALID);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, 0);
}

static void a_host_in_a_folder_of_odd_name_serves_its_disks(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *odd = kit_path("%s/a b%%41&c=d#'\"+Ü", w->files), *raw = kit_path("%s/x.raw", w->files);
    kit_raw(raw, DISK, 3);
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *c = rp_host_local_open(odd, &w->err);
    kit_ok(!c, w->err);
    char id[RP_HOST_ID];
    const char *disk = raw;
    kit_ok(c->ops->define_system(c, "web1", &disk, 1, NULL, NULL, job, id, &w->err), w->err);
    kit_ok(c->ops->request_state(c, id, RP_VM_RUNNING, job, result, &w->err), w->err);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    int rc = c->ops->vm_settings(c, id, &s, &w->err);
    uint8_t data[512], expected[512];
    if (!rc)
        kit_nbd_read(s.disks[0].nbd_uri, data, sizeof data, 0);
    c->ops->request_state(c, id, RP_VM_OFF, job, result, NULL);
    kit_ok(rc, w->err);
    kit_fill(expected, sizeof expected, 3);
    assert_memory_equal(data, expected, sizeof data);
}

static void files_that_cannot_be_disks_are_refused(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    static const struct {
        const char *name, *head;
        size_t size, at;
        enum rp_code code;
    } cases[] = {
        {"a.qcow2", "QFI\xfb", 4, 0, RP_ERR_UNSUPPORTED},   {"a.vmdk", "KDMV", 4, 0, RP_ERR_UNSUPPORTED},
        {"a.vhd", "conectix", 8, 65536 - 512, RP_ERR_UNSUPPORTED}, {"a.vdi", "\x7f\x10\xda\xbe", 4, 64, RP_ERR_UNSUPPORTED},
        {"lost.vhdx", "x", 1, 0, RP_ERR_CORRUPT},           {"cut.raw", "vhdxfile", 8, 0, RP_ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RP_AUTO_FREE char *path = kit_path("%s/%s", w->files, cases[i].name);
        uint8_t *data = rp_xcalloc(1, 65536);
        memcpy(data + cases[i].at, cases[i].head, cases[i].size);
        kit_write_file(path, data, 65536);
        free(data);
        kit_fails(define_one(w, "x", path, id), w->err, cases[i].code);
    }
    RP_AUTO_FREE char *empty = kit_path("%s/empty.raw", w->files), *pipe = kit_path("%s/pipe", w->files),
                      *golden = kit_path("%s/golden.vhdx", w->files), *child = kit_path("%s/child.vhdx", w->files),
                      *locked = kit_path("%s/locked.vhdx", w->files);
    kit_write_file(empty, "", 0);
    kit_fails(define_one(w, "x", empty, id), w->err, RP_ERR_INVALID);
    kit_fails(define_one(w, "x", w->files, id), w->err, RP_ERR_INVALID);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    kit_fails(define_one(w, "x", pipe, id), w->err, RP_ERR_INVALID);

    kit_vhdx(golden, DISK);
    chmod(golden, 0444);
    kit_fails(define_one(w, "x", golden, id), w->err, RP_ERR_PERMISSION);
    chmod(golden, 0644);

    kit_vhdx(locked, DISK);
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *user = rp_vhdx_open(rp_fs_posix(), locked, RP_VHDX_WRITE, NULL, &w->err);
    kit_ok(!user, w->err);
    kit_fails(define_one(w, "x", locked, id), w->err, RP_ERR_BUSY);

    struct rp_vhdx *parent = rp_vhdx_open(rp_fs_posix(), golden, RP_VHDX_READ, NULL, &w->err);
    kit_ok(!parent, w->err);
    struct rp_vhdx_create create = {.size = DISK, .disk_id = rp_vhdx_info(parent)->disk_id, .parent_path = golden,
                                    .parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid};
    kit_ok(rp_vhdx_create(rp_fs_posix(), child, &create, &w->err), w->err);
    rp_vhdx_abandon(parent);
    RP_AUTO_FREE char *away = kit_path("%s/away", w->files);
    rename(golden, away);
    kit_fails(define_one(w, "x", child, id), w->err, RP_ERR_PARENT_NOT_FOUND);
    rename(away, golden);
    kit_ok(define_one(w, "x", child, id), w->err);
    char other[RP_HOST_ID];
    kit_fails(define_one(w, "y", golden, other), w->err, RP_ERR_EXISTS); // the parent of somebody's disk
    kit_ok(w->c->ops->destroy_system(w->c, id, false, job, result, &w->err), w->err);
    kit_ok(define_one(w, "y", golden, id), w->err);
    kit_fails(define_one(w, "x", child, other), w->err, RP_ERR_BUSY); // and the other way round
    RP_AUTO_FREE char *vms = kit_path("%s/vms/%s", w->host, id);
    assert_true(exists(vms));
}

static void a_copy_of_a_disk_is_not_taken_for_a_second_one(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *a = kit_path("%s/a.vhdx", w->files), *b = kit_path("%s/b.vhdx", w->files);
    kit_vhdx(a, DISK);
    RP_CLEANUP(rp_buf_clear) struct rp_buf bytes = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), a, 1 << 24, &bytes, &w->err), w->err);
    kit_write_file(b, bytes.data, bytes.size);
    const char *both[] = {a, b};
    kit_fails(w->c->ops->define_system(w->c, "x", both, 2, NULL, NULL, job, result, &w->err), w->err, RP_ERR_EXISTS);
}

// ---- what stays and what goes ---------------------------------------------------------------------------------------

static void a_deleted_vm_leaves_its_disk_files_unless_asked(void **state)
{
    struct world *w = *state;
    for (int with_disks = 0; with_disks < 2; with_disks++) {
        char id[RP_HOST_ID], snap[RP_HOST_ID];
        define_raw(w, "web1", id);
        set_state(w, id, RP_VM_RUNNING);
        kit_ok(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "t", job, snap, &w->err), w->err);
        set_state(w, id, RP_VM_OFF);
        kit_ok(w->c->ops->destroy_system(w->c, id, with_disks, job, result, &w->err), w->err);
        RP_AUTO_FREE char *folder = kit_path("%s/vms/%s", w->host, id), *disk = kit_path("%s/disk0.vhdx", folder),
                          *record = kit_path("%s/" RP_RECORD_NAME, folder);
        assert_int_equal(exists(folder), !with_disks);
        assert_int_equal(exists(disk), !with_disks);
        assert_false(exists(record));
        if (!with_disks) {
            RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK), *model = rp_xmalloc(DISK);
            kit_chain_read(disk, data, DISK);
            kit_fill(model, DISK, 1);
            assert_memory_equal(data, model, DISK);
        }
    }
}

static void a_folder_with_another_vms_disk_is_not_deleted(void **state)
{
    struct world *w = *state;
    char a[RP_HOST_ID], b[RP_HOST_ID];
    RP_AUTO_FREE char *raw = kit_path("%s/second.raw", w->files);
    kit_raw(raw, DISK, 2);
    define_raw(w, "a", a);
    kit_ok(w->c->ops->add_disk(w->c, a, raw, job, result, &w->err), w->err);
    kit_ok(w->c->ops->remove_disk(w->c, a, 1, job, result, &w->err), w->err);
    RP_AUTO_FREE char *kept = kit_path("%s/vms/%s/disk1.vhdx", w->host, a);
    assert_true(exists(kept));
    kit_ok(define_one(w, "b", kept, b), w->err);
    kit_fails(w->c->ops->destroy_system(w->c, a, true, job, result, &w->err), w->err, RP_ERR_STATE);
    kit_ok(w->c->ops->destroy_system(w->c, a, false, job, result, &w->err), w->err);
    assert_true(exists(kept));
    set_state(w, b, RP_VM_RUNNING);
    set_state(w, b, RP_VM_OFF);
}

static void a_disk_that_is_used_in_place_is_not_deleted_with_the_folder_that_it_is_in(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *raw = kit_path("%s/second.raw", w->files);
    kit_raw(raw, DISK, 2);
    define_raw(w, "a", id);
    RP_AUTO_FREE char *kept = kit_path("%s/vms/%s/disk1.vhdx", w->host, id);
    kit_ok(w->c->ops->add_disk(w->c, id, raw, job, result, &w->err), w->err);
    kit_ok(w->c->ops->remove_disk(w->c, id, 1, job, result, &w->err), w->err);
    kit_ok(w->c->ops->add_disk(w->c, id, kept, job, result, &w->err), w->err);
    kit_fails(w->c->ops->destroy_system(w->c, id, true, job, result, &w->err), w->err, RP_ERR_STATE);
    assert_true(exists(kept));
    kit_ok(w->c->ops->destroy_system(w->c, id, false, job, result, &w->err), w->err);
    assert_true(exists(kept));
}

static void a_vm_whose_files_are_lost_can_be_seen_and_deleted(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    define_raw(w, "web1", id);
    RP_AUTO_FREE char *disk = kit_path("%s/vms/%s/disk0.vhdx", w->host, id);
    assert_int_equal(unlink(disk), 0);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    assert_int_equal(s.disks[0].size, DISK);
    kit_fails(w->c->ops->request_state(w->c, id, RP_VM_RUNNING, job, result, &w->err), w->err, RP_ERR_IO);
    kit_ok(w->c->ops->destroy_system(w->c, id, true, job, result, &w->err), w->err);
}

static void a_lost_chain_record_is_not_made_up(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    define_raw(w, "web1", id);
    kit_ok(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "t", job, snap, &w->err), w->err);
    RP_AUTO_FREE char *record = kit_path("%s/vms/%s/" RP_RECORD_NAME, w->host, id), *raw = kit_path("%s/more.raw", w->files);
    assert_int_equal(unlink(record), 0);
    kit_raw(raw, DISK, 2);
    kit_fails(w->c->ops->add_disk(w->c, id, raw, job, result, &w->err), w->err, RP_ERR_CORRUPT);
    assert_false(exists(record)); // else the VM would write below its checkpoint
}

// host.db from a backup of yesterday: it does not know the checkpoint, and the disk file does not hold the newest data.
static void a_vm_with_a_checkpoint_that_the_host_does_not_know_keeps_its_record(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    define_raw(w, "web1", id);
    kit_ok(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "t", job, snap, &w->err), w->err);
    run_sql(w, "PRAGMA foreign_keys=ON; DELETE FROM snapshot");
    kit_fails(w->c->ops->remove_disk(w->c, id, 0, job, result, &w->err), w->err, RP_ERR_STATE);
    kit_fails(w->c->ops->destroy_system(w->c, id, false, job, result, &w->err), w->err, RP_ERR_STATE);
    RP_AUTO_FREE char *record = kit_path("%s/vms/%s/" RP_RECORD_NAME, w->host, id);
    assert_true(exists(record));
    kit_ok(w->c->ops->destroy_system(w->c, id, true, job, result, &w->err), w->err);
}

// Nobody looks at the VM meanwhile: whoever does may open its disks.
static void kill_service(struct world *w, const char *id)
{
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, id);
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), directory, &w->err);
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    kit_ok(rp_service_info(service, &info, &w->err), w->err);
    assert_true(info.pid > 1);
    assert_int_equal(kill(info.pid, SIGKILL), 0);
    for (int i = 0; i < 500 && !kill(info.pid, 0); i++)
        usleep(10000);
}

static void wait_until_off(struct world *w, const char *id)
{
    enum rp_vm_state now = RP_VM_RUNNING;
    for (int i = 0; i < 500 && now == RP_VM_RUNNING; i++) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        kit_ok(w->c->ops->find_vm(w->c, id, &vm, &w->err), w->err);
        now = vm.state;
        usleep(10000);
    }
    assert_int_equal(now, RP_VM_OFF);
}

// What a killed service had acknowledged is in shared memory until somebody opens the disks: the VM may go before, its disk
// stays.
static void a_disk_that_stays_has_what_a_killed_service_acknowledged(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE char *disk = kit_path("%s/empty.vhdx", w->files);
    RP_AUTO_FREE uint8_t *data = malloc(DISK), *wanted = malloc(KIT_UNIT);
    kit_vhdx(disk, DISK);
    kit_fill(wanted, KIT_UNIT, 7);
    kit_ok(define_one(w, "web1", disk, id), w->err);
    set_state(w, id, RP_VM_RUNNING);
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, id);
    RP_AUTO_FREE char *shm = rp_engine_shm_directory(rp_fs_posix(), directory);
    {
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
        kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
        struct nbd_handle *nbd = nbd_create();
        if (nbd_connect_uri(nbd, s.disks[0].nbd_uri) || nbd_pwrite(nbd, wanted, KIT_UNIT, KIT_UNIT, 0)) // no flush
            fail_msg("%s", nbd_get_error());
        kill_service(w, id);
        nbd_close(nbd);
    }
    struct rp_vhdx *reader = rp_vhdx_open(rp_fs_posix(), disk, RP_VHDX_READ, NULL, &w->err);
    kit_ok(!reader, w->err); // while somebody reads the file, nothing can be brought into it
    kit_fails(w->c->ops->destroy_system(w->c, id, false, job, result, &w->err), w->err, RP_ERR_BUSY);
    rp_vhdx_abandon(reader);
    kit_ok(w->c->ops->destroy_system(w->c, id, false, job, result, &w->err), w->err);
    kit_chain_read(disk, data, DISK);
    assert_memory_equal(data + KIT_UNIT, wanted, KIT_UNIT);
    assert_false(shm && exists(shm));
}

static void the_shared_memory_of_a_vm_goes_with_it_and_its_disks(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    define_raw(w, "web1", id);
    set_state(w, id, RP_VM_RUNNING);
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, id);
    RP_AUTO_FREE char *shm = rp_engine_shm_directory(rp_fs_posix(), directory);
    kill_service(w, id);
    assert_true(!shm || exists(shm));
    kit_ok(w->c->ops->destroy_system(w->c, id, true, job, result, &w->err), w->err);
    assert_false(shm && exists(shm)); // the folder's number will be another's one day
}

static void a_vm_whose_service_died_is_off_and_starts_again(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    define_raw(w, "web1", id);
    set_state(w, id, RP_VM_RUNNING);
    kill_service(w, id);
    wait_until_off(w, id);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    assert_null(s.disks[0].nbd_uri);
    set_state(w, id, RP_VM_RUNNING);
    set_state(w, id, RP_VM_OFF);
}

// ---- intents --------------------------------------------------------------------------------------------------------

static void a_merge_that_the_service_finished_is_noted_by_the_next_to_look(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    define_raw(w, "web1", id);
    kit_ok(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "t", job, snap, &w->err), w->err);
    // as if the process had been killed after its transaction
    run_sql(w, "UPDATE snapshot SET state = 'merging', operation = '12345678-1234-1234-1234-123456789ABC'");
    reopen(w);
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->list_snapshots(w->c, id, &list, &w->err), w->err);
    assert_int_equal(list.count, 0);
}

static void a_checkpoint_that_was_announced_and_not_made_is_undone(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    define_raw(w, "web1", id);
    run_sql(w, "INSERT INTO snapshot (id, vm, name, type, consistency, time, operation, state)"
               " SELECT 'Microsoft:X', row, 't', 2, 2, 1, '12345678-1234-1234-1234-123456789ABC', 'creating' FROM vm");
    reopen(w);
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->list_snapshots(w->c, id, &list, &w->err), w->err);
    assert_int_equal(list.count, 0);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(w->c->ops->find_vm(w->c, id, &vm, &w->err), w->err);
    assert_int_equal(vm.activity, RP_VM_IDLE);
}

static void a_checkpoint_that_was_made_and_not_noted_is_found(void **state)
{
    struct world *w = *state;
    for (int running = 0; running < 2; running++) {
        char id[RP_HOST_ID];
        RP_AUTO_FREE char *name = kit_path("vm%d", running);
        define_raw(w, name, id);
        if (running)
            set_state(w, id, RP_VM_RUNNING);
        struct rp_guid operation = rp_guid_new();
        char text[RP_GUID_TEXT];
        rp_guid_format(&operation, text);
        RP_AUTO_FREE char *sql = kit_path("INSERT INTO snapshot (id, vm, name, type, consistency, time, operation, state)"
            " SELECT 'Microsoft:X%d', row, 't', 32768, 2, 1, '%s', 'creating' FROM vm WHERE name = '%s'", running, text, name);
        run_sql(w, sql);
        RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, id);
        {
            RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), directory, &w->err);
            RP_CLEANUP(rp_engine_checkpoint_clear) struct rp_engine_checkpoint made = {0};
            kit_ok(rp_service_checkpoint(service, &operation, NULL, NULL, &made, &w->err), w->err);
        }
        reopen(w);
        RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
        kit_ok(w->c->ops->list_snapshots(w->c, id, &list, &w->err), w->err);
        assert_int_equal(list.count, 1);
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
        kit_ok(w->c->ops->snapshot_settings(w->c, list.items[0].id, &s, &w->err), w->err);
        assert_int_equal(s.disk_count, 1);
        kit_ok(w->c->ops->convert_to_reference_point(w->c, list.items[0].id, job, result, &w->err), w->err);
        assert_int_equal(rp_host_wait_merge(w->c, id, 20000, &w->err), 0);
    }
}

// The files in the folder of the VM's disk are the disk and its tracking, and its path is what it was.
static void check_merged(struct world *w, const char *id, const char *disk)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    assert_string_equal(s.disks[0].path, disk);
    DIR *files = opendir(w->files);
    assert_non_null(files);
    for (struct dirent *entry; (entry = readdir(files));)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "disk.vhdx") && strcmp(entry->d_name, "disk.vhdx.rct") &&
            strcmp(entry->d_name, "disk.vhdx.mrt"))
            fail_msg("%s was left over", entry->d_name);
    closedir(files);
}

static void a_merge_under_way_shows_how_far_it_is_and_outlives_its_service(void **state)
{
    enum { MUCH = 24 << 20 };
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    RP_AUTO_FREE char *disk = kit_path("%s/disk.vhdx", w->files), *real = NULL;
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(MUCH), *back = rp_xmalloc(MUCH);
    kit_vhdx(disk, 64 << 20);
    kit_ok(define_one(w, "web1", disk, id), w->err);
    set_state(w, id, RP_VM_RUNNING);
    kit_ok(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "t", job, snap, &w->err), w->err);
    {
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0}, frozen = {0};
        kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
        kit_ok(w->c->ops->snapshot_settings(w->c, snap, &frozen, &w->err), w->err);
        real = rp_xstrdup(frozen.disks[0].path);
        kit_fill(data, MUCH, 7);
        kit_nbd_write(s.disks[0].nbd_uri, data, MUCH, 0);
    }
    w->c->merge_rate = 1 << 20;
    kit_ok(w->c->ops->convert_to_reference_point(w->c, snap, job, result, &w->err), w->err);
    for (int life = 0; life < 2; life++) { // the second one after a restart of the service
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        do {
            rp_vm_clear(&vm);
            kit_ok(w->c->ops->find_vm(w->c, id, &vm, &w->err), w->err);
            assert_int_equal(vm.activity, RP_VM_MERGING);
        } while (!vm.merge_done);
        assert_true(vm.merge_total >= MUCH && vm.merge_done < vm.merge_total && vm.merge_percent < 100);
        assert_int_equal(vm.merge_guest_rate, 0);
        char refused[RP_HOST_ID];
        kit_fails(w->c->ops->create_snapshot(w->c, id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "u", job, refused, &w->err),
                  w->err, RP_ERR_BUSY);
        if (life)
            break;
        set_state(w, id, RP_VM_OFF);
        // with the service, its leaf above the merged one stays behind: it is found again
        RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, id);
        RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
        kit_ok(rp_record_read(rp_fs_posix(), directory, &record, &w->err), w->err);
        assert_int_equal(record.merging_count, 1);
        assert_string_equal(record.merging[0], record.disks[0].leaf_path);
        set_state(w, id, RP_VM_RUNNING);
    }
    w->c->merge_rate = 4ull << 30; // the one that is under way takes it over
    assert_int_equal(rp_host_wait_merge(w->c, id, 20000, &w->err), 0);
    check_merged(w, id, real);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    kit_nbd_read(s.disks[0].nbd_uri, back, MUCH, 0);
    assert_memory_equal(data, back, MUCH);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest local[] = {
        TEST(a_missing_folder_is_made),
        TEST(a_folder_that_cannot_be_one_is_refused),
        TEST(a_damaged_or_foreign_database_is_refused_and_left_alone),
        TEST(random_damage_to_the_database_never_crashes),
        TEST(names_that_cannot_be_shown_are_refused),
        TEST(a_host_in_a_folder_of_odd_name_serves_its_disks),
        TEST(files_that_cannot_be_disks_are_refused),
        TEST(a_copy_of_a_disk_is_not_taken_for_a_second_one),
        TEST(a_deleted_vm_leaves_its_disk_files_unless_asked),
        TEST(a_folder_with_another_vms_disk_is_not_deleted),
        TEST(a_disk_that_is_used_in_place_is_not_deleted_with_the_folder_that_it_is_in),
        TEST(a_vm_whose_files_are_lost_can_be_seen_and_deleted),
        TEST(a_lost_chain_record_is_not_made_up),
        TEST(a_vm_with_a_checkpoint_that_the_host_does_not_know_keeps_its_record),
        TEST(a_disk_that_stays_has_what_a_killed_service_acknowledged),
        TEST(the_shared_memory_of_a_vm_goes_with_it_and_its_disks),
        TEST(a_vm_whose_service_died_is_off_and_starts_again),
        TEST(a_merge_that_the_service_finished_is_noted_by_the_next_to_look),
        TEST(a_merge_under_way_shows_how_far_it_is_and_outlives_its_service),
        TEST(a_checkpoint_that_was_announced_and_not_made_is_undone),
        TEST(a_checkpoint_that_was_made_and_not_noted_is_found),
    };
    return cmocka_run_group_tests(local, NULL, NULL);
}
