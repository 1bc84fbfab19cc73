// Resources of virtual machines: settings that were saved from a real one, several of them in one call, and what must
// not happen to those that are there.
#include "method-kit.h"

#include <pthread.h>

#include "cim/cimxml.h"
#include "disk/vhdx.h"
#include "hostd/core.h"

#define SIZE (8 * RP_MIB)
#define OLD "8BC4F2A0-5D0E-4F3B-9C11-3F6E5A2B7D10" // the VM on the host that the settings come from
#define CONTROLLER "\\B0F4A7E6-6D1C-4E0A-8B43-0C5E6F0C9D11\\0"
#define NIC "\\D41F9C52-7C55-4F3E-A1B2-96F6E3D0A7C4"

static struct mk mk;
static int start(void **state)
{
    (void)state;
    mk_start(&mk);
    return 0;
}
static int stop(void **state)
{
    (void)state;
    mk_stop(&mk);
    return 0;
}

static void push(struct rp_cim_value *array, char *text)
{
    RP_AUTO_FREE char *taken = text;
    struct rp_cim_value item = rp_cim_string(taken);
    rp_cim_value_push(array, &item);
}

static char *instance_of(const char *owner, const char *suffix)
{
    return rp_xasprintf("Microsoft:%s%s", owner, suffix);
}

static char *path_of(const char *class_name, const char *owner, const char *suffix)
{
    RP_AUTO_FREE char *id = instance_of(owner, suffix);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new("root/virtualization/v2", class_name);
    path->host = rp_xstrdup("HV7");
    rp_cim_path_set(path, "InstanceID", id);
    return mk_path_text(path);
}

// A resource as the other host has it; `parent` may be NULL.
static char *saved(const char *class_name, const char *suffix, unsigned type, const char *sub_type, const char *parent,
                   const char *host_resource)
{
    RP_AUTO_FREE char *id = instance_of(OLD, suffix);
    return mk_embed(class_name, "InstanceID", mk_text("%s", id), "ResourceType",
                    type ? mk_number(type) : rp_cim_null(RP_CIM_UINT16, false), "ResourceSubType",
                    rp_cim_string(sub_type), "Parent", rp_cim_string(parent), "HostResource",
                    host_resource ? mk_texts(host_resource, NULL) : rp_cim_null(RP_CIM_STRING, true), NULL);
}

#define RESOURCE "Msvm_ResourceAllocationSettingData"
#define STORAGE "Msvm_StorageAllocationSettingData"
#define PORT "Msvm_EthernetPortAllocationSettingData"

static const char *const components[] = {
    "Msvm_SyntheticDisplayControllerSettingData",
    "Msvm_ShutdownComponentSettingData",
    "Msvm_TimeSyncComponentSettingData",
    "Msvm_HeartbeatComponentSettingData",
    "Msvm_KvpExchangeComponentSettingData",
    "Msvm_VssComponentSettingData",
    "Msvm_GuestServiceInterfaceComponentSettingData",
    "Msvm_TPMSettingData",
    "Msvm_SecuritySettingData",
    "Msvm_SerialPortSettingData",
};
#define COMPONENTS (sizeof components / sizeof *components)

