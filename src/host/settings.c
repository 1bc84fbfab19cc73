// The settings of a VM and of a snapshot: its disks, and the document that a restore point keeps.
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "host/domain_state.h"
#include "host/local.h"

void rp_local_settings_instance(const struct rp_local_vm *vm, uint32_t number, char out[RP_HOST_ID])
{
    snprintf(out, RP_HOST_ID, "Microsoft:%s\\%s\\%u\\%u\\L", vm->id, vm->controller, number / 64, number % 64);
}

// What the document says of a disk besides struct rp_vm_disk.
struct entry {
    struct rp_vm_disk disk;
    uint32_t block;
};

static void append(struct rp_vm_settings *settings, json_t *list, const struct entry *entry)
{
    const struct rp_vm_disk *disk = &entry->disk;
    char guid[RP_GUID_TEXT];
    rp_local_guid_text(&disk->disk_id, guid);
    json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:I, s:i, s:i, s:i}", "number", (int)disk->number, "instance",
        disk->instance, "disk_id", guid, "path", disk->path, "size", (json_int_t)disk->size, "logical_sector",
        (int)disk->logical_sector, "physical_sector", (int)disk->physical_sector, "block_size", (int)entry->block));
    settings->disks = rp_xrealloc(settings->disks, (settings->disk_count + 1) * sizeof *settings->disks);
    settings->disks[settings->disk_count++] = *disk;
}

// host/definition.c reads it again.
static json_t *document(const struct rp_local_vm *vm, const char *extras)
{
    char created[RP_TIME_TEXT];
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s}", "format", "refpoint offline VM 1", "id", vm->id, "name", vm->name,
                     "generation", (json_int_t)vm->generation, "created", rp_time_format(vm->created, created), "controller",
                     vm->controller, "extras", extras);
}

// Takes `root` and `list`.
static int finish(struct rp_vm_settings *settings, const struct rp_local_vm *vm, json_t *root, json_t *list, struct rp_error *err)
{
    bool whole = root && json_array_size(list) == settings->disk_count;
    if (whole)
        json_object_set(root, "disks", list);
    settings->document = whole ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(list);
    json_decref(root);
    if (settings->document)
        return 0;
    rp_vm_settings_clear(settings);
    // Names and paths are checked when they come in, so somebody wrote to the database.
    return rp_fail(err, RP_ERR_CORRUPT, "VM %s: a name or path in the host's database is not valid text", vm->id);
}

// The path goes into a query of a URI (RFC 3986): everything but unreserved characters and slashes is escaped.
char *rp_local_settings_nbd_uri(const struct rp_local_vm *vm, uint32_t number)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf uri = {0};
    rp_buf_printf(&uri, "nbd+unix:///disk%u?socket=", number);
    RP_AUTO_FREE char *path = rp_path_join(vm->directory, RP_NBD_SOCKET);
    for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("-._~/", *p);
        rp_buf_printf(&uri, plain ? "%c" : "%%%02X", *p);
    }
    return rp_xstrdup(rp_buf_text(&uri));
}

static const struct rp_engine_disk *find_live(const struct rp_service_info *info, const struct rp_guid *disk_id)
{
    for (size_t i = 0; i < info->count; i++)
        if (rp_guid_equal(&info->disks[i].disk_id, disk_id))
            return &info->disks[i];
    return NULL;
}

static const char *recorded_leaf(const struct rp_record *record, uint32_t number)
{
    for (size_t i = 0; i < record->count; i++)
        if (record->disks[i].number == number)
            return record->disks[i].leaf_path;
    return NULL;
}

static int settings_planned(const struct rp_local_planned *planned, struct rp_vm_settings *settings, struct rp_error *err)
{
    struct rp_local_vm vm = {.name = planned->name, .generation = planned->generation, .created = planned->created};
    memcpy(vm.id, planned->id, sizeof vm.id);
    memcpy(vm.controller, planned->controller, sizeof vm.controller);
    json_t *list = json_array();
    for (size_t i = 0; i < planned->disk_count; i++) {
        const struct rp_local_planned_disk *from = &planned->disks[i];
        struct entry e = {.disk = {.number = from->number, .disk_id = from->disk_id, .path = rp_xstrdup(from->path), .size = from->size,
                                   .logical_sector = from->logical, .physical_sector = from->physical},
                          .block = from->block};
        memcpy(e.disk.instance, from->instance, sizeof e.disk.instance);
        append(settings, list, &e);
    }
    return finish(settings, &vm, document(&vm, planned->extras), list, err);
}

