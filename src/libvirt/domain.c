// What is done with a domain: works of requests.
#include "libvirt/libvirt_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"

// Restoring or saving the memory of a large guest takes as long as its disk needs; an hour is more than 512 GiB take.
#define MEMORY_LIMIT_MS 3600000u

static int failed(struct rp_request *request, struct rp_error *err)
{
    return rp_libvirt_fail(err, "domain %s cannot %s", request->name, request->doing);
}

char *rp_domain_xml(virDomainPtr domain, unsigned flags, struct rp_error *err)
{
    const char *name = virDomainGetName(domain);
    char *xml = virDomainGetXMLDesc(domain, flags);
    if (!xml)
        rp_libvirt_fail(err, "the definition of domain %s cannot be read", name);
    else if (strlen(xml) > RP_LIBVIRT_MAX_XML) {
        rp_fail(err, RP_ERR_UNSUPPORTED, "the definition of domain %s is larger than 4 MiB", name);
        free(xml);
        xml = NULL;
    }
    return xml;
}

// The UUID first: nobody can take that of another domain, but a name may be anything.
int rp_work_find(struct rp_request *request, struct rp_error *err)
{
    struct rp_guid guid;
    const char *name = request->text;
    if (!rp_guid_parse(name, &guid, NULL) && *name != '{')
        request->found = virDomainLookupByUUIDString(request->connection, name);
    if (!request->found)
        request->found = virDomainLookupByName(request->connection, name);
    const virError *error = virGetLastError();
    if (!request->found && error && error->code == VIR_ERR_NO_DOMAIN)
        return rp_fail(err, RP_ERR_NOT_FOUND, "there is no domain \"%s\" at %s", name, request->hv->uri);
    if (!request->found || virDomainGetUUIDString(request->found, request->uuid))
        return rp_libvirt_fail(err, "domain \"%s\" cannot %s", name, request->doing);
    if (!request->flag)
        return 0;
    request->xml = rp_domain_xml(request->found, VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_INACTIVE, err);
    return request->xml ? 0 : -1;
}

int rp_work_running_xml(struct rp_request *request, struct rp_error *err)
{
    int active = virDomainIsActive(request->found);
    if (active < 0)
        return failed(request, err);
    if (!active)
        return rp_fail(err, RP_ERR_STATE, "domain %s does not run", request->name);
    request->xml = rp_domain_xml(request->found, VIR_DOMAIN_XML_SECURE, err);
    return request->xml ? 0 : -1;
}

// It is not taken back: whoever asked looks at the definition himself, and what he asks for then has its turn after this.
static int tell_late(struct rp_request *request, struct rp_error *err)
{
    (void)err;
    rp_log(RP_LOG_WARNING, "domain %s: libvirt (%s) has taken a definition late, which was given up after %llu seconds",
           virDomainGetName(request->found), request->hv->uri, (unsigned long long)(request->limit_ms / 1000));
    return 0;
}

int rp_work_define(struct rp_request *request, struct rp_error *err)
{
    request->undo = tell_late;
    request->found = virDomainDefineXMLFlags(request->connection, request->text, VIR_DOMAIN_DEFINE_VALIDATE);
    return request->found ? 0 : rp_libvirt_fail(err, "a domain cannot be defined at %s", request->hv->uri);
}

int rp_work_undefine(struct rp_request *request, struct rp_error *err)
{
    // libvirt would let go on what runs, and forget it when it ends.
    int active = virDomainIsActive(request->found);
    if (active > 0)
        return rp_fail(err, RP_ERR_STATE, "domain %s runs: its definition cannot be removed", request->name);
    unsigned flags = request->flag ? VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_NVRAM | VIR_DOMAIN_UNDEFINE_TPM |
                                         VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                                   : VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | VIR_DOMAIN_UNDEFINE_KEEP_TPM;
    return active < 0 || virDomainUndefineFlags(request->found, flags) ? failed(request, err) : 0;
}

// ---- state ----

