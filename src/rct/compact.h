// Compacting a disk file with its change tracking.
#ifndef RP_RCT_COMPACT_H
#define RP_RCT_COMPACT_H

#include "disk/convert.h"

// rp_vhdx_compact of a file that nobody has open (RP_ERR_BUSY), with `change` as there; every id that its tracking file has
// given out goes on answering as before. STATE: the file was not closed cleanly; nothing was changed.
int rp_rct_compact(struct rp_fs *fs, const char *disk_path, bool change, uint64_t *before, uint64_t *after,
                   rp_progress_fn *progress, void *context, struct rp_error *err);

#endif
