// The HTTP side of the service (libmicrohttpd): listeners, authentication per connection, sealed bodies, limits.
#ifndef RP_WSMAN_SERVER_H
#define RP_WSMAN_SERVER_H

#include "wsman/login.h"
#include "wsman/service.h"

// Messages without sealing and without TLS, and Basic there: only where somebody asked for exactly that.
enum { RP_LISTEN_BASIC_IN_CLEAR = 1 };

struct rp_wsman_listener {
    const char *address;       // "127.0.0.1", "::" (both families), or NULL with `socket`
    uint16_t port;             // 0: a free one
    const char *socket;        // path of a unix socket (mode 0666; the peer's credentials are the login); NULL: TCP
    const char *certificate, *key; // PEM files: TLS; NULL: HTTP
    unsigned flags;
};
struct rp_wsman_server_ops {
    // Who a name that was authenticated is here: fills access; RP_ERR_PERMISSION for nobody. Names of NTLM come in
    // any case, and without domain if the client said none. Basic asks for the password first.
    int (*authorize)(void *context, const char *user, enum rp_cim_access *access, struct rp_error *err);
    bool (*password)(void *context, const char *user, const char *password); // constant time; NULL: no Basic
    int (*peer)(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                struct rp_error *err);
    // For the lab: drop the connection instead of answering? The request has been carried out. NULL: never.
    bool (*drop)(void *context);
    void *context;
};
// 0: the default. Who comes when there are too many ends the oldest connection that is not logged in, of his own
// address, then of all, and first one that is idle. Who logs in too often ends his own that was idle for longest.
struct rp_wsman_server_limits {
    unsigned connections;      // 300
    unsigned strangers;        // 8 of one address (an IPv6 network of 64 bits, a local user) that are not logged in
    unsigned of_user;          // a third of all, logged in under one name (in any case)
    unsigned stranger_seconds; // 60, from accept to login
    unsigned transfer_seconds; // 60, for a request, and for an answer, on its way
    unsigned idle_seconds;     // 300, of a connection that is logged in
};
struct rp_wsman_server;
// Starts threads; all callbacks come from several of them at once. POST /wsman and /wsman/. 401 names the schemes
// that are there. One connection, one login. Over TCP without TLS requests must be sealed, but for Identify (header
// WSMANIDENTIFY: unauthenticated). Who has no rights gets 403, three failed logins end a connection. `acceptor` NULL:
// neither Kerberos nor NTLM; `limits` NULL: the defaults.
struct rp_wsman_server *rp_wsman_server_start(struct rp_wsman_service *service,
                                              const struct rp_wsman_listener *listeners, size_t count,
                                              const struct rp_login_acceptor *acceptor,
                                              const struct rp_wsman_server_ops *ops,
                                              const struct rp_wsman_server_limits *limits, struct rp_error *err);
uint16_t rp_wsman_server_port(const struct rp_wsman_server *server, size_t listener);
// Rights have changed: who is logged in is asked about again (authorize, peer) with his next request. NULL is fine.
void rp_wsman_server_recheck(struct rp_wsman_server *server);
void rp_wsman_server_stop(struct rp_wsman_server *server); // waits for requests under way; NULL is fine

#endif
