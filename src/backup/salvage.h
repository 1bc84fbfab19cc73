// The list of what a salvaging restore could not read, beside the image: docs/formats/lost-list.md.
#ifndef RP_BACKUP_SALVAGE_H
#define RP_BACKUP_SALVAGE_H

#include "base/error.h"
#include "base/ranges.h"

char *rp_salvage_list_name(const char *image); // "<image>.lost"; malloc'ed
// Writes a new file, durable under the name `path`, though its folder may not be. `image` is named in it; borrowed, as `lost` is,
// which must be normalized. On failure nothing of it is left; RP_ERR_EXISTS: the file there is somebody else's, and stays.
int rp_salvage_write_list(const char *path, const char *image, const struct rp_ranges *lost, struct rp_error *err);

#endif
