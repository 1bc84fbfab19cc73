// Settings of virtual machines and snapshots: Msvm_VirtualSystemSettingData and its components (facts/wmi.md 1.2, 1.3).
//
// A component's InstanceID is that of its VSSD and what follows it: the same controllers, drives and disks stand in a VM's
// settings and in those of its snapshots, each with the GUID of its own. Over the defaults come the settings that clients
// have set and this host only keeps (extras.c).
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cim/cimxml.h"
#include "hostd/core.h"

#define NO_CONTROLLER "\\f8b3781b-1e82-4818-a1c3-63d806ec15bb\\0" // of a VM without disks
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

// One pass over the settings of one owner.
struct settings {
    struct rp_hostd *hostd;
    struct rp_hostd_owner owner;
    struct rp_vm_settings frozen;       // of a snapshot
    const struct rp_vm_disk *disks;
    size_t disk_count;
    struct rp_cim_instances extras;
    const struct rp_cim_class *class;   // what is wanted; NULL: everything, named only
    struct rp_cim_sink sink;
    int (*visit)(void *context, const char *class_name, const char *instance, struct rp_error *err);
    void *context;
};

static void settings_clear(struct settings *settings)
{
    rp_vm_settings_clear(&settings->frozen);
    rp_cim_instances_clear(&settings->extras);
}

// What is not in the inventory, as far as `class` needs it.
static int settings_load(struct settings *s, struct rp_error *err)
{
    bool storage = !s->class || rp_cim_class_is_named(s->class, "Msvm_StorageAllocationSettingData") ||
                   rp_cim_class_is_named(s->class, "Msvm_ResourceAllocationSettingData");
    struct rp_host_connection *host = rp_hostd_hosts_borrow(s->hostd, err);
    if (!host)
        return -1;
    int rc = rp_hostd_extras_load(host, rp_hostd_settings_id(&s->owner), &s->extras, err);
    if (!rc && storage && s->owner.snapshot)
        rc = host->ops->snapshot_settings(host, s->owner.snapshot->id, &s->frozen, err);
    rp_hostd_hosts_return(s->hostd, host);
    if (rc && err && (err->code == RP_ERR_NOT_FOUND || err->code == RP_ERR_STATE)) { // gone since the inventory was taken
        rp_error_clear(err);
        return 1;
    }
    s->disks = s->owner.snapshot ? s->frozen.disks : s->owner.vm->settings.disks;
    s->disk_count = s->owner.snapshot ? s->frozen.disk_count : s->owner.vm->settings.disk_count;
    return rc;
}

static bool wants(const struct settings *s, const char *class_name)
{
    return !s->class || !strcasecmp(s->class->name, class_name);
}

// The defaults of the class, then `fill`, then what clients have set.
static int give(struct settings *s, const char *class_name, const char *suffix,
                void (*fill)(const struct settings *s, struct rp_cim_instance *object, const void *context),
                const void *context, struct rp_error *err)
{
    char instance[2 * RP_HOST_ID];
    rp_hostd_paths_instance(rp_hostd_settings_id(&s->owner), suffix, instance);
    if (!s->class)
        return s->visit(s->context, class_name, instance, err);
    struct rp_cim_instance *object = rp_cim_class_instance(s->class);
    if (fill)
        fill(s, object, context);
    for (size_t i = 0; i < s->extras.count; i++) {
        const struct rp_cim_instance *extra = s->extras.items[i];
        const char *id = rp_cim_get_text(extra, "InstanceID");
        if (strcasecmp(extra->class_name, class_name) || strcasecmp(id ? id : "", suffix))
            continue;
        for (size_t j = 0; j < extra->count; j++)
            rp_hostd_object_set(object, s->class, extra->properties[j].name, rp_cim_value_copy(&extra->properties[j].value));
    }
    rp_hostd_object_text(object, s->class, "InstanceID", instance);
    return s->sink.take(s->sink.context, object, err);
}

// ---- the VSSD ----------------------------------------------------------------------------------------------------------

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

