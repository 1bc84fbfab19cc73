// One file of a chain: open, shared, frozen, closed.
#include <stdlib.h>

#include "base/log.h"
#include "diskservice/chains.h"

static struct rp_layer *layer_new(struct rp_fs *fs, const char *path, bool exclusive, struct rp_error *err)
{
    struct rp_error why = {0};
    struct rp_store *lock = rp_fs_open(fs, path, RP_OPEN_WRITE, &why);
    if (!lock && why.code == RP_ERR_PERMISSION && !exclusive) // a read-only base image; it cannot be merged into
        lock = rp_fs_open(fs, path, RP_OPEN_READ, err);
    else if (!lock && err && !err->code)
        *err = why;
    if (!lock)
        return NULL;
    if (rp_store_lock(lock, exclusive, err)) {
        rp_store_close(lock);
        return NULL;
    }
    struct rp_layer *layer = rp_xcalloc(1, sizeof *layer);
    layer->path = rp_xstrdup(path);
    layer->lock = lock;
    atomic_init(&layer->references, 1);
    return layer;
}

struct rp_layer *rp_layer_lock_leaf(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    return layer_new(fs, path, true, err);
}

struct rp_layer *rp_layer_open_frozen(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    struct rp_layer *layer = layer_new(fs, path, false, err);
    if (layer && !(layer->vhdx = rp_vhdx_open(fs, path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, err))) {
        rp_layer_release(layer);
        return NULL;
    }
    return layer;
}

void rp_layer_hold(struct rp_layer *layer) { atomic_fetch_add(&layer->references, 1); }

void rp_layer_release(struct rp_layer *layer)
{
    if (!layer || atomic_fetch_sub(&layer->references, 1) != 1)
        return;
    rp_rct_abandon(layer->rct);
    rp_vhdx_abandon(layer->vhdx);
    rp_store_close(layer->lock);
    free(layer->path);
    free(layer);
}

int rp_layer_state(struct rp_layer *layer, struct rp_rct_disk *disk, struct rp_error *err)
{
    return rp_rct_disk_of(layer->vhdx, disk, err);
}

int rp_layer_state_at_rest(struct rp_fs *fs, const char *path, struct rp_rct_disk *disk, struct rp_error *err)
{
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = rp_vhdx_open(fs, path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, err);
    return vhdx ? rp_rct_disk_of(vhdx, disk, err) : -1;
}

struct rp_rct *rp_layer_tracker(struct rp_fs *fs, struct rp_layer *layer)
{
    struct rp_error why = {0};
    if (layer->rct || layer->rct_unusable)
        return layer->rct;
    layer->rct = rp_rct_open_frozen(fs, layer->vhdx, &why);
    if (!layer->rct) {
        layer->rct_unusable = true;
        rp_log(RP_LOG_INFO, "%s: no change tracking: %s", layer->path, why.text);
    }
    return layer->rct;
}

void rp_layer_finish_tracking(struct rp_fs *fs, struct rp_layer *layer)
{
    struct rp_error why = {0};
    if (!layer->rct)
        layer->rct = rp_rct_open_frozen(fs, layer->vhdx, &why);
}

int rp_layer_freeze(struct rp_layer *layer, struct rp_error *err)
{
    struct rp_rct_disk disk;
    if (rp_vhdx_freeze(layer->vhdx, err) || rp_layer_state(layer, &disk, err) ||
        (layer->rct && rp_rct_freeze(layer->rct, &disk, err))) {
        layer->broken = true;
        return rp_context(err, "freeze %s", layer->path);
    }
    layer->disk_shared = layer->tracking_shared = layer->broken = false; // an attempt before this one may have found no room
    return 0;
}
