#include "fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/num.h"

static struct fake_host *of(struct rp_host_connection *host) { return (struct fake_host *)host; }

// 1: do the work, 0: fail before it. `fake->fail_after` fails after it (done_failing).
bool fake_enter(struct fake_host *fake, const char *verb, struct rp_error *err)
{
    if (fake->before)
        fake->before(fake, verb);
    fake->calls++;
    if (fake->lost_from && fake->calls >= fake->lost_from) {
        fake->failed_verb = verb;
        rp_fail(err, RP_ERR_IO, "%s: nobody answers, on purpose", verb);
        return false;
    }
    if (fake->calls != fake->fail_at)
        return true;
    fake->failed_verb = verb;
    if (fake->fail_after)
        return true;
    rp_fail(err, RP_ERR_IO, "%s failed on purpose", verb);
    return false;
}

int fake_leave(struct fake_host *fake, const char *verb, struct rp_error *err)
{
    if (fake->calls == fake->fail_at && fake->fail_after)
        return rp_fail(err, RP_ERR_IO, "the answer of %s was lost on purpose", verb);
    return 0;
}

static size_t units(uint64_t size) { return (size_t)rp_div_up(size, FAKE_UNIT); }

static void copy_disk(struct fake_disk *to, const struct fake_disk *from, bool with_data)
{
    *to = *from;
    to->data = NULL;
    to->allocated = NULL;
    to->since = NULL;
    if (!with_data || !from->present)
        return;
    to->data = memcpy(rp_xmalloc(from->size), from->data, from->size);
    to->allocated = memcpy(rp_xmalloc(units(from->size) * sizeof(bool)), from->allocated, units(from->size) * sizeof(bool));
    to->since = memcpy(rp_xmalloc(units(from->size) * sizeof(uint32_t)), from->since, units(from->size) * sizeof(uint32_t));
}

static void clear_disk(struct fake_disk *disk)
{
    free(disk->data);
    free(disk->allocated);
    free(disk->since);
    *disk = (struct fake_disk){0};
}

static void clear_point(struct fake_point *point)
{
    for (size_t i = 0; i < FAKE_MAX; i++)
        clear_disk(&point->disks[i]);
    free(point->name);
    *point = (struct fake_point){0};
}

struct fake_point *fake_new_point(struct fake_host *fake, bool snapshot, const char *name)
{
    for (size_t i = 0; i < FAKE_POINTS; i++) {
        struct fake_point *point = &fake->points[i];
        if (point->present)
            continue;
        point->present = true;
        point->snapshot = snapshot;
        point->type = RP_SNAPSHOT_RECOVERY;
        point->name = rp_xstrdup(name);
        point->time_ns = fake->time_ns ? fake->time_ns : rp_clock_wall_ns();
        point->epoch = fake->epoch++;
        snprintf(point->id, sizeof point->id, "%s-%u", snapshot ? "snapshot" : "reference", ++fake->next_id);
        for (size_t d = 0; d < FAKE_MAX; d++)
            copy_disk(&point->disks[d], &fake->disks[d], snapshot);
        if (snapshot && fake->vms)
            fake_write_snapshot(fake, point);
        return point;
    }
    abort();
}

void fake_forget_points(struct fake_host *fake)
{
    for (size_t i = 0; i < FAKE_POINTS; i++)
        clear_point(&fake->points[i]);
}

struct fake_point *fake_find_point(struct fake_host *fake, const char *id, bool snapshot)
{
    for (size_t i = 0; i < FAKE_POINTS; i++)
        if (fake->points[i].present && fake->points[i].snapshot == snapshot && !strcmp(fake->points[i].id, id))
            return &fake->points[i];
    return NULL;
}

// ---- the administrator and the guest --------------------------------------------------------------------------------

