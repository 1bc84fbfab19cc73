// Everything at once: a constant number of queries, whatever the number of VMs, and no disk file is opened. What changes while
// a VM runs, it is asked for; sizes and leaves are as the database has them, which knows every change of either.
#include <stdlib.h>
#include <string.h>

#include "host/domain.h"

struct scan {
    struct rp_local *local;
    struct rp_inventory *inventory;
    struct rp_local_vm *vms; // row, id, controller, directory, hypervisor, domain of each
    struct notes {
        char *problem, *unprotected;
    } *notes;                // of those that have a hypervisor
    bool *merging;
};

static void free_vm(struct scan *s, size_t i)
{
    free(s->vms[i].directory);
    free(s->vms[i].hypervisor);
    free(s->notes[i].problem);
    free(s->notes[i].unprotected);
}

static void scan_clear(struct scan *s)
{
    for (size_t i = 0; i < s->inventory->count; i++)
        free_vm(s, i);
    free(s->vms);
    free(s->notes);
    free(s->merging);
}

static int by_row(const void *key, const void *item)
{
    int64_t row = *(const int64_t *)key, other = ((const struct rp_local_vm *)item)->row;
    return row < other ? -1 : row > other;
}

// The VM that a row belongs to; NULL: not one that is shown.
static struct rp_inventory_vm *find(const struct scan *s, int64_t row, size_t *index)
{
    size_t count = s->inventory->count;
    const struct rp_local_vm *vm = count ? bsearch(&row, s->vms, count, sizeof *s->vms, by_row) : NULL;
    if (!vm)
        return NULL;
    *index = (size_t)(vm - s->vms);
    return &s->inventory->items[*index];
}

// For an array of `count`: room for one more. Capacities are powers of two.
static void *grown(void *items, size_t count, size_t size)
{
    return count & (count - 1) ? items : rp_xrealloc(items, (count ? 2 * count : 1) * size);
}

static int add_vm(struct scan *s, sqlite3_stmt *row, struct rp_error *err)
{
    struct rp_inventory *all = s->inventory;
    struct rp_guid guid;
    (void)err;
    if (rp_guid_parse(rp_db_text(row, 1), &guid, NULL))
        return 0;
    all->items = grown(all->items, all->count, sizeof *all->items);
    s->vms = grown(s->vms, all->count, sizeof *s->vms);
    s->notes = grown(s->notes, all->count, sizeof *s->notes);
    s->notes[all->count] = (struct notes){0};
    if (*rp_db_text(row, 4))
        s->notes[all->count] = (struct notes){rp_xstrdup(rp_db_text(row, 6)), rp_xstrdup(rp_db_text(row, 7))};
    struct rp_local_vm *vm = &s->vms[all->count];
    struct rp_inventory_vm *item = &all->items[all->count++];
    *vm = (struct rp_local_vm){.local = s->local, .row = sqlite3_column_int64(row, 0)};
    *item = (struct rp_inventory_vm){.vm.name = rp_xstrdup(rp_db_text(row, 2))};
    rp_local_guid_text(&guid, vm->id);
    memcpy(item->vm.id, vm->id, sizeof item->vm.id);
    rp_db_copy(row, 3, vm->controller, sizeof vm->controller);
    vm->directory = rp_xasprintf("%s/vms/%s", s->local->directory, vm->id);
    vm->hypervisor = rp_xstrdup(rp_db_text(row, 4));
    rp_db_copy(row, 5, vm->domain, sizeof vm->domain);
    return 0;
}

