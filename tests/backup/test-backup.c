// Backups of a fake host: what is read, what is stored, what is left behind.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "backup/tag.h"
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

// ---- what is read ---------------------------------------------------------------------------------------------------

static void the_first_backup_is_full_and_the_next_ones_are_incremental(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->kind, "full");
    assert_string_equal(point->reason, "first backup of this VM");
    char first[RP_POINT_ID];
    memcpy(first, point->id, sizeof first);
    world_write(world, 0, 100000, 5000);
    point = world_must_backup(world);
    assert_string_equal(point->kind, "incremental");
    assert_null(point->reason);
    assert_string_equal(point->base_point, first);
    assert_int_equal(world->remarks, 0);
    world_verify(world);
}

static void a_full_backup_never_reads_a_hole(void **state)
{
    struct world *world = *state;
    fake_add_disk(&world->fake, 64 * RP_MIB);
    world_write(world, 0, 0, 1);
    world_write(world, 0, 33 * RP_MIB, FAKE_UNIT);
    world_must_backup(world);
    assert_int_equal(world->fake.bytes_read, 2 * FAKE_UNIT);
    world_verify(world);
}

static void an_incremental_reads_the_changed_units_and_no_others(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 64 * RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 10 * RP_MIB - 1, 2);
    world_write(world, 0, 50 * RP_MIB, 3);
    world_must_backup(world);
    assert_int_equal(world->fake.bytes_read, 3 * FAKE_UNIT);
    assert_int_equal(world->last.point.disks[0].bytes_changed, 3 * FAKE_UNIT);
    world_verify(world);
}

static void an_incremental_without_changes_reads_and_stores_nothing(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    struct rp_repo_root before = world->last.point.disks[0].root;
    world_must_backup(world);
    assert_int_equal(world->fake.bytes_read, 0);
    assert_int_equal(world->last.point.new_blocks, 0);
    assert_memory_equal(&before, &world->last.point.disks[0].root, sizeof before);
    world_verify(world);
}

static void trimmed_space_becomes_zero_without_being_read(void **state)
{
    struct world *world = *state;
    fake_add_disk(&world->fake, 16 * RP_MIB);
    world_write(world, 0, 0, 8 * RP_MIB);
    world_must_backup(world);
    fake_trim(&world->fake, 0, 2 * RP_MIB, 4 * RP_MIB);
    world_write(world, 0, 3 * RP_MIB, 10);
    world_must_backup(world);
    assert_int_equal(world->fake.bytes_read, FAKE_UNIT);
    world_verify(world);
}

static void a_disk_whose_size_is_no_multiple_of_a_block_is_exact(void **state)
{
    struct world *world = *state;
    fake_add_disk(&world->fake, 3 * RP_MIB + 512 * 7);
    world_write(world, 0, 3 * RP_MIB, 512 * 7);
    world_must_backup(world);
    world_write(world, 0, 3 * RP_MIB + 512, 600);
    world_must_backup(world);
    world_verify(world);
}

static void asked_for_a_full_backup_everything_allocated_is_read(void **state)
{
    struct world *world = *state;
    fake_add_disk(&world->fake, 4 * RP_MIB);
    world_write(world, 0, RP_MIB, RP_MIB);
    world_must_backup(world);
    world->options.full = true;
    const struct rp_point *point = world_must_backup(world);
    assert_int_equal(world->fake.bytes_read, RP_MIB);
    assert_string_equal(point->reason, "asked for a full backup");
    world_verify(world);
}

// ---- disks that come, go and change ---------------------------------------------------------------------------------

static void an_added_disk_is_read_in_full_and_the_others_incrementally(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    world_small_disk(world, 2 * RP_MIB);
    world_write(world, 0, 0, 10);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->kind, "incremental");
    assert_string_equal(point->disks[0].kind, "incremental");
    assert_string_equal(point->disks[1].kind, "full");
    assert_string_equal(point->disks[1].reason, "disk was added");
    assert_string_equal(point->reason, "disk 1: disk was added");
    world_verify(world);
}

