#include "crashfs.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pending { // a write that no flush has covered
    char *path;
    uint64_t offset;
    size_t size;
    uint8_t *data;
};

struct crashfs {
    struct rp_fs fs;
    struct rp_fs *memory;
    pthread_mutex_t lock;
    unsigned long calls, stop_at, trip_at, full_at, flushes;
    bool was_full; // a write has found no space since full_at was set
    enum rp_code trip_code;
    enum crashfs_call tripped;
    char tripped_path[256];
    atomic_bool full;
    const char *refused; // part of a path
    bool refuse_syncs;
    const char *lost;
    unsigned pass; // so many syncs of it
    unsigned flush_us;
    bool stopped;
    struct pending *pending;
    size_t count;
    struct crash_store *stores;
};

struct crash_store {
    struct rp_store store;
    struct crashfs *fs;
    struct rp_store *below;
    char *path; // today's
    struct crash_store *next;
};

static struct crash_store *store_of(struct rp_store *store) { return (struct crash_store *)store; }

enum step { GO, TRIPPED, STOP_NOW, STOPPED };

// Counts a changing call; the lock is held.
static enum step step(struct crashfs *fs, enum crashfs_call call, const char *path)
{
    if (fs->stopped)
        return STOPPED;
    if (++fs->calls == fs->trip_at) {
        fs->tripped = call;
        snprintf(fs->tripped_path, sizeof fs->tripped_path, "%s", path);
        return TRIPPED;
    }
    if (fs->calls != fs->stop_at)
        return GO;
    fs->stopped = true;
    return STOP_NOW;
}

static int refuse(const struct crashfs *fs, enum step now, struct rp_error *err)
{
    return rp_fail(err, now == TRIPPED ? fs->trip_code : RP_ERR_IO, now == TRIPPED ? "this call fails" : "the machine stopped here");
}

static void remember(struct crashfs *fs, const char *path, const void *data, size_t size, uint64_t offset)
{
    fs->pending = rp_xrealloc(fs->pending, (fs->count + 1) * sizeof *fs->pending);
    struct pending *p = &fs->pending[fs->count++];
    *p = (struct pending){rp_xstrdup(path), offset, size, rp_xmalloc(size)};
    memcpy(p->data, data, size);
}

static void forget(struct crashfs *fs, const char *path) // NULL: all
{
    size_t kept = 0;
    for (size_t i = 0; i < fs->count; i++) {
        if (path && strcmp(fs->pending[i].path, path)) {
            fs->pending[kept++] = fs->pending[i];
            continue;
        }
        free(fs->pending[i].path);
        free(fs->pending[i].data);
    }
    fs->count = kept;
}

static int crash_pread(struct rp_store *store, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    return rp_store_pread(store_of(store)->below, data, size, offset, err);
}

static bool refused(struct crash_store *s, bool sync)
{
    pthread_mutex_lock(&s->fs->lock);
    bool yes = s->fs->refused && s->fs->refuse_syncs == sync && strstr(s->path, s->fs->refused);
    pthread_mutex_unlock(&s->fs->lock);
    return yes;
}

static int crash_pwrite(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    struct crash_store *s = store_of(store);
    uint64_t length;
    bool longer = !rp_store_size(s->below, &length, NULL) && offset + size > length;
    if (refused(s, false) || (atomic_load(&s->fs->full) && longer))
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: no space", s->path);
    pthread_mutex_lock(&s->fs->lock);
    enum step now = step(s->fs, longer ? CRASHFS_WRITE : CRASHFS_WRITE_IN_PLACE, s->path);
    if (now == STOP_NOW || now == TRIPPED)
        size = size / 2 & ~(size_t)511; // torn: a sector is written or not
    bool no_room = now == GO && s->fs->full_at && s->fs->calls >= s->fs->full_at;
    if (no_room) {
        size = s->fs->was_full ? 0 : size / 2;
        s->fs->was_full = true;
    }
    int failed = 0;
    if (now != STOPPED && size) {
        failed = rp_store_pwrite(s->below, data, size, offset, err);
        remember(s->fs, s->path, data, size, offset);
    }
    pthread_mutex_unlock(&s->fs->lock);
    if (no_room)
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: no space", s->path);
    return now == GO ? failed : refuse(s->fs, now, err);
}

static bool loses(struct crash_store *s)
{
    pthread_mutex_lock(&s->fs->lock);
    bool its = s->fs->lost && !strcmp(s->path, s->fs->lost), yes = its && !s->fs->pass;
    s->fs->pass -= its && !yes;
    pthread_mutex_unlock(&s->fs->lock);
    return yes;
}

