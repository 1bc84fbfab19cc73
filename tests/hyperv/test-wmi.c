// The WMI connection against a host that answers what a test wants: odd forms of what is answered, settings, exports,
// plans.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cim/cimxml.h"
#include "scene.h"

// ---- what there is --------------------------------------------------------------------------------------------------

static void states_and_activities_are_those_of_the_documentation(void **state)
{
    (void)state;
    static const struct {
        const char *enabled;
        enum rp_vm_state expected;
    } states[] = {{"2", RP_VM_RUNNING},   {"3", RP_VM_OFF},         {"6", RP_VM_SAVED},
                  {"32769", RP_VM_SAVED}, {"9", RP_VM_PAUSED},      {"32768", RP_VM_PAUSED},
                  {"10", RP_VM_RUNNING},  {"32773", RP_VM_RUNNING}, {"1", (enum rp_vm_state)0}};
    struct rp_cim_instance *row = NULL;
    for (size_t i = 0; i < fake->objects[0].count; i++)
        if (rp_cim_get_text(fake->objects[0].items[i], "Name") &&
            !strcmp(rp_cim_get_text(fake->objects[0].items[i], "Name"), FAKE_A))
            row = fake->objects[0].items[i];
    assert_non_null(row);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        fake_set(row, fake, "EnabledState", states[i].enabled);
        good(host->ops->find_vm(host, FAKE_A, &vm, &err));
        assert_int_equal(vm.state, states[i].expected);
        assert_int_equal(vm.activity, RP_VM_IDLE);
    }
    struct rp_cim_value status = rp_cim_null(RP_CIM_UINT16, true), a = rp_cim_unsigned(RP_CIM_UINT16, 11),
                        b = rp_cim_unsigned(RP_CIM_UINT16, 32772);
    rp_cim_value_push(&status, &a);
    rp_cim_value_push(&status, &b);
    rp_cim_set(row, "OperationalStatus", status);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    good(host->ops->list_vms(host, &vms, &err));
    assert_int_equal(vms.count, 1); // the host's own row is none
    assert_int_equal(vms.items[0].activity, RP_VM_MERGING);
}

static void a_name_is_exact_although_wql_is_not(void **state)
{
    (void)state;
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    fake_vm(fake, FAKE_B, "WEB1");
    good(host->ops->find_vm(host, "web1", &vm, &err));
    assert_string_equal(vm.id, FAKE_A);
    rp_vm_clear(&vm);
    bad(host->ops->find_vm(host, "Web1", &vm, &err), RP_ERR_NOT_FOUND, "Web1");
    bad(host->ops->find_vm(host, "x\" OR Name LIKE \"%", &vm, &err), RP_ERR_NOT_FOUND, "no VM");
    good(host->ops->find_vm(host, "a1b2c3d4-0000-4000-8000-00000000000b", &vm, &err));
    assert_string_equal(vm.id, FAKE_B);
}

// Everything that is read of a VM, as text, to compare.
static char *all_of(void)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    good(host->ops->inventory(host, &inventory, &err));
    good(host->ops->list_snapshots(host, FAKE_A, &snapshots, &err));
    good(host->ops->list_reference_points(host, FAKE_A, &points, &err));
    for (size_t i = 0; i < inventory.count; i++) {
        const struct rp_inventory_vm *vm = &inventory.items[i];
        rp_buf_printf(&text, "%s %s %d %zu %zu\n", vm->vm.id, vm->vm.name, (int)vm->vm.state, vm->snapshots.count,
                      vm->points.count);
        for (size_t k = 0; k < vm->settings.disk_count; k++)
            rp_buf_printf(&text, "disk %u %s %s\n", vm->settings.disks[k].number, vm->settings.disks[k].instance,
                          vm->settings.disks[k].path);
    }
    for (size_t i = 0; i < snapshots.count; i++)
        rp_buf_printf(&text, "snapshot %s %s %s %lld\n", snapshots.items[i].id, snapshots.items[i].vm_id,
                      snapshots.items[i].name, (long long)snapshots.items[i].time_ns);
    for (size_t i = 0; i < points.count; i++) {
        rp_buf_printf(&text, "point %s %s\n", points.items[i].id, points.items[i].vm_id);
        for (size_t k = 0; k < points.items[i].disk_count; k++)
            rp_buf_printf(&text, "  %s %s\n", points.items[i].disks[k].instance, points.items[i].disks[k].rct_id);
    }
    return rp_xstrdup(rp_buf_text(&text));
}

