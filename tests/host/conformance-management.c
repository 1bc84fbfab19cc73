// Conformance of what management clients use: inventory, names, applied checkpoints, export, import.
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conformance-kit.h"

// ---- looking at exports ---------------------------------------------------------------------------------------------

static char *make_folder(struct world *w, const char *name)
{
    char *folder = kit_path("%s/%s", w->folder, name);
    assert_int_equal(mkdir(folder, 0700), 0);
    return folder;
}

static int export_to(struct world *w, const char *vm, const char *snapshot_id, const char *base, const char *folder)
{
    char result[RP_HOST_ID];
    struct rp_export what = {.vm_id = vm, .snapshot_id = snapshot_id, .base_point_id = base, .folder = folder,
                             .storage = true};
    return METHOD(w, result, export_system, &what);
}

static char *definition_of(const char *folder, const char *vm)
{
    return kit_path("%s/Virtual Machines/%s.vmcx", folder, vm);
}

// The exported file of a disk; malloc'ed, NULL: there is none.
static char *file_of(const char *folder, const struct rp_guid *disk_id)
{
    RP_AUTO_FREE char *disks = kit_path("%s/Virtual Hard Disks", folder);
    DIR *listing = opendir(disks);
    char *found = NULL;
    for (struct dirent *entry; listing && !found && (entry = readdir(listing));) {
        if (entry->d_name[0] == '.' || entry->d_type == DT_DIR)
            continue;
        RP_AUTO_FREE char *path = kit_path("%s/%s", disks, entry->d_name);
        RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_READ, NULL,
                                                                          NULL);
        if (!vhdx || !rp_guid_equal(&rp_vhdx_info(vhdx)->disk_id, disk_id))
            continue;
        found = path;
        path = NULL;
    }
    if (listing)
        closedir(listing);
    return found;
}

static struct rp_guid disk_id_of(struct world *w, const char *vm, size_t index)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, vm, &s, &w->err), w->err);
    assert_true(index < s.disk_count);
    return s.disks[index].disk_id;
}

static bool is_empty(const char *folder)
{
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    bool empty = true;
    for (struct dirent *entry; (entry = readdir(listing));)
        empty &= entry->d_name[0] == '.';
    closedir(listing);
    return empty;
}

static void holds(const char *path, const uint8_t *model)
{
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK);
    kit_chain_read(path, data, DISK);
    assert_memory_equal(data, model, DISK);
}

static int mark_units(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    bool *units = context;
    for (uint64_t at = offset; at < offset + length; at += 512)
        if (state != RP_VHDX_IN_PARENT)
            units[at / KIT_UNIT] = true;
    return 0;
}

// What a differencing file itself holds, as units; each that it holds must hold all of the model.
static void own_units(const char *path, const uint8_t *model, bool units[DISK / KIT_UNIT])
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_READ, NULL, &err);
    kit_ok(!vhdx, err);
    assert_true(rp_vhdx_info(vhdx)->has_parent);
    memset(units, 0, DISK / KIT_UNIT);
    kit_ok(rp_vhdx_extents(vhdx, 0, DISK, mark_units, units, &err), err);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(KIT_UNIT);
    for (size_t u = 0; u < DISK / KIT_UNIT; u++) {
        if (!units[u])
            continue;
        kit_ok(rp_vhdx_read(vhdx, data, KIT_UNIT, u * KIT_UNIT, &err), err);
        assert_memory_equal(data, model + u * KIT_UNIT, KIT_UNIT);
    }
}

static void delete_vm(struct world *w, const char *id)
{
    char result[RP_HOST_ID];
    kit_ok(METHOD(w, result, destroy_system, id, WITH_DISKS(w)), w->err);
}

static size_t count_vms(struct world *w)
{
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    return vms.count;
}

// ---- inventory and names --------------------------------------------------------------------------------------------

static const struct rp_inventory_vm *find_in(const struct rp_inventory *all, const char *id)
{
    for (size_t i = 0; i < all->count; i++)
        if (!strcmp(all->items[i].vm.id, id))
            return &all->items[i];
    fail_msg("VM %s is not in the inventory", id);
    return NULL;
}

