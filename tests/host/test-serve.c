// The disk service of a VM that a hypervisor runs: who starts it and ends it, and when, though others do so at the same time.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "diskservice/engine.h"
#include "diskservice/service.h"
#include "host/domain.h"
#include "run-kit.h"

static char job[RP_HOST_ID], result[RP_HOST_ID];

static bool starts_and_stays; // by the callbacks below, in a thread of none
static struct world *served;
static void when_ready(void *context)
{
    (void)context;
    struct rp_host_connection *other = rp_host_local_open_resident(served->host, false, &served->err);
    struct rp_host_kept kept = {0};
    kit_ok(!other || rp_host_local_keep(other, served->dk.vm, false, false, &kept, &served->err), served->err);
    starts_and_stays = dk_serves(&served->dk); // its domain is off, but somebody holds it
    rp_host_close(other);
}
static int at_once(void *context)
{
    (void)context;
    return 1;
}

static void a_service_that_somebody_holds_stays_until_he_lets_go(void **state)
{
    struct world *w = served = *state;
    const struct rp_host_serving serving = {.ready = when_ready, .stop = at_once};
    kit_ok(rp_host_local_serve(w->c, w->dk.vm, NULL, &serving, &w->err), w->err);
    assert_true(starts_and_stays);
    assert_false(dk_serves(&w->dk));
    kit_ok(rp_host_local_serve(w->c, w->dk.vm, NULL, NULL, &w->err), w->err);
    assert_true(dk_serves(&w->dk));
    rk_keep(w, false, false);
    assert_false(dk_serves(&w->dk)); // nobody held that one
}

static void who_only_starts_a_service_waits_for_who_is_about_to_end_it(void **state)
{
    struct world *w = *state;
    int status = -1;
    RP_AUTO_FREE char *path = kit_path("%s/" RP_LOCAL_HOLD, w->dk.directory);
    kit_ok(rp_host_local_serve(w->c, w->dk.vm, NULL, NULL, &w->err), w->err);
    int held = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(flock(held, LOCK_EX), 0);
    pid_t starter = fork();
    if (starter == 0) {
        close(held);
        struct rp_host_connection *other = rp_host_local_open_resident(w->host, false, NULL);
        _exit(!other || rp_host_local_serve(other, w->dk.vm, NULL, NULL, NULL));
    }
    sleep(1);
    assert_int_equal(waitpid(starter, &status, WNOHANG), 0);
    kit_ok(rp_service_stop(w->dk.directory, &w->err), w->err);
    close(held);
    assert_int_equal(waitpid(starter, &status, 0), starter);
    assert_int_equal(status, 0);
    assert_true(dk_serves(&w->dk));
}

// Ends the service that is there as somebody else would, and starts the next one.
static void replace(void *context)
{
    struct world *w = context;
    kit_ok(rp_service_stop(w->dk.directory, &w->err), w->err);
    kit_ok(rp_service_start(w->dk.directory, &w->err), w->err);
}
static int third_time(void *context)
{
    (void)context;
    static int asked;
    return ++asked > 2;
}

static void who_stays_with_a_service_stays_with_the_next_one(void **state)
{
    struct world *w = served = *state;
    const struct rp_host_serving serving = {.ready = replace, .stop = third_time, .context = w};
    kit_ok(rp_host_local_serve(w->c, w->dk.vm, w->dk.uuid, &serving, &w->err), w->err);
    assert_false(dk_serves(&w->dk));
}

static void a_service_is_ended_by_its_process_and_no_other_is(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    int process = rp_service_process(w->dk.directory, &w->err);
    assert_true(process >= 0);
    replace(w);
    kit_ok(rp_service_end(w->dk.directory, process, &w->err), w->err);
    assert_true(dk_serves(&w->dk));
    close(process);
}

// The disk service of the last run is still being ended by systemd when the domain starts again: the hypervisor, which the starter
// waits for with the VM's lock, asks for the disks.
static void a_start_has_its_disks_though_their_service_ends_meanwhile(void **state)
{
    struct world *w = *state;
    dk_slow(&w->dk, "start", "100000");
    pid_t starter = fork();
    if (starter == 0) {
        struct rp_host_connection *other = rp_host_local_open_resident(w->host, false, NULL);
        _exit(!other || other->ops->request_state(other, w->dk.vm, RP_VM_RUNNING, job, result, NULL));
    }
    assert_true(dk_until(dk_serves(&w->dk)));
    kit_ok(rp_host_local_unserve(w->c, w->dk.vm, w->dk.uuid, &w->err), w->err);
    alarm(60);
    kit_ok(rp_host_local_serve(w->c, w->dk.vm, w->dk.uuid, NULL, &w->err), w->err);
    alarm(0);
    assert_false(dk_is(&w->dk, "running")); // it has waited for nobody
    dk_slow(&w->dk, "start", NULL);
    int status = -1;
    assert_int_equal(waitpid(starter, &status, 0), starter);
    assert_int_equal(status, 0);
    assert_true(dk_is(&w->dk, "running") && dk_serves(&w->dk));
}

