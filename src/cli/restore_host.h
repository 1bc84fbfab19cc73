// refpoint restore --to-host
#ifndef RP_CLI_RESTORE_HOST_H
#define RP_CLI_RESTORE_HOST_H

#include "backup/restore.h"
#include "cli/cli.h"

// `options`: threads and rate.
int rp_cli_restore_host(const struct rp_cli *cli, struct rp_repo *repo, const struct rp_point *point,
                        const struct rp_restore_options *options, struct rp_error *err);

#endif
