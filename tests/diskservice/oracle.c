#include "oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "crashfs.h"
#include "disk/chain.h"

void oracle_new(struct oracle *o, _Atomic uint64_t *clock, size_t index, uint64_t size, const char *path)
{
    memset(o, 0, sizeof *o);
    o->clock = clock;
    o->index = index;
    o->size = size;
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->released, NULL);
    o->layers[o->depth++] = (struct oracle_layer){rp_xstrdup(path), -1};
}

void oracle_free(struct oracle *o)
{
    for (size_t i = 0; i < o->depth; i++)
        free(o->layers[i].path);
    for (size_t i = 0; i < o->point_count; i++) {
        free(o->points[i]->image);
        free(o->points[i]);
    }
    free(o->points);
    free(o->log);
    pthread_mutex_destroy(&o->lock);
    pthread_cond_destroy(&o->released);
}

static uint64_t tick(struct oracle *o) { return atomic_fetch_add(o->clock, 1) + 1; }

// Two operations never touch the same sectors at once: their order would be anybody's guess.
static void claim(struct oracle *o, uint64_t first, uint64_t count, bool release)
{
    pthread_mutex_lock(&o->lock);
    for (bool wait = !release; wait;) {
        wait = false;
        for (uint64_t i = first / CELL; i <= (first + count - 1) / CELL; i++)
            wait |= o->claimed[i];
        if (wait)
            pthread_cond_wait(&o->released, &o->lock);
    }
    for (uint64_t i = first / CELL; i <= (first + count - 1) / CELL; i++)
        o->claimed[i] = !release;
    pthread_cond_broadcast(&o->released);
    pthread_mutex_unlock(&o->lock);
}

static void append(struct oracle *o, const struct op *op)
{
    if (o->log_count == o->log_capacity) {
        o->log_capacity = o->log_capacity ? o->log_capacity * 2 : 256;
        o->log = rp_xrealloc(o->log, o->log_capacity * sizeof *o->log);
    }
    o->log[o->log_count++] = *op;
}

// The operation is over. `failed`: perhaps it never was.
static void note(struct oracle *o, struct op *op, bool failed)
{
    pthread_mutex_lock(&o->lock);
    uint64_t end = atomic_load(o->clock);
    op->end = failed ? UINT64_MAX : end; // a flush that finds nothing to sync after it does not make it have happened
    append(o, op);
    for (uint32_t s = op->first; s < op->first + op->count; s++) {
        uint32_t unit = s / (ORACLE_UNIT / SECTOR);
        // Zeroing what reads as zeros may or may not count as a change; writing always does.
        if (!failed && (op->value || o->value[s]))
            o->must[unit] = rp_max64(o->must[unit], op->begin);
        o->may[unit] = rp_max64(o->may[unit], end);
        if (!failed)
            o->value[s] = op->value;
    }
    pthread_mutex_unlock(&o->lock);
}

static uint64_t word_of(uint32_t value, uint64_t sector) { return value ? (uint64_t)value << 32 | sector : 0; }

static int write_sectors(struct oracle *o, struct rp_engine *engine, const struct op *op, bool fua)
{
    RP_AUTO_FREE uint64_t *data = rp_xmalloc((size_t)op->count * SECTOR);
    for (uint32_t i = 0; i < op->count; i++)
        for (int j = 0; j < SECTOR / 8; j++)
            data[i * (SECTOR / 8) + (uint32_t)j] = word_of(op->value, op->first + i);
    return rp_engine_write(engine, o->index, data, op->count * SECTOR, (uint64_t)op->first * SECTOR, fua, NULL);
}

