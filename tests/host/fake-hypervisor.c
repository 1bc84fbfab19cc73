// A hypervisor for tests: the module that REFPOINT_LIBVIRT names instead of refpoint-libvirt.so. Domains are files in the
// folder of the URI "fake:DIR", so that several processes see the same ones and a test can write them itself:
//
//   <uuid>.xml        the definition (uuid in lower case)
//   <uuid>.state      the name of its state (rp_domain_state_name); missing: off
//   <uuid>.running    the definition of the running one, where it differs
//   <uuid>.agent      how many file systems its guest agent freezes, or "missing", or "hang"; missing: 2
//   <uuid>.frozen     is there while the guest is frozen
//   <uuid>.writes     a socket that must answer, or the guest can be neither frozen nor thawed: both write
//   <uuid>.deaf       is there when the guest does not shut down when it is asked to
//   <uuid>.quick      is there when it is off before whoever asks it to end has heard, and is told that it does not run
//   <uuid>.snapshots  the names of its snapshots
//   console           what every guest says on its serial port when it starts, if that goes to a file
//   late/define       is there: the next definition is not waited for ("busy"); it is left in late/<uuid>.xml, from where a test
//                     moves it to where it belongs, or, where there is late/next, the next definition does
//   log               a line for each call that changes something: "define <uuid>", "start <uuid> vda=disk0@SOCKET …"
//   events            a line for each event: "<uuid> started|stopped|disk-failed|changed"; lines that a test adds are events too
//   fail/<call>       a code and a text ("busy no answer"): that call fails so, once; fail/<call>.always: each time;
//                     fail/<call>.PID: each time in that process
//   slow/<call>       milliseconds that it takes before it does anything, or until the file goes
//   then/<call>       the state that somebody else gives the domain as soon as it has done it, once
//
// A definition is refused whose disks have formats that libvirt's schema does not have. A domain with disks starts,
// and goes on after a disk failed, only when the NBD sockets of its disks answer.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <dirent.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "host/hypervisor.h"

struct rp_hypervisor {
    char *folder;
    pthread_t thread; // of the watcher
    bool watched;
    atomic_bool leave;
    rp_domain_event_fn *event;
    void *context;
    off_t seen;       // of the file of events
};

static const char *const states[] = {"off", "running", "paused", "waiting for a disk", "starting", "stopping", "saved", "crashed"};
static const char *const events[] = {"started", "stopped", "disk-failed", "changed"};

// ---- files ----------------------------------------------------------------------------------------------------------

static char *lower(const char *text)
{
    char *copy = rp_xstrdup(text);
    for (char *p = copy; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return copy;
}

static char *file_of(const struct rp_hypervisor *hv, const char *domain, const char *suffix)
{
    RP_AUTO_FREE char *uuid = lower(domain);
    return rp_xasprintf("%s/%s.%s", hv->folder, uuid, suffix);
}

// NULL: it is not there.
static char *read_text(const char *path)
{
    RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct rp_buf text = {0};
    if (fd < 0)
        return NULL;
    for (ssize_t n = 1; n > 0;) {
        char part[4096];
        n = read(fd, part, sizeof part);
        if (n > 0)
            rp_buf_append(&text, part, (size_t)n);
    }
    rp_buf_text(&text);
    return (char *)text.data;
}

// Whole or not at all, and durable, as libvirt does it.
static int write_text(const char *path, const char *text, struct rp_error *err)
{
    RP_AUTO_FREE char *part = rp_xasprintf("%s.new.%d", path, (int)getpid());
    RP_AUTO_FD int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) || rename(part, path))
        return rp_fail_sys(err, errno, "%s", path);
    return 0;
}

static void add_line(const struct rp_hypervisor *hv, const char *name, const char *line)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", hv->folder, name), *whole = rp_xasprintf("%s\n", line);
    RP_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, whole, strlen(whole)) < 0)
        perror(path);
}

static void happened(const struct rp_hypervisor *hv, const char *domain, enum rp_domain_event event)
{
    RP_AUTO_FREE char *uuid = lower(domain), *line = rp_xasprintf("%s %s", uuid, events[event]);
    add_line(hv, "events", line);
}