// 1: it goes on when it is resumed with disks that answer; 0: it does not wait for that.
static int waits_for_disk(struct rp_request *request, int *state, int *reason, struct rp_error *err)
{
    if (virDomainGetState(request->found, state, reason, 0))
        return failed(request, err);
    if (*state == VIR_DOMAIN_PAUSED && *reason == VIR_DOMAIN_PAUSED_IOERROR)
        return 1;
    int standing = rp_standing_is(request->found, *state, *reason, err);
    return standing < 0 ? rp_context(err, "domain %s cannot %s", request->name, request->doing) : standing;
}

static enum rp_domain_state paused_state(int reason)
{
    switch (reason) {
    case VIR_DOMAIN_PAUSED_STARTING_UP:
        return RP_DOMAIN_STARTING;
    case VIR_DOMAIN_PAUSED_SHUTTING_DOWN:
        return RP_DOMAIN_STOPPING;
    default:
        return RP_DOMAIN_PAUSED;
    }
}

// Without a process; also when its QEMU was killed: what is off can be started.
static int state_at_rest(struct rp_request *request, struct rp_error *err)
{
    int saved = virDomainHasManagedSaveImage(request->found, 0);
    if (saved < 0)
        return failed(request, err);
    request->result = saved ? RP_DOMAIN_SAVED : RP_DOMAIN_OFF;
    return 0;
}

// A guest that has panicked leaves a QEMU that has its disks open: it may be dumped, reset, and go on (PAUSED_CRASHED is one that
// was reset).
int rp_work_state(struct rp_request *request, struct rp_error *err)
{
    int state, reason, active, waits = waits_for_disk(request, &state, &reason, err);
    if (waits < 0)
        return -1;
    switch (state) {
    case VIR_DOMAIN_SHUTOFF:
        return state_at_rest(request, err);
    case VIR_DOMAIN_PAUSED:
        request->result = waits ? RP_DOMAIN_IO_ERROR : paused_state(reason);
        return 0;
    case VIR_DOMAIN_PMSUSPENDED: // the guest sleeps
        request->result = RP_DOMAIN_PAUSED;
        return 0;
    case VIR_DOMAIN_SHUTDOWN:
        request->result = RP_DOMAIN_STOPPING;
        return 0;
    case VIR_DOMAIN_CRASHED:
        active = virDomainIsActive(request->found);
        if (!active)
            return state_at_rest(request, err);
        request->result = RP_DOMAIN_CRASHED;
        return active < 0 ? failed(request, err) : 0;
    default:
        request->result = RP_DOMAIN_RUNNING;
        return 0;
    }
}

// ---- start ----

static bool is_running(virDomainPtr domain)
{
    int state;
    return !virDomainGetState(domain, &state, NULL, 0) && state == VIR_DOMAIN_RUNNING;
}

// What was started and cannot go on. The saved memory of a guest was removed by libvirt when it was restored: it is saved
// again. Everything else is off.
static void end_start(struct rp_request *request, bool restored, struct rp_error *err)
{
    if (is_running(request->found)) // somebody else has let it go
        return;
    if (restored && !virDomainManagedSave(request->found, 0))
        return;
    if (restored)
        rp_context(err, "its saved memory is lost, because it cannot be saved again (%s)", virGetLastErrorMessage());
    if (virDomainDestroy(request->found) && virDomainIsActive(request->found))
        rp_context(err, "it is paused now, because it cannot be turned off (%s)", virGetLastErrorMessage());
}

// Also when somebody else has done so.
static int let_go(struct rp_request *request, struct rp_error *err)
{
    if (!virDomainResume(request->found))
        return 0;
    failed(request, err); // before libvirt forgets why
    return is_running(request->found) ? 0 : -1;
}

