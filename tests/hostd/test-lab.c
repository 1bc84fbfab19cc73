// The lab's script: its language, and when what it says happens.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <cmocka.h>

#include "hostd/lab.h"

static const char *known(const char *name)
{
    static const char *const names[] = {"CreateSnapshot", "ExportSystemDefinition"};
    for (size_t i = 0; i < 2; i++)
        if (!strcasecmp(names[i], name))
            return names[i];
    return NULL;
}

static struct rp_lab_line parse(const char *text)
{
    struct rp_lab_line line;
    struct rp_error err = {0};
    if (rp_lab_parse(text, known, &line, &err))
        fail_msg("%s: %s", text, err.text);
    return line;
}

static void complains(const char *text, const char *about)
{
    struct rp_lab_line line;
    struct rp_error err = {0};
    if (!rp_lab_parse(text, known, &line, &err))
        fail_msg("%s was understood", text);
    assert_int_equal(err.code, RP_ERR_INVALID);
    if (!strstr(err.text, about))
        fail_msg("%s: %s", text, err.text);
}

static void faults_are_understood(void **state)
{
    (void)state;
    struct rp_lab_fault fault = parse("next CreateSnapshot: returns 32775").fault;
    assert_string_equal(fault.method, "CreateSnapshot");
    assert_int_equal(fault.action, RP_LAB_RETURNS);
    assert_int_equal(fault.code, 32775);
    assert_int_equal(fault.times, 1);
    assert_int_equal(fault.skip, 0);
    fault = parse("  EVERY createsnapshot of \"vm: 2\" : DROPS ").fault;
    assert_string_equal(fault.method, "CreateSnapshot");
    assert_string_equal(fault.vm, "vm: 2");
    assert_int_equal(fault.times, 0);
    assert_int_equal(fault.action, RP_LAB_DROPS);
    fault = parse("next 3 ExportSystemDefinition of vm1: job fails at 40 %: no: \"more\" 5 %").fault;
    assert_int_equal(fault.times, 3);
    assert_int_equal(fault.percent, 40);
    assert_string_equal(fault.text, "no: \"more\" 5 %");
    fault = parse("2nd CreateSnapshot: job hangs at 60% for 0.5s").fault;
    assert_int_equal(fault.skip, 1);
    assert_true(fault.seconds > 0.49 && fault.seconds < 0.51);
    assert_int_equal(fault.action, RP_LAB_HANGS);
    assert_int_equal(parse("10th CreateSnapshot: waits 5 s").fault.skip, 9);
    assert_int_equal(parse("next ExportSystemDefinition: disk full at 50 %").fault.action, RP_LAB_FULL);
    assert_string_equal(parse("next CreateSnapshot: freeze refused: not now").fault.text, "not now");
    assert_true(*parse("next CreateSnapshot: freeze refused").fault.text);
    assert_int_equal(parse("next CreateSnapshot: loses oldest point").fault.which, RP_LAB_OLDEST);
    assert_string_equal(parse("next answer: drops").fault.method, "");
}

static void deeds_are_understood(void **state)
{
    (void)state;
    assert_int_equal(parse("").deed, RP_LAB_NOTHING);
    assert_int_equal(parse("  # next CreateSnapshoot").deed, RP_LAB_NOTHING);
    struct rp_lab_line line = parse("now: write 100 of vm1");
    assert_int_equal(line.deed, RP_LAB_WRITE);
    assert_int_equal(line.count, 100);
    assert_string_equal(line.fault.vm, "vm1");
    assert_int_equal(parse("now: lose every point").deed, RP_LAB_LOSE);
    assert_int_equal(parse("now: stop writing").deed, RP_LAB_STOP);
    assert_int_equal(parse("now: start writing").deed, RP_LAB_GO);
    assert_int_equal(parse("now: release jobs").deed, RP_LAB_RELEASE);
    assert_int_equal(parse("now: forget faults").deed, RP_LAB_FORGET);
    assert_int_equal(parse("now: list faults").deed, RP_LAB_LIST);
}

