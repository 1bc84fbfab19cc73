// Parsing of the command line against the tables of the verbs.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/num.h"
#include "cli/cli.h"

const struct rp_cli_option rp_cli_global_options[] = {
    {'r', "repo", "DIR", "the repository (REFPOINT_REPOSITORY)"},
    {'H', "host", "HOST", "the host: local:DIR, or a name of host list (REFPOINT_HOST; default " RP_CLI_DEFAULT_HOST ")"},
    {0, "password-file", "FILE", "first line is the passphrase (REFPOINT_PASSWORD_FILE, or REFPOINT_PASSWORD)"},
    {'n', "dry-run", NULL, "only say what would be done (backup, restore, repo unlock, vm adopt, vm release, disk compact)"},
    {'q', "quiet", NULL, "print errors and remarks only"},
    {'v', "verbose", NULL, "say more; twice: what developers want to know"},
    {0, "json", NULL, "results, progress and errors as JSON"},
    {0, "yes", NULL, "do not ask"},
    {'h', "help", NULL, "help for a command"},
    {0, "version", NULL, "print the version"},
    {0},
};

static const struct rp_cli_option *find_in(const struct rp_cli_option *options, const char *name, size_t length, char letter)
{
    for (; options && options->name; options++) {
        if (letter ? options->letter == letter : strlen(options->name) == length && !memcmp(options->name, name, length))
            return options;
    }
    return NULL;
}

static const struct rp_cli_option *find_option(const struct rp_cli *cli, const char *name, size_t length, char letter)
{
    const struct rp_cli_option *option = find_in(rp_cli_global_options, name, length, letter);
    return option || !cli->verb ? option : find_in(cli->verb->options, name, length, letter);
}

static void give(struct rp_cli *cli, const struct rp_cli_option *option, const char *value)
{
    cli->given = rp_xrealloc(cli->given, (cli->given_count + 1) * sizeof *cli->given);
    cli->given[cli->given_count++] = (struct rp_cli_given){option, value};
}

static int unknown(const struct rp_cli *cli, const char *text, struct rp_error *err)
{
    if (cli->verb)
        return rp_fail(err, RP_ERR_USAGE, "%s: unknown option %s (see refpoint %s --help)", cli->verb->name, text, cli->verb->name);
    return rp_fail(err, RP_ERR_USAGE, "unknown option %s before the command (see refpoint --help)", text);
}

// One "--name", "--name=value" or "--name value". Returns how many arguments it took, or -1.
static int parse_long(struct rp_cli *cli, char **argv, int left, struct rp_error *err)
{
    const char *name = argv[0] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct rp_cli_option *option = find_option(cli, name, length, 0);
    if (!option)
        return unknown(cli, argv[0], err);
    if (!option->argument && equals)
        return rp_fail(err, RP_ERR_USAGE, "--%s takes no value", option->name);
    if (equals && *option->argument == '[' && !equals[1])
        return rp_fail(err, RP_ERR_USAGE, "--%s=: nothing stands behind the =", option->name);
    if (equals) {
        give(cli, option, equals + 1);
        return 1;
    }
    if (!option->argument || *option->argument == '[') {
        give(cli, option, "");
        return 1;
    }
    if (left < 2)
        return rp_fail(err, RP_ERR_USAGE, "--%s needs a value: --%s %s", option->name, option->name, option->argument);
    give(cli, option, argv[1]);
    return 2;
}

// One "-qv", "-rVALUE" or "-r VALUE".
static int parse_short(struct rp_cli *cli, char **argv, int left, struct rp_error *err)
{
    for (const char *p = argv[0] + 1; *p; p++) {
        const struct rp_cli_option *option = find_option(cli, NULL, 0, *p);
        if (!option)
            return unknown(cli, argv[0], err);
        if (!option->argument) {
            give(cli, option, "");
            continue;
        }
        if (p[1]) {
            give(cli, option, p + 1);
            return 1;
        }
        if (left < 2)
            return rp_fail(err, RP_ERR_USAGE, "-%c needs a value: -%c %s", *p, *p, option->argument);
        give(cli, option, argv[1]);
        return 2;
    }
    return 1;
}

// The verb named by the words so far: two words before one. `*used`: how many of them name it.
static const struct rp_cli_verb *find_verb(char **words, size_t count, size_t *used)
{
    for (const struct rp_cli_group *group = rp_cli_groups; group->title; group++) {
        for (const struct rp_cli_verb *verb = group->verbs; verb && verb->name; verb++) {
            const char *space = strchr(verb->name, ' ');
            size_t first = space ? (size_t)(space - verb->name) : strlen(verb->name);
            if (!count || strlen(words[0]) != first || memcmp(words[0], verb->name, first))
                continue;
            if (space && (count < 2 || strcmp(words[1], space + 1)))
                continue;
            *used = space ? 2 : 1;
            return verb;
        }
    }
    return NULL;
}

static bool is_noun(const char *word)
{
    size_t length = strlen(word);
    for (const struct rp_cli_group *group = rp_cli_groups; group->title; group++)
        for (const struct rp_cli_verb *verb = group->verbs; verb && verb->name; verb++)
            if (!strncmp(verb->name, word, length) && verb->name[length] == ' ')
                return true;
    return false;
}

