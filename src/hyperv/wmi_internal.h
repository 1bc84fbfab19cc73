// What the files of the WMI host connection share.
//
//   wmi.c           open, close, the table of methods     wmi_system.c    VMs: define, destroy, state, name
//   wmi_query.c     WQL, paths, ids                        wmi_settings.c  settings, documents, disks' facts
//   wmi_method.c    calls, ReturnValue                     wmi_disk.c      add, remove, resize, changes
//   wmi_error.c     codes and errors in words              wmi_snapshot.c  wmi_point.c  wmi_planned.c
//   wmi_job.c       jobs                                   wmi_inventory.c list_vms, find_vm, inventory
//   wmi_facts.c     what `host test` asks                  wmi_export.c
#ifndef RP_HYPERV_WMI_INTERNAL_H
#define RP_HYPERV_WMI_INTERNAL_H

#include "cim/cimxml.h"
#include "hyperv/wmi.h"

#define RP_WMI_V2 "root/virtualization/v2"
#define RP_WMI_CIMV2 "root/cimv2"

enum rp_wmi_service { RP_WMI_MANAGEMENT, RP_WMI_SNAPSHOT, RP_WMI_POINT, RP_WMI_IMAGE, RP_WMI_SERVICES };

struct rp_wmi_ids {                     // of a VM's snapshots of a kind, or of its reference points
    char (*items)[RP_HOST_ID];
    size_t count;
};

// A job that this connection started. It is kept as long as the connection: a caller may ask for an ended job again.
struct rp_wmi_job {
    struct rp_wmi_job *next;
    char id[RP_HOST_ID];                // what the caller has: "Class.InstanceID"
    char *result_class;                 // what it makes; NULL: nothing
    char *what;                         // for messages
    // Of a snapshot that is being made: what it shall be called, and what was asked for.
    char *name;
    enum rp_consistency consistency;
    enum rp_snapshot_type type;
    // Of a reference point that is being made: from which snapshot, if from one.
    bool makes_point;
    char snapshot_id[RP_HOST_ID];
    // Of both: what the VM had before.
    char vm_id[RP_GUID_TEXT];
    struct rp_wmi_ids before;
    char *point_name;                   // of a reference point that is being made: that of its snapshot
    struct rp_job_state last;           // RUNNING until the end has been seen
    uint64_t lost_since;                // when the connection was lost; 0: it is there
};
// What this connection made, and the host does not tell of it: the consistency that a snapshot reached, the name of the
// snapshot that a reference point was made from.
struct rp_wmi_made {
    struct rp_wmi_made *next;
    char id[RP_HOST_ID];
    enum rp_consistency consistency;
    char *reason;                       // why it is that, as the job said; NULL: it did not
    char *name;                         // NULL: a snapshot
};
struct rp_wmi {
    struct rp_host_connection host;     // first
    struct rp_wsman_client *client;
    struct rp_cim_schema *schema;
    struct rp_cim_path *services[RP_WMI_SERVICES];
    char *machine;                      // the host's name, as paths in strings begin with; NULL: not asked yet
    bool lost;                          // the last call of a method got no answer: was it carried out?
    struct rp_wmi_job *jobs;
    struct rp_wmi_made *made;
    uint64_t changes_length;            // bytes of a disk whose changes fitted into an answer lately; 0: all did
};
static inline struct rp_wmi *rp_wmi_of(struct rp_host_connection *host) { return (struct rp_wmi *)host; }

// ---- wmi_query.c ----------------------------------------------------------------------------------------------------

// Runs a query, once more when the connection was lost: nothing is changed by it.
int rp_wmi_query(struct rp_wmi *wmi, const char *name_space, const char *query, struct rp_cim_instances *result,
                 struct rp_error *err);
// SELECT * FROM class WHERE property = "value". Exactly one, else RP_ERR_NOT_FOUND with `what` in it.
struct rp_cim_instance *rp_wmi_one(struct rp_wmi *wmi, const char *class_name, const char *property, const char *value,
                                   const char *what, struct rp_error *err);
// The same with the path that the host gives it: for classes whose keys are not what their documentation says.
struct rp_cim_instance *rp_wmi_one_with_path(struct rp_wmi *wmi, const char *class_name, const char *property,
                                             const char *value, const char *what, struct rp_error *err);
int rp_wmi_associators(struct rp_wmi *wmi, const struct rp_cim_path *source, const char *association,
                       const char *result_class, struct rp_cim_instances *result, struct rp_error *err);
void rp_wmi_quote(struct rp_buf *out, const char *text); // as a literal of WQL

