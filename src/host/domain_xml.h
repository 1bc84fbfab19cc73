// A libvirt domain's definition: read from text that anybody may have written, and its disks exchanged in it. Functions on text
// alone (but for links to images, see rp_domain_xml_detach); what is not a disk of ours stays byte for byte as it was.
#ifndef RP_HOST_DOMAIN_XML_H
#define RP_HOST_DOMAIN_XML_H

#include "base/guid.h"
#include "host/hypervisor.h"

#define RP_DOMAIN_XML_MAX ((size_t)4 << 20)
#define RP_DOMAIN_XML_DEVICES 1024 // of each kind

// Texts that are missing are "", never NULL.
struct rp_domain_xml_backing {
    char *path, *format;
};
struct rp_domain_xml_disk {
    char *type;          // of the source: "file", "block", "network", "volume", "dir", "nvme", "vhostuser", …
    char *device;        // "disk", "lun", "cdrom", "floppy"
    char *format;        // <driver type=…> as QEMU calls it: "raw", "qcow2", "vhdx"; libvirt takes one that is missing for raw
    char *path;          // of the file, block device or folder; else what the source calls it (volume, network name)
    char *target, *bus;
    char *address;       // type of <address>
    char *iothread;      // its number
    char *ioeventfd;
    bool readonly, shareable, transient;
    bool encrypted;      // <encryption>, of the disk, its source or what is below
    struct rp_domain_xml_backing *backing; // the images behind it that the definition names: libvirt goes by them, not by the files
    size_t backing_count;
    bool backing_ends;   // there is no other behind the last one (an empty <backingStore>)
    bool mirrored;       // a block job is under way
    bool partial;        // <slices>: a part of the file, or of one behind it
    char *nbd_socket;    // of an NBD disk on a unix socket, else ""
    char *nbd_export;
    size_t start, end;   // where the element is in the text
};
struct rp_domain_xml_interface {
    char *mac, *model;
};
struct rp_domain_xml_hostdev {
    char *type;          // "pci", "scsi", …
};
struct rp_domain_xml_amount { // as it is written
    char *text, *unit;
};

struct rp_domain_xml {
    char *text;
    char uuid[RP_GUID_TEXT]; // as libvirt writes it: lower case
    char *name;
    char *machine;           // "pc-q35-7.2"
    bool efi, secure_boot;   // OVMF; else BIOS
    char *nvram;
    char *kernel, *initrd, *command_line;
    struct rp_domain_xml_amount memory, current_memory;
    char *vcpus, *current_vcpus, *cpu_mode;
    char *tpm_backend;       // "emulator", "passthrough"; "": has none
    struct rp_domain_xml_disk *disks;
    size_t disk_count;
    struct rp_domain_xml_interface *interfaces;
    size_t interface_count;
    struct rp_domain_xml_hostdev *hostdevs;
    size_t hostdev_count;
    size_t uuid_end;         // where <uuid> ends in the text
    size_t iothreads_start, iothreads_end; // where <iothreads> is; both 0: has none
    char **others;           // names of its other devices, each as often as it has one
    size_t other_count;
};

// `text` is copied. RP_ERR_CORRUPT: no definition of a domain, or one beyond the bounds above and in cim/xml.h. No network, no
// DOCTYPE, no entities. On failure `xml` is empty.
int rp_domain_xml_parse(const char *text, struct rp_domain_xml *xml, struct rp_error *err);
void rp_domain_xml_clear(struct rp_domain_xml *xml);
const struct rp_domain_xml_disk *rp_domain_xml_disk(const struct rp_domain_xml *xml, const char *target); // NULL: none
// Whether the disk is what rp_domain_xml_attach makes of it.
bool rp_domain_xml_is_attached(const struct rp_domain_xml_disk *disk, const struct rp_domain_disk *to);

// Whether any disk is an export of the disk service at that socket.
bool rp_domain_xml_names(const struct rp_domain_xml *xml, const char *socket);

// The definition with each of these disks connected to its export of a disk service; target, address, serial, boot order, limits
// and the like stay. *iothread: a domain whose definition does not speak of iothreads gets one, for those of the disks that can have
// one (virtio's); then whether it did. NOT_FOUND: a target is no disk of the domain. *out is malloc'ed.
int rp_domain_xml_attach(const struct rp_domain_xml *xml, const struct rp_domain_disk *disks, size_t count, bool *iothread, char **out,
                         struct rp_error *err);

// What a disk that was attached is to be again.
struct rp_domain_xml_image {
    struct rp_domain_disk attached;
    const char *path, *format; // of the image; as QEMU calls it
    bool untouched;            // it is what it was: what lies behind it still does
};
// The definition `now` with these disks given back to images. A disk that nobody changed since it was attached gets the very text
// that it has in `before`, if its image is the one there, be it named through a link (`before` may lack it); of another one, only
// what says where its data is. `iothread`: what rp_domain_xml_attach gave it goes with them, if nothing else has come to
// use it. *out is malloc'ed.
int rp_domain_xml_detach(const struct rp_domain_xml *now, const struct rp_domain_xml *before, const struct rp_domain_xml_image *images,
                         size_t count, bool iothread, char **out, struct rp_error *err);

#endif
