// qemu-img, which knows qcow2: asked what an image is, and told to write one.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "host/adopt.h"

enum { ANSWER_MAX = 4 << 20, TICK_MS = 200, PATIENCE_MS = 60000 };

// Files that it inherits, under numbers that its arguments can name.
enum { FILES = 2, FIRST_FILE = 3 };
#define SOURCE_PATH "/proc/self/fd/3"
#define TARGET_PATH "/proc/self/fd/4"

struct tool {
    pid_t pid;
    int out, log; // what it says, and what it complains of
};

// In the forked child of a program that may have threads: system calls only.
static _Noreturn void become(const char *const argv[], const int *files, pid_t parent, int out, int log)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); // nobody would look at what it makes
    if (getppid() != parent)
        _exit(126);
    // First out of the way of those numbers, then there: a duplicate outlives the exec.
    int null = fcntl(open("/dev/null", O_RDONLY), F_DUPFD_CLOEXEC, FIRST_FILE + FILES), kept[FILES];
    out = fcntl(out, F_DUPFD_CLOEXEC, FIRST_FILE + FILES);
    log = fcntl(log, F_DUPFD_CLOEXEC, FIRST_FILE + FILES);
    for (int i = 0; files && i < FILES; i++)
        kept[i] = fcntl(files[i], F_DUPFD_CLOEXEC, FIRST_FILE + FILES);
    bool set = dup2(null, 0) == 0 && dup2(out, 1) == 1 && dup2(log, 2) == 2;
    for (int i = 0; files && i < FILES; i++)
        set = set && dup2(kept[i], FIRST_FILE + i) == FIRST_FILE + i;
    if (!set) // it would write to whatever else has that number
        _exit(126);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(argv[0], (char *const *)argv);
    _exit(errno == ENOENT ? 127 : 126);
}

static int start(const char *const argv[], const int *files, struct tool *tool, struct rp_error *err)
{
    int out[2], log[2];
    pid_t parent = getpid();
    if (pipe2(out, O_CLOEXEC))
        return rp_fail_sys(err, errno, "%s: start", argv[0]);
    if (pipe2(log, O_CLOEXEC)) {
        close(out[0]);
        close(out[1]);
        return rp_fail_sys(err, errno, "%s: start", argv[0]);
    }
    tool->pid = fork();
    if (tool->pid == 0)
        become(argv, files, parent, out[1], log[1]);
    close(out[1]);
    close(log[1]);
    tool->out = out[0];
    tool->log = log[0];
    if (tool->pid > 0)
        return 0;
    close(out[0]);
    close(log[0]);
    return rp_fail_sys(err, errno, "%s: start", argv[0]);
}

// Takes what there is. False: that was the end.
static bool take(int fd, short events, struct rp_buf *text)
{
    char part[16384];
    if (!events)
        return true;
    ssize_t n = read(fd, part, sizeof part);
    if (n > 0 && text->size < ANSWER_MAX)
        rp_buf_append(text, part, (size_t)n);
    return n > 0 || (n < 0 && errno == EINTR);
}

static int listen_to(const struct tool *tool, const char *name, rp_progress_fn *progress, void *context, bool hurry,
                     struct rp_buf *out, struct rp_buf *log, struct rp_error *err)
{
    uint64_t deadline = rp_clock_monotonic_ns() + (uint64_t)PATIENCE_MS * 1000000;
    struct pollfd fds[2] = {{.fd = tool->out, .events = POLLIN}, {.fd = tool->log, .events = POLLIN}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        if (progress && progress(context, 0, 0))
            return rp_fail(err, RP_ERR_CANCELLED, "%s: stopped", name);
        if (hurry && rp_clock_monotonic_ns() > deadline)
            return rp_fail(err, RP_ERR_BUSY, "%s: has not answered for %d s", name, PATIENCE_MS / 1000);
        if (poll(fds, 2, TICK_MS) < 0 && errno != EINTR)
            return rp_fail_sys(err, errno, "%s", name);
        if (fds[0].fd >= 0 && !take(tool->out, fds[0].revents, out))
            fds[0].fd = -1;
        if (fds[1].fd >= 0 && !take(tool->log, fds[1].revents, log))
            fds[1].fd = -1;
    }
    return 0;
}

