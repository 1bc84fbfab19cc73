// New VHDX files.
#include <string.h>

#include "base/bytes.h"
#include "base/num.h"
#include "base/utf16.h"
#include "disk/impl.h"

// Where a new file has what. The log is larger than Microsoft's 1 MiB: how many metadata pages may wait in memory for
// one log entry depends on it, and with it how seldom random writes to new blocks need a sync.
#define LOG_OFFSET RP_VHDX_HEADER_AREA
#define LOG_LENGTH (8 * RP_MIB)
#define METADATA_OFFSET (LOG_OFFSET + LOG_LENGTH)
#define METADATA_LENGTH RP_MIB
#define BAT_OFFSET (METADATA_OFFSET + METADATA_LENGTH)
// Inside the metadata region. The locator comes last and has the rest: it can grow in place.
enum { ITEMS_OFFSET = RP_VHDX_TABLE, LOCATOR_OFFSET = RP_VHDX_TABLE + RP_VHDX_PAGE };

static int check(const struct rp_vhdx_create *c, struct rp_error *err)
{
    if (!c->size || c->size > RP_VHDX_MAX_SIZE || !rp_is_aligned(c->size, c->logical_sector))
        return rp_fail(err, RP_ERR_INVALID, "disk size %llu: must be 1 sector to 64 TiB in whole sectors",
                       (unsigned long long)c->size);
    if (!rp_is_pow2(c->block_size) || c->block_size < RP_MIB || c->block_size > 256 * RP_MIB)
        return rp_fail(err, RP_ERR_INVALID, "block size %u: must be a power of two from 1 to 256 MiB", c->block_size);
    if ((c->logical_sector != 512 && c->logical_sector != 4096) ||
        (c->physical_sector != 512 && c->physical_sector != 4096))
        return rp_fail(err, RP_ERR_INVALID, "sector sizes %u and %u: must be 512 or 4096", c->logical_sector,
                       c->physical_sector);
    if (c->parent_path && rp_guid_is_zero(&c->parent_data_write_guid))
        return rp_fail(err, RP_ERR_INVALID, "a differencing disk needs its parent's DataWriteGuid");
    if (c->parent_path && rp_guid_is_zero(&c->disk_id))
        return rp_fail(err, RP_ERR_INVALID, "a differencing disk has its parent's disk id, none was given");
    return 0;
}

static int make_locator(const struct rp_vhdx_create *c, const char *path, struct rp_buf *out, struct rp_error *err)
{
    RP_CLEANUP(rp_locator_clear) struct rp_locator locator = {0};
    rp_locator_set_guid(&locator, "parent_linkage", &c->parent_data_write_guid);
    return rp_locator_set_paths(&locator, path, c->parent_path, err) || rp_locator_encode(&locator, out, err) ? -1 : 0;
}

static int write_metadata(struct rp_store *store, const struct rp_vhdx_create *c, const char *path,
                          struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf locator = {0};
    if (c->parent_path && make_locator(c, path, &locator, err))
        return -1;
    uint8_t values[40];
    rp_put_le32(values, c->block_size);
    rp_put_le32(values + 4, c->parent_path ? 2 : 0);
    rp_put_le64(values + 8, c->size);
    memcpy(values + 16, c->disk_id.bytes, 16);
    rp_put_le32(values + 32, c->logical_sector);
    rp_put_le32(values + 36, c->physical_sector);
    const uint32_t disk = RP_VHDX_ITEM_VIRTUAL_DISK | RP_VHDX_ITEM_REQUIRED;
    const struct rp_vhdx_item items[] = {
        {rp_vhdx_item_file_parameters, ITEMS_OFFSET, 8, RP_VHDX_ITEM_REQUIRED},
        {rp_vhdx_item_size, ITEMS_OFFSET + 8, 8, disk},
        {rp_vhdx_item_disk_id, ITEMS_OFFSET + 16, 16, disk},
        {rp_vhdx_item_logical_sector, ITEMS_OFFSET + 32, 4, disk},
        {rp_vhdx_item_physical_sector, ITEMS_OFFSET + 36, 4, disk},
        {rp_vhdx_item_parent_locator, LOCATOR_OFFSET, (uint32_t)locator.size, RP_VHDX_ITEM_REQUIRED},
    };
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(RP_VHDX_TABLE);
    rp_vhdx_items_encode(items, c->parent_path ? 6 : 5, table);
    if (rp_store_pwrite(store, table, RP_VHDX_TABLE, METADATA_OFFSET, err) ||
        rp_store_pwrite(store, values, sizeof values, METADATA_OFFSET + ITEMS_OFFSET, err))
        return -1;
    return locator.size ? rp_store_pwrite(store, locator.data, locator.size, METADATA_OFFSET + LOCATOR_OFFSET, err) : 0;
}

