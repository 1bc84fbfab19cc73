// refpoint-hostd --lab: a host for tests and developers, in a folder, by anybody.
#include "hostd/lab.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pool.h"
#include "hostd/lab_options.h"
#include "io/fs.h"

enum { HTTP, HTTPS, UNIX, CLEAR, LISTENERS, STARTERS = 4, DYING_SECONDS = 3 };

struct lab {
    struct rp_lab_options options;
    bool temporary, ours;
    int lock;
    char *directory, *host, *disks, *exports, *machines, *socket, *control_path;
    char fingerprint[96];
    struct rp_lab_user users[3];
    struct rp_hostd_script *script;
    struct rp_hostd *hostd;
    struct rp_lab_guests *guests;
    struct rp_lab_control *control;
    struct rp_lab_keeper keeper;
};

// ---- who may do what ------------------------------------------------------------------------------------------------

static const struct rp_lab_user *find_user(struct lab *lab, const char *name)
{
    const char *backslash = strchr(name, '\\');
    if (backslash && strncasecmp(name, "LAB\\", 4))
        return NULL;
    for (size_t i = 0; i < sizeof lab->users / sizeof *lab->users; i++)
        if (!strcasecmp(backslash ? backslash + 1 : name, lab->users[i].name))
            return &lab->users[i];
    return NULL;
}

static int authorize(void *context, const char *name, enum rp_cim_access *access, struct rp_error *err)
{
    struct lab *lab = context;
    const struct rp_lab_user *user = find_user(lab, name);
    *access = RP_CIM_ADMINISTER;
    if (user) {
        *access = (enum rp_cim_access)(RP_CIM_ADMINISTER - (user - lab->users));
        return 0;
    }
    for (size_t i = 0; i < lab->options.administrator_count; i++)
        if (!strcmp(lab->options.administrators[i], name))
            return 0;
    return rp_fail(err, RP_ERR_PERMISSION, "%s has no rights in the lab", name);
}

static bool password(void *context, const char *name, const char *text)
{
    const struct rp_lab_user *user = find_user(context, name);
    return user && strlen(text) == strlen(user->password) && !CRYPTO_memcmp(text, user->password, strlen(text));
}

static int peer(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                struct rp_error *err)
{
    (void)context, (void)gid;
    snprintf(user, 256, "uid %u", uid);
    *access = RP_CIM_ADMINISTER;
    return uid == 0 || uid == getuid() ? 0 : rp_fail(err, RP_ERR_PERMISSION, "%s has no rights in the lab", user);
}

// ---- the folder -----------------------------------------------------------------------------------------------------

static char *temporary_folder(struct rp_error *err)
{
    const char *base = getenv("TMPDIR");
    char *path = rp_xasprintf("%s/refpoint-lab-XXXXXX", base && *base ? base : "/tmp");
    if (mkdtemp(path))
        return path;
    rp_fail_sys(err, errno, "%s: create", path);
    free(path);
    return NULL;
}

static int open_folder(struct lab *lab, struct rp_error *err)
{
    lab->temporary = !lab->options.directory;
    if (!lab->temporary && rp_lab_files_folder(lab->options.directory, err))
        return -1;
    lab->directory = lab->temporary ? temporary_folder(err) : realpath(lab->options.directory, NULL);
    if (!lab->directory)
        return rp_fail_sys(err, errno, "%s", lab->options.directory ? lab->options.directory : "temporary folder");
    lab->host = rp_path_join(lab->directory, "host");
    lab->disks = rp_path_join(lab->directory, "disks");
    lab->exports = rp_path_join(lab->directory, "export");
    lab->machines = rp_path_join(lab->host, "vms");
    lab->socket = rp_path_join(lab->directory, "hostd.sock");
    lab->control_path = rp_path_join(lab->directory, "lab.sock");
    RP_AUTO_FREE char *lock = rp_path_join(lab->directory, "lab.lock");
    lab->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lab->lock < 0)
        return rp_fail_sys(err, errno, "%s", lock);
    if (rp_hostd_lock(lab->lock, DYING_SECONDS))
        return rp_fail(err, RP_ERR_BUSY, "%s: another lab runs there", lab->directory);
    lab->ours = true;
    return rp_lab_files_folder(lab->disks, err) || rp_lab_files_folder(lab->exports, err) ? -1 : 0;
}