static void mistakes_are_told_with_the_word_that_is_wrong(void **state)
{
    (void)state;
    complains("CreateSnapshot: drops", "\"CreateSnapshot\" stands where \"next\"");
    complains("next CreateSnapshoot: drops", "\"CreateSnapshoot\" is no method");
    complains("next CreateSnapshot", "ends where \":\" should follow");
    complains("next CreateSnapshot drops", "\"drops\" stands where \":\"");
    complains("next CreateSnapshot: explodes", "\"explodes\" is nothing that can happen");
    complains("next CreateSnapshot: returns many", "\"many\" is no return value");
    complains("next CreateSnapshot: returns 4294967296", "\"4294967296\" is no return value");
    complains("next CreateSnapshot: drops now", "\"now\" after the end");
    complains("next 0 CreateSnapshot: drops", "\"0\" is no number of calls");
    complains("0th CreateSnapshot: drops", "\"0th\" stands where");
    complains("2xy CreateSnapshot: drops", "\"2xy\" stands where");
    complains("next CreateSnapshot of: drops", "stands where");
    complains("next CreateSnapshot of \"vm1: drops", "has no end");
    complains("next CreateSnapshot: job hangs at 101 %", "\"101\" is no percentage");
    complains("next CreateSnapshot: job hangs at 60", "ends where \"%\"");
    complains("next CreateSnapshot: job fails at 60 %", "ends where \":\"");
    complains("next CreateSnapshot: job fails at 60 %:  ", "text is missing");
    complains("next CreateSnapshot: waits 0 s", "\"0\" is no time");
    complains("next CreateSnapshot: waits 5 minutes", "\"minutes\" stands where \"s\"");
    complains("next answer: returns 1", "\"returns\" stands where \"drops\"");
    complains("now: explode", "\"explode\" is nothing that can be done now");
    complains("now: lose point", "\"point\" stands where \"newest\"");
    char text[1000];
    int length = snprintf(text, sizeof text, "next CreateSnapshot: job fails at 1 %%: ");
    memset(text + length, 'x', 600);
    text[length + 600] = '\0';
    complains(text, "longer than 499");
    memset(text, 'x', 600);
    text[600] = '\0';
    complains(text, "stands where");
}

// ---- when it happens -----------------------------------------------------------------------------------------------

static struct rp_hostd hostd;

static int with_script(void **state)
{
    (void)state;
    hostd.script = rp_lab_faults_new();
    return 0;
}

static int without_script(void **state)
{
    (void)state;
    rp_lab_faults_free(hostd.script);
    hostd.script = NULL;
    return 0;
}

static void add(const char *text)
{
    struct rp_lab_line line = parse(text);
    struct rp_error err = {0};
    if (rp_lab_faults_add(hostd.script, &line.fault, text, &err))
        fail_msg("%s", err.text);
}

static void listed(const char *expected)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    rp_lab_faults_list(hostd.script, &text);
    assert_string_equal(rp_buf_text(&text), expected);
}

// A call of CreateSnapshot, with settings as text (NULL: none); the status that it is answered with, 0 when it goes on.
static uint32_t call(const char *settings)
{
    static const struct rp_hostd_method method = {.class_name = "Msvm_VirtualSystemSnapshotService",
                                                  .name = "CreateSnapshot"};
    RP_CLEANUP(rp_cim_instance_free_p) struct rp_cim_instance *in = rp_cim_instance_new(NULL, "in");
    rp_cim_set(in, "SnapshotSettings", rp_cim_string(settings));
    struct rp_hostd_call one = {.hostd = &hostd, .in = in};
    struct rp_error err = {0};
    uint32_t status = 0;
    int rc = rp_hostd_script_before_method(&one, &method, &status, &err);
    assert_true(rc >= 0);
    assert_int_equal(rc, status != 0);
    return status;
}

