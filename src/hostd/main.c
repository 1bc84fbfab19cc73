// refpoint-hostd: options, the config file, signals.
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "hostd/config.h"
#include "hostd/core.h"

#define CONFIG "/etc/refpoint/hostd.conf"
#define END_SECONDS 20
#define FILES 65536

static const char help[] =
    "refpoint-hostd: serves a host's virtual machines as Hyper-V does, WMI over WS-Management\n"
    "\n"
    "Usage: refpoint-hostd [OPTIONS]\n"
    "       refpoint-hostd --lab [OPTIONS]\n"
    "\n"
    "Options:\n"
    "  -c, --config FILE   the config file (default " CONFIG ")\n"
    "      --check         look at the config file, and end\n"
    "  -v, --verbose       say more; twice: everything\n"
    "      --lab           a host to try things on, with virtual machines of its own; see --lab --help\n"
    "      --version       print the version, and end\n"
    "  -h, --help          print this, and end\n"
    "\n"
    "SIGTERM and SIGINT end it: jobs are asked to end, virtual machines run on. SIGHUP opens the audit's file anew\n"
    "and reads from the config who may do what.\n"
    "The config file is described in refpoint-hostd(8).\n";

struct arguments {
    const char *config;
    bool check, version, help;
    int verbose;
};

static int read_arguments(int argc, char **argv, struct arguments *arguments, struct rp_error *err)
{
    *arguments = (struct arguments){.config = CONFIG};
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (!strcmp(argument, "-h") || !strcmp(argument, "--help"))
            arguments->help = true;
        else if (!strcmp(argument, "--version"))
            arguments->version = true;
        else if (!strcmp(argument, "--check"))
            arguments->check = true;
        else if (!strcmp(argument, "-v") || !strcmp(argument, "--verbose"))
            arguments->verbose++;
        else if (!strcmp(argument, "-vv"))
            arguments->verbose += 2;
        else if (!strncmp(argument, "--config=", 9) && argument[9])
            arguments->config = argument + 9;
        else if ((!strcmp(argument, "-c") || !strcmp(argument, "--config")) && i + 1 < argc)
            arguments->config = argv[++i];
        else if (!strcmp(argument, "-c") || !strcmp(argument, "--config"))
            return rp_fail(err, RP_ERR_USAGE, "%s needs a file", argument);
        else
            return rp_fail(err, RP_ERR_USAGE, "\"%.100s\" is no option; see refpoint-hostd --help", argument);
    }
    return 0;
}

// The usual 1,024 are too few for hundreds of connections beside chains of many files. Disk services inherit it.
static void allow_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= FILES)
        return;
    limit.rlim_cur = limit.rlim_max < FILES ? limit.rlim_max : FILES;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// The signals that serve() waits for. All threads have them blocked.
static sigset_t waited_for(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    return signals;
}

// Jobs have been asked to end. A merge does not end in the middle and may take hours: it is left as after a kill, to be
// begun again by the next start, which tells how its job ended.
static void on_alarm(int number)
{
    static const char text[] = "refpoint-hostd: work that cannot be interrupted is left to the next start\n";
    (void)number;
    _exit(write(STDERR_FILENO, text, sizeof text - 1) < 0);
}

// SIGHUP: the audit's file, and who may do what; connections that are there are looked at again with their next
// request. A config with a mistake changes nothing.
static void reload(struct rp_hostd *hostd, const char *path, struct rp_hostd_config *config)
{
    RP_CLEANUP(rp_hostd_config_clear) struct rp_hostd_config fresh = {0};
    struct rp_error err = {0};
    rp_hostd_audit_reopen(hostd->audit);
    if (rp_hostd_config_read(path, &fresh, &err)) {
        rp_log(RP_LOG_ERROR, "%s; rights stay as they were", err.text);
        return;
    }
    rp_hostd_access_replace(&config->access, &fresh.access);
    rp_wsman_server_recheck(hostd->server);
    const char *other = rp_hostd_config_difference(config, &fresh);
    if (other)
        rp_log(RP_LOG_WARNING, "%s: \"%s\" has changed: that takes a restart", path, other);
}

static int serve(const char *path, struct rp_hostd_config *config, struct rp_error *err)
{
    struct rp_hostd_options options = rp_hostd_config_options(config);
    sigset_t signals = waited_for();
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    RP_CLEANUP(rp_hostd_stop_p) struct rp_hostd *hostd = rp_hostd_start(&options, err);
    if (!hostd)
        return -1;
    rp_log(RP_LOG_INFO, "%s serves %s", hostd->machine, hostd->directory);
    int number = 0;
    while (sigwait(&signals, &number) == 0 && number == SIGHUP)
        reload(hostd, path, config);
    rp_log(RP_LOG_INFO, "%s: asked to end", hostd->machine);
    signal(SIGALRM, on_alarm);
    alarm(END_SECONDS);
    return 0;
}

static int run(int argc, char **argv, struct rp_error *err)
{
    struct arguments arguments;
    if (read_arguments(argc, argv, &arguments, err))
        return -1;
    if (arguments.help || arguments.version) {
        printf("%s", arguments.help ? help : "refpoint-hostd " RP_VERSION "\n");
        return 0;
    }
    rp_log_set_level(arguments.verbose > 1 ? RP_LOG_DEBUG : arguments.verbose ? RP_LOG_INFO : RP_LOG_WARNING);
    RP_CLEANUP(rp_hostd_config_clear) struct rp_hostd_config config = {0};
    if (rp_hostd_config_read(arguments.config, &config, err))
        return -1;
    if (rp_hostd_config_check(&config, err))
        return rp_context(err, "%s", arguments.config);
    if (arguments.check) {
        printf("%s: no mistakes\n", arguments.config);
        return 0;
    }
    return serve(arguments.config, &config, err);
}

int main(int argc, char **argv)
{
    struct rp_error err = {0};
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    allow_files();
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--lab"))
            return rp_hostd_lab(argc, argv);
    if (run(argc, argv, &err)) {
        fprintf(stderr, "refpoint-hostd: %s\n", err.text);
        return rp_code_exit(err.code);
    }
    return fflush(stdout) ? 2 : 0;
}
