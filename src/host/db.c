#include "host/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

#define APPLICATION_ID 0x52504831 // "RPH1", PRAGMA application_id
#define SCHEMA_VERSION 3
#define BUSY_MS 20000
#define CHANGE_COUNTER 24         // in the file: counts commits, of whatever process (sqlite.org/fileformat2.html 1.3.8)

// vm.row is also the number of the VM's lock (host/lock.h): AUTOINCREMENT, so that it is never used twice.
// State columns are the intents: whatever is not 'ready' was begun and is finished or undone by host/recover.c.
static const char first[] =
    "CREATE TABLE vm ("
    " row INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE COLLATE NOCASE,"
    " name TEXT NOT NULL,"
    " generation INTEGER NOT NULL,"
    " created INTEGER NOT NULL,"
    " controller TEXT NOT NULL,"
    " next_disk INTEGER NOT NULL,"
    " delete_disks INTEGER NOT NULL DEFAULT 0,"
    " state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'deleting'))) STRICT;"
    // The disks that a VM has. `path` is the root of what we may write: the converted file or the VHDX used in place.
    // Checkpoints put files above it, the leaf is in the chain record. Sizes: as last seen.
    "CREATE TABLE disk ("
    " vm INTEGER NOT NULL REFERENCES vm (row) ON DELETE CASCADE,"
    " number INTEGER NOT NULL,"
    " path TEXT NOT NULL UNIQUE,"
    " disk_id TEXT NOT NULL,"
    " own INTEGER NOT NULL,"
    " size INTEGER NOT NULL, logical INTEGER NOT NULL, physical INTEGER NOT NULL, block INTEGER NOT NULL,"
    " state TEXT NOT NULL CHECK (state IN ('adding', 'ready', 'removing')),"
    " PRIMARY KEY (vm, number)) STRICT;"
    // Parents below `disk.path` (a differencing disk used in place): several disks may share one, none may write it.
    "CREATE TABLE disk_parent ("
    " vm INTEGER NOT NULL, number INTEGER NOT NULL, path TEXT NOT NULL,"
    " PRIMARY KEY (vm, number, path),"
    " FOREIGN KEY (vm, number) REFERENCES disk (vm, number) ON DELETE CASCADE) STRICT;"
    // operation: of the checkpoint while 'creating', of the merge while 'merging'.
    "CREATE TABLE snapshot ("
    " row INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE COLLATE NOCASE,"
    " vm INTEGER NOT NULL REFERENCES vm (row) ON DELETE CASCADE,"
    " name TEXT NOT NULL,"
    " type INTEGER NOT NULL,"
    " consistency INTEGER NOT NULL,"
    " time INTEGER NOT NULL,"
    " operation TEXT NOT NULL,"
    " problem TEXT,"
    " state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'merging'))) STRICT;"
    // path: the frozen file; child: the file above it, which a merge puts into it.
    "CREATE TABLE snapshot_disk ("
    " snapshot INTEGER NOT NULL REFERENCES snapshot (row) ON DELETE CASCADE,"
    " number INTEGER NOT NULL,"
    " instance TEXT NOT NULL, disk_id TEXT NOT NULL,"
    " path TEXT NOT NULL, child TEXT NOT NULL,"
    " rct_id TEXT NOT NULL,"
    " size INTEGER NOT NULL, logical INTEGER NOT NULL, physical INTEGER NOT NULL, block INTEGER NOT NULL,"
    " PRIMARY KEY (snapshot, number)) STRICT;"
    "CREATE INDEX snapshot_disk_path ON snapshot_disk (path);"
    "CREATE TABLE reference_point ("
    " row INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE COLLATE NOCASE,"
    " vm INTEGER NOT NULL REFERENCES vm (row) ON DELETE CASCADE,"
    " name TEXT NOT NULL,"
    " time INTEGER NOT NULL) STRICT;"
    "CREATE TABLE reference_disk ("
    " point INTEGER NOT NULL REFERENCES reference_point (row) ON DELETE CASCADE,"
    " number INTEGER NOT NULL,"
    " instance TEXT NOT NULL, disk_id TEXT NOT NULL, rct_id TEXT NOT NULL,"
    " PRIMARY KEY (point, number)) STRICT;";

