#include "host/freeze.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "host/domain.h"
#include "host/thaw_watch.h"

enum {
    TRY_MS = 5000,     // how long the agent has for one answer to a thaw
    ALIVE_MS = 25000,  // how long one try takes at most
    AGAIN_MS = 200,
    SERVE_MS = 250,    // as often somebody looks whether the guest has its disks
    AGENT_MS = 3000,   // how long an agent may take to be seen
    PATIENCE_MS = 10000, // how long the end of a checkpoint waits for a thaw; it is tried on all the same
    TOLD_EVERY = 300,
    LATE_MS = 45000,   // how long a freeze that nobody waits for any more may take to begin, and then its own time: libvirt's
                       // wait for the agent and its synchronising with it
};
#define MS 1000000ull

struct rp_local_freeze {
    struct rp_hypervisor *hv; // of the process, never closed
    char *vm;                 // for messages
    const struct rp_local_vm *owner; // whose thread waits while this is used: in begin; or uses it: in end
    char domain[RP_GUID_TEXT];
    struct rp_thaw_watch *watch;
    uint64_t began, limit_ns, thawed_at;
    uint64_t unknown_until; // until then the freeze may still happen; 0: its outcome is known
    unsigned frozen, counted; // how many file systems were, and how many have been thawed
    pthread_t thread; // which thaws
    pthread_t server; // which looks after the disks until the freeze has returned
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool freezing; // the call has not returned
    bool served;   // it was started
    bool told;     // that it cannot be
    bool let_go;   // the thaw is due
    bool in_time;  // because the pause was over, within the limit
    bool over;     // nothing is frozen any more
    bool thawed;   // because the guest said so
    bool answered; // a thaw has succeeded, but it may not be the last
    bool deserted; // nobody waits: the thread frees it
};

static void free_freeze(struct rp_local_freeze *f)
{
    rp_thaw_watch_end(f->watch, f->over);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f->vm);
    free(f);
}

// ---- the thaw, by a thread of its own -------------------------------------------------------------------------------

// Whether nothing is frozen any more. *thawed: the guest has thawed `count`, and was not turned off meanwhile. (A thaw of
// one that is off succeeds as well. Whoever went on then, because the freeze may still come, would thaw what is frozen after
// its next start.)
static bool try_thaw(struct rp_local_freeze *f, bool *thawed, unsigned *count, struct rp_error *why)
{
    enum rp_domain_state state;
    struct rp_error unknown = {0};
    const struct rp_hypervisor_ops *ops = rp_hypervisor_ops();
    *thawed = !ops->thaw(f->hv, f->domain, TRY_MS, count, why);
    if (*thawed && *count)
        return true;
    bool off = ops->state(f->hv, f->domain, &state, &unknown) ? unknown.code == RP_ERR_NOT_FOUND
                                                              : state == RP_DOMAIN_OFF || state == RP_DOMAIN_CRASHED;
    bool over = *thawed || off;
    *thawed &= !off;
    return over;
}

bool rp_local_freeze_serve(const struct rp_local_vm *vm, struct rp_error *why)
{
    if (rp_local_vm_running(vm) || !rp_local_domain_needs_service(vm))
        return false;
    if (!rp_local_domain_serve(vm, why))
        return true;
    rp_context(why, "VM %s: its guest waits for its disks", vm->id);
    return false;
}

