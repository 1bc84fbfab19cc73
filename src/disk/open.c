// Open and close.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/num.h"
#include "disk/impl.h"

#define LOOKS 10 // again, when a file seems damaged
#define LOOK_AGAIN_NS 20000000

static int read_header(struct rp_vhdx *v, struct rp_error *err)
{
    uint8_t signature[8];
    RP_AUTO_FREE uint8_t *headers = rp_xcalloc(2, RP_VHDX_PAGE);
    if (rp_store_size(v->store, &v->file_size, err))
        return -1;
    if (v->file_size < RP_VHDX_HEADER_AREA)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: too small to be a VHDX file", v->path);
    if (rp_store_pread(v->store, signature, 8, 0, err))
        return -1;
    if (memcmp(signature, "vhdxfile", 8))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: not a VHDX file", v->path);
    for (int i = 0; i < 2; i++) // an unreadable copy counts as an invalid one
        if (rp_store_pread(v->store, headers + i * RP_VHDX_PAGE, RP_VHDX_PAGE, RP_VHDX_HEADER_OFFSET(i), NULL))
            memset(headers + i * RP_VHDX_PAGE, 0, RP_VHDX_PAGE);
    v->slot = rp_vhdx_header_choose(headers, headers + RP_VHDX_PAGE, &v->header);
    if (v->slot < 0)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: no valid header", v->path);
    const struct rp_vhdx_header *h = &v->header;
    if (h->version != 1)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: format version %u", v->path, h->version);
    if (!h->log_length || !rp_is_aligned(h->log_length, RP_VHDX_ALIGN) || !rp_is_aligned(h->log_offset,
                                                                                         RP_VHDX_ALIGN) ||
        h->log_offset < RP_VHDX_HEADER_AREA || !rp_range_ok(h->log_offset, h->log_length, v->file_size))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: a log of %u bytes at %llu", v->path, h->log_length,
                       (unsigned long long)h->log_offset);
    v->info.file_write_guid = h->file_write_guid;
    v->info.data_write_guid = h->data_write_guid;
    return 0;
}

struct rp_vhdx *rp_vhdx_new(struct rp_fs *fs, const char *path, unsigned flags, const struct rp_vhdx_session *session)
{
    struct rp_vhdx *v = rp_xcalloc(1, sizeof *v);
    v->fs = fs;
    v->path = rp_xstrdup(path);
    v->flags = flags;
    v->session.file_write_guid = session ? session->file_write_guid : rp_guid_new();
    v->session.data_write_guid = session ? session->data_write_guid : rp_guid_new();
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_init(&v->session_lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    v->gate = rp_gate_new();
    return v;
}

int rp_vhdx_open_store(struct rp_vhdx *v, struct rp_error *err)
{
    bool write = v->flags & RP_VHDX_WRITE;
    v->store = rp_fs_open(v->fs, v->path, write ? RP_OPEN_WRITE : RP_OPEN_READ, err);
    if (!v->store || (!(v->flags & RP_VHDX_NO_LOCK) && rp_store_lock(v->store, write, err)))
        return -1;
    return read_header(v, err);
}

static int open_file(struct rp_vhdx *v, struct rp_error *err)
{
    bool write = v->flags & RP_VHDX_WRITE;
    if (rp_vhdx_open_store(v, err) || (write && rp_log_check_length(v, err)) || rp_log_replay(v, err) ||
        rp_vhdx_load(v, err) || (write && rp_space_scan(v, err)))
        return -1;
    atomic_store(&v->writable, write);
    return 0;
}

struct rp_vhdx *rp_vhdx_open(struct rp_fs *fs, const char *path, unsigned flags, const struct rp_vhdx_session *session,
                             struct rp_error *err)
{
    struct rp_vhdx *v = rp_vhdx_new(fs, path, flags, session);
    if (!open_file(v, err))
        return v;
    rp_vhdx_abandon(v);
    return NULL;
}

struct rp_vhdx *rp_vhdx_look(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    for (int i = 0;; i++) {
        struct rp_error why = {0};
        struct rp_vhdx *v = rp_vhdx_open(fs, path, RP_VHDX_READ | RP_VHDX_NO_LOCK, NULL, &why);
        if (v)
            return v;
        if (why.code != RP_ERR_CORRUPT || i == LOOKS) {
            rp_fail_as(err, &why);
            return NULL;
        }
        nanosleep(&(struct timespec){0, LOOK_AGAIN_NS}, NULL);
    }
}

void rp_vhdx_abandon(struct rp_vhdx *v)
{
    if (!v)
        return;
    rp_store_close(v->store);
    rp_cache_free(v);
    rp_shm_close(v->journal.shm);
    rp_space_free_all(v);
    rp_table_free(&v->table);
    rp_ranges_clear(&v->overlay.zeros);
    rp_locator_clear(&v->locator);
    rp_gate_free(v->gate);
    pthread_mutex_destroy(&v->lock);
    pthread_mutex_destroy(&v->session_lock);
    pthread_cond_destroy(&v->changed);
    free(v->regions);
    free(v->info.parent_path);
    free(v->path);
    free(v);
}

int rp_vhdx_close(struct rp_vhdx *v, struct rp_error *err)
{
    int failed = rp_session_end(v, err);
    if (!failed)
        rp_journal_remove(v);
    rp_vhdx_abandon(v);
    return failed;
}

int rp_vhdx_freeze(struct rp_vhdx *v, struct rp_error *err)
{
    if (!atomic_load(&v->writable))
        return 0;
    if (rp_session_end(v, err))
        return -1;
    uint64_t size;
    if (rp_store_size(v->store, &size, err))
        return -1;
    rp_lock(v);
    v->file_size = size;
    rp_unlock(v);
    atomic_store(&v->file_end, size);
    atomic_store(&v->writable, false);
    rp_journal_remove(v);
    return v->flags & RP_VHDX_NO_LOCK ? 0 : rp_store_lock(v->store, false, err);
}

const struct rp_vhdx_info *rp_vhdx_info(const struct rp_vhdx *v) { return &v->info; }

const char *rp_vhdx_path(const struct rp_vhdx *v) { return v->path; }

int rp_vhdx_identity(struct rp_vhdx *v, struct rp_store_identity *identity, struct rp_error *err)
{
    return rp_store_identity(v->store, identity, err);
}

int rp_vhdx_set_parent(struct rp_vhdx *child, struct rp_vhdx *parent, struct rp_error *err)
{
    const struct rp_vhdx_info *c = &child->info, *p = &parent->info;
    if (!c->has_parent)
        return rp_fail(err, RP_ERR_INVALID, "%s: not a differencing disk", child->path);
    bool linked = rp_guid_equal(&c->parent_linkage, &p->data_write_guid) ||
                  (!rp_guid_is_zero(&c->parent_linkage2) && rp_guid_equal(&c->parent_linkage2, &p->data_write_guid));
    if (!linked)
        return rp_fail(err, RP_ERR_PARENT_MISMATCH, "%s: %s was changed since, or is not its parent", child->path,
                       parent->path);
    if (c->logical_sector != p->logical_sector)
        return rp_fail(err, RP_ERR_PARENT_MISMATCH, "%s: sectors of %u bytes, its parent %s has %u", child->path,
                       c->logical_sector, parent->path, p->logical_sector);
    child->parent = parent;
    return 0;
}