// All that a generation 2 VM of Windows Server 2022 has, with its disk in `file`.
static struct rp_cim_value real_vm(const char *file)
{
    struct rp_cim_value all = rp_cim_null(RP_CIM_STRING, true);
    RP_AUTO_FREE char *controller = path_of(RESOURCE, OLD, CONTROLLER),
                      *drive = path_of(RESOURCE, OLD, CONTROLLER "\\0\\D"),
                      *dvd = path_of(RESOURCE, OLD, CONTROLLER "\\1\\D"),
                      *nic = path_of("Msvm_SyntheticEthernetPortSettingData", OLD, NIC);
    push(&all, saved("Msvm_ProcessorSettingData", "\\b637f346-6a0e-4dec-af52-bd70cb80a21d\\0", 3,
                     "Microsoft:Hyper-V:Processor", NULL, NULL));
    push(&all, saved("Msvm_MemorySettingData", "\\4764334d-e001-4176-82ee-5594ec9b530e", 4, "Microsoft:Hyper-V:Memory",
                     NULL, NULL));
    push(&all, saved(RESOURCE, CONTROLLER, 6, "Microsoft:Hyper-V:Synthetic SCSI Controller", NULL, NULL));
    push(&all, saved(RESOURCE, CONTROLLER "\\0\\D", 17, "Microsoft:Hyper-V:Synthetic Disk Drive", controller, NULL));
    push(&all, saved(STORAGE, CONTROLLER "\\0\\L", 31, "Microsoft:Hyper-V:Virtual Hard Disk", drive, file));
    push(&all, saved(RESOURCE, CONTROLLER "\\1\\D", 16, "Microsoft:Hyper-V:Synthetic DVD Drive", controller, NULL));
    push(&all,
         saved(STORAGE, CONTROLLER "\\1\\L", 31, "Microsoft:Hyper-V:Virtual CD/DVD Disk", dvd, "D:\\iso\\setup.iso"));
    push(&all, saved(RESOURCE, "\\58F75A6D-D949-4320-99E1-A2A2576D581C\\0", 13, "Microsoft:Hyper-V:Synthetic Keyboard",
                     NULL, NULL));
    push(&all, saved(RESOURCE, "\\AD1C9B4E-5D1A-4F8A-8F1E-2B4A2F6D3C10\\0", 13, "Microsoft:Hyper-V:Synthetic Mouse",
                     NULL, NULL));
    push(&all, saved("Msvm_SyntheticEthernetPortSettingData", NIC, 10, "Microsoft:Hyper-V:Synthetic Ethernet Port",
                     NULL, NULL));
    push(&all, saved(PORT, NIC "\\C", 33, "Microsoft:Hyper-V:Ethernet Connection", nic, "\\\\HV7\\switch"));
    for (size_t i = 0; i < COMPONENTS; i++) {
        RP_AUTO_FREE char *suffix = rp_xasprintf("\\2450EE40-33BF-4FBD-892E-9FB06E92%04zu", i);
        push(&all, saved(components[i], suffix, 0, NULL, NULL, NULL));
    }
    push(&all, mk_embed("Msvm_TimeMachineSettingData", "InstanceID", mk_text("Microsoft:" OLD "\\future\\0"), "Century",
                        mk_number(22), "ElementName", mk_text("of a newer Windows"), NULL));
    return all;
}
#define PARTS (11 + COMPONENTS) // without the one of a class that nobody knows

static uint32_t define(const char *method, const char *name, struct rp_cim_value resources,
                       struct rp_cim_instance **out)
{
    RP_AUTO_FREE char *system = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("%s", name), NULL);
    return mk_call(&mk, MANAGEMENT, method, out, "SystemSettings", mk_text("%s", system), "ResourceSettings", resources,
                   NULL);
}

static struct rp_cim_instance *part(const char *owner, const char *class_name, const char *suffix)
{
    RP_AUTO_FREE char *id = instance_of(owner, suffix);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new("root/virtualization/v2", class_name);
    struct rp_error err = {0};
    rp_cim_path_set(path, "InstanceID", id);
    struct rp_cim_instance *found = rp_cim_find(mk.provider, &mk.caller, path, &err);
    if (!found)
        fail_msg("%s %s: %s", class_name, id, err.text);
    return found;
}

// Where the Parent of one is, there is that one.
static void hangs_on(const char *owner, const char *class_name, const char *suffix, unsigned parent_type)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *child = part(owner, class_name, suffix);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = NULL;
    struct rp_error err = {0};
    const char *text = rp_cim_get_text(child, "Parent");
    if (!text)
        fail_msg("%s has no parent", suffix);
    kit_ok(rp_hostd_paths_parse(text, &path, &err), err);
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *parent = rp_cim_find(mk.provider, &mk.caller, path, &err);
    if (!parent)
        fail_msg("%s hangs on %s: %s", suffix, text, err.text);
    assert_int_equal(rp_cim_get_unsigned(parent, "ResourceType", 0), parent_type);
    assert_non_null(strstr(text, owner));
}

// Everything of the real VM is in the settings `owner` (a GUID), which are `id` to the host.
static void has_everything(const char *owner, const char *id)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    RP_AUTO_FREE char *text = mk_path_text(settings);
    assert_int_equal(
        mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_VirtualSystemSettingDataComponent", text), PARTS);
    for (size_t i = 0; i < COMPONENTS; i++)
        if (mk_count(&mk, "ASSOCIATORS OF {%s} WHERE ResultClass = %s", text, components[i]) != 1)
            fail_msg("%s", components[i]);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *iso = part(owner, STORAGE, CONTROLLER "\\1\\L");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *port = part(owner, PORT, NIC "\\C");
    assert_string_equal(rp_cim_get_text_at(iso, "HostResource", 0), "D:\\iso\\setup.iso");
    assert_int_equal(rp_cim_get_count(port, "HostResource"), 0);
    hangs_on(owner, RESOURCE, CONTROLLER "\\1\\D", 6);
    hangs_on(owner, STORAGE, CONTROLLER "\\1\\L", 16);
    hangs_on(owner, PORT, NIC "\\C", 10);
    RP_AUTO_FREE char *document = rp_hostd_settings_document(mk.hostd, id, &err);
    if (!document)
        fail_msg("%s", err.text);
    RP_AUTO_FREE char *future = rp_xasprintf("Microsoft:%s\\future\\0", owner);
    assert_non_null(strstr(document, "Msvm_TimeMachineSettingData"));
    assert_non_null(strstr(document, "<VALUE>22</VALUE>"));
    assert_non_null(strstr(document, future));
}

