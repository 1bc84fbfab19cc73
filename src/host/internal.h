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
#include "host/lock.h"
#include "hyperv/host_connection.h"

struct rp_local {
    struct rp_host_connection host; // first: ops get this
    char *directory;                // canonical
    struct rp_fs *fs;
    struct rp_db *db;
    int lock_fd;
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
    char state[16];
};
void rp_local_vm_release(struct rp_local_vm *vm); // unlocks, frees; usable with RP_CLEANUP
// `vm_id`: GUID text in either case. Not ready ones (being created or deleted) are not found.
int rp_local_vm_load(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err);
// By row and in any state. 1 loaded, 0 no such row, -1 error.
int rp_local_vm_load_row(struct rp_local *local, int64_t row, struct rp_local_vm *vm, struct rp_error *err);
// Loads it and takes its lock (RP_ERR_BUSY after a while).
int rp_local_vm_lock_as_is(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err);
// Of a locked VM: finishes or undoes what was left over. NOT_FOUND: that was the VM itself.
int rp_local_vm_finish(struct rp_local_vm *vm, struct rp_error *err);
// Both: what every change begins with.
int rp_local_vm_lock(struct rp_local *local, const char *vm_id, struct rp_local_vm *vm, struct rp_error *err);
// Whether its disk service answers.
bool rp_local_vm_running(const struct rp_local_vm *vm);
// 0, or RP_ERR_STATE: `what` ("add a disk") needs the VM to be off.
int rp_local_vm_need_off(const struct rp_local_vm *vm, const char *what, struct rp_error *err);
struct rp_service *rp_local_vm_service(const struct rp_local_vm *vm, struct rp_error *err);
// What a killed disk service left in shared memory goes into the files: before anybody reads or writes the chain record
// of a VM whose service does not run.
int rp_local_vm_adopt(const struct rp_local_vm *vm, struct rp_error *err);
void rp_local_guid_text(const struct rp_guid *guid, char out[RP_GUID_TEXT]); // upper case, as Hyper-V shows them
void rp_local_new_id(char out[RP_GUID_TEXT]);
int rp_local_vm_list(struct rp_host_connection *host, struct rp_vms *vms, struct rp_error *err);
int rp_local_vm_find(struct rp_host_connection *host, const char *name_or_id, struct rp_vm *vm, struct rp_error *err);

// ---- settings.c -----------------------------------------------------------------------------------------------------

// "Microsoft:<VM>\<controller>\<number / 64>\<number % 64>\L" (facts/wmi.md 1.2).
void rp_local_settings_instance(const struct rp_local_vm *vm, uint32_t number, char out[RP_HOST_ID]);
int rp_local_settings_vm(struct rp_host_connection *host, const char *vm_id, struct rp_vm_settings *settings,
                         struct rp_error *err);
int rp_local_settings_snapshot(struct rp_host_connection *host, const char *snapshot_id,
                               struct rp_vm_settings *settings, struct rp_error *err);

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
// Opens and judges the file: readable, writable in place when VHDX, its parents there, of a format that we know.
int rp_local_image_inspect(struct rp_local *local, const char *path, struct rp_local_image *image,
                           struct rp_error *err);
// Reads the facts of a VHDX of ours; takes no lock.
int rp_local_image_facts(struct rp_local *local, const char *path, struct rp_local_image *image, struct rp_error *err);
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
// Undoes a VM in state 'creating', finishes one in state 'deleting'.
int rp_local_system_recover(const struct rp_local_vm *vm, struct rp_error *err);

// ---- snapshot.c -----------------------------------------------------------------------------------------------------

int rp_local_snapshot_create(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                             enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *err);
int rp_local_snapshot_list(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *snapshots,
                           struct rp_error *err);
int rp_local_snapshot_recover(const struct rp_local_vm *vm, struct rp_error *err);

// ---- merge.c: what destroying and converting leaves to do -----------------------------------------------------------

int rp_local_merge_destroy(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                           struct rp_error *err);
int rp_local_merge_convert(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                           struct rp_error *err);
// Goes on with the merges of a locked VM: starts the next, takes note of one that ended. `at_rest`: merges in-process
// when the VM is off, which takes its time. Returns 0 none left, 1 some left (problem stored in their rows), -1 error.
int rp_local_merge_advance(const struct rp_local_vm *vm, bool at_rest, struct rp_error *err);
// Fills in how a VM's merges are getting on (merge_...; clear it with rp_vm_clear); false: it has none.
bool rp_local_merge_state(const struct rp_local_vm *vm, struct rp_vm *state);

// ---- point.c: reference points and changes --------------------------------------------------------------------------

int rp_local_point_list(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points,
                        struct rp_error *err);
int rp_local_point_destroy(struct rp_host_connection *host, const char *point_id, RP_METHOD_RESULT,
                           struct rp_error *err);
int rp_local_point_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                           uint64_t length, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err);

// ---- recover.c ------------------------------------------------------------------------------------------------------

// Finishes or undoes everything left over of a locked VM but the merges. After it the VM may be gone (state "").
int rp_local_recover_vm(struct rp_local_vm *vm, struct rp_error *err);
// All VMs whose lock is free, merges included; what cannot be finished now is logged and left.
int rp_local_recover_all(struct rp_local *local, struct rp_error *err);

#endif
