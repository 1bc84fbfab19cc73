// What a host has, as clients find it: classes, keys, associations (facts/wmi.md 1.2, 1.3, 1.5, 3.1).
#include "method-kit.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "cim/cimxml.h"
#include "hostd/core.h"

#define DISK (4 * RP_MIB)
#define WALK "ASSOCIATORS OF {%s} WHERE "

static struct mk mk;
static char vm[RP_HOST_ID], other[RP_HOST_ID];

// How often the settings of one VM or snapshot were read: -Wl,--wrap.
static unsigned extras_read;
int __real_rp_host_local_extras(struct rp_host_connection *host, const char *id, char **text, struct rp_error *err);
int __wrap_rp_host_local_extras(struct rp_host_connection *host, const char *id, char **text, struct rp_error *err);
int __wrap_rp_host_local_extras(struct rp_host_connection *host, const char *id, char **text, struct rp_error *err)
{
    __atomic_add_fetch(&extras_read, 1, __ATOMIC_RELAXED);
    return __real_rp_host_local_extras(host, id, text, err);
}
static unsigned inventories;
int __real_rp_host_local_list_planned(struct rp_host_connection *host, struct rp_inventory *planned,
                                      struct rp_error *err);
int __wrap_rp_host_local_list_planned(struct rp_host_connection *host, struct rp_inventory *planned,
                                      struct rp_error *err);
int __wrap_rp_host_local_list_planned(struct rp_host_connection *host, struct rp_inventory *planned,
                                      struct rp_error *err)
{
    __atomic_add_fetch(&inventories, 1, __ATOMIC_RELAXED);
    return __real_rp_host_local_list_planned(host, planned, err);
}

static int start(void **state)
{
    (void)state;
    mk_start(&mk);
    mk_define(&mk, "web", 2, DISK, vm);
    mk_define(&mk, "db", 1, DISK, other);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    mk_stop(&mk);
    return 0;
}

static void has_text(const struct rp_cim_instance *instance, const char *name, const char *expected)
{
    const char *text = rp_cim_get_text(instance, name);
    if (!text || strcmp(text, expected))
        fail_msg("%s.%s is \"%s\", not \"%s\"", instance->class_name, name, text ? text : "NULL", expected);
}

static void has_number(const struct rp_cim_instance *instance, const char *name, uint64_t expected)
{
    if (rp_cim_get_unsigned(instance, name, ~0ull) != expected)
        fail_msg("%s.%s is not %llu", instance->class_name, name, (unsigned long long)expected);
}

// The path in a property of text is one of an instance that can be got.
static struct rp_cim_instance *follow(const struct rp_cim_instance *instance, const char *name)
{
    struct rp_error err = {0};
    struct rp_cim_path *path = NULL;
    const char *text = rp_cim_get_text(instance, name);
    assert_non_null(text);
    kit_ok(rp_hostd_paths_parse(text, &path, &err), err);
    struct rp_cim_instance *found = rp_cim_find(mk.provider, &mk.caller, path, &err);
    if (!found)
        fail_msg("%s: %s", text, err.text);
    rp_cim_path_free(path);
    return found;
}

static char *vm_text(const char *id)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(&mk, id);
    return mk_path_text(path);
}

static void the_host_and_its_vms_are_computer_systems(void **state)
{
    (void)state;
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem"), 3);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER"), 2);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *host =
        mk_one(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Hosting Computer System'");
    has_text(host, "Name", "HV1");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *web =
        mk_one(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'web'");
    has_text(web, "Name", vm);
    has_text(web, "Caption", "Virtual Machine");
    has_text(web, "Description", "Microsoft Virtual Computer System");
    has_number(web, "EnabledState", 3);
    has_number(web, "HealthState", 5);
    assert_int_equal(rp_cim_get_count(web, "OperationalStatus"), 1);
    assert_int_equal(rp_cim_get_count(web, "AvailableRequestedStates"), 3); // no guest: it cannot be asked to shut down (4)
    for (size_t i = 0; i < 3; i++)
        assert_int_not_equal(rp_cim_get_unsigned_at(web, "AvailableRequestedStates", i, 4), 4);
    // virsh asks in lower case
    char lower[RP_HOST_ID];
    for (size_t i = 0; i <= strlen(vm); i++)
        lower[i] = (char)(vm[i] >= 'A' && vm[i] <= 'Z' ? vm[i] | 32 : vm[i]);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'", lower), 1);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s' AND EnabledState = 2", lower),
                     0);
}

