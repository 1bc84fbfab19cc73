// A guest that is frozen for a checkpoint, with a hypervisor of files (fake-hypervisor.c) that fails, hangs and is slow: it is
// thawed in time, whatever happens, and what is said of the checkpoint is true.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "diskservice/service.h"
#include "host-kit.h"
#include "host/local.h"

#define DOMAIN "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
enum { PATIENCE_MS = 30000 }; // for what must happen, however busy the machine is

struct world {
    char *host, *fake, *raw, *frozen;
    char vm[RP_HOST_ID], id[RP_HOST_ID], job[RP_HOST_ID];
    struct rp_host_connection *c;
    struct rp_error err;
};

static uint64_t now_ms(void) { return rp_clock_monotonic_ns() / 1000000; }

static bool is_there(const char *path) { return !access(path, F_OK); }

// False: it did not happen in time.
static bool wait_until(const char *path, bool there)
{
    for (uint64_t until = now_ms() + PATIENCE_MS; is_there(path) != there; usleep(1000))
        if (now_ms() > until)
            return false;
    return true;
}

static void lay(const struct world *w, const char *name, const char *text)
{
    RP_AUTO_FREE char *path = kit_path("%s/%s", w->fake, name);
    kit_write_file(path, text, strlen(text));
}

static void take(const struct world *w, const char *name)
{
    RP_AUTO_FREE char *path = kit_path("%s/%s", w->fake, name);
    unlink(path);
}

// ---- the checkpoint of the disks, in which things happen ------------------------------------------------------------

enum plan { AS_IT_IS, STUCK_BEFORE, STUCK_AFTER, FAILS, TURNED_OFF, THAWED, UNSERVED, KILLED, STOPPED };
static struct {
    enum plan plan;
    struct world *w;
    rp_engine_switched_fn *switched;
    void *context;
    bool frozen_at_switch, thawed_in_time;
} during;

static void when_switched(void *context)
{
    (void)context;
    during.frozen_at_switch = is_there(during.w->frozen);
    during.switched(during.context);
    if (during.plan == STUCK_AFTER) // as if the durability took long
        during.thawed_in_time = wait_until(during.w->frozen, false);
}

static void kill_service(const struct world *w)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, w->vm);
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), directory, &err);
    kit_ok(!service || rp_service_info(service, &info, &err), err);
    assert_true(info.pid > 1);
    assert_int_equal(kill(info.pid, SIGKILL), 0);
    while (!kill(info.pid, 0))
        usleep(1000);
}

int __real_rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched,
                                 void *context, struct rp_engine_checkpoint *result, struct rp_error *err);
int __wrap_rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched,
                                 void *context, struct rp_engine_checkpoint *result, struct rp_error *err);
int __wrap_rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched,
                                 void *context, struct rp_engine_checkpoint *result, struct rp_error *err)
{
    during.switched = switched;
    during.context = context;
    switch (during.plan) {
    case STUCK_BEFORE: during.thawed_in_time = wait_until(during.w->frozen, false); break;
    case FAILS: return rp_fail(err, RP_ERR_BUSY, "a merge is running: on purpose");
    case TURNED_OFF: lay(during.w, DOMAIN ".state", "off"); unlink(during.w->frozen); break;
    case UNSERVED: kill_service(during.w); break;
    case THAWED: unlink(during.w->frozen); break;
    case KILLED: raise(SIGKILL); break;
    case STOPPED: raise(SIGSTOP); break;
    default: break;
    }
    return __real_rp_service_checkpoint(service, operation, switched ? when_switched : NULL, NULL, result, err);
}

// ---- a VM with a domain ---------------------------------------------------------------------------------------------

static void adopt(const struct world *w)
{
    sqlite3 *db;
    RP_AUTO_FREE char *path = kit_path("%s/host.db", w->host);
    RP_AUTO_FREE char *sql = kit_path("UPDATE vm SET hypervisor = 'fake:%s', domain = '" DOMAIN "'", w->fake);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    lay(w, DOMAIN ".xml", "<domain><name>web1</name><uuid>" DOMAIN "</uuid></domain>");
    lay(w, DOMAIN ".state", "running");
}

