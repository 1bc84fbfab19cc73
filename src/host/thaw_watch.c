#include "host/thaw_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define PROGRAM "refpoint-thaw"
enum { READY_MS = 20000 };

struct rp_thaw_watch {
    int fd;
};

static char *find_program(struct rp_error *err)
{
    const char *chosen = getenv("REFPOINT_THAW");
    if (chosen && *chosen)
        return rp_xstrdup(chosen);
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    // Beside the program; in the build tree from src/<part> and from tests/<part>.
    static const char *const places[] = {"/" PROGRAM, "/../host/" PROGRAM, "/../../src/host/" PROGRAM};
    for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
        char *path = rp_xasprintf("%.*s%s", (int)(slash - self), self, places[i]);
        if (!access(path, X_OK))
            return path;
        free(path);
    }
    if (!access(RP_LIBEXEC_DIR "/" PROGRAM, X_OK))
        return rp_xstrdup(RP_LIBEXEC_DIR "/" PROGRAM);
    rp_fail(err, RP_ERR_UNSUPPORTED, "%s, without which no guest is frozen, is neither beside the program nor in %s; set REFPOINT_THAW",
            PROGRAM, RP_LIBEXEC_DIR);
    return NULL;
}

// In the forked child of a program that may have threads: system calls only. A session of its own: neither Ctrl-C nor a signal
// to the group of whoever froze the guest reaches it.
static _Noreturn void run(char *const argv[], int fd)
{
    setsid();
    int null = open("/dev/null", O_RDWR);
    dup2(fd, 0);
    dup2(null, 1); // messages go where those of the program go
    close_range(3, ~0u, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(argv[0], argv);
    static const char text[] = "failed it cannot be executed\n";
    ssize_t n = send(0, text, sizeof text - 1, MSG_NOSIGNAL);
    _exit(n > 0 ? 127 : 126);
}

// Forks twice, so that it is nobody's child.
static int spawn(char *const argv[], int fd, struct rp_error *err)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        pid_t watchdog = fork();
        if (watchdog == 0)
            run(argv, fd);
        _exit(watchdog < 0);
    }
    int sys = child < 0 ? errno : EAGAIN;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return child < 0 || status ? rp_fail_sys(err, sys, "start %s", argv[0]) : 0;
}

// The first line that it says.
static int wait_ready(int fd, const char *program, struct rp_error *err)
{
    char line[RP_ERROR_TEXT] = "";
    size_t size = 0;
    uint64_t deadline = rp_clock_monotonic_ns() + READY_MS * 1000000ull;
    while (size < sizeof line - 1 && !memchr(line, '\n', size)) {
        uint64_t now = rp_clock_monotonic_ns();
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        int ready = now < deadline ? poll(&waiting, 1, (int)((deadline - now) / 1000000) + 1) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t n = ready > 0 ? recv(fd, line + size, sizeof line - 1 - size, 0) : -1;
        if (n <= 0)
            return rp_fail(err, RP_ERR_IO, "%s %s", program, ready > 0 ? "ended before it was ready" : "does not get ready");
        size += (size_t)n;
    }
    line[strcspn(line, "\n")] = '\0';
    if (!strcmp(line, "ready"))
        return 0;
    return rp_fail(err, RP_ERR_IO, "%s: %s", program, strncmp(line, "failed ", 7) ? "does not answer as it should" : line + 7);
}

struct rp_thaw_watch *rp_thaw_watch_start(const char *uri, const char *domain, unsigned limit_ms, struct rp_error *err)
{
    RP_AUTO_FREE char *program = find_program(err), *limit = rp_xasprintf("%u", limit_ms);
    int ends[2];
    if (!program)
        return NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
        rp_fail_sys(err, errno, "start %s", program);
        return NULL;
    }
    char *argv[] = {program, (char *)uri, (char *)domain, limit, NULL};
    int failed = spawn(argv, ends[1], err);
    close(ends[1]);
    if (failed || wait_ready(ends[0], program, err)) {
        close(ends[0]);
        return NULL;
    }
    struct rp_thaw_watch *watch = rp_xcalloc(1, sizeof *watch);
    watch->fd = ends[0];
    return watch;
}

// A watchdog that was killed hears nothing: the thaw of whoever froze the guest is what there is then.
static void say(const struct rp_thaw_watch *watch, const char *line)
{
    while (send(watch->fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR)
        continue;
}

void rp_thaw_watch_frozen(struct rp_thaw_watch *watch) { say(watch, "frozen\n"); }

void rp_thaw_watch_alive(struct rp_thaw_watch *watch, unsigned ms)
{
    char line[32];
    snprintf(line, sizeof line, "alive %u\n", ms);
    say(watch, line);
}

void rp_thaw_watch_end(struct rp_thaw_watch *watch, bool thawed)
{
    if (!watch)
        return;
    if (thawed)
        say(watch, "thawed\n");
    close(watch->fd);
    free(watch);
}
