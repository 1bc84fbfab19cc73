// The parts of a check. Each adds what it finds to `damages`.
#ifndef RP_REPO_CHECK_H
#define RP_REPO_CHECK_H

#include "repo/check_damage.h"
#include "repo/core.h"

struct rp_check {
    struct rp_repo *repo;
    struct rp_index *index; // made of what the packs say now, not of the cache
    struct rp_blocks *blocks;
    struct rp_damages *damages;
    int (*progress)(void *context, uint64_t done, uint64_t total);
    void *progress_context;
    uint64_t done, total; // for progress: bytes
};
// RP_ERR_CANCELLED when the caller wants to stop. Only on the thread that called rp_repo_check.
int rp_check_progress(struct rp_check *check, struct rp_error *err);

// Tells writers to store again what a damaged pack holds; or takes that back.
void rp_check_mark(struct rp_check *check, const uint8_t pack[RP_PACK_ID], bool damaged);
// Every pack: its header; and, with `read_data`, every frame and block.
int rp_check_packs(struct rp_check *check, bool read_data, struct rp_error *err);
// Every small object that is not a point: authentic and well formed.
int rp_check_objects(struct rp_check *check, struct rp_error *err);

// Walks a disk's tree. `hit` is called for each damage and range of bytes that it takes away.
typedef void rp_check_hit_fn(void *context, uint32_t damage, uint64_t offset, uint64_t length);
struct rp_check_walk; // remembers which subtrees are whole, so that what points share is walked once
struct rp_check_walk *rp_check_walk_new(struct rp_check *check);
void rp_check_walk_free(struct rp_check_walk *walk); // NULL is fine
int rp_check_walk_disk(struct rp_check_walk *walk, const struct rp_repo_root *root, rp_check_hit_fn *hit, void *context,
                       struct rp_error *err);

#endif
