#include "cli/select.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/num.h"

#define SCHEME "Microsoft:"

static const char *bare(const char *id)
{
    return strncasecmp(id, SCHEME, strlen(SCHEME)) ? id : id + strlen(SCHEME);
}

int rp_cli_pick(const char *what, const char *asked, const char *const *ids, const char *const *names, size_t count,
                size_t *index, struct rp_error *err)
{
    size_t found = 0, length = strlen(bare(asked));
    for (size_t i = 0; i < count; i++)
        if (!strcasecmp(bare(ids[i]), bare(asked))) { // a whole id beats a name that looks like one
            *index = i;
            return 0;
        }
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], asked) || (length >= 4 && !strncasecmp(bare(ids[i]), bare(asked), length))) {
            found++;
            *index = i;
        }
    if (found > 1)
        return rp_fail(err, RP_ERR_INVALID, "%zu %ss fit \"%.128s\": name one by its whole id", found, what, asked);
    return found ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "no %s fits \"%.128s\"", what, asked);
}

int rp_cli_disk_number(const char *text, uint32_t *number, struct rp_error *err)
{
    const char *digits = strncmp(text, "disk", 4) ? text : text + 4;
    char *end;
    errno = 0;
    unsigned long value = strtoul(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || *end || errno || value > 1000000)
        return rp_fail(err, RP_ERR_USAGE, "\"%.64s\" names no disk: give its number (disk0, or 0)", text);
    *number = (uint32_t)value;
    return 0;
}

int rp_cli_wait_merge(const struct rp_cli *cli, struct rp_host_connection *host, const char *vm_id, struct rp_error *err)
{
    uint64_t stuck_since = 0, most = 0; // a merge that fails is tried again, and shows no problem while it runs
    bool said = false;
    RP_CLEANUP(rp_cli_progress_end_p) struct rp_cli_progress *progress = rp_cli_progress_new(cli, "merge");
    for (;;) {
        int state = rp_host_wait_merge(host, vm_id, 200, err);
        if (state <= 0)
            return state;
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        if (host->ops->find_vm(host, vm_id, &vm, err))
            return -1;
        if (!said)
            rp_cli_say(cli, "merging\n");
        said = true;
        if (vm.merge_total)
            rp_cli_progress_update(progress, vm.merge_done, vm.merge_total);
        if (rp_cli_stopped())
            return rp_fail(err, RP_ERR_CANCELLED, "stopped waiting; the merge goes on");
        uint64_t now = rp_clock_monotonic_ns();
        if (vm.merge_done > most)
            stuck_since = 0;
        most = rp_max64(most, vm.merge_done);
        if (vm.merge_problem && !stuck_since)
            stuck_since = now;
        if (vm.merge_problem && now - stuck_since > 3000000000u) { // a reader that is about to close its file gets its chance
            rp_cli_progress_hide(progress);
            rp_cli_remark(cli, "the merge is pending, and is tried again later: %s", vm.merge_problem);
            return 1;
        }
    }
}
