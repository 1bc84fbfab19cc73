// A VM is given back to libvirt: what its disks hold goes into images of its own first, under names that nobody looks
// at; then one transaction decides, and release_recover.c carries it through. Until the images are in their places the
// VHDX files stay, and nobody writes to either: at each moment one of both is whole and the newest.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "host/adopt.h"
#include "host/domain.h"

_Static_assert(sizeof((struct rp_release *)0)->items / sizeof(struct rp_release_item) == RP_ENGINE_MAX_DISKS,
               "all disks of a VM");

void rp_host_local_release_clear(struct rp_release *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        free(plan->items[i].vhdx);
        free(plan->items[i].path);
        free(plan->items[i].format);
        free(plan->items[i].source);
        free(plan->items[i].source_format);
        free(plan->items[i].stamp);
    }
    free(plan->name);
    free(plan->uri);
    free(plan->before);
    free(plan->after);
    *plan = (struct rp_release){0};
}

// ---- what would be done ---------------------------------------------------------------------------------------------

static int check_vm(const struct rp_local_vm *vm, struct rp_error *err)
{
    enum rp_domain_state state;
    int64_t snapshots = 0, merging = 0;
    if (!rp_local_domain_is(vm))
        return rp_fail(err, RP_ERR_STATE,
                       "VM %s: no hypervisor runs it, there is nothing to release; vm delete keeps its disks", vm->id);
    if (rp_local_domain_state(vm, &state, err))
        return -1;
    if (state == RP_DOMAIN_SAVED || rp_local_domain_is_live(state))
        return rp_fail(err, RP_ERR_STATE, "VM %s is %s: %s to release it", vm->id, rp_domain_state_name(state),
                       state == RP_DOMAIN_SAVED ? "start it and shut it down" : "shut it down");
    if (rp_db_number(vm->local->db, err, &snapshots,
                     "SELECT count(*) FROM snapshot WHERE vm = ? AND state <> 'merging'", "i", vm->row) ||
        rp_db_number(vm->local->db, err, &merging, "SELECT count(*) FROM snapshot WHERE vm = ? AND state = 'merging'",
                     "i", vm->row))
        return -1;
    if (snapshots)
        return rp_fail(err, RP_ERR_STATE, "VM %s has %lld checkpoint%s, which would be lost: delete %s first", vm->id,
                       (long long)snapshots, snapshots == 1 ? "" : "s", snapshots == 1 ? "it" : "them");
    return merging ? rp_fail(err, RP_ERR_BUSY, "VM %s: its checkpoints are still being merged; try again later", vm->id)
                   : 0;
}

int rp_release_check_image(const char *path, const char *stamp, const char *id, struct rp_error *err)
{
    struct statx st;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st))
        return errno == ENOENT || errno == ENOTDIR ? 0 : rp_fail_sys(err, errno, "%s", path);
    RP_AUTO_FREE char *now = rp_adopt_stamp(path);
    if (!S_ISREG(st.stx_mode) || st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return rp_fail(err, RP_ERR_STATE,
                       "%s: is a link, a mount or another thing by now, and no file that can be replaced when VM %s is "
                       "released; move it away, or release with another --format",
                       path, id);
    if (*stamp && strcmp(now, stamp))
        return rp_fail(
            err, RP_ERR_STATE,
            "%s: was written to, or exchanged, since VM %s was adopted; move it away, or release with another "
            "--format",
            path, id);
    if (rp_adopt_is_written(path))
        return rp_fail(err, RP_ERR_STATE,
                       "%s: somebody has it open to write; it would be replaced when VM %s is released", path, id);
    return 0;
}

