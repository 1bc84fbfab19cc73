// The cryptography of a repository: keyed ids, derived keys, sealed units.
// docs/formats/repository.md, "Keys" and "Units".
#ifndef RP_REPO_CRYPTO_H
#define RP_REPO_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

#define RP_KEY_BYTES 32
#define RP_TAG_BYTES 16
#define RP_ID_BYTES 32

// The keys of an open repository. Immutable: shared by all threads.
struct rp_crypto;
struct rp_crypto *rp_crypto_new(const uint8_t master[RP_KEY_BYTES], bool encrypted);
void rp_crypto_free(struct rp_crypto *crypto); // NULL is fine; wipes the keys
bool rp_crypto_encrypted(const struct rp_crypto *crypto);
// A key for one purpose and one object: HKDF-SHA256 with info = label + salt.
void rp_crypto_derive(const struct rp_crypto *crypto, const char *label, const void *salt, size_t salt_size,
                      uint8_t key[RP_KEY_BYTES]);

// Working contexts of one thread at a time, made once and reused: the hot path allocates nothing of its own.
struct rp_cipher;
struct rp_cipher *rp_cipher_new(const struct rp_crypto *crypto);
void rp_cipher_free(struct rp_cipher *cipher); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_cipher, rp_cipher_free)

// HMAC-SHA256 under the id key of the byte `type` followed by the data.
void rp_cipher_id(struct rp_cipher *cipher, uint8_t type, const void *data, size_t size, uint8_t id[RP_ID_BYTES]);
// Seals `size` bytes into `out` (size + RP_TAG_BYTES): AES-256-GCM with the nonce `counter`, or, unencrypted, the bytes
// and their checksum. A key and counter are used once. `out` must not overlap `plain`.
void rp_cipher_seal(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], uint32_t counter, const void *aad,
                    size_t aad_size, const void *plain, size_t size, uint8_t *out);
// The reverse of a sealed unit of `size` bytes, tag included. False when it is not what was sealed; `out` is then void.
bool rp_cipher_open(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], uint32_t counter, const void *aad,
                    size_t aad_size, const void *sealed, size_t size, uint8_t *out);

// AES-256-GCM with a zero nonce under a key that is used once, whatever the repository's own mode: wraps its key.
void rp_crypto_wrap(const uint8_t key[RP_KEY_BYTES], const void *aad, size_t aad_size,
                    const uint8_t secret[RP_KEY_BYTES], uint8_t out[RP_KEY_BYTES + RP_TAG_BYTES]);
bool rp_crypto_unwrap(const uint8_t key[RP_KEY_BYTES], const void *aad, size_t aad_size,
                      const uint8_t wrapped[RP_KEY_BYTES + RP_TAG_BYTES], uint8_t secret[RP_KEY_BYTES]);
// scrypt with r = 8 and p = 1.
int rp_crypto_scrypt(const char *passphrase, const void *salt, size_t salt_size, uint32_t log_n,
                     uint8_t key[RP_KEY_BYTES], struct rp_error *err);
void rp_crypto_sha256(const void *data, size_t size, uint8_t digest[32]);
void rp_crypto_random(void *data, size_t size);
void rp_crypto_wipe(void *data, size_t size);

#define RP_HEX(bytes) (2 * (bytes) + 1)
// Lower-case hex with NUL. Returns `out`.
const char *rp_hex(const void *data, size_t size, char *out);
// Exactly `size` bytes from lower-case hex text of that length; nothing may follow.
bool rp_unhex(const char *text, void *data, size_t size);

#endif
