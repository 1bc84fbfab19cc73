#include "repo/object.h"

#include <string.h>

#include "base/bytes.h"

#define VERSION 1

static const char magic[8] = "RPOBJECT";

// The header and the object's name are what the payload is authenticated with.
static size_t make_aad(const uint8_t header[RP_OBJECT_HEADER], const char *name, uint8_t *aad)
{
    size_t length = strnlen(name, RP_OBJECT_NAME);
    memcpy(aad, header, RP_OBJECT_HEADER);
    memcpy(aad + RP_OBJECT_HEADER, name, length);
    return RP_OBJECT_HEADER + length;
}

void rp_object_seal(const struct rp_crypto *crypto, const char *name, const void *payload, size_t size, struct rp_buf *out)
{
    uint8_t header[RP_OBJECT_HEADER], aad[RP_OBJECT_HEADER + RP_OBJECT_NAME], key[RP_KEY_BYTES];
    memcpy(header, magic, 8);
    rp_put_le32(header + 8, VERSION);
    rp_put_le32(header + 12, rp_crypto_encrypted(crypto));
    rp_crypto_random(header + 16, 16);
    rp_crypto_derive(crypto, "refpoint 1 object", header + 16, 16, key);
    rp_buf_append(out, header, sizeof header);
    RP_CLEANUP(rp_cipher_free_p) struct rp_cipher *cipher = rp_cipher_new(crypto);
    rp_cipher_seal(cipher, key, 0, aad, make_aad(header, name, aad), payload, size,
                   rp_buf_extend(out, size + RP_TAG_BYTES));
    rp_crypto_wipe(key, sizeof key);
}

int rp_object_open(const struct rp_crypto *crypto, const char *name, const void *sealed, size_t size, struct rp_buf *payload,
                   struct rp_error *err)
{
    const uint8_t *header = sealed;
    uint8_t aad[RP_OBJECT_HEADER + RP_OBJECT_NAME], key[RP_KEY_BYTES];
    if (size < RP_OBJECT_HEADER + RP_TAG_BYTES || memcmp(header, magic, 8))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: not an object of a repository", name);
    if (rp_get_le32(header + 8) != VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: version %u of the object format", name, rp_get_le32(header + 8));
    if (rp_get_le32(header + 12) != rp_crypto_encrypted(crypto))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: it belongs to another repository", name);
    rp_crypto_derive(crypto, "refpoint 1 object", header + 16, 16, key);
    size_t before = payload->size, length = size - RP_OBJECT_HEADER;
    RP_CLEANUP(rp_cipher_free_p) struct rp_cipher *cipher = rp_cipher_new(crypto);
    bool good = rp_cipher_open(cipher, key, 0, aad, make_aad(header, name, aad), header + RP_OBJECT_HEADER, length,
                               rp_buf_extend(payload, length));
    rp_crypto_wipe(key, sizeof key);
    payload->size = good ? before + length - RP_TAG_BYTES : before;
    return good ? 0 : rp_fail(err, RP_ERR_CORRUPT, "%s: authentication failed: damaged, or not written here", name);
}

int rp_object_put(struct rp_backend *backend, const struct rp_crypto *crypto, const char *name, const void *payload,
                  size_t size, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf sealed = {0};
    if (size > RP_OBJECT_LIMIT)
        return rp_fail(err, RP_ERR_INVALID, "%s: %zu bytes are too many for one object", name, size);
    rp_object_seal(crypto, name, payload, size, &sealed);
    return backend->ops->put(backend, name, sealed.data, sealed.size, err);
}

int rp_object_get(struct rp_backend *backend, const struct rp_crypto *crypto, const char *name, struct rp_buf *payload,
                  struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf sealed = {0};
    size_t limit = RP_OBJECT_LIMIT + RP_OBJECT_HEADER + RP_TAG_BYTES;
    if (rp_backend_get_all(backend, name, limit, &sealed, err))
        return -1;
    return rp_object_open(crypto, name, sealed.data, sealed.size, payload, err);
}
