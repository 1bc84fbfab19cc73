// refpoint checkpoint create | list | delete
#include <string.h>

#include "backup/work.h"
#include "base/clock.h"
#include "cli/order.h"
#include "cli/select.h"

static const char *type_name(enum rp_snapshot_type type) { return type == RP_SNAPSHOT_RECOVERY ? "recovery" : "production"; }

static const char *consistency_name(enum rp_consistency consistency)
{
    return consistency == RP_CONSISTENCY_APPLICATION ? "application" : consistency == RP_CONSISTENCY_CRASH ? "crash" : "unknown";
}

static int run_create(struct rp_cli *cli, struct rp_error *err)
{
    char now[RP_TIME_TEXT];
    const char *name = rp_cli_value(cli, "name");
    if (!name)
        name = rp_time_format(rp_clock_wall_ns(), now);
    if (!*name)
        return rp_fail(err, RP_ERR_USAGE, "--name: a checkpoint needs a name");
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    char job[RP_HOST_ID] = "", id[RP_HOST_ID] = "";
    struct rp_work work = {.host = host, .stop = rp_cli_stop};
    if (!host ||
        host->ops->create_snapshot(host, vm.id, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, name, job, id, err) ||
        rp_work_make(&work, "the checkpoint", job, id, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o, s:s}", "id", id, "name", rp_cli_json_text(name), "vm", vm.id));
    rp_cli_say(cli, "checkpoint %s of VM %s made, id %s\n", rp_cli_safe(name), rp_cli_safe(vm.name), id);
    return 0;
}

static int run_list(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    if (!host || host->ops->list_snapshots(host, vm.id, &list, err))
        return -1;
    rp_cli_order_snapshots(&list);
    struct rp_cli_table *table = cli->json ? NULL : rp_cli_table_new("TIME|NAME|TYPE|CONSISTENCY|ID|STATE");
    json_t *array = json_array();
    for (size_t i = 0; i < list.count; i++) {
        const struct rp_snapshot *s = &list.items[i];
        char time[RP_TIME_TEXT];
        rp_time_format(s->time_ns, time);
        if (table) {
            rp_cli_cell(table, "%s", time);
            rp_cli_cell(table, "%s", s->name);
            rp_cli_cell(table, "%s", type_name(s->type));
            rp_cli_cell(table, "%s", consistency_name(s->consistency));
            rp_cli_cell(table, "%s", s->id);
            rp_cli_cell(table, "%s", s->merging ? "merging" : "");
        } else {
            json_array_append_new(array, json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:b}", "id", s->id, "name",
                rp_cli_json_text(s->name), "vm", s->vm_id, "time", time, "type", type_name(s->type), "consistency",
                consistency_name(s->consistency), "merging", (int)s->merging));
        }
    }
    if (table)
        rp_cli_table_print(table);
    else
        rp_cli_print_json(json_incref(array));
    json_decref(array);
    return 0;
}

static int run_delete(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    if (!host || rp_cli_size(cli, "merge-rate", &host->merge_rate, err) ||
        host->ops->list_snapshots(host, vm.id, &list, err))
        return -1;
    RP_AUTO_FREE const char **ids = rp_xcalloc(list.count + 1, sizeof *ids);
    RP_AUTO_FREE const char **names = rp_xcalloc(list.count + 1, sizeof *names);
    for (size_t i = 0; i < list.count; i++) {
        ids[i] = list.items[i].id;
        names[i] = list.items[i].name;
    }
    size_t index;
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (rp_cli_pick("checkpoint", cli->args[1], ids, names, list.count, &index, err) ||
        host->ops->destroy_snapshot(host, ids[index], job, result, err) || rp_host_wait(host, job, result, NULL, NULL, err))
        return -1;
    int pending = rp_cli_flag(cli, "no-wait") ? 0 : rp_cli_wait_merge(cli, host, vm.id, err);
    if (pending < 0)
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o, s:b}", "deleted", ids[index], "name", rp_cli_json_text(names[index]),
                                    "merge_pending", pending));
    rp_cli_say(cli, "checkpoint %s of VM %s deleted\n", rp_cli_safe(names[index]), rp_cli_safe(vm.name));
    return pending;
}

static const struct rp_cli_option create_options[] = {
    {0, "name", "TEXT", "what to call it; the time when not given"},
    {0},
};
static const struct rp_cli_option delete_options[] = {
    {0, "no-wait", NULL, "do not wait until the merge is over; \"vm show\" tells how far it is"},
    {0, "merge-rate", "SIZE", "the merge may move so many bytes per second, as 50M"},
    {0},
};

const struct rp_cli_verb rp_cli_checkpoint_verbs[] = {
    {
        .name = "checkpoint create",
        .arguments = "[HOST/]VM [--name TEXT]",
        .summary = "freeze all disks of a VM at one instant",
        .details = "The VM goes on in new differencing disks on top. Backups work with or\n"
                   "without such checkpoints, and make and remove their own.\n",
        .examples = "refpoint checkpoint create web1\n"
                    "refpoint checkpoint create web1 --name 'before the upgrade'\n",
        .options = create_options,
        .min_args = 1,
        .max_args = 1,
        .run = run_create,
    },
    {
        .name = "checkpoint list",
        .arguments = "[HOST/]VM",
        .summary = "list the checkpoints of a VM",
        .details = "TYPE is production (made by checkpoint create) or recovery (made by a backup).\n",
        .examples = "refpoint checkpoint list web1\n"
                    "refpoint checkpoint list web1 --json\n",
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_READS,
        .run = run_list,
    },
    {
        .name = "checkpoint delete",
        .arguments = "[HOST/]VM CHECKPOINT [--no-wait] [--merge-rate SIZE]",
        .summary = "give a checkpoint up: what came after it is merged into it",
        .details = "CHECKPOINT is its name, its id, or the beginning of its id. The present\n"
                   "content of the disks does not change; the frozen state is gone.\n",
        .examples = "refpoint checkpoint delete web1 'before the upgrade'\n"
                    "refpoint checkpoint delete web1 5F3C --no-wait\n",
        .options = delete_options,
        .min_args = 2,
        .max_args = 2,
        .run = run_delete,
    },
    {0},
};
