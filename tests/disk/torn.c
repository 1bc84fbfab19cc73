#include "torn.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/num.h"
#include "io/memory.h"

enum kind { WRITE, TRUNCATE, PUNCH };

struct op {
    enum kind kind;
    uint64_t offset, size;
    uint8_t *data;
};

struct file {
    struct file *next;
    char *path;
    struct op *ops; // since the last flush
    size_t count, capacity;
};

struct torn_fs {
    struct rp_fs fs;
    struct rp_fs *inner;
    pthread_mutex_t lock;
    struct file *files;
    unsigned long calls;
    unsigned fail_flush;
    void (*act)(void *context); // at a sync
    void *act_context;
    unsigned long stop_after; // changes still possible, + 1; 0: no limit
    bool stopped;
    bool shares;
};

struct torn_store {
    struct rp_store store;
    struct rp_store *inner;
    struct torn_fs *fs;
    struct file *file;
};

#define TORN(s) ((struct torn_store *)(s))

static void count(struct torn_store *t)
{
    pthread_mutex_lock(&t->fs->lock);
    t->fs->calls++;
    pthread_mutex_unlock(&t->fs->lock);
}

// Before every call that changes a file; -1: the machine has stopped.
static int go_on(struct torn_store *t, struct rp_error *err)
{
    pthread_mutex_lock(&t->fs->lock);
    if (t->fs->stop_after && !--t->fs->stop_after)
        t->fs->stopped = true;
    bool stopped = t->fs->stopped;
    pthread_mutex_unlock(&t->fs->lock);
    return stopped ? rp_fail(err, RP_ERR_IO, "%s: the power is gone", t->store.name) : 0;
}

static void record(struct torn_store *t, enum kind kind, uint64_t offset, uint64_t size, const void *data)
{
    pthread_mutex_lock(&t->fs->lock);
    struct file *f = t->file;
    if (f->count == f->capacity) {
        f->capacity = f->capacity ? f->capacity * 2 : 16;
        f->ops = rp_xrealloc(f->ops, f->capacity * sizeof *f->ops);
    }
    uint8_t *copy = NULL;
    if (data) {
        copy = rp_xmalloc(size);
        memcpy(copy, data, size);
    }
    f->ops[f->count++] = (struct op){kind, offset, size, copy};
    t->fs->calls++;
    pthread_mutex_unlock(&t->fs->lock);
}

static void forget(struct file *f)
{
    for (size_t i = 0; i < f->count; i++)
        free(f->ops[i].data);
    f->count = 0;
}

static int torn_pread(struct rp_store *s, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    count(TORN(s));
    return rp_store_pread(TORN(s)->inner, data, size, offset, err);
}

static int torn_pwrite(struct rp_store *s, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    if (go_on(TORN(s), err))
        return -1;
    record(TORN(s), WRITE, offset, size, data);
    return rp_store_pwrite(TORN(s)->inner, data, size, offset, err);
}

static int torn_flush(struct rp_store *s, struct rp_error *err)
{
    struct torn_store *t = TORN(s);
    if (go_on(t, err))
        return -1;
    void (*act)(void *context) = t->fs->act;
    t->fs->act = NULL; // not for the syncs that it makes itself
    if (act)
        act(t->fs->act_context);
    t->fs->act = act;
    pthread_mutex_lock(&t->fs->lock);
    t->fs->calls++;
    bool fail = t->fs->fail_flush && !--t->fs->fail_flush;
    if (!fail)
        forget(t->file);
    pthread_mutex_unlock(&t->fs->lock);
    return fail ? rp_fail(err, RP_ERR_IO, "%s: sync: made to fail", s->name) : rp_store_flush(t->inner, err);
}

static int torn_truncate(struct rp_store *s, uint64_t size, struct rp_error *err)
{
    if (go_on(TORN(s), err))
        return -1;
    record(TORN(s), TRUNCATE, size, 0, NULL);
    return rp_store_truncate(TORN(s)->inner, size, err);
}

static int torn_size(struct rp_store *s, uint64_t *size, struct rp_error *err)
{
    count(TORN(s));
    return rp_store_size(TORN(s)->inner, size, err);
}

static int torn_extents(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_ranges *data,
                        struct rp_error *err)
{
    return rp_store_extents(TORN(s)->inner, offset, length, data, err);
}

static int torn_allocate(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_error *err)
{
    return go_on(TORN(s), err) ? -1 : rp_store_allocate(TORN(s)->inner, offset, length, err);
}

static int torn_punch(struct rp_store *s, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (go_on(TORN(s), err))
        return -1;
    record(TORN(s), PUNCH, offset, length, NULL);
    return rp_store_punch(TORN(s)->inner, offset, length, err);
}

// What survives of it survives as of a write: the file system wrote the source's data before it shared it.
static int torn_clone_range(struct rp_store *to, uint64_t to_offset, struct rp_store *from, uint64_t from_offset, uint64_t length,
                            struct rp_error *err)
{
    struct torn_store *t = TORN(to), *source = TORN(from);
    if (!t->fs->shares)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: cannot share", to->name);
    if (!length)
        return 0;
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(length);
    if (go_on(t, err) || rp_store_pread(source->inner, data, length, from_offset, err))
        return -1;
    record(t, WRITE, to_offset, length, data);
    return rp_store_clone_range(t->inner, to_offset, source->inner, from_offset, length, err);
}

static int torn_identity(struct rp_store *s, struct rp_store_identity *identity, struct rp_error *err)
{
    return rp_store_identity(TORN(s)->inner, identity, err);
}

