#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/log.h"
#include "wsman/binding.h"
#include "wsman/server_impl.h"

enum { MAX_PEM = 1 << 20, WORKERS = 8, STOP_SECONDS = 10, SPARE = 100 };

static char *read_pem(const char *path, struct rp_error *err)
{
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat s;
    if (fd < 0 || fstat(fd, &s)) {
        rp_fail_sys(err, errno, "%s", path);
        return NULL;
    }
    if (s.st_size > MAX_PEM) {
        rp_fail(err, RP_ERR_INVALID, "%s: too large for a certificate or key", path);
        return NULL;
    }
    char *text = rp_xcalloc(1, (size_t)s.st_size + 1);
    if (read(fd, text, (size_t)s.st_size) != s.st_size) {
        rp_fail(err, RP_ERR_IO, "%s: cannot be read", path);
        free(text);
        return NULL;
    }
    return text;
}

static int bind_and_listen(int fd, const void *address, socklen_t size, const char *name, struct rp_error *err)
{
    if (bind(fd, address, size) || listen(fd, 511))
        return rp_fail_sys(err, errno, "listen on %s", name);
    return 0;
}

// A socket that nobody answers on was left by a process that died.
static int listen_unix(struct rp_server_listener *l, const char *path, struct rp_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return rp_fail(err, RP_ERR_INVALID, "socket %s: the path is too long", path);
    memcpy(address.sun_path, path, strlen(path));
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return rp_fail_sys(err, errno, "socket %s", path);
    RP_AUTO_FD int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!connect(probe, (void *)&address, sizeof address) || errno == EAGAIN)
        return rp_fail(err, RP_ERR_BUSY, "socket %s: somebody is listening there", path);
    if (errno == ECONNREFUSED)
        unlink(path);
    if (bind_and_listen(l->fd, &address, sizeof address, path, err))
        return -1;
    l->socket = rp_xstrdup(path);
    return chmod(path, 0666) ? rp_fail_sys(err, errno, "socket %s", path) : 0;
}

static int listen_tcp(struct rp_server_listener *l, const char *text, uint16_t port, struct rp_error *err)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    bool is_v4 = inet_pton(AF_INET, text, &v4.sin_addr) == 1;
    if (!is_v4 && inet_pton(AF_INET6, text, &v6.sin6_addr) != 1)
        return rp_fail(err, RP_ERR_INVALID, "listen on '%s': not an address", text);
    void *address = is_v4 ? (void *)&v4 : (void *)&v6;
    socklen_t size = is_v4 ? sizeof v4 : sizeof v6;
    int on = 1, off = 0;
    char name[96];
    snprintf(name, sizeof name, "%s port %u", text, port);
    l->fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return rp_fail_sys(err, errno, "listen on %s", name);
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!is_v4)
        setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind_and_listen(l->fd, address, size, name, err))
        return -1;
    if (getsockname(l->fd, address, &size))
        return rp_fail_sys(err, errno, "listen on %s", name);
    l->port = ntohs(is_v4 ? v4.sin_port : v6.sin6_port);
    return 0;
}

static void log_line(void *context, const char *format, va_list arguments)
{
    (void)context;
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\r\n")] = '\0';
    rp_log(RP_LOG_DEBUG, "http: %s", text);
}

// The limit of libmicrohttpd is higher than ours: ours needs to see who comes to make room for him.
static int start_daemon(struct rp_server_listener *l, struct rp_error *err)
{
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, l->certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, l->key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    l->daemon = MHD_start_daemon(
        flags | (l->certificate ? MHD_USE_TLS : 0), 0, NULL, NULL, rp_server_request_handle, l,
        MHD_OPTION_EXTERNAL_LOGGER, log_line, NULL, MHD_OPTION_LISTEN_SOCKET, l->fd, MHD_OPTION_CONNECTION_LIMIT,
        l->server->limits.connections + SPARE, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)128 << 10,
        MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)16 << 10, MHD_OPTION_NOTIFY_CONNECTION,
        rp_server_connection_notify, l, MHD_OPTION_NOTIFY_COMPLETED, rp_server_request_completed, l, MHD_OPTION_ARRAY,
        l->certificate ? tls : none, MHD_OPTION_END);
    if (!l->daemon)
        return rp_fail(err, RP_ERR_INVALID, "cannot serve %s%s", l->socket ? l->socket : "HTTP",
                       l->certificate ? "S: certificate and key do not fit, or are none" : "");
    l->fd = -1;
    return 0;
}

