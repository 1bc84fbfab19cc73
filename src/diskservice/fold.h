// Merging one file of a chain into its parent. Inside the engine.
#ifndef RP_DISKSERVICE_FOLD_H
#define RP_DISKSERVICE_FOLD_H

#include "diskservice/chains.h"

// What became of the guest meanwhile.
struct rp_fold_pauses {
    uint64_t total_ns, longest_ns;
};
void rp_fold_paused(struct rp_fold_pauses *pauses, uint64_t ns);

// Merges disk->layers[index] into layers[index - 1], takes it out of the chain and deletes it. The caller has the turn and
// has locked the files. A file in the middle is merged while the guest works on the leaf above it; it pauses only to exchange
// open files. A leaf is merged inside one pause, in which nothing is synced, created or mapped, and which waits for no disk if
// the leaf has no more than RP_VHDX_MERGE_SMALL of data: what is to be in place then is made before, and durability comes
// after, while the guest writes to the parent. A flush waits for it, as after a checkpoint. After a failure then (rp_engine_fail)
// the next open decides which of both is the leaf; all that a flush has answered for is in either.
//
// Steps, each durable before the next; killed anywhere, it is run again from the start:
//   1. tracking: the parent's becomes the maximum of both, bound to the parent as it is and as the session will leave it
//   2. the child's locator gets the parent's future DataWriteGuid as linkage2
//   3. the parent gets that DataWriteGuid
//   4. everything the child holds is copied into the parent (the child hides a half-done copy from all readers)
//   5. the record lists the child for deletion and, for a leaf, names the parent as the leaf
//   6. in the middle: the file above names the parent as its own
//   7. the child and its tracking file are deleted
// For a leaf, step 1 is made up for in the pause with what was marked since, and step 4, in the page cache, is the pause; what
// it did is durable before step 5. The announcement of step 5 (switch.h) is made in the pause.
int rp_fold(struct rp_engine *engine, struct rp_engine_chain *disk, size_t index,
            int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct rp_fold_pauses *pauses,
            struct rp_error *err);

// Bytes of data that the file itself holds.
uint64_t rp_fold_data(struct rp_vhdx *vhdx);

// Locks the files that a fold has to change, against readers. RP_ERR_BUSY: somebody reads one of them, its name goes to `*busy`
// (borrowed). Call it again then with what is there: while that one is in use no other is touched, so that nobody who
// wants to read them is refused because of a merge that does not run.
int rp_fold_lock(struct rp_engine_chain *disk, size_t index, const char **busy, struct rp_error *err);
// For a lock that no fold came after. A fold unlocks in any case.
void rp_fold_unlock(struct rp_engine_chain *disk, size_t index);

#endif
