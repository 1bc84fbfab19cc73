// Destroying a checkpoint and converting it to a reference point: one durable transaction says what must come true, then
// the disk service merges, file by file, and whoever looks next takes note of what is done.
//
// A snapshot S froze F; Y is the file that was put on F then. Merging Y into F makes F hold what Y held: the running
// state when Y is the leaf, or what a later snapshot froze, whose frozen file is F from then on.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/domain.h"

struct pending {
    int64_t row;
    struct rp_guid operation;
    size_t count;
    char *frozen[RP_ENGINE_MAX_DISKS], *child[RP_ENGINE_MAX_DISKS];
};

static void pending_clear(struct pending *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->frozen[i]);
        free(p->child[i]);
    }
    *p = (struct pending){0};
}

// The oldest merge of the VM. 1 found, 0 none, -1 error.
static int next_pending(const struct rp_local_vm *vm, struct pending *p, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
        "SELECT s.row, s.operation, d.path, d.child FROM snapshot s LEFT JOIN snapshot_disk d ON d.snapshot = s.row"
        " WHERE s.row = (SELECT min(row) FROM snapshot WHERE vm = ? AND state = 'merging') ORDER BY d.number",
        "i", vm->row);
    int rc = query ? 1 : -1;
    bool found = false;
    while (rc > 0 && (rc = rp_db_step(vm->local->db, query, err)) == 1) {
        found = true;
        p->row = sqlite3_column_int64(query, 0);
        if (rp_guid_parse(rp_db_text(query, 1), &p->operation, err))
            return -1;
        if (sqlite3_column_type(query, 2) == SQLITE_NULL || p->count == RP_ENGINE_MAX_DISKS)
            continue;
        p->frozen[p->count] = rp_xstrdup(rp_db_text(query, 2));
        p->child[p->count++] = rp_xstrdup(rp_db_text(query, 3));
    }
    return rc < 0 ? -1 : found;
}

static int finish(const struct rp_local_vm *vm, const struct pending *p, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err))
        return -1;
    for (size_t i = 0; i < p->count; i++)
        if (rp_db_run(db, err, "UPDATE snapshot_disk SET path = ? WHERE path = ? AND snapshot IN (SELECT row FROM snapshot WHERE vm = ?)",
                      "tti", p->frozen[i], p->child[i], vm->row))
            return -1;
    if (rp_db_run(db, err, "DELETE FROM snapshot WHERE row = ?", "i", p->row))
        return -1;
    return rp_transaction_commit(&t, err);
}

static void note_problem(const struct rp_local_vm *vm, const struct pending *p, const char *problem)
{
    rp_db_run(vm->local->db, NULL, "UPDATE snapshot SET problem = ? WHERE row = ? AND problem IS NOT ?", "tit", problem, p->row, problem);
}

// What became of the merge, asking for it when nobody has yet. True: done.
static bool ask(const struct rp_local_vm *vm, const struct pending *p, struct rp_service *service, struct rp_error *why)
{
    const uint64_t *wished = vm->local->host.merge_rate ? &vm->local->host.merge_rate : NULL;
    for (int round = 0; round < 2; round++) {
        RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
        if (rp_service_info(service, &info, why))
            break;
        bool ours = rp_guid_equal(&info.merge.operation, &p->operation);
        if (ours && info.merge.phase == RP_MERGE_DONE)
            return true;
        if (info.merge.phase == RP_MERGE_RUNNING) {
            if (ours && wished && round == 0) // the same operation again, only the limit is new
                rp_service_merge(service, &p->operation, (const char *const *)p->child, p->count, wished, NULL);
            return false;
        }
        if (ours && info.merge.phase == RP_MERGE_FAILED && round == 1) {
            rp_fail_as(why, &info.merge.error);
            break;
        }
        // The same operation again after a failure or a crash: files that are merged already count as done.
        if (round == 0 && rp_service_merge(service, &p->operation, (const char *const *)p->child, p->count, wished, why))
            break;
        if (!rp_service_is_running(service))
            return true; // in-process it returns when it is done
    }
    return false;
}

static bool attempt(const struct rp_local_vm *vm, const struct pending *p, bool at_rest)
{
    struct rp_error why = {0};
    if (!rp_local_vm_running(vm) && (!at_rest || rp_local_domain_needs_service(vm)))
        return false;
    struct rp_service *service = rp_local_vm_service(vm, &why);
    bool done = service && ask(vm, p, service, &why);
    // Not before the disks are closed: what is asked again after a failure finds what is merged, and closes anew.
    done = !rp_service_close(service, &why) && done;
    if (!done)
        note_problem(vm, p, why.code ? why.text : NULL);
    return done;
}

int rp_local_merge_advance(const struct rp_local_vm *vm, bool at_rest, struct rp_error *err)
{
    for (;;) {
        RP_CLEANUP(pending_clear) struct pending p = {0};
        int rc = next_pending(vm, &p, err);
        if (rc != 1)
            return rc;
        if (p.count && !attempt(vm, &p, at_rest))
            return 1;
        if (finish(vm, &p, err))
            return rp_context(err, "VM %s: note the end of a merge", vm->id);
    }
}