// `folder`: of the hypervisor, in that of the host. "embed" is one to which only one process at a time is connected.
static struct world *set_up(const char *folder)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    w->host = kit_folder();
    w->fake = kit_path("%s/%s", w->host, folder);
    w->raw = kit_path("%s/disk.raw", w->host);
    w->frozen = kit_path("%s/" DOMAIN ".frozen", w->fake);
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"", "/fail", "/slow"};
        RP_AUTO_FREE char *path = kit_path("%s%s", w->fake, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    kit_raw(w->raw, 2 * RP_MIB, 1);
    w->c = rp_host_local_open(w->host, &w->err);
    assert_non_null(w->c);
    const char *disk = w->raw;
    kit_ok(w->c->ops->define_system(w->c, "web1", &disk, 1, NULL, NULL, w->job, w->vm, &w->err), w->err);
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, w->vm);
    kit_ok(rp_service_start(directory, &w->err), w->err);
    adopt(w);
    memset(&during, 0, sizeof during);
    during.w = w;
    return w;
}

static int setup(void **state)
{
    *state = set_up("fake");
    return 0;
}

static int setup_exclusive(void **state)
{
    *state = set_up("embed");
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, w->vm);
    rp_service_stop(directory, NULL);
    rp_host_close(w->c);
    kit_remove_folder(w->host);
    free(w->fake);
    free(w->raw);
    free(w->frozen);
    free(w);
    return 0;
}

static int make_checkpoint(struct world *w)
{
    return w->c->ops->create_snapshot(w->c, w->vm, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_APPLICATION, "t", w->job, w->id, &w->err);
}

// There is exactly this one, and it says this of itself. `reason` "": nothing.
static void check_reached(struct world *w, enum rp_consistency reached, const char *reason)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
    assert_int_equal(list.count, 1);
    const char *said = list.items[0].consistency_reason;
    if (list.items[0].consistency != reached || !*reason != !said || (said && !strstr(said, reason)))
        fail_msg("consistency %d because \"%s\", expected %d because \"%s\"", (int)list.items[0].consistency, said ? said : "",
                 (int)reached, reason);
    assert_false(is_there(w->frozen));
}

// Nothing is left of the one that failed: not frozen, no checkpoint, and the next is made.
static void check_nothing_left(struct world *w)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    assert_false(is_there(w->frozen));
    during.plan = AS_IT_IS;
    kit_ok(w->c->ops->create_snapshot(w->c, w->vm, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "next", w->job, w->id, &w->err), w->err);
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.items[0].name, "next");
}

static unsigned count_in_log(const struct world *w, const char *call)
{
    RP_AUTO_FREE char *path = kit_path("%s/log", w->fake);
    FILE *file = fopen(path, "r");
    char line[256];
    unsigned count = 0;
    while (file && fgets(line, sizeof line, file))
        count += !strncmp(line, call, strlen(call)) && line[strlen(call)] == ' ';
    if (file)
        fclose(file);
    return count;
}

static unsigned count_watchdogs(const struct world *w)
{
    unsigned count = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(proc));) {
        char line[1024] = "";
        RP_AUTO_FREE char *path = kit_path("/proc/%s/cmdline", entry->d_name);
        RP_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, line, sizeof line - 1) : 0;
        for (ssize_t i = 0; i < n - 1; i++)
            line[i] = line[i] ? line[i] : ' ';
        count += strstr(line, "refpoint-thaw ") && strstr(line, w->fake);
    }
    closedir(proc);
    return count;
}

static void until_no_watchdog(const struct world *w)
{
    for (uint64_t until = now_ms() + PATIENCE_MS; count_watchdogs(w); usleep(5000))
        assert_true(now_ms() < until);
}

static pid_t checkpoint_in_child(struct world *w, enum plan plan)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    struct rp_host_connection *c = rp_host_local_open(w->host, NULL);
    during.plan = plan;
    c->frozen_ms = w->c->frozen_ms;
    w->c = c;
    _exit(make_checkpoint(w) ? 1 : 0);
}

// ---- all goes well --------------------------------------------------------------------------------------------------

static void the_guest_is_frozen_at_the_switch_and_thawed_before_the_durability(void **state)
{
    struct world *w = *state;
    during.plan = STUCK_AFTER;
    kit_ok(make_checkpoint(w), w->err);
    assert_true(during.frozen_at_switch);
    assert_true(during.thawed_in_time);
    check_reached(w, RP_CONSISTENCY_APPLICATION, "");
    assert_int_equal(count_in_log(w, "freeze"), 1);
    assert_int_equal(count_in_log(w, "thaw"), 1);
    until_no_watchdog(w);
}

