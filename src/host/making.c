// A file that somebody else makes under a name of its own: announced like the names of an export (export_names.c), but
// never whole under this name.
#include "host/internal.h"
#include "host/local.h"

int rp_host_local_making(struct rp_host_connection *host, const char *path, int64_t *making, struct rp_error *err)
{
    RP_CLEANUP(rp_local_export_names_clear) struct rp_local_export_names names = {.local = rp_local_of(host)};
    names.root = rp_path_directory(path);
    names.definition = rp_xstrdup(""); // no file has this name: nothing makes it whole
    if (rp_local_export_names_add(&names, path, false, err) || rp_local_export_names_announce(&names, err))
        return -1;
    *making = names.row;
    names.row = 0; // its lock stays
    return 0;
}

int rp_host_local_made(struct rp_host_connection *host, int64_t making, struct rp_error *err)
{
    RP_CLEANUP(rp_local_export_names_clear) struct rp_local_export_names names = {.local = rp_local_of(host),
                                                                                  .row = making};
    return rp_local_export_names_end(&names, false, err);
}
