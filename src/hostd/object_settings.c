// Settings of virtual machines and snapshots: Msvm_VirtualSystemSettingData and its components (facts/wmi.md 1.2, 1.3).
//
// A component's InstanceID is that of its VSSD and what follows it: the same controllers, drives and disks stand in a
// VM's settings and in those of its snapshots, each with the GUID of its own. Over the defaults come the settings that
// clients have set and this host only keeps (extras.c).
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "cim/cimxml.h"
#include "hostd/settings_impl.h"

#define DEFINITION "Microsoft:Definition\\b637f346-6a0e-4dec-af52-bd70cb80a21d\\Maximum"
#define MAX_PROCESSORS 240

bool rp_hostd_settings_owner(const struct rp_inventory *inventory, const char *instance, struct rp_hostd_owner *owner)
{
    char guid[RP_GUID_TEXT];
    const char *rest;
    *owner = (struct rp_hostd_owner){0};
    if (!rp_hostd_paths_split(instance, guid, &rest))
        return false;
    owner->vm = rp_hostd_hosts_vm(inventory, guid, &owner->planned);
    if (!owner->vm)
        owner->snapshot = rp_hostd_hosts_snapshot(inventory, guid, &owner->vm);
    if (owner->snapshot)
        owner->planned = false;
    return owner->vm;
}

const char *rp_hostd_settings_id(const struct rp_hostd_owner *owner)
{
    return owner->snapshot ? owner->snapshot->id : owner->vm->vm.id;
}

static void settings_clear(struct rp_settings *settings)
{
    rp_vm_settings_clear(&settings->frozen);
    rp_cim_instances_clear(&settings->extras);
}

// What a checkpoint has of the VM's firmware: only looked for where somebody wants it, for it is long.
static int load_state(struct rp_settings *s, struct rp_host_connection *host, struct rp_error *err)
{
    RP_AUTO_FREE char *text = NULL;
    if (!s->owner.snapshot || (s->class && !rp_cim_class_is_named(s->class, RP_HOSTD_FIRMWARE_STATE)))
        return 0;
    return rp_host_local_firmware(host, s->owner.snapshot->id, &text, err) || rp_hostd_extras_parse(text, &s->extras, err) ? -1 : 0;
}

// What is not in the inventory, as far as `class` needs it.
static int settings_load(struct rp_settings *s, struct rp_error *err)
{
    bool storage = !s->class || rp_cim_class_is_named(s->class, "Msvm_StorageAllocationSettingData") ||
                   rp_cim_class_is_named(s->class, "Msvm_ResourceAllocationSettingData");
    struct rp_host_connection *host = rp_hostd_hosts_borrow(s->hostd, err);
    if (!host)
        return -1;
    struct rp_error why = {0};
    int rc = rp_hostd_extras_load(host, rp_hostd_settings_id(&s->owner), &s->extras, &why);
    if (rc && why.code == RP_ERR_CORRUPT) { // what one VM has in them must not hide all others
        rp_log(RP_LOG_WARNING, "settings are shown without what clients have set: %s", why.text);
        rp_cim_instances_clear(&s->extras);
        rc = 0;
    } else if (rc) {
        rp_fail_as(err, &why);
    }
    rc = rc ? rc : load_state(s, host, err);
    if (!rc && storage && s->owner.snapshot)
        rc = host->ops->snapshot_settings(host, s->owner.snapshot->id, &s->frozen, err);
    rp_hostd_hosts_return(s->hostd, host);
    if (rc && err &&
        (err->code == RP_ERR_NOT_FOUND || err->code == RP_ERR_STATE)) { // gone since the inventory was taken
        rp_error_clear(err);
        return 1;
    }
    s->disks = s->owner.snapshot ? s->frozen.disks : s->owner.vm->settings.disks;
    s->disk_count = s->owner.snapshot ? s->frozen.disk_count : s->owner.vm->settings.disk_count;
    return rc;
}

bool rp_settings_wants(const struct rp_settings *s, const char *class_name)
{
    return !s->class || !strcasecmp(s->class->name, class_name);
}

static bool is_storage(const char *class_name)
{
    return !strcasecmp(class_name, "Msvm_ResourceAllocationSettingData") ||
           !strcasecmp(class_name, "Msvm_StorageAllocationSettingData");
}

