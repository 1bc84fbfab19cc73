// refpoint restore
#include <string.h>

#include "backup/restore.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"
#include "cli/address.h"
#include "cli/point_json.h"

static int parse(const struct rp_cli *cli, struct rp_restore_options *options, struct rp_error *err)
{
    uint64_t disk = UINT64_MAX, threads = 0;
    options->directory = rp_cli_value(cli, "to");
    if (!options->directory || !*options->directory)
        return rp_fail(err, RP_ERR_USAGE, "where to? Give --to DIR");
    const char *format = rp_cli_value(cli, "output-format");
    if (format && strcmp(format, "vhdx") && strcmp(format, "raw"))
        return rp_fail(err, RP_ERR_USAGE, "-O: \"%.32s\" is neither vhdx nor raw", format);
    options->format = format && !strcmp(format, "raw") ? RP_IMAGE_RAW : RP_IMAGE_VHDX;
    if (rp_cli_number(cli, "disk", 0, UINT32_MAX, &disk, err) || rp_cli_number(cli, "threads", 1, 16, &threads, err) ||
        rp_cli_size(cli, "limit-rate", &options->rate, err))
        return -1;
    options->disk = disk == UINT64_MAX ? -1 : (int64_t)disk;
    options->threads = (unsigned)threads;
    return 0;
}

static void print_result(const struct rp_cli *cli, const struct rp_point *point, const struct rp_restore_result *result, double seconds)
{
    json_t *files = json_array();
    for (size_t i = 0; i < result->count; i++) {
        const struct rp_restore_file *file = &result->files[i];
        char size[RP_SIZE_TEXT], data[RP_SIZE_TEXT];
        rp_cli_say(cli, "%s%s: %s, %s of data\n", cli->dry_run ? "would write " : "", rp_cli_safe(file->path),
                   rp_format_size(file->size, size), rp_format_size(file->data, data));
        json_array_append_new(files, json_pack("{s:o, s:I, s:I, s:I}", "path", rp_cli_json_text(file->path), "disk",
                                               (json_int_t)file->number, "size", (json_int_t)file->size, "data",
                                               (json_int_t)file->data));
    }
    if (cli->json)
        rp_cli_print_json_line(json_pack("{s:s, s:s, s:o, s:b, s:f, s:O}", "type", "summary", "point", point->id, "vm",
                                         rp_cli_json_text(point->vm_name), "dry_run", (int)cli->dry_run, "seconds", seconds,
                                         "files", files));
    else if (!cli->dry_run)
        rp_cli_say(cli, "restored %s@%.*s in %.1f s\n", rp_cli_safe(point->vm_name), RP_SHORT_ID, point->id, seconds);
    json_decref(files);
}

static int run(struct rp_cli *cli, struct rp_error *err)
{
    struct rp_restore_options options = {0};
    if (parse(cli, &options, err))
        return -1;
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    RP_CLEANUP(rp_restore_result_clear) struct rp_restore_result result = {0};
    struct rp_choice choice;
    if (!repo || rp_repo_points(repo, &points, err) ||
        rp_address_choose(cli, &points, cli->arg_count ? cli->args[0] : NULL, &choice, err))
        return -1;
    if (choice.disk >= 0 && options.disk >= 0 && choice.disk != options.disk)
        return rp_fail(err, RP_ERR_USAGE, "the address and --disk name different disks");
    if (choice.disk >= 0)
        options.disk = choice.disk;
    uint64_t start = rp_clock_monotonic_ns();
    RP_AUTO_FREE char *title = rp_xasprintf("restore %s", choice.point->vm_name ? choice.point->vm_name : "");
    struct rp_cli_progress *progress = rp_cli_progress_new(cli, title);
    options.progress = rp_cli_progress_update;
    options.context = progress;
    int failed = (cli->dry_run ? rp_restore_preview : rp_restore_run)(repo, choice.point, &options, &result, err);
    rp_cli_progress_end(progress);
    if (!failed)
        print_result(cli, choice.point, &result, (double)(rp_clock_monotonic_ns() - start) / 1e9);
    return failed;
}

static const struct rp_cli_option options[] = {
    {0, "to", "DIR", "the folder to write to; made when missing"},
    {'O', "output-format", "FORMAT", "vhdx (default) or raw"},
    {0, "disk", "N", "this disk only"},
    {0, "limit-rate", "SIZE", "bytes per second at most, as 50M"},
    {0, "threads", "N", "threads that read and write (default: by the machine)"},
    RP_ADDRESS_VM_OPTION,
    {0},
};

const struct rp_cli_verb rp_cli_restore_verbs[] = {
    {
        .name = "restore",
        .arguments = "VM[@POINT][:DISK] --to DIR",
        .summary = "write the disks of a restore point to image files",
        .details = "The files are DIR/<vm>-disk<N>.vhdx (or .raw), with every unusual character\n"
                   "of the VM's name as '_'. A file that exists is never overwritten. Files get\n"
                   "their names when all of them are complete and on disk; an interrupted\n"
                   "restore leaves nothing.\n",
        .examples = "refpoint restore web1 --to /srv/restored\n"
                    "refpoint restore web1@-1 --to /srv/restored -O raw\n"
                    "refpoint restore web1@2026-11-22T12:00:00 --disk 0 --to .\n",
        .options = options,
        .max_args = 1,
        .flags = RP_CLI_DRY_RUN,
        .run = run,
    },
    {0},
};
