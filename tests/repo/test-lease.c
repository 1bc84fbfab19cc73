// Locks and the leases behind them: who has one, who may take it over and when, and what is no lease at all.
#include "place.h"

#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "faulty.h"
#include "repo/lease.h"
#include "repo/object.h"

static char said[4096]; // the last line of the log

static void take_line(enum rp_log_level level, const char *text)
{
    if (level <= RP_LOG_WARNING)
        snprintf(said, sizeof said, "%s", text);
}

static void a_lock_has_one_holder_and_names_it(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state), *other = place_open(*state);
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm-1", "backup of alpha", &err);
    assert_ok(lock ? 0 : -1, err);
    assert_true(rp_repo_lock_held(lock));
    assert_null(rp_repo_lock_take(other, "vm-1", "second", &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_non_null(strstr(err.text, "backup of alpha"));
    assert_non_null(strstr(err.text, "since 20"));
    rp_error_clear(&err);
    struct rp_repo_lock *elsewhere = rp_repo_lock_take(other, "vm-2", "second", &err);
    assert_ok(elsewhere ? 0 : -1, err);
    rp_repo_lock_release(elsewhere);
    rp_repo_lock_release(lock);
    for (int i = 0; i < 5; i++) { // again and again; little is left behind
        lock = rp_repo_lock_take(other, "vm-1", "second", &err);
        assert_ok(lock ? 0 : -1, err);
        rp_repo_lock_release(lock);
    }
    char folder[200];
    snprintf(folder, sizeof folder, "%s/locks", ((struct place *)*state)->repository);
    assert_true(count_files(folder) <= 2 * 3);
    assert_clean(repo, false);
    rp_repo_close(repo);
    rp_repo_close(other);
}

static void the_lock_of_a_dead_process_is_taken_over_at_once(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    pid_t child = fork();
    if (child == 0) {
        struct rp_repo *repo = rp_repo_open(rp_backend_directory_open(place->repository, false, NULL), PASSPHRASE, place->cache, NULL);
        _exit(repo && rp_repo_lock_take(repo, "vm", "the dead one", NULL) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    struct rp_repo *repo = place_open(place);
    said[0] = 0;
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "the heir", &err);
    assert_ok(lock ? 0 : -1, err);
    assert_non_null(strstr(said, "took over from the dead one on "));
    assert_non_null(strstr(said, "that process is gone"));
    rp_repo_lock_release(lock);
    rp_repo_close(repo);
}

// As with hidepid, and a holder that is another user's process.
static void the_lock_of_a_process_that_cannot_be_seen_is_not_taken_over(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place);
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "the hidden one", &err);
    assert_ok(lock ? 0 : -1, err);
    pid_t child = fork();
    if (child == 0) {
        char hidden[64];
        snprintf(hidden, sizeof hidden, "/proc/%d", (int)getppid());
        if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
            mount(place->cache, hidden, NULL, MS_BIND, NULL))
            _exit(77);
        struct rp_repo *other = place_open(place);
        _exit(!rp_repo_lock_take(other, "vm", "the impatient", &err) && err.code == RP_ERR_BUSY ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    rp_repo_lock_release(lock);
    rp_repo_close(repo);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); // no right to mount
    assert_int_equal(status, 0);
}

static void of_many_takers_of_a_stale_lock_one_wins(void **state)
{
    struct place *place = *state;
    for (int round = 0; round < 5; round++) {
        int results[2];
        assert_int_equal(pipe(results), 0);
        pid_t children[6];
        for (int i = 0; i < 6; i++) {
            children[i] = fork();
            if (children[i])
                continue;
            struct rp_repo *repo = rp_repo_open(rp_backend_directory_open(place->repository, false, NULL), PASSPHRASE, place->cache, NULL);
            struct rp_error err = {0};
            struct rp_repo_lock *lock = repo ? rp_repo_lock_take(repo, "vm", "taker", &err) : NULL;
            char answer = lock ? 'w' : err.code == RP_ERR_BUSY ? 'b' : 'e';
            if (write(results[1], &answer, 1) != 1)
                _exit(1);
            pause(); // holds it until killed: then it is stale for the next round
        }
        int winners = 0;
        for (int i = 0; i < 6; i++) {
            char answer;
            assert_int_equal(read(results[0], &answer, 1), 1);
            assert_true(answer == 'w' || answer == 'b');
            winners += answer == 'w';
        }
        assert_int_equal(winners, 1);
        for (int i = 0; i < 6; i++) {
            kill(children[i], SIGKILL);
            waitpid(children[i], NULL, 0);
        }
        close(results[0]);
        close(results[1]);
    }
}