// What hung on a controller that is not kept hangs on the one that this host has.
static void place_parent(const struct rp_settings *s, struct rp_cim_instance *object)
{
    const char *text = rp_cim_get_text(object, "Parent");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = text ? rp_cim_path_parse(text, NULL) : NULL;
    const char *suffix = path ? rp_cim_path_get(path, "InstanceID") : NULL;
    char controller[RP_HOST_ID], instance[2 * RP_HOST_ID];
    if (!suffix || *suffix != '\\')
        return;
    rp_cim_set(object, "Parent", rp_cim_null(RP_CIM_STRING, false));
    if (!rp_hostd_extras_find(&s->extras, path->class_name, suffix)) {
        if (strcasecmp(path->class_name, "Msvm_ResourceAllocationSettingData"))
            return;
        rp_settings_controller(s, controller);
        suffix = controller;
    }
    rp_hostd_paths_instance(rp_hostd_settings_id(&s->owner), suffix, instance);
    RP_AUTO_FREE char *whole = rp_hostd_paths_text(rp_hostd_paths_of(s->hostd, path->class_name, instance));
    rp_hostd_object_text(object, s->class, "Parent", whole);
}

// The defaults of the class, then `fill`, then what clients have set. Of its own controllers, drives and disks the host
// says everything itself.
int rp_settings_give(struct rp_settings *s, const char *class_name, const char *suffix,
                void (*fill)(const struct rp_settings *s, struct rp_cim_instance *object, const void *context),
                const void *context, struct rp_error *err)
{
    char instance[2 * RP_HOST_ID];
    rp_hostd_paths_instance(rp_hostd_settings_id(&s->owner), suffix, instance);
    if (!s->class)
        return s->visit(s->context, class_name, instance, err);
    struct rp_cim_instance *object = rp_cim_class_instance(s->class);
    if (fill)
        fill(s, object, context);
    bool own = fill && is_storage(class_name);
    for (size_t i = 0; !own && i < s->extras.count; i++) {
        const struct rp_cim_instance *extra = s->extras.items[i];
        const char *id = rp_cim_get_text(extra, "InstanceID");
        if (strcasecmp(extra->class_name, class_name) || strcasecmp(id ? id : "", suffix))
            continue;
        for (size_t j = 0; j < extra->count; j++)
            rp_hostd_object_set(object, s->class, extra->properties[j].name,
                                rp_cim_value_copy(&extra->properties[j].value));
    }
    rp_hostd_object_text(object, s->class, "InstanceID", instance);
    if (!own && *suffix)
        place_parent(s, object);
    return s->sink.take(s->sink.context, object, err);
}

// ---- the VSSD -------------------------------------------------------------------------------------------------------

static const char *type_of(const struct rp_hostd_owner *owner)
{
    if (owner->planned)
        return "Microsoft:Hyper-V:System:Planned";
    if (!owner->snapshot)
        return "Microsoft:Hyper-V:System:Realized";
    return owner->snapshot->type == RP_SNAPSHOT_RECOVERY ? "Microsoft:Hyper-V:Snapshot:Recovery"
                                                         : "Microsoft:Hyper-V:Snapshot:Realized";
}

// The snapshot that this one, or the VM as it is, comes from; NULL: none.
static const struct rp_snapshot *parent_of(const struct rp_hostd_owner *owner)
{
    const struct rp_snapshot *parent = NULL;
    for (size_t i = 0; i < owner->vm->snapshots.count; i++) {
        const struct rp_snapshot *snapshot = &owner->vm->snapshots.items[i];
        if (owner->snapshot && !strcmp(snapshot->id, owner->snapshot->id))
            break;
        if (!snapshot->merging)
            parent = snapshot;
    }
    return parent;
}

