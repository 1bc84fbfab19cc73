// Bytes from one disk file to another, by the quickest way that both sides know: extents are shared where the file system
// can; otherwise several threads read and write, past the page cache where it lets them. Internal to src/disk.
#ifndef RP_DISK_COPY_H
#define RP_DISK_COPY_H

#include "disk/convert.h"

struct rp_copy_side { // one of both
    struct rp_vhdx *vhdx; // read through its chain; nothing of it changes meanwhile but what this copy writes
    struct rp_store *raw;
    uint64_t raw_size;    // what is read behind it are zeros
};

struct rp_copy_job {
    struct rp_copy_side from, to;
    bool cached;              // little, while somebody waits: the caller's thread copies it within the page cache
    bool fresh;               // `to` reads as zeros: zeros are not written
    uint32_t step;            // bytes that are read and written at once, a power of two
    unsigned workers;         // at most
    uint64_t total;           // for `progress`, which may be NULL
    rp_progress_fn *progress; // called for each MiB at least, by the thread that calls rp_copy_range; when it sleeps, all wait
    void *context;
    const char *name;         // of what was stopped, for the error
};

struct rp_copy;
struct rp_copy *rp_copy_new(const struct rp_copy_job *job);
// Copies a range, which lies in both disks, in whole sectors; ranges of one job do not overlap. It may be still under way
// at return. From one thread. After a failure nothing more is done.
int rp_copy_range(struct rp_copy *copy, uint64_t offset, uint64_t length, struct rp_error *err);
// Calls `progress` without anything having been copied; fails when stopped, or when something failed before.
int rp_copy_check(struct rp_copy *copy, struct rp_error *err);
// Waits until everything is copied (not durably); frees. Fails when anything before failed.
int rp_copy_end(struct rp_copy *copy, struct rp_error *err);

#endif
