// refpoint diff
#include <string.h>

#include "backup/diff.h"
#include "base/num.h"
#include "cli/address.h"
#include "cli/map.h"
#include "cli/point_json.h"

static const char *state_of(const struct rp_diff_disk *disk)
{
    if (!disk->from)
        return "added";
    if (!disk->to)
        return "removed";
    return disk->ranges.count ? "changed" : "unchanged";
}

static uint64_t size_of(const struct rp_diff_disk *disk) { return (disk->to ? disk->to : disk->from)->root.size; }

static void print_json(const struct rp_diff *diff, const struct rp_point *from, const struct rp_point *to)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < diff->count; i++) {
        const struct rp_diff_disk *disk = &diff->disks[i];
        json_array_append_new(disks, json_pack("{s:I, s:s, s:I, s:I, s:o}", "number", (json_int_t)disk->number, "state",
                                               state_of(disk), "size", (json_int_t)size_of(disk), "bytes_changed",
                                               (json_int_t)rp_ranges_total(&disk->ranges), "ranges",
                                               rp_ranges_json(&disk->ranges)));
    }
    rp_cli_print_json(json_pack("{s:o, s:o, s:o}", "from", rp_point_json(from), "to", rp_point_json(to), "disks", disks));
}

static void print_ranges(const struct rp_diff_disk *disk)
{
    struct rp_cli_table *table = rp_cli_table_new("|>OFFSET|>LENGTH|>BYTES");
    for (size_t i = 0; i < disk->ranges.count; i++) {
        char text[RP_SIZE_TEXT];
        rp_cli_cell(table, "%s", "");
        rp_cli_cell(table, "%llu", (unsigned long long)disk->ranges.items[i].offset);
        rp_cli_cell(table, "%s", rp_format_size(disk->ranges.items[i].length, text));
        rp_cli_cell(table, "%llu", (unsigned long long)disk->ranges.items[i].length);
    }
    rp_cli_table_print(table);
}

static void print_disk(const struct rp_cli *cli, const struct rp_diff_disk *disk)
{
    char size[RP_SIZE_TEXT], changed[RP_SIZE_TEXT], before[RP_SIZE_TEXT];
    uint64_t bytes = rp_ranges_total(&disk->ranges);
    rp_cli_print("\ndisk %u, %s: %s", disk->number, rp_format_size(size_of(disk), size), state_of(disk));
    if (bytes)
        rp_cli_print(", %s in %zu range%s (%.2f %%)", rp_format_size(bytes, changed), disk->ranges.count,
                     disk->ranges.count == 1 ? "" : "s", 100.0 * (double)bytes / (double)size_of(disk));
    if (disk->from && disk->to && disk->from->root.size != disk->to->root.size)
        rp_cli_print(", was %s", rp_format_size(disk->from->root.size, before));
    rp_cli_print("\n");
    bool ranges = rp_cli_flag(cli, "ranges"), map = rp_cli_flag(cli, "map") || !ranges;
    if (disk->to && bytes && map)
        rp_map_draw(&disk->ranges, size_of(disk));
    if (disk->to && bytes && ranges)
        print_ranges(disk);
}

static void print_point(const char *word, const struct rp_point *point)
{
    char time[RP_CLI_TIME];
    rp_cli_print("%-4s %s@%.*s  %s UTC\n", word, rp_cli_safe(point->vm_name), RP_SHORT_ID, point->id, rp_point_time(point, time));
}

static int previous(const struct rp_points *points, const struct rp_point *point, const struct rp_point **found, struct rp_error *err)
{
    for (size_t i = (size_t)(point - points->items); i-- > 0;)
        if (points->items[i].vm_id && point->vm_id && !strcmp(points->items[i].vm_id, point->vm_id)) {
            *found = &points->items[i];
            return 0;
        }
    return rp_fail(err, RP_ERR_NOT_FOUND, "the VM has one restore point only: nothing to compare it with");
}

