// A reader: one disk of one VM at one frozen moment. A source: all disks of one backup, read in one way.
#ifndef RP_BACKUP_READER_H
#define RP_BACKUP_READER_H

#include <stdint.h>

#include "backup/plan.h"
#include "backup/work.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/guid.h"
#include "base/ranges.h"
#include "hyperv/host_connection.h"

struct rp_reader;

struct rp_reader_ops {
    // Appends the parts of [offset, offset+length) that may hold something other than zeros: ascending; a hole is never
    // listed.
    int (*allocated)(struct rp_reader *reader, uint64_t offset, uint64_t length, struct rp_ranges *ranges,
                     struct rp_error *err);
    // Appends what changed since the id: ascending, joined, inside the disk. RP_ERR_TRACKING_ID, _SYNTAX or _OFF, or
    // RP_ERR_CORRUPT when the host's answer makes no sense: the caller reads what is allocated.
    int (*changed)(struct rp_reader *reader, const char *rct_id, struct rp_ranges *ranges, struct rp_error *err);
    // Said after `changed` when its answer is of no use: the plan has no base for the disk any more, all of it is going
    // to be read. NULL: it makes no difference.
    int (*whole)(struct rp_reader *reader, struct rp_error *err);
    // Sector-aligned; thread safe.
    int (*read)(struct rp_reader *reader, void *data, uint32_t size, uint64_t offset, struct rp_error *err);
    // What was read so far will not be read again. NULL: nothing to drop. Thread safe.
    void (*drop_cache)(struct rp_reader *reader);
    void (*close)(struct rp_reader *reader);
};
struct rp_reader {
    const struct rp_reader_ops *ops;
    const char *name;        // "virtual-disk": recorded in the restore point
    uint64_t size;
    uint32_t logical_sector, physical_sector;
    struct rp_guid data_write_guid; // of an exported file, known when it is read; else zero
};
void rp_reader_close(struct rp_reader *reader); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_reader, rp_reader_close)

// The virtual-disk reader: opens the frozen file and its parents on this machine, asks the host for the changes. Fails
// with RP_ERR_CORRUPT when the file is not the disk that the host described. Borrows `host`.
struct rp_reader *rp_reader_virtual_disk(struct rp_host_connection *host, const struct rp_vm_disk *disk,
                                         struct rp_error *err);
// The mounted-share reader: the same files where the host's path map says that they are here, read-only, and nothing
// outside the mapped folders. RP_ERR_BUSY: somebody on the host has a file open for himself; RP_ERR_NOT_FOUND: it is
// not in the share.
struct rp_reader *rp_reader_share(struct rp_host_connection *host, const struct rp_vm_disk *disk, struct rp_error *err);

// What a source knows of its backup. All of it is borrowed, and stays until the source is closed.
struct rp_source_job {
    struct rp_host_connection *host;
    struct rp_repo *repo;
    const struct rp_vm *vm;
    const char *snapshot_id;
    const struct rp_plan *plan;                 // changes while disks turn out to be read in full
    const struct rp_reference_point *reference; // where the changes begin; NULL: there is none
    const struct rp_guid *repository, *job;     // whose traces are whose
    const char *export_folder;                  // as the host calls it
    struct rp_work *work;                       // with the same host
};
struct rp_source;
struct rp_source_ops {
    struct rp_reader *(*open)(struct rp_source *source, const struct rp_plan_disk *disk, struct rp_error *err);
    // Puts into the point what the source has of the VM besides disks. NULL: nothing.
    int (*describe)(struct rp_source *source, struct rp_point *point, struct rp_error *err);
    // After all its readers. Frees it also on failure: something is left on the host.
    int (*close)(struct rp_source *source, struct rp_error *err);
};
struct rp_source {
    const struct rp_source_ops *ops;
};
// Nothing happens on the host before a disk is opened.
struct rp_source *rp_source_new(enum rp_reader_kind kind, const struct rp_source_job *job);
// A source whose readers `open` makes.
struct rp_source *rp_source_of(struct rp_host_connection *host,
                               struct rp_reader *(*open)(struct rp_host_connection *host, const struct rp_vm_disk *disk,
                                                         struct rp_error *err));
struct rp_source *rp_source_export(const struct rp_source_job *job); // reader_export.c
int rp_source_close(struct rp_source *source, struct rp_error *err); // NULL is fine

#endif
