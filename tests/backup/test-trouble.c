// Backups of a fake host in trouble: interrupted at every call, hosts that are gone, others at work on the same VM.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "world.h"

static int setup(void **state)
{
    struct world *world = malloc(sizeof *world);
    world_init(world);
    *state = world;
    return 0;
}
static int teardown(void **state)
{
    world_clear(*state);
    free(*state);
    return 0;
}

// ---- interrupted ----------------------------------------------------------------------------------------------------

static void stop_in_verb(struct fake_host *fake, const char *verb)
{
    struct world *world = fake->context;
    (void)verb;
    if (fake->calls + 1 == world->stop_at)
        world->stop = 1;
}

static void by_export(struct world *world)
{
    fake_use_files(&world->fake, world->folder);
    world->options.open_reader = NULL;
    world->options.reader = RP_READER_EXPORT;
    world->options.export_folder = "E:\\Export";
}

static bool told(const struct world *world, const char *text) { return strstr(world->error.text, text) != NULL; }

// Stopped at each call in turn, while each job of the host takes a while: nothing stays on the host but what the
// message names, and the next backup removes that.
static void interrupt_at_every_call(struct world *world, enum fake_cancel cancel, bool exported)
{
    struct fake_host *fake = &world->fake;
    unsigned cancelled = 0, late = 0;
    if (exported)
        by_export(world);
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    fake->context = world;
    fake->cancel = cancel;
    world->options.cancel_timeout_ms = cancel == FAKE_CANCEL_IGNORED ? 20 : 0;
    for (unsigned n = 1;; n++) {
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        fake->before = stop_in_verb;
        fake->slow = 2;
        fake->asked_to_end = 0;
        world->stop_at = n;
        int result = world_backup(world);
        bool reached = world->stop;
        fake->before = NULL;
        fake->slow = 0;
        world->stop = 0;
        if (!reached)
            break;
        if (result) {
            assert_int_equal(world->error.code, RP_ERR_CANCELLED);
            assert_true(told(world, "interrupted: "));
            assert_null(strchr(world->error.text, '\n'));
            cancelled++;
        } else {
            late += fake->asked_to_end; // it was too late, and the backup is good
        }
        bool goes_on = told(world, "may still finish it");
        assert_true(fake->asked_to_end || !told(world, "asked to"));
        fake_jobs_finish(fake);
        unsigned more = fake_count(fake, true) + fake_count(fake, false) - 1;
        if (more && !goes_on)
            fail_msg("call %u: %u left: %s", n, more, world->error.text);
        const struct rp_point *point = world_must_backup(world);
        assert_string_equal(point->kind, "incremental");
        assert_int_equal(world->last.orphans, more);
        assert_int_equal(fake_count(fake, true), 0);
        assert_int_equal(fake_count(fake, false), 1);
        if (exported)
            assert_int_equal(world_files_below(world, "../exports"), 0);
    }
    assert_true(cancelled >= 10);
    assert_true((late > 0) == (cancel == FAKE_CANCEL_TOO_LATE || cancel == FAKE_CANCEL_REFUSED));
    world_verify(world);
}

static void interrupted_in_turn_with_a_host_that_ends_its_jobs(void **state)
{
    interrupt_at_every_call(*state, FAKE_CANCEL_ENDS, false);
}
static void interrupted_in_turn_with_a_host_that_is_done_by_then(void **state)
{
    interrupt_at_every_call(*state, FAKE_CANCEL_TOO_LATE, false);
}
static void interrupted_in_turn_with_a_host_that_refuses_to_end_its_jobs(void **state)
{
    interrupt_at_every_call(*state, FAKE_CANCEL_REFUSED, false);
}
static void interrupted_in_turn_with_a_host_that_goes_on_for_ever(void **state)
{
    interrupt_at_every_call(*state, FAKE_CANCEL_IGNORED, false);
}
static void interrupted_in_turn_an_export_is_ended_and_removed(void **state)
{
    interrupt_at_every_call(*state, FAKE_CANCEL_ENDS, true);
}
static void interrupted_in_turn_an_export_that_goes_on_is_removed_later(void **state)
{
    interrupt_at_every_call(*state, FAKE_CANCEL_IGNORED, true);
}

