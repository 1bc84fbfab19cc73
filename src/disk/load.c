// Reading what a file says about itself: region tables, metadata, parent locator. Everything goes through the metadata
// cache, so that a reader of a dirty file sees the replayed log.
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/num.h"
#include "disk/impl.h"

static int read_table(struct rp_vhdx *v, uint64_t offset, uint8_t *table, struct rp_error *err)
{
    return rp_cache_read(v, offset, table, RP_VHDX_TABLE, err);
}

static int load_regions(struct rp_vhdx *v, struct rp_error *err)
{
    RP_AUTO_FREE uint8_t *tables = rp_xcalloc(2, RP_VHDX_TABLE);
    v->regions = rp_xcalloc(RP_VHDX_MAX_ENTRIES, sizeof *v->regions);
    struct rp_error why[2] = {0};
    int good = -1;
    for (int copy = 0; copy < 2; copy++) {
        uint8_t *table = tables + copy * RP_VHDX_TABLE;
        if (read_table(v, RP_VHDX_REGIONS_OFFSET(copy), table, &why[copy]))
            continue;
        if (good < 0 && !rp_vhdx_regions_decode(table, v->regions, &v->region_count, &why[copy]))
            good = copy;
        if (why[copy].code == RP_ERR_UNSUPPORTED) // well formed: the other copy says the same
            break;
    }
    if (good >= 0) {
        v->repair_regions = memcmp(tables, tables + RP_VHDX_TABLE, RP_VHDX_TABLE) != 0;
        v->good_regions = good;
        return 0;
    }
    if (err && err->code == RP_OK)
        *err = why[0];
    return rp_context(err, "%s", v->path);
}

int rp_vhdx_repair_regions(struct rp_vhdx *v, struct rp_error *err)
{
    if (!v->repair_regions)
        return 0;
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(RP_VHDX_TABLE);
    v->repair_regions = false;
    return rp_cache_read(v, RP_VHDX_REGIONS_OFFSET(v->good_regions), table, RP_VHDX_TABLE, err) ||
                   rp_cache_write(v, RP_VHDX_REGIONS_OFFSET(!v->good_regions), table, RP_VHDX_TABLE, err)
               ? -1
               : 0;
}

static int place_regions(struct rp_vhdx *v, struct rp_error *err)
{
    uint64_t file_end = rp_max64(v->file_size, v->overlay.file_size);
    uint64_t log = v->header.log_offset, log_end = log + v->header.log_length;
    for (size_t i = 0; i < v->region_count; i++) {
        struct rp_vhdx_region *r = &v->regions[i];
        if (r->offset < log_end && log < r->offset + r->length)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: a region lies on the log", v->path);
        if (rp_guid_equal(&r->id, &rp_vhdx_region_bat)) {
            atomic_store(&v->table.offset, r->offset);
            v->bat_length = r->length;
        } else if (rp_guid_equal(&r->id, &rp_vhdx_region_metadata)) {
            v->metadata_offset = r->offset;
            v->metadata_length = r->length;
        } else {
            continue;
        }
        if (!rp_range_ok(r->offset, r->length, file_end))
            return rp_fail(err, RP_ERR_CORRUPT, "%s: the file ends inside a region", v->path);
    }
    if (!v->bat_length || v->metadata_length < 2 * RP_VHDX_TABLE)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: no block table or no metadata", v->path);
    return 0;
}

static int read_item(struct rp_vhdx *v, struct rp_vhdx_item *items, size_t count, const struct rp_guid *id, void *data,
                     size_t size, const char *name, struct rp_error *err)
{
    struct rp_vhdx_item *item = rp_vhdx_items_find(items, count, id);
    if (!item || item->length < size)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: metadata: no %s", v->path, name);
    return rp_cache_read(v, v->metadata_offset + item->offset, data, size, err);
}

