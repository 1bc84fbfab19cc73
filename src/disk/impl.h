// What the files of src/disk share about an open VHDX. Internal.
//
// Locking. `lock` guards changes of the metadata cache, the block table, file space and everything without another
// comment. Payload I/O runs without it:
// - Reads and overwrites of present space run inside `gate`, and look the table up without the lock (rp_blocks_find).
//   Space that a trim freed is handed out again only after everybody had left the gate (rp_space), so late I/O can never
//   reach another block's data.
// - A write that must change the block's state registers the block in `moving`; everybody who would change that block
//   waits for it, but for other writes into a partly present block. New data is in the file before the state says so.
// Who is inside the gate may take `lock` for a moment; nobody waits for the gate, or flushes, with `lock` held.
#ifndef RP_DISK_IMPL_H
#define RP_DISK_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/gate.h"
#include "disk/format.h"
#include "disk/locator.h"
#include "disk/vhdx.h"

// ---- cache.c: 4 KiB pages of metadata: block table, sector bitmaps, metadata region, region tables

enum { RP_PAGE_WORDS = RP_VHDX_PAGE / 8 };

struct rp_page {
    _Atomic uint64_t offset;        // in the file
    _Atomic(struct rp_page *) next; // same bucket
    atomic_uint version;            // odd: in no bucket
    atomic_bool recent;             // used since the clock hand passed
    bool dirty;                     // differs from what was last given to the log
    bool pending;                   // what was given to the log is not in place yet
    uint16_t slot;                  // in the journal, + 1
    _Atomic uint64_t words[RP_PAGE_WORDS]; // as in the file: little endian
};

enum { RP_CACHE_BUCKETS = 4096, RP_CACHE_PAGES = 8192 }; // 32 MiB, plus what cannot be dropped

struct rp_cache {
    _Atomic(struct rp_page *) buckets[RP_CACHE_BUCKETS];
    struct rp_page **pages; // all of them, in no order
    size_t count, capacity, hand;
    size_t dirty;           // pages
    size_t reserved;        // pages that operations under way may still make dirty
};

// ---- journal.c: what a killed process leaves of the pages that are dirty or pending

enum { RP_JOURNAL_SLOTS = 2048 };

struct rp_journal {
    struct rp_shm *shm;  // NULL: not shared
    size_t count, used;  // slots that have memory, that hold a page
    uint16_t free[RP_JOURNAL_SLOTS]; // slot numbers, + 1
    size_t free_count;
};

// ---- log.c, replay.c

struct rp_log {
    uint64_t offset;          // in the file
    uint32_t length;
    struct rp_guid guid;      // zero: not in use
    uint64_t sequence;        // of the next entry
    uint32_t head;            // where it goes, from the start of the log
    uint32_t last;            // where the last one is
    bool unsynced;            // its pages are in place, but not durably yet
    size_t batch;             // pages that one entry may hold: three entries fit in the log, two batches in the journal
};

// A dirty log replayed in memory for a reader.
struct rp_overlay {
    struct rp_ranges zeros;   // pages of the cache go before these
    uint64_t file_size;       // what the file's size would be after a replay; 0: no overlay
};

// ---- space.c: which parts of the file are free

struct rp_space {
    uint64_t end;      // everything allocated lies below; new space beyond reads as zeros
    uint64_t extended; // size that the file has been given
    uint64_t flushed;  // `end` at the last completed sync
    // The way of freed space back to use; each step happens at a flush:
    struct rp_ranges freed;   // the table no longer names it, in memory
    struct rp_ranges leaving; // the log entry that says so is being written
    struct rp_ranges dirty;   // durably unused, holds old data
    struct rp_ranges clearing;// was made zeros, not durably yet
    struct rp_ranges zeros;   // may be allocated
};

enum { RP_MOVING_MAX = 64 };

struct rp_moving {
    uint64_t block;
    unsigned sharers; // that write into sectors of a partly present block; 0: one who will have it alone
};

