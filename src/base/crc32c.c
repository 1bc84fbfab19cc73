#include "base/crc32c.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc, const uint8_t *p, size_t size)
{
    uint64_t c = crc;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = _mm_crc32_u64(c, v);
    }
    for (; size; p++, size--)
        c = _mm_crc32_u8((uint32_t)c, *p);
    return (uint32_t)c;
}
#endif

static uint32_t table[256];

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ 0x82F63B78u : c >> 1;
        table[i] = c;
    }
}

static uint32_t crc_software(uint32_t crc, const uint8_t *p, size_t size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_table);
    while (size--)
        crc = table[(crc ^ *p++) & 0xFF] ^ crc >> 8;
    return crc;
}

uint32_t rp_crc32c(uint32_t crc, const void *data, size_t size)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_hardware(crc, data, size);
#endif
    return ~crc_software(crc, data, size);
}

uint32_t rp_crc32c_skip(const void *data, size_t size, size_t field)
{
    static const uint8_t zero[4];
    uint32_t crc = rp_crc32c(0, data, field);
    crc = rp_crc32c(crc, zero, 4);
    return rp_crc32c(crc, (const uint8_t *)data + field + 4, size - field - 4);
}