static const struct fake_answer facts_answers[] = {{"GetVirtualHardDiskSettingData", disk_facts, 0}, {0}};

static void add_point_with(const char *rct)
{
    fake_point(fake, FAKE_A, POINT, "");
    struct rp_cim_instance *point = fake_find(fake, "Msvm_VirtualSystemReferencePoint", POINT);
    fake_set(point, fake, "VirtualDiskIdentifiers", "Microsoft:" SNAP "\\C0\\0\\0\\L"); // of the snapshot that it was
    if (rct)
        fake_set(point, fake, "ResilientChangeTrackingIdentifiers", rct);
}

static void other_prefixes_other_dates_and_nil_arrays_say_the_same(void **state)
{
    (void)state;
    answers(facts_answers);
    fake_disk(fake, FAKE_A, "C0\\0\\0", "D:\\VMs\\web1.vhdx");
    fake_snapshot(fake, FAKE_A, SNAP, TAG);
    add_point_with("rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001");
    RP_AUTO_FREE char *plain = all_of();
    assert_non_null(strstr(plain, "disk 0 " DISK " D:\\VMs\\web1.vhdx\n"));
    assert_non_null(strstr(plain, "snapshot Microsoft:" SNAP " " FAKE_A " " TAG " 1767323045000000000\n"));
    assert_non_null(strstr(plain, "  " DISK " rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001\n"));
    static const unsigned forms[] = {FAKE_OTHER_PREFIXES, FAKE_NIL_ARRAYS, FAKE_CIM_DATES, FAKE_DMTF_ITEMS,
                                     FAKE_OTHER_PREFIXES | FAKE_NIL_ARRAYS | FAKE_CIM_DATES | FAKE_DMTF_ITEMS};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        fake->form = forms[i];
        RP_AUTO_FREE char *odd = all_of();
        assert_string_equal(odd, plain);
    }
}

static void what_a_host_leaves_out_is_not_made_up(void **state)
{
    (void)state;
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
    fake_snapshot(fake, FAKE_A, SNAP, TAG);
    fake_snapshot(fake, FAKE_A, OTHER_SNAP, "x");
    struct rp_cim_instance *one = fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" SNAP);
    rp_cim_set(one, "CreationTime", rp_cim_null(RP_CIM_DATETIME, false));
    rp_cim_set(one, "ElementName", rp_cim_null(RP_CIM_STRING, false));
    rp_cim_set(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" OTHER_SNAP), "VirtualSystemType",
               rp_cim_null(RP_CIM_STRING, false));
    fake_add(fake, "Msvm_StorageAllocationSettingData",
             "InstanceID=nothing we know;ResourceType=31;ResourceSubType=Microsoft:Hyper-V:Virtual Hard Disk");
    fake_add(
        fake, "Msvm_StorageAllocationSettingData",
        "InstanceID=Microsoft:" FAKE_A
        "\\C0\\0\\1\\L;ResourceType=31;ResourceSubType=Microsoft:Hyper-V:Virtual CD/DVD Disk;HostResource=C:\\a.iso");
    good(host->ops->list_snapshots(host, FAKE_A, &snapshots, &err));
    assert_int_equal(snapshots.count, 1); // without a type it cannot be told from a VM's settings
    assert_int_equal(snapshots.items[0].time_ns, 0);
    assert_string_equal(snapshots.items[0].name, "");
    assert_int_equal(snapshots.items[0].consistency, RP_CONSISTENCY_UNKNOWN);
    good(host->ops->inventory(host, &inventory, &err));
    assert_int_equal(inventory.count, 1);
    assert_int_equal(inventory.items[0].settings.disk_count, 0); // a DVD is no disk
}

static void ids_that_are_none_are_refused(void **state)
{
    (void)state;
    char long_id[400] = "Microsoft:";
    memset(long_id + 10, 'x', sizeof long_id - 11);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    fake_point(fake, FAKE_A, long_id, "");
    bad(host->ops->list_reference_points(host, FAKE_A, &points, &err), RP_ERR_CORRUPT, "reference point");
    assert_int_equal(points.count, 0);
}

static void change_tracking_ids_without_partners_are_not_believed(void **state)
{
    (void)state;
    answers(facts_answers);
    add_point_with(NULL);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    good(host->ops->list_reference_points(host, FAKE_A, &points, &err));
    assert_int_equal(points.count, 1);
    assert_int_equal(points.items[0].disk_count, 1);
    assert_string_equal(points.items[0].disks[0].rct_id, "");
}

