#include "repo/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "repo/folders.h"
#include "repo/lease_numbers.h"
#include "repo/object.h"

#define SECOND 1000000000ll
#define MOST_AGAIN 8 // puts one after the other that fail and are done

struct rp_lease {
    struct rp_lease *next; // in `living`
    struct rp_repo *repo;
    char *folder;
    json_t *fields;
    struct rp_lease_state mine;
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

bool rp_lease_is_ours(const uint8_t token[16])
{
    pthread_mutex_lock(&living_lock);
    const struct rp_lease *lease = living;
    while (lease && memcmp(lease->mine.token, token, 16))
        lease = lease->next;
    pthread_mutex_unlock(&living_lock);
    return lease != NULL;
}

// ---- generations ----------------------------------------------------------------------------------------------------

static int put_generation(struct rp_lease *lease, uint64_t generation, bool held, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    char name[RP_OBJECT_NAME];
    lease->mine.held = held;
    lease->mine.renewed_ns = rp_clock_wall_ns();
    rp_lease_encode(&lease->mine, lease->fields, &json);
    rp_lease_number_name(lease->folder, generation, name);
    return rp_object_put(lease->repo->backend, lease->repo->crypto, name, json.data, json.size, err);
}

// A generation that is in our way: 1 it is of a put of ours, which was done although it failed; 0 it is not.
static int is_ours(const struct rp_lease *lease, uint64_t generation, struct rp_error *err)
{
    struct rp_error why = {0};
    struct rp_lease_state state;
    if (rp_lease_get(lease->repo, lease->folder, generation, &state, &why)) {
        // One that cannot be read is not ours, as far as we know; nor is one that has gone, with a newer one behind it.
        bool known = why.code == RP_ERR_NOT_FOUND || why.code == RP_ERR_CORRUPT || why.code == RP_ERR_UNSUPPORTED;
        return known ? 0 : rp_fail_as(err, &why);
    }
    bool ours = !memcmp(state.token, lease->mine.token, sizeof state.token);
    rp_lease_state_clear(&state);
    return ours;
}

// Puts the number after `last`, and is its only owner: 0. 1: somebody else was faster, or it had come and gone.
static int put_next(struct rp_lease *lease, uint64_t last, bool held, struct rp_error *err)
{
    struct rp_lease_numbers seen;
    char name[RP_OBJECT_NAME];
    uint64_t mine = last + 1, monotonic;
    for (;;) {
        struct rp_error one = {0};
        monotonic = rp_clock_monotonic_ns();
        if (!put_generation(lease, mine, held, &one))
            break;
        if (one.code != RP_ERR_EXISTS)
            return rp_fail_as(err, &one);
        int ours = is_ours(lease, mine, err);
        if (ours <= 0 || mine > last + MOST_AGAIN)
            return ours < 0 ? -1 : 1;
        mine++; // says when it was put
    }
    // We may have looked long ago, or stood still, and put a number that had come and gone meanwhile: only the highest
    // one counts.
    int looked = rp_lease_list(lease->repo, lease->folder, &seen, err);
    if (looked == 0 && seen.highest == mine) {
        rp_lease_remove_old(lease->repo, &seen, mine);
        lease->generation = mine;
        lease->renewed_wall_ns = lease->mine.renewed_ns;
        lease->renewed_monotonic_ns = monotonic;
        return 0;
    }
    lease->repo->backend->ops->remove(lease->repo->backend, rp_lease_number_name(lease->folder, mine, name), NULL);
    return looked ? -1 : 1;
}

// ---- who holds it ---------------------------------------------------------------------------------------------------

// The clock of the holder's machine can be far ahead of ours, and then tells nothing; nor does a lease that cannot be
// read. But a holder who lives puts a new generation twice a minute: one that we have seen for longer than a lease
// lasts, by our own clock, is stale. When we saw it first is kept in the cache, from one try of the administrator's to
// the next. *kept: it is.
static bool seen_too_long(struct rp_repo *repo, const char *folder, uint64_t generation, uint64_t seconds, bool *kept)
{
    RP_AUTO_FREE char *name = rp_xasprintf("seen-%s", folder);
    name[5 + strcspn(name + 5, "/")] = '-';
    RP_AUTO_FREE char *path = rp_repo_cache_path(repo, name);
    uint64_t then = 0;
    int64_t since = 0, now = rp_clock_wall_ns();
    FILE *file = fopen(path, "re");
    bool known = file && fscanf(file, "%" SCNu64 " %" SCNd64, &then, &since) == 2;
    if (file)
        fclose(file);
    *kept = known && then == generation && since <= now;
    if (*kept)
        return now - since > (int64_t)(seconds + RP_LEASE_GRACE_SECONDS) * SECOND && unlink(path) == 0;
    file = rp_folders_make(repo->cache, NULL) ? NULL : fopen(path, "we");
    if (file) {
        bool written = fprintf(file, "%" PRIu64 " %" PRId64 "\n", generation, now) > 0;
        *kept = fclose(file) == 0 && written;
    }
    return false;
}

static void describe(const struct rp_lease_state *state, struct rp_repo_lock_holder *holder)
{
    static const char *const gone[] = {
        [RP_LEASE_PROCESS_GONE] = ": that process is gone",
        [RP_LEASE_RESTARTED] = ": the machine was started again after that",
        [RP_LEASE_RUN_OUT] = ": has not been heard of for too long",
        [RP_LEASE_LIVES] = "",
    };
    char since[RP_TIME_TEXT];
    enum rp_lease_life life = rp_lease_life(state);
    holder->held = life != RP_LEASE_FREE;
    holder->lives = life == RP_LEASE_LIVES;
    snprintf(holder->text, sizeof holder->text, "%.128s on %.64s (process %" PRIu64 ") since %s%s", state->owner,
             state->host, state->pid, rp_time_format(state->since_ns, since), holder->held ? gone[life] : "");
}

static void describe_unreadable(const struct rp_error *why, struct rp_repo_lock_holder *holder)
{
    *holder = (struct rp_repo_lock_holder){.held = true};
    snprintf(holder->text, sizeof holder->text, "somebody whose lease cannot be read (%.200s)", why->text);
}

// RP_ERR_BUSY when the highest generation is held by somebody alive, or may be. *gone: who held it, and does no more.
static int check_free(struct rp_repo *repo, const char *folder, uint64_t generation, struct rp_repo_lock_holder *gone,
                      struct rp_error *err)
{
    struct rp_error why = {0};
    struct rp_lease_state state;
    uint64_t seconds = RP_LEASE_SECONDS;
    const char *doubt = "it cannot be read";
    if (!rp_lease_get(repo, folder, generation, &state, &why)) {
        describe(&state, gone);
        seconds = state.seconds;
        bool ahead = state.renewed_ns > rp_clock_wall_ns() + RP_LEASE_GRACE_SECONDS * SECOND;
        doubt = ahead ? "the clock there is ahead of ours" : NULL;
        rp_lease_state_clear(&state);
        if (!gone->lives)
            return 0;
    } else if (why.code == RP_ERR_CORRUPT) {
        describe_unreadable(&why, gone);
    } else {
        return rp_fail_as(err, &why);
    }
    bool kept = false;
    if (doubt && seen_too_long(repo, folder, generation, seconds, &kept))
        return 0;
    rp_fail(err, RP_ERR_BUSY, "in use by %s", gone->text);
    if (!doubt)
        return -1;
    if (!kept)
        return rp_context(err, "%s, and that it was seen now cannot be kept in %s: it is not taken over before a "
                          "person ends it (refpoint repo unlock)", doubt, repo->cache);
    return rp_context(err, "%s; it is taken over by a try that finds it unchanged %" PRIu64 " minutes after the "
                      "first one", doubt, (seconds + RP_LEASE_GRACE_SECONDS + 59) / 60);
}

static int changes_too_fast(const char *folder, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_BUSY, "%s changes hands too fast", folder);
}

