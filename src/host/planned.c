// Planned VMs: what is to become a VM, until its disks are where they should be (facts/wmi.md 1.5 D). A plan is rows and
// nothing else: no file is made, and none is needed before it is realized.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "host/internal.h"
#include "host/local.h"

void rp_local_planned_clear(struct rp_local_planned *planned)
{
    for (size_t i = 0; i < planned->disk_count; i++)
        free(planned->disks[i].path);
    free(planned->name);
    free(planned->extras);
    *planned = (struct rp_local_planned){0};
}

static void take_disk(sqlite3_stmt *row, struct rp_local_planned_disk *disk)
{
    *disk = (struct rp_local_planned_disk){.number = (uint32_t)sqlite3_column_int64(row, 0),
                                           .path = rp_xstrdup(rp_db_text(row, 3)),
                                           .size = (uint64_t)sqlite3_column_int64(row, 4),
                                           .logical = (uint32_t)sqlite3_column_int64(row, 5),
                                           .physical = (uint32_t)sqlite3_column_int64(row, 6),
                                           .block = (uint32_t)sqlite3_column_int64(row, 7)};
    rp_db_copy(row, 1, disk->instance, sizeof disk->instance);
    rp_guid_parse(rp_db_text(row, 2), &disk->disk_id, NULL);
}

int rp_local_planned_load(struct rp_local *local, const char *id, struct rp_local_planned *planned,
                          struct rp_error *err)
{
    struct rp_guid guid;
    char text[RP_GUID_TEXT];
    if (rp_guid_parse(id, &guid, NULL))
        return 0;
    rp_local_guid_text(&guid, text);
    RP_AUTO_QUERY *head = rp_db_query(local->db, err,
        "SELECT row, id, name, generation, created, controller, extras FROM planned WHERE id = ?", "t", text);
    int rc = head ? rp_db_step(local->db, head, err) : -1;
    if (rc != 1)
        return rc;
    *planned = (struct rp_local_planned){.row = sqlite3_column_int64(head, 0), .name = rp_xstrdup(rp_db_text(head, 2)),
                                         .generation = sqlite3_column_int64(head, 3),
                                         .created = sqlite3_column_int64(head, 4),
                                         .extras = rp_xstrdup(rp_db_text(head, 6))};
    memcpy(planned->id, text, sizeof planned->id);
    rp_db_copy(head, 5, planned->controller, sizeof planned->controller);
    RP_AUTO_QUERY *disks = rp_db_query(local->db, err,
        "SELECT number, instance, disk_id, path, size, logical, physical, block FROM planned_disk WHERE planned = ?"
        " ORDER BY number", "i", planned->row);
    rc = disks ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, disks, err)) == 1 && planned->disk_count < RP_ENGINE_MAX_DISKS)
        take_disk(disks, &planned->disks[planned->disk_count++]);
    if (rc >= 0)
        return 1;
    rp_local_planned_clear(planned);
    return -1;
}

static int load_or_fail(struct rp_local *local, const char *id, struct rp_local_planned *planned, struct rp_error *err)
{
    int rc = rp_local_planned_load(local, id, planned, err);
    return rc == 1 ? 0 : rc < 0 ? -1 : rp_fail(err, RP_ERR_NOT_FOUND, "%s: no planned VM %s", local->host.address, id);
}

// ---- a plan is made -------------------------------------------------------------------------------------------------

static int insert_disk(struct rp_local *local, const struct rp_local_vm *vm, int64_t planned,
                       const struct rp_local_definition_disk *disk, const char *path, struct rp_error *err)
{
    char instance[RP_HOST_ID], disk_id[RP_GUID_TEXT];
    rp_local_settings_instance(vm, disk->number, instance);
    rp_local_guid_text(&disk->disk_id, disk_id);
    return rp_db_run(local->db, err,
                     "INSERT INTO planned_disk (planned, number, instance, disk_id, path, size, logical, physical, block)"
                     " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                     "iitttiiii", planned, (int64_t)disk->number, instance, disk_id, path, (int64_t)disk->size,
                     (int64_t)disk->logical, (int64_t)disk->physical, (int64_t)disk->block);
}

