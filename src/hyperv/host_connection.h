// The host connection: all that the backup tool knows of a host. Its verbs are the methods of Hyper-V's WMI services
// (facts/wmi.md 1.4 to 1.6). Implementations: in-process on a local folder (src/host), WMI over WS-Management (later).
//
// Strings in results are malloc'ed and belong to the structure; each has its _clear. Not thread safe: one thread per
// connection, but several connections to one host may be open.
#ifndef RP_HYPERV_HOST_CONNECTION_H
#define RP_HYPERV_HOST_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/guid.h"
#include "base/ranges.h"
#include "hyperv/path_map.h"

#define RP_HOST_ID 128 // text of an identifier, NUL included

// EnabledState of Msvm_ComputerSystem; the last three are only asked for (RequestStateChange), no VM is in them.
enum rp_vm_state {
    RP_VM_RUNNING = 2, RP_VM_OFF = 3, RP_VM_SAVED = 6, RP_VM_PAUSED = 9,
    RP_VM_SHUT_DOWN = 4, RP_VM_REBOOT = 10, RP_VM_RESET = 11
};
const char *rp_vm_state_name(enum rp_vm_state state); // "running", "off", …

// OperationalStatus[1] of Msvm_ComputerSystem; RP_VM_IDLE when absent.
enum rp_vm_activity { RP_VM_IDLE = 0, RP_VM_CREATING_SNAPSHOT = 32768, RP_VM_DELETING_SNAPSHOT = 32770, RP_VM_MERGING = 32772 };

struct rp_vm {
    char id[RP_GUID_TEXT];  // Msvm_ComputerSystem.Name
    char *name;             // ElementName, as the administrator calls it; hostile text
    enum rp_vm_state state;
    enum rp_vm_activity activity;
    bool has_guest;         // something runs it; false: it is disks that are served or not, and can only be started and stopped
    bool waits;             // PAUSED, not by its user: a disk does not answer or has no room. It goes on by itself
    char *remark;           // what the administrator should know: why it waits, what is not protected, …; NULL: nothing
    unsigned merge_percent; // while MERGING
    char *merge_problem;    // while MERGING: why it does not go on at the moment (it will by itself); NULL otherwise
    // While MERGING, where the host tells (else 0): bytes, bytes per second; how often what the guest wrote meanwhile
    // was merged as well; bytes per second that its writes are slowed down to, 0 when they are not.
    uint64_t merge_done, merge_total, merge_rate, merge_guest_rate;
    unsigned merge_round;
};
struct rp_vms {
    struct rp_vm *items;
    size_t count;
};
void rp_vm_clear(struct rp_vm *vm);
void rp_vms_clear(struct rp_vms *vms);

// One virtual hard disk of a settings instance (Msvm_StorageAllocationSettingData + Msvm_VirtualHardDiskSettingData).
struct rp_vm_disk {
    char instance[RP_HOST_ID]; // InstanceID; what a reference point lists in VirtualDiskIdentifiers
    uint32_t number;           // stable position: "disk<number>"
    struct rp_guid disk_id;    // VirtualDiskId
    char *path;                // HostResource[0]: in a snapshot's settings the frozen file
    uint64_t size;
    uint32_t logical_sector, physical_sector;
    char *nbd_uri;             // where a client may connect while the VM runs; NULL otherwise
};
// The settings of a VM or of a snapshot (Msvm_VirtualSystemSettingData and its components).
struct rp_vm_settings {
    char *document;            // all of it as the host gave it (text), saved with a restore point
    struct rp_vm_disk *disks;
    size_t disk_count;
    char **outside;            // what else the VM's data may be on, as words: a physical disk, a Fibre Channel port. No
    size_t outside_count;      // checkpoint holds it
};
void rp_vm_settings_clear(struct rp_vm_settings *settings);

enum rp_snapshot_type { RP_SNAPSHOT_PRODUCTION = 2, RP_SNAPSHOT_RECOVERY = 32768 }; // CreateSnapshot: SnapshotType
enum rp_consistency { RP_CONSISTENCY_UNKNOWN = 0, RP_CONSISTENCY_APPLICATION = 1, RP_CONSISTENCY_CRASH = 2 };

// What the names of a backup's own checkpoints and reference points begin with (backup/tag.h).
#define RP_HOST_TAG "refpoint:"
static inline bool rp_host_is_tag(const char *name) { return !strncmp(name, RP_HOST_TAG, strlen(RP_HOST_TAG)); }

