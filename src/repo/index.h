// The index: which pack holds a block. Segments in the cache directory, and a small table of what this process wrote.
// Thread safe. Memory stays small whatever the size of the repository: 48 bytes a pack, and a bounded table.
#ifndef RP_REPO_INDEX_H
#define RP_REPO_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/guid.h"
#include "repo/backend.h"
#include "repo/crypto.h"
#include "repo/pack.h"
#include "repo/segment.h"

#define RP_INDEX_MAX_COPIES 8

struct rp_index;

// Told about a pack whose index cannot be read; it counts as absent.
typedef void rp_index_bad_pack_fn(void *context, const char *name, const struct rp_error *why);

struct rp_index_setup {
    struct rp_backend *backend;
    const struct rp_crypto *crypto;
    struct rp_guid repository;
    const char *directory; // for the segments; made when missing
    rp_index_bad_pack_fn *bad_pack; // NULL: a warning in the log
    void *context;
};
struct rp_index *rp_index_open(const struct rp_index_setup *setup, struct rp_error *err);
void rp_index_close(struct rp_index *index); // NULL is fine; writes what is only in memory to a segment

void rp_index_discard(struct rp_index *index); // NULL is fine; closes it and deletes its segments

// Looks at the packs, tombstones and marks of damage that are there now: new packs are read in, missing ones forgotten. Those
// that could not be read the last time, unless their bytes came and are wrong, are tried again. A failure is none
// that rp_damage_is: that the repository cannot be listed says nothing about any block.
int rp_index_refresh(struct rp_index *index, struct rp_error *err);
// Is everything known that the packs hold? RP_ERR_IO: some could not be read for a reason that says nothing about their bytes,
// or the cache was just found damaged. Then a block that is not found may be there all the same, and another look may find it.
int rp_index_knows_all(struct rp_index *index, struct rp_error *err);
// Did the disk give all at the last look? RP_ERR_IO that rp_damage_is: not the index of a pack, or a folder of packs. Who takes
// a block for lost that is not found asks again after a while (rp_damage_stays): a disk that is being reset says so, too.
int rp_index_was_given_all(struct rp_index *index, struct rp_error *err);

// How often a look found a pack that had disappeared or changed its size, cannot be read or was found damaged: reasons to doubt that
// every block that old trees name is there. It only grows, also when a pack comes back: while it is what it was, none
// was lost.
uint32_t rp_index_doubts(struct rp_index *index);
// Is this tree known to be complete? Only while there is no such pack, nor one that is to be deleted: nothing new is built on
// what only that one holds. (One that gets its tombstone later waits for our session, and is no reason to doubt.)
bool rp_index_is_complete(struct rp_index *index, const uint8_t root[RP_ID_BYTES]);
// True only after rp_index_spill: a pack that is only in memory would not be missed by the next process.
void rp_index_set_complete(struct rp_index *index, const uint8_t root[RP_ID_BYTES], bool complete);

// "damaged/<pack id>": a check found this pack damaged.
#define RP_DAMAGED_PREFIX "damaged/"

enum rp_index_use {
    RP_INDEX_READ,  // any pack that is there
    RP_INDEX_SOUND, // not one that a check found damaged, or that has another size than when its index was read
    RP_INDEX_WRITE, // neither such a one nor a tombstoned one: the block must be stored again
    RP_INDEX_GONE,  // only packs that are not there any more (to name what is missing)
};
// The places of a block (at most RP_INDEX_MAX_COPIES), `pack` being an index-wide number.
unsigned rp_index_find(struct rp_index *index, const uint8_t id[RP_ID_BYTES], enum rp_index_use use,
                       struct rp_location out[RP_INDEX_MAX_COPIES]);

// Adds a pack that was just written and is durable. Returns its number.
uint32_t rp_index_add_pack(struct rp_index *index, const uint8_t id[RP_PACK_ID], uint64_t size,
                           const struct rp_pack_index *content);
// Writes what is only in memory to a segment, so that the next open need not read the packs again. False when that
// failed, which costs time later and no more.
bool rp_index_spill(struct rp_index *index);

// Forgets a pack that its writer removed before anybody could rely on it: no reason to doubt anything.
// rp_index_tidy when all are.
void rp_index_forget_pack(struct rp_index *index, const uint8_t id[RP_PACK_ID]);
void rp_index_tidy(struct rp_index *index);

struct rp_index_pack {
    uint8_t id[RP_PACK_ID];
    uint64_t size;         // at the last look
    uint64_t indexed_size; // when it was written, or its index read
    bool present, tombstoned, damaged;
    bool unreadable; // its index is, for whatever reason: rp_index_bad_pack_fn was told
};
uint32_t rp_index_pack_count(struct rp_index *index); // numbers are below this; some packs may be gone
void rp_index_pack(struct rp_index *index, uint32_t number, struct rp_index_pack *out);
// Entries in all packs: blocks, nodes and duplicates.
uint64_t rp_index_entries(struct rp_index *index);

// Reads and authenticates one pack's index with its footer. `*size`: of the pack; 0, as a listing says of one that could not be
// looked at: it is asked for, and set.
int rp_index_read_pack(struct rp_backend *backend, const struct rp_crypto *crypto, const uint8_t id[RP_PACK_ID],
                       uint64_t *size, struct rp_pack_index *out, struct rp_error *err);

#endif
