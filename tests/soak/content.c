#include "content.h"

#include <string.h>

#define MAGIC 0x6b616f73u

uint64_t draw(uint64_t *state) // splitmix64
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// Half of it random, half constant: compresses as data does.
static void fill_sector(uint8_t *out, uint32_t disk, uint32_t number, uint64_t index)
{
    uint64_t words[SECTOR / 8] = {(uint64_t)number << 32 | MAGIC, index << 8 | disk};
    uint64_t state = words[0] ^ words[1] * 0x9e3779b97f4a7c15u;
    for (size_t i = 2; i < SECTOR / 8; i++)
        words[i] = i < SECTOR / 16 ? state *= 0xd1342543de82ef95u : state;
    memcpy(out, words, SECTOR);
}

void content_fill(uint8_t *data, uint32_t disk, uint32_t number, uint64_t offset, size_t length)
{
    for (size_t i = 0; i < length; i += SECTOR)
        fill_sector(data + i, disk, number, (offset + i) / SECTOR);
}

uint32_t content_value(const uint8_t *sector, uint32_t disk, uint64_t index)
{
    static const uint8_t zeros[SECTOR];
    uint8_t expected[SECTOR];
    uint64_t words[2];
    if (!memcmp(sector, zeros, SECTOR))
        return VALUE_ZERO;
    memcpy(words, sector, sizeof words);
    uint32_t number = (uint32_t)(words[0] >> 32);
    fill_sector(expected, disk, number, index);
    return number == VALUE_ZERO || memcmp(sector, expected, SECTOR) ? VALUE_DAMAGED : number;
}

void content_values(const uint8_t *data, uint32_t disk, uint64_t offset, size_t length, uint32_t *values)
{
    for (size_t i = 0; i < length; i += SECTOR)
        *values++ = content_value(data + i, disk, (offset + i) / SECTOR);
}
