// Processes that work on a host are killed at random moments, or get in each other's way. Afterwards everything must be
// consistent: rows, chain records, files, and what the disks hold. Replayable in its choices from RP_TEST_SEED.
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "diskservice/record.h"
#include "diskservice/service.h"
#include "host-kit.h"
#include "host/local.h"

#define UNITS 32
#define DISK ((size_t)UNITS * KIT_UNIT)
#define MAX_ROUNDS 1000

struct world {
    char *host, *files, *raw, *small;
    char *exports;                     // where victims export to: a folder for each attempt
    char *kept;                        // the definition of an export, to be imported
    char vm[RP_HOST_ID];
    struct rp_host_connection *c;
    struct rp_error err;
    uint32_t now[UNITS];               // what each unit holds: kit_fill of this number
    uint32_t then[MAX_ROUNDS][UNITS];  // the same at the start of each round; a snapshot's name tells its round
    int round;
    struct shared {
        char complaint[RP_ERROR_TEXT + 32];
        unsigned long done;            // operations that succeeded
    } *shared;
};

// ---- what the victims do --------------------------------------------------------------------------------------------

static bool expected_failure(enum rp_code code)
{
    return code == RP_ERR_BUSY || code == RP_ERR_STATE || code == RP_ERR_NOT_FOUND || code == RP_ERR_CANCELLED ||
           code == RP_ERR_EXISTS; // two realize one plan
}

static int on_snapshots(struct world *w, struct rp_host_connection *c, uint64_t *seed, struct rp_error *err)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    RP_AUTO_FREE char *name = kit_path("round:%d", w->round);
    if (c->ops->list_snapshots(c, w->vm, &list, err))
        return -1;
    if (list.count < 4 && kit_random(seed) % 2) {
        if (kit_random(seed) % 4 == 0)
            return c->ops->create_reference_point(c, w->vm, RP_CONSISTENCY_CRASH, name, job, result, err);
        return c->ops->create_snapshot(c, w->vm, kit_random(seed) % 3 ? RP_SNAPSHOT_RECOVERY : RP_SNAPSHOT_PRODUCTION,
                                       RP_CONSISTENCY_CRASH, name, job, result, err);
    }
    if (!list.count)
        return 0;
    const struct rp_snapshot *s = &list.items[kit_random(seed) % list.count];
    if (s->type == RP_SNAPSHOT_RECOVERY && kit_random(seed) % 2)
        return c->ops->convert_to_reference_point(c, s->id, job, result, err);
    return c->ops->destroy_snapshot(c, s->id, job, result, err);
}

static int on_points(struct world *w, struct rp_host_connection *c, struct rp_error *err)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    if (c->ops->list_reference_points(c, w->vm, &points, err))
        return -1;
    return points.count > 3 ? c->ops->destroy_reference_point(c, points.items[0].id, job, result, err) : 0;
}

static int on_disks(struct world *w, struct rp_host_connection *c, struct rp_error *err)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    if (c->ops->vm_settings(c, w->vm, &s, err))
        return -1;
    if (s.disk_count < 2)
        return c->ops->add_disk(c, w->vm, w->small, job, result, err);
    if (c->ops->remove_disk(c, w->vm, s.disks[1].number, job, result, err))
        return -1;
    unlink(s.disks[1].path); // it stays, by contract, and would fill the disk
    RP_AUTO_FREE char *rct = rp_rct_path(s.disks[1].path);
    unlink(rct);
    return 0;
}

static int on_vms(struct world *w, struct rp_host_connection *c, struct rp_error *err)
{
    char job[RP_HOST_ID], id[RP_HOST_ID], result[RP_HOST_ID];
    const char *disk = w->small;
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    if (c->ops->list_vms(c, &vms, err))
        return -1;
    for (size_t i = 0; i < vms.count; i++)
        if (strcmp(vms.items[i].id, w->vm))
            return c->ops->destroy_system(c, vms.items[i].id, true, job, result, err);
    return c->ops->define_system(c, "other", &disk, 1, NULL, NULL, job, id, err);
}

