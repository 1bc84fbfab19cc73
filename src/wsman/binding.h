// The channel binding tls-server-end-point (RFC 5929 4): it ties a login to the certificate of the TLS connection it
// goes over, so that nobody can pass a login meant for him on to somebody else (what Windows calls extended
// protection).
#ifndef RP_WSMAN_BINDING_H
#define RP_WSMAN_BINDING_H

#include "base/buf.h"

// Replaces `out` by the binding of a certificate: X509 of OpenSSL, or the first in a PEM text. Empty when it has
// none: its signature has no hash of its own (Ed25519).
void rp_binding_of_certificate(const void *x509, struct rp_buf *out);
void rp_binding_of_pem(const char *pem, struct rp_buf *out);

#endif
