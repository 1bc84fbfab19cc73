// Jobs: what is told of them while they run and after, cancelling, forgetting, and what is told after a kill.
#include "method-kit.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "cim/cimxml.h"
#include "hostd/jobs_impl.h"

#define DEADLINE_NS (60 * 1000000000ull)
#define CREATE 70

static void sleep_ms(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

// ---- a host in a folder that stays ----------------------------------------------------------------------------------

static void open_host(struct mk *mk, const char *folder, unsigned seconds)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *host = rp_path_join(folder, "host"), *audit = rp_path_join(folder, "audit");
    const char *const folders[] = {folder};
    const struct rp_hostd_options options = {.directory = host, .machine = "HV1", .folders = folders, .folder_count = 1,
                                             .job_seconds = seconds, .audit = audit};
    *mk = (struct mk){.caller = {"LAB\\admin", "test", RP_CIM_ADMINISTER}};
    mk->hostd = rp_hostd_start(&options, &err);
    if (!mk->hostd)
        fail_msg("%s", err.text);
    mk->provider = &mk->hostd->virtualization;
}

static void close_host(struct mk *mk) { rp_hostd_stop(mk->hostd); }

static char *make_vm(struct mk *mk, const char *folder, const char *name)
{
    struct rp_error err = {0};
    RP_AUTO_FREE char *disk = kit_path("%s/%s.vhdx", folder, name);
    const char *const disks[] = {disk};
    char job[RP_HOST_ID], id[RP_HOST_ID];
    kit_vhdx(disk, 4 * RP_MIB);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk->hostd, &err);
    kit_ok(host->ops->define_system(host, name, disks, 1, NULL, NULL, job, id, &err), err);
    rp_hostd_hosts_return(mk->hostd, host);
    return rp_xstrdup(id);
}

static char *try_to_launch(struct mk *mk, const struct rp_hostd_job *job, struct rp_error *err)
{
    uint32_t status = 0;
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *out = rp_cim_instance_new(NULL, "x");
    if (rp_hostd_jobs_start(mk->hostd, &mk->caller, job, out, &status, err))
        return NULL;
    assert_int_equal(status, 4096);
    return rp_xstrdup(rp_cim_path_get(rp_cim_get_path(out, "Job"), "InstanceID"));
}

static char *launch(struct mk *mk, const struct rp_hostd_job *job)
{
    struct rp_error err = {0};
    char *id = try_to_launch(mk, job, &err);
    if (!id)
        fail_msg("%s", err.text);
    return id;
}

static char *launch_when_there_is_room(struct mk *mk, const struct rp_hostd_job *job)
{
    for (uint64_t start = rp_clock_monotonic_ns(); rp_clock_monotonic_ns() - start < DEADLINE_NS; sleep_ms(1)) {
        struct rp_error err = {0};
        char *id = try_to_launch(mk, job, &err);
        if (id)
            return id;
        assert_int_equal(err.code, RP_ERR_BUSY);
    }
    fail_msg("there is no room for a job");
    return NULL;
}

static struct rp_cim_instance *poll_job(struct mk *mk, const char *id)
{
    return mk_one(mk, "SELECT * FROM CIM_ConcreteJob WHERE InstanceID = '%s'", id);
}

static struct rp_cim_instance *wait_end(struct mk *mk, const char *id)
{
    for (uint64_t start = rp_clock_monotonic_ns(); rp_clock_monotonic_ns() - start < DEADLINE_NS; sleep_ms(2)) {
        struct rp_cim_instance *job = poll_job(mk, id);
        if (rp_cim_get_unsigned(job, "JobState", 0) != 4)
            return job;
        rp_cim_instance_free(job);
    }
    fail_msg("job %s does not end", id);
    return NULL;
}

static void has_number(const struct rp_cim_instance *instance, const char *name, uint64_t expected)
{
    uint64_t number = rp_cim_get_unsigned(instance, name, 999999);
    if (number != expected)
        fail_msg("%s is %llu, not %llu", name, (unsigned long long)number, (unsigned long long)expected);
}

