// The command line: what every verb is written against.
//
// A verb is one `struct rp_cli_verb`, in a file verb-<noun>.c that exports one array of them, ended by an entry without
// a name, and listed in verbs.c:
//
//     static int run_list(struct rp_cli *cli, struct rp_error *err)
//     {
//         RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_host(cli, NULL, err);
//         if (!host)
//             return -1;
//         ...
//         return 0;                          // 0 good, 1 good with a remark, -1 failed: err says why
//     }
//     const struct rp_cli_verb rp_cli_vm_verbs[] = {
//         {.name = "vm list", .arguments = "", .summary = "list the VMs of the host", .run = run_list,
//          .examples = "refpoint vm list --json\n", .flags = RP_CLI_READS},
//         {0},
//     };
//
// The command line is parsed, and `refpoint VERB --help` is written, from these tables. Wrong usage found by a verb:
// return rp_fail(err, RP_ERR_USAGE, ...), which ends with exit status 3. main prints the error, as one line.
#ifndef RP_CLI_CLI_H
#define RP_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "hyperv/host_connection.h"
#include "repo/repo.h"

struct rp_cli;

struct rp_cli_option {
    char letter;          // 0: none
    const char *name;     // without the dashes
    const char *argument; // "DIR"; "[=DIR]": may be left out, then the value is ""; NULL: a flag. A flag and an option with an argument may both be repeated
    const char *help;     // one line
};

#define RP_CLI_DEFAULT_HOST "local:/var/lib/refpoint"

enum rp_cli_verb_flags {
    RP_CLI_READS = 1,   // changes nothing, so --dry-run is accepted and means nothing
    RP_CLI_DRY_RUN = 2, // understands cli->dry_run; a verb with neither flag refuses --dry-run
};

#define RP_CLI_ANY 1000u // max_args: as many as there are

struct rp_cli_verb {
    const char *name;      // "backup", "vm create"
    const char *arguments; // as shown in the usage line: "VM[@POINT] --to DIR"
    const char *summary;   // one line, lower case, no full stop
    const char *details;   // paragraphs for the help, or NULL; lines up to 80 columns
    const char *examples;  // lines, each one command
    const struct rp_cli_option *options; // ended by {0}; NULL: none but the global ones
    unsigned min_args, max_args;
    unsigned flags;
    int (*run)(struct rp_cli *cli, struct rp_error *err); // 0, 1 (good with a remark) or -1
};

struct rp_cli_group {
    const char *title; // heading in `refpoint --help`
    const struct rp_cli_verb *verbs;
};
extern const struct rp_cli_group rp_cli_groups[]; // verbs.c; ended by {0}
extern const struct rp_cli_option rp_cli_global_options[];

// One invocation. Read the fields; do not change them.
struct rp_cli {
    const struct rp_cli_verb *verb;
    char **args;            // what is neither verb nor option; borrowed from argv
    size_t arg_count;
    const char *repository; // -r or REFPOINT_REPOSITORY; NULL: none
    const char *host;       // -H or REFPOINT_HOST, else RP_CLI_DEFAULT_HOST
    bool dry_run, quiet, json, yes;
    unsigned verbose;
    bool help, version;
    struct rp_cli_given {   // options in their order
        const struct rp_cli_option *option;
        const char *value;
    } *given;
    size_t given_count;
};

// ---- the command line (options.c, help.c) ---------------------------------------------------------------------------

// Parses argv (without the program's name) against the tables. RP_ERR_USAGE says what is wrong, and what was meant.
int rp_cli_parse(struct rp_cli *cli, int argc, char **argv, struct rp_error *err);
void rp_cli_clear(struct rp_cli *cli);
bool rp_cli_flag(const struct rp_cli *cli, const char *name);
// The value of the last --name given, or NULL; and of the index'th one. Borrowed.
const char *rp_cli_value(const struct rp_cli *cli, const char *name);
const char *rp_cli_value_at(const struct rp_cli *cli, const char *name, size_t index);
// Options that are numbers or sizes ("64K", "10G"): `*value` is left alone when --name was not given.
int rp_cli_number(const struct rp_cli *cli, const char *name, uint64_t min, uint64_t max, uint64_t *value,
                  struct rp_error *err);
int rp_cli_size(const struct rp_cli *cli, const char *name, uint64_t *value, struct rp_error *err);
void rp_cli_help(void);                                // refpoint --help
void rp_cli_help_verb(const struct rp_cli_verb *verb); // refpoint VERB --help
// Verbs whose name starts with the word `noun`, as `refpoint vm` shows them. False: there are none.
bool rp_cli_help_noun(const char *noun);

// ---- opening things (open.c, open_host.c) -----------------------------------------------------------------------------

// `address` NULL: the host of the command line. "local:DIR", or a name of the hosts file.
struct rp_host_connection *rp_cli_open_host(const struct rp_cli *cli, const char *address, struct rp_error *err);
// The VM of "[HOST/]VM", and the host that it is on.
struct rp_host_connection *rp_cli_open_vm(const struct rp_cli *cli, const char *address, struct rp_vm *vm,
                                          struct rp_error *err);