// ---- virtual machines -----------------------------------------------------------------------------------------------

// The signals that end the lab are blocked, also while it starts.
static int go_on(struct rp_error *err)
{
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT)
               ? rp_fail(err, RP_ERR_CANCELLED, "lab: ended before it was ready") : 0;
}

static int define(struct lab *lab, struct rp_host_connection *host, unsigned number, struct rp_error *err)
{
    char name[32], file[32], job[RP_HOST_ID], result[RP_HOST_ID];
    char *paths[64] = {0};
    snprintf(name, sizeof name, "vm%u", number);
    RP_AUTO_FREE char *folder = rp_path_join(lab->disks, name);
    int failed = rp_lab_files_folder(folder, err);
    for (uint32_t i = 0; !failed && i < lab->options.disks; i++) {
        snprintf(file, sizeof file, "disk%u.vhdx", i);
        paths[i] = rp_path_join(folder, file);
        unlink(paths[i]); // of a start that was killed: the host does not know it
        failed = rp_lab_files_disk(paths[i], lab->options.size, rp_lab_guests_key(lab->options.seed, name, i),
                                   lab->options.written / RP_LAB_BLOCK, err);
    }
    if (!failed)
        failed = host->ops->define_system(host, name, (const char *const *)paths, lab->options.disks, NULL, NULL, job,
                                          result, err);
    for (size_t i = 0; i < 64; i++)
        free(paths[i]);
    return failed ? rp_context(err, "%s", name) : 0;
}

struct switching {             // of one VM, by a thread of the pool
    struct lab *lab;
    const struct rp_vm *vm;
    enum rp_vm_state state;
    struct rp_error err;
};

static void switch_vm(void *argument)
{
    struct switching *one = argument;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    struct rp_host_connection *host = rp_host_local_open(one->lab->host, &one->err);
    if (host)
        host->ops->request_state(host, one->vm->id, one->state, job, result, &one->err);
    rp_host_close(host);
}

// The first `count` VMs that are not in this state already come into it, some at a time.
static int switch_all(struct lab *lab, const struct rp_vms *vms, enum rp_vm_state state, uint64_t count,
                      struct rp_error *err)
{
    struct switching *all = rp_xcalloc(vms->count + 1, sizeof *all);
    struct rp_pool *pool = rp_pool_new(STARTERS, vms->count + 1);
    for (size_t i = 0; i < vms->count && i < count; i++) {
        all[i] = (struct switching){.lab = lab, .vm = &vms->items[i], .state = state};
        if ((vms->items[i].state == RP_VM_RUNNING) != (state == RP_VM_RUNNING))
            rp_pool_run(pool, switch_vm, &all[i]);
    }
    rp_pool_free(pool);
    int failed = 0;
    for (size_t i = 0; i < vms->count && !failed; i++)
        if (all[i].err.code)
            failed = rp_fail(err, all[i].err.code, "%s: %s", vms->items[i].name, all[i].err.text);
    free(all);
    return failed;
}

static int make_vms(struct lab *lab, struct rp_error *err)
{
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_host_local_open(lab->host, err);
    RP_CLEANUP(rp_vms_clear) struct rp_vms before = {0}, vms = {0};
    if (!host || host->ops->list_vms(host, &before, err))
        return -1;
    for (unsigned i = 1; !before.count && i <= lab->options.vms; i++)
        if (go_on(err) || define(lab, host, i, err))
            return -1;
    if (host->ops->list_vms(host, &vms, err))
        return -1;
    return switch_all(lab, &vms, RP_VM_RUNNING, lab->options.running, err);
}

static void stop_vms(struct lab *lab)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_host_local_open(lab->host, &err);
    RP_CLEANUP(rp_vms_clear) struct rp_vms vms = {0};
    if (!host || host->ops->list_vms(host, &vms, &err) || switch_all(lab, &vms, RP_VM_OFF, vms.count, &err))
        rp_log(RP_LOG_WARNING, "lab: %s", err.text);
}