static void same_as_by_itself(struct world *w, const struct rp_inventory *all, const char *id)
{
    const struct rp_inventory_vm *item = find_in(all, id);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    kit_ok(w->c->ops->find_vm(w->c, id, &vm, &w->err), w->err);
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    kit_ok(w->c->ops->list_snapshots(w->c, id, &snapshots, &w->err), w->err);
    kit_ok(w->c->ops->list_reference_points(w->c, id, &points, &w->err), w->err);
    assert_string_equal(item->vm.name, vm.name);
    assert_int_equal(item->vm.state, vm.state);
    assert_int_equal(item->vm.activity, vm.activity);
    assert_int_equal(item->settings.disk_count, s.disk_count);
    for (size_t i = 0; i < s.disk_count; i++) {
        const struct rp_vm_disk *a = &item->settings.disks[i], *b = &s.disks[i];
        assert_string_equal(a->instance, b->instance);
        assert_string_equal(a->path, b->path);
        assert_int_equal(a->number, b->number);
        assert_int_equal(a->size, b->size);
        assert_int_equal(a->logical_sector, b->logical_sector);
        assert_int_equal(a->physical_sector, b->physical_sector);
        assert_true(rp_guid_equal(&a->disk_id, &b->disk_id));
        assert_int_equal(!a->nbd_uri, !b->nbd_uri);
        if (b->nbd_uri)
            assert_string_equal(a->nbd_uri, b->nbd_uri);
    }
    assert_int_equal(item->snapshots.count, snapshots.count);
    for (size_t i = 0; i < snapshots.count; i++) {
        assert_string_equal(item->snapshots.items[i].id, snapshots.items[i].id);
        assert_string_equal(item->snapshots.items[i].vm_id, id);
        assert_string_equal(item->snapshots.items[i].name, snapshots.items[i].name);
        assert_int_equal(item->snapshots.items[i].type, snapshots.items[i].type);
        assert_int_equal(item->snapshots.items[i].time_ns, snapshots.items[i].time_ns);
        assert_int_equal(item->snapshots.items[i].merging, snapshots.items[i].merging);
    }
    assert_int_equal(item->points.count, points.count);
    for (size_t i = 0; i < points.count; i++) {
        assert_string_equal(item->points.items[i].id, points.items[i].id);
        assert_string_equal(item->points.items[i].vm_id, id);
        assert_string_equal(item->points.items[i].name, points.items[i].name);
        assert_int_equal(item->points.items[i].disk_count, points.items[i].disk_count);
        for (size_t d = 0; d < points.items[i].disk_count; d++) {
            assert_string_equal(item->points.items[i].disks[d].instance, points.items[i].disks[d].instance);
            assert_string_equal(item->points.items[i].disks[d].rct_id, points.items[i].disks[d].rct_id);
        }
    }
}