// What QEMU reads: it knows no VHDX with a parent, and none with sectors of 4096 bytes. Asked of the rows: a disk
// service that is about to end may have the file.
static int check_readable(const struct rp_local_vm *vm, const struct rp_release_item *item, struct rp_error *err)
{
    int64_t parents = 0, sector = 0;
    if (rp_db_number(vm->local->db, err, &parents, "SELECT count(*) FROM disk_parent WHERE vm = ? AND number = ?", "ii",
                     vm->row, (int64_t)item->number) ||
        rp_db_number(vm->local->db, err, &sector, "SELECT logical FROM disk WHERE vm = ? AND number = ?", "ii", vm->row,
                     (int64_t)item->number))
        return -1;
    if (parents)
        return rp_fail(err, RP_ERR_UNSUPPORTED,
                       "%s: disk%u has parents, which QEMU does not read; release it with --format raw", item->vhdx,
                       item->number);
    return sector == 512 ? 0
                         : rp_fail(err, RP_ERR_UNSUPPORTED,
                                   "%s: disk%u has sectors of %lld bytes, and QEMU reads a VHDX with 512 only; release "
                                   "it with --format raw",
                                   item->vhdx, item->number, (long long)sector);
}

// Names can be made and removed beside the file, and no link leads elsewhere.
static int check_folder(const char *path, struct rp_error *err)
{
    const char *name;
    RP_AUTO_FREE char *folder = rp_path_directory(path);
    RP_AUTO_FD int fd = rp_path_open_parent(path, &name, err);
    if (fd < 0)
        return -1;
    return access(folder, W_OK | X_OK) ? rp_fail_sys(err, errno, "%s", folder) : 0;
}

static bool is_planned(const struct rp_release *plan, const struct rp_release_item *item, const char *path)
{
    for (const struct rp_release_item *other = plan->items; other < item; other++)
        if (!strcmp(other->path, path))
            return true;
    return false;
}

// A name that nobody has; NULL: there is none.
static char *name_beside(const struct rp_release *plan, const struct rp_release_item *item, const char *folder,
                         const char *beside)
{
    char *path = rp_adopt_name(folder, beside, item->target, item->format);
    if (path && is_planned(plan, item, path)) {
        free(path);
        RP_AUTO_FREE char *name = rp_xasprintf("%s-%s", rp_path_name(beside), item->target);
        path = rp_adopt_name(folder, name, item->target, item->format);
    }
    return path;
}

static int place(const struct rp_local_vm *vm, const char *wanted, const struct rp_release *plan,
                 struct rp_release_item *item, struct rp_error *err)
{
    bool original = !strcmp(wanted, "original");
    const char *chosen = !original ? wanted : *item->source ? item->source_format : "vhdx";
    item->format = rp_xstrdup(*chosen ? chosen : "raw");
    bool raw = !strcmp(item->format, "raw");
    if (check_folder(item->vhdx, err) || (!raw && check_readable(vm, item, err)))
        return -1;
    if (!strcmp(item->format, "vhdx")) {
        item->stays = true;
        item->path = rp_xstrdup(item->vhdx);
        return 0;
    }
    const char *beside = *item->source ? item->source : item->vhdx;
    RP_AUTO_FREE char *folder = rp_path_directory(beside);
    item->replaces = *item->source && !strcmp(item->source_format, item->format);
    item->path = item->replaces ? rp_xstrdup(item->source) : name_beside(plan, item, folder, beside);
    if (!item->path || is_planned(plan, item, item->path))
        return rp_fail(err, RP_ERR_EXISTS, "%s: there are files already where disk%u would go", folder, item->number);
    if ((item->replaces && rp_release_check_image(item->path, item->stamp, vm->id, err)) ||
        check_folder(item->path, err))
        return -1;
    item->shared = raw && rp_adopt_shares(item->vhdx, folder);
    item->room = item->shared ? 0 : rp_adopt_allocated(item->vhdx);
    return 0;
}

