#include "inventory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "hostd/schema/schema.h"

#define PLACE "\\\\HV1\\root\\virtualization\\v2:"
#define SYSTEM(name) "Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\",Name=\"" name "\""
#define SETTINGS(name) "Msvm_VirtualSystemSettingData.InstanceID=\"Microsoft:" name "\""
#define SERVICE(name) "SystemCreationClassName=Msvm_ComputerSystem;SystemName=HV1;CreationClassName=" name ";Name="

static int fail_if_broken(const struct inventory *inventory, struct rp_error *err)
{
    return inventory->broken ? rp_fail(err, inventory->broken, "the disk of the host is broken") : 0;
}

static bool has_key(const struct rp_cim_instance *instance, const struct rp_cim_key *key)
{
    const struct rp_cim_value *value = rp_cim_get(instance, key->name);
    if (!value || rp_cim_value_is_null(value) || value->array)
        return false;
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_value_text(value, &text);
    if (value->type != RP_CIM_REFERENCE)
        return !strcasecmp(rp_buf_text(&text), key->value);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_parse(key->value, NULL);
    return path && rp_cim_path_equal(path, value->one.path);
}

static size_t find(const struct inventory *inventory, const struct rp_cim_path *path)
{
    for (size_t i = 0; i < inventory->objects.count; i++) {
        const struct rp_cim_instance *instance = inventory->objects.items[i];
        bool same = !strcasecmp(instance->class_name, path->class_name);
        for (size_t k = 0; same && k < path->key_count; k++)
            same = has_key(instance, &path->keys[k]);
        if (same)
            return i;
    }
    return inventory->objects.count;
}

static int instances(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_class *class,
                     const struct rp_wql *query, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)caller, (void)query;
    struct inventory *inventory = (struct inventory *)p;
    if (fail_if_broken(inventory, err))
        return -1;
    for (size_t i = 0; i < inventory->objects.count; i++) {
        if (strcmp(inventory->objects.items[i]->class_name, class->name) != 0)
            continue;
        if (inventory->delay_ms)
            usleep(inventory->delay_ms * 1000);
        if (sink.take(sink.context, rp_cim_instance_copy(inventory->objects.items[i]), err))
            return -1;
    }
    return 0;
}

static struct rp_cim_instance *get(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                                   const struct rp_cim_path *path, struct rp_error *err)
{
    (void)caller;
    struct inventory *inventory = (struct inventory *)p;
    size_t i = find(inventory, path);
    if (fail_if_broken(inventory, err))
        return NULL;
    if (i < inventory->objects.count)
        return rp_cim_instance_copy(inventory->objects.items[i]);
    rp_fail(err, RP_ERR_NOT_FOUND, "there is no such %s", path->class_name);
    return NULL;
}

static int references(struct rp_cim_provider *p, const struct rp_cim_caller *caller,
                      const struct rp_cim_class *association, const struct rp_cim_path *source,
                      struct rp_cim_sink sink, struct rp_error *err)
{
    (void)source;
    return instances(p, caller, association, NULL, sink, err);
}

static struct rp_cim_value path_value(const char *text)
{
    return rp_cim_reference(rp_cim_path_parse(text, NULL));
}

static struct rp_cim_instance *summary(struct inventory *inventory)
{
    struct rp_cim_instance *object =
        rp_cim_class_instance(rp_cim_schema_class(inventory->schema, "Msvm_SummaryInformation"));
    rp_cim_set(object, "InstanceID", rp_cim_string("Microsoft:" WEB));
    rp_cim_set(object, "ElementName", rp_cim_string("web <1>"));
    rp_cim_set(object, "UpTime", rp_cim_unsigned(RP_CIM_UINT64, 42));
    return object;
}

static void push(struct rp_cim_instance *out, const char *name, struct rp_cim_value item)
{
    struct rp_cim_value array = rp_cim_null(item.type, true);
    rp_cim_value_push(&array, &item);
    rp_cim_set(out, name, array);
}

