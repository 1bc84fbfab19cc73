// After an unclean end: what the array in the file may miss.
#include "base/log.h"
#include "base/num.h"
#include "rct/tracker.h"

struct recall {
    struct rp_rct *rct;
    uint64_t size;
    uint64_t regions; // that counted
};

// The region changed in the epoch that was current.
static void recall_region(void *context, uint64_t region)
{
    struct recall *recall = context;
    struct rp_rct *rct = recall->rct;
    uint64_t offset = region << RP_MRT_REGION_SHIFT;
    if (offset >= recall->size)
        return;
    uint64_t last = offset + rp_min64((uint64_t)1 << RP_MRT_REGION_SHIFT, recall->size - offset) - 1;
    rp_rct_raise(rct, offset >> rct->unit_shift, (last >> rct->unit_shift) + 1, rct->header.epoch);
    recall->regions++;
}

int rp_rct_recall(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    struct rp_rct_header *h = &rct->header;
    struct recall recall = {rct, disk->virtual_size, 0};
    bool usable = h->doubt == RP_RCT_DOUBT_NONE;
    if (h->doubt == RP_RCT_DOUBT_REGIONS &&
        rp_rct_coarse_read(&rct->coarse, &h->coarse, h->sequence, &usable, recall_region, &recall, err))
        return -1;
    if (!usable) {
        rp_log(RP_LOG_INFO, "%s: the last session did not end: the whole disk counts as changed", rct->path);
        struct rp_guid merging = h->merging;
        rp_rct_change_all(rct, disk->virtual_size);
        h->merging = merging;
        return 0;
    }
    char size[RP_SIZE_TEXT];
    rp_log(RP_LOG_INFO, "%s: the last session did not end: up to %s more count as changed", rct->path,
           rp_format_size(recall.regions << RP_MRT_REGION_SHIFT, size));
    if (recall.regions)
        atomic_store(&rct->state->changed, h->epoch);
    // A growth that was announced may not have come.
    atomic_store(&rct->virtual_size, disk->virtual_size);
    rp_rct_fit_bitmap(rct);
    return 0;
}
