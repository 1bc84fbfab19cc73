// Folders that a host exports a VM into, and what is in them. Each job has its own, whose name says whose it is:
// FOLDER/refpoint-<repository>-<vm>-<job>.
#ifndef RP_BACKUP_EXPORT_H
#define RP_BACKUP_EXPORT_H

#include "base/guid.h"
#include "hyperv/host_connection.h"
#include "io/fs.h"
#include "repo/point.h"

struct rp_export_folder {
    char *host, *local; // the names that it has there and here
};
// Makes the folder below `folder` (as the host calls it), empty. RP_ERR_NOT_FOUND, RP_ERR_PERMISSION: it is not seen
// here.
int rp_export_folder_make(const struct rp_host_connection *host, const char *folder, const struct rp_guid *repository,
                          const char *vm_id, const struct rp_guid *job, struct rp_export_folder *made,
                          struct rp_error *err);
// Removes it with all that is in it, following no link. What is gone already is fine.
int rp_export_folder_remove(struct rp_export_folder *folder, struct rp_error *err);
void rp_export_folder_clear(struct rp_export_folder *folder); // frees the names; usable with RP_CLEANUP
// Removes what earlier jobs of this repository left there of the VM. The caller holds the VM's lock in the repository,
// so none of them is alive. *removed counts; the first failure is reported when all was tried.
int rp_export_remove_stale(const struct rp_host_connection *host, const char *folder, const struct rp_guid *repository,
                           const char *vm_id, unsigned *removed, struct rp_error *err);

// A disk file in an export.
struct rp_export_file {
    char *path;             // here
    struct rp_guid disk_id, data_write_guid;
    uint64_t size;
    char *parent;           // NULL: a whole disk
};
struct rp_export_files {
    struct rp_export_file *items;
    size_t count;
};
// All disk files in the folder and the folders in it. Reads through `fs` (borrowed).
int rp_export_list(const char *local, struct rp_fs *fs, struct rp_export_files *files, struct rp_error *err);
void rp_export_files_clear(struct rp_export_files *files);
// The file that holds `disk`: by its id, and where several have that (a disk and a copy of it) or the host told none,
// by its name. Of a chain its last child. RP_ERR_NOT_FOUND; RP_ERR_CORRUPT when it cannot be told which.
int rp_export_find(const struct rp_export_files *files, const struct rp_vm_disk *disk,
                   const struct rp_export_file **found, struct rp_error *err);

// Reads the configuration files (.vmcx and its siblings) into the point; 1: they are larger than a point keeps, and
// left out.
int rp_export_configuration(const char *local, struct rp_fs *fs, struct rp_point *point, struct rp_error *err);

#endif
