// A restore point as JSON, the same wherever it is shown.
#ifndef RP_CLI_POINT_JSON_H
#define RP_CLI_POINT_JSON_H

#include "cli/cli.h"

#define RP_SHORT_ID 12 // characters of an id shown to people
#define RP_CLI_TIME 24

// id, vm, vm_id, host, time, kind, reason, base, …, disks[]. The settings document is left out.
json_t *rp_point_json(const struct rp_point *point);
json_t *rp_ranges_json(const struct rp_ranges *ranges); // [{"offset":…,"length":…}]
// "2026-11-22 12:00:00" (UTC), for tables.
const char *rp_point_time(const struct rp_point *point, char out[RP_CLI_TIME]);

#endif