static void every_scalar_property_is_there(void **state)
{
    (void)state;
    const struct rp_cim_schema *schemas[] = {mk.hostd->virtualization.schema, mk.hostd->cimv2.schema};
    size_t seen = 0;
    for (size_t s = 0; s < 2; s++)
        for (size_t c = 0; c < rp_cim_schema_count(schemas[s]); c++) {
            const struct rp_cim_class *class = rp_cim_schema_at(schemas[s], c);
            if (class->abstract || class->association)
                continue;
            struct mk in_namespace = mk;
            in_namespace.provider = s ? &mk.hostd->cimv2 : &mk.hostd->virtualization;
            RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all =
                mk_query(&in_namespace, "SELECT * FROM %s", class->name);
            for (size_t i = 0; i < all.count; i++)
                for (size_t p = 0; p < class->property_count; p++) {
                    const struct rp_cim_declaration *declared = &class->properties[p];
                    const struct rp_cim_value *value = rp_cim_get(all.items[i], declared->name);
                    if (!declared->array && !value)
                        fail_msg("%s.%s is missing", class->name, declared->name);
                    if (value && value->type != declared->type)
                        fail_msg("%s.%s has the wrong type", class->name, declared->name);
                    if (declared->key && rp_cim_value_is_null(value))
                        fail_msg("%s.%s is a key without value", class->name, declared->name);
                    seen++;
                }
        }
    assert_true(seen > 1000);
}

static void settings_and_components_hang_together_as_clients_walk_them(void **state)
{
    (void)state;
    RP_AUTO_FREE char *system = vm_text(vm);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        mk_one(&mk, WALK "AssocClass = Msvm_SettingsDefineState ResultClass = Msvm_VirtualSystemSettingData", system);
    RP_AUTO_FREE char *id = rp_xasprintf("Microsoft:%s", vm), *path = mk_path_text(settings->path);
    has_text(settings, "InstanceID", id);
    has_text(settings, "ElementName", "web");
    has_text(settings, "VirtualSystemIdentifier", vm);
    has_text(settings, "VirtualSystemType", "Microsoft:Hyper-V:System:Realized");
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *processor = mk_one(
        &mk, WALK "AssocClass = Msvm_VirtualSystemSettingDataComponent ResultClass = Msvm_ProcessorSettingData", path);
    has_number(processor, "VirtualQuantity", 1);
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *memory = mk_one(
        &mk, WALK "AssocClass = Msvm_VirtualSystemSettingDataComponent ResultClass = Msvm_MemorySettingData", path);
    has_number(memory, "VirtualQuantity", 1024);
    assert_int_equal(mk_count(&mk, WALK "ResultClass = Msvm_ResourceAllocationSettingData", path), 3);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances disks =
        mk_query(&mk, WALK "AssocClass = Msvm_VirtualSystemSettingDataComponent"
                      " ResultClass = Msvm_StorageAllocationSettingData", path);
    assert_int_equal(disks.count, 2);
    for (size_t i = 0; i < 2; i++) {
        RP_AUTO_FREE char *file = rp_xasprintf("%s/web-%zu.vhdx", mk.files, i);
        has_number(disks.items[i], "ResourceType", 31);
        has_text(disks.items[i], "ResourceSubType", "Microsoft:Hyper-V:Virtual Hard Disk");
        assert_string_equal(rp_cim_get_text_at(disks.items[i], "HostResource", 0), file);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *drive = follow(disks.items[i], "Parent");
        char slot[8];
        snprintf(slot, sizeof slot, "%zu", i);
        has_number(drive, "ResourceType", 17);
        has_text(drive, "AddressOnParent", slot);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *controller = follow(drive, "Parent");
        has_number(controller, "ResourceType", 6);
        // and back: a disk leads to its settings, and the key of a reference point to the disk
        RP_AUTO_FREE char *disk = mk_path_text(disks.items[i]->path);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *back =
            mk_one(&mk, WALK "ResultClass = Msvm_VirtualSystemSettingData", disk);
        has_text(back, "InstanceID", id);
    }
    assert_int_equal(
        mk_count(&mk, WALK "ResultClass = CIM_VirtualSystemSettingData AssocClass = Msvm_ElementSettingData", system),
        1);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *export =
        mk_one(&mk, WALK "AssocClass = Msvm_SystemExportSettingData", system);
    assert_string_equal(export->class_name, "Msvm_VirtualSystemExportSettingData");
    assert_int_equal(mk_count(&mk, WALK "ResultClass = CIM_Service", system), 1);
    assert_int_equal(mk_count(&mk, "REFERENCES OF {%s} WHERE ResultClass = CIM_Component", path), 7);
}

