// The HTTP side of the service (libmicrohttpd): listeners, authentication per connection, sealed bodies, limits.
#ifndef RP_WSMAN_SERVER_H
#define RP_WSMAN_SERVER_H

#include "wsman/login.h"
#include "wsman/service.h"

enum { RP_LISTEN_BASIC_IN_CLEAR = 1 }; // Basic without TLS: only where somebody asked for exactly that

struct rp_wsman_listener {
    const char *address;       // "127.0.0.1", "::", or NULL with `socket`
    uint16_t port;             // 0: a free one
    const char *socket;        // path of a unix socket (mode 0666; the peer's credentials are the login); NULL: TCP
    const char *certificate, *key; // PEM files: TLS; NULL: HTTP
    unsigned flags;
};
struct rp_wsman_server_ops {
    // Who a name that was authenticated is here: fills access; RP_ERR_PERMISSION for nobody. Basic asks for the password first.
    int (*authorize)(void *context, const char *user, enum rp_cim_access *access, struct rp_error *err);
    bool (*password)(void *context, const char *user, const char *password); // constant time
    int (*peer)(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access, struct rp_error *err);
    // For the lab: drop the connection instead of answering? NULL: never.
    bool (*drop)(void *context);
    void *context;
};
struct rp_wsman_server;
// Starts threads. POST /wsman and /wsman/. 401 names the schemes that are there. One connection, one login; idle connections end after 60 s before
// authentication; at most 300 connections, 8 from one address that is not logged in.
struct rp_wsman_server *rp_wsman_server_start(struct rp_wsman_service *service, const struct rp_wsman_listener *listeners,
                                              size_t count, const struct rp_login_acceptor *acceptor,
                                              const struct rp_wsman_server_ops *ops, struct rp_error *err);
uint16_t rp_wsman_server_port(const struct rp_wsman_server *server, size_t listener);
void rp_wsman_server_stop(struct rp_wsman_server *server); // waits for requests under way; NULL is fine

#endif
