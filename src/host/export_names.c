// The names that an export makes. They are announced durably before the first of them is made, and what is written last
// says whether the export is whole: so a killed export is told from a finished one, and leaves nothing.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "host/internal.h"

// An export's lock, so that nobody takes a living one for a dead one: beyond the numbers of VMs.
#define LOCK(row) (((int64_t)1 << 40) + (row))

void rp_local_export_names_clear(struct rp_local_export_names *names)
{
    if (names->row)
        rp_lock_release(names->local->lock_fd, LOCK(names->row));
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i].path);
    free(names->root);
    free(names->definition);
    *names = (struct rp_local_export_names){0};
}

// A folder under its own name: no part of the path is a link.
static bool is_folder(const char *path)
{
    struct stat st;
    RP_AUTO_FREE char *real = realpath(path, NULL);
    return real && !strcmp(real, path) && !lstat(path, &st) && S_ISDIR(st.st_mode);
}

int rp_local_export_names_add(struct rp_local_export_names *names, const char *path, bool folder, struct rp_error *err)
{
    struct stat st;
    if (names->count == sizeof names->items / sizeof *names->items)
        return rp_fail(err, RP_ERR_INVALID, "%s: too many names in one export", path);
    if (!lstat(path, &st)) {
        if (folder && is_folder(path))
            return 0; // it stays, whatever becomes of the export
        return rp_fail(err, RP_ERR_EXISTS, "%s: is there already%s", path, folder ? ", and is no folder" : "");
    }
    if (errno != ENOENT)
        return rp_fail_sys(err, errno, "%s", path);
    names->items[names->count++] = (struct rp_local_export_name){rp_xstrdup(path), folder};
    return 0;
}

// A name that another export has announced becomes its file, or is deleted when it fails.
static int check_others(const struct rp_local_export_names *names, struct rp_error *err)
{
    for (size_t i = 0; i < names->count; i++) {
        const struct rp_local_export_name *name = &names->items[i];
        int64_t others = 0;
        if (!name->folder &&
            rp_db_number(names->local->db, err, &others, "SELECT count(*) FROM export_name WHERE NOT folder AND path = ?", "t",
                         name->path))
            return -1;
        if (others)
            return rp_fail(err, RP_ERR_EXISTS, "%s: another export is about to write it", name->path);
    }
    return 0;
}

int rp_local_export_names_announce(struct rp_local_export_names *names, struct rp_error *err)
{
    struct rp_local *local = names->local;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, local->db, err) || check_others(names, err) ||
        rp_db_run(local->db, err, "INSERT INTO export (definition) VALUES (?)", "t", names->definition))
        return -1;
    int64_t row = rp_db_last_row(local->db);
    for (size_t i = 0; i < names->count; i++)
        if (rp_db_run(local->db, err, "INSERT INTO export_name (export, folder, path) VALUES (?, ?, ?)", "iit", row,
                      (int64_t)names->items[i].folder, names->items[i].path))
            return -1;
    // Before anybody can see the row.
    int rc = rp_lock_take(local->lock_fd, LOCK(row), 0, err);
    if (rc != 1)
        return rc < 0 ? -1 : rp_fail(err, RP_ERR_BUSY, "%s: the lock of a new export is taken", names->root);
    names->row = row;
    return rp_transaction_commit(&t, err);
}

int rp_local_export_names_make_folders(struct rp_local_export_names *names, struct rp_error *err)
{
    for (size_t i = 0; i < names->count; i++) {
        const char *path = names->items[i].path;
        if (!names->items[i].folder)
            continue;
        const char *name;
        RP_AUTO_FD int parent = rp_path_open_parent(path, &name, err);
        if (parent < 0)
            return -1;
        if (mkdirat(parent, name, 0700) && errno != EEXIST)
            return rp_fail_sys(err, errno, "%s: create", path);
        if (!is_folder(path)) // made meanwhile by somebody else, as a link
            return rp_fail(err, RP_ERR_EXISTS, "%s: is there already, and is no folder", path);
        if (rp_fs_sync_parent(names->local->fs, path, err))
            return -1;
    }
    return 0;
}

void rp_local_export_names_disown(struct rp_local_export_names *names, const char *path)
{
    rp_db_run(names->local->db, NULL, "DELETE FROM export_name WHERE export = ? AND path = ?", "it", names->row, path);
}