static void an_interrupted_backup_says_in_one_line_what_it_did(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->stop = 1; // before anything
    assert_int_equal(world_backup(world), -1);
    assert_string_equal(world->error.text, "interrupted: nothing was made on the host");
    world->stop = 0;
    world->fake.context = world;
    world->fake.before = stop_in_verb;
    world->fake.slow = 2;
    world->stop_at = 4; // the first look at the job of the checkpoint
    assert_int_equal(world_backup(world), -1);
    assert_string_equal(world->error.text, "interrupted: the host ended the checkpoint when it was asked to, "
                                           "nothing of it is on the host");
    assert_int_equal(world->remarks, 0);
}

// ---- a host that is gone --------------------------------------------------------------------------------------------

// From one call on nobody answers any more, with that call's work done or not: the next backup is as good as ever, and
// removes what is left.
static void lose_at_every_call(struct world *world, bool after, bool exported)
{
    struct fake_host *fake = &world->fake;
    unsigned failures = 0, kept = 0;
    if (exported)
        by_export(world);
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    for (unsigned n = 1;; n++) {
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        fake->lost_from = after ? n + 1 : n;
        fake->fail_at = after ? n : 0;
        fake->fail_after = after;
        fake->failed_verb = NULL;
        int result = world_backup(world);
        fake->lost_from = fake->fail_at = 0;
        if (!fake->failed_verb)
            break;
        failures += result != 0;
        kept += !result;
        unsigned more = fake_count(fake, true) + fake_count(fake, false) - 1;
        if (more || !result)
            assert_true(world->remarks > 0);
        assert_string_equal(world_must_backup(world)->kind, "incremental");
        assert_int_equal(fake_count(fake, true), 0);
        assert_int_equal(fake_count(fake, false), 1);
        if (exported)
            assert_int_equal(world_files_below(world, "../exports"), 0);
    }
    assert_true(failures >= 8);
    assert_true(kept >= 1); // once the checkpoint was converted, all that was read is good
    world_verify(world);
}

static void a_host_that_is_gone_from_any_call_on_costs_at_most_one_backup(void **state)
{
    lose_at_every_call(*state, false, false);
}
static void a_host_that_is_gone_after_any_call_costs_at_most_one_backup(void **state)
{
    lose_at_every_call(*state, true, false);
}
static void a_host_that_is_gone_while_it_exports_costs_at_most_one_backup(void **state)
{
    lose_at_every_call(*state, true, true);
}

static void fail_the_list(struct fake_host *fake, const char *verb)
{
    struct world *world = fake->context;
    if (!strcmp(verb, "convert_to_reference_point"))
        world->stop_at = 1;
    else if (world->stop_at && !strcmp(verb, "list_reference_points"))
        fake->fail_at = fake->calls + 1;
}

// All of it was read, and the checkpoint was there until then.
static void a_host_that_is_lost_after_the_conversion_does_not_cost_the_backup(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 1000, 1000);
    world->stop_at = 0;
    world->fake.before = fail_the_list;
    world->fake.context = world;
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    assert_null(world->last.point.reference_point);
    assert_true(world->remarks > 0);
    assert_int_equal(fake_count(&world->fake, false), 2); // the older one stays: the next goes on from it
    world->fake.before = NULL;
    world->fake.fail_at = 0;
    world_write(world, 0, 5000, 1000);
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    assert_int_equal(fake_count(&world->fake, false), 1);
    world_verify(world);
}

// ---- a restore point that cannot be read ----------------------------------------------------------------------------

static void lose_newest(struct world *world)
{
    snprintf(world->backend->bad_sector, sizeof world->backend->bad_sector, "points/%s", world->last.point.id);
}

static void a_point_that_cannot_be_read_keeps_its_reference_point_until_there_is_a_newer_one(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 1000, 1000);
    lose_newest(world);
    world->fake.wrong_size = true;
    assert_int_equal(world_backup(world), -1);
    assert_int_equal(fake_count(&world->fake, false), 1);
    world->fake.wrong_size = false;
    *world->backend->bad_sector = 0;
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    lose_newest(world);
    assert_string_equal(world_must_backup(world)->kind, "full");
    assert_int_equal(world->last.orphans, 0);
    assert_int_equal(fake_count(&world->fake, false), 1); // its own
    *world->backend->bad_sector = 0;
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    world_verify(world);
}

static void a_point_that_could_not_be_read_is_older_than_those_after_it_whatever_the_clock_says(void **state)
{
    struct world *world = *state;
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    world_small_disk(world, RP_MIB);
    world_must_backup(world);
    world_must_backup(world);
    lose_newest(world);
    world->fake.time_ns = world->last.point.time_ns - 3600 * INT64_C(1000000000);
    world_must_backup(world);
    *world->backend->bad_sector = 0;
    assert_int_equal(rp_repo_points(world->repo, &points, NULL), 0);
    assert_int_equal(points.count, 3);
    assert_string_equal(points.items[2].id, world->last.point.id);
    world_verify(world);
}

