// The management service: virtual machines, their settings and resources, planned ones, export, summaries.
#include "method-kit.h"

#include <sys/stat.h>

#define RECOVERY 32768
#define SIZE (8 * RP_MIB)

static struct mk mk;
static int start(void **state) { (void)state; mk_start(&mk); return 0; }
static int stop(void **state) { (void)state; mk_stop(&mk); return 0; }

static uint32_t define(const char *settings, struct rp_cim_value resources, struct rp_cim_instance **out)
{
    return mk_call(&mk, MANAGEMENT, "DefineSystem", out, "SystemSettings", mk_text("%s", settings), "ResourceSettings", resources, NULL);
}

static struct rp_cim_instance *settings_of(const char *id)
{
    return mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = 'Microsoft:%s'", id);
}

static void a_defined_vm_has_its_name_its_notes_its_processors_and_memory(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("whole"), "Notes",
        mk_texts("first", "second", NULL), "AutomaticStartupAction", mk_number(4), NULL);
    RP_AUTO_FREE char *cpu = mk_embed("Msvm_ProcessorSettingData", "ResourceType", mk_number(3), "VirtualQuantity", mk_number(6), NULL);
    RP_AUTO_FREE char *memory = mk_embed("Msvm_MemorySettingData", "VirtualQuantity", mk_number(3072), NULL);
    RP_AUTO_FREE char *scsi = mk_embed("Msvm_ResourceAllocationSettingData", "ResourceType", mk_number(6), NULL);
    assert_int_equal(define(settings, mk_texts(cpu, memory, scsi, NULL), &out), 0); // without disks there is nothing to wait for
    const struct rp_cim_path *vm = rp_cim_get_path(out, "ResultingSystem");
    assert_non_null(vm);
    const char *id = rp_cim_path_get(vm, "Name");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *is = settings_of(id);
    assert_string_equal(rp_cim_get_text(is, "ElementName"), "whole");
    assert_string_equal(rp_cim_get_text_at(is, "Notes", 1), "second");
    assert_int_equal(rp_cim_get_unsigned(is, "AutomaticStartupAction", 0), 4);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *p =
        mk_one(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *m =
        mk_one(&mk, "SELECT * FROM Msvm_MemorySettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    assert_int_equal(rp_cim_get_unsigned(p, "VirtualQuantity", 0), 6);
    assert_int_equal(rp_cim_get_unsigned(m, "VirtualQuantity", 0), 3072);
    rp_cim_instance_free(out);
}

static void a_vm_like_another_has_its_settings(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "model", 0, 0, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *model = mk_settings(&mk, id);
    RP_AUTO_FREE char *notes = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("Microsoft:%s", id), "Notes", mk_texts("note", NULL), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifySystemSettings", NULL, "SystemSettings", mk_text("%s", notes), NULL), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DefineSystem", &out, "ReferenceConfiguration", mk_ref(model), NULL), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *is =
        settings_of(rp_cim_path_get(rp_cim_get_path(out, "ResultingSystem"), "Name"));
    assert_string_equal(rp_cim_get_text(is, "ElementName"), "New Virtual Machine");
    assert_string_equal(rp_cim_get_text_at(is, "Notes", 0), "note");
    rp_cim_instance_free(out);
}

static void definitions_that_make_no_sense_leave_nothing(void **state)
{
    (void)state;
    size_t before = mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem");
    RP_AUTO_FREE char *named = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("bad"), NULL);
    RP_AUTO_FREE char *control = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("a\tb"), NULL);
    RP_AUTO_FREE char *dvd = mk_embed("Msvm_ResourceAllocationSettingData", "ResourceType", mk_number(16), NULL);
    RP_AUTO_FREE char *outside = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), "HostResource", mk_texts("/etc/passwd", NULL), NULL);
    RP_AUTO_FREE char *empty = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), NULL);
    RP_AUTO_FREE char *number = mk_embed("Msvm_MemorySettingData", "VirtualQuantity", mk_text("much"), NULL);
    assert_int_equal(define("<x/>", rp_cim_null(RP_CIM_STRING, true), NULL), 4);
    assert_int_equal(define(control, rp_cim_null(RP_CIM_STRING, true), NULL), 4);
    assert_int_equal(define(named, mk_texts(dvd, NULL), NULL), 1);
    assert_int_equal(define(named, mk_texts(outside, NULL), NULL), 32769);
    assert_int_equal(define(named, mk_texts(empty, NULL), NULL), 4);
    assert_int_equal(define(named, mk_texts(number, NULL), NULL), 4);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem"), before);
}

