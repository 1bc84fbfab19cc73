#include "repo/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "repo/folders.h"
#include "repo/json.h"
#include "repo/object.h"

#define SECOND 1000000000ll
#define VERSION 1

struct rp_lease {
    struct rp_lease *next; // in `living`
    struct rp_repo *repo;
    char *folder;
    char *owner;
    json_t *fields;
    uint8_t token[16];
    int64_t since_ns;
    pthread_t renewer;
    bool renewer_runs;
    pthread_mutex_t lock; // what follows
    pthread_cond_t end;
    bool ending, lost;
    uint64_t generation;
    int64_t renewed_wall_ns;
    uint64_t renewed_monotonic_ns;
};

// The leases of this process: one that is not here was given up, though perhaps the repository had no room to say so.
static pthread_mutex_t living_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rp_lease *living;

static void live(struct rp_lease *lease)
{
    pthread_mutex_lock(&living_lock);
    lease->next = living;
    living = lease;
    pthread_mutex_unlock(&living_lock);
}

static void die(const struct rp_lease *lease)
{
    pthread_mutex_lock(&living_lock);
    struct rp_lease **at = &living;
    while (*at && *at != lease)
        at = &(*at)->next;
    if (*at)
        *at = lease->next;
    pthread_mutex_unlock(&living_lock);
}

static bool lives(const uint8_t token[16])
{
    pthread_mutex_lock(&living_lock);
    const struct rp_lease *lease = living;
    while (lease && memcmp(lease->token, token, 16))
        lease = lease->next;
    pthread_mutex_unlock(&living_lock);
    return lease != NULL;
}

// ---- this process ---------------------------------------------------------------------------------------------------

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

// ---- the document ---------------------------------------------------------------------------------------------------

static void encode(const struct rp_lease *lease, bool held, int64_t now, struct rp_buf *out)
{
    RP_AUTO_JSON json_t *json = json_object();
    RP_AUTO_FREE char *machine = this_machine();
    uint64_t started = process_started((uint64_t)getpid());
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    rp_json_set_number(json, "version", VERSION);
    rp_json_set_text(json, "state", held ? "held" : "free");
    rp_json_set_text(json, "owner", lease->owner);
    rp_json_set_text(json, "host", host);
    rp_json_set_text(json, "machine", machine);
    rp_json_set_number(json, "pid", (uint64_t)getpid());
    rp_json_set_number(json, "pid_started", started == HIDDEN ? 0 : started);
    rp_json_set_hex(json, "token", lease->token, sizeof lease->token);
    rp_json_set_number(json, "since_ns", (uint64_t)lease->since_ns);
    rp_json_set_number(json, "renewed_ns", (uint64_t)now);
    rp_json_set_number(json, "seconds", RP_LEASE_SECONDS);
    if (lease->fields)
        json_object_update(json, lease->fields);
    rp_json_write(json, out);
}

