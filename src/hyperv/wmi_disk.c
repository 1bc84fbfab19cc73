// Disks of a VM: AddResourceSettings, ModifyResourceSettings, RemoveResourceSettings, ResizeVirtualHardDisk; and what
// changed on one: GetVirtualDiskChanges.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/num.h"
#include "hyperv/wmi_internal.h"

#define RESOURCE "Msvm_ResourceAllocationSettingData"
#define STORAGE "Msvm_StorageAllocationSettingData"
enum { SCSI = 6, DRIVE = 17, LOGICAL_DISK = 31, SLOTS = 64, MAX_RANGES = 1 << 20 };

// ---- add ------------------------------------------------------------------------------------------------------------

static struct rp_cim_instance *resource(const char *class_name, unsigned type, const char *subtype, const char *parent)
{
    struct rp_cim_instance *object = rp_cim_instance_new(NULL, class_name);
    rp_cim_set(object, "ResourceType", rp_cim_unsigned(RP_CIM_UINT16, type));
    rp_cim_set(object, "ResourceSubType", rp_cim_string(subtype));
    if (parent)
        rp_cim_set(object, "Parent", rp_cim_string(parent));
    return object;
}

static int add_resource(struct rp_wmi *wmi, const struct rp_cim_path *settings, struct rp_cim_instance *object,
                        const char *what, bool wait, RP_METHOD_RESULT, struct rp_error *err)
{
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "AddResourceSettings", .what = what,
                                     .result = "ResultingResourceSettings", .result_class = object->class_name};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "AffectedConfiguration", rp_cim_reference(rp_cim_path_copy(settings)));
    rp_cim_set(in, "ResourceSettings", rp_wmi_embed_array(wmi, &object, 1));
    return wait ? rp_wmi_run(wmi, &call, in, result, err) : rp_wmi_call(wmi, &call, in, job, result, err);
}

static bool is_type(const struct rp_cim_instance *object, unsigned type)
{
    return rp_cim_get_unsigned(object, "ResourceType", 0) == type;
}

// The object that a path in a string names is this one.
static bool names(const char *text, const struct rp_cim_instance *object)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = text ? rp_cim_path_parse(text, NULL) : NULL;
    const char *key = path ? rp_cim_path_get(path, "InstanceID") : NULL, *id = rp_cim_get_text(object, "InstanceID");
    return key && id && !strcasecmp(key, id);
}

// The first slot of a controller that no drive has; SLOTS: it is full.
static unsigned free_slot(const struct rp_cim_instances *parts, const struct rp_cim_instance *controller)
{
    bool used[SLOTS] = {false};
    for (size_t i = 0; i < parts->count; i++) {
        uint64_t slot = rp_cim_get_unsigned(parts->items[i], "AddressOnParent", SLOTS);
        if (slot < SLOTS && names(rp_cim_get_text(parts->items[i], "Parent"), controller))
            used[slot] = true;
    }
    unsigned slot = 0;
    while (slot < SLOTS && used[slot])
        slot++;
    return slot;
}

// A drive for another disk, on a SCSI controller with room, or on a new one. Its path as text; NULL when there is none:
// *direct when this host makes the drive by itself (refpoint-hostd knows disks only, and numbers them).
static char *add_drive(struct rp_wmi *wmi, const struct rp_cim_path *settings, const struct rp_cim_instances *parts,
                       const char *what, bool *direct, struct rp_error *err)
{
    char ignored[RP_HOST_ID], id[RP_HOST_ID] = "";
    unsigned slot = SLOTS;
    for (size_t i = 0; i < parts->count && slot == SLOTS; i++)
        if (is_type(parts->items[i], SCSI) && (slot = free_slot(parts, parts->items[i])) < SLOTS)
            rp_wmi_copy_id(rp_cim_get_text(parts->items[i], "InstanceID"), "controller", id, NULL);
    struct rp_error local = {0};
    if (slot == SLOTS) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *controller =
            resource(RESOURCE, SCSI, "Microsoft:Hyper-V:Synthetic SCSI Controller", NULL);
        slot = 0;
        if (add_resource(wmi, settings, controller, what, true, ignored, id, &local)) {
            *direct = local.code == RP_ERR_UNSUPPORTED;
            rp_fail_as(err, &local);
            return NULL;
        }
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *parent = rp_wmi_path_instance(RESOURCE, id);
    RP_AUTO_FREE char *parent_text = rp_wmi_path_text(wmi, parent, err);
    if (!parent_text)
        return NULL;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *drive =
        resource(RESOURCE, DRIVE, "Microsoft:Hyper-V:Synthetic Disk Drive", parent_text);
    char address[16];
    snprintf(address, sizeof address, "%u", slot);
    rp_cim_set(drive, "AddressOnParent", rp_cim_string(address));
    if (add_resource(wmi, settings, drive, what, true, ignored, id, &local)) {
        *direct = local.code == RP_ERR_UNSUPPORTED;
        rp_fail_as(err, &local);
        return NULL;
    }
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_instance(RESOURCE, id);
    return rp_wmi_path_text(wmi, path, err);
}

