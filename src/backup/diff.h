// What changed between two restore points of one VM, disk by disk.
#ifndef RP_BACKUP_DIFF_H
#define RP_BACKUP_DIFF_H

#include "repo/repo.h"

struct rp_diff_disk {
    uint32_t number;                       // in `to`; of a removed disk in `from`
    const struct rp_point_disk *from, *to; // borrowed; NULL: the disk was added, or removed
    struct rp_ranges ranges;               // blocks that differ; of an added disk what it holds; of a removed one none
};
struct rp_diff {
    struct rp_diff_disk *disks;
    size_t count;
};
// Borrows both points.
int rp_diff_points(struct rp_repo *repo, const struct rp_point *from, const struct rp_point *to, struct rp_diff *diff,
                   struct rp_error *err);
void rp_diff_clear(struct rp_diff *diff);

#endif
