// Planned systems: imported or defined, then made real (facts/wmi.md 1.5 D).
#include <string.h>
#include <strings.h>

#include "hyperv/wmi_internal.h"

#define PLANNED "Msvm_PlannedComputerSystem"
#define MAX_DOCUMENT (16 << 20)
#define MAX_PARTS 4096

int rp_wmi_import_system(struct rp_host_connection *host, const char *definition_file, bool new_identity,
                         RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_AUTO_FREE char *what = rp_xasprintf("import %s", definition_file);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "ImportSystemDefinition", .what = what,
                                     .result = "ImportedSystem", .result_class = PLANNED};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "SystemDefinitionFile", rp_cim_string(definition_file));
    rp_cim_set(in, "SnapshotFolder", rp_cim_string(""));
    rp_cim_set(in, "GenerateNewSystemIdentifier", rp_cim_boolean(new_identity));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

// ---- from a document ------------------------------------------------------------------------------------------------

// Instances one after the other; in their values no '<' stands as it is, so their ends can be found by text.
static int read_document(const char *document, struct rp_cim_instances *all, struct rp_error *err)
{
    static const char end_tag[] = "</INSTANCE>";
    if (strlen(document) > MAX_DOCUMENT)
        return rp_fail(err, RP_ERR_INVALID, "saved settings: more than %d bytes", MAX_DOCUMENT);
    for (const char *end; (end = strstr(document, end_tag)); document = end) {
        end += sizeof end_tag - 1;
        struct rp_cim_instance *one = rp_cimxml_parse(document, (size_t)(end - document), err);
        if (!one)
            return rp_context(err, "saved settings");
        rp_cim_instances_push(all, one);
        if (all->count > MAX_PARTS)
            return rp_fail(err, RP_ERR_INVALID, "saved settings: more than %d parts", MAX_PARTS);
    }
    if (document[strspn(document, " \t\r\n")])
        return rp_fail(err, RP_ERR_INVALID, "saved settings: they are none of a Hyper-V host");
    if (!all->count || strcasecmp(all->items[0]->class_name, "Msvm_VirtualSystemSettingData") != 0)
        return rp_fail(err, RP_ERR_INVALID, "saved settings: they do not begin with those of a VM");
    return 0;
}

static struct rp_cim_value one_file(const char *path)
{
    struct rp_cim_value files = rp_cim_null(RP_CIM_STRING, true), file = rp_cim_string(path);
    rp_cim_value_push(&files, &file);
    return files;
}

// A host lists its resources in any order: that of the files is that of vm_settings.
static int place_disks(const struct rp_cim_instances *all, const char *const *disks, size_t disk_count,
                       struct rp_error *err)
{
    size_t count;
    RP_AUTO_FREE struct rp_cim_instance **sorted = rp_wmi_sort_disks(all, &count);
    if (count != disk_count)
        return rp_fail(err, RP_ERR_INVALID, "saved settings: they name %zu disks, and %zu are there", count,
                       disk_count);
    for (size_t i = 0; i < count; i++)
        rp_cim_set(sorted[i], "HostResource", one_file(disks[i]));
    return 0;
}