static void settings_saved_from_a_real_vm_are_defined_shown_and_go_with_checkpoints_and_exports(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *file = mk_file(&mk, "real.vhdx"), *folder = mk_file(&mk, "export-real");
    kit_vhdx(file, SIZE);
    assert_int_equal(define("DefinePlannedSystem", "real", real_vm(file), &out), 0);
    RP_CLEANUP(rp_cim_path_free_p)
    struct rp_cim_path *planned = rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    const char *id = rp_cim_path_get(planned, "Name");
    // A new identity has a new controller: what hung on the old one hangs on that.
    has_everything(id, id);
    rp_cim_path_free(
        mk_made(&mk, mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL),
                &out, "Msvm_ComputerSystem"));
    has_everything(id, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, 32768, "tag");
    const char *snapshot_id = rp_cim_path_get(snapshot, "InstanceID");
    has_everything(strchr(snapshot_id, ':') + 1, snapshot_id);
    mk_made(&mk, mk_call(&mk, SNAPSHOTS, "DestroySnapshot", &out, "AffectedSnapshot", mk_ref(snapshot), NULL), &out,
            NULL);
    mk_wait_merged(&mk, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemExportSettingData", "CopySnapshotConfiguration",
                                           mk_number(1), "CreateVmExportSubdirectory", mk_flag(false), NULL);
    mk_made(&mk,
            mk_call(&mk, MANAGEMENT, "ExportSystemDefinition", &out, "ComputerSystem", mk_ref(vm), "ExportDirectory",
                    mk_text("%s", folder), "ExportSettingData", mk_text("%s", settings), NULL),
            &out, NULL);
    RP_AUTO_FREE char *definition = kit_path("%s/Virtual Machines/%s.vmcx", folder, id);
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile",
                              mk_text("%s", definition), "GenerateNewSystemIdentifier", mk_flag(true), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *other = mk_made(&mk, status, &out, "Msvm_PlannedComputerSystem");
    has_everything(rp_cim_path_get(other, "Name"), rp_cim_path_get(other, "Name"));
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(other), NULL), &out, NULL);
}

static void a_vm_that_is_defined_at_once_has_the_same_and_one_disk(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *file = mk_file(&mk, "at-once.vhdx");
    kit_vhdx(file, SIZE);
    RP_CLEANUP(rp_cim_path_free_p)
    struct rp_cim_path *vm =
        mk_made(&mk, define("DefineSystem", "at once", real_vm(file), &out), &out, "Msvm_ComputerSystem");
    const char *id = rp_cim_path_get(vm, "Name");
    has_everything(id, id);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_DiskDrive WHERE SystemName = '%s'", id),
                     1); // the medium is none
}

static void the_document_of_a_checkpoint_has_the_name_of_its_vm(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_error err = {0};
    mk_define(&mk, "named", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p)
    struct rp_cim_path *snapshot = mk_snapshot(&mk, id, 32768, "refpoint:repository:job");
    RP_AUTO_FREE char *document = rp_hostd_settings_document(mk.hostd, rp_cim_path_get(snapshot, "InstanceID"), &err);
    if (!document)
        fail_msg("%s", err.text);
    assert_non_null(strstr(document, "<VALUE>named</VALUE>"));
    assert_null(strstr(document, "refpoint:repository:job"));
}

static void a_planned_disk_may_get_its_file_later(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *disk = mk_embed(STORAGE, "ResourceType", mk_number(31), NULL),
                      *file = mk_file(&mk, "later.vhdx");
    assert_int_equal(define("DefineSystem", "no file", mk_texts(disk, NULL), NULL), 4); // nothing to define it with
    assert_int_equal(define("DefinePlannedSystem", "no file yet", mk_texts(disk, NULL), &out), 0);
    RP_CLEANUP(rp_cim_path_free_p)
    struct rp_cim_path *planned = rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
    rp_cim_instance_free(out);
    mk_failed(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL),
              &out, "disk0");
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *is = mk_one(&mk, "SELECT * FROM " STORAGE " WHERE InstanceID LIKE 'Microsoft:%s%%'",
                                        rp_cim_path_get(planned, "Name"));
    kit_vhdx(file, SIZE);
    RP_AUTO_FREE char *placed = mk_embed(STORAGE, "InstanceID", mk_text("%s", rp_cim_get_text(is, "InstanceID")),
                                         "HostResource", mk_texts(file, NULL), NULL);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", NULL, "ResourceSettings", mk_texts(placed, NULL), NULL), 0);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out,
            NULL);
}

