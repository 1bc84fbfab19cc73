// The domain that a VM of this host gets when it is made, where an administrator has said which hypervisor runs its VMs
// (rp_host_local_set_hypervisor).
#ifndef RP_HOST_DOMAIN_DEFINE_H
#define RP_HOST_DOMAIN_DEFINE_H

#include "host/domain.h"

struct rp_local_hosting {
    char *hypervisor; // URI; "": VMs are served by their disk service alone
    char *network;    // "": none; "user": QEMU's own; else one of libvirt's
    bool emulated;    // without KVM
};
int rp_local_hosting_load(struct rp_local *local, struct rp_local_hosting *hosting, struct rp_error *err);
void rp_local_hosting_clear(struct rp_local_hosting *hosting); // usable with RP_CLEANUP

// Before a VM of that id is announced: its hypervisor answers, and has no domain with that UUID (RP_ERR_EXISTS), which
// would be replaced by it, and go with it. Nothing without a hypervisor.
int rp_local_domain_check_free(const struct rp_local_hosting *hosting, const char *id, struct rp_error *err);
// Inside the transaction that announces it (state 'creating'): what undoing it needs.
int rp_local_domain_announce(struct rp_local_vm *vm, const struct rp_local_hosting *hosting, struct rp_error *err);
// The last step before it is ready: defines the domain from the settings that were kept of it, with the firmware's
// state that is among them. Idempotent. Undone by rp_local_domain_undo. A hypervisor that was not waited for any longer may define
// it later: then vm->awaited.
int rp_local_domain_make(struct rp_local_vm *vm, const struct rp_local_hosting *hosting,
                         const struct rp_local_new_vm *facts, size_t disk_count, struct rp_error *err);
// Of a VM in state 'creating': the domain that was made for it goes; an adopted one stays. RP_ERR_BUSY: it is awaited.
int rp_local_domain_undo(const struct rp_local_vm *vm, struct rp_error *err);
// A change that a hypervisor was asked for, and that failed so, may have happened all the same, or may happen later.
bool rp_local_domain_may_come(const struct rp_error *why);
// Whether a disk of this definition is one that the VM's disk service serves; true as well when nobody can read it.
bool rp_local_domain_names_us(const struct rp_local_vm *vm, const char *xml);
// The same of its domain: 1, 0 (also when there is no domain), -1 nobody can tell now. Of a VM without disks: whether there is one.
int rp_local_domain_is_ours(const struct rp_local_vm *vm, struct rp_error *err);

#endif
