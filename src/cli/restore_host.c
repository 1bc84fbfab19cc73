#include "cli/restore_host.h"

#include <string.h>

#include "backup/boot_check.h"
#include "backup/restore_host.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"
#include "cli/host_paths.h"
#include "cli/point_json.h"

struct remarks {
    const struct rp_cli *cli;
    struct rp_cli_progress *progress;
    json_t *texts;
};

static void on_remark(void *context, const char *text)
{
    struct remarks *remarks = context;
    rp_cli_progress_hide(remarks->progress);
    rp_cli_remark(remarks->cli, "%s", text);
    json_array_append_new(remarks->texts, rp_cli_json_text(text));
}

// "hv1" or "hv1/web2". A folder may have any name, so that local:DIR is taken as a whole.
static char *split(const char *text, const char **vm_name)
{
    const char *slash = strncmp(text, "local:", 6) ? strchr(text, '/') : NULL;
    if (slash)
        *vm_name = slash + 1;
    return slash ? rp_xasprintf("%.*s", (int)(slash - text), text) : rp_xstrdup(text);
}

static int parse(const struct rp_cli *cli, struct rp_restore_host_options *options, char **address,
                 struct rp_error *err)
{
    bool new_id = rp_cli_flag(cli, "new-id");
    const char *name = rp_cli_value(cli, "name");
    *address = split(rp_cli_value(cli, "to-host"), &options->vm_name);
    if (!**address || (options->vm_name && !*options->vm_name))
        return rp_fail(err, RP_ERR_USAGE, "--to-host: give it as HOST or HOST/VM");
    if (new_id && rp_cli_flag(cli, "keep-id"))
        return rp_fail(err, RP_ERR_USAGE, "--new-id and --keep-id: which of them?");
    if (name && !*name)
        return rp_fail(err, RP_ERR_USAGE, "--name: a VM needs a name");
    if (name && options->vm_name && strcmp(name, options->vm_name) != 0)
        return rp_fail(err, RP_ERR_USAGE, "--to-host and --name give the VM different names: which of them?");
    if (name)
        options->vm_name = name;
    options->identity = new_id ? RP_IDENTITY_NEW : RP_IDENTITY_KEEP;
    options->folder = rp_cli_value(cli, "folder");
    options->start = rp_cli_flag(cli, "start");
    return 0;
}

static void print_result(const struct rp_cli *cli, const struct rp_restore_host_options *options,
                         const struct rp_point *point, const struct rp_host_connection *host,
                         const struct rp_restore_host_result *result, json_t *remarks, double seconds)
{
    const char *name = options->vm_name ? options->vm_name : point->vm_name;
    if (!cli->json) {
        rp_cli_say(cli, "restored %s@%.*s as VM %s of %s in %.1f s: id %s, %zu disk%s in %s\n",
                   rp_cli_safe(point->vm_name), RP_SHORT_ID, point->id, rp_cli_safe(name),
                   rp_cli_safe(host->address), seconds, result->vm_id, result->files.count,
                   result->files.count == 1 ? "" : "s", rp_cli_safe(result->folder));
        return;
    }
    json_t *files = json_array();
    for (size_t i = 0; i < result->files.count; i++) {
        const struct rp_restore_file *file = &result->files.files[i];
        json_array_append_new(files, json_pack("{s:o, s:I, s:I, s:I}", "path", rp_cli_json_text(file->path), "disk",
                                               (json_int_t)file->number, "size", (json_int_t)file->size, "data",
                                               (json_int_t)file->data));
    }
    json_t *json = json_pack("{s:s, s:s, s:o, s:s, s:o, s:o}", "type", "summary", "point", point->id, "vm",
                             rp_cli_json_text(name), "vm_id", result->vm_id, "host", rp_cli_json_text(host->address),
                             "folder", rp_cli_json_text(result->folder));
    json_object_set_new(json, "imported", json_boolean(result->imported));
    json_object_set_new(json, "incremental_next", json_boolean(result->goes_on));
    json_object_set_new(json, "seconds", json_real(seconds));
    json_object_set_new(json, "files", files);
    json_object_set(json, "remarks", remarks);
    rp_cli_print_json_line(json);
}

static json_t *disks_json(const struct rp_restore_host_preview *preview)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < preview->files.count; i++) {
        const struct rp_restore_file *file = &preview->files.files[i];
        RP_AUTO_FREE char *on_host = rp_restore_host_preview_disk(preview, i);
        json_array_append_new(disks, json_pack("{s:I, s:o, s:o, s:I, s:I}", "disk", (json_int_t)file->number,
                                               "path_on_host", rp_cli_json_text(on_host), "path", rp_cli_json_text(file->path), "size",
                                               (json_int_t)file->size, "data", (json_int_t)file->data));
    }
    return disks;
}