void rp_lease_state_clear(struct rp_lease_state *state)
{
    free(state->owner);
    free(state->host);
    free(state->machine);
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
    state->owner = rp_json_text(&json, "owner", RP_JSON_TEXT, true);
    state->host = rp_json_text(&json, "host", RP_JSON_TEXT, true);
    state->machine = rp_json_text(&json, "machine", RP_JSON_TEXT, true);
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

static int64_t lasts_ns(const struct rp_lease_state *state)
{
    return (int64_t)(state->seconds + RP_LEASE_GRACE_SECONDS) * SECOND;
}

bool rp_lease_is_dead(const struct rp_lease_state *state)
{
    RP_AUTO_FREE char *machine = this_machine();
    if (!*machine || strcmp(machine, state->machine) || !state->pid_started)
        return false;
    uint64_t started = process_started(state->pid);
    return (started != HIDDEN && started != state->pid_started) ||
           (state->pid == (uint64_t)getpid() && !lives(state->token));
}

bool rp_lease_is_stale(const struct rp_lease_state *state)
{
    if (!state->held || rp_lease_is_dead(state))
        return true;
    int64_t now = rp_clock_wall_ns();
    return now > state->renewed_ns && now - state->renewed_ns > lasts_ns(state);
}

// The clock of the holder's machine can be far ahead of ours, and then tells nothing. But a holder who lives puts a new
// generation twice a minute: one that we have seen for longer than a lease lasts, by our own clock, is stale. When we saw it
// first is kept in the cache, from one try of the administrator's to the next.
static bool seen_too_long(struct rp_repo *repo, const char *folder, uint64_t generation, const struct rp_lease_state *state)
{
    RP_AUTO_FREE char *name = rp_xasprintf("seen-%s", folder), *text = NULL;
    name[5 + strcspn(name + 5, "/")] = '-';
    RP_AUTO_FREE char *path = rp_repo_cache_path(repo, name);
    uint64_t then = 0;
    int64_t since = 0, now = rp_clock_wall_ns();
    text = read_text(path);
    if (sscanf(text, "%" SCNu64 " %" SCNd64, &then, &since) == 2 && then == generation && since <= now)
        return now - since > lasts_ns(state) && unlink(path) == 0;
    FILE *file = rp_folders_make(repo->cache, NULL) ? NULL : fopen(path, "we");
    if (file) {
        fprintf(file, "%" PRIu64 " %" PRId64 "\n", generation, now);
        fclose(file);
    }
    return false;
}

// ---- generations ----------------------------------------------------------------------------------------------------

struct generations {
    const char *folder;
    uint64_t highest;
    uint64_t others[64]; // some lower ones, to be removed
    size_t other_count;
};

static int see_generation(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct generations *seen = context;
    uint8_t number[8];
    uint64_t generation = 0;
    size_t length = strlen(seen->folder);
    if (strncmp(name, seen->folder, length) || name[length] != '/' || strlen(name + length + 1) != 16 ||
        !rp_unhex(name + length + 1, number, 8))
        return 0;
    for (int i = 0; i < 8; i++)
        generation = generation << 8 | number[i];
    uint64_t lower = generation < seen->highest ? generation : seen->highest;
    if (lower && seen->other_count < 64)
        seen->others[seen->other_count++] = lower;
    if (generation > seen->highest)
        seen->highest = generation;
    return 0;
}

static int look(struct rp_repo *repo, const char *folder, struct generations *seen, struct rp_error *err)
{
    *seen = (struct generations){.folder = folder};
    char prefix[RP_OBJECT_NAME];
    snprintf(prefix, sizeof prefix, "%s/", folder);
    return repo->backend->ops->list(repo->backend, prefix, see_generation, seen, err);
}

static const char *generation_name(const char *folder, uint64_t generation, char out[RP_OBJECT_NAME])
{
    snprintf(out, RP_OBJECT_NAME, "%s/%016" PRIx64, folder, generation);
    return out;
}

// The last two stay: a listing that runs while the next one is put must see one of them.
static void remove_old(struct rp_repo *repo, const struct generations *seen, uint64_t newest)
{
    char name[RP_OBJECT_NAME];
    for (size_t i = 0; i < seen->other_count; i++)
        if (seen->others[i] + 1 < newest)
            repo->backend->ops->remove(repo->backend, generation_name(seen->folder, seen->others[i], name), NULL);
}

static int put_generation(struct rp_lease *lease, uint64_t generation, bool held, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    char name[RP_OBJECT_NAME];
    int64_t wall = rp_clock_wall_ns();
    uint64_t monotonic = rp_clock_monotonic_ns();
    encode(lease, held, wall, &json);
    if (rp_object_put(lease->repo->backend, lease->repo->crypto, generation_name(lease->folder, generation, name),
                      json.data, json.size, err))
        return -1;
    lease->generation = generation;
    lease->renewed_wall_ns = wall;
    lease->renewed_monotonic_ns = monotonic;
    return 0;
}

static int busy(const struct rp_lease_state *state, struct rp_error *err)
{
    char since[RP_TIME_TEXT];
    return rp_fail(err, RP_ERR_BUSY, "in use by %s on %s (process %" PRIu64 ") since %s", state->owner, state->host,
                   state->pid, rp_time_format(state->since_ns, since));
}

// RP_ERR_BUSY when the highest generation is held by somebody alive.
static int check_free(struct rp_repo *repo, const char *folder, uint64_t generation, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    struct rp_lease_state state;
    char name[RP_OBJECT_NAME];
    if (rp_object_get(repo->backend, repo->crypto, generation_name(folder, generation, name), &json, err) ||
        rp_lease_decode(json.data, json.size, name, &state, err))
        return -1;
    bool ahead = state.renewed_ns > rp_clock_wall_ns() + RP_LEASE_GRACE_SECONDS * SECOND;
    bool stale = rp_lease_is_stale(&state) || (ahead && seen_too_long(repo, folder, generation, &state));
    int result = stale ? 0 : busy(&state, err);
    if (!stale && ahead)
        rp_context(err, "the clock there is ahead of ours; if it is not renewed within %d minutes, try again",
                   (RP_LEASE_SECONDS + RP_LEASE_GRACE_SECONDS) / 60);
    rp_lease_state_clear(&state);
    return result;
}

static int take(struct rp_lease *lease, struct rp_error *err)
{
    for (int attempt = 0; attempt < 16; attempt++) {
        struct generations seen;
        struct rp_error one = {0};
        if (look(lease->repo, lease->folder, &seen, err))
            return -1;
        if (seen.highest && check_free(lease->repo, lease->folder, seen.highest, &one)) {
            if (one.code == RP_ERR_NOT_FOUND) // somebody went on and cleaned up
                continue;
            return rp_repo_fail_again(err, &one);
        }
        uint64_t mine = seen.highest + 1;
        if (put_generation(lease, mine, true, &one)) {
            if (one.code == RP_ERR_EXISTS) // somebody was faster: see who
                continue;
            return rp_repo_fail_again(err, &one);
        }
        // We may have looked long ago, and put a number that had come and gone meanwhile: only the highest one counts.
        int looked = look(lease->repo, lease->folder, &seen, err);
        if (looked == 0 && seen.highest == mine) {
            remove_old(lease->repo, &seen, mine);
            return 0;
        }
        char name[RP_OBJECT_NAME];
        lease->repo->backend->ops->remove(lease->repo->backend, generation_name(lease->folder, mine, name), NULL);
        if (looked)
            return -1;
    }
    return rp_fail(err, RP_ERR_BUSY, "%s changes hands too fast", lease->folder);
}

// ---- a held lease ---------------------------------------------------------------------------------------------------

static int renew_locked(struct rp_lease *lease, struct rp_error *err)
{
    struct rp_error one = {0};
    if (lease->lost)
        return rp_fail(err, RP_ERR_STATE, "%s was taken over by somebody else", lease->folder);
    uint64_t old = lease->generation;
    if (put_generation(lease, old + 1, true, &one)) {
        if (one.code != RP_ERR_EXISTS)
            return rp_repo_fail_again(err, &one);
        lease->lost = true;
        return rp_fail(err, RP_ERR_STATE, "%s was taken over by somebody else", lease->folder);
    }
    char name[RP_OBJECT_NAME];
    if (old > 1)
        lease->repo->backend->ops->remove(lease->repo->backend, generation_name(lease->folder, old - 1, name), NULL);
    return 0;
}

static void *renew(void *argument)
{
    struct rp_lease *lease = argument;
    pthread_mutex_lock(&lease->lock);
    unsigned wait = RP_LEASE_RENEW_SECONDS;
    while (!lease->ending && !lease->lost) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += wait;
        if (pthread_cond_timedwait(&lease->end, &lease->lock, &until) != ETIMEDOUT)
            continue;
        wait = renew_locked(lease, NULL) ? 5 : RP_LEASE_RENEW_SECONDS;
    }
    pthread_mutex_unlock(&lease->lock);
    return NULL;
}