static int write_regions(struct rp_store *store, uint32_t bat_length, struct rp_error *err)
{
    const struct rp_vhdx_region regions[] = {
        {rp_vhdx_region_bat, BAT_OFFSET, bat_length, true},
        {rp_vhdx_region_metadata, METADATA_OFFSET, METADATA_LENGTH, true},
    };
    RP_AUTO_FREE uint8_t *table = rp_xmalloc(RP_VHDX_TABLE);
    rp_vhdx_regions_encode(regions, 2, table);
    return rp_store_pwrite(store, table, RP_VHDX_TABLE, RP_VHDX_REGIONS_OFFSET(0), err) ||
                   rp_store_pwrite(store, table, RP_VHDX_TABLE, RP_VHDX_REGIONS_OFFSET(1), err)
               ? -1
               : 0;
}

static int write_head(struct rp_store *store, const struct rp_vhdx_create *c, struct rp_error *err)
{
    struct rp_vhdx_header header = {
        .sequence = 1,
        .file_write_guid = rp_guid_new(),
        .data_write_guid = rp_guid_is_zero(&c->data_write_guid) ? rp_guid_new() : c->data_write_guid,
        .version = 1,
        .log_length = LOG_LENGTH,
        .log_offset = LOG_OFFSET,
    };
    uint8_t page[RP_VHDX_PAGE];
    for (int slot = 0; slot < 2; slot++, header.sequence++) {
        rp_vhdx_header_encode(&header, page);
        if (rp_store_pwrite(store, page, sizeof page, RP_VHDX_HEADER_OFFSET(slot), err))
            return -1;
    }
    RP_CLEANUP(rp_buf_clear) struct rp_buf id = {0};
    rp_buf_append(&id, "vhdxfile", 8);
    if (rp_utf16_append(&id, "refpoint " RP_VERSION, err))
        return -1;
    return rp_store_pwrite(store, id.data, id.size, 0, err);
}

static int fill(struct rp_store *store, const struct rp_vhdx_create *c, const char *path, struct rp_error *err)
{
    struct rp_vhdx_layout layout;
    rp_vhdx_layout_init(&layout, c->size, c->block_size, c->logical_sector, c->parent_path);
    uint32_t bat_length = (uint32_t)rp_align_up(layout.entries * 8, RP_VHDX_ALIGN);
    // The signature comes last: a file that a power cut left unfinished is not taken for a disk.
    return rp_store_truncate(store, BAT_OFFSET + bat_length, err) || write_metadata(store, c, path, err) ||
                   write_regions(store, bat_length, err) || rp_store_flush(store, err) || write_head(store, c, err) ||
                   rp_store_settle(store, err)
               ? -1
               : 0;
}

int rp_vhdx_create(struct rp_fs *fs, const char *path, const struct rp_vhdx_create *create, struct rp_error *err)
{
    struct rp_vhdx_create c = *create;
    c.block_size = c.block_size ? c.block_size : 2 * (uint32_t)RP_MIB;
    c.logical_sector = c.logical_sector ? c.logical_sector : 512;
    c.physical_sector = c.physical_sector ? c.physical_sector : 4096;
    if (rp_guid_is_zero(&c.disk_id) && !c.parent_path)
        c.disk_id = rp_guid_new();
    if (check(&c, err))
        return rp_context(err, "%s", path);
    struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!store)
        return -1;
    int failed = fill(store, &c, path, err) || rp_fs_sync_parent(fs, path, err);
    rp_store_close(store);
    if (failed)
        rp_fs_unlink(fs, path, NULL);
    return failed ? -1 : 0;
}