// ---- table.c

struct rp_table {
    atomic_uint_fast64_t offset; // in the file
    uint64_t pages;              // of the largest disk with blocks of this size
    _Atomic uint64_t *used;      // a bit per page: 0: nothing but zeros, there was never an entry
    uint64_t *backed;            // a bit per page that has space in the file, so that writing it cannot fail for that
    uint64_t *bitmaps_backed;    // a bit per chunk whose sector bitmap has
};

struct rp_vhdx {
    struct rp_fs *fs;
    struct rp_store *store;
    char *path;
    unsigned flags;
    struct rp_vhdx_info info;
    struct rp_vhdx *parent; // borrowed

    pthread_mutex_t lock;
    pthread_cond_t changed; // a block stopped moving, a reservation ended, a flush ended
    unsigned waiters;       // for it
    struct rp_gate *gate;

    // header and session (session.c); `session_lock` goes before `lock`
    pthread_mutex_t session_lock;
    struct rp_vhdx_header header;
    int slot;                  // where the current header is
    struct rp_vhdx_session session;
    atomic_int begun;          // enum rp_session
    atomic_bool writable;
    atomic_bool failed;        // a sync or the log failed: `failure` says why, nothing is written any more
    struct rp_error failure;

    struct rp_vhdx_layout layout;
    atomic_uint_fast64_t size; // = layout.size, for bounds checks without the lock
    struct rp_vhdx_region *regions;
    size_t region_count;
    int good_regions;          // the copy of the region table that we used
    bool repair_regions;       // the other one is damaged or different
    struct rp_table table;
    uint64_t metadata_offset;
    uint32_t bat_length, metadata_length;
    uint64_t file_size;        // of a reader's file, as it was at open
    atomic_uint_fast64_t file_end; // nothing that the table names lies beyond
    struct rp_locator locator;

    struct rp_cache cache;
    struct rp_journal journal;
    struct rp_overlay overlay;
    struct rp_log log;
    struct rp_space space;
    struct rp_moving moving[RP_MOVING_MAX];
    size_t moving_count;
    bool growing;              // nobody may reserve

    // flush.c
    bool flushing;
    uint64_t flush_asked, flush_done; // tickets
    atomic_bool written;              // payload was written since the last sync began
    bool barrier;                     // payload must be durable before the next log entry
};

static inline void rp_lock(struct rp_vhdx *v) { pthread_mutex_lock(&v->lock); }
static inline void rp_unlock(struct rp_vhdx *v) { pthread_mutex_unlock(&v->lock); }
static inline void rp_wait(struct rp_vhdx *v) // until `changed`
{
    v->waiters++;
    pthread_cond_wait(&v->changed, &v->lock);
    v->waiters--;
}
static inline void rp_wake(struct rp_vhdx *v)
{
    if (v->waiters)
        pthread_cond_broadcast(&v->changed);
}
enum rp_locked { RP_UNLOCKED, RP_LOCKED }; // whether the caller holds `lock`

// ---- cache.c (under lock unless noted)

// Without lock: the word at `offset` of the file, a multiple of 8, if its page is in the cache.
bool rp_cache_peek(struct rp_vhdx *v, uint64_t offset, uint64_t *word);
// The page at `offset`; valid until the next call that may load one. NULL on failure.
struct rp_page *rp_cache_get(struct rp_vhdx *v, uint64_t offset, struct rp_error *err);
// As rp_cache_get for a page that is to be replaced as a whole: nothing is read.
struct rp_page *rp_cache_blank(struct rp_vhdx *v, uint64_t offset);
// A word of a page of the block table or a sector bitmap: one that does not change leaves the page clean.
uint64_t rp_page_get(const struct rp_page *page, size_t index);
void rp_page_set(struct rp_vhdx *v, struct rp_page *page, size_t index, uint64_t word);
// The other pages, which nobody looks at without the lock, change by bytes.
static inline uint8_t *rp_page_bytes(struct rp_page *page) { return (uint8_t *)page->words; }
int rp_cache_read(struct rp_vhdx *v, uint64_t offset, void *data, size_t size, struct rp_error *err);
// Bytes that do not change leave their page clean.
int rp_cache_write(struct rp_vhdx *v, uint64_t offset, const void *data, size_t size, struct rp_error *err);
void rp_cache_drop(struct rp_vhdx *v, uint64_t offset, uint64_t length); // forgets pages, whatever they hold
void rp_cache_free(struct rp_vhdx *v);

