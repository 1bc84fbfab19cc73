// The tracking file's bytes: pure functions on buffers, no I/O. docs/formats/rct.md describes them.
#ifndef RP_RCT_FILE_H
#define RP_RCT_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "rct/rct.h"

enum {
    RP_RCT_SLOT_SIZE = 256 << 10, // two slots, written in turn
    RP_RCT_HEAD_SIZE = 4096,
    RP_RCT_LINEAGE_AT = 4096, // in the slot
    RP_RCT_LINEAGE_MAX = 1024,
    RP_RCT_SPAN_SIZE = 24,
    RP_RCT_BITMAP_AT = 32 << 10, // in the slot
    RP_RCT_PAGES_AT = 512 << 10,
    RP_RCT_PAGE_SIZE = 4096,
    RP_RCT_SECTOR_SIZE = 512, // written wholly or not at all
    RP_RCT_SECTOR_UNITS = 126,
    RP_RCT_PAGE_SECTORS = RP_RCT_PAGE_SIZE / RP_RCT_SECTOR_SIZE,
    RP_RCT_PAGE_UNITS = RP_RCT_PAGE_SECTORS * RP_RCT_SECTOR_UNITS,
    RP_RCT_FLOORS_MAX = 64,
    RP_RCT_UNIT_MIN = 64 << 10,
    RP_RCT_UNIT_MAX = 16 << 20,
    RP_RCT_PAGES_MAX = 1065221, // 64 TiB in units of 64 KiB: a disk that grew keeps its unit
};
#define RP_RCT_EPOCH_LIMIT 0xFFFF0000u // tracking starts anew before epochs run out

// The epochs sealed under an earlier tracking GUID.
struct rp_rct_span {
    struct rp_guid tracking;
    uint32_t first, last;
};

// "Every unit from `unit` on changed in `epoch` or later": growth, and ends that lost the exact answer.
struct rp_rct_floor {
    uint64_t unit;
    uint32_t epoch;
};

// What the array in the file may miss, as long as the file is not clean.
enum rp_rct_doubt {
    RP_RCT_DOUBT_NONE,    // nothing: the array is complete
    RP_RCT_DOUBT_REGIONS, // changes in the regions that are set in the .mrt named `coarse`
    RP_RCT_DOUBT_ALL,     // any change
};

struct rp_rct_header {
    uint64_t sequence;
    uint64_t virtual_size;
    uint32_t unit_size;
    struct rp_guid disk_id;
    bool clean;   // the array is complete and the disk is as `bound` says
    enum rp_rct_doubt doubt; // NONE when clean
    bool changed; // something changed in the current epoch
    struct rp_guid tracking;
    uint32_t first, epoch; // sealed under `tracking`: first .. epoch-1
    struct rp_guid stem;    // the last session that may have changed the content of this file
    // What `stem` of the parent file may be, if nobody changed it since this child was made; [2] and [3] are what the last
    // two merges of this file, perhaps unfinished, have made of it.
    struct rp_guid base[4];
    // Not zero: a child with this tracking GUID is being merged into the disk file. What has arrived of it nobody knows, but
    // all of it lies beneath that child's own content: the array is right under that child, and under nobody else.
    struct rp_guid merging;
    struct rp_guid coarse; // names the .mrt of the session
    struct rp_rct_disk bound;       // device, virtual_size and disk_id are not stored in it
    struct rp_vhdx_session session; // while not clean: what the disk's GUIDs may have become
    size_t floor_count;             // ascending in both fields
    struct rp_rct_floor floors[RP_RCT_FLOORS_MAX];
    size_t lineage_count; // oldest first
    struct rp_rct_span lineage[RP_RCT_LINEAGE_MAX];
};

// Pages of the array, and bytes of the bitmap that tells which of them exist.
uint64_t rp_rct_page_count(uint64_t virtual_size, uint32_t unit_size);
size_t rp_rct_bitmap_size(uint64_t virtual_size, uint32_t unit_size);

// There must be room for one more.
void rp_rct_floors_add(struct rp_rct_header *header, uint64_t unit, uint32_t epoch);
void rp_rct_lineage_add(struct rp_rct_header *header, const struct rp_rct_span *span);
// The id was sealed under the header's GUID or one of its lineage.
bool rp_rct_knows(const struct rp_rct_header *header, const struct rp_rct_id *id);

bool rp_rct_has_signature(const void *head); // 8 bytes
void rp_rct_head_encode(const struct rp_rct_header *header, const void *bitmap, uint8_t head[RP_RCT_HEAD_SIZE],
                        struct rp_buf *lineage);
// What the head says about the two areas behind it.
struct rp_rct_areas {
    size_t lineage_size, bitmap_size;
    uint32_t lineage_crc, bitmap_crc;
};
// CORRUPT; UNSUPPORTED for a later version. The lineage stays empty until decoded.
int rp_rct_head_decode(const uint8_t head[RP_RCT_HEAD_SIZE], struct rp_rct_header *header, struct rp_rct_areas *areas,
                       struct rp_error *err);
int rp_rct_lineage_decode(const void *data, const struct rp_rct_areas *areas, struct rp_rct_header *header,
                          struct rp_error *err);

void rp_rct_page_encode(uint64_t index, const uint32_t since[RP_RCT_PAGE_UNITS], uint8_t page[RP_RCT_PAGE_SIZE]);
// The units of sectors that are damaged get UINT32_MAX. -1: there are some.
int rp_rct_page_decode(const uint8_t page[RP_RCT_PAGE_SIZE], uint64_t index, uint32_t since[RP_RCT_PAGE_UNITS]);

#endif
