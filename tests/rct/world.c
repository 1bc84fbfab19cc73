#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"

static uint64_t now = 1000, inodes = 100;

void fake_disk_new(struct rp_rct_disk *disk, uint64_t size, const struct rp_guid *disk_id)
{
    *disk = (struct rp_rct_disk){.virtual_size = size, .disk_id = *disk_id,
                                 .file_write_guid = rp_guid_new(), .data_write_guid = rp_guid_new()};
    disk->identity = (struct rp_store_identity){.device = 1, .inode = ++inodes, .size = 4 << 20};
    fake_disk_written(disk, NULL);
}

struct rp_vhdx_session fake_session(void) { return (struct rp_vhdx_session){rp_guid_new(), rp_guid_new()}; }

void fake_disk_written(struct rp_rct_disk *disk, const struct rp_vhdx_session *session)
{
    if (session) {
        disk->file_write_guid = session->file_write_guid;
        disk->data_write_guid = session->data_write_guid;
    }
    disk->identity.mtime_ns = disk->identity.ctime_ns = (int64_t)++now;
}

// An error is right when the file system stopped, and only then.
static int stopped(struct world *w, const struct rp_error *err)
{
    if (!crashfs_stopped(w->fs))
        fail_msg("%s", err->text);
    return -1;
}

static const char *shm_name(const struct layer *layer) { return rp_path_name(layer->path); }

static void share(struct world *w, struct layer *layer)
{
    struct rp_error err = {0};
    if (!w->share)
        return;
    struct rp_shm *shm = rp_shm_create(w->shm, shm_name(layer), rp_rct_shm_size(), &err);
    if (!shm || rp_rct_share(layer->rct, shm, &err))
        fail_msg("%s", err.text);
    layer->shared = true;
}

// Opens the leaf to write and what is below it to ask.
static int open_all(struct world *w, enum rp_rct_verdict expected)
{
    struct rp_error err = {0};
    for (size_t i = w->depth; i-- > 0;) {
        struct layer *layer = &w->layers[i];
        struct rp_vhdx_session session = fake_session();
        enum rp_rct_verdict verdict;
        if (i) {
            layer->rct = rp_rct_open_read(w->fs, layer->path, &layer->disk, &err);
            if (!layer->rct && expected == RP_RCT_CLEAN)
                return stopped(w, &err);
            if (!layer->rct) {
                assert_int_equal(err.code, RP_ERR_TRACKING_OFF);
                err.code = RP_OK;
                layer->rct = rp_rct_recover(w->fs, layer->path, &layer->disk, &err);
            }
            if (!layer->rct)
                return stopped(w, &err);
            memset(&layer->regions, 0, sizeof layer->regions);
            continue;
        }
        layer->rct = rp_rct_open_write(w->fs, layer->path, &layer->disk, &session, &verdict, &err);
        if (!layer->rct)
            return stopped(w, &err);
        layer->shared = false;
        if (expected == RP_RCT_CLEAN || verdict == RP_RCT_FOREIGN)
            assert_int_equal(verdict, expected);
        fake_disk_written(&layer->disk, &session);
        memset(&layer->regions, 0, sizeof layer->regions);
        share(w, layer);
    }
    return 0;
}

static void close_all(struct world *w)
{
    for (size_t i = 0; i < w->depth; i++) {
        rp_rct_abandon(w->layers[i].rct);
        w->layers[i].rct = NULL;
    }
}

void world_start(struct world *w, uint64_t seed, uint64_t size)
{
    memset(w, 0, sizeof *w);
    *w = (struct world){.fs = crashfs_new(), .gate = rp_gate_new(), .seed = seed, .size = size, .depth = 1, .time = 1,
                        .shm = "/dev/shm/rct-test-XXXXXX", .share = seed % 2};
    pthread_mutex_init(&w->records, NULL);
    pthread_rwlock_init(&w->held, NULL);
    assert_non_null(mkdtemp(w->shm));
    struct rp_guid disk_id = rp_guid_new();
    fake_disk_new(&w->layers[0].disk, size, &disk_id);
    strcpy(w->layers[0].path, "vm/disk0");
    assert_int_equal(open_all(w, RP_RCT_NEW), 0);
}

