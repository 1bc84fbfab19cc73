// refpoint-hostd: what its parts share. One process per host: WMI over WS-Management in front (src/wsman), the host
// connection local:DIR behind (src/host). A function lives in the file that its second word names.
//
//   core (who asks, what is there, what runs)       objects, one file for each kind
//     main.c      options, config, signals            object_systems.c   Msvm_ComputerSystem, planned ones
//     config.c    the config file                     object_settings.c  VSSD; object_resources.c what is in them
//     access.c    who may read, operate, administer   object_points.c    reference points
//     audit.c     one line per change                 object_jobs.c      jobs and their affected elements
//     hosts.c     a pool of host connections          object_services.c  services; object_windows.c Win32_*
//     jobs*.c     run, tell, remember (hostd.db)      object_links.c     all associations
//     provider.c  classes to objects and methods    methods, one file for each service
//     paths.c     object paths and back               method_snapshot.c method_point.c method_management.c
//     folders.c   paths that clients name             method_planned.c method_image*.c method_state.c method_summary.c
//     keeper.c    supervises VMs that hypervisors run
//     extras.c    settings that are only kept         method_export.c method_resources*.c method_service.c
//                                                      (a table each; tables.c lists them; method_common.c)
//     start.c     a whole host, started and stopped
//   lab*.c      --lab
#ifndef RP_HOSTD_HOSTD_H
#define RP_HOSTD_HOSTD_H

#include "cim/provider.h"
#include "host/local.h"
#include "hyperv/host_connection.h"
#include "io/fs.h"
#include "wsman/server.h"

struct rp_hostd_hosts;
struct rp_hostd_jobs;
struct rp_hostd_keeper;
struct rp_hostd_audit;
struct rp_hostd_script;

struct rp_hostd {
    struct rp_cim_provider virtualization, cimv2;
    char *directory;                  // local:DIR
    struct rp_hostd_hosts *hosts;
    struct rp_hostd_jobs *jobs;
    struct rp_hostd_keeper *keeper;
    struct rp_hostd_audit *audit;
    struct rp_hostd_script *script;   // of the lab: what goes wrong when; NULL elsewhere
    struct rp_wsman_service *service; // answers bytes with bytes, whether there are listeners or not
    struct rp_wsman_server *server;   // NULL: no listeners
    char machine[64];                 // the host's name, upper case
    struct rp_fs_no_links files;      // files.fs: through it files that clients name are opened; no link is followed
    char **folders;                   // where clients may name files: export, import, disks; canonical
    size_t folder_count;
    unsigned freeze_limit_ms;         // of the connections that are lent; 0: the host's default
};

// ---- start.c: a whole host ------------------------------------------------------------------------------------------

struct rp_hostd_options {
    const char *directory;            // as for rp_host_local_open; hostd.db lies there too
    const char *machine;              // 1 to 63 letters, digits, '-', '_'. NULL: that of the operating system
    const char *const *folders;       // absolute, must be there
    size_t folder_count;
    const struct rp_wsman_listener *listeners;
    size_t listener_count;            // 0: no server; requests go to rp_hostd.service or to the providers
    const struct rp_login_acceptor *acceptor;    // NULL: neither Kerberos nor NTLM
    const struct rp_wsman_server_limits *limits; // NULL: the defaults
    struct rp_wsman_server_ops access;           // who may do what; `drop` is the script's
    struct rp_hostd_script *script;   // borrowed; NULL: none
    const char *audit;                // file that gets a line per change; "-": standard error; NULL: nobody wants it
    const char *hypervisor, *network, *accelerator; // of the VMs that are made: rp_host_local_set_hypervisor
    unsigned freeze_limit_ms;         // rp_host_connection.frozen_ms of all that clients ask for; 0: the host's default
    unsigned job_seconds;             // how long a job is remembered after its end; 0: 300
};
// Opens the directory, finishes what a killed process left, tells the outcome of its jobs, listens. All strings are
// copied. NULL on failure, and nothing runs then.
struct rp_hostd *rp_hostd_start(const struct rp_hostd_options *options, struct rp_error *err);
uint16_t rp_hostd_port(const struct rp_hostd *hostd, size_t listener); // of TCP
// No new requests, jobs are asked to end and waited for; virtual machines run on. NULL is fine.
void rp_hostd_stop(struct rp_hostd *hostd);
RP_DEFINE_CLEANUP(struct rp_hostd, rp_hostd_stop)
// flock(2), with patience: of a process that was killed, a child that was about to become another program may still
// have the file. -1: somebody has it.
int rp_hostd_lock(int fd, unsigned seconds);

