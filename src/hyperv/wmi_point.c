// Reference points: ConvertToReferencePoint, CreateReferencePoint, DestroyReferencePoint (facts/wmi.md 1.2, 1.4).
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
    if (!object && (local.code == RP_ERR_UNSUPPORTED || local.code == RP_ERR_INVALID)) // no references with a query
        object = rp_wmi_one(wmi, POINT, "InstanceID", point_id, "reference point", err);
    else if (!object)
        rp_fail(err, local.code, "%s", local.text);
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
    if (rp_cim_get_datetime(object, "CreationTime", &time) && time.microseconds < INT64_MAX / 1000 && !time.interval)
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
                return rp_fail(err, local.code, "%s", local.text);
            continue;
        }
        for (size_t i = 0; i < points->count; i++)
            for (size_t d = 0; d < points->items[i].disk_count; d++)
                if (!strcasecmp(points->items[i].disks[d].instance, settings.disks[k].instance))
                    points->items[i].disks[d].disk_id = facts.disk_id;
    }
    return 0;
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
        points->count++;
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

// The answer to a call that makes a reference point was lost: it was made, if there is one that was not there before.
static int find_made(struct rp_wmi *wmi, const char *vm_id, const struct rp_wmi_ids *before, char result[RP_HOST_ID],
                     struct rp_error *err)
{
    RP_CLEANUP(rp_wmi_ids_clear) struct rp_wmi_ids after = {0};
    const char *one = NULL;
    struct rp_error local = {0};
    if (rp_wmi_wait_back(wmi, vm_id, &local) || ids_of(wmi, vm_id, &after, &local))
        return rp_context(err, "%s; and then", local.text);
    size_t count = rp_wmi_ids_new(before, &after, &one);
    if (count > 1)
        rp_context(err, "VM %s got %zu reference points meanwhile, and which one is ours cannot be told", vm_id, count);
    if (count != 1)
        return -1;
    memcpy(result, one, RP_HOST_ID);
    return 0;
}

static int make(struct rp_wmi *wmi, const struct rp_wmi_call *call, const struct rp_cim_instance *in, const char *vm_id,
                RP_METHOD_RESULT, struct rp_error *err)
{
    RP_CLEANUP(rp_wmi_ids_clear) struct rp_wmi_ids before = {0};
    struct rp_error local = {0};
    if (ids_of(wmi, vm_id, &before, err))
        return -1;
    if (rp_wmi_call(wmi, call, in, job, result, &local) &&
        (!wmi->lost || find_made(wmi, vm_id, &before, result, &local)))
        return rp_fail(err, local.code, "%s", local.text);
    if (!*job && !*result && find_made(wmi, vm_id, &before, result, err)) // a method without such an out parameter
        return rp_fail(err, RP_ERR_CORRUPT, "%s: done, but there is no new reference point", call->what);
    return 0;
}

int rp_wmi_convert(struct rp_host_connection *host, const char *snapshot_id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    struct rp_snapshot snapshot = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_settings_object(wmi, snapshot_id, err);
    if (!object)
        return -1;
    if (!rp_wmi_read_snapshot(wmi, object, &snapshot))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no checkpoint %.100s", host->address, snapshot_id);
    free(snapshot.name);
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
    return make(wmi, &call, in, snapshot.vm_id, job, result, err);
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
    return make(wmi, &call, in, vm.id, job, result, err);
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
    return make(wmi, &call, in, vm.id, job, result, err);
}
