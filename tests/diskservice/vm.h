// A VM's folder with disks, and what its disks must hold, for the tests of the engine.
#ifndef RP_TESTS_VM_H
#define RP_TESTS_VM_H

#include "base/log.h"
#include "diskservice/engine.h"
#include "diskservice/record.h"

#define VM_DIRECTORY "/vm"
#define VM_UNIT (64 << 10)

// Creates disks of `size` in `directory` ("disk0.vhdx", …; blocks of 1 MiB) and the chain record.
void vm_create(struct rp_fs *fs, const char *directory, size_t disks, uint64_t size);
// As rp_engine_open, but fails the test when it fails.
struct rp_engine *vm_open(struct rp_fs *fs, const char *directory);
// The same with shared memory in `shm`, a folder that vm_shm_new made and vm_shm_remove empties and removes.
struct rp_engine *vm_open_shared(struct rp_fs *fs, const char *directory, const char *shm);
char *vm_shm_new(void); // free it
void vm_shm_remove(const char *shm);
// A leaf is merged in rounds, as if the guest wrote much; or in one go, however much there is.
void vm_merge_by(struct rp_engine *engine, bool rounds);
// No file that a merge or a checkpoint made and left behind: everything that the record lists as such is gone or in a chain.
void vm_no_leftovers(struct rp_engine *engine, struct rp_fs *fs, const char *directory);
char *vm_leaf(struct rp_engine *engine, size_t disk); // path; free it

// Every sector is filled with a value of its own: the disk's model is an array of one number per 4 KiB.
#define VM_CELL 4096
struct model {
    uint64_t size;
    uint32_t *cells; // 0: zeros
};
void model_new(struct model *model, uint64_t size);
void model_copy(struct model *to, const struct model *from);
void model_free(struct model *model);
// Writes through the engine and notes it. `cell` and `count` in units of VM_CELL. 0, or -1 as the engine says.
int model_write(struct model *model, struct rp_engine *engine, size_t disk, uint64_t cell, uint64_t count, uint32_t value);
int model_zero(struct model *model, struct rp_engine *engine, size_t disk, uint64_t cell, uint64_t count);
// Some random writes and zeros.
int model_change_some(struct model *model, struct rp_engine *engine, size_t disk, unsigned count, uint64_t *seed);
// The whole disk reads as the model says.
void model_check(const struct model *model, struct rp_engine *engine, size_t disk);
// Cells that are not in `flushed` as in `now` are old or new on the disk, sector by sector; then they are written once more, so
// that everybody knows.
void model_settle(struct model *now, const struct model *flushed, struct rp_engine *engine, size_t disk);
// As model_check, for a chain at rest (or frozen), read without an engine.
void model_check_file(const struct model *model, struct rp_fs *fs, const char *path);
// Units that differ between two moments of a disk are all among the ranges (which must be ascending); `exact`: no others.
void model_check_changes(const struct model *before, const struct model *after, const struct rp_ranges *changed, bool exact);
// The same after a power cut: others only in `regions`, one for each VM_REGION of the disk, which were written to since the
// disks were opened; NULL: all of them.
#define VM_REGION (4 << 20)
void model_check_cut(const struct model *before, const struct model *after, const struct rp_ranges *changed, const bool *regions);

// An operation id.
struct rp_guid vm_operation(void);
// A checkpoint; `id` (may be NULL) of disk 0. 0 or -1.
int vm_checkpoint(struct rp_engine *engine, struct rp_rct_id *id, struct rp_error *err);
// Writes to disk 0, with a checkpoint after each write but the last: a chain of so many files, base first (free their names).
// `then` is the disk at the first checkpoint, and `id` its id.
void model_layers(struct model *now, struct model *then, struct rp_engine *engine, char **files, uint32_t count, struct rp_rct_id *id);
// Merges and waits; 0 or -1.
int vm_merge(struct rp_engine *engine, const char *path, struct rp_error *err);

// A sink for the log (rp_log_set_sink) that shows it when RP_TEST_LOG is set.
void vm_listen(enum rp_log_level level, const char *text);

#endif
