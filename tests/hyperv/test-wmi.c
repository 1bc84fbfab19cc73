// The WMI connection against a host that answers what a test wants: order and form of what is asked, odd forms of what
// is answered, jobs that vanish or fail, answers that are lost.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cim/cimxml.h"
#include "fake.h"

#define SNAP "A1B2C3D4-0000-4000-8000-0000000000C1"
#define OTHER_SNAP "A1B2C3D4-0000-4000-8000-0000000000C2"
#define POINT "Microsoft:A1B2C3D4-0000-4000-8000-0000000000D1"
#define TAG "refpoint:11111111-1111-4111-8111-111111111111:22222222-2222-4222-8222-222222222222"
#define DISK "Microsoft:" FAKE_A "\\C0\\0\\0\\L"

static struct fake *fake;
static struct rp_host_connection *host;
static struct rp_error err;

static int setup(void **state)
{
    (void)state;
    fake = fake_start();
    host = fake_connect(fake);
    rp_error_clear(&err);
    return host ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    rp_host_close(host);
    fake_stop(fake);
    return 0;
}

static void good(int result)
{
    if (result)
        fail_msg("%s", err.text);
}

static void bad(int result, enum rp_code code, const char *why)
{
    assert_int_equal(result, -1);
    if (err.code != code || !strstr(err.text, why))
        fail_msg("'%s' (%s) is not: %s (%s)", why, rp_code_name(code), err.text, rp_code_name(err.code));
    assert_null(strchr(err.text, '\n'));
    rp_error_clear(&err);
}

static void answers(const struct fake_answer *list)
{
    fake->answers = list;
    *fake->log = 0;
}

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

static void disk_facts(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                       struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path, (void)in;
    rp_cim_set(out, "SettingData",
               rp_cim_string(
                   "<?xml version=\"1.0\"?><CIM><DECLARATION><INSTANCE CLASSNAME=\"Msvm_VirtualHardDiskSettingData\">"
                   "<PROPERTY NAME=\"MaxInternalSize\" TYPE=\"uint64\"><VALUE>1073741824</VALUE></PROPERTY>"
                   "<PROPERTY NAME=\"LogicalSectorSize\" TYPE=\"uint32\"><VALUE>512</VALUE></PROPERTY>"
                   "<PROPERTY NAME=\"VirtualDiskId\" "
                   "TYPE=\"string\"><VALUE>{5BFDE23B-CE75-4303-B54F-6C18394F105C}</VALUE></PROPERTY>"
                   "</INSTANCE></DECLARATION></CIM>"));
    *status = 0;
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

// ---- snapshots and jobs ---------------------------------------------------------------------------------------------

static void start_snapshot(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                           struct rp_cim_instance *out, uint32_t *status)
{
    (void)path;
    const char *text = rp_cim_get_text(in, "SnapshotSettings");
    assert_non_null(text);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = rp_cimxml_parse(text, strlen(text), NULL);
    assert_non_null(settings);
    assert_string_equal(settings->class_name, "Msvm_VirtualSystemSnapshotSettingData");
    assert_int_equal(rp_cim_get_unsigned(settings, "ConsistencyLevel", 0), 1);
    assert_true(rp_cim_get_boolean(settings, "IgnoreNonSnapshottableDisks", false));
    assert_non_null(strstr(text, "NAME=\"ConsistencyLevel\" TYPE=\"uint8\""));
    assert_int_equal(rp_cim_get_unsigned(in, "SnapshotType", 0), 32768);
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(in, "AffectedSystem"), "Name"), FAKE_A);
    fake_start_job(f, out, status);
}

static void name_it(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                    struct rp_cim_instance *out, uint32_t *status)
{
    (void)path, (void)out;
    const char *text = rp_cim_get_text(in, "SystemSettings");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *change = rp_cimxml_parse(text, strlen(text), NULL);
    assert_int_equal(change->count, 2); // nothing but what changes
    struct rp_cim_instance *object = fake_find(f, "Msvm_VirtualSystemSettingData",
                                               rp_cim_get_text(change, "InstanceID"));
    assert_non_null(object);
    rp_cim_set(object, "ElementName", rp_cim_string(rp_cim_get_text(change, "ElementName")));
    *status = 0;
}

#define SNAPSHOT_ELEMENT FAKE_SETTINGS(SNAP)

