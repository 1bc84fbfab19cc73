// The bytes of the coarse bitmap, "<disk>.mrt": pure functions on buffers, no I/O. docs/formats/mrt.md describes them.
#ifndef RP_RCT_MRT_H
#define RP_RCT_MRT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/guid.h"

enum {
    RP_MRT_SECTOR_SIZE = 512, // written wholly or not at all
    RP_MRT_SLOT_STEP = 4096,  // the two headers: at 0 and here, written in turn
    RP_MRT_AREAS_AT = 8192,
    RP_MRT_REGION_SHIFT = 22, // 4 MiB
    RP_MRT_SECTOR_WORDS = 60,
    RP_MRT_SECTOR_REGIONS = RP_MRT_SECTOR_WORDS * 64, // 15 GiB of the disk
    RP_MRT_SECTORS_MAX = 4370,                        // 64 TiB
};

struct rp_mrt_header {
    uint64_t sequence;
    struct rp_guid name;     // of this bitmap; the tracking file says which one is its own
    uint64_t oldest, newest; // live generations: one or two
    uint64_t rct_sequence;   // retired ones rely on a tracking header not older than this
    uint32_t sectors;        // in each area
};

uint64_t rp_mrt_regions(uint64_t virtual_size);
uint32_t rp_mrt_sectors(uint64_t virtual_size);
uint64_t rp_mrt_file_size(uint32_t sectors);
// Where a sector of a generation lives: the areas are used in turn.
uint64_t rp_mrt_sector_at(uint32_t sectors, uint64_t generation, uint32_t index);

bool rp_mrt_has_signature(const void *head); // 8 bytes
void rp_mrt_header_encode(const struct rp_mrt_header *header, uint8_t out[RP_MRT_SECTOR_SIZE]);
// CORRUPT; UNSUPPORTED for a later version.
int rp_mrt_header_decode(const uint8_t data[RP_MRT_SECTOR_SIZE], struct rp_mrt_header *header, struct rp_error *err);

void rp_mrt_sector_encode(const struct rp_guid *name, uint64_t generation, uint32_t index,
                          const uint64_t words[RP_MRT_SECTOR_WORDS], uint8_t out[RP_MRT_SECTOR_SIZE]);
// What a sector says about a generation: one that was written for another is empty, a damaged one is full.
void rp_mrt_sector_decode(const uint8_t data[RP_MRT_SECTOR_SIZE], const struct rp_guid *name, uint64_t generation,
                          uint32_t index, uint64_t words[RP_MRT_SECTOR_WORDS]);

#endif