static void disks_keep_their_numbers_on_several_controllers(void **state)
{
    (void)state;
    static const char *const places[] = {"F0\\0\\3", "83F8638B-8DCA-4152-9EDA-2CA8B33039B4\\1\\0", "E0\\0\\63",
                                         "83F8638B-8DCA-4152-9EDA-2CA8B33039B4\\0\\1"};
    static const unsigned numbers[] = {1, 64, 128 + 63, 192 + 3};
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
    for (size_t i = 0; i < 4; i++)
        fake_disk(fake, FAKE_A, places[i], "D:\\a.vhdx");
    good(host->ops->inventory(host, &inventory, &err));
    assert_int_equal(inventory.items[0].settings.disk_count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(inventory.items[0].settings.disks[i].number, numbers[i]);
}

static void an_inventory_asks_four_times_however_many_vms_there_are(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
        fake->enumerations = 0;
        good(host->ops->inventory(host, &inventory, &err));
        assert_int_equal(fake->enumerations, 4);
        assert_int_equal(inventory.count, round ? 301 : 1);
        for (unsigned i = 0; !round && i < 300; i++) {
            char guid[RP_GUID_TEXT], name[16];
            snprintf(guid, sizeof guid, "B1B2C3D4-0000-4000-8000-%012X", i);
            snprintf(name, sizeof name, "vm%u", i);
            fake_vm(fake, guid, name);
            fake_disk(fake, guid, "C0\\0\\0", "D:\\a.vhdx");
        }
        for (size_t i = 0; round && i < inventory.count; i++)
            assert_int_equal(inventory.items[i].settings.disk_count, strcmp(inventory.items[i].vm.id, FAKE_A) != 0);
    }
}

static void who_may_not_see_the_services_is_told_what_is_missing(void **state)
{
    (void)state;
    struct rp_cim_instances *objects = &fake->objects[0];
    for (size_t i = 0; i < objects->count; i++)
        if (!strcmp(objects->items[i]->class_name, "Msvm_VirtualSystemSnapshotService")) {
            rp_cim_instance_free(objects->items[i]);
            objects->items[i] = objects->items[--objects->count];
        }
    char job[RP_HOST_ID], result[RP_HOST_ID];
    bad(host->ops->create_snapshot(host, FAKE_A, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, TAG, job, result, &err),
        RP_ERR_PERMISSION, "Hyper-V Administrators");
}

static void who_may_not_see_cimv2_is_told_the_version_all_the_same(void **state)
{
    (void)state;
    fake->no_cimv2 = true;
    RP_CLEANUP(rp_wmi_facts_clear) struct rp_wmi_facts facts = {0};
    good(rp_host_wmi_facts(host, &facts, &err));
    assert_string_equal(facts.os_version, "10.0.20348");
    assert_true(facts.services);
    assert_int_equal(facts.vms, 1);
}

// ---- export, plan, disks --------------------------------------------------------------------------------------------

static void an_export_says_what_products_say(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"ExportSystemDefinition", NULL, 0}, {0}};
    static const char *const excluded[] = {DISK};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    fake_snapshot(fake, FAKE_A, SNAP, TAG);
    fake_point(fake, FAKE_A, POINT, TAG);
    fake_add(fake, "Msvm_VirtualSystemExportSettingData",
             "InstanceID=Microsoft:" FAKE_A "\\export;CopySnapshotConfiguration=0;CaptureLiveState=1");
    fake_add(fake, "Msvm_SystemExportSettingData",
             "ManagedElement=" FAKE_PATH FAKE_SYSTEM(
                 FAKE_A) ";SettingData=" FAKE_PATH "Msvm_VirtualSystemExportSettingData.InstanceID=\"Microsoft:" FAKE_A
                         "\\\\export\"");
    answers(list);
    const struct rp_export what = {.vm_id = FAKE_A,
                                   .snapshot_id = "Microsoft:" SNAP,
                                   .base_point_id = POINT,
                                   .folder = "D:\\Export",
                                   .storage = true,
                                   .excluded = excluded,
                                   .excluded_count = 1};
    good(host->ops->export_system(host, &what, job, result, &err));
    assert_string_equal(rp_cim_get_text(fake->in, "ExportDirectory"), "D:\\Export");
    const char *text = rp_cim_get_text(fake->in, "ExportSettingData");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = rp_cimxml_parse(text, strlen(text), &err);
    assert_int_equal(rp_cim_get_unsigned(settings, "CopySnapshotConfiguration", 0), 3);
    assert_int_equal(rp_cim_get_unsigned(settings, "CaptureLiveState", 9), 1); // what the host had stays
    assert_true(rp_cim_get_boolean(settings, "CopyVmStorage", false));
    assert_false(rp_cim_get_boolean(settings, "CopyVmRuntimeInformation", true));
    assert_false(rp_cim_get_boolean(settings, "CreateVmExportSubdirectory", true));
    assert_string_equal(rp_cim_get_text(settings, "SnapshotVirtualSystem"), FAKE_PATH FAKE_SETTINGS(SNAP));
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *base =
        rp_cim_path_parse(rp_cim_get_text(settings, "DifferentialBackupBase"), &err);
    assert_string_equal(rp_cim_path_get(base, "InstanceID"), POINT);
    assert_string_equal(base->host, "HV1");
    assert_string_equal(rp_cim_get_text(settings, "ExcludedVirtualHardDisks"), DISK);
    assert_true(rp_cim_get_boolean(settings, "DisableDifferentialOfIgnoredStorage", false));
}

