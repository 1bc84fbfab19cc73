#include "rct/pages.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"

struct rp_rct_page *rp_rct_pages_get(struct rp_rct_pages *pages, uint64_t index)
{
    struct rp_rct_chunk *chunk = atomic_load_explicit(&pages->chunks[index / RP_RCT_CHUNK], memory_order_acquire);
    return chunk ? atomic_load_explicit(&chunk->pages[index % RP_RCT_CHUNK], memory_order_acquire) : NULL;
}

struct rp_rct_page *rp_rct_shm_page(const struct rp_shm *shm, uint64_t index)
{
    return (void *)((uint8_t *)rp_shm_data(shm) + RP_RCT_SHM_PAGES_AT + index * 4096);
}

// Without memory for it, shared memory is no place for the page: touching it would be a SIGBUS.
static int reserve(struct rp_shm *shm, uint64_t index, struct rp_error *err)
{
    uint64_t first = rp_align_down(index, RP_RCT_SHM_STEP), end = rp_min64(first + RP_RCT_SHM_STEP, RP_RCT_PAGES_MAX);
    return rp_shm_reserve(shm, RP_RCT_SHM_PAGES_AT + first * 4096, (size_t)(end - first) * 4096, err);
}

static _Atomic(struct rp_rct_page *) *place(struct rp_rct_pages *pages, uint64_t index)
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
    return &chunk->pages[index % RP_RCT_CHUNK];
}

static bool on_heap(const struct rp_rct_pages *pages, uint64_t index, const struct rp_rct_page *page)
{
    return !pages->shm || page != rp_rct_shm_page(pages->shm, index);
}

// Another page of the same step is there: so is the memory of this one.
static bool reserved(struct rp_rct_pages *pages, uint64_t index)
{
    uint64_t first = rp_align_down(index, RP_RCT_SHM_STEP);
    for (uint64_t i = first; i < rp_min64(first + RP_RCT_SHM_STEP, RP_RCT_PAGES_MAX); i++) {
        const struct rp_rct_page *page = rp_rct_pages_get(pages, i);
        if (page && !on_heap(pages, i, page))
            return true;
    }
    return false;
}

struct rp_rct_page *rp_rct_pages_make(struct rp_rct_pages *pages, uint64_t index)
{
    _Atomic(struct rp_rct_page *) *page_at = place(pages, index);
    struct rp_rct_page *page = atomic_load_explicit(page_at, memory_order_acquire), *fresh;
    if (page)
        return page;
    if (pages->shm && (reserved(pages, index) || !reserve(pages->shm, index, NULL))) {
        fresh = rp_rct_shm_page(pages->shm, index);
    } else {
        fresh = rp_xcalloc(1, sizeof *fresh);
        if (pages->shm) // before the first mark in it
            atomic_store(pages->incomplete, 1);
    }
    if (atomic_compare_exchange_strong(page_at, &page, fresh))
        return fresh;
    if (on_heap(pages, index, fresh))
        free(fresh);
    return page;
}

int rp_rct_pages_move(struct rp_rct_pages *pages, struct rp_shm *shm, _Atomic uint32_t *incomplete, struct rp_error *err)
{
    for (uint64_t i = 0; (i = rp_rct_pages_next(pages, i)) < RP_RCT_PAGES_MAX; i++)
        if (reserve(shm, i, err))
            return -1;
    for (uint64_t i = 0; (i = rp_rct_pages_next(pages, i)) < RP_RCT_PAGES_MAX; i++) {
        struct rp_rct_page *old = rp_rct_pages_get(pages, i);
        memcpy((void *)rp_rct_shm_page(shm, i), (const void *)old, sizeof *old);
        atomic_store(place(pages, i), rp_rct_shm_page(shm, i));
        free(old);
    }
    pages->shm = shm;
    pages->incomplete = incomplete;
    return 0;
}

uint64_t rp_rct_pages_next(struct rp_rct_pages *pages, uint64_t index)
{
    while (index < RP_RCT_PAGES_MAX) {
        struct rp_rct_chunk *chunk = atomic_load_explicit(&pages->chunks[index / RP_RCT_CHUNK], memory_order_acquire);
        if (!chunk)
            index = rp_align_down(index, RP_RCT_CHUNK) + RP_RCT_CHUNK;
        else if (!atomic_load_explicit(&chunk->pages[index % RP_RCT_CHUNK], memory_order_acquire))
            index++;
        else
            return index;
    }
    return RP_RCT_PAGES_MAX;
}

void rp_rct_pages_clear(struct rp_rct_pages *pages)
{
    for (size_t i = 0; i < RP_RCT_CHUNKS; i++) {
        struct rp_rct_chunk *chunk = atomic_exchange(&pages->chunks[i], NULL);
        for (size_t j = 0; chunk && j < RP_RCT_CHUNK; j++) {
            struct rp_rct_page *page = atomic_load(&chunk->pages[j]);
            if (page && on_heap(pages, i * RP_RCT_CHUNK + j, page))
                free(page);
        }
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
