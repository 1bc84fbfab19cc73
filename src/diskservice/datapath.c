// What the guest does with its disks. Everything happens inside the gate, so a checkpoint sees an operation wholly before
// or wholly after it: enter → mark → change → leave. What could wait for a disk and need not be inside is done outside: a sync
// of the leaf, and setting regions of its coarse map, which happens when a part of the disk changes for the first time.
#include "base/num.h"
#include "diskservice/chains.h"

int rp_engine_read(struct rp_engine *engine, size_t disk, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    unsigned token = rp_gate_enter(engine->gate);
    int failed = rp_vhdx_read(rp_chain_leaf(&engine->disks[disk])->vhdx, data, size, offset, err);
    rp_gate_leave(engine->gate, token);
    return failed;
}

// Without its kilobyte of text: this is done for every request.
static void no_error(struct rp_error *error)
{
    error->code = RP_OK;
    error->sys = 0;
    error->text[0] = 0;
}

static bool are_covered(struct rp_rct *rct, const struct rp_ranges *ranges)
{
    for (size_t i = 0; i < ranges->count; i++)
        if (!rp_rct_covered(rct, ranges->items[i].offset, ranges->items[i].length))
            return false;
    return true;
}

// Inside the gate; leaves it. Afterwards the leaf may be another one, and everything is to be looked at again.
static int cover(struct rp_engine *engine, size_t disk, const struct rp_ranges *ranges, unsigned token, struct rp_error *err)
{
    struct rp_error why = {0};
    struct rp_layer *leaf = rp_chain_leaf(&engine->disks[disk]);
    int failed = 0;
    rp_layer_hold(leaf);
    rp_gate_leave(engine->gate, token);
    for (size_t i = 0; i < ranges->count && !failed; i++)
        failed = rp_rct_cover(leaf->rct, ranges->items[i].offset, ranges->items[i].length, &why);
    token = rp_gate_enter(engine->gate);
    bool current = rp_chain_leaf(&engine->disks[disk]) == leaf;
    rp_gate_leave(engine->gate, token);
    rp_layer_release(leaf);
    if (!failed || !current) // a frozen file is not covered any more
        return 0;
    rp_engine_sync_failed(engine, &why);
    return rp_fail_as(err, &why);
}

// What every change ends with.
static int finish(struct rp_engine *engine, size_t disk, int failed, bool fua, struct rp_error *why, struct rp_error *err)
{
    if (!failed && fua)
        failed = rp_engine_flush(engine, disk, why);
    if (!failed)
        return 0;
    if (why->code == RP_ERR_NO_SPACE)
        rp_room_missing(engine, disk);
    if (err && !err->code)
        *err = *why;
    return -1;
}

int rp_engine_write(struct rp_engine *engine, size_t disk, const void *data, uint32_t size, uint64_t offset, bool fua,
                    struct rp_error *err)
{
    struct rp_error why;
    struct rp_range range = {offset, size};
    no_error(&why);
    rp_throttle_wait(engine->disks[disk].throttle, size);
    for (;;) {
        unsigned token = rp_gate_enter(engine->gate);
        struct rp_layer *leaf = rp_chain_leaf(&engine->disks[disk]);
        if (leaf->rct && !rp_rct_covered(leaf->rct, offset, size)) {
            if (!cover(engine, disk, &(struct rp_ranges){&range, 1, 1}, token, &why))
                continue;
            return finish(engine, disk, -1, fua, &why, err);
        }
        if (leaf->rct)
            rp_rct_mark(leaf->rct, offset, size);
        int failed = rp_vhdx_write(leaf->vhdx, data, size, offset, &why);
        if (failed)
            rp_engine_session_failed(engine, leaf->vhdx, NULL);
        rp_gate_leave(engine->gate, token);
        return finish(engine, disk, failed, fua, &why, err);
    }
}

typedef int change_fn(struct rp_vhdx *vhdx, uint64_t offset, uint64_t length, struct rp_ranges *changed, struct rp_error *err);

