// ModifyServiceSettings: the default folders can be set, to folders that clients may use. They say where a manager puts
// files that nobody has said a place for; this host itself keeps its own files where its config file says.
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "hostd/method.h"

#define CLASS "Msvm_VirtualSystemManagementServiceSettingData"

static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

static int take_first(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    struct rp_cim_instance **first = context;
    if (*first)
        rp_cim_instance_free(instance);
    else
        *first = instance;
    return 0;
}

// The canonical path of an existing folder. There is no code for a file that is missing here.
static char *folder_of(const struct rp_hostd_call *call, const struct rp_cim_property *asked, struct rp_error *err)
{
    const char *text = asked->value.type == RP_CIM_STRING && !asked->value.array ? asked->value.one.text : "";
    struct rp_error why = {0};
    struct stat st;
    RP_AUTO_FREE char *path = rp_hostd_folders_check(call->hostd, text, &why);
    if (!path) {
        rp_fail(err, why.code == RP_ERR_PERMISSION ? why.code : RP_ERR_INVALID, "%s: %s", asked->name, why.text);
        return NULL;
    }
    if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
        rp_fail(err, RP_ERR_INVALID, "%s: there is no folder %s", asked->name, path);
        return NULL;
    }
    char *result = path;
    path = NULL;
    return result;
}

// All of it, or nothing; what is so already, or is not said, is no change.
static int change(const struct rp_hostd_call *call, const struct rp_cim_instance *asked,
                  const struct rp_cim_instance *now, struct rp_error *err)
{
    static const char *const folders[] = {"DefaultVirtualHardDiskPath", "DefaultExternalDataRoot"};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *kept = rp_hostd_service_kept(call->hostd);
    bool changed = false;
    for (size_t i = 0; i < asked->count; i++) {
        const struct rp_cim_property *property = &asked->properties[i];
        const struct rp_cim_value *is = rp_cim_get(now, property->name);
        if (rp_cim_value_is_null(&property->value) || (is && rp_cim_value_equal(is, &property->value)))
            continue;
        if (strcasecmp(property->name, folders[0]) && strcasecmp(property->name, folders[1]))
            return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: only the default folders of the service can be set",
                           property->name);
        RP_AUTO_FREE char *path = folder_of(call, property, err);
        if (!path)
            return -1;
        rp_cim_set(kept, property->name, rp_cim_string(path));
        changed = true;
    }
    return changed ? rp_hostd_service_keep(call->hostd, kept, err) : 0;
}

int rp_method_service_settings(const struct rp_hostd_call *call, uint32_t *status, struct rp_error *err)
{
    struct rp_cim_provider *provider = &call->hostd->virtualization;
    RP_CLEANUP(rp_cim_instance_free_p)
    struct rp_cim_instance *asked = rp_method_embedded(call, "SettingData", CLASS, err);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now = NULL;
    if (!asked)
        return -1;
    if (!asked->count)
        return rp_fail(err, RP_ERR_INVALID, "SettingData is missing");
    pthread_mutex_lock(&changing);
    int rc = rp_cim_enumerate(provider, call->caller, rp_cim_schema_class(provider->schema, CLASS),
                              (struct rp_cim_sink){take_first, &now}, err);
    if (!rc)
        rc = change(call, asked, now, err);
    pthread_mutex_unlock(&changing);
    *status = 0;
    return rc;
}
