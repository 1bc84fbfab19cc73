// Disks that could not be closed: whoever asked for what was done to them hears of it. Closing fails by a wrapped
// rp_service_close, after the real one.
#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "diskservice/service.h"
#include "host-kit.h"
#include "host/local.h"

struct world {
    char *host, *raw;
    char vm[RP_HOST_ID], checkpoint[RP_HOST_ID], job[RP_HOST_ID], result[RP_HOST_ID];
    struct rp_host_connection *c;
    struct rp_error err;
};

static bool closing_fails;

int __real_rp_service_close(struct rp_service *service, struct rp_error *err);
int __wrap_rp_service_close(struct rp_service *service, struct rp_error *err);
int __wrap_rp_service_close(struct rp_service *service, struct rp_error *err)
{
    int failed = __real_rp_service_close(service, err);
    if (failed || !closing_fails)
        return failed;
    return rp_fail(err, RP_ERR_IO, "not everything could be made durable: on purpose");
}

static bool checkpoints_fail;

int __real_rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched,
                                 void *context, struct rp_engine_checkpoint *result, struct rp_error *err);
int __wrap_rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched,
                                 void *context, struct rp_engine_checkpoint *result, struct rp_error *err);
int __wrap_rp_service_checkpoint(struct rp_service *service, const struct rp_guid *operation, rp_engine_switched_fn *switched,
                                 void *context, struct rp_engine_checkpoint *result, struct rp_error *err)
{
    return checkpoints_fail ? rp_fail(err, RP_ERR_IO, "an earlier sync failed: on purpose")
                            : __real_rp_service_checkpoint(service, operation, switched, context, result, err);
}

static int setup(void **state)
{
    struct world *w = rp_xcalloc(1, sizeof *w);
    w->host = kit_folder();
    w->raw = kit_path("%s/disk.raw", w->host);
    kit_raw(w->raw, 2 * RP_MIB, 1);
    w->c = rp_host_local_open(w->host, &w->err);
    assert_non_null(w->c);
    const char *disk = w->raw;
    kit_ok(w->c->ops->define_system(w->c, "web1", &disk, 1, NULL, NULL, w->job, w->vm, &w->err), w->err);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    closing_fails = checkpoints_fail = false;
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, w->vm);
    rp_service_stop(directory, NULL);
    rp_host_close(w->c);
    kit_remove_folder(w->host);
    free(w->raw);
    free(w);
    return 0;
}

static int make_checkpoint(struct world *w)
{
    return w->c->ops->create_snapshot(w->c, w->vm, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "t", w->job,
                                      w->checkpoint, &w->err);
}

static size_t count_checkpoints(struct world *w)
{
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots list = {0};
    kit_ok(w->c->ops->list_snapshots(w->c, w->vm, &list, &w->err), w->err);
    return list.count;
}

static void a_checkpoint_whose_disks_cannot_be_closed_is_told_and_listed(void **state)
{
    struct world *w = *state;
    closing_fails = true;
    kit_fails(make_checkpoint(w), w->err, RP_ERR_IO);
    closing_fails = false;
    assert_int_equal(count_checkpoints(w), 1);
    kit_ok(w->c->ops->destroy_snapshot(w->c, w->checkpoint, w->job, w->result, &w->err), w->err);
    assert_int_equal(count_checkpoints(w), 0);
}

static void a_merge_whose_disks_cannot_be_closed_is_pending_until_they_can(void **state)
{
    struct world *w = *state;
    kit_ok(make_checkpoint(w), w->err);
    closing_fails = true;
    kit_ok(w->c->ops->destroy_snapshot(w->c, w->checkpoint, w->job, w->result, &w->err), w->err);
    for (int i = 0; i < 2; i++) { // looking is trying again
        RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
        kit_ok(w->c->ops->find_vm(w->c, w->vm, &vm, &w->err), w->err);
        assert_int_equal(vm.activity, RP_VM_MERGING);
        assert_non_null(strstr(vm.merge_problem, "on purpose"));
    }
    closing_fails = false;
    RP_CLEANUP(rp_vm_clear) struct rp_vm vm = {0};
    kit_ok(w->c->ops->find_vm(w->c, w->vm, &vm, &w->err), w->err);
    assert_int_equal(vm.activity, RP_VM_IDLE);
    assert_int_equal(count_checkpoints(w), 0);
}