// `fresh`: the id of a new identity; NULL: the old one. One id is of one VM, planned or not: what is asked of it is never
// done to the other.
static int insert(struct rp_local *local, const struct rp_local_definition *d, char *const *paths, const char *fresh,
                  char result[RP_HOST_ID], struct rp_error *err)
{
    struct rp_local_vm vm = {.local = local}; // for the names of its disks
    memcpy(vm.id, fresh ? fresh : d->id, sizeof vm.id);
    memcpy(vm.controller, d->controller, sizeof vm.controller);
    if (fresh || !*vm.controller)
        rp_local_new_id(vm.controller);
    int64_t taken = 0;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, local->db, err) ||
        rp_db_number(local->db, err, &taken,
                     "SELECT (SELECT count(*) FROM vm WHERE id = ?1) + (SELECT count(*) FROM planned WHERE id = ?1)",
                     "t", vm.id))
        return -1;
    if (taken)
        return rp_fail(err, RP_ERR_EXISTS,
                       "%s: there is a VM %s already; import it with a new identity, or delete that one",
                       local->host.address, vm.id);
    if (rp_db_run(local->db, err,
                  "INSERT INTO planned (id, name, generation, created, controller, extras) VALUES (?, ?, ?, ?, ?, ?)",
                  "ttiitt", vm.id, d->name, d->generation, fresh ? rp_clock_wall_ns() : d->created, vm.controller,
                  d->extras))
        return -1;
    int64_t row = rp_db_last_row(local->db);
    for (size_t i = 0; i < d->disk_count; i++)
        if (insert_disk(local, &vm, row, &d->disks[i], paths[i], err))
            return -1;
    if (rp_transaction_commit(&t, err))
        return -1;
    memcpy(result, vm.id, sizeof vm.id);
    return 0;
}

static void free_paths(char **paths)
{
    for (size_t i = 0; i < RP_ENGINE_MAX_DISKS; i++)
        free(paths[i]);
}

static bool is_link(const char *path)
{
    struct stat st;
    return !lstat(path, &st) && S_ISLNK(st.st_mode);
}

// Where the export has a disk. A name in it that is a link leads nowhere: what is in the folder is what was checked.
static int find_file(const char *folder, const struct rp_local_definition_disk *disk, char **out, struct rp_error *err)
{
    if (!disk->file) { // a path on the machine that it came from would say nothing here
        *out = rp_xstrdup("");
        return 0;
    }
    RP_AUTO_FREE char *path = rp_path_join(folder, disk->file);
    RP_AUTO_FREE char *real = realpath(path, NULL);
    if (!real && errno != ENOENT)
        return rp_fail_sys(err, errno, "%s", path);
    if (real && strcmp(real, path))
        return rp_fail(err, RP_ERR_PERMISSION, "%s: is a link, to %s; an export is imported as it is", path, real);
    if (!real && (is_link(folder) || is_link(path))) // which may lead somewhere by the time that it is followed
        return rp_fail(err, RP_ERR_PERMISSION, "%s: is a link that leads nowhere; an export is imported as it is", path);
    *out = path;
    path = NULL;
    return 0;
}

static int find_files(const char *definition_file, const struct rp_local_definition *d, char **paths,
                      struct rp_error *err)
{
    RP_AUTO_FREE char *machines = rp_path_directory(definition_file), *root = rp_path_directory(machines),
                      *disks = rp_path_join(root, RP_LOCAL_DISKS);
    for (size_t i = 0; i < d->disk_count; i++)
        if (find_file(disks, &d->disks[i], &paths[i], err))
            return -1;
    return 0;
}

