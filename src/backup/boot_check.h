// Whether a restore point boots: it is restored to a host as a VM of its own, without network adapters, physical disks and
// devices passed through, and started; its guest's agent answers, or it says a certain text on its serial port; then all of
// that goes again. The outcome becomes a note on the restore point (docs/formats/repository.md).
#ifndef RP_BACKUP_BOOT_CHECK_H
#define RP_BACKUP_BOOT_CHECK_H

#include "backup/boot_marker.h"
#include "backup/restore_host.h"

struct rp_boot_check_how {
    unsigned limit_s;   // how long the guest may take to boot
    const char *serial; // the text on its serial port that decides; NULL: its agent, which freezes its file systems
};
// What is restored for it: `options` as for a restore; folder, name, identity, start and adapters are the check's own;
// its folder is beside the one that a restore would make. To know it before anything is made, and for a preview.
struct rp_boot_check_plan {
    struct rp_restore_host_options options;
    char *folder, *name;
};
// RP_ERR_USAGE, RP_ERR_UNSUPPORTED: as rp_boot_serial_check.
int rp_boot_check_plan(const struct rp_host_connection *host, const struct rp_point *point,
                       const struct rp_restore_host_options *options, const struct rp_boot_check_how *how,
                       struct rp_boot_check_plan *plan, struct rp_error *err);
void rp_boot_check_plan_clear(struct rp_boot_check_plan *plan);
// 0: it was found out, and stands in the repository. What could not be removed is a remark.
int rp_boot_check_run(struct rp_host_connection *host, struct rp_repo *repo, const struct rp_point *point,
                      const struct rp_restore_host_options *options, const struct rp_boot_check_how *how,
                      struct rp_boot_outcome *outcome, struct rp_error *err);
// A saved text of settings, of either kind of host, without those of what leads out of the VM: network adapters, Fibre Channel
// ports, physical disks, devices passed through. malloc'ed.
char *rp_boot_check_isolate(const char *settings);

#endif
