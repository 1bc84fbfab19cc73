// Supervises the VMs that hypervisors run: a thread that hears when a disk service ends (the other end of a connection to it)
// and what the hypervisors tell of their domains, and has each VM that something happened to looked at (rp_host_local_keep)
// by a thread of its own, so that none waits for another.
//
// A VM that needs help again and again within a short time is helped after longer and longer pauses, and that is told once.
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "hostd/keeper_impl.h"

#define TICK_MS 1000 // as often the database is asked whether there are other VMs
enum { MOST_LOOKS = 16 };

void rp_keeper_wake(struct rp_hostd_keeper *k)
{
    uint64_t one = 1;
    while (write(k->wake, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

// Under the mutex: a thread of its own for what may wait; it ends with rp_keeper_leave().
int rp_keeper_begin(struct rp_hostd_keeper *k, void *(*body)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int sys = pthread_create(&thread, &attributes, body, argument);
    pthread_attr_destroy(&attributes);
    k->threads += !sys;
    return sys;
}

// Under the mutex, and the last that the thread does with what it protects.
void rp_keeper_leave(struct rp_hostd_keeper *k)
{
    k->threads--;
    pthread_cond_signal(&k->idle);
    rp_keeper_wake(k);
}

// ---- which VMs ------------------------------------------------------------------------------------------------------------

static void free_vm(struct rp_kept_vm *vm)
{
    rp_keeper_hang_up(vm);
    free(vm->domain.name);
    free(vm->domain.hypervisor);
    free(vm->domain.control);
    free(vm);
}

static bool is_same(const struct rp_host_domain *a, const struct rp_host_domain *b)
{
    return !strcasecmp(a->vm_id, b->vm_id) && !strcasecmp(a->domain, b->domain) && !strcmp(a->hypervisor, b->hypervisor);
}

// Under the mutex. What is new is looked at; what is gone leaves as soon as nobody looks at it.
static void merge_list(struct rp_hostd_keeper *k, struct rp_host_domains *domains)
{
    for (size_t i = 0; i < k->count; i++)
        k->vms[i]->gone = true;
    for (size_t i = 0; i < domains->count; i++) {
        struct rp_kept_vm *vm = NULL;
        for (size_t j = 0; !vm && j < k->count; j++)
            vm = is_same(&k->vms[j]->domain, &domains->items[i]) ? k->vms[j] : NULL;
        if (vm) {
            vm->gone = false;
            continue;
        }
        k->vms = rp_xrealloc(k->vms, (k->count + 1) * sizeof(*k->vms));
        vm = k->vms[k->count++] = rp_xcalloc(1, sizeof *vm);
        *vm = (struct rp_kept_vm){.domain = domains->items[i], .line = -1, .started = true, .changed = true};
        domains->items[i] = (struct rp_host_domain){0}; // its texts are ours
        rp_keeper_need_source(k, vm->domain.hypervisor);
    }
    for (size_t i = 0; i < k->count;) {
        if (!k->vms[i]->gone || k->vms[i]->looking || k->vms[i]->rescuing) {
            i++;
            continue;
        }
        free_vm(k->vms[i]);
        k->vms[i] = k->vms[--k->count];
    }
}

static void refresh(struct rp_hostd_keeper *k, struct rp_host_connection *host, uint64_t *version)
{
    uint64_t current = 0;
    RP_CLEANUP(rp_host_domains_clear) struct rp_host_domains domains = {0};
    struct rp_error err = {0};
    if (rp_host_local_version(host, &current, &err) || current == *version)
        return;
    if (rp_host_local_domains(host, &domains, &err)) {
        rp_log(RP_LOG_WARNING, "supervision: %s", err.text);
        return;
    }
    pthread_mutex_lock(&k->mutex);
    merge_list(k, &domains);
    pthread_mutex_unlock(&k->mutex);
    *version = current;
}

// ---- the thread -----------------------------------------------------------------------------------------------------------

// Begins what is due; how long nothing is.
static int begin_due(struct rp_hostd_keeper *k)
{
    uint64_t now = rp_clock_monotonic_ns(), next = now + TICK_MS * RP_KEEPER_MS;
    for (size_t i = 0; i < k->count; i++) {
        struct rp_kept_vm *vm = k->vms[i];
        uint64_t due = !vm->looking && k->looks < MOST_LOOKS ? vm->due : UINT64_MAX;
        uint64_t rescue = vm->rescue && !vm->rescuing ? vm->rescue : UINT64_MAX;
        if (due <= now)
            rp_keeper_look(k, vm); // which begins with a rescue
        else if (rescue <= now)
            rp_keeper_rescue(k, vm);
        else
            next = rp_min64(next, rp_min64(due, rescue));
    }
    return (int)((next - now + RP_KEEPER_MS - 1) / RP_KEEPER_MS);
}

// A service says nothing by itself: whatever can be read on the line is its end.
static void hear(struct rp_kept_vm *vm, short events)
{
    char byte;
    if (!events || (recv(vm->line, &byte, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    rp_keeper_hang_up(vm);
    rp_keeper_happened(vm, vm->times);
    vm->rescue = rp_keeper_in_time(vm, vm->times);
}

static void wait_for_news(struct rp_hostd_keeper *k)
{
    pthread_mutex_lock(&k->mutex);
    int timeout = k->stop ? 0 : begin_due(k);
    size_t count = k->count;
    RP_AUTO_FREE struct pollfd *fds = rp_xcalloc(count + 1, sizeof *fds);
    RP_AUTO_FREE struct rp_kept_vm **who = rp_xcalloc(count + 1, sizeof(*who));
    fds[0] = (struct pollfd){.fd = k->wake, .events = POLLIN};
    for (size_t i = 0; i < count; i++) {
        who[i] = k->vms[i];
        fds[i + 1] = (struct pollfd){.fd = who[i]->line, .events = POLLIN}; // -1: poll passes over it
    }
    pthread_mutex_unlock(&k->mutex);
    if (poll(fds, count + 1, timeout) <= 0)
        return;
    uint64_t drained;
    while (read(k->wake, &drained, sizeof drained) < 0 && errno == EINTR)
        continue;
    pthread_mutex_lock(&k->mutex);
    for (size_t i = 0; i < count; i++) // only this thread takes any away, or hangs up
        if (fds[i + 1].fd >= 0 && who[i]->line == fds[i + 1].fd)
            hear(who[i], fds[i + 1].revents);
    pthread_mutex_unlock(&k->mutex);
}

static bool is_over(struct rp_hostd_keeper *k)
{
    pthread_mutex_lock(&k->mutex);
    bool over = k->stop;
    pthread_mutex_unlock(&k->mutex);
    return over;
}

static void *keep(void *argument)
{
    struct rp_hostd_keeper *k = argument;
    struct rp_error err = {0};
    uint64_t version = UINT64_MAX, asked = 0;
    struct rp_host_connection *host = NULL;
    while (!is_over(k)) {
        if (!host && !(host = rp_hostd_hosts_borrow(k->hostd, &err))) {
            rp_log(RP_LOG_ERROR, "supervision of virtual machines: %s", err.text);
            rp_error_clear(&err);
        }
        if (host && rp_clock_monotonic_ns() - asked > TICK_MS * RP_KEEPER_MS / 2) {
            asked = rp_clock_monotonic_ns();
            refresh(k, host, &version);
        }
        rp_keeper_watch_due(k);
        wait_for_news(k);
    }
    rp_hostd_hosts_return(k->hostd, host);
    return NULL;
}

int rp_hostd_keeper_open(struct rp_hostd *hostd, struct rp_error *err)
{
    struct rp_hostd_keeper *k = rp_xcalloc(1, sizeof *k);
    k->hostd = hostd;
    pthread_mutex_init(&k->mutex, NULL);
    pthread_cond_init(&k->idle, NULL);
    k->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int sys = k->wake < 0 ? errno : pthread_create(&k->thread, NULL, keep, k);
    if (!sys) {
        hostd->keeper = k;
        k->finisher = rp_hostd_finisher_open(hostd, err);
        if (k->finisher)
            return 0;
        rp_hostd_keeper_close(hostd);
        return -1;
    }
    if (k->wake >= 0)
        close(k->wake);
    free(k);
    return rp_fail_sys(err, sys, "supervision of virtual machines");
}

void rp_hostd_keeper_close(struct rp_hostd *hostd)
{
    struct rp_hostd_keeper *k = hostd->keeper;
    if (!k)
        return;
    pthread_mutex_lock(&k->mutex);
    k->stop = true; // before the finisher is waited for: no look begins meanwhile
    pthread_mutex_unlock(&k->mutex);
    rp_keeper_wake(k);
    rp_hostd_finisher_close(k->finisher);
    pthread_join(k->thread, NULL);
    pthread_mutex_lock(&k->mutex);
    while (k->threads)
        pthread_cond_wait(&k->idle, &k->mutex);
    pthread_mutex_unlock(&k->mutex);
    rp_keeper_free_sources(k);
    for (size_t i = 0; i < k->count; i++)
        free_vm(k->vms[i]);
    free(k->vms);
    close(k->wake);
    pthread_mutex_destroy(&k->mutex);
    pthread_cond_destroy(&k->idle);
    free(k);
    hostd->keeper = NULL;
}
