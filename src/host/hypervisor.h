// What runs VMs, as the host sees it. The inventory keeps a VM's disks, checkpoints and reference points; a hypervisor runs
// its guest. A VM without one (vm.hypervisor in the database is empty) is served by its disk service alone.
//
// The one implementation is the module refpoint-libvirt.so (src/libvirt), loaded when the first VM needs it: no program
// links libvirt. Domains are named by the text of their UUID. All functions may be called from any thread; each may wait for
// the hypervisor, thirty seconds where nothing else is said (RP_ERR_BUSY: it does not answer). RP_ERR_NOT_FOUND: there is no such
// domain; RP_ERR_STATE: it is in a state where that cannot be.
#ifndef RP_HOST_HYPERVISOR_H
#define RP_HOST_HYPERVISOR_H

#include "base/error.h"
#include "base/guid.h"

struct rp_hypervisor; // a connection

enum rp_domain_state {
    RP_DOMAIN_OFF,
    RP_DOMAIN_RUNNING,
    RP_DOMAIN_PAUSED,       // by its user
    RP_DOMAIN_IO_ERROR,     // paused because a disk did not answer, or by a reconnect that was killed: goes on when resumed
    RP_DOMAIN_STARTING,     // paused until it has been started
    RP_DOMAIN_STOPPING,
    RP_DOMAIN_SAVED,        // off, its memory in a file
    RP_DOMAIN_CRASHED,      // its guest has panicked; its process lives, has the disks, and may go on after a reset
};

// Which disk of a domain is served by which export of a disk service.
struct rp_domain_disk {
    char target[32];        // <target dev=…>: "vda"
    char export_name[16];   // "disk0"
    char *socket;           // borrowed; path of the disk service's NBD socket
};

enum rp_domain_event { RP_DOMAIN_STARTED, RP_DOMAIN_STOPPED, RP_DOMAIN_DISK_FAILED, RP_DOMAIN_CHANGED };
typedef void rp_domain_event_fn(void *context, const char *domain, enum rp_domain_event event);

struct rp_hypervisor_ops {
    // `uri`: "qemu:///system", "qemu:///embed?root=DIR". Connections of one process to one URI share one; closing the last
    // leaves the domains as they are.
    struct rp_hypervisor *(*open)(const char *uri, struct rp_error *err);
    void (*close)(struct rp_hypervisor *hv);

    // By name or UUID. `uuid` gets its UUID; *xml (malloc'ed, may be NULL) its definition: as it is kept (not the running
    // one), with secrets.
    int (*find)(struct rp_hypervisor *hv, const char *name, char uuid[RP_GUID_TEXT], char **xml, struct rp_error *err);
    // The definition of a running domain, as it runs now.
    int (*running_xml)(struct rp_hypervisor *hv, const char *domain, char **xml, struct rp_error *err);
    // Makes a domain or replaces the definition of one (by the UUID in it). Validated against libvirt's schema. RP_ERR_BUSY: it
    // may still take effect; what this process defines or undefines of the same domain later takes effect after it.
    int (*define)(struct rp_hypervisor *hv, const char *xml, struct rp_error *err);
    // `state_too`: NVRAM, TPM state and a saved memory go as well.
    int (*undefine)(struct rp_hypervisor *hv, const char *domain, bool state_too, struct rp_error *err);

