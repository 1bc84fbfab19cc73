// The disk that a qcow2 image holds, read through qemu-nbd: nothing is written twice, and holes are known.
#include <errno.h>
#include <libnbd.h>
#include <string.h>

#include "base/num.h"
#include "host/adopt.h"

enum { REQUEST = 2 << 20, STATUS_MOST = 1 << 30 };

struct store {
    struct rp_store store; // first
    struct nbd_handle *nbd;
};

static int fail(const char *name, struct rp_error *err)
{
    const char *text = nbd_get_error();
    return rp_fail(err, RP_ERR_IO, "%s: read through qemu-nbd: %s", name, text ? text : "failed");
}

static int store_pread(struct rp_store *base, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    struct store *store = (struct store *)base;
    for (size_t done = 0; done < size;) {
        size_t part = size - done < REQUEST ? size - done : REQUEST;
        if (nbd_pread(store->nbd, (uint8_t *)data + done, part, offset + done, 0))
            return fail(base->name, err);
        done += part;
    }
    return 0;
}

static int store_size(struct rp_store *base, uint64_t *size, struct rp_error *err)
{
    int64_t bytes = nbd_get_size(((struct store *)base)->nbd);
    *size = (uint64_t)bytes;
    return bytes < 0 ? fail(base->name, err) : 0;
}

struct extents {
    struct rp_ranges *data;
    uint64_t at, end;
};

static int take_extents(void *context, const char *metacontext, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
    struct extents *extents = context;
    (void)error;
    if (strcmp(metacontext, LIBNBD_CONTEXT_BASE_ALLOCATION) || offset != extents->at)
        return 0;
    for (size_t i = 0; i + 1 < count && extents->at < extents->end; i += 2) {
        uint64_t length = rp_min64(entries[i], extents->end - extents->at);
        if (!(entries[i + 1] & LIBNBD_STATE_ZERO))
            rp_ranges_add(extents->data, extents->at, length);
        extents->at += length;
    }
    return 0;
}

static int store_extents(struct rp_store *base, uint64_t offset, uint64_t length, struct rp_ranges *data, struct rp_error *err)
{
    struct store *store = (struct store *)base;
    struct extents extents = {.data = data, .at = offset, .end = offset + length};
    if (nbd_can_meta_context(store->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) <= 0) {
        rp_ranges_add(data, offset, length);
        return 0;
    }
    while (extents.at < extents.end) {
        uint64_t before = extents.at;
        nbd_extent_callback callback = {.callback = take_extents, .user_data = &extents};
        if (nbd_block_status(store->nbd, rp_min64(extents.end - extents.at, STATUS_MOST), extents.at, callback, 0))
            return fail(base->name, err);
        if (extents.at == before)
            return rp_fail(err, RP_ERR_IO, "%s: qemu-nbd does not say what is at %llu", base->name, (unsigned long long)before);
    }
    return 0;
}

static void store_close(struct rp_store *base)
{
    struct store *store = (struct store *)base;
    nbd_close(store->nbd); // ends qemu-nbd too
    free(store);
}

static const struct rp_store_ops store_ops = {.pread = store_pread, .size = store_size, .extents = store_extents, .close = store_close};

static struct rp_store *open_image(const char *path, struct rp_error *err)
{
    // It inherits one socket, and ends when that closes.
    const char *const argv[] = {"qemu-nbd", "--read-only", "--format=qcow2", path, NULL};
    struct nbd_handle *nbd = nbd_create();
    if (!nbd || nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
        nbd_connect_systemd_socket_activation(nbd, (char **)argv)) {
        const char *text = nbd_get_error();
        rp_fail(err, RP_ERR_IO, "%s: qemu-nbd does not start (Debian: qemu-utils), or cannot open it: %s", path, text ? text : "");
        nbd_close(nbd);
        return NULL;
    }
    struct store *store = rp_xcalloc(1, sizeof *store);
    store->store.ops = &store_ops;
    store->store.name = rp_xstrdup(path);
    store->nbd = nbd;
    return &store->store;
}

// ---- beside all other files -----------------------------------------------------------------------------------------

static struct rp_store *fs_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    struct rp_adopt_nbd *nbd = (struct rp_adopt_nbd *)fs;
    return strcmp(path, nbd->path) ? rp_fs_open(&nbd->others.fs, path, flags, err) : open_image(path, err);
}

static struct rp_fs *others(struct rp_fs *fs)
{
    return &((struct rp_adopt_nbd *)fs)->others.fs;
}

static int fs_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    return rp_fs_rename(others(fs), from, to, err);
}

static int fs_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    return rp_fs_unlink(others(fs), path, err);
}

static int fs_sync_directory(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    return others(fs)->ops->sync_directory(others(fs), directory, err);
}

static int fs_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    return rp_fs_exists(others(fs), path, exists, err);
}

static const struct rp_fs_ops fs_ops = {fs_open, fs_rename, fs_unlink, fs_sync_directory, fs_exists};

struct rp_fs *rp_adopt_nbd(struct rp_adopt_nbd *nbd, const char *path)
{
    *nbd = (struct rp_adopt_nbd){.fs = {&fs_ops}, .path = path};
    rp_fs_no_links(&nbd->others, "/");
    return &nbd->fs;
}
