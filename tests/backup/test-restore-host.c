// Restores to a fake host: files, planned VMs, and what is left when any of it fails.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/restore_host.h"
#include "base/num.h"
#include "disk/chain.h"
#include "durable.h"
#include "world.h"

struct restore {
    struct world world;
    struct rp_point point;
    struct rp_restore_host_options options;
    struct rp_restore_host_result result;
    struct rp_error err;
    unsigned remarks;
    char remark[1024];
};

static void on_remark(void *context, const char *text)
{
    struct restore *restore = context;
    restore->remarks++;
    snprintf(restore->remark, sizeof restore->remark, "%s", text);
}

static void init(struct restore *restore, enum rp_reader_kind reader)
{
    struct world *world = &restore->world;
    world_init(world);
    fake_use_files(&world->fake, world->folder);
    world->options.open_reader = NULL;
    world->options.reader = reader;
    world->options.export_folder = "E:\\Export";
    world_small_disk(world, 2 * RP_MIB);
    world_small_disk(world, 3 * RP_MIB);
    world_must_backup(world);
    if (rp_repo_point(world->repo, world->last.point.id, &restore->point, &restore->err))
        fail_msg("%s", restore->err.text);
    RP_AUTO_FREE char *command = rp_xasprintf("rm -r %s/*", world->fake.vms);
    assert_int_equal(system(command), 0);
    snprintf(world->fake.reference_id, RP_HOST_ID, "%s", restore->point.reference_point);
    world->fake.gone = true;
    restore->options = (struct rp_restore_host_options){.folder = "D:\\VMs\\restored", .remark = on_remark,
                                                        .context = restore};
}
static int setup_exported(void **state)
{
    *state = calloc(1, sizeof(struct restore));
    init(*state, RP_READER_EXPORT);
    return 0;
}
static int setup_settings(void **state)
{
    *state = calloc(1, sizeof(struct restore));
    init(*state, RP_READER_SHARE);
    return 0;
}
static int teardown(void **state)
{
    struct restore *restore = *state;
    rp_restore_host_result_clear(&restore->result);
    rp_point_clear(&restore->point);
    world_clear(&restore->world);
    free(restore);
    return 0;
}

static int run(struct restore *restore)
{
    rp_restore_host_result_clear(&restore->result);
    rp_error_clear(&restore->err);
    restore->remarks = 0;
    restore->world.fake.calls = 0;
    return rp_restore_host_run(&restore->world.fake.host, restore->world.repo, &restore->point, &restore->options,
                               &restore->result, &restore->err);
}
static void must_run(struct restore *restore)
{
    if (run(restore))
        fail_msg("%s", restore->err.text);
}
static void fails(struct restore *restore, enum rp_code code, const char *text)
{
    assert_int_equal(run(restore), -1);
    if (restore->err.code != code || !strstr(restore->err.text, text))
        fail_msg("%s: %s", rp_code_name(restore->err.code), restore->err.text);
}

static unsigned files_left(const struct restore *restore)
{
    RP_AUTO_FREE char *command = rp_xasprintf("find %s -mindepth 1 | wc -l", restore->world.fake.vms);
    FILE *pipe = popen(command, "r");
    unsigned count = 99;
    assert_int_equal(fscanf(pipe, "%u", &count), 1);
    pclose(pipe);
    return count;
}

// The real VM's disks, by the end of their instances, hold what was backed up.
static void check_disks(struct restore *restore)
{
    struct fake_host *fake = &restore->world.fake;
    const struct fake_planned *vm = &fake->planned[0];
    assert_true(vm->present && vm->real);
    assert_string_equal(vm->id, restore->result.vm_id);
    assert_int_equal(vm->disk_count, 2);
    for (size_t i = 0; i < 2; i++) {
        struct rp_error err = {0};
        struct rp_chain chain;
        RP_AUTO_FREE char *local = rp_path_map_to_local(fake->host.paths, vm->disks[i].path, &err);
        if (!local || rp_chain_open(rp_fs_posix(), local, &chain, &err))
            fail_msg("%s", err.text);
        const struct image *image = &restore->world.expected[0].disks[vm->disks[i].number - 40];
        RP_AUTO_FREE uint8_t *data = rp_xmalloc(image->size);
        assert_int_equal(rp_vhdx_info(chain.layers[0])->size, image->size);
        assert_int_equal(rp_vhdx_read(chain.layers[0], data, (uint32_t)image->size, 0, &err), 0);
        assert_memory_equal(data, image->data, image->size);
        rp_chain_close(&chain);
    }
}

