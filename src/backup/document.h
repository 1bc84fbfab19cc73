// Fills the restore point's document from what a backup did.
#ifndef RP_BACKUP_DOCUMENT_H
#define RP_BACKUP_DOCUMENT_H

#include "backup/disk.h"

// What was asked of the checkpoint and what the host reached; why that, where it said so (else NULL).
void rp_document_consistency(struct rp_point *point, enum rp_consistency asked, enum rp_consistency reached,
                             const char *why);
// `reference` NULL: the host has no reference point of this moment. Takes the settings document over.
void rp_document_fill(struct rp_point *point, const char *host, const struct rp_vm *vm, struct rp_vm_settings *settings,
                      const struct rp_point *base, const struct rp_reference_point *reference,
                      struct rp_backup_disk *disks, size_t disk_count);

#endif
