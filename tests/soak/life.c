#include "life.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "verify.h"

enum { DEADLINE_S = 120 };

bool life_bad(struct life *l, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    if (!l->wrong[0])
        vsnprintf(l->wrong, sizeof l->wrong, format, list);
    va_end(list);
    return false;
}

uint64_t life_chance(struct life *l, uint64_t of) { return draw(&l->random) % of; }
void life_pause(uint64_t us)
{
    struct timespec t = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

bool life_has_room(struct life *l) { return atomic_load(&l->log->header->used) < l->log->header->bytes * 2 / 3; }

uint64_t life_note(struct life *l, enum note_kind kind, struct note n) { return log_note(l->log, kind, &n, sizeof n); }
struct note life_named(const char *text)
{
    struct note n = {0};
    snprintf(n.text, sizeof n.text, "%s", text);
    return n;
}

void life_note_values(struct life *l, enum note_kind kind, const struct note *n, const uint32_t *values)
{
    size_t size = sizeof *n + (size_t)(n->length / SECTOR) * sizeof *values;
    uint8_t *data = malloc(size);
    memcpy(data, n, sizeof *n);
    memcpy(data + sizeof *n, values, size - sizeof *n);
    log_note(l->log, kind, data, size);
    free(data);
}

// ---- programs -------------------------------------------------------------------------------------------------------

char **life_environment(struct life *l)
{
    extern char **environ;
    size_t count = 0;
    while (environ[count])
        count++;
    char **copy = calloc(count + 16, sizeof *copy);
    memcpy(copy, environ, count * sizeof *copy);
    const struct setting *s = l->setting;
    if (asprintf(&copy[count++], "REFPOINT_PLUGIN=%s", s->plugin) < 0 || asprintf(&copy[count++], "REFPOINT_HOST=local:%s", l->host) < 0 ||
        asprintf(&copy[count++], "REFPOINT_REPOSITORY=%s", l->repo) < 0 ||
        asprintf(&copy[count++], "REFPOINT_PASSWORD=%s", PASSPHRASE) < 0 ||
        asprintf(&copy[count++], "XDG_CACHE_HOME=%s/cache", s->directory) < 0)
        abort();
    if (s->recorder && (asprintf(&copy[count++], "LD_PRELOAD=%s", s->recorder) < 0 ||
                        asprintf(&copy[count++], "RECORD_LOG=%s/log", s->directory) < 0))
        abort();
    return copy;
}

void life_use(struct life *l)
{
    snprintf(l->root, sizeof l->root, "%s/root", l->setting->directory);
    snprintf(l->host, sizeof l->host, "%s/host", l->root);
    snprintf(l->repo, sizeof l->repo, "%s/repo", l->root);
    l->environment = life_environment(l);
}

void life_use_vm(struct life *l, const char *id)
{
    snprintf(l->vm_directory, sizeof l->vm_directory, "%s/vms/%s", l->host, id);
    snprintf(l->socket, sizeof l->socket, "%s/nbd.sock", l->vm_directory);
}

// Runs `refpoint` with the words of `line`. A killed one's traces are mended.
int life_refpoint_with(struct life *l, struct command *c, const char *line)
{
    char copy[512], *argv[32] = {(char *)l->setting->refpoint}, *save = NULL;
    size_t count = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        argv[count++] = word;
    c->deadline_s = DEADLINE_S;
    if (!c->environment)
        c->environment = l->environment;
    command_run(c, argv);
    if (l->setting->verbose)
        fprintf(stderr, "  %s: %d %s\n", line, c->status, c->status ? c->output : "");
    l->told_lost |= strstr(c->output, "taken as they were last made durable") != NULL;
    if (c->status == -2)
        return life_bad(l, "refpoint %s: did not end in %d s: %.500s", line, DEADLINE_S, c->output), -2;
    if (c->status >= 128 && log_mend(l->log))
        life_bad(l, "the traces of a killed refpoint %s cannot be mended", line);
    return c->status;
}

bool life_refpoint(struct life *l, const char *line)
{
    struct command c = {0};
    int status = life_refpoint_with(l, &c, line);
    return status == 0 || life_bad(l, "refpoint %s: exit status %d: %.1500s", line, status, c.output);
}

int life_checkpoint(struct life *l, struct command *c, const char *name)
{
    char line[128];
    snprintf(line, sizeof line, "checkpoint create " VM " --name %s", name);
    uint64_t until = rp_clock_monotonic_ns() + 60000000000;
    for (;;) {
        int status = life_refpoint_with(l, c, line);
        bool merging = status == 2 && (strstr(c->output, "a checkpoint is being merged") ||
                                       strstr(c->output, "a checkpoint is waiting to be merged"));
        if (!merging || rp_clock_monotonic_ns() >= until)
            return status;
        life_pause(100000);
    }
}

// The JSON that the command prints, behind what it may log.
json_t *life_refpoint_json(struct life *l, const char *line)
{
    struct command c = {0};
    int status = life_refpoint_with(l, &c, line);
    const char *text = c.output;
    while (!strncmp(text, "refpoint: ", 10) && strchr(text, '\n'))
        text = strchr(text, '\n') + 1;
    json_t *json = status ? NULL : json_loads(text, JSON_DECODE_ANY, NULL);
    if (!json)
        life_bad(l, "refpoint %s: exit status %d: %.1500s", line, status, c.output);
    return json;
}

// The JSON of the last line that is an object.
json_t *life_last_object(char *output)
{
    json_t *json = NULL;
    char *save = NULL;
    for (char *line = strtok_r(output, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *one = *line == '{' ? json_loads(line, 0, NULL) : NULL;
        if (one) {
            json_decref(json);
            json = one;
        }
    }
    return json;
}

pid_t life_service(struct life *l)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t size = sizeof peer;
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/control.sock", l->vm_directory);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool found = fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address) && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    if (fd >= 0)
        close(fd);
    return found ? peer.pid : 0;
}

bool life_sync_failed(struct life *l)
{
    char memory[128], path[160];
    if (verify_memory_of(l->vm_directory, memory, sizeof memory))
        return life_bad(l, "%s: %s", l->vm_directory, strerror(errno));
    snprintf(path, sizeof path, "%s/failed", memory);
    return l->told_lost || !access(path, F_OK);
}

bool life_take_stock(struct life *l)
{
    json_t *list = life_refpoint_json(l, "checkpoint list " VM " --json"), *vm = life_refpoint_json(l, "vm show " VM " --json"), *item;
    size_t i;
    l->checkpoint_count = 0;
    json_array_foreach(list, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && name[0] == 'c' && !json_is_true(json_object_get(item, "merging")))
            snprintf(l->checkpoints[l->checkpoint_count++], sizeof *l->checkpoints, "%s", name);
    }
    json_array_foreach(json_object_get(vm, "disks"), i, item) {
        uint64_t size = (uint64_t)json_integer_value(json_object_get(item, "size"));
        if (i < DISKS && size != l->disks[i].size) {
            life_note(l, NOTE_SIZE, (struct note){.disk = (uint32_t)i, .length = size});
            client_disk_resize(&l->disks[i], size);
        }
    }
    bool good = list && vm;
    json_decref(list);
    json_decref(vm);
    return good;
}