// Done twice, it can be read again.
static void toggle_damage(struct world *world, const char *point)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/repo/points/%s", world->folder, point);
    uint8_t byte;
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, 100), 1);
    byte ^= 0x80;
    assert_int_equal(pwrite(fd, &byte, 1, 100), 1);
    assert_int_equal(close(fd), 0);
}

static void put_point_of_another_vm(struct world *world, char id[RP_POINT_ID])
{
    struct rp_error err = {0};
    struct rp_point point = {.vm_id = (char *)"another", .time_ns = (int64_t)world_random(world, 1000000)};
    struct rp_repo_session *session = rp_repo_session_begin(world->repo, "a backup of VM another", NULL, 0, &err);
    if (!session || rp_repo_commit(session, &point, &err))
        fail_msg("%s", err.text);
    rp_repo_session_end(session);
    memcpy(id, point.id, RP_POINT_ID);
}

static void delete_point(const struct world *world, const char *point)
{
    RP_AUTO_FREE char *path = rp_xasprintf("%s/repo/points/%s", world->folder, point);
    assert_int_equal(unlink(path), 0);
}

// The clock of the host goes back all the time: nothing but the numbers says which point is the newest.
static void back_up_before(struct world *world, char id[RP_POINT_ID])
{
    world->fake.time_ns -= 3600 * INT64_C(1000000000);
    memcpy(id, world_must_backup(world)->id, RP_POINT_ID);
}

