#include "repo/config.h"

#include <string.h>

#include "repo/json.h"

#define FORMAT "refpoint repository"
#define VERSION 1
#define MAX_SLOTS 64

static const char slot_label[] = "refpoint 1 slot";

void rp_config_encode(const struct rp_config *config, struct rp_buf *out)
{
    char guid[RP_GUID_TEXT];
    RP_AUTO_JSON json_t *json = json_object();
    rp_json_set_text(json, "format", FORMAT);
    rp_json_set_number(json, "version", VERSION);
    rp_json_set_text(json, "id", rp_guid_format(&config->id, guid));
    rp_json_set_number(json, "created_ns", (uint64_t)config->created_ns);
    json_object_set_new(json, "encrypted", json_boolean(config->encrypted));
    if (!config->encrypted)
        rp_json_set_hex(json, "key", config->key, RP_KEY_BYTES);
    rp_json_write(json, out);
}

int rp_config_decode(const void *text, size_t size, struct rp_config *config, struct rp_error *err)
{
    *config = (struct rp_config){0};
    RP_AUTO_JSON json_t *root = rp_json_parse(text, size, "config", err);
    if (!root)
        return -1;
    struct rp_json json = {root, "config", err, false};
    RP_AUTO_FREE char *format = rp_json_text(&json, "format", RP_JSON_TEXT, true);
    if (format && strcmp(format, FORMAT))
        rp_json_fail(&json, "format", "is not that of a refpoint repository");
    uint64_t version = rp_json_number(&json, "version", INT64_MAX, true);
    if (!json.failed && version != VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "config: version %llu of the repository format; this program knows %d",
                       (unsigned long long)version, VERSION);
    rp_json_guid(&json, "id", &config->id);
    config->created_ns = (int64_t)rp_json_number(&json, "created_ns", INT64_MAX, true);
    config->encrypted = rp_json_flag(&json, "encrypted");
    if (!config->encrypted)
        rp_json_hex(&json, "key", config->key, RP_KEY_BYTES);
    rp_crypto_sha256(text, size, config->digest);
    return json.failed ? -1 : 0;
}

void rp_key_slot_encode(const struct rp_key_slot *slot, struct rp_buf *out)
{
    RP_AUTO_JSON json_t *json = json_object();
    rp_json_set_text(json, "kdf", "scrypt");
    rp_json_set_number(json, "log_n", slot->log_n);
    rp_json_set_number(json, "r", 8);
    rp_json_set_number(json, "p", 1);
    rp_json_set_hex(json, "salt", slot->salt, sizeof slot->salt);
    rp_json_set_hex(json, "wrapped", slot->wrapped, sizeof slot->wrapped);
    rp_json_write(json, out);
}

int rp_key_slot_decode(const void *text, size_t size, struct rp_key_slot *slot, struct rp_error *err)
{
    *slot = (struct rp_key_slot){0};
    RP_AUTO_JSON json_t *root = rp_json_parse(text, size, "key slot", err);
    if (!root)
        return -1;
    struct rp_json json = {root, "key slot", err, false};
    RP_AUTO_FREE char *kdf = rp_json_text(&json, "kdf", RP_JSON_TEXT, true);
    if (kdf && strcmp(kdf, "scrypt"))
        rp_json_fail(&json, "kdf", "is not scrypt");
    slot->log_n = (uint32_t)rp_json_number(&json, "log_n", RP_SCRYPT_MAX_LOG_N, true);
    if (slot->log_n < RP_SCRYPT_MIN_LOG_N || rp_json_number(&json, "r", 8, true) != 8 ||
        rp_json_number(&json, "p", 1, true) != 1)
        rp_json_fail(&json, "log_n", "or r, p are out of range");
    rp_json_hex(&json, "salt", slot->salt, sizeof slot->salt);
    rp_json_hex(&json, "wrapped", slot->wrapped, sizeof slot->wrapped);
    return json.failed ? -1 : 0;
}

#define SLOT_AAD (sizeof slot_label - 1 + 32)
static void slot_aad(const struct rp_config *config, uint8_t aad[SLOT_AAD])
{
    memcpy(aad, slot_label, sizeof slot_label - 1);
    memcpy(aad + sizeof slot_label - 1, config->digest, 32);
}