int oracle_change(struct oracle *o, struct rp_engine *engine, uint64_t *seed)
{
    static _Atomic uint32_t numbers;
    uint32_t sectors = (uint32_t)(atomic_load(&o->size) / SECTOR), block = ORACLE_BLOCK / SECTOR;
    unsigned dice = test_random(seed) % 16;
    enum change kind = dice < 12 ? CHANGE_WRITE : dice < 14 ? CHANGE_ZERO : CHANGE_TRIM;
    uint32_t most = kind == CHANGE_WRITE ? 300 : 3 * block;
    struct op op = {.first = (uint32_t)(test_random(seed) % sectors), .count = 1 + (uint32_t)(test_random(seed) % most)};
    if (test_random(seed) % 2) // half of them in a corner, for something to be rewritten again and again
        op.first %= sectors / 8;
    op.count = (uint32_t)rp_min64(op.count, sectors - op.first);
    if (kind == CHANGE_TRIM) { // changes whole blocks, and the last one only if it is complete
        uint32_t end = (op.first + op.count) / block * block;
        op.first = (uint32_t)rp_align_up(op.first, block);
        if (end <= op.first)
            return 0;
        op.count = end - op.first;
    }
    if (kind == CHANGE_WRITE)
        op.value = 1 + atomic_fetch_add(&numbers, 1);
    claim(o, op.first, op.count, false);
    op.begin = atomic_load(o->clock);
    bool fua = test_random(seed) % 64 == 0;
    uint64_t offset = (uint64_t)op.first * SECTOR, length = (uint64_t)op.count * SECTOR;
    int failed = kind == CHANGE_WRITE  ? write_sectors(o, engine, &op, fua)
                 : kind == CHANGE_ZERO ? rp_engine_zero(engine, o->index, offset, length, fua, NULL)
                                       : rp_engine_trim(engine, o->index, offset, length, fua, NULL);
    note(o, &op, failed);
    claim(o, op.first, op.count, true);
    return failed;
}

// Everything that ended before `time` is durable. The lock is held.
static void advance(struct oracle *o, uint64_t time)
{
    if (time <= o->durable_at)
        return;
    for (size_t i = 0; i < o->log_count; i++) {
        const struct op *op = &o->log[i];
        if (op->end < time && op->end >= o->durable_at)
            for (uint32_t s = op->first; s < op->first + op->count; s++)
                o->durable[s] = op->value;
    }
    o->durable_at = time;
}

int oracle_flush(struct oracle *o, struct rp_engine *engine)
{
    uint64_t time = tick(o);
    if (rp_engine_flush(engine, o->index, NULL))
        return -1;
    pthread_mutex_lock(&o->lock);
    advance(o, time);
    pthread_mutex_unlock(&o->lock);
    return 0;
}

int oracle_grow(struct oracle *o, struct rp_engine *engine, uint64_t size)
{
    uint64_t old = atomic_load(&o->size), begin = tick(o);
    if (size <= old || size > ORACLE_MAX)
        return 0;
    if (rp_engine_grow(engine, o->index, size, NULL))
        return -1;
    pthread_mutex_lock(&o->lock);
    uint64_t end = tick(o);
    for (uint64_t unit = old / ORACLE_UNIT; unit < rp_div_up(size, ORACLE_UNIT); unit++) {
        o->must[unit] = rp_max64(o->must[unit], begin);
        o->may[unit] = rp_max64(o->may[unit], end);
    }
    atomic_store(&o->size, size);
    pthread_mutex_unlock(&o->lock);
    return 0;
}

int oracle_checkpoint(struct oracle *disks, size_t count, struct rp_engine *engine)
{
    struct point *fresh[8];
    for (size_t i = 0; i < count; i++)
        pthread_mutex_lock(&disks[i].lock);
    uint64_t begin = tick(&disks[0]);
    for (size_t i = 0; i < count; i++) {
        struct oracle *o = &disks[i];
        struct point *p = fresh[i] = rp_xcalloc(1, sizeof *p);
        p->begin = begin;
        p->size = atomic_load(&o->size);
        p->image = rp_xmalloc(sizeof o->value);
        p->era = o->era;
        memcpy(p->image, o->value, sizeof o->value);
        memcpy(p->must, o->must, sizeof o->must);
        memcpy(p->may, o->may, sizeof o->may);
    }
    for (size_t i = 0; i < count; i++)
        pthread_mutex_unlock(&disks[i].lock);

    struct rp_guid operation = rp_guid_new();
    struct rp_engine_checkpoint made;
    struct rp_error err = {0};
    if (rp_engine_checkpoint(engine, &operation, &made, &err))
        fail_msg("checkpoint: %s", err.text);
    uint64_t end = tick(&disks[0]);
    assert_int_equal(made.count, count);
    for (size_t i = 0; i < count; i++) {
        struct oracle *o = &disks[i];
        assert_true(made.disks[i].tracked);
        assert_string_equal(made.disks[i].path, o->layers[o->depth - 1].path);
        fresh[i]->id = made.disks[i].id;
        fresh[i]->end = end;
        o->points = rp_xrealloc(o->points, (o->point_count + 1) * sizeof(struct point *));
        o->points[o->point_count] = fresh[i];
        o->layers[o->depth - 1].point = (int)o->point_count++;
        o->layers[o->depth++] = (struct oracle_layer){rp_xstrdup(made.disks[i].leaf_path), -1};
        pthread_mutex_lock(&o->lock);
        advance(o, begin);
        pthread_mutex_unlock(&o->lock);
    }
    rp_engine_checkpoint_clear(&made);
    return 0;
}

