#include "diskservice/fold.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"

struct fold {
    struct rp_engine *engine;
    struct rp_engine_chain *disk;
    size_t index;
    struct rp_layer *child, *parent, *above; // above: NULL when the child is the leaf
    struct rp_vhdx_session session;          // of the parent
    bool tracked;
    bool parent_open; // for writing
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

// A flush may still be syncing a file that was the leaf when it began: its open file is not exchanged before that ends. No
// new one comes, for the file is no leaf any more.
static void wait_for_flushes(struct rp_layer *const *layers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        while (atomic_load(&layers[i]->references) != 1)
            usleep(1000);
}

// Exchanges the open file of a layer, and whoever reads through it. Guest paused.
static int replace_vhdx(struct rp_layer *layer, struct rp_layer *above, struct rp_vhdx *fresh, struct rp_error *err)
{
    if (above && rp_vhdx_set_parent(above->vhdx, fresh, err))
        return -1;
    rp_vhdx_abandon(layer->vhdx);
    layer->vhdx = fresh;
    return 0;
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
        rp_vhdx_abandon(fresh);
        return -1;
    }
    pause_guest(f);
    failed = replace_vhdx(layer, above, fresh, err);
    resume_guest(f);
    if (failed) {
        rp_vhdx_abandon(fresh);
        return -1;
    }
    pthread_mutex_lock(&f->engine->chains);
    failed = rp_layer_freeze(layer, err);
    pthread_mutex_unlock(&f->engine->chains);
    return failed;
}

// Step 1, first half: the parent has a tracking file that knows of the session to come. Called with `chains` held.
static int bind_tracking(struct fold *f, struct rp_error *err)
{
    struct rp_fs *fs = f->engine->fs;
    struct rp_layer *child = f->child, *parent = f->parent;
    struct rp_rct_disk state;
    if (rp_layer_state(parent, &state, err))
        return -1;
    rp_layer_tracker(fs, parent);
    bool before = parent->rct;
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
        return before && !f->above ? rp_rct_prepare_merge(child->rct, parent->rct, &state, &f->session, err) : 0; // else merged at once
    // The content is about to change in places that nobody knows. A tracking file there stays bound to a DataWriteGuid that
    // is gone: who opens it next sees that.
    rp_rct_abandon(parent->rct);
    parent->rct = NULL;
    return 0;
}

// The second half. Called with `chains` held, and no marks in either.
static int merge_tracking(struct fold *f, struct rp_error *err)
{
    struct rp_rct_disk state;
    if (!f->tracked)
        return 0;
    return rp_layer_state(f->parent, &state, err) || rp_rct_merge(f->child->rct, f->parent->rct, &state, &f->session, err) ? -1 : 0;
}

// The parent's disk is going to be the leaf's: from its first change on, a kill loses nothing of it. Its tracker is not, before
// it is thawed.
static void share_disk(struct fold *f)
{
    struct rp_rct *rct = f->parent->rct;
    f->parent->rct = NULL;
    rp_layer_share(f->engine, f->parent);
    f->parent->rct = rct;
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
    pause_guest(f);
    int failed = replace_vhdx(f->parent, f->child, parent, err);
    if (!failed && !f->above)
        share_disk(f);
    resume_guest(f);
    if (failed) {
        rp_vhdx_abandon(parent);
        return -1;
    }
    f->parent_open = true;
    if (!rp_vhdx_begin_data_change(parent, err))
        return 0;
    // Its header may name the new DataWriteGuid or the old one, and the child accepts these two. A second attempt would
    // make it accept two others, so there is none before the disks are opened anew.
    f->parent->broken = true;
    return -1;
}

// Step 4.
static int copy(struct fold *f, int (*progress)(void *, uint64_t, uint64_t), void *context, struct rp_error *err)
{
    uint64_t size = rp_vhdx_info(f->child->vhdx)->size;
    if (size > rp_vhdx_info(f->parent->vhdx)->size && rp_vhdx_grow(f->parent->vhdx, size, err))
        return -1;
    if (rp_vhdx_merge(f->child->vhdx, f->parent->vhdx, progress, context, err))
        return -1;
    if (rp_vhdx_flush(f->parent->vhdx, err)) {
        f->parent->broken = true;
        return -1;
    }
    if (f->tracked)
        rp_rct_merged(f->parent->rct);
    return 0;
}

// Step 5.
static int update_record(struct fold *f, struct rp_error *err)
{
    struct rp_record *record = &f->engine->record;
    struct rp_record_disk *entry = &record->disks[f->disk - f->engine->disks];
    if (rp_engine_prune_record(f->engine, err) || rp_record_add_scratch(record, f->child->path, err))
        return -1;
    if (f->above)
        return rp_engine_write_record(f->engine, err);
    char *before = entry->leaf_path;
    entry->leaf_path = rp_xstrdup(f->parent->path);
    struct rp_error why = {0};
    if (!rp_engine_write_record(f->engine, &why)) {
        free(before);
        return 0;
    }
    // Which leaf the record names on disk now, nobody can say: nothing must be called durable any more.
    free(entry->leaf_path);
    entry->leaf_path = before;
    rp_engine_fail(f->engine, &why);
    return rp_fail(err, why.code, "%s", why.text);
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
    if (failed)
        rp_log(RP_LOG_WARNING, "after a failed merge: %s", why.text);
    pthread_mutex_unlock(&f->engine->chains);
}

static int fold_leaf(struct fold *f, int (*progress)(void *, uint64_t, uint64_t), void *context, struct rp_error *err)
{
    pthread_mutex_lock(&f->engine->chains);
    int failed = bind_tracking(f, err);
    pthread_mutex_unlock(&f->engine->chains);
    // The flush is for the length of the pause: a sync of the parent may have to wait for what others wrote before.
    if (failed || open_parent(f, err) || rp_vhdx_flush(f->child->vhdx, err))
        return -1;
    pause_guest(f);
    failed = merge_tracking(f, err) || copy(f, progress, context, err) ||
             (f->tracked && rp_rct_thaw(f->parent->rct, err)) || update_record(f, err);
    if (!failed) {
        rp_layer_share(f->engine, f->parent);
        unlink_layer(f);
        rp_engine_publish(f->engine, f->disk);
    }
    resume_guest(f);
    return failed ? -1 : 0;
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
    return failed;
}

static int fold_middle(struct fold *f, int (*progress)(void *, uint64_t, uint64_t), void *context, struct rp_error *err)
{
    pthread_mutex_lock(&f->engine->chains);
    int failed = bind_tracking(f, err) || merge_tracking(f, err);
    pthread_mutex_unlock(&f->engine->chains);
    if (failed || open_parent(f, err) || copy(f, progress, context, err))
        return -1;
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
    rp_layer_discard(engine, child); // a flush may still hold it; what it syncs is of no use any more
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
    if (failed) {
        refreeze_parent(&f);
        rp_context(err, "merge %s into %s", f.child->path, f.parent->path);
    }
    // A parent that is the leaf now keeps its exclusive lock.
    for (size_t i = 0; i < locks; i++)
        if (locked[i] != rp_chain_leaf(disk) && (failed || locked[i] != f.child))
            share(&locked[i], 1);
    if (!failed)
        delete_child(engine, f.child);
    return failed;
}