static void a_lease_of_another_machine_holds_until_it_runs_out(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state);
    place_put_lease(repo, "locks/a", "0000000000000005", "held", 100);
    assert_null(rp_lease_take(repo, "locks/a", "we", NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    rp_error_clear(&err);
    place_put_lease(repo, "locks/b", "0000000000000005", "held", 200);
    struct rp_lease *lease = rp_lease_take(repo, "locks/b", "we", NULL, &err);
    assert_ok(lease ? 0 : -1, err);
    assert_true(rp_lease_held(lease));
    // somebody else puts the next generation: it is lost
    place_put_lease(repo, "locks/b", "0000000000000007", "held", 0);
    assert_int_equal(rp_lease_renew(lease, &err), -1);
    assert_int_equal(err.code, RP_ERR_STATE);
    assert_false(rp_lease_held(lease));
    rp_lease_release(lease, false);
    rp_repo_close(repo);
}

static void a_lease_from_the_future_is_stale_once_it_was_seen_unchanged_for_long_enough(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place);
    char path[300];
    place_put_lease(repo, "locks/a", "0000000000000005", "held", -36000); // renewed in ten hours
    for (int i = 0; i < 2; i++) {
        assert_null(rp_lease_take(repo, "locks/a", "we", NULL, &err));
        assert_int_equal(err.code, RP_ERR_BUSY);
        rp_error_clear(&err);
    }
    // as if we had seen it first some minutes ago; but meanwhile its holder has renewed it
    RP_AUTO_FREE char *seen = rp_repo_cache_path(repo, "seen-locks-a");
    snprintf(path, sizeof path, "%s", seen);
    for (int lives = 1; lives >= 0; lives--) {
        FILE *file = fopen(path, "r+");
        assert_non_null(file);
        fprintf(file, "%d %lld\n", lives ? 5 : 6, (long long)rp_clock_wall_ns() - 181000000000ll);
        fclose(file);
        if (lives)
            place_put_lease(repo, "locks/a", "0000000000000006", "held", -36000);
        struct rp_lease *lease = rp_lease_take(repo, "locks/a", "we", NULL, &err);
        assert_int_equal(lease != NULL, !lives);
        rp_error_clear(&err);
        rp_lease_release(lease, false);
    }
    rp_repo_close(repo);
}

