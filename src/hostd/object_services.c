// The services, and the settings of the management service.
#include <string.h>
#include <strings.h>

#include "hostd/core.h"

static int each_service(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                        const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)inventory, (void)only;
    struct rp_cim_instance *service = rp_cim_class_instance(class);
    rp_hostd_object_text(service, class, "SystemCreationClassName", "Msvm_ComputerSystem");
    rp_hostd_object_text(service, class, "SystemName", hostd->machine);
    rp_hostd_object_text(service, class, "CreationClassName", class->name);
    rp_hostd_object_text(service, class, "Status", "OK");
    rp_hostd_object_text(service, class, "StartMode", "Automatic");
    return sink.take(sink.context, service, err);
}

static int each_service_settings(struct rp_hostd *hostd, const struct rp_inventory *inventory,
                                 const struct rp_cim_class *class, const char *only, struct rp_cim_sink sink,
                                 struct rp_error *err)
{
    (void)inventory, (void)only;
    RP_AUTO_FREE char *id = rp_xasprintf("Microsoft:%s", hostd->machine);
    struct rp_cim_instance *settings = rp_cim_class_instance(class);
    rp_hostd_object_text(settings, class, "InstanceID", id);
    rp_hostd_object_text(settings, class, "DefaultExternalDataRoot", hostd->directory);
    rp_hostd_object_text(settings, class, "DefaultVirtualHardDiskPath",
                         hostd->folder_count ? hostd->folders[0] : hostd->directory);
    rp_hostd_object_text(settings, class, "BiosLockString", "");
    rp_hostd_object_flag(settings, class, "NumaSpanningEnabled", true);
    rp_hostd_object_flag(settings, class, "HypervisorRootSchedulerEnabled", false);
    rp_hostd_object_flag(settings, class, "EnhancedSessionModeEnabled", false);
    rp_hostd_object_number(settings, class, "HbaLunTimeout", 0);
    rp_hostd_object_number(settings, class, "DefaultVirtualHardDiskCachingMode", 0);
    return sink.take(sink.context, settings, err);
}

const struct rp_hostd_objects rp_hostd_service_objects[] = {
    {"Msvm_VirtualSystemManagementService", "Name", false, each_service},
    {"Msvm_VirtualSystemSnapshotService", "Name", false, each_service},
    {"Msvm_VirtualSystemReferencePointService", "Name", false, each_service},
    {"Msvm_ImageManagementService", "Name", false, each_service},
    {"Msvm_CollectionManagementService", "Name", false, each_service},
    {"Msvm_CollectionSnapshotService", "Name", false, each_service},
    {"Msvm_CollectionReferencePointService", "Name", false, each_service},
    {"Msvm_VirtualSystemManagementServiceSettingData", "InstanceID", false, each_service_settings},
    {0},
};
