// refpoint vm create | list | show | delete
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"
#include "cli/address.h"
#include "cli/order.h"
#include "cli/select.h"

static const char *activity_name(enum rp_vm_activity activity)
{
    switch (activity) {
    case RP_VM_IDLE: return "";
    case RP_VM_CREATING_SNAPSHOT: return "creating a checkpoint";
    case RP_VM_DELETING_SNAPSHOT: return "deleting a checkpoint";
    case RP_VM_MERGING: return "merging";
    }
    return "busy";
}

static json_t *vm_json(const struct rp_vm *vm)
{
    json_t *json = json_pack("{s:s, s:o, s:s, s:o}", "id", vm->id, "name", rp_cli_json_text(vm->name), "state",
                             rp_vm_state_name(vm->state), "activity",
                             vm->activity ? json_string(activity_name(vm->activity)) : json_null());
    json_object_set_new(json, "waits", json_boolean(vm->waits));
    json_object_set_new(json, "remark", rp_cli_json_text(vm->remark));
    if (vm->activity == RP_VM_MERGING) {
        json_object_set_new(json, "merge_percent", json_integer((json_int_t)vm->merge_percent));
        json_object_set_new(json, "merge_problem", rp_cli_json_text(vm->merge_problem));
        json_object_set_new(json, "merge_done", json_integer((json_int_t)vm->merge_done));
        json_object_set_new(json, "merge_total", json_integer((json_int_t)vm->merge_total));
        json_object_set_new(json, "merge_rate", json_integer((json_int_t)vm->merge_rate));
        json_object_set_new(json, "merge_guest_rate", json_integer((json_int_t)vm->merge_guest_rate));
        json_object_set_new(json, "merge_round", json_integer((json_int_t)vm->merge_round));
    }
    return json;
}

// ---- create ---------------------------------------------------------------------------------------------------------

static int run_create(struct rp_cli *cli, struct rp_error *err)
{
    RP_AUTO_FREE const char **disks = rp_xcalloc(cli->given_count + 1, sizeof *disks);
    size_t count = 0;
    while (rp_cli_value_at(cli, "disk", count)) {
        disks[count] = rp_cli_value_at(cli, "disk", count);
        count++;
    }
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_host(cli, NULL, err);
    if (!host)
        return -1;
    char job[RP_HOST_ID] = "", id[RP_HOST_ID] = "";
    RP_CLEANUP(rp_cli_progress_end_p) struct rp_cli_progress *progress = rp_cli_progress_new(cli, "convert");
    int failed = host->ops->define_system(host, cli->args[0], disks, count, rp_cli_progress_update, progress, job, id, err) ||
                 rp_host_wait(host, job, id, rp_cli_stop, NULL, err);
    rp_cli_progress_end(progress);
    progress = NULL;
    if (failed)
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o}", "id", id, "name", rp_cli_json_text(cli->args[0])));
    rp_cli_say(cli, "VM %s made, id %s\n", rp_cli_safe(cli->args[0]), id);
    return 0;
}

static const struct rp_cli_option create_options[] = {
    {'d', "disk", "FILE", "a disk of the VM: raw (copied into the host's folder) or VHDX (used in place); may be repeated"},
    {0},
};

// ---- list -----------------------------------------------------------------------------------------------------------

// The newest restore point of each VM, where a repository is named.
static int load_points(const struct rp_cli *cli, struct rp_points *points, struct rp_error *err)
{
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    return repo ? rp_repo_points(repo, points, err) : -1;
}

static int64_t last_backup(const struct rp_points *points, const char *vm_id)
{
    int64_t newest = 0;
    for (size_t i = 0; i < points->count; i++)
        if (points->items[i].vm_id && !strcasecmp(points->items[i].vm_id, vm_id) && points->items[i].time_ns > newest)
            newest = points->items[i].time_ns;
    return newest;
}

static uint64_t total_size(const struct rp_vm_settings *settings)
{
    uint64_t size = 0;
    for (size_t i = 0; i < settings->disk_count; i++)
        size += settings->disks[i].size;
    return size;
}

static json_t *list_json(const struct rp_inventory_vm *item, int64_t backup)
{
    char time[RP_TIME_TEXT];
    json_t *json = vm_json(&item->vm);
    json_object_set_new(json, "disks", json_integer((json_int_t)item->settings.disk_count));
    json_object_set_new(json, "size", json_integer((json_int_t)total_size(&item->settings)));
    json_object_set_new(json, "last_backup", backup ? json_string(rp_time_format(backup, time)) : json_null());
    return json;
}

