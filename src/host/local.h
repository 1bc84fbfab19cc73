// The in-process host connection "local:DIR": VMs that are nothing but a name and disks (the offline inventory), kept
// in DIR. State in DIR/host.db (SQLite, synchronous=FULL) with intent records; a folder DIR/vms/<GUID> per VM.
#ifndef RP_HOST_LOCAL_H
#define RP_HOST_LOCAL_H

#include "hyperv/host_connection.h"

// Whether there is a host in DIR.
bool rp_host_local_exists(const char *directory);
// Opens DIR, creating it when missing, and finishes or undoes what an earlier process began and did not end. Several
// processes may have it open; each change takes a lock.
struct rp_host_connection *rp_host_local_open(const char *directory, struct rp_error *err);
// The same for a service that stays: merges of VMs that are off, which take their time, are left to whoever asks find_vm for
// such a VM. Without `recover` nothing is finished or undone: for its further connections.
struct rp_host_connection *rp_host_local_open_resident(const char *directory, bool recover, struct rp_error *err);

// What the next method of this connection makes (snapshot, reference point, VM, planned VM) gets this GUID instead of a new one:
// who remembers it first can tell after a kill whether it was made. Used up by that method. The id of a snapshot or reference
// point is "Microsoft:" and the GUID, upper case; that of a VM just the GUID. A plan that keeps its old identity has that.
void rp_host_local_next_id(struct rp_host_connection *host, const char *guid);

// The settings (below) that the VM which the next define_system of this connection makes has from the start; NULL: none.
// Copied; used up by that method, also when it fails.
void rp_host_local_next_extras(struct rp_host_connection *host, const char *text);

// Which files may be disks, for who names files on behalf of others: asked about each file that is to be one and each that one
// reads from, at the moment when it is used (define_system, add_disk, validate_planned, realize_planned). `path`: canonical. 0, or
// -1 with the reason. With a judge the path of a disk has to be canonical (RP_ERR_PERMISSION): a link in it has come after whoever
// named it looked. NULL: all files may be.
typedef int rp_host_local_judge_fn(void *context, const char *path, struct rp_error *err);
void rp_host_local_set_judge(struct rp_host_connection *host, rp_host_local_judge_fn *judge, void *context);

// Settings of a VM that this host has no use for itself, and keeps: processors, memory, notes, start and stop actions, as a
// text of the caller's (at most 1 MiB). `id`: a VM's, a planned VM's, or a snapshot's, which has those of its moment. Exports
// carry it. *text is malloc'ed, "" when nothing was set.
int rp_host_local_extras(struct rp_host_connection *host, const char *id, char **text, struct rp_error *err);
int rp_host_local_set_extras(struct rp_host_connection *host, const char *vm_id, const char *text, struct rp_error *err);
// What a checkpoint has of the VM's firmware and TPM, as instances of that kind (host/domain_state.h); "" nothing. malloc'ed.
int rp_host_local_firmware(struct rp_host_connection *host, const char *snapshot_id, char **text, struct rp_error *err);
// Where an export of this kind will have its definition, which it writes last: when the file is there, the export is whole.
// malloc'ed.
char *rp_host_local_export_file(struct rp_host_connection *host, const struct rp_export *what, struct rp_error *err);

// A file that its maker makes under a name of its own, and renames when it is whole. Announced durably before it is made:
// what a killed process leaves of it goes when the host is opened next. `path`: absolute, and nothing is there; its folder
// is under its own name. *making is for rp_host_local_made, of the same connection.
int rp_host_local_making(struct rp_host_connection *host, const char *path, int64_t *making, struct rp_error *err);
// The end, also of a failure: what is still there under that name goes. On failure it goes later, as after a kill.
int rp_host_local_made(struct rp_host_connection *host, int64_t making, struct rp_error *err);

// Which VM has a file: as a disk, in the chain of one, or as the parent of one; *written: it writes to it, or will when the
// checkpoints above it are gone. 1 and its id, 0 none, -1 error. Planned VMs do not count.
int rp_host_local_file_user(struct rp_host_connection *host, const char *path, char vm_id[RP_GUID_TEXT], bool *written,
                            struct rp_error *err);
