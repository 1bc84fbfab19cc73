// The flows of facts/wmi.md 1.5 as a client walks them: queries, methods, jobs, associators, in that order and nothing
// else.
#include "method-kit.h"

#include <sys/stat.h>

#include "hostd/core.h"

#define RECOVERY 32768
#define SIZE (64 * RP_MIB)

static struct mk mk;
static int start(void **state) { (void)state; mk_start(&mk); return 0; }
static int stop(void **state) { (void)state; mk_stop(&mk); return 0; }

// The common prologue: one VM of that name.
static struct rp_cim_path *vm_called(const char *name)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm =
        mk_one(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName='%s'", name);
    return rp_cim_path_copy(vm->path);
}

// A.1: checkpoints that an interrupted backup left, by the superclass.
static size_t orphans(const struct rp_cim_path *vm)
{
    RP_AUTO_FREE char *path = mk_path_text(vm);
    RP_CLEANUP(rp_cim_instances_clear)
    struct rp_cim_instances all = mk_query(
        &mk,
        "ASSOCIATORS OF {%s} WHERE AssocClass=Msvm_SnapshotOfVirtualSystem ResultClass=CIM_VirtualSystemSettingData",
        path);
    size_t count = 0;
    for (size_t i = 0; i < all.count; i++)
        count += !strcmp(rp_cim_get_text(all.items[i], "VirtualSystemType"), "Microsoft:Hyper-V:Snapshot:Recovery");
    return count;
}

// A.2, A.3.
static struct rp_cim_path *checkpoint(const struct rp_cim_path *vm)
{
    struct rp_cim_instance *out;
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSnapshotSettingData", "ConsistencyLevel", mk_number(1),
                                           "GuestBackupType", mk_number(1), "IgnoreNonSnapshottableDisks",
                                           mk_flag(true), NULL);
    uint32_t status = mk_call(&mk, SNAPSHOTS, "CreateSnapshot", &out, "AffectedSystem", mk_ref(vm), "SnapshotSettings",
                              mk_text("%s", settings), "SnapshotType", mk_number(RECOVERY), NULL);
    return mk_made(&mk, status, &out, "Msvm_VirtualSystemSettingData");
}

static void read_frozen(const struct rp_cim_path *checkpoint_path, uint8_t *data)
{
    RP_AUTO_FREE char *path = mk_disk_path(&mk, checkpoint_path, 0);
    kit_chain_read(path, data, SIZE);
}

static struct rp_cim_instance *point_at(const struct rp_cim_path *path)
{
    return mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemReferencePoint WHERE InstanceID = '%s'",
                  rp_cim_path_get(path, "InstanceID"));
}

static size_t points_of(const struct rp_cim_path *vm)
{
    RP_AUTO_FREE char *path = mk_path_text(vm);
    return mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass=Msvm_ReferencePointOfVirtualSystem", path);
}

static void destroy_point(const struct rp_cim_path *point)
{
    struct rp_cim_instance *out;
    uint32_t status = mk_call(&mk, POINTS, "DestroyReferencePoint", &out, "AffectedReferencePoint", mk_ref(point),
                              NULL);
    mk_made(&mk, status, &out, NULL);
}

// Applies what changed since `rct_id` in the frozen disk to a copy of the disk as it was then, as a backup does.
static void bring_up_to_date(const char *frozen, const char *rct_id, const uint8_t *now, uint8_t *copy)
{
    for (uint64_t done = 0; done < SIZE;) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = NULL;
        uint32_t status = mk_call(&mk, IMAGES, "GetVirtualDiskChanges", &out, "Path", mk_text("%s", frozen), "LimitId",
                                  mk_text("%s", rct_id), "ByteOffset", mk_number(done), "ByteLength",
                                  mk_number(SIZE - done), NULL);
        assert_int_equal(status, 0);
        for (size_t i = 0; i < rp_cim_get_count(out, "ChangedByteOffsets"); i++) {
            uint64_t offset = rp_cim_get_unsigned_at(out, "ChangedByteOffsets", i, 0);
            memcpy(copy + offset, now + offset, rp_cim_get_unsigned_at(out, "ChangedByteLengths", i, 0));
        }
        done += rp_cim_get_unsigned(out, "ProcessedByteLength", 0);
    }
}

