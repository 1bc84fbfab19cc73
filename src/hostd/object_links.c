// All associations (facts/wmi.md 1.5, 1.7, 3.1). Everything but jobs and services hangs on one VM: from any end that VM
// is found first, and its associations only are made.
#include <string.h>
#include <strings.h>

#include "hostd/core.h"
#include "hostd/schema/schema.h"

struct links {
    struct rp_hostd *hostd;
    const struct rp_inventory *inventory;
    const struct rp_cim_class *class;
    const struct rp_cim_path *source; // NULL: all
    struct rp_hostd_owner owner;      // what the source belongs to; all of a VM's settings when `whole`
    bool whole;
    struct rp_cim_sink sink;
};

struct association {
    const char *class_name;
    int (*of_vm)(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err);
    int (*of_host)(struct links *links, struct rp_error *err);
};

// Takes both paths.
static struct rp_cim_instance *join(const struct links *links, const char *one, struct rp_cim_path *first,
                                    const char *other, struct rp_cim_path *second)
{
    struct rp_cim_instance *link = rp_cim_class_instance(links->class);
    rp_cim_set(link, one, rp_cim_reference(first));
    rp_cim_set(link, other, rp_cim_reference(second));
    return link;
}

static int give(struct links *links, struct rp_cim_instance *link, struct rp_error *err)
{
    return links->sink.take(links->sink.context, link, err);
}

static struct rp_cim_path *system_path(const struct links *links, const struct rp_hostd_owner *owner)
{
    return rp_hostd_paths_vm(links->hostd, owner->vm->vm.id, owner->planned);
}

static struct rp_cim_path *settings_path(const struct links *links, const char *id)
{
    return rp_hostd_paths_settings(links->hostd, id);
}

// ---- a VM, its settings, snapshots and points -----------------------------------------------------------------------

static int defines_state(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    return give(links, join(links, "ManagedElement", system_path(links, vm), "SettingData",
                            settings_path(links, vm->vm->vm.id)), err);
}

static int is_current(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    struct rp_cim_instance *link = join(links, "ManagedElement", system_path(links, vm), "SettingData",
                                        settings_path(links, vm->vm->vm.id));
    rp_hostd_object_number(link, links->class, "IsCurrent", 1);
    rp_hostd_object_number(link, links->class, "IsNext", 1);
    return give(links, link, err);
}

static int exports_so(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    char instance[2 * RP_HOST_ID];
    if (vm->planned)
        return 0;
    rp_hostd_paths_instance(vm->vm->vm.id, RP_HOSTD_EXPORT, instance);
    return give(links, join(links, "ManagedElement", system_path(links, vm), "SettingData",
                            rp_hostd_paths_of(links->hostd, "Msvm_VirtualSystemExportSettingData", instance)), err);
}

static int has_snapshots(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    for (size_t i = 0; i < vm->vm->snapshots.count; i++) {
        const struct rp_snapshot *snapshot = &vm->vm->snapshots.items[i];
        if (!snapshot->merging && give(links, join(links, "Antecedent", system_path(links, vm), "Dependent",
                                                   settings_path(links, snapshot->id)), err))
            return -1;
    }
    return 0;
}

// There is one branch here: the last snapshot of all is the one that the VM goes on from.
static int has_most_current(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    size_t i = vm->vm->snapshots.count;
    while (i && vm->vm->snapshots.items[i - 1].merging)
        i--;
    return !i ? 0 : give(links, join(links, "Antecedent", system_path(links, vm), "Dependent",
                                     settings_path(links, vm->vm->snapshots.items[i - 1].id)), err);
}

static int has_parents(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    const char *parent = NULL;
    for (size_t i = 0; i <= vm->vm->snapshots.count; i++) {
        bool last = i == vm->vm->snapshots.count;
        if (!last && vm->vm->snapshots.items[i].merging)
            continue;
        const char *child = last ? vm->vm->vm.id : vm->vm->snapshots.items[i].id;
        if (parent && give(links, join(links, "Antecedent", settings_path(links, parent), "Dependent",
                                       settings_path(links, child)), err))
            return -1;
        parent = child;
    }
    return 0;
}

static int has_points(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    for (size_t i = 0; i < vm->vm->points.count; i++)
        if (give(links, join(links, "Antecedent", system_path(links, vm), "Dependent",
                             rp_hostd_paths_point(links->hostd, vm->vm->vm.id, vm->vm->points.items[i].id)), err))
            return -1;
    return 0;
}

