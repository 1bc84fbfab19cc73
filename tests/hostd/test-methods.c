// The snapshot service, the reference point service and RequestStateChange: good paths, bad parameters, codes.
#include "method-kit.h"

#define RECOVERY 32768
#define SIZE (8 * RP_MIB)

static struct mk mk;
static int start(void **state) { (void)state; mk_start(&mk); return 0; }
static int stop(void **state) { (void)state; mk_stop(&mk); return 0; }

static uint32_t create(const struct rp_cim_path *vm, const char *settings, unsigned type, struct rp_cim_instance **out)
{
    return mk_call(&mk, SNAPSHOTS, "CreateSnapshot", out, "AffectedSystem", mk_ref(vm), "SnapshotSettings",
                   mk_text("%s", settings), "SnapshotType", mk_number(type), NULL);
}

static void a_snapshot_of_each_type_is_what_was_asked_for(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "types", 1, SIZE, id);
    static const struct { unsigned type; const char *system_type; } rows[] = {
        {2, "Microsoft:Hyper-V:Snapshot:Realized"}, {3, "Microsoft:Hyper-V:Snapshot:Realized"},
        {RECOVERY, "Microsoft:Hyper-V:Snapshot:Recovery"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *made = mk_snapshot(&mk, id, rows[i].type, "ours");
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
            mk_one(&mk,
                   "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = '%s'",
                   rp_cim_path_get(made, "InstanceID"));
        assert_string_equal(rp_cim_get_text(settings, "VirtualSystemType"), rows[i].system_type);
        assert_string_equal(rp_cim_get_text(settings, "ElementName"), "ours");
        assert_string_equal(rp_cim_get_text(settings, "VirtualSystemIdentifier"), id);
    }
}

static void a_snapshot_without_a_name_gets_one_that_tells_its_vm(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "nameless", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    struct rp_cim_instance *out;
    uint32_t status = create(vm, "", RECOVERY, &out);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *made =
        mk_made(&mk, status, &out, "Msvm_VirtualSystemSettingData");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        mk_one(&mk,
               "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = '%s'",
               rp_cim_path_get(made, "InstanceID"));
    assert_int_equal(strncmp(rp_cim_get_text(settings, "ElementName"), "nameless Backup - (", 19), 0);
}

static void a_snapshot_of_what_is_no_vm_or_with_settings_that_make_no_sense_is_an_invalid_parameter(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "sense", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id), *settings = mk_settings(&mk, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *nobody = mk_vm(&mk, "00000000-0000-0000-0000-00000000000A");
    assert_int_equal(create(nobody, "", RECOVERY, NULL), 4);
    assert_int_equal(create(settings, "", RECOVERY, NULL), 4);
    assert_int_equal(create(NULL, "", RECOVERY, NULL), 4);
    assert_int_equal(create(vm, "", 4, NULL), 4);
    assert_int_equal(create(vm, "", 32769, NULL), 4);
    assert_int_equal(create(vm, "<INSTANCE", RECOVERY, NULL), 4);
    assert_int_equal(create(vm, "<INSTANCE CLASSNAME=\"Msvm_ComputerSystem\"></INSTANCE>", RECOVERY, NULL), 4);
    static const char *const bad[] = {"ConsistencyLevel", "GuestBackupType"};
    for (size_t i = 0; i < 2; i++) {
        RP_AUTO_FREE char *text = mk_embed("Msvm_VirtualSystemSnapshotSettingData", bad[i], mk_number(3), NULL);
        assert_int_equal(create(vm, text, RECOVERY, NULL), 4);
    }
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier = '%s'", id), 1);
}

static void settings_of_a_newer_windows_are_understood_as_far_as_they_go(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "newer", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    struct rp_cim_instance *out;
    uint32_t status = create(
        vm,
        "<?xml version=\"1.0\" encoding=\"utf-16\"?>\n<INSTANCE CLASSNAME=\"msvm_virtualsystemsnapshotsettingdata\">"
        "<PROPERTY NAME=\"ConsistencyLevel\" TYPE=\"uint8\"><VALUE>2</VALUE></PROPERTY>"
        "<PROPERTY NAME=\"OfTheFuture\" TYPE=\"string\"><VALUE>x</VALUE></PROPERTY></INSTANCE>",
        RECOVERY, &out);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *made =
        mk_made(&mk, status, &out, "CIM_VirtualSystemSettingData");
    assert_non_null(made);
}

