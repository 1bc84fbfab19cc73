// VMs of the offline inventory come, run and go.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/domain_define.h"

static int make_folder(const struct rp_local_vm *vm, struct rp_error *err)
{
    if (vm->inherited)
        return 0;
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
    rp_engine_forget(vm->local->fs, vm->directory);
    if (rmdir(vm->directory) && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
        return rp_fail_sys(err, errno, "%s: delete", vm->directory);
    return rp_fs_sync_parent(vm->local->fs, vm->directory, err);
}

// What the disk service keeps beside disks. Whatever else is there is a disk or belongs to one, and stays.
static bool is_service_file(const struct rp_local_vm *vm, const char *path)
{
    (void)vm;
    static const char *const names[] = {RP_RECORD_NAME, RP_ENGINE_LOCK, RP_CONTROL_SOCKET, RP_NBD_SOCKET, "service.log", "service.pid",
                                        RP_LOCAL_HOLD, RP_LOCAL_CONSOLE, RP_LOCAL_CONSOLE ".0", RP_LOCAL_CONSOLE ".1",
                                        RP_LOCAL_CONSOLE ".2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(rp_path_name(path), names[i]))
            return true;
    return false;
}

// In a folder that others left something in.
static bool is_its_own(const struct rp_local_vm *vm, const char *path)
{
    int64_t number = rp_local_disk_number_of(rp_path_name(path)), own = 0;
    if (is_service_file(vm, path))
        return true;
    return number >= 0 &&
           !rp_db_number(vm->local->db, NULL, &own, "SELECT own FROM disk WHERE vm = ? AND number = ?", "ii", vm->row, number) && own;
}

int rp_local_system_check_folder(struct rp_local *local, const char *id, const uint32_t *numbers, const struct rp_local_image *images,
                                 size_t count, bool *inherited, struct rp_error *err)
{
    const struct rp_local_vm vm = {.local = local};
    RP_AUTO_FREE char *directory = rp_xasprintf("%s/vms/%s", local->directory, id);
    struct stat st;
    *inherited = !lstat(directory, &st);
    if (!*inherited)
        return errno == ENOENT ? 0 : rp_fail_sys(err, errno, "%s", directory);
    DIR *folder = S_ISDIR(st.st_mode) ? opendir(directory) : NULL;
    if (!folder)
        return rp_fail(err, RP_ERR_EXISTS, "%s: is in the way", directory);
    int rc = 0;
    for (struct dirent *entry; !rc && (entry = readdir(folder));) {
        int64_t number = rp_local_disk_number_of(entry->d_name);
        bool taken = is_service_file(&vm, entry->d_name);
        for (size_t i = 0; i < count; i++)
            taken |= images[i].format == RP_IMAGE_RAW && number == numbers[i];
        if (taken)
            rc = rp_fail(err, RP_ERR_EXISTS, "%s/%s: is left of an earlier VM of this id; move it away, or delete it", directory,
                         entry->d_name);
    }
    closedir(folder);
    return rc;
}

static int delete_row(const struct rp_local_vm *vm, struct rp_error *err)
{
    return rp_db_run(vm->local->db, err, "DELETE FROM vm WHERE row = ?", "i", vm->row);
}

// 1: the VM was taken in, its domain is somebody's who wants it back; 0: the domain was made for the VM, or there is none.
static int is_adopted(const struct rp_local_vm *vm, struct rp_error *err)
{
    int64_t adopted = 0;
    if (rp_local_domain_is(vm) &&
        rp_db_number(vm->local->db, err, &adopted, "SELECT domain_xml <> '' FROM vm WHERE row = ?", "i", vm->row))
        return -1;
    return adopted != 0;
}

// A domain that was made for the VM goes with it: there is nothing any more that it could run on. One that is gone already is
// fine, one that somebody has defined anew with disks of its own is his.
static int undefine(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_error why = {0};
    int64_t released = 0; // has its definition on its own disks (release_recover.c)
    if (rp_db_number(vm->local->db, err, &released, "SELECT count(*) FROM releasing WHERE vm = ?", "i", vm->row))
        return -1;
    int adopted = is_adopted(vm, err); // then check_domain let it pass
    if (adopted || released || !rp_local_domain_is(vm))
        return adopted < 0 ? -1 : 0;
    int ours = rp_local_domain_is_ours(vm, err);
    if (ours < 1)
        return ours;
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv)
        return -1;
    if (!rp_hypervisor_ops()->undefine(hv, vm->domain, true, &why) || why.code == RP_ERR_NOT_FOUND)
        return 0;
    rp_fail_as(err, &why);
    return rp_context(err, "VM %s: undefine its domain", vm->id);
}

// The domain of an administrator, with the state of its firmware and TPM, does not go because a VM is deleted.
static int check_domain(const struct rp_local_vm *vm, struct rp_error *err)
{
    int adopted = is_adopted(vm, err), ours = adopted > 0 ? rp_local_domain_is_ours(vm, err) : adopted;
    if (ours < 1)
        return ours;
    return rp_fail(err, RP_ERR_STATE, "VM %s was taken in from %s, and its domain cannot run without it: refpoint vm release gives domain "
                   "and disks back; to delete both, undefine the domain first (virsh undefine)", vm->id, vm->hypervisor);
}

int rp_local_system_recover(const struct rp_local_vm *vm, struct rp_error *err)
{
    // A VM that was being created has only files that we made; one with delete_disks was checked before it got here. Unless
    // the folder is older than the VM.
    bool all = !strcmp(vm->state, "creating") || vm->delete_disks;
    if (!strcmp(vm->state, "deleting") ? undefine(vm, err) : rp_local_domain_undo(vm, err))
        return -1;
    return remove_files(vm, !all ? is_service_file : vm->inherited ? is_its_own : NULL, err) || delete_row(vm, err) ? -1 : 0;
}

// Neither a VM, in whatever state, nor a plan but the one that is realized has the id.
static int check_id(struct rp_local *local, const struct rp_local_new_vm *facts, struct rp_error *err)
{
    int64_t vms = 0, plans = 0;
    if (rp_db_number(local->db, err, &vms, "SELECT count(*) FROM vm WHERE id = ?", "t", facts->id) ||
        rp_db_number(local->db, err, &plans, "SELECT count(*) FROM planned WHERE id = ? AND row <> ?", "ti", facts->id, facts->planned))
        return -1;
    return vms || plans ? rp_fail(err, RP_ERR_EXISTS, "%s: there is a %sVM %s already", local->host.address, vms ? "" : "planned ", facts->id)
                        : 0;
}

static int insert_vm(struct rp_local *local, const struct rp_local_new_vm *facts, const struct rp_local_hosting *hosting,
                     const struct rp_local_image *images, size_t count, struct rp_local_vm *vm, struct rp_error *err)
{
    bool inherited = false;
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_transaction_begin(&t, local->db, err) || check_id(local, facts, err) ||
        rp_local_system_check_folder(local, facts->id, facts->numbers, images, count, &inherited, err) ||
        rp_db_run(local->db, err,
                  "INSERT INTO vm (id, name, generation, created, controller, extras, inherited, next_disk, state)"
                  " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 'creating')",
                  "ttiitti", facts->id, facts->name, facts->generation, facts->created, facts->controller, facts->extras,
                  (int64_t)inherited))
        return -1;
    // The lock before anybody can see the row: a row 'creating' whose lock is free is one whose creator died.
    int64_t row = rp_db_last_row(local->db);
    int rc = rp_lock_take(local->lock_fd, row, 0, err);
    if (rc != 1)
        return rc < 0 ? -1 : rp_fail(err, RP_ERR_BUSY, "VM %s: its new lock is taken", facts->id);
    vm->local = local;
    vm->row = row;
    vm->locked = true;
    if (rp_local_vm_load_row(local, row, vm, err) != 1 || rp_local_domain_announce(vm, hosting, err))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (rp_local_disk_reserve(vm, &images[i], facts->numbers[i], err))
            return -1;
    return rp_transaction_commit(&t, err);
}

