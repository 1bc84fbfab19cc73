// Backups by export and by mounted share, of a fake host whose files are real ones.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backup/export.h"
#include "backup/tag.h"
#include "base/num.h"
#include "disk/vhdx.h"
#include "world.h"

static int setup(void **state)
{
    struct world *world = malloc(sizeof *world);
    world_init(world);
    fake_use_files(&world->fake, world->folder);
    world->options.open_reader = NULL;
    *state = world;
    return 0;
}
static int setup_export(void **state)
{
    setup(state);
    struct world *world = *state;
    world->options.reader = RP_READER_EXPORT;
    world->options.export_folder = "E:\\Export";
    return 0;
}
static int teardown(void **state)
{
    world_clear(*state);
    free(*state);
    return 0;
}

static unsigned entries_in(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(dir);
    return count;
}
static void expect_no_exports(struct world *world) { assert_int_equal(entries_in(world->fake.exports), 0); }

// ---- export ---------------------------------------------------------------------------------------------------------

static void backups_by_export_are_full_then_incremental_and_exact(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 6 * RP_MIB);
    world_small_disk(world, 4 * RP_MIB);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->kind, "full");
    assert_string_equal(point->reader, "wmi-export");
    expect_no_exports(world);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned n = 0; n < 3; n++) // parts of units: the rest comes from the base
            world_write(world, n % 2, world_random(world, 3 * RP_MIB), 1 + world_random(world, 3000));
        fake_trim(&world->fake, round % 2, world_random(world, 40) * FAKE_UNIT, FAKE_UNIT);
        point = world_must_backup(world);
        assert_string_equal(point->kind, "incremental");
        assert_true(point->bytes_read <= 10 * FAKE_UNIT);
        assert_int_equal(world->remarks, 0);
        assert_int_equal(world->fake.excluded_count, 0);
        expect_no_exports(world);
    }
    world_verify(world);
}

static void the_configuration_of_an_export_is_kept_with_the_point(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    RP_CLEANUP(rp_point_clear) struct rp_point point = {0};
    struct rp_error err = {0};
    world_must_backup(world);
    if (rp_repo_point(world->repo, world->last.point.id, &point, &err))
        fail_msg("%s", err.text);
    assert_int_equal(point.file_count, 2);
    bool seen = false;
    for (size_t i = 0; i < 2; i++) {
        if (!strstr(point.files[i].name, ".vmcx"))
            continue;
        seen = true;
        assert_string_equal(point.files[i].data, "ZmFrZSBjb25maWd1cmF0aW9uAP8A"); // "fake configuration\0\377\0"
    }
    assert_true(seen);
    assert_string_equal(point.settings, "{\"fake\":true}");
}

static void an_added_disk_is_exported_as_a_whole_and_the_others_as_differences(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    world_small_disk(world, 2 * RP_MIB);
    world_write(world, 0, 0, 10);
    world->fake.export_count = 0;
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->disks[0].kind, "incremental");
    assert_string_equal(point->disks[1].kind, "full");
    assert_int_equal(world->fake.export_count, 2);
    assert_int_equal(world->fake.excluded_count, 1);
    expect_no_exports(world);
    world_verify(world);
}

static void grown_and_removed_disks_stay_incremental(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    fake_add_disk(&world->fake, 3 * RP_MIB + 512);
    world_write(world, 1, 2 * RP_MIB, RP_MIB + 512);
    world_must_backup(world);
    fake_remove_disk(&world->fake, 0);
    fake_resize(&world->fake, 1, 5 * RP_MIB + 1024);
    world_write(world, 1, 4 * RP_MIB, 5000);
    const struct rp_point *point = world_must_backup(world);
    assert_int_equal(point->disk_count, 1);
    assert_string_equal(point->kind, "incremental");
    world_verify(world);
}

static void when_the_host_cannot_export_changes_all_is_exported_and_told(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 0, 10);
    world->fake.refuse_differences = true;
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->kind, "full");
    assert_non_null(strstr(point->reason, "changes are not known"));
    assert_int_equal(world->remarks, 1);
    world->fake.refuse_differences = false;
    world->fake.whole_instead = true;
    world->fake.export_count = 0;
    world_write(world, 0, RP_MIB, 10);
    point = world_must_backup(world);
    assert_string_equal(point->kind, "full");
    assert_int_equal(world->fake.export_count, 1); // what came is read, not asked for again
    expect_no_exports(world);
    world_verify(world);
}

static void a_base_that_the_repository_has_lost_means_a_whole_export(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 0, 10);
    RP_AUTO_FREE char *command = rp_xasprintf("rm -r %s/repo/packs/*", world->folder);
    assert_int_equal(system(command), 0);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->kind, "full");
    expect_no_exports(world);
}

