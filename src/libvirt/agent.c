// Freezing a guest's file systems through its agent, and thawing them.
//
// libvirt 9 says the same ("not available for now") for an agent that was never asked and for one that does not answer
// halfway, so it is asked for a ping first: without an answer to that nothing can be frozen. Whatever fails later is thawed.
#include "libvirt/libvirt_impl.h"

#include <libvirt/libvirt-qemu.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

#define PING_S 5
#define UNDO_PAUSE_MAX_S 30u

// libvirt counts in seconds: rounded down, because limits are kept; but at least one.
static int seconds(uint64_t ms) { return ms < 2000 ? 1 : ms > 3600000 ? 3600 : (int)(ms / 1000); }

// A command without arguments; with a limit of its own, because the one that a domain can be given holds for everybody, and would
// stay when we are killed. A command that answers with a number gives it; -1: it failed.
static int ask(virDomainPtr domain, const char *command, int limit_s, struct rp_error *err)
{
    const char *name = virDomainGetName(domain);
    RP_AUTO_FREE char *request = rp_xasprintf("{\"execute\":\"%s\"}", command);
    RP_AUTO_FREE char *text = virDomainQemuAgentCommand(domain, request, limit_s, 0);
    if (!text)
        return rp_libvirt_fail(err, "the guest agent of domain %s does not answer %s", name, command);
    RP_CLEANUP(rp_json_p) json_t *answer = json_loads(text, 0, NULL);
    const json_t *value = json_object_get(answer, "return");
    json_int_t number = json_integer_value(value);
    if (!value || number < 0 || number > INT_MAX)
        return rp_fail(err, RP_ERR_IO, "the guest agent of domain %s answers %s with what cannot be read", name, command);
    return (int)number;
}

static int thaw(virDomainPtr domain, uint64_t limit_ms, struct rp_error *err)
{
    return ask(domain, "guest-fsfreeze-thaw", seconds(limit_ms), err);
}

// It was frozen after all. Whoever asked thaws it as well, but may have gone; so this goes on until it is not frozen.
static int undo_freeze(struct rp_request *request, struct rp_error *err)
{
    for (unsigned pause_s = 1; thaw(request->found, request->number, err) < 0 && virDomainIsActive(request->found) == 1;) {
        sleep(pause_s);
        pause_s = pause_s < UNDO_PAUSE_MAX_S ? 2 * pause_s : UNDO_PAUSE_MAX_S;
    }
    return 0;
}

int rp_work_freeze(struct rp_request *request, struct rp_error *err)
{
    virDomainPtr domain = request->found;
    const char *name = virDomainGetName(domain);
    uint64_t began = rp_clock_monotonic_ns();
    request->undo = undo_freeze;
    int limit_s = seconds(request->number);
    if (ask(domain, "guest-ping", limit_s < PING_S ? limit_s : PING_S, err) < 0)
        return -1;
    uint64_t passed_ms = (rp_clock_monotonic_ns() - began) / 1000000;
    uint64_t left_ms = passed_ms < request->number ? request->number - passed_ms : 0;
    // Nothing is frozen yet, and it shall not be when whoever asked has thawed it and gone.
    if (!left_ms || rp_request_is_given_up(request))
        return rp_fail(err, RP_ERR_BUSY, "the guest agent of domain %s was not free for %llu ms", name, (unsigned long long)passed_ms);
    struct rp_error why = {0}, unknown = {0};
    int frozen = ask(domain, "guest-fsfreeze-freeze", seconds(left_ms), &why);
    request->result = frozen > 0 ? (uint64_t)frozen : 0;
    if (frozen >= 0)
        return 0;
    if (thaw(domain, request->number, &unknown) < 0)
        return rp_fail(err, RP_ERR_IO, "nobody knows whether file systems of domain %s are frozen: %.400s; %.400s", name, why.text,
                       unknown.text);
    // It answered the ping, so an agent is there: it refused, or took too long.
    bool late = why.code == RP_ERR_UNSUPPORTED;
    return rp_fail(err, late ? RP_ERR_BUSY : RP_ERR_STATE, "%s", why.text);
}

int rp_work_thaw(struct rp_request *request, struct rp_error *err)
{
    int active = virDomainIsActive(request->found);
    if (!active && !virDomainHasManagedSaveImage(request->found, 0))
        return 0; // off: nothing of it is frozen
    int thawed = thaw(request->found, request->number, err);
    request->result = thawed > 0 ? (uint64_t)thawed : 0;
    return thawed < 0 ? -1 : 0;
}
