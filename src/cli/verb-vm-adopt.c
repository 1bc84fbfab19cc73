// refpoint vm adopt | release
#include <string.h>
#include <strings.h>

#include "base/num.h"
#include "cli/address.h"
#include "cli/text_diff.h"
#include "cli/cli.h"
#include "cli/select.h"
#include "host/local.h"

// Domains are of the machine on which libvirt runs.
static struct rp_host_connection *need_local(struct rp_host_connection *host, const char *verb, struct rp_error *err)
{
    if (!host || rp_host_is_local(host))
        return host;
    rp_fail(err, RP_ERR_UNSUPPORTED, "%s: %s works on the host itself: run it there, with -H local:DIR", host->address, verb);
    rp_host_close(host);
    return NULL;
}

static void print_diff(const char *before, const char *after)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf diff = {0};
    rp_cli_text_diff(before, after, &diff);
    rp_cli_print("\nThe definition of the domain:\n%s", diff.size ? rp_buf_text(&diff) : "  (stays as it is)\n");
}

// ---- adopt ----------------------------------------------------------------------------------------------------------

static const char *verdict_name(enum rp_adopt_verdict verdict)
{
    switch (verdict) {
    case RP_ADOPT_TAKEN: return "taken";
    case RP_ADOPT_LEFT: return "left";
    case RP_ADOPT_REFUSED: return "refused";
    }
    return "";
}

static json_t *adoption_json(const struct rp_adoption *plan, bool adopted)
{
    json_t *items = json_array();
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_adopt_item *item = &plan->items[i];
        json_array_append_new(items, json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:b, s:b, s:I, s:I}", "what", rp_cli_json_text(item->what),
            "verdict", verdict_name(item->verdict), "reason", rp_cli_json_text(item->reason), "path", rp_cli_json_text(item->path),
            "format", rp_cli_json_text(item->format), "vhdx", rp_cli_json_text(item->vhdx), "in_place", (int)item->in_place, "shared",
            (int)item->shared, "size", (json_int_t)item->size, "room", (json_int_t)item->room));
    }
    return json_pack("{s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "adopted", (int)adopted, "id", plan->uuid, "name",
                     rp_cli_json_text(plan->name), "domain", rp_cli_json_text(plan->domain), "uri", rp_cli_json_text(plan->uri), "items",
                     items, "before", rp_cli_json_text(plan->before), "after", rp_cli_json_text(plan->after));
}

static void show_item(const struct rp_adopt_item *item)
{
    char size[RP_SIZE_TEXT], room[RP_SIZE_TEXT];
    rp_cli_print("%-10s %-8s", item->what, verdict_name(item->verdict));
    if (*item->path)
        rp_cli_print(" %s (%s%s%s)", item->path, item->format, item->size ? ", " : "", item->size ? rp_format_size(item->size, size) : "");
    rp_cli_print("\n");
    if (item->verdict == RP_ADOPT_TAKEN)
        rp_cli_print("           %s%s%s\n", item->in_place ? "used in place" : "becomes ", item->in_place ? "" : item->vhdx,
                     item->in_place ? "" : item->shared ? ", shares its blocks: no room is needed" : "");
    if (item->verdict == RP_ADOPT_TAKEN && !item->in_place && !item->shared)
        rp_cli_print("           needs %s there\n", rp_format_size(item->room, room));
    if (*item->reason)
        rp_cli_print("           %s\n", item->reason);
}

static void show_adoption(const struct rp_adoption *plan)
{
    rp_cli_print("domain %s of %s, id %s\n\n", plan->domain, plan->uri, plan->uuid);
    for (size_t i = 0; i < plan->count; i++)
        show_item(&plan->items[i]);
    rp_cli_print("\n%s\n", plan->refused ? "It cannot be adopted. Nothing has been changed."
                                         : "Images that are not used in place stay as they are until the VM is released.");
    if (plan->after)
        print_diff(plan->before, plan->after);
}

