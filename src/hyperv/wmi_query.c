// Questions in WQL, and what names an object: paths and ids.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hyperv/wmi_internal.h"

#define SCHEME "Microsoft:"

static int run_query(struct rp_wmi *wmi, const char *name_space, const char *query, bool with_paths,
                     struct rp_cim_instances *result, struct rp_error *err)
{
    const struct rp_cim_schema *schema = strcasecmp(name_space, RP_WMI_V2) ? NULL : wmi->schema;
    struct rp_error first = {0};
    if (!rp_wsman_query(wmi->client, name_space, NULL, query, schema, with_paths, result, &first))
        return 0;
    if (first.code == RP_ERR_IO) { // the connection may have been idle for too long; a question is asked again
        rp_error_clear(&first);
        if (!rp_wsman_query(wmi->client, name_space, NULL, query, schema, with_paths, result, &first))
            return 0;
    }
    return rp_fail(err, first.code, "%s: %s", wmi->host.address, first.text);
}

int rp_wmi_query(struct rp_wmi *wmi, const char *name_space, const char *query, struct rp_cim_instances *result,
                 struct rp_error *err)
{
    return run_query(wmi, name_space, query, false, result, err);
}

// In WQL a backslash escapes quotes and itself.
void rp_wmi_quote(struct rp_buf *out, const char *text)
{
    rp_buf_append_u8(out, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            rp_buf_append_u8(out, '\\');
        rp_buf_append_u8(out, (uint8_t)*text);
    }
    rp_buf_append_u8(out, '"');
}

static struct rp_cim_instance *find_one(struct rp_wmi *wmi, const char *class_name, const char *property,
                                        const char *value, const char *what, bool with_path, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf query = {0};
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    rp_buf_printf(&query, "SELECT * FROM %s WHERE %s = ", class_name, property);
    rp_wmi_quote(&query, value);
    if (run_query(wmi, RP_WMI_V2, rp_buf_text(&query), with_path, &found, err))
        return NULL;
    for (size_t i = 0; i < found.count; i++) {
        const char *is = rp_cim_get_text(found.items[i], property);
        if (!is || strcasecmp(is, value))
            continue;
        struct rp_cim_instance *one = found.items[i];
        found.items[i] = found.items[--found.count];
        return one;
    }
    rp_fail(err, RP_ERR_NOT_FOUND, "%s: no %s %.100s", wmi->host.address, what, value);
    return NULL;
}

struct rp_cim_instance *rp_wmi_one(struct rp_wmi *wmi, const char *class_name, const char *property, const char *value,
                                   const char *what, struct rp_error *err)
{
    return find_one(wmi, class_name, property, value, what, false, err);
}

struct rp_cim_instance *rp_wmi_one_with_path(struct rp_wmi *wmi, const char *class_name, const char *property,
                                             const char *value, const char *what, struct rp_error *err)
{
    return find_one(wmi, class_name, property, value, what, true, err);
}

int rp_wmi_associators(struct rp_wmi *wmi, const struct rp_cim_path *source, const char *association,
                       const char *result_class, struct rp_cim_instances *result, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf query = {0};
    rp_buf_printf(&query, "ASSOCIATORS OF {");
    rp_cim_path_format_relative(source, &query);
    rp_buf_printf(&query, "}");
    if (association || result_class)
        rp_buf_printf(&query, " WHERE");
    if (association)
        rp_buf_printf(&query, " AssocClass=%s", association);
    if (result_class)
        rp_buf_printf(&query, " ResultClass=%s", result_class);
    return rp_wmi_query(wmi, RP_WMI_V2, rp_buf_text(&query), result, err);
}

// ---- ids ------------------------------------------------------------------------------------------------------------

bool rp_wmi_guid(const char *text, char out[RP_GUID_TEXT])
{
    struct rp_guid guid;
    if (!text || strlen(text) != RP_GUID_TEXT - 1 || rp_guid_parse(text, &guid, NULL))
        return false;
    rp_guid_format(&guid, out);
    for (char *p = out; *p; p++)
        if (*p >= 'a' && *p <= 'f')
            *p = (char)(*p - 'a' + 'A');
    return true;
}

int rp_wmi_copy_id(const char *text, const char *what, char id[RP_HOST_ID], struct rp_error *err)
{
    size_t length = text ? strlen(text) : 0;
    if (!length || length >= RP_HOST_ID)
        return rp_fail(err, RP_ERR_CORRUPT, "the host names a %s '%.40s%s'", what, text ? text : "",
                       length ? "…', which is no id" : "', which says nothing");
    memcpy(id, text, length + 1);
    return 0;
}

void rp_wmi_settings_id(const char *id, char out[RP_HOST_ID + 16])
{
    bool whole = !strncasecmp(id, SCHEME, strlen(SCHEME));
    snprintf(out, RP_HOST_ID + 16, "%s%.*s", whole ? "" : SCHEME, RP_HOST_ID - 1, id);
}

