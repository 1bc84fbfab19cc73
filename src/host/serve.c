// The disk service of a VM for who starts the VM himself: systemd, the hook of libvirt, or a person. Asks the hypervisor nothing:
// it waits for us.
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/domain.h"
#include "host/local.h"

// Longer than a hypervisor may leave somebody without an answer, who has the VM's lock meanwhile, because it waits for us.
enum { PATIENCE_S = 45, LOOK_MS = 20 };

// Ready; or taken in from its hypervisor but for the note that it is: then its domain has its disks from us already.
static int load(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err)
{
    struct rp_guid guid;
    char id[RP_GUID_TEXT];
    int64_t row = 0;
    if (rp_guid_parse(vm_id, &guid, NULL))
        return rp_local_not_found(local, vm_id, err);
    rp_local_guid_text(&guid, id);
    if (rp_db_number(local->db, err, &row, "SELECT row FROM vm WHERE id = ? AND (state = 'ready' OR (state = 'creating' AND"
                                           " domain_xml <> ''))", "t", id))
        return -1;
    int rc = row ? rp_local_vm_load_row(local, row, vm, err) : 0;
    return rc < 0 ? -1 : rc == 0 ? rp_local_not_found(local, id, err) : 0;
}

// NBD has no lock that keeps a second guest away from a disk, as QEMU has one for files.
static int load_for(struct rp_local *local, const char *vm_id, const char *domain, struct rp_local_vm *vm, struct rp_error *err)
{
    if (load(local, vm_id, vm, err))
        return -1;
    if (!domain || !rp_local_domain_is(vm) || !strcasecmp(domain, vm->domain))
        return 0;
    return rp_fail(err, RP_ERR_STATE, "VM %s: its disks are those of domain %s, and not for domain %s: two guests on one disk would "
                   "destroy what is on it", vm->id, vm->domain, domain);
}

// Of a locked VM. What can be finished without the hypervisor is; its domain and its disks may not agree before the rest is.
static int finish(struct rp_local_vm *vm, struct rp_error *err)
{
    int64_t left = 0;
    if (!rp_local_domain_is(vm))
        return rp_local_vm_finish(vm, err);
    if (!strcmp(vm->state, "creating"))
        return 0;
    if (rp_db_number(vm->local->db, err, &left,
                     "SELECT (SELECT count(*) FROM disk WHERE vm = ?1 AND state <> 'ready') +"
                     " (SELECT count(*) FROM applying a JOIN snapshot s ON s.row = a.snapshot WHERE s.vm = ?1)", "i", vm->row))
        return -1;
    if (left)
        return rp_fail(err, RP_ERR_STATE, "VM %s: a change of its disks was interrupted, which refpoint-hostd finishes, or any other "
                       "command of this host (refpoint vm list); then it can be started", vm->id);
    return rp_local_snapshot_recover(vm, err);
}

static int serve_locked(struct rp_local_vm *vm, struct rp_error *err)
{
    // Whoever had the lock before may have given the VM back, or be about to.
    int rc = rp_local_vm_load_row(vm->local, vm->row, vm, err);
    if (rc == 0 || (rc == 1 && !strcmp(vm->state, "deleting")))
        return rp_local_not_found(vm->local, vm->id, err);
    return rc < 0 || finish(vm, err) || rp_local_domain_serve(vm, err) ? -1 : 0;
}

static int make_it_run(struct rp_local *local, const char *vm_id, const char *domain, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    uint64_t deadline = rp_clock_monotonic_ns() + PATIENCE_S * 1000000000ull;
    if (load_for(local, vm_id, domain, &vm, err))
        return -1;
    for (; rp_clock_monotonic_ns() < deadline; usleep(LOOK_MS * 1000)) {
        // Without the lock where it serves already; or where who has the lock waits for the hypervisor, and so for us.
        if (rp_service_answers(vm.directory) || rp_lock_is_taken(local->lock_fd, RP_LOCAL_SERVABLE(&vm)))
            return rp_local_domain_serve(&vm, err);
        int rc = rp_lock_take(local->lock_fd, vm.row, 0, err);
        if (rc < 0)
            return -1;
        vm.locked = rc == 1;
        if (vm.locked)
            return serve_locked(&vm, err);
    }
    return rp_fail(err, RP_ERR_BUSY, "VM %s: another process has been changing it for %d s; try again later", vm.id, PATIENCE_S);
}

// Until it has ended (0), or `stop` says so (1): a signal interrupts poll.
static int stay_with(int process, const struct rp_host_serving *serving)
{
    struct pollfd end = {.fd = process, .events = POLLIN};
    for (int wait_ms = 0;; wait_ms = 500) {
        if (poll(&end, 1, wait_ms) > 0)
            return 0;
        if (serving->stop(serving->context))
            return 1;
    }
}

// Who ends a service may be about to start the next one: to let a disk grow, or the domain anew. Then he has the VM's lock.
static bool is_replaced(const struct rp_local_vm *vm, const struct rp_host_serving *serving)
{
    while (!rp_service_answers(vm->directory)) {
        if (!rp_lock_is_taken(vm->local->lock_fd, vm->row) || serving->stop(serving->context))
            return false;
        usleep(LOOK_MS * 1000);
    }
    return true;
}

int rp_host_local_serve(struct rp_host_connection *host, const char *vm_id, const char *domain, const struct rp_host_serving *serving,
                        struct rp_error *err)
{
    struct rp_local *local = rp_local_of(host);
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    if (load_for(local, vm_id, domain, &vm, err))
        return -1;
    // Also where nobody stays: what answers now, somebody else may be about to end.
    RP_AUTO_FD int hold = rp_local_domain_hold(&vm, err);
    if (hold < 0 || make_it_run(local, vm_id, domain, err))
        return -1;
    if (!serving)
        return 0;
    bool told = false;
    do {
        RP_AUTO_FD int process = rp_service_process(vm.directory, err);
        if (process < 0)
            return rp_context(err, "VM %s: its disk service", vm.id);
        if (!told)
            serving->ready(serving->context);
        told = true;
        if (stay_with(process, serving))
            return rp_service_end(vm.directory, process, err);
    } while (is_replaced(&vm, serving));
    if (rp_engine_left_behind(local->fs, vm.directory))
        return rp_fail(err, RP_ERR_IO, "VM %s: its disk service was killed; the next one goes on with all that it had acknowledged", vm.id);
    return 0;
}

// Without the lock: it is asked for when the domain has ended, by who may have it.
int rp_host_local_unserve(struct rp_host_connection *host, const char *vm_id, const char *domain, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    return load_for(rp_local_of(host), vm_id, domain, &vm, err) || rp_service_stop(vm.directory, err) ? -1 : 0;
}

int rp_host_local_may_serve(struct rp_host_connection *host, const char *vm_id, const char *domain, struct rp_error *err)
{
    RP_CLEANUP(rp_local_vm_release) struct rp_local_vm vm = {0};
    return load_for(rp_local_of(host), vm_id, domain, &vm, err);
}
