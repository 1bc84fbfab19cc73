// refpoint disk add | remove | grow | convert | compact
#include <string.h>

#include "base/num.h"
#include "cli/select.h"
#include "disk/convert.h"
#include "rct/compact.h"

// A raw image is copied, which may take long: with a bar, and so that it can be interrupted.
static int add(const struct rp_cli *cli, struct rp_host_connection *host, const char *vm_id, const char *file, char instance[RP_HOST_ID],
               struct rp_error *err)
{
    char job[RP_HOST_ID] = "";
    struct rp_cli_progress *progress = rp_cli_progress_new(cli, "add");
    host->progress = rp_cli_progress_update;
    host->progress_context = progress;
    int failed = host->ops->add_disk(host, vm_id, file, job, instance, err) || rp_host_wait(host, job, instance, rp_cli_stop, NULL, err);
    host->progress = NULL;
    host->progress_context = NULL;
    rp_cli_progress_end(progress);
    return failed ? -1 : 0;
}

static int run_add(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    char instance[RP_HOST_ID] = "";
    if (!host || add(cli, host, vm.id, cli->args[1], instance, err) || host->ops->vm_settings(host, vm.id, &settings, err))
        return -1;
    for (size_t i = 0; i < settings.disk_count; i++) {
        const struct rp_vm_disk *disk = &settings.disks[i];
        char size[RP_SIZE_TEXT];
        if (strcmp(disk->instance, instance))
            continue;
        if (cli->json)
            rp_cli_print_json(json_pack("{s:i, s:s, s:o, s:I}", "number", (int)disk->number, "instance", disk->instance, "path",
                                        rp_cli_json_text(disk->path), "size", (json_int_t)disk->size));
        rp_cli_say(cli, "disk%u added to VM %s: %s, %s\n", disk->number, rp_cli_safe(vm.name), rp_format_size(disk->size, size),
                   rp_cli_safe(disk->path));
        return 0;
    }
    return rp_fail(err, RP_ERR_NOT_FOUND, "the host added disk %s, but does not list it", instance);
}

