// ExportSystemDefinition (docs/formats/export.md): the disks of a checkpoint, or of a VM that is off, as files of their own, whole
// or as what has changed since a reference point, and the definition of the VM.
//
// The VM is locked only until all its chains are open for reading: from then on nobody merges them (a merge waits for readers),
// and the copy may take its time.

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk/chain.h"
#include "host/internal.h"
#include "host/local.h"

struct disk {
    const struct rp_vm_disk *facts;
    bool wanted;
    char *name, *path;             // "web.vhdx", where it goes
    char rct_id[RP_RCT_ID_TEXT];   // of the moment that is exported; "": not tracked
    char base_id[RP_RCT_ID_TEXT];  // of the base's moment; "": the whole disk
    struct rp_chain chain;
    struct rp_ranges changed;
    uint64_t bytes;                // to be copied
};

struct job {
    struct rp_local *local;
    const struct rp_export *what;
    struct rp_local_export_names names;
    struct rp_fs_no_links files;            // in the export's folder
    struct rp_vm_settings settings;
    struct disk disks[RP_ENGINE_MAX_DISKS]; // as in settings
};

static void job_clear(struct job *j)
{
    for (size_t i = 0; i < RP_ENGINE_MAX_DISKS; i++) {
        free(j->disks[i].name);
        free(j->disks[i].path);
        rp_chain_close(&j->disks[i].chain);
        rp_ranges_clear(&j->disks[i].changed);
    }
    rp_vm_settings_clear(&j->settings);
    rp_local_export_names_clear(&j->names);
}

// ---- where it goes --------------------------------------------------------------------------------------------------

