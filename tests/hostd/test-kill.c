// The service is killed at random moments of a backup's calls, again and again. Its jobs are the oracle: what they are
// told to have made and destroyed must be exactly what the host has.
#include "method-kit.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "hostd/core.h"

#define ROUNDS 40
#define MAX_IDS 512

static const char *const names[] = {"off", "on"};

static void open_host(struct mk *mk, const char *folder)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *host = rp_path_join(folder, "host");
    const char *const folders[] = {folder};
    const struct rp_hostd_options options = {.directory = host, .machine = "HV1", .folders = folders, .folder_count = 1};
    *mk = (struct mk){.caller = {"LAB\\admin", "test", RP_CIM_ADMINISTER}};
    mk->hostd = rp_hostd_start(&options, &err);
    if (!mk->hostd)
        fail_msg("%s", err.text);
    mk->provider = &mk->hostd->virtualization;
}

static void set_state(struct mk *mk, const char *vm, enum rp_vm_state state)
{
    struct rp_error err = {0};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk->hostd, &err);
    kit_ok(host->ops->request_state(host, vm, state, job, result, &err), err);
    rp_hostd_hosts_return(mk->hostd, host);
}

static void make_vms(const char *folder, char ids[2][RP_HOST_ID])
{
    struct mk mk;
    struct rp_error err = {0};
    char job[RP_HOST_ID];
    open_host(&mk, folder);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk.hostd, &err);
    for (size_t i = 0; i < 2; i++) {
        RP_AUTO_FREE char *disk = kit_path("%s/%s.vhdx", folder, names[i]);
        const char *const disks[] = {disk};
        kit_vhdx(disk, 4 * RP_MIB);
        kit_ok(host->ops->define_system(host, names[i], disks, 1, NULL, NULL, job, ids[i], &err), err);
    }
    rp_hostd_hosts_return(mk.hostd, host);
    set_state(&mk, ids[1], RP_VM_RUNNING);
    rp_hostd_stop(mk.hostd);
}

// ---- the process that is killed -------------------------------------------------------------------------------------

static int take(void *context, struct rp_cim_instance *instance, struct rp_error *err)
{
    (void)err;
    rp_cim_instances_push(context, instance);
    return 0;
}

static struct rp_cim_instances ask(struct mk *mk, const char *text)
{
    struct rp_cim_instances all = {0};
    RP_CLEANUP(rp_wql_free_p) struct rp_wql *wql = rp_wql_parse(text, strlen(text), NULL);
    rp_cim_query(mk->provider, &mk->caller, wql, (struct rp_cim_sink){take, &all}, NULL);
    return all;
}

// Calls a method of a service with one reference, and waits for its job. What fails (a merge is under way) fails.
static void call(struct mk *mk, const char *service, const char *name, const char *parameter,
                 const struct rp_cim_path *object, unsigned type)
{
    uint32_t status = 0;
    const struct rp_cim_class *class = rp_cim_schema_class(mk->provider->schema, service);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = rp_cim_path_new("root/virtualization/v2", service);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_cim_instance_new(NULL, name);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_cim_instance_new(NULL, name);
    rp_cim_set(in, parameter, rp_cim_reference(rp_cim_path_copy(object)));
    if (type)
        rp_cim_set(in, "SnapshotType", rp_cim_unsigned(RP_CIM_UINT16, type));
    mk->provider->ops->invoke(mk->provider, &mk->caller, path, rp_cim_class_method(class, name), in, out, &status,
                              NULL);
    const struct rp_cim_path *job = status == 4096 ? rp_cim_get_path(out, "Job") : NULL;
    RP_AUTO_FREE char *query = rp_xasprintf("SELECT * FROM Msvm_ConcreteJob WHERE JobState = 4 AND InstanceID = '%s'",
                                            job ? rp_cim_path_get(job, "InstanceID") : "");
    for (bool running = job; running;) {
        RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances jobs = ask(mk, query);
        running = jobs.count;
    }
}

