#include "cli/open_host.h"

#include <string.h>

#include "base/buf.h"
#include "cli/address.h"
#include "host/local.h"
#include "hyperv/keyring.h"
#include "hyperv/wmi.h"
#include "io/fs.h"

int rp_cli_host_entry(const char *name, struct rp_hosts_entry *entry, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_hosts_file_path();
    RP_CLEANUP(rp_hosts_clear) struct rp_hosts hosts = {0};
    if (rp_hosts_file_read(path, &hosts, err))
        return -1;
    struct rp_hosts_entry *found = rp_hosts_find(&hosts, name);
    if (!found)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no host \"%.64s\" (see refpoint host list)", path, name);
    *entry = *found;
    *found = (struct rp_hosts_entry){0};
    return 0;
}

bool rp_cli_is_host(const char *name)
{
    RP_CLEANUP(rp_hosts_entry_clear) struct rp_hosts_entry entry = {0};
    return rp_hosts_is_name(name) && !rp_cli_host_entry(name, &entry, NULL);
}

void rp_cli_host_options(const struct rp_hosts_entry *entry, const char *password, struct rp_wsman_options *options)
{
    *options = (struct rp_wsman_options){
        .url = entry->url,
        .auth = entry->auth,
        .credentials = {.user = entry->user, .password = password},
        .ca_file = entry->ca_file,
        .fingerprint = entry->fingerprint,
        .basic_in_clear = entry->basic_in_clear,
    };
}

struct rp_host_connection *rp_cli_connect(const struct rp_hosts_entry *entry,
                                          void (*trace)(void *context, bool sent, const void *data, size_t size),
                                          void *trace_context, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_keyring_path();
    struct rp_error local = {0};
    RP_CLEANUP(rp_keyring_wipe) char *password =
        entry->auth == RP_AUTH_PEER ? NULL : rp_keyring_get(path, entry->name, &local);
    if (local.code) {
        rp_fail(err, local.code, "host %s: %s", entry->name, local.text);
        return NULL;
    }
    struct rp_wsman_options options;
    rp_cli_host_options(entry, password, &options);
    options.trace = trace;
    options.trace_context = trace_context;
    struct rp_host_connection *host = rp_host_wmi_open(&options, &local);
    if (!host) {
        rp_fail(err, local.code, "host %s: %s", entry->name, local.text);
        return NULL;
    }
    free(host->address); // restore points remember a host by the name that it has here
    host->address = rp_xstrdup(entry->name);
    if (entry->paths.count)
        host->paths = rp_path_map_copy(&entry->paths);
    if (entry->export_folder)
        host->export_folder = rp_xstrdup(entry->export_folder);
    return host;
}

// A folder that is no host yet becomes one where something is made in it, but not by a slip.
static struct rp_host_connection *open_local(const struct rp_cli *cli, const char *address, struct rp_error *err)
{
    const char *directory = address + strlen("local:");
    RP_AUTO_FREE char *parent = rp_path_directory(directory);
    if (!rp_host_local_exists(directory)) {
        if (rp_host_local_exists(parent)) {
            rp_fail(err, RP_ERR_USAGE, "%s: a name in the folder of the host local:%s, and no host; a VM of that host is named "
                    "without a folder", address, parent);
            return NULL;
        }
        if (cli->verb->flags & RP_CLI_READS && strcmp(address, RP_CLI_DEFAULT_HOST)) {
            rp_fail(err, RP_ERR_NOT_FOUND, "%s: there is no host (refpoint vm create makes one)", address);
            return NULL;
        }
    }
    return rp_host_local_open(directory, err);
}

struct rp_host_connection *rp_cli_open_host(const struct rp_cli *cli, const char *address, struct rp_error *err)
{
    if (!address)
        address = cli->host;
    if (!strncmp(address, "local:", 6) && address[6])
        return open_local(cli, address, err);
    if (!rp_hosts_is_name(address)) {
        rp_fail(err, RP_ERR_USAGE, "host \"%.128s\": not an address (local:DIR, or a name of refpoint host list)",
                address);
        return NULL;
    }
    RP_CLEANUP(rp_hosts_entry_clear) struct rp_hosts_entry entry = {0};
    return rp_cli_host_entry(address, &entry, err) ? NULL : rp_cli_connect(&entry, NULL, NULL, err);
}

struct rp_host_connection *rp_cli_open_vm(const struct rp_cli *cli, const char *address, struct rp_vm *vm,
                                          struct rp_error *err)
{
    RP_AUTO_FREE char *host_address = NULL;
    const char *name;
    rp_address_split_host(address, &host_address, &name);
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_host(cli, host_address, err);
    if (!host || host->ops->find_vm(host, name, vm, err))
        return NULL;
    struct rp_host_connection *opened = host;
    host = NULL;
    return opened;
}
