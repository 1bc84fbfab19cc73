// Room on the file systems of the disks: looked for before a checkpoint, and missed by the guest's writes.
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "diskservice/chains.h"

#define TELL_EVERY_NS (60 * (uint64_t)1000000000)

// A fresh leaf: headers, log, tables and tracking files; and the log of the leaf that is frozen goes into its tables.
static uint64_t needed_for(const struct rp_vhdx_info *info)
{
    uint64_t tables = rp_align_up(rp_div_up(info->size, info->block_size) * 9, RP_MIB); // 8 bytes a block, and bitmap blocks
    return 2 * tables + 16 * RP_MIB;
}

int rp_room_for_leaves(struct rp_engine *engine, struct rp_engine_chain *const *disks, size_t count, struct rp_error *err)
{
    if (engine->fs != rp_fs_posix()) // nobody else has a folder to look at
        return 0;
    struct {
        dev_t device;
        uint64_t needed;
    } systems[RP_ENGINE_MAX_DISKS] = {0};
    for (size_t i = 0; i < count; i++) {
        struct rp_layer *leaf = rp_chain_leaf(disks[i]);
        RP_AUTO_FREE char *folder = rp_path_directory(leaf->path);
        struct stat st;
        struct statvfs fs;
        if (stat(folder, &st) || statvfs(folder, &fs) || !fs.f_blocks) // it does not tell
            continue;
        size_t at = 0;
        while (systems[at].needed && systems[at].device != st.st_dev)
            at++;
        systems[at].device = st.st_dev;
        systems[at].needed += needed_for(rp_vhdx_info(leaf->vhdx));
        uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (room < systems[at].needed)
            return rp_fail(err, RP_ERR_NO_SPACE, "%s: %llu MiB free, the new files of a checkpoint need %llu MiB: make room there first",
                           folder, (unsigned long long)(room / RP_MIB), (unsigned long long)(systems[at].needed / RP_MIB));
    }
    return 0;
}

void rp_room_missing(struct rp_engine *engine, size_t disk)
{
    uint64_t told = atomic_load(&engine->room_told_ns), now = rp_clock_monotonic_ns();
    if ((told && now - told < TELL_EVERY_NS) || !atomic_compare_exchange_strong(&engine->room_told_ns, &told, now))
        return;
    struct rp_engine_disk facts;
    rp_engine_disk(engine, disk, &facts);
    RP_AUTO_FREE char *path = facts.leaf_path;
    RP_AUTO_FREE char *folder = rp_path_directory(path);
    rp_log(RP_LOG_ERROR, "%s: the file system is full, and the guest's writes to %s fail. Nothing that was written is lost: make room "
                         "there (delete or move other files, enlarge it), and they succeed again", folder, rp_path_name(path));
}