// What every call begins with: what the test has laid ready for it, and the log.
static int begin(const struct rp_hypervisor *hv, const char *call, const char *domain, bool logged, struct rp_error *err)
{
    RP_AUTO_FREE char *slow = rp_xasprintf("%s/slow/%s", hv->folder, call), *delay = read_text(slow);
    for (int left_ms = delay ? atoi(delay) : 0; left_ms > 0 && !access(slow, F_OK); left_ms -= 10)
        usleep(10000);
    if (logged) {
        RP_AUTO_FREE char *uuid = lower(domain), *line = rp_xasprintf("%s %s", call, uuid);
        add_line(hv, "log", line);
    }
    RP_AUTO_FREE char *once = rp_xasprintf("%s/fail/%s", hv->folder, call), *always = rp_xasprintf("%s.always", once);
    RP_AUTO_FREE char *here = rp_xasprintf("%s.%d", once, (int)getpid());
    RP_AUTO_FREE char *what = read_text(once), *each = read_text(access(here, F_OK) ? always : here);
    const char *chosen = what ? what : each;
    if (!chosen)
        return 0;
    if (what)
        unlink(once);
    char code[32] = "io";
    sscanf(chosen, "%31s", code);
    const char *text = strchr(chosen, ' ');
    return rp_fail(err, rp_code_from_name(code), "domain %s: %s: %s", domain, call, text ? text + 1 : "a failure that the test wants");
}

// ---- domains --------------------------------------------------------------------------------------------------------

// The text of the first such element; malloc'ed, NULL: none.
static char *element(const char *xml, const char *name)
{
    RP_AUTO_FREE char *open_tag = rp_xasprintf("<%s>", name), *close_tag = rp_xasprintf("</%s>", name);
    const char *start = strstr(xml, open_tag), *end = start ? strstr(start, close_tag) : NULL;
    return end ? strndup(start + strlen(open_tag), (size_t)(end - start) - strlen(open_tag)) : NULL;
}

static int need(const struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    RP_AUTO_FREE char *path = file_of(hv, domain, "xml");
    return access(path, F_OK) ? rp_fail(err, RP_ERR_NOT_FOUND, "no domain %s", domain) : 0;
}

static enum rp_domain_state state_of(const struct rp_hypervisor *hv, const char *domain)
{
    RP_AUTO_FREE char *path = file_of(hv, domain, "state"), *text = read_text(path);
    if (text)
        text[strcspn(text, "\n")] = '\0';
    for (size_t i = 0; text && i < sizeof states / sizeof *states; i++)
        if (!strcmp(text, states[i]))
            return (enum rp_domain_state)i;
    return RP_DOMAIN_OFF;
}

static int set_state(const struct rp_hypervisor *hv, const char *domain, enum rp_domain_state state, struct rp_error *err)
{
    RP_AUTO_FREE char *path = file_of(hv, domain, "state"), *frozen = file_of(hv, domain, "frozen"),
                      *running = file_of(hv, domain, "running");
    if (state == RP_DOMAIN_OFF || state == RP_DOMAIN_SAVED) {
        unlink(frozen);
        unlink(running);
    }
    return write_text(path, states[state], err);
}

// Called with what the domain may be (a mask of 1 << state); begins the call as well.
static int enter(const struct rp_hypervisor *hv, const char *call, const char *domain, unsigned allowed, struct rp_error *err)
{
    if (begin(hv, call, domain, true, err) || need(hv, domain, err))
        return -1;
    enum rp_domain_state state = state_of(hv, domain);
    return allowed & 1u << state ? 0 : rp_fail(err, RP_ERR_STATE, "domain %s is %s: cannot %s it", domain, states[state], call);
}

#define LIVE (1u << RP_DOMAIN_RUNNING | 1u << RP_DOMAIN_PAUSED | 1u << RP_DOMAIN_IO_ERROR)
#define ACTIVE (LIVE | 1u << RP_DOMAIN_CRASHED)
#define REST (1u << RP_DOMAIN_OFF | 1u << RP_DOMAIN_SAVED)

static int answers(const char *path, struct rp_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    RP_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof address.sun_path)
        return rp_fail(err, RP_ERR_INVALID, "%s: too long for a socket", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    return connect(fd, (struct sockaddr *)&address, sizeof address) ? rp_fail_sys(err, errno, "%s", path) : 0;
}