static void a_removed_disk_leaves_the_others_incremental(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    fake_remove_disk(&world->fake, 0);
    world_write(world, 1, 5, 10);
    const struct rp_point *point = world_must_backup(world);
    assert_int_equal(point->disk_count, 1);
    assert_string_equal(point->kind, "incremental");
    world_verify(world);
}

static void another_disk_in_the_place_of_a_removed_one_is_read_in_full(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    fake_remove_disk(&world->fake, 0);
    world_small_disk(world, 4 * RP_MIB); // same number and instance
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->disks[0].reason, "disk was added");
    world_verify(world);
}

static void a_grown_disk_stays_incremental(void **state)
{
    struct world *world = *state;
    static const uint64_t sizes[] = {4 * RP_MIB, 4 * RP_MIB + 512, 5 * RP_MIB + 1024, 9 * RP_MIB};
    fake_add_disk(&world->fake, 3 * RP_MIB + 512);
    world_write(world, 0, 2 * RP_MIB, RP_MIB + 512);
    world_must_backup(world);
    for (size_t i = 0; i < 4; i++) {
        uint64_t old = world->fake.disks[0].size;
        fake_resize(&world->fake, 0, sizes[i]);
        if (i % 2)
            world_write(world, 0, old, sizes[i] - old);
        const struct rp_point *point = world_must_backup(world);
        assert_string_equal(point->kind, "incremental");
        world_verify(world);
    }
}

static void what_a_disk_grew_by_is_read_whatever_the_host_says_of_it(void **state)
{
    struct world *world = *state;
    uint64_t old = 2 * RP_MIB + 512; // ends inside a block
    fake_add_disk(&world->fake, old);
    world_write(world, 0, 2 * RP_MIB, 512);
    world_must_backup(world);
    fake_resize(&world->fake, 0, 4 * RP_MIB);
    world_write(world, 0, old, 100000);
    memset(world->fake.disks[0].since, 0, 4 * RP_MIB / FAKE_UNIT * sizeof(uint32_t));
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    world_verify(world);
}

static void a_shrunk_disk_is_read_in_full_with_the_reason(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    fake_resize(&world->fake, 0, 2 * RP_MIB);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->disks[0].reason, "disk shrank from 4.0 MiB to 2.0 MiB");
    world_verify(world);
}

static void a_disk_that_was_not_tracked_is_read_in_full(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world->fake.disks[0].untracked = true;
    world_must_backup(world);
    assert_null(world->last.point.disks[0].rct_id);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->disks[0].reason, "disk was not tracked at the last backup");
    world_verify(world);
}

static void an_id_outside_the_lineage_means_a_full_read_and_a_remark(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    world->fake.disks[0].tracking = rp_guid_new(); // opened as a copy, rolled back, restored, …
    world_write(world, 0, 7, 9);
    world->fake.disks[0].since[0] = 0; // and the tracker does not know of it
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->kind, "full");
    assert_non_null(strstr(point->reason, "changes are not known"));
    assert_int_equal(world->remarks, 1);
    world_verify(world);
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    world_verify(world);
}

static void without_its_reference_point_a_backup_is_full(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    fake_forget_points(&world->fake);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->reason, "the host has no reference point of an earlier backup any more");
    world_verify(world);
}

static void random_changes_to_random_disks_restore_exactly(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB + 512);
    unsigned incremental = 0;
    for (unsigned round = 0; round < 60; round++) {
        unsigned slot = (unsigned)world_random(world, FAKE_MAX);
        struct fake_disk *disk = &world->fake.disks[slot];
        uint64_t change = world_random(world, 12);
        if (!disk->present && change < 3) {
            world_small_disk(world, 512 * (100 + world_random(world, 6000)));
        } else if (disk->present && slot && change == 4) {
            fake_remove_disk(&world->fake, slot);
        } else if (disk->present && change == 5 && disk->size < 8 * RP_MIB) {
            fake_resize(&world->fake, slot, disk->size + 512 * world_random(world, 3000));
        } else if (disk->present && change == 6 && disk->size > RP_MIB) {
            fake_resize(&world->fake, slot, disk->size - 512 * (1 + world_random(world, 1000)));
        } else if (disk->present && change == 7) {
            disk->tracking = rp_guid_new();
        }
        for (unsigned i = 0; i < FAKE_MAX; i++) {
            disk = &world->fake.disks[i];
            for (uint64_t n = disk->present ? world_random(world, 4) : 0; n; n--) {
                uint64_t offset = world_random(world, disk->size), length = rp_min64(1 + world_random(world, 150000), disk->size - offset);
                if (world_random(world, 4))
                    world_write(world, i, offset, length);
                else if (rp_align_up(offset, FAKE_UNIT) + FAKE_UNIT <= disk->size)
                    fake_trim(&world->fake, i, rp_align_up(offset, FAKE_UNIT), FAKE_UNIT);
            }
        }
        incremental += !strcmp(world_must_backup(world)->kind, "incremental");
    }
    world_verify(world);
    assert_in_range(incremental, 30, 60);
    assert_int_equal(fake_count(&world->fake, false), 1);
}