static void define_plan(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                        struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path, (void)in;
    rp_cim_set(out, "ResultingSystem", rp_cim_reference(rp_cim_path_parse(FAKE_PATH
        "Msvm_PlannedComputerSystem.CreationClassName=\"Msvm_PlannedComputerSystem\",Name=\"" FAKE_B "\"", NULL)));
    *status = 0;
}

static void saved_settings_become_a_plan_with_other_files(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"GetVirtualHardDiskSettingData", disk_facts, 0}, {"DefinePlannedSystem", define_plan, 0}, {0}};
    static const char *const disks[] = {"E:\\one.vhdx", "E:\\two.vhdx"};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    answers(list);
    fake_disk(fake, FAKE_A, "C0\\0\\0", "D:\\a.vhdx");
    fake_disk(fake, FAKE_A, "C0\\0\\1", "D:\\b.vhdx");
    good(host->ops->vm_settings(host, FAKE_A, &settings, &err));
    assert_int_equal(settings.disk_count, 2);
    assert_int_equal(settings.disks[0].size, 1 << 30);
    assert_non_null(strstr(settings.document, "NAME=\"ResourceType\" TYPE=\"uint16\""));
    *fake->log = 0;
    good(host->ops->plan_system(host, settings.document, disks, 2, true, job, result, &err));
    assert_string_equal(result, FAKE_B);
    assert_string_equal(fake->log, "DefinePlannedSystem ");
    assert_int_equal(rp_cim_get_count(fake->in, "ResourceSettings"), 2);
    for (size_t i = 0; i < 2; i++)
        assert_non_null(strstr(rp_cim_get_text_at(fake->in, "ResourceSettings", i), disks[i]));
    assert_null(strstr(rp_cim_get_text(fake->in, "SystemSettings"), FAKE_A)); // a new identity
    bad(host->ops->plan_system(host, settings.document, disks, 1, true, job, result, &err), RP_ERR_INVALID, "2 disks");
    bad(host->ops->plan_system(host, settings.document, disks, 2, false, job, result, &err), RP_ERR_EXISTS,
        "there already");
    bad(host->ops->plan_system(host, "{\"format\": \"another\"}", disks, 0, true, job, result, &err), RP_ERR_INVALID,
        "Hyper-V");
    bad(host->ops->plan_system(host, "", disks, 0, true, job, result, &err), RP_ERR_INVALID, "do not begin");
    bad(host->ops->plan_system(host, "<INSTANCE CLASSNAME=\"x\"></INSTANCE><INSTANCE", disks, 0, true, job, result,
                               &err),
        RP_ERR_INVALID, "Hyper-V");
    bad(host->ops->plan_system(host, "<!DOCTYPE a><INSTANCE CLASSNAME=\"x\"></INSTANCE>", disks, 0, true, job, result,
                               &err),
        RP_ERR_CORRUPT, "saved settings");
}

