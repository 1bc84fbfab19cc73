#include "verify.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/backup.h"
#include "backup/restore.h"
#include "base/log.h"
#include "base/num.h"
#include "disk/chain.h"
#include "host/local.h"
#include "scenario.h"

struct look {
    const struct verify *v;
    struct rp_host_connection *host;
    struct rp_vm vm;
    struct rp_vm_settings settings;
    uint32_t *values[MAX_DISKS]; // what the disks hold
    uint64_t sizes[MAX_DISKS];
    struct rp_error err;
    char *wrong;
    size_t room;
};

static int bad(struct look *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int bad(struct look *l, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(l->wrong, l->room, format, list);
    va_end(list);
    return 1;
}
#define TRY(call) do { if (call) return bad(l, "%s: %s", #call, l->err.text); } while (0)
#define SAME(call) do { if (call) return 1; } while (0)

// ---- reading --------------------------------------------------------------------------------------------------------

struct reading {
    struct look *l;
    struct rp_vhdx *vhdx;
    uint32_t number;
    uint32_t *values;
};

static int read_extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    enum { PIECE = 1 << 20 };
    struct reading *r = context;
    struct look *l = r->l;
    static uint8_t data[PIECE];
    for (uint64_t end = offset + length; state == RP_VHDX_DATA && offset < end; offset += PIECE) {
        uint32_t piece = (uint32_t)rp_min64(end - offset, PIECE);
        TRY(rp_vhdx_read(r->vhdx, data, piece, offset, &l->err));
        content_values(data, r->number, offset, piece, r->values + offset / SECTOR);
    }
    return 0;
}

static int read_disk(struct look *l, uint32_t number, const char *path, uint32_t **values, uint64_t *size)
{
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    TRY(rp_chain_open(rp_fs_posix(), path, &chain, &l->err));
    *size = rp_vhdx_info(chain.layers[0])->size;
    free(*values);
    *values = rp_xcalloc(*size / SECTOR + 1, sizeof **values);
    struct reading reading = {l, chain.layers[0], number, *values};
    int failed = rp_vhdx_chain_extents(chain.layers[0], 0, *size, read_extent, &reading, &l->err);
    return failed < 0 ? bad(l, "extents of %s: %s", path, l->err.text) : failed;
}

static int check_disks(struct look *l, const struct rp_vm_settings *settings)
{
    const struct oracle *o = l->v->oracle;
    if (settings->disk_count != o->disk_count)
        return bad(l, "the VM has %zu disks, made with %zu", settings->disk_count, o->disk_count);
    for (size_t i = 0; i < settings->disk_count; i++) {
        const struct rp_vm_disk *disk = &settings->disks[i];
        uint32_t n = disk->number;
        if (n >= o->disk_count)
            return bad(l, "there is a disk%u", n);
        SAME(read_disk(l, n, disk->path, &l->values[n], &l->sizes[n]));
        if (l->sizes[n] != disk->size || !oracle_size_possible(o, n, disk->size, l->v->at))
            return bad(l, "disk%u is %llu bytes large (its file: %llu)", n, (unsigned long long)disk->size, (unsigned long long)l->sizes[n]);
        const char *wrong = l->v->clean ? oracle_check_now(o, n, l->values[n], l->sizes[n], l->v->at)
                                        : oracle_check_cut(o, n, l->values[n], l->sizes[n], l->v->at);
        if (wrong)
            return bad(l, "%s", wrong);
    }
    return 0;
}

// ---- reference points -----------------------------------------------------------------------------------------------

static bool unit_differs(const uint32_t *now, uint64_t size, const struct point_map *then, uint64_t unit)
{
    for (uint64_t s = unit * (UNIT / SECTOR); s < (unit + 1) * (UNIT / SECTOR) && s < size / SECTOR; s++)
        if (now[s] != (s < then->size / SECTOR ? then->values[s] : VALUE_ZERO))
            return true;
    return false;
}

