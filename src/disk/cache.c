// 4 KiB pages of metadata. The table of a 64 TiB disk has half a GiB: pages come in when they are used and clean ones
// go.
//
// Pages are changed under the lock only, but looked at without it (rp_cache_peek). So a page is never freed before the
// file is closed, only used again for another place, and its version, odd meanwhile, tells a reader that this happened
// under his eyes.
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

static _Atomic(struct rp_page *) *bucket(struct rp_cache *cache, uint64_t offset)
{
    uint64_t page = offset / RP_VHDX_PAGE;
    return &cache->buckets[(page ^ page >> 12) % RP_CACHE_BUCKETS];
}

// Without the lock a page may move to another chain under one's feet: then nothing is found, at the latest after STEPS.
static struct rp_page *find(struct rp_cache *cache, uint64_t offset, size_t steps)
{
    struct rp_page *page = atomic_load_explicit(bucket(cache, offset), memory_order_acquire);
    while (page && steps-- && atomic_load_explicit(&page->offset, memory_order_relaxed) != offset)
        page = atomic_load_explicit(&page->next, memory_order_acquire);
    return steps + 1 ? page : NULL;
}

static void unlink_page(struct rp_cache *cache, struct rp_page *page)
{
    _Atomic(struct rp_page *) *link = bucket(cache, page->offset);
    for (struct rp_page *at; (at = atomic_load_explicit(link, memory_order_relaxed)) != page;)
        link = &at->next;
    atomic_store_explicit(link, atomic_load_explicit(&page->next, memory_order_relaxed), memory_order_release);
    cache->dirty -= page->dirty;
    page->dirty = page->pending = false;
    atomic_fetch_add(&page->version, 1); // odd: not to be looked at
}

// A clean page that was not used lately, taken out of its chain. With none at hand (NULL) the cache grows: what is dirty
// is bounded by the log, what a replay left by the log's size.
static struct rp_page *evict(struct rp_cache *cache)
{
    for (size_t tries = 0; tries < 256; tries++) {
        cache->hand = cache->hand + 1 < cache->count ? cache->hand + 1 : 0;
        struct rp_page *page = cache->pages[cache->hand];
        if (page->version % 2)
            return page; // dropped before
        if (!page->dirty && !page->pending && !atomic_exchange_explicit(&page->recent, false, memory_order_relaxed)) {
            unlink_page(cache, page);
            return page;
        }
    }
    return NULL;
}

static struct rp_page *new_page(struct rp_cache *cache)
{
    if (cache->count == cache->capacity) {
        cache->capacity = cache->capacity ? cache->capacity * 2 : 64;
        cache->pages = rp_xrealloc(cache->pages, cache->capacity * sizeof *cache->pages);
    }
    struct rp_page *page = rp_xcalloc(1, sizeof *page);
    atomic_init(&page->version, 1);
    return cache->pages[cache->count++] = page;
}

static struct rp_page *insert(struct rp_cache *cache, uint64_t offset, const uint64_t *words)
{
    struct rp_page *page = cache->count >= RP_CACHE_PAGES ? evict(cache) : NULL;
    if (!page)
        page = new_page(cache);
    atomic_store_explicit(&page->offset, offset, memory_order_relaxed);
    atomic_store_explicit(&page->recent, true, memory_order_relaxed);
    for (size_t i = 0; i < RP_PAGE_WORDS; i++) // a release: who sees one of these words sees the odd version too
        atomic_store_explicit(&page->words[i], words[i], memory_order_release);
    _Atomic(struct rp_page *) *head = bucket(cache, offset);
    atomic_store_explicit(&page->next, atomic_load_explicit(head, memory_order_relaxed), memory_order_relaxed);
    atomic_fetch_add(&page->version, 1);
    atomic_store_explicit(head, page, memory_order_release);
    return page;
}

static void touch(struct rp_page *page)
{
    if (!atomic_load_explicit(&page->recent, memory_order_relaxed)) // threads need not fight for the line
        atomic_store_explicit(&page->recent, true, memory_order_relaxed);
}

