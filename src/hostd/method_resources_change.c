// AddResourceSettings, ModifyResourceSettings and RemoveResourceSettings (facts/wmi.md 1.6): several resources of one VM
// in one call, all of them or none.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "disk/convert.h"
#include "hostd/method.h"

enum { TYPE_DRIVE = 17 }; // ResourceType

static void push_path(struct rp_cim_value *array, struct rp_cim_path *path)
{
    struct rp_cim_value item = rp_cim_reference(path);
    rp_cim_value_push(array, &item);
}

// One of the resources of a call.
struct item {
    struct rp_cim_instance *settings;
    enum rp_method_kind kind;
    char *file;             // of a disk; modifying: NULL when it stays
    char *suffix;           // of what is kept; of a disk when it is there: its InstanceID
    char *old;              // modifying a disk: its file so far
};
struct request {
    struct rp_method_found found;
    struct item *items;
    size_t count;
    struct rp_cim_value paths;
};

static void request_clear(struct request *request)
{
    for (size_t i = 0; i < request->count; i++) {
        rp_cim_instance_free(request->items[i].settings);
        free(request->items[i].file);
        free(request->items[i].suffix);
        free(request->items[i].old);
    }
    free(request->items);
    rp_method_release(&request->found);
    rp_cim_value_clear(&request->paths);
}

static int read_items(const struct rp_hostd_call *call, struct request *request, struct rp_error *err)
{
    size_t count = rp_cim_get_count(call->in, "ResourceSettings");
    if (!count)
        return rp_fail(err, RP_ERR_INVALID, "ResourceSettings is missing");
    request->items = rp_xcalloc(count, sizeof *request->items);
    for (; request->count < count; request->count++) {
        struct item *item = &request->items[request->count];
        item->settings = rp_method_resource(call, request->count, &item->kind, err);
        if (!item->settings)
            return -1;
    }
    return 0;
}