// Under the lock. Waits for news, until `deadline` at most; when there is none for a moment, the guest may be waiting for its
// disks.
static void wait_and_serve(struct rp_local_freeze *f, uint64_t deadline)
{
    uint64_t look = rp_min64(deadline, rp_clock_monotonic_ns() + SERVE_MS * MS);
    struct timespec until = {(time_t)(look / 1000000000), (long)(look % 1000000000)};
    if (pthread_cond_clockwait(&f->changed, &f->lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT)
        return;
    pthread_mutex_unlock(&f->lock);
    struct rp_error why = {0};
    bool served = rp_local_freeze_serve(f->owner, &why);
    if (why.code && !f->told)
        rp_log(RP_LOG_ERROR, "%s", why.text);
    pthread_mutex_lock(&f->lock);
    f->told |= why.code != RP_OK;
    f->served |= served;
}

// Beside the thaw, which a disk service that takes its time must not delay; `owner` waits for this in begin.
static void *serve_thread(void *argument)
{
    struct rp_local_freeze *f = argument;
    pthread_mutex_lock(&f->lock);
    while (f->freezing)
        wait_and_serve(f, UINT64_MAX);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

// Whether there is something to thaw. A freeze that is still under way when its time is up is undone by who does it, for which he
// may need as long again: until then the watchdog is told that nobody sleeps.
static bool wait_until_due(struct rp_local_freeze *f)
{
    pthread_mutex_lock(&f->lock);
    while (!f->let_go && !f->over && rp_clock_monotonic_ns() - f->began < f->limit_ns) {
        uint64_t deadline = f->began + f->limit_ns;
        struct timespec until = {(time_t)(deadline / 1000000000), (long)(deadline % 1000000000)};
        pthread_cond_clockwait(&f->changed, &f->lock, CLOCK_MONOTONIC, &until);
    }
    if (f->freezing)
        rp_thaw_watch_alive(f->watch, (unsigned)(f->limit_ns / MS) + PATIENCE_MS);
    while (f->freezing)
        pthread_cond_wait(&f->changed, &f->lock);
    f->let_go = true;
    bool over = f->over;
    pthread_mutex_unlock(&f->lock);
    return !over;
}

// A thaw of nothing is not the end while the freeze itself may still be under way. Nobody is kept waiting for that.
static bool may_freeze_yet(struct rp_local_freeze *f, unsigned count)
{
    pthread_mutex_lock(&f->lock);
    bool yet = !count && rp_clock_monotonic_ns() < f->unknown_until;
    f->answered |= yet;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return yet;
}

// The watchdog waits for the first try, and as long as the guest answers. One that fails is a reason for it to try as well: what
// fails may be this process, and two that thaw are in nobody's way.
static void *thaw_thread(void *argument)
{
    struct rp_local_freeze *f = argument;
    struct timespec again = {0, AGAIN_MS * (long)MS};
    bool thawed = false;
    unsigned count = 0;
    if (!wait_until_due(f))
        return NULL;
    rp_thaw_watch_alive(f->watch, ALIVE_MS);
    for (unsigned tried = 0;; tried++) {
        struct rp_error why = {0};
        bool over = try_thaw(f, &thawed, &count, &why);
        if (over && !(thawed && may_freeze_yet(f, count)))
            break;
        if (over)
            rp_thaw_watch_alive(f->watch, ALIVE_MS);
        else
            rp_thaw_watch_alive(f->watch, 0);
        if (!over && tried % TOLD_EVERY == 0)
            rp_log(RP_LOG_ERROR, "VM %s: its guest is frozen and cannot be thawed, trying again: %s", f->vm, why.text);
        nanosleep(&again, NULL);
    }
    pthread_mutex_lock(&f->lock);
    f->counted = count;
    f->thawed_at = rp_clock_monotonic_ns();
    f->thawed = thawed;
    f->over = true;
    bool mine = f->deserted;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    if (mine) {
        rp_log(RP_LOG_WARNING, "VM %s: its guest is no longer frozen", f->vm);
        free_freeze(f);
    }
    return NULL;
}

// ---- for the checkpoint ---------------------------------------------------------------------------------------------

static struct rp_local_freeze *new_freeze(const struct rp_local_vm *vm, unsigned limit_ms, struct rp_error *err)
{
    struct rp_hypervisor *hv = rp_local_domain_open(vm, err);
    struct rp_thaw_watch *watch = hv ? rp_thaw_watch_start(vm->hypervisor, vm->domain, limit_ms, err) : NULL;
    if (!watch)
        return NULL;
    struct rp_local_freeze *f = rp_xcalloc(1, sizeof *f);
    *f = (struct rp_local_freeze){.hv = hv, .vm = rp_xstrdup(vm->id), .owner = vm, .watch = watch, .freezing = true,
                                 .limit_ns = limit_ms * MS};
    snprintf(f->domain, sizeof f->domain, "%s", vm->domain);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->began = rp_clock_monotonic_ns();
    int sys = pthread_create(&f->server, NULL, serve_thread, f);
    bool serves = !sys;
    if (serves && !(sys = pthread_create(&f->thread, NULL, thaw_thread, f)))
        return f;
    if (serves) {
        pthread_mutex_lock(&f->lock);
        f->freezing = false;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->server, NULL);
    }
    rp_fail_sys(err, sys, "VM %s: freeze", vm->id);
    f->over = true;
    free_freeze(f);
    return NULL;
}

static int freeze_once(struct rp_local_freeze *f, struct rp_error *why)
{
    unsigned count = 0;
    pthread_mutex_lock(&f->lock);
    f->began = rp_clock_monotonic_ns();
    pthread_mutex_unlock(&f->lock);
    rp_thaw_watch_frozen(f->watch);
    // Not all of the time: what it has frozen until it fails must be thawed within the limit as well.
    int failed = rp_hypervisor_ops()->freeze(f->hv, f->domain, (unsigned)(f->limit_ns / MS / 4 * 3), &count, why);
    pthread_mutex_lock(&f->lock);
    f->frozen = count;
    pthread_mutex_unlock(&f->lock);
    return failed;
}

// An agent that is not there may only not be there yet: libvirt finds it some time after a connection has been opened, in the
// background.
static int freeze(struct rp_local_freeze *f, struct rp_error *why)
{
    uint64_t deadline = rp_clock_monotonic_ns() + AGENT_MS * MS;
    struct timespec again = {0, AGAIN_MS * (long)MS};
    int failed;
    while ((failed = freeze_once(f, why)) && why->code == RP_ERR_UNSUPPORTED && rp_clock_monotonic_ns() < deadline) {
        rp_error_clear(why);
        nanosleep(&again, NULL);
    }
    return failed;
}

struct rp_local_freeze *rp_local_freeze_begin(const struct rp_local_vm *vm, unsigned limit_ms, struct rp_error *err)
{
    struct rp_error why = {0};
    struct rp_local_freeze *f = new_freeze(vm, limit_ms, err);
    if (!f)
        return NULL;
    int failed = freeze(f, &why);
    pthread_mutex_lock(&f->lock);
    f->freezing = false;
    f->over = failed && why.code != RP_ERR_IO; // else nobody knows, and the thread thaws
    if (failed && !f->over)
        f->unknown_until = rp_clock_monotonic_ns() + f->limit_ns + LATE_MS * MS;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->server, NULL);
    if (!failed)
        return f;
    char reason[RP_ERROR_TEXT];
    rp_local_freeze_end(f, reason);
    if (why.code == RP_ERR_BUSY || why.code == RP_ERR_NOT_FOUND) // it is the guest that is, not the VM: who can do without goes on
        why.code = RP_ERR_STATE;
    rp_fail_as(err, &why);
    rp_context(err, "the guest's file systems could not be frozen");
    return NULL;
}

