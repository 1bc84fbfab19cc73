// What the in-process host promises of exports, plans and kept settings beyond the vtable: its database, its folders, and what
// hostile names and definitions cannot do.
#include <dirent.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "host-kit.h"
#include "host/local.h"
#include "rct/rct.h"

#define DISK ((size_t)4 * 1024 * 1024)

struct world {
    char *host, *files, *out;
    char vm[RP_HOST_ID];
    struct rp_host_connection *c;
    struct rp_error err;
};

static char job[RP_HOST_ID], result[RP_HOST_ID];

static int setup(void **state)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    w->host = kit_folder();
    w->files = kit_folder();
    w->out = kit_path("%s/out", w->files);
    assert_int_equal(mkdir(w->out, 0700), 0);
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
    RP_AUTO_FREE char *raw = kit_path("%s/web1.raw", w->files);
    kit_raw(raw, DISK, 1);
    const char *disk = raw;
    kit_ok(w->c->ops->define_system(w->c, "web1", &disk, 1, NULL, NULL, job, w->vm, &w->err), w->err);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    rp_host_close(w->c);
    kit_remove_folder(w->host);
    kit_remove_folder(w->files);
    free(w->out);
    free(w);
    return 0;
}

static void reopen(struct world *w)
{
    rp_host_close(w->c);
    w->c = rp_host_local_open(w->host, &w->err);
    kit_ok(!w->c, w->err);
}

static void run_sql(struct world *w, const char *sql)
{
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host);
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why))
        fail_msg("%s: %s", sql, why);
    sqlite3_close(db);
}

static bool exists(const char *path)
{
    struct stat st;
    return !lstat(path, &st);
}

static size_t entries(const char *folder)
{
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(listing));)
        count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

static void snapshot(struct world *w, enum rp_snapshot_type type, char id[RP_HOST_ID])
{
    kit_ok(w->c->ops->create_snapshot(w->c, w->vm, type, RP_CONSISTENCY_CRASH, "t", job, id, &w->err), w->err);
}

static int export_now(struct world *w, const char *folder)
{
    struct rp_export what = {.vm_id = w->vm, .folder = folder, .storage = true};
    return w->c->ops->export_system(w->c, &what, job, result, &w->err);
}

static int import(struct world *w, const char *definition, bool fresh, char id[RP_HOST_ID])
{
    return w->c->ops->import_system(w->c, definition, fresh, job, id, &w->err);
}

static char *definition_of(const struct world *w) { return kit_path("%s/Virtual Machines/%s.vmcx", w->out, w->vm); }

static char *read_text(const char *path)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    kit_ok(rp_fs_read_file(rp_fs_posix(), path, 1 << 20, &text, &err), err);
    return rp_xstrdup(rp_buf_text(&text));
}

// ---- the database ---------------------------------------------------------------------------------------------------

static void a_database_of_the_first_version_is_brought_up_to_date(void **state)
{
    struct world *w = *state;
    char snap[RP_HOST_ID];
    snapshot(w, RP_SNAPSHOT_RECOVERY, snap);
    rp_host_close(w->c);
    w->c = NULL;
    run_sql(w,
            "DROP TABLE planned_disk; DROP TABLE planned; DROP TABLE export_name; DROP TABLE export; DROP TABLE applying;"
               "ALTER TABLE vm DROP COLUMN extras; ALTER TABLE vm DROP COLUMN inherited;"
               "ALTER TABLE snapshot DROP COLUMN extras; ALTER TABLE snapshot DROP COLUMN point;"
               "DROP TABLE domain_disk; DROP TABLE snapshot_state; ALTER TABLE snapshot DROP COLUMN consistency_reason;"
               "ALTER TABLE vm DROP COLUMN hypervisor; ALTER TABLE vm DROP COLUMN domain; ALTER TABLE vm DROP COLUMN domain_xml;"
               "ALTER TABLE vm DROP COLUMN problem; ALTER TABLE vm DROP COLUMN unprotected; ALTER TABLE vm DROP COLUMN iothread;"
               "DROP TABLE releasing_disk; DROP TABLE releasing; DROP TABLE setting;"
               "PRAGMA user_version=1");
    for (int i = 0; i < 2; i++) {
        reopen(w);
        RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
        kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
        assert_int_equal(list.count, 1);
        RP_AUTO_FREE char *extras = NULL;
        kit_ok(rp_host_local_extras(w->c, w->vm, &extras, &w->err), w->err);
        assert_string_equal(extras, i ? "kept" : "");
        kit_ok(rp_host_local_set_extras(w->c, w->vm, "kept", &w->err), w->err);
        kit_ok(w->c->ops->create_reference_point(w->c, w->vm, RP_CONSISTENCY_CRASH, "t", job, result, &w->err), w->err);
        assert_int_equal(rp_host_wait_merge(w->c, w->vm, 20000, &w->err), 0);
    }
}

