// refpoint vm start | stop | shutdown | pause | resume | save | reset | serve
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "host/local.h"

// How long somebody waits for a guest. Both the host connection's progress and rp_host_wait ask whether to go on.
struct patience {
    uint64_t until; // monotonic ns; 0: for ever
    bool over;
};

static int is_enough(void *context)
{
    struct patience *patience = context;
    patience->over = patience->until && rp_clock_monotonic_ns() > patience->until;
    return patience->over || rp_cli_stopped();
}

static int progress(void *context, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    return is_enough(context);
}

static int request(struct rp_host_connection *host, const struct rp_vm *vm, enum rp_vm_state state, struct patience *patience,
                   struct rp_error *err)
{
    char job[RP_HOST_ID] = "", result[RP_HOST_ID] = "";
    host->progress = progress;
    host->progress_context = patience;
    int failed = host->ops->request_state(host, vm->id, state, job, result, err) ||
                 rp_host_wait(host, job, result, is_enough, patience, err);
    host->progress = NULL;
    host->progress_context = NULL;
    if (failed && *job && err->code == RP_ERR_CANCELLED) // the guest goes on with it, but nobody waits
        host->ops->cancel_job(host, job, NULL);
    return failed ? -1 : 0;
}

static int tell(const struct rp_cli *cli, const struct rp_vm *vm, const char *state)
{
    if (cli->json)
        rp_cli_print_json(json_pack("{s:s, s:o, s:s}", "id", vm->id, "name", rp_cli_json_text(vm->name), "state", state));
    rp_cli_say(cli, "VM %s is %s\n", rp_cli_safe(vm->name), state);
    return 0;
}

static int change_state(struct rp_cli *cli, enum rp_vm_state state, const char *done, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct patience patience = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    return !host || request(host, &vm, state, &patience, err) ? -1 : tell(cli, &vm, done);
}

static int run_start(struct rp_cli *cli, struct rp_error *err) { return change_state(cli, RP_VM_RUNNING, "running", err); }
static int run_pause(struct rp_cli *cli, struct rp_error *err) { return change_state(cli, RP_VM_PAUSED, "paused", err); }
static int run_save(struct rp_cli *cli, struct rp_error *err) { return change_state(cli, RP_VM_SAVED, "saved", err); }
static int run_reset(struct rp_cli *cli, struct rp_error *err) { return change_state(cli, RP_VM_RESET, "running", err); }

static int run_resume(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct patience patience = {0};
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    if (!host)
        return -1;
    if (vm.state != RP_VM_PAUSED)
        return rp_fail(err, RP_ERR_STATE, "the VM is %s: only a paused one is resumed%s", rp_vm_state_name(vm.state),
                       vm.state == RP_VM_RUNNING ? "" : "; start it (vm start)");
    return request(host, &vm, RP_VM_RUNNING, &patience, err) ? -1 : tell(cli, &vm, "running");
}

// ---- the end ----------------------------------------------------------------------------------------------------------

static const struct rp_cli_option stop_options[] = {
    {0, "timeout", "SECONDS", "how long the guest may take to shut down (120)"},
    {0, "now", NULL, "do not ask the guest: turn the VM off at once, as if the power went"},
    {0},
};
static const struct rp_cli_option shutdown_options[] = {
    {0, "timeout", "SECONDS", "how long to wait for the guest (120)"},
    {0},
};

static int read_patience(const struct rp_cli *cli, struct patience *patience, uint64_t *seconds, struct rp_error *err)
{
    *seconds = 120;
    if (rp_cli_number(cli, "timeout", 1, 86400, seconds, err))
        return -1;
    patience->until = rp_clock_monotonic_ns() + *seconds * 1000000000ull;
    return 0;
}

static int run_shutdown(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct patience patience = {0};
    struct rp_error why = {0};
    uint64_t seconds;
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    if (!host || read_patience(cli, &patience, &seconds, err))
        return -1;
    if (!request(host, &vm, RP_VM_SHUT_DOWN, &patience, &why))
        return tell(cli, &vm, "off");
    if (patience.over)
        return rp_fail(err, RP_ERR_BUSY, "VM %s: its guest was asked to shut down %llu s ago and still runs: wait, or turn it off (vm stop"
                       " --now)", rp_cli_safe(vm.name), (unsigned long long)seconds);
    return rp_fail_as(err, &why);
}

