// The whole way on the real local host: a VM's disk over NBD, backups of it, restores compared with what was written.
#include "host-kit.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/backup.h"
#include "backup/restore_host.h"
#include "host/local.h"

#define SIZE (16 * RP_MIB)
#define MAX_POINTS 64

struct machine {
    char *folder;
    struct rp_host_connection *host;
    struct rp_repo *repo;
    struct rp_vm vm;
    uint64_t random;
    uint8_t *disk[2];           // what each disk must hold now
    size_t size[2];
    struct moment {
        char id[RP_POINT_ID];
        uint8_t *disk[2];
        size_t size[2];
    } points[MAX_POINTS];
    size_t count;
    struct rp_backup_options options;
    struct rp_backup_result last;
    struct rp_error err;
};

static void connect_host(struct machine *m)
{
    rp_host_close(m->host);
    RP_AUTO_FREE char *directory = kit_path("%s/host", m->folder);
    m->host = rp_host_local_open(directory, &m->err);
    if (!m->host)
        fail_msg("%s", m->err.text);
    RP_AUTO_FREE char *vms = kit_path("%s/vms", directory);
    m->host->paths = rp_xcalloc(1, sizeof *m->host->paths);
    kit_ok(rp_path_map_add(m->host->paths, vms, vms, &m->err), m->err);
    m->host->export_folder = kit_path("%s/exports", m->folder);
    mkdir(m->host->export_folder, 0700);
}

static void wait_for(struct machine *m, const char *job, char *result)
{
    kit_ok(rp_host_wait(m->host, job, result, NULL, NULL, &m->err), m->err);
}

static void set_state(struct machine *m, enum rp_vm_state state)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm now = {0};
    kit_ok(m->host->ops->find_vm(m->host, m->vm.id, &now, &m->err), m->err);
    if (now.state == state)
        return;
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    kit_ok(m->host->ops->request_state(m->host, m->vm.id, state, job, result, &m->err), m->err);
    wait_for(m, job, result);
}

static int setup(void **state)
{
    struct machine *m = calloc(1, sizeof *m);
    m->folder = kit_folder();
    m->random = kit_seed();
    connect_host(m);
    RP_AUTO_FREE char *a = kit_path("%s/a.raw", m->folder), *b = kit_path("%s/b.raw", m->folder);
    kit_raw(a, SIZE, 11);
    kit_raw(b, SIZE, 12);
    for (size_t i = 0; i < 2; i++) {
        m->disk[i] = malloc(SIZE);
        m->size[i] = SIZE;
        kit_fill(m->disk[i], SIZE, 11 + i);
    }
    const char *const disks[] = {a, b};
    char job[RP_HOST_ID] = "", id[RP_HOST_ID] = "";
    kit_ok(m->host->ops->define_system(m->host, "web1", disks, 2, NULL, NULL, job, id, &m->err), m->err);
    wait_for(m, job, id);
    kit_ok(m->host->ops->find_vm(m->host, "web1", &m->vm, &m->err), m->err);
    RP_AUTO_FREE char *path = kit_path("%s/repo", m->folder), *cache = kit_path("%s/cache", m->folder);
    struct rp_backend *backend = rp_backend_directory_open(path, true, &m->err);
    struct rp_repo_options options = {.passphrase = "secret", .scrypt_log_n = 10};
    kit_ok(!backend || rp_repo_init(backend, &options, &m->err), m->err);
    m->repo = rp_repo_open(backend, "secret", cache, &m->err);
    kit_ok(!m->repo, m->err);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_OFF);
    for (size_t i = 0; i < m->count; i++)
        for (size_t d = 0; d < 2; d++)
            free(m->points[i].disk[d]);
    free(m->disk[0]);
    free(m->disk[1]);
    rp_backup_result_clear(&m->last);
    rp_vm_clear(&m->vm);
    rp_repo_close(m->repo);
    rp_host_close(m->host);
    kit_remove_folder(m->folder);
    free(m);
    return 0;
}