static void a_failure_after_the_start_is_the_jobs(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "diskless", 0, 0, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    struct rp_cim_instance *out;
    uint32_t status = create(vm, "", RECOVERY, &out);
    mk_failed(&mk, status, &out, "has no disk");
}

static uint32_t on_snapshot(const char *method, const char *parameter, const struct rp_cim_path *snapshot,
                            struct rp_cim_instance **out)
{
    return mk_call(&mk, SNAPSHOTS, method, out, parameter, mk_ref(snapshot), NULL);
}

static void a_destroyed_snapshot_is_gone_and_a_second_time_no_snapshot(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "destroyed", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, RECOVERY, "old");
    mk_made(&mk, on_snapshot("DestroySnapshot", "AffectedSnapshot", snapshot, &out), &out, NULL);
    mk_wait_merged(&mk, id);
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier = '%s'", id), 1);
    assert_int_equal(on_snapshot("DestroySnapshot", "AffectedSnapshot", snapshot, NULL), 4);
    assert_int_equal(on_snapshot("DestroySnapshotTree", "SnapshotSettingData", snapshot, NULL), 32773);
    assert_int_equal(on_snapshot("ClearSnapshotState", "SnapshotSettingData", snapshot, NULL), 32773);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *own = mk_settings(&mk, id);
    assert_int_equal(on_snapshot("DestroySnapshot", "AffectedSnapshot", own, NULL), 4); // a VM is no snapshot
}

static void a_tree_of_snapshots_goes_with_all_that_are_younger(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "tree", 1, SIZE, id);
    rp_cim_path_free(mk_snapshot(&mk, id, 2, "first"));
    mk_write(&mk, id, 0, 0, 4, 1, 1);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *second = mk_snapshot(&mk, id, 2, "second");
    mk_write(&mk, id, 0, 2, 4, 1, 2);
    rp_cim_path_free(mk_snapshot(&mk, id, 2, "third"));
    mk_made(&mk, on_snapshot("DestroySnapshotTree", "SnapshotSettingData", second, &out), &out, NULL);
    mk_wait_merged(&mk, id);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances left =
        mk_query(
            &mk,
            "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier = '%s' AND VirtualSystemType"
            " = 'Microsoft:Hyper-V:Snapshot:Realized'",
            id);
    assert_int_equal(left.count, 1);
    assert_string_equal(rp_cim_get_text(left.items[0], "ElementName"), "first");
}

static void an_applied_snapshot_brings_back_what_the_disk_held(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(SIZE);
    mk_define(&mk, "applied", 1, SIZE, id);
    mk_write(&mk, id, 0, 3, 1, 1, 7);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, 2, "then");
    mk_write(&mk, id, 0, 3, 1, 1, 9);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm =
        mk_made(&mk, on_snapshot("ApplySnapshot", "Snapshot", snapshot, &out), &out, "Msvm_ComputerSystem");
    assert_string_equal(rp_cim_path_get(vm, "Name"), id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *settings = mk_settings(&mk, id);
    RP_AUTO_FREE char *path = mk_disk_path(&mk, settings, 0);
    kit_chain_read(path, data, SIZE);
    assert_int_equal(data[3 * KIT_UNIT], 7);
    assert_int_equal(on_snapshot("ClearSnapshotState", "SnapshotSettingData", snapshot, NULL), 0);
    assert_int_equal(on_snapshot("ApplySnapshot", "Snapshot", settings, NULL), 4);
}

static void only_recovery_snapshots_become_reference_points(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "convert", 2, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *user = mk_snapshot(&mk, id, 2, "user");
    assert_int_equal(on_snapshot("ConvertToReferencePoint", "AffectedSnapshot", user, NULL), 5);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *recovery = mk_snapshot(&mk, id, RECOVERY, "backup");
    assert_int_equal(mk_call(&mk, SNAPSHOTS, "ConvertToReferencePoint", NULL, "AffectedSnapshot", mk_ref(recovery),
                             "ReferencePointSettings", mk_text("nonsense"), NULL), 4);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *made = mk_convert(&mk, recovery);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *point = mk_one(&mk,
        "SELECT * FROM Msvm_VirtualSystemReferencePoint WHERE InstanceID = '%s'", rp_cim_path_get(made, "InstanceID"));
    assert_string_equal(rp_cim_get_text(point, "VirtualSystemIdentifier"), id);
    assert_int_equal(rp_cim_get_unsigned(point, "ReferencePointType", 0), 2);
    assert_int_equal(rp_cim_get_count(point, "VirtualDiskIdentifiers"), 2);
    assert_int_equal(rp_cim_get_count(point, "ResilientChangeTrackingIdentifiers"), 2);
    assert_int_equal(strncmp(rp_cim_get_text_at(point, "ResilientChangeTrackingIdentifiers", 0), "rctX:", 5), 0);
    assert_int_equal(on_snapshot("ConvertToReferencePoint", "AffectedSnapshot", recovery, NULL),
                     4); // it is one already
}

