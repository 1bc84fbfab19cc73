// The fake host's files: frozen disks and exports as real VHDX files, and VMs planned from what was restored.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "disk/vhdx.h"
#include "fake.h"

static struct fake_host *of(struct rp_host_connection *host) { return (struct fake_host *)host; }

static void must(int failed, const struct rp_error *err)
{
    if (failed) {
        fprintf(stderr, "fake host: %s\n", err->text);
        abort();
    }
}

void fake_use_files(struct fake_host *fake, const char *folder)
{
    fake->vms = rp_xasprintf("%s/vms", folder);
    fake->exports = rp_xasprintf("%s/exports", folder);
    RP_AUTO_FREE char *vm = rp_xasprintf("%s/WEB1", fake->vms); // the host says Web1
    must(mkdir(fake->vms, 0700) || mkdir(fake->exports, 0700) || mkdir(vm, 0700), &(struct rp_error){.text = "mkdir"});
    struct rp_error err = {0};
    fake->host.paths = rp_xcalloc(1, sizeof *fake->host.paths);
    must(rp_path_map_add(fake->host.paths, "D:\\VMs", fake->vms, &err) ||
             rp_path_map_add(fake->host.paths, "E:\\Export", fake->exports, &err), &err);
}

static void clear_planned(struct fake_planned *planned)
{
    for (size_t i = 0; i < planned->disk_count; i++)
        free(planned->disks[i].path);
    free(planned->name);
    *planned = (struct fake_planned){0};
}

void fake_clear_files(struct fake_host *fake)
{
    for (size_t i = 0; i < 4; i++)
        clear_planned(&fake->planned[i]);
    free(fake->definition);
    free(fake->vms);
    free(fake->exports);
    fake->definition = fake->vms = fake->exports = NULL;
    rp_path_map_free(fake->host.paths);
    fake->host.paths = NULL;
}

// ---- disk files -----------------------------------------------------------------------------------------------------

// A file with those units of the disk for which `unit % of == which`.
static void write_disk(const struct fake_disk *disk, const char *path, const char *parent, unsigned of_units,
                       unsigned which)
{
    struct rp_error err = {0};
    struct rp_vhdx_create create = {.size = disk->size, .disk_id = disk->disk_id, .parent_path = parent};
    if (parent) {
        struct rp_vhdx *below = rp_vhdx_open(rp_fs_posix(), parent, RP_VHDX_READ, NULL, &err);
        must(!below, &err);
        create.parent_data_write_guid = rp_vhdx_info(below)->data_write_guid;
        rp_vhdx_abandon(below);
    }
    must(rp_vhdx_create(rp_fs_posix(), path, &create, &err), &err);
    struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_WRITE, NULL, &err);
    must(!vhdx, &err);
    for (uint64_t at = 0; at < disk->size; at += FAKE_UNIT) {
        uint64_t unit = at / FAKE_UNIT;
        if (disk->allocated[unit] && unit % of_units == which)
            must(rp_vhdx_write(vhdx, disk->data + at, (uint32_t)rp_min64(FAKE_UNIT, disk->size - at), at, &err), &err);
    }
    must(rp_vhdx_close(vhdx, &err), &err);
}

// Two deep, each with half of it: a reader must follow the chain.
void fake_write_snapshot(struct fake_host *fake, const struct fake_point *point)
{
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (!point->disks[i].present)
            continue;
        RP_AUTO_FREE char *base = rp_xasprintf("%s/WEB1/%s-%zu-base.vhdx", fake->vms, point->id, i);
        RP_AUTO_FREE char *leaf = rp_xasprintf("%s/WEB1/%s-%zu.avhdx", fake->vms, point->id, i);
        write_disk(&point->disks[i], base, NULL, 2, 0);
        write_disk(&point->disks[i], leaf, base, 2, 1);
    }
}

// A differencing disk that holds the sectors that are not what they were; its parent is nowhere.
static void write_difference(const struct fake_disk *disk, const struct fake_disk *old, uint32_t epoch,
                             const char *path)
{
    struct rp_error err = {0};
    struct rp_vhdx_create create = {.size = disk->size, .disk_id = disk->disk_id, .parent_path = "/nowhere/base.avhdx",
                                    .parent_data_write_guid = rp_guid_new()};
    must(rp_vhdx_create(rp_fs_posix(), path, &create, &err), &err);
    struct rp_vhdx *vhdx = rp_vhdx_open(rp_fs_posix(), path, RP_VHDX_WRITE, NULL, &err);
    must(!vhdx, &err);
    for (uint64_t at = 0; at < disk->size; at += 512) {
        uint64_t unit = at / FAKE_UNIT;
        if (disk->since[unit] <= epoch)
            continue;
        if (!disk->allocated[unit])
            must(rp_vhdx_zero(vhdx, at, 512, NULL, &err), &err);
        else if (at >= old->size || memcmp(disk->data + at, old->data + at, 512))
            must(rp_vhdx_write(vhdx, disk->data + at, 512, at, &err), &err);
    }
    must(rp_vhdx_close(vhdx, &err), &err);
}