static void fill_system(const struct rp_settings *s, struct rp_cim_instance *object, const void *context)
{
    (void)context;
    const struct rp_cim_class *class = s->class;
    const struct rp_hostd_owner *owner = &s->owner;
    const struct rp_snapshot *parent = parent_of(owner);
    const char *id = rp_hostd_paths_bare(rp_hostd_settings_id(owner));
    static const char *const roots[] = {"ConfigurationDataRoot", "SnapshotDataRoot", "SuspendDataRoot",
                                        "SwapFileDataRoot",      "LogDataRoot",      "GuestStateDataRoot"};
    static const char *const off[] = {"BIOSNumLock", "IsSaved", "AllowFullSCSICommandSet", "VirtualNumaEnabled",
                                      "PauseAfterBootFailure", "GuestControlledCacheTypes", "AutomaticSnapshotsEnabled",
                                      "IsAutomaticSnapshot", "LockOnDisconnect", "SecureBootEnabled"};
    RP_AUTO_FREE char *root = rp_xasprintf("%s/vms/%s", s->hostd->directory, owner->vm->vm.id);
    RP_AUTO_FREE char *file = rp_xasprintf("%s.vmcx", id), *guid = rp_xasprintf("{%s}", owner->vm->vm.id);
    rp_hostd_object_text(object, class, "ElementName", owner->snapshot ? owner->snapshot->name : owner->vm->vm.name);
    rp_hostd_object_text(object, class, "Description", owner->snapshot ? "Checkpoint of a virtual machine"
                                                                       : "Active settings for a virtual machine");
    rp_hostd_object_text(object, class, "VirtualSystemIdentifier", owner->vm->vm.id);
    rp_hostd_object_text(object, class, "VirtualSystemType", type_of(owner));
    rp_hostd_object_text(object, class, "VirtualSystemSubType", "Microsoft:Hyper-V:SubType:2");
    rp_hostd_object_text(object, class, "ConfigurationID", id);
    rp_hostd_object_text(object, class, "ConfigurationFile", file);
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++)
        rp_hostd_object_text(object, class, roots[i], root);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        rp_hostd_object_flag(object, class, off[i], false);
    if (owner->snapshot)
        rp_hostd_object_set(object, class, "CreationTime", rp_cim_moment(owner->snapshot->time_ns));
    if (parent) {
        RP_AUTO_FREE char *path = rp_hostd_paths_text(rp_hostd_paths_settings(s->hostd, parent->id));
        rp_hostd_object_text(object, class, "Parent", path);
    }
    rp_hostd_object_text(object, class, "Version", "10.0");
    rp_hostd_object_text(object, class, "BIOSGUID", guid);
    rp_hostd_object_text(object, class, "Architecture", "x64");
    rp_hostd_object_flag(object, class, "IncrementalBackupEnabled", true);
    rp_hostd_object_number(object, class, "UserSnapshotType", 4); // production only: there is no saved state here
    rp_hostd_object_number(object, class, "AutomaticStartupAction", 2);
    rp_hostd_object_number(object, class, "AutomaticStartupActionSequenceNumber", 0);
    rp_hostd_object_set(object, class, "AutomaticStartupActionDelay", rp_cim_duration(0));
    rp_hostd_object_number(object, class, "AutomaticShutdownAction", 2);
    rp_hostd_object_number(object, class, "AutomaticRecoveryAction", 2);
    rp_hostd_object_number(object, class, "AutomaticCriticalErrorAction", 0);
    rp_hostd_object_set(object, class, "AutomaticCriticalErrorActionTimeout", rp_cim_duration(0));
    rp_hostd_object_number(object, class, "NetworkBootPreferredProtocol", 4096);
    rp_hostd_object_number(object, class, "ConsoleMode", 3);
    rp_hostd_object_number(object, class, "DebugPort", 0);
    rp_hostd_object_number(object, class, "DebugPortEnabled", 0);
    rp_hostd_object_number(object, class, "DebugChannelId", 0);
    rp_hostd_object_number(object, class, "LowMmioGapSize", 128);
    rp_hostd_object_number(object, class, "HighMmioGapSize", 512);
    rp_hostd_object_number(object, class, "EnhancedSessionTransportType", 0);
}

// ---- all of it ------------------------------------------------------------------------------------------------------

static const char *const classes[] = {
    "Msvm_VirtualSystemSettingData",
    "Msvm_ProcessorSettingData",
    "Msvm_MemorySettingData",
    "Msvm_ResourceAllocationSettingData",
    "Msvm_StorageAllocationSettingData",
    "Msvm_SerialPortSettingData",
    "Msvm_SyntheticEthernetPortSettingData",
    "Msvm_EmulatedEthernetPortSettingData",
    "Msvm_EthernetPortAllocationSettingData",
    "Msvm_SyntheticDisplayControllerSettingData",
    "Msvm_ShutdownComponentSettingData",
    "Msvm_TimeSyncComponentSettingData",
    "Msvm_HeartbeatComponentSettingData",
    "Msvm_KvpExchangeComponentSettingData",
    "Msvm_VssComponentSettingData",
    "Msvm_GuestServiceInterfaceComponentSettingData",
    "Msvm_TPMSettingData",
    "Msvm_SecuritySettingData",
    "Refpoint_DomainSettingData",
    RP_HOSTD_FIRMWARE_STATE,
};