static void one_whose_first_sight_cannot_be_kept_is_never_stale_and_that_is_said(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state);
    place_put_lease(repo, "locks/a", "0000000000000005", "held", -36000);
    assert_null(rp_lease_take(repo, "locks/a", "we", NULL, &err));
    assert_non_null(strstr(err.text, "finds it unchanged 3 minutes after the first one"));
    rp_error_clear(&err);
    RP_AUTO_FREE char *path = rp_repo_cache_path(repo, "seen-locks-a");
    assert_int_equal(unlink(path) | mkdir(path, 0700), 0); // a file that cannot be written, for root neither
    assert_null(rp_lease_take(repo, "locks/a", "we", NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_non_null(strstr(err.text, "cannot be kept in "));
    assert_non_null(strstr(err.text, "refpoint repo unlock"));
    rmdir(path);
    rp_repo_close(repo);
}

// ---- after a power cut ----------------------------------------------------------------------------------------------

static void put_state(struct rp_repo *repo, const char *name, struct rp_lease_state *state)
{
    struct rp_error err = {0};
    RP_CLEANUP(rp_buf_clear) struct rp_buf json = {0};
    rp_lease_encode(state, NULL, &json);
    assert_ok(rp_object_put(repo->backend, repo->crypto, name, json.data, json.size, &err), err);
}

// When this machine was started.
static int64_t boot_ns(void)
{
    struct timespec since;
    assert_int_equal(clock_gettime(CLOCK_BOOTTIME, &since), 0);
    return rp_clock_wall_ns() - (int64_t)since.tv_sec * 1000000000 - since.tv_nsec;
}

static void set_text(char **place, const char *text)
{
    free(*place);
    *place = rp_xstrdup(text);
}

static void what_ran_before_this_machine_was_started_is_taken_over_at_once(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state);
    struct rp_lease_state old;
    rp_lease_state_begin(&old, "a backup of VM web1");
    old.pid_started++; // only the boot tells that it is gone
    if (!old.computer || !*old.computer) {
        rp_lease_state_clear(&old);
        rp_repo_close(repo);
        skip(); // a machine without an id
    }
    RP_AUTO_FREE char *computer = rp_xstrdup(old.computer), *this_boot = rp_xstrdup(old.machine);
    RP_AUTO_FREE char *other_boot = rp_xasprintf("00000000-1111-2222-3333-444444444444%s", strchr(this_boot, '/'));
    RP_AUTO_FREE char *other_namespace = rp_xasprintf("%.36s/1", this_boot);
    const struct {
        const char *machine, *computer;
        bool since; // renewed since we were started
        bool restarted;
    } cases[] = {
        {other_boot, computer, false, true},
        {other_boot, computer, true, false},       // a copy of this machine, which runs beside it
        {other_namespace, computer, false, false}, // a container of this boot
        {other_boot, "", false, false},            // as from before computers were told
        {other_boot, "00000000000000000000000000000000", false, false},
        {"", computer, false, false},
        {"/", computer, false, false},
        {"00000000", computer, false, false},
    };
    old.held = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_text(&old.machine, cases[i].machine);
        set_text(&old.computer, cases[i].computer);
        old.renewed_ns = boot_ns() + (cases[i].since ? 1 : -1) * INT64_C(10000000000);
        assert_int_equal(rp_lease_life(&old) == RP_LEASE_RESTARTED, cases[i].restarted);
        // It may look dead so; but what must never be done under a living holder wants more.
        assert_false(rp_lease_is_dead(&old));
    }
    set_text(&old.machine, other_boot);
    set_text(&old.computer, computer);
    for (int since = 0; since < 2; since++) {
        char folder[64], name[128];
        snprintf(folder, sizeof folder, "locks/%d", since);
        snprintf(name, sizeof name, "%s/0000000000000001", folder);
        old.renewed_ns = since ? rp_clock_wall_ns() : boot_ns() - INT64_C(10000000000);
        put_state(repo, name, &old);
        said[0] = 0;
        struct rp_lease *lease = rp_lease_take(repo, folder, "we", NULL, &err);
        assert_int_equal(lease != NULL, !since);
        assert_int_equal(err.code, since ? RP_ERR_BUSY : RP_OK);
        assert_int_equal(strstr(said, "took over from a backup of VM web1 on ") != NULL, !since);
        assert_int_equal(strstr(said, "the machine was started again after that") != NULL, !since);
        rp_error_clear(&err);
        rp_lease_release(lease, false);
    }
    rp_lease_state_clear(&old);
    rp_repo_close(repo);
}

static void a_lease_whose_put_was_done_although_it_failed_stands_in_nobodys_way(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
    struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err);
    assert_ok(repo ? 0 : -1, err);
    faulty->prefix = "locks/";
    faulty->puts_left = 0;
    faulty->fault = FAULT_AFTER;
    assert_null(rp_repo_lock_take(repo, "vm", "the unlucky one", &err));
    assert_int_not_equal(err.code, RP_ERR_BUSY);
    rp_error_clear(&err);
    faulty->fault = FAULT_NONE;
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "the same again", &err);
    assert_ok(lock ? 0 : -1, err);
    rp_repo_lock_release(lock);
    rp_repo_close(repo);
}

// The fault comes with one put.
static void at_one_put(void *context, const char *name)
{
    struct faulty *faulty = context;
    if (!strncmp(name, "locks/", 6) && faulty->puts_left < 0)
        faulty->fault = FAULT_NONE;
}