static void write_at(struct machine *m, size_t disk, uint64_t offset, size_t size)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    kit_ok(m->host->ops->vm_settings(m->host, m->vm.id, &settings, &m->err), m->err);
    kit_fill(m->disk[disk] + offset, size, kit_random(&m->random));
    kit_nbd_write(settings.disks[disk].nbd_uri, m->disk[disk] + offset, size, offset);
}

static void write_some(struct machine *m)
{
    for (unsigned n = 0; n < 6; n++) {
        size_t size = 512 * (1 + kit_random(&m->random) % 200);
        write_at(m, kit_random(&m->random) % 2, kit_random(&m->random) % ((SIZE - size) / 512) * 512, size);
    }
}

// A backup that must succeed; the point is remembered.
static const struct rp_point *backup(struct machine *m)
{
    m->options.merge_timeout_ms = 20000;
    rp_backup_result_clear(&m->last);
    kit_ok(rp_backup_run(m->host, m->repo, &m->vm, &m->options, &m->last, &m->err), m->err);
    assert_false(m->last.merge_pending);
    struct moment *moment = &m->points[m->count++];
    memcpy(moment->id, m->last.point.id, sizeof moment->id);
    for (size_t d = 0; d < 2; d++)
        moment->disk[d] = memcpy(malloc(m->size[d]), m->disk[d], m->size[d]);
    memcpy(moment->size, m->size, sizeof moment->size);
    return &m->last.point;
}

static void expect_host_clean(struct machine *m, size_t references)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    kit_ok(m->host->ops->list_snapshots(m->host, m->vm.id, &snapshots, &m->err), m->err);
    kit_ok(m->host->ops->list_reference_points(m->host, m->vm.id, &points, &m->err), m->err);
    assert_int_equal(snapshots.count, 0);
    assert_int_equal(points.count, references);
}

// Restores every point and compares.
static void verify(struct machine *m)
{
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    kit_ok(rp_repo_points(m->repo, &points, &m->err), m->err);
    assert_int_equal(points.count, m->count);
    for (size_t i = 0; i < points.count; i++) {
        const struct moment *moment = NULL;
        for (size_t j = 0; j < m->count; j++)
            if (!strcmp(m->points[j].id, points.items[i].id))
                moment = &m->points[j];
        assert_non_null(moment);
        char *folder = kit_path("%s/restored", m->folder);
        struct rp_restore_options options = {.directory = folder, .format = RP_IMAGE_VHDX, .disk = -1};
        struct rp_restore_result result;
        kit_ok(rp_restore_run(m->repo, &points.items[i], &options, &result, &m->err), m->err);
        assert_int_equal(result.count, 2);
        for (size_t d = 0; d < 2; d++) {
            RP_AUTO_FREE uint8_t *data = malloc(moment->size[d]);
            assert_int_equal(result.files[d].size, moment->size[d]);
            kit_chain_read(result.files[d].path, data, moment->size[d]);
            assert_memory_equal(data, moment->disk[d], moment->size[d]);
        }
        rp_restore_result_clear(&result);
        kit_remove_folder(folder);
    }
}

static void backups_of_a_running_vm_restore_exactly(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_RUNNING);
    for (unsigned round = 0; round < 5; round++) {
        const struct rp_point *point = backup(m);
        assert_string_equal(point->kind, round ? "incremental" : "full");
        if (round)
            assert_true(point->bytes_read <= 12 * 3 * KIT_UNIT);
        write_some(m);
        expect_host_clean(m, 1);
    }
    verify(m);
}

static void an_incremental_without_changes_reads_nothing_and_is_quick(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_RUNNING);
    backup(m);
    const struct rp_point *point = backup(m);
    assert_string_equal(point->kind, "incremental");
    assert_int_equal(point->bytes_read, 0);
    verify(m);
}

static void changes_survive_stops_and_starts_and_backups_of_a_stopped_vm(void **state)
{
    struct machine *m = *state;
    backup(m); // off
    for (unsigned round = 0; round < 3; round++) {
        set_state(m, RP_VM_RUNNING);
        write_some(m);
        set_state(m, RP_VM_OFF);
        set_state(m, RP_VM_RUNNING);
        write_some(m);
        set_state(m, RP_VM_OFF);
        assert_string_equal(backup(m)->kind, "incremental");
    }
    verify(m);
}

