// Resilient change tracking of one disk file: which units changed since which moment. docs/formats/rct.md has the file.
//
// The disk is divided into units. since[unit] is the last epoch in which the unit changed *in this file*; 0 = never.
// A write in epoch k sets since = k. Sealing ends epoch k, publishes the id "tracking GUID : k" and starts k+1.
// "Changed since id k" is every unit with since > k in this file or in one of its parents.
//
// Every open for writing starts a new tracking GUID and adds the one before it, with its last sealed epoch, to the
// lineage: so an id is never issued twice, even when disk and tracking files are rolled back or copied together. An id
// is known to a file when its GUID is the current one or in the lineage and its epoch is at most that GUID's last sealed
// one; any other is RP_ERR_TRACKING_ID and the caller reads everything.
//
// rp_rct_mark is lock-free. The caller guarantees (rp_gate) that no mark runs during seal and that mark comes before the
// change it announces. The other functions may be called from several threads too, except those that free.
#ifndef RP_RCT_RCT_H
#define RP_RCT_RCT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/gate.h"
#include "base/guid.h"
#include "base/ranges.h"
#include "disk/vhdx.h"
#include "io/fs.h"

struct rp_rct;

// One moment in tracking. As text: "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001" (facts/disk.md 1.6).
struct rp_rct_id {
    struct rp_guid tracking;
    uint32_t epoch;
};
#define RP_RCT_ID_TEXT 64
const char *rp_rct_id_format(const struct rp_rct_id *id, char out[RP_RCT_ID_TEXT]);
int rp_rct_id_parse(const char *text, struct rp_rct_id *id, struct rp_error *err); // RP_ERR_TRACKING_SYNTAX

// The state of the disk file that a tracking file is bound to.
struct rp_rct_disk {
    uint64_t virtual_size;
    struct rp_guid disk_id;
    struct rp_guid file_write_guid, data_write_guid; // as the VHDX header says now
    // As the file system says now. Where a clean end binds to it (freeze, close, recover, adopt): as it will still say after a
    // power cut (rp_store_settle), or that cut turns into "somebody else changed the disk".
    struct rp_store_identity identity;
};
// Fills it from a disk that is open.
int rp_rct_disk_of(struct rp_vhdx *vhdx, struct rp_rct_disk *disk, struct rp_error *err);

enum rp_rct_verdict {
    RP_RCT_CLEAN,   // disk and tracking are as they were left: exact
    RP_RCT_NEW,     // there was no tracking file: tracking starts now, older ids are unknown
    RP_RCT_UNCLEAN, // the last session did not end: what it may have changed counts as changed in the epoch it was in
    RP_RCT_FOREIGN, // somebody else changed the disk: everything counts as changed in the current epoch. Or the file is
                    // damaged, or of another disk, or the disk shrank: tracking starts anew, older ids are unknown
};

// "<disk path>.rct"; malloc'ed.
char *rp_rct_path(const char *disk_path);

// Opens the tracking file of a disk about to be opened for writing, or creates it, and durably records that a session
// with these GUIDs began, before the disk file is touched. A file there that is not ours (no valid signature) is left
// alone: RP_ERR_TRACKING_OFF. `disk` is the state before the session. RP_ERR_BUSY while anybody has the tracking file open.
// `verdict` may be NULL.
struct rp_rct *rp_rct_open_write(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk,
                                 const struct rp_vhdx_session *session, enum rp_rct_verdict *verdict,
                                 struct rp_error *err);
// Opens it to ask only; writes nothing, holds a shared lock. Without a usable, clean, matching file: RP_ERR_TRACKING_OFF;
// during a session: RP_ERR_BUSY.
struct rp_rct *rp_rct_open_read(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk,
                                struct rp_error *err);

// For a file at rest that rp_rct_open_read refuses because a crash left its tracking open: what it may miss counts as
// changed, as rp_rct_open_write has it, and it is a frozen file again, durably, at return. RP_ERR_TRACKING_OFF where there
// is nothing to go on with: no file, not ours, damaged, of another disk.
struct rp_rct *rp_rct_recover(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk,
                              struct rp_error *err);

// The tracking of a frozen disk that is open, to ask only: as rp_rct_open_read, or, where that says RP_ERR_TRACKING_OFF, as
// rp_rct_recover. NULL, and why rp_rct_open_read refused.
struct rp_rct *rp_rct_open_frozen(struct rp_fs *fs, struct rp_vhdx *vhdx, struct rp_error *err);

