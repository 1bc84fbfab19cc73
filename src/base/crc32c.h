// CRC-32C (Castagnoli, reflected 0x82F63B78), as VHDX and our own formats use it.
#ifndef RP_BASE_CRC32C_H
#define RP_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

// CRC of `data`, continuing from `crc` (0 to start). rp_crc32c(rp_crc32c(0, a), b) is the CRC of a followed by b.
uint32_t rp_crc32c(uint32_t crc, const void *data, size_t size);

// CRC of a structure whose own 4-byte checksum field, at `field`, counts as zero.
uint32_t rp_crc32c_skip(const void *data, size_t size, size_t field);

#endif
