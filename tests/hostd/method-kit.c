#include "method-kit.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "cim/cimxml.h"
#include "diskservice/engine.h"

#define DEADLINE_NS (60 * 1000000000ull)

void mk_start(struct mk *mk) { mk_start_in(mk, kit_folder()); }

void mk_start_in(struct mk *mk, char *folder)
{
    struct rp_error err = {0};
    *mk = (struct mk){.folder = folder, .caller = {"LAB\\admin", "test", RP_CIM_ADMINISTER}};
    RP_AUTO_FREE char *files = rp_path_join(mk->folder, "files");
    RP_AUTO_FREE char *host = rp_path_join(mk->folder, "host");
    assert_true(!mkdir(files, 0700) || errno == EEXIST);
    mk->files = realpath(files, NULL);
    const char *const folders[] = {mk->files};
    const struct rp_hostd_options options = {.directory = host, .machine = "HV1", .folders = folders, .folder_count = 1,
                                             .audit = getenv("RP_TEST_AUDIT")}; // "-": to see why something failed
    mk->hostd = rp_hostd_start(&options, &err);
    if (!mk->hostd)
        fail_msg("%s", err.text);
    mk->provider = &mk->hostd->virtualization;
}

void mk_stop(struct mk *mk)
{
    rp_hostd_stop(mk->hostd);
    free(mk->files);
    kit_remove_folder(mk->folder);
}

// ---- values ---------------------------------------------------------------------------------------------------------

struct rp_cim_value mk_text(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    RP_AUTO_FREE char *text = NULL;
    assert_true(vasprintf(&text, format, args) >= 0);
    va_end(args);
    return rp_cim_string(text);
}

struct rp_cim_value mk_texts(const char *first, ...)
{
    struct rp_cim_value array = rp_cim_null(RP_CIM_STRING, true);
    va_list args;
    va_start(args, first);
    for (const char *text = first; text; text = va_arg(args, const char *)) {
        struct rp_cim_value item = rp_cim_string(text);
        rp_cim_value_push(&array, &item);
    }
    va_end(args);
    return array;
}

struct rp_cim_value mk_number(uint64_t number) { return rp_cim_unsigned(RP_CIM_UINT64, number); }
struct rp_cim_value mk_flag(bool flag) { return rp_cim_boolean(flag); }
struct rp_cim_value mk_ref(const struct rp_cim_path *path)
{
    return rp_cim_reference(path ? rp_cim_path_copy(path) : NULL);
}

struct rp_cim_value mk_refs(size_t count, const struct rp_cim_path *const *paths)
{
    struct rp_cim_value array = rp_cim_null(RP_CIM_REFERENCE, true);
    for (size_t i = 0; i < count; i++) {
        struct rp_cim_value item = mk_ref(paths[i]);
        rp_cim_value_push(&array, &item);
    }
    return array;
}

static void set_all(struct rp_cim_instance *instance, va_list args)
{
    for (const char *name; (name = va_arg(args, const char *));)
        rp_cim_set(instance, name, va_arg(args, struct rp_cim_value));
}

char *mk_embed(const char *class_name, ...)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *instance = rp_cim_instance_new(NULL, class_name);
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    va_list args;
    va_start(args, class_name);
    set_all(instance, args);
    va_end(args);
    rp_cimxml_write(instance, &text);
    return rp_xstrdup(rp_buf_text(&text));
}

char *mk_path_text(const struct rp_cim_path *path)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_path_format(path, &text);
    return rp_xstrdup(rp_buf_text(&text));
}

// ---- methods --------------------------------------------------------------------------------------------------------

static uint32_t invoke(struct mk *mk, const struct rp_cim_path *object, const char *name,
                       struct rp_cim_instance **result, va_list args)
{
    struct rp_error err = {0};
    uint32_t status = 99;
    const struct rp_cim_class *class = rp_cim_schema_class(mk->provider->schema, object->class_name);
    const struct rp_cim_method *method = class ? rp_cim_class_method(class, name) : NULL;
    if (!method)
        fail_msg("%s has no method %s", object->class_name, name);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_cim_instance_new(NULL, name);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_cim_instance_new(NULL, name);
    set_all(in, args);
    kit_ok(rp_cim_method_type(method, false, in, &err), err);
    kit_ok(mk->provider->ops->invoke(mk->provider, &mk->caller, object, method, in, out, &status, &err), err);
    kit_ok(rp_cim_method_type(method, true, out, &err), err); // what it gives back is what was declared
    if (result) {
        *result = out;
        out = NULL;
    }
    return status;
}

