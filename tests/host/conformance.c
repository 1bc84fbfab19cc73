#include "conformance.h"

#include <unistd.h>

#include "conformance-kit.h"

static const struct conformance_host *factory;
bool conformance_wire;

bool conformance_code(enum rp_code got, enum rp_code expected)
{
    bool in_the_way = expected == RP_ERR_EXISTS || expected == RP_ERR_BUSY || expected == RP_ERR_STATE;
    return got == expected || (conformance_wire && expected == RP_ERR_NOT_FOUND && got == RP_ERR_INVALID) ||
           (conformance_wire && in_the_way && (got == RP_ERR_EXISTS || got == RP_ERR_BUSY || got == RP_ERR_STATE));
}

int conformance_setup(void **state)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    w->host = factory->start();
    w->c = factory->connect(w->host, &w->err);
    if (!w->c)
        fail_msg("connect: %s", w->err.text);
    w->folder = factory->folder(w->host);
    *state = w;
    return 0;
}

int conformance_teardown(void **state)
{
    struct world *w = *state;
    struct rp_vms vms = {0};
    w->c->ops->list_vms(w->c, &vms, NULL);
    for (size_t i = 0; i < vms.count; i++) {
        char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
        if (vms.items[i].state == RP_VM_RUNNING && !w->c->ops->request_state(w->c, vms.items[i].id, RP_VM_OFF, job, result, NULL))
            rp_host_wait(w->c, job, result, NULL, NULL, NULL);
    }
    rp_vms_clear(&vms);
    rp_host_close(w->c);
    factory->stop(w->host);
    free(w);
    return 0;
}

// ---- the methods, each waited for -----------------------------------------------------------------------------------

void define(struct world *w, const char *name, const char *disk0, const char *disk1, char id[RP_HOST_ID])
{
    const char *disks[2] = {disk0, disk1};
    kit_ok(METHOD(w, id, define_system, name, disks, disk1 ? 2u : disk0 ? 1u : 0u, NULL, NULL), w->err);
    assert_string_not_equal(id, "");
}

// A VM with one disk of kit_fill(seed), which is also put into `model`.
void define_filled(struct world *w, const char *name, uint64_t seed, uint8_t *model, char id[RP_HOST_ID])
{
    RP_AUTO_FREE char *raw = kit_path("%s/%s.raw", w->folder, name);
    kit_raw(raw, DISK, seed);
    if (model)
        kit_fill(model, DISK, seed);
    define(w, name, raw, NULL, id);
}

void set_state(struct world *w, const char *id, enum rp_vm_state state)
{
    char result[RP_HOST_ID];
    kit_ok(METHOD(w, result, request_state, id, state), w->err);
}

void snapshot(struct world *w, const char *id, enum rp_snapshot_type type, const char *name, char out[RP_HOST_ID])
{
    kit_ok(METHOD(w, out, create_snapshot, id, type, RP_CONSISTENCY_CRASH, name), w->err);
    assert_string_not_equal(out, "");
}

void wait_idle(struct world *w, const char *id)
{
    int rc = rp_host_wait_merge(w->c, id, 20000, &w->err);
    if (rc) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        w->c->ops->find_vm(w->c, id, &vm, NULL);
        fail_msg("the merge does not end (%d): %s %s", rc, w->err.text, vm.merge_problem ? vm.merge_problem : "");
    }
}

void destroy(struct world *w, const char *vm, const char *snapshot_id)
{
    char result[RP_HOST_ID];
    kit_ok(METHOD(w, result, destroy_snapshot, snapshot_id), w->err);
    wait_idle(w, vm);
}

void convert(struct world *w, const char *vm, const char *snapshot_id, char point[RP_HOST_ID])
{
    kit_ok(METHOD(w, point, convert_to_reference_point, snapshot_id), w->err);
    wait_idle(w, vm);
}

// Path (of a snapshot or the VM) or NBD address of a disk; malloc'ed.
char *live(struct world *w, const char *vm, size_t index, bool uri)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, vm, &s, &w->err), w->err);
    assert_true(index < s.disk_count);
    const char *text = uri ? s.disks[index].nbd_uri : s.disks[index].path;
    assert_non_null(text);
    return rp_xstrdup(text);
}

char *frozen(struct world *w, const char *snapshot_id, size_t index)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->snapshot_settings(w->c, snapshot_id, &s, &w->err), w->err);
    assert_true(index < s.disk_count);
    return rp_xstrdup(s.disks[index].path);
}

void write_live(struct world *w, const char *vm, uint8_t *model, uint64_t seed, uint64_t offset, size_t size)
{
    RP_AUTO_FREE char *uri = live(w, vm, 0, true);
    kit_fill(model + offset, size, seed);
    kit_nbd_write(uri, model + offset, size, offset);
}

