// Msvm_VirtualSystemManagementService: VMs on their way in. Imported or defined as planned ones, put right, checked,
// realized (facts/wmi.md 1.5 D).
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "disk/convert.h"
#include "hostd/method.h"

#define MAX_DEFINITION (4 << 20)

// ---- import ---------------------------------------------------------------------------------------------------------

static int run_import(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances extras = {0};
    char job[RP_HOST_ID], unused[RP_HOST_ID];
    if (rp_method_wait(host, host->ops->import_system(host, task->path, task->flag, job, result, err), job, result,
                       err))
        return -1;
    // The definition may be anybody's. What the host keeps for us has to be something that we can read.
    if (!rp_hostd_extras_load(host, result, &extras, err))
        return 0;
    host->ops->destroy_system(host, result, false, job, unused, NULL);
    return rp_context(err, "definition %s", task->path);
}

// 1 the folder holds definitions of checkpoints, 0 none, -1 error.
static int holds_definitions(const char *path, struct rp_error *err)
{
    DIR *folder = opendir(path);
    if (!folder)
        return rp_fail_sys(err, errno, "SnapshotFolder: %s", path);
    int found = 0;
    for (struct dirent *entry; !found && (entry = readdir(folder));) {
        size_t length = strlen(entry->d_name);
        found = length > 5 && !strcasecmp(entry->d_name + length - 5, ".vmcx");
    }
    closedir(folder);
    return found;
}

// The exports of this host have no checkpoints in them, so a folder with some is of another.
static int check_snapshot_folder(const struct rp_hostd_call *call, struct rp_error *err)
{
    const char *text = rp_cim_get_text(call->in, "SnapshotFolder");
    if (!text || !*text)
        return 0;
    RP_AUTO_FREE char *path = rp_hostd_folders_check(call->hostd, text, err);
    struct rp_error why = {0};
    int found = path ? holds_definitions(path, &why) : -1;
    if (!path)
        return -1;
    if (found < 0)
        return rp_fail(err, why.code == RP_ERR_PERMISSION ? why.code : RP_ERR_INVALID, "%s", why.text);
    return found ? rp_fail(err, RP_ERR_UNSUPPORTED,
                           "SnapshotFolder: %s has checkpoints, which this host does not import", path)
                 : 0;
}

// The identity that a definition has; NULL when it has none that is free here. It is only a hint, for after a kill: the
// import reads the file itself.
static char *identity_in(const struct rp_hostd_call *call, const char *path)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found taken = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    const char *rest;
    struct rp_guid guid;
    if (rp_fs_read_file(&call->hostd->files.fs, path, MAX_DEFINITION, &text, NULL))
        return NULL;
    json_t *root = json_loadb(rp_buf_text(&text), text.size, 0, NULL);
    const char *id = json_string_value(json_object_get(root, "id"));
    bool is_free = id && strlen(id) == RP_GUID_TEXT - 1 && !rp_guid_parse(id, &guid, NULL) &&
                   rp_method_instance(call->hostd, id, RP_METHOD_ANY, &taken, &rest, NULL);
    char *result = is_free ? rp_xstrdup(id) : NULL;
    json_decref(root);
    return result;
}

static int import(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    const char *file = rp_cim_get_text(call->in, "SystemDefinitionFile");
    struct stat st;
    if (!file || !*file)
        return rp_fail(err, RP_ERR_INVALID, "SystemDefinitionFile is missing");
    // 32779 means a file in use here, so a missing one is a bad parameter.
    struct rp_error why = {0};
    RP_AUTO_FREE char *path = rp_hostd_folders_check(call->hostd, file, &why);
    if (!path)
        return rp_fail(err, why.code == RP_ERR_NOT_FOUND ? RP_ERR_INVALID : why.code, "SystemDefinitionFile: %s",
                       why.text);
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "SystemDefinitionFile: there is no file %s", path);
    if (check_snapshot_folder(call, err))
        return -1;
    struct rp_method_task *task = rp_method_task_new(NULL, NULL);
    task->path = path;
    path = NULL;
    task->flag = rp_cim_get_boolean(call->in, "GenerateNewSystemIdentifier", false);
    // With its old identity the file decides what the result is called.
    RP_AUTO_FREE char *old = task->flag ? NULL : identity_in(call, task->path);
    return rp_method_start(call, (struct rp_hostd_job){.type = 61, .caption = "Importing Virtual Machine",
        .result = RP_HOSTD_PLANNED, .target = task->flag ? NULL : "", .planned = old, .run = run_import}, task, status,
        err);
}

static int import_snapshots(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    const char *text = rp_cim_get_text(call->in, "SnapshotFolder");
    if (rp_method_vm(call, "PlannedSystem", RP_METHOD_PLANNED, &found, err))
        return -1;
    if (!text || !*text)
        return rp_fail(err, RP_ERR_INVALID, "SnapshotFolder is missing");
    if (check_snapshot_folder(call, err))
        return -1;
    *status = 0;
    return 0;
}

// ---- definition -----------------------------------------------------------------------------------------------------

