// What the files of the in-process host connection share. A function lives in the file that its second word names.
//
// Every change of a VM runs under its lock (rp_local_vm_lock). Every change of several things that cannot be one
// database transaction is announced by one first: rows whose state is not 'ready' are the intents, recover.c and
// merge.c finish or undo them.
#ifndef RP_HOST_INTERNAL_H
#define RP_HOST_INTERNAL_H

#include "base/buf.h"
#include "disk/convert.h"
#include "diskservice/record.h"
#include "diskservice/service.h"
#include "host/db.h"
#include "host/local.h"
#include "host/lock.h"
#include "hyperv/host_connection.h"

struct rp_local {
    struct rp_host_connection host; // first: ops get this
    char *directory;                // canonical
    struct rp_fs *fs;
    struct rp_db *db;
    int lock_fd;
    char next_id[RP_GUID_TEXT];     // what is made next gets this id; "": a new one
    char *next_extras;              // what is defined next has these settings; NULL: none
    rp_host_local_judge_fn *judge;  // which files may be disks; NULL: all
    void *judge_context;
};
static inline struct rp_local *rp_local_of(struct rp_host_connection *host) { return (struct rp_local *)host; }

// ---- vm.c: one VM's row, folder and lock; what list and find show ---------------------------------------------------

struct rp_local_vm {
    struct rp_local *local;
    bool locked;
    int64_t row;            // in the table vm; the number of its lock
    char id[RP_GUID_TEXT];  // upper case
    char *name;
    char *directory;        // DIR/vms/<id>
    char controller[RP_GUID_TEXT];
    int64_t generation, created, next_disk;
    bool delete_disks;
    bool inherited;         // the folder was there before the VM
    char *hypervisor;       // URI of what runs it; "": nothing, its disks are served and that is all
    char domain[RP_GUID_TEXT];
    bool awaited;           // this process has asked for its domain, which may be defined later (rp_local_domain_make)
    char state[16];
};
void rp_local_vm_release(struct rp_local_vm *vm); // unlocks, frees; usable with RP_CLEANUP
void rp_local_vm_unlock(struct rp_local_vm *vm);
// `vm_id`: GUID text in either case. Not ready ones (being created or deleted) are not found.
int rp_local_vm_load(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err);
// By row and in any state. 1 loaded, 0 no such row, -1 error.
int rp_local_vm_load_row(struct rp_local *local, int64_t row, struct rp_local_vm *vm, struct rp_error *err);
// Loads it and takes its lock (RP_ERR_BUSY after a while).
int rp_local_vm_lock_as_is(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err);
int rp_local_vm_lock_within(struct rp_local *local, const char *vm_id, unsigned timeout_ms, struct rp_local_vm *vm,
                            struct rp_error *err);
// Of a locked VM: finishes or undoes what was left over. NOT_FOUND: that was the VM itself.
int rp_local_vm_finish(struct rp_local_vm *vm, struct rp_error *err);
// Both: what every change begins with.
int rp_local_vm_lock(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err);
// Whether its disk service answers.
bool rp_local_vm_running(const struct rp_local_vm *vm);
// Of a locked VM. 0, or RP_ERR_STATE: `what` ("add a disk") needs the VM to be off. The disk service of a domain that is off ends.
int rp_local_vm_need_off(const struct rp_local_vm *vm, const char *what, struct rp_error *err);
struct rp_service *rp_local_vm_service(const struct rp_local_vm *vm, struct rp_error *err);
// What a killed disk service left in shared memory goes into the files: before anybody reads or writes the chain record
// of a VM whose service does not run.
int rp_local_vm_adopt(const struct rp_local_vm *vm, struct rp_error *err);
void rp_local_guid_text(const struct rp_guid *guid, char out[RP_GUID_TEXT]); // upper case, as Hyper-V shows them
void rp_local_new_id(char out[RP_GUID_TEXT]);
// The id of what a method makes: a new one, or what rp_host_local_next_id said. At the start of each such method.
void rp_local_take_id(struct rp_local *local, char out[RP_GUID_TEXT]);
int rp_local_not_found(const struct rp_local *local, const char *vm_id, struct rp_error *err);
// A look at a VM takes note of merges that have ended, unless somebody is at work on it.
void rp_local_vm_take_note(struct rp_local *local, int64_t row, bool at_rest);
int rp_local_vm_list(struct rp_host_connection *host, struct rp_vms *vms, struct rp_error *err);
int rp_local_vm_find(struct rp_host_connection *host, const char *name_or_id, struct rp_vm *vm, struct rp_error *err);

