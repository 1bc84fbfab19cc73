// The WMI connection against a host that answers what a test wants: order and form of what is asked, jobs that vanish
// or fail, answers that are lost.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cim/cimxml.h"
#include "scene.h"

// ---- snapshots and jobs ---------------------------------------------------------------------------------------------

static void start_snapshot(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                           struct rp_cim_instance *out, uint32_t *status)
{
    (void)path;
    const char *text = rp_cim_get_text(in, "SnapshotSettings");
    assert_non_null(text);
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *settings = rp_cimxml_parse(text, strlen(text), NULL);
    assert_non_null(settings);
    assert_string_equal(settings->class_name, "Msvm_VirtualSystemSnapshotSettingData");
    assert_int_equal(rp_cim_get_unsigned(settings, "ConsistencyLevel", 0), 1);
    assert_true(rp_cim_get_boolean(settings, "IgnoreNonSnapshottableDisks", false));
    assert_non_null(strstr(text, "NAME=\"ConsistencyLevel\" TYPE=\"uint8\""));
    assert_int_equal(rp_cim_get_unsigned(in, "SnapshotType", 0), 32768);
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(in, "AffectedSystem"), "Name"), FAKE_A);
    fake_start_job(f, out, status);
}

static void name_it(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                    struct rp_cim_instance *out, uint32_t *status)
{
    (void)path, (void)out;
    const char *text = rp_cim_get_text(in, "SystemSettings");
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *change = rp_cimxml_parse(text, strlen(text), NULL);
    assert_int_equal(change->count, 2); // nothing but what changes
    struct rp_cim_instance *object = fake_find(f, "Msvm_VirtualSystemSettingData",
                                               rp_cim_get_text(change, "InstanceID"));
    assert_non_null(object);
    rp_cim_set(object, "ElementName", rp_cim_string(rp_cim_get_text(change, "ElementName")));
    *status = 0;
}

#define SNAPSHOT_ELEMENT FAKE_SETTINGS(SNAP)

static void a_snapshot_is_asked_for_waited_for_and_named(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID] = "";
    struct rp_job_state job_state;
    answers(list);
    fake_job(fake, 4, NULL);
    good(host->ops->create_snapshot(host, FAKE_A, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_APPLICATION, TAG, job, result,
                                    &err));
    assert_string_equal(job, "Msvm_ConcreteJob." FAKE_JOB);
    assert_string_equal(result, "");
    good(host->ops->job_state(host, job, &job_state, &err));
    assert_int_equal(job_state.phase, RP_JOB_RUNNING);
    assert_int_equal(job_state.percent, 60);
    fake_snapshot(fake, FAKE_A, SNAP, "web1 - Backup - (1/2/2026)");
    fake_job(fake, 7, SNAPSHOT_ELEMENT);
    good(rp_host_wait(host, job, result, NULL, NULL, &err));
    assert_string_equal(result, "Microsoft:" SNAP);
    assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings ");
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    good(host->ops->list_snapshots(host, FAKE_A, &snapshots, &err));
    assert_int_equal(snapshots.count, 1);
    assert_string_equal(snapshots.items[0].name, TAG);
    assert_int_equal(snapshots.items[0].consistency, RP_CONSISTENCY_APPLICATION);
    fake_remove(fake, "Msvm_ConcreteJob", FAKE_JOB); // gone after its five minutes
    good(host->ops->job_state(host, job, &job_state, &err));
    assert_int_equal(job_state.phase, RP_JOB_COMPLETED); // what was seen once is known
}

static int create(char job[RP_HOST_ID], char result[RP_HOST_ID])
{
    return host->ops->create_snapshot(host, FAKE_A, RP_SNAPSHOT_RECOVERY, RP_CONSISTENCY_APPLICATION, TAG, job, result,
                                      &err);
}

static void a_snapshot_that_cannot_be_named_is_removed_again(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0},
                                              {"ModifySystemSettings", NULL, 32775},
                                              {"DestroySnapshot", NULL, 0},
                                              {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID] = "";
    answers(list);
    fake_snapshot(fake, FAKE_A, OTHER_SNAP, "mine");
    good(create(job, result));
    fake_snapshot(fake, FAKE_A, SNAP, "web1");
    fake_job(fake, 7, SNAPSHOT_ELEMENT);
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_STATE, "got no name, and was removed");
    assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings DestroySnapshot ");
    assert_string_equal(rp_cim_path_get(rp_cim_get_path(fake->in, "AffectedSnapshot"), "InstanceID"),
                        "Microsoft:" SNAP);
}