void live_holds(struct world *w, const char *vm, const uint8_t *model)
{
    RP_AUTO_FREE char *uri = live(w, vm, 0, true);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK);
    kit_nbd_read(uri, data, DISK, 0);
    assert_memory_equal(data, model, DISK);
}

void frozen_holds(struct world *w, const char *snapshot_id, const uint8_t *model)
{
    RP_AUTO_FREE char *path = frozen(w, snapshot_id, 0);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK);
    kit_chain_read(path, data, DISK);
    assert_memory_equal(data, model, DISK);
}

size_t count_snapshots(struct world *w, const char *vm)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->list_snapshots(w->c, vm, &list, &w->err), w->err);
    return list.count;
}

void rct_id(struct world *w, const char *vm, const char *point, size_t disk, char out[RP_HOST_ID])
{
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, vm, &points, &w->err), w->err);
    for (size_t i = 0; i < points.count; i++)
        if (!strcmp(points.items[i].id, point)) {
            assert_true(disk < points.items[i].disk_count);
            memcpy(out, points.items[i].disks[disk].rct_id, RP_HOST_ID);
            assert_string_not_equal(out, "");
            return;
        }
    fail_msg("reference point %s is not listed", point);
}

// The changed units since `id`, as a set.
void changes(struct world *w, const char *path, const char *id, bool units[DISK / KIT_UNIT])
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    kit_ok(rp_host_all_changes(w->c, path, id, DISK, &ranges, &w->err), w->err);
    memset(units, 0, DISK / KIT_UNIT);
    for (size_t i = 0; i < ranges.count; i++)
        for (uint64_t at = ranges.items[i].offset; at < ranges.items[i].offset + ranges.items[i].length; at += KIT_UNIT)
            units[at / KIT_UNIT] = true;
}

// ---- VMs ------------------------------------------------------------------------------------------------------------

static void a_new_host_has_no_vms(void **state)
{
    struct world *w = *state;
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory all = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, 0);
    kit_ok(w->c->ops->inventory(w->c, &all, &w->err), w->err);
    assert_int_equal(all.count, 0);
}

static void a_vm_is_found_by_its_name_and_by_its_id_in_either_case(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    char lower[RP_HOST_ID];
    for (size_t i = 0; i < sizeof lower; i++)
        lower[i] = id[i] >= 'A' && id[i] <= 'Z' ? (char)(id[i] + 32) : id[i];
    const char *ways[] = {"web1", id, lower};
    for (size_t i = 0; i < 3; i++) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        kit_ok(w->c->ops->find_vm(w->c, ways[i], &vm, &w->err), w->err);
        assert_string_equal(vm.id, id);
        assert_string_equal(vm.name, "web1");
        assert_int_equal(vm.state, RP_VM_OFF);
        assert_int_equal(vm.activity, RP_VM_IDLE);
    }
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, 1);
    assert_string_equal(vms.items[0].id, id);
}

static void two_vms_of_one_name_are_told_apart_by_id_only(void **state)
{
    struct world *w = *state;
    char a[RP_HOST_ID], b[RP_HOST_ID];
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    define(w, "twin", NULL, NULL, a);
    define(w, "twin", NULL, NULL, b);
    assert_string_not_equal(a, b);
    rp_error_clear(&w->err);
    assert_int_equal(w->c->ops->find_vm(w->c, "twin", &vm, &w->err), -1);
    assert_int_equal(w->err.code, RP_ERR_INVALID);
    assert_non_null(strstr(w->err.text, a));
    assert_non_null(strstr(w->err.text, b));
    rp_error_clear(&w->err);
    kit_ok(w->c->ops->find_vm(w->c, b, &vm, &w->err), w->err);
    assert_string_equal(vm.id, b);
}

static void hostile_names_come_back_as_they_were_given(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {"it's; DROP TABLE vm; --", "%s%n%d \"quoted\" \\ back", "../../etc/passwd", "Müller & Söhne 机",
                                        "<a>&amp;</a>", " spaces ", "-rf", "a@b:c/d"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char id[RP_HOST_ID];
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
        define(w, names[i], NULL, NULL, id);
        kit_ok(w->c->ops->find_vm(w->c, names[i], &vm, &w->err), w->err);
        assert_string_equal(vm.name, names[i]);
        kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
        assert_non_null(s.document);
    }
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, sizeof names / sizeof *names);
}

