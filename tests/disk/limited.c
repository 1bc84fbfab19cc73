#include "limited.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "io/memory.h"

enum { PAGE = 4096, PAGES = 1 << 20 }; // of one file

struct file {
    struct file *next;
    char *path;
    bool *used; // pages
};

struct limited_fs {
    struct rp_fs fs, *inner;
    pthread_mutex_t lock;
    struct file *files;
    size_t limit, used;
    limited_hook *hook;
    void *context;
};

struct limited_store {
    struct rp_store store, *inner;
    struct limited_fs *fs;
    struct file *file;
};

#define LIMITED(s) ((struct limited_store *)(s))
#define INNER(s) (LIMITED(s)->inner)

static enum rp_code watch(struct rp_store *s, enum call call, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct limited_fs *fs = LIMITED(s)->fs;
    enum rp_code code = fs->hook ? fs->hook(fs->context, call, offset, length) : RP_OK;
    if (code)
        rp_fail(err, code, "%s: made to fail", s->name);
    return code;
}

// -1: the disk is full; then nothing was taken.
static int take(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_error *err)
{
    struct limited_fs *fs = LIMITED(s)->fs;
    size_t first = offset / PAGE, end = (size_t)rp_div_up(offset + length, PAGE), more = 0;
    pthread_mutex_lock(&fs->lock);
    for (size_t i = first; i < end; i++)
        more += !LIMITED(s)->file->used[i];
    bool full = fs->used + more > fs->limit;
    if (!full)
        fs->used += more;
    for (size_t i = first; i < end && !full; i++)
        LIMITED(s)->file->used[i] = true;
    pthread_mutex_unlock(&fs->lock);
    return full && more ? rp_fail(err, RP_ERR_NO_SPACE, "%s: the disk is full", s->name) : 0;
}

static void give(struct rp_store *s, uint64_t offset, uint64_t end)
{
    struct limited_fs *fs = LIMITED(s)->fs;
    pthread_mutex_lock(&fs->lock);
    for (size_t i = (size_t)rp_div_up(offset, PAGE); i < rp_min64(end / PAGE, PAGES); i++) {
        fs->used -= LIMITED(s)->file->used[i];
        LIMITED(s)->file->used[i] = false;
    }
    pthread_mutex_unlock(&fs->lock);
}

static int limited_pread(struct rp_store *s, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    return watch(s, CALL_READ, offset, size, err) ? -1 : rp_store_pread(INNER(s), data, size, offset, err);
}

static int limited_pwrite(struct rp_store *s, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    if (watch(s, CALL_WRITE, offset, size, err)) {
        if (!take(s, offset, size / 2, NULL))
            rp_store_pwrite(INNER(s), data, size / 2, offset, NULL);
        return -1;
    }
    return take(s, offset, size, err) ? -1 : rp_store_pwrite(INNER(s), data, size, offset, err);
}

static int limited_flush(struct rp_store *s, struct rp_error *err)
{
    return watch(s, CALL_FLUSH, 0, 0, err) ? -1 : rp_store_flush(INNER(s), err);
}

static int limited_settle(struct rp_store *s, struct rp_error *err)
{
    return watch(s, CALL_SETTLE, 0, 0, err) ? -1 : rp_store_settle(INNER(s), err);
}

static int limited_truncate(struct rp_store *s, uint64_t size, struct rp_error *err)
{
    if (watch(s, CALL_TRUNCATE, size, 0, err) || rp_store_truncate(INNER(s), size, err))
        return -1;
    give(s, size, UINT64_MAX);
    return 0;
}

static int limited_allocate(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_error *err)
{
    return watch(s, CALL_ALLOCATE, offset, length, err) ? -1 : take(s, offset, length, err);
}

static int limited_punch(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (watch(s, CALL_PUNCH, offset, length, err) || rp_store_punch(INNER(s), offset, length, err))
        return -1;
    give(s, offset, offset + length);
    return 0;
}

static int limited_size(struct rp_store *s, uint64_t *size, struct rp_error *err) { return rp_store_size(INNER(s), size, err); }

static int limited_extents(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_ranges *data, struct rp_error *err)
{
    return rp_store_extents(INNER(s), offset, length, data, err);
}

static int limited_identity(struct rp_store *s, struct rp_store_identity *identity, struct rp_error *err)
{
    return rp_store_identity(INNER(s), identity, err);
}

static int limited_lock(struct rp_store *s, bool exclusive, struct rp_error *err)
{
    return rp_store_lock(INNER(s), exclusive, err);
}

static void limited_close(struct rp_store *s)
{
    rp_store_close(INNER(s));
    free(s);
}

static struct rp_store *limited_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    static const struct rp_store_ops ops = {
        .pread = limited_pread, .pwrite = limited_pwrite, .flush = limited_flush, .settle = limited_settle,
        .truncate = limited_truncate, .allocate = limited_allocate, .punch = limited_punch, .size = limited_size,
        .extents = limited_extents, .identity = limited_identity, .lock = limited_lock, .close = limited_close,
    };
    struct limited_fs *l = (struct limited_fs *)fs;
    struct rp_store *inner = rp_fs_open(l->inner, path, flags, err);
    if (!inner)
        return NULL;
    struct file *f = l->files;
    while (f && strcmp(f->path, path))
        f = f->next;
    if (!f) {
        f = rp_xcalloc(1, sizeof *f);
        *f = (struct file){l->files, rp_xstrdup(path), rp_xcalloc(PAGES, sizeof *f->used)};
        l->files = f;
    }
    struct limited_store *s = rp_xcalloc(1, sizeof *s);
    *s = (struct limited_store){{&ops, rp_xstrdup(path)}, inner, l, f};
    return &s->store;
}

static int limited_sync_directory(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    struct rp_fs *inner = ((struct limited_fs *)fs)->inner;
    return inner->ops->sync_directory(inner, path, err);
}

static int limited_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    return rp_fs_exists(((struct limited_fs *)fs)->inner, path, exists, err);
}

static int limited_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    return rp_fs_unlink(((struct limited_fs *)fs)->inner, path, err);
}

struct rp_fs *limited_fs_new(void)
{
    static const struct rp_fs_ops ops = {
        .open = limited_open, .unlink = limited_unlink, .sync_directory = limited_sync_directory, .exists = limited_exists};
    struct limited_fs *l = rp_xcalloc(1, sizeof *l);
    *l = (struct limited_fs){.fs = {&ops}, .inner = rp_fs_memory_new(), .limit = SIZE_MAX};
    pthread_mutex_init(&l->lock, NULL);
    return &l->fs;
}

void limited_fs_set(struct rp_fs *fs, size_t pages) { ((struct limited_fs *)fs)->limit = pages; }

size_t limited_fs_used(struct rp_fs *fs) { return ((struct limited_fs *)fs)->used; }

void limited_fs_watch(struct rp_fs *fs, limited_hook *hook, void *context)
{
    ((struct limited_fs *)fs)->context = context;
    ((struct limited_fs *)fs)->hook = hook;
}

void limited_fs_free(struct rp_fs *fs)
{
    struct limited_fs *l = (struct limited_fs *)fs;
    for (struct file *f = l->files, *next; f; f = next) {
        next = f->next;
        free(f->path);
        free(f->used);
        free(f);
    }
    rp_fs_memory_free(l->inner);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
