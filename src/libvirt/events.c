// Events: libvirt tells them in its own thread, which must not be held up; they are handed on from one of the watcher's.
#include "libvirt/libvirt_impl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"

#define RETRY_S 1 // a lost connection is tried again

struct told {
    struct told *next;
    char domain[RP_GUID_TEXT];
    enum rp_domain_event event;
};

enum { LIFECYCLE, IO_ERROR, DEVICE_ADDED, DEVICE_REMOVED, AGENT, KINDS };

struct rp_watch {
    struct rp_hypervisor *hv;
    rp_domain_event_fn *event;
    void *context;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned holders;        // the watcher, and what is registered with libvirt
    struct told *first, **end;
    bool lost;               // the connection has broken
    bool leave;

    int ids[KINDS];          // as what it is registered; under `connecting` of the hypervisor
};

void rp_watch_let_go(void *context)
{
    struct rp_watch *watch = context;
    pthread_mutex_lock(&watch->lock);
    bool last = --watch->holders == 0;
    pthread_mutex_unlock(&watch->lock);
    if (!last)
        return;
    for (struct told *told = watch->first, *next; told; told = next) {
        next = told->next;
        free(told);
    }
    pthread_cond_destroy(&watch->changed);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}

// ---- in libvirt's thread ----

// The newest one of the same domain says it already: a guest whose agent comes and goes cannot fill the memory.
static bool is_told(const struct rp_watch *watch, const char *domain, enum rp_domain_event event)
{
    bool same = false;
    for (const struct told *told = watch->first; told; told = told->next)
        if (!strcmp(told->domain, domain))
            same = told->event == event;
    return same;
}

static void tell(struct rp_watch *watch, virDomainPtr domain, enum rp_domain_event event)
{
    char uuid[RP_GUID_TEXT];
    if (virDomainGetUUIDString(domain, uuid))
        return;
    pthread_mutex_lock(&watch->lock);
    if (!watch->leave && !is_told(watch, uuid, event)) {
        struct told *told = rp_xcalloc(1, sizeof *told);
        memcpy(told->domain, uuid, sizeof uuid);
        told->event = event;
        *watch->end = told;
        watch->end = &told->next;
        pthread_cond_signal(&watch->changed);
    }
    pthread_mutex_unlock(&watch->lock);
}

static void on_lifecycle(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *watch)
{
    (void)connection;
    switch (event) {
    case VIR_DOMAIN_EVENT_STARTED:
        tell(watch, domain, RP_DOMAIN_STARTED);
        return;
    case VIR_DOMAIN_EVENT_STOPPED:
        tell(watch, domain, RP_DOMAIN_STOPPED);
        return;
    case VIR_DOMAIN_EVENT_SUSPENDED:
        tell(watch, domain, detail == VIR_DOMAIN_EVENT_SUSPENDED_IOERROR ? RP_DOMAIN_DISK_FAILED : RP_DOMAIN_CHANGED);
        return;
    default:
        tell(watch, domain, RP_DOMAIN_CHANGED);
    }
}

static void on_io_error(virConnectPtr connection, virDomainPtr domain, const char *path, const char *alias, int action,
                        const char *reason, void *watch)
{
    (void)connection, (void)path, (void)alias, (void)action, (void)reason;
    tell(watch, domain, RP_DOMAIN_DISK_FAILED);
}

static void on_device(virConnectPtr connection, virDomainPtr domain, const char *alias, void *watch)
{
    (void)connection, (void)alias;
    tell(watch, domain, RP_DOMAIN_CHANGED);
}

static void on_agent(virConnectPtr connection, virDomainPtr domain, int state, int reason, void *watch)
{
    (void)connection, (void)state, (void)reason;
    tell(watch, domain, RP_DOMAIN_CHANGED);
}

