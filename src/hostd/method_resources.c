// Resources of a VM in the management service: disks, which the host has, and everything else (processors, memory,
// network adapters), which it only keeps (extras).
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cim/cimxml.h"
#include "hostd/method.h"

enum kind { KIND_DISK, KIND_PROCESSOR, KIND_MEMORY, KIND_KEPT, KIND_IMPLIED, KIND_UNKNOWN };
enum { TYPE_IDE = 5, TYPE_SCSI = 6, TYPE_DRIVE = 17, TYPE_DISK = 31 };

// Controllers and drives come with the disks of a VM: who adds or defines them gets what is there anyway.
static enum kind kind_of(const struct rp_cim_instance *settings)
{
    static const struct { const char *class_name; enum kind kind; } classes[] = {
        {"Msvm_ProcessorSettingData", KIND_PROCESSOR}, {"Msvm_MemorySettingData", KIND_MEMORY},
        {"Msvm_SyntheticEthernetPortSettingData", KIND_KEPT}, {"Msvm_EmulatedEthernetPortSettingData", KIND_KEPT},
        {"Msvm_EthernetPortAllocationSettingData", KIND_KEPT}, {"Msvm_SerialPortSettingData", KIND_KEPT},
    };
    uint64_t type = rp_cim_get_unsigned(settings, "ResourceType", 0);
    if (!strcasecmp(settings->class_name, "Msvm_StorageAllocationSettingData"))
        return type == TYPE_DISK || type == 0 ? KIND_DISK : KIND_UNKNOWN;
    if (!strcasecmp(settings->class_name, "Msvm_ResourceAllocationSettingData"))
        return type == TYPE_IDE || type == TYPE_SCSI || type == TYPE_DRIVE ? KIND_IMPLIED : KIND_UNKNOWN;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (!strcasecmp(settings->class_name, classes[i].class_name))
            return classes[i].kind;
    return KIND_UNKNOWN;
}

static int unknown(const struct rp_cim_instance *settings, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_UNSUPPORTED, "a VM of this host has no %.100s of type %llu", settings->class_name,
                   (unsigned long long)rp_cim_get_unsigned(settings, "ResourceType", 0));
}

static struct rp_cim_instance *resource(const struct rp_hostd_call *call, const char *parameter, size_t i,
                                        struct rp_error *err)
{
    return rp_method_embedded_at(call, parameter, i, "CIM_ResourceAllocationSettingData", err);
}

// The file of a disk; canonical, and all that it reads from is where clients may name files.
static char *image_of(const struct rp_hostd_call *call, const struct rp_cim_instance *settings, struct rp_error *err)
{
    RP_CLEANUP(rp_method_file_clear) struct rp_method_file file = {0};
    if (rp_method_file_free(call, rp_cim_get_text_at(settings, "HostResource", 0), "HostResource", &file, err) ||
        rp_method_file_parents(call, file.path, "HostResource", err))
        return NULL;
    char *path = file.path;
    file.path = NULL;
    return path;
}

void rp_method_resources_keep(struct rp_cim_instances *extras, const char *suffix,
                              const struct rp_cim_instance *settings)
{
    static const char *const own[] = {
        "InstanceID",
        "ElementName",
        "Caption",
        "Description",
        "VirtualSystemIdentifier",
        "VirtualSystemType",
        "CreationTime",
        "ConfigurationID",
        "ConfigurationDataRoot",
        "ConfigurationFile",
        "SnapshotDataRoot",
        "SuspendDataRoot",
        "SwapFileDataRoot",
        "LogDataRoot",
        "RecoveryFile",
        "GuestStateFile",
        "GuestStateDataRoot",
        "Parent",
        "IsSaved",
        "IsAutomaticSnapshot",
        "IncrementalBackupEnabled",
        "HostResource",
        "VirtualSystemIdentifiers",
    };
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *kept = rp_cim_instance_new(NULL, settings->class_name);
    bool system = !*suffix; // of the VM itself the host knows more than of what is in it
    for (size_t i = 0; i < settings->count; i++) {
        bool ours = false;
        for (size_t j = 0; j < sizeof own / sizeof *own; j++)
            ours |= !strcasecmp(own[j], settings->properties[i].name) &&
                    (system || (strcmp(own[j], "ElementName") && strcmp(own[j], "VirtualSystemIdentifiers")));
        if (!ours && !rp_cim_value_is_null(&settings->properties[i].value))
            rp_cim_set(kept, settings->properties[i].name, rp_cim_value_copy(&settings->properties[i].value));
    }
    rp_hostd_extras_merge(extras, suffix, kept);
}