// `names`: root and definition.
static int place(struct rp_local *local, const struct rp_export *what, const char *name,
                 struct rp_local_export_names *names, struct rp_error *err)
{
    struct stat st;
    struct rp_guid guid;
    char id[RP_GUID_TEXT];
    if (rp_guid_parse(what->vm_id, &guid, NULL))
        return rp_local_not_found(local, what->vm_id, err);
    rp_local_guid_text(&guid, id);
    RP_AUTO_FREE char *folder = what->canonical ? rp_xstrdup(what->folder) : realpath(what->folder, NULL);
    if (!folder || lstat(folder, &st))
        return rp_fail_sys(err, errno, "%s: export", what->folder);
    if (!S_ISDIR(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "%s: not a folder", what->folder);
    RP_AUTO_FREE char *part = rp_local_name_as_file(name), *file = rp_xasprintf("%s.vmcx", id);
    names->local = local;
    names->root = what->subdirectory ? rp_path_join(folder, part) : rp_xstrdup(folder);
    RP_AUTO_FREE char *machines = rp_path_join(names->root, RP_LOCAL_MACHINES);
    names->definition = rp_path_join(machines, file);
    return 0;
}

char *rp_host_local_export_file(struct rp_host_connection *host, const struct rp_export *what, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    RP_CLEANUP(rp_local_export_names_clear) struct rp_local_export_names names = {0};
    if (rp_local_vm_load(rp_local_of(host), what->vm_id, &vm, err) || place(vm.local, what, vm.name, &names, err))
        return NULL;
    char *definition = names.definition;
    names.definition = NULL;
    return definition;
}

// The name of the disk's first file, so that it is the same in every export; told apart from those before it.
static int name_disk(struct job *j, const struct rp_local_vm *vm, size_t index, struct rp_error *err)
{
    struct disk *disk = &j->disks[index];
    RP_AUTO_QUERY *query = rp_db_query(j->local->db, err, "SELECT path FROM disk WHERE vm = ? AND number = ?", "ii",
                                       vm->row, (int64_t)disk->facts->number);
    int rc = query ? rp_db_step(j->local->db, query, err) : -1;
    if (rc < 0)
        return -1;
    RP_AUTO_FREE char *stem = rp_xstrdup(rp_path_name(rc ? rp_db_text(query, 0) : disk->facts->path));
    char *dot = strrchr(stem, '.');
    if (dot && dot != stem)
        *dot = '\0';
    RP_AUTO_FREE char *file = rp_local_name_as_file(stem);
    disk->name = rp_xasprintf("%s.vhdx", file);
    for (size_t i = 0; i < index; i++)
        if (!strcasecmp(j->disks[i].name, disk->name)) {
            free(disk->name);
            disk->name = rp_xasprintf("%s_%u.vhdx", file, disk->facts->number);
            break;
        }
    RP_AUTO_FREE char *folder = rp_path_join(j->names.root, RP_LOCAL_DISKS);
    disk->path = rp_path_join(folder, disk->name);
    return 0;
}

static int add_names(struct job *j, struct rp_error *err)
{
    RP_AUTO_FREE char *machines = rp_path_join(j->names.root, RP_LOCAL_MACHINES);
    RP_AUTO_FREE char *disks = rp_path_join(j->names.root, RP_LOCAL_DISKS);
    RP_AUTO_FREE char *unfinished = rp_xasprintf("%s.new", j->names.definition);
    bool any = false;
    for (size_t i = 0; i < j->settings.disk_count; i++)
        any |= j->disks[i].wanted;
    struct stat st;
    if (j->what->subdirectory && !lstat(j->names.root, &st))
        return rp_fail(err, RP_ERR_EXISTS, "%s: is there already", j->names.root);
    if ((j->what->subdirectory && rp_local_export_names_add(&j->names, j->names.root, true, err)) ||
        rp_local_export_names_add(&j->names, machines, true, err) ||
        (any && rp_local_export_names_add(&j->names, disks, true, err)) ||
        rp_local_export_names_add(&j->names, j->names.definition, false, err) ||
        rp_local_export_names_add(&j->names, unfinished, false, err))
        return -1;
    for (size_t i = 0; i < j->settings.disk_count; i++)
        if (j->disks[i].wanted && rp_local_export_names_add(&j->names, j->disks[i].path, false, err))
            return -1;
    return 0;
}

// ---- what it holds --------------------------------------------------------------------------------------------------

static int choose(struct job *j, struct rp_error *err)
{
    const struct rp_export *what = j->what;
    for (size_t i = 0; i < j->settings.disk_count; i++)
        j->disks[i] = (struct disk){.facts = &j->settings.disks[i], .wanted = what->storage};
    for (size_t e = 0; e < what->excluded_count; e++) {
        bool known = false;
        for (size_t i = 0; i < j->settings.disk_count; i++)
            if (!strcasecmp(what->excluded[e], j->settings.disks[i].instance)) {
                j->disks[i].wanted = false;
                known = true;
            }
        if (!known)
            return rp_fail(err, RP_ERR_INVALID, "VM %s has no disk %s that could be left out", what->vm_id,
                           what->excluded[e]);
    }
    return 0;
}

static int read_ids(struct job *j, int64_t snapshot, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(j->local->db, err, "SELECT number, rct_id FROM snapshot_disk WHERE snapshot = ?",
                                       "i", snapshot);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(j->local->db, query, err)) == 1)
        for (size_t i = 0; i < j->settings.disk_count; i++)
            if (j->disks[i].facts->number == (uint32_t)sqlite3_column_int64(query, 0))
                rp_db_copy(query, 1, j->disks[i].rct_id, sizeof j->disks[i].rct_id);
    return rc;
}

// A disk that the base does not have is exported whole.
static int read_base(struct job *j, const struct rp_local_vm *vm, struct rp_error *err)
{
    int64_t point = 0;
    if (rp_db_number(j->local->db, err, &point, "SELECT row FROM reference_point WHERE id = ? AND vm = ?", "ti",
                     j->what->base_point_id, vm->row))
        return -1;
    if (!point)
        return rp_fail(err, RP_ERR_NOT_FOUND, "VM %s has no reference point %s", vm->id, j->what->base_point_id);
    RP_AUTO_QUERY *query = rp_db_query(j->local->db, err, "SELECT disk_id, rct_id FROM reference_disk WHERE point = ?",
                                       "i", point);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(j->local->db, query, err)) == 1) {
        struct rp_guid disk_id;
        if (rp_guid_parse(rp_db_text(query, 0), &disk_id, err))
            return -1;
        for (size_t i = 0; i < j->settings.disk_count; i++) {
            struct disk *disk = &j->disks[i];
            if (!disk->wanted || !rp_guid_equal(&disk->facts->disk_id, &disk_id))
                continue;
            if (!*rp_db_text(query, 1))
                return rp_fail(err, RP_ERR_TRACKING_OFF,
                               "disk%u: its changes were not tracked at the reference point %s", disk->facts->number,
                               j->what->base_point_id);
            rp_db_copy(query, 1, disk->base_id, sizeof disk->base_id);
        }
    }
    return rc;
}