// Paths, to be freed.
struct rp_cim_path *rp_wmi_path_vm(const char *vm_id);
struct rp_cim_path *rp_wmi_path_planned(const char *vm_id);
struct rp_cim_path *rp_wmi_path_instance(const char *class_name, const char *instance_id); // key InstanceID
struct rp_cim_path *rp_wmi_path_of(const struct rp_cim_instance *object); // settings or resource: its class, InstanceID
// In a string property: \\HOST\root\virtualization\v2:…; malloc'ed. Asks the host for its name when it must.
char *rp_wmi_path_text(struct rp_wmi *wmi, const struct rp_cim_path *path, struct rp_error *err);
// The id that a path or an object of the host has for the caller; "" for what has none (RP_ERR_CORRUPT: too long).
int rp_wmi_id_of_path(const struct rp_cim_path *path, char id[RP_HOST_ID], struct rp_error *err);
int rp_wmi_id_of_object(const struct rp_cim_instance *object, char id[RP_HOST_ID], struct rp_error *err);
// A GUID in capitals, as Hyper-V writes them. False: it is none (braces and blanks are refused as well).
bool rp_wmi_guid(const char *text, char out[RP_GUID_TEXT]);
// Copies an id of the host; RP_ERR_CORRUPT when it is missing or too long.
int rp_wmi_copy_id(const char *text, const char *what, char id[RP_HOST_ID], struct rp_error *err);
// The InstanceID of a VM's settings: "Microsoft:<GUID>"; of an id that has "Microsoft:" already, itself.
void rp_wmi_settings_id(const char *id, char out[RP_HOST_ID + 16]);
// The machine's name, and the path of a service; borrowed.
const struct rp_cim_path *rp_wmi_service_path(struct rp_wmi *wmi, enum rp_wmi_service service, struct rp_error *err);

// ---- wmi_method.c ---------------------------------------------------------------------------------------------------

struct rp_wmi_call {
    enum rp_wmi_service service;        // of which it is a method, unless `object` is another object
    const struct rp_cim_path *object;
    const char *method;
    const char *what;                   // for messages: "checkpoint of VM X"
    const char *result;                 // its out parameter that names what it makes; NULL: it makes nothing
    const char *result_class;           // whose associators of the job are looked at
};
// Parameters to fill with rp_cim_set; NULL values are left out. Free with rp_cim_instance_free.
struct rp_cim_instance *rp_wmi_parameters(void);
// Calls it. 0: done (`job` empty, `result` filled) or started (`job`). Without an answer: RP_ERR_IO, and `lost` is set.
int rp_wmi_call(struct rp_wmi *wmi, const struct rp_wmi_call *call, const struct rp_cim_instance *in, RP_METHOD_RESULT,
                struct rp_error *err);
// After the answer to a call was lost: what it may have made is looked for, for two seconds in which the host may still be about
// to begin. `look`: 1 found, 0 not there, -1 error. -1 without touching `err`: it was never carried out.
typedef int rp_wmi_look_fn(struct rp_wmi *wmi, const void *context, char result[RP_HOST_ID], struct rp_error *err);
int rp_wmi_find_made(struct rp_wmi *wmi, rp_wmi_look_fn *look, const void *context, char result[RP_HOST_ID],
                     struct rp_error *err);
// The same, and waits for the job; host.progress is asked meanwhile and can end it (the job is cancelled then).
int rp_wmi_run(struct rp_wmi *wmi, const struct rp_wmi_call *call, const struct rp_cim_instance *in,
               char result[RP_HOST_ID], struct rp_error *err);
// Calls a method that answers at once; NULL when it fails. To be freed.
struct rp_cim_instance *rp_wmi_ask(struct rp_wmi *wmi, const struct rp_wmi_call *call,
                                   const struct rp_cim_instance *in, uint32_t *status, struct rp_error *err);
// Embedded instances as strings: `object` as CIM-XML, typed by its class; an array of one.
struct rp_cim_value rp_wmi_embed(struct rp_wmi *wmi, const struct rp_cim_instance *object);
struct rp_cim_value rp_wmi_embed_array(struct rp_wmi *wmi, struct rp_cim_instance *const *objects, size_t count);
// Types what the class knows. What it does not know, or knows otherwise, goes (the host might refuse all of it for
// that), unless it is to be `kept`: a newer host knows more of itself than we do.
void rp_wmi_type(struct rp_wmi *wmi, struct rp_cim_instance *object, bool kept);

// ---- wmi_error.c ----------------------------------------------------------------------------------------------------

