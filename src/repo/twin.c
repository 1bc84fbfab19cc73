// Copies of one repository (by rsync, say) have one id, and a backup into one takes the reference points of the other for its
// own older ones. The folder that a repository was last backed up into is kept in the cache: if there is another one now, and
// the former is still there, they are twins.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/fs.h"
#include "repo/core.h"
#include "repo/folders.h"

#define PATH_LIMIT 4096

static bool same_folder(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool has_our_id(const struct rp_repo *repo, const char *path)
{
    struct rp_config config;
    RP_CLEANUP(rp_backend_close_p) struct rp_backend *other = rp_backend_directory_open(path, false, NULL);
    bool twin = other && rp_config_read(other, &config, NULL) == 0 && rp_guid_equal(&config.id, &repo->config.id);
    rp_crypto_wipe(&config, sizeof config);
    return twin;
}

char *rp_repo_twin(struct rp_repo *repo)
{
    RP_AUTO_FREE char *here = realpath(repo->backend->location, NULL), *note = rp_repo_cache_path(repo, "location");
    RP_CLEANUP(rp_buf_clear) struct rp_buf known = {0};
    if (!here || rp_folders_make(repo->cache, NULL)) // not a folder, or nowhere to keep it
        return NULL;
    if (rp_fs_read_file(rp_fs_posix(), note, PATH_LIMIT, &known, NULL) == 0) {
        const char *former = rp_buf_text(&known);
        if (!strcmp(former, here))
            return NULL;
        if (*former == '/' && !same_folder(former, here) && has_our_id(repo, former))
            return rp_xstrdup(former);
    }
    FILE *file = fopen(note, "we");
    if (file) {
        fputs(here, file);
        fclose(file);
    }
    return NULL;
}
