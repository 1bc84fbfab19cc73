// What the files of this module share.
//
// Everything that asks libvirt is a request: it runs in a thread of its own, with copies of all that it needs, and whoever
// asked waits with a limit. That is the only way to give libvirt's calls one: they wait for QEMU's monitor without any, and
// a QEMU that hangs in the kernel (a dead NFS server) would take us with it. A request that was given up may still end, much
// later; then it undoes what nobody asks for any more.
#ifndef RP_LIBVIRT_LIBVIRT_IMPL_H
#define RP_LIBVIRT_LIBVIRT_IMPL_H

#include <jansson.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>

#include "base/cleanup.h"
#include "host/hypervisor.h"

#define RP_LIBVIRT_LIMIT_MS 30000u             // where nothing else is said
#define RP_LIBVIRT_MAX_XML ((size_t)4 << 20)   // of a definition: what libvirt's protocol carries
#define RP_LIBVIRT_MAX_DISKS 1024u

extern const struct rp_hypervisor_ops rp_libvirt_ops; // ops.c

static inline void rp_domain_p(virDomainPtr *domain)
{
    if (*domain)
        virDomainFree(*domain);
}
static inline void rp_json_p(json_t **json) { json_decref(*json); }

// ---- error.c: what libvirt did not like, of this thread ----