static void the_version_tells_of_every_change_and_of_nothing_else(void **state)
{
    struct world *w = *state;
    uint64_t before, same, after;
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *other = rp_host_local_open(w->host, &w->err);
    kit_ok(!other, w->err);
    kit_ok(rp_host_local_version(w->c, &before, &w->err), w->err);
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory all = {0};
    kit_ok(other->ops->inventory(other, &all, &w->err), w->err);
    kit_ok(rp_host_local_version(other, &same, &w->err), w->err);
    assert_int_equal(before, same);
    kit_ok(other->ops->rename(other, w->vm, "web2", job, result, &w->err), w->err);
    kit_ok(rp_host_local_version(w->c, &after, &w->err), w->err);
    assert_int_not_equal(before, after);
    kit_ok(rp_host_local_version(other, &same, &w->err), w->err);
    assert_int_equal(same, after);
    kit_ok(w->c->ops->rename(w->c, w->vm, "web1", job, result, &w->err), w->err);
    kit_ok(rp_host_local_version(w->c, &same, &w->err), w->err);
    assert_int_not_equal(same, after);
}

static void the_inventory_of_a_thousand_vms_takes_no_time(void **state)
{
    struct world *w = *state;
    run_sql(w, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
               " INSERT INTO vm (id, name, generation, created, controller, next_disk, state)"
               " SELECT printf('12345678-1234-1234-1234-%012d', i), 'vm' || i, 2, 0, '12345678-1234-1234-1234-123456789ABC', 2, 'ready' FROM n;"
               "INSERT INTO disk (vm, number, path, disk_id, own, size, logical, physical, block, state)"
               " SELECT v.row, d.column1, printf('/nowhere/%d-%d', v.row, d.column1), v.id, 0, 4096, 512, 4096, 2097152, 'ready'"
               " FROM vm v, (VALUES (0), (1)) d WHERE v.name <> 'web1';"
               "INSERT INTO reference_point (id, vm, name, time) SELECT 'Microsoft:' || id, row, 't', 1 FROM vm WHERE name <> 'web1';"
               "INSERT INTO reference_disk (point, number, instance, disk_id, rct_id)"
               " SELECT p.row, d.number, 'i', d.disk_id, '' FROM reference_point p JOIN disk d ON d.vm = p.vm");
    uint64_t start = rp_clock_monotonic_ns();
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory all = {0};
    kit_ok(w->c->ops->inventory(w->c, &all, &w->err), w->err);
    uint64_t took_ms = (rp_clock_monotonic_ns() - start) / 1000000;
    print_message("# %llu ms\n", (unsigned long long)took_ms);
    assert_int_equal(all.count, 1001);
    for (size_t i = 1; i < all.count; i++) {
        assert_int_equal(all.items[i].settings.disk_count, 2);
        assert_int_equal(all.items[i].points.count, 1);
        assert_int_equal(all.items[i].points.items[0].disk_count, 2);
        assert_int_equal(all.items[i].vm.state, RP_VM_OFF);
    }
    assert_true(took_ms < 10000); // some 15 ms on an idle machine
}

// ---- ids and extras -------------------------------------------------------------------------------------------------

static void what_is_made_has_the_id_that_was_said_before(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID];
    rp_host_local_next_id(w->c, "aaaaaaaa-0000-0000-0000-000000000001");
    snapshot(w, RP_SNAPSHOT_RECOVERY, id);
    assert_string_equal(id, "Microsoft:AAAAAAAA-0000-0000-0000-000000000001");
    char used[RP_HOST_ID];
    snapshot(w, RP_SNAPSHOT_RECOVERY, used); // once
    assert_null(strstr(used, "AAAAAAAA"));
    rp_host_local_next_id(w->c, "aaaaaaaa-0000-0000-0000-000000000002");
    kit_ok(w->c->ops->convert_to_reference_point(w->c, id, job, result, &w->err), w->err);
    assert_string_equal(result, "Microsoft:AAAAAAAA-0000-0000-0000-000000000002");
    rp_host_local_next_id(w->c, "aaaaaaaa-0000-0000-0000-000000000003");
    kit_ok(w->c->ops->create_reference_point(w->c, w->vm, RP_CONSISTENCY_CRASH, "t", job, result, &w->err), w->err);
    assert_string_equal(result, "Microsoft:AAAAAAAA-0000-0000-0000-000000000003");
    rp_host_local_next_id(w->c, "aaaaaaaa-0000-0000-0000-000000000004");
    kit_ok(w->c->ops->define_system(w->c, "b", NULL, 0, NULL, NULL, job, result, &w->err), w->err);
    assert_string_equal(result, "AAAAAAAA-0000-0000-0000-000000000004");
    kit_ok(export_now(w, w->out), w->err);
    RP_AUTO_FREE char *definition = definition_of(w);
    rp_host_local_next_id(w->c, "aaaaaaaa-0000-0000-0000-000000000004"); // there is one
    kit_fails(import(w, definition, true, result), w->err, RP_ERR_EXISTS);
    rp_host_local_next_id(w->c, "aaaaaaaa-0000-0000-0000-000000000005");
    kit_ok(import(w, definition, true, result), w->err);
    assert_string_equal(result, "AAAAAAAA-0000-0000-0000-000000000005");
    // a method that failed has used it up too
    rp_host_local_next_id(w->c, "aaaaaaaa-0000-0000-0000-000000000006");
    kit_fails(w->c->ops->define_system(w->c, "", NULL, 0, NULL, NULL, job, result, &w->err), w->err, RP_ERR_INVALID);
    kit_ok(w->c->ops->define_system(w->c, "c", NULL, 0, NULL, NULL, job, result, &w->err), w->err);
    assert_null(strstr(result, "AAAAAAAA"));
}

