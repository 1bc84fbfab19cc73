#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "repo/blocks.h"
#include "repo/core.h"
#include "repo/frame.h"
#include "repo/points.h"

// ---- working memory -------------------------------------------------------------------------------------------------

struct rp_scratch *rp_scratch_take(struct rp_repo *repo)
{
    pthread_mutex_lock(&repo->lock);
    struct rp_scratch *scratch = repo->idle;
    if (scratch)
        repo->idle = scratch->next;
    pthread_mutex_unlock(&repo->lock);
    if (scratch)
        return scratch;
    scratch = rp_xcalloc(1, sizeof *scratch);
    scratch->cipher = rp_cipher_new(repo->crypto);
    scratch->compressor = ZSTD_createCCtx();
    scratch->decompressor = ZSTD_createDCtx();
    if (!scratch->compressor || !scratch->decompressor)
        abort(); // as rp_xmalloc
    scratch->compressed = rp_xmalloc(RP_FRAME_MAX_STORED);
    scratch->sealed = rp_xmalloc(RP_FRAME_MAX_STORED);
    return scratch;
}

void rp_scratch_give(struct rp_repo *repo, struct rp_scratch *scratch)
{
    pthread_mutex_lock(&repo->lock);
    scratch->next = repo->idle;
    repo->idle = scratch;
    pthread_mutex_unlock(&repo->lock);
}

static void scratch_free(struct rp_scratch *scratch)
{
    rp_cipher_free(scratch->cipher);
    ZSTD_freeCCtx(scratch->compressor);
    ZSTD_freeDCtx(scratch->decompressor);
    free(scratch->compressed);
    free(scratch->sealed);
    free(scratch);
}

// ---- init -----------------------------------------------------------------------------------------------------------

static int found_one(void *context, const char *name, uint64_t size)
{
    (void)name;
    (void)size;
    *(bool *)context = true;
    return 1;
}

static int put_slot(struct rp_backend *backend, const struct rp_config *config, const struct rp_repo_options *options,
                    const uint8_t master[RP_KEY_BYTES], struct rp_error *err)
{
    struct rp_key_slot slot;
    uint8_t random[8];
    char hex[RP_HEX(8)], name[32];
    uint32_t log_n = options->scrypt_log_n ? options->scrypt_log_n : RP_SCRYPT_LOG_N;
    if (rp_key_slot_seal(&slot, config, options->passphrase, log_n, master, err))
        return -1;
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    rp_key_slot_encode(&slot, &json);
    rp_crypto_random(random, sizeof random);
    snprintf(name, sizeof name, "keys/%s", rp_hex(random, sizeof random, hex));
    return backend->ops->put(backend, name, json.data, json.size, err);
}

int rp_repo_init(struct rp_backend *backend, const struct rp_repo_options *options, struct rp_error *err)
{
    uint64_t size;
    struct rp_error why = {0};
    if (backend->ops->size(backend, RP_CONFIG_NAME, &size, &why) == 0)
        return rp_fail(err, RP_ERR_EXISTS, "%s: a repository is there already", backend->location);
    if (why.code != RP_ERR_NOT_FOUND)
        return rp_fail_as(err, &why);
    // Key slots without a configuration: an init that was cut short, which is repeated; packs or points are somebody's data.
    const char *folders[] = {"packs/", "points/"};
    bool taken = false;
    for (int i = 0; i < 2; i++)
        if (backend->ops->list(backend, folders[i], found_one, &taken, err))
            return -1;
    if (taken)
        return rp_fail(err, RP_ERR_EXISTS, "%s: packs or points are there, but no configuration", backend->location);

    struct rp_config config = {.id = rp_guid_new(), .created_ns = rp_clock_wall_ns(), .encrypted = options->passphrase};
    uint8_t master[RP_KEY_BYTES];
    rp_crypto_random(master, sizeof master);
    if (!config.encrypted)
        memcpy(config.key, master, sizeof master);
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    rp_config_encode(&config, &json);
    rp_crypto_sha256(json.data, json.size, config.digest);
    // The slot first: a configuration without a slot could never be opened.
    int result = config.encrypted ? put_slot(backend, &config, options, master, err) : 0;
    rp_crypto_wipe(master, sizeof master);
    return result ? -1 : backend->ops->put(backend, RP_CONFIG_NAME, json.data, json.size, err);
}

int rp_repo_is_encrypted(struct rp_backend *backend, bool *encrypted, struct rp_error *err)
{
    struct rp_config config;
    if (rp_config_read(backend, &config, err))
        return -1;
    *encrypted = config.encrypted;
    return 0;
}

// ---- open -----------------------------------------------------------------------------------------------------------

