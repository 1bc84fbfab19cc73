// refpoint check
#include "base/buf.h"
#include "base/num.h"
#include "cli/point_json.h"

#define SHOWN_RANGES 4

struct check {
    const struct rp_cli *cli;
    struct rp_cli_progress *progress;
};

static void print_problem(const struct rp_repo_problem *problem)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    rp_buf_printf(&line, "%s", problem->text);
    if (problem->point_id) {
        rp_buf_printf(&line, ": damages VM %s, restore point %.*s, disk %u", problem->vm_name ? problem->vm_name : "?",
                      RP_SHORT_ID, problem->point_id, problem->disk_number);
        size_t count = problem->ranges ? problem->ranges->count : 0;
        for (size_t i = 0; i < count && i < SHOWN_RANGES; i++)
            rp_buf_printf(&line, "%s %llu+%llu", i ? "," : ", bytes", (unsigned long long)problem->ranges->items[i].offset,
                          (unsigned long long)problem->ranges->items[i].length);
        if (count > SHOWN_RANGES)
            rp_buf_printf(&line, " and %zu more ranges", count - SHOWN_RANGES);
    }
    rp_cli_print("%s\n", rp_cli_safe(rp_buf_text(&line)));
}

static void on_problem(void *context, const struct rp_repo_problem *problem)
{
    struct check *check = context;
    rp_cli_progress_hide(check->progress);
    if (!check->cli->json) {
        print_problem(problem);
        return;
    }
    json_t *line = json_pack("{s:s, s:o, s:o}", "type", "problem", "text", rp_cli_json_text(problem->text), "object",
                             rp_cli_json_text(problem->object));
    if (problem->point_id) {
        json_object_set_new(line, "point", rp_cli_json_text(problem->point_id));
        json_object_set_new(line, "vm", rp_cli_json_text(problem->vm_name));
        json_object_set_new(line, "disk", json_integer(problem->disk_number));
        json_object_set_new(line, "ranges", rp_ranges_json(problem->ranges));
    }
    rp_cli_print_json_line(line);
}

static int run(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_repo_close_p) struct rp_repo *repo = rp_cli_open_repo(cli, err);
    struct rp_repo_info info;
    if (!repo || rp_repo_info(repo, &info, err))
        return -1;
    bool read_data = rp_cli_flag(cli, "read-data");
    RP_CLEANUP(rp_cli_progress_end_p) struct rp_cli_progress *progress = rp_cli_progress_new(cli, "check");
    struct check check = {cli, progress};
    uint64_t problems = 0;
    int failed = rp_repo_check(repo, read_data, on_problem, &check, rp_cli_progress_update, progress, &problems, err);
    if (failed && problems)
        rp_context(err, "%llu problem%s found, but not all was looked at", (unsigned long long)problems, problems == 1 ? "" : "s");
    if (failed)
        return -1;
    rp_cli_progress_hide(progress);
    if (cli->json)
        rp_cli_print_json_line(json_pack("{s:s, s:I, s:b, s:I}", "type", "summary", "problems", (json_int_t)problems,
                                         "read_data", (int)read_data, "points", (json_int_t)info.points));
    if (problems)
        return rp_fail(err, RP_ERR_CORRUPT, "%llu problem%s found", (unsigned long long)problems, problems == 1 ? "" : "s");
    rp_cli_say(cli, "no problems: %llu restore points, %llu packs%s\n", (unsigned long long)info.points,
               (unsigned long long)info.packs, read_data ? ", every block read" : " (structure only; --read-data reads every block)");
    return 0;
}

static const struct rp_cli_option options[] = {
    {0, "read-data", NULL, "read, decrypt, decompress and hash every stored block"},
    {0},
};

const struct rp_cli_verb rp_cli_check_verbs[] = {
    {
        .name = "check",
        .arguments = "",
        .summary = "check that every restore point of a repository can be restored",
        .details = "One line for each problem: the object, and the VM, restore point, disk and\n"
                   "byte ranges that it damages. Exit status 2 when there is any.\n"
                   "\n"
                   "A pack found damaged is marked: backups store its blocks again, and the next of\n"
                   "each VM that needs them is full. Older points then read the new copies, too,\n"
                   "where the VM still has the same data. --read-data removes the mark of a pack\n"
                   "that is whole again.\n",
        .examples = "refpoint check -r /backup/repo\n"
                    "refpoint check --read-data --json\n",
        .options = options,
        .run = run,
    },
    {0},
};