// ---- settings.c -----------------------------------------------------------------------------------------------------

// "Microsoft:<VM>\<controller>\<number / 64>\<number % 64>\L" (facts/wmi.md 1.2).
void rp_local_settings_instance(const struct rp_local_vm *vm, uint32_t number, char out[RP_HOST_ID]);
int rp_local_settings_vm(struct rp_host_connection *host, const char *vm_id, struct rp_vm_settings *settings,
                         struct rp_error *err);
int rp_local_settings_snapshot(struct rp_host_connection *host, const char *snapshot_id,
                               struct rp_vm_settings *settings, struct rp_error *err);
// Where a client of a running VM may connect to a disk; malloc'ed.
char *rp_local_settings_nbd_uri(const struct rp_local_vm *vm, uint32_t number);

// ---- inventory.c ----------------------------------------------------------------------------------------------------

int rp_local_inventory(struct rp_host_connection *host, struct rp_inventory *inventory, struct rp_error *err);

// ---- name.c: names that administrators and clients give -------------------------------------------------------------

// Refuses what would be trouble in documents, file names and terminals. A VM's name / a checkpoint's.
int rp_local_name_check(const char *name, struct rp_error *err);
int rp_local_name_check_tag(const char *name, struct rp_error *err);
// What of a name can be the name of a file anywhere; malloc'ed.
char *rp_local_name_as_file(const char *name);
// console.c: in a file of the VM's folder.
#define RP_LOCAL_CONSOLE "console" // and, by virtlogd, console.0 to console.2 of what was said before
int rp_local_console_keep(struct rp_host_connection *host, const char *vm_id, struct rp_error *err);
int rp_local_console_read(struct rp_host_connection *host, const char *vm_id, struct rp_console_place *place, void *data,
                          size_t size, size_t *got, struct rp_error *err);
int rp_local_name_change(struct rp_host_connection *host, const char *id, const char *name, RP_METHOD_RESULT,
                         struct rp_error *err);

// ---- extras.c: settings that this host keeps for others -------------------------------------------------------------

int rp_local_extras_check(const char *text, struct rp_error *err);

// ---- progress.c: the progress of several files as one ---------------------------------------------------------------

struct rp_local_progress {
    rp_progress_fn *progress; // may be NULL
    void *context;
    uint64_t before, total;   // bytes of the files that are done; of all
};
// What the connection's owner wants to hear.
struct rp_local_progress rp_local_progress_of(const struct rp_local *local);
int rp_local_progress_call(void *progress, uint64_t done, uint64_t total); // a rp_progress_fn

// ---- definition.c: a VM as text -------------------------------------------------------------------------------------

#define RP_LOCAL_EXTRAS_MAX ((size_t)1 << 20)
#define RP_LOCAL_DEFINITION_MAX ((size_t)8 << 20)

struct rp_local_definition_disk {
    uint32_t number;
    struct rp_guid disk_id;
    uint64_t size;
    uint32_t logical, physical, block;
    // Of an export only (docs/formats/export.md):
    char *file;                  // a bare name in "Virtual Hard Disks"; NULL: was not exported
    bool differencing;
    char rct_id[RP_RCT_ID_TEXT]; // of the moment whose content it is; "": not tracked
    struct rp_guid content;      // DataWriteGuid of the exported file
};
struct rp_local_definition {
    char id[RP_GUID_TEXT], controller[RP_GUID_TEXT]; // controller "": not said
    char *name, *extras;
    int64_t generation, created;
    bool exported;               // an export's definition; false: the document of some settings
    char *point_name;            // the name of the checkpoint that it was made of; "" when there was none
    int64_t point_time;
    size_t disk_count;
    struct rp_local_definition_disk disks[RP_ENGINE_MAX_DISKS]; // in the order of the text
};
// Either a document of ours (rp_vm_settings) or the definition of an export. Pure; the text may be anybody's.
int rp_local_definition_parse(const char *text, size_t size, struct rp_local_definition *definition, struct rp_error *err);
int rp_local_definition_read(struct rp_local *local, const char *path, struct rp_local_definition *definition,
                             struct rp_error *err);
