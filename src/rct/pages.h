// The array since[] in memory: a table of pages in two levels, made when first touched. Values only grow. No locks:
// a page, once there, stays until the table is cleared.
#ifndef RP_RCT_PAGES_H
#define RP_RCT_PAGES_H

#include <stdatomic.h>

#include "rct/file.h"

struct rp_rct_page {
    _Atomic uint32_t since[RP_RCT_PAGE_UNITS];
    atomic_bool loaded; // what the file holds has been folded in
    atomic_bool dirty;  // has values that the file does not have
};

enum { RP_RCT_CHUNK = 1024, RP_RCT_CHUNKS = (RP_RCT_PAGES_MAX + RP_RCT_CHUNK - 1) / RP_RCT_CHUNK };

struct rp_rct_chunk {
    _Atomic(struct rp_rct_page *) pages[RP_RCT_CHUNK];
};

struct rp_rct_pages {
    _Atomic(struct rp_rct_chunk *) chunks[RP_RCT_CHUNKS];
};

struct rp_rct_page *rp_rct_pages_get(struct rp_rct_pages *pages, uint64_t index);  // NULL: not there
struct rp_rct_page *rp_rct_pages_make(struct rp_rct_pages *pages, uint64_t index); // never NULL
void rp_rct_pages_clear(struct rp_rct_pages *pages); // nobody uses them meanwhile
// since[unit] = max(since[unit], epoch); true if that changed it.
bool rp_rct_page_raise(struct rp_rct_page *page, size_t unit, uint32_t epoch);

#endif
