// The disks of a VM while it is off: added, removed, grown.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/num.h"
#include "host/domain.h"

static char *own_path(const struct rp_local_vm *vm, uint32_t number)
{
    return rp_xasprintf("%s/disk%u.vhdx", vm->directory, number);
}

int rp_local_disk_reserve(const struct rp_local_vm *vm, const struct rp_local_image *image, uint32_t number, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    int64_t count = 0;
    if (rp_local_image_check_free(vm, image, err) ||
        rp_db_number(db, err, &count, "SELECT count(*) FROM disk WHERE vm = ?", "i", vm->row))
        return -1;
    if (count >= RP_ENGINE_MAX_DISKS)
        return rp_fail(err, RP_ERR_STATE, "VM %s has %d disks already, the most that a VM may have", vm->id, RP_ENGINE_MAX_DISKS);
    bool raw = image->format == RP_IMAGE_RAW;
    RP_AUTO_FREE char *own = own_path(vm, number);
    char disk_id[RP_GUID_TEXT];
    // A raw image has no identity before it is converted; the row's number keeps the column's promise meanwhile.
    snprintf(disk_id, sizeof disk_id, "raw %u", number);
    if (!raw)
        rp_local_guid_text(&image->disk_id, disk_id);
    if (rp_db_run(db, err,
                  "INSERT INTO disk (vm, number, path, disk_id, own, size, logical, physical, block, state)"
                  " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'adding')",
                  "iittiiiii", vm->row, (int64_t)number, raw ? own : image->path, disk_id, (int64_t)raw, (int64_t)image->size,
                  (int64_t)image->logical, (int64_t)image->physical, (int64_t)image->block))
        return rp_context(err, "%s: attach", image->path);
    for (size_t i = 0; i < image->parent_count; i++)
        if (rp_db_run(db, err, "INSERT OR IGNORE INTO disk_parent (vm, number, path) VALUES (?, ?, ?)", "iit", vm->row,
                      (int64_t)number, image->parents[i]))
            return -1;
    return rp_db_run(db, err, "UPDATE vm SET next_disk = max(next_disk, ? + 1) WHERE row = ?", "ii", (int64_t)number, vm->row);
}

int rp_local_disk_make(const struct rp_local_vm *vm, const struct rp_local_image *image, uint32_t number,
                       rp_progress_fn *progress, void *context, struct rp_error *err)
{
    if (image->format != RP_IMAGE_RAW)
        return 0;
    RP_AUTO_FREE char *own = own_path(vm, number);
    struct rp_vhdx_create create = {.size = image->size, .disk_id = rp_guid_new()};
    struct rp_fs_no_links here; // a link that has come into its path since it was inspected is not followed
    if (rp_convert_raw_to_vhdx(rp_fs_no_links(&here, image->path), image->path, own, &create, progress, context, err))
        return rp_context(err, "%s: convert", image->path);
    RP_CLEANUP(rp_local_image_clear) struct rp_local_image facts = {0};
    if (rp_local_image_facts(vm->local->fs, own, &facts, err))
        return -1;
    char disk_id[RP_GUID_TEXT];
    rp_local_guid_text(&facts.disk_id, disk_id);
    return rp_db_run(vm->local->db, err,
                     "UPDATE disk SET disk_id = ?, size = ?, logical = ?, physical = ?, block = ? WHERE vm = ? AND number = ?",
                     "tiiiiii", disk_id, (int64_t)facts.size, (int64_t)facts.logical, (int64_t)facts.physical,
                     (int64_t)facts.block, vm->row, (int64_t)number);
}

// The leaf that the record has for the disk; malloc'ed, NULL for none.
static char *take_leaf(struct rp_record *record, uint32_t number)
{
    for (size_t i = 0; i < record->count; i++)
        if (record->disks[i].number == number) {
            char *leaf = record->disks[i].leaf_path;
            record->disks[i].leaf_path = NULL;
            return leaf;
        }
    return NULL;
}