static int connect_disks(const struct rp_hypervisor *hv, const char *call, const char *domain, const struct rp_domain_disk *disks,
                         size_t count, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf line = {0};
    rp_buf_printf(&line, "%s disks", call);
    for (size_t i = 0; i < count; i++)
        rp_buf_printf(&line, " %s=%s@%s", disks[i].target, disks[i].export_name, disks[i].socket);
    add_line(hv, "log", rp_buf_text(&line));
    for (size_t i = 0; i < count; i++)
        if (answers(disks[i].socket, err))
            return rp_context(err, "domain %s: disk %s", domain, disks[i].target);
    return 0;
}

// ---- the interface --------------------------------------------------------------------------------------------------

static struct rp_hypervisor *fake_open(const char *uri, struct rp_error *err)
{
    struct stat st;
    if (strncmp(uri, "fake:", 5) || stat(uri + 5, &st) || !S_ISDIR(st.st_mode)) {
        rp_fail(err, RP_ERR_IO, "%s: cannot be reached", uri);
        return NULL;
    }
    struct rp_hypervisor *hv = rp_xcalloc(1, sizeof *hv);
    hv->folder = rp_xstrdup(uri + 5);
    if (!begin(hv, "open", "any", false, err))
        return hv;
    free(hv->folder);
    free(hv);
    return NULL;
}

static void fake_unwatch(struct rp_hypervisor *hv)
{
    if (!hv->watched)
        return;
    hv->leave = true;
    pthread_join(hv->thread, NULL);
    hv->watched = false;
}

static void fake_close(struct rp_hypervisor *hv)
{
    fake_unwatch(hv);
    free(hv->folder);
    free(hv);
}

static int fake_find(struct rp_hypervisor *hv, const char *name, char uuid[RP_GUID_TEXT], char **xml, struct rp_error *err)
{
    if (begin(hv, "find", name, false, err))
        return -1;
    DIR *folder = opendir(hv->folder);
    if (!folder)
        return rp_fail_sys(err, errno, "%s", hv->folder);
    RP_AUTO_FREE char *found = NULL;
    for (struct dirent *entry; !found && (entry = readdir(folder));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".xml") || dot - entry->d_name != RP_GUID_TEXT - 1)
            continue;
        RP_AUTO_FREE char *path = rp_xasprintf("%s/%s", hv->folder, entry->d_name), *text = read_text(path);
        RP_AUTO_FREE char *called = text ? element(text, "name") : NULL;
        if (!text || (strncasecmp(entry->d_name, name, RP_GUID_TEXT - 1) && (!called || strcmp(called, name))))
            continue;
        snprintf(uuid, RP_GUID_TEXT, "%.36s", entry->d_name);
        found = text;
        text = NULL;
    }
    closedir(folder);
    if (!found)
        return rp_fail(err, RP_ERR_NOT_FOUND, "no domain %s", name);
    if (xml) {
        *xml = found;
        found = NULL;
    }
    return 0;
}

static int fake_running_xml(struct rp_hypervisor *hv, const char *domain, char **xml, struct rp_error *err)
{
    RP_AUTO_FREE char *path = file_of(hv, domain, "running"), *kept = file_of(hv, domain, "xml");
    if (begin(hv, "running_xml", domain, false, err) || need(hv, domain, err))
        return -1;
    if (!(ACTIVE & 1u << state_of(hv, domain)))
        return rp_fail(err, RP_ERR_STATE, "domain %s is not running", domain);
    *xml = read_text(access(path, F_OK) ? kept : path);
    return 0;
}

// libvirt's schema (storageFormat); NULL: all are known. malloc'ed
static char *unknown_format(const char *xml)
{
    static const char known[] = " raw dir bochs cloop dmg iso vpc vdi fat vhd ploop luks cow qcow qcow2 qed vmdk ";
    for (const char *tag = xml; (tag = strchr(tag, '<')); tag++) {
        const char *end = strchr(tag, '>'), *type = strstr(tag, " type=");
        if ((strncmp(tag, "<driver ", 8) && strncmp(tag, "<format ", 8)) || !end || !type || type > end)
            continue;
        type += strlen(" type='");
        RP_AUTO_FREE char *format = strndup(type, strcspn(type, "'\"")), *word = rp_xasprintf(" %s ", format);
        if (!strstr(known, word))
            return rp_xstrdup(format);
    }
    return NULL;
}

// True: the definition comes later.
static bool is_late(struct rp_hypervisor *hv, const char *uuid, const char *xml)
{
    RP_AUTO_FREE char *late = rp_xasprintf("%s/late/define", hv->folder), *path = rp_xasprintf("%s/late/%s.xml", hv->folder, uuid);
    return !unlink(late) && !write_text(path, xml, NULL);
}