static int answer(const struct rp_hostd_call *call, struct request *request, uint32_t *status)
{
    rp_cim_set(call->out, "ResultingResourceSettings", request->paths);
    request->paths = rp_cim_null(RP_CIM_REFERENCE, true);
    *status = 0;
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

// Everything that can be known before anything is done.
static int check_added(const struct rp_hostd_call *call, struct request *request, struct rp_error *err)
{
    for (size_t i = 0; i < request->count; i++) {
        struct item *item = &request->items[i];
        if (item->kind == RP_METHOD_PROCESSOR || item->kind == RP_METHOD_MEMORY)
            return rp_fail(err, RP_ERR_INVALID, "%s: every VM has one, which is modified", item->settings->class_name);
        if (item->kind == RP_METHOD_DISK && request->found.planned)
            return rp_fail(err, RP_ERR_UNSUPPORTED, "planned VM %s has the disks that it was defined with",
                           request->found.vm->vm.id);
        if (item->kind == RP_METHOD_DISK && !(item->file = rp_method_resource_file(call, item->settings, err)))
            return -1;
        for (size_t j = 0; item->file && j < i; j++)
            if (request->items[j].file && !strcmp(request->items[j].file, item->file))
                return rp_fail(err, RP_ERR_INVALID, "HostResource: %s stands there twice", item->file);
        if (item->kind == RP_METHOD_KEPT) {
            RP_AUTO_FREE char *guid = rp_hostd_jobs_plan();
            item->suffix = rp_xasprintf("\\%s", guid);
        }
    }
    return 0;
}

static int keep_added(struct rp_cim_instances *extras, void *context, struct rp_error *err)
{
    (void)err;
    const struct request *request = context;
    for (size_t i = 0; i < request->count; i++)
        if (request->items[i].kind == RP_METHOD_KEPT)
            rp_method_resources_keep(extras, request->items[i].suffix, request->items[i].settings);
    return 0;
}

// The disks that were added before something failed go again.
static void take_back(struct rp_host_connection *host, const struct request *request)
{
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings now = {0};
    const char *vm_id = request->found.vm->vm.id;
    if (host->ops->vm_settings(host, vm_id, &now, NULL))
        return;
    for (size_t i = 0; i < request->count; i++)
        for (size_t j = 0; j < now.disk_count; j++) {
            const struct item *item = &request->items[i];
            char job[RP_HOST_ID], made[RP_HOST_ID] = "";
            if (item->kind == RP_METHOD_DISK && item->suffix && !strcmp(now.disks[j].instance, item->suffix))
                rp_method_wait(host, host->ops->remove_disk(host, vm_id, now.disks[j].number, job, made, NULL), job,
                               made, NULL);
        }
}

static int add_all(struct rp_host_connection *host, struct request *request, struct rp_error *err)
{
    const char *vm_id = request->found.vm->vm.id;
    bool kept = false;
    for (size_t i = 0; i < request->count; i++) {
        struct item *item = &request->items[i];
        char instance[RP_HOST_ID] = "";
        kept |= item->kind == RP_METHOD_KEPT;
        if (item->kind != RP_METHOD_DISK)
            continue;
        if (add_disk(host, vm_id, item->file, instance, err))
            return -1;
        item->suffix = rp_xstrdup(instance);
    }
    return kept ? rp_method_extras_change(host, vm_id, keep_added, request, err) : 0;
}

static bool is_vhdx(const struct rp_hostd_call *call, const char *path)
{
    enum rp_image_format format;
    return !rp_image_detect(&call->hostd->files.fs, path, &format, NULL) && format == RP_IMAGE_VHDX;
}

static struct rp_cim_path *added_path(const struct rp_hostd_call *call, const struct request *request,
                                      const struct item *item)
{
    if (item->kind == RP_METHOD_IMPLIED)
        return implied_path(call, request->found.vm, item->settings);
    if (item->kind == RP_METHOD_DISK)
        return rp_hostd_paths_disk(call->hostd, item->suffix);
    return rp_method_resource_path(call->hostd, item->settings->class_name, request->found.vm->vm.id, item->suffix);
}

// One disk is added by a job: an image that is no VHDX is converted first. Several things at once are added before the
// answer: a job tells one result only.
int rp_method_resources_add(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(request_clear) struct request request = {.paths = rp_cim_null(RP_CIM_REFERENCE, true)};
    if (rp_method_settings(call, "AffectedConfiguration", RP_METHOD_ANY, &request.found, err))
        return -1;
    if (request.found.snapshot)
        return rp_fail(err, RP_ERR_INVALID, "AffectedConfiguration: a checkpoint does not change");
    if (read_items(call, &request, err) || check_added(call, &request, err))
        return -1;
    const struct rp_inventory_vm *vm = request.found.vm;
    if (request.count == 1 && request.items[0].kind == RP_METHOD_DISK) {
        struct rp_method_task *task = rp_method_task_new(vm, vm->vm.id);
        task->path = rp_xstrdup(request.items[0].file);
        // After a kill a VHDX is found by its path; another image is a file of the host's own by then.
        return rp_method_start(call, (struct rp_hostd_job){.type = 30, .caption = "Adding Virtual Machine Resources",
            .result = RP_HOSTD_DISK, .planned = is_vhdx(call, task->path) ? task->path : NULL, .run = run_add}, task,
            status, err);
    }
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = host ? add_all(host, &request, err) : -1;
    if (rc && host)
        take_back(host, &request);
    rp_hostd_hosts_return(call->hostd, host);
    for (size_t i = 0; !rc && i < request.count; i++)
        push_path(&request.paths, added_path(call, &request, &request.items[i]));
    return rc ? -1 : answer(call, &request, status);
}

// ---- modifying ------------------------------------------------------------------------------------------------------

// A disk of a planned VM gets another file; one of a VM only the file that it has.
static int check_modified_disk(const struct rp_hostd_call *call, const struct rp_method_found *found,
                               struct item *item, const char *id, struct rp_error *err)
{
    const struct rp_vm_disk *disk = rp_method_disk(found->vm, id);
    const char *wanted = rp_cim_get_text_at(item->settings, "HostResource", 0);
    item->old = rp_xstrdup(disk->path ? disk->path : "");
    if (!wanted || !*wanted || !strcmp(wanted, item->old))
        return 0;
    if (!found->planned)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "disk%u of VM %s: its file changes only while the VM is planned",
                       disk->number, found->vm->vm.id);
    free(item->suffix);
    item->suffix = rp_xstrdup(disk->instance);
    item->file = rp_method_resource_file(call, item->settings, err);
    return item->file ? 0 : -1;
}

static int check_modified(const struct rp_hostd_call *call, struct request *request, struct item *item,
                          struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    const char *id = rp_cim_get_text(item->settings, "InstanceID"), *rest;
    const char *class_name = item->settings->class_name;
    if (rp_method_instance(call->hostd, id, RP_METHOD_ANY, &found, &rest, err))
        return -1;
    if (found.snapshot)
        return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.120s\": a checkpoint does not change", id);
    if (request->found.vm && strcasecmp(request->found.vm->vm.id, found.vm->vm.id))
        return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.120s\": of another VM than the resources before it", id);
    if (item->kind == RP_METHOD_IMPLIED)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "InstanceID \"%.120s\": controllers and drives are as they are", id);
    if ((item->kind == RP_METHOD_PROCESSOR && strcasecmp(rest, RP_HOSTD_PROCESSOR)) ||
        (item->kind == RP_METHOD_MEMORY && strcasecmp(rest, RP_HOSTD_MEMORY)))
        return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.120s\": no such %s", id, class_name);
    item->suffix = rp_xstrdup(rest);
    if (item->kind == RP_METHOD_DISK && !rp_method_disk(found.vm, id))
        item->kind = RP_METHOD_KEPT; // a medium, when there is one
    if (item->kind == RP_METHOD_DISK && check_modified_disk(call, &found, item, id, err))
        return -1;
    push_path(&request->paths, rp_method_resource_path(call->hostd, class_name, found.vm->vm.id, rest));
    if (!request->found.vm) {
        request->found = found;
        found = (struct rp_method_found){0};
    }
    return 0;
}

