// The checkpoint: children beforehand, a pause that swaps pointers, durability, and only then the ids.
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "diskservice/switch.h"

static void copy_result(struct rp_engine_checkpoint *to, const struct rp_engine_checkpoint *from)
{
    *to = *from;
    for (size_t i = 0; i < to->count; i++) {
        to->disks[i].path = rp_xstrdup(from->disks[i].path);
        to->disks[i].leaf_path = rp_xstrdup(from->disks[i].leaf_path);
    }
}

// "/x/web.vhdx" and "/x/web_<guid>.avhdx" both give "/x/web_<new guid>.avhdx", as Hyper-V names its files.
static char *child_path(const char *leaf)
{
    size_t stem = strlen(leaf);
    const char *dot = strrchr(rp_path_name(leaf), '.');
    if (dot && dot != rp_path_name(leaf))
        stem = (size_t)(dot - leaf);
    if (dot && !strcmp(dot, ".avhdx") && stem > RP_GUID_TEXT && leaf[stem - RP_GUID_TEXT] == '_') {
        char text[RP_GUID_TEXT];
        struct rp_guid guid;
        memcpy(text, leaf + stem - RP_GUID_TEXT + 1, RP_GUID_TEXT - 1);
        text[RP_GUID_TEXT - 1] = 0;
        if (!rp_guid_parse(text, &guid, NULL))
            stem -= RP_GUID_TEXT;
    }
    struct rp_guid guid = rp_guid_new();
    char text[RP_GUID_TEXT];
    return rp_xasprintf("%.*s_%s.avhdx", (int)stem, leaf, rp_guid_format(&guid, text));
}

// Makes the leaf-to-be, durable and ready to be written: the pause and the first write after it cost no sync.
static struct rp_layer *prepare_child(struct rp_engine *engine, struct rp_engine_chain *disk, const char *path, struct rp_error *err)
{
    struct rp_layer *leaf = rp_chain_leaf(disk);
    if (disk->depth == RP_CHAIN_MAX_DEPTH) {
        rp_fail(err, RP_ERR_STATE, "%s: its chain is %d files deep already; delete checkpoints first", leaf->path, RP_CHAIN_MAX_DEPTH);
        return NULL;
    }
    // The child names its parent by the parent's DataWriteGuid, which must not change any more in this session.
    if (rp_vhdx_begin_data_change(leaf->vhdx, err))
        return NULL;
    const struct rp_vhdx_info *info = rp_vhdx_info(leaf->vhdx);
    struct rp_vhdx_create create = {
        .size = info->size,
        .block_size = info->block_size,
        .logical_sector = info->logical_sector,
        .physical_sector = info->physical_sector,
        .disk_id = info->disk_id,
        .parent_path = leaf->path,
        .parent_data_write_guid = info->data_write_guid,
    };
    if (rp_vhdx_create(engine->fs, path, &create, err))
        return NULL;
    struct rp_layer *child = rp_layer_lock_leaf(engine->fs, path, err);
    if (!child)
        return NULL;
    struct rp_vhdx_session session = {rp_guid_new(), rp_guid_new()};
    struct rp_rct_disk state;
    if (rp_layer_state_at_rest(engine->fs, path, &state, err) ||
        (leaf->rct && !(child->rct = rp_rct_prepare_child(leaf->rct, path, &state, &session, err))))
        goto failed;
    rp_layer_share(engine, child);
    if (!(child->vhdx = rp_vhdx_open(engine->fs, path, RP_VHDX_WRITE | RP_VHDX_NO_LOCK, &session, err)))
        goto failed;
    rp_layer_share(engine, child);
    if (rp_vhdx_set_parent(child->vhdx, leaf->vhdx, err) || rp_vhdx_begin_data_change(child->vhdx, err))
        goto failed;
    child->rct_unusable = !child->rct;
    return child;
failed:
    rp_layer_discard(engine, child);
    return NULL;
}

static void discard_child(struct rp_engine *engine, struct rp_layer *child, const char *path)
{
    bool exists;
    rp_layer_discard(engine, child);
    rp_rct_remove(engine->fs, path, NULL);
    if (!rp_fs_exists(engine->fs, path, &exists, NULL) && exists)
        rp_fs_unlink(engine->fs, path, NULL);
    rp_fs_sync_parent(engine->fs, path, NULL);
}