// ---- several in one call --------------------------------------------------------------------------------------------

static uint32_t modify(struct rp_cim_value resources, struct rp_cim_instance **out)
{
    return mk_call(&mk, MANAGEMENT, "ModifyResourceSettings", out, "ResourceSettings", resources, NULL);
}

static uint64_t quantity(const char *id, const char *class_name)
{
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *is = mk_one(&mk, "SELECT * FROM %s WHERE InstanceID LIKE 'Microsoft:%s%%'", class_name, id);
    return rp_cim_get_unsigned(is, "VirtualQuantity", 0);
}

static char *with_quantity(const char *class_name, const char *id, const char *suffix, uint64_t number)
{
    return mk_embed(class_name, "InstanceID", mk_text("Microsoft:%s%s", id, suffix), "VirtualQuantity",
                    mk_number(number), NULL);
}

static struct rp_cim_instance *add(const char *id, struct rp_cim_value resources)
{
    struct rp_cim_instance *out;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "AddResourceSettings", &out, "AffectedConfiguration", mk_ref(settings),
                             "ResourceSettings", resources, NULL),
                     0);
    return out;
}

static void several_resources_are_modified_in_order_or_none_of_them(void **state)
{
    (void)state;
    char id[RP_HOST_ID], other[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "several", 1, SIZE, id);
    mk_define(&mk, "another", 0, 0, other);
    RP_AUTO_FREE char *memory = with_quantity("Msvm_MemorySettingData", id, RP_HOSTD_MEMORY, 2048);
    RP_AUTO_FREE char *cpu = with_quantity("Msvm_ProcessorSettingData", id, RP_HOSTD_PROCESSOR, 3);
    assert_int_equal(modify(mk_texts(memory, cpu, NULL), &out), 0);
    assert_int_equal(rp_cim_get_count(out, "ResultingResourceSettings"), 2);
    assert_string_equal(rp_cim_get_path_at(out, "ResultingResourceSettings", 0)->class_name, "Msvm_MemorySettingData");
    assert_string_equal(rp_cim_get_path_at(out, "ResultingResourceSettings", 1)->class_name,
                        "Msvm_ProcessorSettingData");
    rp_cim_instance_free(out);
    RP_AUTO_FREE char *more = with_quantity("Msvm_MemorySettingData", id, RP_HOSTD_MEMORY, 9999);
    RP_AUTO_FREE char *nobody = with_quantity("Msvm_SerialPortSettingData", id, "\\nobody", 1);
    RP_AUTO_FREE char *foreign = with_quantity("Msvm_MemorySettingData", other, RP_HOSTD_MEMORY, 9999);
    RP_AUTO_FREE char *missing = with_quantity("Msvm_ProcessorSettingData", id, "\\b637f346\\1", 9);
    RP_AUTO_FREE char *file = mk_file(&mk, "several-elsewhere.vhdx");
    kit_vhdx(file, SIZE);
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *disk = mk_one(&mk, "SELECT * FROM " STORAGE " WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    RP_AUTO_FREE char *drive = mk_embed(STORAGE, "InstanceID", mk_text("%s", rp_cim_get_text(disk, "InstanceID")),
                                        "HostResource", mk_texts(file, NULL), NULL);
    const struct {
        const char *second;
        uint32_t code;
    } rows[] = {
        {nobody, 32773}, {foreign, 32773}, {missing, 32773}, {drive, 32770}, {"", 32773}, {"<x/>", 32773},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(modify(mk_texts(more, rows[i].second, NULL), NULL), rows[i].code);
        assert_int_equal(quantity(id, "Msvm_MemorySettingData"), 2048);
    }
    assert_int_equal(quantity(other, "Msvm_MemorySettingData"), 1024);
    assert_int_equal(modify(rp_cim_null(RP_CIM_STRING, true), NULL), 32773);
}