static void a_put_that_was_done_although_it_failed_costs_its_holder_nothing(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct faulty *faulty = faulty_new(rp_backend_directory_open(place->repository, false, &err));
    struct rp_repo *repo = rp_repo_open(&faulty->backend, PASSPHRASE, place->cache, &err), *other = place_open(place);
    assert_ok(repo ? 0 : -1, err);
    faulty->prefix = "locks/";
    faulty->before_put = at_one_put;
    faulty->context = faulty;
    faulty->fault = FAULT_EXISTS;
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "who meets himself", &err);
    assert_ok(lock ? 0 : -1, err);
    static const enum fault faults[] = {FAULT_AFTER, FAULT_EXISTS, FAULT_BEFORE, FAULT_EXISTS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        faulty->puts_left = 0;
        faulty->fault = faults[i];
        int failed = rp_repo_lock_confirm(lock, &err);
        assert_int_equal(failed, faults[i] == FAULT_EXISTS ? 0 : -1);
        assert_int_equal(err.code, failed ? RP_ERR_IO : RP_OK);
        rp_error_clear(&err);
        assert_true(rp_repo_lock_held(lock));
        assert_ok(rp_repo_lock_confirm(lock, &err), err);
        assert_null(rp_repo_lock_take(other, "vm", "somebody else", &err));
        assert_int_equal(err.code, RP_ERR_BUSY);
        rp_error_clear(&err);
    }
    // Nor does it keep him from giving it up.
    struct rp_repo_lock_holder holder;
    faulty->puts_left = 0;
    faulty->fault = FAULT_AFTER;
    assert_int_equal(rp_repo_lock_confirm(lock, &err), -1);
    rp_error_clear(&err);
    rp_repo_lock_release(lock);
    assert_ok(rp_repo_lock_look(other, "vm", &holder, &err), err);
    assert_false(holder.held);
    lock = rp_repo_lock_take(other, "vm", "somebody else", &err);
    assert_ok(lock ? 0 : -1, err);
    rp_repo_lock_release(lock);
    rp_repo_close(other);
    rp_repo_close(repo);
}

// ---- what is no lease -----------------------------------------------------------------------------------------------

// As if the reader had first seen this generation some minutes ago.
static void seen_long_ago(struct rp_repo *repo, const char *file, uint64_t generation)
{
    RP_AUTO_FREE char *path = rp_repo_cache_path(repo, file);
    FILE *seen = fopen(path, "w");
    assert_non_null(seen);
    fprintf(seen, "%" PRIu64 " %lld\n", generation, (long long)rp_clock_wall_ns() - 181000000000ll);
    fclose(seen);
}

// Cut off at every byte: nobody knows whose it was, so it counts as held until a holder would have renewed it.
// As `refpoint repo unlock` does it. *was: who it was.
static int end_lease(struct rp_repo *repo, const char *folder, struct rp_repo_lock_holder *was, struct rp_error *err)
{
    return rp_lease_look(repo, folder, was, err) ? -1 : rp_lease_end(repo, folder, "an administrator", was, err);
}

static int end_lock(struct rp_repo *repo, const char *name, struct rp_repo_lock_holder *was, struct rp_error *err)
{
    return rp_repo_lock_look(repo, name, was, err) ? -1 : rp_repo_lock_end(repo, name, "an administrator", was, err);
}

static void a_torn_lease_is_waited_for_like_one_that_lives_and_then_taken_over(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    char path[256];
    struct rp_repo *repo = place_open(place);
    place_put_lease(repo, "locks/a", "0000000000000005", "held", 0);
    snprintf(path, sizeof path, "%s/locks/a/0000000000000005", place->repository);
    for (uint64_t size = file_size(path); size-- > 0;) {
        assert_int_equal(truncate(path, (off_t)size), 0);
        assert_null(rp_lease_take(repo, "locks/a", "we", NULL, &err));
        assert_int_equal(err.code, RP_ERR_BUSY);
        assert_non_null(strstr(err.text, "cannot be read"));
        rp_error_clear(&err);
        struct rp_repo_lock_holder was;
        assert_ok(rp_lease_look(repo, "locks/a", &was, &err), err);
        assert_true(was.held && !was.lives);
    }
    seen_long_ago(repo, "seen-locks-a", 5);
    said[0] = 0;
    struct rp_lease *lease = rp_lease_take(repo, "locks/a", "we", NULL, &err);
    assert_ok(lease ? 0 : -1, err);
    assert_non_null(strstr(said, "took over from somebody whose lease cannot be read"));
    rp_lease_release(lease, false);
    rp_repo_close(repo);
}

static void put_text(struct rp_repo *repo, const char *name, const char *json)
{
    struct rp_error err = {0};
    assert_ok(rp_object_put(repo->backend, repo->crypto, name, json, strlen(json), &err), err);
}

