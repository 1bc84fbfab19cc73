// The services, and the settings of the management service: those of the config file, and the default folders that
// clients have set (method_service.c).
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "cim/cimxml.h"
#include "hostd/core.h"
#include "io/fs.h"

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

// ---- the settings of the management service -------------------------------------------------------------------------

#define SETTINGS_CLASS "Msvm_VirtualSystemManagementServiceSettingData"
#define SETTINGS_FILE "service.xml" // one instance
#define SETTINGS_MAX 65536

struct rp_cim_instance *rp_hostd_service_kept(const struct rp_hostd *hostd)
{
    RP_AUTO_FREE char *path = rp_path_join(hostd->directory, SETTINGS_FILE);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    struct rp_cim_instance *kept = NULL;
    if (!rp_fs_read_file(rp_fs_posix(), path, SETTINGS_MAX, &text, NULL))
        kept = rp_cimxml_parse(rp_buf_text(&text), text.size, NULL);
    return kept ? kept : rp_cim_instance_new(NULL, SETTINGS_CLASS);
}

int rp_hostd_service_keep(const struct rp_hostd *hostd, const struct rp_cim_instance *settings, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(hostd->directory, SETTINGS_FILE);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cimxml_write(settings, &text);
    return rp_fs_replace_file(rp_fs_posix(), path, rp_buf_text(&text), text.size, err);
}

// A folder that was set, as long as it is there and clients may use it.
static void set_folder(const struct rp_hostd *hostd, const struct rp_cim_instance *kept, const char *name,
                       struct rp_cim_instance *settings, const struct rp_cim_class *class)
{
    const char *text = rp_cim_get_text(kept, name);
    struct stat st;
    RP_AUTO_FREE char *path = text ? rp_hostd_folders_check(hostd, text, NULL) : NULL;
    if (path && !stat(path, &st) && S_ISDIR(st.st_mode))
        rp_hostd_object_text(settings, class, name, path);
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
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *kept = rp_hostd_service_kept(hostd);
    set_folder(hostd, kept, "DefaultExternalDataRoot", settings, class);
    set_folder(hostd, kept, "DefaultVirtualHardDiskPath", settings, class);
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