static void a_domain_that_is_started_again_at_once_keeps_its_disks(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *call;
        enum rp_vm_state asked;
    } ends[] = {{"turn_off", RP_VM_OFF}, {"save", RP_VM_SAVED}};
    becomes(w, RP_VM_RUNNING);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        dk_then(&w->dk, ends[i].call, "running");
        becomes(w, ends[i].asked);
        assert_true(dk_is(&w->dk, "running") && dk_serves(&w->dk));
    }
}

static void what_its_user_pauses_meanwhile_stays_paused(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    dk_put(&w->dk, "state", "waiting for a disk");
    dk_then(&w->dk, "reconnect", "paused"); // between the look and the help
    rk_keep(w, true, false);
    assert_true(dk_is(&w->dk, "paused"));
}

static void a_killed_service_is_back_before_its_hypervisor_answers(void **state)
{
    struct world *w = *state;
    struct rp_host_kept kept = {0};
    becomes(w, RP_VM_RUNNING);
    dk_fail(&w->dk, "state.always", "busy it does not answer");
    dk_kill(&w->dk);
    kit_fails(rp_host_local_keep(w->c, w->dk.vm, false, false, &kept, &w->err), w->err, RP_ERR_BUSY);
    assert_true(kept.live && kept.acted && !kept.at_work);
    assert_true(dk_serves(&w->dk));
    // One that was ended in order is not brought back: its domain had ended.
    kit_ok(rp_service_stop(w->dk.directory, &w->err), w->err);
    kept.acted = false;
    kit_fails(rp_host_local_keep(w->c, w->dk.vm, false, false, &kept, &w->err), w->err, RP_ERR_BUSY);
    assert_true(!kept.live && !kept.at_work && !dk_serves(&w->dk));
    dk_fail(&w->dk, "state.always", NULL);
}

// In place of a disk service that somebody ends: its socket is gone, and it takes its time to close its disks. With `told`, who ends
// it waits for it; else somebody has sent it a signal.
static pid_t end_slowly(struct world *w, bool told)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        RP_AUTO_FREE char *shm = rp_engine_shm_directory(rp_fs_posix(), w->dk.directory);
        int folder = open(w->dk.directory, O_RDONLY | O_DIRECTORY);
        if (told && flock(folder, LOCK_EX))
            _exit(1);
        struct rp_engine *engine = rp_engine_open(rp_fs_posix(), w->dk.directory, shm, NULL);
        if (!engine || write(ready[1], "", 1) != 1)
            _exit(2);
        sleep(1);
        _exit(rp_engine_close(engine, NULL) ? 3 : 0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void a_service_that_is_being_ended_is_not_taken_for_one_that_was_killed(void **state)
{
    struct world *w = *state;
    for (int told = 0; told < 2; told++) {
        struct rp_host_kept kept = {0};
        int status = -1;
        pid_t ending = end_slowly(w, told);
        assert_true(rp_engine_left_behind(rp_fs_posix(), w->dk.directory)); // so it seems
        kit_ok(rp_host_local_rescue(w->c, w->dk.vm, &kept, &w->err), w->err);
        assert_true(!kept.acted && !kept.served && !dk_serves(&w->dk));
        assert_int_equal(waitpid(ending, &status, 0), ending);
        assert_int_equal(status, 0);
    }
}

static void what_a_rescue_did_belongs_to_the_look_after_it(void **state)
{
    struct world *w = *state;
    struct rp_host_kept kept = {0};
    becomes(w, RP_VM_RUNNING);
    dk_kill(&w->dk);
    kit_ok(rp_host_local_rescue(w->c, w->dk.vm, &kept, &w->err), w->err);
    assert_true(kept.acted && dk_serves(&w->dk));
    // So that it cannot be connected yet is no failure: what becomes of it is seen at the next look.
    dk_fail(&w->dk, "reconnect", "io no");
    kit_ok(rp_host_local_keep(w->c, w->dk.vm, true, false, &kept, &w->err), w->err);
    assert_true(kept.acted);
    // A domain that is gone leaves nothing behind.
    dk_kill(&w->dk);
    kept = (struct rp_host_kept){0};
    kit_ok(rp_host_local_rescue(w->c, w->dk.vm, &kept, &w->err), w->err);
    dk_fail(&w->dk, "state", "not-found no domain");
    kit_fails(rp_host_local_keep(w->c, w->dk.vm, false, false, &kept, &w->err), w->err, RP_ERR_NOT_FOUND);
    assert_false(dk_serves(&w->dk));
}

// Whoever waits for the hypervisor has the VM's lock.
static void a_service_that_dies_while_its_hypervisor_takes_its_time_is_back(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *call;
        enum rp_vm_state asked;
        const char *becomes;
    } steps[] = {{"pause", RP_VM_PAUSED, "paused"}, {"resume", RP_VM_RUNNING, "running"}, {"reset", RP_VM_RESET, "running"},
                 {"save", RP_VM_SAVED, "saved"}, {"shut_down", RP_VM_SHUT_DOWN, "off"}, {"turn_off", RP_VM_OFF, "off"}};
    RP_AUTO_FREE char *path = kit_path("%s/lock", w->host);
    int fd = rp_lock_open(path, &w->err);
    const struct rp_local_vm vm = {.row = 1};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct rp_host_kept kept = {0};
        int status = -1;
        if (!dk_serves(&w->dk))
            becomes(w, RP_VM_RUNNING);
        dk_slow(&w->dk, steps[i].call, "100000");
        pid_t asker = fork();
        if (asker == 0) {
            struct rp_host_connection *other = rp_host_local_open_resident(w->host, false, NULL);
            _exit(!other || other->ops->request_state(other, w->dk.vm, steps[i].asked, job, result, NULL));
        }
        assert_true(dk_until(rp_lock_is_taken(fd, RP_LOCAL_SERVABLE(&vm))));
        dk_kill(&w->dk);
        kit_fails(rp_host_local_keep(w->c, w->dk.vm, false, false, &kept, &w->err), w->err, RP_ERR_BUSY);
        assert_true(kept.at_work && dk_serves(&w->dk));
        dk_slow(&w->dk, steps[i].call, NULL);
        assert_int_equal(waitpid(asker, &status, 0), asker);
        assert_int_equal(status, 0);
        assert_true(dk_is(&w->dk, steps[i].becomes));
        assert_int_equal(dk_serves(&w->dk), !strcmp(steps[i].becomes, "paused") || !strcmp(steps[i].becomes, "running"));
    }
    close(fd);
}