// As many changed ranges as the length says, so that an answer can be as large as a test wants.
static void disk_changes(const struct rp_cim_instance *in, struct rp_cim_instance *out)
{
    uint64_t count = rp_cim_get_unsigned(in, "ByteLength", 0);
    struct rp_cim_value offsets = rp_cim_null(RP_CIM_UINT64, true);
    for (uint64_t i = 0; i < count && i < 100000; i++) {
        struct rp_cim_value offset = rp_cim_unsigned(RP_CIM_UINT64, i << 20);
        rp_cim_value_push(&offsets, &offset);
    }
    rp_cim_set(out, "ChangedByteLengths", rp_cim_value_copy(&offsets));
    rp_cim_set(out, "ChangedByteOffsets", offsets);
    rp_cim_set(out, "ProcessedByteLength", rp_cim_unsigned(RP_CIM_UINT64, count));
}

static int invoke(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  const struct rp_cim_method *method, const struct rp_cim_instance *in, struct rp_cim_instance *out,
                  uint32_t *status, struct rp_error *err)
{
    struct inventory *inventory = (struct inventory *)p;
    if (fail_if_broken(inventory, err))
        return -1;
    pthread_mutex_lock(&inventory->mutex);
    rp_cim_instance_free(inventory->in);
    rp_cim_path_free(inventory->target);
    inventory->in = rp_cim_instance_copy(in);
    inventory->target = rp_cim_path_copy(path);
    snprintf(inventory->user, sizeof inventory->user, "%s", caller->user);
    pthread_mutex_unlock(&inventory->mutex);
    *status = caller->access < RP_CIM_OPERATE ? 32769 : 0;
    if (*status)
        return 0;
    if (!strcmp(method->name, "GetSummaryInformation")) {
        push(out, "SummaryInformation", rp_cim_object(summary(inventory)));
    } else if (!strcmp(method->name, "GetVirtualDiskChanges")) {
        disk_changes(in, out);
    } else if (!strcmp(method->name, "GetErrorEx")) {
        push(out, "Errors", rp_cim_string("<INSTANCE CLASSNAME=\"Msvm_Error\"></INSTANCE>"));
    } else if (!strcmp(method->name, "DefineSystem")) {
        rp_cim_set(out, "ResultingSystem", path_value(SYSTEM(DB))); // without namespace
    } else {
        *status = 4096;
        for (size_t i = 0; i < method->parameter_count; i++)
            if (!strcmp(method->parameters[i].name, "Job"))
                rp_cim_set(out, "Job", path_value(PLACE "Msvm_ConcreteJob.InstanceID=\"" JOB "\""));
    }
    return 0;
}

static int put(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
               const struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)caller;
    struct inventory *inventory = (struct inventory *)p;
    size_t i = find(inventory, path);
    if (fail_if_broken(inventory, err))
        return -1;
    if (strcmp(path->class_name, "Msvm_VirtualSystemSettingData") != 0)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s is not changed like this", path->class_name);
    for (size_t k = 0; k < instance->count; k++)
        rp_cim_set(inventory->objects.items[i], instance->properties[k].name,
                   rp_cim_value_copy(&instance->properties[k].value));
    return 0;
}

static int delete(struct rp_cim_provider *p, const struct rp_cim_caller *caller, const struct rp_cim_path *path,
                  struct rp_error *err)
{
    (void)caller;
    struct inventory *inventory = (struct inventory *)p;
    size_t i = find(inventory, path);
    if (fail_if_broken(inventory, err))
        return -1;
    rp_cim_instance_free(inventory->objects.items[i]);
    inventory->objects.items[i] = inventory->objects.items[--inventory->objects.count];
    return 0;
}

static const struct rp_cim_provider_ops ops = {
    .instances = instances, .get = get, .references = references, .invoke = invoke, .put = put, .remove = delete,
};

// "Name=value;Other=value" over the defaults of the class; values that hold a path are those of references.
static struct rp_cim_instance *add(struct inventory *inventory, const char *class_name, const char *properties)
{
    const struct rp_cim_class *class = rp_cim_schema_class(inventory->schema, class_name);
    struct rp_cim_instance *instance = rp_cim_class_instance(class);
    RP_AUTO_FREE char *copy = rp_xstrdup(properties);
    char *rest = NULL;
    for (char *one = strtok_r(copy, ";", &rest); one; one = strtok_r(NULL, ";", &rest)) {
        char *equals = strchr(one, '=');
        *equals = 0;
        const struct rp_cim_declaration *declared = rp_cim_class_property(class, one);
        struct rp_cim_value value = rp_cim_string(equals + 1);
        if (!declared || rp_cim_value_convert(&value, declared->type, declared->array, NULL))
            abort();
        rp_cim_set(instance, one, value);
    }
    rp_cim_instances_push(&inventory->objects, instance);
    return instance;
}

