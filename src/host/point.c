// Reference points, and what changed since one.
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "host/internal.h"

int rp_local_point_list(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points,
                        struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *points = (struct rp_reference_points){0};
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (rp_local_vm_load(local, vm_id, &vm, err))
        return -1;
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT p.row, p.id, p.name, p.time, d.instance, d.disk_id, d.rct_id FROM reference_point p"
        " LEFT JOIN reference_disk d ON d.point = p.row WHERE p.vm = ? ORDER BY p.row, d.number", "i", vm.row);
    int rc = query ? 1 : -1;
    int64_t last = -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        if (sqlite3_column_int64(query, 0) != last) {
            last = sqlite3_column_int64(query, 0);
            points->items = rp_xrealloc(points->items, (points->count + 1) * sizeof *points->items);
            struct rp_reference_point *fresh = &points->items[points->count++];
            *fresh = (struct rp_reference_point){.name = rp_xstrdup(rp_db_text(query, 2)),
                                                 .time_ns = sqlite3_column_int64(query, 3)};
            rp_db_copy(query, 1, fresh->id, sizeof fresh->id);
            memcpy(fresh->vm_id, vm.id, sizeof fresh->vm_id);
        }
        if (sqlite3_column_type(query, 4) == SQLITE_NULL)
            continue;
        struct rp_reference_point *point = &points->items[points->count - 1];
        point->disks = rp_xrealloc(point->disks, (point->disk_count + 1) * sizeof *point->disks);
        struct rp_reference_disk *disk = &point->disks[point->disk_count++];
        *disk = (struct rp_reference_disk){0};
        rp_db_copy(query, 4, disk->instance, sizeof disk->instance);
        rp_guid_parse(rp_db_text(query, 5), &disk->disk_id, NULL);
        rp_db_copy(query, 6, disk->rct_id, sizeof disk->rct_id);
    }
    if (rc < 0)
        rp_reference_points_clear(points);
    return rc;
}

int rp_local_point_destroy(struct rp_host_connection *host, const char *point_id, RP_METHOD_RESULT,
                           struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    // Tracking keeps nothing for an id, so there is nothing else to free.
    if (rp_db_run(local->db, err, "DELETE FROM reference_point WHERE id = ?", "t", point_id))
        return -1;
    if (!sqlite3_changes(local->db->handle))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no reference point %s", host->address, point_id);
    return 0;
}

// ---- a point that an export carries ---------------------------------------------------------------------------------

// Whether the disk's own tracking knows the moment. 1 it does, 0 not (`why` says it), -1 error.
static int is_known(const struct rp_local_vm *vm, const struct rp_vm_disk *disk, const struct rp_rct_id *id,
                    struct rp_error *why, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(vm, err);
    if (!service)
        return -1;
    if (!rp_service_changes(service, disk->path, id, 0, disk->size, &changed, why))
        return 1;
    return why->code == RP_ERR_TRACKING_ID || why->code == RP_ERR_TRACKING_OFF ? 0
        : rp_fail_as(err, why);
}

static int not_exact(const struct rp_vm_disk *disk, const char *reason, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_TRACKING_OFF, "disk%u: %s: %s", disk->number, disk->path, reason);
}

// The file is the exported one, and nobody has changed what it holds: any writer of a VHDX that does gives it another
// DataWriteGuid ([MS-VHDX] 2.2.2). Then tracking begins where the export was made.
static int begin_tracking(const struct rp_local_vm *vm, const struct rp_vm_disk *disk,
                          const struct rp_local_definition_disk *exported, const struct rp_rct_id *id,
                              const struct rp_error *unknown, struct rp_error *err)
{
    struct rp_fs *fs = vm->local->fs;
    RP_AUTO_FREE char *tracking = rp_rct_path(disk->path);
    struct rp_rct_disk state;
    bool there;
    if (rp_fs_exists(fs, tracking, &there, err))
        return -1;
    if (there)
        return not_exact(disk, unknown->text, err);
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(fs, disk->path, RP_VHDX_READ, NULL, err);
    if (!vhdx)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
    if (info->has_parent)
        return not_exact(disk, "a differencing disk, whose parents are not tracked", err);
    if (info->dirty_log || rp_guid_is_zero(&exported->content) ||
        !rp_guid_equal(&info->data_write_guid, &exported->content) || info->size != exported->size)
        return not_exact(disk, "was changed since it was exported, or is another file", err);
    // Its times as they will still be after a power cut: tracking is bound to them.
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, disk->path, RP_OPEN_READ, err);
    if (!store || rp_store_settle(store, err) || rp_rct_disk_of(vhdx, &state, err))
        return -1;
    return rp_rct_begin_at(fs, disk->path, &state, id, err);
}