static uint32_t modify(const char *settings)
{
    return mk_call(&mk, MANAGEMENT, "ModifySystemSettings", NULL, "SystemSettings", mk_text("%s", settings), NULL);
}

static void vms_and_checkpoints_are_renamed_by_their_settings(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "before", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, RECOVERY, "then");
    const char *instance = rp_cim_path_get(snapshot, "InstanceID");
    RP_AUTO_FREE char *vm = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("Microsoft:%s", id), "ElementName", mk_text("after"), NULL);
    RP_AUTO_FREE char *checkpoint = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("%s", instance), "ElementName",
        mk_text("refpoint:1:2"), "Notes", mk_texts("not of a checkpoint", NULL), NULL);
    mk.caller.access = RP_CIM_OPERATE; // enough for a backup's own checkpoints
    uint32_t refused = modify(vm), renamed = modify(checkpoint);
    mk.caller.access = RP_CIM_ADMINISTER;
    assert_int_equal(refused, 32769);
    assert_int_equal(renamed, 0);
    assert_int_equal(modify(vm), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *a = settings_of(id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *b = mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = '%s'", instance);
    assert_string_equal(rp_cim_get_text(a, "ElementName"), "after");
    assert_string_equal(rp_cim_get_text(b, "ElementName"), "refpoint:1:2");
    assert_int_equal(rp_cim_get_count(b, "Notes"), 0);
    assert_int_equal(modify("<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSettingData\"></INSTANCE>"), 4);
    assert_int_equal(modify(""), 4);
    RP_AUTO_FREE char *nobody = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("Microsoft:00000000-0000-0000-0000-00000000000A"), NULL);
    RP_AUTO_FREE char *nameless = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("Microsoft:%s", id), "ElementName", mk_text("%s", ""), NULL);
    assert_int_equal(modify(nobody), 4);
    assert_int_equal(modify(nameless), 4);
}

// What libvirt sends for autostart, and what every editor does: back comes all that it got, with one thing changed.
static void settings_that_come_back_whole_change_only_what_is_different(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "round trip", 1, SIZE, id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *is = settings_of(id);
    struct rp_cim_instance *change = rp_cim_instance_copy(is);
    rp_cim_set(change, "AutomaticStartupAction", rp_cim_unsigned(RP_CIM_UINT16, 3));
    struct rp_cim_value object = rp_cim_object(change);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_value_text(&object, &text);
    rp_cim_value_clear(&object);
    assert_int_equal(modify(rp_buf_text(&text)), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now = settings_of(id);
    for (size_t i = 0; i < is->count; i++) {
        const char *name = is->properties[i].name;
        if (strcmp(name, "AutomaticStartupAction") && !rp_cim_value_equal(&is->properties[i].value, rp_cim_get(now, name)))
            fail_msg("%s has changed", name);
    }
    assert_int_equal(rp_cim_get_unsigned(now, "AutomaticStartupAction", 0), 3);
}

// ---- resources ---------------------------------------------------------------------------------------------------------

static size_t disk_count(const char *id)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    RP_AUTO_FREE char *path = mk_path_text(settings);
    return mk_count(&mk, "ASSOCIATORS OF {%s} WHERE ResultClass = Msvm_StorageAllocationSettingData", path);
}

static uint32_t add(const char *id, struct rp_cim_value resources, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    return mk_call(&mk, MANAGEMENT, "AddResourceSettings", out, "AffectedConfiguration", mk_ref(settings), "ResourceSettings", resources, NULL);
}

static char *new_disk(const char *name)
{
    RP_AUTO_FREE char *file = mk_file(&mk, name);
    kit_vhdx(file, SIZE);
    return mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), "HostResource", mk_texts(file, NULL), NULL);
}