const char *rp_wmi_code_words(uint32_t code);      // "not possible in this state"
enum rp_code rp_wmi_code_error(uint32_t code);
// The error for a ReturnValue that is neither 0 nor 4096. Returns -1.
int rp_wmi_fail(struct rp_error *err, uint32_t code, const struct rp_wmi_call *call);
// The code that a text of Windows names ("… (0x80070050)"), or RP_OK.
enum rp_code rp_wmi_code_in_text(const char *text);
// One line: line ends become blanks, malformed UTF-8 '?'. Appends.
void rp_wmi_one_line(struct rp_buf *out, const char *text);

// ---- wmi_job.c ------------------------------------------------------------------------------------------------------

// Notes a job that was started: its id is written to `job`. Returns what is kept of it.
struct rp_wmi_job *rp_wmi_job_add(struct rp_wmi *wmi, const struct rp_cim_path *path, const struct rp_wmi_call *call,
                                  char job[RP_HOST_ID], struct rp_error *err);
struct rp_wmi_job *rp_wmi_job_find(struct rp_wmi *wmi, const char *job); // NULL: none of this connection's
int rp_wmi_job_state(struct rp_host_connection *host, const char *job, struct rp_job_state *state,
                     struct rp_error *err);
int rp_wmi_job_cancel(struct rp_host_connection *host, const char *job, struct rp_error *err);
void rp_wmi_jobs_free(struct rp_wmi *wmi);

// ---- wmi_settings.c -------------------------------------------------------------------------------------------------

struct rp_wmi_disk_facts {
    struct rp_guid disk_id;
    uint64_t size;
    uint32_t logical_sector, physical_sector;
};
int rp_wmi_disk_facts(struct rp_wmi *wmi, const char *path, struct rp_wmi_disk_facts *facts, struct rp_error *err);
// The virtual hard disks (and no DVD's image) among `resources`, in the order of their places. The array is malloc'ed.
struct rp_cim_instance **rp_wmi_sort_disks(const struct rp_cim_instances *resources, size_t *count);
// Appends a disk for each of `resources` that is one, in the order of their numbers. `vm_id`: whose disks they are (a
// snapshot's are called as the VM's).
int rp_wmi_disks(const struct rp_cim_instances *resources, const char *vm_id, struct rp_vm_settings *settings,
                 struct rp_error *err);
// The settings instance of a VM, planned VM or snapshot, and all that belongs to it.
struct rp_cim_instance *rp_wmi_settings_object(struct rp_wmi *wmi, const char *id, struct rp_error *err);
int rp_wmi_settings_parts(struct rp_wmi *wmi, const struct rp_cim_instance *settings, struct rp_cim_instances *parts,
                          struct rp_error *err);
// "Microsoft:<any GUID>\rest" as "Microsoft:<vm_id>\rest".
void rp_wmi_instance_of_vm(const char *instance, const char *vm_id, char out[RP_HOST_ID]);
int rp_wmi_vm_settings(struct rp_host_connection *host, const char *vm_id, struct rp_vm_settings *settings,
                       struct rp_error *err);
int rp_wmi_snapshot_settings(struct rp_host_connection *host, const char *snapshot_id, struct rp_vm_settings *settings,
                             struct rp_error *err);

// ---- wmi_inventory.c ------------------------------------------------------------------------------------------------

int rp_wmi_list_vms(struct rp_host_connection *host, struct rp_vms *vms, struct rp_error *err);
int rp_wmi_find_vm(struct rp_host_connection *host, const char *name_or_id, struct rp_vm *vm, struct rp_error *err);
int rp_wmi_inventory(struct rp_host_connection *host, struct rp_inventory *inventory, struct rp_error *err);
bool rp_wmi_read_vm(const struct rp_cim_instance *system, struct rp_vm *vm); // false: no VM (the host's own row)
// The VM as the host knows it; RP_ERR_NOT_FOUND. What every method begins with.
int rp_wmi_need_vm(struct rp_wmi *wmi, const char *vm_id, struct rp_vm *vm, struct rp_error *err);

// ---- wmi_system.c, wmi_disk.c, wmi_snapshot.c, wmi_point.c, wmi_export.c, wmi_planned.c: methods of the vtable ------