static int take(struct rp_lease *lease, struct rp_error *err)
{
    for (int attempt = 0; attempt < 16; attempt++) {
        struct rp_lease_numbers seen;
        struct rp_error one = {0};
        struct rp_repo_lock_holder gone = {0};
        if (rp_lease_list(lease->repo, lease->folder, &seen, err))
            return -1;
        if (seen.highest && check_free(lease->repo, lease->folder, seen.highest, &gone, &one)) {
            if (one.code == RP_ERR_NOT_FOUND) // somebody went on and cleaned up
                continue;
            return rp_fail_as(err, &one);
        }
        int put = put_next(lease, seen.highest, true, err);
        if (put > 0) // see who was faster
            continue;
        if (!put && gone.held)
            rp_log(RP_LOG_WARNING, "took over from %s", gone.text);
        return put;
    }
    return changes_too_fast(lease->folder, err);
}

// 1: the generation that was the highest is gone; look again.
static int see_holder(struct rp_repo *repo, const char *folder, uint64_t *highest, struct rp_repo_lock_holder *holder,
                      struct rp_error *err)
{
    struct rp_lease_numbers seen;
    struct rp_error why = {0};
    struct rp_lease_state state;
    *holder = (struct rp_repo_lock_holder){0};
    if (rp_lease_list(repo, folder, &seen, err))
        return -1;
    *highest = seen.highest;
    if (!seen.highest)
        return 0;
    if (!rp_lease_get(repo, folder, seen.highest, &state, &why)) {
        describe(&state, holder);
        memcpy(holder->token, state.token, sizeof holder->token);
        rp_lease_state_clear(&state);
    } else if (why.code == RP_ERR_CORRUPT || why.code == RP_ERR_UNSUPPORTED) {
        describe_unreadable(&why, holder);
        holder->unreadable = seen.highest;
    } else {
        return why.code == RP_ERR_NOT_FOUND ? 1 : rp_fail_as(err, &why);
    }
    return 0;
}