// By the lab at its end, or by its keeper.
static void clean(void *context)
{
    struct lab *lab = context;
    stop_vms(lab);
    if (lab->temporary)
        rp_lab_files_remove(lab->directory);
}

// ---- the host -------------------------------------------------------------------------------------------------------

static int start_host(struct lab *lab, struct rp_error *err)
{
    RP_AUTO_FREE char *certificate = rp_path_join(lab->directory, "certificate.pem"),
                      *key = rp_path_join(lab->directory, "key.pem"),
                      *users = rp_path_join(lab->directory, "ntlm-users"),
                      *audit = rp_path_join(lab->directory, "audit.log");
    const struct rp_wsman_listener listeners[LISTENERS] = {
        [HTTP] = {.address = "127.0.0.1", .port = (uint16_t)lab->options.http},
        [HTTPS] = {.address = "127.0.0.1", .port = (uint16_t)lab->options.https, .certificate = certificate,
                   .key = key},
        [UNIX] = {.socket = lab->socket},
        [CLEAR] = {.address = "127.0.0.1", .flags = RP_LISTEN_BASIC_IN_CLEAR},
    };
    const struct rp_login_acceptor acceptor = {.keytab = lab->options.keytab, .ntlm_users = users};
    const char *const folders[] = {lab->disks, lab->exports, lab->machines};
    const struct rp_hostd_options options = {
        .directory = lab->host, .machine = lab->options.machine, .folders = folders, .folder_count = 3,
        .listeners = listeners, .listener_count = lab->options.basic_in_clear ? LISTENERS : LISTENERS - 1,
        .acceptor = &acceptor,
        .access = {.authorize = authorize, .password = password, .peer = peer, .context = lab},
        .script = lab->script, .audit = audit, .job_seconds = (unsigned)lab->options.job_seconds,
    };
    if (rp_login_check(&acceptor, err))
        return -1;
    unlink(lab->socket);
    lab->hostd = rp_hostd_start(&options, err);
    return lab->hostd ? 0 : -1;
}

static int start(struct lab *lab, struct rp_error *err)
{
    static const struct rp_lab_user users[] = {{"admin", "administer", ""}, {"operator", "operate", ""},
                                               {"reader", "read", ""}};
    memcpy(lab->users, users, sizeof users);
    if (open_folder(lab, err) || (lab->temporary && rp_lab_keeper_start(&lab->keeper, clean, lab, err)) ||
        rp_lab_files_certificate(lab->directory, "localhost", lab->fingerprint, err) ||
        rp_lab_files_users(lab->directory, lab->users, sizeof users / sizeof *users, err) || make_vms(lab, err))
        return -1;
    lab->script = rp_lab_faults_new();
    if (start_host(lab, err) ||
        !(lab->guests = rp_lab_guests_start(lab->host, lab->options.seed, lab->options.rate, err)) ||
        (lab->options.script && rp_lab_control_file(lab->hostd, lab->guests, lab->options.script, err)) ||
        !(lab->control = rp_lab_control_start(lab->hostd, lab->guests, lab->control_path, err)))
        return -1;
    return 0;
}

static void stop(struct lab *lab)
{
    if (lab->script)
        rp_lab_faults_stop(lab->script);
    rp_lab_control_stop(lab->control);
    rp_hostd_stop(lab->hostd);
    rp_lab_guests_stop(lab->guests);
    rp_lab_faults_free(lab->script);
    if (lab->ours)
        clean(lab);
    else if (lab->temporary && lab->directory)
        rp_lab_files_remove(lab->directory);
    rp_lab_keeper_stop(&lab->keeper);
    if (lab->lock >= 0)
        close(lab->lock);
    OPENSSL_cleanse(lab->users, sizeof lab->users);
    free(lab->directory);
    free(lab->host);
    free(lab->disks);
    free(lab->exports);
    free(lab->machines);
    free(lab->socket);
    free(lab->control_path);
}

// ---- what it tells --------------------------------------------------------------------------------------------------

static json_t *url(struct lab *lab, int listener)
{
    return json_sprintf("%s://localhost:%u/wsman", listener == HTTPS ? "https" : "http",
                        (unsigned)rp_hostd_port(lab->hostd, (size_t)listener));
}

