// VMs of the offline inventory come, run and go.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/utf16.h"
#include "host/internal.h"

#define MAX_NAME 255

// Refused at the door, so that no later place (documents, file names, terminals) meets them for the first time.
static int check_name(const char *name, struct rp_error *err)
{
    struct rp_guid guid;
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    if (!*name)
        return rp_fail(err, RP_ERR_INVALID, "a VM needs a name");
    if (strlen(name) > MAX_NAME)
        return rp_fail(err, RP_ERR_INVALID, "name of a VM: %zu bytes, at most %d are possible", strlen(name), MAX_NAME);
    if (rp_utf16_append(&utf16, name, NULL))
        return rp_fail(err, RP_ERR_INVALID, "name of a VM: not valid UTF-8");
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
            return rp_fail(err, RP_ERR_INVALID, "name of a VM: a control character (0x%02x) is not possible in it",
                           *p == 0xc2 ? p[1] : *p);
    if (!rp_guid_parse(name, &guid, NULL))
        return rp_fail(err, RP_ERR_INVALID, "name of a VM: %s looks like an id, and would be taken for one", name);
    return 0;
}

static int make_folder(const struct rp_local_vm *vm, struct rp_error *err)
{
    if (mkdir(vm->directory, 0700))
        return rp_fail_sys(err, errno, "%s: create", vm->directory);
    return rp_fs_sync_parent(vm->local->fs, vm->directory, err);
}

// Deletes the files of the VM's folder that `gone` names (NULL: all of them), and the folder when it is empty then.
static int remove_files(const struct rp_local_vm *vm, bool (*gone)(const struct rp_local_vm *vm, const char *path), struct rp_error *err)
{
    DIR *folder = opendir(vm->directory);
    if (!folder && errno == ENOENT)
        return 0;
    if (!folder)
        return rp_fail_sys(err, errno, "%s: list", vm->directory);
    int rc = 0;
    for (struct dirent *entry; !rc && (entry = readdir(folder));) {
        RP_AUTO_FREE char *path = rp_path_join(vm->directory, entry->d_name);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || (gone && !gone(vm, path)))
            continue;
        if (unlink(path) && errno != ENOENT)
            rc = rp_fail_sys(err, errno, "%s: delete", path);
    }
    closedir(folder);
    if (rc)
        return -1;
    if (rmdir(vm->directory) && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
        return rp_fail_sys(err, errno, "%s: delete", vm->directory);
    return rp_fs_sync_parent(vm->local->fs, vm->directory, err);
}

// What the disk service keeps beside disks. Whatever else is there is a disk or belongs to one, and stays.
static bool is_service_file(const struct rp_local_vm *vm, const char *path)
{
    (void)vm;
    static const char *const names[] = {RP_RECORD_NAME, RP_ENGINE_LOCK, RP_CONTROL_SOCKET, RP_NBD_SOCKET, "service.log", "service.pid"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(rp_path_name(path), names[i]))
            return true;
    return false;
}

static int delete_row(const struct rp_local_vm *vm, struct rp_error *err)
{
    return rp_db_run(vm->local->db, err, "DELETE FROM vm WHERE row = ?", "i", vm->row);
}

int rp_local_system_recover(const struct rp_local_vm *vm, struct rp_error *err)
{
    // A VM that was being created has only files that we made; one with delete_disks was checked before it got here.
    bool all = !strcmp(vm->state, "creating") || vm->delete_disks;
    return remove_files(vm, all ? NULL : is_service_file, err) || delete_row(vm, err) ? -1 : 0;
}

// Progress of several conversions as one.
struct whole {
    rp_progress_fn *progress;
    void *context;
    uint64_t before, total;
};

static int whole_progress(void *context, uint64_t done, uint64_t total)
{
    struct whole *whole = context;
    (void)total;
    return whole->progress ? whole->progress(whole->context, whole->before + done, whole->total) : 0;
}