struct fake_disk *fake_add_disk(struct fake_host *fake, uint64_t size)
{
    for (uint32_t i = 0; i < FAKE_MAX; i++) {
        struct fake_disk *disk = &fake->disks[i];
        if (disk->present)
            continue;
        *disk = (struct fake_disk){.present = true, .number = i, .disk_id = rp_guid_new(), .size = size, .tracking = rp_guid_new()};
        snprintf(disk->instance, sizeof disk->instance, "Microsoft:VM\\%u\\L", i);
        disk->data = rp_xcalloc(1, size);
        disk->allocated = rp_xcalloc(units(size), sizeof(bool));
        disk->since = rp_xcalloc(units(size), sizeof(uint32_t));
        return disk;
    }
    abort();
}

void fake_remove_disk(struct fake_host *fake, unsigned slot) { clear_disk(&fake->disks[slot]); }

void fake_resize(struct fake_host *fake, unsigned slot, uint64_t size)
{
    struct fake_disk *disk = &fake->disks[slot], old = *disk;
    uint64_t kept = rp_min64(size, old.size);
    disk->size = size;
    disk->data = rp_xcalloc(1, size);
    disk->allocated = rp_xcalloc(units(size), sizeof(bool));
    disk->since = rp_xcalloc(units(size), sizeof(uint32_t));
    memcpy(disk->data, old.data, kept);
    memcpy(disk->allocated, old.allocated, units(kept) * sizeof(bool));
    memcpy(disk->since, old.since, units(kept) * sizeof(uint32_t));
    if (size < old.size)
        disk->tracking = rp_guid_new();
    clear_disk(&old);
}

static void touch(struct fake_host *fake, struct fake_disk *disk, uint64_t offset, uint64_t length)
{
    for (uint64_t unit = offset / FAKE_UNIT; unit * FAKE_UNIT < offset + length; unit++)
        disk->since[unit] = fake->epoch;
}

void fake_write(struct fake_host *fake, unsigned slot, uint64_t offset, const void *data, size_t size)
{
    struct fake_disk *disk = &fake->disks[slot];
    memcpy(disk->data + offset, data, size);
    for (uint64_t unit = offset / FAKE_UNIT; unit * FAKE_UNIT < offset + size; unit++)
        disk->allocated[unit] = true;
    touch(fake, disk, offset, size);
}

void fake_trim(struct fake_host *fake, unsigned slot, uint64_t offset, uint64_t length)
{
    struct fake_disk *disk = &fake->disks[slot];
    memset(disk->data + offset, 0, length);
    memset(disk->allocated + offset / FAKE_UNIT, 0, units(length) * sizeof(bool));
    touch(fake, disk, offset, length);
}

unsigned fake_count(const struct fake_host *fake, bool snapshots)
{
    unsigned count = 0;
    for (size_t i = 0; i < FAKE_POINTS; i++)
        count += fake->points[i].present && fake->points[i].snapshot == snapshots;
    return count;
}

// ---- the verbs ------------------------------------------------------------------------------------------------------

static int find_vm(struct rp_host_connection *host, const char *name, struct rp_vm *vm, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (fake->gone || (strcmp(name, fake->vm.id) && strcmp(name, fake->vm.name)))
        return rp_fail(err, RP_ERR_NOT_FOUND, "no VM %s", name);
    *vm = fake->vm;
    vm->name = rp_xstrdup(fake->vm.name);
    vm->activity = fake->merging ? RP_VM_MERGING : RP_VM_IDLE;
    fake->merging -= fake->merging > 0;
    return 0;
}

static int list_vms(struct rp_host_connection *host, struct rp_vms *vms, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    (void)err;
    vms->items = rp_xcalloc(1, sizeof *vms->items);
    vms->count = !fake->gone;
    if (vms->count) {
        vms->items[0] = fake->vm;
        vms->items[0].name = rp_xstrdup(fake->vm.name);
    }
    return 0;
}

static void rct_id_of(const struct fake_disk *disk, uint32_t epoch, char out[RP_HOST_ID])
{
    char guid[RP_GUID_TEXT];
    snprintf(out, RP_HOST_ID, "rctX:%s:%08x", rp_guid_format(&disk->tracking, guid), epoch);
}

