// The management service: virtual machines, their settings and resources, summaries.
#include "method-kit.h"

#include <sys/stat.h>

#include "wsman/item.h"

#define RECOVERY 32768
#define SIZE (8 * RP_MIB)

static struct mk mk;
static int start(void **state) { (void)state; mk_start(&mk); return 0; }
static int stop(void **state) { (void)state; mk_stop(&mk); return 0; }

static uint32_t define(const char *settings, struct rp_cim_value resources, struct rp_cim_instance **out)
{
    return mk_call(&mk, MANAGEMENT, "DefineSystem", out, "SystemSettings", mk_text("%s", settings), "ResourceSettings",
                   resources, NULL);
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
    RP_AUTO_FREE char *cpu = mk_embed("Msvm_ProcessorSettingData", "ResourceType", mk_number(3), "VirtualQuantity",
                                      mk_number(6), NULL);
    RP_AUTO_FREE char *memory = mk_embed("Msvm_MemorySettingData", "VirtualQuantity", mk_number(3072), NULL);
    RP_AUTO_FREE char *scsi = mk_embed("Msvm_ResourceAllocationSettingData", "ResourceType", mk_number(6), NULL);
    assert_int_equal(define(settings, mk_texts(cpu, memory, scsi, NULL), &out),
                     0); // without disks there is nothing to wait for
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
    RP_AUTO_FREE char *notes = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("Microsoft:%s", id),
                                        "Notes", mk_texts("note", NULL), NULL);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ModifySystemSettings", NULL, "SystemSettings", mk_text("%s", notes), NULL), 0);
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
    RP_AUTO_FREE char *job = mk_embed("Msvm_ConcreteJob", NULL), *other = mk_embed("Msvm_Nonsense", NULL);
    RP_AUTO_FREE char *outside = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31),
                                          "HostResource", mk_texts("/etc/passwd", NULL), NULL);
    RP_AUTO_FREE char *empty = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), NULL);
    RP_AUTO_FREE char *number = mk_embed("Msvm_MemorySettingData", "VirtualQuantity", mk_text("much"), NULL);
    assert_int_equal(define("<x/>", rp_cim_null(RP_CIM_STRING, true), NULL), 4);
    assert_int_equal(define(control, rp_cim_null(RP_CIM_STRING, true), NULL), 4);
    assert_int_equal(define(named, mk_texts(job, NULL), NULL), 4); // no resource
    assert_int_equal(define(named, mk_texts(other, NULL), NULL), 4);
    assert_int_equal(define(named, mk_texts(named, NULL), NULL), 4);
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
    RP_AUTO_FREE char *vm = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("Microsoft:%s", id),
                                     "ElementName", mk_text("after"), NULL);
    RP_AUTO_FREE char *checkpoint = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("%s", instance),
                                             "ElementName", mk_text("refpoint:1:2"), "Notes",
                                             mk_texts("not of a checkpoint", NULL), NULL);
    mk.caller.access = RP_CIM_OPERATE; // enough for a backup's own checkpoints
    uint32_t refused = modify(vm), renamed = modify(checkpoint);
    mk.caller.access = RP_CIM_ADMINISTER;
    assert_int_equal(refused, 32769);
    assert_int_equal(renamed, 0);
    assert_int_equal(modify(vm), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *a = settings_of(id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *b =
        mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = '%s'",
               instance);
    assert_string_equal(rp_cim_get_text(a, "ElementName"), "after");
    assert_string_equal(rp_cim_get_text(b, "ElementName"), "refpoint:1:2");
    assert_int_equal(rp_cim_get_count(b, "Notes"), 0);
    assert_int_equal(modify("<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSettingData\"></INSTANCE>"), 4);
    assert_int_equal(modify(""), 4);
    RP_AUTO_FREE char *nobody = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID",
                                         mk_text("Microsoft:00000000-0000-0000-0000-00000000000A"), NULL);
    RP_AUTO_FREE char *nameless = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("Microsoft:%s", id),
                                           "ElementName", mk_text("%s", ""), NULL);
    RP_AUTO_FREE char *reserved = mk_embed("Msvm_VirtualSystemSettingData", "InstanceID", mk_text("%s", instance),
                                           "ElementName", mk_text("refpoint-hostd export"), NULL);
    assert_int_equal(modify(reserved), 4); // it would be taken away at the next start
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
        if (strcmp(name, "AutomaticStartupAction") &&
            !rp_cim_value_equal(&is->properties[i].value, rp_cim_get(now, name)))
            fail_msg("%s has changed", name);
    }
    assert_int_equal(rp_cim_get_unsigned(now, "AutomaticStartupAction", 0), 3);
}

