// Base64 (RFC 4648 4), as the tokens of HTTP logins come in it.
#ifndef RP_WSMAN_BASE64_H
#define RP_WSMAN_BASE64_H

#include "base/buf.h"

void rp_base64_encode(const void *data, size_t size, struct rp_buf *out);
// Strict: no blanks, padded to groups of four, no bits that would be lost. RP_ERR_INVALID, with `out` as it was.
int rp_base64_decode(const char *text, size_t size, struct rp_buf *out, struct rp_error *err);

#endif
