#include "diskservice/fold.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "diskservice/switch.h"

struct fold {
    struct rp_engine *engine;
    struct rp_engine_chain *disk;
    size_t index;
    struct rp_layer *child, *parent, *above; // above: NULL when the child is the leaf
    struct rp_vhdx_session session;          // of the parent
    bool tracked;
    bool parent_open; // for writing
    bool swapped;     // the guest writes to the parent
    struct rp_fold_pauses *pauses;
    uint64_t paused_at;
};

void rp_fold_paused(struct rp_fold_pauses *pauses, uint64_t ns)
{
    pauses->total_ns += ns;
    pauses->longest_ns = rp_max64(pauses->longest_ns, ns);
}

static void pause_guest(struct fold *f) { f->paused_at = rp_engine_pause(f->engine); }

static void resume_guest(struct fold *f) { rp_fold_paused(f->pauses, rp_engine_resume(f->engine, f->paused_at)); }

static int add_data(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    if (state == RP_VHDX_DATA)
        *(uint64_t *)context += length;
    return 0;
}

uint64_t rp_fold_data(struct rp_vhdx *vhdx)
{
    uint64_t total = 0;
    return rp_vhdx_extents(vhdx, 0, rp_vhdx_info(vhdx)->size, add_data, &total, NULL) ? 0 : total;
}

// The frozen files that a fold writes into: the parent, the child if frozen, and a frozen file above. The leaf is locked
// exclusively anyway.
static size_t written_layers(struct rp_engine_chain *disk, size_t index, struct rp_layer *out[3])
{
    size_t count = 0;
    for (size_t i = index - 1; i <= index + 1 && i + 1 < disk->depth; i++)
        out[count++] = disk->layers[i];
    return count;
}

static void share(struct rp_layer *const *layers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        rp_store_lock(layers[i]->lock, false, NULL);
}

int rp_fold_lock(struct rp_engine_chain *disk, size_t index, const char **busy, struct rp_error *err)
{
    struct rp_layer *layers[3];
    size_t count = written_layers(disk, index, layers);
    for (size_t i = 1; i < count; i++)
        if (*busy && !strcmp(layers[i]->path, *busy)) {
            struct rp_layer *first = layers[0];
            layers[0] = layers[i];
            layers[i] = first;
        }
    *busy = NULL;
    for (size_t i = 0; i < count; i++)
        if (rp_store_lock(layers[i]->lock, true, err)) {
            *busy = layers[i]->path;
            share(layers, i);
            return -1;
        }
    return 0;
}

void rp_fold_unlock(struct rp_engine_chain *disk, size_t index)
{
    struct rp_layer *layers[3];
    share(layers, written_layers(disk, index, layers));
}

// A flush may still be syncing a file that was the leaf when it began: its open file is not exchanged, or closed, before that
// ends. No new one comes, for the file is no leaf any more.
static void wait_for_flushes(struct rp_layer *const *layers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        while (atomic_load(&layers[i]->references) != 1)
            usleep(1000);
}

// Exchanges the open file of a layer, and whoever reads through it. On failure nothing has changed but that `fresh` is closed.
static int replace_vhdx(struct fold *f, struct rp_layer *layer, struct rp_layer *above, struct rp_vhdx *fresh, struct rp_error *err)
{
    struct rp_vhdx *old = layer->vhdx;
    pause_guest(f);
    int failed = above && rp_vhdx_set_parent(above->vhdx, fresh, err);
    if (!failed)
        layer->vhdx = fresh;
    resume_guest(f);
    rp_vhdx_abandon(failed ? fresh : old);
    return failed ? -1 : 0;
}

// Rewrites the locator of a frozen layer: its content, and so its DataWriteGuid, stays; its tracking file is bound anew.
static int relink_frozen(struct fold *f, struct rp_layer *layer, struct rp_layer *below, struct rp_layer *above,
                         const struct rp_guid *linkage, const struct rp_guid *linkage2, const char *path, struct rp_error *err)
{
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    struct rp_rct_disk state;
    pthread_mutex_lock(&f->engine->chains);
    struct rp_rct *rct = rp_layer_tracker(f->engine->fs, layer);
    int failed = rp_layer_state(layer, &state, err) || (rct && rp_rct_rebind(rct, &state, &session, err));
    pthread_mutex_unlock(&f->engine->chains);
    if (failed)
        return -1;
    struct rp_vhdx *fresh = rp_vhdx_open(f->engine->fs, layer->path, RP_VHDX_WRITE | RP_VHDX_NO_LOCK, &session, err);
    if (!fresh || rp_vhdx_set_parent(fresh, below->vhdx, err) ||
        rp_vhdx_set_parent_locator(fresh, linkage, linkage2, path, err)) {
        rp_engine_session_failed(f->engine, fresh, NULL);
        rp_vhdx_abandon(fresh);
        return -1;
    }
    if (replace_vhdx(f, layer, above, fresh, err))
        return -1;
    pthread_mutex_lock(&f->engine->chains);
    failed = rp_layer_freeze(layer, err);
    pthread_mutex_unlock(&f->engine->chains);
    return failed;
}