void rp_local_definition_clear(struct rp_local_definition *definition);
// The DataWriteGuid that an exported disk has whose content is that of this moment: the same for each file with the same
// content, so that a differencing export fits its base. Zero when `rct_id` is none.
struct rp_guid rp_local_definition_content(const char *rct_id);
#define RP_LOCAL_MACHINES "Virtual Machines"
#define RP_LOCAL_DISKS "Virtual Hard Disks"
#define RP_LOCAL_BASE "Base" // beside the disks of a differential export: where its locators look for those of its base

// ---- export.c, export_names.c ---------------------------------------------------------------------------------------

int rp_local_export_system(struct rp_host_connection *host, const struct rp_export *what, RP_METHOD_RESULT,
                           struct rp_error *err);
// Names that an export makes, announced durably before it makes any.
struct rp_local_export_names {
    struct rp_local *local;
    int64_t row;                // 0: not announced
    char *root;                 // canonical folder of the export
    char *definition;           // what is written last; "": the names are never whole (making.c)
    size_t count;
    struct rp_local_export_name {
        char *path;
        bool folder;
    } items[RP_ENGINE_MAX_DISKS + 8];
};
// `definition` below `root`; `subdirectory`: root is to be made as well. RP_ERR_EXISTS when one of the names is there.
int rp_local_export_names_add(struct rp_local_export_names *names, const char *path, bool folder, struct rp_error *err);
int rp_local_export_names_announce(struct rp_local_export_names *names, struct rp_error *err);
int rp_local_export_names_make_folders(struct rp_local_export_names *names, struct rp_error *err);
// Somebody else has made it meanwhile: it is not ours to remove.
void rp_local_export_names_disown(struct rp_local_export_names *names, const char *path);
// The end: the export is whole, or what was made of it goes.
int rp_local_export_names_end(struct rp_local_export_names *names, bool whole, struct rp_error *err);
void rp_local_export_names_clear(struct rp_local_export_names *names);
// Ends the exports of processes that died.
int rp_local_export_recover(struct rp_local *local, struct rp_error *err);

// ---- planned.c, plan.c: VMs that are about to be imported -----------------------------------------------------------

struct rp_local_planned_disk {
    uint32_t number;
    char instance[RP_HOST_ID];
    struct rp_guid disk_id;
    char *path;
    uint64_t size;
    uint32_t logical, physical, block;
};
struct rp_local_planned {
    int64_t row;
    char id[RP_GUID_TEXT], controller[RP_GUID_TEXT];
    char *name, *extras;
    int64_t generation, created;
    size_t disk_count;
    struct rp_local_planned_disk disks[RP_ENGINE_MAX_DISKS];
};
void rp_local_planned_clear(struct rp_local_planned *planned);
// 1 loaded, 0 there is none, -1 error.
int rp_local_planned_load(struct rp_local *local, const char *id, struct rp_local_planned *planned, struct rp_error *err);
int rp_local_planned_import(struct rp_host_connection *host, const char *definition_file, bool new_identity,
                            RP_METHOD_RESULT, struct rp_error *err);
int rp_local_planned_define(struct rp_host_connection *host, const char *document, const char *const *disks,
                            size_t disk_count, bool new_identity, RP_METHOD_RESULT, struct rp_error *err);
int rp_local_planned_modify_disk(struct rp_host_connection *host, const char *instance, const char *path,
                                 RP_METHOD_RESULT, struct rp_error *err);
int rp_local_planned_validate(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                              struct rp_error *err);
int rp_local_planned_realize(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                             struct rp_error *err);
int rp_local_planned_list(struct rp_host_connection *host, struct rp_vms *planned, struct rp_error *err);
// Deletes the plan; files stay as they are. 1 done, 0 there is none, -1 error.
int rp_local_planned_destroy(struct rp_local *local, const char *id, struct rp_error *err);