int rp_wmi_define_system(struct rp_host_connection *host, const char *name, const char *const *disks, size_t disk_count,
                         int (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                         RP_METHOD_RESULT, struct rp_error *err);
int rp_wmi_destroy_system(struct rp_host_connection *host, const char *vm_id, bool delete_disks, RP_METHOD_RESULT,
                          struct rp_error *err);
int rp_wmi_request_state(struct rp_host_connection *host, const char *vm_id, enum rp_vm_state state, RP_METHOD_RESULT,
                         struct rp_error *err);
int rp_wmi_rename(struct rp_host_connection *host, const char *id, const char *name, RP_METHOD_RESULT,
                  struct rp_error *err);
int rp_wmi_add_disk(struct rp_host_connection *host, const char *vm_id, const char *disk, RP_METHOD_RESULT,
                    struct rp_error *err);
int rp_wmi_remove_disk(struct rp_host_connection *host, const char *vm_id, uint32_t number, RP_METHOD_RESULT,
                       struct rp_error *err);
int rp_wmi_resize_disk(struct rp_host_connection *host, const char *vm_id, uint32_t number, uint64_t size,
                       RP_METHOD_RESULT, struct rp_error *err);
int rp_wmi_modify_disk(struct rp_host_connection *host, const char *instance, const char *path, RP_METHOD_RESULT,
                       struct rp_error *err);
int rp_wmi_disk_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                        uint64_t length, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err);
int rp_wmi_create_snapshot(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                           enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *err);
// Of a snapshot that has just been made: its name, its consistency, and why that (may be NULL). On failure it is destroyed.
int rp_wmi_snapshot_made(struct rp_wmi *wmi, const char *snapshot_id, const char *name, enum rp_consistency consistency,
                         const char *reason, struct rp_error *err);
// The snapshot that a job made which does not say so any more: what the VM did not have before. RP_ERR_NOT_FOUND: there
// is none, RP_ERR_CORRUPT: which one it is cannot be told.
int rp_wmi_snapshot_of_job(struct rp_wmi *wmi, const struct rp_wmi_job *job, char result[RP_HOST_ID],
                           struct rp_error *err);
bool rp_wmi_read_snapshot(const struct rp_wmi *wmi, const struct rp_cim_instance *settings, struct rp_snapshot *out);
void rp_wmi_ids_clear(struct rp_wmi_ids *ids);
void rp_wmi_ids_add(struct rp_wmi_ids *ids, const char *id);
// How many of `after` are not in `before`; *one is the last of them.
size_t rp_wmi_ids_new(const struct rp_wmi_ids *before, const struct rp_wmi_ids *after, const char **one);
// Waits, for a minute at most, until the host answers again and the VM is not busy with snapshots.
int rp_wmi_wait_back(struct rp_wmi *wmi, const char *vm_id, struct rp_error *err);
int rp_wmi_list_snapshots(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *snapshots,
                          struct rp_error *err);
int rp_wmi_destroy_snapshot(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                            struct rp_error *err);
int rp_wmi_apply_snapshot(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                          struct rp_error *err);
int rp_wmi_convert(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT, struct rp_error *err);
int rp_wmi_create_point(struct rp_host_connection *host, const char *vm_id, enum rp_consistency consistency,
                        const char *name, RP_METHOD_RESULT, struct rp_error *err);
// The reference point that a job made which cannot be asked any more, as rp_wmi_snapshot_of_job.
int rp_wmi_point_of_job(struct rp_wmi *wmi, const struct rp_wmi_job *job, char result[RP_HOST_ID], struct rp_error *err);
// Remembers that this connection made a reference point from a snapshot of that name.
void rp_wmi_point_made(struct rp_wmi *wmi, const char *point_id, const char *name);
// The reference point with the path that the host gives it.
struct rp_cim_instance *rp_wmi_point_object(struct rp_wmi *wmi, const char *point_id, struct rp_error *err);
int rp_wmi_read_point(const struct rp_cim_instance *object, struct rp_reference_point *out, struct rp_error *err);
int rp_wmi_list_points(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points,
                       struct rp_error *err);
int rp_wmi_destroy_point(struct rp_host_connection *host, const char *point_id, RP_METHOD_RESULT, struct rp_error *err);
int rp_wmi_import_point(struct rp_host_connection *host, const char *vm_id, const char *definition_file,
                        RP_METHOD_RESULT, struct rp_error *err);
int rp_wmi_export_system(struct rp_host_connection *host, const struct rp_export *what, RP_METHOD_RESULT,
                         struct rp_error *err);
int rp_wmi_import_system(struct rp_host_connection *host, const char *definition_file, bool new_identity,
                         RP_METHOD_RESULT, struct rp_error *err);
int rp_wmi_plan_system(struct rp_host_connection *host, const char *document, const char *const *disks,
                       size_t disk_count, bool new_identity, RP_METHOD_RESULT, struct rp_error *err);
int rp_wmi_list_planned(struct rp_host_connection *host, struct rp_vms *planned, struct rp_error *err);
int rp_wmi_validate_planned(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                            struct rp_error *err);
int rp_wmi_realize_planned(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                           struct rp_error *err);

#endif
