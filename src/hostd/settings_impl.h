// What the files of settings share: object_settings.c goes over those of a VM or snapshot, object_resources.c fills in
// what is in them.
#ifndef RP_HOSTD_SETTINGS_IMPL_H
#define RP_HOSTD_SETTINGS_IMPL_H

#include "hostd/core.h"

// One pass over the settings of one owner.
struct rp_settings {
    struct rp_hostd *hostd;
    struct rp_hostd_owner owner;
    struct rp_vm_settings frozen;       // of a snapshot
    const struct rp_vm_disk *disks;
    size_t disk_count;
    struct rp_cim_instances extras;
    const struct rp_cim_class *class;   // what is wanted; NULL: everything, named only
    struct rp_cim_sink sink;
    rp_hostd_part_fn *visit;
    void *context;
};

// Whether the pass is about this class.
bool rp_settings_wants(const struct rp_settings *s, const char *class_name);
// One component: the defaults of its class, then `fill`, then what clients have set. `suffix` follows the owner's GUID.
int rp_settings_give(struct rp_settings *s, const char *class_name, const char *suffix,
                     void (*fill)(const struct rp_settings *s, struct rp_cim_instance *object, const void *context),
                     const void *context, struct rp_error *err);

// object_resources.c: all components but those that are only kept.
int rp_settings_give_resources(struct rp_settings *s, struct rp_error *err);
// "\<controller>\<number>" of the VM's first controller.
void rp_settings_controller(const struct rp_settings *s, char suffix[RP_HOST_ID]);
// Whether that is the suffix of one of the host's own disks or of its drive.
bool rp_settings_is_disk(const struct rp_settings *s, const char *suffix);
// A processor, `count` of them.
void rp_settings_fill_processor(const struct rp_settings *s, struct rp_cim_instance *object, const void *count);

#endif
