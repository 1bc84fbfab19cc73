// Loading the module that talks to the hypervisor.
#include "host/hypervisor.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define MODULE "refpoint-libvirt.so"

static const struct rp_hypervisor_module *module;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static char *find_module(void)
{
    const char *chosen = getenv("REFPOINT_LIBVIRT");
    if (chosen && *chosen)
        return rp_xstrdup(chosen);
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    for (size_t i = 0; n > 0 && i < 3; i++) {
        // Beside the program; in the build tree from src/<part> and from tests/<part>.
        static const char *const places[] = {"/" MODULE, "/../libvirt/" MODULE, "/../../src/libvirt/" MODULE};
        self[n] = 0;
        char *slash = strrchr(self, '/');
        char *path = rp_xasprintf("%.*s%s", slash ? (int)(slash - self) : 0, self, places[i]);
        if (!access(path, R_OK))
            return path;
        free(path);
    }
    return rp_xstrdup(RP_MODULE_DIR "/" MODULE);
}

static int load(struct rp_error *err)
{
    RP_AUTO_FREE char *path = find_module();
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "VMs under libvirt need %s, which cannot be loaded: %s", path, dlerror());
    const struct rp_hypervisor_module *found = dlsym(handle, RP_HYPERVISOR_SYMBOL);
    if (found && found->version == RP_HYPERVISOR_VERSION) {
        module = found; // stays loaded: it has threads
        return 0;
    }
    dlclose(handle);
    return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: is of another version of refpoint", path);
}

struct rp_hypervisor *rp_hypervisor_open(const char *uri, struct rp_error *err)
{
    pthread_mutex_lock(&loading);
    int failed = module ? 0 : load(err);
    pthread_mutex_unlock(&loading);
    return failed ? NULL : module->ops->open(uri, err);
}

const struct rp_hypervisor_ops *rp_hypervisor_ops(void) { return module->ops; }

void rp_hypervisor_close(struct rp_hypervisor *hv)
{
    if (hv)
        module->ops->close(hv);
}

const char *rp_domain_state_name(enum rp_domain_state state)
{
    static const char *const names[] = {"off", "running", "paused", "waiting for a disk", "starting", "stopping", "saved", "crashed"};
    return (size_t)state < sizeof names / sizeof *names ? names[state] : "unknown";
}