// What is lost with the power besides what the guest has not flushed is lost for good: a saved memory, and on real Hyper-V without
// a word. A guest that does not run cannot be asked first.
static int may_stop(const struct rp_vm *vm, bool now, struct rp_error *err)
{
    if (vm->state == RP_VM_SAVED)
        return rp_fail(err, RP_ERR_STATE, "VM %s is saved: start it first; turned off now, it would lose its memory", rp_cli_safe(vm->name));
    if (now || !vm->has_guest || vm->state == RP_VM_RUNNING || vm->state == RP_VM_OFF)
        return 0;
    if (vm->state == RP_VM_PAUSED)
        return rp_fail(err, RP_ERR_STATE, "VM %s is paused: its guest cannot be asked to shut down; resume it (vm resume), or turn it off "
                       "(--now)", rp_cli_safe(vm->name));
    return rp_fail(err, RP_ERR_STATE, "VM %s: the host does not say that it runs: its guest cannot be asked to shut down; wait, or turn it "
                   "off (--now)", rp_cli_safe(vm->name));
}

static int run_stop(struct rp_cli *cli, struct rp_error *err)
{
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    struct patience patience = {0}, for_ever = {0};
    struct rp_error why = {0};
    uint64_t seconds;
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_cli_open_vm(cli, cli->args[0], &vm, err);
    bool now = rp_cli_flag(cli, "now");
    if (!host || read_patience(cli, &patience, &seconds, err) || may_stop(&vm, now, err))
        return -1;
    if (!now && vm.has_guest && vm.state == RP_VM_RUNNING) {
        if (!request(host, &vm, RP_VM_SHUT_DOWN, &patience, &why))
            return tell(cli, &vm, "off");
        // There is no guest after all, for certain, or it takes too long; it ended at the very moment.
        if (!patience.over && why.code != RP_ERR_UNSUPPORTED)
            return rp_fail_as(err, &why);
        if (patience.over)
            rp_cli_remark(cli, "the guest of VM %s did not shut down within %llu s: the VM is turned off", rp_cli_safe(vm.name),
                          (unsigned long long)seconds);
    }
    if (request(host, &vm, RP_VM_OFF, &for_ever, err))
        return -1;
    tell(cli, &vm, "off");
    return patience.over ? 1 : 0;
}

// ---- serve ------------------------------------------------------------------------------------------------------------

// What systemd waits for (sd_notify(3)); elsewhere nobody does.
static void is_ready(void *context)
{
    (void)context;
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (*path == '@')
        address.sun_path[0] = '\0';
    RP_AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address, size);
}

static int find_domain(struct rp_host_connection *host, const char *uuid, char id[RP_GUID_TEXT], struct rp_error *err)
{
    RP_CLEANUP(rp_host_domains_clear) struct rp_host_domains domains = {0};
    if (rp_host_local_domains(host, &domains, err))
        return -1;
    for (size_t i = 0; i < domains.count; i++)
        if (!strcasecmp(domains.items[i].domain, uuid)) {
            memcpy(id, domains.items[i].vm_id, RP_GUID_TEXT);
            return 0;
        }
    return rp_fail(err, RP_ERR_NOT_FOUND, "%s: no VM of this host is the domain %s", host->address, uuid);
}

static int run_serve(struct rp_cli *cli, struct rp_error *err)
{
    const char *domain = rp_cli_value(cli, "domain");
    char id[RP_GUID_TEXT];
    struct rp_guid guid;
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    if ((domain != NULL) == (cli->arg_count == 1))
        return rp_fail(err, RP_ERR_USAGE, "vm serve: name the VM, or its domain with --domain UUID");
    if (strncmp(cli->host, "local:", 6))
        return rp_fail(err, RP_ERR_USAGE, "vm serve: disks are served where they are: -H local:DIR");
    // What others left is not for who starts one VM, and may take long.
    RP_CLEANUP(rp_host_close_p) struct rp_host_connection *host = rp_host_local_open_resident(cli->host + 6, false, err);
    if (!host)
        return -1;
    bool by_name = !domain && rp_guid_parse(cli->args[0], &guid, NULL);
    if ((domain && find_domain(host, domain, id, err)) || (by_name && host->ops->find_vm(host, cli->args[0], &vm, err)))
        return -1;
    const char *serve_id = domain ? id : *vm.id ? vm.id : cli->args[0];
    const char *for_domain = rp_cli_value(cli, "for");
    if (rp_cli_flag(cli, "check"))
        return rp_host_local_may_serve(host, serve_id, for_domain, err);
    if (rp_cli_flag(cli, "end"))
        return rp_host_local_unserve(host, serve_id, for_domain, err);
    const struct rp_host_serving serving = {.ready = is_ready, .stop = rp_cli_stop};
    return rp_host_local_serve(host, serve_id, for_domain, rp_cli_flag(cli, "background") ? NULL : &serving, err);
}