// The name of the folder tells what must be in it: the round of the checkpoint, and that of the base.
static int on_exports(struct world *w, struct rp_host_connection *c, uint64_t *seed, struct rp_error *err)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    if (c->ops->list_snapshots(c, w->vm, &list, err) || c->ops->list_reference_points(c, w->vm, &points, err))
        return -1;
    if (!list.count)
        return 0;
    const struct rp_snapshot *s = &list.items[kit_random(seed) % list.count];
    const struct rp_reference_point *base = points.count && kit_random(seed) % 2 ? &points.items[0] : NULL;
    if (base && base->time_ns > s->time_ns)
        base = NULL;
    RP_AUTO_FREE char *folder = kit_path("%s/%d,%d,%llx", w->exports, atoi(s->name + 6), base ? atoi(base->name + 6) : -1,
                                         (unsigned long long)kit_random(seed));
    if (mkdir(folder, 0700))
        return errno == EEXIST ? 0 : rp_fail_sys(err, errno, "%s", folder);
    const struct rp_export what = {.vm_id = w->vm, .snapshot_id = s->id, .base_point_id = base ? base->id : NULL, .folder = folder,
                                   .storage = true};
    return c->ops->export_system(c, &what, job, result, err);
}

static int on_plans(struct world *w, struct rp_host_connection *c, uint64_t *seed, struct rp_error *err)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory plans = {0};
    if (rp_host_local_list_planned(c, &plans, err))
        return -1;
    if (!plans.count || (plans.count < 4 && kit_random(seed) % 3 == 0))
        return c->ops->import_system(c, w->kept, true, job, result, err);
    const char *id = plans.items[kit_random(seed) % plans.count].vm.id;
    return kit_random(seed) % 3 ? c->ops->realize_planned(c, id, job, result, err)
                                : c->ops->destroy_system(c, id, false, job, result, err);
}

static void victim(struct world *w, uint64_t seed, uint64_t milliseconds)
{
    uint64_t until = rp_clock_monotonic_ns() + milliseconds * 1000000;
    while (rp_clock_monotonic_ns() < until) {
        struct rp_error err = {0};
        RP_CLEANUP(rp_host_close_p) struct rp_host_connection *c = rp_host_local_open(w->host, &err);
        for (int i = 0; c && !err.code && i < 6 && rp_clock_monotonic_ns() < until; i++) {
            unsigned dice = (unsigned)(kit_random(&seed) % 11);
            int rc = dice < 5 ? on_snapshots(w, c, &seed, &err) : dice == 5 ? on_points(w, c, &err)
                     : dice == 6 ? on_disks(w, c, &err) : dice == 7 ? on_vms(w, c, &err)
                     : dice < 10 ? on_exports(w, c, &seed, &err) : on_plans(w, c, &seed, &err);
            if (!rc)
                __atomic_add_fetch(&w->shared->done, 1, __ATOMIC_RELAXED);
        }
        if (err.code && !expected_failure(err.code))
            snprintf(w->shared->complaint, sizeof w->shared->complaint, "%s: %s", rp_code_name(err.code), err.text);
    }
}

// ---- what must hold -------------------------------------------------------------------------------------------------

static int64_t number(struct world *w, const char *sql)
{
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host);
    sqlite3 *db;
    sqlite3_stmt *query;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &query, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(query), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(query, 0);
    sqlite3_finalize(query);
    sqlite3_close(db);
    return value;
}

static void holds(const char *path, const uint32_t units[UNITS])
{
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK), *expected = rp_xmalloc(KIT_UNIT);
    kit_chain_read(path, data, DISK);
    for (size_t i = 0; i < UNITS; i++) {
        kit_fill(expected, KIT_UNIT, units[i]);
        if (memcmp(data + i * KIT_UNIT, expected, KIT_UNIT))
            fail_msg("%s: unit %zu does not hold what was written", path, i);
    }
}

static int is_own(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    (void)length;
    *(bool *)context |= state != RP_VHDX_IN_PARENT;
    return 0;
}

struct names {
    char *items[1024];
    size_t count;
};

static void add_name(struct names *names, const char *path)
{
    assert_true(names->count + 5 < sizeof names->items / sizeof *names->items);
    names->items[names->count++] = rp_xstrdup(path);
    names->items[names->count++] = rp_rct_path(path);
    names->items[names->count++] = rp_xasprintf("%s.mrt", path);
}

static bool has_name(const struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (!strcmp(names->items[i], path))
            return true;
    return false;
}

