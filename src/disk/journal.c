// What a process that dies leaves of its metadata: a copy of every page of the block table and the sector bitmaps that
// is not in the file yet, in shared memory.
//
//     0       magic (last of all), the session's FileWriteGuid, the header's before it; the log's GUID, and the number of
//             its newest entry whose pages may have been given back
//     4096    a word per slot: the place of its page in the file; 0: free
//     then    the slots' pages
//
// Only these two kinds of pages are here. They change by single words, and what names something is changed after it: at
// every instruction all the words together are a correct table. Region tables and the metadata region change in one
// entry of the log, and nothing returns before that entry is durable.
#include <stddef.h>

#include "base/num.h"
#include "disk/impl.h"

enum { STEP = 64 }; // slots whose memory is taken at once
static const uint64_t magic = 0x31306E6A78646876; // "vhdxjn01"

struct header {
    _Atomic uint64_t magic;
    struct rp_guid session, before; // FileWriteGuids
    struct rp_guid log;
    _Atomic uint64_t sequence;
};

struct area {
    _Alignas(RP_VHDX_PAGE) struct header header;
    _Alignas(RP_VHDX_PAGE) _Atomic uint64_t places[RP_JOURNAL_SLOTS];
    _Alignas(RP_VHDX_PAGE) _Atomic uint64_t words[RP_JOURNAL_SLOTS][RP_PAGE_WORDS];
};

static struct area *area_of(const struct rp_shm *shm) { return rp_shm_data(shm); }

size_t rp_vhdx_shm_size(void) { return sizeof(struct area); }

int rp_vhdx_share(struct rp_vhdx *v, struct rp_shm *shm, struct rp_error *err)
{
    if (rp_session_check(v, err))
        return -1;
    if (rp_shm_size(shm) < sizeof(struct area) || atomic_load(&v->begun) != RP_SESSION_NONE || v->journal.shm)
        return rp_fail(err, RP_ERR_INVALID, "%s: cannot be shared now, or there", v->path);
    if (rp_shm_reserve(shm, 0, offsetof(struct area, words), err))
        return -1;
    struct area *area = area_of(shm);
    area->header.session = v->session.file_write_guid;
    area->header.before = v->header.file_write_guid;
    atomic_store_explicit(&area->header.magic, magic, memory_order_release);
    rp_lock(v);
    v->journal = (struct rp_journal){.shm = shm};
    rp_unlock(v);
    return 0;
}

int rp_journal_room(struct rp_journal *j, size_t slots, struct rp_error *err)
{
    if (!j->shm)
        return 0;
    while (j->used + slots > j->count) {
        size_t offset = offsetof(struct area, words) + j->count * RP_VHDX_PAGE;
        if (j->count == RP_JOURNAL_SLOTS)
            return rp_fail(err, RP_ERR_STATE, "no slot left for a page of metadata");
        if (rp_shm_reserve(j->shm, offset, STEP * RP_VHDX_PAGE, err))
            return -1;
        for (size_t i = 0; i < STEP; i++)
            j->free[j->free_count++] = (uint16_t)(j->count + STEP - i);
        j->count += STEP;
    }
    return 0;
}

static void take(struct rp_journal *j, struct rp_page *page)
{
    struct area *area = area_of(j->shm);
    page->slot = j->free[--j->free_count];
    j->used++;
    for (size_t i = 0; i < RP_PAGE_WORDS; i++)
        atomic_store_explicit(&area->words[page->slot - 1][i],
                              atomic_load_explicit(&page->words[i], memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(&area->places[page->slot - 1], page->offset, memory_order_release);
}

void rp_journal_set(struct rp_journal *j, struct rp_page *page, size_t index, uint64_t word)
{
    if (!j->shm)
        return;
    if (!page->slot)
        take(j, page);
    atomic_store_explicit(&area_of(j->shm)->words[page->slot - 1][index], word, memory_order_release);
}

void rp_journal_give_back(struct rp_journal *j, struct rp_page *page)
{
    if (!page->slot)
        return;
    atomic_store_explicit(&area_of(j->shm)->places[page->slot - 1], 0, memory_order_release);
    j->free[j->free_count++] = page->slot;
    page->slot = 0;
    j->used--;
}

void rp_journal_logged(struct rp_journal *j, const struct rp_log *log)
{
    if (!j->shm)
        return;
    struct header *header = &area_of(j->shm)->header;
    header->log = log->guid; // changes with the first entry only, before any page is given back
    atomic_store_explicit(&header->sequence, log->sequence - 1, memory_order_release);
}

bool rp_journal_fits(const struct rp_shm *shm, const struct rp_guid *log, uint64_t sequence)
{
    struct header *header = &area_of(shm)->header;
    return rp_guid_equal(log, &header->log) && sequence >= atomic_load_explicit(&header->sequence, memory_order_acquire);
}

void rp_journal_remove(struct rp_vhdx *v)
{
    rp_lock(v);
    rp_shm_remove(v->journal.shm);
    v->journal = (struct rp_journal){0};
    rp_unlock(v);
}

bool rp_journal_of(struct rp_shm *shm, struct rp_guid *session, struct rp_guid *before)
{
    if (rp_shm_size(shm) < sizeof(struct area) || !rp_shm_has(shm, 0, RP_VHDX_PAGE) ||
        atomic_load(&area_of(shm)->header.magic) != magic)
        return false;
    *session = area_of(shm)->header.session;
    *before = area_of(shm)->header.before;
    return true;
}

uint64_t rp_journal_page(struct rp_shm *shm, size_t slot, const _Atomic uint64_t **words)
{
    struct area *area = area_of(shm);
    *words = area->words[slot];
    return atomic_load_explicit(&area->places[slot], memory_order_acquire);
}
