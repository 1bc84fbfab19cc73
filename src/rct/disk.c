// The facts of an open VHDX that a tracking file is bound to, and that file of one that is frozen.
#include "rct/rct.h"

int rp_rct_disk_of(struct rp_vhdx *vhdx, struct rp_rct_disk *disk, struct rp_error *err)
{
    const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
    *disk = (struct rp_rct_disk){
        .virtual_size = info->size,
        .disk_id = info->disk_id,
        .file_write_guid = info->file_write_guid,
        .data_write_guid = info->data_write_guid,
    };
    return rp_vhdx_identity(vhdx, &disk->identity, err);
}

static struct rp_rct *recover(struct rp_fs *fs, struct rp_vhdx *vhdx)
{
    const char *path = rp_vhdx_path(vhdx);
    struct rp_rct_disk disk;
    RP_CLEANUP(rp_store_close_p) struct rp_store *store = rp_fs_open(fs, path, RP_OPEN_READ, NULL);
    if (!store || rp_store_settle(store, NULL) || rp_rct_disk_of(vhdx, &disk, NULL))
        return NULL;
    return rp_rct_recover(fs, path, &disk, NULL);
}

struct rp_rct *rp_rct_open_frozen(struct rp_fs *fs, struct rp_vhdx *vhdx, struct rp_error *err)
{
    struct rp_rct_disk disk;
    struct rp_error why = {0};
    if (rp_rct_disk_of(vhdx, &disk, err))
        return NULL;
    struct rp_rct *rct = rp_rct_open_read(fs, rp_vhdx_path(vhdx), &disk, &why);
    if (!rct && why.code == RP_ERR_TRACKING_OFF) // a crash may have left it open
        rct = recover(fs, vhdx);
    if (!rct)
        rp_fail_as(err, &why);
    return rct;
}