int rp_work_start(struct rp_request *request, struct rp_error *err)
{
    int restored = virDomainHasManagedSaveImage(request->found, 0);
    if (restored < 0)
        return failed(request, err); // what would be lost with it is not known
    if (restored)
        rp_request_extend(request, MEMORY_LIMIT_MS);
    // Without disks to connect there is nothing to be done while it is paused.
    unsigned flags = request->count ? VIR_DOMAIN_START_PAUSED : 0;
    if (virDomainCreateWithFlags(request->found, flags))
        return failed(request, err);
    if (!request->count)
        return 0;
    // From here on it may be let go by others, who then have work in it.
    if (!rp_nodes_reconnect(request->found, request->disks, request->count, RP_LIBVIRT_PATIENCE_S, err)) {
        if (!restored && rp_request_is_given_up(request))
            rp_fail(err, RP_ERR_BUSY, "nobody waits for it any more");
        else if (!let_go(request, err))
            return 0;
    }
    end_start(request, restored, err);
    return rp_context(err, "domain %s was not started", request->name);
}

// ---- the rest: one call each ----

int rp_work_shut_down(struct rp_request *request, struct rp_error *err)
{
    return virDomainShutdown(request->found) ? failed(request, err) : 0; // the agent if there is one, else ACPI
}

int rp_work_turn_off(struct rp_request *request, struct rp_error *err)
{
    return virDomainDestroy(request->found) ? failed(request, err) : 0;
}

int rp_work_pause(struct rp_request *request, struct rp_error *err)
{
    return virDomainSuspend(request->found) ? failed(request, err) : 0;
}

// One that waits for a disk goes on only with connections that work: QEMU's own tries again every 16 seconds, and until then
// the next request would stop the guest again. With the service still away this fails, and the guest stays as it is.
int rp_work_resume(struct rp_request *request, struct rp_error *err)
{
    bool waiting_only = request->flag;
    int state, reason, waits = waits_for_disk(request, &state, &reason, err);
    if (waits < 0 || (!waits && waiting_only))
        return waits;
    if (state == VIR_DOMAIN_PMSUSPENDED)
        return virDomainPMWakeup(request->found, 0) ? failed(request, err) : 0;
    if (waits && rp_nodes_reconnect_known(request->found, RP_LIBVIRT_PATIENCE_S, err))
        return rp_context(err, "domain %s cannot %s", request->name, request->doing);
    // That took its time: meanwhile its user may have had it go on, and paused it.
    if (waiting_only && (waits = waits_for_disk(request, &state, &reason, err)) <= 0)
        return waits;
    if (waits && reason == VIR_DOMAIN_PAUSED_UNKNOWN)
        return rp_standing_end(request->found, err) ? rp_context(err, "domain %s cannot %s", request->name, request->doing) : 0;
    return virDomainResume(request->found) ? failed(request, err) : 0;
}

int rp_work_reset(struct rp_request *request, struct rp_error *err)
{
    return virDomainReset(request->found, 0) ? failed(request, err) : 0;
}

int rp_work_save(struct rp_request *request, struct rp_error *err)
{
    return virDomainManagedSave(request->found, 0) ? failed(request, err) : 0;
}

int rp_work_snapshots(struct rp_request *request, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf names = {0};
    virDomainSnapshotPtr *snapshots = NULL;
    virDomainCheckpointPtr *checkpoints = NULL;
    int count = virDomainListAllSnapshots(request->found, &snapshots, 0);
    for (int i = 0; i < count; i++) {
        rp_buf_printf(&names, "%s%s", names.size ? ", " : "", virDomainSnapshotGetName(snapshots[i]));
        virDomainSnapshotFree(snapshots[i]);
    }
    free(snapshots);
    if (count < 0)
        return failed(request, err);
    count = virDomainListAllCheckpoints(request->found, &checkpoints, 0);
    for (int i = 0; i < count; i++) {
        rp_buf_printf(&names, "%s%s", names.size ? ", " : "", virDomainCheckpointGetName(checkpoints[i]));
        virDomainCheckpointFree(checkpoints[i]);
    }
    free(checkpoints);
    const virError *error = virGetLastError();
    if (count < 0 && !(error && error->code == VIR_ERR_NO_SUPPORT))
        return failed(request, err);
    request->xml = rp_xstrdup(rp_buf_text(&names));
    return 0;
}