static void show_progress(const struct rp_engine_merge *merge, struct rp_vm *state)
{
    state->merge_done = merge->done;
    state->merge_total = merge->total;
    state->merge_rate = merge->rate;
    state->merge_round = merge->round;
    state->merge_guest_rate = merge->guest_rate;
    if (merge->total)
        state->merge_percent = (unsigned)(100.0 * (double)merge->done / (double)merge->total);
    if (!merge->waiting.code)
        return;
    free(state->merge_problem);
    state->merge_problem = rp_xstrdup(merge->waiting.text);
}

bool rp_local_merge_state(const struct rp_local_vm *vm, struct rp_vm *state)
{
    {
        RP_AUTO_QUERY *query = rp_db_query(vm->local->db, NULL,
            "SELECT problem FROM snapshot WHERE vm = ? AND state = 'merging' ORDER BY row LIMIT 1", "i", vm->row);
        if (!query || rp_db_step(vm->local->db, query, NULL) != 1)
            return false;
        if (sqlite3_column_type(query, 0) != SQLITE_NULL)
            state->merge_problem = rp_xstrdup(rp_db_text(query, 0));
    }
    if (!rp_local_vm_running(vm))
        return true;
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(vm, NULL);
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    if (service && !rp_service_info(service, &info, NULL) && info.merge.phase == RP_MERGE_RUNNING)
        show_progress(&info.merge, state);
    return true;
}

int rp_local_merge_lock_ready(struct rp_local *local, const char *snapshot_id, struct rp_local_vm *vm, int64_t *row, struct rp_error *err)
{
    char vm_id[RP_GUID_TEXT] = "";
    {
        RP_AUTO_QUERY *query = rp_db_query(local->db, err,
            "SELECT v.id FROM snapshot s JOIN vm v ON v.row = s.vm WHERE s.id = ? AND s.state <> 'creating'", "t", snapshot_id);
        int rc = query ? rp_db_step(local->db, query, err) : -1;
        if (rc < 0)
            return -1;
        if (rc == 1)
            rp_db_copy(query, 0, vm_id, sizeof vm_id);
    }
    if (*vm_id && rp_local_vm_lock(local, vm_id, vm, err))
        return -1;
    RP_AUTO_QUERY *query = rp_db_query(local->db, err, "SELECT row, state FROM snapshot WHERE id = ?", "t", snapshot_id);
    int rc = query ? rp_db_step(local->db, query, err) : -1;
    if (rc < 0)
        return -1;
    if (rc == 0 || !*vm_id)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no checkpoint %s", local->host.address, snapshot_id);
    if (strcmp(rp_db_text(query, 1), "ready"))
        return rp_fail(err, RP_ERR_STATE, "checkpoint %s is being merged already", snapshot_id);
    *row = sqlite3_column_int64(query, 0);
    return 0;
}

static int mark_merging(struct rp_local *local, int64_t row, struct rp_error *err)
{
    char operation[RP_GUID_TEXT];
    rp_local_new_id(operation);
    return rp_db_run(local->db, err, "UPDATE snapshot SET state = 'merging', operation = ?, problem = NULL WHERE row = ?", "ti",
                     operation, row);
}

// The method is done when its transaction is: what the merge meets shows as the VM's activity.
void rp_local_merge_begin(const struct rp_local_vm *vm)
{
    struct rp_error why = {0};
    if (rp_local_merge_advance(vm, true, &why) < 0)
        rp_log(RP_LOG_WARNING, "VM %s: merge: %s", vm->id, why.text);
}

int rp_local_merge_destroy(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    int64_t row;
    if (rp_local_merge_lock_ready(rp_local_of(host), snapshot_id, &vm, &row, err) || mark_merging(vm.local, row, err))
        return -1;
    rp_local_merge_begin(&vm);
    return 0;
}

int rp_local_merge_to_point(const struct rp_local_vm *vm, int64_t row, const char *id, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    return rp_db_run(db, err, "INSERT INTO reference_point (id, vm, name, time) SELECT ?, vm, name, time FROM snapshot WHERE row = ?",
                     "ti", id, row) ||
                   rp_db_run(db, err,
                             "INSERT INTO reference_disk (point, number, instance, disk_id, rct_id)"
                             " SELECT ?, number, instance, disk_id, rct_id FROM snapshot_disk WHERE snapshot = ?",
                             "ii", rp_db_last_row(db), row) ||
                   mark_merging(vm->local, row, err)
               ? -1 : 0;
}

int rp_local_merge_convert(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    char guid[RP_GUID_TEXT], id[RP_HOST_ID];
    int64_t row, type = 0;
    rp_local_take_id(local, guid);
    snprintf(id, sizeof id, "Microsoft:%s", guid);
    if (rp_local_merge_lock_ready(local, snapshot_id, &vm, &row, err) ||
        rp_db_number(local->db, err, &type, "SELECT type FROM snapshot WHERE row = ?", "i", row))
        return -1;
    if (type != RP_SNAPSHOT_RECOVERY)
        return rp_fail(err, RP_ERR_STATE, "checkpoint %s was made by hand: only one made for a backup becomes a reference point",
                       snapshot_id);
    {
        RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
        if (rp_transaction_begin(&t, local->db, err) || rp_local_merge_to_point(&vm, row, id, err) || rp_transaction_commit(&t, err))
            return rp_context(err, "reference point of %s", snapshot_id);
    }
    memcpy(result, id, sizeof id);
    rp_local_merge_begin(&vm);
    return 0;
}
