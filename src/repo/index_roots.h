// Which trees are known to be complete: every block of theirs was seen in a pack, and the index would know if one of
// those packs had disappeared. A mark is an empty file next to the segments;
// when the index forgets packs, all marks go.
#ifndef RP_REPO_INDEX_ROOTS_H
#define RP_REPO_INDEX_ROOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "repo/crypto.h"

bool rp_index_roots_has(const char *directory, const uint8_t root[RP_ID_BYTES]);
void rp_index_roots_add(const char *directory, const uint8_t root[RP_ID_BYTES]);    // failure costs time later, no more
void rp_index_roots_remove(const char *directory, const uint8_t root[RP_ID_BYTES]);
void rp_index_roots_forget(const char *directory); // all

#endif
