// How a client's messages reach a service: HTTP or HTTPS (libcurl) over one kept-alive connection, one login, sealed
// where TLS is not. Not thread safe.
#ifndef RP_WSMAN_TRANSPORT_H
#define RP_WSMAN_TRANSPORT_H

#include "wsman/login.h"

// PEER: a unix socket
enum rp_wsman_auth { RP_AUTH_NEGOTIATE, RP_AUTH_KERBEROS, RP_AUTH_NTLM, RP_AUTH_BASIC, RP_AUTH_PEER };

struct rp_wsman_options {
    const char *url;             // "https://hv1:5986/wsman"; "http://hv1" (then port 5985 or 5986, path /wsman);
                                 // "unix:/run/refpoint/hostd.sock"
    enum rp_wsman_auth auth;
    struct rp_login_credentials credentials;
    const char *ca_file;         // PEM; NULL: the system's
    const char *fingerprint;     // SHA-256 of the certificate, hex with or without colons; then it alone is believed
    bool basic_in_clear;         // Basic without TLS
    unsigned timeout_ms;         // of one operation; 0: 60,000
    // Sees every message in clear (`sent` or received), e.g. to record it. NULL: nobody.
    void (*trace)(void *context, bool sent, const void *data, size_t size);
    void *trace_context;
};

struct rp_wsman_transport;
// Does not connect yet; copies what it needs of the options. RP_ERR_INVALID for what cannot be (Basic in clear
// without the option, a malformed URL or fingerprint, a unix socket with another login than PEER).
struct rp_wsman_transport *rp_wsman_transport_new(const struct rp_wsman_options *options, struct rp_error *err);
void rp_wsman_transport_free(struct rp_wsman_transport *transport); // NULL is fine
RP_DEFINE_CLEANUP(struct rp_wsman_transport, rp_wsman_transport_free)
const char *rp_wsman_transport_url(const struct rp_wsman_transport *transport); // for a:To
unsigned rp_wsman_transport_timeout(const struct rp_wsman_transport *transport); // milliseconds of one operation

// Sends a message and appends the answer, in clear; `charset` gets that of its Content-Type, "" when it has none.
// *status: 200, or 400 or 500 for a message with a fault. Logs in first where that is needed, also after the host has
// closed the connection. A message is never sent a second time unless the host said that it did not look at the first
// (401): when the connection is lost while waiting, nobody knows whether it was carried out, and that is RP_ERR_IO.
// Errors in one line. RP_ERR_AUTH: wrong password, expired ticket, a certificate of another host or another CA, an
// answer that is not sealed; RP_ERR_PERMISSION: logged in, but no rights; RP_ERR_IO: refused, unreachable, timed out,
// lost.
int rp_wsman_transport_exchange(struct rp_wsman_transport *transport, const void *message, size_t size,
                                struct rp_buf *answer, char charset[32], unsigned *status, struct rp_error *err);

#endif
