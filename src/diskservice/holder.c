#include "diskservice/holder.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

// How many descriptors of the process have the file open and a lock on it. /proc/locks does not tell: it has no process for
// locks of open file descriptions.
static unsigned locks_of(const char *pid, const struct stat *file)
{
    RP_AUTO_FREE char *folder = rp_xasprintf("/proc/%s/fd", pid);
    DIR *fds = opendir(folder);
    unsigned count = 0;
    for (struct dirent *entry; fds && (entry = readdir(fds));) {
        struct stat open_file;
        RP_AUTO_FREE char *link = rp_xasprintf("%s/%s", folder, entry->d_name);
        RP_AUTO_FREE char *facts = rp_xasprintf("/proc/%s/fdinfo/%s", pid, entry->d_name);
        if (!isdigit((unsigned char)*entry->d_name) || stat(link, &open_file) || open_file.st_dev != file->st_dev ||
            open_file.st_ino != file->st_ino)
            continue;
        FILE *info = fopen(facts, "re");
        char line[256];
        bool locked = false;
        while (info && !locked && fgets(line, sizeof line, info))
            locked = !strncmp(line, "lock:", 5);
        if (info)
            fclose(info);
        count += locked;
    }
    if (fds)
        closedir(fds);
    return count;
}

static char *describe(const char *pid)
{
    RP_AUTO_FREE char *path = rp_xasprintf("/proc/%s/comm", pid);
    char name[64] = "";
    FILE *comm = fopen(path, "re");
    if (comm && fgets(name, sizeof name, comm))
        name[strcspn(name, "\n")] = 0;
    if (comm)
        fclose(comm);
    return *name ? rp_xasprintf("pid %s (%s)", pid, name) : rp_xasprintf("pid %s", pid);
}

char *rp_lock_holder(const char *path)
{
    struct stat file;
    DIR *processes = stat(path, &file) ? NULL : opendir("/proc");
    char self[32];
    snprintf(self, sizeof self, "%ld", (long)getpid());
    char *found = NULL;
    for (struct dirent *entry; processes && !found && (entry = readdir(processes));)
        if (isdigit((unsigned char)*entry->d_name) && strcmp(entry->d_name, self) && locks_of(entry->d_name, &file))
            found = describe(entry->d_name);
    if (processes)
        closedir(processes);
    if (!found && processes && locks_of(self, &file) > 1)
        found = describe(self);
    return found;
}
