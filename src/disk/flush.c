// Durability. A flush writes the changed metadata pages as one log entry and syncs once: payload and entry together.
//
// Payload must be durable *before* the entry only in a differencing disk, where the entry makes sectors visible that
// hid older data of the parent: without that barrier a power cut could leave zeros where neither the old nor the new
// sector has any. (In a dynamic disk newly visible space has the same content as before: zeros.)
#include <string.h>

#include "disk/impl.h"

// The first `count`.
static void move_ranges(struct rp_ranges *from, size_t count, struct rp_ranges *to)
{
    for (size_t i = 0; i < count; i++)
        rp_ranges_push(to, from->items[i].offset, from->items[i].length);
    from->count -= count;
    if (from->count)
        memmove(from->items, from->items + count, from->count * sizeof *from->items);
}

static int sync_file(struct rp_vhdx *v, struct rp_error *err)
{
    // Before the sync: a write that ends later sets it again, one that ended earlier is covered.
    atomic_store(&v->written, false);
    if (rp_store_flush(v->store, err))
        return -1;
    v->log.unsynced = false;
    return 0;
}

// `cleared`: so many ranges were zeros when the sync began.
static void finish(struct rp_vhdx *v, uint64_t end, size_t cleared, bool entry_written)
{
    rp_lock(v);
    v->space.flushed = end;
    if (entry_written)
        rp_journal_logged(&v->journal, &v->log);
    for (size_t i = 0; entry_written && i < v->cache.count; i++) {
        struct rp_page *page = v->cache.pages[i];
        page->pending = false;
        if (!page->dirty)
            rp_journal_give_back(&v->journal, page);
    }
    move_ranges(&v->space.clearing, cleared, &v->space.zeros);
    if (entry_written)
        move_ranges(&v->space.leaving, v->space.leaving.count, &v->space.dirty);
    rp_ranges_normalize(&v->space.zeros);
    rp_unlock(v);
}

static int work(struct rp_vhdx *v, struct rp_error *err)
{
    rp_lock(v);
    struct rp_batch batch;
    rp_batch_take(v, &batch);
    move_ranges(&v->space.freed, v->space.freed.count, &v->space.leaving);
    uint64_t end = v->space.end, flushed = v->space.flushed;
    size_t cleared = v->space.clearing.count;
    bool barrier = v->barrier && batch.count;
    v->barrier = false;
    rp_unlock(v);
    int failed = 0;
    if (!batch.count && !atomic_load(&v->written))
        return 0;
    if (barrier)
        failed = sync_file(v, err);
    if (!failed && batch.count)
        failed = rp_log_write(v, &batch, flushed, end, err);
    failed = failed || sync_file(v, err) || (batch.count && rp_log_apply(v, &batch, err));
    if (!failed)
        finish(v, end, cleared, batch.count > 0);
    rp_batch_free(&batch);
    return failed ? -1 : 0;
}

static void flush(struct rp_vhdx *v, enum rp_flush what)
{
    rp_lock(v);
    uint64_t ticket = ++v->flush_asked;
    while (v->flushing && v->flush_done < ticket)
        rp_wait(v);
    // A flush that began after us did our work too, or the end of the session did.
    if (v->flush_done >= ticket || atomic_load(&v->failed) || atomic_load(&v->begun) == RP_SESSION_NONE) {
        rp_unlock(v);
        return;
    }
    v->flushing = true;
    uint64_t covered = v->flush_asked;
    rp_unlock(v);
    struct rp_error why = {0};
    int failed = work(v, &why);
    if (failed)
        rp_session_fail(v, &why);
    rp_lock(v);
    v->flush_done = covered;
    rp_wake(v); // who waits for what is durable now need not wait for the rest
    rp_unlock(v);
    if (!failed && what == RP_FLUSH_ALL)
        rp_space_clear(v);
    rp_lock(v);
    v->flushing = false;
    rp_wake(v);
    rp_unlock(v);
}

int rp_flush(struct rp_vhdx *v, enum rp_flush what, struct rp_error *err)
{
    flush(v, what);
    return rp_session_check(v, err);
}

int rp_reserve(struct rp_vhdx *v, size_t pages, struct rp_error *err)
{
    while (v->growing || v->cache.dirty + v->cache.reserved + pages > v->log.batch) {
        if (atomic_load(&v->failed))
            return rp_session_check(v, err);
        if (v->growing || !v->cache.dirty) {
            rp_wait(v); // operations under way hold it all
            continue;
        }
        rp_unlock(v);
        int failed = rp_flush(v, RP_FLUSH_LOG, err);
        rp_lock(v);
        if (failed)
            return -1;
    }
    if (rp_journal_room(&v->journal, v->cache.reserved + pages, err))
        return rp_context(err, "%s", v->path);
    v->cache.reserved += pages;
    return 0;
}

void rp_unreserve(struct rp_vhdx *v, size_t pages)
{
    v->cache.reserved -= pages;
    rp_wake(v);
}

int rp_vhdx_flush(struct rp_vhdx *v, struct rp_error *err)
{
    if (!atomic_load(&v->failed) && atomic_load(&v->begun) == RP_SESSION_NONE)
        return 0; // nothing was written
    flush(v, RP_FLUSH_ALL);
    // A freeze that came first made everything durable: that the file cannot be written to any more is no failure.
    return atomic_load(&v->failed) ? rp_session_check(v, err) : 0;
}