// ---- hosts.c: host connections are for one thread each; these are lent ----------------------------------------------

struct rp_host_connection *rp_hostd_hosts_borrow(struct rp_hostd *hostd, struct rp_error *err);
void rp_hostd_hosts_return(struct rp_hostd *hostd, struct rp_host_connection *host); // NULL is fine
// The inventory as it is now, shared by all readers and counted. It is taken anew when the host's database has changed
// since (rp_host_local_version) or a method of ours has said so (rp_hostd_hosts_changed). What is in no database,
// whether VMs of other processes run and how far merges are, is at most a second old, a fifth of one while something
// merges (hosts.c says more).
const struct rp_inventory *rp_hostd_hosts_inventory(struct rp_hostd *hostd, struct rp_error *err);
// The planned VMs that belong to it.
const struct rp_inventory *rp_hostd_hosts_planned(const struct rp_inventory *inventory);
void rp_hostd_hosts_release(struct rp_hostd *hostd, const struct rp_inventory *inventory); // NULL is fine
void rp_hostd_hosts_changed(struct rp_hostd *hostd); // by a method; jobs.c calls it at the end of every job

// ---- folders.c ------------------------------------------------------------------------------------------------------

// A path from a client: absolute, and after all symbolic links are followed inside one of the folders, else
// RP_ERR_PERMISSION. The last part need not exist. Malloc'ed, canonical.
char *rp_hostd_folders_check(const struct rp_hostd *hostd, const char *path, struct rp_error *err);

// ---- paths.c --------------------------------------------------------------------------------------------------------

// Whole paths (server, namespace, all keys), to be freed. Ids in either case; as the host connection has them: a VM's
// is "<GUID>", a snapshot's and a reference point's "Microsoft:<GUID>", which is their InstanceID.
struct rp_cim_path *rp_hostd_paths_vm(const struct rp_hostd *hostd, const char *vm_id, bool planned);
struct rp_cim_path *rp_hostd_paths_settings(const struct rp_hostd *hostd, const char *id); // of a VM or snapshot
struct rp_cim_path *rp_hostd_paths_disk(const struct rp_hostd *hostd, const char *instance);
struct rp_cim_path *rp_hostd_paths_point(const struct rp_hostd *hostd, const char *vm_id, const char *point_id);
struct rp_cim_path *rp_hostd_paths_job(const struct rp_hostd *hostd, const char *class_name, const char *job_id);
// What a reference from a client names, as the host connection calls it; RP_ERR_INVALID when it is none of that class.
int rp_hostd_paths_to_vm(const struct rp_cim_path *path, char vm_id[RP_HOST_ID], struct rp_error *err);
// A VM's or planned VM's id, or a snapshot's: which of them only the inventory knows. RP_ERR_NOT_FOUND: none of them.
int rp_hostd_paths_to_settings(struct rp_hostd *hostd, const struct rp_cim_path *path, char id[RP_HOST_ID],
                               struct rp_error *err);
int rp_hostd_paths_to_snapshot(const struct rp_cim_path *path, char snapshot_id[RP_HOST_ID], struct rp_error *err);
int rp_hostd_paths_to_disk(const struct rp_cim_path *path, char instance[RP_HOST_ID], struct rp_error *err);
int rp_hostd_paths_to_point(const struct rp_cim_path *path, char point_id[RP_HOST_ID], struct rp_error *err);
// "\\HOST\root\virtualization\v2:Class.Key="…"" in a string property.
int rp_hostd_paths_parse(const char *text, struct rp_cim_path **path, struct rp_error *err);

// ---- jobs.c ---------------------------------------------------------------------------------------------------------

// What a job makes (the affected element, exactly one), or how it can be told that it was done.
enum rp_hostd_result {
    RP_HOSTD_NOTHING,                 // after a kill nobody knows whether it was done: it is told as failed
    RP_HOSTD_VM, RP_HOSTD_PLANNED, RP_HOSTD_SNAPSHOT, RP_HOSTD_POINT,
    RP_HOSTD_DISK,                    // id: rp_vm_disk.instance; `planned`: the file (a VHDX) that becomes a disk of vm_id
    RP_HOSTD_STATE,                   // makes nothing; done when the VM `target` is in the state `planned` (decimal)
    RP_HOSTD_FILE,                    // makes nothing; done when the file `planned` is there (an export's last)
};