// The host has neither VMs nor files.
static void start_again(struct restore *restore)
{
    const char *folder = restore->world.folder;
    RP_AUTO_FREE char *remove = rp_xasprintf("rm -r %s/vms %s/exports", folder, folder);
    RP_AUTO_FREE char *empty = rp_xasprintf("rm -r %s/vms/*", folder);
    fake_clear_files(&restore->world.fake);
    assert_int_equal(system(remove), 0);
    fake_use_files(&restore->world.fake, folder);
    assert_int_equal(system(empty), 0);
}

static void an_exported_vm_is_imported_with_its_disks_and_goes_on_incrementally(void **state)
{
    struct restore *restore = *state;
    restore->options.start = true;
    must_run(restore);
    assert_true(restore->result.imported);
    assert_true(restore->result.goes_on);
    assert_int_equal(restore->remarks, 0);
    assert_string_equal(restore->result.vm_id, restore->world.fake.vm.id);
    assert_true(restore->world.fake.planned[0].running);
    assert_non_null(strstr(restore->world.fake.definition, "D:\\VMs\\restored\\Virtual Machines\\"));
    check_disks(restore);
}

static void a_restored_vm_stays_after_a_power_cut(void **state)
{
    struct restore *restore = *state;
    static const char *const below[] = {"", "/Virtual Hard Disks", "/Virtual Machines", "/Virtual Hard Disks/web1-disk0.vhdx"};
    durable_forget();
    must_run(restore);
    struct rp_error err = {0};
    RP_AUTO_FREE char *local = rp_path_map_to_local(restore->world.fake.host.paths, restore->result.folder, &err);
    assert_non_null(local);
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        RP_AUTO_FREE char *path = rp_xasprintf("%s%s", local, below[i]);
        assert_true(durable_name(path));
    }
    assert_true(restore->point.file_count > 0);
    for (size_t i = 0; i < restore->point.file_count; i++) {
        RP_AUTO_FREE char *path = rp_xasprintf("%s/Virtual Machines/%s", local, restore->point.files[i].name);
        assert_true(durable_name(path));
    }
}

static void imported_disks_get_their_own_files_whatever_the_old_ones_were_called(void **state)
{
    struct restore *restore = *state;
#define RESTORED(number) "D:\\VMs\\restored\\Virtual Hard Disks\\web1-disk" number ".vhdx"
    static const char *const names[][2] = {{RESTORED("1"), RESTORED("0")}, {RESTORED("1"), RESTORED("2")},
                                           {RESTORED("7"), RESTORED("0")}, {RESTORED("0"), RESTORED("1")}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        memcpy(restore->world.fake.old_files, names[i], sizeof names[i]);
        must_run(restore);
        check_disks(restore);
        start_again(restore);
    }
}

static void without_an_export_a_vm_is_planned_from_its_saved_settings(void **state)
{
    struct restore *restore = *state;
    must_run(restore);
    assert_false(restore->result.imported);
    assert_false(restore->result.goes_on);
    assert_int_equal(restore->remarks, 1);
    assert_non_null(strstr(restore->remark, "the next backup of this VM will be full"));
    assert_false(restore->world.fake.planned[0].running);
    check_disks(restore);
}

static void a_new_vm_beside_the_old_one_has_its_own_id_and_name(void **state)
{
    struct restore *restore = *state;
    restore->world.fake.gone = false;
    fails(restore, RP_ERR_EXISTS, "--new-id");
    assert_int_equal(files_left(restore), 0);
    restore->options.identity = RP_IDENTITY_NEW;
    restore->options.vm_name = "web1 test";
    must_run(restore);
    assert_string_not_equal(restore->result.vm_id, restore->world.fake.vm.id);
    assert_string_equal(restore->world.fake.planned[0].name, "web1 test");
    assert_false(restore->result.goes_on);
    check_disks(restore);
}

static void the_first_mapped_folder_is_taken_when_none_is_named(void **state)
{
    struct restore *restore = *state;
    restore->options.folder = NULL;
    must_run(restore);
    assert_string_equal(restore->result.folder, "D:\\VMs\\web1");
    check_disks(restore);
}

static void a_configuration_of_another_host_gives_way_to_the_settings(void **state)
{
    struct restore *restore = *state;
    restore->world.fake.foreign_configuration = true;
    must_run(restore);
    assert_false(restore->result.imported);
    assert_int_equal(restore->remarks, 2);
    check_disks(restore);
}

