// What the files of the supervision share. Whatever is in here is under the keeper's mutex, but what never changes.
#ifndef RP_HOSTD_KEEPER_IMPL_H
#define RP_HOSTD_KEEPER_IMPL_H

#include <pthread.h>

#include "base/clock.h"
#include "host/hypervisor.h"
#include "hostd/core.h"

#define RP_KEEPER_MS 1000000ull
#define RP_KEEPER_S (1000 * RP_KEEPER_MS)

struct rp_kept_vm {
    struct rp_host_domain domain; // texts are owned
    int line;                     // connection to its disk service; -1: none
    bool looking, gone;           // gone: no VM of ours any more
    bool rescuing;                // its service died while a look waits for the hypervisor, or for its turn
    uint64_t rescue;              // when that is done; 0: it need not be
    bool started, changed;        // for the next look
    bool told;                    // that it does not get on
    uint64_t due, helped;         // monotonic; when it is looked at next; when it was helped last, 0: never
    unsigned times, failures;     // it was helped, could not be, so often without having been well in between
};

struct rp_kept_source { // a hypervisor
    struct rp_hostd_keeper *k;
    char *uri;
    struct rp_hypervisor *hv;     // NULL: not watched yet
    uint64_t due;
    bool opening, told;
};

struct rp_hostd_keeper {
    struct rp_hostd *hostd;
    struct rp_hostd_finisher *finisher;
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    struct rp_kept_vm **vms;
    size_t count, looks, threads; // VMs; those that are looked at; threads at work
    struct rp_kept_source **sources;
    size_t source_count;
    int wake;
    bool stop;
    pthread_t thread;
};

// ---- keeper.c ----

void rp_keeper_wake(struct rp_hostd_keeper *k); // its thread; the mutex may be held or not
// A thread of its own for what may wait; it ends with rp_keeper_leave, the last that it does with what the mutex protects. Returns
// an errno, 0: it runs.
int rp_keeper_begin(struct rp_hostd_keeper *k, void *(*body)(void *), void *argument);
void rp_keeper_leave(struct rp_hostd_keeper *k);

// ---- keeper_look.c: all under the mutex ----

// When the VM is looked at next: not later than that.
void rp_keeper_sooner(struct rp_kept_vm *vm, uint64_t due);
// Something happened, for the n-th time in a row; when it is helped then.
void rp_keeper_happened(struct rp_kept_vm *vm, unsigned times);
uint64_t rp_keeper_in_time(const struct rp_kept_vm *vm, unsigned times);
unsigned rp_keeper_most(const struct rp_kept_vm *vm); // that many times in a row it was helped, or could not be
void rp_keeper_hang_up(struct rp_kept_vm *vm);
// Begins a look, which begins with a rescue; a rescue, beside a look.
void rp_keeper_look(struct rp_hostd_keeper *k, struct rp_kept_vm *vm);
void rp_keeper_rescue(struct rp_hostd_keeper *k, struct rp_kept_vm *vm);

// ---- keeper_watch.c: only the keeper's thread has the list of sources ----

void rp_keeper_need_source(struct rp_hostd_keeper *k, const char *uri); // is watched from now on
void rp_keeper_watch_due(struct rp_hostd_keeper *k);                    // without the mutex: what is to be watched and is not yet
void rp_keeper_free_sources(struct rp_hostd_keeper *k);                 // no thread is at work any more

#endif