static int add_disk(struct scan *s, sqlite3_stmt *row, struct rp_error *err)
{
    size_t index;
    struct rp_inventory_vm *item = find(s, sqlite3_column_int64(row, 0), &index);
    (void)err;
    if (!item)
        return 0;
    struct rp_vm_settings *settings = &item->settings;
    settings->disks = grown(settings->disks, settings->disk_count, sizeof *settings->disks);
    struct rp_vm_disk *disk = &settings->disks[settings->disk_count++];
    *disk = (struct rp_vm_disk){.number = (uint32_t)sqlite3_column_int64(row, 1),
                                .path = rp_xstrdup(rp_db_text(row, 3)),
                                .size = (uint64_t)sqlite3_column_int64(row, 4),
                                .logical_sector = (uint32_t)sqlite3_column_int64(row, 5),
                                .physical_sector = (uint32_t)sqlite3_column_int64(row, 6)};
    rp_guid_parse(rp_db_text(row, 2), &disk->disk_id, NULL);
    rp_local_settings_instance(&s->vms[index], disk->number, disk->instance);
    return 0;
}

// The file above what the newest checkpoint froze is the one that is written.
static int set_leaf(struct scan *s, sqlite3_stmt *row, struct rp_error *err)
{
    size_t index;
    struct rp_inventory_vm *item = find(s, sqlite3_column_int64(row, 0), &index);
    uint32_t number = (uint32_t)sqlite3_column_int64(row, 1);
    (void)err;
    for (size_t i = 0; item && i < item->settings.disk_count; i++)
        if (item->settings.disks[i].number == number) {
            free(item->settings.disks[i].path);
            item->settings.disks[i].path = rp_xstrdup(rp_db_text(row, 2));
        }
    return 0;
}

static int add_snapshot(struct scan *s, sqlite3_stmt *row, struct rp_error *err)
{
    size_t index;
    struct rp_inventory_vm *item = find(s, sqlite3_column_int64(row, 0), &index);
    const char *state = rp_db_text(row, 6);
    (void)err;
    if (!item)
        return 0;
    bool merging = !strcmp(state, "merging");
    s->merging[index] |= merging;
    if (merging)
        item->vm.activity = RP_VM_MERGING;
    if (!strcmp(state, "creating")) {
        if (item->vm.activity == RP_VM_IDLE)
            item->vm.activity = RP_VM_CREATING_SNAPSHOT;
        return 0;
    }
    struct rp_snapshots *list = &item->snapshots;
    list->items = grown(list->items, list->count, sizeof *list->items);
    struct rp_snapshot *snapshot = &list->items[list->count++];
    *snapshot = (struct rp_snapshot){.name = rp_xstrdup(rp_db_text(row, 2)),
                                     .type = (enum rp_snapshot_type)sqlite3_column_int64(row, 3),
                                     .consistency = (enum rp_consistency)sqlite3_column_int64(row, 4),
                                     .time_ns = sqlite3_column_int64(row, 5),
                                     .merging = merging,
                                     .consistency_reason = *rp_db_text(row, 7) ? rp_xstrdup(rp_db_text(row, 7)) : NULL};
    rp_db_copy(row, 1, snapshot->id, sizeof snapshot->id);
    memcpy(snapshot->vm_id, item->vm.id, sizeof snapshot->vm_id);
    return 0;
}

static int add_point(struct scan *s, sqlite3_stmt *row, struct rp_error *err)
{
    size_t index;
    struct rp_inventory_vm *item = find(s, sqlite3_column_int64(row, 0), &index);
    (void)err;
    if (!item)
        return 0;
    struct rp_reference_points *points = &item->points;
    char id[RP_HOST_ID];
    rp_db_copy(row, 1, id, sizeof id);
    if (!points->count || strcmp(points->items[points->count - 1].id, id)) {
        points->items = grown(points->items, points->count, sizeof *points->items);
        struct rp_reference_point *fresh = &points->items[points->count++];
        *fresh = (struct rp_reference_point){.name = rp_xstrdup(rp_db_text(row, 2)),
                                             .time_ns = sqlite3_column_int64(row, 3)};
        memcpy(fresh->id, id, sizeof fresh->id);
        memcpy(fresh->vm_id, item->vm.id, sizeof fresh->vm_id);
    }
    if (sqlite3_column_type(row, 4) == SQLITE_NULL)
        return 0;
    struct rp_reference_point *point = &points->items[points->count - 1];
    point->disks = grown(point->disks, point->disk_count, sizeof *point->disks);
    struct rp_reference_disk *disk = &point->disks[point->disk_count++];
    *disk = (struct rp_reference_disk){0};
    rp_db_copy(row, 4, disk->instance, sizeof disk->instance);
    rp_guid_parse(rp_db_text(row, 5), &disk->disk_id, NULL);
    rp_db_copy(row, 6, disk->rct_id, sizeof disk->rct_id);
    return 0;
}