// `files`: FILES of them, or NULL.
static int run(const char *const argv[], const int *files, bool hurry, rp_progress_fn *progress, void *context,
               struct rp_buf *out, struct rp_error *err)
{
    struct tool tool = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf log = {0};
    int status = 0;
    if (start(argv, files, &tool, err))
        return -1;
    int failed = listen_to(&tool, argv[0], progress, context, hurry, out, &log, err);
    if (failed)
        kill(tool.pid, SIGKILL);
    while (waitpid(tool.pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(tool.out);
    close(tool.log);
    if (failed)
        return -1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s is not installed: qcow2 images need it (Debian: qemu-utils)",
                       argv[0]);
    if (WIFEXITED(status) && !WEXITSTATUS(status))
        return 0;
    const char *text = rp_buf_text(&log);
    return rp_fail(err, strstr(text, strerror(ENOSPC)) ? RP_ERR_NO_SPACE : RP_ERR_IO, "%s: %.*s", argv[0],
                   (int)strcspn(text, "\n"),
                   *text ? text : WIFEXITED(status) ? "cannot be started" : "was killed");
}

// ---- what an image is -----------------------------------------------------------------------------------------------

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

// Why a file of the chain cannot be read for good; NULL: it can.
static char *judge_file(const json_t *file, bool top, bool last)
{
    const json_t *data = json_object_get(json_object_get(file, "format-specific"), "data");
    const char *path = text_of(file, "filename"), *format = text_of(file, "format");
    const json_t *snapshots = json_object_get(file, "snapshots");
    if (json_is_true(json_object_get(file, "encrypted")))
        return rp_xasprintf("%s is encrypted", path);
    if (json_is_true(json_object_get(data, "corrupt")) || json_is_true(json_object_get(file, "dirty-flag")))
        return rp_xasprintf("%s is damaged, or was not closed: qemu-img check repairs it", path);
    if (json_object_get(data, "data-file"))
        return rp_xasprintf("%s has its data in another file", path);
    if (top && json_array_size(snapshots))
        return rp_xasprintf(
            "has %zu internal snapshot%s (\"%s\"), which would be lost: delete them with qemu-img snapshot -d",
            json_array_size(snapshots), json_array_size(snapshots) == 1 ? "" : "s",
            text_of(json_array_get(snapshots, 0), "name"));
    if (strcmp(format, "qcow2") && (top || strcmp(format, "raw")))
        return rp_xasprintf("%s is of the format %s", path, format);
    if (last)
        return NULL;
    // As libvirt: a file whose format is guessed would let a guest choose what is read.
    if (!*text_of(file, "backing-filename-format"))
        return rp_xasprintf("%s does not say of which format the image behind it is", path);
    return NULL;
}

static char *judge(const json_t *chain, struct rp_adopt_qcow2 *image)
{
    char *reason = NULL;
    size_t count = json_array_size(chain);
    const json_t *top = json_array_get(chain, 0),
                 *data = json_object_get(json_object_get(top, "format-specific"), "data");
    for (size_t i = 0; !reason && i < count; i++) {
        const json_t *file = json_array_get(chain, i);
        reason = judge_file(file, i == 0, i + 1 == count);
        // No network, no json: pseudo-files.
        if (!reason && *text_of(file, "filename") != '/')
            reason = rp_xasprintf("the image behind it, %s, is no file of this machine", text_of(file, "filename"));
    }
    json_int_t size = json_integer_value(json_object_get(top, "virtual-size"));
    if (!reason && (size <= 0 || (uint64_t)size > RP_VHDX_MAX_SIZE))
        reason = rp_xasprintf("is empty, or larger than the 64 TiB of a VHDX");
    image->size = (uint64_t)size;
    image->files = (unsigned)count;
    image->cluster = (uint64_t)json_integer_value(json_object_get(top, "cluster-size"));
    image->bitmaps = json_array_size(json_object_get(data, "bitmaps")) > 0;
    snprintf(image->compat, sizeof image->compat, "%s", strcmp(text_of(data, "compat"), "0.10") ? "1.1" : "0.10");
    return reason;
}

json_t *rp_adopt_tool_ask(const char *const argv[], struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    if (run(argv, NULL, true, NULL, NULL, &out, err))
        return NULL;
    json_t *json = json_loadb(rp_buf_text(&out), out.size, 0, NULL);
    if (!json)
        rp_fail(err, RP_ERR_CORRUPT, "%s %s: an answer that is no JSON", argv[0], argv[1]);
    return json;
}

int rp_adopt_qcow2_inspect(const char *path, struct rp_adopt_qcow2 *image, char **reason, struct rp_error *err)
{
    const char *const info[] = {"qemu-img", "info", "--output=json", "--backing-chain", "-f", "qcow2", path, NULL};
    const char *const measure[] = {"qemu-img", "measure", "--output=json", "-f", "qcow2", "-O", "qcow2", path, NULL};
    struct rp_error why = {0};
    *image = (struct rp_adopt_qcow2){0};
    *reason = NULL;
    json_t *chain = rp_adopt_tool_ask(info, &why);
    if (!chain && why.code == RP_ERR_NOT_FOUND)
        return rp_fail_as(err, &why);
    if (!json_is_array(chain) || !json_array_size(chain))
        *reason = rp_xstrdup(chain ? "qemu-img does not know it" : why.text);
    else
        *reason = judge(chain, image);
    json_decref(chain);
    if (*reason)
        return 0;
    json_t *measured = rp_adopt_tool_ask(measure, NULL); // more or less: only the room that it takes depends on it
    image->data = (uint64_t)json_integer_value(json_object_get(measured, "required"));
    json_decref(measured);
    return 0;
}

int rp_adopt_qcow2_write(const char *vhdx, int fd, const char *target, const struct rp_adopt_qcow2 *like,
                         rp_progress_fn *progress, void *context, struct rp_error *err)
{
    RP_AUTO_FREE char *options = like && like->cluster ? rp_xasprintf("compat=%s,cluster_size=%llu", like->compat,
                                                                      (unsigned long long)like->cluster)
                                                       : rp_xstrdup("compat=1.1");
    const char *const argv[] = {"qemu-img", "convert", "-f", "vhdx", "-O", "qcow2", "-o", options, SOURCE_PATH,
                                TARGET_PATH, NULL};
    RP_CLEANUP(rp_buf_clear) struct rp_buf out = {0};
    RP_AUTO_FD int source = rp_adopt_open(vhdx, err);
    if (source < 0 || run(argv, (const int[FILES]){source, fd}, false, progress, context, &out, err))
        return rp_context(err, "%s", target);
    return 0;
}