static void has_extras(struct world *w, const char *id, const char *expected)
{
    RP_AUTO_FREE char *text = NULL;
    kit_ok(rp_host_local_extras(w->c, id, &text, &w->err), w->err);
    assert_string_equal(text, expected);
}

static void extras_go_with_the_vm_and_its_checkpoints(void **state)
{
    struct world *w = *state;
    char snap[RP_HOST_ID], planned[RP_HOST_ID];
    has_extras(w, w->vm, "");
    kit_ok(rp_host_local_set_extras(w->c, w->vm, "<INSTANCE>first &\n\"quoted\" 机</INSTANCE>", &w->err), w->err);
    snapshot(w, RP_SNAPSHOT_PRODUCTION, snap);
    kit_ok(rp_host_local_set_extras(w->c, w->vm, "second", &w->err), w->err);
    has_extras(w, snap, "<INSTANCE>first &\n\"quoted\" 机</INSTANCE>");
    has_extras(w, w->vm, "second");
    kit_ok(w->c->ops->apply_snapshot(w->c, snap, job, result, &w->err), w->err);
    has_extras(w, w->vm, "<INSTANCE>first &\n\"quoted\" 机</INSTANCE>");
    kit_ok(rp_host_local_set_extras(w->c, w->vm, "third", &w->err), w->err);
    struct rp_export what = {.vm_id = w->vm, .snapshot_id = snap, .folder = w->out, .storage = true};
    kit_ok(w->c->ops->export_system(w->c, &what, job, result, &w->err), w->err);
    RP_AUTO_FREE char *definition = definition_of(w), *large = rp_xmalloc((2 << 20) + 1);
    kit_ok(import(w, definition, true, planned), w->err);
    has_extras(w, planned, "<INSTANCE>first &\n\"quoted\" 机</INSTANCE>");
    kit_ok(rp_host_local_set_extras(w->c, planned, "fourth", &w->err), w->err);
    kit_ok(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err);
    has_extras(w, result, "fourth");
    memset(large, 'x', 2 << 20);
    large[2 << 20] = 0;
    kit_fails(rp_host_local_set_extras(w->c, w->vm, large, &w->err), w->err, RP_ERR_INVALID);
    kit_fails(rp_host_local_set_extras(w->c, w->vm, "\xff", &w->err), w->err, RP_ERR_INVALID);
    kit_fails(rp_host_local_set_extras(w->c, snap, "x", &w->err), w->err, RP_ERR_NOT_FOUND);
    RP_AUTO_FREE char *text = NULL;
    kit_fails(rp_host_local_extras(w->c, "Microsoft:nothing", &text, &w->err), w->err, RP_ERR_NOT_FOUND);
    has_extras(w, w->vm, "third");
}

// ---- exports --------------------------------------------------------------------------------------------------------

static int stop_at(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    int *left = context;
    return --*left < 0;
}

static void extras_that_were_said_before_are_the_new_vms_from_the_start(void **state)
{
    struct world *w = *state;
    char id[RP_HOST_ID] = "";
    static const char *const expected[] = {"<a/>", ""};
    rp_host_local_next_extras(w->c, "<a/>");
    kit_fails(w->c->ops->define_system(w->c, "a\nb", NULL, 0, NULL, NULL, job, id, &w->err), w->err, RP_ERR_INVALID);
    for (size_t i = 0; i < 3; i++) { // used up by the failure; then used; then none
        RP_AUTO_FREE char *text = NULL, *name = kit_path("vm%zu", i);
        if (i == 1)
            rp_host_local_next_extras(w->c, "<a/>");
        kit_ok(w->c->ops->define_system(w->c, name, NULL, 0, NULL, NULL, job, id, &w->err), w->err);
        kit_ok(rp_host_local_extras(w->c, id, &text, &w->err), w->err);
        assert_string_equal(text, expected[i != 1]);
    }
    rp_host_local_next_extras(w->c, "\xff");
    kit_fails(w->c->ops->define_system(w->c, "x", NULL, 0, NULL, NULL, job, id, &w->err), w->err, RP_ERR_INVALID);
}

