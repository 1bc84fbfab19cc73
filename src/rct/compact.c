// To the tracking file, compacting is a change of metadata that is not a change of content, as a new parent locator is.
#include "rct/compact.h"

#include "rct/rct.h"

// Opening for writing would replay a dirty log: its session may have a tracker of its own to be asked first.
static int check_clean(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(fs, path, RP_VHDX_READ, NULL, err);
    if (!vhdx)
        return -1;
    if (rp_vhdx_info(vhdx)->dirty_log)
        return rp_fail(err, RP_ERR_STATE, "%s: was not closed cleanly; start its VM once", path);
    return 0;
}

// *rct NULL: there is none to keep.
static int open_tracker(struct rp_fs *fs, struct rp_vhdx *vhdx, struct rp_rct **rct, struct rp_error *err)
{
    struct rp_error why = {0};
    *rct = rp_rct_open_frozen(fs, vhdx, &why);
    return *rct || why.code == RP_ERR_TRACKING_OFF ? 0 : rp_fail_as(err, &why);
}

static int compact(struct rp_fs *fs, struct rp_vhdx *vhdx, const struct rp_vhdx_session *session, uint64_t *before,
                   uint64_t *after, rp_progress_fn *progress, void *context, struct rp_error *err)
{
    struct rp_rct_disk disk;
    struct rp_error why = {0};
    RP_CLEANUP(rp_rct_abandon_p) struct rp_rct *rct = NULL;
    if (open_tracker(fs, vhdx, &rct, err) || rp_rct_disk_of(vhdx, &disk, err) ||
        (rct && rp_rct_rebind(rct, &disk, session, err)))
        return -1;
    int failed = rp_vhdx_compact(vhdx, true, before, after, progress, context, err);
    // Also after a failure: where the file was closed well, its tracking can be.
    if (rct && !rp_vhdx_freeze(vhdx, &why) && !rp_rct_disk_of(vhdx, &disk, &why))
        rp_rct_freeze(rct, &disk, &why);
    if (!failed && why.code)
        *err = why;
    return failed || why.code ? -1 : 0;
}

int rp_rct_compact(struct rp_fs *fs, const char *disk_path, bool change, uint64_t *before, uint64_t *after,
                   rp_progress_fn *progress, void *context, struct rp_error *err)
{
    struct rp_error ignored = {0};
    err = err ? err : &ignored;
    if (check_clean(fs, disk_path, err))
        return -1;
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(fs, disk_path, RP_VHDX_WRITE, &session, err);
    if (!vhdx || rp_vhdx_compact(vhdx, false, before, after, NULL, NULL, err))
        return -1;
    if (!change || *after >= *before)
        return 0;
    return compact(fs, vhdx, &session, before, after, progress, context, err);
}
