// ExportSystemDefinition (facts/wmi.md 1.5 C).
#include <string.h>

#include "hyperv/wmi_internal.h"

#define SETTINGS "Msvm_VirtualSystemExportSettingData"
enum { NO_SNAPSHOTS = 1, ONE_SNAPSHOT_FOR_BACKUP = 3, PRESERVE_CHAIN = 0 };

// What the host exports by default, which is then changed.
static struct rp_cim_instance *defaults(struct rp_wmi *wmi, const struct rp_cim_path *vm, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    if (rp_wmi_associators(wmi, vm, "Msvm_SystemExportSettingData", SETTINGS, &found, err))
        return NULL;
    if (!found.count)
        return rp_cim_instance_new(NULL, SETTINGS);
    struct rp_cim_instance *one = found.items[0];
    found.items[0] = found.items[--found.count];
    return one;
}

// Hosts since Windows 10 1709 know both: without the flag they make differencing disks on what is left out.
static void set_excluded(struct rp_cim_instance *settings, const struct rp_export *what)
{
    if (!what->excluded_count)
        return;
    struct rp_cim_value list = rp_cim_null(RP_CIM_STRING, true);
    for (size_t i = 0; i < what->excluded_count; i++) {
        struct rp_cim_value one = rp_cim_string(what->excluded[i]);
        rp_cim_value_push(&list, &one);
    }
    rp_cim_set(settings, "ExcludedVirtualHardDisks", list);
    rp_cim_set(settings, "DisableDifferentialOfIgnoredStorage", rp_cim_boolean(true));
}

static int set_snapshot(struct rp_wmi *wmi, struct rp_cim_instance *settings, const char *snapshot_id,
                        struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *snapshot = rp_wmi_settings_object(wmi, snapshot_id, err);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = snapshot ? rp_wmi_path_of(snapshot) : NULL;
    RP_AUTO_FREE char *text = path ? rp_wmi_path_text(wmi, path, err) : NULL;
    if (!text)
        return -1;
    rp_cim_set(settings, "CopySnapshotConfiguration", rp_cim_unsigned(RP_CIM_UINT8, ONE_SNAPSHOT_FOR_BACKUP));
    rp_cim_set(settings, "SnapshotVirtualSystem", rp_cim_string(text));
    return 0;
}

static int set_base(struct rp_wmi *wmi, struct rp_cim_instance *settings, const char *point_id, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *point = rp_wmi_point_object(wmi, point_id, err);
    RP_AUTO_FREE char *text = point ? rp_wmi_path_text(wmi, point->path, err) : NULL;
    if (text)
        rp_cim_set(settings, "DifferentialBackupBase", rp_cim_string(text));
    return text ? 0 : -1;
}

int rp_wmi_export_system(struct rp_host_connection *host, const struct rp_export *what, RP_METHOD_RESULT,
                         struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    *job = *result = 0;
    if (rp_wmi_need_vm(wmi, what->vm_id, &vm, err))
        return -1;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_vm(vm.id);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = defaults(wmi, path, err);
    if (!settings)
        return -1;
    rp_cim_set(settings, "CopySnapshotConfiguration", rp_cim_unsigned(RP_CIM_UINT8, NO_SNAPSHOTS));
    rp_cim_set(settings, "SnapshotVirtualSystem", rp_cim_null(RP_CIM_STRING, false));
    if (what->snapshot_id && set_snapshot(wmi, settings, what->snapshot_id, err))
        return -1;
    rp_cim_set(settings, "CopyVmRuntimeInformation", rp_cim_boolean(false));
    rp_cim_set(settings, "CopyVmStorage", rp_cim_boolean(what->storage));
    rp_cim_set(settings, "CreateVmExportSubdirectory", rp_cim_boolean(what->subdirectory));
    rp_cim_set(settings, "BackupIntent", rp_cim_unsigned(RP_CIM_UINT8, PRESERVE_CHAIN));
    set_excluded(settings, what);
    rp_cim_set(settings, "DifferentialBackupBase", rp_cim_null(RP_CIM_STRING, false));
    if (what->base_point_id && set_base(wmi, settings, what->base_point_id, err))
        return -1;
    RP_AUTO_FREE char *words = rp_xasprintf("export VM %s to %s", vm.id, what->folder);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "ExportSystemDefinition", .what = words};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "ComputerSystem", rp_cim_reference(rp_cim_path_copy(path)));
    rp_cim_set(in, "ExportDirectory", rp_cim_string(what->folder));
    rp_cim_set(in, "ExportSettingData", rp_wmi_embed(wmi, settings));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}
