// Reference points, and what changed since one.
#include <limits.h>
#include <string.h>

#include "base/num.h"
#include "host/internal.h"

int rp_local_point_list(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points, struct rp_error *err)
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
            *fresh = (struct rp_reference_point){.name = rp_xstrdup(rp_db_text(query, 2)), .time_ns = sqlite3_column_int64(query, 3)};
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

int rp_local_point_destroy(struct rp_host_connection *host, const char *point_id, RP_METHOD_RESULT, struct rp_error *err)
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