static int remark(const struct rp_cli *cli, const struct rp_points *points)
{
    if (cli->arg_count < 2) // the latest is one of them
        return rp_address_remark(cli, points, NULL);
    return rp_address_remark(cli, points, cli->args[0]) || rp_address_remark(cli, points, cli->args[1]);
}

// "VM@A VM@B", "VM@A" (since then), "VM" (the last two).
static int choose(const struct rp_cli *cli, const struct rp_points *points, struct rp_choice *from, struct rp_choice *to, struct rp_error *err)
{
    if (rp_address_choose(cli, points, cli->arg_count ? cli->args[0] : NULL, from, err))
        return -1;
    if (cli->arg_count == 2)
        return rp_address_choose(cli, points, cli->args[1], to, err);
    *to = *from;
    for (size_t i = 0; i < points->count; i++)
        if (points->items[i].vm_id && from->point->vm_id && !strcmp(points->items[i].vm_id, from->point->vm_id))
            to->point = &points->items[i]; // ends as the latest
    return to->point == from->point ? previous(points, to->point, &from->point, err) : 0;
}

// --disk and both addresses may name it, and must mean the same. *only: UINT64_MAX: all disks.
static int choose_disk(const struct rp_choice *from, const struct rp_choice *to, uint64_t *only, struct rp_error *err)
{
    const int64_t named[] = {from->disk, to->disk};
    for (size_t i = 0; i < 2; i++) {
        if (named[i] < 0)
            continue;
        if (*only != UINT64_MAX && *only != (uint64_t)named[i])
            return rp_fail(err, RP_ERR_USAGE, "disk %llu and disk %lld: which of them?", (unsigned long long)*only, (long long)named[i]);
        *only = (uint64_t)named[i];
    }
    return 0;
}

static int run(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    RP_CLEANUP(rp_diff_clear) struct rp_diff diff = {0};
    struct rp_choice from, to;
    uint64_t only = UINT64_MAX;
    if (rp_cli_number(cli, "disk", 0, UINT32_MAX, &only, err) || !repo || rp_repo_points(repo, &points, err) ||
        choose(cli, &points, &from, &to, err) || choose_disk(&from, &to, &only, err) || rp_diff_points(repo, from.point, to.point, &diff, err))
        return -1;
    size_t kept = 0;
    for (size_t i = 0; i < diff.count; i++) {
        if (only == UINT64_MAX || diff.disks[i].number == only)
            diff.disks[kept++] = diff.disks[i];
        else
            rp_ranges_clear(&diff.disks[i].ranges);
    }
    diff.count = kept;
    if (only != UINT64_MAX && !kept)
        return rp_fail(err, RP_ERR_NOT_FOUND, "the restore points have no disk %llu", (unsigned long long)only);
    if (cli->json) {
        print_json(&diff, from.point, to.point);
        return remark(cli, &points);
    }
    print_point("from", from.point);
    print_point("to", to.point);
    for (size_t i = 0; i < diff.count; i++)
        print_disk(cli, &diff.disks[i]);
    return remark(cli, &points);
}

static const struct rp_cli_option options[] = {
    {0, "map", NULL, "draw a map of each disk (the default without --ranges)"},
    {0, "ranges", NULL, "list the ranges that differ"},
    {0, "disk", "N", "this disk only"},
    RP_ADDRESS_VM_OPTION,
    {0},
};

const struct rp_cli_verb rp_cli_diff_verbs[] = {
    {
        .name = "diff",
        .arguments = "VM[@POINT][:DISK] [VM@POINT]",
        .summary = "show what changed between two restore points, or since one",
        .details = "With one address that names a point: what changed from it to the latest.\n"
                   "With a VM only: what changed between its last two points. Ranges are whole\n"
                   "64 KiB blocks; only the trees are compared, no data is read.\n",
        .examples = "refpoint diff web1\n"
                    "refpoint diff web1@-3 --ranges\n"
                    "refpoint diff web1@3fa9 web1@latest --json\n",
        .options = options,
        .max_args = 2,
        .flags = RP_CLI_READS,
        .run = run,
    },
    {0},
};