static int torn_lock(struct rp_store *s, bool exclusive, struct rp_error *err)
{
    return rp_store_lock(TORN(s)->inner, exclusive, err);
}

static void torn_close(struct rp_store *s)
{
    rp_store_close(TORN(s)->inner);
    free(s);
}

static const struct rp_store_ops store_ops = {
    .pread = torn_pread,
    .pwrite = torn_pwrite,
    .flush = torn_flush,
    .truncate = torn_truncate,
    .size = torn_size,
    .extents = torn_extents,
    .allocate = torn_allocate,
    .punch = torn_punch,
    .clone_range = torn_clone_range,
    .identity = torn_identity,
    .lock = torn_lock,
    .close = torn_close,
};

static struct rp_store *torn_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    struct torn_fs *t = (struct torn_fs *)fs;
    struct rp_store *inner = rp_fs_open(t->inner, path, flags, err);
    if (!inner)
        return NULL;
    struct file *f = t->files;
    while (f && strcmp(f->path, path))
        f = f->next;
    if (!f) {
        f = rp_xcalloc(1, sizeof *f);
        *f = (struct file){.next = t->files, .path = rp_xstrdup(path)};
        t->files = f;
    }
    struct torn_store *s = rp_xcalloc(1, sizeof *s);
    *s = (struct torn_store){{&store_ops, rp_xstrdup(path)}, inner, t, f};
    return &s->store;
}

static int torn_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    return rp_fs_rename(((struct torn_fs *)fs)->inner, from, to, err);
}

static int torn_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    return rp_fs_unlink(((struct torn_fs *)fs)->inner, path, err);
}

static int torn_sync_directory(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    struct rp_fs *inner = ((struct torn_fs *)fs)->inner;
    return inner->ops->sync_directory(inner, path, err);
}

static int torn_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    return rp_fs_exists(((struct torn_fs *)fs)->inner, path, exists, err);
}

struct rp_fs *torn_fs_new(void)
{
    static const struct rp_fs_ops ops = {torn_open, torn_rename, torn_unlink, torn_sync_directory, torn_exists};
    struct torn_fs *t = rp_xcalloc(1, sizeof *t);
    t->fs.ops = &ops;
    t->inner = rp_fs_memory_new();
    pthread_mutex_init(&t->lock, NULL);
    return &t->fs;
}

static void replay_some(struct rp_store *store, const struct op *op, uint64_t *random, unsigned keep)
{
    if (op->kind != WRITE) {
        if (random_below(random, 256) < keep && op->kind == TRUNCATE)
            rp_store_truncate(store, op->offset, NULL);
        else if (random_below(random, 256) < keep && op->kind == PUNCH)
            rp_store_punch(store, op->offset, op->size, NULL);
        return;
    }
    bool whole = random_below(random, 2);
    if (whole && random_below(random, 256) >= keep)
        return;
    for (uint64_t at = 0; at < op->size;) {
        uint64_t n = rp_min64(op->size - at, 512 - (op->offset + at) % 512);
        if (whole || random_below(random, 256) < keep)
            rp_store_pwrite(store, op->data + at, n, op->offset + at, NULL);
        at += n;
    }
}

void torn_fs_cut(struct rp_fs *fs, uint64_t *random, unsigned keep)
{
    struct torn_fs *t = (struct torn_fs *)fs;
    rp_fs_memory_cut(t->inner);
    t->stopped = false;
    t->stop_after = 0;
    for (struct file *f = t->files; f; f = f->next) {
        struct rp_store *store = f->count ? rp_fs_open(t->inner, f->path, RP_OPEN_WRITE, NULL) : NULL;
        for (size_t i = 0; store && i < f->count; i++)
            replay_some(store, &f->ops[i], random, keep);
        if (store) {
            rp_store_flush(store, NULL);
            rp_store_close(store);
        }
        forget(f);
    }
}

void torn_fs_kill(struct rp_fs *fs)
{
    struct torn_fs *t = (struct torn_fs *)fs;
    t->stopped = false;
    t->stop_after = 0;
}

unsigned long torn_fs_syncs(struct rp_fs *fs) { return rp_fs_memory_syncs(((struct torn_fs *)fs)->inner); }

unsigned long torn_fs_calls(struct rp_fs *fs) { return ((struct torn_fs *)fs)->calls; }

void torn_fs_stop_after(struct rp_fs *fs, unsigned long changes) { ((struct torn_fs *)fs)->stop_after = changes + 1; }

void torn_fs_fail_flush(struct rp_fs *fs, unsigned after) { ((struct torn_fs *)fs)->fail_flush = after; }

void torn_fs_at_flush(struct rp_fs *fs, void (*act)(void *context), void *context)
{
    ((struct torn_fs *)fs)->act = act;
    ((struct torn_fs *)fs)->act_context = context;
}

void torn_fs_share(struct rp_fs *fs) { ((struct torn_fs *)fs)->shares = true; }

void torn_fs_free(struct rp_fs *fs)
{
    struct torn_fs *t = (struct torn_fs *)fs;
    for (struct file *f = t->files, *next; f; f = next) {
        next = f->next;
        forget(f);
        free(f->ops);
        free(f->path);
        free(f);
    }
    rp_fs_memory_free(t->inner);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

uint64_t test_seed(void)
{
    const char *text = getenv("RP_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)rp_clock_wall_ns();
    fprintf(stderr, "RP_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}
