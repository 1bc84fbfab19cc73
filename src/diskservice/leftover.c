// Files that an interrupted checkpoint or merge left over: deleted, or put aside when nobody can be sure.
#include <string.h>

#include "base/log.h"
#include "diskservice/chains.h"
#include "rct/file.h"

// A file of ours that is no whole tracking file yet, or not ours at all.
static bool is_half_made(struct rp_fs *fs, const char *path)
{
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, NULL);
    static const uint8_t zeros[8];
    uint8_t head[8];
    uint64_t size;
    if (!store || rp_store_size(store, &size, NULL))
        return false;
    if (!size) // created, and not written yet
        return true;
    return size >= sizeof head && !rp_store_pread(store, head, sizeof head, 0, NULL) &&
           (rp_rct_has_signature(head) || !memcmp(head, zeros, sizeof head));
}

// Our record lists it, no chain holds it, nobody has it open, and it is no other disk. Returns the lock.
static struct rp_store *lock_leftover(struct rp_engine *engine, const char *path)
{
    struct rp_error err = {0};
    struct rp_store *lock = rp_fs_open(engine->fs, path, RP_OPEN_WRITE, &err);
    if (!lock || rp_store_lock(lock, true, &err)) {
        rp_log(RP_LOG_WARNING, "a leftover stays: %s", err.text);
        rp_store_close(lock);
        return NULL;
    }
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(engine->fs, path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, &err);
    bool ours = !vhdx && err.code == RP_ERR_CORRUPT; // cut short while it was created
    for (size_t d = 0; vhdx && d < engine->count; d++)
        ours |= rp_guid_equal(&engine->disks[d].disk_id, &rp_vhdx_info(vhdx)->disk_id);
    if (ours)
        return lock;
    rp_log(RP_LOG_WARNING, "a leftover stays: %s: %s", path, vhdx ? "is another disk now" : err.text);
    rp_store_close(lock);
    return NULL;
}

static int delete_tracking(struct rp_engine *engine, const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *tracking = rp_rct_path(path), *half_made = rp_xasprintf("%s.new", tracking);
    if (is_half_made(engine->fs, half_made))
        rp_fs_unlink(engine->fs, half_made, NULL);
    return rp_rct_remove(engine->fs, path, err);
}

static int delete_files(struct rp_engine *engine, const char *path, struct rp_error *err)
{
    if (delete_tracking(engine, path, err) || rp_fs_unlink(engine->fs, path, err) || rp_fs_sync_parent(engine->fs, path, err))
        return -1;
    rp_log(RP_LOG_INFO, "deleted %s, left over by an interrupted checkpoint or merge", path);
    return 0;
}

static int rename_if_there(struct rp_engine *engine, const char *from, const char *to, struct rp_error *err)
{
    bool there;
    return rp_fs_exists(engine->fs, from, &there, err) || (there && rp_fs_rename(engine->fs, from, to, err)) ? -1 : 0;
}

// Out of the way, but not lost. Its tracking goes with it.
static int put_aside(struct rp_engine *engine, const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *aside = rp_xasprintf("%s.lost", path), *tracking = rp_rct_path(path), *tracking_aside = rp_rct_path(aside),
                      *coarse = rp_xasprintf("%s.mrt", path), *coarse_aside = rp_xasprintf("%s.mrt", aside);
    bool taken;
    if (rp_fs_exists(engine->fs, aside, &taken, err))
        return -1;
    if (taken)
        return rp_fail(err, RP_ERR_EXISTS, "%s: there is one already", aside);
    if (rename_if_there(engine, tracking, tracking_aside, err) || rename_if_there(engine, coarse, coarse_aside, err) ||
        rp_fs_rename(engine->fs, path, aside, err) || rp_fs_sync_parent(engine->fs, path, err))
        return -1;
    rp_log(RP_LOG_WARNING, "%s: may hold what the guest wrote last, and the part of the chain record that would tell is damaged; "
                           "it is %s now, and can be deleted when the disks are as they should be", path, aside);
    return 0;
}

void rp_engine_sweep(struct rp_engine *engine)
{
    for (size_t i = 0; i < engine->record.scratch_count; i++) {
        const char *path = engine->record.scratch[i];
        struct rp_error err = {0};
        size_t disk, layer;
        bool exists;
        if (rp_engine_find_layer(engine, path, &disk, &layer) || rp_fs_exists(engine->fs, path, &exists, &err))
            continue;
        if (!exists) { // a power cut can undo the deletion of its tracking alone
            if (delete_tracking(engine, path, &err) || rp_fs_sync_parent(engine->fs, path, &err))
                rp_log(RP_LOG_WARNING, "a leftover stays: %s", err.text);
            continue;
        }
        RP_CLEANUP(rp_store_close_p) struct rp_store *lock = lock_leftover(engine, path);
        if (lock && (engine->record.damaged ? put_aside(engine, path, &err) : delete_files(engine, path, &err)))
            rp_log(RP_LOG_WARNING, "a leftover stays: %s", err.text);
    }
}
