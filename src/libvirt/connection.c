// Connections to libvirt: one for each URI in the process, opened again when it has broken, and the thread in which libvirt
// handles its sockets and timers.
#include "libvirt/libvirt_impl.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rp_hypervisor *list;

int rp_libvirt_thread(pthread_t *thread, void *(*run)(void *), void *context, struct rp_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}; // blocked, they would kill without a word
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int sys = pthread_create(thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return sys ? rp_fail_sys(err, sys, "cannot start a thread for libvirt") : 0;
}

// ---- libvirt's event loop: must be there before the first connection, and stays ----

static int loop_failed;
static struct rp_error loop_error;

static void *run_loop(void *context)
{
    (void)context;
    for (;;)
        if (virEventRunDefaultImpl() < 0)
            nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); // instead of a busy loop
    return NULL;
}

static void start_loop(void)
{
    rp_libvirt_be_quiet();
    pthread_t thread;
    if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0)
        loop_failed = rp_libvirt_fail(&loop_error, "libvirt cannot be used");
    else if ((loop_failed = rp_libvirt_thread(&thread, run_loop, NULL, &loop_error)) == 0)
        pthread_detach(thread);
}

static int need_loop(struct rp_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_loop);
    return loop_failed ? rp_fail_as(err, &loop_error) : 0;
}

// ---- the connection, with `connecting` held ----

static void disconnect_now(struct rp_hypervisor *hv)
{
    if (!hv->connection)
        return;
    rp_watch_lose(hv);
    virConnectClose(hv->connection);
    hv->connection = NULL;
}

static int connect_now(struct rp_hypervisor *hv, struct rp_error *err)
{
    virConnectPtr connection = virConnectOpen(hv->uri);
    if (!connection)
        return rp_libvirt_fail(err, "cannot connect to libvirt at %s", hv->uri);
    // A libvirtd that is gone without a word is noticed after 20 s. Drivers in this process have nothing to keep alive.
    hv->remote = virConnectSetKeepAlive(connection, 5, 4) >= 0;
    const virError *error = hv->remote ? NULL : virGetLastError();
    if (error && error->code != VIR_ERR_NO_SUPPORT) {
        rp_libvirt_fail(err, "the connection to libvirt at %s cannot be kept alive", hv->uri);
        virConnectClose(connection);
        return -1;
    }
    hv->connection = connection;
    if (!rp_watch_register(hv, err))
        return 0;
    disconnect_now(hv);
    return -1;
}

virConnectPtr rp_libvirt_connection(struct rp_hypervisor *hv, struct rp_error *err)
{
    virConnectPtr connection = NULL;
    pthread_mutex_lock(&hv->connecting);
    if (hv->connection && virConnectIsAlive(hv->connection) != 1)
        disconnect_now(hv);
    if ((hv->connection || !connect_now(hv, err)) && !virConnectRef(hv->connection))
        connection = hv->connection;
    pthread_mutex_unlock(&hv->connecting);
    return connection;
}

// ---- those who use it ----

void rp_libvirt_hold(struct rp_hypervisor *hv)
{
    pthread_mutex_lock(&hv->lock);
    hv->holders++;
    pthread_mutex_unlock(&hv->lock);
}

void rp_libvirt_let_go(struct rp_hypervisor *hv)
{
    pthread_mutex_lock(&hv->lock);
    bool last = --hv->holders == 0;
    pthread_mutex_unlock(&hv->lock);
    if (!last)
        return;
    disconnect_now(hv); // nothing to do, but when so much hung that not even that could be asked for
    pthread_mutex_destroy(&hv->lock);
    pthread_mutex_destroy(&hv->connecting);
    pthread_cond_destroy(&hv->turned);
    free(hv->uri);
    free(hv);
}

static int touch(struct rp_request *request, struct rp_error *err)
{
    (void)request; // that it runs at all opens the connection
    (void)err;
    return 0;
}

static int disconnect(struct rp_request *request, struct rp_error *err)
{
    (void)err;
    struct rp_hypervisor *hv = request->hv;
    pthread_mutex_lock(&hv->connecting);
    disconnect_now(hv);
    pthread_mutex_unlock(&hv->connecting);
    return 0;
}

static struct rp_hypervisor *of_uri(const char *uri)
{
    pthread_mutex_lock(&list_lock);
    struct rp_hypervisor *hv = list;
    while (hv && strcmp(hv->uri, uri))
        hv = hv->next;
    if (!hv) {
        hv = rp_xcalloc(1, sizeof *hv);
        pthread_mutex_init(&hv->lock, NULL);
        pthread_mutex_init(&hv->connecting, NULL);
        pthread_cond_init(&hv->turned, NULL);
        hv->turns_end = &hv->turns;
        hv->uri = rp_xstrdup(uri);
        hv->holders = 1; // the users together
        hv->next = list;
        list = hv;
    }
    hv->users++;
    pthread_mutex_unlock(&list_lock);
    return hv;
}

// One user less. The last one closes the connection: what a driver in this process holds is free when this returns, unless it
// takes longer than `patience_ms`.
static void leave(struct rp_hypervisor *hv, uint64_t patience_ms)
{
    pthread_mutex_lock(&list_lock);
    bool last = --hv->users == 0;
    for (struct rp_hypervisor **p = &list; last && *p; p = &(*p)->next)
        if (*p == hv) {
            *p = hv->next;
            break;
        }
    pthread_mutex_unlock(&list_lock);
    if (!last)
        return;
    rp_libvirt_unwatch(hv);
    struct rp_request *request = rp_request_new(hv, NULL, "be closed", disconnect);
    request->unconnected = true;
    rp_request_run(request, patience_ms, NULL);
    rp_request_release(request);
    rp_libvirt_let_go(hv);
}

struct rp_hypervisor *rp_libvirt_open(const char *uri, struct rp_error *err)
{
    if (need_loop(err))
        return NULL;
    struct rp_hypervisor *hv = of_uri(uri);
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, NULL, "be opened", touch);
    if (!rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err))
        return hv;
    leave(hv, 1000); // what hangs is not waited for once more
    return NULL;
}

void rp_libvirt_close(struct rp_hypervisor *hv) { leave(hv, RP_LIBVIRT_LIMIT_MS); }
