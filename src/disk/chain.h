// A differencing chain opened read-only from its leaf or from a frozen file in its middle.
#ifndef RP_DISK_CHAIN_H
#define RP_DISK_CHAIN_H

#include "disk/vhdx.h"

#define RP_CHAIN_MAX_DEPTH 64

struct rp_chain {
    struct rp_vhdx *layers[RP_CHAIN_MAX_DEPTH]; // [0] is the file asked for, then its parents
    size_t depth;
};

// Opens `path` and all its parents with shared locks. Cycles and deeper chains are RP_ERR_CORRUPT.
// Read through layers[0].
int rp_chain_open(struct rp_fs *fs, const char *path, struct rp_chain *chain, struct rp_error *err);
void rp_chain_close(struct rp_chain *chain); // usable with RP_CLEANUP

#endif
