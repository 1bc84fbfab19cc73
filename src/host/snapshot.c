// Checkpoints: asked of the disk service under an operation id that is in the database before the call, so that what a
// killed process began is found again.
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/domain.h"
#include "host/domain_state.h"
#include "host/freeze.h"

// Half of the longest chain: the other half is for parents of a disk used in place.
#define MAX_SNAPSHOTS (32 - 4)
enum { ANSWER_S = 10 }; // for what somebody else has begun

static const char *const new_id_prefix = "Microsoft:";

static int number_of(const struct rp_local_vm *vm, const struct rp_guid *disk_id, uint32_t *number, struct rp_error *err)
{
    char text[RP_GUID_TEXT];
    rp_local_guid_text(disk_id, text);
    int64_t found = -1;
    if (rp_db_number(vm->local->db, err, &found, "SELECT number FROM disk WHERE vm = ? AND disk_id = ?", "it", vm->row, text))
        return -1;
    if (found < 0)
        return rp_fail(err, RP_ERR_CORRUPT, "VM %s: the disk service froze a disk %s that the host does not know", vm->id, text);
    *number = (uint32_t)found;
    return 0;
}

// One that was made for CreateReferencePoint is never seen as a checkpoint.
static int become_point(const struct rp_local_vm *vm, int64_t row, struct rp_error *err)
{
    char id[RP_HOST_ID] = "";
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err, "SELECT point FROM snapshot WHERE row = ? AND point IS NOT NULL", "i", row);
    int rc = query ? rp_db_step(vm->local->db, query, err) : -1;
    if (rc != 1)
        return rc;
    rp_db_copy(query, 0, id, sizeof id);
    return rp_local_merge_to_point(vm, row, id, err);
}

// What a checkpoint says of its consistency.
struct consistency {
    enum rp_consistency reached;
    char reason[RP_ERROR_TEXT]; // why that; "": nothing to say
};

// The checkpoint was made: its disks become rows and the snapshot ready, in one transaction. `consistency` NULL: as it stands.
static int finish(const struct rp_local_vm *vm, int64_t row, const struct rp_engine_checkpoint *made,
                  const struct consistency *consistency, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, db, err))
        return -1;
    for (size_t i = 0; i < made->count; i++) {
        const struct rp_engine_frozen *frozen = &made->disks[i];
        RP_CLEANUP(rp_local_image_clear) struct rp_local_image facts = {0};
        uint32_t number = 0;
        if (number_of(vm, &frozen->disk_id, &number, err) || rp_local_image_facts(vm->local->fs, frozen->path, &facts, err))
            return -1;
        char instance[RP_HOST_ID], disk_id[RP_GUID_TEXT], rct_id[RP_RCT_ID_TEXT] = "";
        rp_local_settings_instance(vm, number, instance);
        rp_local_guid_text(&frozen->disk_id, disk_id);
        if (frozen->tracked)
            rp_rct_id_format(&frozen->id, rct_id);
        if (rp_db_run(db, err,
                      "INSERT INTO snapshot_disk (snapshot, number, instance, disk_id, path, child, rct_id, size, logical, physical, block)"
                      " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                      "iitttttiiii", row, (int64_t)number, instance, disk_id, frozen->path, frozen->leaf_path, rct_id,
                      (int64_t)facts.size, (int64_t)facts.logical, (int64_t)facts.physical, (int64_t)facts.block))
            return -1;
    }
    if (consistency && rp_db_run(db, err, "UPDATE snapshot SET consistency = ?, consistency_reason = ? WHERE row = ?", "iti",
                                 (int64_t)consistency->reached, consistency->reason, row))
        return -1;
    if (rp_db_run(db, err, "UPDATE snapshot SET state = 'ready' WHERE row = ?", "i", row) || become_point(vm, row, err))
        return -1;
    return rp_transaction_commit(&t, err);
}

static int drop(const struct rp_local_vm *vm, int64_t row, struct rp_error *err)
{
    return rp_db_run(vm->local->db, err, "DELETE FROM snapshot WHERE row = ?", "i", row);
}