int rp_local_disk_write_record(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_local *local = vm->local;
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    RP_AUTO_FREE char *path = rp_path_join(vm->directory, RP_RECORD_NAME);
    bool there = false;
    if (rp_fs_exists(local->fs, path, &there, err) ||
        (there && (rp_local_vm_adopt(vm, err) || rp_record_read(local->fs, vm->directory, &record, err))))
        return -1;
    // Only it knows the leaves. One made up from the disk files would have the VM go on below its checkpoints.
    if (!there && strcmp(vm->state, "creating"))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the chain record of VM %s is missing", path, vm->id);
    if (rp_guid_parse(vm->id, &record.vm_id, err))
        return -1;
    struct rp_record_disk disks[RP_ENGINE_MAX_DISKS];
    size_t count = 0;
    {
        RP_AUTO_QUERY *query = rp_db_query(local->db, err,
            "SELECT number, disk_id, path FROM disk WHERE vm = ? AND state <> 'removing' ORDER BY number", "i", vm->row);
        int rc = query ? 1 : -1;
        while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1 && count < RP_ENGINE_MAX_DISKS) {
            struct rp_record_disk *disk = &disks[count++];
            *disk = (struct rp_record_disk){.number = (uint32_t)sqlite3_column_int64(query, 0)};
            disk->leaf_path = take_leaf(&record, disk->number);
            if (!disk->leaf_path)
                disk->leaf_path = rp_xstrdup(rp_db_text(query, 2));
            if (rp_guid_parse(rp_db_text(query, 1), &disk->disk_id, err)) {
                rc = -1;
                break;
            }
        }
        if (rc < 0) {
            for (size_t i = 0; i < count; i++)
                free(disks[i].leaf_path);
            return -1;
        }
    }
    for (size_t i = 0; i < record.count; i++)
        free(record.disks[i].leaf_path);
    memcpy(record.disks, disks, count * sizeof *disks);
    record.count = count;
    return rp_record_write(local->fs, vm->directory, &record, err);
}

// 1 in the chain record, 0 not, -1 error.
static int in_record(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err)
{
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    if (rp_record_read(vm->local->fs, vm->directory, &record, err))
        return -1;
    for (size_t i = 0; i < record.count; i++)
        if (record.disks[i].number == number)
            return 1;
    return 0;
}

static int set_ready(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err)
{
    return rp_db_run(vm->local->db, err, "UPDATE disk SET state = 'ready' WHERE vm = ? AND number = ?", "ii", vm->row, (int64_t)number);
}

static int drop(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err)
{
    return rp_db_run(vm->local->db, err, "DELETE FROM disk WHERE vm = ? AND number = ?", "ii", vm->row, (int64_t)number);
}

// Takes back a disk that was being added: our conversion goes, a file used in place was not touched.
static int undo_add(const struct rp_local_vm *vm, uint32_t number, bool own, struct rp_error *err)
{
    RP_AUTO_FREE char *path = own_path(vm, number);
    if (rp_local_domain_is(vm) && rp_local_domain_drop_disk(vm, number, err))
        return -1;
    if (own && rp_fs_unlink_if_there(vm->local->fs, path, err))
        return -1;
    return drop(vm, number, err);
}

void rp_local_disk_sweep(const struct rp_local_vm *vm)
{
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    struct rp_engine *engine = NULL;
    if (!rp_record_read(vm->local->fs, vm->directory, &record, NULL) && record.scratch_count) {
        RP_AUTO_FREE char *shm = rp_engine_shm_directory(vm->local->fs, vm->directory);
        engine = rp_engine_open(vm->local->fs, vm->directory, shm, NULL);
    }
    if (engine)
        rp_engine_close(engine, NULL);
}