bool rp_cache_peek(struct rp_vhdx *v, uint64_t offset, uint64_t *word)
{
    uint64_t start = rp_align_down(offset, RP_VHDX_PAGE);
    struct rp_page *page = find(&v->cache, start, 64);
    if (!page)
        return false;
    unsigned version = atomic_load_explicit(&page->version, memory_order_acquire);
    if (version % 2 || atomic_load_explicit(&page->offset, memory_order_relaxed) != start)
        return false;
    // An acquire, so that the version is looked at again after the word; whoever fills a page made the version odd before.
    *word = le64toh(atomic_load_explicit(&page->words[offset % RP_VHDX_PAGE / 8], memory_order_acquire));
    if (atomic_load_explicit(&page->version, memory_order_relaxed) != version)
        return false;
    touch(page);
    return true;
}

static bool zeroed_by_replay(const struct rp_vhdx *v, uint64_t offset)
{
    const struct rp_ranges *zeros = &v->overlay.zeros;
    size_t low = 0, high = zeros->count;
    while (low < high) { // the last range that starts at or before the page
        size_t middle = (low + high) / 2;
        if (zeros->items[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low && offset - zeros->items[low - 1].offset < zeros->items[low - 1].length;
}

struct rp_page *rp_cache_get(struct rp_vhdx *v, uint64_t offset, struct rp_error *err)
{
    struct rp_page *page = find(&v->cache, offset, SIZE_MAX - 1);
    if (page) {
        touch(page);
        return page;
    }
    uint64_t words[RP_PAGE_WORDS] = {0};
    if (!zeroed_by_replay(v, offset) && rp_payload_read(v, words, sizeof words, offset, err))
        return NULL;
    return insert(&v->cache, offset, words);
}

struct rp_page *rp_cache_blank(struct rp_vhdx *v, uint64_t offset)
{
    static const uint64_t zeros[RP_PAGE_WORDS];
    struct rp_page *page = find(&v->cache, offset, SIZE_MAX - 1);
    return page ? page : insert(&v->cache, offset, zeros);
}

static void make_dirty(struct rp_vhdx *v, struct rp_page *page)
{
    v->cache.dirty += !page->dirty;
    page->dirty = true;
}

uint64_t rp_page_get(const struct rp_page *page, size_t index)
{
    return le64toh(atomic_load_explicit(&page->words[index], memory_order_relaxed));
}

void rp_page_set(struct rp_vhdx *v, struct rp_page *page, size_t index, uint64_t word)
{
    if (rp_page_get(page, index) == word)
        return;
    make_dirty(v, page);
    rp_journal_set(&v->journal, page, index, htole64(word)); // first there, then for all to see
    atomic_store_explicit(&page->words[index], htole64(word), memory_order_release);
}

int rp_cache_read(struct rp_vhdx *v, uint64_t offset, void *data, size_t size, struct rp_error *err)
{
    for (uint8_t *to = data; size;) {
        size_t within = offset % RP_VHDX_PAGE, n = (size_t)rp_min64(size, RP_VHDX_PAGE - within);
        struct rp_page *page = rp_cache_get(v, offset - within, err);
        if (!page)
            return -1;
        memcpy(to, rp_page_bytes(page) + within, n);
        to += n;
        offset += n;
        size -= n;
    }
    return 0;
}

int rp_cache_write(struct rp_vhdx *v, uint64_t offset, const void *data, size_t size, struct rp_error *err)
{
    for (const uint8_t *from = data; size;) {
        size_t within = offset % RP_VHDX_PAGE, n = (size_t)rp_min64(size, RP_VHDX_PAGE - within);
        struct rp_page *page = rp_cache_get(v, offset - within, err);
        if (!page)
            return -1;
        if (memcmp(rp_page_bytes(page) + within, from, n)) {
            memcpy(rp_page_bytes(page) + within, from, n);
            make_dirty(v, page);
        }
        from += n;
        offset += n;
        size -= n;
    }
    return 0;
}

void rp_cache_drop(struct rp_vhdx *v, uint64_t offset, uint64_t length)
{
    for (size_t i = 0; i < v->cache.count; i++) {
        struct rp_page *page = v->cache.pages[i];
        if (page->version % 2 == 0 && page->offset >= offset && page->offset - offset < length)
            unlink_page(&v->cache, page);
    }
}

void rp_cache_free(struct rp_vhdx *v)
{
    for (size_t i = 0; i < v->cache.count; i++)
        free(v->cache.pages[i]);
    free(v->cache.pages);
    memset(&v->cache, 0, sizeof v->cache);
}