static void several_resources_are_added_in_order_and_removed_or_none_of_them(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "adds", 0, 0, id);
    RP_AUTO_FREE char *file = mk_file(&mk, "adds.vhdx");
    kit_vhdx(file, SIZE);
    RP_AUTO_FREE char *nic = mk_embed("Msvm_SyntheticEthernetPortSettingData", "ElementName", mk_text("LAN"), NULL);
    RP_AUTO_FREE char *disk =
        mk_embed(STORAGE, "ResourceType", mk_number(31), "HostResource", mk_texts(file, NULL), NULL);
    RP_AUTO_FREE char *strange = mk_embed("Msvm_TimeMachineSettingData", "Century", mk_number(22), NULL);
    out = add(id, mk_texts(nic, disk, strange, NULL));
    const struct rp_cim_path *paths[] = {rp_cim_get_path_at(out, "ResultingResourceSettings", 0),
                                         rp_cim_get_path_at(out, "ResultingResourceSettings", 1),
                                         rp_cim_get_path_at(out, "ResultingResourceSettings", 2), NULL};
    static const char *const classes[] = {"Msvm_SyntheticEthernetPortSettingData", STORAGE,
                                          "Msvm_TimeMachineSettingData"};
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(paths[i]->class_name, classes[i]);
    // The port names the adapter by the path that it was answered with.
    RP_AUTO_FREE char *parent = mk_path_text(paths[0]);
    RP_AUTO_FREE char *port = mk_embed(PORT, "Parent", mk_text("%s", parent), NULL);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *added = add(id, mk_texts(port, NULL));
    const char *port_id = rp_cim_path_get(rp_cim_get_path_at(added, "ResultingResourceSettings", 0), "InstanceID");
    hangs_on(id, PORT, strchr(port_id, '\\'), 10);
    RP_AUTO_FREE char *job = mk_embed("Msvm_ConcreteJob", NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "AddResourceSettings", NULL, "AffectedConfiguration", mk_ref(settings),
                             "ResourceSettings", mk_texts(nic, job, NULL), NULL),
                     32773);
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_SyntheticEthernetPortSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id),
        1);
    // One that is not there keeps the others.
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *nobody = rp_cim_path_copy(paths[0]);
    RP_AUTO_FREE char *no_id = rp_xasprintf("Microsoft:%s\\nobody", id);
    rp_cim_path_set(nobody, "InstanceID", no_id);
    const struct rp_cim_path *bad[] = {paths[0], nobody};
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", NULL, "ResourceSettings", mk_refs(2, bad), NULL), 32773);
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_SyntheticEthernetPortSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id),
        1);
    struct rp_cim_instance *removed;
    mk_made(&mk,
            mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", &removed, "ResourceSettings", mk_refs(3, paths), NULL),
            &removed, NULL);
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM CIM_ResourceAllocationSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id),
        4); // processor, memory, controller, port
    RP_AUTO_FREE char *document = rp_hostd_settings_document(mk.hostd, id, NULL);
    assert_null(strstr(document, "Century"));
    rp_cim_instance_free(out);
}

static void a_disk_is_not_removed_while_it_is_needed(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "needed", 1, SIZE, id);
    RP_AUTO_FREE char *nic = mk_embed("Msvm_SyntheticEthernetPortSettingData", "ElementName", mk_text("LAN"), NULL);
    out = add(id, mk_texts(nic, NULL));
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *disk = mk_one(&mk, "SELECT * FROM " STORAGE " WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    const struct rp_cim_path *both[] = {rp_cim_get_path_at(out, "ResultingResourceSettings", 0), disk->path};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, 2, "keeps it");
    assert_non_null(snapshot);
    assert_int_equal(
        mk_call(&mk, MANAGEMENT, "RemoveResourceSettings", NULL, "ResourceSettings", mk_refs(2, both), NULL), 32775);
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_SyntheticEthernetPortSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", id),
        1);
    rp_cim_instance_free(out);
}

// ---- what must not happen -------------------------------------------------------------------------------------------

static void more_resources_than_can_be_read_again_are_refused(void **state)
{
    (void)state;
    struct rp_cim_value many = rp_cim_null(RP_CIM_STRING, true), again;
    size_t before = mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData");
    for (size_t i = 0; i < 300; i++)
        push(&many, mk_embed("Msvm_SerialPortSettingData", "ElementName", mk_text("%zu", i), NULL));
    again = rp_cim_value_copy(&many);
    assert_int_equal(define("DefineSystem", "too many", many, NULL), 4);
    assert_int_equal(define("DefinePlannedSystem", "too many", again, NULL), 4);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData"), before);
}

