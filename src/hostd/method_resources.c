// What resources of a VM are to this host: disks, which it has; controllers and drives, which come with them; and
// everything else (processors, memory, adapters, media, integration components, security, …), which it only keeps, so
// that settings saved from a real VM can be defined here and are whole when they go back.
#include <string.h>
#include <strings.h>

#include "hostd/method.h"

enum { TYPE_IDE = 5, TYPE_SCSI = 6, TYPE_DRIVE = 17, TYPE_DISK = 31 }; // ResourceType (facts 1.3)

#define RESOURCE "CIM_ResourceAllocationSettingData"

static bool is(const struct rp_cim_instance *settings, const char *class_name)
{
    return !strcasecmp(settings->class_name, class_name);
}

// An image in a DVD drive is of ResourceType 31 too (facts 1.4 A).
static bool is_disk(const struct rp_cim_instance *settings, uint64_t type)
{
    const char *sub_type = rp_cim_get_text(settings, "ResourceSubType");
    return is(settings, "Msvm_StorageAllocationSettingData") && (type == TYPE_DISK || type == 0) &&
           (!sub_type || !*sub_type || !strcasecmp(sub_type, "Microsoft:Hyper-V:Virtual Hard Disk"));
}

static int kind_of(const struct rp_hostd_call *call, const struct rp_cim_instance *settings, enum rp_method_kind *kind,
                   struct rp_error *err)
{
    const struct rp_cim_class *class = rp_cim_schema_class(call->hostd->virtualization.schema, settings->class_name);
    uint64_t type = rp_cim_get_unsigned(settings, "ResourceType", 0);
    if (class && !rp_cim_class_is_named(class, RESOURCE) && !is(settings, "Msvm_SecuritySettingData"))
        return rp_fail(err, RP_ERR_INVALID, "ResourceSettings: an instance of %s is no resource", class->name);
    if (class && class->abstract)
        return rp_fail(err, RP_ERR_INVALID, "ResourceSettings: %s has no instances", class->name);
    bool comes_with_disks = type == TYPE_IDE || type == TYPE_SCSI || type == TYPE_DRIVE;
    *kind = RP_METHOD_KEPT;
    if (is_disk(settings, type))
        *kind = RP_METHOD_DISK;
    else if (is(settings, "Msvm_ProcessorSettingData"))
        *kind = RP_METHOD_PROCESSOR;
    else if (is(settings, "Msvm_MemorySettingData"))
        *kind = RP_METHOD_MEMORY;
    else if (is(settings, "Msvm_ResourceAllocationSettingData") && comes_with_disks)
        *kind = RP_METHOD_IMPLIED;
    return 0;
}

struct rp_cim_instance *rp_method_resource(const struct rp_hostd_call *call, size_t i, enum rp_method_kind *kind,
                                           struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_method_embedded_at(call, "ResourceSettings", i, "CIM_SettingData", err);
    if (!settings || kind_of(call, settings, kind, err))
        return NULL;
    struct rp_cim_instance *result = settings;
    settings = NULL;
    return result;
}

char *rp_method_resource_file(const struct rp_hostd_call *call, const struct rp_cim_instance *settings,
                              struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    if (rp_method_file_free(call, rp_cim_get_text_at(settings, "HostResource", 0), "HostResource", &file, err) ||
        rp_method_file_parents(call, file.path, "HostResource", err))
        return NULL;
    char *path = file.path;
    file.path = NULL;
    return path;
}

// ---- what is kept ---------------------------------------------------------------------------------------------------

// What follows the GUID in an InstanceID "Microsoft:<GUID>\…"; NULL: nothing that could stand in another.
static const char *suffix_in(const char *id)
{
    const char *rest = id && strlen(id) < RP_HOST_ID ? strchr(id, '\\') : NULL;
    if (!rest || !rest[1] || !strncasecmp(id, "Microsoft:Definition", strlen("Microsoft:Definition")))
        return NULL;
    for (const char *c = rest; *c; c++)
        if (*c <= ' ' || *c > '~' || strchr("\"'<>&", *c))
            return NULL;
    return rest;
}

