#include "diskservice/socket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define PATIENCE_NS 10000000000ull
#define SEND_BUFFER (2 << 20)

static int address_of(const char *path, struct sockaddr_un *address, struct rp_error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path)
        return rp_fail(err, RP_ERR_INVALID, "%s: longer than the %zu bytes that a socket's path may have", path,
                       sizeof address->sun_path - 1);
    memcpy(address->sun_path, path, strlen(path));
    return 0;
}

int rp_socket_listen(const char *path, struct rp_error *err)
{
    struct sockaddr_un address;
    if (address_of(path, &address, err))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // On Linux the file gets the mode of the unbound socket: it is never open to others, not even for a moment.
    if (fd < 0 || fchmod(fd, 0600) || (unlink(path) && errno != ENOENT) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 16)) {
        rp_fail_sys(err, errno, "%s: listen", path);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

// Where the queue of those who wait is full (EAGAIN) it is tried again, but not for ever: a process that is stopped takes nobody.
static int try(int fd, const struct sockaddr_un *address)
{
    uint64_t deadline = rp_clock_monotonic_ns() + PATIENCE_NS;
    while (connect(fd, (const struct sockaddr *)address, sizeof *address)) {
        if ((errno != EAGAIN && errno != EINTR) || rp_clock_monotonic_ns() > deadline)
            return errno;
        usleep(2000);
    }
    return 0;
}

int rp_socket_connect(const char *path, struct rp_error *err)
{
    struct sockaddr_un address;
    if (address_of(path, &address, err))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int sys = fd < 0 ? errno : try(fd, &address);
    if (fd >= 0 && !sys && !fcntl(fd, F_SETFL, 0)) // reading and writing wait
        return fd;
    if (fd >= 0)
        close(fd);
    if (sys == ECONNREFUSED || sys == ENOENT || sys == ENOTDIR)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: nobody listens there", path);
    if (sys == EAGAIN)
        return rp_fail(err, RP_ERR_BUSY, "%s: who listens there takes no connection", path);
    return rp_fail_sys(err, sys, "%s: connect", path);
}

// Came in through that socket, and is not the one that listens there. Every open file of the process can be asked.
static bool came_in_by(int fd, const char *path)
{
    struct sockaddr_un name = {0};
    socklen_t size = sizeof name, length = sizeof(int);
    int listens = 1;
    return !getsockname(fd, (struct sockaddr *)&name, &size) && name.sun_family == AF_UNIX &&
           !strncmp(name.sun_path, path, sizeof name.sun_path) &&
           !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) && !listens;
}

static void each_that_came_in_by(const char *path, void (*action)(int fd))
{
    DIR *files = opendir("/proc/self/fd");
    for (struct dirent *entry; files && (entry = readdir(files));) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && came_in_by(fd, path))
            action(fd);
    }
    if (files)
        closedir(files);
}

// A number that is given to another file meanwhile does no harm: only sockets hear of it, and ours end as well.
static void hang_up(int fd) { shutdown(fd, SHUT_RD); }

void rp_socket_hang_up(const char *path) { each_that_came_in_by(path, hang_up); }

// Nor does this. Root may have more than net.core.wmem_max; the kernel doubles what it is told, and tells that.
static void widen(int fd)
{
    int size = SEND_BUFFER, has = 0;
    socklen_t length = sizeof has;
    if (!getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &has, &length) && has >= size)
        return;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

void rp_socket_widen(const char *path) { each_that_came_in_by(path, widen); }

int rp_socket_write(int fd, const void *data, size_t size, struct rp_error *err)
{
    const char *p = data;
    while (size) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rp_fail_sys(err, errno, "control socket: write");
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int rp_socket_read_line(int fd, size_t limit, struct rp_buf *rest, struct rp_buf *line, struct rp_error *err)
{
    size_t searched = 0;
    rp_buf_reset(line);
    for (;;) {
        const uint8_t *end = rest->size > searched ? memchr(rest->data + searched, '\n', rest->size - searched) : NULL;
        size_t size = end ? (size_t)(end - rest->data) : rest->size;
        if (size > limit)
            return rp_fail(err, RP_ERR_INVALID, "control message: longer than %zu bytes", limit);
        if (end) {
            rp_buf_append(line, rest->data, size);
            rest->size -= size + 1;
            memmove(rest->data, rest->data + size + 1, rest->size);
            return 1;
        }
        searched = rest->size;
        rp_buf_reserve(rest, rest->size + 65536);
        ssize_t n = recv(fd, rest->data + rest->size, 65536, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rp_fail_sys(err, errno, "control socket: read");
        if (n == 0)
            return 0;
        rest->size += (size_t)n;
    }
}