static void a_full_export_folder_fails_the_backup_and_leaves_nothing(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world->fake.refuse_export = true;
    assert_int_equal(world_backup(world), -1);
    assert_int_equal(world->error.code, RP_ERR_NO_SPACE);
    assert_non_null(strstr(world->error.text, "E:\\Export"));
    expect_no_exports(world);
    assert_int_equal(fake_count(&world->fake, true), 0);
    world->fake.refuse_export = false;
    world_must_backup(world);
    world_verify(world);
}

static void what_a_killed_job_exported_is_removed_by_the_next_and_nothing_else(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    struct rp_guid other = rp_guid_new(), job = rp_guid_new();
    struct rp_export_folder left, others;
    struct rp_error err = {0};
    assert_int_equal(rp_export_folder_make(&world->fake.host, "E:\\Export", rp_repo_id(world->repo), world->fake.vm.id,
                                           &job, &left, &err), 0);
    assert_int_equal(rp_export_folder_make(&world->fake.host, "E:\\Export", &other, world->fake.vm.id, &job, &others,
                                           &err), 0);
    RP_AUTO_FREE char *command =
        rp_xasprintf("mkdir -p '%s/1/Virtual Hard Disks' && echo x >'%s/1/Virtual Hard Disks/a.vhdx' && "
                                              "ln -s %s '%s/1/link' && cp -r '%s' '%s-mine'", left.local, left.local,
                                              world->fake.vms, left.local, left.local, left.local);
    assert_int_equal(system(command), 0);
    unsigned files = entries_in(world->fake.vms);
    world_must_backup(world);
    assert_int_equal(world->last.orphans, 1);
    assert_int_equal(entries_in(world->fake.exports), 2); // another repository's, and one that only begins like ours
    assert_int_equal(entries_in(world->fake.vms), files); // the link was not followed
    rp_export_folder_clear(&left);
    rp_export_folder_clear(&others);
}

static void fail_at_every_call(struct world *world, bool after)
{
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    unsigned failures = 0;
    for (unsigned n = 1;; n++) {
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        world->fake.fail_at = n;
        world->fake.fail_after = after;
        world->fake.failed_verb = NULL;
        int result = world_backup(world);
        world->fake.fail_at = 0;
        if (!world->fake.failed_verb)
            break;
        failures += result != 0;
        expect_no_exports(world);
        if (fake_count(&world->fake, true) || fake_count(&world->fake, false) != 1)
            assert_true(world->remarks > 0);
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        assert_string_equal(world_must_backup(world)->kind, "incremental");
        assert_int_equal(fake_count(&world->fake, true), 0);
        assert_int_equal(fake_count(&world->fake, false), 1);
    }
    assert_true(failures >= 8);
    world_verify(world);
}
static void a_failure_of_any_host_verb_leaves_no_export_and_no_checkpoint(void **state)
{
    fail_at_every_call(*state, false);
}
static void a_lost_answer_of_any_host_verb_leaves_no_export_and_no_checkpoint(void **state)
{
    fail_at_every_call(*state, true);
}

static void the_export_is_gone_before_the_checkpoint_is_given_up(struct fake_host *fake, const char *verb)
{
    if (!strcmp(verb, "convert_to_reference_point"))
        assert_int_equal(entries_in(fake->exports), 0);
}
static void an_export_takes_room_no_longer_than_it_is_read(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->fake.before = the_export_is_gone_before_the_checkpoint_is_given_up;
    world_must_backup(world);
}

static void stop_at_export(struct fake_host *fake, const char *verb)
{
    struct world *world = fake->context;
    world->stop |= !strcmp(verb, "export_system");
}
static void interrupted_while_the_host_exports_a_backup_leaves_nothing(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->fake.before = stop_at_export;
    world->fake.context = world;
    assert_int_equal(world_backup(world), -1);
    assert_int_equal(world->error.code, RP_ERR_CANCELLED);
    expect_no_exports(world);
    assert_int_equal(fake_count(&world->fake, true), 0);
    assert_int_equal(fake_count(&world->fake, false), 0);
}

static void an_export_folder_that_is_not_here_is_one_clear_line(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->options.export_folder = "F:\\Export";
    assert_int_equal(world_backup(world), -1);
    assert_int_equal(world->error.code, RP_ERR_NOT_FOUND);
    assert_non_null(strstr(world->error.text, "F:\\Export"));
    assert_int_equal(fake_count(&world->fake, true), 0);
}

// ---- mounted share --------------------------------------------------------------------------------------------------

