#include "backup/partial.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/fs.h"

#define MARK ".partial."

char *rp_partial_name(const char *path) { return rp_xasprintf("%s" MARK "%ld", path, (long)getpid()); }

// A process of that number that is another one by now keeps the file; the next restore looks again.
static bool is_gone(const char *pid)
{
    char *end;
    long number = strtol(pid, &end, 10);
    return end != pid && !*end && number > 0 && (number == (long)getpid() || (kill((pid_t)number, 0) && errno == ESRCH));
}

static bool is_locked(const char *path)
{
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(rp_fs_posix(), path, RP_OPEN_WRITE, NULL);
    return !store || rp_store_lock(store, true, NULL);
}

void rp_partial_remove_stale(const char *path)
{
    RP_AUTO_FREE char *folder = rp_path_directory(path), *prefix = rp_xasprintf("%s" MARK, rp_path_name(path));
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) || !is_gone(entry->d_name + strlen(prefix)))
            continue;
        RP_AUTO_FREE char *stale = rp_path_join(folder, entry->d_name);
        if (!is_locked(stale) && !unlink(stale))
            rp_log(RP_LOG_INFO, "removed %s, left by a restore that was killed", stale);
    }
    if (dir)
        closedir(dir);
}
