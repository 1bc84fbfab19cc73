// refpoint backup
#include <string.h>

#include "backup/backup.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"
#include "cli/address.h"
#include "cli/consistency.h"
#include "cli/host_paths.h"
#include "cli/point_json.h"

struct remarks {
    const struct rp_cli *cli;
    struct rp_cli_progress *progress, *merge; // the second when the host's merge is waited for
    json_t *texts;
};

static void on_remark(void *context, const char *text)
{
    struct remarks *remarks = context;
    rp_cli_progress_hide(remarks->progress);
    if (remarks->merge)
        rp_cli_progress_hide(remarks->merge);
    rp_cli_remark(remarks->cli, "%s", text);
    json_array_append_new(remarks->texts, rp_cli_json_text(text));
}

static void on_merging(void *context, const struct rp_vm *vm)
{
    struct remarks *remarks = context;
    if (!vm->merge_total)
        return;
    RP_AUTO_FREE char *title = rp_xasprintf("merge %s", vm->name);
    rp_cli_progress_hide(remarks->progress);
    if (!remarks->merge)
        remarks->merge = rp_cli_progress_new(remarks->cli, title);
    rp_cli_progress_update(remarks->merge, vm->merge_done, vm->merge_total);
}

static int parse(const struct rp_cli *cli, struct rp_backup_options *options, struct rp_error *err)
{
    uint64_t threads = 0, timeout = 600;
    options->full = rp_cli_flag(cli, "full");
    options->ignore_room = rp_cli_flag(cli, "no-space-check");
    options->left_out_known = rp_cli_flag(cli, "left-out-known");
    if (rp_cli_number(cli, "threads", 1, 16, &threads, err) || rp_cli_number(cli, "merge-timeout", 0, 86400, &timeout, err) ||
        rp_cli_size(cli, "limit-rate", &options->rate, err))
        return -1;
    if (rp_cli_flag(cli, "limit-rate") && !options->rate)
        return rp_fail(err, RP_ERR_USAGE, "--limit-rate: nothing would ever be read");
    const char *reader = rp_cli_value(cli, "reader");
    if (reader && rp_reader_parse(reader, &options->reader))
        return rp_fail(err, RP_ERR_USAGE, "--reader: \"%.32s\" is none of virtual-disk, share and export", reader);
    options->threads = (unsigned)threads;
    options->merge_timeout_ms = (unsigned)timeout * 1000;
    options->stop = rp_cli_stop;
    return 0;
}

static void print_result(const struct rp_cli *cli, const struct rp_backup_result *result, json_t *remarks, double seconds)
{
    const struct rp_point *point = &result->point;
    uint64_t size = 0;
    for (size_t i = 0; i < point->disk_count; i++)
        size += point->disks[i].root.size;
    if (cli->json) {
        json_t *json = rp_point_json(point);
        json_object_set_new(json, "type", json_string("summary"));
        json_object_set_new(json, "seconds", json_real(seconds));
        json_object_set_new(json, "merge_seconds", json_real((double)result->wait_ns / 1e9));
        json_object_set_new(json, "merge_pending", json_boolean(result->merge_pending));
        json_object_set_new(json, "orphans_removed", json_integer(result->orphans));
        json_object_set(json, "remarks", remarks);
        rp_cli_print_json_line(json);
        return;
    }
    char read[RP_SIZE_TEXT], of[RP_SIZE_TEXT], stored[RP_SIZE_TEXT];
    rp_cli_say(cli, "%s: %s backup %.*s in %.1f s: read %s of %s (%.1f %%), stored %s\n", rp_cli_safe(point->vm_name),
               point->kind, RP_SHORT_ID, point->id, seconds, rp_format_size(point->bytes_read, read), rp_format_size(size, of),
               size ? 100.0 * (double)point->bytes_read / (double)size : 0.0, rp_format_size(point->bytes_stored, stored));
    for (size_t i = 0; i < point->disk_count; i++)
        if (point->disks[i].reason)
            rp_cli_say(cli, "  disk %u in full: %s\n", point->disks[i].number, rp_cli_safe(point->disks[i].reason));
    if (!strcmp(point->consistency_asked, "application"))
        rp_cli_say(cli, "  %s-consistent%s%s\n", rp_cli_safe(point->consistency_reached), point->consistency_reason ? ": " : "",
                   rp_cli_safe(point->consistency_reason));
    if (result->orphans)
        rp_cli_say(cli, "  removed %u leftover%s of interrupted backups from the host\n", result->orphans, result->orphans == 1 ? "" : "s");
}