// The GUID in front of what a resource hangs on is that of the settings in which it is shown: it is left out, and put
// in when it is shown (object_settings.c).
static void keep_parent(struct rp_cim_instance *kept, const char *text)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = text ? rp_cim_path_parse(text, NULL) : NULL;
    const char *suffix = path ? suffix_in(rp_cim_path_get(path, "InstanceID")) : NULL;
    if (!suffix)
        return;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *own = rp_cim_path_new(NULL, path->class_name);
    RP_CLEANUP(rp_buf_clear) struct rp_buf relative = {0};
    rp_cim_path_set(own, "InstanceID", suffix);
    rp_cim_path_format_relative(own, &relative);
    rp_cim_set(kept, "Parent", rp_cim_string(rp_buf_text(&relative)));
}

static bool is_listed(const char *name, const char *const *names)
{
    while (*names && strcasecmp(*names, name))
        names++;
    return *names;
}

static bool is_left_out(const struct rp_cim_instance *settings, bool system, const char *name)
{
    static const char *const of_systems[] = {
        "InstanceID", "ElementName", "Caption", "Description", "VirtualSystemIdentifier", "VirtualSystemType",
        "CreationTime", "ConfigurationID", "ConfigurationDataRoot", "ConfigurationFile", "SnapshotDataRoot",
        "SuspendDataRoot", "SwapFileDataRoot", "LogDataRoot", "RecoveryFile", "GuestStateFile", "GuestStateDataRoot",
        "Parent", "IsSaved", "IsAutomaticSnapshot", "IncrementalBackupEnabled", NULL};
    static const char *const of_resources[] = {"InstanceID", "Parent", NULL};
    // Pools and switches of the host that the settings come from: here they are nothing.
    static const char *const allocated[] = {"Msvm_ProcessorSettingData", "Msvm_MemorySettingData",
                                            "Msvm_EthernetPortAllocationSettingData", NULL};
    if (is_listed(name, system ? of_systems : of_resources) || !strncmp(name, "__", 2))
        return true;
    return !strcasecmp(name, "HostResource") && is_listed(settings->class_name, allocated);
}

void rp_method_resources_keep(struct rp_cim_instances *extras, const char *suffix,
                              const struct rp_cim_instance *settings)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *kept = rp_cim_instance_new(NULL, settings->class_name);
    for (size_t i = 0; i < settings->count; i++) {
        const struct rp_cim_property *property = &settings->properties[i];
        if (!is_left_out(settings, !*suffix, property->name) && !rp_cim_value_is_null(&property->value))
            rp_cim_set(kept, property->name, rp_cim_value_copy(&property->value));
    }
    if (*suffix)
        keep_parent(kept, rp_cim_get_text(settings, "Parent"));
    rp_hostd_extras_merge(extras, suffix, kept);
}

// As it was in the VM that the settings come from; a new one when that says nothing.
static char *suffix_of(enum rp_method_kind kind, const struct rp_cim_instance *settings)
{
    if (kind == RP_METHOD_PROCESSOR || kind == RP_METHOD_MEMORY)
        return rp_xstrdup(kind == RP_METHOD_PROCESSOR ? RP_HOSTD_PROCESSOR : RP_HOSTD_MEMORY);
    const char *rest = suffix_in(rp_cim_get_text(settings, "InstanceID"));
    RP_AUTO_FREE char *guid = rest ? NULL : rp_hostd_jobs_plan();
    return rest ? rp_xstrdup(rest) : rp_xasprintf("\\%s", guid);
}

int rp_method_resources_sort(const struct rp_hostd_call *call, bool planned, struct rp_method_task *disks,
                             struct rp_cim_instances *extras, struct rp_error *err)
{
    for (size_t i = 0; i < rp_cim_get_count(call->in, "ResourceSettings"); i++) {
        enum rp_method_kind kind;
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
            rp_method_resource(call, i, &kind, err);
        if (!settings)
            return -1;
        if (kind == RP_METHOD_DISK) {
            const char *file = rp_cim_get_text_at(settings, "HostResource", 0);
            RP_AUTO_FREE char *path = planned && (!file || !*file) ? rp_xstrdup("")
                                                                  : rp_method_resource_file(call, settings, err);
            if (!path)
                return -1;
            rp_method_task_add(disks, path);
        } else if (kind != RP_METHOD_IMPLIED) {
            RP_AUTO_FREE char *suffix = suffix_of(kind, settings);
            rp_method_resources_keep(extras, suffix, settings);
        }
    }
    return 0;
}
