// Requests: calls of libvirt with a limit.
#include "libvirt/libvirt_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"

#define MAX_GIVEN_UP 16u // of one connection: more of them would not end either

struct rp_request *rp_request_new(struct rp_hypervisor *hv, const char *domain, const char *doing, rp_request_fn *work)
{
    struct rp_request *request = rp_xcalloc(1, sizeof *request);
    rp_libvirt_hold(hv);
    request->hv = hv;
    request->work = work;
    request->doing = doing;
    request->domain = domain ? rp_xstrdup(domain) : NULL;
    request->holders = 1;
    pthread_mutex_init(&request->lock, NULL);
    pthread_cond_init(&request->changed, NULL);
    return request;
}

void rp_request_release(struct rp_request *request)
{
    pthread_mutex_lock(&request->lock);
    bool last = --request->holders == 0;
    pthread_mutex_unlock(&request->lock);
    if (!last)
        return;
    if (request->found)
        virDomainFree(request->found);
    if (request->connection)
        virConnectClose(request->connection);
    if (request->watch)
        rp_watch_let_go(request->watch);
    rp_xml_disks_free(request->disks, request->count);
    free(request->turn);
    free(request->domain);
    free(request->text);
    free(request->xml);
    pthread_cond_destroy(&request->changed);
    pthread_mutex_destroy(&request->lock);
    rp_libvirt_let_go(request->hv);
    free(request);
}

static int find_domain(struct rp_request *request, struct rp_error *err)
{
    request->found = virDomainLookupByUUIDString(request->connection, request->domain);
    request->name = request->found ? virDomainGetName(request->found) : NULL;
    if (request->name)
        return 0;
    const virError *error = virGetLastError();
    if (error && error->code == VIR_ERR_NO_DOMAIN)
        return rp_fail(err, RP_ERR_NOT_FOUND, "there is no domain %s at %s", request->domain, request->hv->uri);
    return rp_libvirt_fail(err, "domain %s cannot %s", request->domain, request->doing);
}

static int work(struct rp_request *request, struct rp_error *err)
{
    if (!request->unconnected) {
        request->connection = rp_libvirt_connection(request->hv, err);
        if (!request->connection || (request->domain && find_domain(request, err)))
            return -1;
    }
    // The way here may have taken long, and be it that somebody else had its turn.
    if (!request->unconnected && rp_request_is_given_up(request))
        return rp_fail(err, RP_ERR_BUSY, "nobody waits for it any more");
    return request->work(request, err);
}

// ---- turns ----

static void enter_turn(struct rp_request *request)
{
    struct rp_hypervisor *hv = request->hv;
    pthread_mutex_lock(&hv->lock);
    *hv->turns_end = request;
    hv->turns_end = &request->next_turn;
    pthread_mutex_unlock(&hv->lock);
}

// With the lock held.
static bool is_its_turn(const struct rp_request *request)
{
    const struct rp_request *first = request->hv->turns;
    while (first != request && strcasecmp(first->turn, request->turn))
        first = first->next_turn;
    return first == request;
}

// One that nobody waits for any more leaves: behind a request that hangs they would become more and more.
static int wait_turn(struct rp_request *request, struct rp_error *err)
{
    pthread_mutex_lock(&request->hv->lock);
    while (!is_its_turn(request) && !request->out_of_turn)
        pthread_cond_wait(&request->hv->turned, &request->hv->lock);
    bool leaves = request->out_of_turn;
    pthread_mutex_unlock(&request->hv->lock);
    return leaves ? rp_fail(err, RP_ERR_BUSY, "nobody waits for it any more") : 0;
}

static void leave_turn(struct rp_request *request)
{
    struct rp_hypervisor *hv = request->hv;
    pthread_mutex_lock(&hv->lock);
    struct rp_request **place = &hv->turns;
    while (*place != request)
        place = &(*place)->next_turn;
    *place = request->next_turn;
    if (!*place)
        hv->turns_end = place;
    pthread_cond_broadcast(&hv->turned);
    pthread_mutex_unlock(&hv->lock);
}

