// refpoint show
#include <string.h>

#include "base/clock.h"
#include "base/num.h"
#include "cli/address.h"
#include "cli/point_json.h"

static int add_note(void *context, int64_t time_ns, const char *text)
{
    char time[RP_TIME_TEXT];
    json_t *note = json_loads(text, 0, NULL);
    json_array_append_new(context, json_pack("{s:s, s:o}", "time", rp_time_format(time_ns, time), "note",
                                             note ? note : rp_cli_json_text(text)));
    return 0;
}

// The host's own document: as JSON when it is some.
static json_t *settings_json(const char *text)
{
    json_t *settings = text ? json_loads(text, 0, NULL) : NULL;
    return settings ? settings : rp_cli_json_text(text);
}

static void field(const char *name, const char *value)
{
    if (value && *value)
        rp_cli_print("%-18s %s\n", name, rp_cli_safe(value));
}

static void print_disks(const struct rp_point *point)
{
    struct rp_cli_table *table = rp_cli_table_new("DISK|>SIZE|KIND|>CHANGED|>READ|SECTORS|ID|WHY FULL");
    for (size_t i = 0; i < point->disk_count; i++) {
        const struct rp_point_disk *disk = &point->disks[i];
        char text[RP_SIZE_TEXT], id[RP_GUID_TEXT];
        rp_cli_cell(table, "%u", disk->number);
        rp_cli_cell(table, "%s", rp_format_size(disk->root.size, text));
        rp_cli_cell(table, "%s", disk->kind ? disk->kind : "");
        rp_cli_cell(table, "%s", rp_format_size(disk->bytes_changed, text));
        rp_cli_cell(table, "%s", rp_format_size(disk->bytes_read, text));
        rp_cli_cell(table, "%u/%u", disk->logical_sector, disk->physical_sector);
        rp_cli_cell(table, "%s", rp_guid_format(&disk->disk_id, id));
        rp_cli_cell(table, "%s", disk->reason ? disk->reason : "");
    }
    rp_cli_print("\n");
    rp_cli_table_print(table);
}

static void print_point(const struct rp_point *point, json_t *notes)
{
    char time[RP_TIME_TEXT], read[RP_SIZE_TEXT], stored[RP_SIZE_TEXT];
    field("restore point", point->id);
    field("VM", point->vm_name);
    field("VM id", point->vm_id);
    field("host", point->host);
    field("time", rp_time_format(point->time_ns, time));
    field("kind", point->kind);
    field("why full", point->reason);
    field("built on", point->base_point);
    field("reference point", point->reference_point);
    field("approach", point->approach);
    field("reader", point->reader);
    field("consistency", point->consistency_reached);
    if (point->consistency_reason)
        rp_cli_print("%-18s %s: %s\n", "asked for", rp_cli_safe(point->consistency_asked), rp_cli_safe(point->consistency_reason));
    rp_cli_print("%-18s %s\n", "read", rp_format_size(point->bytes_read, read));
    rp_cli_print("%-18s %s in %llu new blocks\n", "stored", rp_format_size(point->bytes_stored, stored),
                 (unsigned long long)point->new_blocks);
    rp_cli_print("%-18s checkpoint %.2f s, reading %.2f s, reference point %.2f s\n", "took", (double)point->checkpoint_ns / 1e9,
                 (double)point->read_ns / 1e9, (double)point->convert_ns / 1e9);
    field("software", point->software);
    print_disks(point);
    size_t i;
    json_t *note;
    json_array_foreach(notes, i, note) {
        RP_AUTO_FREE char *text = json_dumps(json_object_get(note, "note"), JSON_COMPACT | JSON_ENCODE_ANY);
        rp_cli_print("%snote %s  %s\n", i ? "" : "\n", json_string_value(json_object_get(note, "time")), rp_cli_safe(text));
    }
}

static int run(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    struct rp_choice choice;
    if (!repo || rp_repo_points(repo, &points, err) ||
        rp_address_choose(cli, &points, cli->arg_count ? cli->args[0] : NULL, &choice, err))
        return -1;
    RP_CLEANUP(rp_point_clear) struct rp_point point = {0};
    json_t *notes = json_array();
    int result = rp_repo_point(repo, choice.point->id, &point, err);
    if (!result)
        result = rp_repo_notes(repo, point.id, add_note, notes, err);
    if (!result && cli->json) {
        json_t *json = rp_point_json(&point);
        json_object_set_new(json, "settings", settings_json(point.settings));
        json_object_set(json, "notes", notes);
        rp_cli_print_json(json);
    } else if (!result && rp_cli_flag(cli, "settings")) {
        rp_cli_print("%s\n", point.settings ? point.settings : "");
    } else if (!result) {
        print_point(&point, notes);
    }
    json_decref(notes);
    return result ? result : rp_address_remark(cli, &points, cli->arg_count ? cli->args[0] : NULL);
}

static const struct rp_cli_option options[] = {
    {0, "settings", NULL, "print the VM's settings document, as the host gave it"},
    RP_ADDRESS_VM_OPTION,
    {0},
};

const struct rp_cli_verb rp_cli_show_verbs[] = {
    {
        .name = "show",
        .arguments = "VM[@POINT]",
        .summary = "show everything that a restore point records",
        .examples = "refpoint show web1\n"
                    "refpoint show web1@2026-11-22 --json\n"
                    "refpoint show @3fa9 --settings\n",
        .options = options,
        .max_args = 1,
        .flags = RP_CLI_READS,
        .run = run,
    },
    {0},
};