// Whether the chain record says that the operation was carried out; takes note of it then. 1 it was, 0 not, -1 error.
static int finish_from_record(const struct rp_local_vm *vm, int64_t row, const struct rp_guid *operation,
                              const struct consistency *consistency, struct rp_error *err)
{
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    if (rp_local_vm_adopt(vm, err) || rp_record_read(vm->local->fs, vm->directory, &record, err))
        return -1;
    if (!record.last.count || !rp_guid_equal(&record.last.operation, operation))
        return 0;
    return finish(vm, row, &record.last, consistency, err) ? -1 : 1;
}

int rp_local_snapshot_recover(const struct rp_local_vm *vm, struct rp_error *err)
{
    for (;;) {
        int64_t row;
        struct rp_guid operation;
        {
            RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
                "SELECT row, operation FROM snapshot WHERE vm = ? AND state = 'creating' ORDER BY row", "i", vm->row);
            int rc = query ? rp_db_step(vm->local->db, query, err) : -1;
            if (rc != 1)
                return rc;
            row = sqlite3_column_int64(query, 0);
            if (rp_guid_parse(rp_db_text(query, 1), &operation, err))
                return -1;
        }
        int made = finish_from_record(vm, row, &operation, NULL, err);
        if (made < 0)
            return -1;
        if (made)
            continue;
        // A service that runs may still be at it: asking again under the same id waits for that and makes no second one. Not for
        // long: storage that does not answer must not keep the VM locked.
        // Without a service nothing can come of it any more.
        if (rp_local_vm_running(vm)) {
            RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(vm, err);
            RP_CLEANUP(rp_engine_checkpoint_clear) struct rp_engine_checkpoint checkpoint = {0};
            struct rp_error why = {0};
            if (!service || rp_service_limit(service, ANSWER_S, err))
                return -1;
            if (!rp_service_checkpoint(service, &operation, NULL, NULL, &checkpoint, &why)) {
                if (finish(vm, row, &checkpoint, NULL, err))
                    return -1;
                continue;
            }
            if (why.code == RP_ERR_IO) // the service went away, is still at it, or said so: the record decides, next time
                return rp_fail_as(err, &why);
        }
        if (drop(vm, row, err))
            return -1;
    }
}

// A merge changes the chains that a checkpoint freezes; products of others refuse to start a backup then as well.
static int wait_for_merges(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm state = {0};
    int rc = rp_local_merge_advance(vm, true, err);
    if (rc != 1 || !rp_local_merge_state(vm, &state))
        return rc < 0 ? -1 : 0;
    if (state.merge_problem)
        return rp_fail(err, RP_ERR_BUSY, "VM %s: a checkpoint is waiting to be merged: %s", vm->id, state.merge_problem);
    return rp_fail(err, RP_ERR_BUSY, "VM %s: a checkpoint is being merged (%u %%); wait until it is done", vm->id,
                   state.merge_percent);
}

// ---- the guest at rest ----------------------------------------------------------------------------------------------

static const char *const interrupted = "whoever made it was interrupted, and cannot say whether the guest was at rest";

// Begins what application consistency needs. *freeze: of a guest that is frozen now; NULL: nothing to thaw, and `c` says why.
static int come_to_rest(const struct rp_local_vm *vm, struct rp_local_freeze **freeze, struct consistency *c, struct rp_error *err)
{
    enum rp_domain_state state;
    if (!rp_local_domain_is(vm)) {
        snprintf(c->reason, sizeof c->reason, "nothing runs its guest here that could bring it to rest");
        return 0;
    }
    if (rp_local_domain_state(vm, &state, err))
        return -1;
    if (state == RP_DOMAIN_OFF) {
        c->reached = RP_CONSISTENCY_APPLICATION;
        snprintf(c->reason, sizeof c->reason, "it is off, nobody writes");
    } else if (state == RP_DOMAIN_RUNNING || state == RP_DOMAIN_STARTING || state == RP_DOMAIN_STOPPING) {
        unsigned limit_ms = vm->local->host.frozen_ms;
        *freeze = rp_local_freeze_begin(vm, limit_ms ? limit_ms : RP_LOCAL_FREEZE_MS, err);
        return *freeze ? 0 : -1;
    } else {
        snprintf(c->reason, sizeof c->reason, "it is %s: its guest cannot be asked to come to rest", rp_domain_state_name(state));
    }
    return 0;
}