static void write_text(const char *folder, const char *name, const char *text, size_t size)
{
    RP_AUTO_FREE char *path = rp_path_join(folder, name);
    FILE *file = fopen(path, "wx");
    must(!file || fwrite(text, 1, size, file) != size || fclose(file),
         &(struct rp_error){.text = "write a configuration"});
}

static bool is_excluded(const struct rp_export *what, const char *instance)
{
    for (size_t i = 0; i < what->excluded_count; i++)
        if (!strcmp(what->excluded[i], instance))
            return true;
    return false;
}

static void write_export(struct fake_host *fake, const struct rp_export *what, const struct fake_point *point,
                         const struct fake_point *base, const char *local)
{
    RP_AUTO_FREE char *disks = rp_path_join(local, "Virtual Hard Disks"),
    *machines = rp_path_join(local, "Virtual Machines");
    must(mkdir(disks, 0700) || mkdir(machines, 0700), &(struct rp_error){.text = "the folder is not empty"});
    static const char configuration[] = "fake configuration\0\377";
    RP_AUTO_FREE char *vmcx = rp_xasprintf("%s.vmcx", fake->vm.id), *vmrs = rp_xasprintf("%s.VMRS", fake->vm.id);
    write_text(machines, vmcx, configuration, sizeof configuration);
    write_text(machines, vmrs, "", 0);
    for (size_t i = 0; i < FAKE_MAX; i++) {
        const struct fake_disk *disk = &point->disks[i];
        if (!disk->present || is_excluded(what, disk->instance))
            continue;
        RP_AUTO_FREE char *path = rp_xasprintf("%s/exported-%zu.vhdx", disks, FAKE_MAX - i);
        bool difference = base && base->disks[i].present && rp_guid_equal(&base->disks[i].disk_id, &disk->disk_id);
        if (difference && !fake->whole_instead)
            write_difference(disk, &base->disks[i], base->epoch, path);
        else
            write_disk(disk, path, NULL, 1, 0);
    }
}

static int export_system(struct rp_host_connection *host, const struct rp_export *what, RP_METHOD_RESULT,
                         struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "export_system", err))
        return -1;
    const struct fake_point *point = fake_find_point(fake, what->snapshot_id, true);
    const struct fake_point *base = what->base_point_id ? fake_find_point(fake, what->base_point_id, false) : NULL;
    RP_AUTO_FREE char *local = rp_path_map_to_local(host->paths, what->folder, err);
    if (!local)
        return -1;
    if (!point || (what->base_point_id && !base))
        return rp_fail(err, RP_ERR_NOT_FOUND, "no such snapshot or reference point");
    if (what->base_point_id && fake->refuse_differences)
        return rp_fail(err, RP_ERR_IO, "the export failed"); // all that a host may say of it
    fake->export_count++;
    fake->excluded_count = what->excluded_count;
    for (size_t i = 0; i < what->excluded_count; i++)
        snprintf(fake->excluded[i], RP_HOST_ID, "%s", what->excluded[i]);
    write_export(fake, what, point, base, local);
    if (fake->refuse_export)
        return rp_fail(err, RP_ERR_NO_SPACE, "%s: no space", what->folder);
    fake_job_start(fake, &(struct fake_job){.verb = "export_system"}, job);
    *result = 0;
    return fake_leave(fake, "export_system", err);
}

// ---- planned VMs ----------------------------------------------------------------------------------------------------

static struct fake_planned *find_planned(struct fake_host *fake, const char *id)
{
    for (size_t i = 0; i < 4; i++)
        if (fake->planned[i].present && !strcmp(fake->planned[i].id, id))
            return &fake->planned[i];
    return NULL;
}

unsigned fake_count_planned(const struct fake_host *fake, bool real)
{
    unsigned count = 0;
    for (size_t i = 0; i < 4; i++)
        count += fake->planned[i].present && fake->planned[i].real == real;
    return count;
}

// An id is never of two (host_connection.h).
static bool is_taken(struct fake_host *fake, bool new_identity, struct rp_error *err)
{
    if (new_identity || !find_planned(fake, fake->vm.id))
        return false;
    rp_fail(err, RP_ERR_EXISTS, "VM %s is being imported already", fake->vm.id);
    return true;
}

