#include "repo/scrypt.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#ifdef __SSE2__

#include <emmintrin.h>
#include <sys/mman.h>

#define BLOCKS 16u           // of 64 bytes: 2 r
#define CHUNK (BLOCKS * 64u) // what the mixing works on: 128 r bytes
#define HUGE ((size_t)2 << 20)

// A Salsa20 matrix x0…x15 as its four diagonals: a = x0 x5 x10 x15, b = x4 x9 x14 x3, c = x8 x13 x2 x7, d = x12 x1 x6 x11. A
// round then works on four words at a time. Everything stays in this order from the first to the last step.
static const uint8_t place[16] = {0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11};

static inline __m128i rotate(__m128i x, int bits)
{
    return _mm_or_si128(_mm_slli_epi32(x, bits), _mm_srli_epi32(x, 32 - bits));
}

#define STEP(to, x, y, bits) to = _mm_xor_si128(to, rotate(_mm_add_epi32(x, y), bits))

// out = Salsa20/8(x ^ in), which is also the next x.
static inline void mix_block(__m128i x[4], const __m128i in[4], __m128i out[4])
{
    __m128i a = x[0] = _mm_xor_si128(x[0], in[0]), b = x[1] = _mm_xor_si128(x[1], in[1]);
    __m128i c = x[2] = _mm_xor_si128(x[2], in[2]), d = x[3] = _mm_xor_si128(x[3], in[3]);
    for (int i = 0; i < 4; i++) {
        STEP(b, a, d, 7); // the columns
        STEP(c, b, a, 9);
        STEP(d, c, b, 13);
        STEP(a, d, c, 18);
        b = _mm_shuffle_epi32(b, 0x93);
        c = _mm_shuffle_epi32(c, 0x4E);
        d = _mm_shuffle_epi32(d, 0x39);
        STEP(d, a, b, 7); // the rows
        STEP(c, d, a, 9);
        STEP(b, c, d, 13);
        STEP(a, b, c, 18);
        b = _mm_shuffle_epi32(b, 0x39);
        c = _mm_shuffle_epi32(c, 0x4E);
        d = _mm_shuffle_epi32(d, 0x93);
    }
    out[0] = x[0] = _mm_add_epi32(x[0], a);
    out[1] = x[1] = _mm_add_epi32(x[1], b);
    out[2] = x[2] = _mm_add_epi32(x[2], c);
    out[3] = x[3] = _mm_add_epi32(x[3], d);
}

// RFC 7914, section 4: scryptBlockMix.
static void mix_chunk(const __m128i in[BLOCKS * 4], __m128i out[BLOCKS * 4])
{
    __m128i x[4];
    memcpy(x, in + (BLOCKS - 1) * 4, sizeof x);
    for (unsigned i = 0; i < BLOCKS; i += 2) {
        mix_block(x, in + i * 4, out + i * 2);
        mix_block(x, in + i * 4 + 4, out + i * 2 + BLOCKS * 2);
    }
}

// RFC 7914, section 5: scryptROMix.
static void mix_all(__m128i chunk[BLOCKS * 4], __m128i *memory, uint64_t n)
{
    __m128i other[BLOCKS * 4];
    for (uint64_t i = 0; i < n; i++) {
        memcpy(memory + i * BLOCKS * 4, chunk, CHUNK);
        mix_chunk(memory + i * BLOCKS * 4, chunk);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t j = (uint32_t)_mm_cvtsi128_si32(chunk[(BLOCKS - 1) * 4]) & (n - 1);
        const __m128i *then = memory + j * BLOCKS * 4;
        for (unsigned k = 0; k < BLOCKS * 4; k++)
            other[k] = _mm_xor_si128(chunk[k], then[k]);
        mix_chunk(other, chunk);
    }
    OPENSSL_cleanse(other, sizeof other);
}

static void to_diagonals(const uint8_t *bytes, uint8_t *chunk)
{
    for (unsigned word = 0; word < CHUNK / 4; word++)
        memcpy(chunk + 4 * (size_t)word, bytes + 4 * (size_t)((word & ~15u) + place[word & 15]), 4);
}

static void from_diagonals(const uint8_t *chunk, uint8_t *bytes)
{
    for (unsigned word = 0; word < CHUNK / 4; word++)
        memcpy(bytes + 4 * (size_t)((word & ~15u) + place[word & 15]), chunk + 4 * (size_t)word, 4);
}

int rp_scrypt(const char *passphrase, const void *salt, size_t salt_size, uint32_t log_n, uint8_t key[32])
{
    uint64_t n = (uint64_t)1 << log_n;
    size_t size = n * CHUNK;
    uint8_t bytes[CHUNK];
    __m128i chunk[BLOCKS * 4];
    __m128i *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -1;
    if (size >= HUGE)
        madvise(memory, size, MADV_HUGEPAGE); // it is read in random order: fewer pages, fewer misses
    int length = (int)strlen(passphrase), result = -1;
    if (PKCS5_PBKDF2_HMAC(passphrase, length, salt, (int)salt_size, 1, EVP_sha256(), sizeof bytes, bytes) == 1) {
        to_diagonals(bytes, (uint8_t *)chunk);
        mix_all(chunk, memory, n);
        from_diagonals((const uint8_t *)chunk, bytes);
        if (PKCS5_PBKDF2_HMAC(passphrase, length, bytes, sizeof bytes, 1, EVP_sha256(), 32, key) == 1)
            result = 0;
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    OPENSSL_cleanse(chunk, sizeof chunk);
    munmap(memory, size);
    return result;
}

#else

int rp_scrypt(const char *passphrase, const void *salt, size_t salt_size, uint32_t log_n, uint8_t key[32])
{
    uint64_t n = (uint64_t)1 << log_n;
    return EVP_PBE_scrypt(passphrase, strlen(passphrase), salt, salt_size, n, 8, 1, n * 8 * 128 + (1 << 20), key, 32) == 1
               ? 0
               : -1;
}

#endif