static void snapshots_and_reference_points_belong_to_their_vm(void **state)
{
    (void)state;
    RP_AUTO_FREE char *system = vm_text(vm), *stranger = vm_text(other);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *first = mk_snapshot(&mk, vm, 2, "first");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *second = mk_snapshot(&mk, vm, 32768, "refpoint:tag");
    RP_AUTO_FREE char *first_text = mk_path_text(first), *second_text = mk_path_text(second);
    assert_int_equal(mk_count(&mk, WALK "AssocClass = Msvm_SnapshotOfVirtualSystem"
                              " ResultClass = CIM_VirtualSystemSettingData", system), 2);
    assert_int_equal(mk_count(&mk, WALK "AssocClass = Msvm_SnapshotOfVirtualSystem", stranger), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *recovery =
        mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType = "
               "'Microsoft:Hyper-V:Snapshot:Recovery'");
    assert_true(rp_cim_path_equal(recovery->path, second));
    has_text(recovery, "VirtualSystemIdentifier", vm);
    has_text(recovery, "ConfigurationID", rp_hostd_paths_bare(rp_cim_path_get(second, "InstanceID")));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *parent = follow(recovery, "Parent");
    assert_true(rp_cim_path_equal(parent->path, first));
    has_text(parent, "VirtualSystemType", "Microsoft:Hyper-V:Snapshot:Realized");
    struct rp_cim_datetime time;
    assert_true(rp_cim_get_datetime(recovery, "CreationTime", &time));
    assert_true(llabs(time.microseconds - rp_clock_wall_ns() / 1000) < 60000000);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *current =
        mk_one(&mk, WALK "AssocClass = Msvm_MostCurrentSnapshotInBranch", system);
    assert_true(rp_cim_path_equal(current->path, second));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *child =
        mk_one(&mk, WALK "AssocClass = Msvm_ParentChildSettingData ResultRole = Dependent", first_text);
    assert_true(rp_cim_path_equal(child->path, second));
    // the frozen disks have keys of their own, and their files are those below the VM's
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances frozen =
        mk_query(&mk, WALK "ResultClass = Msvm_StorageAllocationSettingData", second_text);
    assert_int_equal(frozen.count, 2);
    for (size_t i = 0; i < 2; i++) {
        const char *instance = rp_cim_get_text(frozen.items[i], "InstanceID");
        assert_non_null(strstr(instance, rp_hostd_paths_bare(rp_cim_path_get(second, "InstanceID"))));
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, vm);
        RP_AUTO_FREE char *leaf = mk_disk_path(&mk, settings, i);
        assert_string_not_equal(leaf, rp_cim_get_text_at(frozen.items[i], "HostResource", 0));
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point = mk_convert(&mk, second);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *found =
        mk_one(&mk, WALK "AssocClass = Msvm_ReferencePointOfVirtualSystem", system);
    assert_true(rp_cim_path_equal(found->path, point));
    has_number(found, "ReferencePointType", 2);
    assert_int_equal(rp_cim_get_count(found, "VirtualDiskIdentifiers"), 2);
    assert_int_equal(rp_cim_get_count(found, "ResilientChangeTrackingIdentifiers"), 2);
    assert_int_equal(strncmp(rp_cim_get_text_at(found, "ResilientChangeTrackingIdentifiers", 0), "rctX:", 5), 0);
    assert_int_equal(mk_count(&mk, WALK "AssocClass = Msvm_ReferencePointOfVirtualSystem", stranger), 0);
    // VirtualDiskIdentifiers are keys of the VM's disks (bareos asks so)
    RP_CLEANUP(rp_buf_clear) struct rp_buf escaped = {0};
    for (const char *p = rp_cim_get_text_at(found, "VirtualDiskIdentifiers", 1); *p; p++)
        rp_buf_printf(&escaped, *p == '\\' ? "\\\\" : "%c", *p);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID = '%s'",
                              rp_buf_text(&escaped)), 1);
    // found by InstanceID alone
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *partial =
        rp_cim_path_new("root/virtualization/v2", "Msvm_VirtualSystemReferencePoint");
    rp_cim_path_set(partial, "InstanceID", rp_cim_path_get(point, "InstanceID"));
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *same = rp_cim_find(mk.provider, &mk.caller, partial, NULL);
    assert_non_null(same);
    // what is only waiting to be merged is no snapshot any more
    assert_int_equal(mk_count(&mk, WALK "AssocClass = Msvm_SnapshotOfVirtualSystem", system), 1);
    mk_wait_merged(&mk, vm);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *row =
        mk_one(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'", vm);
    assert_true(rp_cim_get_datetime(row, "LastSuccessfulBackupTime", &time));
}

