#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"

// The words of a command name in front of an error: "backup web1: …"; of several VMs the first is not to blame.
static void add_verb(const struct rp_cli *cli, struct rp_error *err)
{
    bool several = cli->verb->max_args == RP_CLI_ANY && (cli->arg_count > 1 || rp_cli_flag(cli, "vm"));
    if (cli->arg_count && !several)
        rp_context(err, "%s %s", cli->verb->name, cli->args[0]);
    else
        rp_context(err, "%s", cli->verb->name);
}

static int run(struct rp_cli *cli, int argc, char **argv)
{
    struct rp_error err = {0};
    if (rp_cli_parse(cli, argc, argv, &err)) {
        rp_cli_print_error(cli, &err);
        return rp_code_exit(err.code);
    }
    if (cli->version) {
        rp_cli_print("refpoint %s\n", RP_VERSION);
        return 0;
    }
    if (cli->help) {
        if (cli->verb)
            rp_cli_help_verb(cli->verb);
        else if (!cli->arg_count || !rp_cli_help_noun(cli->args[0]))
            rp_cli_help();
        return 0;
    }
    rp_log_set_level(cli->quiet ? RP_LOG_ERROR : cli->verbose > 1 ? RP_LOG_DEBUG : cli->verbose ? RP_LOG_INFO : RP_LOG_WARNING);
    int result = cli->verb->run(cli, &err);
    if (result >= 0)
        return result;
    if (!err.code)
        rp_fail(&err, RP_ERR_IO, "failed, and gave no reason: this is a bug");
    add_verb(cli, &err);
    rp_cli_print_error(cli, &err);
    return rp_code_exit(err.code);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    rp_cli_hide_passphrase();
    signal(SIGPIPE, SIG_IGN); // a reader that went away must not kill a backup half-way
    rp_cli_signals_init();
    rp_log_set_sink(rp_cli_log);
    struct rp_cli cli = {0};
    int status = run(&cli, argc - 1, argv + 1);
    int lost = rp_cli_flush();
    if (lost && lost != EPIPE) {
        fprintf(stderr, "refpoint: write to standard output: %s\n", strerror(lost));
        status = 2;
    }
    rp_cli_clear(&cli);
    return status;
}
