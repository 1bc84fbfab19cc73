// A writing session's way: seal, freeze, close; rebind, thaw; growth.
#include "rct/tracker.h"

struct rp_rct_id rp_rct_seal(struct rp_rct *rct)
{
    // One store, and no lock that a flush could hold: this is the pause. The file keeps the old epoch until it is settled.
    return (struct rp_rct_id){rct->header.tracking, atomic_fetch_add(&rct->state->epoch, 1)};
}

void rp_rct_resize(struct rp_rct *rct, uint64_t virtual_size)
{
    uint64_t old = atomic_load(&rct->virtual_size);
    if (virtual_size > old) {
        uint32_t epoch = atomic_load(&rct->state->epoch);
        rp_rct_add_floor(rct, old >> rct->unit_shift, epoch);
        atomic_store(&rct->state->changed, epoch);
        atomic_store(&rct->state->touched, true);
    }
    atomic_store(&rct->virtual_size, virtual_size);
    rp_rct_fit_bitmap(rct);
}

uint64_t rp_rct_virtual_size(const struct rp_rct *rct) { return atomic_load(&rct->virtual_size); }

int rp_rct_grow(struct rp_rct *rct, uint64_t virtual_size, struct rp_error *err)
{
    rp_rct_enter(rct);
    uint64_t old = atomic_load(&rct->virtual_size);
    int failed = 0;
    if (!rct->live)
        failed = rp_fail(err, RP_ERR_STATE, "%s: grow: no writing session", rct->path);
    else if (virtual_size < atomic_load(&rct->virtual_size) || virtual_size > RP_VHDX_MAX_SIZE)
        failed = rp_fail(err, RP_ERR_INVALID, "%s: cannot grow to %llu bytes", rct->path,
                         (unsigned long long)virtual_size);
    else if (virtual_size > atomic_load(&rct->virtual_size)) {
        failed = rp_rct_coarse_grow(&rct->coarse, virtual_size, err);
        if (!failed) {
            rp_rct_resize(rct, virtual_size);
            // A floor that had to make room is in the pages now.
            failed = rp_rct_write_pages(rct, err) || rp_rct_write_header(rct, false, err);
            if (failed)
                rp_rct_resize(rct, old); // so that the next attempt is one
        }
    }
    rp_rct_leave(rct);
    return failed ? -1 : 0;
}

// The pages are in the file now; what memory has of them goes when it is shared.
static void end_share(struct rp_rct *rct)
{
    if (!rct->pages.shm)
        return;
    rct->own.epoch = rct->state->epoch;
    rct->own.changed = rct->state->changed;
    rct->own.touched = rct->state->touched;
    rct->state = &rct->own;
    rp_rct_pages_clear(&rct->pages);
    rp_shm_remove(rct->pages.shm);
    rct->pages.shm = NULL;
}

int rp_rct_settle(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    if (rct->failed)
        return rp_fail(err, RP_ERR_IO, "%s: an earlier write failed", rct->path);
    if (rct->header.clean && !rct->live)
        return 0;
    rct->header.epoch = atomic_load(&rct->state->epoch);
    if (disk->virtual_size != atomic_load(&rct->virtual_size))
        rp_rct_resize(rct, disk->virtual_size);
    if (rp_rct_write_pages(rct, err))
        return -1;
    rct->header.bound = *disk;
    if (rct->merged)
        rct->header.merging = rct->then_merging;
    bool live = rct->live;
    rct->live = rct->merged = false;
    if (rp_rct_write_header(rct, true, err)) {
        rct->live = live;
        return -1;
    }
    rp_rct_coarse_stop(&rct->coarse);
    end_share(rct);
    return 0;
}

int rp_rct_freeze(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    rp_rct_enter(rct);
    int failed = rp_rct_settle(rct, disk, err) || rp_store_lock(rct->store, false, err);
    rp_rct_leave(rct);
    return failed ? -1 : 0;
}

int rp_rct_close(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    rp_rct_enter(rct);
    int failed = rp_rct_settle(rct, disk, err);
    rp_rct_leave(rct);
    rp_rct_abandon(rct);
    return failed;
}

int rp_rct_rebind(struct rp_rct *rct, const struct rp_rct_disk *disk, const struct rp_vhdx_session *session,
                  struct rp_error *err)
{
    rp_rct_enter(rct);
    int failed = rp_rct_make_writable(rct, err);
    if (!failed) {
        rct->header.bound = *disk;
        rct->header.session = *session;
        rct->header.doubt = RP_RCT_DOUBT_NONE;
        failed = rp_rct_write_header(rct, false, err);
    }
    rp_rct_leave(rct);
    return failed;
}

bool rp_rct_failed(struct rp_rct *rct, struct rp_error *why)
{
    rp_rct_enter(rct);
    bool failed = rct->failed;
    rp_rct_leave(rct);
    if (failed)
        rp_fail(why, RP_ERR_IO, "%s: a write or sync failed", rct->path);
    return failed;
}

void rp_rct_merged(struct rp_rct *rct)
{
    rp_rct_enter(rct);
    rct->merged = true;
    rp_rct_leave(rct);
}

enum rp_rct_doubt rp_rct_live_doubt(const struct rp_rct *rct)
{
    return atomic_load(&rct->coarse.current) ? RP_RCT_DOUBT_REGIONS : RP_RCT_DOUBT_ALL;
}

int rp_rct_thaw(struct rp_rct *rct, struct rp_error *err)
{
    rp_rct_enter(rct);
    int failed = 0;
    if (rct->header.clean || !rct->merged) {
        failed = rp_fail(err, RP_ERR_STATE, "%s: thawed without a merge", rct->path);
    } else {
        // Marks that the child got after the merge was prepared, and that have no region here.
        failed = rp_rct_write_pages(rct, err);
        rct->header.merging = rct->then_merging;
        rct->header.doubt = rp_rct_live_doubt(rct);
        rct->live = true;
        failed = failed || rp_rct_write_header(rct, false, err);
        rct->merged = failed;
    }
    rp_rct_leave(rct);
    return failed ? -1 : 0;
}
