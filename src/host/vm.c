// One VM of the offline inventory: its row, its folder, its lock, and what others see of it.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/domain.h"

#define LOCK_MS 30000
enum { LET_GO_MS = 10000, LET_GO_LOOK_MS = 100 };

void rp_local_guid_text(const struct rp_guid *guid, char out[RP_GUID_TEXT])
{
    rp_guid_format(guid, out);
    for (char *p = out; *p; p++)
        *p = (char)toupper((unsigned char)*p);
}

void rp_local_new_id(char out[RP_GUID_TEXT])
{
    struct rp_guid guid = rp_guid_new();
    rp_local_guid_text(&guid, out);
}

void rp_local_take_id(struct rp_local *local, char out[RP_GUID_TEXT])
{
    if (local->next_id[0])
        memcpy(out, local->next_id, RP_GUID_TEXT);
    else
        rp_local_new_id(out);
    local->next_id[0] = '\0';
}

void rp_local_vm_unlock(struct rp_local_vm *vm)
{
    if (vm->locked)
        rp_lock_release(vm->local->lock_fd, vm->row);
    vm->locked = false;
}

void rp_local_vm_release(struct rp_local_vm *vm)
{
    rp_local_vm_unlock(vm);
    free(vm->name);
    free(vm->directory);
    free(vm->hypervisor);
    *vm = (struct rp_local_vm){0};
}

int rp_local_vm_load_row(struct rp_local *local, int64_t row, struct rp_local_vm *vm, struct rp_error *err)
{
    RP_AUTO_QUERY *query = rp_db_query(local->db, err,
        "SELECT id, name, controller, generation, created, next_disk, delete_disks, state, inherited, hypervisor, domain"
        " FROM vm WHERE row = ?", "i", row);
    int rc = query ? rp_db_step(local->db, query, err) : -1;
    if (rc != 1)
        return rc;
    // The row becomes the name of a folder whose files are deleted: it must be what we wrote.
    struct rp_guid guid;
    if (rp_guid_parse(rp_db_text(query, 0), &guid, NULL))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: VM %lld has no GUID", local->db->path, (long long)row);
    bool locked = vm->locked;
    vm->locked = false;
    rp_local_vm_release(vm);
    vm->local = local;
    vm->locked = locked;
    vm->row = row;
    rp_local_guid_text(&guid, vm->id);
    vm->name = rp_xstrdup(rp_db_text(query, 1));
    vm->directory = rp_xasprintf("%s/vms/%s", local->directory, vm->id);
    rp_db_copy(query, 2, vm->controller, sizeof vm->controller);
    vm->generation = sqlite3_column_int64(query, 3);
    vm->created = sqlite3_column_int64(query, 4);
    vm->next_disk = sqlite3_column_int64(query, 5);
    vm->delete_disks = sqlite3_column_int64(query, 6) != 0;
    rp_db_copy(query, 7, vm->state, sizeof vm->state);
    vm->inherited = sqlite3_column_int64(query, 8) != 0;
    vm->hypervisor = rp_xstrdup(rp_db_text(query, 9));
    rp_db_copy(query, 10, vm->domain, sizeof vm->domain);
    return 1;
}

int rp_local_not_found(const struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no VM %s", local->host.address, vm_id);
}

int rp_local_vm_load(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_guid guid;
    char id[RP_GUID_TEXT];
    if (rp_guid_parse(vm_id, &guid, NULL))
        return rp_local_not_found(local, vm_id, err);
    rp_local_guid_text(&guid, id);
    int64_t row = 0;
    if (rp_db_number(local->db, err, &row, "SELECT row FROM vm WHERE id = ? AND state = 'ready'", "t", id))
        return -1;
    int rc = row ? rp_local_vm_load_row(local, row, vm, err) : 0;
    return rc < 0 ? -1 : rc == 0 ? rp_local_not_found(local, id, err) : 0;
}