static void a_merge_is_seen_and_carried_on_although_nobody_asks_for_the_vm(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "merging", 1, DISK, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, 32768, "x");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point = mk_convert(&mk, snapshot);
    assert_non_null(point);
    mk_wait_merged(&mk, id); // by the list alone
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    RP_AUTO_FREE char *disk = mk_disk_path(&mk, settings, 0);
    assert_non_null(strstr(disk, "merging-0.vhdx"));
}

static void one_vms_components_are_found_without_looking_at_those_of_others(void **state)
{
    (void)state;
    RP_AUTO_FREE char *system = vm_text(vm);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, vm);
    RP_AUTO_FREE char *path = mk_path_text(settings);
    extras_read = 0;
    assert_int_equal(mk_count(&mk, WALK "AssocClass = Msvm_SettingsDefineState", system), 1);
    assert_int_equal(extras_read, 1);
    extras_read = 0;
    assert_int_equal(
        mk_count(&mk, "REFERENCES OF {%s} WHERE ResultClass = Msvm_VirtualSystemSettingDataComponent", path), 7);
    assert_int_equal(extras_read, 2); // the source, its components
    extras_read = 0;
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = 'Microsoft:%s'", vm),
                     1);
    assert_int_equal(extras_read, 1);
}

static void an_inventory_is_taken_once_until_something_changes(void **state)
{
    (void)state;
    mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem");
    inventories = 0;
    uint64_t began = rp_clock_monotonic_ns();
    for (int i = 0; i < 50; i++)
        mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem");
    assert_true(inventories <= 1 + (rp_clock_monotonic_ns() - began) / 1000000000);
    // what another process does is seen at once
    struct rp_error err = {0};
    RP_AUTO_FREE char *directory = rp_path_join(mk.folder, "host");
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_host_local_open(directory, &err);
    assert_non_null(host);
    char job[RP_HOST_ID], result[RP_HOST_ID];
    kit_ok(host->ops->rename(host, other, "renamed", job, result, &err), err);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'renamed'"), 1);
    kit_ok(host->ops->rename(host, other, "db", job, result, &err), err);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'db'"), 1);
}

// ---- many clients at once ------------------------------------------------------------------------------------------

static atomic_bool readers_end;

static int count_one(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    rp_cim_instance_free(instance);
    ++*(size_t *)context;
    return 0;
}

// Asks over and over; every answer is whole: the VMs that were there before, with two or three disks and their names.
static void *read_all_the_time(void *context)
{
    static const char systems[] = "SELECT * FROM Msvm_ComputerSystem WHERE ElementName LIKE 'web%'";
    static const char disks[] = "SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID LIKE '%L'";
    (void)context;
    uintptr_t wrong = 0;
    while (!atomic_load(&readers_end)) {
        const char *texts[] = {systems, disks};
        size_t least[] = {1, 3};
        for (size_t i = 0; i < 2; i++) {
            size_t count = 0;
            struct rp_error err = {0};
            struct rp_wql *wql = rp_wql_parse(texts[i], strlen(texts[i]), &err);
            struct rp_cim_sink sink = {count_one, &count};
            wrong += !wql || rp_cim_query(mk.provider, &mk.caller, wql, sink, &err) || count < least[i];
            rp_wql_free(wql);
        }
    }
    return (void *)wrong;
}

static void readers_see_whole_inventories_while_others_change_the_host(void **state)
{
    (void)state;
    struct rp_error err = {0};
    pthread_t readers[4];
    RP_AUTO_FREE char *directory = rp_path_join(mk.folder, "host");
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_host_local_open(directory, &err);
    assert_non_null(host);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_all_the_time, NULL), 0);
    for (int round = 0; round < 5; round++) {
        char job[RP_HOST_ID], result[RP_HOST_ID];
        kit_ok(host->ops->rename(host, vm, round % 2 ? "web" : "web renamed", job, result, &err), err);
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, other, 32768, "round");
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point = mk_convert(&mk, snapshot);
        assert_non_null(point);
        mk_wait_merged(&mk, other);
    }
    atomic_store(&readers_end, true);
    for (size_t i = 0; i < 4; i++) {
        void *wrong;
        assert_int_equal(pthread_join(readers[i], &wrong), 0);
        assert_null(wrong);
    }
}