// The planned VMs; their disks' paths are what the import says, whether they are there or not.
int rp_host_local_list_planned(struct rp_host_connection *host, struct rp_inventory *planned, struct rp_error *err);
// What runs the VMs that are made here from now on (define_system, realize_planned): `uri` a hypervisor of libvirt's, "" or NULL:
// nothing, their disks are served and that is all. `network`: what their adapters are connected to, one of libvirt's networks,
// "user" (QEMU's own), "" or NULL: none. `accelerator`: "kvm", "tcg", "" or NULL: KVM where this machine has it. Kept in the host's
// database. VMs that are there stay as they are.
int rp_host_local_set_hypervisor(struct rp_host_connection *host, const char *uri, const char *network, const char *accelerator,
                                 struct rp_error *err);
// For a service that stays: whether a change of a VM was begun that nobody is at work on any more, because he was killed (1, 0, -1
// error); and finishes or undoes it, as opening the host does.
int rp_host_local_is_unfinished(struct rp_host_connection *host, struct rp_error *err);
// The connection's `progress` is asked before each VM, and may end it (RP_ERR_CANCELLED).
int rp_host_local_recover(struct rp_host_connection *host, struct rp_error *err);
// A number that changes with every change that any process makes in the host's database.
int rp_host_local_version(struct rp_host_connection *host, uint64_t *version, struct rp_error *err);

// ---- domains of libvirt are taken in, and given back ----------------------------------------------------------------

enum rp_adopt_verdict {
    RP_ADOPT_TAKEN,   // becomes a disk of the VM
    RP_ADOPT_LEFT,    // stays in the domain as it is, and is in no backup
    RP_ADOPT_REFUSED, // because of it the domain cannot be adopted
};
struct rp_adopt_item {
    enum rp_adopt_verdict verdict;
    char *what;       // "disk vda", "cdrom sda", "hostdev pci", "domain"
    char *reason;     // why it is left or refused; else what else is to be known, "" nothing
    char *path, *format; // of the image; "" where there is none. A disk that is taken:
    char *vhdx;       // the file that it will be
    bool in_place;    // that is the image itself
    bool shared;      // shares the image's blocks: takes no room
    uint64_t size, room; // bytes of the disk; of new room that its VHDX takes
    // Of what is taken, for rp_host_local_adopt:
    uint32_t number;
    char target[32];
    char *stamp;
};
struct rp_adoption {
    char *uri, *name, *domain; // its name for us, and for libvirt
    char uuid[37];
    struct rp_adopt_item *items;
    size_t count, taken, refused;
    int64_t generation;
    char *before, *after;      // its definition; `after` NULL when something is refused
    bool iothread;             // `after` has an iothread that `before` has not
};
struct rp_adopt_options {
    const char *name;   // of the VM; NULL: the domain's
    const char *folder; // of the new VHDX files; NULL: each beside its image
    bool no_iothread;   // for disks on virtio of a domain that has none
};
// What adopting the domain (by name or UUID) would do; nothing is changed. `options` may be NULL. RP_ERR_STATE: it is not off; RP_ERR_EXISTS: it is adopted already. Reasons against
// single disks are in the items.
int rp_host_local_adopt_plan(struct rp_host_connection *host, const char *uri, const char *domain,
                             const struct rp_adopt_options *options, struct rp_adoption *plan, struct rp_error *err);
void rp_host_local_adoption_clear(struct rp_adoption *plan);
// Does it. The images stay as they are until the VM is released (a VHDX is used in place). On failure, and after a kill when the
// host is opened next, the domain is what it was or is adopted. RP_ERR_STATE: the plan does not hold any more.
int rp_host_local_adopt(struct rp_host_connection *host, const struct rp_adoption *plan, struct rp_error *err);

