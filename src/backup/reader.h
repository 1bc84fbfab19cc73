// A reader: one disk of one VM at one frozen moment.
#ifndef RP_BACKUP_READER_H
#define RP_BACKUP_READER_H

#include <stdint.h>

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
};

// The virtual-disk reader: opens the frozen file and its parents on this machine, asks the host for the changes. Fails
// with RP_ERR_CORRUPT when the file is not the disk that the host described. Borrows `host`.
struct rp_reader *rp_reader_virtual_disk(struct rp_host_connection *host, const struct rp_vm_disk *disk,
                                         struct rp_error *err);
void rp_reader_close(struct rp_reader *reader); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_reader, rp_reader_close)

#endif