static int check_changes(struct look *l, const struct point *point, uint32_t n, const struct rp_ranges *ranges)
{
    const struct point_map *then = &point->disks[n];
    uint64_t size = l->sizes[n], units = (size + UNIT - 1) / UNIT;
    RP_AUTO_FREE uint8_t *told = rp_xcalloc(units + 1, 1), *may = rp_xcalloc(units + 1, 1);
    for (size_t i = 0; i < ranges->count; i++)
        for (uint64_t u = ranges->items[i].offset / UNIT; u < units && u * UNIT < ranges->items[i].offset + ranges->items[i].length; u++)
            told[u] = 1;
    for (uint64_t u = 0; u < units; u++)
        if (!told[u] && unit_differs(l->values[n], size, then, u))
            return bad(l, "disk%u: unit %llu changed since %s (point %.12s), and is not among its changes", n, (unsigned long long)u,
                       then->rct_id, point->id);
    oracle_may_tell(l->v->oracle, n, point->span.begin, l->v->at, !l->v->clean, may, units);
    uint64_t count = 0, too_many = 0, first = 0;
    for (uint64_t u = 0; u < units; u++) {
        bool odd = told[u] && !may[u] && u * UNIT < then->size;
        first = odd && !too_many ? u : first;
        too_many += odd;
        count += told[u];
    }
    if (too_many)
        return bad(l, "disk%u: %llu of %llu units that changed since %s (point %.12s), the first %llu, are too many: nobody was near them", n,
                   (unsigned long long)too_many, (unsigned long long)count, then->rct_id, point->id, (unsigned long long)first);
    return 0;
}

// Every id that was given away answers, as the next backup would ask.
static int check_ids(struct look *l, const struct rp_vm_settings *frozen)
{
    const struct oracle *o = l->v->oracle;
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points list = {0};
    TRY(l->host->ops->list_reference_points(l->host, l->vm.id, &list, &l->err));
    for (size_t i = 0; i < list.count; i++)
        for (size_t d = 0; d < list.items[i].disk_count; d++) {
            const struct rp_vm_disk *disk = NULL;
            for (size_t k = 0; k < frozen->disk_count; k++)
                if (!strcmp(frozen->disks[k].instance, list.items[i].disks[d].instance))
                    disk = &frozen->disks[k];
            if (!disk)
                return bad(l, "reference point %s: its disk %s is not there", list.items[i].id, list.items[i].disks[d].instance);
            RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
            if (rp_host_all_changes(l->host, disk->path, list.items[i].disks[d].rct_id, disk->size, &ranges, &l->err))
                return bad(l, "reference point %s: %s", list.items[i].id, l->err.text);
            for (size_t p = 0; p < o->point_count; p++)
                if (o->points[p].disks[disk->number].values && !strcmp(o->points[p].disks[disk->number].rct_id, list.items[i].disks[d].rct_id))
                    SAME(check_changes(l, &o->points[p], disk->number, &ranges));
        }
    // Each moment of a backup leaves the base of the next one in place.
    const struct span *last = NULL;
    for (size_t i = 0; i < o->point_count; i++)
        if (o->points[i].span.end < l->v->at)
            last = &o->points[i].span;
    if (last && !list.count)
        return bad(l, "no reference point is left, and a backup had made one");
    return 0;
}

// ---- checkpoints ----------------------------------------------------------------------------------------------------

static int check_frozen(struct look *l, const char *id, const struct checkpoint *c)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    uint32_t *values[MAX_DISKS] = {0};
    uint64_t sizes[MAX_DISKS] = {0};
    TRY(l->host->ops->snapshot_settings(l->host, id, &settings, &l->err));
    int failed = 0;
    for (size_t i = 0; i < settings.disk_count && !failed; i++)
        failed = read_disk(l, settings.disks[i].number, settings.disks[i].path, &values[settings.disks[i].number],
                           &sizes[settings.disks[i].number]);
    const char *wrong = failed ? NULL : oracle_check_moment(l->v->oracle, (const uint32_t *const *)values, sizes, c->made);
    if (wrong)
        failed = bad(l, "checkpoint %s: %s", c->name, wrong);
    for (size_t i = 0; i < MAX_DISKS; i++)
        free(values[i]);
    return failed;
}