static int keep_modified(struct rp_cim_instances *extras, void *context, struct rp_error *err)
{
    const struct request *request = context;
    for (size_t i = 0; i < request->count; i++) {
        const struct item *item = &request->items[i];
        if (item->kind == RP_METHOD_DISK)
            continue;
        if (item->kind == RP_METHOD_KEPT &&
            !rp_hostd_extras_find(extras, item->settings->class_name, item->suffix))
            return rp_fail(err, RP_ERR_INVALID, "InstanceID \"…%.120s\": no such %s", item->suffix,
                           item->settings->class_name);
        rp_method_resources_keep(extras, item->suffix, item->settings);
    }
    return 0;
}

static int set_file(struct rp_host_connection *host, const struct item *item, const char *file, struct rp_error *err)
{
    char job[RP_HOST_ID], made[RP_HOST_ID] = "";
    return rp_method_wait(host, host->ops->modify_disk(host, item->suffix, file, job, made, err), job, made, err);
}

// What is kept first: it is checked as a whole, and can always be put back.
static int modify_all(struct rp_host_connection *host, struct request *request, struct rp_error *err)
{
    RP_AUTO_FREE char *before = NULL;
    const char *vm_id = request->found.vm->vm.id;
    if (rp_host_local_extras(host, vm_id, &before, err) ||
        rp_method_extras_change(host, vm_id, keep_modified, request, err))
        return -1;
    for (size_t i = 0; i < request->count; i++) {
        if (!request->items[i].file || !set_file(host, &request->items[i], request->items[i].file, err))
            continue;
        while (i-- > 0)
            if (request->items[i].file && *request->items[i].old)
                set_file(host, &request->items[i], request->items[i].old, NULL);
        rp_host_local_set_extras(host, vm_id, before, NULL);
        return -1;
    }
    return 0;
}

int rp_method_resources_modify(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(request_clear) struct request request = {.paths = rp_cim_null(RP_CIM_REFERENCE, true)};
    if (read_items(call, &request, err))
        return -1;
    for (size_t i = 0; i < request.count; i++)
        if (check_modified(call, &request, &request.items[i], err))
            return -1;
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = host ? modify_all(host, &request, err) : -1;
    rp_hostd_hosts_return(call->hostd, host);
    return rc ? -1 : answer(call, &request, status);
}

// ---- removing -------------------------------------------------------------------------------------------------------

static bool is_listed(const struct rp_method_task *task, const char *text)
{
    for (size_t i = 0; i < task->count; i++)
        if (!strcasecmp(task->list[i], text))
            return true;
    return false;
}

static int keep_others(struct rp_cim_instances *extras, void *context, struct rp_error *err)
{
    (void)err;
    const struct rp_method_task *task = context;
    size_t left = 0;
    for (size_t i = 0; i < extras->count; i++) {
        const char *suffix = rp_cim_get_text(extras->items[i], "InstanceID");
        if (suffix && *suffix && is_listed(task, suffix))
            rp_cim_instance_free(extras->items[i]);
        else
            extras->items[left++] = extras->items[i];
    }
    extras->count = left;
    return 0;
}

// The list has the suffixes of what is to go; disks are found anew, by then they may be gone.
static int run_remove(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    (void)hostd, (void)result;
    struct rp_method_task *task = context;
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings now = {0};
    if (host->ops->vm_settings(host, task->vm_id, &now, err))
        return -1;
    for (size_t i = 0; i < now.disk_count; i++) {
        char job[RP_HOST_ID], made[RP_HOST_ID] = "";
        if (!is_listed(task, strchr(now.disks[i].instance, '\\')))
            continue;
        int rc = host->ops->remove_disk(host, task->vm_id, now.disks[i].number, job, made, err);
        if (rp_method_wait(host, rc, job, made, err))
            return -1;
    }
    return rp_method_extras_change(host, task->vm_id, keep_others, task, err);
}

