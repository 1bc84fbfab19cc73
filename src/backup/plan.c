#include "backup/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/num.h"

// Every disk of the one is in the other, at the same moment.
static bool same_moment(const struct rp_point *point, const struct rp_reference_point *reference)
{
    size_t same = 0, tracked = 0, listed = 0;
    for (size_t i = 0; i < point->disk_count; i++) {
        const struct rp_point_disk *disk = &point->disks[i];
        bool found = false;
        if (!disk->rct_id || !*disk->rct_id)
            continue;
        for (size_t j = 0; j < reference->disk_count && !found; j++)
            found = !strcmp(reference->disks[j].rct_id, disk->rct_id);
        tracked++;
        same += found;
    }
    for (size_t j = 0; j < reference->disk_count; j++)
        listed += *reference->disks[j].rct_id != 0;
    return tracked && same == tracked && listed == tracked;
}

bool rp_plan_names(const struct rp_point *point, const struct rp_reference_point *reference)
{
    return point->reference_point && (!strcmp(point->reference_point, reference->id) || same_moment(point, reference));
}

static const struct rp_reference_point *find_reference(const struct rp_reference_points *references, const struct rp_point *point)
{
    const struct rp_reference_point *found = NULL;
    for (size_t i = 0; i < references->count; i++) {
        if (!rp_plan_names(point, &references->items[i]))
            continue;
        found = &references->items[i];
        if (!strcmp(found->id, point->reference_point)) // rather than one that only looks like it
            break;
    }
    return found;
}

void rp_plan_choose_base(const struct rp_points *points, const char *vm_id, const struct rp_reference_points *references,
                         struct rp_plan_base *base)
{
    *base = (struct rp_plan_base){0};
    bool all = !points->unreadable; // else nobody knows of which VM those are
    snprintf(base->reason, sizeof base->reason, "first backup of this VM%s", all ? "" : ", or none of its earlier ones can be read");
    for (size_t i = points->count; i-- > 0;) {
        const struct rp_point *point = &points->items[i];
        if (!point->vm_id || strcmp(point->vm_id, vm_id))
            continue;
        base->reference = find_reference(references, point);
        if (base->reference) {
            base->point = point;
            base->reason[0] = 0;
            return;
        }
        snprintf(base->reason, sizeof base->reason, "the host has no reference point of an earlier backup %s",
                 all ? "any more" : "that can be read");
    }
}

static bool same_id(const struct rp_guid *a, const struct rp_guid *b) { return !rp_guid_is_zero(a) && rp_guid_equal(a, b); }

const struct rp_point_disk *rp_plan_match(const struct rp_vm_settings *settings, const struct rp_vm_disk *disk,
                                          const struct rp_point *point)
{
    const struct rp_point_disk *found = NULL;
    size_t here = 0, there = 0;
    for (size_t i = 0; i < point->disk_count; i++) {
        const struct rp_point_disk *old = &point->disks[i];
        if (!same_id(&old->disk_id, &disk->disk_id))
            continue;
        if (old->instance && !strcmp(old->instance, disk->instance))
            return old;
        found = old;
        there++;
    }
    for (size_t i = 0; i < settings->disk_count; i++)
        here += same_id(&settings->disks[i].disk_id, &disk->disk_id);
    return here == 1 && there == 1 ? found : NULL;
}

// The host's own list must name the same moment for the disk as the restore point does.
static const char *host_rct_id(const struct rp_reference_point *reference, const struct rp_point_disk *disk)
{
    for (size_t i = 0; i < reference->disk_count; i++) {
        const struct rp_reference_disk *candidate = &reference->disks[i];
        if (disk->instance && !strcmp(candidate->instance, disk->instance) &&
            (rp_guid_is_zero(&candidate->disk_id) || rp_guid_equal(&candidate->disk_id, &disk->disk_id)))
            return candidate->rct_id;
    }
    return "";
}

void rp_plan_disk_full(struct rp_plan_disk *disk, const char *format, ...)
{
    disk->base = NULL;
    disk->rct_id[0] = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(disk->reason, sizeof disk->reason, format, args);
    va_end(args);
}

static void decide(const struct rp_vm_settings *settings, const struct rp_plan_base *base, struct rp_plan_disk *plan)
{
    const struct rp_vm_disk *disk = plan->disk;
    if (!base->point) {
        rp_plan_disk_full(plan, "%s", base->reason);
        return;
    }
    const struct rp_point_disk *old = rp_plan_match(settings, disk, base->point);
    if (!old) {
        rp_plan_disk_full(plan, "disk was added");
        return;
    }
    if (disk->size < old->root.size) {
        char a[RP_SIZE_TEXT], b[RP_SIZE_TEXT];
        rp_plan_disk_full(plan, "disk shrank from %s to %s", rp_format_size(old->root.size, a), rp_format_size(disk->size, b));
        return;
    }
    if (!old->rct_id || !*old->rct_id) {
        rp_plan_disk_full(plan, "disk was not tracked at the last backup");
        return;
    }
    if (strcmp(host_rct_id(base->reference, old), old->rct_id)) {
        rp_plan_disk_full(plan, "the host's reference point names another moment of this disk than the last backup");
        return;
    }
    plan->base = old;
    snprintf(plan->rct_id, sizeof plan->rct_id, "%s", old->rct_id);
}

