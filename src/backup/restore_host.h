// Restore to a host: the disks into a folder of its own, and a VM with them (facts/wmi.md 1.5 D): a planned VM from the
// exported configuration where the point has one, else from the saved settings; its disks are put in their places; it
// is validated and realized. Until then nothing is lost by a failure, and nothing is left.
#ifndef RP_BACKUP_RESTORE_HOST_H
#define RP_BACKUP_RESTORE_HOST_H

#include "backup/restore.h"
#include "hyperv/host_connection.h"

enum rp_identity {
    RP_IDENTITY_KEEP, // the VM's own id, which no VM of the host may have: RP_ERR_EXISTS
    RP_IDENTITY_NEW,  // another VM beside the one that may still be there
};
struct rp_restore_host_options {
    const char *folder;    // as the host calls it, mapped to this machine; NULL: <first mapped folder>/<VM's name>.
                           // Made when missing; a file that is there is never overwritten
    const char *vm_name;   // NULL: as it was
    enum rp_identity identity;
    bool start;
    bool isolated;         // it gets nothing that leads out of it (rp_boot_check_isolate); made from the saved settings,
                           // whatever else the point has
    unsigned threads;      // as in rp_restore_options
    uint64_t rate;
    int (*progress)(void *context, uint64_t done, uint64_t total);
    void *progress_context;
    int (*stop)(void *context);                        // NULL is fine
    void (*remark)(void *context, const char *text);   // what the administrator should know though the restore is good
    void *context;
};
struct rp_restore_host_result {
    char vm_id[RP_HOST_ID];
    char *folder;                   // as the host calls it
    struct rp_restore_result files; // the disks, by their names here
    bool imported;                  // from an exported configuration; else planned from the saved settings
    bool goes_on;                   // the host knows the reference point again: the next backup can be incremental
};
// The folder that its files go to, as the host calls it. Malloc'ed.
char *rp_restore_host_folder(const struct rp_host_connection *host, const struct rp_point *point,
                             const struct rp_restore_host_options *options, struct rp_error *err);

// `point`: with everything (rp_repo_point). A failure after the VM was made real is a remark: the VM is there.
int rp_restore_host_run(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_point *point,
                        const struct rp_restore_host_options *options, struct rp_restore_host_result *result,
                        struct rp_error *err);
// What rp_restore_host_run would make, and what would keep it from that. Changes nothing, here or there.
struct rp_restore_host_preview {
    char *vm_name, *folder;         // folder: as the host calls it; NULL: nobody can tell
    bool imported;                  // from an exported configuration; else planned from the saved settings
    bool same_name;                 // the host has another VM of that name: it would have two
    struct rp_restore_result files;
    struct rp_error *problems;      // all that does not fit, each in one line
    size_t problem_count;
};
int rp_restore_host_preview(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_point *point,
                            const struct rp_restore_host_options *options, struct rp_restore_host_preview *preview,
                            struct rp_error *err);
// Where the disk of files.files[index] would be, as the host calls it. Malloc'ed.
char *rp_restore_host_preview_disk(const struct rp_restore_host_preview *preview, size_t index);
void rp_restore_host_preview_clear(struct rp_restore_host_preview *preview);
void rp_restore_host_result_clear(struct rp_restore_host_result *result);

#endif