static int build(struct rp_local_vm *vm, const struct rp_local_new_vm *facts, const struct rp_local_hosting *hosting,
                 const struct rp_local_image *images, size_t count, struct rp_local_progress *whole, struct rp_error *err)
{
    if (make_folder(vm, err))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (images[i].format == RP_IMAGE_RAW)
            whole->total += images[i].size;
    for (size_t i = 0; i < count; i++) {
        if (rp_local_disk_make(vm, &images[i], facts->numbers[i], rp_local_progress_call, whole, err))
            return -1;
        whole->before += images[i].format == RP_IMAGE_RAW ? images[i].size : 0;
    }
    RP_CLEANUP(rp_transaction_end) struct rp_transaction t = {0};
    if (rp_local_disk_write_record(vm, err) || rp_local_domain_make(vm, hosting, facts, count, err) || rp_transaction_begin(&t, vm->local->db, err) ||
        rp_db_run(vm->local->db, err, "UPDATE disk SET state = 'ready' WHERE vm = ?", "i", vm->row) ||
        rp_db_run(vm->local->db, err, "UPDATE vm SET state = 'ready' WHERE row = ?", "i", vm->row) ||
        rp_db_run(vm->local->db, err, "DELETE FROM planned WHERE row = ?", "i", facts->planned))
        return -1;
    return rp_transaction_commit(&t, err);
}

int rp_local_system_make(struct rp_local *local, const struct rp_local_new_vm *facts, const struct rp_local_image *images,
                         size_t count, struct rp_local_progress progress, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    RP_CLEANUP(rp_local_hosting_clear) struct rp_local_hosting hosting = {0};
    if (rp_local_hosting_load(local, &hosting, err) || rp_local_domain_check_free(&hosting, facts->id, err) ||
        insert_vm(local, facts, &hosting, images, count, &vm, err))
        return -1;
    if (!build(&vm, facts, &hosting, images, count, &progress, err))
        return 0;
    if (rp_local_system_recover(&vm, NULL))
        rp_log(RP_LOG_WARNING, "%s: could not be removed; the next use of the host tries again", vm.directory);
    return -1;
}