// ---- hosts that lie -------------------------------------------------------------------------------------------------

static void change_lists_in_any_order_and_overlapping_are_taken(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 16 * RP_MIB);
    world_must_backup(world);
    for (unsigned i = 0; i < 8; i++)
        world_write(world, 0, world_random(world, 15 * RP_MIB), 70000);
    world->fake.unordered_changes = true;
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    world_verify(world);
}

static void change_lists_that_make_no_sense_mean_a_full_read(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 5, 5);
    world->fake.outside_changes = true;
    assert_string_equal(world_must_backup(world)->kind, "full");
    assert_int_equal(world->remarks, 1);
    world->fake.outside_changes = false;
    world->fake.no_progress_changes = true;
    assert_string_equal(world_must_backup(world)->kind, "full");
    assert_int_equal(world->remarks, 1);
    world_verify(world);
}

static void a_reference_point_that_names_another_moment_is_no_base(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 4 * RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 5, 5);
    world->fake.other_rct_ids = true;
    assert_string_equal(world_must_backup(world)->kind, "full");
    assert_non_null(strstr(world->last.point.reason, "another moment"));
    world_verify(world);
}

static void expect_failure(struct world *world, enum rp_code code)
{
    unsigned references = fake_count(&world->fake, false);
    assert_int_equal(world_backup(world), -1);
    assert_int_equal(world->error.code, code);
    assert_int_equal(fake_count(&world->fake, true), 0);
    assert_int_equal(fake_count(&world->fake, false), references);
}

static void settings_that_no_host_gives_are_refused(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world_small_disk(world, RP_MIB);
    world->fake.wrong_size = true;
    expect_failure(world, RP_ERR_CORRUPT);
    world->fake.wrong_size = false;
    world->fake.twice_the_number = true;
    expect_failure(world, RP_ERR_CORRUPT);
    world->fake.twice_the_number = false;
    fake_remove_disk(&world->fake, 0);
    fake_remove_disk(&world->fake, 1);
    expect_failure(world, RP_ERR_UNSUPPORTED);
    world_verify(world);
}

static void a_reference_point_that_is_not_listed_makes_the_next_backup_full(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->fake.hide_reference = true;
    world_must_backup(world);
    assert_int_equal(world->remarks, 1);
    assert_null(world->last.point.reference_point);
    world->fake.hide_reference = false;
    assert_string_equal(world_must_backup(world)->kind, "full");
    assert_int_equal(world->last.orphans, 1); // the one that was hidden
    assert_int_equal(fake_count(&world->fake, false), 1);
    world_verify(world);
}

static void hide_what_it_becomes(struct fake_host *fake, const char *verb)
{
    fake->hide_newest |= !strcmp(verb, "convert_to_reference_point");
}

static void without_a_reference_point_of_its_own_a_backup_leaves_the_older_one_to_the_next(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world_must_backup(world);
    world_write(world, 0, 7, 1000);
    world->fake.before = hide_what_it_becomes;
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    assert_null(world->last.point.reference_point);
    world_write(world, 0, 70000, 1000);
    world->fake.before = NULL;
    world->fake.hide_newest = false;
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    assert_int_equal(fake_count(&world->fake, false), 1);
    world_verify(world);
}