void world_end(struct world *w)
{
    close_all(w);
    rp_shm_clean(w->shm);
    rp_gate_free(w->gate);
    crashfs_free(w->fs);
    pthread_mutex_destroy(&w->records);
    pthread_rwlock_destroy(&w->held);
}

static void mark_truth(struct world *w, uint64_t offset, uint64_t length)
{
    for (uint64_t unit = offset / WORLD_UNIT; unit <= (offset + length - 1) / WORLD_UNIT; unit++)
        atomic_store_explicit(&w->changed[unit], w->time, memory_order_relaxed);
}

static size_t region_of(uint64_t offset) { return (size_t)(offset / WORLD_REGION); }

// A cover sets what it is asked for, and for a stream as many regions more as were written before it.
static void note_cover(struct world *w, struct regions *r, uint64_t offset, uint64_t length)
{
    pthread_mutex_lock(&w->records);
    size_t first = region_of(offset), last = region_of(offset + length - 1), behind = 0;
    while (behind < 64 && behind < first && (r->written[first - behind - 1] || r->before[first - behind - 1]))
        behind++;
    for (size_t i = first; i <= last + behind && i < WORLD_REGIONS; i++)
        r->set[i] = r->asked[i] = true;
    pthread_mutex_unlock(&w->records);
}

static void note_write(struct world *w, struct regions *r, uint64_t offset, uint64_t length)
{
    pthread_mutex_lock(&w->records);
    for (size_t i = region_of(offset); i <= region_of(offset + length - 1); i++)
        r->written[i] = true;
    pthread_mutex_unlock(&w->records);
}

int world_cover(struct world *w, uint64_t offset, uint64_t length)
{
    struct rp_error err = {0};
    note_cover(w, &w->layers[0].regions, offset, length);
    return rp_rct_cover(w->layers[0].rct, offset, length, &err) ? stopped(w, &err) : 0;
}

void world_mark(struct world *w, uint64_t offset, uint64_t length)
{
    note_write(w, &w->layers[0].regions, offset, length);
    rp_rct_mark(w->layers[0].rct, offset, length);
    note_write(w, &w->layers[0].regions, offset, length); // perhaps in the generation of a flush that began meanwhile
    mark_truth(w, offset, length);
}

int world_write(struct world *w, uint64_t offset, uint64_t length)
{
    struct rp_error err = {0};
    unsigned token = rp_gate_enter(w->gate);
    while (!rp_rct_covered(w->layers[0].rct, offset, length)) {
        struct rp_rct *leaf = w->layers[0].rct;
        note_cover(w, &w->layers[0].regions, offset, length);
        pthread_rwlock_rdlock(&w->held);
        rp_gate_leave(w->gate, token);
        int failed = rp_rct_cover(leaf, offset, length, &err);
        pthread_rwlock_unlock(&w->held);
        if (failed)
            return stopped(w, &err);
        token = rp_gate_enter(w->gate);
        if (leaf == w->layers[0].rct) // perhaps in the generation of a flush that began meanwhile
            note_cover(w, &w->layers[0].regions, offset, length);
    }
    world_mark(w, offset, length);
    rp_gate_leave(w->gate, token);
    return 0;
}

int world_write_some(struct world *w, uint64_t *seed, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = test_random(seed) % (w->size / 512) * 512;
        uint64_t length = rp_min64(512 + test_random(seed) % 300000 / 512 * 512, w->size - offset);
        if (world_write(w, offset, length))
            return -1;
    }
    return 0;
}

static void publish(struct world *w, struct rp_rct_id id, uint32_t time)
{
    if (w->id_count == WORLD_IDS)
        memmove(w->ids, w->ids + 1, --w->id_count * sizeof *w->ids);
    w->ids[w->id_count++] = (struct published){id, time};
}

