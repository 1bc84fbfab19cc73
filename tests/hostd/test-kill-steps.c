// Every kind of job, killed before each of the steps that it takes on the disk, from its call to its end. Afterwards
// the host is started again: the job is told as what the host shows by other means, and nothing is half done. By
// default some steps of each kind, others with another RP_TEST_SEED; RP_TEST_ALL=1: all of them.
#include "kill-steps.h"
#include "method-kit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "hostd/core.h"

#define SIZE (4 * RP_MIB)
#define KILLS 12
#define MOST_STEPS 100000
#define RECOVERY 32768

enum { NOT_DONE, DONE, HALF, UNSEEN };

static char vm[RP_HOST_ID];                     // of the template
static struct rp_cim_path *first, *second;      // what its jobs work on
static char *folder;                            // has `now` and `template`

// ---- what the jobs need ---------------------------------------------------------------------------------------------

static void have_vm(struct mk *mk)
{
    mk_define(mk, "web", 1, SIZE, vm);
    mk_write(mk, vm, 0, 0, 8, 3, 7);
}

static void have_snapshot(struct mk *mk)
{
    have_vm(mk);
    first = mk_snapshot(mk, vm, RECOVERY, "first");
    mk_write(mk, vm, 0, 1, 8, 3, 9);
}

static void have_two_snapshots(struct mk *mk)
{
    have_snapshot(mk);
    second = mk_snapshot(mk, vm, RECOVERY, "second");
}

static void make_point(struct mk *mk)
{
    struct rp_cim_instance *out;
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(mk, vm);
    uint32_t status = mk_call(mk, POINTS, "CreateReferencePoint", &out, "AffectedSystem", mk_ref(path), NULL);
    first = mk_made(mk, status, &out, "Msvm_VirtualSystemReferencePoint");
    mk_wait_merged(mk, vm);
}

static void have_point(struct mk *mk)
{
    have_vm(mk);
    make_point(mk);
}

static char *exported(struct mk *mk)
{
    RP_AUTO_FREE char *name = rp_xasprintf("web/Virtual Machines/%s.vmcx", vm);
    return mk_file(mk, name);
}

static uint32_t export_vm(struct mk *mk, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(mk, vm);
    return mk_call(mk, MANAGEMENT, "ExportSystemDefinition", out, "ComputerSystem", mk_ref(path), "ExportDirectory",
                   mk_text("%s", mk->files), NULL);
}

static void have_export(struct mk *mk)
{
    struct rp_cim_instance *out;
    have_vm(mk);
    mk_made(mk, export_vm(mk, &out), &out, NULL);
}

static uint32_t import_as(struct mk *mk, bool another, struct rp_cim_instance **out)
{
    RP_AUTO_FREE char *file = exported(mk);
    return mk_call(mk, MANAGEMENT, "ImportSystemDefinition", out, "SystemDefinitionFile", mk_text("%s", file),
                   "GenerateNewSystemIdentifier", mk_flag(another), NULL);
}

static uint32_t import_vm(struct mk *mk, struct rp_cim_instance **out) { return import_as(mk, true, out); }
static uint32_t import_itself(struct mk *mk, struct rp_cim_instance **out) { return import_as(mk, false, out); }

static void have_only_export(struct mk *mk)
{
    struct rp_cim_instance *out;
    have_export(mk);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(mk, vm);
    mk_made(mk, mk_call(mk, MANAGEMENT, "DestroySystem", &out, "AffectedSystem", mk_ref(path), NULL), &out, NULL);
}

static void have_plan(struct mk *mk)
{
    struct rp_cim_instance *out;
    have_only_export(mk);
    first = mk_made(mk, import_vm(mk, &out), &out, "Msvm_PlannedComputerSystem");
}

static void have_spare(struct mk *mk)
{
    have_vm(mk);
    RP_AUTO_FREE char *file = mk_file(mk, "spare.vhdx");
    kit_vhdx(file, SIZE);
}

// ---- the jobs -------------------------------------------------------------------------------------------------------

static uint32_t on_vm(struct mk *mk, struct rp_cim_instance **out, const char *service, const char *method,
                      const char *parameter, const char *type)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(mk, vm);
    return mk_call(mk, service, method, out, parameter, mk_ref(path), type, mk_number(RECOVERY), NULL);
}