static int count(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    if (state == RP_VHDX_DATA)
        *(uint64_t *)context += length;
    return 0;
}

// Opens the disk's chain, which nobody changes from then on.
static int open_disk(struct job *j, struct rp_service *service, struct disk *disk, struct rp_error *err)
{
    struct rp_rct_id base;
    if (rp_chain_open(j->local->fs, disk->facts->path, &disk->chain, err))
        return rp_context(err, "disk%u", disk->facts->number);
    struct rp_vhdx *top = disk->chain.layers[0];
    uint64_t size = rp_vhdx_info(top)->size;
    if (!*disk->base_id)
        return rp_vhdx_chain_extents(top, 0, size, count, &disk->bytes, err) ? -1 : 0;
    if (rp_rct_id_parse(disk->base_id, &base, err) ||
        rp_service_changes(service, disk->facts->path, &base, 0, size, &disk->changed, err))
        return rp_context(err, "disk%u: changes since the reference point %s", disk->facts->number,
                          j->what->base_point_id);
    for (size_t i = 0; i < disk->changed.count; i++)
        if (rp_vhdx_chain_extents(top, disk->changed.items[i].offset, disk->changed.items[i].length, count,
                                  &disk->bytes, err))
            return -1;
    return 0;
}

static int find_snapshot(struct job *j, const struct rp_local_vm *vm, int64_t *row, struct rp_error *err)
{
    *row = 0;
    if (rp_db_number(j->local->db, err, row, "SELECT row FROM snapshot WHERE id = ? AND vm = ? AND state <> 'creating'",
                     "ti", j->what->snapshot_id, vm->row))
        return -1;
    return *row ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "VM %s has no checkpoint %s", vm->id, j->what->snapshot_id);
}

static int prepare(struct job *j, struct rp_error *err)
{
    const struct rp_export *what = j->what;
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    int64_t snapshot = 0;
    if (rp_local_vm_lock(j->local, what->vm_id, &vm, err) || place(j->local, what, vm.name, &j->names, err) ||
        (what->snapshot_id && find_snapshot(j, &vm, &snapshot, err)) ||
        (!what->snapshot_id && rp_local_vm_need_off(&vm, "export it without a checkpoint", err)))
        return -1;
    if (!rp_local_vm_running(&vm) && rp_local_vm_adopt(&vm, err))
        return -1;
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(&vm, err);
    if (!service || (what->snapshot_id ? rp_local_settings_snapshot(&j->local->host, what->snapshot_id, &j->settings,
                                                                    err)
                                       : rp_local_settings_vm(&j->local->host, vm.id, &j->settings, err)))
        return -1;
    if (choose(j, err) || (snapshot && read_ids(j, snapshot, err)) || (what->base_point_id && read_base(j, &vm, err)))
        return -1;
    for (size_t i = 0; i < j->settings.disk_count; i++)
        if (name_disk(j, &vm, i, err) || (j->disks[i].wanted && open_disk(j, service, &j->disks[i], err)))
            return -1;
    return add_names(j, err) || rp_local_export_names_announce(&j->names, err) ? -1 : 0;
}

// ---- making it ------------------------------------------------------------------------------------------------------

static int write_disk(struct job *j, struct disk *disk, struct rp_local_progress *whole, struct rp_error *err)
{
    const struct rp_vhdx_info *info = rp_vhdx_info(disk->chain.layers[0]);
    RP_AUTO_FREE char *folder = rp_path_directory(disk->path), *bases = rp_path_join(folder, RP_LOCAL_BASE),
                      *parent = rp_path_join(bases, disk->name);
    struct rp_vhdx_create create = {
        .block_size = info->block_size,
        .logical_sector = info->logical_sector,
        .physical_sector = info->physical_sector,
        .disk_id = info->disk_id,
        .data_write_guid = rp_local_definition_content(disk->rct_id),
    };
    struct rp_error why = {0};
    int failed;
    if (*disk->base_id) {
        create.parent_path = parent;
        create.parent_data_write_guid = rp_local_definition_content(disk->base_id);
        failed = rp_convert_vhdx_to_child(&j->files.fs, disk->facts->path, disk->path, &create, &disk->changed,
                                          rp_local_progress_call, whole, &why);
    } else {
        failed = rp_convert_vhdx_to_vhdx(&j->files.fs, disk->facts->path, disk->path, &create, rp_local_progress_call,
                                         whole, &why);
    }
    whole->before += disk->bytes;
    if (!failed)
        return 0;
    if (why.code == RP_ERR_EXISTS)
        rp_local_export_names_disown(&j->names, disk->path);
    return rp_fail(err, why.code, "disk%u: %s", disk->facts->number, why.text);
}