static int run_adopt(struct rp_cli *cli, struct rp_error *err)
{
    const char *uri = rp_cli_value(cli, "connect");
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = need_local(rp_cli_open_host(cli, NULL, err), "vm adopt", err);
    RP_CLEANUP(rp_host_local_adoption_clear) struct rp_adoption plan = {0};
    const struct rp_adopt_options options = {
        .name = rp_cli_value(cli, "name"), .folder = rp_cli_value(cli, "disks"), .no_iothread = rp_cli_flag(cli, "no-iothread")};
    if (!host || rp_host_local_adopt_plan(host, uri ? uri : "qemu:///system", cli->args[0], &options, &plan, err))
        return -1;
    if (cli->dry_run) {
        if (cli->json)
            rp_cli_print_json(adoption_json(&plan, false));
        else
            show_adoption(&plan);
        return plan.refused ? rp_host_local_adopt(host, &plan, err) : 0; // which says why it does not
    }
    RP_CLEANUP(rp_cli_progress_end_p) struct rp_cli_progress *progress = rp_cli_progress_new(cli, "adopt");
    host->progress = rp_cli_progress_update;
    host->progress_context = progress;
    int failed = rp_host_local_adopt(host, &plan, err);
    rp_cli_progress_end(progress);
    progress = NULL;
    if (failed)
        return -1;
    if (cli->json)
        rp_cli_print_json(adoption_json(&plan, true));
    for (size_t i = 0; i < plan.count; i++)
        if (plan.items[i].verdict == RP_ADOPT_LEFT)
            rp_cli_say(cli, "%s %s: %s\n", plan.items[i].what, plan.items[i].path, plan.items[i].reason);
    rp_cli_say(cli, "domain %s is VM %s now, id %s; its old images stay until vm release\n", plan.domain, plan.name, plan.uuid);
    return 0;
}

static const struct rp_cli_option adopt_options[] = {
    {0, "connect", "URI", "the libvirt that runs the domain (default qemu:///system)"},
    {0, "name", "NAME", "what the VM is called here (default: as the domain)"},
    {0, "disks", "DIR", "where the new VHDX files go (default: each beside its image, where blocks can be shared)"},
    {0, "no-iothread", NULL, "give the domain no iothread for its virtio disks"},
    {0},
};

// ---- release --------------------------------------------------------------------------------------------------------

static json_t *release_json(const struct rp_release *plan, bool released)
{
    json_t *items = json_array();
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_release_item *item = &plan->items[i];
        json_array_append_new(items, json_pack("{s:i, s:o, s:o, s:o, s:o, s:b, s:b, s:I, s:I}", "number", (int)item->number, "target",
            rp_cli_json_text(item->target), "vhdx", rp_cli_json_text(item->vhdx), "path", rp_cli_json_text(item->path), "format",
            rp_cli_json_text(item->format), "replaces", (int)item->replaces, "shared", (int)item->shared, "size", (json_int_t)item->size,
            "room", (json_int_t)item->room));
    }
    return json_pack("{s:b, s:s, s:o, s:o, s:o, s:o}", "released", (int)released, "id", plan->vm_id, "name", rp_cli_json_text(plan->name),
                     "disks", items, "before", rp_cli_json_text(plan->before), "after", rp_cli_json_text(plan->after));
}

static void show_release(const struct rp_release *plan)
{
    rp_cli_print("VM %s, id %s\n\n", plan->name, plan->vm_id);
    for (size_t i = 0; i < plan->count; i++) {
        const struct rp_release_item *item = &plan->items[i];
        char size[RP_SIZE_TEXT], room[RP_SIZE_TEXT];
        rp_cli_print("disk%u (%s, %s)\n", item->number, item->target, rp_format_size(item->size, size));
        if (item->stays) {
            rp_cli_print("       stays %s, without its tracking files\n", item->path);
            continue;
        }
        rp_cli_print("       becomes %s (%s)%s\n", item->path, item->format, item->replaces ? ", which has its old content now" : "");
        rp_cli_print("       %s%s; then %s goes\n", item->shared ? "shares its blocks: no room is needed" : "needs at most ",
                     item->shared ? "" : rp_format_size(item->room, room), item->vhdx);
    }
    print_diff(plan->before, plan->after);
}

