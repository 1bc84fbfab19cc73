// What a generation of a lease says, and whether its holder still lives.
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "repo/json.h"
#include "repo/lease.h"

#define SECOND 1000000000ll
#define VERSION 1

// ---- this process and its machine -----------------------------------------------------------------------------------

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "re");
    char text[1024];
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    while (size && text[size - 1] == '\n')
        size--;
    text[size] = 0;
    return rp_xstrdup(text);
}

// Two processes with the same machine text see each other's process ids.
static char *this_machine(void)
{
    struct stat st;
    RP_AUTO_FREE char *boot = read_text("/proc/sys/kernel/random/boot_id");
    if (!*boot || stat("/proc/self/ns/pid", &st))
        return rp_xstrdup("");
    return rp_xasprintf("%s/%" PRIu64, boot, (uint64_t)st.st_ino);
}

// The machine over its restarts. Copies of one image often have one machine id, so that its host name, and what its
// firmware calls it, where we may read that, must agree as well. Hashed: a machine id is nobody else's business.
static char *this_computer(void)
{
    uint8_t digest[32];
    char host[256] = "", hex[RP_HEX(16)];
    RP_AUTO_FREE char *id = read_text("/etc/machine-id"), *board = read_text("/sys/class/dmi/id/product_uuid");
    if (strlen(id) != 32 || gethostname(host, sizeof host - 1) || !*host)
        return rp_xstrdup("");
    RP_AUTO_FREE char *all = rp_xasprintf("refpoint computer\n%s\n%s\n%s\n", id, host, board);
    rp_crypto_sha256(all, strlen(all), digest);
    return rp_xstrdup(rp_hex(digest, 16, hex));
}

#define NO_PROCESS 0
#define HIDDEN UINT64_MAX

// When the process started, in the kernel's ticks. HIDDEN: it runs, but its /proc entry is kept from us (hidepid).
static uint64_t process_started(uint64_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%" PRIu64 "/stat", pid);
    RP_AUTO_FREE char *text = read_text(path);
    if (!*text)
        return kill((pid_t)pid, 0) && errno == ESRCH ? NO_PROCESS : HIDDEN;
    char *p = strrchr(text, ')'); // the name before it may hold anything
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    // a zombie holds nothing any more
    const char *state = strrchr(text, ')');
    if (!p || !state || state[1] != ' ' || state[2] == 'Z' || state[2] == 'X')
        return NO_PROCESS;
    return strtoull(p + 1, NULL, 10);
}

void rp_lease_state_begin(struct rp_lease_state *state, const char *owner)
{
    char host[256] = "";
    uint64_t started = process_started((uint64_t)getpid());
    gethostname(host, sizeof host - 1);
    *state = (struct rp_lease_state){
        .owner = rp_xstrdup(owner),
        .host = rp_xstrdup(host),
        .machine = this_machine(),
        .computer = this_computer(),
        .pid = (uint64_t)getpid(),
        .pid_started = started == HIDDEN ? 0 : started,
        .since_ns = rp_clock_wall_ns(),
        .seconds = RP_LEASE_SECONDS,
    };
    rp_crypto_random(state->token, sizeof state->token);
}

// ---- the document ---------------------------------------------------------------------------------------------------

void rp_lease_encode(const struct rp_lease_state *state, json_t *fields, struct rp_buf *out)
{
    RP_AUTO_JSON json_t *json = json_object();
    rp_json_set_number(json, "version", VERSION);
    rp_json_set_text(json, "state", state->held ? "held" : "free");
    rp_json_set_text(json, "owner", state->owner);
    rp_json_set_text(json, "host", state->host);
    rp_json_set_text(json, "machine", state->machine);
    rp_json_set_text(json, "computer", state->computer);
    rp_json_set_number(json, "pid", state->pid);
    rp_json_set_number(json, "pid_started", state->pid_started);
    rp_json_set_hex(json, "token", state->token, sizeof state->token);
    rp_json_set_number(json, "since_ns", (uint64_t)state->since_ns);
    rp_json_set_number(json, "renewed_ns", (uint64_t)state->renewed_ns);
    rp_json_set_number(json, "seconds", state->seconds);
    if (fields)
        json_object_update(json, fields);
    rp_json_write(json, out);
}

