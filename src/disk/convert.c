// Conversion between raw files and VHDX: what has data is copied, or shared, by copy.c.
#include "disk/convert.h"

#include "base/num.h"
#include "disk/chain.h"
#include "disk/copy.h"

enum { STEP = 2 << 20, WORKERS = 4 }; // measured: past the page cache, 2 MiB are quicker than 1 and no slower than 4

struct source {
    struct rp_store *raw;
    struct rp_chain chain;
    struct rp_copy_side side;
    uint64_t size;
    uint32_t sector;       // 0: any will do
    struct rp_ranges data; // what may hold something other than zeros
    const struct rp_ranges *changed; // only these go into a child; NULL: all
};

static void source_close(struct source *source)
{
    rp_store_close(source->raw);
    rp_chain_close(&source->chain);
    rp_ranges_clear(&source->data);
}

static int collect(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    if (state == RP_VHDX_DATA)
        rp_ranges_add(context, offset, length);
    return 0;
}

static int open_chain(struct rp_fs *fs, const char *path, struct source *source, struct rp_error *err)
{
    if (rp_chain_open(fs, path, &source->chain, err))
        return -1;
    struct rp_vhdx *leaf = source->side.vhdx = source->chain.layers[0];
    source->size = rp_vhdx_info(leaf)->size;
    source->sector = rp_vhdx_info(leaf)->logical_sector;
    return rp_vhdx_chain_extents(leaf, 0, source->size, collect, &source->data, err) ? -1 : 0;
}

static int open_raw(struct rp_fs *fs, const char *path, uint32_t sector, struct source *source, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges exact = {0};
    source->raw = source->side.raw = rp_fs_open(fs, path, RP_OPEN_READ, err);
    if (!source->raw || rp_store_size(source->raw, &source->side.raw_size, err) ||
        rp_store_extents(source->raw, 0, source->side.raw_size, &exact, err))
        return -1;
    source->size = rp_align_up(source->side.raw_size, sector);
    for (size_t i = 0; i < exact.count; i++) { // in whole sectors
        uint64_t start = rp_align_down(exact.items[i].offset, sector);
        rp_ranges_add(&source->data, start, rp_align_up(exact.items[i].offset + exact.items[i].length, sector) - start);
    }
    return 0;
}

// What hides the parent's content: the changes that read as zeros.
static int zero_changed(const struct source *source, struct rp_vhdx *child, struct rp_copy *copy, struct rp_error *err)
{
    const struct rp_ranges *data = &source->data;
    size_t next = 0; // of the data that does not end before `at`
    for (size_t i = 0; i < source->changed->count; i++) {
        uint64_t at = source->changed->items[i].offset, end = at + source->changed->items[i].length;
        while (at < end) {
            while (next < data->count && data->items[next].offset + data->items[next].length <= at)
                next++;
            uint64_t stop = next < data->count ? rp_min64(end, data->items[next].offset) : end;
            if (stop > at && (rp_vhdx_zero(child, at, rp_min64(stop - at, RP_GIB), NULL, err) || rp_copy_check(copy, err)))
                return -1;
            if (stop > at)
                at += rp_min64(stop - at, RP_GIB);
            else
                at = data->items[next].offset + data->items[next].length;
        }
    }
    return 0;
}

static int run(const struct source *source, const char *target, const struct rp_copy_side *to, rp_progress_fn *progress,
               void *context, struct rp_error *err)
{
    struct rp_copy *copy = rp_copy_new(&(struct rp_copy_job){
        .from = source->side,
        .to = *to,
        .fresh = !source->changed,
        .step = STEP,
        .workers = WORKERS,
        .total = rp_ranges_total(&source->data),
        .progress = progress,
        .context = context,
        .name = target,
    });
    int failed = 0;
    for (size_t i = 0; !failed && i < source->data.count; i++)
        failed = rp_copy_range(copy, source->data.items[i].offset, source->data.items[i].length, err);
    if (!failed && source->changed)
        failed = zero_changed(source, to->vhdx, copy, err);
    return rp_copy_end(copy, err) || failed ? -1 : 0;
}

