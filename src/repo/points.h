// Restore points and notes as objects.
#ifndef RP_REPO_POINTS_H
#define RP_REPO_POINTS_H

#include "repo/repo.h"

#define RP_POINTS_PREFIX "points/"
#define RP_NOTES_PREFIX "notes/"

// Writes the point and sets its id. The same document twice is one point.
int rp_points_put(struct rp_repo *repo, struct rp_point *point, struct rp_error *err);
// Reads, authenticates and decodes the point of this object name; sets its id.
int rp_points_get(struct rp_repo *repo, const char *name, struct rp_point *point, struct rp_error *err);
// Reads and decodes a note; `json` receives its text.
int rp_points_get_note(struct rp_repo *repo, const char *name, int64_t *time_ns, struct rp_buf *json,
                       struct rp_error *err);

#endif
