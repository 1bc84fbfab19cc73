// hostd.db: the jobs that this host remembers, and its own UUID. A job is written before it starts and when it has
// ended, durably both times (src/host/db.h says why the journal is truncated).
#include <stdio.h>
#include <string.h>

#include "host/db.h"
#include "hostd/core.h"

#define APPLICATION_ID 0x52504a31 // "RPJ1"
#define BUSY_MS 20000

struct rp_hostd_store {
    struct rp_db db;
    char uuid[RP_GUID_TEXT];
};

static const char schema[] =
    "CREATE TABLE host (uuid TEXT NOT NULL) STRICT;"
    // ended 0: begun and not ended; planned, result, target: jobs.c
    "CREATE TABLE job ("
    " id TEXT PRIMARY KEY, class TEXT NOT NULL, caption TEXT NOT NULL, owner TEXT NOT NULL, vm TEXT NOT NULL,"
    " target TEXT NOT NULL, planned TEXT NOT NULL, result TEXT NOT NULL, error TEXT NOT NULL, details TEXT NOT NULL,"
    " kind INTEGER NOT NULL, gone INTEGER NOT NULL, type INTEGER NOT NULL, state INTEGER NOT NULL,"
    " percent INTEGER NOT NULL, code INTEGER NOT NULL, submitted INTEGER NOT NULL, ended INTEGER NOT NULL)"
    " STRICT, WITHOUT ROWID;"
    "CREATE INDEX job_ended ON job (ended);";

void rp_hostd_row_clear(struct rp_hostd_row *row)
{
    free(row->class_name);
    free(row->caption);
    free(row->owner);
    free(row->vm_id);
    free(row->target);
    free(row->planned);
    free(row->error);
    free(row->details);
    *row = (struct rp_hostd_row){0};
}

static int execute(struct rp_db *db, const char *sql, struct rp_error *err)
{
    char *text = NULL;
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, &text);
    if (rc != SQLITE_OK)
        rp_fail(err, (rc & 0xff) == SQLITE_NOTADB || (rc & 0xff) == SQLITE_CORRUPT ? RP_ERR_CORRUPT : RP_ERR_IO,
                "%s: %s", db->path, text ? text : sqlite3_errstr(rc));
    sqlite3_free(text);
    return rc == SQLITE_OK ? 0 : -1;
}

// Ours, or new and made ours.
static int prepare(struct rp_hostd_store *store, struct rp_error *err)
{
    struct rp_db *db = &store->db;
    int64_t application = 0, tables = 0;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (execute(db, "PRAGMA trusted_schema=OFF; PRAGMA synchronous=FULL; PRAGMA journal_mode=TRUNCATE;", err) ||
        rp_transaction_begin(&t, db, err) || rp_db_number(db, err, &application, "PRAGMA application_id", "") ||
        rp_db_number(db, err, &tables, "SELECT count(*) FROM sqlite_schema", ""))
        return -1;
    if (!application && !tables) {
        char identify[80];
        struct rp_guid guid = rp_guid_new();
        rp_guid_format(&guid, store->uuid);
        snprintf(identify, sizeof identify, "PRAGMA application_id=%d; PRAGMA user_version=1;", APPLICATION_ID);
        if (execute(db, schema, err) || execute(db, identify, err) ||
            rp_db_run(db, err, "INSERT INTO host (uuid) VALUES (upper(?))", "t", store->uuid))
            return -1;
    } else if (application != APPLICATION_ID) {
        return rp_fail(err, RP_ERR_CORRUPT, "%s: a database of another program, not of refpoint-hostd", db->path);
    }
    RP_AUTO_QUERY *query = rp_db_query(db, err, "SELECT uuid FROM host", "");
    int rc = query ? rp_db_step(db, query, err) : -1;
    if (rc == 1)
        rp_db_copy(query, 0, store->uuid, sizeof store->uuid);
    sqlite3_finalize(query);
    query = NULL;
    return rc < 0 ? -1 : rp_transaction_commit(&t, err);
}

struct rp_hostd_store *rp_hostd_store_open(const char *path, struct rp_error *err)
{
    struct rp_hostd_store *store = rp_xcalloc(1, sizeof *store);
    store->db.path = rp_xstrdup(path);
    int rc = rp_db_create(path, err) ? SQLITE_CANTOPEN
                                     : sqlite3_open_v2(path, &store->db.handle,
                                                       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(store->db.handle, BUSY_MS);
        if (!prepare(store, err))
            return store;
    } else {
        rp_fail(err, RP_ERR_IO, "%s: %s", path, sqlite3_errstr(rc));
    }
    rp_hostd_store_close(store);
    return NULL;
}