// ---- image.c: a file that is to become a disk -----------------------------------------------------------------------

struct rp_local_image {
    enum rp_image_format format;
    char *path;            // canonical
    uint64_t size;         // of the virtual disk
    uint32_t logical, physical, block;
    struct rp_guid disk_id;
    char *parents[RP_ENGINE_MAX_DISKS];
    size_t parent_count;
};
void rp_local_image_clear(struct rp_local_image *image);
// Valid UTF-8: parent locators, the control protocol and the settings document are all Unicode.
bool rp_local_image_is_text(const char *path);
// The path as the host keeps it: canonical when the file is there, else made absolute. malloc'ed; NULL: not valid text.
char *rp_local_image_where(const char *path, struct rp_error *err);
// Opens and judges the file: readable, writable in place when VHDX, its parents there, of a format that we know; what
// the connection's judge says to it and its parents.
int rp_local_image_inspect(struct rp_local *local, const char *path, struct rp_local_image *image,
                           struct rp_error *err);
// Reads the facts of a VHDX of ours; takes no lock.
int rp_local_image_facts(struct rp_fs *fs, const char *path, struct rp_local_image *image, struct rp_error *err);
// Inside a transaction: no VM here has the file, as a disk or in a disk's chain, nor writes one of its parents, and no
// disk of `vm` has its identity.
int rp_local_image_check_free(const struct rp_local_vm *vm, const struct rp_local_image *image, struct rp_error *err);

// ---- disk.c: disks of a VM ------------------------------------------------------------------------------------------

// Inside a transaction: a row in state 'adding' for the image, which gets the number `number`.
int rp_local_disk_reserve(const struct rp_local_vm *vm, const struct rp_local_image *image, uint32_t number,
                          struct rp_error *err);
// Converts a raw image to its place; fills the row's facts. The row stays 'adding'.
int rp_local_disk_make(const struct rp_local_vm *vm, const struct rp_local_image *image, uint32_t number,
                       rp_progress_fn *progress, void *context, struct rp_error *err);
// Writes a chain record that has the VM's disks in state 'ready' and 'adding', with the leaves that the record has now.
int rp_local_disk_write_record(const struct rp_local_vm *vm, struct rp_error *err);
// Deletes what a killed checkpoint or merge left beside disks that are about to leave the chain record, which alone
// knows of it. Best effort: a disk that cannot be opened any more can still be removed.
void rp_local_disk_sweep(const struct rp_local_vm *vm);
// Before disks without checkpoints leave a VM: RP_ERR_STATE when the leaf of one is not the disk file itself, which
// then does not hold the newest data. `number` -1: all of them; `own`: those that the host made as well.
int rp_local_disk_check_leaves(const struct rp_local_vm *vm, int64_t number, bool own, const char *what,
                               struct rp_error *err);
int rp_local_disk_recover(const struct rp_local_vm *vm, struct rp_error *err);
// The number of the disk that a file in a VM's folder belongs to by its name ("disk0.vhdx", "disk0_<guid>.avhdx.rct"); -1: none.
int64_t rp_local_disk_number_of(const char *name);
int rp_local_disk_add(struct rp_host_connection *host, const char *vm_id, const char *disk, RP_METHOD_RESULT,
                      struct rp_error *err);
int rp_local_disk_remove(struct rp_host_connection *host, const char *vm_id, uint32_t number, RP_METHOD_RESULT,
                         struct rp_error *err);
int rp_local_disk_resize(struct rp_host_connection *host, const char *vm_id, uint32_t number, uint64_t size,
                         RP_METHOD_RESULT, struct rp_error *err);

// ---- system.c: VMs come, run and go ---------------------------------------------------------------------------------

int rp_local_system_define(struct rp_host_connection *host, const char *name, const char *const *disks,
                           size_t disk_count,
                           rp_progress_fn *progress, void *context, RP_METHOD_RESULT, struct rp_error *err);
int rp_local_system_destroy(struct rp_host_connection *host, const char *vm_id, bool delete_disks, RP_METHOD_RESULT,
                            struct rp_error *err);
int rp_local_system_state(struct rp_host_connection *host, const char *vm_id, enum rp_vm_state state, RP_METHOD_RESULT,
                          struct rp_error *err);