static void an_application_consistent_backup_does_not_silently_become_a_crash_consistent_one(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->options.consistency = RP_CONSISTENCY_APPLICATION;
    assert_string_equal(world_must_backup(world)->consistency_reached, "application");
    world->fake.reached_crash = true;
    expect_failure(world, RP_ERR_STATE);
    world->options.allow_crash = true;
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->consistency_asked, "application");
    assert_string_equal(point->consistency_reached, "crash");
    assert_non_null(point->consistency_reason);
    assert_int_equal(world->remarks, 1);
}

static void why_a_checkpoint_is_as_consistent_as_it_is_is_in_the_restore_point(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->options.consistency = RP_CONSISTENCY_APPLICATION;
    world->fake.consistency_reason = "it is off, nobody writes";
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->consistency_reached, "application");
    assert_string_equal(point->consistency_reason, "it is off, nobody writes");

    world->fake.reached_crash = true;
    world->fake.consistency_reason = "it is paused";
    expect_failure(world, RP_ERR_STATE);
    assert_non_null(strstr(world->error.text, "it is paused"));
    world->options.allow_crash = true;
    point = world_must_backup(world);
    assert_string_equal(point->consistency_reached, "crash");
    assert_string_equal(point->consistency_reason, "it is paused");
    assert_int_equal(world->remarks, 1);
}

// A guest without an agent is nobody's fault every night; one that refused is worth a remark.
static void who_asked_for_nothing_gets_a_remark_only_of_an_agent_that_failed(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->options.consistency = RP_CONSISTENCY_APPLICATION;
    world->options.allow_crash = world->options.by_default = true;
    world->fake.no_application = true;
    world->fake.no_application_code = RP_ERR_UNSUPPORTED;
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->consistency_reached, "crash");
    assert_non_null(strstr(point->consistency_reason, "does not answer"));
    assert_int_equal(world->remarks, 0);
    world->fake.no_application_code = RP_ERR_STATE;
    world_must_backup(world);
    assert_int_equal(world->remarks, 1);
}

static void what_a_checkpoint_leaves_out_is_remarked_unless_it_is_known(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world_small_disk(world, RP_MIB);
    world_must_backup(world);
    assert_int_equal(world->remarks, 0);
    world->fake.outside = "physical disk \"Hard Drive\"";
    world_must_backup(world);
    assert_int_equal(world->remarks, 1);
    assert_non_null(strstr(world->last_remark, "physical disk \"Hard Drive\""));
    world->fake.left_out = true;
    assert_int_equal(world_must_backup(world)->disk_count, 1);
    assert_int_equal(world->remarks, 2);
    assert_non_null(strstr(world->last_remark, "disk 0"));
    world->options.left_out_known = true;
    world_must_backup(world);
    assert_int_equal(world->remarks, 0);
}

static void count_packs(struct fake_host *fake, const char *verb)
{
    struct world *world = fake->context;
    if (!strcmp(verb, "convert_to_reference_point"))
        world->stop_at = world->backend->packs;
}

static void what_was_read_is_durable_before_the_host_gives_the_checkpoint_up(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->fake.before = count_packs;
    world->fake.context = world;
    world_must_backup(world);
    assert_true(world->stop_at > 0);
    assert_int_equal(world->backend->packs, world->stop_at);
    world_verify(world);
}

// ---- failures -------------------------------------------------------------------------------------------------------

// Before the commit a failure leaves neither snapshot nor a reference point more; the next backup is good.
static void fail_at_every_call(struct world *world, bool after)
{
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    unsigned failures = 0;
    for (unsigned n = 1;; n++) {
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        world->fake.fail_at = n;
        world->fake.fail_after = after;
        world->fake.failed_verb = NULL;
        int result = world_backup(world);
        world->fake.fail_at = 0;
        if (!world->fake.failed_verb)
            break;
        failures += result != 0;
        // A failure of the clean-up itself is reported, and the next backup cleans up.
        if (fake_count(&world->fake, true) || fake_count(&world->fake, false) != 1)
            assert_true(world->remarks > 0);
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        const struct rp_point *point = world_must_backup(world);
        assert_string_equal(point->kind, "incremental");
        assert_int_equal(fake_count(&world->fake, true), 0);
        assert_int_equal(fake_count(&world->fake, false), 1);
    }
    assert_true(failures >= 8);
    world_verify(world);
}

