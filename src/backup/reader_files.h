// What the readers of VHDX files share. Internal to src/backup.
#ifndef RP_BACKUP_READER_FILES_H
#define RP_BACKUP_READER_FILES_H

#include "backup/reader.h"
#include "disk/vhdx.h"

// The virtual-disk reader on a file that is at `path` of `fs`, under another name. `own` (NULL is fine) is freed with
// it.
struct rp_reader *rp_reader_virtual_disk_at(struct rp_host_connection *host, const struct rp_vm_disk *disk,
                                            struct rp_fs *fs,
                                            const char *path, const char *name, void *own, struct rp_error *err);
// RP_ERR_CORRUPT unless the file is the disk that the host described.
int rp_reader_check_file(const struct rp_vm_disk *disk, const char *path, const struct rp_vhdx_info *info,
                         struct rp_error *err);
// The mapped folders of the host, to be read only, with nothing outside them; to be freed. Borrows the host.
struct rp_fs *rp_reader_share_fs(const struct rp_host_connection *host);

#endif