static int check_checkpoints(struct look *l)
{
    const struct oracle *o = l->v->oracle;
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    TRY(l->host->ops->list_snapshots(l->host, l->vm.id, &list, &l->err));
    uint64_t random = l->v->seed;
    for (size_t i = 0; i < o->checkpoint_count; i++) {
        const struct checkpoint *c = &o->checkpoints[i];
        const struct rp_snapshot *found = NULL;
        for (size_t k = 0; k < list.count; k++)
            if (!strcmp(list.items[k].name, c->name))
                found = &list.items[k];
        bool must = c->made.end < l->v->at && c->deleted.begin >= l->v->at;
        if (must && (!found || found->merging))
            return bad(l, "checkpoint %s is %s", c->name, found ? "being merged" : "gone");
        if (found && (c->made.begin >= l->v->at || c->deleted.end < l->v->at))
            return bad(l, "checkpoint %s is there, and was deleted", c->name);
        if (must && draw(&random) % 3 == 0)
            SAME(check_frozen(l, found->id, c));
    }
    return 0;
}

// ---- orphans --------------------------------------------------------------------------------------------------------

static bool is_kept(const char *name)
{
    static const char *const names[] = {".", "..", "chain.record", "vm.lock", "control.sock", "nbd.sock", "service.log", "service.pid"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

// Where calls failed, a leaf can be put aside that perhaps holds something (docs/formats/chain-record.md).
static bool is_put_aside(const struct look *l, const char *name)
{
    return atomic_load(&l->v->oracle->log->header->faults) && strstr(name, ".avhdx.lost");
}

static int check_orphans(struct look *l)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    RP_AUTO_FREE char *folder = rp_xasprintf("%s/host/vms/%s", l->v->root, l->vm.id);
    char known[64][NAME_MAX + 1];
    size_t count = 0;
    TRY(l->host->ops->vm_settings(l->host, l->vm.id, &settings, &l->err));
    for (size_t i = 0; i < settings.disk_count; i++) {
        // A running service has the leaf locked.
        RP_AUTO_FREE char *next = rp_xstrdup(settings.disks[i].path);
        while (next && count < sizeof known / sizeof *known) {
            RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *file = rp_vhdx_look(rp_fs_posix(), next, &l->err);
            TRY(!file);
            snprintf(known[count++], sizeof *known, "%s", rp_path_name(next));
            free(next);
            next = rp_vhdx_info(file)->has_parent ? rp_xstrdup(rp_vhdx_info(file)->parent_path) : NULL;
        }
    }
    DIR *dir = opendir(folder);
    char orphan[NAME_MAX + 1] = "";
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        bool found = is_kept(entry->d_name) || is_put_aside(l, entry->d_name);
        size_t length = strlen(entry->d_name);
        if (length > 4 && (!strcmp(entry->d_name + length - 4, ".rct") || !strcmp(entry->d_name + length - 4, ".mrt")))
            length -= 4;
        for (size_t i = 0; i < count && !found; i++)
            found = strlen(known[i]) == length && !strncmp(known[i], entry->d_name, length);
        if (!found)
            snprintf(orphan, sizeof orphan, "%s", entry->d_name);
    }
    if (dir)
        closedir(dir);
    return !dir ? bad(l, "%s: %s", folder, strerror(errno)) : *orphan ? bad(l, "orphan %s/%s", folder, orphan) : 0;
}