static void backups_by_mounted_share_are_full_then_incremental_and_exact(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 6 * RP_MIB);
    world_small_disk(world, 4 * RP_MIB);
    const struct rp_point *point = world_must_backup(world); // chosen because all paths are mapped
    assert_string_equal(point->reader, "mounted-share");
    assert_string_equal(point->kind, "full");
    for (unsigned round = 0; round < 5; round++) {
        world_write(world, round % 2, world_random(world, 3 * RP_MIB), 1 + world_random(world, 70000));
        point = world_must_backup(world);
        assert_string_equal(point->kind, "incremental");
        assert_true(point->bytes_read <= 3 * FAKE_UNIT);
        assert_int_equal(world->remarks, 0);
    }
    world_verify(world);
}

static void fails(struct world *world, enum rp_code code, const char *text)
{
    assert_int_equal(world_backup(world), -1);
    if (world->error.code != code || !strstr(world->error.text, text))
        fail_msg("%s: %s", rp_code_name(world->error.code), world->error.text);
    assert_int_equal(fake_count(&world->fake, true), 0);
    assert_int_equal(fake_count(&world->fake, false), 0);
}

// The frozen file of disk 0, while it is about to be opened.
static void spoil(struct fake_host *fake, const char *format)
{
    for (size_t i = 0; i < FAKE_POINTS; i++) {
        if (!fake->points[i].present || !fake->points[i].snapshot)
            continue;
        RP_AUTO_FREE char *leaf = rp_xasprintf("%s/WEB1/%s-0.avhdx", fake->vms, fake->points[i].id);
        RP_AUTO_FREE char *base = rp_xasprintf("%s/WEB1/%s-0-base.vhdx", fake->vms, fake->points[i].id);
        RP_AUTO_FREE char *command = rp_xasprintf("leaf=%s base=%s secret=%s/../secret.vhdx; %s", leaf, base, fake->vms,
                                                  format);
        assert_int_equal(system(command), 0);
    }
}
static void remove_leaf(struct fake_host *fake, const char *verb)
{
    if (!strcmp(verb, "snapshot_settings"))
        spoil(fake, "rm $leaf");
}
static void remove_base(struct fake_host *fake, const char *verb)
{
    if (!strcmp(verb, "snapshot_settings"))
        spoil(fake, "rm $base");
}
static void lead_out(struct fake_host *fake, const char *verb)
{
    if (!strcmp(verb, "snapshot_settings"))
        spoil(fake, "mv $base $secret && ln -s ../../secret.vhdx $base");
}
static void lead_the_leaf_out(struct fake_host *fake, const char *verb)
{
    if (!strcmp(verb, "snapshot_settings"))
        spoil(fake, "mv $leaf $secret && ln -s ../../secret.vhdx $leaf");
}
static struct rp_store *held;
static void hold(struct fake_host *fake, const char *verb)
{
    if (strcmp(verb, "snapshot_settings"))
        return;
    struct rp_error err = {0};
    RP_AUTO_FREE char *leaf = rp_xasprintf("%s/WEB1/snapshot-%u-0.avhdx", fake->vms, fake->next_id);
    held = rp_fs_open(rp_fs_posix(), leaf, RP_OPEN_WRITE, &err);
    if (!held || rp_store_lock(held, true, &err))
        fail_msg("%s", err.text);
}

static void missing_files_and_sharing_violations_are_one_clear_line(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 2 * RP_MIB);
    world->fake.before = remove_leaf;
    fails(world, RP_ERR_NOT_FOUND, "is the share mounted");
    world->fake.before = remove_base;
    fails(world, RP_ERR_PARENT_NOT_FOUND, "its parent");
    world->fake.before = hold;
    fails(world, RP_ERR_BUSY, "a sharing violation");
    rp_store_close(held);
    world->fake.before = NULL;
    world_must_backup(world);
    world_verify(world);
}

static void no_link_and_no_parent_leads_out_of_the_share(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 2 * RP_MIB);
    world->fake.before = lead_the_leaf_out;
    fails(world, RP_ERR_PERMISSION, "leads out");
    RP_AUTO_FREE char *command = rp_xasprintf("rm %s/secret.vhdx", world->folder);
    assert_int_equal(system(command), 0);
    world->fake.before = lead_out;
    assert_int_equal(world_backup(world), -1);
}

// ---- which reader ---------------------------------------------------------------------------------------------------

