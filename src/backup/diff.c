#include "backup/diff.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static bool same_disk(const struct rp_point_disk *a, const struct rp_point_disk *b)
{
    bool same_id = !rp_guid_is_zero(&a->disk_id) && rp_guid_equal(&a->disk_id, &b->disk_id);
    bool same_place = a->instance && b->instance && !strcmp(a->instance, b->instance);
    return same_id && (same_place || a->number == b->number);
}

// A disk that moved is known by its id alone, as long as both points have only one of it.
static const struct rp_point_disk *find(const struct rp_point *in, const struct rp_point_disk *disk, const struct rp_point *of)
{
    const struct rp_point_disk *found = NULL;
    size_t here = 0, there = 0;
    for (size_t i = 0; i < in->disk_count; i++) {
        if (same_disk(&in->disks[i], disk))
            return &in->disks[i];
        if (!rp_guid_is_zero(&disk->disk_id) && rp_guid_equal(&in->disks[i].disk_id, &disk->disk_id)) {
            found = &in->disks[i];
            there++;
        }
    }
    for (size_t i = 0; i < of->disk_count; i++)
        here += rp_guid_equal(&of->disks[i].disk_id, &disk->disk_id);
    return here == 1 && there == 1 ? found : NULL;
}

static int diff_disk(struct rp_repo *repo, struct rp_diff_disk *disk, struct rp_error *err)
{
    int result = disk->from ? rp_repo_diff(repo, &disk->from->root, &disk->to->root, &disk->ranges, err)
                            : rp_repo_allocated(repo, &disk->to->root, &disk->ranges, err);
    return result ? rp_context(err, "disk %u", disk->number) : 0;
}

int rp_diff_points(struct rp_repo *repo, const struct rp_point *from, const struct rp_point *to, struct rp_diff *diff, struct rp_error *err)
{
    *diff = (struct rp_diff){.disks = rp_xcalloc(from->disk_count + to->disk_count + 1, sizeof *diff->disks)};
    for (size_t i = 0; i < to->disk_count; i++) {
        struct rp_diff_disk *disk = &diff->disks[diff->count++];
        disk->to = &to->disks[i];
        disk->number = disk->to->number;
        disk->from = find(from, disk->to, to);
        if (diff_disk(repo, disk, err)) {
            rp_diff_clear(diff);
            return -1;
        }
    }
    for (size_t i = 0; i < from->disk_count; i++)
        if (!find(to, &from->disks[i], from))
            diff->disks[diff->count++] = (struct rp_diff_disk){.number = from->disks[i].number, .from = &from->disks[i]};
    return 0;
}

void rp_diff_clear(struct rp_diff *diff)
{
    for (size_t i = 0; i < diff->count; i++)
        rp_ranges_clear(&diff->disks[i].ranges);
    free(diff->disks);
    *diff = (struct rp_diff){0};
}