static void print_preview_json(const struct rp_restore_host_options *options, const struct rp_point *point,
                               const struct rp_host_connection *host, const struct rp_restore_host_preview *preview)
{
    json_t *problems = json_array();
    for (size_t i = 0; i < preview->problem_count; i++)
        json_array_append_new(problems, rp_cli_json_text(preview->problems[i].text));
    json_t *json = json_pack("{s:s, s:b, s:s, s:o, s:o, s:o, s:o, s:b, s:b}", "type", "summary", "dry_run", 1, "point",
                             point->id, "vm", rp_cli_json_text(preview->vm_name), "vm_id",
                             rp_cli_json_text(options->identity == RP_IDENTITY_NEW ? NULL : point->vm_id), "host",
                             rp_cli_json_text(host->address), "folder", rp_cli_json_text(preview->folder), "imported",
                             (int)preview->imported, "same_name", (int)preview->same_name);
    json_object_set_new(json, "disks", disks_json(preview));
    json_object_set_new(json, "problems", problems);
    rp_cli_print_json_line(json);
}

static void print_preview(const struct rp_cli *cli, const struct rp_restore_host_options *options,
                          const struct rp_point *point, const struct rp_host_connection *host,
                          const struct rp_restore_host_preview *preview)
{
    rp_cli_say(cli, "would make VM %s on %s, %s%s, from %s\n", rp_cli_safe(preview->vm_name),
               rp_cli_safe(host->address), options->identity == RP_IDENTITY_NEW ? "with a new id" : "id ",
               options->identity == RP_IDENTITY_NEW ? "" : rp_cli_safe(point->vm_id),
               preview->imported ? "its exported configuration" : "its saved settings");
    for (size_t i = 0; i < preview->files.count; i++) {
        const struct rp_restore_file *file = &preview->files.files[i];
        char size[RP_SIZE_TEXT], data[RP_SIZE_TEXT];
        RP_AUTO_FREE char *on_host = rp_restore_host_preview_disk(preview, i);
        rp_cli_say(cli, "  disk %u: %s, %s of data, to %s (here %s)\n", file->number, rp_format_size(file->size, size),
                   rp_format_size(file->data, data), rp_cli_safe(on_host), rp_cli_safe(file->path));
    }
    if (preview->same_name)
        rp_cli_say(cli, "  the host has another VM of that name (--name gives this one another)\n");
    for (size_t i = 0; i < preview->problem_count; i++)
        rp_cli_say(cli, "  does not fit: %s\n", rp_cli_safe(preview->problems[i].text));
}

// What does not fit is the failure that the restore would end with.
static int dry_run(const struct rp_cli *cli, struct rp_host_connection *host, struct rp_repo *repo,
                   const struct rp_point *point, const struct rp_restore_host_options *options, struct rp_error *err)
{
    RP_CLEANUP(rp_restore_host_preview_clear) struct rp_restore_host_preview preview = {0};
    if (rp_restore_host_preview(host, repo, point, options, &preview, err))
        return -1;
    if (cli->json)
        print_preview_json(options, point, host, &preview);
    else
        print_preview(cli, options, point, host, &preview);
    return preview.problem_count ? rp_fail_as(err, &preview.problems[0]) : 0;
}

static void print_boot_check(const struct rp_cli *cli, const struct rp_point *point, const struct rp_host_connection *host,
                             const struct rp_boot_outcome *result, const char *serial, json_t *remarks)
{
    if (cli->json)
        rp_cli_print_json_line(json_pack("{s:s, s:s, s:o, s:o, s:b, s:f, s:o, s:O}", "type", "summary", "point", point->id, "vm",
                                         rp_cli_json_text(point->vm_name), "host", rp_cli_json_text(host->address), "booted",
                                         (int)result->booted, "seconds", result->seconds, "why", rp_cli_json_text(result->why), "remarks",
                                         remarks));
    else if (result->booted)
        rp_cli_say(cli, "%s@%.*s boots: %s after %.0f s\n", rp_cli_safe(point->vm_name), RP_SHORT_ID, point->id,
                   serial ? "the text was on its serial port" : "its guest answered", result->seconds);
}

static int parse_boot_check(const struct rp_cli *cli, const struct rp_restore_host_options *options,
                            struct rp_boot_check_how *how, struct rp_error *err)
{
    uint64_t limit = 300;
    const char *marker = rp_cli_value(cli, "boot-check");
    how->serial = strncmp(marker, "serial:", 7) ? NULL : marker + 7;
    if (*marker && strcmp(marker, "agent") && !how->serial)
        return rp_fail(err, RP_ERR_USAGE, "--boot-check: \"%.64s\" is neither agent nor serial:TEXT", marker);
    if (options->start || rp_cli_flag(cli, "new-id") || rp_cli_flag(cli, "keep-id") || options->vm_name)
        return rp_fail(err, RP_ERR_USAGE, "--boot-check: nothing stays of the VM, so that --start, a name, --new-id "
                       "and --keep-id are not for it");
    if (rp_cli_number(cli, "boot-limit", 1, 86400, &limit, err))
        return -1;
    how->limit_s = (unsigned)limit;
    return 0;
}