static int check_parameters(struct rp_vhdx *v, struct rp_error *err)
{
    struct rp_vhdx_info *info = &v->info;
    bool sectors = (info->logical_sector == 512 || info->logical_sector == 4096) &&
                   (info->physical_sector == 512 || info->physical_sector == 4096);
    bool block = rp_is_pow2(info->block_size) && info->block_size >= RP_MIB && info->block_size <= 256 * RP_MIB;
    if (!sectors || !block)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: sectors of %u and %u bytes, blocks of %u", v->path,
                       info->logical_sector,
                       info->physical_sector, info->block_size);
    if (!info->size || info->size > RP_VHDX_MAX_SIZE || !rp_is_aligned(info->size, info->logical_sector))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: a disk of %llu bytes", v->path, (unsigned long long)info->size);
    rp_vhdx_layout_init(&v->layout, info->size, info->block_size, info->logical_sector, info->has_parent);
    atomic_store(&v->size, info->size);
    if (v->layout.entries > v->bat_length / 8)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the block table has %u bytes, %llu entries are needed", v->path,
                       v->bat_length, (unsigned long long)v->layout.entries);
    return 0;
}

int rp_vhdx_load_locator(struct rp_vhdx *v, const struct rp_vhdx_item *item, struct rp_error *err)
{
    RP_AUTO_FREE uint8_t *bytes = rp_xmalloc(item->length ? item->length : 1);
    struct rp_locator locator = {0};
    struct rp_guid linkage, linkage2;
    char *path = NULL;
    int failed = rp_cache_read(v, v->metadata_offset + item->offset, bytes, item->length, err) ||
                 rp_locator_decode(bytes, item->length, &locator, err) ||
                 rp_locator_get_guid(&locator, "parent_linkage", &linkage, err) ||
                 rp_locator_get_guid(&locator, "parent_linkage2", &linkage2, err) ||
                 !(path = rp_locator_resolve(&locator, v->fs, v->path, err));
    if (failed) {
        rp_locator_clear(&locator);
        return rp_context(err, "%s", v->path);
    }
    rp_locator_clear(&v->locator);
    free(v->info.parent_path);
    v->locator = locator;
    v->info.parent_path = path;
    v->info.parent_linkage = linkage;
    v->info.parent_linkage2 = linkage2;
    return 0;
}

static int load_metadata(struct rp_vhdx *v, struct rp_error *err)
{
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(RP_VHDX_TABLE);
    RP_AUTO_FREE struct rp_vhdx_item *items = rp_xcalloc(RP_VHDX_MAX_ENTRIES, sizeof *items);
    size_t n;
    if (read_table(v, v->metadata_offset, table, err) || rp_vhdx_items_decode(table, v->metadata_length, items, &n,
                                                                              err))
        return rp_context(err, "%s", v->path);
    uint8_t parameters[8], size[8], logical[4], physical[4];
    if (read_item(v, items, n, &rp_vhdx_item_file_parameters, parameters, 8, "file parameters", err) ||
        read_item(v, items, n, &rp_vhdx_item_size, size, 8, "disk size", err) ||
        read_item(v, items, n, &rp_vhdx_item_disk_id, v->info.disk_id.bytes, 16, "disk id", err) ||
        read_item(v, items, n, &rp_vhdx_item_logical_sector, logical, 4, "logical sector size", err) ||
        read_item(v, items, n, &rp_vhdx_item_physical_sector, physical, 4, "physical sector size", err))
        return -1;
    v->info.block_size = rp_get_le32(parameters);
    v->info.fixed = parameters[4] & 1;
    v->info.has_parent = parameters[4] >> 1 & 1;
    v->info.size = rp_get_le64(size);
    v->info.logical_sector = rp_get_le32(logical);
    v->info.physical_sector = rp_get_le32(physical);
    if (check_parameters(v, err))
        return -1;
    if (!v->info.has_parent)
        return 0;
    struct rp_vhdx_item *locator = rp_vhdx_items_find(items, n, &rp_vhdx_item_parent_locator);
    if (!locator)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: metadata: no parent locator", v->path);
    return rp_vhdx_load_locator(v, locator, err);
}

int rp_vhdx_load(struct rp_vhdx *v, struct rp_error *err)
{
    if (load_regions(v, err) || place_regions(v, err) || load_metadata(v, err))
        return -1;
    atomic_store(&v->file_end, rp_max64(v->file_size, v->overlay.file_size));
    return rp_table_init(v, err);
}