// Step 1. Called with `chains` held.
static int merge_tracking(struct fold *f, struct rp_error *err)
{
    struct rp_fs *fs = f->engine->fs;
    struct rp_layer *child = f->child, *parent = f->parent;
    struct rp_rct_disk state;
    if (rp_layer_state(parent, &state, err))
        return -1;
    rp_layer_tracker(fs, parent);
    if (rp_layer_tracker(fs, child) && !parent->rct) {
        // There is none yet: it starts by calling everything changed, and so the child's ids can live on in it.
        struct rp_error why = {0};
        parent->rct = rp_rct_open_write(fs, parent->path, &state, &f->session, NULL, &why);
        if (!parent->rct && why.code != RP_ERR_TRACKING_OFF) {
            if (err && !err->code)
                *err = why;
            return -1;
        }
    }
    f->tracked = child->rct && parent->rct;
    parent->rct_unusable = !f->tracked;
    if (f->tracked)
        return (f->above ? rp_rct_merge : rp_rct_prepare_merge)(child->rct, parent->rct, &state, &f->session, err);
    // The content is about to change in places that nobody knows. A tracking file there stays bound to a DataWriteGuid that
    // is gone: who opens it next sees that.
    rp_rct_abandon(parent->rct);
    parent->rct = NULL;
    return 0;
}

// The parent is going to be the leaf: from its first change on, a kill loses nothing of it.
static void share_parent(struct fold *f)
{
    pthread_mutex_lock(&f->engine->chains); // its tracker may be asked
    rp_layer_share(f->engine, f->parent);
    pthread_mutex_unlock(&f->engine->chains);
}

// Steps 2 and 3: afterwards the parent is open for writing, and may be read through the child at any moment of the copy.
static int open_parent(struct fold *f, struct rp_error *err)
{
    struct rp_engine *engine = f->engine;
    struct rp_guid now = rp_vhdx_info(f->parent->vhdx)->data_write_guid;
    const struct rp_guid *future = &f->session.data_write_guid;
    if (f->above ? relink_frozen(f, f->child, f->parent, f->above, &now, future, NULL, err)
                 : rp_vhdx_set_parent_locator(f->child->vhdx, &now, future, NULL, err))
        return -1;
    struct rp_vhdx *parent = rp_vhdx_open(engine->fs, f->parent->path, RP_VHDX_WRITE | RP_VHDX_NO_LOCK, &f->session, err);
    if (!parent || (f->index >= 2 && rp_vhdx_set_parent(parent, f->disk->layers[f->index - 2]->vhdx, err))) {
        f->parent->broken = true; // see below
        rp_vhdx_abandon(parent);
        return -1;
    }
    if (replace_vhdx(f, f->parent, f->child, parent, err))
        return -1;
    f->parent_open = true;
    if (!f->above)
        share_parent(f);
    if (!rp_vhdx_begin_data_change(parent, err))
        return 0;
    // Its header may name the new DataWriteGuid or the old one, and the child accepts these two. A second attempt would
    // make it accept two others, so there is none before the disks are opened anew.
    f->parent->broken = true;
    return -1;
}

static int make_room(struct fold *f, struct rp_error *err)
{
    uint64_t size = rp_vhdx_info(f->child->vhdx)->size;
    return size > rp_vhdx_info(f->parent->vhdx)->size ? rp_vhdx_grow(f->parent->vhdx, size, err) : 0;
}

static int flush_parent(struct fold *f, struct rp_error *err)
{
    if (rp_vhdx_flush(f->parent->vhdx, err)) {
        f->parent->broken = true;
        return -1;
    }
    return 0;
}

// Step 5, as the record will say it.
static int note(const void *context, struct rp_record *record, struct rp_error *err)
{
    const struct fold *f = context;
    struct rp_record_disk *entry = &record->disks[f->disk - f->engine->disks];
    if (rp_record_add_scratch(record, f->child->path, err))
        return -1;
    if (!f->above) {
        free(entry->leaf_path);
        entry->leaf_path = rp_xstrdup(f->parent->path);
    }
    return 0;
}