static void a_reference_point_that_the_host_cannot_take_back_is_a_remark(void **state)
{
    struct restore *restore = *state;
    restore->world.fake.lost_reference = true;
    must_run(restore);
    assert_false(restore->result.goes_on);
    assert_int_equal(restore->remarks, 1);
    check_disks(restore);
}

static void the_reference_point_of_another_moment_is_not_taken_for_this_one(void **state)
{
    struct restore *restore = *state;
    strcpy(restore->world.fake.reference_id, "another");
    must_run(restore);
    assert_false(restore->result.goes_on);
    assert_non_null(strstr(restore->remark, "another"));
}

static void files_that_are_there_are_never_overwritten(void **state)
{
    struct restore *restore = *state;
    RP_AUTO_FREE char *command =
        rp_xasprintf("mkdir -p '%s/restored/Virtual Hard Disks' && echo mine >'%s/restored/Virtual Hard Disks/"
                                              "web1-disk1.vhdx'", restore->world.fake.vms, restore->world.fake.vms);
    assert_int_equal(system(command), 0);
    fails(restore, RP_ERR_EXISTS, "never overwritten");
    assert_int_equal(files_left(restore), 3);
}

static void configuration_files_are_written_nowhere_else(void **state)
{
    struct restore *restore = *state;
    static const char *const names[] = {"../evil.vmcx", "a/b.vmcx", "..", "", "C:x.vmcx", ".hidden", "a\\b.vmcx"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        free(restore->point.files[0].name);
        restore->point.files[0].name = rp_xstrdup(names[i]);
        fails(restore, RP_ERR_CORRUPT, "configuration file");
        assert_int_equal(files_left(restore), 0);
    }
}

static void fail_at_every_call(struct restore *restore, bool after, unsigned least)
{
    struct fake_host *fake = &restore->world.fake;
    unsigned failures = 0;
    for (unsigned n = 1;; n++) {
        fake->fail_at = n;
        fake->fail_after = after;
        fake->failed_verb = NULL;
        int result = run(restore);
        fake->fail_at = 0;
        if (!fake->failed_verb) {
            assert_int_equal(result, 0);
            break;
        }
        failures += result != 0;
        if (result) {
            assert_int_equal(files_left(restore), 0);
            assert_int_equal(fake_count_planned(fake, false) + fake_count_planned(fake, true), 0);
            continue;
        }
        // What fails once the VM is there is a remark; that the planned ones cannot be listed matters to nobody then.
        assert_true(restore->remarks > 0 || !strcmp(fake->failed_verb, "list_planned"));
        check_disks(restore);
        start_again(restore);
    }
    assert_true(failures >= least);
    check_disks(restore);
}
static void a_failure_of_any_verb_of_an_import_leaves_neither_vm_nor_file(void **state)
{
    fail_at_every_call(*state, false, 7);
}
static void a_lost_answer_of_any_verb_of_an_import_leaves_neither_vm_nor_file(void **state)
{
    fail_at_every_call(*state, true, 7);
}
static void a_failure_of_any_verb_of_a_plan_leaves_neither_vm_nor_file(void **state) { fail_at_every_call(*state, false,
                                                                                                          5); }
static void a_lost_answer_of_any_verb_of_a_plan_leaves_neither_vm_nor_file(void **state)
{
    fail_at_every_call(*state, true, 5);
}

// With a new id nobody can tell the planned VM by that; it is one that was not there before.
static void with_a_new_id_a_lost_answer_of_an_import_leaves_neither_vm_nor_file(void **state)
{
    ((struct restore *)*state)->options.identity = RP_IDENTITY_NEW;
    fail_at_every_call(*state, true, 7);
}
static void with_a_new_id_a_lost_answer_of_a_plan_leaves_neither_vm_nor_file(void **state)
{
    ((struct restore *)*state)->options.identity = RP_IDENTITY_NEW;
    fail_at_every_call(*state, true, 5);
}

// Plans a VM in the name of somebody else.
static void plan_another(struct restore *restore, bool new_identity)
{
    struct rp_host_connection *host = &restore->world.fake.host;
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    struct rp_error err = {0};
    if (host->ops->plan_system(host, "{\"fake\":true}", NULL, 0, new_identity, job, result, &err))
        fail_msg("%s", err.text);
}

static void lose_the_import(struct fake_host *fake, const char *verb)
{
    fake->fail_after = true;
    if (!strcmp(verb, "import_system"))
        fake->fail_at = fake->calls + 1;
}