static void a_and_b_full_and_incremental_backups_read_what_the_disk_held(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *copy = rp_xmalloc(SIZE), *now = rp_xmalloc(SIZE);
    mk_define(&mk, "flow A", 1, SIZE, id);
    mk_write(&mk, id, 0, 0, 20, 3, 1);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = vm_called("flow A"), *old = NULL;
    assert_int_equal(orphans(vm), 0);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *full = checkpoint(vm);
    mk_write(&mk, id, 0, 1, 5, 1, 2); // the guest goes on; the frozen disk does not
    read_frozen(full, copy);
    assert_int_equal(copy[3 * KIT_UNIT], 1);
    assert_int_equal(copy[1 * KIT_UNIT], 0);
    old = mk_convert(&mk, full);
    assert_int_equal(orphans(vm), 0);
    for (unsigned round = 0; round < 3; round++) {
        mk_wait_merged(&mk, id);
        mk_write(&mk, id, 0, 100 + 10 * round, 7, 5, (uint8_t)(10 + round));
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *base = point_at(old);
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *frozen = checkpoint(vm);
        RP_AUTO_FREE char *path = mk_disk_path(&mk, frozen, 0);
        read_frozen(frozen, now);
        bring_up_to_date(path, rp_cim_get_text_at(base, "ResilientChangeTrackingIdentifiers", 0), now, copy);
        assert_memory_equal(copy, now, SIZE);
        struct rp_cim_path *point = mk_convert(&mk, frozen);
        assert_int_equal(points_of(vm), 2);
        destroy_point(old); // only now, after the commit
        assert_int_equal(points_of(vm), 1);
        rp_cim_path_free(old);
        old = point;
    }
}

