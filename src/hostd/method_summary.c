// GetSummaryInformation: what a manager's list of VMs shows, in one answer. Everything comes from the objects that
// could be asked for one by one.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hostd/core.h"
#include "hostd/method.h"

#define ONE_BY_ONE 8 // settings that are fetched each by itself; for more, all objects of a class are fetched at once

enum from { FROM_SETTINGS, FROM_SYSTEM, FROM_PROCESSOR, FROM_MEMORY, FROM_COUNT, FROM_NOWHERE };

// RequestedInformation: below 100 of VMs and checkpoints, above of VMs only. What no VM here has (a screen, a guest, a
// heartbeat, a replica) is NULL whoever asks for it.
static const struct {
    unsigned code;
    const char *property;
    enum from from;
    const char *source;
} items[] = {
    {1, "ElementName", FROM_SETTINGS, "ElementName"},
    {2, "CreationTime", FROM_SETTINGS, "CreationTime"},
    {3, "Notes", FROM_SETTINGS, "Notes"},
    {4, "NumberOfProcessors", FROM_PROCESSOR, "VirtualQuantity"},
    {10, "Version", FROM_SETTINGS, "Version"},
    {11, "Shielded", FROM_NOWHERE, NULL},
    {100, "EnabledState", FROM_SYSTEM, "EnabledState"},
    {103, "MemoryUsage", FROM_MEMORY, "VirtualQuantity"},
    {105, "UpTime", FROM_SYSTEM, "OnTimeInMilliseconds"},
    {107, "Snapshots", FROM_NOWHERE, NULL},
    {108, "AsynchronousTasks", FROM_NOWHERE, NULL},
    {109, "HealthState", FROM_SYSTEM, "HealthState"},
    {110, "OperationalStatus", FROM_SYSTEM, "OperationalStatus"},
    {111, "StatusDescriptions", FROM_SYSTEM, "StatusDescriptions"},
    {114, "ReplicationMode", FROM_SYSTEM, "ReplicationMode"},
    {115, "ReplicationState", FROM_SYSTEM, "ReplicationState"},
    {116, "ReplicationHealth", FROM_SYSTEM, "ReplicationHealth"},
    {120, "SwapFilesInUse", FROM_MEMORY, "SwapFilesInUse"},
    {132, "OtherEnabledState", FROM_SYSTEM, "OtherEnabledState"},
    {132, "EnhancedSessionModeState", FROM_SYSTEM, "EnhancedSessionModeState"},
    {135, "VirtualSystemSubType", FROM_SETTINGS, "VirtualSystemSubType"},
    {136, "HostComputerSystemName", FROM_NOWHERE, NULL},
};
static const char *const classes[FROM_COUNT] = {"Msvm_VirtualSystemSettingData", "Msvm_ComputerSystem",
                                                "Msvm_ProcessorSettingData", "Msvm_MemorySettingData"};

struct summary {
    const struct rp_hostd_call *call;
    struct rp_method_found found;
    bool all_at_once;
    struct rp_cim_instances objects[FROM_COUNT];
    struct rp_cim_value out;
};

static void summary_clear(struct summary *s)
{
    rp_method_release(&s->found);
    for (size_t i = 0; i < FROM_COUNT; i++)
        rp_cim_instances_clear(&s->objects[i]);
    rp_cim_value_clear(&s->out);
}

static bool asked(const struct summary *s, unsigned code)
{
    for (size_t i = 0; i < rp_cim_get_count(s->call->in, "RequestedInformation"); i++)
        if (rp_cim_get_unsigned_at(s->call->in, "RequestedInformation", i, UINT64_MAX) == code)
            return true;
    return false;
}

static int take(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    rp_cim_instances_push(context, instance);
    return 0;
}

static int fetch_all(struct summary *s, struct rp_error *err)
{
    struct rp_cim_provider *provider = &s->call->hostd->virtualization;
    for (int from = 0; from < FROM_COUNT; from++) {
        bool needed = from == FROM_SETTINGS;
        for (size_t i = 0; i < sizeof items / sizeof *items; i++)
            needed |= (int)items[i].from == from && asked(s, items[i].code);
        struct rp_cim_sink sink = {take, &s->objects[from]};
        if (needed && rp_cim_enumerate(provider, s->call->caller, rp_cim_schema_class(provider->schema, classes[from]),
                                       sink, err))
            return -1;
    }
    return 0;
}

