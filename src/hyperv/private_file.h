// Small files of the user's: read whole, replaced at once. Parent folders are made, for the user only.
#ifndef RP_HYPERV_PRIVATE_FILE_H
#define RP_HYPERV_PRIVATE_FILE_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"

#define RP_PRIVATE_FILE_MAX (1 << 20)

// Appends the content. A file that is not there is an empty one. It must be the user's own (or root's) and nobody else
// may write to it, nor, when it is `secret`, read it: RP_ERR_PERMISSION with what to do. To a secret one no symbolic
// link is followed.
int rp_private_file_read(const char *path, bool secret, struct rp_buf *out, struct rp_error *err);
// The old content or the new, whatever happens; mode 0600.
int rp_private_file_replace(const char *path, const void *data, size_t size, struct rp_error *err);
// Only one at a time changes a file: takes the lock beside it and returns its descriptor, to be closed; -1.
int rp_private_file_lock(const char *path, struct rp_error *err);

#endif