struct rp_release_item {
    uint32_t number;
    char target[32];
    char *vhdx;            // where it is now
    char *path, *format;   // where it will be: "raw", "qcow2", "vhdx"
    char *source, *source_format, *stamp; // the image from before the adoption; "": none
    bool stays;            // that is the VHDX itself
    bool replaces;         // an image from before the adoption
    bool shared;
    uint64_t size, room;
};
struct rp_release {
    char vm_id[37];
    char format[16];       // that was asked for
    char *name, *uri;
    struct rp_release_item items[64];
    size_t count;
    char *before, *after;  // the domain's definition
};
// What releasing the VM would do; nothing is changed. `format`: "original" (NULL), "raw", "qcow2", "vhdx". RP_ERR_STATE: it is not off,
// or has checkpoints.
int rp_host_local_release_plan(struct rp_host_connection *host, const char *vm_id, const char *format, struct rp_release *plan,
                               struct rp_error *err);
void rp_host_local_release_clear(struct rp_release *plan);
// Does it: every image holds what the VM's disk holds before any file of the VM goes, and the VM goes last.
int rp_host_local_release(struct rp_host_connection *host, const struct rp_release *plan, struct rp_error *err);

// ---- VMs that a hypervisor runs (host/hypervisor.h), for who supervises them ------------------------------------------

struct rp_host_domain {
    char vm_id[RP_GUID_TEXT], domain[RP_GUID_TEXT];
    char *name, *hypervisor; // URI
    char *control;           // socket of its disk service: who is connected there hears at once when that ends
};
struct rp_host_domains {
    struct rp_host_domain *items;
    size_t count;
};
int rp_host_local_domains(struct rp_host_connection *host, struct rp_host_domains *domains, struct rp_error *err);
void rp_host_domains_clear(struct rp_host_domains *domains);
// The connection that this process has to it, opened at first use and kept; borrowed.
struct rp_hypervisor *rp_host_local_hypervisor(const char *uri, struct rp_error *err);

struct rp_host_kept { // filled by the functions below; zeroed before
    bool live;    // the domain runs, or is paused
    bool served;  // its disk service answers, or should: who is connected there hears of its end
    bool acted;   // the service was started again, or the domain let go on
    bool waiting; // for room on the host: look again soon
    bool at_work; // somebody else is changing the VM (RP_ERR_BUSY): look again soon
};
// One look: the service of a live domain is started when it does not answer, and what a killed one left is brought in; a domain
// that was paused because a disk failed goes on, unless the file system is full; the service of one that has ended ends, when
// nobody holds it. A domain that its user paused stays paused. `started`: it may just have been started by somebody else, and is
// connected to its disks in the way that outlives a service; `changed`: its devices may be others. What stands in the way is
// noted for list_vms. The VM is not locked while its hypervisor is asked for the domain's state, which may take its time. Who has
// called rp_host_local_rescue just before hands in the `acted` of that, which belongs to this look then.
int rp_host_local_keep(struct rp_host_connection *host, const char *vm_id, bool started, bool changed, struct rp_host_kept *kept,
                       struct rp_error *err);
// Only what a look begins with, and asks no hypervisor: a service that was killed is started again. May run beside a look.
int rp_host_local_rescue(struct rp_host_connection *host, const char *vm_id, struct rp_host_kept *kept, struct rp_error *err);

// The disk service of a VM for who starts the VM himself, and may be asked by its hypervisor, which waits: nothing here asks that.
// `domain`: UUID of the domain that is to have the disks (RP_ERR_STATE: that is not the VM's), NULL: not said. Starts the service
// unless it answers; with `serving`, stays until it has ended (0; RP_ERR_IO: it was killed), or ends it when `stop`, asked twice a
// second and after each signal, returns non-zero. Meanwhile nobody else ends it because its domain is off.
struct rp_host_serving {
    void (*ready)(void *context); // it answers
    int (*stop)(void *context);
    void *context;
};
int rp_host_local_serve(struct rp_host_connection *host, const char *vm_id, const char *domain, const struct rp_host_serving *serving,
                        struct rp_error *err);
// Not running is fine.
int rp_host_local_unserve(struct rp_host_connection *host, const char *vm_id, const char *domain, struct rp_error *err);
// Whether it would be for that domain, and no more.
int rp_host_local_may_serve(struct rp_host_connection *host, const char *vm_id, const char *domain, struct rp_error *err);

#endif