char *rp_method_resources_text(const struct rp_cim_instances *extras)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    for (size_t i = 0; i < extras->count; i++)
        rp_cimxml_write(extras->items[i], &text);
    return rp_xstrdup(rp_buf_text(&text));
}

// "Microsoft:<GUID>\…" or "Microsoft:Definition\…", whose GUID says nothing: what comes after it; a new one when there
// is none.
static char *suffix_of(enum kind kind, const struct rp_cim_instance *settings)
{
    if (kind == KIND_PROCESSOR || kind == KIND_MEMORY)
        return rp_xstrdup(kind == KIND_PROCESSOR ? RP_HOSTD_PROCESSOR : RP_HOSTD_MEMORY);
    const char *id = rp_cim_get_text(settings, "InstanceID");
    const char *rest = id && strlen(id) < RP_HOST_ID ? strchr(id, '\\') : NULL;
    if (rest && strncasecmp(id, "Microsoft:Definition", strlen("Microsoft:Definition")))
        return rp_xstrdup(rest);
    RP_AUTO_FREE char *guid = rp_hostd_jobs_plan();
    return rp_xasprintf("\\%s", guid);
}

int rp_method_resources_sort(const struct rp_hostd_call *call, const char *parameter, struct rp_method_task *disks,
                             struct rp_cim_instances *extras, struct rp_error *err)
{
    for (size_t i = 0; i < rp_cim_get_count(call->in, parameter); i++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = resource(call, parameter, i, err);
        if (!settings)
            return -1;
        enum kind kind = kind_of(settings);
        if (kind == KIND_UNKNOWN)
            return unknown(settings, err);
        if (kind == KIND_DISK) {
            RP_AUTO_FREE char *path = image_of(call, settings, err);
            if (!path)
                return -1;
            rp_method_task_add(disks, path);
        } else if (kind != KIND_IMPLIED) {
            RP_AUTO_FREE char *suffix = suffix_of(kind, settings);
            rp_method_resources_keep(extras, suffix, settings);
        }
    }
    return 0;
}

// ---- adding ---------------------------------------------------------------------------------------------------------

static int add_disk(struct rp_host_connection *host, const char *vm_id, const char *path, char result[RP_HOST_ID],
                    struct rp_error *err)
{
    char job[RP_HOST_ID];
    return rp_method_wait(host, host->ops->add_disk(host, vm_id, path, job, result, err), job, result, err);
}

static int run_add(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                   struct rp_error *err)
{
    (void)hostd;
    const struct rp_method_task *task = context;
    return add_disk(host, task->vm_id, task->path, result, err);
}

static void push_path(struct rp_cim_value *array, struct rp_cim_path *path)
{
    struct rp_cim_value item = rp_cim_reference(path);
    rp_cim_value_push(array, &item);
}

// The controller ("…\<controller>\<n>") or the drive ("…\<controller>\<n>\<slot>\D") that a client asked for.
static struct rp_cim_path *implied_path(const struct rp_hostd_call *call, const struct rp_inventory_vm *vm,
                                        const struct rp_cim_instance *settings)
{
    char rest[RP_HOST_ID] = "\\f8b3781b-1e82-4818-a1c3-63d806ec15bb\\0\\0\\L"; // of a VM without disks
    if (vm->settings.disk_count)
        snprintf(rest, sizeof rest, "%s", strchr(vm->settings.disks[0].instance, '\\'));
    for (int cut = 0; cut < 2; cut++) // slot and letter go
        *strrchr(rest, '\\') = '\0';
    const char *slot = rp_cim_get_text(settings, "AddressOnParent");
    size_t used = strlen(rest);
    if (rp_cim_get_unsigned(settings, "ResourceType", 0) == TYPE_DRIVE)
        snprintf(rest + used, sizeof rest - used, "\\%.8s\\D", slot && *slot ? slot : "0");
    return rp_method_resource_path(call->hostd, "Msvm_ResourceAllocationSettingData", vm->vm.id, rest);
}

