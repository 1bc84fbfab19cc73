#include "repo/crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "repo/scrypt.h"

struct rp_crypto {
    bool encrypted;
    uint8_t prk[32];           // HKDF's pseudo-random key
    EVP_MD *sha256;            // fetched once: a fetch per call would cost more than hashing a node
    EVP_CIPHER *aes256gcm;
    EVP_MD_CTX *inner, *outer; // HMAC states of the id key after the first block
};

struct rp_cipher {
    const struct rp_crypto *crypto;
    EVP_MD_CTX *md;
    EVP_CIPHER_CTX *cipher;
};

// libcrypto fails in these calls only without memory or with a broken build; there is nothing to hand back.
static void must(int ok, const char *what)
{
    if (ok == 1)
        return;
    fprintf(stderr, "refpoint: libcrypto failed: %s\n", what);
    abort();
}

static void hmac(const uint8_t key[32], const void *data, size_t size, uint8_t out[32])
{
    unsigned length = 32;
    must(HMAC(EVP_sha256(), key, 32, data, size, out, &length) != NULL, "HMAC");
}

void rp_crypto_derive(const struct rp_crypto *crypto, const char *label, const void *salt, size_t salt_size,
                      uint8_t key[RP_KEY_BYTES])
{
    uint8_t info[128]; // info || 0x01: the first and only block of HKDF-Expand
    size_t length = strlen(label);
    must(length + salt_size < sizeof info, "HKDF info");
    memcpy(info, label, length);
    if (salt_size)
        memcpy(info + length, salt, salt_size);
    info[length + salt_size] = 1;
    hmac(crypto->prk, info, length + salt_size + 1, key);
}

static EVP_MD_CTX *hmac_state(EVP_MD *sha256, const uint8_t key[32], uint8_t pad)
{
    uint8_t block[64];
    for (int i = 0; i < 64; i++)
        block[i] = (uint8_t)((i < 32 ? key[i] : 0) ^ pad);
    EVP_MD_CTX *state = EVP_MD_CTX_new();
    must(state && EVP_DigestInit_ex2(state, sha256, NULL) == 1 && EVP_DigestUpdate(state, block, 64) == 1, "SHA-256");
    OPENSSL_cleanse(block, sizeof block);
    return state;
}

struct rp_crypto *rp_crypto_new(const uint8_t master[RP_KEY_BYTES], bool encrypted)
{
    struct rp_crypto *crypto = rp_xcalloc(1, sizeof *crypto);
    crypto->encrypted = encrypted;
    crypto->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    crypto->aes256gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    must(crypto->sha256 && crypto->aes256gcm, "SHA-256 or AES-256-GCM is missing");
    static const uint8_t no_salt[32];
    hmac(no_salt, master, RP_KEY_BYTES, crypto->prk); // HKDF-Extract
    uint8_t key[RP_KEY_BYTES];
    rp_crypto_derive(crypto, "refpoint 1 id", NULL, 0, key);
    crypto->inner = hmac_state(crypto->sha256, key, 0x36);
    crypto->outer = hmac_state(crypto->sha256, key, 0x5C);
    OPENSSL_cleanse(key, sizeof key);
    return crypto;
}

void rp_crypto_free(struct rp_crypto *crypto)
{
    if (!crypto)
        return;
    EVP_MD_CTX_free(crypto->inner);
    EVP_MD_CTX_free(crypto->outer);
    EVP_MD_free(crypto->sha256);
    EVP_CIPHER_free(crypto->aes256gcm);
    OPENSSL_cleanse(crypto, sizeof *crypto);
    free(crypto);
}

bool rp_crypto_encrypted(const struct rp_crypto *crypto) { return crypto->encrypted; }

struct rp_cipher *rp_cipher_new(const struct rp_crypto *crypto)
{
    struct rp_cipher *cipher = rp_xcalloc(1, sizeof *cipher);
    cipher->crypto = crypto;
    cipher->md = EVP_MD_CTX_new();
    cipher->cipher = EVP_CIPHER_CTX_new();
    must(cipher->md && cipher->cipher, "out of memory");
    return cipher;
}

void rp_cipher_free(struct rp_cipher *cipher)
{
    if (!cipher)
        return;
    EVP_MD_CTX_free(cipher->md);
    EVP_CIPHER_CTX_free(cipher->cipher);
    free(cipher);
}

void rp_cipher_id(struct rp_cipher *cipher, uint8_t type, const void *data, size_t size, uint8_t id[RP_ID_BYTES])
{
    uint8_t digest[32];
    EVP_MD_CTX *md = cipher->md;
    must(EVP_MD_CTX_copy_ex(md, cipher->crypto->inner) == 1 && EVP_DigestUpdate(md, &type, 1) == 1 &&
             EVP_DigestUpdate(md, data, size) == 1 && EVP_DigestFinal_ex(md, digest, NULL) == 1 &&
             EVP_MD_CTX_copy_ex(md, cipher->crypto->outer) == 1 && EVP_DigestUpdate(md, digest, 32) == 1 &&
             EVP_DigestFinal_ex(md, id, NULL) == 1,
         "HMAC-SHA256");
}

// The checksum of an unencrypted unit: the first 16 bytes of SHA-256 of what GCM would authenticate.
static void checksum(struct rp_cipher *cipher, const void *aad, size_t aad_size, const void *data, size_t size,
                     uint8_t tag[RP_TAG_BYTES])
{
    uint8_t digest[32];
    must(EVP_DigestInit_ex2(cipher->md, cipher->crypto->sha256, NULL) == 1 &&
             EVP_DigestUpdate(cipher->md, aad, aad_size) == 1 && EVP_DigestUpdate(cipher->md, data, size) == 1 &&
             EVP_DigestFinal_ex(cipher->md, digest, NULL) == 1,
         "SHA-256");
    memcpy(tag, digest, RP_TAG_BYTES);
}

