// Snapshots: CreateSnapshot, DestroySnapshot, ApplySnapshot (facts/wmi.md 1.4, 1.5 A). Their names are given
// afterwards.
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "hyperv/wmi_internal.h"

#define BACK_NS UINT64_C(60000000000) // how long a host may be away when an answer was lost

// ---- lost answers ---------------------------------------------------------------------------------------------------

void rp_wmi_ids_clear(struct rp_wmi_ids *ids)
{
    free(ids->items);
    *ids = (struct rp_wmi_ids){0};
}

void rp_wmi_ids_add(struct rp_wmi_ids *ids, const char *id)
{
    ids->items = rp_xrealloc(ids->items, (ids->count + 1) * sizeof *ids->items);
    snprintf(ids->items[ids->count++], RP_HOST_ID, "%s", id);
}

size_t rp_wmi_ids_new(const struct rp_wmi_ids *before, const struct rp_wmi_ids *after, const char **one)
{
    size_t count = 0;
    for (size_t i = 0; i < after->count; i++) {
        size_t k = 0;
        while (k < before->count && strcasecmp(before->items[k], after->items[i]) != 0)
            k++;
        if (k < before->count)
            continue;
        *one = after->items[i];
        count++;
    }
    return count;
}

int rp_wmi_wait_back(struct rp_wmi *wmi, const char *vm_id, struct rp_error *err)
{
    uint64_t start = rp_clock_monotonic_ns();
    for (;;) {
        struct rp_error local = {0};
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        bool failed = rp_wmi_need_vm(wmi, vm_id, &vm, &local);
        if (!failed && vm.activity != RP_VM_CREATING_SNAPSHOT && vm.activity != RP_VM_DELETING_SNAPSHOT)
            return 0;
        if (failed && local.code != RP_ERR_IO)
            return rp_fail_as(err, &local);
        if (rp_clock_monotonic_ns() - start > BACK_NS)
            return failed ? rp_fail_as(err, &local)
                          : rp_fail(err, RP_ERR_BUSY, "%s: VM %s is still busy", wmi->host.address, vm_id);
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
}

// ---- listing --------------------------------------------------------------------------------------------------------

static void tell_consistency(const struct rp_wmi *wmi, struct rp_snapshot *snapshot)
{
    for (const struct rp_wmi_made *made = wmi->made; made; made = made->next)
        if (!made->name && !strcasecmp(made->id, snapshot->id)) {
            snapshot->consistency = made->consistency;
            snapshot->consistency_reason = made->reason ? rp_xstrdup(made->reason) : NULL;
            return;
        }
}

bool rp_wmi_read_snapshot(const struct rp_wmi *wmi, const struct rp_cim_instance *settings, struct rp_snapshot *out)
{
    const char *type = rp_cim_get_text(settings, "VirtualSystemType"), *name = rp_cim_get_text(settings, "ElementName");
    struct rp_cim_datetime time = {0};
    *out = (struct rp_snapshot){0};
    if (!type || !strstr(type, ":Snapshot:") ||
        rp_wmi_copy_id(rp_cim_get_text(settings, "InstanceID"), "checkpoint", out->id, NULL) ||
        !rp_wmi_guid(rp_cim_get_text(settings, "VirtualSystemIdentifier"), out->vm_id))
        return false;
    out->name = rp_xstrdup(name ? name : "");
    out->type = strstr(type, ":Snapshot:Recovery") ? RP_SNAPSHOT_RECOVERY : RP_SNAPSHOT_PRODUCTION;
    tell_consistency(wmi, out);
    if (rp_cim_get_datetime(settings, "CreationTime", &time) && !time.interval &&
        time.microseconds < INT64_MAX / 1000 && time.microseconds > 0)
        out->time_ns = time.microseconds * 1000;
    return true;
}

int rp_wmi_list_snapshots(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *snapshots,
                          struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    *snapshots = (struct rp_snapshots){0};
    if (rp_wmi_need_vm(wmi, vm_id, &vm, err))
        return -1;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_vm(vm.id);
    if (rp_wmi_associators(wmi, path, "Msvm_SnapshotOfVirtualSystem", "CIM_VirtualSystemSettingData", &found, err))
        return -1;
    snapshots->items = rp_xcalloc(found.count + 1, sizeof *snapshots->items);
    for (size_t i = 0; i < found.count; i++)
        snapshots->count += rp_wmi_read_snapshot(wmi, found.items[i], &snapshots->items[snapshots->count]);
    return 0;
}

// ---- creation -------------------------------------------------------------------------------------------------------

// `name` not NULL: without those that another job of ours has named.
static int ids_of(struct rp_wmi *wmi, const char *vm_id, enum rp_snapshot_type type, const char *name,
                  struct rp_wmi_ids *ids, struct rp_error *err)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    if (rp_wmi_list_snapshots(&wmi->host, vm_id, &list, err))
        return -1;
    for (size_t i = 0; i < list.count; i++) {
        const char *has = list.items[i].name;
        bool other = name && rp_host_is_tag(has) && strcmp(has, name) != 0;
        if (list.items[i].type == type && !other)
            rp_wmi_ids_add(ids, list.items[i].id);
    }
    return 0;
}

