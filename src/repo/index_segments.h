// The segments of one index: loaded together, searched one after the other, merged so that they stay few.
#ifndef RP_REPO_INDEX_SEGMENTS_H
#define RP_REPO_INDEX_SEGMENTS_H

#include "repo/pack_table.h"
#include "repo/segment.h"

struct rp_index_segment {
    struct rp_segment *segment;
    uint32_t *numbers; // segment-local pack number to index-wide number
};
struct rp_index_segments {
    char *directory;
    struct rp_guid repository;
    struct rp_index_segment *items;
    uint32_t count;
};
// Opens what is in the directory (made when missing). What cannot be used, or repeats other segments, is deleted.
int rp_index_segments_load(struct rp_index_segments *set, const char *directory, const struct rp_guid *repository,
                           struct rp_pack_table *packs, struct rp_error *err);
void rp_index_segments_clear(struct rp_index_segments *set);
// Deletes all files and forgets them.
void rp_index_segments_drop(struct rp_index_segments *set);
// Deletes the segments that hold nothing but discarded packs.
void rp_index_segments_discard(struct rp_index_segments *set, struct rp_pack_table *packs);
unsigned rp_index_segments_find(const struct rp_index_segments *set, const uint8_t *id, struct rp_location *out,
                                unsigned max, bool *damaged);
uint64_t rp_index_segments_entries(const struct rp_index_segments *set);
// Writes entries (index-wide pack numbers; sorted here, in place) as a new segment.
int rp_index_segments_add(struct rp_index_segments *set, const struct rp_pack_table *packs, struct rp_entry *entries,
                          size_t count, struct rp_error *err);

// Two segments to be merged, or false when there are few enough. The numbers are positions in `items`.
bool rp_index_segments_candidates(const struct rp_index_segments *set, uint32_t *a, uint32_t *b);
// Merges two segments into a new file, without entries of packs whose flag in `gone` is set. Needs no lock: segments do
// not change. Sets *damaged, and fails, when a page is damaged.
int rp_index_segments_merge(const char *directory, const struct rp_guid *repository, struct rp_segment *a,
                            struct rp_segment *b, const bool *gone_a, const bool *gone_b, struct rp_segment **merged,
                            bool *damaged, struct rp_error *err);
// Puts the merged segment in the place of the two, whose files are deleted. Packs that no segment has any more are not indexed.
void rp_index_segments_replace(struct rp_index_segments *set, struct rp_pack_table *packs, uint32_t a, uint32_t b,
                               struct rp_segment *merged);

#endif