static void gcm_seal(EVP_CIPHER_CTX *c, const EVP_CIPHER *type, const uint8_t *key, uint32_t counter, const void *aad,
                     size_t aad_size, const void *plain, size_t size, uint8_t *out)
{
    uint8_t nonce[12] = {0};
    int n;
    rp_put_le32(nonce, counter);
    must(EVP_EncryptInit_ex2(c, type, key, nonce, NULL) == 1 &&
             EVP_EncryptUpdate(c, NULL, &n, aad, (int)aad_size) == 1 &&
             EVP_EncryptUpdate(c, out, &n, plain, (int)size) == 1 && EVP_EncryptFinal_ex(c, out + size, &n) == 1 &&
             EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, RP_TAG_BYTES, out + size) == 1,
         "AES-256-GCM");
}

static bool gcm_open(EVP_CIPHER_CTX *c, const EVP_CIPHER *type, const uint8_t *key, uint32_t counter, const void *aad,
                     size_t aad_size, const uint8_t *sealed, size_t size, uint8_t *out)
{
    uint8_t nonce[12] = {0}, tag[RP_TAG_BYTES];
    int n;
    size -= RP_TAG_BYTES;
    rp_put_le32(nonce, counter);
    memcpy(tag, sealed + size, sizeof tag);
    must(EVP_DecryptInit_ex2(c, type, key, nonce, NULL) == 1 &&
             EVP_DecryptUpdate(c, NULL, &n, aad, (int)aad_size) == 1 &&
             EVP_DecryptUpdate(c, out, &n, sealed, (int)size) == 1 &&
             EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, RP_TAG_BYTES, tag) == 1,
         "AES-256-GCM");
    return EVP_DecryptFinal_ex(c, out + size, &n) == 1;
}

void rp_cipher_seal(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], uint32_t counter, const void *aad,
                    size_t aad_size, const void *plain, size_t size, uint8_t *out)
{
    if (cipher->crypto->encrypted) {
        gcm_seal(cipher->cipher, cipher->crypto->aes256gcm, key, counter, aad, aad_size, plain, size, out);
        return;
    }
    memcpy(out, plain, size);
    checksum(cipher, aad, aad_size, plain, size, out + size);
}

bool rp_cipher_open(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], uint32_t counter, const void *aad,
                    size_t aad_size, const void *sealed, size_t size, uint8_t *out)
{
    if (size < RP_TAG_BYTES || size > INT32_MAX)
        return false;
    if (cipher->crypto->encrypted)
        return gcm_open(cipher->cipher, cipher->crypto->aes256gcm, key, counter, aad, aad_size, sealed, size, out);
    uint8_t tag[RP_TAG_BYTES];
    size -= RP_TAG_BYTES;
    checksum(cipher, aad, aad_size, sealed, size, tag);
    if (memcmp(tag, (const uint8_t *)sealed + size, RP_TAG_BYTES))
        return false;
    memcpy(out, sealed, size);
    return true;
}

void rp_crypto_wrap(const uint8_t key[RP_KEY_BYTES], const void *aad, size_t aad_size,
                    const uint8_t secret[RP_KEY_BYTES], uint8_t out[RP_KEY_BYTES + RP_TAG_BYTES])
{
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    must(c != NULL, "out of memory");
    gcm_seal(c, EVP_aes_256_gcm(), key, 0, aad, aad_size, secret, RP_KEY_BYTES, out);
    EVP_CIPHER_CTX_free(c);
}

bool rp_crypto_unwrap(const uint8_t key[RP_KEY_BYTES], const void *aad, size_t aad_size,
                      const uint8_t wrapped[RP_KEY_BYTES + RP_TAG_BYTES], uint8_t secret[RP_KEY_BYTES])
{
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    must(c != NULL, "out of memory");
    uint8_t out[RP_KEY_BYTES + RP_TAG_BYTES];
    bool good = gcm_open(c, EVP_aes_256_gcm(), key, 0, aad, aad_size, wrapped, RP_KEY_BYTES + RP_TAG_BYTES, out);
    if (good)
        memcpy(secret, out, RP_KEY_BYTES);
    OPENSSL_cleanse(out, sizeof out);
    EVP_CIPHER_CTX_free(c);
    return good;
}

int rp_crypto_scrypt(const char *passphrase, const void *salt, size_t salt_size, uint32_t log_n,
                     uint8_t key[RP_KEY_BYTES], struct rp_error *err)
{
    if (rp_scrypt(passphrase, salt, salt_size, log_n, key))
        return rp_fail(err, RP_ERR_NO_MEMORY, "scrypt with N = 2^%u needs %llu MiB of memory", log_n,
                       (unsigned long long)((uint64_t)1 << log_n >> 10));
    return 0;
}

void rp_crypto_sha256(const void *data, size_t size, uint8_t digest[32])
{
    must(EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL) == 1, "SHA-256");
}

void rp_crypto_random(void *data, size_t size) { must(RAND_bytes(data, (int)size) == 1, "no random bytes"); }

void rp_crypto_wipe(void *data, size_t size) { OPENSSL_cleanse(data, size); }

const char *rp_hex(const void *data, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * size] = 0;
    return out;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool rp_unhex(const char *text, void *data, size_t size)
{
    uint8_t *p = data;
    for (size_t i = 0; i < size; i++) {
        int high = digit(text[2 * i]);
        int low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        p[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * size] == 0;
}
