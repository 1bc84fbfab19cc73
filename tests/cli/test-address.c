// Addresses of restore points, and text that comes from elsewhere.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/address.h"
#include "cli/point_json.h"

#define A "11111111-1111-4111-8111-111111111111"
#define B "22222222-2222-4222-8222-222222222222"
#define C "33333333-3333-4333-8333-333333333333"

// Oldest first. Two VMs are called "twin"; one has a name that looks like an address.
static struct rp_point items[] = {
    {.id = "aa01", .vm_id = (char *)A, .vm_name = (char *)"web1", .host = (char *)"local:/h1"},
    {.id = "ab02", .vm_id = (char *)B, .vm_name = (char *)"twin", .host = (char *)"local:/h1"},
    {.id = "ac03", .vm_id = (char *)A, .vm_name = (char *)"web1", .host = (char *)"local:/h1"},
    {.id = "bd04", .vm_id = (char *)C, .vm_name = (char *)"twin", .host = (char *)"local:/h2"},
    {.id = "be05", .vm_id = (char *)C, .vm_name = (char *)"we@ird/x:1", .host = (char *)"local:/h2"},
    {.id = "bf06", .vm_id = (char *)A, .vm_name = (char *)"web1", .host = (char *)"local:/h1"},
};
static struct rp_points points = {.items = items, .count = sizeof items / sizeof *items};

static int setup(void **state)
{
    (void)state;
    static const char *const times[] = {"2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z", "2026-11-21T23:59:59.5Z",
                                        "2026-11-22T00:00:00Z", "2026-11-22T10:00:00Z", "2026-11-22T12:00:01Z"};
    for (size_t i = 0; i < points.count; i++) {
        assert_int_equal(rp_time_parse(times[i], &items[i].time_ns, NULL), 0);
        items[i].order_ns = items[i].time_ns;
    }
    return 0;
}

static struct rp_error err;

// "ID", "ID:DISK", or "!code".
static void expect_as(const char *vm, const char *text, const char *expected)
{
    struct rp_cli cli = {0};
    char *argv[] = {(char *)"list", (char *)"--vm", (char *)vm};
    assert_int_equal(rp_cli_parse(&cli, vm ? 3 : 1, argv, NULL), 0);
    struct rp_choice choice;
    char got[128];
    rp_error_clear(&err);
    if (rp_address_choose(&cli, &points, text, &choice, &err))
        snprintf(got, sizeof got, "!%s", rp_code_name(err.code));
    else if (choice.disk >= 0)
        snprintf(got, sizeof got, "%s:%d", choice.point->id, (int)choice.disk);
    else
        snprintf(got, sizeof got, "%s", choice.point->id);
    assert_string_equal(got, expected);
    rp_cli_clear(&cli);
}
static void expect(const char *text, const char *expected) { expect_as(NULL, text, expected); }

static void a_point_is_the_latest_or_one_before_it(void **state)
{
    (void)state;
    expect("web1", "bf06");
    expect("web1@latest", "bf06");
    expect("web1@-0", "bf06");
    expect("web1@-1", "ac03");
    expect("web1@-2", "aa01");
    expect("web1@-3", "!not-found");
    expect("web1@-", "!not-found");
    expect("web1@", "!usage");
}

static void a_point_is_named_by_the_beginning_of_its_id(void **state)
{
    (void)state;
    expect("web1@aa", "aa01");
    expect("web1@AC", "ac03");
    expect("web1@a", "!invalid"); // aa01 and ac03
    assert_non_null(strstr(err.text, "aa01"));
    assert_non_null(strstr(err.text, "ac03"));
    expect("web1@b", "bf06"); // bd04 and be05 are other VMs'
    expect("web1@be", "!not-found");
    expect("@be", "be05");
    expect("@b", "!invalid");
}