static void settings_that_are_only_kept_stand_over_the_defaults(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances extras = {0};
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *processor = rp_cim_instance_new(NULL, "Msvm_ProcessorSettingData");
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *system = rp_cim_instance_new(NULL, "Msvm_VirtualSystemSettingData");
    rp_cim_set(processor, "VirtualQuantity", mk_number(8));
    rp_cim_set(system, "Notes", mk_texts("</INSTANCE> & <more>", "two", NULL));
    rp_cim_set(system, "AutomaticStartupAction", mk_number(4));
    rp_hostd_extras_merge(&extras, RP_HOSTD_PROCESSOR, processor);
    rp_hostd_extras_merge(&extras, "", system);
    rp_cim_set(processor, "VirtualQuantity", mk_number(4));
    rp_hostd_extras_merge(&extras, RP_HOSTD_PROCESSOR, processor);
    assert_int_equal(extras.count, 2);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk.hostd, &err);
    kit_ok(rp_hostd_extras_store(host, other, &extras, &err), err);
    rp_hostd_hosts_return(mk.hostd, host);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *shown =
        mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = 'Microsoft:%s'", other);
    has_number(shown, "AutomaticStartupAction", 4);
    has_text(shown, "ElementName", "db");
    assert_string_equal(rp_cim_get_text_at(shown, "Notes", 0), "</INSTANCE> & <more>");
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE VirtualQuantity = 4"), 1);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE VirtualQuantity = 1"),
                     3); // two VMs, a snapshot
    // libvirt, before it defines anything
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE"
                              " 'Microsoft:Definition%%Maximum'"), 1);
}

static void a_document_has_all_settings_of_a_vm(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_AUTO_FREE char *text = rp_hostd_settings_document(mk.hostd, vm, &err);
    if (!text)
        fail_msg("%s", err.text);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = {0};
    kit_ok(rp_hostd_extras_parse(text, &all, &err), err);
    assert_int_equal(all.count, 8); // VSSD, processor, memory, controller, two drives, two images
    assert_string_equal(all.items[0]->class_name, "Msvm_VirtualSystemSettingData");
    assert_string_equal(all.items[7]->class_name, "Msvm_StorageAllocationSettingData");
    RP_AUTO_FREE char *none = rp_hostd_settings_document(mk.hostd, "A1B2C3D4-0000-4000-8000-000000000001", &err);
    assert_null(none);
    assert_int_equal(err.code, RP_ERR_NOT_FOUND);
}

static void this_machine_is_described_as_windows_would(void **state)
{
    (void)state;
    struct mk windows = mk;
    windows.provider = &mk.hostd->cimv2;
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *system = mk_one(&windows, "SELECT * FROM Win32_OperatingSystem");
    has_text(system, "Version", "10.0.20348");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *product =
        mk_one(&windows, "SELECT * FROM Win32_ComputerSystemProduct");
    struct rp_guid uuid;
    assert_int_equal(rp_guid_parse(rp_cim_get_text(product, "UUID"), &uuid, NULL), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *processor =
        mk_one(&windows, WALK "AssocClass = Win32_ComputerSystemProcessor ResultClass = Win32_Processor",
               "Win32_ComputerSystem.Name='HV1'");
    assert_true(rp_cim_get_unsigned(processor, "NumberOfCores", 0) > 0);
}

static void services_are_found_and_named_by_a_part_of_their_keys(void **state)
{
    (void)state;
    struct rp_error err = {0};
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSnapshotService"), 1);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemReferencePointService"), 1);
    assert_int_equal(mk_count(&mk, "SELECT * FROM CIM_Service"), 7);
    RP_AUTO_FREE char *host = vm_text("HV1");
    assert_int_equal(mk_count(&mk, WALK "AssocClass = Msvm_HostedService", host), 7);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path =
        rp_cim_path_new("root/virtualization/v2", "Msvm_VirtualSystemManagementService");
    rp_cim_path_set(path, "CreationClassName", "msvm_virtualsystemmanagementservice");
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *service = rp_cim_find(mk.provider, &mk.caller, path, &err);
    assert_non_null(service);
    has_text(service, "SystemName", "HV1");
    RP_AUTO_FREE char *text = mk_path_text(service->path);
    assert_int_equal(mk_count(&mk, WALK "AssocClass = Msvm_ElementSettingData", text), 1);
    // keys that several have
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vague = rp_cim_path_new(NULL, "Msvm_ComputerSystem");
    rp_cim_path_set(vague, "CreationClassName", "Msvm_ComputerSystem");
    assert_null(rp_cim_find(mk.provider, &mk.caller, vague, &err));
    assert_int_equal(err.code, RP_ERR_INVALID);
}