int world_checkpoint(struct world *w, bool show)
{
    if (w->depth == WORLD_LAYERS)
        return 0;
    struct layer child = {0};
    struct rp_error err = {0};
    snprintf(child.path, sizeof child.path, "vm/disk0-%u", ++w->files);
    fake_disk_new(&child.disk, w->size, &w->layers[0].disk.disk_id);
    struct rp_vhdx_session session = fake_session();
    child.rct = rp_rct_prepare_child(w->layers[0].rct, child.path, &child.disk, &session, &err);
    if (!child.rct)
        return stopped(w, &err);
    fake_disk_written(&child.disk, &session);
    share(w, &child);
    // What the parent wrote lately is set from the start.
    pthread_mutex_lock(&w->records);
    for (size_t i = 0; i < WORLD_REGIONS; i++)
        child.regions.set[i] = child.regions.written[i] =
            w->layers[0].regions.written[i] || w->layers[0].regions.before[i];
    pthread_mutex_unlock(&w->records);

    rp_gate_close(w->gate);
    struct rp_rct_id id = rp_rct_seal(w->layers[0].rct);
    uint32_t time = w->time++;
    memmove(w->layers + 1, w->layers, w->depth++ * sizeof *w->layers);
    w->layers[0] = child;
    rp_gate_open(w->gate);

    fake_disk_written(&w->layers[1].disk, NULL);
    if (rp_rct_freeze(w->layers[1].rct, &w->layers[1].disk, &err))
        return stopped(w, &err);
    w->layers[1].shared = false;
    memset(&w->layers[1].regions, 0, sizeof w->layers[1].regions);
    if (show)
        publish(w, id, time);
    return 0;
}

static int remove_layer(struct world *w, struct layer *gone)
{
    struct rp_error err = {0};
    pthread_rwlock_wrlock(&w->held);
    rp_rct_abandon(gone->rct);
    pthread_rwlock_unlock(&w->held);
    if (gone->shared)
        rp_shm_remove(rp_shm_open(w->shm, shm_name(gone), NULL));
    return rp_rct_remove(w->fs, gone->path, &err) ? stopped(w, &err) : 0;
}

// Of the leaf, with a pause in which nothing is written: the guest goes on in the parent before that is the leaf for good.
static int merge_live(struct world *w)
{
    struct rp_error err = {0};
    struct layer *child = &w->layers[0], *parent = &w->layers[1];
    struct rp_vhdx_session session = fake_session();
    if (rp_rct_prepare_merge(child->rct, parent->rct, &parent->disk, &session, &err))
        return stopped(w, &err);
    share(w, parent);
    fake_disk_written(&parent->disk, &session);
    parent->disk.virtual_size = child->disk.virtual_size;
    // From here on regions count, first those that the child wrote lately: also while it was prepared.
    pthread_mutex_lock(&w->records);
    for (size_t r = 0; r < WORLD_REGIONS; r++)
        parent->regions.set[r] = parent->regions.written[r] = child->regions.written[r] || child->regions.before[r];
    pthread_mutex_unlock(&w->records);
    if (rp_rct_ready_merge(parent->rct, &err))
        return stopped(w, &err);
    if (world_write_some(w, &w->seed, 2))
        return -1;

    rp_gate_close(w->gate);
    rp_rct_finish_merge(child->rct, parent->rct);
    w->given_up = *child;
    w->giving_up = true;
    memmove(w->layers, w->layers + 1, --w->depth * sizeof *w->layers);
    rp_gate_open(w->gate);

    if (world_write_some(w, &w->seed, 2))
        return -1;
    rp_rct_merged(w->layers[0].rct);
    if (rp_rct_thaw(w->layers[0].rct, &err))
        return stopped(w, &err);
    w->giving_up = false;
    return remove_layer(w, &w->given_up);
}