static void a_date_means_the_newest_point_up_to_it(void **state)
{
    (void)state;
    expect("web1@2026-11-22T12:00:00", "ac03");
    expect("web1@2026-11-22T12:00:01", "bf06");
    expect("web1@2026-11-22 12:00", "ac03");
    expect("web1@2026-11-22T12:00", "ac03");
    expect("web1@2026-11-21", "ac03"); // to the end of the day
    expect("web1@2026-11-20", "aa01");
    expect("web1@2026-11-19", "!not-found");
    expect("@2026-11-22T00:00:00", "bd04");
    expect("web1@2026-11-31", "!not-found"); // and not 1 December
}

static void a_date_copied_from_our_own_output_means_that_point(void **state)
{
    (void)state;
    const int64_t was = items[5].order_ns;
    items[5].time_ns = items[5].order_ns = was + 123456789;
    char listed[RP_CLI_TIME], whole[RP_TIME_TEXT], address[64];
    snprintf(address, sizeof address, "web1@%s", rp_point_time(&items[5], listed));
    expect(address, "bf06");
    snprintf(address, sizeof address, "web1@%s", rp_time_format(items[5].time_ns, whole));
    expect(address, "bf06");
    expect("web1@2026-11-22T12:00:01.123456789Z", "bf06");
    expect("web1@2026-11-22T12:00:01.1234567890001Z", "bf06");
    expect("web1@2026-11-22T12:00:01.12Z", "bf06");
    expect("web1@2026-11-22T12:00:01.122Z", "ac03");
    expect("web1@2026-11-22T12:00:01.12345678Z:1", "bf06:1");
    expect("web1@2026-11-22T12:00:00", "ac03");
    items[5].time_ns = items[5].order_ns = was;
}

static void a_disk_may_follow_a_point_also_when_it_is_a_date(void **state)
{
    (void)state;
    expect("web1:2", "bf06:2");
    expect("web1@latest:0", "bf06:0");
    expect("web1@aa:10", "aa01:10");
    expect("web1@2026-11-22T12:00:00:1", "ac03:1");
    expect("web1@2026-11-22T12:00:00Z:1", "ac03:1");
    expect("web1@2026-11-22T12:00Z:1", "ac03:1");
    expect("web1@2026-11-21:1", "ac03:1");
    expect("web1@aa:x", "!not-found");
}

static void a_vm_is_an_exact_name_or_a_guid_and_never_guessed(void **state)
{
    (void)state;
    expect(A, "bf06");
    expect("web", "!not-found");
    expect("WEB1", "!not-found");
    expect("twin", "!invalid");
    assert_non_null(strstr(err.text, B));
    assert_non_null(strstr(err.text, C));
    expect(B, "ab02");
    expect("22222222-2222-4222-8222-222222222222@latest", "ab02");
    expect(C "@-1", "bd04"); // the VM was called otherwise then
    expect("local:/h2/twin", "be05");
    expect("local:/h1/twin@ab:3", "ab02:3");
    expect("local:/h3/twin", "!not-found");
}

static void names_that_look_like_addresses_are_found_as_a_whole(void **state)
{
    (void)state;
    expect("we@ird/x:1", "be05");
    expect_as("we@ird/x:1", NULL, "be05");
    expect_as("we@ird/x:1", "@-1:7", "bd04:7");
    expect_as("web1", "@aa", "aa01");
    expect_as("web1", "web1", "!usage");
    expect(NULL, "!usage");
}

// A script whose variable is not set must not get whatever was backed up last.
static void an_empty_address_is_no_vm(void **state)
{
    (void)state;
    expect("", "!usage");
    expect(":1", "!usage");
    expect_as("", NULL, "!not-found");
    expect_as("web1", "", "!usage");
    expect("@latest", "bf06"); // for who only looks
}