struct rp_local_new_vm {
    const char *id, *name, *controller, *extras;
    int64_t generation, created;
    const uint32_t *numbers; // of the disks
    int64_t planned;         // row of the plan that it realizes, which goes then; 0: none
};
// What an earlier VM of this id left in its folder stays and is in nobody's way, unless it has the name of something that the
// new one would put there: RP_ERR_EXISTS. *inherited: there is such a folder.
int rp_local_system_check_folder(struct rp_local *local, const char *id, const uint32_t *numbers, const struct rp_local_image *images,
                                 size_t count, bool *inherited, struct rp_error *err);
// RP_ERR_EXISTS when there is one with that id, planned or not. On failure nothing is left.
int rp_local_system_make(struct rp_local *local, const struct rp_local_new_vm *facts, const struct rp_local_image *images,
                         size_t count, struct rp_local_progress progress, struct rp_error *err);
// Undoes a VM in state 'creating', finishes one in state 'deleting'.
int rp_local_system_recover(const struct rp_local_vm *vm, struct rp_error *err);

// ---- snapshot.c -----------------------------------------------------------------------------------------------------

int rp_local_snapshot_create(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                             enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *err);
int rp_local_snapshot_list(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *snapshots,
                           struct rp_error *err);
// CreateReferencePoint: a checkpoint that becomes a reference point in the transaction that makes it.
int rp_local_snapshot_create_point(struct rp_host_connection *host, const char *vm_id, enum rp_consistency consistency,
                                   const char *name, RP_METHOD_RESULT, struct rp_error *err);
int rp_local_snapshot_recover(const struct rp_local_vm *vm, struct rp_error *err);

// ---- apply.c --------------------------------------------------------------------------------------------------------

int rp_local_apply_snapshot(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                            struct rp_error *err);
int rp_local_apply_recover(const struct rp_local_vm *vm, struct rp_error *err);

// ---- merge.c: what destroying and converting leaves to do -----------------------------------------------------------

int rp_local_merge_destroy(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                           struct rp_error *err);
int rp_local_merge_convert(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                           struct rp_error *err);
// Inside a transaction: the checkpoint in `row` becomes the reference point `id`, and its merge is announced.
int rp_local_merge_to_point(const struct rp_local_vm *vm, int64_t row, const char *id, struct rp_error *err);
// Locks the VM of a checkpoint that is ready, and tells its row.
int rp_local_merge_lock_ready(struct rp_local *local, const char *snapshot_id, struct rp_local_vm *vm, int64_t *row,
                              struct rp_error *err);
// Starts what has been announced. What it meets shows as the VM's activity.
void rp_local_merge_begin(const struct rp_local_vm *vm);
// Goes on with the merges of a locked VM: starts the next, takes note of one that ended. `at_rest`: merges in-process
// when the VM is off, which takes its time. Returns 0 none left, 1 some left (problem stored in their rows), -1 error.
int rp_local_merge_advance(const struct rp_local_vm *vm, bool at_rest, struct rp_error *err);
// Fills in how a VM's merges are getting on (merge_...; clear it with rp_vm_clear); false: it has none.
bool rp_local_merge_state(const struct rp_local_vm *vm, struct rp_vm *state);

// ---- point.c: reference points and changes --------------------------------------------------------------------------

int rp_local_point_list(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points,
                        struct rp_error *err);
int rp_local_point_import(struct rp_host_connection *host, const char *vm_id, const char *definition_file,
                          RP_METHOD_RESULT, struct rp_error *err);
int rp_local_point_destroy(struct rp_host_connection *host, const char *point_id, RP_METHOD_RESULT,
                           struct rp_error *err);
int rp_local_point_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                           uint64_t length, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err);

// ---- recover.c ------------------------------------------------------------------------------------------------------

// Finishes or undoes everything left over of a locked VM but the merges. After it the VM may be gone (state "").
int rp_local_recover_vm(struct rp_local_vm *vm, struct rp_error *err);
// All VMs whose lock is free; `merge`: merges of VMs that are off as well. What cannot be finished now is logged and left.
int rp_local_recover_all(struct rp_local *local, bool merge, struct rp_error *err);

#endif