uint32_t mk_call_on(struct mk *mk, const struct rp_cim_path *object, const char *method, struct rp_cim_instance **out,
                    ...)
{
    va_list args;
    va_start(args, out);
    uint32_t status = invoke(mk, object, method, out, args);
    va_end(args);
    return status;
}

uint32_t mk_call(struct mk *mk, const char *class_name, const char *method, struct rp_cim_instance **out, ...)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *service = rp_cim_path_new("root/virtualization/v2", class_name);
    rp_cim_path_set(service, "CreationClassName", class_name);
    va_list args;
    va_start(args, out);
    uint32_t status = invoke(mk, service, method, out, args);
    va_end(args);
    return status;
}

struct rp_cim_instance *mk_wait(struct mk *mk, uint32_t status, struct rp_cim_instance **out)
{
    if (status != 4096)
        fail_msg("no job was started: %u", status);
    const struct rp_cim_path *path = rp_cim_get_path(*out, "Job");
    assert_non_null(path);
    RP_AUTO_FREE char *id = rp_xstrdup(rp_cim_path_get(path, "InstanceID"));
    rp_cim_instance_free(*out);
    *out = NULL;
    uint64_t start = rp_clock_monotonic_ns();
    for (;;) {
        struct rp_cim_instance *job = mk_one(mk, "SELECT * FROM CIM_ConcreteJob WHERE InstanceID = '%s'", id);
        uint64_t state = rp_cim_get_unsigned(job, "JobState", 0);
        if (state != 4)
            return job;
        rp_cim_instance_free(job);
        if (rp_clock_monotonic_ns() - start > DEADLINE_NS)
            fail_msg("job %s does not end", id);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

struct rp_cim_path *mk_made(struct mk *mk, uint32_t status, struct rp_cim_instance **out, const char *result_class)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = mk_wait(mk, status, out);
    // 32768: completed with warnings. Only the consistency of a checkpoint is one.
    uint64_t state = rp_cim_get_unsigned(job, "JobState", 0);
    const char *text = rp_cim_get_text(job, "ErrorDescription");
    if (state != 7 && !(state == 32768 && strstr(text, "nothing runs its guest")))
        fail_msg("the job failed: %s", text);
    if (!result_class)
        return NULL;
    RP_AUTO_FREE char *path = mk_path_text(job->path);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *made =
        mk_one(mk, "ASSOCIATORS OF {%s} WHERE ResultClass = %s", path, result_class);
    return rp_cim_path_copy(made->path);
}

void mk_failed(struct mk *mk, uint32_t status, struct rp_cim_instance **out, const char *word)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = mk_wait(mk, status, out), *errors = NULL;
    assert_int_equal(rp_cim_get_unsigned(job, "JobState", 0), 10);
    assert_true(rp_cim_get_unsigned(job, "ErrorCode", 0) != 0);
    const char *text = rp_cim_get_text(job, "ErrorDescription");
    if (!text || !strstr(text, word))
        fail_msg("\"%s\" does not say \"%s\"", text ? text : "", word);
    assert_int_equal(mk_call_on(mk, job->path, "GetErrorEx", &errors, NULL), 0);
    const char *error = rp_cim_get_text_at(errors, "Errors", 0);
    assert_non_null(error);
    assert_non_null(strstr(error, "Msvm_Error"));
}

// ---- objects --------------------------------------------------------------------------------------------------------

static int take(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    rp_cim_instances_push(context, instance);
    return 0;
}

static struct rp_cim_instances query(struct mk *mk, const char *format, va_list args)
{
    struct rp_error err = {0};
    struct rp_cim_instances all = {0};
    RP_AUTO_FREE char *text = NULL;
    assert_true(vasprintf(&text, format, args) >= 0);
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *wql = rp_wql_parse(text, strlen(text), &err);
    if (!wql)
        fail_msg("%s: %s", text, err.text);
    kit_ok(rp_cim_query(mk->provider, &mk->caller, wql, (struct rp_cim_sink){take, &all}, &err), err);
    return all;
}

struct rp_cim_instances mk_query(struct mk *mk, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct rp_cim_instances all = query(mk, format, args);
    va_end(args);
    return all;
}

struct rp_cim_instance *mk_one(struct mk *mk, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = query(mk, format, args);
    va_end(args);
    if (all.count != 1)
        fail_msg("%s: %zu instances", format, all.count);
    struct rp_cim_instance *one = all.items[0];
    all.count = 0;
    return one;
}

size_t mk_count(struct mk *mk, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = query(mk, format, args);
    va_end(args);
    return all.count;
}

char *mk_file(struct mk *mk, const char *name) { return rp_path_join(mk->files, name); }
struct rp_cim_path *mk_vm(struct mk *mk, const char *id) { return rp_hostd_paths_vm(mk->hostd, id, false); }
struct rp_cim_path *mk_settings(struct mk *mk, const char *vm_id) { return rp_hostd_paths_settings(mk->hostd, vm_id); }