static void disks_are_added_one_by_a_job_and_several_at_once_and_removed(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "disks", 0, 0, id);
    RP_AUTO_FREE char *a = new_disk("add-a.vhdx"), *b = new_disk("add-b.vhdx"), *c = new_disk("add-c.vhdx");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *first = mk_made(&mk, add(id, mk_texts(a, NULL), &out), &out, "Msvm_StorageAllocationSettingData");
    assert_int_equal(add(id, mk_texts(b, c, NULL), &out), 0);
    assert_int_equal(rp_cim_get_count(out, "ResultingResourceSettings"), 2);
    assert_int_equal(disk_count(id), 3);
    const struct rp_cim_path *both[] = {rp_cim_get_path_at(out, "ResultingResourceSettings", 0), first};
    struct rp_cim_instance *removed;
    uint32_t status = mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", &removed, "ResourceSettings", mk_refs(2, both), NULL);
    mk_made(&mk, status, &removed, NULL);
    assert_int_equal(disk_count(id), 1);
    status = mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", &removed, "ResourceSettings", mk_refs(1, both), NULL);
    assert_int_equal(status, 32773); // gone already
    rp_cim_instance_free(removed);
    rp_cim_instance_free(out);
}

static void what_was_added_before_a_failure_goes_again(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "half", 0, 0, id);
    RP_AUTO_FREE char *good = new_disk("half-a.vhdx"), *text = mk_file(&mk, "half-b.vhdx");
    kit_write_file(text, "no disk", 7);
    RP_AUTO_FREE char *bad = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), "HostResource", mk_texts(text, NULL), NULL);
    assert_true(add(id, mk_texts(good, bad, NULL), NULL) >= 32768);
    assert_int_equal(disk_count(id), 0);
    assert_int_equal(add(id, rp_cim_null(RP_CIM_STRING, true), NULL), 32773);
    RP_AUTO_FREE char *dvd = mk_embed("Msvm_ResourceAllocationSettingData", "ResourceType", mk_number(16), NULL);
    RP_AUTO_FREE char *cpu = mk_embed("Msvm_ProcessorSettingData", NULL);
    assert_int_equal(add(id, mk_texts(dvd, NULL), NULL), 32770);
    assert_int_equal(add(id, mk_texts(cpu, NULL), NULL), 32773);
    assert_int_equal(add(id, mk_texts("", NULL), NULL), 32773);
}

// The way of Hyper-V's own tools: a drive on the controller, then the disk in it.
static void a_drive_may_be_added_before_its_disk(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "drives", 1, SIZE, id);
    RP_AUTO_FREE char *drive = mk_embed("Msvm_ResourceAllocationSettingData", "ResourceType", mk_number(17), "AddressOnParent", mk_text("1"), NULL);
    assert_int_equal(add(id, mk_texts(drive, NULL), &out), 0);
    const struct rp_cim_path *path = rp_cim_get_path_at(out, "ResultingResourceSettings", 0);
    assert_non_null(strstr(rp_cim_path_get(path, "InstanceID"), "\\0\\1\\D"));
    RP_AUTO_FREE char *file = mk_file(&mk, "in-drive.vhdx"), *parent = mk_path_text(path);
    kit_vhdx(file, SIZE);
    rp_cim_instance_free(out);
    RP_AUTO_FREE char *disk = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), "Parent", mk_text("%s", parent), "HostResource", mk_texts(file, NULL), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *made = mk_made(&mk, add(id, mk_texts(disk, NULL), &out), &out, "Msvm_StorageAllocationSettingData");
    assert_non_null(strstr(rp_cim_path_get(made, "InstanceID"), "\\0\\1\\L"));
}