static void the_inventory_says_of_each_vm_what_it_says_by_itself(void **state)
{
    struct world *w = *state;
    char ids[4][RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], result[RP_HOST_ID];
    define_filled(w, "a", 1, NULL, ids[0]);
    RP_AUTO_FREE char *x = kit_path("%s/x.raw", w->folder), *y = kit_path("%s/y.vhdx", w->folder);
    kit_raw(x, DISK, 2);
    kit_vhdx(y, DISK);
    define(w, "b", x, y, ids[1]);
    define(w, "c", NULL, NULL, ids[2]);
    define_filled(w, "d", 4, NULL, ids[3]);
    set_state(w, ids[1], RP_VM_RUNNING);
    snapshot(w, ids[1], RP_SNAPSHOT_RECOVERY, "one", snap);
    convert(w, ids[1], snap, point);
    snapshot(w, ids[1], RP_SNAPSHOT_RECOVERY, "two", snap);
    convert(w, ids[1], snap, point);
    snapshot(w, ids[1], RP_SNAPSHOT_PRODUCTION, "three", snap);
    snapshot(w, ids[1], RP_SNAPSHOT_RECOVERY, "four", snap);
    snapshot(w, ids[3], RP_SNAPSHOT_PRODUCTION, "five", snap);
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory all = {0};
    kit_ok(w->c->ops->inventory(w->c, &all, &w->err), w->err);
    assert_int_equal(all.count, 4);
    for (size_t i = 0; i < 4; i++)
        same_as_by_itself(w, &all, ids[i]);
    assert_int_equal(find_in(&all, ids[1])->snapshots.count, 2);
    assert_int_equal(find_in(&all, ids[1])->points.count, 2);

    // a merge that waits for a reader
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    struct rp_chain reader = {0};
    kit_ok(rp_chain_open(rp_fs_posix(), path, &reader, &w->err), w->err);
    kit_ok(METHOD(w, result, destroy_snapshot, snap), w->err);
    rp_inventory_clear(&all);
    kit_ok(w->c->ops->inventory(w->c, &all, &w->err), w->err);
    assert_int_equal(find_in(&all, ids[3])->vm.activity, RP_VM_MERGING);
    assert_true(conformance_wire || find_in(&all, ids[3])->snapshots.items[0].merging);
    rp_chain_close(&reader);
    wait_idle(w, ids[3]);
    rp_inventory_clear(&all);
    kit_ok(w->c->ops->inventory(w->c, &all, &w->err), w->err);
    same_as_by_itself(w, &all, ids[3]);
    assert_int_equal(find_in(&all, ids[3])->vm.activity, RP_VM_IDLE);
    set_state(w, ids[1], RP_VM_OFF);
}

static void vms_and_checkpoints_can_be_renamed(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], result[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    kit_ok(METHOD(w, result, rename, id, "Müller & Söhne"), w->err);
    kit_ok(METHOD(w, result, rename, snap, "refpoint:a:b"), w->err);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->find_vm(w->c, "Müller & Söhne", &vm, &w->err), w->err);
    assert_string_equal(vm.id, id);
    kit_ok(w->c->ops->list_snapshots(w->c, id, &list, &w->err), w->err);
    assert_string_equal(list.items[0].name, "refpoint:a:b");
    kit_fails(METHOD(w, result, rename, id, ""), w->err, RP_ERR_INVALID);
    kit_fails(METHOD(w, result, rename, id, "12345678-1234-1234-1234-123456789ABC"), w->err, RP_ERR_INVALID);
    kit_fails(METHOD(w, result, rename, "Microsoft:12345678-1234-1234-1234-123456789ABC", "x"), w->err,
              RP_ERR_NOT_FOUND);
    destroy(w, id, snap);
}

// ---- checkpoints and reference points -------------------------------------------------------------------------------

static void an_applied_checkpoint_brings_back_what_it_held(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], mine[RP_HOST_ID], later[RP_HOST_ID], older[RP_HOST_ID], younger[RP_HOST_ID],
        rct[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK), *then = rp_xmalloc(DISK);
    bool got[DISK / KIT_UNIT];
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    uint64_t processed;
    define_filled(w, "web1", 1, model, id);
    set_state(w, id, RP_VM_RUNNING);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    convert(w, id, snap, older);
    write_live(w, id, model, 2, 3 * KIT_UNIT, 512);
    memcpy(then, model, DISK);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "mine", mine);
    write_live(w, id, model, 3, 5 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    convert(w, id, snap, younger);
    write_live(w, id, model, 4, 7 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "later", later);
    write_live(w, id, model, 5, 9 * KIT_UNIT, 512);

    kit_fails(METHOD(w, result, apply_snapshot, later), w->err, RP_ERR_STATE); // it runs
    set_state(w, id, RP_VM_OFF);
    kit_fails(METHOD(w, result, apply_snapshot, mine), w->err, RP_ERR_STATE); // something stands on it
    destroy(w, id, later);
    kit_ok(METHOD(w, result, apply_snapshot, mine), w->err);
    RP_AUTO_FREE char *leaf = live(w, id, 0, false);
    holds(leaf, then);
    frozen_holds(w, mine, then);
    assert_int_equal(count_snapshots(w, id), 1);

    set_state(w, id, RP_VM_RUNNING);
    memcpy(model, then, DISK);
    live_holds(w, id, model);
    write_live(w, id, model, 6, 11 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    rct_id(w, id, older, 0, rct);
    changes(w, path, rct, got);
    for (size_t i = 0; i < DISK / KIT_UNIT; i++)
        assert_int_equal(got[i], i == 3 || i == 11);
    rct_id(w, id, younger, 0, rct); // of a past that did not come true
    kit_fails(w->c->ops->disk_changes(w->c, path, rct, 0, DISK, &ranges, &processed, &w->err), w->err,
              RP_ERR_TRACKING_ID);
    destroy(w, id, snap);
    destroy(w, id, mine);
    live_holds(w, id, model);
    set_state(w, id, RP_VM_OFF);
    // again, of a VM that never ran since: a disk of a checkpoint that is applied twice
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "mine", mine);
    for (int i = 0; i < 2; i++)
        kit_ok(METHOD(w, result, apply_snapshot, mine), w->err);
    destroy(w, id, mine);
    RP_AUTO_FREE char *now = live(w, id, 0, false);
    holds(now, model);
}