// Begins, durably at return, the tracking of a disk file at rest that has none, whose content is what some other file's was at
// `id` (the caller knows): that id is known from now on, and nothing has changed since. No other id is. RP_ERR_EXISTS when
// there is a tracking file.
int rp_rct_begin_at(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk, const struct rp_rct_id *id,
                    struct rp_error *err);

// Deletes the tracking files (.rct, .mrt) of a disk file that is being deleted. One that is not ours stays; none is fine.
int rp_rct_remove(struct rp_fs *fs, const char *disk_path, struct rp_error *err);

// Prepares, durably and before the pause, the tracking file of a child disk that will take over when `parent` is sealed:
// same tracking GUID and lineage, empty since[], epoch = parent's + 1. `child_disk` is the child file's state. Above a
// parent that is at rest already it starts a branch: a new tracking GUID. A tracking file of ours at that path is
// replaced, one that is not is RP_ERR_TRACKING_OFF.
struct rp_rct *rp_rct_prepare_child(struct rp_rct *parent, const char *child_path, const struct rp_rct_disk *child_disk,
                                    const struct rp_vhdx_session *session, struct rp_error *err);

// Before the change: every unit that the range touches has changed in the current epoch. Lock-free, no syscall.
void rp_rct_mark(struct rp_rct *rct, uint64_t offset, uint64_t length);
// A power cut. Beside "<disk>.rct" stands "<disk>.mrt", a coarse bitmap of regions that is written *through*: a region is set
// durably before the first change in it. What the array lost then counts as changed in the regions that are set, and nowhere
// else (docs/formats/mrt.md). Inside the gate, before the mark, with no system call:
bool rp_rct_covered(struct rp_rct *rct, uint64_t offset, uint64_t length);
// When it says no, leave the gate and call this, then enter and ask again: sets the regions, durably at return. Calls from
// several threads share their syncs. NO_SPACE (a file system that copies on write): it can be called again when there is room.
// Any other failure is final for the session: what is not covered cannot be changed any more. Who marks without asking pays the
// sync inside rp_rct_mark, and the process aborts if it fails.
// Beside a .mrt that is not ours everything is covered: an unclean end counts all of the disk as changed.
int rp_rct_cover(struct rp_rct *rct, uint64_t offset, uint64_t length, struct rp_error *err);
// In the background: writes the array, durably, and lets go of the regions that were not used lately. A new generation of
// the bitmap begins, everybody who is inside `gate` has left, the array is written, and only then does the generation before
// end. From one thread at a time; not from inside the gate. After NO_SPACE, as after that of rp_rct_freeze and rp_rct_grow, it
// can be called again when there is room, and what it would have let go of counts until then; other failures are final.
int rp_rct_flush(struct rp_rct *rct, struct rp_gate *gate, struct rp_error *err);
// Bytes of the disk that a power cut now would add to the next incremental, at most: tells when to flush. 0 when no session is
// under way; all of the disk, and no flush changes that, beside a .mrt that is not ours.
uint64_t rp_rct_exposed(const struct rp_rct *rct);

// A mere kill. From here on the array and the epoch are kept in `shm` (rp_rct_shm_size() bytes, empty), so that marks outlive
// the process. Right after rp_rct_open_write, rp_rct_prepare_child, rp_rct_prepare_merge or
// rp_rct_thaw, while nobody marks. Takes `shm` over when
// it succeeds: a clean close or rp_rct_freeze removes it, abandon leaves it. When the memory for a mark cannot be had, that mark is kept in the process only,
// and `shm` says so: then a kill counts like a power cut.
int rp_rct_share(struct rp_rct *rct, struct rp_shm *shm, struct rp_error *err);
size_t rp_rct_shm_size(void);
// Ends the session of a process that died, in its name, cleanly: every mark and every seal that it made is in the file,
// durably, bound to `disk`, which is its state after rp_vhdx_adopt. `shm` is borrowed. STATE: it is not of this file's last
// session; nothing was changed, and opening the file finds out what can be known. Can be run again.
int rp_rct_adopt(struct rp_fs *fs, const char *disk_path, const struct rp_rct_disk *disk, struct rp_shm *shm,
                 struct rp_error *err);

// In memory only (the pause): ends the epoch. The id must not be shown before rp_rct_freeze returned 0.
struct rp_rct_id rp_rct_seal(struct rp_rct *rct);
// After a seal with a child: writes everything, durably, as a clean file bound to the frozen disk as it is now
// (disk = its state after rp_vhdx_freeze). The tracker answers queries until closed, marks are a bug.
int rp_rct_freeze(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err);
// Clean end of a writing session: as freeze, without a seal; the disk was closed before. Frees in every case. A tracker
// that is frozen or was opened to ask is only freed (`disk` may be NULL then).
int rp_rct_close(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err);
void rp_rct_abandon(struct rp_rct *rct); // frees, writes nothing: what a crash would leave. NULL is fine
RP_DEFINE_CLEANUP(struct rp_rct, rp_rct_abandon)

