#include "disk/chain.h"

#include <string.h>

static int same_file(struct rp_vhdx *a, struct rp_vhdx *b, bool *same, struct rp_error *err)
{
    struct rp_store_identity x, y;
    if (rp_vhdx_identity(a, &x, err) || rp_vhdx_identity(b, &y, err))
        return -1;
    *same = x.device == y.device && x.inode == y.inode;
    return 0;
}

static int add(struct rp_fs *fs, const char *path, struct rp_chain *chain, struct rp_error *err)
{
    if (chain->depth == RP_CHAIN_MAX_DEPTH)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: more than %d files in one chain", path, RP_CHAIN_MAX_DEPTH);
    struct rp_error why = {0};
    struct rp_vhdx *layer = rp_vhdx_open(fs, path, RP_VHDX_READ, NULL, &why);
    if (!layer) {
        if (why.code == RP_ERR_NOT_FOUND && chain->depth)
            return rp_fail(err, RP_ERR_PARENT_NOT_FOUND, "%s: its parent is not at %s",
                           rp_vhdx_path(chain->layers[chain->depth - 1]), path);
        if (err && err->code == RP_OK)
            *err = why;
        return -1;
    }
    chain->layers[chain->depth++] = layer;
    for (size_t i = 0; i + 1 < chain->depth; i++) {
        bool same;
        if (same_file(chain->layers[i], layer, &same, err))
            return -1;
        if (same)
            return rp_fail(err, RP_ERR_CORRUPT, "%s: is its own ancestor", path);
    }
    return chain->depth > 1 ? rp_vhdx_set_parent(chain->layers[chain->depth - 2], layer, err) : 0;
}

int rp_chain_open(struct rp_fs *fs, const char *path, struct rp_chain *chain, struct rp_error *err)
{
    *chain = (struct rp_chain){0};
    for (const char *next = path; next;) {
        if (add(fs, next, chain, err)) {
            rp_chain_close(chain);
            return -1;
        }
        const struct rp_vhdx_info *info = rp_vhdx_info(chain->layers[chain->depth - 1]);
        next = info->has_parent ? info->parent_path : NULL;
    }
    return 0;
}

void rp_chain_close(struct rp_chain *chain)
{
    for (size_t i = 0; i < chain->depth; i++)
        rp_vhdx_abandon(chain->layers[i]);
    *chain = (struct rp_chain){0};
}
