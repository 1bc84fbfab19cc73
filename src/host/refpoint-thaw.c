// refpoint-thaw URI DOMAIN LIMIT-MS: the watchdog of a frozen guest (host/thaw_watch.h). Its standard input is the socket to
// whoever freezes the guest.
//
// It ends silently when all goes well. Signals that end a service or a terminal's programs do not end it: there is nobody
// behind it.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "host/hypervisor.h"
#include "host/thaw_watch.h"

enum {
    TRY_MS = 5000, AGENT_MS = 5000, FIRST_PAUSE_MS = 50, LONGEST_PAUSE_MS = 1000, DYING_MS = 10000, TOLD_EVERY_MS = 60000,
    LONGEST_LIMIT_MS = 3600000,
    ALIVE_MS = 25000, // what one try takes at most
    LATE_MS = 45000,  // until a freeze that has been asked for, by somebody who is gone, begins; then its own time
};

struct watchdog {
    const char *uri, *domain;
    unsigned limit_ms;
    struct rp_hypervisor *hv; // NULL: not connected
    uint64_t connected;       // when
    bool exclusive;           // while the other process lives, nobody else can be connected
    int process;              // pidfd of it; -1: nobody knows
    bool frozen;              // or about to be
    uint64_t late;            // until then the freeze may still happen, and a thaw of nothing is not the end
    uint64_t due;             // when the next line must be there; 0: no hurry
    char line[64];
    size_t size;
};

// To whoever started it, and to the system's log: it may outlive the one, and the other may not be there.
static void tell(enum rp_log_level level, const char *text)
{
    fprintf(stderr, "refpoint: %s\n", text);
    syslog(level == RP_LOG_ERROR ? LOG_ERR : LOG_WARNING, "%s", text);
}

// Whoever reads what the program said, which has ended, is not kept waiting.
static void let_go_of_messages(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0)
        dup2(null, 2);
}

static uint64_t now_ms(void) { return rp_clock_monotonic_ns() / 1000000; }

// One line of the other process; false: all is well.
static bool take_line(struct watchdog *w, const char *line)
{
    if (!strcmp(line, "thawed"))
        return false;
    if (!strcmp(line, "frozen")) {
        w->frozen = true;
        w->due = now_ms() + w->limit_ms + RP_THAW_GRACE_MS;
    } else if (!strncmp(line, "alive ", 6)) {
        uint64_t ms = rp_min64(strtoul(line + 6, NULL, 10), LONGEST_LIMIT_MS), now = now_ms() + RP_THAW_GRACE_MS;
        if (w->exclusive && ms < ALIVE_MS) // who tries is not killed: nobody could do it better
            ms = ALIVE_MS;
        w->due = ms || !w->due ? now + ms : rp_min64(w->due, now);
    }
    return true;
}

enum heard { THAWED, GONE, SILENT };

// Listens until it is thawed, the other side is gone, or `until` has passed (0: as the lines say).
static enum heard listen_to(struct watchdog *w, uint64_t until)
{
    for (;;) {
        uint64_t now = now_ms(), end = until ? until : w->due;
        if (end && now >= end)
            return SILENT;
        struct pollfd waiting = {.fd = 0, .events = POLLIN};
        if (poll(&waiting, 1, end ? (int)rp_min64(end - now, 1000) : -1) <= 0)
            continue;
        ssize_t n = recv(0, w->line + w->size, sizeof w->line - w->size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return GONE;
        w->size += (size_t)n;
        char *end_of_line;
        while ((end_of_line = memchr(w->line, '\n', w->size))) {
            *end_of_line = '\0';
            if (!take_line(w, w->line))
                return THAWED;
            w->size -= (size_t)(end_of_line + 1 - w->line);
            memmove(w->line, end_of_line + 1, w->size);
        }
        if (w->size == sizeof w->line)
            w->size = 0;
    }
}

// The process that made the socket, which lives as long as the socket has another end.
static int process_of_socket(void)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(0, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.pid <= 0)
        return -1;
    int fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    struct pollfd other = {.fd = 0};
    if (fd >= 0 && (poll(&other, 1, 0) < 0 || other.revents & POLLHUP)) { // its number may be somebody else's by now
        close(fd);
        return -1;
    }
    return fd;
}

