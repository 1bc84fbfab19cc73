// Reference points: ConvertToReferencePoint, CreateReferencePoint, DestroyReferencePoint (facts/wmi.md 1.2, 1.4).
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hyperv/wmi_internal.h"

#define POINT "Msvm_VirtualSystemReferencePoint"
enum { RCT_BASED = 2 }; // ReferencePointType (facts 1.3: what the documentation says of the parameter is wrong)

struct rp_cim_instance *rp_wmi_point_object(struct rp_wmi *wmi, const char *point_id, struct rp_error *err)
{
    struct rp_error local = {0};
    struct rp_cim_instance *object =
        rp_wmi_one_with_path(wmi, POINT, "InstanceID", point_id, "reference point", &local);
    if (!object && local.code != RP_ERR_NOT_FOUND) // a host that gives no references beside the objects of a query
        object = rp_wmi_one(wmi, POINT, "InstanceID", point_id, "reference point", err);
    else if (!object)
        rp_fail_as(err, &local);
    if (object && !object->path) {
        object->path = rp_wmi_path_of(object);
        const char *vm_id = rp_cim_get_text(object, "VirtualSystemIdentifier");
        if (vm_id)
            rp_cim_path_set(object->path, "VirtualSystemIdentifier", vm_id);
    }
    return object;
}

int rp_wmi_read_point(const struct rp_cim_instance *object, struct rp_reference_point *out, struct rp_error *err)
{
    const char *name = rp_cim_get_text(object, "ElementName");
    struct rp_cim_datetime time = {0};
    *out = (struct rp_reference_point){0};
    if (rp_wmi_copy_id(rp_cim_get_text(object, "InstanceID"), "reference point", out->id, err))
        return -1;
    rp_wmi_guid(rp_cim_get_text(object, "VirtualSystemIdentifier"), out->vm_id);
    out->name = rp_xstrdup(name ? name : "");
    if (rp_cim_get_datetime(object, "CreationTime", &time) && !time.interval &&
        time.microseconds > 0 && time.microseconds < INT64_MAX / 1000)
        out->time_ns = time.microseconds * 1000; // where there is one
    size_t count = rp_cim_get_count(object, "VirtualDiskIdentifiers");
    // The arrays are parallel. When they are not, nobody knows which id is whose, and all disks are read in full.
    bool parallel = rp_cim_get_count(object, "ResilientChangeTrackingIdentifiers") == count;
    out->disks = rp_xcalloc(count + 1, sizeof *out->disks);
    for (size_t i = 0; i < count; i++) {
        struct rp_reference_disk *disk = &out->disks[out->disk_count];
        const char *instance = rp_cim_get_text_at(object, "VirtualDiskIdentifiers", i);
        const char *rct = parallel ? rp_cim_get_text_at(object, "ResilientChangeTrackingIdentifiers", i) : NULL;
        char id[RP_HOST_ID];
        if (rp_wmi_copy_id(instance, "disk", id, err)) {
            rp_reference_point_clear(out);
            return -1;
        }
        rp_wmi_instance_of_vm(id, out->vm_id, disk->instance);
        if (rct && strlen(rct) < sizeof disk->rct_id)
            strcpy(disk->rct_id, rct);
        out->disk_count++;
    }
    return 0;
}

// Reference points do not say which disk it was but by its place: what is there now, if it is there, tells its
// identity.
static int add_disk_ids(struct rp_wmi *wmi, const char *vm_id, struct rp_reference_points *points, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_settings_object(wmi, vm_id, err);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances parts = {0};
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    if (!object || rp_wmi_settings_parts(wmi, object, &parts, err) || rp_wmi_disks(&parts, vm_id, &settings, err))
        return -1;
    for (size_t k = 0; k < settings.disk_count; k++) {
        struct rp_wmi_disk_facts facts = {.disk_id = settings.disks[k].disk_id};
        struct rp_error local = {0};
        if (rp_guid_is_zero(&facts.disk_id) && rp_wmi_disk_facts(wmi, settings.disks[k].path, &facts, &local)) {
            if (local.code != RP_ERR_NOT_FOUND)
                return rp_fail_as(err, &local);
            continue;
        }
        for (size_t i = 0; i < points->count; i++)
            for (size_t d = 0; d < points->items[i].disk_count; d++)
                if (!strcasecmp(points->items[i].disks[d].instance, settings.disks[k].instance))
                    points->items[i].disks[d].disk_id = facts.disk_id;
    }
    return 0;
}

void rp_wmi_point_made(struct rp_wmi *wmi, const char *point_id, const char *name)
{
    struct rp_wmi_made *made = rp_xcalloc(1, sizeof *made);
    snprintf(made->id, sizeof made->id, "%s", point_id);
    made->name = rp_xstrdup(name);
    made->next = wmi->made;
    wmi->made = made;
}

