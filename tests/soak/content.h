// What is written to the disks: every sector says which disk, which sector and which request it is of.
#ifndef RP_TESTS_SOAK_CONTENT_H
#define RP_TESTS_SOAK_CONTENT_H

#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u
#define VALUE_ZERO 0u             // all zeros, the state of a new disk
#define VALUE_DAMAGED UINT32_MAX  // neither zeros nor anything that was ever written there

void content_fill(uint8_t *data, uint32_t disk, uint32_t number, uint64_t offset, size_t length);
// The number of the request that wrote the sector.
uint32_t content_value(const uint8_t *sector, uint32_t disk, uint64_t index);
void content_values(const uint8_t *data, uint32_t disk, uint64_t offset, size_t length, uint32_t *values);

uint64_t draw(uint64_t *state); // random numbers from a seed

#endif
