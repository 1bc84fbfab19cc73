#include "rct/pages.h"

#include <stdlib.h>

struct rp_rct_page *rp_rct_pages_get(struct rp_rct_pages *pages, uint64_t index)
{
    struct rp_rct_chunk *chunk = atomic_load_explicit(&pages->chunks[index / RP_RCT_CHUNK], memory_order_acquire);
    return chunk ? atomic_load_explicit(&chunk->pages[index % RP_RCT_CHUNK], memory_order_acquire) : NULL;
}

struct rp_rct_page *rp_rct_pages_make(struct rp_rct_pages *pages, uint64_t index)
{
    _Atomic(struct rp_rct_chunk *) *chunk_at = &pages->chunks[index / RP_RCT_CHUNK];
    struct rp_rct_chunk *chunk = atomic_load_explicit(chunk_at, memory_order_acquire);
    if (!chunk) {
        struct rp_rct_chunk *fresh = rp_xcalloc(1, sizeof *fresh);
        if (atomic_compare_exchange_strong(chunk_at, &chunk, fresh))
            chunk = fresh;
        else
            free(fresh); // somebody was faster: `chunk` is theirs now
    }
    _Atomic(struct rp_rct_page *) *page_at = &chunk->pages[index % RP_RCT_CHUNK];
    struct rp_rct_page *page = atomic_load_explicit(page_at, memory_order_acquire);
    if (!page) {
        struct rp_rct_page *fresh = rp_xcalloc(1, sizeof *fresh);
        if (atomic_compare_exchange_strong(page_at, &page, fresh))
            page = fresh;
        else
            free(fresh);
    }
    return page;
}

void rp_rct_pages_clear(struct rp_rct_pages *pages)
{
    for (size_t i = 0; i < RP_RCT_CHUNKS; i++) {
        struct rp_rct_chunk *chunk = atomic_exchange(&pages->chunks[i], NULL);
        for (size_t j = 0; chunk && j < RP_RCT_CHUNK; j++)
            free(atomic_load(&chunk->pages[j]));
        free(chunk);
    }
}

bool rp_rct_page_raise(struct rp_rct_page *page, size_t unit, uint32_t epoch)
{
    uint32_t old = atomic_load_explicit(&page->since[unit], memory_order_relaxed);
    while (old < epoch)
        if (atomic_compare_exchange_weak_explicit(&page->since[unit], &old, epoch, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}
