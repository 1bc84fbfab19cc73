#include "repo/folders.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"

int rp_folders_make(const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *copy = rp_xstrdup(path);
    for (char *p = copy + 1; *copy; p++) {
        char c = *p;
        if (c && c != '/')
            continue;
        *p = 0;
        if (mkdir(copy, 0700) && errno != EEXIST)
            return rp_fail_sys(err, errno, "%s: make the folder", copy);
        if (!c)
            break;
        *p = c;
    }
    return 0;
}
