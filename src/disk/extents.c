// Where a disk has data: this file's view, and the whole chain's.
#include "base/num.h"
#include "disk/impl.h"

int rp_check_range(const struct rp_vhdx *v, uint64_t offset, uint64_t length, struct rp_error *err)
{
    uint64_t size = atomic_load_explicit(&v->size, memory_order_relaxed);
    uint64_t sector = v->layout.logical_sector;
    if (rp_range_ok(offset, length, size) && rp_is_aligned(offset, sector) && rp_is_aligned(length, sector))
        return 0;
    return rp_fail(err, RP_ERR_INVALID, "%s: %llu bytes at %llu do not fit a disk of %llu bytes in sectors of %llu",
                   v->path,
                   (unsigned long long)length, (unsigned long long)offset, (unsigned long long)size,
                   (unsigned long long)sector);
}

// Joins neighbours of one state before the caller's function sees them.
struct joiner {
    rp_vhdx_extent_fn *extent;
    void *context;
    uint64_t offset, length;
    enum rp_vhdx_state state;
};

static int join(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    struct joiner *j = context;
    if (j->length && j->state == state && j->offset + j->length == offset) {
        j->length += length;
        return 0;
    }
    int stop = j->length ? j->extent(j->context, j->offset, j->length, j->state) : 0;
    j->offset = offset;
    j->length = length;
    j->state = state;
    return stop;
}

static int join_end(struct joiner *j) { return j->length ? j->extent(j->context, j->offset, j->length, j->state) : 0; }

static enum rp_vhdx_state state_of(const struct rp_vhdx *v, unsigned state)
{
    if (state == RP_BLOCK_FULL)
        return RP_VHDX_DATA;
    if (state == RP_BLOCK_ZERO)
        return RP_VHDX_ZERO;
    return state == RP_BLOCK_NOT_PRESENT && v->layout.has_parent ? RP_VHDX_IN_PARENT : RP_VHDX_UNMAPPED;
}

// How a walk goes on where this file leaves it to the parent.
enum follow { FOLLOW_NOT, FOLLOW_STRICT, FOLLOW_GUESS };

static int walk(struct rp_vhdx *v, enum rp_locked locked, enum follow follow, uint64_t offset, uint64_t length, struct joiner *j,
                struct rp_error *err);

static int walk_parent(struct rp_vhdx *v, enum follow follow, uint64_t offset, uint64_t length, struct joiner *j,
                       struct rp_error *err)
{
    if (!v->parent && follow == FOLLOW_GUESS)
        return join(j, offset, length, RP_VHDX_DATA);
    if (!v->parent)
        return rp_fail(err, RP_ERR_STATE, "%s: the parent disk is not linked", v->path);
    uint64_t size = atomic_load(&v->parent->size);
    uint64_t inside = offset < size ? rp_min64(length, size - offset) : 0;
    int stop = inside ? walk(v->parent, RP_UNLOCKED, follow, offset, inside, j, err) : 0;
    return stop || inside == length ? stop : join(j, offset + inside, length - inside, RP_VHDX_UNMAPPED);
}

static int walk(struct rp_vhdx *v, enum rp_locked locked, enum follow follow, uint64_t offset, uint64_t length, struct joiner *j,
                struct rp_error *err)
{
    while (length) {
        struct rp_piece piece;
        if (locked == RP_LOCKED ? rp_blocks_find(v, locked, offset, length, &piece, err)
                                : rp_blocks_look(v, offset, length, &piece, err))
            return -1;
        int stop;
        enum rp_vhdx_state state = state_of(v, piece.state);
        if (state == RP_VHDX_IN_PARENT && follow != FOLLOW_NOT)
            stop = walk_parent(v, follow, offset, piece.length, j, err);
        else
            stop = join(j, offset, piece.length, state);
        if (stop)
            return stop;
        offset += piece.length;
        length -= piece.length;
    }
    return 0;
}

static int extents(struct rp_vhdx *v, enum rp_locked locked, enum follow follow, uint64_t offset, uint64_t length,
                   rp_vhdx_extent_fn *extent, void *context, struct rp_error *err)
{
    struct joiner j = {.extent = extent, .context = context};
    int stop = walk(v, locked, follow, offset, length, &j, err);
    return stop ? stop : join_end(&j);
}

int rp_vhdx_extents(struct rp_vhdx *v, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent, void *context,
                    struct rp_error *err)
{
    if (rp_check_range(v, offset, length, err))
        return -1;
    return extents(v, RP_UNLOCKED, FOLLOW_NOT, offset, length, extent, context, err);
}

int rp_vhdx_chain_extents(struct rp_vhdx *v, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent, void *context,
                          struct rp_error *err)
{
    if (rp_check_range(v, offset, length, err))
        return -1;
    return extents(v, RP_UNLOCKED, FOLLOW_STRICT, offset, length, extent, context, err);
}

int rp_chain_extents_locked(struct rp_vhdx *v, uint64_t offset, uint64_t length, rp_vhdx_extent_fn *extent,
                            void *context,
                            struct rp_error *err)
{
    return extents(v, RP_LOCKED, FOLLOW_GUESS, offset, length, extent, context, err);
}