int rp_key_slot_seal(struct rp_key_slot *slot, const struct rp_config *config, const char *passphrase, uint32_t log_n,
                     const uint8_t master[RP_KEY_BYTES], struct rp_error *err)
{
    uint8_t key[RP_KEY_BYTES], aad[SLOT_AAD];
    if (log_n < RP_SCRYPT_MIN_LOG_N || log_n > RP_SCRYPT_MAX_LOG_N)
        return rp_fail(err, RP_ERR_INVALID, "scrypt's log N is %u; %u to %u are possible", log_n, RP_SCRYPT_MIN_LOG_N,
                       RP_SCRYPT_MAX_LOG_N);
    slot->log_n = log_n;
    rp_crypto_random(slot->salt, sizeof slot->salt);
    if (rp_crypto_scrypt(passphrase, slot->salt, sizeof slot->salt, log_n, key, err))
        return -1;
    slot_aad(config, aad);
    rp_crypto_wrap(key, aad, sizeof aad, master, slot->wrapped);
    rp_crypto_wipe(key, sizeof key);
    return 0;
}

int rp_key_slot_open(const struct rp_key_slot *slot, const struct rp_config *config, const char *passphrase,
                     uint8_t master[RP_KEY_BYTES], struct rp_error *err)
{
    uint8_t key[RP_KEY_BYTES], aad[SLOT_AAD];
    if (rp_crypto_scrypt(passphrase, slot->salt, sizeof slot->salt, slot->log_n, key, err))
        return -1;
    slot_aad(config, aad);
    bool good = rp_crypto_unwrap(key, aad, sizeof aad, slot->wrapped, master);
    rp_crypto_wipe(key, sizeof key);
    return good ? 0 : rp_fail(err, RP_ERR_AUTH, "wrong passphrase");
}

int rp_config_read(struct rp_backend *backend, struct rp_config *config, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    struct rp_error first = {0};
    if (rp_backend_get_all(backend, RP_CONFIG_NAME, RP_CONFIG_LIMIT, &json, &first)) {
        if (first.code == RP_ERR_NOT_FOUND)
            return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no repository is there; refpoint repo init makes one",
                           backend->location);
        return rp_fail_as(err, &first);
    }
    return rp_config_decode(json.data, json.size, config, err) ? rp_context(err, "%s", backend->location) : 0;
}

struct slots {
    char names[MAX_SLOTS][96];
    size_t count;
};

static int add_slot(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct slots *slots = context;
    if (slots->count < MAX_SLOTS && strlen(name) < sizeof slots->names[0])
        strcpy(slots->names[slots->count++], name);
    return 0;
}

int rp_config_unlock(struct rp_backend *backend, const struct rp_config *config, const char *passphrase,
                     uint8_t master[RP_KEY_BYTES], struct rp_error *err)
{
    // Silence here would let somebody who can write to the backend swap an encrypted repository for one in the clear.
    if (!config->encrypted && passphrase)
        return rp_fail(err, RP_ERR_AUTH, "%s: a passphrase was given, but this repository is not encrypted",
                       backend->location);
    if (!config->encrypted) {
        memcpy(master, config->key, RP_KEY_BYTES);
        return 0;
    }
    if (!passphrase)
        return rp_fail(err, RP_ERR_AUTH, "%s: this repository is encrypted and needs its passphrase",
                       backend->location);
    struct slots slots = {.count = 0};
    if (backend->ops->list(backend, "keys/", add_slot, &slots, err))
        return -1;
    struct rp_error why = {0};
    for (size_t i = 0; i < slots.count; i++) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
        struct rp_key_slot slot;
        struct rp_error one = {0};
        if (rp_backend_get_all(backend, slots.names[i], RP_CONFIG_LIMIT, &json, &one) == 0 &&
            rp_key_slot_decode(json.data, json.size, &slot, &one) == 0 &&
            rp_key_slot_open(&slot, config, passphrase, master, &one) == 0)
            return 0;
        // an unreadable slot explains more than "wrong passphrase" for another one
        if (!why.code || (why.code == RP_ERR_AUTH && one.code != RP_ERR_AUTH)) {
            why = one;
            rp_context(&why, "%s", slots.names[i]);
        }
    }
    if (!slots.count)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the repository has no key slot (keys/ is empty)", backend->location);
    return rp_fail(err, why.code, "%s: %s", backend->location, why.text);
}