int rp_wmi_id_of_path(const struct rp_cim_path *path, char id[RP_HOST_ID], struct rp_error *err)
{
    bool system = !strcasecmp(path->class_name, "Msvm_ComputerSystem") ||
                  !strcasecmp(path->class_name, "Msvm_PlannedComputerSystem");
    const char *key = rp_cim_path_get(path, system ? "Name" : "InstanceID");
    if (rp_wmi_copy_id(key, path->class_name, id, err))
        return -1;
    char guid[RP_GUID_TEXT];
    if (system && rp_wmi_guid(id, guid))
        memcpy(id, guid, sizeof guid);
    return 0;
}

int rp_wmi_id_of_object(const struct rp_cim_instance *object, char id[RP_HOST_ID], struct rp_error *err)
{
    bool system = !strcasecmp(object->class_name, "Msvm_ComputerSystem") ||
                  !strcasecmp(object->class_name, "Msvm_PlannedComputerSystem");
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new(NULL, object->class_name);
    const char *key = system ? "Name" : "InstanceID", *value = rp_cim_get_text(object, key);
    rp_cim_path_set(path, key, value ? value : "");
    return rp_wmi_id_of_path(path, id, err);
}

// ---- paths ----------------------------------------------------------------------------------------------------------

static struct rp_cim_path *path_system(const char *class_name, const char *vm_id)
{
    struct rp_cim_path *path = rp_cim_path_new(RP_WMI_V2, class_name);
    rp_cim_path_set(path, "CreationClassName", class_name);
    rp_cim_path_set(path, "Name", vm_id);
    return path;
}

struct rp_cim_path *rp_wmi_path_vm(const char *vm_id) { return path_system("Msvm_ComputerSystem", vm_id); }
struct rp_cim_path *rp_wmi_path_planned(const char *vm_id) { return path_system("Msvm_PlannedComputerSystem", vm_id); }

struct rp_cim_path *rp_wmi_path_instance(const char *class_name, const char *instance_id)
{
    struct rp_cim_path *path = rp_cim_path_new(RP_WMI_V2, class_name);
    rp_cim_path_set(path, "InstanceID", instance_id);
    return path;
}

struct rp_cim_path *rp_wmi_path_of(const struct rp_cim_instance *object)
{
    const char *id = rp_cim_get_text(object, "InstanceID");
    return rp_wmi_path_instance(object->class_name, id ? id : "");
}

char *rp_wmi_path_text(struct rp_wmi *wmi, const struct rp_cim_path *path, struct rp_error *err)
{
    if (!wmi->machine && !rp_wmi_service_path(wmi, RP_WMI_MANAGEMENT, err))
        return NULL;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *whole = rp_cim_path_copy(path);
    free(whole->host);
    whole->host = rp_xstrdup(wmi->machine);
    struct rp_buf text = {0};
    rp_cim_path_format(whole, &text);
    return (char *)(uintptr_t)rp_buf_text(&text);
}

static const char *const service_classes[RP_WMI_SERVICES] = {
    [RP_WMI_MANAGEMENT] = "Msvm_VirtualSystemManagementService",
    [RP_WMI_SNAPSHOT] = "Msvm_VirtualSystemSnapshotService",
    [RP_WMI_POINT] = "Msvm_VirtualSystemReferencePointService",
    [RP_WMI_IMAGE] = "Msvm_ImageManagementService",
};

const struct rp_cim_path *rp_wmi_service_path(struct rp_wmi *wmi, enum rp_wmi_service service, struct rp_error *err)
{
    static const char *const keys[] = {"CreationClassName", "Name", "SystemCreationClassName", "SystemName"};
    if (wmi->services[service])
        return wmi->services[service];
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances found = {0};
    RP_AUTO_FREE char *query = rp_xasprintf("SELECT * FROM %s", service_classes[service]);
    if (rp_wmi_query(wmi, RP_WMI_V2, query, &found, err))
        return NULL;
    if (found.count != 1) {
        // who may not administer Hyper-V sees an empty namespace
        rp_fail(err, found.count ? RP_ERR_CORRUPT : RP_ERR_PERMISSION, "%s: %s", wmi->host.address,
                found.count ? "there are several services of one kind"
                            : "the user does not see Hyper-V's services: is Hyper-V there, and is the user one of the "
                              "Hyper-V Administrators?");
        return NULL;
    }
    struct rp_cim_path *path = rp_cim_path_new(RP_WMI_V2, service_classes[service]);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = rp_cim_get_text(found.items[0], keys[i]);
        if (value)
            rp_cim_path_set(path, keys[i], value);
    }
    const char *machine = rp_cim_get_text(found.items[0], "SystemName");
    if (!wmi->machine)
        wmi->machine = rp_xstrdup(machine && *machine ? machine : ".");
    return wmi->services[service] = path;
}
