// Addresses of restore points: [HOST/]VM[@POINT][:DISK].
//
// VM is an exact name or a GUID; names with '/', '@' or ':' are found as a whole first, or given with --vm. Without VM,
// "@POINT" looks at the points of all VMs: for what only reads; "restore" takes an id so, and nothing else. POINT: "latest" (also when absent), "-1" (one before), a date (the newest
// point up to that moment; a day, a second, a millisecond count to their ends), or the beginning of an id.
#ifndef RP_CLI_ADDRESS_H
#define RP_CLI_ADDRESS_H

#include "cli/cli.h"

struct rp_choice {
    const struct rp_point *point; // borrowed from the points
    int64_t disk;                 // -1: none named
    bool of_any_vm;               // neither a VM nor an id was named: it is the newest one of whichever VM
};

// `text` may be NULL with --vm: the latest point of that VM. Empty it is RP_ERR_USAGE ("$VM", and VM is not set). Ambiguous names and ids are RP_ERR_INVALID, listing them.
int rp_address_choose(const struct rp_cli *cli, const struct rp_points *points, const char *text,
                      struct rp_choice *choice, struct rp_error *err);
// Of a point that `text` chose by its place in time, and not by its id: where points cannot be read there may be a newer one.
// Remarks on that, and returns the exit status: 1, or 0 when nothing is to be said.
int rp_address_remark(const struct rp_cli *cli, const struct rp_points *points, const char *text);
// The VM alone: `*vm_id` is borrowed from the points.
int rp_address_choose_vm(const struct rp_points *points, const char *text, const char **vm_id, struct rp_error *err);

// "[HOST/]VM" where HOST is local:DIR or a name of the hosts file: `*host` is NULL, or malloc'ed; `*vm` borrowed.
void rp_address_split_host(const char *text, char **host, const char **vm);

// Verbs that take addresses list this among their options.
#define RP_ADDRESS_VM_OPTION {0, "vm", "NAME", "the VM by its exact name, whatever characters it has"}

#endif