static void a_failure_of_any_host_verb_leaves_host_and_repository_clean(void **state) { fail_at_every_call(*state, false); }
static void a_lost_answer_of_any_host_verb_leaves_host_and_repository_clean(void **state) { fail_at_every_call(*state, true); }

// Whatever call of the backend fails, and whether it works again at once or stays full: host and repository are left clean,
// every point is whole, and the next backup is incremental and good.
static void fail_at_every_backend_call(struct world *world, bool stays_full)
{
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    unsigned failures = 0;
    for (unsigned n = 1;; n++) {
        struct fake_backend *backend = world->backend;
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        backend->calls = backend->points_read = 0;
        backend->failed[0] = 0;
        unsigned sessions = world_files_below(world, "sessions"); // a removal that failed left one, which is dead and harmless
        backend->fail_call = n;
        backend->stays_full = stays_full;
        int result = world_backup(world);
        bool reached = backend->calls >= n;
        backend->fail_call = 0;
        backend->full = backend->stays_full = false;
        if (!reached)
            break;
        failures += result != 0;
        assert_int_equal(fake_count(&world->fake, true), 0);
        // The restore point's own reference point is there, and no other one of a failed job.
        assert_int_equal(fake_count(&world->fake, false), 1);
        assert_int_equal(world_files_below(world, "tmp"), 0);
        if (strncmp(backend->failed, "remove", 6) && world_files_below(world, "sessions") != sessions)
            fail_msg("%u: after %s: %s", n, backend->failed, world->error.text);
        if (result && world->error.code == RP_ERR_NO_SPACE && strstr(backend->failed, "packs/")) {
            assert_non_null(strstr(world->error.text, "is full"));
            assert_non_null(strstr(world->error.text, world->folder)); // which one
            assert_non_null(strstr(world->error.text, "were still to be stored"));
        }
        world_write(world, 0, 1, 1);
        assert_string_equal(world_must_backup(world)->kind, "incremental"); // so the lock is free, too
        assert_int_equal(fake_count(&world->fake, false), 1);
        if (stays_full && !result)
            n += 3; // near the end only the clean-up fails, again and again
    }
    assert_true(failures >= 10);
    world_verify(world);
}

static void a_failure_of_any_backend_call_leaves_host_and_repository_clean(void **state) { fail_at_every_backend_call(*state, false); }
static void a_repository_that_fills_up_at_any_call_leaves_host_and_repository_clean(void **state) { fail_at_every_backend_call(*state, true); }

// Not every host keeps the name of a checkpoint for the reference point that it becomes: then the id is all there is.
static void a_reference_point_without_our_name_is_removed_after_a_failed_commit(void **state)
{
    struct world *world = *state;
    world->fake.nameless = true;
    fail_at_every_backend_call(world, false);
}

// The real thing: a small file system, and blocks that do not compress. In a mount namespace of its own, so that nothing can
// stay mounted.
static void a_real_file_system_that_fills_up_loses_nothing(void **state)
{
    struct world *world = *state;
    RP_AUTO_FREE char *small = rp_xasprintf("%s/small", world->folder);
    world_small_disk(world, 96 * RP_MIB);
    mkdir(small, 0700);
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("small", small, "tmpfs", 0, "size=64m,mode=700")) {
        print_message("# needs the right to mount\n");
        free(small); // skip() leaves by a jump
        skip();
    }
    rp_repo_close(world->repo);
    world->repo = world_open_repo(world, "small/repo", &world->backend);
    world_must_backup(world);
    world->options.ignore_room = true;
    for (unsigned i = 0; i < 88; i++)
        world_write(world, 0, i * RP_MIB, RP_MIB);
    RP_AUTO_FREE char *find = rp_xasprintf("find %s/repo -type f -not -path '*/locks/*' | sort", small), *before = world_output_of(find);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(world_backup(world), -1);
        assert_int_equal(world->error.code, RP_ERR_NO_SPACE);
        assert_non_null(strstr(world->error.text, "is full"));
        assert_non_null(strstr(world->error.text, small));
        RP_AUTO_FREE char *after = world_output_of(find);
        assert_string_equal(after, before); // no pack, no tombstone, no session
        assert_int_equal(fake_count(&world->fake, true), 0);
        assert_int_equal(fake_count(&world->fake, false), 1);
        world_verify(world);
    }
    // Somebody makes room: the next one is incremental.
    assert_int_equal(mount(NULL, small, NULL, MS_REMOUNT, "size=256m,mode=700"), 0);
    const struct rp_point *point = world_must_backup(world);
    assert_string_equal(point->kind, "incremental");
    world_verify(world);
    rp_repo_close(world->repo);
    world->repo = NULL;
    assert_int_equal(umount(small), 0);
}