static int settings_of(struct fake_host *fake, const struct fake_disk *disks, const char *owner, struct rp_vm_settings *settings)
{
    settings->document = rp_xstrdup("{\"fake\":true}");
    settings->outside = rp_xcalloc(1, sizeof *settings->outside);
    if (fake->outside && disks == fake->disks)
        settings->outside[settings->outside_count++] = rp_xstrdup(fake->outside);
    settings->disks = rp_xcalloc(FAKE_MAX, sizeof *settings->disks);
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (!disks[i].present || (!i && fake->left_out && disks != fake->disks))
            continue;
        struct rp_vm_disk *disk = &settings->disks[settings->disk_count++];
        memcpy(disk->instance, disks[i].instance, sizeof disk->instance);
        disk->number = fake->twice_the_number ? 0 : disks[i].number;
        disk->disk_id = disks[i].disk_id;
        disk->size = fake->wrong_size ? disks[i].size + 1 : disks[i].size;
        disk->logical_sector = 512;
        disk->physical_sector = 4096;
        disk->path = rp_xasprintf(fake->vms ? "d:\\vms\\Web1\\%s-%zu.avhdx" : "%s:%zu", owner, i);
    }
    return 0;
}

static int vm_settings(struct rp_host_connection *host, const char *vm_id, struct rp_vm_settings *settings, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (fake->gone || strcmp(vm_id, fake->vm.id))
        return fake_file_ops.vm_settings(host, vm_id, settings, err);
    return settings_of(fake, fake->disks, "live", settings);
}

static int create_snapshot(struct rp_host_connection *host, const char *vm_id, enum rp_snapshot_type type,
                           enum rp_consistency consistency, const char *name, RP_METHOD_RESULT, struct rp_error *err)
{
    (void)vm_id;
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "create_snapshot", err))
        return -1;
    if (fake->no_application && consistency == RP_CONSISTENCY_APPLICATION)
        return rp_fail(err, fake->no_application_code ? fake->no_application_code : RP_ERR_STATE, "the guest does not answer");
    struct fake_job what = {.verb = "create_snapshot", .type = type};
    snprintf(what.name, sizeof what.name, "%s", name);
    fake_job_start(fake, &what, job);
    *result = 0;
    return fake_leave(fake, "create_snapshot", err);
}

static int list_snapshots(struct rp_host_connection *host, const char *vm_id, struct rp_snapshots *snapshots, struct rp_error *err)
{
    (void)vm_id;
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "list_snapshots", err))
        return -1;
    snapshots->items = rp_xcalloc(FAKE_POINTS, sizeof *snapshots->items);
    for (size_t i = 0; i < FAKE_POINTS && !fake->hide_snapshot; i++) {
        const struct fake_point *point = &fake->points[i];
        if (!point->present || !point->snapshot)
            continue;
        struct rp_snapshot *snapshot = &snapshots->items[snapshots->count++];
        memcpy(snapshot->id, point->id, sizeof snapshot->id);
        snapshot->name = rp_xstrdup(point->name);
        snapshot->type = point->type;
        snapshot->consistency = fake->reached_crash ? RP_CONSISTENCY_CRASH : RP_CONSISTENCY_APPLICATION;
        snapshot->consistency_reason = fake->consistency_reason ? rp_xstrdup(fake->consistency_reason) : NULL;
        snapshot->time_ns = point->time_ns;
    }
    return fake_leave(fake, "list_snapshots", err);
}

static int snapshot_settings(struct rp_host_connection *host, const char *id, struct rp_vm_settings *settings, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "snapshot_settings", err))
        return -1;
    struct fake_point *point = fake_find_point(fake, id, true);
    if (!point)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no snapshot %s", id);
    settings_of(fake, point->disks, id, settings);
    return fake_leave(fake, "snapshot_settings", err);
}

