// What a killed process left over: every row whose state is not 'ready', and every announcement, is finished or undone.
#include <string.h>

#include "base/log.h"
#include "host/adopt.h"
#include "host/domain.h"
#include "host/internal.h"
#include "host/local.h"

// Of a VM in state 'creating' or 'deleting'. 1: it is 'ready', 0: the rest of it is to go, -1 error.
static int recover_domain(struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_error why = {0};
    int64_t adopting = 0, releasing = 0;
    if (!rp_local_domain_is(vm))
        return 0;
    if (rp_db_number(vm->local->db, err, &adopting, "SELECT state = 'creating' AND domain_xml <> '' FROM vm WHERE row = ?", "i", vm->row) ||
        rp_db_number(vm->local->db, err, &releasing, "SELECT count(*) FROM releasing WHERE vm = ?", "i", vm->row))
        return -1;
    if (adopting)
        return rp_adopt_settle(vm, true, err);
    int done = releasing ? rp_release_finish(vm, &why, err) : 1;
    if (!done)
        rp_log(RP_LOG_WARNING, "%s", why.text);
    return done < 0 ? -1 : !done;
}

int rp_local_recover_vm(struct rp_local_vm *vm, struct rp_error *err)
{
    int kept = strcmp(vm->state, "ready") ? recover_domain(vm, err) : 1;
    if (kept < 0)
        return -1;
    if (kept && strcmp(vm->state, "ready") && rp_local_vm_load_row(vm->local, vm->row, vm, err) != 1)
        return -1;
    if (!kept) {
        if (rp_local_system_recover(vm, err))
            return -1;
        vm->state[0] = '\0';
        return 0;
    }
    return rp_local_disk_recover(vm, err) || rp_local_snapshot_recover(vm, err) || rp_local_apply_recover(vm, err) ? -1 : 0;
}

int rp_local_recover_all(struct rp_local *local, bool merge, struct rp_error *err)
{
    RP_AUTO_FREE int64_t *rows = NULL;
    size_t count = 0;
    {
        RP_AUTO_QUERY *query = rp_db_query(local->db, err,
            "SELECT row FROM vm WHERE state <> 'ready'"
            " UNION SELECT vm FROM disk WHERE state <> 'ready'"
            " UNION SELECT vm FROM snapshot WHERE state <> 'ready'"
            " UNION SELECT s.vm FROM applying a JOIN snapshot s ON s.row = a.snapshot ORDER BY 1", "");
        int rc = query ? 1 : -1;
        while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
            rows = rp_xrealloc(rows, (count + 1) * sizeof *rows);
            rows[count++] = sqlite3_column_int64(query, 0);
        }
        if (rc < 0)
            return -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (local->host.progress && local->host.progress(local->host.progress_context, i, count))
            return rp_fail(err, RP_ERR_CANCELLED, "%s: what was interrupted is finished another time", local->host.address);
        // A lock that is taken: somebody is at work there, and will finish or leave it to the next.
        if (rp_lock_take(local->lock_fd, rows[i], 0, err) != 1)
            continue;
        RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {.local = local, .locked = true, .row = rows[i]};
        struct rp_error why = {0};
        if (rp_local_vm_load_row(local, rows[i], &vm, &why) == 1 && !rp_local_recover_vm(&vm, &why) && vm.state[0])
            rp_local_merge_advance(&vm, merge, &why);
        // One broken VM must not keep the administrator from all others.
        if (why.code)
            rp_log(RP_LOG_WARNING, "%s: VM %s: finish what was interrupted: %s", local->host.address, vm.id, why.text);
    }
    return rp_local_export_recover(local, err);
}

// A merge goes on by itself: it is no reason.
int rp_host_local_is_unfinished(struct rp_host_connection *host, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT row FROM vm WHERE state <> 'ready'"
        " UNION SELECT vm FROM disk WHERE state <> 'ready'"
        " UNION SELECT vm FROM snapshot WHERE state = 'creating'"
        " UNION SELECT s.vm FROM applying a JOIN snapshot s ON s.row = a.snapshot", "");
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1)
        if (!rp_lock_is_taken(local->lock_fd, sqlite3_column_int64(query, 0)))
            return 1;
    return rc;
}

int rp_host_local_recover(struct rp_host_connection *host, struct rp_error *err)
{
    return rp_local_recover_all(rp_local_of(host), false, err);
}