int rp_local_settings_vm(struct rp_host_connection *host, const char *vm_id, struct rp_vm_settings *settings, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *settings = (struct rp_vm_settings){0};
    RP_CLEANUP(rp_local_planned_clear) struct rp_local_planned planned = {0};
    int is_planned = rp_local_planned_load(local, vm_id, &planned, err);
    if (is_planned)
        return is_planned < 0 ? -1 : settings_planned(&planned, settings, err);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (rp_local_vm_load(local, vm_id, &vm, err))
        return -1;
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    bool running = rp_local_vm_running(&vm);
    if (!running)
        rp_local_vm_adopt(&vm, NULL); // what cannot be had now is shown as the record has it
    if (running) {
        RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(&vm, err);
        if (!service || rp_service_info(service, &info, err))
            return rp_context(err, "VM %s", vm.id);
    } else if (rp_record_read(local->fs, vm.directory, &record, err)) {
        return rp_context(err, "VM %s", vm.id);
    }

    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT number, disk_id, path, size, logical, physical, block FROM disk WHERE vm = ? AND state = 'ready' ORDER BY number",
        "i", vm.row);
    json_t *list = json_array();
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        struct entry e = {.disk = {.number = (uint32_t)sqlite3_column_int64(query, 0),
                                   .size = (uint64_t)sqlite3_column_int64(query, 3),
                                   .logical_sector = (uint32_t)sqlite3_column_int64(query, 4),
                                   .physical_sector = (uint32_t)sqlite3_column_int64(query, 5)},
                          .block = (uint32_t)sqlite3_column_int64(query, 6)};
        const char *path = rp_db_text(query, 2);
        rp_guid_parse(rp_db_text(query, 1), &e.disk.disk_id, NULL);
        rp_local_settings_instance(&vm, e.disk.number, e.disk.instance);
        const struct rp_engine_disk *live = running ? find_live(&info, &e.disk.disk_id) : NULL;
        if (live) {
            path = live->leaf_path;
            e.disk.size = live->size;
            e.disk.nbd_uri = rp_local_settings_nbd_uri(&vm, e.disk.number);
        } else if (!running) {
            RP_CLEANUP(rp_local_image_clear) struct rp_local_image facts = {0};
            path = recorded_leaf(&record, e.disk.number) ? recorded_leaf(&record, e.disk.number) : path;
            // A file that is gone does not hide the rest of the VM: the size as last seen stands.
            if (!rp_local_image_facts(local->fs, path, &facts, NULL))
                e.disk.size = facts.size;
        }
        e.disk.path = rp_xstrdup(path);
        append(settings, list, &e);
    }
    if (rc < 0) {
        json_decref(list);
        rp_vm_settings_clear(settings);
        return -1;
    }
    RP_AUTO_FREE char *extras = NULL;
    if (rp_host_local_extras(host, vm.id, &extras, err)) {
        json_decref(list);
        rp_vm_settings_clear(settings);
        return -1;
    }
    return finish(settings, &vm, document(&vm, extras), list, err);
}

int rp_local_settings_snapshot(struct rp_host_connection *host, const char *snapshot_id, struct rp_vm_settings *settings,
                               struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *settings = (struct rp_vm_settings){0};
    RP_AUTO_QUERY *head = rp_db_query(local->db, err, "SELECT row, vm, id, name, type, time, state, extras FROM snapshot WHERE id = ?",
                                      "t", snapshot_id);
    int rc = head ? rp_db_step(local->db, head, err) : -1;
    if (rc < 0)
        return -1;
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (rc == 1 && (rc = rp_local_vm_load_row(local, sqlite3_column_int64(head, 1), &vm, err)) < 0)
        return -1;
    if (rc == 0 || !strcmp(rp_db_text(head, 6), "creating"))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no checkpoint %s", host->address, snapshot_id);
    if (strcmp(rp_db_text(head, 6), "ready"))
        return rp_fail(err, RP_ERR_STATE, "checkpoint %s is being merged: it has no disks of its own any more", snapshot_id);

    RP_AUTO_FREE char *extras = rp_local_domain_extras(local, sqlite3_column_int64(head, 0), rp_db_text(head, 7), err);
    if (!extras)
        return -1;
    json_t *root = document(&vm, extras);
    char taken[RP_TIME_TEXT];
    json_object_set_new(root, "snapshot", json_pack("{s:s, s:s, s:i, s:s}", "id", rp_db_text(head, 2), "name",
        rp_db_text(head, 3), "type", (int)sqlite3_column_int64(head, 4), "time",
        rp_time_format(sqlite3_column_int64(head, 5), taken)));
    json_t *list = json_array();
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT number, instance, disk_id, path, size, logical, physical, block FROM snapshot_disk WHERE snapshot = ?"
        " ORDER BY number", "i", (int64_t)sqlite3_column_int64(head, 0));
    rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
        struct entry e = {.disk = {.number = (uint32_t)sqlite3_column_int64(query, 0),
                                   .size = (uint64_t)sqlite3_column_int64(query, 4),
                                   .logical_sector = (uint32_t)sqlite3_column_int64(query, 5),
                                   .physical_sector = (uint32_t)sqlite3_column_int64(query, 6)},
                          .block = (uint32_t)sqlite3_column_int64(query, 7)};
        rp_db_copy(query, 1, e.disk.instance, sizeof e.disk.instance);
        rp_guid_parse(rp_db_text(query, 2), &e.disk.disk_id, NULL);
        e.disk.path = rp_xstrdup(rp_db_text(query, 3));
        append(settings, list, &e);
    }
    if (rc < 0) {
        json_decref(root);
        json_decref(list);
        rp_vm_settings_clear(settings);
        return -1;
    }
    return finish(settings, &vm, root, list, err);
}