// A job looks again: until it runs, whoever may write to a folder of the host can exchange what was named there. What
// the jobs do is done here with what they would find.
static void what_was_exchanged_for_a_link_after_it_was_named_becomes_no_disk(void **state)
{
    (void)state;
    char id[RP_HOST_ID], job[RP_HOST_ID], made[RP_HOST_ID];
    struct rp_error err = {0};
    mk_define(&mk, "exchanged", 0, 0, id);
    RP_AUTO_FREE char *raw = kit_path("%s/secret.img", mk.folder), *vhdx = kit_path("%s/secret.vhdx", mk.folder),
                      *raw_link = mk_file(&mk, "a.img"), *vhdx_link = mk_file(&mk, "a.vhdx"),
                      *inside = mk_file(&mk, "inside.img"), *inside_link = mk_file(&mk, "b.img"),
                      *folder_link = mk_file(&mk, "above"), *below = mk_file(&mk, "above/secret.img"),
                      *child = mk_file(&mk, "child.vhdx"), *secret = rp_xcalloc(1, RP_MIB);
    kit_write_file(raw, secret, RP_MIB);
    kit_write_file(inside, secret, RP_MIB);
    kit_vhdx(vhdx, SIZE);
    assert_int_equal(symlink(raw, raw_link) | symlink(vhdx, vhdx_link) | symlink(inside, inside_link) |
                         symlink(mk.folder, folder_link), 0);
    struct rp_vhdx *parent = rp_vhdx_open(rp_fs_posix(), vhdx, RP_VHDX_READ, NULL, &err);
    assert_non_null(parent);
    struct rp_vhdx_create create = {.size = SIZE, .parent_path = vhdx, .disk_id = rp_vhdx_info(parent)->disk_id,
                                    .parent_data_write_guid = rp_vhdx_info(parent)->data_write_guid};
    kit_ok(rp_vhdx_create(rp_fs_posix(), child, &create, &err), err);
    rp_vhdx_abandon(parent);
    const char *const files[] = {raw_link, vhdx_link, inside_link, below, child};
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk.hostd, &err);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        kit_fails(host->ops->add_disk(host, id, files[i], job, made, &err), err, RP_ERR_PERMISSION);
        kit_fails(host->ops->define_system(host, "exchanged too", &files[i], 1, NULL, NULL, job, made, &err), err,
                  RP_ERR_PERMISSION);
    }
    rp_hostd_hosts_return(mk.hostd, host);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'exchanged too'"), 0);
    assert_int_equal(mk_count(&mk, "SELECT * FROM " STORAGE " WHERE InstanceID LIKE 'Microsoft:%s%%'", id), 0);
}

// However they came there: by an older version, by somebody's hand.
static void settings_that_cannot_be_read_hide_no_other_vm(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_error err = {0};
    mk_define(&mk, "unreadable", 1, SIZE, id);
    size_t before = mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData");
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk.hostd, &err);
    kit_ok(rp_host_local_set_extras(host, id, "<INSTANCE CLASSNAME=\"x\"><nonsense></INSTANCE>", &err), err);
    rp_hostd_hosts_return(mk.hostd, host);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData"), before);
    assert_int_equal(quantity(id, "Msvm_ProcessorSettingData"), 1);
    host = rp_hostd_hosts_borrow(mk.hostd, &err);
    kit_ok(rp_host_local_set_extras(host, id, "", &err), err);
    rp_hostd_hosts_return(mk.hostd, host);
}

static void a_definition_with_settings_that_cannot_be_read_is_not_imported(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_error err = {0};
    struct rp_cim_instance *out;
    mk_define(&mk, "tampered", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    RP_AUTO_FREE char *folder = mk_file(&mk, "export-tampered");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemExportSettingData", "CopySnapshotConfiguration",
                                           mk_number(1), "CreateVmExportSubdirectory", mk_flag(false), NULL);
    mk_made(&mk,
            mk_call(&mk, MANAGEMENT, "ExportSystemDefinition", &out, "ComputerSystem", mk_ref(vm), "ExportDirectory",
                    mk_text("%s", folder), "ExportSettingData", mk_text("%s", settings), NULL),
            &out, NULL);
    RP_AUTO_FREE char *definition = kit_path("%s/Virtual Machines/%s.vmcx", folder, id);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0}, changed = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), definition, 1 << 20, &text, &err), err);
    const char *all = rp_buf_text(&text), *extras = strstr(all, "\"extras\""),
               *begin = extras ? strchr(extras + 8, '"') : NULL;
    assert_non_null(begin);
    rp_buf_append(&changed, all, (size_t)(begin + 1 - all));
    rp_buf_printf(&changed, "<nonsense");
    const char *end = begin + 1;
    while (*end != '"' || end[-1] == '\\')
        end++;
    rp_buf_append(&changed, end, strlen(end));
    kit_write_file(definition, rp_buf_text(&changed), changed.size);
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile",
                              mk_text("%s", definition), "GenerateNewSystemIdentifier", mk_flag(true), NULL);
    mk_failed(&mk, status, &out, "settings");
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_PlannedComputerSystem WHERE ElementName = 'tampered'"), 0);
}

struct writer {
    const char *id, *class_name, *suffix;
};
#define ROUNDS 25

