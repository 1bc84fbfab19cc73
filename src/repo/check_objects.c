#include <string.h>

#include "repo/check.h"
#include "repo/json.h"
#include "repo/lease.h"
#include "repo/object.h"
#include "repo/points.h"

static int check_lease(struct rp_repo *repo, const char *name, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    struct rp_lease_state state;
    if (rp_object_get(repo->backend, repo->crypto, name, &json, err) ||
        rp_lease_decode(json.data, json.size, name, &state, err))
        return -1;
    rp_lease_state_clear(&state);
    return 0;
}

static int check_note(struct rp_repo *repo, const char *name, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    int64_t time_ns;
    return rp_points_get_note(repo, name, &time_ns, &json, err);
}

static int check_mark(struct rp_repo *repo, const char *name, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    if (rp_object_get(repo->backend, repo->crypto, name, &json, err))
        return -1;
    RP_AUTO_JSON json_t *root = rp_json_parse(json.data, json.size, name, err);
    return root ? 0 : -1;
}

static int check_slot(struct rp_repo *repo, const char *name, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    struct rp_key_slot slot;
    if (rp_backend_get_all(repo->backend, name, RP_CONFIG_LIMIT, &json, err))
        return -1;
    return rp_key_slot_decode(json.data, json.size, &slot, err) ? rp_context(err, "%s", name) : 0;
}

static int check_pack_name(struct rp_repo *repo, const char *name, struct rp_error *err)
{
    uint8_t id[RP_PACK_ID];
    (void)repo;
    return rp_pack_parse_name(name, id) ? 0 : rp_fail(err, RP_ERR_CORRUPT, "%s: this is not the name of a pack", name);
}

static const struct kind {
    const char *prefix;
    int (*check)(struct rp_repo *repo, const char *name, struct rp_error *err);
} kinds[] = {
    {"keys/", check_slot},        {"notes/", check_note},       {"sessions/", check_lease},
    {"locks/", check_lease},      {"packs/", check_pack_name},  {"tombstones/", check_mark},
    {RP_DAMAGED_PREFIX, check_mark},
};

struct each {
    struct rp_check *check;
    const struct kind *kind;
};

static int check_one(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct each *each = context;
    struct rp_error err = {0};
    if (each->kind->check(each->check->repo, name, &err) && err.code != RP_ERR_NOT_FOUND) // ended meanwhile
        rp_damages_add(each->check->damages, name, err.text);
    return 0;
}

int rp_check_objects(struct rp_check *check, struct rp_error *err)
{
    struct rp_backend *backend = check->repo->backend;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct each each = {check, &kinds[i]};
        if (backend->ops->list(backend, kinds[i].prefix, check_one, &each, err))
            return -1;
    }
    return 0;
}