static void list_row(struct rp_cli_table *table, const struct rp_inventory_vm *item, bool with_backup, int64_t backup)
{
    char size[RP_SIZE_TEXT], time[RP_TIME_TEXT];
    uint64_t total = total_size(&item->settings);
    rp_cli_cell(table, "%s", item->vm.name);
    rp_cli_cell(table, "%s", rp_vm_state_name(item->vm.state));
    rp_cli_cell(table, "%s", item->vm.id);
    rp_cli_cell(table, "%zu", item->settings.disk_count);
    rp_cli_cell(table, "%s", total ? rp_format_size(total, size) : "-");
    if (with_backup)
        rp_cli_cell(table, "%s", backup ? rp_time_format(backup, time) : "never");
    const char *doing = activity_name(item->vm.activity), *remark = item->vm.remark ? item->vm.remark : "";
    rp_cli_cell(table, "%s%s%s", doing, *doing && *remark ? "; " : "", remark);
}

// The exit status.
static int remark_unreadable(const struct rp_cli *cli, const struct rp_points *points)
{
    if (!points->unreadable)
        return 0;
    rp_cli_remark(cli, "%zu restore point%s cannot be read (see refpoint check): a VM may have a newer backup than the list says",
                  points->unreadable, points->unreadable == 1 ? "" : "s");
    return 1;
}

static int run_list(struct rp_cli *cli, struct rp_error *err)
{
    bool with_backup = rp_cli_flag(cli, "repo"); // not the variable: a list should not ask for a passphrase
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_host(cli, NULL, err);
    RP_CLEANUP(rp_inventory_clear) struct rp_inventory inventory = {0};
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    if (!host || (with_backup && load_points(cli, &points, err)) || host->ops->inventory(host, &inventory, err))
        return -1;
    rp_cli_order_vms(&inventory);
    json_t *list = json_array();
    struct rp_cli_table *table = rp_cli_table_new(with_backup ? "NAME|STATE|ID|>DISKS|>SIZE|LAST BACKUP|ACTIVITY"
                                                              : "NAME|STATE|ID|>DISKS|>SIZE|ACTIVITY");
    for (size_t i = 0; i < inventory.count; i++) {
        int64_t backup = last_backup(&points, inventory.items[i].vm.id);
        if (cli->json)
            json_array_append_new(list, list_json(&inventory.items[i], backup));
        else
            list_row(table, &inventory.items[i], with_backup, backup);
    }
    if (cli->json) {
        rp_cli_table_drop(table);
        rp_cli_print_json(list);
    } else {
        json_decref(list);
        rp_cli_table_print(table);
    }
    return remark_unreadable(cli, &points);
}

// ---- show -----------------------------------------------------------------------------------------------------------

static json_t *disks_json(const struct rp_vm_settings *settings)
{
    json_t *list = json_array();
    for (size_t i = 0; i < settings->disk_count; i++) {
        const struct rp_vm_disk *disk = &settings->disks[i];
        char id[RP_GUID_TEXT];
        rp_guid_format(&disk->disk_id, id);
        json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:o, s:I, s:i, s:i, s:o}", "number", (int)disk->number, "instance",
            disk->instance, "disk_id", id, "path", rp_cli_json_text(disk->path), "size", (json_int_t)disk->size,
            "logical_sector", (int)disk->logical_sector, "physical_sector", (int)disk->physical_sector, "nbd_uri",
            rp_cli_json_text(disk->nbd_uri)));
    }
    return list;
}

static void show_merge(const struct rp_vm *vm)
{
    char done[RP_SIZE_TEXT], total[RP_SIZE_TEXT], rate[RP_SIZE_TEXT];
    rp_cli_print("activity          merging, %u %%", vm->merge_percent);
    if (vm->merge_total)
        rp_cli_print(", %s of %s, %s/s", rp_format_size(vm->merge_done, done), rp_format_size(vm->merge_total, total),
                     rp_format_size(vm->merge_rate, rate));
    if (vm->merge_round)
        rp_cli_print(", round %u", vm->merge_round);
    if (vm->merge_guest_rate)
        rp_cli_print(", the guest may write %s/s", rp_format_size(vm->merge_guest_rate, rate));
    rp_cli_print("%s%s\n", vm->merge_problem ? "; " : "", rp_cli_safe(vm->merge_problem));
}