static void who_asks_for_crash_consistency_freezes_nobody(void **state)
{
    struct world *w = *state;
    kit_ok(w->c->ops->create_snapshot(w->c, w->vm, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "t", w->job, w->id, &w->err), w->err);
    check_reached(w, RP_CONSISTENCY_CRASH, "");
    assert_int_equal(count_in_log(w, "freeze"), 0);
}

static void a_vm_that_does_not_run_is_taken_as_it_is(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *state;
        enum rp_consistency reached;
        const char *reason;
    } cases[] = {
        {"off", RP_CONSISTENCY_APPLICATION, "off"}, {"paused", RP_CONSISTENCY_CRASH, "paused"},
        {"saved", RP_CONSISTENCY_CRASH, "saved"}, {"waiting for a disk", RP_CONSISTENCY_CRASH, "waiting for a disk"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lay(w, DOMAIN ".state", cases[i].state);
        kit_ok(make_checkpoint(w), w->err);
        check_reached(w, cases[i].reached, cases[i].reason);
        RP_AUTO_FREE char *path = kit_path("%s/" DOMAIN ".state", w->fake);
        char now[64] = "", result[RP_HOST_ID];
        RP_AUTO_FD int fd = open(path, O_RDONLY);
        assert_true(read(fd, now, sizeof now - 1) > 0);
        assert_string_equal(now, cases[i].state); // paused by its user, it stays so
        kit_ok(w->c->ops->destroy_snapshot(w->c, w->id, w->job, result, &w->err), w->err);
        assert_int_equal(rp_host_wait_merge(w->c, w->vm, PATIENCE_MS, &w->err), 0);
    }
    assert_int_equal(count_in_log(w, "freeze"), 0);
}

// ---- the agent fails ------------------------------------------------------------------------------------------------

static void an_agent_that_is_missing_or_refuses_leaves_no_checkpoint(void **state)
{
    struct world *w = *state;
    lay(w, DOMAIN ".agent", "missing");
    kit_fails(make_checkpoint(w), w->err, RP_ERR_UNSUPPORTED);
    take(w, DOMAIN ".agent");
    lay(w, "fail/freeze", "state the hook /etc/qemu/fsfreeze-hook failed");
    assert_int_equal(make_checkpoint(w), -1);
    assert_non_null(strstr(w->err.text, "fsfreeze-hook"));
    rp_error_clear(&w->err);
    check_nothing_left(w);
}

static void an_agent_that_hangs_is_given_up_within_the_limit_and_thawed(void **state)
{
    struct world *w = *state;
    w->c->frozen_ms = 400;
    lay(w, DOMAIN ".agent", "hang");
    kit_fails(make_checkpoint(w), w->err, RP_ERR_IO);
    assert_true(count_in_log(w, "thaw") >= 1); // nobody knows what it did
    take(w, DOMAIN ".agent");
    check_nothing_left(w);
    // Nor whether it does it yet.
    lay(w, DOMAIN ".frozen", "");
    assert_true(wait_until(w->frozen, false));
    until_no_watchdog(w);
}

static void a_freeze_that_happens_when_who_asked_for_it_has_gone_is_undone(void **state)
{
    struct world *w = *state;
    int status;
    w->c->frozen_ms = 400;
    lay(w, DOMAIN ".agent", "hang");
    pid_t child = checkpoint_in_child(w, AS_IT_IS);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    take(w, DOMAIN ".agent");
    unsigned before = count_in_log(w, "thaw");
    for (uint64_t until = now_ms() + PATIENCE_MS; count_in_log(w, "thaw") == before; usleep(5000)) // one thaws nothing
        assert_true(now_ms() < until);
    lay(w, DOMAIN ".frozen", "");
    assert_true(wait_until(w->frozen, false));
    until_no_watchdog(w);
}

static void without_a_hypervisor_or_a_watchdog_nothing_is_frozen(void **state)
{
    struct world *w = *state;
    lay(w, "fail/state", "io no connection");
    kit_fails(make_checkpoint(w), w->err, RP_ERR_IO);
    RP_AUTO_FREE char *program = rp_xstrdup(getenv("REFPOINT_THAW") ? getenv("REFPOINT_THAW") : "");
    setenv("REFPOINT_THAW", "/nonexistent", 1);
    assert_int_equal(make_checkpoint(w), -1);
    rp_error_clear(&w->err);
    setenv("REFPOINT_THAW", "/bin/true", 1);
    kit_fails(make_checkpoint(w), w->err, RP_ERR_IO);
    setenv("REFPOINT_THAW", program, 1);
    lay(w, "fail/open", "permission who are you"); // we are connected: it is the watchdog that is refused
    assert_int_equal(make_checkpoint(w), -1);
    assert_non_null(strstr(w->err.text, "who are you"));
    rp_error_clear(&w->err);
    assert_int_equal(count_in_log(w, "freeze"), 0);
    check_nothing_left(w);
}

