// Host connections, lent to one thread at a time, and the inventory that all readers share.
//
// When is a shared inventory still true? What is in the host's database: as long as the database's version stays,
// whoever writes it. What our own methods do: until they say rp_hostd_hosts_changed. The rest is in no database,
// whether a VM runs whose disk service another process started or that died, and how far a merge is: it is looked at
// again after a second, or a fifth of one while something merges; on a host so large that taking the inventory takes
// long, so much later that readers in a loop keep it busy for a tenth of the time at most (a third while something
// merges).
//
// Merges of VMs that are off are carried on by whoever asks for the VM by itself (src/host). Here that is a thread of
// its own, which sleeps while nothing merges.
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "hostd/core.h"

#define MAX_IDLE 16 // connections kept open
#define MS 1000000ull
#define FRESH (1000 * MS)
#define FRESH_MERGING (200 * MS)

struct shared {
    struct rp_inventory inventory; // first: it is what is lent
    struct rp_inventory planned;
    unsigned references;
    uint64_t version, changes;     // from before it was taken
    uint64_t taken, took;          // monotonic ns
    bool merging;
};

struct rp_hostd_hosts {
    pthread_mutex_t mutex;
    pthread_cond_t taken, wake;
    struct rp_host_connection *idle[MAX_IDLE];
    size_t idle_count;
    struct rp_host_connection *watcher; // for the version alone, which counts per connection; under the mutex
    struct shared *current;
    uint64_t changes;
    bool taking, stop;
    pthread_t advancer;
};

struct rp_host_connection *rp_hostd_hosts_borrow(struct rp_hostd *hostd, struct rp_error *err)
{
    struct rp_hostd_hosts *hosts = hostd->hosts;
    pthread_mutex_lock(&hosts->mutex);
    struct rp_host_connection *host = hosts->idle_count ? hosts->idle[--hosts->idle_count] : NULL;
    pthread_mutex_unlock(&hosts->mutex);
    if (!host)
        host = rp_host_local_open_resident(hostd->directory, false, err);
    if (!host)
        return NULL;
    host->frozen_ms = hostd->freeze_limit_ms;
    rp_host_local_set_judge(host, rp_hostd_file_judge, hostd);
    return host;
}

void rp_hostd_hosts_return(struct rp_hostd *hostd, struct rp_host_connection *host)
{
    struct rp_hostd_hosts *hosts = hostd->hosts;
    if (!host)
        return;
    host->progress = NULL;
    host->progress_context = NULL;
    pthread_mutex_lock(&hosts->mutex);
    bool keep = hosts->idle_count < MAX_IDLE;
    if (keep)
        hosts->idle[hosts->idle_count++] = host;
    pthread_mutex_unlock(&hosts->mutex);
    if (!keep)
        rp_host_close(host);
}

static void unref(struct shared *shared)
{
    if (!shared || --shared->references)
        return;
    rp_inventory_clear(&shared->inventory);
    rp_inventory_clear(&shared->planned);
    free(shared);
}

void rp_hostd_hosts_changed(struct rp_hostd *hostd)
{
    struct rp_hostd_hosts *hosts = hostd->hosts;
    pthread_mutex_lock(&hosts->mutex);
    hosts->changes++;
    pthread_cond_signal(&hosts->wake);
    pthread_mutex_unlock(&hosts->mutex);
}

static bool is_fresh(const struct rp_hostd_hosts *hosts, uint64_t version)
{
    const struct shared *shared = hosts->current;
    if (!shared || shared->version != version || shared->changes != hosts->changes)
        return false;
    uint64_t limit = shared->merging ? FRESH_MERGING : FRESH, cost = shared->took * (shared->merging ? 3 : 10);
    return rp_clock_monotonic_ns() - shared->taken < (cost > limit ? cost : limit);
}

static bool is_merging(const struct rp_inventory *inventory)
{
    bool merging = false;
    for (size_t i = 0; i < inventory->count; i++) {
        merging |= inventory->items[i].vm.activity != RP_VM_IDLE;
        for (size_t j = 0; j < inventory->items[i].snapshots.count; j++)
            merging |= inventory->items[i].snapshots.items[j].merging;
    }
    return merging;
}

