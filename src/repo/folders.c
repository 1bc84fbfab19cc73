#include "repo/folders.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "io/fs.h"

int rp_folders_make(const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *copy = rp_xstrdup(path);
    for (char *p = copy + 1; *copy; p++) {
        char c = *p;
        if (c && c != '/')
            continue;
        *p = 0;
        bool made = mkdir(copy, 0700) == 0;
        if (!made && errno != EEXIST)
            return rp_fail_sys(err, errno, "%s: make the folder", copy);
        if (made && rp_fs_sync_parent(rp_fs_posix(), copy, err))
            return -1;
        if (!c)
            break;
        *p = c;
    }
    return 0;
}