#define KEPT 3 // those from here on

static bool is_known(const char *class_name)
{
    for (size_t i = KEPT; i < sizeof classes / sizeof *classes; i++)
        if (!strcasecmp(classes[i], class_name))
            return true;
    return false;
}

// What only clients have set: adapters, ports, a DVD drive. One that was where a disk is now is not shown.
static int give_kept(struct rp_settings *s, struct rp_error *err)
{
    for (size_t i = 0; i < s->extras.count; i++) {
        const struct rp_cim_instance *extra = s->extras.items[i];
        const char *suffix = rp_cim_get_text(extra, "InstanceID");
        if (!suffix || !*suffix || !is_known(extra->class_name) || !rp_settings_wants(s, extra->class_name) ||
            (is_storage(extra->class_name) && rp_settings_is_disk(s, suffix)))
            continue;
        if (rp_settings_give(s, extra->class_name, suffix, NULL, NULL, err))
            return -1;
    }
    return 0;
}

static int give_all(struct rp_settings *s, struct rp_error *err)
{
    int rc = settings_load(s, err);
    if (rc)
        return rc < 0 ? -1 : 0;
    if (s->class && rp_settings_wants(s, "Msvm_VirtualSystemSettingData") &&
        rp_settings_give(s, "Msvm_VirtualSystemSettingData", "", fill_system, NULL, err))
        return -1;
    return rp_settings_give_resources(s, err) || give_kept(s, err) ? -1 : 0;
}

static int of_owner(struct rp_hostd *hostd, const struct rp_hostd_owner *owner, const struct rp_cim_class *class,
                    struct rp_cim_sink sink, struct rp_error *err)
{
    RP_CLEANUP(settings_clear) struct rp_settings s = {.hostd = hostd, .owner = *owner, .class = class, .sink = sink};
    return give_all(&s, err);
}

// Every VM, its snapshots, every planned VM.
static int of_all(struct rp_hostd *hostd, const struct rp_inventory *inventory, bool planned,
                  const struct rp_cim_class *class, struct rp_cim_sink sink, struct rp_error *err)
{
    for (size_t i = 0; i < inventory->count; i++) {
        struct rp_hostd_owner owner = {.vm = &inventory->items[i], .planned = planned};
        if (of_owner(hostd, &owner, class, sink, err))
            return -1;
        for (size_t j = 0; j < owner.vm->snapshots.count; j++) {
            owner.snapshot = &owner.vm->snapshots.items[j];
            if (!owner.snapshot->merging && of_owner(hostd, &owner, class, sink, err))
                return -1;
        }
    }
    return 0;
}

// What the host can at most: libvirt asks for it before it defines anything (facts 3.1).
static int give_definition(struct rp_hostd *hostd, const struct rp_cim_class *class, struct rp_cim_sink sink,
                           struct rp_error *err)
{
    static const uint64_t most = MAX_PROCESSORS;
    struct rp_settings s = {.hostd = hostd, .class = class};
    struct rp_cim_instance *object = rp_cim_class_instance(class);
    rp_settings_fill_processor(&s, object, &most);
    rp_hostd_object_text(object, class, "InstanceID", DEFINITION);
    return sink.take(sink.context, object, err);
}

static int each_settings(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                         const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    struct rp_hostd_owner owner;
    bool processor = !strcmp(class->name, "Msvm_ProcessorSettingData");
    if (processor && (!only || !strcasecmp(only, DEFINITION)) && give_definition(hostd, class, sink, err))
        return -1;
    if (only)
        return rp_hostd_settings_owner(inventory, only, &owner) ? of_owner(hostd, &owner, class, sink, err) : 0;
    return of_all(hostd, inventory, false, class, sink, err) ||
                   of_all(hostd, rp_hostd_hosts_planned(inventory), true, class, sink, err) ? -1 : 0;
}

int rp_hostd_settings_parts(struct rp_hostd *hostd, const struct rp_hostd_owner *owner, rp_hostd_part_fn *visit,
                            void *context, struct rp_error *err)
{
    RP_CLEANUP(settings_clear)
    struct rp_settings s = {.hostd = hostd, .owner = *owner, .visit = visit, .context = context};
    return give_all(&s, err);
}

struct document {
    struct rp_buf text;
    const char *name;
};

