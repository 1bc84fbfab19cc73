// A host's folders under the names that they have on this machine: `D:\VMs = /mnt/hv1-d` says that what the host calls
// D:\VMs is mounted here at /mnt/hv1-d. Names on the host are Windows paths (`D:\VMs`, `\\server\share\VMs`,
// `\\?\Volume{…}\VMs`), which compare without case, or POSIX paths, which compare as they are.
//
// Both sides are hostile: a host's answers, and what lies in a share. A path never leaves its mapped folder, neither
// with `..` nor through a symbolic link.
#ifndef RP_HYPERV_PATH_MAP_H
#define RP_HYPERV_PATH_MAP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/error.h"

struct rp_path_mapping {
    char *host;  // as the host calls the folder; without a separator at the end
    char *local; // absolute
};
struct rp_path_map {
    struct rp_path_mapping *items;
    size_t count;
};

// One mapping; where two know a path, the one of the longer folder is taken. RP_ERR_INVALID: a folder that is not
// absolute, a name that cannot be one, or the same folder twice.
int rp_path_map_add(struct rp_path_map *map, const char *host, const char *local, struct rp_error *err);
// The same from "HOST = LOCAL", as the hosts file and options have it.
int rp_path_map_add_line(struct rp_path_map *map, const char *line, struct rp_error *err);
void rp_path_map_clear(struct rp_path_map *map); // usable with RP_CLEANUP
struct rp_path_map *rp_path_map_copy(const struct rp_path_map *map); // NULL stays NULL
void rp_path_map_free(struct rp_path_map *map);  // NULL is fine
RP_DEFINE_CLEANUP(struct rp_path_map, rp_path_map_free)

// Whether some mapping knows the path, by its text alone. `map` NULL: an empty one.
bool rp_path_map_knows(const struct rp_path_map *map, const char *host_path);
// Where a file of the host is here; malloc'ed. It need not be there, nor the folders that it is in, but what is there
// of them has been followed: names without regard to case where the host's path is a Windows one, links as far as they
// stay inside. RP_ERR_NOT_FOUND: no mapping knows it; RP_ERR_PERMISSION: it would lead out; RP_ERR_INVALID: no absolute
// path of a file.
char *rp_path_map_to_local(const struct rp_path_map *map, const char *host_path, struct rp_error *err);
// The reverse, for a file that is here: what the host calls it. The folder that it is in must be there.
char *rp_path_map_to_host(const struct rp_path_map *map, const char *local_path, struct rp_error *err);
// Opens a file that is here to be read: a file descriptor. RP_ERR_PERMISSION unless it lies in one of the mapped
// folders, all links followed, also those that somebody makes at this moment.
int rp_path_map_open(const struct rp_path_map *map, const char *local_path, struct rp_error *err);

// FOLDER\NAME in the host's own style. `name` is one name. Malloc'ed.
char *rp_path_map_join(const char *host_folder, const char *name);
// The part after the last separator; borrowed.
const char *rp_path_map_name(const char *host_path);

#endif