static void fill_system(const struct settings *s, struct rp_cim_instance *object, const void *context)
{
    (void)context;
    const struct rp_cim_class *class = s->class;
    const struct rp_hostd_owner *owner = &s->owner;
    const struct rp_snapshot *parent = parent_of(owner);
    const char *id = rp_hostd_paths_bare(rp_hostd_settings_id(owner));
    static const char *const roots[] = {"ConfigurationDataRoot", "SnapshotDataRoot", "SuspendDataRoot", "SwapFileDataRoot",
                                        "LogDataRoot", "GuestStateDataRoot"};
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

// ---- processor, memory -------------------------------------------------------------------------------------------------

static void fill_processor(const struct settings *s, struct rp_cim_instance *object, const void *context)
{
    const uint64_t *quantity = context;
    rp_hostd_object_text(object, s->class, "ElementName", "Processor");
    rp_hostd_object_number(object, s->class, "VirtualQuantity", *quantity);
    rp_hostd_object_number(object, s->class, "HwThreadsPerCore", 1);
    rp_hostd_object_number(object, s->class, "MaxProcessorsPerNumaNode", *quantity);
    rp_hostd_object_number(object, s->class, "MaxNumaNodesPerSocket", 1);
    rp_hostd_object_flag(object, s->class, "LimitCPUID", false);
    rp_hostd_object_flag(object, s->class, "LimitProcessorFeatures", false);
    rp_hostd_object_flag(object, s->class, "EnableHostResourceProtection", false);
    rp_hostd_object_flag(object, s->class, "ExposeVirtualizationExtensions", false);
    rp_hostd_object_flag(object, s->class, "HideHypervisorPresent", false);
}

static void fill_memory(const struct settings *s, struct rp_cim_instance *object, const void *context)
{
    (void)context;
    static const char *const quantities[] = {"VirtualQuantity", "Reservation", "Limit"};
    rp_hostd_object_text(object, s->class, "ElementName", "Memory");
    for (size_t i = 0; i < sizeof quantities / sizeof *quantities; i++)
        rp_hostd_object_number(object, s->class, quantities[i], 1024);
    rp_hostd_object_number(object, s->class, "Weight", 5000);
    rp_hostd_object_number(object, s->class, "TargetMemoryBuffer", 20);
    rp_hostd_object_flag(object, s->class, "DynamicMemoryEnabled", false);
    rp_hostd_object_flag(object, s->class, "HugePagesEnabled", false);
    rp_hostd_object_flag(object, s->class, "SwapFilesInUse", false);
    rp_hostd_object_flag(object, s->class, "SgxEnabled", false);
    rp_hostd_object_number(object, s->class, "SgxSize", 0);
}

// ---- controllers, drives, disks ----------------------------------------------------------------------------------------

// "\<controller>\<number>\<slot>\L": where a disk hangs.
struct place {
    char controller[RP_HOST_ID], drive[RP_HOST_ID], image[RP_HOST_ID], slot[16];
};

static bool place_of(const struct rp_vm_disk *disk, struct place *place)
{
    char guid[RP_GUID_TEXT];
    const char *rest;
    if (!rp_hostd_paths_split(disk->instance, guid, &rest))
        return false;
    size_t size = strlen(rest);
    if (size < 4 || rest[0] != '\\' || strcasecmp(rest + size - 2, "\\L"))
        return false;
    snprintf(place->image, sizeof place->image, "%s", rest);
    snprintf(place->drive, sizeof place->drive, "%.*s\\D", (int)size - 2, rest);
    snprintf(place->controller, sizeof place->controller, "%.*s", (int)size - 2, rest);
    char *slot = strrchr(place->controller, '\\');
    snprintf(place->slot, sizeof place->slot, "%s", slot + 1);
    *slot = '\0';
    return true;
}

static char *parent_text(const struct settings *s, const char *class_name, const char *suffix)
{
    char instance[2 * RP_HOST_ID];
    rp_hostd_paths_instance(rp_hostd_settings_id(&s->owner), suffix, instance);
    return rp_hostd_paths_text(rp_hostd_paths_of(s->hostd, class_name, instance));
}

static void fill_resource(const struct settings *s, struct rp_cim_instance *object, unsigned type, const char *sub_type)
{
    rp_hostd_object_number(object, s->class, "ResourceType", type);
    rp_hostd_object_text(object, s->class, "ResourceSubType", sub_type);
    rp_hostd_object_text(object, s->class, "AllocationUnits", "count");
    rp_hostd_object_number(object, s->class, "VirtualQuantity", 1);
    rp_hostd_object_number(object, s->class, "Reservation", 1);
    rp_hostd_object_number(object, s->class, "Limit", 1);
    rp_hostd_object_number(object, s->class, "Weight", 0);
    rp_hostd_object_number(object, s->class, "ConsumerVisibility", 3);
    rp_hostd_object_flag(object, s->class, "AutomaticAllocation", true);
    rp_hostd_object_flag(object, s->class, "AutomaticDeallocation", true);
}

static void fill_controller(const struct settings *s, struct rp_cim_instance *object, const void *context)
{
    (void)context;
    fill_resource(s, object, 6, "Microsoft:Hyper-V:Synthetic SCSI Controller");
    rp_hostd_object_text(object, s->class, "ElementName", "SCSI Controller");
    rp_hostd_object_text(object, s->class, "Caption", "SCSI Controller");
    rp_hostd_object_text(object, s->class, "Description", "Settings for the Microsoft Virtual SCSI Controller");
}

static void fill_drive(const struct settings *s, struct rp_cim_instance *object, const void *context)
{
    const struct place *place = context;
    RP_AUTO_FREE char *parent = parent_text(s, "Msvm_ResourceAllocationSettingData", place->controller);
    fill_resource(s, object, 17, "Microsoft:Hyper-V:Synthetic Disk Drive");
    rp_hostd_object_text(object, s->class, "ElementName", "Hard Drive");
    rp_hostd_object_text(object, s->class, "Caption", "Synthetic Disk Drive");
    rp_hostd_object_text(object, s->class, "Description", "Settings for the Microsoft Synthetic Disk Drive");
    rp_hostd_object_text(object, s->class, "Parent", parent);
    rp_hostd_object_text(object, s->class, "AddressOnParent", place->slot);
}

struct image {
    const struct place *place;
    const struct rp_vm_disk *disk;
};

static void fill_image(const struct settings *s, struct rp_cim_instance *object, const void *context)
{
    const struct image *image = context;
    RP_AUTO_FREE char *parent = parent_text(s, "Msvm_ResourceAllocationSettingData", image->place->drive);
    fill_resource(s, object, 31, "Microsoft:Hyper-V:Virtual Hard Disk");
    rp_hostd_object_text(object, s->class, "ElementName", "Hard Disk Image");
    rp_hostd_object_text(object, s->class, "Parent", parent);
    rp_hostd_object_number(object, s->class, "Access", 3); // read and write
    // The size of the disk, in its sectors: so that who lists many need not ask for each (src/hyperv does not).
    if (image->disk->logical_sector)
        rp_hostd_object_number(object, s->class, "VirtualQuantity", image->disk->size / image->disk->logical_sector);
    if (!rp_guid_is_zero(&image->disk->disk_id)) {
        char guid[RP_GUID_TEXT];
        rp_hostd_object_text(object, s->class, "HostExtentName", rp_guid_format(&image->disk->disk_id, guid));
    }
    if (image->disk->nbd_uri) // where it is served while the VM runs
        rp_hostd_object_add(object, s->class, "Connection", rp_cim_string(image->disk->nbd_uri));
    rp_hostd_object_number(object, s->class, "VirtualResourceBlockSize", image->disk->logical_sector);
    rp_hostd_object_number(object, s->class, "HostResourceBlockSize", image->disk->physical_sector);
    rp_hostd_object_number(object, s->class, "IOPSLimit", 0);
    rp_hostd_object_number(object, s->class, "IOPSReservation", 0);
    rp_hostd_object_number(object, s->class, "CachingMode", 0);
    rp_hostd_object_number(object, s->class, "WriteHardeningMethod", 0);
    rp_hostd_object_flag(object, s->class, "PersistentReservationsSupported", false);
    rp_hostd_object_flag(object, s->class, "IgnoreFlushes", false);
    rp_hostd_object_text(object, s->class, "StorageQoSPolicyID", "00000000-0000-0000-0000-000000000000");
    rp_hostd_object_add(object, s->class, "HostResource", rp_cim_string(image->disk->path ? image->disk->path : ""));
}

static int give_storage(struct settings *s, struct rp_error *err)
{
    char last[RP_HOST_ID] = "";
    bool resources = wants(s, "Msvm_ResourceAllocationSettingData");
    if (resources && !s->disk_count && give(s, "Msvm_ResourceAllocationSettingData", NO_CONTROLLER, fill_controller, NULL, err))
        return -1;
    for (size_t i = 0; i < s->disk_count; i++) { // ordered by number: a controller's disks stand together
        struct place place;
        if (!place_of(&s->disks[i], &place))
            continue;
        struct image image = {&place, &s->disks[i]};
        if (resources && strcasecmp(last, place.controller) &&
            give(s, "Msvm_ResourceAllocationSettingData", place.controller, fill_controller, NULL, err))
            return -1;
        memcpy(last, place.controller, sizeof last);
        if ((resources && give(s, "Msvm_ResourceAllocationSettingData", place.drive, fill_drive, &place, err)) ||
            (wants(s, "Msvm_StorageAllocationSettingData") &&
             give(s, "Msvm_StorageAllocationSettingData", place.image, fill_image, &image, err)))
            return -1;
    }
    return 0;
}

// ---- all of it ---------------------------------------------------------------------------------------------------------

static const char *const classes[] = {
    "Msvm_VirtualSystemSettingData", "Msvm_ProcessorSettingData", "Msvm_MemorySettingData",
    "Msvm_ResourceAllocationSettingData", "Msvm_StorageAllocationSettingData", "Msvm_SerialPortSettingData",
    "Msvm_SyntheticEthernetPortSettingData", "Msvm_EmulatedEthernetPortSettingData", "Msvm_EthernetPortAllocationSettingData",
};

// What only clients have set: adapters, ports.
static int give_kept(struct settings *s, struct rp_error *err)
{
    for (size_t i = 0; i < s->extras.count; i++) {
        const struct rp_cim_instance *extra = s->extras.items[i];
        const char *suffix = rp_cim_get_text(extra, "InstanceID");
        bool known = false;
        for (size_t c = 5; c < sizeof classes / sizeof *classes; c++)
            known |= !strcasecmp(classes[c], extra->class_name);
        if (known && suffix && *suffix && wants(s, extra->class_name) && give(s, extra->class_name, suffix, NULL, NULL, err))
            return -1;
    }
    return 0;
}

static int give_all(struct settings *s, struct rp_error *err)
{
    static const uint64_t one = 1;
    int rc = settings_load(s, err);
    if (rc)
        return rc < 0 ? -1 : 0;
    if ((s->class && wants(s, "Msvm_VirtualSystemSettingData") &&
         give(s, "Msvm_VirtualSystemSettingData", "", fill_system, NULL, err)) ||
        (wants(s, "Msvm_ProcessorSettingData") &&
         give(s, "Msvm_ProcessorSettingData", RP_HOSTD_PROCESSOR, fill_processor, &one, err)) ||
        (wants(s, "Msvm_MemorySettingData") && give(s, "Msvm_MemorySettingData", RP_HOSTD_MEMORY, fill_memory, NULL, err)))
        return -1;
    return give_storage(s, err) || give_kept(s, err) ? -1 : 0;
}

static int of_owner(struct rp_hostd *hostd, const struct rp_hostd_owner *owner, const struct rp_cim_class *class,
                    struct rp_cim_sink sink, struct rp_error *err)
{
    RP_CLEANUP(settings_clear) struct settings s = {.hostd = hostd, .owner = *owner, .class = class, .sink = sink};
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
    struct settings s = {.hostd = hostd, .class = class};
    struct rp_cim_instance *object = rp_cim_class_instance(class);
    fill_processor(&s, object, &most);
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

int rp_hostd_settings_parts(struct rp_hostd *hostd, const struct rp_hostd_owner *owner,
                            int (*visit)(void *context, const char *class_name, const char *instance, struct rp_error *err),
                            void *context, struct rp_error *err)
{
    RP_CLEANUP(settings_clear) struct settings s = {.hostd = hostd, .owner = *owner, .visit = visit, .context = context};
    return give_all(&s, err);
}

static int take_text(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    rp_cimxml_write(instance, context);
    rp_buf_printf(context, "\n");
    rp_cim_instance_free(instance);
    return 0;
}

char *rp_hostd_settings_document(struct rp_hostd *hostd, const char *id, struct rp_error *err)
{
    char instance[2 * RP_HOST_ID];
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(hostd, err);
    if (!inventory)
        return NULL;
    struct rp_hostd_owner owner;
    int rc = rp_hostd_settings_owner(inventory, rp_hostd_paths_instance(id, "", instance), &owner)
                 ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "there is no virtual machine or snapshot %s", id);
    for (size_t i = 0; !rc && i < sizeof classes / sizeof *classes; i++)
        rc = of_owner(hostd, &owner, rp_cim_schema_class(hostd->virtualization.schema, classes[i]),
                      (struct rp_cim_sink){take_text, &text}, err);
    rp_hostd_hosts_release(hostd, inventory);
    return rc ? NULL : rp_xstrdup(rp_buf_text(&text));
}

// ---- what belongs to a VM and is no part of its settings ---------------------------------------------------------------

static int each_export(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                       const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)hostd;
    for (size_t i = 0; i < inventory->count; i++) {
        char instance[2 * RP_HOST_ID];
        rp_hostd_paths_instance(inventory->items[i].vm.id, RP_HOSTD_EXPORT, instance);
        if (only && strcasecmp(only, instance))
            continue;
        struct rp_cim_instance *object = rp_cim_class_instance(class);
        rp_hostd_object_text(object, class, "InstanceID", instance);
        rp_hostd_object_text(object, class, "Caption", "Virtual System Export Setting Data");
        rp_hostd_object_text(object, class, "ElementName", inventory->items[i].vm.name);
        rp_hostd_object_number(object, class, "CaptureLiveState", 1);
        rp_hostd_object_number(object, class, "CopySnapshotConfiguration", 0);
        rp_hostd_object_number(object, class, "BackupIntent", 0);
        rp_hostd_object_flag(object, class, "CopyVmRuntimeInformation", true);
        rp_hostd_object_flag(object, class, "CopyVmStorage", true);
        rp_hostd_object_flag(object, class, "CreateVmExportSubdirectory", true);
        rp_hostd_object_flag(object, class, "ExportForLiveMigration", false);
        rp_hostd_object_flag(object, class, "DisableDifferentialOfIgnoredStorage", false);
        if (sink.take(sink.context, object, err))
            return -1;
    }
    return 0;
}