static void a_cancelled_export_leaves_nothing_whenever_it_is_stopped(void **state)
{
    struct world *w = *state;
    int calls = 0;
    bool ended = false;
    for (; !ended && calls < 100; calls++) {
        int left = calls;
        w->c->progress = stop_at;
        w->c->progress_context = &left;
        rp_error_clear(&w->err);
        ended = !export_now(w, w->out);
        w->c->progress = NULL;
        if (!ended) {
            assert_int_equal(w->err.code, RP_ERR_CANCELLED);
            assert_int_equal(entries(w->out), 0);
        }
    }
    assert_true(ended && calls > 3);
    reopen(w);
    assert_int_equal(entries(w->out), 2);
}

static void an_export_replaces_nothing_and_removes_nothing_that_was_there(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *disks = kit_path("%s/Virtual Hard Disks", w->out), *disk = kit_path("%s/disk0.vhdx", disks),
                      *machines = kit_path("%s/Virtual Machines", w->out),
                      *elsewhere = kit_path("%s/elsewhere", w->files);
    assert_int_equal(mkdir(disks, 0700), 0);
    kit_write_file(disk, "mine", 4);
    kit_fails(export_now(w, w->out), w->err, RP_ERR_EXISTS);
    assert_int_equal(entries(w->out), 1);
    RP_AUTO_FREE char *still = read_text(disk);
    assert_string_equal(still, "mine");
    unlink(disk);
    // folders that are links lead nowhere
    assert_int_equal(rmdir(disks), 0);
    assert_int_equal(mkdir(elsewhere, 0700), 0);
    assert_int_equal(symlink(elsewhere, disks), 0);
    kit_fails(export_now(w, w->out), w->err, RP_ERR_EXISTS);
    assert_int_equal(entries(elsewhere), 0);
    unlink(disks);
    assert_int_equal(symlink(elsewhere, machines), 0);
    kit_fails(export_now(w, w->out), w->err, RP_ERR_EXISTS);
    assert_int_equal(entries(elsewhere), 0);
    unlink(machines);
    // folders that are there are used, and stay
    assert_int_equal(mkdir(disks, 0700), 0);
    kit_ok(export_now(w, w->out), w->err);
    kit_fails(export_now(w, elsewhere + 1), w->err, RP_ERR_NOT_FOUND);
    RP_AUTO_FREE char *file = kit_path("%s/web1.raw", w->files);
    kit_fails(export_now(w, file), w->err, RP_ERR_INVALID);
}

static void what_a_killed_export_left_goes_when_the_host_is_opened(void **state)
{
    struct world *w = *state;
    kit_ok(export_now(w, w->out), w->err);
    RP_AUTO_FREE char *definition = definition_of(w), *disk = kit_path("%s/Virtual Hard Disks/disk0.vhdx", w->out);
    RP_AUTO_FREE char *sql = kit_path("INSERT INTO export (definition) VALUES ('%s');"
        "INSERT INTO export_name SELECT max(row), 0, '%s' FROM export; INSERT INTO export_name SELECT max(row), 0, '%s' FROM export;"
        "INSERT INTO export_name SELECT max(row), 0, '%s.new' FROM export;"
        "INSERT INTO export_name SELECT max(row), 1, '%s/Virtual Machines' FROM export;"
        "INSERT INTO export_name SELECT max(row), 1, '%s/Virtual Hard Disks' FROM export", definition, definition, disk,
        definition, w->out, w->out);
    run_sql(w, sql);
    reopen(w);
    assert_true(exists(definition) && exists(disk)); // it was whole
    run_sql(w, sql);
    unlink(definition);
    RP_AUTO_FREE char *unfinished = kit_path("%s.new", definition);
    kit_write_file(unfinished, "{", 1);
    reopen(w);
    assert_int_equal(entries(w->out), 0);
    reopen(w);
    kit_ok(export_now(w, w->out), w->err);
    // a folder that became a link meanwhile is not followed
    run_sql(w, sql);
    unlink(definition);
    RP_AUTO_FREE char *disks = kit_path("%s/Virtual Hard Disks", w->out), *moved = kit_path("%s/moved", w->files);
    assert_int_equal(rename(disks, moved), 0);
    assert_int_equal(symlink(moved, disks), 0);
    reopen(w);
    RP_AUTO_FREE char *kept = kit_path("%s/disk0.vhdx", moved);
    assert_true(exists(kept));
}

// In a process of its own: announces the file, makes it, and then waits to be killed.
static pid_t begin_a_file(struct world *w, const char *path)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    rp_host_close(w->c); // no SQLite across a fork
    w->c = NULL;
    pid_t child = fork();
    if (child) {
        char byte;
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        return child;
    }
    int64_t making;
    struct rp_host_connection *host = rp_host_local_open(w->host, NULL);
    if (!host || rp_host_local_making(host, path, &making, NULL))
        _exit(1); // the parent's read ends
    kit_write_file(path, "half of it", 10);
    if (write(ready[1], "", 1) == 1)
        pause();
    _exit(1);
}

