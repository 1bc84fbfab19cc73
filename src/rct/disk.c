// The facts of an open VHDX that a tracking file is bound to.
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
