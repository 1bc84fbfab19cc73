// The packs that the index knows, by number. Not thread safe: the index guards it.
#ifndef RP_REPO_PACK_TABLE_H
#define RP_REPO_PACK_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "repo/pack.h"

struct rp_pack_state {
    uint8_t id[RP_PACK_ID];
    uint64_t size;   // at the last look
    uint32_t indexed_size; // when it was written, or its index read
    uint32_t seen;   // the look at the repository that found it last
    bool present;    // it was there at the last look
    bool tombstoned;
    bool damaged;    // a check found it so: what it holds is stored again
    bool indexed;    // its entries are in a segment or in the table
    bool unreadable; // its index is
    bool passing;    // for a reason that says nothing about its bytes: it is tried again
    bool lost;       // or else the disk did not give it, which may pass, too: it is asked for again, and nobody waits for it
    bool discarded;  // its writer removed it: nothing relies on it
    bool doubtful;   // after the last look: see rp_index_doubts
    bool seen_tombstone, seen_damage; // by a look that is not over
};
struct rp_pack_table {
    struct rp_pack_state *items;
    uint32_t count, capacity;
    uint32_t *buckets; // number + 1, open addressing
    uint32_t bucket_count;
};
// The number of the pack, which is added (absent, not indexed) if it is new.
uint32_t rp_pack_table_number(struct rp_pack_table *table, const uint8_t id[RP_PACK_ID]);
// Its state, likewise; valid until the next call that may add one.
struct rp_pack_state *rp_pack_table_get(struct rp_pack_table *table, const uint8_t id[RP_PACK_ID]);
void rp_pack_table_clear(struct rp_pack_table *table);

#endif
