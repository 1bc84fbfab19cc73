// Hosts by name: from the hosts file and the keyring to a connection.
#ifndef RP_CLI_OPEN_HOST_H
#define RP_CLI_OPEN_HOST_H

#include "cli/cli.h"
#include "hyperv/hosts_file.h"

// A host of the hosts file, RP_ERR_NOT_FOUND when there is none of that name. Clear it with rp_hosts_entry_clear.
int rp_cli_host_entry(const char *name, struct rp_hosts_entry *entry, struct rp_error *err);
// Whether the hosts file has a host of that name. A file that cannot be read has none.
bool rp_cli_is_host(const char *name);
// A connection to it, with the password of the keyring, its mapped folders and export folder; nothing is sent yet.
// `trace` as in rp_wsman_options, NULL: nobody.
struct rp_host_connection *rp_cli_connect(const struct rp_hosts_entry *entry,
                                          void (*trace)(void *context, bool sent, const void *data, size_t size),
                                          void *trace_context, struct rp_error *err);
// What rp_wsman_client_new is given for it; borrows everything.
void rp_cli_host_options(const struct rp_hosts_entry *entry, const char *password, struct rp_wsman_options *options);

#endif