// ---- journal.c (under lock)

// Takes memory for so many more pages. NO_SPACE when there is none.
int rp_journal_room(struct rp_journal *j, size_t slots, struct rp_error *err);
void rp_journal_set(struct rp_journal *j, struct rp_page *page, size_t index, uint64_t word); // as in the file
void rp_journal_give_back(struct rp_journal *j, struct rp_page *page); // the page is in place
// The log's last entry is in the file: from now on pages of it may be given back.
void rp_journal_logged(struct rp_journal *j, const struct rp_log *log);
// Whether a log whose newest entry has that number is as far as the one that the journal goes with. One of an earlier state
// of the file (a snapshot put back, writes that the machine lost) lacks entries whose pages the journal has given back.
bool rp_journal_fits(const struct rp_shm *shm, const struct rp_guid *log, uint64_t sequence);
void rp_journal_remove(struct rp_vhdx *v); // not under lock: the session ended well
// What another process left. False: nothing.
bool rp_journal_of(struct rp_shm *shm, struct rp_guid *session, struct rp_guid *before);
uint64_t rp_journal_page(struct rp_shm *shm, size_t slot, const _Atomic uint64_t **words); // its place; 0: none

// ---- replay.c

// Replays a dirty log: into memory for a reader, into the file for a writer (new FileWriteGuid first).
int rp_log_replay(struct rp_vhdx *v, struct rp_error *err);
// For who goes on with a dead process's session: replays its log into the file, durably, and takes the log over as it is.
// RP_ERR_STATE, and nothing is changed, when the log is older than the journal that the process left.
int rp_log_resume(struct rp_vhdx *v, const struct rp_shm *journal, struct rp_error *err);

// ---- log.c

// A copy of the dirty pages, taken under lock; they become pending.
struct rp_batch {
    size_t count;
    uint64_t *offsets;
    uint8_t *pages;
};
void rp_batch_take(struct rp_vhdx *v, struct rp_batch *batch);
void rp_batch_free(struct rp_batch *batch);
// Before a log is started or replayed: a dirty one is read as a whole. Microsoft's and ours have 1 to 16 MiB. UNSUPPORTED.
int rp_log_check_length(const struct rp_vhdx *v, struct rp_error *err);
size_t rp_log_batch(uint32_t length); // pages, for a log of so many bytes
// Starts a log: a new GUID and one empty entry. Durable after a sync; then the header may name the GUID.
int rp_log_start(struct rp_vhdx *v, struct rp_error *err);
// Writes one entry; durable after a sync.
int rp_log_write(struct rp_vhdx *v, const struct rp_batch *batch, uint64_t flushed, uint64_t last,
                 struct rp_error *err);
// Writes the pages where they belong; only after the entry is durable.
int rp_log_apply(struct rp_vhdx *v, const struct rp_batch *batch, struct rp_error *err);

// ---- session.c

enum rp_session { RP_SESSION_NONE, RP_SESSION_FILE, RP_SESSION_DATA };
// Before any change: RP_SESSION_FILE for the file alone, RP_SESSION_DATA for what the guest can see. Cheap when done.
int rp_session_begin(struct rp_vhdx *v, enum rp_session level, struct rp_error *err);
// Writes the header into the other slot and syncs; twice makes both agree.
int rp_header_update(struct rp_vhdx *v, int times, struct rp_error *err);
// Flushes, applies, clears LogGuid: the file is clean. Does nothing when no session began.
int rp_session_end(struct rp_vhdx *v, struct rp_error *err);
// Records the first failure for good and returns -1.
int rp_session_fail(struct rp_vhdx *v, const struct rp_error *why);
void rp_session_fail_locked(struct rp_vhdx *v, const struct rp_error *why);
// 0 when writing is possible.
int rp_session_check(struct rp_vhdx *v, struct rp_error *err);

