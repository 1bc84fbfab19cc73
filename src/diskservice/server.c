#include "diskservice/server.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "diskservice/control.h"
#include "diskservice/socket.h"

enum { MAX_CONNECTIONS = 32, PATIENCE_MS = 5000 }; // for one that does not take its answer, at the end

struct connection {
    struct rp_server *server;
    pthread_t thread;
    int fd;
    bool used, ended; // ended: the thread only waits to be joined
    _Atomic uint64_t sending; // since when, or 0
};

struct rp_server {
    struct rp_engine *engine;
    struct rp_server_clients *clients;
    char *path;
    int listener, stop; // stop: an eventfd
    pthread_t thread;
    pthread_mutex_t lock;
    struct connection connections[MAX_CONNECTIONS];
};

static void fill_info(struct rp_engine *engine, struct rp_service_info *info)
{
    info->pid = getpid();
    info->generation = rp_engine_generation(engine);
    info->count = rp_engine_disk_count(engine);
    for (size_t i = 0; i < info->count; i++)
        rp_engine_disk(engine, i, &info->disks[i]);
    rp_engine_merge_state(engine, &info->merge);
}

static void answer_grow(struct rp_server *server, const struct rp_control_request *request, struct rp_error *err)
{
    int disk = rp_engine_find_disk(server->engine, request->disk);
    if (disk < 0) {
        rp_fail(err, RP_ERR_NOT_FOUND, "%s: no such disk", request->disk);
        return;
    }
    pthread_mutex_lock(&server->clients->lock);
    if (server->clients->count)
        rp_fail(err, RP_ERR_BUSY, "%s: %u NBD clients are connected; a disk grows only without any", request->disk, server->clients->count);
    else
        rp_engine_grow(server->engine, (size_t)disk, request->size, err);
    pthread_mutex_unlock(&server->clients->lock);
}

static void answer_merge(struct rp_engine *engine, const struct rp_control_request *request, struct rp_error *err)
{
    struct rp_engine_merge_options options = {.rate = request->rate};
    if (!rp_engine_merge_start(engine, &request->operation, (const char *const *)request->paths, request->path_count, err) &&
        request->has_rate)
        rp_engine_set_merge_options(engine, &options);
}

// Who asked for it hears that the pause is over. Whoever has left so many answers unread that there is no room for this line is not
// waited for: the guest's flushes wait for what comes next. He is hung up on, and asks again.
struct interim {
    const struct connection *connection;
    const struct rp_control_request *request;
};
static void tell_switched(void *context)
{
    const struct interim *interim = context;
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    rp_control_format_switched(interim->request, &line);
    if (send(interim->connection->fd, line.data, line.size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)line.size)
        shutdown(interim->connection->fd, SHUT_RDWR);
}

static void answer(const struct connection *connection, const struct rp_control_request *request, struct rp_control_reply *reply)
{
    struct rp_server *server = connection->server;
    struct interim interim = {connection, request};
    struct rp_engine *engine = server->engine;
    struct rp_error *err = &reply->error;
    switch (request->verb) {
    case RP_CONTROL_INFO:
        fill_info(engine, &reply->info);
        break;
    case RP_CONTROL_CHECKPOINT:
        rp_engine_checkpoint_tell(engine, &request->operation, request->tell_switched ? tell_switched : NULL, &interim,
                                  &reply->checkpoint, err);
        break;
    case RP_CONTROL_MERGE:
        answer_merge(engine, request, err);
        break;
    case RP_CONTROL_CHANGES:
        // One reply holds a bounded number of ranges and says how far it reaches; the client asks on from there.
        rp_engine_changes_page(engine, request->paths[0], &request->id, request->offset, request->length,
                               RP_CONTROL_MAX_RANGES, &reply->changed, &reply->processed, err);
        break;
    case RP_CONTROL_FLUSH:
        for (size_t i = 0; i < rp_engine_disk_count(engine) && !err->code; i++)
            rp_engine_flush(engine, i, err);
        break;
    case RP_CONTROL_GROW:
        answer_grow(server, request, err);
        break;
    }
}

static int send_answer(struct connection *c, const struct rp_buf *out)
{
    atomic_store(&c->sending, rp_clock_monotonic_ns());
    int failed = rp_socket_write(c->fd, out->data, out->size, NULL);
    atomic_store(&c->sending, 0);
    return failed;
}