// Without the mutex.
static struct shared *take(struct rp_hostd *hostd, struct rp_error *err)
{
    struct rp_host_connection *host = rp_hostd_hosts_borrow(hostd, err);
    if (!host)
        return NULL;
    struct shared *shared = rp_xcalloc(1, sizeof *shared);
    shared->references = 1;
    shared->taken = rp_clock_monotonic_ns();
    int failed = host->ops->inventory(host, &shared->inventory, err) ||
                 rp_host_local_list_planned(host, &shared->planned, err);
    shared->took = rp_clock_monotonic_ns() - shared->taken;
    shared->merging = is_merging(&shared->inventory);
    rp_hostd_hosts_return(hostd, host);
    if (!failed)
        return shared;
    unref(shared);
    return NULL;
}

const struct rp_inventory *rp_hostd_hosts_inventory(struct rp_hostd *hostd, struct rp_error *err)
{
    struct rp_hostd_hosts *hosts = hostd->hosts;
    const struct rp_inventory *result = NULL;
    pthread_mutex_lock(&hosts->mutex);
    for (;;) {
        uint64_t version = 0;
        if (rp_host_local_version(hosts->watcher, &version, err))
            break;
        if (is_fresh(hosts, version)) {
            hosts->current->references++;
            result = &hosts->current->inventory;
            break;
        }
        if (hosts->taking) { // somebody is at it; whether what he gets is new enough for us is seen then
            pthread_cond_wait(&hosts->taken, &hosts->mutex);
            continue;
        }
        hosts->taking = true;
        uint64_t changes = hosts->changes;
        pthread_mutex_unlock(&hosts->mutex);
        struct shared *shared = take(hostd, err);
        pthread_mutex_lock(&hosts->mutex);
        hosts->taking = false;
        pthread_cond_broadcast(&hosts->taken);
        if (!shared)
            break;
        shared->version = version;
        shared->changes = changes;
        unref(hosts->current);
        hosts->current = shared;
        // It was taken after we were asked, so it is new enough for us, whatever has changed since.
        shared->references++;
        result = &shared->inventory;
        if (shared->merging)
            pthread_cond_signal(&hosts->wake);
        break;
    }
    pthread_mutex_unlock(&hosts->mutex);
    return result;
}

const struct rp_inventory *rp_hostd_hosts_planned(const struct rp_inventory *inventory)
{
    return &((const struct shared *)inventory)->planned;
}

void rp_hostd_hosts_release(struct rp_hostd *hostd, const struct rp_inventory *inventory)
{
    if (!inventory)
        return;
    pthread_mutex_lock(&hostd->hosts->mutex);
    unref((struct shared *)(uintptr_t)inventory);
    pthread_mutex_unlock(&hostd->hosts->mutex);
}

static const struct rp_inventory_vm *find_vm(const struct rp_inventory *inventory, const char *id)
{
    for (size_t i = 0; i < inventory->count; i++)
        if (!strcasecmp(inventory->items[i].vm.id, id))
            return &inventory->items[i];
    return NULL;
}

const struct rp_inventory_vm *rp_hostd_hosts_vm(const struct rp_inventory *inventory, const char *id, bool *planned)
{
    const struct rp_inventory_vm *vm = find_vm(inventory, id);
    *planned = !vm;
    return vm ? vm : find_vm(rp_hostd_hosts_planned(inventory), id);
}

const struct rp_snapshot *rp_hostd_hosts_snapshot(const struct rp_inventory *inventory, const char *id,
                                                  const struct rp_inventory_vm **vm)
{
    for (size_t i = 0; i < inventory->count; i++)
        for (size_t j = 0; j < inventory->items[i].snapshots.count; j++) {
            const struct rp_snapshot *snapshot = &inventory->items[i].snapshots.items[j];
            if (snapshot->merging || strcasecmp(rp_hostd_paths_bare(snapshot->id), rp_hostd_paths_bare(id)))
                continue;
            *vm = &inventory->items[i];
            return snapshot;
        }
    return NULL;
}

