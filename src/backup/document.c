#include "backup/document.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/utf16.h"

#define REASON_LIMIT 4000u // a text in the document has at most 4096 bytes

// A reason quotes messages that were cut at some byte, and a host with many disks gives many. A document that could not
// be written because of them would make every backup of the VM fail, just when its changes are not known any more.
static char *as_text(const char *text)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf valid = {0};
    rp_utf8_append_valid(&valid, text, REASON_LIMIT);
    if (strlen(text) > valid.size)
        rp_buf_append(&valid, " ...", 4);
    return rp_xstrdup(rp_buf_text(&valid));
}

static char *copy(const char *text) { return text ? rp_xstrdup(text) : NULL; }

void rp_document_consistency(struct rp_point *point, enum rp_consistency asked, enum rp_consistency reached, const char *why)
{
    bool application = asked == RP_CONSISTENCY_APPLICATION;
    point->consistency_asked = rp_xstrdup(application ? "application" : "crash");
    // "Unknown" is no promise: crash is what every checkpoint is at least.
    point->consistency_reached = rp_xstrdup(reached == RP_CONSISTENCY_APPLICATION ? "application" : "crash");
    if (application && reached != RP_CONSISTENCY_APPLICATION)
        point->consistency_reason = as_text(why ? why : "the host could not make an application-consistent checkpoint");
    else if (why)
        point->consistency_reason = as_text(why);
}

static const char *rct_id(const struct rp_reference_point *reference, const struct rp_vm_disk *disk)
{
    for (size_t i = 0; reference && i < reference->disk_count; i++) {
        const struct rp_reference_disk *candidate = &reference->disks[i];
        if (!strcmp(candidate->instance, disk->instance) && *candidate->rct_id &&
            (rp_guid_is_zero(&candidate->disk_id) || rp_guid_equal(&candidate->disk_id, &disk->disk_id)))
            return candidate->rct_id;
    }
    return NULL;
}

static void fill_disk(struct rp_point_disk *out, const struct rp_reference_point *reference, struct rp_backup_disk *disk)
{
    const struct rp_vm_disk *source = disk->plan->disk;
    out->number = source->number;
    out->instance = rp_xstrdup(source->instance);
    out->disk_id = source->disk_id;
    out->data_write_guid = disk->data_write_guid;
    out->logical_sector = source->logical_sector;
    out->physical_sector = source->physical_sector;
    out->rct_id = copy(rct_id(reference, source));
    out->kind = rp_xstrdup(disk->plan->base ? "incremental" : "full");
    out->reason = disk->plan->base ? NULL : as_text(disk->plan->reason);
    out->bytes_read = atomic_load(&disk->read);
    out->bytes_changed = disk->changed;
    out->root = disk->root;
}

// One reason of all full disks when they agree, else each with its disk.
static char *join_reasons(const struct rp_point *point)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    const char *first = NULL;
    bool same = true;
    for (size_t i = 0; i < point->disk_count; i++) {
        const char *reason = point->disks[i].reason;
        same &= reason && (!first || !strcmp(first, reason));
        first = first ? first : reason;
        if (reason)
            rp_buf_printf(&text, "%sdisk %u: %s", text.size ? "; " : "", point->disks[i].number, reason);
    }
    if (!first)
        return NULL;
    return as_text(same ? first : rp_buf_text(&text));
}

void rp_document_fill(struct rp_point *point, const char *host, const struct rp_vm *vm, struct rp_vm_settings *settings,
                      const struct rp_point *base, const struct rp_reference_point *reference,
                      struct rp_backup_disk *disks, size_t disk_count)
{
    if (point->time_ns <= 0)
        point->time_ns = (int64_t)point->started_ns;
    point->vm_id = rp_xstrdup(vm->id);
    point->vm_name = copy(vm->name);
    point->host = copy(host);
    point->approach = rp_xstrdup("wmi-checkpoint");
    point->reader = copy(disk_count ? disks[0].reader_name : NULL);
    point->reference_point = reference ? rp_xstrdup(reference->id) : NULL;
    point->settings = settings->document;
    settings->document = NULL;
    point->software = rp_xstrdup("refpoint " RP_VERSION);
    point->disks = rp_xcalloc(disk_count, sizeof *point->disks);
    point->disk_count = disk_count;
    bool incremental = false;
    for (size_t i = 0; i < disk_count; i++) {
        fill_disk(&point->disks[i], reference, &disks[i]);
        point->bytes_read += point->disks[i].bytes_read;
        incremental |= disks[i].plan->base != NULL;
    }
    point->kind = rp_xstrdup(incremental ? "incremental" : "full");
    point->base_point = incremental ? rp_xstrdup(base->id) : NULL;
    point->reason = join_reasons(point);
}