int rp_wmi_add_disk(struct rp_host_connection *host, const char *vm_id, const char *disk, RP_METHOD_RESULT,
                    struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances parts = {0};
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = rp_wmi_settings_object(wmi, vm_id, err);
    if (!settings || rp_wmi_settings_parts(wmi, settings, &parts, err))
        return -1;
    RP_AUTO_FREE char *what = rp_xasprintf("add disk %s", disk);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_of(settings);
    bool direct = false;
    struct rp_error local = {0};
    RP_AUTO_FREE char *drive = add_drive(wmi, path, &parts, what, &direct, &local);
    if (!drive && !direct)
        return rp_fail_as(err, &local);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *image =
        resource(STORAGE, LOGICAL_DISK, "Microsoft:Hyper-V:Virtual Hard Disk", drive);
    struct rp_cim_value files = rp_cim_null(RP_CIM_STRING, true), file = rp_cim_string(disk);
    rp_cim_value_push(&files, &file);
    rp_cim_set(image, "HostResource", files);
    if (!add_resource(wmi, path, image, what, drive != NULL, job, result, &local))
        return 0;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *left = drive ? rp_cim_path_parse(drive, NULL) : NULL;
    if (left) { // an empty drive is of no use to anybody
        const struct rp_wmi_call call = {
            .service = RP_WMI_MANAGEMENT, .method = "RemoveResourceSettings", .what = what};
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
        struct rp_cim_value list = rp_cim_null(RP_CIM_REFERENCE, true), one = rp_cim_reference(rp_cim_path_copy(left));
        char ignored[RP_HOST_ID];
        rp_cim_value_push(&list, &one);
        rp_cim_set(in, "ResourceSettings", list);
        rp_wmi_run(wmi, &call, in, ignored, NULL);
    }
    return rp_fail_as(err, &local);
}

// ---- remove, resize, modify -----------------------------------------------------------------------------------------

// The disk of a number, and what it is part of.
static int find_disk(struct rp_wmi *wmi, const char *vm_id, uint32_t number, struct rp_cim_instances *parts,
                     struct rp_vm_disk *disk, struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = rp_wmi_settings_object(wmi, vm_id, err);
    RP_CLEANUP(rp_vm_settings_clear) struct rp_vm_settings all = {0};
    if (!settings || rp_wmi_settings_parts(wmi, settings, parts, err) || rp_wmi_disks(parts, "", &all, err))
        return -1;
    for (size_t i = 0; i < all.disk_count; i++)
        if (all.disks[i].number == number) {
            *disk = all.disks[i];
            disk->nbd_uri = NULL;
            disk->path = rp_xstrdup(disk->path);
            return 0;
        }
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: VM %s has no disk %u", wmi->host.address, vm_id, number);
}

static const struct rp_cim_instance *find_part(const struct rp_cim_instances *parts, const char *instance)
{
    for (size_t i = 0; i < parts->count; i++) {
        const char *id = rp_cim_get_text(parts->items[i], "InstanceID");
        if (id && !strcasecmp(id, instance))
            return parts->items[i];
    }
    return NULL;
}

int rp_wmi_remove_disk(struct rp_host_connection *host, const char *vm_id, uint32_t number, RP_METHOD_RESULT,
                       struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances parts = {0};
    struct rp_vm_disk disk = {0};
    *job = *result = 0;
    if (find_disk(wmi, vm_id, number, &parts, &disk, err))
        return -1;
    free(disk.path);
    const struct rp_cim_instance *image = find_part(&parts, disk.instance);
    RP_AUTO_FREE char *what = rp_xasprintf("remove disk %u of VM %s", number, vm_id);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "RemoveResourceSettings", .what = what};
    // The drive goes with its disk: first what is in it.
    struct rp_cim_value list = rp_cim_null(RP_CIM_REFERENCE, true);
    struct rp_cim_value one = rp_cim_reference(rp_wmi_path_instance(STORAGE, disk.instance));
    rp_cim_value_push(&list, &one);
    for (size_t i = 0; i < parts.count; i++)
        if (is_type(parts.items[i], DRIVE) && names(rp_cim_get_text(image, "Parent"), parts.items[i])) {
            one = rp_cim_reference(rp_wmi_path_of(parts.items[i]));
            rp_cim_value_push(&list, &one);
            break;
        }
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "ResourceSettings", list);
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