static uint32_t ask(struct mk *mk, const char *id, unsigned state)
{
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = poll_job(mk, id);
    return mk_call_on(mk, job->path, "RequestStateChange", NULL, "RequestedState",
                      rp_cim_unsigned(RP_CIM_UINT16, state), NULL);
}

static bool audit_has(const char *folder, const char *words)
{
    RP_AUTO_FREE char *path = rp_path_join(folder, "audit");
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char line[4096];
    bool found = false;
    while (fgets(line, sizeof line, file))
        found |= strstr(line, words) != NULL;
    fclose(file);
    return found;
}

// ---- what jobs do ---------------------------------------------------------------------------------------------------

struct work {
    atomic_int stage;         // the test raises it: how many quarters may be done
    atomic_int freed, running;
    enum rp_code fails;
    char made[RP_HOST_ID];
    const char *create_for;   // a VM that gets a snapshot
    bool tells;
};

static int quarters(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                    struct rp_error *err)
{
    struct work *work = context;
    char job[RP_HOST_ID];
    atomic_fetch_add(&work->running, 1);
    for (int done = 0; done < 4; done++) {
        do {
            if (host->progress && host->progress(host->progress_context, (uint64_t)done, 4))
                return rp_fail(err, RP_ERR_CANCELLED, "stopped at %d of 4", done);
            sleep_ms(1);
        } while (atomic_load(&work->stage) <= done);
        if (work->tells) {
            rp_hostd_jobs_detail(hostd, "ExportedConfigFilePath", rp_cim_string("/x/y.vmcx"));
            rp_hostd_jobs_detail(hostd, "ExportedDisks", mk_texts("/x/a & b", "/x/c", NULL));
        }
    }
    if (work->fails)
        return rp_fail(err, work->fails, "the disk \"%s\" is broken", "web & co");
    if (work->create_for)
        return host->ops->create_snapshot(host, work->create_for, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "made",
                                          job, result, err);
    snprintf(result, RP_HOST_ID, "%s", work->made);
    return 0;
}

static void count_free(void *context) { atomic_fetch_add(&((struct work *)context)->freed, 1); }

static struct rp_hostd_job job_of(struct work *work)
{
    return (struct rp_hostd_job){.type = CREATE, .caption = "Creating Virtual Machine Snapshot",
                                 .class_name = "Msvm_ConcreteJob", .vm_id = "", .target = "", .run = quarters,
                                 .context = work, .free_context = count_free};
}

