#include "repo/id_nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "repo/pack.h"

#define CHUNK_NODES 128u                         // 1 MiB: 2 GiB of disk
#define CHUNK_BYTES (CHUNK_NODES * RP_NODE_BYTES)
#define HEAP_CHUNKS 32u                          // beyond 64 GiB of changed disk, the file

struct rp_id_nodes {
    pthread_mutex_t lock;
    char *folder;
    int fd;
    uint8_t **chunks;
    unsigned chunk_count, used; // `used` nodes of the last chunk
};

struct rp_id_nodes *rp_id_nodes_new(const char *folder)
{
    struct rp_id_nodes *nodes = rp_xcalloc(1, sizeof *nodes);
    pthread_mutex_init(&nodes->lock, NULL);
    nodes->folder = rp_xstrdup(folder);
    nodes->fd = -1;
    nodes->used = CHUNK_NODES;
    return nodes;
}

void rp_id_nodes_free(struct rp_id_nodes *nodes)
{
    if (!nodes)
        return;
    for (unsigned i = 0; i < nodes->chunk_count; i++) {
        if (i < HEAP_CHUNKS)
            free(nodes->chunks[i]);
        else
            munmap(nodes->chunks[i], CHUNK_BYTES);
    }
    if (nodes->fd >= 0)
        close(nodes->fd);
    free(nodes->chunks);
    free(nodes->folder);
    pthread_mutex_destroy(&nodes->lock);
    free(nodes);
}

// A cache without room is not a repository without: what was stored in that is given up (RP_ERR_NO_SPACE).
static int fail_cache(const struct rp_id_nodes *nodes, int sys, struct rp_error *err)
{
    if (rp_code_from_errno(sys) != RP_ERR_NO_SPACE)
        return rp_fail_sys(err, sys, "%s: room for the tree of a large disk", nodes->folder);
    return rp_fail(err, RP_ERR_IO, "%s: the cache has no room for the tree of a large disk (%s): make some, or set "
                   "XDG_CACHE_HOME to a folder that has", nodes->folder, strerror(sys));
}

static uint8_t *map_chunk(struct rp_id_nodes *nodes, struct rp_error *err)
{
    off_t offset = (off_t)(nodes->chunk_count - HEAP_CHUNKS) * CHUNK_BYTES;
    if (nodes->fd < 0) {
        RP_AUTO_FREE char *path = rp_xasprintf("%s/nodes-XXXXXX", nodes->folder);
        nodes->fd = mkostemp(path, O_CLOEXEC);
        if (nodes->fd < 0) {
            fail_cache(nodes, errno, err);
            return NULL;
        }
        unlink(path);
    }
    // The space is reserved first: without it, a write to the mapping would be a SIGBUS.
    int failed = posix_fallocate(nodes->fd, offset, CHUNK_BYTES);
    void *map = failed ? MAP_FAILED : mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, nodes->fd, offset);
    if (map != MAP_FAILED)
        return map;
    fail_cache(nodes, failed ? failed : errno, err);
    return NULL;
}

uint8_t *rp_id_nodes_take(struct rp_id_nodes *nodes, struct rp_error *err)
{
    uint8_t *node = NULL;
    pthread_mutex_lock(&nodes->lock);
    if (nodes->used == CHUNK_NODES) {
        uint8_t *chunk = nodes->chunk_count < HEAP_CHUNKS ? rp_xmalloc(CHUNK_BYTES) : map_chunk(nodes, err);
        if (chunk) {
            nodes->chunks = rp_xrealloc(nodes->chunks, (nodes->chunk_count + 1) * sizeof *nodes->chunks);
            nodes->chunks[nodes->chunk_count++] = chunk;
            nodes->used = 0;
        }
    }
    if (nodes->used < CHUNK_NODES)
        node = nodes->chunks[nodes->chunk_count - 1] + (size_t)nodes->used++ * RP_NODE_BYTES;
    pthread_mutex_unlock(&nodes->lock);
    return node;
}
