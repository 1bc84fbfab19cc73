// The tracker's inside, shared by the files of this folder.
#ifndef RP_RCT_TRACKER_H
#define RP_RCT_TRACKER_H

#include <pthread.h>

#include "rct/file.h"
#include "rct/pages.h"

struct rp_rct {
    struct rp_fs *fs;
    char *path;
    struct rp_store *store;
    bool writable; // the store is open for writing
    bool failed;   // a write failed: nothing is committed any more
    bool warned;   // of damaged pages

    pthread_mutex_t lock; // everything but `pages` and the atomics
    // header.clean tells what the file says now; virtual_size, changed and stem are filled in when it is written.
    struct rp_rct_header header;
    uint8_t *present;   // bitmap: which pages the file has
    size_t present_size;
    bool live;           // a writing session: marks may come
    struct rp_guid keep; // the stem, as long as this session changed nothing

    // What rp_rct_mark needs.
    atomic_uint epoch;
    _Atomic uint64_t virtual_size;
    unsigned unit_shift;
    atomic_bool changed; // in the current epoch
    atomic_bool touched; // in this session
    struct rp_rct_pages pages;
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
// rp_rct_floors_add; when the header is full, the floor that covers the fewest units goes into the pages.
void rp_rct_add_floor(struct rp_rct *rct, uint64_t unit, uint32_t epoch);

// What stands in the file. Reading leaves the store as it is.
enum rp_rct_found { RP_RCT_FOUND, RP_RCT_FOUND_DAMAGED, RP_RCT_FOUND_NOT_OURS };
// Reads the newest valid slot into header and bitmap. -1: the store failed.
int rp_rct_read_slots(struct rp_rct *rct, enum rp_rct_found *found, struct rp_error *err);

// The following hold the lock.

// Replaces the file at path by one that has only a header (not clean), durably, and keeps it open and locked.
int rp_rct_create_file(struct rp_rct *rct, struct rp_error *err);
// Writes the next header, durably.
int rp_rct_write_header(struct rp_rct *rct, bool clean, struct rp_error *err);
// Writes all dirty pages, durably. Only while the header in the file is not clean.
int rp_rct_write_pages(struct rp_rct *rct, struct rp_error *err);
// A page with everything that memory and file know; NULL when nobody ever touched it.
int rp_rct_load_page(struct rp_rct *rct, uint64_t index, struct rp_rct_page **page, struct rp_error *err);
bool rp_rct_has_page(const struct rp_rct *rct, uint64_t index); // in the file
// Makes a tracker that was opened to ask, or frozen, one that can be written, under the exclusive lock.
int rp_rct_make_writable(struct rp_rct *rct, struct rp_error *err);
struct rp_guid rp_rct_stem(const struct rp_rct *rct);
// Nobody but its children's sessions wrote to the parent since the child was made. Both locks are held.
bool rp_rct_parent_fits(const struct rp_rct *child, const struct rp_rct *parent);

static inline void rp_rct_enter(const struct rp_rct *rct) { pthread_mutex_lock((pthread_mutex_t *)&rct->lock); }
static inline void rp_rct_leave(const struct rp_rct *rct) { pthread_mutex_unlock((pthread_mutex_t *)&rct->lock); }

#endif