// ---- readers and restores to the host ------------------------------------------------------------------------------

static void expect_empty(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            fail_msg("%s/%s is left", folder, entry->d_name);
    closedir(dir);
}

static void every_reader_goes_on_where_another_one_ended(void **state)
{
    struct machine *m = *state;
    static const enum rp_reader_kind kinds[] = {RP_READER_EXPORT, RP_READER_EXPORT, RP_READER_SHARE, RP_READER_VIRTUAL_DISK,
                                                RP_READER_EXPORT, RP_READER_SHARE};
    set_state(m, RP_VM_RUNNING);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        m->options.reader = kinds[i];
        const struct rp_point *point = backup(m);
        assert_string_equal(point->reader, rp_reader_name(kinds[i]));
        assert_string_equal(point->kind, i ? "incremental" : "full");
        if (i)
            assert_true(point->bytes_read <= 12 * 3 * KIT_UNIT);
        write_some(m);
        expect_host_clean(m, 1);
        expect_empty(m->host->export_folder);
    }
    verify(m);
}

static const enum rp_reader_kind all_kinds[] = {RP_READER_VIRTUAL_DISK, RP_READER_SHARE, RP_READER_EXPORT};

static void a_disk_that_grew_between_backups_is_right_by_every_reader(void **state)
{
    struct machine *m = *state;
    for (size_t i = 0; i < 3; i++) {
        size_t old = m->size[0], grown = old + RP_MIB + 512 * 3; // ends inside a block
        char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
        m->options.reader = all_kinds[i];
        set_state(m, RP_VM_RUNNING);
        write_some(m);
        backup(m);
        set_state(m, RP_VM_OFF);
        kit_ok(m->host->ops->resize_disk(m->host, m->vm.id, 0, grown, job, result, &m->err), m->err);
        wait_for(m, job, result);
        m->disk[0] = realloc(m->disk[0], grown);
        memset(m->disk[0] + old, 0, grown - old);
        m->size[0] = grown;
        set_state(m, RP_VM_RUNNING);
        write_at(m, 0, old - 512, 1024); // over the old end
        assert_string_equal(backup(m)->kind, "incremental");
        write_at(m, 0, grown - 512, 512);
        assert_string_equal(backup(m)->kind, "incremental");
        expect_host_clean(m, 1);
    }
    verify(m);
}

// What was written since is gone, and the changes since a reference point that is younger than the checkpoint are not what
// the guest wrote since then.
static void a_checkpoint_applied_between_backups_is_right_by_every_reader(void **state)
{
    struct machine *m = *state;
    char job[RP_HOST_ID] = "", keep[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    uint8_t *then[2];
    set_state(m, RP_VM_RUNNING);
    write_some(m);
    backup(m);
    write_some(m);
    kit_ok(m->host->ops->create_snapshot(m->host, m->vm.id, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "keep", job, keep,
                                         &m->err), m->err);
    wait_for(m, job, keep);
    for (size_t d = 0; d < 2; d++)
        then[d] = memcpy(malloc(SIZE), m->disk[d], SIZE);
    for (size_t i = 0; i < 3; i++) {
        m->options.reader = all_kinds[i];
        write_some(m);
        backup(m);
        write_some(m);
        backup(m);
        set_state(m, RP_VM_OFF);
        kit_ok(m->host->ops->apply_snapshot(m->host, keep, job, result, &m->err), m->err);
        wait_for(m, job, result);
        for (size_t d = 0; d < 2; d++)
            memcpy(m->disk[d], then[d], SIZE);
        if (i == 1) // also of a VM that has not run since
            backup(m);
        set_state(m, RP_VM_RUNNING);
        write_some(m);
        backup(m);
        write_some(m);
        assert_string_equal(backup(m)->kind, "incremental");
    }
    for (size_t d = 0; d < 2; d++)
        free(then[d]);
    verify(m);
}

static void a_lost_vm_is_restored_to_its_host_and_goes_on_incrementally(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_RUNNING);
    m->options.reader = RP_READER_EXPORT;
    backup(m);
    write_some(m);
    backup(m);
    set_state(m, RP_VM_OFF);
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    kit_ok(m->host->ops->destroy_system(m->host, m->vm.id, true, job, result, &m->err), m->err);
    wait_for(m, job, result);
    RP_CLEANUP(rp_point_clear) struct rp_point point = {0};
    kit_ok(rp_repo_point(m->repo, m->last.point.id, &point, &m->err), m->err);
    RP_AUTO_FREE char *folder = kit_path("%s/again", m->folder);
    struct rp_restore_host_options options = {.folder = folder, .start = true};
    struct rp_restore_host_result restored;
    kit_ok(rp_restore_host_run(m->host, m->repo, &point, &options, &restored, &m->err), m->err);
    assert_true(restored.imported);
    assert_true(restored.goes_on);
    assert_string_equal(restored.vm_id, m->vm.id);
    rp_restore_host_result_clear(&restored);
    write_some(m);
    m->options.reader = RP_READER_VIRTUAL_DISK;
    const struct rp_point *next = backup(m);
    assert_string_equal(next->kind, "incremental");
    assert_true(next->bytes_read <= 12 * 3 * KIT_UNIT);
    expect_host_clean(m, 1);
    verify(m);
}