static uint32_t create_snapshot(struct mk *mk, struct rp_cim_instance **out)
{
    // of a VM without a guest, which nobody can bring to rest
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSnapshotSettingData", "ConsistencyLevel",
                                           mk_number(RP_CONSISTENCY_APPLICATION), NULL);
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(mk, vm);
    return mk_call(mk, SNAPSHOTS, "CreateSnapshot", out, "AffectedSystem", mk_ref(path), "SnapshotType",
                   mk_number(RECOVERY), "SnapshotSettings", mk_text("%s", settings), NULL);
}

static uint32_t create_point(struct mk *mk, struct rp_cim_instance **out)
{
    return on_vm(mk, out, POINTS, "CreateReferencePoint", "AffectedSystem", NULL);
}

static uint32_t destroy_snapshot(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, SNAPSHOTS, "DestroySnapshot", out, "AffectedSnapshot", mk_ref(first), NULL);
}

static uint32_t destroy_tree(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, SNAPSHOTS, "DestroySnapshotTree", out, "SnapshotSettingData", mk_ref(first), NULL);
}

static uint32_t apply_snapshot(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, SNAPSHOTS, "ApplySnapshot", out, "Snapshot", mk_ref(first), NULL);
}

static uint32_t convert_snapshot(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, SNAPSHOTS, "ConvertToReferencePoint", out, "AffectedSnapshot", mk_ref(first), NULL);
}

static uint32_t destroy_point(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, POINTS, "DestroyReferencePoint", out, "AffectedReferencePoint", mk_ref(first), NULL);
}

static uint32_t export_point(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, POINTS, "ExportReferencePoint", out, "ReferencePoint", mk_ref(first), "ExportDirectory",
                   mk_text("%s/web", mk->files), NULL);
}

static uint32_t define_vm(struct mk *mk, struct rp_cim_instance **out)
{
    RP_AUTO_FREE char *file = mk_file(mk, "spare.vhdx");
    RP_AUTO_FREE char *disk = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31),
                                       "HostResource", mk_texts(file, NULL), NULL);
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualSystemSettingData", "ElementName", mk_text("new"), "Notes",
                                           mk_texts("kept", NULL), NULL);
    return mk_call(mk, MANAGEMENT, "DefineSystem", out, "SystemSettings", mk_text("%s", settings), "ResourceSettings",
                   mk_texts(disk, NULL), NULL);
}

static uint32_t destroy_vm(struct mk *mk, struct rp_cim_instance **out)
{
    return on_vm(mk, out, MANAGEMENT, "DestroySystem", "AffectedSystem", NULL);
}

static uint32_t destroy_plan(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, MANAGEMENT, "DestroySystem", out, "AffectedSystem", mk_ref(first), NULL);
}

static uint32_t realize_plan(struct mk *mk, struct rp_cim_instance **out)
{
    return mk_call(mk, MANAGEMENT, "RealizePlannedSystem", out, "PlannedSystem", mk_ref(first), NULL);
}

static uint32_t add_disk(struct mk *mk, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_settings(mk, vm);
    RP_AUTO_FREE char *file = mk_file(mk, "spare.vhdx");
    RP_AUTO_FREE char *disk = mk_embed("Msvm_StorageAllocationSettingData", "ResourceType", mk_number(31),
                                       "HostResource", mk_texts(file, NULL), NULL);
    return mk_call(mk, MANAGEMENT, "AddResourceSettings", out, "AffectedConfiguration", mk_ref(path),
                   "ResourceSettings", mk_texts(disk, NULL), NULL);
}

static uint32_t remove_disk(struct mk *mk, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *disk = mk_one(mk,
        "SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", vm);
    const struct rp_cim_path *paths[] = {disk->path};
    return mk_call(mk, MANAGEMENT, "RemoveResourceSettings", out, "ResourceSettings", mk_refs(1, paths), NULL);
}

static uint32_t start_vm(struct mk *mk, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(mk, vm);
    return mk_call_on(mk, path, "RequestStateChange", out, "RequestedState", mk_number(2), NULL);
}

static uint32_t stop_vm(struct mk *mk, struct rp_cim_instance **out)
{
    RP_CLEANUP(rp_cim_path_free_p) struct rp_cim_path *path = mk_vm(mk, vm);
    return mk_call_on(mk, path, "RequestStateChange", out, "RequestedState", mk_number(3), NULL);
}