static void a_busy_vm_gets_no_snapshot(void **state)
{
    (void)state;
    char job[RP_HOST_ID], result[RP_HOST_ID];
    for (size_t i = 0; i < fake->objects[0].count; i++) {
        struct rp_cim_instance *row = fake->objects[0].items[i];
        struct rp_cim_value status = rp_cim_null(RP_CIM_UINT16, true), a = rp_cim_unsigned(RP_CIM_UINT16, 11),
                            b = rp_cim_unsigned(RP_CIM_UINT16, 32772);
        rp_cim_value_push(&status, &a);
        rp_cim_value_push(&status, &b);
        if (!strcmp(row->class_name, "Msvm_ComputerSystem"))
            rp_cim_set(row, "OperationalStatus", status);
        else
            rp_cim_value_clear(&status);
    }
    answers(NULL);
    bad(create(job, result), RP_ERR_BUSY, "merged");
    assert_string_equal(fake->log, "");
}

static void refusals_are_told_in_words(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        enum rp_code expected;
        const char *words;
    } codes[] = {{32775, RP_ERR_STATE, "not possible in this state (32775)"},
                 {5, RP_ERR_STATE, "in this state (5)"},
                 {32769, RP_ERR_PERMISSION, "access denied"},
                 {32774, RP_ERR_BUSY, "in use"},
                 {1, RP_ERR_UNSUPPORTED, "not supported"},
                 {32768, RP_ERR_IO, "failed"},
                 {40000, RP_ERR_IO, "unknown code (40000)"}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        const struct fake_answer list[] = {{"CreateSnapshot", NULL, codes[i].code}, {0}};
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        bad(create(job, result), codes[i].expected, codes[i].words);
    }
}

static void fill_errors(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                        struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path, (void)in;
    struct rp_cim_value list = rp_cim_null(RP_CIM_STRING, true);
    static const char first[] = "<INSTANCE CLASSNAME=\"Msvm_Error\"><PROPERTY NAME=\"Message\" TYPE=\"string\">"
                                "<VALUE>The guest said\r\nno.</VALUE></PROPERTY></INSTANCE>";
    static const char *const errors[] = {first, "<INSTANCE", "<INSTANCE CLASSNAME=\"Msvm_Error\"/>"};
    for (size_t i = 0; i < 3; i++) {
        struct rp_cim_value one = rp_cim_string(errors[i]);
        rp_cim_value_push(&list, &one);
    }
    rp_cim_set(out, "Errors", list);
    *status = 0;
}

static void a_failed_job_says_why_in_one_line(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"GetErrorEx", fill_errors, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    good(create(job, result));
    fake_job(fake, 10, NULL);
    struct rp_cim_instance *object = fake_find(fake, "Msvm_ConcreteJob", FAKE_JOB);
    fake_set(object, fake, "ErrorCode", "32775");
    fake_set(object, fake, "ErrorDescription", "Checkpoint operation failed.\nVSS is not there.");
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_STATE,
        "checkpoint of VM " FAKE_A ": Checkpoint operation failed. VSS is not there. — The guest said no. (32775)");
}

static void the_hresult_in_a_description_tells_more_than_the_code(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum rp_code code;
    } texts[] = {{"The disk is full (0x80070070).", RP_ERR_NO_SPACE}, {"Error: ('0xC03A0030')", RP_ERR_TRACKING_ID},
                 {"The file exists. (0x80070050)", RP_ERR_EXISTS}, {"0x8007", RP_ERR_IO}, {"", RP_ERR_IO}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0}, {0}};
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        fake_job(fake, 10, NULL);
        fake_set(fake_find(fake, "Msvm_ConcreteJob", FAKE_JOB), fake, "ErrorDescription", texts[i].text);
        fake_set(fake_find(fake, "Msvm_ConcreteJob", FAKE_JOB), fake, "ErrorCode", "32768");
        good(create(job, result));
        bad(rp_host_wait(host, job, result, NULL, NULL, &err), texts[i].code, "checkpoint of VM");
        rp_host_close(host);
        host = fake_connect(fake); // the same job id again
    }
}