static int destroy_snapshot(struct rp_host_connection *host, const char *id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "destroy_snapshot", err))
        return -1;
    struct fake_point *point = fake_find_point(fake, id, true);
    if (!point)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no snapshot %s", id);
    if (point->readers || fake_job_busy(fake, id))
        return rp_fail(err, RP_ERR_BUSY, "snapshot %s is in use", id);
    struct fake_job what = {.verb = "destroy_snapshot"};
    memcpy(what.target, point->id, sizeof what.target);
    fake_job_start(fake, &what, job);
    *result = 0;
    return fake_leave(fake, "destroy_snapshot", err);
}

static int convert(struct rp_host_connection *host, const char *id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "convert_to_reference_point", err))
        return -1;
    struct fake_point *point = fake_find_point(fake, id, true);
    if (!point)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no snapshot %s", id);
    if (point->readers)
        return rp_fail(err, RP_ERR_BUSY, "snapshot %s is being read", id);
    struct fake_job what = {.verb = "convert_to_reference_point"};
    memcpy(what.target, point->id, sizeof what.target);
    fake_job_start(fake, &what, job);
    *result = 0;
    return fake_leave(fake, "convert_to_reference_point", err);
}

static int list_reference_points(struct rp_host_connection *host, const char *vm_id, struct rp_reference_points *points, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (fake->gone)
        return fake_file_ops.list_reference_points(host, vm_id, points, err);
    if (!fake_enter(fake, "list_reference_points", err))
        return -1;
    points->items = rp_xcalloc(FAKE_POINTS, sizeof *points->items);
    for (size_t i = 0; i < FAKE_POINTS && !fake->hide_reference; i++) {
        const struct fake_point *from = &fake->points[i];
        char newest[RP_HOST_ID];
        snprintf(newest, sizeof newest, "reference-%u", fake->next_id);
        if (!from->present || from->snapshot || (fake->hide_newest && !strcmp(from->id, newest)))
            continue;
        struct rp_reference_point *point = &points->items[points->count++];
        memcpy(point->id, from->id, sizeof point->id);
        point->name = rp_xstrdup(from->name);
        point->disks = rp_xcalloc(FAKE_MAX, sizeof *point->disks);
        for (size_t d = 0; d < FAKE_MAX; d++) {
            if (!from->disks[d].present)
                continue;
            struct rp_reference_disk *disk = &point->disks[point->disk_count++];
            memcpy(disk->instance, from->disks[d].instance, sizeof disk->instance);
            disk->disk_id = from->disks[d].disk_id;
            if (!from->disks[d].untracked)
                rct_id_of(&from->disks[d], from->epoch - (fake->other_rct_ids ? 1 : 0), disk->rct_id);
        }
    }
    return fake_leave(fake, "list_reference_points", err);
}

static int destroy_reference_point(struct rp_host_connection *host, const char *id, RP_METHOD_RESULT, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "destroy_reference_point", err))
        return -1;
    struct fake_point *point = fake_find_point(fake, id, false);
    if (!point)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no reference point %s", id);
    struct fake_job what = {.verb = "destroy_reference_point"};
    memcpy(what.target, point->id, sizeof what.target);
    fake_job_start(fake, &what, job);
    *result = 0;
    return fake_leave(fake, "destroy_reference_point", err);
}

// ---- the work of a job ----------------------------------------------------------------------------------------------

static void convert_point(struct fake_host *fake, struct fake_point *point)
{
    for (size_t i = 0; i < FAKE_MAX && !fake->vms; i++) { // with files, changes of sectors are looked up in it
        struct fake_disk disk;
        copy_disk(&disk, &point->disks[i], false);
        clear_disk(&point->disks[i]);
        point->disks[i] = disk;
    }
    point->snapshot = false;
    if (fake->nameless)
        *point->name = 0;
    snprintf(point->id, sizeof point->id, "reference-%u", ++fake->next_id);
}