static int run_remove(struct rp_cli *cli, struct rp_error *err)
{
    uint32_t number;
    if (rp_cli_disk_number(cli->args[1], &number, err))
        return -1;
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (!host || host->ops->remove_disk(host, vm.id, number, job, result, err) ||
        rp_host_wait(host, job, result, NULL, NULL, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:i}", "removed", (int)number));
    rp_cli_say(cli, "disk%u removed from VM %s; its file stays\n", number, rp_cli_safe(vm.name));
    return 0;
}

static int run_grow(struct rp_cli *cli, struct rp_error *err)
{
    uint32_t number;
    uint64_t size = 0;
    if (rp_cli_disk_number(cli->args[1], &number, err))
        return -1;
    if (rp_parse_size(cli->args[2], &size, NULL))
        return rp_fail(err, RP_ERR_USAGE, "\"%.64s\" is no size (4096, 512M, 10G)", cli->args[2]);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "", text[RP_SIZE_TEXT];
    if (!host ||
        host->ops->resize_disk(host, vm.id, number, size, job, result, err) || rp_host_wait(host, job, result, NULL, NULL, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:i, s:I}", "number", (int)number, "size", (json_int_t)size));
    rp_cli_say(cli, "disk%u of VM %s has %s now\n", number, rp_cli_safe(vm.name), rp_format_size(size, text));
    return 0;
}

static int parse_format(const char *letter, const char *text, enum rp_image_format *format, struct rp_error *err)
{
    if (strcmp(text, "vhdx") && strcmp(text, "raw"))
        return rp_fail(err, RP_ERR_USAGE, "-%s: \"%.32s\" is neither vhdx nor raw", letter, text);
    *format = strcmp(text, "raw") ? RP_IMAGE_VHDX : RP_IMAGE_RAW;
    return 0;
}

struct conversion {
    const char *source, *target;
    enum rp_image_format from, to;
    struct rp_vhdx_create create;
};

static int parse_conversion(const struct rp_cli *cli, struct conversion *c, struct rp_error *err)
{
    const char *from = rp_cli_value(cli, "format"), *to = rp_cli_value(cli, "output-format");
    uint64_t block = 0;
    *c = (struct conversion){.source = cli->args[0], .target = cli->args[1], .from = RP_IMAGE_VHDX, .to = RP_IMAGE_VHDX};
    if ((to && parse_format("O", to, &c->to, err)) || rp_cli_size(cli, "block-size", &block, err))
        return -1;
    if (block && (c->to == RP_IMAGE_RAW || !rp_is_pow2(block) || block < RP_MIB || block > 256 * RP_MIB))
        return rp_fail(err, RP_ERR_USAGE, "--block-size is for VHDX files: a power of two, 1M to 256M");
    c->create.block_size = (uint32_t)block;
    if (from ? parse_format("f", from, &c->from, err) : rp_image_detect(rp_fs_posix(), c->source, &c->from, err))
        return -1;
    if (c->from == RP_IMAGE_RAW && c->to == RP_IMAGE_RAW)
        return rp_fail(err, RP_ERR_USAGE, "both would be raw: nothing to convert");
    return c->from == RP_IMAGE_RAW && !from ? rp_image_check_raw(rp_fs_posix(), c->source, err) : 0;
}

static int run_convert(struct rp_cli *cli, struct rp_error *err)
{
    struct conversion c;
    if (parse_conversion(cli, &c, err))
        return -1;
    struct rp_fs *fs = rp_fs_posix();
    struct rp_cli_progress *progress = rp_cli_progress_new(cli, "convert");
    int failed = c.to == RP_IMAGE_RAW
                     ? rp_convert_vhdx_to_raw(fs, c.source, c.target, rp_cli_progress_update, progress, err)
                     : (c.from == RP_IMAGE_RAW ? rp_convert_raw_to_vhdx : rp_convert_vhdx_to_vhdx)(
                           fs, c.source, c.target, &c.create, rp_cli_progress_update, progress, err);
    rp_cli_progress_end(progress);
    if (failed)
        return -1;
    const char *format = c.to == RP_IMAGE_RAW ? "raw" : "vhdx";
    if (cli->json)
        rp_cli_print_json_line(json_pack("{s:s, s:o, s:s}", "type", "summary", "path", rp_cli_json_text(c.target), "format", format));
    rp_cli_say(cli, "%s written (%s)\n", rp_cli_safe(c.target), format);
    return 0;
}

static const struct rp_cli_option convert_options[] = {
    {'f', "format", "FORMAT", "what SRC is: vhdx or raw (default: what it looks like)"},
    {'O', "output-format", "FORMAT", "what DST shall be: vhdx (default) or raw"},
    {0, "block-size", "SIZE", "of the VHDX, 1M to 256M (default: 2M)"},
    {0},
};

static int run_compact(struct rp_cli *cli, struct rp_error *err)
{
    uint64_t before = 0, after = 0;
    struct rp_cli_progress *progress = rp_cli_progress_new(cli, "compact");
    int failed = rp_rct_compact(rp_fs_posix(), cli->args[0], !cli->dry_run, &before, &after, rp_cli_progress_update, progress, err);
    rp_cli_progress_end(progress);
    if (failed)
        return -1;
    char was[RP_SIZE_TEXT], is[RP_SIZE_TEXT], back[RP_SIZE_TEXT];
    if (cli->json)
        rp_cli_print_json_line(json_pack("{s:s, s:o, s:b, s:I, s:I}", "type", "summary", "path", rp_cli_json_text(cli->args[0]),
                                         "dry_run", (int)cli->dry_run, "before", (json_int_t)before, "after", (json_int_t)after));
    else if (after >= before)
        rp_cli_say(cli, "%s: %s, nothing to give back\n", rp_cli_safe(cli->args[0]), rp_format_size(before, was));
    else
        rp_cli_say(cli, "%s: %s%s given back: %s, was %s\n", rp_cli_safe(cli->args[0]), cli->dry_run ? "would have " : "",
                   rp_format_size(before - after, back), rp_format_size(after, is), rp_format_size(before, was));
    return 0;
}

const struct rp_cli_verb rp_cli_disk_verbs[] = {
    {
        .name = "disk add",
        .arguments = "[HOST/]VM FILE",
        .summary = "give a VM that is off another disk",
        .details = "A raw image is copied into the host's folder, a VHDX is used in place.\n"
                   "The next backup reads the new disk in full.\n",
        .examples = "refpoint disk add web1 data.raw\n",
        .min_args = 2,
        .max_args = 2,
        .run = run_add,
    },
    {
        .name = "disk remove",
        .arguments = "[HOST/]VM DISK",
        .summary = "take a disk from a VM that is off; its file stays",
        .details = "DISK is its name or number as \"vm show\" has it. The VM must have no checkpoints.\n",
        .examples = "refpoint disk remove web1 disk1\n",
        .min_args = 2,
        .max_args = 2,
        .run = run_remove,
    },
    {
        .name = "disk grow",
        .arguments = "[HOST/]VM DISK SIZE",
        .summary = "make a disk of a VM larger, also while it runs",
        .details = "Change tracking survives: the next backup is still incremental.\n",
        .examples = "refpoint disk grow web1 disk0 20G\n",
        .min_args = 3,
        .max_args = 3,
        .run = run_grow,
    },
    {
        .name = "disk convert",
        .arguments = "SRC DST",
        .summary = "make a VHDX of a raw image, or the other way round",
        .details = "SRC is a file that no VM uses meanwhile: a raw image or a VHDX, with its\n"
                   "parents when it is a differencing disk; DST has all of the content. A DST that\n"
                   "exists is never overwritten; an interrupted conversion leaves nothing. On XFS\n"
                   "and Btrfs both share their blocks, and hardly anything is read or written.\n",
        .examples = "refpoint disk convert web1.raw web1.vhdx\n"
                    "refpoint disk convert -O raw web1.vhdx web1.raw\n",
        .options = convert_options,
        .min_args = 2,
        .max_args = 2,
        .run = run_convert,
    },
    {
        .name = "disk compact",
        .arguments = "FILE",
        .summary = "make a VHDX file shorter that has free space inside",
        .details = "Blocks at its end move into space that trims left before them. The disk in the\n"
                   "file stays as it is, and so does its change tracking: the next backup is still\n"
                   "incremental. Refused while anybody has the file open: the VM must be off.\n"
                   "Interrupted, or cut off from power, the file is whole, and partly compacted.\n",
        .examples = "refpoint disk compact /srv/vm/web1.vhdx\n",
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_DRY_RUN,
        .run = run_compact,
    },
    {0},
};