static int check_folders(struct look *l, const struct rp_vms *vms)
{
    RP_AUTO_FREE char *folder = rp_xasprintf("%s/host/vms", l->v->root);
    DIR *dir = opendir(folder);
    char orphan[NAME_MAX + 1] = "";
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        bool found = entry->d_name[0] == '.';
        for (size_t i = 0; i < vms->count && !found; i++)
            found = !strcmp(vms->items[i].id, entry->d_name);
        if (!found)
            snprintf(orphan, sizeof orphan, "%s", entry->d_name);
    }
    if (dir)
        closedir(dir);
    return *orphan ? bad(l, "orphan folder %s/%s", folder, orphan) : 0;
}

// A row that is an intent: nobody is at it, so there is none.
static int check_rows(struct look *l)
{
    static const char intents[] =
        "SELECT 'VM ' || name || ' ' || state FROM vm WHERE state <> 'ready' UNION ALL "
        "SELECT 'disk ' || path || ' ' || state FROM disk WHERE state <> 'ready' UNION ALL "
        "SELECT 'checkpoint ' || name || ' ' || state FROM snapshot WHERE state <> 'ready' UNION ALL "
        "SELECT 'a fresh leaf, ' || leaf FROM applying UNION ALL SELECT 'an export, ' || definition FROM export UNION ALL "
        "SELECT 'a planned VM, ' || name FROM planned";
    RP_AUTO_FREE char *path = rp_xasprintf("%s/host/host.db", l->v->root);
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    int failed = 0;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) || sqlite3_prepare_v2(db, intents, -1, &statement, NULL))
        failed = bad(l, "%s: %s", path, sqlite3_errmsg(db));
    else if (sqlite3_step(statement) != SQLITE_DONE)
        failed = bad(l, "%s: left is %s", path, sqlite3_column_count(statement) ? (const char *)sqlite3_column_text(statement, 0) : "?");
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return failed;
}

int verify_memory_of(const char *vm_directory, char *path, size_t room)
{
    struct stat st;
    if (stat(vm_directory, &st))
        return -1;
    snprintf(path, room, "/dev/shm/refpoint-%u/%llx-%llx", (unsigned)geteuid(), (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    return 0;
}

// What is in shared memory belongs to a process that has it locked.
static int check_memory(struct look *l)
{
    RP_AUTO_FREE char *folder = rp_xasprintf("%s/host/vms/%s", l->v->root, l->vm.id);
    char memory[128], orphan[NAME_MAX + 1] = "";
    DIR *dir = verify_memory_of(folder, memory, sizeof memory) ? NULL : opendir(memory);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = entry->d_name[0] == '.' ? -1 : openat(dirfd(dir), entry->d_name, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type == F_UNLCK)
            snprintf(orphan, sizeof orphan, "%s", entry->d_name);
        if (fd >= 0)
            close(fd);
    }
    if (dir)
        closedir(dir);
    return *orphan ? bad(l, "%s/%s belongs to nobody", memory, orphan) : 0;
}

// ---- the repository -------------------------------------------------------------------------------------------------

static void on_problem(void *context, const struct rp_repo_problem *problem)
{
    struct look *l = context;
    if (!*l->wrong)
        bad(l, "check: %s", problem->text);
}

static int compare_point(struct look *l, struct rp_repo *repo, const struct rp_point *point, const struct point *expected)
{
    enum { PIECE = 1 << 20 };
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(PIECE);
    RP_AUTO_FREE uint32_t *values = rp_xmalloc(PIECE / SECTOR * sizeof *values);
    for (size_t i = 0; i < point->disk_count; i++) {
        uint32_t n = point->disks[i].number;
        const struct rp_repo_root *root = &point->disks[i].root;
        const uint32_t *wanted = expected ? expected->disks[n].values : l->values[n];
        uint64_t size = expected ? expected->disks[n].size : l->sizes[n];
        if (!wanted)
            continue;
        if (root->size != size)
            return bad(l, "restore point %.12s: disk%u has %llu bytes, %llu expected", point->id, n, (unsigned long long)root->size,
                       (unsigned long long)size);
        for (uint64_t at = 0; at < size; at += PIECE) {
            size_t length = (size_t)rp_min64(size - at, PIECE);
            TRY(rp_repo_read(repo, root, at, data, length, &l->err));
            content_values(data, n, at, length, values);
            for (size_t s = 0; s < length / SECTOR; s++)
                if (values[s] != wanted[at / SECTOR + s])
                    return bad(l, "restore point %.12s: disk%u sector %llu restores as %u, was %u", point->id, n,
                               (unsigned long long)(at / SECTOR + s), values[s], wanted[at / SECTOR + s]);
        }
    }
    return 0;
}

// The files in a folder of the repository, and in the folders in it.
static unsigned count_in(const struct look *l, const char *name)
{
    RP_AUTO_FREE char *folder = rp_xasprintf("%s/repo/%s", l->v->root, name);
    DIR *dir = opendir(folder);
    unsigned count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        RP_AUTO_FREE char *inside = rp_xasprintf("%s/%s", name, entry->d_name);
        if (entry->d_name[0] != '.')
            count += entry->d_type == DT_DIR ? count_in(l, inside) : 1;
    }
    if (dir)
        closedir(dir);
    return count;
}

