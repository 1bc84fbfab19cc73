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
#define RP_SESSION_FOLDER 64 // "sessions/…", and its end
// What there was when a session began, and had stored nothing.
struct rp_before {
    struct rp_point_set points;
    char (*ended)[RP_SESSION_FOLDER]; // sessions that never commit any more, though their folders are there
    size_t ended_count;
};
// `session`: the folder of the one that begins. Ends those that nobody renews any more.
int rp_before_look(struct rp_repo *repo, const char *session, struct rp_before *before, struct rp_error *err);
void rp_before_clear(struct rp_before *before);

// Removes these packs, which a session wrote whose folder is `session` and which never began to put a point; `before`
// is what there was when none of them was yet. Returns how many were removed.
size_t rp_discard_packs(struct rp_repo *repo, const char *session, const struct rp_before *before,
                        const uint8_t (*ids)[RP_PACK_ID], size_t count);

#endif