static int insert_vm(struct rp_local *local, const char *name, const struct rp_local_image *images, size_t count,
                     struct rp_local_vm *vm, struct rp_error *err)
{
    char id[RP_GUID_TEXT], controller[RP_GUID_TEXT];
    rp_local_new_id(id);
    rp_local_new_id(controller);
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, local->db, err) ||
        rp_db_run(local->db, err,
                  "INSERT INTO vm (id, name, generation, created, controller, next_disk, state) VALUES (?, ?, 2, ?, ?, 0, 'creating')",
                  "ttit", id, name, rp_clock_wall_ns(), controller))
        return -1;
    // The lock before anybody can see the row: a row 'creating' whose lock is free is one whose creator died.
    int64_t row = rp_db_last_row(local->db);
    int rc = rp_lock_take(local->lock_fd, row, 0, err);
    if (rc != 1)
        return rc < 0 ? -1 : rp_fail(err, RP_ERR_BUSY, "VM %s: its new lock is taken", id);
    vm->local = local;
    vm->row = row;
    vm->locked = true;
    if (rp_local_vm_load_row(local, row, vm, err) != 1)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (rp_local_disk_reserve(vm, &images[i], (uint32_t)i, err))
            return -1;
    return rp_transaction_commit(&t, err);
}

static int build(struct rp_local_vm *vm, const struct rp_local_image *images, size_t count, struct whole *whole, struct rp_error *err)
{
    if (make_folder(vm, err))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (images[i].format == RP_IMAGE_RAW)
            whole->total += images[i].size;
    for (size_t i = 0; i < count; i++) {
        if (rp_local_disk_make(vm, &images[i], (uint32_t)i, whole_progress, whole, err))
            return -1;
        whole->before += images[i].format == RP_IMAGE_RAW ? images[i].size : 0;
    }
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_local_disk_write_record(vm, err) || rp_transaction_begin(&t, vm->local->db, err) ||
        rp_db_run(vm->local->db, err, "UPDATE disk SET state = 'ready' WHERE vm = ?", "i", vm->row) ||
        rp_db_run(vm->local->db, err, "UPDATE vm SET state = 'ready' WHERE row = ?", "i", vm->row))
        return -1;
    return rp_transaction_commit(&t, err);
}

int rp_local_system_define(struct rp_host_connection *host, const char *name, const char *const *disks, size_t disk_count,
                           rp_progress_fn *progress, void *context, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    if (check_name(name, err))
        return -1;
    if (disk_count > RP_ENGINE_MAX_DISKS)
        return rp_fail(err, RP_ERR_INVALID, "%zu disks, a VM may have %d", disk_count, RP_ENGINE_MAX_DISKS);
    struct rp_local_image images[RP_ENGINE_MAX_DISKS] = {0};
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    struct whole whole = {.progress = progress, .context = context};
    int rc = 0;
    for (size_t i = 0; !rc && i < disk_count; i++)
        rc = rp_local_image_inspect(local, disks[i], &images[i], err);
    if (!rc)
        rc = insert_vm(local, name, images, disk_count, &vm, err);
    if (!rc && build(&vm, images, disk_count, &whole, err)) {
        rc = -1;
        if (rp_local_system_recover(&vm, NULL))
            rp_log(RP_LOG_WARNING, "%s: could not be removed; the next use of the host tries again", vm.directory);
    }
    if (!rc)
        memcpy(result, vm.id, sizeof vm.id);
    for (size_t i = 0; i < disk_count; i++)
        rp_local_image_clear(&images[i]);
    return rc;
}

// The folder goes as a whole: nothing in it may belong to another VM (a disk taken out of this one and given to another).
static int check_folder_free(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_AUTO_FREE char *prefix = rp_xasprintf("%s/", vm->directory);
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
        "SELECT d.path, v.id FROM disk d JOIN vm v ON v.row = d.vm WHERE d.vm <> ?1 AND substr(d.path, 1, length(?2)) = ?2"
        " UNION ALL SELECT p.path, v.id FROM disk_parent p JOIN vm v ON v.row = p.vm WHERE p.vm <> ?1 AND substr(p.path, 1, length(?2)) = ?2",
        "it", vm->row, prefix);
    int rc = query ? rp_db_step(vm->local->db, query, err) : -1;
    if (rc == 1)
        return rp_fail(err, RP_ERR_STATE, "VM %s: its folder holds %s, which belongs to VM %s; delete the VM without its disks",
                       vm->id, rp_db_text(query, 0), rp_db_text(query, 1));
    return rc;
}

