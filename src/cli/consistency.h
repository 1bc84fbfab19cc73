// --consistency and --freeze-limit, of the verbs that make checkpoints.
#ifndef RP_CLI_CONSISTENCY_H
#define RP_CLI_CONSISTENCY_H

#include "cli/cli.h"

struct rp_cli_consistency {
    enum rp_consistency asked; // RP_CONSISTENCY_UNKNOWN: nobody said; see rp_cli_consistency_of
    bool allow_crash;          // take a crash-consistent checkpoint where there can be no better one
    unsigned frozen_ms;        // for rp_host_connection; 0: the host decides
};
int rp_cli_consistency_parse(const struct rp_cli *cli, struct rp_cli_consistency *consistency, struct rp_error *err);
// What it comes to for this VM: where nobody said, crash if it is known to have no guest, else application with crash to fall back to
// (over WMI nobody knows before the host was asked).
struct rp_cli_consistency rp_cli_consistency_of(const struct rp_cli_consistency *consistency, const struct rp_vm *vm);
const char *rp_cli_consistency_name(enum rp_consistency consistency);

#define RP_CLI_CONSISTENCY_OPTIONS                                                                                          \
    {0, "consistency", "KIND", "application, application-only or crash (default: by the VM)"},                               \
    {0, "freeze-limit", "SECONDS", "the guest may be frozen so long (default 10)"}
#define RP_CLI_CONSISTENCY_DETAILS                                                                                         \
    "Consistency: application asks the guest's agent to bring file systems and\n"                                          \
    "applications to rest, and takes a crash-consistent checkpoint where that cannot\n"                                    \
    "be, and records why; application-only fails then, and leaves nothing; crash asks\n"                                   \
    "nobody. When nothing is said, a VM of a host behind WMI gets application, and so\n"                                    \
    "does one of this machine that a hypervisor runs; one that nothing runs gets crash.\n"                                  \
    "A VM that is off is consistent, nobody writes; one that is paused or saved cannot\n"                                   \
    "be asked. The guest is thawed when its time is up, whatever else goes on.\n"                                           \
    "--freeze-limit is for hosts on this machine. Over WMI, that is for backups: what a\n"                                  \
    "checkpoint of a user is like is a setting of the VM there, and nobody can ask.\n"

#endif