int rp_wmi_resize_disk(struct rp_host_connection *host, const char *vm_id, uint32_t number, uint64_t size,
                       RP_METHOD_RESULT, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances parts = {0};
    struct rp_wmi_disk_facts facts;
    struct rp_vm_disk disk = {0};
    *job = *result = 0;
    if (find_disk(wmi, vm_id, number, &parts, &disk, err))
        return -1;
    RP_AUTO_FREE char *path = disk.path;
    if (rp_wmi_disk_facts(wmi, path, &facts, err))
        return -1;
    if (size < facts.size)
        return rp_fail(err, RP_ERR_INVALID, "disk %u of VM %s has %llu bytes: it cannot become smaller", number, vm_id,
                       (unsigned long long)facts.size);
    RP_AUTO_FREE char *what = rp_xasprintf("grow disk %u of VM %s", number, vm_id);
    const struct rp_wmi_call call = {.service = RP_WMI_IMAGE, .method = "ResizeVirtualHardDisk", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "Path", rp_cim_string(path));
    rp_cim_set(in, "MaxInternalSize", rp_cim_unsigned(RP_CIM_UINT64, size));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

// Hyper-V would also give a running VM another file.
static int need_planned(struct rp_wmi *wmi, const char *instance, struct rp_error *err)
{
    RP_AUTO_FREE char *owner = strndup(instance, strcspn(instance, "\\"));
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = rp_wmi_settings_object(wmi, owner, err);
    const char *type = settings ? rp_cim_get_text(settings, "VirtualSystemType") : NULL;
    if (!settings || (type && strstr(type, ":Planned")))
        return settings ? 0 : -1;
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: %s is no disk of a planned VM", wmi->host.address, instance);
}

// Clients give the whole settings back with the one thing changed (facts 1.5 D).
int rp_wmi_modify_disk(struct rp_host_connection *host, const char *instance, const char *path, RP_METHOD_RESULT,
                       struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *job = *result = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *image =
        rp_wmi_one(wmi, STORAGE, "InstanceID", instance, "disk", err);
    if (!image || need_planned(wmi, instance, err))
        return -1;
    struct rp_cim_value files = rp_cim_null(RP_CIM_STRING, true), file = rp_cim_string(path);
    rp_cim_value_push(&files, &file);
    rp_cim_set(image, "HostResource", files);
    RP_AUTO_FREE char *what = rp_xasprintf("disk %s", instance);
    const struct rp_wmi_call call = {.service = RP_WMI_MANAGEMENT, .method = "ModifyResourceSettings", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "ResourceSettings", rp_wmi_embed_array(wmi, &image, 1));
    return rp_wmi_call(wmi, &call, in, job, result, err);
}

// ---- changes --------------------------------------------------------------------------------------------------------

// "rctX:5bfde23b:ce75:4303:b54f:6c18394f105c:00000001". Only to tell why the host refuses one: ids are the host's.
static bool is_tracking_id(const char *text)
{
    static const unsigned groups[] = {8, 4, 4, 4, 12, 8};
    if (strncasecmp(text, "rct", 3) || !text[3])
        return false;
    text += 4;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (*text != ':' || strspn(text + 1, "0123456789abcdefABCDEF") != groups[i])
            return false;
        text += 1 + groups[i];
    }
    return !*text;
}

// What a failure of this method means: nobody can say what changed, so everything is read (facts 1.5 B).
static int changes_failed(struct rp_wmi *wmi, uint32_t status, const char *path, const char *limit_id,
                          const struct rp_wmi_call *call, struct rp_error *err)
{
    struct rp_wmi_disk_facts facts;
    enum rp_code code = rp_wmi_code_error(status);
    if (status == 4096) { // a job, and no way to what it finds: all that is known is that nobody tells the changes
        code = RP_ERR_TRACKING_OFF;
        return rp_fail(err, code, "%s: the host answers with a job, which does not tell them", call->what);
    }
    if (code == RP_ERR_INVALID && rp_wmi_disk_facts(wmi, path, &facts, NULL)) // it is the disk, not the id
        code = RP_ERR_NOT_FOUND;
    else if (status == 2 || status == 32768 || code == RP_ERR_INVALID)
        code = is_tracking_id(limit_id) ? RP_ERR_TRACKING_ID : RP_ERR_TRACKING_SYNTAX;
    else if (code == RP_ERR_STATE || code == RP_ERR_UNSUPPORTED)
        code = RP_ERR_TRACKING_OFF;
    return rp_fail(err, code, "%s: %s (%u)", call->what, rp_wmi_code_words(status), status);
}

