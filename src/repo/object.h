// Small sealed objects: points, notes, sessions, locks, tombstones. docs/formats/repository.md, "Small objects".
#ifndef RP_REPO_OBJECT_H
#define RP_REPO_OBJECT_H

#include "base/buf.h"
#include "repo/backend.h"
#include "repo/crypto.h"

#define RP_OBJECT_HEADER 32
#define RP_OBJECT_LIMIT (16u << 20) // of the payload
#define RP_OBJECT_NAME 256

// Seals the payload for this name, under a key of its own.
void rp_object_seal(const struct rp_crypto *crypto, const char *name, const void *payload, size_t size,
                    struct rp_buf *out);
// RP_ERR_CORRUPT when the object is damaged, belongs to another name, repository or key.
int rp_object_open(const struct rp_crypto *crypto, const char *name, const void *sealed, size_t size,
                   struct rp_buf *payload, struct rp_error *err);

int rp_object_put(struct rp_backend *backend, const struct rp_crypto *crypto, const char *name, const void *payload,
                  size_t size, struct rp_error *err);
int rp_object_get(struct rp_backend *backend, const struct rp_crypto *crypto, const char *name, struct rp_buf *payload,
                  struct rp_error *err);

#endif
