// Where a repository's objects live. Objects are written once, whole; that is all that S3 can do.
#ifndef RP_REPO_BACKEND_H
#define RP_REPO_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

struct rp_backend;

typedef int rp_backend_list_fn(void *context, const char *name, uint64_t size); // non-zero stops

// Names are relative paths of [a-z0-9._-] with '/'. All calls are thread safe.
struct rp_backend_ops {
    // Durable at return. RP_ERR_EXISTS when the name is taken (then nothing changed, and what is there is durable);
    // RP_ERR_NO_SPACE leaves nothing.
    int (*put)(struct rp_backend *backend, const char *name, const void *data, size_t size, struct rp_error *err);
    // Exactly `size` bytes from `offset`; an object that is shorter is RP_ERR_CORRUPT, none is RP_ERR_NOT_FOUND.
    int (*get)(struct rp_backend *backend, const char *name, uint64_t offset, void *data, size_t size,
               struct rp_error *err);
    int (*size)(struct rp_backend *backend, const char *name, uint64_t *size, struct rp_error *err);
    // Every object whose name starts with the folder `prefix` ("packs/"), in any order;
    // durable, all of them, at return. What the disk or the file system has lost, as it says twice while `config` can be read, hides
    // no others: an object, or a folder below `prefix`, comes by its name, with size 0. Only in sessions/ and locks/, by which
    // others decide, it fails all.
    int (*list)(struct rp_backend *backend, const char *prefix, rp_backend_list_fn *each, void *context,
                struct rp_error *err);
    // Gone already is fine.
    int (*remove)(struct rp_backend *backend, const char *name, struct rp_error *err);
    // Bytes that can still be stored. NULL: nobody can tell.
    int (*room)(struct rp_backend *backend, uint64_t *bytes, struct rp_error *err);
    void (*close)(struct rp_backend *backend);
};
struct rp_backend {
    const struct rp_backend_ops *ops;
    char *location; // for messages
};

// A directory. `create`: makes it (and its parents) when missing.
struct rp_backend *rp_backend_directory_open(const char *path, bool create, struct rp_error *err);
// Reads a whole object of at most `limit` bytes.
int rp_backend_get_all(struct rp_backend *backend, const char *name, size_t limit, struct rp_buf *out,
                       struct rp_error *err);
void rp_backend_close(struct rp_backend *backend); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_backend, rp_backend_close)

#endif