static void lose(struct rp_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->lost = true;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

static void on_close(virConnectPtr connection, int reason, void *context)
{
    (void)connection, (void)reason;
    lose(context);
}

// ---- registering ----

static void hold(struct rp_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->holders++;
    pthread_mutex_unlock(&watch->lock);
}

static const struct {
    int id;
    virConnectDomainEventGenericCallback callback;
} kinds[KINDS] = {
    [LIFECYCLE] = {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
    [IO_ERROR] = {VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, VIR_DOMAIN_EVENT_CALLBACK(on_io_error)},
    [DEVICE_ADDED] = {VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, VIR_DOMAIN_EVENT_CALLBACK(on_device)},
    [DEVICE_REMOVED] = {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, VIR_DOMAIN_EVENT_CALLBACK(on_device)},
    [AGENT] = {VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_agent)},
};

// With `connecting` held, as all here. libvirt lets go of the watcher for each callback. (From a connection that has broken it takes
// them as well, but for that of the close, which is told and gone.)
static void deregister(struct rp_hypervisor *hv)
{
    struct rp_watch *watch = hv->registered;
    if (!watch)
        return;
    for (int i = 0; i < KINDS; i++)
        if (watch->ids[i] >= 0)
            virConnectDomainEventDeregisterAny(hv->connection, watch->ids[i]);
    if (hv->remote)
        virConnectUnregisterCloseCallback(hv->connection, on_close);
    hv->registered = NULL;
    rp_watch_let_go(watch);
}

static int register_all(struct rp_hypervisor *hv, struct rp_watch *watch)
{
    hold(watch);
    hv->registered = watch;
    for (int i = 0; i < KINDS; i++)
        watch->ids[i] = -1;
    for (int i = 0; i < KINDS; i++) {
        hold(watch);
        watch->ids[i] = virConnectDomainEventRegisterAny(hv->connection, NULL, kinds[i].id, kinds[i].callback, watch, rp_watch_let_go);
        if (watch->ids[i] < 0) {
            rp_watch_let_go(watch);
            return -1;
        }
    }
    // A driver in this process has no close to tell. It would say yes, and forget the watcher.
    if (!hv->remote)
        return 0;
    hold(watch);
    if (virConnectRegisterCloseCallback(hv->connection, on_close, watch, rp_watch_let_go)) {
        rp_watch_let_go(watch);
        return -1;
    }
    if (virConnectIsAlive(hv->connection) != 1)
        lose(watch); // it broke before that could be told
    return 0;
}

// Held, or NULL.
static struct rp_watch *current(struct rp_hypervisor *hv)
{
    pthread_mutex_lock(&hv->lock);
    struct rp_watch *watch = hv->watch;
    if (watch)
        hold(watch);
    pthread_mutex_unlock(&hv->lock);
    return watch;
}

int rp_watch_register(struct rp_hypervisor *hv, struct rp_error *err)
{
    struct rp_watch *watch = current(hv);
    int failed = 0;
    if (watch && hv->registered != watch) {
        deregister(hv); // one that has gone, and could not wait until it was
        failed = register_all(hv, watch);
        if (failed) {
            rp_libvirt_fail(err, "the events of libvirt at %s cannot be had", hv->uri);
            deregister(hv);
        }
    }
    if (watch)
        rp_watch_let_go(watch);
    return failed;
}

void rp_watch_lose(struct rp_hypervisor *hv)
{
    deregister(hv);
    struct rp_watch *watch = current(hv);
    if (!watch)
        return;
    lose(watch);
    rp_watch_let_go(watch);
}

// ---- works of requests ----

static int begin(struct rp_request *request, struct rp_error *err)
{
    pthread_mutex_lock(&request->hv->connecting);
    int failed = request->hv->connection ? rp_watch_register(request->hv, err)
                                         : rp_fail(err, RP_ERR_IO, "the connection to libvirt at %s is lost", request->hv->uri);
    pthread_mutex_unlock(&request->hv->connecting);
    return failed;
}

static int end(struct rp_request *request, struct rp_error *err)
{
    (void)err;
    pthread_mutex_lock(&request->hv->connecting);
    if (request->hv->registered == request->watch)
        deregister(request->hv);
    pthread_mutex_unlock(&request->hv->connecting);
    return 0;
}

// What happened while there was no connection nobody knows: anything may have. What runs may have been started then.
static int tell_all(struct rp_request *request, struct rp_error *err)
{
    virDomainPtr *domains = NULL;
    // From here on it is this connection that may be lost; if it is already, it has nothing to list.
    pthread_mutex_lock(&request->watch->lock);
    request->watch->lost = false;
    pthread_mutex_unlock(&request->watch->lock);
    int count = virConnectListAllDomains(request->connection, &domains, 0);
    if (count < 0)
        return rp_libvirt_fail(err, "the domains at %s cannot be listed", request->hv->uri);
    for (int i = 0; i < count; i++) {
        tell(request->watch, domains[i], virDomainIsActive(domains[i]) ? RP_DOMAIN_STARTED : RP_DOMAIN_CHANGED);
        virDomainFree(domains[i]);
    }
    free(domains);
    return 0;
}

static int run(struct rp_watch *watch, const char *doing, rp_request_fn *work, bool connected, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(watch->hv, NULL, doing, work);
    hold(watch);
    request->watch = watch;
    request->unconnected = !connected;
    return rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err);
}