// What version 2 adds. An older database is brought up to date when it is opened; older programs refuse it then.
static const char second[] =
    "ALTER TABLE vm ADD COLUMN extras TEXT NOT NULL DEFAULT '';"
    // Its folder was there before it, with what an earlier VM of this id left: not everything in it is this VM's.
    "ALTER TABLE vm ADD COLUMN inherited INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE snapshot ADD COLUMN extras TEXT NOT NULL DEFAULT '';"
    // The id of the reference point that this checkpoint becomes as soon as it is there (CreateReferencePoint).
    "ALTER TABLE snapshot ADD COLUMN point TEXT;"
    // A checkpoint that is being applied: the fresh leaf above each of its frozen files. Done when the chain record names it.
    "CREATE TABLE applying ("
    " snapshot INTEGER NOT NULL REFERENCES snapshot (row) ON DELETE CASCADE,"
    " number INTEGER NOT NULL,"
    " leaf TEXT NOT NULL,"
    " PRIMARY KEY (snapshot, number)) STRICT;"
    // An export under way. Its lock is a number of its own (host/export.c). `definition` is written last: when it is there, the
    // export is whole. Otherwise the names go, files before folders.
    "CREATE TABLE export ("
    " row INTEGER PRIMARY KEY AUTOINCREMENT,"
    " definition TEXT NOT NULL) STRICT;"
    "CREATE TABLE export_name ("
    " export INTEGER NOT NULL REFERENCES export (row) ON DELETE CASCADE,"
    " folder INTEGER NOT NULL,"
    " path TEXT NOT NULL,"
    " PRIMARY KEY (export, path)) STRICT;"
    // Planned VMs: rows and nothing else until they are realized. A path may be of a file that is not there, or empty.
    "CREATE TABLE planned ("
    " row INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE COLLATE NOCASE,"
    " name TEXT NOT NULL,"
    " generation INTEGER NOT NULL,"
    " created INTEGER NOT NULL,"
    " controller TEXT NOT NULL,"
    " extras TEXT NOT NULL) STRICT;"
    "CREATE TABLE planned_disk ("
    " planned INTEGER NOT NULL REFERENCES planned (row) ON DELETE CASCADE,"
    " number INTEGER NOT NULL,"
    " instance TEXT NOT NULL UNIQUE COLLATE NOCASE,"
    " disk_id TEXT NOT NULL,"
    " path TEXT NOT NULL,"
    " size INTEGER NOT NULL, logical INTEGER NOT NULL, physical INTEGER NOT NULL, block INTEGER NOT NULL,"
    " PRIMARY KEY (planned, number)) STRICT;";