// "…\<controller>\<n>\<slot>\L" of a disk's InstanceID: its number, and the controller. False for one of another form.
static bool place_of(const char *id, uint32_t *number, char controller[RP_GUID_TEXT])
{
    unsigned bus, slot;
    char guid[RP_GUID_TEXT], letter[2];
    struct rp_guid parsed;
    const char *tail = id ? strchr(id, '\\') : NULL;
    if (!tail || sscanf(tail, "\\%36[^\\]\\%5u\\%5u\\%1[Ll]", guid, &bus, &slot, letter) != 4 || bus > 1023 ||
        slot > 63 || rp_guid_parse(guid, &parsed, NULL))
        return false;
    *number = 64 * bus + slot;
    snprintf(controller, RP_GUID_TEXT, "%s", guid);
    return true;
}

// What the file says of itself; one that is not there yet, or is no VHDX, gets what the settings say.
static json_t *disk_of(struct rp_fs *fs, const struct rp_cim_instance *settings, const char *path, uint32_t number)
{
    enum rp_image_format format;
    struct stat st;
    struct rp_guid id = rp_guid_new();
    uint64_t size = 0;
    uint32_t logical = 512, physical = 4096, block = 0;
    bool there = !stat(path, &st) && S_ISREG(st.st_mode) && !rp_image_detect(fs, path, &format, NULL);
    RP_CLEANUP(rp_vhdx_abandon_p) struct rp_vhdx *vhdx = there && format == RP_IMAGE_VHDX
        ? rp_vhdx_look(fs, path, NULL) : NULL;
    if (vhdx) {
        const struct rp_vhdx_info *info = rp_vhdx_info(vhdx);
        id = info->disk_id;
        size = info->size;
        logical = info->logical_sector;
        physical = info->physical_sector;
        block = info->block_size;
    } else {
        uint64_t sectors = rp_cim_get_unsigned(settings, "VirtualQuantity", 0);
        uint64_t sector = rp_cim_get_unsigned(settings, "VirtualResourceBlockSize", 512);
        bool sane = sector && sector <= 4096 && sectors <= RP_VHDX_MAX_SIZE / 4096;
        size = there ? (uint64_t)st.st_size : sane ? sectors * sector : 0;
    }
    char guid[RP_GUID_TEXT];
    return json_pack("{s:i, s:s, s:I, s:i, s:i, s:i}", "number", (int)number, "disk_id", rp_guid_format(&id, guid),
                     "size", (json_int_t)size, "logical_sector", (int)logical, "physical_sector", (int)physical,
                     "block_size", (int)block);
}

struct plan {
    struct rp_method_task *task;    // list: the paths
    struct rp_cim_instances extras;
    char controller[RP_GUID_TEXT];
    json_t *disks;
    bool used[65536];
};

static void plan_free(struct plan **plan)
{
    rp_method_task_free((*plan)->task);
    rp_cim_instances_clear(&(*plan)->extras);
    json_decref((*plan)->disks);
    free(*plan);
}

// Disks in the order in which they come, by their old numbers where they say them.
static int plan_disks(const struct rp_hostd_call *call, struct plan *plan, struct rp_error *err)
{
    size_t disk = 0;
    if (rp_method_resources_sort(call, true, plan->task, &plan->extras, err))
        return -1;
    for (size_t i = 0; i < rp_cim_get_count(call->in, "ResourceSettings") && disk < plan->task->count; i++) {
        enum rp_method_kind kind;
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
            rp_method_resource(call, i, &kind, err);
        char controller[RP_GUID_TEXT];
        uint32_t number = 0;
        if (!settings)
            return -1;
        if (kind != RP_METHOD_DISK)
            continue;
        if (place_of(rp_cim_get_text(settings, "InstanceID"), &number, controller) && !plan->used[number])
            snprintf(plan->controller, sizeof plan->controller, "%s", controller);
        else
            for (number = 0; plan->used[number];)
                number++;
        plan->used[number] = true;
        json_array_append_new(plan->disks, disk_of(&call->hostd->files.fs, settings,
                                                          plan->task->list[disk++], number));
    }
    return 0;
}

static int run_plan(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                    struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    int rc = host->ops->plan_system(host, task->name, (const char *const *)task->list, task->count, task->flag, job,
                                    result, err);
    return rp_method_wait(host, rc, job, result, err);
}

