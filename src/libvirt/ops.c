// The functions of the interface: each makes a request, runs it and takes what came out.
#include "libvirt/libvirt_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define START_LIMIT_MS 300000u     // libvirt itself waits for a new QEMU, for its memory to be given, for its devices
#define TURN_OFF_LIMIT_MS 90000u   // libvirt asks QEMU to end for some time before it kills it
#define SHUT_DOWN_LIMIT_MS 90000u  // libvirt waits a minute for the agent
#define SAVE_LIMIT_MS 3600000u     // see domain.c
#define AGENT_MARGIN_MS 15000u     // beyond what the agent itself is given: libvirt's synchronising with it, 5 s each time

static int simple(struct rp_hypervisor *hv, const char *domain, const char *doing, rp_request_fn *work, uint64_t limit_ms,
                  struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, doing, work);
    return rp_request_run(request, limit_ms, err);
}

// Of those that exchange a domain's connections: one that was given up may still be at it.
static char *turn_of(const char *domain) { return rp_xasprintf("connections of %s", domain); }

static char *take(char **text)
{
    char *taken = *text;
    *text = NULL;
    return taken;
}

static int find(struct rp_hypervisor *hv, const char *name, char uuid[RP_GUID_TEXT], char **xml, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, NULL, "be found", rp_work_find);
    request->text = rp_xstrdup(name);
    request->flag = xml != NULL;
    if (rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err))
        return -1;
    memcpy(uuid, request->uuid, RP_GUID_TEXT);
    if (xml)
        *xml = take(&request->xml);
    return 0;
}

// A request that gives a text.
static int text_of(struct rp_hypervisor *hv, const char *domain, const char *doing, rp_request_fn *work, char **text,
                   struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, doing, work);
    if (rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err))
        return -1;
    *text = take(&request->xml);
    return 0;
}

static int running_xml(struct rp_hypervisor *hv, const char *domain, char **xml, struct rp_error *err)
{
    return text_of(hv, domain, "be read", rp_work_running_xml, xml, err);
}

static int snapshots(struct rp_hypervisor *hv, const char *domain, char **names, struct rp_error *err)
{
    return text_of(hv, domain, "be asked for its snapshots", rp_work_snapshots, names, err);
}

static int define(struct rp_hypervisor *hv, const char *xml, struct rp_error *err)
{
    if (strlen(xml) > RP_LIBVIRT_MAX_XML)
        return rp_fail(err, RP_ERR_INVALID, "a domain cannot be defined at %s: its definition is larger than 4 MiB", hv->uri);
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, NULL, "be defined", rp_work_define);
    request->text = rp_xstrdup(xml);
    char uuid[RP_GUID_TEXT];
    rp_xml_uuid(xml, uuid);
    request->turn = *uuid ? rp_xstrdup(uuid) : NULL;
    return rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err);
}

static int undefine(struct rp_hypervisor *hv, const char *domain, bool state_too, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, "be undefined", rp_work_undefine);
    request->flag = state_too;
    request->turn = rp_xstrdup(domain);
    return rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err);
}

static int state(struct rp_hypervisor *hv, const char *domain, enum rp_domain_state *result, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, "tell its state", rp_work_state);
    if (rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err))
        return -1;
    *result = (enum rp_domain_state)request->result;
    return 0;
}

static int copy_disks(struct rp_request *request, const struct rp_domain_disk *disks, size_t count, struct rp_error *err)
{
    if (count > RP_LIBVIRT_MAX_DISKS)
        return rp_fail(err, RP_ERR_INVALID, "domain %s: %zu disks are too many", request->domain, count);
    request->disks = rp_xcalloc(count ? count : 1, sizeof *disks);
    for (; request->count < count; request->count++) {
        request->disks[request->count] = disks[request->count];
        request->disks[request->count].socket = rp_xstrdup(disks[request->count].socket);
    }
    return 0;
}

static int start(struct rp_hypervisor *hv, const char *domain, const struct rp_domain_disk *disks, size_t count,
                 struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, "be started", rp_work_start);
    request->turn = turn_of(domain);
    return copy_disks(request, disks, count, err) ? -1 : rp_request_run(request, START_LIMIT_MS, err);
}

static int shut_down(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return simple(hv, domain, "be asked to shut down", rp_work_shut_down, SHUT_DOWN_LIMIT_MS, err);
}

static int turn_off(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return simple(hv, domain, "be turned off", rp_work_turn_off, TURN_OFF_LIMIT_MS, err);
}

static int pause_domain(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return simple(hv, domain, "be paused", rp_work_pause, RP_LIBVIRT_LIMIT_MS, err);
}

static int resume(struct rp_hypervisor *hv, const char *domain, bool waiting_only, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, "be resumed", rp_work_resume);
    request->turn = turn_of(domain);
    request->flag = waiting_only;
    return rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err);
}

static int reset(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return simple(hv, domain, "be reset", rp_work_reset, RP_LIBVIRT_LIMIT_MS, err);
}

static int save(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return simple(hv, domain, "be saved", rp_work_save, SAVE_LIMIT_MS, err);
}

static int reconnect(struct rp_hypervisor *hv, const char *domain, const struct rp_domain_disk *disks, size_t count,
                     unsigned patience_s, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request =
        rp_request_new(hv, domain, "be connected to its disk service", rp_work_reconnect);
    request->turn = turn_of(domain);
    request->number = patience_s;
    // QEMU first waits for what is under way on the old connection, which may have a patience of its own.
    uint64_t limit_ms = RP_LIBVIRT_LIMIT_MS + 1000 * (uint64_t)patience_s;
    return copy_disks(request, disks, count, err) ? -1 : rp_request_run(request, limit_ms, err);
}

static int resize(struct rp_hypervisor *hv, const char *domain, const char *target, uint64_t size, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, "see a larger disk", rp_work_resize);
    request->text = rp_xstrdup(target);
    request->number = size;
    return rp_request_run(request, RP_LIBVIRT_LIMIT_MS, err);
}

static int freeze(struct rp_hypervisor *hv, const char *domain, unsigned timeout_ms, unsigned *count, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, "be frozen", rp_work_freeze);
    request->number = timeout_ms;
    request->late = RP_ERR_IO; // nobody knows
    if (rp_request_run(request, 2 * (uint64_t)timeout_ms + AGENT_MARGIN_MS, err))
        return -1;
    *count = (unsigned)request->result;
    return 0;
}

static int thaw(struct rp_hypervisor *hv, const char *domain, unsigned timeout_ms, unsigned *count, struct rp_error *err)
{
    RP_CLEANUP(rp_request_release_p) struct rp_request *request = rp_request_new(hv, domain, "be thawed", rp_work_thaw);
    request->number = timeout_ms;
    request->late = RP_ERR_IO;
    if (rp_request_run(request, (uint64_t)timeout_ms + AGENT_MARGIN_MS, err))
        return -1;
    *count = (unsigned)request->result;
    return 0;
}

const struct rp_hypervisor_ops rp_libvirt_ops = {
    .open = rp_libvirt_open,
    .close = rp_libvirt_close,
    .find = find,
    .running_xml = running_xml,
    .define = define,
    .undefine = undefine,
    .state = state,
    .start = start,
    .shut_down = shut_down,
    .turn_off = turn_off,
    .pause = pause_domain,
    .resume = resume,
    .reset = reset,
    .save = save,
    .reconnect = reconnect,
    .resize = resize,
    .freeze = freeze,
    .thaw = thaw,
    .watch = rp_libvirt_watch,
    .unwatch = rp_libvirt_unwatch,
    .snapshots = snapshots,
};