static void a_snapshot_is_asked_for_waited_for_and_named(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID] = "";
    struct rp_job_state job_state;
    answers(list);
    fake_job(fake, 4, NULL);
    good(host->ops->create_snapshot(host, FAKE_A, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_APPLICATION, TAG, job, result,
                                    &err));
    assert_string_equal(job, "Msvm_ConcreteJob." FAKE_JOB);
    assert_string_equal(result, "");
    good(host->ops->job_state(host, job, &job_state, &err));
    assert_int_equal(job_state.phase, RP_JOB_RUNNING);
    assert_int_equal(job_state.percent, 60);
    fake_snapshot(fake, FAKE_A, SNAP, "web1 - Backup - (1/2/2026)");
    fake_job(fake, 7, SNAPSHOT_ELEMENT);
    good(rp_host_wait(host, job, result, NULL, NULL, &err));
    assert_string_equal(result, "Microsoft:" SNAP);
    assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings ");
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    good(host->ops->list_snapshots(host, FAKE_A, &snapshots, &err));
    assert_int_equal(snapshots.count, 1);
    assert_string_equal(snapshots.items[0].name, TAG);
    assert_int_equal(snapshots.items[0].consistency, RP_CONSISTENCY_APPLICATION);
    fake_remove(fake, "Msvm_ConcreteJob", FAKE_JOB); // gone after its five minutes
    good(host->ops->job_state(host, job, &job_state, &err));
    assert_int_equal(job_state.phase, RP_JOB_COMPLETED); // what was seen once is known
}

static int create(char job[RP_HOST_ID], char result[RP_HOST_ID])
{
    return host->ops->create_snapshot(host, FAKE_A, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_APPLICATION, TAG, job, result,
                                      &err);
}

static void a_snapshot_that_cannot_be_named_is_removed_again(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0},
                                              {"ModifySystemSettings", NULL, 32775},
                                              {"DestroySnapshot", NULL, 0},
                                              {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID] = "";
    answers(list);
    fake_snapshot(fake, FAKE_A, OTHER_SNAP, "mine");
    good(create(job, result));
    fake_snapshot(fake, FAKE_A, SNAP, "web1");
    fake_job(fake, 7, SNAPSHOT_ELEMENT);
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_STATE, "got no name, and was removed");
    assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings DestroySnapshot ");
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(fake->in, "AffectedSnapshot"), "InstanceID"),
                        "Microsoft:" SNAP);
}

static void a_busy_vm_gets_no_snapshot(void **state)
{
    (void)state;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    for (size_t i = 0; i < fake->objects[0].count; i++) {
        struct rp_cim_instance *row = fake->objects[0].items[i];
        struct rp_cim_value status = rp_cim_null(RP_CIM_UINT16, true), a = rp_cim_unsigned(RP_CIM_UINT16, 11),
                            b = rp_cim_unsigned(RP_CIM_UINT16, 32772);
        rp_cim_value_push(&status, &a);
        rp_cim_value_push(&status, &b);
        if (!strcmp(row->class_name, "Msvm_ComputerSystem"))
            rp_cim_set(row, "OperationalStatus", status);
        else
            rp_cim_value_clear(&status);
    }
    answers(NULL);
    bad(create(job, result), RP_ERR_BUSY, "merged");
    assert_string_equal(fake->log, "");
}

static void refusals_are_told_in_words(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        enum rp_code expected;
        const char *words;
    } codes[] = {{32775, RP_ERR_STATE, "not possible in this state (32775)"},
                 {5, RP_ERR_STATE, "in this state (5)"},
                 {32769, RP_ERR_PERMISSION, "access denied"},
                 {32774, RP_ERR_BUSY, "in use"},
                 {1, RP_ERR_UNSUPPORTED, "not supported"},
                 {32768, RP_ERR_IO, "failed"},
                 {40000, RP_ERR_IO, "unknown code (40000)"}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        const struct fake_answer list[] = {{"CreateSnapshot", NULL, codes[i].code}, {0}};
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        bad(create(job, result), codes[i].expected, codes[i].words);
    }
}

static void fill_errors(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                        struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path, (void)in;
    struct rp_cim_value list = rp_cim_null(RP_CIM_STRING, true);
    static const char first[] = "<INSTANCE CLASSNAME=\"Msvm_Error\"><PROPERTY NAME=\"Message\" TYPE=\"string\">"
                                "<VALUE>The guest said\r\nno.</VALUE></PROPERTY></INSTANCE>";
    static const char *const errors[] = {first, "<INSTANCE", "<INSTANCE CLASSNAME=\"Msvm_Error\"/>"};
    for (size_t i = 0; i < 3; i++) {
        struct rp_cim_value one = rp_cim_string(errors[i]);
        rp_cim_value_push(&list, &one);
    }
    rp_cim_set(out, "Errors", list);
    *status = 0;
}