// The virtual hard disks that VMs have now, by their paths. (Windows gives these only as text, by
// GetVirtualHardDiskSettingData; that the class can be enumerated here is an addition.)
static int each_image(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                      const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)hostd;
    for (size_t i = 0; i < inventory->count; i++)
        for (size_t j = 0; j < inventory->items[i].settings.disk_count; j++) {
            const struct rp_vm_disk *disk = &inventory->items[i].settings.disks[j];
            char guid[RP_GUID_TEXT];
            if (!disk->path || (only && strcasecmp(only, disk->path)))
                continue;
            struct rp_cim_instance *object = rp_cim_class_instance(class);
            rp_hostd_object_text(object, class, "InstanceID", disk->path);
            rp_hostd_object_text(object, class, "ElementName", disk->path);
            rp_hostd_object_text(object, class, "Path", disk->path);
            rp_hostd_object_number(object, class, "Type", inventory->items[i].snapshots.count ? 4 : 3);
            rp_hostd_object_number(object, class, "Format", 3);
            rp_hostd_object_number(object, class, "MaxInternalSize", disk->size);
            rp_hostd_object_number(object, class, "LogicalSectorSize", disk->logical_sector);
            rp_hostd_object_number(object, class, "PhysicalSectorSize", disk->physical_sector);
            rp_hostd_object_text(object, class, "VirtualDiskId", rp_guid_format(&disk->disk_id, guid));
            rp_hostd_object_flag(object, class, "IsPmemCompatible", false);
            if (sink.take(sink.context, object, err))
                return -1;
        }
    return 0;
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
    {"Msvm_VirtualSystemExportSettingData", "InstanceID", true, each_export},
    {"Msvm_VirtualHardDiskSettingData", "InstanceID", true, each_image},
    {0},
};