static void come_late(struct rp_hypervisor *hv, const char *uuid)
{
    RP_AUTO_FREE char *next = rp_xasprintf("%s/late/next", hv->folder), *late = rp_xasprintf("%s/late/%s.xml", hv->folder, uuid);
    RP_AUTO_FREE char *path = file_of(hv, uuid, "xml");
    if (!access(late, F_OK) && !unlink(next) && rename(late, path))
        perror(late);
}

static int fake_define(struct rp_hypervisor *hv, const char *xml, struct rp_error *err)
{
    RP_AUTO_FREE char *uuid = element(xml, "uuid"), *name = element(xml, "name");
    struct rp_guid guid;
    char other[RP_GUID_TEXT];
    if (!uuid || !name || rp_guid_parse(uuid, &guid, NULL))
        return rp_fail(err, RP_ERR_INVALID, "a definition needs a name and a UUID");
    if (begin(hv, "define", uuid, true, err))
        return -1;
    RP_AUTO_FREE char *strange = unknown_format(xml);
    if (strange)
        return rp_fail(err, RP_ERR_INVALID, "domain %s: XML document failed to validate against schema: format %s", uuid, strange);
    if (!fake_find(hv, name, other, NULL, NULL) && strcasecmp(other, uuid))
        return rp_fail(err, RP_ERR_EXISTS, "domain %s has the name %s already", other, name);
    if (is_late(hv, uuid, xml))
        return rp_fail(err, RP_ERR_BUSY, "domain %s: define: does not answer", uuid);
    RP_AUTO_FREE char *path = file_of(hv, uuid, "xml");
    if (write_text(path, xml, err))
        return -1;
    come_late(hv, uuid);
    happened(hv, uuid, RP_DOMAIN_CHANGED);
    return 0;
}

static int fake_undefine(struct rp_hypervisor *hv, const char *domain, bool state_too, struct rp_error *err)
{
    static const char *const always[] = {"xml", "running", "state", "frozen"}, *const with_state[] = {"nvram", "tpm"};
    if (enter(hv, "undefine", domain, REST, err))
        return -1;
    for (size_t i = 0; i < sizeof always / sizeof *always + (state_too ? 2 : 0); i++) {
        RP_AUTO_FREE char *path = file_of(hv, domain, i < sizeof always / sizeof *always ? always[i] : with_state[i - sizeof always / sizeof *always]);
        unlink(path);
    }
    happened(hv, domain, RP_DOMAIN_CHANGED);
    return 0;
}

static int fake_state(struct rp_hypervisor *hv, const char *domain, enum rp_domain_state *state, struct rp_error *err)
{
    if (begin(hv, "state", domain, false, err) || need(hv, domain, err))
        return -1;
    *state = state_of(hv, domain);
    return 0;
}

static void somebody_else(const struct rp_hypervisor *hv, const char *call, const char *domain)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/then/%s", hv->folder, call), *state = read_text(path), *file = file_of(hv, domain, "state");
    if (state && !unlink(path))
        write_text(file, state, NULL);
}

static int move(struct rp_hypervisor *hv, const char *call, const char *domain, unsigned allowed, enum rp_domain_state state,
                enum rp_domain_event event, struct rp_error *err)
{
    if (enter(hv, call, domain, allowed, err) || set_state(hv, domain, state, err))
        return -1;
    happened(hv, domain, event);
    somebody_else(hv, call, domain);
    return 0;
}

static void say(const struct rp_hypervisor *hv, const char *domain)
{
    static const char before[] = "<serial type=\"file\"><source path=\"";
    RP_AUTO_FREE char *words = rp_xasprintf("%s/console", hv->folder), *definition = file_of(hv, domain, "xml");
    RP_AUTO_FREE char *text = read_text(words), *xml = read_text(definition);
    char *path = text && xml ? strstr(xml, before) : NULL;
    if (!path)
        return;
    path += strlen(before);
    path[strcspn(path, "\"")] = 0;
    RP_AUTO_FD int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        perror(path);
}

static int fake_start(struct rp_hypervisor *hv, const char *domain, const struct rp_domain_disk *disks, size_t count, struct rp_error *err)
{
    if (enter(hv, "start", domain, REST, err) || connect_disks(hv, "start", domain, disks, count, err) ||
        set_state(hv, domain, RP_DOMAIN_RUNNING, err))
        return -1;
    say(hv, domain);
    happened(hv, domain, RP_DOMAIN_STARTED);
    return 0;
}