static int run_release(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host =
        need_local(rp_cli_open_vm(cli, cli->args[0], &vm, err), "vm release", err);
    RP_CLEANUP(rp_host_local_release_clear) struct rp_release plan = {0};
    if (!host || rp_host_local_release_plan(host, vm.id, rp_cli_value(cli, "format"), &plan, err))
        return -1;
    if (cli->dry_run) {
        if (cli->json)
            rp_cli_print_json(release_json(&plan, false));
        else
            show_release(&plan);
        return 0;
    }
    if (rp_cli_confirm(cli, err, "Release VM %s? Its reference points go, and the next backup is a full one.", rp_cli_safe(plan.name)))
        return -1;
    RP_CLEANUP(rp_cli_progress_end_p) struct rp_cli_progress *progress = rp_cli_progress_new(cli, "release");
    host->progress = rp_cli_progress_update;
    host->progress_context = progress;
    int failed = rp_host_local_release(host, &plan, err);
    rp_cli_progress_end(progress);
    progress = NULL;
    if (failed)
        return -1;
    if (cli->json)
        rp_cli_print_json(release_json(&plan, true));
    rp_cli_say(cli, "VM %s is libvirt's alone again\n", rp_cli_safe(plan.name));
    for (size_t i = 0; i < plan.count; i++)
        rp_cli_say(cli, "  %s: %s (%s)\n", plan.items[i].target, plan.items[i].path, plan.items[i].format);
    return 0;
}

static const struct rp_cli_option release_options[] = {
    {0, "format", "FORMAT", "of the images: original (default), raw, qcow2, vhdx"},
    {0},
};

const struct rp_cli_verb rp_cli_vm_adopt_verbs[] = {
    {
        .name = "vm adopt",
        .arguments = "DOMAIN [--connect URI] [--name NAME] [--disks DIR] [--no-iothread]",
        .summary = "take in a VM of libvirt that is off, with its disks",
        .details = "Each raw or qcow2 disk becomes a VHDX beside it, which shares the blocks of a\n"
                   "raw image where the file system can (XFS, Btrfs): that takes seconds and no\n"
                   "room. A VHDX is used in place. The old images stay as they are until the VM\n"
                   "is released; CD-ROMs, floppies and read-only disks stay in the domain. The\n"
                   "domain's definition then names the VM's disk service, and a domain without\n"
                   "iothreads gets one for its virtio disks, which are slower without; vm release\n"
                   "takes it out again. When one disk cannot be taken (passed through, encrypted,\n"
                   "shared, with internal snapshots, …) nothing is changed, and every reason is\n"
                   "told. --dry-run shows all of it before.\n",
        .examples = "refpoint vm adopt web1 --dry-run\n"
                    "refpoint vm adopt web1\n"
                    "refpoint vm adopt db --disks /srv/vm\n",
        .options = adopt_options,
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_DRY_RUN,
        .run = run_adopt,
    },
    {
        .name = "vm release",
        .arguments = "[HOST/]VM [--format FORMAT]",
        .summary = "give a VM back to libvirt as it was, with what its disks hold now",
        .details = "The VM must be off and without checkpoints. Its disks' content replaces the\n"
                   "images that it had (or goes beside them, in another format), the domain gets\n"
                   "its definition back, and the VHDX and tracking files go. At each moment one\n"
                   "of both holds everything; what was interrupted, the next command finishes.\n"
                   "Reference points go with the VM; backups in repositories do not. Asks first;\n"
                   "in scripts, give --yes.\n",
        .examples = "refpoint vm release web1 --dry-run\n"
                    "refpoint vm release web1 --yes\n"
                    "refpoint vm release web1 --format qcow2\n",
        .options = release_options,
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_DRY_RUN,
        .run = run_release,
    },
    {0},
};