static int merge_locked(struct world *w, size_t i)
{
    struct rp_error err = {0};
    struct layer *child = &w->layers[i], *parent = &w->layers[i + 1];
    struct rp_vhdx_session session = fake_session();
    if (rp_rct_merge(child->rct, parent->rct, &parent->disk, &session, &err))
        return stopped(w, &err);
    fake_disk_written(&parent->disk, &session);
    parent->disk.virtual_size = child->disk.virtual_size;
    if (i > 1) { // a frozen file above gets a new parent locator
        struct layer *above = &w->layers[i - 1];
        struct rp_vhdx_session locator = {rp_guid_new(), above->disk.data_write_guid};
        if (rp_rct_rebind(above->rct, &above->disk, &locator, &err))
            return stopped(w, &err);
        fake_disk_written(&above->disk, &locator);
        if (rp_rct_freeze(above->rct, &above->disk, &err))
            return stopped(w, &err);
    }
    rp_rct_merged(parent->rct);
    if (!i) {
        parent->regions = child->regions;
        for (size_t r = 0; r < WORLD_REGIONS; r++)
            parent->regions.set[r] = parent->regions.written[r] = child->regions.written[r] || child->regions.before[r];
        memset(parent->regions.before, 0, sizeof parent->regions.before);
    }
    if (i ? rp_rct_freeze(parent->rct, &parent->disk, &err) : rp_rct_thaw(parent->rct, &err))
        return stopped(w, &err);
    if (!i)
        share(w, parent);
    struct layer gone = *child;
    if (i)
        rp_gate_close(w->gate); // the list of layers changes
    memmove(w->layers + i, w->layers + i + 1, (--w->depth - i) * sizeof *w->layers);
    if (i)
        rp_gate_open(w->gate);
    return remove_layer(w, &gone);
}

int world_flush(struct world *w)
{
    struct rp_error err = {0};
    struct regions *r = &w->layers[0].regions;
    // With nothing set, a new generation may or may not begin: then the older records stay as well.
    bool turns = rp_rct_exposed(w->layers[0].rct) > 0;
    pthread_mutex_lock(&w->records);
    for (size_t i = 0; i < WORLD_REGIONS; i++) {
        r->before[i] = r->written[i] || (r->before[i] && !turns);
        r->written[i] = r->asked[i] = false;
    }
    pthread_mutex_unlock(&w->records);
    if (rp_rct_flush(w->layers[0].rct, w->gate, &err))
        return stopped(w, &err);
    pthread_mutex_lock(&w->records);
    for (size_t i = 0; i < WORLD_REGIONS; i++) // what was in use, and what was asked for meanwhile
        r->set[i] = r->before[i] || r->asked[i] || r->written[i];
    pthread_mutex_unlock(&w->records);
    return 0;
}

int world_merge(struct world *w, size_t layer)
{
    if (layer + 1 >= w->depth)
        return 0;
    if (layer)
        return merge_locked(w, layer);
    if (w->seed & 64)
        return merge_live(w);
    rp_gate_close(w->gate);
    int failed = merge_locked(w, layer);
    rp_gate_open(w->gate);
    return failed;
}

int world_grow(struct world *w, uint64_t size)
{
    if (size <= w->size || size > (uint64_t)WORLD_UNITS * WORLD_UNIT)
        return 0;
    rp_gate_close(w->gate);
    struct rp_error err = {0};
    int failed = rp_rct_grow(w->layers[0].rct, size, &err);
    if (failed) {
        w->claimed[w->size / WORLD_UNIT] = w->time; // the unit that would have become larger
    } else {
        mark_truth(w, w->size, size - w->size);
        w->layers[0].disk.virtual_size = w->size = size;
    }
    rp_gate_open(w->gate);
    return failed ? stopped(w, &err) : 0;
}

int world_reopen(struct world *w)
{
    struct rp_error err = {0};
    fake_disk_written(&w->layers[0].disk, NULL);
    int failed = rp_rct_close(w->layers[0].rct, &w->layers[0].disk, &err);
    w->layers[0].rct = NULL;
    if (failed)
        return stopped(w, &err);
    w->layers[0].shared = false;
    memset(&w->layers[0].regions, 0, sizeof w->layers[0].regions);
    for (size_t i = 1; i < w->depth; i++) {
        assert_int_equal(rp_rct_close(w->layers[i].rct, NULL, NULL), 0);
        w->layers[i].rct = NULL;
    }
    return open_all(w, RP_RCT_CLEAN);
}