// What was added before something failed goes again.
static void take_back(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm_id,
                      const struct rp_method_task *added)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings now = {0};
    (void)hostd;
    if (host->ops->vm_settings(host, vm_id, &now, NULL))
        return;
    for (size_t i = 0; i < added->count; i++)
        for (size_t j = 0; j < now.disk_count; j++) {
            char job[RP_HOST_ID], made[RP_HOST_ID] = "";
            if (!strcmp(now.disks[j].instance, added->list[i]))
                rp_method_wait(host, host->ops->remove_disk(host, vm_id, now.disks[j].number, job, made, NULL), job,
                               made, NULL);
        }
}

struct adding {
    struct rp_method_found found;
    struct rp_cim_instances extras;
    struct rp_cim_value paths;
    struct rp_method_task *added;   // InstanceIDs of disks
    bool kept;
};
static void adding_clear(struct adding *adding)
{
    rp_method_release(&adding->found);
    rp_cim_instances_clear(&adding->extras);
    rp_cim_value_clear(&adding->paths);
    rp_method_task_free(adding->added);
}

static int add_one(const struct rp_hostd_call *call, struct rp_host_connection *host, struct adding *adding,
                   const struct rp_cim_instance *settings, struct rp_error *err)
{
    const struct rp_inventory_vm *vm = adding->found.vm;
    enum kind kind = kind_of(settings);
    if (kind == KIND_DISK) {
        RP_AUTO_FREE char *path = image_of(call, settings, err);
        char instance[RP_HOST_ID] = "";
        if (!path || add_disk(host, vm->vm.id, path, instance, err))
            return -1;
        rp_method_task_add(adding->added, instance);
        push_path(&adding->paths, rp_hostd_paths_disk(call->hostd, instance));
        return 0;
    }
    if (kind == KIND_IMPLIED) {
        push_path(&adding->paths, implied_path(call, vm, settings));
        return 0;
    }
    if (kind != KIND_KEPT)
        return rp_fail(err, RP_ERR_INVALID, "%s: every VM has one, which is modified", settings->class_name);
    RP_AUTO_FREE char *guid = rp_hostd_jobs_plan();
    RP_AUTO_FREE char *suffix = rp_xasprintf("\\%s", guid);
    rp_method_resources_keep(&adding->extras, suffix, settings);
    push_path(&adding->paths, rp_method_resource_path(call->hostd, settings->class_name, vm->vm.id, suffix));
    adding->kept = true;
    return 0;
}

static int add_all(const struct rp_hostd_call *call, struct rp_host_connection *host, struct adding *adding,
                   struct rp_error *err)
{
    const char *vm_id = adding->found.vm->vm.id;
    if (rp_hostd_extras_load(host, vm_id, &adding->extras, err))
        return -1;
    for (size_t i = 0; i < rp_cim_get_count(call->in, "ResourceSettings"); i++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
            resource(call, "ResourceSettings", i, err);
        if (!settings || add_one(call, host, adding, settings, err))
            return -1;
    }
    return adding->kept ? rp_hostd_extras_store(host, vm_id, &adding->extras, err) : 0;
}

// One disk is added by a job: an image that is no VHDX is converted first. Several things at once are added before the
// answer: a job tells one result only.
int rp_method_resources_add(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(adding_clear) struct adding adding = {.paths = rp_cim_null(RP_CIM_REFERENCE, true)};
    size_t count = rp_cim_get_count(call->in, "ResourceSettings");
    if (rp_method_settings(call, "AffectedConfiguration", RP_METHOD_ANY, &adding.found, err))
        return -1;
    if (adding.found.snapshot)
        return rp_fail(err, RP_ERR_INVALID, "AffectedConfiguration: a checkpoint does not change");
    if (!count)
        return rp_fail(err, RP_ERR_INVALID, "ResourceSettings is missing");
    for (size_t i = 0; i < count; i++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
            resource(call, "ResourceSettings", i, err);
        if (!settings || (kind_of(settings) == KIND_UNKNOWN && unknown(settings, err)))
            return -1;
        if (count > 1 || kind_of(settings) != KIND_DISK)
            continue;
        RP_AUTO_FREE char *path = image_of(call, settings, err);
        if (!path)
            return -1;
        struct rp_method_task *task = rp_method_task_new(adding.found.vm, adding.found.vm->vm.id);
        task->path = path;
        path = NULL;
        return rp_method_start(call, (struct rp_hostd_job){.type = 30, .caption = "Adding Virtual Machine Resources",
            .result = RP_HOSTD_DISK, .run = run_add}, task, status, err);
    }
    adding.added = rp_method_task_new(NULL, NULL);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = host ? add_all(call, host, &adding, err) : -1;
    if (rc && host)
        take_back(call->hostd, host, adding.found.vm->vm.id, adding.added);
    rp_hostd_hosts_return(call->hostd, host);
    if (rc)
        return -1;
    rp_cim_set(call->out, "ResultingResourceSettings", adding.paths);
    adding.paths = rp_cim_null(RP_CIM_REFERENCE, true);
    *status = 0;
    return 0;
}

