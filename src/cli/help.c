// Help, written from the tables.
#include <string.h>

#include "base/buf.h"
#include "cli/cli.h"

#define INDENT 26

static void print_option(const struct rp_cli_option *option)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf left = {0};
    if (option->letter)
        rp_buf_printf(&left, "-%c, ", option->letter);
    else
        rp_buf_printf(&left, "    ");
    rp_buf_printf(&left, "--%s%s%s", option->name, option->argument && *option->argument != '[' ? " " : "", option->argument ? option->argument : "");
    rp_cli_print("  %-*s  %s\n", INDENT, rp_buf_text(&left), option->help);
}

// `verb` NULL: of no verb in particular.
static void print_options(const char *heading, const struct rp_cli_option *options, const struct rp_cli_verb *verb)
{
    if (!options || !options->name)
        return;
    rp_cli_print("\n%s:\n", heading);
    for (; options->name; options++)
        if (!verb || (verb->flags & RP_CLI_DRY_RUN) || strcmp(options->name, "dry-run"))
            print_option(options);
}

static void print_environment(void)
{
    rp_cli_print("\nExit status: 0 good, 1 good with a remark, 2 failed, 3 wrong usage.\n");
}

void rp_cli_help_verb(const struct rp_cli_verb *verb)
{
    rp_cli_print("refpoint %s: %s\n\nUsage: refpoint %s%s%s [OPTIONS]\n", verb->name, verb->summary, verb->name,
                 *verb->arguments ? " " : "", verb->arguments);
    if (verb->details)
        rp_cli_print("\n%s", verb->details);
    print_options("Options", verb->options, verb);
    print_options("Global options", rp_cli_global_options, verb);
    rp_cli_print("\nExamples:\n");
    for (const char *line = verb->examples; *line;) {
        size_t length = strcspn(line, "\n");
        rp_cli_print("  %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
    print_environment();
}

static void print_verb(const struct rp_cli_verb *verb) { rp_cli_print("  %-18s %s\n", verb->name, verb->summary); }

void rp_cli_help(void)
{
    rp_cli_print("refpoint: back up virtual machines in full, then only what changed, and restore them exactly\n\n"
                 "Usage: refpoint COMMAND [ARGUMENTS] [OPTIONS]\n"
                 "       refpoint COMMAND --help\n");
    for (const struct rp_cli_group *group = rp_cli_groups; group->title; group++) {
        if (*group->title)
            rp_cli_print("\n%s:\n", group->title);
        for (const struct rp_cli_verb *verb = group->verbs; verb && verb->name; verb++)
            print_verb(verb);
    }
    print_options("Global options", rp_cli_global_options, NULL);
    rp_cli_print("\n"
                 "Addresses: [HOST/]VM[@POINT][:DISK]. VM is an exact name or a GUID. POINT is the beginning of an id,\n"
                 "\"latest\", \"-1\" (the one before the latest), or a date (the last point up to it). DISK is a number.\n");
    print_environment();
}

bool rp_cli_help_noun(const char *noun)
{
    size_t length = strlen(noun);
    bool found = false;
    for (const struct rp_cli_group *group = rp_cli_groups; group->title; group++) {
        for (const struct rp_cli_verb *verb = group->verbs; verb && verb->name; verb++) {
            if (strncmp(verb->name, noun, length) || verb->name[length] != ' ')
                continue;
            if (!found)
                rp_cli_print("Usage: refpoint %s COMMAND [ARGUMENTS] [OPTIONS]\n       refpoint %s COMMAND --help\n\nCommands:\n",
                             rp_cli_safe(noun), rp_cli_safe(noun));
            found = true;
            print_verb(verb);
        }
    }
    return found;
}