static void hostile_text_cannot_command_the_terminal(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        {"web1 Größe 日本 😀", "web1 Größe 日本 😀"},
        {"\x1b[2Jgone", "\\x1b[2Jgone"},
        {"a\nrefpoint: all good", "a\\x0arefpoint: all good"},
        {"a\r\tb\x7f", "a\\x0d\\x09b\\x7f"},
        {"\xc2\x9b" "31m", "\\x9b31m"},                       // C1: CSI in one character
        {"abc\xe2\x80\xae" "fdp.exe", "abc\\u{202e}fdp.exe"}, // right-to-left override
        {"a\xe2\x80\x8b" "b", "a\\u{200b}b"},
        {"\xff\xc0\x80\xed\xa0\x80", "\\xff\\xc0\\x80\\xed\\xa0\\x80"}, // not UTF-8, overlong, a surrogate
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
        {"cut \xe6\x97", "cut \\xe6\\x97"},
        {NULL, ""},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(rp_cli_safe(texts[i][0]), texts[i][1]);
    json_t *text = rp_cli_json_text("a\xff" "b");
    assert_string_equal(json_string_value(text), "a\xef\xbf\xbd" "b");
    json_decref(text);
}

static void the_command_line_is_understood_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *words[8];
        const char *refused; // part of the message; NULL: good
    } lines[] = {
        {{"list"}, NULL},
        {{"-r", "x", "list", "web1", "--json"}, NULL},
        {{"list", "-rx", "-qv"}, NULL},
        {{"restore", "--to=/x", "-Oraw", "a@-1"}, NULL},
        {{"restore", "--", "-x"}, NULL},
        {{"--help"}, NULL},
        {{"vm", "--help"}, NULL},
        {{"backup", "--nosuch", "--help"}, "unknown option --nosuch"},
        {{0}, "no command"},
        {{"nosuch"}, "unknown command \"nosuch\""},
        {{"repo"}, "what?"},
        {{"repo", "nosuch"}, "unknown command \"repo nosuch\""},
        {{"list", "a", "b"}, "too many arguments"},
        {{"list", "--full"}, "unknown option --full"},
        {{"list", "-X"}, "unknown option -X"},
        {{"restore", "a", "--to"}, "--to needs a value"},
        {{"list", "-r"}, "-r needs a value"},
        {{"list", "--json=yes"}, "takes no value"},
        {{"repo", "init", "-n"}, "no dry run"},
        {{"--full", "backup"}, "before the command"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct rp_cli cli = {0};
        char *argv[9] = {0};
        int argc = 0;
        for (; argc < 8 && lines[i].words[argc]; argc++)
            argv[argc] = (char *)lines[i].words[argc];
        rp_error_clear(&err);
        int result = rp_cli_parse(&cli, argc, argv, &err);
        if (!lines[i].refused && result)
            fail_msg("line %zu: %s", i, err.text);
        if (lines[i].refused) {
            assert_int_equal(result, -1);
            assert_int_equal(err.code, RP_ERR_USAGE);
            if (!strstr(err.text, lines[i].refused))
                fail_msg("line %zu: %s", i, err.text);
        }
        rp_cli_clear(&cli);
    }
}

static void every_verb_is_described_completely(void **state)
{
    (void)state;
    for (const struct rp_cli_group *group = rp_cli_groups; group->title; group++) {
        for (const struct rp_cli_verb *verb = group->verbs; verb->name; verb++) {
            if (!verb->arguments || !verb->summary || !verb->run || !verb->examples || !strstr(verb->examples, verb->name))
                fail_msg("%s: not described", verb->name);
            if (verb->min_args > verb->max_args)
                fail_msg("%s: nothing would be right", verb->name);
            for (const struct rp_cli_option *option = verb->options; option && option->name; option++)
                for (const struct rp_cli_option *global = rp_cli_global_options; global->name; global++)
                    if (!strcmp(option->name, global->name) || (option->letter && option->letter == global->letter))
                        fail_msg("%s: --%s hides a global option", verb->name, option->name);
        }
    }
}