static void a_reference_point_is_made_without_a_checkpoint_that_anybody_sees(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], rct[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    bool got[DISK / KIT_UNIT];
    define_filled(w, "web1", 1, model, id);
    for (int running = 0; running < 2; running++) {
        if (running)
            set_state(w, id, RP_VM_RUNNING);
        kit_ok(METHOD(w, point, create_reference_point, id, RP_CONSISTENCY_CRASH, "refpoint:a:1"), w->err);
        wait_idle(w, id);
        assert_int_equal(count_snapshots(w, id), 0);
        rct_id(w, id, point, 0, rct);
    }
    write_live(w, id, model, 2, 6 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    changes(w, path, rct, got);
    for (size_t i = 0; i < DISK / KIT_UNIT; i++)
        assert_int_equal(got[i], i == 6);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, id, &points, &w->err), w->err);
    assert_int_equal(points.count, 2);
    assert_string_equal(points.items[1].name, "refpoint:a:1");
    destroy(w, id, snap);
}

// ---- export ---------------------------------------------------------------------------------------------------------

static void a_full_export_stands_alone_and_holds_the_moment(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK), *then = rp_xmalloc(DISK);
    define_filled(w, "web1", 1, model, id);
    struct rp_guid disk = disk_id_of(w, id, 0);
    set_state(w, id, RP_VM_RUNNING);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "below", snap); // so that the chain is longer than one
    write_live(w, id, model, 2, 2 * KIT_UNIT, KIT_UNIT);
    memcpy(then, model, DISK);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    write_live(w, id, model, 3, 4 * KIT_UNIT, KIT_UNIT);
    RP_AUTO_FREE char *folder = make_folder(w, "out"), *definition = definition_of(folder, id);
    kit_ok(export_to(w, id, snap, NULL, folder), w->err);
    assert_int_equal(access(definition, R_OK), 0);
    RP_AUTO_FREE char *file = file_of(folder, &disk);
    assert_non_null(file);
    holds(file, then);
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), file, RP_VHDX_READ, NULL, &w->err);
    assert_false(rp_vhdx_info(vhdx)->has_parent);
    assert_int_equal(rp_vhdx_info(vhdx)->size, DISK);
    live_holds(w, id, model); // the VM goes on, and the checkpoint can go
    kit_fails(export_to(w, id, snap, NULL, folder), w->err, RP_ERR_EXISTS);
    holds(file, then); // nothing of the first is touched
    destroy(w, id, snap);
    set_state(w, id, RP_VM_OFF);
    // into a subfolder of its own, without a checkpoint, and without a disk
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    const char *excluded[] = {s.disks[0].instance}, *unknown[] = {"Microsoft:nothing"};
    struct rp_export what = {.vm_id = id, .folder = folder, .subdirectory = true, .storage = true, .excluded = unknown,
                             .excluded_count = 1};
    kit_fails(METHOD(w, result, export_system, &what), w->err, RP_ERR_INVALID);
    what.excluded = excluded;
    kit_ok(METHOD(w, result, export_system, &what), w->err);
    RP_AUTO_FREE char *sub = kit_path("%s/web1", folder), *other = definition_of(sub, id);
    assert_int_equal(access(other, R_OK), 0);
    assert_null(file_of(sub, &disk));
}