// ---- flush.c

enum rp_flush { RP_FLUSH_LOG, RP_FLUSH_ALL }; // LOG: room in the log is wanted, from inside an operation
int rp_flush(struct rp_vhdx *v, enum rp_flush what, struct rp_error *err);
// Under lock (dropped meanwhile when the log is full: look again at everything afterwards): reserves `pages`.
int rp_reserve(struct rp_vhdx *v, size_t pages, struct rp_error *err);
void rp_unreserve(struct rp_vhdx *v, size_t pages);

// ---- space.c (under lock unless noted)

// Looks at the whole table: fails on blocks outside the file or on one another; finds free space. Before first use.
int rp_space_scan(struct rp_vhdx *v, struct rp_error *err);
int rp_space_start(struct rp_vhdx *v, struct rp_error *err); // session begins: cuts off what lies beyond `end`
int rp_space_cut(struct rp_vhdx *v, struct rp_error *err);   // session ended: and free space before `end` too
// Takes space in the file system for a part of the file, where it can. NO_SPACE.
int rp_space_back(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_error *err);
// Space that reads as zeros, durably so. Not below `zeros` or `end` of an earlier state.
int rp_space_take(struct rp_vhdx *v, uint64_t size, uint64_t *offset, struct rp_error *err);
void rp_space_free(struct rp_vhdx *v, uint64_t offset, uint64_t size);   // the table named it until now
void rp_space_return(struct rp_vhdx *v, uint64_t offset, uint64_t size); // taken, but never named
// Not under lock, by the flusher: gives unused space back to the file system. What cannot be given back waits.
void rp_space_clear(struct rp_vhdx *v);
void rp_space_free_all(struct rp_vhdx *v);

// ---- table.c (under lock unless noted)

int rp_table_init(struct rp_vhdx *v, struct rp_error *err);
void rp_table_free(struct rp_table *table);
// A part of the file, the table's or not, may hold other than zeros.
void rp_table_mark(struct rp_vhdx *v, uint64_t offset, uint64_t length);
int rp_table_get(struct rp_vhdx *v, enum rp_locked locked, uint64_t index, uint64_t *entry, struct rp_error *err);
int rp_table_put(struct rp_vhdx *v, uint64_t index, uint64_t entry, struct rp_error *err);
// The first entry at or after `index` that may be other than zero, at most `limit`. With or without lock.
uint64_t rp_table_skip(const struct rp_vhdx *v, uint64_t index, uint64_t limit);
// Before an entry changes, and bits of a chunk's bitmap at `offset`: takes space in the file for the pages. NO_SPACE.
int rp_table_back(struct rp_vhdx *v, uint64_t index, struct rp_error *err);
int rp_table_back_bitmap(struct rp_vhdx *v, uint64_t chunk, uint64_t offset, struct rp_error *err);

// ---- blocks.c (under lock unless noted)

struct rp_piece {
    unsigned state;       // as in the table; for a partly present block: FULL or NOT_PRESENT, by its bitmap
    uint64_t file_offset; // when state is FULL
    uint64_t length;      // up to where all of that holds, at most what was asked for
};
// Where the bytes at `offset` are. Runs on over neighbouring blocks while they are of one kind (and adjacent in the
// file). With the lock, or inside the gate, as long as what it found is read or written: outside, the table and what it
// names may be moved, freed and used again under one's eyes.
int rp_blocks_find(struct rp_vhdx *v, enum rp_locked locked, uint64_t offset, uint64_t length, struct rp_piece *piece,
                   struct rp_error *err);