static int no_verb(const struct rp_cli *cli, struct rp_error *err)
{
    if (!cli->arg_count)
        return rp_fail(err, RP_ERR_USAGE, "no command given (see refpoint --help)");
    const char *word = cli->args[0];
    if (!is_noun(word))
        return rp_fail(err, RP_ERR_USAGE, "unknown command \"%.64s\" (see refpoint --help)", word);
    if (cli->arg_count < 2)
        return rp_fail(err, RP_ERR_USAGE, "%s: what? (see refpoint %s --help)", word, word);
    return rp_fail(err, RP_ERR_USAGE, "unknown command \"%s %.64s\" (see refpoint %s --help)", word, cli->args[1], word);
}

static int check_count(const struct rp_cli *cli, struct rp_error *err)
{
    const struct rp_cli_verb *verb = cli->verb;
    if (cli->arg_count >= verb->min_args && cli->arg_count <= verb->max_args)
        return 0;
    bool few = cli->arg_count < verb->min_args;
    rp_fail(err, RP_ERR_USAGE, "%s: too %s arguments; usage: refpoint %s %s", verb->name, few ? "few" : "many",
            verb->name, verb->arguments);
    for (size_t i = 0; !few && i < cli->given_count; i++) {
        const struct rp_cli_option *option = cli->given[i].option;
        if (option->argument && *option->argument == '[' && !*cli->given[i].value)
            return rp_context(err, "a value of --%s stands behind a =: --%s%.*s", option->name, option->name,
                              (int)strcspn(option->argument + 1, "]"), option->argument + 1);
    }
    return -1;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static int apply_globals(struct rp_cli *cli, struct rp_error *err)
{
    const char *value = rp_cli_value(cli, "repo");
    cli->repository = value ? value : environment("REFPOINT_REPOSITORY");
    value = rp_cli_value(cli, "host");
    cli->host = value ? value : environment("REFPOINT_HOST");
    if (!cli->host)
        cli->host = RP_CLI_DEFAULT_HOST;
    cli->dry_run = rp_cli_flag(cli, "dry-run");
    cli->quiet = rp_cli_flag(cli, "quiet");
    cli->json = rp_cli_flag(cli, "json");
    cli->yes = rp_cli_flag(cli, "yes");
    cli->help = rp_cli_flag(cli, "help");
    cli->version = rp_cli_flag(cli, "version");
    for (size_t i = 0; i < cli->given_count; i++)
        cli->verbose += !strcmp(cli->given[i].option->name, "verbose");
    if (cli->verb && !cli->help && cli->dry_run && !(cli->verb->flags & (RP_CLI_READS | RP_CLI_DRY_RUN)))
        return rp_fail(err, RP_ERR_USAGE, "%s: there is no dry run of this command", cli->verb->name);
    return 0;
}

int rp_cli_parse(struct rp_cli *cli, int argc, char **argv, struct rp_error *err)
{
    cli->args = rp_xcalloc((size_t)argc + 1, sizeof *cli->args);
    // Known early, so that an error in the rest is printed the way that was asked for.
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        cli->json |= !strcmp(argv[i], "--json");
    bool options_end = false;
    for (int i = 0; i < argc;) {
        const char *word = argv[i];
        if (!options_end && word[0] == '-' && word[1]) {
            int took = 1;
            if (!strcmp(word, "--"))
                options_end = true;
            else
                took = (word[1] == '-' ? parse_long : parse_short)(cli, argv + i, argc - i, err);
            if (took < 0)
                return -1;
            i += took;
            continue;
        }
        cli->args[cli->arg_count++] = argv[i++];
        size_t used;
        if (!cli->verb && (cli->verb = find_verb(cli->args, cli->arg_count, &used)))
            cli->arg_count -= used; // the words of the verb are all that was there
    }
    if (apply_globals(cli, err))
        return -1;
    if (cli->help || cli->version)
        return 0;
    if (!cli->verb)
        return no_verb(cli, err);
    return check_count(cli, err);
}

void rp_cli_clear(struct rp_cli *cli)
{
    free(cli->args);
    free(cli->given);
    *cli = (struct rp_cli){0};
}

const char *rp_cli_value(const struct rp_cli *cli, const char *name)
{
    for (size_t i = cli->given_count; i-- > 0;)
        if (!strcmp(cli->given[i].option->name, name))
            return cli->given[i].value;
    return NULL;
}

bool rp_cli_flag(const struct rp_cli *cli, const char *name) { return rp_cli_value(cli, name) != NULL; }

const char *rp_cli_value_at(const struct rp_cli *cli, const char *name, size_t index)
{
    for (size_t i = 0; i < cli->given_count; i++)
        if (!strcmp(cli->given[i].option->name, name) && !index--)
            return cli->given[i].value;
    return NULL;
}

int rp_cli_number(const struct rp_cli *cli, const char *name, uint64_t min, uint64_t max, uint64_t *value, struct rp_error *err)
{
    const char *text = rp_cli_value(cli, name);
    if (!text)
        return 0;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || number < min || number > max)
        return rp_fail(err, RP_ERR_USAGE, "--%s: \"%.64s\" is not a number from %llu to %llu", name, text,
                       (unsigned long long)min, (unsigned long long)max);
    *value = number;
    return 0;
}

int rp_cli_size(const struct rp_cli *cli, const char *name, uint64_t *value, struct rp_error *err)
{
    const char *text = rp_cli_value(cli, name);
    if (!text)
        return 0;
    if (rp_parse_size(text, value, NULL))
        return rp_fail(err, RP_ERR_USAGE, "--%s: \"%.64s\" is not a size (4096, 64K, 1.5M, 10G)", name, text);
    return 0;
}
