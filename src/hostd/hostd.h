// refpoint-hostd: what its parts share. One process per host: WMI over WS-Management in front (src/wsman), the host
// connection local:DIR behind (src/host). A function lives in the file that its second word names.
//
//   core (who asks, what is there, what runs)       objects, one file for each kind
//     main.c      options, config, signals            object_systems.c   Msvm_ComputerSystem, planned ones, the host's row
//     config.c    the config file                     object_settings.c  VSSD of VMs and snapshots, RASD, SASD, processor, memory
//     access.c    who may read, operate, administer   object_points.c    reference points
//     audit.c     one line per change                 object_jobs.c      jobs and their affected elements
//     hosts.c     a pool of host connections          object_services.c  services, their settings, Win32_*
//     jobs.c      run, tell, remember (hostd.db)      object_links.c     all associations
//     provider.c  classes to objects and methods    methods, one file for each service
//     paths.c     object paths and back               method_snapshot.c method_point.c method_management.c
//     folders.c   paths that clients name             method_planned.c method_image.c method_state.c method_summary.c
//   extras.c    settings that the host only keeps     method_common.c    what several of them need
//   lab.c, lab_script.c   --lab
#ifndef RP_HOSTD_HOSTD_H
#define RP_HOSTD_HOSTD_H

#include "cim/provider.h"
#include "host/local.h"
#include "hyperv/host_connection.h"

struct rp_hostd_hosts;
struct rp_hostd_jobs;
struct rp_hostd_audit;
struct rp_hostd_script;

struct rp_hostd {
    struct rp_cim_provider virtualization, cimv2;
    const char *directory;            // local:DIR
    struct rp_hostd_hosts *hosts;
    struct rp_hostd_jobs *jobs;
    struct rp_hostd_audit *audit;
    struct rp_hostd_script *script;   // of the lab: what goes wrong when; NULL elsewhere
    char machine[64];                 // the host's name, upper case
    char *const *folders;             // where clients may name files: export, import, disks
    size_t folder_count;
};

// ---- hosts.c: host connections are for one thread each; these are lent -------------------------------------------------

struct rp_host_connection *rp_hostd_hosts_borrow(struct rp_hostd *hostd, struct rp_error *err);
void rp_hostd_hosts_return(struct rp_hostd *hostd, struct rp_host_connection *host); // NULL is fine
// The inventory as it is now, shared by all readers: taken anew only when something has changed since. Counted.
const struct rp_inventory *rp_hostd_hosts_inventory(struct rp_hostd *hostd, struct rp_error *err);
void rp_hostd_hosts_release(struct rp_hostd *hostd, const struct rp_inventory *inventory);
void rp_hostd_hosts_changed(struct rp_hostd *hostd); // by a method

// ---- folders.c ---------------------------------------------------------------------------------------------------------

// A path from a client: absolute, and after all symbolic links are followed inside one of the folders, else
// RP_ERR_PERMISSION. The last part need not exist. Malloc'ed, canonical.
char *rp_hostd_folders_check(const struct rp_hostd *hostd, const char *path, struct rp_error *err);

// ---- paths.c -------------------------------------------------------------------------------------------------------------

// Whole paths (server, namespace, all keys), to be freed.
struct rp_cim_path *rp_hostd_paths_vm(const struct rp_hostd *hostd, const char *vm_id, bool planned);
struct rp_cim_path *rp_hostd_paths_settings(const struct rp_hostd *hostd, const char *id); // of a VM or snapshot
struct rp_cim_path *rp_hostd_paths_disk(const struct rp_hostd *hostd, const char *instance);
struct rp_cim_path *rp_hostd_paths_point(const struct rp_hostd *hostd, const char *vm_id, const char *point_id);
struct rp_cim_path *rp_hostd_paths_job(const struct rp_hostd *hostd, const char *class_name, const char *job_id);
// What a reference from a client names, as the host connection calls it; RP_ERR_INVALID when it is none of that class.
int rp_hostd_paths_to_vm(const struct rp_cim_path *path, char vm_id[RP_HOST_ID], struct rp_error *err);
int rp_hostd_paths_to_settings(const struct rp_cim_path *path, char id[RP_HOST_ID], struct rp_error *err);
int rp_hostd_paths_to_disk(const struct rp_cim_path *path, char instance[RP_HOST_ID], struct rp_error *err);
int rp_hostd_paths_to_point(const struct rp_cim_path *path, char point_id[RP_HOST_ID], struct rp_error *err);
// "\\HOST\root\virtualization\v2:Class.Key="…"" in a string property.
int rp_hostd_paths_parse(const char *text, struct rp_cim_path **path, struct rp_error *err);

// ---- jobs.c --------------------------------------------------------------------------------------------------------------

enum rp_hostd_result { RP_HOSTD_NOTHING, RP_HOSTD_VM, RP_HOSTD_PLANNED, RP_HOSTD_SNAPSHOT, RP_HOSTD_POINT, RP_HOSTD_DISK };

