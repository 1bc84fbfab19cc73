// refpoint checkpoint create | list | delete
#include <stdlib.h>
#include <string.h>

#include "backup/work.h"
#include "base/clock.h"
#include "cli/consistency.h"
#include "cli/order.h"
#include "cli/select.h"

static const char *type_name(enum rp_snapshot_type type) { return type == RP_SNAPSHOT_RECOVERY ? "recovery" : "production"; }

// What the host says of a checkpoint that it has just made. `reason` is malloc'ed, NULL: it gives none.
static int look_up(struct rp_host_connection *host, const char *vm_id, const char *id, enum rp_consistency *reached, char **reason,
                   struct rp_error *err)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    if (host->ops->list_snapshots(host, vm_id, &list, err))
        return -1;
    for (size_t i = 0; i < list.count; i++) {
        if (strcmp(list.items[i].id, id))
            continue;
        *reached = list.items[i].consistency;
        *reason = list.items[i].consistency_reason;
        list.items[i].consistency_reason = NULL;
        return 0;
    }
    return rp_fail(err, RP_ERR_NOT_FOUND, "the host made checkpoint %s, but does not list it", id);
}

static int make(struct rp_work *work, const struct rp_vm *vm, enum rp_consistency asked, const char *name, char id[RP_HOST_ID],
                struct rp_error *err)
{
    char job[RP_HOST_ID] = "";
    id[0] = '\0';
    return work->host->ops->create_snapshot(work->host, vm->id, RP_SNAPSHOT_PRODUCTION, asked, name, job, id, err) ||
                   rp_work_make(work, "the checkpoint", job, id, err)
               ? -1 : 0;
}

// Crash-consistent where it can be no better one and may be that: then *why (malloc'ed) says why. What is there is told, or gone.
static int make_as_asked(struct rp_work *work, const struct rp_vm *vm, const struct rp_cli_consistency *wanted, const char *name,
                         char id[RP_HOST_ID], enum rp_consistency *reached, char **why, struct rp_error *err)
{
    struct rp_error failure = {0};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    if (!make(work, vm, wanted->asked, name, id, &failure)) {
        if (look_up(work->host, vm->id, id, reached, why, err))
            return -1;
        if (wanted->asked != RP_CONSISTENCY_APPLICATION || *reached == RP_CONSISTENCY_APPLICATION || wanted->allow_crash)
            return 0;
        rp_fail(err, RP_ERR_STATE, "the checkpoint is not application-consistent: %s", *why ? *why : "the host does not say why");
        if (work->host->ops->destroy_snapshot(work->host, id, job, result, &failure) ||
            rp_host_wait(work->host, job, result, NULL, NULL, &failure))
            rp_context(err, "checkpoint %s could not be removed again (%s)", id, failure.text);
        return -1;
    }
    bool may = wanted->asked == RP_CONSISTENCY_APPLICATION && wanted->allow_crash && failure.code != RP_ERR_BUSY &&
               failure.code != RP_ERR_CANCELLED && failure.code != RP_ERR_NOT_FOUND;
    if (!may)
        return rp_fail_as(err, &failure);
    if (rp_work_stopped(work))
        return rp_fail(err, RP_ERR_CANCELLED, "interrupted, and no checkpoint is made: %s", failure.text);
    if (make(work, vm, RP_CONSISTENCY_CRASH, name, id, err) || look_up(work->host, vm->id, id, reached, why, err))
        return -1;
    free(*why);
    *why = rp_xstrdup(failure.text);
    return 0;
}

static int run_create(struct rp_cli *cli, struct rp_error *err)
{
    char now[RP_TIME_TEXT];
    struct rp_cli_consistency asked;
    const char *name = rp_cli_value(cli, "name");
    if (rp_cli_consistency_parse(cli, &asked, err))
        return -1;
    if (!name)
        name = rp_time_format(rp_clock_wall_ns(), now);
    if (!*name)
        return rp_fail(err, RP_ERR_USAGE, "--name: a checkpoint needs a name");
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    char id[RP_HOST_ID] = "";
    RP_AUTO_FREE char *why = NULL;
    enum rp_consistency reached = RP_CONSISTENCY_UNKNOWN;
    struct rp_work work = {.host = host, .stop = rp_cli_stop};
    if (!host)
        return -1;
    struct rp_cli_consistency wanted = rp_cli_consistency_of(&asked, &vm);
    host->frozen_ms = wanted.frozen_ms;
    if (make_as_asked(&work, &vm, &wanted, name, id, &reached, &why, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o, s:s, s:s, s:o}", "id", id, "name", rp_cli_json_text(name), "vm", vm.id, "consistency",
                                    rp_cli_consistency_name(reached), "consistency_reason", rp_cli_json_text(why)));
    rp_cli_say(cli, "checkpoint %s of VM %s made, id %s\n", rp_cli_safe(name), rp_cli_safe(vm.name), id);
    if (wanted.asked == RP_CONSISTENCY_APPLICATION && reached == RP_CONSISTENCY_UNKNOWN)
        rp_cli_say(cli, "  the host does not say how consistent it is%s%s\n", why ? ": " : "", rp_cli_safe(why));
    else if (wanted.asked == RP_CONSISTENCY_APPLICATION)
        rp_cli_say(cli, "  %s-consistent%s%s\n", rp_cli_consistency_name(reached), why ? ": " : "", rp_cli_safe(why));
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
            rp_cli_cell(table, "%s", rp_cli_consistency_name(s->consistency));
            rp_cli_cell(table, "%s", s->id);
            rp_cli_cell(table, "%s", s->merging ? "merging" : "");
        } else {
            json_array_append_new(array, json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:o, s:b}", "id", s->id, "name",
                rp_cli_json_text(s->name), "vm", s->vm_id, "time", time, "type", type_name(s->type), "consistency",
                rp_cli_consistency_name(s->consistency), "consistency_reason", rp_cli_json_text(s->consistency_reason),
                "merging", (int)s->merging));
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
    RP_CLI_CONSISTENCY_OPTIONS,
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
        .arguments = "[HOST/]VM [--name TEXT] [--consistency KIND]",
        .summary = "freeze all disks of a VM at one instant",
        .details = "The VM goes on in new differencing disks on top. Backups work with or\n"
                   "without such checkpoints, and make and remove their own.\n"
                   "\n" RP_CLI_CONSISTENCY_DETAILS,
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
                   "content of the disks does not change; the frozen state is gone. Of a VM of this\n"
                   "machine that is off nobody would merge later: that is done at once, also with\n"
                   "--no-wait, and Ctrl-C does not end it.\n",
        .examples = "refpoint checkpoint delete web1 'before the upgrade'\n"
                    "refpoint checkpoint delete web1 5F3C --no-wait\n",
        .options = delete_options,
        .min_args = 2,
        .max_args = 2,
        .run = run_delete,
    },
    {0},
};