// ---- modifying ------------------------------------------------------------------------------------------------------

// A disk of a planned VM gets another file; one of a VM only the file that it has.
static int modify_disk(const struct rp_hostd_call *call, struct rp_host_connection *host,
                       const struct rp_method_found *found, const struct rp_cim_instance *settings, const char *id,
                       struct rp_error *err)
{
    const struct rp_vm_disk *disk = rp_method_disk(found->vm, id);
    const char *wanted = rp_cim_get_text_at(settings, "HostResource", 0);
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    if (!disk)
        return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.120s\": no such disk", id);
    if (!wanted || !*wanted || !strcmp(wanted, disk->path))
        return 0;
    if (!found->planned)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "disk%u of VM %s: its file changes only while the VM is planned",
                       disk->number, found->vm->vm.id);
    RP_AUTO_FREE char *path = image_of(call, settings, err);
    if (!path)
        return -1;
    return rp_method_wait(host, host->ops->modify_disk(host, disk->instance, path, job, made, err), job, made, err);
}

static int modify_one(const struct rp_hostd_call *call, struct rp_host_connection *host,
                      const struct rp_cim_instance *settings, struct rp_cim_value *paths, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances extras = {0};
    const char *id = rp_cim_get_text(settings, "InstanceID"), *rest;
    enum kind kind = kind_of(settings);
    if (rp_method_instance(call->hostd, id, RP_METHOD_ANY, &found, &rest, err))
        return -1;
    if (found.snapshot)
        return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.120s\": a checkpoint does not change", id);
    if (kind == KIND_DISK) {
        if (modify_disk(call, host, &found, settings, id, err))
            return -1;
    } else if (kind == KIND_IMPLIED || kind == KIND_UNKNOWN) {
        return unknown(settings, err);
    } else {
        if ((kind == KIND_PROCESSOR && strcasecmp(rest, RP_HOSTD_PROCESSOR)) ||
            (kind == KIND_MEMORY && strcasecmp(rest, RP_HOSTD_MEMORY)))
            return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.120s\": no such %s", id, settings->class_name);
        if (rp_hostd_extras_load(host, found.vm->vm.id, &extras, err))
            return -1;
        size_t before = extras.count;
        rp_method_resources_keep(&extras, rest, settings);
        if (kind == KIND_KEPT && extras.count > before)
            return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.120s\": no such %s", id, settings->class_name);
        if (rp_hostd_extras_store(host, found.vm->vm.id, &extras, err))
            return -1;
    }
    push_path(paths, rp_method_resource_path(call->hostd, settings->class_name, found.vm->vm.id, rest));
    return 0;
}

// One after the other; what was modified before one fails stays, as on Windows.
int rp_method_resources_modify(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    size_t count = rp_cim_get_count(call->in, "ResourceSettings");
    if (!count)
        return rp_fail(err, RP_ERR_INVALID, "ResourceSettings is missing");
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    struct rp_cim_value paths = rp_cim_null(RP_CIM_REFERENCE, true);
    int rc = host ? 0 : -1;
    for (size_t i = 0; !rc && i < count; i++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings =
            resource(call, "ResourceSettings", i, err);
        rc = settings ? modify_one(call, host, settings, &paths, err) : -1;
    }
    rp_hostd_hosts_return(call->hostd, host);
    if (rc) {
        rp_cim_value_clear(&paths);
        return -1;
    }
    rp_cim_set(call->out, "ResultingResourceSettings", paths);
    *status = 0;
    return 0;
}

