// The repository, its passphrase, and the passwords of hosts.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/cli.h"
#include "io/fs.h"

#define PASSPHRASE_MAX 1024

struct rp_backend *rp_cli_open_backend(const struct rp_cli *cli, bool create, struct rp_error *err)
{
    if (!cli->repository) {
        rp_fail(err, RP_ERR_USAGE, "no repository named: use -r DIR or REFPOINT_REPOSITORY");
        return NULL;
    }
    return rp_backend_directory_open(cli->repository, create, err);
}

static char *from_environment; // the passphrase; malloc'ed

static const char *passphrase_file(const struct rp_cli *cli)
{
    const char *path = rp_cli_value(cli, "password-file");
    if (!path)
        path = getenv("REFPOINT_PASSWORD_FILE");
    return path && *path ? path : NULL;
}

static bool passphrase_given(const struct rp_cli *cli) { return passphrase_file(cli) || (from_environment && *from_environment); }

struct rp_repo *rp_cli_open_repo(const struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *backend = rp_cli_open_backend(cli, false, err);
    bool encrypted;
    if (!backend || rp_repo_is_encrypted(backend, &encrypted, err))
        return NULL;
    // Who gives a passphrase expects an encrypted repository: rp_repo_open refuses when somebody who can write to the folder
    // put one in the clear in its place, so that the next backup is not stored readable.
    bool wanted = encrypted || passphrase_given(cli);
    RP_CLEANUP(rp_cli_wipe) char *passphrase = wanted ? rp_cli_passphrase(cli, false, err) : NULL;
    if (wanted && !passphrase)
        return NULL;
    struct rp_backend *given = backend;
    backend = NULL; // taken over, also on failure
    return rp_repo_open(given, passphrase, NULL, err);
}

void rp_cli_wipe(char **passphrase)
{
    if (!*passphrase)
        return;
    explicit_bzero(*passphrase, strlen(*passphrase));
    free(*passphrase);
    *passphrase = NULL;
}

// The first line; a line end is not part of a passphrase.
static char *first_line(const char *text, size_t size, const char *source, const char *what, struct rp_error *err)
{
    size_t length = 0;
    while (length < size && text[length] != '\n' && text[length] != '\r')
        length++;
    if (!length)
        rp_fail(err, RP_ERR_INVALID, "%s: the %s is empty", source, what);
    else if (length > PASSPHRASE_MAX)
        rp_fail(err, RP_ERR_INVALID, "%s: the %s is longer than %d bytes", source, what, PASSPHRASE_MAX);
    else if (memchr(text, 0, length))
        rp_fail(err, RP_ERR_INVALID, "%s: the %s contains a zero byte", source, what);
    else
        return strndup(text, length);
    return NULL;
}

static char *from_file(const char *path, const char *what, struct rp_error *err)
{
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[PASSPHRASE_MAX + 2];
    ssize_t size = 0, n = 0;
    while (fd >= 0 && size < (ssize_t)sizeof text && (n = read(fd, text + size, sizeof text - (size_t)size)) > 0)
        size += n;
    if (fd < 0 || n < 0) {
        rp_fail_sys(err, errno, "%s: read the %s", path, what);
        return NULL;
    }
    char *line = first_line(text, (size_t)size, path, what, err);
    explicit_bzero(text, sizeof text);
    return line;
}

static int read_hidden(int tty, const char *prompt, char *line, size_t size, struct rp_error *err)
{
    struct termios old, hidden;
    if (tcgetattr(tty, &old))
        return rp_fail_sys(err, errno, "terminal");
    hidden = old;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    hidden.c_lflag |= ECHONL;
    tcsetattr(tty, TCSAFLUSH, &hidden);
    write(tty, prompt, strlen(prompt));
    ssize_t n;
    do
        n = read(tty, line, size - 1);
    while (n < 0 && errno == EINTR && !rp_cli_stopped());
    tcsetattr(tty, TCSAFLUSH, &old);
    if (rp_cli_stopped())
        return rp_fail(err, RP_ERR_CANCELLED, "stopped");
    if (n < 0)
        return rp_fail_sys(err, errno, "read from the terminal");
    line[n] = 0;
    return 0;
}

static char *from_terminal(bool twice, struct rp_error *err)
{
    RP_AUTO_FD int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (tty < 0) {
        rp_fail(err, RP_ERR_USAGE,
                "the repository needs a passphrase: use --password-file, REFPOINT_PASSWORD_FILE or REFPOINT_PASSWORD");
        return NULL;
    }
    char line[PASSPHRASE_MAX + 2], again[PASSPHRASE_MAX + 2] = "";
    char *passphrase = NULL;
    if (!read_hidden(tty, twice ? "New passphrase: " : "Passphrase: ", line, sizeof line, err))
        passphrase = first_line(line, strlen(line), "terminal", "passphrase", err);
    if (passphrase && twice) {
        if (read_hidden(tty, "Once more: ", again, sizeof again, err) || strcmp(line, again)) {
            rp_fail(err, RP_ERR_INVALID, "the two passphrases differ");
            rp_cli_wipe(&passphrase);
        }
    }
    explicit_bzero(line, sizeof line);
    explicit_bzero(again, sizeof again);
    return passphrase;
}

void rp_cli_hide_passphrase(void)
{
    char *value = getenv("REFPOINT_PASSWORD");
    from_environment = value ? rp_xstrdup(value) : NULL;
    if (value)
        explicit_bzero(value, strlen(value));
    unsetenv("REFPOINT_PASSWORD");
}

char *rp_cli_passphrase(const struct rp_cli *cli, bool twice, struct rp_error *err)
{
    const char *path = passphrase_file(cli);
    if (path)
        return from_file(path, "passphrase", err);
    if (!from_environment)
        return from_terminal(twice, err);
    return first_line(from_environment, strlen(from_environment), "REFPOINT_PASSWORD", "passphrase", err);
}

char *rp_cli_password(const struct rp_cli *cli, const char *prompt, struct rp_error *err)
{
    const char *path = rp_cli_value(cli, "password-file"); // not the variable, which is for repositories
    if (path)
        return from_file(path, "password", err);
    RP_AUTO_FD int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (tty < 0) {
        rp_fail(err, RP_ERR_USAGE, "a password is needed: use --password-file");
        return NULL;
    }
    char line[PASSPHRASE_MAX + 2];
    char *password = read_hidden(tty, prompt, line, sizeof line, err) ? NULL
                                                                     : first_line(line, strlen(line), "terminal", "password", err);
    explicit_bzero(line, sizeof line);
    return password;
}

int rp_cli_confirm(const struct rp_cli *cli, struct rp_error *err, const char *question, ...)
{
    if (cli->yes)
        return 0;
    if (!isatty(STDIN_FILENO))
        return rp_fail(err, RP_ERR_USAGE, "this asks before it goes on: use --yes");
    va_list args;
    va_start(args, question);
    RP_AUTO_FREE char *text = NULL;
    if (vasprintf(&text, question, args) < 0)
        text = rp_xstrdup("Go on?");
    va_end(args);
    fprintf(stderr, "%s [y/N] ", rp_cli_safe(text));
    char line[16];
    ssize_t n = read(STDIN_FILENO, line, sizeof line);
    if (n > 0 && (line[0] == 'y' || line[0] == 'Y'))
        return 0;
    return rp_fail(err, RP_ERR_CANCELLED, "not confirmed");
}