static int load_disks(const struct rp_local_vm *vm, struct rp_release *plan, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(vm->local->db, err,
        "SELECT d.number, d.path, d.size, m.target, m.source, m.format, m.stamp FROM disk d LEFT JOIN domain_disk m"
        " ON m.vm = d.vm AND m.number = d.number WHERE d.vm = ? AND d.state = 'ready' ORDER BY d.number", "i", vm->row);
    int rc = query ? 1 : -1;
    while (rc > 0 && (rc = rp_db_step(vm->local->db, query, err)) == 1) {
        if (plan->count == RP_ENGINE_MAX_DISKS)
            return rp_fail(err, RP_ERR_CORRUPT, "VM %s has more than %d disks: somebody wrote to the host's database",
                           vm->id, RP_ENGINE_MAX_DISKS);
        struct rp_release_item *item = &plan->items[plan->count++];
        *item = (struct rp_release_item){.number = (uint32_t)sqlite3_column_int64(query, 0),
                                         .vhdx = rp_xstrdup(rp_db_text(query, 1)),
                                         .size = (uint64_t)sqlite3_column_int64(query, 2),
                                         .source = rp_xstrdup(rp_db_text(query, 4)),
                                         .source_format = rp_xstrdup(rp_db_text(query, 5)),
                                         .stamp = rp_xstrdup(rp_db_text(query, 6))};
        rp_db_copy(query, 3, item->target, sizeof item->target);
    }
    return rc;
}

static int place_disks(const struct rp_local_vm *vm, const char *wanted, struct rp_release *plan, struct rp_error *err)
{
    for (size_t i = 0; i < plan->count; i++)
        if (place(vm, wanted, plan, &plan->items[i], err))
            return -1;
    return 0;
}

static int check_room(const struct rp_release *plan, struct rp_error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        RP_AUTO_FREE char *folder = rp_path_directory(plan->items[i].path);
        struct stat here, there;
        uint64_t needed = 0, room = rp_adopt_room(folder);
        for (size_t j = 0; j < plan->count; j++) {
            RP_AUTO_FREE char *other = rp_path_directory(plan->items[j].path);
            if (!stat(folder, &here) && !stat(other, &there) && here.st_dev == there.st_dev)
                needed += plan->items[j].room;
        }
        char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT];
        if (room && needed > room)
            return rp_fail(err, RP_ERR_NO_SPACE, "%s: %s are needed for the images, %s are free", folder,
                           rp_format_size(needed, a), rp_format_size(room, b));
    }
    return 0;
}

static int rewrite(const struct rp_local_vm *vm, struct rp_release *plan, struct rp_error *err)
{
    struct rp_release_image images[RP_ENGINE_MAX_DISKS];
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_release_item *item = &plan->items[i];
        images[i] = (struct rp_release_image){item->number, item->target, item->path, item->format};
    }
    return rp_release_rewrite(vm, plan->before, images, plan->count, &plan->after, err);
}

static int look(const struct rp_local_vm *vm, const char *format, struct rp_release *plan, struct rp_error *err)
{
    static const char *const formats[] = {"original", "raw", "qcow2", "vhdx"};
    struct rp_hypervisor *hv;
    char uuid[RP_GUID_TEXT];
    bool known = false;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        known |= !strcmp(format, formats[i]);
    if (!known)
        return rp_fail(err, RP_ERR_INVALID, "\"%.32s\": no format for a release (original, raw, qcow2, vhdx)", format);
    snprintf(plan->format, sizeof plan->format, "%s", format);
    memcpy(plan->vm_id, vm->id, sizeof plan->vm_id);
    plan->name = rp_xstrdup(vm->name);
    plan->uri = rp_xstrdup(vm->hypervisor);
    if (check_vm(vm, err) || load_disks(vm, plan, err) || place_disks(vm, format, plan, err) || check_room(plan, err) ||
        !(hv = rp_local_domain_open(vm, err)))
        return -1;
    if (rp_hypervisor_ops()->find(hv, vm->domain, uuid, &plan->before, err))
        return rp_context(err, "VM %s", vm->id);
    return rewrite(vm, plan, err);
}

int rp_host_local_release_plan(struct rp_host_connection *host, const char *vm_id, const char *format,
                               struct rp_release *plan, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    *plan = (struct rp_release){0};
    if (!rp_local_vm_load(rp_local_of(host), vm_id, &vm, err) && !look(&vm, format ? format : "original", plan, err))
        return 0;
    rp_host_local_release_clear(plan);
    return -1;
}

// ---- it is done -----------------------------------------------------------------------------------------------------

