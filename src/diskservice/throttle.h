// A limit in bytes per second for many threads: whoever has passed is paid for before the next one passes.
#ifndef RP_DISKSERVICE_THROTTLE_H
#define RP_DISKSERVICE_THROTTLE_H

#include <stdatomic.h>
#include <stdint.h>

struct rp_throttle;

// The longest that one call waits, whatever the limit: a guest must not take its disk for dead.
#define RP_THROTTLE_MAX_WAIT_MS 3000

struct rp_throttle *rp_throttle_new(void); // without a limit
void rp_throttle_free(struct rp_throttle *throttle); // nobody waits; NULL is fine
// 0: no limit. When it is raised, whoever waits passes now.
void rp_throttle_set(struct rp_throttle *throttle, uint64_t bytes_per_second);
uint64_t rp_throttle_rate(struct rp_throttle *throttle);
// Pays for `size` bytes, and waits as long as more than some milliseconds of the limit are owed. One atomic load where there
// is no limit. Not from inside a gate that somebody closes.
void rp_throttle_wait(struct rp_throttle *throttle, uint64_t size);

#endif
