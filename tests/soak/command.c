#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ll + t.tv_nsec / 1000;
}

bool command_kill(struct log *log, int pidfd)
{
    struct pollfd fd = {.fd = pidfd, .events = POLLIN};
    log_lock_names(log);
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0); // never to another process that has its number now
    bool ended = poll(&fd, 1, 120000) > 0;
    log_unlock_names(log);
    return ended;
}

// The output ends when the program does: what it leaves running has given both streams away.
static void collect(struct command *c, int fd, int pidfd)
{
    size_t size = 0;
    long long start = now_us(), deadline = start + c->deadline_s * 1000000ll, shot = c->kill_after_us ? start + c->kill_after_us : deadline;
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    for (bool ended = false; !ended;) {
        long long now = now_us(), until = shot < deadline ? shot : deadline;
        struct timespec wait = {.tv_sec = until > now ? (until - now) / 1000000 : 0, .tv_nsec = until > now ? (until - now) % 1000000 * 1000 : 0};
        ppoll(fds, 2, &wait, NULL);
        ended = fds[1].revents;
        for (ssize_t n; fds[0].revents && (n = read(fd, c->output + size, sizeof c->output - 1 - size)) > 0;)
            size += (size_t)n;
        if (size == sizeof c->output - 1)
            fds[0].fd = -1;
        now = now_us();
        if (!ended && now >= shot && shot < deadline) {
            command_kill(c->log, pidfd);
            shot = deadline;
        }
        if (!ended && now >= deadline) {
            kill(c->pid, SIGKILL);
            c->status = -2;
            break;
        }
    }
    c->output[size] = 0;
}

void command_run(struct command *c, char *const argv[])
{
    int pipe_fds[2], status;
    c->output[0] = 0;
    c->status = -1;
    if (pipe2(pipe_fds, O_CLOEXEC))
        return;
    c->pid = fork();
    if (c->pid == 0) {
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(pipe_fds[1], 1);
        dup2(pipe_fds[1], 2);
        if (c->environment)
            execve(argv[0], argv, c->environment);
        else
            execv(argv[0], argv);
        _exit(127);
    }
    close(pipe_fds[1]);
    fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
    int pidfd = c->pid > 0 ? (int)syscall(SYS_pidfd_open, c->pid, 0) : -1;
    if (pidfd >= 0) {
        c->status = 0;
        collect(c, pipe_fds[0], pidfd);
        waitpid(c->pid, &status, 0);
        if (!c->status)
            c->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        close(pidfd);
    }
    close(pipe_fds[0]);
}
