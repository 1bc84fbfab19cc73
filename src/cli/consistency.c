#include "cli/consistency.h"

#include <string.h>

int rp_cli_consistency_parse(const struct rp_cli *cli, struct rp_cli_consistency *consistency, struct rp_error *err)
{
    static const struct {
        const char *name;
        struct rp_cli_consistency means;
    } kinds[] = {{"crash", {RP_CONSISTENCY_CRASH, false, 0}},
                 {"application", {RP_CONSISTENCY_APPLICATION, true, 0}},
                 {"application-only", {RP_CONSISTENCY_APPLICATION, false, 0}}};
    const char *kind = rp_cli_value(cli, "consistency");
    uint64_t seconds = 0;
    *consistency = (struct rp_cli_consistency){0};
    if (rp_cli_number(cli, "freeze-limit", 1, 3600, &seconds, err))
        return -1;
    for (size_t i = 0; kind && i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kind, kinds[i].name))
            *consistency = kinds[i].means;
    if (kind && !consistency->asked)
        return rp_fail(err, RP_ERR_USAGE, "--consistency: \"%.32s\" is none of crash, application and application-only", kind);
    consistency->frozen_ms = (unsigned)seconds * 1000;
    return 0;
}

struct rp_cli_consistency rp_cli_consistency_of(const struct rp_cli_consistency *consistency, const struct rp_vm *vm)
{
    struct rp_cli_consistency result = *consistency;
    if (!result.asked) {
        result.asked = vm->has_guest ? RP_CONSISTENCY_APPLICATION : RP_CONSISTENCY_CRASH;
        result.allow_crash = true;
    }
    return result;
}

const char *rp_cli_consistency_name(enum rp_consistency consistency)
{
    return consistency == RP_CONSISTENCY_APPLICATION ? "application" : consistency == RP_CONSISTENCY_CRASH ? "crash" : "unknown";
}