// The last error of libvirt in this thread, its code mapped to ours, with the text "FORMAT: libvirt's message" in one line.
int rp_libvirt_fail(struct rp_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Nothing of libvirt's is printed to stderr from now on; called before anything else of libvirt.
void rp_libvirt_be_quiet(void);

// ---- connection.c ----

struct rp_watch; // events.c

struct rp_hypervisor {
    char *uri;
    unsigned users;             // open() less close()
    struct rp_hypervisor *next; // in the list of those with users

    pthread_mutex_t lock;       // never held for long
    unsigned holders;           // users and requests; the last one frees
    unsigned given_up;          // requests that still run although nobody waits for them

    pthread_mutex_t connecting; // held while libvirt is connected to: by requests only
    virConnectPtr connection;   // NULL: the next request opens it
    bool remote;                // it goes to a libvirtd, and may break
    struct rp_watch *registered; // the watcher that libvirt tells the events of `connection`

    struct rp_request *turns, **turns_end; // the requests that take turns, in their order; under `lock`
    pthread_cond_t turned;      // one of them has left

    struct rp_watch *watch;     // the watcher, if there is one; under `lock`
};

struct rp_hypervisor *rp_libvirt_open(const char *uri, struct rp_error *err);
void rp_libvirt_close(struct rp_hypervisor *hv);
void rp_libvirt_hold(struct rp_hypervisor *hv);
void rp_libvirt_let_go(struct rp_hypervisor *hv);
// The connection, opened (anew) if need be: of the caller, to be given back by virConnectClose. May block: in requests only.
virConnectPtr rp_libvirt_connection(struct rp_hypervisor *hv, struct rp_error *err);
// A thread without signals, but for those of its own faults.
int rp_libvirt_thread(pthread_t *thread, void *(*run)(void *), void *context, struct rp_error *err);

// ---- request.c ----

struct rp_request;
typedef int rp_request_fn(struct rp_request *request, struct rp_error *err);

struct rp_request {
    struct rp_hypervisor *hv;
    rp_request_fn *work;
    rp_request_fn *undo;     // run when the work ended well after nobody waited any more; or NULL
    char *turn;              // those with the same text, in any case, work one after the other, as they were asked for; or NULL
    struct rp_request *next_turn;
    bool out_of_turn;        // nobody waits for it any more: it need not wait for its turn; under the lock of `hv`
    const char *doing;       // "be paused": for the text of an error
    enum rp_code late;       // what it means that there is no answer; RP_ERR_BUSY when not set

    // What it is about; all of it is the request's own.
    char *domain;            // UUID; `found` is set from it before the work begins
    char *text;              // XML, a name, or the target of a disk
    struct rp_domain_disk *disks;
    size_t count;
    uint64_t number;
    bool flag;
    struct rp_watch *watch;
    bool unconnected;        // needs no connection
    virConnectPtr connection;
    virDomainPtr found;
    const char *name;        // of `found`: asking for it makes libvirt forget its last error

    // What comes out.
    char uuid[RP_GUID_TEXT];
    char *xml;
    uint64_t result;

    // Of request.c.
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t began_ns, limit_ms;
    bool done, given_up;
    unsigned holders;
    int failed;
    struct rp_error err;
};

// A request with one holder. `domain` may be NULL.
struct rp_request *rp_request_new(struct rp_hypervisor *hv, const char *domain, const char *doing, rp_request_fn *work);
// Runs it; waits for it until the limit. 0: it ended well, and its results are there. One that is given up before its work has begun
// does nothing (but one that needs no connection and takes no turn: those clean up).
int rp_request_run(struct rp_request *request, uint64_t limit_ms, struct rp_error *err);
// For the work: it may take that long after all, counted from its beginning.
void rp_request_extend(struct rp_request *request, uint64_t limit_ms);
// For the work: whether nobody waits for it any more.
bool rp_request_is_given_up(struct rp_request *request);
void rp_request_release(struct rp_request *request);
RP_DEFINE_CLEANUP(struct rp_request, rp_request_release)

// ---- domain.c: works of requests ----

rp_request_fn rp_work_find, rp_work_running_xml, rp_work_define, rp_work_undefine, rp_work_state, rp_work_start, rp_work_shut_down,
    rp_work_turn_off, rp_work_pause, rp_work_resume, rp_work_reset, rp_work_save, rp_work_snapshots;
// The definition, within the bounds; NULL on failure. `flags`: VIR_DOMAIN_XML_….
char *rp_domain_xml(virDomainPtr domain, unsigned flags, struct rp_error *err);

// ---- xml.c: what the definition of a running domain says about a disk ----

struct rp_disk_facts {
    char alias[64];   // of the device in QEMU
    char discard[16]; // "unmap", "ignore", or "": not said
};

// The domain's UUID, in capitals; "" where it has none.
void rp_xml_uuid(const char *xml, char uuid[RP_GUID_TEXT]);

// RP_ERR_NOT_FOUND: no such disk; RP_ERR_UNSUPPORTED: it is not served over NBD.
int rp_xml_disk(const char *xml, const char *target, struct rp_disk_facts *facts, struct rp_error *err);

// Those of its disks that are exports of unix sockets. Given back by rp_xml_disks_free.
int rp_xml_disks(const char *xml, struct rp_domain_disk **disks, size_t *count, struct rp_error *err);
void rp_xml_disks_free(struct rp_domain_disk *disks, size_t count);

// ---- monitor.c ----

// What the command returns; NULL on failure. Takes `arguments`.
json_t *rp_monitor(virDomainPtr domain, const char *command, json_t *arguments, struct rp_error *err);
int rp_monitor_command(virDomainPtr domain, const char *name, json_t *arguments, struct rp_error *err);
// In what query-named-block-nodes returns.
bool rp_monitor_has_node(const json_t *nodes, const char *name);

// ---- standing.c ----

#define RP_STANDING_MARK "rp-standing" // a node of QEMU's

// For a running domain. Whoever is killed in between leaves it so that rp_standing_is knows it. 0: it stands, until rp_standing_end.
// 1: it stands for another reason, be it that its user has just paused it, and is not to be let go on.
int rp_standing_begin(virDomainPtr domain, struct rp_error *err);
int rp_standing_end(virDomainPtr domain, struct rp_error *err);
// Whether the domain, whose state that is, was left so: 1, 0; -1: that cannot be had.
int rp_standing_is(virDomainPtr domain, int state, int reason, struct rp_error *err);

// ---- nodes.c: QEMU's block nodes ----

#define RP_LIBVIRT_PATIENCE_S 30u // where the caller does not say: see reconnect in hypervisor.h

rp_request_fn rp_work_reconnect, rp_work_resize;
int rp_nodes_reconnect(virDomainPtr domain, const struct rp_domain_disk *disks, size_t count, unsigned patience_s,
                       struct rp_error *err);
// The same for all disks that are exports of unix sockets.
int rp_nodes_reconnect_known(virDomainPtr domain, unsigned patience_s, struct rp_error *err);

// ---- agent.c ----

rp_request_fn rp_work_freeze, rp_work_thaw;

// ---- events.c ----

int rp_libvirt_watch(struct rp_hypervisor *hv, rp_domain_event_fn *event, void *context, struct rp_error *err);
void rp_libvirt_unwatch(struct rp_hypervisor *hv);
// Asks libvirt for the events of the connection, which was just opened, for the watcher if there is one. `connecting` is held.
int rp_watch_register(struct rp_hypervisor *hv, struct rp_error *err);
// Before the connection is closed: its callbacks would keep it. The watcher, if there is one, opens another. `connecting` is held.
void rp_watch_lose(struct rp_hypervisor *hv);
void rp_watch_let_go(void *watch);

#endif