static void *write_all_the_time(void *context)
{
    const struct writer *writer = context;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        RP_AUTO_FREE char *settings = with_quantity(writer->class_name, writer->id, writer->suffix, i);
        if (modify(mk_texts(settings, NULL), NULL))
            return context;
        if (quantity(writer->id, writer->class_name) != i)
            return context; // somebody who had read before us has written after us
    }
    return NULL;
}

static void methods_that_change_one_vm_at_once_lose_nothing_of_each_other(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "contested", 0, 0, id);
    RP_AUTO_FREE char *nic = mk_embed("Msvm_SyntheticEthernetPortSettingData", "ElementName", mk_text("LAN"), NULL);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *added = add(id, mk_texts(nic, NULL));
    const char *nic_id = rp_cim_path_get(rp_cim_get_path_at(added, "ResultingResourceSettings", 0), "InstanceID");
    struct writer writers[] = {
        {id, "Msvm_ProcessorSettingData", RP_HOSTD_PROCESSOR},
        {id, "Msvm_MemorySettingData", RP_HOSTD_MEMORY},
        {id, "Msvm_SyntheticEthernetPortSettingData", strchr(nic_id, '\\')},
    };
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_all_the_time, &writers[i]), 0);
    void *lost = NULL;
    for (size_t i = 0; i < 3; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        lost = result ? result : lost;
    }
    assert_null(lost);
}

// ---- the firmware's state -------------------------------------------------------------------------------------------

#define STATE "Refpoint_FirmwareStateData"
#define SECRET "c2VjcmV0"

static struct rp_cim_value firmware_state(const char *content)
{
    RP_AUTO_FREE char *nvram = mk_embed(STATE, "Kind", mk_text("nvram"), "Size", mk_number(6), "Content",
                                        mk_text("%s", content), NULL);
    return mk_texts(nvram, NULL);
}

static void the_audit_does_not_tell_what_a_firmware_keeps(void **state)
{
    (void)state;
    char *folder = kit_folder();
    RP_AUTO_FREE char *path = kit_path("%s/audit", folder);
    struct rp_error err = {0};
    struct rp_hostd_audit *others = mk.hostd->audit;
    mk.hostd->audit = rp_hostd_audit_open(path, &err);
    assert_non_null(mk.hostd->audit);
    assert_int_equal(define("DefinePlannedSystem", "told", firmware_state(SECRET), NULL), 0);
    RP_AUTO_FREE char *broken = rp_xasprintf(" <INSTANCE CLASSNAME=\"" STATE "\">" SECRET);
    assert_int_equal(define("DefinePlannedSystem", "told", mk_texts(broken, NULL), NULL), 4);
    rp_hostd_audit_close(mk.hostd->audit);
    mk.hostd->audit = others;
    RP_CLEANUP(rp_buf_clear) struct rp_buf lines = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), path, 1 << 20, &lines, &err), err);
    assert_non_null(strstr(rp_buf_text(&lines), STATE " Content=(not told) Kind=nvram"));
    assert_null(strstr(rp_buf_text(&lines), SECRET));
    kit_remove_folder(folder);
}

