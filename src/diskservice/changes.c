// What changed since an id, seen through one file of a chain; and growth.
#include "base/num.h"
#include "diskservice/chains.h"

// Every parent must be able to answer: one whose tracking is lost may hold changes that are later than the id.
static int query(struct rp_fs *fs, struct rp_layer *const *layers, size_t depth, const struct rp_rct_id *id, uint64_t offset,
                 uint64_t length, struct rp_ranges *changed, struct rp_error *err)
{
    struct rp_rct *trackers[RP_CHAIN_MAX_DEPTH];
    for (size_t i = 0; i < depth; i++) {
        struct rp_layer *layer = layers[depth - 1 - i];
        if (!(trackers[i] = rp_layer_tracker(fs, layer)))
            return rp_fail(err, RP_ERR_TRACKING_OFF, "%s: its changes are not tracked", layer->path);
    }
    return rp_rct_query(trackers, depth, id, offset, length, changed, err);
}

int rp_engine_changes(struct rp_engine *engine, const char *path, const struct rp_rct_id *id, uint64_t offset,
                      uint64_t length, struct rp_ranges *changed, struct rp_error *err)
{
    size_t disk, layer;
    int failed;
    pthread_mutex_lock(&engine->chains);
    if (!rp_engine_find_layer(engine, path, &disk, &layer))
        failed = rp_fail(err, RP_ERR_NOT_FOUND, "%s: is not in a chain of %s", path, engine->directory);
    else
        failed = query(engine->fs, engine->disks[disk].layers, layer + 1, id, offset, length, changed, err);
    pthread_mutex_unlock(&engine->chains);
    return failed;
}

int rp_engine_changes_page(struct rp_engine *engine, const char *path, const struct rp_rct_id *id, uint64_t offset,
                           uint64_t length, size_t limit, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err)
{
    // In steps that cannot bring more than twice `limit` ranges, so that what is cut off was not looked at for nothing.
    uint64_t step = limit * 2 * (uint64_t)rp_rct_unit_size_for(0);
    *processed = 0;
    do {
        uint64_t at = offset + *processed, n = rp_min64(step, length - *processed);
        if (rp_engine_changes(engine, path, id, at, n, changed, err))
            return -1;
        *processed += n;
    } while (*processed < length && changed->count < limit);
    if (changed->count > limit) {
        changed->count = limit;
        const struct rp_range *last = &changed->items[limit - 1];
        *processed = last->offset + last->length - offset;
    }
    return 0;
}

int rp_changes_at_rest(struct rp_fs *fs, const char *path, const struct rp_rct_id *id, uint64_t offset, uint64_t length,
                       struct rp_ranges *changed, struct rp_error *err)
{
    struct rp_chain chain = {0};
    struct rp_rct *trackers[RP_CHAIN_MAX_DEPTH] = {0};
    if (rp_chain_open(fs, path, &chain, err))
        return -1;
    int failed = 0;
    for (size_t i = 0; i < chain.depth && !failed; i++) {
        struct rp_rct_disk state;
        failed = rp_rct_disk_of(chain.layers[i], &state, err) ||
                 !(trackers[i] = rp_rct_open_read(fs, rp_vhdx_path(chain.layers[i]), &state, err));
    }
    failed = failed || rp_rct_query(trackers, chain.depth, id, offset, length, changed, err);
    for (size_t i = 0; i < chain.depth; i++)
        rp_rct_abandon(trackers[i]);
    rp_chain_close(&chain);
    return failed ? -1 : 0;
}

// What is merged into the files below, one day, must find room there: nobody could merge it, and there would be no checkpoint more.
static int check_files_below(const struct rp_engine_chain *disk, uint64_t size, struct rp_error *err)
{
    for (size_t i = 0; i < disk->depth; i++) {
        const struct rp_vhdx *vhdx = disk->layers[i]->vhdx;
        if (rp_vhdx_info(vhdx)->size < size && rp_vhdx_check_growth(vhdx, size, err))
            return -1;
    }
    return 0;
}

int rp_engine_grow(struct rp_engine *engine, size_t disk, uint64_t size, struct rp_error *err)
{
    if (rp_engine_begin(engine, RP_TURN_GROW, err))
        return -1;
    pthread_mutex_lock(&engine->chains);
    rp_gate_close(engine->gate);
    struct rp_layer *leaf = rp_chain_leaf(&engine->disks[disk]);
    const struct rp_vhdx_info *info = rp_vhdx_info(leaf->vhdx);
    int failed = rp_engine_check(engine, err); // on a leaf that no record names, nothing lasts
    if (!failed && (size < info->size || !rp_is_aligned(size, info->logical_sector) || size > RP_VHDX_MAX_SIZE))
        failed = rp_fail(err, RP_ERR_INVALID, "%s: cannot grow from %llu to %llu bytes", leaf->path,
                         (unsigned long long)info->size, (unsigned long long)size);
    failed = failed || check_files_below(&engine->disks[disk], size, err);
    // The tracker first: a crash in between leaves it knowing more than there is, never less. It may know more since a growth
    // for which the disk found no room.
    if (!failed && size > info->size)
        failed = (leaf->rct && size > rp_rct_virtual_size(leaf->rct) && rp_rct_grow(leaf->rct, size, err)) ||
                 rp_vhdx_grow(leaf->vhdx, size, err);
    if (failed)
        rp_engine_session_failed(engine, leaf->vhdx, leaf->rct);
    rp_gate_open(engine->gate);
    rp_engine_publish(engine, &engine->disks[disk]);
    pthread_mutex_unlock(&engine->chains);
    rp_engine_end(engine);
    return failed ? -1 : 0;
}