int rp_local_planned_import(struct rp_host_connection *host, const char *definition_file, bool new_identity,
                            RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    char id[RP_GUID_TEXT];
    struct stat st;
    rp_local_take_id(local, id);
    RP_AUTO_FREE char *real = realpath(definition_file, NULL);
    if (!real || stat(real, &st))
        return rp_fail_sys(err, errno, "%s", definition_file);
    if (!S_ISREG(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "%s: not a file", definition_file);
    RP_CLEANUP(rp_local_definition_clear) struct rp_local_definition definition = {0};
    char *paths[RP_ENGINE_MAX_DISKS] = {0};
    int rc = rp_local_definition_read(local, real, &definition, err) || find_files(real, &definition, paths, err) ||
             insert(local, &definition, paths, new_identity ? id : NULL, result, err);
    free_paths(paths);
    return rc ? -1 : 0;
}

int rp_local_planned_define(struct rp_host_connection *host, const char *document, const char *const *disks,
                            size_t disk_count, bool new_identity, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    char id[RP_GUID_TEXT];
    rp_local_take_id(local, id);
    RP_CLEANUP(rp_local_definition_clear) struct rp_local_definition definition = {0};
    if (rp_local_definition_parse(document, strlen(document), &definition, err))
        return -1;
    if (disk_count != definition.disk_count)
        return rp_fail(err, RP_ERR_INVALID, "%zu paths for the %zu disks of %s", disk_count, definition.disk_count,
                       definition.name);
    char *paths[RP_ENGINE_MAX_DISKS] = {0};
    int rc = 0;
    for (size_t i = 0; !rc && i < disk_count; i++) {
        paths[i] = !disks[i] || !*disks[i] ? rp_xstrdup("") : rp_local_image_where(disks[i], err);
        rc = paths[i] ? 0 : -1;
    }
    if (!rc)
        rc = insert(local, &definition, paths, new_identity ? id : NULL, result, err);
    free_paths(paths);
    return rc;
}

// ---- and changed ----------------------------------------------------------------------------------------------------

int rp_local_planned_modify_disk(struct rp_host_connection *host, const char *instance, const char *path,
                                 RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_AUTO_FREE char *where = rp_local_image_where(path, err);
    if (!where || rp_db_run(local->db, err, "UPDATE planned_disk SET path = ? WHERE instance = ?", "tt", where,
                            instance))
        return -1;
    return sqlite3_changes(local->db->handle) ? 0
               : rp_fail(err, RP_ERR_NOT_FOUND,
                         "%s: no planned VM has a disk %s (those of other VMs are added and removed)", host->address,
                         instance);
}

int rp_local_planned_destroy(struct rp_local *local, const char *id, struct rp_error *err)
{
    return rp_db_run(local->db, err, "DELETE FROM planned WHERE id = ?", "t", id) ? -1
        : sqlite3_changes(local->db->handle) > 0;
}

int rp_local_planned_list(struct rp_host_connection *host, struct rp_vms *planned, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *planned = (struct rp_vms){0};
    RP_AUTO_QUERY *query = rp_db_query(local->db, err, "SELECT id, name FROM planned ORDER BY row", "");
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        planned->items = rp_xrealloc(planned->items, (planned->count + 1) * sizeof *planned->items);
        struct rp_vm *vm = &planned->items[planned->count++];
        *vm = (struct rp_vm){.state = RP_VM_OFF, .name = rp_xstrdup(rp_db_text(query, 1))};
        rp_db_copy(query, 0, vm->id, sizeof vm->id);
    }
    if (rc < 0)
        rp_vms_clear(planned);
    return rc;
}

int rp_host_local_list_planned(struct rp_host_connection *host, struct rp_inventory *planned, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *planned = (struct rp_inventory){0};
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_read(&t, local->db, err))
        return -1;
    RP_AUTO_QUERY *query = rp_db_query(local->db, err, "SELECT id, name FROM planned ORDER BY row", "");
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        planned->items = rp_xrealloc(planned->items, (planned->count + 1) * sizeof *planned->items);
        struct rp_inventory_vm *item = &planned->items[planned->count++];
        *item = (struct rp_inventory_vm){.vm = {.state = RP_VM_OFF, .name = rp_xstrdup(rp_db_text(query, 1))}};
        rp_db_copy(query, 0, item->vm.id, sizeof item->vm.id);
        if (rp_local_settings_vm(host, item->vm.id, &item->settings, err))
            rc = -1;
        free(item->settings.document);
        item->settings.document = NULL;
    }
    if (rc < 0)
        rp_inventory_clear(planned);
    return rc;
}

// ---- and becomes a VM -----------------------------------------------------------------------------------------------

// Reads what the paths say; the first that is of no use ends it.
static int inspect(struct rp_local *local, const struct rp_local_planned_disk *disk, struct rp_local_image *image,
                   struct rp_error *err)
{
    if (!*disk->path)
        return rp_fail(err, RP_ERR_STATE, "disk%u: nobody has said where its file is", disk->number);
    if (rp_local_image_inspect(local, disk->path, image, err))
        return rp_context(err, "disk%u", disk->number);
    // The path was checked when it was said, by whoever decides where disks may be.
    if (strcmp(image->path, disk->path))
        return rp_fail(err, RP_ERR_PERMISSION, "disk%u: %s is a link now, to %s; say again where its file is",
                       disk->number, disk->path, image->path);
    return 0;
}

