#include "repo/lease_numbers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HIGHEST ((uint64_t)INT64_MAX) // no holder renews that often

static int see_generation(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct rp_lease_numbers *seen = context;
    uint8_t number[8];
    uint64_t generation = 0;
    size_t length = strlen(seen->folder);
    if (strncmp(name, seen->folder, length) || name[length] != '/' || strlen(name + length + 1) != 16 ||
        !rp_unhex(name + length + 1, number, 8))
        return 0;
    for (int i = 0; i < 8; i++)
        generation = generation << 8 | number[i];
    uint64_t lower = generation < seen->highest ? generation : seen->highest;
    if (lower && seen->other_count < 64)
        seen->others[seen->other_count++] = lower;
    if (generation > seen->highest)
        seen->highest = generation;
    return 0;
}

int rp_lease_list(struct rp_repo *repo, const char *folder, struct rp_lease_numbers *seen, struct rp_error *err)
{
    *seen = (struct rp_lease_numbers){.folder = folder};
    char prefix[RP_OBJECT_NAME];
    snprintf(prefix, sizeof prefix, "%s/", folder);
    if (repo->backend->ops->list(repo->backend, prefix, see_generation, seen, err))
        return -1;
    if (seen->highest < HIGHEST)
        return 0;
    return rp_fail(err, RP_ERR_CORRUPT, "%s/%s/%016" PRIx64 ": no holder of a lease counts so far: remove this file",
                   repo->backend->location, folder, seen->highest);
}

const char *rp_lease_number_name(const char *folder, uint64_t generation, char out[RP_OBJECT_NAME])
{
    snprintf(out, RP_OBJECT_NAME, "%s/%016" PRIx64, folder, generation);
    return out;
}

void rp_lease_remove_old(struct rp_repo *repo, const struct rp_lease_numbers *seen, uint64_t newest)
{
    char name[RP_OBJECT_NAME];
    for (size_t i = 0; i < seen->other_count; i++)
        if (seen->others[i] + 1 < newest)
            repo->backend->ops->remove(repo->backend, rp_lease_number_name(seen->folder, seen->others[i], name), NULL);
}

int rp_lease_get(struct rp_repo *repo, const char *folder, uint64_t generation, struct rp_lease_state *state,
                 struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    char name[RP_OBJECT_NAME];
    return rp_object_get(repo->backend, repo->crypto, rp_lease_number_name(folder, generation, name), &json, err) ||
                   rp_lease_decode(json.data, json.size, name, state, err)
               ? -1
               : 0;
}