void world_fall(struct world *w, enum crash how)
{
    close_all(w);
    if (w->giving_up)
        rp_rct_abandon(w->given_up.rct);
    w->given_up.rct = NULL;
    // What was announced in memory is finished by the next process; when that is gone, the leaf is what it was.
    if (w->giving_up && !(how == KILL && w->given_up.shared && w->layers[0].shared)) {
        memmove(w->layers + 1, w->layers, w->depth++ * sizeof *w->layers);
        w->layers[0] = w->given_up;
        w->giving_up = false;
    }
    crashfs_restart(w->fs, how == POWER_CUT, &w->seed);
    for (size_t i = 0; i < w->depth; i++) {
        struct layer *layer = &w->layers[i];
        if (layer->shared && how == KILL)
            continue;
        layer->shared = false;
        for (size_t unit = 0; unit < WORLD_UNITS; unit++)
            if (layer->regions.set[unit * WORLD_UNIT / WORLD_REGION])
                w->claimed[unit] = w->time;
    }
    if (how != KILL)
        rp_shm_clean(w->shm);
    if (how != KILL && access(w->shm, F_OK))
        assert_int_equal(mkdir(w->shm, 0700), 0);
}

// As the engine does: the disk first, in the dead session's name, then its tracking; and all of it once more, as after
// another kill.
static int adopt(struct world *w, struct layer *layer)
{
    struct rp_error err = {0};
    struct rp_shm *shm = rp_shm_open(w->shm, shm_name(layer), &err);
    if (!shm)
        fail_msg("%s", err.text);
    fake_disk_written(&layer->disk, NULL);
    for (int i = 0; i < 2; i++) {
        if (rp_rct_adopt(w->fs, layer->path, &layer->disk, shm, &err)) {
            rp_shm_close(shm);
            return stopped(w, &err);
        }
    }
    rp_shm_remove(shm);
    layer->shared = false;
    memset(&layer->regions, 0, sizeof layer->regions);
    return 0;
}

int world_rise(struct world *w)
{
    for (size_t i = 0; i < w->depth; i++)
        if (w->layers[i].shared && adopt(w, &w->layers[i]))
            return -1;
    if (w->giving_up && remove_layer(w, &w->given_up))
        return -1;
    w->giving_up = false;
    return open_all(w, RP_RCT_UNCLEAN);
}

void world_crash(struct world *w, enum crash how)
{
    world_fall(w, how);
    assert_int_equal(world_rise(w), 0);
}

static void check_id(struct world *w, const struct published *p)
{
    struct rp_rct *chain[WORLD_LAYERS];
    for (size_t i = 0; i < w->depth; i++)
        chain[i] = w->layers[i].rct;
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges found = {0};
    struct rp_error err = {0};
    if (rp_rct_query(chain, w->depth, &p->id, 0, w->size, &found, &err))
        fail_msg("%s", err.text);
    uint64_t units = rp_div_up(w->size, WORLD_UNIT);
    size_t at = 0;
    for (uint64_t unit = 0; unit < units; unit++) {
        uint64_t offset = unit * WORLD_UNIT;
        while (at < found.count && found.items[at].offset + found.items[at].length <= offset)
            at++;
        bool answered = at < found.count && found.items[at].offset <= offset;
        bool changed = atomic_load(&w->changed[unit]) > p->time;
        if (changed && !answered)
            fail_msg("unit %llu changed after epoch %u and is not reported", (unsigned long long)unit, p->id.epoch);
        if (answered && !changed && w->claimed[unit] <= p->time)
            fail_msg("unit %llu is reported, but did not change after epoch %u", (unsigned long long)unit, p->id.epoch);
    }
    if (found.count)
        assert_true(found.items[found.count - 1].offset + found.items[found.count - 1].length <= w->size);
}

void world_check(struct world *w)
{
    rp_gate_close(w->gate);
    for (size_t i = 0; i < w->id_count; i++)
        check_id(w, &w->ids[i]);
    rp_gate_open(w->gate);
}