static void a_failed_job_says_why_in_one_line(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"GetErrorEx", fill_errors, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    good(create(job, result));
    fake_job(fake, 10, NULL);
    struct rp_cim_instance *object = fake_find(fake, "Msvm_ConcreteJob", FAKE_JOB);
    fake_set(object, fake, "ErrorCode", "32775");
    fake_set(object, fake, "ErrorDescription", "Checkpoint operation failed.\nVSS is not there.");
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_STATE,
        "checkpoint of VM " FAKE_A ": Checkpoint operation failed. VSS is not there. — The guest said no. (32775)");
}

static void the_hresult_in_a_description_tells_more_than_the_code(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum rp_code code;
    } texts[] = {{"The disk is full (0x80070070).", RP_ERR_NO_SPACE}, {"Error: ('0xC03A0030')", RP_ERR_TRACKING_ID},
                 {"The file exists. (0x80070050)", RP_ERR_EXISTS}, {"0x8007", RP_ERR_IO}, {"", RP_ERR_IO}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0}, {0}};
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        fake_job(fake, 10, NULL);
        fake_set(fake_find(fake, "Msvm_ConcreteJob", FAKE_JOB), fake, "ErrorDescription", texts[i].text);
        fake_set(fake_find(fake, "Msvm_ConcreteJob", FAKE_JOB), fake, "ErrorCode", "32768");
        good(create(job, result));
        bad(rp_host_wait(host, job, result, NULL, NULL, &err), texts[i].code, "checkpoint of VM");
        rp_host_close(host);
        host = fake_connect(fake); // the same job id again
    }
}

static void a_job_that_ends_with_warnings_has_succeeded(void **state)
{
    (void)state;
    static const struct fake_answer start[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(start);
    good(create(job, result));
    fake_snapshot(fake, FAKE_A, SNAP, "x");
    fake_job(fake, 32768, SNAPSHOT_ELEMENT);
    good(rp_host_wait(host, job, result, NULL, NULL, &err));
    assert_string_equal(result, "Microsoft:" SNAP);
}

static void a_job_that_vanishes_is_an_error_that_says_so(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    good(create(job, result));
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_NOT_FOUND, "does not know the job any more");
}

static void a_job_makes_exactly_one_thing(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    for (unsigned count = 0; count < 3; count += 2) {
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        good(create(job, result));
        fake_job(fake, 7, NULL);
        if (count) {
            fake_snapshot(fake, FAKE_A, SNAP, "x");
            fake_snapshot(fake, FAKE_A, OTHER_SNAP, "y");
            fake_job(fake, 7, FAKE_SETTINGS(SNAP));
            fake_job(fake, 7, FAKE_SETTINGS(OTHER_SNAP));
        }
        bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_CORRUPT, count ? "2 things" : "0 things");
        rp_host_close(host);
        host = fake_connect(fake);
    }
}

static void a_terminated_job_was_cancelled(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"RequestStateChange", NULL, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake_job(fake, 4, NULL);
    good(create(job, result));
    good(host->ops->cancel_job(host, job, &err));
    assert_int_equal(rp_cim_get_unsigned(fake->in, "RequestedState", 0), 4);
    fake_job(fake, 8, NULL);
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_CANCELLED, "ended");
}

// ---- lost connections -----------------------------------------------------------------------------------------------

static void a_connection_lost_during_a_job_is_made_again_and_the_job_found(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    struct rp_job_state job_state;
    answers(list);
    fake_job(fake, 4, NULL);
    good(create(job, result));
    good(host->ops->job_state(host, job, &job_state, &err));
    fake->drop = 3; // a question is asked twice: the first is lost for good, the second once
    for (int i = 0; i < 2; i++) {
        good(host->ops->job_state(host, job, &job_state, &err));
        assert_int_equal(job_state.phase, RP_JOB_RUNNING);
        assert_int_equal(job_state.percent, 60);
    }
    assert_int_equal(fake->drop, 0);
    fake_snapshot(fake, FAKE_A, SNAP, "x");
    fake_job(fake, 7, SNAPSHOT_ELEMENT);
    fake->drop = 2;
    good(rp_host_wait(host, job, result, NULL, NULL, &err));
    assert_string_equal(result, "Microsoft:" SNAP);
}