// ---- resources ------------------------------------------------------------------------------------------------------

static size_t disk_count(const char *id)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    RP_AUTO_FREE char *path = mk_path_text(settings);
    return mk_count(&mk, "ASSOCIATORS OF {%s} WHERE ResultClass = Msvm_StorageAllocationSettingData", path);
}

static uint32_t add(const char *id, struct rp_cim_value resources, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    return mk_call(&mk, MANAGEMENT, "AddResourceSettings", out, "AffectedConfiguration", mk_ref(settings),
                   "ResourceSettings", resources, NULL);
}

static char *new_disk(const char *name)
{
    RP_AUTO_FREE char *file = mk_file(&mk, name);
    kit_vhdx(file, SIZE);
    return mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), "HostResource",
                    mk_texts(file, NULL), NULL);
}

static void disks_are_added_one_by_a_job_and_several_at_once_and_removed(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "disks", 0, 0, id);
    RP_AUTO_FREE char *a = new_disk("add-a.vhdx"), *b = new_disk("add-b.vhdx"), *c = new_disk("add-c.vhdx");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *first =
        mk_made(&mk, add(id, mk_texts(a, NULL), &out), &out,
                "Msvm_StorageAllocationSettingData");
    assert_int_equal(add(id, mk_texts(b, c, NULL), &out), 0);
    assert_int_equal(rp_cim_get_count(out, "ResultingResourceSettings"), 2);
    assert_int_equal(disk_count(id), 3);
    const struct rp_cim_path *both[] = {rp_cim_get_path_at(out, "ResultingResourceSettings", 0), first};
    struct rp_cim_instance *removed;
    uint32_t status = mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", &removed, "ResourceSettings", mk_refs(2, both),
                              NULL);
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
    RP_AUTO_FREE char *bad = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31),
                                      "HostResource", mk_texts(text, NULL), NULL);
    assert_true(add(id, mk_texts(good, bad, NULL), NULL) >= 32768);
    assert_int_equal(disk_count(id), 0);
    assert_int_equal(add(id, rp_cim_null(RP_CIM_STRING, true), NULL), 32773);
    RP_AUTO_FREE char *cpu = mk_embed("Msvm_ProcessorSettingData", NULL);
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
    RP_AUTO_FREE char *drive = mk_embed("Msvm_ResourceAllocationSettingData", "ResourceType", mk_number(17),
                                        "AddressOnParent", mk_text("1"), NULL);
    assert_int_equal(add(id, mk_texts(drive, NULL), &out), 0);
    const struct rp_cim_path *path = rp_cim_get_path_at(out, "ResultingResourceSettings", 0);
    assert_non_null(strstr(rp_cim_path_get(path, "InstanceID"), "\\0\\1\\D"));
    RP_AUTO_FREE char *file = mk_file(&mk, "in-drive.vhdx"), *parent = mk_path_text(path);
    kit_vhdx(file, SIZE);
    rp_cim_instance_free(out);
    RP_AUTO_FREE char *disk = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31), "Parent",
                                       mk_text("%s", parent), "HostResource", mk_texts(file, NULL), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *made =
        mk_made(&mk, add(id, mk_texts(disk, NULL), &out), &out,
                "Msvm_StorageAllocationSettingData");
    assert_non_null(strstr(rp_cim_path_get(made, "InstanceID"), "\\0\\1\\L"));
}