static int preview(const struct rp_cli *cli, struct rp_host_connection *host, struct rp_repo *repo, const struct rp_vm *vm,
                   const struct rp_backup_options *options, struct rp_error *err)
{
    struct rp_backup_preview preview;
    if (rp_backup_preview(host, repo, vm, options, &preview, err))
        return -1;
    json_t *disks = json_array();
    for (size_t i = 0; i < preview.plan.count; i++) {
        const struct rp_plan_disk *disk = &preview.plan.disks[i];
        char size[RP_SIZE_TEXT];
        rp_cli_say(cli, "%s: would read disk %u (%s) %s%s\n", rp_cli_safe(vm->name), disk->disk->number,
                   rp_format_size(disk->disk->size, size), disk->base ? "where it changed" : "in full: ", rp_cli_safe(disk->reason));
        json_array_append_new(disks, json_pack("{s:I, s:I, s:s, s:o}", "number", (json_int_t)disk->disk->number, "size",
                                               (json_int_t)disk->disk->size, "kind", disk->base ? "incremental" : "full",
                                               "reason", disk->base ? json_null() : rp_cli_json_text(disk->reason)));
    }
    json_t *left_out = json_array();
    for (size_t i = 0; i < preview.settings.outside_count; i++) {
        rp_cli_say(cli, "%s: would leave out %s\n", rp_cli_safe(vm->name), rp_cli_safe(preview.settings.outside[i]));
        json_array_append_new(left_out, rp_cli_json_text(preview.settings.outside[i]));
    }
    if (cli->json)
        rp_cli_print_json_line(json_pack("{s:s, s:o, s:s, s:s, s:o, s:o, s:o}", "type", "plan", "vm", rp_cli_json_text(vm->name), "vm_id",
                                         vm->id, "reader", rp_reader_name(preview.reader), "base",
                                         rp_cli_json_text(preview.base.point ? preview.base.point->id : NULL), "disks", disks, "left_out", left_out));
    else
        json_decref(disks), json_decref(left_out);
    rp_backup_preview_clear(&preview);
    return 0;
}

// Returns 0, 1 with a remark, -1.
static int backup_one(const struct rp_cli *cli, struct rp_repo *repo, const char *address, bool is_name,
                      struct rp_backup_options *options, const struct rp_cli_consistency *asked, struct rp_error *err)
{
    RP_AUTO_FREE char *host_address = NULL;
    const char *name = address;
    if (!is_name)
        rp_address_split_host(address, &host_address, &name);
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_host(cli, host_address, err);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    if (!host || host->ops->find_vm(host, name, &vm, err))
        return -1;
    if (rp_cli_size(cli, "merge-rate", &host->merge_rate, err) || rp_cli_host_paths(cli, host, err))
        return -1;
    struct rp_cli_consistency consistency = rp_cli_consistency_of(asked, &vm);
    options->consistency = consistency.asked;
    options->allow_crash = consistency.allow_crash;
    options->by_default = !asked->asked;
    host->frozen_ms = consistency.frozen_ms;
    if (cli->dry_run)
        return preview(cli, host, repo, &vm, options, err);
    uint64_t start = rp_clock_monotonic_ns();
    RP_AUTO_FREE char *title = rp_xasprintf("backup %s", vm.name);
    struct rp_cli_progress *progress = rp_cli_progress_new(cli, title);
    struct remarks remarks = {cli, progress, NULL, json_array()};
    options->progress = rp_cli_progress_update;
    options->progress_context = progress;
    options->remark = on_remark;
    options->merging = on_merging;
    options->context = &remarks;
    struct rp_backup_result result;
    rp_cli_signals_last_words("refpoint: ended at once: a checkpoint, a reference point or an export of this backup may be "
                              "left on the host; the next backup of the VM into this repository removes it\n");
    int failed = rp_backup_run(host, repo, &vm, options, &result, err);
    rp_cli_signals_last_words(NULL);
    rp_cli_progress_end(remarks.merge);
    rp_cli_progress_end(progress);
    if (!failed)
        print_result(cli, &result, remarks.texts, (double)(rp_clock_monotonic_ns() - start) / 1e9);
    int with_remark = json_array_size(remarks.texts) > 0;
    json_decref(remarks.texts);
    rp_backup_result_clear(&result);
    return failed ? -1 : with_remark;
}

