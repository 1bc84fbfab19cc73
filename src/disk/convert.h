// Whole images between raw files and VHDX files. Holes are never read and never written.
#ifndef RP_DISK_CONVERT_H
#define RP_DISK_CONVERT_H

#include "disk/vhdx.h"

enum rp_image_format { RP_IMAGE_RAW, RP_IMAGE_VHDX };

typedef int rp_progress_fn(void *context, uint64_t done, uint64_t total); // bytes; non-zero cancels

// VHDX by its signature, raw otherwise.
int rp_image_detect(struct rp_fs *fs, const char *path, enum rp_image_format *format, struct rp_error *err);
// Creates `target` (must not exist) as a dynamic VHDX with the content of the raw file or block device `source`,
// durable at return; removes it again on failure. Size is rounded up to a sector. All-zero stretches are not allocated.
int rp_convert_raw_to_vhdx(struct rp_fs *fs, const char *source, const char *target,
                           const struct rp_vhdx_create *create,
                           rp_progress_fn *progress, void *context, struct rp_error *err);
// Creates `target` as a sparse raw file with what the chain of `source` holds.
int rp_convert_vhdx_to_raw(struct rp_fs *fs, const char *source, const char *target, rp_progress_fn *progress,
                           void *context, struct rp_error *err);

#endif