static void processors_memory_and_adapters_are_kept_as_they_were_set(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "kept", 1, SIZE, id);
    RP_AUTO_FREE char *nic = mk_embed("Msvm_SyntheticEthernetPortSettingData", "ElementName", mk_text("LAN"), "Address",
                                      mk_text("00155D000001"), NULL);
    assert_int_equal(add(id, mk_texts(nic, NULL), &out), 0);
    RP_AUTO_FREE char *nic_id = rp_xstrdup(
        rp_cim_path_get(rp_cim_get_path_at(out, "ResultingResourceSettings", 0), "InstanceID"));
    rp_cim_instance_free(out);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *cpu =
        mk_one(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    RP_AUTO_FREE char *eight = mk_embed("Msvm_ProcessorSettingData", "InstanceID",
                                        mk_text("%s", rp_cim_get_text(cpu, "InstanceID")), "VirtualQuantity",
                                        mk_number(8), NULL);
    RP_AUTO_FREE char *renamed = mk_embed("Msvm_SyntheticEthernetPortSettingData", "InstanceID", mk_text("%s", nic_id),
                                          "ElementName", mk_text("DMZ"), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", &out, "ResourceSettings",
                             mk_texts(eight, renamed, NULL), NULL),
                     0);
    assert_int_equal(rp_cim_get_count(out, "ResultingResourceSettings"), 2);
    rp_cim_instance_free(out);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now =
        mk_one(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    assert_int_equal(rp_cim_get_unsigned(now, "VirtualQuantity", 0), 8);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances ports =
        mk_query(&mk, "SELECT * FROM Msvm_SyntheticEthernetPortSettingData WHERE ElementName = 'DMZ'");
    assert_int_equal(ports.count, 1);
    assert_string_equal(rp_cim_get_text(ports.items[0], "Address"), "00155D000001");
    const struct rp_cim_path *gone[] = {ports.items[0]->path};
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", &out, "ResourceSettings", mk_refs(1, gone), NULL),
            &out, NULL);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_SyntheticEthernetPortSettingData WHERE ElementName = 'DMZ'"), 0);
    const struct rp_cim_path *needed[] = {now->path};
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", NULL, "ResourceSettings", mk_refs(1, needed), NULL), 32773);
    RP_AUTO_FREE char *stray = mk_embed("Msvm_ProcessorSettingData", "VirtualQuantity", mk_number(8), NULL);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(stray, NULL), NULL),
        32773);
}

static void the_file_of_a_disk_changes_only_while_its_vm_is_planned(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "fixed file", 1, SIZE, id);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances disks =
        mk_query(&mk, "SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    assert_int_equal(disks.count, 1);
    const char *instance = rp_cim_get_text(disks.items[0], "InstanceID");
    RP_AUTO_FREE char *file = mk_file(&mk, "elsewhere.vhdx");
    kit_vhdx(file, SIZE);
    RP_AUTO_FREE char *other = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID", mk_text("%s", instance),
                                        "HostResource", mk_texts(file, NULL), NULL);
    RP_AUTO_FREE char *same = mk_embed("Msvm_StorageAllocationSettingData", "InstanceID", mk_text("%s", instance),
                                       "HostResource",
                                       mk_texts(rp_cim_get_text_at(disks.items[0], "HostResource", 0), NULL), NULL);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(other, NULL), NULL),
        32770);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(same, NULL), NULL), 0);
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