static int is_quick(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    RP_AUTO_FREE char *quick = file_of(hv, domain, "quick");
    return access(quick, F_OK) ? 0 : rp_fail(err, RP_ERR_STATE, "domain %s is not running", domain);
}

static int fake_shut_down(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    RP_AUTO_FREE char *deaf = file_of(hv, domain, "deaf");
    if (!access(deaf, F_OK))
        return enter(hv, "shut_down", domain, LIVE, err);
    return move(hv, "shut_down", domain, LIVE, RP_DOMAIN_OFF, RP_DOMAIN_STOPPED, err) || is_quick(hv, domain, err) ? -1 : 0;
}

static int fake_turn_off(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return move(hv, "turn_off", domain, ACTIVE, RP_DOMAIN_OFF, RP_DOMAIN_STOPPED, err) || is_quick(hv, domain, err) ? -1 : 0;
}

static int fake_pause(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return move(hv, "pause", domain, LIVE, RP_DOMAIN_PAUSED, RP_DOMAIN_CHANGED, err);
}

static int fake_resume(struct rp_hypervisor *hv, const char *domain, bool waiting_only, struct rp_error *err)
{
    if (enter(hv, "resume", domain, waiting_only ? ~0u : LIVE, err))
        return -1;
    if (waiting_only && state_of(hv, domain) != RP_DOMAIN_IO_ERROR)
        return 0;
    if (set_state(hv, domain, RP_DOMAIN_RUNNING, err))
        return -1;
    happened(hv, domain, RP_DOMAIN_CHANGED);
    return 0;
}

static int fake_reset(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return move(hv, "reset", domain, LIVE, RP_DOMAIN_RUNNING, RP_DOMAIN_CHANGED, err);
}

static int fake_save(struct rp_hypervisor *hv, const char *domain, struct rp_error *err)
{
    return move(hv, "save", domain, LIVE, RP_DOMAIN_SAVED, RP_DOMAIN_STOPPED, err);
}

static int fake_reconnect(struct rp_hypervisor *hv, const char *domain, const struct rp_domain_disk *disks, size_t count,
                          unsigned patience_s, struct rp_error *err)
{
    (void)patience_s;
    if (enter(hv, "reconnect", domain, ACTIVE, err) || connect_disks(hv, "reconnect", domain, disks, count, err))
        return -1;
    somebody_else(hv, "reconnect", domain);
    return 0;
}

static int fake_resize(struct rp_hypervisor *hv, const char *domain, const char *target, uint64_t size, struct rp_error *err)
{
    if (enter(hv, "resize", domain, LIVE, err))
        return -1;
    RP_AUTO_FREE char *line = rp_xasprintf("resize disk %s %llu", target, (unsigned long long)size);
    add_line(hv, "log", line);
    return 0;
}

// The file may change meanwhile.
static int wait_for_writes(const struct rp_hypervisor *hv, const char *domain, unsigned timeout_ms, struct rp_error *err)
{
    RP_AUTO_FREE char *path = file_of(hv, domain, "writes");
    for (unsigned waited_ms = 0; waited_ms < timeout_ms; waited_ms += 10) {
        RP_AUTO_FREE char *socket_path = read_text(path);
        if (!socket_path || !answers(socket_path, NULL))
            return 0;
        usleep(10000);
    }
    return rp_fail(err, RP_ERR_IO, "domain %s: its guest agent has not answered for %u ms", domain, timeout_ms);
}

static int fake_freeze(struct rp_hypervisor *hv, const char *domain, unsigned timeout_ms, unsigned *count, struct rp_error *err)
{
    if (enter(hv, "freeze", domain, 1u << RP_DOMAIN_RUNNING, err))
        return -1;
    RP_AUTO_FREE char *path = file_of(hv, domain, "agent"), *agent = read_text(path), *frozen = file_of(hv, domain, "frozen");
    if (agent && !strncmp(agent, "hang", 4)) {
        usleep(timeout_ms * 1000);
        return rp_fail(err, RP_ERR_IO, "domain %s: its guest agent has not answered for %u ms", domain, timeout_ms);
    }
    if (agent && !strncmp(agent, "missing", 7))
        return rp_fail(err, RP_ERR_UNSUPPORTED, "domain %s: no guest agent answers", domain);
    if (!access(frozen, F_OK))
        return rp_fail(err, RP_ERR_STATE, "domain %s: is frozen already", domain);
    if (wait_for_writes(hv, domain, timeout_ms, err))
        return -1;
    if (state_of(hv, domain) != RP_DOMAIN_RUNNING)
        return rp_fail(err, RP_ERR_IO, "domain %s: end of file from its guest agent", domain);
    *count = agent ? (unsigned)atoi(agent) : 2;
    return write_text(frozen, "", err);
}

