// Export, import and planned virtual machines: the management service's way of moving VMs.
#include "method-kit.h"

#include <sys/stat.h>

#define RECOVERY 32768
#define SIZE (8 * RP_MIB)

static struct mk mk;
static int start(void **state) { (void)state; mk_start(&mk); return 0; }
static int stop(void **state) { (void)state; mk_stop(&mk); return 0; }

static struct rp_cim_instance *settings_of(const char *id)
{
    return mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = 'Microsoft:%s'", id);
}

static uint32_t modify(const char *settings)
{
    return mk_call(&mk, MANAGEMENT, "ModifySystemSettings", NULL, "SystemSettings", mk_text("%s", settings), NULL);
}

static char *new_disk(const char *name)
{
    RP_AUTO_FREE char *file = mk_file(&mk, name);
    kit_vhdx(file, SIZE);
    return mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), "HostResource",
                    mk_texts(file, NULL), NULL);
}

static uint32_t export(const char *id, const char *folder, const char *settings, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    return mk_call(&mk, MANAGEMENT, "ExportSystemDefinition", out, "ComputerSystem", mk_ref(vm), "ExportDirectory",
                   mk_text("%s", folder), "ExportSettingData", mk_text("%s", settings), NULL);
}

static void an_exported_vm_is_imported_as_another_and_realized(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "travels", 2, SIZE, id);
    mk_write(&mk, id, 1, 7, 1, 1, 77);
    RP_AUTO_FREE char *folder = mk_file(&mk, "export-travels");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemExportSettingData", "CopySnapshotConfiguration",
                                           mk_number(1), "CreateVmExportSubdirectory", mk_flag(false), NULL);
    mk_made(&mk, export(id, folder, settings, &out), &out, NULL); // the folder is made
    RP_AUTO_FREE char *file = kit_path("%s/Virtual Machines/%s.vmcx", folder, id);
    assert_int_equal(access(file, F_OK), 0);
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile",
                              mk_text("%s", file), "GenerateNewSystemIdentifier", mk_flag(true), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned =
        mk_made(&mk, status, &out, "Msvm_PlannedComputerSystem");
    assert_string_not_equal(rp_cim_path_get(planned, "Name"), id);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out,
            NULL);
    status = mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_made(&mk, status, &out, "Msvm_ComputerSystem");
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_PlannedComputerSystem"), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *own = mk_settings(&mk, rp_cim_path_get(vm, "Name"));
    RP_AUTO_FREE char *disk = mk_disk_path(&mk, own, 1);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(SIZE);
    kit_chain_read(disk, data, SIZE);
    assert_int_equal(data[7 * KIT_UNIT], 77);
    assert_int_equal(strncmp(disk, folder, strlen(folder)), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", NULL, "PlannedSystem", mk_ref(planned), NULL),
                     32773);
}

