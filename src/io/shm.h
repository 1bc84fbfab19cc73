// Shared memory: a file on tmpfs, mapped. It outlives the process that wrote it, however that ends, but not the
// machine: so the process that comes next can adopt what the last one knew and had not yet written to a disk. Its owner
// changes it by single atomic stores in an order that is right at every instruction.
//
// A file here belongs to the boot it was made in, to this user, and to one living process at a time (a lock that goes
// with it). Functions are not thread safe unless noted; the memory is the owner's business.
#ifndef RP_IO_SHM_H
#define RP_IO_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

struct rp_shm;

// The folder for the shared memory of what is kept in `directory` (a VM's folder):
// /dev/shm/refpoint-<uid>/<device>-<inode>. Only its name: asking makes nothing. malloc'ed; NULL on failure.
char *rp_shm_directory(const char *directory, struct rp_error *err);
// Makes that folder, for what is kept in `folder`, and the one it is in, if they are not there, for us alone (mode 0700);
// PERMISSION when one belongs to somebody else. By who has the lock of what is kept in it, because rp_shm_clean takes it away.
int rp_shm_make(const char *directory, const char *folder, struct rp_error *err);

// An empty file of `size` bytes, all zeros, that replaces an older one of that name. Memory is taken when it is
// reserved, so `size` may be generous. BUSY when a living process has the older one.
struct rp_shm *rp_shm_create(const char *directory, const char *name, size_t size, struct rp_error *err);
// What another process left. NOT_FOUND: there is none, or it is of no use (not ours, cut short; then it is deleted);
// BUSY: its process lives.
struct rp_shm *rp_shm_open(const char *directory, const char *name, struct rp_error *err);
// The memory; page aligned, valid until close. Only reserved parts may be
// touched: elsewhere a full tmpfs would be a SIGBUS.
void *rp_shm_data(const struct rp_shm *shm);
size_t rp_shm_size(const struct rp_shm *shm);
// Takes the memory for a part, whole pages around it. NO_SPACE leaves everything as it was.
// Repeating it is fine. Thread safe.
int rp_shm_reserve(struct rp_shm *shm, size_t offset, size_t length, struct rp_error *err);
// Whether a part may hold something: false when no page of it was ever reserved. For readers of what others left.
bool rp_shm_has(const struct rp_shm *shm, size_t offset, size_t length);
void rp_shm_close(struct rp_shm *shm);  // the file stays; NULL is fine
void rp_shm_remove(struct rp_shm *shm); // deletes the file, and closes; NULL is fine
RP_DEFINE_CLEANUP(struct rp_shm, rp_shm_close)

// Deletes every file in the folder that no living process has, and the folder when it is empty then. Never fails.
void rp_shm_clean(const char *directory);
// Deletes the folder if there is no file in it.
void rp_shm_drop(const char *directory);
// rp_shm_clean of those folders beside this one that rp_shm_make has made for a folder that has been deleted since: nothing that
// a killed process left there is needed any more. Only what is known for sure counts: as an ordinary user (without
// CAP_DAC_READ_SEARCH), or on a file system that does not tell, it stays until the machine starts anew.
void rp_shm_sweep(const char *directory);

#endif