static void processors_memory_and_adapters_are_kept_as_they_were_set(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "kept", 1, SIZE, id);
    RP_AUTO_FREE char *nic = mk_embed("Msvm_SyntheticEthernetPortSettingData", "ElementName", mk_text("LAN"), "Address", mk_text("00155D000001"), NULL);
    assert_int_equal(add(id, mk_texts(nic, NULL), &out), 0);
    RP_AUTO_FREE char *nic_id = rp_xstrdup(rp_cim_path_get(rp_cim_get_path_at(out, "ResultingResourceSettings", 0), "InstanceID"));
    rp_cim_instance_free(out);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *cpu = mk_one(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    RP_AUTO_FREE char *eight = mk_embed("Msvm_ProcessorSettingData", "InstanceID", mk_text("%s", rp_cim_get_text(cpu, "InstanceID")), "VirtualQuantity", mk_number(8), NULL);
    RP_AUTO_FREE char *renamed = mk_embed("Msvm_SyntheticEthernetPortSettingData", "InstanceID", mk_text("%s", nic_id), "ElementName", mk_text("DMZ"), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", &out, "ResourceSettings", mk_texts(eight, renamed, NULL), NULL), 0);
    assert_int_equal(rp_cim_get_count(out, "ResultingResourceSettings"), 2);
    rp_cim_instance_free(out);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now = mk_one(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    assert_int_equal(rp_cim_get_unsigned(now, "VirtualQuantity", 0), 8);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances ports = mk_query(&mk, "SELECT * FROM Msvm_SyntheticEthernetPortSettingData WHERE ElementName = 'DMZ'");
    assert_int_equal(ports.count, 1);
    assert_string_equal(rp_cim_get_text(ports.items[0], "Address"), "00155D000001");
    const struct rp_cim_path *gone[] = {ports.items[0]->path};
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", &out, "ResourceSettings", mk_refs(1, gone), NULL), &out, NULL);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_SyntheticEthernetPortSettingData WHERE ElementName = 'DMZ'"), 0);
    const struct rp_cim_path *needed[] = {now->path};
    assert_int_equal(mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", NULL, "ResourceSettings", mk_refs(1, needed), NULL), 32773);
    RP_AUTO_FREE char *stray = mk_embed("Msvm_ProcessorSettingData", "VirtualQuantity", mk_number(8), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(stray, NULL), NULL), 32773);
}

static void the_file_of_a_disk_changes_only_while_its_vm_is_planned(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "fixed file", 1, SIZE, id);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances disks = mk_query(&mk, "SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    assert_int_equal(disks.count, 1);
    const char *instance = rp_cim_get_text(disks.items[0], "InstanceID");
    RP_AUTO_FREE char *file = mk_file(&mk, "elsewhere.vhdx");
    kit_vhdx(file, SIZE);
    RP_AUTO_FREE char *other = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID", mk_text("%s", instance), "HostResource", mk_texts(file, NULL), NULL);
    RP_AUTO_FREE char *same = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID", mk_text("%s", instance), "HostResource", mk_texts(rp_cim_get_text_at(disks.items[0], "HostResource", 0), NULL), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(other, NULL), NULL), 32770);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(same, NULL), NULL), 0);
}

static void a_destroyed_vm_leaves_its_disks(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "leaves", 1, SIZE, id);
    RP_AUTO_FREE char *file = mk_file(&mk, "leaves-0.vhdx");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(vm), NULL), &out, NULL);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'", id), 0);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DestroySystem", NULL, "AffectedSystem", mk_ref(vm), NULL), 4);
}

// ---- export and import -------------------------------------------------------------------------------------------------

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
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemExportSettingData", "CopySnapshotConfiguration", mk_number(1),
        "CreateVmExportSubdirectory", mk_flag(false), NULL);
    mk_made(&mk, export(id, folder, settings, &out), &out, NULL); // the folder is made
    RP_AUTO_FREE char *file = kit_path("%s/Virtual Machines/%s.vmcx", folder, id);
    assert_int_equal(access(file, F_OK), 0);
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile", mk_text("%s", file),
                              "GenerateNewSystemIdentifier", mk_flag(true), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned = mk_made(&mk, status, &out, "Msvm_PlannedComputerSystem");
    assert_string_not_equal(rp_cim_path_get(planned, "Name"), id);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out, NULL);
    status = mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_made(&mk, status, &out, "Msvm_ComputerSystem");
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_PlannedComputerSystem"), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *own = mk_settings(&mk, rp_cim_path_get(vm, "Name"));
    RP_AUTO_FREE char *disk = mk_disk_path(&mk, own, 1);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(SIZE);
    kit_chain_read(disk, data, SIZE);
    assert_int_equal(data[7 * KIT_UNIT], 77);
    assert_int_equal(strncmp(disk, folder, strlen(folder)), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", NULL, "PlannedSystem", mk_ref(planned), NULL), 32773);
}