static const struct rp_cli_option serve_options[] = {
    {0, "domain", "UUID", "the VM that is this domain of its hypervisor, instead of a name"},
    {0, "for", "UUID", "the domain that is to have the disks: refused when it is not the VM's"},
    {0, "check", NULL, "only see whether it would be refused"},
    {0, "background", NULL, "see to it that the disks are served, and return"},
    {0, "end", NULL, "the opposite: end the disk service, after the VM"},
    {0},
};

const struct rp_cli_verb rp_cli_vm_run_verbs[] = {
    {
        .name = "vm start",
        .arguments = "[HOST/]VM",
        .summary = "start a VM; of one without a guest, its disk service",
        .details = "A saved VM goes on where it was saved, a paused one goes on. An offline VM is\n"
                   "nothing but disks: they are served from then on.\n",
        .examples = "refpoint vm start web1\n",
        .min_args = 1,
        .max_args = 1,
        .run = run_start,
    },
    {
        .name = "vm stop",
        .arguments = "[HOST/]VM [--timeout SECONDS | --now]",
        .summary = "shut a VM down, or turn it off; of one without a guest, end its disk service",
        .details = "The guest is asked to shut down. When it has not after the timeout, the VM is\n"
                   "turned off, and that is a remark (exit status 1). See vm shutdown for the gentle\n"
                   "way only. One that is paused cannot be asked, and is turned off with --now only; a\n"
                   "saved one is not turned off at all: it would lose its memory.\n"
                   "\n"
                   "Everything written is made durable and the disks are closed cleanly. It fails\n"
                   "when the disk service ended without that (it was killed, or could not write):\n"
                   "the VM is off then as well, and what the service left is brought in by the next\n"
                   "command that opens its disks.\n",
        .examples = "refpoint vm stop web1\n"
                    "refpoint vm stop web1 --timeout 600\n"
                    "refpoint vm stop web1 --now\n",
        .options = stop_options,
        .min_args = 1,
        .max_args = 1,
        .run = run_stop,
    },
    {
        .name = "vm shutdown",
        .arguments = "[HOST/]VM [--timeout SECONDS]",
        .summary = "ask the guest to shut down, and wait for it",
        .details = "A guest that does not within the timeout is left alone: the command fails, and\n"
                   "the VM is off whenever the guest is through.\n",
        .examples = "refpoint vm shutdown web1\n",
        .options = shutdown_options,
        .min_args = 1,
        .max_args = 1,
        .run = run_shutdown,
    },
    {
        .name = "vm pause",
        .arguments = "[HOST/]VM",
        .summary = "pause a VM until it is resumed",
        .examples = "refpoint vm pause web1\n",
        .min_args = 1,
        .max_args = 1,
        .run = run_pause,
    },
    {
        .name = "vm resume",
        .arguments = "[HOST/]VM",
        .summary = "let a paused VM go on",
        .details = "One that was paused because a disk did not answer, or because the host had no\n"
                   "room, goes on by itself where refpoint-hostd runs.\n",
        .examples = "refpoint vm resume web1\n",
        .min_args = 1,
        .max_args = 1,
        .run = run_resume,
    },
    {
        .name = "vm save",
        .arguments = "[HOST/]VM",
        .summary = "save the memory of a VM and end it; vm start goes on from there",
        .examples = "refpoint vm save web1\n",
        .min_args = 1,
        .max_args = 1,
        .run = run_save,
    },
    {
        .name = "vm reset",
        .arguments = "[HOST/]VM",
        .summary = "reset a VM, as its reset button would",
        .details = "The guest has no say in it. What it has not flushed is lost.\n",
        .examples = "refpoint vm reset web1\n",
        .min_args = 1,
        .max_args = 1,
        .run = run_reset,
    },
    {
        .name = "vm serve",
        .arguments = "VM | --domain UUID [--for UUID] [--check | --background | --end]",
        .summary = "serve the disks of a VM that something else starts",
        .details = "For systemd (refpoint-disks@.service) and libvirt's hook: starts the disk\n"
                   "service, tells systemd when it answers, and stays until it ends; SIGTERM ends\n"
                   "it in order. With --background it returns when the service answers. One that\n"
                   "runs already is fine. It asks nothing of the hypervisor, which may be waiting\n"
                   "for it. Exit status 2: the service was killed; serve again, and\n"
                   "it goes on with all that it had acknowledged.\n",
        .examples = "refpoint vm serve web1\n"
                    "refpoint vm serve --domain 5b0a1c9e-7d1f-4a55-9d0f-2f6c1a7f3e21\n",
        .options = serve_options,
        .max_args = 1,
        .run = run_serve,
    },
    {0},
};
