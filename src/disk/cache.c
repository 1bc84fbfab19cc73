// 4 KiB pages of metadata. The table of a 64 TiB disk has half a GiB: pages come in when they are used and clean ones
// go.
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

static struct rp_page **bucket(struct rp_cache *cache, uint64_t offset)
{
    uint64_t page = offset / RP_VHDX_PAGE;
    return &cache->buckets[(page ^ page >> 12) % RP_CACHE_BUCKETS];
}

static struct rp_page *find(struct rp_cache *cache, uint64_t offset)
{
    struct rp_page *page = *bucket(cache, offset);
    while (page && page->offset != offset)
        page = page->next;
    return page;
}

static void unlink_page(struct rp_cache *cache, size_t index)
{
    struct rp_page *page = cache->pages[index], **link = bucket(cache, page->offset);
    while (*link != page)
        link = &(*link)->next;
    *link = page->next;
    cache->pages[index] = cache->pages[--cache->count];
    cache->dirty -= page->dirty;
    free(page);
}

// Drops one clean page that was not used lately. With none at hand the cache grows: what is dirty is bounded by the
// log, what a replay left by the log's size.
static void make_room(struct rp_cache *cache)
{
    for (size_t tries = 0; tries < 256; tries++) {
        cache->hand = cache->hand + 1 < cache->count ? cache->hand + 1 : 0;
        struct rp_page *page = cache->pages[cache->hand];
        if (!page->dirty && !page->pending && !page->recent) {
            unlink_page(cache, cache->hand);
            return;
        }
        page->recent = false;
    }
}

static struct rp_page *insert(struct rp_cache *cache, uint64_t offset)
{
    if (cache->count >= RP_CACHE_PAGES)
        make_room(cache);
    if (cache->count == cache->capacity) {
        cache->capacity = cache->capacity ? cache->capacity * 2 : 64;
        cache->pages = rp_xrealloc(cache->pages, cache->capacity * sizeof *cache->pages);
    }
    struct rp_page *page = rp_xmalloc(sizeof *page), **head = bucket(cache, offset);
    page->offset = offset;
    page->dirty = page->pending = false;
    page->recent = true;
    page->next = *head;
    *head = page;
    cache->pages[cache->count++] = page;
    return page;
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
    struct rp_page *page = find(&v->cache, offset);
    if (page) {
        page->recent = true;
        return page;
    }
    uint8_t bytes[RP_VHDX_PAGE];
    if (zeroed_by_replay(v, offset))
        memset(bytes, 0, sizeof bytes);
    else if (rp_payload_read(v, bytes, sizeof bytes, offset, err))
        return NULL;
    page = insert(&v->cache, offset);
    memcpy(page->bytes, bytes, sizeof bytes);
    return page;
}

struct rp_page *rp_cache_blank(struct rp_vhdx *v, uint64_t offset)
{
    struct rp_page *page = find(&v->cache, offset);
    if (!page) {
        page = insert(&v->cache, offset);
        memset(page->bytes, 0, sizeof page->bytes);
    }
    return page;
}

void rp_cache_dirty(struct rp_vhdx *v, struct rp_page *page)
{
    v->cache.dirty += !page->dirty;
    page->dirty = true;
}

int rp_cache_read(struct rp_vhdx *v, uint64_t offset, void *data, size_t size, struct rp_error *err)
{
    for (uint8_t *to = data; size;) {
        size_t within = offset % RP_VHDX_PAGE, n = (size_t)rp_min64(size, RP_VHDX_PAGE - within);
        struct rp_page *page = rp_cache_get(v, offset - within, err);
        if (!page)
            return -1;
        memcpy(to, page->bytes + within, n);
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
        if (memcmp(page->bytes + within, from, n)) {
            memcpy(page->bytes + within, from, n);
            rp_cache_dirty(v, page);
        }
        from += n;
        offset += n;
        size -= n;
    }
    return 0;
}

void rp_cache_drop(struct rp_vhdx *v, uint64_t offset, uint64_t length)
{
    for (size_t i = v->cache.count; i-- > 0;) {
        uint64_t at = v->cache.pages[i]->offset;
        if (at >= offset && at - offset < length)
            unlink_page(&v->cache, i);
    }
}

void rp_cache_free(struct rp_vhdx *v)
{
    for (size_t i = 0; i < v->cache.count; i++)
        free(v->cache.pages[i]);
    free(v->cache.pages);
    v->cache = (struct rp_cache){0};
}