// The chain of each disk is its own file and one more for each checkpoint, in their order; and no other file is there.
static void check_files(struct world *w, const char *vm_id)
{
    RP_AUTO_FREE char *folder = kit_path("%s/vms/%s", w->host, vm_id);
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    kit_ok(rp_record_read(rp_fs_posix(), folder, &record, &w->err), w->err);
    kit_ok(w->c->ops->list_snapshots(w->c, vm_id, &snapshots, &w->err), w->err);
    struct names names = {0};
    for (size_t i = 0; i < record.count; i++) {
        char *chain[RP_CHAIN_MAX_DEPTH], *path = rp_xstrdup(record.disks[i].leaf_path);
        size_t depth = 0;
        while (path) {
            struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, &w->err);
            kit_ok(!vhdx, w->err);
            add_name(&names, path);
            names.items[names.count++] = kit_path("%s.rct.new", path); // killed while it was made: the next open deletes it
            names.items[names.count++] = kit_path("%s.mrt.new", path);
            chain[depth++] = path;
            path = rp_vhdx_info(vhdx)->has_parent ? rp_xstrdup(rp_vhdx_info(vhdx)->parent_path) : NULL;
            rp_vhdx_abandon(vhdx);
        }
        if (record.disks[i].number == 0) {
            assert_int_equal(depth, snapshots.count + 1);
            for (size_t j = 0; j < snapshots.count; j++) {
                RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
                kit_ok(w->c->ops->snapshot_settings(w->c, snapshots.items[j].id, &s, &w->err), w->err);
                assert_string_equal(s.disks[0].path, chain[depth - 1 - j]);
            }
        }
        while (depth)
            free(chain[--depth]);
    }
    for (size_t i = 0; i < record.scratch_count; i++) { // the next open of the disks deletes them
        add_name(&names, record.scratch[i]);
        names.items[names.count++] = kit_path("%s.rct.new", record.scratch[i]); // killed while it was made
        names.items[names.count++] = kit_path("%s.mrt.new", record.scratch[i]);
    }
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing));) {
        RP_AUTO_FREE char *path = kit_path("%s/%s", folder, entry->d_name);
        static const char *const ours[] = {".", "..", RP_RECORD_NAME, RP_ENGINE_LOCK, RP_CONTROL_SOCKET, RP_NBD_SOCKET, "service.log"};
        bool known = has_name(&names, path);
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            known |= !strcmp(entry->d_name, ours[i]);
        // A disk that was taken out stays, by contract; the victim may have been killed before it deleted it.
        if (!known && !strncmp(entry->d_name, "disk", 4) && strncmp(entry->d_name, "disk0", 5) && !strchr(entry->d_name, '_')) {
            unlink(path);
            known = true;
        }
        if (!known)
            fail_msg("%s: nobody knows this file", path);
    }
    closedir(listing);
    while (names.count)
        free(names.items[--names.count]);
}

// What a differencing file holds must be what its moment had, and the rest what its base had.
static void holds_changes(const char *path, const uint32_t units[UNITS], const uint32_t base[UNITS])
{
    struct rp_error err = {0};
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(KIT_UNIT), *expected = rp_xmalloc(KIT_UNIT);
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_READ, NULL, &err);
    kit_ok(!vhdx, err);
    assert_true(rp_vhdx_info(vhdx)->has_parent);
    for (size_t i = 0; i < UNITS; i++) {
        bool own = false;
        kit_ok(rp_vhdx_extents(vhdx, i * KIT_UNIT, KIT_UNIT, is_own, &own, &err), err);
        if (!own && units[i] != base[i])
            fail_msg("%s: unit %zu changed, and is not there", path, i);
        kit_fill(expected, KIT_UNIT, units[i]);
        if (own)
            kit_ok(rp_vhdx_read(vhdx, data, KIT_UNIT, i * KIT_UNIT, &err), err);
        if (own && memcmp(data, expected, KIT_UNIT))
            fail_msg("%s: unit %zu does not hold what was written", path, i);
    }
}

// Each export is whole, or nothing of it is there.
static void check_exports(struct world *w)
{
    DIR *listing = opendir(w->exports);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing));) {
        int round, base;
        if (sscanf(entry->d_name, "%d,%d,", &round, &base) != 2)
            continue;
        char *folder = kit_path("%s/%s", w->exports, entry->d_name);
        RP_AUTO_FREE char *definition = kit_path("%s/Virtual Machines/%s.vmcx", folder, w->vm),
                          *disk = kit_path("%s/Virtual Hard Disks/disk0.vhdx", folder);
        if (!access(definition, F_OK) && base < 0)
            holds(disk, w->then[round]);
        else if (!access(definition, F_OK))
            holds_changes(disk, w->then[round], w->then[base]);
        else if (rmdir(folder))
            fail_msg("%s: half of an export is there", folder);
        kit_remove_folder(folder);
    }
    closedir(listing);
}