// ---- the rest -------------------------------------------------------------------------------------------------------

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
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot =
        mk_snapshot(&mk, id, RECOVERY, "its snapshot"),
            *vm = mk_settings(&mk, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *nobody =
        mk_settings(&mk, "00000000-0000-0000-0000-00000000000A");
    const struct rp_cim_path *asked[] = {vm, snapshot, nobody};
    static const uint64_t numbers[] = {1, 4, 100, 103, 107, 109, 9999};
    assert_int_equal(mk_call(&mk, MANAGEMENT, "GetSummaryInformation", &out, "SettingData", mk_refs(3, asked),
                             "RequestedInformation", codes(7, numbers), NULL),
                     0);
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
    assert_true(!rp_cim_get(a, "UpTime") && !rp_cim_get(a, "CreationTime")); // not even as NULL
    assert_string_equal(rp_cim_get_text(b, "ElementName"), "its snapshot");
    assert_true(!rp_cim_get(b, "EnabledState") && !rp_cim_get(b, "Snapshots")); // of VMs only
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
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "GetSummaryInformation", &out, "RequestedInformation", codes(2, numbers), NULL), 0);
    size_t count = mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine'"), seen = 0;
    assert_int_equal(rp_cim_get(out, "SummaryInformation")->count, count);
    for (size_t i = 0; i < count; i++)
        seen += !strncmp(rp_cim_get_text(summary(out, i), "ElementName"), "one of many", 11) &&
                rp_cim_get_unsigned(summary(out, i), "EnabledState", 0) == 3;
    assert_int_equal(seen, 10);
    // An out parameter cannot be paged: 1,000 VMs with what a list shows fit into the 512,000 bytes of an envelope.
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_wsman_write_parameter(&text, RP_URI_STYLE_WMI, "SummaryInformation", rp_cim_get(out, "SummaryInformation"));
    assert_true(text.size / count < 480);
    rp_cim_instance_free(out);
}

// A whole request, as it comes over the wire; the HTTP status.
static unsigned ask_for_summaries(unsigned max_envelope, struct rp_buf *answer)
{
    static const unsigned asked[] = {0, 1, 2, 10, 100, 105, 109, 110, 111, 114, 135, 136};
    static const char uri[] = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/" MANAGEMENT;
    static const char anonymous[] = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
    RP_CLEANUP(rp_buf_clear) struct rp_buf request = {0};
    rp_buf_printf(&request, "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\""
        " xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\""
        " xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" xmlns:p=\"%s\"><s:Header>"
        "<a:To>http://hv1/wsman</a:To><w:ResourceURI>%s</w:ResourceURI><a:ReplyTo><a:Address>%s</a:Address></a:ReplyTo>"
        "<a:Action>%s/GetSummaryInformation</a:Action>"
        "<a:MessageID>uuid:A1B2C3D4-0000-4000-8000-00000000000A</a:MessageID>"
        "<w:MaxEnvelopeSize>%u</w:MaxEnvelopeSize><w:SelectorSet><w:Selector Name=\"CreationClassName\">%s</w:Selector>"
        "</w:SelectorSet></s:Header><s:Body><p:GetSummaryInformation_INPUT>", uri, uri, anonymous, uri, max_envelope,
        MANAGEMENT);
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
        rp_buf_printf(&request, "<p:RequestedInformation>%u</p:RequestedInformation>", asked[i]);
    rp_buf_printf(&request, "</p:GetSummaryInformation_INPUT></s:Body></s:Envelope>");
    return rp_wsman_service_handle(mk.hostd->service, &mk.caller, NULL, rp_buf_text(&request), request.size, answer);
}

static void summaries_that_do_not_fit_the_envelope_are_a_fault_and_no_part_of_them(void **state)
{
    (void)state;
    RP_CLEANUP(rp_buf_clear) struct rp_buf small = {0}, whole = {0};
    assert_int_equal(ask_for_summaries(8192, &small), 500);
    assert_non_null(strstr(rp_buf_text(&small), "EncodingLimit"));
    assert_null(strstr(rp_buf_text(&small), "<p:SummaryInformation"));
    assert_int_equal(ask_for_summaries(512000, &whole), 200);
    size_t count = mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine'"), seen = 0;
    for (const char *entry = rp_buf_text(&whole); (entry = strstr(entry, "<p:SummaryInformation")); entry++)
        seen++;
    assert_int_equal(seen, count);
    assert_null(strstr(rp_buf_text(&whole), "ThumbnailImage"));
}