static uint32_t convert_disk(struct mk *mk, struct rp_cim_instance **out)
{
    RP_AUTO_FREE char *source = mk_file(mk, "spare.vhdx"), *target = mk_file(mk, "copy.vhdx");
    RP_AUTO_FREE char *settings = mk_embed("Msvm_VirtualHardDiskSettingData", "Type", mk_number(3), "Format",
                                           mk_number(3), "Path", mk_text("%s", target), NULL);
    return mk_call(mk, IMAGES, "ConvertVirtualHardDisk", out, "SourcePath", mk_text("%s", source),
                   "VirtualDiskSettingData", mk_text("%s", settings), NULL);
}

static uint32_t resize_disk(struct mk *mk, struct rp_cim_instance **out)
{
    RP_AUTO_FREE char *path = mk_file(mk, "web-0.vhdx");
    return mk_call(mk, IMAGES, "ResizeVirtualHardDisk", out, "Path", mk_text("%s", path), "MaxInternalSize",
                   mk_number(2 * SIZE), NULL);
}

// ---- what the host shows --------------------------------------------------------------------------------------------

static size_t snapshots(struct mk *mk)
{
    return mk_count(mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType LIKE '%%Snapshot%%'");
}

static size_t points(struct mk *mk) { return mk_count(mk, "SELECT * FROM Msvm_VirtualSystemReferencePoint"); }

static size_t vms(struct mk *mk, const char *name)
{
    return mk_count(mk, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = '%s'", name);
}

static size_t plans(struct mk *mk) { return mk_count(mk, "SELECT * FROM Msvm_PlannedComputerSystem"); }

static size_t disks(struct mk *mk)
{
    return mk_count(mk, "SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID LIKE 'Microsoft:%s%%'", vm);
}

static bool is_there(struct mk *mk, const char *name)
{
    RP_AUTO_FREE char *path = mk_file(mk, name);
    return !access(path, F_OK);
}

static int has_snapshot(struct mk *mk) { return snapshots(mk) == 1 ? DONE : snapshots(mk) ? HALF : NOT_DONE; }
static int has_no_snapshot(struct mk *mk) { return snapshots(mk) ? NOT_DONE : DONE; }
static int has_point(struct mk *mk) { return points(mk) + snapshots(mk) > 1 ? HALF : points(mk) ? DONE : NOT_DONE; }
static int has_no_point(struct mk *mk) { return points(mk) ? NOT_DONE : DONE; }
static int has_no_vm(struct mk *mk) { return vms(mk, "web") ? NOT_DONE : DONE; }
static int has_plan(struct mk *mk) { return plans(mk) > 1 ? HALF : plans(mk) ? DONE : NOT_DONE; }
static int has_no_plan(struct mk *mk) { return plans(mk) ? NOT_DONE : DONE; }
static int has_two_disks(struct mk *mk) { return disks(mk) == 2 ? DONE : disks(mk) == 1 ? NOT_DONE : HALF; }
static int has_no_disk(struct mk *mk) { return disks(mk) ? NOT_DONE : DONE; }
static int realized(struct mk *mk) { return plans(mk) + vms(mk, "web") != 1 ? HALF : plans(mk) ? NOT_DONE : DONE; }
static int anything(struct mk *mk) { return vms(mk, "web") == 1 ? UNSEEN : HALF; }

static int has_new_vm(struct mk *mk)
{
    size_t count = vms(mk, "new"), noted = 0;
    RP_CLEANUP(rp_cim_instances_clear) struct rp_cim_instances all = mk_query(mk,
        "SELECT * FROM Msvm_VirtualSystemSettingData WHERE ElementName = 'new'");
    for (size_t i = 0; i < all.count; i++)
        noted += rp_cim_get_count(all.items[i], "Notes") == 1;
    return count > 1 || noted != count ? HALF : count ? DONE : NOT_DONE; // with its settings, or not at all
}

static int is_exported(struct mk *mk)
{
    RP_AUTO_FREE char *definition = exported(mk);
    bool disk = is_there(mk, "web/Virtual Hard Disks/web-0.vhdx"), whole = !access(definition, F_OK);
    return disk != whole || snapshots(mk) ? HALF : whole ? DONE : NOT_DONE;
}

static int is_copied(struct mk *mk)
{
    char command[4096];
    snprintf(command, sizeof command, "ls '%s' | grep -q part", mk->files);
    bool left = system(command) == 0; // of a copy that is not whole
    return left ? HALF : is_there(mk, "copy.vhdx") ? DONE : NOT_DONE;
}

static int runs(struct mk *mk)
{
    size_t on = mk_count(mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s' AND EnabledState = 2", vm);
    return on ? DONE : NOT_DONE;
}

static int is_off(struct mk *mk) { return runs(mk) == DONE ? NOT_DONE : DONE; }

static const struct kind {
    const char *name;
    void (*prepare)(struct mk *mk);
    uint32_t (*call)(struct mk *mk, struct rp_cim_instance **out);
    int (*look)(struct mk *mk);
    bool untold;   // what became of it may have to be looked at, and the job says so
    bool running;  // its VM is on when it begins, or may be when it has ended
    void (*at_last)(struct mk *mk); // what a copy of the template would not be good for: it looks like a foreign change
    unsigned type; // of the job, when there are others; 0: any
    bool warned;   // what is done is not all that was asked for, and the job says so
} kinds[] = {
    {"CreateSnapshot", have_vm, create_snapshot, has_snapshot, .warned = true},
    {"CreateReferencePoint", have_vm, create_point, has_point, .untold = false},
    {"DestroySnapshot", have_snapshot, destroy_snapshot, has_no_snapshot, .untold = false},
    {"DestroySnapshotTree", have_two_snapshots, destroy_tree, has_no_snapshot, .untold = false},
    {"ApplySnapshot", have_snapshot, apply_snapshot, anything, .untold = true},
    {"ConvertToReferencePoint", have_snapshot, convert_snapshot, has_point, .untold = false},
    {"DestroyReferencePoint", have_point, destroy_point, has_no_point, .untold = false},
    {"ExportReferencePoint", have_vm, export_point, is_exported, .at_last = make_point, .type = 203},
    {"ExportSystemDefinition", have_vm, export_vm, is_exported, .untold = false},
    {"DefineSystem", have_spare, define_vm, has_new_vm, .untold = false},
    {"DestroySystem", have_vm, destroy_vm, has_no_vm, .untold = false},
    {"DestroySystem of a plan", have_plan, destroy_plan, has_no_plan, .untold = false},
    {"ImportSystemDefinition", have_export, import_vm, has_plan, .untold = false},
    {"ImportSystemDefinition of itself", have_only_export, import_itself, has_plan, .untold = false},
    {"RealizePlannedSystem", have_plan, realize_plan, realized, .untold = false},
    {"AddResourceSettings", have_spare, add_disk, has_two_disks, .untold = false},
    {"RemoveResourceSettings", have_vm, remove_disk, has_no_disk, .untold = false},
    {"ConvertVirtualHardDisk", have_spare, convert_disk, is_copied, .untold = false},
    {"ResizeVirtualHardDisk", have_vm, resize_disk, anything, .untold = true},
    {"RequestStateChange to on", have_vm, start_vm, runs, .untold = true, .running = true},
    {"RequestStateChange to off", have_vm, stop_vm, is_off, .untold = true, .running = true},
};

// ---- a life ---------------------------------------------------------------------------------------------------------

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    va_list args;
    RP_AUTO_FREE char *command = NULL;
    va_start(args, format);
    assert_true(vasprintf(&command, format, args) >= 0);
    va_end(args);
    if (system(command))
        fail_msg("%s", command);
}

static void open_host(struct mk *mk) { mk_start_in(mk, kit_path("%s/now", folder)); }

static void close_host(struct mk *mk)
{
    rp_hostd_stop(mk->hostd);
    free(mk->files);
    free(mk->folder);
}

static void set_state(enum rp_vm_state state)
{
    struct mk mk;
    struct rp_error err = {0};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    open_host(&mk);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk.hostd, &err);
    RP_CLEANUP(rp_vm_clear) struct rp_vm now = {0};
    if (host && !host->ops->find_vm(host, vm, &now, NULL) && now.state != state)
        kit_ok(host->ops->request_state(host, vm, state, job, result, &err), err);
    rp_hostd_hosts_return(mk.hostd, host);
    close_host(&mk);
}

// In a process of its own: the call, killed at the step. Exits with 0 when it was over before. *steps: how many it
// took.
static void live(const struct kind *kind, long at, long *steps)
{
    struct mk mk;
    struct rp_cim_instance *out = NULL;
    open_host(&mk);
    if (kind->at_last)
        kind->at_last(&mk);
    kill_at_step(at);
    uint32_t status = kind->call(&mk, &out);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = mk_wait(&mk, status, &out);
    *steps = kill_never();
    if (rp_cim_get_unsigned(job, "JobState", 0) == (kind->warned ? 32768 : 7))
        _exit(0);
    fprintf(stderr, "# %s: %s\n", kind->name, rp_cim_get_text(job, "ErrorDescription"));
    _exit(1);
}

struct told {
    int64_t since; // jobs of the template do not count
    unsigned type;
    size_t count;
    unsigned state;
    bool warned;
    char error[400];
};

static int take(void *context, const struct rp_hostd_job_view *job, struct rp_error *err)
{
    (void)err;
    struct told *told = context;
    if (job->submitted < told->since || (told->type && job->type != told->type))
        return 0;
    told->count++;
    told->state = job->state;
    told->warned = job->details && rp_cim_get_text(job->details, "ErrorDescription");
    snprintf(told->error, sizeof told->error, "%s", job->error);
    return 0;
}

static void check(const struct kind *kind, long at, int64_t since)
{
    struct told first_told = {0};
    for (int start = 0; start < 2; start++) {
        struct mk mk;
        open_host(&mk);
        struct told told = {.since = since, .type = kind->type};
        rp_hostd_jobs_each(mk.hostd, NULL, take, &told, NULL);
        int is = kind->look(&mk);
        if (is == HALF)
            fail_msg("%s, killed at step %ld: half of it is done", kind->name, at);
        if (!told.count && !kind->untold && is == DONE)
            fail_msg("%s, killed at step %ld: it was done, and there is no job", kind->name, at);
        if (told.count && told.state != 7 && told.state != 10)
            fail_msg("%s, killed at step %ld: its job is told as %u", kind->name, at, told.state);
        bool open = told.state == 10 && strstr(told.error, "has to be looked at");
        if (open && !kind->untold)
            fail_msg("%s, killed at step %ld: %s", kind->name, at, told.error);
        if (told.count && !open && is != UNSEEN && (told.state == 7) != (is == DONE))
            fail_msg("%s, killed at step %ld: told as %u (%s), and it is %s", kind->name, at, told.state, told.error,
                     is == DONE ? "done" : "not done");
        if (told.count && told.state == 7 && told.warned != kind->warned)
            fail_msg("%s, killed at step %ld: it was done, and the job %s", kind->name, at,
                     told.warned ? "warns" : "does not say that it is not what was asked for");
        if (start && (told.count != first_told.count || told.state != first_told.state))
            fail_msg("%s, killed at step %ld: told differently at the second start", kind->name, at);
        first_told = told;
        close_host(&mk);
    }
}

// Whether it was killed; false: it was over before.
static bool kill_it(const struct kind *kind, long at, long *steps)
{
    int ended = 0;
    int64_t since = rp_clock_wall_ns();
    shell("rm -rf '%s/now' && cp -a '%s/template' '%s/now'", folder, folder, folder);
    if (kind->running && kind->look == is_off)
        set_state(RP_VM_RUNNING);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        alarm(60);
        live(kind, at, steps);
    }
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    bool killed = WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL;
    if (!killed && ended)
        fail_msg("%s, to be killed at step %ld: ended with %x", kind->name, at, (unsigned)ended);
    check(kind, at, since);
    if (kind->running)
        set_state(RP_VM_OFF);
    return killed;
}