static void what_does_not_exist_is_not_found(void **state)
{
    struct world *w = *state;
    const char *none = "12345678-1234-1234-1234-123456789ABC";
    char result[RP_HOST_ID];
    struct rp_vm vm;
    struct rp_vm_settings settings;
    struct rp_snapshots snapshots;
    struct rp_reference_points points;
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    uint64_t processed;
    RP_AUTO_FREE char *no_disk_path = kit_path("%s/nonexistent.vhdx", w->folder),
                      *no_definition = kit_path("%s/nonexistent.vmcx", w->folder);
    const char *no_disk = no_disk_path;
    kit_fails(w->c->ops->find_vm(w->c, "nobody", &vm, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(w->c->ops->find_vm(w->c, none, &vm, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(w->c->ops->vm_settings(w->c, none, &settings, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(w->c->ops->list_snapshots(w->c, none, &snapshots, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(w->c->ops->list_reference_points(w->c, none, &points, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(w->c->ops->snapshot_settings(w->c, none, &settings, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, request_state, none, RP_VM_RUNNING), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, destroy_system, none, WITH_DISKS(w)), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, add_disk, none, no_disk), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, remove_disk, none, 0), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, resize_disk, none, 0, DISK), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, create_snapshot, none, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "x"), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, destroy_snapshot, none), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, convert_to_reference_point, none), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, destroy_reference_point, none), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, rename, none, "x"), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, apply_snapshot, none), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, create_reference_point, none, RP_CONSISTENCY_CRASH, "x"), w->err, RP_ERR_NOT_FOUND);
    struct rp_export export = {.vm_id = none, .folder = w->folder, .storage = true};
    kit_fails(METHOD(w, result, export_system, &export), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, import_system, no_definition, true), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, modify_disk, none, no_disk), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, validate_planned, none), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, realize_planned, none), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, import_reference_point, none, no_definition), w->err, RP_ERR_NOT_FOUND);
    struct rp_job_state job_state;
    kit_fails(w->c->ops->job_state(w->c, none, &job_state, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(w->c->ops->cancel_job(w->c, none, &w->err), w->err, RP_ERR_NOT_FOUND);
    kit_fails(METHOD(w, result, define_system, "x", &no_disk, 1u, NULL, NULL), w->err, RP_ERR_NOT_FOUND);
    kit_fails(w->c->ops->disk_changes(w->c, no_disk, "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", 0, DISK, &ranges,
                                      &processed, &w->err), w->err, RP_ERR_NOT_FOUND);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, 0);
}

static void a_raw_disk_is_served_with_its_content_while_the_vm_runs(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    define_filled(w, "web1", 7, model, id);
    {
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
        kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
        assert_int_equal(s.disk_count, 1);
        assert_int_equal(s.disks[0].number, 0);
        assert_int_equal(s.disks[0].size, DISK);
        assert_int_equal(s.disks[0].logical_sector, 512);
        assert_false(rp_guid_is_zero(&s.disks[0].disk_id));
        assert_null(s.disks[0].nbd_uri);
    }
    set_state(w, id, RP_VM_RUNNING);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(w->c->ops->find_vm(w->c, id, &vm, &w->err), w->err);
    assert_int_equal(vm.state, RP_VM_RUNNING);
    live_holds(w, id, model);
    write_live(w, id, model, 8, 65536, 4096);
    set_state(w, id, RP_VM_OFF);
    RP_AUTO_FREE char *path = live(w, id, 0, false);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK);
    kit_chain_read(path, data, DISK);
    assert_memory_equal(data, model, DISK);
}

static void a_vhdx_is_used_in_place(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xcalloc(1, DISK);
    RP_AUTO_FREE char *file = kit_path("%s/own.vhdx", w->folder);
    kit_vhdx(file, DISK);
    define(w, "web1", file, NULL, id);
    RP_AUTO_FREE char *path = live(w, id, 0, false);
    assert_string_equal(path, file);
    set_state(w, id, RP_VM_RUNNING);
    write_live(w, id, model, 3, 1 << 20, 8192);
    set_state(w, id, RP_VM_OFF);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK);
    kit_chain_read(file, data, DISK);
    assert_memory_equal(data, model, DISK);
}

static void starting_and_stopping_twice_is_an_error_of_state(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], result[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    kit_fails(METHOD(w, result, request_state, id, RP_VM_OFF), w->err, RP_ERR_STATE);
    set_state(w, id, RP_VM_RUNNING);
    kit_fails(METHOD(w, result, request_state, id, RP_VM_RUNNING), w->err, RP_ERR_STATE);
    kit_fails(METHOD(w, result, destroy_system, id, WITH_DISKS(w)), w->err, RP_ERR_STATE);
    set_state(w, id, RP_VM_OFF);
}