static void exports_that_make_no_sense_are_refused_and_leave_nothing(void **state)
{
    (void)state;
    char id[RP_HOST_ID], other[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "senseless", 1, SIZE, id);
    mk_define(&mk, "other", 1, SIZE, other);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, RECOVERY, "s"), *foreign = mk_snapshot(&mk, other, RECOVERY, "s");
    RP_AUTO_FREE char *path = mk_path_text(snapshot), *foreign_path = mk_path_text(foreign), *folder = mk_file(&mk, "export-senseless");
    const char *const class_name = "Msvm_VirtualSystemExportSettingData";
    RP_AUTO_FREE char *good = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3), "SnapshotVirtualSystem", mk_text("%s", path), "CreateVmExportSubdirectory", mk_flag(false), NULL);
    RP_AUTO_FREE char *four = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(4), NULL);
    RP_AUTO_FREE char *missing = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3), NULL);
    RP_AUTO_FREE char *not_its = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3), "SnapshotVirtualSystem", mk_text("%s", foreign_path), NULL);
    RP_AUTO_FREE char *no_base = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3), "SnapshotVirtualSystem", mk_text("%s", path), "DifferentialBackupBase", mk_text("Msvm_VirtualSystemReferencePoint.InstanceID=\"Microsoft:00000000-0000-0000-0000-00000000000A\""), NULL);
    RP_AUTO_FREE char *no_disk = mk_embed(class_name, "CopySnapshotConfiguration", mk_number(3), "SnapshotVirtualSystem", mk_text("%s", path), "ExcludedVirtualHardDisks", mk_texts("Microsoft:x\\y\\L", NULL), NULL);
    RP_AUTO_FREE char *migrate = mk_embed(class_name, "ExportForLiveMigration", mk_flag(true), NULL);
    const struct { const char *settings; uint32_t code; } rows[] = {
        {four, 32773}, {missing, 32773}, {not_its, 32773}, {no_base, 32773}, {no_disk, 32773}, {migrate, 32770}, {"", 32770}, {"x", 32773},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(export(id, folder, rows[i].settings, NULL), rows[i].code);
    assert_int_equal(access(folder, F_OK), -1);
    assert_int_equal(export(id, mk.folder, good, NULL), 32769);
    assert_int_equal(export(id, "", good, NULL), 32773);
    // The name of one of its files is taken: the job fails, and what was there stays.
    RP_AUTO_FREE char *disks = kit_path("%s/Virtual Hard Disks", folder), *taken = kit_path("%s/senseless-0.vhdx", disks);
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
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile", mk_text("%s", text), NULL);
    mk_failed(&mk, status, &out, "definition");
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", NULL, "SystemDefinitionFile", mk_text("%s", missing), NULL), 32773);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", NULL, "SystemDefinitionFile", mk_text("/etc/passwd"), NULL), 32769);
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
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DefinePlannedSystem", &out, "SystemSettings", mk_text("%s", system), "ResourceSettings", resources, NULL), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned = rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    free(system);
    assert_string_equal(rp_cim_path_get(planned, "Name"), id); // the old identity, which is free
    assert_string_equal(planned->class_name, "Msvm_PlannedComputerSystem");
    mk_failed(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out, "restored-later");
    // As in facts 1.5 D: its settings, their disks, their new place.
    RP_AUTO_FREE char *path = mk_path_text(planned);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = mk_one(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_SettingsDefineState", path);
    RP_AUTO_FREE char *settings_path = mk_path_text(settings->path);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *disk = mk_one(&mk, "ASSOCIATORS OF {%s} WHERE ResultClass = Msvm_StorageAllocationSettingData", settings_path);
    RP_AUTO_FREE char *right = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID", mk_text("%s", rp_cim_get_text(disk, "InstanceID")), "HostResource", mk_texts(file, NULL), NULL);
    RP_AUTO_FREE char *wrong = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID", mk_text("%s", rp_cim_get_text(disk, "InstanceID")), "HostResource", mk_texts("/etc/shadow", NULL), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(wrong, NULL), NULL), 32769);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(right, NULL), NULL), 0);
    RP_AUTO_FREE char *name = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("%s", rp_cim_get_text(settings, "InstanceID")), "ElementName", mk_text("restored"), NULL);
    assert_int_equal(modify(name), 0);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out, NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *real = mk_made(&mk, mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out, "Msvm_ComputerSystem");
    assert_string_equal(rp_cim_path_get(real, "Name"), id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now = settings_of(id);
    assert_string_equal(rp_cim_get_text(now, "ElementName"), "restored");
}