static void the_planned_vm_of_somebody_else_is_not_taken_for_ours(void **state)
{
    struct restore *restore = *state;
    struct fake_host *fake = &restore->world.fake;
    plan_another(restore, false);
    fails(restore, RP_ERR_EXISTS, "already");
    assert_int_equal(fake_count_planned(fake, false), 1);
    assert_int_equal(files_left(restore), 0);
    plan_another(restore, true);
    restore->options.identity = RP_IDENTITY_NEW;
    fake->context = restore;
    fake->before = lose_the_import;
    assert_int_equal(run(restore), -1);
    assert_int_equal(fake_count_planned(fake, false), 2);
    assert_true(fake->planned[0].present && fake->planned[1].present);
}

static void take_the_id(struct fake_host *fake, const char *verb)
{
    if (strcmp(verb, "import_system"))
        return;
    fake->before = NULL;
    plan_another(fake->context, false);
}

static void hide_the_planned_and_lose_the_import(struct fake_host *fake, const char *verb)
{
    if (!strcmp(verb, "list_planned") || !strcmp(verb, "import_system"))
        fake->fail_at = fake->calls + 1;
}

static void who_plans_the_same_vm_meanwhile_or_unseen_keeps_it(void **state)
{
    struct restore *restore = *state;
    struct fake_host *fake = &restore->world.fake;
    fake->context = restore;
    fake->before = take_the_id;
    fails(restore, RP_ERR_EXISTS, "already");
    assert_int_equal(fake_count_planned(fake, false), 1);
    assert_int_equal(restore->remarks, 0); // nothing of ours can come
    fake->before = hide_the_planned_and_lose_the_import;
    fails(restore, RP_ERR_IO, "on purpose");
    assert_int_equal(fake_count_planned(fake, false), 1);
    assert_non_null(strstr(restore->remark, "refpoint vm delete"));
    assert_int_equal(files_left(restore), 0);
}

static void plan_two_more(struct fake_host *fake, const char *verb)
{
    struct restore *restore = fake->context;
    if (strcmp(verb, "import_system"))
        return;
    fake->before = NULL;
    plan_another(restore, true);
    plan_another(restore, true);
    fake->fail_at = fake->calls + 1;
    fake->fail_after = true;
}

static void when_several_might_be_ours_none_is_removed_and_all_are_named(void **state)
{
    struct restore *restore = *state;
    struct fake_host *fake = &restore->world.fake;
    restore->options.identity = RP_IDENTITY_NEW;
    fake->context = restore;
    fake->before = plan_two_more;
    assert_int_equal(run(restore), -1);
    assert_int_equal(fake_count_planned(fake, false), 3);
    assert_int_equal(restore->remarks, 1);
    for (size_t i = 0; i < 3; i++)
        assert_non_null(strstr(restore->remark, fake->planned[i].id));
    assert_int_equal(files_left(restore), 0);
}

static void a_vm_gets_its_name_whatever_its_settings_say(void **state)
{
    struct restore *restore = *state; // those of a checkpoint have the name of that
    free(restore->point.vm_name);
    restore->point.vm_name = rp_xstrdup("the name");
    must_run(restore);
    assert_string_equal(restore->world.fake.planned[0].name, "the name");
}

// ---- the dry run ----------------------------------------------------------------------------------------------------

static void preview(struct restore *restore, struct rp_restore_host_preview *preview)
{
    struct rp_error err = {0};
    if (rp_restore_host_preview(&restore->world.fake.host, restore->world.repo, &restore->point, &restore->options,
                                preview, &err))
        fail_msg("%s", err.text);
}

static bool is_told(const struct rp_restore_host_preview *preview, enum rp_code code, const char *text)
{
    for (size_t i = 0; i < preview->problem_count; i++)
        if (preview->problems[i].code == code && strstr(preview->problems[i].text, text))
            return true;
    return false;
}

static void a_dry_run_says_what_would_be_made_and_makes_nothing(void **state)
{
    struct restore *restore = *state;
    RP_CLEANUP(rp_restore_host_preview_clear) struct rp_restore_host_preview plan = {0};
    preview(restore, &plan);
    assert_int_equal(files_left(restore), 0);
    assert_int_equal(fake_count_planned(&restore->world.fake, false), 0);
    assert_int_equal(plan.problem_count, 0);
    assert_string_equal(plan.vm_name, "web1");
    assert_string_equal(plan.folder, "D:\\VMs\\restored");
    assert_true(plan.imported);
    assert_int_equal(plan.files.count, 2);
    assert_int_equal(plan.files.files[1].size, 3 * RP_MIB);
    RP_AUTO_FREE char *on_host = rp_restore_host_preview_disk(&plan, 1);
    assert_string_equal(on_host, "D:\\VMs\\restored\\Virtual Hard Disks\\web1-disk1.vhdx");
    must_run(restore); // and that is where they are
    for (size_t i = 0; i < 2; i++)
        assert_string_equal(restore->result.files.files[i].path, plan.files.files[i].path);
}