// What a line of /proc/…/status begins with after its name.
static bool status_of(const char *folder, const char *name, char value[64])
{
    RP_AUTO_FREE char *path = kit_path("%s/status", folder), *format = kit_path("%s: %%63s", name);
    char line[256];
    bool found = false;
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof line, file))
        found = sscanf(line, format, value) == 1;
    if (file)
        fclose(file);
    return found;
}

static bool is_held(pid_t pid)
{
    RP_AUTO_FREE char *path = kit_path("/proc/%ld/task", (long)pid);
    DIR *tasks = opendir(path);
    bool held = tasks != NULL;
    for (struct dirent *entry; held && (entry = readdir(tasks));) {
        RP_AUTO_FREE char *task = kit_path("%s/%s", path, entry->d_name);
        char value[64];
        held = entry->d_name[0] == '.' || (status_of(task, "State", value) && *value == 'T');
    }
    if (tasks)
        closedir(tasks);
    return held;
}

static bool is_asked_to_end(pid_t pid)
{
    RP_AUTO_FREE char *path = kit_path("/proc/%ld", (long)pid);
    char pending[64];
    return status_of(path, "ShdPnd", pending) && strtoul(pending, NULL, 16) >> (SIGTERM - 1) & 1;
}

static void a_stop_of_a_service_that_is_killed_in_it_is_told(void **state)
{
    struct world *w = *state;
    RP_CLEANUP(rp_service_info_clear) struct rp_service_info info = {0};
    RP_AUTO_FREE char *directory = kit_path("%s/vms/%s", w->host, w->vm);
    kit_ok(w->c->ops->request_state(w->c, w->vm, RP_VM_RUNNING, w->job, w->result, &w->err), w->err);
    {
        RP_CLEANUP(rp_service_close_p) struct rp_service *service = rp_service_open(rp_fs_posix(), directory, &w->err);
        kit_ok(rp_service_info(service, &info, &w->err), w->err);
    }
    assert_true(info.pid > 1);
    // It is held until it is asked to end, and never gets to it.
    assert_int_equal(kill(info.pid, SIGSTOP), 0);
    while (!is_held(info.pid))
        usleep(1000);
    pid_t killer = fork();
    if (killer == 0) {
        for (int i = 0; i < 6000 && !is_asked_to_end(info.pid); i++)
            usleep(5000);
        kill(info.pid, SIGKILL);
        _exit(0);
    }
    kit_fails(w->c->ops->request_state(w->c, w->vm, RP_VM_OFF, w->job, w->result, &w->err), w->err, RP_ERR_IO);
    waitpid(killer, NULL, 0);
    // It is off, and the next one ends cleanly.
    kit_ok(w->c->ops->request_state(w->c, w->vm, RP_VM_RUNNING, w->job, w->result, &w->err), w->err);
    kit_ok(w->c->ops->request_state(w->c, w->vm, RP_VM_OFF, w->job, w->result, &w->err), w->err);
}

// Its client is gone as well; the row is there, and what became of it is not known.
static void a_failing_service_with_a_checkpoint_left_over_can_be_stopped(void **state)
{
    struct world *w = *state;
    kit_ok(w->c->ops->request_state(w->c, w->vm, RP_VM_RUNNING, w->job, w->result, &w->err), w->err);
    checkpoints_fail = true;
    kit_fails(make_checkpoint(w), w->err, RP_ERR_IO);
    kit_fails(w->c->ops->add_disk(w->c, w->vm, w->raw, w->job, w->result, &w->err), w->err, RP_ERR_IO); // it is left over
    kit_ok(w->c->ops->request_state(w->c, w->vm, RP_VM_OFF, w->job, w->result, &w->err), w->err);
    kit_fails(w->c->ops->request_state(w->c, w->vm, RP_VM_OFF, w->job, w->result, &w->err), w->err, RP_ERR_STATE);
    assert_int_equal(count_checkpoints(w), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_checkpoint_whose_disks_cannot_be_closed_is_told_and_listed),
        TEST(a_merge_whose_disks_cannot_be_closed_is_pending_until_they_can),
        TEST(a_stop_of_a_service_that_is_killed_in_it_is_told),
        TEST(a_failing_service_with_a_checkpoint_left_over_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