// Marks exactly what zero or trim will change, then does it. Between the look and the deed other writers may run. Nothing
// is missed: a unit that the look left out read as it shall read afterwards; if that is no longer so at the deed, somebody
// else has changed it since, and he marked it, in this same epoch (nobody seals while we are inside the gate).
static int change(struct rp_engine *engine, size_t disk, change_fn *preview, change_fn *deed, uint64_t offset,
                  uint64_t length, bool fua, struct rp_error *err)
{
    struct rp_error why;
    no_error(&why);
    rp_throttle_wait(engine->disks[disk].throttle, rp_min64(length, RP_MIB)); // whole blocks cost nothing
    for (;;) {
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        unsigned token = rp_gate_enter(engine->gate);
        struct rp_layer *leaf = rp_chain_leaf(&engine->disks[disk]);
        int failed = leaf->rct ? preview(leaf->vhdx, offset, length, &changed, &why) : 0;
        if (!failed && leaf->rct && !are_covered(leaf->rct, &changed)) {
            if (!cover(engine, disk, &changed, token, &why))
                continue;
            return finish(engine, disk, -1, fua, &why, err);
        }
        for (size_t i = 0; !failed && i < changed.count; i++)
            rp_rct_mark(leaf->rct, changed.items[i].offset, changed.items[i].length);
        if (!failed)
            failed = deed(leaf->vhdx, offset, length, NULL, &why);
        if (failed)
            rp_engine_session_failed(engine, leaf->vhdx, NULL);
        rp_gate_leave(engine->gate, token);
        return finish(engine, disk, failed, fua, &why, err);
    }
}

int rp_engine_zero(struct rp_engine *engine, size_t disk, uint64_t offset, uint64_t length, bool fua, struct rp_error *err)
{
    return change(engine, disk, rp_vhdx_zero_preview, rp_vhdx_zero, offset, length, fua, err);
}

int rp_engine_trim(struct rp_engine *engine, size_t disk, uint64_t offset, uint64_t length, bool fua, struct rp_error *err)
{
    return change(engine, disk, rp_vhdx_trim_preview, rp_vhdx_trim, offset, length, fua, err);
}

int rp_engine_extents(struct rp_engine *engine, size_t disk, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent,
                      void *context, struct rp_error *err)
{
    unsigned token = rp_gate_enter(engine->gate);
    int failed = rp_vhdx_chain_extents(rp_chain_leaf(&engine->disks[disk])->vhdx, offset, length, extent, context, err);
    rp_gate_leave(engine->gate, token);
    return failed;
}

// Waits until the switch to the leaf that we are about to sync is in the record: without it a crash would bring back the
// leaf before, and with it lose what we are asked to keep.
static int wait_settled(struct rp_engine *engine, unsigned long announced, struct rp_error *err)
{
    int failed = 0;
    if (atomic_load(&engine->settled) >= announced)
        return 0;
    pthread_mutex_lock(&engine->state);
    while (atomic_load(&engine->settled) < announced && !engine->no_room.code)
        pthread_cond_wait(&engine->changed, &engine->state);
    if (atomic_load(&engine->settled) < announced)
        failed = rp_fail(err, RP_ERR_NO_SPACE, "%s", engine->no_room.text);
    pthread_mutex_unlock(&engine->state);
    return failed;
}

// Holds the leaf as it is now, and tells which switches it stands behind.
static struct rp_layer *hold_leaf(struct rp_engine *engine, size_t disk, unsigned long *announced)
{
    unsigned token = rp_gate_enter(engine->gate);
    struct rp_layer *leaf = rp_chain_leaf(&engine->disks[disk]);
    rp_layer_hold(leaf);
    *announced = atomic_load(&engine->announced);
    rp_gate_leave(engine->gate, token);
    return leaf;
}

static int check_syncs(struct rp_engine *engine, struct rp_error *err)
{
    pthread_mutex_lock(&engine->state);
    int failed = engine->sync_failure.code ? rp_fail(err, RP_ERR_IO, "an earlier sync failed: %s", engine->sync_failure.text) : 0;
    pthread_mutex_unlock(&engine->state);
    return failed;
}

int rp_engine_flush(struct rp_engine *engine, size_t disk, struct rp_error *err)
{
    // The sync itself runs outside the gate, or every checkpoint would have to wait for it. Writes acknowledged before
    // this call went to the leaf seen here, or to a file below it that was frozen, durably, before the switch settled.
    unsigned long announced;
    struct rp_layer *leaf = hold_leaf(engine, disk, &announced);
    struct rp_error why = {0};
    int failed = wait_settled(engine, announced, &why) || rp_engine_check(engine, &why) || check_syncs(engine, &why);
    if (!failed && (failed = rp_vhdx_flush(leaf->vhdx, &why)))
        rp_engine_sync_failed(engine, &why); // not for want of a record alone: the next engine writes that
    rp_layer_release(leaf);
    if (why.code == RP_ERR_NO_SPACE)
        rp_room_missing(engine, disk);
    if (failed && err && !err->code)
        *err = why;
    return failed ? -1 : 0;
}
