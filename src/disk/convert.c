// Conversion between raw files and VHDX, stretch by stretch. One thread: several writers of one file only wait for each
// other in the kernel, at the price of CPU time; reading ahead and writing back are the kernel's anyway.
#include "disk/convert.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/chain.h"

enum {
    // One stretch: read and written at once. Measured (make bench): still in the processor's cache when it is written, and
    // the kernel does not go looking for large pages of cold memory; 1 MiB takes twice the time on ext4.
    STEP = 128 << 10,
    GRAIN = 64 << 10,  // zeros are looked for in units of this
};

int rp_image_detect(struct rp_fs *fs, const char *path, enum rp_image_format *format, struct rp_error *err)
{
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, err);
    uint64_t size;
    char signature[8] = "";
    if (!store || rp_store_size(store, &size, err) || (size >= 8 && rp_store_pread(store, signature, 8, 0, err)))
        return -1;
    *format = memcmp(signature, "vhdxfile", 8) ? RP_IMAGE_RAW : RP_IMAGE_VHDX;
    return 0;
}

// One copy under way.
struct copy {
    int (*read)(struct copy *copy, void *data, uint32_t size, uint64_t offset, struct rp_error *err);
    int (*write)(struct copy *copy, const void *data, uint32_t size, uint64_t offset, struct rp_error *err);
    struct rp_store *raw;
    struct rp_vhdx *vhdx;
    uint64_t raw_size;
    rp_progress_fn *progress;
    void *context;
};

static bool all_zero(const uint8_t *data, size_t size)
{
    return !data[0] && !memcmp(data, data + 1, size - 1); // memcmp is vectorised, and ends at the first difference
}

// Writes what is not zeros, in runs as long as possible.
static int write_runs(struct copy *c, const uint8_t *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    for (uint32_t at = 0, start; at < size;) {
        for (start = at; at < size && !all_zero(data + at, (size_t)rp_min64(GRAIN, size - at));)
            at += (uint32_t)rp_min64(GRAIN, size - at);
        if (at > start && c->write(c, data + start, at - start, offset + start, err))
            return -1;
        while (at < size && all_zero(data + at, (size_t)rp_min64(GRAIN, size - at)))
            at += (uint32_t)rp_min64(GRAIN, size - at);
    }
    return 0;
}

static int run(struct copy *c, const struct rp_ranges *data, struct rp_error *err)
{
    RP_AUTO_FREE uint8_t *buffer = rp_xmalloc(STEP);
    uint64_t done = 0, total = rp_ranges_total(data);
    for (size_t i = 0; i < data->count; i++) {
        uint64_t end = data->items[i].offset + data->items[i].length;
        for (uint64_t offset = data->items[i].offset, stop; offset < end; offset = stop) {
            stop = rp_min64(rp_align_down(offset, STEP) + STEP, end);
            uint32_t size = (uint32_t)(stop - offset);
            if (c->read(c, buffer, size, offset, err) || write_runs(c, buffer, size, offset, err))
                return -1;
            done += size;
            if (c->progress && c->progress(c->context, done, total))
                return rp_fail(err, RP_ERR_CANCELLED, "the conversion was stopped");
        }
    }
    return 0;
}

// ---- raw to VHDX

static int read_raw(struct copy *c, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    uint32_t inside = (uint32_t)rp_min64(size, c->raw_size - offset); // the last sector may be cut
    memset((uint8_t *)data + inside, 0, size - inside);
    return rp_store_pread(c->raw, data, inside, offset, err);
}

static int write_vhdx(struct copy *c, const void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    return rp_vhdx_write(c->vhdx, data, size, offset, err);
}

// Where the raw file has data, in whole sectors.
static int raw_extents(struct rp_store *raw, uint64_t size, uint32_t sector, struct rp_ranges *out,
                       struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges exact = {0};
    if (rp_store_extents(raw, 0, size, &exact, err))
        return -1;
    for (size_t i = 0; i < exact.count; i++) {
        uint64_t start = rp_align_down(exact.items[i].offset, sector);
        rp_ranges_add(out, start, rp_align_up(exact.items[i].offset + exact.items[i].length, sector) - start);
    }
    return 0;
}

static int fill_vhdx(struct rp_fs *fs, struct copy *c, const char *target, struct rp_error *err)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
    c->vhdx = rp_vhdx_open(fs, target, RP_VHDX_WRITE, NULL, err);
    if (!c->vhdx)
        return -1;
    if (raw_extents(c->raw, c->raw_size, rp_vhdx_info(c->vhdx)->logical_sector, &data, err) || run(c, &data, err)) {
        rp_vhdx_abandon(c->vhdx);
        return -1;
    }
    return rp_vhdx_close(c->vhdx, err);
}

int rp_convert_raw_to_vhdx(struct rp_fs *fs, const char *source, const char *target,
                           const struct rp_vhdx_create *create,
                           rp_progress_fn *progress, void *context, struct rp_error *err)
{
    RP_CLEANUP(rp_store_close_p) struct rp_store *raw = rp_fs_open(fs, source, RP_OPEN_READ, err);
    struct copy c = {.read = read_raw, .write = write_vhdx, .raw = raw, .progress = progress, .context = context};
    if (!raw || rp_store_size(raw, &c.raw_size, err))
        return -1;
    struct rp_vhdx_create new_disk = create ? *create : (struct rp_vhdx_create){0};
    new_disk.size = rp_align_up(c.raw_size, new_disk.logical_sector ? new_disk.logical_sector : 512);
    if (new_disk.parent_path)
        return rp_fail(err, RP_ERR_INVALID, "%s: a conversion makes no differencing disk", target);
    if (rp_vhdx_create(fs, target, &new_disk, err))
        return -1;
    if (!fill_vhdx(fs, &c, target, err))
        return 0;
    rp_fs_unlink(fs, target, NULL);
    return -1;
}

// ---- VHDX to raw

static int read_vhdx(struct copy *c, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    return rp_vhdx_read(c->vhdx, data, size, offset, err);
}

static int write_raw(struct copy *c, const void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    return rp_store_pwrite(c->raw, data, size, offset, err);
}

static int collect_data(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    if (state == RP_VHDX_DATA)
        rp_ranges_add(context, offset, length);
    return 0;
}

int rp_convert_vhdx_to_raw(struct rp_fs *fs, const char *source, const char *target, rp_progress_fn *progress,
                           void *context, struct rp_error *err)
{
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges data = {0};
    if (rp_chain_open(fs, source, &chain, err))
        return -1;
    struct copy c = {.read = read_vhdx, .write = write_raw, .vhdx = chain.layers[0], .progress = progress,
                     .context = context};
    uint64_t size = rp_vhdx_info(c.vhdx)->size;
    if (rp_vhdx_chain_extents(c.vhdx, 0, size, collect_data, &data, err))
        return -1;
    c.raw = rp_fs_open(fs, target, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!c.raw)
        return -1;
    int failed = rp_store_truncate(c.raw, size, err) || run(&c, &data, err) || rp_store_flush(c.raw, err) ||
                 rp_fs_sync_parent(fs, target, err);
    rp_store_close(c.raw);
    if (failed)
        rp_fs_unlink(fs, target, NULL);
    return failed ? -1 : 0;
}