// What a backup leaves on the host and in the repository, also of those that were cut or killed before it. What they were writing
// in tmp/ goes after a day only, and so does the empty folder of a session that the power cut took back.
static int check_left(struct look *l, struct rp_repo *repo, unsigned temporaries)
{
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    struct rp_repo_lock_holder holder = {0};
    TRY(l->host->ops->list_reference_points(l->host, l->vm.id, &points, &l->err));
    if (points.count != 1)
        return bad(l, "the next backup leaves %zu reference points", points.count);
    TRY(l->host->ops->list_snapshots(l->host, l->vm.id, &list, &l->err));
    for (size_t i = 0; i < list.count; i++)
        if (!strncmp(list.items[i].name, "refpoint:", 9))
            return bad(l, "checkpoint %s of a backup is left", list.items[i].name);
    TRY(rp_repo_lock_look(repo, l->vm.id, &holder, &l->err));
    if (holder.held)
        return bad(l, "the next backup leaves the VM locked: %s", holder.text);
    if ((!l->v->restarted && count_in(l, "sessions")) || count_in(l, "tmp") > temporaries)
        return bad(l, "the next backup leaves %u sessions, and %u temporary files more", count_in(l, "sessions"),
                   count_in(l, "tmp") - temporaries);
    return 0;
}

static int next_backup(struct look *l, struct rp_repo *repo, bool must_be_incremental)
{
    unsigned temporaries = count_in(l, "tmp");
    struct rp_backup_options options = {.merge_timeout_ms = 30000, .threads = 1};
    struct rp_backup_result result;
    TRY(rp_backup_run(l->host, repo, &l->vm, &options, &result, &l->err));
    int failed = compare_point(l, repo, &result.point, NULL);
    for (size_t i = 0; i < result.point.disk_count && !failed && must_be_incremental; i++)
        if (result.point.disks[i].reason)
            failed = bad(l, "the next backup reads disk%u in full: %s", result.point.disks[i].number, result.point.disks[i].reason);
    if (!failed && result.merge_pending)
        failed = bad(l, "the next backup leaves a merge");
    rp_backup_result_clear(&result);
    return failed ? failed : check_left(l, repo, temporaries);
}

static int check_repository(struct look *l)
{
    const struct oracle *o = l->v->oracle;
    RP_AUTO_FREE char *path = rp_xasprintf("%s/repo", l->v->root), *cache = rp_xasprintf("%s/cache", l->v->scratch);
    struct rp_backend *backend = rp_backend_directory_open(path, false, &l->err);
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = backend ? rp_repo_open(backend, PASSPHRASE, cache, &l->err) : NULL;
    if (!repo)
        return bad(l, "the repository does not open: %s", l->err.text);
    uint64_t problems = 0;
    TRY(rp_repo_check(repo, l->v->seed % 4 == 0, on_problem, l, NULL, NULL, &problems, &l->err));
    if (problems)
        return 1;
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    TRY(rp_repo_points(repo, &points, &l->err));
    bool any = false;
    for (size_t i = 0; i < o->point_count; i++) {
        const struct point *expected = &o->points[i];
        const struct rp_point *found = NULL;
        for (size_t k = 0; k < points.count; k++)
            if (!strcmp(points.items[k].id, expected->id))
                found = &points.items[k];
        if (!found && expected->span.end < l->v->at)
            return bad(l, "restore point %s is gone", expected->id);
        any |= expected->span.end < l->v->at;
        if (found)
            SAME(compare_point(l, repo, found, expected));
    }
    return l->vm.id[0] ? next_backup(l, repo, any) : 0;
}