static void fill_v2(struct inventory *v2)
{
    add(v2, "Msvm_ComputerSystem", "Name=HV1;ElementName=HV1;Caption=Hosting Computer System");
    add(v2, "Msvm_ComputerSystem", "Name=" WEB ";ElementName=web;EnabledState=2;ProcessID=17;"
        "TimeOfLastStateChange=20260102030405.678000+000;OperationalStatus=2");
    add(v2, "Msvm_ComputerSystem", "Name=" DB ";ElementName=db & <co>;EnabledState=3;Description=");
    add(v2, "Msvm_VirtualSystemSettingData", "InstanceID=Microsoft:" WEB ";ElementName=web;VirtualSystemIdentifier=" WEB
        ";AutomaticStartupActionDelay=00000000000130.500000:000");
    add(v2, "Msvm_VirtualSystemSettingData", "InstanceID=Microsoft:" DB ";ElementName=db;VirtualSystemIdentifier=" DB);
    add(v2, "Msvm_ProcessorSettingData", "InstanceID=Microsoft:" WEB "\\b637f346\\0;VirtualQuantity=4");
    add(v2, "Msvm_MemorySettingData", "InstanceID=Microsoft:" WEB "\\4764334d;VirtualQuantity=2048");
    add(v2, "Msvm_ResourceAllocationSettingData", "InstanceID=Microsoft:" WEB "\\ctrl\\0\\0\\D;ResourceType=17");
    add(v2, "Msvm_StorageAllocationSettingData", "InstanceID=Microsoft:" WEB "\\ctrl\\0\\0\\L;ResourceType=31;"
        "HostResource=D:\\VMs\\web.vhdx");
    add(v2, "Msvm_StorageAllocationSettingData", "InstanceID=Microsoft:" WEB "\\ctrl\\0\\1\\L;ResourceType=31");
    add(v2, "Msvm_SettingsDefineState", "ManagedElement=" PLACE SYSTEM(WEB) ";SettingData=" PLACE SETTINGS(WEB));
    add(v2, "Msvm_SettingsDefineState", "ManagedElement=" SYSTEM(DB) ";SettingData=" SETTINGS(DB));
    static const char *const parts[] = {
        "Msvm_ProcessorSettingData.InstanceID=\"Microsoft:" WEB "\\\\b637f346\\\\0\"",
        "Msvm_MemorySettingData.InstanceID=\"Microsoft:" WEB "\\\\4764334d\"",
        "Msvm_ResourceAllocationSettingData.InstanceID=\"Microsoft:" WEB "\\\\ctrl\\\\0\\\\0\\\\D\"",
        "Msvm_StorageAllocationSettingData.InstanceID=\"Microsoft:" WEB "\\\\ctrl\\\\0\\\\0\\\\L\"",
        "Msvm_StorageAllocationSettingData.InstanceID=\"Microsoft:" WEB "\\\\ctrl\\\\0\\\\1\\\\L\"",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        RP_AUTO_FREE char *text = rp_xasprintf("GroupComponent=" SETTINGS(WEB) ";PartComponent=%s", parts[i]);
        add(v2, "Msvm_VirtualSystemSettingDataComponent", text);
    }
    add(v2, "Msvm_ConcreteJob", "InstanceID=" JOB ";JobState=4;ElapsedTime=00000000000001.500000:000");
    add(v2, "Msvm_VirtualSystemReferencePoint", "InstanceID=rp1;VirtualSystemIdentifier=" WEB);
    add(v2, "Msvm_VirtualSystemReferencePoint", "InstanceID=rp2;VirtualSystemIdentifier=" WEB);
    add(v2, "Msvm_VirtualSystemManagementService", SERVICE("Msvm_VirtualSystemManagementService") "vmms");
    add(v2, "Msvm_VirtualSystemSnapshotService", SERVICE("Msvm_VirtualSystemSnapshotService") "vssnapsvc");
    add(v2, "Msvm_ImageManagementService", SERVICE("Msvm_ImageManagementService") "vhdsvc");
}