// 1: a file has a log that is still to be played back.
static int has_log(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_record_clear) struct rp_record record = {0};
    bool found = false;
    if (rp_record_read(vm->local->fs, vm->directory, &record, err))
        return -1;
    for (size_t i = 0; i < record.count; i++) {
        RP_CLEANUP(rp_vhdx_abandon_p)
        struct rp_vhdx *vhdx = rp_vhdx_open(vm->local->fs, record.disks[i].leaf_path, RP_VHDX_READ, NULL, err);
        if (!vhdx)
            return -1;
        found |= rp_vhdx_info(vhdx)->dirty_log;
    }
    return found;
}

// The disk files alone hold everything: no merge is left, no killed service has left anything, and no power cut a log
// that QEMU would have to play back.
static int settle_disks(const struct rp_local_vm *vm, struct rp_error *err)
{
    if (rp_local_merge_advance(vm, true, err) < 0 ||
        rp_local_vm_adopt(vm, err)) // what is left of a merge, check_vm finds
        return -1;
    rp_local_disk_sweep(vm);
    if (rp_local_disk_check_leaves(vm, -1, true, "it cannot be released", err))
        return -1;
    int log = has_log(vm, err);
    if (log < 1)
        return log;
    RP_AUTO_FREE char *shm = rp_engine_shm_directory(vm->local->fs, vm->directory);
    struct rp_engine *engine = rp_engine_open(vm->local->fs, vm->directory, shm, err);
    return !engine || rp_engine_close(engine, err) ? rp_context(err, "VM %s: close its disks cleanly", vm->id) : 0;
}

static bool is_same(const struct rp_release *a, const struct rp_release *b)
{
    bool same = a->count == b->count && !strcmp(a->before, b->before) && !strcmp(a->after, b->after);
    for (size_t i = 0; same && i < a->count; i++)
        same = a->items[i].number == b->items[i].number && a->items[i].stays == b->items[i].stays &&
               !strcmp(a->items[i].path, b->items[i].path) && !strcmp(a->items[i].format, b->items[i].format) &&
               !strcmp(a->items[i].vhdx, b->items[i].vhdx);
    return same;
}

// Under the VM's lock, what the plan says is still so.
static int check_still(const struct rp_local_vm *vm, const struct rp_release *plan, struct rp_error *err)
{
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release now = {0};
    if (look(vm, plan->format, &now, err))
        return -1;
    if (is_same(&now, plan))
        return 0;
    return rp_fail(err, RP_ERR_STATE, "VM %s, or its domain, was changed meanwhile: try again", vm->id);
}

static int write_and_decide(const struct rp_local_vm *vm, const struct rp_release *plan, struct rp_error *err)
{
    RP_CLEANUP(rp_local_export_names_clear) struct rp_local_export_names names = {0};
    struct rp_release_part parts[RP_ENGINE_MAX_DISKS] = {0};
    int failed = rp_release_write(vm, plan, &names, parts, err) || rp_release_decide(vm, plan, &names, parts, err);
    if (failed)
        rp_local_export_names_end(&names, false, NULL);
    for (size_t i = 0; i < plan->count; i++) {
        free(parts[i].path);
        free(parts[i].mark);
    }
    return failed ? -1 : 0;
}

int rp_host_local_release(struct rp_host_connection *host, const struct rp_release *plan, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    struct rp_error why = {0};
    if (rp_local_vm_lock(rp_local_of(host), plan->vm_id, &vm, err) || rp_local_vm_need_off(&vm, "release it", err) ||
        settle_disks(&vm, err) || check_still(&vm, plan, err) || write_and_decide(&vm, plan, err))
        return -1;
    snprintf(vm.state, sizeof vm.state, "deleting");
    int done = rp_release_finish(&vm, &why, err);
    if (done == 1)
        return rp_local_system_recover(&vm, err)
                   ? rp_context(err, "VM %s: is released, but its rest goes with the next use of the host", vm.id)
                   : 0;
    if (done < 0)
        return rp_context(err, "VM %s: is being released; the next use of the host goes on with it", vm.id);
    return rp_fail_as(err, &why);
}
