// What is lost, and the marks that say so: a writer stores again what a marked pack holds
// (docs/formats/repository.md, "Sessions and collection").
#ifndef RP_REPO_DAMAGE_H
#define RP_REPO_DAMAGE_H

#include "repo/core.h"

// Does this failure of a read say that the bytes are lost? They are wrong; or the disk, or a file system that has checksums
// of its own, cannot give them any more.
bool rp_damage_is(const struct rp_error *why);
// The errno values by which a disk or a file system says so.
bool rp_damage_is_errno(int sys);

// The same read once more: 0, or -1 with the error.
typedef int rp_damage_read_fn(void *context, struct rp_error *err);
// As rp_damage_is, before anything is marked, or given up: where nothing came, and not wrong bytes, that may be a share whose server does
// not answer, or a disk that is being reset. So it is `read` once more after `pause_ms`, and must fail as before, while other
// objects of the repository can be read. `*why` is then what the second read says; code 0: it went well.
bool rp_damage_stays(struct rp_repo *repo, unsigned pause_ms, struct rp_error *why, rp_damage_read_fn *read, void *context);

// Fails as `why`, which may pass: with an error that is none that rp_damage_is. Always returns -1.
int rp_damage_may_pass(struct rp_error *err, const struct rp_error *why);

// Marks the pack, or takes the mark away. One that is there already is fine.
int rp_damage_mark(struct rp_repo *repo, const uint8_t pack[RP_PACK_ID], bool damaged, struct rp_error *err);

#endif
