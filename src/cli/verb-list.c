// refpoint list
#include <string.h>

#include "base/num.h"
#include "cli/address.h"
#include "cli/point_json.h"

static uint64_t total_size(const struct rp_point *point)
{
    uint64_t size = 0;
    for (size_t i = 0; i < point->disk_count; i++)
        size += point->disks[i].root.size;
    return size;
}

static void add_row(struct rp_cli_table *table, const struct rp_point *point)
{
    char time[RP_CLI_TIME], size[RP_SIZE_TEXT], read[RP_SIZE_TEXT], stored[RP_SIZE_TEXT];
    rp_cli_cell(table, "%.*s", RP_SHORT_ID, point->id);
    rp_cli_cell(table, "%s", point->vm_name ? point->vm_name : point->vm_id ? point->vm_id : "");
    rp_cli_cell(table, "%s", rp_point_time(point, time));
    rp_cli_cell(table, "%s", point->kind ? point->kind : "");
    rp_cli_cell(table, "%zu", point->disk_count);
    rp_cli_cell(table, "%s", rp_format_size(total_size(point), size));
    rp_cli_cell(table, "%s", rp_format_size(point->bytes_read, read));
    rp_cli_cell(table, "%s", rp_format_size(point->bytes_stored, stored));
    rp_cli_cell(table, "%s", point->reason ? point->reason : "");
}

static int run(struct rp_cli *cli, struct rp_error *err)
{
    const char *name = rp_cli_value(cli, "vm"), *vm_id = NULL;
    if (name && cli->arg_count)
        return rp_fail(err, RP_ERR_USAGE, "a VM as an argument, and --vm: which of them?");
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    if (!repo || rp_repo_points(repo, &points, err))
        return -1;
    if (cli->arg_count)
        name = cli->args[0];
    if (name && rp_address_choose_vm(&points, name, &vm_id, err))
        return -1;
    struct rp_cli_table *table = rp_cli_table_new("POINT|VM|TIME (UTC)|KIND|>DISKS|>SIZE|>READ|>STORED|WHY FULL");
    bool any = false;
    for (size_t i = 0; i < points.count; i++) {
        if (vm_id && (!points.items[i].vm_id || strcmp(points.items[i].vm_id, vm_id)))
            continue;
        if (cli->json)
            rp_cli_print_json_item(rp_point_json(&points.items[i]), !any);
        else
            add_row(table, &points.items[i]);
        any = true;
    }
    if (cli->json) {
        rp_cli_print_json_end(!any);
        rp_cli_table_drop(table);
    } else {
        rp_cli_table_print(table);
    }
    if (!points.unreadable)
        return 0;
    rp_cli_remark(cli, "%zu restore point%s cannot be read, and %s not listed: see refpoint check", points.unreadable,
                  points.unreadable == 1 ? "" : "s", points.unreadable == 1 ? "is" : "are");
    return 1;
}

static const struct rp_cli_option options[] = {RP_ADDRESS_VM_OPTION, {0}};

const struct rp_cli_verb rp_cli_list_verbs[] = {
    {
        .name = "list",
        .arguments = "[VM]",
        .summary = "list the restore points of a repository",
        .examples = "refpoint list -r /backup/repo\n"
                    "refpoint list web1 --json\n",
        .options = options,
        .max_args = 1,
        .flags = RP_CLI_READS,
        .run = run,
    },
    {0},
};