static void expect_order(struct world *world, char (*ids)[RP_POINT_ID], size_t count)
{
    RP_CLEANUP(rp_points_clear) struct rp_points points = {0};
    assert_int_equal(rp_repo_points_of(world->repo, world->fake.vm.id, &points, NULL), 0);
    assert_int_equal(points.count, count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(points.items[i].id, ids[i]);
}

static void damage_of_other_vms_makes_no_older_point_the_newest(void **state)
{
    struct world *world = *state;
    char ids[4][RP_POINT_ID], others[3][RP_POINT_ID];
    world->fake.time_ns = INT64_C(1700000000000000000);
    world_small_disk(world, RP_MIB);
    back_up_before(world, ids[0]);
    for (unsigned i = 0; i < 3; i++) {
        put_point_of_another_vm(world, others[i]);
        toggle_damage(world, others[i]);
    }
    back_up_before(world, ids[1]);
    for (unsigned i = 0; i < 3; i++)
        toggle_damage(world, others[i]);
    toggle_damage(world, ids[1]); // this one alone
    back_up_before(world, ids[2]);
    toggle_damage(world, ids[2]);
    back_up_before(world, ids[3]);
    toggle_damage(world, ids[1]);
    toggle_damage(world, ids[2]);
    expect_order(world, ids, 4);
}

// Whichever of them cannot be read at the time, and whichever are deleted.
static void points_are_in_the_order_of_their_commits_whatever_happened_to_others(void **state)
{
    struct world *world = *state;
    enum { COUNT = 24 };
    char ids[COUNT][RP_POINT_ID], others[COUNT][RP_POINT_ID];
    size_t count = 0, other_count = 0;
    rp_log_set_level(RP_LOG_ERROR); // hundreds of warnings
    world->fake.time_ns = INT64_C(1700000000000000000);
    world_small_disk(world, RP_MIB);
    for (unsigned i = 0; i < COUNT; i++) {
        char lost[2 * COUNT][RP_POINT_ID], id[RP_POINT_ID];
        size_t lost_count = 0;
        put_point_of_another_vm(world, others[other_count++]);
        if (world_random(world, 4) == 0) { // the oldest ones, as whoever needs room does it
            size_t gone = world_random(world, count + 1);
            for (size_t j = 0; j < gone; j++)
                delete_point(world, ids[j]);
            memmove(ids, ids + gone, (count -= gone) * sizeof *ids);
        }
        for (size_t j = 0; j < count + other_count; j++)
            if (world_random(world, 2))
                memcpy(lost[lost_count++], j < count ? ids[j] : others[j - count], RP_POINT_ID);
        for (size_t j = 0; j < lost_count; j++)
            toggle_damage(world, lost[j]);
        back_up_before(world, id);
        for (size_t j = 0; j < lost_count; j++)
            toggle_damage(world, lost[j]);
        memcpy(ids[count++], id, sizeof id);
        expect_order(world, ids, count);
    }
    rp_log_set_level(RP_LOG_WARNING);
}

// ---- others at work on the same VM ----------------------------------------------------------------------------------

struct other {
    struct world *world;
    struct rp_repo *repo;
    const char *verb;
    struct rp_backup_result result;
    struct rp_error err;
    uint8_t *then;      // what the disk held when the other machine made its checkpoint
    int status;
};

static void another_machine(struct fake_host *fake, const char *verb)
{
    struct other *other = fake->context;
    if (strcmp(verb, other->verb))
        return;
    fake->before = NULL;
    struct fake_disk *disk = &fake->disks[0];
    struct rp_vm vm = fake->vm;
    world_write(other->world, 0, world_random(other->world, RP_MIB), 5000); // in this one's checkpoint only
    free(other->then);
    other->then = memcpy(rp_xmalloc(disk->size), disk->data, disk->size);
    unsigned calls = fake->calls;
    rp_backup_result_clear(&other->result);
    rp_error_clear(&other->err);
    other->status = rp_backup_run(&fake->host, other->repo, &vm, &other->world->options, &other->result, &other->err);
    fake->calls = calls;
}

static void expect_content(struct other *other)
{
    const struct rp_repo_root *root = &other->result.point.disks[0].root;
    RP_AUTO_FREE uint8_t *data = rp_xmalloc(root->size);
    struct rp_error err = {0};
    if (rp_repo_read(other->repo, root, 0, data, root->size, &err))
        fail_msg("%s", err.text);
    assert_memory_equal(data, other->then, root->size);
}

// Two machines back the VM up into a repository each; the second begins and ends in the middle of the first.
static void two_machines_at_once_do_not_disturb_each_other(void **state)
{
    struct world *world = *state;
    struct fake_backend *backend;
    // From the moment on in which the first has its checkpoint: what is written then is in the second's alone.
    static const char *const verbs[] = {"snapshot_settings", "open_reader", "convert_to_reference_point",
                                        "destroy_reference_point"};
    struct other other = {.world = world, .repo = world_open_repo(world, "other", &backend)};
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        other.verb = verbs[i];
        world->fake.context = &other;
        world->fake.before = another_machine;
        assert_string_equal(world_must_backup(world)->kind, "incremental");
        assert_null(world->fake.before);
        if (other.status)
            fail_msg("%s: %s", verbs[i], other.err.text);
        expect_content(&other);
        assert_string_equal(other.result.point.kind, i ? "incremental" : "full");
        assert_int_equal(fake_count(&world->fake, true), 0);
        assert_string_equal(world_must_backup(world)->kind, "incremental");
    }
    assert_int_equal(fake_count(&world->fake, false), 2); // each has its own
    world_verify(world);
    free(other.then);
    rp_backup_result_clear(&other.result);
    rp_repo_close(other.repo);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(interrupted_in_turn_with_a_host_that_ends_its_jobs),
        TEST(interrupted_in_turn_with_a_host_that_is_done_by_then),
        TEST(interrupted_in_turn_with_a_host_that_refuses_to_end_its_jobs),
        TEST(interrupted_in_turn_with_a_host_that_goes_on_for_ever),
        TEST(interrupted_in_turn_an_export_is_ended_and_removed),
        TEST(interrupted_in_turn_an_export_that_goes_on_is_removed_later),
        TEST(an_interrupted_backup_says_in_one_line_what_it_did),
        TEST(a_host_that_is_gone_from_any_call_on_costs_at_most_one_backup),
        TEST(a_host_that_is_gone_after_any_call_costs_at_most_one_backup),
        TEST(a_host_that_is_gone_while_it_exports_costs_at_most_one_backup),
        TEST(a_host_that_is_lost_after_the_conversion_does_not_cost_the_backup),
        TEST(a_point_that_cannot_be_read_keeps_its_reference_point_until_there_is_a_newer_one),
        TEST(a_point_that_could_not_be_read_is_older_than_those_after_it_whatever_the_clock_says),
        TEST(damage_of_other_vms_makes_no_older_point_the_newest),
        TEST(points_are_in_the_order_of_their_commits_whatever_happened_to_others),
        TEST(two_machines_at_once_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests_name("backup in trouble", tests, NULL, NULL);
}