// ---- the guest ------------------------------------------------------------------------------------------------------

void life_guest_start(struct life *l)
{
    l->clients = clients_start(l->log, l->disks, DISKS, l->socket, 2, l->setting->pace ? l->setting->pace : 1500, draw(&l->random));
}

bool life_guest_stop(struct life *l)
{
    struct clients_counts counts = {0};
    const char *wrong = clients_stop(l->clients, &counts);
    l->clients = NULL;
    l->counts->requests += counts.requests;
    l->counts->bytes += counts.bytes;
    l->counts->flushes += counts.flushes;
    l->counts->reads += counts.reads;
    return wrong ? life_bad(l, "%s", wrong) : true;
}

bool life_start(struct life *l)
{
    life_note(l, NOTE_START, (struct note){0});
    if (!life_refpoint(l, "vm start " VM))
        return false;
    l->running = true;
    life_guest_start(l);
    return true;
}

bool life_stop(struct life *l)
{
    if (!life_guest_stop(l))
        return false;
    uint64_t begin = life_note(l, NOTE_FLUSH_BEGIN, (struct note){.disk = UINT32_MAX});
    if (!life_refpoint(l, "vm stop " VM))
        return false;
    life_note(l, NOTE_FLUSH, (struct note){.disk = UINT32_MAX, .offset = begin});
    l->running = false;
    return true;
}
