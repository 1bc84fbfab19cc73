// What the files of this part share: the open repository, and the working memory of one thread.
#ifndef RP_REPO_CORE_H
#define RP_REPO_CORE_H

#include <pthread.h>
#include <zstd.h>

#include "repo/config.h"
#include "repo/crypto.h"
#include "repo/index.h"
#include "repo/repo.h"

struct rp_blocks;

// Contexts and buffers for one call of one thread; kept and reused.
struct rp_scratch {
    struct rp_scratch *next;
    struct rp_cipher *cipher;
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *decompressor;
    uint8_t *compressed; // a frame between compression and encryption: RP_FRAME_MAX_STORED bytes
    uint8_t *sealed;     // a frame as it is stored: as many
};

struct rp_repo {
    struct rp_backend *backend;
    struct rp_config config;
    struct rp_crypto *crypto;
    char *cache;              // this repository's folder in the cache directory
    struct rp_index *index;   // NULL until it is needed: rp_repo_need_index
    struct rp_blocks *blocks; // what was read lately; likewise
    pthread_mutex_t opening;  // of the two
    pthread_mutex_t lock;     // of `idle`
    struct rp_scratch *idle;
    unsigned patience_ms;     // before what could not be read is read once more: rp_damage_stays
};

// Opens the index, and with it a look at all packs, unless that was done before: what only reads points does without.
// `*fresh` (may be NULL): the look was now.
int rp_repo_need_index(struct rp_repo *repo, bool *fresh, struct rp_error *err);

struct rp_scratch *rp_scratch_take(struct rp_repo *repo);
void rp_scratch_give(struct rp_repo *repo, struct rp_scratch *scratch);

// The path of an index directory "NAME" in the repository's cache folder; malloc'ed.
char *rp_repo_cache_path(const struct rp_repo *repo, const char *name);

static inline bool rp_id_is_zero(const uint8_t id[RP_ID_BYTES])
{
    uint8_t any = 0;
    for (int i = 0; i < RP_ID_BYTES; i++)
        any |= id[i];
    return !any;
}

#endif