static int run_show(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    if (!host || host->ops->vm_settings(host, vm.id, &settings, err) ||
        host->ops->list_snapshots(host, vm.id, &snapshots, err) || host->ops->list_reference_points(host, vm.id, &points, err))
        return -1;
    if (cli->json) {
        json_t *json = vm_json(&vm);
        json_object_set_new(json, "disks", disks_json(&settings));
        json_object_set_new(json, "checkpoints", json_integer((json_int_t)snapshots.count));
        json_object_set_new(json, "reference_points", json_integer((json_int_t)points.count));
        rp_cli_print_json(json);
        return 0;
    }
    rp_cli_print("name              %s\nid                %s\nstate             %s\n", rp_cli_safe(vm.name), vm.id,
                 rp_vm_state_name(vm.state));
    if (vm.remark)
        rp_cli_print("remark            %s\n", rp_cli_safe(vm.remark));
    if (vm.activity == RP_VM_MERGING)
        show_merge(&vm);
    else if (vm.activity)
        rp_cli_print("activity          %s\n", activity_name(vm.activity));
    rp_cli_print("checkpoints       %zu\nreference points  %zu\n", snapshots.count, points.count);
    if (!settings.disk_count)
        return 0;
    rp_cli_print("\n");
    struct rp_cli_table *table = rp_cli_table_new("DISK|>SIZE|SECTORS|FILE|NBD");
    for (size_t i = 0; i < settings.disk_count; i++) {
        const struct rp_vm_disk *disk = &settings.disks[i];
        char size[RP_SIZE_TEXT];
        rp_cli_cell(table, "disk%u", disk->number);
        rp_cli_cell(table, "%s", rp_format_size(disk->size, size));
        rp_cli_cell(table, "%u/%u", disk->logical_sector, disk->physical_sector);
        rp_cli_cell(table, "%s", disk->path);
        rp_cli_cell(table, "%s", disk->nbd_uri ? disk->nbd_uri : "-");
    }
    rp_cli_table_print(table);
    return 0;
}

// ---- delete ----------------------------------------------------------------------------------------------------------

// Over WMI nobody deletes files: better to know before the VM is gone than after.
static int refuse_disks(struct rp_host_connection *host, const struct rp_vm *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf paths = {0};
    if (host->ops->vm_settings(host, vm->id, &settings, err))
        return -1;
    for (size_t i = 0; i < settings.disk_count; i++)
        rp_buf_printf(&paths, "%s%s", i ? ", " : "", rp_cli_safe(settings.disks[i].path));
    if (!paths.size)
        return 0;
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: over WMI no disk file can be deleted: leave out --delete-disks, and delete "
                   "them on the host: %s", host->address, rp_buf_text(&paths));
}

// A VM that was planned and never made real is in no list: an import that ended half-way leaves one. 1: it was one.
static int delete_planned(struct rp_cli *cli, struct rp_error *err)
{
    RP_AUTO_FREE char *address = NULL;
    const char *name;
    rp_address_split_host(cli->args[0], &address, &name);
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_host(cli, address, err);
    RP_CLEANUP(rp_vms_clear) struct rp_vms planned = {0};
    const struct rp_vm *found = NULL;
    if (!host || (host->ops->list_planned && host->ops->list_planned(host, &planned, err)))
        return -1;
    for (size_t i = 0; i < planned.count; i++) {
        if (strcasecmp(planned.items[i].id, name) && strcmp(planned.items[i].name, name))
            continue;
        if (found)
            return rp_fail(err, RP_ERR_INVALID, "several planned VMs are called \"%.128s\": name one by its id", name);
        found = &planned.items[i];
    }
    if (!found)
        return 0;
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (rp_cli_confirm(cli, err, "Delete the planned VM %s?", rp_cli_safe(found->name)) ||
        host->ops->destroy_system(host, found->id, false, job, result, err) ||
        rp_host_wait(host, job, result, rp_cli_stop, NULL, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o, s:b}", "deleted", found->id, "name", rp_cli_json_text(found->name),
                                    "disks_deleted", 0));
    rp_cli_say(cli, "planned VM %s deleted; no file was\n", rp_cli_safe(found->name));
    return 1;
}