// Fresh leaves on top of some disks, at one instant: a checkpoint, or a merge that wants the leaf to be a frozen file.
struct fresh {
    struct rp_engine *engine;
    const struct rp_guid *operation; // the checkpoint's; NULL: for a merge, and nobody hears of it
    size_t count;
    struct rp_engine_chain *disks[RP_ENGINE_MAX_DISKS];
    char *paths[RP_ENGINE_MAX_DISKS];
    struct rp_layer *frozen[RP_ENGINE_MAX_DISKS]; // the leaves until then
    struct rp_layer *children[RP_ENGINE_MAX_DISKS];
    struct rp_rct_id ids[RP_ENGINE_MAX_DISKS];
    uint64_t pause_ns;
    rp_engine_switched_fn *switched; // may be NULL
    void *context;
};

// What the record says of it: the checkpoint's result, or that the fresh leaf is to be merged down as well.
static int note(const void *context, struct rp_record *record, struct rp_error *err)
{
    const struct fresh *f = context;
    struct rp_engine_checkpoint made = {.pause_ns = f->pause_ns};
    if (f->operation)
        made.operation = *f->operation;
    for (size_t i = 0; i < f->count; i++) {
        struct rp_record_disk *entry = &record->disks[f->disks[i] - f->engine->disks];
        free(entry->leaf_path);
        entry->leaf_path = rp_xstrdup(f->children[i]->path);
        if (!f->operation && rp_record_add_merging(record, f->children[i]->path, err))
            return -1;
        if (f->operation)
            made.disks[made.count++] = (struct rp_engine_frozen){
                .disk_id = f->disks[i]->disk_id,
                .path = rp_xstrdup(f->frozen[i]->path),
                .leaf_path = rp_xstrdup(f->children[i]->path),
                .tracked = f->frozen[i]->rct != NULL,
                .id = f->ids[i],
            };
    }
    if (f->operation) {
        rp_engine_checkpoint_clear(&record->last);
        record->last = made;
    }
    return 0;
}

// Puts down what the record will say, for the engine that would have to finish this one's switch.
static int prepare_announcement(struct fresh *f, struct rp_error *err)
{
    bool shared = true;
    for (size_t i = 0; i < f->count; i++) {
        shared &= f->frozen[i]->disk_shared && f->children[i]->disk_shared;
        if (f->frozen[i]->rct)
            f->ids[i] = (struct rp_rct_id){rp_rct_tracking_guid(f->frozen[i]->rct), rp_rct_epoch(f->frozen[i]->rct)};
    }
    return shared ? rp_switch_prepare(f->engine, note, f, err) : 0;
}

static int write_tracking(struct rp_engine *engine, struct rp_layer *layer, struct rp_error *err)
{
    if (!layer->rct)
        return 0;
    pthread_mutex_lock(&engine->flushing); // the background does the same
    int failed = rp_rct_flush(layer->rct, engine->gate, err);
    pthread_mutex_unlock(&engine->flushing);
    return failed;
}

// Room that the tracker's array needs is taken now, when there is a way back. As for a flush of the guest, a sync that failed
// is not forgotten when the process is killed before the next one.
static int write_out(struct rp_engine *engine, struct rp_layer *layer, struct rp_error *err)
{
    struct rp_error why = {0};
    if (!rp_vhdx_flush(layer->vhdx, &why) && !write_tracking(engine, layer, &why))
        return 0;
    rp_engine_sync_failed(engine, &why);
    return rp_fail_as(err, &why);
}

// Everything that takes time. On failure nothing of it stays.
static int prepare(struct fresh *f, struct rp_error *err)
{
    struct rp_engine *engine = f->engine;
    size_t made = 0;
    int failed = rp_room_for_leaves(engine, f->disks, f->count, err) || rp_engine_prune_record(engine, err);
    // Listed before they exist: whenever the power goes, the next open knows them for ours.
    for (size_t i = 0; i < f->count && !failed; i++) {
        f->frozen[i] = rp_chain_leaf(f->disks[i]);
        f->paths[i] = child_path(f->frozen[i]->path);
        failed = rp_record_add_scratch(&engine->record, f->paths[i], err);
    }
    failed = failed || rp_engine_write_record(engine, err);
    while (!failed && made < f->count) {
        f->children[made] = prepare_child(engine, f->disks[made], f->paths[made], err);
        failed = !f->children[made++];
    }
    // Written out now, while nobody waits for it: then there is little left to write between the pause and the record.
    for (size_t i = 0; i < f->count && !failed; i++)
        failed = write_out(engine, f->frozen[i], err);
    failed = failed || prepare_announcement(f, err);
    while (failed && made)
        made--, discard_child(engine, f->children[made], f->paths[made]);
    return failed ? -1 : 0;
}

