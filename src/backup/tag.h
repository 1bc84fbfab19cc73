// The tag by which a backup knows its own checkpoints and reference points on a host: "refpoint:<repository>:<job>".
// What does not carry this repository's tag is never touched, but for the reference points that its restore points
// name: not every host keeps the name of a checkpoint for the reference point that it becomes.
#ifndef RP_BACKUP_TAG_H
#define RP_BACKUP_TAG_H

#include <stdbool.h>

#include "backup/work.h"
#include "base/guid.h"
#include "repo/repo.h"

#define RP_TAG_TEXT 96

const char *rp_tag_format(const struct rp_guid *repository, const struct rp_guid *job, char out[RP_TAG_TEXT]);
// True when `name` (NULL is fine) is the tag of any job of this repository.
bool rp_tag_is_of(const char *name, const struct rp_guid *repository);

// Destroys what earlier jobs of this repository left on the VM: recovery snapshots with our tag, and reference points
// with our tag that no restore point in `points` names; none of these while points cannot be read, which may name them. The
// caller holds the VM's lock in the repository, so no job that owns one is alive. `*removed` (may be NULL) counts.
int rp_tag_remove_orphans(struct rp_work *work, const char *vm_id, const struct rp_guid *repository,
                          const struct rp_points *points, unsigned *removed, struct rp_error *err);
// Destroys what one job made, snapshot or reference point, by its tag: also right when the host's answer to creating it
// was lost. `made`: the reference point that it knows to have made, whose name the host may not have kept; "": none. Tries
// everything; the first failure is reported. `*removed` (may be NULL) counts.
int rp_tag_remove_job(struct rp_work *work, const char *vm_id, const char *tag, const char *made,
                      unsigned *removed, struct rp_error *err);
// Destroys the VM's reference points of this repository except `keep`, also those that only a point which cannot be read
// names: a backup goes on from `keep`. `earlier`: the repository's restore points of the VM.
int rp_tag_remove_older(struct rp_work *work, const struct rp_reference_points *points,
                        const struct rp_guid *repository, const struct rp_points *earlier, const char *keep,
                        struct rp_error *err);

#endif
