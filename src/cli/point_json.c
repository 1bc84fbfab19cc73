#include "cli/point_json.h"

#include <stdio.h>

#include "base/clock.h"

static json_t *disk_json(const struct rp_point_disk *disk)
{
    char id[RP_GUID_TEXT];
    return json_pack("{s:I, s:s, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:I}", "number", (json_int_t)disk->number, "disk_id",
                     rp_guid_format(&disk->disk_id, id), "instance", rp_cli_json_text(disk->instance), "size",
                     (json_int_t)disk->root.size, "logical_sector", (json_int_t)disk->logical_sector, "physical_sector",
                     (json_int_t)disk->physical_sector, "kind", rp_cli_json_text(disk->kind), "reason",
                     rp_cli_json_text(disk->reason), "rct_id", rp_cli_json_text(disk->rct_id), "bytes_changed",
                     (json_int_t)disk->bytes_changed, "bytes_read", (json_int_t)disk->bytes_read);
}

json_t *rp_point_json(const struct rp_point *point)
{
    char time[RP_TIME_TEXT], started[RP_TIME_TEXT];
    json_t *json = json_pack(
        "{s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o}", "id", point->id, "vm", rp_cli_json_text(point->vm_name), "vm_id",
        rp_cli_json_text(point->vm_id), "host", rp_cli_json_text(point->host), "time", rp_time_format(point->time_ns, time),
        "kind", rp_cli_json_text(point->kind), "reason", rp_cli_json_text(point->reason), "base",
        rp_cli_json_text(point->base_point), "reference_point", rp_cli_json_text(point->reference_point));
    json_t *more = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:s, s:f, s:f, s:f, s:I, s:I, s:I, s:o}", "approach", rp_cli_json_text(point->approach),
        "reader", rp_cli_json_text(point->reader), "consistency_asked", rp_cli_json_text(point->consistency_asked),
        "consistency_reached", rp_cli_json_text(point->consistency_reached), "consistency_reason",
        rp_cli_json_text(point->consistency_reason), "started", rp_time_format((int64_t)point->started_ns, started),
        "checkpoint_seconds", (double)point->checkpoint_ns / 1e9, "read_seconds", (double)point->read_ns / 1e9,
        "convert_seconds", (double)point->convert_ns / 1e9, "bytes_read", (json_int_t)point->bytes_read, "bytes_stored",
        (json_int_t)point->bytes_stored, "new_blocks", (json_int_t)point->new_blocks, "software",
        rp_cli_json_text(point->software));
    json_object_update(json, more);
    json_decref(more);
    json_t *disks = json_array();
    for (size_t i = 0; i < point->disk_count; i++)
        json_array_append_new(disks, disk_json(&point->disks[i]));
    json_object_set_new(json, "disks", disks);
    return json;
}

json_t *rp_ranges_json(const struct rp_ranges *ranges)
{
    json_t *list = json_array();
    for (size_t i = 0; ranges && i < ranges->count; i++)
        json_array_append_new(list, json_pack("{s:I, s:I}", "offset", (json_int_t)ranges->items[i].offset, "length",
                                              (json_int_t)ranges->items[i].length));
    return list;
}

const char *rp_point_time(const struct rp_point *point, char out[RP_CLI_TIME])
{
    char text[RP_TIME_TEXT];
    rp_time_format(point->time_ns, text);
    snprintf(out, RP_CLI_TIME, "%.10s %.8s", text, text + 11);
    return out;
}