static json_t *describe_disk(struct job *j, const struct disk *disk, json_t *from)
{
    json_t *to = json_deep_copy(from);
    if (!disk->wanted)
        json_object_set_new(to, "file", json_null());
    else
        json_object_set_new(to, "file", json_string(disk->name));
    json_object_set_new(to, "rct_id", json_string(disk->rct_id));
    if (!disk->wanted)
        return to;
    json_object_set_new(to, "differencing", json_boolean(*disk->base_id));
    if (*disk->base_id)
        json_object_set_new(to, "base_rct_id", json_string(disk->base_id));
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *made = rp_vhdx_open(&j->files.fs, disk->path, RP_VHDX_READ, NULL,
                                                                      NULL);
    if (made) {
        char guid[RP_GUID_TEXT];
        rp_local_guid_text(&rp_vhdx_info(made)->data_write_guid, guid);
        json_object_set_new(to, "data_write_guid", json_string(guid));
    }
    return to;
}

// The document of the settings, and what the export adds to it.
static int write_definition(struct job *j, struct rp_error *err)
{
    char now[RP_TIME_TEXT];
    json_t *root = json_loads(j->settings.document, 0, NULL), *disks = json_array();
    for (size_t i = 0; i < j->settings.disk_count; i++)
        json_array_append_new(disks, describe_disk(j, &j->disks[i], json_array_get(json_object_get(root, "disks"), i)));
    json_object_set_new(root, "format", json_string("refpoint export 1"));
    json_object_set_new(root, "exported", json_string(rp_time_format(rp_clock_wall_ns(), now)));
    if (j->what->base_point_id)
        json_object_set_new(root, "base", json_string(j->what->base_point_id));
    json_object_set_new(root, "disks", disks);
    RP_AUTO_FREE char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text)
        return rp_fail(err, RP_ERR_CORRUPT, "VM %s: its settings are not valid text", j->what->vm_id);
    RP_AUTO_FREE char *lines = rp_xasprintf("%s\n", text);
    return rp_fs_replace_file(&j->files.fs, j->names.definition, lines, strlen(lines), err);
}

static int make(struct job *j, struct rp_error *err)
{
    struct rp_local_progress whole = rp_local_progress_of(j->local);
    rp_fs_no_links(&j->files, j->names.root); // others may write there as well: it is for them
    if (rp_local_export_names_make_folders(&j->names, err))
        return -1;
    for (size_t i = 0; i < j->settings.disk_count; i++)
        whole.total += j->disks[i].bytes;
    for (size_t i = 0; i < j->settings.disk_count; i++)
        if (j->disks[i].wanted && write_disk(j, &j->disks[i], &whole, err))
            return -1;
    // The last moment to be stopped; also for who copies nothing.
    whole.before = whole.total;
    if (rp_local_progress_call(&whole, 0, 0))
        return rp_fail(err, RP_ERR_CANCELLED, "%s: stopped", j->names.root);
    return write_definition(j, err);
}

int rp_local_export_system(struct rp_host_connection *host, const struct rp_export *what, RP_METHOD_RESULT,
                           struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct job j = {.local = rp_local_of(host), .what = what};
    int rc = prepare(&j, err);
    if (!rc)
        rc = make(&j, err);
    struct rp_error why = {0};
    if (rp_local_export_names_end(&j.names, !rc, &why) && !rc) // it is whole; the next use of the host forgets the rest
        rp_log(RP_LOG_WARNING, "%s: %s", j.names.definition, why.text);
    else if (why.code)
        rp_log(RP_LOG_WARNING, "%s: what was made of it stays for now: %s", j.names.definition, why.text);
    job_clear(&j);
    return rc ? rp_context(err, "export VM %s", what->vm_id) : 0;
}