static void exports_that_make_no_sense_are_refused_and_leave_nothing(void **state)
{
    (void)state;
    char id[RP_HOST_ID], other[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "senseless", 1, SIZE, id);
    mk_define(&mk, "other", 1, SIZE, other);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot =
        mk_snapshot(&mk, id, RECOVERY, "s"),
            *foreign = mk_snapshot(&mk, other, RECOVERY, "s");
    RP_AUTO_FREE char *path = mk_path_text(snapshot), *foreign_path = mk_path_text(foreign),
                      *folder = mk_file(&mk, "export-senseless");
    const char *const class_name = "Msvm_VirtualSystemExportSettingData";
    RP_AUTO_FREE char *good = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3), "SnapshotVirtualSystem",
                                       mk_text("%s", path), "CreateVmExportSubdirectory", mk_flag(false), NULL);
    RP_AUTO_FREE char *four = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(4), NULL);
    RP_AUTO_FREE char *missing = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3), NULL);
    RP_AUTO_FREE char *not_its = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3),
                                          "SnapshotVirtualSystem", mk_text("%s", foreign_path), NULL);
    RP_AUTO_FREE char *no_base = mk_embed(
        class_name, "CopySnapshotConfiguration", mk_number(3), "SnapshotVirtualSystem", mk_text("%s", path),
        "DifferentialBackupBase",
        mk_text("Msvm_VirtualSystemReferencePoint.InstanceID=\"Microsoft:00000000-0000-0000-0000-00000000000A\""),
        NULL);
    RP_AUTO_FREE char *no_disk = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3),
                                          "SnapshotVirtualSystem", mk_text("%s", path), "ExcludedVirtualHardDisks",
                                          mk_texts("Microsoft:x\\y\\L", NULL), NULL);
    RP_AUTO_FREE char *migrate = mk_embed(class_name, "ExportForLiveMigration", mk_flag(true), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *user = mk_snapshot(&mk, id, 2, "of a user");
    RP_AUTO_FREE char *user_path = mk_path_text(user);
    RP_AUTO_FREE char *no_backup = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3),
                                            "SnapshotVirtualSystem", mk_text("%s", user_path), NULL);
    const struct {
        const char *settings;
        uint32_t code;
    } rows[] = {
        {four, 32773},    {missing, 32773}, {not_its, 32773}, {no_base, 32773},   {no_disk, 32773},
        {migrate, 32770}, {"", 32770},      {"x", 32773},     {no_backup, 32773},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(export(id, folder, rows[i].settings, NULL), rows[i].code);
    assert_int_equal(access(folder, F_OK), -1);
    assert_int_equal(export(id, mk.folder, good, NULL), 32769);
    assert_int_equal(export(id, "", good, NULL), 32773);
    // The name of one of its files is taken: the job fails, and what was there stays.
    RP_AUTO_FREE char *disks = kit_path("%s/Virtual Hard Disks", folder),
                      *taken = kit_path("%s/senseless-0.vhdx", disks);
    assert_int_equal(mkdir(folder, 0700) | mkdir(disks, 0700), 0);
    kit_write_file(taken, "mine", 4);
    mk_failed(&mk, export(id, folder, good, &out), &out, "senseless-0.vhdx");
    struct stat st;
    assert_int_equal(stat(taken, &st), 0);
    assert_int_equal(st.st_size, 4);
    RP_AUTO_FREE char *definition = kit_path("%s/Virtual Machines/%s.vmcx", folder, id);
    assert_int_equal(access(definition, F_OK), -1);
}

static void an_import_of_what_is_no_definition_fails(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *text = mk_file(&mk, "nothing.vmcx"), *missing = mk_file(&mk, "missing.vmcx");
    kit_write_file(text, "{}", 2);
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile",
                              mk_text("%s", text), NULL);
    mk_failed(&mk, status, &out, "definition");
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", NULL, "SystemDefinitionFile", mk_text("%s", missing), NULL),
        32773);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", NULL, "SystemDefinitionFile", mk_text("/etc/passwd"), NULL),
        32769);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", NULL, NULL), 32773);
}