static void a_differential_export_holds_exactly_what_has_changed(void **state)
{
    struct world *w = *state;
    uint64_t seed = kit_seed();
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    bool expected[DISK / KIT_UNIT], got[DISK / KIT_UNIT];
    define_filled(w, "web1", 1, model, id);
    struct rp_guid disk = disk_id_of(w, id, 0);
    set_state(w, id, RP_VM_RUNNING);
    char *folders[4];
    for (int round = 0; round < 4; round++) {
        RP_AUTO_FREE char *name = kit_path("out%d", round);
        folders[round] = make_folder(w, name);
        memset(expected, 0, sizeof expected);
        for (int i = 0; round && i < 3 * round; i++) {
            size_t unit = kit_random(&seed) % (DISK / KIT_UNIT);
            expected[unit] = true;
            if (i % 3 == 2) { // zeros, which must hide what the base has there
                RP_AUTO_FREE uint8_t *zeros = rp_xcalloc(1, KIT_UNIT);
                RP_AUTO_FREE char *uri = live(w, id, 0, true);
                kit_nbd_write(uri, zeros, KIT_UNIT, unit * KIT_UNIT);
                memset(model + unit * KIT_UNIT, 0, KIT_UNIT);
            } else {
                write_live(w, id, model, kit_random(&seed), unit * KIT_UNIT + 512, 4096);
            }
        }
        if (round == 2) { // also such as are stored as a state: a whole block, and parts of one
            size_t from = DISK / 2 - 4 * KIT_UNIT, size = DISK / 2 + 4 * KIT_UNIT;
            RP_AUTO_FREE char *uri = live(w, id, 0, true);
            kit_nbd_zero(uri, size, from);
            memset(model + from, 0, size);
            memset(expected + from / KIT_UNIT, true, size / KIT_UNIT);
        }
        snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
        kit_ok(export_to(w, id, snap, round ? point : NULL, folders[round]), w->err);
        RP_AUTO_FREE char *file = file_of(folders[round], &disk);
        assert_non_null(file);
        if (round) {
            own_units(file, model, got);
            assert_memory_equal(got, expected, sizeof got);
        }
        convert(w, id, snap, point);
        // Beneath each export, where its files look for it, the one before: all of the disk.
        if (round) {
            RP_AUTO_FREE char *base = kit_path("%s/Virtual Hard Disks", folders[round - 1]),
                              *place = kit_path("%s/Virtual Hard Disks/Base", folders[round]);
            assert_int_equal(rename(base, place), 0);
        }
        holds(file, model);
    }
    kit_fails(export_to(w, id, snap, "Microsoft:12345678-1234-1234-1234-123456789ABC", folders[0]), w->err,
              RP_ERR_NOT_FOUND);
    for (int round = 0; round < 4; round++)
        free(folders[round]);
}

static void an_export_of_what_is_not_tracked_is_refused_and_leaves_nothing(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], result[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    snapshot(w, id, RP_SNAPSHOT_PRODUCTION, "mine", snap);
    kit_ok(METHOD(w, point, create_reference_point, id, RP_CONSISTENCY_CRASH, "t"), w->err);
    wait_idle(w, id);
    kit_ok(METHOD(w, result, apply_snapshot, snap), w->err); // the point is of a past that did not come true
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    RP_AUTO_FREE char *folder = make_folder(w, "out");
    kit_fails(export_to(w, id, snap, point, folder), w->err, RP_ERR_TRACKING_ID);
    assert_true(is_empty(folder));
    RP_AUTO_FREE char *nowhere = kit_path("%s/nonexistent", w->folder);
    if (!conformance_wire) // Hyper-V makes the folder
        kit_fails(export_to(w, id, snap, NULL, nowhere), w->err, RP_ERR_NOT_FOUND);
    kit_ok(export_to(w, id, snap, NULL, folder), w->err);
}

// ---- import ---------------------------------------------------------------------------------------------------------