// A disk file that stays must hold everything: checkpoints are merged first, as Hyper-V does.
static int merge_all(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_db *db = vm->local->db;
    RP_CLEANUP(rp_vm_clear) struct rp_vm state = {0};
    for (;;) {
        int64_t row = 0;
        if (rp_db_number(db, err, &row, "SELECT row FROM snapshot WHERE vm = ? AND state = 'ready' ORDER BY row LIMIT 1", "i", vm->row))
            return -1;
        if (!row)
            break;
        char operation[RP_GUID_TEXT];
        rp_local_new_id(operation);
        if (rp_db_run(db, err, "UPDATE snapshot SET state = 'merging', operation = ? WHERE row = ?", "ti", operation, row))
            return -1;
    }
    int rc = rp_local_merge_advance(vm, true, err);
    if (rc != 1)
        return rc;
    rp_local_merge_state(vm, &state);
    return rp_fail(err, RP_ERR_BUSY, "VM %s: its checkpoints could not be merged: %s", vm->id,
                   state.merge_problem ? state.merge_problem : "still at work");
}

int rp_local_system_destroy(struct rp_host_connection *host, const char *vm_id, bool delete_disks, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    int64_t kept = 0, snapshots = 0;
    if (rp_local_vm_lock(local, vm_id, &vm, err) || rp_local_vm_need_off(&vm, "delete it", err) ||
        rp_db_number(local->db, err, &kept, "SELECT count(*) FROM disk WHERE vm = ? AND NOT (own AND ?)", "ii", vm.row,
                     (int64_t)delete_disks) ||
        rp_db_number(local->db, err, &snapshots, "SELECT count(*) FROM snapshot WHERE vm = ?", "i", vm.row))
        return -1;
    // Where no file stays there is nothing to merge for, and a VM whose files are lost can still be deleted.
    if (kept && snapshots && merge_all(&vm, err))
        return -1;
    if (kept) {
        struct rp_error why = {0};
        rp_local_disk_sweep(&vm);
        // The record goes with the VM, and nobody would know any more which file is the newest. A lost one tells nothing.
        if (rp_local_disk_check_leaves(&vm, -1, !delete_disks, "the VM cannot be deleted without its disks", &why) &&
            why.code == RP_ERR_STATE)
            return rp_fail_as(err, &why);
    }
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, local->db, err) || (delete_disks && check_folder_free(&vm, err)) ||
        rp_db_run(local->db, err, "UPDATE vm SET state = 'deleting', delete_disks = ? WHERE row = ?", "ii",
                  (int64_t)delete_disks, vm.row) ||
        rp_transaction_commit(&t, err))
        return -1;
    vm.delete_disks = delete_disks;
    snprintf(vm.state, sizeof vm.state, "deleting");
    return rp_local_system_recover(&vm, err);
}

static int is_already(const struct rp_local_vm *vm, enum rp_vm_state state, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_STATE, "VM %s is %s already", vm->id, rp_vm_state_name(state));
}

// What was left over does not keep a VM from being stopped: if the storage failed, that is the way on. Without a service
// more of it can be finished or undone.
static int stop(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    struct rp_error left = {0};
    if (rp_local_vm_lock_as_is(local, vm_id, &vm, err))
        return -1;
    if (!rp_local_vm_running(&vm))
        return rp_local_vm_finish(&vm, err) ? -1 : is_already(&vm, RP_VM_OFF, err);
    int failed = rp_service_stop(vm.directory, err);
    if (rp_local_vm_finish(&vm, &left))
        rp_log(RP_LOG_WARNING, "%s", left.text);
    return failed;
}

int rp_local_system_state(struct rp_host_connection *host, const char *vm_id, enum rp_vm_state state, RP_METHOD_RESULT,
                          struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (state != RP_VM_RUNNING && state != RP_VM_OFF)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "an offline VM can be started and stopped, not %s", rp_vm_state_name(state));
    if (state == RP_VM_OFF)
        return stop(local, vm_id, err);
    if (rp_local_vm_lock(local, vm_id, &vm, err))
        return -1;
    if (rp_local_vm_running(&vm))
        return is_already(&vm, state, err);
    int64_t disks = 0;
    if (rp_db_number(local->db, err, &disks, "SELECT count(*) FROM disk WHERE vm = ?", "i", vm.row))
        return -1;
    if (!disks)
        return rp_fail(err, RP_ERR_STATE, "VM %s has no disk: add one before it is started", vm.id);
    if (rp_service_start(vm.directory, err))
        return rp_context(err, "VM %s: start", vm.id);
    if (rp_local_merge_advance(&vm, true, NULL) < 0)
        rp_log(RP_LOG_WARNING, "VM %s: its merges could not be resumed yet", vm.id);
    return 0;
}