static void a_host_is_one_of_the_hosts_file_or_a_local_folder(void **state)
{
    (void)state;
    char path[] = "/tmp/refpoint-hosts-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "[hv1]\nurl = https://hv1\n", 24), 24);
    close(fd);
    setenv("REFPOINT_HOSTS", path, 1);
    static const struct {
        const char *text, *host, *vm;
    } cases[] = {{"hv1/web1", "hv1", "web1"}, {"HV1/a/b", "HV1", "a/b"}, {"hv2/web1", NULL, "hv2/web1"}, {"web1", NULL, "web1"},
                 {"local:/srv/vms/web1", "local:/srv/vms", "web1"}, {"/web1", NULL, "/web1"}, {"hv1/", "hv1", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RP_AUTO_FREE char *host = NULL;
        const char *vm;
        rp_address_split_host(cases[i].text, &host, &vm);
        if (cases[i].host)
            assert_string_equal(host, cases[i].host);
        else
            assert_null(host);
        assert_string_equal(vm, cases[i].vm);
    }
    unlink(path);
    unsetenv("REFPOINT_HOSTS");
}

static void a_point_that_cannot_be_read_matters_to_who_asks_by_place(void **state)
{
    (void)state;
    static const char *const places[] = {"web1", "web1@latest", "web1@-1", "web1@2026-11-21", "web1:0", "web1@-1:0", "we@ird/x:1",
                                         "@latest"};
    static const char *const ids[] = {"web1@aa", "@be", "web1@aa:0"};
    struct rp_cli cli = {0};
    char *argv[] = {(char *)"list"};
    assert_int_equal(rp_cli_parse(&cli, 1, argv, NULL), 0);
    for (points.unreadable = 0; points.unreadable < 2; points.unreadable++) {
        assert_int_equal(rp_address_remark(&cli, &points, NULL), points.unreadable);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++)
            assert_int_equal(rp_address_remark(&cli, &points, places[i]), points.unreadable);
        for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
            assert_int_equal(rp_address_remark(&cli, &points, ids[i]), 0);
    }
    points.unreadable = 0;
    rp_cli_clear(&cli);
}

static void what_is_not_found_may_be_among_the_points_that_cannot_be_read(void **state)
{
    (void)state;
    static const char *const texts[] = {"nobody", "web1@99", "web1@-9", "web1@2001-01-01"};
    struct rp_cli cli = {0};
    struct rp_choice choice;
    const char *vm_id;
    char *argv[] = {(char *)"list"};
    assert_int_equal(rp_cli_parse(&cli, 1, argv, NULL), 0);
    for (points.unreadable = 0; points.unreadable < 2; points.unreadable++)
        for (size_t i = 0; i <= sizeof texts / sizeof *texts; i++) {
            rp_error_clear(&err);
            assert_int_equal(i ? rp_address_choose(&cli, &points, texts[i - 1], &choice, &err)
                               : rp_address_choose_vm(&points, "nobody", &vm_id, &err), -1);
            assert_int_equal(err.code, RP_ERR_NOT_FOUND);
            assert_int_equal(strstr(err.text, "; 1 restore point cannot be read (see refpoint check)") != NULL, points.unreadable);
        }
    points.unreadable = 0;
    rp_cli_clear(&cli);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_point_is_the_latest_or_one_before_it),
        cmocka_unit_test(a_point_is_named_by_the_beginning_of_its_id),
        cmocka_unit_test(a_date_means_the_newest_point_up_to_it),
        cmocka_unit_test(a_date_copied_from_our_own_output_means_that_point),
        cmocka_unit_test(a_disk_may_follow_a_point_also_when_it_is_a_date),
        cmocka_unit_test(a_point_that_cannot_be_read_matters_to_who_asks_by_place),
        cmocka_unit_test(what_is_not_found_may_be_among_the_points_that_cannot_be_read),
        cmocka_unit_test(a_vm_is_an_exact_name_or_a_guid_and_never_guessed),
        cmocka_unit_test(names_that_look_like_addresses_are_found_as_a_whole),
        cmocka_unit_test(an_empty_address_is_no_vm),
        cmocka_unit_test(hostile_text_cannot_command_the_terminal),
        cmocka_unit_test(the_command_line_is_understood_or_refused),
        cmocka_unit_test(every_verb_is_described_completely),
        cmocka_unit_test(a_host_is_one_of_the_hosts_file_or_a_local_folder),
    };
    return cmocka_run_group_tests_name("command line", tests, setup, NULL);
}