static int preview_boot_check(const struct rp_cli *cli, struct rp_host_connection *host, struct rp_repo *repo,
                              const struct rp_point *point, const struct rp_restore_host_options *options,
                              const struct rp_boot_check_how *how, struct rp_error *err)
{
    RP_CLEANUP(rp_boot_check_plan_clear) struct rp_boot_check_plan plan = {0};
    if (rp_boot_check_plan(host, point, options, how, &plan, err) ||
        dry_run(cli, host, repo, point, &plan.options, err))
        return -1;
    rp_cli_say(cli, "  would start it, without a network, and remove it again\n");
    return 0;
}

static int boot_check(const struct rp_cli *cli, struct rp_host_connection *host, struct rp_repo *repo,
                      const struct rp_point *point, struct rp_restore_host_options *options,
                      const struct rp_boot_check_how *how, struct rp_error *err)
{
    struct rp_boot_outcome result;
    RP_AUTO_FREE char *title = rp_xasprintf("boot check %s", point->vm_name ? point->vm_name : "");
    struct remarks remarks = {cli, rp_cli_progress_new(cli, title), json_array()};
    options->progress = rp_cli_progress_update;
    options->progress_context = remarks.progress;
    options->remark = on_remark;
    options->context = &remarks;
    rp_cli_signals_last_words("refpoint: ended at once: a VM \"boot check of …\" and its files may be left on the host\n");
    int failed = rp_boot_check_run(host, repo, point, options, how, &result, err);
    rp_cli_signals_last_words(NULL);
    rp_cli_progress_end(remarks.progress);
    if (!failed)
        print_boot_check(cli, point, host, &result, how->serial, remarks.texts);
    int with_remark = json_array_size(remarks.texts) > 0;
    json_decref(remarks.texts);
    if (!failed && !result.booted)
        return rp_fail(err, RP_ERR_STATE, "it does not boot: %s (waited %.0f s; the note is in the repository)", result.why, result.seconds);
    return failed ? -1 : with_remark;
}

int rp_cli_restore_host(const struct rp_cli *cli, struct rp_repo *repo, const struct rp_point *chosen,
                        const struct rp_restore_options *files, struct rp_error *err)
{
    struct rp_restore_host_options options = {.threads = files->threads, .rate = files->rate, .stop = rp_cli_stop};
    RP_AUTO_FREE char *address = NULL;
    RP_CLEANUP(rp_point_clear) struct rp_point point = {0};
    RP_CLEANUP(rp_restore_host_result_clear) struct rp_restore_host_result result = {0};
    struct rp_boot_check_how how = {0};
    bool boots = rp_cli_flag(cli, "boot-check");
    if (parse(cli, &options, &address, err) || (boots && parse_boot_check(cli, &options, &how, err)))
        return -1;
    if (files->disk >= 0)
        return rp_fail(err, RP_ERR_USAGE, "a VM gets all its disks: --to writes a single one");
    if (rp_repo_point(repo, chosen->id, &point, err))
        return -1;
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_host(cli, address, err);
    if (!host || rp_cli_host_paths(cli, host, err))
        return -1;
    if (boots)
        return cli->dry_run ? preview_boot_check(cli, host, repo, &point, &options, &how, err)
                            : boot_check(cli, host, repo, &point, &options, &how, err);
    if (cli->dry_run)
        return dry_run(cli, host, repo, &point, &options, err);
    uint64_t start = rp_clock_monotonic_ns();
    RP_AUTO_FREE char *title = rp_xasprintf("restore %s", point.vm_name ? point.vm_name : "");
    struct remarks remarks = {cli, rp_cli_progress_new(cli, title), json_array()};
    options.progress = rp_cli_progress_update;
    options.progress_context = remarks.progress;
    options.remark = on_remark;
    options.context = &remarks;
    rp_cli_signals_last_words("refpoint: ended at once: files of this restore, and a VM that is not finished, may be left "
                              "on the host\n");
    int failed = rp_restore_host_run(host, repo, &point, &options, &result, err);
    rp_cli_signals_last_words(NULL);
    rp_cli_progress_end(remarks.progress);
    if (!failed)
        print_result(cli, &options, &point, host, &result, remarks.texts,
                     (double)(rp_clock_monotonic_ns() - start) / 1e9);
    int with_remark = json_array_size(remarks.texts) > 0;
    json_decref(remarks.texts);
    return failed ? -1 : with_remark;
}