static void a_domain_without_disks_needs_no_service(void **state)
{
    struct world *w = *state;
    kit_ok(w->c->ops->remove_disk(w->c, w->dk.vm, 0, job, result, &w->err), w->err);
    becomes(w, RP_VM_RUNNING);
    struct rp_host_kept kept = rk_keep(w, true, true);
    assert_true(kept.live && !kept.served && !kept.acted);
}

static void a_disk_that_its_guest_has_is_not_taken_away_by_a_removal_that_was_killed(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    dk_sql(&w->dk, "UPDATE disk SET state = 'removing'");
    kit_ok(rp_host_local_recover(w->c, &w->err), w->err);
    assert_int_equal(rp_host_local_is_unfinished(w->c, &w->err), 1);
    becomes(w, RP_VM_OFF);
    assert_int_equal(rp_host_local_is_unfinished(w->c, &w->err), 0);
}

static void a_service_that_is_stopped_keeps_nobody_waiting_for_ever(void **state)
{
    struct world *w = *state;
    becomes(w, RP_VM_RUNNING);
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), w->dk.directory, &w->err);
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    kit_ok(!service || rp_service_info(service, &info, &w->err), w->err);
    assert_int_equal(kill(info.pid, SIGSTOP), 0);
    alarm(100); // blocked, the test ends here
    for (int i = 0; i < 10; i++)
        assert_int_equal(rk_shown(w, NULL), RP_VM_RUNNING);
    assert_int_equal(rp_service_process(w->dk.directory, &w->err), -1);
    assert_int_equal(w->err.code, RP_ERR_BUSY);
    rp_error_clear(&w->err);
    alarm(0);
    assert_int_equal(kill(info.pid, SIGCONT), 0);
    becomes(w, RP_VM_OFF);
}

