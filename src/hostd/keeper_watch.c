// Hypervisors: what they tell of their domains has these looked at.
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "hostd/keeper_impl.h"

#define WATCH_NS (10 * RP_KEEPER_S) // a hypervisor that cannot be reached is tried again

// In a thread of the hypervisor's, which must not be kept waiting.
static void on_event(void *context, const char *domain, enum rp_domain_event event)
{
    struct rp_hostd_keeper *k = context;
    pthread_mutex_lock(&k->mutex);
    for (size_t i = 0; i < k->count; i++) {
        struct rp_kept_vm *vm = k->vms[i];
        if (strcasecmp(vm->domain.domain, domain))
            continue;
        vm->started |= event == RP_DOMAIN_STARTED;
        vm->changed |= event == RP_DOMAIN_CHANGED;
        if (event == RP_DOMAIN_DISK_FAILED)
            rp_keeper_happened(vm, rp_keeper_most(vm));
        else
            rp_keeper_sooner(vm, rp_clock_monotonic_ns());
    }
    pthread_mutex_unlock(&k->mutex);
    rp_hostd_hosts_changed(k->hostd);
    rp_keeper_wake(k);
}

// Opening may take its time, and events may come before it returns.
static void *watch(void *argument)
{
    struct rp_kept_source *source = argument;
    struct rp_hostd_keeper *k = source->k;
    struct rp_error err = {0};
    struct rp_hypervisor *hv = rp_host_local_hypervisor(source->uri, &err);
    bool watched = hv && !rp_hypervisor_ops()->watch(hv, on_event, k, &err);
    pthread_mutex_lock(&k->mutex);
    source->hv = watched ? hv : NULL;
    source->opening = false;
    source->due = rp_clock_monotonic_ns() + WATCH_NS;
    if (!watched && !source->told)
        rp_log(RP_LOG_WARNING, "%s: its virtual machines are not supervised until it can be reached: %s", source->uri, err.text);
    source->told = !watched;
    for (size_t i = 0; watched && i < k->count; i++) // what happened before it was watched
        if (!strcmp(k->vms[i]->domain.hypervisor, source->uri)) {
            k->vms[i]->started = k->vms[i]->changed = true;
            rp_keeper_sooner(k->vms[i], rp_clock_monotonic_ns());
        }
    rp_keeper_leave(k);
    pthread_mutex_unlock(&k->mutex);
    return NULL;
}

// Only the keeper's thread has the list of sources.
void rp_keeper_watch_due(struct rp_hostd_keeper *k)
{
    pthread_mutex_lock(&k->mutex);
    for (size_t i = 0; i < k->source_count; i++) {
        struct rp_kept_source *source = k->sources[i];
        if (!source->hv && !source->opening && rp_clock_monotonic_ns() >= source->due)
            source->opening = !rp_keeper_begin(k, watch, source);
    }
    pthread_mutex_unlock(&k->mutex);
}

void rp_keeper_need_source(struct rp_hostd_keeper *k, const char *uri)
{
    for (size_t i = 0; i < k->source_count; i++)
        if (!strcmp(k->sources[i]->uri, uri))
            return;
    k->sources = rp_xrealloc(k->sources, (k->source_count + 1) * sizeof(*k->sources));
    struct rp_kept_source *source = k->sources[k->source_count++] = rp_xcalloc(1, sizeof *source);
    source->k = k;
    source->uri = rp_xstrdup(uri);
}

void rp_keeper_free_sources(struct rp_hostd_keeper *k)
{
    for (size_t i = 0; i < k->source_count; i++) {
        if (k->sources[i]->hv)
            rp_hypervisor_ops()->unwatch(k->sources[i]->hv);
        free(k->sources[i]->uri);
        free(k->sources[i]);
    }
    free(k->sources);
}
