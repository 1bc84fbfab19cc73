// A whole host: the directory, its jobs, both namespaces, the listeners.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "hostd/core.h"
#include "hostd/schema/schema.h"

#define JOB_SECONDS 300 // Jobs live for at least five minutes after their end (facts 1.3)
#define DYING_SECONDS 3
#define PRODUCT "OS: 10.0.20348 SP: 0.0 Stack: 3.0"

// What others see is the first member.
struct whole {
    struct rp_hostd hostd;
    struct rp_wsman_server_ops access;
    struct rp_cim_schema *schemas[2];
    int lock;
};

static int set_machine(struct rp_hostd *hostd, const char *name, struct rp_error *err)
{
    char own[HOST_NAME_MAX + 1] = "";
    if (!name) {
        gethostname(own, sizeof own - 1);
        own[strcspn(own, ".")] = '\0';
        name = own;
    }
    if (!*name || strlen(name) >= sizeof hostd->machine ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")])
        return rp_fail(err, RP_ERR_INVALID,
                       "name of the host: \"%.80s\": 1 to 63 letters, digits, '-' and '_' are needed", name);
    for (size_t i = 0; name[i]; i++)
        hostd->machine[i] = (char)toupper((unsigned char)name[i]);
    return 0;
}

static int add_folder(struct rp_hostd *hostd, const char *folder, struct rp_error *err)
{
    struct stat st;
    RP_AUTO_FREE char *real = *folder == '/' ? realpath(folder, NULL) : NULL;
    if (*folder != '/')
        return rp_fail(err, RP_ERR_INVALID, "folder %s: an absolute path is needed", folder);
    if (!real || stat(real, &st))
        return rp_fail_sys(err, errno, "folder %s", folder);
    if (!S_ISDIR(st.st_mode))
        return rp_fail(err, RP_ERR_INVALID, "folder %s: not a folder", folder);
    hostd->folders = rp_xrealloc(hostd->folders, (hostd->folder_count + 1) * sizeof *hostd->folders);
    hostd->folders[hostd->folder_count++] = real;
    real = NULL;
    return 0;
}

int rp_hostd_lock(int fd, unsigned seconds)
{
    uint64_t until = rp_clock_monotonic_ns() + seconds * 1000000000ull;
    while (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK || rp_clock_monotonic_ns() > until)
            return -1;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return 0;
}

// One service per directory: the jobs of another one that runs are no leftovers.
static int lock_directory(struct whole *whole, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/hostd.lock", whole->hostd.directory);
    whole->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (whole->lock < 0)
        return rp_fail_sys(err, errno, "%s", path);
    if (rp_hostd_lock(whole->lock, DYING_SECONDS))
        return rp_fail(err, RP_ERR_BUSY, "%s: another refpoint-hostd serves this folder", whole->hostd.directory);
    return 0;
}

static int open_directory(struct whole *whole, const struct rp_hostd_options *options, struct rp_error *err)
{
    const char *directory = options->directory;
    whole->hostd.directory = rp_xstrdup(directory);
    struct rp_host_connection *host = rp_host_local_open_resident(directory, false, err); // makes it
    char *real = host ? realpath(directory, NULL) : NULL;
    int rc = real ? 0 : host ? rp_fail_sys(err, errno, "%s", directory) : -1;
    if (real) {
        free(whole->hostd.directory);
        whole->hostd.directory = real;
        rc = lock_directory(whole, err) ||
             rp_host_local_set_hypervisor(host, options->hypervisor, options->network, options->accelerator, err) ? -1 : 0;
    }
    rp_host_close(host);
    return rc;
}

static int add_namespace(struct whole *whole, size_t i, const char *name_space, struct rp_cim_provider *provider,
                         struct rp_error *err)
{
    whole->schemas[i] = rp_hostd_schema(name_space, err);
    if (!whole->schemas[i])
        return -1;
    *provider = (struct rp_cim_provider){&rp_hostd_provider_ops, whole->schemas[i], whole->hostd.machine};
    rp_wsman_service_add(whole->hostd.service, provider);
    return 0;
}

// The server has one context for all of its questions; ours is the host, of which the script wants to know.
static int authorize(void *context, const char *user, enum rp_cim_access *access, struct rp_error *err)
{
    const struct rp_wsman_server_ops *ops = &((struct whole *)context)->access;
    return ops->authorize ? ops->authorize(ops->context, user, access, err)
                          : rp_fail(err, RP_ERR_PERMISSION, "%.200s has no rights here", user);
}

static bool password(void *context, const char *user, const char *text)
{
    const struct rp_wsman_server_ops *ops = &((struct whole *)context)->access;
    return ops->password(ops->context, user, text);
}

static int peer(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                struct rp_error *err)
{
    const struct rp_wsman_server_ops *ops = &((struct whole *)context)->access;
    return ops->peer(ops->context, uid, gid, user, access, err);
}

static int start(struct whole *whole, const struct rp_hostd_options *options, struct rp_error *err)
{
    struct rp_hostd *hostd = &whole->hostd;
    rp_fs_no_links(&hostd->files, "/");
    hostd->freeze_limit_ms = options->freeze_limit_ms;
    if (set_machine(hostd, options->machine, err) || open_directory(whole, options, err))
        return -1;
    for (size_t i = 0; i < options->folder_count; i++)
        if (add_folder(hostd, options->folders[i], err))
            return -1;
    hostd->audit = rp_hostd_audit_open(options->audit, err);
    hostd->service = rp_wsman_service_new(hostd->machine, "Microsoft Corporation", PRODUCT, NULL);
    if (!hostd->audit || add_namespace(whole, 0, RP_HOSTD_VIRTUALIZATION, &hostd->virtualization, err) ||
        add_namespace(whole, 1, RP_HOSTD_CIMV2, &hostd->cimv2, err) || rp_hostd_hosts_open(hostd, err) ||
        rp_hostd_jobs_open(hostd, options->job_seconds ? options->job_seconds : JOB_SECONDS, err))
        return -1;
    rp_hostd_export_recover(hostd);
    if (rp_hostd_keeper_open(hostd, err))
        return -1;
    if (!options->listener_count)
        return 0;
    struct rp_wsman_server_ops ops = {
        .authorize = authorize, .password = whole->access.password ? password : NULL,
        .peer = whole->access.peer ? peer : NULL, .drop = hostd->script ? rp_hostd_script_drop : NULL, .context = whole,
    };
    hostd->server = rp_wsman_server_start(hostd->service, options->listeners, options->listener_count,
                                          options->acceptor, &ops, options->limits, err);
    return hostd->server ? 0 : -1;
}

struct rp_hostd *rp_hostd_start(const struct rp_hostd_options *options, struct rp_error *err)
{
    struct whole *whole = rp_xcalloc(1, sizeof *whole);
    whole->access = options->access;
    whole->hostd.script = options->script;
    whole->lock = -1;
    if (!start(whole, options, err))
        return &whole->hostd;
    rp_hostd_stop(&whole->hostd);
    return NULL;
}

uint16_t rp_hostd_port(const struct rp_hostd *hostd, size_t listener)
{
    return hostd->server ? rp_wsman_server_port(hostd->server, listener) : 0;
}

void rp_hostd_stop(struct rp_hostd *hostd)
{
    struct whole *whole = (struct whole *)hostd;
    if (!hostd)
        return;
    rp_wsman_server_stop(hostd->server);
    rp_hostd_jobs_close(hostd);
    rp_hostd_keeper_close(hostd);
    rp_hostd_hosts_close(hostd);
    rp_wsman_service_free(hostd->service);
    for (size_t i = 0; i < 2; i++)
        rp_cim_schema_free(whole->schemas[i]);
    rp_hostd_audit_close(hostd->audit);
    for (size_t i = 0; i < hostd->folder_count; i++)
        free(hostd->folders[i]);
    free(hostd->folders);
    free(hostd->directory);
    if (whole->lock >= 0)
        close(whole->lock);
    free(whole);
}
