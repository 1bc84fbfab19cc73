// ApplySnapshot: the VM goes on above what its newest checkpoint froze. Each disk gets a fresh leaf there, and one write of the
// chain record exchanges all leaves: that is the moment. The leaves that were given up go then.
//
// Rows of `applying` are the intent. Before the record is written, undoing is to forget them: it lists the fresh leaves as
// scratch, and the next open of the disks deletes those. After it, the leaves given up are the scratch, and what is left to do
// is to tell the database.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "host/domain_state.h"

struct leaf {
    uint32_t number;
    char *frozen, *old, *fresh;
    uint64_t size;
};

struct applying {
    const struct rp_local_vm *vm;
    int64_t snapshot;
    size_t count;
    struct leaf leaves[RP_ENGINE_MAX_DISKS];
};

static void applying_clear(struct applying *a)
{
    for (size_t i = 0; i < a->count; i++) {
        free(a->leaves[i].frozen);
        free(a->leaves[i].old);
        free(a->leaves[i].fresh);
    }
}

// Beside the frozen file, named as checkpoints name theirs.
static char *fresh_path(const char *frozen)
{
    const char *name = rp_path_name(frozen), *end = strrchr(name, '.');
    if (!end || end == name)
        end = name + strlen(name);
    // "web_<guid>.avhdx" gives "web_<another>.avhdx"
    size_t stem = (size_t)(end - frozen);
    if (stem > RP_GUID_TEXT && frozen[stem - RP_GUID_TEXT] == '_') {
        char text[RP_GUID_TEXT];
        struct rp_guid guid;
        memcpy(text, frozen + stem - RP_GUID_TEXT + 1, RP_GUID_TEXT - 1);
        text[RP_GUID_TEXT - 1] = '\0';
        if (!rp_guid_parse(text, &guid, NULL))
            stem -= RP_GUID_TEXT;
    }
    struct rp_guid guid = rp_guid_new();
    char text[RP_GUID_TEXT];
    return rp_xasprintf("%.*s_%s.avhdx", (int)stem, frozen, rp_guid_format(&guid, text));
}

static struct rp_record_disk *recorded(struct rp_record *record, uint32_t number)
{
    for (size_t i = 0; i < record->count; i++)
        if (record->disks[i].number == number)
            return &record->disks[i];
    return NULL;
}

static int load(struct applying *a, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(a->vm->local->db, err,
        "SELECT number, path, child, size FROM snapshot_disk WHERE snapshot = ? ORDER BY number", "i", a->snapshot);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(a->vm->local->db, query, err)) == 1 && a->count < RP_ENGINE_MAX_DISKS) {
        const char *frozen = rp_db_text(query, 1);
        a->leaves[a->count++] = (struct leaf){.number = (uint32_t)sqlite3_column_int64(query, 0),
                                              .frozen = rp_xstrdup(frozen),
                                              .old = rp_xstrdup(rp_db_text(query, 2)),
                                              .fresh = fresh_path(frozen),
                                              .size = (uint64_t)sqlite3_column_int64(query, 3)};
    }
    return rc < 0 ? -1 : 0;
}

// The leaves must be those that were put on top of what is frozen: nothing younger stands on it.
static int check(struct applying *a, struct rp_record *record, const char *snapshot_id, struct rp_error *err)
{
    int64_t younger = 0;
    if (rp_db_number(a->vm->local->db, err, &younger, "SELECT count(*) FROM snapshot WHERE vm = ? AND row > ?", "ii",
                     a->vm->row, a->snapshot))
        return -1;
    if (younger)
        return rp_fail(err, RP_ERR_STATE,
                       "checkpoint %s: %lld made after it must be deleted, and merged, before it can be applied",
                       snapshot_id, (long long)younger);
    if (record->merging_count)
        return rp_fail(err, RP_ERR_BUSY, "VM %s: a merge is not finished", a->vm->id);
    for (size_t i = 0; i < a->count; i++) {
        const struct rp_record_disk *disk = recorded(record, a->leaves[i].number);
        if (!disk || strcmp(disk->leaf_path, a->leaves[i].old))
            return rp_fail(err, RP_ERR_STATE,
                           "VM %s: disk%" PRIu32 " is written to %s, a checkpoint that this host does not know",
                           a->vm->id, a->leaves[i].number, disk ? disk->leaf_path : "nothing");
    }
    return 0;
}