static int destroy(struct rp_wmi *wmi, const char *snapshot_id, RP_METHOD_RESULT, bool wait, struct rp_error *err)
{
    RP_AUTO_FREE char *what = rp_xasprintf("remove checkpoint %s", snapshot_id);
    const struct rp_wmi_call call = {.service = RP_WMI_SNAPSHOT, .method = "DestroySnapshot", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedSnapshot",
               rp_cim_reference(rp_wmi_path_instance("Msvm_VirtualSystemSettingData", snapshot_id)));
    return wait ? rp_wmi_run(wmi, &call, in, result, err) : rp_wmi_call(wmi, &call, in, job, result, err);
}

int rp_wmi_snapshot_made(struct rp_wmi *wmi, const char *snapshot_id, const char *name, enum rp_consistency consistency,
                         const char *reason, struct rp_error *err)
{
    struct rp_wmi_made *made = rp_xcalloc(1, sizeof *made);
    char job[RP_HOST_ID], result[RP_HOST_ID];
    struct rp_error local = {0};
    snprintf(made->id, sizeof made->id, "%s", snapshot_id);
    made->consistency = consistency;
    made->reason = reason && *reason ? rp_xstrdup(reason) : NULL;
    made->next = wmi->made;
    wmi->made = made;
    for (int tries = 0; tries < 2; tries++) { // a lost answer is no reason to throw the snapshot away
        rp_error_clear(&local);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object =
            rp_wmi_settings_object(wmi, snapshot_id, &local);
        const char *has = object ? rp_cim_get_text(object, "ElementName") : NULL;
        if (object && (!*name || (has && !strcmp(has, name))))
            return 0;
        if (object && !rp_wmi_rename(&wmi->host, snapshot_id, name, job, result, &local) &&
            !rp_host_wait(&wmi->host, job, result, NULL, NULL, &local))
            return 0;
        if (local.code != RP_ERR_IO)
            break;
    }
    struct rp_error why = {0};
    if (destroy(wmi, snapshot_id, job, result, true, &why))
        rp_context(&local, "checkpoint %s got no name, and stays: %s", snapshot_id, why.text);
    else
        rp_context(&local, "checkpoint %s got no name, and was removed", snapshot_id);
    return rp_fail_as(err, &local);
}

static struct rp_cim_instance *parameters(struct rp_wmi *wmi, const char *vm_id, enum rp_snapshot_type type,
                                          enum rp_consistency consistency, const char *name)
{
    struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedSystem", rp_cim_reference(rp_wmi_path_vm(vm_id)));
    rp_cim_set(in, "SnapshotType", rp_cim_unsigned(RP_CIM_UINT16, type));
    if (type != RP_SNAPSHOT_RECOVERY) // what a user's checkpoint is like is a setting of the VM
        return in;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_cim_instance_new(NULL, "Msvm_VirtualSystemSnapshotSettingData");
    rp_cim_set(settings, "ConsistencyLevel",
               rp_cim_unsigned(RP_CIM_UINT8, consistency ? consistency : RP_CONSISTENCY_CRASH));
    rp_cim_set(settings, "IgnoreNonSnapshottableDisks", rp_cim_boolean(true));
    if (*name) // a name from the beginning, of a host that heeds it (refpoint-hostd does)
        rp_cim_set(settings, "ElementName", rp_cim_string(name));
    rp_cim_set(in, "SnapshotSettings", rp_wmi_embed(wmi, settings));
    return in;
}

// Hyper-V makes one snapshot of a VM at a time: what is new is what we asked for.
int rp_wmi_snapshot_of_job(struct rp_wmi *wmi, const struct rp_wmi_job *job, char result[RP_HOST_ID],
                           struct rp_error *err)
{
    RP_CLEANUP(rp_wmi_ids_clear) struct rp_wmi_ids after = {0};
    const char *one = NULL;
    if (rp_wmi_wait_back(wmi, job->vm_id, err) || ids_of(wmi, job->vm_id, job->type, job->name, &after, err))
        return -1;
    size_t count = rp_wmi_ids_new(&job->before, &after, &one);
    if (!count)
        return rp_fail(err, RP_ERR_NOT_FOUND, "VM %s got no checkpoint", job->vm_id);
    if (count > 1)
        return rp_fail(err, RP_ERR_CORRUPT, "VM %s got %zu checkpoints meanwhile, and which one is ours cannot be told",
                       job->vm_id, count);
    memcpy(result, one, RP_HOST_ID);
    return 0;
}

// The answer to CreateSnapshot was lost.
static int look_for_it(struct rp_wmi *wmi, const void *expected, char result[RP_HOST_ID], struct rp_error *err)
{
    struct rp_error local = {0};
    if (!rp_wmi_snapshot_of_job(wmi, expected, result, &local))
        return 1;
    return local.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &local);
}