bool rp_local_freeze_served(const struct rp_local_freeze *f) { return f->served; }

void rp_local_freeze_switched(void *freeze)
{
    struct rp_local_freeze *f = freeze;
    pthread_mutex_lock(&f->lock);
    if (!f->let_go && rp_clock_monotonic_ns() - f->began <= f->limit_ns)
        f->in_time = true;
    f->let_go = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

// Under the lock: what is to be said of it.
static bool judge(const struct rp_local_freeze *f, char reason[RP_ERROR_TEXT])
{
    uint64_t limit_ms = f->limit_ns / MS, frozen_ms = (f->thawed_at - f->began) / MS;
    reason[0] = '\0';
    if (!f->over)
        snprintf(reason, RP_ERROR_TEXT, "the guest does not answer the thaw");
    else if (!f->thawed)
        snprintf(reason, RP_ERROR_TEXT, "the guest was turned off while it was frozen");
    else if (!f->in_time)
        snprintf(reason, RP_ERROR_TEXT, "the guest was thawed before the checkpoint was made: it may be frozen for %llu ms at most",
                 (unsigned long long)limit_ms);
    else if (!f->frozen)
        snprintf(reason, RP_ERROR_TEXT, "the guest's agent froze no file system");
    else if (!f->counted)
        snprintf(reason, RP_ERROR_TEXT, "somebody else thawed the guest before the checkpoint was over");
    else if (frozen_ms > limit_ms)
        snprintf(reason, RP_ERROR_TEXT, "the guest was frozen for %llu ms, at most %llu are allowed", (unsigned long long)frozen_ms,
                 (unsigned long long)limit_ms);
    if (f->thawed)
        rp_log(RP_LOG_INFO, "VM %s: its guest was frozen for %llu ms", f->vm, (unsigned long long)frozen_ms);
    return !reason[0];
}

bool rp_local_freeze_end(struct rp_local_freeze *f, char reason[RP_ERROR_TEXT])
{
    uint64_t deadline = rp_clock_monotonic_ns() + PATIENCE_MS * MS;
    pthread_mutex_lock(&f->lock);
    f->let_go = true;
    pthread_cond_broadcast(&f->changed);
    while (!f->over && !f->answered && rp_clock_monotonic_ns() < deadline)
        wait_and_serve(f, deadline);
    bool at_rest = judge(f, reason);
    f->deserted = !f->over;
    bool deserted = f->deserted;
    pthread_t thread = f->thread;
    pthread_mutex_unlock(&f->lock);
    if (deserted) {
        pthread_detach(thread);
        return false;
    }
    pthread_join(thread, NULL);
    free_freeze(f);
    return at_rest;
}