int rp_local_vm_lock_within(struct rp_local *local, const char *vm_id, unsigned timeout_ms, struct rp_local_vm *vm, struct rp_error *err)
{
    if (rp_local_vm_load(local, vm_id, vm, err))
        return -1;
    int rc = rp_lock_take(local->lock_fd, vm->row, timeout_ms, err);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return rp_fail(err, RP_ERR_BUSY, "VM %s: another process has been changing it for %u s; try again later", vm->id,
                       timeout_ms / 1000);
    vm->locked = true;
    // Whoever had the lock before may have deleted it, or may have been killed in the middle of something.
    rc = rp_local_vm_load_row(local, vm->row, vm, err);
    return rc == 1 ? 0 : rc < 0 ? -1 : rp_local_not_found(local, vm_id, err);
}

int rp_local_vm_lock_as_is(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err)
{
    return rp_local_vm_lock_within(local, vm_id, LOCK_MS, vm, err);
}

int rp_local_vm_finish(struct rp_local_vm *vm, struct rp_error *err)
{
    if (rp_local_recover_vm(vm, err))
        return rp_context(err, "VM %s: finish what was interrupted", vm->id);
    return strcmp(vm->state, "ready") ? rp_local_not_found(vm->local, vm->id, err) : 0;
}

int rp_local_vm_lock(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err)
{
    return rp_local_vm_lock_as_is(local, vm_id, vm, err) || rp_local_vm_finish(vm, err) ? -1 : 0;
}

bool rp_local_vm_running(const struct rp_local_vm *vm)
{
    // Asked of the socket, not of a file with a pid: a service that died is off.
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", vm->directory, RP_CONTROL_SOCKET);
    if (n < 0 || (size_t)n >= sizeof address.sun_path)
        return false;
    // Without waiting: where the queue is full (EAGAIN), somebody listens, who is slow or has been stopped.
    RP_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && (!connect(fd, (struct sockaddr *)&address, sizeof address) || errno == EAGAIN);
}

static int check_domain_off(const struct rp_local_vm *vm, const char *what, struct rp_error *err)
{
    enum rp_domain_state state;
    if (rp_local_domain_state(vm, &state, err))
        return -1;
    if (state == RP_DOMAIN_SAVED)
        return rp_fail(err, RP_ERR_STATE, "VM %s is saved, and its memory belongs to its disks as they are: start it and shut it"
                       " down to %s", vm->id, what);
    return rp_local_domain_is_live(state)
               ? rp_fail(err, RP_ERR_STATE, "VM %s is %s: shut it down to %s", vm->id, rp_domain_state_name(state), what)
               : 0;
}

int rp_local_vm_need_off(const struct rp_local_vm *vm, const char *what, struct rp_error *err)
{
    uint64_t deadline = rp_clock_monotonic_ns() + LET_GO_MS * 1000000ull;
    if (!rp_local_domain_is(vm))
        return rp_local_vm_running(vm) ? rp_fail(err, RP_ERR_STATE, "VM %s is running: stop it to %s", vm->id, what) : 0;
    // Of a domain that is off nobody needs the disk service; who holds it (vm serve, under systemd) is told so at that moment, and
    // ends it. Meanwhile the domain may start again.
    for (;; usleep(LET_GO_LOOK_MS * 1000)) {
        if (check_domain_off(vm, what, err))
            return -1;
        if (!rp_local_vm_running(vm))
            return 0;
        if (rp_local_domain_unserve(vm, false, err))
            return -1;
        if (!rp_local_vm_running(vm))
            return 0;
        if (rp_clock_monotonic_ns() > deadline)
            return rp_fail(err, RP_ERR_STATE, "VM %s: its domain is off, but somebody holds its disk service (vm serve): end"
                           " that, or stop the VM with --now, to %s", vm->id, what);
    }
}

struct rp_service *rp_local_vm_service(const struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_service *service = rp_service_open(vm->local->fs, vm->directory, err);
    if (!service)
        rp_context(err, "disks of VM %s", vm->id);
    return service;
}

int rp_local_vm_adopt(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_local_vm_service(vm, err);
    if (!service)
        return -1;
    if (rp_service_adopt(service, err))
        return rp_context(err, "VM %s: what its killed disk service left", vm->id);
    int failed = rp_service_close(service, err);
    service = NULL;
    return failed;
}