static void what_a_killed_maker_of_a_file_left_goes_when_the_host_is_opened(void **state)
{
    struct world *w = *state;
    int64_t making;
    RP_AUTO_FREE char *part = kit_path("%s/new.vhdx.1.part", w->out), *whole = kit_path("%s/new.vhdx", w->out);
    pid_t child = begin_a_file(w, part);
    reopen(w); // the maker lives
    assert_true(exists(part));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    reopen(w);
    assert_false(exists(part));
    // what was given its name stays, and what was there before is nobody's
    kit_ok(rp_host_local_making(w->c, part, &making, &w->err), w->err);
    kit_write_file(part, "all of it", 9);
    assert_int_equal(rename(part, whole), 0);
    kit_ok(rp_host_local_made(w->c, making, &w->err), w->err);
    kit_fails(rp_host_local_making(w->c, whole, &making, &w->err), w->err, RP_ERR_EXISTS);
    // a failure
    kit_ok(rp_host_local_making(w->c, part, &making, &w->err), w->err);
    kit_write_file(part, "half of it", 10);
    kit_ok(rp_host_local_made(w->c, making, &w->err), w->err);
    assert_false(exists(part));
    reopen(w);
    assert_int_equal(entries(w->out), 1);
    assert_true(exists(whole));
}

static void an_export_is_read_by_programs_of_others(void **state)
{
    struct world *w = *state;
    if (system("command -v qemu-img >/dev/null 2>&1"))
        skip();
    kit_ok(export_now(w, w->out), w->err);
    RP_AUTO_FREE char *compare = kit_path("qemu-img check -q '%1$s/Virtual Hard Disks/disk0.vhdx' && qemu-img compare -q -f vhdx -F raw"
                                          " '%1$s/Virtual Hard Disks/disk0.vhdx' %2$s/web1.raw", w->out, w->files);
    assert_int_equal(system(compare), 0);
}

static void names_of_vms_and_disks_stay_inside_the_folder(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {"../../escape", "..", ".hidden", "a/b\\c:d*e?f\"g<h>i|j", "end. ", "机"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        kit_ok(w->c->ops->rename(w->c, w->vm, names[i], job, result, &w->err), w->err);
        struct rp_export what = {.vm_id = w->vm, .folder = w->out, .subdirectory = true, .storage = true};
        RP_AUTO_FREE char *definition = rp_host_local_export_file(w->c, &what, &w->err);
        kit_ok(!definition, w->err);
        kit_ok(w->c->ops->export_system(w->c, &what, job, result, &w->err), w->err);
        assert_true(exists(definition));
        RP_AUTO_FREE char *inside = kit_path("%s/", w->out);
        assert_memory_equal(definition, inside, strlen(inside));
        assert_int_equal(entries(w->out), i + 1);
    }
    assert_int_equal(entries(w->files), 2); // web1.raw, out
}

static void disks_of_one_name_are_told_apart(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 2; i++) {
        RP_AUTO_FREE char *folder = kit_path("%s/%d", w->files, i), *disk = kit_path("%s/DISK0.vhdx", folder);
        assert_int_equal(mkdir(folder, 0700), 0);
        kit_vhdx(disk, DISK);
        kit_ok(w->c->ops->add_disk(w->c, w->vm, disk, job, result, &w->err), w->err);
    }
    kit_ok(export_now(w, w->out), w->err);
    RP_AUTO_FREE char *disks = kit_path("%s/Virtual Hard Disks", w->out), *definition = definition_of(w);
    assert_int_equal(entries(disks), 3);
    kit_ok(import(w, definition, true, result), w->err);
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory planned = {0};
    kit_ok(rp_host_local_list_planned(w->c, &planned, &w->err), w->err);
    assert_int_equal(planned.count, 1);
    assert_string_equal(planned.items[0].vm.id, result);
    assert_string_equal(planned.items[0].vm.name, "web1");
    assert_int_equal(planned.items[0].settings.disk_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(exists(planned.items[0].settings.disks[i].path));
    kit_ok(w->c->ops->realize_planned(w->c, planned.items[0].vm.id, job, result, &w->err), w->err);
    rp_inventory_clear(&planned);
    kit_ok(rp_host_local_list_planned(w->c, &planned, &w->err), w->err);
    assert_int_equal(planned.count, 0);
}

// ---- imports --------------------------------------------------------------------------------------------------------