// What version 3 adds: VMs that a hypervisor runs (host/hypervisor.h).
static const char third[] =
    // URI and domain (UUID) of the hypervisor that runs its guest, '' for none; the domain's definition as it was before the VM
    // was adopted, and is again when it is released.
    "ALTER TABLE vm ADD COLUMN hypervisor TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE vm ADD COLUMN domain TEXT NOT NULL DEFAULT '' COLLATE NOCASE;"
    "ALTER TABLE vm ADD COLUMN domain_xml TEXT NOT NULL DEFAULT '';"
    // What its administrator should know: why its domain does not go on; disks of the domain that are not ours ('' none).
    "ALTER TABLE vm ADD COLUMN problem TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE vm ADD COLUMN unprotected TEXT NOT NULL DEFAULT '';"
    // Adoption gave the domain its iothread, and release takes it.
    "ALTER TABLE vm ADD COLUMN iothread INTEGER NOT NULL DEFAULT 0;"
    // Which disk of the domain is which of ours (<target dev=…>), and the image that it had before ('' when it came later).
    "CREATE TABLE domain_disk ("
    " vm INTEGER NOT NULL,"
    " number INTEGER NOT NULL,"
    " target TEXT NOT NULL,"
    " source TEXT NOT NULL,"
    " format TEXT NOT NULL,"
    // Of the image when the VM was adopted, '' unknown: whoever wrote to it since shall not lose that when it is released.
    " stamp TEXT NOT NULL DEFAULT '',"
    " PRIMARY KEY (vm, number),"
    " FOREIGN KEY (vm, number) REFERENCES disk (vm, number) ON DELETE CASCADE) STRICT;"
    // A VM in state 'deleting' that is being given back: its images, which are whole under a name of their own ('': it keeps its
    // VHDX) and take the place of `path`. The mark says which file that is, under either name.
    "CREATE TABLE releasing ("
    " vm INTEGER PRIMARY KEY REFERENCES vm (row) ON DELETE CASCADE) STRICT;"
    "CREATE TABLE releasing_disk ("
    " vm INTEGER NOT NULL REFERENCES releasing (vm) ON DELETE CASCADE,"
    " number INTEGER NOT NULL,"
    " part TEXT NOT NULL,"
    " path TEXT NOT NULL,"
    " format TEXT NOT NULL,"
    " mark TEXT NOT NULL,"
    " PRIMARY KEY (vm, number)) STRICT;"
    // Why the consistency of a checkpoint is not what was asked for; ''.
    "ALTER TABLE snapshot ADD COLUMN consistency_reason TEXT NOT NULL DEFAULT '';"
    // What an administrator has set for this host (local.h); what is not there is as it was before there was the setting.
    "CREATE TABLE setting ("
    " name TEXT PRIMARY KEY,"
    " value TEXT NOT NULL) STRICT;"
    // The firmware's and the TPM's state at a checkpoint: kind 'nvram' or 'tpm', name of a file in it.
    "CREATE TABLE snapshot_state ("
    " snapshot INTEGER NOT NULL REFERENCES snapshot (row) ON DELETE CASCADE,"
    " kind TEXT NOT NULL, name TEXT NOT NULL, content BLOB NOT NULL,"
    " PRIMARY KEY (snapshot, kind, name)) STRICT;";

// Whoever has a file is found without looking at every VM (image.c). An index changes nothing that an older program would
// have to know of: no version.
static const char indexes[] =
    "CREATE INDEX IF NOT EXISTS disk_identity ON disk (disk_id);"
    "CREATE INDEX IF NOT EXISTS snapshot_disk_identity ON snapshot_disk (disk_id);"
    "CREATE INDEX IF NOT EXISTS snapshot_disk_child ON snapshot_disk (child);"
    "CREATE INDEX IF NOT EXISTS disk_parent_path ON disk_parent (path);";

static int fail(struct rp_db *db, int rc, const char *what, struct rp_error *err)
{
    enum rp_code code;
    switch (rc & 0xff) {
    case SQLITE_BUSY: case SQLITE_LOCKED: code = RP_ERR_BUSY; break;
    case SQLITE_CORRUPT: case SQLITE_NOTADB: case SQLITE_FORMAT: code = RP_ERR_CORRUPT; break;
    case SQLITE_FULL: code = RP_ERR_NO_SPACE; break;
    case SQLITE_READONLY: case SQLITE_PERM: case SQLITE_AUTH: code = RP_ERR_PERMISSION; break;
    case SQLITE_CONSTRAINT: code = RP_ERR_EXISTS; break;
    case SQLITE_NOMEM: code = RP_ERR_NO_MEMORY; break;
    default: code = RP_ERR_IO;
    }
    return rp_fail(err, code, "%s: %s: %s", db->path, what, db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc));
}

static int execute(struct rp_db *db, const char *sql, struct rp_error *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail(db, rc, "the host's database", err);
}

