// Which VM a disk file belongs to: for those who are asked to change files (rp_host_local_file_user).
#include <string.h>
#include <sys/stat.h>

#include "host/internal.h"
#include "host/local.h"

static bool same_file(const struct stat *st, const char *path)
{
    struct stat other;
    return !stat(path, &other) && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

int rp_host_local_file_user(struct rp_host_connection *host, const char *path, char vm_id[RP_GUID_TEXT], bool *written,
                            struct rp_error *err)
{
    struct rp_db *db = rp_local_of(host)->db;
    struct stat st;
    vm_id[0] = '\0';
    *written = false;
    bool there = !stat(path, &st);
    // Roots, files that checkpoints made above them, parents below them; those that are written first.
    RP_AUTO_QUERY *query = rp_db_query(db, err,
                                       "SELECT d.path, v.id, 1 FROM disk d JOIN vm v ON v.row = d.vm"
                                       " UNION ALL SELECT sd.path, v.id, 1 FROM snapshot_disk sd JOIN snapshot s ON "
                                       "s.row = sd.snapshot JOIN vm v ON v.row = s.vm"
                                       " UNION ALL SELECT sd.child, v.id, 1 FROM snapshot_disk sd JOIN snapshot s ON "
                                       "s.row = sd.snapshot JOIN vm v ON v.row = s.vm"
                                       " UNION ALL SELECT p.path, v.id, 0 FROM disk_parent p JOIN vm v ON v.row = p.vm",
                                       "");
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(db, query, err)) == 1) {
        const char *used = rp_db_text(query, 0);
        if (strcmp(used, path) && !(there && same_file(&st, used)))
            continue;
        rp_db_copy(query, 1, vm_id, RP_GUID_TEXT);
        *written = sqlite3_column_int64(query, 2) != 0;
        return 1;
    }
    return rc;
}
