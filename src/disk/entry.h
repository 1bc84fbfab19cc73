// One log entry ([MS-VHDX] 2.3.1) as pure functions on buffers. Internal to src/disk.
#ifndef RP_DISK_ENTRY_H
#define RP_DISK_ENTRY_H

#include "base/guid.h"
#include "disk/format.h"

struct rp_entry {
    uint32_t length; // bytes, whole sectors
    uint32_t tail;   // from the start of the log
    uint64_t sequence;
    uint32_t descriptors;
    struct rp_guid log_guid;
    uint64_t flushed_size, last_size; // of the file
};

struct rp_entry_step { // what one descriptor asks for
    uint64_t offset, length;     // in the file; length 4096 for data
    bool zero;
    uint8_t bytes[RP_VHDX_PAGE]; // when not zero
};

// Sectors that hold the header and this many descriptors, and the whole entry with this many pages of data.
uint32_t rp_entry_descriptor_sectors(uint32_t descriptors);
uint32_t rp_entry_sectors(uint32_t pages);
// The largest number of pages whose entry has at most `sectors` sectors.
uint32_t rp_entry_capacity(uint32_t sectors);

// Encodes an entry of data pages (entry->descriptors of them); `out` has entry->length bytes.
void rp_entry_encode(const struct rp_entry *entry, const uint64_t *offsets, const uint8_t *pages, uint8_t *out);

// Decodes the header sector alone; false when it cannot be one of an entry of this log.
bool rp_entry_decode(const uint8_t sector[RP_VHDX_PAGE], const struct rp_guid *log_guid, uint32_t log_length,
                     struct rp_entry *entry);
// Checks every signature and sequence number of an entry whose bytes lie together; cheap, no checksum.
bool rp_entry_check(const struct rp_entry *entry, const uint8_t *bytes);
bool rp_entry_checksum(const struct rp_entry *entry, const uint8_t *bytes);
// The step of descriptor `index`; `data_index` counts the data sectors used so far, start at 0.
void rp_entry_step(const uint8_t *bytes, const struct rp_entry *entry, uint32_t index, uint32_t *data_index,
                   struct rp_entry_step *step);

#endif