struct rp_hostd_job {
    uint16_t type;                    // JobType (facts 1.3)
    const char *caption;              // "Creating Virtual Machine Snapshot"
    const char *class_name;           // one of those that object_jobs.c serves; NULL: "Msvm_ConcreteJob"
    const char *vm_id;                // whom it concerns; "": nobody
    enum rp_hostd_result result;
    bool makes_gone;                  // it destroys `target`, which is a `result`, instead
    const char *target;               // id of what it works on
    const char *planned;              // the id that its result will have (rp_hostd_jobs_plan), which jobs.c gives to
                                      // rp_host_local_next_id before `run`: after a kill it tells how it ended. For the
                                      // other kinds see there. NULL: none
    const struct rp_cim_instance *details; // further properties of its class (ExportDirectory, …); NULL: none. Copied
    // Does the work in a thread of the pool, with a connection of its own whose progress drives PercentComplete and
    // whose cancellation is RequestStateChange(4). `result` ("" at first): the id of what was made.
    int (*run)(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
               struct rp_error *err);
    void *context;
    void (*free_context)(void *context); // NULL: nothing to free
};
// Takes the context, also on failure; everything else is copied. The job is remembered durably before it starts; it
// starts in state 4. *status: 4096 and `Job` in `out`, or another code. Its end is a line of the audit.
int rp_hostd_jobs_start(struct rp_hostd *hostd, const struct rp_cim_caller *caller, const struct rp_hostd_job *job,
                        struct rp_cim_instance *out, uint32_t *status, struct rp_error *err);
char *rp_hostd_jobs_plan(void);       // a new GUID, upper case; to be freed
// Sets further properties of the job that runs in this thread (ExportedDisks, …), typed as its class has them; `value`
// is taken. Kept with the job when it ends.
void rp_hostd_jobs_detail(struct rp_hostd *hostd, const char *name, struct rp_cim_value value);
// The DMTF or Hyper-V code of an error (facts 1.1).
uint32_t rp_hostd_jobs_code(const struct rp_error *err, bool hyperv_style);

// ---- provider.c: methods --------------------------------------------------------------------------------------------

struct rp_hostd_call {
    struct rp_hostd *hostd;
    const struct rp_cim_caller *caller;
    const struct rp_cim_path *path;   // of the object
    const struct rp_cim_instance *in;
    struct rp_cim_instance *out;
};
// Returns 0 with *status set (0 before the call), or -1 with an error: provider.c makes it the code of the method's
// family (rp_hostd_jobs_code). It checks access, writes the audit's line, and makes the inventory be taken anew after
// methods that need more than READ.
typedef int rp_hostd_method_fn(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err);
struct rp_hostd_method {
    const char *class_name, *name;
    enum rp_cim_access access;        // what the caller needs; READ for those that change nothing
    bool hyperv_style;                // which family of codes
    rp_hostd_method_fn *call;
};
// Each method_*.c has one table, ended by a NULL class_name. A method of the schema that is in none: "not supported".
extern const struct rp_hostd_method rp_hostd_snapshot_methods[], rp_hostd_point_methods[],
    rp_hostd_management_methods[], rp_hostd_planned_methods[], rp_hostd_image_methods[], rp_hostd_state_methods[],
    rp_hostd_summary_methods[];
// method_export.c: at the start, takes away the checkpoints that exports of a killed hostd had made for themselves.
void rp_hostd_export_recover(struct rp_hostd *hostd);
// method_image.c: the judge (rp_host_local_set_judge) of all connections that are lent; `hostd` is the host.
int rp_hostd_file_judge(void *hostd, const char *path, struct rp_error *err);
extern const struct rp_hostd_method rp_hostd_job_methods[]; // object_jobs.c: RequestStateChange, GetError, GetErrorEx
extern const struct rp_hostd_method *const rp_hostd_method_tables[]; // tables.c: all of them, ended by NULL

// ---- extras.c: settings that the host only keeps --------------------------------------------------------------------