static struct fake_planned *new_planned(struct fake_host *fake, bool new_identity)
{
    for (size_t i = 0; i < 4; i++) {
        struct fake_planned *planned = &fake->planned[i];
        if (planned->present)
            continue;
        struct rp_guid id = rp_guid_new();
        *planned = (struct fake_planned){.present = true, .name = rp_xstrdup(fake->vm.name)};
        rp_guid_format(&id, planned->id);
        if (!new_identity)
            memcpy(planned->id, fake->vm.id, sizeof planned->id);
        return planned;
    }
    abort();
}

static int list_planned(struct rp_host_connection *host, struct rp_vms *planned, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "list_planned", err))
        return -1;
    planned->items = rp_xcalloc(4, sizeof *planned->items);
    for (size_t i = 0; i < 4; i++) {
        if (!fake->planned[i].present || fake->planned[i].real)
            continue;
        struct rp_vm *vm = &planned->items[planned->count++];
        vm->name = rp_xstrdup(fake->planned[i].name);
        memcpy(vm->id, fake->planned[i].id, sizeof vm->id);
    }
    return fake_leave(fake, "list_planned", err);
}

static void add_disk(struct fake_planned *planned, unsigned slot, const char *path)
{
    struct rp_vm_disk *disk = &planned->disks[planned->disk_count++];
    *disk = (struct rp_vm_disk){.number = 40 + slot, .path = rp_xstrdup(path)};
    RP_AUTO_FREE char *instance = rp_xasprintf("Microsoft:%s\\%u\\L", planned->id, slot);
    snprintf(disk->instance, sizeof disk->instance, "%s", instance);
}

static int import_system(struct rp_host_connection *host, const char *definition_file, bool new_identity,
                         RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "import_system", err))
        return -1;
    RP_AUTO_FREE char *local = rp_path_map_to_local(host->paths, definition_file, err);
    if (!local || access(local, R_OK))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s", definition_file);
    if (fake->foreign_configuration)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: of another kind of host", definition_file);
    if (is_taken(fake, new_identity, err))
        return -1;
    free(fake->definition);
    fake->definition = rp_xstrdup(definition_file);
    struct fake_planned *planned = new_planned(fake, new_identity);
    for (unsigned i = FAKE_MAX; i-- > 0;) // in an order of its own
        if (fake->disks[i].present)
            add_disk(planned, i, fake->old_files[i] ? fake->old_files[i] : "X:\\long gone.vhdx");
    struct fake_job what = {.verb = "import_system"};
    snprintf(what.result, sizeof what.result, "%s", planned->id);
    fake_job_start(fake, &what, job);
    *result = 0;
    return fake_leave(fake, "import_system", err);
}

static int plan_system(struct rp_host_connection *host, const char *document, const char *const *disks,
                       size_t disk_count, bool new_identity, RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "plan_system", err))
        return -1;
    if (strcmp(document, "{\"fake\":true}"))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "settings of another kind of host");
    if (is_taken(fake, new_identity, err))
        return -1;
    struct fake_planned *planned = new_planned(fake, new_identity);
    for (unsigned i = 0; i < disk_count; i++)
        add_disk(planned, i, disks[i]);
    struct fake_job what = {.verb = "plan_system"};
    snprintf(what.result, sizeof what.result, "%s", planned->id);
    fake_job_start(fake, &what, job);
    *result = 0;
    return fake_leave(fake, "plan_system", err);
}

static int vm_settings(struct rp_host_connection *host, const char *id, struct rp_vm_settings *settings,
                       struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "vm_settings", err))
        return -1;
    struct fake_planned *planned = find_planned(fake, id);
    if (!planned)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no VM %s", id);
    settings->document = rp_xstrdup("{}");
    settings->disks = rp_xcalloc(FAKE_MAX, sizeof *settings->disks);
    for (; settings->disk_count < planned->disk_count; settings->disk_count++) {
        settings->disks[settings->disk_count] = planned->disks[settings->disk_count];
        settings->disks[settings->disk_count].path = rp_xstrdup(planned->disks[settings->disk_count].path);
    }
    return fake_leave(fake, "vm_settings", err);
}

static int modify_disk(struct rp_host_connection *host, const char *instance, const char *path, RP_METHOD_RESULT,
                       struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "modify_disk", err))
        return -1;
    *job = *result = 0;
    for (size_t i = 0; i < 4; i++)
        for (size_t d = 0; d < fake->planned[i].disk_count; d++) {
            struct rp_vm_disk *disk = &fake->planned[i].disks[d];
            if (strcmp(disk->instance, instance))
                continue;
            free(disk->path);
            disk->path = rp_xstrdup(path);
            return fake_leave(fake, "modify_disk", err);
        }
    return rp_fail(err, RP_ERR_NOT_FOUND, "no disk %s", instance);
}

