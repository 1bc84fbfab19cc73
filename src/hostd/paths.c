// Object paths of what the host has, and back (facts/wmi.md 1.2).
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hostd/core.h"
#include "hostd/schema/schema.h"

#define SCHEME "Microsoft:"

const char *rp_hostd_paths_bare(const char *id)
{
    return strncasecmp(id, SCHEME, strlen(SCHEME)) ? id : id + strlen(SCHEME);
}

static bool read_guid(const char *text, size_t size, char out[RP_GUID_TEXT])
{
    struct rp_guid guid;
    if (size != RP_GUID_TEXT - 1)
        return false;
    memcpy(out, text, size);
    out[size] = '\0';
    if (rp_guid_parse(out, &guid, NULL))
        return false;
    for (char *p = out; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    return true;
}

bool rp_hostd_paths_split(const char *instance, char guid[RP_GUID_TEXT], const char **rest)
{
    const char *bare = rp_hostd_paths_bare(instance);
    if (bare == instance)
        return false;
    size_t size = strcspn(bare, "\\");
    *rest = bare + size;
    return read_guid(bare, size, guid);
}

const char *rp_hostd_paths_instance(const char *id, const char *rest, char out[2 * RP_HOST_ID])
{
    snprintf(out, 2 * RP_HOST_ID, SCHEME "%s%s", rp_hostd_paths_bare(id), rest);
    return out;
}

static struct rp_cim_path *whole(const struct rp_hostd *hostd, const char *class_name)
{
    struct rp_cim_path *path = rp_cim_path_new(RP_HOSTD_VIRTUALIZATION, class_name);
    path->host = rp_xstrdup(hostd->machine);
    return path;
}

struct rp_cim_path *rp_hostd_paths_of(const struct rp_hostd *hostd, const char *class_name, const char *instance)
{
    struct rp_cim_path *path = whole(hostd, class_name);
    rp_cim_path_set(path, "InstanceID", instance);
    return path;
}

struct rp_cim_path *rp_hostd_paths_vm(const struct rp_hostd *hostd, const char *vm_id, bool planned)
{
    const char *class_name = planned ? "Msvm_PlannedComputerSystem" : "Msvm_ComputerSystem";
    struct rp_cim_path *path = whole(hostd, class_name);
    rp_cim_path_set(path, "CreationClassName", class_name);
    rp_cim_path_set(path, "Name", vm_id);
    return path;
}

struct rp_cim_path *rp_hostd_paths_settings(const struct rp_hostd *hostd, const char *id)
{
    char instance[2 * RP_HOST_ID];
    return rp_hostd_paths_of(hostd, "Msvm_VirtualSystemSettingData", rp_hostd_paths_instance(id, "", instance));
}

struct rp_cim_path *rp_hostd_paths_disk(const struct rp_hostd *hostd, const char *instance)
{
    return rp_hostd_paths_of(hostd, "Msvm_StorageAllocationSettingData", instance);
}

struct rp_cim_path *rp_hostd_paths_point(const struct rp_hostd *hostd, const char *vm_id, const char *point_id)
{
    char instance[2 * RP_HOST_ID];
    struct rp_cim_path *path = rp_hostd_paths_of(hostd, "Msvm_VirtualSystemReferencePoint",
                                                 rp_hostd_paths_instance(point_id, "", instance));
    rp_cim_path_set(path, "VirtualSystemIdentifier", vm_id);
    return path;
}

struct rp_cim_path *rp_hostd_paths_job(const struct rp_hostd *hostd, const char *class_name, const char *job_id)
{
    return rp_hostd_paths_of(hostd, class_name, job_id);
}

char *rp_hostd_paths_text(struct rp_cim_path *path)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_path_format(path, &text);
    rp_cim_path_free(path);
    return rp_xstrdup(rp_buf_text(&text));
}

// ---- and back -------------------------------------------------------------------------------------------------------

static int not_one(const struct rp_cim_path *path, const char *what, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_cim_path_format_relative(path, &text);
    return rp_fail(err, RP_ERR_INVALID, "%.300s is not %s", rp_buf_text(&text), what);
}