static void a_service_that_is_stopped_keeps_no_vm_locked_for_ever(void **state)
{
    struct world *w = *state;
    int64_t row = 0;
    becomes(w, RP_VM_RUNNING);
    dk_sql(&w->dk, "INSERT INTO snapshot (id, vm, name, type, consistency, time, operation, state) SELECT 'one', row, 'x', 0, 0, 0,"
                   " '77777777-8b1f-4a6e-9d50-3f2a7b1c0d11', 'creating' FROM vm");
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), w->dk.directory, &w->err);
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    kit_ok(!service || rp_service_info(service, &info, &w->err), w->err);
    assert_int_equal(kill(info.pid, SIGSTOP), 0);
    alarm(100); // blocked, the test ends here
    kit_ok(rp_host_local_recover(w->c, &w->err), w->err);
    alarm(0);
    assert_int_equal(rp_host_local_is_unfinished(w->c, &w->err), 1); // nobody has it locked, and nothing is concluded
    assert_int_equal(rp_db_number(rp_local_of(w->c)->db, &w->err, &row, "SELECT count(*) FROM snapshot WHERE state = 'creating'", ""), 0);
    assert_int_equal(row, 1);
    assert_int_equal(kill(info.pid, SIGCONT), 0);
    kit_ok(rp_host_local_recover(w->c, &w->err), w->err);
    assert_int_equal(rp_host_local_is_unfinished(w->c, &w->err), 0);
}

static int no_more(void *asked, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    return ++*(int *)asked;
}

static void finishing_what_was_interrupted_can_be_ended(void **state)
{
    struct world *w = *state;
    int asked = 0;
    dk_sql(&w->dk, "INSERT INTO snapshot (id, vm, name, type, consistency, time, operation, state) SELECT 'one', row, 'x', 0, 0, 0,"
                   " '77777777-8b1f-4a6e-9d50-3f2a7b1c0d11', 'creating' FROM vm");
    w->c->progress = no_more;
    w->c->progress_context = &asked;
    kit_fails(rp_host_local_recover(w->c, &w->err), w->err, RP_ERR_CANCELLED);
    assert_int_equal(asked, 1);
    assert_int_equal(rp_host_local_is_unfinished(w->c, &w->err), 1);
    w->c->progress = NULL;
    kit_ok(rp_host_local_recover(w->c, &w->err), w->err);
    assert_int_equal(rp_host_local_is_unfinished(w->c, &w->err), 0);
}

static void *open_slowly(void *uri)
{
    return rp_local_domain_open_uri(uri, NULL);
}

static void a_hypervisor_that_hangs_when_it_is_opened_is_in_no_others_way(void **state)
{
    struct world *w = *state;
    pthread_t opener;
    void *hv = NULL;
    struct dk hanging = {.folder = kit_folder()};
    RP_AUTO_FREE char *uri = kit_path("fake:%s", hanging.folder), *slow = kit_path("%s/slow", hanging.folder);
    assert_int_equal(mkdir(slow, 0700), 0);
    dk_slow(&hanging, "open", "1000000");
    assert_int_equal(pthread_create(&opener, NULL, open_slowly, uri), 0);
    usleep(300000);
    alarm(60); // blocked, the test ends here
    becomes(w, RP_VM_RUNNING);
    alarm(0);
    dk_slow(&hanging, "open", NULL);
    pthread_join(opener, &hv);
    assert_non_null(hv);
    kit_remove_folder(hanging.folder);
}

static void a_new_database_is_its_owners_alone(void **state)
{
    struct world *w = *state;
    struct stat st;
    char *folder = kit_folder();
    RP_AUTO_FREE char *db = kit_path("%s/host.db", folder);
    mode_t before = umask(0);
    struct rp_host_connection *host = rp_host_local_open(folder, &w->err);
    umask(before);
    kit_ok(!host, w->err);
    assert_int_equal(stat(db, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    rp_host_close(host);
    kit_remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_service_that_somebody_holds_stays_until_he_lets_go),
        TEST(who_only_starts_a_service_waits_for_who_is_about_to_end_it),
        TEST(who_stays_with_a_service_stays_with_the_next_one),
        TEST(a_service_is_ended_by_its_process_and_no_other_is),
        TEST(a_start_has_its_disks_though_their_service_ends_meanwhile),
        TEST(a_domain_that_is_started_again_at_once_keeps_its_disks),
        TEST(what_its_user_pauses_meanwhile_stays_paused),
        TEST(a_killed_service_is_back_before_its_hypervisor_answers),
        TEST(a_service_that_is_being_ended_is_not_taken_for_one_that_was_killed),
        TEST(what_a_rescue_did_belongs_to_the_look_after_it),
        TEST(a_service_that_dies_while_its_hypervisor_takes_its_time_is_back),
        TEST(a_domain_without_disks_needs_no_service),
        TEST(a_disk_that_its_guest_has_is_not_taken_away_by_a_removal_that_was_killed),
        TEST(a_service_that_is_stopped_keeps_nobody_waiting_for_ever),
        TEST(a_service_that_is_stopped_keeps_no_vm_locked_for_ever),
        TEST(finishing_what_was_interrupted_can_be_ended),
        TEST(a_hypervisor_that_hangs_when_it_is_opened_is_in_no_others_way),
        TEST(a_new_database_is_its_owners_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