static void a_vm_of_saved_settings_is_another_one_beside_it_with_the_same_disks(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_RUNNING);
    write_some(m);
    backup(m);
    RP_CLEANUP(rp_point_clear) struct rp_point point = {0};
    kit_ok(rp_repo_point(m->repo, m->last.point.id, &point, &m->err), m->err);
    RP_AUTO_FREE char *folder = kit_path("%s/beside", m->folder);
    struct rp_restore_host_options options = {.folder = folder, .vm_name = "web2", .identity = RP_IDENTITY_NEW};
    struct rp_restore_host_result restored;
    kit_ok(rp_restore_host_run(m->host, m->repo, &point, &options, &restored, &m->err), m->err);
    assert_false(restored.imported);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(m->host->ops->find_vm(m->host, "web2", &vm, &m->err), m->err);
    assert_string_equal(vm.id, restored.vm_id);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    kit_ok(m->host->ops->vm_settings(m->host, vm.id, &settings, &m->err), m->err);
    assert_int_equal(settings.disk_count, 2);
    RP_AUTO_FREE uint8_t *data = malloc(SIZE);
    for (size_t d = 0; d < 2; d++) {
        kit_chain_read(settings.disks[d].path, data, SIZE);
        assert_memory_equal(data, m->disk[d], SIZE);
    }
    rp_restore_host_result_clear(&restored);
}

// ---- disks that are not what they were ------------------------------------------------------------------------------

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    RP_AUTO_FREE char *command = NULL;
    assert_true(vasprintf(&command, format, args) > 0);
    va_end(args);
    if (system(command))
        fail_msg("%s", command);
}

static void a_disk_rolled_back_with_its_tracking_is_backed_up_right(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_RUNNING);
    backup(m);
    write_some(m);
    set_state(m, RP_VM_OFF);
    uint8_t *saved[2];
    for (size_t d = 0; d < 2; d++)
        saved[d] = memcpy(malloc(SIZE), m->disk[d], SIZE);
    shell("cp -a %s/host %s/saved", m->folder, m->folder);
    set_state(m, RP_VM_RUNNING);
    write_some(m);
    set_state(m, RP_VM_OFF);
    // The disks and their tracking files go back; the host's own state stays.
    shell("cd %s/saved && find . \\( -name '*.vhdx' -o -name '*.rct' \\) -exec cp -a {} ../host/{} \\;", m->folder);
    for (size_t d = 0; d < 2; d++) {
        memcpy(m->disk[d], saved[d], SIZE);
        free(saved[d]);
    }
    set_state(m, RP_VM_RUNNING);
    write_at(m, 0, 4096, 512);
    backup(m);
    write_some(m);
    backup(m);
    verify(m);
}