// The object of one owner: fetched, or one of those that have been. Borrowed; NULL: it is gone.
static const struct rp_cim_instance *object(struct summary *s, enum from from, const char *owner_id)
{
    static const char *const rests[] = {"", "", RP_HOSTD_PROCESSOR, RP_HOSTD_MEMORY};
    struct rp_hostd *hostd = s->call->hostd;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path =
        from == FROM_SYSTEM ? rp_hostd_paths_vm(hostd, owner_id, false)
                            : rp_method_resource_path(hostd, classes[from], owner_id, rests[from]);
    const char *key = from == FROM_SYSTEM ? "Name" : "InstanceID", *wanted = rp_cim_path_get(path, key);
    struct rp_cim_instances *list = &s->objects[from];
    for (size_t i = 0; i < list->count; i++) {
        const char *value = rp_cim_get_text(list->items[i], key);
        if (value && !strcasecmp(value, wanted))
            return list->items[i];
    }
    struct rp_cim_instance *found =
        s->all_at_once ? NULL : rp_cim_find(&hostd->virtualization, s->call->caller, path, NULL);
    if (found)
        rp_cim_instances_push(list, found);
    return found;
}

static void set_typed(const struct summary *s, struct rp_cim_instance *out, const char *name, struct rp_cim_value value)
{
    const struct rp_cim_class *class = rp_cim_schema_class(s->call->hostd->virtualization.schema, out->class_name);
    const struct rp_cim_declaration *declared = rp_cim_class_property(class, name);
    // Notes are lines there and one text here.
    if (value.type == RP_CIM_STRING && value.array && !declared->array && !rp_cim_value_is_null(&value)) {
        RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
        for (size_t i = 0; i < value.count; i++)
            rp_buf_printf(&text, "%s%s", i ? "\n" : "", value.many[i].text);
        rp_cim_value_clear(&value);
        value = rp_cim_string(rp_buf_text(&text));
    }
    if (rp_cim_value_convert(&value, declared->type, declared->array, NULL)) {
        rp_cim_value_clear(&value);
        return;
    }
    rp_cim_set(out, declared->name, value);
}

static void add_object(struct rp_cim_value *array, struct rp_cim_instance *instance)
{
    if (!instance)
        return;
    struct rp_cim_value item = rp_cim_object(instance);
    rp_cim_value_push(array, &item);
}

struct tasks {
    const char *vm_id;
    struct rp_hostd *hostd;
    struct rp_cim_path **paths;
    size_t count;
};

static int take_job(void *context, const struct rp_hostd_job_view *view, struct rp_error *err)
{
    (void)err;
    struct tasks *tasks = context;
    if (view->state != RP_HOSTD_RUNNING || strcasecmp(view->vm_id, tasks->vm_id))
        return 0;
    tasks->paths = rp_xrealloc(tasks->paths, (tasks->count + 1) * sizeof *tasks->paths);
    tasks->paths[tasks->count++] = rp_hostd_paths_job(tasks->hostd, view->class_name, view->id);
    return 0;
}

// The jobs that are running for the VM.
static int set_tasks(struct summary *s, const struct rp_inventory_vm *vm, struct rp_cim_instance *out,
                     struct rp_error *err)
{
    struct tasks tasks = {.vm_id = vm->vm.id, .hostd = s->call->hostd};
    struct rp_cim_value all = rp_cim_null(RP_CIM_OBJECT, true);
    int rc = rp_hostd_jobs_each(tasks.hostd, NULL, take_job, &tasks, err);
    for (size_t i = 0; i < tasks.count; i++) {
        add_object(&all, rc ? NULL : rp_cim_find(&tasks.hostd->virtualization, s->call->caller, tasks.paths[i], NULL));
        rp_cim_path_free(tasks.paths[i]);
    }
    free(tasks.paths);
    rp_cim_set(out, "AsynchronousTasks", all);
    return rc;
}

