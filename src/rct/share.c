// Marks that outlive a killed process: the array and the epoch in shared memory, and ending a dead session from there.
#include <string.h>

#include "base/num.h"
#include "rct/tracker.h"

// The first page of the shared memory. It never leaves this machine and this boot.
struct shared {
    _Atomic uint64_t ready; // READY: written last
    uint32_t unit_size;
    struct rp_guid disk_id, tracking, file_write_guid; // the session
    struct rp_guid keep, before;                       // its stem if it changes nothing; the disk's FileWriteGuid before it
    struct rp_guid then_merging;                       // what `merging` becomes when all of the child has arrived
    struct rp_rct_state state;
};
_Static_assert(sizeof(struct shared) <= RP_RCT_SHM_PAGES_AT, "fits in front of the pages");
#define READY 0x32304D4853544352ull // and the version of this layout

size_t rp_rct_shm_size(void) { return RP_RCT_SHM_PAGES_AT + (size_t)RP_RCT_PAGES_MAX * 4096; }

int rp_rct_share(struct rp_rct *rct, struct rp_shm *shm, struct rp_error *err)
{
    struct shared *shared = rp_shm_data(shm);
    if (rp_shm_size(shm) < rp_rct_shm_size())
        return rp_fail(err, RP_ERR_INVALID, "%s: shared memory is too small", rct->path);
    rp_rct_enter(rct);
    int failed = !rct->live || rct->pages.shm ? rp_fail(err, RP_ERR_STATE, "%s: share: no session, or shared already", rct->path)
                                              : rp_shm_reserve(shm, 0, RP_RCT_SHM_PAGES_AT, err);
    if (!failed) {
        shared->unit_size = rct->header.unit_size;
        shared->disk_id = rct->header.disk_id;
        shared->tracking = rct->header.tracking;
        shared->file_write_guid = rct->header.session.file_write_guid;
        shared->keep = rct->keep;
        shared->before = rct->header.bound.file_write_guid;
        shared->then_merging = rct->then_merging;
        atomic_store(&shared->state.arrived, rct->own.arrived);
        atomic_store(&shared->state.epoch, rct->own.epoch);
        atomic_store(&shared->state.changed, rct->own.changed);
        atomic_store(&shared->state.touched, rct->own.touched);
        failed = rp_rct_pages_move(&rct->pages, shm, &shared->state.incomplete, err);
    }
    if (!failed) {
        rct->state = &shared->state;
        atomic_store(&shared->ready, READY);
    }
    rp_rct_leave(rct);
    return failed;
}

static int stranger(struct rp_rct *rct, const char *why, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_STATE, "%s: what a killed process left does not belong to it: %s", rct->path, why);
}

// That session is the last one of this file, and the disk is as it left it or as an earlier adoption did.
static int check(struct rp_rct *rct, const struct rp_rct_disk *disk, const struct shared *shared, struct rp_error *err)
{
    const struct rp_rct_header *h = &rct->header;
    uint32_t epoch = atomic_load(&shared->state.epoch);
    if (!rp_guid_equal(&shared->disk_id, &h->disk_id) || !rp_guid_equal(&h->disk_id, &disk->disk_id))
        return stranger(rct, "another disk", err);
    if (!rp_guid_equal(&shared->tracking, &h->tracking) || shared->unit_size != h->unit_size)
        return stranger(rct, "another session of tracking", err);
    // A session that changed nothing leaves the GUIDs of the disk as they were.
    const struct rp_guid *session = h->clean ? &h->bound.file_write_guid : &h->session.file_write_guid;
    if (!rp_guid_equal(session, &shared->file_write_guid) && !(h->clean && rp_guid_equal(session, &shared->before)))
        return stranger(rct, "another session of the disk", err);
    if (h->clean ? !rp_guid_equal(&h->bound.file_write_guid, &disk->file_write_guid) ||
                       !rp_guid_equal(&h->bound.data_write_guid, &disk->data_write_guid)
                 : rp_rct_judge(h, disk) != RP_RCT_UNCLEAN)
        return stranger(rct, "somebody else changed the disk", err);
    if (epoch < h->epoch || epoch > h->epoch + 1 || epoch >= RP_RCT_EPOCH_LIMIT)
        return stranger(rct, "an impossible epoch", err);
    return 0;
}

// Everything that the page in shared memory knows, into the tracker's own.
static void fold_page(struct rp_rct *rct, uint64_t index, struct rp_rct_page *from, uint32_t epoch)
{
    for (uint64_t i = 0; i < RP_RCT_PAGE_UNITS; i++) {
        uint32_t since = atomic_load_explicit(&from->since[i], memory_order_relaxed);
        uint64_t unit = index * RP_RCT_PAGE_UNITS + i;
        if (since)
            rp_rct_raise(rct, unit, unit + 1, since < epoch ? since : epoch);
    }
}

static void fold_pages(struct rp_rct *rct, struct rp_shm *shm, uint32_t epoch)
{
    uint64_t count = rp_rct_page_count(atomic_load(&rct->virtual_size), rct->header.unit_size);
    for (uint64_t i = 0; i < count; i++) {
        size_t at = RP_RCT_SHM_PAGES_AT + (size_t)i * 4096;
        if (i % RP_RCT_CHUNK == 0 && !rp_shm_has(shm, at, (size_t)rp_min64(count - i, RP_RCT_CHUNK) * 4096))
            i += RP_RCT_CHUNK - 1;
        else if (rp_shm_has(shm, at, 4096))
            fold_page(rct, i, rp_rct_shm_page(shm, i), epoch);
    }
}

static int adopt(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_shm *shm, struct rp_error *err)
{
    struct shared *shared = rp_shm_data(shm);
    enum rp_rct_found found;
    if (rp_shm_size(shm) != rp_rct_shm_size() || !rp_shm_has(shm, 0, 4096) || atomic_load(&shared->ready) != READY)
        return stranger(rct, "it is not complete", err);
    if (rp_rct_open_existing(rct, &found, err))
        return -1;
    if (!rct->store || found != RP_RCT_FOUND)
        return stranger(rct, "there is no tracking file", err);
    if (check(rct, disk, shared, err))
        return -1;
    struct rp_rct_header *h = &rct->header;
    rct->keep = shared->keep;
    if (h->clean && rp_rct_judge(h, disk) == RP_RCT_CLEAN) // adopted before
        return 0;
    if (h->clean) { // and then the disk was adopted once more
        h->session = (struct rp_vhdx_session){disk->file_write_guid, disk->data_write_guid};
        h->doubt = RP_RCT_DOUBT_NONE;
        if (rp_rct_write_header(rct, false, err))
            return -1;
    }
    // When memory was short the marks that are missing are in the regions.
    if (atomic_load(&shared->state.incomplete) && rp_rct_recall(rct, disk, err))
        return -1;
    uint32_t epoch = atomic_load(&shared->state.epoch);
    fold_pages(rct, shm, epoch);
    atomic_store(&rct->state->epoch, epoch);
    uint32_t changed = atomic_load(&shared->state.changed);
    if (epoch != h->epoch || changed)
        atomic_store(&rct->state->changed, changed);
    atomic_store(&rct->state->touched, atomic_load(&shared->state.touched));
    if (atomic_load(&shared->state.arrived))
        h->merging = shared->then_merging;
    return rp_rct_settle(rct, disk, err);
}

int rp_rct_adopt(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk, struct rp_shm *shm,
                 struct rp_error *err)
{
    RP_CLEANUP(rp_rct_abandon_p) struct rp_rct *rct = rp_rct_new(fs, disk_path);
    return adopt(rct, disk, shm, err);
}