void mk_define(struct mk *mk, const char *name, size_t count, uint64_t size, char id[RP_HOST_ID])
{
    struct rp_cim_value disks = rp_cim_null(RP_CIM_STRING, true);
    for (size_t i = 0; i < count; i++) {
        RP_AUTO_FREE char *file = rp_xasprintf("%s/%s-%zu.vhdx", mk->files, name, i);
        kit_vhdx(file, size);
        RP_AUTO_FREE char *disk = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31),
                                           "HostResource", mk_texts(file, NULL), NULL);
        struct rp_cim_value item = rp_cim_string(disk);
        rp_cim_value_push(&disks, &item);
    }
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("%s", name), NULL);
    struct rp_cim_instance *out;
    uint32_t status = mk_call(mk, MANAGEMENT, "DefineSystem", &out, "SystemSettings", mk_text("%s", settings),
                              "ResourceSettings", disks, NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = NULL;
    if (status == 0) {
        path = rp_cim_path_copy(rp_cim_get_path(out, "ResultingSystem"));
        rp_cim_instance_free(out);
    } else {
        path = mk_made(mk, status, &out, "Msvm_ComputerSystem");
    }
    snprintf(id, RP_HOST_ID, "%s", rp_cim_path_get(path, "Name"));
}

struct rp_cim_path *mk_snapshot(struct mk *mk, const char *vm_id, unsigned type, const char *name)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = mk_vm(mk, vm_id);
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSnapshotSettingData", "ConsistencyLevel", mk_number(2),
                                           "GuestBackupType", mk_number(1), "IgnoreNonSnapshottableDisks",
                                           mk_flag(true), "ElementName", mk_text("%s", name), NULL);
    struct rp_cim_instance *out;
    uint32_t status = mk_call(mk, SNAPSHOTS, "CreateSnapshot", &out, "AffectedSystem", mk_ref(vm), "SnapshotSettings",
                              mk_text("%s", settings), "SnapshotType", mk_number(type), NULL);
    return mk_made(mk, status, &out, "Msvm_VirtualSystemSettingData");
}

struct rp_cim_path *mk_convert(struct mk *mk, const struct rp_cim_path *snapshot)
{
    struct rp_cim_instance *out;
    uint32_t status = mk_call(mk, SNAPSHOTS, "ConvertToReferencePoint", &out, "AffectedSnapshot", mk_ref(snapshot),
                              "ReferencePointSettings", mk_text("%s", ""), NULL);
    return mk_made(mk, status, &out, "Msvm_VirtualSystemReferencePoint");
}

void mk_wait_merged(struct mk *mk, const char *vm_id)
{
    uint64_t start = rp_clock_monotonic_ns();
    for (;;) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *vm =
            mk_one(mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'", vm_id);
        if (rp_cim_get_unsigned_at(vm, "OperationalStatus", 1, 0) == 0)
            return;
        if (rp_clock_monotonic_ns() - start > DEADLINE_NS)
            fail_msg("VM %s is still merging", vm_id);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

void mk_write(struct mk *mk, const char *vm_id, unsigned disk, uint64_t first, uint64_t count, uint64_t step,
              uint8_t byte)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *directory = rp_xasprintf("%s/host/vms/%s", mk->folder, vm_id);
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(KIT_UNIT);
    memset(data, byte, KIT_UNIT);
    struct rp_engine *engine = rp_engine_open(rp_fs_posix(), directory, NULL, &err);
    if (!engine)
        fail_msg("%s", err.text);
    char name[32];
    snprintf(name, sizeof name, "disk%u", disk);
    int index = rp_engine_find_disk(engine, name);
    assert_true(index >= 0);
    for (uint64_t i = 0; i < count; i++)
        kit_ok(rp_engine_write(engine, (size_t)index, data, KIT_UNIT, (first + i * step) * KIT_UNIT, false, &err), err);
    kit_ok(rp_engine_close(engine, &err), err);
}

char *mk_disk_path(struct mk *mk, const struct rp_cim_path *settings, size_t index)
{
    RP_AUTO_FREE char *path = mk_path_text(settings);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances disks = mk_query(mk,
        "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_VirtualSystemSettingDataComponent"
        " ResultClass = Msvm_StorageAllocationSettingData", path);
    assert_true(index < disks.count);
    assert_int_equal(rp_cim_get_unsigned(disks.items[index], "ResourceType", 0), 31);
    return rp_xstrdup(rp_cim_get_text_at(disks.items[index], "HostResource", 0));
}