// ---- the watcher's thread ----

// With the lock held, which it gives up while it works.
static void hand_on(struct rp_watch *watch)
{
    struct told *told = watch->first;
    watch->first = told->next;
    if (!watch->first)
        watch->end = &watch->first;
    pthread_mutex_unlock(&watch->lock);
    watch->event(watch->context, told->domain, told->event);
    free(told);
    pthread_mutex_lock(&watch->lock);
}

static void connect_again(struct rp_watch *watch)
{
    pthread_mutex_unlock(&watch->lock);
    int failed = run(watch, "be opened again", tell_all, true, NULL);
    pthread_mutex_lock(&watch->lock);
    if (!failed)
        return;
    watch->lost = true;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_S;
    pthread_cond_clockwait(&watch->changed, &watch->lock, CLOCK_MONOTONIC, &until);
}

static void *watch_thread(void *context)
{
    struct rp_watch *watch = context;
    pthread_mutex_lock(&watch->lock);
    while (!watch->leave)
        if (watch->first)
            hand_on(watch);
        else if (watch->lost)
            connect_again(watch);
        else
            pthread_cond_wait(&watch->changed, &watch->lock);
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

static void stop(struct rp_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->leave = true;
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    rp_watch_let_go(watch);
}

static int set_watch(struct rp_hypervisor *hv, struct rp_watch *watch)
{
    pthread_mutex_lock(&hv->lock);
    bool free_place = !hv->watch;
    if (free_place)
        hv->watch = watch;
    pthread_mutex_unlock(&hv->lock);
    return free_place ? 0 : -1;
}

int rp_libvirt_watch(struct rp_hypervisor *hv, rp_domain_event_fn *event, void *context, struct rp_error *err)
{
    struct rp_watch *watch = rp_xcalloc(1, sizeof *watch);
    pthread_mutex_init(&watch->lock, NULL);
    pthread_cond_init(&watch->changed, NULL);
    watch->hv = hv;
    watch->event = event;
    watch->context = context;
    watch->holders = 1;
    watch->end = &watch->first;
    if (rp_libvirt_thread(&watch->thread, watch_thread, watch, err)) {
        rp_watch_let_go(watch);
        return -1;
    }
    if (set_watch(hv, watch)) {
        stop(watch);
        return rp_fail(err, RP_ERR_STATE, "the domains at %s are watched already", hv->uri);
    }
    if (!run(watch, "be watched", begin, true, err))
        return 0;
    rp_libvirt_unwatch(hv);
    return -1;
}

void rp_libvirt_unwatch(struct rp_hypervisor *hv)
{
    pthread_mutex_lock(&hv->lock);
    struct rp_watch *watch = hv->watch;
    hv->watch = NULL;
    pthread_mutex_unlock(&hv->lock);
    if (!watch)
        return;
    run(watch, "be left alone", end, false, NULL);
    stop(watch);
}