static int announce(const struct applying *a, struct rp_error *err)
{
    struct rp_db *db = a->vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err))
        return -1;
    for (size_t i = 0; i < a->count; i++)
        if (rp_db_run(db, err, "INSERT INTO applying (snapshot, number, leaf) VALUES (?, ?, ?)", "iit", a->snapshot,
                      (int64_t)a->leaves[i].number, a->leaves[i].fresh))
            return -1;
    return rp_transaction_commit(&t, err);
}

// A branch above the frozen file: it knows the ids that were sealed until then, and none that is younger. Without tracking below
// there is none above.
static int begin_tracking(const struct applying *a, const struct leaf *leaf, struct rp_vhdx *frozen,
                          struct rp_error *err)
{
    struct rp_fs *fs = a->vm->local->fs;
    struct rp_rct_disk state;
    struct rp_error why = {0};
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *fresh = rp_vhdx_open(fs, leaf->fresh, RP_VHDX_READ, NULL, err);
    if (!fresh || rp_rct_disk_of(fresh, &state, err))
        return -1;
    RP_CLEANUP(rp_rct_abandon_p) struct rp_rct *parent = rp_rct_open_frozen(fs, frozen, &why);
    if (!parent)
        return why.code == RP_ERR_TRACKING_OFF ? 0 : rp_fail_as(err, &why);
    const struct rp_vhdx_session unchanged = {state.file_write_guid, state.data_write_guid};
    struct rp_rct *child = rp_rct_prepare_child(parent, leaf->fresh, &state, &unchanged, err);
    return child ? rp_rct_close(child, &state, err) : -1;
}

static int make_leaf(const struct applying *a, const struct leaf *leaf, struct rp_error *err)
{
    struct rp_fs *fs = a->vm->local->fs;
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *frozen = rp_vhdx_open(fs, leaf->frozen, RP_VHDX_READ, NULL, err);
    if (!frozen)
        return -1;
    const struct rp_vhdx_info *info = rp_vhdx_info(frozen);
    const struct rp_vhdx_create create = {
        .size = info->size,
        .block_size = info->block_size,
        .logical_sector = info->logical_sector,
        .physical_sector = info->physical_sector,
        .disk_id = info->disk_id,
        .parent_path = leaf->frozen,
        .parent_data_write_guid = info->data_write_guid,
    };
    return rp_vhdx_create(fs, leaf->fresh, &create, err) || begin_tracking(a, leaf, frozen, err) ? -1 : 0;
}

static int exchange(const struct applying *a, struct rp_record *record, struct rp_error *err)
{
    for (size_t i = 0; i < a->count; i++) {
        struct rp_record_disk *disk = recorded(record, a->leaves[i].number);
        if (!disk)
            return rp_fail(err, RP_ERR_CORRUPT, "VM %s: the chain record has no disk%" PRIu32, a->vm->id,
                           a->leaves[i].number);
        for (size_t s = record->scratch_count; s-- > 0;)
            if (!strcmp(record->scratch[s], a->leaves[i].fresh))
                rp_record_drop_scratch(record, s);
        if (rp_record_add_scratch(record, disk->leaf_path, err))
            return -1;
        free(disk->leaf_path);
        disk->leaf_path = rp_xstrdup(a->leaves[i].fresh);
    }
    return rp_record_write(a->vm->local->fs, a->vm->directory, record, err);
}

// What was deleted long ago need not be listed any more; the list is short.
static int prune(const struct applying *a, struct rp_record *record, struct rp_error *err)
{
    for (size_t i = record->scratch_count; i-- > 0;) {
        bool exists;
        if (rp_fs_exists(a->vm->local->fs, record->scratch[i], &exists, err))
            return -1;
        if (!exists)
            rp_record_drop_scratch(record, i);
    }
    return 0;
}

static int carry_out(const struct applying *a, struct rp_record *record, struct rp_error *err)
{
    if (prune(a, record, err))
        return -1;
    // Listed before they exist: whenever the power goes, the next open knows them for ours.
    for (size_t i = 0; i < a->count; i++)
        if (rp_record_add_scratch(record, a->leaves[i].fresh, err))
            return -1;
    if (rp_record_write(a->vm->local->fs, a->vm->directory, record, err))
        return -1;
    for (size_t i = 0; i < a->count; i++)
        if (make_leaf(a, &a->leaves[i], err))
            return rp_context(err, "disk%" PRIu32, a->leaves[i].number);
    return exchange(a, record, err);
}

