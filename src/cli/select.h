// Finding what an argument of the command line names: one of a VM's checkpoints or reference points, a disk.
#ifndef RP_CLI_SELECT_H
#define RP_CLI_SELECT_H

#include "cli/cli.h"

// One of several things by its id, with or without "Microsoft:", a prefix of it of at least 4 characters, or its exact
// name. `what` is "checkpoint", for messages: nothing, or more than one, fits: RP_ERR_NOT_FOUND, RP_ERR_INVALID.
int rp_cli_pick(const char *what, const char *asked, const char *const *ids, const char *const *names, size_t count,
                size_t *index, struct rp_error *err);
// "disk2" or "2".
int rp_cli_disk_number(const char *text, uint32_t *number, struct rp_error *err);
// Waits until a VM's merges are over, with a line for a person. Returns 0 done; 1 pending, after a remark (something is
// in the way); -1 error or asked to stop (the merge goes on).
int rp_cli_wait_merge(const struct rp_cli *cli, struct rp_host_connection *host, const char *vm_id,
                      struct rp_error *err);

#endif