void rp_hostd_store_close(struct rp_hostd_store *store)
{
    if (!store)
        return;
    sqlite3_close(store->db.handle);
    free(store->db.path);
    free(store);
}

const char *rp_hostd_store_uuid(const struct rp_hostd_store *store) { return store->uuid; }

int rp_hostd_store_add(struct rp_hostd_store *store, const struct rp_hostd_row *row, struct rp_error *err)
{
    return rp_db_run(
        &store->db, err,
        "INSERT INTO job (id, class, caption, owner, vm, target, planned, result, error, details, kind, gone,"
        " type, state, percent, code, submitted, ended)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, '', '', ?, ?, ?, ?, ?, 0, 0, ?, 0)",
        "ttttttttiiiii", row->id, row->class_name, row->caption, row->owner, row->vm_id, row->target, row->planned,
        row->details, (int64_t)row->kind, (int64_t)row->makes_gone, (int64_t)row->type, (int64_t)row->state,
        row->submitted);
}

int rp_hostd_store_end(struct rp_hostd_store *store, const struct rp_hostd_row *row, int64_t forget,
                       struct rp_error *err)
{
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, &store->db, err) ||
        rp_db_run(&store->db, err, "DELETE FROM job WHERE ended <> 0 AND ended < ?", "i", forget) ||
        rp_db_run(
            &store->db, err,
            "UPDATE job SET state = ?, percent = ?, result = ?, code = ?, error = ?, details = ?, ended = ?"
            " WHERE id = ?",
            "iitittit", (int64_t)row->state, (int64_t)row->percent, row->result, (int64_t)row->code, row->error,
            row->details, row->ended, row->id))
        return -1;
    return rp_transaction_commit(&t, err);
}

static void read_row(sqlite3_stmt *query, struct rp_hostd_row *row)
{
    *row = (struct rp_hostd_row){
        .class_name = rp_xstrdup(rp_db_text(query, 1)),
        .caption = rp_xstrdup(rp_db_text(query, 2)),
        .owner = rp_xstrdup(rp_db_text(query, 3)),
        .vm_id = rp_xstrdup(rp_db_text(query, 4)),
        .target = rp_xstrdup(rp_db_text(query, 5)),
        .planned = rp_xstrdup(rp_db_text(query, 6)),
        .error = rp_xstrdup(rp_db_text(query, 8)),
        .details = rp_xstrdup(rp_db_text(query, 9)),
        .kind = (enum rp_hostd_result)sqlite3_column_int64(query, 10),
        .makes_gone = sqlite3_column_int64(query, 11) != 0,
        .type = (uint16_t)sqlite3_column_int64(query, 12),
        .state = (uint16_t)sqlite3_column_int64(query, 13),
        .percent = (uint16_t)sqlite3_column_int64(query, 14),
        .code = (uint32_t)sqlite3_column_int64(query, 15),
        .submitted = sqlite3_column_int64(query, 16),
        .ended = sqlite3_column_int64(query, 17),
    };
    rp_db_copy(query, 0, row->id, sizeof row->id);
    rp_db_copy(query, 7, row->result, sizeof row->result);
}

int rp_hostd_store_load(struct rp_hostd_store *store, int64_t forget, struct rp_hostd_row **rows, size_t *count,
                        struct rp_error *err)
{
    *rows = NULL;
    *count = 0;
    if (rp_db_run(&store->db, err, "DELETE FROM job WHERE ended <> 0 AND ended < ?", "i", forget))
        return -1;
    RP_AUTO_QUERY *query = rp_db_query(
        &store->db, err,
        "SELECT id, class, caption, owner, vm, target, planned, result, error, details, kind, gone, type, state,"
        " percent, code, submitted, ended FROM job ORDER BY ended = 0, ended, submitted",
        "");
    int rc = query ? 1 : -1;
    size_t capacity = 0;
    while (rc > 0 && (rc = rp_db_step(&store->db, query, err)) == 1) {
        if (*count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            *rows = rp_xrealloc(*rows, capacity * sizeof **rows);
        }
        read_row(query, &(*rows)[(*count)++]);
    }
    if (!rc)
        return 0;
    for (size_t i = 0; i < *count; i++)
        rp_hostd_row_clear(&(*rows)[i]);
    free(*rows);
    *rows = NULL;
    return -1;
}
