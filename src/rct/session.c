// A writing session's way: seal, freeze, close; rest, rebind, thaw; growth.
#include "base/log.h"
#include "rct/tracker.h"

struct rp_rct_id rp_rct_seal(struct rp_rct *rct)
{
    rp_rct_enter(rct);
    struct rp_rct_id id = {rct->header.tracking, atomic_fetch_add(&rct->epoch, 1)};
    rct->header.epoch = id.epoch + 1;
    atomic_store(&rct->changed, false);
    rp_rct_leave(rct);
    return id;
}

// Space beyond the old size changed in the current epoch, the rest of its last unit included.
static void resize(struct rp_rct *rct, uint64_t virtual_size)
{
    uint64_t old = atomic_load(&rct->virtual_size);
    if (virtual_size > old) {
        rp_rct_add_floor(rct, old >> rct->unit_shift, atomic_load(&rct->epoch));
        atomic_store(&rct->changed, true);
        atomic_store(&rct->touched, true);
    }
    atomic_store(&rct->virtual_size, virtual_size);
    rp_rct_fit_bitmap(rct);
}

int rp_rct_grow(struct rp_rct *rct, uint64_t virtual_size, struct rp_error *err)
{
    rp_rct_enter(rct);
    int failed = 0;
    if (!rct->live)
        failed = rp_fail(err, RP_ERR_STATE, "%s: grow: no writing session", rct->path);
    else if (virtual_size < atomic_load(&rct->virtual_size) || virtual_size > RP_VHDX_MAX_SIZE)
        failed = rp_fail(err, RP_ERR_INVALID, "%s: cannot grow to %llu bytes", rct->path,
                         (unsigned long long)virtual_size);
    else if (virtual_size > atomic_load(&rct->virtual_size)) {
        resize(rct, virtual_size);
        failed = rp_rct_write_header(rct, false, err);
    }
    rp_rct_leave(rct);
    return failed;
}

// Pages, then the header that calls them complete. The lock is held.
static int settle(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    if (rct->failed)
        return rp_fail(err, RP_ERR_IO, "%s: an earlier write failed", rct->path);
    if (rct->header.clean && !rct->live)
        return 0;
    if (disk->virtual_size != atomic_load(&rct->virtual_size))
        resize(rct, disk->virtual_size);
    if (rp_rct_write_pages(rct, err))
        return -1;
    rct->header.bound = *disk;
    rct->live = false;
    return rp_rct_write_header(rct, true, err);
}

int rp_rct_freeze(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    rp_rct_enter(rct);
    int failed = settle(rct, disk, err) || rp_store_lock(rct->store, false, err);
    rp_rct_leave(rct);
    return failed ? -1 : 0;
}

int rp_rct_close(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err)
{
    rp_rct_enter(rct);
    int failed = settle(rct, disk, err);
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
        failed = rp_rct_write_header(rct, false, err);
    }
    rp_rct_leave(rct);
    return failed;
}

void rp_rct_thaw(struct rp_rct *rct)
{
    rp_rct_enter(rct);
    // Without the merge (or rebind) that made it so, a crash leaves a file that calls itself complete, but bound to GUIDs
    // that the disk has no more: safe, and a bug all the same.
    if (rct->header.clean)
        rp_log(RP_LOG_ERROR, "%s: thawed without a session", rct->path);
    rct->live = true;
    rp_rct_leave(rct);
}