static void a_whole_host_rolled_back_after_a_backup_is_backed_up_right(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_RUNNING);
    backup(m);
    write_some(m);
    set_state(m, RP_VM_OFF);
    uint8_t *saved[2];
    for (size_t d = 0; d < 2; d++)
        saved[d] = memcpy(malloc(SIZE), m->disk[d], SIZE);
    shell("cp -a %s/host %s/saved", m->folder, m->folder);
    set_state(m, RP_VM_RUNNING);
    write_some(m);
    backup(m); // whose reference point the rolled back host does not have
    write_some(m);
    set_state(m, RP_VM_OFF);
    rp_host_close(m->host);
    m->host = NULL;
    shell("rm -rf %s/host && mv %s/saved %s/host", m->folder, m->folder, m->folder);
    connect_host(m);
    for (size_t d = 0; d < 2; d++) {
        memcpy(m->disk[d], saved[d], SIZE);
        free(saved[d]);
    }
    set_state(m, RP_VM_RUNNING);
    write_at(m, 1, 8192, 1024);
    backup(m);
    write_some(m);
    backup(m);
    expect_host_clean(m, 1);
    verify(m);
}

static void a_copy_of_the_host_and_the_original_are_both_backed_up_right(void **state)
{
    struct machine *m = *state;
    set_state(m, RP_VM_RUNNING);
    backup(m);
    write_some(m);
    set_state(m, RP_VM_OFF);
    shell("cp -a %s/host %s/copy", m->folder, m->folder);
    uint8_t *copied[2];
    for (size_t d = 0; d < 2; d++)
        copied[d] = memcpy(malloc(SIZE), m->disk[d], SIZE);
    // The original goes on, is backed up; then the copy, which is the same VM with other changes.
    for (unsigned round = 0; round < 4; round++) {
        set_state(m, RP_VM_RUNNING);
        write_some(m);
        backup(m);
        set_state(m, RP_VM_OFF);
        rp_host_close(m->host);
        m->host = NULL;
        shell("cd %s && mv host third && mv copy host && mv third copy", m->folder);
        connect_host(m);
        for (size_t d = 0; d < 2; d++) {
            uint8_t *other = m->disk[d];
            m->disk[d] = copied[d];
            copied[d] = other;
        }
    }
    for (size_t d = 0; d < 2; d++)
        free(copied[d]);
    verify(m);
}

static void a_disk_changed_behind_the_hosts_back_is_read_as_a_whole(void **state)
{
    struct machine *m = *state;
    backup(m);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    kit_ok(m->host->ops->vm_settings(m->host, m->vm.id, &settings, &m->err), m->err);
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), settings.disks[0].path, RP_VHDX_WRITE, NULL, &m->err);
    if (!vhdx)
        fail_msg("%s", m->err.text);
    kit_fill(m->disk[0], 512, 77);
    kit_ok(rp_vhdx_write(vhdx, m->disk[0], 512, 0, &m->err), m->err);
    kit_ok(rp_vhdx_close(vhdx, &m->err), m->err);
    vhdx = NULL;
    const struct rp_point *point = backup(m);
    assert_int_equal(point->disks[0].bytes_read, SIZE);
    assert_int_equal(point->disks[1].bytes_read, 0);
    verify(m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(backups_of_a_running_vm_restore_exactly),
        TEST(an_incremental_without_changes_reads_nothing_and_is_quick),
        TEST(changes_survive_stops_and_starts_and_backups_of_a_stopped_vm),
        TEST(every_reader_goes_on_where_another_one_ended),
        TEST(a_disk_that_grew_between_backups_is_right_by_every_reader),
        TEST(a_checkpoint_applied_between_backups_is_right_by_every_reader),
        TEST(a_lost_vm_is_restored_to_its_host_and_goes_on_incrementally),
        TEST(a_vm_of_saved_settings_is_another_one_beside_it_with_the_same_disks),
        TEST(a_disk_rolled_back_with_its_tracking_is_backed_up_right),
        TEST(a_whole_host_rolled_back_after_a_backup_is_backed_up_right),
        TEST(a_copy_of_the_host_and_the_original_are_both_backed_up_right),
        TEST(a_disk_changed_behind_the_hosts_back_is_read_as_a_whole),
    };
    return cmocka_run_group_tests_name("backup of a host", tests, NULL, NULL);
}