static void a_planned_vm_that_is_given_up_is_gone_and_its_files_are_not(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *disk = new_disk("given-up.vhdx"), *file = mk_file(&mk, "given-up.vhdx"), *folder = mk_file(&mk, "no-snapshots");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("given up"), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DefinePlannedSystem", &out, "SystemSettings", mk_text("%s", settings), "ResourceSettings", mk_texts(disk, NULL), NULL), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned = rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSnapshotDefinitions", NULL, "PlannedSystem", mk_ref(planned), "SnapshotFolder", mk_text("%s", folder), NULL), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSnapshotDefinitions", NULL, "PlannedSystem", mk_ref(planned), "SnapshotFolder", mk_text("/etc"), NULL), 32769);
    RP_AUTO_FREE char *one = kit_path("%s/x.vmcx", folder);
    kit_write_file(one, "{}", 2);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ImportSnapshotDefinitions", NULL, "PlannedSystem", mk_ref(planned), "SnapshotFolder", mk_text("%s", folder), NULL), 32770);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(planned), NULL), &out, NULL);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_PlannedComputerSystem"), 0);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", NULL, "PlannedSystem", mk_ref(planned), NULL), 32773);
}

// ---- the rest ----------------------------------------------------------------------------------------------------------

static struct rp_cim_value codes(size_t count, const uint64_t *numbers)
{
    struct rp_cim_value array = rp_cim_null(RP_CIM_UINT32, true);
    for (size_t i = 0; i < count; i++) {
        struct rp_cim_value item = rp_cim_unsigned(RP_CIM_UINT32, numbers[i]);
        rp_cim_value_push(&array, &item);
    }
    return array;
}

static const struct rp_cim_instance *summary(const struct rp_cim_instance *out, size_t i)
{
    const struct rp_cim_value *all = rp_cim_get(out, "SummaryInformation");
    assert_true(all && i < all->count);
    return all->many[i].object;
}

static void summaries_hold_what_was_asked_for_and_nothing_else(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "summed up", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, RECOVERY, "its snapshot"), *vm = mk_settings(&mk, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *nobody = mk_settings(&mk, "00000000-0000-0000-0000-00000000000A");
    const struct rp_cim_path *asked[] = {vm, snapshot, nobody};
    static const uint64_t numbers[] = {1, 4, 100, 103, 107, 109, 9999};
    assert_int_equal(mk_call(&mk, MANAGEMENT, "GetSummaryInformation", &out, "SettingData", mk_refs(3, asked), "RequestedInformation", codes(7, numbers), NULL), 0);
    const struct rp_cim_instance *a = summary(out, 0), *b = summary(out, 1), *c = summary(out, 2);
    assert_string_equal(rp_cim_get_text(a, "Name"), id);
    assert_string_equal(rp_cim_get_text(a, "ElementName"), "summed up");
    assert_int_equal(rp_cim_get_unsigned(a, "NumberOfProcessors", 0), 1);
    assert_int_equal(rp_cim_get_unsigned(a, "EnabledState", 0), 3);
    assert_int_equal(rp_cim_get_unsigned(a, "MemoryUsage", 0), 1024);
    assert_int_equal(rp_cim_get_unsigned(a, "HealthState", 0), 5);
    const struct rp_cim_value *snapshots = rp_cim_get(a, "Snapshots");
    assert_int_equal(snapshots->count, 1);
    assert_string_equal(rp_cim_get_text(snapshots->many[0].object, "ElementName"), "its snapshot");
    assert_true(rp_cim_get(a, "UpTime")->null && rp_cim_get(a, "CreationTime")->null);
    assert_string_equal(rp_cim_get_text(b, "ElementName"), "its snapshot");
    assert_true(rp_cim_get(b, "EnabledState")->null); // of VMs only
    assert_string_equal(rp_cim_get_text(c, "Name"), "");
    rp_cim_instance_free(out);
}