void rp_lease_state_clear(struct rp_lease_state *state)
{
    free(state->owner);
    free(state->host);
    free(state->machine);
    free(state->computer);
    *state = (struct rp_lease_state){0};
}

int rp_lease_decode(const void *text, size_t size, const char *name, struct rp_lease_state *state, struct rp_error *err)
{
    *state = (struct rp_lease_state){0};
    RP_AUTO_JSON json_t *root = rp_json_parse(text, size, name, err);
    if (!root)
        return -1;
    struct rp_json json = {root, name, err, false};
    uint64_t version = rp_json_number(&json, "version", INT64_MAX, true);
    if (!json.failed && version != VERSION)
        return rp_fail(err, RP_ERR_UNSUPPORTED, "%s: version %llu of the lease format", name, (unsigned long long)version);
    RP_AUTO_FREE char *held = rp_json_text(&json, "state", RP_JSON_TEXT, true);
    state->held = held && !strcmp(held, "held");
    if (held && !state->held && strcmp(held, "free"))
        rp_json_fail(&json, "state", "is neither held nor free");
    state->owner = rp_json_text(&json, "owner", RP_JSON_TEXT, true);
    state->host = rp_json_text(&json, "host", RP_JSON_TEXT, true);
    state->machine = rp_json_text(&json, "machine", RP_JSON_TEXT, true);
    state->computer = rp_json_text(&json, "computer", RP_JSON_TEXT, false); // older ones have none
    state->pid = rp_json_number(&json, "pid", INT32_MAX, true);
    state->pid_started = rp_json_number(&json, "pid_started", INT64_MAX, true);
    state->since_ns = (int64_t)rp_json_number(&json, "since_ns", INT64_MAX, true);
    state->renewed_ns = (int64_t)rp_json_number(&json, "renewed_ns", INT64_MAX, true);
    state->seconds = rp_json_number(&json, "seconds", 24 * 3600, true);
    rp_json_hex(&json, "token", state->token, sizeof state->token);
    if (!json.failed)
        return 0;
    rp_lease_state_clear(state);
    return -1;
}

// ---- does its holder live? ------------------------------------------------------------------------------------------

bool rp_lease_is_dead(const struct rp_lease_state *state)
{
    RP_AUTO_FREE char *machine = this_machine();
    if (!*machine || strcmp(machine, state->machine) || !state->pid_started)
        return false;
    uint64_t started = process_started(state->pid);
    return (started != HIDDEN && started != state->pid_started) ||
           (state->pid == (uint64_t)getpid() && !rp_lease_is_ours(state->token));
}

// When this machine was started, by its clock of now.
static int64_t boot_ns(void)
{
    struct timespec since;
    clock_gettime(CLOCK_BOOTTIME, &since);
    return rp_clock_wall_ns() - (int64_t)since.tv_sec * SECOND - since.tv_nsec;
}

// Our machine, in an earlier boot of it: nothing of that time runs any more. A copy of it, which has all its names,
// runs beside it; but it renews what it holds, and what was renewed since our start is not of an earlier boot of ours.
static bool was_restarted(const struct rp_lease_state *state)
{
    RP_AUTO_FREE char *computer = this_computer(), *machine = this_machine();
    size_t boot = strcspn(machine, "/"), theirs = strcspn(state->machine, "/");
    return *computer && state->computer && !strcmp(computer, state->computer) && boot && boot == theirs &&
           memcmp(machine, state->machine, boot) && state->renewed_ns < boot_ns();
}

enum rp_lease_life rp_lease_life(const struct rp_lease_state *state)
{
    int64_t now = rp_clock_wall_ns(), lasts = (int64_t)(state->seconds + RP_LEASE_GRACE_SECONDS) * SECOND;
    if (!state->held)
        return RP_LEASE_FREE;
    if (rp_lease_is_dead(state))
        return RP_LEASE_PROCESS_GONE;
    if (was_restarted(state))
        return RP_LEASE_RESTARTED;
    return now > state->renewed_ns && now - state->renewed_ns > lasts ? RP_LEASE_RUN_OUT : RP_LEASE_LIVES;
}
