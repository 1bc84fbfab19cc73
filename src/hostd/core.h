// What the files of the core share beside hostd.h.
#ifndef RP_HOSTD_CORE_H
#define RP_HOSTD_CORE_H

#include "hostd/hostd.h"

// ---- audit.c --------------------------------------------------------------------------------------------------------

// One line per change, in the order in which they were carried out: a time, then name=value or name="value" with
// backslashes, quotes and control characters escaped. Thread safe.
// `path` "-": standard error; NULL: nowhere.
struct rp_hostd_audit *rp_hostd_audit_open(const char *path, struct rp_error *err);
void rp_hostd_audit_close(struct rp_hostd_audit *audit);  // NULL is fine
void rp_hostd_audit_reopen(struct rp_hostd_audit *audit); // after somebody renamed the file
void rp_hostd_audit_field(struct rp_buf *line, const char *name, const char *value); // " name=value"
void rp_hostd_audit_write(struct rp_hostd_audit *audit, struct rp_buf *fields);      // the fields with their time

// ---- hosts.c --------------------------------------------------------------------------------------------------------

int rp_hostd_hosts_open(struct rp_hostd *hostd, struct rp_error *err); // fills hostd->hosts
void rp_hostd_hosts_close(struct rp_hostd *hostd);                     // nothing is borrowed any more
// The VM or planned VM (*planned) of that id; NULL: none.
const struct rp_inventory_vm *rp_hostd_hosts_vm(const struct rp_inventory *inventory, const char *id, bool *planned);
// The snapshot of that id, with or without "Microsoft:", and its VM. One that is only waiting to be merged is none.
const struct rp_snapshot *rp_hostd_hosts_snapshot(const struct rp_inventory *inventory, const char *id,
                                                  const struct rp_inventory_vm **vm);
const struct rp_reference_point *rp_hostd_hosts_point(const struct rp_inventory *inventory, const char *id,
                                                      const struct rp_inventory_vm **vm);

// ---- keeper.c -------------------------------------------------------------------------------------------------------

// Supervises the VMs that hypervisors run until it is closed, the domains and their disk services go on then (hostd->keeper).
int rp_hostd_keeper_open(struct rp_hostd *hostd, struct rp_error *err);
void rp_hostd_keeper_close(struct rp_hostd *hostd);

// ---- finisher.c -----------------------------------------------------------------------------------------------------

// A thread that finishes what killed commands began (the keeper's).
struct rp_hostd_finisher;
struct rp_hostd_finisher *rp_hostd_finisher_open(struct rp_hostd *hostd, struct rp_error *err);
void rp_hostd_finisher_close(struct rp_hostd_finisher *finisher); // NULL is fine

// ---- paths.c --------------------------------------------------------------------------------------------------------

const char *rp_hostd_paths_bare(const char *id); // what follows "Microsoft:", or the id itself
// "Microsoft:<GUID>…": the GUID in upper case, and what follows it (borrowed). False when it is none of that form.
bool rp_hostd_paths_split(const char *instance, char guid[RP_GUID_TEXT], const char **rest);
// "Microsoft:<GUID of id><rest>"; "Microsoft:" may be in the id. Returns `out`.
const char *rp_hostd_paths_instance(const char *id, const char *rest, char out[2 * RP_HOST_ID]);
struct rp_cim_path *rp_hostd_paths_of(const struct rp_hostd *hostd, const char *class_name, const char *instance);
char *rp_hostd_paths_text(struct rp_cim_path *path); // takes the path; its text, to be freed

// ---- jobs.c ---------------------------------------------------------------------------------------------------------

int rp_hostd_jobs_open(struct rp_hostd *hostd, unsigned seconds, struct rp_error *err); // fills hostd->jobs
void rp_hostd_jobs_stop(struct rp_hostd *hostd); // asks them to end and waits; none start any more
void rp_hostd_jobs_close(struct rp_hostd *hostd);
const char *rp_hostd_jobs_uuid(const struct rp_hostd *hostd); // of this host, the same at every start

enum { RP_HOSTD_RUNNING = 4, RP_HOSTD_COMPLETED = 7, RP_HOSTD_TERMINATED = 8, RP_HOSTD_EXCEPTION = 10 }; // JobState
// A job at one moment. The texts live as long as the visit.
struct rp_hostd_job_view {
    const char *id, *class_name, *caption, *owner, *vm_id, *target, *result, *error;
    enum rp_hostd_result kind;
    bool makes_gone;
    uint16_t type, state, percent;
    uint32_t code;
    int64_t submitted, changed, ended; // wall clock; ended 0: it runs
    const struct rp_cim_instance *details; // NULL: none
};
// One job, or (only NULL) all in the order in which they were started. RP_ERR_NOT_FOUND never: a job that is not there
// is not visited. `visit` may call anything; non-zero ends it.
int rp_hostd_jobs_each(struct rp_hostd *hostd, const char *only,
                       int (*visit)(void *context, const struct rp_hostd_job_view *view, struct rp_error *err),
                       void *context, struct rp_error *err);
