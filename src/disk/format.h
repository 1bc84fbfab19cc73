// The structures of a VHDX file as pure functions on buffers: header, region table, metadata table ([MS-VHDX] 2.2,
// 2.6).
// Internal to src/disk.
#ifndef RP_DISK_FORMAT_H
#define RP_DISK_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/guid.h"

enum {
    RP_VHDX_PAGE = 4096,           // unit of the log, and of our metadata cache
    RP_VHDX_TABLE = 64 * 1024,     // a region table, a metadata table
    RP_VHDX_MAX_ENTRIES = 2047,    // of either table
    RP_VHDX_MAX_ITEM = 1024 * 1024 // a metadata item
};
#define RP_VHDX_ALIGN ((uint64_t)1 << 20)         // of every object in the file
#define RP_VHDX_HEADER_AREA RP_VHDX_ALIGN         // file id, headers and region tables
#define RP_VHDX_HEADER_OFFSET(slot) (((uint64_t)(slot) + 1) << 16)
#define RP_VHDX_REGIONS_OFFSET(slot) ((uint64_t)(192 + 64 * (slot)) << 10)
#define RP_VHDX_MAX_FILE ((uint64_t)1 << 47)      // 128 TiB: no file of a 64 TiB disk is larger

struct rp_vhdx_header {
    uint64_t sequence;
    struct rp_guid file_write_guid, data_write_guid, log_guid;
    uint16_t log_version, version;
    uint32_t log_length;
    uint64_t log_offset;
};
void rp_vhdx_header_encode(const struct rp_vhdx_header *header, uint8_t out[RP_VHDX_PAGE]);
// False when signature or checksum are wrong.
bool rp_vhdx_header_decode(const uint8_t in[RP_VHDX_PAGE], struct rp_vhdx_header *header);
// Which of two headers is current (0 or 1), -1 when neither is valid.
int rp_vhdx_header_choose(const uint8_t *first, const uint8_t *second, struct rp_vhdx_header *header);

struct rp_vhdx_region {
    struct rp_guid id;
    uint64_t offset;
    uint32_t length;
    bool required;
};
extern const struct rp_guid rp_vhdx_region_bat, rp_vhdx_region_metadata;
// Decodes RP_VHDX_TABLE bytes into `regions` (RP_VHDX_MAX_ENTRIES of them). Checks checksum, alignment, uniqueness.
int rp_vhdx_regions_decode(const uint8_t *table, struct rp_vhdx_region *regions, size_t *count, struct rp_error *err);
void rp_vhdx_regions_encode(const struct rp_vhdx_region *regions, size_t count, uint8_t *table);

struct rp_vhdx_item {
    struct rp_guid id;
    uint32_t offset; // from the start of the metadata region
    uint32_t length;
    uint32_t flags;
};
enum { RP_VHDX_ITEM_USER = 1, RP_VHDX_ITEM_VIRTUAL_DISK = 2, RP_VHDX_ITEM_REQUIRED = 4 };
extern const struct rp_guid rp_vhdx_item_file_parameters, rp_vhdx_item_size, rp_vhdx_item_disk_id,
    rp_vhdx_item_logical_sector, rp_vhdx_item_physical_sector, rp_vhdx_item_parent_locator;
// Decodes the RP_VHDX_TABLE bytes at the start of a metadata region of `region_length` bytes. Refuses required items
// that we do not know, items outside the region, and items that overlap.
int rp_vhdx_items_decode(const uint8_t *table, uint32_t region_length, struct rp_vhdx_item *items, size_t *count,
                         struct rp_error *err);
void rp_vhdx_items_encode(const struct rp_vhdx_item *items, size_t count, uint8_t *table);
struct rp_vhdx_item *rp_vhdx_items_find(struct rp_vhdx_item *items, size_t count, const struct rp_guid *id); // or NULL

// Entries of the block allocation table ([MS-VHDX] 2.5.1).
enum {
    RP_BLOCK_NOT_PRESENT = 0,
    RP_BLOCK_UNDEFINED = 1,
    RP_BLOCK_ZERO = 2,
    RP_BLOCK_UNMAPPED = 3,
    RP_BLOCK_FULL = 6,
    RP_BLOCK_PARTIAL = 7,
};
static inline unsigned rp_bat_state(uint64_t entry) { return entry & 7; }
static inline uint64_t rp_bat_offset(uint64_t entry) { return entry & ~(RP_VHDX_ALIGN - 1); }
static inline bool rp_bat_present(uint64_t entry) { return rp_bat_state(entry) >= RP_BLOCK_FULL; }
// Whether the offset is that of space in the file: an undefined or unmapped block may have kept its own. What other states
// have there means nothing, and can be anything.
static inline bool rp_bat_has_space(uint64_t entry)
{
    bool may_keep = rp_bat_state(entry) == RP_BLOCK_UNDEFINED || rp_bat_state(entry) == RP_BLOCK_UNMAPPED;
    return rp_bat_present(entry) || (may_keep && rp_bat_offset(entry));
}

// The arithmetic of the table, from block size, sector and disk size that were checked before.
struct rp_vhdx_layout {
    uint64_t size;
    uint32_t block_size, logical_sector;
    bool has_parent;
    uint64_t blocks;      // payload blocks
    uint64_t chunk_ratio; // payload blocks per sector bitmap block
    uint64_t chunks;
    uint64_t entries;     // of the table
};
void rp_vhdx_layout_init(struct rp_vhdx_layout *layout, uint64_t size, uint32_t block_size, uint32_t logical_sector,
                         bool has_parent);
static inline uint64_t rp_layout_block_entry(const struct rp_vhdx_layout *l, uint64_t block)
{
    return block + block / l->chunk_ratio;
}
static inline uint64_t rp_layout_bitmap_entry(const struct rp_vhdx_layout *l, uint64_t chunk)
{
    return chunk * (l->chunk_ratio + 1) + l->chunk_ratio;
}

#endif