static void a_job_that_ends_with_warnings_has_succeeded(void **state)
{
    (void)state;
    static const struct fake_answer start[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(start);
    good(create(job, result));
    fake_snapshot(fake, FAKE_A, SNAP, "x");
    fake_job(fake, 32768, SNAPSHOT_ELEMENT);
    fake_set(fake_find(fake, "Msvm_ConcreteJob", FAKE_JOB), fake, "ErrorDescription", "the guest is paused");
    good(rp_host_wait(host, job, result, NULL, NULL, &err));
    assert_string_equal(result, "Microsoft:" SNAP);
    RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
    good(host->ops->list_snapshots(host, FAKE_A, &snapshots, &err));
    assert_int_equal(snapshots.count, 1); // nobody says that the guest was frozen
    assert_int_equal(snapshots.items[0].consistency, RP_CONSISTENCY_CRASH);
    assert_string_equal(snapshots.items[0].consistency_reason, "the guest is paused");
}

static void start_production(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                             struct rp_cim_instance *out, uint32_t *status)
{
    (void)path;
    assert_int_equal(rp_cim_get_unsigned(in, "SnapshotType", 0), RP_SNAPSHOT_PRODUCTION);
    fake_start_job(f, out, status);
}

// Whether Hyper-V asks the guest for it is a setting of the VM.
static void what_a_snapshot_of_a_user_is_like_is_not_known(void **state)
{
    (void)state;
    static const struct fake_answer start[] = {
        {"CreateSnapshot", start_production, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    static const unsigned ends[] = {7, 32768}; // done; with warnings
    answers(start);
    for (size_t i = 0; i < 2; i++) {
        char job[RP_HOST_ID], result[RP_HOST_ID] = "";
        good(host->ops->create_snapshot(host, FAKE_A, RP_SNAPSHOT_PRODUCTION, RP_CONSISTENCY_CRASH, "mine", job, result,
                                        &err));
        if (!i)
            fake_snapshot(fake, FAKE_A, SNAP, "x");
        fake_job(fake, ends[i], i ? NULL : SNAPSHOT_ELEMENT);
        good(rp_host_wait(host, job, result, NULL, NULL, &err));
        RP_CLEANUP(rp_snapshots_clear) struct rp_snapshots snapshots = {0};
        good(host->ops->list_snapshots(host, FAKE_A, &snapshots, &err));
        assert_int_equal(snapshots.count, 1);
        assert_int_equal(snapshots.items[0].consistency, RP_CONSISTENCY_UNKNOWN);
    }
}

static void a_snapshot_that_its_job_does_not_name_is_found_and_named(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    for (int gone = 0; gone < 2; gone++) { // the job says nothing; there is no job any more
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        if (!gone)
            fake_snapshot(fake, FAKE_A, OTHER_SNAP, "somebody else's");
        fake_remove(fake, "Msvm_ConcreteJob", FAKE_JOB);
        fake_remove(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" SNAP);
        good(create(job, result));
        fake_add(fake, "Msvm_VirtualSystemSettingData",
                 "InstanceID=Microsoft:" SNAP ";ElementName=web1;VirtualSystemIdentifier=" FAKE_A
                 ";VirtualSystemType=Microsoft:Hyper-V:Snapshot:Recovery");
        if (!gone) {
            fake_add(fake, "Msvm_SnapshotOfVirtualSystem",
                     "Antecedent=" FAKE_PATH FAKE_SYSTEM(FAKE_A) ";Dependent=" FAKE_PATH FAKE_SETTINGS(SNAP));
            fake_job(fake, 7, NULL);
        }
        good(rp_host_wait(host, job, result, NULL, NULL, &err));
        assert_string_equal(result, "Microsoft:" SNAP);
        assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings ");
        assert_string_equal(
            rp_cim_get_text(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" SNAP), "ElementName"), TAG);
        rp_host_close(host);
        host = fake_connect(fake); // the same job id again
    }
}

static void states_of_a_guest_that_last_keep_nobody_from_a_backup(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0}, {0}};
    for (size_t i = 0; i < fake->objects[0].count; i++) {
        struct rp_cim_instance *row = fake->objects[0].items[i];
        struct rp_cim_value status = rp_cim_null(RP_CIM_UINT16, true), a = rp_cim_unsigned(RP_CIM_UINT16, 2),
                            b = rp_cim_unsigned(RP_CIM_UINT16, 32783); // communication timed out
        rp_cim_value_push(&status, &a);
        rp_cim_value_push(&status, &b);
        if (!strcmp(row->class_name, "Msvm_ComputerSystem"))
            rp_cim_set(row, "OperationalStatus", status);
        else
            rp_cim_value_clear(&status);
    }
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    good(create(job, result));
    assert_string_equal(fake->log, "CreateSnapshot ");
}

static void a_job_that_vanishes_is_an_error_that_says_so(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    good(create(job, result));
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_NOT_FOUND, "does not know the job any more");
}

static void a_job_makes_exactly_one_thing(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    for (unsigned count = 0; count < 3; count += 2) {
        char job[RP_HOST_ID], result[RP_HOST_ID];
        answers(list);
        good(create(job, result));
        fake_job(fake, 7, NULL);
        if (count) {
            fake_snapshot(fake, FAKE_A, SNAP, "x");
            fake_snapshot(fake, FAKE_A, OTHER_SNAP, "y");
            fake_job(fake, 7, FAKE_SETTINGS(SNAP));
            fake_job(fake, 7, FAKE_SETTINGS(OTHER_SNAP));
        }
        bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_CORRUPT, count ? "2 things" : "0 things");
        rp_host_close(host);
        host = fake_connect(fake);
    }
}

static void a_terminated_job_was_cancelled(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"RequestStateChange", NULL, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake_job(fake, 4, NULL);
    good(create(job, result));
    good(host->ops->cancel_job(host, job, &err));
    assert_int_equal(rp_cim_get_unsigned(fake->in, "RequestedState", 0), 4);
    fake_job(fake, 8, NULL);
    bad(rp_host_wait(host, job, result, NULL, NULL, &err), RP_ERR_CANCELLED, "ended");
}

// ---- lost connections -----------------------------------------------------------------------------------------------

// A job goes on while it cannot be looked at: so many answers are dropped, or queries refused, while it runs and at its end.
static void outlasts(int dropped, int dropped_at_the_end, unsigned busy, unsigned busy_at_the_end)
{
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    struct rp_job_state job_state;
    answers(list);
    fake_job(fake, 4, NULL);
    good(create(job, result));
    good(host->ops->job_state(host, job, &job_state, &err));
    fake->drop = dropped;
    fake->busy = busy;
    for (int i = 0; i < 2; i++) {
        good(host->ops->job_state(host, job, &job_state, &err));
        assert_int_equal(job_state.phase, RP_JOB_RUNNING);
        assert_int_equal(job_state.percent, 60);
    }
    assert_int_equal(fake->drop, 0);
    assert_int_equal(fake->busy, 0);
    fake_snapshot(fake, FAKE_A, SNAP, "x");
    fake_job(fake, 7, SNAPSHOT_ELEMENT);
    fake->drop = dropped_at_the_end;
    fake->busy = busy_at_the_end;
    good(rp_host_wait(host, job, result, NULL, NULL, &err));
    assert_string_equal(result, "Microsoft:" SNAP);
}

static void a_connection_lost_during_a_job_is_made_again_and_the_job_found(void **state)
{
    (void)state;
    outlasts(3, 2, 0, 0); // a question is asked twice: the first is lost for good, the second once
}

// The job goes on, and what it makes would stay without a name.
static void a_host_that_is_busy_does_not_make_a_job_fail(void **state)
{
    (void)state;
    outlasts(0, 0, 2, 1);
}

static void make_and_start(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                           struct rp_cim_instance *out, uint32_t *status)
{
    fake_snapshot(f, FAKE_A, SNAP, "web1 - Backup");
    start_snapshot(f, path, in, out, status);
}

static void a_snapshot_whose_answer_was_lost_is_found(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", make_and_start, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake_snapshot(fake, FAKE_A, OTHER_SNAP, "somebody else's");
    fake->drop_method = "CreateSnapshot";
    good(create(job, result));
    assert_string_equal(job, "");
    assert_string_equal(result, "Microsoft:" SNAP);
    assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings ");
    assert_string_equal(
        rp_cim_get_text(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" SNAP), "ElementName"), TAG);
    assert_string_equal(
        rp_cim_get_text(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" OTHER_SNAP), "ElementName"),
        "somebody else's");
}

static void a_call_that_was_never_carried_out_is_not_made_twice(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"CreateSnapshot", start_snapshot, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake->drop_method = "CreateSnapshot";
    bad(create(job, result), RP_ERR_IO, "checkpoint of VM");
    assert_string_equal(fake->log, "CreateSnapshot ");
}

static void name_anothers(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                          struct rp_cim_instance *out, uint32_t *status)
{
    fake_snapshot(f, FAKE_A, OTHER_SNAP, OTHER_TAG);
    start_snapshot(f, path, in, out, status);
}

static void a_snapshot_of_another_job_is_not_taken_for_the_lost_one(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", name_anothers, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake->drop_method = "CreateSnapshot";
    bad(create(job, result), RP_ERR_IO, "checkpoint of VM");
    assert_string_equal(fake->log, "CreateSnapshot ");
    assert_string_equal(
        rp_cim_get_text(fake_find(fake, "Msvm_VirtualSystemSettingData", "Microsoft:" OTHER_SNAP), "ElementName"),
        OTHER_TAG);
}

static void a_name_whose_answer_was_lost_is_given_once_more(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {
        {"CreateSnapshot", start_snapshot, 0}, {"ModifySystemSettings", name_it, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    good(create(job, result));
    fake_snapshot(fake, FAKE_A, SNAP, "x");
    fake_job(fake, 7, SNAPSHOT_ELEMENT);
    fake->drop_method = "ModifySystemSettings";
    good(rp_host_wait(host, job, result, NULL, NULL, &err));
    assert_string_equal(fake->log, "CreateSnapshot ModifySystemSettings "); // it had arrived
}

static void make_point(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                       struct rp_cim_instance *out, uint32_t *status)
{
    (void)path, (void)in;
    fake_point(f, FAKE_A, POINT, "");
    fake_remove(f, "Msvm_VirtualSystemSettingData", "Microsoft:" SNAP);
    rp_cim_set(out, "ResultingReferencePoint", rp_cim_reference(rp_cim_path_parse(FAKE_PATH
        "Msvm_VirtualSystemReferencePoint.InstanceID=\"" POINT "\",VirtualSystemIdentifier=\"" FAKE_A "\"", NULL)));
    *status = 0;
}

static void a_reference_point_comes_from_the_answer_or_from_the_list(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"ConvertToReferencePoint", make_point, 0}, {0}};
    for (int lost = 0; lost < 2; lost++) {
        char job[RP_HOST_ID], result[RP_HOST_ID];
        RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
        answers(list);
        fake_snapshot(fake, FAKE_A, SNAP, TAG);
        fake_remove(fake, "Msvm_VirtualSystemReferencePoint", POINT);
        fake->drop_method = lost ? "ConvertToReferencePoint" : NULL;
        good(host->ops->convert_to_reference_point(host, "Microsoft:" SNAP, job, result, &err));
        assert_string_equal(job, "");
        assert_string_equal(result, POINT);
        good(host->ops->list_reference_points(host, FAKE_A, &points, &err));
        assert_string_equal(points.items[0].name, TAG); // so that a failed backup finds what it made
    }
}

static void make_point_in_a_job(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                                struct rp_cim_instance *out, uint32_t *status)
{
    (void)path, (void)in;
    fake_point(f, FAKE_A, POINT, "");
    fake_remove(f, "Msvm_VirtualSystemSettingData", "Microsoft:" SNAP);
    fake_start_job(f, out, status);
}

// The host has forgotten the job, or does not say what it made: the point is there all the same.
static void a_reference_point_whose_job_cannot_be_asked_is_found(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"ConvertToReferencePoint", make_point_in_a_job, 0}, {0}};
    for (int says_nothing = 0; says_nothing < 2; says_nothing++) {
        char job[RP_HOST_ID], result[RP_HOST_ID];
        RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
        answers(list);
        fake_remove(fake, "Msvm_VirtualSystemReferencePoint", POINT);
        fake_snapshot(fake, FAKE_A, SNAP, TAG);
        if (says_nothing)
            fake_job(fake, 7, NULL);
        good(host->ops->convert_to_reference_point(host, "Microsoft:" SNAP, job, result, &err));
        assert_string_not_equal(job, "");
        good(rp_host_wait(host, job, result, NULL, NULL, &err));
        assert_string_equal(result, POINT);
        good(host->ops->list_reference_points(host, FAKE_A, &points, &err));
        assert_string_equal(points.items[0].name, TAG);
        rp_host_close(host);
        host = fake_connect(fake);
    }
}

static void make_anothers_point(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                                struct rp_cim_instance *out, uint32_t *status)
{
    (void)path, (void)in, (void)out;
    fake_point(f, FAKE_A, POINT, "");
    *status = 32768;
}

static void a_reference_point_of_another_program_is_not_taken_for_the_lost_one(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"ConvertToReferencePoint", make_anothers_point, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake_snapshot(fake, FAKE_A, SNAP, TAG); // and there it stays
    fake->drop_method = "ConvertToReferencePoint";
    bad(host->ops->convert_to_reference_point(host, "Microsoft:" SNAP, job, result, &err), RP_ERR_IO,
        "reference point from checkpoint");
    assert_string_equal(result, "");
    RP_CLEANUP(rp_reference_points_clear) struct rp_reference_points points = {0};
    good(host->ops->list_reference_points(host, FAKE_A, &points, &err));
    assert_int_equal(points.count, 1);
    assert_string_equal(points.items[0].name, "");
}

static void a_reference_point_is_named_by_the_keys_that_the_host_gives(void **state)
{
    (void)state;
    static const struct fake_answer list[] = {{"DestroyReferencePoint", NULL, 0}, {0}};
    char job[RP_HOST_ID], result[RP_HOST_ID];
    answers(list);
    fake_point(fake, FAKE_A, POINT, TAG);
    for (int without = 0; without < 2; without++) {
        fake->no_references = without; // then by those of the documentation
        good(host->ops->destroy_reference_point(host, POINT, job, result, &err));
        const struct rp_cim_path *path = rp_cim_get_path(fake->in, "AffectedReferencePoint");
        assert_string_equal(rp_cim_path_get(path, "InstanceID"), POINT);
        assert_string_equal(rp_cim_path_get(path, "VirtualSystemIdentifier"), FAKE_A);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(a_snapshot_is_asked_for_waited_for_and_named),
        SCENE(a_snapshot_that_cannot_be_named_is_removed_again),
        SCENE(a_busy_vm_gets_no_snapshot),
        SCENE(refusals_are_told_in_words),
        SCENE(a_failed_job_says_why_in_one_line),
        SCENE(the_hresult_in_a_description_tells_more_than_the_code),
        SCENE(a_job_that_ends_with_warnings_has_succeeded),
        SCENE(what_a_snapshot_of_a_user_is_like_is_not_known),
        SCENE(a_snapshot_that_its_job_does_not_name_is_found_and_named),
        SCENE(states_of_a_guest_that_last_keep_nobody_from_a_backup),
        SCENE(a_job_that_vanishes_is_an_error_that_says_so),
        SCENE(a_job_makes_exactly_one_thing),
        SCENE(a_terminated_job_was_cancelled),
        SCENE(a_connection_lost_during_a_job_is_made_again_and_the_job_found),
        SCENE(a_host_that_is_busy_does_not_make_a_job_fail),
        SCENE(a_reference_point_whose_job_cannot_be_asked_is_found),
        SCENE(a_snapshot_whose_answer_was_lost_is_found),
        SCENE(a_call_that_was_never_carried_out_is_not_made_twice),
        SCENE(a_snapshot_of_another_job_is_not_taken_for_the_lost_one),
        SCENE(a_name_whose_answer_was_lost_is_given_once_more),
        SCENE(a_reference_point_comes_from_the_answer_or_from_the_list),
        SCENE(a_reference_point_of_another_program_is_not_taken_for_the_lost_one),
        SCENE(a_reference_point_is_named_by_the_keys_that_the_host_gives),
    };
    return cmocka_run_group_tests_name("wmi-methods", tests, NULL, NULL);
}