static void a_hostile_lease_is_neither_believed_nor_taken_at_once(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place);
    static const struct {
        const char *json;
        enum rp_code code;
    } cases[] = {
        {"", RP_ERR_BUSY},
        {"[]", RP_ERR_BUSY},
        {"{\"version\":1}", RP_ERR_BUSY},
        {"{\"version\":2}", RP_ERR_UNSUPPORTED},
        {"{\"version\":1,\"state\":\"gone\",\"owner\":\"x\",\"host\":\"h\",\"machine\":\"m\",\"pid\":1,\"pid_started\":1,"
         "\"token\":\"00000000000000000000000000000000\",\"since_ns\":1,\"renewed_ns\":1,\"seconds\":120}", RP_ERR_BUSY},
        {"{\"version\":1,\"state\":\"held\",\"owner\":\"x\",\"host\":\"h\",\"machine\":\"m\",\"pid\":-1,\"pid_started\":1,"
         "\"token\":\"00000000000000000000000000000000\",\"since_ns\":1,\"renewed_ns\":1,\"seconds\":120}", RP_ERR_BUSY},
        {"{\"version\":1,\"state\":\"held\",\"owner\":\"x\",\"host\":\"h\",\"machine\":\"m\",\"computer\":7,\"pid\":1,"
         "\"pid_started\":1,\"token\":\"00000000000000000000000000000000\",\"since_ns\":1,\"renewed_ns\":1,\"seconds\":120}",
         RP_ERR_BUSY},
        {"{\"version\":1,\"state\":\"held\",\"owner\":\"x\",\"host\":\"h\",\"machine\":\"m\",\"pid\":1,\"pid_started\":1,"
         "\"token\":\"00000000000000000000000000000000\",\"since_ns\":1,\"renewed_ns\":9223372036854775807,\"seconds\":86400}",
         RP_ERR_BUSY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[64], name[128];
        struct rp_repo_lock_holder was;
        snprintf(folder, sizeof folder, "locks/%zu", i);
        snprintf(name, sizeof name, "%s/0000000000000001", folder);
        put_text(repo, name, cases[i].json);
        assert_null(rp_lease_take(repo, folder, "we", NULL, &err));
        assert_int_equal(err.code, cases[i].code);
        rp_error_clear(&err);
        // A person may end any of them.
        assert_ok(end_lease(repo, folder, &was, &err), err);
        assert_true(was.held);
        struct rp_lease *lease = rp_lease_take(repo, folder, "we", NULL, &err);
        assert_ok(lease ? 0 : -1, err);
        rp_lease_release(lease, false);
    }
    // Numbers after which there is none, and a folder where the next generation would be.
    static const char *const numbers[] = {"ffffffffffffffff", "7fffffffffffffff"};
    for (size_t i = 0; i < 2; i++) {
        char folder[64];
        snprintf(folder, sizeof folder, "locks/number-%zu", i);
        place_put_lease(repo, folder, numbers[i], "free", 0);
        assert_null(rp_lease_take(repo, folder, "we", NULL, &err));
        assert_int_equal(err.code, RP_ERR_CORRUPT);
        assert_non_null(strstr(err.text, numbers[i]));
        rp_error_clear(&err);
    }
    char path[256];
    place_put_lease(repo, "locks/f", "0000000000000001", "free", 0);
    snprintf(path, sizeof path, "%s/locks/f/0000000000000002", place->repository);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_null(rp_lease_take(repo, "locks/f", "we", NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    rp_repo_close(repo);
}

static void whoever_forgets_a_lease_leaves_nothing_of_it(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place);
    char folder[200];
    snprintf(folder, sizeof folder, "%s/sessions", place->repository);
    for (int lost = 0; lost < 2; lost++) {
        struct rp_lease *lease = rp_lease_take(repo, "sessions/a", "we", NULL, &err);
        assert_ok(lease ? 0 : -1, err);
        for (int i = 0; i < 100; i++)
            assert_ok(rp_lease_renew(lease, &err), err);
        for (int i = 0; i < 70; i++) { // what could not be removed then
            char number[17];
            snprintf(number, sizeof number, "%016x", i + 1);
            place_put_lease(repo, "sessions/a", number, "held", 0);
        }
        if (lost) {
            place_put_lease(repo, "sessions/a", "0000000000000070", "free", 0);
            assert_int_equal(rp_lease_renew(lease, NULL), -1);
        }
        rp_lease_release(lease, true);
        assert_int_equal(count_files(folder), 0);
    }
    rp_repo_close(repo);
}

// ---- ended on purpose -----------------------------------------------------------------------------------------------

static void a_lock_that_somebody_ends_is_free_at_once_and_its_holder_finds_out(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place), *other = place_open(place);
    struct rp_repo_lock_holder was;
    assert_ok(end_lock(other, "vm", &was, &err), err);
    assert_false(was.held);
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "a backup of VM web1", &err);
    assert_ok(lock ? 0 : -1, err);
    assert_ok(rp_repo_lock_confirm(lock, &err), err);
    assert_ok(rp_repo_lock_look(other, "vm", &was, &err), err); // only looks
    assert_true(was.held && was.lives);
    assert_ok(rp_repo_lock_confirm(lock, &err), err);
    assert_ok(end_lock(other, "vm", &was, &err), err);
    assert_true(was.held && was.lives);
    assert_non_null(strstr(was.text, "a backup of VM web1 on "));
    char process[64];
    snprintf(process, sizeof process, "(process %d) since 20", (int)getpid());
    assert_non_null(strstr(was.text, process));
    struct rp_repo_lock *next = rp_repo_lock_take(other, "vm", "the next backup", &err);
    assert_ok(next ? 0 : -1, err);
    assert_int_equal(rp_repo_lock_confirm(lock, &err), -1);
    assert_int_equal(err.code, RP_ERR_STATE);
    assert_false(rp_repo_lock_held(lock));
    rp_repo_lock_release(lock); // does not end the other one's
    rp_error_clear(&err);
    assert_ok(rp_repo_lock_confirm(next, &err), err);
    rp_repo_lock_release(next);
    assert_ok(end_lock(other, "vm", &was, &err), err);
    assert_false(was.held);
    assert_clean(repo, false);
    rp_repo_close(repo);
    rp_repo_close(other);
}

