// Index segments: sorted, immutable files in the cache directory that say in which pack a block is. Mapped, so that
// they cost page cache and little memory of ours; what has not been read yet is read first, so that a disk that cannot give it
// is damage, and no signal. A cache, not part of the repository: whatever is wrong with one, it is
// dropped and made again from the packs.
//
//   page 0          magic, version, repository id, counts, checksum
//   pack table      20 bytes per pack, its id and its size (u32), padded to a page; its checksum is in page 0
//   entry pages     127 entries of 32 bytes, sorted by id prefix; the last 4 bytes are the page's CRC-32C
#ifndef RP_REPO_SEGMENT_H
#define RP_REPO_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/guid.h"
#include "repo/pack.h"

// 128 bits of a keyed hash: enough to tell blocks apart. What is read is compared with the whole id.
#define RP_PREFIX_BYTES 16

// Where a block is. `pack` is a number whose meaning the holder defines (segment-local in files, index-wide in memory).
struct rp_location {
    uint32_t pack;
    uint32_t offset; // of the frame
    uint32_t stored : 24, level : 4, compression : 4;
    uint16_t frame;  // number in the pack
    uint8_t slot;    // of the block in the frame
    uint8_t last;    // slot of the frame's last block
};
struct rp_entry {
    uint8_t prefix[RP_PREFIX_BYTES];
    struct rp_location at;
};
// By prefix, then pack, then frame: for qsort.
int rp_entry_compare(const void *a, const void *b);

struct rp_segment_pack {
    uint8_t id[RP_PACK_ID];
    uint32_t size; // that it had when its index was read
};
struct rp_segment;
// Only the header and the pack table are read and verified; each entry page when it is first used.
struct rp_segment *rp_segment_open(const char *path, const struct rp_guid *repository, struct rp_error *err);
void rp_segment_close(struct rp_segment *segment); // NULL is fine
const char *rp_segment_path(const struct rp_segment *segment);
uint32_t rp_segment_pack_count(const struct rp_segment *segment);
const struct rp_segment_pack *rp_segment_pack(const struct rp_segment *segment, uint32_t number);
uint64_t rp_segment_count(const struct rp_segment *segment);
// False when the page of entry `i` is damaged.
bool rp_segment_get(const struct rp_segment *segment, uint64_t i, struct rp_entry *entry);
// The locations of an id, at most `max`. A damaged page counts as not found, and sets *damaged.
unsigned rp_segment_find(const struct rp_segment *segment, const uint8_t *id, struct rp_location *out, unsigned max,
                         bool *damaged);

// Writes a segment under a temporary name and renames it: it is there whole or not at all. Not synced: it is a cache,
// and its checksums find what a power cut left of it.
struct rp_segment_writer;
struct rp_segment_writer *rp_segment_writer_new(const char *path, const struct rp_guid *repository,
                                                const struct rp_segment_pack *packs, uint32_t pack_count,
                                                struct rp_error *err);
// In ascending order.
int rp_segment_writer_add(struct rp_segment_writer *writer, const struct rp_entry *entry, struct rp_error *err);
int rp_segment_writer_finish(struct rp_segment_writer *writer, struct rp_error *err); // frees
void rp_segment_writer_abandon(struct rp_segment_writer *writer);                     // NULL is fine; frees

#endif
