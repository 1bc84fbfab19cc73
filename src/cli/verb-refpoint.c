// refpoint refpoint list | delete
#include <string.h>

#include "base/clock.h"
#include "cli/order.h"
#include "cli/select.h"

static json_t *point_json(const struct rp_reference_point *point)
{
    char time[RP_TIME_TEXT];
    json_t *disks = json_array();
    for (size_t i = 0; i < point->disk_count; i++) {
        const struct rp_reference_disk *disk = &point->disks[i];
        char id[RP_GUID_TEXT];
        rp_guid_format(&disk->disk_id, id);
        json_array_append_new(disks, json_pack("{s:o, s:s, s:o}", "instance", rp_cli_json_text(disk->instance), "disk_id", id,
            "rct_id", *disk->rct_id ? rp_cli_json_text(disk->rct_id) : json_null()));
    }
    // a host at the other end of a wire may not tell the time
    return json_pack("{s:s, s:o, s:s, s:o, s:o}", "id", point->id, "name", rp_cli_json_text(point->name), "vm", point->vm_id,
                     "time", point->time_ns ? json_string(rp_time_format(point->time_ns, time)) : json_null(), "disks", disks);
}

static int run_list(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    if (!host || host->ops->list_reference_points(host, vm.id, &points, err))
        return -1;
    rp_cli_order_points(&points);
    if (cli->json) {
        json_t *array = json_array();
        for (size_t i = 0; i < points.count; i++)
            json_array_append_new(array, point_json(&points.items[i]));
        rp_cli_print_json(array);
        return 0;
    }
    struct rp_cli_table *table = rp_cli_table_new("TIME|ID|NAME|>DISKS");
    for (size_t i = 0; i < points.count; i++) {
        char time[RP_TIME_TEXT];
        rp_cli_cell(table, "%s", points.items[i].time_ns ? rp_time_format(points.items[i].time_ns, time) : "-");
        rp_cli_cell(table, "%s", points.items[i].id);
        rp_cli_cell(table, "%s", points.items[i].name);
        rp_cli_cell(table, "%zu", points.items[i].disk_count);
    }
    rp_cli_table_print(table);
    return 0;
}

static int run_delete(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    if (!host || host->ops->list_reference_points(host, vm.id, &points, err))
        return -1;
    RP_AUTO_FREE const char **ids = rp_xcalloc(points.count + 1, sizeof *ids);
    RP_AUTO_FREE const char **names = rp_xcalloc(points.count + 1, sizeof *names);
    for (size_t i = 0; i < points.count; i++) {
        ids[i] = points.items[i].id;
        names[i] = points.items[i].name;
    }
    size_t index;
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (rp_cli_pick("reference point", cli->args[1], ids, names, points.count, &index, err) ||
        host->ops->destroy_reference_point(host, ids[index], job, result, err) || rp_host_wait(host, job, result, NULL, NULL, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s}", "deleted", ids[index]));
    rp_cli_say(cli, "reference point %s of VM %s deleted\n", ids[index], rp_cli_safe(vm.name));
    return 0;
}

const struct rp_cli_verb rp_cli_refpoint_verbs[] = {
    {
        .name = "refpoint list",
        .arguments = "[HOST/]VM",
        .summary = "list the reference points of a VM",
        .details = "A reference point names a moment in change tracking and holds no data. Each\n"
                   "backup leaves one, from which the next one learns what changed; its name tells\n"
                   "the repository that it belongs to.\n",
        .examples = "refpoint refpoint list web1\n"
                    "refpoint refpoint list web1 --json\n",
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_READS,
        .run = run_list,
    },
    {
        .name = "refpoint delete",
        .arguments = "[HOST/]VM POINT",
        .summary = "delete a reference point; the next backup that needs it will be full",
        .details = "POINT is its id, the beginning of it, or its name. Backups that were made\n"
                   "are not touched.\n",
        .examples = "refpoint refpoint delete web1 1B2D77C0\n",
        .min_args = 2,
        .max_args = 2,
        .run = run_delete,
    },
    {0},
};