static void drives_whose_data_no_checkpoint_holds_are_named(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualHardDiskSettingData", disk_facts, 0}, {0}};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    answers(list);
    fake_disk(fake, FAKE_A, "C0\\0\\0", "D:\\a.vhdx");
    fake_part(fake, FAKE_A, "C0\\0\\0\\D", "Msvm_ResourceAllocationSettingData",
              "ResourceType=17;ResourceSubType=Microsoft:Hyper-V:Synthetic Disk Drive;ElementName=Hard Drive");
    fake_part(fake, FAKE_A, "C0\\0\\1\\D", "Msvm_ResourceAllocationSettingData",
              "ResourceType=17;ResourceSubType=Microsoft:Hyper-V:Physical Disk Drive;ElementName=Hard Drive");
    good(host->ops->vm_settings(host, FAKE_A, &settings, &err));
    assert_int_equal(settings.disk_count, 1);
    assert_int_equal(settings.outside_count, 1);
    assert_string_equal(settings.outside[0], "physical disk \"Hard Drive\" (Microsoft:" FAKE_A "\\C0\\0\\1\\D)");
}

static void planned_disks_get_their_files_by_their_places_in_whatever_order_a_host_lists_them(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"GetVirtualHardDiskSettingData", disk_facts, 0}, {"DefinePlannedSystem", define_plan, 0}, {0}};
    static const char *const places[] = {"C0\\0\\1", "C0\\0\\0", "83F8638B-8DCA-4152-9EDA-2CA8B33039B4\\0\\1"};
    static const char *const disks[] = {"E:\\ide.vhdx", "E:\\slot0.vhdx", "E:\\slot1.vhdx"};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    answers(list);
    for (size_t i = 0; i < 3; i++)
        fake_disk(fake, FAKE_A, places[i], "D:\\a.vhdx");
    good(host->ops->vm_settings(host, FAKE_A, &settings, &err));
    good(host->ops->plan_system(host, settings.document, disks, 3, true, job, result, &err));
    for (size_t i = 0; i < 3; i++) { // as they were listed
        const char *text = rp_cim_get_text_at(fake->in, "ResourceSettings", i);
        assert_non_null(strstr(text, places[i]));
        assert_non_null(strstr(settings.disks[2 - i].instance, places[i]));
        assert_non_null(strstr(text, disks[2 - i]));
    }
}

static void what_a_newer_host_says_is_saved_and_not_given_to_one_that_may_not_know_it(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"DefinePlannedSystem", define_plan, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    rp_cim_set(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" FAKE_A), "PropertyOf2031",
               rp_cim_string("new"));
    answers(list);
    good(host->ops->vm_settings(host, FAKE_A, &settings, &err));
    assert_non_null(strstr(settings.document, "NAME=\"PropertyOf2031\" TYPE=\"string\"><VALUE>new<"));
    good(host->ops->plan_system(host, settings.document, NULL, 0, true, job, result, &err));
    assert_null(strstr(rp_cim_get_text(fake->in, "SystemSettings"), "PropertyOf2031"));
}

static void settings_of_a_checkpoint_are_called_as_the_machine(void **state)
{
    (void)state;
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    answers(facts_answers);
    fake_snapshot(fake, FAKE_A, SNAP, TAG);
    good(host->ops->snapshot_settings(host, "Microsoft:" SNAP, &settings, &err));
    assert_non_null(strstr(settings.document, "NAME=\"ElementName\" TYPE=\"string\"><VALUE>web1<"));
    assert_null(strstr(settings.document, "refpoint:"));
}

static void planned_machines_are_listed_by_themselves(void **state)
{
    (void)state;
    RP_CLEANUP(rp_vms_clear) struct rp_vms planned = {0}, real = {0};
    fake_add(fake, "Msvm_PlannedComputerSystem", "Name=" FAKE_B ";ElementName=plan");
    good(host->ops->list_planned(host, &planned, &err));
    assert_int_equal(planned.count, 1);
    assert_string_equal(planned.items[0].id, FAKE_B);
    assert_string_equal(planned.items[0].name, "plan");
    good(host->ops->list_vms(host, &real, &err));
    assert_int_equal(real.count, 1);
}

static void a_machine_whose_disks_should_go_is_not_destroyed_without_them(void **state)
{
    (void)state;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(NULL);
    bad(host->ops->destroy_system(host, FAKE_A, true, job, result, &err), RP_ERR_UNSUPPORTED, "deletes no disk files");
    assert_string_equal(fake->log, "");
}