static int update_record(struct fold *f, struct rp_error *err)
{
    return rp_engine_prune_record(f->engine, err) || note(f, &f->engine->record, err) || rp_engine_write_record(f->engine, err) ? -1 : 0;
}

// Takes the child out of the chain. Guest paused.
static void unlink_layer(struct fold *f)
{
    for (size_t i = f->index; i + 1 < f->disk->depth; i++)
        f->disk->layers[i] = f->disk->layers[i + 1];
    f->disk->depth--;
}

// After a failure: the parent, half changed as it may be, is a frozen file again, hidden by the child.
static void refreeze_parent(struct fold *f)
{
    struct rp_error why = {0};
    struct rp_rct_disk state;
    int failed = 0;
    pthread_mutex_lock(&f->engine->chains);
    if (f->parent_open && !f->parent->broken)
        failed = rp_layer_freeze(f->parent, &why);
    else if (!f->parent_open && !f->parent->broken && f->tracked)
        failed = rp_layer_state(f->parent, &state, &why) || rp_rct_freeze(f->parent->rct, &state, &why);
    f->parent->disk_shared = f->parent->tracking_shared = false;
    if (failed)
        rp_log(RP_LOG_WARNING, "after a failed merge: %s", why.text);
    pthread_mutex_unlock(&f->engine->chains);
}

// What ended a session is not forgotten when the process is killed or the disks are closed, as after a failed flush of the
// guest: the next merge would build on what only the page cache has.
static void note_failures(struct fold *f)
{
    struct rp_layer *const layers[] = {f->child, f->parent, f->above};
    pthread_mutex_lock(&f->engine->chains);
    for (size_t i = 0; i < 3; i++)
        if (layers[i])
            rp_engine_session_failed(f->engine, layers[i]->vhdx, layers[i]->rct);
    pthread_mutex_unlock(&f->engine->chains);
}

// Everything that waits for a disk and can be done while the guest writes to the child.
static int prepare_leaf(struct fold *f, struct rp_error *err)
{
    struct rp_engine *engine = f->engine;
    pthread_mutex_lock(&engine->chains);
    int failed = merge_tracking(f, err);
    pthread_mutex_unlock(&engine->chains);
    if (failed || open_parent(f, err) || make_room(f, err) ||
        (f->tracked && rp_rct_ready_merge(f->parent->rct, err))) // with its memory in place
        return -1;
    // Copied once in vain: in the pause the parent has the blocks already, with their pages in memory, and little to sync.
    if (rp_fold_data(f->child->vhdx) <= RP_VHDX_MERGE_SMALL &&
        rp_vhdx_merge(f->child->vhdx, f->parent->vhdx, NULL, NULL, err))
        return -1;
    if (flush_parent(f, err) || rp_vhdx_flush(f->child->vhdx, err) || rp_engine_prune_record(engine, err))
        return -1;
    return f->parent->disk_shared ? rp_switch_prepare(engine, note, f, err) : 0;
}

// The pause: from page cache to page cache, and what is marked in memory. From here on the guest writes to the parent, which no
// record names yet as the leaf: what it was told to be durable is in the child until then.
static int swap_leaf(struct fold *f, int (*progress)(void *, uint64_t, uint64_t), void *context, unsigned long *announced,
                     struct rp_error *err)
{
    struct rp_engine *engine = f->engine;
    pause_guest(f);
    int failed = rp_vhdx_merge(f->child->vhdx, f->parent->vhdx, progress, context, err);
    if (!failed) {
        if (f->tracked)
            rp_rct_finish_merge(f->child->rct, f->parent->rct);
        unlink_layer(f);
        *announced = atomic_fetch_add(&engine->announced, 1) + 1;
        rp_switch_announce(engine);
    }
    resume_guest(f);
    if (failed)
        rp_switch_withdraw(engine);
    else
        rp_engine_publish(engine, f->disk);
    return failed;
}

static int settle_leaf(void *context, struct rp_error *err)
{
    struct fold *f = context;
    int failed = flush_parent(f, err);
    if (!failed && f->tracked) {
        rp_rct_merged(f->parent->rct);
        failed = rp_rct_thaw(f->parent->rct, err);
    }
    if (failed)
        rp_engine_sync_failed(f->engine, err);
    return failed || update_record(f, err) ? -1 : 0;
}