static void a_backup_that_cannot_fit_is_not_begun(void **state)
{
    struct world *world = *state;
    struct rp_repo_info info;
    world_small_disk(world, 64 * RP_MIB);
    world_must_backup(world);
    for (unsigned i = 0; i < 32; i++)
        world_write(world, 0, i * RP_MIB, RP_MIB);
    world->backend->room = 11 * RP_MIB; // a quarter of what is read, and what is written besides: 12
    assert_int_equal(world_backup(world), -1);
    assert_int_equal(world->error.code, RP_ERR_NO_SPACE);
    assert_non_null(strstr(world->error.text, world->folder));
    assert_non_null(strstr(world->error.text, "11.0 MiB"));
    assert_non_null(strstr(world->error.text, "32.0 MiB"));
    assert_int_equal(fake_count(&world->fake, true), 0);
    assert_int_equal(world->fake.bytes_read, 0);
    world->backend->room = 20 * RP_MIB; // perhaps
    world_must_backup(world);
    assert_int_equal(world->remarks, 1);
    assert_non_null(strstr(world->last_remark, "may not fit"));
    assert_int_equal(rp_repo_info(world->repo, &info, NULL), 0);
    world->backend->room = 1;
    world->options.ignore_room = true;
    world_write(world, 0, 0, RP_MIB);
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    world_verify(world);
}

// ---- others ---------------------------------------------------------------------------------------------------------

static void second_backup(struct fake_host *fake, const char *verb)
{
    struct world *world = fake->context;
    if (strcmp(verb, "snapshot_settings"))
        return;
    fake->before = NULL;
    struct rp_backup_result result;
    struct rp_vm vm = fake->vm;
    assert_int_equal(rp_backup_run(&fake->host, world->repo, &vm, &world->options, &result, &world->error), -1);
}

static void a_second_backup_of_the_vm_says_who_is_at_it_and_stops(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->fake.before = second_backup;
    world->fake.context = world;
    struct rp_error first = {0};
    struct rp_backup_result result;
    struct rp_vm vm = world->fake.vm;
    rp_error_clear(&world->error);
    assert_int_equal(rp_backup_run(&world->fake.host, world->repo, &vm, &world->options, &result, &first), 0);
    rp_backup_result_clear(&result);
    assert_int_equal(world->error.code, RP_ERR_BUSY);
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(world->error.text, "a backup of VM web1"));
    assert_non_null(strstr(world->error.text, pid));
    assert_non_null(strstr(world->error.text, "since"));
    assert_int_equal(fake_count(&world->fake, true), 0); // the first one's checkpoint was left to it, and went its way
    assert_int_equal(fake_count(&world->fake, false), 1);
}

static void two_repositories_do_not_break_each_other(void **state)
{
    struct world *world = *state;
    world_small_disk(world, 2 * RP_MIB);
    struct fake_backend *backend;
    struct rp_repo *other = world_open_repo(world, "other", &backend);
    for (unsigned round = 0; round < 4; round++) {
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        assert_int_equal(world_backup_to(world, other), 0);
        assert_string_equal(world->last.point.kind, round ? "incremental" : "full");
        world_write(world, 0, world_random(world, RP_MIB), 1000);
        assert_string_equal(world_must_backup(world)->kind, round ? "incremental" : "full");
        assert_int_equal(fake_count(&world->fake, false), 2);
    }
    rp_repo_close(other);
    world_verify(world);
}

