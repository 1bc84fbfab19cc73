// From a VM to what runs it: its domain and the hypervisor (host/hypervisor.h). For VMs that have one (rp_local_domain_is);
// the others are served by their disk service alone, and nothing here concerns them.
//
// Functions need no lock of the VM where nothing else is said. Errors name the VM.
#ifndef RP_HOST_DOMAIN_H
#define RP_HOST_DOMAIN_H

#include "host/hypervisor.h"
#include "host/internal.h"

static inline bool rp_local_domain_is(const struct rp_local_vm *vm)
{
    return vm->hypervisor && *vm->hypervisor;
}

// The connection to its hypervisor: one per process and URI, opened at first use, kept until the process ends. Borrowed; never
// to be closed. One that could not be opened is not tried again for some seconds: RP_ERR_UNSUPPORTED, RP_ERR_IO, … as before.
struct rp_hypervisor *rp_local_domain_open(const struct rp_local_vm *vm, struct rp_error *err);
// The same by URI.
struct rp_hypervisor *rp_local_domain_open_uri(const char *uri, struct rp_error *err);

int rp_local_domain_state(const struct rp_local_vm *vm, enum rp_domain_state *state, struct rp_error *err);
// It has a process: running, paused, waiting for a disk, starting, stopping.
bool rp_local_domain_is_live(enum rp_domain_state state);
// How the host connection calls that state.
enum rp_vm_state rp_local_domain_vm_state(enum rp_domain_state state);

// Its domain runs, or nobody knows: its disks belong to a disk service, should that be away for the moment. False of a VM without.
bool rp_local_domain_needs_service(const struct rp_local_vm *vm);

// The disks of the domain that the VM's disk service serves, in the order of their numbers.
struct rp_local_domain_disks {
    size_t count;
    struct rp_domain_disk items[RP_ENGINE_MAX_DISKS];
    uint32_t numbers[RP_ENGINE_MAX_DISKS]; // of the VM's disks
    char *socket;                          // what all items borrow
};
int rp_local_domain_disks(const struct rp_local_vm *vm, struct rp_local_domain_disks *disks, struct rp_error *err);
void rp_local_domain_disks_clear(struct rp_local_domain_disks *disks); // usable with RP_CLEANUP

// What list_vms and the inventory show of it: state, waits, remark. A hypervisor that does not answer is a remark, and the state
// what the disk service says. `problem`, `unprotected`: what the database has of the VM.
void rp_local_domain_describe(const struct rp_local_vm *vm, const char *problem, const char *unprotected, struct rp_vm *out);
// The same, asking the database.
void rp_local_domain_describe_row(const struct rp_local_vm *vm, struct rp_vm *out);
// Takes down what stands in the way of the VM (column `problem`; "": nothing any more), when it is new.
void rp_local_domain_note(const struct rp_local_vm *vm, const char *problem);

// ---- domain_disks.c: its disk service; the VM is locked ---------------------------------------------------------------

// Who QEMU is under the system's libvirt may connect to the NBD socket of the VM (domain_access.c). Not for root's or a user's own QEMU.
int rp_local_domain_admit(const struct rp_local_vm *vm, struct rp_error *err);
// Starts its disk service unless it answers, bringing in what a killed one left; who is just ending it is waited for. Of a VM
// without disks: nothing.
int rp_local_domain_serve(const struct rp_local_vm *vm, struct rp_error *err);
// Ends its disk service, everything durable. One that somebody holds (`refpoint vm serve`, rp_local_domain_hold) only with `all`.
int rp_local_domain_unserve(const struct rp_local_vm *vm, bool all, struct rp_error *err);
// Until the descriptor is closed, nobody ends the disk service but who was told to. Waits for who is about to end it. The VM
// need not be locked. -1: error.
int rp_local_domain_hold(const struct rp_local_vm *vm, struct rp_error *err);
#define RP_LOCAL_HOLD "held" // file in the VM's folder
// A lock of who has the VM's lock and waits for its hypervisor, which takes its time and may need the disks: between these two,
// others serve them without the VM's lock. Beyond the numbers of VMs and of exports.
#define RP_LOCAL_SERVABLE(vm) (((int64_t)1 << 41) + (vm)->row)
int rp_local_domain_let_serve(const struct rp_local_vm *vm, struct rp_error *err);
void rp_local_domain_serve_alone(const struct rp_local_vm *vm);
// QEMU and the disk service, which answers, find each other again (rp_hypervisor_ops.reconnect).
int rp_local_domain_reconnect(const struct rp_local_vm *vm, struct rp_error *err);

// A disk grows while the domain runs: `grow` is called while the disk service is away, then QEMU and the guest hear of the new size.
// Whatever fails, the service is back afterwards. Repeated with the same size, it does what was left out.
int rp_local_domain_grow(const struct rp_local_vm *vm, uint32_t number, uint64_t size,
                         int (*grow)(const struct rp_local_vm *vm, uint32_t number, uint64_t size, struct rp_error *err),
                         struct rp_error *err);

// ---- domain_devices.c; the VM is locked, and off ------------------------------------------------------------------------

// The domain's definition gets a disk that is this export, on the bus of the others; and loses it (done already is fine).
int rp_local_domain_add_disk(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err);
int rp_local_domain_drop_disk(const struct rp_local_vm *vm, uint32_t number, struct rp_error *err);

// ---- domain_run.c -----------------------------------------------------------------------------------------------------

// request_state of a VM that has a hypervisor.
int rp_local_domain_request(struct rp_local *local, const char *vm_id, enum rp_vm_state state, struct rp_error *err);

// How long QEMU waits for a disk service that is away before it pauses the VM (rp_hypervisor_ops.reconnect).
#define RP_LOCAL_DOMAIN_PATIENCE_S 30

#endif
