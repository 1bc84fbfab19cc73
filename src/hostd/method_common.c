// What several methods need: references, embedded settings, settings that are only kept, jobs.
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "cim/cimxml.h"
#include "hostd/method.h"

#define PREFIX "Microsoft:"

const char *rp_method_guid(const char *id)
{
    return strncasecmp(id, PREFIX, strlen(PREFIX)) ? id : id + strlen(PREFIX);
}

// Whether two ids name the same, with or without the prefix.
static bool same(const char *a, const char *b)
{
    return !strcasecmp(rp_method_guid(a), rp_method_guid(b));
}

void rp_method_release(struct rp_method_found *found)
{
    if (found->inventory)
        rp_hostd_hosts_release(found->hostd, found->inventory);
    *found = (struct rp_method_found){0};
}

static int look(struct rp_hostd *hostd, struct rp_method_found *found, struct rp_error *err)
{
    *found = (struct rp_method_found){.hostd = hostd};
    found->inventory = rp_hostd_hosts_inventory(hostd, err);
    return found->inventory ? 0 : -1;
}

static const struct rp_inventory_vm *find_vm(const struct rp_inventory *inventory, const char *id)
{
    for (size_t i = 0; inventory && i < inventory->count; i++)
        if (same(inventory->items[i].vm.id, id))
            return &inventory->items[i];
    return NULL;
}

static bool find_among(struct rp_method_found *found, enum rp_method_which which, const char *id)
{
    found->vm = which & RP_METHOD_REAL ? find_vm(found->inventory, id) : NULL;
    found->planned = false;
    if (!found->vm && which & RP_METHOD_PLANNED) {
        found->vm = find_vm(rp_hostd_hosts_planned(found->inventory), id);
        found->planned = found->vm != NULL;
    }
    return found->vm != NULL;
}

// One that is being merged is no settings any more.
static bool find_snapshot(struct rp_method_found *found, const char *id)
{
    for (size_t i = 0; i < found->inventory->count; i++) {
        const struct rp_inventory_vm *vm = &found->inventory->items[i];
        for (size_t j = 0; j < vm->snapshots.count; j++) {
            if (vm->snapshots.items[j].merging || !same(vm->snapshots.items[j].id, id))
                continue;
            found->vm = vm;
            found->snapshot = &vm->snapshots.items[j];
            return true;
        }
    }
    return false;
}

static const struct rp_cim_path *reference(const struct rp_hostd_call *call, const char *parameter,
                                           struct rp_error *err)
{
    const struct rp_cim_path *path = rp_cim_get_path(call->in, parameter);
    if (!path)
        rp_fail(err, RP_ERR_INVALID, "%s is missing", parameter);
    return path;
}

static int bad_reference(const char *what, const struct rp_error *why, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_INVALID, "%s: %s", what, why->text);
}

int rp_method_vm_at(struct rp_hostd *hostd, const struct rp_cim_path *path, enum rp_method_which which,
                    const char *what, struct rp_method_found *found, struct rp_error *err)
{
    char id[RP_HOST_ID];
    struct rp_error why = {0};
    if (rp_hostd_paths_to_vm(path, id, &why))
        return bad_reference(what, &why, err);
    if (look(hostd, found, err))
        return -1;
    // A planned VM may have the id of the one that it is a copy of: the class tells them apart.
    bool planned = !strcasecmp(path->class_name, "Msvm_PlannedComputerSystem");
    if (planned)
        which &= RP_METHOD_PLANNED;
    else if (!strcasecmp(path->class_name, "Msvm_ComputerSystem"))
        which &= RP_METHOD_REAL;
    if (!find_among(found, which, id))
        return rp_fail(err, RP_ERR_INVALID, "%s: there is no %s %.100s", what,
                       planned ? "planned virtual machine" : "virtual machine", id);
    return 0;
}

