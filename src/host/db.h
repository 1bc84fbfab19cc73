// The host's database: DIR/host.db. A thin skin over SQLite: typed binding, errors of ours, transactions that roll
// themselves back.
//
// Durability. synchronous=FULL with journal_mode=TRUNCATE: with these two a commit is durable when it returns, because
// the journal's truncation is synced (with DELETE the unlink is not, and a power cut could bring a committed intent
// back). Rather than WAL: no shared-memory file that a killed process leaves to others, and at rest the database is one
// file that an administrator may copy. The few transactions of a host do not need WAL's concurrency.
#ifndef RP_HOST_DB_H
#define RP_HOST_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

struct rp_db {
    sqlite3 *handle;
    char *path;
};

// Opens or creates; one of an older version is brought up to date. A file that is not ours, damaged, or of a newer version:
// RP_ERR_CORRUPT or _UNSUPPORTED, untouched.
// What is made is its owner's alone from the first byte on, as its journal is, which has its mode.
struct rp_db *rp_db_open(const char *path, struct rp_error *err);
// Such a file, still empty, unless there is one.
int rp_db_create(const char *path, struct rp_error *err);
void rp_db_close(struct rp_db *db); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_db, rp_db_close)

// A statement with its parameters. `types` has a letter per parameter: 't' const char * (NULL: SQL NULL), 'i' int64_t, 'b' const
// struct rp_buf *. Texts and bytes are copied. NULL on error.
sqlite3_stmt *rp_db_query(struct rp_db *db, struct rp_error *err, const char *sql, const char *types, ...);
RP_DEFINE_CLEANUP(sqlite3_stmt, sqlite3_finalize)
#define RP_AUTO_QUERY RP_CLEANUP(sqlite3_finalize_p) sqlite3_stmt
int rp_db_step(struct rp_db *db, sqlite3_stmt *query, struct rp_error *err); // 1 a row, 0 the end, -1 error
const char *rp_db_text(sqlite3_stmt *query, int column);                     // never NULL; valid until the next step
// Copies a text of bounded size ("" when it is longer: no such value was ever written by us).
void rp_db_copy(sqlite3_stmt *query, int column, char *out, size_t size);
// Runs a statement that returns no rows.
int rp_db_run(struct rp_db *db, struct rp_error *err, const char *sql, const char *types, ...);
// Puts the first column of the first row into `value`, which stays as it is when there is no row.
int rp_db_number(struct rp_db *db, struct rp_error *err, int64_t *value, const char *sql, const char *types, ...);
int64_t rp_db_last_row(struct rp_db *db);
// Changes with every commit of whatever process that changed something. Outside of a transaction.
int rp_db_version(struct rp_db *db, uint64_t *version, struct rp_error *err);

struct rp_transaction {
    struct rp_db *db;
};
// Several queries that see one state (between them nobody can write, so that it is short), ended by rp_transaction_end:
int rp_transaction_read(struct rp_transaction *transaction, struct rp_db *db, struct rp_error *err);
// A write transaction: waits for other writers up to 20 s (RP_ERR_BUSY). Without rp_transaction_commit it is undone:
// RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
int rp_transaction_begin(struct rp_transaction *transaction, struct rp_db *db, struct rp_error *err);
int rp_transaction_commit(struct rp_transaction *transaction, struct rp_error *err); // durable at return
void rp_transaction_end(struct rp_transaction *transaction);

#endif