// ---- what the database says afterwards, whoever finds it ------------------------------------------------------------

// The checkpoint that is being applied and one of its fresh leaves. 1 found, 0 none, -1 error.
static int find_intent(const struct rp_local_vm *vm, int64_t *snapshot, uint32_t *number, char **leaf,
                       struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
        "SELECT a.snapshot, a.number, a.leaf FROM applying a JOIN snapshot s ON s.row = a.snapshot WHERE s.vm = ? LIMIT 1", "i", vm->row);
    int rc = query ? rp_db_step(vm->local->db, query, err) : -1;
    if (rc != 1)
        return rc;
    *snapshot = sqlite3_column_int64(query, 0);
    *number = (uint32_t)sqlite3_column_int64(query, 1);
    *leaf = rp_xstrdup(rp_db_text(query, 2));
    return 1;
}

static int note(const struct rp_local_vm *vm, int64_t snapshot, bool applied, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err) ||
        (applied &&
         (rp_db_run(db, err, "UPDATE snapshot_disk SET child = (SELECT leaf FROM applying a WHERE a.snapshot = ?1 AND"
                             " a.number = snapshot_disk.number) WHERE snapshot = ?1", "i", snapshot) ||
          rp_db_run(db, err, "UPDATE disk SET size = d.size FROM snapshot_disk d WHERE d.snapshot = ? AND disk.vm = ?"
                             " AND disk.number = d.number", "ii", snapshot, vm->row) ||
          rp_db_run(db, err, "UPDATE vm SET extras = (SELECT extras FROM snapshot WHERE row = ?) WHERE row = ?", "ii",
                    snapshot, vm->row))) ||
        rp_db_run(db, err, "DELETE FROM applying WHERE snapshot = ?", "i", snapshot))
        return -1;
    return rp_transaction_commit(&t, err);
}

int rp_local_apply_recover(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    RP_AUTO_FREE char *leaf = NULL;
    int64_t snapshot;
    uint32_t number;
    int rc = find_intent(vm, &snapshot, &number, &leaf, err);
    if (rc != 1)
        return rc;
    bool running = rp_local_vm_running(vm);
    if (rp_record_read(vm->local->fs, vm->directory, &record, err))
        return -1;
    // What was read may be in the page cache only, its writer killed before its sync: the same once more, and synced, before
    // the database relies on it. A service has done that when it opened the disks.
    if (!running) {
        record.generation--;
        if (rp_record_write(vm->local->fs, vm->directory, &record, err))
            return -1;
    }
    // The firmware's state goes with the disks, again and again until the database knows that it did.
    const struct rp_record_disk *disk = recorded(&record, number);
    bool applied = disk && !strcmp(disk->leaf_path, leaf);
    if ((applied && rp_local_domain_put_back(vm, snapshot, err)) || note(vm, snapshot, applied, err))
        return -1;
    if (!running)
        rp_local_disk_sweep(vm);
    return 0;
}

int rp_local_apply_snapshot(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                            struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    RP_CLEANUP(applying_clear) struct applying a = {.vm = &vm};
    if (rp_local_merge_lock_ready(local, snapshot_id, &vm, &a.snapshot, err) ||
        rp_local_vm_need_off(&vm, "apply a checkpoint", err) || rp_local_vm_adopt(&vm, err) ||
        rp_local_merge_advance(&vm, true, err) < 0)
        return -1;
    rp_local_disk_sweep(&vm);
    if (rp_record_read(local->fs, vm.directory, &record, err) || load(&a, err) ||
        check(&a, &record, snapshot_id, err) || announce(&a, err))
        return -1;
    int rc = carry_out(&a, &record, err);
    struct rp_error why = {0};
    // A write of the record that failed may have been one all the same: what is there counts.
    if (rp_local_apply_recover(&vm, &why))
        return rp_fail_as(err, &why);
    return rc ? rp_context(err, "VM %s: apply checkpoint %s", vm.id, snapshot_id) : 0;
}