static void an_exported_vm_comes_back_as_itself_or_as_another(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], other[RP_HOST_ID], again[RP_HOST_ID], snap[RP_HOST_ID], result[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    define_filled(w, "web1", 1, model, id);
    char instance[RP_HOST_ID];
    {
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
        kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
        memcpy(instance, s.disks[0].instance, sizeof instance);
    }
    struct rp_guid disk = disk_id_of(w, id, 0);
    RP_AUTO_FREE char *one = make_folder(w, "one"), *two = make_folder(w, "two");
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    kit_ok(export_to(w, id, snap, NULL, one), w->err);
    kit_ok(export_to(w, id, snap, NULL, two), w->err);
    destroy(w, id, snap);
    RP_AUTO_FREE char *first = definition_of(one, id), *second = definition_of(two, id), *file = file_of(one, &disk);

    kit_fails(METHOD(w, result, import_system, first, false), w->err, RP_ERR_EXISTS);
    kit_ok(METHOD(w, other, import_system, first, true), w->err);
    assert_string_not_equal(other, id);
    assert_int_equal(count_vms(w), 1); // a plan is no VM yet
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, other, &s, &w->err), w->err);
    assert_int_equal(s.disk_count, 1);
    assert_string_equal(s.disks[0].path, file);
    assert_string_not_equal(s.disks[0].instance, instance);
    kit_ok(METHOD(w, result, rename, other, "web2"), w->err);
    // elsewhere, and back again
    RP_AUTO_FREE char *elsewhere = kit_path("%s/elsewhere.vhdx", w->folder);
    if (conformance_wire) // who may name a file from afar names one that is there
        assert_int_equal(rename(file, elsewhere), 0);
    kit_ok(METHOD(w, result, modify_disk, s.disks[0].instance, elsewhere), w->err);
    if (!conformance_wire)
        kit_fails(METHOD(w, result, validate_planned, other), w->err, RP_ERR_STATE);
    kit_fails(METHOD(w, result, modify_disk, instance, elsewhere), w->err,
              RP_ERR_NOT_FOUND); // of a VM that is none any more
    if (!conformance_wire)
        assert_int_equal(rename(file, elsewhere), 0);
    kit_ok(METHOD(w, result, validate_planned, other), w->err);
    kit_ok(METHOD(w, result, realize_planned, other), w->err);
    assert_string_equal(result, other);
    kit_fails(METHOD(w, result, realize_planned, other), w->err, RP_ERR_NOT_FOUND);
    assert_int_equal(count_vms(w), 2);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(w->c->ops->find_vm(w->c, "web2", &vm, &w->err), w->err);
    assert_string_equal(vm.id, other);
    set_state(w, other, RP_VM_RUNNING);
    live_holds(w, other, model);
    set_state(w, other, RP_VM_OFF);

    delete_vm(w, id);
    kit_ok(METHOD(w, again, import_system, second, false), w->err);
    assert_string_equal(again, id);
    kit_fails(METHOD(w, result, import_system, second, false), w->err, RP_ERR_EXISTS);
    kit_ok(METHOD(w, again, realize_planned, id), w->err);
    assert_string_equal(again, id);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings t = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &t, &w->err), w->err);
    assert_string_equal(t.disks[0].instance, instance);
    holds(t.disks[0].path, model);
}