static int crash_flush(struct rp_store *store, struct rp_error *err)
{
    struct crash_store *s = store_of(store);
    if (s->fs->flush_us)
        usleep(s->fs->flush_us);
    if (refused(s, true))
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: sync: no space", s->path);
    if (loses(s))
        return rp_fail_sys(err, EROFS, "%s: sync", s->path); // as ext4 says it when an error has aborted its journal
    pthread_mutex_lock(&s->fs->lock);
    enum step now = step(s->fs, CRASHFS_SYNC, s->path);
    int failed = 0;
    s->fs->flushes++;
    if (now == GO) {
        failed = rp_store_flush(s->below, err);
        forget(s->fs, s->path);
    }
    pthread_mutex_unlock(&s->fs->lock);
    return now == GO ? failed : refuse(s->fs, now, err);
}

static int crash_truncate(struct rp_store *store, uint64_t size, struct rp_error *err)
{
    struct crash_store *s = store_of(store);
    uint64_t length;
    bool longer = !rp_store_size(s->below, &length, NULL) && size > length;
    pthread_mutex_lock(&s->fs->lock);
    enum step now = step(s->fs, longer ? CRASHFS_WRITE : CRASHFS_CUT, s->path);
    int failed = now == GO ? rp_store_truncate(s->below, size, err) : refuse(s->fs, now, err);
    pthread_mutex_unlock(&s->fs->lock);
    return failed;
}

static int crash_size(struct rp_store *store, uint64_t *size, struct rp_error *err)
{
    return rp_store_size(store_of(store)->below, size, err);
}

static int crash_identity(struct rp_store *store, struct rp_store_identity *identity, struct rp_error *err)
{
    return rp_store_identity(store_of(store)->below, identity, err);
}

static int crash_lock(struct rp_store *store, bool exclusive, struct rp_error *err)
{
    return rp_store_lock(store_of(store)->below, exclusive, err);
}

static void crash_close(struct rp_store *store)
{
    struct crash_store *s = store_of(store);
    pthread_mutex_lock(&s->fs->lock);
    for (struct crash_store **p = &s->fs->stores; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            break;
        }
    pthread_mutex_unlock(&s->fs->lock);
    rp_store_close(s->below);
    free(s->path);
    free(s);
}

static struct crashfs *fs_of(struct rp_fs *fs) { return (struct crashfs *)fs; }

static struct rp_store *crash_open(struct rp_fs *base, const char *path, unsigned flags, struct rp_error *err)
{
    static const struct rp_store_ops ops = {
        .pread = crash_pread,
        .pwrite = crash_pwrite,
        .flush = crash_flush,
        .truncate = crash_truncate,
        .size = crash_size,
        .identity = crash_identity,
        .lock = crash_lock,
        .close = crash_close,
    };
    struct crashfs *fs = fs_of(base);
    pthread_mutex_lock(&fs->lock);
    struct rp_store *below = NULL;
    enum step now = flags & RP_OPEN_CREATE ? step(fs, CRASHFS_NAME, path) : GO;
    if (now != GO)
        refuse(fs, now, err);
    else
        below = rp_fs_open(fs->memory, path, flags, err);
    struct crash_store *s = NULL;
    if (below) {
        s = rp_xcalloc(1, sizeof *s);
        *s = (struct crash_store){{&ops, rp_xstrdup(path)}, fs, below, rp_xstrdup(path), fs->stores};
        fs->stores = s;
    }
    pthread_mutex_unlock(&fs->lock);
    return s ? &s->store : NULL;
}

static int crash_rename(struct rp_fs *base, const char *from, const char *to, struct rp_error *err)
{
    struct crashfs *fs = fs_of(base);
    pthread_mutex_lock(&fs->lock);
    enum step now = step(fs, CRASHFS_NAME, to);
    int failed = now == GO ? rp_fs_rename(fs->memory, from, to, err) : refuse(fs, now, err);
    if (!failed) {
        forget(fs, to);
        for (size_t i = 0; i < fs->count; i++)
            if (!strcmp(fs->pending[i].path, from)) {
                free(fs->pending[i].path);
                fs->pending[i].path = rp_xstrdup(to);
            }
        for (struct crash_store *s = fs->stores; s; s = s->next)
            if (!strcmp(s->path, from)) {
                free(s->path);
                s->path = rp_xstrdup(to);
            }
    }
    pthread_mutex_unlock(&fs->lock);
    return failed;
}

static int crash_unlink(struct rp_fs *base, const char *path, struct rp_error *err)
{
    struct crashfs *fs = fs_of(base);
    pthread_mutex_lock(&fs->lock);
    enum step now = step(fs, CRASHFS_NAME, path);
    int failed = now == GO ? rp_fs_unlink(fs->memory, path, err) : refuse(fs, now, err);
    if (!failed)
        forget(fs, path);
    pthread_mutex_unlock(&fs->lock);
    return failed;
}