// The pause: nothing in it waits for a disk. Returns the number of the switch.
static unsigned long pause_and_swap(struct fresh *f)
{
    struct rp_engine *engine = f->engine;
    uint64_t paused_at = rp_engine_pause(engine);
    for (size_t i = 0; i < f->count; i++) {
        if (f->frozen[i]->rct)
            f->ids[i] = rp_rct_seal(f->frozen[i]->rct); // as announced: sealing is the business of who has the turn
        f->disks[i]->layers[f->disks[i]->depth++] = f->children[i];
    }
    unsigned long announced = atomic_fetch_add(&engine->announced, 1) + 1;
    rp_switch_announce(engine);
    f->pause_ns = rp_engine_resume(engine, paused_at);
    for (size_t i = 0; i < f->count; i++)
        rp_engine_publish(engine, f->disks[i]);
    return announced;
}

// Freezes the files that were leaves, and writes the record.
static int settle(void *context, struct rp_error *err)
{
    struct fresh *f = context;
    struct rp_engine *engine = f->engine;
    int failed = 0;
    for (size_t i = 0; i < f->count && !failed; i++) {
        pthread_mutex_lock(&engine->chains);
        failed = rp_layer_freeze(f->frozen[i], err);
        pthread_mutex_unlock(&engine->chains);
        if (failed) {
            rp_engine_sync_failed(engine, err);
            return -1;
        }
    }
    if (note(f, &engine->record, err) || rp_engine_prune_record(engine, err) || rp_engine_write_record(engine, err))
        return -1;
    // Only now may a reader open them.
    for (size_t i = 0; i < f->count && !failed; i++)
        failed = rp_store_lock(f->frozen[i]->lock, false, err);
    return failed;
}

static int switch_to_fresh(struct fresh *f, struct rp_error *err)
{
    int failed = prepare(f, err);
    for (size_t i = 0; i < f->count; i++)
        free(f->paths[i]);
    if (failed)
        return -1;
    unsigned long announced = pause_and_swap(f);
    if (f->switched)
        f->switched(f->context);
    return rp_engine_settle(f->engine, f->disks[0], announced, settle, f, err);
}

int rp_engine_put_leaf(struct rp_engine *engine, struct rp_engine_chain *disk, uint64_t *pause_ns, struct rp_error *err)
{
    struct fresh f = {.engine = engine, .count = 1, .disks = {disk}};
    if (rp_engine_check(engine, err) || switch_to_fresh(&f, err))
        return rp_context(err, "a fresh leaf on %s", rp_chain_leaf(disk)->path);
    *pause_ns = f.pause_ns;
    return 0;
}

// After a failed switch nobody but the next open knows whether a checkpoint exists, whatever it failed of.
static int check_known(struct rp_engine *engine, struct rp_error *err)
{
    struct rp_error why = {0};
    return rp_engine_check(engine, &why) ? rp_fail(err, RP_ERR_IO, "%s", why.text) : 0;
}

static int checkpoint(struct rp_engine *engine, const struct rp_guid *operation, rp_engine_switched_fn *switched, void *context,
                      struct rp_engine_checkpoint *result, struct rp_error *err)
{
    if (engine->record.last.count && rp_guid_equal(&engine->record.last.operation, operation)) {
        if (switched)
            switched(context);
        copy_result(result, &engine->record.last);
        return check_known(engine, err);
    }
    if (check_known(engine, err))
        return -1;
    if (!engine->count)
        return rp_fail(err, RP_ERR_STATE, "%s: has no disk to checkpoint", engine->directory);
    if (rp_engine_half_merged(engine))
        return rp_fail(err, RP_ERR_BUSY, "%s: a merge was interrupted, and has to be finished before a checkpoint",
                       engine->directory);
    struct fresh f = {.engine = engine, .operation = operation, .count = engine->count, .switched = switched, .context = context};
    for (size_t i = 0; i < f.count; i++)
        f.disks[i] = &engine->disks[i];
    if (switch_to_fresh(&f, err))
        return rp_context(err, "checkpoint of %s", engine->directory);
    copy_result(result, &engine->record.last);
    return 0;
}

int rp_engine_checkpoint_tell(struct rp_engine *engine, const struct rp_guid *operation, rp_engine_switched_fn *switched, void *context,
                              struct rp_engine_checkpoint *result, struct rp_error *err)
{
    *result = (struct rp_engine_checkpoint){0};
    if (rp_engine_begin(engine, RP_TURN_CHECKPOINT, err))
        return -1;
    int failed = checkpoint(engine, operation, switched, context, result, err);
    if (failed)
        rp_engine_checkpoint_clear(result);
    rp_engine_end(engine);
    return failed;
}
