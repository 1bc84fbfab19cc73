#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "wsman/server_impl.h"

#define SECOND 1000000000ull

// libmicrohttpd sees the end of a stream and cleans up. The descriptor is ours to use only under the mutex: the
// notification that a connection has ended takes it off the list before it is closed.
static void cut(struct rp_server_connection *connection)
{
    if (!connection->cut)
        shutdown(connection->fd, SHUT_RDWR);
    connection->cut = true;
}

// Connections of one IPv6 network of 64 bits count together: that is what one machine may choose from.
static void identify(struct rp_server_connection *c, const struct sockaddr *address)
{
    if (address && address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)address;
        memcpy(c->key, &v4->sin_addr, 4);
        inet_ntop(AF_INET, &v4->sin_addr, c->address, sizeof c->address);
    } else if (address && address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)address;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
        memcpy(c->key, mapped ? v6->sin6_addr.s6_addr + 12 : v6->sin6_addr.s6_addr, mapped ? 4 : 8);
        inet_ntop(mapped ? AF_INET : AF_INET6, mapped ? v6->sin6_addr.s6_addr + 12 : v6->sin6_addr.s6_addr, c->address,
                  sizeof c->address);
    } else {
        struct ucred peer = {0};
        socklen_t size = sizeof peer;
        getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
        memset(c->key, 0xff, sizeof c->key);
        memcpy(c->key, &peer.uid, sizeof peer.uid);
        snprintf(c->address, sizeof c->address, "local");
    }
}

// Who ends first: who has done nothing for a second, then who has never sent a whole header, then who is about to log
// in.
static unsigned expendable(const struct rp_server_connection *c, uint64_t now)
{
    return now - c->active > SECOND ? 2 : !c->spoke;
}

static bool before(const struct rp_server_connection *c, const struct rp_server_connection *other, uint64_t now)
{
    if (!other || expendable(c, now) != expendable(other, now))
        return !other || expendable(c, now) > expendable(other, now);
    return c->active < other->active;
}

// Who is not logged in makes room for who comes after him: of his own address first, then of all. So nobody keeps
// others out by connecting alone.
static void make_room(struct rp_wsman_server *server, struct rp_server_connection *newest)
{
    struct rp_server_connection *here = NULL, *anywhere = NULL;
    size_t strangers = 0, all = 0;
    for (struct rp_server_connection *c = server->first; c; c = c->next) {
        bool same = !memcmp(c->key, newest->key, sizeof c->key);
        all += !c->cut;
        strangers += !c->cut && !c->owner && same;
        if (c->cut || c->owner || c == newest)
            continue;
        if (before(c, anywhere, newest->born))
            anywhere = c;
        if (same && before(c, here, newest->born))
            here = c;
    }
    if (strangers > server->limits.strangers)
        cut(here ? here : newest);
    else if (all > server->limits.connections)
        cut(anywhere ? anywhere : newest);
}

static struct rp_server_connection *begin(struct rp_server_listener *listener, struct MHD_Connection *http)
{
    struct rp_wsman_server *server = listener->server;
    struct rp_server_connection *c = rp_xcalloc(1, sizeof *c);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(http, MHD_CONNECTION_INFO_CONNECTION_FD);
    c->listener = listener;
    c->fd = info->connect_fd;
    info = MHD_get_connection_info(http, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    identify(c, listener->socket || !info ? NULL : info->client_addr);
    pthread_mutex_lock(&server->mutex);
    c->born = c->active = rp_clock_monotonic_ns();
    c->deadline = c->born + server->limits.stranger_seconds * SECOND;
    c->previous = server->last;
    *(server->last ? &server->last->next : &server->first) = c;
    server->last = c;
    make_room(server, c);
    pthread_mutex_unlock(&server->mutex);
    return c;
}

static void end(struct rp_server_connection *c)
{
    struct rp_wsman_server *server = c->listener->server;
    pthread_mutex_lock(&server->mutex);
    *(c->previous ? &c->previous->next : &server->first) = c->next;
    *(c->next ? &c->next->previous : &server->last) = c->previous;
    pthread_mutex_unlock(&server->mutex);
    rp_server_connection_forget(c);
    free(c->owner);
    free(c);
}

void rp_server_connection_notify(void *listener, struct MHD_Connection *http, void **context,
                                 enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = begin(listener, http);
    } else if (*context) {
        end(*context);
        *context = NULL;
    }
}

void rp_server_connection_forget(struct rp_server_connection *c)
{
    rp_login_free(c->login);
    free(c->user);
    c->login = NULL;
    c->user = NULL;
}

// Whoever may only read shall not keep others out either: what one user has too many of are his own.
static void make_room_of(struct rp_wsman_server *server, const struct rp_server_connection *newest)
{
    struct rp_server_connection *idle = NULL;
    size_t all = 0;
    for (struct rp_server_connection *c = server->first; c; c = c->next) {
        if (c->cut || !c->owner || strcasecmp(c->owner, newest->owner))
            continue;
        all++;
        if (c != newest && !c->working && (!idle || c->active < idle->active))
            idle = c;
    }
    if (all > server->limits.of_user && idle)
        cut(idle);
}

void rp_server_connection_known(struct rp_server_connection *c, const char *user)
{
    struct rp_wsman_server *server = c->listener->server;
    char *owner = rp_xstrdup(user);
    pthread_mutex_lock(&server->mutex);
    free(c->owner);
    c->owner = owner;
    make_room_of(server, c);
    pthread_mutex_unlock(&server->mutex);
}

bool rp_server_connection_stale(struct rp_server_connection *c)
{
    pthread_mutex_lock(&c->listener->server->mutex);
    bool stale = c->stale;
    c->stale = false;
    pthread_mutex_unlock(&c->listener->server->mutex);
    return stale;
}

void rp_wsman_server_recheck(struct rp_wsman_server *server)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->mutex);
    for (struct rp_server_connection *c = server->first; c; c = c->next)
        c->stale = true;
    pthread_mutex_unlock(&server->mutex);
}

void rp_server_connection_deadline(struct rp_server_connection *c, unsigned seconds)
{
    struct rp_wsman_server *server = c->listener->server;
    pthread_mutex_lock(&server->mutex);
    uint64_t now = rp_clock_monotonic_ns(), latest = c->born + server->limits.stranger_seconds * SECOND;
    c->spoke = true;
    c->active = now;
    c->working = !seconds;
    c->deadline = seconds ? now + seconds * SECOND : UINT64_MAX;
    if (!c->owner && c->deadline > latest && seconds) // a stranger does not win time by asking
        c->deadline = latest;
    pthread_mutex_unlock(&server->mutex);
}

void rp_server_connection_idle(struct rp_server_connection *c)
{
    rp_server_connection_deadline(c, c->listener->server->limits.idle_seconds);
}

void *rp_server_watch(void *argument)
{
    struct rp_wsman_server *server = argument;
    pthread_mutex_lock(&server->mutex);
    while (server->watching) {
        uint64_t now = rp_clock_monotonic_ns();
        for (struct rp_server_connection *c = server->first; c; c = c->next)
            if (c->deadline <= now)
                cut(c);
        struct timespec next = {(time_t)(now / SECOND) + 1, (long)(now % SECOND)};
        pthread_cond_timedwait(&server->changed, &server->mutex, &next);
    }
    pthread_mutex_unlock(&server->mutex);
    return NULL;
}
