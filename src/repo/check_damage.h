// What a check has found so far: damages, and which blocks each of them takes away. Thread safe.
#ifndef RP_REPO_CHECK_DAMAGE_H
#define RP_REPO_CHECK_DAMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "repo/index.h"

#define RP_NO_DAMAGE UINT32_MAX

struct rp_damages;
struct rp_damages *rp_damages_new(void);
void rp_damages_free(struct rp_damages *damages); // NULL is fine
// A new finding. Returns its number; numbers count from 0.
uint32_t rp_damages_add(struct rp_damages *damages, const char *object, const char *text);
uint32_t rp_damages_count(struct rp_damages *damages);
// Borrowed; valid until rp_damages_free.
const char *rp_damages_object(struct rp_damages *damages, uint32_t number);
const char *rp_damages_text(struct rp_damages *damages, uint32_t number);

// The copy of a block in this pack is lost to that damage.
void rp_damages_block(struct rp_damages *damages, const uint8_t id[RP_ID_BYTES], uint32_t pack, uint32_t number);
// All copies in this pack are.
void rp_damages_pack(struct rp_damages *damages, uint32_t pack, uint32_t number);
// The damage that takes this copy away, or RP_NO_DAMAGE.
uint32_t rp_damages_of(struct rp_damages *damages, const uint8_t id[RP_ID_BYTES], uint32_t pack);
// The first damage found in this object (a pack's name), or RP_NO_DAMAGE.
uint32_t rp_damages_of_object(struct rp_damages *damages, const char *object);

#endif
