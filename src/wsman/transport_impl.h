// What the files of the transport share: transport.c (options, messages), transport_http.c (one POST),
// transport_login.c.
#ifndef RP_WSMAN_TRANSPORT_IMPL_H
#define RP_WSMAN_TRANSPORT_IMPL_H

#include <curl/curl.h>

#include "wsman/transport.h"

enum {
    RP_TRANSPORT_MAX_ANSWER = 16 << 20,  // for services that do not heed MaxEnvelopeSize
    RP_TRANSPORT_MAX_CHALLENGES = 8,
    RP_TRANSPORT_MAX_CHALLENGE = 128 << 10,
    RP_TRANSPORT_CONNECT_MS = 15000,
};

struct rp_wsman_transport {
    struct rp_wsman_options options;     // its strings are ours
    char *url, *host, *socket;           // host: without brackets; of a socket, the path is what errors name
    const char *name;                    // of the other side, for errors
    bool tls;
    uint8_t pin[32];                     // of the certificate, when options.fingerprint
    struct rp_buf binding;               // of the certificate, once there has been a TLS connection
    char seen[96];                       // fingerprint that did not fit; "" otherwise
    CURL *curl;
    char curl_error[CURL_ERROR_SIZE];
    struct rp_login *login;              // done, or NULL
};

// One POST and its answer.
struct rp_http_exchange {
    const char *authorization;           // value of the header; NULL: none
    const char *content_type;            // NULL: none
    const void *body;
    size_t size, sent;
    unsigned status;
    bool new_connection;                 // it was not that of the one before
    struct rp_buf answer;
    char answer_type[256];
    char *challenges[RP_TRANSPORT_MAX_CHALLENGES]; // values of WWW-Authenticate
    size_t challenge_count;
    bool too_large;
};
void rp_http_exchange_clear(struct rp_http_exchange *exchange);
int rp_http_setup(struct rp_wsman_transport *transport, struct rp_error *err);
int rp_http_post(struct rp_wsman_transport *transport, struct rp_http_exchange *exchange, struct rp_error *err);
// What somebody offers: "Negotiate, Basic". The token that goes with `scheme` in a challenge; NULL: none, "" without
// one.
char *rp_http_schemes(const struct rp_http_exchange *exchange);
char *rp_http_challenge(const struct rp_http_exchange *exchange, const char *scheme);

// Negotiate and Kerberos, over requests without a body.
int rp_transport_log_in(struct rp_wsman_transport *transport, struct rp_error *err);
// Says what a status other than 200, 400, 500 means. Always -1.
int rp_transport_status(const struct rp_wsman_transport *transport, const struct rp_http_exchange *exchange,
                        struct rp_error *err);

#endif
