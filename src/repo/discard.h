// Packs of a session that came to nothing: removed at once where that is safe, by the rules of a collector
// (docs/formats/repository.md, "Sessions and collection"). Whatever is in doubt stays, and is garbage.
#ifndef RP_REPO_DISCARD_H
#define RP_REPO_DISCARD_H

#include "repo/core.h"

// Which restore points there are: equal sets compare equal with memcmp.
struct rp_point_set {
    uint64_t count;
    uint8_t mixed[RP_ID_BYTES];
};
int rp_point_set_look(struct rp_repo *repo, struct rp_point_set *set, struct rp_error *err);

// Removes these packs, which a session wrote whose folder is `session` and which never began to put a point; `before`
// is what there was when none of them was yet. Returns how many were removed.
size_t rp_discard_packs(struct rp_repo *repo, const char *session, const struct rp_point_set *before,
                        const uint8_t (*ids)[RP_PACK_ID], size_t count);

#endif
