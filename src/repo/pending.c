#include "repo/pending.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"

static bool is_empty(const uint8_t *slot)
{
    static const uint8_t zero[RP_PREFIX_BYTES];
    return !memcmp(slot, zero, RP_PREFIX_BYTES);
}

static size_t home(const struct rp_pending *pending, const uint8_t *id)
{
    return (size_t)rp_get_le64(id) & (pending->capacity - 1);
}

// Where the id is, or the empty slot where it would go.
static size_t find(const struct rp_pending *pending, const uint8_t *id)
{
    size_t i = home(pending, id);
    while (!is_empty(pending->slots[i]) && memcmp(pending->slots[i], id, RP_PREFIX_BYTES))
        i = (i + 1) & (pending->capacity - 1);
    return i;
}

bool rp_pending_has(const struct rp_pending *pending, const uint8_t *id)
{
    return pending->capacity && !is_empty(pending->slots[find(pending, id)]);
}

bool rp_pending_add(struct rp_pending *pending, const uint8_t *id)
{
    if (2 * (pending->count + 1) > pending->capacity) {
        struct rp_pending larger = {NULL, pending->capacity ? 2 * pending->capacity : 1024, pending->count};
        larger.slots = rp_xcalloc(larger.capacity, RP_PREFIX_BYTES);
        for (size_t i = 0; i < pending->capacity; i++)
            if (!is_empty(pending->slots[i]))
                memcpy(larger.slots[find(&larger, pending->slots[i])], pending->slots[i], RP_PREFIX_BYTES);
        free(pending->slots);
        *pending = larger;
    }
    size_t i = find(pending, id);
    if (!is_empty(pending->slots[i]))
        return false;
    memcpy(pending->slots[i], id, RP_PREFIX_BYTES);
    pending->count++;
    return true;
}

void rp_pending_remove(struct rp_pending *pending, const uint8_t *id)
{
    if (!rp_pending_has(pending, id))
        return;
    // Later entries of the same run move up, so that no search stops too early.
    size_t mask = pending->capacity - 1, hole = find(pending, id);
    for (size_t i = (hole + 1) & mask; !is_empty(pending->slots[i]); i = (i + 1) & mask) {
        if (((i - home(pending, pending->slots[i])) & mask) >= ((i - hole) & mask)) {
            memcpy(pending->slots[hole], pending->slots[i], RP_PREFIX_BYTES);
            hole = i;
        }
    }
    memset(pending->slots[hole], 0, RP_PREFIX_BYTES);
    pending->count--;
}

void rp_pending_clear(struct rp_pending *pending)
{
    free(pending->slots);
    *pending = (struct rp_pending){0};
}