static void describe(const struct rp_local_vm *source, struct rp_vm *vm)
{
    memcpy(vm->id, source->id, sizeof vm->id);
    vm->name = rp_xstrdup(source->name);
    vm->state = rp_local_vm_running(source) ? RP_VM_RUNNING : RP_VM_OFF;
    if (rp_local_domain_is(source))
        rp_local_domain_describe_row(source, vm);
    int64_t creating = 0;
    if (rp_local_merge_state(source, vm))
        vm->activity = RP_VM_MERGING;
    else if (!rp_db_number(source->local->db, NULL, &creating,
                           "SELECT count(*) FROM snapshot WHERE vm = ? AND state = 'creating'", "i", source->row) && creating)
        vm->activity = RP_VM_CREATING_SNAPSHOT;
}

void rp_local_vm_take_note(struct rp_local *local, int64_t row, bool at_rest)
{
    int64_t merging = 0;
    if (rp_db_number(local->db, NULL, &merging, "SELECT count(*) FROM snapshot WHERE vm = ? AND state = 'merging'", "i", row) ||
        !merging || rp_lock_take(local->lock_fd, row, 0, NULL) != 1)
        return;
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {.local = local, .locked = true, .row = row};
    if (rp_local_vm_load_row(local, row, &vm, NULL) == 1 && !strcmp(vm.state, "ready"))
        rp_local_merge_advance(&vm, at_rest, NULL);
}

int rp_local_vm_list(struct rp_host_connection *host, struct rp_vms *vms, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *vms = (struct rp_vms){0};
    // The rows first: describing a VM may write to the database.
    RP_AUTO_FREE int64_t *rows = NULL;
    size_t count = 0;
    {
        RP_AUTO_QUERY *query = rp_db_query(local->db, err, "SELECT row FROM vm WHERE state = 'ready' ORDER BY row", "");
        int rc = query ? 1 : -1;
        while (rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1) {
            rows = rp_xrealloc(rows, (count + 1) * sizeof *rows);
            rows[count++] = sqlite3_column_int64(query, 0);
        }
        if (rc < 0)
            return -1;
    }
    vms->items = rp_xcalloc(count ? count : 1, sizeof *vms->items);
    for (size_t i = 0; i < count; i++) {
        RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
        rp_local_vm_take_note(local, rows[i], false);
        int rc = rp_local_vm_load_row(local, rows[i], &vm, err);
        if (rc < 0) {
            rp_vms_clear(vms);
            return -1;
        }
        if (rc == 1)
            describe(&vm, &vms->items[vms->count++]);
    }
    return 0;
}

int rp_local_vm_find(struct rp_host_connection *host, const char *name_or_id, struct rp_vm *vm, struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    *vm = (struct rp_vm){0};
    struct rp_guid guid;
    char id[RP_GUID_TEXT] = "";
    if (!rp_guid_parse(name_or_id, &guid, NULL)) {
        rp_local_guid_text(&guid, id);
    } else {
        RP_AUTO_QUERY *query =
            rp_db_query(local->db, err, "SELECT id FROM vm WHERE name = ? AND state = 'ready' ORDER BY row", "t", name_or_id);
        RP_CLEANUP(rp_buf_clear) struct rp_buf ids = {0};
        size_t count = 0;
        int rc = query ? 1 : -1;
        for (; rc > 0 && (rc = rp_db_step(local->db, query, err)) == 1; count++) {
            rp_db_copy(query, 0, id, sizeof id);
            rp_buf_printf(&ids, "%s%s", count ? ", " : "", id);
        }
        if (rc < 0)
            return -1;
        if (count == 0)
            return rp_local_not_found(local, name_or_id, err);
        if (count > 1)
            return rp_fail(err, RP_ERR_INVALID, "%s: %zu VMs are called %s; name one by its id: %s", host->address, count,
                           name_or_id, rp_buf_text(&ids));
    }
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm found = {0};
    if (rp_local_vm_load(local, id, &found, err))
        return -1;
    rp_local_vm_take_note(local, found.row, true);
    describe(&found, vm);
    return 0;
}