static void the_settings_document_of_a_vm_names_it_and_its_disks(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0}, t = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    assert_non_null(strstr(s.document, id));
    assert_non_null(strstr(s.document, "web1"));
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "tag", snap);
    kit_ok(w->c->ops->snapshot_settings(w->c, snap, &t, &w->err), w->err);
    assert_non_null(strstr(t.document, id));
    assert_int_equal(t.disk_count, 1);
    assert_string_equal(t.disks[0].instance, s.disks[0].instance);
    assert_true(rp_guid_equal(&t.disks[0].disk_id, &s.disks[0].disk_id));
    assert_int_equal(t.disks[0].size, DISK);
    rp_vm_settings_clear(&t);
    t = (struct rp_vm_settings){0};
}

// ---- snapshots ------------------------------------------------------------------------------------------------------

static void a_snapshot_holds_the_disk_as_it_was_and_the_vm_goes_on(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK), *then = rp_xmalloc(DISK);
    define_filled(w, "web1", 1, model, id);
    set_state(w, id, RP_VM_RUNNING);
    write_live(w, id, model, 2, 100 * 512, 512 * 300);
    memcpy(then, model, DISK);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "refpoint:tag", snap);
    write_live(w, id, model, 3, 200 * 512, 512 * 300);
    frozen_holds(w, snap, then);
    live_holds(w, id, model);
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->list_snapshots(w->c, id, &list, &w->err), w->err);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.items[0].id, snap);
    assert_string_equal(list.items[0].vm_id, id);
    assert_string_equal(list.items[0].name, "refpoint:tag");
    assert_int_equal(list.items[0].type, RP_SNAPSHOT_RECOVERY);
    assert_int_equal(list.items[0].consistency, RP_CONSISTENCY_CRASH);
    assert_true(list.items[0].time_ns > 0);
    assert_false(list.items[0].merging);
    destroy(w, id, snap);
    assert_int_equal(count_snapshots(w, id), 0);
    live_holds(w, id, model);
    char result[RP_HOST_ID];
    kit_fails(METHOD(w, result, destroy_snapshot, snap), w->err, RP_ERR_NOT_FOUND);
}

static void a_vm_that_is_off_can_be_frozen_too(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    define_filled(w, "web1", 5, model, id);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    frozen_holds(w, snap, model);
    convert(w, id, snap, point);
    assert_int_equal(count_snapshots(w, id), 0);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    char rct[RP_HOST_ID];
    bool changed[DISK / KIT_UNIT];
    rct_id(w, id, point, 0, rct);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    changes(w, path, rct, changed);
    for (size_t i = 0; i < DISK / KIT_UNIT; i++)
        assert_false(changed[i]);
    destroy(w, id, snap);
}

static void all_disks_of_a_vm_are_frozen_together(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID];
    RP_AUTO_FREE char *a = kit_path("%s/a.raw", w->folder), *b = kit_path("%s/b.raw", w->folder);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK), *model = rp_xmalloc(DISK);
    kit_raw(a, DISK, 1);
    kit_raw(b, DISK, 2);
    define(w, "db", a, b, id);
    set_state(w, id, RP_VM_RUNNING);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    for (size_t i = 0; i < 2; i++) {
        RP_AUTO_FREE char *path = frozen(w, snap, i);
        kit_chain_read(path, data, DISK);
        kit_fill(model, DISK, i + 1);
        assert_memory_equal(data, model, DISK);
    }
    convert(w, id, snap, point);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, id, &points, &w->err), w->err);
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    assert_int_equal(points.count, 1);
    assert_int_equal(points.items[0].disk_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(points.items[0].disks[i].instance, s.disks[i].instance);
        assert_true(rp_guid_equal(&points.items[0].disks[i].disk_id, &s.disks[i].disk_id));
    }
    assert_string_not_equal(points.items[0].disks[0].rct_id, points.items[0].disks[1].rct_id);
}

