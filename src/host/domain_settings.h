// The settings of a VM between Hyper-V and libvirt: Hyper-V's setting classes (CIM-XML instances, as
// rp_host_local_extras keeps them) and the definition of a domain, both by way of the little that both can say. Pure
// functions; all texts may be anybody's.
//
//   Generation 1 is a BIOS (machine pc, IDE), generation 2 is UEFI (OVMF on q35, SCSI). Dynamic memory is a balloon:
//   what a VM starts with is the domain's current memory, its limit the domain's memory. What only libvirt knows of and
//   a VM had there (its disks' bus, its adapters' model, …) stands in an instance of the class
//   Refpoint_DomainSettingData, which Hyper-V never sees.
//
// What has no counterpart is told to `remark`, a sentence each.
#ifndef RP_HOST_DOMAIN_SETTINGS_H
#define RP_HOST_DOMAIN_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/guid.h"
#include "diskservice/engine.h"

#define RP_DOMAIN_MAX_NICS 64
#define RP_DOMAIN_MAX_PROCESSORS 1024
#define RP_DOMAIN_MAX_MEMORY_MIB ((uint64_t)48 << 20) // 48 TiB, the most that Hyper-V gives

enum rp_domain_bus { RP_DOMAIN_BUS_DEFAULT, RP_DOMAIN_IDE, RP_DOMAIN_SATA, RP_DOMAIN_SCSI, RP_DOMAIN_VIRTIO };
enum rp_domain_nic_model { RP_DOMAIN_NIC_VIRTIO, RP_DOMAIN_NIC_E1000E, RP_DOMAIN_NIC_E1000, RP_DOMAIN_NIC_RTL8139 };
enum rp_domain_cpu { RP_DOMAIN_CPU_DEFAULT, RP_DOMAIN_CPU_HOST_MODEL, RP_DOMAIN_CPU_HOST, RP_DOMAIN_CPU_MAXIMUM };

struct rp_domain_settings {
    unsigned generation;                 // 1 BIOS, 2 UEFI; 0: not said
    bool q35;                            // of generation 1: not the machine pc
    bool secure_boot, microsoft_windows; // with Microsoft's keys; only those for Windows
    bool tpm;
    unsigned processors;                 // 0: not said
    uint64_t memory_mib, least_mib, most_mib; // at the start, and between which it may change; 0: not said
    enum rp_domain_cpu cpu;
    char kernel[512], initrd[512], command_line[1024]; // files of the host that it boots instead of a disk; "": none
    struct rp_domain_nic {
        uint8_t mac[6];
        bool has_mac;
        enum rp_domain_nic_model model;
    } nics[RP_DOMAIN_MAX_NICS];
    size_t nic_count;
    struct {
        uint32_t number;
        enum rp_domain_bus bus;
    } disks[RP_ENGINE_MAX_DISKS];        // those of which something is known
    size_t disk_count;
};

// What kernel, initrd (paths) and command line may be, from wherever they come: `size` with the terminating zero.
bool rp_domain_is_boot_text(const char *text, size_t size, bool path);

typedef void rp_domain_remark_fn(void *context, const char *text);
struct rp_domain_remarks {
    rp_domain_remark_fn *remark; // NULL: nobody wants to know
    void *context;
};
void rp_domain_remark(const struct rp_domain_remarks *remarks, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// ---- domain_settings.c: Hyper-V -------------------------------------------------------------------------------------

// From a text of extras. RP_ERR_CORRUPT: it is none; RP_ERR_INVALID: a value that no VM has.
int rp_domain_settings_of_extras(const char *extras, struct rp_domain_settings *settings,
                                 const struct rp_domain_remarks *remarks, struct rp_error *err);
// `extras` with what the settings say in the place of what it said of that; all else stays as it is. malloc'ed.
char *rp_domain_settings_to_extras(const struct rp_domain_settings *settings, const char *extras, struct rp_error *err);

// ---- domain_settings_xml.c: libvirt ---------------------------------------------------------------------------------

// What the bus of each disk of a domain is, is told by its target: `disks` says which target is which number.
struct rp_domain_target {
    uint32_t number;
    char target[32]; // "vda"
};
// From the definition of a domain (host/domain_xml.h). RP_ERR_INVALID: a value that no VM has.
struct rp_domain_xml;
int rp_domain_settings_of_xml(const struct rp_domain_xml *xml, const struct rp_domain_target *disks, size_t disk_count,
                              struct rp_domain_settings *settings, const struct rp_domain_remarks *remarks,
                              struct rp_error *err);

struct rp_domain_xml_options {
    const char *name, *id;       // of the VM; the id is the domain's UUID
    const char *socket;          // of its disk service
    const uint32_t *numbers;     // of its disks, ascending; the first is booted
    size_t disk_count;
    bool emulated;               // QEMU's own interpreter instead of KVM
    const char *network;         // a network of libvirt's; "user": QEMU's own; NULL: no adapter has a link
    const char *nvram;           // where its UEFI variables will be; NULL: where libvirt puts them
    bool new_macs;               // another VM than the one that the settings come from: its addresses are not used
    bool host_kernel;            // the settings' kernel and initrd are files that this host lets a VM have
    const char *console; // a file that gets what the guest writes to its serial port; NULL: a terminal of libvirt's
    uint64_t memory_limit_mib;   // no VM gets more than it starts with where this is less than its limit; 0: none
};
// A whole definition: name, memory, firmware, disks of the disk service, adapters, a channel for the guest agent, a
// serial port. `targets` (one per disk, in their order) gets what each disk is called in it. malloc'ed. RP_ERR_INVALID.
char *rp_domain_settings_to_xml(const struct rp_domain_settings *settings, const struct rp_domain_xml_options *options,
                                struct rp_domain_target *targets, const struct rp_domain_remarks *remarks,
                                struct rp_error *err);

#endif
