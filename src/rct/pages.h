// The array since[] in memory: a table of pages in two levels, made when first touched. Values only grow. No locks:
// a page, once there, stays until the table is cleared. The pages live on the heap, or in shared memory that outlives us.
#ifndef RP_RCT_PAGES_H
#define RP_RCT_PAGES_H

#include <stdatomic.h>

#include "io/shm.h"
#include "rct/file.h"

struct rp_rct_page {
    _Atomic uint32_t since[RP_RCT_PAGE_UNITS];
    atomic_bool loaded; // what the file holds has been folded in
    atomic_bool dirty;  // has values that the file does not have
};

enum {
    RP_RCT_CHUNK = 1024,
    RP_RCT_CHUNKS = (RP_RCT_PAGES_MAX + RP_RCT_CHUNK - 1) / RP_RCT_CHUNK,
    RP_RCT_SHM_PAGES_AT = 4096, // in shared memory, page i at this + 4096·i
    RP_RCT_SHM_STEP = 16,       // pages whose memory is taken at once
};
_Static_assert(sizeof(struct rp_rct_page) <= 4096, "a page in shared memory has 4096 bytes");

struct rp_rct_chunk {
    _Atomic(struct rp_rct_page *) pages[RP_RCT_CHUNK];
};

struct rp_rct_pages {
    _Atomic(struct rp_rct_chunk *) chunks[RP_RCT_CHUNKS];
    struct rp_shm *shm;             // NULL: on the heap
    _Atomic uint32_t *incomplete;   // in shm: not all pages are in it
};

struct rp_rct_page *rp_rct_pages_get(struct rp_rct_pages *pages, uint64_t index);  // NULL: not there
struct rp_rct_page *rp_rct_pages_make(struct rp_rct_pages *pages, uint64_t index); // never NULL
void rp_rct_pages_clear(struct rp_rct_pages *pages); // nobody uses them meanwhile
// From here on the pages live there, those too that are here already. NO_SPACE leaves everything as it was. Nobody uses them
// meanwhile.
int rp_rct_pages_move(struct rp_rct_pages *pages, struct rp_shm *shm, _Atomic uint32_t *incomplete, struct rp_error *err);
// The first index from `index` on that has a page; RP_RCT_PAGES_MAX: none.
uint64_t rp_rct_pages_next(struct rp_rct_pages *pages, uint64_t index);
// since[unit] = max(since[unit], epoch); true if that changed it.
bool rp_rct_page_raise(struct rp_rct_page *page, size_t unit, uint32_t epoch);
struct rp_rct_page *rp_rct_shm_page(const struct rp_shm *shm, uint64_t index);

#endif