static char *cache_folder(const char *directory, const struct rp_guid *id, struct rp_error *err)
{
    char guid[RP_GUID_TEXT];
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    rp_guid_format(id, guid);
    if (directory)
        return rp_xasprintf("%s/%s", directory, guid);
    if (xdg && *xdg == '/')
        return rp_xasprintf("%s/refpoint/%s", xdg, guid);
    if (home && *home == '/')
        return rp_xasprintf("%s/.cache/refpoint/%s", home, guid);
    rp_fail(err, RP_ERR_INVALID, "no directory for the index cache: set HOME or XDG_CACHE_HOME");
    return NULL;
}

char *rp_repo_cache_path(const struct rp_repo *repo, const char *name)
{
    return rp_xasprintf("%s/%s", repo->cache, name);
}

static int open_parts(struct rp_repo *repo, const char *passphrase, const char *cache_directory, struct rp_error *err)
{
    uint8_t master[RP_KEY_BYTES];
    if (rp_config_read(repo->backend, &repo->config, err) ||
        rp_config_unlock(repo->backend, &repo->config, passphrase, master, err))
        return -1;
    repo->crypto = rp_crypto_new(master, repo->config.encrypted);
    rp_crypto_wipe(master, sizeof master);
    repo->cache = cache_folder(cache_directory, &repo->config.id, err);
    return repo->cache ? 0 : -1;
}

int rp_repo_need_index(struct rp_repo *repo, bool *fresh, struct rp_error *err)
{
    pthread_mutex_lock(&repo->opening);
    bool open = !repo->index;
    if (open) {
        RP_AUTO_FREE char *segments = rp_repo_cache_path(repo, "index");
        struct rp_index_setup setup = {repo->backend, repo->crypto, repo->config.id, segments, NULL, NULL};
        repo->index = rp_index_open(&setup, err);
        if (repo->index)
            repo->blocks = rp_blocks_new(repo, repo->index, true);
    }
    bool there = repo->index != NULL;
    pthread_mutex_unlock(&repo->opening);
    if (fresh)
        *fresh = open;
    return there ? 0 : -1;
}

struct rp_repo *rp_repo_open(struct rp_backend *backend, const char *passphrase, const char *cache_directory,
                             struct rp_error *err)
{
    struct rp_repo *repo = rp_xcalloc(1, sizeof *repo);
    repo->backend = backend;
    repo->patience_ms = 1000;
    pthread_mutex_init(&repo->lock, NULL);
    pthread_mutex_init(&repo->opening, NULL);
    if (open_parts(repo, passphrase, cache_directory, err)) {
        rp_repo_close(repo);
        return NULL;
    }
    return repo;
}

void rp_repo_close(struct rp_repo *repo)
{
    if (!repo)
        return;
    rp_index_close(repo->index);
    rp_blocks_free(repo->blocks);
    for (struct rp_scratch *scratch = repo->idle, *next; scratch; scratch = next) {
        next = scratch->next;
        scratch_free(scratch);
    }
    rp_crypto_free(repo->crypto);
    rp_crypto_wipe(&repo->config, sizeof repo->config);
    pthread_mutex_destroy(&repo->lock);
    pthread_mutex_destroy(&repo->opening);
    rp_backend_close(repo->backend);
    free(repo->cache);
    free(repo);
}

static int count_object(void *context, const char *name, uint64_t size)
{
    (void)name;
    (void)size;
    ++*(uint64_t *)context;
    return 0;
}

int rp_repo_room(struct rp_repo *repo, uint64_t *bytes, struct rp_error *err)
{
    *bytes = UINT64_MAX;
    return repo->backend->ops->room ? repo->backend->ops->room(repo->backend, bytes, err) : 0;
}

const char *rp_repo_location(const struct rp_repo *repo) { return repo->backend->location; }
const struct rp_guid *rp_repo_id(const struct rp_repo *repo) { return &repo->config.id; }

int rp_repo_info(struct rp_repo *repo, struct rp_repo_info *info, struct rp_error *err)
{
    *info = (struct rp_repo_info){
        .id = repo->config.id,
        .encrypted = repo->config.encrypted,
        .created_ns = repo->config.created_ns,
    };
    bool fresh;
    if (rp_repo_need_index(repo, &fresh, err) || (!fresh && rp_index_refresh(repo->index, err)) ||
        repo->backend->ops->list(repo->backend, RP_POINTS_PREFIX, count_object, &info->points, err))
        return -1;
    info->blocks = rp_index_entries(repo->index);
    for (uint32_t i = 0, count = rp_index_pack_count(repo->index); i < count; i++) {
        struct rp_index_pack pack;
        rp_index_pack(repo->index, i, &pack);
        info->packs += pack.present;
        info->pack_bytes += pack.present ? pack.size : 0;
    }
    return 0;
}