static void fill_cimv2(struct inventory *cimv2)
{
    add(cimv2, "Win32_OperatingSystem", "Version=10.0.20348;Name=refpoint");
    add(cimv2, "Win32_ComputerSystem", "Name=HV1;OEMLogoBitmap=7");
    add(cimv2, "Win32_ComputerSystemProduct", "IdentifyingNumber=1;Name=PC;Version=1;UUID=" WEB);
    add(cimv2, "Win32_Processor", "DeviceID=CPU0;NumberOfCores=8;MaxClockSpeed=3000");
    add(cimv2, "Win32_ComputerSystemProcessor", "GroupComponent=Win32_ComputerSystem.Name=\"HV1\";"
        "PartComponent=Win32_Processor.DeviceID=\"CPU0\"");
}

struct inventory *inventory_new(const char *name_space)
{
    struct inventory *inventory = rp_xcalloc(1, sizeof *inventory);
    struct rp_error err = {0};
    inventory->schema = rp_hostd_schema(name_space, &err);
    if (!inventory->schema)
        abort();
    inventory->provider = (struct rp_cim_provider){&ops, inventory->schema, "HV1"};
    pthread_mutex_init(&inventory->mutex, NULL);
    inventory_reset(inventory);
    return inventory;
}

void inventory_reset(struct inventory *inventory)
{
    rp_cim_instances_clear(&inventory->objects);
    if (strstr(rp_cim_schema_namespace(inventory->schema), "cimv2"))
        fill_cimv2(inventory);
    else
        fill_v2(inventory);
}

void inventory_free(struct inventory *inventory)
{
    rp_cim_instances_clear(&inventory->objects);
    rp_cim_schema_free(inventory->schema);
    rp_cim_instance_free(inventory->in);
    rp_cim_path_free(inventory->target);
    pthread_mutex_destroy(&inventory->mutex);
    free(inventory);
}

void inventory_fill(struct inventory *inventory, unsigned machines)
{
    for (unsigned i = 0; i < machines; i++) {
        RP_AUTO_FREE char *text = rp_xasprintf("Name=M%06u-0000-4000-8000-000000000000;ElementName=m%u", i, i);
        add(inventory, "Msvm_ComputerSystem", text);
    }
}

struct rp_wsman_service *site_service(struct inventory *v2, struct inventory *cimv2,
                                      const struct rp_wsman_limits *limits)
{
    struct rp_wsman_service *service =
        rp_wsman_service_new("HV1", "Microsoft Corporation", "OS: 10.0.20348 SP: 0.0 Stack: 3.0", limits);
    rp_wsman_service_add(service, &v2->provider);
    rp_wsman_service_add(service, &cimv2->provider);
    return service;
}

void site_open(struct site *site, const struct rp_wsman_limits *limits)
{
    *site = (struct site){.caller = {"LAB\\admin", "127.0.0.1", RP_CIM_ADMINISTER}};
    site->v2 = inventory_new(RP_HOSTD_VIRTUALIZATION);
    site->cimv2 = inventory_new(RP_HOSTD_CIMV2);
    site->service = site_service(site->v2, site->cimv2, limits);
}

void site_close(struct site *site)
{
    rp_wsman_service_free(site->service);
    inventory_free(site->v2);
    inventory_free(site->cimv2);
}

unsigned site_send(struct site *site, const char *request, size_t size, struct rp_buf *answer)
{
    static const char mark[] = "@CONTEXT@", open[] = "<n:EnumerationContext>";
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    const char *place = memmem(request, size, mark, sizeof mark - 1);
    size_t before = place ? (size_t)(place - request) : size;
    rp_buf_append(&text, request, before);
    if (place) {
        rp_buf_append(&text, site->context, strlen(site->context));
        rp_buf_append(&text, place + sizeof mark - 1, size - before - (sizeof mark - 1));
    }
    size_t start = answer->size;
    unsigned status =
        rp_wsman_service_handle(site->service, site->caller.user ? &site->caller : NULL, NULL, text.data, text.size,
                                answer);
    const char *id = memmem(answer->data + start, answer->size - start, open, sizeof open - 1);
    if (id) {
        id += sizeof open - 1;
        snprintf(site->context, sizeof site->context, "%.*s", (int)strcspn(id, "<"), id);
    }
    return status;
}