static void a_job_is_told_from_its_start_to_its_end(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    RP_AUTO_FREE char *vm = make_vm(&mk, folder, "web");
    struct work work = {.create_for = vm};
    struct rp_hostd_job job = job_of(&work);
    RP_AUTO_FREE char *planned = rp_hostd_jobs_plan();
    job.vm_id = vm;
    job.result = RP_HOSTD_SNAPSHOT;
    job.planned = planned;
    RP_AUTO_FREE char *id = launch(&mk, &job);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *first = poll_job(&mk, id);
    has_number(first, "JobState", 4); // at once: products poll only while it is 4
    has_number(first, "JobType", CREATE);
    assert_string_equal(rp_cim_get_text(first, "Caption"), "Creating Virtual Machine Snapshot");
    struct rp_cim_datetime removal;
    assert_true(rp_cim_get_datetime(first, "TimeBeforeRemoval", &removal));
    char text[RP_CIM_DATETIME_TEXT];
    assert_string_equal(rp_cim_datetime_format(&removal, text), "00000000000500.000000:000");
    RP_AUTO_FREE char *path = mk_path_text(first->path);
    assert_int_equal(mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_AffectedJobElement", path), 0);
    for (int quarter = 1; quarter < 4; quarter++) {
        atomic_store(&work.stage, quarter);
        uint64_t percent = 0, start = rp_clock_monotonic_ns();
        while (percent != (uint64_t)quarter * 25 && rp_clock_monotonic_ns() - start < DEADLINE_NS) {
            RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *now = poll_job(&mk, id);
            percent = rp_cim_get_unsigned(now, "PercentComplete", 0);
        }
        assert_int_equal(percent, quarter * 25);
    }
    atomic_store(&work.stage, 4);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *last = wait_end(&mk, id);
    has_number(last, "JobState", 7);
    has_number(last, "PercentComplete", 100);
    has_number(last, "ErrorCode", 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *made =
        mk_one(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_AffectedJobElement", path);
    assert_string_equal(rp_hostd_paths_bare(rp_cim_path_get(made->path, "InstanceID")), planned);
    RP_AUTO_FREE char *snapshot = mk_path_text(made->path);
    assert_int_equal(mk_count(&mk, "ASSOCIATORS OF {%s} WHERE ResultClass = CIM_ConcreteJob", snapshot), 1);
    assert_int_equal(mk_count(&mk, "ASSOCIATORS OF {%s} WHERE ResultClass = CIM_Service", path), 1);
    assert_int_equal(work.freed, 1);
    assert_true(audit_has(folder, "state=7 result="));
    close_host(&mk);
    kit_remove_folder(folder);
}

static void a_failed_job_says_why_wherever_clients_look(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    struct work work = {.stage = 4, .fails = RP_ERR_STATE};
    struct rp_hostd_job job = job_of(&work);
    RP_AUTO_FREE char *id = launch(&mk, &job);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *failed = wait_end(&mk, id), *out = NULL, *one = NULL;
    has_number(failed, "JobState", 10);
    has_number(failed, "ErrorCode", 32775);
    static const char said[] = "the disk \"web & co\" is broken (0xC03A001C)"; // and the HRESULT, as Windows does
    assert_string_equal(rp_cim_get_text(failed, "ErrorDescription"), said);
    RP_AUTO_FREE char *summary = rp_xasprintf("Creating Virtual Machine Snapshot failed. %s", said);
    assert_string_equal(rp_cim_get_text(failed, "ErrorSummaryDescription"), summary);
    assert_int_equal(mk_call_on(&mk, failed->path, "GetErrorEx", &out, NULL), 0);
    assert_int_equal(rp_cim_get_count(out, "Errors"), 1);
    const char *text = rp_cim_get_text_at(out, "Errors", 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *error = rp_cimxml_parse(text, strlen(text), NULL);
    assert_non_null(error);
    assert_string_equal(error->class_name, "Msvm_Error");
    assert_string_equal(rp_cim_get_text(error, "Message"), said);
    assert_int_equal(mk_call_on(&mk, failed->path, "GetError", &one, NULL), 0);
    assert_string_equal(rp_cim_get_text(one, "Error"), text);
    assert_true(audit_has(folder, "state=10 error=\"the disk \\\"web & co\\\" is broken (0xC03A001C)\""));
    close_host(&mk);
    kit_remove_folder(folder);
}

static void a_job_is_cancelled_by_who_may_operate(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    struct work work = {.stage = 1};
    struct rp_hostd_job job = job_of(&work);
    RP_AUTO_FREE char *id = launch(&mk, &job);
    mk.caller.access = RP_CIM_READ;
    assert_int_equal(ask(&mk, id, 4), 32769);
    mk.caller.access = RP_CIM_OPERATE;
    assert_int_equal(ask(&mk, id, 3), 32770);
    assert_int_equal(ask(&mk, id, 77), 32773);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *before = poll_job(&mk, id);
    has_number(before, "JobState", 4);
    assert_int_equal(ask(&mk, id, 4), 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *ended = wait_end(&mk, id);
    has_number(ended, "JobState", 8);
    assert_int_equal(ask(&mk, id, 4), 32775); // it has ended
    assert_int_equal(work.freed, 1);
    close_host(&mk);
    kit_remove_folder(folder);
}

static void jobs_run_beside_one_another(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    struct work work = {0};
    struct rp_hostd_job job = job_of(&work);
    char *ids[6];
    for (size_t i = 0; i < 6; i++)
        ids[i] = launch(&mk, &job);
    uint64_t start = rp_clock_monotonic_ns();
    while (atomic_load(&work.running) < 6 && rp_clock_monotonic_ns() - start < DEADLINE_NS)
        sleep_ms(1);
    assert_int_equal(atomic_load(&work.running), 6);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ConcreteJob WHERE JobState = 4"), 6);
    atomic_store(&work.stage, 4);
    for (size_t i = 0; i < 6; i++) {
        rp_cim_instance_free(wait_end(&mk, ids[i]));
        free(ids[i]);
    }
    close_host(&mk);
    kit_remove_folder(folder);
}

static void a_job_is_forgotten_after_its_time_and_not_before(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 2);
    struct work work = {.stage = 4}, slow = {0};
    struct rp_hostd_job job = job_of(&work), waits = job_of(&slow);
    RP_AUTO_FREE char *running = launch(&mk, &waits), *id = launch(&mk, &job);
    rp_cim_instance_free(wait_end(&mk, id));
    uint64_t ended = rp_clock_monotonic_ns();
    sleep_ms(1000);
    size_t count = mk_count(&mk, "SELECT * FROM Msvm_ConcreteJob WHERE InstanceID = '%s'", id);
    if (rp_clock_monotonic_ns() - ended < 1900000000)
        assert_int_equal(count, 1);
    sleep_ms(1200);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ConcreteJob WHERE InstanceID = '%s'", id), 0);
    assert_int_equal(mk_count(&mk, "SELECT * FROM Msvm_ConcreteJob WHERE InstanceID = '%s'", running), 1);
    atomic_store(&slow.stage, 4);
    rp_cim_instance_free(wait_end(&mk, running));
    close_host(&mk);
    kit_remove_folder(folder);
}

static int nothing(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                   struct rp_error *err)
{
    (void)hostd, (void)host, (void)context, (void)result, (void)err;
    return 0;
}

// The best of several rounds: others use this machine as well.
static uint64_t poll_time(struct mk *mk, const char *id)
{
    uint64_t best = UINT64_MAX;
    for (int round = 0; round < 20; round++) {
        uint64_t start = rp_clock_monotonic_ns();
        for (int i = 0; i < 50; i++)
            rp_cim_instance_free(poll_job(mk, id));
        uint64_t took = rp_clock_monotonic_ns() - start;
        best = took < best ? took : best;
    }
    return best;
}

static void ten_thousand_finished_jobs_do_not_slow_a_poll(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    const struct rp_hostd_job job = {.type = CREATE, .caption = "x", .run = nothing};
    RP_AUTO_FREE char *id = launch(&mk, &job);
    rp_cim_instance_free(wait_end(&mk, id));
    uint64_t few = poll_time(&mk, id);
    for (int i = 0; i < 10000; i++)
        free(launch_when_there_is_room(&mk, &job));
    RP_AUTO_FREE char *last = launch_when_there_is_room(&mk, &job);
    rp_cim_instance_free(wait_end(&mk, last));
    uint64_t many = poll_time(&mk, id);
    print_message("# 50 polls: %.2f ms with one job, %.2f ms with 10,000\n", (double)few / 1e6, (double)many / 1e6);
    assert_true(many < few * 4 + 10000000); // going through all of them would take seconds
    assert_int_equal(mk_count(&mk, "SELECT InstanceID FROM Msvm_ConcreteJob"), 10002);
    close_host(&mk);
    kit_remove_folder(folder);
}

static void jobs_that_have_not_ended_are_limited(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    struct work work = {0};
    struct rp_hostd_job job = job_of(&work);
    struct rp_error err = {0};
    size_t count = 0;
    for (char *id; count <= RP_JOB_MOST && (id = try_to_launch(&mk, &job, &err)); count++)
        free(id);
    assert_int_equal(count, RP_JOB_MOST);
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_int_equal(work.freed, 1); // the context of the one that was refused
    atomic_store(&work.stage, 4);
    RP_AUTO_FREE char *last = launch_when_there_is_room(&mk, &job);
    rp_cim_instance_free(wait_end(&mk, last));
    close_host(&mk);
    assert_true(work.freed >= (int)count + 2);
    kit_remove_folder(folder);
}

static void a_planned_id_that_was_not_used_is_given_to_nobody_else(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    RP_AUTO_FREE char *vm = make_vm(&mk, folder, "web"), *planned = rp_hostd_jobs_plan();
    for (int fails = 0; fails < 2; fails++) {
        struct work work = {.stage = 4, .fails = fails ? RP_ERR_STATE : RP_OK}, next = {.stage = 4, .create_for = vm};
        struct rp_hostd_job unused = job_of(&work), creates = job_of(&next);
        unused.result = creates.result = RP_HOSTD_SNAPSHOT;
        unused.planned = planned;
        RP_AUTO_FREE char *first = launch(&mk, &unused);
        rp_cim_instance_free(wait_end(&mk, first));
        RP_AUTO_FREE char *second = launch(&mk, &creates); // by the same connection: there is no other
        rp_cim_instance_free(wait_end(&mk, second));
    }
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType LIKE '%%Snapshot%%'"), 2);
    assert_int_equal(
        mk_count(&mk, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = 'Microsoft:%s'", planned), 0);
    close_host(&mk);
    kit_remove_folder(folder);
}

static void properties_of_a_jobs_class_are_told_and_kept(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    struct work work = {.stage = 4, .tells = true};
    struct rp_hostd_job job = job_of(&work);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *details =
        rp_cim_instance_new(NULL, "Msvm_VirtualSystemReferencePointExportJob");
    rp_cim_set(details, "ExportDirectory", rp_cim_string("/x"));
    job.class_name = "Msvm_VirtualSystemReferencePointExportJob";
    job.type = 203;
    job.details = details;
    RP_AUTO_FREE char *id = launch(&mk, &job);
    rp_cim_instance_free(wait_end(&mk, id));
    for (int round = 0; round < 2; round++) {
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *told =
            mk_one(&mk, "SELECT * FROM Msvm_VirtualSystemReferencePointExportJob WHERE InstanceID = '%s'", id);
        has_number(told, "JobState", 7);
        assert_string_equal(rp_cim_get_text(told, "ExportDirectory"), "/x");
        assert_string_equal(rp_cim_get_text(told, "ExportedConfigFilePath"), "/x/y.vmcx");
        assert_int_equal(rp_cim_get_count(told, "ExportedDisks"), 2);
        assert_string_equal(rp_cim_get_text_at(told, "ExportedDisks", 0), "/x/a & b");
        close_host(&mk);
        open_host(&mk, folder, 0);
    }
    close_host(&mk);
    kit_remove_folder(folder);
}

static void jobs_end_with_the_service_and_say_so_afterwards(void **state)
{
    (void)state;
    struct mk mk;
    char *folder = kit_folder();
    open_host(&mk, folder, 0);
    struct work work = {.stage = 1};
    struct rp_hostd_job job = job_of(&work);
    RP_AUTO_FREE char *id = launch(&mk, &job);
    struct rp_error err = {0};
    RP_AUTO_FREE char *host = rp_path_join(folder, "host");
    const struct rp_hostd_options second = {.directory = host, .machine = "HV1"};
    struct rp_hostd *other = rp_hostd_start(&second, &err); // would take our jobs for leftovers
    assert_null(other);
    assert_int_equal(err.code, RP_ERR_BUSY);
    close_host(&mk);
    open_host(&mk, folder, 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *told = poll_job(&mk, id);
    has_number(told, "JobState", 8);
    close_host(&mk);
    kit_remove_folder(folder);
}

// ---- kills ----------------------------------------------------------------------------------------------------------

enum kill { BEFORE, AFTER };

struct killed {
    const char *name;
    struct rp_hostd_job job;
    int (*act)(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm, const char *extra,
               struct rp_error *err);
    unsigned before, after;        // the state that is told when the act had not, had happened
    bool affected;                 // one element when it had
};

struct doomed {
    const struct killed *killed;
    enum kill when;
    const char *vm, *extra;
    int ready;                     // a pipe: a byte when the kill may come
};

static int run_doomed(struct rp_hostd *hostd, struct rp_host_connection *host, void *context, char result[RP_HOST_ID],
                      struct rp_error *err)
{
    (void)result;
    struct doomed *doomed = context;
    if (doomed->when == AFTER && doomed->killed->act &&
        doomed->killed->act(hostd, host, doomed->vm, doomed->extra, err))
        dprintf(2, "# %s: %s\n", doomed->killed->name, err->text);
    write(doomed->ready, "x", 1);
    while (pause())
        ;
    return 0;
}

static int make_snapshot(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm, const char *extra,
                         struct rp_error *err)
{
    (void)hostd, (void)extra;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    return host->ops->create_snapshot(host, vm, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "x", job, result, err);
}

static int make_point(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm, const char *extra,
                      struct rp_error *err)
{
    (void)hostd, (void)vm;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    return host->ops->convert_to_reference_point(host, extra, job, result, err);
}

static int drop_snapshot(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm, const char *extra,
                         struct rp_error *err)
{
    (void)hostd, (void)vm;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    return host->ops->destroy_snapshot(host, extra, job, result, err);
}

static int turn_on(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm, const char *extra,
                   struct rp_error *err)
{
    (void)hostd, (void)extra;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    return host->ops->request_state(host, vm, RP_VM_RUNNING, job, result, err);
}

// `extra` is a disk file.
static int add_disk(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm, const char *extra,
                    struct rp_error *err)
{
    (void)hostd;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    return host->ops->add_disk(host, vm, extra, job, result, err);
}

static int write_file(struct rp_hostd *hostd, struct rp_host_connection *host, const char *vm, const char *extra,
                      struct rp_error *err)
{
    (void)hostd, (void)host, (void)vm, (void)err;
    FILE *file = fopen(extra, "w");
    return file ? fclose(file) : -1;
}

// In a process of its own, which is killed in the middle. The job's id.
static char *kill_in_the_middle(const char *folder, const struct killed *killed, enum kill when, const char *planned,
                                const char *target, const char *vm, const char *extra)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    RP_AUTO_FREE char *name = rp_path_join(folder, "job-id");
    pid_t pid = fork();
    if (pid == 0) {
        struct mk mk;
        struct doomed doomed = {killed, when, vm, extra, pipes[1]};
        open_host(&mk, folder, 0);
        struct rp_hostd_job job = killed->job;
        job.run = run_doomed;
        job.context = &doomed;
        job.planned = planned;
        job.target = target;
        job.vm_id = vm;
        char *id = launch(&mk, &job);
        kit_write_file(name, id, strlen(id) + 1);
        write(pipes[1], "x", 1);
        for (;;)
            pause();
    }
    char byte[2];
    size_t got = 0;
    close(pipes[1]);
    for (ssize_t n; got < 2 && (n = read(pipes[0], byte, 2 - got)) > 0; got += (size_t)n)
        ;
    close(pipes[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(got, 2);
    char *id = rp_xcalloc(1, 64);
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    assert_true(fread(id, 1, 63, file) > 30);
    fclose(file);
    return id;
}

static char *snapshot_of(const char *folder, const char *vm)
{
    struct mk mk;
    struct rp_error err = {0};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    open_host(&mk, folder, 0);
    struct rp_host_connection *host = rp_hostd_hosts_borrow(mk.hostd, &err);
    kit_ok(host->ops->create_snapshot(host, vm, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_CRASH, "x", job, result, &err),
           err);
    rp_hostd_hosts_return(mk.hostd, host);
    close_host(&mk);
    return rp_xstrdup(result);
}

static void try_kill(const struct killed *killed, enum kill when)
{
    char *folder = kit_folder();
    struct mk mk;
    open_host(&mk, folder, 0);
    RP_AUTO_FREE char *vm = make_vm(&mk, folder, "web");
    close_host(&mk);
    bool snapshot = killed->act == make_point || killed->act == drop_snapshot;
    RP_AUTO_FREE char *file = rp_path_join(folder, "export.vmcx");
    RP_AUTO_FREE char *extra = snapshot ? snapshot_of(folder, vm) : rp_xstrdup(file);
    RP_AUTO_FREE char *plan = killed->job.result == RP_HOSTD_STATE ? rp_xstrdup("2")
                              : killed->job.result == RP_HOSTD_FILE || killed->act == add_disk ? rp_xstrdup(file)
                                                                                               : rp_hostd_jobs_plan();
    bool no_plan = killed->job.makes_gone || killed->job.result == RP_HOSTD_NOTHING ||
                   (killed->job.result == RP_HOSTD_DISK && killed->act != add_disk);
    if (killed->act == add_disk)
        kit_vhdx(file, 4 * RP_MIB);
    RP_AUTO_FREE char *id =
        kill_in_the_middle(folder, killed, when, no_plan ? NULL : plan, snapshot ? extra : vm, vm, extra);
    unsigned expected = when == AFTER ? killed->after : killed->before;
    for (int start = 0; start < 2; start++) { // and told the same at the next start
        open_host(&mk, folder, 0);
        RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = poll_job(&mk, id);
        if (rp_cim_get_unsigned(job, "JobState", 0) != expected)
            fail_msg("%s, killed %s it: told %s", killed->name, when == AFTER ? "after" : "before",
                     rp_cim_get_text(job, "ErrorDescription"));
        has_number(job, "ErrorCode", expected == 7 ? 0 : 32768);
        if (expected == 10)
            assert_non_null(strstr(rp_cim_get_text(job, "ErrorDescription"), (no_plan && !killed->job.makes_gone) || killed->act == turn_on
                                                                                 ? "has to be looked at"
                                                                                 : "it was not done"));
        RP_AUTO_FREE char *path = mk_path_text(job->path);
        assert_int_equal(mk_count(&mk, "ASSOCIATORS OF {%s} WHERE AssocClass = Msvm_AffectedJobElement", path),
                         when == AFTER && killed->affected);
        if (killed->act == turn_on && when == AFTER) { // it runs on, whoever started it
            assert_int_equal(
                mk_count(&mk, "SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s' AND EnabledState = 2", vm), 1);
            struct rp_error err = {0};
            char none[RP_HOST_ID], result[RP_HOST_ID];
            struct rp_host_connection *host = rp_hostd_hosts_borrow(mk.hostd, &err);
            if (start)
                kit_ok(host->ops->request_state(host, vm, RP_VM_OFF, none, result, &err), err);
            rp_hostd_hosts_return(mk.hostd, host);
        }
        close_host(&mk);
    }
    kit_remove_folder(folder);
}

static void after_a_kill_every_job_is_told_with_its_real_outcome(void **state)
{
    (void)state;
    static const struct killed all[] = {
        {"a snapshot that is created",
         {.type = CREATE, .caption = "x", .result = RP_HOSTD_SNAPSHOT},
         make_snapshot,
         10,
         7,
         true},
        {"a snapshot that is converted",
         {.type = 200, .caption = "x", .result = RP_HOSTD_POINT},
         make_point,
         10,
         7,
         true},
        {"a snapshot that is destroyed",
         {.type = 72, .caption = "x", .result = RP_HOSTD_SNAPSHOT, .makes_gone = true},
         drop_snapshot,
         10,
         7,
         false},
        {"a VM that is started", {.type = 12, .caption = "x", .result = RP_HOSTD_STATE}, turn_on, 10, 7, false},
        {"an export", {.type = 62, .caption = "x", .result = RP_HOSTD_FILE}, write_file, 10, 7, false},
        {"a disk that is added", {.type = 30, .caption = "x", .result = RP_HOSTD_DISK}, add_disk, 10, 7, true},
        {"a disk of which nobody knows", {.type = 1, .caption = "x", .result = RP_HOSTD_DISK}, write_file, 10, 10, false},
        {"what nobody can tell", {.type = 1, .caption = "x", .result = RP_HOSTD_NOTHING}, write_file, 10, 10, false},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        try_kill(&all[i], BEFORE);
        try_kill(&all[i], AFTER);
    }
}

static void a_file_that_was_there_before_does_not_say_that_a_job_made_it(void **state)
{
    (void)state;
    static const struct killed killed = {
        "an export", {.type = 62, .caption = "x", .result = RP_HOSTD_FILE}, write_file, 10, 7, false};
    char *folder = kit_folder();
    struct mk mk;
    open_host(&mk, folder, 0);
    RP_AUTO_FREE char *vm = make_vm(&mk, folder, "web"), *file = rp_path_join(folder, "export.vmcx");
    close_host(&mk);
    kit_write_file(file, "of an earlier one", 17);
    RP_AUTO_FREE char *id = kill_in_the_middle(folder, &killed, BEFORE, file, vm, vm, file);
    open_host(&mk, folder, 0);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *job = poll_job(&mk, id);
    has_number(job, "JobState", 10);
    assert_non_null(strstr(rp_cim_get_text(job, "ErrorDescription"), "has to be looked at"));
    close_host(&mk);
    kit_remove_folder(folder);
}

static void codes_are_those_of_the_methods_family(void **state)
{
    (void)state;
    static const struct {
        enum rp_code code;
        int sys;
        uint32_t dmtf, hyperv;
    } cases[] = {
        {RP_OK, 0, 0, 0}, {RP_ERR_UNSUPPORTED, 0, 1, 32770}, {RP_ERR_IO, 5, 2, 32768}, {RP_ERR_INVALID, 0, 4, 32773},
        {RP_ERR_STATE, 0, 5, 32775}, {RP_ERR_BUSY, 0, 5, 32774}, {RP_ERR_PERMISSION, 0, 32769, 32769},
        {RP_ERR_NOT_FOUND, 0, 4, 32773}, {RP_ERR_NOT_FOUND, 2, 4, 32779}, {RP_ERR_TRACKING_ID, 0, 4, 32773},
        {RP_ERR_NO_MEMORY, 0, 2, 32778}, {RP_ERR_CANCELLED, 0, 2, 32768},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_error err = {.code = cases[i].code, .sys = cases[i].sys};
        assert_int_equal(rp_hostd_jobs_code(&err, false), cases[i].dmtf);
        assert_int_equal(rp_hostd_jobs_code(&err, true), cases[i].hyperv);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_is_told_from_its_start_to_its_end),
        cmocka_unit_test(a_failed_job_says_why_wherever_clients_look),
        cmocka_unit_test(a_job_is_cancelled_by_who_may_operate),
        cmocka_unit_test(jobs_run_beside_one_another),
        cmocka_unit_test(a_job_is_forgotten_after_its_time_and_not_before),
        cmocka_unit_test(ten_thousand_finished_jobs_do_not_slow_a_poll),
        cmocka_unit_test(jobs_that_have_not_ended_are_limited),
        cmocka_unit_test(a_planned_id_that_was_not_used_is_given_to_nobody_else),
        cmocka_unit_test(properties_of_a_jobs_class_are_told_and_kept),
        cmocka_unit_test(jobs_end_with_the_service_and_say_so_afterwards),
        cmocka_unit_test(after_a_kill_every_job_is_told_with_its_real_outcome),
        cmocka_unit_test(a_file_that_was_there_before_does_not_say_that_a_job_made_it),
        cmocka_unit_test(codes_are_those_of_the_methods_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