void oracle_merged(struct oracle *o, size_t layer)
{
    o->layers[layer - 1].point = o->layers[layer].point;
    free(o->layers[layer].path);
    memmove(o->layers + layer, o->layers + layer + 1, (--o->depth - layer) * sizeof *o->layers);
}

// The operation whose content the sector holds.
static uint32_t decode(const uint64_t *data, uint64_t sector, const char *what)
{
    for (int j = 1; j < SECTOR / 8; j++)
        if (data[j] != data[0])
            fail_msg("%s: sector %llu is torn", what, (unsigned long long)sector);
    if (data[0] && (uint32_t)data[0] != sector)
        fail_msg("%s: sector %llu holds the content of sector %u", what, (unsigned long long)sector, (uint32_t)data[0]);
    return (uint32_t)(data[0] >> 32);
}

typedef int read_fn(void *source, void *data, uint32_t size, uint64_t offset, struct rp_error *err);
typedef void sector_fn(struct oracle *o, void *context, uint32_t sector, uint32_t found);

static void each_sector(struct oracle *o, uint64_t size, read_fn *read, void *source, sector_fn *check, void *context,
                        const char *what)
{
    static uint64_t data[(1 << 20) / 8];
    struct rp_error err = {0};
    for (uint64_t offset = 0; offset < size; offset += sizeof data) {
        uint32_t n = (uint32_t)rp_min64(sizeof data, size - offset);
        if (read(source, data, n, offset, &err))
            fail_msg("%s: %s", what, err.text);
        for (uint32_t i = 0; i < n / SECTOR; i++)
            check(o, context, (uint32_t)(offset / SECTOR) + i, decode(data + i * (SECTOR / 8), offset / SECTOR + i, what));
    }
}

struct engine_disk {
    struct rp_engine *engine;
    size_t index;
};

static int read_engine(void *source, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    struct engine_disk *d = source;
    return rp_engine_read(d->engine, d->index, data, size, offset, err);
}

static int read_vhdx(void *source, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    return rp_vhdx_read(source, data, size, offset, err);
}

static void must_be_current(struct oracle *o, void *context, uint32_t sector, uint32_t found)
{
    (void)context;
    if (found != o->value[sector])
        fail_msg("disk %zu: sector %u is of operation %u, written last by %u", o->index, sector, found, o->value[sector]);
}

void oracle_check_content(struct oracle *o, struct rp_engine *engine)
{
    struct engine_disk source = {engine, o->index};
    each_sector(o, atomic_load(&o->size), read_engine, &source, must_be_current, NULL, "the disk");
}

static bool explains(const struct op *op, uint32_t sector, uint32_t found)
{
    return op->value == found && sector >= op->first && sector < op->first + op->count;
}

static void must_be_point(struct oracle *o, void *context, uint32_t sector, uint32_t found)
{
    struct point *p = context;
    bool right = p->image[sector] == found;
    for (size_t i = 0; !right && !p->resolved && i < o->log_count; i++)
        right = o->log[i].end >= p->begin && o->log[i].begin < p->end && explains(&o->log[i], sector, found);
    if (!right)
        fail_msg("disk %zu: the checkpoint holds operation %u in sector %u, not %u", o->index, found, sector,
                 p->image[sector]);
    p->image[sector] = found;
}

static void check_layer(struct oracle *o, struct rp_fs *fs, size_t layer)
{
    struct point *p = o->points[o->layers[layer].point];
    struct rp_error err = {0};
    RP_CLEANUP(rp_chain_close) struct rp_chain chain = {0};
    if (rp_chain_open(fs, o->layers[layer].path, &chain, &err))
        fail_msg("%s", err.text);
    assert_int_equal(rp_vhdx_info(chain.layers[0])->size, p->size);
    each_sector(o, p->size, read_vhdx, chain.layers[0], must_be_point, p, o->layers[layer].path);
    p->resolved = true;
}

