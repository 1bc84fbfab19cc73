// Merging a differencing disk into its parent: what the child itself holds goes down, in the order of the disk.
#include <stdlib.h>

#include "base/num.h"
#include "disk/impl.h"

enum { STEP = 4 << 20 };

struct merge {
    struct rp_vhdx *child, *parent;
    int (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    uint64_t total;
    uint8_t *buffer;
    struct rp_error *err;
};

static int report(struct merge *m, uint64_t done)
{
    if (m->progress && m->progress(m->context, done, m->total))
        return rp_fail(m->err, RP_ERR_CANCELLED, "%s: the merge was stopped", m->child->path);
    return 0;
}

static int copy(struct merge *m, uint64_t offset, uint64_t length)
{
    while (length) {
        // whole blocks of the parent where possible: they need no bitmap
        uint64_t block_end = (offset / m->parent->layout.block_size + 1) * m->parent->layout.block_size;
        uint32_t n = (uint32_t)rp_min64(length, rp_min64(STEP, block_end - offset));
        if (rp_vhdx_read(m->child, m->buffer, n, offset, m->err) ||
            rp_vhdx_write(m->parent, m->buffer, n, offset, m->err) || report(m, offset + n))
            return -1;
        offset += n;
        length -= n;
    }
    return 0;
}

static int extent(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    struct merge *m = context;
    switch (state) {
    case RP_VHDX_DATA:
        return copy(m, offset, length);
    case RP_VHDX_UNMAPPED: // hides what the parent has: give its whole blocks back, the rest becomes zeros
        if (rp_vhdx_trim(m->parent, offset, length, NULL, m->err))
            return -1;
        // fall through
    case RP_VHDX_ZERO:
        return rp_vhdx_zero(m->parent, offset, length, NULL, m->err) || report(m, offset + length) ? -1 : 0;
    case RP_VHDX_IN_PARENT:
        break;
    }
    return report(m, offset + length);
}

int rp_vhdx_merge(struct rp_vhdx *child, struct rp_vhdx *parent,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct rp_error *err)
{
    const struct rp_vhdx_info *c = &child->info, *p = &parent->info;
    if (!c->has_parent || c->logical_sector != p->logical_sector)
        return rp_fail(err, RP_ERR_INVALID, "%s: cannot be merged into %s", child->path, parent->path);
    if (rp_session_begin(parent, RP_SESSION_DATA, err) || (p->size < c->size && rp_vhdx_grow(parent, c->size, err)))
        return -1;
    // A failure inside the walk has no other way out than the error: the walk itself only knows "stopped".
    struct rp_error why = {0};
    struct merge m = {child, parent, progress, context, c->size, rp_xmalloc(STEP), &why};
    int failed = rp_vhdx_extents(child, 0, c->size, extent, &m, &why);
    free(m.buffer);
    if (failed && err && err->code == RP_OK)
        *err = why;
    return failed ? -1 : 0;
}