static bool is_any_of(const struct rp_cim_path *path, const char *const *names)
{
    while (*names && strcasecmp(path->class_name, *names))
        names++;
    return *names;
}

int rp_hostd_paths_to_vm(const struct rp_cim_path *path, char vm_id[RP_HOST_ID], struct rp_error *err)
{
    static const char *const classes[] = {"Msvm_ComputerSystem", "Msvm_PlannedComputerSystem", "CIM_ComputerSystem",
                                          "CIM_System", NULL};
    const char *name = path ? rp_cim_path_get(path, "Name") : NULL;
    if (!path)
        return rp_fail(err, RP_ERR_INVALID, "no virtual machine is named");
    if (!is_any_of(path, classes) || !name || !read_guid(name, strlen(name), vm_id))
        return not_one(path, "a virtual machine", err);
    return 0;
}

// "Microsoft:<GUID>" and nothing after it, of one of these classes. `id` gets it in that form.
static int to_id(const struct rp_cim_path *path, const char *const *classes, const char *what, char id[RP_HOST_ID],
                 struct rp_error *err)
{
    char guid[RP_GUID_TEXT];
    const char *rest, *instance = path ? rp_cim_path_get(path, "InstanceID") : NULL;
    if (!path)
        return rp_fail(err, RP_ERR_INVALID, "%s is not named", what);
    if (!is_any_of(path, classes) || !instance || !rp_hostd_paths_split(instance, guid, &rest) || *rest)
        return not_one(path, what, err);
    snprintf(id, RP_HOST_ID, SCHEME "%s", guid);
    return 0;
}

static const char *const settings_classes[] = {"Msvm_VirtualSystemSettingData", "CIM_VirtualSystemSettingData", NULL};

int rp_hostd_paths_to_snapshot(const struct rp_cim_path *path, char snapshot_id[RP_HOST_ID], struct rp_error *err)
{
    return to_id(path, settings_classes, "a snapshot", snapshot_id, err);
}

int rp_hostd_paths_to_settings(struct rp_hostd *hostd, const struct rp_cim_path *path, char id[RP_HOST_ID],
                               struct rp_error *err)
{
    char instance[RP_HOST_ID];
    if (to_id(path, settings_classes, "settings of a virtual machine or a snapshot", instance, err))
        return -1;
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(hostd, err);
    if (!inventory)
        return -1;
    struct rp_hostd_owner owner;
    bool found = rp_hostd_settings_owner(inventory, instance, &owner);
    if (found)
        snprintf(id, RP_HOST_ID, "%s", rp_hostd_settings_id(&owner));
    rp_hostd_hosts_release(hostd, inventory);
    return found ? 0 : rp_fail(err, RP_ERR_NOT_FOUND, "there is no virtual machine or snapshot %s", instance);
}

int rp_hostd_paths_to_point(const struct rp_cim_path *path, char point_id[RP_HOST_ID], struct rp_error *err)
{
    static const char *const classes[] = {"Msvm_VirtualSystemReferencePoint", NULL};
    return to_id(path, classes, "a reference point", point_id, err);
}

int rp_hostd_paths_to_disk(const struct rp_cim_path *path, char instance[RP_HOST_ID], struct rp_error *err)
{
    static const char *const classes[] = {"Msvm_StorageAllocationSettingData", "Msvm_ResourceAllocationSettingData",
                                          "CIM_StorageAllocationSettingData", "CIM_ResourceAllocationSettingData",
                                          NULL};
    char guid[RP_GUID_TEXT];
    const char *rest, *name = path ? rp_cim_path_get(path, "InstanceID") : NULL;
    if (!path)
        return rp_fail(err, RP_ERR_INVALID, "no disk is named");
    if (!is_any_of(path, classes) || !name || strlen(name) >= RP_HOST_ID || !rp_hostd_paths_split(name, guid, &rest) ||
        !*rest)
        return not_one(path, "a disk", err);
    snprintf(instance, RP_HOST_ID, SCHEME "%s%s", guid, rest);
    return 0;
}

int rp_hostd_paths_parse(const char *text, struct rp_cim_path **path, struct rp_error *err)
{
    *path = rp_cim_path_parse(text, err);
    return *path ? 0 : -1;
}