static void check_host(struct world *w)
{
    assert_string_equal(w->shared->complaint, "");
    w->err = (struct rp_error){0};
    rp_host_close(w->c);
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
    int merging = rp_host_wait_merge(w->c, w->vm, 20000, &w->err);
    if (merging) {
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        w->c->ops->find_vm(w->c, w->vm, &vm, NULL);
        fail_msg("the merges do not end: %s %s", w->err.text, vm.merge_problem ? vm.merge_problem : "");
    }
    assert_int_equal(number(w, "SELECT (SELECT count(*) FROM vm WHERE state <> 'ready') + (SELECT count(*) FROM disk WHERE"
                               " state <> 'ready') + (SELECT count(*) FROM snapshot WHERE state <> 'ready') +"
                               " (SELECT count(*) FROM applying) + (SELECT count(*) FROM export)"), 0);
    check_exports(w);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    kit_ok(w->c->ops->list_vms(w->c, &vms, &w->err), w->err);
    for (size_t i = 0; i < vms.count; i++)
        check_files(w, vms.items[i].id);
    RP_AUTO_FREE char *folder = kit_path("%s/vms", w->host);
    DIR *listing = opendir(folder);
    size_t folders = 0;
    for (struct dirent *entry; (entry = readdir(listing));)
        folders += entry->d_name[0] != '.';
    closedir(listing);
    assert_int_equal(folders, vms.count);
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &snapshots, &w->err), w->err);
    for (size_t i = 0; i < snapshots.count; i++) {
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
        kit_ok(w->c->ops->snapshot_settings(w->c, snapshots.items[i].id, &s, &w->err), w->err);
        holds(s.disks[0].path, w->then[atoi(snapshots.items[i].name + 6)]);
    }
}

// Every reference point still answers: all that has changed since, and nothing else when `exact`.
static void check_points(struct world *w, bool exact)
{
    char job[RP_HOST_ID], result[RP_HOST_ID], snap[RP_HOST_ID];
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, w->vm, &points, &w->err), w->err);
    RP_AUTO_FREE char *name = kit_path("round:%d", w->round);
    kit_ok(w->c->ops->create_snapshot(w->c, w->vm, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, name, job, snap, &w->err), w->err);
    kit_ok(w->c->ops->snapshot_settings(w->c, snap, &s, &w->err), w->err);
    for (size_t i = 0; i < points.count; i++) {
        const uint32_t *old = w->then[atoi(points.items[i].name + 6)];
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
        kit_ok(rp_host_all_changes(w->c, s.disks[0].path, points.items[i].disks[0].rct_id, DISK, &ranges, &w->err), w->err);
        bool got[UNITS] = {false};
        for (size_t r = 0; r < ranges.count; r++)
            for (uint64_t at = ranges.items[r].offset; at < ranges.items[r].offset + ranges.items[r].length; at += KIT_UNIT)
                got[at / KIT_UNIT] = true;
        for (size_t u = 0; u < UNITS; u++)
            if (exact ? got[u] != (old[u] != w->now[u]) : old[u] != w->now[u] && !got[u])
                fail_msg("reference point %s: unit %zu is %s, but it %s", points.items[i].name, u,
                         got[u] ? "changed" : "unchanged", old[u] != w->now[u] ? "changed" : "did not change");
    }
    kit_ok(w->c->ops->destroy_snapshot(w->c, snap, job, result, &w->err), w->err);
}

// ---- rounds ---------------------------------------------------------------------------------------------------------

static void set_state(struct world *w, enum rp_vm_state state)
{
    char job[RP_HOST_ID], result[RP_HOST_ID];
    kit_ok(w->c->ops->request_state(w->c, w->vm, state, job, result, &w->err), w->err);
}

static void write_some(struct world *w, uint64_t *seed)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(KIT_UNIT);
    kit_ok(w->c->ops->vm_settings(w->c, w->vm, &s, &w->err), w->err);
    for (int i = 0; i < 2; i++) {
        size_t unit = kit_random(seed) % UNITS;
        w->now[unit] = (uint32_t)(2 + w->round * 10 + i);
        kit_fill(data, KIT_UNIT, w->now[unit]);
        kit_nbd_write(s.disks[0].nbd_uri, data, KIT_UNIT, unit * KIT_UNIT);
    }
}

static pid_t spawn(struct world *w, uint64_t seed, uint64_t milliseconds)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        victim(w, seed, milliseconds);
        _exit(0);
    }
    return pid;
}

static void begin_round(struct world *w, int round)
{
    w->round = round;
    memcpy(w->then[round], w->now, sizeof w->now);
}