static void a_backup_into_a_copy_of_a_repository_is_good_and_says_so(void **state)
{
    struct world *world = *state;
    struct fake_backend *backend;
    world_small_disk(world, 2 * RP_MIB);
    world_must_backup(world);
    RP_AUTO_FREE char *copy = rp_xasprintf("cd %s && cp -r repo copy && ln -s repo link", world->folder);
    assert_int_equal(system(copy), 0);
    struct rp_repo *twin = world_open_repo(world, "copy", &backend), *same = world_open_repo(world, "link", &backend);
    assert_int_equal(world_backup_to(world, same), 0); // the same one, by another name
    assert_int_equal(world->remarks, 0);
    assert_int_equal(world_backup_to(world, twin), 0);
    assert_int_equal(world->remarks, 1);
    assert_non_null(strstr(world->last_remark, "is a copy of"));
    rp_repo_close(same);
    // The original is gone: the copy is the repository now.
    RP_AUTO_FREE char *move = rp_xasprintf("cd %s && mv repo gone && rm link", world->folder);
    assert_int_equal(system(move), 0);
    assert_int_equal(world_backup_to(world, twin), 0);
    assert_int_equal(world->remarks, 0);
    assert_string_equal(world->last.point.kind, "incremental");
    rp_repo_close(twin);
}

static void leftovers_of_ours_are_removed_and_nothing_of_anybody_else(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world_must_backup(world);
    struct rp_repo_info info;
    assert_int_equal(rp_repo_info(world->repo, &info, NULL), 0);
    struct rp_guid job = rp_guid_new(), stranger = rp_guid_new();
    char ours[RP_TAG_TEXT], theirs[RP_TAG_TEXT], almost[RP_TAG_TEXT + 8], text[RP_GUID_TEXT];
    rp_tag_format(&info.id, &job, ours);
    rp_tag_format(&stranger, &job, theirs);
    snprintf(almost, sizeof almost, "refpoint:%s:my notes", rp_guid_format(&info.id, text));
    fake_new_point(&world->fake, true, ours);
    fake_new_point(&world->fake, false, ours);
    fake_new_point(&world->fake, true, theirs);
    fake_new_point(&world->fake, false, theirs);
    fake_new_point(&world->fake, true, almost);
    fake_new_point(&world->fake, false, almost);
    fake_new_point(&world->fake, true, "before the upgrade");
    fake_new_point(&world->fake, true, ours)->type = RP_SNAPSHOT_PRODUCTION;
    assert_string_equal(world_must_backup(world)->kind, "incremental");
    assert_int_equal(world->last.orphans, 2);
    assert_int_equal(fake_count(&world->fake, true), 4);  // theirs, almost, the upgrade, the administrator's own
    assert_int_equal(fake_count(&world->fake, false), 3); // the new one, theirs, almost
    world_verify(world);
}

static void a_merge_that_goes_on_is_a_remark_and_not_a_failure(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->fake.merging = 1; // seen before the job: waited for, over at the second look
    world->options.merge_timeout_ms = 1000;
    world_must_backup(world);
    assert_int_equal(world->remarks, 0);
    world->options.merge_timeout_ms = 0;
    world->fake.merging = 1;
    assert_int_equal(world_backup(world), -1); // still merging: says so
    assert_int_equal(world->error.code, RP_ERR_BUSY);
    assert_non_null(strstr(world->error.text, "still merging"));
    world_verify(world);
}

static void begin_merge(struct fake_host *fake, const char *verb)
{
    if (!strcmp(verb, "convert_to_reference_point"))
        fake->merging = 1000;
}

static void a_merge_pending_after_the_backup_is_told(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    world->options.merge_timeout_ms = 20;
    world->fake.before = begin_merge;
    world_must_backup(world);
    assert_true(world->last.merge_pending);
    assert_int_equal(world->remarks, 1);
    world_verify(world);
}