int rp_method_vm(const struct rp_hostd_call *call, const char *parameter, enum rp_method_which which,
                 struct rp_method_found *found, struct rp_error *err)
{
    const struct rp_cim_path *path = reference(call, parameter, err);
    return path ? rp_method_vm_at(call->hostd, path, which, parameter, found, err) : -1;
}

int rp_method_settings_at(struct rp_hostd *hostd, const struct rp_cim_path *path, enum rp_method_which which,
                          const char *what, struct rp_method_found *found, struct rp_error *err)
{
    char id[RP_HOST_ID];
    struct rp_error why = {0};
    if (rp_hostd_paths_to_snapshot(path, id, &why)) // or a VM's: told apart below, in one look at the inventory
        return bad_reference(what, &why, err);
    if (look(hostd, found, err))
        return -1;
    if (!find_snapshot(found, id) && !find_among(found, which, id))
        return rp_fail(err, RP_ERR_INVALID, "%s: there are no settings %.100s", what, id);
    return 0;
}

int rp_method_settings(const struct rp_hostd_call *call, const char *parameter, enum rp_method_which which,
                       struct rp_method_found *found, struct rp_error *err)
{
    const struct rp_cim_path *path = reference(call, parameter, err);
    return path ? rp_method_settings_at(call->hostd, path, which, parameter, found, err) : -1;
}

int rp_method_snapshot(const struct rp_hostd_call *call, const char *parameter, struct rp_method_found *found,
                       struct rp_error *err)
{
    if (rp_method_settings(call, parameter, RP_METHOD_ANY, found, err))
        return -1;
    if (!found->snapshot)
        return rp_fail(err, RP_ERR_INVALID, "%s: these are the settings of a virtual machine, not a checkpoint",
                       parameter);
    return 0;
}

int rp_method_point_at(struct rp_hostd *hostd, const struct rp_cim_path *path, const char *what,
                       struct rp_method_found *found, struct rp_error *err)
{
    char id[RP_HOST_ID];
    struct rp_error why = {0};
    if (rp_hostd_paths_to_point(path, id, &why))
        return bad_reference(what, &why, err);
    if (look(hostd, found, err))
        return -1;
    for (size_t i = 0; i < found->inventory->count; i++) {
        const struct rp_inventory_vm *vm = &found->inventory->items[i];
        for (size_t j = 0; j < vm->points.count; j++) {
            if (!same(vm->points.items[j].id, id))
                continue;
            found->vm = vm;
            found->point = &vm->points.items[j];
            return 0;
        }
    }
    return rp_fail(err, RP_ERR_INVALID, "%s: there is no reference point %.100s", what, id);
}

int rp_method_point(const struct rp_hostd_call *call, const char *parameter, struct rp_method_found *found,
                    struct rp_error *err)
{
    const struct rp_cim_path *path = reference(call, parameter, err);
    return path ? rp_method_point_at(call->hostd, path, parameter, found, err) : -1;
}

int rp_method_instance(struct rp_hostd *hostd, const char *instance_id, enum rp_method_which which,
                       struct rp_method_found *found, const char **rest, struct rp_error *err)
{
    char guid[RP_GUID_TEXT];
    const char *text = instance_id ? rp_method_guid(instance_id) : "";
    snprintf(guid, sizeof guid, "%s", text);
    *rest = text + strlen(guid);
    if (!*guid || (**rest && **rest != '\\'))
        return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.100s\" is not that of settings",
                       instance_id ? instance_id : "");
    if (look(hostd, found, err))
        return -1;
    if (!find_among(found, which, guid) && !find_snapshot(found, guid))
        return rp_fail(err, RP_ERR_INVALID, "InstanceID \"%.100s\": there is no such virtual machine or checkpoint",
                       instance_id);
    return 0;
}