void fake_job_do(struct fake_host *fake, struct fake_job *job)
{
    struct fake_point *point = fake_find_point(fake, job->target, true);
    if (!strcmp(job->verb, "create_snapshot")) {
        point = fake_new_point(fake, true, job->name);
        point->type = job->type;
    } else if (!strcmp(job->verb, "convert_to_reference_point")) {
        convert_point(fake, point);
    } else if (!strncmp(job->verb, "destroy", 7)) {
        clear_point(point ? point : fake_find_point(fake, job->target, false));
        return;
    } else {
        return; // what else there is, is done when it is started
    }
    memcpy(job->result, point->id, sizeof job->result);
}

static struct fake_point *frozen_point(struct fake_host *fake, const char *path, unsigned *slot)
{
    const char *colon = strrchr(path, fake->vms ? '-' : ':');
    path = fake->vms ? strrchr(path, '\\') + 1 : path;
    RP_AUTO_FREE char *id = strndup(path, (size_t)(colon - path));
    *slot = (unsigned)atoi(colon + 1);
    return fake_find_point(fake, id, true);
}

static struct fake_disk *frozen(struct fake_host *fake, const char *path)
{
    unsigned slot;
    struct fake_point *point = frozen_point(fake, path, &slot);
    return point ? &point->disks[slot] : NULL;
}

static int disk_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                        uint64_t length, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err)
{
    struct fake_host *fake = of(host);
    if (!fake_enter(fake, "disk_changes", err))
        return -1;
    const struct fake_disk *disk = frozen(fake, path);
    if (!disk)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no file %s", path);
    char guid[RP_GUID_TEXT], prefix[RP_HOST_ID];
    size_t n = (size_t)snprintf(prefix, sizeof prefix, "rctX:%s:", rp_guid_format(&disk->tracking, guid));
    if (fake->refuse_changes || strncmp(limit_id, prefix, n))
        return rp_fail(err, RP_ERR_TRACKING_ID, "unknown id %s", limit_id);
    uint32_t epoch = (uint32_t)strtoul(limit_id + n, NULL, 16);
    // A part at a time: the caller must come back for the rest.
    *processed = rp_min64(length, 4 * RP_MIB);
    if (fake->no_progress_changes)
        *processed = 0;
    uint64_t end = offset + *processed;
    for (uint64_t unit = offset / FAKE_UNIT; unit * FAKE_UNIT < end; unit++) {
        uint64_t at = unit * FAKE_UNIT;
        if (disk->since[unit] > epoch)
            rp_ranges_push(changed, at, rp_min64(FAKE_UNIT, disk->size - at));
    }
    if (fake->outside_changes)
        rp_ranges_push(changed, disk->size, FAKE_UNIT);
    if (fake->unordered_changes) {
        for (size_t i = 0; i < changed->count / 2; i++) {
            struct rp_range r = changed->items[i];
            changed->items[i] = changed->items[changed->count - 1 - i];
            changed->items[changed->count - 1 - i] = r;
        }
        if (changed->count)
            rp_ranges_push(changed, changed->items[0].offset, changed->items[0].length);
    }
    return fake_leave(fake, "disk_changes", err);
}

void fake_init(struct fake_host *fake)
{
    static struct rp_host_ops ops;
    ops = (struct rp_host_ops){
        .list_vms = list_vms,
        .find_vm = find_vm,
        .vm_settings = vm_settings,
        .create_snapshot = create_snapshot,
        .list_snapshots = list_snapshots,
        .snapshot_settings = snapshot_settings,
        .destroy_snapshot = destroy_snapshot,
        .convert_to_reference_point = convert,
        .list_reference_points = list_reference_points,
        .destroy_reference_point = destroy_reference_point,
        .disk_changes = disk_changes,
        .export_system = fake_file_ops.export_system,
        .import_system = fake_file_ops.import_system,
        .plan_system = fake_file_ops.plan_system,
        .list_planned = fake_file_ops.list_planned,
        .modify_disk = fake_file_ops.modify_disk,
        .validate_planned = fake_file_ops.validate_planned,
        .realize_planned = fake_file_ops.realize_planned,
        .import_reference_point = fake_file_ops.import_reference_point,
        .rename = fake_file_ops.rename,
        .request_state = fake_file_ops.request_state,
        .destroy_system = fake_file_ops.destroy_system,
        .cancel_job = fake_job_cancel,
        .job_state = fake_job_state,
    };
    *fake = (struct fake_host){.host = {.ops = &ops, .address = rp_xstrdup("fake:")}, .epoch = 1};
    struct rp_guid id = rp_guid_new();
    rp_guid_format(&id, fake->vm.id);
    fake->vm.name = rp_xstrdup("web1");
    fake->vm.state = RP_VM_RUNNING;
}