static void a_dry_run_changes_nothing_and_says_what_would_be_read(void **state)
{
    struct world *world = *state;
    world_small_disk(world, RP_MIB);
    struct rp_backup_preview preview;
    assert_int_equal(rp_backup_preview(&world->fake.host, world->repo, &world->fake.vm, &world->options, &preview, NULL), 0);
    assert_null(preview.plan.disks[0].base);
    rp_backup_preview_clear(&preview);
    world_must_backup(world);
    world_small_disk(world, RP_MIB);
    assert_int_equal(rp_backup_preview(&world->fake.host, world->repo, &world->fake.vm, &world->options, &preview, NULL), 0);
    assert_non_null(preview.plan.disks[0].base);
    assert_null(preview.plan.disks[1].base);
    rp_backup_preview_clear(&preview);
    assert_int_equal(fake_count(&world->fake, true), 0);
    world_verify(world);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_backup_is_full_and_the_next_ones_are_incremental),
        TEST(a_full_backup_never_reads_a_hole),
        TEST(an_incremental_reads_the_changed_units_and_no_others),
        TEST(an_incremental_without_changes_reads_and_stores_nothing),
        TEST(trimmed_space_becomes_zero_without_being_read),
        TEST(a_disk_whose_size_is_no_multiple_of_a_block_is_exact),
        TEST(asked_for_a_full_backup_everything_allocated_is_read),
        TEST(an_added_disk_is_read_in_full_and_the_others_incrementally),
        TEST(a_removed_disk_leaves_the_others_incremental),
        TEST(another_disk_in_the_place_of_a_removed_one_is_read_in_full),
        TEST(a_grown_disk_stays_incremental),
        TEST(what_a_disk_grew_by_is_read_whatever_the_host_says_of_it),
        TEST(a_shrunk_disk_is_read_in_full_with_the_reason),
        TEST(a_disk_that_was_not_tracked_is_read_in_full),
        TEST(an_id_outside_the_lineage_means_a_full_read_and_a_remark),
        TEST(without_its_reference_point_a_backup_is_full),
        TEST(random_changes_to_random_disks_restore_exactly),
        TEST(change_lists_in_any_order_and_overlapping_are_taken),
        TEST(change_lists_that_make_no_sense_mean_a_full_read),
        TEST(a_reference_point_that_names_another_moment_is_no_base),
        TEST(settings_that_no_host_gives_are_refused),
        TEST(a_reference_point_that_is_not_listed_makes_the_next_backup_full),
        TEST(without_a_reference_point_of_its_own_a_backup_leaves_the_older_one_to_the_next),
        TEST(an_application_consistent_backup_does_not_silently_become_a_crash_consistent_one),
        TEST(why_a_checkpoint_is_as_consistent_as_it_is_is_in_the_restore_point),
        TEST(who_asked_for_nothing_gets_a_remark_only_of_an_agent_that_failed),
        TEST(what_a_checkpoint_leaves_out_is_remarked_unless_it_is_known),
        TEST(what_was_read_is_durable_before_the_host_gives_the_checkpoint_up),
        TEST(a_failure_of_any_host_verb_leaves_host_and_repository_clean),
        TEST(a_lost_answer_of_any_host_verb_leaves_host_and_repository_clean),
        TEST(a_failure_of_any_backend_call_leaves_host_and_repository_clean),
        TEST(a_repository_that_fills_up_at_any_call_leaves_host_and_repository_clean),
        TEST(a_reference_point_without_our_name_is_removed_after_a_failed_commit),
        TEST(a_backup_that_cannot_fit_is_not_begun),
        TEST(a_real_file_system_that_fills_up_loses_nothing),
        TEST(a_second_backup_of_the_vm_says_who_is_at_it_and_stops),
        TEST(two_repositories_do_not_break_each_other),
        TEST(a_backup_into_a_copy_of_a_repository_is_good_and_says_so),
        TEST(leftovers_of_ours_are_removed_and_nothing_of_anybody_else),
        TEST(a_merge_that_goes_on_is_a_remark_and_not_a_failure),
        TEST(a_merge_pending_after_the_backup_is_told),
        TEST(a_dry_run_changes_nothing_and_says_what_would_be_read),
    };
    return cmocka_run_group_tests_name("backup", tests, NULL, NULL);
}
