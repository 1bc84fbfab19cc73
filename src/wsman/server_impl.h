// What the files of the server share: server.c (listeners), server_connection.c (who may be connected, and how long),
// server_login.c (who it is) and server_request.c (one request).
#ifndef RP_WSMAN_SERVER_IMPL_H
#define RP_WSMAN_SERVER_IMPL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "wsman/server.h"

enum {
    RP_SERVER_MAX_BODY = 512000 + 2048,   // MaxEnvelopeSize and what sealing adds
    RP_SERVER_MAX_IDENTIFY = 16 << 10,
    RP_SERVER_MAX_HELD = 16 << 20,        // bodies of all who are not logged in
    RP_SERVER_REFUSALS = 3,               // then the connection ends
};

struct rp_server_listener {
    struct rp_wsman_server *server;
    struct MHD_Daemon *daemon;
    int fd;
    uint16_t port;
    char *socket;                         // path; NULL: TCP
    char *certificate, *key;              // the PEM text; NULL: no TLS
    struct rp_buf binding;                // of the certificate
    bool clear;                           // messages may be in clear, and so may Basic
    bool basic;
};

struct rp_server_connection {
    struct rp_server_listener *listener;
    int fd;
    char address[64];
    // Guarded by the server's mutex
    struct rp_server_connection *previous, *next; // in the order in which they came
    uint8_t key[16];                      // whose connections are counted together
    uint64_t born, active, deadline;      // monotonic, ns; active: the last header or answer; UINT64_MAX: no deadline
    char *owner;                          // who logged in last; NULL: a stranger
    bool working;                         // is being answered
    bool spoke;                           // has sent a whole header, once at least
    bool cut;                             // shut down; libmicrohttpd will notice
    bool stale;                           // rights have changed since `access` was asked for
    // Used by one request at a time
    struct rp_login *login;               // under way or done; done, it is whom the connection belongs to
    enum rp_login_scheme scheme;
    unsigned refusals;
    char *user;                           // NULL: nobody
    enum rp_cim_access access;
};

struct rp_wsman_server {
    struct rp_wsman_service *service;
    struct rp_wsman_server_ops ops;
    struct rp_login_acceptor acceptor;    // strings owned
    struct rp_wsman_server_limits limits; // none is 0
    struct rp_server_listener *listeners;
    size_t count;
    struct rp_pool *pool;
    atomic_size_t held;
    pthread_mutex_t mutex;
    pthread_cond_t changed;               // monotonic clock
    struct rp_server_connection *first, *last;
    size_t requests;                      // from their work to the end of their answer
    bool stopping, watching;
    pthread_t watcher;
};

struct rp_server_request {
    struct rp_wsman_server *server;
    struct rp_server_connection *connection;
    struct MHD_Connection *http;
    enum { RP_REQUEST_BODY, RP_REQUEST_WORK, RP_REQUEST_DONE, RP_REQUEST_ANSWERED } phase;
    bool discard;                         // the body is of no use to anybody
    bool identify;                        // WSMANIDENTIFY: unauthenticated
    bool counted;                         // in the server's requests
    const char *authorization, *content_type; // of libmicrohttpd, as long as the request
    struct rp_buf body;
    size_t held;                          // its part of the server's
    // The answer
    unsigned status;
    struct rp_buf answer;
    char answer_type[256];
    char *challenge;                      // one WWW-Authenticate with a token; NULL: none
    bool schemes;                         // 401: what this listener offers
    bool close, drop;
};

// server_connection.c
void rp_server_connection_notify(void *listener, struct MHD_Connection *http, void **context,
                                 enum MHD_ConnectionNotificationCode code);
void rp_server_connection_known(struct rp_server_connection *connection, const char *user); // has logged in
void rp_server_connection_deadline(struct rp_server_connection *connection, unsigned seconds); // 0: none, at work
void rp_server_connection_idle(struct rp_server_connection *connection); // between requests
bool rp_server_connection_stale(struct rp_server_connection *connection); // once
void rp_server_connection_forget(struct rp_server_connection *connection); // nobody is logged in any more
void *rp_server_watch(void *server); // a thread: ends connections whose time is over

// server_login.c. Fills *caller and returns 0, or fills the request's answer and returns -1. A caller without a user:
// nobody.
int rp_server_login(struct rp_server_request *request, struct rp_cim_caller *caller);

// server_request.c
enum MHD_Result rp_server_request_handle(void *listener, struct MHD_Connection *http, const char *url,
                                         const char *method, const char *version, const char *data, size_t *size,
                                         void **context);
void rp_server_request_completed(void *listener, struct MHD_Connection *http, void **context,
                                 enum MHD_RequestTerminationCode code);

#endif