static void a_dry_run_names_all_that_does_not_fit(void **state)
{
    struct restore *restore = *state;
    RP_CLEANUP(rp_restore_host_preview_clear) struct rp_restore_host_preview taken = {0}, outside = {0}, deep = {0};
    RP_AUTO_FREE char *command =
        rp_xasprintf("mkdir -p '%s/restored/Virtual Hard Disks' && echo mine >'%s/restored/Virtual Hard Disks/"
                     "web1-disk1.vhdx'", restore->world.fake.vms, restore->world.fake.vms);
    assert_int_equal(system(command), 0);
    restore->world.fake.gone = false;
    preview(restore, &taken);
    assert_int_equal(taken.problem_count, 2);
    assert_true(is_told(&taken, RP_ERR_EXISTS, "--new-id"));
    assert_true(is_told(&taken, RP_ERR_EXISTS, "web1-disk1.vhdx"));
    restore->options.identity = RP_IDENTITY_NEW;
    restore->options.folder = "F:\\elsewhere";
    preview(restore, &outside);
    assert_int_equal(outside.problem_count, 1);
    assert_true(is_told(&outside, RP_ERR_NOT_FOUND, "F:"));
    assert_true(outside.same_name);
    restore->options.folder = "D:\\VMs\\not\\there";
    preview(restore, &deep);
    assert_int_equal(deep.problem_count, 1);
    assert_true(is_told(&deep, RP_ERR_NOT_FOUND, "/not"));
    assert_int_equal(files_left(restore), 3);
}

static int stop_after_the_disks(void *context)
{
    return files_left(context) > 0;
}
static void interrupted_it_leaves_nothing(void **state)
{
    struct restore *restore = *state;
    restore->options.stop = stop_after_the_disks;
    fails(restore, RP_ERR_CANCELLED, "stopped");
    assert_int_equal(files_left(restore), 0);
}

#define EXPORTED(name) cmocka_unit_test_setup_teardown(name, setup_exported, teardown)
#define SETTINGS(name) cmocka_unit_test_setup_teardown(name, setup_settings, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EXPORTED(an_exported_vm_is_imported_with_its_disks_and_goes_on_incrementally),
        EXPORTED(a_restored_vm_stays_after_a_power_cut),
        EXPORTED(imported_disks_get_their_own_files_whatever_the_old_ones_were_called),
        SETTINGS(without_an_export_a_vm_is_planned_from_its_saved_settings),
        EXPORTED(a_new_vm_beside_the_old_one_has_its_own_id_and_name),
        SETTINGS(the_first_mapped_folder_is_taken_when_none_is_named),
        EXPORTED(a_configuration_of_another_host_gives_way_to_the_settings),
        EXPORTED(a_reference_point_that_the_host_cannot_take_back_is_a_remark),
        EXPORTED(the_reference_point_of_another_moment_is_not_taken_for_this_one),
        SETTINGS(files_that_are_there_are_never_overwritten),
        EXPORTED(configuration_files_are_written_nowhere_else),
        EXPORTED(a_failure_of_any_verb_of_an_import_leaves_neither_vm_nor_file),
        EXPORTED(a_lost_answer_of_any_verb_of_an_import_leaves_neither_vm_nor_file),
        SETTINGS(a_failure_of_any_verb_of_a_plan_leaves_neither_vm_nor_file),
        SETTINGS(a_lost_answer_of_any_verb_of_a_plan_leaves_neither_vm_nor_file),
        EXPORTED(with_a_new_id_a_lost_answer_of_an_import_leaves_neither_vm_nor_file),
        SETTINGS(with_a_new_id_a_lost_answer_of_a_plan_leaves_neither_vm_nor_file),
        EXPORTED(the_planned_vm_of_somebody_else_is_not_taken_for_ours),
        EXPORTED(who_plans_the_same_vm_meanwhile_or_unseen_keeps_it),
        EXPORTED(when_several_might_be_ours_none_is_removed_and_all_are_named),
        SETTINGS(a_vm_gets_its_name_whatever_its_settings_say),
        EXPORTED(a_dry_run_says_what_would_be_made_and_makes_nothing),
        EXPORTED(a_dry_run_names_all_that_does_not_fit),
        EXPORTED(interrupted_it_leaves_nothing),
    };
    return cmocka_run_group_tests_name("backup restore to a host", tests, NULL, NULL);
}