static void *serve(void *argument)
{
    struct connection *connection = argument;
    RP_CLEANUP(rp_buf_clear) struct rp_buf rest = {0}, line = {0}, out = {0};
    RP_AUTO_FREE struct rp_control_reply *reply = rp_xcalloc(1, sizeof *reply);
    struct rp_error err = {0};
    int got;
    while ((got = rp_socket_read_line(connection->fd, RP_CONTROL_MAX_REQUEST, &rest, &line, &err)) == 1) {
        struct rp_control_request request;
        struct rp_error refusal = {0};
        rp_buf_reset(&out);
        if (rp_control_parse_request((const char *)line.data, line.size, &request, &refusal)) {
            rp_control_format_refusal(&refusal, &out);
        } else {
            answer(connection, &request, reply);
            rp_control_format_reply(&request, reply, &out);
            rp_control_reply_clear(reply);
            rp_control_request_clear(&request);
        }
        if (send_answer(connection, &out))
            break;
    }
    if (got < 0 && err.code == RP_ERR_INVALID) { // too long: where the next one starts is unknown
        rp_buf_reset(&out);
        rp_control_format_refusal(&err, &out);
        send_answer(connection, &out);
    }
    shutdown(connection->fd, SHUT_RDWR);
    pthread_mutex_lock(&connection->server->lock);
    connection->ended = true;
    pthread_mutex_unlock(&connection->server->lock);
    return NULL;
}

// Joins connections that have ended, and finds a free place. The lock is held.
static struct connection *free_place(struct rp_server *server)
{
    struct connection *place = NULL;
    for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
        struct connection *c = &server->connections[i];
        if (c->used && c->ended) {
            pthread_join(c->thread, NULL);
            close(c->fd);
            *c = (struct connection){0};
        }
        if (!c->used)
            place = c;
    }
    return place;
}

static void accept_one(struct rp_server *server)
{
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) { // out of descriptors: poll would report the same caller at once
        usleep(10000);
        return;
    }
    pthread_mutex_lock(&server->lock);
    struct connection *place = free_place(server);
    if (place) {
        *place = (struct connection){.server = server, .fd = fd, .used = true};
        if (pthread_create(&place->thread, NULL, serve, place)) {
            *place = (struct connection){0};
            place = NULL;
        }
    }
    pthread_mutex_unlock(&server->lock);
    if (!place)
        close(fd);
}

static void *listen_thread(void *argument)
{
    struct rp_server *server = argument;
    struct pollfd fds[2] = {{.fd = server->listener, .events = POLLIN}, {.fd = server->stop, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue; // EINTR
        if (fds[1].revents)
            return NULL;
        if (fds[0].revents)
            accept_one(server);
    }
}

struct rp_server *rp_server_start(struct rp_engine *engine, const char *vm_directory, struct rp_server_clients *clients,
                                  struct rp_error *err)
{
    struct rp_server *server = rp_xcalloc(1, sizeof *server);
    *server = (struct rp_server){.engine = engine, .clients = clients, .path = rp_path_join(vm_directory, RP_CONTROL_SOCKET), .stop = -1};
    pthread_mutex_init(&server->lock, NULL);
    server->listener = rp_socket_listen(server->path, err);
    if (server->listener < 0)
        goto failed;
    server->stop = eventfd(0, EFD_CLOEXEC);
    int sys = server->stop < 0 ? errno : pthread_create(&server->thread, NULL, listen_thread, server);
    if (!sys)
        return server;
    rp_fail_sys(err, sys, "%s: serve", server->path);
    close(server->listener);
    unlink(server->path);
    if (server->stop >= 0)
        close(server->stop);
failed:
    pthread_mutex_destroy(&server->lock);
    free(server->path);
    free(server);
    return NULL;
}

static bool has_ended(struct connection *c)
{
    pthread_mutex_lock(&c->server->lock);
    bool ended = c->ended;
    pthread_mutex_unlock(&c->server->lock);
    return ended;
}

void rp_server_stop(struct rp_server *server)
{
    if (!server)
        return;
    unlink(server->path);
    if (write(server->stop, &(uint64_t){1}, sizeof(uint64_t)) < 0)
        rp_log(RP_LOG_ERROR, "%s: stop", server->path);
    pthread_join(server->thread, NULL);
    for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
        struct connection *c = &server->connections[i];
        if (!c->used)
            continue;
        shutdown(c->fd, SHUT_RD); // what is being answered is answered
        while (!has_ended(c)) {
            uint64_t since = atomic_load(&c->sending);
            if (since && rp_clock_monotonic_ns() - since > PATIENCE_MS * 1000000ull)
                shutdown(c->fd, SHUT_RDWR);
            usleep(1000);
        }
        pthread_join(c->thread, NULL);
        close(c->fd);
    }
    close(server->listener);
    close(server->stop);
    pthread_mutex_destroy(&server->lock);
    free(server->path);
    free(server);
}