static void a_disk_of_a_snapshot_that_cannot_be_looked_at_is_an_error(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualHardDiskSettingData", NULL, 32779}, {0}};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    answers(list);
    fake_disk(fake, FAKE_A, "C0\\0\\0", "D:\\gone.vhdx");
    fake_snapshot(fake, FAKE_A, SNAP, TAG);
    fake_disk(fake, SNAP, "C0\\0\\0", "D:\\gone.avhdx");
    good(host->ops->vm_settings(host, FAKE_A, &settings, &err)); // it does not hide the rest of the VM
    assert_int_equal(settings.disks[0].size, 0);
    rp_vm_settings_clear(&settings);
    bad(host->ops->snapshot_settings(host, "Microsoft:" SNAP, &settings, &err), RP_ERR_NOT_FOUND, "gone.avhdx");
    assert_int_equal(settings.disk_count, 0);
}

static const char *added[8];
static char added_text[8][1024];
static size_t added_count;

static void add_resource(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                         struct rp_cim_instance *out, uint32_t *status)
{
    (void)path;
    static const char *const made[] = {
        "Msvm_ResourceAllocationSettingData.InstanceID=\"Microsoft:" FAKE_A "\\\\C0\"",
        "Msvm_ResourceAllocationSettingData.InstanceID=\"Microsoft:" FAKE_A "\\\\C0\\\\0\\\\0\\\\D\"",
        "Msvm_StorageAllocationSettingData.InstanceID=\"Microsoft:" FAKE_A "\\\\C0\\\\0\\\\0\\\\L\"",
    };
    (void)f;
    snprintf(added_text[added_count], sizeof added_text[0], "%s", rp_cim_get_text(in, "ResourceSettings"));
    added[added_count] = added_text[added_count];
    struct rp_cim_value list = rp_cim_null(RP_CIM_REFERENCE, true);
    RP_AUTO_FREE char *text = rp_xasprintf(FAKE_PATH "%s", made[added_count++]);
    struct rp_cim_value one = rp_cim_reference(rp_cim_path_parse(text, NULL));
    rp_cim_value_push(&list, &one);
    rp_cim_set(out, "ResultingResourceSettings", list);
    *status = 0;
}

static void a_disk_gets_a_controller_and_a_drive_first(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"AddResourceSettings", add_resource, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    added_count = 0;
    good(host->ops->add_disk(host, FAKE_A, "D:\\new.vhdx", job, result, &err));
    assert_int_equal(added_count, 3);
    assert_non_null(strstr(added[0], "Synthetic SCSI Controller"));
    assert_non_null(strstr(added[1], "Synthetic Disk Drive"));
    assert_non_null(strstr(added[1], "C0"));
    assert_non_null(strstr(added[1], "NAME=\"AddressOnParent\" TYPE=\"string\"><VALUE>0<"));
    assert_non_null(strstr(added[2], "Virtual Hard Disk"));
    assert_non_null(strstr(added[2], "\\\\D"));
    assert_non_null(strstr(added[2], "D:\\new.vhdx"));
    assert_string_equal(result, DISK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(states_and_activities_are_those_of_the_documentation),
        SCENE(a_name_is_exact_although_wql_is_not),
        SCENE(other_prefixes_other_dates_and_nil_arrays_say_the_same),
        SCENE(what_a_host_leaves_out_is_not_made_up),
        SCENE(ids_that_are_none_are_refused),
        SCENE(change_tracking_ids_without_partners_are_not_believed),
        SCENE(disks_keep_their_numbers_on_several_controllers),
        SCENE(an_inventory_asks_four_times_however_many_vms_there_are),
        SCENE(who_may_not_see_the_services_is_told_what_is_missing),
        SCENE(who_may_not_see_cimv2_is_told_the_version_all_the_same),
        SCENE(an_export_says_what_products_say),
        SCENE(saved_settings_become_a_plan_with_other_files),
        SCENE(drives_whose_data_no_checkpoint_holds_are_named),
        SCENE(planned_disks_get_their_files_by_their_places_in_whatever_order_a_host_lists_them),
        SCENE(what_a_newer_host_says_is_saved_and_not_given_to_one_that_may_not_know_it),
        SCENE(settings_of_a_checkpoint_are_called_as_the_machine),
        SCENE(planned_machines_are_listed_by_themselves),
        SCENE(a_machine_whose_disks_should_go_is_not_destroyed_without_them),
        SCENE(a_disk_of_a_snapshot_that_cannot_be_looked_at_is_an_error),
        SCENE(a_disk_gets_a_controller_and_a_drive_first),
    };
    return cmocka_run_group_tests_name("wmi", tests, NULL, NULL);
}