int rp_local_disk_recover(const struct rp_local_vm *vm, struct rp_error *err)
{
    for (;;) {
        uint32_t number;
        bool own, adding;
        {
            RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
                "SELECT number, own, state = 'adding' FROM disk WHERE vm = ? AND state <> 'ready' ORDER BY number", "i", vm->row);
            int rc = query ? rp_db_step(vm->local->db, query, err) : -1;
            if (rc != 1)
                return rc;
            number = (uint32_t)sqlite3_column_int64(query, 0);
            own = sqlite3_column_int64(query, 1) != 0;
            adding = sqlite3_column_int64(query, 2) != 0;
        }
        // The record is written after everything else: a disk in it was added completely.
        int complete = adding ? in_record(vm, number, err) : 0;
        if (complete < 0)
            return -1;
        // The record is the service's while one runs, and its guest has the disk.
        if (!complete && rp_local_vm_running(vm))
            return rp_fail(err, RP_ERR_STATE, "VM %s: disk%u was being %s, which can be finished when the VM is off", vm->id, number,
                           adding ? "added" : "removed");
        // Before the record: no domain starts with a disk that nobody serves.
        if (!adding && rp_local_domain_is(vm) && rp_local_domain_drop_disk(vm, number, err))
            return -1;
        if (!adding ? rp_local_disk_write_record(vm, err) || drop(vm, number, err)
                    : complete ? set_ready(vm, number, err) : undo_add(vm, number, own, err))
            return -1;
    }
}

static int check_no_snapshots(const struct rp_local_vm *vm, const char *what, struct rp_error *err)
{
    int64_t count = 0;
    if (rp_db_number(vm->local->db, err, &count, "SELECT count(*) FROM snapshot WHERE vm = ?", "i", vm->row))
        return -1;
    if (count)
        return rp_fail(err, RP_ERR_STATE, "VM %s has %lld checkpoint%s (or merges of such): delete them to %s", vm->id,
                       (long long)count, count == 1 ? "" : "s", what);
    return 0;
}

int64_t rp_local_disk_number_of(const char *name)
{
    unsigned number;
    int end = 0;
    return sscanf(name, "disk%u%n", &number, &end) == 1 && (name[end] == '.' || name[end] == '_') ? (int64_t)number : -1;
}

// Whether the VM's folder has files by that number: what an earlier VM of this id left is not ours. -1: error.
static int is_left(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err)
{
    DIR *folder = opendir(vm->directory);
    if (!folder)
        return rp_fail_sys(err, errno, "%s", vm->directory);
    bool left = false;
    for (struct dirent *entry; !left && (entry = readdir(folder));)
        left = rp_local_disk_number_of(entry->d_name) == number;
    closedir(folder);
    return left;
}

int rp_local_disk_add(struct rp_host_connection *host, const char *vm_id, const char *disk, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_image_clear) struct rp_local_image image = {0};
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (rp_local_vm_lock(local, vm_id, &vm, err) || rp_local_vm_need_off(&vm, "add a disk", err) ||
        rp_local_image_inspect(local, disk, &image, err))
        return -1;
    uint32_t number = (uint32_t)vm.next_disk;
    int left;
    while ((left = is_left(&vm, number, err)) > 0)
        number++;
    if (left < 0)
        return -1;
    {
        RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
        if (rp_transaction_begin(&t, local->db, err) || rp_local_disk_reserve(&vm, &image, number, err) ||
            rp_transaction_commit(&t, err))
            return -1;
    }
    struct rp_local_progress whole = rp_local_progress_of(local);
    whole.total = image.size;
    if (rp_local_disk_make(&vm, &image, number, rp_local_progress_call, &whole, err) ||
        (rp_local_domain_is(&vm) && rp_local_domain_add_disk(&vm, number, err)) || rp_local_disk_write_record(&vm, err)) {
        rp_local_disk_recover(&vm, NULL);
        return -1;
    }
    if (set_ready(&vm, number, err))
        return -1;
    rp_local_settings_instance(&vm, number, result);
    return 0;
}