static void a_reader_delays_the_merge_and_nothing_else(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], again[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK), *data = rp_xmalloc(DISK);
    define_filled(w, "web1", 1, model, id);
    set_state(w, id, RP_VM_RUNNING);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    RP_AUTO_FREE uint8_t *then = rp_xmalloc(DISK);
    memcpy(then, model, DISK);
    write_live(w, id, model, 2, 0, 65536);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    struct rp_chain reader = {0};
    kit_ok(rp_chain_open(rp_fs_posix(), path, &reader, &w->err), w->err);
    kit_ok(METHOD(w, result, destroy_snapshot, snap), w->err);
    assert_int_equal(rp_host_wait_merge(w->c, id, 300, &w->err), 1);
    {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        kit_ok(w->c->ops->find_vm(w->c, id, &vm, &w->err), w->err);
        assert_int_equal(vm.activity, RP_VM_MERGING);
        assert_non_null(vm.merge_problem);
        RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
        kit_ok(w->c->ops->list_snapshots(w->c, id, &list, &w->err), w->err);
        assert_int_equal(list.count, conformance_wire ? 0 : 1);
        assert_true(conformance_wire || list.items[0].merging);
    }
    kit_ok(rp_vhdx_read(reader.layers[0], data, (uint32_t)DISK, 0, &w->err), w->err);
    assert_memory_equal(data, then, DISK);
    live_holds(w, id, model);
    kit_fails(METHOD(w, again, create_snapshot, id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "t"), w->err, RP_ERR_BUSY);
    kit_fails(METHOD(w, result, destroy_snapshot, snap), w->err, conformance_wire ? RP_ERR_NOT_FOUND : RP_ERR_STATE);
    rp_chain_close(&reader);
    wait_idle(w, id);
    assert_int_equal(count_snapshots(w, id), 0);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", again);
    frozen_holds(w, again, model);
    destroy(w, id, again);
}

static void snapshots_go_in_any_order_and_no_content_changes(void **state)
{
    enum { MOST = 4, ROUNDS = 24 };
    struct world *w = *state;
    uint64_t seed = kit_seed();
    print_message("# RP_TEST_SEED=%llu\n", (unsigned long long)seed);
    char id[RP_HOST_ID], ids[MOST][RP_HOST_ID];
    uint8_t *models[MOST] = {0};
    size_t count = 0;
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    define_filled(w, "web1", seed, model, id);
    set_state(w, id, RP_VM_RUNNING);
    bool running = true;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t offset = kit_random(&seed) % (DISK / 512 - 512) * 512, length = (1 + kit_random(&seed) % 400) * 512;
        if (running)
            write_live(w, id, model, kit_random(&seed), offset, length);
        unsigned dice = (unsigned)(kit_random(&seed) % 10);
        if (dice == 0) {
            set_state(w, id, running ? RP_VM_OFF : RP_VM_RUNNING);
            running = !running;
        } else if (count < MOST && (dice < 6 || !count)) {
            snapshot(w, id, dice & 1 ? RP_SNAPSHOT_PRODUCTION : RP_SNAPSHOT_RECOVERY, dice & 1 ? "production" : "recovery", ids[count]);
            models[count] = rp_xmalloc(DISK);
            memcpy(models[count++], model, DISK);
        } else {
            size_t victim = kit_random(&seed) % count;
            destroy(w, id, ids[victim]);
            free(models[victim]);
            for (size_t i = victim; i + 1 < count; i++) {
                memcpy(ids[i], ids[i + 1], RP_HOST_ID);
                models[i] = models[i + 1];
            }
            models[--count] = NULL;
        }
        for (size_t i = 0; i < count; i++)
            frozen_holds(w, ids[i], models[i]);
        assert_int_equal(count_snapshots(w, id), count);
        if (running)
            live_holds(w, id, model);
    }
    for (size_t i = 0; i < count; i++)
        free(models[i]);
}

// ---- reference points and changes -----------------------------------------------------------------------------------

static void only_recovery_snapshots_become_reference_points(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "before the upgrade", snap);
    kit_fails(METHOD(w, point, convert_to_reference_point, snap), w->err, RP_ERR_STATE);
    assert_int_equal(count_snapshots(w, id), 1);
    destroy(w, id, snap);
}

static void changes_since_a_reference_point_are_exactly_what_was_written(void **state)
{
    struct world *w = *state;
    uint64_t seed = kit_seed();
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], rct[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    bool expected[DISK / KIT_UNIT], got[DISK / KIT_UNIT];
    define_filled(w, "web1", 1, model, id);
    set_state(w, id, RP_VM_RUNNING);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "refpoint:a:1", snap);
    convert(w, id, snap, point);
    for (int round = 0; round < 4; round++) {
        memset(expected, 0, sizeof expected);
        for (int i = 0; i < round * 3; i++) { // none in the first round
            uint64_t offset = kit_random(&seed) % (DISK / 512 - 256) * 512, length = (1 + kit_random(&seed) % 255) * 512;
            write_live(w, id, model, kit_random(&seed), offset, length);
            for (uint64_t unit = offset / KIT_UNIT; unit <= (offset + length - 1) / KIT_UNIT; unit++)
                expected[unit] = true;
        }
        snapshot(w, id, RP_SNAPSHOT_RECOVERY, "refpoint:a:2", snap);
        write_live(w, id, model, kit_random(&seed), 0, 512); // after the moment: does not count
        rct_id(w, id, point, 0, rct);
        RP_AUTO_FREE char *path = frozen(w, snap, 0);
        changes(w, path, rct, got);
        assert_memory_equal(got, expected, sizeof got);
        char next[RP_HOST_ID], result[RP_HOST_ID];
        convert(w, id, snap, next);
        kit_ok(METHOD(w, result, destroy_reference_point, point), w->err);
        memcpy(point, next, sizeof point);
        // the write after the moment belongs to the next round
        snapshot(w, id, RP_SNAPSHOT_RECOVERY, "refpoint:a:3", snap);
        convert(w, id, snap, next);
        kit_ok(METHOD(w, result, destroy_reference_point, point), w->err);
        memcpy(point, next, sizeof point);
    }
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, id, &points, &w->err), w->err);
    assert_int_equal(points.count, 1);
    assert_string_equal(points.items[0].name, "refpoint:a:3");
    assert_string_equal(points.items[0].vm_id, id);
}