static int remove_name(struct rp_local *local, const char *path, bool folder, struct rp_error *err)
{
    struct stat st;
    const char *name;
    if (lstat(path, &st))
        return errno == ENOENT || errno == ENOTDIR ? 0 : rp_fail_sys(err, errno, "%s", path);
    // What is behind a link that came meanwhile is not what we made.
    RP_AUTO_FD int parent = rp_path_open_parent(path, &name, err);
    if (parent < 0)
        return -1;
    if (unlinkat(parent, name, folder ? AT_REMOVEDIR : 0) && errno != ENOENT &&
        !(folder && (errno == ENOTEMPTY || errno == EEXIST)))
        return rp_fail_sys(err, errno, "%s: delete", path);
    return rp_fs_sync_parent(local->fs, path, err);
}

// The names of an export: files first, then folders from the inside out. Nobody else waits while they are removed.
static int load_names(struct rp_local *local, int64_t row, struct rp_local_export_name **names, size_t *count,
                      struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT path, folder FROM export_name WHERE export = ? ORDER BY folder, length(path) DESC", "i", row);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        *names = rp_xrealloc(*names, (*count + 1) * sizeof **names);
        (*names)[(*count)++] = (struct rp_local_export_name){rp_xstrdup(rp_db_text(query, 0)),
                                                             sqlite3_column_int64(query, 1) != 0};
    }
    return rc;
}

// Not there, or empty: as what a file system is mounted on.
static bool is_bare(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry = NULL;
    if (!dir)
        return errno == ENOENT || errno == ENOTDIR;
    while ((entry = readdir(dir)) && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")))
        ;
    closedir(dir);
    return !entry;
}

// `made`: their folders were there before them, and one that is bare may be a file system that is not mounted yet.
// 0 they are gone, 1 one may be there again, -1 error.
static int remove_names(struct rp_local *local, int64_t row, bool made, struct rp_error *err)
{
    RP_AUTO_FREE struct rp_local_export_name *names = NULL;
    size_t count = 0;
    int rc = load_names(local, row, &names, &count, err), hidden = 0;
    for (size_t i = 0; made && !rc && i < count; i++) { // before they are bare because of what is removed
        RP_AUTO_FREE char *folder = rp_path_directory(names[i].path);
        hidden |= is_bare(folder);
    }
    for (size_t i = 0; i < count; i++) {
        rc = rc ? rc : remove_name(local, names[i].path, names[i].folder, err);
        free(names[i].path);
    }
    return rc ? rc : hidden;
}

static int forget(struct rp_local *local, int64_t row, struct rp_error *err)
{
    return rp_db_run(local->db, err, "DELETE FROM export WHERE row = ?", "i", row);
}

int rp_local_export_names_end(struct rp_local_export_names *names, bool whole, struct rp_error *err)
{
    if (!names->row)
        return 0;
    return (!whole && remove_names(names->local, names->row, false, err)) || forget(names->local, names->row, err) ? -1
                                                                                                                   : 0;
}

// It is whole, or its names go; or it stays, as long as one of them cannot be seen.
static int end_dead(struct rp_local *local, int64_t row, struct rp_error *err)
{
    RP_AUTO_FREE char *definition = NULL;
    {
        RP_AUTO_QUERY *query = rp_db_query(local->db, err, "SELECT definition FROM export WHERE row = ?", "i", row);
        int rc = query ? rp_db_step(local->db, query, err) : -1;
        if (rc != 1) // ended meanwhile
            return rc;
        definition = rp_xstrdup(rp_db_text(query, 0));
    }
    struct stat st;
    if (lstat(definition, &st)) {
        if (errno != ENOENT && errno != ENOTDIR)
            return rp_fail_sys(err, errno, "%s", definition);
        int hidden = remove_names(local, row, !*definition, err);
        if (hidden)
            return hidden < 0 ? -1 : 0;
        rp_log(RP_LOG_INFO, "%s: removed what an interrupted %s had made",
               *definition ? definition : local->host.address, *definition ? "export" : "conversion");
    }
    return forget(local, row, err);
}

int rp_local_export_recover(struct rp_local *local, struct rp_error *err)
{
    int64_t last = 0;
    for (;;) {
        int64_t row = 0;
        if (rp_db_number(local->db, err, &row, "SELECT row FROM export WHERE row > ? ORDER BY row LIMIT 1", "i", last))
            return -1;
        if (!row)
            return 0;
        last = row;
        struct rp_error why = {0};
        if (rp_lock_take(local->lock_fd, LOCK(row), 0, NULL) != 1) // somebody is at work there
            continue;
        if (end_dead(local, row, &why))
            rp_log(RP_LOG_WARNING, "%s: what an interrupted export has left stays for now: %s", local->host.address,
                   why.text);
        rp_lock_release(local->lock_fd, LOCK(row));
    }
}
