// Sealed bodies: multipart/encrypted as WinRM does it over plain HTTP (MS-WSMV 2.2.9.1; facts/wmi.md 2.9). Pure
// functions on buffers: the cryptography is a login's (login.h).
#ifndef RP_WSMAN_SEAL_H
#define RP_WSMAN_SEAL_H

#include "wsman/login.h"

// Whether a Content-Type (NULL: none) says that the body is sealed, whatever the protocol and the spelling of the
// boundary.
bool rp_seal_is(const char *content_type);
// Seals `size` bytes of SOAP. Fills the Content-Type to send and appends the body.
int rp_seal(struct rp_login *login, const void *plain, size_t size, char content_type[256], struct rp_buf *body,
            struct rp_error *err);
// Opens a body. With or without tabs, "--Encrypted Boundary" or "-- Encrypted Boundary", other boundaries if
// Content-Type names them; several parts (CredSSP) are refused. RP_ERR_AUTH when it is not what the other side
// sealed, or not in its turn; RP_ERR_CORRUPT when it is not of this form, RP_ERR_UNSUPPORTED when it is CredSSP's.
// `charset` gets that of OriginalContent, "" when it has none. Appends.
int rp_unseal(struct rp_login *login, const char *content_type, const void *body, size_t size, struct rp_buf *plain,
              char charset[32], struct rp_error *err);

// The framing alone: where the parts of a body are. Borrowed from it.
struct rp_sealed {
    const uint8_t *header, *data; // signature or token; ciphertext
    size_t header_size, data_size;
    uint64_t length;              // of the plain text, as OriginalContent says it
    char charset[32];
};
int rp_seal_parse(const char *content_type, const void *body, size_t size, struct rp_sealed *sealed,
                  struct rp_error *err);
void rp_seal_format(const char *protocol, const void *header, size_t header_size, const void *data, size_t data_size,
                    size_t length, char content_type[256], struct rp_buf *body);

#endif
