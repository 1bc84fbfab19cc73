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

// Marks the pack, or takes the mark away. One that is there already is fine.
int rp_damage_mark(struct rp_repo *repo, const uint8_t pack[RP_PACK_ID], bool damaged, struct rp_error *err);

#endif
