// refpoint restore
#include <string.h>

#include "backup/restore.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"
#include "cli/address.h"
#include "cli/host_paths.h"
#include "cli/point_json.h"
#include "cli/restore_host.h"
#include "io/fs.h"

// Options that are for one of the two only.
static int check_options(const struct rp_cli *cli, bool to_host, struct rp_error *err)
{
    static const char *const of_host[] = {"folder", "name", "new-id", "keep-id", "start", "map", "boot-check", "boot-limit"};
    static const char *const of_files[] = {"output-format", "disk", "salvage"};
    for (size_t i = 0; !to_host && i < sizeof of_host / sizeof *of_host; i++)
        if (rp_cli_flag(cli, of_host[i]))
            return rp_fail(err, RP_ERR_USAGE, "--%s goes with --to-host", of_host[i]);
    for (size_t i = 0; to_host && i < sizeof of_files / sizeof *of_files; i++)
        if (rp_cli_flag(cli, of_files[i]))
            return rp_fail(err, RP_ERR_USAGE, "--%s goes with --to: a VM gets all its disks, whole and as VHDX", of_files[i]);
    if (rp_cli_flag(cli, "boot-limit") && !rp_cli_flag(cli, "boot-check"))
        return rp_fail(err, RP_ERR_USAGE, "--boot-limit goes with --boot-check");
    return 0;
}

static int parse(const struct rp_cli *cli, struct rp_restore_options *options, struct rp_error *err)
{
    uint64_t disk = UINT64_MAX, threads = 0;
    options->directory = rp_cli_value(cli, "to");
    bool to_host = rp_cli_flag(cli, "to-host");
    if (to_host && options->directory)
        return rp_fail(err, RP_ERR_USAGE, "--to writes image files, --to-host makes a VM: which of them?");
    if (!to_host && (!options->directory || !*options->directory))
        return rp_fail(err, RP_ERR_USAGE, "where to? Give --to DIR, or --to-host HOST");
    if (check_options(cli, to_host, err))
        return -1;
    const char *format = rp_cli_value(cli, "output-format");
    if (format && strcmp(format, "vhdx") && strcmp(format, "raw"))
        return rp_fail(err, RP_ERR_USAGE, "-O: \"%.32s\" is neither vhdx nor raw", format);
    options->format = format && !strcmp(format, "raw") ? RP_IMAGE_RAW : RP_IMAGE_VHDX;
    if (rp_cli_number(cli, "disk", 0, UINT32_MAX, &disk, err) || rp_cli_number(cli, "threads", 1, 16, &threads, err) ||
        rp_cli_size(cli, "limit-rate", &options->rate, err))
        return -1;
    if (rp_cli_flag(cli, "limit-rate") && !options->rate)
        return rp_fail(err, RP_ERR_USAGE, "--limit-rate: nothing would ever be written");
    options->salvage = rp_cli_flag(cli, "salvage");
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
        json_array_append_new(files, json_pack("{s:o, s:I, s:I, s:I, s:I, s:o}", "path", rp_cli_json_text(file->path), "disk",
                                               (json_int_t)file->number, "size", (json_int_t)file->size, "data",
                                               (json_int_t)file->data, "lost", (json_int_t)rp_ranges_total(&file->lost),
                                               "lost_list", rp_cli_json_text(file->list)));
    }
    if (cli->json)
        rp_cli_print_json_line(json_pack("{s:s, s:s, s:o, s:b, s:f, s:O}", "type", "summary", "point", point->id, "vm",
                                         rp_cli_json_text(point->vm_name), "dry_run", (int)cli->dry_run, "seconds", seconds,
                                         "files", files));
    else if (!cli->dry_run)
        rp_cli_say(cli, "restored %s@%.*s in %.1f s\n", rp_cli_safe(point->vm_name), RP_SHORT_ID, point->id, seconds);
    json_decref(files);
}

static int name_the_way_out(struct rp_error *err)
{
    struct rp_error why = *err;
    rp_error_clear(err);
    return rp_fail(err, why.code, "%s; --salvage restores the rest", why.text);
}

// 1: not everything could be restored.
static int tell_lost(const struct rp_cli *cli, const struct rp_restore_result *result)
{
    int status = 0;
    for (size_t i = 0; i < result->count; i++) {
        const struct rp_restore_file *file = &result->files[i];
        char size[RP_SIZE_TEXT];
        if (!file->lost.count)
            continue;
        rp_cli_remark(cli, "%s: %s in %zu place%s %s; %s %s them", rp_cli_safe(file->path),
                      rp_format_size(rp_ranges_total(&file->lost), size), file->lost.count, file->lost.count == 1 ? "" : "s",
                      cli->dry_run ? "at least cannot be read, and would be zeros" : "could not be read and are zeros",
                      rp_cli_safe(rp_path_name(file->list)), cli->dry_run ? "would list" : "lists");
        status = 1;
    }
    return status;
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
    if (choice.of_any_vm)
        return rp_fail(err, RP_ERR_USAGE, "which VM? \"%.64s\" is the newest point of whichever was backed up last: give VM%.64s, or an id",
                       cli->args[0], cli->args[0]);
    if (choice.disk >= 0 && options.disk >= 0 && choice.disk != options.disk)
        return rp_fail(err, RP_ERR_USAGE, "the address and --disk name different disks");
    if (choice.disk >= 0)
        options.disk = choice.disk;
    int status = rp_address_remark(cli, &points, cli->arg_count ? cli->args[0] : NULL);
    if (rp_cli_flag(cli, "to-host")) {
        int of_host = rp_cli_restore_host(cli, repo, choice.point, &options, err);
        return of_host ? of_host : status;
    }
    uint64_t start = rp_clock_monotonic_ns();
    RP_AUTO_FREE char *title = rp_xasprintf("restore %s", choice.point->vm_name ? choice.point->vm_name : "");
    struct rp_cli_progress *progress = rp_cli_progress_new(cli, title);
    options.progress = rp_cli_progress_update;
    options.context = progress;
    int failed = (cli->dry_run ? rp_restore_preview : rp_restore_run)(repo, choice.point, &options, &result, err);
    rp_cli_progress_end(progress);
    if (failed)
        return result.damaged && !options.salvage ? name_the_way_out(err) : -1;
    print_result(cli, choice.point, &result, (double)(rp_clock_monotonic_ns() - start) / 1e9);
    return tell_lost(cli, &result) ? 1 : status;
}