static void ids_survive_a_restart_of_the_vm_and_another_connection(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], rct[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    bool got[DISK / KIT_UNIT];
    define_filled(w, "web1", 1, model, id);
    set_state(w, id, RP_VM_RUNNING);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    convert(w, id, snap, point);
    set_state(w, id, RP_VM_OFF);
    conformance_reconnect(w);
    set_state(w, id, RP_VM_RUNNING);
    write_live(w, id, model, 2, 10 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    rct_id(w, id, point, 0, rct);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    changes(w, path, rct, got);
    for (size_t i = 0; i < DISK / KIT_UNIT; i++)
        assert_int_equal(got[i], i == 10);
    set_state(w, id, RP_VM_OFF); // asked of the files at rest now
    changes(w, path, rct, got);
    for (size_t i = 0; i < DISK / KIT_UNIT; i++)
        assert_int_equal(got[i], i == 10);
}

static void unknown_and_malformed_ids_are_told_apart(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID];
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    uint64_t processed;
    define_filled(w, "web1", 1, NULL, id);
    set_state(w, id, RP_VM_RUNNING);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    for (int running = 1; running >= 0; running--) {
        kit_fails(w->c->ops->disk_changes(w->c, path, "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001", 0, DISK, &ranges,
                                          &processed, &w->err), w->err, RP_ERR_TRACKING_ID);
        kit_fails(w->c->ops->disk_changes(w->c, path, "nonsense", 0, DISK, &ranges, &processed, &w->err), w->err,
                  RP_ERR_TRACKING_SYNTAX);
        if (running)
            set_state(w, id, RP_VM_OFF);
    }
}

static void checkpoints_of_the_user_do_not_disturb_backups(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], mine[RP_HOST_ID], other[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], rct[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK), *first = rp_xmalloc(DISK), *second = rp_xmalloc(DISK);
    bool got[DISK / KIT_UNIT];
    define_filled(w, "web1", 1, model, id);
    set_state(w, id, RP_VM_RUNNING);
    memcpy(first, model, DISK);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "mine", mine);
    write_live(w, id, model, 2, 3 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    frozen_holds(w, snap, model);
    convert(w, id, snap, point);
    write_live(w, id, model, 3, 5 * KIT_UNIT, 512);
    memcpy(second, model, DISK);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "other", other);
    write_live(w, id, model, 4, 7 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    rct_id(w, id, point, 0, rct);
    for (int round = 0; round < 2; round++) {
        RP_AUTO_FREE char *path = frozen(w, snap, 0);
        changes(w, path, rct, got);
        for (size_t i = 0; i < DISK / KIT_UNIT; i++)
            assert_int_equal(got[i], i == 5 || i == 7);
        frozen_holds(w, snap, model);
        if (round)
            break;
        frozen_holds(w, mine, first);
        frozen_holds(w, other, second);
        destroy(w, id, mine); // below: the answers stay
        frozen_holds(w, other, second);
    }
    char next[RP_HOST_ID];
    convert(w, id, snap, next);
    frozen_holds(w, other, second);
    live_holds(w, id, model);
    destroy(w, id, other);
    live_holds(w, id, model);
}

// ---- disks come and go ----------------------------------------------------------------------------------------------