static void a_link_in_an_export_leads_nowhere(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *definition = definition_of(w), *disks = kit_path("%s/Virtual Hard Disks", w->out),
                      *disk = kit_path("%s/disk0.vhdx", disks), *moved = kit_path("%s/moved", w->files);
    kit_ok(export_now(w, w->out), w->err);
    assert_int_equal(rename(disk, moved), 0);
    assert_int_equal(symlink(moved, disk), 0);
    kit_fails(import(w, definition, true, result), w->err, RP_ERR_PERMISSION);
    unlink(disk);
    assert_int_equal(symlink("/nowhere/disk0.vhdx", disk), 0);
    kit_fails(import(w, definition, true, result), w->err, RP_ERR_PERMISSION);
    unlink(disk);
    kit_ok(import(w, definition, true, result), w->err); // nothing there, yet
    assert_int_equal(symlink(moved, disk), 0);           // now something that was not checked
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory planned = {0};
    kit_ok(rp_host_local_list_planned(w->c, &planned, &w->err), w->err);
    kit_fails(w->c->ops->realize_planned(w->c, planned.items[0].vm.id, job, result, &w->err), w->err,
              RP_ERR_PERMISSION);
    unlink(disk);
    assert_int_equal(rename(disks, moved), -1);
    RP_AUTO_FREE char *folder = kit_path("%s/folder", w->files), *there = kit_path("%s/disk0.vhdx", folder);
    assert_int_equal(rename(disks, folder), 0);
    assert_int_equal(rename(moved, there), 0);
    assert_int_equal(symlink(folder, disks), 0);
    kit_fails(import(w, definition, true, result), w->err, RP_ERR_PERMISSION);
    unlink(disks);
    assert_int_equal(symlink("/nowhere", disks), 0);
    kit_fails(import(w, definition, true, result), w->err, RP_ERR_PERMISSION);
}