static const struct rp_cli_option options[] = {
    {0, "to", "DIR", "the folder to write to; made when missing"},
    {'O', "output-format", "FORMAT", "vhdx (default) or raw"},
    {0, "disk", "N", "this disk only"},
    {0, "salvage", NULL, "of a damaged backup, whatever can be read: the rest is zeros, and listed"},
    {0, "to-host", "HOST[/VM]", "make a VM of it on this host, under this name"},
    {0, "folder", "FOLDER", "where its files go, as the host calls it (default: its name, in the first mapped folder)"},
    {0, "name", "NAME", "the name of the new VM, whatever characters it has"},
    {0, "keep-id", NULL, "it is the same VM (default); the host must not have it any more"},
    {0, "new-id", NULL, "it is another VM, beside the one that may be there"},
    {0, "start", NULL, "start it"},
    {0, "boot-check", "[=serial:TEXT]", "only see whether it boots, without a network, and remove it again"},
    {0, "boot-limit", "SECONDS", "with --boot-check: how long it may take to boot (default 300)"},
    RP_CLI_MAP_OPTION,
    {0, "limit-rate", "SIZE", "bytes per second at most, as 50M"},
    {0, "threads", "N", "threads that read and write (default: by the machine)"},
    RP_ADDRESS_VM_OPTION,
    {0},
};

const struct rp_cli_verb rp_cli_restore_verbs[] = {
    {
        .name = "restore",
        .arguments = "VM[@POINT][:DISK] --to DIR | --to-host HOST[/VM]",
        .summary = "write the disks of a restore point to image files, or make a VM of it on a host",
        .details = "The files are DIR/<vm>-disk<N>.vhdx (or .raw), with every unusual character\n"
                   "of the VM's name as '_'. A file that exists is never overwritten. Files get\n"
                   "their names when all of them are complete and on disk; an interrupted\n"
                   "restore leaves nothing. One that is killed leaves <file>.partial.<process>,\n"
                   "which the next one into that folder removes; one that is killed while it gives\n"
                   "names leaves those that it gave, too: an image under its name is complete, and a\n"
                   "list <file>.lost without an image can be removed.\n"
                   "\n"
                   "Where data in the repository is damaged, a restore fails, and says what is. With\n"
                   "--salvage what can be read is written all the same: the rest is zeros, and\n"
                   "listed in <file>.lost, a line OFFSET LENGTH in bytes of the disk for each place.\n"
                   "The exit status is 1 then.\n"
                   "\n"
                   "With --to-host the disks go to a folder of the host that is mapped to this\n"
                   "machine, and the VM is made from its exported configuration or its saved\n"
                   "settings, validated, and only then made real. Where the host can take the\n"
                   "reference point back, the next backup is incremental. --dry-run says what\n"
                   "would be made, and all that would keep it from that.\n"
                   "\n"
                   "With --boot-check the VM is made under a new id and a name of its own, without\n"
                   "network adapters, physical disks and devices passed through, and started. It has\n"
                   "booted when its guest's agent answers and brings the file systems to rest; with\n"
                   "--boot-check=serial:TEXT, for guests without an agent, when TEXT comes on its\n"
                   "serial port (a guest of Linux writes there what console=ttyS0 sends there), among\n"
                   "the first 64 MiB. Serial ports can be read on this machine only, --to-host\n"
                   "local:DIR. Then the VM and its files are removed, and the outcome becomes a note\n"
                   "on the restore point.\n",
        .examples = "refpoint restore web1 --to /srv/restored\n"
                    "refpoint restore web1@-1 --to /srv/restored -O raw\n"
                    "refpoint restore web1@2026-11-22T12:00:00 --disk 0 --to .\n"
                    "refpoint restore web1@-1 --to /srv/restored --salvage\n"
                    "refpoint restore web1 --to-host hv1 --folder 'D:\\VMs\\web1' --start\n"
                    "refpoint restore web1@-1 --to-host hv1/web1-test --new-id\n"
                    "refpoint restore web1 --to-host hv1 --boot-check\n"
                    "refpoint restore web1 --to-host local:/var/lib/refpoint --folder /srv/check '--boot-check=serial:login:'\n",
        .options = options,
        .max_args = 1,
        .flags = RP_CLI_DRY_RUN,
        .run = run,
    },
    {0},
};