void oracle_settle(struct oracle *o, struct rp_fs *fs)
{
    for (size_t i = 0; i < o->point_count; i++) {
        struct point *p = o->points[i];
        if (p->resolved)
            continue;
        for (size_t j = 0; j < o->log_count; j++) {
            const struct op *op = &o->log[j];
            if (op->end >= p->begin && op->begin < p->end)
                for (uint32_t s = op->first; s < op->first + op->count; s++)
                    p->may[s / (ORACLE_UNIT / SECTOR)] = rp_max64(p->may[s / (ORACLE_UNIT / SECTOR)], op->end);
        }
        for (size_t layer = 0; layer + 1 < o->depth; layer++)
            if (o->layers[layer].point == (int)i)
                check_layer(o, fs, layer);
        if (!p->resolved) { // merged away meanwhile: nobody will ask for its content
            free(p->image);
            p->image = NULL;
            p->resolved = true;
        }
    }
    // Only what a crash may undo is still of interest.
    size_t kept = 0;
    for (size_t i = 0; i < o->log_count; i++)
        if (o->log[i].end >= o->durable_at)
            o->log[kept++] = o->log[i];
    o->log_count = kept;
}

void oracle_check_frozen(struct oracle *o, struct rp_fs *fs)
{
    for (size_t layer = 0; layer + 1 < o->depth; layer++)
        check_layer(o, fs, layer);
}

void oracle_check_changes(struct oracle *o, struct rp_engine *engine, struct rp_fs *fs, size_t since, size_t layer)
{
    const struct point *from = o->points[since], *to = layer + 1 < o->depth ? o->points[o->layers[layer].point] : NULL;
    uint64_t size = to ? to->size : atomic_load(&o->size);
    const uint64_t *must = to ? to->must : o->must, *may = to ? to->may : o->may;
    const char *path = o->layers[layer].path;
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges r = {0};
    struct rp_error err = {0};
    int failed = engine ? rp_engine_changes(engine, path, &from->id, 0, size, &r, &err)
                        : rp_changes_at_rest(fs, path, &from->id, 0, size, &r, &err);
    bool exact = from->era == o->era;
    if (failed)
        fail_msg("changes of %s: %s", path, err.text);
    size_t at = 0;
    for (uint64_t unit = 0; unit < rp_div_up(size, ORACLE_UNIT); unit++) {
        while (at < r.count && r.items[at].offset + r.items[at].length <= unit * ORACLE_UNIT)
            at++;
        bool listed = at < r.count && r.items[at].offset <= unit * ORACLE_UNIT;
        if (!listed && must[unit] >= from->end)
            fail_msg("disk %zu, point %zu, %s: unit %llu changed and is not listed", o->index, since, path,
                     (unsigned long long)unit);
        if (listed && exact && may[unit] < from->begin)
            fail_msg("disk %zu, point %zu, %s: unit %llu did not change and is listed", o->index, since, path,
                     (unsigned long long)unit);
    }
}

static void take_over(struct oracle *o, void *context, uint32_t sector, uint32_t found)
{
    (void)context;
    bool right = found == o->durable[sector], touched = false;
    for (size_t i = 0; !right && i < o->log_count; i++) {
        const struct op *op = &o->log[i];
        if (op->end < o->durable_at || sector < op->first || sector >= op->first + op->count)
            continue;
        touched = true;
        right = op->value == found;
    }
    if (!right && !(touched && !found)) // new space may come back as zeros
        fail_msg("disk %zu: after the crash sector %u is of operation %u; durable was %u", o->index, sector, found,
                 o->durable[sector]);
    o->value[sector] = o->durable[sector] = found;
}

void oracle_crashed(struct oracle *o, struct rp_engine *engine)
{
    struct engine_disk source = {engine, o->index};
    o->era++;
    each_sector(o, atomic_load(&o->size), read_engine, &source, take_over, NULL, "after the crash");
    o->log_count = 0;
    // What the crash brought back reads so from now on, but was it synced? Flushing makes it so.
    assert_int_equal(oracle_flush(o, engine), 0);
}

void oracle_closed(struct oracle *o) { advance(o, tick(o)); }
