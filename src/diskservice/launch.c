// Starting and stopping the disk service: nbdkit with our plugin, as a daemon.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "diskservice/engine.h"
#include "diskservice/service.h"
#include "diskservice/socket.h"

#define PLUGIN "nbdkit-refpoint-plugin.so"
enum { DYING_SECONDS = 5, START_SECONDS = 60, STOP_SECONDS = 300, LOG_TAIL = 4096 };
enum { TURN_SECONDS = DYING_SECONDS + START_SECONDS + STOP_SECONDS };

static char *find_plugin(struct rp_error *err)
{
    const char *chosen = getenv("REFPOINT_PLUGIN");
    if (chosen && *chosen)
        return rp_xstrdup(chosen);
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = 0;
        RP_AUTO_FREE char *folder = rp_path_directory(self);
        // Beside the program; in the build tree from src/<part>, tests/<part> and the like; installed.
        static const char *const places[] = {"/" PLUGIN, "/../diskservice/" PLUGIN, "/../../src/diskservice/" PLUGIN};
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            char *path = rp_xasprintf("%s%s", folder, places[i]);
            if (!access(path, R_OK))
                return path;
            free(path);
        }
    }
    if (!access(RP_PLUGIN_DIR "/" PLUGIN, R_OK))
        return rp_xstrdup(RP_PLUGIN_DIR "/" PLUGIN);
    rp_fail(err, RP_ERR_NOT_FOUND, "%s: neither beside the program nor in %s; set REFPOINT_PLUGIN", PLUGIN, RP_PLUGIN_DIR);
    return NULL;
}

// Between the look whether a service runs and its start, nobody else may start one, and while one is being ended nobody takes
// it for one that serves: a lock on the folder itself.
static int lock_folder(const char *directory, struct rp_error *err)
{
    uint64_t deadline = rp_clock_monotonic_ns() + TURN_SECONDS * 1000000000ull;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return rp_fail_sys(err, errno, "%s", directory);
    for (; flock(fd, LOCK_EX | LOCK_NB); usleep(5000)) {
        if (errno == EINTR || (errno == EWOULDBLOCK && rp_clock_monotonic_ns() < deadline))
            continue;
        if (errno == EWOULDBLOCK)
            rp_fail(err, RP_ERR_BUSY, "the disk service of %s: another process has been starting or ending it for %d s", directory,
                    TURN_SECONDS);
        else
            rp_fail_sys(err, errno, "%s: lock", directory);
        close(fd);
        return -1;
    }
    return fd;
}

static int check_free(const char *directory, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(directory, RP_ENGINE_LOCK);
    struct rp_fs *fs = rp_fs_posix();
    bool exists;
    if (rp_fs_exists(fs, path, &exists, err))
        return -1;
    if (!exists)
        return 0;
    RP_CLEANUP(rp_store_close_p) struct rp_store *lock = rp_fs_open(fs, path, RP_OPEN_WRITE, err);
    return !lock || rp_store_lock(lock, true, err) ? -1 : 0;
}

// Any line gets an answer, an empty one that it is no request. From a process that was killed there is none, though its socket
// may still take connections.
static bool is_served(const char *control)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf rest = {0}, line = {0};
    RP_AUTO_FD int fd = rp_socket_connect(control, NULL);
    struct timeval patience = {.tv_sec = DYING_SECONDS};
    return fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) && !rp_socket_write(fd, "\n", 1, NULL) &&
           rp_socket_read_line(fd, 65536, &rest, &line, NULL) == 1;
}

// BUSY when somebody has the disks open. The kernel takes its time to end a process that was killed, and to let go of its locks.
static int wait_until_free(const char *directory, const char *control, struct rp_error *err)
{
    uint64_t deadline = rp_clock_monotonic_ns() + DYING_SECONDS * 1000000000ull;
    for (;; usleep(5000)) {
        struct rp_error why = {0};
        if (!check_free(directory, &why))
            return 0;
        if (why.code != RP_ERR_BUSY || rp_clock_monotonic_ns() > deadline || is_served(control))
            return rp_fail_as(err, &why);
    }
}

// Without LISTEN_FDS and its like: nbdkit would take inherited sockets for NBD sockets.
static char **service_environment(void)
{
    size_t count = 0, kept = 0;
    while (environ[count])
        count++;
    char **copy = rp_xcalloc(count + 1, sizeof *copy);
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "LISTEN_", 7))
            copy[kept++] = environ[i];
    return copy;
}