static int fake_thaw(struct rp_hypervisor *hv, const char *domain, unsigned timeout_ms, unsigned *count, struct rp_error *err)
{
    (void)timeout_ms;
    RP_AUTO_FREE char *frozen = file_of(hv, domain, "frozen"), *path = file_of(hv, domain, "agent"), *agent = read_text(path);
    RP_AUTO_FREE char *writes = file_of(hv, domain, "writes"), *socket_path = read_text(writes);
    if (enter(hv, "thaw", domain, ~0u, err))
        return -1;
    *count = 0;
    if (state_of(hv, domain) == RP_DOMAIN_OFF)
        return 0;
    if (socket_path && answers(socket_path, err))
        return -1;
    *count = unlink(frozen) ? 0 : agent ? (unsigned)atoi(agent) : 2;
    return 0;
}

static int fake_snapshots(struct rp_hypervisor *hv, const char *domain, char **names, struct rp_error *err)
{
    RP_AUTO_FREE char *path = file_of(hv, domain, "snapshots");
    if (begin(hv, "snapshots", domain, false, err) || need(hv, domain, err))
        return -1;
    *names = read_text(path);
    if (!*names)
        *names = rp_xstrdup("");
    (*names)[strcspn(*names, "\n")] = '\0';
    return 0;
}

// ---- events ---------------------------------------------------------------------------------------------------------

static void tell(struct rp_hypervisor *hv, char *line)
{
    char *space = strchr(line, ' ');
    if (!space)
        return;
    *space = '\0';
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (!strcmp(space + 1, events[i]))
            hv->event(hv->context, line, (enum rp_domain_event)i);
}

static void *watcher(void *argument)
{
    struct rp_hypervisor *hv = argument;
    RP_AUTO_FREE char *path = rp_xasprintf("%s/events", hv->folder);
    while (!hv->leave) {
        RP_AUTO_FREE char *text = read_text(path);
        size_t size = text ? strlen(text) : 0;
        while (text && (size_t)hv->seen < size) {
            char *line = text + hv->seen, *end = strchr(line, '\n');
            if (!end)
                break;
            *end = '\0';
            hv->seen += end + 1 - line;
            tell(hv, line);
        }
        usleep(10000);
    }
    return NULL;
}

static int fake_watch(struct rp_hypervisor *hv, rp_domain_event_fn *event, void *context, struct rp_error *err)
{
    struct stat st;
    RP_AUTO_FREE char *path = rp_xasprintf("%s/events", hv->folder);
    if (begin(hv, "watch", "any", false, err))
        return -1;
    hv->event = event;
    hv->context = context;
    hv->seen = stat(path, &st) ? 0 : st.st_size;
    hv->leave = false;
    if (pthread_create(&hv->thread, NULL, watcher, hv))
        return rp_fail(err, RP_ERR_NO_MEMORY, "no thread");
    hv->watched = true;
    return 0;
}

static const struct rp_hypervisor_ops fake_ops = {
    .open = fake_open,
    .close = fake_close,
    .find = fake_find,
    .running_xml = fake_running_xml,
    .define = fake_define,
    .undefine = fake_undefine,
    .state = fake_state,
    .start = fake_start,
    .shut_down = fake_shut_down,
    .turn_off = fake_turn_off,
    .pause = fake_pause,
    .resume = fake_resume,
    .reset = fake_reset,
    .save = fake_save,
    .reconnect = fake_reconnect,
    .resize = fake_resize,
    .freeze = fake_freeze,
    .thaw = fake_thaw,
    .watch = fake_watch,
    .unwatch = fake_unwatch,
    .snapshots = fake_snapshots,
};

__attribute__((visibility("default"))) const struct rp_hypervisor_module rp_hypervisor_module = {RP_HYPERVISOR_VERSION, &fake_ops};