void fake_clear(struct fake_host *fake)
{
    for (size_t i = 0; i < FAKE_MAX; i++)
        clear_disk(&fake->disks[i]);
    fake_forget_points(fake);
    fake_clear_files(fake);
    free(fake->vm.name);
    free(fake->host.address);
}

// ---- the reader -----------------------------------------------------------------------------------------------------

struct fake_reader {
    struct rp_reader reader;
    struct fake_host *fake;
    struct fake_disk *disk;
    struct fake_point *point;
    char *path;
};

static int reader_allocated(struct rp_reader *reader, uint64_t offset, uint64_t length, struct rp_ranges *ranges, struct rp_error *err)
{
    (void)err;
    const struct fake_disk *disk = ((struct fake_reader *)reader)->disk;
    for (uint64_t at = offset; at < offset + length;) {
        uint64_t end = rp_min64((at / FAKE_UNIT + 1) * FAKE_UNIT, offset + length);
        if (disk->allocated[at / FAKE_UNIT])
            rp_ranges_add(ranges, at, end - at);
        at = end;
    }
    return 0;
}

static int reader_changed(struct rp_reader *reader, const char *rct_id, struct rp_ranges *ranges, struct rp_error *err)
{
    struct fake_reader *r = (struct fake_reader *)reader;
    return rp_host_all_changes(&r->fake->host, r->path, rct_id, reader->size, ranges, err);
}

static int reader_read(struct rp_reader *reader, void *data, uint32_t size, uint64_t offset, struct rp_error *err)
{
    struct fake_reader *r = (struct fake_reader *)reader;
    if (!rp_range_ok(offset, size, r->disk->size))
        return rp_fail(err, RP_ERR_INVALID, "read outside the disk");
    memcpy(data, r->disk->data + offset, size);
    __atomic_fetch_add(&r->fake->bytes_read, size, __ATOMIC_RELAXED);
    return 0;
}

static void reader_close(struct rp_reader *reader)
{
    ((struct fake_reader *)reader)->fake->readers--;
    ((struct fake_reader *)reader)->point->readers--;
    free(((struct fake_reader *)reader)->path);
    free(reader);
}

struct rp_reader *fake_reader_open(struct rp_host_connection *host, const struct rp_vm_disk *disk, struct rp_error *err)
{
    static const struct rp_reader_ops ops = {
        .allocated = reader_allocated, .changed = reader_changed, .read = reader_read, .close = reader_close};
    if (!fake_enter(of(host), "open_reader", err))
        return NULL;
    unsigned slot;
    struct fake_point *point = frozen_point(of(host), disk->path, &slot);
    struct fake_disk *from = point ? &point->disks[slot] : NULL;
    if (!from) {
        rp_fail(err, RP_ERR_NOT_FOUND, "no file %s", disk->path);
        return NULL;
    }
    struct fake_reader *reader = rp_xcalloc(1, sizeof *reader);
    reader->reader = (struct rp_reader){.ops = &ops, .name = "fake", .size = from->size, .logical_sector = 512,
                                        .physical_sector = 4096};
    reader->fake = of(host);
    reader->disk = from;
    reader->point = point;
    point->readers++;
    reader->path = rp_xstrdup(disk->path);
    of(host)->readers++;
    return &reader->reader;
}

