#include "repo/discard.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/num.h"
#include "repo/json.h"
#include "repo/lease.h"
#include "repo/object.h"
#include "repo/points.h"

#define BATCH 64u // tombstones need room, which the packs before them gave back

// ---- who could rely on them -----------------------------------------------------------------------------------------

static int see_point(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct rp_point_set *set = context;
    uint8_t id[RP_ID_BYTES];
    set->count++;
    if (rp_unhex(name + strlen(RP_POINTS_PREFIX), id, sizeof id))
        for (unsigned i = 0; i < sizeof id; i++)
            set->mixed[i] ^= id[i];
    return 0;
}

static int look_at_points(struct rp_repo *repo, struct rp_point_set *set, struct rp_error *err)
{
    memset(set, 0, sizeof *set);
    return repo->backend->ops->list(repo->backend, RP_POINTS_PREFIX, see_point, set, err);
}

// The folder of the session that the object of this name belongs to; NULL: none.
static const char *folder_of(const char *name, char folder[RP_SESSION_FOLDER])
{
    const char *slash = strrchr(name, '/');
    size_t length = slash ? (size_t)(slash - name) : 0;
    if (!length || length >= RP_SESSION_FOLDER)
        return NULL;
    memcpy(folder, name, length);
    folder[length] = 0;
    return folder;
}

static bool knows(const struct rp_before *before, const char *name)
{
    char folder[RP_SESSION_FOLDER];
    if (!folder_of(name, folder))
        return false;
    for (size_t i = 0; i < before->ended_count; i++)
        if (!strcmp(before->ended[i], folder))
            return true;
    return false;
}

static int add_session(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct rp_before *before = context;
    char folder[RP_SESSION_FOLDER];
    if (!folder_of(name, folder) || knows(before, name))
        return 0;
    before->ended = rp_xrealloc(before->ended, (before->ended_count + 1) * sizeof *before->ended);
    memcpy(before->ended[before->ended_count++], folder, sizeof folder);
    return 0;
}

int rp_before_look(struct rp_repo *repo, const char *session, struct rp_before *before, struct rp_error *err)
{
    *before = (struct rp_before){0};
    if (repo->backend->ops->list(repo->backend, "sessions/", add_session, before, err) ||
        look_at_points(repo, &before->points, err)) {
        rp_before_clear(before);
        return -1;
    }
    size_t kept = 0;
    for (size_t i = 0; i < before->ended_count; i++)
        if (strcmp(before->ended[i], session) && rp_lease_has_ended(repo, before->ended[i]))
            memmove(before->ended[kept++], before->ended[i], sizeof *before->ended);
    before->ended_count = kept;
    return 0;
}

void rp_before_clear(struct rp_before *before)
{
    free(before->ended);
    *before = (struct rp_before){0};
}

struct others {
    struct rp_repo *repo;
    const char *mine;
    const struct rp_before *before;
    bool some;
};

// Not only stale: one that comes back to life after its time could be about to put its point. One that had ended when ours
// began could be, too; but what it refers to was there before it last renewed its session, and ours had stored nothing then.
static bool holder_is_dead(struct rp_repo *repo, const char *name)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    struct rp_lease_state state;
    if (rp_object_get(repo->backend, repo->crypto, name, &json, NULL) ||
        rp_lease_decode(json.data, json.size, name, &state, NULL))
        return false;
    bool dead = rp_lease_is_dead(&state);
    rp_lease_state_clear(&state);
    return dead;
}

static int see_session(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct others *others = context;
    size_t length = strlen(others->mine);
    bool mine = !strncmp(name, others->mine, length) && name[length] == '/';
    others->some = !mine && !knows(others->before, name) && !holder_is_dead(others->repo, name);
    return others->some; // one is enough
}

// Nobody relies on a pack that has a tombstone already: a session that begins now sees it; one that is older is still
// listed, or has ended and then left a point if it was to leave one. Hence the order.
static bool nobody_relies(struct rp_repo *repo, const char *session, const struct rp_before *before)
{
    struct others others = {repo, session, before, false};
    struct rp_point_set now;
    return repo->backend->ops->list(repo->backend, "sessions/", see_session, &others, NULL) == 0 && !others.some &&
           look_at_points(repo, &now, NULL) == 0 && !memcmp(&now, &before->points, sizeof now);
}

// ---- removing -------------------------------------------------------------------------------------------------------

static const char *name_of(const char *prefix, const uint8_t id[RP_PACK_ID], char out[RP_OBJECT_NAME])
{
    char hex[RP_HEX(RP_PACK_ID)];
    snprintf(out, RP_OBJECT_NAME, "%s%s", prefix, rp_hex(id, RP_PACK_ID, hex));
    return out;
}

// False: there is no such pack, no room for a tombstone, or a collector's: then the pack is his.
static bool bury(struct rp_repo *repo, const uint8_t id[RP_PACK_ID])
{
    char pack[RP_PACK_NAME], name[RP_OBJECT_NAME];
    uint64_t size;
    if (repo->backend->ops->size(repo->backend, rp_pack_name(id, pack), &size, NULL))
        return false;
    RP_AUTO_JSON json_t *json = json_object();
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_json_set_number(json, "version", 1);
    rp_json_set_number(json, "time_ns", (uint64_t)rp_clock_wall_ns());
    rp_json_write(json, &text);
    return rp_object_put(repo->backend, repo->crypto, name_of("tombstones/", id, name), text.data, text.size, NULL) == 0;
}

// The pack first and its tombstone last: until then nobody relies on it.
static bool take_away(struct rp_repo *repo, const uint8_t id[RP_PACK_ID], bool pack_too)
{
    const struct rp_backend_ops *ops = repo->backend->ops;
    char pack[RP_PACK_NAME], name[RP_OBJECT_NAME];
    if (pack_too && (ops->remove(repo->backend, rp_pack_name(id, pack), NULL) ||
                     ops->remove(repo->backend, name_of(RP_DAMAGED_PREFIX, id, name), NULL)))
        return false;
    ops->remove(repo->backend, name_of("tombstones/", id, name), NULL);
    return pack_too;
}

size_t rp_discard_packs(struct rp_repo *repo, const char *session, const struct rp_before *before,
                        const uint8_t (*ids)[RP_PACK_ID], size_t count)
{
    size_t removed = 0;
    bool safe = true;
    for (size_t at = 0; at < count && safe; at += BATCH) {
        size_t end = rp_min64(at + BATCH, count);
        bool buried[BATCH];
        for (size_t i = at; i < end; i++)
            buried[i - at] = bury(repo, ids[i]);
        safe = nobody_relies(repo, session, before);
        for (size_t i = at; i < end; i++)
            if (buried[i - at] && take_away(repo, ids[i], safe)) {
                rp_index_forget_pack(repo->index, ids[i]);
                removed++;
            }
    }
    rp_index_tidy(repo->index);
    return removed;
}
