// What belongs to a VM and is no part of its settings: its drives, how it would be exported, what its disk files are.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hostd/core.h"

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

void rp_hostd_object_drive(const struct rp_vm_disk *disk, char id[RP_HOST_ID])
{
    snprintf(id, RP_HOST_ID, "%s", disk->instance);
    size_t length = strlen(id);
    if (length > 2 && !strcasecmp(id + length - 2, "\\L"))
        id[length - 1] = 'D';
}

// The drives of VMs: the only devices that this host has for them.
static int each_drive(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                      const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)hostd;
    for (size_t i = 0; i < inventory->count; i++)
        for (size_t j = 0; j < inventory->items[i].settings.disk_count; j++) {
            const struct rp_inventory_vm *vm = &inventory->items[i];
            const struct rp_vm_disk *disk = &vm->settings.disks[j];
            char id[RP_HOST_ID];
            rp_hostd_object_drive(disk, id);
            if (only && strcasecmp(only, id))
                continue;
            struct rp_cim_instance *object = rp_cim_class_instance(class);
            rp_hostd_object_text(object, class, "DeviceID", id);
            rp_hostd_object_text(object, class, "SystemName", vm->vm.id);
            rp_hostd_object_text(object, class, "Name", "Hard Drive");
            rp_hostd_object_text(object, class, "ElementName", "Hard Drive");
            rp_hostd_object_text(object, class, "Caption", "Hard Drive");
            rp_hostd_object_text(object, class, "Description", "Microsoft Synthetic Disk Drive");
            rp_hostd_object_number(object, class, "EnabledState", vm->vm.state == RP_VM_RUNNING ? 2 : 3);
            rp_hostd_object_add(object, class, "OperationalStatus", rp_cim_unsigned(RP_CIM_UINT16, 2));
            rp_hostd_object_add(object, class, "StatusDescriptions", rp_cim_string("OK"));
            rp_hostd_object_number(object, class, "MaxMediaSize", disk->size / 1024); // in KiB
            rp_hostd_object_number(object, class, "DefaultBlockSize", disk->logical_sector);
            rp_hostd_object_number(object, class, "MinBlockSize", disk->logical_sector);
            if (sink.take(sink.context, object, err))
                return -1;
        }
    return 0;
}

const struct rp_hostd_objects rp_hostd_disk_objects[] = {
    {"Msvm_DiskDrive", "DeviceID", true, each_drive},
    {"Msvm_VirtualSystemExportSettingData", "InstanceID", true, each_export},
    {"Msvm_VirtualHardDiskSettingData", "InstanceID", true, each_image},
    {0},
};
