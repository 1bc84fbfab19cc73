// Merging one file of a chain into its parent. Inside the engine.
#ifndef RP_DISKSERVICE_FOLD_H
#define RP_DISKSERVICE_FOLD_H

#include "diskservice/chains.h"

// Merges disk->layers[index] into layers[index - 1], takes it out of the chain and deletes it. The caller has the turn.
// A leaf is merged inside one pause. A file in the middle is merged while the guest works on the leaf above it; it pauses
// only to exchange open files. Adds to `pause_ns`.
//
// Steps, each durable before the next; killed anywhere, it is run again from the start:
//   1. tracking: the parent's becomes the maximum of both, bound to the parent as it is and as the session will leave it
//   2. the child's locator gets the parent's future DataWriteGuid as linkage2
//   3. the parent gets that DataWriteGuid
//   4. everything the child holds is copied into the parent (the child hides a half-done copy from all readers)
//   5. the record lists the child for deletion and, for a leaf, names the parent as the leaf
//   6. in the middle: the file above names the parent as its own
//   7. the child and its tracking file are deleted
int rp_fold(struct rp_engine *engine, struct rp_engine_chain *disk, size_t index,
            int (*progress)(void *context, uint64_t done, uint64_t total), void *context, uint64_t *pause_ns,
            struct rp_error *err);
// RP_ERR_BUSY when a reader has one of the files open that a fold has to change. Leaves the locks as they were.
int rp_fold_probe(struct rp_engine_chain *disk, size_t index, struct rp_error *err);

#endif