static void make_and_start(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                           struct rp_cim_instance *out, uint32_t *status)
{
    fake_snapshot(f, FAKE_A, SNAP, "web1 - Backup");
    start_snapshot(f, path, in, out, status);
}

static void a_snapshot_whose_answer_was_lost_is_found(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", make_and_start, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake_snapshot(fake, FAKE_A, OTHER_SNAP, "somebody else's");
    fake->drop_method = "CreateSnapshot";
    good(create(job, result));
    assert_string_equal(job, "");
    assert_string_equal(result, "Microsoft:" SNAP);
    assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings ");
    assert_string_equal(
        rp_cim_get_text(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" SNAP), "ElementName"), TAG);
    assert_string_equal(
        rp_cim_get_text(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" OTHER_SNAP), "ElementName"),
        "somebody else's");
}

static void a_call_that_was_never_carried_out_is_not_made_twice(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake->drop_method = "CreateSnapshot";
    bad(create(job, result), RP_ERR_IO, "checkpoint of VM");
    assert_string_equal(fake->log, "CreateSnapshot ");
}

static void make_point(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                       struct rp_cim_instance *out, uint32_t *status)
{
    (void)path, (void)in;
    fake_point(f, FAKE_A, POINT, TAG);
    rp_cim_set(out, "ResultingReferencePoint", rp_cim_reference(rp_cim_path_parse(FAKE_PATH
        "Msvm_VirtualSystemReferencePoint.InstanceID=\"" POINT "\",VirtualSystemIdentifier=\"" FAKE_A "\"", NULL)));
    *status = 0;
}

static void a_reference_point_comes_from_the_answer_or_from_the_list(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"ConvertToReferencePoint", make_point, 0}, {0}};
    for (int lost = 0; lost < 2; lost++) {
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        if (!lost)
            fake_snapshot(fake, FAKE_A, SNAP, TAG);
        else
            fake_remove(fake, "Msvm_VirtualSystemReferencePoint", POINT);
        fake->drop_method = lost ? "ConvertToReferencePoint" : NULL;
        good(host->ops->convert_to_reference_point(host, "Microsoft:" SNAP, job, result, &err));
        assert_string_equal(job, "");
        assert_string_equal(result, POINT);
    }
}

static void a_reference_point_is_named_by_the_keys_that_the_host_gives(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"DestroyReferencePoint", NULL, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake_point(fake, FAKE_A, POINT, TAG);
    for (int without = 0; without < 2; without++) {
        fake->no_references = without; // then by those of the documentation
        good(host->ops->destroy_reference_point(host, POINT, job, result, &err));
        const struct rp_cim_path *path = rp_cim_get_path(fake->in, "AffectedReferencePoint");
        assert_string_equal(rp_cim_path_get(path, "InstanceID"), POINT);
        assert_string_equal(rp_cim_path_get(path, "VirtualSystemIdentifier"), FAKE_A);
    }
}

// ---- changes --------------------------------------------------------------------------------------------------------

static uint64_t processed_limit;
static int changes_fault;

static void push_number(struct rp_cim_instance *out, const char *name, uint64_t value)
{
    struct rp_cim_value array = rp_cim_null(RP_CIM_UINT64, true), one = rp_cim_unsigned(RP_CIM_UINT64, value);
    rp_cim_value_push(&array, &one);
    rp_cim_set(out, name, array);
}

static void tell_changes(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                         struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path;
    uint64_t offset = rp_cim_get_unsigned(in, "ByteOffset", 1), length = rp_cim_get_unsigned(in, "ByteLength", 0);
    assert_string_equal(rp_cim_get_text(in, "Path"), "D:\\VMs\\web1.avhdx");
    assert_null(rp_cim_get_text(in, "TargetSnapshotId"));
    uint64_t done = length < processed_limit ? length : processed_limit;
    push_number(out, "ChangedByteOffsets", changes_fault == 1 ? offset + done + length : offset);
    if (changes_fault != 2)
        push_number(out, "ChangedByteLengths", 4096);
    rp_cim_set(out, "ProcessedByteLength",
               rp_cim_unsigned(RP_CIM_UINT64, changes_fault == 3   ? 0
                                              : changes_fault == 4 ? length + 1
                                                                   : done));
    *status = 0;
}

static const char *const rct = "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001";

static void changes_are_asked_for_until_the_disk_is_covered(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualDiskChanges", tell_changes, 0}, {0}};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    answers(list);
    processed_limit = 1 << 20;
    changes_fault = 0;
    good(rp_host_all_changes(host, "D:\\VMs\\web1.avhdx", rct, 5 << 19, &ranges, &err));
    assert_string_equal(fake->log, "GetVirtualDiskChanges GetVirtualDiskChanges GetVirtualDiskChanges ");
    assert_int_equal(ranges.count, 3);
    assert_int_equal(ranges.items[2].offset, 2 << 20);
    fake->drop_method = "GetVirtualDiskChanges"; // it changes nothing, and is asked again
    good(rp_host_all_changes(host, "D:\\VMs\\web1.avhdx", rct, 1 << 20, &ranges, &err));
}

static void changes_that_cannot_be_are_not_believed(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"GetVirtualDiskChanges", tell_changes, 0}, {0}};
    static const char *const words[] = {"", "nobody asked for", "1 offsets and 0 lengths", "covered 0",
                                        "covered 1048577"};
    answers(list);
    processed_limit = 1 << 20;
    for (changes_fault = 1; changes_fault < 5; changes_fault++) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
        bad(rp_host_all_changes(host, "D:\\VMs\\web1.avhdx", rct, 1 << 20, &ranges, &err), RP_ERR_CORRUPT,
            words[changes_fault]);
        assert_int_equal(ranges.count, 0);
    }
}