static int has_last_applied(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances extras = {0};
    struct rp_host_connection *host = vm->vm->snapshots.count ? rp_hostd_hosts_borrow(links->hostd, err) : NULL;
    if (!host)
        return vm->vm->snapshots.count ? -1 : 0;
    struct rp_error why = {0};
    int rc = rp_hostd_extras_load(host, vm->vm->vm.id, &extras, &why);
    rp_hostd_hosts_return(links->hostd, host);
    // gone since the inventory was taken, or not to be read: then it is not remembered
    if (rc && why.code != RP_ERR_NOT_FOUND && why.code != RP_ERR_CORRUPT)
        return rp_fail_as(err, &why);
    const char *applied = NULL;
    for (size_t i = 0; !rc && i < extras.count; i++)
        if (!strcmp(extras.items[i]->class_name, "Msvm_LastAppliedSnapshot"))
            applied = rp_cim_get_text(extras.items[i], "Antecedent");
    for (size_t i = 0; applied && i < vm->vm->snapshots.count; i++) {
        const struct rp_snapshot *snapshot = &vm->vm->snapshots.items[i];
        if (!snapshot->merging && !strcasecmp(snapshot->id, applied))
            return give(links, join(links, "Antecedent", settings_path(links, snapshot->id), "Dependent",
                                    system_path(links, vm)), err);
    }
    return 0;
}

static int has_drives(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    for (size_t i = 0; !vm->planned && i < vm->vm->settings.disk_count; i++) {
        char id[RP_HOST_ID];
        struct rp_cim_path *drive = rp_cim_path_new(RP_HOSTD_VIRTUALIZATION, "Msvm_DiskDrive");
        drive->host = rp_xstrdup(links->hostd->machine);
        rp_hostd_object_drive(&vm->vm->settings.disks[i], id);
        rp_cim_path_set(drive, "CreationClassName", "Msvm_DiskDrive");
        rp_cim_path_set(drive, "DeviceID", id);
        rp_cim_path_set(drive, "SystemCreationClassName", "Msvm_ComputerSystem");
        rp_cim_path_set(drive, "SystemName", vm->vm->vm.id);
        if (give(links, join(links, "GroupComponent", system_path(links, vm), "PartComponent", drive), err))
            return -1;
    }
    return 0;
}

struct parts {
    struct links *links;
    const struct rp_hostd_owner *owner;
};

static int give_part(void *context, const char *class_name, const char *instance, struct rp_error *err)
{
    const struct parts *parts = context;
    struct links *links = parts->links;
    return give(links, join(links, "GroupComponent", settings_path(links, rp_hostd_settings_id(parts->owner)),
                            "PartComponent", rp_hostd_paths_of(links->hostd, class_name, instance)), err);
}

static int has_parts(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    struct rp_hostd_owner owner = links->whole ? *vm : links->owner;
    struct parts parts = {links, &owner};
    if (rp_hostd_settings_parts(links->hostd, &owner, give_part, &parts, err))
        return -1;
    for (size_t i = 0; links->whole && i < vm->vm->snapshots.count; i++) {
        owner.snapshot = &vm->vm->snapshots.items[i];
        if (!owner.snapshot->merging && rp_hostd_settings_parts(links->hostd, &owner, give_part, &parts, err))
            return -1;
    }
    return 0;
}

// ---- the host and its services --------------------------------------------------------------------------------------

static struct rp_cim_path *service_path(const struct links *links, const char *class_name)
{
    const struct rp_cim_class *class = rp_cim_schema_class(links->hostd->virtualization.schema, class_name);
    const struct rp_cim_declaration *name = rp_cim_class_property(class, "Name");
    struct rp_cim_path *path = rp_cim_path_new(RP_HOSTD_VIRTUALIZATION, class->name);
    path->host = rp_xstrdup(links->hostd->machine);
    rp_cim_path_set(path, "SystemCreationClassName", "Msvm_ComputerSystem");
    rp_cim_path_set(path, "SystemName", links->hostd->machine);
    rp_cim_path_set(path, "CreationClassName", class->name);
    rp_cim_path_set(path, "Name", name->value.one.text);
    return path;
}

static int hosts_services(struct links *links, struct rp_error *err)
{
    for (const struct rp_hostd_objects *o = rp_hostd_service_objects; o->class_name; o++) {
        const struct rp_cim_class *class = rp_cim_schema_class(links->hostd->virtualization.schema, o->class_name);
        if (rp_cim_class_is_named(class, "CIM_Service") &&
            give(links, join(links, "Antecedent", rp_hostd_paths_vm(links->hostd, links->hostd->machine, false),
                             "Dependent", service_path(links, o->class_name)), err))
            return -1;
    }
    return 0;
}