static void calls_are_counted(void **state)
{
    (void)state;
    add("2nd CreateSnapshot: returns 2");
    add("next CreateSnapshot: returns 11");
    add("next 2 CreateSnapshot: returns 12");
    add("next ExportSystemDefinition: returns 9");
    static const uint32_t expected[] = {11, 2, 12, 12, 0};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(call(NULL), expected[i]);
    listed("[\"next ExportSystemDefinition: returns 9\"]");
    add("every CreateSnapshot: returns 7");
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(call(NULL), 7);
    rp_lab_faults_forget(hostd.script);
    assert_int_equal(call(NULL), 0);
    listed("[]");
}

static void an_answer_is_dropped_when_its_call_was_to_be_or_any(void **state)
{
    (void)state;
    add("next CreateSnapshot: drops");
    assert_false(rp_hostd_script_drop(&hostd)); // of another request
    call(NULL);
    assert_true(rp_hostd_script_drop(&hostd));
    assert_false(rp_hostd_script_drop(&hostd));
    add("2nd answer: drops");
    assert_false(rp_hostd_script_drop(&hostd));
    assert_true(rp_hostd_script_drop(&hostd));
    assert_false(rp_hostd_script_drop(&hostd));
}

static void start_job(const char *id, uint16_t type)
{
    const struct rp_hostd_job job = {.type = type, .class_name = "Msvm_ConcreteJob"};
    assert_int_equal(call(NULL), 0);
    rp_hostd_script_job(&hostd, id, &job);
}

static int at(const char *id, unsigned percent, unsigned *shown)
{
    struct rp_error err = {0};
    *shown = percent;
    return rp_hostd_script_progress(&hostd, id, shown, &err);
}

static void a_job_hangs_at_its_percentage_until_it_is_released(void **state)
{
    (void)state;
    unsigned shown;
    add("next CreateSnapshot: job hangs at 60 %");
    start_job("A", 62);
    start_job("B", 62);
    assert_int_equal(at("A", 0, &shown), 0);
    assert_int_equal(at("A", 59, &shown), 0);
    rp_lab_faults_release(hostd.script); // it does not hang yet
    assert_int_equal(at("A", 70, &shown), 1);
    assert_int_equal(shown, 60);
    assert_int_equal(at("A", 70, &shown), 1);
    assert_int_equal(at("B", 70, &shown), 0);
    rp_lab_faults_release(hostd.script);
    assert_int_equal(at("A", 70, &shown), 0);
    assert_int_equal(shown, 70);
}

static void a_job_that_is_done_at_one_stroke_hangs_and_fails_before_it_begins(void **state)
{
    (void)state;
    unsigned shown;
    add("next CreateSnapshot: job hangs at 60 % for 0.05 s");
    add("2nd CreateSnapshot: job fails at 40 %: why");
    start_job("A", 70);
    assert_int_equal(at("A", 0, &shown), 1);
    assert_int_equal(shown, 60);
    usleep(60000);
    assert_int_equal(at("A", 0, &shown), 0);
    assert_int_equal(shown, 0);
    start_job("B", 70);
    struct rp_error err = {0};
    shown = 0;
    assert_int_equal(rp_hostd_script_progress(&hostd, "B", &shown, &err), -1);
    assert_string_equal(err.text, "why");
    assert_int_equal(at("B", 0, &shown), 0); // once
}

static void a_job_fails_at_its_end_although_its_work_is_done(void **state)
{
    (void)state;
    unsigned shown;
    add("next CreateSnapshot: job fails at 100 %: too late");
    start_job("A", 70);
    assert_int_equal(at("A", 0, &shown), 0);
    assert_int_equal(at("A", 100, &shown), -1);
}

static void a_full_disk_is_an_error_of_space(void **state)
{
    (void)state;
    unsigned shown = 55;
    struct rp_error err = {0};
    add("next CreateSnapshot: disk full at 50 %");
    start_job("A", 62);
    assert_int_equal(rp_hostd_script_progress(&hostd, "A", &shown, &err), -1);
    assert_int_equal(err.code, RP_ERR_NO_SPACE);
    assert_non_null(strstr(err.text, "0x80070070"));
}