// From settings as a restore point keeps them: the disks lie somewhere else by then.
static void a_vm_is_planned_from_saved_settings_put_right_and_realized(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_error err = {0};
    struct rp_cim_instance *out;
    mk_define(&mk, "saved", 1, SIZE, id);
    RP_AUTO_FREE char *document = rp_hostd_settings_document(mk.hostd, id, &err);
    assert_non_null(document);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(vm), NULL), &out, NULL);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances parts = {0};
    kit_ok(rp_hostd_extras_parse(document, &parts, &err), err);
    RP_AUTO_FREE char *file = mk_file(&mk, "restored.vhdx"), *later = mk_file(&mk, "restored-later.vhdx");
    kit_vhdx(file, SIZE);
    char *system = NULL;
    struct rp_cim_value resources = rp_cim_null(RP_CIM_STRING, true);
    for (size_t i = 0; i < parts.count; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        if (!strcmp(parts.items[i]->class_name, "Msvm_StorageAllocationSettingData"))
            rp_cim_set(parts.items[i], "HostResource", mk_texts(later, NULL));
        struct rp_cim_value object = {.type = RP_CIM_OBJECT, .one.object = parts.items[i]};
        rp_cim_value_text(&object, &text);
        struct rp_cim_value item = rp_cim_string(rp_buf_text(&text));
        if (!strcmp(parts.items[i]->class_name, "Msvm_VirtualSystemSettingData") && !system)
            system = rp_xstrdup(item.one.text);
        else if (strcmp(parts.items[i]->class_name, "Msvm_VirtualSystemSettingData")) {
            rp_cim_value_push(&resources, &item);
            continue;
        }
        rp_cim_value_clear(&item);
    }
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DefinePlannedSystem", &out, "SystemSettings", mk_text("%s", system),
                             "ResourceSettings", resources, NULL),
                     0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned =
        rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    free(system);
    assert_string_equal(rp_cim_path_get(planned, "Name"), id); // the old identity, which is free
    assert_string_equal(planned->class_name, "Msvm_PlannedComputerSystem");
    mk_failed(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL),
              &out, "restored-later");
    // As in facts 1.5 D: its settings, their disks, their new place.
    RP_AUTO_FREE char *path = mk_path_text(planned);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        mk_one(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_SettingsDefineState",
               path);
    RP_AUTO_FREE char *settings_path = mk_path_text(settings->path);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *disk =
        mk_one(&mk, "ASSOCIATORS OF {%s} WHERE ResultClass = Msvm_StorageAllocationSettingData", settings_path);
    RP_AUTO_FREE char *right = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID",
                                        mk_text("%s", rp_cim_get_text(disk, "InstanceID")), "HostResource",
                                        mk_texts(file, NULL), NULL);
    RP_AUTO_FREE char *wrong = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID",
                                        mk_text("%s", rp_cim_get_text(disk, "InstanceID")), "HostResource",
                                        mk_texts("/etc/shadow", NULL), NULL);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(wrong, NULL), NULL),
        32769);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(right, NULL), NULL), 0);
    RP_AUTO_FREE char *name = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID",
                                       mk_text("%s", rp_cim_get_text(settings, "InstanceID")), "ElementName",
                                       mk_text("restored"), NULL);
    assert_int_equal(modify(name), 0);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out,
            NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *real =
        mk_made(&mk, mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL),
                &out, "Msvm_ComputerSystem");
    assert_string_equal(rp_cim_path_get(real, "Name"), id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now = settings_of(id);
    assert_string_equal(rp_cim_get_text(now, "ElementName"), "restored");
}