// What belongs to the moment or to the host that the settings were saved on.
static void make_new(struct rp_cim_instance *settings, bool new_identity)
{
    static const char *const gone[] = {
        "ConfigurationDataRoot", "ConfigurationFile", "SnapshotDataRoot", "SuspendDataRoot", "SwapFileDataRoot",
        "LogDataRoot", "GuestStateDataRoot", "GuestStateFile", "RecoveryFile", "Parent", "CreationTime", "IsSaved",
        "VirtualSystemType",
    };
    static const char *const identity[] = {"InstanceID", "VirtualSystemIdentifier", "ConfigurationID", "BIOSGUID",
                                           "BIOSSerialNumber", "BaseBoardSerialNumber", "ChassisSerialNumber"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        rp_cim_set(settings, gone[i], rp_cim_null(RP_CIM_STRING, false));
    for (size_t i = 0; new_identity && i < sizeof identity / sizeof *identity; i++)
        rp_cim_set(settings, identity[i], rp_cim_null(RP_CIM_STRING, false));
    // of a snapshot's settings: those of its VM
    const char *vm = rp_cim_get_text(settings, "VirtualSystemIdentifier");
    if (vm) {
        RP_AUTO_FREE char *id = rp_xasprintf("Microsoft:%s", vm), *guid = rp_xstrdup(vm);
        rp_cim_set(settings, "InstanceID", rp_cim_string(id));
        rp_cim_set(settings, "ConfigurationID", rp_cim_string(guid));
    }
}

// Classes of ours that refpoint-hostd has and Hyper-V does not: what they say stays behind there.
static void leave_out_ours(struct rp_wmi *wmi, struct rp_cim_instances *all)
{
    static const char ours[] = "Refpoint_";
    size_t left = 0, found = 0;
    for (size_t i = 0; i < all->count; i++)
        found += !strncasecmp(all->items[i]->class_name, ours, sizeof ours - 1);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances none = {0};
    if (!found || !rp_wmi_query(wmi, RP_WMI_V2, "SELECT * FROM Refpoint_DomainSettingData WHERE InstanceID = \"\"", &none, NULL))
        return;
    for (size_t i = 0; i < all->count; i++) {
        if (strncasecmp(all->items[i]->class_name, ours, sizeof ours - 1))
            all->items[left++] = all->items[i];
        else
            rp_cim_instance_free(all->items[i]);
    }
    all->count = left;
}

// A host may give the plan another identity, where the old one is taken: nobody asked for that.
static int check_free(struct rp_wmi *wmi, const struct rp_cim_instance *settings, struct rp_error *err)
{
    const char *id = rp_cim_get_text(settings, "VirtualSystemIdentifier");
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct rp_error local = {0};
    if (!id || !rp_wmi_need_vm(wmi, id, &vm, &local))
        return id ? rp_fail(err, RP_ERR_EXISTS,
                            "%s: VM %s is there already: restore it as a new one, or delete that one",
                            wmi->host.address, id)
                  : rp_fail(err, RP_ERR_INVALID, "saved settings: they do not say whose they are");
    return local.code == RP_ERR_NOT_FOUND ? 0 : rp_fail_as(err, &local);
}

int rp_wmi_plan_system(struct rp_host_connection *host, const char *document, const char *const *disks,
                       size_t disk_count, bool new_identity, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = {0};
    *job = *result = 0;
    if (read_document(document, &all, err) || place_disks(&all, disks, disk_count, err) ||
        (!new_identity && check_free(wmi, all.items[0], err)))
        return -1;
    make_new(all.items[0], new_identity);
    leave_out_ours(wmi, &all);
    const char *name = rp_cim_get_text(all.items[0], "ElementName");
    RP_AUTO_FREE char *what = rp_xasprintf("plan VM %s", name ? name : "");
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "DefinePlannedSystem", .what = what,
                                     .result = "ResultingSystem", .result_class = PLANNED};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "SystemSettings", rp_wmi_embed(wmi, all.items[0]));
    if (all.count > 1)
        rp_cim_set(in, "ResourceSettings", rp_wmi_embed_array(wmi, all.items + 1, all.count - 1));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

// ---- what there is --------------------------------------------------------------------------------------------------

int rp_wmi_list_planned(struct rp_host_connection *host, struct rp_vms *planned, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances systems = {0};
    *planned = (struct rp_vms){0};
    if (rp_wmi_query(rp_wmi_of(host), RP_WMI_V2, "SELECT * FROM " PLANNED, &systems, err))
        return -1;
    planned->items = rp_xcalloc(systems.count + 1, sizeof *planned->items);
    for (size_t i = 0; i < systems.count; i++)
        planned->count += rp_wmi_read_vm(systems.items[i], &planned->items[planned->count]);
    return 0;
}

// ---- to the end -----------------------------------------------------------------------------------------------------

static int of_planned(struct rp_host_connection *host, const char *method, const char *words, const char *planned_id,
                      bool makes_vm, RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *planned =
        rp_wmi_one(wmi, PLANNED, "Name", planned_id, "planned VM", err);
    if (!planned)
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("%s planned VM %s", words, planned_id);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = method, .what = what,
                                     .result = makes_vm ? "ResultingSystem" : NULL,
                                     .result_class = makes_vm ? "Msvm_ComputerSystem" : NULL};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "PlannedSystem", rp_cim_reference(rp_wmi_path_planned(rp_cim_get_text(planned, "Name"))));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

int rp_wmi_validate_planned(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                            struct rp_error *err)
{
    return of_planned(host, "ValidatePlannedSystem", "check", planned_id, false, job, result, err);
}

int rp_wmi_realize_planned(struct rp_host_connection *host, const char *planned_id, RP_METHOD_RESULT,
                           struct rp_error *err)
{
    return of_planned(host, "RealizePlannedSystem", "make real", planned_id, true, job, result, err);
}