static int run_delete(struct rp_cli *cli, struct rp_error *err)
{
    bool with_disks = rp_cli_flag(cli, "delete-disks");
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct rp_error why = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, &why);
    if (!host && why.code == RP_ERR_NOT_FOUND && !with_disks) {
        int planned = delete_planned(cli, err);
        if (planned)
            return planned < 0 ? -1 : 0;
    }
    if (!host)
        return rp_fail_as(err, &why);
    if (with_disks && !rp_host_is_local(host) && refuse_disks(host, &vm, err))
        return -1;
    if (vm.state != RP_VM_OFF) // before the question, which would be for nothing
        return rp_fail(err, RP_ERR_STATE, "the VM is %s: stop it first", rp_vm_state_name(vm.state));
    if (rp_cli_confirm(cli, err, "Delete VM %s%s?", rp_cli_safe(vm.name), with_disks ? " and the disks in its folder" : ""))
        return -1;
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    if (host->ops->destroy_system(host, vm.id, with_disks, job, result, err) || rp_host_wait(host, job, result, rp_cli_stop, NULL, err))
        return -1;
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o, s:b}", "deleted", vm.id, "name", rp_cli_json_text(vm.name), "disks_deleted", (int)with_disks));
    rp_cli_say(cli, with_disks ? "VM %s deleted, and the disks that the host made for it\n" : "VM %s deleted; its disk files stay\n",
               rp_cli_safe(vm.name));
    return 0;
}

static const struct rp_cli_option delete_options[] = {
    {0, "delete-disks", NULL, "delete the disks that the host made for the VM as well; a VHDX used in place is never deleted"},
    {0},
};

const struct rp_cli_verb rp_cli_vm_verbs[] = {
    {
        .name = "vm create",
        .arguments = "NAME [--disk FILE]...",
        .summary = "make an offline VM: a name and disks",
        .details = "A raw image or block device is copied into the host's folder as a dynamic\n"
                   "VHDX; holes are not read. A VHDX is used in place: from then on only the\n"
                   "VM's disk service may write to it, and checkpoints are made beside it.\n",
        .examples = "refpoint vm create web1 --disk web1.raw\n"
                    "refpoint vm create db --disk system.vhdx --disk data.vhdx\n"
                    "refpoint -H local:/srv/refpoint vm create web1 --disk /dev/vg0/web1\n",
        .options = create_options,
        .min_args = 1,
        .max_args = 1,
        .run = run_create,
    },
    {
        .name = "vm list",
        .arguments = "",
        .summary = "list the VMs of the host, their disks, and with -r their last backup",
        .examples = "refpoint vm list\n"
                    "refpoint vm list -H hv1 -r /backup/repo\n"
                    "refpoint vm list --json | jq -r '.[].name'\n",
        .flags = RP_CLI_READS,
        .run = run_list,
    },
    {
        .name = "vm show",
        .arguments = "[HOST/]VM",
        .summary = "show a VM, its disks and where they are served",
        .details = "While the VM runs, each disk has an NBD address for QEMU, qemu-img or libnbd.\n",
        .examples = "refpoint vm show web1\n"
                    "refpoint vm show web1 --json | jq -r '.disks[0].nbd_uri'\n",
        .min_args = 1,
        .max_args = 1,
        .flags = RP_CLI_READS,
        .run = run_show,
    },
    {
        .name = "vm delete",
        .arguments = "[HOST/]VM [--delete-disks]",
        .summary = "delete a VM that is off; its disk files stay unless asked",
        .details = "Checkpoints are merged first into the disk files that stay. The VM's\n"
                   "reference points go with it; backups in repositories do not. Over WMI no\n"
                   "disk files can be deleted: --delete-disks is refused then, and names them.\n"
                   "The libvirt domain that was made for a VM goes with it, and so does the state\n"
                   "of its UEFI variables and TPM. A VM that vm adopt took in is not deleted while\n"
                   "its domain has the VM's disks: vm release gives the domain back; to delete\n"
                   "both, virsh undefine comes first.\n"
                   "A planned VM, which an import that ended half-way may leave, goes by its id\n"
                   "or name. Asks first; in scripts, give --yes.\n",
        .examples = "refpoint vm delete web1\n"
                    "refpoint vm delete web1 --delete-disks --yes\n",
        .options = delete_options,
        .min_args = 1,
        .max_args = 1,
        .run = run_delete,
    },
    {0},
};
