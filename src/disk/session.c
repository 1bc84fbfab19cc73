// Writing sessions: the header's GUIDs and the log's life. A file that is only opened stays as it is, byte for byte.
#include <string.h>

#include "disk/impl.h"

int rp_header_update(struct rp_vhdx *v, int times, struct rp_error *err)
{
    uint8_t bytes[RP_VHDX_PAGE];
    while (times--) {
        int other = !v->slot;
        v->header.sequence++;
        rp_vhdx_header_encode(&v->header, bytes);
        if (rp_store_pwrite(v->store, bytes, sizeof bytes, RP_VHDX_HEADER_OFFSET(other), err) ||
            rp_store_flush(v->store, err))
            return -1;
        v->slot = other;
    }
    v->info.file_write_guid = v->header.file_write_guid;
    v->info.data_write_guid = v->header.data_write_guid;
    return 0;
}

void rp_session_fail_locked(struct rp_vhdx *v, const struct rp_error *why)
{
    if (!atomic_load(&v->failed)) {
        v->failure = *why;
        if (why->code == RP_ERR_NO_SPACE)
            v->failure.code = RP_ERR_STATE; // room would not help any more, and no sync failed
        else if (why->sys)
            v->failure.code = RP_ERR_IO; // a write of the log or of metadata, whatever the kernel calls it
        atomic_store(&v->failed, true);
    }
    rp_wake(v);
}

int rp_session_fail(struct rp_vhdx *v, const struct rp_error *why)
{
    rp_lock(v);
    rp_session_fail_locked(v, why);
    rp_unlock(v);
    return -1;
}

bool rp_vhdx_failed(struct rp_vhdx *v, struct rp_error *why)
{
    bool failed = atomic_load(&v->failed);
    if (failed)
        *why = v->failure; // set before `failed`, never changed afterwards
    return failed;
}

int rp_session_check(struct rp_vhdx *v, struct rp_error *err)
{
    if (!atomic_load_explicit(&v->writable, memory_order_relaxed))
        return rp_fail(err, RP_ERR_STATE, "%s: not open for writing", v->path);
    if (!atomic_load(&v->failed))
        return 0;
    if (err && err->code == RP_OK) {
        *err = v->failure;
        rp_context(err, "an earlier write could not be made durable");
    }
    return -1;
}

// Before the file says that a session began: without room for its log there is none, and nothing is lost.
static int back_log(struct rp_vhdx *v, struct rp_error *err)
{
    return rp_space_back(v, v->header.log_offset, v->header.log_length, err);
}

static int start(struct rp_vhdx *v, enum rp_session level, struct rp_error *err)
{
    v->header.file_write_guid = v->session.file_write_guid;
    if (level == RP_SESSION_DATA)
        v->header.data_write_guid = v->session.data_write_guid;
    if (rp_header_update(v, 1, err))
        return -1;
    rp_lock(v);
    int failed = rp_space_start(v, err) || rp_log_start(v, err);
    rp_unlock(v);
    if (failed || rp_store_flush(v->store, err))
        return -1;
    v->header.log_guid = v->log.guid;
    rp_lock(v);
    rp_journal_logged(&v->journal, &v->log);
    rp_unlock(v);
    if (rp_header_update(v, 2, err))
        return -1;
    rp_lock(v);
    failed = rp_vhdx_repair_regions(v, err);
    rp_unlock(v);
    return failed;
}

static int raise_level(struct rp_vhdx *v, struct rp_error *err)
{
    v->header.data_write_guid = v->session.data_write_guid;
    return rp_header_update(v, 2, err);
}

int rp_session_begin(struct rp_vhdx *v, enum rp_session level, struct rp_error *err)
{
    if (rp_session_check(v, err))
        return -1;
    if (atomic_load_explicit(&v->begun, memory_order_acquire) >= (int)level)
        return 0;
    struct rp_error why = {0};
    int failed = 0;
    pthread_mutex_lock(&v->session_lock);
    int begun = atomic_load(&v->begun);
    if (begun == RP_SESSION_NONE && back_log(v, err)) {
        pthread_mutex_unlock(&v->session_lock);
        return -1;
    }
    if (begun < (int)level && !rp_session_check(v, &why)) {
        failed = begun == RP_SESSION_NONE ? start(v, level, &why) : raise_level(v, &why);
        if (!failed)
            atomic_store_explicit(&v->begun, (int)level, memory_order_release);
        else
            rp_session_fail(v, &why);
    }
    pthread_mutex_unlock(&v->session_lock);
    return rp_session_check(v, err);
}

static void set_flushing(struct rp_vhdx *v, bool flushing)
{
    rp_lock(v);
    while (flushing && v->flushing)
        rp_wait(v);
    v->flushing = flushing;
    rp_wake(v);
    rp_unlock(v);
}

int rp_session_end(struct rp_vhdx *v, struct rp_error *err)
{
    if (atomic_load(&v->failed))
        return rp_session_check(v, err);
    if (atomic_load(&v->begun) == RP_SESSION_NONE)
        return 0;
    if (rp_flush(v, RP_FLUSH_ALL, err))
        return -1;
    struct rp_error why = {0};
    // A flush that comes late must not touch the file any more, not even free space: who binds the file to its times as
    // they are after a freeze would find them changed.
    set_flushing(v, true);
    pthread_mutex_lock(&v->session_lock);
    int failed = rp_store_flush(v->store, &why);
    if (!failed) {
        v->header.log_guid = (struct rp_guid){0};
        failed = rp_header_update(v, 2, &why);
    }
    // Only now may the file shrink: an entry of the log may have asked for all of it. Readers of a file that is being
    // frozen may still be on their way to what was freed last.
    rp_gate_wait(v->gate);
    rp_lock(v);
    failed = failed || rp_space_cut(v, &why);
    rp_unlock(v);
    if (!failed) {
        rp_space_clear(v);
        rp_store_punch(v->store, v->header.log_offset, v->header.log_length, NULL); // nobody will read it
    }
    failed = failed || rp_store_settle(v->store, &why); // the last touch: the file's times are what they will stay
    if (!failed) {
        rp_lock(v);
        v->log.guid = (struct rp_guid){0};
        v->file_size = v->space.end;
        rp_unlock(v);
        atomic_store(&v->begun, RP_SESSION_NONE);
    }
    pthread_mutex_unlock(&v->session_lock);
    set_flushing(v, false);
    if (failed && err && err->code == RP_OK)
        *err = why;
    return failed ? rp_session_fail(v, &why) : 0;
}