// Whose database this is, before anything in it is changed: its version, 0 an empty file, -1 error.
static int whose(struct rp_db *db, struct rp_error *err)
{
    int64_t application = 0, version = 0, tables = 0;
    if (rp_db_number(db, err, &application, "PRAGMA application_id", "") ||
        rp_db_number(db, err, &version, "PRAGMA user_version", "") ||
        rp_db_number(db, err, &tables, "SELECT count(*) FROM sqlite_schema", ""))
        return -1;
    if (application == 0 && version == 0 && tables == 0)
        return 0;
    if (application != APPLICATION_ID)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: a database of another program, not of a refpoint host", db->path);
    if (version < 1 || version > SCHEMA_VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: version %lld of the host's database; this program knows versions up to %d",
                       db->path, (long long)version, SCHEMA_VERSION);
    return (int)version;
}

// Inside a transaction: whatever version it is of becomes ours.
static int bring_up_to_date(struct rp_db *db, int version, struct rp_error *err)
{
    char identify[80];
    snprintf(identify, sizeof identify, "PRAGMA application_id=%d; PRAGMA user_version=%d;", APPLICATION_ID, SCHEMA_VERSION);
    return (version < 1 && execute(db, first, err)) || (version < 2 && execute(db, second, err)) ||
                   (version < 3 && execute(db, third, err)) || execute(db, identify, err) ? -1 : 0;
}

static int check_or_create(struct rp_db *db, struct rp_error *err)
{
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (whose(db, err) < 0 || execute(db, "PRAGMA journal_mode=TRUNCATE", err) || rp_transaction_begin(&t, db, err))
        return -1;
    int version = whose(db, err); // again: another process may have made it meanwhile
    if (version < 0)
        return -1;
    if (version > 0) {
        RP_AUTO_QUERY *check = rp_db_query(db, err, "PRAGMA quick_check(1)", "");
        int rc = check ? rp_db_step(db, check, err) : -1;
        if (rc < 0)
            return -1;
        if (rc == 0 || strcmp(rp_db_text(check, 0), "ok"))
            return rp_fail(err, RP_ERR_CORRUPT, "%s: the host's database is damaged: %.200s", db->path, rp_db_text(check, 0));
    }
    if ((version < SCHEMA_VERSION && bring_up_to_date(db, version, err)) || execute(db, indexes, err))
        return -1;
    return rp_transaction_commit(&t, err);
}

int rp_db_create(const char *path, struct rp_error *err)
{
    // Only ever of a file that is new: closing a descriptor of another one would drop SQLite's locks on it (fcntl(2)).
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno != EEXIST)
        return rp_fail_sys(err, errno, "%s: create", path);
    if (fd >= 0)
        close(fd);
    return 0;
}

struct rp_db *rp_db_open(const char *path, struct rp_error *err)
{
    RP_CLEANUP(rp_db_close_p) struct rp_db *db = rp_xcalloc(1, sizeof *db);
    db->path = rp_xstrdup(path);
    if (rp_db_create(path, err))
        return NULL;
    int rc = sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, NULL);
    if (rc != SQLITE_OK) {
        fail(db, rc, "open the host's database", err);
        return NULL;
    }
    sqlite3_busy_timeout(db->handle, BUSY_MS);
    // trusted_schema: a foreign file must not run functions of its own through views or triggers.
    if (execute(db, "PRAGMA trusted_schema=OFF; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;", err) || check_or_create(db, err))
        return NULL;
    struct rp_db *result = db;
    db = NULL;
    return result;
}

void rp_db_close(struct rp_db *db)
{
    if (!db)
        return;
    sqlite3_close(db->handle);
    free(db->path);
    free(db);
}

