#include "io/store.h"

#include <stdlib.h>

int rp_store_pread(struct rp_store *store, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    return store->ops->pread(store, data, size, offset, err);
}

int rp_store_pwrite(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    return store->ops->pwrite(store, data, size, offset, err);
}

int rp_store_pwrite_direct(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    return (store->ops->pwrite_direct ? store->ops->pwrite_direct : store->ops->pwrite)(store, data, size, offset, err);
}

bool rp_store_direct(struct rp_store *store) { return store->ops->direct && store->ops->direct(store); }

static int sync_with(int (*sync)(struct rp_store *store, struct rp_error *err), struct rp_store *store, struct rp_error *err)
{
    bool first = err && !err->code;
    int failed = sync(store, err);
    // Whatever the kernel calls it (ext4 after an aborted journal: EROFS), it is not tried again: the next sync would succeed
    // without what this one lost.
    if (failed && first) {
        err->sync = true;
        err->code = RP_ERR_IO;
    }
    return failed;
}

int rp_store_flush(struct rp_store *store, struct rp_error *err) { return sync_with(store->ops->flush, store, err); }

int rp_store_settle(struct rp_store *store, struct rp_error *err)
{
    return sync_with(store->ops->settle ? store->ops->settle : store->ops->flush, store, err);
}

int rp_store_truncate(struct rp_store *store, uint64_t size, struct rp_error *err)
{
    return store->ops->truncate(store, size, err);
}

int rp_store_size(struct rp_store *store, uint64_t *size, struct rp_error *err)
{
    return store->ops->size(store, size, err);
}

int rp_store_extents(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_ranges *data, struct rp_error *err)
{
    if (store->ops->extents)
        return store->ops->extents(store, offset, length, data, err);
    rp_ranges_add(data, offset, length);
    return 0;
}

int rp_store_allocate(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (store->ops->allocate)
        return store->ops->allocate(store, offset, length, err);
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: cannot take space beforehand", store->name);
}

int rp_store_punch(struct rp_store *store, uint64_t offset, uint64_t length, struct rp_error *err)
{
    if (store->ops->punch)
        return store->ops->punch(store, offset, length, err);
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: cannot punch holes", store->name);
}

int rp_store_clone_range(struct rp_store *target, uint64_t target_offset, struct rp_store *source,
                         uint64_t source_offset, uint64_t length, struct rp_error *err)
{
    if (target->ops->clone_range && target->ops == source->ops)
        return target->ops->clone_range(target, target_offset, source, source_offset, length, err);
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: cannot share blocks with %s", target->name, source->name);
}

int rp_store_copy_range(struct rp_store *target, uint64_t target_offset, struct rp_store *source,
                        uint64_t source_offset, uint64_t length, struct rp_error *err)
{
    if (target->ops->copy_range && target->ops == source->ops)
        return target->ops->copy_range(target, target_offset, source, source_offset, length, err);
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: the kernel does not copy from %s", target->name, source->name);
}

int rp_store_identity(struct rp_store *store, struct rp_store_identity *identity, struct rp_error *err)
{
    return store->ops->identity(store, identity, err);
}

int rp_store_lock(struct rp_store *store, bool exclusive, struct rp_error *err)
{
    return store->ops->lock ? store->ops->lock(store, exclusive, err) : 0;
}

void rp_store_drop_cache(struct rp_store *store, uint64_t offset, uint64_t length)
{
    if (store->ops->drop_cache)
        store->ops->drop_cache(store, offset, length);
}

void rp_store_close(struct rp_store *store)
{
    if (!store)
        return;
    char *name = store->name;
    store->ops->close(store);
    free(name);
}