static int find(const struct rp_local_vm *vm, uint32_t number, uint64_t *size, struct rp_error *err)
{
    int64_t found = -1;
    if (rp_db_number(vm->local->db, err, &found, "SELECT size FROM disk WHERE vm = ? AND number = ?", "ii", vm->row, (int64_t)number))
        return -1;
    if (found < 0)
        return rp_fail(err, RP_ERR_NOT_FOUND, "VM %s has no disk%u", vm->id, number);
    *size = (uint64_t)found;
    return 0;
}

int rp_local_disk_check_leaves(const struct rp_local_vm *vm, int64_t number, bool own, const char *what, struct rp_error *err)
{
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    rp_local_vm_adopt(vm, NULL); // a disk that cannot be opened any more can be removed all the same
    if (rp_record_read(vm->local->fs, vm->directory, &record, err))
        return -1;
    for (size_t i = 0; i < record.count; i++) {
        int64_t other = 0;
        if (number >= 0 && record.disks[i].number != number)
            continue;
        if (rp_db_number(vm->local->db, err, &other, "SELECT path <> ? AND (? OR NOT own) FROM disk WHERE vm = ? AND number = ?",
                         "tiii", record.disks[i].leaf_path, (int64_t)own, vm->row, (int64_t)record.disks[i].number))
            return -1;
        if (other)
            return rp_fail(err, RP_ERR_STATE, "VM %s: disk%u is written to %s, a checkpoint that this host does not know; %s",
                           vm->id, record.disks[i].number, record.disks[i].leaf_path, what);
    }
    return 0;
}

int rp_local_disk_remove(struct rp_host_connection *host, const char *vm_id, uint32_t number, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    uint64_t size;
    if (rp_local_vm_lock(local, vm_id, &vm, err) || find(&vm, number, &size, err) ||
        rp_local_vm_need_off(&vm, "remove a disk", err) || rp_local_merge_advance(&vm, true, err) < 0 ||
        check_no_snapshots(&vm, "remove a disk", err))
        return -1;
    rp_local_disk_sweep(&vm);
    if (rp_local_disk_check_leaves(&vm, number, true, "it cannot be removed", err))
        return -1;
    if (rp_db_run(local->db, err, "UPDATE disk SET state = 'removing' WHERE vm = ? AND number = ?", "ii", vm.row, (int64_t)number))
        return -1;
    return rp_local_disk_recover(&vm, err);
}

// While nobody else has the disks open. *size: what the file says, should a killed process have grown it before.
static int grow(const struct rp_local_vm *vm, uint32_t number, uint64_t size, struct rp_error *err)
{
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(vm, err);
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    char name[32];
    uint64_t now = 0;
    snprintf(name, sizeof name, "disk%u", number);
    if (!service || rp_service_info(service, &info, err))
        return -1;
    for (size_t i = 0; i < info.count; i++)
        if (!strcmp(info.disks[i].name, name))
            now = info.disks[i].size;
    if (size < now)
        return rp_fail(err, RP_ERR_INVALID, "VM %s: disk%u has %llu bytes already, and disks only grow", vm->id, number,
                       (unsigned long long)now);
    if (size > now && rp_service_grow(service, name, size, err))
        return rp_context(err, "VM %s: grow disk%u", vm->id, number);
    int failed = rp_service_close(service, err);
    service = NULL;
    return failed ? rp_context(err, "VM %s: grow disk%u", vm->id, number) : 0;
}

int rp_local_disk_resize(struct rp_host_connection *host, const char *vm_id, uint32_t number, uint64_t size,
                         RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    uint64_t known = 0;
    if (rp_local_vm_lock(local, vm_id, &vm, err) || find(&vm, number, &known, err))
        return -1;
    if (rp_local_domain_needs_service(&vm)) {
        if (rp_local_domain_grow(&vm, number, size, grow, err))
            return -1;
    } else if (rp_local_vm_need_off(&vm, "grow a disk", err) || grow(&vm, number, size, err)) {
        return -1;
    }
    return rp_db_run(local->db, err, "UPDATE disk SET size = ? WHERE vm = ? AND number = ?", "iii", (int64_t)size, vm.row, (int64_t)number);
}
