// One write of the demo: what the writer sends, and what rebuild expects to find. Two programs share this, and neither
// uses any code of refpoint.
//
// Odd numbers are data writes, each to a 64 KiB unit of the disk that no other write touches: one forgotten change cannot
// hide behind a later one. Each is followed by an even number, which stamps itself into the counter block at the end of
// the disk. A disk whose counter says n therefore holds the writes 1…n, perhaps n+1, and no other.
#ifndef DEMO_ENTRY_H
#define DEMO_ENTRY_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ENTRY_BLOCK 4096u
#define ENTRY_UNIT 65536u
#define ENTRY_MAGIC "refpoint demo"
#define ENTRY_FLUSH 64u // the writer flushes with every write whose number is a multiple, before it logs that write

// A line of the writer's log: "number issued acknowledged offset length seed"; times in ns of CLOCK_REALTIME. The write that is on
// its way stands in LOG.next, in the same form, "never" acknowledged: a writer that is killed cannot log it any more.
struct entry {
    uint64_t number, offset, seed;
    int64_t issued, acknowledged;
    uint32_t length;
};
#define ENTRY_NEVER INT64_MAX
#define ENTRY_LINE 200 // bytes, at most
#define ENTRY_PRINT "%" PRIu64 " %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIu32 " %" PRIu64 "\n"
#define ENTRY_SCAN "%" SCNu64 " %" SCNd64 " %" SCNd64 " %" SCNu64 " %" SCNu32 " %" SCNu64

static inline uint64_t entry_random(uint64_t *state) // splitmix64
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

// The bytes of a write: magic, number, then noise from the seed.
static inline void entry_content(const struct entry *entry, uint8_t *data)
{
    uint64_t state = entry->seed;
    for (uint32_t i = 0; i < entry->length; i += 8) {
        uint64_t word = entry_random(&state);
        memcpy(data + i, &word, 8);
    }
    memcpy(data, ENTRY_MAGIC, sizeof ENTRY_MAGIC);
    memcpy(data + 16, &entry->number, 8);
}

// The number in a block that entry_content made; 0: another block.
static inline uint64_t entry_number(const uint8_t *data)
{
    uint64_t number = 0;
    if (!memcmp(data, ENTRY_MAGIC, sizeof ENTRY_MAGIC))
        memcpy(&number, data + 16, 8);
    return number;
}

static inline uint64_t entry_counter_offset(uint64_t disk_size)
{
    return disk_size - ENTRY_BLOCK;
}

#endif