// In the forked child of a program that may have threads: system calls only.
static _Noreturn void run(char *const argv[], char *const environment[], int log, pid_t parent)
{
    setsid();
    // nbdkit asks to be terminated when its parent dies (PR_SET_PDEATHSIG, also without --exit-with-parent). The one
    // between dies at once: nbdkit must not start before.
    while (getppid() == parent)
        poll(NULL, 0, 1);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    close_range(3, ~0u, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvpe(argv[0], argv, environment);
    static const char text[] = "cannot run nbdkit: is it installed?\n";
    ssize_t n = write(2, text, sizeof text - 1);
    _exit(n > 0 ? 127 : 126);
}

// Forks twice, so that the service is nobody's child. Returns a pidfd of it.
static int spawn(char *const argv[], int log, struct rp_error *err)
{
    int report[2];
    pid_t service = -1;
    RP_AUTO_FREE char **environment = service_environment();
    if (pipe2(report, O_CLOEXEC))
        return rp_fail_sys(err, errno, "start the disk service");
    pid_t child = fork();
    if (child == 0) {
        pid_t self = getpid();
        service = fork();
        if (service == 0)
            run(argv, environment, log, self);
        ssize_t n = write(report[1], &service, sizeof service);
        _exit(n != sizeof service);
    }
    int sys = errno;
    close(report[1]);
    if (child > 0) {
        sys = EAGAIN;
        if (read(report[0], &service, sizeof service) != sizeof service)
            service = -1;
        waitpid(child, NULL, 0);
    }
    close(report[0]);
    int fd = service > 0 ? (int)syscall(SYS_pidfd_open, service, 0) : -1;
    if (fd < 0)
        return rp_fail_sys(err, service > 0 ? errno : sys, "start the disk service");
    return fd;
}

static bool has_ended(int pidfd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms) > 0;
}

// The last line of the log, for the error message.
static int fail_with_log(const char *directory, const char *log_path, off_t from, struct rp_error *err)
{
    char text[LOG_TAIL + 1] = "";
    RP_AUTO_FD int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t start = end - from > LOG_TAIL ? end - LOG_TAIL : from;
    ssize_t n = fd >= 0 ? pread(fd, text, LOG_TAIL, start) : 0;
    if (n > 0)
        text[n] = 0;
    for (size_t size = strlen(text); size && text[size - 1] == '\n'; size--)
        text[size - 1] = 0;
    const char *line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    return rp_fail(err, RP_ERR_IO, "the disk service of %s did not start: %s (see %s)", directory,
                   *line ? line : "it left no message", log_path);
}

static int wait_until_up(const char *directory, const char *control, const char *nbd, int pidfd, const char *log_path,
                         off_t log_start, struct rp_error *err)
{
    uint64_t deadline = rp_clock_monotonic_ns() + START_SECONDS * 1000000000ull;
    while (!has_ended(pidfd, 5)) {
        struct stat st;
        int fd = rp_socket_connect(control, NULL);
        if (fd >= 0)
            close(fd);
        // The plugin opens its socket last, when nbdkit already listens on the other.
        if (fd >= 0 && !stat(nbd, &st))
            return 0;
        if (rp_clock_monotonic_ns() > deadline) {
            syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
            return rp_fail(err, RP_ERR_IO, "the disk service of %s did not answer within %d s (see %s)", directory, START_SECONDS, log_path);
        }
    }
    return fail_with_log(directory, log_path, log_start, err);
}