static uint32_t create_point(const struct rp_cim_path *vm, const char *settings, unsigned type,
                             struct rp_cim_instance **out)
{
    return mk_call(&mk, POINTS, "CreateReferencePoint", out, "AffectedSystem", mk_ref(vm), "ReferencePointSettings",
                   mk_text("%s", settings), "ReferencePointType", mk_number(type), NULL);
}

static void a_reference_point_is_made_and_destroyed_without_a_snapshot_of_the_clients(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "points", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    RP_AUTO_FREE char *text = mk_path_text(vm);
    for (unsigned type = 1; type <= 2; type++) {
        uint32_t status = create_point(vm, "", type, &out);
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point =
            mk_made(&mk, status, &out, "Msvm_VirtualSystemReferencePoint");
        mk_wait_merged(&mk, id);
        assert_int_equal(
            mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_ReferencePointOfVirtualSystem", text), 1);
        assert_int_equal(
            mk_call(&mk, POINTS, "RemoveAssociatedData", NULL, "AffectedReferencePoint", mk_ref(point), NULL), 0);
        status = mk_call(&mk, POINTS, "DestroyReferencePoint", &out, "AffectedReferencePoint", mk_ref(point), NULL);
        mk_made(&mk, status, &out, NULL);
        assert_int_equal(
            mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_ReferencePointOfVirtualSystem", text), 0);
        assert_int_equal(
            mk_call(&mk, POINTS, "DestroyReferencePoint", NULL, "AffectedReferencePoint", mk_ref(point), NULL), 32773);
        assert_int_equal(
            mk_call(&mk, POINTS, "RemoveAssociatedData", NULL, "AffectedReferencePoint", mk_ref(point), NULL), 32773);
    }
    assert_int_equal(create_point(vm, "", 0, NULL), 4);
    assert_int_equal(create_point(vm, "", 3, NULL), 4);
    assert_int_equal(create_point(NULL, "", 2, NULL), 4);
    assert_int_equal(create_point(vm, "x", 2, NULL), 4);
    assert_int_equal(mk_call(&mk, POINTS, "DestroyReferencePoint", NULL, "AffectedReferencePoint", mk_ref(vm), NULL),
                     32773);
}

static void a_client_that_only_reads_changes_nothing(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "readers", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    mk.caller.access = RP_CIM_READ;
    uint32_t snapshot = create(vm, "", RECOVERY, NULL), destroy = mk_call(&mk, MANAGEMENT, "DestroySystem", NULL,
                                                                           "AffectedSystem", mk_ref(vm), NULL);
    mk.caller.access = RP_CIM_OPERATE;
    uint32_t operate = mk_call(&mk, MANAGEMENT, "DestroySystem", NULL, "AffectedSystem", mk_ref(vm), NULL);
    mk.caller.access = RP_CIM_ADMINISTER;
    assert_int_equal(snapshot, 32769);
    assert_int_equal(destroy, 32769);
    assert_int_equal(operate, 32769);
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier = '%s'", id), 1);
}

static uint32_t request(const struct rp_cim_path *vm, unsigned wanted, struct rp_cim_instance **out)
{
    return mk_call_on(&mk, vm, "RequestStateChange", out, "RequestedState", mk_number(wanted), NULL);
}

static uint64_t state_of(const char *id)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm =
        mk_one(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'", id);
    return rp_cim_get_unsigned(vm, "EnabledState", 0);
}

static void a_vm_is_started_reset_and_turned_off(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "state", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    assert_int_equal(request(vm, 3, NULL), 32775); // it is off
    assert_int_equal(request(vm, 11, NULL), 32775);
    mk_made(&mk, request(vm, 2, &out), &out, NULL);
    assert_int_equal(state_of(id), 2);
    assert_int_equal(request(vm, 2, NULL), 32775);
    assert_int_equal(mk_call(&mk, MANAGEMENT, "DestroySystem", NULL, "AffectedSystem", mk_ref(vm), NULL), 5);
    mk_made(&mk, request(vm, 11, &out), &out, NULL);
    assert_int_equal(state_of(id), 2);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, 2, "while it runs");
    assert_int_equal(on_snapshot("ApplySnapshot", "Snapshot", snapshot, NULL), 5);
    mk_made(&mk, request(vm, 3, &out), &out, NULL);
    assert_int_equal(state_of(id), 3);
}

// As on Hyper-V: what is only waiting to be merged is no checkpoint any more.
static void a_checkpoint_whose_merge_waits_for_a_reader_is_gone(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_error err = {0};
    struct rp_cim_instance *out;
    mk_define(&mk, "read", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id);
    mk_made(&mk, request(vm, 2, &out), &out, NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *snapshot = mk_snapshot(&mk, id, RECOVERY, "read");
    RP_AUTO_FREE char *path = mk_disk_path(&mk, snapshot, 0);
    struct rp_chain reader;
    kit_ok(rp_chain_open(rp_fs_posix(), path, &reader, &err), err);
    mk_made(&mk, on_snapshot("DestroySnapshot", "AffectedSnapshot", snapshot, &out), &out, NULL);
    assert_int_equal(on_snapshot("DestroySnapshot", "AffectedSnapshot", snapshot, NULL), 4);
    assert_int_equal(on_snapshot("ConvertToReferencePoint", "AffectedSnapshot", snapshot, NULL), 4);
    mk_failed(&mk, create(vm, "", RECOVERY, &out), &out, "merged");
    rp_chain_close(&reader);
    mk_wait_merged(&mk, id);
    mk_made(&mk, request(vm, 3, &out), &out, NULL);
}

static void states_that_need_a_guest_are_not_supported_and_others_unknown(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "guestless", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(&mk, id), *host = mk_vm(&mk, "HV1");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *nobody = mk_vm(&mk, "00000000-0000-0000-0000-00000000000A");
    static const unsigned guest[] = {4, 6, 9, 10};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(request(vm, guest[i], NULL), 32770);
    assert_int_equal(request(vm, 0, NULL), 32773);
    assert_int_equal(request(vm, 32769, NULL), 32773);
    assert_int_equal(request(host, 3, NULL), 32770);
    assert_int_equal(request(nobody, 2, NULL), 32773);
}

static void what_is_not_offered_says_so_in_the_family_of_its_service(void **state)
{
    (void)state;
    assert_int_equal(mk_call(&mk, IMAGES, "OptimizeVHDSet", NULL, "VHDSetPath", mk_text("/x.vhds"), NULL), 32770);
    assert_int_equal(mk_call(&mk, IMAGES, "AttachVirtualHardDisk", NULL, "Path", mk_text("/x.vhdx"), NULL), 32770);
    assert_int_equal(
        mk_call(&mk, "Msvm_CollectionSnapshotService", "CreateSnapshot", NULL, "SnapshotType", mk_number(2), NULL), 1);
    assert_int_equal(
        mk_call(&mk, "Msvm_CollectionManagementService", "DefineCollection", NULL, "Name", mk_text("x"), NULL), 32770);
    assert_int_equal(mk_call(&mk, SNAPSHOTS, "RequestStateChange", NULL, "RequestedState", mk_number(3), NULL), 32770);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_of_each_type_is_what_was_asked_for),
        cmocka_unit_test(a_snapshot_without_a_name_gets_one_that_tells_its_vm),
        cmocka_unit_test(a_snapshot_of_what_is_no_vm_or_with_settings_that_make_no_sense_is_an_invalid_parameter),
        cmocka_unit_test(settings_of_a_newer_windows_are_understood_as_far_as_they_go),
        cmocka_unit_test(a_failure_after_the_start_is_the_jobs),
        cmocka_unit_test(a_destroyed_snapshot_is_gone_and_a_second_time_no_snapshot),
        cmocka_unit_test(a_tree_of_snapshots_goes_with_all_that_are_younger),
        cmocka_unit_test(an_applied_snapshot_brings_back_what_the_disk_held),
        cmocka_unit_test(only_recovery_snapshots_become_reference_points),
        cmocka_unit_test(a_reference_point_is_made_and_destroyed_without_a_snapshot_of_the_clients),
        cmocka_unit_test(a_client_that_only_reads_changes_nothing),
        cmocka_unit_test(a_vm_is_started_reset_and_turned_off),
        cmocka_unit_test(a_checkpoint_whose_merge_waits_for_a_reader_is_gone),
        cmocka_unit_test(states_that_need_a_guest_are_not_supported_and_others_unknown),
        cmocka_unit_test(what_is_not_offered_says_so_in_the_family_of_its_service),
    };
    return cmocka_run_group_tests_name("hostd methods: snapshots, points, state", tests, start, stop);
}
