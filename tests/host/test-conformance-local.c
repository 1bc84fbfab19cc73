// The in-process host, seen through the vtable only.
#include "conformance.h"

#include "host-kit.h"
#include "host/local.h"

struct context {
    char *host, *files;
};

static void *start(void)
{
    struct context *context = rp_xcalloc(1, sizeof *context);
    context->host = kit_folder();
    context->files = kit_folder();
    return context;
}

static struct rp_host_connection *connect_local(void *context, struct rp_error *err)
{
    return rp_host_local_open(((struct context *)context)->host, err);
}

static const char *folder(void *context) { return ((struct context *)context)->files; }

static void stop(void *argument)
{
    struct context *context = argument;
    kit_remove_folder(context->host);
    kit_remove_folder(context->files);
    free(context);
}

int main(void)
{
    static const struct conformance_host host = {.start = start, .connect = connect_local, .folder = folder, .stop = stop};
    return conformance_run("local", &host);
}
