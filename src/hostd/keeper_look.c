// When a VM is looked at, what a look and a rescue do, and what follows from how they end.
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "hostd/keeper_impl.h"

#define BUSY_NS (500 * RP_KEEPER_MS)    // somebody is changing the VM
#define WAIT_NS (1 * RP_KEEPER_S)       // until room is looked for again
#define VERIFY_NS (2 * RP_KEEPER_S)     // after help: whether it was one
#define STEADY_NS (10 * RP_KEEPER_S)    // who was well for so long starts anew
#define EACH_NS (30 * RP_KEEPER_S)      // all are looked at, should an event be lost
#define PAUSE_MOST_NS (60 * RP_KEEPER_S)
enum { TELL_AFTER = 3 };

// ---- when it is looked at next (under the mutex) ------------------------------------------------------------------------

void rp_keeper_sooner(struct rp_kept_vm *vm, uint64_t due)
{
    if (due < vm->due)
        vm->due = due;
}

// Something happened, for the n-th time in a row. The first times it is helped at once, then with pauses that double.
uint64_t rp_keeper_in_time(const struct rp_kept_vm *vm, unsigned times)
{
    uint64_t pause = times < 2 ? 0 : times < 9 ? rp_min64((250 * RP_KEEPER_MS) << times, PAUSE_MOST_NS) : PAUSE_MOST_NS;
    return rp_max64(rp_clock_monotonic_ns(), pause ? vm->helped + pause : 0);
}

void rp_keeper_happened(struct rp_kept_vm *vm, unsigned times) { rp_keeper_sooner(vm, rp_keeper_in_time(vm, times)); }

// A hypervisor that does not answer for long makes looks rare, and not the help for a disk service that dies meanwhile.
unsigned rp_keeper_most(const struct rp_kept_vm *vm) { return vm->times > vm->failures ? vm->times : vm->failures; }

static void helped(struct rp_kept_vm *vm, bool acted, bool failed)
{
    uint64_t now = rp_clock_monotonic_ns();
    unsigned before = rp_keeper_most(vm);
    bool again = vm->helped && now - vm->helped < STEADY_NS + ((250 * RP_KEEPER_MS) << (before < 8 ? before : 8));
    vm->times = (again ? vm->times : 0) + acted;
    vm->failures = (again ? vm->failures : 0) + failed;
    vm->helped = now;
}

static void tell(struct rp_kept_vm *vm, const char *text)
{
    if (!vm->told)
        rp_log(RP_LOG_WARNING, "VM %s (%s): %s", vm->domain.name, vm->domain.vm_id, text);
    vm->told = true;
}

static void is_well(struct rp_kept_vm *vm)
{
    if (vm->told)
        rp_log(RP_LOG_WARNING, "VM %s (%s): goes on again", vm->domain.name, vm->domain.vm_id);
    vm->told = false;
}

// ---- a look -----------------------------------------------------------------------------------------------------------------