// Whether a write or sync of the array failed for good: nobody knows what the file holds.
bool rp_rct_failed(struct rp_rct *rct, struct rp_error *why);

uint32_t rp_rct_unit_size(const struct rp_rct *rct); // 64 KiB; larger above 8 TiB
uint32_t rp_rct_unit_size_for(uint64_t virtual_size);
struct rp_guid rp_rct_tracking_guid(const struct rp_rct *rct);
uint32_t rp_rct_epoch(const struct rp_rct *rct); // the current, not yet sealed one
bool rp_rct_last_sealed(const struct rp_rct *rct, struct rp_rct_id *id); // false: none yet
bool rp_rct_newer_changes(const struct rp_rct *rct);                     // something was marked since that id

// Appends, ascending and joined, what changed since `id` in the range, according to chain[0] (which must know the id)
// and its parents chain[1..]. Unit-aligned, clipped to the range, which must lie inside chain[0]'s disk (RP_ERR_INVALID).
// A parent that somebody wrote to after its child was made counts as changed everywhere; a NULL in the chain (a file
// without tracking) is RP_ERR_TRACKING_OFF. Safe beside marks, seal and merge.
int rp_rct_query(struct rp_rct *const *chain, size_t depth, const struct rp_rct_id *id, uint64_t offset,
                 uint64_t length, struct rp_ranges *changed, struct rp_error *err);

// Growth is a change of the new space; ids stay valid. Durable at return. Call it before the disk grows. Only in a writing
// session (RP_ERR_STATE); never shrinks (RP_ERR_INVALID).
int rp_rct_grow(struct rp_rct *rct, uint64_t virtual_size, struct rp_error *err);
// Bytes of the disk as tracking knows it: more than it has when the disk could not follow a growth, until it is at rest.
uint64_t rp_rct_virtual_size(const struct rp_rct *rct);

// First step of merging child into parent, durable at return: parent's since becomes the per-unit maximum, it takes the
// child's tracking GUID, lineage and epoch, and it is bound to the parent disk both as it is (`disk`) and as `session`
// will leave it. From here on the parent is right beneath this child only, and says so in its file; elsewhere everything
// counts as changed. Idempotent: a merge that was interrupted anywhere is run again. No marks in either meanwhile. When the
// disk has all of the child: rp_rct_merged; then, or after a failure, rp_rct_freeze; or rp_rct_thaw when `child` was the
// live leaf. RP_ERR_BUSY: a reader has the parent's file.
int rp_rct_merge(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                 const struct rp_vhdx_session *session, struct rp_error *err);
// The same for a live child, with a pause that waits for nothing. Before it, durably, while the guest writes to the child: the
// maximum as it is now, and the parent becomes the live tracker of a session to come, to be shared when its disk is opened: until
// rp_rct_ready_merge a kill or a power cut leaves it exact, shared or not. The child does not grow from here on.
int rp_rct_prepare_merge(struct rp_rct *child, struct rp_rct *parent, const struct rp_rct_disk *disk,
                         const struct rp_vhdx_session *session, struct rp_error *err);
// Then, durable at return: marks in the parent may come that the file does not have.
int rp_rct_ready_merge(struct rp_rct *parent, struct rp_error *err);
// In the pause, in memory only: what was marked since; the parent's disk has all of the child, if not durably. From here on the
// parent is marked. Then, when that is durable, rp_rct_merged and rp_rct_thaw.
void rp_rct_finish_merge(struct rp_rct *child, struct rp_rct *parent);
// Binds a file at rest to its disk after a change of metadata that is not a change of content (new parent locator):
// durably accepts both `disk` and `session`; finish with rp_rct_freeze.
int rp_rct_rebind(struct rp_rct *rct, const struct rp_rct_disk *disk, const struct rp_vhdx_session *session,
                  struct rp_error *err);
// The child's content is in the parent disk, durably. In memory; the next freeze or thaw makes it known.
void rp_rct_merged(struct rp_rct *parent);
// The same tracker goes on as the live one of a writing session (the leaf was merged into this parent), durably at return:
// after rp_rct_merge or rp_rct_finish_merge, whose session it is, and rp_rct_merged; before anything durable names the parent as
// the leaf. Then rp_rct_share, if that has not been done. NO_SPACE: it can be called again.
int rp_rct_thaw(struct rp_rct *parent, struct rp_error *err);

#endif
