// One disk on its way into the repository: which blocks are read, which become zero, and the tree they make.
#ifndef RP_BACKUP_DISK_H
#define RP_BACKUP_DISK_H

#include <stdatomic.h>

#include "backup/plan.h"
#include "backup/reader.h"

struct rp_backup_disk {
    struct rp_plan_disk *plan; // borrowed; becomes full when the changes cannot be known
    struct rp_reader *reader;
    const char *reader_name;   // this and the next stay when the reader is closed
    struct rp_guid data_write_guid;
    struct rp_disk_writer *writer;
    struct rp_ranges data;     // to be read: whole blocks
    uint64_t changed;          // bytes that the change query named; in full: what is allocated
    bool fallback;             // no incremental was possible after all, so it is read in full
    atomic_uint_least64_t read, cached;
    struct rp_repo_root root;  // after rp_backup_disk_finish
};

// Opens the frozen file (takes `reader` over when the caller has one already) and finds out what to read.
int rp_backup_disk_open(struct rp_backup_disk *disk, struct rp_reader *reader, struct rp_repo_session *session, struct rp_error *err);
// Reads, and stores, one piece of `data`; the form that rp_transfer takes.
int rp_backup_disk_read(void *disk, uint64_t offset, uint32_t length, void *buffer, struct rp_error *err);
int rp_backup_disk_store(void *disk, uint64_t offset, uint32_t length, const void *buffer, struct rp_error *err);
// Closes the reader, so that the host may merge.
void rp_backup_disk_close_reader(struct rp_backup_disk *disk);
// Makes the tree. After all pieces were moved.
int rp_backup_disk_finish(struct rp_backup_disk *disk, struct rp_error *err);
void rp_backup_disk_clear(struct rp_backup_disk *disk); // also after a failure anywhere

// Appends `ranges` widened to whole blocks of the repository, clipped to `size`.
void rp_backup_align(const struct rp_ranges *ranges, uint64_t size, struct rp_ranges *blocks);

#endif