// Ranges may begin before what was asked for and end after it, as far as blocks of tracking do: what is outside is
// told again where it is asked for.
static int read_ranges(const struct rp_cim_instance *out, const char *what, uint64_t offset, uint64_t length,
                       struct rp_ranges *changed, uint64_t *processed, struct rp_error *err)
{
    size_t count = rp_cim_get_count(out, "ChangedByteOffsets");
    *processed = rp_cim_get_unsigned(out, "ProcessedByteLength", 0);
    if (rp_cim_get_count(out, "ChangedByteLengths") != count || count > MAX_RANGES)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the host gives %zu offsets and %zu lengths", what, count,
                       rp_cim_get_count(out, "ChangedByteLengths"));
    if (!*processed || *processed > length)
        return rp_fail(err, RP_ERR_CORRUPT, "%s: the host covered %llu of %llu bytes", what,
                       (unsigned long long)*processed, (unsigned long long)length);
    for (size_t i = 0; i < count; i++) {
        uint64_t at = rp_cim_get_unsigned_at(out, "ChangedByteOffsets", i, UINT64_MAX);
        uint64_t size = rp_cim_get_unsigned_at(out, "ChangedByteLengths", i, UINT64_MAX);
        uint64_t from = rp_max64(at, offset), to = rp_min64(at + size, offset + length);
        if (!rp_range_ok(at, size, UINT64_MAX) || (size && from >= to))
            return rp_fail(err, RP_ERR_CORRUPT,
                           "%s: the host names a change at %llu, %llu bytes, which nobody asked for", what,
                           (unsigned long long)at, (unsigned long long)size);
        if (size)
            rp_ranges_push(changed, from, to - from);
    }
    return 0;
}

// No answer, although the connection is good: the host can tell of the disk, but not its changes (its provider failed).
static int changes_broken(struct rp_wmi *wmi, const char *path, const struct rp_error *why, struct rp_error *err)
{
    struct rp_wmi_disk_facts facts;
    bool answers = why->code == RP_ERR_IO && !rp_wmi_disk_facts(wmi, path, &facts, NULL);
    return rp_fail(err, answers ? RP_ERR_TRACKING_OFF : why->code, "%s", why->text);
}

int rp_wmi_disk_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset,
                        uint64_t length, struct rp_ranges *changed, uint64_t *processed, struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    RP_AUTO_FREE char *what = rp_xasprintf("changes of disk %s since %.60s", path, limit_id);
    const struct rp_wmi_call call = {.service = RP_WMI_IMAGE, .method = "GetVirtualDiskChanges", .what = what};
    bool limited = wmi->changes_length && length > 2 * wmi->changes_length;
    if (limited) // where so much has changed, an answer for all of it would not fit either
        length = 2 * wmi->changes_length;
    for (;;) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
        rp_cim_set(in, "Path", rp_cim_string(path));
        rp_cim_set(in, "LimitId", rp_cim_string(limit_id));
        rp_cim_set(in, "ByteOffset", rp_cim_unsigned(RP_CIM_UINT64, offset));
        rp_cim_set(in, "ByteLength", rp_cim_unsigned(RP_CIM_UINT64, length));
        uint32_t status = 0;
        struct rp_error local = {0};
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_wmi_ask(wmi, &call, in, &status, &local);
        if (!out && wmi->lost) { // it changes nothing: asked again
            rp_error_clear(&local);
            out = rp_wmi_ask(wmi, &call, in, &status, &local);
        }
        if (out && limited)
            wmi->changes_length = length;
        if (out)
            return status ? changes_failed(wmi, status, path, limit_id, &call, err)
                          : read_ranges(out, what, offset, length, changed, processed, err);
        // An answer that does not fit into the envelope is a fault (EncodingLimit): half of it may fit.
        if (local.code != RP_ERR_INVALID || length <= RP_MIB)
            return changes_broken(wmi, path, &local, err);
        length = rp_align_up(length / 2, RP_MIB);
        limited = true;
    }
}