// Hyper-V does not keep a snapshot's name for the reference point that it becomes; we know those that we made.
static void add_name(const struct rp_wmi *wmi, struct rp_reference_point *point)
{
    for (const struct rp_wmi_made *made = wmi->made; made; made = made->next)
        if (made->name && !strcasecmp(made->id, point->id)) {
            free(point->name);
            point->name = rp_xstrdup(made->name);
            return;
        }
}

static int read_points(struct rp_wmi *wmi, const char *vm_id, struct rp_reference_points *points, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_vm(vm_id);
    *points = (struct rp_reference_points){0};
    if (rp_wmi_associators(wmi, path, "Msvm_ReferencePointOfVirtualSystem", POINT, &found, err))
        return -1;
    points->items = rp_xcalloc(found.count + 1, sizeof *points->items);
    for (size_t i = 0; i < found.count; i++) {
        if (rp_wmi_read_point(found.items[i], &points->items[points->count], err)) {
            rp_reference_points_clear(points);
            return -1;
        }
        add_name(wmi, &points->items[points->count++]);
    }
    return 0;
}

int rp_wmi_list_points(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points,
                       struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    *points = (struct rp_reference_points){0};
    if (rp_wmi_need_vm(wmi, vm_id, &vm, err) || read_points(wmi, vm.id, points, err))
        return -1;
    if (!points->count || !add_disk_ids(wmi, vm.id, points, err))
        return 0;
    rp_reference_points_clear(points);
    return -1;
}

static int ids_of(struct rp_wmi *wmi, const char *vm_id, struct rp_wmi_ids *ids, struct rp_error *err)
{
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    if (read_points(wmi, vm_id, &points, err))
        return -1;
    for (size_t i = 0; i < points.count; i++)
        rp_wmi_ids_add(ids, points.items[i].id);
    return 0;
}

// A reference point that is to be made: of which VM, which had these, and from which snapshot (NULL: none).
struct wanted {
    const char *vm_id, *snapshot_id;
    struct rp_wmi_ids before;
};
static void wanted_clear(struct wanted *wanted) { rp_wmi_ids_clear(&wanted->before); }

// 1: a snapshot is there, 0: it is not.
static int is_there(struct rp_wmi *wmi, const char *snapshot_id, struct rp_error *err)
{
    struct rp_error local = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object =
        rp_wmi_settings_object(wmi, snapshot_id, &local);
    return object || local.code == RP_ERR_NOT_FOUND ? object != NULL : rp_fail_as(err, &local);
}

// The answer to a call that makes a reference point was lost: it was made, if there is one that was not there before.
// One from a snapshot that is still there is another program's. 1: it is there, 0: not (yet).
static int look_for_it(struct rp_wmi *wmi, const void *context, char result[RP_HOST_ID], struct rp_error *err)
{
    const struct wanted *wanted = context;
    RP_CLEANUP(rp_wmi_ids_clear) struct rp_wmi_ids after = {0};
    const char *one = NULL;
    if (rp_wmi_wait_back(wmi, wanted->vm_id, err))
        return -1;
    int left = wanted->snapshot_id ? is_there(wmi, wanted->snapshot_id, err) : 0;
    if (left)
        return left < 0 ? -1 : 0;
    if (ids_of(wmi, wanted->vm_id, &after, err))
        return -1;
    size_t count = rp_wmi_ids_new(&wanted->before, &after, &one);
    if (count > 1)
        return rp_fail(err, RP_ERR_CORRUPT,
                       "VM %s got %zu reference points meanwhile, and which one is ours cannot be told", wanted->vm_id,
                       count);
    if (count)
        memcpy(result, one, RP_HOST_ID);
    return count != 0;
}

int rp_wmi_point_of_job(struct rp_wmi *wmi, const struct rp_wmi_job *job, char result[RP_HOST_ID], struct rp_error *err)
{
    const struct wanted wanted = {job->vm_id, *job->snapshot_id ? job->snapshot_id : NULL, job->before};
    int found = look_for_it(wmi, &wanted, result, err);
    return found ? (found < 0 ? -1 : 0) : rp_fail(err, RP_ERR_NOT_FOUND, "VM %s got no reference point", job->vm_id);
}

// Keeps with the job what tells its reference point from others.
static void expect_point(struct rp_wmi_job *job, struct wanted *wanted)
{
    job->makes_point = true;
    snprintf(job->vm_id, sizeof job->vm_id, "%s", wanted->vm_id);
    snprintf(job->snapshot_id, sizeof job->snapshot_id, "%s", wanted->snapshot_id ? wanted->snapshot_id : "");
    job->before = wanted->before;
    wanted->before = (struct rp_wmi_ids){0};
}

