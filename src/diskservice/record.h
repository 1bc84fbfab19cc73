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
#define RP_RECORD_MAX_SCRATCH (2 * RP_ENGINE_MAX_DISKS)
#define RP_RECORD_MAX_MERGING (2 * RP_ENGINE_MAX_DISKS)
struct rp_record {
    uint64_t generation; // 0: never written
    struct rp_guid vm_id;
    size_t count;
    struct rp_record_disk disks[RP_ENGINE_MAX_DISKS];
    struct rp_engine_checkpoint last; // the last checkpoint's result, for a repeated request; count 0: none
    // Files of ours that something in progress made or will leave over. The next open deletes those that are in no chain.
    size_t scratch_count;
    char *scratch[RP_RECORD_MAX_SCRATCH];
    // Leaves that a merge put on top of what it merges. They are ours alone: whoever goes on with the merge merges those that
    // are in a chain as well, and until then there is no checkpoint.
    size_t merging_count;
    char *merging[RP_RECORD_MAX_MERGING];
    // By rp_record_read: the other slot may have held a later generation, whole, and was damaged since: files that only that
    // one named may be what the guest wrote last.
    bool damaged;
};
// RP_ERR_NOT_FOUND when there is none, RP_ERR_CORRUPT when neither slot is whole.
int rp_record_read(struct rp_fs *fs, const char *vm_directory, struct rp_record *record, struct rp_error *err);
// Writes generation + 1 into the older slot, durably (creates the file when there is none). Updates record->generation.
int rp_record_write(struct rp_fs *fs, const char *vm_directory, struct rp_record *record, struct rp_error *err);
void rp_record_clear(struct rp_record *record);
int rp_record_copy(const struct rp_record *from, struct rp_record *to, struct rp_error *err); // INVALID as for encode
bool rp_record_has_scratch(const struct rp_record *record, const char *path);
int rp_record_add_scratch(struct rp_record *record, const char *path, struct rp_error *err); // idempotent
void rp_record_drop_scratch(struct rp_record *record, size_t index); // the last one takes its place
int rp_record_add_merging(struct rp_record *record, const char *path, struct rp_error *err);
void rp_record_drop_merging(struct rp_record *record, size_t index);

#define RP_RECORD_SLOT ((size_t)1 << 20) // where the second slot starts, and the most that one may hold
// One slot, as bytes and back. Paths are absolute and shorter than 4096 bytes, else RP_ERR_INVALID / RP_ERR_CORRUPT.
int rp_record_encode(const struct rp_record *record, struct rp_buf *out, struct rp_error *err);
int rp_record_decode(const void *data, size_t size, struct rp_record *record, struct rp_error *err);

#endif