static void disks_come_and_go_while_the_vm_is_off(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], instance[RP_HOST_ID], result[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID];
    RP_AUTO_FREE char *b = kit_path("%s/b.raw", w->folder), *c = kit_path("%s/c.vhdx", w->folder);
    kit_raw(b, DISK, 2);
    kit_vhdx(c, DISK);
    define_filled(w, "web1", 1, NULL, id);
    kit_ok(METHOD(w, instance, add_disk, id, b), w->err);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    kit_fails(METHOD(w, result, remove_disk, id, 1), w->err, RP_ERR_STATE); // it is frozen in a checkpoint
    convert(w, id, snap, point);
    kit_fails(METHOD(w, result, remove_disk, id, 9), w->err, RP_ERR_NOT_FOUND);
    kit_ok(METHOD(w, result, remove_disk, id, 1), w->err);
    kit_ok(METHOD(w, result, add_disk, id, c), w->err);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    assert_int_equal(s.disk_count, 2);
    assert_int_equal(s.disks[1].number, 2); // a number is never used twice
    assert_string_not_equal(s.disks[1].instance, instance);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, id, &points, &w->err), w->err);
    assert_int_equal(points.items[0].disk_count, 2); // what it was made of, also after the disk has gone
    assert_string_equal(points.items[0].disks[1].instance, instance);
    set_state(w, id, RP_VM_RUNNING);
    RP_AUTO_FREE char *uri = live(w, id, 1, true);
    uint8_t sector[512];
    kit_nbd_read(uri, sector, sizeof sector, 0);
    kit_fails(METHOD(w, result, add_disk, id, b), w->err, RP_ERR_STATE);
    kit_fails(METHOD(w, result, remove_disk, id, 0), w->err, RP_ERR_STATE);
    kit_fails(METHOD(w, result, resize_disk, id, 0, 2 * DISK), w->err, RP_ERR_STATE);
}

static void a_grown_disk_keeps_its_ids(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], rct[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    define_filled(w, "web1", 1, model, id);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    convert(w, id, snap, point);
    kit_fails(METHOD(w, result, resize_disk, id, 0, DISK / 2), w->err, RP_ERR_INVALID);
    kit_fails(METHOD(w, result, resize_disk, id, 4, DISK * 2), w->err, RP_ERR_NOT_FOUND);
    kit_ok(METHOD(w, result, resize_disk, id, 0, DISK + 4 * RP_MIB), w->err);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    assert_int_equal(s.disks[0].size, DISK + 4 * RP_MIB);
    set_state(w, id, RP_VM_RUNNING);
    write_live(w, id, model, 2, 4 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    rct_id(w, id, point, 0, rct);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    kit_ok(rp_host_all_changes(w->c, path, rct, DISK + 4 * RP_MIB, &ranges, &w->err), w->err);
    assert_int_equal(ranges.count, 2);
    assert_int_equal(ranges.items[0].offset, 4 * KIT_UNIT);
    assert_int_equal(ranges.items[0].length, KIT_UNIT);
    assert_int_equal(ranges.items[1].offset, DISK);
    assert_int_equal(ranges.items[1].length, 4 * RP_MIB);
    destroy(w, id, snap);
    live_holds(w, id, model);
}

static void a_disk_grows_above_a_checkpoint(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    define_filled(w, "web1", 1, model, id);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "mine", snap);
    kit_ok(METHOD(w, result, resize_disk, id, 0, 2 * DISK), w->err);
    frozen_holds(w, snap, model);
    set_state(w, id, RP_VM_RUNNING);
    RP_AUTO_FREE uint8_t *tail = rp_xmalloc(65536), *data = rp_xmalloc(65536);
    kit_fill(tail, 65536, 99);
    RP_AUTO_FREE char *uri = live(w, id, 0, true);
    kit_nbd_write(uri, tail, 65536, 2 * DISK - 65536);
    destroy(w, id, snap);
    live_holds(w, id, model);
    kit_nbd_read(uri, data, 65536, 2 * DISK - 65536);
    assert_memory_equal(data, tail, 65536);
    kit_nbd_read(uri, data, 65536, DISK);
    for (size_t i = 0; i < 65536; i++)
        assert_int_equal(data[i], 0);
}

static void one_file_is_the_disk_of_one_vm(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE char *file = kit_path("%s/own.vhdx", w->folder), *link = kit_path("%s/link.vhdx", w->folder),
                      *hard = kit_path("%s/hard.vhdx", w->folder);
    kit_vhdx(file, DISK);
    assert_int_equal(symlink(file, link), 0);
    assert_int_equal(linkat(-1, file, -1, hard, 0), 0);
    const char *twice[] = {file, link};
    kit_fails(METHOD(w, result, define_system, "x", twice, 2u, NULL, NULL), w->err, RP_ERR_EXISTS);
    define(w, "web1", file, NULL, id);
    const char *ways[] = {file, link, hard};
    for (size_t i = 0; i < 3; i++)
        kit_fails(METHOD(w, result, define_system, "x", &ways[i], 1u, NULL, NULL), w->err, RP_ERR_EXISTS);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, 1);
    kit_ok(METHOD(w, result, destroy_system, id, false), w->err);
    define(w, "web2", hard, NULL, id); // free again
}