// What is in the folders decides nothing: a definition that lies at their root has its disks beside them, and a file
// that comes later may have a parent anywhere.
static void a_plan_does_not_reach_out_of_the_folders(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_error err = {0};
    struct rp_cim_instance *out;
    mk_define(&mk, "reaches", 1, SIZE, id);
    RP_AUTO_FREE char *folder = mk_file(&mk, "export-reaches"), *moved = mk_file(&mk, "definition.vmcx");
    RP_AUTO_FREE char *definition = kit_path("%s/Virtual Machines/%s.vmcx", folder, id);
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemExportSettingData", "CopySnapshotConfiguration",
                                           mk_number(1), "CreateVmExportSubdirectory", mk_flag(false), NULL);
    mk_made(&mk, export(id, folder, settings, &out), &out, NULL);
    RP_AUTO_FREE char *disks = kit_path("%s/Virtual Hard Disks", folder),
                      *outside = kit_path("%s/Virtual Hard Disks", mk.folder);
    assert_int_equal(rename(definition, moved) | rename(disks, outside), 0);
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile",
                              mk_text("%s", moved), "GenerateNewSystemIdentifier", mk_flag(true), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned =
        mk_made(&mk, status, &out, "Msvm_PlannedComputerSystem");
    static const char *const methods[] = {"ValidatePlannedSystem", "RealizePlannedSystem"};
    for (size_t i = 0; i < 2; i++)
        mk_failed(&mk, mk_call(&mk, MANAGEMENT, methods[i], &out, "PlannedSystem", mk_ref(planned), NULL), &out,
                  "outside");
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(planned), NULL), &out, NULL);

    RP_AUTO_FREE char *later = mk_file(&mk, "later.vhdx"), *secret = kit_path("%s/secret.vhdx", mk.folder);
    RP_AUTO_FREE char *disk = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31),
                                       "HostResource", mk_texts(later, NULL), NULL);
    RP_AUTO_FREE char *system = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("later"), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DefinePlannedSystem", &out, "SystemSettings", mk_text("%s", system),
                             "ResourceSettings", mk_texts(disk, NULL), NULL), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *plan = rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    kit_vhdx(secret, SIZE);
    struct rp_vhdx *parent = rp_vhdx_open(rp_fs_posix(), secret, RP_VHDX_READ, NULL, &err);
    assert_non_null(parent);
    struct rp_vhdx_create create = {.size = SIZE, .parent_path = secret, .disk_id = rp_vhdx_info(parent)->disk_id,
                                    .parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid};
    kit_ok(rp_vhdx_create(rp_fs_posix(), later, &create, &err), err);
    rp_vhdx_abandon(parent);
    for (size_t i = 0; i < 2; i++)
        mk_failed(&mk, mk_call(&mk, MANAGEMENT, methods[i], &out, "PlannedSystem", mk_ref(plan), NULL), &out,
                  "outside");
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(plan), NULL), &out, NULL);
}

static void an_identity_that_is_taken_is_not_planned_again(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "taken", 0, 0, id);
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("twin"),
                                           "VirtualSystemIdentifier", mk_text("%s", id), NULL);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "DefinePlannedSystem", &out, "SystemSettings", mk_text("%s", settings), NULL), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned =
        rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    assert_string_not_equal(rp_cim_path_get(planned, "Name"), id);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(planned), NULL), &out, NULL);
}

static void a_planned_vm_that_is_given_up_is_gone_and_its_files_are_not(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *disk = new_disk("given-up.vhdx"), *file = mk_file(&mk, "given-up.vhdx"),
                      *folder = mk_file(&mk, "no-snapshots");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("given up"), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DefinePlannedSystem", &out, "SystemSettings", mk_text("%s", settings),
                             "ResourceSettings", mk_texts(disk, NULL), NULL),
                     0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned =
        rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSnapshotDefinitions", NULL, "PlannedSystem", mk_ref(planned),
                             "SnapshotFolder", mk_text("%s", folder), NULL),
                     0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSnapshotDefinitions", NULL, "PlannedSystem", mk_ref(planned),
                             "SnapshotFolder", mk_text("/etc"), NULL),
                     32769);
    RP_AUTO_FREE char *one = kit_path("%s/x.vmcx", folder);
    kit_write_file(one, "{}", 2);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSnapshotDefinitions", NULL, "PlannedSystem", mk_ref(planned),
                             "SnapshotFolder", mk_text("%s", folder), NULL),
                     32770);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(planned), NULL), &out, NULL);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_PlannedComputerSystem"), 0);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", NULL, "PlannedSystem", mk_ref(planned), NULL),
                     32773);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_exported_vm_is_imported_as_another_and_realized),
        cmocka_unit_test(exports_that_make_no_sense_are_refused_and_leave_nothing),
        cmocka_unit_test(an_import_of_what_is_no_definition_fails),
        cmocka_unit_test(a_vm_is_planned_from_saved_settings_put_right_and_realized),
        cmocka_unit_test(a_plan_does_not_reach_out_of_the_folders),
        cmocka_unit_test(an_identity_that_is_taken_is_not_planned_again),
        cmocka_unit_test(a_planned_vm_that_is_given_up_is_gone_and_its_files_are_not),
    };
    return cmocka_run_group_tests_name("hostd methods: planned systems", tests, start, stop);
}