int rp_local_system_define(struct rp_host_connection *host, const char *name, const char *const *disks, size_t disk_count,
                           rp_progress_fn *progress, void *context, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    char id[RP_GUID_TEXT], controller[RP_GUID_TEXT];
    RP_AUTO_FREE char *extras = local->next_extras;
    local->next_extras = NULL;
    rp_local_take_id(local, id);
    rp_local_new_id(controller);
    if (rp_local_name_check(name, err) || (extras && rp_local_extras_check(extras, err)))
        return -1;
    if (disk_count > RP_ENGINE_MAX_DISKS)
        return rp_fail(err, RP_ERR_INVALID, "%zu disks, a VM may have %d", disk_count, RP_ENGINE_MAX_DISKS);
    struct rp_local_image images[RP_ENGINE_MAX_DISKS] = {0};
    uint32_t numbers[RP_ENGINE_MAX_DISKS];
    const struct rp_local_new_vm facts = {.id = id, .name = name, .controller = controller, .extras = extras ? extras : "", .generation = 2,
                                          .created = rp_clock_wall_ns(), .numbers = numbers};
    struct rp_local_progress wanted = {.progress = progress, .context = context};
    int rc = 0;
    for (size_t i = 0; !rc && i < disk_count; i++) {
        numbers[i] = (uint32_t)i;
        rc = rp_local_image_inspect(local, disks[i], &images[i], err);
    }
    if (!rc)
        rc = rp_local_system_make(local, &facts, images, disk_count, progress ? wanted : rp_local_progress_of(local), err);
    if (!rc)
        memcpy(result, id, sizeof id);
    for (size_t i = 0; i < disk_count; i++)
        rp_local_image_clear(&images[i]);
    return rc;
}

// The folder goes as a whole: nothing in it may belong to another VM (a disk taken out of this one and given to another), or be
// used in place by this one (taken out, and attached again): such a file is never deleted.
static int check_folder_free(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_AUTO_FREE char *prefix = rp_xasprintf("%s/", vm->directory);
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
        "SELECT d.path, v.id FROM disk d JOIN vm v ON v.row = d.vm WHERE (d.vm <> ?1 OR NOT d.own) AND substr(d.path, 1, length(?2)) = ?2"
        " UNION ALL SELECT p.path, v.id FROM disk_parent p JOIN vm v ON v.row = p.vm WHERE substr(p.path, 1, length(?2)) = ?2",
        "it", vm->row, prefix);
    int rc = query ? rp_db_step(vm->local->db, query, err) : -1;
    if (rc == 1)
        return rp_fail(err, RP_ERR_STATE, "VM %s: its folder holds %s, which VM %s uses; delete the VM without its disks",
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

static int need_off(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_error why = {0};
    if (!rp_local_vm_need_off(vm, "delete it", &why))
        return 0;
    // A domain that was undefined runs nothing, and its VM is not to be there for ever.
    return why.code == RP_ERR_NOT_FOUND && !rp_local_vm_running(vm) ? 0 : rp_fail_as(err, &why);
}

int rp_local_system_destroy(struct rp_host_connection *host, const char *vm_id, bool delete_disks, RP_METHOD_RESULT, struct rp_error *err)
{
    job[0] = result[0] = '\0';
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    int64_t kept = 0, snapshots = 0;
    int planned = rp_local_planned_destroy(local, vm_id, err);
    if (planned)
        return planned < 0 ? -1 : 0;
    if (rp_local_vm_lock(local, vm_id, &vm, err) || need_off(&vm, err) || check_domain(&vm, err) ||
        rp_db_number(local->db, err, &kept, "SELECT count(*) FROM disk WHERE vm = ? AND NOT (own AND ?)", "ii", vm.row,
                     (int64_t)delete_disks) ||
        rp_db_number(local->db, err, &snapshots, "SELECT count(*) FROM snapshot WHERE vm = ?", "i", vm.row))
        return -1;
    // Where no file stays there is nothing to merge for, and a VM whose files are lost can still be deleted.
    if (kept && snapshots && merge_all(&vm, err))
        return -1;
    if (kept) {
        struct rp_error why = {0};
        // What a killed service acknowledged belongs to the disks that stay. Of files that are lost nothing can be kept.
        if (rp_engine_left_behind(local->fs, vm.directory) && rp_local_vm_adopt(&vm, &why) && why.code != RP_ERR_NOT_FOUND) {
            rp_context(&why, "VM %s cannot be deleted without its disks", vm.id);
            return rp_fail_as(err, &why);
        }
        rp_error_clear(&why);
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
    if (rp_local_vm_load(local, vm_id, &vm, err))
        return -1;
    if (rp_local_domain_is(&vm))
        return rp_local_domain_request(local, vm_id, state, err);
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
