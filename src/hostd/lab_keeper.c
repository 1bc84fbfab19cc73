// A process beside the lab that outlives it: when the lab is killed, it does what the lab would have done at its end.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostd/lab.h"

// It knows nothing that is in the lab's memory afterwards, only where things are. The lab's end is the end of the pipe;
// one that was in order says so before.
static _Noreturn void keep(int pipe, void (*clean)(void *context), void *context)
{
    char byte;
    ssize_t n;
    setsid(); // who kills the lab's process group does not mean this one
    RP_AUTO_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    while ((n = read(pipe, &byte, 1)) < 0 && errno == EINTR)
        continue;
    if (n == 0)
        clean(context);
    _exit(0);
}

int rp_lab_keeper_start(struct rp_lab_keeper *keeper, void (*clean)(void *context), void *context, struct rp_error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return rp_fail_sys(err, errno, "pipe");
    keeper->pid = fork();
    if (keeper->pid == 0) {
        close(ends[1]);
        keep(ends[0], clean, context);
    }
    close(ends[0]);
    keeper->pipe = ends[1];
    return keeper->pid < 0 ? rp_fail_sys(err, errno, "start a process") : 0;
}

void rp_lab_keeper_stop(struct rp_lab_keeper *keeper)
{
    if (keeper->pid <= 0)
        return;
    while (write(keeper->pipe, "x", 1) < 0 && errno == EINTR)
        continue;
    close(keeper->pipe);
    while (waitpid(keeper->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    keeper->pid = 0;
}