static int crash_sync_directory(struct rp_fs *base, const char *directory, struct rp_error *err)
{
    struct crashfs *fs = fs_of(base);
    pthread_mutex_lock(&fs->lock);
    enum step now = step(fs, CRASHFS_SYNC_DIRECTORY, directory);
    int failed = now == GO ? fs->memory->ops->sync_directory(fs->memory, directory, err) : refuse(fs, now, err);
    pthread_mutex_unlock(&fs->lock);
    return failed;
}

static int crash_exists(struct rp_fs *base, const char *path, bool *exists, struct rp_error *err)
{
    return rp_fs_exists(fs_of(base)->memory, path, exists, err);
}

struct rp_fs *crashfs_new(void)
{
    static const struct rp_fs_ops ops = {
        .open = crash_open,
        .rename = crash_rename,
        .unlink = crash_unlink,
        .sync_directory = crash_sync_directory,
        .exists = crash_exists,
    };
    struct crashfs *fs = rp_xcalloc(1, sizeof *fs);
    fs->fs.ops = &ops;
    fs->memory = rp_fs_memory_new();
    pthread_mutex_init(&fs->lock, NULL);
    return &fs->fs;
}

void crashfs_free(struct rp_fs *base)
{
    struct crashfs *fs = fs_of(base);
    forget(fs, NULL);
    free(fs->pending);
    rp_fs_memory_free(fs->memory);
    pthread_mutex_destroy(&fs->lock);
    free(fs);
}

void crashfs_arm(struct rp_fs *fs, unsigned long n)
{
    fs_of(fs)->stop_at = n;
    fs_of(fs)->calls = fs_of(fs)->trip_at = 0;
}

void crashfs_full(struct rp_fs *fs, bool full) { atomic_store(&fs_of(fs)->full, full); }

void crashfs_fill(struct rp_fs *fs, unsigned long n)
{
    if (n)
        crashfs_arm(fs, 0);
    fs_of(fs)->full_at = n;
    fs_of(fs)->was_full = false;
}

void crashfs_refuse(struct rp_fs *base, const char *part, bool syncs)
{
    struct crashfs *fs = fs_of(base);
    pthread_mutex_lock(&fs->lock);
    fs->refused = part;
    fs->refuse_syncs = syncs;
    pthread_mutex_unlock(&fs->lock);
}

void crashfs_lose(struct rp_fs *base, const char *path, unsigned pass)
{
    struct crashfs *fs = fs_of(base);
    pthread_mutex_lock(&fs->lock);
    fs->lost = path;
    fs->pass = pass;
    pthread_mutex_unlock(&fs->lock);
}

void crashfs_trip(struct rp_fs *fs, unsigned long n, enum rp_code code)
{
    crashfs_arm(fs, 0);
    fs_of(fs)->trip_at = n;
    fs_of(fs)->trip_code = code;
    if (n)
        fs_of(fs)->tripped = CRASHFS_NONE;
}

void crashfs_slow(struct rp_fs *fs, unsigned microseconds) { fs_of(fs)->flush_us = microseconds; }
unsigned long crashfs_flushes(struct rp_fs *fs) { return fs_of(fs)->flushes; }

enum crashfs_call crashfs_tripped(struct rp_fs *fs, const char **path)
{
    *path = fs_of(fs)->tripped_path;
    return fs_of(fs)->tripped;
}

bool crashfs_was_full(struct rp_fs *fs) { return fs_of(fs)->was_full; }
unsigned long crashfs_calls(struct rp_fs *fs) { return fs_of(fs)->calls; }
bool crashfs_stopped(struct rp_fs *fs) { return fs_of(fs)->stopped; }

// The cache wrote this back before the power failed, all of it or some of its sectors.
static void came_through(struct crashfs *fs, const struct pending *p, uint64_t *seed)
{
    struct rp_store *store = rp_fs_open(fs->memory, p->path, RP_OPEN_WRITE, NULL);
    if (!store)
        return; // its name was lost
    bool torn = test_random(seed) % 2;
    for (size_t done = 0; done < p->size;) {
        size_t n = p->size - done < 512 ? p->size - done : 512;
        if (!torn || test_random(seed) % 2)
            rp_store_pwrite(store, p->data + done, n, p->offset + done, NULL);
        done += n;
    }
    rp_store_flush(store, NULL);
    rp_store_close(store);
}

void crashfs_restart(struct rp_fs *base, bool power_cut, uint64_t *seed)
{
    struct crashfs *fs = fs_of(base);
    if (power_cut) {
        rp_fs_memory_cut(fs->memory);
        for (size_t i = 0; i < fs->count; i++)
            if (test_random(seed) % 2)
                came_through(fs, &fs->pending[i], seed);
        forget(fs, NULL);
    }
    fs->stopped = false;
    fs->stop_at = fs->trip_at = fs->calls = 0;
}

uint64_t test_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 0x2545F4914F6CDD1Dull;
}

uint64_t test_seed(void)
{
    const char *text = getenv("RP_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 20161012;
    printf("# RP_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed * 0x9E3779B97F4A7C15ull + 1;
}