static int import_disk(const struct rp_local_vm *vm, const struct rp_vm_disk *disk,
                       const struct rp_local_definition_disk *exported, struct rp_error *err)
{
    struct rp_rct_id id;
    struct rp_error why = {0};
    if (!*exported->rct_id)
        return not_exact(disk, "its changes were not tracked where it was exported", err);
    if (rp_rct_id_parse(exported->rct_id, &id, err))
        return -1;
    int known = is_known(vm, disk, &id, &why, err);
    if (known)
        return known < 0 ? -1 : 0;
    if (rp_local_vm_running(vm))
        return not_exact(disk, why.text, err);
    return begin_tracking(vm, disk, exported, &id, &why, err);
}

static const struct rp_local_definition_disk *find_exported(const struct rp_local_definition *d,
                                                            const struct rp_guid *disk_id)
{
    for (size_t i = 0; i < d->disk_count; i++)
        if (rp_guid_equal(&d->disks[i].disk_id, disk_id))
            return &d->disks[i];
    return NULL;
}

static int insert_point(const struct rp_local_vm *vm, const char *id, const struct rp_local_definition *d,
                        const struct rp_vm_settings *settings, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) ||
        rp_db_run(db, err, "INSERT INTO reference_point (id, vm, name, time) VALUES (?, ?, ?, ?)", "titi", id, vm->row,
                  d->point_name, d->point_time))
        return -1;
    int64_t point = rp_db_last_row(db);
    for (size_t i = 0; i < settings->disk_count; i++) {
        const struct rp_vm_disk *disk = &settings->disks[i];
        const struct rp_local_definition_disk *exported = find_exported(d, &disk->disk_id);
        char guid[RP_GUID_TEXT];
        rp_local_guid_text(&disk->disk_id, guid);
        if (exported &&
            rp_db_run(db, err,
                      "INSERT INTO reference_disk (point, number, instance, disk_id, rct_id) VALUES (?, ?, ?, ?, ?)",
                      "iittt", point, (int64_t)disk->number, disk->instance, guid, exported->rct_id))
            return -1;
    }
    return rp_transaction_commit(&t, err);
}

int rp_local_point_import(struct rp_host_connection *host, const char *vm_id, const char *definition_file,
                          RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    char guid[RP_GUID_TEXT], id[RP_HOST_ID];
    rp_local_take_id(local, guid);
    snprintf(id, sizeof id, "Microsoft:%s", guid);
    RP_CLEANUP(rp_local_definition_clear) struct rp_local_definition definition = {0};
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    if (rp_local_vm_lock(local, vm_id, &vm, err) ||
        rp_local_definition_read(local, definition_file, &definition, err) ||
        rp_local_settings_vm(host, vm.id, &settings, err))
        return -1;
    size_t found = 0;
    for (size_t i = 0; i < settings.disk_count; i++) {
        const struct rp_local_definition_disk *exported = find_exported(&definition, &settings.disks[i].disk_id);
        if (exported && import_disk(&vm, &settings.disks[i], exported, err))
            return rp_context(err, "VM %s: reference point of %s", vm.id, definition_file);
        found += exported != NULL;
    }
    if (!found)
        return rp_fail(err, RP_ERR_TRACKING_OFF, "VM %s: none of its disks is in %s", vm.id, definition_file);
    if (insert_point(&vm, id, &definition, &settings, err))
        return -1;
    memcpy(result, id, sizeof id);
    return 0;
}

// The VM in whose chains the file is: a frozen file, or a leaf as the chain record names it.
static int find_vm_of(struct rp_local *local, const char *path, struct rp_local_vm *vm, struct rp_error *err)
{
    RP_AUTO_FREE char *real = realpath(path, NULL);
    const char *name = real ? real : path;
    int64_t row = 0;
    if (rp_db_number(local->db, err, &row,
                     "SELECT s.vm FROM snapshot s JOIN snapshot_disk d ON d.snapshot = s.row WHERE d.path = ?1 OR d.child = ?1"
                     " UNION ALL SELECT vm FROM disk WHERE path = ?1 LIMIT 1", "t", name))
        return -1;
    int rc = row ? rp_local_vm_load_row(local, row, vm, err) : 0;
    if (rc < 0)
        return -1;
    if (rc == 0)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no VM of %s has this disk file", path, local->host.address);
    return 0;
}

int rp_local_point_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                           uint64_t length, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    struct rp_rct_id id;
    *processed = 0;
    if (rp_rct_id_parse(limit_id, &id, err) || find_vm_of(local, path, &vm, err))
        return rp_context(err, "changes of %s since %s", path, limit_id);
    RP_AUTO_FREE char *real = realpath(path, NULL);
    const char *file = real ? real : path;
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(&vm, err);
    if (!service || rp_service_changes(service, file, &id, offset, length, changed, err))
        return rp_context(err, "changes of %s since %s", path, limit_id);
    *processed = length;
    return 0;
}