static void what_a_firmware_keeps_is_not_for_those_who_may_only_read(void **state)
{
    (void)state;
    struct rp_cim_instance *out;
    assert_int_equal(define("DefinePlannedSystem", "kept", firmware_state(SECRET), &out), 0);
    const char *id = rp_cim_path_get(rp_cim_get_path(out, "ResultingSystem"), "Name");
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *whole = mk_one(&mk, "SELECT * FROM " STATE " WHERE InstanceID LIKE 'Microsoft:%s%%'", id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    RP_AUTO_FREE char *text = mk_path_text(settings);
    static const struct { enum rp_cim_access access; const char *content; } rows[] = {
        {RP_CIM_READ, ""}, {RP_CIM_OPERATE, SECRET}, {RP_CIM_ADMINISTER, SECRET},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mk who = mk;
        who.caller.access = rows[i].access;
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *found =
            rp_cim_find(who.provider, &who.caller, whole->path, NULL);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *listed =
            mk_one(&who, "SELECT * FROM CIM_ResourceAllocationSettingData WHERE InstanceID = '%s'",
                   rp_cim_get_text(whole, "InstanceID"));
        RP_CLEANUP(rp_cim_instance_free_p)
        struct rp_cim_instance *walked = mk_one(&who, "ASSOCIATORS OF {%s} WHERE ResultClass = " STATE, text);
        size_t guessed = mk_count(&who, "SELECT * FROM " STATE " WHERE Content = '" SECRET "' AND InstanceID = '%s'",
                                  rp_cim_get_text(whole, "InstanceID"));
        const struct rp_cim_instance *const seen[] = {found, listed, walked};
        for (size_t j = 0; j < 3; j++) {
            const char *content = seen[j] ? rp_cim_get_text(seen[j], "Content") : "nothing";
            if (strcmp(content ? content : "", rows[i].content))
                fail_msg("access %d, way %zu: %s", rows[i].access, j, content);
            assert_string_equal(rp_cim_get_text(seen[j], "Kind"), "nvram"); // the rest is no secret
        }
        assert_int_equal(guessed, *rows[i].content != 0);
    }
    rp_cim_instance_free(out);
}

// ---- what belongs to a VM -------------------------------------------------------------------------------------------

static void the_checkpoint_that_was_applied_last_is_remembered(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "applied", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id), *first = mk_snapshot(&mk, id, 2, "first");
    RP_AUTO_FREE char *text = mk_path_text(vm), *first_text = mk_path_text(first);
    assert_int_equal(mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_LastAppliedSnapshot", text), 0);
    mk_made(&mk, mk_call(&mk, SNAPSHOTS, "ApplySnapshot", &out, "Snapshot", mk_ref(first), NULL), &out, NULL);
    rp_cim_path_free(mk_snapshot(&mk, id, 2, "younger"));
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *applied =
        mk_one(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_LastAppliedSnapshot", text);
    assert_true(rp_cim_path_equal(applied->path, first));
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *back =
        mk_one(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = CIM_LastAppliedSnapshot", first_text);
    assert_true(rp_cim_path_equal(back->path, vm));
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    RP_AUTO_FREE char *own = mk_path_text(settings); // the note is no resource
    assert_int_equal(
        mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_VirtualSystemSettingDataComponent", own), 5);
    mk_made(&mk, mk_call(&mk, SNAPSHOTS, "DestroySnapshot", &out, "AffectedSnapshot", mk_ref(first), NULL), &out, NULL);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_LastAppliedSnapshot"), 0);
    mk_wait_merged(&mk, id);
}

static void a_vm_has_the_drives_of_its_disks_as_devices(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "devices", 2, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    RP_AUTO_FREE char *text = mk_path_text(vm);
    RP_CLEANUP(rp_cim_instances_clear)
    struct rp_cim_instances drives =
        mk_query(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_SystemDevice ResultClass = CIM_LogicalDevice", text);
    assert_int_equal(drives.count, 2);
    for (size_t i = 0; i < 2; i++) {
        RP_AUTO_FREE char *drive = mk_path_text(drives.items[i]->path);
        assert_string_equal(rp_cim_get_text(drives.items[i], "SystemName"), id);
        assert_int_equal(rp_cim_get_unsigned(drives.items[i], "MaxMediaSize", 0), SIZE / 1024);
        RP_CLEANUP(rp_cim_instance_free_p)
        struct rp_cim_instance *back = mk_one(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_SystemDevice", drive);
        assert_true(rp_cim_path_equal(back->path, vm));
        // DeviceID is the key of the drive's settings
        assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_DiskDrive WHERE SystemName = '%s'", id), 2);
        const char *device = rp_cim_get_text(drives.items[i], "DeviceID");
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = part(id, RESOURCE, strchr(device, '\\'));
        assert_int_equal(rp_cim_get_unsigned(settings, "ResourceType", 0), 17);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_saved_from_a_real_vm_are_defined_shown_and_go_with_checkpoints_and_exports),
        cmocka_unit_test(a_vm_that_is_defined_at_once_has_the_same_and_one_disk),
        cmocka_unit_test(the_document_of_a_checkpoint_has_the_name_of_its_vm),
        cmocka_unit_test(a_planned_disk_may_get_its_file_later),
        cmocka_unit_test(several_resources_are_modified_in_order_or_none_of_them),
        cmocka_unit_test(several_resources_are_added_in_order_and_removed_or_none_of_them),
        cmocka_unit_test(a_disk_is_not_removed_while_it_is_needed),
        cmocka_unit_test(more_resources_than_can_be_read_again_are_refused),
        cmocka_unit_test(what_was_exchanged_for_a_link_after_it_was_named_becomes_no_disk),
        cmocka_unit_test(settings_that_cannot_be_read_hide_no_other_vm),
        cmocka_unit_test(a_definition_with_settings_that_cannot_be_read_is_not_imported),
        cmocka_unit_test(methods_that_change_one_vm_at_once_lose_nothing_of_each_other),
        cmocka_unit_test(the_audit_does_not_tell_what_a_firmware_keeps),
        cmocka_unit_test(what_a_firmware_keeps_is_not_for_those_who_may_only_read),
        cmocka_unit_test(the_checkpoint_that_was_applied_last_is_remembered),
        cmocka_unit_test(a_vm_has_the_drives_of_its_disks_as_devices),
    };
    return cmocka_run_group_tests_name("hostd methods: resources", tests, start, stop);
}