static int has_service_settings(struct links *links, struct rp_error *err)
{
    RP_AUTO_FREE char *id = rp_xasprintf("Microsoft:%s", links->hostd->machine);
    struct rp_cim_instance *link =
        join(links, "ManagedElement", service_path(links, "Msvm_VirtualSystemManagementService"), "SettingData",
             rp_hostd_paths_of(links->hostd, "Msvm_VirtualSystemManagementServiceSettingData", id));
    rp_hostd_object_number(link, links->class, "IsCurrent", 1);
    return give(links, link, err);
}

static int affects(struct links *links, const struct rp_hostd_owner *vm, struct rp_error *err)
{
    return give(links, join(links, "AffectedElement", system_path(links, vm), "AffectingElement",
                            service_path(links, "Msvm_VirtualSystemManagementService")), err);
}

static int has_processor(struct links *links, struct rp_error *err)
{
    struct rp_cim_path *system = rp_cim_path_new(RP_HOSTD_CIMV2, "Win32_ComputerSystem");
    struct rp_cim_path *processor = rp_cim_path_new(RP_HOSTD_CIMV2, "Win32_Processor");
    system->host = rp_xstrdup(links->hostd->machine);
    processor->host = rp_xstrdup(links->hostd->machine);
    rp_cim_path_set(system, "Name", links->hostd->machine);
    rp_cim_path_set(processor, "DeviceID", "CPU0");
    return give(links, join(links, "GroupComponent", system, "PartComponent", processor), err);
}

// ---- jobs -----------------------------------------------------------------------------------------------------------

static bool is_job(const struct rp_cim_path *path)
{
    return !strcasecmp(path->class_name, "Msvm_ConcreteJob") || !strcasecmp(path->class_name, "Msvm_StorageJob") ||
           !strcasecmp(path->class_name, "Msvm_VirtualSystemReferencePointExportJob");
}

// Devices are part of a system too.
static bool is_service(const struct rp_cim_path *source)
{
    return source && rp_cim_path_get(source, "SystemCreationClassName") && !rp_cim_path_get(source, "DeviceID");
}

static struct rp_cim_path *result_path(const struct rp_hostd *hostd, const struct rp_hostd_job_view *job)
{
    switch (job->result[0] && !job->makes_gone ? job->kind : RP_HOSTD_NOTHING) {
    case RP_HOSTD_VM: return rp_hostd_paths_vm(hostd, job->result, false);
    case RP_HOSTD_PLANNED: return rp_hostd_paths_vm(hostd, job->result, true);
    case RP_HOSTD_SNAPSHOT: return rp_hostd_paths_settings(hostd, job->result);
    case RP_HOSTD_POINT: return rp_hostd_paths_point(hostd, job->vm_id, job->result);
    case RP_HOSTD_DISK: return rp_hostd_paths_disk(hostd, job->result);
    case RP_HOSTD_NOTHING: case RP_HOSTD_STATE: case RP_HOSTD_FILE: break;
    }
    return NULL;
}

// Whether the source can be what the job made: saves most of the work when there are many jobs.
static bool may_be(const struct rp_cim_path *source, const char *result)
{
    const char *key = rp_cim_path_get(source, "InstanceID");
    key = key ? key : rp_cim_path_get(source, "Name");
    return key && !strcasecmp(rp_hostd_paths_bare(key), rp_hostd_paths_bare(result));
}

static int give_affected(void *context, const struct rp_hostd_job_view *job, struct rp_error *err)
{
    struct links *links = context;
    bool storage = !strcmp(job->class_name, "Msvm_StorageJob");
    if (storage != !strcmp(links->class->name, "Msvm_AffectedStorageJobElement") ||
        (links->source && !is_job(links->source) && !may_be(links->source, job->result)))
        return 0;
    struct rp_cim_path *result = result_path(links->hostd, job);
    if (!result)
        return 0;
    struct rp_cim_instance *link = join(links, "AffectedElement", result, "AffectingElement",
                                        rp_hostd_paths_job(links->hostd, job->class_name, job->id));
    rp_hostd_object_add(link, links->class, "ElementEffects", rp_cim_unsigned(RP_CIM_UINT16, 5)); // create
    return give(links, link, err);
}

static const char *service_of(const struct rp_hostd_job_view *job)
{
    if (!strcmp(job->class_name, "Msvm_StorageJob"))
        return "Msvm_ImageManagementService";
    if ((job->type >= 70 && job->type <= 72) || job->type == 170 || job->type == 200)
        return "Msvm_VirtualSystemSnapshotService";
    return job->type >= 201 && job->type <= 203 ? "Msvm_VirtualSystemReferencePointService"
                                                : "Msvm_VirtualSystemManagementService";
}

static int give_owning(void *context, const struct rp_hostd_job_view *job, struct rp_error *err)
{
    struct links *links = context;
    return give(links, join(links, "OwningElement", service_path(links, service_of(job)), "OwnedElement",
                            rp_hostd_paths_job(links->hostd, job->class_name, job->id)), err);
}