static uint32_t export(const struct rp_cim_path *vm, const struct rp_cim_path *snapshot, const struct rp_cim_path *base,
                       const char *folder, struct rp_cim_instance **out)
{
    RP_AUTO_FREE char *vm_path = mk_path_text(vm), *snapshot_path = mk_path_text(snapshot),
                      *base_path = base ? mk_path_text(base) : NULL;
    // The settings are the VM's own, with a few of them changed.
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        mk_one(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass=Msvm_SystemExportSettingData", vm_path);
    rp_cim_set(settings, "CopySnapshotConfiguration", rp_cim_unsigned(RP_CIM_UINT8, 3));
    rp_cim_set(settings, "CopyVmRuntimeInformation", rp_cim_boolean(false));
    rp_cim_set(settings, "CopyVmStorage", rp_cim_boolean(true));
    rp_cim_set(settings, "CreateVmExportSubdirectory", rp_cim_boolean(false));
    rp_cim_set(settings, "SnapshotVirtualSystem", rp_cim_string(snapshot_path));
    rp_cim_set(settings, "DifferentialBackupBase", rp_cim_string(base_path));
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    struct rp_cim_value object = {.type = RP_CIM_OBJECT, .one.object = settings};
    rp_cim_value_text(&object, &text);
    return mk_call(&mk, MANAGEMENT, "ExportSystemDefinition", out, "ComputerSystem", mk_ref(vm), "ExportDirectory",
                   mk_text("%s", folder), "ExportSettingData", mk_text("%s", rp_buf_text(&text)), NULL);
}

static int add_units(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    *(size_t *)context += state == RP_VHDX_IN_PARENT ? 0 : (size_t)(length / KIT_UNIT);
    return 0;
}

// What a differencing disk itself holds.
static size_t unit_count(struct rp_vhdx *vhdx)
{
    size_t count = 0;
    struct rp_error err = {0};
    kit_ok(rp_vhdx_extents(vhdx, 0, rp_vhdx_info(vhdx)->size, add_units, &count, &err), err);
    return count;
}

static void c_exports_hold_the_whole_disk_and_then_what_changed(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_error err = {0};
    struct rp_cim_instance *out;
    RP_AUTO_FREE uint8_t *copy = rp_xmalloc(SIZE), *now = rp_xmalloc(SIZE);
    mk_define(&mk, "flowC", 1, SIZE, id);
    mk_write(&mk, id, 0, 0, 30, 2, 1);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = vm_called("flowC"), *full = checkpoint(vm);
    RP_AUTO_FREE char *first = mk_file(&mk, "c-full"), *second = mk_file(&mk, "c-differential");
    RP_AUTO_FREE char *whole = kit_path("%s/Virtual Hard Disks/flowC-0.vhdx", first),
                      *part = kit_path("%s/Virtual Hard Disks/flowC-0.vhdx", second);
    mk_made(&mk, export(vm, full, NULL, first, &out), &out, NULL);
    read_frozen(full, now);
    kit_chain_read(whole, copy, SIZE);
    assert_memory_equal(copy, now, SIZE);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *base = mk_convert(&mk, full);
    mk_wait_merged(&mk, id);
    mk_write(&mk, id, 0, 200, 3, 1, 9);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *next = checkpoint(vm);
    mk_made(&mk, export(vm, next, base, second, &out), &out, NULL);
    struct rp_vhdx *differencing = rp_vhdx_open(rp_fs_posix(), part, RP_VHDX_READ, NULL, &err);
    assert_non_null(differencing);
    assert_true(rp_vhdx_info(differencing)->has_parent);
    assert_int_equal(unit_count(differencing), 3);
    rp_vhdx_abandon(differencing);
    // Put together as the disk that it is the difference to, it is the disk of now.
    assert_int_equal(mk_call(&mk, IMAGES, "SetParentVirtualHardDisk", NULL, "ChildPath", mk_text("%s", part),
                             "ParentPath", mk_text("%s", whole), NULL),
                     0);
    read_frozen(next, now);
    kit_chain_read(part, copy, SIZE);
    assert_memory_equal(copy, now, SIZE);
    rp_cim_path_free(mk_convert(&mk, next));
    destroy_point(base);
}

static void c_a_reference_point_alone_is_exported_while_the_disks_still_hold_it(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    RP_AUTO_FREE uint8_t *copy = rp_xmalloc(SIZE);
    mk_define(&mk, "flowP", 2, SIZE, id);
    mk_write(&mk, id, 1, 4, 1, 1, 44);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = vm_called("flowP");
    uint32_t status = mk_call(&mk, POINTS, "CreateReferencePoint", &out, "AffectedSystem", mk_ref(vm),
                              "ReferencePointSettings", mk_text("%s", ""), "ReferencePointType", mk_number(2), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *point =
        mk_made(&mk, status, &out, "Msvm_VirtualSystemReferencePoint");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *facts = point_at(point);
    mk_wait_merged(&mk, id);
    RP_AUTO_FREE char *folder = mk_file(&mk, "p-export"), *late = mk_file(&mk, "p-late");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemReferencePointExportSettingData", "DisksToExport",
        mk_texts(rp_cim_get_text_at(facts, "VirtualDiskIdentifiers", 1), NULL), NULL);
    RP_AUTO_FREE char *bad = mk_embed("Msvm_VirtualSystemReferencePointExportSettingData", "DisksToExport",
                                      mk_texts("nothing", NULL), NULL);
    assert_int_equal(mk_call(&mk, POINTS, "ExportReferencePoint", NULL, "ReferencePoint", mk_ref(point),
                             "ExportDirectory", mk_text("%s", folder), "ExportSettingData", mk_text("%s", bad), NULL),
                     32773);
    status = mk_call(&mk, POINTS, "ExportReferencePoint", &out, "ReferencePoint", mk_ref(point), "ExportDirectory",
                     mk_text("%s", folder), "ExportSettingData", mk_text("%s", settings), NULL);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = mk_wait(&mk, status, &out);
    assert_string_equal(job->class_name, "Msvm_VirtualSystemReferencePointExportJob");
    if (rp_cim_get_unsigned(job, "JobState", 0) != 7)
        fail_msg("%s", rp_cim_get_text(job, "ErrorDescription"));
    assert_string_equal(rp_cim_get_text(job, "VirtualMachineId"), id);
    assert_string_equal(rp_cim_get_text(job, "ExportDirectory"), folder);
    assert_int_equal(rp_cim_get_count(job, "ExportedDisks"), 1);
    assert_non_null(rp_cim_get_text(job, "ExportedConfigFilePath"));
    kit_chain_read(rp_cim_get_text_at(job, "ExportedDisks", 0), copy, SIZE);
    assert_int_equal(copy[4 * KIT_UNIT], 44);
    assert_int_equal(orphans(vm), 0);
    mk_wait_merged(&mk, id);
    mk_write(&mk, id, 1, 4, 1, 1, 45);
    status = mk_call(&mk, POINTS, "ExportReferencePoint", &out, "ReferencePoint", mk_ref(point), "ExportDirectory",
                     mk_text("%s", late), NULL);
    mk_failed(&mk, status, &out, "has been written to since");
    assert_int_equal(access(late, F_OK), -1);
    assert_int_equal(orphans(vm), 0);
}

static void d_a_restored_vm_goes_on_with_incrementals(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    RP_AUTO_FREE uint8_t *copy = rp_xmalloc(SIZE), *now = rp_xmalloc(SIZE);
    mk_define(&mk, "flowD", 1, SIZE, id);
    mk_write(&mk, id, 0, 0, 10, 2, 1);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = vm_called("flowD"), *full = checkpoint(vm);
    RP_AUTO_FREE char *folder = mk_file(&mk, "d-export"),
                      *definition = kit_path("%s/Virtual Machines/%s.vmcx", folder, id);
    mk_made(&mk, export(vm, full, NULL, folder, &out), &out, NULL);
    read_frozen(full, copy);
    rp_cim_path_free(mk_convert(&mk, full));
    mk_wait_merged(&mk, id);
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(vm), NULL), &out, NULL);
    uint32_t status = mk_call(&mk, MANAGEMENT, "ImportSystemDefinition", &out, "SystemDefinitionFile",
                              mk_text("%s", definition), "SnapshotFolder", mk_text("%s", ""),
                              "GenerateNewSystemIdentifier", mk_flag(false), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *planned =
        mk_made(&mk, status, &out, "Msvm_PlannedComputerSystem");
    mk_made(&mk, mk_call(&mk, MANAGEMENT, "ValidatePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL), &out,
            NULL);
    status = mk_call(&mk, MANAGEMENT, "RealizePlannedSystem", &out, "PlannedSystem", mk_ref(planned), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *again = mk_made(&mk, status, &out, "Msvm_ComputerSystem");
    assert_string_equal(rp_cim_path_get(again, "Name"), id);
    status = mk_call(&mk, POINTS, "ImportReferencePointMetadata", &out, "AffectedSystem", mk_ref(again),
                     "ConfigFilePath", mk_text("%s", definition), "RuntimeStateFilePath", mk_text("%s", ""), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *base =
        mk_made(&mk, status, &out, "Msvm_VirtualSystemReferencePoint");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *facts = point_at(base);
    mk_write(&mk, id, 0, 300, 2, 1, 8);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *frozen = checkpoint(again);
    RP_AUTO_FREE char *path = mk_disk_path(&mk, frozen, 0);
    read_frozen(frozen, now);
    bring_up_to_date(path, rp_cim_get_text_at(facts, "ResilientChangeTrackingIdentifiers", 0), now, copy);
    assert_memory_equal(copy, now, SIZE);
    assert_int_equal(mk_call(&mk, POINTS, "ImportReferencePointMetadata", NULL, "AffectedSystem", mk_ref(again), NULL),
                     32773);
    assert_int_equal(mk_call(&mk, POINTS, "ImportReferencePointMetadata", NULL, "AffectedSystem", mk_ref(again),
                             "ConfigFilePath", mk_text("/etc/passwd"), NULL),
                     32769);
}

// E: without a guest nothing comes to rest, so what was reached is crash consistency, and the checkpoint says so.
static void e_consistency_is_told_as_it_was_reached(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    mk_define(&mk, "flow E", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm =
        vm_called("flow E"),
            *made = checkpoint(vm), *point = mk_convert(&mk, made);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *facts = point_at(point);
    assert_int_equal(rp_cim_get_unsigned(facts, "ConsistencyLevel", 0), 2);
}

static void f_what_a_failed_backup_leaves_is_found_and_removed(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct rp_cim_instance *out;
    mk_define(&mk, "flow F", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = vm_called("flow F"), *left = checkpoint(vm);
    assert_int_equal(orphans(vm), 1);
    mk_made(&mk, mk_call(&mk, SNAPSHOTS, "DestroySnapshot", &out, "AffectedSnapshot", mk_ref(left), NULL), &out, NULL);
    assert_int_equal(orphans(vm), 0);
    mk_wait_merged(&mk, id);
    // Cancelled after the conversion: the reference point goes instead.
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *next = checkpoint(vm), *point = mk_convert(&mk, next);
    assert_int_equal(mk_call(&mk, SNAPSHOTS, "DestroySnapshot", NULL, "AffectedSnapshot", mk_ref(next), NULL), 4);
    destroy_point(point);
    assert_int_equal(points_of(vm), 0);
    mk_wait_merged(&mk, id);
    // A VM that runs is backed up and cleaned up the same way.
    mk_made(&mk, mk_call_on(&mk, vm, "RequestStateChange", &out, "RequestedState", mk_number(2), NULL), &out, NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *running = checkpoint(vm);
    mk_made(&mk, mk_call(&mk, SNAPSHOTS, "DestroySnapshotTree", &out, "SnapshotSettingData", mk_ref(running), NULL),
            &out, NULL);
    mk_wait_merged(&mk, id);
    assert_int_equal(orphans(vm), 0);
    mk_made(&mk, mk_call_on(&mk, vm, "RequestStateChange", &out, "RequestedState", mk_number(3), NULL), &out, NULL);
}

// hostd is being stopped: no job is taken any more.
static void an_export_that_never_runs_leaves_no_folder(void **state)
{
    (void)state;
    char id[RP_HOST_ID];
    struct stat st;
    mk_define(&mk, "not exported", 1, SIZE, id);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = vm_called("not exported"), *made = checkpoint(vm);
    RP_AUTO_FREE char *folder = mk_file(&mk, "never"), *own = mk_file(&mk, "own");
    assert_int_equal(mkdir(own, 0700), 0);
    rp_hostd_jobs_stop(mk.hostd);
    assert_int_equal(export(vm, made, NULL, folder, NULL), 32774);
    assert_int_equal(export(vm, made, NULL, own, NULL), 32774);
    assert_int_equal(stat(folder, &st), -1);
    assert_int_equal(stat(own, &st), 0); // it was there before
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_and_b_full_and_incremental_backups_read_what_the_disk_held),
        cmocka_unit_test(c_exports_hold_the_whole_disk_and_then_what_changed),
        cmocka_unit_test(c_a_reference_point_alone_is_exported_while_the_disks_still_hold_it),
        cmocka_unit_test(d_a_restored_vm_goes_on_with_incrementals),
        cmocka_unit_test(e_consistency_is_told_as_it_was_reached),
        cmocka_unit_test(f_what_a_failed_backup_leaves_is_found_and_removed),
        cmocka_unit_test(an_export_that_never_runs_leaves_no_folder), // the last: the host takes no jobs afterwards
    };
    return cmocka_run_group_tests_name("hostd methods: flows", tests, start, stop);
}