static void only_the_lock_of_the_holder_that_was_looked_at_is_ended(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place), *other = place_open(place);
    struct rp_repo_lock_holder first, gone;
    struct rp_repo_lock *lock = rp_repo_lock_take(repo, "vm", "the first", &err);
    assert_ok(lock ? 0 : -1, err);
    assert_ok(rp_repo_lock_look(other, "vm", &first, &err), err);
    rp_repo_lock_release(lock);
    gone = first;
    assert_ok(rp_repo_lock_end(other, "vm", "an administrator", &gone, &err), err);
    assert_false(gone.held);
    lock = rp_repo_lock_take(repo, "vm", "the second", &err);
    assert_ok(lock ? 0 : -1, err);
    assert_int_equal(rp_repo_lock_end(other, "vm", "an administrator", &first, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_non_null(strstr(err.text, "meanwhile it was taken by the second on "));
    rp_error_clear(&err);
    assert_ok(rp_repo_lock_confirm(lock, &err), err);
    // However often he renews it, the second is the same.
    assert_ok(rp_repo_lock_look(other, "vm", &first, &err), err);
    assert_ok(rp_repo_lock_confirm(lock, &err), err);
    assert_ok(rp_repo_lock_end(other, "vm", "an administrator", &first, &err), err);
    assert_true(first.held);
    assert_int_equal(rp_repo_lock_confirm(lock, &err), -1);
    rp_error_clear(&err);
    rp_repo_lock_release(lock);
    // One that cannot be read is known by its number.
    place_put_lease(repo, "locks/a", "0000000000000005", "held", 0);
    char path[256];
    snprintf(path, sizeof path, "%s/locks/a/0000000000000005", place->repository);
    assert_int_equal(truncate(path, 7), 0);
    assert_ok(rp_lease_look(other, "locks/a", &first, &err), err);
    place_put_lease(repo, "locks/a", "0000000000000006", "held", 0);
    snprintf(path, sizeof path, "%s/locks/a/0000000000000006", place->repository);
    assert_int_equal(truncate(path, 7), 0);
    assert_int_equal(rp_lease_end(other, "locks/a", "an administrator", &first, &err), -1);
    assert_int_equal(err.code, RP_ERR_BUSY);
    rp_error_clear(&err);
    assert_ok(end_lease(other, "locks/a", &first, &err), err);
    rp_repo_close(repo);
    rp_repo_close(other);
}

// The holder's next number is free again, because those of the next one are further on: it must not look held.
static void a_holder_who_was_overtaken_by_far_finds_out(void **state)
{
    struct place *place = *state;
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(place), *other = place_open(place);
    struct rp_repo_lock_holder was;
    for (int renewals = 0; renewals < 4; renewals++)
        for (int done = 0; done < 2; done++) {
            char vm[32];
            snprintf(vm, sizeof vm, "vm-%d-%d", renewals, done);
            struct rp_repo_lock *lock = rp_repo_lock_take(repo, vm, "who stood still", &err);
            assert_ok(lock ? 0 : -1, err);
            assert_ok(end_lock(other, vm, &was, &err), err);
            struct rp_repo_lock *next = rp_repo_lock_take(other, vm, "the next", &err);
            assert_ok(next ? 0 : -1, err);
            for (int i = 0; i < renewals; i++)
                assert_ok(rp_repo_lock_confirm(next, &err), err);
            if (done)
                rp_repo_lock_release(next);
            for (int again = 0; again < 2; again++) {
                assert_int_equal(rp_repo_lock_confirm(lock, &err), -1);
                assert_int_equal(err.code, RP_ERR_STATE);
                rp_error_clear(&err);
                assert_false(rp_repo_lock_held(lock));
            }
            rp_repo_lock_release(lock);
            if (done)
                continue;
            assert_ok(rp_repo_lock_confirm(next, &err), err);
            rp_repo_lock_release(next);
        }
    // Nothing of the late ones stays: two generations each.
    char folder[200];
    snprintf(folder, sizeof folder, "%s/locks", place->repository);
    assert_int_equal(count_files(folder), 2 * 8);
    rp_repo_close(repo);
    rp_repo_close(other);
}

static void the_lock_of_another_machine_is_waited_for_or_ended_by_a_person(void **state)
{
    struct rp_error err = {0};
    struct rp_repo *repo = place_open(*state);
    struct rp_repo_lock_holder was;
    place_put_lease(repo, "locks/a", "0000000000000005", "held", 1);
    assert_null(rp_lease_take(repo, "locks/a", "we", NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    rp_error_clear(&err);
    assert_ok(end_lease(repo, "locks/a", &was, &err), err);
    assert_true(was.held && was.lives);
    assert_non_null(strstr(was.text, "stranger on far (process 1) since "));
    struct rp_lease *lease = rp_lease_take(repo, "locks/a", "we", NULL, &err);
    assert_ok(lease ? 0 : -1, err);
    rp_lease_release(lease, false);
    rp_repo_close(repo);
}

int main(void)
{
    rp_log_set_sink(take_line);
#define WITH(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        WITH(a_lock_has_one_holder_and_names_it),
        WITH(the_lock_of_a_dead_process_is_taken_over_at_once),
        WITH(the_lock_of_a_process_that_cannot_be_seen_is_not_taken_over),
        WITH(of_many_takers_of_a_stale_lock_one_wins),
        WITH(a_lease_of_another_machine_holds_until_it_runs_out),
        WITH(a_lease_from_the_future_is_stale_once_it_was_seen_unchanged_for_long_enough),
        WITH(one_whose_first_sight_cannot_be_kept_is_never_stale_and_that_is_said),
        WITH(what_ran_before_this_machine_was_started_is_taken_over_at_once),
        WITH(a_lease_whose_put_was_done_although_it_failed_stands_in_nobodys_way),
        WITH(a_put_that_was_done_although_it_failed_costs_its_holder_nothing),
        WITH(a_torn_lease_is_waited_for_like_one_that_lives_and_then_taken_over),
        WITH(a_hostile_lease_is_neither_believed_nor_taken_at_once),
        WITH(whoever_forgets_a_lease_leaves_nothing_of_it),
        WITH(a_lock_that_somebody_ends_is_free_at_once_and_its_holder_finds_out),
        WITH(only_the_lock_of_the_holder_that_was_looked_at_is_ended),
        WITH(a_holder_who_was_overtaken_by_far_finds_out),
        WITH(the_lock_of_another_machine_is_waited_for_or_ended_by_a_person),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
