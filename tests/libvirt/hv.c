// hv URI: the functions of src/host/hypervisor.h for scripts. Reads a call per line, words between spaces, and answers each with a
// line: "ok RESULT" or "failed CODE TEXT". Events, once asked for ("watch"), are lines "event DOMAIN KIND" in between.
// A disk is written TARGET=EXPORT@SOCKET; a definition as the path of a file, for reading and writing.
// "later CALL" is answered at once; the answer of the call is a line "late ok RESULT" or "late failed …" in between.
// "detach DOMAIN FILE" is what an administrator does: takes the device in the file out of the running domain, by libvirt itself.
#include <inttypes.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "host/hypervisor.h"

#define MAX_WORDS 24

static const char *uri;
static struct rp_hypervisor *hv;
static const struct rp_hypervisor_ops *ops;
static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&output);
    vprintf(format, args);
    putchar('\n');
    fflush(stdout);
    pthread_mutex_unlock(&output);
    va_end(args);
}

static void on_event(void *context, const char *domain, enum rp_domain_event event)
{
    static const char *const names[] = {"started", "stopped", "disk-failed", "changed"};
    (void)context;
    say("event %s %s", domain, names[event]);
}

static size_t parse_disks(char **words, size_t count, struct rp_domain_disk *disks)
{
    for (size_t i = 0; i < count; i++) {
        char *export_name = strchr(words[i], '='), *socket = export_name ? strchr(export_name, '@') : NULL;
        if (!socket)
            return SIZE_MAX;
        *export_name++ = *socket++ = 0;
        snprintf(disks[i].target, sizeof disks[i].target, "%s", words[i]);
        snprintf(disks[i].export_name, sizeof disks[i].export_name, "%s", export_name);
        disks[i].socket = socket;
    }
    return count;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t room = 0;
    if (!file || getdelim(&text, &room, 0, file) < 0) {
        fprintf(stderr, "hv: cannot read %s\n", path);
        exit(3);
    }
    fclose(file);
    return text;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file)) {
        fprintf(stderr, "hv: cannot write %s\n", path);
        exit(3);
    }
}

static int detach(const char *domain, const char *path, struct rp_error *err)
{
    RP_AUTO_FREE char *xml = read_file(path);
    virConnectPtr connection = virConnectOpen(uri);
    virDomainPtr found = connection ? virDomainLookupByUUIDString(connection, domain) : NULL;
    int failed = !found || virDomainDetachDeviceFlags(found, xml, VIR_DOMAIN_AFFECT_LIVE);
    if (failed)
        rp_fail(err, RP_ERR_IO, "detach: %s", virGetLastErrorMessage());
    if (found)
        virDomainFree(found);
    if (connection)
        virConnectClose(connection);
    return failed ? -1 : 0;
}

static int is(const char *name, char **words, size_t count, size_t least) { return !strcmp(words[0], name) && count > least; }