// Backups of both VMs, for ever: of what there is, one thing is done.
static _Noreturn void back_up(const char *folder, char ids[2][RP_HOST_ID], uint64_t random, int ready)
{
    struct mk mk;
    open_host(&mk, folder);
    write(ready, "x", 1);
    for (;;) {
        uint64_t draw = kit_random(&random);
        RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *vm = rp_hostd_paths_vm(mk.hostd, ids[draw & 1], false);
        RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances snapshots =
            ask(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType LIKE '%Snapshot%'");
        RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances points =
            ask(&mk, "SELECT * FROM Msvm_VirtualSystemReferencePoint");
        if (snapshots.count && draw >> 8 & 1)
            call(&mk, SNAPSHOTS, draw >> 9 & 3 ? "ConvertToReferencePoint" : "DestroySnapshot", "AffectedSnapshot",
                 snapshots.items[draw >> 16 & 1 ? snapshots.count - 1 : 0]->path, 0);
        else if (points.count > 3)
            call(&mk, POINTS, "DestroyReferencePoint", "AffectedReferencePoint", points.items[0]->path, 0);
        else if (draw >> 12 & 1)
            call(&mk, SNAPSHOTS, "CreateSnapshot", "AffectedSystem", vm, 32768);
        else
            call(&mk, POINTS, "CreateReferencePoint", "AffectedSystem", vm, 0);
    }
}

// ---- what must hold -------------------------------------------------------------------------------------------------

struct ids {
    char items[MAX_IDS][RP_HOST_ID];
    size_t count;
};

static void add(struct ids *ids, const char *id)
{
    assert_true(ids->count < MAX_IDS);
    snprintf(ids->items[ids->count++], RP_HOST_ID, "%s", rp_hostd_paths_bare(id));
}

static bool drop(struct ids *ids, const char *id)
{
    for (size_t i = 0; i < ids->count; i++)
        if (!strcmp(ids->items[i], rp_hostd_paths_bare(id))) {
            memcpy(ids->items[i], ids->items[--ids->count], RP_HOST_ID);
            return true;
        }
    return false;
}

struct told {
    struct ids snapshots, points;
    size_t jobs, done, failed, converted;
};

// Jobs come in the order of their start, and none was started before the one before had ended.
static int follow(void *context, const struct rp_hostd_job_view *job, struct rp_error *err)
{
    (void)err;
    struct told *told = context;
    told->jobs++;
    if (job->state == RP_HOSTD_RUNNING || !job->ended)
        fail_msg("job %s still runs", job->id);
    if (job->state != RP_HOSTD_COMPLETED) {
        told->failed++;
        return 0;
    }
    told->done++;
    struct ids *kind = job->kind == RP_HOSTD_SNAPSHOT ? &told->snapshots : &told->points;
    assert_true(job->kind == RP_HOSTD_SNAPSHOT || job->kind == RP_HOSTD_POINT);
    if (job->makes_gone) {
        if (!drop(kind, job->target))
            fail_msg("job %s destroyed %s, which no job had made", job->id, job->target);
        return 0;
    }
    if (job->kind == RP_HOSTD_POINT && job->target[0])
        told->converted += drop(&told->snapshots, job->target);
    add(kind, job->result);
    return 0;
}

static void check(struct mk *mk, char ids[2][RP_HOST_ID], struct told *told)
{
    struct rp_error err = {0};
    *told = (struct told){0};
    rp_hostd_jobs_each(mk->hostd, NULL, follow, told, NULL);
    const struct rp_inventory *inventory = rp_hostd_hosts_inventory(mk->hostd, &err);
    assert_non_null(inventory);
    struct told left = *told;
    for (size_t i = 0; i < inventory->count; i++) {
        const struct rp_inventory_vm *vm = &inventory->items[i];
        assert_int_equal(vm->vm.state, strcmp(vm->vm.id, ids[1]) ? RP_VM_OFF : RP_VM_RUNNING);
        for (size_t j = 0; j < vm->snapshots.count; j++)
            if (!vm->snapshots.items[j].merging && !drop(&left.snapshots, vm->snapshots.items[j].id))
                fail_msg("the host has a snapshot %s that no job is told to have made", vm->snapshots.items[j].id);
        for (size_t j = 0; j < vm->points.count; j++)
            if (!drop(&left.points, vm->points.items[j].id))
                fail_msg("the host has a reference point %s that no job is told to have made", vm->points.items[j].id);
    }
    rp_hostd_hosts_release(mk->hostd, inventory);
    if (left.snapshots.count)
        fail_msg("a job is told to have made snapshot %s, which is not there", left.snapshots.items[0]);
    if (left.points.count)
        fail_msg("a job is told to have made reference point %s, which is not there", left.points.items[0]);
}

static void jobs_are_told_as_the_host_is_after_every_kill(void **state)
{
    (void)state;
    uint64_t random = kit_seed() * 0x9e3779b97f4a7c15ull | 1;
    char *folder = kit_folder();
    char ids[2][RP_HOST_ID];
    static struct told told;
    make_vms(folder, ids);
    // A slow machine gets less done in a life.
    for (int round = 0; round < ROUNDS || (round < 10 * ROUNDS && (told.done <= 10 || !told.converted)); round++) {
        uint64_t seed = kit_random(&random) | 1, us = kit_random(&random) % 120000;
        int ready[2];
        char byte;
        assert_int_equal(pipe(ready), 0);
        pid_t pid = fork();
        if (pid == 0)
            back_up(folder, ids, seed, ready[1]);
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        struct mk mk;
        open_host(&mk, folder);
        check(&mk, ids, &told);
        if (round == ROUNDS - 1)
            set_state(&mk, ids[1], RP_VM_OFF);
        rp_hostd_stop(mk.hostd);
    }
    print_message("# %zu jobs in %d lives: %zu done, %zu of them conversions; %zu not done\n", told.jobs, ROUNDS,
                  told.done, told.converted, told.failed);
    assert_true(told.done > 10 && told.converted > 0);
    kit_remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(jobs_are_told_as_the_host_is_after_every_kill)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