static int fold_leaf(struct fold *f, int (*progress)(void *, uint64_t, uint64_t), void *context, struct rp_error *err)
{
    unsigned long announced = 0;
    if (prepare_leaf(f, err) || swap_leaf(f, progress, context, &announced, err))
        return -1;
    f->swapped = true;
    return rp_engine_settle(f->engine, f->disk, announced, settle_leaf, f, err);
}

// Step 6.
static int relink_above(struct fold *f, struct rp_error *err)
{
    const struct rp_guid none = {{0}}, *linkage = &f->session.data_write_guid;
    bool above_is_leaf = f->index + 2 == f->disk->depth;
    struct rp_layer *next = above_is_leaf ? NULL : f->disk->layers[f->index + 2];
    if (above_is_leaf ? rp_vhdx_set_parent_locator(f->above->vhdx, linkage, &none, f->parent->path, err)
                      : relink_frozen(f, f->above, f->child, next, linkage, &none, f->parent->path, err)) {
        // Its file may name either parent now: another attempt, which gives this one a new DataWriteGuid, could part them.
        f->above->broken = true;
        return -1;
    }
    pause_guest(f);
    int failed = rp_vhdx_set_parent(f->above->vhdx, f->parent->vhdx, err);
    if (!failed)
        unlink_layer(f);
    resume_guest(f);
    return failed ? -1 : 0;
}

static int fold_middle(struct fold *f, int (*progress)(void *, uint64_t, uint64_t), void *context, struct rp_error *err)
{
    pthread_mutex_lock(&f->engine->chains);
    int failed = merge_tracking(f, err);
    pthread_mutex_unlock(&f->engine->chains);
    if (failed || open_parent(f, err) || make_room(f, err) ||
        rp_vhdx_merge(f->child->vhdx, f->parent->vhdx, progress, context, err) || flush_parent(f, err))
        return -1;
    if (f->tracked)
        rp_rct_merged(f->parent->rct);
    pthread_mutex_lock(&f->engine->chains);
    failed = rp_layer_freeze(f->parent, err);
    pthread_mutex_unlock(&f->engine->chains);
    return failed || update_record(f, err) || relink_above(f, err) ? -1 : 0;
}

// Step 7. The merge is done: what cannot be deleted now is deleted at the next open.
static void delete_child(struct rp_engine *engine, struct rp_layer *child)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *path = rp_xstrdup(child->path);
    wait_for_flushes(&child, 1); // or what it has in shared memory would stay
    rp_layer_discard(engine, child);
    if (rp_rct_remove(engine->fs, path, &err) || rp_fs_unlink(engine->fs, path, &err) || rp_fs_sync_parent(engine->fs, path, &err))
        rp_log(RP_LOG_WARNING, "%s is merged, but could not be deleted: %s", path, err.text);
}

int rp_fold(struct rp_engine *engine, struct rp_engine_chain *disk, size_t index,
            int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct rp_fold_pauses *pauses,
            struct rp_error *err)
{
    struct fold f = {
        .engine = engine,
        .disk = disk,
        .index = index,
        .child = disk->layers[index],
        .parent = disk->layers[index - 1],
        .above = index + 1 < disk->depth ? disk->layers[index + 1] : NULL,
        .session = {rp_guid_new(), rp_guid_new()},
        .pauses = pauses,
    };
    struct rp_layer *locked[3];
    size_t locks = written_layers(disk, index, locked);
    // Also further up: a file whose relinking failed may name either of two files below it, so both stay as they are.
    for (size_t i = index - 1; i < disk->depth; i++)
        if (disk->layers[i]->broken) {
            share(locked, locks);
            return rp_fail(err, RP_ERR_IO, "merge of %s: an earlier write of %s failed; close and open the disks first",
                           f.child->path, disk->layers[i]->path);
        }
    wait_for_flushes(locked, locks);
    int failed = f.above ? fold_middle(&f, progress, context, err) : fold_leaf(&f, progress, context, err);
    if (failed)
        rp_context(err, "merge %s into %s", f.child->path, f.parent->path);
    if (failed && !f.swapped)
        refreeze_parent(&f);
    if (failed)
        note_failures(&f);
    if (failed && f.swapped)
        rp_layer_release(f.child);
    // A parent that is the leaf now keeps its exclusive lock.
    for (size_t i = 0; i < locks; i++)
        if (locked[i] != rp_chain_leaf(disk) && (failed || locked[i] != f.child))
            share(&locked[i], 1);
    if (!failed)
        delete_child(engine, f.child);
    return failed;
}
