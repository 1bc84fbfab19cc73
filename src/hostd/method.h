// What the method_*.c share: what references and embedded settings in parameters say, and jobs that do one thing.
//
// Failures are errors; provider.c makes them codes. A parameter that is missing, of the wrong class, or that names
// nothing is RP_ERR_INVALID ("invalid parameter"), whatever the reason.
#ifndef RP_HOSTD_METHOD_H
#define RP_HOSTD_METHOD_H

#include "hostd/hostd.h"

// ---- what references name -------------------------------------------------------------------------------------------

// Points into an inventory, which it holds: release it.
struct rp_method_found {
    struct rp_hostd *hostd;
    const struct rp_inventory *inventory;
    const struct rp_inventory_vm *vm;
    bool planned;                            // it is a planned VM
    const struct rp_snapshot *snapshot;      // of rp_method_settings_at: NULL for the VM's own settings
    const struct rp_reference_point *point;
};
void rp_method_release(struct rp_method_found *found); // usable with RP_CLEANUP

enum rp_method_which { RP_METHOD_REAL = 1, RP_METHOD_PLANNED = 2, RP_METHOD_ANY = 3 };

// Of a parameter that is a reference.
int rp_method_vm(const struct rp_hostd_call *call, const char *parameter, enum rp_method_which which,
                 struct rp_method_found *found, struct rp_error *err);
int rp_method_settings(const struct rp_hostd_call *call, const char *parameter, enum rp_method_which which,
                       struct rp_method_found *found, struct rp_error *err);
int rp_method_snapshot(const struct rp_hostd_call *call, const char *parameter, struct rp_method_found *found,
                       struct rp_error *err);
int rp_method_point(const struct rp_hostd_call *call, const char *parameter, struct rp_method_found *found,
                    struct rp_error *err);
// Of a path; `what` is what messages call it.
int rp_method_vm_at(struct rp_hostd *hostd, const struct rp_cim_path *path, enum rp_method_which which,
                    const char *what, struct rp_method_found *found, struct rp_error *err);
int rp_method_settings_at(struct rp_hostd *hostd, const struct rp_cim_path *path, enum rp_method_which which,
                          const char *what, struct rp_method_found *found, struct rp_error *err);
int rp_method_point_at(struct rp_hostd *hostd, const struct rp_cim_path *path, const char *what,
                       struct rp_method_found *found, struct rp_error *err);
// Of the text of an InstanceID "Microsoft:<GUID>…" (of settings, or of a resource in them); *rest is what follows the
// GUID.
int rp_method_instance(struct rp_hostd *hostd, const char *instance_id, enum rp_method_which which,
                       struct rp_method_found *found, const char **rest, struct rp_error *err);
// The VM's disk that an InstanceID names, in its own settings or in a snapshot's (whose GUID then stands in front); its
// drive ("…\D") counts too. NULL: none.
const struct rp_vm_disk *rp_method_disk(const struct rp_inventory_vm *vm, const char *instance_id);

// ---- embedded settings ----------------------------------------------------------------------------------------------

// An instance of `class_name` or a subclass, typed, without properties that the class does not have (a newer Windows
// knows more); text that is empty or NULL gives an empty instance of `class_name`. To be freed.
struct rp_cim_instance *rp_method_embedded(const struct rp_hostd_call *call, const char *parameter,
                                           const char *class_name, struct rp_error *err);
// Element `i` of a parameter that is an array of such texts; an empty one is refused. One of a class that is not in the
// schema, but called as settings are ("Msvm_…SettingData"), is given as it came: a real VM has settings of many things.
struct rp_cim_instance *rp_method_embedded_at(const struct rp_hostd_call *call, const char *parameter, size_t i,
                                              const char *class_name, struct rp_error *err);
// The name of the checkpoints that exports make for themselves, and which are removed when one is found at the start.
#define RP_METHOD_EXPORT "refpoint-hostd export"
// As for a VM: 1 to 255 bytes, no control characters; not the name above.
int rp_method_check_name(const char *name, const char *what, struct rp_error *err);
// A name for a checkpoint or reference point that got none, as Hyper-V makes them: "<VM> - (11/22/2026 - 10:04:05 PM)".
char *rp_method_default_name(const char *vm_name, const char *kind);

// ---- results --------------------------------------------------------------------------------------------------------

void rp_method_set_reference(const struct rp_hostd_call *call, const char *parameter,
                             struct rp_cim_path *path); // taken
// The path of a settings instance "Microsoft:<GUID><rest>".
struct rp_cim_path *rp_method_resource_path(const struct rp_hostd *hostd, const char *class_name, const char *owner_id,
                                            const char *rest);
// The GUID in an id of the host connection ("Microsoft:<GUID>" or "<GUID>"); borrowed.
const char *rp_method_guid(const char *id);

// ---- jobs -----------------------------------------------------------------------------------------------------------