// The same for who only wants to know: inside the gate for the time of the look.
int rp_blocks_look(struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_piece *piece, struct rp_error *err);
int rp_block_get(struct rp_vhdx *v, uint64_t block, uint64_t *entry, struct rp_error *err);
int rp_block_put(struct rp_vhdx *v, uint64_t block, unsigned state, uint64_t file_offset, struct rp_error *err);
int rp_block_back(struct rp_vhdx *v, uint64_t block, struct rp_error *err); // before a change: see rp_table_back
// Where the sector bitmap of a block's chunk is: allocated (all zeros) when there is none, backed in any case.
int rp_bitmap_need(struct rp_vhdx *v, uint64_t block, uint64_t *file_offset, struct rp_error *err);
// Sets or clears the bits of a range inside one block.
int rp_bitmap_fill(struct rp_vhdx *v, uint64_t bitmap, uint64_t offset, uint64_t length, bool value,
                   struct rp_error *err);
// How far from `offset` the bit keeps its value, within `length`. With or without lock.
int rp_bitmap_run(struct rp_vhdx *v, enum rp_locked locked, uint64_t bitmap, uint64_t offset, uint64_t length,
                  bool *value, uint64_t *run, struct rp_error *err);
static inline uint64_t rp_block_of(const struct rp_vhdx *v, uint64_t offset) { return offset / v->layout.block_size; }
// Where the block ends in the virtual disk.
uint64_t rp_block_end(const struct rp_vhdx *v, uint64_t block);
// Pages that one change of a block can make dirty.
size_t rp_block_pages(const struct rp_vhdx *v);
void rp_block_wait(struct rp_vhdx *v, uint64_t block);  // until it is not moving
// Registers a block to write into; waits while somebody else has it, but for those who let others share it.
void rp_block_move(struct rp_vhdx *v, uint64_t block);
void rp_block_let_share(struct rp_vhdx *v, uint64_t block); // it is partly present: others may write into it too
void rp_block_moved(struct rp_vhdx *v, uint64_t block);     // takes it out again

// ---- extents.c

// As rp_vhdx_chain_extents, with the lock of `v` held (the parents' are taken inside). An unknown parent counts as
// DATA.
int rp_chain_extents_locked(struct rp_vhdx *v, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent,
                            void *context,
                            struct rp_error *err);
int rp_check_range(const struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_error *err);

// ---- io.c

// Reads from the store; what a replayed log says is behind the end of the file reads as zeros.
int rp_payload_read(struct rp_vhdx *v, void *data, size_t size, uint64_t offset, struct rp_error *err);

// ---- open.c

struct rp_vhdx *rp_vhdx_new(struct rp_fs *fs, const char *path, unsigned flags, const struct rp_vhdx_session *session);
// Opens and locks the file, and reads its header.
int rp_vhdx_open_store(struct rp_vhdx *v, struct rp_error *err);

// How the bytes of a write get into the file: from memory, shared with another file, past the page cache. `put` brings
// what belongs at `offset` of the virtual disk to `file_offset` of the store; called from the thread that writes, without
// any lock, for consecutive pieces of the range.
struct rp_payload {
    int (*put)(void *context, struct rp_store *store, uint64_t file_offset, uint64_t offset, uint64_t length,
               struct rp_error *err);
    void *context;
};
// As rp_vhdx_write, by `payload`: the one way in which payload gets into a file and its block becomes present.
int rp_payload_write(struct rp_vhdx *v, uint64_t size, uint64_t offset, const struct rp_payload *payload,
                     struct rp_error *err);

// ---- load.c

// Parses region tables and metadata, through the cache.
int rp_vhdx_load(struct rp_vhdx *v, struct rp_error *err);
// Under lock, when a session begins: makes both copies of the region table the same again, through the log.
int rp_vhdx_repair_regions(struct rp_vhdx *v, struct rp_error *err);
int rp_vhdx_load_locator(struct rp_vhdx *v, const struct rp_vhdx_item *item, struct rp_error *err);

#endif