static void a_refused_tracking_id_means_that_everything_is_read(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        const char *id;
        enum rp_code expected;
    } cases[] = {{32768, "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", RP_ERR_TRACKING_ID},
                 {32773, "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", RP_ERR_TRACKING_ID},
                 {32773, "nonsense", RP_ERR_TRACKING_SYNTAX},
                 {32775, "nonsense", RP_ERR_TRACKING_OFF},
                 {32770, "nonsense", RP_ERR_TRACKING_OFF},
                 {32779, "nonsense", RP_ERR_NOT_FOUND},
                 {32769, "nonsense", RP_ERR_PERMISSION}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct fake_answer list[] = {
            {"GetVirtualDiskChanges", NULL, cases[i].code}, {"GetVirtualHardDiskSettingData", disk_facts, 0}, {0}};
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
        uint64_t processed;
        answers(list);
        bad(host->ops->disk_changes(host, "D:\\a.vhdx", cases[i].id, 0, 4096, &ranges, &processed, &err),
            cases[i].expected, "changes of disk");
    }
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
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(states_and_activities_are_those_of_the_documentation),
        TEST(a_name_is_exact_although_wql_is_not),
        TEST(other_prefixes_other_dates_and_nil_arrays_say_the_same),
        TEST(what_a_host_leaves_out_is_not_made_up),
        TEST(ids_that_are_none_are_refused),
        TEST(change_tracking_ids_without_partners_are_not_believed),
        TEST(disks_keep_their_numbers_on_several_controllers),
        TEST(an_inventory_asks_four_times_however_many_vms_there_are),
        TEST(who_may_not_see_the_services_is_told_what_is_missing),
        TEST(a_snapshot_is_asked_for_waited_for_and_named),
        TEST(a_snapshot_that_cannot_be_named_is_removed_again),
        TEST(a_busy_vm_gets_no_snapshot),
        TEST(refusals_are_told_in_words),
        TEST(a_failed_job_says_why_in_one_line),
        TEST(the_hresult_in_a_description_tells_more_than_the_code),
        TEST(a_job_that_ends_with_warnings_has_succeeded),
        TEST(a_job_that_vanishes_is_an_error_that_says_so),
        TEST(a_job_makes_exactly_one_thing),
        TEST(a_terminated_job_was_cancelled),
        TEST(a_connection_lost_during_a_job_is_made_again_and_the_job_found),
        TEST(a_snapshot_whose_answer_was_lost_is_found),
        TEST(a_call_that_was_never_carried_out_is_not_made_twice),
        TEST(a_reference_point_comes_from_the_answer_or_from_the_list),
        TEST(a_reference_point_is_named_by_the_keys_that_the_host_gives),
        TEST(changes_are_asked_for_until_the_disk_is_covered),
        TEST(changes_that_cannot_be_are_not_believed),
        TEST(a_refused_tracking_id_means_that_everything_is_read),
        TEST(an_export_says_what_products_say),
        TEST(saved_settings_become_a_plan_with_other_files),
        TEST(a_disk_of_a_snapshot_that_cannot_be_looked_at_is_an_error),
        TEST(a_disk_gets_a_controller_and_a_drive_first),
    };
    return cmocka_run_group_tests_name("wmi", tests, NULL, NULL);
}
