// GUIDs in Microsoft's byte order: Data1..3 little-endian, Data4 as it stands (16 bytes on disk and on the wire).
#ifndef RP_BASE_GUID_H
#define RP_BASE_GUID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define RP_GUID_TEXT 37

struct rp_guid {
    uint8_t bytes[16];
};

// Random (version 4), from the kernel's generator.
struct rp_guid rp_guid_new(void);
bool rp_guid_equal(const struct rp_guid *a, const struct rp_guid *b);
bool rp_guid_is_zero(const struct rp_guid *guid);
// "2dc27766-f623-4200-9d64-115e9bfd4a08", lower case without braces. Returns `out`.
const char *rp_guid_format(const struct rp_guid *guid, char out[RP_GUID_TEXT]);
// Accepts either case, with or without braces; nothing may follow.
int rp_guid_parse(const char *text, struct rp_guid *guid, struct rp_error *err);

// The next 16 bytes; zero when too few are left, which the cursor remembers as failed.
struct rp_guid rp_cursor_guid(struct rp_cursor *c);

// A constant from its textual fields: RP_GUID(0x2DC27766, 0xF623, 0x4200, 0x9D, 0x64, 0x11, …).
#define RP_GUID(a, b, c, ...)                                                                                          \
    {{(uint8_t)(a), (uint8_t)((a) >> 8), (uint8_t)((a) >> 16), (uint8_t)((a) >> 24), (uint8_t)(b),                     \
      (uint8_t)((b) >> 8), (uint8_t)(c), (uint8_t)((c) >> 8), __VA_ARGS__}}

#endif
