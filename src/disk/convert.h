// Whole images between raw files and VHDX files. Holes are never read and never written. Where the file system can, the new
// file shares the extents of the old one and hardly anything is read or written; else all-zero stretches are not allocated.
#ifndef RP_DISK_CONVERT_H
#define RP_DISK_CONVERT_H

#include "disk/vhdx.h"

enum rp_image_format { RP_IMAGE_RAW, RP_IMAGE_VHDX };

typedef int rp_progress_fn(void *context, uint64_t done, uint64_t total); // bytes; non-zero cancels

// VHDX by its signature, raw otherwise.
int rp_image_detect(struct rp_fs *fs, const char *path, enum rp_image_format *format, struct rp_error *err);
// Refuses, as UNSUPPORTED, images of formats that would otherwise become a raw disk holding a container that no guest can
// read; and, as CORRUPT, what is named .vhdx. For what rp_image_detect calls raw.
int rp_image_check_raw(struct rp_fs *fs, const char *path, struct rp_error *err);

// All of these create `target`, which must not exist: durable at return, removed again on failure. `progress` may be NULL; it
// is called from this thread.

// A dynamic VHDX with the content of the raw file or block device `source`. `create` may be NULL; its size is not used:
// the disk has the source's, rounded up to a sector.
int rp_convert_raw_to_vhdx(struct rp_fs *fs, const char *source, const char *target,
                           const struct rp_vhdx_create *create,
                           rp_progress_fn *progress, void *context, struct rp_error *err);
// A sparse raw file with what the chain of `source` holds.
int rp_convert_vhdx_to_raw(struct rp_fs *fs, const char *source, const char *target, rp_progress_fn *progress,
                           void *context, struct rp_error *err);
// A dynamic VHDX with what the chain of `source` holds; size and logical sectors are the source's. When create->data_write_guid
// is not zero, the finished file has it.
int rp_convert_vhdx_to_vhdx(struct rp_fs *fs, const char *source, const char *target, const struct rp_vhdx_create *create,
                            rp_progress_fn *progress, void *context, struct rp_error *err);
// A differencing VHDX that holds `changed` (ascending) of what the chain of `source` holds, zeros too, and nothing else:
// above its parent it reads as the source does, if the parent differs from that nowhere else. create->parent_path is not
// looked at and need not be there. The rest is as above.
int rp_convert_vhdx_to_child(struct rp_fs *fs, const char *source, const char *target, const struct rp_vhdx_create *create,
                             const struct rp_ranges *changed, rp_progress_fn *progress, void *context,
                             struct rp_error *err);

#endif
