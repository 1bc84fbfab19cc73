// Media types with parameters, as Content-Type and OriginalContent have them (RFC 9110 8.3.1).
#ifndef RP_WSMAN_MEDIA_H
#define RP_WSMAN_MEDIA_H

#include <stdbool.h>
#include <stddef.h>

// Whether the type itself, in any case, is `type`, whatever its parameters.
bool rp_media_is(const char *media, const char *type);
// The value of `;name=value` or `;name="value"`, the name in any case; false when it is absent, empty, does not fit,
// or never ends.
bool rp_media_parameter(const char *media, const char *name, char *value, size_t size);

#endif
