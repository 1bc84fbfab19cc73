// What is common to all host connections: waiting for jobs, and changes from a host that may say anything.
#include "host-kit.h"

#define DISK ((uint64_t)1 << 20)

struct fake {
    struct rp_host_connection connection;
    int polls, needed;          // job_state calls so far, and until it ends
    enum rp_job_phase end;
    struct rp_error failure;
    struct rp_range ranges[4];  // one per call of disk_changes
    uint64_t processed[4];
    int calls;
};

static int job_state(struct rp_host_connection *host, const char *job, struct rp_job_state *state, struct rp_error *err)
{
    struct fake *fake = (struct fake *)host;
    (void)err;
    assert_string_equal(job, "job 1");
    *state = (struct rp_job_state){.phase = RP_JOB_RUNNING, .percent = 10};
    if (++fake->polls < fake->needed)
        return 0;
    state->phase = fake->end;
    state->error = fake->failure;
    snprintf(state->result, sizeof state->result, "made");
    return 0;
}

static int disk_changes(struct rp_host_connection *host, const char *path, const char *limit_id, uint64_t offset, uint64_t length,
                        struct rp_ranges *changed, uint64_t *processed, struct rp_error *err)
{
    struct fake *fake = (struct fake *)host;
    (void)path, (void)limit_id, (void)err;
    assert_int_equal(offset + length, DISK);
    assert_true(fake->calls < 4);
    if (fake->ranges[fake->calls].length)
        rp_ranges_push(changed, fake->ranges[fake->calls].offset, fake->ranges[fake->calls].length);
    *processed = fake->processed[fake->calls++];
    return 0;
}

static const struct rp_host_ops ops = {.job_state = job_state, .disk_changes = disk_changes};

static struct fake fake_host(int needed, enum rp_job_phase end)
{
    static char address[] = "fake:";
    return (struct fake){.connection = {.ops = &ops, .address = address}, .needed = needed, .end = end};
}

static void a_method_without_a_job_is_done(void **state)
{
    (void)state;
    struct rp_error err = {0};
    struct fake fake = fake_host(1, RP_JOB_COMPLETED);
    char result[RP_HOST_ID] = "kept";
    kit_ok(rp_host_wait(&fake.connection, "", result, NULL, NULL, &err), err);
    assert_string_equal(result, "kept");
    assert_int_equal(fake.polls, 0);
}

static void a_job_is_waited_for_and_its_result_taken(void **state)
{
    (void)state;
    struct rp_error err = {0};
    struct fake fake = fake_host(4, RP_JOB_COMPLETED);
    char result[RP_HOST_ID] = "";
    kit_ok(rp_host_wait(&fake.connection, "job 1", result, NULL, NULL, &err), err);
    assert_string_equal(result, "made");
    assert_int_equal(fake.polls, 4);
}

static void a_failed_job_fails_the_call_with_its_own_cause(void **state)
{
    (void)state;
    struct rp_error err = {0};
    char result[RP_HOST_ID] = "";
    struct fake fake = fake_host(2, RP_JOB_FAILED);
    rp_fail(&fake.failure, RP_ERR_NO_SPACE, "volume D: is %d %% full", 100);
    rp_error_clear(&err);
    assert_int_equal(rp_host_wait(&fake.connection, "job 1", result, NULL, NULL, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    assert_string_equal(err.text, "volume D: is 100 % full");
    struct fake silent = fake_host(2, RP_JOB_FAILED);
    kit_fails(rp_host_wait(&silent.connection, "job 1", result, NULL, NULL, &err), err, RP_ERR_IO);
    assert_string_equal(result, "");
}

static int stop_at_third(void *context) { return ++*(int *)context == 3; }

static void waiting_can_be_given_up(void **state)
{
    (void)state;
    struct rp_error err = {0};
    struct fake fake = fake_host(1000000, RP_JOB_COMPLETED);
    char result[RP_HOST_ID] = "";
    int asked = 0;
    kit_fails(rp_host_wait(&fake.connection, "job 1", result, stop_at_third, &asked, &err), err, RP_ERR_CANCELLED);
    assert_int_equal(asked, 3);
}

static void changes_are_asked_for_until_the_whole_disk_is_covered(void **state)
{
    (void)state;
    struct rp_error err = {0};
    RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
    struct fake fake = fake_host(0, 0);
    fake.ranges[0] = (struct rp_range){65536, 65536};
    fake.processed[0] = 131072;
    fake.ranges[1] = (struct rp_range){131072, 512};
    fake.processed[1] = 512;
    fake.processed[2] = DISK - 131072 - 512;
    kit_ok(rp_host_all_changes(&fake.connection, "x", "id", DISK, &ranges, &err), err);
    assert_int_equal(fake.calls, 3);
    assert_int_equal(ranges.count, 1);
    assert_int_equal(ranges.items[0].offset, 65536);
    assert_int_equal(ranges.items[0].length, 65536 + 512);
}

static void a_host_that_skips_a_part_of_the_disk_is_not_believed(void **state)
{
    (void)state;
    static const uint64_t processed[] = {0, DISK + 1, UINT64_MAX};
    for (size_t i = 0; i < 3; i++) {
        struct rp_error err = {0};
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges ranges = {0};
        struct fake fake = fake_host(0, 0);
        fake.processed[0] = processed[i];
        kit_fails(rp_host_all_changes(&fake.connection, "x", "id", DISK, &ranges, &err), err, RP_ERR_CORRUPT);
        assert_int_equal(ranges.count, 0);
    }
}

static void a_range_outside_the_disk_is_not_believed(void **state)
{
    (void)state;
    static const struct rp_range ranges[] = {{DISK, 512}, {0, DISK + 512}, {UINT64_MAX - 511, 1024}, {512, UINT64_MAX}};
    for (size_t i = 0; i < 4; i++) {
        struct rp_error err = {0};
        RP_CLEANUP(rp_ranges_clear) struct rp_ranges changed = {0};
        struct fake fake = fake_host(0, 0);
        fake.ranges[0] = ranges[i];
        fake.processed[0] = DISK;
        kit_fails(rp_host_all_changes(&fake.connection, "x", "id", DISK, &changed, &err), err, RP_ERR_CORRUPT);
    }
}

int main(void)
{
    const struct CMUnitTest waiting[] = {
        cmocka_unit_test(a_method_without_a_job_is_done),
        cmocka_unit_test(a_job_is_waited_for_and_its_result_taken),
        cmocka_unit_test(a_failed_job_fails_the_call_with_its_own_cause),
        cmocka_unit_test(waiting_can_be_given_up),
        cmocka_unit_test(changes_are_asked_for_until_the_whole_disk_is_covered),
        cmocka_unit_test(a_host_that_skips_a_part_of_the_disk_is_not_believed),
        cmocka_unit_test(a_range_outside_the_disk_is_not_believed),
    };
    return cmocka_run_group_tests(waiting, NULL, NULL);
}