int rp_service_start(const char *vm_directory, struct rp_error *err)
{
    RP_AUTO_FREE char *directory = realpath(vm_directory, NULL);
    if (!directory)
        return rp_fail_sys(err, errno, "%s", vm_directory);
    RP_AUTO_FREE char *plugin = find_plugin(err);
    if (!plugin)
        return -1;
    RP_AUTO_FREE char *control = rp_path_join(directory, RP_CONTROL_SOCKET), *nbd = rp_path_join(directory, RP_NBD_SOCKET),
                      *log_path = rp_path_join(directory, "service.log"), *vm = rp_xasprintf("vm=%s", directory);
    if (strlen(control) >= sizeof ((struct sockaddr_un *)0)->sun_path)
        return rp_fail(err, RP_ERR_INVALID, "%s: too long for the path of a socket; use a shorter folder", control);
    RP_AUTO_FD int folder = lock_folder(directory, err);
    if (folder < 0 || wait_until_free(directory, control, err))
        return -1;
    // Left by a crash: nobody has the disks. nbdkit does not start where a socket stands.
    unlink(control);
    unlink(nbd);
    RP_AUTO_FD int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return rp_fail_sys(err, errno, "%s", log_path);
    off_t log_start = lseek(log, 0, SEEK_END);
    char *argv[] = {"nbdkit", "--foreground", "--unix", nbd, plugin, vm, NULL};
    RP_AUTO_FD int pidfd = spawn(argv, log, err);
    if (pidfd < 0)
        return -1;
    return wait_until_up(directory, control, nbd, pidfd, log_path, log_start, err);
}

static int check_closed(const char *directory, struct rp_error *err)
{
    if (rp_engine_ended(rp_fs_posix(), directory))
        return 0;
    return rp_fail(err, RP_ERR_IO, "the disk service of %s ended before it had closed its disks; the next one to open them brings in "
                                   "what it left (see service.log there)", directory);
}

bool rp_service_answers(const char *vm_directory)
{
    RP_AUTO_FREE char *control = rp_path_join(vm_directory, RP_CONTROL_SOCKET);
    RP_AUTO_FD int folder = lock_folder(vm_directory, NULL);
    return folder >= 0 && is_served(control);
}

// One that ends in order says nothing on its socket any more long before it has closed its disks.
bool rp_service_was_killed(const char *vm_directory)
{
    RP_AUTO_FREE char *control = rp_path_join(vm_directory, RP_CONTROL_SOCKET);
    RP_AUTO_FD int folder = lock_folder(vm_directory, NULL);
    return folder >= 0 && !wait_until_free(vm_directory, control, NULL) && rp_engine_left_behind(rp_fs_posix(), vm_directory);
}

// The kernel names who listens on the socket. Its number is its own for as long as the connection is: a process that has ended
// has closed its sockets before another one can be given its number.
int rp_service_process(const char *vm_directory, struct rp_error *err)
{
    RP_AUTO_FREE char *control = rp_path_join(vm_directory, RP_CONTROL_SOCKET);
    RP_AUTO_FD int fd = rp_socket_connect(control, err);
    if (fd < 0)
        return -1;
    struct ucred peer;
    socklen_t size = sizeof peer;
    struct pollfd hung_up = {.fd = fd};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size))
        return rp_fail_sys(err, errno, "%s", control);
    int pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    if (pidfd < 0 && errno != ESRCH)
        return rp_fail_sys(err, errno, "%s: who listens there", control);
    if (pidfd >= 0 && !poll(&hung_up, 1, 0))
        return pidfd;
    if (pidfd >= 0)
        close(pidfd);
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: who listened there has ended", control);
}

// Under the folder's lock.
static int end(const char *directory, int process, struct rp_error *err)
{
    if (syscall(SYS_pidfd_send_signal, process, SIGTERM, NULL, 0) && errno != ESRCH)
        return rp_fail_sys(err, errno, "stop the disk service of %s", directory);
    if (!has_ended(process, STOP_SECONDS * 1000))
        return rp_fail(err, RP_ERR_BUSY, "the disk service of %s did not end within %d s", directory, STOP_SECONDS);
    struct rp_error why = {0}, taken = {0};
    if (!check_closed(directory, &why) || (check_free(directory, &taken) && taken.code == RP_ERR_BUSY)) // somebody else has them by now
        return 0;
    return rp_fail_as(err, &why);
}

int rp_service_end(const char *vm_directory, int process, struct rp_error *err)
{
    RP_AUTO_FD int folder = lock_folder(vm_directory, err);
    return folder < 0 ? -1 : end(vm_directory, process, err);
}

int rp_service_stop(const char *vm_directory, struct rp_error *err)
{
    struct rp_error why = {0};
    RP_AUTO_FD int folder = lock_folder(vm_directory, &why);
    RP_AUTO_FD int process = folder >= 0 ? rp_service_process(vm_directory, &why) : -1;
    if (process >= 0)
        return end(vm_directory, process, err);
    return why.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &why);
}
