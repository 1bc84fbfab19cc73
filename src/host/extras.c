// Settings that this host keeps for others.
#include <stdlib.h>
#include <string.h>

#include "base/utf16.h"
#include "host/internal.h"
#include "host/local.h"

int rp_local_extras_check(const char *text, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    if (strlen(text) > RP_LOCAL_EXTRAS_MAX)
        return rp_fail(err, RP_ERR_INVALID, "settings of %zu bytes, at most %zu are kept", strlen(text),
                       RP_LOCAL_EXTRAS_MAX);
    if (rp_utf16_append(&utf16, text, NULL))
        return rp_fail(err, RP_ERR_INVALID, "settings that are not valid UTF-8");
    return 0;
}

int rp_host_local_extras(struct rp_host_connection *host, const char *id, char **text, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *text = NULL;
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT extras FROM vm WHERE id = ?1 AND state = 'ready' UNION ALL SELECT extras FROM planned WHERE id = ?1"
        " UNION ALL SELECT extras FROM snapshot WHERE id = ?1 AND state <> 'creating'", "t", id);
    int rc = query ? rp_db_step(local->db, query, err) : -1;
    if (rc < 0)
        return -1;
    if (rc == 0)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no VM or checkpoint %s", host->address, id);
    *text = rp_xstrdup(rp_db_text(query, 0));
    return 0;
}

int rp_host_local_set_extras(struct rp_host_connection *host, const char *vm_id, const char *text, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    if (rp_local_extras_check(text, err) ||
        rp_db_run(local->db, err, "UPDATE vm SET extras = ? WHERE id = ? AND state = 'ready'", "tt", text, vm_id))
        return -1;
    if (sqlite3_changes(local->db->handle))
        return 0;
    if (rp_db_run(local->db, err, "UPDATE planned SET extras = ? WHERE id = ?", "tt", text, vm_id))
        return -1;
    return sqlite3_changes(local->db->handle) ? 0 : rp_local_not_found(local, vm_id, err);
}

void rp_host_local_next_extras(struct rp_host_connection *host, const char *text)
{
    struct rp_local *local = rp_local_of(host);
    free(local->next_extras);
    local->next_extras = text ? rp_xstrdup(text) : NULL;
}