static sqlite3_stmt *prepare(struct rp_db *db, struct rp_error *err, const char *sql, const char *types, va_list args)
{
    sqlite3_stmt *query = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &query, NULL);
    for (int i = 0; rc == SQLITE_OK && types[i]; i++) {
        if (types[i] == 't')
            rc = sqlite3_bind_text(query, i + 1, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        else if (types[i] == 'b') {
            const struct rp_buf *bytes = va_arg(args, const struct rp_buf *);
            rc = sqlite3_bind_blob64(query, i + 1, bytes->size ? (const void *)bytes->data : "", bytes->size, SQLITE_TRANSIENT);
        } else
            rc = sqlite3_bind_int64(query, i + 1, va_arg(args, int64_t));
    }
    if (rc == SQLITE_OK)
        return query;
    fail(db, rc, "query", err);
    sqlite3_finalize(query);
    return NULL;
}

sqlite3_stmt *rp_db_query(struct rp_db *db, struct rp_error *err, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *query = prepare(db, err, sql, types, args);
    va_end(args);
    return query;
}

int rp_db_step(struct rp_db *db, sqlite3_stmt *query, struct rp_error *err)
{
    int rc = sqlite3_step(query);
    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : fail(db, rc, "query", err);
}

const char *rp_db_text(sqlite3_stmt *query, int column)
{
    const char *text = (const char *)sqlite3_column_text(query, column);
    return text ? text : "";
}

void rp_db_copy(sqlite3_stmt *query, int column, char *out, size_t size)
{
    const char *text = rp_db_text(query, column);
    snprintf(out, size, "%s", strlen(text) < size ? text : "");
}

int rp_db_run(struct rp_db *db, struct rp_error *err, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    RP_AUTO_QUERY *query = prepare(db, err, sql, types, args);
    va_end(args);
    return query && rp_db_step(db, query, err) >= 0 ? 0 : -1;
}

int rp_db_number(struct rp_db *db, struct rp_error *err, int64_t *value, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    RP_AUTO_QUERY *query = prepare(db, err, sql, types, args);
    va_end(args);
    int rc = query ? rp_db_step(db, query, err) : -1;
    if (rc == 1)
        *value = sqlite3_column_int64(query, 0);
    return rc < 0 ? -1 : 0;
}

int64_t rp_db_last_row(struct rp_db *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

int rp_db_version(struct rp_db *db, uint64_t *version, struct rp_error *err)
{
    // Inside a read transaction nobody is in the middle of a commit, and a journal that a killed process left has been rolled
    // back: a number that was read can only come again with the content that it had.
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    int64_t tables = 0;
    if (rp_transaction_read(&t, db, err) || rp_db_number(db, err, &tables, "SELECT count(*) FROM sqlite_schema", ""))
        return -1;
    // Through SQLite's own descriptor: closing another one of the file would drop its locks (fcntl(2)).
    sqlite3_file *file = NULL;
    uint8_t counter[4];
    int rc = sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    if (rc == SQLITE_OK)
        rc = file && file->pMethods ? file->pMethods->xRead(file, counter, sizeof counter, CHANGE_COUNTER) : SQLITE_IOERR;
    if (rc != SQLITE_OK)
        return fail(db, rc, "change counter", err);
    *version = (uint64_t)counter[0] << 24 | (uint64_t)counter[1] << 16 | (uint64_t)counter[2] << 8 | counter[3];
    return 0;
}

int rp_transaction_read(struct rp_transaction *transaction, struct rp_db *db, struct rp_error *err)
{
    if (execute(db, "BEGIN", err))
        return -1;
    transaction->db = db;
    return 0;
}

int rp_transaction_begin(struct rp_transaction *transaction, struct rp_db *db, struct rp_error *err)
{
    if (execute(db, "BEGIN IMMEDIATE", err))
        return -1;
    transaction->db = db;
    return 0;
}

int rp_transaction_commit(struct rp_transaction *transaction, struct rp_error *err)
{
    if (execute(transaction->db, "COMMIT", err))
        return -1; // the caller's rp_transaction_end rolls back
    transaction->db = NULL;
    return 0;
}

void rp_transaction_end(struct rp_transaction *transaction)
{
    if (transaction->db && !sqlite3_get_autocommit(transaction->db->handle))
        sqlite3_exec(transaction->db->handle, "ROLLBACK", NULL, NULL, NULL);
    transaction->db = NULL;
}
