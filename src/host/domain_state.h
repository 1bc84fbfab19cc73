// What a domain keeps outside its disks: the variables of its UEFI firmware (NVRAM, a file) and the state of its TPM
// (swtpm, a folder). A guest whose boot entries, keys or sealed secrets are of another moment than its disks may not
// boot, so it belongs to checkpoints (table snapshot_state), to the settings that a restore point has, to applying and
// to restoring.
//
// As settings it is CIM instances of the class Refpoint_FirmwareStateData, one for each file (Kind "nvram" or "tpm",
// Name, Size, Content: base64 of the packed bytes), among what a host keeps for others. Hyper-V has it in its own file
// (.vmgs) and never gets these.
#ifndef RP_HOST_DOMAIN_STATE_H
#define RP_HOST_DOMAIN_STATE_H

#include "base/buf.h"
#include "host/domain.h"

#define RP_DOMAIN_STATE_MAX ((size_t)16 << 20) // of all files together
#define RP_DOMAIN_STATE_FILES 16
#define RP_DOMAIN_STATE_CLASS "Refpoint_FirmwareStateData"

struct rp_domain_state_files {
    size_t count;
    struct rp_domain_state_file {
        bool tpm;            // else NVRAM
        char name[64];       // in the TPM's folder; "" of the NVRAM
        struct rp_buf content;
    } items[RP_DOMAIN_STATE_FILES];
};
void rp_domain_state_clear(struct rp_domain_state_files *files); // usable with RP_CLEANUP

// ---- domain_state.c: the files --------------------------------------------------------------------------------------

// Where a domain has them; NULL: it has none.
struct rp_domain_state_places {
    char *nvram, *tpm;
    char *conf; // libvirt's qemu.conf, which says whose the TPM's files are
};
// From its definition as its hypervisor at `uri` has it. TPM: libvirt's own places, below the root of an embedded one.
struct rp_domain_xml;
void rp_domain_state_places(const char *uri, const struct rp_domain_xml *xml, struct rp_domain_state_places *places);
// Where the variables of a VM that is made here are to be: by its UUID, so that nothing finds those of another one that
// had its name. malloc'ed; NULL: where the hypervisor puts them.
char *rp_domain_state_nvram(const char *uri, const char *id);
void rp_domain_state_places_clear(struct rp_domain_state_places *places); // usable with RP_CLEANUP
// What is there; a file that is not (the domain was never started) is none. RP_ERR_UNSUPPORTED: more than the bounds
// above.
int rp_domain_state_read(const struct rp_domain_state_places *places, struct rp_domain_state_files *files,
                         struct rp_error *err);
// Puts them there, durably; each file is whole or as before, and asking again does no harm. What the TPM's folder has
// besides goes. State for which there is no place stays behind: *left_out counts it.
int rp_domain_state_write(const struct rp_domain_state_places *places, const struct rp_domain_state_files *files,
                          unsigned *left_out, struct rp_error *err);

// ---- domain_state_text.c: as settings -------------------------------------------------------------------------------

// Appends to a text of instances; nothing when that would be more than RP_LOCAL_EXTRAS_MAX: RP_ERR_UNSUPPORTED.
int rp_domain_state_to_text(const struct rp_domain_state_files *files, struct rp_buf *extras, struct rp_error *err);
// Takes it out of a text of instances: *rest (malloc'ed) is that without it. The text may be anybody's: RP_ERR_CORRUPT.
int rp_domain_state_of_text(const char *extras, struct rp_domain_state_files *files, char **rest, struct rp_error *err);

// ---- domain_checkpoint.c: in checkpoints ----------------------------------------------------------------------------

// For a checkpoint whose row is there, before its disks are frozen: what its domain is now (settings, firmware, TPM)
// becomes part of it, and of the VM. Nothing of a VM without a hypervisor. What cannot be had is logged: a backup
// without it is worth more than none.
void rp_local_domain_record(const struct rp_local_vm *vm, int64_t snapshot);
// Puts the firmware's and the TPM's state of a checkpoint back. Idempotent. Nothing where it has none.
int rp_local_domain_put_back(const struct rp_local_vm *vm, int64_t snapshot, struct rp_error *err);
// `extras` with the state of that checkpoint: what goes into documents. malloc'ed.
char *rp_local_domain_extras(struct rp_local *local, int64_t snapshot, const char *extras, struct rp_error *err);

#endif