static int rounds(int usual)
{
    const char *text = getenv("RP_TEST_ROUNDS");
    int wanted = text ? atoi(text) : usual;
    return wanted < 1 ? 1 : wanted > MAX_ROUNDS ? MAX_ROUNDS : wanted;
}

static void kill_at_random_moments(struct world *w, bool running)
{
    uint64_t seed = kit_seed();
    print_message("# RP_TEST_SEED=%llu\n", (unsigned long long)seed);
    if (running)
        set_state(w, RP_VM_RUNNING);
    for (int round = 0, count = rounds(8); round < count; round++) {
        begin_round(w, round);
        pid_t pids[2] = {spawn(w, kit_random(&seed) | 1, 100000), 0};
        if (kit_random(&seed) % 3 == 0)
            pids[1] = spawn(w, kit_random(&seed) | 1, 100000);
        usleep((useconds_t)(kit_random(&seed) % 150000));
        for (int i = 0; i < 2 && pids[i]; i++) {
            kill(pids[i], SIGKILL);
            waitpid(pids[i], NULL, 0);
        }
        check_host(w);
        check_points(w, running);
        if (!running)
            set_state(w, RP_VM_RUNNING);
        write_some(w, &seed);
        if (!running)
            set_state(w, RP_VM_OFF);
    }
    print_message("# %lu operations succeeded\n", w->shared->done);
    assert_true(w->shared->done > 0);
}

static void a_killed_process_leaves_a_running_vm_consistent_and_its_tracking_exact(void **state)
{
    kill_at_random_moments(*state, true);
}

static void a_killed_process_leaves_a_vm_that_is_off_consistent(void **state)
{
    kill_at_random_moments(*state, false);
}

static void two_processes_at_once_do_not_get_in_each_others_way(void **state)
{
    struct world *w = *state;
    uint64_t seed = kit_seed();
    set_state(w, RP_VM_RUNNING);
    for (int round = 0; round < 3; round++) {
        begin_round(w, round);
        pid_t a = spawn(w, kit_random(&seed) | 1, 400), b = spawn(w, kit_random(&seed) | 1, 400);
        int status_a, status_b;
        waitpid(a, &status_a, 0);
        waitpid(b, &status_b, 0);
        assert_int_equal(status_a, 0);
        assert_int_equal(status_b, 0);
        check_host(w);
        check_points(w, true);
        write_some(w, &seed);
    }
    assert_true(w->shared->done > 0);
}

static void a_killed_service_leaves_the_host_consistent(void **state)
{
    struct world *w = *state;
    uint64_t seed = kit_seed();
    RP_AUTO_FREE char *folder = kit_path("%s/vms/%s", w->host, w->vm);
    for (int round = 0, count = rounds(4); round < count; round++) {
        begin_round(w, round);
        set_state(w, RP_VM_RUNNING);
        pid_t pid = spawn(w, kit_random(&seed) | 1, 100000);
        usleep((useconds_t)(kit_random(&seed) % 150000));
        RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), folder, &w->err);
        RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
        kit_ok(!service || rp_service_info(service, &info, &w->err), w->err);
        if (info.pid > 1) {
            kill(info.pid, SIGKILL);
            while (!kill(info.pid, 0) && !usleep(1000)) // its locks go with it
                ;
        }
        usleep((useconds_t)(kit_random(&seed) % 20000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        w->shared->complaint[0] = 0; // that a service died in the middle of a request is an error, and shall be
        check_host(w);
        set_state(w, RP_VM_RUNNING);
        check_points(w, false);
        write_some(w, &seed);
        set_state(w, RP_VM_OFF);
    }
}