static void a_plan_tells_what_is_wrong_and_can_be_given_up(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], planned[RP_HOST_ID], snap[RP_HOST_ID], result[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    RP_AUTO_FREE char *folder = make_folder(w, "out"), *definition = definition_of(folder, id),
        *taken = live(w, id, 0, false);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    struct rp_export what = {.vm_id = id, .snapshot_id = snap, .folder = folder};
    kit_ok(METHOD(w, result, export_system, &what), w->err);
    destroy(w, id, snap);
    kit_ok(METHOD(w, planned, import_system, definition, true), w->err);
    kit_fails(METHOD(w, result, validate_planned, planned), w->err, RP_ERR_STATE); // no file came with it
    kit_fails(METHOD(w, result, realize_planned, planned), w->err, RP_ERR_STATE);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, planned, &s, &w->err), w->err);
    // another VM has it
    if (conformance_wire)
        kit_fails(METHOD(w, result, modify_disk, s.disks[0].instance, taken), w->err, RP_ERR_BUSY);
    else
        kit_ok(METHOD(w, result, modify_disk, s.disks[0].instance, taken), w->err);
    kit_fails(METHOD(w, result, validate_planned, planned), w->err, RP_ERR_STATE);
    assert_int_equal(METHOD(w, result, realize_planned, planned), -1);
    rp_error_clear(&w->err);
    kit_ok(METHOD(w, result, destroy_system, planned, WITH_DISKS(w)), w->err);
    kit_fails(METHOD(w, result, validate_planned, planned), w->err, RP_ERR_NOT_FOUND);
    assert_int_equal(access(taken, R_OK), 0);
    assert_int_equal(count_vms(w), 1);
    RP_AUTO_FREE char *text = kit_path("%s/text.vmcx", w->folder);
    kit_write_file(text, "{}", 2);
    assert_int_equal(METHOD(w, result, import_system, text, true), -1);
    rp_error_clear(&w->err);
}

static void incrementals_go_on_after_an_import(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], snap[RP_HOST_ID], point[RP_HOST_ID], rct[RP_HOST_ID], result[RP_HOST_ID], other[RP_HOST_ID];
    RP_AUTO_FREE uint8_t *model = rp_xmalloc(DISK);
    bool got[DISK / KIT_UNIT];
    define_filled(w, "web1", 1, model, id);
    set_state(w, id, RP_VM_RUNNING);
    write_live(w, id, model, 2, 0, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "refpoint:a:1", snap);
    RP_AUTO_FREE char *folder = make_folder(w, "out"), *definition = definition_of(folder, id),
        *copy = make_folder(w, "copy"),
                      *second = definition_of(copy, id);
    kit_ok(export_to(w, id, snap, NULL, folder), w->err);
    kit_ok(export_to(w, id, snap, NULL, copy), w->err);
    convert(w, id, snap, point);
    rct_id(w, id, point, 0, rct);
    set_state(w, id, RP_VM_OFF);
    // Where the VM knows the moment itself, it needs no file for it.
    kit_ok(METHOD(w, result, destroy_reference_point, point), w->err);
    kit_ok(METHOD(w, point, import_reference_point, id, definition), w->err);
    char same[RP_HOST_ID];
    rct_id(w, id, point, 0, same);
    assert_string_equal(same, rct);
    delete_vm(w, id);

    kit_ok(METHOD(w, result, import_system, definition, false), w->err);
    kit_ok(METHOD(w, result, realize_planned, id), w->err);
    kit_ok(METHOD(w, point, import_reference_point, id, definition), w->err);
    kit_ok(METHOD(w, other, import_reference_point, id, definition), w->err); // who is not sure may ask again
    kit_ok(METHOD(w, result, destroy_reference_point, other), w->err);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, id, &points, &w->err), w->err);
    assert_int_equal(points.count, 1);
    assert_string_equal(points.items[0].name, "refpoint:a:1");
    set_state(w, id, RP_VM_RUNNING);
    live_holds(w, id, model);
    write_live(w, id, model, 3, 9 * KIT_UNIT, 512);
    snapshot(w, id, RP_SNAPSHOT_RECOVERY, "t", snap);
    RP_AUTO_FREE char *path = frozen(w, snap, 0);
    rct_id(w, id, point, 0, same);
    assert_string_equal(same, rct);
    changes(w, path, rct, got);
    for (size_t i = 0; i < DISK / KIT_UNIT; i++)
        assert_int_equal(got[i], i == 9);
    destroy(w, id, snap);
    set_state(w, id, RP_VM_OFF);

    // Nobody can answer for a disk that somebody wrote to, or for a VM that ran: what was written then may not have been since
    // the export.
    kit_ok(METHOD(w, other, import_system, second, true), w->err);
    kit_ok(METHOD(w, result, realize_planned, other), w->err);
    {
        RP_AUTO_FREE char *disk = live(w, other, 0, false);
        struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), disk, RP_VHDX_WRITE, NULL, &w->err);
        kit_ok(!vhdx, w->err);
        kit_ok(rp_vhdx_write(vhdx, model, 512, 20 * KIT_UNIT, &w->err), w->err);
        kit_ok(rp_vhdx_close(vhdx, &w->err), w->err);
    }
    kit_fails(METHOD(w, result, import_reference_point, other, second), w->err, RP_ERR_TRACKING_OFF);
    set_state(w, other, RP_VM_RUNNING);
    set_state(w, other, RP_VM_OFF);
    kit_fails(METHOD(w, result, import_reference_point, other, second), w->err, RP_ERR_TRACKING_OFF);
}