const struct rp_reference_point *rp_hostd_hosts_point(const struct rp_inventory *inventory, const char *id,
                                                      const struct rp_inventory_vm **vm)
{
    for (size_t i = 0; i < inventory->count; i++)
        for (size_t j = 0; j < inventory->items[i].points.count; j++) {
            const struct rp_reference_point *point = &inventory->items[i].points.items[j];
            if (strcasecmp(rp_hostd_paths_bare(point->id), rp_hostd_paths_bare(id)))
                continue;
            *vm = &inventory->items[i];
            return point;
        }
    return NULL;
}

// ---- merges of VMs that are off -------------------------------------------------------------------------------------

static bool is_over(struct rp_hostd_hosts *hosts)
{
    pthread_mutex_lock(&hosts->mutex);
    bool over = hosts->stop;
    pthread_mutex_unlock(&hosts->mutex);
    return over;
}

static void advance(struct rp_hostd *hostd)
{
    struct rp_error err = {0};
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(hostd, &err);
    struct rp_host_connection *host = inventory ? rp_hostd_hosts_borrow(hostd, &err) : NULL;
    for (size_t i = 0; host && i < inventory->count && !is_over(hostd->hosts); i++) {
        const struct rp_vm *vm = &inventory->items[i].vm;
        if (vm->activity != RP_VM_MERGING || vm->state == RP_VM_RUNNING)
            continue;
        RP_CLEANUP(rp_vm_clear) struct rp_vm now = {0};
        host->ops->find_vm(host, vm->id, &now, NULL); // what stops it stands in merge_problem; tried again
    }
    rp_hostd_hosts_return(hostd, host);
    rp_hostd_hosts_release(hostd, inventory);
    if (err.code)
        rp_log(RP_LOG_WARNING, "merges: %s", err.text);
}

static void *advance_merges(void *context)
{
    struct rp_hostd *hostd = context;
    struct rp_hostd_hosts *hosts = hostd->hosts;
    pthread_mutex_lock(&hosts->mutex);
    while (!hosts->stop) {
        uint64_t changes = hosts->changes;
        pthread_mutex_unlock(&hosts->mutex);
        advance(hostd);
        pthread_mutex_lock(&hosts->mutex);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        if (hosts->stop || hosts->changes != changes)
            continue;
        if (hosts->current && hosts->current->merging)
            pthread_cond_timedwait(&hosts->wake, &hosts->mutex, &until);
        else
            pthread_cond_wait(&hosts->wake, &hosts->mutex);
    }
    pthread_mutex_unlock(&hosts->mutex);
    return NULL;
}

int rp_hostd_hosts_open(struct rp_hostd *hostd, struct rp_error *err)
{
    struct rp_host_connection *watcher = rp_host_local_open_resident(hostd->directory, true, err);
    if (!watcher)
        return -1;
    struct rp_hostd_hosts *hosts = hostd->hosts = rp_xcalloc(1, sizeof *hosts);
    hosts->watcher = watcher;
    pthread_mutex_init(&hosts->mutex, NULL);
    pthread_cond_init(&hosts->taken, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&hosts->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    int rc = pthread_create(&hosts->advancer, NULL, advance_merges, hostd);
    if (!rc)
        return 0;
    hosts->stop = true;
    hosts->advancer = pthread_self();
    rp_hostd_hosts_close(hostd);
    return rp_fail_sys(err, rc, "thread for merges");
}

void rp_hostd_hosts_close(struct rp_hostd *hostd)
{
    struct rp_hostd_hosts *hosts = hostd->hosts;
    if (!hosts)
        return;
    pthread_mutex_lock(&hosts->mutex);
    hosts->stop = true;
    pthread_cond_signal(&hosts->wake);
    pthread_mutex_unlock(&hosts->mutex);
    if (!pthread_equal(hosts->advancer, pthread_self()))
        pthread_join(hosts->advancer, NULL);
    unref(hosts->current);
    for (size_t i = 0; i < hosts->idle_count; i++)
        rp_host_close(hosts->idle[i]);
    rp_host_close(hosts->watcher);
    pthread_cond_destroy(&hosts->taken);
    pthread_cond_destroy(&hosts->wake);
    pthread_mutex_destroy(&hosts->mutex);
    free(hosts);
    hostd->hosts = NULL;
}