static int each(struct scan *s, const char *sql, int (*add)(struct scan *s, sqlite3_stmt *row, struct rp_error *err),
                struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(s->local->db, err, sql, "");
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(s->local->db, query, err)) == 1)
        if (add(s, query, err))
            return -1;
    return rc;
}

static int read_rows(struct scan *s, struct rp_error *err)
{
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_read(&t, s->local->db, err) ||
        each(s, "SELECT row, id, name, controller, hypervisor, domain, problem, unprotected FROM vm WHERE state = 'ready' ORDER BY row",
             add_vm, err))
        return -1;
    s->merging = rp_xcalloc(s->inventory->count + 1, sizeof *s->merging);
    static const struct {
        const char *sql;
        int (*add)(struct scan *s, sqlite3_stmt *row, struct rp_error *err);
    } rows[] = {
        {"SELECT vm, number, disk_id, path, size, logical, physical FROM disk WHERE state = 'ready'"
         " ORDER BY vm, number", add_disk},
        {"SELECT s.vm, d.number, d.child FROM snapshot_disk d JOIN snapshot s ON s.row = d.snapshot WHERE s.row IN"
         " (SELECT max(row) FROM snapshot WHERE state <> 'creating' GROUP BY vm)", set_leaf},
        {"SELECT vm, id, name, type, consistency, time, state, consistency_reason FROM snapshot ORDER BY vm, row", add_snapshot},
        {"SELECT p.vm, p.id, p.name, p.time, d.instance, d.disk_id, d.rct_id FROM reference_point p"
         " LEFT JOIN reference_disk d ON d.point = p.row ORDER BY p.vm, p.row, d.number", add_point},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (each(s, rows[i].sql, rows[i].add, err))
            return -1;
    return 0;
}

// Merges that have ended are noted first, as whoever lists VMs does.
static int note_merges(struct rp_local *local, struct rp_error *err)
{
    RP_AUTO_FREE int64_t *rows = NULL;
    size_t count = 0;
    RP_AUTO_QUERY *query = rp_db_query(local->db, err, "SELECT DISTINCT vm FROM snapshot WHERE state = 'merging'", "");
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        rows = grown(rows, count, sizeof *rows);
        rows[count++] = sqlite3_column_int64(query, 0);
    }
    sqlite3_reset(query); // no lock of the database outlives the list
    for (size_t i = 0; !rc && i < count; i++)
        rp_local_vm_take_note(local, rows[i], false);
    return rc;
}

int rp_local_inventory(struct rp_host_connection *host, struct rp_inventory *inventory, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *inventory = (struct rp_inventory){0};
    struct scan s = {.local = local, .inventory = inventory};
    int rc = note_merges(local, err) || read_rows(&s, err) ? -1 : 0;
    for (size_t i = 0; !rc && i < inventory->count; i++) {
        struct rp_inventory_vm *item = &inventory->items[i];
        bool running = rp_local_vm_running(&s.vms[i]);
        item->vm.state = running ? RP_VM_RUNNING : RP_VM_OFF;
        if (rp_local_domain_is(&s.vms[i]))
            rp_local_domain_describe(&s.vms[i], s.notes[i].problem, s.notes[i].unprotected, &item->vm);
        for (size_t d = 0; running && d < item->settings.disk_count; d++)
            item->settings.disks[d].nbd_uri = rp_local_settings_nbd_uri(&s.vms[i], item->settings.disks[d].number);
        if (s.merging[i] && !rp_local_merge_state(&s.vms[i], &item->vm)) // over meanwhile
            item->vm.activity = RP_VM_IDLE;
    }
    scan_clear(&s);
    if (rc)
        rp_inventory_clear(inventory);
    return rc;
}
