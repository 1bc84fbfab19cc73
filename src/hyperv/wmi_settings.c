// The settings of VMs, planned VMs and snapshots: Msvm_VirtualSystemSettingData and its components; the disks in them.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hyperv/wmi_internal.h"

#define SCHEME "Microsoft:"
#define IDE_CONTROLLER "83F8638B-8DCA-4152-9EDA-2CA8B33039B4" // every VM's
enum { LOGICAL_DISK = 31, PER_CONTROLLER = 64 };

struct rp_cim_instance *rp_wmi_settings_object(struct rp_wmi *wmi, const char *id, struct rp_error *err)
{
    char instance[RP_HOST_ID + 16], guid[RP_GUID_TEXT];
    if (rp_wmi_guid(id, guid))
        id = guid;
    rp_wmi_settings_id(id, instance);
    return rp_wmi_one(wmi, "Msvm_VirtualSystemSettingData", "InstanceID", instance, "settings of", err);
}

int rp_wmi_settings_parts(struct rp_wmi *wmi, const struct rp_cim_instance *settings, struct rp_cim_instances *parts,
                          struct rp_error *err)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_wmi_path_of(settings);
    return rp_wmi_associators(wmi, path, "Msvm_VirtualSystemSettingDataComponent", NULL, parts, err);
}

// ---- disks ----------------------------------------------------------------------------------------------------------

static bool is_disk(const struct rp_cim_instance *resource)
{
    const char *type = rp_cim_get_text(resource, "ResourceSubType");
    return !strcasecmp(resource->class_name, "Msvm_StorageAllocationSettingData") &&
           rp_cim_get_unsigned(resource, "ResourceType", 0) == LOGICAL_DISK && type &&
           !strcasecmp(type, "Microsoft:Hyper-V:Virtual Hard Disk");
}

void rp_wmi_instance_of_vm(const char *instance, const char *vm_id, char out[RP_HOST_ID])
{
    const char *rest = strchr(instance, '\\');
    if (strncasecmp(instance, SCHEME, strlen(SCHEME)) || !rest || !*vm_id)
        rest = NULL;
    if (rest)
        snprintf(out, RP_HOST_ID, SCHEME "%s%s", vm_id, rest);
    else
        snprintf(out, RP_HOST_ID, "%s", instance);
}

// Where a disk is: "Microsoft:<GUID>\<controller>\<number>\<slot>\L" (facts 1.2).
struct place {
    char controller[48];
    unsigned bus, slot;
    bool known;
};

static struct place place_of(const char *instance)
{
    struct place place = {.known = false};
    const char *rest = instance ? strchr(instance, '\\') : NULL;
    size_t length = rest ? strcspn(rest + 1, "\\") : 0;
    if (!length || length >= sizeof place.controller)
        return place;
    memcpy(place.controller, rest + 1, length);
    place.controller[length] = 0;
    char end;
    place.known = sscanf(rest + 1 + length, "\\%5u\\%5u\\%c", &place.bus, &place.slot, &end) == 3 &&
                  place.slot < PER_CONTROLLER && place.bus < 1000;
    return place;
}

static int compare_controllers(const char *a, const char *b)
{
    bool a_ide = !strcasecmp(a, IDE_CONTROLLER), b_ide = !strcasecmp(b, IDE_CONTROLLER);
    return a_ide != b_ide ? b_ide - a_ide : strcasecmp(a, b);
}

static int by_place(const void *a, const void *b)
{
    const char *one = rp_cim_get_text(*(struct rp_cim_instance *const *)a, "InstanceID"),
               *other = rp_cim_get_text(*(struct rp_cim_instance *const *)b, "InstanceID");
    struct place x = place_of(one), y = place_of(other);
    int order = (int)y.known - (int)x.known;
    if (!order)
        order = compare_controllers(x.controller, y.controller);
    if (!order)
        order = (x.bus > y.bus) - (x.bus < y.bus);
    if (!order)
        order = (x.slot > y.slot) - (x.slot < y.slot);
    return order ? order : strcmp(one ? one : "", other ? other : "");
}

struct rp_cim_instance **rp_wmi_sort_disks(const struct rp_cim_instances *resources, size_t *count)
{
    struct rp_cim_instance **disks = rp_xcalloc(resources->count + 1, sizeof *disks);
    *count = 0;
    for (size_t i = 0; i < resources->count; i++)
        if (is_disk(resources->items[i]))
            disks[(*count)++] = resources->items[i];
    qsort(disks, *count, sizeof *disks, by_place);
    return disks;
}

struct found {
    struct rp_vm_disk disk;
    struct place place;
};

