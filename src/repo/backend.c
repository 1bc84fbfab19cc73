#include "repo/backend.h"

#include <stdlib.h>

int rp_backend_get_all(struct rp_backend *backend, const char *name, size_t limit, struct rp_buf *out,
                       struct rp_error *err)
{
    uint64_t size;
    if (backend->ops->size(backend, name, &size, err))
        return -1;
    if (size > limit)
        return rp_fail(err, RP_ERR_CORRUPT, "%s/%s: %llu bytes, at most %zu expected", backend->location, name,
                       (unsigned long long)size, limit);
    size_t before = out->size;
    uint8_t *data = rp_buf_extend(out, (size_t)size);
    if (size && backend->ops->get(backend, name, 0, data, (size_t)size, err)) {
        out->size = before;
        return -1;
    }
    return 0;
}

void rp_backend_close(struct rp_backend *backend)
{
    if (backend)
        backend->ops->close(backend);
}
