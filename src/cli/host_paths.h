// Which folders of a host are which ones here: --map, --export-folder.
#ifndef RP_CLI_HOST_PATHS_H
#define RP_CLI_HOST_PATHS_H

#include "cli/cli.h"

// Verbs that read or write a host's files list these among their options.
#define RP_CLI_MAP_OPTION {0, "map", "MAPPING", "a folder of the host and where it is mounted: 'D:\\VMs = /mnt/vms'"}
#define RP_CLI_EXPORT_FOLDER_OPTION                                                                                    \
    {0, "export-folder", "FOLDER", "a folder of the host for exports, with ' = PATH HERE' unless it is mapped"}

// Adds what the command line says to what the connection knows already.
int rp_cli_host_paths(const struct rp_cli *cli, struct rp_host_connection *host, struct rp_error *err);

#endif