// ---- removing -------------------------------------------------------------------------------------------------------

static bool listed(const struct rp_method_task *task, const char *text)
{
    for (size_t i = 0; i < task->count; i++)
        if (!strcasecmp(task->list[i], text))
            return true;
    return false;
}

static int remove_extras(struct rp_host_connection *host, const struct rp_method_task *task, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances extras = {0}, left = {0};
    if (rp_hostd_extras_load(host, task->vm_id, &extras, err))
        return -1;
    for (size_t i = 0; i < extras.count; i++) {
        const char *suffix = rp_cim_get_text(extras.items[i], "InstanceID");
        if (!suffix || !listed(task, suffix))
            rp_cim_instances_push(&left, rp_cim_instance_copy(extras.items[i]));
    }
    return left.count == extras.count ? 0 : rp_hostd_extras_store(host, task->vm_id, &left, err);
}

// The list has the suffixes of what is to go; disks are found anew, by then they may be gone.
static int run_remove(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    (void)hostd, (void)result;
    const struct rp_method_task *task = context;
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings now = {0};
    if (host->ops->vm_settings(host, task->vm_id, &now, err))
        return -1;
    for (size_t i = 0; i < now.disk_count; i++) {
        char job[RP_HOST_ID], made[RP_HOST_ID] = "";
        if (!listed(task, strchr(now.disks[i].instance, '\\')))
            continue;
        int rc = host->ops->remove_disk(host, task->vm_id, now.disks[i].number, job, made, err);
        if (rp_method_wait(host, rc, job, made, err))
            return -1;
    }
    return remove_extras(host, task, err);
}

// A drive goes with its disk, and a controller with its VM.
int rp_method_resources_remove(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    size_t count = rp_cim_get_count(call->in, "ResourceSettings"), disks = 0;
    const struct rp_vm_disk *last = NULL;
    struct rp_method_task *task = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct rp_cim_path *path = rp_cim_get_path_at(call->in, "ResourceSettings", i);
        const char *id = path ? rp_cim_path_get(path, "InstanceID") : NULL, *rest;
        RP_CLEANUP(rp_method_release) struct rp_method_found this = {0};
        if (rp_method_instance(call->hostd, id, RP_METHOD_ANY, &this, &rest, err))
            goto fail;
        if (this.snapshot || (task && strcmp(task->vm_id, this.vm->vm.id))) {
            rp_fail(err, RP_ERR_INVALID, "\"%.120s\": %s", id,
                    this.snapshot ? "a checkpoint does not change" : "of another VM");
            goto fail;
        }
        if (!task) {
            task = rp_method_task_new(this.vm, NULL);
            found = this;
            this = (struct rp_method_found){0};
        }
        const struct rp_vm_disk *disk = rp_method_disk(found.vm, id);
        const char *suffix = disk ? strchr(disk->instance, '\\') : rest;
        if (!disk && (!strcasecmp(rest, RP_HOSTD_PROCESSOR) || !strcasecmp(rest, RP_HOSTD_MEMORY) || !*rest)) {
            rp_fail(err, RP_ERR_INVALID, "\"%.120s\": a VM cannot do without", id);
            goto fail;
        }
        size_t length = strlen(suffix);
        if (!disk && length > 2 && !strcasecmp(suffix + length - 2, "\\L")) {
            rp_fail(err, RP_ERR_INVALID, "\"%.120s\": no such disk", id);
            goto fail;
        }
        if (listed(task, suffix))
            continue;
        rp_method_task_add(task, suffix);
        disks += disk != NULL;
        last = disk ? disk : last;
    }
    if (!task)
        return rp_fail(err, RP_ERR_INVALID, "ResourceSettings is missing");
    struct rp_hostd_job job = {.type = 32, .caption = "Removing Virtual Machine Resources", .run = run_remove};
    if (disks == 1 && task->count == 1) {
        job.result = RP_HOSTD_DISK;
        job.makes_gone = true;
        job.target = last->instance;
    }
    return rp_method_start(call, job, task, status, err);
fail:
    rp_method_task_free(task);
    return -1;
}