static void what_references_name_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool vm, settings, snapshot, point, disk;
    } cases[] = {
        {"Msvm_ComputerSystem.Name='a1b2c3d4-0000-4000-8000-000000000001'", true, false, false, false, false},
        {"Msvm_ComputerSystem.Name='HV1'", false, false, false, false, false},
        {"Msvm_ComputerSystem", false, false, false, false, false},
        {"Msvm_VirtualSystemSettingData.InstanceID='Microsoft:a1b2c3d4-0000-4000-8000-000000000001'", false, false,
         true, false, false},
        {"Msvm_VirtualSystemSettingData.InstanceID='Microsoft:nonsense'", false, false, false, false, false},
        {"Msvm_VirtualSystemReferencePoint.InstanceID='microsoft:a1b2c3d4-0000-4000-8000-000000000001'", false, false,
         false, true, false},
        {"Msvm_StorageAllocationSettingData.InstanceID='Microsoft:a1b2c3d4-0000-4000-8000-000000000001"
         "\\\\c\\\\0\\\\0\\\\L'",
         false, false, false, false, true},
        {"Msvm_StorageAllocationSettingData.InstanceID='Microsoft:a1b2c3d4-0000-4000-8000-000000000001'", false, false,
         false, false, false},
    };
    char id[RP_HOST_ID];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_parse(cases[i].text, NULL);
        assert_non_null(path);
        assert_int_equal(!rp_hostd_paths_to_vm(path, id, NULL), cases[i].vm);
        assert_int_equal(!rp_hostd_paths_to_snapshot(path, id, NULL), cases[i].snapshot);
        assert_int_equal(!rp_hostd_paths_to_point(path, id, NULL), cases[i].point);
        assert_int_equal(!rp_hostd_paths_to_disk(path, id, NULL), cases[i].disk);
        assert_int_equal(!rp_hostd_paths_to_settings(mk.hostd, path, id, NULL), cases[i].settings);
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, vm);
    assert_int_equal(rp_hostd_paths_to_settings(mk.hostd, settings, id, NULL), 0);
    assert_string_equal(id, vm);
    assert_int_equal(rp_hostd_paths_to_vm(NULL, id, NULL), -1);
}

static void nothing_is_changed_by_put_and_delete(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(&mk, vm);
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *instance = rp_cim_instance_new(NULL, "Msvm_ComputerSystem");
    kit_fails(mk.provider->ops->put(mk.provider, &mk.caller, path, instance, &err), err, RP_ERR_UNSUPPORTED);
    kit_fails(mk.provider->ops->remove(mk.provider, &mk.caller, path, &err), err, RP_ERR_UNSUPPORTED);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'", vm), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_and_its_vms_are_computer_systems),
        cmocka_unit_test(every_scalar_property_is_there),
        cmocka_unit_test(settings_and_components_hang_together_as_clients_walk_them),
        cmocka_unit_test(snapshots_and_reference_points_belong_to_their_vm),
        cmocka_unit_test(a_merge_is_seen_and_carried_on_although_nobody_asks_for_the_vm),
        cmocka_unit_test(one_vms_components_are_found_without_looking_at_those_of_others),
        cmocka_unit_test(an_inventory_is_taken_once_until_something_changes),
        cmocka_unit_test(settings_that_are_only_kept_stand_over_the_defaults),
        cmocka_unit_test(a_document_has_all_settings_of_a_vm),
        cmocka_unit_test(this_machine_is_described_as_windows_would),
        cmocka_unit_test(services_are_found_and_named_by_a_part_of_their_keys),
        cmocka_unit_test(what_references_name_is_checked),
        cmocka_unit_test(nothing_is_changed_by_put_and_delete),
        cmocka_unit_test(readers_see_whole_inventories_while_others_change_the_host),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