static int affected_by_jobs(struct links *links, struct rp_error *err)
{
    bool job = links->source && is_job(links->source);
    const char *id = job ? rp_cim_path_get(links->source, "InstanceID") : NULL;
    return job && !id ? 0 : rp_hostd_jobs_each(links->hostd, id, give_affected, links, err);
}

static int own_jobs(struct links *links, struct rp_error *err)
{
    bool job = links->source && is_job(links->source);
    const char *id = job ? rp_cim_path_get(links->source, "InstanceID") : NULL;
    bool service = is_service(links->source);
    return links->source && !id && !service ? 0 : rp_hostd_jobs_each(links->hostd, id, give_owning, links, err);
}

// ---- which ----------------------------------------------------------------------------------------------------------

static const struct association associations[] = {
    {"Msvm_SettingsDefineState", defines_state, NULL},
    {"Msvm_ElementSettingData", is_current, has_service_settings},
    {"Msvm_SystemExportSettingData", exports_so, NULL},
    {"Msvm_SnapshotOfVirtualSystem", has_snapshots, NULL},
    {"Msvm_LastAppliedSnapshot", has_last_applied, NULL},
    {"Msvm_MostCurrentSnapshotInBranch", has_most_current, NULL},
    {"Msvm_ParentChildSettingData", has_parents, NULL},
    {"Msvm_ReferencePointOfVirtualSystem", has_points, NULL},
    {"Msvm_VirtualSystemSettingDataComponent", has_parts, NULL},
    {"Msvm_SystemDevice", has_drives, NULL},
    {"Msvm_ServiceAffectsElement", affects, NULL},
    {"Msvm_HostedService", NULL, hosts_services},
    {"Msvm_AffectedJobElement", NULL, affected_by_jobs},
    {"Msvm_AffectedStorageJobElement", NULL, affected_by_jobs},
    {"Msvm_OwningJobElement", NULL, own_jobs},
    {"Win32_ComputerSystemProcessor", NULL, has_processor},
};

// The VM that a source is or belongs to.
static bool find_owner(struct links *links)
{
    const struct rp_cim_path *source = links->source;
    const char *name = rp_cim_path_get(source, rp_cim_path_get(source, "DeviceID") ? "SystemName" : "Name");
    const char *instance = rp_cim_path_get(source, "InstanceID");
    struct rp_hostd_owner *owner = &links->owner;
    if (instance && rp_hostd_settings_owner(links->inventory, instance, owner))
        return true;
    *owner = (struct rp_hostd_owner){0};
    if (instance)
        return rp_hostd_hosts_point(links->inventory, instance, &owner->vm);
    owner->vm = name ? rp_hostd_hosts_vm(links->inventory, name, &owner->planned) : NULL;
    return owner->vm;
}

static int of_all(struct links *links, const struct association *association, const struct rp_inventory *inventory,
                  bool planned, struct rp_error *err)
{
    for (size_t i = 0; i < inventory->count; i++) {
        struct rp_hostd_owner owner = {.vm = &inventory->items[i], .planned = planned};
        if (association->of_vm(links, &owner, err))
            return -1;
    }
    return 0;
}

static int of_vms(struct links *links, const struct association *association, struct rp_error *err)
{
    // A service affects all VMs, its other associations end elsewhere.
    bool service = is_service(links->source);
    links->whole = !links->source || service;
    if (service && association->of_vm != affects)
        return 0;
    if (!links->whole) {
        struct rp_hostd_owner vm = {0};
        if (!find_owner(links))
            return 0;
        vm.vm = links->owner.vm;
        vm.planned = links->owner.planned;
        return association->of_vm(links, &vm, err);
    }
    return of_all(links, association, links->inventory, false, err) ||
                   of_all(links, association, rp_hostd_hosts_planned(links->inventory), true, err) ? -1 : 0;
}

int rp_hostd_links_each(struct rp_hostd *hostd, const struct rp_cim_class *class, const struct rp_cim_path *source,
                        struct rp_cim_sink sink, struct rp_error *err)
{
    struct links links = {.hostd = hostd, .class = class, .source = source, .sink = sink};
    const struct association *association = NULL;
    for (size_t i = 0; i < sizeof associations / sizeof *associations; i++)
        if (!strcmp(associations[i].class_name, class->name))
            association = &associations[i];
    if (!association || (association->of_host && association->of_host(&links, err)))
        return association ? -1 : 0;
    if (!association->of_vm)
        return 0;
    links.inventory = rp_hostd_hosts_inventory(hostd, err);
    if (!links.inventory)
        return -1;
    int rc = of_vms(&links, association, err);
    rp_hostd_hosts_release(hostd, links.inventory);
    return rc;
}