// A checkpoint is applied again and again, and whoever does it is killed. The disk holds what it did before, or what the
// checkpoint does; reference points that are older than that go on answering.
static void a_killed_apply_has_been_or_has_not(void **state)
{
    struct world *w = *state;
    uint64_t seed = kit_seed();
    char job[RP_HOST_ID], result[RP_HOST_ID], snap[RP_HOST_ID];
    int before = 0, after = 0;
    uint64_t usual_us = 10000; // of one that is not killed
    print_message("# RP_TEST_SEED=%llu\n", (unsigned long long)seed);
    for (int round = 0, count = rounds(12); round < count; round++) {
        begin_round(w, round);
        RP_AUTO_FREE char *name = kit_path("round:%d", round);
        kit_ok(w->c->ops->create_reference_point(w->c, w->vm, RP_CONSISTENCY_CRASH, name, job, result, &w->err), w->err);
        assert_int_equal(rp_host_wait_merge(w->c, w->vm, 20000, &w->err), 0);
        kit_ok(w->c->ops->create_snapshot(w->c, w->vm, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, name, job, snap, &w->err), w->err);
        set_state(w, RP_VM_RUNNING);
        write_some(w, &seed);
        set_state(w, RP_VM_OFF);
        if (round == 0) {
            uint64_t start = rp_clock_monotonic_ns();
            kit_ok(w->c->ops->apply_snapshot(w->c, snap, job, result, &w->err), w->err);
            usual_us = (rp_clock_monotonic_ns() - start) / 1000 + 1000;
        }
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct rp_error err = {0};
            struct rp_host_connection *c = rp_host_local_open(w->host, &err);
            while (c && !c->ops->apply_snapshot(c, snap, job, result, &err))
                __atomic_add_fetch(&w->shared->done, 1, __ATOMIC_RELAXED);
            snprintf(w->shared->complaint, sizeof w->shared->complaint, "%s", err.text);
            _exit(0);
        }
        usleep((useconds_t)(kit_random(&seed) % (3 * usual_us)));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        check_host(w);
        RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
        kit_ok(w->c->ops->vm_settings(w->c, w->vm, &s, &w->err), w->err);
        RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK), *expected = rp_xmalloc(DISK);
        kit_chain_read(s.disks[0].path, data, DISK);
        for (size_t i = 0; i < UNITS; i++)
            kit_fill(expected + i * KIT_UNIT, KIT_UNIT, w->now[i]);
        bool untouched = !memcmp(data, expected, DISK);
        before += untouched;
        after += !untouched;
        if (!untouched)
            memcpy(w->now, w->then[round], sizeof w->now);
        holds(s.disks[0].path, w->now);
        kit_ok(w->c->ops->destroy_snapshot(w->c, snap, job, result, &w->err), w->err);
        assert_int_equal(rp_host_wait_merge(w->c, w->vm, 20000, &w->err), 0);
        check_points(w, true);
        check_host(w);
    }
    print_message("# %d before, %d after, %lu applied\n", before, after, w->shared->done);
    assert_true(w->shared->done > 0);
}

static int setup(void **state)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    w->shared = mmap(NULL, sizeof *w->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(w->shared, MAP_FAILED);
    w->host = kit_folder();
    w->files = kit_folder();
    w->raw = kit_path("%s/disk.raw", w->files);
    w->small = kit_path("%s/small.raw", w->files);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(DISK);
    for (size_t i = 0; i < UNITS; i++) {
        w->now[i] = 1;
        kit_fill(data + i * KIT_UNIT, KIT_UNIT, 1);
    }
    kit_write_file(w->raw, data, DISK);
    kit_raw(w->small, 65536, 7);
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
    char job[RP_HOST_ID];
    const char *disk = w->raw;
    kit_ok(w->c->ops->define_system(w->c, "web1", &disk, 1, NULL, NULL, job, w->vm, &w->err), w->err);
    w->exports = kit_path("%s/exports", w->files);
    assert_int_equal(mkdir(w->exports, 0700), 0);
    char result[RP_HOST_ID];
    RP_AUTO_FREE char *keep = kit_path("%s/keep", w->files);
    const struct rp_export what = {.vm_id = w->vm, .folder = keep, .storage = true};
    assert_int_equal(mkdir(keep, 0700), 0);
    kit_ok(w->c->ops->export_system(w->c, &what, job, result, &w->err), w->err);
    w->kept = kit_path("%s/Virtual Machines/%s.vmcx", keep, w->vm);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *folder = kit_path("%s/vms/%s", w->host, w->vm);
    rp_service_stop(folder, NULL);
    rp_host_close(w->c);
    munmap(w->shared, sizeof *w->shared);
    if (!getenv("RP_TEST_KEEP")) {
        kit_remove_folder(w->host);
        kit_remove_folder(w->files);
    }
    free(w->raw);
    free(w->small);
    free(w->exports);
    free(w->kept);
    free(w);
    return 0;
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest crash[] = {
        TEST(a_killed_process_leaves_a_running_vm_consistent_and_its_tracking_exact),
        TEST(a_killed_process_leaves_a_vm_that_is_off_consistent),
        TEST(two_processes_at_once_do_not_get_in_each_others_way),
        TEST(a_killed_service_leaves_the_host_consistent),
        TEST(a_killed_apply_has_been_or_has_not),
    };
    return cmocka_run_group_tests(crash, NULL, NULL);
}
