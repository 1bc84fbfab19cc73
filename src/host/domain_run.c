// A VM that a hypervisor runs is started, paused, saved and ended. Its disk service is there before its domain starts and ends
// after it: every change runs under the VM's lock, but the waiting for a guest that shuts down.
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/domain.h"

enum { SHUT_DOWN_S = 600, ASK_AGAIN_S = 30, LOOK_MS = 200 };

struct run {
    struct rp_local_vm vm;
    struct rp_hypervisor *hv;
    enum rp_domain_state state;
};

static void clear(struct run *run) { rp_local_vm_release(&run->vm); }

static const struct rp_hypervisor_ops *ops(void) { return rp_hypervisor_ops(); }

static int look(struct run *run, struct rp_error *err)
{
    run->hv = rp_local_domain_open(&run->vm, err);
    return run->hv ? rp_local_domain_state(&run->vm, &run->state, err) : -1;
}

static int lock(struct rp_local *local, const char *vm_id, struct run *run, struct rp_error *err)
{
    return rp_local_vm_lock_as_is(local, vm_id, &run->vm, err) || look(run, err) ? -1 : 0;
}

static int wrong_state(const struct run *run, const char *what, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_STATE, "VM %s is %s: it cannot be %s", run->vm.id, rp_domain_state_name(run->state), what);
}

static int is_already(const struct run *run, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_STATE, "VM %s is %s already", run->vm.id, rp_domain_state_name(run->state));
}

// What a hypervisor is asked for takes its time, and the guest may need its disks for it.
static int ask(const struct run *run, int (*call)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err), struct rp_error *err)
{
    if (rp_local_domain_let_serve(&run->vm, err))
        return -1;
    int failed = call(run->hv, run->vm.domain, err);
    rp_local_domain_serve_alone(&run->vm);
    return failed;
}

// To end. One that has ended by then is what was wanted: by itself, or so quickly that libvirt, which asks the agent first and ACPI
// next, found nobody the second time.
static int ask_to_end(struct run *run, int (*call)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err), struct rp_error *err)
{
    struct rp_error refused = {0}, unknown = {0};
    if (!ask(run, call, &refused) || (!look(run, &unknown) && !rp_local_domain_is_live(run->state)))
        return 0;
    return rp_fail_as(err, &refused);
}

// What was interrupted once is finished now that there is no guest (or a disk service again); it is no reason to fail.
static void finish(struct run *run)
{
    struct rp_error left = {0};
    if (rp_local_vm_finish(&run->vm, &left))
        rp_log(RP_LOG_WARNING, "%s", left.text);
}

// ---- start, go on -----------------------------------------------------------------------------------------------------

static int start_on(struct run *run, const struct rp_local_domain_disks *disks, struct rp_error *err)
{
    if (rp_local_domain_serve(&run->vm, err))
        return -1;
    if (!ops()->start(run->hv, run->vm.domain, disks->items, disks->count, err))
        return 0;
    struct rp_error why = {0};
    rp_context(err, "VM %s: start", run->vm.id);
    if (!look(run, &why) && !rp_local_domain_is_live(run->state) && rp_local_domain_unserve(&run->vm, false, &why))
        rp_log(RP_LOG_WARNING, "VM %s: after its start failed: %s", run->vm.id, why.text);
    return -1;
}

static int start(struct run *run, struct rp_error *err)
{
    RP_CLEANUP(rp_local_domain_disks_clear) struct rp_local_domain_disks disks = {0};
    if (rp_local_vm_finish(&run->vm, err) || rp_local_domain_disks(&run->vm, &disks, err) || rp_local_domain_let_serve(&run->vm, err))
        return -1;
    int failed = start_on(run, &disks, err);
    rp_local_domain_serve_alone(&run->vm);
    if (!failed)
        rp_local_domain_note(&run->vm, "");
    return failed;
}

// Paused by its user, waiting for a disk, or left in the middle of a start: what it needs, and then it goes on.
static int go_on(struct run *run, struct rp_error *err)
{
    struct rp_error why = {0};
    if (rp_local_domain_serve(&run->vm, err) || rp_local_domain_let_serve(&run->vm, err))
        return -1;
    // One that waits finds its disks by itself, when it was connected so before. Where not, it will stop again.
    if (rp_local_domain_reconnect(&run->vm, &why))
        rp_log(RP_LOG_WARNING, "%s", why.text);
    int failed = ops()->resume(run->hv, run->vm.domain, false, err);
    rp_local_domain_serve_alone(&run->vm);
    if (failed)
        return rp_context(err, "VM %s: resume", run->vm.id);
    rp_local_domain_note(&run->vm, "");
    return 0;
}

static int run_it(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    if (lock(local, vm_id, &run, err))
        return -1;
    switch (run.state) {
    case RP_DOMAIN_OFF: case RP_DOMAIN_SAVED: return start(&run, err);
    case RP_DOMAIN_PAUSED: case RP_DOMAIN_IO_ERROR: case RP_DOMAIN_STARTING: return go_on(&run, err);
    case RP_DOMAIN_RUNNING: break;
    case RP_DOMAIN_STOPPING: case RP_DOMAIN_CRASHED: return wrong_state(&run, "started before it is off", err);
    }
    return is_already(&run, err);
}

// The domain has ended; its disk service ends after it, unless somebody has started it again meanwhile. Of one that is gone, what
// serves its disks is in the way of all else.
static int end_service(struct run *run, bool all, struct rp_error *err)
{
    struct rp_error why = {0};
    run->state = RP_DOMAIN_OFF;
    if (look(run, &why) && why.code != RP_ERR_NOT_FOUND)
        return rp_fail(err, why.code, "VM %s has ended, but not its disk service: %s", run->vm.id, why.text);
    if (rp_local_domain_is_live(run->state))
        return 0;
    int failed = rp_local_domain_unserve(&run->vm, all, err);
    finish(run);
    rp_local_domain_note(&run->vm, "");
    return failed;
}

