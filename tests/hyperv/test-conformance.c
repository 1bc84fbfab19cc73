// refpoint-hostd, seen through WMI over WS-Management and through the vtable only.
#include "conformance.h"

#include "host-kit.h"
#include "hostd/hostd.h"
#include "hyperv/wmi.h"

struct context {
    char *host, *files, *socket, *url;
    struct rp_hostd *hostd;
};

static int peer(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                struct rp_error *err)
{
    (void)context, (void)gid, (void)err;
    snprintf(user, 256, "uid %u", uid);
    *access = RP_CIM_ADMINISTER;
    return 0;
}

static void *start(void)
{
    struct context *context = rp_xcalloc(1, sizeof *context);
    struct rp_error err = {0};
    context->host = kit_folder();
    context->files = kit_folder();
    context->socket = kit_path("%s/socket", context->files);
    context->url = kit_path("unix:%s", context->socket);
    const char *const folders[] = {context->files};
    const struct rp_wsman_listener listener = {.socket = context->socket};
    const struct rp_hostd_options options = {.directory = context->host, .machine = "HV1", .folders = folders,
                                             .folder_count = 1, .listeners = &listener, .listener_count = 1,
                                             .access = {.peer = peer}};
    context->hostd = rp_hostd_start(&options, &err);
    if (!context->hostd)
        fail_msg("%s", err.text);
    return context;
}

static struct rp_host_connection *connect_wmi(void *context, struct rp_error *err)
{
    const struct rp_wsman_options options = {.url = ((struct context *)context)->url, .auth = RP_AUTH_PEER,
                                             .timeout_ms = 30000};
    return rp_host_wmi_open(&options, err);
}

static const char *folder(void *context) { return ((struct context *)context)->files; }

static void stop(void *argument)
{
    struct context *context = argument;
    rp_hostd_stop(context->hostd);
    kit_remove_folder(context->host);
    kit_remove_folder(context->files);
    free(context->socket);
    free(context->url);
    free(context);
}

int main(void)
{
    static const struct conformance_host host = {
        .start = start, .connect = connect_wmi, .folder = folder, .stop = stop, .wire = true};
    return conformance_run("wmi", &host);
}
