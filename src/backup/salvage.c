#include "backup/salvage.h"

#include "base/buf.h"
#include "io/fs.h"

char *rp_salvage_list_name(const char *image) { return rp_xasprintf("%s.lost", image); }

int rp_salvage_write_list(const char *path, const char *image, const struct rp_ranges *lost, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_buf_printf(&text, "# %s: these bytes of the disk could not be read from the repository, and are zeros.\n# OFFSET LENGTH\n", image);
    for (size_t i = 0; i < lost->count; i++)
        rp_buf_printf(&text, "%llu %llu\n", (unsigned long long)lost->items[i].offset, (unsigned long long)lost->items[i].length);
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(rp_fs_posix(), path, RP_OPEN_WRITE | RP_OPEN_CREATE, err);
    if (!store)
        return -1;
    if (rp_store_lock(store, true, err) || rp_store_pwrite(store, text.data, text.size, 0, err) || rp_store_flush(store, err)) {
        rp_fs_unlink(rp_fs_posix(), path, NULL);
        return -1;
    }
    return 0;
}
