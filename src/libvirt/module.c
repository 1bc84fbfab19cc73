// What src/host loads: the functions of this module under one name.
#include "host/hypervisor.h"
#include "libvirt/libvirt_impl.h"

__attribute__((visibility("default"))) const struct rp_hypervisor_module rp_hypervisor_module = {
    .version = RP_HYPERVISOR_VERSION,
    .ops = &rp_libvirt_ops,
};
