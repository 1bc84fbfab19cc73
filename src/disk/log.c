// Writing the metadata log ([MS-VHDX] 2.3). One entry holds everything that changed since the last one, so a batch is
// atomic. At most one earlier entry is still needed when an entry is written: every sync of an entry also covers the
// in-place writes of the one before. An entry may fill a third of the log, so that the newest durable entry and what it
// needs are never written over.
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "disk/entry.h"
#include "disk/impl.h"

void rp_batch_take(struct rp_vhdx *v, struct rp_batch *batch)
{
    struct rp_cache *cache = &v->cache;
    *batch = (struct rp_batch){0};
    if (!cache->dirty)
        return;
    batch->offsets = rp_xmalloc(cache->dirty * sizeof *batch->offsets);
    batch->pages = rp_xmalloc(cache->dirty * RP_VHDX_PAGE);
    for (size_t i = 0; i < cache->count; i++) {
        struct rp_page *page = cache->pages[i];
        if (!page->dirty)
            continue;
        page->dirty = false;
        page->pending = true;
        batch->offsets[batch->count] = page->offset;
        memcpy(batch->pages + batch->count++ * RP_VHDX_PAGE, rp_page_bytes(page), RP_VHDX_PAGE);
    }
    cache->dirty = 0;
}

void rp_batch_free(struct rp_batch *batch)
{
    free(batch->offsets);
    free(batch->pages);
}

int rp_log_write(struct rp_vhdx *v, const struct rp_batch *batch, uint64_t flushed, uint64_t last, struct rp_error *err)
{
    struct rp_log *log = &v->log;
    uint32_t length = rp_entry_sectors((uint32_t)batch->count) * RP_VHDX_PAGE;
    if (batch->count > log->batch)
        return rp_fail(err, RP_ERR_STATE, "%s: %zu changed pages do not fit in the log", v->path, batch->count);
    struct rp_entry entry = {
        .length = length,
        .tail = log->unsynced ? log->last : log->head,
        .sequence = log->sequence,
        .descriptors = (uint32_t)batch->count,
        .log_guid = log->guid,
        .flushed_size = flushed,
        .last_size = last,
    };
    RP_AUTO_FREE uint8_t *bytes = rp_xmalloc(length);
    rp_entry_encode(&entry, batch->offsets, batch->pages, bytes);
    uint32_t first = (uint32_t)rp_min64(length, log->length - log->head);
    if (rp_store_pwrite(v->store, bytes, first, log->offset + log->head, err) ||
        (first < length && rp_store_pwrite(v->store, bytes + first, length - first, log->offset, err)))
        return -1;
    log->last = log->head;
    log->head = (log->head + length) % log->length;
    log->sequence++;
    return 0;
}

int rp_log_apply(struct rp_vhdx *v, const struct rp_batch *batch, struct rp_error *err)
{
    for (size_t i = 0; i < batch->count; i++)
        if (rp_store_pwrite(v->store, batch->pages + i * RP_VHDX_PAGE, RP_VHDX_PAGE, batch->offsets[i], err))
            return -1;
    v->log.unsynced = true;
    return 0;
}

int rp_log_check_length(const struct rp_vhdx *v, struct rp_error *err)
{
    enum { MOST = 64 << 20 };
    if (v->header.log_length <= MOST)
        return 0;
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: its log has %u bytes, at most %u are supported (qemu-img convert makes a "
                                            "file with another)", v->path, v->header.log_length, MOST);
}

size_t rp_log_batch(uint32_t length)
{
    return (size_t)rp_min64(rp_entry_capacity(length / RP_VHDX_PAGE / 3), RP_JOURNAL_SLOTS / 2);
}

int rp_log_start(struct rp_vhdx *v, struct rp_error *err)
{
    // The entry comes before the header that names its GUID: a header whose log has no entry would be a corrupt file.
    v->log = (struct rp_log){
        .offset = v->header.log_offset,
        .length = v->header.log_length,
        .guid = rp_guid_new(),
        .sequence = 1,
        .batch = rp_log_batch(v->header.log_length),
    };
    return rp_log_write(v, &(struct rp_batch){0}, v->space.flushed, v->space.end, err);
}