struct rp_snapshot {
    char id[RP_HOST_ID];
    char vm_id[RP_GUID_TEXT];
    char *name;                // ElementName; a backup puts its tag here: RP_HOST_TAG "<repository id>:<job id>"
    enum rp_snapshot_type type;
    enum rp_consistency consistency; // reached
    char *consistency_reason;  // why it is that one, where the host says (WMI: in the job that made it); else NULL
    int64_t time_ns;           // wall clock
    bool merging;              // destroyed or converted, its merge not finished
};
struct rp_snapshots {
    struct rp_snapshot *items;
    size_t count;
};
void rp_snapshots_clear(struct rp_snapshots *snapshots);

struct rp_reference_disk {
    char instance[RP_HOST_ID]; // VirtualDiskIdentifiers[i]
    struct rp_guid disk_id;
    char rct_id[RP_HOST_ID];   // ResilientChangeTrackingIdentifiers[i]; opaque text; empty: not tracked
};
struct rp_reference_point {
    char id[RP_HOST_ID];
    char vm_id[RP_GUID_TEXT];
    char *name;                // our tag, as for snapshots
    int64_t time_ns;
    struct rp_reference_disk *disks;
    size_t disk_count;
};
struct rp_reference_points {
    struct rp_reference_point *items;
    size_t count;
};
void rp_reference_point_clear(struct rp_reference_point *point);
void rp_reference_points_clear(struct rp_reference_points *points);

// A VM and all that belongs to it.
struct rp_inventory_vm {
    struct rp_vm vm;
    struct rp_vm_settings settings; // without document
    struct rp_snapshots snapshots;
    struct rp_reference_points points;
};
struct rp_inventory {
    struct rp_inventory_vm *items;
    size_t count;
};
void rp_inventory_clear(struct rp_inventory *inventory);

// Msvm_VirtualSystemExportSettingData, as far as backup needs it.
struct rp_export {
    const char *vm_id;
    const char *snapshot_id;            // CopySnapshotConfiguration 3, SnapshotVirtualSystem: a recovery snapshot
    const char *base_point_id;          // DifferentialBackupBase: each disk a differencing one that holds the changes since
                                        // then and names as parent what the base had; NULL: whole disks
    const char *folder;                 // ExportDirectory, as the host calls it
    bool canonical;                     // it is known that no link is in its path: none is followed on the way to it
    bool subdirectory;                  // CreateVmExportSubdirectory: <folder>/<name of the VM>
    bool storage;                       // CopyVmStorage
    const char *const *excluded;        // ExcludedVirtualHardDisks: rp_vm_disk.instance
    size_t excluded_count;
};

enum rp_job_phase { RP_JOB_RUNNING = 4, RP_JOB_COMPLETED = 7, RP_JOB_FAILED = 10 }; // JobState
struct rp_job_state {
    enum rp_job_phase phase;
    unsigned percent;
    char result[RP_HOST_ID]; // what the job made: a snapshot's, reference point's or VM's id
    struct rp_error error;   // when FAILED
};

struct rp_host_connection;

// A method that takes long writes the id of its job into `job` and returns 0: the caller polls job_state or uses
// rp_host_wait. An empty `job` means that it is done already, with its result in `result`. Both are written first: they
// must not be the buffers that the call's own arguments are in.
#define RP_METHOD_RESULT char job[RP_HOST_ID], char result[RP_HOST_ID]

// How far a console was read, all zeros at first: the host's file, and the place in it.
struct rp_console_place {
    uint64_t file, at;
};

struct rp_host_ops {
    int (*list_vms)(struct rp_host_connection *host, struct rp_vms *vms, struct rp_error *err);
    // By GUID or exact name; several VMs of one name are RP_ERR_INVALID, listing their GUIDs.
    int (*find_vm)(struct rp_host_connection *host, const char *name_or_id, struct rp_vm *vm, struct rp_error *err);
    int (*vm_settings)(struct rp_host_connection *host, const char *vm_id, struct rp_vm_settings *settings,
                       struct rp_error *err);