static void set_snapshots(struct summary *s, const struct rp_inventory_vm *vm, struct rp_cim_instance *out)
{
    struct rp_cim_value all = rp_cim_null(RP_CIM_OBJECT, true);
    for (size_t i = 0; i < vm->snapshots.count; i++) {
        const struct rp_cim_instance *settings =
            vm->snapshots.items[i].merging ? NULL : object(s, FROM_SETTINGS, vm->snapshots.items[i].id);
        add_object(&all, settings ? rp_cim_instance_copy(settings) : NULL);
    }
    rp_cim_set(out, "Snapshots", all);
}

// The whole answer has to fit one envelope: what was not asked for is not there, not even as a NULL.
static struct rp_cim_instance *new_summary(const struct summary *s)
{
    return rp_cim_instance_new(rp_cim_schema_namespace(s->call->hostd->virtualization.schema),
                               "Msvm_SummaryInformation");
}

static int add_summary(struct summary *s, const struct rp_inventory_vm *vm, const struct rp_snapshot *snapshot,
                       struct rp_error *err)
{
    const char *id = snapshot ? snapshot->id : vm->vm.id;
    struct rp_cim_instance *out = new_summary(s);
    RP_AUTO_FREE char *instance = rp_xasprintf("Microsoft:%s", rp_method_guid(id));
    rp_cim_set(out, "InstanceID", rp_cim_string(instance));
    rp_cim_set(out, "Name", rp_cim_string(rp_method_guid(id))); // also when nobody asked: it says that it was found
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof items / sizeof *items; i++) {
        if (!asked(s, items[i].code) || (items[i].code >= 100 && snapshot))
            continue;
        if (items[i].code == 107) {
            set_snapshots(s, vm, out);
        } else if (items[i].code == 108) {
            rc = set_tasks(s, vm, out, err);
        } else if (items[i].from == FROM_NOWHERE) {
            rp_cim_set(out, items[i].property,
                       items[i].code == 11 ? rp_cim_boolean(false) : rp_cim_string(s->call->hostd->machine));
        } else {
            const struct rp_cim_instance *source = object(s, items[i].from, id);
            const struct rp_cim_value *value = source ? rp_cim_get(source, items[i].source) : NULL;
            if (value && !rp_cim_value_is_null(value))
                set_typed(s, out, items[i].property, rp_cim_value_copy(value));
        }
    }
    add_object(&s->out, out);
    return rc;
}

// One that is gone, or was never there, has an entry without a name: the two arrays go together.
static void add_unknown(struct summary *s)
{
    struct rp_cim_instance *out = new_summary(s);
    rp_cim_set(out, "Name", rp_cim_string(""));
    add_object(&s->out, out);
}

static int add_named(struct summary *s, size_t i, struct rp_error *err)
{
    RP_CLEANUP(rp_method_release) struct rp_method_found found = {0};
    const struct rp_cim_path *path = rp_cim_get_path_at(s->call->in, "SettingData", i);
    struct rp_error why = {0};
    if (path && !rp_method_settings_at(s->call->hostd, path, RP_METHOD_REAL, "SettingData", &found, &why))
        return add_summary(s, found.vm, found.snapshot, err);
    if (path && why.code != RP_ERR_INVALID)
        return rp_fail_as(err, &why);
    add_unknown(s);
    return 0;
}

static int summaries(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    RP_CLEANUP(summary_clear) struct summary s = {.call = call, .found = {.hostd = call->hostd},
                                                  .out = rp_cim_null(RP_CIM_OBJECT, true)};
    size_t count = rp_cim_get_count(call->in, "SettingData");
    s.found.inventory = rp_hostd_hosts_inventory(call->hostd, err);
    if (!s.found.inventory)
        return -1;
    s.all_at_once = (count ? count : s.found.inventory->count) > ONE_BY_ONE;
    if (s.all_at_once && fetch_all(&s, err))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (add_named(&s, i, err))
            return -1;
    for (size_t i = 0; !count && i < s.found.inventory->count; i++)
        if (add_summary(&s, &s.found.inventory->items[i], NULL, err))
            return -1;
    rp_cim_set(call->out, "SummaryInformation", s.out);
    s.out = rp_cim_null(RP_CIM_OBJECT, true);
    *status = 0;
    return 0;
}

const struct rp_hostd_method rp_hostd_summary_methods[] = {
    {"Msvm_VirtualSystemManagementService", "GetSummaryInformation", RP_CIM_READ, true, summaries},
    {0},
};