    int (*state)(struct rp_hypervisor *hv, const char *domain, enum rp_domain_state *state, struct rp_error *err);
    // Starts it (from its saved memory, when there is one) paused, connects its disks in a way that outlives a disk service
    // (see reconnect; patience 30 s), and lets it go. On failure it is off, or saved again, or runs because somebody else has let
    // it go. Five minutes; with a saved memory an hour. One that comes later is turned off; without `disks` it stands.
    int (*start)(struct rp_hypervisor *hv, const char *domain, const struct rp_domain_disk *disks, size_t count,
                 struct rp_error *err);
    // Asks the guest to shut down (agent, then ACPI); returns when it has been asked: 90 s, as turn_off.
    int (*shut_down)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err);
    int (*turn_off)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err);
    int (*pause)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err);
    // One in IO_ERROR gets new connections to the disk services that its definition names (see reconnect): it goes on when all
    // answer, else it stays as it is. `waiting_only`: only that is done; one that is not (any more) in IO_ERROR stays as it is,
    // and 0.
    int (*resume)(struct rp_hypervisor *hv, const char *domain, bool waiting_only, struct rp_error *err);
    int (*reset)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err);
    // Memory into a file, then off. An hour.
    int (*save)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err);

    // For a running or paused domain whose disk service answers: connects QEMU anew, so that from now on a service that is away
    // for up to `patience_s` seconds is waited for, and a longer absence pauses the VM (IO_ERROR) until it is resumed. Also lets
    // QEMU see a new size, and heals connections that QEMU has given up. Idempotent. Waits `patience_s` longer than others.
    // A disk that the running domain does not have over NBD is passed over; one that fails does not keep the others from it.
    int (*reconnect)(struct rp_hypervisor *hv, const char *domain, const struct rp_domain_disk *disks, size_t count,
                     unsigned patience_s, struct rp_error *err);
    // The guest learns that a disk has grown to exactly `size` bytes; after reconnect.
    int (*resize)(struct rp_hypervisor *hv, const char *domain, const char *target, uint64_t size, struct rp_error *err);

    // Freezes all file systems through the guest agent; at most `timeout_ms` (whole seconds, one at least), and as long again for
    // the thaw when that failed. 0: frozen, and *count of them are. Else nothing is frozen any more: RP_ERR_UNSUPPORTED: no agent
    // is configured or none answers; RP_ERR_BUSY: it took too long; RP_ERR_STATE: the guest refused, is frozen (by whomever: it is
    // thawed) or does not run. Or nobody knows: RP_ERR_IO; then thaw has to be called until it succeeds.
    int (*freeze)(struct rp_hypervisor *hv, const char *domain, unsigned timeout_ms, unsigned *count, struct rp_error *err);
    // Also when nothing is frozen, or the domain is off: then *count, which is how many file systems it thawed, is 0. (So it is
    // while a freeze that nobody waits for any more has not begun.) RP_ERR_STATE: it is paused or saved, and may be frozen.
    int (*thaw)(struct rp_hypervisor *hv, const char *domain, unsigned timeout_ms, unsigned *count, struct rp_error *err);

    // Calls `event` from a thread of its own for every domain of the connection, until unwatch returns. One watcher per
    // connection. `event` must not call into this hypervisor.
    int (*watch)(struct rp_hypervisor *hv, rp_domain_event_fn *event, void *context, struct rp_error *err);
    void (*unwatch)(struct rp_hypervisor *hv);

    // What the hypervisor itself keeps of earlier moments of a domain, which would be wrong after its disks were exchanged:
    // snapshots and checkpoints of libvirt. The names of the first, malloc'ed text with ", " between them, "" when there is none.
    int (*snapshots)(struct rp_hypervisor *hv, const char *domain, char **names, struct rp_error *err);
};

// The module exports it under this name; `version` must be RP_HYPERVISOR_VERSION.
struct rp_hypervisor_module {
    unsigned version;
    const struct rp_hypervisor_ops *ops;
};
#define RP_HYPERVISOR_VERSION 3u
#define RP_HYPERVISOR_SYMBOL "rp_hypervisor_module"

// Loads the module (once per process) and opens the connection. Finds refpoint-libvirt.so beside the program (build tree) or in
// the installed library folder; REFPOINT_LIBVIRT overrides. RP_ERR_UNSUPPORTED: not installed.
struct rp_hypervisor *rp_hypervisor_open(const char *uri, struct rp_error *err);
const struct rp_hypervisor_ops *rp_hypervisor_ops(void); // after rp_hypervisor_open
void rp_hypervisor_close(struct rp_hypervisor *hv);      // NULL is fine
const char *rp_domain_state_name(enum rp_domain_state state);

#endif