struct rp_hostd_job {
    uint16_t type;                    // JobType (facts 1.3)
    const char *caption;              // "Creating Virtual Machine Snapshot"
    const char *class_name;           // "Msvm_ConcreteJob", "Msvm_StorageJob", "Msvm_VirtualSystemReferencePointExportJob"
    const char *vm_id;                // whom it concerns; "": nobody
    enum rp_hostd_result result;      // what it makes; affected elements, exactly one
    bool makes_gone;                  // it destroys `target` instead
    const char *target;               // id of what it works on
    char planned[RP_HOST_ID];         // the id that its result will have (rp_host_local_next_id): after a kill it tells how it
                                      // ended; "": its outcome can be seen from the target
    // Does the work in a thread of the pool, with a connection of its own whose progress drives PercentComplete and
    // whose cancellation is RequestStateChange(4). `result`: the id of what was made.
    int (*run)(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
               struct rp_error *err);
    void *context;
    void (*free_context)(void *context); // NULL: nothing to free
};
// Takes the context, also on failure. The job is remembered durably before it starts; it starts in state 4. Writes the
// audit's line. *status: 4096 and `Job` in `out`, or another code.
int rp_hostd_jobs_start(struct rp_hostd *hostd, const struct rp_cim_caller *caller, const struct rp_hostd_job *job,
                        struct rp_cim_instance *out, uint32_t *status, struct rp_error *err);
// From within run(), any number of times: properties that the job's class has besides those of all jobs (ExportDirectory,
// ExportedDisks); shown from then on and kept with the job. `host` tells which job. Takes `properties`.
void rp_hostd_jobs_tell(struct rp_hostd *hostd, struct rp_host_connection *host, struct rp_cim_instance *properties);
// The DMTF or Hyper-V code of an error (facts 1.1), and the text that ErrorDescription has.
uint32_t rp_hostd_jobs_code(const struct rp_error *err, bool hyperv_style);

// ---- extras.c: settings that the host keeps and has no use for itself ------------------------------------------------------

// The text of rp_host_local_extras is CIM-XML: at most one INSTANCE each of Msvm_VirtualSystemSettingData,
// Msvm_ProcessorSettingData and Msvm_MemorySettingData, one after the other, with those properties that a client has set.
// Puts what the text has of the instance's class into `instance`, which has its defaults; the rest of the text, or one
// that is none, is passed over.
void rp_hostd_extras_show(const char *text, const struct rp_cim_schema *schema, struct rp_cim_instance *instance);
// The text with what `settings`, as a client sent it, sets of those classes; what is the host's to say (InstanceID,
// ElementName, paths, …) is passed over. RP_ERR_INVALID for values that do not fit. To be freed.
char *rp_hostd_extras_merge(const char *text, const struct rp_cim_schema *schema, const struct rp_cim_instance *settings,
                            struct rp_error *err);

// ---- provider.c: methods ---------------------------------------------------------------------------------------------------

struct rp_hostd_call {
    struct rp_hostd *hostd;
    const struct rp_cim_caller *caller;
    const struct rp_cim_path *path;   // of the object
    const struct rp_cim_instance *in;
    struct rp_cim_instance *out;
};
// Returns 0 with *status set, or -1: a failure of our own, which becomes a fault.
typedef int rp_hostd_method_fn(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err);
struct rp_hostd_method {
    const char *class_name, *name;
    enum rp_cim_access access;        // what the caller needs; READ for those that change nothing
    bool hyperv_style;                // which family of codes
    rp_hostd_method_fn *call;
};
// Each method_*.c has one table, ended by a NULL class_name. A method of the schema that is in none: "not supported".
extern const struct rp_hostd_method rp_hostd_snapshot_methods[], rp_hostd_point_methods[], rp_hostd_management_methods[],
    rp_hostd_planned_methods[], rp_hostd_image_methods[], rp_hostd_state_methods[], rp_hostd_summary_methods[];

// ---- lab_script.c: what goes wrong when (docs/lab.md). hostd->script NULL: nothing, and these return at once ---------------

// Before a method of `methods` is called (access has been checked): 0 carry on; 1 do not, *status is its ReturnValue; -1 as
// if the method had failed so. In the thread that calls the method and rp_hostd_jobs_start.
int rp_hostd_script_before_method(const struct rp_hostd_call *call, const struct rp_hostd_method *method, uint32_t *status,
                                  struct rp_error *err);
// In rp_hostd_jobs_start, in the caller's thread, before the job's own thread can run: what was decided for the method
// concerns this job.
void rp_hostd_script_job(struct rp_hostd *hostd, const char *job_id, const struct rp_hostd_job *job);
// In the job's thread: before its work with *percent 0, whenever the work tells its progress, and after the work, when it went
// well, with 100. 0: go on. 1: show *percent (which may have been changed) and do not go on: ask again in some 20 ms, unless
// the job was cancelled or the service ends. -1: the job fails with `err`, the work is told to stop (its progress returns
// non-zero); at 100 the job fails although it has done its work.
int rp_hostd_script_progress(struct rp_hostd *hostd, const char *job_id, unsigned *percent, struct rp_error *err);
// The server's `drop` operation (wsman/server.h), `context` is the rp_hostd: the answer to what this thread has carried out
// last is not to be sent.
bool rp_hostd_script_drop(void *context);

// ---- objects: instances of what the host has ------------------------------------------------------------------------------

// Of exactly this class, for all that the inventory has, or (an id) for one VM, snapshot, point or job only.
typedef int rp_hostd_object_fn(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                               const char *only, struct rp_cim_sink sink, struct rp_error *err);
// The text that ModifyResourceSettings, exports and restore points hold: CIM-XML of all settings instances of a VM or
// snapshot, one after the other. To be freed.
char *rp_hostd_settings_document(struct rp_hostd *hostd, const char *id, struct rp_error *err);

#endif