// Whoever defines from it wants the VM's name, also where these are the settings of a checkpoint, which has its own.
static int take_text(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    struct document *document = context;
    if (!strcmp(instance->class_name, "Msvm_VirtualSystemSettingData"))
        rp_cim_set(instance, "ElementName", rp_cim_string(document->name));
    rp_cimxml_write(instance, &document->text);
    rp_buf_printf(&document->text, "\n");
    rp_cim_instance_free(instance);
    return 0;
}

// Of classes that nobody can ask for.
static int take_strange(struct rp_hostd *hostd, const struct rp_hostd_owner *owner, struct document *document,
                        struct rp_error *err)
{
    RP_CLEANUP(settings_clear) struct rp_settings s = {.hostd = hostd, .owner = *owner};
    int rc = settings_load(&s, err);
    for (size_t i = 0; !rc && i < s.extras.count; i++) {
        char instance[2 * RP_HOST_ID];
        const char *suffix = rp_cim_get_text(s.extras.items[i], "InstanceID");
        if (!suffix || strlen(suffix) >= RP_HOST_ID ||
            rp_cim_schema_class(hostd->virtualization.schema, s.extras.items[i]->class_name))
            continue;
        struct rp_cim_instance *strange = rp_cim_instance_copy(s.extras.items[i]);
        rp_cim_set(strange, "InstanceID",
                   rp_cim_string(rp_hostd_paths_instance(rp_hostd_settings_id(owner), suffix, instance)));
        take_text(document, strange, err);
    }
    return rc < 0 ? -1 : 0;
}

char *rp_hostd_settings_document(struct rp_hostd *hostd, const char *id, struct rp_error *err)
{
    char instance[2 * RP_HOST_ID];
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(hostd, err);
    if (!inventory)
        return NULL;
    struct rp_hostd_owner owner;
    struct document document = {.name = NULL};
    int rc = rp_hostd_settings_owner(inventory, rp_hostd_paths_instance(id, "", instance), &owner)
                 ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "there is no virtual machine or snapshot %s", id);
    document.name = rc ? NULL : owner.vm->vm.name;
    for (size_t i = 0; !rc && i < sizeof classes / sizeof *classes; i++)
        rc = of_owner(hostd, &owner, rp_cim_schema_class(hostd->virtualization.schema, classes[i]),
                      (struct rp_cim_sink){take_text, &document}, err);
    rc = rc ? rc : take_strange(hostd, &owner, &document, err);
    rp_hostd_hosts_release(hostd, inventory);
    char *text = rc ? NULL : rp_xstrdup(rp_buf_text(&document.text));
    rp_buf_clear(&document.text);
    return text;
}

const struct rp_hostd_objects rp_hostd_settings_objects[] = {
    {"Msvm_VirtualSystemSettingData", "InstanceID", true, each_settings},
    {"Msvm_ProcessorSettingData", "InstanceID", true, each_settings},
    {"Msvm_MemorySettingData", "InstanceID", true, each_settings},
    {"Msvm_ResourceAllocationSettingData", "InstanceID", true, each_settings},
    {"Msvm_StorageAllocationSettingData", "InstanceID", true, each_settings},
    {"Msvm_SerialPortSettingData", "InstanceID", true, each_settings},
    {"Msvm_SyntheticEthernetPortSettingData", "InstanceID", true, each_settings},
    {"Msvm_EmulatedEthernetPortSettingData", "InstanceID", true, each_settings},
    {"Msvm_EthernetPortAllocationSettingData", "InstanceID", true, each_settings},
    {"Msvm_SyntheticDisplayControllerSettingData", "InstanceID", true, each_settings},
    {"Msvm_ShutdownComponentSettingData", "InstanceID", true, each_settings},
    {"Msvm_TimeSyncComponentSettingData", "InstanceID", true, each_settings},
    {"Msvm_HeartbeatComponentSettingData", "InstanceID", true, each_settings},
    {"Msvm_KvpExchangeComponentSettingData", "InstanceID", true, each_settings},
    {"Msvm_VssComponentSettingData", "InstanceID", true, each_settings},
    {"Msvm_GuestServiceInterfaceComponentSettingData", "InstanceID", true, each_settings},
    {"Msvm_TPMSettingData", "InstanceID", true, each_settings},
    {"Msvm_SecuritySettingData", "InstanceID", true, each_settings},
    {"Refpoint_DomainSettingData", "InstanceID", true, each_settings},
    {RP_HOSTD_FIRMWARE_STATE, "InstanceID", true, each_settings},
    {0},
};
