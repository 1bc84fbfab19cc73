#include "repo/index_roots.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

#define SUFFIX ".complete"

static char *path_of(const char *directory, const uint8_t *root)
{
    char hex[RP_HEX(RP_ID_BYTES)];
    return rp_xasprintf("%s/%s" SUFFIX, directory, rp_hex(root, RP_ID_BYTES, hex));
}

bool rp_index_roots_has(const char *directory, const uint8_t root[RP_ID_BYTES])
{
    RP_AUTO_FREE char *path = path_of(directory, root);
    return access(path, F_OK) == 0;
}

void rp_index_roots_add(const char *directory, const uint8_t root[RP_ID_BYTES])
{
    RP_AUTO_FREE char *path = path_of(directory, root);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
}

void rp_index_roots_remove(const char *directory, const uint8_t root[RP_ID_BYTES])
{
    RP_AUTO_FREE char *path = path_of(directory, root);
    unlink(path);
}

void rp_index_roots_forget(const char *directory)
{
    DIR *dir = opendir(directory);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name), suffix = strlen(SUFFIX);
        if (length > suffix && !strcmp(entry->d_name + length - suffix, SUFFIX))
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir)
        closedir(dir);
}