// RP_ERR_NOT_FOUND, or RP_ERR_STATE: it has ended.
int rp_hostd_jobs_cancel(struct rp_hostd *hostd, const char *id, struct rp_error *err);

// jobs_store.c: hostd.db.
struct rp_hostd_store;
struct rp_hostd_row { // of a job; texts are owned
    char id[RP_GUID_TEXT];
    char *class_name, *caption, *owner, *vm_id, *target, *planned, *error, *details;
    char result[RP_HOST_ID];
    enum rp_hostd_result kind;
    bool makes_gone;
    uint16_t type, state, percent;
    uint32_t code;
    int64_t submitted, ended;
};
void rp_hostd_row_clear(struct rp_hostd_row *row);
struct rp_hostd_store *rp_hostd_store_open(const char *path, struct rp_error *err);
void rp_hostd_store_close(struct rp_hostd_store *store); // NULL is fine
const char *rp_hostd_store_uuid(const struct rp_hostd_store *store);
int rp_hostd_store_add(struct rp_hostd_store *store, const struct rp_hostd_row *row, struct rp_error *err);
// Its end; forgets what ended before `forget`. Durable at return, as is the former.
int rp_hostd_store_end(struct rp_hostd_store *store, const struct rp_hostd_row *row, int64_t forget,
                       struct rp_error *err);
// All of them, oldest end first, running ones last. *rows is malloc'ed, each to be cleared.
int rp_hostd_store_load(struct rp_hostd_store *store, int64_t forget, struct rp_hostd_row **rows, size_t *count,
                        struct rp_error *err);

// ---- objects --------------------------------------------------------------------------------------------------------

// A class that has instances. `key`: the property whose value, when it is known, is `only` of `each`; `each` may give
// more than that one. Ended by a NULL class_name.
struct rp_hostd_objects {
    const char *class_name, *key;
    bool inventory;                  // whether `each` needs one
    rp_hostd_object_fn *each;
};
extern const struct rp_hostd_objects rp_hostd_system_objects[], rp_hostd_settings_objects[], rp_hostd_disk_objects[],
    rp_hostd_point_objects[],
    rp_hostd_job_objects[], rp_hostd_service_objects[], rp_hostd_windows_objects[];

// What an InstanceID of settings belongs to.
struct rp_hostd_owner {
    const struct rp_inventory_vm *vm;
    const struct rp_snapshot *snapshot; // NULL: the VM itself
    bool planned;
};
bool rp_hostd_settings_owner(const struct rp_inventory *inventory, const char *instance, struct rp_hostd_owner *owner);
const char *rp_hostd_settings_id(const struct rp_hostd_owner *owner); // as the host connection calls it
// The components of one VSSD: class and InstanceID of each.
typedef int rp_hostd_part_fn(void *context, const char *class_name, const char *instance, struct rp_error *err);
int rp_hostd_settings_parts(struct rp_hostd *hostd, const struct rp_hostd_owner *owner, rp_hostd_part_fn *visit,
                            void *context, struct rp_error *err);
// What a checkpoint has of a guest's firmware and TPM (host/domain_state.h). Its Content is secret: who may only
// read does not see it, and no log has it.
#define RP_HOSTD_FIRMWARE_STATE "Refpoint_FirmwareStateData"
#define RP_HOSTD_EXPORT "\\Export" // InstanceID of a VM's export settings, after its GUID

// DeviceID of the drive that a VM has a disk in: the InstanceID of its settings.
void rp_hostd_object_drive(const struct rp_vm_disk *disk, char id[RP_HOST_ID]);

// All instances of `association`, or those that name `source`.
int rp_hostd_links_each(struct rp_hostd *hostd, const struct rp_cim_class *association,
                        const struct rp_cim_path *source, struct rp_cim_sink sink, struct rp_error *err);

// A scalar or array element of the type that the class declares; nothing where it has no such property.
void rp_hostd_object_set(struct rp_cim_instance *instance, const struct rp_cim_class *class, const char *name,
                         struct rp_cim_value value);
static inline void rp_hostd_object_text(struct rp_cim_instance *instance, const struct rp_cim_class *class,
                                        const char *name, const char *text)
{
    rp_hostd_object_set(instance, class, name, rp_cim_string(text));
}
static inline void rp_hostd_object_number(struct rp_cim_instance *instance, const struct rp_cim_class *class,
                                          const char *name, uint64_t number)
{
    rp_hostd_object_set(instance, class, name, rp_cim_unsigned(RP_CIM_UINT64, number));
}
static inline void rp_hostd_object_flag(struct rp_cim_instance *instance, const struct rp_cim_class *class,
                                        const char *name, bool flag)
{
    rp_hostd_object_set(instance, class, name, rp_cim_boolean(flag));
}
// Appends to an array property.
void rp_hostd_object_add(struct rp_cim_instance *instance, const struct rp_cim_class *class, const char *name,
                         struct rp_cim_value item);

extern const struct rp_cim_provider_ops rp_hostd_provider_ops; // provider.c

#endif