// The definition with `from` replaced by `to`.
static int import_changed(struct world *w, const char *text, const char *from, const char *to)
{
    RP_AUTO_FREE char *path = kit_path("%s/Virtual Machines/changed.vmcx", w->out);
    const char *at = strstr(text, from);
    assert_non_null(at);
    RP_AUTO_FREE char *changed = kit_path("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    kit_write_file(path, changed, strlen(changed));
    return import(w, path, true, result);
}

static void definitions_that_make_no_sense_are_refused(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *definition = definition_of(w);
    kit_ok(export_now(w, w->out), w->err);
    RP_AUTO_FREE char *text = read_text(definition);
    static const struct {
        const char *from, *to;
    } wrong[] = {
        {"\"disk0.vhdx\"", "\"../../etc/passwd\""}, {"\"disk0.vhdx\"", "\"/etc/passwd\""}, {"\"disk0.vhdx\"", "\"..\""},
        {"\"disk0.vhdx\"", "\"a\\\\b\""}, {"\"disk0.vhdx\"", "\"disk0.vhdx\\u0000\""}, {"\"disk0.vhdx\"", "17"},
        {"\"number\": 0", "\"number\": -1"}, {"\"number\": 0", "\"number\": 65536"},
        {"\"number\": 0", "\"number\": 0.5"}, {"\"size\": 4194304", "\"size\": 99999999999999999"},
        {"\"name\": \"web1\"", "\"name\": \"\""}, {"\"name\": \"web1\"", "\"name\": \"a\\nb\""}, {"\"id\":", "\"it\":"},
        {"\"disks\":", "\"disk\":"}, {"\"rct_id\": \"\"", "\"rct_id\": \"nonsense\""},
        {"\"created\": \"2", "\"created\": \"x"}, {"\"generation\": 2", "\"generation\": 3"},
        {"\"generation\": 2", "\"generation\": 0"},
        {"\"disk_id\": \"", "\"disk_id\": \"x"}, {"\"controller\": \"", "\"controller\": \"x"},
        {"\"generation\"", "\"id\": \"\", \"generation\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        rp_error_clear(&w->err);
        if (!import_changed(w, text, wrong[i].from, wrong[i].to))
            fail_msg("%s was accepted", wrong[i].to);
        if (w->err.code != RP_ERR_CORRUPT && w->err.code != RP_ERR_INVALID)
            fail_msg("%s: %s", wrong[i].to, w->err.text);
    }
    rp_error_clear(&w->err);
    kit_fails(import_changed(w, text, "refpoint export 1", "refpoint export 2"), w->err, RP_ERR_UNSUPPORTED);
    kit_fails(import_changed(w, text, "refpoint export 1", "refpoint offline VM 1"), w->err, RP_ERR_INVALID);
    kit_ok(import_changed(w, text, "\"file\"", "\"unknown\": [[[{}]]], \"file\""), w->err);
    kit_fails(import(w, w->out, true, result), w->err, RP_ERR_INVALID); // a folder
}

static void one_id_is_of_one_vm_planned_or_not(void **state)
{
    struct world *w = *state;
    char planned[RP_HOST_ID];
    RP_AUTO_FREE char *definition = definition_of(w);
    kit_ok(export_now(w, w->out), w->err);
    kit_ok(w->c->ops->destroy_system(w->c, w->vm, true, job, result, &w->err), w->err);
    kit_ok(import(w, definition, false, planned), w->err);
    assert_string_equal(planned, w->vm);
    rp_host_local_next_id(w->c, w->vm);
    kit_fails(w->c->ops->define_system(w->c, "other", NULL, 0, NULL, NULL, job, result, &w->err), w->err,
              RP_ERR_EXISTS);
    kit_ok(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err);
}

static void what_an_earlier_vm_of_the_same_id_left_stays(void **state)
{
    struct world *w = *state;
    char planned[RP_HOST_ID];
    RP_AUTO_FREE char *definition = definition_of(w), *folder = kit_path("%s/vms/%s", w->host, w->vm),
                      *left = kit_path("%s/disk0.vhdx", folder), *precious = kit_path("%s/precious", folder),
                      *record = kit_path("%s/chain.record", folder), *instead = kit_path("%s/instead.raw", w->files);
    kit_ok(export_now(w, w->out), w->err);
    kit_ok(w->c->ops->destroy_system(w->c, w->vm, false, job, result, &w->err), w->err);
    kit_write_file(precious, "x", 1);
    assert_true(exists(left));
    // as itself again, with the exported disk in place: deleted and cancelled, what was there before stays
    for (int i = 0; i < 2; i++) {
        kit_ok(import(w, definition, false, planned), w->err);
        kit_ok(w->c->ops->validate_planned(w->c, planned, job, result, &w->err), w->err);
        if (i) { // as if killed in the middle
            kit_ok(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err);
            run_sql(w, "UPDATE vm SET state = 'creating'; UPDATE disk SET state = 'adding'");
            reopen(w);
        } else {
            kit_ok(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err);
            kit_ok(w->c->ops->destroy_system(w->c, w->vm, true, job, result, &w->err), w->err);
        }
        assert_true(exists(left) && exists(precious));
    }
    // with a raw disk that would get the name of the one that is there
    kit_ok(import(w, definition, false, planned), w->err);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0};
    kit_ok(w->c->ops->vm_settings(w->c, planned, &s, &w->err), w->err);
    kit_raw(instead, DISK, 2);
    kit_ok(w->c->ops->modify_disk(w->c, s.disks[0].instance, instead, job, result, &w->err), w->err);
    kit_fails(w->c->ops->validate_planned(w->c, planned, job, result, &w->err), w->err, RP_ERR_STATE);
    kit_fails(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err, RP_ERR_EXISTS);
    assert_true(exists(left));
    unlink(left);
    RP_AUTO_FREE char *tracking = rp_rct_path(left), *coarse = kit_path("%s.mrt", left);
    unlink(tracking);
    unlink(coarse);
    kit_write_file(record, "x", 1);
    kit_fails(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err, RP_ERR_EXISTS);
    unlink(record);
    kit_ok(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err);
    assert_true(exists(left));
    snapshot(w, RP_SNAPSHOT_PRODUCTION, result);
    kit_ok(w->c->ops->destroy_system(w->c, w->vm, true, job, result, &w->err), w->err);
    assert_int_equal(entries(folder), 1); // its own disk went, with its checkpoint
    assert_true(exists(precious));
}

static void a_disk_that_is_added_does_not_take_the_name_of_one_that_an_earlier_vm_left(void **state)
{
    struct world *w = *state;
    char planned[RP_HOST_ID];
    RP_AUTO_FREE char *definition = definition_of(w), *left = kit_path("%s/vms/%s/disk1.vhdx", w->host, w->vm),
                      *added = kit_path("%s/vms/%s/disk2.vhdx", w->host, w->vm), *raw = kit_path("%s/second.raw", w->files);
    kit_ok(export_now(w, w->out), w->err);
    kit_ok(w->c->ops->destroy_system(w->c, w->vm, false, job, result, &w->err), w->err);
    kit_write_file(left, "precious", 8);
    kit_raw(raw, DISK, 2);
    kit_ok(import(w, definition, false, planned), w->err);
    kit_ok(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err);
    kit_ok(w->c->ops->add_disk(w->c, w->vm, raw, job, result, &w->err), w->err);
    assert_true(exists(left) && exists(added));
}

static void two_exports_do_not_announce_one_file(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *file = kit_path("%s/Virtual Hard Disks/disk0.vhdx", w->out);
    RP_AUTO_FREE char *sql = kit_path("INSERT INTO export (row, definition) VALUES (77, 'other'); "
                                      "INSERT INTO export_name (export, folder, path) VALUES (77, 0, '%s')", file);
    run_sql(w, sql);
    kit_fails(export_now(w, w->out), w->err, RP_ERR_EXISTS);
    run_sql(w, "DELETE FROM export_name; DELETE FROM export");
    kit_ok(export_now(w, w->out), w->err);
}

static void what_is_cancelled_while_it_converts_leaves_nothing(void **state)
{
    struct world *w = *state;
    int left = 1;
    RP_AUTO_FREE char *raw = kit_path("%s/second.raw", w->files), *vms = kit_path("%s/vms", w->host);
    kit_raw(raw, DISK, 2);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings s = {0}, t = {0};
    kit_ok(w->c->ops->vm_settings(w->c, w->vm, &s, &w->err), w->err);
    const char *disks[] = {raw};
    char planned[RP_HOST_ID];
    kit_ok(w->c->ops->plan_system(w->c, s.document, disks, 1, true, job, planned, &w->err), w->err);
    w->c->progress = stop_at;
    w->c->progress_context = &left;
    kit_fails(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err, RP_ERR_CANCELLED);
    assert_int_equal(entries(vms), 1);
    left = 1;
    kit_fails(w->c->ops->add_disk(w->c, w->vm, raw, job, result, &w->err), w->err, RP_ERR_CANCELLED);
    kit_ok(w->c->ops->vm_settings(w->c, w->vm, &t, &w->err), w->err);
    assert_int_equal(t.disk_count, 1);
    w->c->progress = NULL;
    kit_ok(w->c->ops->realize_planned(w->c, planned, job, result, &w->err), w->err); // the plan is as it was
    assert_int_equal(entries(vms), 2);
}

static void a_checkpoint_that_was_announced_for_a_reference_point_becomes_one(void **state)
{
    struct world *w = *state;
    // as if the process had been killed after the checkpoint was made, and before it was noted
    snapshot(w, RP_SNAPSHOT_RECOVERY, result);
    run_sql(w, "UPDATE snapshot SET state = 'creating', point = 'Microsoft:AAAAAAAA-0000-0000-0000-000000000001',"
               " operation = (SELECT operation FROM snapshot); DELETE FROM snapshot_disk");
    reopen(w);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->list_reference_points(w->c, w->vm, &points, &w->err), w->err);
    assert_int_equal(points.count, 1);
    assert_string_equal(points.items[0].id, "Microsoft:AAAAAAAA-0000-0000-0000-000000000001");
    assert_int_equal(points.items[0].disk_count, 1);
    assert_int_equal(rp_host_wait_merge(w->c, w->vm, 20000, &w->err), 0);
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
    assert_int_equal(list.count, 0);
}