// Of a connection that can tell. `id` NULL: none.
static void planned_are(struct world *w, const char *id)
{
    RP_CLEANUP(rp_vms_clear) struct rp_vms list = {0};
    if (!w->c->ops->list_planned)
        return;
    kit_ok(w->c->ops->list_planned(w->c, &list, &w->err), w->err);
    assert_int_equal(list.count, id ? 1 : 0);
    if (!id)
        return;
    assert_string_equal(list.items[0].id, id);
    assert_string_equal(list.items[0].name, "web1");
}

static void a_vm_is_planned_from_its_saved_settings(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID], planned[RP_HOST_ID], result[RP_HOST_ID];
    define_filled(w, "web1", 1, NULL, id);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0}, t = {0};
    kit_ok(w->c->ops->vm_settings(w->c, id, &s, &w->err), w->err);
    RP_AUTO_FREE char *disk = kit_path("%s/restored.vhdx", w->folder);
    const char *disks[] = {disk, disk};
    kit_vhdx(disk, DISK);
    kit_fails(METHOD(w, planned, plan_system, s.document, disks, 1u, false), w->err, RP_ERR_EXISTS);
    kit_fails(METHOD(w, planned, plan_system, s.document, disks, 2u, true), w->err, RP_ERR_INVALID);
    assert_int_equal(METHOD(w, planned, plan_system, "{\"format\":\"something else\"}", disks, 1u, true), -1);
    rp_error_clear(&w->err);
    delete_vm(w, id);
    kit_ok(METHOD(w, planned, plan_system, s.document, disks, 1u, false), w->err);
    assert_string_equal(planned, id);
    planned_are(w, planned);
    kit_ok(METHOD(w, result, validate_planned, planned), w->err);
    kit_ok(METHOD(w, result, realize_planned, planned), w->err);
    planned_are(w, NULL);
    kit_ok(w->c->ops->vm_settings(w->c, id, &t, &w->err), w->err);
    assert_int_equal(t.disk_count, 1);
    assert_string_equal(t.disks[0].path, disk);
    assert_string_equal(t.disks[0].instance, s.disks[0].instance);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(w->c->ops->find_vm(w->c, "web1", &vm, &w->err), w->err);
    set_state(w, id, RP_VM_RUNNING);
    set_state(w, id, RP_VM_OFF);
}

const struct CMUnitTest conformance_more[] = {
    CONFORMANCE_TEST(the_inventory_says_of_each_vm_what_it_says_by_itself),
    CONFORMANCE_TEST(vms_and_checkpoints_can_be_renamed),
    CONFORMANCE_TEST(an_applied_checkpoint_brings_back_what_it_held),
    CONFORMANCE_TEST(a_reference_point_is_made_without_a_checkpoint_that_anybody_sees),
    CONFORMANCE_TEST(a_full_export_stands_alone_and_holds_the_moment),
    CONFORMANCE_TEST(a_differential_export_holds_exactly_what_has_changed),
    CONFORMANCE_TEST(an_export_of_what_is_not_tracked_is_refused_and_leaves_nothing),
    CONFORMANCE_TEST(an_exported_vm_comes_back_as_itself_or_as_another),
    CONFORMANCE_TEST(a_plan_tells_what_is_wrong_and_can_be_given_up),
    CONFORMANCE_TEST(incrementals_go_on_after_an_import),
    CONFORMANCE_TEST(a_vm_is_planned_from_its_saved_settings),
};
const size_t conformance_more_count = sizeof conformance_more / sizeof *conformance_more;