static int fill_vhdx(struct rp_fs *fs, const struct source *source, const char *target, const struct rp_guid *content,
                     rp_progress_fn *progress, void *context, struct rp_error *err)
{
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_is_zero(content) ? rp_guid_new() : *content};
    struct rp_vhdx *vhdx = rp_vhdx_open(fs, target, RP_VHDX_WRITE, &session, err);
    if (!vhdx)
        return -1;
    if (run(source, target, &(struct rp_copy_side){.vhdx = vhdx}, progress, context, err)) {
        rp_vhdx_abandon(vhdx);
        return -1;
    }
    return rp_vhdx_close(vhdx, err);
}

static int to_vhdx(struct rp_fs *fs, const struct source *source, const char *target, const struct rp_vhdx_create *create,
                   rp_progress_fn *progress, void *context, struct rp_error *err)
{
    struct rp_vhdx_create new_disk = create ? *create : (struct rp_vhdx_create){0};
    new_disk.size = source->size;
    if (source->sector)
        new_disk.logical_sector = source->sector;
    if (!new_disk.parent_path != !source->changed)
        return rp_fail(err, RP_ERR_INVALID, "%s: a differencing disk takes changes, and only that", target);
    if (rp_vhdx_create(fs, target, &new_disk, err))
        return -1;
    if (!fill_vhdx(fs, source, target, &new_disk.data_write_guid, progress, context, err))
        return 0;
    rp_fs_unlink(fs, target, NULL);
    return -1;
}

int rp_convert_raw_to_vhdx(struct rp_fs *fs, const char *source, const char *target,
                           const struct rp_vhdx_create *create,
                           rp_progress_fn *progress, void *context, struct rp_error *err)
{
    RP_CLEANUP(source_close) struct source from = {0};
    return open_raw(fs, source, create && create->logical_sector ? create->logical_sector : 512, &from, err) ||
                   to_vhdx(fs, &from, target, create, progress, context, err)
               ? -1
               : 0;
}

int rp_convert_vhdx_to_vhdx(struct rp_fs *fs, const char *source, const char *target, const struct rp_vhdx_create *create,
                            rp_progress_fn *progress, void *context, struct rp_error *err)
{
    RP_CLEANUP(source_close) struct source from = {0};
    return open_chain(fs, source, &from, err) || to_vhdx(fs, &from, target, create, progress, context, err) ? -1 : 0;
}

int rp_convert_vhdx_to_child(struct rp_fs *fs, const char *source, const char *target, const struct rp_vhdx_create *create,
                             const struct rp_ranges *changed, rp_progress_fn *progress, void *context,
                             struct rp_error *err)
{
    RP_CLEANUP(source_close) struct source from = {.changed = changed};
    if (open_chain(fs, source, &from, err))
        return -1;
    for (size_t i = 0; i < changed->count; i++)
        if (!rp_range_ok(changed->items[i].offset, changed->items[i].length, from.size))
            return rp_fail(err, RP_ERR_INVALID, "%s: a change outside of the disk", source);
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
    rp_ranges_intersect(&from.data, changed, &data);
    struct rp_ranges all = from.data;
    from.data = data;
    data = all;
    return to_vhdx(fs, &from, target, create, progress, context, err) ? -1 : 0;
}

int rp_convert_vhdx_to_raw(struct rp_fs *fs, const char *source, const char *target, rp_progress_fn *progress,
                           void *context, struct rp_error *err)
{
    RP_CLEANUP(source_close) struct source from = {0};
    if (open_chain(fs, source, &from, err))
        return -1;
    struct rp_store *raw = rp_fs_open(fs, target, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!raw)
        return -1;
    int failed = rp_store_truncate(raw, from.size, err) ||
                 run(&from, target, &(struct rp_copy_side){.raw = raw}, progress, context, err) || rp_store_flush(raw, err) ||
                 rp_fs_sync_parent(fs, target, err);
    rp_store_close(raw);
    if (failed)
        rp_fs_unlink(fs, target, NULL);
    return failed ? -1 : 0;
}
