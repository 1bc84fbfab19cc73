// Byte stores in memory, with the rules of a disk under a power cut: what was not flushed can be lost, and so can a
// name whose directory was not synced. For tests.
#ifndef RP_IO_MEMORY_H
#define RP_IO_MEMORY_H

#include "io/fs.h"

// An empty file system in memory. Thread safe.
struct rp_fs *rp_fs_memory_new(void);
// Cuts the power: every file goes back to its last flushed content, every directory to its last synced names; locks are
// gone. Stores that are open fail with RP_ERR_IO from now on, until closed.
void rp_fs_memory_cut(struct rp_fs *fs);
// How many flushes of stores, and syncs of directories, were made since the start (to prove "no sync here").
unsigned long rp_fs_memory_syncs(struct rp_fs *fs);
// All stores must be closed.
void rp_fs_memory_free(struct rp_fs *fs);

// A single anonymous store holding a copy of `data`; for parsers and fuzz targets.
struct rp_store *rp_store_memory_new(const void *data, size_t size, const char *name);

#endif