static int connect_line(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

void rp_keeper_hang_up(struct rp_kept_vm *vm)
{
    if (vm->line >= 0)
        close(vm->line);
    vm->line = -1;
}

static void hang_on(struct rp_hostd_keeper *k, struct rp_kept_vm *vm)
{
    pthread_mutex_lock(&k->mutex);
    if (vm->line < 0)
        vm->line = connect_line(vm->domain.control);
    pthread_mutex_unlock(&k->mutex);
    rp_keeper_wake(k);
}

static void take_result(struct rp_kept_vm *vm, int failed, const struct rp_host_kept *kept, int line, const struct rp_error *err)
{
    if (vm->line < 0)
        vm->line = line;
    else if (line >= 0)
        close(line);
    rp_keeper_sooner(vm, rp_clock_monotonic_ns() + EACH_NS);
    if (failed && kept->at_work) {
        rp_keeper_sooner(vm, rp_clock_monotonic_ns() + BUSY_NS);
        return;
    }
    if (failed && err->code == RP_ERR_NOT_FOUND && vm->gone)
        return;
    if (failed || kept->acted)
        helped(vm, kept->acted, failed);
    if (failed || kept->waiting)
        tell(vm, failed ? err->text : "paused: the file system of its disks is full; it goes on when there is room");
    else if (kept->acted && vm->times >= TELL_AFTER)
        tell(vm, "its disks fail again and again; see service.log in its folder");
    if (failed)
        rp_keeper_happened(vm, rp_keeper_most(vm));
    else if (kept->waiting)
        rp_keeper_sooner(vm, rp_clock_monotonic_ns() + WAIT_NS);
    else if (kept->acted)
        rp_keeper_sooner(vm, rp_clock_monotonic_ns() + VERIFY_NS);
    else if (kept->live ? rp_clock_monotonic_ns() - vm->helped > VERIFY_NS : true)
        is_well(vm);
    if (kept->served && vm->line < 0 && (kept->acted || !failed)) // it ended again
        rp_keeper_happened(vm, vm->times);
}

struct look {
    struct rp_hostd_keeper *k;
    struct rp_kept_vm *vm;
    bool started, changed;
};

static void *look(void *argument)
{
    struct look *l = argument;
    struct rp_hostd_keeper *k = l->k;
    struct rp_kept_vm *vm = l->vm;
    struct rp_error err = {0};
    struct rp_host_connection *host = rp_hostd_hosts_borrow(k->hostd, &err);
    // What needs no hypervisor comes first, and its end is heard of while that is asked.
    struct rp_host_kept first = {0};
    if (host && !rp_host_local_rescue(host, vm->domain.vm_id, &first, NULL) && first.served)
        hang_on(k, vm);
    struct rp_host_kept kept = {.acted = first.acted};
    int failed = host ? rp_host_local_keep(host, vm->domain.vm_id, l->started, l->changed, &kept, &err) : -1;
    rp_hostd_hosts_return(k->hostd, host);
    int line = kept.served ? connect_line(vm->domain.control) : -1;
    if (kept.acted || failed)
        rp_hostd_hosts_changed(k->hostd);
    pthread_mutex_lock(&k->mutex);
    if (failed) {
        vm->started |= l->started;
        vm->changed |= l->changed;
    }
    take_result(vm, failed, &kept, line, &err);
    vm->looking = false;
    k->looks--;
    rp_keeper_leave(k);
    pthread_mutex_unlock(&k->mutex);
    free(l);
    return NULL;
}

// Under the mutex.
void rp_keeper_look(struct rp_hostd_keeper *k, struct rp_kept_vm *vm)
{
    struct look *l = rp_xcalloc(1, sizeof *l);
    *l = (struct look){.k = k, .vm = vm, .started = vm->started, .changed = vm->changed};
    if (rp_keeper_begin(k, look, l)) {
        free(l);
        vm->due = rp_clock_monotonic_ns() + BUSY_NS;
        return;
    }
    vm->started = vm->changed = false;
    vm->rescue = 0;
    vm->looking = true;
    k->looks++;
    vm->due = UINT64_MAX;
}

// ---- a rescue, beside a look ------------------------------------------------------------------------------------------------

static void *rescue(void *argument)
{
    struct look *l = argument;
    struct rp_hostd_keeper *k = l->k;
    struct rp_kept_vm *vm = l->vm;
    struct rp_host_kept kept = {0};
    struct rp_host_connection *host = rp_hostd_hosts_borrow(k->hostd, NULL);
    int failed = host ? rp_host_local_rescue(host, vm->domain.vm_id, &kept, NULL) : -1;
    rp_hostd_hosts_return(k->hostd, host);
    int line = kept.served ? connect_line(vm->domain.control) : -1;
    pthread_mutex_lock(&k->mutex);
    if (vm->line < 0)
        vm->line = line;
    else if (line >= 0)
        close(line);
    if (kept.acted)
        helped(vm, true, false);
    vm->rescue = failed ? rp_clock_monotonic_ns() + BUSY_NS : kept.served && vm->line < 0 ? rp_keeper_in_time(vm, vm->times) : 0;
    vm->rescuing = false;
    rp_keeper_leave(k);
    pthread_mutex_unlock(&k->mutex);
    free(l);
    return NULL;
}

// Under the mutex.
void rp_keeper_rescue(struct rp_hostd_keeper *k, struct rp_kept_vm *vm)
{
    struct look *l = rp_xcalloc(1, sizeof *l);
    *l = (struct look){.k = k, .vm = vm};
    vm->rescuing = !rp_keeper_begin(k, rescue, l);
    vm->rescue = vm->rescuing ? 0 : rp_clock_monotonic_ns() + BUSY_NS;
    if (!vm->rescuing)
        free(l);
}