// ---- all of it ------------------------------------------------------------------------------------------------------

static int look_at_vm(struct look *l)
{
    char job[RP_HOST_ID], id[RP_HOST_ID], unused[RP_HOST_ID];
    SAME(check_checkpoints(l));
    if (rp_host_wait_merge(l->host, l->vm.id, 60000, &l->err) < 0) // in a life that goes on; else the checkpoint merges first
        return bad(l, "wait for merges: %s", l->err.text);
    TRY(l->host->ops->create_snapshot(l->host, l->vm.id, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "verify", job, id, &l->err));
    {
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings frozen = {0};
        TRY(l->host->ops->snapshot_settings(l->host, id, &frozen, &l->err));
        SAME(check_disks(l, &frozen));
        SAME(check_ids(l, &frozen));
    }
    TRY(l->host->ops->destroy_snapshot(l->host, id, job, unused, &l->err));
    int merging = rp_host_wait_merge(l->host, l->vm.id, 30000, &l->err);
    if (merging)
        return bad(l, "a merge does not end: %s", l->err.text);
    SAME(check_orphans(l));
    SAME(check_rows(l));
    return check_memory(l);
}

static int look(struct look *l)
{
    const struct verify *v = l->v;
    RP_AUTO_FREE char *folder = rp_xasprintf("%s/host", v->root);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    l->host = rp_host_local_open(folder, &l->err);
    if (!l->host)
        return bad(l, "the host does not open: %s", l->err.text);
    TRY(l->host->ops->list_vms(l->host, &vms, &l->err));
    SAME(check_folders(l, &vms));
    if (!vms.count)
        return v->oracle->vm < v->at ? bad(l, "the VM is gone") : 0;
    TRY(l->host->ops->find_vm(l->host, vms.items[0].id, &l->vm, &l->err));
    if (v->oracle->vm < v->at && strcmp(l->vm.id, v->oracle->vm_id))
        return bad(l, "VM %s is another one than %s", l->vm.id, v->oracle->vm_id);
    SAME(look_at_vm(l));
    if (!v->full)
        return 0;
    char job[RP_HOST_ID], unused[RP_HOST_ID];
    if (v->service)
        TRY(l->host->ops->request_state(l->host, l->vm.id, RP_VM_RUNNING, job, unused, &l->err));
    int failed = check_repository(l);
    if (v->service && l->host->ops->request_state(l->host, l->vm.id, RP_VM_OFF, job, unused, &l->err) && !failed)
        failed = bad(l, "vm stop: %s", l->err.text);
    if (failed)
        return failed;
    SAME(check_orphans(l));
    return check_rows(l);
}

int verify_run(const struct verify *verify, char *wrong, size_t size)
{
    struct look l = {.v = verify, .wrong = wrong, .room = size};
    wrong[0] = 0;
    rp_log_set_level(verify->verbose ? RP_LOG_DEBUG : RP_LOG_ERROR);
    int failed = look(&l);
    for (uint32_t i = 0; i < MAX_DISKS && !failed && verify->found; i++)
        if (l.values[i])
            verify->found(verify->context, i, l.sizes[i], l.values[i]);
    for (size_t i = 0; i < MAX_DISKS; i++)
        free(l.values[i]);
    rp_vm_clear(&l.vm);
    rp_host_close(l.host);
    return failed;
}