static int run(struct rp_cli *cli, struct rp_error *err)
{
    struct rp_backup_options options = {0};
    struct rp_cli_consistency consistency;
    const char *by_name = rp_cli_value(cli, "vm");
    if (parse(cli, &options, err) || rp_cli_consistency_parse(cli, &consistency, err))
        return -1;
    if (!cli->arg_count && !by_name)
        return rp_fail(err, RP_ERR_USAGE, "which VM? Give its name or GUID");
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    if (!repo)
        return -1;
    size_t count = cli->arg_count + (by_name ? 1 : 0), failed = 0;
    int result = 0;
    for (size_t i = 0; i < count; i++) {
        const char *address = i < cli->arg_count ? cli->args[i] : by_name;
        struct rp_error one = {0};
        int status = backup_one(cli, repo, address, i == cli->arg_count, &options, &consistency, &one);
        if (status >= 0) {
            result |= status;
            continue;
        }
        if (count == 1 || rp_cli_stopped()) {
            *err = one;
            return count == 1 ? -1 : rp_context(err, "%s", address);
        }
        rp_context(&one, "backup %s", address); // the other VMs get their backups all the same
        rp_cli_print_error(cli, &one);
        failed++;
    }
    if (failed)
        return rp_fail(err, RP_ERR_IO, "%zu of %zu backups failed", failed, count);
    return result;
}

static const struct rp_cli_option options[] = {
    {0, "full", NULL, "read everything allocated, also what did not change"},
    {0, "limit-rate", "SIZE", "read at most so many bytes per second, as 50M"},
    RP_CLI_CONSISTENCY_OPTIONS,
    {0, "no-space-check", NULL, "begin also when the repository seems to have too little room"},
    {0, "left-out-known", NULL, "no remark on disks that a checkpoint leaves out, as physical ones"},
    {0, "merge-rate", "SIZE", "the host's merges may move so many bytes per second, as 50M"},
    {0, "merge-timeout", "SECONDS", "how long to wait for the host's merges (default 600)"},
    {0, "reader", "KIND", "virtual-disk, share or export (default: what suits the host)"},
    RP_CLI_MAP_OPTION,
    RP_CLI_EXPORT_FOLDER_OPTION,
    {0, "threads", "N", "threads that store, a few more read (default: by the machine)"},
    RP_ADDRESS_VM_OPTION,
    {0},
};

const struct rp_cli_verb rp_cli_backup_verbs[] = {
    {
        .name = "backup",
        .arguments = "[HOST/]VM...",
        .summary = "back VMs up: in full the first time, then only what changed",
        .details = "Every restore point is a full one: it shares with the others what did not\n"
                   "change. A disk is read in full when its changes cannot be known; the\n"
                   "restore point records why. Interrupted (Ctrl-C), a backup asks the host to end\n"
                   "what it is at, removes what was made, and says so; interrupted twice, it ends\n"
                   "at once. What it leaves then, or when it is killed, the next one removes.\n"
                   "\n"
                   "Readers: the files of this machine (virtual-disk, for local:DIR); the host's\n"
                   "files in a mount of its folders (share, where --map or the hosts file says\n"
                   "where each of them is); copies that the host makes (export) in a folder that\n"
                   "both sides see, which are removed again.\n"
                   "\n" RP_CLI_CONSISTENCY_DETAILS,
        .examples = "refpoint backup web1 -r /backup/repo\n"
                    "refpoint backup web1 db1 --limit-rate 50M\n"
                    "refpoint backup web1 --consistency application-only --freeze-limit 5\n"
                    "refpoint backup local:/srv/vms/web1 --json\n"
                    "refpoint backup hv1/web1 --map 'D:\\VMs = /mnt/hv1-d'\n"
                    "refpoint backup hv1/web1 --export-folder 'E:\\Export = /mnt/hv1-export'\n"
                    "refpoint backup web1 --dry-run\n",
        .options = options,
        .max_args = RP_CLI_ANY,
        .flags = RP_CLI_DRY_RUN,
        .run = run,
    },
    {0},
};