static int validate_planned(struct rp_host_connection *host, const char *id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    struct fake_planned *planned = find_planned(fake, id);
    if (!fake_enter(fake, "validate_planned", err))
        return -1;
    if (!planned)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no planned VM %s", id);
    for (size_t i = 0; i < planned->disk_count; i++) {
        RP_AUTO_FREE char *local = rp_path_map_to_local(host->paths, planned->disks[i].path, NULL);
        if (!local || access(local, R_OK))
            return rp_fail(err, RP_ERR_STATE, "%s is not there", planned->disks[i].path);
    }
    planned->validated = true;
    *job = *result = 0;
    return fake_leave(fake, "validate_planned", err);
}

static int realize_planned(struct rp_host_connection *host, const char *id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    struct fake_planned *planned = find_planned(fake, id);
    if (!fake_enter(fake, "realize_planned", err))
        return -1;
    if (!planned || !planned->validated)
        return rp_fail(err, RP_ERR_STATE, "VM %s was not validated", id);
    planned->real = true;
    struct fake_job what = {.verb = "realize_planned"};
    snprintf(what.result, sizeof what.result, "%s", id);
    fake_job_start(fake, &what, job);
    *result = 0;
    return fake_leave(fake, "realize_planned", err);
}

static int import_reference_point(struct rp_host_connection *host, const char *vm_id, const char *definition_file,
                                  RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    struct fake_planned *planned = find_planned(fake, vm_id);
    if (!fake_enter(fake, "import_reference_point", err))
        return -1;
    if (!planned || !planned->real || strcmp(definition_file, fake->definition) || fake->lost_reference)
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s carries no reference point", definition_file);
    planned->reference = true;
    *job = 0;
    memcpy(result, fake->reference_id, RP_HOST_ID);
    return fake_leave(fake, "import_reference_point", err);
}

static int list_reference_points(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points,
                                 struct rp_error *err)
{
    struct fake_host *fake = of(host);
    struct fake_planned *planned = find_planned(fake, vm_id);
    if (!fake_enter(fake, "list_reference_points", err))
        return -1;
    *points = (struct rp_reference_points){0};
    if (planned && planned->reference) {
        points->items = rp_xcalloc(1, sizeof *points->items);
        points->count = 1;
        memcpy(points->items[0].id, fake->reference_id, RP_HOST_ID);
    }
    return fake_leave(fake, "list_reference_points", err);
}

static int rename_vm(struct rp_host_connection *host, const char *id, const char *name, RP_METHOD_RESULT,
                     struct rp_error *err)
{
    struct fake_host *fake = of(host);
    struct fake_planned *planned = find_planned(fake, id);
    if (!fake_enter(fake, "rename", err))
        return -1;
    if (!planned)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no VM %s", id);
    free(planned->name);
    planned->name = rp_xstrdup(name);
    *job = *result = 0;
    return fake_leave(fake, "rename", err);
}

static int request_state(struct rp_host_connection *host, const char *id, enum rp_vm_state state, RP_METHOD_RESULT,
                         struct rp_error *err)
{
    struct fake_host *fake = of(host);
    struct fake_planned *planned = find_planned(fake, id);
    if (!fake_enter(fake, "request_state", err))
        return -1;
    if (!planned || !planned->real || state != RP_VM_RUNNING)
        return rp_fail(err, RP_ERR_STATE, "VM %s cannot do that", id);
    planned->running = true;
    *job = *result = 0;
    return fake_leave(fake, "request_state", err);
}

static int destroy_system(struct rp_host_connection *host, const char *id, bool delete_disks, RP_METHOD_RESULT,
                          struct rp_error *err)
{
    struct fake_host *fake = of(host);
    struct fake_planned *planned = find_planned(fake, id);
    if (!fake_enter(fake, "destroy_system", err))
        return -1;
    if (!planned || delete_disks)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no planned VM %s", id);
    clear_planned(planned);
    *job = *result = 0;
    return fake_leave(fake, "destroy_system", err);
}

const struct rp_host_ops fake_file_ops = {
    .export_system = export_system,
    .import_system = import_system,
    .plan_system = plan_system,
    .list_planned = list_planned,
    .vm_settings = vm_settings,
    .modify_disk = modify_disk,
    .validate_planned = validate_planned,
    .realize_planned = realize_planned,
    .import_reference_point = import_reference_point,
    .list_reference_points = list_reference_points,
    .rename = rename_vm,
    .request_state = request_state,
    .destroy_system = destroy_system,
};