static void the_reader_is_what_suits_the_host(void **state)
{
    (void)state;
    struct rp_error err = {0};
    struct rp_path_map map = {0};
    struct rp_vm_disk disks[] = {{.path = (char *)"D:\\VMs\\a.vhdx"}, {.path = (char *)"D:\\Other\\b.vhdx"}};
    struct rp_vm_settings settings = {.disks = disks, .disk_count = 2};
    struct rp_host_connection local = {.address = (char *)"local:/srv/vms"},
    remote = {.address = (char *)"hv1", .paths = &map};
    enum rp_reader_kind kind;
    assert_int_equal(rp_plan_choose_reader(&local, &settings, RP_READER_ANY, "/srv/exports", &kind, &err), 0);
    assert_int_equal(kind, RP_READER_VIRTUAL_DISK);
    assert_int_equal(rp_plan_choose_reader(&remote, &settings, RP_READER_ANY, NULL, &kind, &err), -1);
    assert_non_null(strstr(err.text, "--export-folder"));
    rp_error_clear(&err);
    assert_int_equal(rp_path_map_add(&map, "d:\\vms", "/mnt/d", NULL), 0);
    assert_int_equal(rp_plan_choose_reader(&remote, &settings, RP_READER_ANY, "E:\\x", &kind, &err), 0);
    assert_int_equal(kind, RP_READER_EXPORT); // one disk is in no mapped folder
    assert_int_equal(rp_plan_choose_reader(&remote, &settings, RP_READER_SHARE, "E:\\x", &kind, &err), -1);
    assert_non_null(strstr(err.text, "D:\\Other\\b.vhdx"));
    rp_error_clear(&err);
    assert_int_equal(rp_path_map_add(&map, "D:\\Other", "/mnt/o", NULL), 0);
    assert_int_equal(rp_plan_choose_reader(&remote, &settings, RP_READER_ANY, "E:\\x", &kind, &err), 0);
    assert_int_equal(kind, RP_READER_SHARE);
    assert_int_equal(rp_plan_choose_reader(&remote, &settings, RP_READER_EXPORT, NULL, &kind, &err), -1);
    rp_path_map_clear(&map);
}

static void a_guest_that_cannot_be_frozen_is_backed_up_all_the_same_when_that_is_allowed(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->fake.no_application = true;
    world->options.consistency = RP_CONSISTENCY_APPLICATION;
    fails(world, RP_ERR_STATE, "the guest does not answer");
    world->options.allow_crash = true;
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->consistency_asked, "application");
    assert_string_equal(point->consistency_reached, "crash");
    assert_non_null(strstr(point->consistency_reason, "the guest does not answer"));
    assert_int_equal(world->remarks, 1);
    world_verify(world);
}

static void a_reference_point_without_a_name_is_ours_when_a_restore_point_names_it(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world_must_backup(world);
    for (size_t i = 0; i < FAKE_POINTS; i++) // a host that does not keep the checkpoint's name
        if (world->fake.points[i].present) {
            free(world->fake.points[i].name);
            world->fake.points[i].name = rp_xstrdup("");
        }
    fake_new_point(&world->fake, false, "");
    world_must_backup(world);
    assert_int_equal(fake_count(&world->fake, false), 2); // the new one, and the one of somebody else
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define EXPORT(name) cmocka_unit_test_setup_teardown(name, setup_export, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EXPORT(backups_by_export_are_full_then_incremental_and_exact),
        EXPORT(the_configuration_of_an_export_is_kept_with_the_point),
        EXPORT(an_added_disk_is_exported_as_a_whole_and_the_others_as_differences),
        EXPORT(grown_and_removed_disks_stay_incremental),
        EXPORT(when_the_host_cannot_export_changes_all_is_exported_and_told),
        EXPORT(a_base_that_the_repository_has_lost_means_a_whole_export),
        EXPORT(a_full_export_folder_fails_the_backup_and_leaves_nothing),
        EXPORT(what_a_killed_job_exported_is_removed_by_the_next_and_nothing_else),
        EXPORT(a_failure_of_any_host_verb_leaves_no_export_and_no_checkpoint),
        EXPORT(a_lost_answer_of_any_host_verb_leaves_no_export_and_no_checkpoint),
        EXPORT(an_export_takes_room_no_longer_than_it_is_read),
        EXPORT(interrupted_while_the_host_exports_a_backup_leaves_nothing),
        EXPORT(an_export_folder_that_is_not_here_is_one_clear_line),
        TEST(backups_by_mounted_share_are_full_then_incremental_and_exact),
        TEST(missing_files_and_sharing_violations_are_one_clear_line),
        TEST(no_link_and_no_parent_leads_out_of_the_share),
        TEST(the_reader_is_what_suits_the_host),
        TEST(a_guest_that_cannot_be_frozen_is_backed_up_all_the_same_when_that_is_allowed),
        TEST(a_reference_point_without_a_name_is_ours_when_a_restore_point_names_it),
    };
    return cmocka_run_group_tests_name("backup readers", tests, NULL, NULL);
}
