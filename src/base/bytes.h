// Explicit reads and writes of integers in byte buffers. Wire and disk
// structures are decoded with these, never by casts.
#ifndef RP_BASE_BYTES_H
#define RP_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define RP_DEFINE_ENDIAN(bits, order)                                                                                  \
    static inline uint##bits##_t rp_get_##order##bits(const void *p)                                                   \
    {                                                                                                                  \
        uint##bits##_t v;                                                                                              \
        memcpy(&v, p, sizeof v);                                                                                       \
        return order##bits##toh(v);                                                                                    \
    }                                                                                                                  \
    static inline void rp_put_##order##bits(void *p, uint##bits##_t v)                                                 \
    {                                                                                                                  \
        v = hto##order##bits(v);                                                                                       \
        memcpy(p, &v, sizeof v);                                                                                       \
    }

RP_DEFINE_ENDIAN(16, le)
RP_DEFINE_ENDIAN(32, le)
RP_DEFINE_ENDIAN(64, le)
RP_DEFINE_ENDIAN(16, be)
RP_DEFINE_ENDIAN(32, be)
RP_DEFINE_ENDIAN(64, be)

#undef RP_DEFINE_ENDIAN

#endif