static void note(struct rp_buf *problems, const char *text)
{
    rp_buf_printf(problems, "%s%s", problems->size ? "; " : "", text);
}

static void check_disk(struct rp_local *local, const struct rp_local_planned *planned, struct rp_local_image *images,
                       size_t index, struct rp_buf *problems)
{
    const struct rp_local_vm nobody = {.local = local, .row = -1};
    const struct rp_local_planned_disk *disk = &planned->disks[index];
    struct rp_error why = {0};
    if (inspect(local, disk, &images[index], &why) || rp_local_image_check_free(&nobody, &images[index], &why)) {
        note(problems, why.text);
        return;
    }
    for (size_t i = 0; i < index; i++) {
        const struct rp_local_image *a = &images[i], *b = &images[index];
        if (!a->path || a->format != RP_IMAGE_VHDX || b->format != RP_IMAGE_VHDX)
            continue;
        if (!strcmp(a->path, b->path) || rp_guid_equal(&a->disk_id, &b->disk_id)) {
            RP_AUTO_FREE char *text = rp_xasprintf("disk%u and disk%u are one disk", planned->disks[i].number,
                                                   disk->number);
            note(problems, text);
        }
    }
}

static void check_identity(struct rp_local *local, const struct rp_local_planned *planned,
                           const struct rp_local_image *images, struct rp_buf *problems)
{
    uint32_t numbers[RP_ENGINE_MAX_DISKS];
    int64_t taken = 0;
    bool inherited;
    struct rp_error why = {0};
    for (size_t i = 0; i < planned->disk_count; i++)
        numbers[i] = planned->disks[i].number;
    if (!rp_db_number(local->db, NULL, &taken, "SELECT count(*) FROM vm WHERE id = ?", "t", planned->id) && taken)
        note(problems, "there is a VM with this id");
    else if (rp_local_system_check_folder(local, planned->id, numbers, images, planned->disk_count, &inherited, &why))
        note(problems, why.text);
}

int rp_local_planned_validate(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                              struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_planned_clear) struct rp_local_planned planned = {0};
    if (load_or_fail(local, planned_id, &planned, err))
        return -1;
    RP_CLEANUP(rp_buf_clear) struct rp_buf problems = {0};
    struct rp_local_image images[RP_ENGINE_MAX_DISKS] = {0};
    for (size_t i = 0; i < planned.disk_count; i++)
        check_disk(local, &planned, images, i, &problems);
    check_identity(local, &planned, images, &problems);
    for (size_t i = 0; i < planned.disk_count; i++)
        rp_local_image_clear(&images[i]);
    return problems.size ? rp_fail(err, RP_ERR_STATE, "planned VM %s: %s", planned.id, rp_buf_text(&problems)) : 0;
}

int rp_local_planned_realize(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                             struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_planned_clear) struct rp_local_planned planned = {0};
    char unused[RP_GUID_TEXT];
    rp_local_take_id(local, unused); // the plan has its identity already
    if (load_or_fail(local, planned_id, &planned, err))
        return -1;
    struct rp_local_image images[RP_ENGINE_MAX_DISKS] = {0};
    uint32_t numbers[RP_ENGINE_MAX_DISKS];
    const struct rp_local_new_vm facts = {.id = planned.id, .name = planned.name, .controller = planned.controller,
                                          .extras = planned.extras, .generation = planned.generation,
                                          .created = planned.created, .numbers = numbers, .planned = planned.row};
    int rc = 0;
    for (size_t i = 0; !rc && i < planned.disk_count; i++) {
        numbers[i] = planned.disks[i].number;
        rc = inspect(local, &planned.disks[i], &images[i], err);
    }
    if (!rc)
        rc = rp_local_system_make(local, &facts, images, planned.disk_count, rp_local_progress_of(local), err);
    if (!rc)
        memcpy(result, planned.id, sizeof planned.id);
    for (size_t i = 0; i < planned.disk_count; i++)
        rp_local_image_clear(&images[i]);
    return rc ? rp_context(err, "planned VM %s", planned_id) : 0;
}
