// Merging a differencing disk into its parent: what the child itself holds goes down. Data is copied or shared by copy.c,
// whole blocks at a time, which need no sector bitmap; zeros and trims are done here beside it: they lie elsewhere.
#include "base/num.h"
#include "disk/copy.h"
#include "disk/impl.h"

enum { STEP = 2 << 20, WORKERS = 2 }; // a merge has the guest beside it

struct merge {
    struct rp_vhdx *child, *parent;
    struct rp_copy *copy;
    struct rp_error *err;
};

static int hide(struct merge *m, uint64_t offset, uint64_t length, bool trim)
{
    while (length) {
        uint64_t n = rp_min64(length, RP_GIB);
        if ((trim && rp_vhdx_trim(m->parent, offset, n, NULL, m->err)) || rp_vhdx_zero(m->parent, offset, n, NULL, m->err) ||
            rp_copy_check(m->copy, m->err))
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
        return rp_copy_range(m->copy, offset, length, m->err);
    case RP_VHDX_UNMAPPED: // hides what the parent has: give its whole blocks back, the rest becomes zeros
        return hide(m, offset, length, true);
    case RP_VHDX_ZERO:
        return hide(m, offset, length, false);
    case RP_VHDX_IN_PARENT:
        break;
    }
    return rp_copy_check(m->copy, m->err);
}

static int add_data(void *context, uint64_t offset, uint64_t length, enum rp_vhdx_state state)
{
    (void)offset;
    *(uint64_t *)context += state == RP_VHDX_DATA ? length : 0;
    return 0;
}

int rp_vhdx_merge(struct rp_vhdx *child, struct rp_vhdx *parent,
                  int (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct rp_error *err)
{
    const struct rp_vhdx_info *c = &child->info, *p = &parent->info;
    uint64_t total = 0;
    if (!c->has_parent || c->logical_sector != p->logical_sector)
        return rp_fail(err, RP_ERR_INVALID, "%s: cannot be merged into %s", child->path, parent->path);
    if (rp_session_begin(parent, RP_SESSION_DATA, err) || (p->size < c->size && rp_vhdx_grow(parent, c->size, err)) ||
        rp_vhdx_extents(child, 0, c->size, add_data, &total, err))
        return -1;
    // A failure inside the walk has no other way out than the error: the walk itself only knows "stopped".
    struct rp_error why = {0};
    struct merge m = {child, parent, NULL, &why};
    m.copy = rp_copy_new(&(struct rp_copy_job){
        .from.vhdx = child,
        .to.vhdx = parent,
        .step = STEP,
        .workers = WORKERS,
        .cached = total <= RP_VHDX_MERGE_SMALL,
        .total = total,
        .progress = progress,
        .context = context,
        .name = child->path,
    });
    int failed = rp_vhdx_extents(child, 0, c->size, extent, &m, &why);
    failed = rp_copy_end(m.copy, &why) || failed;
    if (failed && err && err->code == RP_OK)
        *err = why;
    return failed ? -1 : 0;
}
