// Lines of the fault script, from a file and from the control socket.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "hostd/lab.h"
#include "io/fs.h"

enum { ANSWER_SECONDS = 10, MOST_LINE = 2048, MOST_CLIENTS = 16, MOST_FILE = 1 << 20 };

static const char *method_name(const char *name)
{
    for (size_t i = 0; rp_hostd_method_tables[i]; i++)
        for (const struct rp_hostd_method *method = rp_hostd_method_tables[i]; method->class_name; method++)
            if (!strcasecmp(method->name, name))
                return method->name;
    return NULL;
}

static int carry_out(struct rp_hostd *hostd, struct rp_lab_guests *guests, const struct rp_lab_line *line,
                     const char *text, struct rp_buf *answer, struct rp_error *err)
{
    switch (line->deed) {
    case RP_LAB_FAULT:
        return rp_lab_faults_add(hostd->script, &line->fault, text, err);
    case RP_LAB_LOSE:
        return rp_lab_faults_lose(hostd, line->fault.vm, line->fault.which, err);
    case RP_LAB_WRITE:
        return rp_lab_guests_write(guests, line->fault.vm, line->count, err);
    case RP_LAB_STOP:
    case RP_LAB_GO:
        rp_lab_guests_pause(guests, line->deed == RP_LAB_STOP);
        return 0;
    case RP_LAB_RELEASE:
        rp_lab_faults_release(hostd->script);
        return 0;
    case RP_LAB_FORGET:
        rp_lab_faults_forget(hostd->script);
        return 0;
    case RP_LAB_LIST:
        rp_buf_printf(answer, " ");
        rp_lab_faults_list(hostd->script, answer);
        return 0;
    default:
        return 0;
    }
}

int rp_lab_control_line(struct rp_hostd *hostd, struct rp_lab_guests *guests, const char *text, struct rp_buf *answer,
                        struct rp_error *err)
{
    struct rp_lab_line line;
    if (rp_lab_parse(text, method_name, &line, err))
        return -1;
    rp_buf_printf(answer, "ok");
    return carry_out(hostd, guests, &line, text, answer, err);
}

int rp_lab_control_file(struct rp_hostd *hostd, struct rp_lab_guests *guests, const char *path, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0}, answer = {0};
    if (rp_fs_read_file(rp_fs_posix(), path, MOST_FILE, &text, err))
        return -1;
    unsigned number = 0;
    for (char *rest = (char *)(uintptr_t)rp_buf_text(&text), *line; (line = strsep(&rest, "\n"));) {
        number++;
        if (rp_lab_control_line(hostd, guests, line, &answer, err))
            return rp_context(err, "%s: line %u", path, number);
    }
    return 0;
}

// ---- the socket -----------------------------------------------------------------------------------------------------

struct client {
    int fd;
    unsigned lines;
    struct rp_buf input;
};
struct rp_lab_control {
    struct rp_hostd *hostd;
    struct rp_lab_guests *guests;
    char *path;
    int listener, end[2];
    struct client clients[MOST_CLIENTS];
    size_t count;
    pthread_t thread;
};

static void drop_client(struct rp_lab_control *control, size_t i)
{
    close(control->clients[i].fd);
    rp_buf_clear(&control->clients[i].input);
    control->clients[i] = control->clients[--control->count];
}

// False: the client is gone.
static bool answer_line(struct rp_lab_control *control, struct client *client, const char *text)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf answer = {0};
    struct rp_error err = {0};
    client->lines++;
    if (rp_lab_control_line(control->hostd, control->guests, text, &answer, &err)) {
        rp_buf_reset(&answer);
        rp_buf_printf(&answer, "error: line %u: %s", client->lines, err.text);
    }
    rp_buf_printf(&answer, "\n");
    return send(client->fd, answer.data, answer.size, MSG_NOSIGNAL) == (ssize_t)answer.size;
}

static bool serve(struct rp_lab_control *control, struct client *client)
{
    char piece[1024];
    ssize_t n = recv(client->fd, piece, sizeof piece, 0);
    if (n <= 0)
        return false;
    rp_buf_append(&client->input, piece, (size_t)n);
    uint8_t *end;
    while (client->input.size && (end = memchr(client->input.data, '\n', client->input.size))) {
        size_t length = (size_t)(end - client->input.data);
        RP_AUTO_FREE char *line = rp_xasprintf("%.*s", (int)length, (char *)client->input.data);
        client->input.size -= length + 1;
        memmove(client->input.data, end + 1, client->input.size);
        if (!answer_line(control, client, line))
            return false;
    }
    return client->input.size <= MOST_LINE;
}

static void *run(void *argument)
{
    struct rp_lab_control *control = argument;
    const struct timeval patience = {.tv_sec = ANSWER_SECONDS}; // with who does not read his answer
    for (;;) {
        struct pollfd fds[MOST_CLIENTS + 2] = {{control->end[0], POLLIN, 0}, {control->listener, POLLIN, 0}};
        for (size_t i = 0; i < control->count; i++)
            fds[i + 2] = (struct pollfd){control->clients[i].fd, POLLIN, 0};
        if (poll(fds, control->count + 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (fds[0].revents)
            return NULL;
        for (size_t i = control->count; i-- > 0;)
            if (fds[i + 2].revents && !serve(control, &control->clients[i]))
                drop_client(control, i);
        int fd = fds[1].revents ? accept4(control->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0 && control->count == MOST_CLIENTS)
            close(fd);
        else if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience))
            control->clients[control->count++] = (struct client){.fd = fd};
    }
}

static int listen_at(const char *path, struct rp_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return rp_fail(err, RP_ERR_INVALID, "%s: too long for the path of a socket; use a shorter folder", path);
    strcpy(address.sun_path, path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int sys = fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(path, 0600) ||
              listen(fd, MOST_CLIENTS) ? errno : 0;
    if (!sys)
        return fd;
    if (fd >= 0)
        close(fd);
    return rp_fail_sys(err, sys, "%s: listen", path);
}

struct rp_lab_control *rp_lab_control_start(struct rp_hostd *hostd, struct rp_lab_guests *guests, const char *path,
                                            struct rp_error *err)
{
    int fd = listen_at(path, err);
    if (fd < 0)
        return NULL;
    struct rp_lab_control *control = rp_xcalloc(1, sizeof *control);
    *control = (struct rp_lab_control){.hostd = hostd, .guests = guests, .listener = fd, .end = {-1, -1}};
    control->path = rp_xstrdup(path);
    int sys = pipe2(control->end, O_CLOEXEC) ? errno : pthread_create(&control->thread, NULL, run, control);
    if (!sys)
        return control;
    rp_fail_sys(err, sys, "%s: serve", path);
    for (unsigned i = 0; i < 2; i++)
        if (control->end[i] >= 0)
            close(control->end[i]);
    close(fd);
    free(control->path);
    free(control);
    return NULL;
}

void rp_lab_control_stop(struct rp_lab_control *control)
{
    if (!control)
        return;
    close(control->end[1]);
    pthread_join(control->thread, NULL);
    while (control->count)
        drop_client(control, control->count - 1);
    close(control->end[0]);
    close(control->listener);
    unlink(control->path);
    free(control->path);
    free(control);
}