// ---- the backend ----------------------------------------------------------------------------------------------------

static struct rp_backend *inner(struct rp_backend *backend) { return ((struct fake_backend *)backend)->inner; }

// Fails this call? A backend that is full stays so for whatever writes, until the test makes room.
static bool fails(struct rp_backend *backend, const char *call, const char *name, struct rp_error *err)
{
    struct fake_backend *fake = (struct fake_backend *)backend;
    bool put = !strcmp(call, "put");
    // Every backup adds a point that the next one reads: only the first read (its size, its bytes) counts, or a test would never see the last call.
    if (!put && !strncmp(name, "points/", 7) && name[7] && __atomic_fetch_add(&fake->points_read, 1, __ATOMIC_RELAXED) > 1)
        return false;
    bool now = __atomic_add_fetch(&fake->calls, 1, __ATOMIC_RELAXED) == fake->fail_call ||
               (put && __atomic_add_fetch(&fake->puts, 1, __ATOMIC_RELAXED) == fake->fail_at);
    if (now)
        snprintf(fake->failed, sizeof fake->failed, "%s %s", call, name);
    if (now && fake->stays_full)
        __atomic_store_n(&fake->full, true, __ATOMIC_RELAXED);
    if (!now && !(put && __atomic_load_n(&fake->full, __ATOMIC_RELAXED)))
        return false;
    rp_fail(err, put ? RP_ERR_NO_SPACE : RP_ERR_IO, "%s %s: on purpose", call, name);
    return true;
}

static int backend_put(struct rp_backend *backend, const char *name, const void *data, size_t size, struct rp_error *err)
{
    struct fake_backend *fake = (struct fake_backend *)backend;
    if (fails(backend, "put", name, err))
        return -1;
    if (!strncmp(name, "packs/", 6))
        __atomic_add_fetch(&fake->packs, 1, __ATOMIC_RELAXED);
    return fake->inner->ops->put(fake->inner, name, data, size, err);
}
static int backend_get(struct rp_backend *b, const char *name, uint64_t offset, void *data, size_t size, struct rp_error *err)
{
    if (!strcmp(name, ((struct fake_backend *)b)->bad_sector))
        return rp_fail_sys(err, EIO, "%s: on purpose", name);
    return fails(b, "get", name, err) ? -1 : inner(b)->ops->get(inner(b), name, offset, data, size, err);
}
static int backend_size(struct rp_backend *b, const char *name, uint64_t *size, struct rp_error *err)
{
    return fails(b, "size", name, err) ? -1 : inner(b)->ops->size(inner(b), name, size, err);
}
static int backend_list(struct rp_backend *b, const char *prefix, rp_backend_list_fn *each, void *context, struct rp_error *err)
{
    return fails(b, "list", prefix, err) ? -1 : inner(b)->ops->list(inner(b), prefix, each, context, err);
}
static int backend_remove(struct rp_backend *b, const char *name, struct rp_error *err)
{
    return fails(b, "remove", name, err) ? -1 : inner(b)->ops->remove(inner(b), name, err);
}
static int backend_room(struct rp_backend *b, uint64_t *bytes, struct rp_error *err)
{
    if (fails(b, "room", "", err))
        return -1;
    *bytes = ((struct fake_backend *)b)->room;
    return *bytes ? 0 : inner(b)->ops->room(inner(b), bytes, err);
}
static void backend_close(struct rp_backend *b)
{
    rp_backend_close(inner(b));
    free(b->location);
    free(b);
}

struct rp_backend *fake_backend_new(struct rp_backend *real, struct fake_backend **out)
{
    static const struct rp_backend_ops ops = {backend_put, backend_get, backend_size, backend_list,
                                              backend_remove, backend_room, backend_close};
    struct fake_backend *fake = rp_xcalloc(1, sizeof *fake);
    fake->backend.ops = &ops;
    fake->backend.location = rp_xstrdup(real->location);
    fake->inner = real;
    *out = fake;
    return &fake->backend;
}