// A disk's number says where it is, so that it stays the same when others come and go: 64 for each controller, the two
// of IDE first. A second SCSI controller has a GUID of its own, hence a place by the order of these.
static void number_disks(struct found *found, size_t count)
{
    uint32_t base = 0, next = 0;
    for (size_t i = 0; i < count; i++) {
        struct place *place = &found[i].place;
        if (i && place->known && compare_controllers(place->controller, found[i - 1].place.controller))
            base = !strcasecmp(found[i - 1].place.controller, IDE_CONTROLLER)
                       ? 2 * PER_CONTROLLER
                       : (next + PER_CONTROLLER - 1) / PER_CONTROLLER * PER_CONTROLLER;
        uint32_t number = place->known ? base + place->bus * PER_CONTROLLER + place->slot : next;
        found[i].disk.number = number;
        next = number + 1;
    }
}

static int add_found(const struct rp_cim_instance *resource, const char *vm_id, struct found *found,
                     struct rp_error *err)
{
    char id[RP_HOST_ID];
    const char *uri = rp_cim_get_text(resource, "Connection");
    if (rp_wmi_copy_id(rp_cim_get_text(resource, "InstanceID"), "disk", id, err))
        return -1;
    rp_wmi_instance_of_vm(id, vm_id, found->disk.instance);
    found->place = place_of(id);
    const char *file = rp_cim_get_text(resource, "HostResource"); // a planned VM may have none yet
    found->disk.path = rp_xstrdup(file ? file : "");
    if (uri && !strncmp(uri, "nbd", 3)) // refpoint-hostd, while the VM runs
        found->disk.nbd_uri = rp_xstrdup(uri);
    // CIM would have the size here, in blocks; refpoint-hostd does, of Hyper-V it is always 1
    uint64_t blocks = rp_cim_get_unsigned(resource, "VirtualQuantity", 1);
    uint64_t block = rp_cim_get_unsigned(resource, "VirtualResourceBlockSize", 0);
    uint64_t physical = rp_cim_get_unsigned(resource, "HostResourceBlockSize", 0);
    const char *guid = rp_cim_get_text(resource, "HostExtentName");
    if (blocks > 1 && (block == 512 || block == 4096) && blocks < UINT64_MAX / 4096) {
        found->disk.size = blocks * block;
        found->disk.logical_sector = (uint32_t)block;
        found->disk.physical_sector = physical == 512 || physical == 4096 ? (uint32_t)physical : 4096;
        if (guid)
            rp_guid_parse(guid, &found->disk.disk_id, NULL);
    }
    return 0;
}

int rp_wmi_disks(const struct rp_cim_instances *resources, const char *vm_id, struct rp_vm_settings *settings,
                 struct rp_error *err)
{
    size_t disk_count, count = 0;
    RP_AUTO_FREE struct rp_cim_instance **disks = rp_wmi_sort_disks(resources, &disk_count);
    RP_AUTO_FREE struct found *found = rp_xcalloc(disk_count + 1, sizeof *found);
    while (count < disk_count && !add_found(disks[count], vm_id, &found[count], err))
        count++;
    number_disks(found, count);
    settings->disks = rp_xrealloc(settings->disks, (settings->disk_count + count + 1) * sizeof *settings->disks);
    for (size_t i = 0; i < count; i++)
        settings->disks[settings->disk_count++] = found[i].disk;
    return count < disk_count ? -1 : 0;
}

// A drive that leads to a disk of the host, or a port to a storage network. NULL: neither.
static char *outside_words(const struct rp_cim_instance *resource)
{
    const char *type = rp_cim_get_text(resource, "ResourceSubType"), *name = rp_cim_get_text(resource, "ElementName");
    const char *place = rp_cim_get_text(resource, "InstanceID");
    const char *what = type && !strcasecmp(type, "Microsoft:Hyper-V:Physical Disk Drive")                  ? "physical disk"
                       : !strcasecmp(resource->class_name, "Msvm_SyntheticFcPortSettingData") ? "Fibre Channel port"
                                                                                              : NULL;
    return what ? rp_xasprintf("%s \"%s\" (%s)", what, name ? name : "", place ? place : "?") : NULL;
}

static void add_outside(const struct rp_cim_instances *resources, struct rp_vm_settings *settings)
{
    settings->outside = rp_xcalloc(resources->count + 1, sizeof *settings->outside);
    for (size_t i = 0; i < resources->count; i++)
        if ((settings->outside[settings->outside_count] = outside_words(resources->items[i])))
            settings->outside_count++;
}

