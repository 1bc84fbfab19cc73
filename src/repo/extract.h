// All the data of a disk, in the order of the packs: each pack is read in large pieces, each frame decoded once,
// however its blocks lie on the disk. Holes are not mentioned.
// For a restore; rp_repo_read is for whoever wants a certain place.
#ifndef RP_REPO_EXTRACT_H
#define RP_REPO_EXTRACT_H

#include "repo/repo.h"

struct rp_extract;
struct rp_extract_job;

// Hears where data will come before any of it does: stretches of the disk, ascending, as long as they get.
typedef int rp_extract_room_fn(void *context, uint64_t offset, uint64_t length, struct rp_error *err);

// What is damaged, in all its copies, fails; unless `lost` is given: then it is left out, and its ranges are there when all
// jobs are done (to be normalized). `room` may be NULL. It is called from rp_extract_next, with `context`.
struct rp_extract *rp_extract_new(struct rp_repo *repo, const struct rp_repo_root *root, struct rp_ranges *lost,
                                  rp_extract_room_fn *room, void *context);
void rp_extract_free(struct rp_extract *extract); // NULL is fine; after all jobs
// The next job, with the bytes of disk that it gives. 1 there is one, 0 there is none any more, -1 failed.
// One thread at a time.
int rp_extract_next(struct rp_extract *extract, struct rp_extract_job **job, uint64_t *bytes, struct rp_error *err);

// Takes data of the disk; several blocks at a time where they lie together. `data` is aligned to 4096 bytes.
typedef int rp_extract_put_fn(void *context, uint64_t offset, const void *data, uint32_t size, struct rp_error *err);
// Does the job, and frees it. Any thread, several at once.
int rp_extract_run(struct rp_extract *extract, struct rp_extract_job *job, rp_extract_put_fn *put, void *context,
                   struct rp_error *err);

#endif