// ---- the limit ------------------------------------------------------------------------------------------------------

static void a_slow_checkpoint_does_not_keep_the_guest_frozen(void **state)
{
    struct world *w = *state;
    w->c->frozen_ms = 300;
    during.plan = STUCK_BEFORE;
    kit_ok(make_checkpoint(w), w->err);
    assert_true(during.thawed_in_time); // while the checkpoint was stuck
    check_reached(w, RP_CONSISTENCY_CRASH, "thawed before the checkpoint");
}

static void a_freeze_that_takes_all_the_time_is_thawed_at_once(void **state)
{
    struct world *w = *state;
    w->c->frozen_ms = 300;
    lay(w, "slow/freeze", "500");
    during.plan = STUCK_BEFORE;
    kit_ok(make_checkpoint(w), w->err);
    assert_true(during.thawed_in_time);
    check_reached(w, RP_CONSISTENCY_CRASH, "thawed before the checkpoint");
}

static void a_slow_thaw_is_not_called_in_time(void **state)
{
    struct world *w = *state;
    w->c->frozen_ms = 6000;
    lay(w, "slow/thaw", "6100");
    kit_ok(make_checkpoint(w), w->err);
    check_reached(w, RP_CONSISTENCY_CRASH, "at most 6000 are allowed");
}

static void a_thaw_that_fails_is_tried_again(void **state)
{
    struct world *w = *state;
    lay(w, "fail/thaw", "busy the agent is at something else");
    kit_ok(make_checkpoint(w), w->err);
    assert_int_equal(count_in_log(w, "thaw"), 2);
    check_reached(w, RP_CONSISTENCY_APPLICATION, "");
}

static void a_thaw_that_fails_for_long_goes_on_when_the_checkpoint_is_over(void **state)
{
    struct world *w = *state;
    lay(w, "fail/thaw.always", "unsupported no answer");
    kit_ok(make_checkpoint(w), w->err);
    assert_true(is_there(w->frozen));
    take(w, "fail/thaw.always");
    assert_true(wait_until(w->frozen, false));
    check_reached(w, RP_CONSISTENCY_CRASH, "does not answer the thaw");
    until_no_watchdog(w);
}

static void a_checkpoint_that_fails_thaws(void **state)
{
    struct world *w = *state;
    during.plan = FAILS;
    kit_fails(make_checkpoint(w), w->err, RP_ERR_BUSY);
    assert_int_equal(count_in_log(w, "freeze"), 1);
    check_nothing_left(w);
}

static void a_guest_that_is_turned_off_while_frozen_is_crash_consistent(void **state)
{
    struct world *w = *state;
    during.plan = TURNED_OFF;
    kit_ok(make_checkpoint(w), w->err);
    check_reached(w, RP_CONSISTENCY_CRASH, "turned off");
}

static void a_guest_that_somebody_else_thaws_or_that_froze_nothing_is_crash_consistent(void **state)
{
    struct world *w = *state;
    char result[RP_HOST_ID];
    during.plan = THAWED;
    kit_ok(make_checkpoint(w), w->err);
    check_reached(w, RP_CONSISTENCY_CRASH, "somebody else thawed");
    kit_ok(w->c->ops->destroy_snapshot(w->c, w->id, w->job, result, &w->err), w->err);
    assert_int_equal(rp_host_wait_merge(w->c, w->vm, PATIENCE_MS, &w->err), 0);
    during.plan = AS_IT_IS;
    lay(w, DOMAIN ".agent", "0");
    kit_ok(make_checkpoint(w), w->err);
    check_reached(w, RP_CONSISTENCY_CRASH, "froze no file system");
}

static void a_disk_service_that_dies_while_the_guest_is_frozen_is_started_for_the_thaw(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *nbd = kit_path("%s/vms/%s/nbd.sock", w->host, w->vm);
    lay(w, DOMAIN ".writes", nbd);
    during.plan = UNSERVED;
    assert_int_equal(make_checkpoint(w), -1);
    rp_error_clear(&w->err);
    check_nothing_left(w);
    kill_service(w); // nor does it have to be there before
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(make_checkpoint(w), w->err);
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.items[1].consistency, RP_CONSISTENCY_APPLICATION);
}