const struct rp_vm_disk *rp_method_disk(const struct rp_inventory_vm *vm, const char *instance_id)
{
    const char *tail = strchr(instance_id, '\\');
    size_t length = tail ? strlen(tail) : 0;
    if (length < 2 || tail[length - 2] != '\\' || !strchr("LlDd", tail[length - 1]))
        return NULL;
    for (size_t i = 0; i < vm->settings.disk_count; i++) {
        const char *own = strchr(vm->settings.disks[i].instance, '\\');
        if (own && strlen(own) == length && !strncasecmp(own, tail, length - 1))
            return &vm->settings.disks[i];
    }
    return NULL;
}

// ---- embedded settings ----------------------------------------------------------------------------------------------

// Of a newer Windows, or of a role that this host has not got: settings of something, going by the name.
static bool is_strange(const char *class_name)
{
    static const char begin[] = "Msvm_", end[] = "SettingData";
    size_t length = strlen(class_name), least = strlen(begin) + strlen(end);
    return length > least && !strncasecmp(class_name, begin, strlen(begin)) &&
           !strcasecmp(class_name + length - strlen(end), end);
}

// `strange`: one of a class that is not in the schema is given as it came.
static struct rp_cim_instance *typed(const struct rp_hostd_call *call, const char *text, const char *what,
                                     const char *class_name, bool strange, struct rp_error *err)
{
    struct rp_error why = {0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *sent = rp_cimxml_parse(text, strlen(text), &why);
    if (!sent) {
        rp_fail(err, RP_ERR_INVALID, "%s: %s", what, why.text);
        return NULL;
    }
    const struct rp_cim_class *class = rp_cim_schema_class(call->hostd->virtualization.schema, sent->class_name);
    if (!class && strange && is_strange(sent->class_name))
        return rp_cim_instance_copy(sent);
    if (!rp_cim_class_is_named(class, class_name)) {
        rp_fail(err, RP_ERR_INVALID, "%s: an instance of %.100s is no %s", what, sent->class_name, class_name);
        return NULL;
    }
    struct rp_cim_instance *instance = rp_cim_instance_new(NULL, class->name);
    for (size_t i = 0; i < sent->count; i++)
        if (rp_cim_class_property(class, sent->properties[i].name))
            rp_cim_set(instance, sent->properties[i].name, rp_cim_value_copy(&sent->properties[i].value));
    if (!rp_cim_class_type(class, instance, &why))
        return instance;
    rp_cim_instance_free(instance);
    rp_fail(err, RP_ERR_INVALID, "%s: %s", what, why.text);
    return NULL;
}

struct rp_cim_instance *rp_method_embedded(const struct rp_hostd_call *call, const char *parameter,
                                           const char *class_name, struct rp_error *err)
{
    const char *text = rp_cim_get_text(call->in, parameter);
    return text && *text ? typed(call, text, parameter, class_name, false, err)
                         : rp_cim_instance_new(NULL, class_name);
}

struct rp_cim_instance *rp_method_embedded_at(const struct rp_hostd_call *call, const char *parameter, size_t i,
                                              const char *class_name, struct rp_error *err)
{
    const char *text = rp_cim_get_text_at(call->in, parameter, i);
    return typed(call, text ? text : "", parameter, class_name, true, err);
}

int rp_method_check_name(const char *name, const char *what, struct rp_error *err)
{
    size_t length = strlen(name);
    if (length == 0 || length > 255)
        return rp_fail(err, RP_ERR_INVALID, "%s: a name of %zu bytes is not possible (1 to 255)", what, length);
    if (!strcmp(name, RP_METHOD_EXPORT))
        return rp_fail(err, RP_ERR_INVALID, "%s: this name is for checkpoints of exports", what);
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
            return rp_fail(err, RP_ERR_INVALID, "%s: a control character is not possible in a name", what);
    return 0;
}

char *rp_method_default_name(const char *vm_name, const char *kind)
{
    char when[64];
    struct tm now;
    time_t seconds = (time_t)(rp_clock_wall_ns() / 1000000000);
    strftime(when, sizeof when, "%m/%d/%Y - %I:%M:%S %p", gmtime_r(&seconds, &now));
    return rp_xasprintf("%.180s%s - (%s)", vm_name, kind, when);
}

// ---- settings that are only kept ------------------------------------------------------------------------------------

// Two methods that change the settings of one VM at once must not lose what the other has done.
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

static int change_extras(struct rp_host_connection *host, const char *vm_id, rp_method_change_fn *change, void *context,
                         struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances extras = {0};
    return rp_hostd_extras_load(host, vm_id, &extras, err) || change(&extras, context, err) ||
                   rp_hostd_extras_store(host, vm_id, &extras, err) ? -1 : 0;
}

int rp_method_extras_change(struct rp_host_connection *host, const char *vm_id, rp_method_change_fn *change,
                            void *context, struct rp_error *err)
{
    pthread_mutex_lock(&changing);
    int rc = change_extras(host, vm_id, change, context, err);
    pthread_mutex_unlock(&changing);
    return rc;
}

// ---- results and jobs -----------------------------------------------------------------------------------------------

void rp_method_set_reference(const struct rp_hostd_call *call, const char *parameter, struct rp_cim_path *path)
{
    rp_cim_set(call->out, parameter, rp_cim_reference(path));
}

struct rp_cim_path *rp_method_resource_path(const struct rp_hostd *hostd, const char *class_name, const char *owner_id,
                                            const char *rest)
{
    RP_AUTO_FREE char *id = rp_xasprintf(PREFIX "%s%s", rp_method_guid(owner_id), rest);
    struct rp_cim_path *path = rp_cim_path_new(rp_cim_schema_namespace(hostd->virtualization.schema), class_name);
    path->host = rp_xstrdup(hostd->machine);
    rp_cim_path_set(path, "InstanceID", id);
    return path;
}

struct rp_method_task *rp_method_task_new(const struct rp_inventory_vm *vm, const char *id)
{
    struct rp_method_task *task = rp_xcalloc(1, sizeof *task);
    snprintf(task->vm_id, sizeof task->vm_id, "%s", vm ? vm->vm.id : "");
    snprintf(task->id, sizeof task->id, "%s", id ? id : "");
    return task;
}

void rp_method_task_add(struct rp_method_task *task, const char *text)
{
    task->list = rp_xrealloc(task->list, (task->count + 1) * sizeof *task->list);
    task->list[task->count++] = rp_xstrdup(text);
}

void rp_method_task_free(void *context)
{
    struct rp_method_task *task = context;
    if (!task)
        return;
    for (size_t i = 0; i < task->count; i++)
        free(task->list[i]);
    free(task->list);
    free(task->name);
    free(task->path);
    free(task->extras);
    free(task);
}

static bool makes_one(const struct rp_hostd_job *job)
{
    return !job->makes_gone && (job->result == RP_HOSTD_VM || job->result == RP_HOSTD_PLANNED ||
                                job->result == RP_HOSTD_SNAPSHOT || job->result == RP_HOSTD_POINT);
}

int rp_method_start(const struct rp_hostd_call *call, struct rp_hostd_job job, struct rp_method_task *task,
                    uint32_t *status, struct rp_error *err)
{
    RP_AUTO_FREE char *planned = NULL;
    if (!job.planned && makes_one(&job) && !job.target)
        job.planned = planned = rp_hostd_jobs_plan();
    if (!job.class_name)
        job.class_name = "Msvm_ConcreteJob";
    if (!job.vm_id)
        job.vm_id = task->vm_id;
    if (!job.target)
        job.target = task->id;
    job.context = task;
    job.free_context = rp_method_task_free;
    return rp_hostd_jobs_start(call->hostd, call->caller, &job, call->out, status, err);
}

int rp_method_wait(struct rp_host_connection *host, int rc, const char *job, char result[RP_HOST_ID],
                   struct rp_error *err)
{
    if (rc || !*job)
        return rc;
    return rp_host_wait(host, job, result, NULL, NULL, err);
}