static int make(struct rp_wmi *wmi, const struct rp_wmi_call *call, const struct rp_cim_instance *in, const char *vm_id,
                const char *snapshot_id, RP_METHOD_RESULT, struct rp_error *err)
{
    RP_CLEANUP(wanted_clear) struct wanted wanted = {vm_id, snapshot_id, {0}};
    struct rp_error local = {0};
    if (ids_of(wmi, vm_id, &wanted.before, err))
        return -1;
    if (rp_wmi_call(wmi, call, in, job, result, &local) &&
        ((!wmi->lost && local.code != RP_ERR_CORRUPT) || rp_wmi_find_made(wmi, look_for_it, &wanted, result, &local)))
        return rp_fail_as(err, &local);
    if (*job)
        expect_point(rp_wmi_job_find(wmi, job), &wanted);
    // A method without such an out parameter.
    if (!*job && !*result && rp_wmi_find_made(wmi, look_for_it, &wanted, result, &local))
        return rp_fail(err, RP_ERR_CORRUPT, "%s: done, but there is no new reference point", call->what);
    return 0;
}

static void snapshot_clear(struct rp_snapshot *snapshot)
{
    free(snapshot->name);
    free(snapshot->consistency_reason);
}

int rp_wmi_convert(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_CLEANUP(snapshot_clear) struct rp_snapshot snapshot = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_settings_object(wmi, snapshot_id, err);
    if (!object)
        return -1;
    if (!rp_wmi_read_snapshot(wmi, object, &snapshot))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no checkpoint %.100s", host->address, snapshot_id);
    if (snapshot.type != RP_SNAPSHOT_RECOVERY)
        return rp_fail(err, RP_ERR_STATE,
                       "%s: checkpoint %s is not one for backup, and cannot become a reference point", host->address,
                       snapshot_id);
    RP_AUTO_FREE char *what = rp_xasprintf("reference point from checkpoint %s", snapshot_id);
    const struct rp_wmi_call call = {.service = RP_WMI_SNAPSHOT, .method = "ConvertToReferencePoint", .what = what,
                                     .result = "ResultingReferencePoint", .result_class = POINT};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedSnapshot", rp_cim_reference(rp_wmi_path_of(object)));
    rp_cim_set(in, "ReferencePointSettings", rp_cim_string(""));
    if (make(wmi, &call, in, snapshot.vm_id, snapshot.id, job, result, err))
        return -1;
    if (*job)
        rp_wmi_job_find(wmi, job)->point_name = rp_xstrdup(snapshot.name);
    else
        rp_wmi_point_made(wmi, result, snapshot.name);
    return 0;
}

int rp_wmi_create_point(struct rp_host_connection *host, const char *vm_id, enum rp_consistency consistency,
                        const char *name, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    *job = *result = 0;
    if (rp_wmi_need_vm(wmi, vm_id, &vm, err))
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("reference point of VM %s", vm.id);
    const struct rp_wmi_call call = {.service = RP_WMI_POINT, .method = "CreateReferencePoint", .what = what,
                                     .result = "ResultingReferencePoint", .result_class = POINT};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_cim_instance_new(NULL, "Msvm_VirtualSystemReferencePointSettingData");
    rp_cim_set(settings, "ConsistencyLevel",
               rp_cim_unsigned(RP_CIM_UINT8, consistency ? consistency : RP_CONSISTENCY_CRASH));
    if (*name)
        rp_cim_set(settings, "ElementName", rp_cim_string(name)); // what every setting has; refpoint-hostd heeds it
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedSystem", rp_cim_reference(rp_wmi_path_vm(vm.id)));
    rp_cim_set(in, "ReferencePointSettings", rp_wmi_embed(wmi, settings));
    rp_cim_set(in, "ReferencePointType", rp_cim_unsigned(RP_CIM_UINT16, RCT_BASED));
    return make(wmi, &call, in, vm.id, NULL, job, result, err);
}

int rp_wmi_destroy_point(struct rp_host_connection *host, const char *point_id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_point_object(wmi, point_id, err);
    if (!object)
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("remove reference point %s", point_id);
    const struct rp_wmi_call call = {.service = RP_WMI_POINT, .method = "DestroyReferencePoint", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedReferencePoint", rp_cim_reference(rp_cim_path_copy(object->path)));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

int rp_wmi_import_point(struct rp_host_connection *host, const char *vm_id, const char *definition_file,
                        RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    *job = *result = 0;
    if (rp_wmi_need_vm(wmi, vm_id, &vm, err))
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("reference point of VM %s from %s", vm.id, definition_file);
    const struct rp_wmi_call call = {.service = RP_WMI_POINT, .method = "ImportReferencePointMetadata", .what = what,
                                     .result_class = POINT};
    size_t stem = strlen(definition_file);
    if (stem > 5 && !strcasecmp(definition_file + stem - 5, ".vmcx"))
        stem -= 5;
    RP_AUTO_FREE char *runtime = rp_xasprintf("%.*s.vmrs", (int)stem, definition_file); // beside it (facts 1.2)
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedSystem", rp_cim_reference(rp_wmi_path_vm(vm.id)));
    rp_cim_set(in, "ConfigFilePath", rp_cim_string(definition_file));
    rp_cim_set(in, "RuntimeStateFilePath", rp_cim_string(runtime));
    return make(wmi, &call, in, vm.id, NULL, job, result, err);
}
