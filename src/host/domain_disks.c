// The disk service of a VM that a hypervisor runs: there before its domain, gone after it.
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/log.h"
#include "host/domain.h"

static int count_disks(const struct rp_local_vm *vm, int64_t *count, struct rp_error *err)
{
    return rp_db_number(vm->local->db, err, count, "SELECT count(*) FROM disk WHERE vm = ?", "i", vm->row);
}

int rp_local_domain_serve(const struct rp_local_vm *vm, struct rp_error *err)
{
    int64_t disks = 0;
    struct rp_error why = {0};
    if (rp_service_answers(vm->directory)) // and should somebody have shut a folder on the way meanwhile, it is opened again
        return rp_local_domain_is(vm) ? rp_local_domain_admit(vm, err) : 0;
    if (count_disks(vm, &disks, err))
        return -1;
    // BUSY and it listens: somebody else was quicker, or it answers nobody at the moment.
    if (disks && rp_service_start(vm->directory, &why) && !(why.code == RP_ERR_BUSY && rp_local_vm_running(vm))) {
        rp_fail_as(err, &why);
        return rp_context(err, "VM %s: its disk service", vm->id);
    }
    if (disks && rp_local_domain_is(vm) && rp_local_domain_admit(vm, err))
        return rp_context(err, "VM %s: its disk service", vm->id);
    if (disks && vm->locked && rp_local_merge_advance(vm, false, NULL) < 0)
        rp_log(RP_LOG_WARNING, "VM %s: its merges could not be resumed yet", vm->id);
    return 0;
}

int rp_local_domain_let_serve(const struct rp_local_vm *vm, struct rp_error *err)
{
    return rp_lock_take(vm->local->lock_fd, RP_LOCAL_SERVABLE(vm), 0, err) < 0 ? -1 : 0;
}

void rp_local_domain_serve_alone(const struct rp_local_vm *vm) { rp_lock_release(vm->local->lock_fd, RP_LOCAL_SERVABLE(vm)); }

static int open_hold(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(vm->directory, RP_LOCAL_HOLD);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 ? fd : rp_fail_sys(err, errno, "%s", path);
}

int rp_local_domain_hold(const struct rp_local_vm *vm, struct rp_error *err)
{
    int fd = open_hold(vm, err);
    while (fd >= 0 && flock(fd, LOCK_SH)) {
        if (errno == EINTR)
            continue;
        rp_fail_sys(err, errno, "VM %s: hold its disk service", vm->id);
        close(fd);
        return -1;
    }
    return fd;
}

int rp_local_domain_unserve(const struct rp_local_vm *vm, bool all, struct rp_error *err)
{
    RP_AUTO_FD int held = all ? -1 : open_hold(vm, err);
    if (!all && held < 0)
        return -1;
    if (!all && flock(held, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? 0 : rp_fail_sys(err, errno, "VM %s: end its disk service", vm->id);
    return rp_service_stop(vm->directory, err);
}

int rp_local_domain_reconnect(const struct rp_local_vm *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_local_domain_disks_clear) struct rp_local_domain_disks disks = {0};
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv || rp_local_domain_disks(vm, &disks, err))
        return -1;
    if (disks.count && rp_hypervisor_ops()->reconnect(hv, vm->domain, disks.items, disks.count, RP_LOCAL_DOMAIN_PATIENCE_S, err))
        return rp_context(err, "VM %s: connect its disks again", vm->id);
    return 0;
}

// QEMU 7.2 does not see an NBD disk grow while it is connected, and the service lets none grow then. Requests that it refuses
// while it ends pause the domain at worst, as when it is killed; so whoever comes after a crash knows what to do. Nothing is
// lost: what was acknowledged is durable when the service has ended.
int rp_local_domain_grow(const struct rp_local_vm *vm, uint32_t number, uint64_t size,
                         int (*grow)(const struct rp_local_vm *vm, uint32_t number, uint64_t size, struct rp_error *err),
                         struct rp_error *err)
{
    RP_CLEANUP(rp_local_domain_disks_clear) struct rp_local_domain_disks disks = {0};
    struct rp_error why = {0};
    enum rp_domain_state state;
    const char *target = NULL;
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    if (!hv || rp_local_domain_disks(vm, &disks, err) || rp_local_domain_serve(vm, err) || rp_local_domain_reconnect(vm, err))
        return -1;
    for (size_t i = 0; i < disks.count; i++)
        target = disks.numbers[i] == number ? disks.items[i].target : target;
    int failed = rp_local_domain_unserve(vm, true, &why) || grow(vm, number, size, &why);
    // From here on it is the hypervisor that takes its time.
    if (rp_local_domain_serve(vm, &why) || rp_local_domain_let_serve(vm, &why) || rp_local_domain_reconnect(vm, &why))
        failed = -1;
    if (!failed && target)
        failed = rp_hypervisor_ops()->resize(hv, vm->domain, target, size, &why);
    // What was refused meanwhile is repeated.
    if (!rp_local_domain_state(vm, &state, &why) && state == RP_DOMAIN_IO_ERROR &&
        rp_hypervisor_ops()->resume(hv, vm->domain, true, &why))
        failed = -1;
    rp_local_domain_serve_alone(vm);
    return failed ? rp_fail_as(err, &why) : 0;
}
