// Ending the session of a process that was killed. Its log is replayed into the file; what its journal has beyond that
// goes through the log in one entry more, so that a power cut meanwhile leaves all of it or nothing; then the session
// ends as every session does. Until its last step the file stays that session's, and all of this can be done again.
#include <string.h>

#include "base/num.h"
#include "disk/impl.h"

static int lay_page(struct rp_vhdx *v, uint64_t place, const _Atomic uint64_t *words, struct rp_error *err)
{
    if (!rp_is_aligned(place, RP_VHDX_PAGE) || place < RP_VHDX_HEADER_AREA ||
        !rp_range_ok(place, RP_VHDX_PAGE, v->file_size) ||
        (place >= v->log.offset && place - v->log.offset < v->log.length))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: what its killed process left is damaged", v->path);
    uint64_t page[RP_PAGE_WORDS];
    for (size_t i = 0; i < RP_PAGE_WORDS; i++)
        page[i] = atomic_load_explicit(&words[i], memory_order_relaxed);
    rp_table_mark(v, place, RP_VHDX_PAGE);
    return rp_cache_write(v, place, page, sizeof page, err);
}

static int lay_journal(struct rp_vhdx *v, struct rp_shm *shm, struct rp_error *err)
{
    for (size_t i = 0; i < RP_JOURNAL_SLOTS; i++) {
        const _Atomic uint64_t *words;
        uint64_t place = rp_journal_page(shm, i, &words);
        if (place && lay_page(v, place, words, err))
            return -1;
    }
    return 0;
}

// With everything in place in the page cache, and begun as that session was.
static int finish(struct rp_vhdx *v, struct rp_shm *shm, struct rp_error *err)
{
    // The log may ask for the file as it is: it was extended before anything in it was named.
    v->space.end = v->space.extended = v->space.flushed = rp_align_down(v->file_size, RP_VHDX_ALIGN);
    atomic_store(&v->writable, true);
    atomic_store(&v->begun, RP_SESSION_DATA);
    atomic_store(&v->written, true);
    struct rp_error why = {0};
    if (!lay_journal(v, shm, &why) && !rp_flush(v, RP_FLUSH_LOG, &why) && !rp_space_scan(v, &why) && !rp_session_end(v, &why))
        return 0;
    if (why.code == RP_ERR_STATE) // final for a session of ours, but this one is done again
        why.code = RP_ERR_NO_SPACE;
    return rp_fail_as(err, &why);
}

static int adopt(struct rp_vhdx *v, struct rp_shm *shm, const struct rp_guid *before, struct rp_error *err)
{
    if (rp_vhdx_open_store(v, err))
        return -1;
    bool its = rp_guid_equal(&v->header.file_write_guid, &v->session.file_write_guid);
    if (!its && !rp_guid_equal(&v->header.file_write_guid, before))
        return rp_fail(err, RP_ERR_STATE, "%s: somebody else wrote to it after its process was killed", v->path);
    // Before its first change, or after its last: that may be in the page cache only, and who is told that nothing is missing
    // binds the tracking to the file as it is.
    if (!its || rp_guid_is_zero(&v->header.log_guid))
        return rp_store_settle(v->store, err);
    return rp_log_resume(v, shm, err) || rp_vhdx_load(v, err) ? -1 : finish(v, shm, err);
}

int rp_vhdx_adopt(struct rp_fs *fs, const char *path, unsigned flags, struct rp_shm *shm, struct rp_error *err)
{
    struct rp_vhdx_session session = {0};
    struct rp_guid before;
    if (!rp_journal_of(shm, &session.file_write_guid, &before))
        return 0; // it died before it could change anything
    struct rp_vhdx *v = rp_vhdx_new(fs, path, RP_VHDX_WRITE | flags, &session);
    int failed = adopt(v, shm, &before, err);
    rp_vhdx_abandon(v);
    return failed ? rp_context(err, "take over %s", path) : 0;
}
