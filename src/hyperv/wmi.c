#include "hyperv/wmi_internal.h"

#include <stdlib.h>

#include "hostd/schema/schema.h"

static void close_wmi(struct rp_host_connection *host)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    rp_wmi_jobs_free(wmi);
    while (wmi->made) {
        struct rp_wmi_made *next = wmi->made->next;
        free(wmi->made->reason);
        free(wmi->made->name);
        free(wmi->made);
        wmi->made = next;
    }
    for (size_t i = 0; i < RP_WMI_SERVICES; i++)
        rp_cim_path_free(wmi->services[i]);
    rp_wsman_client_free(wmi->client);
    rp_cim_schema_free(wmi->schema);
    free(wmi->machine);
    free(host->address);
    free(wmi);
}

static const struct rp_host_ops ops = {
    .list_vms = rp_wmi_list_vms,
    .find_vm = rp_wmi_find_vm,
    .vm_settings = rp_wmi_vm_settings,
    .define_system = rp_wmi_define_system,
    .destroy_system = rp_wmi_destroy_system,
    .request_state = rp_wmi_request_state,
    .add_disk = rp_wmi_add_disk,
    .remove_disk = rp_wmi_remove_disk,
    .resize_disk = rp_wmi_resize_disk,
    .create_snapshot = rp_wmi_create_snapshot,
    .list_snapshots = rp_wmi_list_snapshots,
    .snapshot_settings = rp_wmi_snapshot_settings,
    .destroy_snapshot = rp_wmi_destroy_snapshot,
    .convert_to_reference_point = rp_wmi_convert,
    .list_reference_points = rp_wmi_list_points,
    .destroy_reference_point = rp_wmi_destroy_point,
    .disk_changes = rp_wmi_disk_changes,
    .inventory = rp_wmi_inventory,
    .rename = rp_wmi_rename,
    .apply_snapshot = rp_wmi_apply_snapshot,
    .create_reference_point = rp_wmi_create_point,
    .export_system = rp_wmi_export_system,
    .import_system = rp_wmi_import_system,
    .plan_system = rp_wmi_plan_system,
    .list_planned = rp_wmi_list_planned,
    .modify_disk = rp_wmi_modify_disk,
    .validate_planned = rp_wmi_validate_planned,
    .realize_planned = rp_wmi_realize_planned,
    .import_reference_point = rp_wmi_import_point,
    .job_state = rp_wmi_job_state,
    .cancel_job = rp_wmi_job_cancel,
    .close = close_wmi,
};

struct rp_host_connection *rp_host_wmi_open(const struct rp_wsman_options *options, struct rp_error *err)
{
    RP_CLEANUP(rp_wsman_client_free_p) struct rp_wsman_client *client = rp_wsman_client_new(options, err);
    struct rp_cim_schema *schema = client ? rp_hostd_schema(RP_WMI_V2, err) : NULL;
    if (!schema)
        return NULL;
    struct rp_wmi *wmi = rp_xcalloc(1, sizeof *wmi);
    wmi->host.ops = &ops;
    wmi->host.address = rp_xstrdup(options->url);
    wmi->client = client;
    wmi->schema = schema;
    client = NULL;
    return &wmi->host;
}