int rp_lease_renew(struct rp_lease *lease, struct rp_error *err)
{
    pthread_mutex_lock(&lease->lock);
    int result = renew_locked(lease, err);
    pthread_mutex_unlock(&lease->lock);
    return result;
}

bool rp_lease_held(struct rp_lease *lease)
{
    pthread_mutex_lock(&lease->lock);
    // Both clocks: one stands still while the machine sleeps, the other can be set back.
    int64_t lasts = RP_LEASE_SECONDS * SECOND;
    bool held = !lease->lost && rp_clock_monotonic_ns() - lease->renewed_monotonic_ns < (uint64_t)lasts &&
                rp_clock_wall_ns() - lease->renewed_wall_ns < lasts;
    pthread_mutex_unlock(&lease->lock);
    return held;
}

static void lease_free(struct rp_lease *lease)
{
    die(lease);
    free(lease->folder);
    free(lease->owner);
    json_decref(lease->fields);
    pthread_mutex_destroy(&lease->lock);
    pthread_cond_destroy(&lease->end);
    free(lease);
}

struct rp_lease *rp_lease_take(struct rp_repo *repo, const char *folder, const char *owner, json_t *fields,
                               struct rp_error *err)
{
    struct rp_lease *lease = rp_xcalloc(1, sizeof *lease);
    lease->repo = repo;
    lease->folder = rp_xstrdup(folder);
    lease->owner = rp_xstrdup(owner);
    lease->fields = json_incref(fields);
    lease->since_ns = rp_clock_wall_ns();
    rp_crypto_random(lease->token, sizeof lease->token);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&lease->end, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&lease->lock, NULL);
    live(lease);
    if (take(lease, err)) {
        lease_free(lease);
        return NULL;
    }
    lease->renewer_runs = pthread_create(&lease->renewer, NULL, renew, lease) == 0;
    if (!lease->renewer_runs) {
        rp_fail(err, RP_ERR_NO_MEMORY, "cannot start the thread that renews a lease");
        rp_lease_release(lease, false);
        return NULL;
    }
    return lease;
}

void rp_lease_release(struct rp_lease *lease, bool forget)
{
    if (!lease)
        return;
    pthread_mutex_lock(&lease->lock);
    lease->ending = true;
    pthread_cond_signal(&lease->end);
    pthread_mutex_unlock(&lease->lock);
    if (lease->renewer_runs)
        pthread_join(lease->renewer, NULL);
    struct rp_backend *backend = lease->repo->backend;
    char name[RP_OBJECT_NAME];
    uint64_t last = lease->generation;
    if (forget && !lease->lost) {
        for (uint64_t generation = last > 2 ? last - 2 : 1; generation <= last; generation++)
            backend->ops->remove(backend, generation_name(lease->folder, generation, name), NULL);
    } else if (!lease->lost && put_generation(lease, last + 1, false, NULL) == 0 && last > 1) {
        // Numbers never go back, so the end of a lease is a generation of its own.
        backend->ops->remove(backend, generation_name(lease->folder, last - 1, name), NULL);
    }
    lease_free(lease);
}