static int check_settings(const struct rp_vm_settings *settings, struct rp_error *err)
{
    if (!settings->disk_count)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "the VM has no disks");
    if (settings->disk_count > RP_PLAN_MAX_DISKS)
        return rp_fail(err, RP_ERR_CORRUPT, "the host lists %zu disks", settings->disk_count);
    for (size_t i = 0; i < settings->disk_count; i++) {
        const struct rp_vm_disk *disk = &settings->disks[i];
        for (size_t j = 0; j < i; j++)
            if (settings->disks[j].number == disk->number)
                return rp_fail(err, RP_ERR_CORRUPT, "the host lists disk %u twice", disk->number);
        if (!disk->path || !*disk->path)
            return rp_fail(err, RP_ERR_CORRUPT, "the host gives no file for disk %u", disk->number);
        if (!disk->size || disk->size % 512 || disk->size > RP_TIB * 64)
            return rp_fail(err, RP_ERR_CORRUPT, "the host says that disk %u has %llu bytes", disk->number,
                           (unsigned long long)disk->size);
    }
    return 0;
}

int rp_plan_make(const struct rp_vm_settings *settings, const struct rp_plan_base *base, struct rp_plan *plan, struct rp_error *err)
{
    if (check_settings(settings, err))
        return -1;
    plan->count = settings->disk_count;
    plan->disks = rp_xcalloc(plan->count, sizeof *plan->disks);
    for (size_t i = 0; i < plan->count; i++) {
        plan->disks[i].disk = &settings->disks[i];
        decide(settings, base, &plan->disks[i]);
    }
    return 0;
}

void rp_plan_clear(struct rp_plan *plan)
{
    free(plan->disks);
    *plan = (struct rp_plan){0};
}

// ---- the reader -------------------------------------------------------------------------------------------------------

static const struct {
    const char *name, *option;
} readers[] = {
    [RP_READER_ANY] = {"any", "any"},
    [RP_READER_VIRTUAL_DISK] = {"virtual-disk", "virtual-disk"},
    [RP_READER_SHARE] = {"mounted-share", "share"},
    [RP_READER_EXPORT] = {"wmi-export", "export"},
};

const char *rp_reader_name(enum rp_reader_kind kind) { return readers[kind].name; }

int rp_reader_parse(const char *text, enum rp_reader_kind *kind)
{
    for (unsigned i = RP_READER_VIRTUAL_DISK; i <= RP_READER_EXPORT; i++) {
        if (strcmp(text, readers[i].name) && strcmp(text, readers[i].option))
            continue;
        *kind = (enum rp_reader_kind)i;
        return 0;
    }
    return -1;
}

// The first file that is in no mapped folder, or NULL.
static const char *first_unmapped(const struct rp_host_connection *host, const struct rp_vm_settings *settings)
{
    for (size_t i = 0; i < settings->disk_count; i++)
        if (settings->disks[i].path && !rp_path_map_knows(host->paths, settings->disks[i].path))
            return settings->disks[i].path;
    return NULL;
}

int rp_plan_choose_reader(const struct rp_host_connection *host, const struct rp_vm_settings *settings, enum rp_reader_kind asked,
                          const char *export_folder, enum rp_reader_kind *chosen, struct rp_error *err)
{
    bool local = rp_host_is_local(host), mapped = host->paths && host->paths->count;
    const char *outside = first_unmapped(host, settings);
    *chosen = asked;
    if (asked == RP_READER_ANY)
        *chosen = local ? RP_READER_VIRTUAL_DISK : mapped && !outside ? RP_READER_SHARE : RP_READER_EXPORT;
    if (*chosen == RP_READER_SHARE && outside)
        return rp_fail(err, RP_ERR_INVALID, "%s: no mapping says where %s is here (--map 'FOLDER OF THE HOST = FOLDER HERE')",
                       host->address, outside);
    if (*chosen == RP_READER_EXPORT && !export_folder && asked == RP_READER_EXPORT)
        return rp_fail(err, RP_ERR_INVALID, "%s: an export needs a folder that both sides see (--export-folder)", host->address);
    if (*chosen == RP_READER_EXPORT && !export_folder)
        return rp_fail(err, RP_ERR_INVALID, "%s: its disks cannot be read: map its folders (--map 'FOLDER OF THE HOST = FOLDER HERE'), "
                       "or name a folder for exports that both sides see (--export-folder)", host->address);
    return 0;
}