static int start_listener(struct rp_wsman_server *server, size_t i, const struct rp_wsman_listener *wanted,
                          struct rp_error *err)
{
    struct rp_server_listener *l = &server->listeners[i];
    *l = (struct rp_server_listener){.server = server, .fd = -1};
    server->count = i + 1;
    if (!wanted->socket == !wanted->address || !wanted->certificate != !wanted->key)
        return rp_fail(err, RP_ERR_INVALID, "listener %zu: an address or a socket, a certificate with its key", i);
    if (wanted->certificate && (!(l->certificate = read_pem(wanted->certificate, err)) ||
                                !(l->key = read_pem(wanted->key, err))))
        return -1;
    if (l->certificate)
        rp_binding_of_pem(l->certificate, &l->binding);
    l->clear = wanted->flags & RP_LISTEN_BASIC_IN_CLEAR;
    l->basic = !wanted->socket && server->ops.password && (l->certificate || l->clear);
    if (wanted->socket ? listen_unix(l, wanted->socket, err) : listen_tcp(l, wanted->address, wanted->port, err))
        return -1;
    return start_daemon(l, err);
}

static unsigned or_else(unsigned value, unsigned otherwise)
{
    return value ? value : otherwise;
}

static struct rp_wsman_server_limits complete(const struct rp_wsman_server_limits *limits)
{
    static const struct rp_wsman_server_limits defaults;
    limits = limits ? limits : &defaults;
    unsigned connections = or_else(limits->connections, 300); // facts 2.4: MaxConnections
    return (struct rp_wsman_server_limits){
        .connections = connections,
        .strangers = or_else(limits->strangers, 8),
        .of_user = or_else(limits->of_user, (connections + 2) / 3),
        .stranger_seconds = or_else(limits->stranger_seconds, 60),
        .transfer_seconds = or_else(limits->transfer_seconds, 60),
        .idle_seconds = or_else(limits->idle_seconds, 300),
    };
}

struct rp_wsman_server *rp_wsman_server_start(struct rp_wsman_service *service,
                                              const struct rp_wsman_listener *listeners, size_t count,
                                              const struct rp_login_acceptor *acceptor,
                                              const struct rp_wsman_server_ops *ops,
                                              const struct rp_wsman_server_limits *limits, struct rp_error *err)
{
    static const struct rp_login_acceptor nobody;
    acceptor = acceptor ? acceptor : &nobody;
    if (rp_login_check(acceptor, err))
        return NULL;
    struct rp_wsman_server *server = rp_xcalloc(1, sizeof *server);
    server->service = service;
    server->ops = *ops;
    server->limits = complete(limits);
    server->acceptor.keytab = acceptor->keytab ? rp_xstrdup(acceptor->keytab) : NULL;
    server->acceptor.ntlm_users = acceptor->ntlm_users ? rp_xstrdup(acceptor->ntlm_users) : NULL;
    server->listeners = rp_xcalloc(count, sizeof *server->listeners);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&server->mutex, NULL);
    // more than can be connected, so that handing over work never blocks
    server->pool = rp_pool_new(WORKERS, count * (server->limits.connections + SPARE) + 1);
    server->watching = true;
    if (pthread_create(&server->watcher, NULL, rp_server_watch, server)) {
        server->watching = false;
        rp_fail(err, RP_ERR_NO_MEMORY, "no thread can be started");
        rp_wsman_server_stop(server);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        if (start_listener(server, i, &listeners[i], err)) {
            rp_wsman_server_stop(server);
            return NULL;
        }
    return server;
}

uint16_t rp_wsman_server_port(const struct rp_wsman_server *server, size_t listener)
{
    return listener < server->count ? server->listeners[listener].port : 0;
}

// Nobody new, then those who are being answered, for a while.
static void drain(struct rp_wsman_server *server)
{
    for (size_t i = 0; i < server->count; i++) {
        struct rp_server_listener *l = &server->listeners[i];
        if (l->socket)
            unlink(l->socket);
        if (l->daemon)
            l->fd = MHD_quiesce_daemon(l->daemon);
    }
    pthread_mutex_lock(&server->mutex);
    server->stopping = true;
    pthread_mutex_unlock(&server->mutex);
    rp_pool_wait(server->pool);
    uint64_t until = rp_clock_monotonic_ns() + STOP_SECONDS * 1000000000ull;
    struct timespec end = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
    pthread_mutex_lock(&server->mutex);
    while (server->requests && !pthread_cond_timedwait(&server->changed, &server->mutex, &end))
        continue;
    pthread_mutex_unlock(&server->mutex);
}

void rp_wsman_server_stop(struct rp_wsman_server *server)
{
    if (!server)
        return;
    drain(server);
    for (size_t i = 0; i < server->count; i++) {
        struct rp_server_listener *l = &server->listeners[i];
        if (l->daemon)
            MHD_stop_daemon(l->daemon);
        if (l->fd >= 0)
            close(l->fd);
        free(l->socket);
        free(l->certificate);
        rp_buf_clear(&l->binding);
        if (l->key)
            explicit_bzero(l->key, strlen(l->key));
        free(l->key);
    }
    rp_pool_free(server->pool);
    if (server->watching) {
        pthread_mutex_lock(&server->mutex);
        server->watching = false;
        pthread_cond_broadcast(&server->changed);
        pthread_mutex_unlock(&server->mutex);
        pthread_join(server->watcher, NULL);
    }
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    free((char *)(uintptr_t)server->acceptor.keytab);
    free((char *)(uintptr_t)server->acceptor.ntlm_users);
    free(server->listeners);
    free(server);
}
