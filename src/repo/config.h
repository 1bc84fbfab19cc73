// The documents that open a repository: its configuration, and the key slots. docs/formats/repository.md, "Opening".
#ifndef RP_REPO_CONFIG_H
#define RP_REPO_CONFIG_H

#include "base/buf.h"
#include "base/guid.h"
#include "repo/backend.h"
#include "repo/crypto.h"

#define RP_CONFIG_NAME "config"
#define RP_CONFIG_LIMIT 65536u

struct rp_config {
    struct rp_guid id;
    int64_t created_ns;
    bool encrypted;
    uint8_t key[RP_KEY_BYTES]; // unencrypted only: the key of ids, in the clear
    uint8_t digest[32];        // SHA-256 of the document; set by decode
};
void rp_config_encode(const struct rp_config *config, struct rp_buf *json);
int rp_config_decode(const void *json, size_t size, struct rp_config *config, struct rp_error *err);

// A key slot: the repository's key, wrapped by a key that scrypt makes of a passphrase. There can be several.
struct rp_key_slot {
    uint32_t log_n;
    uint8_t salt[32];
    uint8_t wrapped[RP_KEY_BYTES + RP_TAG_BYTES];
};
#define RP_SCRYPT_LOG_N 16
#define RP_SCRYPT_MIN_LOG_N 10
#define RP_SCRYPT_MAX_LOG_N 20 // 1 GiB of memory: more is an attack
void rp_key_slot_encode(const struct rp_key_slot *slot, struct rp_buf *json);
int rp_key_slot_decode(const void *json, size_t size, struct rp_key_slot *slot, struct rp_error *err);

// Wraps `master` for the passphrase, bound to the configuration.
int rp_key_slot_seal(struct rp_key_slot *slot, const struct rp_config *config, const char *passphrase, uint32_t log_n,
                     const uint8_t master[RP_KEY_BYTES], struct rp_error *err);
// RP_ERR_AUTH when the passphrase is not this slot's, or the configuration was changed.
int rp_key_slot_open(const struct rp_key_slot *slot, const struct rp_config *config, const char *passphrase,
                     uint8_t master[RP_KEY_BYTES], struct rp_error *err);

int rp_config_read(struct rp_backend *backend, struct rp_config *config, struct rp_error *err);
// The repository's key: from the configuration, or from the first slot that the passphrase opens.
int rp_config_unlock(struct rp_backend *backend, const struct rp_config *config, const char *passphrase,
                     uint8_t master[RP_KEY_BYTES], struct rp_error *err);

#endif
