#include "repo/damage.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "repo/object.h"

bool rp_damage_is_errno(int sys) { return sys == EIO || sys == EUCLEAN || sys == EBADMSG || sys == EILSEQ; }

bool rp_damage_is(const struct rp_error *why)
{
    return why->code == RP_ERR_CORRUPT || why->code == RP_ERR_AUTH || (why->code == RP_ERR_IO && rp_damage_is_errno(why->sys));
}

static bool answers(struct rp_repo *repo)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    return rp_backend_get_all(repo->backend, RP_CONFIG_NAME, RP_CONFIG_LIMIT, &json, NULL) == 0;
}

bool rp_damage_stays(struct rp_repo *repo, unsigned pause_ms, struct rp_error *why, rp_damage_read_fn *read, void *context)
{
    int before = why->sys;
    if (!rp_damage_is(why) || why->code != RP_ERR_IO)
        return rp_damage_is(why);
    if (!answers(repo)) // nor would it answer after a pause for each object
        return false;
    usleep(pause_ms * 1000);
    rp_error_clear(why);
    return read(context, why) && rp_damage_is(why) && (why->code != RP_ERR_IO || why->sys == before) && answers(repo);
}

int rp_damage_may_pass(struct rp_error *err, const struct rp_error *why)
{
    return rp_damage_is(why) ? rp_fail(err, RP_ERR_IO, "%s", why->text) : rp_fail_as(err, why);
}

int rp_damage_mark(struct rp_repo *repo, const uint8_t pack[RP_PACK_ID], bool damaged, struct rp_error *err)
{
    struct rp_error why = {0};
    char name[RP_OBJECT_NAME], hex[RP_HEX(RP_PACK_ID)], json[64];
    snprintf(name, sizeof name, RP_DAMAGED_PREFIX "%s", rp_hex(pack, RP_PACK_ID, hex));
    int size = snprintf(json, sizeof json, "{\"version\":1,\"time_ns\":%lld}", (long long)rp_clock_wall_ns());
    int failed = damaged ? rp_object_put(repo->backend, repo->crypto, name, json, (size_t)size, &why)
                         : repo->backend->ops->remove(repo->backend, name, &why);
    return failed && why.code != RP_ERR_EXISTS ? rp_fail_as(err, &why) : 0;
}
