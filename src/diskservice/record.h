// The chain record: one small checksummed file per VM, two slots written in turn, that names the leaf of every disk.
// docs/formats/chain-record.md.
#ifndef RP_DISKSERVICE_RECORD_H
#define RP_DISKSERVICE_RECORD_H

#include "diskservice/engine.h"

#define RP_RECORD_NAME "chain.record" // in the VM's folder

struct rp_record_disk {
    uint32_t number;        // "disk<number>" is the export name; stable when other disks come and go
    struct rp_guid disk_id;
    char *leaf_path;        // absolute
};
struct rp_record {
    uint64_t generation;
    struct rp_guid vm_id;
    size_t count;
    struct rp_record_disk disks[RP_ENGINE_MAX_DISKS];
    struct rp_engine_checkpoint last; // the last checkpoint's result, for a repeated request; count 0: none
};
int rp_record_read(struct rp_fs *fs, const char *vm_directory, struct rp_record *record, struct rp_error *err);
// Writes generation + 1 into the older slot, durably (creates the file when there is none). Updates record->generation.
int rp_record_write(struct rp_fs *fs, const char *vm_directory, struct rp_record *record, struct rp_error *err);
void rp_record_clear(struct rp_record *record);

#endif
