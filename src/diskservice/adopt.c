// What a killed engine left in shared memory is brought into the files, before anything is opened.
#include <dirent.h>

#include "base/log.h"
#include "diskservice/chains.h"

char *rp_engine_shm_directory(struct rp_fs *fs, const char *vm_directory)
{
    struct rp_error err = {0};
    char *directory = fs == rp_fs_posix() ? rp_shm_directory(vm_directory, &err) : NULL;
    if (err.code)
        rp_log(RP_LOG_WARNING, "no shared memory, so a killed disk service loses what was not flushed: %s", err.text);
    return directory;
}

static bool has_files(const char *directory)
{
    DIR *folder = opendir(directory);
    struct dirent *entry;
    bool found = false;
    while (folder && !found && (entry = readdir(folder)))
        found = entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return found;
}

bool rp_engine_left_behind(struct rp_fs *fs, const char *vm_directory)
{
    RP_AUTO_FREE char *path = rp_path_join(vm_directory, RP_ENGINE_LOCK);
    // An engine that ends leaves an empty lock file. So nothing is made in shared memory to find out that nothing is there.
    RP_CLEANUP(rp_store_close_p) struct rp_store *lock = fs == rp_fs_posix() ? rp_fs_open(fs, path, RP_OPEN_READ, NULL) : NULL;
    uint64_t size = 0;
    if (!lock || rp_store_size(lock, &size, NULL) || !size)
        return false;
    RP_AUTO_FREE char *directory = rp_engine_shm_directory(fs, vm_directory);
    return directory && has_files(directory);
}
