// Time: wall clock for documents, monotonic clock for durations.
#ifndef RP_BASE_CLOCK_H
#define RP_BASE_CLOCK_H

#include <stdint.h>

#include "base/error.h"

#define RP_TIME_TEXT 32

int64_t rp_clock_wall_ns(void);      // nanoseconds since 1970-01-01 UTC
uint64_t rp_clock_monotonic_ns(void);
// "2026-11-22T12:00:00.123Z" (milliseconds, UTC). Returns `out`.
const char *rp_time_format(int64_t wall_ns, char out[RP_TIME_TEXT]);
// Parses that form, also without the fraction or the seconds, "YYYY-MM-DD[ HH:MM[:SS]]" too; all as UTC. A day that no
// calendar has is refused.
int rp_time_parse(const char *text, int64_t *wall_ns, struct rp_error *err);

#endif