// GetVirtualHardDiskSettingData gives an Msvm_VirtualHardDiskSettingData as text.
int rp_wmi_disk_facts(struct rp_wmi *wmi, const char *path, struct rp_wmi_disk_facts *facts, struct rp_error *err)
{
    *facts = (struct rp_wmi_disk_facts){0};
    RP_AUTO_FREE char *what = rp_xasprintf("disk %s", path);
    const struct rp_wmi_call call = {.service = RP_WMI_IMAGE, .method = "GetVirtualHardDiskSettingData", .what = what};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_wmi_parameters();
    rp_cim_set(in, "Path", rp_cim_string(path));
    uint32_t status = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_wmi_ask(wmi, &call, in, &status, err);
    if (!out)
        return -1;
    if (status)
        return rp_wmi_fail(err, status, &call);
    const char *text = rp_cim_get_text(out, "SettingData");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *data =
        text ? rp_cimxml_parse(text, strlen(text), err) : NULL;
    const char *guid = data ? rp_cim_get_text(data, "VirtualDiskId") : NULL;
    if (guid)
        rp_guid_parse(guid, &facts->disk_id, NULL);
    facts->size = data ? rp_cim_get_unsigned(data, "MaxInternalSize", 0) : 0;
    facts->logical_sector = data ? (uint32_t)rp_cim_get_unsigned(data, "LogicalSectorSize", 512) : 0;
    facts->physical_sector = data ? (uint32_t)rp_cim_get_unsigned(data, "PhysicalSectorSize", 4096) : 0;
    if (facts->size)
        return 0;
    rp_fail(err, RP_ERR_CORRUPT, "the host does not say how large it is");
    return rp_context(err, "%s", what);
}

// `strict`: a disk that the host cannot look at is an error. Else a file that is gone does not hide the rest of the VM.
static int add_facts(struct rp_wmi *wmi, struct rp_vm_settings *settings, bool strict, struct rp_error *err)
{
    for (size_t i = 0; i < settings->disk_count; i++) {
        struct rp_vm_disk *disk = &settings->disks[i];
        struct rp_wmi_disk_facts facts;
        struct rp_error local = {0};
        if (!*disk->path && !strict)
            continue;
        if (rp_wmi_disk_facts(wmi, disk->path, &facts, &local) && (strict || local.code != RP_ERR_NOT_FOUND))
            return rp_fail_as(err, &local);
        disk->disk_id = facts.disk_id;
        disk->size = facts.size;
        disk->logical_sector = facts.logical_sector;
        disk->physical_sector = facts.physical_sector;
    }
    return 0;
}

// ---- the whole ------------------------------------------------------------------------------------------------------

// CIM-XML of all instances, one after the other, one per line: what plan_system takes back.
static char *document(struct rp_wmi *wmi, struct rp_cim_instance *settings, struct rp_cim_instances *parts)
{
    struct rp_buf text = {0};
    rp_wmi_type(wmi, settings, true);
    rp_cimxml_write(settings, &text);
    for (size_t i = 0; i < parts->count; i++) {
        rp_buf_append_u8(&text, '\n');
        rp_wmi_type(wmi, parts->items[i], true);
        rp_cimxml_write(parts->items[i], &text);
    }
    rp_buf_append_u8(&text, '\n');
    return (char *)(uintptr_t)rp_buf_text(&text);
}

static int read_all(struct rp_wmi *wmi, struct rp_cim_instance *object, bool strict, struct rp_vm_settings *settings,
                    struct rp_error *err)
{
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances parts = {0};
    char vm_id[RP_GUID_TEXT] = "";
    rp_wmi_guid(rp_cim_get_text(object, "VirtualSystemIdentifier"), vm_id);
    *settings = (struct rp_vm_settings){0};
    if (rp_wmi_settings_parts(wmi, object, &parts, err) || rp_wmi_disks(&parts, vm_id, settings, err) ||
        add_facts(wmi, settings, strict, err)) {
        rp_vm_settings_clear(settings);
        return -1;
    }
    add_outside(&parts, settings);
    settings->document = document(wmi, object, &parts);
    return 0;
}

int rp_wmi_vm_settings(struct rp_host_connection *host, const char *vm_id, struct rp_vm_settings *settings,
                       struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *settings = (struct rp_vm_settings){0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_settings_object(wmi, vm_id, err);
    return object ? read_all(wmi, object, false, settings, err) : -1;
}

int rp_wmi_snapshot_settings(struct rp_host_connection *host, const char *snapshot_id, struct rp_vm_settings *settings,
                             struct rp_error *err)
{
    struct rp_wmi *wmi = rp_wmi_of(host);
    *settings = (struct rp_vm_settings){0};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *object = rp_wmi_settings_object(wmi, snapshot_id, err);
    if (!object)
        return -1;
    const char *type = rp_cim_get_text(object, "VirtualSystemType");
    if (!type || !strstr(type, ":Snapshot:"))
        return rp_fail(err, RP_ERR_NOT_FOUND, "%s: %s is no checkpoint", host->address, snapshot_id);
    // The checkpoint's own name is a backup's tag: who restores from these settings wants the VM's.
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    const char *owner = rp_cim_get_text(object, "VirtualSystemIdentifier");
    if (rp_wmi_need_vm(wmi, owner ? owner : "", &vm, err))
        return -1;
    rp_cim_set(object, "ElementName", rp_cim_string(vm.name));
    return read_all(wmi, object, true, settings, err);
}