// What most jobs have to know. Strings are its own.
struct rp_method_task {
    char vm_id[RP_HOST_ID];
    char id[RP_HOST_ID];     // what it works on
    char *name, *path, *extras;
    uint32_t number;
    bool flag;
    char **list;
    size_t count;
};
struct rp_method_task *rp_method_task_new(const struct rp_inventory_vm *vm, const char *id); // NULL: nobody, nothing
void rp_method_task_add(struct rp_method_task *task, const char *text);
void rp_method_task_free(void *task);
// Starts `job` with the task as its context (taken); where `job` is silent: Msvm_ConcreteJob, the task's VM and id, and
// a planned id for what is made.
int rp_method_start(const struct rp_hostd_call *call, struct rp_hostd_job job, struct rp_method_task *task,
                    uint32_t *status, struct rp_error *err);
// Ends a call of the host connection that may have started a job there: `rc` is what it returned.
int rp_method_wait(struct rp_host_connection *host, int rc, const char *job, char result[RP_HOST_ID],
                   struct rp_error *err);

// ---- disk files that clients name (method_image.c) ------------------------------------------------------------------

struct rp_method_file {
    char *path;                  // canonical
    char user[RP_GUID_TEXT];     // the VM that has it, as a disk or in a disk's chain; "": none
    bool written;                // and writes to it, or will
};
void rp_method_file_clear(struct rp_method_file *file); // usable with RP_CLEANUP
// Inside the folders, or of a VM of this host; RP_ERR_PERMISSION otherwise. It need not be there.
int rp_method_file(const struct rp_hostd_call *call, const char *text, const char *what, struct rp_method_file *file,
                   struct rp_error *err);
// The same for a file that is to be changed or made: inside the folders, and no VM has it (RP_ERR_BUSY).
int rp_method_file_free(const struct rp_hostd_call *call, const char *text, const char *what,
                        struct rp_method_file *file, struct rp_error *err);
// RP_ERR_NOT_FOUND when it is not there.
int rp_method_file_there(const struct rp_method_file *file, const char *what, struct rp_error *err);
// Every file that a differencing disk reads from lies where its client may name files too: a locator is only text that
// somebody wrote. What is no VHDX, or not there, has no parents.
int rp_method_file_parents(const struct rp_hostd_call *call, const char *path, const char *what, struct rp_error *err);

rp_hostd_method_fn rp_method_image_create, rp_method_image_convert, rp_method_image_resize, rp_method_image_compact,
    rp_method_image_merge, rp_method_image_set_parent; // method_image_change.c
rp_hostd_method_fn rp_method_export_system, rp_method_export_point; // method_export.c
rp_hostd_method_fn rp_method_resources_add, rp_method_resources_modify,
    rp_method_resources_remove; // method_resources_change.c
rp_hostd_method_fn rp_method_service_settings; // method_service.c

// ---- what is not a disk in settings (method_resources.c) ------------------------------------------------------------

enum rp_method_kind {
    RP_METHOD_DISK,
    RP_METHOD_PROCESSOR, RP_METHOD_MEMORY, // every VM has one
    RP_METHOD_IMPLIED,                     // controllers, drives of disks: they come with the disks
    RP_METHOD_KEPT,                        // everything else: kept and shown
};
// Element `i` of ResourceSettings and what it is; RP_ERR_INVALID for what is no resource. To be freed.
struct rp_cim_instance *rp_method_resource(const struct rp_hostd_call *call, size_t i, enum rp_method_kind *kind,
                                           struct rp_error *err);
// The file of a disk; canonical, free, and all that it reads from is where clients may name files. To be freed. It is asked
// again when it becomes a disk (rp_hostd_file_judge): by then it may be another.
char *rp_method_resource_file(const struct rp_hostd_call *call, const struct rp_cim_instance *settings,
                              struct rp_error *err);
// Sorts the ResourceSettings of a new VM: files of disks go to `disks` ("" for one that is to be said later, when the
// VM is `planned`), the rest into `extras`.
int rp_method_resources_sort(const struct rp_hostd_call *call, bool planned, struct rp_method_task *disks,
                             struct rp_cim_instances *extras, struct rp_error *err);
// Settings of the VM itself (suffix "") or of a resource into `extras`, without what this host decides.
void rp_method_resources_keep(struct rp_cim_instances *extras, const char *suffix,
                              const struct rp_cim_instance *settings);

// ---- settings that are only kept (method_common.c; extras.c) --------------------------------------------------------

// Loads, changes and stores the settings of a VM or planned VM; whoever else wants to waits. Nothing is stored when
// `change` fails.
typedef int rp_method_change_fn(struct rp_cim_instances *extras, void *context, struct rp_error *err);
int rp_method_extras_change(struct rp_host_connection *host, const char *vm_id, rp_method_change_fn *change,
                            void *context, struct rp_error *err);

#endif