// Once the guest is being frozen, which waits for a disk.
static void *kill_in_the_freeze(void *argument)
{
    struct world *w = argument;
    RP_AUTO_FREE char *nbd = kit_path("%s/vms/%s/nbd.sock", w->host, w->vm);
    for (uint64_t until = now_ms() + PATIENCE_MS; !count_in_log(w, "freeze") && now_ms() < until; usleep(1000))
        continue;
    kill_service(w);
    lay(w, DOMAIN ".writes", nbd);
    return NULL;
}

static void a_disk_service_that_dies_while_the_guest_is_being_frozen_is_started_for_the_freeze(void **state)
{
    struct world *w = *state;
    pthread_t killer;
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    w->c->frozen_ms = PATIENCE_MS;
    lay(w, DOMAIN ".writes", "/nonexistent");
    assert_int_equal(pthread_create(&killer, NULL, kill_in_the_freeze, w), 0);
    kit_ok(make_checkpoint(w), w->err);
    pthread_join(killer, NULL);
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.items[0].consistency, RP_CONSISTENCY_APPLICATION);
    assert_false(is_there(w->frozen));
}

// As when its QEMU is killed, which waits for a disk.
static void *end_in_the_freeze(void *argument)
{
    struct world *w = argument;
    for (uint64_t until = now_ms() + PATIENCE_MS; !count_in_log(w, "freeze") && now_ms() < until; usleep(1000))
        continue;
    lay(w, DOMAIN ".state", "off");
    take(w, DOMAIN ".writes");
    return NULL;
}

static void a_guest_that_ends_while_it_is_being_frozen_is_not_thawed_after_its_next_start(void **state)
{
    struct world *w = *state;
    pthread_t killer;
    w->c->frozen_ms = PATIENCE_MS;
    lay(w, DOMAIN ".writes", "/nonexistent");
    assert_int_equal(pthread_create(&killer, NULL, end_in_the_freeze, w), 0);
    assert_int_equal(make_checkpoint(w), -1);
    rp_error_clear(&w->err);
    pthread_join(killer, NULL);
    lay(w, DOMAIN ".state", "running");
    unsigned thaws = count_in_log(w, "thaw");
    usleep(700000); // whoever thaws on does it five times a second
    assert_int_equal(count_in_log(w, "thaw"), thaws);
    until_no_watchdog(w);
    kit_ok(make_checkpoint(w), w->err);
    check_reached(w, RP_CONSISTENCY_APPLICATION, "");
}

static void a_process_that_cannot_thaw_is_helped_by_the_watchdog(void **state)
{
    struct world *w = *state;
    RP_AUTO_FREE char *mine = kit_path("fail/thaw.%d", (int)getpid());
    w->c->frozen_ms = 300;
    lay(w, mine, "busy no thread");
    kit_ok(make_checkpoint(w), w->err);
    assert_true(wait_until(w->frozen, false));
    take(w, mine);
    check_reached(w, RP_CONSISTENCY_CRASH, "does not answer the thaw");
    until_no_watchdog(w);
}

// ---- the process that froze it dies, or hangs -----------------------------------------------------------------------

static void a_process_that_is_killed_while_frozen_is_followed_by_the_watchdog(void **state)
{
    struct world *w = *state;
    int status;
    pid_t child = checkpoint_in_child(w, KILLED);
    assert_int_equal(waitpid(child, &status, 0), child);
    uint64_t killed = now_ms();
    assert_true(WIFSIGNALED(status) && count_in_log(w, "freeze") == 1);
    assert_true(wait_until(w->frozen, false));
    print_message("thawed %llu ms after the kill\n", (unsigned long long)(now_ms() - killed));
    assert_int_equal(count_in_log(w, "thaw"), 1);
    // Whoever comes next ends what was begun, and knows nothing of the guest.
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->create_snapshot(w->c, w->vm, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "next", w->job, w->id, &w->err), w->err);
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.items[0].consistency, RP_CONSISTENCY_CRASH);
    assert_non_null(strstr(list.items[0].consistency_reason, "interrupted"));
}

static void a_stuck_process_does_not_keep_the_guest_frozen(void **state)
{
    struct world *w = *state;
    int status;
    w->c->frozen_ms = 3000;
    pid_t child = checkpoint_in_child(w, STOPPED);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status) && is_there(w->frozen));
    assert_true(wait_until(w->frozen, false));
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0); // it lives, and knows that it was too late
    check_reached(w, RP_CONSISTENCY_CRASH, "thawed before the checkpoint");
}