// ---- who says which files may be disks ------------------------------------------------------------------------------

static const char *secret;

// What is asked about is good, and then somebody who may write there puts a link in its place.
static int exchange(void *context, const char *path, struct rp_error *err)
{
    (void)err;
    ++*(int *)context;
    assert_int_equal(unlink(path) | symlink(secret, path), 0);
    return 0;
}

static void a_link_that_comes_after_a_file_was_allowed_is_not_followed(void **state)
{
    struct world *w = *state;
    int asked = 0;
    RP_AUTO_FREE char *elsewhere = kit_path("%s/elsewhere", w->host), *raw = kit_path("%s/a.raw", w->files),
                      *vhdx = kit_path("%s/a.vhdx", w->files);
    secret = elsewhere;
    rp_host_local_set_judge(w->c, exchange, &asked);
    kit_raw(elsewhere, DISK, 2);
    kit_raw(raw, DISK, 1);
    kit_fails(w->c->ops->add_disk(w->c, w->vm, raw, job, result, &w->err), w->err, RP_ERR_PERMISSION);
    assert_int_equal(unlink(elsewhere), 0);
    kit_vhdx(elsewhere, DISK);
    kit_vhdx(vhdx, DISK);
    kit_fails(w->c->ops->add_disk(w->c, w->vm, vhdx, job, result, &w->err), w->err, RP_ERR_PERMISSION);
    assert_int_equal(asked, 2);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest management[] = {
        TEST(a_database_of_the_first_version_is_brought_up_to_date),
        TEST(the_version_tells_of_every_change_and_of_nothing_else),
        TEST(the_inventory_of_a_thousand_vms_takes_no_time),
        TEST(what_is_made_has_the_id_that_was_said_before),
        TEST(extras_go_with_the_vm_and_its_checkpoints),
        TEST(extras_that_were_said_before_are_the_new_vms_from_the_start),
        TEST(a_cancelled_export_leaves_nothing_whenever_it_is_stopped),
        TEST(an_export_replaces_nothing_and_removes_nothing_that_was_there),
        TEST(what_a_killed_export_left_goes_when_the_host_is_opened),
        TEST(what_a_killed_maker_of_a_file_left_goes_when_the_host_is_opened),
        TEST(an_export_is_read_by_programs_of_others),
        TEST(names_of_vms_and_disks_stay_inside_the_folder),
        TEST(disks_of_one_name_are_told_apart),
        TEST(a_link_in_an_export_leads_nowhere),
        TEST(definitions_that_make_no_sense_are_refused),
        TEST(one_id_is_of_one_vm_planned_or_not),
        TEST(what_an_earlier_vm_of_the_same_id_left_stays),
        TEST(a_disk_that_is_added_does_not_take_the_name_of_one_that_an_earlier_vm_left),
        TEST(two_exports_do_not_announce_one_file),
        TEST(what_is_cancelled_while_it_converts_leaves_nothing),
        TEST(a_checkpoint_that_was_announced_for_a_reference_point_becomes_one),
        TEST(a_link_that_comes_after_a_file_was_allowed_is_not_followed),
    };
    return cmocka_run_group_tests(management, NULL, NULL);
}