static void a_deleted_vm_leaves_merged_files_in_place(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE char *file = kit_path("%s/own.vhdx", w->folder);
    RP_AUTO_FREE uint8_t *model = rp_xcalloc(1, DISK), *data = rp_xmalloc(DISK);
    kit_vhdx(file, DISK);
    define(w, "web1", file, NULL, id);
    set_state(w, id, RP_VM_RUNNING);
    write_live(w, id, model, 1, 0, 4096);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "a", snap);
    write_live(w, id, model, 2, 8192, 4096);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "b", snap);
    write_live(w, id, model, 3, 1 << 20, 4096);
    set_state(w, id, RP_VM_OFF);
    kit_ok(METHOD(w, result, destroy_system, id, WITH_DISKS(w)), w->err); // never a file used in place
    kit_chain_read(file, data, DISK);
    assert_memory_equal(data, model, DISK);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, 0);
}

static int cancel_at_once(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)context;
    return 1;
}

static void a_cancelled_definition_leaves_nothing(void **state)
{
    struct world *w = *state;
    char result[RP_HOST_ID];
    int calls = 0;
    RP_AUTO_FREE char *raw = kit_path("%s/a.raw", w->folder);
    kit_raw(raw, DISK, 1);
    const char *disk = raw;
    kit_fails(METHOD(w, result, define_system, "x", &disk, 1u, cancel_at_once, &calls), w->err, RP_ERR_CANCELLED);
    assert_true(calls > 0);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    assert_int_equal(vms.count, 0);
}

void conformance_reconnect(struct world *w)
{
    rp_host_close(w->c);
    w->c = factory->connect(w->host, &w->err);
    if (!w->c)
        fail_msg("connect: %s", w->err.text);
}

int conformance_run(const char *name, const struct conformance_host *host)
{
    const struct CMUnitTest conformance[] = {
        CONFORMANCE_TEST(a_new_host_has_no_vms),
        CONFORMANCE_TEST(a_vm_is_found_by_its_name_and_by_its_id_in_either_case),
        CONFORMANCE_TEST(two_vms_of_one_name_are_told_apart_by_id_only),
        CONFORMANCE_TEST(hostile_names_come_back_as_they_were_given),
        CONFORMANCE_TEST(what_does_not_exist_is_not_found),
        CONFORMANCE_TEST(a_raw_disk_is_served_with_its_content_while_the_vm_runs),
        CONFORMANCE_TEST(a_vhdx_is_used_in_place),
        CONFORMANCE_TEST(starting_and_stopping_twice_is_an_error_of_state),
        CONFORMANCE_TEST(the_settings_document_of_a_vm_names_it_and_its_disks),
        CONFORMANCE_TEST(a_snapshot_holds_the_disk_as_it_was_and_the_vm_goes_on),
        CONFORMANCE_TEST(a_vm_that_is_off_can_be_frozen_too),
        CONFORMANCE_TEST(all_disks_of_a_vm_are_frozen_together),
        CONFORMANCE_TEST(a_reader_delays_the_merge_and_nothing_else),
        CONFORMANCE_TEST(snapshots_go_in_any_order_and_no_content_changes),
        CONFORMANCE_TEST(only_recovery_snapshots_become_reference_points),
        CONFORMANCE_TEST(changes_since_a_reference_point_are_exactly_what_was_written),
        CONFORMANCE_TEST(ids_survive_a_restart_of_the_vm_and_another_connection),
        CONFORMANCE_TEST(unknown_and_malformed_ids_are_told_apart),
        CONFORMANCE_TEST(checkpoints_of_the_user_do_not_disturb_backups),
        CONFORMANCE_TEST(disks_come_and_go_while_the_vm_is_off),
        CONFORMANCE_TEST(a_grown_disk_keeps_its_ids),
        CONFORMANCE_TEST(a_disk_grows_above_a_checkpoint),
        CONFORMANCE_TEST(one_file_is_the_disk_of_one_vm),
        CONFORMANCE_TEST(a_deleted_vm_leaves_merged_files_in_place),
        CONFORMANCE_TEST(a_cancelled_definition_leaves_nothing),
    };
    const size_t count = sizeof conformance / sizeof *conformance;
    RP_AUTO_FREE struct CMUnitTest *all = rp_xcalloc(count + conformance_more_count, sizeof *all);
    memcpy(all, conformance, sizeof conformance);
    memcpy(all + count, conformance_more, conformance_more_count * sizeof *all);
    factory = host;
    conformance_wire = host->wire;
    return _cmocka_run_group_tests(name, all, count + conformance_more_count, NULL, NULL);
}