static void a_stuck_process_that_keeps_everybody_else_out_is_killed(void **state)
{
    struct world *w = *state;
    int status;
    w->c->frozen_ms = 3000;
    pid_t child = checkpoint_in_child(w, STOPPED);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status) && is_there(w->frozen));
    assert_true(wait_until(w->frozen, false));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

// The disk service dies in the freeze, which waits for a disk, and the next one takes longer to start than the guest may be frozen.
static void a_disk_service_that_starts_slowly_keeps_no_guest_frozen(void **state)
{
    struct world *w = *state;
    int status;
    RP_AUTO_FREE char *program = kit_path("%s/nbdkit", w->host), *begun = kit_path("%s/begun", w->host);
    RP_AUTO_FREE char *before = rp_xstrdup(getenv("PATH")), *path = kit_path("%s:%s", w->host, before);
    static const char script[] = "#!/bin/sh\nPATH=${PATH#*:}\n: > \"${0%/*}/begun\"\nsleep 10\nexec nbdkit \"$@\"\n";
    kit_write_file(program, script, sizeof script - 1);
    assert_int_equal(chmod(program, 0700), 0);
    w->c->frozen_ms = 6000;
    lay(w, DOMAIN ".writes", "/nonexistent");
    setenv("PATH", path, 1);
    pid_t child = checkpoint_in_child(w, AS_IT_IS);
    setenv("PATH", before, 1);
    for (uint64_t until = now_ms() + PATIENCE_MS; !count_in_log(w, "freeze") && now_ms() < until; usleep(1000))
        continue;
    kill_service(w);
    assert_true(wait_until(begun, true));
    take(w, DOMAIN ".writes");
    assert_true(wait_until(w->frozen, true) && wait_until(w->frozen, false));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0); // it has thawed in time: nobody killed it
    check_reached(w, RP_CONSISTENCY_CRASH, "thawed before the checkpoint");
}

static void say_nothing(enum rp_log_level level, const char *text)
{
    if (getenv("RP_TEST_LOG"))
        fprintf(stderr, "# %d %s\n", (int)level, text);
}

int main(void)
{
    rp_log_set_sink(say_nothing);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_guest_is_frozen_at_the_switch_and_thawed_before_the_durability),
        TEST(who_asks_for_crash_consistency_freezes_nobody),
        TEST(a_vm_that_does_not_run_is_taken_as_it_is),
        TEST(an_agent_that_is_missing_or_refuses_leaves_no_checkpoint),
        TEST(an_agent_that_hangs_is_given_up_within_the_limit_and_thawed),
        TEST(a_freeze_that_happens_when_who_asked_for_it_has_gone_is_undone),
        TEST(without_a_hypervisor_or_a_watchdog_nothing_is_frozen),
        TEST(a_slow_checkpoint_does_not_keep_the_guest_frozen),
        TEST(a_freeze_that_takes_all_the_time_is_thawed_at_once),
        TEST(a_slow_thaw_is_not_called_in_time),
        TEST(a_thaw_that_fails_is_tried_again),
        TEST(a_thaw_that_fails_for_long_goes_on_when_the_checkpoint_is_over),
        TEST(a_checkpoint_that_fails_thaws),
        TEST(a_guest_that_is_turned_off_while_frozen_is_crash_consistent),
        TEST(a_guest_that_somebody_else_thaws_or_that_froze_nothing_is_crash_consistent),
        TEST(a_disk_service_that_dies_while_the_guest_is_frozen_is_started_for_the_thaw),
        TEST(a_disk_service_that_dies_while_the_guest_is_being_frozen_is_started_for_the_freeze),
        TEST(a_guest_that_ends_while_it_is_being_frozen_is_not_thawed_after_its_next_start),
        TEST(a_process_that_cannot_thaw_is_helped_by_the_watchdog),
        TEST(a_process_that_is_killed_while_frozen_is_followed_by_the_watchdog),
        TEST(a_stuck_process_does_not_keep_the_guest_frozen),
        cmocka_unit_test_setup_teardown(a_stuck_process_that_keeps_everybody_else_out_is_killed, setup_exclusive, teardown),
        cmocka_unit_test_setup_teardown(a_disk_service_that_starts_slowly_keeps_no_guest_frozen, setup_exclusive, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
