// For a broken copy of the plugin, which `make demo BREAK=tracker` and the tests must see through: linked with
// --wrap=rp_rct_mark, it forgets that one unit changed. The unit is chosen in the first epoch that follows an id, and stays
// forgotten for that epoch; everything else is marked as ever.
#include <pthread.h>
#include <stdbool.h>

#include "base/num.h"
#include "rct/rct.h"

void __real_rp_rct_mark(struct rp_rct *rct, uint64_t offset, uint64_t length);
void __wrap_rp_rct_mark(struct rp_rct *rct, uint64_t offset, uint64_t length);

enum { SPARED = 5 }; // so many units are marked before one is forgotten

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned fresh;
static bool chosen;
static struct rp_rct_id epoch; // of the victim
static uint64_t victim;        // offset of its unit

static bool is_fresh(struct rp_rct *rct, const struct rp_rct_id *since, uint64_t unit, uint64_t unit_size)
{
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
    return !rp_rct_query(&rct, 1, since, unit, unit_size, &changed, NULL) && !changed.count;
}

void __wrap_rp_rct_mark(struct rp_rct *rct, uint64_t offset, uint64_t length)
{
    uint64_t unit_size = rp_rct_unit_size(rct), unit = rp_align_down(offset, unit_size), end = offset + length;
    struct rp_rct_id last;
    pthread_mutex_lock(&lock);
    if (!chosen && rp_rct_last_sealed(rct, &last) && is_fresh(rct, &last, unit, unit_size) && fresh++ == SPARED) {
        chosen = true;
        epoch = (struct rp_rct_id){rp_rct_tracking_guid(rct), rp_rct_epoch(rct)};
        victim = unit;
    }
    struct rp_guid tracking = rp_rct_tracking_guid(rct);
    bool forget = chosen && rp_rct_epoch(rct) == epoch.epoch && rp_guid_equal(&tracking, &epoch.tracking) &&
                  offset < victim + unit_size && end > victim;
    pthread_mutex_unlock(&lock);
    if (!forget) {
        __real_rp_rct_mark(rct, offset, length);
        return;
    }
    if (offset < victim)
        __real_rp_rct_mark(rct, offset, victim - offset);
    if (end > victim + unit_size)
        __real_rp_rct_mark(rct, victim + unit_size, end - victim - unit_size);
}