// ---- running ----

static void *run(void *context)
{
    struct rp_request *request = context;
    struct rp_error err = {0};
    int failed = (request->turn && wait_turn(request, &err)) || work(request, &err) ? -1 : 0;
    if (request->turn)
        leave_turn(request);
    pthread_mutex_lock(&request->lock);
    request->failed = failed;
    request->err = err;
    request->done = true;
    bool given_up = request->given_up;
    pthread_cond_broadcast(&request->changed);
    pthread_mutex_unlock(&request->lock);
    if (given_up) {
        if (!failed && request->undo)
            request->undo(request, NULL);
        pthread_mutex_lock(&request->hv->lock);
        request->hv->given_up--;
        pthread_mutex_unlock(&request->hv->lock);
    }
    rp_request_release(request);
    return NULL;
}

// With the lock held: until it is done or late.
static void wait(struct rp_request *request)
{
    while (!request->done) {
        uint64_t end = request->began_ns + request->limit_ms * 1000000;
        struct timespec until = {.tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000)};
        if (pthread_cond_clockwait(&request->changed, &request->lock, CLOCK_MONOTONIC, &until) == ETIMEDOUT && !request->done &&
            rp_clock_monotonic_ns() >= request->began_ns + request->limit_ms * 1000000)
            return;
    }
}

static int too_many(struct rp_hypervisor *hv, struct rp_error *err)
{
    pthread_mutex_lock(&hv->lock);
    unsigned given_up = hv->given_up;
    pthread_mutex_unlock(&hv->lock);
    return given_up < MAX_GIVEN_UP
               ? 0
               : rp_fail(err, RP_ERR_BUSY, "libvirt at %s has not answered %u earlier requests yet", hv->uri, given_up);
}

int rp_request_run(struct rp_request *request, uint64_t limit_ms, struct rp_error *err)
{
    struct rp_hypervisor *hv = request->hv;
    pthread_t thread;
    if (too_many(hv, err))
        return -1;
    request->began_ns = rp_clock_monotonic_ns();
    request->limit_ms = limit_ms;
    request->holders = 2;
    if (request->turn)
        enter_turn(request);
    if (rp_libvirt_thread(&thread, run, request, err)) {
        if (request->turn)
            leave_turn(request);
        request->holders = 1;
        return -1;
    }
    pthread_mutex_lock(&request->lock);
    wait(request);
    bool late = !request->done;
    if (late) {
        request->given_up = true;
        pthread_mutex_lock(&hv->lock);
        hv->given_up++;
        request->out_of_turn = true;
        pthread_cond_broadcast(&hv->turned);
        pthread_mutex_unlock(&hv->lock);
    }
    int failed = late ? rp_fail(err, request->late ? request->late : RP_ERR_BUSY,
                                "%s%s cannot %s: libvirt (%s) has not answered within %llu seconds",
                                request->domain ? "domain " : "the connection", request->domain ? request->domain : "",
                                request->doing, hv->uri, (unsigned long long)(request->limit_ms / 1000))
                      : request->failed;
    if (!late && failed)
        rp_fail_as(err, &request->err);
    pthread_mutex_unlock(&request->lock);
    if (late)
        pthread_detach(thread);
    else
        pthread_join(thread, NULL); // it is done: nothing of it runs any more when the process ends or forks
    return failed;
}

bool rp_request_is_given_up(struct rp_request *request)
{
    pthread_mutex_lock(&request->lock);
    bool given_up = request->given_up;
    pthread_mutex_unlock(&request->lock);
    return given_up;
}

void rp_request_extend(struct rp_request *request, uint64_t limit_ms)
{
    pthread_mutex_lock(&request->lock);
    request->limit_ms = limit_ms;
    pthread_cond_broadcast(&request->changed);
    pthread_mutex_unlock(&request->lock);
}