static void try_kind(const struct kind *kind)
{
    struct mk mk;
    uint64_t random = kit_seed() * 0x9e3779b97f4a7c15ull | 1;
    long *steps = mmap(NULL, sizeof *steps, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(steps != MAP_FAILED);
    folder = kit_folder();
    RP_AUTO_FREE char *now = kit_path("%s/now", folder);
    assert_int_equal(mkdir(now, 0700), 0);
    open_host(&mk);
    kind->prepare(&mk);
    close_host(&mk);
    shell("cp -a '%s/now' '%s/template'", folder, folder);
    assert_false(kill_it(kind, MOST_STEPS, steps)); // how many there are
    long stride = getenv("RP_TEST_ALL") ? 1 : *steps / KILLS + 1, kills = 0;
    for (long at = 1 + (long)(kit_random(&random) % (uint64_t)stride); at <= *steps; at += stride)
        kills += kill_it(kind, at, steps);
    print_message("# %s: %ld kills at %ld steps\n", kind->name, kills, *steps);
    assert_true(kills > 0);
    munmap(steps, sizeof *steps);
    rp_cim_path_free(first);
    rp_cim_path_free(second);
    first = second = NULL;
    kit_remove_folder(folder);
}

static void whatever_a_kill_interrupts_is_told_as_it_is(void **state)
{
    (void)state;
    const char *only = getenv("RP_TEST_KIND");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!only || strstr(kinds[i].name, only))
            try_kind(&kinds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(whatever_a_kill_interrupts_is_told_as_it_is)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