// What it was when the checkpoint was made.
static void was_at_rest(const struct rp_local_vm *vm, struct rp_local_freeze *freeze, struct consistency *c)
{
    enum rp_domain_state state;
    if (freeze) {
        c->reached = rp_local_freeze_end(freeze, c->reason) ? RP_CONSISTENCY_APPLICATION : RP_CONSISTENCY_CRASH;
    } else if (c->reached == RP_CONSISTENCY_APPLICATION && (rp_local_domain_state(vm, &state, NULL) || state != RP_DOMAIN_OFF)) {
        c->reached = RP_CONSISTENCY_CRASH;
        snprintf(c->reason, sizeof c->reason, "it was started while the checkpoint was made");
    }
}

// ---- create ---------------------------------------------------------------------------------------------------------

struct request {
    const char *vm_id;
    enum rp_snapshot_type type;
    enum rp_consistency consistency;
    const char *name;
    char id[RP_HOST_ID];    // of the checkpoint
    char point[RP_HOST_ID]; // of the reference point that it becomes at once; "": none
};

// The intent: a row that names the operation.
static int announce(const struct rp_local_vm *vm, const struct request *what, const struct rp_guid *operation, int64_t *row,
                    struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    int64_t disks = 0, snapshots = 0;
    char operation_text[RP_GUID_TEXT];
    if (rp_db_number(db, err, &disks, "SELECT count(*) FROM disk WHERE vm = ?", "i", vm->row) ||
        rp_db_number(db, err, &snapshots, "SELECT count(*) FROM snapshot WHERE vm = ?", "i", vm->row))
        return -1;
    if (!disks)
        return rp_fail(err, RP_ERR_STATE, "VM %s has no disk: there is nothing to freeze", vm->id);
    if (snapshots >= MAX_SNAPSHOTS)
        return rp_fail(err, RP_ERR_STATE, "VM %s has %lld checkpoints, the most that its chains can take: delete some", vm->id,
                       (long long)snapshots);
    rp_local_guid_text(operation, operation_text);
    if (rp_db_run(db, err,
                  "INSERT INTO snapshot (id, vm, name, type, consistency, consistency_reason, time, operation, point, extras, state)"
                  " SELECT ?, row, ?, ?, ?, ?, ?, ?, nullif(?, ''), extras, 'creating' FROM vm WHERE row = ?",
                  "ttiititti", what->id, what->name, (int64_t)what->type, (int64_t)RP_CONSISTENCY_CRASH,
                  what->consistency == RP_CONSISTENCY_APPLICATION ? interrupted : "", rp_clock_wall_ns(), operation_text, what->point,
                  vm->row))
        return -1;
    *row = rp_db_last_row(db);
    return 0;
}