static const char *activity_words(enum rp_vm_activity activity)
{
    switch ((unsigned)activity) {
    case 32768: return "a checkpoint is being made";
    case 32769: return "a checkpoint is being applied";
    case 32770: return "a checkpoint is being removed";
    case 32772: return "its disks are being merged";
    case 32773: return "it is being exported";
    case 32774: return "it is being migrated";
    default: return "something else is under way";
    }
}

// From 32782 on it is a state that lasts, of its guest or its network, and no work (VMOperationalStatus).
static bool is_busy(enum rp_vm_activity activity)
{
    return (unsigned)activity >= 32768 && (unsigned)activity < 32782;
}

static void expected_clear(struct rp_wmi_job *expected) { rp_wmi_ids_clear(&expected->before); }

// Keeps with the job what tells its snapshot from others.
static void expect_snapshot(struct rp_wmi_job *job, struct rp_wmi_job *expected)
{
    job->name = rp_xstrdup(expected->name);
    job->consistency = expected->consistency;
    job->type = expected->type;
    memcpy(job->vm_id, expected->vm_id, sizeof job->vm_id);
    job->before = expected->before;
    expected->before = (struct rp_wmi_ids){0};
}

int rp_wmi_create_snapshot(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                           enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    // What a user's is like nobody says; it is no less than a crash's, but may be more.
    const bool known = type == RP_SNAPSHOT_RECOVERY;
    RP_CLEANUP(expected_clear) struct rp_wmi_job expected = {
        .name = (char *)(uintptr_t)name, .consistency = known ? consistency : RP_CONSISTENCY_UNKNOWN, .type = type};
    *job = *result = 0;
    if (type != RP_SNAPSHOT_RECOVERY && consistency == RP_CONSISTENCY_APPLICATION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: over WMI nobody can ask how consistent a checkpoint of a user is: it is a setting "
                       "of the VM", host->address);
    if (rp_wmi_need_vm(wmi, vm_id, &vm, err))
        return -1;
    if (is_busy(vm.activity))
        return rp_fail(err, RP_ERR_BUSY, "%s: VM %s: %s; try again later", host->address, vm.id,
                       activity_words(vm.activity));
    memcpy(expected.vm_id, vm.id, sizeof expected.vm_id);
    if (ids_of(wmi, vm.id, type, NULL, &expected.before, err))
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("checkpoint of VM %s", vm.id);
    const struct rp_wmi_call call = {.service = RP_WMI_SNAPSHOT, .method = "CreateSnapshot", .what = what,
                                     .result = "ResultingSnapshot", .result_class = "Msvm_VirtualSystemSettingData"};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = parameters(wmi, vm.id, type, consistency, name);
    struct rp_error local = {0};
    // lost, or said in a way that tells nothing: there may be a snapshot all the same, and nobody says what it reached
    if (rp_wmi_call(wmi, &call, in, job, result, &local)) {
        const char *why = "the connection was lost when it was asked for: whether the guest was at rest is not known";
        if ((!wmi->lost && local.code != RP_ERR_CORRUPT) ||
            rp_wmi_find_made(wmi, look_for_it, &expected, result, &local))
            return rp_fail_as(err, &local);
        return rp_wmi_snapshot_made(wmi, result, name, known ? RP_CONSISTENCY_CRASH : RP_CONSISTENCY_UNKNOWN,
                                    consistency == RP_CONSISTENCY_APPLICATION ? why : NULL, err);
    }
    if (!*job)
        return rp_wmi_snapshot_made(wmi, result, name, expected.consistency, NULL, err);
    expect_snapshot(rp_wmi_job_find(wmi, job), &expected);
    return 0;
}

// ---- the end of one -------------------------------------------------------------------------------------------------

static struct rp_cim_instance *need_snapshot(struct rp_wmi *wmi, const char *id, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_settings_object(wmi, id, err);
    const char *type = object ? rp_cim_get_text(object, "VirtualSystemType") : NULL;
    if (!object || !type || !strstr(type, ":Snapshot:")) {
        rp_fail(err, RP_ERR_NOT_FOUND, "%s: no checkpoint %.100s", wmi->host.address, id);
        return NULL;
    }
    struct rp_cim_instance *found = object;
    object = NULL;
    return found;
}

int rp_wmi_destroy_snapshot(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                            struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = need_snapshot(wmi, snapshot_id, err);
    return object ? destroy(wmi, rp_cim_get_text(object, "InstanceID"), job, result, false, err) : -1;
}

int rp_wmi_apply_snapshot(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT,
                          struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = need_snapshot(wmi, snapshot_id, err);
    if (!object)
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("apply checkpoint %s", snapshot_id);
    const struct rp_wmi_call call = {.service = RP_WMI_SNAPSHOT, .method = "ApplySnapshot", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "Snapshot", rp_cim_reference(rp_wmi_path_of(object)));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}