// The result in `result`; 1: no such call.
static int call(char **w, size_t n, struct rp_buf *result, struct rp_error *err)
{
    struct rp_domain_disk disks[MAX_WORDS] = {0};
    const char *domain = n > 1 ? w[1] : "";
    enum rp_domain_state state;
    char uuid[RP_GUID_TEXT];
    RP_AUTO_FREE char *text = NULL;
    unsigned count = 0;
    int failed;
    if (is("open", w, n, 0))
        return (hv = rp_hypervisor_open(uri, err)) ? 0 : -1;
    if (is("close", w, n, 0)) {
        rp_hypervisor_close(hv);
        hv = NULL;
        return 0;
    }
    if (is("find", w, n, 1)) {
        if ((failed = ops->find(hv, w[1], uuid, n > 2 ? &text : NULL, err)) == 0) {
            rp_buf_printf(result, "%s", uuid);
            if (n > 2)
                write_file(w[2], text);
        }
        return failed;
    }
    if (is("running-xml", w, n, 2)) {
        if ((failed = ops->running_xml(hv, domain, &text, err)) == 0)
            write_file(w[2], text);
        return failed;
    }
    if (is("define", w, n, 1)) {
        text = read_file(w[1]);
        return ops->define(hv, text, err);
    }
    if (is("undefine", w, n, 1))
        return ops->undefine(hv, domain, n > 2, err);
    if (is("state", w, n, 1)) {
        if ((failed = ops->state(hv, domain, &state, err)) == 0)
            rp_buf_printf(result, "%s", rp_domain_state_name(state));
        return failed;
    }
    if (is("start", w, n, 1) && parse_disks(w + 2, n - 2, disks) != SIZE_MAX)
        return ops->start(hv, domain, disks, n - 2, err);
    if (is("reconnect", w, n, 2) && parse_disks(w + 3, n - 3, disks) != SIZE_MAX)
        return ops->reconnect(hv, domain, disks, n - 3, (unsigned)atoi(w[2]), err);
    if (is("resize", w, n, 3))
        return ops->resize(hv, domain, w[2], strtoull(w[3], NULL, 10), err);
    if (is("freeze", w, n, 2)) {
        if ((failed = ops->freeze(hv, domain, (unsigned)atoi(w[2]), &count, err)) == 0)
            rp_buf_printf(result, "%u", count);
        return failed;
    }
    if (is("thaw", w, n, 2)) {
        if ((failed = ops->thaw(hv, domain, (unsigned)atoi(w[2]), &count, err)) == 0)
            rp_buf_printf(result, "%u", count);
        return failed;
    }
    if (is("detach", w, n, 2))
        return detach(domain, w[2], err);
    if (is("snapshots", w, n, 1)) {
        if ((failed = ops->snapshots(hv, domain, &text, err)) == 0)
            rp_buf_printf(result, "%s", text);
        return failed;
    }
    if (is("watch", w, n, 0))
        return ops->watch(hv, on_event, NULL, err);
    if (is("unwatch", w, n, 0)) {
        ops->unwatch(hv);
        return 0;
    }
    if (is("resume", w, n, 1))
        return ops->resume(hv, domain, n > 2, err);
    const struct {
        const char *name;
        int (*op)(struct rp_hypervisor *hv, const char *domain, struct rp_error *err);
    } plain[] = {{"shut-down", ops->shut_down}, {"turn-off", ops->turn_off}, {"pause", ops->pause},
                 {"reset", ops->reset},         {"save", ops->save}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (is(plain[i].name, w, n, 1))
            return plain[i].op(hv, domain, err);
    return 1;
}

static void run(char *line, const char *how)
{
    char *words[MAX_WORDS], *place = NULL;
    size_t n = 0;
    for (char *word = strtok_r(line, " \n", &place); word && n < MAX_WORDS; word = strtok_r(NULL, " \n", &place))
        words[n++] = word;
    if (!n)
        return;
    RP_CLEANUP(rp_buf_clear) struct rp_buf result = {0};
    struct rp_error err = {0};
    uint64_t began = rp_clock_monotonic_ns();
    int failed = call(words, n, &result, &err);
    uint64_t ms = (rp_clock_monotonic_ns() - began) / 1000000;
    if (failed > 0)
        say("%sfailed usage %s", how, words[0]);
    else if (failed)
        say("%sfailed %s %s [%" PRIu64 " ms]", how, rp_code_name(err.code), err.text, ms);
    else
        say("%sok %s", how, rp_buf_text(&result));
}

static void *run_late(void *line)
{
    run(line, "late ");
    free(line);
    return NULL;
}

static void run_line(char *line)
{
    pthread_t thread;
    if (strncmp(line, "later ", 6)) {
        run(line, "");
        return;
    }
    say(pthread_create(&thread, NULL, run_late, rp_xstrdup(line + 6)) || pthread_detach(thread) ? "failed thread" : "ok");
}

int main(int argc, char **argv)
{
    struct rp_error err = {0};
    if (argc != 2) {
        fprintf(stderr, "usage: hv URI\n");
        return 3;
    }
    uri = argv[1];
    hv = rp_hypervisor_open(uri, &err);
    if (!hv) {
        say("failed %s %s", rp_code_name(err.code), err.text);
        return 2;
    }
    ops = rp_hypervisor_ops();
    say("ok");
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) >= 0)
        run_line(line);
    free(line);
    rp_hypervisor_close(hv);
    return 0;
}
