#include "cli/host_paths.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

// "E:\Export = /mnt/export" is a mapping too; "E:\Export" alone must be in one.
static int set_export_folder(struct rp_host_connection *host, const char *text, struct rp_error *err)
{
    RP_CLEANUP(rp_path_map_clear) struct rp_path_map one = {0};
    const char *folder = text;
    if (!rp_path_map_add_line(&one, text, NULL)) {
        if (!rp_path_map_knows(host->paths, one.items[0].host) &&
            rp_path_map_add(host->paths, one.items[0].host, one.items[0].local, err))
            return -1;
        folder = one.items[0].host;
    }
    if (!rp_host_is_local(host) && !rp_path_map_knows(host->paths, folder))
        return rp_fail(err, RP_ERR_USAGE,
                       "--export-folder: where is the host's %.256s here? Give it as 'FOLDER = PATH HERE', or --map it",
                       folder);
    free(host->export_folder);
    host->export_folder = rp_xstrdup(folder);
    return 0;
}

int rp_cli_host_paths(const struct rp_cli *cli, struct rp_host_connection *host, struct rp_error *err)
{
    const char *value;
    struct rp_error why = {0};
    if (!host->paths)
        host->paths = rp_xcalloc(1, sizeof *host->paths);
    for (size_t i = 0; (value = rp_cli_value_at(cli, "map", i)); i++)
        if (rp_path_map_add_line(host->paths, value, &why))
            return rp_fail(err, RP_ERR_USAGE, "--map: %s", why.text);
    value = rp_cli_value(cli, "export-folder");
    return value ? set_export_folder(host, value, err) : 0;
}