static uint32_t set_service(const char *property, const char *text)
{
    RP_AUTO_FREE char *settings =
        mk_embed("Msvm_VirtualSystemManagementServiceSettingData", property, mk_text("%s", text), NULL);
    return mk_call(&mk, MANAGEMENT, "ModifyServiceSettings", NULL, "SettingData", mk_text("%s", settings), NULL);
}

static void service_has(const char *property, const char *expected)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now =
        mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemManagementServiceSettingData");
    assert_string_equal(rp_cim_get_text(now, property), expected);
}

static void of_the_service_only_the_default_folders_are_set_and_inside_the_folders(void **state)
{
    (void)state;
    static const char disks[] = "DefaultVirtualHardDiskPath", machines[] = "DefaultExternalDataRoot";
    RP_AUTO_FREE char *folder = mk_file(&mk, "disks"), *file = mk_file(&mk, "a-file"),
                      *missing = mk_file(&mk, "missing"), *out = mk_file(&mk, "leads-out"), *before = rp_xstrdup(mk.files);
    assert_int_equal(mkdir(folder, 0700) | symlink("/etc", out), 0);
    kit_write_file(file, "x", 1);
    service_has(disks, before);
    assert_int_equal(set_service("ElementName", "Hyper-V Virtual System Management Service"), 0); // as it is
    const struct { const char *property, *text; uint32_t code; } rows[] = {
        {disks, "/elsewhere", 32769}, {disks, out, 32769},       {disks, missing, 32773}, {disks, file, 32773},
        {disks, "", 32773},           {machines, "x", 32773},    {machines, "/etc", 32769},
        {"BiosLockString", "x", 32770}, {"ElementName", "x", 32770}, {"NumaSpanningEnabled", "false", 32770},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(set_service(rows[i].property, rows[i].text), rows[i].code);
    // one that is refused keeps the other from being set
    RP_AUTO_FREE char *both = mk_embed("Msvm_VirtualSystemManagementServiceSettingData", disks, mk_text("%s", folder),
                                       "MaximumMacAddress", mk_text("FFFFFFFFFFFF"), NULL);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyServiceSettings", NULL, "SettingData", mk_text("%s", both), NULL),
                     32770);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "ModifyServiceSettings", NULL, "SettingData", mk_text("%s", ""), NULL),
                     32773);
    service_has(disks, before);
    assert_int_equal(set_service(disks, folder), 0);
    assert_int_equal(set_service(machines, folder), 0);
    service_has(disks, folder);
    rp_hostd_stop(mk.hostd); // and they stay
    free(mk.files);
    mk_start_in(&mk, mk.folder);
    service_has(disks, folder);
    service_has(machines, folder);
    assert_int_equal(rmdir(folder), 0); // a folder that is gone is none
    service_has(disks, before);
    mk.caller.access = RP_CIM_OPERATE;
    uint32_t refused = set_service(disks, before);
    mk.caller.access = RP_CIM_ADMINISTER;
    assert_int_equal(refused, 32769);
}

static void the_size_of_system_files_is_that_of_the_settings(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "sized", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings =
        mk_settings(&mk, id),
            *nobody = mk_settings(&mk, "00000000-0000-0000-0000-00000000000A");
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
        cmocka_unit_test(summaries_hold_what_was_asked_for_and_nothing_else),
        cmocka_unit_test(summaries_of_all_vms_are_one_call),
        cmocka_unit_test(summaries_that_do_not_fit_the_envelope_are_a_fault_and_no_part_of_them),
        cmocka_unit_test(of_the_service_only_the_default_folders_are_set_and_inside_the_folders),
        cmocka_unit_test(the_size_of_system_files_is_that_of_the_settings),
    };
    return cmocka_run_group_tests_name("hostd methods: systems", tests, start, stop);
}
