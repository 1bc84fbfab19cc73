// What is in a virtual machine: processor, memory, controllers, drives, disks (facts/wmi.md 1.2).
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hostd/settings_impl.h"

#define NO_CONTROLLER "\\f8b3781b-1e82-4818-a1c3-63d806ec15bb\\0" // of a VM without disks

// ---- processor, memory ----------------------------------------------------------------------------------------------

void rp_settings_fill_processor(const struct rp_settings *s, struct rp_cim_instance *object, const void *context)
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

static void fill_memory(const struct rp_settings *s, struct rp_cim_instance *object, const void *context)
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

// ---- controllers, drives, disks -------------------------------------------------------------------------------------

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

void rp_settings_controller(const struct rp_settings *s, char suffix[RP_HOST_ID])
{
    struct place place;
    bool found = s->disk_count && place_of(&s->disks[0], &place);
    snprintf(suffix, RP_HOST_ID, "%s", found ? place.controller : NO_CONTROLLER);
}

bool rp_settings_is_disk(const struct rp_settings *s, const char *suffix)
{
    struct place place;
    for (size_t i = 0; i < s->disk_count; i++)
        if (place_of(&s->disks[i], &place) && (!strcasecmp(suffix, place.drive) || !strcasecmp(suffix, place.image)))
            return true;
    return false;
}

static char *parent_text(const struct rp_settings *s, const char *class_name, const char *suffix)
{
    char instance[2 * RP_HOST_ID];
    rp_hostd_paths_instance(rp_hostd_settings_id(&s->owner), suffix, instance);
    return rp_hostd_paths_text(rp_hostd_paths_of(s->hostd, class_name, instance));
}

static void fill_resource(const struct rp_settings *s, struct rp_cim_instance *object, unsigned type,
                          const char *sub_type)
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

static void fill_controller(const struct rp_settings *s, struct rp_cim_instance *object, const void *context)
{
    (void)context;
    fill_resource(s, object, 6, "Microsoft:Hyper-V:Synthetic SCSI Controller");
    rp_hostd_object_text(object, s->class, "ElementName", "SCSI Controller");
    rp_hostd_object_text(object, s->class, "Caption", "SCSI Controller");
    rp_hostd_object_text(object, s->class, "Description", "Settings for the Microsoft Virtual SCSI Controller");
}

static void fill_drive(const struct rp_settings *s, struct rp_cim_instance *object, const void *context)
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

static void fill_image(const struct rp_settings *s, struct rp_cim_instance *object, const void *context)
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

static int give_storage(struct rp_settings *s, struct rp_error *err)
{
    char last[RP_HOST_ID] = "";
    bool resources = rp_settings_wants(s, "Msvm_ResourceAllocationSettingData");
    if (resources && !s->disk_count &&
        rp_settings_give(s, "Msvm_ResourceAllocationSettingData", NO_CONTROLLER, fill_controller, NULL, err))
        return -1;
    for (size_t i = 0; i < s->disk_count; i++) { // ordered by number: a controller's disks stand together
        struct place place;
        if (!place_of(&s->disks[i], &place))
            continue;
        struct image image = {&place, &s->disks[i]};
        if (resources && strcasecmp(last, place.controller) &&
            rp_settings_give(s, "Msvm_ResourceAllocationSettingData", place.controller, fill_controller, NULL, err))
            return -1;
        memcpy(last, place.controller, sizeof last);
        if ((resources &&
             rp_settings_give(s, "Msvm_ResourceAllocationSettingData", place.drive, fill_drive, &place, err)) ||
            (rp_settings_wants(s, "Msvm_StorageAllocationSettingData") &&
             rp_settings_give(s, "Msvm_StorageAllocationSettingData", place.image, fill_image, &image, err)))
            return -1;
    }
    return 0;
}

int rp_settings_give_resources(struct rp_settings *s, struct rp_error *err)
{
    static const uint64_t one = 1;
    if ((rp_settings_wants(s, "Msvm_ProcessorSettingData") &&
         rp_settings_give(s, "Msvm_ProcessorSettingData", RP_HOSTD_PROCESSOR, rp_settings_fill_processor, &one, err)) ||
        (rp_settings_wants(s, "Msvm_MemorySettingData") &&
         rp_settings_give(s, "Msvm_MemorySettingData", RP_HOSTD_MEMORY, fill_memory, NULL, err)))
        return -1;
    return give_storage(s, err);
}