static void summaries_of_all_vms_are_one_call(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    for (int i = 0; i < 10; i++) {
        RP_AUTO_FREE char *name = kit_path("one of many %d", i);
        mk_define(&mk, name, 0, 0, id);
    }
    struct rp_cim_instance *out;
    static const uint64_t numbers[] = {1, 100};
    assert_int_equal(mk_call(&mk, MANAGEMENT, "GetSummaryInformation", &out, "RequestedInformation", codes(2, numbers), NULL), 0);
    size_t count = mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine'"), seen = 0;
    assert_int_equal(rp_cim_get(out, "SummaryInformation")->count, count);
    for (size_t i = 0; i < count; i++)
        seen += !strncmp(rp_cim_get_text(summary(out, i), "ElementName"), "one of many", 11) &&
                rp_cim_get_unsigned(summary(out, i), "EnabledState", 0) == 3;
    assert_int_equal(seen, 10);
    rp_cim_instance_free(out);
}

static void the_settings_of_the_service_stay_as_configured(void **state)
{
    (void)state;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now = mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemManagementServiceSettingData");
    RP_AUTO_FREE char *same = mk_embed("Msvm_VirtualSystemManagementServiceSettingData", "ElementName", mk_text("%s", rp_cim_get_text(now, "ElementName")), NULL);
    RP_AUTO_FREE char *other = mk_embed("Msvm_VirtualSystemManagementServiceSettingData", "DefaultVirtualHardDiskPath", mk_text("/elsewhere"), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyServiceSettings", NULL, "SettingData", mk_text("%s", same), NULL), 0);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyServiceSettings", NULL, "SettingData", mk_text("%s", other), NULL), 32770);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyServiceSettings", NULL, "SettingData", mk_text("%s", ""), NULL), 32773);
}

static void the_size_of_system_files_is_that_of_the_settings(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "sized", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id), *nobody = mk_settings(&mk, "00000000-0000-0000-0000-00000000000A");
    assert_int_equal(mk_call(&mk, MANAGEMENT, "GetSizeOfSystemFiles", &out, "Vssd", mk_ref(settings), NULL), 0);
    assert_true(rp_cim_get_unsigned(out, "Size", 0) > 1000);
    rp_cim_instance_free(out);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "GetSizeOfSystemFiles", NULL, "Vssd", mk_ref(nobody), NULL), 32773);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_defined_vm_has_its_name_its_notes_its_processors_and_memory),
        cmocka_unit_test(a_vm_like_another_has_its_settings),
        cmocka_unit_test(definitions_that_make_no_sense_leave_nothing),
        cmocka_unit_test(vms_and_checkpoints_are_renamed_by_their_settings),
        cmocka_unit_test(settings_that_come_back_whole_change_only_what_is_different),
        cmocka_unit_test(disks_are_added_one_by_a_job_and_several_at_once_and_removed),
        cmocka_unit_test(what_was_added_before_a_failure_goes_again),
        cmocka_unit_test(a_drive_may_be_added_before_its_disk),
        cmocka_unit_test(processors_memory_and_adapters_are_kept_as_they_were_set),
        cmocka_unit_test(the_file_of_a_disk_changes_only_while_its_vm_is_planned),
        cmocka_unit_test(a_destroyed_vm_leaves_its_disks),
        cmocka_unit_test(an_exported_vm_is_imported_as_another_and_realized),
        cmocka_unit_test(exports_that_make_no_sense_are_refused_and_leave_nothing),
        cmocka_unit_test(an_import_of_what_is_no_definition_fails),
        cmocka_unit_test(a_vm_is_planned_from_saved_settings_put_right_and_realized),
        cmocka_unit_test(a_planned_vm_that_is_given_up_is_gone_and_its_files_are_not),
        cmocka_unit_test(summaries_hold_what_was_asked_for_and_nothing_else),
        cmocka_unit_test(summaries_of_all_vms_are_one_call),
        cmocka_unit_test(the_settings_of_the_service_stay_as_configured),
        cmocka_unit_test(the_size_of_system_files_is_that_of_the_settings),
    };
    return cmocka_run_group_tests_name("hostd methods: systems", tests, start, stop);
}
