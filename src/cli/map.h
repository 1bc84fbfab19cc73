// The drawn map of a disk: 64 cells a line, each a stretch of the disk,
// filled by how much of it is in a list of ranges.
#ifndef RP_CLI_MAP_H
#define RP_CLI_MAP_H

#include "base/ranges.h"

// Draws at most 16 lines and a legend.
void rp_map_draw(const struct rp_ranges *ranges, uint64_t size);

#endif