static json_t *tell_vm(const struct rp_inventory_vm *item)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < item->settings.disk_count; i++) {
        const struct rp_vm_disk *disk = &item->settings.disks[i];
        json_array_append_new(disks, json_pack("{s:i, s:s, s:I, s:s?}", "number", (int)disk->number, "path", disk->path,
                                               "size", (json_int_t)disk->size, "nbd", disk->nbd_uri));
    }
    return json_pack("{s:s, s:s, s:s, s:o}", "name", item->vm.name, "id", item->vm.id, "state",
                     rp_vm_state_name(item->vm.state), "disks", disks);
}

static int tell(struct lab *lab, struct rp_error *err)
{
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(lab->hostd, err);
    if (!inventory)
        return -1;
    json_t *vms = json_array(), *users = json_array();
    for (size_t i = 0; i < inventory->count; i++)
        json_array_append_new(vms, tell_vm(&inventory->items[i]));
    rp_hostd_hosts_release(lab->hostd, inventory);
    for (size_t i = 0; i < sizeof lab->users / sizeof *lab->users; i++)
        json_array_append_new(users, json_pack("{s:o, s:s, s:s}", "user", json_sprintf("LAB\\%s", lab->users[i].name),
                                               "password", lab->users[i].password, "access", lab->users[i].access));
    json_t *all = json_pack("{s:i, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:s, s:s, s:o, s:s, s:I, s:o}",
        "pid", (int)getpid(), "http", url(lab, HTTP), "https", url(lab, HTTPS),
        "unix", json_sprintf("unix:%s", lab->socket), "user", json_string("LAB\\admin"), "password",
        lab->users[0].password, "users", users, "ca", json_sprintf("%s/ca.pem", lab->directory), "fingerprint",
        lab->fingerprint, "host", lab->host, "folders",
        json_pack("{s:s, s:s, s:s}", "disks", lab->disks, "export", lab->exports, "vms", lab->machines), "control",
        lab->control_path, "seed", (json_int_t)lab->options.seed, "vms", vms);
    if (lab->options.basic_in_clear && all)
        json_object_set_new(all, "clear", url(lab, CLEAR));
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    if (!text)
        return rp_fail(err, RP_ERR_INVALID, "the lab cannot be told in JSON: is its folder's name UTF-8?");
    int failed = puts(text) < 0 || fflush(stdout) ? rp_fail_sys(err, errno, "standard output") : 0;
    OPENSSL_cleanse(text, strlen(text));
    free(text);
    return failed;
}

// Until SIGTERM or SIGINT, or the end of standard input.
static void wait_for_end(const struct lab *lab, int signals)
{
    char piece[256];
    struct pollfd fds[2] = {{signals, POLLIN, 0}, {lab->options.until_eof ? 0 : -1, POLLIN, 0}};
    while (!fds[0].revents) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return;
        if (fds[1].revents && read(0, piece, sizeof piece) <= 0)
            return;
    }
}

int rp_hostd_lab(int argc, char **argv)
{
    struct lab lab = {.lock = -1};
    struct rp_error err = {0};
    sigset_t ends;
    if (rp_lab_options_read(argc, argv, &lab.options, &err)) {
        fprintf(stderr, "refpoint-hostd: %s\n", err.text);
        return rp_code_exit(err.code);
    }
    if (lab.options.help)
        return fputs(rp_lab_help, stdout) < 0;
    if (lab.options.verbose)
        rp_log_set_level(RP_LOG_INFO);
    // Before any thread is started, all of which inherit this.
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    signal(SIGPIPE, SIG_IGN);
    RP_AUTO_FD int signals = signalfd(-1, &ends, SFD_CLOEXEC);
    int failed = signals < 0 ? rp_fail_sys(&err, errno, "signals") : start(&lab, &err) || tell(&lab, &err);
    if (failed)
        fprintf(stderr, "refpoint-hostd: %s\n", err.text);
    else
        wait_for_end(&lab, signals);
    stop(&lab);
    return failed ? rp_code_exit(err.code) : 0;
}