// ---- pause, save, reset -----------------------------------------------------------------------------------------------

static int pause_it(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    if (lock(local, vm_id, &run, err))
        return -1;
    if (run.state == RP_DOMAIN_PAUSED)
        return is_already(&run, err);
    if (run.state != RP_DOMAIN_RUNNING) // one that waits for a disk would be resumed with the disk
        return wrong_state(&run, "paused", err);
    return ask(&run, ops()->pause, err) ? rp_context(err, "VM %s: pause", run.vm.id) : 0;
}

static int save_it(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    if (lock(local, vm_id, &run, err))
        return -1;
    if (run.state == RP_DOMAIN_SAVED)
        return is_already(&run, err);
    if (run.state != RP_DOMAIN_RUNNING && run.state != RP_DOMAIN_PAUSED)
        return wrong_state(&run, "saved", err);
    return ask(&run, ops()->save, err) ? rp_context(err, "VM %s: save", run.vm.id) : end_service(&run, true, err);
}

static int reset_it(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    if (lock(local, vm_id, &run, err))
        return -1;
    if (run.state != RP_DOMAIN_RUNNING && run.state != RP_DOMAIN_PAUSED)
        return wrong_state(&run, "reset", err);
    return ask(&run, ops()->reset, err) ? rp_context(err, "VM %s: reset", run.vm.id) : 0;
}

// ---- the end ----------------------------------------------------------------------------------------------------------

// What was left over does not keep a VM from being turned off: if the storage failed, that is the way on.
static int turn_off(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    struct rp_error why = {0};
    if (rp_local_vm_lock_as_is(local, vm_id, &run.vm, err))
        return -1;
    if (look(&run, &why) && why.code != RP_ERR_NOT_FOUND) // a domain that is gone leaves a disk service to end
        return rp_fail_as(err, &why);
    bool served = rp_local_vm_running(&run.vm);
    if (run.state == RP_DOMAIN_SAVED)
        return rp_fail(err, RP_ERR_STATE, "VM %s is saved: start it first, or let its memory be forgotten (virsh managedsave-remove)",
                       run.vm.id);
    if (!rp_local_domain_is_live(run.state) && !served) {
        finish(&run);
        return is_already(&run, err);
    }
    if (rp_local_domain_is_live(run.state) && ask_to_end(&run, ops()->turn_off, err))
        return rp_context(err, "VM %s: turn it off", run.vm.id);
    return end_service(&run, true, err);
}

static int ask_guest(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    if (lock(local, vm_id, &run, err))
        return -1;
    if (!rp_local_domain_is_live(run.state))
        return is_already(&run, err);
    if (run.state != RP_DOMAIN_RUNNING && run.state != RP_DOMAIN_STOPPING)
        return wrong_state(&run, "shut down by its guest; resume it or turn it off", err);
    return ask_to_end(&run, ops()->shut_down, err) ? rp_context(err, "VM %s: ask its guest to shut down", run.vm.id) : 0;
}

// Without the lock: checkpoints and all else go on meanwhile.
static int wait_for_guest(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    uint64_t started = rp_clock_monotonic_ns(), waited = 0, asked = 0;
    if (rp_local_vm_load(local, vm_id, &run.vm, err))
        return -1;
    for (; waited < SHUT_DOWN_S; waited = (rp_clock_monotonic_ns() - started) / 1000000000) {
        if (look(&run, err))
            return -1;
        if (!rp_local_domain_is_live(run.state))
            return 0;
        if (run.state == RP_DOMAIN_CRASHED)
            return wrong_state(&run, "shut down by its guest; turn it off", err);
        if (local->host.progress && local->host.progress(local->host.progress_context, waited, SHUT_DOWN_S))
            return rp_fail(err, RP_ERR_CANCELLED, "VM %s: nobody waits any longer for its guest, which was asked to shut down", run.vm.id);
        if (waited - asked >= ASK_AGAIN_S) { // the first time may have been too early for it
            asked = waited;
            ops()->shut_down(run.hv, run.vm.domain, NULL);
        }
        usleep(LOOK_MS * 1000);
    }
    return rp_fail(err, RP_ERR_BUSY, "VM %s: its guest was asked to shut down %d minutes ago and still runs; turn it off, or wait", run.vm.id,
                   SHUT_DOWN_S / 60);
}

static int shut_down(struct rp_local *local, const char *vm_id, struct rp_error *err)
{
    RP_CLEANUP(clear) struct run run = {0};
    return ask_guest(local, vm_id, err) || wait_for_guest(local, vm_id, err) || rp_local_vm_lock_as_is(local, vm_id, &run.vm, err)
               ? -1 : end_service(&run, false, err);
}

int rp_local_domain_request(struct rp_local *local, const char *vm_id, enum rp_vm_state state, struct rp_error *err)
{
    switch (state) {
    case RP_VM_RUNNING: return run_it(local, vm_id, err);
    case RP_VM_PAUSED: return pause_it(local, vm_id, err);
    case RP_VM_SAVED: return save_it(local, vm_id, err);
    case RP_VM_RESET: return reset_it(local, vm_id, err);
    case RP_VM_OFF: return turn_off(local, vm_id, err);
    case RP_VM_SHUT_DOWN: return shut_down(local, vm_id, err);
    case RP_VM_REBOOT: return shut_down(local, vm_id, err) || run_it(local, vm_id, err) ? -1 : 0;
    }
    return rp_fail(err, RP_ERR_INVALID, "VM %s: no state %d", vm_id, (int)state);
}