    // DefineSystem + AddResourceSettings. `disks`: raw files are converted into the host's folder, VHDX files are used
    // in place. result: the VM's GUID. On failure nothing is left.
    int (*define_system)(struct rp_host_connection *host, const char *name, const char *const *disks, size_t disk_count,
                         int (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                         RP_METHOD_RESULT, struct rp_error *err);
    int (*destroy_system)(struct rp_host_connection *host, const char *vm_id, bool delete_disks, RP_METHOD_RESULT,
                          struct rp_error *err);
    // RequestStateChange: RP_VM_RUNNING starts, or lets a paused VM go on; RP_VM_OFF turns it off (an offline VM: its disk
    // service starts and stops); SHUT_DOWN and REBOOT ask the guest and wait for it, as long as the host says (RP_ERR_BUSY)
    // or until the job or the connection's progress ends it; then the guest goes on shutting down. RP_ERR_UNSUPPORTED: it
    // has no guest, for certain. RP_ERR_STATE: not from the state that it is in.
    int (*request_state)(struct rp_host_connection *host, const char *vm_id, enum rp_vm_state state, RP_METHOD_RESULT,
                         struct rp_error *err);
    int (*add_disk)(struct rp_host_connection *host, const char *vm_id, const char *disk, RP_METHOD_RESULT,
                    struct rp_error *err);
    int (*remove_disk)(struct rp_host_connection *host, const char *vm_id, uint32_t number, RP_METHOD_RESULT,
                       struct rp_error *err);
    // ResizeVirtualHardDisk; grows only.
    int (*resize_disk)(struct rp_host_connection *host, const char *vm_id, uint32_t number, uint64_t size,
                       RP_METHOD_RESULT, struct rp_error *err);

    // CreateSnapshot. result: the snapshot's id. The name is set from the moment of creation. `consistency` is what is
    // asked for; what was reached stands in the snapshot.
    // RP_ERR_BUSY while an earlier snapshot's merge is pending.
    int (*create_snapshot)(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                           enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *err);
    int (*list_snapshots)(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *snapshots,
                          struct rp_error *err);
    int (*snapshot_settings)(struct rp_host_connection *host, const char *snapshot_id, struct rp_vm_settings *settings,
                             struct rp_error *err);
    // The merge starts and goes on after the job: see rp_vm.activity.
    int (*destroy_snapshot)(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                            struct rp_error *err);
    // ConvertToReferencePoint (recovery snapshots only). result: the reference point's id.
    // The merge starts and goes on.
    int (*convert_to_reference_point)(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                                      struct rp_error *err);
    int (*list_reference_points)(struct rp_host_connection *host, const char *vm_id,
                                 struct rp_reference_points *points, struct rp_error *err);
    int (*destroy_reference_point)(struct rp_host_connection *host, const char *point_id, RP_METHOD_RESULT,
                                   struct rp_error *err);

    // GetVirtualDiskChanges: `path` is the frozen file. Appends ranges; *processed bytes from `offset` are covered (may
    // be fewer than asked, then call again further on; never 0).
    // RP_ERR_TRACKING_ID / _OFF: the caller reads everything.
    int (*disk_changes)(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                        uint64_t length, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err);

    // All VMs with their settings, snapshots and reference points: a constant number of requests, however many VMs.
    int (*inventory)(struct rp_host_connection *host, struct rp_inventory *inventory, struct rp_error *err);

    // ModifySystemSettings. `id`: a VM's or a snapshot's.
    int (*rename)(struct rp_host_connection *host, const char *id, const char *name, RP_METHOD_RESULT,
                  struct rp_error *err);
    // ApplySnapshot: the VM's disks become what the snapshot holds; what they were since is lost. The VM is off. Every
    // later query by a reference point that is younger than the snapshot reads everything. RP_ERR_STATE while the VM runs; a
    // host may also refuse it so while younger snapshots stand on it.
    int (*apply_snapshot)(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                          struct rp_error *err);
    // CreateReferencePoint: as a recovery snapshot that is converted at once. result: the reference point's id.
    int (*create_reference_point)(struct rp_host_connection *host, const char *vm_id, enum rp_consistency consistency,
                                  const char *name, RP_METHOD_RESULT, struct rp_error *err);

    // ExportSystemDefinition (docs/formats/export.md): into a folder of the host, which exists. On failure nothing of
    // it is left there.
    int (*export_system)(struct rp_host_connection *host, const struct rp_export *what, RP_METHOD_RESULT,
                         struct rp_error *err);
    // ImportSystemDefinition of an exported VM, in place. result: the planned VM's id (a VM that vm_settings, modify_disk,
    // rename and destroy_system know and list_vms does not show). RP_ERR_EXISTS: the old identity is that of a VM, planned or
    // not; an id is never of two. Nothing was made then.
    int (*import_system)(struct rp_host_connection *host, const char *definition_file, bool new_identity,
                         RP_METHOD_RESULT, struct rp_error *err);
    // DefinePlannedSystem from saved settings (rp_vm_settings.document) of this kind of host, disks at the given paths:
    // in the order of rp_vm_settings.disks, whatever that of the document is. result: the planned VM's id.
    // RP_ERR_EXISTS: as from import_system.
    int (*plan_system)(struct rp_host_connection *host, const char *document, const char *const *disks,
                       size_t disk_count, bool new_identity, RP_METHOD_RESULT, struct rp_error *err);
    // ModifyResourceSettings: HostResource of a disk of a planned VM.
    int (*modify_disk)(struct rp_host_connection *host, const char *instance, const char *path, RP_METHOD_RESULT,
                       struct rp_error *err);
    // ValidatePlannedSystem: RP_ERR_STATE says all that is wrong. RealizePlannedSystem: result: the VM's id.
    int (*validate_planned)(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                            struct rp_error *err);
    int (*realize_planned)(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                           struct rp_error *err);
    // ImportReferencePointMetadata, after a restore: the reference point that the exported configuration carries is the
    // VM's again, so that incrementals go on. result: its id. After realizing, before the first start. RP_ERR_TRACKING_OFF when
    // the changes since then could not be told exactly.
    int (*import_reference_point)(struct rp_host_connection *host, const char *vm_id, const char *definition_file,
                                  RP_METHOD_RESULT, struct rp_error *err);

    // Planned VMs, as list_vms has the others: id and name. NULL: the connection cannot tell.
    int (*list_planned)(struct rp_host_connection *host, struct rp_vms *planned, struct rp_error *err);

    // What the guest of a VM, which is off, says on its serial port from its next start on is kept by the host; and read on
    // from *place: *got bytes, 0 while there are no more. NULL: the connection cannot. RP_ERR_UNSUPPORTED: the VM has no
    // console.
    int (*console_keep)(struct rp_host_connection *host, const char *vm_id, struct rp_error *err);
    int (*console_read)(struct rp_host_connection *host, const char *vm_id, struct rp_console_place *place, void *data,
                        size_t size, size_t *got, struct rp_error *err);

    int (*job_state)(struct rp_host_connection *host, const char *job, struct rp_job_state *state,
                     struct rp_error *err);
    // Asks a job to end soon; what it made by then is undone, unless it is done first.
    int (*cancel_job)(struct rp_host_connection *host, const char *job, struct rp_error *err);
    void (*close)(struct rp_host_connection *host);
};

struct rp_host_connection {
    const struct rp_host_ops *ops;
    char *address; // "local:/var/lib/refpoint", for messages
    // Called now and then by methods that do their work themselves and take long, in the caller's thread; non-zero ends
    // them (RP_ERR_CANCELLED), and nothing is left. NULL: nobody asks. Bytes or percent.
    int (*progress)(void *context, uint64_t done, uint64_t total);
    void *progress_context;
    // The host's folders on this machine (hyperv/path_map.h), and the folder for exports, as the host calls it. Set by who opens
    // the connection and knows them, owned by it, freed by rp_host_close. NULL: none.
    struct rp_path_map *paths;
    char *export_folder;
    // Bytes per second for the merges that this connection starts or finds under way, 0: the host decides. A wish:
    // Hyper-V has nothing like it.
    uint64_t merge_rate;
    // For how long the guest of a VM may be frozen at most, for an application-consistent checkpoint; milliseconds, 0: the host
    // decides (10 s here and on Hyper-V, where nothing can be said).
    unsigned frozen_ms;
};

void rp_host_close(struct rp_host_connection *host); // NULL is fine
// Whether its files are those of this machine, under the same names ("local:DIR").
bool rp_host_is_local(const struct rp_host_connection *host);
// Where a file of the host is here: by its path map, else on a local host where it says. Errors of rp_path_map_to_local.
char *rp_host_local_path(const struct rp_host_connection *host, const char *path, struct rp_error *err);
RP_DEFINE_CLEANUP(struct rp_host_connection, rp_host_close)

// Waits for a job (an empty one is done) and puts its result into `result`; the job's failure becomes this call's.
// `stop` may be NULL; non-zero return gives up waiting (RP_ERR_CANCELLED).
int rp_host_wait(struct rp_host_connection *host, const char *job, char result[RP_HOST_ID],
                 int (*stop)(void *context), void *context, struct rp_error *err);
// Waits until the VM's merges are over. Returns 0 idle, 1 still merging after `timeout_ms`, -1 error.
int rp_host_wait_merge(struct rp_host_connection *host, const char *vm_id, unsigned timeout_ms, struct rp_error *err);
// All changes of a disk, repeating disk_changes until the whole size is covered.
int rp_host_all_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t size,
                        struct rp_ranges *changed, struct rp_error *err);

#endif