int rp_lease_look(struct rp_repo *repo, const char *folder, struct rp_repo_lock_holder *holder, struct rp_error *err)
{
    uint64_t highest;
    int result = 1;
    for (int attempt = 0; attempt < 16 && result > 0; attempt++)
        result = see_holder(repo, folder, &highest, holder, err);
    return result > 0 ? changes_too_fast(folder, err) : result;
}

// 1: somebody else was faster.
static int try_end(struct rp_lease *ender, struct rp_repo_lock_holder *of, struct rp_error *err)
{
    uint64_t highest;
    struct rp_repo_lock_holder now;
    int seen = see_holder(ender->repo, ender->folder, &highest, &now, err);
    if (seen)
        return seen;
    if (!now.held) {
        *of = now;
        return 0;
    }
    if (now.unreadable != of->unreadable || memcmp(now.token, of->token, sizeof now.token))
        return rp_fail(err, RP_ERR_BUSY, "meanwhile it was taken by %s", now.text);
    return put_next(ender, highest, false, err);
}

int rp_lease_end(struct rp_repo *repo, const char *folder, const char *owner, struct rp_repo_lock_holder *of,
                 struct rp_error *err)
{
    struct rp_lease ender = {.repo = repo, .folder = (char *)(uintptr_t)folder};
    int result = 1;
    rp_lease_state_begin(&ender.mine, owner);
    for (int attempt = 0; attempt < 16 && result > 0; attempt++)
        result = try_end(&ender, of, err);
    rp_lease_state_clear(&ender.mine);
    return result > 0 ? changes_too_fast(folder, err) : result;
}

// Only after this very generation: one who has renewed meanwhile lives.
static bool end_after(struct rp_repo *repo, const char *folder, uint64_t generation)
{
    struct rp_lease ender = {.repo = repo, .folder = (char *)(uintptr_t)folder};
    rp_lease_state_begin(&ender.mine, "whoever ended it: it was not renewed any more");
    bool ended = put_next(&ender, generation, false, NULL) == 0;
    rp_lease_state_clear(&ender.mine);
    return ended;
}

bool rp_lease_has_ended(struct rp_repo *repo, const char *folder)
{
    struct rp_lease_numbers seen;
    struct rp_lease_state state;
    char name[RP_OBJECT_NAME];
    if (rp_lease_list(repo, folder, &seen, NULL) || !seen.highest || rp_lease_get(repo, folder, seen.highest, &state, NULL))
        return false;
    bool ended = !state.held, dead = state.held && rp_lease_is_dead(&state);
    if (dead) { // with nobody who could put the same numbers again
        rp_lease_remove_old(repo, &seen, UINT64_MAX);
        ended = !repo->backend->ops->remove(repo->backend, rp_lease_number_name(folder, seen.highest, name), NULL);
    } else if (!ended && rp_clock_wall_ns() - state.renewed_ns > RP_LEASE_SILENT_SECONDS * SECOND) {
        ended = end_after(repo, folder, seen.highest);
    }
    rp_lease_state_clear(&state);
    return ended;
}

// ---- a held lease ---------------------------------------------------------------------------------------------------

static int renew_locked(struct rp_lease *lease, struct rp_error *err)
{
    int put = lease->lost ? 1 : put_next(lease, lease->generation, true, err);
    if (put <= 0)
        return put;
    lease->lost = true;
    return rp_fail(err, RP_ERR_STATE, "%s was taken over by somebody else", lease->folder);
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
    rp_lease_state_clear(&lease->mine);
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
    lease->fields = json_incref(fields);
    rp_lease_state_begin(&lease->mine, owner);
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

static void remove_generation(const struct rp_lease *lease, uint64_t generation)
{
    char name[RP_OBJECT_NAME];
    lease->repo->backend->ops->remove(lease->repo->backend, rp_lease_number_name(lease->folder, generation, name), NULL);
}

// The highest number last: until then the lower ones mean nothing.
static void remove_folder(const struct rp_lease *lease)
{
    struct rp_lease_numbers seen;
    bool listed = true, more = true;
    for (int again = 0; again < 16 && more && listed; again++) {
        listed = rp_lease_list(lease->repo, lease->folder, &seen, NULL) == 0;
        more = listed && seen.other_count == sizeof seen.others / sizeof seen.others[0]; // as many as are seen at once
        if (listed)
            rp_lease_remove_old(lease->repo, &seen, UINT64_MAX);
    }
    uint64_t last = listed ? seen.highest : lease->generation; // where nobody can tell, what we know of
    for (uint64_t generation = last > 2 ? last - 2 : 1; generation <= last && !more; generation++)
        remove_generation(lease, generation);
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
    if (forget) {
        remove_folder(lease);
    } else if (!lease->lost) {
        put_next(lease, lease->generation, false, NULL); // numbers never go back, so the end of a lease is a generation of its own
    }
    lease_free(lease);
}
