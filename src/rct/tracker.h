// The tracker's inside, shared by the files of this folder.
#ifndef RP_RCT_TRACKER_H
#define RP_RCT_TRACKER_H

#include <pthread.h>

#include "rct/coarse.h"
#include "rct/file.h"
#include "rct/pages.h"

// What changes with every mark or seal; in shared memory when the tracker is shared. Each is one store: whatever instruction
// a kill comes at, the process that adopts it finds something true.
struct rp_rct_state {
    _Atomic uint32_t epoch;
    _Atomic uint32_t changed; // the last epoch in which something changed; 0: none that matters
    _Atomic uint32_t touched; // something changed in this session
    _Atomic uint32_t incomplete; // not all pages are in shared memory
    _Atomic uint32_t arrived; // all of the child that is being merged: the disk has it, durably or not
};

struct rp_rct {
    struct rp_fs *fs;
    char *path;
    struct rp_store *store;
    bool writable; // the store is open for writing
    bool failed;   // a write failed: nothing is committed any more
    bool torn;     // the slot that is written next holds a part of a header
    bool unnamed;  // the next flush needs a header: the file has pages that its header does not name, or may have
    bool warned;   // of damaged pages

    pthread_mutex_t lock; // everything but `pages`, `coarse` and the atomics
    // What the file says. epoch, virtual_size, changed and stem are filled in when it is written.
    struct rp_rct_header header;
    uint8_t *present;   // bitmap: which pages the file has
    size_t present_size;
    bool live;           // a writing session: marks may come
    struct rp_guid keep; // the stem, as long as this session changed nothing
    bool merged;                 // all of the child that header.merging names has arrived
    struct rp_guid then_merging; // what header.merging becomes then: the child's own

    // What rp_rct_mark needs.
    struct rp_rct_state *state; // &own, or in shared memory
    struct rp_rct_state own;
    _Atomic uint64_t virtual_size;
    unsigned unit_shift;
    struct rp_rct_pages pages;
    struct rp_rct_coarse coarse;
};

// An empty tracker without a file.
struct rp_rct *rp_rct_new(struct rp_fs *fs, const char *disk_path);
// Takes the facts of `header` over into the atomics.
void rp_rct_adopt_header(struct rp_rct *rct);
// Forgets all pages and makes the bitmap fit the disk's size.
void rp_rct_forget_pages(struct rp_rct *rct);
void rp_rct_fit_bitmap(struct rp_rct *rct);

// Units [first, end) changed in `epoch` or later. Marks may run.
void rp_rct_raise(struct rp_rct *rct, uint64_t first, uint64_t end, uint32_t epoch);
// rp_rct_floors_add; when the header is full, the floor that covers the fewest units goes into the pages: they must be
// durable before a header without it.
void rp_rct_add_floor(struct rp_rct *rct, uint64_t unit, uint32_t epoch);
// Space beyond the old size changed in the current epoch, the rest of its last unit included. The lock is held.
void rp_rct_resize(struct rp_rct *rct, uint64_t virtual_size);

// What stands in the file. Reading leaves the store as it is.
enum rp_rct_found { RP_RCT_FOUND, RP_RCT_FOUND_DAMAGED, RP_RCT_FOUND_NOT_OURS };
// Reads the newest valid slot into header and bitmap. -1: the store failed.
int rp_rct_read_slots(struct rp_rct *rct, enum rp_rct_found *found, struct rp_error *err);
int rp_rct_not_ours(struct rp_rct *rct, struct rp_error *err);
// Opens what is there under the exclusive lock; 0 with rct->store NULL: nothing is. TRACKING_OFF: not ours.
int rp_rct_open_existing(struct rp_rct *rct, enum rp_rct_found *found, struct rp_error *err);
// A valid header against the disk as it is now: CLEAN, UNCLEAN or FOREIGN.
enum rp_rct_verdict rp_rct_judge(const struct rp_rct_header *header, const struct rp_rct_disk *disk);
// After an unclean end the array is made to hold all that the header's doubt allows for: in memory, pages are dirty.
int rp_rct_recall(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err);
// To every id that is known, all of the disk has changed.
void rp_rct_change_all(struct rp_rct *rct, uint64_t virtual_size);

// The following hold the lock.

// Replaces the file at path by one that has only a header (not clean), durably, and keeps it open and locked.
int rp_rct_create_file(struct rp_rct *rct, struct rp_error *err);
// Writes the next header, durably.
int rp_rct_write_header(struct rp_rct *rct, bool clean, struct rp_error *err);
// Writes all dirty pages, durably. Only while the header in the file is not clean. As for the header, NO_SPACE leaves all as it
// was, to be tried again; any other failure is final.
int rp_rct_write_pages(struct rp_rct *rct, struct rp_error *err);
// Ends a session or what else left the file not clean: pages, then the header that calls them complete.
int rp_rct_settle(struct rp_rct *rct, const struct rp_rct_disk *disk, struct rp_error *err);
// A page with everything that memory and file know; NULL when nobody ever touched it.
int rp_rct_load_page(struct rp_rct *rct, uint64_t index, struct rp_rct_page **page, struct rp_error *err);
bool rp_rct_has_page(const struct rp_rct *rct, uint64_t index); // in the file
// Before the first change to a file that somebody else may have left: what its process wrote last, and was killed, is made
// durable, because the next slot goes over the one before it; and the unfinished file beside it goes, when a power cut left both.
int rp_rct_take_file(struct rp_rct *rct, struct rp_error *err);
// Makes a tracker that was opened to ask, or frozen, one that can be written, under the exclusive lock.
int rp_rct_make_writable(struct rp_rct *rct, struct rp_error *err);
struct rp_guid rp_rct_stem(const struct rp_rct *rct);
// Nobody but its children's sessions wrote to the parent since the child was made, and what of a merge has arrived there lies
// beneath this child. Both locks are held.
bool rp_rct_parent_fits(const struct rp_rct *child, const struct rp_rct *parent);
// The same without locks held.
bool rp_rct_layers_fit(struct rp_rct *child, struct rp_rct *parent);
// Begins a .mrt for the session that `header` is about to name, and sets its doubt.
int rp_rct_begin_coarse(struct rp_rct *rct, struct rp_rct_coarse *like, struct rp_error *err);
// What the array in the file of a live session may miss.
enum rp_rct_doubt rp_rct_live_doubt(const struct rp_rct *rct);

static inline void rp_rct_enter(const struct rp_rct *rct) { pthread_mutex_lock((pthread_mutex_t *)&rct->lock); }
static inline void rp_rct_leave(const struct rp_rct *rct) { pthread_mutex_unlock((pthread_mutex_t *)&rct->lock); }

#endif