// What rp_host_local_extras holds: instances with nothing in them but what clients set, over the defaults that
// object_settings.c knows: Msvm_VirtualSystemSettingData (Notes, AutomaticStartupAction, …), Msvm_ProcessorSettingData,
// Msvm_MemorySettingData, network adapters, …. The InstanceID of each is what follows "Microsoft:<GUID>": "" of the VM
// itself, RP_HOSTD_PROCESSOR, RP_HOSTD_MEMORY, "\<GUID>" of others; a Parent is a path with such an InstanceID. Those of
// classes that the schema does not have are kept, and go with exports and checkpoints, but nobody can ask for them.
// RP_HOSTD_APPLIED is not a client's: Antecedent is the id of the checkpoint that was applied last.
#define RP_HOSTD_PROCESSOR "\\b637f346-6a0e-4dec-af52-bd70cb80a21d\\0"
#define RP_HOSTD_MEMORY "\\4764334d-e001-4176-82ee-5594ec9b530e"
#define RP_HOSTD_APPLIED "\\applied"
// `id`: a VM's, planned VM's or snapshot's. Appends.
int rp_hostd_extras_load(struct rp_host_connection *host, const char *id, struct rp_cim_instances *extras,
                         struct rp_error *err);
int rp_hostd_extras_store(struct rp_host_connection *host, const char *vm_id, const struct rp_cim_instances *extras,
                          struct rp_error *err);
// The text that is stored, "" for none, to be freed; RP_ERR_INVALID when it could not be read again.
char *rp_hostd_extras_text(const struct rp_cim_instances *extras, struct rp_error *err);
// Borrowed; NULL: none of that suffix and class (NULL: of any).
struct rp_cim_instance *rp_hostd_extras_find(const struct rp_cim_instances *extras, const char *class_name,
                                             const char *suffix);
// Merges what is set (not NULL) in `change`, an instance of a settings class whose InstanceID is whole, over what is
// there: Parent, HostResource and what else this host decides itself must be taken out before. Makes one that is not
// there.
void rp_hostd_extras_merge(struct rp_cim_instances *extras, const char *suffix, const struct rp_cim_instance *change);
// CIM-XML instances one after the other, as documents and extras have them: RP_ERR_CORRUPT. Appends.
int rp_hostd_extras_parse(const char *text, struct rp_cim_instances *instances, struct rp_error *err);

// ---- lab_fault.c: what goes wrong when (docs/lab.md). hostd->script NULL: nothing, and these return at once ---------

// Before a method of `methods` is called (access has been checked): 0 carry on; 1 do not, *status is its ReturnValue;
// -1 as if the method had failed so. In the thread that calls the method and rp_hostd_jobs_start.
int rp_hostd_script_before_method(const struct rp_hostd_call *call, const struct rp_hostd_method *method,
                                  uint32_t *status, struct rp_error *err);
// In rp_hostd_jobs_start, in the caller's thread, before the job's own thread can run: what was decided for the method
// concerns this job.
void rp_hostd_script_job(struct rp_hostd *hostd, const char *job_id, const struct rp_hostd_job *job);
// In the job's thread: before its work with *percent 0, whenever the work tells its progress, and after the work, when
// it went well, with 100. 0: go on. 1: show *percent (which may have been changed) and do not go on: ask again in some
// 20 ms, unless the job was cancelled or the service ends. -1: the job fails with `err`, the work is told to stop (its
// progress returns non-zero); at 100 the job fails although it has done its work.
int rp_hostd_script_progress(struct rp_hostd *hostd, const char *job_id, unsigned *percent, struct rp_error *err);
// The server's `drop` operation (wsman/server.h), `context` is the rp_hostd: the answer to what this thread has carried
// out last is not to be sent.
bool rp_hostd_script_drop(void *context);

// ---- lab.c ----------------------------------------------------------------------------------------------------------

// `refpoint-hostd --lab …` (docs/lab.md): main's arguments; the exit status.
int rp_hostd_lab(int argc, char **argv);

// ---- objects: instances of what the host has ------------------------------------------------------------------------

// Of exactly this class, for all that the inventory has, or (an id) for one VM, snapshot, point or job only.
typedef int rp_hostd_object_fn(struct rp_hostd *hostd, const struct rp_inventory *inventory,
                               const struct rp_cim_class *class, const char *only, struct rp_cim_sink sink,
                               struct rp_error *err);
// The text that ModifyResourceSettings, exports and restore points hold: CIM-XML of all settings instances of a VM or
// snapshot, one after the other. To be freed.
char *rp_hostd_settings_document(struct rp_hostd *hostd, const char *id, struct rp_error *err);
// What ModifyServiceSettings has set, an Msvm_VirtualSystemManagementServiceSettingData with nothing else in it, durable
// (object_services.c). To be freed.
struct rp_cim_instance *rp_hostd_service_kept(const struct rp_hostd *hostd);
int rp_hostd_service_keep(const struct rp_hostd *hostd, const struct rp_cim_instance *settings, struct rp_error *err);

#endif