// The backend of the repository named on the command line (RP_ERR_USAGE when none is).
struct rp_backend *rp_cli_open_backend(const struct rp_cli *cli, bool create, struct rp_error *err);
// The repository, its passphrase asked for when it is encrypted.
struct rp_repo *rp_cli_open_repo(const struct rp_cli *cli, struct rp_error *err);
// From --password-file, REFPOINT_PASSWORD_FILE, REFPOINT_PASSWORD, or the terminal (echo off; `twice` to confirm a new
// one). Never empty, never from the command line. Malloc'ed; wipe with rp_cli_wipe.
char *rp_cli_passphrase(const struct rp_cli *cli, bool twice, struct rp_error *err);
// A host's password: --password-file, or the terminal (echo off). Malloc'ed; wipe with rp_cli_wipe.
char *rp_cli_password(const struct rp_cli *cli, const char *prompt, struct rp_error *err);
// Called first by main: takes REFPOINT_PASSWORD out of the environment, so
// that no program started from here inherits it.
void rp_cli_hide_passphrase(void);
void rp_cli_wipe(char **passphrase); // overwrites and frees; usable with RP_CLEANUP
// Asks "QUESTION [y/N]" unless --yes; without a terminal and without --yes it is RP_ERR_USAGE.
// "No" is RP_ERR_CANCELLED.
int rp_cli_confirm(const struct rp_cli *cli, struct rp_error *err, const char *question, ...)
    __attribute__((format(printf, 3, 4)));

// ---- signals (signals.c) --------------------------------------------------------------------------------------------

// SIGINT, SIGTERM and SIGHUP ask to stop: the work in hand is undone and the program ends with status 2. A second SIGINT
// kills at once, and so does a SIGTERM more than a second after the first of them all.
void rp_cli_signals_init(void);
// What that one says before it kills: what may be left, and who removes it. A literal, one line; NULL: nothing is.
void rp_cli_signals_last_words(const char *text);
bool rp_cli_stopped(void);
int rp_cli_stop(void *unused); // the same, in the form that rp_host_wait takes

// ---- output (output.c) ----------------------------------------------------------------------------------------------

// Names of VMs, disks and files are hostile: control characters, broken UTF-8 and characters that reorder text are
// shown as \x1b. The result lives until the program ends. NULL gives "".
const char *rp_cli_safe(const char *text);
// To standard output. Everything but line feeds goes through rp_cli_safe's rules.
void rp_cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
// As rp_cli_print, dropped with --quiet or --json: for what a person reads besides the result.
void rp_cli_say(const struct rp_cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
// To standard error: "refpoint: remark: text". Not dropped by --quiet: the exit status will be 1.
void rp_cli_remark(const struct rp_cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The sink of rp_log: messages quote names of objects in a repository, which whoever can write there chooses.
void rp_cli_log(enum rp_log_level level, const char *text);
// "refpoint: text" on standard error, one line; with --json {"type":"error","code":…,"text":…,"exit":…}.
void rp_cli_print_error(const struct rp_cli *cli, const struct rp_error *err);
// Standard output, as far as it was written. Returns the errno of the first failure, 0 when there was none.
int rp_cli_flush(void);
// A whole document, indented (takes `value`); and one line of a stream of objects.
void rp_cli_print_json(json_t *value);
void rp_cli_print_json_line(json_t *value);
// A list, one item after the other: all of a long one as one value would take much memory.
void rp_cli_print_json_item(json_t *value, bool first);
void rp_cli_print_json_end(bool empty);
// A json string from text that may be hostile: broken UTF-8 becomes U+FFFD. NULL gives null.
json_t *rp_cli_json_text(const char *text);

// A table: headings separated by '|'; one that starts with '>' is right-aligned.
struct rp_cli_table;
struct rp_cli_table *rp_cli_table_new(const char *headings);
// The next cell, row by row.
void rp_cli_cell(struct rp_cli_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void rp_cli_table_print(struct rp_cli_table *table); // and frees it
void rp_cli_table_drop(struct rp_cli_table *table);  // frees it unprinted

// ---- progress (progress.c) ------------------------------------------------------------------------------------------

// Bytes done of a total, with rate and time left: a bar on a terminal, lines {"type":"progress",…} with --json, nothing
// otherwise.
struct rp_cli_progress;
struct rp_cli_progress *rp_cli_progress_new(const struct rp_cli *cli, const char *title);
// In the form that rp_convert_*, rp_vhdx_merge, define_system and rp_repo_check take. Cheap to call often; from one
// thread at a time. Non-zero: asked to stop.
int rp_cli_progress_update(void *progress, uint64_t done, uint64_t total);
void rp_cli_progress_hide(struct rp_cli_progress *progress); // takes the bar off the terminal, before other output
void rp_cli_progress_end(struct rp_cli_progress *progress); // clears the bar, frees; NULL is fine
RP_DEFINE_CLEANUP(struct rp_cli_progress, rp_cli_progress_end)

// ---- arrays of verbs, one per file ----------------------------------------------------------------------------------

extern const struct rp_cli_verb rp_cli_backup_verbs[];     // verb-backup.c
extern const struct rp_cli_verb rp_cli_restore_verbs[];    // verb-restore.c
extern const struct rp_cli_verb rp_cli_list_verbs[];       // verb-list.c
extern const struct rp_cli_verb rp_cli_show_verbs[];       // verb-show.c
extern const struct rp_cli_verb rp_cli_diff_verbs[];       // verb-diff.c
extern const struct rp_cli_verb rp_cli_check_verbs[];      // verb-check.c
extern const struct rp_cli_verb rp_cli_repo_verbs[];       // verb-repo.c
extern const struct rp_cli_verb rp_cli_host_verbs[];       // verb-host.c
extern const struct rp_cli_verb rp_cli_vm_verbs[];         // verb-vm.c
extern const struct rp_cli_verb rp_cli_vm_run_verbs[];     // verb-vm-run.c
extern const struct rp_cli_verb rp_cli_vm_adopt_verbs[];   // verb-vm-adopt.c
extern const struct rp_cli_verb rp_cli_disk_verbs[];       // verb-disk.c
extern const struct rp_cli_verb rp_cli_checkpoint_verbs[]; // verb-checkpoint.c
extern const struct rp_cli_verb rp_cli_refpoint_verbs[];   // verb-refpoint.c

#endif
