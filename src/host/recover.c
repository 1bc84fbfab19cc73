// What a killed process left over: every row whose state is not 'ready', and every announcement, is finished or undone.
#include <string.h>

#include "base/log.h"
#include "host/internal.h"

int rp_local_recover_vm(struct rp_local_vm *vm, struct rp_error *err)
{
    if (strcmp(vm->state, "ready")) {
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
