// A guest that has to stand still for a moment, and goes on also when whoever stopped it was killed.
//
// QEMU is stopped by its own command: libvirt then calls the guest paused for a reason that it does not know, and never by its
// user, as after virDomainSuspend. And QEMU gets a block node without any use, as a mark that it was us; it lasts as long as the
// process whose guest stands still, no longer. Both together are ours. (A pause by its user while it stands is no other state
// to libvirt than the one before, and ends with ours; one just before is his.)
#include "libvirt/libvirt_impl.h"

#include <time.h>

#define TRIES 500 // of 10 ms

static int state_of(virDomainPtr domain, int *reason)
{
    int state;
    return virDomainGetState(domain, &state, reason, 0) ? -1 : state;
}

static void remove_mark(virDomainPtr domain)
{
    rp_monitor_command(domain, "blockdev-del", json_pack("{s:s}", "node-name", RP_STANDING_MARK), NULL);
}

// QEMU has stopped when it answers, but it is libvirt that lets it go on, and that has to have heard of it. 1: it has not stopped
// because of us.
static int wait_heard(virDomainPtr domain, struct rp_error *err)
{
    for (int i = 0; i < TRIES; i++) {
        int reason = 0, state = state_of(domain, &reason);
        if (state != VIR_DOMAIN_RUNNING)
            return state == VIR_DOMAIN_PAUSED && reason != VIR_DOMAIN_PAUSED_UNKNOWN;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return rp_fail(err, RP_ERR_IO, "libvirt does not see that QEMU has stopped");
}

int rp_standing_begin(virDomainPtr domain, struct rp_error *err)
{
    json_t *node = json_pack("{s:s, s:s}", "driver", "null-co", "node-name", RP_STANDING_MARK);
    remove_mark(domain);
    if (rp_monitor_command(domain, "blockdev-add", node, err))
        return -1;
    int heard = rp_monitor_command(domain, "stop", NULL, err) ? -1 : wait_heard(domain, err);
    if (!heard)
        return 0;
    if (heard < 0)
        rp_monitor_command(domain, "cont", NULL, NULL);
    remove_mark(domain);
    return heard;
}

int rp_standing_end(virDomainPtr domain, struct rp_error *err)
{
    struct rp_error why = {0};
    if (virDomainResume(domain))
        rp_libvirt_fail(&why, "it stays paused");
    if (why.code && state_of(domain, NULL) != VIR_DOMAIN_RUNNING) // somebody else may have let it go on
        return rp_fail_as(err, &why);
    remove_mark(domain);
    return 0;
}

int rp_standing_is(virDomainPtr domain, int state, int reason, struct rp_error *err)
{
    if (state != VIR_DOMAIN_PAUSED || reason != VIR_DOMAIN_PAUSED_UNKNOWN)
        return 0;
    RP_CLEANUP(rp_json_p) json_t *nodes = rp_monitor(domain, "query-named-block-nodes", NULL, err);
    return nodes ? rp_monitor_has_node(nodes, RP_STANDING_MARK) : -1;
}