// "\<controller>\<n>" of a VM's disks, or the drive of one that is not there: they are there as long as they are needed,
// and who removes one that he has added before has nothing to wait for.
static bool is_implied(const char *rest)
{
    size_t length = strlen(rest), parts = 0;
    for (const char *c = rest; *c; c++)
        parts += *c == '\\';
    return parts == 2 || (parts == 4 && !strcasecmp(rest + length - 2, "\\D"));
}

// What a disk's removal needs is asked of the host again when it is done; known before, nothing of the call is done.
static int check_removed_disk(const struct rp_method_found *found, const struct rp_vm_disk *disk, struct rp_error *err)
{
    const struct rp_inventory_vm *vm = found->vm;
    if (found->planned)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "planned VM %s has the disks that it was defined with", vm->vm.id);
    if (vm->vm.state != RP_VM_OFF)
        return rp_fail(err, RP_ERR_STATE, "disk%u: VM %s is %s: it has to be off", disk->number, vm->vm.id,
                       rp_vm_state_name(vm->vm.state));
    for (size_t i = 0; i < vm->snapshots.count; i++)
        if (!vm->snapshots.items[i].merging)
            return rp_fail(err, RP_ERR_STATE, "disk%u: VM %s has checkpoints", disk->number, vm->vm.id);
    return 0;
}

struct removal {
    struct rp_method_found found;
    struct rp_method_task *task;
    struct rp_cim_instances extras;
    const struct rp_vm_disk *disk; // the last of them
    size_t disks;
};

static void removal_clear(struct removal *removal)
{
    rp_method_release(&removal->found);
    rp_method_task_free(removal->task);
    rp_cim_instances_clear(&removal->extras);
}

static int begin_removal(const struct rp_hostd_call *call, struct removal *removal, struct rp_method_found *first,
                         struct rp_error *err)
{
    removal->found = *first;
    *first = (struct rp_method_found){0};
    removal->task = rp_method_task_new(removal->found.vm, NULL);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(call->hostd, err);
    int rc = host ? rp_hostd_extras_load(host, removal->task->vm_id, &removal->extras, err) : -1;
    rp_hostd_hosts_return(call->hostd, host);
    return rc;
}

static int add_removed(const struct rp_hostd_call *call, struct removal *removal, const struct rp_cim_path *path,
                       struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found this = {0};
    const char *id = path ? rp_cim_path_get(path, "InstanceID") : NULL, *rest;
    if (rp_method_instance(call->hostd, id, RP_METHOD_ANY, &this, &rest, err))
        return -1;
    if (this.snapshot)
        return rp_fail(err, RP_ERR_INVALID, "\"%.120s\": a checkpoint does not change", id);
    if (removal->task && strcmp(removal->task->vm_id, this.vm->vm.id))
        return rp_fail(err, RP_ERR_INVALID, "\"%.120s\": of another VM", id);
    if (!removal->task && begin_removal(call, removal, &this, err))
        return -1;
    if (!*rest || !strcasecmp(rest, RP_HOSTD_PROCESSOR) || !strcasecmp(rest, RP_HOSTD_MEMORY))
        return rp_fail(err, RP_ERR_INVALID, "\"%.120s\": a VM cannot do without", id);
    const struct rp_vm_disk *disk = rp_method_disk(removal->found.vm, id);
    if (disk && check_removed_disk(&removal->found, disk, err))
        return -1;
    if (!disk && !rp_hostd_extras_find(&removal->extras, NULL, rest) && !is_implied(rest))
        return rp_fail(err, RP_ERR_INVALID, "\"%.120s\": no such %s", id, path->class_name);
    const char *suffix = disk ? strchr(disk->instance, '\\') : rest;
    if (is_listed(removal->task, suffix))
        return 0;
    rp_method_task_add(removal->task, suffix);
    removal->disks += disk != NULL;
    removal->disk = disk ? disk : removal->disk;
    return 0;
}

// A drive goes with its disk, and a controller with its VM.
int rp_method_resources_remove(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(removal_clear) struct removal removal = {0};
    for (size_t i = 0; i < rp_cim_get_count(call->in, "ResourceSettings"); i++)
        if (add_removed(call, &removal, rp_cim_get_path_at(call->in, "ResourceSettings", i), err))
            return -1;
    if (!removal.task)
        return rp_fail(err, RP_ERR_INVALID, "ResourceSettings is missing");
    struct rp_hostd_job job = {.type = 32, .caption = "Removing Virtual Machine Resources", .run = run_remove};
    if (removal.disks == 1 && removal.task->count == 1) {
        job.result = RP_HOSTD_DISK;
        job.makes_gone = true;
        job.target = removal.disk->instance;
    }
    struct rp_method_task *task = removal.task;
    removal.task = NULL;
    return rp_method_start(call, job, task, status, err);
}