// `result`: what there is then, also when closing the disks fails afterwards.
static int create(struct rp_local *local, const struct request *what, char result[RP_HOST_ID], struct rp_error *err)
{
    const char *id = *what->point ? what->point : what->id;
    int64_t row = 0;
    struct rp_guid operation = rp_guid_new();
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (rp_local_name_check_tag(what->name, err) || rp_local_vm_lock(local, what->vm_id, &vm, err) || wait_for_merges(&vm, err) ||
        announce(&vm, what, &operation, &row, err))
        return -1;
    rp_local_domain_record(&vm, row);

    struct consistency consistency = {.reached = RP_CONSISTENCY_CRASH};
    struct rp_error why = {0};
    bool anew = false;
    if (what->consistency == RP_CONSISTENCY_APPLICATION)
        rp_local_freeze_serve(&vm, &why);
    RP_CLEANUP(rp_engine_checkpoint_clear) struct rp_engine_checkpoint made = {0};
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(&vm, err);
    struct rp_local_freeze *freeze = NULL;
    if (!service || (what->consistency == RP_CONSISTENCY_APPLICATION && come_to_rest(&vm, &freeze, &consistency, err))) {
        drop(&vm, row, NULL); // nobody was asked to make it
        return service ? rp_context(err, "VM %s", vm.id) : -1;
    }
    if (freeze && rp_local_freeze_served(freeze)) {
        rp_service_close(service, NULL);
        service = rp_local_vm_service(&vm, err);
    }
    int rc = service ? rp_service_checkpoint(service, &operation, freeze ? rp_local_freeze_switched : NULL, freeze, &made, err) : -1;
    if (rc && freeze) {
        rp_service_close(service, NULL);
        service = NULL;
        anew = rp_local_freeze_serve(&vm, &why); // so nothing goes on of what the dead one was asked for
    }
    was_at_rest(&vm, freeze, &consistency);
    if (!rc && !finish(&vm, row, &made, &consistency, err)) {
        memcpy(result, id, RP_HOST_ID);
        rc = rp_service_close(service, err);
        service = NULL;
        if (*what->point)
            rp_local_merge_begin(&vm);
        return rc ? rp_context(err, "VM %s: the checkpoint was made, but its disks could not be closed", vm.id) : 0;
    }
    if (why.code)
        rp_log(RP_LOG_ERROR, "%s", why.text);
    // Made after all (an answer that was lost), not made, or not known yet: then the row stays for the next to look.
    struct rp_error unused = {0};
    rp_service_close(service, NULL);
    service = NULL;
    int known = finish_from_record(&vm, row, &operation, &consistency, &unused);
    if (known == 1) {
        rp_error_clear(err);
        memcpy(result, id, RP_HOST_ID);
        if (*what->point)
            rp_local_merge_begin(&vm);
        return 0;
    }
    if (known == 0 && (!err || err->code != RP_ERR_IO || anew || !rp_local_vm_running(&vm)))
        drop(&vm, row, NULL);
    return rp_context(err, "VM %s: checkpoint", vm.id);
}

int rp_local_snapshot_create(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                             enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    char guid[RP_GUID_TEXT];
    rp_local_take_id(rp_local_of(host), guid);
    struct request what = {.vm_id = vm_id, .type = type, .consistency = consistency, .name = name};
    snprintf(what.id, sizeof what.id, "%s%s", new_id_prefix, guid);
    if (type != RP_SNAPSHOT_PRODUCTION && type != RP_SNAPSHOT_RECOVERY)
        return rp_fail(err, RP_ERR_INVALID, "type %d of a checkpoint is unknown", (int)type);
    return create(rp_local_of(host), &what, result, err);
}

int rp_local_snapshot_create_point(struct rp_host_connection *host, const char *vm_id, enum rp_consistency consistency,
                                   const char *name, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    char guid[RP_GUID_TEXT];
    rp_local_take_id(rp_local_of(host), guid);
    struct request what = {.vm_id = vm_id, .type = RP_SNAPSHOT_RECOVERY, .consistency = consistency, .name = name};
    snprintf(what.point, sizeof what.point, "%s%s", new_id_prefix, guid);
    rp_local_new_id(guid);
    snprintf(what.id, sizeof what.id, "%s%s", new_id_prefix, guid);
    return create(rp_local_of(host), &what, result, err);
}

int rp_local_snapshot_list(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *snapshots, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *snapshots = (struct rp_snapshots){0};
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (rp_local_vm_load(local, vm_id, &vm, err))
        return -1;
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT id, name, type, consistency, time, state = 'merging', consistency_reason"
        " FROM snapshot WHERE vm = ? AND state <> 'creating' ORDER BY row",
        "i", vm.row);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        snapshots->items = rp_xrealloc(snapshots->items, (snapshots->count + 1) * sizeof *snapshots->items);
        struct rp_snapshot *s = &snapshots->items[snapshots->count++];
        *s = (struct rp_snapshot){
            .name = rp_xstrdup(rp_db_text(query, 1)),
            .type = (enum rp_snapshot_type)sqlite3_column_int64(query, 2),
            .consistency = (enum rp_consistency)sqlite3_column_int64(query, 3),
            .time_ns = sqlite3_column_int64(query, 4),
            .merging = sqlite3_column_int64(query, 5) != 0,
            .consistency_reason = *rp_db_text(query, 6) ? rp_xstrdup(rp_db_text(query, 6)) : NULL,
        };
        rp_db_copy(query, 0, s->id, sizeof s->id);
        memcpy(s->vm_id, vm.id, sizeof s->vm_id);
    }
    if (rc < 0)
        rp_snapshots_clear(snapshots);
    return rc;
}