static void kill_process(const struct watchdog *w)
{
    struct pollfd dying = {.fd = w->process, .events = POLLIN};
    if (w->process < 0)
        return;
    rp_log(RP_LOG_ERROR, "domain %s is frozen and the process that froze it does not thaw it, nor can anybody else while it lives: "
           "killing it", w->domain);
    syscall(SYS_pidfd_send_signal, w->process, SIGKILL, NULL, 0);
    poll(&dying, 1, DYING_MS);
}

static void disconnect(struct watchdog *w)
{
    rp_hypervisor_close(w->hv);
    w->hv = NULL;
}

// Whether it is certain that nothing is frozen any more.
static bool thaw_once(struct watchdog *w, struct rp_error *why)
{
    enum rp_domain_state state;
    unsigned count = 0;
    if (!w->hv) {
        w->hv = rp_hypervisor_open(w->uri, why);
        w->connected = now_ms();
    }
    if (!w->hv)
        return false;
    const struct rp_hypervisor_ops *ops = rp_hypervisor_ops();
    if (!ops->thaw(w->hv, w->domain, TRY_MS, &count, why)) {
        if (count)
            rp_log(RP_LOG_WARNING, "domain %s: its guest was left frozen and has been thawed", w->domain);
        if (count || now_ms() > w->late)
            return true;
    }
    struct rp_error unknown = {0};
    if (ops->state(w->hv, w->domain, &state, &unknown))
        return unknown.code == RP_ERR_NOT_FOUND;
    // Also after a thaw of nothing: what is frozen after a later start is not ours.
    return state == RP_DOMAIN_OFF || state == RP_DOMAIN_CRASHED;
}

// Until it is. While the other process lives, it may still be the one that says so.
static void thaw(struct watchdog *w, enum heard heard)
{
    uint64_t began = now_ms(), told = 0, pause = FIRST_PAUSE_MS;
    struct rp_error why = {0};
    w->late = began + w->limit_ms + LATE_MS;
    while (!thaw_once(w, &why)) {
        if (why.code == RP_OK)
            told = now_ms(); // it is not frozen yet
        else if (!told || now_ms() - told > TOLD_EVERY_MS) {
            rp_log(RP_LOG_ERROR, "domain %s: its guest was left frozen and cannot be thawed yet: %s", w->domain, why.text);
            told = now_ms();
        }
        // Anew: the connection may be what is broken, and others need it. Not at once when it is the agent that is not there:
        // libvirt finds it some time after a connection has been opened.
        if (why.code != RP_OK && (why.code != RP_ERR_UNSUPPORTED || now_ms() - w->connected > AGENT_MS))
            disconnect(w);
        rp_error_clear(&why);
        if (now_ms() - began > AGENT_MS)
            let_go_of_messages();
        if (heard == GONE)
            usleep((useconds_t)pause * 1000);
        else if ((heard = listen_to(w, now_ms() + pause)) == THAWED)
            return;
        pause = rp_min64(2 * pause, LONGEST_PAUSE_MS);
    }
    disconnect(w);
}

static void say(const char *text)
{
    while (send(0, text, strlen(text), MSG_NOSIGNAL) < 0 && errno == EINTR)
        continue;
}

static int connect_now(struct watchdog *w)
{
    struct rp_error err = {0};
    if (w->exclusive || (w->hv = rp_hypervisor_open(w->uri, &err)))
        return 0;
    for (char *p = err.text; *p; p++)
        if (*p == '\n')
            *p = ' ';
    char line[RP_ERROR_TEXT + 16];
    snprintf(line, sizeof line, "failed %s\n", err.text);
    say(line);
    return -1;
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
    unsigned long limit = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    if (!limit || limit > LONGEST_LIMIT_MS) {
        fprintf(stderr, "usage: refpoint-thaw URI DOMAIN LIMIT-MS (started by refpoint, not by people)\n");
        return 2;
    }
    openlog("refpoint-thaw", LOG_PID, LOG_DAEMON);
    rp_log_set_sink(tell);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_IGN);
    struct watchdog w = {.uri = argv[1], .domain = argv[2], .limit_ms = (unsigned)limit, .exclusive = strstr(argv[1], "/embed") != NULL};
    w.process = process_of_socket();
    if (connect_now(&w))
        return 1;
    say("ready\n");
    enum heard heard = listen_to(&w, 0);
    if (heard == THAWED || !w.frozen)
        return 0;
    if (heard == SILENT && w.exclusive) {
        kill_process(&w);
        heard = GONE;
    }
    thaw(&w, heard);
    return 0;
}