static void a_call_that_is_answered_before_starts_no_job(void **state)
{
    (void)state;
    unsigned shown;
    add("next CreateSnapshot: job fails at 0 %: why");
    add("next CreateSnapshot: returns 5");
    assert_int_equal(call(NULL), 5);
    listed("[\"next CreateSnapshot: job fails at 0 %: why\"]");
    start_job("A", 70);
    assert_int_equal(at("A", 0, &shown), -1);
}

static void only_who_wants_application_consistency_is_refused_the_freeze(void **state)
{
    (void)state;
    unsigned shown;
    const struct rp_hostd_job job = {.type = 70, .class_name = "Msvm_ConcreteJob"};
    add("every CreateSnapshot: freeze refused");
    static const struct { const char *settings; int result; } cases[] = {
        {"<INSTANCE CLASSNAME=\"X\"><PROPERTY NAME=\"ConsistencyLevel\" TYPE=\"uint8\"><VALUE>2</VALUE></PROPERTY>"
         "</INSTANCE>", 0},
        {"<INSTANCE CLASSNAME=\"X\"><PROPERTY NAME=\"ConsistencyLevel\" TYPE=\"uint8\"><VALUE>1</VALUE></PROPERTY>"
         "</INSTANCE>", -1},
        {NULL, -1}, {"", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(call(cases[i].settings), 0);
        rp_hostd_script_job(&hostd, "A", &job);
        assert_int_equal(at("A", 0, &shown), cases[i].result);
    }
}

static void when_the_lab_ends_nothing_hangs_or_waits(void **state)
{
    (void)state;
    unsigned shown;
    add("next CreateSnapshot: job hangs at 60 %");
    start_job("A", 70);
    assert_int_equal(at("A", 0, &shown), 1);
    add("next CreateSnapshot: waits 3600 s");
    rp_lab_faults_stop(hostd.script);
    assert_int_equal(at("A", 0, &shown), 0);
    call(NULL);
}

static void a_script_file_is_refused_with_the_number_of_the_line(void **state)
{
    (void)state;
    char path[] = "/tmp/refpoint-script-XXXXXX";
    static const char text[] = "# good\nnext CreateSnapshot: drops\n\nnext CreateSnapshoot: drops\n";
    int fd = mkstemp(path);
    struct rp_error err = {0};
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    assert_int_equal(rp_lab_control_file(&hostd, NULL, path, &err), -1);
    unlink(path);
    assert_non_null(strstr(err.text, ": line 4: \"CreateSnapshoot\" is no method"));
    listed("[\"next CreateSnapshot: drops\"]");
}

static void a_thousand_faults_are_enough(void **state)
{
    (void)state;
    struct rp_lab_line line = parse("next CreateSnapshot: drops");
    struct rp_error err = {0};
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(rp_lab_faults_add(hostd.script, &line.fault, "x", NULL), 0);
    assert_int_equal(rp_lab_faults_add(hostd.script, &line.fault, "x", &err), -1);
    assert_int_equal(err.code, RP_ERR_INVALID);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, with_script, without_script)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_are_understood),
        cmocka_unit_test(deeds_are_understood),
        cmocka_unit_test(mistakes_are_told_with_the_word_that_is_wrong),
        with(calls_are_counted),
        with(an_answer_is_dropped_when_its_call_was_to_be_or_any),
        with(a_job_hangs_at_its_percentage_until_it_is_released),
        with(a_job_that_is_done_at_one_stroke_hangs_and_fails_before_it_begins),
        with(a_job_fails_at_its_end_although_its_work_is_done),
        with(a_full_disk_is_an_error_of_space),
        with(a_call_that_is_answered_before_starts_no_job),
        with(only_who_wants_application_consistency_is_refused_the_freeze),
        with(when_the_lab_ends_nothing_hangs_or_waits),
        with(a_script_file_is_refused_with_the_number_of_the_line),
        with(a_thousand_faults_are_enough),
    };
    return cmocka_run_group_tests_name("lab", tests, NULL, NULL);
}