// Who defines from saved settings wants the old identity where it is free (VirtualSystemIdentifier says which); Hyper-V
// gives a new one always, and so does this host when the old one is taken.
static int read_plan(const struct rp_hostd_call *call, struct plan *plan, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found taken = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
        rp_method_embedded(call, "SystemSettings", "Msvm_VirtualSystemSettingData", err);
    if (!settings)
        return -1;
    if (rp_cim_get_path(call->in, "ReferenceConfiguration"))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "ReferenceConfiguration is for DefineSystem here");
    const char *name = rp_cim_get_text(settings, "ElementName"),
               *id = rp_cim_get_text(settings, "VirtualSystemIdentifier"), *rest;
    struct rp_guid guid;
    name = name && *name ? name : "New Virtual Machine";
    if (rp_method_check_name(name, "ElementName", err))
        return -1;
    bool fresh = !id || rp_guid_parse(id, &guid, NULL) || strlen(id) != RP_GUID_TEXT - 1 ||
                 !rp_method_instance(call->hostd, id, RP_METHOD_ANY, &taken, &rest, NULL);
    plan->task->flag = fresh;
    rp_method_resources_keep(&plan->extras, "", settings);
    if (plan_disks(call, plan, err))
        return -1;
    RP_AUTO_FREE char *extras = rp_hostd_extras_text(&plan->extras, err);
    if (!extras)
        return -1;
    RP_AUTO_FREE char *planned = fresh ? rp_hostd_jobs_plan() : NULL;
    char created[RP_TIME_TEXT];
    json_t *document = json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:O}", "format", "refpoint offline VM 1", "id",
        fresh ? planned : id, "name", name, "generation", 2, "created", rp_time_format(rp_clock_wall_ns(), created),
        "controller", plan->controller, "extras", extras, "disks", plan->disks);
    char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    if (!text)
        return rp_fail(err, RP_ERR_INVALID, "SystemSettings: the name is not valid text");
    plan->task->name = text;
    return 0;
}

static int define_planned(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(plan_free) struct plan *plan = rp_xcalloc(1, sizeof *plan);
    plan->task = rp_method_task_new(NULL, NULL);
    plan->disks = json_array();
    if (read_plan(call, plan, err))
        return -1;
    char made[RP_HOST_ID] = "";
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = host ? run_plan(call->hostd, host, plan->task, made, err) : -1;
    rp_hostd_hosts_return(call->hostd, host);
    if (rc)
        return -1;
    rp_method_set_reference(call, "ResultingSystem", rp_hostd_paths_vm(call->hostd, made, true));
    *status = 0;
    return 0;
}

// ---- to the end -----------------------------------------------------------------------------------------------------

// Where a plan's disks are, the import's definition says, and it may be anybody's; what they read from, their locators
// say. All of it has to be where clients may name files, at the moment when it is to be used.
static int check_disks(struct rp_hostd *hostd, struct rp_host_connection *host, const char *planned_id,
                       struct rp_error *err)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings settings = {0};
    const struct rp_hostd_call call = {.hostd = hostd};
    if (host->ops->vm_settings(host, planned_id, &settings, err))
        return -1;
    for (size_t i = 0; i < settings.disk_count; i++) {
        RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
        const struct rp_vm_disk *disk = &settings.disks[i];
        char what[32];
        snprintf(what, sizeof what, "disk%u", disk->number);
        if (disk->path && *disk->path && (rp_method_file(&call, disk->path, what, &file, err) ||
                                          rp_method_file_parents(&call, file.path, what, err)))
            return -1;
    }
    return 0;
}

static int run_validate(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                        struct rp_error *err)
{
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    if (check_disks(hostd, host, task->id, err) ||
        rp_method_wait(host, host->ops->validate_planned(host, task->id, job, made, err), job, made, err))
        return -1;
    memcpy(result, task->id, RP_HOST_ID);
    return 0;
}

static int validate(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_vm(call, "PlannedSystem", RP_METHOD_PLANNED, &found, err))
        return -1;
    return rp_method_start(call, (struct rp_hostd_job){.type = 140, .caption = "Validating Planned Virtual Machine",
        .result = RP_HOSTD_PLANNED, .target = found.vm->vm.id, .run = run_validate},
        rp_method_task_new(found.vm, found.vm->vm.id), status, err);
}

static int run_realize(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                       struct rp_error *err)
{
    const struct rp_method_task *task = context;
    char job[RP_HOST_ID];
    if (check_disks(hostd, host, task->id, err))
        return -1;
    return rp_method_wait(host, host->ops->realize_planned(host, task->id, job, result, err), job, result, err);
}

// The VM has the plan's id, so that is what tells whether it was done.
static int realize(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    if (rp_method_vm(call, "PlannedSystem", RP_METHOD_PLANNED, &found, err))
        return -1;
    return rp_method_start(call, (struct rp_hostd_job){.type = 141, .caption = "Realizing Planned Virtual Machine",
        .result = RP_HOSTD_VM, .target = found.vm->vm.id, .planned = found.vm->vm.id, .run = run_realize},
        rp_method_task_new(found.vm, found.vm->vm.id), status, err);
}

#define SERVICE "Msvm_VirtualSystemManagementService"
const struct rp_hostd_method rp_hostd_planned_methods[] = {
    {SERVICE, "ImportSystemDefinition", RP_CIM_ADMINISTER, true, import},
    {SERVICE, "ImportSnapshotDefinitions", RP_CIM_ADMINISTER, true, import_snapshots},
    {SERVICE, "DefinePlannedSystem", RP_CIM_ADMINISTER, false, define_planned},
    {SERVICE, "ValidatePlannedSystem", RP_CIM_ADMINISTER, true, validate},
    {SERVICE, "RealizePlannedSystem", RP_CIM_ADMINISTER, true, realize},
    {0},
};
